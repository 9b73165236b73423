import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Queue, Schedule, Schema, Stream } from "effect"
import {
  CachedQuery,
  CachedSqlClient,
  CacheError,
  CacheStore,
  Dependency,
  Invalidator,
  QueryCache,
  RedisStore
} from "effect-query-cache"
import type * as Scope from "effect/Scope"
import { SqlClient } from "effect/sql"
import * as TestClock from "effect/testing/TestClock"
import { make as makeFlaky } from "./support/flakyStore.ts"
import * as Fleet from "./support/fleet.ts"
import * as Logs from "./support/logs.ts"
import * as RedisServers from "./support/redis.ts"

/** A database with one number per table, and what a test does between a statement and its answer. */
class World {
  readonly values: Record<string, number> = { orders: 1, users: 1 }
  queries = 0
  before: (sql: string) => Effect.Effect<void> = () => Effect.void
  readonly respond = ({ sql }: { readonly sql: string }) =>
    Effect.suspend(() => {
      const table = /FROM (\w+)/.exec(sql)?.[1]
      if (table === undefined) return Effect.succeed([])
      this.queries++
      const rows = [{ n: this.values[table] }]
      return Effect.as(this.before(sql), rows)
    })
  /** Writes as another program would, unseen. */
  set(table: string, n: number) {
    this.values[table] = n
  }
}

const count = (sql: SqlClient.SqlClient, table = "orders") =>
  Effect.map(sql<{ n: number }>`SELECT n FROM ${sql.literal(table)}`, ([row]) => row!.n)

const write = (world: World, sql: SqlClient.SqlClient, n: number, table = "orders") =>
  Effect.suspend(() => {
    world.set(table, n)
    return sql`UPDATE ${sql.literal(table)} SET n = ${n}`
  })

/** What a stream has emitted since it was last asked. */
const collect = <A, E, R>(stream: Stream.Stream<A, E, R>) =>
  Effect.gen(function*() {
    const emitted: Array<A> = []
    const fiber = yield* Effect.forkScoped(
      Stream.runForEach(stream, (value) => Effect.sync(() => void emitted.push(value))),
      {
        startImmediately: true
      }
    )
    return {
      fiber,
      taken: Effect.gen(function*() {
        for (let i = 0; i < 50; i++) yield* Effect.yieldNow
        return emitted.splice(0)
      })
    }
  })

const inMemory = <A, E>(
  body: (world: World) => Effect.Effect<A, E, CachedSqlClient.Services | Scope.Scope>
) => {
  const world = new World()
  return Effect.suspend(() => body(world)).pipe(Effect.provide(CachedSqlClient.layerTest(world.respond)))
}

describe("changes", () => {
  it.effect("emits the value, and again when a write has changed it", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        for (const effect of [count(sql).pipe(QueryCache.cached()), count(sql)]) {
          const { taken } = yield* collect(QueryCache.changes(effect))
          const first = world.values.orders
          assert.deepStrictEqual(yield* taken, [first])
          yield* write(world, sql, first! + 1)
          assert.deepStrictEqual(yield* taken, [first! + 1])
          yield* write(world, sql, 7, "users")
          assert.deepStrictEqual(yield* taken, [])
        }
      })
    ))

  it.effect("follows what the effect consulted when it last ran, in whatever way", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const users = yield* CachedQuery.make("user", {
          Key: Schema.Number,
          Value: Schema.Number,
          lookup: () => count(sql, "users"),
          dependencies: (id) => [Dependency.row("users", { id })]
        })
        let table = "orders"
        const { taken } = yield* collect(QueryCache.changes(Effect.suspend(() =>
          table === "orders" ? count(sql) : Effect.map(users.getMany([1, 2]), ([n]) => n!)
        )))
        assert.deepStrictEqual(yield* taken, [1])
        table = "users"
        yield* write(world, sql, 2)
        assert.deepStrictEqual(yield* taken, [1])
        yield* write(world, sql, 3)
        assert.deepStrictEqual(yield* taken, [])
        yield* write(world, sql, 5, "users")
        assert.deepStrictEqual(yield* taken, [5])
        yield* Invalidator.invalidate({ keys: [Dependency.key("user", 2)] })
        assert.deepStrictEqual(yield* taken, [5])
        yield* Invalidator.invalidate({ keys: [Dependency.key("user", 3)] })
        assert.deepStrictEqual(yield* taken, [])
        yield* Invalidator.invalidate({ all: true })
        assert.deepStrictEqual(yield* taken, [5])
      })
    ))

  it.effect("a streamed statement counts, one of which nobody knows what it reads depends on everything", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const streamed = yield* collect(QueryCache.changes(
          Effect.ignore(Stream.runDrain(sql`SELECT n FROM orders`.stream)).pipe(Effect.as("streamed"))
        ))
        const unknown = yield* collect(QueryCache.changes(Effect.as(sql`SELECT n, random() FROM orders`, "unknown")))
        assert.deepStrictEqual([yield* streamed.taken, yield* unknown.taken], [["streamed"], ["unknown"]])
        yield* write(world, sql, 2)
        assert.deepStrictEqual([yield* streamed.taken, yield* unknown.taken], [["streamed"], ["unknown"]])
        yield* write(world, sql, 2, "users")
        assert.deepStrictEqual([yield* streamed.taken, yield* unknown.taken], [[], ["unknown"]])
      })
    ))

  it.effect("a change while the effect runs is not lost", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const running = yield* Deferred.make<void>()
        world.before = () => Deferred.await(running)
        const { taken } = yield* collect(QueryCache.changes(count(sql).pipe(QueryCache.cached())))
        assert.deepStrictEqual(yield* taken, [])
        world.before = () => Effect.void
        yield* write(world, sql, 2)
        yield* Deferred.succeed(running, undefined)
        // What was read before the write, and then what it wrote.
        assert.deepStrictEqual(yield* taken, [1, 2])
      })
    ))

  it.effect("a write in a transaction is emitted after its commit, a rolled back one not at all", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const { taken } = yield* collect(QueryCache.changes(count(sql)))
        assert.deepStrictEqual(yield* taken, [1])
        yield* sql.withTransaction(Effect.gen(function*() {
          yield* write(world, sql, 2)
          assert.deepStrictEqual(yield* taken, [])
        }))
        assert.deepStrictEqual(yield* taken, [2])
        yield* Effect.exit(sql.withTransaction(Effect.andThen(write(world, sql, 3), Effect.fail("no"))))
        assert.deepStrictEqual(yield* taken, [])
      })
    ))

  it.effect("changes that come while nobody pulls are one", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const values = yield* Queue.unbounded<number>()
        const busy = yield* Deferred.make<void>()
        yield* Effect.forkScoped(
          Stream.runForEach(
            QueryCache.changes(count(sql)),
            (n) => Effect.andThen(Queue.offer(values, n), Deferred.await(busy))
          ),
          { startImmediately: true }
        )
        assert.strictEqual(yield* Queue.take(values), 1)
        for (let n = 2; n < 100; n++) yield* write(world, sql, n)
        yield* Deferred.succeed(busy, undefined)
        assert.strictEqual(yield* Queue.take(values), 99)
        assert.strictEqual(world.queries, 2)
      })
    ))

  it.effect("fails as the effect fails, begins anew when it is run again, and ends with its scope", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        let broken = true
        const { fiber, taken } = yield* collect(
          QueryCache.changes(
            Effect.suspend((): Effect.Effect<number, unknown> => broken ? Effect.fail("broken") : count(sql))
          ).pipe(
            Stream.retry(Schedule.spaced("1 second"))
          )
        )
        assert.deepStrictEqual(yield* taken, [])
        broken = false
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* taken, [1])
        yield* Fiber.interrupt(fiber)
        const { queries } = world
        yield* write(world, sql, 2)
        assert.deepStrictEqual([yield* taken, world.queries], [[], queries])
        assert.isTrue(Exit.isFailure(yield* Effect.exit(Stream.runDrain(QueryCache.changes(Effect.fail("no"))))))
      })
    ))

  it.effect("an invalidation that cannot be delivered is emitted at once, with the new answer, and again when it is", () =>
    Effect.gen(function*() {
      const world = new World()
      const memory = yield* Effect.map(Layer.build(CacheStore.layerMemory()), (context) => context)
      const flaky = makeFlaky(yield* Effect.provide(CacheStore.CacheStore, memory))
      const layer = yield* Fleet.member(world.respond, Layer.succeed(CacheStore.CacheStore, flaky.store))
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const { taken } = yield* collect(QueryCache.changes(count(sql).pipe(QueryCache.cached())))
        assert.deepStrictEqual(yield* taken, [1])
        flaky.set("invalidate", () =>
          Effect.fail(
            new CacheError.CacheError({
              operation: "invalidate",
              reason: new CacheError.StoreTimeout({ timeoutMillis: 1 })
            })
          ))
        yield* write(world, sql, 2)
        assert.deepStrictEqual(yield* taken, [2])
        flaky.set("invalidate", undefined)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* taken, [2])
      }).pipe(Effect.provide(layer))
    }))
})

describe("changes of others", () => {
  const others = <A, E>(
    body: (options: {
      readonly world: World
      readonly server: RedisServers.Server
      readonly here: SqlClient.SqlClient
      readonly there: SqlClient.SqlClient
      readonly at: <B, E2, R>(
        effect: Effect.Effect<B, E2, R>
      ) => Effect.Effect<B, E2, Exclude<R, CachedSqlClient.Services>>
      readonly elsewhere: <B, E2>(effect: Effect.Effect<B, E2, CachedSqlClient.Services>) => Effect.Effect<B, E2>
    }) => Effect.Effect<A, E, Scope.Scope>
  ) =>
    Effect.gen(function*() {
      const world = new World()
      const server = yield* RedisServers.makeServer()
      const store = RedisStore.layer().pipe(Layer.provide(RedisServers.client(server)))
      const here = yield* Fleet.member(world.respond, store)
      const there = yield* Fleet.member(world.respond, store)
      return yield* body({
        world,
        server,
        here: yield* Effect.provide(PgClient.PgClient, here),
        there: yield* Effect.provide(PgClient.PgClient, there),
        at: Effect.provide(here) as any,
        elsewhere: Effect.provide(there)
      })
    })

  /** Waits, a little, for what comes over the network. */
  const next = <A>(queue: Queue.Queue<A>) => Effect.timeout(Queue.take(queue), "5 seconds")

  const listen = <A, E, R>(stream: Stream.Stream<A, E, R>) =>
    Effect.gen(function*() {
      const values = yield* Queue.unbounded<A>()
      yield* Effect.forkScoped(Stream.runForEach(stream, (value) => Queue.offer(values, value)), {
        startImmediately: true
      })
      return values
    })

  it.live("a write elsewhere is emitted here, and never with the old answer", () =>
    others(({ at, here, there, world }) =>
      Effect.gen(function*() {
        const values = yield* at(listen(QueryCache.changes(count(here).pipe(QueryCache.cached()))))
        assert.strictEqual(yield* next(values), 1)
        for (let n = 2; n < 30; n++) {
          yield* write(world, there, n)
          assert.strictEqual(yield* next(values), n)
        }
      })
    ))

  it.live("nothing that happens between subscribing and reading is lost", () =>
    others(({ at, here, there, world }) =>
      Effect.gen(function*() {
        for (let n = 2; n < 20; n++) {
          const values = yield* at(listen(QueryCache.changes(count(here).pipe(QueryCache.cached()))))
          yield* Effect.sleep(n % 4)
          yield* write(world, there, n)
          // It may have been early enough to read it at once.
          while ((yield* next(values)) !== n) {}
        }
      })
    ))

  const invalidations = ["a write", "an invalidation of everything"] as const
  it.live.each(invalidations)(
    "a flight from before %s elsewhere answers nobody who asks when that is heard of",
    (what) =>
      others(({ at, elsewhere, here, there, world }) =>
        Effect.gen(function*() {
          const cached = count(here).pipe(QueryCache.cached())
          const heard = yield* at(listen(QueryCache.changes(Effect.as(count(here, "users"), "heard"))))
          yield* next(heard)
          // The old row is read, and on its way.
          const arrives = yield* Deferred.make<void>()
          world.before = () => Deferred.await(arrives)
          const before = yield* Effect.forkChild(cached, { startImmediately: true })
          while (world.queries < 2) yield* Effect.sleep(1)
          world.before = () => Effect.void
          world.set("orders", 2)
          if (what === "a write") yield* Effect.andThen(write(world, there, 2), there`UPDATE users SET n = 1`)
          else yield* elsewhere(Invalidator.invalidate({ all: true }))
          yield* next(heard)
          assert.strictEqual(yield* cached, 2)
          yield* Deferred.succeed(arrives, undefined)
          assert.strictEqual(yield* Fiber.join(before), 1)
          assert.strictEqual(yield* cached, 2)
        })
      )
  )

  it.live("whoever listens after others have left does not wait for the next probe", () =>
    others(({ at, here }) =>
      Effect.gen(function*() {
        const first = Stream.runHead(QueryCache.changes(count(here)))
        yield* at(first)
        const began = performance.now()
        for (let i = 0; i < 5; i++) yield* at(first)
        assert.isBelow(performance.now() - began, 900)
      })
    ))

  it.live(
    "a message that is lost, and is the last, is made up for",
    () =>
      others(({ at, here, server, there, world }) =>
        Effect.gen(function*() {
          const values = yield* at(listen(QueryCache.changes(count(here).pipe(QueryCache.cached()))))
          assert.strictEqual(yield* next(values), 1)
          assert.strictEqual((yield* server.command("PUBSUB", "CHANNELS")).length, 1)
          // While it is written nobody hears anything.
          const kill = server.command("CLIENT", "KILL", "TYPE", "pubsub")
          yield* kill
          yield* Effect.raceFirst(write(world, there, 2), Effect.forever(kill))
          assert.strictEqual(yield* Effect.timeout(Queue.take(values), "12 seconds"), 2)
        })
      ),
    30_000
  )

  it.live(
    "a subscription that was cut emits when it is back",
    () =>
      others(({ at, here, server, world }) =>
        Effect.gen(function*() {
          const values = yield* at(
            listen(QueryCache.changes(count(here).pipe(QueryCache.cached({ timeToLive: "1 millis" }))))
          )
          assert.strictEqual(yield* next(values), 1)
          yield* server.stop
          world.set("orders", 2)
          yield* Effect.sleep(50)
          yield* server.start
          while ((yield* Effect.timeout(Queue.take(values), "15 seconds")) !== 2) {}
        }).pipe(Effect.provide(Logs.layer))
      ),
    30_000
  )
})
