/**
 * Staying fast when things are slow: what is served while the database is slow, away, or asked by everybody at once.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { CachedSqlClient, CacheStore, QueryCache } from "effect-query-cache"
import { SqlClient } from "effect/sql"
import * as Pglite from "./support/pglite.ts"

const Example = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL, price int NOT NULL)`
  yield* sql`INSERT INTO products ${
    sql.insert([{ id: 1, name: "Lamp", price: 30 }, { id: 2, name: "Chair", price: 80 }])
  }`

  const catalog = sql<{ name: string }>`SELECT name, price FROM products ORDER BY id`.pipe(
    QueryCache.cached({
      name: "catalog",
      timeToLive: "50 millis",
      // Past its time it is served at once, for an hour, while one query reads it anew.
      staleWhileRevalidate: "1 hour",
      // And for a day where the database fails, or takes longer than 200 ms.
      staleIfError: "1 day",
      softTimeout: "200 millis",
      // With nothing to serve, nobody waits longer than this.
      hardTimeout: "2 seconds"
    })
  )
  const status = Effect.map(QueryCache.withInfo(catalog), ([[query]]) => query?.status)

  const first = yield* status
  yield* Effect.sleep("60 millis")
  const readers = yield* Effect.all(Array.from({ length: 100 }, () => status), { concurrency: "unbounded" })
  // The one query that they have caused.
  const anew = yield* Effect.repeat(status, { until: (status) => status === "hit" })

  // However long an answer may be stale: what the program has changed is never served again.
  yield* sql`UPDATE products SET price = 25 WHERE id = 1`
  const changed = yield* status
  return { first, readers: [...new Set(readers)], anew, changed }
})

export const program = Example.pipe(
  Effect.provide(CachedSqlClient.layer()),
  Effect.provide([CacheStore.layerMemory(), Pglite.layer()])
)

if (import.meta.main) program.pipe(Effect.tap(Console.log), NodeRuntime.runMain)
