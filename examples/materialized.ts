// A dashboard that is always there: read ahead of those who ask, and served while it is read anew.
//
//   node examples/materialized.ts
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Layer, Option, Schedule, Stream } from "effect"
import { CachedSqlClient, CacheStore, MaterializedView, QueryCache } from "effect-query-cache"
import { SqlClient } from "effect/sql"
import * as Pglite from "./support/pglite.ts"

class Dashboard extends Context.Service<Dashboard>()("examples/Dashboard", {
  make: Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE orders (id serial PRIMARY KEY, region text NOT NULL, amount int NOT NULL)`
    yield* sql`INSERT INTO orders (region, amount) SELECT 'region ' || i % 3, i FROM generate_series(1, 1000) i`

    let broken = false
    const sales = yield* MaterializedView.make("sales", {
      query: Effect.gen(function*() {
        if (broken) return yield* Effect.fail("no connection")
        return yield* sql<{ region: string; total: number }>`
          SELECT region, sum(amount)::int AS total FROM orders GROUP BY region ORDER BY region`
      }),
      // With several processes and Redis, one of them reads at six, and the others take over what it has read.
      schedule: Schedule.cron("0 6 * * *"),
      // And whenever orders have been written, at most every twenty milliseconds.
      refreshOnInvalidation: { debounce: "20 millis" }
    })
    return {
      sales,
      order: (region: string, amount: number) => sql`INSERT INTO orders ${sql.insert({ region, amount })}`,
      breakDown: Effect.sync(() => broken = true)
    }
  })
}) {
  static readonly layer = Layer.effect(Dashboard, Dashboard.make)
}

export const program = Effect.gen(function*() {
  const { breakDown, order, sales } = yield* Dashboard
  const totals = Effect.map(sales.get, (rows) => rows.map(({ total }) => total))

  const first = yield* totals // waits for the first value, and never again
  const same = (yield* sales.get) === (yield* sales.get) // no copies

  yield* order("region 0", 1_000_000)
  const before = yield* totals // still the old one
  const after = yield* QueryCache.changes(totals).pipe(
    Stream.filter(([total]) => total! > 1_000_000),
    Stream.runHead
  )

  yield* breakDown
  const error = yield* Effect.flip(sales.refresh)
  const kept = yield* totals // what there is stays, and says how old it is
  const age = yield* sales.age
  const failure = yield* sales.lastFailure
  return {
    first,
    same,
    before,
    after: Option.getOrThrow(after),
    error,
    kept,
    known: Option.isSome(age) && Option.isSome(failure)
  }
}).pipe(
  Effect.provide(Dashboard.layer.pipe(
    Layer.provideMerge(CachedSqlClient.layer()),
    Layer.provide([CacheStore.layerMemory(), Pglite.layer()])
  ))
)

if (import.meta.main) program.pipe(Effect.tap(Console.log), NodeRuntime.runMain)
