/**
 * Times operations and counts the statements that reach the database.
 */
import { Effect, Tracer } from "effect"
import type { Outcome } from "./Audit.ts"
import { isRead, type Operation } from "./traffic.ts"

export const kinds = ["profile", "catalogue", "history", "dashboard", "write"] as const
export type Kind = typeof kinds[number]

/** What one kind of operation was like. */
export interface Timings {
  /** Ascending. */
  readonly millis: Float64Array
  /** Those answered without a query of their own. */
  readonly hits: number
}

export interface Measured {
  readonly operations: number
  readonly elapsedMillis: number
  /** Statements that reached the database. */
  readonly queries: number
  readonly all: Timings
  readonly byKind: { readonly [K in Kind]: Timings }
}

/** Runs the operations, so many at a time. */
export const measure = Effect.fnUntraced(function*<E, R>(
  operations: ReadonlyArray<Operation>,
  concurrency: number,
  run: (operation: Operation) => Effect.Effect<Outcome, E, R>
) {
  const samples: Array<{ readonly kind: Kind; readonly millis: number; readonly isHit: boolean }> = []
  const queries = { count: 0 }
  const started = performance.now()
  yield* Effect.forEach(operations, (operation) =>
    Effect.suspend(() => {
      const began = performance.now()
      return Effect.map(run(operation), ({ isHit }) => {
        samples.push({ kind: isRead(operation) ? operation.kind : "write", millis: performance.now() - began, isHit })
      })
    }), { concurrency, discard: true }).pipe(Effect.provideService(Tracer.Tracer, countingStatements(queries)))
  const elapsedMillis = performance.now() - started

  const timings = (of: typeof samples): Timings => ({
    millis: Float64Array.from(of, ({ millis }) => millis).sort(),
    hits: of.filter(({ isHit }) => isHit).length
  })
  const byKind = Object.fromEntries(
    kinds.map((kind) => [kind, timings(samples.filter((sample) => sample.kind === kind))])
  ) as { [K in Kind]: Timings }
  const measured: Measured = {
    operations: samples.length,
    elapsedMillis,
    queries: queries.count,
    all: timings(samples),
    byKind
  }
  return measured
})

// A statement that reaches the database opens a span of the kind `client`; a hit opens none.
const countingStatements = (queries: { count: number }): Tracer.Tracer =>
  Tracer.make({
    span(options) {
      if (options.kind === "client") queries.count++
      return new Tracer.NativeSpan(options)
    }
  })

/** The value below which a share of the sorted values lies. `undefined` where there are none. */
export const percentile = (sorted: Float64Array, share: number): number | undefined =>
  sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)]
