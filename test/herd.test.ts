/** Several processes, one database, one Redis: how often the database is asked when all want the same. */
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Herd from "./support/herd.ts"
import * as Postgres from "./support/postgres.ts"
import * as RedisServers from "./support/redis.ts"

const flightTimeout = 2_000

const fresh = Effect.fnUntraced(function*(processes: number) {
  const sql = yield* PgClient.PgClient
  const { config } = yield* Postgres.PostgresServer
  const redis = yield* RedisServers.makeServer()
  yield* sql`DROP TABLE IF EXISTS herd`
  yield* sql`CREATE TABLE herd AS SELECT generate_series(1, 1000) AS id`
  const { database, host, port, username } = config
  const herd = yield* Effect.all(
    Array.from(
      { length: processes },
      () => Herd.start({ database: { database, host, port, username }, redis: redis.url, flightTimeout })
    ),
    { concurrency: "unbounded" }
  )
  return { sql, herd }
})

const askAll = (herd: ReadonlyArray<Herd.HerdProcess>, asked: Herd.Herd) =>
  Effect.all(herd.map(({ ask }) => ask(asked)), { concurrency: "unbounded" })

const sum = (numbers: ReadonlyArray<number>) => numbers.reduce((a, b) => a + b, 0)

const queriesOf = (answers: ReadonlyArray<Herd.HerdAnswer>) => sum(answers.map(({ queries }) => queries))

const statusesOf = (answers: ReadonlyArray<Herd.HerdAnswer>) => {
  const all: Record<string, number> = {}
  for (const { statuses } of answers) {
    for (const [status, count] of Object.entries(statuses)) all[status] = (all[status] ?? 0) + count
  }
  return all
}

/** Waits until a number is what it has to be. */
const becomes = <E, R>(number: Effect.Effect<number, E, R>, wanted: number) =>
  Effect.repeat(number, { until: (n) => n === wanted, schedule: Schedule.spaced(10) })

layer(Postgres.layer(), { excludeTestServices: true })("a herd over 4 processes", (it) => {
  it.effect("1,000 identical misses are one query", () =>
    Effect.gen(function*() {
      const { herd, sql } = yield* fresh(4)
      const policy = { timeToLive: "1 minute" } as const
      const asking = yield* Herd.whileLocked(sql, (waiting) =>
        Effect.gen(function*() {
          const asking = yield* Effect.forkChild(askAll(herd, { readers: 250, policy }))
          yield* becomes(waiting, 1)
          // The others are there too, and do not ask.
          yield* Effect.sleep("500 millis")
          assert.strictEqual(yield* waiting, 1)
          return asking
        }))
      const answers = yield* Fiber.join(asking)
      assert.strictEqual(queriesOf(answers), 1)
      assert.deepStrictEqual(answers.map(({ values }) => values), [[1000], [1000], [1000], [1000]])
      assert.strictEqual(statusesOf(answers).miss, 1)
    }).pipe(Effect.scoped))

  it.effect("a popular key that expires costs one query, and nobody waits for it", () =>
    Effect.gen(function*() {
      const { herd, sql } = yield* fresh(4)
      const policy = { timeToLive: "1 second", staleWhileRevalidate: "1 hour" } as const
      yield* herd[0]!.ask({ readers: 1, policy })
      yield* Effect.sleep("1100 millis")
      yield* Herd.whileLocked(sql, (waiting) =>
        Effect.gen(function*() {
          // Each of them has its answer though the table cannot be read.
          const answers = yield* askAll(herd, { readers: 250, policy })
          assert.deepStrictEqual(statusesOf(answers), { stale: 1000 })
          yield* becomes(waiting, 1)
          const again = yield* askAll(herd, { readers: 250, policy })
          assert.deepStrictEqual(statusesOf(again), { stale: 1000 })
          assert.strictEqual(yield* waiting, 1)
        }))
      const hour = { timeToLive: "1 hour" } as const
      yield* becomes(
        Effect.map(askAll(herd, { readers: 1, policy: hour }), (answers) => statusesOf(answers).hit ?? 0),
        4
      )
      // The first one, and the one that has read it anew.
      assert.strictEqual(queriesOf(yield* askAll(herd, { readers: 1, policy: hour })), 2)
    }).pipe(Effect.scoped))

  it.effect("one that is killed while it reads is replaced by one, within flightTimeout", () =>
    Effect.gen(function*() {
      const { herd: [leader, ...others], sql } = yield* fresh(4)
      const policy = { timeToLive: "1 minute" } as const
      const asking = yield* Herd.whileLocked(sql, (waiting) =>
        Effect.gen(function*() {
          yield* Effect.forkChild(Effect.exit(leader!.ask({ readers: 1, policy })))
          yield* becomes(waiting, 1)
          yield* leader!.kill
          const asking = yield* Effect.forkChild(askAll(others, { readers: 250, policy }))
          // The server does not know yet that the first one has gone.
          yield* Effect.timeout(becomes(waiting, 2), flightTimeout + 5_000)
          yield* Effect.sleep("500 millis")
          assert.strictEqual(yield* waiting, 2)
          return asking
        }))
      const answers = yield* Fiber.join(asking)
      assert.strictEqual(queriesOf(answers), 1)
      for (const { millis, values } of answers) {
        assert.deepStrictEqual(values, [1000])
        assert.isAbove(millis, 500)
        // It, what is waited for here, and what a busy machine takes.
        assert.isBelow(millis, flightTimeout + 500 + 5_000)
      }
    }).pipe(Effect.scoped))
})
