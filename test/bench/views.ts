// A dashboard of twenty views of 50 kB each, read from this process without a copy.
import { PgClient } from "@effect/sql-pg"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as CacheStore from "../../src/CacheStore.ts"
import * as MaterializedView from "../../src/MaterializedView.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import { compare, keep, type Result, start } from "./harness.ts"
import * as Stub from "./stub.ts"

const count = 20
const bytes = 50_000

const rowsOf = (view: number) => {
  const rows: Array<object> = []
  for (let id = 0; JSON.stringify(rows).length < bytes; id += 10) {
    for (let i = id; i < id + 10; i++) {
      rows.push({ id: i, region: `region ${i % 7}`, total: view * i, name: `product ${i}` })
    }
  }
  return rows
}

export const run = async (): Promise<ReadonlyArray<Result>> => {
  const scope = Effect.runSync(Scope.make())
  const context = await Effect.runPromise(Layer.buildWithScope(
    CachedSqlClient.layer({ catalogInterval: false }).pipe(Layer.provide([CacheStore.layerMemory(), Stub.layer([])])),
    scope
  ))
  const values = Array.from({ length: count }, (_, view) => rowsOf(view))
  const views = await Effect.runPromise(
    Effect.forEach(
      values,
      (rows, view) =>
        Effect.tap(MaterializedView.make(`view ${view}`, { query: Effect.succeed(rows) }), ({ get }) => get)
    ).pipe(
      Effect.provide(context),
      Scope.provide(scope)
    )
  )
  const byName = new Map(values.map((rows, view) => [`view ${view}`, rows]))
  const names = [...byName.keys()]
  const texts = values.map((rows) => JSON.stringify(rows))
  // What rows are that are read by a statement and not by a view: a copy for each who asks.
  const sql = await Effect.runPromise(Effect.provide(
    Effect.map(
      Layer.buildWithScope(
        CachedSqlClient.layer({ catalogInterval: false }).pipe(
          Layer.provide([CacheStore.layerMemory(), Stub.layer(values[0]!)])
        ),
        scope
      ),
      (context) => Context.get(context, PgClient.PgClient)
    ),
    context
  ))
  const statement = sql`SELECT * FROM sales`.pipe(QueryCache.cached({ timeToLive: "1 hour" }))
  await Effect.runPromise(statement)

  const dashboard = Effect.gen(function*() {
    for (let i = 0; i < count; i++) keep(yield* views[i]!.get)
  })
  const maps = Effect.gen(function*() {
    for (let i = 0; i < count; i++) keep(yield* Effect.succeed(byName.get(names[i]!)))
  })
  const statements = Effect.gen(function*() {
    for (let i = 0; i < count; i++) keep(yield* statement)
  })
  const repeated = (effect: Effect.Effect<void, unknown>) => (times: number) =>
    Effect.runPromise(Effect.gen(function*() {
      for (let i = 0; i < times; i++) yield* effect
    }))
  const found = await compare("a dashboard of 20 views of 50 kB", [
    { name: "20 effects that look into a Map", run: repeated(maps) },
    { name: "20 views", run: repeated(dashboard) },
    { name: "20 hits of a statement of that size", run: repeated(statements) },
    {
      name: "20 × JSON.parse",
      run: (times) => {
        for (let i = 0; i < times; i++) for (const text of texts) keep(JSON.parse(text))
      }
    }
  ], { clock: "cpu" })
  await Effect.runPromise(Scope.close(scope, Exit.void))
  const name = "a dashboard of 20 views of 50 kB"
  const note = `${(found.nanos("20 views") / count).toFixed(0)} ns a view`
  return [
    {
      name: `${name} / 20 effects that look into a Map`,
      ratio: found.ratio("20 views", "20 effects that look into a Map"),
      target: 3,
      note
    },
    {
      name: `${name} / 20 hits of a statement`,
      ratio: found.ratio("20 views", "20 hits of a statement of that size"),
      target: 0.1
    },
    { name: `${name} / JSON.parse of them`, ratio: found.ratio("20 views", "20 × JSON.parse"), target: 0.01 }
  ]
}

await start(import.meta, run)
