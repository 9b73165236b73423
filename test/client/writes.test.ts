/** Every form of a statement, and of a reserved connection, is seen as a write where it is one. */
import { assert, layer } from "@effect/vitest"
import { QueryCache } from "effect-query-cache"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import type { SqlError } from "effect/sql/SqlError"
import type { Statement } from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import * as Postgres from "../support/postgres.ts"
import { Base, fateOf, fates, layer as clients, nameOf } from "./fixture.ts"

type Run = Effect.Effect<unknown, SqlError>

const forms: ReadonlyArray<readonly [name: string, run: (statement: Statement<any>) => Run]> = [
  ["yield*", (statement) => statement],
  ["values", (statement) => statement.values],
  ["valuesUnprepared", (statement) => statement.valuesUnprepared],
  ["unprepared", (statement) => statement.unprepared],
  ["withoutTransform", (statement) => statement.withoutTransform],
  ["raw", (statement) => statement.raw],
  ["stream", (statement) => Stream.runDrain(statement.stream)],
  ["cached", (statement) => QueryCache.cached(statement)],
  ["cached values", (statement) => statement.values.pipe(QueryCache.cached())],
  ["uncached", (statement) => QueryCache.uncached(statement)]
]

const connectionForms: ReadonlyArray<readonly [name: string, run: (connection: Connection, sql: string) => Run]> = [
  ["execute", (connection, sql) => connection.execute(sql, [], undefined)],
  ["executeRaw", (connection, sql) => connection.executeRaw(sql, [])],
  ["executeValues", (connection, sql) => connection.executeValues(sql, [])],
  ["executeValuesUnprepared", (connection, sql) => connection.executeValuesUnprepared(sql, [])],
  ["executeUnprepared", (connection, sql) => connection.executeUnprepared(sql, [], undefined)],
  ["executeStream", (connection, sql) => Stream.runDrain(connection.executeStream(sql, [], undefined))]
]

// By what they touch. `{ users: true }` leaves answers about orders alone.
const writes: ReadonlyArray<{
  readonly sql: string
  readonly before?: ReadonlyArray<string>
  readonly users?: true
  readonly orders?: true
  readonly fails?: true
}> = [
  { sql: "INSERT INTO users VALUES (4, 'Barbara')", users: true },
  { sql: "UPDATE public.\"users\" SET name = 'A' WHERE id = 1", users: true },
  { sql: "DELETE FROM orders WHERE id = 12", orders: true },
  { sql: "INSERT INTO users VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded.name", users: true },
  { sql: "INSERT INTO orders SELECT id + 20, id, 5 FROM users", orders: true },
  { sql: "WITH gone AS (DELETE FROM orders WHERE id = 12 RETURNING id) SELECT count(*) FROM gone", orders: true },
  {
    sql:
      "WITH added AS (INSERT INTO users VALUES (4, 'Barbara') RETURNING id) INSERT INTO orders SELECT 14, id, 1 FROM added",
    users: true,
    orders: true
  },
  {
    sql: "MERGE INTO users AS u USING orders AS o ON u.id = o.user_id AND o.id = 12 " +
      "WHEN MATCHED THEN UPDATE SET name = 'merged'",
    users: true
  },
  { sql: "TRUNCATE orders", orders: true },
  { sql: "TRUNCATE users CASCADE", users: true, orders: true },
  { sql: "EXPLAIN ANALYZE UPDATE users SET name = 'explained' WHERE id = 1", users: true },
  { sql: "EXPLAIN UPDATE users SET name = 'explained' WHERE id = 1" },
  { sql: "SELECT * FROM users FOR UPDATE" },
  { sql: "SET application_name = 'other'" },
  { sql: "ALTER TABLE users ALTER COLUMN name SET DEFAULT 'x'", users: true, orders: true },
  { sql: "CREATE TABLE more AS SELECT * FROM users", users: true, orders: true },
  { sql: "SELECT * INTO more FROM users", users: true, orders: true },
  {
    before: ["CREATE PROCEDURE rename() LANGUAGE sql AS $$ UPDATE users SET name = 'called' $$"],
    sql: "CALL rename()",
    users: true
  },
  {
    before: ["CREATE FUNCTION rename() RETURNS void LANGUAGE sql AS $$ UPDATE users SET name = 'called' $$"],
    sql: "SELECT rename()",
    users: true
  },
  {
    before: [`CREATE FUNCTION rename() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
      EXECUTE 'UPDATE users SET name = ''called''';
    END $$`],
    sql: "SELECT rename()",
    users: true,
    orders: true
  },
  { sql: "DO $$ BEGIN UPDATE users SET name = 'done'; END $$", users: true, orders: true },
  // Failed, and committed all the same.
  {
    sql: "DO $$ BEGIN UPDATE users SET name = 'done'; COMMIT; RAISE EXCEPTION 'no'; END $$",
    users: true,
    orders: true,
    fails: true
  },
  // Failed, and did nothing.
  { sql: "INSERT INTO users VALUES (4, 'Barbara'), (1, 'twice')", fails: true },
  { sql: "UPDATE users SET nothing = 1", fails: true }
]

const rename = "UPDATE users SET name = 'Augusta' WHERE id = 1 RETURNING id"
const augusta = [{ name: "Augusta" }]

layer(Postgres.layerServer())("Writes", (it) => {
  it.effect("every form of a statement", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const sql = yield* SqlClient.SqlClient
      const ada = nameOf(sql, 1).pipe(QueryCache.cached())
      for (const [name, run] of forms) {
        yield* base`UPDATE users SET name = 'Ada' WHERE id = 1`
        yield* sql`DELETE FROM users WHERE id > 98`
        assert.deepStrictEqual(yield* fates(Effect.andThen(ada, ada)), ["miss", "hit"], name)
        assert.isFalse((yield* fates(run(sql.unsafe(rename)))).some((fate) => fate !== "write"), name)
        assert.deepStrictEqual(yield* fateOf(ada), ["miss", augusta], name)
      }
    }).pipe(Effect.provide(clients())))

  it.effect("every form of a statement in a transaction: at its commit, and not at its rollback", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const sql = yield* SqlClient.SqlClient
      const ada = nameOf(sql, 1).pipe(QueryCache.cached())
      for (const [name, run] of forms) {
        yield* base`UPDATE users SET name = 'Ada' WHERE id = 1`
        yield* sql`DELETE FROM users WHERE id > 98`
        yield* ada
        const write = run(sql.unsafe(rename))
        yield* Effect.exit(sql.withTransaction(Effect.andThen(write, Effect.fail("no"))))
        assert.deepStrictEqual(yield* fateOf(ada), ["hit", [{ name: "Ada" }]], name)
        yield* sql.withTransaction(write)
        assert.deepStrictEqual(yield* fateOf(ada), ["miss", augusta], name)
      }
    }).pipe(Effect.provide(clients())))

  it.effect("every form of a reserved connection, outside and inside a transaction begun by hand", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const sql = yield* SqlClient.SqlClient
      const ada = nameOf(sql, 1).pipe(QueryCache.cached())
      for (const [name, run] of connectionForms) {
        const connection = yield* sql.reserve
        yield* base`UPDATE users SET name = 'Ada' WHERE id = 1`
        yield* sql`DELETE FROM users WHERE id > 98`
        yield* ada
        yield* run(connection, rename)
        assert.deepStrictEqual(yield* fateOf(ada), ["miss", augusta], name)
        yield* run(connection, "BEGIN")
        yield* run(connection, "UPDATE users SET name = 'Ada' WHERE id = 1")
        assert.deepStrictEqual(yield* fateOf(ada), ["hit", augusta], name)
        yield* run(connection, "COMMIT")
        assert.deepStrictEqual(yield* fateOf(ada), ["miss", [{ name: "Ada" }]], name)
      }
    }).pipe(Effect.scoped, Effect.provide(clients())))

  it.effect("a statement prepared by hand", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const ada = nameOf(sql, 1).pipe(QueryCache.cached())
      yield* ada
      const connection = yield* sql.reserve
      yield* connection.executeRaw(`PREPARE rename AS ${rename}`, [])
      assert.deepStrictEqual(yield* fates(ada), ["hit"])
      yield* connection.executeRaw("EXECUTE rename", [])
      assert.deepStrictEqual(yield* fateOf(ada), ["miss", augusta])
    }).pipe(Effect.scoped, Effect.provide(clients())))

  it.effect.each(writes)(
    "$sql",
    ({ before = [], fails = false, orders = false, sql: text, users = false }) =>
      Effect.gen(function*() {
        const base = yield* Base
        const sql = yield* SqlClient.SqlClient
        for (const statement of before) yield* base.unsafe(statement)
        const reads = (sql: SqlClient.SqlClient) => [
          sql`SELECT * FROM users ORDER BY id`,
          sql`SELECT * FROM orders ORDER BY id`
        ]
        const cached = Effect.all(reads(sql)).pipe(QueryCache.cached())
        yield* cached
        const exit = yield* Effect.exit(sql.unsafe(text))
        assert.strictEqual(Exit.isFailure(exit), fails)
        const [queries, rows] = yield* QueryCache.withInfo(cached)
        assert.deepStrictEqual(queries.map((query) => query.status), [users ? "miss" : "hit", orders ? "miss" : "hit"])
        assert.deepStrictEqual(rows, yield* Effect.all(reads(base)))
      }).pipe(Effect.provide(clients()))
  )
})
