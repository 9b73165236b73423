import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Cron,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Metric,
  Option,
  Schedule,
  Schema,
  Scope,
  Stream
} from "effect"
import {
  CachedQuery,
  CachedSqlClient,
  CacheError,
  CacheMetrics,
  CacheScope,
  CacheStore,
  Dependency,
  Invalidator,
  MaterializedView,
  QueryCache,
  RedisStore
} from "effect-query-cache"
import { SqlClient } from "effect/sql"
import * as TestClock from "effect/testing/TestClock"
import { make as makeFlaky } from "./support/flakyStore.ts"
import * as Fleet from "./support/fleet.ts"
import * as Logs from "./support/logs.ts"
import * as RedisServers from "./support/redis.ts"

/** What a database answers: a number per table, and what happens before it does. */
class World {
  n = 1
  queries = 0
  before: Effect.Effect<void, any> = Effect.void
  readonly respond = ({ sql }: { readonly sql: string }) =>
    Effect.suspend((): Effect.Effect<ReadonlyArray<object>, any> => {
      if (!sql.startsWith("SELECT")) return Effect.succeed([])
      this.queries++
      return Effect.andThen(this.before, Effect.sync(() => [{ n: this.n }]))
    })
}

type Rows = ReadonlyArray<{ readonly n: number }>

const orders = (sql: SqlClient.SqlClient) => sql<{ n: number }>`SELECT n FROM orders`

const write = (world: World, sql: SqlClient.SqlClient, n: number, table = "orders") =>
  Effect.suspend(() => {
    world.n = n
    return sql`UPDATE ${sql.literal(table)} SET n = ${n}`
  })

/** Lets what is ready run. */
const settle = Effect.gen(function*() {
  for (let i = 0; i < 60; i++) yield* Effect.yieldNow
})

const inMemory = <A, E>(
  body: (world: World) => Effect.Effect<A, E, CachedSqlClient.Services | Scope.Scope | Logs.Logs>
) => {
  const world = new World()
  return Effect.suspend(() => body(world)).pipe(
    Effect.provide(CachedSqlClient.layerTest(world.respond)),
    Effect.provide(Logs.layer)
  )
}

const valueOf = <E>(view: MaterializedView.MaterializedView<Rows, E>) => Effect.map(view.get, ([row]) => row!.n)

const every = (duration: Duration.Input) => Schedule.spaced(duration)

describe("the value", () => {
  it.effect("is read at once, waited for by the first who ask, and the same frozen object for all", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const ready = yield* Deferred.make<void>()
        world.before = Deferred.await(ready)
        const view = yield* MaterializedView.make("view", { query: orders(sql) })
        assert.deepStrictEqual(yield* view.age, Option.none())
        const first = yield* Effect.forkChild(Effect.all([view.get, view.get], { concurrency: 2 }), {
          startImmediately: true
        })
        // One of those who wait leaves.
        yield* Fiber.interrupt(yield* Effect.forkChild(view.get, { startImmediately: true }))
        yield* settle
        assert.isUndefined(first.pollUnsafe())
        assert.strictEqual(world.queries, 1)
        yield* Deferred.succeed(ready, undefined)
        const [one, two] = yield* Fiber.join(first)
        assert.strictEqual(one, two)
        assert.strictEqual(yield* view.get, one)
        assert.isTrue(Object.isFrozen(one) && Object.isFrozen(one[0]))
        yield* TestClock.adjust("3 seconds")
        assert.deepStrictEqual(yield* view.age, Option.some(Duration.seconds(3)))
        assert.strictEqual(world.queries, 1)
      })
    ))

  it.effect("is read anew by its schedule, and served meanwhile", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const view = yield* MaterializedView.make("view", { query: orders(sql), schedule: every("1 minute") })
        assert.strictEqual(yield* valueOf(view), 1)
        world.n = 2
        const ready = yield* Deferred.make<void>()
        world.before = Deferred.await(ready)
        yield* TestClock.adjust("59 seconds")
        assert.strictEqual(world.queries, 1)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(world.queries, 2)
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual([yield* valueOf(view), yield* view.age], [1, Option.some(Duration.seconds(70))])
        yield* Deferred.succeed(ready, undefined)
        yield* settle
        assert.deepStrictEqual([yield* valueOf(view), yield* view.age], [2, Option.some(Duration.seconds(10))])
        // A minute after it was read, however long that took.
        yield* TestClock.adjust("60 seconds")
        assert.strictEqual(world.queries, 3)
      })
    ))

  it.effect("is read anew by cron", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* TestClock.setTime(Date.UTC(2026, 0, 1, 5, 59, 30))
        const view = yield* MaterializedView.make("view", {
          query: orders(sql),
          schedule: Schedule.cron("0 6 * * *", "UTC")
        })
        assert.strictEqual(yield* valueOf(view), 1)
        world.n = 2
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual(yield* valueOf(view), 2)
        yield* TestClock.adjust("23 hours")
        assert.strictEqual(world.queries, 2)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(world.queries, 3)
      })
    ))

  it.effect("is read anew on demand: those who ask while one is read share the next one", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const view = yield* MaterializedView.make("view", { query: orders(sql) })
        yield* view.get
        const ready = yield* Deferred.make<void>()
        world.before = Deferred.await(ready)
        const one = yield* Effect.forkChild(view.refresh, { startImmediately: true })
        yield* settle
        const others = yield* Effect.forEach(
          [1, 2, 3],
          () => Effect.forkChild(view.refresh, { startImmediately: true })
        )
        world.n = 2
        world.before = Effect.void
        yield* Deferred.succeed(ready, undefined)
        yield* Fiber.join(one)
        assert.deepStrictEqual((yield* Fiber.joinAll(others)).map(([row]) => row!.n), [2, 2, 2])
        assert.strictEqual(world.queries, 3)
        assert.strictEqual(yield* valueOf(view), 2)
      })
    ))

  it.effect("that is older than its time to live is served, and read anew for who asks", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const view = yield* MaterializedView.make("view", { query: orders(sql), timeToLive: "1 minute" })
        assert.strictEqual(yield* valueOf(view), 1)
        world.n = 2
        yield* TestClock.adjust("10 minutes")
        // Nobody has asked.
        assert.strictEqual(world.queries, 1)
        assert.deepStrictEqual(
          (yield* QueryCache.withInfo(valueOf(view))).map((part) => Array.isArray(part) ? part[0].status : part),
          ["stale", 1]
        )
        yield* settle
        assert.deepStrictEqual([yield* valueOf(view), world.queries], [2, 2])
        // While it fails, it is left alone for a while.
        yield* TestClock.adjust("1 minute")
        world.before = Effect.fail("broken")
        for (let i = 0; i < 10; i++) {
          assert.strictEqual(yield* valueOf(view), 2)
          yield* settle
        }
        assert.strictEqual(world.queries, 3)
        yield* TestClock.adjust("1 second")
        yield* view.get
        yield* settle
        assert.strictEqual(world.queries, 4)
      })
    ))

  it.effect("may be anything", () =>
    inMemory(() =>
      Effect.gen(function*() {
        const view = yield* MaterializedView.make("view", {
          query: Effect.map(Effect.scoped(Effect.succeed(1)), (n) => Option.some({ n, at: new Date(0) }))
        })
        assert.deepStrictEqual(yield* view.get, Option.some({ n: 1, at: new Date(0) }))
      })
    ))

  it.effect("is told among the queries, by name", () =>
    inMemory(() =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const view = yield* MaterializedView.make("sales", { query: orders(sql) })
        yield* view.get
        yield* TestClock.adjust("2 seconds")
        const [[info]] = yield* QueryCache.withInfo(QueryCache.cached(view.get))
        assert.include(info, { name: "sales", status: "hit", level: "L1", sql: undefined })
        assert.deepStrictEqual(info!.age, Duration.seconds(2))
      })
    ))
})

describe("a query that does not succeed", () => {
  const failures: Record<string, { readonly query: Effect.Effect<never, string>; readonly kind: string }> = {
    "fails": { query: Effect.fail("secret 42"), kind: "a failure" },
    "dies": { query: Effect.die(new TypeError("secret 42")), kind: "TypeError" },
    "interrupts itself": { query: Effect.interrupt, kind: "interrupted" },
    "hangs": { query: Effect.never, kind: "TimeoutError" },
    "hangs and cannot be interrupted": { query: Effect.uninterruptible(Effect.never), kind: "TimeoutError" }
  }

  it.effect.each(Object.keys(failures))(
    "%s: the value stays, and the failure is seen until it succeeds",
    (name) =>
      inMemory(() =>
        Effect.gen(function*() {
          const { kind, query } = failures[name]!
          let n = 1
          let next: Effect.Effect<number, string> = Effect.sync(() => n)
          const view = yield* MaterializedView.make("view", {
            query: Effect.suspend(() => next),
            schedule: every("1 minute"),
            queryTimeout: "10 seconds"
          })
          assert.strictEqual(yield* view.get, 1)
          assert.deepStrictEqual(yield* view.lastFailure, Option.none())
          next = query
          yield* TestClock.adjust("1 minute")
          yield* TestClock.adjust("10 seconds")
          const failure = Option.getOrThrow(yield* view.lastFailure)
          assert.isAtLeast(failure.atMillis, 60_000)
          assert.strictEqual(Cause.isTimeoutError(Cause.squash(failure.cause)), kind === "TimeoutError")
          for (let i = 0; i < 3; i++) yield* TestClock.adjust("70 seconds")
          assert.strictEqual(yield* view.get, 1)
          assert.isTrue(Exit.isFailure(
            yield* Effect.exit(
              Effect.raceFirst(view.refresh, TestClock.adjust("1 minute").pipe(Effect.andThen(Effect.never)))
            )
          ))
          n = 2
          next = Effect.sync(() => n)
          for (let i = 0; i < 3; i++) yield* TestClock.adjust("70 seconds")
          assert.strictEqual(yield* view.get, 2)
          assert.deepStrictEqual(yield* view.lastFailure, Option.none())
          const logs = yield* Logs.Logs
          assert.deepStrictEqual(yield* logs.messages, [
            `MaterializedView "view": its query fails (${kind}); its value of ${
              kind === "TimeoutError" ? 70 : 60
            } seconds ago is served`,
            `MaterializedView "view": it is refreshed again`
          ])
          assert.notInclude(yield* logs.everything, "secret")
        })
      )
  )

  it.effect("the first time: whoever waits gets the failure, and whoever asks then has it tried again", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        world.before = Effect.fail("no database")
        const view = yield* MaterializedView.make("view", { query: orders(sql) })
        assert.strictEqual(yield* Effect.flip(view.get), "no database" as any)
        assert.strictEqual(yield* Effect.flip(view.get), "no database" as any)
        world.before = Effect.void
        assert.strictEqual(yield* valueOf(view), 1)
        assert.strictEqual(world.queries, 3)
      })
    ))

  it.effect("is counted by what became of it", () =>
    inMemory(() =>
      Effect.gen(function*() {
        const count = (outcome: string) =>
          Effect.map(
            Metric.value(Metric.withAttributes(CacheMetrics.viewRefreshes, { outcome })),
            (state) => state.count
          )
        let next: Effect.Effect<number, string> = Effect.succeed(1)
        const view = yield* MaterializedView.make("view", {
          query: Effect.suspend(() => next),
          queryTimeout: "1 second"
        })
        const before = yield* Effect.all([count("read"), count("failed"), count("timeout")])
        yield* view.refresh
        next = Effect.fail("no")
        yield* Effect.exit(view.refresh)
        next = Effect.never
        yield* Effect.exit(Effect.raceFirst(view.refresh, Effect.andThen(TestClock.adjust("1 second"), Effect.never)))
        const after = yield* Effect.all([count("read"), count("failed"), count("timeout")])
        assert.deepStrictEqual(after.map((n, i) => Number(n) - Number(before[i])), [1, 1, 1])
      })
    ))
})

describe("invalidations", () => {
  const make = (
    sql: SqlClient.SqlClient,
    options: Partial<MaterializedView.MaterializedViewOptions<any, any, any>> = {}
  ) =>
    MaterializedView.make<Rows, any>("view", {
      query: orders(sql),
      refreshOnInvalidation: { debounce: "2 seconds" },
      ...options
    } as any)

  it.effect("of what the query reads refresh it, once for all that come in the debounce", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const view = yield* make(sql)
        assert.strictEqual(yield* valueOf(view), 1)
        yield* write(world, sql, 2)
        yield* TestClock.adjust("1 second")
        yield* write(world, sql, 3)
        assert.deepStrictEqual([yield* valueOf(view), world.queries], [1, 1])
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual([yield* valueOf(view), world.queries], [3, 2])
        yield* write(world, sql, 4, "users")
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual([yield* valueOf(view), world.queries], [3, 2])
      })
    ))

  it.effect("that come without end do not put it off without end", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const view = yield* make(sql)
        yield* view.get
        for (let n = 2; n < 22; n++) {
          yield* write(world, sql, n)
          yield* TestClock.adjust("1 second")
        }
        assert.strictEqual(world.queries, 1 + 10)
      })
    ))

  it.effect("of tags, dependencies, cached queries and views refresh it, and so does its own key", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const users = yield* CachedQuery.make("user", {
          Key: Schema.Number,
          Value: Schema.Number,
          lookup: () => Effect.sync(() => world.n),
          dependencies: (id) => [Dependency.row("users", { id })]
        })
        const inner = yield* MaterializedView.make("inner", { query: Effect.sync(() => ({ inner: world.n })) })
        const view = yield* make(sql, {
          query: Effect.all([Effect.map(users.get(1), (n) => ({ n })), inner.get]),
          tags: ["dashboard"],
          dependencies: [Dependency.table("rates")],
          refreshOnInvalidation: { debounce: 0 }
        })
        yield* view.get
        let id = (yield* view.get)[0]
        let step = 0
        const refreshed = Effect.gen(function*() {
          yield* TestClock.adjust(0)
          yield* settle
          const before = id
          id = (yield* view.get)[0]
          return id !== before
        })
        for (
          const [what, wakes] of [
            [Invalidator.invalidate({ tags: ["dashboard"] }), true],
            [Invalidator.invalidate({ tags: ["other"] }), false],
            [Invalidator.invalidate({ tables: ["rates"] }), true],
            [sql`UPDATE rates SET x = 1`, true],
            [Invalidator.invalidate({ rows: [Dependency.row("users", { id: 2 })] }), false],
            [users.invalidate(1), true],
            [inner.refresh, true],
            [Invalidator.invalidate({ keys: [Dependency.key("view", "view")] }), true],
            [Invalidator.invalidate({ all: true }), true]
          ] as ReadonlyArray<[Effect.Effect<unknown, unknown, Invalidator.Invalidator>, boolean]>
        ) {
          yield* Effect.orDie(what)
          assert.strictEqual(yield* refreshed, wakes, `step ${++step}`)
        }
      })
    ))

  it.effect("its own key refreshes it in any case, and nothing else does where it was not asked for", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const view = yield* make(sql, { refreshOnInvalidation: false, tags: ["dashboard"] })
        yield* view.get
        yield* write(world, sql, 2)
        yield* Invalidator.invalidate({ tags: ["dashboard"] })
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(world.queries, 1)
        yield* Invalidator.invalidate({ keys: [Dependency.key("view", "view")] })
        yield* TestClock.adjust(1)
        assert.deepStrictEqual([yield* valueOf(view), world.queries], [2, 2])
      })
    ))

  it.effect("that come while the query runs are reflected by another run", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const ready = yield* Deferred.make<void>()
        // The answer is settled before the wait.
        const view = yield* make(sql, {
          query: Effect.tap(orders(sql), () =>
            Effect.suspend(() => world.queries === 1 ? Deferred.await(ready) : Effect.void))
        })
        yield* settle
        yield* write(world, sql, 2)
        yield* Deferred.succeed(ready, undefined)
        assert.strictEqual(yield* valueOf(view), 1)
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual([yield* valueOf(view), world.queries], [2, 2])
      })
    ))

  it.effect("are tried again when the query fails, less and less often", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const view = yield* make(sql)
        yield* view.get
        world.before = Effect.fail("broken")
        yield* write(world, sql, 2)
        yield* TestClock.adjust("2 minutes")
        const { queries } = world
        assert.isAbove(queries, 4)
        assert.isBelow(queries, 10)
        world.before = Effect.void
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual([yield* valueOf(view), world.queries], [2, queries + 1])
        yield* TestClock.adjust("10 minutes")
        assert.strictEqual(world.queries, queries + 1)
      })
    ))

  it.effect("of a rolled back transaction do nothing; of one that commits, after its commit", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const view = yield* make(sql)
        yield* view.get
        yield* Effect.exit(sql.withTransaction(Effect.andThen(write(world, sql, 2), Effect.fail("no"))))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(world.queries, 1)
        yield* sql.withTransaction(Effect.gen(function*() {
          yield* write(world, sql, 3)
          yield* TestClock.adjust("1 minute")
          assert.deepStrictEqual([yield* valueOf(view), world.queries], [1, 1])
        }))
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* valueOf(view), 3)
      })
    ))

  it.effect("QueryCache.changes emits every new value", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const view = yield* make(sql)
        const seen: Array<number> = []
        yield* Effect.forkScoped(
          Stream.runForEach(QueryCache.changes(valueOf(view)), (n) => Effect.sync(() => void seen.push(n)))
        )
        yield* settle
        yield* write(world, sql, 2)
        yield* TestClock.adjust("2 seconds")
        yield* settle
        world.n = 3
        yield* view.refresh
        yield* settle
        assert.deepStrictEqual(seen, [1, 2, 3])
      })
    ))
})

describe("what is around it", () => {
  it.effect("it is asked outside of the transaction it was made in, and with the services there", () =>
    inMemory(() =>
      Effect.gen(function*() {
        class Rate extends Context.Service<Rate, number>()("Rate") {}
        const sql = yield* SqlClient.SqlClient
        const view = yield* sql.withTransaction(
          MaterializedView.make("view", {
            query: Effect.gen(function*() {
              const [, [infos]] = yield* Effect.all([Rate, QueryCache.withInfo(orders(sql))])
              return { rate: yield* Rate, reason: infos[0]!.reason }
            }).pipe(QueryCache.withInfo, Effect.map(([, value]) => value))
          })
        ).pipe(Effect.provideService(Rate, 7))
        const expected = { rate: 7, reason: "uncached" }
        assert.deepStrictEqual(yield* view.get, expected)
        assert.deepStrictEqual(yield* sql.withTransaction(view.refresh), expected)
      })
    ))

  it.effect("closing its scope ends everything, frees its name, and keeps the last value", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const make = MaterializedView.make("view", {
          query: orders(sql),
          schedule: every("1 minute"),
          refreshOnInvalidation: { debounce: 1 }
        })
        const scope = yield* Scope.make()
        const view = yield* Scope.provide(make, scope)
        yield* view.get
        const stopped = yield* Deferred.make<void>()
        world.before = Effect.onInterrupt(Effect.never, () => Deferred.succeed(stopped, undefined))
        const waiting = yield* Effect.forkChild(view.refresh, { startImmediately: true })
        yield* settle
        yield* Scope.close(scope, Exit.void)
        yield* Deferred.await(stopped)
        const exit = yield* Fiber.await(waiting)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        assert.isTrue(Exit.isFailure(yield* Effect.exit(view.refresh)))
        world.before = Effect.void
        yield* write(world, sql, 2)
        yield* TestClock.adjust("10 minutes")
        assert.deepStrictEqual([yield* valueOf(view), world.queries], [1, 2])
        const again = yield* make
        assert.strictEqual(yield* valueOf(again), 2)
      })
    ))

  it.effect("whoever waits for the first value when the scope closes is interrupted", () =>
    inMemory((world) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        world.before = Effect.never
        const scope = yield* Scope.make()
        const view = yield* Scope.provide(MaterializedView.make("view", { query: orders(sql) }), scope)
        const waiting = yield* Effect.forkChild(view.get, { startImmediately: true })
        yield* settle
        yield* Scope.close(scope, Exit.void)
        assert.isTrue(Exit.isFailure(yield* Fiber.await(waiting)))
        assert.isTrue(Exit.isFailure(yield* Effect.exit(view.get)))
      })
    ))

  const refusals: Record<string, [options: object, option: string]> = {
    "a schedule that never fires": [{ schedule: Schedule.recurs(0) }, "schedule"],
    "a schedule that does not wait": [{ schedule: Schedule.forever }, "schedule"],
    "a schedule that waits for ever": [{ schedule: Schedule.spaced(Infinity) }, "schedule"],
    "a cron without a date": [{ schedule: Schedule.cron(Cron.parseUnsafe("0 0 31 2 *")) }, "schedule"],
    "a cron that is none": [{ schedule: Schedule.cron("often") }, "schedule"],
    "no schedule": [{ schedule: "5 minutes" }, "schedule"],
    "no query": [{ query: () => 1 }, "query"],
    "a name nobody knows": [{ refreshOnInvalidations: true }, "refreshOnInvalidations"],
    "a negative time to live": [{ timeToLive: -1 }, "timeToLive"],
    "a debounce that is none": [{ refreshOnInvalidation: { debounce: "soon" } }, "refreshOnInvalidation.debounce"],
    "neither yes nor no": [{ refreshOnInvalidation: 1 }, "refreshOnInvalidation"],
    "no time": [{ queryTimeout: 0 }, "queryTimeout"],
    "tags that are none": [{ tags: [""] }, "tags"],
    "dependencies that are none": [{ dependencies: ["orders"] }, "dependencies"],
    "no bytes": [{ maxEntryBytes: 0 }, "maxEntryBytes"]
  }

  it.effect.each(Object.keys(refusals))("refused: %s", (name) =>
    inMemory(() =>
      Effect.gen(function*() {
        const [options, option] = refusals[name]!
        const exit = yield* Effect.exit(MaterializedView.make("view", { query: Effect.succeed(1), ...options } as any))
        assert.isTrue(Exit.isFailure(exit))
        const error = Cause.squash((exit as Exit.Failure<any, any>).cause) as CacheError.InvalidOptionError
        assert.instanceOf(error, CacheError.InvalidOptionError)
        assert.strictEqual(error.option, option)
        if (option === "schedule" && name !== "no schedule") assert.include(error.message, "\"view\"")
        // Its name is free still.
        yield* MaterializedView.make("view", { query: Effect.succeed(1) })
      })
    ))

  it.effect("a name that is taken is refused", () =>
    inMemory(() =>
      Effect.gen(function*() {
        yield* MaterializedView.make("view", { query: Effect.succeed(1) })
        const exit = yield* Effect.exit(MaterializedView.make("view", { query: Effect.succeed(1) }))
        assert.include(String(Cause.squash((exit as Exit.Failure<any, any>).cause)), "\"view\"")
      })
    ))

  it.effect("a schedule that ends later is reported", () =>
    inMemory(() =>
      Effect.gen(function*() {
        let n = 0
        const view = yield* MaterializedView.make("view", {
          query: Effect.sync(() => ++n),
          schedule: Schedule.max([Schedule.spaced("1 second"), Schedule.recurs(2)])
        })
        yield* view.get
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(yield* view.get, 3)
        assert.deepStrictEqual(yield* (yield* Logs.Logs).messages, [
          "MaterializedView \"view\": its schedule has ended; from now on only invalidations and demand refresh it"
        ])
      })
    ))
})

/** A value of several columns of every kind, of about so many bytes. */
const large = (rows: number) =>
  Array.from({ length: rows }, (_, id) => ({ id, name: `name ${id}`, at: new Date(id * 1000), big: BigInt(id) ** 3n }))

describe("a large value", () => {
  it.effect("is served without a copy, to everybody", () =>
    inMemory(() =>
      Effect.gen(function*() {
        const value = large(50_000)
        const view = yield* MaterializedView.make("large", { query: Effect.succeed(value) })
        assert.strictEqual(yield* view.get, value)
        assert.strictEqual(yield* Effect.scoped(view.get), value)
      })
    ))
})

describe("a fleet", () => {
  /** Members over one store that says of itself that it is shared, so that time is the TestClock's. */
  const overMemory = Effect.fnUntraced(function*(world: World, count: number) {
    const memory = Context.get(yield* Layer.build(CacheStore.layerMemory()), CacheStore.CacheStore)
    const flaky = makeFlaky(memory)
    const members = yield* Effect.forEach(
      Array.from({ length: count }),
      () => Fleet.member(world.respond, Layer.succeed(CacheStore.CacheStore, { ...flaky.store }))
    )
    return { flaky, members }
  })

  type Member = Effect.Success<ReturnType<typeof Fleet.member>>

  const makeAt = (member: Member, options: Partial<MaterializedView.MaterializedViewOptions<any, any, any>> = {}) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      return yield* MaterializedView.make<Rows, any>("view", {
        query: orders(sql),
        schedule: Schedule.cron("* * * * *", "UTC"),
        ...options
      } as any)
    }).pipe(Effect.provide(member))

  it.effect("one reads, the others take over what it has read", () =>
    Effect.gen(function*() {
      const world = new World()
      const { members } = yield* overMemory(world, 4)
      const views = yield* Effect.forEach(members, (member) => Effect.tap(makeAt(member), valueOf))
      assert.strictEqual(world.queries, 1)
      for (let minute = 1; minute < 5; minute++) {
        world.n++
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(yield* Effect.forEach(views, valueOf), views.map(() => minute + 1))
        assert.strictEqual(world.queries, minute + 1)
      }
    }))

  it.effect("that is out of step asks the database once per period, and no value is two periods old", () =>
    Effect.gen(function*() {
      const world = new World()
      const { members } = yield* overMemory(world, 3)
      const views = yield* Effect.forEach(
        members,
        (member) => Effect.tap(makeAt(member, { schedule: every("1 minute") }), () => TestClock.adjust("17 seconds"))
      )
      yield* TestClock.adjust("10 minutes")
      const { queries } = world
      for (let second = 0; second < 600; second++) {
        yield* TestClock.adjust("1 second")
        for (const view of views) {
          assert.isBelow(Duration.toSeconds(Option.getOrThrow(yield* view.age)), 120)
        }
      }
      assert.isAtMost(world.queries - queries, 11)
    }))

  it.effect("whoever joins later takes over what is there, with its age; an old one is served until there is a new one", () =>
    Effect.gen(function*() {
      const world = new World()
      const { members: [one, two, three] } = yield* overMemory(world, 3)
      yield* Effect.tap(makeAt(one!, { schedule: every("1 hour") }), valueOf)
      yield* TestClock.adjust("10 minutes")
      const second = yield* makeAt(two!, { schedule: every("1 hour") })
      assert.deepStrictEqual([yield* valueOf(second), yield* second.age], [1, Option.some(Duration.minutes(10))])
      assert.strictEqual(world.queries, 1)
      world.n = 2
      const ready = yield* Deferred.make<void>()
      world.before = Deferred.await(ready)
      const third = yield* makeAt(three!, { schedule: every("1 minute") })
      yield* settle
      assert.deepStrictEqual([yield* valueOf(third), world.queries], [1, 2])
      yield* Deferred.succeed(ready, undefined)
      yield* settle
      assert.strictEqual(yield* valueOf(third), 2)
    }))

  it.effect("a write of one refreshes all, and one of them reads", () =>
    Effect.gen(function*() {
      const world = new World()
      const { members } = yield* overMemory(world, 3)
      const options = { schedule: undefined, refreshOnInvalidation: { debounce: "1 second" } } as const
      const views = yield* Effect.forEach(members, (member) => Effect.tap(makeAt(member, options), valueOf))
      const sql = Context.get(members[1]!, SqlClient.SqlClient)
      // Twice: what the query depends on is known, and shared, when it has run once.
      for (const n of [2, 3]) {
        const { queries } = world
        yield* write(world, sql, n)
        yield* TestClock.adjust("1 second")
        yield* settle
        assert.deepStrictEqual(yield* Effect.forEach(views, valueOf), [n, n, n])
        assert.strictEqual(world.queries, queries + 1)
      }
    }))

  it.effect("a write during the query is not covered by what it has read, for anybody", () =>
    Effect.gen(function*() {
      const world = new World()
      const { members: [one, two] } = yield* overMemory(world, 2)
      const sql = Context.get(two!, SqlClient.SqlClient)
      const ready = yield* Deferred.make<void>()
      const options = { schedule: undefined, refreshOnInvalidation: { debounce: "1 second" } } as const
      const first = yield* makeAt(one!, {
        ...options,
        query: Effect.tap(orders(Context.get(one!, SqlClient.SqlClient)), () => Deferred.await(ready))
      })
      yield* settle
      yield* write(world, sql, 2)
      yield* Deferred.succeed(ready, undefined)
      yield* settle
      // Of what it depends nobody knew before, so it was read again, for all.
      assert.deepStrictEqual([yield* valueOf(first), world.queries], [2, 2])
      const second = yield* makeAt(two!, options)
      assert.deepStrictEqual([yield* valueOf(second), world.queries], [2, 2])
      // Now it is known: what was overtaken is served by the one who has read it, and not stored.
      world.before = Effect.suspend(() => world.queries === 3 ? write(world, sql, 4).pipe(Effect.orDie) : Effect.void)
      yield* write(world, sql, 3)
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.deepStrictEqual([yield* valueOf(first), yield* valueOf(second), world.queries], [4, 4, 4])
    }))

  it.effect("what is read in one scope is not taken over in another", () =>
    Effect.gen(function*() {
      const world = new World()
      const { members } = yield* overMemory(world, 3)
      const tenants = ["acme", "globex", "acme"]
      yield* Effect.forEach(members, (member, i) =>
        makeAt(member).pipe(
          CacheScope.provide({ tenant: tenants[i]! }),
          Effect.tap(valueOf),
          Effect.tap(() => Effect.sync(() => world.n++))
        ))
      assert.strictEqual(world.queries, 2)
    }))

  it.effect("a store that fails costs nothing but the sharing", () =>
    Effect.gen(function*() {
      const world = new World()
      const { flaky, members } = yield* overMemory(world, 2)
      const failing = () =>
        Effect.fail(
          new CacheError.CacheError({ operation: "lookup", reason: new CacheError.StoreTimeout({ timeoutMillis: 1 }) })
        )
      flaky.set("lookup", failing)
      flaky.set("store", failing)
      const views = yield* Effect.forEach(members, (member) => Effect.tap(makeAt(member), valueOf))
      assert.strictEqual(world.queries, 2)
      world.n = 2
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([yield* Effect.forEach(views, valueOf), world.queries], [[2, 2], 4])
      flaky.set("lookup", undefined)
      flaky.set("store", undefined)
      world.n = 3
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([yield* Effect.forEach(views, valueOf), world.queries], [[3, 3], 5])
    }).pipe(Effect.provide(Logs.layer)))

  it.live("over Redis: one process at a time reads, and values come back as they were", () =>
    Effect.gen(function*() {
      const world = new World()
      const server = yield* RedisServers.makeServer()
      const store = RedisStore.layer().pipe(Layer.provide(RedisServers.client(server)))
      const members = yield* Effect.forEach(Array.from({ length: 4 }), () => Fleet.member(world.respond, store))
      let running = 0
      let most = 0
      world.before = Effect.acquireUseRelease(
        Effect.sync(() => most = Math.max(most, ++running)),
        () => Effect.sleep(60),
        () => Effect.sync(() => running--)
      )
      const Value = Schema.Struct({ n: Schema.Number, at: Schema.Date, none: Schema.Option(Schema.String) })
      const views = yield* Effect.forEach(members, (member) =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          return yield* MaterializedView.make("view", {
            query: Effect.map(
              orders(sql),
              ([row]) => ({ n: row!.n, at: new Date(row!.n), none: Option.none<string>() })
            ),
            Value,
            schedule: every("1 second"),
            refreshOnInvalidation: { debounce: 10 }
          })
        }).pipe(Effect.provide(member)), { concurrency: "unbounded" })
      const values = yield* Effect.forEach(views, (view) => view.get, { concurrency: "unbounded" })
      assert.deepStrictEqual(values, values.map(() => ({ n: 1, at: new Date(1), none: Option.none() })))
      assert.isTrue(values.every((value) => Object.isFrozen(value)))
      assert.isAtMost(world.queries, 2)
      assert.strictEqual(most, 1)
      for (let n = 2; n < 6; n++) {
        yield* write(world, Context.get(members[n % 4]!, SqlClient.SqlClient), n)
        for (const view of views) {
          yield* Effect.timeout(
            Effect.repeat(view.get, { until: (value) => value.n === n, schedule: Schedule.spaced(5) }),
            "4 seconds"
          )
        }
      }
      // A write overtakes what is being read then, and another process may begin at once.
      assert.isAtMost(most, 2)
      assert.isBelow(world.queries, 20)
      most = 0
      // All at once on demand: one after the other.
      const refreshed = yield* Effect.forEach(views, (view) => view.refresh, { concurrency: "unbounded" })
      assert.deepStrictEqual([refreshed.map(({ n }) => n), most], [[5, 5, 5, 5], 1])
    }), 30_000)

  it.live("over Redis: rows without a schema, of every kind, as they were", () =>
    Effect.gen(function*() {
      const server = yield* RedisServers.makeServer()
      const store = RedisStore.layer().pipe(Layer.provide(RedisServers.client(server)))
      const members = yield* Effect.forEach([1, 2], () => Fleet.member(() => [], store))
      const value = large(2_000)
      let reads = 0
      const views = yield* Effect.forEach(members, (member) =>
        Effect.provide(
          Effect.tap(
            MaterializedView.make("large", { query: Effect.sync(() => (reads++, value)), schedule: every("1 hour") }),
            (view) => view.get.pipe(Effect.andThen(Effect.sleep(200)))
          ),
          member
        ))
      const [mine, taken] = yield* Effect.all([views[0]!.get, views[1]!.get])
      assert.deepStrictEqual(taken, mine)
      assert.notStrictEqual(taken, mine)
      assert.isTrue(Object.isFrozen(taken) && Object.isFrozen(taken[0]))
      assert.strictEqual(yield* views[1]!.get, taken)
      assert.strictEqual(reads, 1)
    }))

  it.live("over Redis: a reader that dies is succeeded", () =>
    Effect.gen(function*() {
      const world = new World()
      const server = yield* RedisServers.makeServer()
      const store = RedisStore.layer({ flightTimeout: "300 millis" }).pipe(Layer.provide(RedisServers.client(server)))
      const members = yield* Effect.forEach([1, 2], () => Fleet.member(world.respond, store))
      // Frozen in the middle of its query, as a process that was killed: it neither stores nor releases.
      world.before = Effect.never
      yield* makeAt(members[0]!, { query: Effect.uninterruptible(Effect.never) })
      yield* Effect.sleep(50)
      world.before = Effect.void
      const view = yield* makeAt(members[1]!)
      assert.strictEqual(yield* Effect.timeout(valueOf(view), "5 seconds"), 1)
    }))
})
