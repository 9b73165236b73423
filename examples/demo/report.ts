/**
 * The table at the end.
 */
import { Effect } from "effect"
import type { QueryCache } from "effect-query-cache"
import type { Findings } from "./Audit.ts"
import { type Kind, kinds, type Measured, percentile, type Timings } from "./measure.ts"
import { bad, bold, count, dim, good, line, type Screen, seconds } from "./Screen.ts"
import type { Total } from "./StoredAnswers.ts"

export interface Report {
  readonly without: Measured & { readonly audit: Findings }
  readonly cached: Measured & { readonly audit: Findings }
  readonly stats: QueryCache.Stats
  readonly stored: Total
  /** Of the reads that were compared with the database. */
  readonly audit: Findings
}

/** Stale reads, those without a cache included: there, one is a fault of the audit. */
export const staleReads = ({ audit, cached, without }: Report): ReadonlyArray<string> => [
  ...without.audit.stale,
  ...cached.audit.stale,
  ...audit.stale
]

export const print = Effect.fnUntraced(function*(report: Report): Effect.fn.Return<void, never, Screen> {
  const { audit, cached, stats, stored, without } = report

  yield* line()
  yield* line(bold(cells("", "", "without cache", "", "with cache", "")))
  yield* line(dim(cells("", "p50", "p99", "p50", "p99", "hits")))
  for (const kind of kinds) {
    const { hits, millis } = cached.byKind[kind]
    const ratio = kind === "write" ? "" : percent(hits / millis.length)
    yield* line(latencies(titles[kind], without.byKind[kind], cached.byKind[kind], ratio))
  }
  yield* line(latencies("all", without.all, cached.all))

  yield* line()
  yield* line(totals("operations", count, without.operations, cached.operations))
  yield* line(
    totals("database queries", count, without.queries, cached.queries) +
      times(without.queries / cached.queries, "fewer")
  )
  yield* line(totals("time", seconds, without.elapsedMillis, cached.elapsedMillis))
  yield* line(
    totals("throughput", (n) => `${count(n)} /s`, perSecond(without), perSecond(cached)) +
      times(perSecond(cached) / perSecond(without), "more")
  )

  const hits = cached.all.hits
  const reads = cached.operations - cached.byKind.write.millis.length
  yield* line()
  yield* line(
    fact(
      "hit ratio",
      percent(hits / reads),
      `${count(hits)} of ${count(reads)} reads, ${count(stats.joined)} by sharing a query`
    )
  )
  yield* line(fact("cache memory", bytes(stored.bytes), `${count(stored.answers)} answers at most, as estimated`))
  yield* line(
    fact(
      "invalidations",
      count(stats.invalidations),
      `of tables and keys, by ${count(cached.byKind.write.millis.length)} writes`
    )
  )
  if (stats.storeErrors > 0) {
    yield* line(fact("store failures", count(stats.storeErrors), "answered by the database"))
  }
  const stale = staleReads(report).length
  const held = without.audit.reads + cached.audit.reads + audit.reads
  yield* line(
    fact(
      "stale reads",
      (stale === 0 ? good : bad)(count(stale).padStart(width)),
      `${count(held)} reads held against the writes before them,`
    )
  )
  yield* line(fact("", "", `${count(audit.compared)} hits compared with the database row by row`))
  yield* line()
})

const titles: { readonly [K in Kind]: string } = {
  profile: "profile",
  catalogue: "catalogue page",
  history: "order history (joins)",
  dashboard: "dashboard",
  write: "writes"
}

const labelWidth = 22
const width = 11
const narrow = 9

/** A row. A heading may begin in the empty cell before its own. */
const cells = (label: string, a: string, b: string, c: string, d: string, e: string): string =>
  label.padEnd(labelWidth) + pair(a, b) + "    " + pair(c, d) + e.padStart(narrow)

const pair = (left: string, right: string): string =>
  left === "" ? right.padStart(2 * width) : left.padStart(width) + right.padStart(width)

const latencies = (label: string, without: Timings, cached: Timings, hits = ""): string =>
  cells(
    label,
    duration(percentile(without.millis, 0.5)),
    duration(percentile(without.millis, 0.99)),
    duration(percentile(cached.millis, 0.5)),
    duration(percentile(cached.millis, 0.99)),
    hits
  )

const totals = (label: string, format: (n: number) => string, without: number, cached: number): string =>
  cells(label, format(without), "", format(cached), "", "").trimEnd()

const fact = (label: string, value: string, note: string): string =>
  `${label.padEnd(labelWidth)}${value.padStart(width)}   ${dim(note)}`

const times = (ratio: number, word: string): string =>
  Number.isFinite(ratio) && ratio > 1 ? good(`${ratio.toFixed(1)}× ${word}`.padStart(width + narrow)) : ""

const perSecond = ({ elapsedMillis, operations }: Measured): number => Math.round(1000 * operations / elapsedMillis)

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`

const duration = (millis: number | undefined): string =>
  millis === undefined ? "–" : millis < 1 ? `${(1000 * millis).toFixed(0)} µs` : `${millis.toFixed(1)} ms`

const bytes = (n: number): string => n < 1e6 ? `${(n / 1e3).toFixed(0)} kB` : `${(n / 1e6).toFixed(1)} MB`
