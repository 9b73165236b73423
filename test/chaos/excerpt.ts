// The part of a history that shows a violation: who wrote what the read should have seen, what befell whom meanwhile, and
// what else that process has read of it.
import type { Violation } from "./checker.ts"
import type { Event } from "./history.ts"

const marginMicros = 300_000
const maxLines = 60

export const excerpt = (history: () => Iterable<Event>, violation: Violation): string => {
  const { event, rule, since, what } = violation
  const registers = registersOf(violation)
  const to = timesOf(event)[1]
  const from = (since ?? timesOf(event)[0]) - marginMicros
  // Versions are known when a write has ended, so its beginning is found by its name.
  const named = new Set<string>()
  for (const each of history()) {
    if (each.type === "written" && each.end >= from && each.end <= to + marginMicros && tellsOf(each, registers)) {
      named.add(each.id)
    }
  }
  const lines: Array<readonly [time: number, line: string]> = []
  for (const each of history()) {
    const [begin, end] = timesOf(each)
    if (end < from || begin > to + marginMicros || !concerns(each, event, registers, named)) continue
    lines.push([end, `${((end - to) / 1000).toFixed(3).padStart(11)} ms  ${each.process.padEnd(6)} ${tell(each)}`])
  }
  lines.sort(([a], [b]) => a - b)
  const all = lines.map(([, line]) => line)
  const shown = all.length <= maxLines
    ? all
    : [...all.slice(0, 20), `        ... ${all.length - maxLines} lines ...`, ...all.slice(-(maxLines - 20))]
  return `${rule}: ${what}, in ${event.process} (times before the end of the read)\n${shown.join("\n")}`
}

const timesOf = (event: Event): readonly [begin: number, end: number] => {
  switch (event.type) {
    case "write":
      return [event.begin, event.begin]
    case "written":
      return [event.end, event.end]
    case "read":
    case "queue":
    case "fault":
      return [event.begin, event.end]
    default:
      return [event.at, event.at]
  }
}

/** What it is about: of a sum whatever it adds up. */
const registersOf = ({ event, register }: Violation): ReadonlySet<string> =>
  new Set(register !== undefined ? [register] : event.type === "read" ? event.sum?.of : undefined)

const tellsOf = (event: Event, registers: ReadonlySet<string>): boolean =>
  (event.type === "written" && event.versions.some(([name]) => registers.has(name))) ||
  (event.type === "read" &&
    (event.seen.some(([name]) => registers.has(name)) || event.sum?.of.some((name) => registers.has(name)) === true))

const concerns = (event: Event, of: Event, registers: ReadonlySet<string>, named: ReadonlySet<string>): boolean => {
  switch (event.type) {
    case "write":
    case "committing":
    case "written":
      return named.has(event.id)
    case "read":
      return event.process === of.process && (event.begin === timesOf(of)[0] || tellsOf(event, registers))
    case "queue":
      return event.undelivered > 0
    default:
      return true
  }
}

const tell = (event: Event): string => {
  switch (event.type) {
    case "started":
      return `starts, ${event.mode}`
    case "write":
      return `${event.id} begins: ${event.kind}`
    case "committing":
      return `${event.id} is about to commit`
    case "written":
      return `${event.id} ${event.outcome}${event.delivered ? ", delivered" : ""}: ${
        event.versions.map(([register, version]) => `${register} = ${version}`).join(", ")
      }`
    case "read":
      return `reads (${event.form}, fiber ${event.fiber}, ${event.status} ${event.level ?? ""}, since ${
        ((event.end - event.begin) / 1000).toFixed(3)
      } ms): ${event.seen.map(([register, version, by]) => `${register} = ${version} by ${by}`).join(", ")}${
        event.sum === undefined ? "" : `sum ${event.sum.total}`
      }`
    case "queue":
      return `${event.undelivered} invalidations wait`
    case "gate":
      return `${event.action} at ${event.step}`
    case "fault":
      return `${event.name} is over, after ${((event.end - event.begin) / 1000).toFixed(0)} ms`
    case "truth":
      return "the database was read"
    case "hung":
      return `waits for ${event.what.join("; ")}`
    case "died":
      return event.how
  }
}
