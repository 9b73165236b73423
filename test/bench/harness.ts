/**
 * Measuring for a machine that others share: the cases of a comparison take
 * turns, in a new order every round, and only ratios within one run are
 * reported as results.
 */

/** Something to measure: `run` does its work so many times. */
export interface Case {
  readonly name: string
  readonly run: (times: number) => void | Promise<void>
  /** How many operations one time of `run` is. Defaults to 1. */
  readonly operations?: number
  /** How many times a sample runs it. By default as often as fills `sampleMillis`. */
  readonly times?: number
}

export interface Options {
  /** How many samples each case gives. Defaults to 11. */
  readonly samples?: number
  /** How long a sample takes. Defaults to 40. */
  readonly sampleMillis?: number
  /** Whether a table is printed. Defaults to true. */
  readonly print?: boolean
}

/** A figure that a bench stands by: `ratio` is to be at most `target`. */
export interface Result {
  readonly name: string
  readonly ratio: number
  readonly target: number
}

/** What a comparison found. */
export interface Comparison {
  /** Nanoseconds an operation of a case takes. */
  readonly nanos: (name: string) => number
  /** How much longer one case takes than another: the median of the rounds' ratios. */
  readonly ratio: (name: string, base: string) => number
}

/** Measures the cases against each other. The first one is what the printed factors refer to. */
export const compare = async (
  title: string,
  cases: ReadonlyArray<Case>,
  { print = true, sampleMillis = 40, samples = 11 }: Options = {}
): Promise<Comparison> => {
  const measured = await Promise.all(cases.map((subject) => ({ subject, times: 0, nanos: [] as Array<number> })))
  for (const one of measured) {
    one.times = one.subject.times ?? await calibrate(one.subject, sampleMillis)
    for (let i = 0; i < 3; i++) await one.subject.run(one.times)
  }
  for (let sample = 0; sample < samples; sample++) {
    for (const one of shuffled(measured)) {
      const millis = await time(one.subject, one.times)
      one.nanos.push(millis * 1e6 / one.times / (one.subject.operations ?? 1))
    }
  }
  const samplesOf = (name: string): ReadonlyArray<number> => {
    const found = measured.find((one) => one.subject.name === name)
    if (found === undefined) throw new Error(`No case "${name}" in "${title}"`)
    return found.nanos
  }
  const comparison: Comparison = {
    nanos: (name) => median(samplesOf(name)),
    // Round by round: what slows the machine for a while slows both.
    ratio: (name, base) => {
      const bases = samplesOf(base)
      return median(samplesOf(name).map((nanos, round) => nanos / bases[round]!))
    }
  }
  if (print) {
    console.log(`\n## ${title}`)
    for (const { name } of cases) {
      const fastest = Math.min(...samplesOf(name))
      const factor = comparison.ratio(name, cases[0]!.name).toFixed(2)
      console.log(`${name.padEnd(48)} ${duration(comparison.nanos(name))}  min ${duration(fastest)}  x${factor}`)
    }
  }
  return comparison
}

/** Prints results beside their targets. */
export const report = (results: ReadonlyArray<Result>): void => {
  console.log()
  for (const { name, ratio, target } of results) {
    console.log(`${ratio <= target ? "ok  " : "MISS"} ${name.padEnd(62)} ${ratio.toFixed(3)}  at most ${target}`)
  }
}

/** Whether a module is the program that was started, rather than imported by one. */
export const isMain = (meta: ImportMeta): boolean => meta.filename === process.argv[1]

/** Numbers from 0 to 1 that a seed determines (mulberry32). */
export const seeded = (seed: number) => {
  let state = seed >>> 0
  return (): number => {
    state = (state + 0x6D2B79F5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** Keeps the optimiser from removing work whose result nobody reads. */
export const keep = (value: unknown): void => {
  kept = value
}
export let kept: unknown

const time = async (subject: Case, times: number): Promise<number> => {
  const start = performance.now()
  const running = subject.run(times)
  // Awaiting what is no promise would add its own cost to short samples.
  if (running !== undefined) await running
  return performance.now() - start
}

const calibrate = async (subject: Case, sampleMillis: number): Promise<number> => {
  for (let times = 16;; times *= 2) {
    const millis = await time(subject, times)
    if (millis > sampleMillis) return Math.max(1, Math.round(times * sampleMillis / millis))
  }
}

const median = (samples: ReadonlyArray<number>): number => [...samples].sort((a, b) => a - b)[samples.length >> 1]!

const shuffled = <A>(items: ReadonlyArray<A>): Array<A> => {
  const out = [...items]
  for (let i = out.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1))
    ;[out[i], out[j]] = [out[j]!, out[i]!]
  }
  return out
}

const duration = (nanos: number): string =>
  (nanos < 1e4
    ? `${nanos.toFixed(0)} ns`
    : nanos < 1e7
    ? `${(nanos / 1e3).toFixed(1)} µs`
    : `${(nanos / 1e6).toFixed(1)} ms`)
    .padStart(10)
