// One of the processes of a herd: for each line of its input, many readers ask for one key at once.
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as SqlClient from "effect/sql/SqlClient"
import * as Tracer from "effect/Tracer"
import { createInterface } from "node:readline"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import * as RedisStore from "../../src/RedisStore.ts"
import type { Herd, HerdAnswer, HerdSettings } from "./herd.ts"

const settings: HerdSettings = JSON.parse(process.env.HERD!)

/** What was sent, in the background too. */
const spans: Array<Tracer.Span> = []
const tracer = Tracer.make({
  span(options) {
    const span = new Tracer.NativeSpan(options)
    spans.push(span)
    return span
  }
})
const queries = () => spans.filter((span) => span.attributes.has("db.query.text")).length

const ask = Effect.fnUntraced(function*({ policy, readers }: Herd): Effect.fn.Return<
  HerdAnswer,
  unknown,
  SqlClient.SqlClient
> {
  const sql = yield* SqlClient.SqlClient
  const statuses: Record<string, number> = {}
  const values = new Set<number>()
  const begun = performance.now()
  const one = sql<{ n: number }>`SELECT count(*)::int AS n FROM herd`.pipe(
    QueryCache.cached(policy),
    QueryCache.withInfo,
    Effect.map(([[info], rows]) => {
      statuses[info!.status] = (statuses[info!.status] ?? 0) + 1
      values.add(rows[0]!.n)
    })
  )
  yield* Effect.all(Array.from({ length: readers }, () => one), { concurrency: "unbounded", discard: true })
  return { statuses, values: [...values], millis: performance.now() - begun, queries: queries() }
})

const runtime = ManagedRuntime.make(
  CachedSqlClient.layer({
    namespace: "herd",
    // A machine that is busy with other tests is no fault of the store's.
    lookupTimeout: "10 seconds"
  }).pipe(
    Layer.provide(RedisStore.layer({ flightTimeout: settings.flightTimeout })),
    Layer.provide([NodeRedis.layer({ url: settings.redis }), PgClient.layer(settings.database)])
  )
)

const say = (message: unknown) => process.stdout.write(`${JSON.stringify(message)}\n`)

await runtime.runPromise(SqlClient.SqlClient)
say("ready")
for await (const line of createInterface({ input: process.stdin })) {
  say(await runtime.runPromise(Effect.withTracer(ask(JSON.parse(line)), tracer)))
}
await runtime.dispose()
