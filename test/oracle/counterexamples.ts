// Queries and writes on which a rule that looks right misses an invalidation. Each was a mistake somewhere, or is the
// mistake that a rule of the analyzer is there to avoid.

export interface Counterexample {
  readonly name: string
  /** Statements that make the tables. */
  readonly setup: string
  readonly query: string
  readonly parameters?: ReadonlyArray<unknown>
  readonly write: string
  /** The mutants (see mutants.ts) that miss it. */
  readonly missedBy?: ReadonlyArray<string>
  /** Whether the query is asked by a role of its own, in a scope. */
  readonly scoped?: boolean
}

export const counterexamples: ReadonlyArray<Counterexample> = [
  // Outer joins
  {
    name: "IS NULL on the nullable side",
    setup: `CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE o (id int, user_id int, status text);
      INSERT INTO u VALUES (42)`,
    query: "SELECT u.id FROM u LEFT JOIN o ON o.user_id = u.id WHERE o.id IS NULL",
    write: "INSERT INTO o VALUES (5, 42, 'x')",
    missedBy: ["null-of-nullable"]
  },
  {
    name: "OR with IS NULL on the nullable side",
    setup: `CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE o (id int, user_id int, status text);
      INSERT INTO u VALUES (42)`,
    query: "SELECT u.id FROM u LEFT JOIN o ON o.user_id = u.id WHERE o.status = 'x' OR o.id IS NULL",
    write: "INSERT INTO o VALUES (5, 42, 'y')",
    missedBy: ["null-of-nullable", "or-rejects-null"]
  },
  {
    name: "ON says nothing of the preserved side",
    setup:
      `CREATE TABLE u (id int PRIMARY KEY, n int); CREATE TABLE o (id int, user_id int); INSERT INTO u VALUES (1, 0)`,
    query: "SELECT * FROM u LEFT JOIN o ON o.user_id = u.id AND u.id = 42",
    write: "INSERT INTO u VALUES (7, 7)",
    missedBy: ["outer-on"]
  },
  {
    name: "a constant is not carried into the preserved side",
    setup:
      `CREATE TABLE u (id int PRIMARY KEY, n int); CREATE TABLE o (id int, user_id int); INSERT INTO u VALUES (1, 0)`,
    query: "SELECT * FROM u LEFT JOIN o ON o.user_id = u.id AND o.user_id = 42",
    write: "INSERT INTO u VALUES (7, 7)",
    missedBy: ["outer-on"]
  },
  {
    name: "ON of a FULL JOIN says nothing of either side",
    setup: "CREATE TABLE a (id int); CREATE TABLE b (id int)",
    query: "SELECT * FROM a FULL JOIN b ON a.id = b.id AND a.id = 42",
    write: "INSERT INTO a VALUES (1)",
    missedBy: ["full-on"]
  },
  {
    name: "the merged column of a FULL JOIN",
    setup: "CREATE TABLE a (id int); CREATE TABLE b (id int)",
    query: "SELECT id FROM a FULL JOIN b USING (id) WHERE id = 42",
    write: "INSERT INTO b VALUES (42)"
  },
  {
    name: "the merged column of a RIGHT JOIN",
    setup: "CREATE TABLE a (id int, v int); CREATE TABLE b (id int); INSERT INTO b VALUES (42)",
    query: "SELECT id, v FROM a RIGHT JOIN b USING (id) WHERE id = 42",
    write: "INSERT INTO a VALUES (42, 1)"
  },
  // IN, ANY, ALL and NULL
  {
    name: "NOT IN over a NULL",
    setup: "CREATE TABLE u (id int); CREATE TABLE o (user_id int); INSERT INTO u VALUES (42)",
    query: "SELECT * FROM u WHERE u.id = 42 AND u.id NOT IN (SELECT user_id FROM o)",
    write: "INSERT INTO o VALUES (NULL)",
    missedBy: ["negation", "in-decides"]
  },
  {
    name: "IN in the select list",
    setup: "CREATE TABLE o (user_id int); INSERT INTO o VALUES (1)",
    query: "SELECT 42 IN (SELECT user_id FROM o)",
    write: "INSERT INTO o VALUES (NULL)"
  },
  {
    name: "= ALL of an empty array",
    setup: "CREATE TABLE o (id int, user_id int)",
    query: "SELECT * FROM o WHERE user_id = ALL ('{}'::int[])",
    write: "INSERT INTO o VALUES (1, 5)"
  },
  {
    name: "a constant = ANY of a column",
    setup: "CREATE TABLE o (id int, tags int[])",
    query: "SELECT * FROM o WHERE 42 = ANY (tags)",
    write: "INSERT INTO o VALUES (1, '{41,42}')"
  },
  {
    name: "NOT IN of a list",
    setup: "CREATE TABLE o (user_id int)",
    query: "SELECT * FROM o WHERE user_id NOT IN (42)",
    write: "INSERT INTO o VALUES (1)",
    missedBy: ["not-in"]
  },
  {
    name: "IS NOT TRUE",
    setup: "CREATE TABLE o (user_id int)",
    query: "SELECT * FROM o WHERE (user_id = 42) IS NOT TRUE",
    write: "INSERT INTO o VALUES (1)",
    missedBy: ["negation"]
  },
  // What a condition cannot pass
  {
    name: "LIMIT",
    setup: "CREATE TABLE o (id int, user_id int); INSERT INTO o VALUES (10, 42)",
    query: "SELECT * FROM (SELECT * FROM o ORDER BY id LIMIT 1) s WHERE user_id = 42",
    write: "INSERT INTO o VALUES (1, 7)",
    missedBy: ["through-limit"]
  },
  {
    name: "a window",
    setup: "CREATE TABLE o (id int, user_id int); INSERT INTO o VALUES (10, 42)",
    query: "SELECT * FROM (SELECT *, rank() OVER (ORDER BY id) r FROM o) s WHERE user_id = 42",
    write: "INSERT INTO o VALUES (1, 7)",
    missedBy: ["through-window"]
  },
  {
    name: "DISTINCT ON",
    setup: "CREATE TABLE o (id int, user_id int, st int); INSERT INTO o VALUES (10, 42, 1)",
    query: "SELECT * FROM (SELECT DISTINCT ON (st) * FROM o ORDER BY st, id) s WHERE user_id = 42",
    write: "INSERT INTO o VALUES (1, 7, 1)",
    missedBy: ["through-distinct-on"]
  },
  {
    name: "FILTER",
    setup: "CREATE TABLE o (id int, user_id int)",
    query: "SELECT count(*) FILTER (WHERE user_id = 42), count(*) FROM o",
    write: "INSERT INTO o VALUES (1, 7)"
  },
  {
    name: "HAVING without GROUP BY",
    setup: "CREATE TABLE o (id int, user_id int); INSERT INTO o VALUES (1, 42)",
    query: "SELECT max(user_id) m FROM o HAVING max(user_id) = 42",
    write: "INSERT INTO o VALUES (2, 99)"
  },
  {
    name: "GROUPING SETS",
    setup: "CREATE TABLE o (user_id int)",
    query:
      "SELECT * FROM (SELECT user_id, count(*) c FROM o GROUP BY GROUPING SETS ((), (user_id))) s WHERE user_id IS NULL",
    write: "INSERT INTO o VALUES (1)",
    missedBy: ["through-aggregate"]
  },
  {
    name: "recursion",
    setup: "CREATE TABLE n (id int, parent int); INSERT INTO n VALUES (42, 0), (43, 42)",
    query: `WITH RECURSIVE t AS (
        SELECT * FROM n WHERE id = 42 UNION ALL SELECT n.* FROM n JOIN t ON n.parent = t.id
      ) SELECT * FROM t`,
    write: "INSERT INTO n VALUES (44, 43)"
  },
  {
    name: "a view with LIMIT",
    setup: `CREATE TABLE o (id int, user_id int); CREATE VIEW top AS SELECT * FROM o ORDER BY id LIMIT 1;
      INSERT INTO o VALUES (10, 42)`,
    query: "SELECT * FROM top WHERE user_id = 42",
    write: "INSERT INTO o VALUES (1, 7)",
    missedBy: ["views"]
  },
  // Collations and types
  {
    name: "COLLATE in the condition",
    setup: "CREATE TABLE u (name text)",
    query: "SELECT * FROM u WHERE name = 'ADA' COLLATE nocase",
    write: "INSERT INTO u VALUES ('ada')",
    missedBy: ["kind"]
  },
  {
    name: "carried from one collation to another",
    setup: "CREATE TABLE a (name text); CREATE TABLE b (name text COLLATE nocase, v int); INSERT INTO a VALUES ('ADA')",
    query: "SELECT * FROM a JOIN b ON a.name = b.name WHERE a.name = 'ADA'",
    write: "INSERT INTO b VALUES ('ada', 1)",
    missedBy: ["kind"]
  },
  {
    name: "carried through a collation that is not deterministic",
    setup: "CREATE TABLE a (name text); CREATE TABLE b (name text COLLATE nocase); INSERT INTO b VALUES ('ada')",
    query: "SELECT a.name FROM a JOIN b ON a.name = b.name WHERE b.name = 'ADA'",
    write: "INSERT INTO a VALUES ('AdA')",
    missedBy: ["kind"]
  },
  {
    name: "carried through float8",
    setup: "CREATE TABLE a (k int8); CREATE TABLE f (x float8); INSERT INTO f VALUES (9007199254740992); " +
      "INSERT INTO a VALUES (9007199254740993)",
    query: "SELECT a.k FROM a JOIN f ON a.k = f.x JOIN a a2 ON a2.k = f.x WHERE a2.k = 9007199254740993",
    write: "INSERT INTO a VALUES (9007199254740992)",
    missedBy: ["same-kind", "self-join"]
  },
  {
    name: "a domain over citext",
    setup: "CREATE DOMAIN em AS citext; CREATE TABLE u (e em)",
    query: "SELECT * FROM u WHERE e = 'ADA'",
    write: "INSERT INTO u VALUES ('ada')",
    missedBy: ["kind"]
  },
  {
    name: "blanks that varchar(n) cuts off",
    setup: "CREATE TABLE u (v varchar(3))",
    query: "SELECT v || '|' FROM u WHERE v = 'ab '",
    write: "INSERT INTO u VALUES ('ab      ')",
    missedBy: ["modifier"]
  },
  {
    name: "varchar beside bpchar",
    setup: "CREATE TABLE u (v varchar(9))",
    query: "SELECT v || '|' FROM u WHERE v = 'ab '::char(4)",
    write: "INSERT INTO u VALUES ('ab')"
  },
  {
    name: "text beside bpchar",
    setup: "CREATE TABLE u (v text)",
    query: "SELECT v || '|' FROM u WHERE v = 'ab'::bpchar",
    write: "INSERT INTO u VALUES ('ab')"
  },
  {
    name: "name cuts off",
    setup: "CREATE TABLE u (v name)",
    query: `SELECT v FROM u WHERE v = '${"a".repeat(63)}'`,
    write: `INSERT INTO u VALUES ('${"a".repeat(70)}')`,
    missedBy: ["kind"]
  },
  {
    name: "a numeric beside an integer",
    setup: "CREATE TABLE o (user_id int)",
    query: "SELECT * FROM o WHERE user_id = 42.0",
    write: "INSERT INTO o VALUES (42)"
  },
  {
    name: "another spelling of true",
    setup: "CREATE TABLE o (a bool)",
    query: "SELECT * FROM o WHERE a = 'yes'",
    write: "INSERT INTO o VALUES (true)",
    missedBy: ["canonical"]
  },
  {
    name: "another spelling of a date",
    setup: "CREATE TABLE o (d date)",
    query: "SELECT d::text FROM o WHERE d = 'Jan 5 2024'",
    write: "INSERT INTO o VALUES ('2024-01-05')",
    missedBy: ["canonical"]
  },
  {
    name: "what is assigned to an integer is rounded",
    setup: "CREATE TABLE o (a int)",
    query: "SELECT * FROM o WHERE a = 3",
    write: "INSERT INTO o VALUES (2.5)"
  },
  {
    name: "another operator of the same name",
    setup: `CREATE TABLE u (v text);
      CREATE FUNCTION teq(text, text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT lower($1) = lower($2)';
      CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = teq)`,
    query: "SELECT * FROM u WHERE v OPERATOR(public.=) 'ADA'",
    write: "INSERT INTO u VALUES ('ada')"
  },
  // Names
  {
    name: "a WITH name in the query before it",
    setup: "CREATE TABLE orders (id int); CREATE TABLE arch (id int)",
    query: "WITH a AS (SELECT * FROM orders), orders AS (SELECT 1 AS id) SELECT a.id FROM a",
    write: "INSERT INTO orders VALUES (1)"
  },
  {
    name: "a target is never a WITH name",
    setup: "CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)",
    query: "SELECT * FROM orders",
    write: "WITH orders AS (SELECT 1) DELETE FROM orders"
  },
  {
    name: "a name without a table is the outer query's",
    setup: "CREATE TABLE u (id int); CREATE TABLE o (user_id int); INSERT INTO u VALUES (42)",
    query: "SELECT * FROM u WHERE EXISTS (SELECT 1 FROM o WHERE id = 42)",
    write: "INSERT INTO o VALUES (7)"
  },
  // What a write does besides what it says
  {
    name: "ON CONFLICT finds another row",
    setup: `CREATE TABLE u (id int PRIMARY KEY, email text UNIQUE, name text); INSERT INTO u VALUES (3, 'a', 'old')`,
    query: "SELECT * FROM u WHERE id = 3",
    write: "INSERT INTO u (id, email, name) VALUES (9, 'a', 'new') ON CONFLICT (email) DO UPDATE SET name = 'new'",
    missedBy: ["on-conflict"]
  },
  {
    name: "a trigger changes what is inserted",
    setup: `CREATE TABLE o (id int, user_id int);
      CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.user_id := 42; RETURN NEW; END $$;
      CREATE TRIGGER t BEFORE INSERT ON o FOR EACH ROW EXECUTE FUNCTION f()`,
    query: "SELECT * FROM o WHERE user_id = 42",
    write: "INSERT INTO o VALUES (1, 7)",
    missedBy: ["before-row", "triggers"]
  },
  {
    name: "a trigger changes what is not assigned",
    setup: `CREATE TABLE o (id int, user_id int, s int); INSERT INTO o VALUES (1, 42, 0);
      CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.user_id := 43; RETURN NEW; END $$;
      CREATE TRIGGER t BEFORE UPDATE ON o FOR EACH ROW EXECUTE FUNCTION f()`,
    query: "SELECT * FROM o WHERE user_id = 42",
    write: "UPDATE o SET s = 1 WHERE id = 1 RETURNING *",
    missedBy: ["before-row", "triggers"]
  },
  {
    name: "a generated column",
    setup: `CREATE TABLE o (id int, a int, g int GENERATED ALWAYS AS (a + 1) STORED); INSERT INTO o VALUES (1, 41)`,
    query: "SELECT * FROM o WHERE g = 42",
    write: "UPDATE o SET a = 1 WHERE id = 1 RETURNING *",
    missedBy: ["generated"]
  },
  {
    name: "ON DELETE SET DEFAULT",
    setup: `CREATE TABLE p (id int PRIMARY KEY);
      CREATE TABLE ch (id int, pid int DEFAULT 0 REFERENCES p ON DELETE SET DEFAULT);
      INSERT INTO p VALUES (0), (42); INSERT INTO ch VALUES (1, 42)`,
    query: "SELECT * FROM ch WHERE pid = 0",
    write: "DELETE FROM p WHERE id = 42",
    missedBy: ["foreign keys"]
  },
  {
    name: "ON UPDATE CASCADE onto the same table",
    setup: `CREATE TABLE e (id int PRIMARY KEY, mgr int REFERENCES e ON UPDATE CASCADE);
      INSERT INTO e VALUES (1, NULL), (2, 1)`,
    query: "SELECT * FROM e WHERE mgr = 1",
    write: "UPDATE e SET id = 9 WHERE id = 1 RETURNING *",
    missedBy: ["foreign keys"]
  },
  {
    name: "MERGE reaches rows that ON does not match",
    setup: "CREATE TABLE o (id int, s int); INSERT INTO o VALUES (1, 0), (2, 0)",
    query: "SELECT * FROM o WHERE id = 2",
    write: `MERGE INTO o USING (VALUES (1)) v(id) ON o.id = v.id
      WHEN MATCHED THEN UPDATE SET s = 1 WHEN NOT MATCHED BY SOURCE THEN DELETE`
  },
  {
    name: "a rule on a view",
    setup: `CREATE TABLE o (id int, user_id int); CREATE VIEW ov AS SELECT * FROM o;
      CREATE RULE r AS ON INSERT TO ov DO INSTEAD INSERT INTO o VALUES (NEW.id, NEW.user_id + 1)`,
    query: "SELECT * FROM o WHERE user_id = 42",
    write: "INSERT INTO ov VALUES (1, 41)"
  },
  {
    name: "a partition by its own name",
    setup: `CREATE TABLE o (id int, user_id int) PARTITION BY LIST (user_id);
      CREATE TABLE o1 PARTITION OF o FOR VALUES IN (42); CREATE TABLE o2 PARTITION OF o DEFAULT`,
    query: "SELECT * FROM o WHERE id = 1",
    write: "INSERT INTO o1 VALUES (1, 42)",
    missedBy: ["parents"]
  },
  {
    name: "a partition through the whole",
    setup: `CREATE TABLE o (id int, user_id int) PARTITION BY LIST (user_id);
      CREATE TABLE o1 PARTITION OF o FOR VALUES IN (42); CREATE TABLE o2 PARTITION OF o DEFAULT`,
    query: "SELECT * FROM o1 WHERE id = 1",
    write: "INSERT INTO o VALUES (1, 42)",
    missedBy: ["parents", "children"]
  },
  {
    name: "inheritance",
    setup: "CREATE TABLE o (id int); CREATE TABLE oc () INHERITS (o)",
    query: "SELECT * FROM o WHERE id = 1",
    write: "INSERT INTO oc VALUES (1)",
    missedBy: ["parents"]
  },
  {
    name: "a default that writes",
    setup: `CREATE TABLE lg (n int);
      CREATE FUNCTION dw() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO lg VALUES (1); RETURN 1; END $$;
      CREATE TABLE o (id int, v int DEFAULT dw())`,
    query: "SELECT count(*) FROM lg",
    write: "INSERT INTO o (id) VALUES (1)",
    missedBy: ["defaults that call"]
  },
  {
    name: "a trigger that waits for the commit",
    setup: `CREATE TABLE lg (n int); CREATE TABLE o (id int);
      CREATE FUNCTION dt() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO lg VALUES (1); RETURN NULL; END $$;
      CREATE CONSTRAINT TRIGGER t AFTER INSERT ON o DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dt()`,
    query: "SELECT count(*) FROM lg",
    write: "INSERT INTO o VALUES (1)",
    missedBy: ["triggers", "deferred triggers"]
  },
  {
    name: "a stable function over a writing one",
    setup: `CREATE TABLE lg (n int);
      CREATE FUNCTION vw() RETURNS int LANGUAGE plpgsql VOLATILE AS $$ BEGIN INSERT INTO lg VALUES (1); RETURN 1; END $$;
      CREATE FUNCTION st() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN vw(); END $$`,
    query: "SELECT count(*) FROM lg",
    write: "SELECT st()",
    missedBy: ["bodies that read"]
  },
  // What a query reads besides what it says
  {
    name: "an immutable function that reads",
    setup: `CREATE TABLE t1 (id int);
      CREATE FUNCTION im() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT count(*) FROM t1'`,
    query: "SELECT im()",
    write: "INSERT INTO t1 VALUES (1)",
    missedBy: ["bodies that read"]
  },
  {
    name: "a policy that reads another table",
    setup: `CREATE TABLE m (uid text, org int); CREATE TABLE d (id int, org int); INSERT INTO d VALUES (1, 5);
      ALTER TABLE d ENABLE ROW LEVEL SECURITY;
      CREATE POLICY p ON d USING (org IN (SELECT org FROM m WHERE uid = current_user)); GRANT SELECT ON d, m TO reader`,
    query: "SELECT * FROM d",
    write: "INSERT INTO m VALUES ('reader', 5)",
    scoped: true,
    missedBy: ["policies"]
  },
  {
    name: "a temporary table in front of another",
    setup: `CREATE TABLE orders (id int); INSERT INTO orders VALUES (1); CREATE TEMP TABLE orders (id int)`,
    query: "SELECT * FROM orders",
    write: "INSERT INTO orders VALUES (5)"
  },
  // Where one rule alone is not enough, or is enough
  {
    name: "one parameter in two places",
    setup: "CREATE TABLE c (k char(3)); CREATE TABLE a (t text); INSERT INTO c VALUES ('a')",
    query: "SELECT a.t FROM c JOIN a ON true WHERE c.k = $1 AND a.t = $1",
    parameters: ["a "],
    write: "INSERT INTO a VALUES ('a')",
    missedBy: ["shared-parameter"]
  },
  {
    name: "an operator that fits better than PostgreSQL's own",
    setup: `CREATE TABLE u (v varchar);
      CREATE FUNCTION veq(varchar, varchar) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT lower($1) = lower($2)';
      CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = veq)`,
    query: "SELECT * FROM u WHERE v = 'ADA'",
    write: "INSERT INTO u VALUES ('ada')"
  },
  {
    name: "arms of a UNION with types of their own",
    setup: "CREATE TABLE a (k int8); CREATE TABLE f (x float8)",
    query: "SELECT * FROM (SELECT k FROM a UNION ALL SELECT x FROM f) s WHERE k = 9007199254740993",
    write: "INSERT INTO a VALUES (9007199254740992)",
    missedBy: ["through-set-operation"]
  },
  {
    name: "a WITH query that is read twice",
    setup: "CREATE TABLE o (id int, user_id int); INSERT INTO o VALUES (1, 42)",
    query: "WITH c AS (SELECT * FROM o) SELECT (SELECT count(*) FROM c) FROM c WHERE user_id = 42",
    write: "INSERT INTO o VALUES (2, 7)",
    missedBy: ["through-shared-cte"]
  },
  {
    name: "a condition on what recursion finds",
    setup: "CREATE TABLE n (id int, parent int); INSERT INTO n VALUES (42, 0), (44, 43)",
    query: `WITH RECURSIVE t AS (
        SELECT id, parent FROM n WHERE parent = 0 UNION ALL SELECT n.id, n.parent FROM n JOIN t ON n.parent = t.id
      ) SELECT * FROM t WHERE id = 44`,
    write: "INSERT INTO n VALUES (43, 42)",
    missedBy: ["through-recursion"]
  },
  {
    name: "a default that is not named",
    setup: "CREATE TABLE o (id int, user_id int DEFAULT 42)",
    query: "SELECT * FROM o WHERE user_id = 42",
    write: "INSERT INTO o (id) VALUES (1)",
    missedBy: ["default"]
  },
  {
    name: "a rule that changes the row that was inserted",
    setup: `CREATE TABLE o (id int, user_id int);
      CREATE RULE r AS ON INSERT TO o DO ALSO UPDATE o SET user_id = 42 WHERE id = NEW.id`,
    query: "SELECT * FROM o WHERE user_id = 42",
    write: "INSERT INTO o VALUES (1, 7)",
    missedBy: ["rewrite rules"]
  },
  {
    name: "a function that writes, under a trigger",
    setup: `CREATE TABLE lg (n int); CREATE TABLE o (id int);
      CREATE FUNCTION write_lg() RETURNS int LANGUAGE sql AS 'INSERT INTO lg VALUES (1) RETURNING n';
      CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM write_lg(); RETURN NULL; END $$;
      CREATE TRIGGER t AFTER INSERT ON o FOR EACH STATEMENT EXECUTE FUNCTION t()`,
    query: "SELECT count(*) FROM lg",
    write: "INSERT INTO o VALUES (1)",
    missedBy: ["bodies that write"]
  },
  {
    name: "the row as it is afterwards",
    setup: "CREATE TABLE o (id int, user_id int); INSERT INTO o VALUES (1, 42)",
    query: "SELECT * FROM o WHERE user_id = 7",
    write: "UPDATE o SET user_id = user_id - 35 WHERE user_id = 42",
    missedBy: ["assigned"]
  },
  {
    name: "one table twice",
    setup: "CREATE TABLE o (id int, user_id int); INSERT INTO o VALUES (1, 42), (2, 7)",
    query: "SELECT a.id, b.id FROM o a JOIN o b ON true WHERE a.user_id = 42 AND b.user_id = 7",
    write: "INSERT INTO o VALUES (3, 7)"
  },
  {
    name: "one table twice, the other way round",
    setup: "CREATE TABLE o (id int, user_id int); INSERT INTO o VALUES (1, 42), (2, 7)",
    query: "SELECT a.id, b.id FROM o a JOIN o b ON true WHERE a.user_id = 42 AND b.user_id = 7",
    write: "INSERT INTO o VALUES (3, 42)",
    missedBy: ["self-join"]
  },
  {
    name: "a name without a table is the inner query's if that has it",
    setup: "CREATE TABLE u (id int, k int); CREATE TABLE o (user_id int, k int); INSERT INTO o VALUES (1, 42)",
    query: "SELECT * FROM u WHERE EXISTS (SELECT 1 FROM o WHERE k = 42)",
    write: "INSERT INTO u VALUES (5, 7)",
    missedBy: ["correlation"]
  }
]
