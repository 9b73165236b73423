// What ends an answer: the program's own writes, or a call by name.
//
//   node examples/invalidation.ts
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { CachedSqlClient, CacheStore, Dependency, Invalidator, QueryCache } from "effect-query-cache"
import { SqlClient } from "effect/sql"
import * as Pglite from "./support/pglite.ts"

export const program = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL, status text NOT NULL)`
  yield* sql`INSERT INTO orders VALUES (7, 1, 'open'), (8, 2, 'open')`

  const open = sql`SELECT * FROM orders WHERE status = 'open' ORDER BY id`.pipe(
    QueryCache.cached({ name: "orders.open", tags: ["backlog"] })
  )
  // With `autoInvalidate: false` writes leave the answer alone: it ends by name, or by its time to live. That is for
  // figures that may lag behind, and for reads whose writers are known to say what they touched, as below.
  const ofCustomer = (customer: number) =>
    sql`SELECT * FROM orders WHERE customer = ${customer} ORDER BY id`.pipe(
      QueryCache.cached({ autoInvalidate: false, dependencies: [Dependency.key("customer", customer)] })
    )
  const both = Effect.all([ofCustomer(1), ofCustomer(2)])
  const statuses = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.map(QueryCache.withInfo(effect), ([queries]) => queries.map((query) => query.status))

  yield* Effect.all([open, both])
  const seen: Record<string, ReadonlyArray<string>> = { warm: yield* statuses(Effect.all([open, both])) }

  // A write of this program ends what reads its table.
  yield* sql`UPDATE orders SET status = 'paid' WHERE id = 7`
  seen["after a write"] = yield* statuses(Effect.all([open, both]))

  // A transaction does so at its commit. Before that, its own reads go to the database; others are not disturbed.
  seen["in a transaction"] = yield* sql.withTransaction(
    Effect.andThen(sql`UPDATE orders SET status = 'paid' WHERE id = 8`, statuses(open))
  )
  seen["after its commit"] = yield* statuses(open)
  yield* Effect.exit(sql.withTransaction(Effect.andThen(sql`DELETE FROM orders`, Effect.fail("changed my mind"))))
  seen["after a rollback"] = yield* statuses(open)

  // By tag: any number of answers that the program has given a name in common.
  yield* Invalidator.invalidate({ tags: ["backlog"] })
  seen["by tag"] = yield* statuses(Effect.all([open, both]))

  // By key: one customer's orders, and nobody else's. `invalidating` does it after its effect, in a transaction after
  // the commit.
  yield* sql`UPDATE orders SET status = 'sent' WHERE customer = 1`.pipe(
    Invalidator.invalidating({ keys: [Dependency.key("customer", 1)] })
  )
  seen["by key"] = yield* statuses(both)

  // By table or row: for changes that another program has made. Rows reach every answer that reads the whole table, so
  // these two are the same here.
  yield* Invalidator.invalidate({ rows: [Dependency.row("orders", { id: 8 })] })
  seen["by row"] = yield* statuses(Effect.all([open, both]))
  yield* Invalidator.invalidate({ tables: ["orders"] })
  seen["by table"] = yield* statuses(Effect.all([open, both]))
  return seen
}).pipe(
  Effect.provide(CachedSqlClient.layer().pipe(Layer.provide([CacheStore.layerMemory(), Pglite.layer()])))
)

if (import.meta.main) program.pipe(Effect.tap(Console.log), NodeRuntime.runMain)
