/**
 * Every metric of the library, in one place. Labels have a fixed number of
 * values: never a key, a tenant or a parameter.
 *
 * | metric | labels | counts |
 * | --- | --- | --- |
 * | `query_cache_lookups_total` | `outcome`: `hit`, `stale`, `miss`, `joined`, `bypass`; `level`: `L1`, `L2`, `none` | statements that consulted the cache |
 * | `query_cache_bypasses_total` | `reason` | why the database was asked without the cache |
 * | `query_cache_fills_total` | `outcome`: `accepted`, `refused`, `too-large`, `declined`, `unrepresentable`, `failed` | answers offered to the store |
 * | `query_cache_refreshes_total` | `outcome`: `done`, `failed`, `left` to another process, `too-many` | values read anew in the background |
 * | `query_cache_view_refreshes_total` | `outcome`: `read` here, `taken` from another process, `failed`, `timeout` | refreshes of materialized views |
 * | `query_cache_hints_total` | `reason`: `hardly-read`, `invalidated-unread` | statements and cached queries that caching hardly pays for |
 * | `query_cache_invalidations_total` | `outcome`: `delivered`, `queued`, `redelivered` | invalidations after writes and explicit calls |
 * | `query_cache_fences_resolved_total` | `outcome`: `committed`, `aborted`, `running` | expired fences, by what the database said of their writes |
 * | `query_cache_barrier` | | 1 while this process waits until transactions from before a loss in Redis have ended |
 * | `query_cache_undelivered` | | invalidations waiting for delivery now |
 * | `query_cache_doubts` | | tables, or sets of them, that writes have touched of which nobody knows yet how they ended |
 * | `query_cache_store_errors_total` | `operation`, `reason` | failures of the store |
 * | `query_cache_circuit_open` | `operation` | 1 while a store that failed again and again is not asked, 0 when it works again |
 * | `query_cache_entry_bytes` | | estimated size of accepted entries |
 * | `query_cache_unreached_total` | | `cached` effects that consulted no cache |
 *
 * Hits in L1 are counted in place and reach the registry with the next update of
 * any other kind, or when `QueryCache.stats` is read: a registry look-up would
 * cost more than the hit.
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

/**
 * Statements that consulted the cache, by outcome and level.
 *
 * @category metrics
 * @since 0.1.0
 */
export const lookups = Metric.counter("query_cache_lookups_total", {
  description: "Statements that consulted the cache",
  incremental: true
})

/**
 * Statements that went to the database without the cache, by reason.
 *
 * @category metrics
 * @since 0.1.0
 */
export const bypasses = Metric.counter("query_cache_bypasses_total", {
  description: "Statements that went to the database without the cache",
  incremental: true
})

/**
 * Answers offered to the store, by what became of them.
 *
 * @category metrics
 * @since 0.1.0
 */
export const fills = Metric.counter("query_cache_fills_total", {
  description: "Answers offered to the store",
  incremental: true
})

/**
 * Values read anew in the background, by what became of it.
 *
 * @category metrics
 * @since 0.1.0
 */
export const refreshes = Metric.counter("query_cache_refreshes_total", {
  description: "Values read anew in the background",
  incremental: true
})

/**
 * Refreshes of materialized views, by what became of them.
 *
 * @category metrics
 * @since 0.1.0
 */
export const viewRefreshes = Metric.counter("query_cache_view_refreshes_total", {
  description: "Refreshes of materialized views",
  incremental: true
})

/**
 * Statements and cached queries that caching hardly pays for, each counted once.
 *
 * @category metrics
 * @since 0.1.0
 */
export const hints = Metric.counter("query_cache_hints_total", {
  description: "Statements and cached queries that caching hardly pays for",
  incremental: true
})

/**
 * Invalidations, by how they were delivered.
 *
 * @category metrics
 * @since 0.1.0
 */
export const invalidations = Metric.counter("query_cache_invalidations_total", {
  description: "Invalidations after writes and explicit calls",
  incremental: true
})

/**
 * Invalidations that wait for delivery now. While there are any, answers that depend on
 * them are not served.
 *
 * @category metrics
 * @since 0.1.0
 */
export const undelivered = Metric.gauge("query_cache_undelivered", {
  description: "Invalidations that wait for delivery"
})

/**
 * What writes have touched of which nobody knows yet how they ended, counted once for equal targets. While there are
 * any, answers that depend on them are not served.
 *
 * @category metrics
 * @since 0.1.0
 */
export const doubts = Metric.gauge("query_cache_doubts", {
  description: "What writes have touched whose outcome is unknown"
})

/**
 * Fences of strict mode whose writer had said nothing in time, by what the database said of
 * the transaction.
 *
 * @category metrics
 * @since 0.1.0
 */
export const fencesResolved = Metric.counter("query_cache_fences_resolved_total", {
  description: "Expired fences, by what became of their writes",
  incremental: true
})

/**
 * Whether this process waits until the transactions have ended that were under way when Redis lost
 * what it knew, in strict mode. Until then nothing is served.
 *
 * @category metrics
 * @since 0.1.0
 */
export const barrier = Metric.gauge("query_cache_barrier", {
  description: "1 while transactions from before a loss in Redis are waited for"
})

/**
 * Failures of the store, by operation and reason.
 *
 * @category metrics
 * @since 0.1.0
 */
export const storeErrors = Metric.counter("query_cache_store_errors_total", {
  description: "Failures of the cache store",
  incremental: true
})

/**
 * Whether calls of an operation are spared: 1 from the fifth failure in a row until one succeeds. Operations that have
 * never failed so often are not listed.
 *
 * @category metrics
 * @since 0.1.0
 */
export const circuits = Metric.gauge("query_cache_circuit_open", {
  description: "Whether the cache store is not asked since it fails"
})

/**
 * The estimated size of accepted entries, in bytes.
 *
 * @category metrics
 * @since 0.1.0
 */
export const entryBytes = Metric.histogram("query_cache_entry_bytes", {
  description: "Estimated size of accepted entries in bytes",
  boundaries: [256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576]
})

/**
 * `QueryCache.cached` effects that ended without having consulted a cache.
 *
 * @category metrics
 * @since 0.1.0
 */
export const unreached = Metric.counter("query_cache_unreached_total", {
  description: "cached effects that consulted no cache",
  incremental: true
})
