/**
 * Counts what the cache does: once for `QueryCache.stats`, once for the metrics.
 */
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { CacheError } from "../CacheError.ts"
import * as CacheMetrics from "../CacheMetrics.ts"
import type { Hint } from "./habits.ts"

export type FillOutcome = "accepted" | "refused" | "too-large" | "declined" | "unrepresentable" | "failed"
export type InvalidationOutcome = "delivered" | "queued" | "redelivered"
export type RefreshOutcome = "done" | "failed" | "left" | "too-many"
export type ViewOutcome = "read" | "taken" | "failed" | "timeout"

/** Mutable twin of `QueryCache.Stats`. */
export interface Counts {
  hits: number
  stale: number
  misses: number
  joined: number
  bypasses: number
  fills: number
  refusedFills: number
  invalidations: number
  storeErrors: number
  undelivered: number
}

const flushEvery = 1024

export class Tally {
  readonly counts: Counts = {
    hits: 0,
    stale: 0,
    misses: 0,
    joined: 0,
    bypasses: 0,
    fills: 0,
    refusedFills: 0,
    invalidations: 0,
    storeErrors: 0,
    undelivered: 0
  }
  private unreported = 0
  private readonly context: Context.Context<never>
  private readonly counters = new Map<string, Metric.Counter<number>>()

  constructor(context: Context.Context<never>) {
    this.context = context
  }

  /** On the hot path: two additions. */
  hitL1(count = 1): void {
    this.counts.hits += count
    if ((this.unreported += count) >= flushEvery) this.flush()
  }

  hitL2(): void {
    this.counts.hits++
    this.count(CacheMetrics.lookups, { outcome: "hit", level: "L2" })
  }

  looked(outcome: "stale" | "miss" | "joined"): void {
    if (outcome === "miss") this.counts.misses++
    else this.counts[outcome]++
    this.count(CacheMetrics.lookups, { outcome, level: "none" })
  }

  bypassed(reason: string): void {
    this.counts.bypasses++
    this.count(CacheMetrics.lookups, { outcome: "bypass", level: "none" })
    this.count(CacheMetrics.bypasses, { reason })
  }

  filled(outcome: FillOutcome, bytes: number): void {
    if (outcome === "accepted") {
      this.counts.fills++
      CacheMetrics.entryBytes.updateUnsafe(bytes, this.context)
    } else {
      this.counts.refusedFills++
    }
    this.count(CacheMetrics.fills, { outcome })
  }

  invalidated(outcome: InvalidationOutcome): void {
    if (outcome !== "redelivered") this.counts.invalidations++
    this.count(CacheMetrics.invalidations, { outcome })
  }

  refreshed(outcome: RefreshOutcome): void {
    this.count(CacheMetrics.refreshes, { outcome })
  }

  viewed(outcome: ViewOutcome): void {
    this.count(CacheMetrics.viewRefreshes, { outcome })
  }

  hinted(reason: Hint): void {
    this.count(CacheMetrics.hints, { reason })
  }

  resolved(outcome: "committed" | "aborted" | "running"): void {
    this.count(CacheMetrics.fencesResolved, { outcome })
  }

  waitsForBarrier(isWaiting: boolean): void {
    CacheMetrics.barrier.updateUnsafe(isWaiting ? 1 : 0, this.context)
  }

  undelivered(groups: number): void {
    this.counts.undelivered = groups
    CacheMetrics.undelivered.updateUnsafe(groups, this.context)
  }

  doubts(groups: number): void {
    CacheMetrics.doubts.updateUnsafe(groups, this.context)
  }

  circuit(operation: CacheError["operation"], isOpen: boolean): void {
    Metric.withAttributes(CacheMetrics.circuits, { operation }).updateUnsafe(isOpen ? 1 : 0, this.context)
  }

  storeFailed(error: CacheError): void {
    this.counts.storeErrors++
    this.count(CacheMetrics.storeErrors, { operation: error.operation, reason: error.reason._tag })
  }

  /** Brings the metrics up to date with the hits counted in place. */
  flush(): void {
    if (this.unreported === 0) return
    const hits = this.unreported
    this.unreported = 0
    this.counter(CacheMetrics.lookups, { outcome: "hit", level: "L1" }).updateUnsafe(hits, this.context)
  }

  private count(metric: Metric.Counter<number>, labels: Record<string, string>): void {
    this.flush()
    this.counter(metric, labels).updateUnsafe(1, this.context)
  }

  private counter(metric: Metric.Counter<number>, labels: Record<string, string>): Metric.Counter<number> {
    let key = metric.id
    for (const name in labels) key += `\0${labels[name]}`
    let counter = this.counters.get(key)
    if (counter === undefined) {
      this.counters.set(key, counter = Metric.withAttributes(metric, labels) as Metric.Counter<number>)
    }
    return counter
  }
}
