/**
 * A PostgreSQL server for the demo: `DATABASE_URL`, in a schema that is there only while the demo runs.
 */
import { PgClient } from "@effect/sql-pg"
import { Config, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"

const schema = "effect_query_cache_demo"

const client = PgClient.layerConfig({
  url: Config.Redacted("DATABASE_URL"),
  maxConnections: Config.succeed(8),
  startupParameters: Config.succeed({ search_path: schema })
})

const schemaOfItsOwn = Layer.effectDiscard(Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE SCHEMA IF NOT EXISTS ${sql(schema)}`
  yield* Effect.addFinalizer(() => Effect.ignore(sql`DROP SCHEMA ${sql(schema)} CASCADE`))
}))

/** Fails with a `ConfigError` where the variable is missing. */
export const layer = Layer.provideMerge(schemaOfItsOwn, client)
