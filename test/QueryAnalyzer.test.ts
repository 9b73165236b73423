import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "fast-check"
import { InvalidOptionError } from "../src/CacheError.ts"
import * as Dependency from "../src/Dependency.ts"
import * as QueryAnalyzer from "../src/QueryAnalyzer.ts"

type Analysis = QueryAnalyzer.Analysis

const load = (layer: ReturnType<typeof QueryAnalyzer.layer>) =>
  Effect.runPromise(Effect.provide(Effect.map(QueryAnalyzer.QueryAnalyzer, ({ analyze }) => analyze), layer))

const analyze = await load(QueryAnalyzer.layer())

const read = (...tables: ReadonlyArray<string>): Analysis => ({ _tag: "Read", tables, timeDependent: false })
const scoped = (detail: string): Analysis => ({
  _tag: "Read",
  tables: [],
  timeDependent: false,
  scoped: { code: "session-dependent", detail }
})
const timed = (...tables: ReadonlyArray<string>): Analysis => ({ _tag: "Read", tables, timeDependent: true })
const write = (tables: ReadonlyArray<string>, options?: Partial<QueryAnalyzer.Write>): QueryAnalyzer.Write => ({
  _tag: "Write",
  tables,
  reads: [],
  all: options?.culprit !== undefined,
  atomic: true,
  control: [],
  ...options
})
const ddl: QueryAnalyzer.Ddl = { _tag: "Ddl" }
const session = (
  control: QueryAnalyzer.Session["control"],
  options?: Partial<QueryAnalyzer.Session>
): QueryAnalyzer.Session => ({ _tag: "Session", control, savepoint: undefined, chain: false, ...options })
const other = session("other")
/** What a statement leaves behind in its session: `name`, `local name` or `reset name`. */
const leaving = (
  analysis: Exclude<Analysis, QueryAnalyzer.Read>,
  settings: ReadonlyArray<string>,
  temporary: ReadonlyArray<string> = []
): Analysis => ({
  ...analysis,
  changes: {
    settings: settings.map((text) => {
      const [name, how] = text.split(" ").reverse()
      return { name: name!, isLocal: how === "local", isReset: how === "reset" }
    }),
    temporary
  }
})
const refused = (
  code: QueryAnalyzer.RefusalCode,
  detail: string,
  writes: QueryAnalyzer.Refused["writes"] = "nothing"
): QueryAnalyzer.Refused => ({ _tag: "Refused", code, detail, writes })

const cases: { readonly [topic: string]: ReadonlyArray<readonly [sql: string, expected: Analysis]> } = {
  "names": [
    ["SELECT 1", read()],
    ["SELECT * FROM users", read("users")],
    ["SELECT * FROM Users", read("users")],
    [`SELECT * FROM "Users"`, read("Users")],
    [`SELECT * FROM "User", users, "Users"`, read("User", "Users", "users")],
    ["SELECT * FROM public.users, archive.users, db.public.users", read("users")],
    [`SELECT * FROM "a.b"`, read(`"a.b"`)],
    [`SELECT * FROM "a""b"`, read(`"a\\"b"`)],
    [`SELECT * FROM "sales 2024"`, read(`"sales 2024"`)],
    [`SELECT * FROM "#tag", "!x"`, read(`"!x"`, `"#tag"`)],
    ["SELECT * FROM größe", read(`"größe"`)],
    ["SELECT * FROM ONLY t, u*", read("t", "u")],
    ["SELECT * FROM t AS u, u AS t", read("t", "u")],
    ["SELECT 'users' AS users FROM t -- users", read("t")],
    ["SELECT 1, t, 2, x FROM s AS t, t AS x, s AS x, u ORDER BY t, x, u, 1", read("s", "t", "u")],
    ["SELECT 1, t, 1 FROM s, t", read("s", "t")],
    ["TABLE t", read("t")],
    ["VALUES (1, (SELECT max(a) FROM t))", read("t")]
  ],
  "subqueries in every clause": [
    ["SELECT (SELECT a FROM s LIMIT 1) FROM t", read("s", "t")],
    ["SELECT 1 FROM t WHERE EXISTS (SELECT FROM s)", read("s", "t")],
    ["SELECT 1 FROM t WHERE a IN (SELECT a FROM s)", read("s", "t")],
    ["SELECT 1 FROM t WHERE (a, b) NOT IN (SELECT a, b FROM s)", read("s", "t")],
    ["SELECT 1 FROM t WHERE a = ANY (SELECT a FROM s) OR a > ALL (SELECT a FROM u)", read("s", "t", "u")],
    ["SELECT ARRAY(SELECT a FROM s), ARRAY[(SELECT 1 FROM u)] FROM t", read("s", "t", "u")],
    ["SELECT a FROM t GROUP BY a HAVING count(*) > (SELECT 1 FROM s)", read("s", "t")],
    ["SELECT a FROM t GROUP BY GROUPING SETS (((SELECT a FROM s)), ()), ROLLUP (a)", read("s", "t")],
    ["SELECT a FROM t ORDER BY (SELECT a FROM s) DESC", read("s", "t")],
    ["SELECT a FROM t LIMIT (SELECT 1 FROM s) OFFSET (SELECT 1 FROM u)", read("s", "t", "u")],
    ["SELECT a FROM t ORDER BY a FETCH FIRST (SELECT 1 FROM s) ROWS WITH TIES", read("s", "t")],
    ["SELECT DISTINCT ON ((SELECT a FROM s)) a FROM t", read("s", "t")],
    [
      "SELECT CASE (SELECT 1 FROM a) WHEN (SELECT 1 FROM b) THEN (SELECT 1 FROM c) ELSE (SELECT 1 FROM d) END",
      read("a", "b", "c", "d")
    ],
    [
      "SELECT coalesce((SELECT 1 FROM a), greatest((SELECT 1 FROM b), 2)), nullif((SELECT 1 FROM c), 1)",
      read("a", "b", "c")
    ],
    ["SELECT lower((SELECT a FROM s)) FROM t", read("s", "t")],
    ["SELECT sum(a) FILTER (WHERE a IN (SELECT a FROM s)) FROM t", read("s", "t")],
    ["SELECT sum(a) OVER (PARTITION BY (SELECT 1 FROM s) ORDER BY (SELECT 1 FROM u)) FROM t", read("s", "t", "u")],
    ["SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY (SELECT 1 FROM s))", read("s", "t")],
    ["SELECT string_agg(a, ',' ORDER BY (SELECT 1 FROM s)) FROM t", read("s", "t")],
    ["SELECT percentile_cont((SELECT 0.5 FROM s)) WITHIN GROUP (ORDER BY a) FROM t", read("s", "t")],
    ["SELECT ((SELECT x FROM s)).f, (ARRAY[1])[(SELECT 1 FROM u)] FROM t", read("s", "t", "u")],
    [
      "SELECT ROW((SELECT 1 FROM s)) = ROW(1), (SELECT true FROM u) IS TRUE, (SELECT 1 FROM v) IS NULL",
      read("s", "u", "v")
    ],
    ["SELECT (SELECT 'a' FROM s)::int, CAST((SELECT '1' FROM u) AS text) COLLATE \"C\"", read("s", "u")],
    ["SELECT a BETWEEN (SELECT 1 FROM s) AND (SELECT 2 FROM u) FROM t", read("s", "t", "u")],
    ["SELECT a LIKE (SELECT 'x' FROM s) ESCAPE (SELECT 'x' FROM u) FROM t", read("s", "t", "u")],
    ["SELECT extract(year FROM (SELECT a FROM s)), substring((SELECT a FROM u) FROM 1)", read("s", "u")],
    ["SELECT f.x FROM (SELECT 1 AS x FROM (SELECT 1 FROM s) a) f", read("s")],
    ["SELECT 1 FROM t JOIN s ON t.a IN (SELECT a FROM u)", read("s", "t", "u")],
    ["SELECT 1 FROM t LEFT JOIN (s CROSS JOIN u) USING (a) NATURAL FULL JOIN v", read("s", "t", "u", "v")],
    ["SELECT 1 FROM t, LATERAL (SELECT 1 FROM s WHERE s.a = t.a) x", read("s", "t")],
    ["SELECT 1 FROM generate_series(1, (SELECT max(a) FROM s)) WITH ORDINALITY", read("s")],
    [
      "SELECT 1 FROM ROWS FROM (generate_series(1, (SELECT 1 FROM s)), unnest(ARRAY(SELECT a FROM u))) x",
      read("s", "u")
    ],
    ["SELECT 1 FROM (VALUES (1), ((SELECT a FROM s))) v", read("s")],
    ["SELECT x.a FROM JSON_TABLE((SELECT j FROM s), '$[*]' COLUMNS (a int PATH '$.a')) x", read("s")],
    [
      "SELECT x.* FROM XMLTABLE('/r' PASSING (SELECT d FROM s) COLUMNS a int DEFAULT (SELECT 1 FROM u)) x",
      read("s", "u")
    ],
    ["SELECT xmlelement(name a, (SELECT 1 FROM s)), xmlforest((SELECT 1 FROM u) AS b)", read("s", "u")],
    [
      "SELECT JSON_OBJECT('k': (SELECT 1 FROM s)), JSON_ARRAY(SELECT a FROM u), JSON_ARRAYAGG(a) FROM t",
      read("s", "t", "u")
    ],
    ["SELECT JSON_VALUE((SELECT j FROM s), '$.a' DEFAULT (SELECT 1 FROM u) ON EMPTY)", read("s", "u")],
    [
      "SELECT a FROM s UNION SELECT a FROM t EXCEPT (SELECT a FROM u INTERSECT ALL SELECT a FROM v)",
      read("s", "t", "u", "v")
    ],
    [
      "(SELECT 1 FROM s ORDER BY 1) UNION ALL VALUES ((SELECT 1 FROM t)) ORDER BY (SELECT 1 FROM u)",
      read("s", "t", "u")
    ]
  ],
  "names that WITH takes": [
    ["WITH x AS (SELECT * FROM t) SELECT * FROM x", read("t")],
    ["WITH t AS (SELECT * FROM t) SELECT * FROM t", read("t")],
    ["WITH t AS (SELECT 1) SELECT * FROM t", read()],
    ["WITH t AS (SELECT 1) SELECT * FROM public.t", read("t")],
    ["WITH t AS (SELECT 1) TABLE t", read()],
    [`WITH t AS (SELECT 1) SELECT * FROM "T"`, read("T")],
    ["WITH a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM b", read("b")],
    ["WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT * FROM c) SELECT * FROM a", read("c")],
    ["WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT * FROM t) SELECT * FROM t", read()],
    [
      "WITH RECURSIVE x AS (SELECT a FROM t UNION SELECT u.a FROM u JOIN x USING (a)) SELECT * FROM x, s",
      read("s", "t", "u")
    ],
    ["SELECT * FROM t, (WITH t AS (SELECT 1) SELECT * FROM t) x", read("t")],
    ["SELECT (WITH t AS (SELECT 1) SELECT * FROM t)", read()],
    ["WITH t AS (SELECT 1) SELECT (SELECT 1 FROM t WHERE EXISTS (SELECT FROM t, u))", read("u")],
    ["WITH a AS (WITH b AS (SELECT * FROM t) SELECT * FROM b) SELECT * FROM a, b", read("b", "t")],
    ["(WITH x AS (SELECT 1) SELECT * FROM x) UNION (SELECT * FROM x)", read("x")],
    ["WITH x AS (SELECT 1) (SELECT * FROM x) UNION (SELECT * FROM x)", read()],
    ["WITH x AS NOT MATERIALIZED (SELECT 1), y AS MATERIALIZED (TABLE x) SELECT * FROM y", read()],
    [
      "WITH RECURSIVE x AS (SELECT a FROM t UNION SELECT a FROM x) SEARCH DEPTH FIRST BY a SET o " +
      "CYCLE a SET c TO true DEFAULT false USING p SELECT * FROM x, u",
      read("t", "u")
    ],
    ["SELECT * FROM t, LATERAL (WITH s AS (SELECT t.a) SELECT * FROM s) x, s", read("s", "t")],
    ["SELECT 1 ORDER BY (WITH t AS (SELECT 1) SELECT 1 FROM t)", read()]
  ],
  "INSERT, UPDATE, DELETE, MERGE": [
    ["INSERT INTO t VALUES (1)", write(["t"])],
    ["INSERT INTO t DEFAULT VALUES RETURNING *", write(["t"])],
    ["INSERT INTO public.t AS x (a) VALUES ((SELECT a FROM s))", write(["t"], { reads: ["s"] })],
    ["INSERT INTO t SELECT * FROM s WHERE a IN (SELECT a FROM u)", write(["t"], { reads: ["s", "u"] })],
    ["INSERT INTO t SELECT * FROM t", write(["t"], { reads: ["t"] })],
    ["INSERT INTO t OVERRIDING SYSTEM VALUE TABLE s", write(["t"], { reads: ["s"] })],
    ["INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", write(["t"])],
    [
      "INSERT INTO t VALUES (1) ON CONFLICT (a) WHERE a > 0 DO UPDATE SET a = (SELECT a FROM s), b = excluded.b " +
      "WHERE EXISTS (SELECT FROM u)",
      write(["t"], { reads: ["s", "u"] })
    ],
    ["INSERT INTO t VALUES (1) RETURNING (SELECT a FROM s), OLD.a, NEW.a", write(["t"], { reads: ["s"] })],
    ["INSERT INTO t VALUES (gen_random_uuid(), now(), nextval('s'), random(), current_user)", write(["t"])],
    ["WITH t AS (SELECT 1) INSERT INTO t SELECT * FROM t", write(["t"])],
    ["INSERT INTO t WITH t AS (SELECT * FROM s) SELECT * FROM t", write(["t"], { reads: ["s"] })],
    ["UPDATE t SET a = 1", write(["t"])],
    [
      "UPDATE ONLY t AS x SET a = s.a, (b, c) = (SELECT 1, 2 FROM u) FROM s JOIN v USING (a) WHERE x.a = s.a",
      write(["t"], { reads: ["s", "u", "v"] })
    ],
    ["WITH s AS (SELECT * FROM u) UPDATE t SET a = s.a FROM s RETURNING t.*", write(["t"], { reads: ["u"] })],
    ["UPDATE t SET a = 1 WHERE CURRENT OF c", write(["t"])],
    ["DELETE FROM t", write(["t"])],
    ["DELETE FROM t USING s, LATERAL (SELECT FROM u) x WHERE t.a = s.a", write(["t"], { reads: ["s", "u"] })],
    [
      "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED AND s.b > (SELECT 1 FROM u) THEN UPDATE SET b = s.b " +
      "WHEN NOT MATCHED THEN INSERT VALUES ((SELECT 1 FROM v)) WHEN NOT MATCHED BY SOURCE THEN DELETE " +
      "RETURNING merge_action()",
      write(["t"], { reads: ["s", "u", "v"] })
    ],
    ["WITH s AS (SELECT 1 AS a) MERGE INTO s USING s AS x ON s.a = x.a WHEN MATCHED THEN DO NOTHING", write(["s"])],
    ["WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d, s", write(["t"], { reads: ["s"] })],
    [
      "WITH d AS (DELETE FROM t RETURNING *), i AS (INSERT INTO u SELECT * FROM d) UPDATE v SET a = 1 FROM d",
      write(["t", "u", "v"])
    ],
    ["WITH d AS (SELECT * FROM s FOR UPDATE) DELETE FROM t USING d", write(["t"], { reads: ["s"] })],
    ["INSERT INTO t SELECT unheard_of(a) FROM s", write(["t"], { reads: ["s"], culprit: "unheard_of" })],
    ["UPDATE pg_catalog.pg_settings SET setting = '1'", write(["pg_settings"], { culprit: "system catalog" })]
  ],
  "other statements that write": [
    ["TRUNCATE a, b.c RESTART IDENTITY", write(["a", "c"])],
    ["TRUNCATE a CASCADE", write(["a"], { culprit: "TRUNCATE CASCADE" })],
    ["COPY t FROM STDIN", write(["t"])],
    ["COPY t (a, b) FROM '/x' WITH (FORMAT csv) WHERE a > 1", write(["t"])],
    ["COPY t FROM STDIN WHERE unheard_of(a)", write(["t"], { culprit: "unheard_of" })],
    ["COPY (DELETE FROM t RETURNING *) TO STDOUT", write(["t"])],
    ["REFRESH MATERIALIZED VIEW CONCURRENTLY v", write(["v"])],
    ["CALL p(1)", write([], { culprit: "p", atomic: false })],
    ["DO $$ BEGIN DELETE FROM t; END $$", write([], { culprit: "DO", atomic: false })],
    ["EXECUTE q(1)", write([], { culprit: "EXECUTE" })],
    ["COMMIT PREPARED 'x'", write([], { culprit: "COMMIT PREPARED", atomic: false })],
    ["EXPLAIN ANALYZE DELETE FROM t", write(["t"])],
    ["EXPLAIN (VERBOSE, ANALYZE on, FORMAT json) INSERT INTO t SELECT * FROM s", write(["t"], { reads: ["s"] })],
    ["EXPLAIN (ANALYZE 1) UPDATE t SET a = 1", write(["t"])],
    ["EXPLAIN (ANALYZE false, ANALYZE) UPDATE t SET a = 1", write(["t"])],
    ["EXPLAIN ANALYZE EXECUTE q", write([], { culprit: "EXECUTE" })]
  ],
  "changes of the schema": [
    ["CREATE TABLE t (a int)", ddl],
    ["CREATE TABLE t AS SELECT * FROM s", ddl],
    ["CREATE TEMP TABLE t (a int)", leaving(other, [], ["t"])],
    ["CREATE TABLE pg_temp.t (a int)", leaving(other, [], ["t"])],
    ["CREATE TEMP TABLE t AS SELECT * FROM s", leaving(other, [], ["t"])],
    [
      "CREATE TEMP TABLE t AS SELECT unheard_of()",
      leaving(refused("unknown-function", "unheard_of", "anything"), [], ["t"])
    ],
    ["SELECT * INTO TEMP t FROM s", leaving(other, [], ["t"])],
    ["CREATE TEMP VIEW t AS SELECT 1", leaving(ddl, [], ["t"])],
    ["SELECT * INTO t FROM s", ddl],
    ["SELECT 1 AS a INTO t UNION SELECT 2", ddl],
    ["WITH x AS (SELECT 1) SELECT * INTO t FROM x", ddl],
    ["ALTER TABLE t ADD COLUMN b int", ddl],
    ["DROP TABLE t", ddl],
    ["CREATE INDEX CONCURRENTLY ON t (a)", ddl],
    ["CREATE OR REPLACE VIEW v AS SELECT 1", ddl],
    ["CREATE MATERIALIZED VIEW v AS SELECT 1", ddl],
    ["CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", ddl],
    ["GRANT SELECT ON t TO r", ddl],
    ["COMMENT ON TABLE t IS 'x'", ddl],
    ["CREATE POLICY p ON t USING (true)", ddl],
    ["ALTER SYSTEM SET work_mem = '1MB'", ddl],
    ["EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", ddl]
  ],
  "sessions and transactions": [
    ["BEGIN", session("begin")],
    ["begin isolation level serializable, read only", session("begin")],
    ["START TRANSACTION READ WRITE", session("begin")],
    ["COMMIT", session("commit")],
    ["END WORK", session("commit")],
    ["COMMIT AND CHAIN", session("commit", { chain: true })],
    ["COMMIT AND NO CHAIN", session("commit")],
    ["ROLLBACK", session("rollback")],
    ["ABORT AND CHAIN", session("rollback", { chain: true })],
    ["SAVEPOINT Effect_Sql_1", session("savepoint", { savepoint: "effect_sql_1" })],
    [`SAVEPOINT "S p"`, session("savepoint", { savepoint: "S p" })],
    ["RELEASE SAVEPOINT s", session("release", { savepoint: "s" })],
    ["RELEASE s", session("release", { savepoint: "s" })],
    ["ROLLBACK TO SAVEPOINT s", session("rollbackTo", { savepoint: "s" })],
    ["ROLLBACK TRANSACTION TO s", session("rollbackTo", { savepoint: "s" })],
    ["PREPARE TRANSACTION 'x'", session("commit")],
    ["ROLLBACK PREPARED 'x'", other],
    ["SET search_path = a, b", leaving(other, ["search_path"])],
    ["SET LOCAL ROLE r", leaving(other, ["local role"])],
    ["SET SESSION AUTHORIZATION r", leaving(other, ["session_authorization"])],
    ["SET TIME ZONE 'UTC'", leaving(other, ["timezone"])],
    ["SET app.tenant = 'a'", leaving(other, ["app.tenant"])],
    ["SET work_mem = '1MB'", other],
    ["SET TRANSACTION READ ONLY", other],
    ["RESET a", leaving(other, ["reset a"])],
    ["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", other],
    ["SET CONSTRAINTS ALL DEFERRED", other],
    ["RESET ALL", leaving(other, ["reset *"])],
    ["SHOW search_path", other],
    ["DISCARD ALL", leaving(other, ["reset *", "reset role", "reset session_authorization"])],
    ["LISTEN c", other],
    ["UNLISTEN *", other],
    ["NOTIFY c, 'x'", other],
    ["PREPARE q AS DELETE FROM t", other],
    ["DEALLOCATE ALL", other],
    ["FETCH 10 FROM c", other],
    ["MOVE 10 FROM c", other],
    ["CLOSE c", other],
    ["LOCK TABLE t IN ACCESS EXCLUSIVE MODE", other],
    ["VACUUM FULL t", other],
    ["ANALYZE t", other],
    ["REINDEX TABLE t", other],
    ["CLUSTER t USING i", other],
    ["CHECKPOINT", other],
    ["LOAD 'x'", other]
  ],
  "several statements": [
    ["SELECT * FROM t;", read("t")],
    [";;SELECT * FROM t;;", read("t")],
    ["SELECT 1; SELECT 2", refused("several-statements", "2 statements")],
    ["SET a = 1; SELECT 2", leaving(refused("several-statements", "2 statements"), ["a"])],
    ["SET LOCAL ROLE r; DELETE FROM t", leaving(write(["t"], { culprit: "SET", atomic: false }), ["local role"])],
    ["SELECT 1; SELECT unheard_of()", refused("several-statements", "2 statements", "anything")],
    ["SET a = 1; SET b = 2", leaving(other, ["a", "b"])],
    [
      "SELECT * FROM s; DELETE FROM t; INSERT INTO u SELECT * FROM v",
      write(["t", "u"], { reads: ["s", "v"], atomic: false })
    ],
    ["DELETE FROM t; SELECT unheard_of()", write(["t"], { culprit: "unheard_of", atomic: false })],
    ["DELETE FROM t; CREATE TABLE u ()", write(["t"], { culprit: "DDL", atomic: false })],
    [
      "BEGIN; DELETE FROM t; SAVEPOINT x; COMMIT AND CHAIN",
      write(["t"], {
        atomic: false,
        control: [session("begin"), session("savepoint", { savepoint: "x" }), session("commit", { chain: true })]
      })
    ],
    ["COMMIT; BEGIN", write([], { atomic: false, control: [session("commit"), session("begin")] })],
    [`DELETE FROM "a b"; DELETE FROM t`, write([`"a b"`, "t"], { atomic: false })]
  ],
  "no query": [
    ["", refused("empty", "no statement")],
    ["  \n", refused("empty", "no statement")],
    ["-- SELECT 1", refused("empty", "no statement")],
    ["/* a /* b */ */ ;", refused("empty", "no statement")],
    ["EXPLAIN SELECT * FROM t", refused("not-a-query", "EXPLAIN")],
    ["EXPLAIN DELETE FROM t", refused("not-a-query", "EXPLAIN")],
    ["EXPLAIN (ANALYZE false) DELETE FROM t", refused("not-a-query", "EXPLAIN")],
    ["EXPLAIN (ANALYZE, ANALYZE OFF) DELETE FROM t", refused("not-a-query", "EXPLAIN")],
    ["EXPLAIN (ANALYZE 0) DELETE FROM t", refused("not-a-query", "EXPLAIN")],
    ["EXPLAIN ANALYZE SELECT * FROM t", refused("not-a-query", "EXPLAIN")],
    ["EXPLAIN ANALYZE SELECT unheard_of()", refused("not-a-query", "EXPLAIN", "anything")],
    ["COPY t TO STDOUT", refused("not-a-query", "COPY TO")],
    ["COPY (SELECT * FROM t) TO STDOUT", refused("not-a-query", "COPY TO")],
    ["COPY (SELECT unheard_of()) TO STDOUT", refused("not-a-query", "COPY TO", "anything")],
    ["DECLARE c CURSOR FOR SELECT * FROM t", refused("not-a-query", "DECLARE CURSOR")],
    ["DECLARE c CURSOR FOR SELECT unheard_of()", refused("not-a-query", "DECLARE CURSOR", "anything")]
  ],
  "functions": [
    ["SELECT count(*), max(a), lower(b), to_char(c, 'YYYY'), round(d, 2) FROM t", read("t")],
    ["SELECT row_number() OVER (), rank() OVER (ORDER BY a), lag(a) OVER w FROM t WINDOW w AS ()", read("t")],
    [
      "SELECT jsonb_agg(x), json_build_object('a', 1), to_tsvector('english', b) @@ websearch_to_tsquery($1) FROM t",
      read("t")
    ],
    ["SELECT pg_catalog.lower(a), PG_CATALOG.LOWER(b) FROM t", read("t")],
    ["SELECT 1 FROM unnest($1::int[]), jsonb_to_recordset($2) AS x(a int), regexp_split_to_table('a', 'b')", read()],
    ["SELECT a AT TIME ZONE 'UTC', date_trunc('day', a), a + interval '1 day', a::date FROM t", read("t")],
    ["SELECT unheard_of(a) FROM t", refused("unknown-function", "unheard_of", "anything")],
    ["SELECT public.lower(a) FROM t", refused("unknown-function", "public.lower", "anything")],
    [`SELECT "LOWER"(a) FROM t`, refused("unknown-function", "LOWER", "anything")],
    [`SELECT "pg_catalog.lower"(a) FROM t`, refused("unknown-function", "pg_catalog.lower", "anything")],
    ["SELECT * FROM unheard_of(1)", refused("unknown-function", "unheard_of", "anything")],
    ["SELECT a FROM t ORDER BY unheard_of(a)", refused("unknown-function", "unheard_of", "anything")],
    ["SELECT random(), unheard_of()", refused("unknown-function", "unheard_of", "anything")],
    ["SELECT a OPERATOR(pg_catalog.+) b FROM t", read("t")],
    ["SELECT a OPERATOR(x.+) b FROM t", refused("unknown-operator", "x.+", "anything")],
    ["SELECT a OPERATOR(x.=) ANY (SELECT 1) FROM t", refused("unknown-operator", "x.=", "anything")],
    ["SELECT a FROM t ORDER BY a USING OPERATOR(x.<)", refused("unknown-operator", "x.<", "anything")],
    ...[
      "random()",
      "gen_random_uuid()",
      "nextval('s')",
      "setval('s', 1)",
      "clock_timestamp()",
      "timeofday()",
      "pg_sleep(1)",
      "pg_notify('a', 'b')",
      "pg_advisory_lock(1)",
      "lo_get(1)",
      "pg_read_file('x')",
      "currval('s')",
      "lastval()",
      "uuidv7()",
      "pg_catalog.random()"
    ]
      .map((call) => [`SELECT ${call}`, refused("volatile-function", call.slice(0, call.indexOf("(")))] as const),
    ["SELECT set_config('A', 'b', true)", leaving(refused("volatile-function", "set_config"), ["local a"])],
    ["SELECT set_config($1, $2, $3)", leaving(refused("volatile-function", "set_config"), ["*"])],
    ["SELECT set_config('work_mem', $1, false)", refused("volatile-function", "set_config")],
    ...[
      "query_to_xml('DELETE FROM t', true, true, '')",
      "table_to_xml('t', true, true, '')",
      "ts_stat('SELECT 1')",
      "cursor_to_xml('c', 1, true, true, '')",
      "database_to_xml(true, true, '')"
    ]
      .map((call) =>
        [`SELECT ${call}`, refused("dynamic-query", call.slice(0, call.indexOf("(")), "anything")] as const
      )
  ],
  "the clock": [
    ["SELECT now() FROM t", timed("t")],
    ["SELECT pg_catalog.now()", timed()],
    ["SELECT 1 FROM t WHERE a > current_date - 7", timed("t")],
    ["SELECT current_timestamp, current_timestamp(3)", timed()],
    ["SELECT current_time(0)", timed()],
    ["SELECT localtime", timed()],
    ["SELECT localtimestamp(1)", timed()],
    ["SELECT transaction_timestamp()", timed()],
    ["SELECT statement_timestamp()", timed()],
    ["SELECT age(a) FROM t", timed("t")],
    ["SELECT age(a, b) FROM t", read("t")],
    ["SELECT 'today'::date", timed()],
    ["SELECT 1 FROM t WHERE a < 'tomorrow 12:00'", timed("t")],
    ["SELECT timestamp 'now'", timed()],
    ["SELECT 'snow', 'nowhere', 'unknown'", read()],
    ["INSERT INTO t VALUES (now())", write(["t"])]
  ],
  "who asks": [
    ...["current_user", "session_user", "user", "current_role", "current_catalog", "current_schema"]
      .map((name) => [`SELECT ${name}`, scoped(name)] as const),
    ...[
      "current_setting('a')",
      "current_schemas(true)",
      "version()",
      "current_database()",
      "has_table_privilege('t', 'select')"
    ]
      .map((call) => [`SELECT ${call}`, scoped(call.slice(0, call.indexOf("(")))] as const),
    ...["pg_backend_pid()", "txid_current()", "pg_current_xact_id()", "inet_client_addr()"]
      .map((call) => [`SELECT ${call}`, refused("session-dependent", call.slice(0, -2))] as const),
    ["SELECT current_user, pg_backend_pid()", refused("session-dependent", "pg_backend_pid")]
  ],
  "catalogs, temporary tables, system columns, locks, samples": [
    ["SELECT * FROM pg_class", refused("system-catalog", "pg_class")],
    ["SELECT * FROM pg_catalog.pg_class", refused("system-catalog", "pg_catalog.pg_class")],
    ["SELECT * FROM information_schema.tables", refused("system-catalog", "information_schema.tables")],
    ["SELECT * FROM extensions.pg_stat_statements", refused("system-catalog", "extensions.pg_stat_statements")],
    ["WITH pg_class AS (SELECT 1) SELECT * FROM pg_class", read()],
    ["SELECT pg_get_viewdef(1)", refused("system-catalog", "pg_get_viewdef")],
    ["SELECT to_regclass('t')", refused("system-catalog", "to_regclass")],
    ["SELECT 't'::regclass", refused("system-catalog", "regclass")],
    ["SELECT CAST($1 AS pg_catalog.regtype)", refused("system-catalog", "regtype")],
    ["SELECT $1::regclass[]", refused("system-catalog", "regclass")],
    ["SELECT regclass 't'", refused("system-catalog", "regclass")],
    ["SELECT $1::my_enum, $2::x.my_domain FROM t", read("t")],
    ["SELECT * FROM pg_temp.t", refused("temporary-table", "t")],
    ["SELECT * FROM pg_temp_3.t", refused("temporary-table", "t")],
    ["SELECT ctid FROM t", refused("system-column", "ctid")],
    ["SELECT 1 FROM t WHERE t.xmin = '1'", refused("system-column", "xmin")],
    ["SELECT (t).tableoid FROM t", refused("system-column", "tableoid")],
    [`SELECT "Ctid" FROM t`, read("t")],
    ["SELECT * FROM t FOR UPDATE", refused("locking-clause", "FOR UPDATE")],
    ["SELECT * FROM t FOR NO KEY UPDATE OF t SKIP LOCKED", refused("locking-clause", "FOR NO KEY UPDATE")],
    ["SELECT * FROM (SELECT * FROM t FOR SHARE) x", refused("locking-clause", "FOR SHARE")],
    ["WITH x AS (SELECT * FROM t FOR KEY SHARE) SELECT 1", refused("locking-clause", "FOR KEY SHARE")],
    ["SELECT * FROM t TABLESAMPLE system (1) REPEATABLE (1)", refused("tablesample", "TABLESAMPLE")]
  ],
  "texts that are no SQL": [
    ["SELEC 1", refused("unparsable", "at character 1", "anything")],
    ["SELECT 'a secret", refused("unparsable", "at character 8", "anything")],
    ["\ufeffSELECT 1", refused("unparsable", "at character 1", "anything")],
    ["SELECT $a$", refused("unparsable", "at character 8", "anything")],
    ["SELECT 1\0; DELETE FROM t", refused("unparsable", "not a text that can be sent", "anything")],
    ["SELECT '\ud800'", refused("unparsable", "not a text that can be sent", "anything")],
    ["SELECT * FROM \"\u{1F600}\", t\u00a0x", read(`"t\u00a0x"`, `"\u{1F600}"`)],
    ["SELECT '\u0001\u2028\\\"' FROM t", read("t")]
  ]
}

describe("QueryAnalyzer.layer", () => {
  for (const [topic, rows] of Object.entries(cases)) {
    describe(topic, () => {
      for (const [sql, expected] of rows) {
        it(sql === "" ? "(an empty text)" : sql, () => assert.deepStrictEqual(analyze(sql), expected))
      }
    })
  }

  it("names tables as Dependency.table does", () => {
    const tables = (sql: string) => (analyze(sql) as QueryAnalyzer.Read).tables
    assert.deepStrictEqual(tables("SELECT * FROM public.orders"), [Dependency.table("public.orders").table])
    assert.deepStrictEqual(tables(`SELECT * FROM "a b"`), [Dependency.table(`"a b"`).table])
    assert.deepStrictEqual(tables(`SELECT * FROM s."a.b"`), [Dependency.table(`s."a.b"`).table])
    assert.deepStrictEqual(tables(`SELECT * FROM "a""b"`), [Dependency.table(`"a""b"`).table])
  })

  it("returns the same object for the same text while it is remembered", async () => {
    const analyze = await load(QueryAnalyzer.layer({ capacity: 2 }))
    const first = analyze("SELECT 1")
    assert.strictEqual(analyze("SELECT 1"), first)
    analyze("SELECT 2")
    assert.strictEqual(analyze("SELECT 1"), first)
    // 2 is the one used longest ago.
    const second = analyze("SELECT 2")
    analyze("SELECT 1")
    analyze("SELECT 3")
    assert.strictEqual(analyze("SELECT 1"), first)
    assert.notStrictEqual(analyze("SELECT 2"), second)
    assert.deepStrictEqual(analyze("SELECT 2"), second)
  })

  it("believes what is declared of functions", async () => {
    const analyze = await load(QueryAnalyzer.layer({
      stableFunctions: ["similarity", "geo.distance", "pg_typeof"],
      readOnlyFunctions: ["uuid_generate_v4"],
      writes: { audit: ["log.audit"] }
    }))
    assert.deepStrictEqual(analyze("SELECT Similarity(a, $1) FROM t"), read("t"))
    assert.deepStrictEqual(analyze("SELECT geo.distance(a, $1) FROM t"), read("t"))
    assert.deepStrictEqual(analyze("SELECT pg_typeof(a) FROM t"), read("t"))
    assert.deepStrictEqual(analyze("SELECT distance(a)"), refused("unknown-function", "distance", "anything"))
    assert.deepStrictEqual(analyze("SELECT x.similarity(a)"), refused("unknown-function", "x.similarity", "anything"))
    assert.deepStrictEqual(analyze("SELECT uuid_generate_v4()"), refused("volatile-function", "uuid_generate_v4"))
    assert.deepStrictEqual(analyze("INSERT INTO t VALUES (uuid_generate_v4())"), write(["t"]))
    assert.deepStrictEqual(
      analyze("INSERT INTO t VALUES (geo.distance(1), other())"),
      write(["t"], { culprit: "other" })
    )
    assert.deepStrictEqual(analyze("SELECT audit(a) FROM t"), write(["audit"], { reads: ["t"] }))
  })

  it("refuses options that mean nothing", () => {
    const refuses = (options: any) => assert.throws(() => QueryAnalyzer.layer(options), InvalidOptionError)
    refuses({ capacity: 0 })
    refuses({ capacity: 1.5 })
    refuses({ stableFunctions: "f" })
    refuses({ stableFunctions: [""] })
    refuses({ readOnlyFunctions: [1] })
    refuses({ stableFunction: [] })
    refuses({ writes: { audit: "log" } })
    refuses({ writes: { audit: [""] } })
    assert.throws(() => QueryAnalyzer.layerDeclared({} as any), InvalidOptionError)
    assert.throws(() => QueryAnalyzer.layerDeclared({ declare: () => undefined, capacity: -1 }), InvalidOptionError)
  })
})

const repeat = (times: number, text: (index: number) => string, separator = ""): string =>
  Array.from({ length: times }, (_, index) => text(index)).join(separator)

describe("long texts", () => {
  const rows = (row: (index: number) => string, length = 20_000) => repeat(length, row, ", ")

  it("a batch of parameters is analysed by its first rows", () => {
    const insert = `INSERT INTO t ("a", "b,($1)") VALUES ${rows((i) => `($${i * 2 + 1},$${i * 2 + 2})`)}` +
      " ON CONFLICT (a) DO UPDATE SET b = (SELECT max(b) FROM s) RETURNING *"
    assert.isAbove(insert.length, 300_000)
    assert.deepStrictEqual(analyze(insert), write(["t"], { reads: ["s"] }))
    assert.deepStrictEqual(
      analyze(`SELECT * FROM t WHERE a IN (${rows((i) => `$${i + 1}`)}) AND b IN (SELECT b FROM s)`),
      read("s", "t")
    )
    assert.deepStrictEqual(
      analyze(`UPDATE t SET a = x.a FROM (VALUES ${rows((i) => `($${i + 1}::jsonb, now(), DEFAULT)`)}) x, s`),
      write(["t"], { reads: ["s"] })
    )
  })

  it("so is a batch of constants", () => {
    const strings = ["it''s", "a,b", "(", ")", "$1", "", "-- x", "/*", `"`]
    assert.deepStrictEqual(
      analyze(
        `INSERT INTO t VALUES ${rows((i) => `(${i}, '${strings[i % strings.length]}', E'\\'', -1.5e3, $x$')$x$)`)}`
      ),
      write(["t"])
    )
    assert.deepStrictEqual(analyze(`SELECT '${"x,".repeat(50_000)}' FROM t -- ${"($1),".repeat(50_000)}`), read("t"))
  })

  it("what differs between the rows is found", () => {
    const row = (different: string) => rows((i) => i === 10_000 ? different : `($${i + 1}, 1)`)
    assert.deepStrictEqual(
      analyze(`INSERT INTO t VALUES ${row("((SELECT a FROM s), 1)")}`),
      write(["t"], { reads: ["s"] })
    )
    assert.deepStrictEqual(
      analyze(`INSERT INTO t VALUES ${row("(unheard_of(), 1)")}`),
      write(["t"], { culprit: "unheard_of" })
    )
    assert.deepStrictEqual(analyze(`SELECT * FROM (VALUES ${row("('today', 1)")}) x`), timed())
    assert.deepStrictEqual(
      analyze(`INSERT INTO t VALUES ${rows((i) => `($${i + 1})`)}; DELETE FROM s`),
      write(["s", "t"], { atomic: false })
    )
  })

  it("reads long texts as it reads short ones", () => {
    const padding = `/* ${"x".repeat(70_000)} */ `
    for (const [sql, expected] of Object.values(cases).flat()) {
      if (expected._tag === "Refused" && expected.code === "unparsable") continue
      const actual = analyze(padding + sql)
      // Constants are gone by then: what they switch on is taken for on.
      if (/ANALYZE 0|OFF\)|set_config/.test(sql)) continue
      assert.deepStrictEqual(actual, expected, sql)
    }
  })

  it("reads quotes and comments as PostgreSQL does", () => {
    // What may stand between two tokens, and what may stand for a value: next to one another, and around a quote that
    // would hide what follows from a reader who takes it for an opening one, or show it to one who takes it for a
    // closing one. One per line, where `~` is a line feed and `^` a carriage return.
    const lines = (text: string): ReadonlyArray<string> =>
      text.slice(1).trimEnd().split("\n").map((line) => line.trim().replaceAll("~", "\n").replaceAll("^", "\r"))
    const gap = FastCheck.constantFrom(
      "",
      " ",
      "\t\v\f",
      ...lines(String.raw`
        ~
        ^
        --^
        --'~
        -- $a$^~
        /**/
        /*'*/
        /* /* " */ */
        /*--*/
        --/*~
        /*/ */
        ;--'^
      `)
    )
    const value = FastCheck.constantFrom(...lines(String.raw`
      1
      .5
      1.
      1e5
      1_0
      0x1F
      $1
      $1$$'$$
      1$$;DELETE FROM v;$$
      $a$'$a$
      $a$$$ $b$$a$
      $é$'$é$
      a$a
      a$$
      "a'"
      """'"
      "--"
      'a'
      'a''b'
      '\'
      E'\''
      e'\\'
      E'a'~'b\''
      E'a' --x'~ ~'\', "'
      'a'~'b\'
      'a' -- x~'b'
      E'''\''
      N'a\'
      B'1'
      U&'\0041'
      U&"\0061'"
      '/*'
      '--'
      '$a$'
      ';'
      '('
      'today'
      (1)
      ((1),2)
      ARRAY[1,'a']
      lower('a')
      (SELECT 1 FROM v)
      now()
      - 1
      1--'~+1
      2-/*'*/-1
      a +-- ' ~ b
      $$;$$
      NULL
    `))
    const list = FastCheck.array(FastCheck.tuple(gap, value, gap), { minLength: 1, maxLength: 5 }).map((values) =>
      values.map((value) => value.join("")).join(",")
    )
    const statement = FastCheck.oneof(
      list.map((list) => `SELECT ${list} FROM t`),
      FastCheck.tuple(list, list).map(([a, b]) => `INSERT INTO t VALUES (${a}),(${b})`),
      FastCheck.tuple(list, gap).map(([list, gap]) => `DELETE${gap} FROM u WHERE a IN (${list})`)
    )
    let compared = 0
    FastCheck.assert(
      FastCheck.property(FastCheck.array(statement, { minLength: 1, maxLength: 3 }), gap, (statements, gap) => {
        const sql = statements.join(`;${gap}`) + gap
        const expected = analyze(sql)
        if (expected._tag === "Refused" && expected.code === "unparsable") return
        const actual = analyze(`${sql}\n${" ".repeat(70_000)}`)
        if (actual._tag === "Refused" && actual.code === "too-long") return
        compared++
        assert.deepStrictEqual(actual, expected, sql)
      }),
      { numRuns: 2_000 }
    )
    assert.isAbove(compared, 300)
  })

  it("is refused if it stays long, and may have written", () => {
    const sql = `SELECT ${repeat(20_000, (i) => `c${i}`, ", ")} FROM t`
    assert.deepStrictEqual(analyze(sql), refused("too-long", "more than 64 kB", "anything"))
    assert.deepStrictEqual(analyze(`${" ".repeat(70_000)}SELEC`), refused("too-long", "more than 64 kB", "anything"))
    assert.deepStrictEqual(analyze("x".repeat(9_000_000)), refused("too-long", "more than 64 kB", "anything"))
  })

  it("takes time in proportion to the text", () => {
    // The processor's time, not the clock's: a busy machine makes texts wait, not longer.
    const time = (sql: string): number => {
      const start = process.threadCpuUsage()
      analyze(sql)
      const { system, user } = process.threadCpuUsage(start)
      return (user + system) / 1000
    }
    const texts: ReadonlyArray<(size: number) => string> = [
      (size) => `INSERT INTO t VALUES ${repeat(size, (i) => `($${i})`, ",")}`,
      (size) => `SELECT ${"(".repeat(400)}${repeat(size, (i) => `$${i}`, ",")}${")".repeat(400)}`,
      (size) => "(".repeat(size * 5),
      (size) => ")".repeat(size * 5),
      (size) => "'".repeat(size * 5 + 1),
      (size) => "/*".repeat(size * 2),
      (size) => "$a".repeat(size * 2),
      (size) => "$a$ ".repeat(size),
      (size) => "$é".repeat(size * 2),
      (size) => "1.".repeat(size * 2),
      (size) => "E'a' ".repeat(size),
      (size) => `SELECT ${repeat(size, (i) => `a${i}`, ",")}`,
      (size) => " ".repeat(size * 5)
    ]
    for (const text of texts) {
      time(`${text(20_000)} --`)
      // Eightfold, with room for a machine that has other things to do.
      const small = Math.max(time(text(20_000)), 2)
      assert.isBelow(time(text(160_000)), small * 40, text(2).slice(0, 30))
    }
  })
})

describe("deep texts", () => {
  const nests: { readonly [name: string]: (depth: number) => string } = {
    parentheses: (n) => `SELECT ${"(".repeat(n)}1${")".repeat(n)}`,
    "scalar subqueries": (n) => `SELECT ${"(SELECT ".repeat(n)}1${")".repeat(n)}`,
    "derived tables": (n) => `SELECT * FROM ${"(SELECT * FROM ".repeat(n)}t${") x".repeat(n)}`,
    EXISTS: (n) => `SELECT 1 WHERE ${"EXISTS (SELECT 1 WHERE ".repeat(n)}true${")".repeat(n)}`,
    CASE: (n) => `SELECT ${"CASE WHEN true THEN ".repeat(n)}1${" END".repeat(n)}`,
    NOT: (n) => `SELECT ${"NOT ".repeat(n)}true`,
    minus: (n) => `SELECT ${"- ".repeat(n)}a`,
    sums: (n) => `SELECT 1${"+1".repeat(n)}`,
    collations: (n) => `SELECT a${" || a COLLATE x".repeat(n)}`,
    unions: (n) => `SELECT 1${" UNION SELECT 1".repeat(n)}`,
    joins: (n) => `SELECT 1 FROM a${" JOIN b ON true".repeat(n)}`,
    casts: (n) => `SELECT 1${"::int".repeat(n)}`,
    arrays: (n) => `SELECT ARRAY${"[".repeat(n)}1${"]".repeat(n)}`,
    calls: (n) => `SELECT ${"lower(".repeat(n)}a${")".repeat(n)}`,
    "WITH in WITH": (n) => `${"WITH a AS (".repeat(n)}SELECT 1${") SELECT 1 FROM a".repeat(n)}`,
    unbalanced: (n) => "SELECT " + "(".repeat(n),
    unopened: (n) => "SELECT " + ")".repeat(n),
    brackets: (n) => "SELECT a" + "[(".repeat(n),
    statements: (n) => "SELECT 1;".repeat(n),
    disjunctions: (n) => `SELECT 1=1${" OR 1=1".repeat(n)}`,
    "multiple assignments": (n) =>
      `${"WITH x AS (UPDATE t SET (a, b) = (".repeat(n)}SELECT 1, 2${") RETURNING 1) SELECT 1, 2".repeat(n)}`
  }
  // Never the same text twice, for that would ask the memo.
  let samples = 0
  const sample = (analyze: (sql: string) => Analysis) =>
    analyze(`SELECT f.a FROM t JOIN s ON true WHERE x = '${samples++}'`)

  const restarted = async (analyze: (sql: string) => Analysis): Promise<void> => {
    while ((sample(analyze) as QueryAnalyzer.Refused).code === "parser-restarting") {
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  for (const [name, nest] of Object.entries(nests)) {
    it(`${name}: an analysis or a refusal, and the next text is read as before`, async () => {
      const analyze = await load(QueryAnalyzer.layer())
      for (
        const depth of name === "multiple assignments"
          ? [3, 10, 16, 20]
          : [10, 200, 450, 1_000, 3_000, 10_000, 30_000]
      ) {
        const analysis = analyze(nest(depth))
        assert.isUndefined(process.exitCode)
        if (analysis._tag === "Refused") {
          assert.include(["too-deep", "too-long", "unparsable", "several-statements"], analysis.code)
          if (analysis.code !== "several-statements") assert.strictEqual(analysis.writes, "anything")
        }
        // Only these exhaust the parser's memory; all others are stopped before they exhaust its stack.
        if (name === "multiple assignments") await restarted(analyze)
        assert.deepStrictEqual(sample(analyze), read("s", "t"), `after ${depth}`)
      }
    })
  }

  it("what people write is not too deep", () => {
    assert.deepStrictEqual(analyze(nests["derived tables"](100)), read("t"))
    assert.deepStrictEqual(analyze(nests["unions"](400)), read())
    assert.deepStrictEqual(analyze(nests["disjunctions"](5_000)), read())
    const updates = repeat(1_000, (i) => `WHEN id = $${i} THEN coalesce($${i} + 1, a || 'x')`, " ")
    assert.deepStrictEqual(analyze(`UPDATE t SET a = CASE ${updates} ELSE a END`), write(["t"]))
    const conditions = repeat(1_000, (i) => `(a = $${i} AND b > $${i} AND NOT c)`, " OR ")
    assert.deepStrictEqual(analyze(`SELECT 1 FROM t WHERE ${conditions}`), read("t"))
  })

  it("a parser that ran out of stack is replaced, and nothing is answered meanwhile", async () => {
    const analyze = await load(QueryAnalyzer.layer())
    // Takes the engine's stack away, so that the parser finds none.
    const exhausted = (sql: string): Analysis => {
      let analysis: Analysis | undefined
      const dive = (): void => {
        try {
          dive()
        } catch {
          // The frames nearest to the end of the stack come first.
        }
        analysis ??= attempt(sql)
      }
      const attempt = (sql: string): Analysis | undefined => {
        try {
          return analyze(sql)
        } catch {
          return undefined
        }
      }
      dive()
      return analysis!
    }
    const deep = `SELECT ${"(SELECT ".repeat(300)}1${")".repeat(300)}`
    assert.include(["too-deep", "parser-restarting"], (exhausted(deep) as QueryAnalyzer.Refused).code)
    assert.deepStrictEqual(sample(analyze), refused("parser-restarting", "", "anything"))
    await restarted(analyze)
    assert.deepStrictEqual(sample(analyze), read("s", "t"))
  })
})

describe("any text at all", () => {
  const words = FastCheck.constantFrom(
    ..."SELECT FROM WITH AS ( ) , ; ' \" $1 $$ -- /* */ t s.t \0 INSERT INTO VALUES UPDATE SET DELETE E' U& [ ] \\ \n é 😀 1 . :: * = OR CASE END BEGIN"
      .split(" ")
  )

  it("is analysed without a crash, twice alike", () => {
    const texts = FastCheck.oneof(
      FastCheck.string({ unit: "binary", maxLength: 200 }),
      FastCheck.array(FastCheck.integer({ min: 0, max: 0xffff }), { maxLength: 50 }).map((codes) =>
        String.fromCharCode(...codes)
      ),
      FastCheck.array(words, { maxLength: 60 }).map((words) => words.join(" "))
    )
    FastCheck.assert(
      FastCheck.property(texts, FastCheck.boolean(), (text, long) => {
        const sql = long ? text + " ".repeat(70_000) : text
        const analysis = analyze(sql)
        assert.include(["Read", "Write", "Ddl", "Session", "Refused"], analysis._tag)
        assert.strictEqual(analyze(sql), analysis)
      }),
      { numRuns: 1_000 }
    )
  })
})

describe("QueryAnalyzer.layerDeclared", () => {
  const declared = (declare: QueryAnalyzer.DeclaredOptions["declare"]) =>
    Effect.runPromise(
      Effect.provide(
        Effect.map(QueryAnalyzer.QueryAnalyzer, ({ analyze }) => analyze),
        QueryAnalyzer.layerDeclared({ declare, capacity: 50 })
      )
    )

  it("says what the program says", async () => {
    const asked: Array<string> = []
    const analyze = await declared((sql) => {
      asked.push(sql)
      if (sql.startsWith("read")) return { reads: ["public.orders", "users", `"A b"`, "orders"] }
      if (sql.startsWith("write")) return { writes: ["orders"], reads: ["users"] }
      return undefined
    })
    assert.deepStrictEqual(analyze("read it"), read(`"A b"`, "orders", "users"))
    assert.strictEqual(analyze("read it"), analyze("read it"))
    assert.deepStrictEqual(analyze("write it"), write(["orders"], { reads: ["users"] }))
    assert.deepStrictEqual(analyze("SELECT 1"), refused("undeclared", "no declaration"))
    assert.deepStrictEqual(analyze("DELETE FROM t"), refused("undeclared", "no declaration"))
    assert.deepStrictEqual(analyze(""), refused("undeclared", "no declaration"))
    assert.deepStrictEqual(asked, ["read it", "write it", "SELECT 1", "DELETE FROM t", ""])
  })

  it("knows session control by its first words, as the parser does", async () => {
    const byWord = await declared(() => undefined)
    // What they leave behind it does not know.
    const known = ({ changes: _, ...analysis }: any) => analysis
    for (const [sql, expected] of cases["sessions and transactions"]) {
      assert.deepStrictEqual(byWord(sql), known(expected), sql)
      assert.deepStrictEqual(byWord(` \n/* x */ -- y\n${sql.toLowerCase()} ;`), known(analyze(sql.toLowerCase())), sql)
    }
    for (const sql of ["RELEASE savepoint", "SAVEPOINT savepoint", "ROLLBACK TO savepoint", `RELEASE "a""B"`]) {
      assert.deepStrictEqual(byWord(sql), analyze(sql), sql)
    }
    for (const sql of ["beginning", "settle", "endless", "SELECT 'commit'", "-- begin"]) {
      assert.deepStrictEqual(byWord(sql), refused("undeclared", "no declaration"), sql)
    }
    assert.deepStrictEqual(byWord("COMMIT PREPARED 'x'"), other)
  })

  it("takes a failing declaration for a write of anything", async () => {
    const failed = refused("undeclared", "the declaration failed", "anything")
    const analyze = await declared((sql): any => {
      switch (sql) {
        case "throws":
          throw new Error("secret")
        case "empty":
          return { reads: [""] }
        case "number":
          return { reads: [1] }
        case "null":
          return null
        default:
          return { writes: "orders" }
      }
    })
    for (const sql of ["throws", "empty", "number", "null", "string"]) {
      assert.deepStrictEqual(analyze(sql), failed, sql)
    }
  })
})
