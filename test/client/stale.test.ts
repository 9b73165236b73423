/** What a policy says of staleness, time-outs and refreshes, seen through statements. */
import { assert, describe, it } from "@effect/vitest"
import { CachedSqlClient, CacheMetrics, type CachePolicy, Invalidator, QueryCache } from "effect-query-cache"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as SqlClient from "effect/sql/SqlClient"
import { ConnectionError, SqlError } from "effect/sql/SqlError"
import * as TestClock from "effect/testing/TestClock"
import * as Logs from "../support/logs.ts"

const away = new SqlError({ reason: new ConnectionError({ cause: new Error("away"), message: "away" }) })

/** A database that counts what it answers, and is as slow and as broken as it is told to be. */
const scripted = (options?: CachedSqlClient.CachedSqlClientOptions) => {
  const database = { n: 0, before: Effect.void as Effect.Effect<unknown, SqlError> }
  const layer = CachedSqlClient.layerTest(
    ({ sql }) =>
      sql.startsWith("SELECT")
        ? Effect.andThen(Effect.sync(() => [{ n: ++database.n }]), (rows) => Effect.as(database.before, rows))
        : [],
    options
  )
  return { database, layer: Layer.merge(layer, Logs.layer) }
}

const orders = (id: number) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql<{ n: number }>`SELECT * FROM orders WHERE id = ${id}`)

/** What became of a single statement, and why if it is worth telling. */
const fateOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(QueryCache.withInfo(effect), ([[info], rows]) => {
    const { reason, status } = info!
    return [reason === undefined || reason === "absent" ? status : `${status} ${reason}`, rows] as const
  })

/** `stale expired 1`: what became of the statement, and which answer it got. */
const read = (policy: CachePolicy.CachePolicy, id = 1) =>
  Effect.map(fateOf(orders(id).pipe(QueryCache.cached(policy))), ([fate, [row]]) => `${fate} ${row!.n}`)

const write = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`UPDATE orders SET total = 0`)

const settled = Effect.repeat(Effect.yieldNow, { times: 20 })

const timed = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>) {
  const begun = yield* Clock.currentTimeMillis
  const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
  for (let steps = 0; fiber.pollUnsafe() === undefined; steps++) {
    assert.isBelow(steps, 5_000, "it has no end")
    yield* settled
    yield* TestClock.adjust(1)
  }
  return [yield* Fiber.await(fiber), (yield* Clock.currentTimeMillis) - begun] as const
})

const count = (metric: Metric.Metric<number, any>, labels: Record<string, string>) =>
  Effect.map(Metric.value(Metric.withAttributes(metric, labels)), ({ count }: any) => Number(count))

const minute = { timeToLive: "1 minute" } as const

describe("through statements", () => {
  it.effect("staleWhileRevalidate: served at once with its age, read anew once, and never after a write", () => {
    const { database, layer } = scripted()
    const policy = { ...minute, staleWhileRevalidate: "1 minute" } as const
    return Effect.gen(function*() {
      const before = yield* count(CacheMetrics.lookups, { outcome: "stale", level: "none" })
      assert.strictEqual(yield* read(policy), "miss 1")
      yield* TestClock.adjust("90 seconds")
      database.before = Effect.sleep("1 second")
      const [answers, millis] = yield* timed(
        Effect.all(Array.from({ length: 100 }, () => read(policy)), { concurrency: "unbounded" })
      )
      assert.deepStrictEqual(answers, Exit.succeed(Array.from({ length: 100 }, () => "stale expired 1")))
      assert.deepStrictEqual([millis <= 1, database.n], [true, 2])
      const [[info]] = yield* QueryCache.withInfo(orders(1).pipe(QueryCache.cached(policy)))
      assert.deepStrictEqual([info!.status, info!.level, info!.reason], ["stale", "L1", "expired"])
      assert.isAtLeast(Duration.toSeconds(info!.age), 90)
      const { stats } = yield* QueryCache.QueryCache
      assert.strictEqual((yield* stats).stale, 101)
      assert.strictEqual(yield* count(CacheMetrics.lookups, { outcome: "stale", level: "none" }), before + 101)

      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* read(policy), "hit 2")
      yield* TestClock.adjust("90 seconds")
      yield* write
      database.before = Effect.void
      assert.strictEqual(yield* read(policy), "miss invalidated 3")
    }).pipe(Effect.provide(layer))
  })

  it.effect("staleIfError: in place of a SqlError, and not of a defect", () => {
    const { database, layer } = scripted()
    const policy = { ...minute, staleIfError: "1 hour" } as const
    return Effect.gen(function*() {
      yield* read(policy)
      yield* TestClock.adjust("2 minutes")
      database.before = Effect.fail(away)
      assert.strictEqual(yield* read(policy), "stale expired 1")
      assert.strictEqual((yield* Effect.flip(read(minute))).reason._tag, "ConnectionError")
      database.before = Effect.die("broken")
      assert.isTrue(Exit.hasDies(yield* Effect.exit(read(policy))))
      database.before = Effect.fail(away)
      yield* write
      assert.strictEqual((yield* Effect.flip(read(policy))).reason._tag, "ConnectionError")
    }).pipe(Effect.provide(layer))
  })

  it.effect("softTimeout and hardTimeout: the database goes on, and its answer is stored", () => {
    const { database, layer } = scripted()
    const soft = { ...minute, staleIfError: "1 hour", softTimeout: 50 } as const
    const hard = { ...minute, hardTimeout: 80 } as const
    return Effect.gen(function*() {
      database.before = Effect.sleep(200)
      const [failed, after] = yield* timed(read(hard))
      assert.strictEqual(after, 80)
      const error: any = yield* Effect.flip(failed)
      assert.instanceOf(error, SqlError)
      assert.strictEqual(error.reason._tag, "StatementTimeoutError")
      yield* TestClock.adjust(120)
      assert.strictEqual(yield* read(soft), "hit 1")

      yield* Invalidator.invalidate({ all: true })
      yield* timed(read(soft))
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* timed(read(soft)), [Exit.succeed("stale expired 2"), 50])
      yield* TestClock.adjust(150)
      assert.deepStrictEqual([yield* read(soft), database.n], ["hit 3", 3])
    }).pipe(Effect.provide(layer))
  })

  it.effect("refreshAhead: before its time, so that nobody waits", () => {
    const { database, layer } = scripted()
    // As early as can be, whatever chance says.
    const policy = { ...minute, refreshAhead: { beta: 1e12 } } as const
    return Effect.gen(function*() {
      database.before = Effect.sleep(100)
      yield* timed(read(policy))
      const done = yield* count(CacheMetrics.refreshes, { outcome: "done" })
      assert.strictEqual(yield* read(policy), "hit 1")
      yield* TestClock.adjust(100)
      assert.deepStrictEqual([yield* read(policy), database.n], ["hit 2", 3])
      assert.strictEqual(yield* count(CacheMetrics.refreshes, { outcome: "done" }), done + 1)
    }).pipe(Effect.provide(layer))
  })

  it.effect("maxRefreshes: beyond it what is stale is served and not read", () => {
    const { database, layer } = scripted({ maxRefreshes: 3 })
    const policy = { ...minute, staleWhileRevalidate: "1 hour" } as const
    const ids = Array.from({ length: 10 }, (_, id) => id)
    return Effect.gen(function*() {
      yield* Effect.forEach(ids, (id) => read(policy, id))
      yield* TestClock.adjust("2 minutes")
      database.before = Effect.sleep(100)
      const before = yield* count(CacheMetrics.refreshes, { outcome: "too-many" })
      yield* Effect.forEach(ids, (id) => read(policy, id))
      assert.strictEqual(database.n, 13)
      assert.strictEqual(yield* count(CacheMetrics.refreshes, { outcome: "too-many" }), before + 7)
    }).pipe(Effect.provide(layer))
  })

  it.effect("maxFormBytes: one statement does not drive out the others", () => {
    const { layer } = scripted()
    return Effect.gen(function*() {
      const policy = { ...minute, maxFormBytes: 2_000 } as const
      const other = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT * FROM users`).pipe(QueryCache.cached())
      yield* other
      for (let id = 0; id < 200; id++) yield* read(policy, id)
      // The latest is there, the first has made way, and so has nobody else.
      assert.match(yield* read(policy, 199), /^hit/)
      assert.match(yield* read(policy, 0), /^miss \d/)
      assert.strictEqual((yield* fateOf(other))[0], "hit")
    }).pipe(Effect.provide(layer))
  })

  it.effect("a form that is never read again is reported once; an adaptive one rests for a minute", () => {
    const { layer } = scripted()
    return Effect.gen(function*() {
      const hints = yield* count(CacheMetrics.hints, { reason: "hardly-read" })
      const { messages } = yield* Logs.Logs
      const told = Effect.map(messages, (all) => all.filter((message) => message.startsWith("Caching hardly pays")))
      for (let id = 0; id < 499; id++) yield* read(minute, id)
      yield* TestClock.adjust("1 minute")
      yield* read(minute, 499)
      assert.deepStrictEqual(yield* told, ["Caching hardly pays (hardly-read): SELECT * FROM orders WHERE id = $1"])
      assert.strictEqual(yield* count(CacheMetrics.hints, { reason: "hardly-read" }), hints + 1)

      const adaptive = { ...minute, adaptive: true } as const
      for (let id = 1_000; id < 1_199; id++) yield* read(adaptive, id)
      yield* TestClock.adjust("1 minute")
      yield* read(adaptive, 1_199)
      const fate = yield* read(adaptive, 1_200)
      assert.match(fate, /^miss paused/)
      assert.match(yield* read(adaptive, 1_200), /^miss paused/)
      // Nobody has said so for these.
      assert.match(yield* read(minute, 2_000), /^miss \d/)
      assert.match(yield* read(minute, 2_000), /^hit/)
      yield* TestClock.adjust("1 minute")
      assert.match(yield* read(adaptive, 1_300), /^miss \d/)
      assert.match(yield* read(adaptive, 1_300), /^hit/)
      assert.strictEqual((yield* told).length, 1)
    }).pipe(Effect.provide(layer))
  })

  it.effect("rules: by name, table and tag, and explain says why", () => {
    const { layer } = scripted({
      policy: { timeToLive: "1 hour" },
      rules: [
        { match: "live:*", policy: "uncached" },
        { match: { table: "orders" }, policy: { timeToLive: "1 minute", staleIfError: "1 hour" } },
        { match: { tag: "slow" }, policy: { timeToLive: "2 minutes" } }
      ]
    })
    return Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      assert.strictEqual(yield* read({ name: "live:orders" }), "bypass rule 1")
      const { reason, verdict } = yield* QueryCache.explain(sql`SELECT * FROM orders`, { name: "live:orders" })
      assert.deepStrictEqual([verdict, reason], ["bypass", "rule"])
      assert.strictEqual((yield* QueryCache.explain(sql`SELECT * FROM orders`, {})).verdict, "cached")

      yield* read({})
      yield* read({ timeToLive: "10 minutes" }, 2)
      yield* TestClock.adjust("1 minute")
      assert.match(yield* read({}), /^miss expired/)
      assert.match(yield* read({ timeToLive: "10 minutes" }, 2), /^hit/)
      const users = sql`SELECT * FROM users`
      const slow = users.pipe(QueryCache.cached({ tags: ["slow"] }))
      yield* slow
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual((yield* fateOf(slow))[0], "miss expired")
    }).pipe(Effect.provide(layer))
  })
})
