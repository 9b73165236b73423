/** A write whose outcome is unknown: nothing it may have touched is served until it has ended, however long that takes. */
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { QueryCache } from "effect-query-cache"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as SqlClient from "effect/sql/SqlClient"
import * as TestClock from "effect/testing/TestClock"
import * as Postgres from "../support/postgres.ts"
import * as Proxy from "../support/proxy.ts"
import { Base, fateOf, fates, layer as clients, moment, nameOf, type Options, served } from "./fixture.ts"

/** A client beside all this, which sees what is committed and holds locks. Of another user, if it may be one's own. */
class Observer extends Context.Service<Observer, PgClient.PgClient>()("test/Observer") {}

const servers = (options: Proxy.ProxyOptions = {}) =>
  Layer.mergeAll(
    Proxy.layerWith(options),
    Layer.effect(Observer, PgClient.PgClient).pipe(Layer.provide(Postgres.layerClient()))
  ).pipe(Layer.provideMerge(Postgres.layerServer({ max_prepared_transactions: "4" })))

const proxied = (client: Options["client"] = {}) =>
  Layer.merge(
    Layer.unwrap(
      Effect.map(Proxy.Proxy, (proxy) => clients({ client: { port: proxy.port, maxConnections: 2, ...client } }))
    ),
    // That an outcome is unknown is logged; here it is what is tested.
    Logger.layer([])
  )

const ada = [{ name: "Ada" }]
const augusta = [{ name: "Augusta" }]

const setUp = Effect.gen(function*() {
  // What a test that fails leaves behind would keep all others waiting.
  const { terminateBackends } = yield* Postgres.PostgresServer
  yield* Effect.addFinalizer(() => Effect.ignoreCause(terminateBackends))
  const sql = yield* SqlClient.SqlClient
  const query = nameOf(sql, 1).pipe(QueryCache.cached())
  const rename = sql`UPDATE users SET name = 'Augusta' WHERE id = 1`
  assert.deepStrictEqual(yield* fates(Effect.andThen(query, query)), ["miss", "hit"])
  return { sql, query, rename, proxy: yield* Proxy.Proxy, observer: yield* Observer }
})

/** For so many seconds nothing is served, while the database is asked again and again. */
const unserved = Effect.fnUntraced(function*(
  query: Effect.Effect<unknown, unknown>,
  rows: ReadonlyArray<unknown>,
  seconds = 90
) {
  for (let i = 0; i < seconds; i++) {
    assert.deepStrictEqual(yield* fateOf(query), ["bypass unserved", rows], `after ${i} seconds`)
    yield* TestClock.adjust("1 second")
    yield* moment
  }
})

const settles = Effect.fnUntraced(function*(query: Effect.Effect<unknown, unknown>, rows: ReadonlyArray<unknown>) {
  assert.deepStrictEqual(yield* served(query), ["miss", rows])
  assert.deepStrictEqual(yield* fateOf(query), ["hit", rows])
})

/** Something of another session, from now until it is told to end. */
const held = Effect.fnUntraced(function*(lock: (sql: PgClient.PgClient) => Effect.Effect<unknown, unknown>) {
  const observer = yield* Observer
  const locked = yield* Deferred.make<void>()
  const release = yield* Deferred.make<void>()
  const holder = yield* Effect.forkChild(observer.withTransaction(
    lock(observer).pipe(Effect.andThen(Deferred.succeed(locked, undefined)), Effect.andThen(Deferred.await(release)))
  ))
  yield* Deferred.await(locked)
  return Effect.andThen(Deferred.succeed(release, undefined), Fiber.join(holder))
})

const lockRow = held((sql) => sql`SELECT 1 FROM users WHERE id = 1 FOR UPDATE`)

/** Waits until a session waits for a lock, and gives its backend. */
const blocked = Effect.gen(function*() {
  const observer = yield* Observer
  for (;;) {
    const [row] = yield* observer<
      { pid: number }
    >`SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid()`
    if (row !== undefined) return row.pid
    yield* moment
  }
})

const isVisible = Effect.gen(function*() {
  const observer = yield* Observer
  while ((yield* nameOf(observer, 1))[0].name !== "Augusta") yield* moment
})

/** A COMMIT that reaches the server long after the client has given up. */
const commitOnItsWay = (seconds?: number) =>
  Effect.gen(function*() {
    const { proxy, query, rename, sql } = yield* setUp
    yield* proxy.arm("COMMIT", "hold")
    assert.isTrue(Exit.isFailure(yield* Effect.exit(sql.withTransaction(rename))))
    yield* unserved(query, ada, seconds)
    yield* proxy.release
    yield* isVisible
    yield* settles(query, augusta)
  })

/** A statement that waits for a row at the server, which does not know that nobody waits for the statement. */
const statementThatWaits = (seconds?: number) =>
  Effect.gen(function*() {
    const { proxy, query, rename } = yield* setUp
    const release = yield* lockRow
    yield* proxy.arm("UPDATE users", "strand")
    assert.isTrue(Exit.isFailure(yield* Effect.exit(rename)))
    yield* blocked
    yield* unserved(query, ada, seconds)
    // The row was locked, and not changed: serializable or not, the write goes on.
    yield* release
    yield* isVisible
    yield* settles(query, augusta)
    yield* proxy.release
  })

layer(servers())("A write whose outcome is unknown", (it) => {
  it.effect("a COMMIT that is on its way for long, with one connection for all", () =>
    commitOnItsWay().pipe(Effect.provide(proxied({ maxConnections: 1 }))))

  it.effect("a COMMIT that waits for a deferred trigger", () =>
    Effect.gen(function*() {
      const { observer, proxy, query, rename, sql } = yield* setUp
      yield* observer.unsafe(`DO $$ BEGIN
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON users DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION slow();
      END $$`)
      const release = yield* held((sql) => sql`SELECT pg_advisory_xact_lock(1)`)
      yield* proxy.arm("COMMIT", "strand")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(sql.withTransaction(rename))))
      yield* blocked
      yield* unserved(query, ada)
      yield* release
      yield* isVisible
      yield* settles(query, augusta)
      yield* proxy.release
    }).pipe(Effect.provide(proxied())))

  it.effect("a statement that is on its way for long", () =>
    Effect.gen(function*() {
      const { proxy, query, rename } = yield* setUp
      yield* proxy.arm("UPDATE users", "hold")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(rename)))
      yield* unserved(query, ada)
      yield* proxy.release
      yield* isVisible
      yield* settles(query, augusta)
    }).pipe(Effect.provide(proxied())))

  it.effect("a statement that waits for a row, of which the server does not know that nobody waits for it", () =>
    statementThatWaits().pipe(Effect.provide(proxied())))

  it.effect("a statement whose backend is gone", () =>
    Effect.gen(function*() {
      const { observer, proxy, query, rename } = yield* setUp
      const release = yield* lockRow
      yield* proxy.arm("UPDATE users", "strand")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(rename)))
      const pid = yield* blocked
      yield* unserved(query, ada, 5)
      yield* observer`SELECT pg_terminate_backend(${pid}, 5000)`
      yield* settles(query, ada)
      yield* release
      yield* proxy.release
      assert.deepStrictEqual(yield* nameOf(observer, 1), ada)
    }).pipe(Effect.provide(proxied())))

  it.effect("what has ended is served again at once", () =>
    Effect.gen(function*() {
      const { proxy, query, rename, sql } = yield* setUp
      yield* proxy.arm("COMMIT", "lose")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(sql.withTransaction(rename))))
      for (let i = 0; i < 200 && (yield* fateOf(query))[0] === "bypass unserved"; i++) yield* moment
      // Without waiting, by the TestClock.
      assert.deepStrictEqual(yield* fateOf(query), ["hit", augusta])
    }).pipe(Effect.provide(proxied())))

  it.effect("a statement that is interrupted among others on its connection: half a minute", () =>
    Effect.gen(function*() {
      const { proxy, query, rename } = yield* setUp
      yield* proxy.arm("UPDATE users", "stall")
      const writing = yield* Effect.forkChild(rename)
      yield* proxy.happened
      yield* Fiber.interrupt(writing)
      yield* proxy.release
      // The connection works still, and does not tell which of its answers was meant.
      yield* unserved(query, augusta, 29)
      yield* settles(query, augusta)
    }).pipe(Effect.provide(proxied({ multiplex: true, maxConnections: 1 }))))

  it.effect("in a transaction of the base client", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const { proxy, query, rename, sql } = yield* setUp
      const orders = sql`SELECT count(*) FROM orders`.pipe(QueryCache.cached({ timeToLive: "1 hour" }))
      for (const inner of [rename, sql.withTransaction(rename)]) {
        yield* sql`UPDATE users SET name = 'Ada' WHERE id = 1`
        yield* Effect.all([query, orders])
        // Rolled back, and over when the connection is lost.
        yield* Effect.exit(base.withTransaction(Effect.andThen(sql`UPDATE users SET name = 'no'`, Effect.fail("no"))))
        yield* proxy.arm("COMMIT", "hold")
        assert.isTrue(Exit.isFailure(yield* Effect.exit(base.withTransaction(inner))))
        yield* unserved(query, ada, 40)
        assert.deepStrictEqual(yield* fates(orders), ["hit"])
        yield* proxy.release
        yield* isVisible
        yield* settles(query, augusta)
      }
    }).pipe(Effect.provide(proxied({ maxConnections: 1 }))))

  it.effect("in a transaction of the base client that has written several things", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const { proxy, query, rename, sql } = yield* setUp
      const orders = sql`SELECT count(*) FROM orders`.pipe(QueryCache.cached({ timeToLive: "1 hour" }))
      yield* orders
      yield* proxy.arm("COMMIT", "hold")
      const writes = Effect.andThen(sql`DELETE FROM orders WHERE id = 10`, rename)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(base.withTransaction(writes))))
      assert.deepStrictEqual(yield* fates(Effect.andThen(query, orders)), ["bypass unserved", "bypass unserved"])
      yield* proxy.release
      yield* isVisible
      yield* settles(query, augusta)
    }).pipe(Effect.provide(proxied({ maxConnections: 1 }))))

  it.effect("a write that is interrupted while it waits for a connection has done nothing", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      yield* Effect.scoped(Effect.gen(function*() {
        yield* sql.reserve
        const writing = yield* Effect.forkChild(rename, { startImmediately: true })
        yield* moment
        yield* Fiber.interrupt(writing)
      }))
      assert.deepStrictEqual(yield* fateOf(query), ["hit", ada])
    }).pipe(Effect.provide(proxied({ maxConnections: 1 }))))
})

/** To whom PostgreSQL tells no more than it has to. */
const ordinary = Effect.gen(function*() {
  const observer = yield* Observer
  yield* observer`CREATE ROLE app LOGIN`
  yield* observer`ALTER ROLE app SET default_transaction_isolation = 'serializable'`
  yield* observer`ALTER DATABASE postgres OWNER TO app`
})

layer(Layer.provideMerge(Layer.effectDiscard(ordinary), servers()))("An ordinary user", (it) => {
  it.effect("is told of its own statements", () =>
    statementThatWaits(40).pipe(Effect.provide(proxied({ username: "app" }))))

  it.effect("and of its own transactions", () => commitOnItsWay(40).pipe(Effect.provide(proxied({ username: "app" }))))
})

layer(servers())("A database that is away", (it) => {
  it.effect("until it can be asked again nothing is served", () =>
    Effect.gen(function*() {
      const { proxy, query, rename, sql } = yield* setUp
      const server = yield* Postgres.PostgresServer
      yield* proxy.arm("COMMIT", "lose")
      yield* Effect.exit(sql.withTransaction(rename))
      yield* server.stop("immediate")
      for (let i = 0; i < 60; i++) {
        yield* TestClock.adjust("1 second")
        yield* moment
      }
      yield* server.start
      assert.strictEqual((yield* fateOf(query).pipe(Effect.retry({ times: 3 })))[0], "bypass unserved")
      yield* settles(query, augusta)
    }).pipe(Effect.provide(proxied())))
})

layer(servers({ pooler: true }))("Behind a pooler", (it) => {
  it.effect("a COMMIT that is on its way for long", () => commitOnItsWay().pipe(Effect.provide(proxied())))

  it.effect("a COMMIT that has ended, while another that was prepared before has not", () =>
    Effect.gen(function*() {
      const { observer, proxy, query, rename, sql } = yield* setUp
      yield* observer.reserve.pipe(
        Effect.flatMap((connection) =>
          Effect.forEach(
            ["BEGIN", "UPDATE orders SET total = 0", "PREPARE TRANSACTION 'one'"],
            (sql) => connection.executeRaw(sql, [])
          )
        ),
        Effect.scoped
      )
      yield* Effect.addFinalizer(() => Effect.ignore(observer`ROLLBACK PREPARED 'one'`))
      yield* proxy.arm("COMMIT", "lose")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(sql.withTransaction(rename))))
      yield* unserved(query, augusta)
      yield* observer`COMMIT PREPARED 'one'`
      yield* settles(query, augusta)
    }).pipe(Effect.provide(proxied())))

  it.effect("a statement: half a minute, and as long as anybody of the same user is at work since then", () =>
    statementThatWaits().pipe(Effect.provide(proxied())))

  it.effect("a statement that never arrives: half a minute, whatever other users do", () =>
    Effect.gen(function*() {
      const { observer, proxy, query, rename } = yield* setUp
      yield* observer`CREATE ROLE other SUPERUSER LOGIN`
      const server = yield* Postgres.PostgresServer
      const other = yield* PgClient.make({ ...server.config, username: "other" })
      yield* Effect.forkChild(other`SELECT pg_sleep(60)`)
      const sleepers = observer`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'other'`
      yield* Effect.addFinalizer(() => Effect.ignore(sleepers))
      yield* proxy.arm("UPDATE users", "cut")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(rename)))
      yield* unserved(query, ada, 29)
      yield* settles(query, ada)
    }).pipe(Effect.provide(proxied())))
})
