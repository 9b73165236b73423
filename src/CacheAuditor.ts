/**
 * Finds stale answers in production: a share of the hits is compared with the
 * database.
 *
 * What a cache cannot know of makes its answers stale without a word: a script that
 * writes with `psql`, a store that loses invalidations, a function of which nobody
 * said what it writes. An auditor measures it.
 *
 * A hit that differs from the database proves nothing: somebody may have written
 * since, and the answer may be gone by now. So a hit is judged in three steps, with
 * a `delay` between them that is longer than any invalidation takes:
 *
 *     hit ─ delay ─▶ is the same answer still served? ── no ───▶ inconclusive
 *                      │ yes
 *                    what does the database say? ────── the same ▶ fresh
 *                      │ something else, twice alike
 *                    delay
 *                      │
 *                    is the same answer still served? ── no ───▶ inconclusive
 *                      │ yes
 *                      ▼
 *                    stale: reported, and its tables invalidated
 *
 * An answer that was stored before the hit, and is served still a whole delay after
 * the database has said something else, has outlived the invalidation that should
 * have ended it.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as Semaphore from "effect/Semaphore"
import * as Tracer from "effect/Tracer"
import { InvalidOptionError } from "./CacheError.ts"
import * as CacheMetrics from "./CacheMetrics.ts"
import type * as CacheStore from "./CacheStore.ts"
import * as Dependency from "./Dependency.ts"
import type { Sampler } from "./internal/audits.ts"
import { type Engine, isUnserved } from "./internal/engine.ts"
import { QueryKey } from "./internal/forms.ts"
import * as Options from "./internal/options.ts"
import type { Reading } from "./internal/reading.ts"
import { StoredRows } from "./internal/rows.ts"
import * as QueryCache from "./QueryCache.ts"

/**
 * What an auditor has found.
 *
 * @category services
 * @since 0.1.0
 */
export class CacheAuditor extends Context.Service<CacheAuditor, {
  readonly findings: Effect.Effect<Findings>
}>()("effect-query-cache/CacheAuditor") {}

/**
 * Counts since the layer was built.
 *
 * @category models
 * @since 0.1.0
 */
export interface Findings {
  /** Hits that were what the database said. */
  readonly fresh: number
  /** Hits that were not, and were served long after they should have ended. */
  readonly stale: number
  /** Hits of which nobody can tell: invalidated, expired or evicted meanwhile, or the database failed. */
  readonly inconclusive: number
  /** Hits that were not taken: of a kind that cannot be judged, or too many. */
  readonly skipped: number
  /** Hits that are being judged now. */
  readonly pending: number
  /** `stale` of `stale` and `fresh`; zero while there are none. */
  readonly staleRatio: number
}

/**
 * Options of {@link layer}.
 *
 * @category options
 * @since 0.1.0
 */
export interface CacheAuditorOptions {
  /** The share of the hits that is taken, above 0 and up to 1. Which ones is left to chance. Defaults to 0.01. */
  readonly share?: number | undefined
  /**
   * How long after a hit the database is asked, and how long after that an answer which differs must still be served to
   * be called stale. Longer than the `maxStaleness` of a `TieredStore`, and less than half the time to live of the answers
   * that are to be judged. Defaults to 5 seconds.
   */
  readonly delay?: Duration.Input | undefined
  /** How many hits per second are taken at most, whatever their share is. Defaults to 10. */
  readonly maxPerSecond?: number | undefined
  /** How many of them ask the database at once. Each takes a connection of the pool. Defaults to 1. */
  readonly concurrency?: number | undefined
  /** Whether the tables of a stale answer are invalidated, so that it is read again. Defaults to `true`. */
  readonly heal?: boolean | undefined
}

/**
 * Audits the client in the context.
 *
 * **When to use**
 *
 * In production, always: to know that what nobody invalidates is as rare as you think.
 *
 * **Details**
 *
 * - It takes hits of statements, of cached queries and of cached resolvers, from this
 *   process and from a shared store alike. The query runs again in the scope of the
 *   caller, outside its transaction, and is not cached.
 * - No query waits for it, and none fails because of it. Without this layer a hit
 *   costs one look at a field, with it a subtraction.
 * - What it finds is in {@link CacheAuditor}, and in the metrics
 *   `query_cache_audits_total` and `query_cache_stale_ratio`. A stale answer is logged
 *   once for each policy name or SQL text, without parameters, rows or literals.
 * - Rows are compared whatever their order.
 *
 * Not taken are hits that are allowed to differ, or always do: under
 * `autoInvalidate: false`, of what depends on no table, on the time of day, or on the
 * order in which PostgreSQL comes across rows (`LIMIT`, `FETCH` or `DISTINCT ON`
 * without an `ORDER BY`); and hits that expire before they could be judged.
 *
 * **Gotchas**
 *
 * The lookup of a cached query runs once more for a hit that is taken, as it does for
 * `refresh`. A value that was `set` should be what the lookup gives.
 *
 * An `ORDER BY` that leaves ties, with a `LIMIT`, may give other rows without a write;
 * what the database answers differently twice in a row is inconclusive, but not every
 * such query is found out by that.
 *
 * With `heal`, and where the store itself loses invalidations, the same answer is
 * found again and again. It counts each time.
 *
 * **Example** (One hit in a hundred)
 *
 * ```ts
 * import { PgClient } from "@effect/sql-pg"
 * import { Effect, Layer } from "effect"
 * import { CacheAuditor, CachedSqlClient, CacheStore } from "effect-query-cache"
 *
 * export const Database = CacheAuditor.layer({ share: 0.01 }).pipe(
 *   Layer.provideMerge(CachedSqlClient.layer()),
 *   Layer.provide([CacheStore.layerMemory(), PgClient.layer({ database: "shop" })])
 * )
 *
 * export const report = Effect.gen(function*() {
 *   const { findings } = yield* CacheAuditor.CacheAuditor
 *   const { fresh, stale } = yield* findings
 *   yield* Effect.log(`${stale} of ${stale + fresh} audited hits were stale`)
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: CacheAuditorOptions): Layer.Layer<CacheAuditor, never, QueryCache.QueryCache> => {
  const owner = "CacheAuditor.layer"
  Options.known(owner, options, ["share", "delay", "maxPerSecond", "concurrency", "heal"])
  const share = options?.share ?? 0.01
  if (!(share > 0 && share <= 1)) {
    throw new InvalidOptionError(owner, "share", share, "a number above 0 and up to 1")
  }
  const settings: Settings = {
    share,
    delayMillis: Options.millis(owner, "delay", options?.delay, 5_000),
    maxPerSecond: Options.count(owner, "maxPerSecond", options?.maxPerSecond, 10),
    concurrency: Options.count(owner, "concurrency", options?.concurrency, 1),
    heal: Options.flag(owner, "heal", options?.heal) ?? true
  }
  return Layer.effect(
    CacheAuditor,
    Effect.gen(function*() {
      const { engine } = yield* QueryCache.QueryCache
      if (engine.audits.sampler !== undefined) {
        return yield* Effect.die(new Error(`${owner}: there is an auditor for this client already`))
      }
      const auditor = new Auditor(engine, settings, yield* Effect.context<never>())
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          engine.audits.sampler = auditor
        }),
        () => {
          engine.audits.sampler = undefined
          return auditor.interruptAll
        }
      )
      return CacheAuditor.of({ findings: Effect.sync(() => auditor.findings) })
    })
  )
}

// -----------------------------------------------------------------------------
// auditing
// -----------------------------------------------------------------------------

interface Settings {
  readonly share: number
  readonly delayMillis: number
  readonly maxPerSecond: number
  readonly concurrency: number
  readonly heal: boolean
}

type Verdict = "fresh" | "stale" | "inconclusive"

// Samples hold on to their answers, and a database that is slow lets them pile up.
const maxPending = 256

/** A query that takes longer tells nothing. */
const queryTimeout = Duration.seconds(30)

// Beyond so many texts nothing new is logged.
const maxLogged = 1000

class Auditor implements Sampler {
  gap: number
  private readonly engine: Engine
  private readonly settings: Settings
  private readonly context: Context.Context<never>
  private readonly askers: Semaphore.Semaphore
  private readonly counts = { fresh: 0, stale: 0, inconclusive: 0, skipped: 0 }
  private readonly fibers = new Set<Fiber.Fiber<void>>()
  private readonly logged = new Set<string>()
  private lastTakenMillis = -Infinity

  /** `context`: whose metrics are updated. */
  constructor(engine: Engine, settings: Settings, context: Context.Context<never>) {
    this.engine = engine
    this.settings = settings
    this.context = context
    this.gap = this.nextGap
    this.askers = Semaphore.makeUnsafe(settings.concurrency)
  }

  get findings(): Findings {
    return { ...this.counts, pending: this.fibers.size, staleRatio: this.staleRatio }
  }

  readonly interruptAll: Effect.Effect<void> = Effect.suspend(() => Fiber.interruptAll(this.fibers))

  readonly take: Sampler["take"] = (fiber, reading, kept, nowMillis) => {
    const { delayMillis, maxPerSecond } = this.settings
    this.gap = this.nextGap
    const sinceMillis = nowMillis - this.lastTakenMillis
    const endsAtMillis = Math.min(kept.expiresAtMillis, kept.storedAtMillis + reading.terms.timeToLiveMillis)
    if (
      // Below zero somebody has set the clock back.
      (sinceMillis >= 0 && sinceMillis < 1000 / maxPerSecond) || this.fibers.size >= maxPending ||
      endsAtMillis - nowMillis <= 2 * delayMillis || !isJudged(reading)
    ) return this.count("skipped")
    this.lastTakenMillis = nowMillis
    // What the caller is doing may have ended long before.
    const services = Context.omit(Tracer.ParentSpan)(this.engine.reader.servicesOf(fiber))
    const running = Effect.runForkWith(services as Context.Context<never>)(this.audit(reading, kept, nowMillis))
    this.fibers.add(running)
    running.addObserver(() => this.fibers.delete(running))
  }

  /** As if each hit were taken by chance. */
  private get nextGap(): number {
    const chance = Context.get(this.context, Random.Random).nextDoubleUnsafe()
    return Math.floor(Math.log(1 - chance) / Math.log(1 - this.settings.share))
  }

  private audit(reading: Reading<any, any>, kept: CacheStore.Kept, takenAtMillis: number): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      // An audit that dies is no verdict on the answer.
      const exit = yield* Effect.exit(Effect.suspend(() => this.judge(reading, kept, takenAtMillis)))
      if (Exit.isFailure(exit)) return this.count("inconclusive")
      this.count(exit.value)
      if (exit.value === "stale") yield* this.report(reading)
    })
  }

  private judge(
    reading: Reading<any, any>,
    { value }: CacheStore.Kept,
    takenAtMillis: number
  ): Effect.Effect<Verdict> {
    const { codec } = reading.key
    const isServedStill = Effect.gen({ self: this }, function*() {
      if (!isCurrent(this.engine, reading.key) || isUnserved(this.engine, reading.dependencies())) return false
      const kept = yield* this.engine.reader.look(reading)
      return kept !== undefined && kept.storedAtMillis <= takenAtMillis &&
        isSame(codec, kept.value, value)
    })
    return Effect.gen({ self: this }, function*() {
      if (!(yield* this.pause)) return "inconclusive"
      const compared = yield* this.askers.withPermit(Effect.gen({ self: this }, function*() {
        if (!(yield* isServedStill)) return "inconclusive"
        const says = yield* asked(reading)
        if (says === undefined) return "inconclusive"
        if (isSame(codec, says, value)) return "fresh"
        // What differs each time it is asked is none that a cache can be judged by.
        const again = yield* asked(reading)
        return again !== undefined && isSame(codec, says, again) ? "other" : "inconclusive"
      }))
      if (compared !== "other") return compared
      return (yield* this.pause) && (yield* isServedStill) ? "stale" : "inconclusive"
    })
  }

  /** Whether the delay has passed by the clock that entries are timed by: it may be set back meanwhile. */
  private get pause(): Effect.Effect<boolean> {
    const { delayMillis } = this.settings
    return Effect.gen(function*() {
      const begunAtMillis = yield* Clock.currentTimeMillis
      yield* Effect.sleep(Duration.millis(delayMillis))
      return (yield* Clock.currentTimeMillis) >= begunAtMillis + delayMillis
    })
  }

  private report(reading: Reading<any, any>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { delivery } = this.engine
      const { tables } = reading.dependencies()
      const heal = this.settings.heal
        ? Effect.uninterruptible(delivery.deliver(
          { stamps: tables.flatMap((table) => [table, Dependency.wildcard(table)]), images: [], all: false }
        ))
        : Effect.void
      const label = reading.label()
      if (this.logged.has(label) || this.logged.size >= maxLogged) return heal
      this.logged.add(label)
      return Effect.andThen(
        Effect.logWarning(
          `A stale answer is served from the cache (${label}): the database says something else, and no invalidation has reached it` +
            (this.settings.heal ? "; its tables are invalidated now" : "")
        ),
        heal
      )
    })
  }

  private get staleRatio(): number {
    const { fresh, stale } = this.counts
    return stale === 0 ? 0 : stale / (stale + fresh)
  }

  private count(outcome: Verdict | "skipped"): void {
    this.counts[outcome]++
    outcomes[outcome].updateUnsafe(1, this.context)
    if (outcome === "fresh" || outcome === "stale") CacheMetrics.staleRatio.updateUnsafe(this.staleRatio, this.context)
  }
}

const outcomeOf = (outcome: string) => Metric.withAttributes(CacheMetrics.audits, { outcome })

const outcomes = {
  fresh: outcomeOf("fresh"),
  stale: outcomeOf("stale"),
  inconclusive: outcomeOf("inconclusive"),
  skipped: outcomeOf("skipped")
}

/** Whether an answer is to be what the database says. */
const isJudged = ({ dependencies, key }: Reading<any, any>): boolean => {
  const { tables } = dependencies()
  // `!` stands before what only explicit calls invalidate.
  if (tables.length === 0 || tables.some((table) => table.startsWith("!"))) return false
  if (!(key instanceof QueryKey)) return true
  const { analysis, sql } = key.form
  return !(analysis._tag === "Read" && analysis.timeDependent) &&
    (/\border\s+by\b/i.test(sql) || !/\b(?:limit|fetch|distinct\s+on)\b/i.test(sql))
}

/** Whether the names in a statement mean what they meant: else its answers are under other keys by now. */
const isCurrent = ({ naming }: Engine, key: CacheStore.CacheKey): boolean =>
  !(key instanceof QueryKey) || naming.of(key.scope) === key.form.names

/** What the database says, as it would be stored. `undefined` where it says nothing. */
const asked = (reading: Reading<any, any>): Effect.Effect<unknown> =>
  Effect.map(Effect.exit(Effect.timeout(reading.query, queryTimeout)), (exit) => {
    if (Exit.isFailure(exit)) return undefined
    const { refusal, stored } = reading.admit(exit.value)
    return refusal === undefined ? stored : undefined
  })

/** Whether two answers are equal, whatever the order of their rows. Dies where one cannot be written down. */
const isSame = (codec: CacheStore.Codec, a: unknown, b: unknown): boolean =>
  // In this order they nearly always are, and that is found out for less.
  a === b || textOf(codec, a) === textOf(codec, b) || unordered(codec, a) === unordered(codec, b)

const textOf = (codec: CacheStore.Codec, stored: unknown): string => {
  const text = codec.encode(stored)
  if (text === undefined) throw new TypeError("an answer that has no text")
  return text
}

/** A text of an answer in which its rows stand in the order of their own texts. */
const unordered = (codec: CacheStore.Codec, stored: unknown): string => {
  if (stored instanceof StoredRows) {
    const { columns, rows } = stored
    return JSON.stringify(rows.map((row) => textOf(codec, new StoredRows([row], columns))).sort())
  }
  const text = textOf(codec, stored)
  const value: unknown = JSON.parse(text.slice(1))
  return Array.isArray(value) ? text[0] + JSON.stringify(value.map((one) => JSON.stringify(one)).sort()) : text
}
