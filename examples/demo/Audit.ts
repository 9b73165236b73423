/**
 * Finds stale reads, while many fibers read and write at once.
 *
 * 1. *Every* read is held against the writes before it. A write returns the version it has made; once it is
 *    acknowledged, a read that begins later must not show an older one. Versions only grow (profiles and products
 *    count theirs, orders have ascending ids, dashboards tell how far their tables have come), so this holds under any
 *    interleaving, and it needs no query.
 * 2. Where asked to, a hit is compared with the database, row by row, right after it was served. The two may differ
 *    for a good reason: a write between them. The comparison counts only where no write was under way from the
 *    beginning of the read to the end of the comparison; nothing can have changed then, so any difference is a stale
 *    read.
 * 3. At the end, when all is quiet, every answer that is still held is compared with the database.
 */
import { Effect } from "effect"
import { QueryCache } from "effect-query-cache"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { isDeepStrictEqual } from "node:util"
import type { Shop } from "./Shop.ts"
import { isRead, type Operation, type Read, type Write } from "./traffic.ts"

export interface Outcome {
  /** Answered without a query of its own: from the store, or by a query that another visitor was waiting for. */
  readonly isHit: boolean
}

export interface Findings {
  /** Reads held against the writes before them. */
  readonly reads: number
  /** Hits compared with the database. */
  readonly compared: number
  readonly stale: ReadonlyArray<string>
}

/** Something that has versions. */
interface Seen {
  readonly what: string
  readonly version: number
}

export class Audit {
  private reads = 0
  private compared = 0
  private readonly stale: Array<string> = []

  // Every acknowledgement has a number; each thing remembers its own, in order.
  private acknowledgements = 0
  private readonly acknowledged = new Map<string, Array<{ readonly at: number; readonly version: number }>>()
  private priceChanges: number

  private writesBegun = 0
  private writesUnderWay = 0

  private constructor(priceChanges: number) {
    this.priceChanges = priceChanges
  }

  /** Begins where the database is now. Nobody may be writing. */
  static readonly make: Effect.Effect<Audit, SqlError, SqlClient.SqlClient> = Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const rows = yield* sql<{ version: number }>`SELECT sum(version)::int AS version FROM products`
    return new Audit(rows[0]!.version)
  })

  get findings(): Findings {
    return { reads: this.reads, compared: this.compared, stale: this.stale }
  }

  /** Runs an operation in a shop and holds what it reads against what was written. */
  run(shop: Shop["Service"], operation: Operation): Effect.Effect<Outcome, SqlError> {
    return isRead(operation)
      ? Effect.map(this.read(shop, operation), ({ outcome }) => outcome)
      : this.write(shop, operation)
  }

  /** As `run`, and asks the database again after a hit. */
  runAndCompare(
    shop: Shop["Service"],
    database: Shop["Service"],
    operation: Operation
  ): Effect.Effect<Outcome, SqlError> {
    if (!isRead(operation)) return this.write(shop, operation)
    return Effect.suspend(() => {
      const { writesBegun, writesUnderWay } = this
      return Effect.flatMap(this.read(shop, operation), ({ outcome, rows }) =>
        outcome.isHit
          ? Effect.map(ask(database, operation), (now) => {
            if (writesUnderWay === 0 && writesBegun === this.writesBegun) {
              this.compared++
              if (!isDeepStrictEqual(rows, now.rows)) {
                this.stale.push(`${JSON.stringify(operation)}: not what the database says`)
              }
            }
            return outcome
          })
          : Effect.succeed(outcome))
    })
  }

  private write(shop: Shop["Service"], operation: Write): Effect.Effect<Outcome, SqlError> {
    return Effect.suspend(() => {
      this.writesBegun++
      this.writesUnderWay++
      return Effect.ensuring(
        Effect.map(change(shop, operation), (version) => {
          this.acknowledge(operation, version)
          return { isHit: false }
        }),
        Effect.sync(() => this.writesUnderWay--)
      )
    })
  }

  private read(shop: Shop["Service"], operation: Read) {
    return Effect.suspend(() => {
      const since = this.acknowledgements
      return Effect.map(QueryCache.withInfo(ask(shop, operation)), ([queries, { rows, seen }]) => {
        this.reads++
        for (const { version, what } of seen) {
          const before = this.acknowledged.get(what)?.findLast(({ at }) => at <= since)
          if (before !== undefined && version < before.version) {
            this.stale.push(`${what}: read version ${version} after ${before.version} was acknowledged`)
          }
        }
        return { outcome: { isHit: queries.every(({ status }) => status === "hit" || status === "joined") }, rows }
      })
    })
  }

  private acknowledge(operation: Write, version: number): void {
    switch (operation.kind) {
      case "move":
        return this.note(`profile ${operation.customer}`, version)
      case "reprice":
        this.note(`product ${operation.product}`, version)
        return this.note("products", ++this.priceChanges)
      case "order":
        this.note(`history ${operation.customer}`, version)
        return this.note("orders", version)
    }
  }

  private note(what: string, version: number): void {
    const versions = this.acknowledged.get(what)
    const next = { at: ++this.acknowledgements, version }
    if (versions === undefined) this.acknowledged.set(what, [next])
    // Two writes may be acknowledged in another order than they were committed in.
    else if (version > versions.at(-1)!.version) versions.push(next)
  }
}

const change = (shop: Shop["Service"], operation: Write): Effect.Effect<number, SqlError> => {
  switch (operation.kind) {
    case "move":
      return shop.move(operation.customer, operation.city)
    case "reprice":
      return shop.reprice(operation.product, operation.cents)
    case "order":
      return shop.order(operation.customer, operation.products)
  }
}

/** Rows, and which version of what they show. */
interface Answer {
  readonly rows: ReadonlyArray<unknown>
  readonly seen: ReadonlyArray<Seen>
}

const ask = (shop: Shop["Service"], operation: Read): Effect.Effect<Answer, SqlError> => {
  switch (operation.kind) {
    case "profile":
      return Effect.map(shop.profile(operation.customer), (rows) => ({
        rows,
        seen: rows.map(({ id, version }) => ({ what: `profile ${id}`, version }))
      }))
    case "catalogue":
      return Effect.map(shop.catalogue(operation.category, operation.page), (rows) => ({
        rows,
        seen: rows.map(({ id, version }) => ({ what: `product ${id}`, version }))
      }))
    case "history":
      return Effect.map(shop.history(operation.customer), (rows) => ({
        rows,
        seen: [{ what: `history ${operation.customer}`, version: rows[0]?.id ?? 0 }]
      }))
    case "dashboard":
      return Effect.map(shop.dashboard(operation.name), (rows) => ({
        rows,
        seen: [{ what: tables[operation.name], version: rows[0]?.changes ?? 0 }]
      }))
  }
}

const tables = { days: "orders", bestsellers: "orders", prices: "products" } as const
