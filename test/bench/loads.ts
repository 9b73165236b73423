// What the processes under load are asked and answer.

import type { HerdSettings } from "../support/herd.ts"

export type LoadSettings = Omit<HerdSettings, "flightTimeout">

export type Work = "ping" | "get" | "hits" | "invalidations"

export interface Load {
  readonly work: Work
  readonly millis: number
  /** How many ask at once. */
  readonly fibers: number
}

export interface LoadAnswer {
  readonly count: number
  readonly perSecond: number
  /** What the processes have computed meanwhile. */
  readonly cpuMicros: number
  /** Some of the milliseconds that one took, sorted. */
  readonly latencies: ReadonlyArray<number>
}

/** What several have done at once, or one after the other. */
export const merge = (answers: ReadonlyArray<LoadAnswer>): LoadAnswer => ({
  count: answers.reduce((sum, { count }) => sum + count, 0),
  perSecond: answers.reduce((sum, { perSecond }) => sum + perSecond, 0),
  cpuMicros: answers.reduce((sum, { cpuMicros }) => sum + cpuMicros, 0),
  latencies: answers.flatMap(({ latencies }) => latencies).sort((a, b) => a - b)
})
