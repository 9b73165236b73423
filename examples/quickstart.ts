// A query is read from PostgreSQL once, from memory after that, and from PostgreSQL again when its table has changed.
//
//   node examples/quickstart.ts
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { CachedSqlClient, CacheStore, QueryCache } from "effect-query-cache"
import { SqlClient } from "effect/sql"
import * as Pglite from "./support/pglite.ts"

// In a program of your own: PgClient.layer({ url: ... }) in place of Pglite.layer().
const Database = CachedSqlClient.layer().pipe(
  Layer.provide([CacheStore.layerMemory(), Pglite.layer()])
)

export const program = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL, status text NOT NULL)`

  const active = sql<{ name: string }>`SELECT name FROM users WHERE status = ${"active"} ORDER BY id`.pipe(
    QueryCache.cached({ timeToLive: "5 minutes" })
  )
  yield* active // miss: PostgreSQL
  yield* active // hit: memory
  yield* sql`INSERT INTO users ${sql.insert({ name: "Ada", status: "active" })}` // invalidates it
  return yield* active // miss: Ada is there
}).pipe(
  QueryCache.withInfo, // tells what became of each statement
  Effect.map(([queries, users]) => ({ users, statuses: queries.map((query) => query.status) })),
  Effect.provide(Database)
)

if (import.meta.main) program.pipe(Effect.tap(Console.log), NodeRuntime.runMain)
