/**
 * The demo: a shop, the same visitors without and with a cache, and an audit of all they read.
 *
 * It takes a database and a store as layers and knows neither. `demo.ts`, `demo-redis.ts` and `demo-upstash.ts`, next to
 * this folder, bring them.
 */
import { Config, Context, Effect, Layer, Schema } from "effect"
import { CachedSqlClient, type CacheStore, Invalidator, QueryCache } from "effect-query-cache"
import { Audit } from "./Audit.ts"
import * as Data from "./data.ts"
import { measure } from "./measure.ts"
import * as Report from "./report.ts"
import * as Screen from "./Screen.ts"
import { Shop, type Size } from "./Shop.ts"
import { observed, StoredAnswers } from "./StoredAnswers.ts"
import * as Traffic from "./traffic.ts"

export class StaleReads extends Schema.TaggedError<StaleReads>()("StaleReads", {
  examples: Schema.Array(Schema.String)
}) {
  override get message() {
    return `The cache served what the database no longer said:\n${this.examples.join("\n")}`
  }
}

/** How large the shop is and how much goes on in it: 1 is 160,000 rows and 16,000 operations. */
const Scale = Config.Number("DEMO_SCALE").pipe(Config.withDefault(1))

/** How many visitors there are at a time. */
const concurrency = 8

export interface DemoOptions<E, R> {
  /** What the database and the store are called. */
  readonly title: string
  readonly store: Layer.Layer<CacheStore.CacheStore, E, R>
  readonly cache?: CachedSqlClient.CachedSqlClientOptions
  /** What to try next. */
  readonly next: string
}

/** Runs the demo, prints its report and returns it. Fails with `StaleReads` if there were any. */
export const run = <E, R>(options: DemoOptions<E, R>) =>
  Effect.scoped(Effect.gen(function*() {
    const scale = yield* Scale
    const size: Size = {
      customers: Math.ceil(1_000 * scale),
      products: Math.ceil(5_000 * scale),
      orders: Math.ceil(44_000 * scale)
    }
    const traffic = yield* Traffic.make({ size, operations: Math.ceil(16_000 * scale), seed: "visitors" })
    const later = yield* Traffic.make({ size, operations: Math.ceil(3_000 * scale), seed: "later visitors" })

    yield* Screen.line()
    yield* Screen.line(`${Screen.bold("effect-query-cache")} ${Screen.dim(`· ${options.title}`)}`)
    yield* Screen.line()
    yield* Screen.progress("Filling a shop", Data.rows(size), "rows", (advance) => Data.load(size, advance))

    // The same shop twice. All the difference is in the layers.
    const database = yield* build(Shop.layer.pipe(Layer.provide(CachedSqlClient.layerNoop)), Shop)
    const services = yield* Layer.build(
      Shop.layer.pipe(
        Layer.provideMerge(CachedSqlClient.layer(options.cache)),
        Layer.provideMerge(observed(options.store))
      )
    )
    const shop = Context.get(services, Shop)

    // Plans and buffers are warm for both.
    const warmUp = yield* Audit.make
    yield* Effect.forEach(traffic.slice(0, 500).filter(Traffic.isRead), (operation) => warmUp.run(database, operation))

    const visits = Effect.fnUntraced(function*(label: string, shop: Shop["Service"]) {
      const audit = yield* Audit.make
      const measured = yield* Screen.progress(label, traffic.length, "operations", (advance) =>
        measure(traffic, concurrency, (operation) =>
          Effect.tap(audit.run(shop, operation), advance(1))))
      return { ...measured, audit: audit.findings }
    })
    const without = yield* visits("Without the cache", database)

    // The store knows nothing of what was written without it, be it now or since the last run of this demo.
    yield* Context.get(services, Invalidator.Invalidator).invalidate({ all: true })
    const cached = yield* visits("With the cache", shop)
    const stats = yield* Context.get(services, QueryCache.QueryCache).stats
    const stored = yield* Context.get(services, StoredAnswers).total

    const audit = yield* Audit.make
    // Each answer that may be held by now, once.
    const held = [
      ...new Map([...traffic, ...later].filter(Traffic.isRead).map((read) => [JSON.stringify(read), read])).values()
    ]
    yield* Screen.progress("Asking the database again", later.length + held.length, "operations", (advance) => {
      const check = (operation: Traffic.Operation) =>
        Effect.tap(audit.runAndCompare(shop, database, operation), advance(1))
      return Effect.andThen(
        Effect.forEach(later, check, { concurrency, discard: true }),
        Effect.forEach(held, check, { concurrency, discard: true })
      )
    })

    const report: Report.Report = { without, cached, stats, stored, audit: audit.findings }
    yield* Report.print(report)
    const stale = Report.staleReads(report)
    if (stale.length > 0) {
      return yield* new StaleReads({ examples: stale.slice(0, 10) })
    }
    yield* Screen.line(`${Screen.dim("Next:")} ${options.next}`)
    yield* Screen.line()
    return report
  }))

const build = <I, S, E, R>(layer: Layer.Layer<I, E, R>, service: Context.Key<I, S>) =>
  Effect.map(Layer.build(layer), (context) => Context.get(context, service))
