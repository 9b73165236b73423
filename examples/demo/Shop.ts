/**
 * A shop: four tables of made-up data, and the queries of its pages.
 *
 * The queries are written as they would be without a cache, and then piped through `cached`. Whether one is there is
 * for the layer to say.
 */
import { Context, Effect, Layer } from "effect"
import { Dependency, Invalidator, QueryCache } from "effect-query-cache"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"

/** How much there is of everything. */
export interface Size {
  readonly customers: number
  readonly products: number
  readonly orders: number
}

export const categories = 20
export const pageSize = 20
export const dashboards = ["days", "bestsellers", "prices"] as const
export type Dashboard = typeof dashboards[number]

export interface Profile {
  readonly id: number
  readonly name: string
  readonly city: string
  readonly version: number
}

export interface Product {
  readonly id: number
  readonly name: string
  readonly cents: number
  readonly version: number
}

export interface Order {
  readonly id: number
  readonly placed: Date
  readonly cents: number
  readonly products: string
}

/** One line of a dashboard, with how far its tables had come: a number that grows with every change that matters to it. */
export interface Figure {
  readonly label: string
  readonly value: number
  readonly changes: number
}

type Rows<A> = Effect.Effect<ReadonlyArray<A>, SqlError>

export class Shop extends Context.Service<Shop, {
  readonly profile: (customer: number) => Rows<Profile>
  readonly catalogue: (category: number, page: number) => Rows<Product>
  /** The last orders of a customer, newest first. */
  readonly history: (customer: number) => Rows<Order>
  readonly dashboard: (name: Dashboard) => Rows<Figure>
  /** Returns the new version of the profile. */
  readonly move: (customer: number, city: string) => Effect.Effect<number, SqlError>
  /** Returns the new version of the product. */
  readonly reprice: (product: number, cents: number) => Effect.Effect<number, SqlError>
  /** Returns the id of the order. */
  readonly order: (customer: number, products: ReadonlyArray<number>) => Effect.Effect<number, SqlError>
}>()("examples/demo/Shop") {
  static readonly layer: Layer.Layer<Shop, never, SqlClient.SqlClient | Invalidator.Invalidator> = Layer.effect(
    Shop,
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const provided = Effect.provide(yield* Effect.context<Invalidator.Invalidator>())

      // A write ends the answers that it can change: of one customer by its id where a statement says so, as that of a
      // profile does, and else every answer that reads the table. That is right for the catalogue and the dashboards. A
      // history reads tables that know nothing of customers: it is ended by key, by the writes that concern the customer.
      const historyOf = (customer: number) => Dependency.key("history", customer)
      const byKey = (key: Dependency.Key) =>
        QueryCache.cached({ timeToLive: "5 minutes", autoInvalidate: false, dependencies: [key] })
      const bySql = QueryCache.cached({ timeToLive: "5 minutes" })

      const figures: { readonly [name in Dashboard]: Rows<Figure> } = {
        days: sql<Figure>`
          SELECT to_char(placed, 'YYYY-MM-DD') AS label, count(*)::int AS value, (SELECT max(id) FROM orders) AS changes
          FROM orders WHERE placed >= '2026-12-25' GROUP BY placed ORDER BY placed`,
        bestsellers: sql<Figure>`
          SELECT p.name AS label, sum(i.quantity)::int AS value, (SELECT max(id) FROM orders) AS changes
          FROM orders o JOIN order_items i ON i.order_id = o.id JOIN products p ON p.id = i.product_id
          WHERE o.id > (SELECT max(id) - 200 FROM orders) GROUP BY p.id ORDER BY value DESC, p.id LIMIT 10`,
        prices: sql<Figure>`
          SELECT category::text AS label, avg(cents)::int AS value, (sum(sum(version)) OVER ())::int AS changes
          FROM products GROUP BY category ORDER BY category`
      }

      return Shop.of({
        profile: (customer) =>
          sql<Profile>`SELECT id, name, city, version FROM customers WHERE id = ${customer}`.pipe(bySql),

        catalogue: (category, page) =>
          sql<Product>`
            SELECT id, name, cents, version FROM products WHERE category = ${category}
            ORDER BY name, id LIMIT ${pageSize} OFFSET ${page * pageSize}`.pipe(bySql),

        // Shows what was paid, so a new price of a product does not concern it.
        history: (customer) =>
          sql<Order>`
            SELECT o.id, o.placed, sum(i.quantity * i.cents)::int AS cents,
              string_agg(p.name, ', ' ORDER BY p.id) AS products
            FROM orders o JOIN order_items i ON i.order_id = o.id JOIN products p ON p.id = i.product_id
            WHERE o.customer_id = ${customer} GROUP BY o.id ORDER BY o.id DESC LIMIT 5`.pipe(
            byKey(historyOf(customer))
          ),

        dashboard: (name) => figures[name].pipe(bySql),

        move: Effect.fnUntraced(function*(customer, city) {
          const rows = yield* sql<{ version: number }>`
            UPDATE customers SET city = ${city}, version = version + 1 WHERE id = ${customer} RETURNING version`
          return rows[0]!.version
        }),

        reprice: Effect.fnUntraced(function*(product, cents) {
          const rows = yield* sql<{ version: number }>`
            UPDATE products SET cents = ${cents}, version = version + 1 WHERE id = ${product} RETURNING version`
          return rows[0]!.version
        }),

        order: Effect.fnUntraced(function*(customer, products) {
          const rows = yield* sql<{ id: number }>`
            INSERT INTO orders (customer_id, placed) VALUES (${customer}, '2026-12-31') RETURNING id`
          const { id } = rows[0]!
          yield* sql`
            INSERT INTO order_items (order_id, product_id, quantity, cents)
            SELECT ${id}, id, 1, cents FROM products WHERE ${sql.in("id", products)}`
          // In a transaction: it takes effect at the commit, or not at all.
          yield* Invalidator.invalidate({ keys: [historyOf(customer)] })
          return id
        }, (effect) => sql.withTransaction(effect).pipe(provided))
      })
    })
  )
}
