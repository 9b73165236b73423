// The analyzer's tables against PostgreSQL's own: the plans it makes, and the dependencies it records for views.
import { PGlite } from "@electric-sql/pglite"
import * as Effect from "effect/Effect"
import * as FastCheck from "fast-check"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import * as QueryAnalyzer from "../../src/QueryAnalyzer.ts"

const analyze = await Effect.runPromise(
  Effect.provide(Effect.map(QueryAnalyzer.QueryAnalyzer, ({ analyze }) => analyze), QueryAnalyzer.layer())
)

const database = await PGlite.create()

beforeAll(() =>
  database.exec(`
    CREATE TABLE users (id int PRIMARY KEY, name text, email text, team_id int, created_at timestamptz, data jsonb);
    CREATE TABLE teams (id int PRIMARY KEY, name text, owner_id int);
    CREATE TABLE orders (id int PRIMARY KEY, user_id int, total numeric, status text, placed_at timestamptz);
    CREATE TABLE items (order_id int, product_id int, quantity int, price numeric);
    CREATE TABLE products (id int PRIMARY KEY, name text, tags text[], stock int, search tsvector);
    CREATE TABLE "Audit Log" (id int, "table" text, at timestamptz);
    CREATE TABLE tree (id int, parent_id int);
    CREATE SCHEMA archive;
    CREATE TABLE archive.orders (LIKE public.orders);
    CREATE TABLE archive.old (id int);
    CREATE TABLE a (a int);
    CREATE TABLE b (a int);
    CREATE TABLE c (a int);
    CREATE TABLE d (a int);
    CREATE TABLE archive.a (a int);
  `)
)
afterAll(() => database.close())

const statements = [
  "SELECT * FROM users WHERE id = $1",
  "SELECT u.*, t.name FROM users u JOIN teams t ON t.id = u.team_id WHERE u.name LIKE $1",
  "SELECT * FROM users, teams, orders",
  "SELECT * FROM users u LEFT JOIN LATERAL (SELECT * FROM orders o WHERE o.user_id = u.id LIMIT 3) o ON true",
  "SELECT * FROM users WHERE EXISTS (SELECT FROM orders WHERE user_id = users.id)",
  "SELECT * FROM users WHERE id NOT IN (SELECT user_id FROM orders WHERE status = $1)",
  "SELECT id, (SELECT count(*) FROM orders WHERE user_id = users.id) FROM users",
  "SELECT id, ARRAY(SELECT total FROM orders WHERE user_id = users.id ORDER BY 1) FROM users",
  "SELECT status, sum(total) FROM orders GROUP BY status HAVING sum(total) > (SELECT avg(price) FROM items)",
  "SELECT * FROM orders ORDER BY (SELECT name FROM users WHERE id = user_id), id LIMIT $1 OFFSET $2",
  "SELECT * FROM orders LIMIT (SELECT count(*) FROM teams)",
  "SELECT id FROM orders UNION SELECT id FROM archive.orders",
  "SELECT id FROM users INTERSECT SELECT user_id FROM orders EXCEPT SELECT owner_id FROM teams",
  "SELECT id FROM users UNION ALL (SELECT id FROM teams UNION ALL SELECT id FROM products)",
  `SELECT "table", max(at) FROM "Audit Log" GROUP BY 1`,
  "SELECT * FROM archive.old o JOIN public.orders USING (id)",
  "TABLE teams",
  "VALUES ((SELECT count(*) FROM users), 1), (2, (SELECT max(id) FROM teams))",
  "WITH x AS (SELECT * FROM users) SELECT * FROM x",
  "WITH x AS MATERIALIZED (SELECT * FROM users) SELECT * FROM x a JOIN x b USING (id)",
  "WITH users AS (SELECT * FROM teams) SELECT * FROM users",
  "WITH orders AS (SELECT * FROM archive.orders) SELECT * FROM orders o JOIN public.orders p USING (id)",
  "WITH x AS (SELECT * FROM users), y AS (SELECT * FROM x, teams) SELECT * FROM y",
  "WITH RECURSIVE r AS (SELECT id FROM tree WHERE parent_id IS NULL UNION ALL " +
  "SELECT t.id FROM tree t JOIN r ON t.parent_id = r.id) SELECT * FROM r JOIN users USING (id)",
  "SELECT * FROM (WITH q AS (SELECT * FROM items) SELECT order_id FROM q GROUP BY 1) s JOIN orders ON id = order_id",
  "SELECT sum(total) OVER (PARTITION BY user_id ORDER BY placed_at) FROM orders",
  "SELECT row_number() OVER w, lag(total) OVER w FROM orders WINDOW w AS (ORDER BY (SELECT max(id) FROM teams))",
  "SELECT count(*) FILTER (WHERE user_id IN (SELECT id FROM users)) FROM orders",
  "SELECT CASE WHEN stock > (SELECT sum(quantity) FROM items) THEN 1 ELSE (SELECT 2 FROM teams LIMIT 1) END FROM products",
  "SELECT coalesce((SELECT name FROM teams WHERE id = $1), (SELECT name FROM users WHERE id = $1))",
  "SELECT * FROM products WHERE tags && ARRAY(SELECT name FROM teams)",
  "SELECT * FROM products, unnest(tags) WITH ORDINALITY AS t(tag, n) WHERE tag = ANY ($1)",
  "SELECT * FROM generate_series(1, (SELECT max(id) FROM users)) g",
  "SELECT * FROM ROWS FROM (generate_series(1, 3), unnest(ARRAY(SELECT id FROM teams))) x",
  "SELECT j.* FROM users, JSON_TABLE(data, '$.a[*]' COLUMNS (x int PATH '$.x')) j",
  "SELECT jsonb_agg(u) FROM users u WHERE data @> (SELECT data FROM users ORDER BY id LIMIT 1)",
  "SELECT ts_rank(search, websearch_to_tsquery($1)) FROM products WHERE search @@ websearch_to_tsquery($1)",
  "SELECT date_trunc('day', placed_at), count(*) FROM orders GROUP BY 1 ORDER BY 1",
  "SELECT user_id, status, sum(total) FROM orders GROUP BY GROUPING SETS ((user_id), (status), ())",
  "SELECT DISTINCT ON (user_id) * FROM orders ORDER BY user_id, placed_at DESC",
  "SELECT * FROM users WHERE created_at > now() - interval '1 day'",
  "SELECT * FROM users u WHERE (u.id, u.team_id) = (SELECT owner_id, id FROM teams LIMIT 1)",
  "SELECT * FROM users WHERE id = ANY (SELECT user_id FROM orders) OR id < ALL (SELECT owner_id FROM teams)",
  "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total) FROM orders",
  "SELECT string_agg(name, ',' ORDER BY name) FROM teams",
  "INSERT INTO users (id, name) VALUES ($1, $2) RETURNING *",
  "INSERT INTO archive.orders SELECT * FROM orders WHERE placed_at < $1",
  "INSERT INTO teams (id) SELECT id FROM users ON CONFLICT (id) DO UPDATE SET name = (SELECT status FROM orders LIMIT 1)",
  "INSERT INTO orders (id, user_id) VALUES (1, (SELECT id FROM users LIMIT 1))",
  "INSERT INTO users (id) VALUES (1) RETURNING (SELECT count(*) FROM teams)",
  "UPDATE users SET name = $1 WHERE id = $2",
  "UPDATE orders o SET total = i.sum FROM (SELECT order_id, sum(price) FROM items GROUP BY 1) i WHERE i.order_id = o.id",
  "UPDATE products SET (name, stock) = (SELECT name, id FROM teams LIMIT 1)",
  "WITH users AS (SELECT * FROM teams) UPDATE users SET name = t.name FROM users t WHERE users.id = t.id",
  "DELETE FROM orders",
  "DELETE FROM orders USING users WHERE user_id = users.id AND users.name IS NULL",
  "DELETE FROM items WHERE order_id IN (SELECT id FROM orders WHERE status = $1)",
  "WITH gone AS (DELETE FROM orders WHERE id = $1 RETURNING *) INSERT INTO archive.orders SELECT * FROM gone",
  "WITH gone AS (DELETE FROM items RETURNING *), more AS (UPDATE products SET stock = 0 RETURNING id) " +
  "SELECT * FROM gone, teams",
  "MERGE INTO products p USING items i ON p.id = i.product_id WHEN MATCHED AND stock > (SELECT count(*) FROM teams) " +
  "THEN UPDATE SET stock = stock - quantity WHEN NOT MATCHED THEN INSERT (id) VALUES (i.product_id)",
  "WITH products AS (SELECT 1 AS id) MERGE INTO products USING products AS p ON products.id = p.id " +
  "WHEN MATCHED THEN DELETE"
]

const padding = " ".repeat(70_000)

const relationsIn = (plan: unknown): ReadonlyArray<string> =>
  Array.isArray(plan)
    ? plan.flatMap(relationsIn)
    : typeof plan === "object" && plan !== null
    ? Object.entries(plan).flatMap(([key, value]) =>
      key === "Relation Name" ? [JSON.stringify(value)] : relationsIn(value)
    )
    : []

// As dependencies are written: in quotes only where they must be.
const unquoted = (names: Iterable<string>): Array<string> =>
  [...new Set(names)].map((name) => /^"[A-Za-z_]\w*"$/.test(name) ? name.slice(1, -1) : name).sort()

describe("the tables of a plan", () => {
  for (const sql of statements) {
    it(sql, async () => {
      const [{ rows }] = await database.exec(`EXPLAIN (VERBOSE, GENERIC_PLAN, FORMAT JSON) ${sql}`)
      const planned = unquoted(relationsIn(rows[0]["QUERY PLAN"]))
      const analysis = analyze(sql)
      const found = analysis._tag === "Read"
        ? analysis.tables
        : analysis._tag === "Write"
        ? [...analysis.tables, ...analysis.reads]
        : []
      expect(analysis._tag).toBe(/\b(?:INSERT|UPDATE|DELETE|MERGE)\b/.test(sql) ? "Write" : "Read")
      expect(planned.length).toBeGreaterThan(0)
      // These are simple enough that the planner leaves no table out.
      expect(unquoted(found.map((name) => name.startsWith("\"") ? name : `"${name}"`))).toEqual(planned)
    })
  }
})

describe("the dependencies of a view", () => {
  const taken = FastCheck.constantFrom("a", "b", "c", "d", "x")
  const relation = FastCheck.oneof(
    { weight: 6, arbitrary: taken },
    { weight: 1, arbitrary: FastCheck.constantFrom("public.a", "public.b", "archive.a", "ONLY c", "\"d\"") }
  )

  // Queries with one column `a` each, nested in one another in whatever clause takes a query.
  const query: FastCheck.Arbitrary<string> = FastCheck.letrec<{ query: string; from: string; condition: string }>(
    (tie) => ({
      from: FastCheck.oneof(
        { maxDepth: 4, depthIdentifier: "query" },
        relation.map((name) => `${name} AS r`),
        tie("query").map((query) => `(${query}) r`),
        FastCheck.tuple(relation, tie("query")).map(([name, query]) => `${name} p JOIN (${query}) r USING (a)`),
        FastCheck.tuple(relation, tie("query")).map(([name, query]) =>
          `${name} p, LATERAL (SELECT p.a FROM (${query}) q) r`
        ),
        tie("query").map((query) => `generate_series(1, (SELECT max(g.a) FROM (${query}) g)) AS r(a)`)
      ),
      condition: FastCheck.oneof(
        { maxDepth: 4, depthIdentifier: "query" },
        FastCheck.constant("true"),
        tie("query").map((query) => `EXISTS (${query})`),
        tie("query").map((query) => `r.a NOT IN (${query})`),
        tie("query").map((query) => `r.a >= ALL (${query})`),
        tie("query").map((query) => `CASE r.a WHEN 1 THEN (SELECT count(*) FROM (${query}) k) ELSE 2 END > 1`),
        tie("query").map((query) => `cardinality(ARRAY(${query})) > 1`)
      ),
      query: FastCheck.oneof(
        { maxDepth: 4, depthIdentifier: "query" },
        FastCheck.tuple(tie("from"), tie("condition")).map(([from, condition]) =>
          `SELECT r.a FROM ${from} WHERE ${condition}`
        ),
        FastCheck.tuple(tie("from"), tie("query")).map(([from, query]) =>
          `SELECT r.a FROM ${from} GROUP BY r.a HAVING count(*) > (SELECT count(*) FROM (${query}) h)`
        ),
        FastCheck.tuple(tie("query"), tie("query"), FastCheck.constantFrom("UNION", "EXCEPT ALL", "INTERSECT")).map(
          ([left, right, operator]) => `(${left}) ${operator} (${right})`
        ),
        FastCheck.tuple(tie("from"), tie("query")).map(([from, query]) =>
          `SELECT r.a FROM ${from} ORDER BY (SELECT max(o.a) FROM (${query}) o) LIMIT 5`
        ),
        FastCheck.tuple(
          FastCheck.boolean(),
          FastCheck.uniqueArray(FastCheck.tuple(taken, tie("query")), {
            selector: ([name]) => name,
            minLength: 1,
            maxLength: 3
          }),
          tie("query")
        ).map(([recursive, queries, query]) =>
          `WITH ${recursive ? "RECURSIVE " : ""}${queries.map(([name, query]) => `${name} AS (${query})`).join(", ")} ${
            query.startsWith("WITH") ? `(${query})` : query
          }`
        ),
        tie("query").map((query) =>
          `VALUES (1), ((SELECT max(v.column1) FROM (VALUES ((SELECT max(w.a) FROM (${query}) w))) v))`
        )
          .map((query) => `SELECT column1 AS a FROM (${query}) z`)
      )
    })
  ).query

  it("are the tables found in generated queries", async () => {
    let compared = 0
    await FastCheck.assert(
      FastCheck.asyncProperty(query, async (sql) => {
        // Names that no WITH has taken, and recursion as PostgreSQL does not have it.
        if (await database.exec(`CREATE VIEW v AS ${sql}`).then(() => false, () => true)) return
        compared++
        const { rows } = await database.query<{ name: string }>(`
          SELECT DISTINCT c.relname AS name FROM pg_depend d
          JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
          JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
          WHERE r.ev_class = 'v'::regclass AND c.relname <> 'v' ORDER BY 1`)
        await database.exec("DROP VIEW v")
        const expected = { _tag: "Read", tables: rows.map((row) => row.name), timeDependent: false }
        expect(analyze(sql), sql).toEqual(expected)
        // Long enough to be read without its values and repetitions.
        expect(analyze(sql + padding), sql).toEqual(expected)
      }),
      { numRuns: 1_000 }
    )
    expect(compared).toBeGreaterThan(300)
  })
})
