// What a run says at its end.
import type { Report } from "./checker.ts"

/** Above this share nothing wrong happens, as far as so many right answers say at 95 %. */
const boundOf = (served: number): number => 3 / served

const counts = (of: { readonly [name: string]: number }): string =>
  Object.entries(of).sort(([a], [b]) => a < b ? -1 : 1).map(([name, count]) => `${name} ${count}`).join(", ")

const sum = (of: { readonly [name: string]: number }): number =>
  Object.values(of).reduce((all, count) => all + count, 0)

const millis = (micros: number): string => `${(micros / 1000).toFixed(micros < 10_000 ? 2 : 0)} ms`

export const reportOf = (
  { modes, seed }: { readonly modes: ReadonlyArray<string>; readonly seed: number },
  report: Report
): string =>
  [
    `seed ${seed}, processes: ${modes.join(", ")}`,
    `writes: ${sum(report.writes)} (${
      counts(report.writes)
    }), of them acknowledged and not yet delivered: ${report.undelivered}`,
    `reads: ${sum(report.reads)} (${counts(report.reads)})`,
    `latency, median / 99 % / longest: ${
      Object.entries(report.latencies).map(([status, [median, p99, longest]]) =>
        `${status} ${millis(median)} / ${millis(p99)} / ${millis(longest)}`
      ).join(", ")
    }`,
    `faults: ${sum(report.faults)} (${counts(report.faults)})`,
    `answers of the cache: ${report.served}, ${report.telling} of them of what was just written, ${report.quiet} when all was quiet`,
    `the oldest of them did not show a write that had been delivered ${millis(report.oldest)} before`,
    `wrong: ${report.count}${
      report.count > 0 ? "" : `; at 95 % less than one in ${Math.floor(1 / boundOf(report.served))} of such answers is`
    }`
  ].join("\n")
