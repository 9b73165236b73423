/** When the catalog is known, when not, and what becomes of statements meanwhile. */
import type { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { CachedSqlClient, CacheStore, Fingerprinter, Invalidator, QueryAnalyzer, QueryCache } from "effect-query-cache"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import * as TestClock from "effect/testing/TestClock"
import * as Logs from "../support/logs.ts"
import * as Postgres from "../support/postgres.ts"
import { Base, fateOf, fates, layer as clients } from "./fixture.ts"

const users = (sql: SqlClient.SqlClient) => sql`SELECT id FROM users ORDER BY id`.pipe(QueryCache.cached())
const orders = (sql: SqlClient.SqlClient) => sql`SELECT id FROM orders ORDER BY id`.pipe(QueryCache.cached())

const trigger = [
  `CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO orders VALUES (13, 1, 400);
    RETURN NEW;
  END $$`,
  "CREATE TRIGGER more AFTER UPDATE ON users FOR EACH ROW WHEN (NEW.id = 1) EXECUTE FUNCTION more()"
]
const rename = (sql: SqlClient.SqlClient) => sql`UPDATE users SET name = 'x' WHERE id = 1`

layer(Postgres.layerServer())("the catalog is known", (it) => {
  it.effect("at once after a statement that changes the schema", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* orders(sql)
      for (const statement of trigger) yield* sql.unsafe(statement)
      yield* orders(sql)
      yield* rename(sql)
      assert.deepStrictEqual((yield* orders(sql)).length, 4)
    }).pipe(Effect.provide(clients({ client: { maxConnections: 1 } }))))

  it.effect("after the commit of a transaction that changes it; a write in it may be one of anything", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* orders(sql)
      yield* sql.withTransaction(Effect.gen(function*() {
        for (const statement of trigger) yield* sql.unsafe(statement)
        yield* rename(sql)
      }))
      assert.deepStrictEqual((yield* orders(sql)).length, 4)
      yield* sql`DELETE FROM orders WHERE id = 13`
      yield* orders(sql)
      yield* rename(sql)
      assert.deepStrictEqual((yield* orders(sql)).length, 4)
    }).pipe(Effect.provide(clients({ client: { maxConnections: 1 } }))))

  it.effect("not if the transaction rolls back", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* orders(sql)
      yield* Effect.exit(sql.withTransaction(
        Effect.andThen(Effect.forEach(trigger, (statement) => sql.unsafe(statement)), Effect.fail("no"))
      ))
      yield* rename(sql)
      assert.deepStrictEqual(yield* fates(orders(sql)), ["hit"])
    }).pipe(Effect.provide(clients())))

  for (const how of ["once a minute", "when asked for"]) {
    it.effect(`what others change: ${how}`, () =>
      Effect.gen(function*() {
        const base = yield* Base
        const sql = yield* SqlClient.SqlClient
        yield* orders(sql)
        for (const statement of trigger) yield* base.unsafe(statement)
        if (how === "when asked for") {
          yield* Invalidator.invalidate({ all: true })
        } else {
          // By what was known it wrote to `users` alone.
          yield* rename(sql)
          assert.deepStrictEqual(yield* fates(orders(sql)), ["hit"])
          yield* base`DELETE FROM orders WHERE id = 12`
          yield* TestClock.adjust("61 seconds")
          yield* users(sql)
          // It is being read, and nobody waits for it. When it is known, nothing is served that was read before.
          while (!(yield* QueryCache.explain(rename(sql))).dependencies.includes("orders")) yield* Effect.yieldNow
          while ((yield* fates(orders(sql)))[0] !== "hit") yield* Effect.yieldNow
          assert.deepStrictEqual((yield* orders(sql)).map((row) => row.id), [10, 11, 13])
          yield* base`UPDATE orders SET id = 12 WHERE id = 13`
          yield* Invalidator.invalidate({ tables: ["orders"] })
        }
        yield* orders(sql)
        yield* rename(sql)
        assert.deepStrictEqual((yield* orders(sql)).length, 4)
      }).pipe(Effect.provide(clients({ cache: { policy: { timeToLive: "1 day" } } }))))
  }

  it.effect("a write that waits for a change of the schema may have written anything", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const sql = yield* SqlClient.SqlClient
      const byHand = (...statements: ReadonlyArray<string>) =>
        Effect.scoped(Effect.flatMap(sql.reserve, (connection) =>
          Effect.forEach(statements, (statement) =>
            connection.execute(statement, [], undefined))))
      const renames = "UPDATE users SET name = 'x' WHERE id = 1"
      const writes = [
        rename(sql),
        sql.withTransaction(rename(sql)),
        byHand(renames),
        byHand("BEGIN", renames, "COMMIT AND CHAIN", "COMMIT"),
        byHand("BEGIN", "COMMIT AND CHAIN", renames, "COMMIT")
      ]
      for (const write of writes) {
        yield* base`DROP FUNCTION IF EXISTS more() CASCADE`
        yield* base`DELETE FROM orders WHERE id = 13`
        yield* Invalidator.invalidate({ all: true })
        yield* orders(sql)
        const changed = yield* Deferred.make<void>()
        const blocked = yield* Deferred.make<void>()
        const changing = yield* Effect.forkChild(sql.withTransaction(Effect.gen(function*() {
          // So slow that what is read meanwhile is read before it has written.
          yield* sql.unsafe(trigger[0]!.replace("BEGIN", "BEGIN PERFORM pg_sleep(0.2);"))
          yield* sql.unsafe(trigger[1]!)
          yield* Deferred.succeed(changed, undefined)
          yield* Deferred.await(blocked)
        })))
        yield* Deferred.await(changed)
        const writing = yield* Effect.forkChild(write, { startImmediately: true })
        while ((yield* base`SELECT 1 FROM pg_locks WHERE NOT granted`).length === 0) {
          yield* Effect.yieldNow
        }
        yield* Deferred.succeed(blocked, undefined)
        yield* Fiber.join(changing)
        assert.strictEqual((yield* orders(sql)).length, 3)
        yield* Fiber.join(writing)
        assert.strictEqual((yield* orders(sql)).length, 4)
      }
    }).pipe(Effect.provide(clients())))

  it.effect("a changed view is another query", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const base = yield* Base
      yield* sql`CREATE VIEW v AS SELECT id FROM users`
      const before = yield* QueryCache.explain(sql`SELECT * FROM v`.pipe(QueryCache.cached()))
      yield* base`CREATE OR REPLACE VIEW v AS SELECT id FROM orders`
      yield* Invalidator.invalidate({ all: true })
      const after = yield* QueryCache.explain(sql`SELECT * FROM v`.pipe(QueryCache.cached()))
      assert.notStrictEqual(after.fingerprint, before.fingerprint)
      assert.deepStrictEqual([before.dependencies, after.dependencies], [["users", "v"], ["orders", "v"]])
    }).pipe(Effect.provide(clients())))

  it.effect("where it may not be read, queries are cached by name until anything is written", () =>
    Effect.gen(function*() {
      const base = yield* Base
      yield* base`DROP ROLE IF EXISTS blind`
      yield* base`CREATE ROLE blind LOGIN PASSWORD 'x'`
      yield* base`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO blind`
      yield* base`GRANT USAGE ON SCHEMA public TO blind`
      yield* base`REVOKE SELECT ON pg_catalog.pg_trigger FROM PUBLIC`
      const store = Context.get(yield* Layer.build(CacheStore.layerMemory()), CacheStore.CacheStore)
      const build = (client: Partial<PgClient.PgPoolConfig>) =>
        Effect.map(
          Layer.build(
            CachedSqlClient.layer({ namespace: "blind" }).pipe(
              Layer.provide([Layer.succeed(CacheStore.CacheStore, store), Postgres.layerClient(client)])
            )
          ),
          Context.get(SqlClient.SqlClient)
        )
      const blind = yield* build({ username: "blind" })
      const seeing = yield* build({})
      assert.deepStrictEqual(yield* fates(Effect.all([users(blind), users(blind)])), ["miss", "hit"])
      yield* users(seeing)
      yield* seeing`INSERT INTO orders VALUES (13, 1, 400)`
      assert.deepStrictEqual(yield* fates(Effect.all([users(blind), users(seeing)])), ["miss", "hit"])
      yield* blind`DELETE FROM orders WHERE id = 13`
      assert.deepStrictEqual(yield* fates(Effect.all([users(blind), users(seeing)])), ["miss", "miss"])
      assert.isTrue((yield* (yield* Logs.Logs).messages).some((message) => message.includes("catalog cannot be read")))
      yield* base`GRANT SELECT ON pg_catalog.pg_trigger TO PUBLIC`
    }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(clients(), Logs.layer))))

  it.effect("a process that goes by names and one that knows the schema meet on one store", () =>
    Effect.gen(function*() {
      const base = yield* Base
      yield* base`CREATE SCHEMA IF NOT EXISTS archive`
      yield* base`CREATE TABLE IF NOT EXISTS archive.users (id int)`
      const store = Layer.succeed(
        CacheStore.CacheStore,
        Context.get(yield* Layer.build(CacheStore.layerMemory()), CacheStore.CacheStore)
      )
      const declared = QueryAnalyzer.layerDeclared({
        declare: (text) => text.startsWith("SELECT") ? { reads: ["archive.users"] } : { writes: ["archive.users"] }
      })
      const build = (analyzer: Layer.Layer<QueryAnalyzer.QueryAnalyzer, any>, namespace: string) =>
        Effect.map(
          Layer.build(
            CachedSqlClient.layerNoDeps({ namespace }).pipe(
              Layer.provide([analyzer, Fingerprinter.layer, store, Postgres.layerClient()])
            )
          ),
          Context.get(SqlClient.SqlClient)
        )
      const naming = yield* build(declared, "meet")
      const knowing = yield* build(QueryAnalyzer.layer(), "meet")
      const archived = (sql: SqlClient.SqlClient) => sql`SELECT * FROM archive.users`.pipe(QueryCache.cached())
      const warm = Effect.all([archived(naming), archived(knowing), users(knowing)])
      yield* warm
      yield* knowing`INSERT INTO archive.users VALUES (1)`
      assert.deepStrictEqual(yield* fates(warm), ["miss", "miss", "hit"])
      yield* naming`INSERT INTO archive.users VALUES (2)`
      // Which `users` it means nobody knows.
      assert.deepStrictEqual(yield* fates(warm), ["miss", "miss", "miss"])
    }).pipe(Effect.scoped, Effect.provide(clients())))

  it.effect("a name that means nothing is asked for once more", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const sql = yield* SqlClient.SqlClient
      yield* users(sql)
      yield* base`CREATE TABLE late (id int)`
      yield* base`CREATE FUNCTION late() RETURNS int LANGUAGE sql AS 'SELECT count(*)::int FROM late'`
      const late = sql`SELECT late()`.pipe(QueryCache.cached())
      assert.deepStrictEqual(yield* fateOf(late), ["miss", [{ late: 0 }]])
      yield* sql`INSERT INTO late VALUES (1)`
      assert.deepStrictEqual(yield* fateOf(late), ["miss", [{ late: 1 }]])
      yield* base`CREATE TABLE later (id int)`
      yield* sql`INSERT INTO later VALUES (1)`
      // Others have changed the schema, nobody knows when.
      assert.deepStrictEqual(yield* fates(users(sql)), ["miss"])
      yield* sql`INSERT INTO later VALUES (1)`
      assert.deepStrictEqual(yield* fates(users(sql)), ["hit"])
    }).pipe(Effect.provide(clients())))
})
