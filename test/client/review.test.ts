/** Ways in which the cache was once made to give a wrong answer, each of them closed. */
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { CachedSqlClient, CacheScope, CacheStore, Dependency, QueryCache } from "effect-query-cache"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as SqlResolver from "effect/sql/SqlResolver"
import * as Statement from "effect/sql/Statement"
import * as TestClock from "effect/testing/TestClock"
import { connect } from "node:net"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { localKey } from "../../src/internal/parameters.ts"
import * as Postgres from "../support/postgres.ts"
import { Base, fateOf, fates, layer as clients, nameOf } from "./fixture.ts"

/** Clients of their own over one store. */
const over = Effect.gen(function*() {
  const store = Layer.succeed(CacheStore.CacheStore, yield* CacheStore.CacheStore)
  return (client?: Partial<PgClient.PgPoolConfig>, options?: CachedSqlClient.CachedSqlClientOptions) =>
    Effect.provide(CachedSqlClient.layer(options).pipe(Layer.provide([store, Postgres.layerClient(client)])), {
      local: true
    })
})

/** A store that answers no read at once, as one across a network. */
const remote = Layer.effect(
  CacheStore.CacheStore,
  Effect.map(CacheStore.CacheStore, (store) =>
    CacheStore.CacheStore.of({
      ...store,
      peek: () => undefined,
      lookup: (...args) => Effect.andThen(Effect.promise(() => Promise.resolve()), store.lookup(...args))
    }))
).pipe(Layer.provide(CacheStore.layerMemory()))

layer(Postgres.layerServer())("Review", (it) => {
  it.effect("clients that transform rows differently share a store, not their rows", () =>
    Effect.gen(function*() {
      const provide = yield* over
      const read = Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        return yield* sql`SELECT user_id FROM orders WHERE id = 10`.pipe(QueryCache.cached())
      })
      const camel = (name: string) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase())
      assert.deepStrictEqual(yield* provide({ transformResultNames: camel })(read), [{ userId: 1 }])
      assert.deepStrictEqual(yield* provide()(read), [{ user_id: 1 }])
      const loud = (name: string) => name.toUpperCase()
      assert.deepStrictEqual(yield* provide({ transformResultNames: loud })(read), [{ USER_ID: 1 }])
    }).pipe(Effect.provide(clients())))

  it.effect("two databases under one namespace share a store, not their rows", () =>
    Effect.gen(function*() {
      const base = yield* Base
      yield* base`CREATE DATABASE second`
      const provide = yield* over
      const read = Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        return yield* sql`SELECT string_agg(name, ' ' ORDER BY id) AS names FROM users`.pipe(QueryCache.cached())
      })
      const prepare = Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE users AS SELECT 1 AS id, 'Mallory' AS name`
      })
      yield* provide({ database: "second" })(prepare)
      const options = { namespace: "shop" }
      assert.deepStrictEqual(yield* provide({}, options)(read), [{ names: "Ada Grace Edsger" }])
      assert.deepStrictEqual(yield* provide({ database: "second" }, options)(read), [{ names: "Mallory" }])
    }).pipe(Effect.provide(clients())))

  it.effect("databases behind streams, which have no host, do not meet in a memory store", () =>
    Effect.gen(function*() {
      const provide = yield* over
      const databaseOf = Effect.fnUntraced(function*(name: string) {
        const server = Context.get(yield* Layer.build(Postgres.layerServer()), Postgres.PostgresServer)
        const open = provide({ stream: () => connect(server.config.port, server.config.host) })
        const sql = SqlClient.SqlClient
        yield* open(Effect.flatMap(sql, (sql) => sql`CREATE TABLE users AS SELECT ${name} AS name`))
        return open(Effect.flatMap(sql, (sql) => sql`SELECT name FROM users`.pipe(QueryCache.cached())))
      })
      const [ada, grace] = yield* Effect.all([databaseOf("Ada"), databaseOf("Grace")])
      assert.deepStrictEqual(yield* ada, [{ name: "Ada" }])
      assert.deepStrictEqual(yield* grace, [{ name: "Grace" }])
    }).pipe(Effect.provide(CacheStore.layerMemory())))

  it.effect("a list that changes after its statement was compiled does not answer for others", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const byIds = (ids: ReadonlyArray<number>) =>
        sql`SELECT id FROM users WHERE id IN ${sql.in(ids)} ORDER BY id`.pipe(QueryCache.cached())
      const ids = [1, 2]
      const query = byIds(ids)
      assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ id: 1 }, { id: 2 }]])
      // What the base client sends was settled with the first run.
      ids.push(3)
      yield* query
      assert.deepStrictEqual(yield* fateOf(byIds([1, 2, 3])), ["miss", [{ id: 1 }, { id: 2 }, { id: 3 }]])
      ids[1] = 3
      ids.pop()
      assert.deepStrictEqual(yield* fateOf(query), ["bypass parameters", [{ id: 1 }, { id: 2 }]])
      assert.deepStrictEqual(yield* fateOf(byIds([1, 3])), ["miss", [{ id: 1 }, { id: 3 }]])
      assert.deepStrictEqual(yield* fates(byIds([1, 2, 3])), ["hit"])
    }).pipe(Effect.provide(clients())))

  it.effect("a parameter that changes before it is sent does not answer for others", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const seconds = (at: Date) =>
        sql`SELECT extract(epoch FROM ${at}::timestamptz)::int AS s FROM users WHERE id = 1`.pipe(QueryCache.cached())
      const at = new Date(0)
      yield* Effect.all([sql`SELECT pg_sleep(0.05)`, seconds(at), Effect.sync(() => at.setTime(9000))], {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(yield* fateOf(seconds(new Date(0))), ["miss", [{ s: 0 }]])
      assert.deepStrictEqual(yield* fates(seconds(new Date(0))), ["hit"])
    }).pipe(Effect.provide(clients({ client: { maxConnections: 1 } }))))

  it.effect("COMMIT and ROLLBACK by hand inside withTransaction: a failure later on takes nothing back", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 1).pipe(QueryCache.cached())
      const rename = (name: string) => sql`UPDATE users SET name = ${name} WHERE id = 1`
      const failing = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.exit(sql.withTransaction(Effect.andThen(effect, Effect.fail("too late"))))
      yield* query
      yield* failing(Effect.andThen(rename("Augusta"), sql`COMMIT`))
      assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ name: "Augusta" }]])
      yield* failing(Effect.andThen(sql`ROLLBACK`, rename("Byron")))
      assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ name: "Byron" }]])
      yield* failing(Effect.exit(sql.withTransaction(failing(Effect.andThen(rename("Lovelace"), sql`COMMIT`)))))
      assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ name: "Lovelace" }]])
      // That nothing but such an end is taken for one.
      yield* failing(Effect.andThen(rename("Mallory"), sql`SAVEPOINT mine`))
      assert.deepStrictEqual(yield* fateOf(query), ["hit", [{ name: "Lovelace" }]])
    }).pipe(Effect.provide(clients()), Effect.provide(Logger.layer([]))))

  it.effect("a transaction inside one of the base client: what runs after the commit reads what was written", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const base = yield* Base
      const query = nameOf(sql, 1).pipe(QueryCache.cached())
      const rename = (name: string) => sql`UPDATE users SET name = ${name} WHERE id = 1`
      yield* query
      const seen: Array<unknown> = []
      const look = sql.afterCommit(Effect.orDie(Effect.tap(query, (rows) => Effect.sync(() => seen.push(rows)))))
      yield* base.withTransaction(sql.withTransaction(Effect.andThen(look, rename("Augusta"))))
      assert.deepStrictEqual(seen, [[{ name: "Augusta" }]])
      yield* base.withTransaction(
        Effect.exit(sql.withTransaction(Effect.andThen(rename("Mallory"), Effect.fail("no"))))
      )
      assert.deepStrictEqual(yield* fateOf(query), ["hit", [{ name: "Augusta" }]])
    }).pipe(Effect.provide(clients())))

  it.effect("a BEGIN that is refused on a reserved connection begins nothing", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 1).pipe(QueryCache.cached())
      yield* query
      yield* Effect.scoped(Effect.gen(function*() {
        const connection = yield* sql.reserve
        // The driver cannot encode it, so nothing is sent.
        yield* Effect.flip(connection.executeUnprepared("BEGIN", [{}], undefined))
        yield* connection.executeUnprepared("UPDATE users SET name = 'Augusta' WHERE id = 1", [], undefined)
      }))
      assert.deepStrictEqual(yield* query, [{ name: "Augusta" }])
    }).pipe(Effect.provide(clients())))

  it.effect("who joins a flight gets nothing older than its own time to live", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = (timeToLive: Duration.Input) => nameOf(sql, 1).pipe(QueryCache.cached({ timeToLive }))
      yield* query("1 hour")
      yield* TestClock.adjust("5 minutes")
      const both = yield* Effect.all([fates(query("1 hour")), fates(query("1 minute"))], { concurrency: "unbounded" })
      assert.deepStrictEqual(both, [["hit"], ["miss"]])
    }).pipe(Effect.provide(clients({ store: remote }))))

  it.effect("a clock that is set back makes no answer live longer", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 1).pipe(QueryCache.cached())
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* fates(Effect.andThen(query, query)), ["miss", "hit"])
      yield* TestClock.setTime(0)
      assert.deepStrictEqual(yield* fates(Effect.andThen(query, query)), ["miss", "hit"])
    }).pipe(Effect.provide(clients())))

  it.effect("a key of many parameters takes the room of its text, not of a tree of its parts", () =>
    Effect.sync(() => {
      setFlagsFromString("--expose-gc")
      const gc = runInNewContext("gc") as () => void
      const heap = () => {
        gc()
        return process.memoryUsage().heapUsed
      }
      const numbers = Array.from({ length: 2000 }, (_, i) => i)
      const before = heap()
      const keys = Array.from({ length: 500 }, (_, i) => [localKey([i, ...numbers]), localKey([[i, ...numbers]])])
      const bytesPerKey = (heap() - before) / keys.length / 2
      // The text has 11 kB.
      assert.isBelow(bytesPerKey, 25_000)
    }))

  it.effect("large parameters count as what their entry takes", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const length = (text: string) =>
        sql`SELECT length(${text}) AS n FROM users WHERE id = 1`.pipe(QueryCache.cached())
      assert.deepStrictEqual(yield* fates(Effect.andThen(length("short"), length("short"))), ["miss", "hit"])
      const long = length("x".repeat(100_000))
      assert.deepStrictEqual(yield* fates(Effect.andThen(long, long)), ["miss", "miss"])
    }).pipe(Effect.provide(clients({ store: CacheStore.layerMemory({ maxBytes: 100_000 }) }))))

  it.effect("SqlResolver puts requests of one scope into a batch, and no others", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE VIEW mine AS SELECT id, current_setting('app.tenant') AS tenant FROM users`
      const byId = SqlResolver.findById({
        Id: Schema.Int,
        Result: Schema.Struct({ id: Schema.Int, tenant: Schema.String }),
        ResultId: (row) => row.id,
        execute: (ids) => sql`SELECT id, tenant FROM mine WHERE ${sql.in("id", ids)}`
      })
      const ask = SqlResolver.request(byId)
      const of = (tenant: string) => CacheScope.provide({ settings: { "app.tenant": tenant } })
      const all = Effect.all([ask(1).pipe(of("acme")), ask(2).pipe(of("umbrella")), ask(3).pipe(of("acme"))], {
        concurrency: "unbounded"
      })
      const [queries, rows] = yield* QueryCache.withInfo(all.pipe(QueryCache.cached()))
      assert.deepStrictEqual(rows.map((row) => row.tenant), ["acme", "umbrella", "acme"])
      assert.strictEqual(queries.length, 2)
      // A transaction is a batch of its own, in a scope as outside of one, and not hidden by a scope within.
      const inside = yield* Effect.all([
        sql.withTransaction(Effect.andThen(sql`UPDATE users SET id = 7 WHERE id = 3`, Effect.exit(ask(7)))),
        ask(2)
      ], { concurrency: "unbounded" }).pipe(of("acme"))
      assert.deepStrictEqual(inside[0], Exit.succeed({ id: 7, tenant: "acme" }))
      const byName = SqlResolver.findById({
        Id: Schema.Int,
        Result: Schema.Struct({ id: Schema.Int, name: Schema.String }),
        ResultId: (row) => row.id,
        execute: (ids) => sql`SELECT id, name FROM users WHERE ${sql.in("id", ids)}`
      })
      // As where a program keeps its client to itself: the resolver knows the innermost transaction alone.
      const asTenant = SqlResolver.request(byName)(2).pipe(
        CacheScope.provide({ tenant: "acme" }),
        Effect.updateContext((context: Context.Context<never>) => Context.omit(SqlClient.SqlClient)(context as any))
      )
      const renamed = yield* Deferred.make<void>()
      const rename = sql`UPDATE users SET name = 'Hopper' WHERE id = 2`.pipe(
        Effect.andThen(Deferred.succeed(renamed, undefined))
      )
      const [written, other] = yield* Effect.all([
        Effect.flip(sql.withTransaction(Effect.flatMap(Effect.andThen(rename, asTenant), Effect.fail))),
        Effect.andThen(Deferred.await(renamed), asTenant)
      ], { concurrency: "unbounded" })
      assert.deepStrictEqual([written, other], [{ id: 2, name: "Hopper" }, { id: 2, name: "Grace" }])
    }).pipe(Effect.provide(clients())))

  for (const strategy of ["explicit", "all"] as const) {
    it.effect(`explain tells what becomes of a statement (${strategy})`, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const policy = { dependencies: [Dependency.tag("t")] }
        /** What `explain` says, checked against what happens. */
        const told = Effect.fnUntraced(function*(statement: Effect.Effect<ReadonlyArray<unknown>, SqlError>) {
          const { reason, verdict } = yield* QueryCache.explain(statement)
          const [[info]] = yield* QueryCache.withInfo(
            // Where nothing but `explain` has been said, it answers for `cached()`.
            strategy === "all" || "policy" in statement ? statement : QueryCache.cached(statement)
          )
          const became = info!.status === "write" ? "write" : info!.status === "bypass" ? "bypass" : "cached"
          assert.strictEqual(verdict, became)
          if (verdict === "bypass") assert.strictEqual(reason, info!.reason)
          return reason === undefined ? verdict : `${verdict} ${reason}`
        })
        const query = nameOf(sql, 1)
        assert.strictEqual(yield* told(query), "cached")
        assert.strictEqual(yield* told(query.values), "cached")
        assert.strictEqual(yield* told(QueryCache.cached(query)), "cached")
        assert.strictEqual(yield* told(QueryCache.cached(QueryCache.cached(query, policy))), "cached")
        assert.strictEqual(yield* told(sql`SELECT random()`), "bypass volatile-function")
        assert.strictEqual(yield* told(sql`DELETE FROM orders WHERE id = 12`), "write")
        yield* sql`CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'`
        assert.strictEqual(yield* told(sql`SELECT mine()`), "cached")
        yield* sql.unsafe(`CREATE FUNCTION other() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE ''SELECT 1''; END'`)
        assert.strictEqual(yield* told(sql`SELECT other()`), "write opaque-function")
        assert.strictEqual(yield* QueryCache.uncached(told(query)), "bypass uncached")
        assert.strictEqual(yield* sql.withTransaction(told(query)), "bypass transaction")
        assert.strictEqual(
          yield* told(query).pipe(
            Effect.provideService(Statement.CurrentTransformer, () => Effect.succeed(sql`SELECT pg_backend_pid()`))
          ),
          "bypass session-dependent"
        )
        const now = sql`SELECT now() > 'epoch' AS later`
        assert.strictEqual(yield* told(now), strategy === "all" ? "bypass time-dependent" : "cached")
        assert.strictEqual(yield* told(QueryCache.cached(now)), "cached")
        const { dependencies, fingerprint } = yield* QueryCache.explain(QueryCache.cached(query, policy))
        assert.deepStrictEqual(dependencies, ["#t", "users(id=\"1\")"])
        assert.strictEqual(
          fingerprint,
          (yield* QueryCache.withInfo(QueryCache.cached(query, policy)))[0][0]!.fingerprint
        )
        assert.strictEqual((yield* QueryCache.explain(Effect.void)).reason, "undecorated")
      }).pipe(Effect.provide(clients({ cache: { strategy } }))))
  }

  it.effect("two decorations of one client: a write through one is seen by reads through the other", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const shared = Layer.mergeAll(
        Layer.succeed(CacheStore.CacheStore, yield* CacheStore.CacheStore),
        Layer.succeed(PgClient.PgClient, base)
      )
      const decorate = Effect.map(
        Layer.build(CachedSqlClient.layer().pipe(Layer.provide(shared))),
        Context.get(SqlClient.SqlClient)
      )
      const [one, other] = [yield* decorate, yield* decorate]
      const rename = other`UPDATE users SET name = 'Augusta' WHERE id = 1`
      // Reads at once, then takes its time.
      const query = one`
        SELECT name FROM users, (SELECT sum(n) AS s FROM generate_series(1, 2000000) AS n) AS t WHERE id = 1 AND s > 0
      `.pipe(QueryCache.cached())
      const before = yield* Effect.forkChild(query, { startImmediately: true })
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 30)))
      yield* rename
      assert.deepStrictEqual(yield* query, [{ name: "Augusta" }])
      yield* Fiber.join(before)
    }).pipe(Effect.scoped, Effect.provide(clients())))
})
