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
  /** What makes ready for a sample, and is not measured. Wants `times`. */
  readonly before?: () => Promise<void>
}

export interface Options {
  /** How many samples each case gives. Defaults to 31. */
  readonly samples?: number
  /**
   * How long a sample takes. Defaults to 12: short, so that what else the machine
   * does spoils few of them. With `"cpu"` 50, since systems count that time coarsely.
   */
  readonly sampleMillis?: number
  /**
   * What is counted: the time that passes, or the time that this thread computes,
   * which other programs on the machine lengthen less. Defaults to `"wall"`; `"cpu"`
   * is for what waits for nobody.
   */
  readonly clock?: keyof typeof clocks
  /** Whether a table is printed. Defaults to true. */
  readonly print?: boolean
}

/** A figure: a ratio or a count, which is to be at most `target`. Without a target it is only told. */
export interface Result {
  readonly name: string
  /** `undefined` where it cannot be had here. */
  readonly ratio: number | undefined
  readonly target?: number | undefined
  /** What the figure means in time or bytes, on this machine. */
  readonly note?: string | undefined
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
  { clock = "wall", print = true, sampleMillis = clock === "cpu" ? 50 : 12, samples = 31 }: Options = {}
): Promise<Comparison> => {
  const measured = cases.map((subject) => ({ subject, times: 0, nanos: [] as Array<number> }))
  for (const one of measured) {
    one.times = one.subject.times ?? await calibrate(one.subject, sampleMillis, clocks[clock])
    for (let i = 0; i < 3; i++) await time(one.subject, one.times, clocks[clock])
  }
  for (let sample = 0; sample < samples; sample++) {
    for (const one of shuffled(measured)) {
      const millis = await time(one.subject, one.times, clocks[clock])
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
    say(`\n## ${title}`)
    for (const { name } of cases) {
      const fastest = Math.min(...samplesOf(name))
      const factor = comparison.ratio(name, cases[0]!.name).toFixed(2)
      say(`${name.padEnd(48)} ${column(comparison.nanos(name))}  min ${column(fastest)}  x${factor}`)
    }
  }
  return comparison
}

/** What is told on the way: not among the results, which alone go to the standard output. */
export const say = (line: string): void => console.error(line)

/** Runs a bench if its module is the program that was started. With `--json` the results are printed as JSON. */
export const start = async (meta: ImportMeta, run: () => Promise<ReadonlyArray<Result>>): Promise<void> => {
  if (meta.filename !== process.argv[1]) return
  const results = await run()
  console.log(process.argv.includes("--json") ? JSON.stringify(results) : table(results))
}

/** Results beside their targets, as a table. */
export const table = (results: ReadonlyArray<Result>): string => {
  const rows = results.map(({ name, note, ratio, target }) => [
    name,
    ratio === undefined ? "-" : figure(ratio),
    target === undefined ? "" : `at most ${figure(target)}`,
    target === undefined || ratio === undefined ? "" : ratio <= target ? "ok" : "MISS",
    note ?? ""
  ])
  const heads = ["Figure", "Here", "Target", "", ""]
  const widths = heads.map((head, i) => Math.max(head.length, ...rows.map((row) => row[i]!.length)))
  const line = (cells: ReadonlyArray<string>): string =>
    cells.map((cell, i) => i === 1 ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)).join("  ").trimEnd()
  return [
    line(heads),
    line(heads.map((head, i) => head === "" ? "" : "-".repeat(widths[i]!))),
    ...rows.map(line)
  ].join("\n")
}

const figure = (ratio: number): string =>
  Number.isInteger(ratio)
    ? String(ratio)
    : ratio < 0.1
    ? ratio.toPrecision(2)
    : ratio < 100
    ? ratio.toFixed(2)
    : ratio.toFixed(0)

/** Indices below `size` as popular things are asked for, in an order that a seed determines. */
export const zipf = (size: number, count: number, exponent = 0.99, seed = 1): Int32Array => {
  const random = seeded(seed)
  const sums = new Float64Array(size)
  let sum = 0
  for (let i = 0; i < size; i++) sums[i] = sum += (i + 1) ** -exponent
  // The popular ones lie anywhere.
  const places = Int32Array.from({ length: size }, (_, i) => i)
  for (let i = size - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[places[i], places[j]] = [places[j]!, places[i]!]
  }
  return Int32Array.from({ length: count }, () => {
    const wanted = random() * sum
    let low = 0
    let high = size - 1
    while (low < high) {
      const middle = (low + high) >> 1
      if (sums[middle]! < wanted) low = middle + 1
      else high = middle
    }
    return places[low]!
  })
}

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

/** Milliseconds from any beginning. */
const clocks = {
  wall: () => performance.now(),
  cpu: () => {
    const { system, user } = process.threadCpuUsage()
    return (user + system) / 1000
  }
}

const time = async (subject: Case, times: number, millis: () => number): Promise<number> => {
  await subject.before?.()
  const start = millis()
  const running = subject.run(times)
  // Awaiting what is no promise would add its own cost to short samples.
  if (running !== undefined) await running
  return millis() - start
}

const calibrate = async (subject: Case, sampleMillis: number, millis: () => number): Promise<number> => {
  for (let times = 16;; times *= 2) {
    const taken = await time(subject, times, millis)
    if (taken > sampleMillis) return Math.max(1, Math.round(times * sampleMillis / taken))
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

/** Nanoseconds for people. */
export const duration = (nanos: number): string =>
  nanos < 1e4
    ? `${nanos.toFixed(0)} ns`
    : nanos < 1e7
    ? `${(nanos / 1e3).toFixed(1)} µs`
    : `${(nanos / 1e6).toFixed(1)} ms`

const column = (nanos: number): string => duration(nanos).padStart(10)
