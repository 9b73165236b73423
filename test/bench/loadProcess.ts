// One of the processes under load: for each line of its input it does one kind of work as fast as it can.
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Redis from "effect/persistence/Redis"
import * as SqlClient from "effect/sql/SqlClient"
import { createInterface } from "node:readline"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as Dependency from "../../src/Dependency.ts"
import * as Invalidator from "../../src/Invalidator.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import * as RedisStore from "../../src/RedisStore.ts"
import type { Load, LoadAnswer, LoadSettings, Work } from "./loads.ts"

const settings: LoadSettings = JSON.parse(process.env.LOAD!)

const keys = 1_000

const redis = NodeRedis.layer({ url: settings.redis })
const runtime = ManagedRuntime.make(
  CachedSqlClient.layer({ namespace: "load", lookupTimeout: "10 seconds", invalidationTimeout: "10 seconds" }).pipe(
    Layer.provide(RedisStore.layer()),
    Layer.provide(PgClient.layer({ ...settings.database, maxConnections: 4 })),
    Layer.provideMerge(redis)
  )
)

const { invalidate, redis: client, sql } = await runtime.runPromise(
  Effect.all({
    redis: Redis.Redis,
    sql: SqlClient.SqlClient,
    invalidate: Effect.map(Invalidator.Invalidator, ({ invalidate }) => invalidate)
  })
)
const cached = QueryCache.cached({ timeToLive: "1 hour" })
const read = (i: number) => cached(sql`SELECT * FROM popular WHERE id = ${i % keys}`)

const works: { readonly [K in Work]: (i: number) => Effect.Effect<unknown, unknown> } = {
  ping: () => client.send("PING"),
  get: (i) => client.send("GET", `plain ${i % keys}`),
  hits: read,
  invalidations: (i) => invalidate({ rows: [Dependency.row("written", { id: i })] })
}

const work = Effect.fnUntraced(function*({ fibers, millis, work }: Load) {
  const latencies: Array<number> = []
  const run = works[work]
  const computed = process.cpuUsage()
  const begun = performance.now()
  const end = begun + millis
  let next = 0
  const fiber = Effect.gen(function*() {
    for (let before = performance.now(); before < end;) {
      yield* run(next++)
      const now = performance.now()
      latencies.push(now - before)
      before = now
    }
  })
  yield* Effect.all(Array.from({ length: fibers }, () => fiber), { concurrency: "unbounded", discard: true })
  const perSecond = latencies.length / (performance.now() - begun) * 1_000
  const { system, user } = process.cpuUsage(computed)
  latencies.sort((a, b) => a - b)
  const step = Math.max(1, latencies.length / 2_000)
  const some = Array.from({ length: Math.floor(latencies.length / step) }, (_, i) => latencies[Math.floor(i * step)]!)
  return { count: latencies.length, perSecond, cpuMicros: user + system, latencies: some } satisfies LoadAnswer
})

const say = (message: unknown) => process.stdout.write(`${JSON.stringify(message)}\n`)

await runtime.runPromise(Effect.all([
  Effect.forEach(Array.from({ length: keys }, (_, i) => i), read, { concurrency: 50 }),
  Effect.forEach(Array.from({ length: keys }, (_, i) => i), (i) => client.send("SET", `plain ${i}`, "x".repeat(100)))
]))
say("ready")
for await (const line of createInterface({ input: process.stdin })) {
  say(await runtime.runPromise(work(JSON.parse(line))))
}
await runtime.dispose()
