// A resolver makes one query of many requests; a cached resolver leaves only those that nobody has asked for lately.
//
//   node examples/batching.ts
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Layer, Schema } from "effect"
import { CachedResolver, CachedSqlClient, CacheScope, CacheStore, Dependency, QueryCache } from "effect-query-cache"
import { SqlClient, SqlResolver } from "effect/sql"
import * as Pglite from "./support/pglite.ts"

const Product = Schema.Struct({ id: Schema.Int, name: Schema.String })

class Products extends Context.Service<Products>()("examples/Products", {
  make: Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL)`
    yield* sql`INSERT INTO products SELECT i, 'product ' || i FROM generate_series(1, 100) i`

    // What reaches the database, to be looked at below.
    const queries: Array<number> = []
    const resolver = yield* CachedResolver.fromSql(
      SqlResolver.findById({
        Id: Schema.Int,
        Result: Product,
        ResultId: (product) => product.id,
        execute: (ids) => {
          queries.push(ids.length)
          return sql`SELECT * FROM products WHERE ${sql.in("id", ids)}`
        }
      }),
      {
        name: "product",
        Key: Schema.Int,
        Value: Product,
        timeToLive: "5 minutes",
        notFoundTimeToLive: "10 seconds",
        dependencies: (id) => [Dependency.row("products", { id })]
      }
    )
    const request = SqlResolver.request(resolver)
    const names = (ids: ReadonlyArray<number>) =>
      Effect.forEach(ids, (id) => Effect.map(request(id), ({ name }) => name), { concurrency: "unbounded" })
    return { names, queries, request, sql }
  })
}) {
  static readonly layer = Layer.effect(Products, Products.make)
}

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i)

export const program = Effect.gen(function*() {
  const { names, queries, request, sql } = yield* Products
  /** With how many ids each query reached the database. */
  const sizes = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.map(effect, () => queries.splice(0))

  // 90 products, one query. Then 100, of which 90 are there: one query with 10 ids.
  const first = yield* sizes(names(range(1, 90)))
  const second = yield* sizes(names(range(1, 100)))

  // Absent ones are remembered too, for as long as the options say.
  const absent = Effect.ignore(request(1000))
  const missing = [yield* sizes(absent), yield* sizes(absent)]

  // A write forgets what it touched.
  yield* sql`UPDATE products SET name = 'renamed' WHERE id = 1`
  const [renamed] = yield* names([1])

  // In a transaction the resolver reads for itself, and sees what the transaction wrote.
  queries.length = 0
  const inside = yield* sql.withTransaction(Effect.gen(function*() {
    yield* sql`UPDATE products SET name = 'inside' WHERE id = 2`
    return yield* names([2])
  }))
  const transaction = { inside, queries: queries.splice(0) }

  // Whoever asks in another scope never shares a batch, let alone an answer.
  const scoped = yield* sizes(Effect.all([
    names([3, 4]).pipe(CacheScope.provide({ tenant: "acme" })),
    names([3, 4]).pipe(CacheScope.provide({ tenant: "globex" }))
  ], { concurrency: "unbounded" }))

  const [infos] = yield* QueryCache.withInfo(names([3, 4]).pipe(CacheScope.provide({ tenant: "acme" })))
  return { first, second, missing, renamed, transaction, scoped, again: infos.map(({ status }) => status) }
}).pipe(
  Effect.provide(Products.layer.pipe(
    Layer.provideMerge(CachedSqlClient.layer()),
    Layer.provide([CacheStore.layerMemory(), Pglite.layer()])
  ))
)

if (import.meta.main) program.pipe(Effect.tap(Console.log), NodeRuntime.runMain)
