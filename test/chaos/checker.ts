/**
 * Says whether a history keeps what is promised. It knows nothing of caches: registers have versions, which the database
 * counts up under the row's lock, so what a read has seen is as old as the first write it has not seen.
 *
 * Of every register it is known, for any time, which version
 *
 * - this process had written by then (*own*),
 * - anybody had written by then, with its invalidation delivered (*delivered*),
 * - anybody had seen or written by then (*known*): it was committed, whoever did it, and whether he lived to tell.
 *
 * | rule | what it wants |
 * | --- | --- |
 * | `own` | no read is older than what its process had written when it began |
 * | `bounded` | no answer of the cache is older than what was delivered Δ before it was asked for; Δ is 0 without a backplane. One that is shared with who asked before may be as old as that question |
 * | `strict` | in a strict namespace no answer of the cache is older than what was known when it was asked for |
 * | `ttl` | no answer of the cache is older than what was known a time to live before |
 * | `database` | what the database answers is what was known, at least: else the history itself is wrong |
 * | `uncommitted` | nothing is seen of what was rolled back, or before its COMMIT was sent |
 * | `writer` | a version is seen with the writer that it has |
 * | `tenant` | nobody sees the rows of others |
 * | `session` | in a session no answer is older than what its token stands for |
 * | `quiet` | when all is quiet, everything served is what the database has |
 * | `hung` | whoever waits gets an answer |
 * | `died` | no process dies of what befalls its servers |
 */
import type { Event, Mode, Read, Written } from "./history.ts"

export interface Promises {
  /** Δ, in microseconds. */
  readonly maxStaleness: number
  /** The longest time to live, in microseconds. */
  readonly timeToLive: number
  /**
   * For how long at most a process was stopped between reading an answer and storing it, in microseconds: that much older an
   * answer may be than its time to live.
   */
  readonly slack: number
}

export type Rule =
  | "own"
  | "bounded"
  | "strict"
  | "ttl"
  | "database"
  | "uncommitted"
  | "writer"
  | "tenant"
  | "session"
  | "quiet"
  | "hung"
  | "died"

export interface Violation {
  readonly rule: Rule
  readonly what: string
  readonly event: Event
  readonly register?: string | undefined
  /** Since when the read should have known better. */
  readonly since?: number | undefined
}

export interface Report {
  readonly violations: ReadonlyArray<Violation>
  /** How many there were: of a rule at most 20 are kept. */
  readonly count: number
  readonly writes: { readonly [outcome: string]: number }
  readonly undelivered: number
  /** By status and level. */
  readonly reads: { readonly [kind: string]: number }
  /** Answers of the cache. */
  readonly served: number
  /** Those of them about a register that was written in the time to live before: they could have been wrong. */
  readonly telling: number
  /** The oldest answer of the cache, in microseconds since a delivered write that it did not show. */
  readonly oldest: number
  readonly quiet: number
  readonly faults: { readonly [name: string]: number }
  readonly gates: { readonly [step: string]: number }
  /** In microseconds, by status: the median, the 99th of a hundred, the longest. */
  readonly latencies: { readonly [status: string]: readonly [median: number, p99: number, longest: number] }
}

const maxKept = 20

/** Judges a history. `history` is gone through twice. */
export const check = (history: () => Iterable<Event>, promises: Promises): Report => {
  const facts = collect(history())
  const violations: Array<Violation> = []
  const counts = new Map<Rule, number>()
  const blame = (violation: Violation): void => {
    const count = (counts.get(violation.rule) ?? 0) + 1
    counts.set(violation.rule, count)
    if (count <= maxKept) violations.push(violation)
  }
  const tallies = { writes: new Tally(), reads: new Tally(), faults: new Tally(), gates: new Tally() }
  const times = new Map<string, Array<number>>()
  let undelivered = 0
  let served = 0
  let telling = 0
  let oldest = 0
  let quiet = 0

  const judge = (read: Event & Read): void => {
    const { begin, end, process, seen, status, sum } = read
    const mode = facts.modes.get(process)!
    const isServed = status === "hit" || status === "stale"
    const isAnswered = isServed || status === "joined"
    if (read.foreign !== undefined && read.foreign > 0) {
      blame({ rule: "tenant", what: `${read.foreign} rows of somebody else`, event: read })
    }
    for (const [register, version, writer] of seen) {
      if (writer === null || version < 1) continue
      const by = facts.writers.get(`${register} ${version}`)
      const of = facts.writes.get(writer.split("/")[0]!)
      if (writer.endsWith("/undone") || facts.rolledBack.has(writer) || (of !== undefined && of.committing > end)) {
        blame({ rule: "uncommitted", what: `${register} is ${version} by ${writer}`, event: read, register })
      } else if (by !== undefined && by !== writer) {
        blame({
          rule: "writer",
          what: `${register} is ${version} by ${writer}, and was by ${by}`,
          event: read,
          register
        })
      }
    }
    if (status === "failed") return
    const registers = sum === undefined ? seen.map(([register]) => register) : sum.of
    const total = (at: (register: string) => number) => sum!.of.reduce((all, register) => all + at(register), 0)
    /** What each register must show at least, and since when. */
    const want = (rule: Rule, timelines: ReadonlyMap<string, Timeline> | undefined, time: number): void => {
      if (timelines === undefined) return
      if (sum !== undefined) {
        const wanted = total((register) => timelines.get(register)?.at(time) ?? 0)
        if (sum.total >= wanted) return
        return blame({ rule, what: `a sum of ${sum.total} where ${wanted} was due`, event: read })
      }
      for (const [register, version] of seen) {
        const timeline = timelines.get(register)
        const wanted = timeline?.at(time) ?? 0
        if (version >= wanted) continue
        const since = timeline?.since(version)
        blame({ rule, what: `${register} is ${version} where ${wanted} was due`, event: read, register, since })
      }
    }
    want("own", facts.own.get(process), begin)
    if (status === "miss" || status === "bypass") want("database", facts.known, begin)
    if (isAnswered) {
      if (mode === "strict") want("strict", facts.known, begin)
      const asked = read.sharedSince ?? begin
      want("bounded", facts.delivered, mode === "backplane" ? Math.min(asked, begin - promises.maxStaleness) : asked)
      want("ttl", facts.known, begin - promises.timeToLive - (read.retained ?? 0) - promises.slack)
    }
    if (isServed) {
      served++
      if (registers.some((register) => facts.delivered.get(register)?.isBetween(begin - promises.timeToLive, begin))) {
        telling++
      }
      if (read.sharedSince === undefined) {
        for (const [register, version] of seen) {
          const since = facts.delivered.get(register)?.since(version)
          if (since !== undefined) oldest = Math.max(oldest, begin - since)
        }
      }
    }
    if (read.tokenAt !== undefined) want("session", facts.delivered, read.tokenAt)
    for (const [register, version] of read.tokenOf ?? []) {
      const shown = seen.find(([name]) => name === register)?.[1] ?? Infinity
      if (shown < version) {
        blame({ rule: "session", what: `${register} is ${shown}, and the token of ${version}`, event: read, register })
      }
    }
    if (read.quiet === true) {
      if (isServed) quiet++
      if (sum !== undefined && sum.total !== total((register) => facts.truth!.versions[register]!)) {
        blame({ rule: "quiet", what: `a sum of ${sum.total}`, event: read })
      }
      for (const [register, version, writer] of seen) {
        const truth = facts.truth!.versions[register]!
        if (writer === null && version > 0 ? version >= truth : version === truth) continue
        blame({ rule: "quiet", what: `${register} is ${version}, and ${truth} in the database`, event: read, register })
      }
    }
  }

  for (const event of history()) {
    switch (event.type) {
      case "read": {
        tallies.reads.add(event.level === undefined ? event.status : `${event.status} ${event.level}`)
        const all = times.get(event.status)
        if (all === undefined) times.set(event.status, [event.end - event.begin])
        else all.push(event.end - event.begin)
        judge(event)
        break
      }
      case "written":
        tallies.writes.add(event.outcome)
        if (event.outcome === "acknowledged" && event.versions.length > 0 && !event.delivered) undelivered++
        break
      case "fault":
        tallies.faults.add(event.name)
        break
      case "gate":
        tallies.gates.add(`${event.step} ${event.action}`)
        break
      case "hung":
        blame({ rule: "hung", what: event.what.join("; "), event })
        break
      case "died":
        blame({ rule: "died", what: event.how, event })
        break
    }
  }
  return {
    violations,
    count: [...counts.values()].reduce((all, count) => all + count, 0),
    writes: tallies.writes.all,
    undelivered,
    reads: tallies.reads.all,
    served,
    telling,
    oldest,
    quiet,
    faults: tallies.faults.all,
    gates: tallies.gates.all,
    latencies: Object.fromEntries(Array.from(times, ([status, all]) => {
      all.sort((a, b) => a - b)
      const at = (share: number) => all[Math.min(all.length - 1, Math.floor(all.length * share))]!
      return [status, [at(0.5), at(0.99), all[all.length - 1]!] as const]
    }))
  }
}

class Tally {
  readonly all: Record<string, number> = {}

  add(name: string): void {
    this.all[name] = (this.all[name] ?? 0) + 1
  }
}

/** Which version is due from when on. */
class Timeline {
  private readonly pairs: Array<{ readonly time: number; version: number }> = []
  private sorted = true

  add(time: number, version: number): void {
    this.pairs.push({ time, version })
    this.sorted = false
  }

  /** The highest version that was added for a time up to this one. */
  at(time: number): number {
    const index = this.indexAfter(time)
    return index === 0 ? 0 : this.pairs[index - 1]!.version
  }

  /** Since when a higher version is due. */
  since(version: number): number | undefined {
    this.sort()
    let from = 0
    let to = this.pairs.length
    while (from < to) {
      const middle = (from + to) >> 1
      if (this.pairs[middle]!.version > version) to = middle
      else from = middle + 1
    }
    return this.pairs[from]?.time
  }

  isBetween(from: number, to: number): boolean {
    return this.indexAfter(to) > this.indexAfter(from)
  }

  private indexAfter(time: number): number {
    this.sort()
    let from = 0
    let to = this.pairs.length
    while (from < to) {
      const middle = (from + to) >> 1
      if (this.pairs[middle]!.time > time) to = middle
      else from = middle + 1
    }
    return from
  }

  private sort(): void {
    if (this.sorted) return
    this.sorted = true
    this.pairs.sort((a, b) => a.time - b.time)
    let highest = 0
    for (const pair of this.pairs) highest = pair.version = Math.max(highest, pair.version)
  }
}

const timelineOf = (timelines: Map<string, Timeline>, register: string): Timeline => {
  let timeline = timelines.get(register)
  if (timeline === undefined) timelines.set(register, timeline = new Timeline())
  return timeline
}

const collect = (history: Iterable<Event>) => {
  const modes = new Map<string, Mode>()
  const writes = new Map<string, { readonly process: string; committing: number; written?: Written }>()
  const writers = new Map<string, string>()
  const rolledBack = new Set<string>()
  const firstSeen = new Map<string, number>()
  const queues = new Map<string, Array<{ readonly begin: number; readonly end: number }>>()
  let truth: Extract<Event, { readonly type: "truth" }> | undefined
  const see = (register: string, version: number, time: number): void => {
    const name = `${register} ${version}`
    firstSeen.set(name, Math.min(firstSeen.get(name) ?? Infinity, time))
  }

  for (const event of history) {
    switch (event.type) {
      case "started":
        modes.set(event.process, event.mode)
        break
      case "write":
        writes.set(event.id, { process: event.process, committing: event.transaction ? Infinity : event.begin })
        break
      case "committing":
        writes.get(event.id)!.committing = event.at
        break
      case "written": {
        writes.get(event.id)!.written = event
        if (event.outcome === "rolledback") rolledBack.add(event.id)
        if (event.outcome !== "acknowledged") break
        for (const [register, version] of event.versions) {
          writers.set(`${register} ${version}`, event.id)
          see(register, version, event.end)
        }
        break
      }
      case "read":
        for (const [register, version, writer] of event.seen) {
          if (writer === null || version < 1) continue
          const name = `${register} ${version}`
          if (!writers.has(name)) writers.set(name, writer)
          see(register, version, event.end)
        }
        break
      case "queue":
        if (event.undelivered > 0) break
        if (!queues.has(event.process)) queues.set(event.process, [])
        queues.get(event.process)!.push(event)
        break
      case "truth":
        truth = event
        break
    }
  }

  const own = new Map<string, Map<string, Timeline>>()
  const delivered = new Map<string, Timeline>()
  const known = new Map<string, Timeline>()
  for (const [name, time] of firstSeen) {
    const [register, version] = name.split(" ") as [string, string]
    timelineOf(known, register).add(time, Number(version))
  }
  for (const { process, written } of writes.values()) {
    if (written === undefined || written.outcome === "rolledback") continue
    for (const [register, version] of written.versions) {
      let time = written.end
      if (written.outcome === "failed") {
        // Nobody can tell whether it was done, until somebody sees it.
        if (writers.get(`${register} ${version}`) !== written.id) continue
        time = Math.max(time, firstSeen.get(`${register} ${version}`)!)
      }
      if (!own.has(process)) own.set(process, new Map())
      timelineOf(own.get(process)!, register).add(time, version)
      if (written.outcome === "failed") continue
      const heard = written.delivered
        ? written.end
        : queues.get(process)?.find(({ begin }) => begin > written.end)?.end
      if (heard !== undefined) timelineOf(delivered, register).add(heard, version)
    }
  }
  return { modes, writes, writers, rolledBack, own, delivered, known, truth }
}
