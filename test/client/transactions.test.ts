/** However a write or a transaction ends: what was committed is seen, and what was not is not. */
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { CacheStore, Invalidator, QueryCache } from "effect-query-cache"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as SqlClient from "effect/sql/SqlClient"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Logs from "../support/logs.ts"
import * as Postgres from "../support/postgres.ts"
import * as Proxy from "../support/proxy.ts"
import { Base, fateOf, fates, layer as clients, nameOf, served } from "./fixture.ts"

/** A client beside all this, which sees what is committed and holds locks. */
class Observer extends Context.Service<Observer, PgClient.PgClient>()("test/Observer") {}

const servers = Layer.mergeAll(
  Proxy.layer,
  Layer.effect(Observer, PgClient.PgClient).pipe(Layer.provide(Postgres.layerClient()))
).pipe(Layer.provideMerge(Postgres.layerServer()))

// That an outcome is unknown is logged; here it is what is tested.
const quiet = Logger.layer([])

const proxied = Layer.unwrap(
  Effect.map(Proxy.Proxy, (proxy) => clients({ client: { port: proxy.port, maxConnections: 4 } }))
)

const ada = [{ name: "Ada" }]
const augusta = [{ name: "Augusta" }]

const setUp = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const query = nameOf(sql, 1).pipe(QueryCache.cached())
  const rename = sql`UPDATE users SET name = 'Augusta' WHERE id = 1`
  assert.deepStrictEqual(yield* fates(Effect.andThen(query, query)), ["miss", "hit"])
  return { sql, query, rename }
})

/** Runs an effect while another session keeps the table locked; `blocked` waits until somebody waits for the lock. */
const whileLocked = Effect.fnUntraced(function*<A, E, R>(
  use: (blocked: Effect.Effect<void>) => Effect.Effect<A, E, R>
) {
  const observer = yield* Observer
  const locked = yield* Deferred.make<void>()
  const release = yield* Deferred.make<void>()
  const holder = yield* Effect.forkChild(observer.withTransaction(
    observer`LOCK TABLE users IN ACCESS EXCLUSIVE MODE`.pipe(
      Effect.andThen(Deferred.succeed(locked, undefined)),
      Effect.andThen(Deferred.await(release))
    )
  ))
  yield* Deferred.await(locked)
  const blocked = Effect.gen(function*() {
    while ((yield* observer`SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'`).length === 0) {
      yield* Effect.yieldNow
    }
  })
  const exit = yield* Effect.exit(use(Effect.orDie(blocked)))
  yield* Deferred.succeed(release, undefined)
  yield* Fiber.join(holder)
  return yield* exit
})

/** Waits, by the real clock, until a session sees what another has committed. */
const eventually = Effect.fnUntraced(function*<R>(condition: Effect.Effect<boolean, unknown, R>) {
  while (!(yield* Effect.orDie(condition))) {
    yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 2)))
  }
})

/** Until the database tells that the write has ended nothing is served, and then only what is read anew. */
const assertSettles = Effect.fnUntraced(function*(
  query: Effect.Effect<ReadonlyArray<unknown>, unknown>,
  rows: ReadonlyArray<unknown>
) {
  assert.strictEqual((yield* fateOf(query))[0], "bypass unserved")
  assert.deepStrictEqual(yield* served(query), ["miss", rows])
  assert.deepStrictEqual(yield* fateOf(query), ["hit", rows])
})

layer(servers)("Transactions", (it) => {
  it.effect("commit: invalidated after it, not before", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const written = yield* Deferred.make<void>()
      const read = yield* Deferred.make<readonly [string, unknown]>()
      yield* Effect.forkChild(
        Deferred.await(written).pipe(
          Effect.andThen(fateOf(query)),
          Effect.flatMap((fate) => Deferred.succeed(read, fate))
        )
      )
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* rename
        yield* Deferred.succeed(written, undefined)
        assert.deepStrictEqual(yield* Deferred.await(read), ["hit", ada])
      }))
      assert.deepStrictEqual(yield* fateOf(query), ["miss", augusta])
    }).pipe(Effect.provide(clients())))

  it.effect("a commit that a deferred constraint refuses: nothing is invalidated", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const exit = yield* Effect.exit(sql.withTransaction(
        Effect.andThen(rename, sql`INSERT INTO orders VALUES (99, 404, 1)`)
      ))
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual(yield* fateOf(query), ["hit", ada])
    }).pipe(Effect.provide(clients())))

  it.effect("a COMMIT that is answered by ROLLBACK: nothing is invalidated", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const error = yield* Effect.flip(sql.withTransaction(
        Effect.andThen(rename, Effect.ignore(sql`SELECT 1 / 0`))
      ))
      assert.include(String(error), "rolled back")
      assert.deepStrictEqual(yield* fateOf(query), ["hit", ada])
    }).pipe(Effect.provide(clients())))

  it.effect("rollback: what was read inside is never served", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const other = nameOf(sql, 2).pipe(QueryCache.cached())
      const exit = yield* Effect.exit(sql.withTransaction(Effect.gen(function*() {
        yield* sql`UPDATE users SET name = 'Mallory'`
        yield* rename
        assert.deepStrictEqual(yield* fateOf(query), ["bypass transaction", augusta])
        assert.deepStrictEqual(yield* fateOf(other), ["bypass transaction", [{ name: "Mallory" }]])
        return yield* Effect.fail("no")
      })))
      assert.deepStrictEqual(exit, Exit.fail("no"))
      assert.deepStrictEqual(yield* fateOf(query), ["hit", ada])
      assert.deepStrictEqual(yield* fateOf(other), ["miss", [{ name: "Grace" }]])
    }).pipe(Effect.provide(clients())))

  it.effect("a savepoint that is rolled back drops its share, the outer commit delivers the rest", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const orders = sql`SELECT count(*) FROM orders`.pipe(QueryCache.cached())
      yield* orders
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* rename
        yield* Effect.exit(sql.withTransaction(Effect.andThen(sql`DELETE FROM orders`, Effect.fail("no"))))
      }))
      assert.deepStrictEqual(yield* fates(Effect.all([query, orders])), ["miss", "hit"])
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`SELECT 1`
        yield* sql.withTransaction(sql.withTransaction(sql`DELETE FROM orders`))
      }))
      assert.deepStrictEqual(yield* fates(Effect.all([query, orders])), ["hit", "miss"])
      // The inner commit was none: the outer one decides.
      yield* Effect.exit(sql.withTransaction(
        Effect.andThen(sql.withTransaction(sql`UPDATE users SET name = 'no'`), Effect.fail("no"))
      ))
      assert.deepStrictEqual(yield* fateOf(query), ["hit", augusta])
    }).pipe(Effect.provide(clients())))

  it.effect("Invalidator.invalidate in a transaction: at its commit, not at its rollback", () =>
    Effect.gen(function*() {
      const { query, sql } = yield* setUp
      const invalidate = Invalidator.invalidate({ tables: ["users"] })
      yield* Effect.exit(sql.withTransaction(Effect.andThen(invalidate, Effect.fail("no"))))
      assert.deepStrictEqual(yield* fates(query), ["hit"])
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* Effect.exit(sql.withTransaction(Effect.andThen(invalidate, Effect.fail("no"))))
      }))
      assert.deepStrictEqual(yield* fates(query), ["hit"])
      yield* sql.withTransaction(
        sql.withTransaction(Effect.succeed(1).pipe(Invalidator.invalidating({ tables: ["users"] })))
      )
      assert.deepStrictEqual(yield* fates(query), ["miss"])
    }).pipe(Effect.provide(clients())))

  it.effect("the base client's withTransaction around decorated statements", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const { query, rename, sql } = yield* setUp
      yield* Effect.exit(base.withTransaction(Effect.gen(function*() {
        yield* rename
        assert.deepStrictEqual(yield* fateOf(query), ["bypass transaction", augusta])
        return yield* Effect.fail("no")
      })))
      assert.deepStrictEqual(yield* fateOf(query), ["hit", ada])
      yield* base.withTransaction(sql.withTransaction(rename))
      assert.deepStrictEqual(yield* fateOf(query), ["miss", augusta])
      yield* base.withTransaction(Stream.runDrain(sql`UPDATE users SET name = 'Lovelace' RETURNING id`.stream))
      assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ name: "Lovelace" }]])
      yield* sql.withTransaction(base.withTransaction(sql`UPDATE users SET name = 'Ada'`))
      assert.deepStrictEqual(yield* fateOf(query), ["miss", ada])
    }).pipe(Effect.provide(clients())))

  it.effect("a statement interrupted inside a transaction that goes on to commit", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const proxy = yield* Proxy.Proxy
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* proxy.arm("UPDATE users", "stall")
        const fiber = yield* Effect.forkChild(rename)
        // It has taken effect, and its caller does not know.
        yield* proxy.happened
        const interrupted = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
        yield* proxy.release
        yield* Fiber.join(interrupted)
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
      }))
      assert.deepStrictEqual(yield* fateOf(query), ["miss", augusta])
    }).pipe(Effect.provide([proxied, quiet])))

  it.effect("a statement interrupted inside a savepoint: its share is dropped, the rest is delivered", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const orders = sql`SELECT count(*) FROM orders`.pipe(QueryCache.cached())
      yield* orders
      const observer = yield* Observer
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* rename
        const slow = sql`DELETE FROM orders WHERE pg_sleep(60) IS NOT NULL`
        const fiber = yield* Effect.forkChild(sql.withTransaction(slow))
        yield* eventually(Effect.map(
          observer`SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'`,
          (rows) => rows.length > 0
        ))
        yield* Fiber.interrupt(fiber)
      }))
      assert.deepStrictEqual(yield* fates(Effect.all([query, orders])), ["miss", "hit"])
    }).pipe(Effect.provide(clients())))

  it.effect("an interrupted transaction is rolled back: nothing is invalidated", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const written = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkChild(sql.withTransaction(
        rename.pipe(Effect.andThen(Deferred.succeed(written, undefined)), Effect.andThen(Effect.never))
      ))
      yield* Deferred.await(written)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* fateOf(query), ["hit", ada])
    }).pipe(Effect.provide(clients())))

  it.effect("a transaction that times out waiting is rolled back: nothing is invalidated", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      yield* whileLocked((blocked) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.forkChild(
            sql.withTransaction(rename).pipe(Effect.timeout("1 second"), Effect.flip)
          )
          yield* blocked
          yield* TestClock.adjust("1 second")
          assert.strictEqual((yield* Fiber.join(fiber))._tag, "TimeoutError")
        })
      )
      assert.deepStrictEqual(yield* fateOf(query), ["hit", ada])
    }).pipe(Effect.provide(clients())))

  it.effect("a write that is interrupted, outside a transaction: it may have taken effect, and has ended", () =>
    Effect.gen(function*() {
      const { query, rename } = yield* setUp
      yield* whileLocked((blocked) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.forkChild(rename)
          yield* blocked
          yield* Fiber.interrupt(fiber)
        })
      )
      assert.deepStrictEqual(yield* fateOf(query), ["miss", ada])
    }).pipe(Effect.provide(clients())))

  it.effect("a write that times out, outside a transaction: it may have taken effect, and has ended", () =>
    Effect.gen(function*() {
      const { query, rename } = yield* setUp
      yield* whileLocked((blocked) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.forkChild(Effect.flip(Effect.timeout(rename, "1 second")))
          yield* blocked
          yield* TestClock.adjust("1 second")
          assert.strictEqual((yield* Fiber.join(fiber))._tag, "TimeoutError")
        })
      )
      assert.deepStrictEqual(yield* fateOf(query), ["miss", ada])
    }).pipe(Effect.provide(clients())))

  it.effect("a streamed write that is left early: it may have taken effect, and has ended", () =>
    Effect.gen(function*() {
      const { query, sql } = yield* setUp
      const stream = sql`UPDATE users SET name = 'Augusta' WHERE pg_sleep(0) IS NOT NULL RETURNING id`.stream
      yield* Stream.runHead(stream)
      const [fate, rows] = yield* fateOf(query)
      assert.strictEqual(fate, "miss")
      assert.deepStrictEqual(rows, yield* nameOf(yield* Observer, 1))
    }).pipe(Effect.provide(clients())))

  it.effect("an outcome that is unknown concerns what was written, and nothing else", () =>
    Effect.gen(function*() {
      const { rename, sql } = yield* setUp
      const orders = sql`SELECT * FROM orders`.pipe(QueryCache.cached())
      yield* orders
      yield* whileLocked((blocked) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.forkChild(rename)
          yield* blocked
          yield* Fiber.interrupt(fiber)
        })
      )
      assert.deepStrictEqual(yield* fates(orders), ["hit"])
    }).pipe(Effect.provide([clients(), quiet])))
})

layer(servers)("Connections that are lost", (it) => {
  it.effect("pg_terminate_backend before the transaction: it runs on another connection, or fails", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const server = yield* Postgres.PostgresServer
      yield* server.terminateBackends
      yield* Effect.ignore(sql.withTransaction(rename))
      const [fate, rows] = yield* fateOf(query)
      assert.deepStrictEqual(rows, yield* nameOf(yield* Observer, 1).pipe(Effect.retry({ times: 3 })))
      assert.strictEqual(fate, rows[0].name === "Augusta" ? "miss" : "hit")
    }).pipe(Effect.provide([clients(), quiet])))

  it.effect("pg_terminate_backend inside the transaction: rolled back, nothing is invalidated", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const observer = yield* Observer
      const exit = yield* Effect.exit(sql.withTransaction(Effect.gen(function*() {
        yield* rename
        const [{ pid }] = yield* sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`
        yield* observer`SELECT pg_terminate_backend(${pid}, 5000)`
        yield* sql`SELECT 1`
      })))
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual(yield* fateOf(query), ["hit", ada])
    }).pipe(Effect.provide([clients(), quiet])))

  it.effect("pg_terminate_backend just before COMMIT: the client cannot tell, so its outcome is unknown", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const observer = yield* Observer
      const exit = yield* Effect.exit(sql.withTransaction(Effect.gen(function*() {
        yield* rename
        const [{ pid }] = yield* sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`
        yield* observer`SELECT pg_terminate_backend(${pid}, 5000)`
      })))
      assert.isTrue(Exit.isFailure(exit))
      yield* assertSettles(query, ada)
    }).pipe(Effect.provide([clients(), quiet])))

  it.effect("COMMIT never reaches the server", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const proxy = yield* Proxy.Proxy
      yield* proxy.arm("COMMIT", "cut")
      const exit = yield* Effect.exit(sql.withTransaction(rename))
      assert.isTrue(Exit.isFailure(exit) && !Cause.hasDies(exit.cause))
      yield* assertSettles(query, ada)
    }).pipe(Effect.provide([proxied, quiet])))

  it.effect("COMMIT takes effect, and its answer is lost", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const proxy = yield* Proxy.Proxy
      yield* proxy.arm("COMMIT", "lose")
      const exit = yield* Effect.exit(sql.withTransaction(rename))
      assert.isTrue(Exit.isFailure(exit) && !Cause.hasDies(exit.cause))
      yield* assertSettles(query, augusta)
    }).pipe(Effect.provide([proxied, quiet])))

  it.effect("COMMIT takes effect after the client has given up, and after its first invalidation", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const proxy = yield* Proxy.Proxy
      const observer = yield* Observer
      yield* proxy.arm("COMMIT", "hold")
      const exit = yield* Effect.exit(sql.withTransaction(rename))
      assert.isTrue(Exit.isFailure(exit))
      // Invalidated, and the old row is still there: filled now, it would stay.
      assert.deepStrictEqual(yield* fateOf(query), ["bypass unserved", ada])
      yield* proxy.release
      assert.deepStrictEqual(yield* nameOf(observer, 1), augusta)
      yield* assertSettles(query, augusta)
    }).pipe(Effect.provide([proxied, quiet])))

  it.effect("a write of its own takes effect, and its answer is lost", () =>
    Effect.gen(function*() {
      const { query, rename } = yield* setUp
      const proxy = yield* Proxy.Proxy
      yield* proxy.arm("UPDATE users", "lose")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(rename)))
      yield* assertSettles(query, augusta)
    }).pipe(Effect.provide([proxied, quiet])))

  it.effect("a write of its own takes effect after the client has given up", () =>
    Effect.gen(function*() {
      const { query, rename } = yield* setUp
      const proxy = yield* Proxy.Proxy
      yield* proxy.arm("UPDATE users", "hold")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(rename)))
      assert.deepStrictEqual(yield* fateOf(query), ["bypass unserved", ada])
      yield* proxy.release
      yield* assertSettles(query, augusta)
    }).pipe(Effect.provide([proxied, quiet])))

  it.effect("a flight that took off before the loss is not joined after it, and fills nothing", () =>
    Effect.gen(function*() {
      const { rename, sql } = yield* setUp
      const proxy = yield* Proxy.Proxy
      const grace = sql`SELECT name FROM users WHERE id > 1 AND id < 3`.pipe(QueryCache.cached())
      yield* proxy.arm("UPDATE users", "lose")
      const [exit] = yield* Effect.all([Effect.exit(rename), grace], { concurrency: "unbounded" })
      assert.isTrue(Exit.isFailure(exit))
      yield* assertSettles(grace, [{ name: "Grace" }])
    }).pipe(Effect.provide([proxied, quiet])))

  for (const fault of ["cut", "lose"] as const) {
    it.effect(`${fault} at any byte of a transaction and of a write: never an old answer`, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const proxy = yield* Proxy.Proxy
        const observer = yield* Observer
        const query = nameOf(sql, 1).pipe(QueryCache.cached())
        const outcomes = { committed: 0, not: 0 }
        let done = false
        for (let byte = 1; !done; byte += 13) {
          yield* query
          yield* proxy.arm(byte, fault)
          const name = `byte ${byte}`
          yield* Effect.exit(sql.withTransaction(sql.unsafe(`UPDATE users SET name = '${name}' WHERE id = 1`)))
          yield* Effect.exit(sql`UPDATE users SET status = ${name} WHERE id = 1`)
          done = yield* proxy.disarm
          const truth = yield* nameOf(observer, 1)
          outcomes[truth[0].name === name ? "committed" : "not"]++
          // A server may still be at it after the client has gone: it is asked again below.
          const [, rows] = yield* fateOf(query)
          assert.isTrue(rows[0].name === truth[0].name || rows[0].name === name, name)
          yield* served(query)
          assert.deepStrictEqual(yield* fateOf(query), ["hit", yield* nameOf(observer, 1)], name)
        }
        assert.isAbove(outcomes.committed, 2)
        assert.isAbove(outcomes.not, 2)
      }).pipe(Effect.provide([proxied, quiet])))
  }
})

layer(servers)("Transactions begun by hand", (it) => {
  it.effect("on a reserved connection: COMMIT delivers, ROLLBACK does not, AND CHAIN begins another", () =>
    Effect.gen(function*() {
      const { query, sql } = yield* setUp
      const connection = yield* sql.reserve
      const run = (...statements: ReadonlyArray<string>) =>
        Effect.forEach(statements, (statement) => connection.executeRaw(statement, []), { discard: true })
      const rename = (name: string) => `UPDATE users SET name = '${name}' WHERE id = 1`
      yield* run("BEGIN", rename("no"), "ROLLBACK")
      assert.deepStrictEqual(yield* fateOf(query), ["hit", ada])
      yield* run("START TRANSACTION", rename("one"))
      assert.deepStrictEqual(yield* fateOf(query), ["hit", ada])
      yield* run("COMMIT AND CHAIN")
      assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ name: "one" }]])
      yield* run(rename("two"))
      assert.deepStrictEqual(yield* fateOf(query), ["hit", [{ name: "one" }]])
      yield* run("END")
      assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ name: "two" }]])
      yield* run("BEGIN", rename("three"), "SAVEPOINT a", rename("four"), "ROLLBACK TO a", "COMMIT")
      assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ name: "three" }]])
      // After the end of a transaction each write is on its own again.
      yield* run(rename("five"))
      assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ name: "five" }]])
    }).pipe(Effect.scoped, Effect.provide(clients())))

  it.effect("on a reserved connection, unfinished at the end of its scope: rolled back, nothing is invalidated", () =>
    Effect.gen(function*() {
      const { query, sql } = yield* setUp
      const grace = nameOf(sql, 2).pipe(QueryCache.cached())
      yield* Effect.scoped(Effect.gen(function*() {
        const connection = yield* sql.reserve
        yield* connection.executeRaw("BEGIN", [])
        yield* connection.executeRaw("UPDATE users SET name = 'Mallory'", [])
      }))
      assert.deepStrictEqual(yield* fateOf(query), ["hit", ada])
      // On the same connection, which the base client leaves in its transaction.
      assert.deepStrictEqual(yield* fateOf(grace), ["miss", [{ name: "Grace" }]])
    }).pipe(Effect.provide(clients({ client: { maxConnections: 1 } }))))

  it.effect("on a reserved connection, lost before its end: its outcome is unknown", () =>
    Effect.gen(function*() {
      const { query, sql } = yield* setUp
      const proxy = yield* Proxy.Proxy
      yield* Effect.scoped(Effect.gen(function*() {
        const connection = yield* sql.reserve
        yield* connection.executeRaw("BEGIN", [])
        yield* connection.executeRaw("UPDATE users SET name = 'Augusta' WHERE id = 1", [])
        yield* proxy.arm("ROLLBACK", "cut")
      }))
      yield* assertSettles(query, ada)
    }).pipe(Effect.provide([proxied, quiet])))

  it.effect("on a reserved connection, COMMIT's answer lost: its outcome is unknown", () =>
    Effect.gen(function*() {
      const { query, sql } = yield* setUp
      const proxy = yield* Proxy.Proxy
      yield* Effect.scoped(Effect.gen(function*() {
        const connection = yield* sql.reserve
        yield* connection.executeRaw("BEGIN", [])
        yield* connection.executeRaw("UPDATE users SET name = 'Augusta' WHERE id = 1", [])
        yield* proxy.arm("COMMIT", "lose")
        assert.isTrue(Exit.isFailure(yield* Effect.exit(connection.executeRaw("COMMIT", []))))
      }))
      yield* assertSettles(query, augusta)
    }).pipe(Effect.provide([proxied, quiet])))

  it.effect("on the pool: nothing uncommitted is served or filled", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const grace = nameOf(sql, 2).pipe(QueryCache.cached())
      yield* sql`BEGIN`
      yield* sql`UPDATE users SET name = 'Mallory' WHERE id = 2`
      assert.deepStrictEqual(yield* fateOf(grace), ["bypass transaction", [{ name: "Mallory" }]])
      assert.deepStrictEqual(yield* fateOf(query), ["bypass transaction", ada])
      yield* sql`ROLLBACK`
      assert.deepStrictEqual(yield* fateOf(grace), ["miss", [{ name: "Grace" }]])
      yield* sql`BEGIN`
      yield* rename
      assert.deepStrictEqual(yield* fateOf(query), ["bypass transaction", augusta])
      yield* sql`COMMIT`
      assert.deepStrictEqual(yield* fateOf(query), ["miss", augusta])
      assert.deepStrictEqual(yield* fateOf(query), ["hit", augusta])
    }).pipe(Effect.provide(clients({ client: { maxConnections: 1 } }))))

  it.effect("on the pool: a warning says so, once", () =>
    Effect.gen(function*() {
      const { sql } = yield* setUp
      const logs = yield* Logs.Logs
      for (const statement of ["BEGIN", "ROLLBACK", "BEGIN", "ROLLBACK"]) yield* sql.unsafe(statement)
      assert.deepStrictEqual((yield* logs.messages).map((message) => message.slice(0, 50)), [
        "A transaction was begun by a statement on the pool"
      ])
    }).pipe(Effect.provide(Layer.provideMerge(clients({ client: { maxConnections: 1 } }), Logs.layer))))

  it.effect("on the pool: a read that was under way when it began fills nothing that is served", () =>
    Effect.gen(function*() {
      const looked = yield* Deferred.make<void>()
      const delivered = yield* Deferred.make<void>()
      const slow = Layer.effect(
        CacheStore.CacheStore,
        Effect.map(CacheStore.CacheStore, (store) => ({
          ...store,
          lookup: (...args) => Effect.andThen(Deferred.await(looked), store.lookup(...args)),
          invalidate: (request) => Effect.andThen(Deferred.await(delivered), store.invalidate(request))
        }))
      ).pipe(Layer.provide(CacheStore.layerMemory()))
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const query = nameOf(sql, 1).pipe(QueryCache.cached())
        // By now it is known what the names mean: the read is sent at once.
        yield* sql`SELECT 1`
        const early = yield* Effect.forkChild(query, { startImmediately: true })
        yield* sql`BEGIN`
        const write = yield* Effect.forkChild(sql`UPDATE users SET name = 'Mallory' WHERE id = 1`)
        while ((yield* nameOf(sql, 1))[0].name !== "Mallory") yield* Effect.yieldNow
        yield* Deferred.succeed(looked, undefined)
        // On the only connection, and hence inside the transaction.
        assert.deepStrictEqual(yield* Fiber.join(early), [{ name: "Mallory" }])
        const rollback = yield* Effect.forkChild(sql`ROLLBACK`)
        while ((yield* nameOf(sql, 1))[0].name !== "Ada") yield* Effect.yieldNow
        assert.deepStrictEqual(yield* fateOf(query), ["bypass transaction", ada])
        yield* Deferred.succeed(delivered, undefined)
        yield* Fiber.joinAll([write, rollback])
        assert.deepStrictEqual(yield* fateOf(query), ["miss", ada])
      }).pipe(Effect.provide(clients({ client: { maxConnections: 1 }, store: slow })))
    }))

  it.effect("on the pool, BEGIN lost with its connection: the cache goes on", () =>
    Effect.gen(function*() {
      const { query, sql } = yield* setUp
      const proxy = yield* Proxy.Proxy
      yield* proxy.arm("BEGIN", "cut")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(sql`BEGIN`)))
      assert.deepStrictEqual(yield* fateOf(query), ["hit", ada])
    }).pipe(Effect.provide([proxied, quiet])))

  it.effect("on the pool, COMMIT's answer lost: its outcome is unknown", () =>
    Effect.gen(function*() {
      const { query, rename, sql } = yield* setUp
      const proxy = yield* Proxy.Proxy
      yield* sql`BEGIN`
      yield* rename
      yield* proxy.arm("COMMIT", "hold")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(sql`COMMIT`)))
      assert.deepStrictEqual(yield* fateOf(query), ["bypass unserved", ada])
      yield* proxy.release
      yield* assertSettles(query, augusta)
    }).pipe(Effect.provide([proxied, quiet])))
})
