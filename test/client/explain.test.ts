// Why `explain` shows a whole table: each code where it is told, and that a table of which rows are told has none.
import { assert, it, layer } from "@effect/vitest"
import { CachedSqlClient, CacheScope, CacheStore, Dependency, QueryCache } from "effect-query-cache"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import * as Pglite from "../support/pglite.ts"

const clients = (options: CachedSqlClient.CachedSqlClientOptions = {}) =>
  CachedSqlClient.layer({ namespace: "explain", ...options }).pipe(
    Layer.provide([CacheStore.layerMemory(), Pglite.layer()])
  )

const schema = [
  "CREATE TABLE users (id int PRIMARY KEY, name text, score float8, big int)",
  "CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE, status text)",
  "CREATE TABLE log (id int)",
  "CREATE TABLE audited (id int PRIMARY KEY, note text)",
  "CREATE TABLE stamped (id int PRIMARY KEY, note text)",
  "CREATE TABLE ruled (id int PRIMARY KEY)",
  "CREATE TABLE members (id int)",
  "CREATE TABLE secret (id int PRIMARY KEY)",
  "CREATE TABLE parted (id int, part int) PARTITION BY LIST (part)",
  "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1)",
  "CREATE VIEW open_orders AS SELECT * FROM orders WHERE status = 'open'",
  "CREATE VIEW people AS SELECT id, name FROM users",
  "CREATE FUNCTION total() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM log'",
  `CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO log VALUES (1); RETURN NULL; END'`,
  "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.id := 1; RETURN NEW; END'",
  "CREATE TRIGGER audit AFTER UPDATE ON audited FOR EACH ROW EXECUTE FUNCTION audit()",
  "CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION stamp()",
  "CREATE RULE noted AS ON DELETE TO ruled DO ALSO INSERT INTO log VALUES (1)",
  "ALTER TABLE secret ENABLE ROW LEVEL SECURITY",
  "CREATE POLICY own ON secret USING (id IN (SELECT id FROM members))",
  "CREATE VIEW secrets AS SELECT * FROM secret"
]

/** Each whole table with why, after what `explain` tells of rows. */
const told = ({ dependencies, whole }: QueryCache.Explanation): string => {
  const rows = dependencies.filter((one) => !whole.some(({ table }) => table === one))
  return [
    ...rows.map((one) => one.replaceAll("\"", "")),
    ...whole.map(({ detail, reason, table }) => [`${table}:`, reason, detail].filter(Boolean).join(" "))
  ].join(" | ")
}

type Case = readonly [sql: string, expected: string, ...parameters: ReadonlyArray<unknown>]

const numbers = (count: number) => Arr.makeBy(count, (i) => i)

const reads: ReadonlyArray<Case> = [
  ["SELECT * FROM users WHERE id = $1", "users(id=1)", 1],
  ["SELECT * FROM users", "users: no-condition"],
  ["SELECT * FROM users WHERE id > 1 AND NOT id = 2", "users: no-condition"],
  ["SELECT * FROM users WHERE score = $1", "users: column-type score", 1],
  ["SELECT * FROM users WHERE id = $1 + 1", "users: expression id", 1],
  ["SELECT * FROM users WHERE id = $1::float8", "users: expression id", 1],
  ["SELECT * FROM users WHERE id = $1", "users: value id", "01"],
  ["SELECT * FROM users WHERE id = $1", "users: value id", 1.5],
  ["SELECT * FROM users WHERE id = ANY ($1)", "users: value id", []],
  ["SELECT * FROM users WHERE name = $1 OR name = $1", "users: value name", "a"],
  ["SELECT * FROM users WHERE id = 1 OR name LIKE 'A%'", "users: alternative id"],
  ["SELECT * FROM orders o JOIN users u ON u.id = o.user_id WHERE o.id = $1", "orders(id=1) | users: join id", 1],
  [
    "SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id AND u.id = $1",
    "orders(user_id=1) | users: outer-join",
    1
  ],
  [
    "SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id AND o.status = 'x'",
    "orders(status=x) | users: no-condition"
  ],
  [
    "SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE o.id IS NULL",
    "orders: outer-join | users: no-condition"
  ],
  [
    "SELECT * FROM users u FULL JOIN orders o ON o.user_id = u.id AND u.id = $1 AND o.id = 2",
    "orders: outer-join | users: outer-join",
    1
  ],
  ["SELECT * FROM (SELECT * FROM orders LIMIT 10) o WHERE user_id = $1", "orders: subquery", 1],
  ["SELECT * FROM (SELECT user_id, count(*) FROM orders GROUP BY 1) o WHERE user_id = $1", "orders: subquery", 1],
  ["SELECT * FROM (SELECT id FROM orders LIMIT 10) o", "orders: no-condition"],
  ["SELECT * FROM users WHERE id = ANY ($1)", "users: too-many", numbers(101)],
  [
    "SELECT * FROM users WHERE id = ANY ($1) UNION ALL SELECT * FROM users WHERE big = ANY ($2)",
    "users: too-many",
    numbers(60),
    numbers(60)
  ],
  ["SELECT * FROM users WHERE id = 1 UNION ALL SELECT * FROM users", "users: no-condition"],
  ["SELECT * FROM open_orders WHERE id = $1", "open_orders: not-a-table | orders: indirect open_orders", 1],
  ["SELECT * FROM secrets", "members: indirect secret | secret: indirect secrets | secrets: not-a-table"],
  ["SELECT total()", "log: indirect total"],
  [
    "SELECT * FROM orders WHERE id IN (SELECT id FROM open_orders)",
    "open_orders: not-a-table | orders: indirect open_orders"
  ],
  [
    `SELECT 1 FROM ${numbers(65).map((i) => `users u${i}`).join(", ")} WHERE u0.id = 1`,
    "users: statement"
  ]
]

const writes: ReadonlyArray<Case> = [
  ["UPDATE users SET name = 'x' WHERE id = $1", "users(id=1) | users(id=1,name=x)", 1],
  ["UPDATE users SET name = 'x'", "users: no-condition"],
  ["UPDATE users SET name = 'x' WHERE score = 1", "users: column-type score"],
  ["UPDATE users SET name = 'x' WHERE name = $1 AND id = $2", "users: value name", "\0", "01"],
  ["UPDATE users SET name = lower(name) WHERE name = $1", "users: expression", "x"],
  ["DELETE FROM orders WHERE id = ANY ($1)", "orders: when-run", [1, 2]],
  ["INSERT INTO log SELECT 1", "log: insert-select"],
  ["INSERT INTO log SELECT 1 RETURNING *", "log: when-run"],
  [`INSERT INTO log VALUES ${numbers(1_001).map((i) => `(${i})`).join()}`, "log: too-many"],
  [
    `INSERT INTO users VALUES ${numbers(700).map((i) => `(${i})`).join()} ON CONFLICT (id) DO UPDATE SET name = ''`,
    "users: too-many"
  ],
  ["INSERT INTO log VALUES (1 + 1)", "log: expression"],
  ["INSERT INTO stamped VALUES (1, 'x')", "stamped: before-trigger"],
  ["UPDATE stamped SET note = 'x' WHERE id = 1", "stamped: before-trigger"],
  ["INSERT INTO stamped VALUES (1, 'x') RETURNING *", "stamped: when-run"],
  ["DELETE FROM ruled WHERE id = 1", "log: indirect noted | ruled: rule"],
  ["UPDATE audited SET note = 'x' WHERE id = 1", "audited(id=1) | audited(id=1,note=x) | log: indirect audit"],
  ["DELETE FROM users WHERE id = 1", "users(id=1) | orders: indirect users"],
  ["DELETE FROM people WHERE id = 1", "orders: indirect users | people: not-a-table | users: indirect people"],
  ["INSERT INTO parted_1 SELECT 1, 1", "parted: insert-select | parted_1: insert-select"],
  ["TRUNCATE users CASCADE", "orders: indirect users | users: statement"],
  [
    "MERGE INTO log USING orders o ON o.id = log.id WHEN NOT MATCHED THEN INSERT VALUES (1)",
    "log: statement"
  ],
  [
    `WITH m AS (MERGE INTO log USING orders o ON o.id = log.id WHEN MATCHED THEN DELETE RETURNING 1)
      DELETE FROM log WHERE id = 1`,
    "log: statement"
  ],
  ["WITH d AS (DELETE FROM log WHERE id = 1) DELETE FROM log", "log: no-condition"],
  ["EXPLAIN ANALYZE DELETE FROM log WHERE id = 1", "log: statement"]
]

layer(clients(), { timeout: 30_000 })("whole tables", (it) => {
  it.effect("of reads and writes", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      for (const statement of schema) yield* sql.unsafe(statement)
      const cases = [...reads, ...writes]
      const all = yield* Effect.forEach(cases, ([text, , ...parameters]) =>
        Effect.map(QueryCache.explain(sql.unsafe(text, parameters)), told))
      assert.deepStrictEqual(
        all.map((one, i) => [cases[i]![0].slice(0, 200), one]),
        cases.map(([text, expected]) => [text.slice(0, 200), expected])
      )
    }))

  it.effect("under a policy and a role", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = sql`SELECT * FROM users WHERE id = ${1}`
      const policy = { dependencies: [Dependency.table("log"), Dependency.tag("t")] }
      assert.strictEqual(told(yield* QueryCache.explain(query, policy)), "#t | users(id=1) | log: declared")
      assert.strictEqual(
        told(yield* QueryCache.explain(sql`SELECT * FROM users`, { ...policy, autoInvalidate: false })),
        "#t | !log: declared | !users: no-condition"
      )
      assert.strictEqual(
        told(yield* QueryCache.explain(query, { dependencies: [Dependency.table("users")] })),
        "users(id=1) | users: declared"
      )
      assert.strictEqual(told(yield* QueryCache.explain(sql`SELECT random()`, policy)), "#t | log: declared")
      const asReader = CacheScope.provide({ role: "reader" })
      assert.strictEqual(told(yield* asReader(QueryCache.explain(query))), "users: search-path")
    }))

  it.effect("none where everything is invalidated, or nothing is known", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      assert.deepStrictEqual((yield* QueryCache.explain(sql`DROP TABLE nothing`)).whole, [])
      assert.deepStrictEqual((yield* QueryCache.explain(sql`SELECT random()`)).whole, [])
      assert.deepStrictEqual((yield* QueryCache.explain(Effect.void)).whole, [])
    }))
})

layer(clients({ catalogInterval: false }))("without a catalog", (it) => {
  it.effect("names stand for themselves", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = sql`SELECT * FROM users WHERE id = ${1}`
      assert.strictEqual(told(yield* QueryCache.explain(query)), "users: no-catalog")
      assert.strictEqual(told(yield* QueryCache.explain(sql`DELETE FROM users WHERE id = ${1}`)), "users: no-catalog")
    }))
})

it("the codes in docs/rows.md are those told above", () => {
  const docs = readFileSync(join(import.meta.dirname, "../../docs/rows.md"), "utf8").split("## Why a whole table")[1]!
  const listed = Array.from(docs.matchAll(/^\| `([a-z-]+)` \|/gm), ([, code]) => code!)
  const told = [...reads, ...writes].flatMap(([, expected]) => expected.match(/(?<=: )[a-z-]+/g) ?? [])
  assert.deepStrictEqual(listed.sort(), [...new Set([...told, "declared", "no-catalog", "search-path"])].sort())
})
