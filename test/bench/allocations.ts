// How many bytes a hit in this process allocates. The young generation is made so large that nothing is collected while
// hits are counted, so what the heap grows by is what was allocated.
import { PgClient } from "@effect/sql-pg"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import { spawnSync } from "node:child_process"
import { PerformanceObserver } from "node:perf_hooks"
import { setImmediate } from "node:timers/promises"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as CacheStore from "../../src/CacheStore.ts"
import * as MaterializedView from "../../src/MaterializedView.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import { type Result, start } from "./harness.ts"
import * as Stub from "./stub.ts"

const flags = ["--min-semi-space-size=128", "--max-semi-space-size=128"]
const hits = 20_000

const measure = async (): Promise<ReadonlyArray<Result>> => {
  let collections = 0
  new PerformanceObserver((list) => collections += list.getEntries().length).observe({ entryTypes: ["gc"] })
  const scope = Effect.runSync(Scope.make())
  const context = await Effect.runPromise(Layer.buildWithScope(
    Layer.merge(
      CachedSqlClient.layer({ catalogInterval: false }).pipe(Layer.provide(CacheStore.layerMemory())),
      Layer.effect(Base, PgClient.PgClient)
    ).pipe(Layer.provide(Stub.layer([{ id: 1, name: "Ada", email: "ada@example.com", age: 36 }]))),
    scope
  ))
  const sql = Context.get(context, PgClient.PgClient)
  const base = Context.get(context, Base)
  const cached = QueryCache.cached({ timeToLive: "1 hour" })

  const bytesOf = async (body: (i: number) => Effect.Effect<unknown, unknown>): Promise<number> => {
    const loop = Effect.gen(function*() {
      for (let i = 0; i < hits; i++) yield* body(i)
      // What is logged would stand among the results.
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
    // What the compiler leaves out once it knows the loop does not count.
    for (let i = 0; i < 10; i++) await Effect.runPromise(loop)
    for (;;) {
      await setImmediate()
      const before = { collections, bytes: process.memoryUsage().heapUsed }
      await Effect.runPromise(loop)
      const bytes = process.memoryUsage().heapUsed - before.bytes
      await setImmediate()
      if (collections === before.collections) return Math.round(bytes / hits)
    }
  }

  const view = await Effect.runPromise(
    MaterializedView.make("large", {
      query: Effect.succeed(Array.from({ length: 1_000 }, (_, id) => ({ id, name: `name ${id}`.padEnd(50) })))
    }).pipe(Effect.tap(({ get }) => get), Effect.provide(context), Scope.provide(scope))
  )

  const nothing = await bytesOf(() => Effect.void)
  const statement = await bytesOf((i) => base`select * from users where id = ${i % 1000}`)
  const results: Array<Result> = []
  for (
    const [name, body] of [
      ["one number", (i: number) => sql`select * from users where id = ${i % 1000}`],
      [
        "three scalars",
        (i: number) => sql`select * from users where id = ${i % 1000} and s = ${"active"} and d = ${false}`
      ]
    ] as const
  ) {
    const hit = await bytesOf((i) => cached(body(i)))
    results.push({
      name: `bytes a hit allocates / a stub statement: ${name}`,
      ratio: (hit - nothing) / (statement - nothing),
      note: `${hit - nothing} of ${statement - nothing} bytes`
    })
  }
  results.push({
    name: "bytes a read of a view of 50 kB allocates",
    ratio: Math.max(0, (await bytesOf(() => view.get)) - nothing),
    target: 16
  })
  await Effect.runPromise(Scope.close(scope, Exit.void))
  return results
}

class Base extends Context.Service<Base, PgClient.PgClient>()("Base") {}

export const run = async (): Promise<ReadonlyArray<Result>> => {
  if (flags.every((flag) => process.execArgv.includes(flag))) return measure()
  const { error, status, stdout } = spawnSync(process.execPath, [...flags, import.meta.filename, "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
    encoding: "utf8"
  })
  if (status !== 0) throw error ?? new Error(`Measuring allocations ended with ${status}`)
  return JSON.parse(stdout)
}

await start(import.meta, run)
