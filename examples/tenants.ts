// One cache for many tenants under row-level security. The same statement has another answer for each tenant; the scope
// is part of the key, and it is what the database is told before it is asked.
//
//   node examples/tenants.ts
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Layer } from "effect"
import { CachedSqlClient, CacheScope, CacheStore, QueryCache } from "effect-query-cache"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import * as Pglite from "./support/pglite.ts"

interface Invoice {
  readonly id: number
  readonly cents: number
}

class Invoices extends Context.Service<Invoices, {
  readonly all: Effect.Effect<ReadonlyArray<Invoice>, SqlError>
}>()("examples/Invoices") {
  // Nothing here knows of tenants.
  static readonly layer = Layer.effect(
    Invoices,
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      return {
        all: sql<Invoice>`SELECT id, cents FROM invoices ORDER BY id`.pipe(
          QueryCache.cached({ timeToLive: "1 minute" })
        )
      }
    })
  )
}

/** At the edge of the program, where a request is known to be a tenant's. */
const as = (tenant: string) => CacheScope.provide({ role: "app_user", settings: { "app.tenant": tenant } })

const schema = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE invoices (id int PRIMARY KEY, tenant text NOT NULL, cents int NOT NULL)`
  yield* sql`INSERT INTO invoices VALUES (1, 'acme', 100), (2, 'acme', 250), (3, 'globex', 990)`
  yield* sql`CREATE ROLE app_user`
  yield* sql`GRANT SELECT, INSERT ON invoices TO app_user`
  yield* sql`ALTER TABLE invoices ENABLE ROW LEVEL SECURITY`
  yield* sql`CREATE POLICY own ON invoices USING (tenant = current_setting('app.tenant'))`
})

export const program = Effect.gen(function*() {
  yield* schema
  const sql = yield* SqlClient.SqlClient
  const invoices = yield* Invoices
  const ask = (tenant: string) =>
    QueryCache.withInfo(invoices.all.pipe(as(tenant))).pipe(
      Effect.map(([queries, rows]) => ({ tenant, ids: rows.map(({ id }) => id), status: queries[0]!.status }))
    )
  return [
    yield* ask("acme"), // a miss: BEGIN, the role and the setting, the query, COMMIT
    yield* ask("acme"), // a hit: none of that
    yield* ask("globex"), // not acme's answer
    // Tenants share a table, so a write of one ends the answers of all.
    yield* sql`INSERT INTO invoices VALUES (4, 'globex', 5)`.pipe(as("globex"), Effect.andThen(ask("globex")))
  ]
}).pipe(
  Effect.provide(Invoices.layer.pipe(
    Layer.provideMerge(CachedSqlClient.layer()),
    Layer.provide([CacheStore.layerMemory(), Pglite.layer()])
  ))
)

if (import.meta.main) program.pipe(Effect.tap(Console.log), NodeRuntime.runMain)
