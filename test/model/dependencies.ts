/**
 * Entries with several dependencies: two tables and a tag. Two callers ask for the
 * same statement, one of them with the tag; a third asks for another statement
 * that depends on the same two tables. Any stamp may be trimmed, and all metadata
 * may be lost.
 *
 * What is checked: no hit is older than what is acknowledged of its own and of its
 * caller's dependencies, no accepted fill is, and when nothing is outstanding what
 * can be served equals the database.
 *
 * The guards are `newest`, `register`, `read` and `write`, for both layouts, in
 * src/internal/redis/scripts.ts; in the process `covers`, `isValid` and `register`
 * of src/internal/memoryTable.ts.
 */
import { bit, type Model, replaced, sorted, type Step } from "./checker.ts"

export interface Guards {
  /** STORE compares the stamp of every dependency, not of the first one. */
  readonly storeComparesAll?: boolean
  /** LOOKUP does. */
  readonly lookupComparesAll?: boolean
  /** What is absent counts as invalidated. */
  readonly absentRefused?: boolean
  /** What is registered anew gets the clock of now. */
  readonly registeredNow?: boolean
  /** What the entry was filled for counts. */
  readonly entryJudged?: boolean
  /** What the caller asks for counts. */
  readonly callerJudged?: boolean
  /** Epochs are compared. */
  readonly epochCompared?: boolean
  /** Grouped: a group whose header is another is dropped before a fill writes to it. */
  readonly groupDropped?: boolean
  /** Grouped: the header is the newest stamp, not the first one. */
  readonly headerNewest?: boolean
}

export interface Options extends Guards {
  readonly layout?: "flat" | "grouped"
  readonly readers?: number
  readonly lookups?: number
  readonly writes?: number
  readonly trims?: number
  /** How often all metadata are lost. */
  readonly losses?: number
}

export const guarded: Required<Guards> = {
  storeComparesAll: true,
  lookupComparesAll: true,
  absentRefused: true,
  registeredNow: true,
  entryJudged: true,
  callerJudged: true,
  epochCompared: true,
  groupDropped: true,
  headerNewest: true
}

/** A version of each table, and of what the tag stands for. */
type Versions = ReadonlyArray<number>

interface Caller {
  readonly name: string
  readonly key: number
  readonly dependencies: number
}

interface Entry {
  readonly versions: Versions
  readonly dependencies: number
  readonly epoch: number
  readonly lease: number
}

/** Entries of callers that depend on both tables, by key. */
interface Group {
  readonly epoch: number
  readonly header: number
  readonly fields: ReadonlyArray<Versions | null>
}

interface Reader {
  readonly phase: "idle" | "missed" | "read"
  readonly caller: number
  readonly epoch: number
  readonly lease: number
  readonly versions: Versions | null
}

interface State {
  readonly epoch: number
  readonly clock: number
  readonly stamps: ReadonlyArray<number | null>
  readonly database: Versions
  readonly acknowledged: Versions
  readonly entry: Entry | null
  readonly group: Group | null
  /** What writes touched whose invalidation is outstanding, oldest first. */
  readonly pending: ReadonlyArray<number>
  readonly readers: ReadonlyArray<Reader>
  readonly lookups: number
  readonly writes: number
  readonly trims: number
  readonly losses: number
}

const names = ["a", "b", "#tag"]
const tables = bit(0) | bit(1)
const tag = bit(2)

const callers: { readonly [layout in "flat" | "grouped"]: ReadonlyArray<Caller> } = {
  flat: [
    { name: "q", key: 0, dependencies: tables },
    { name: "q with the tag", key: 0, dependencies: tables | tag }
  ],
  grouped: [
    { name: "q", key: 0, dependencies: tables },
    { name: "p", key: 1, dependencies: tables }
  ]
}

const idle: Reader = { phase: "idle", caller: 0, epoch: 0, lease: 0, versions: null }

const namesOf = (dependencies: number): string => names.filter((_, d) => dependencies & bit(d)).join(" and ")

const older = (versions: Versions, than: Versions, dependencies: number): boolean =>
  versions.some((version, d) => (dependencies & bit(d)) !== 0 && version < than[d]!)

export const dependencies = (options: Options): Model<State> => {
  const { layout = "flat", lookups = 3, losses = 0, readers = 2, trims = 1, writes = 2 } = options
  const targets = layout === "flat" ? [bit(0), bit(1), tag] : [bit(0), bit(1), tables]

  /** The newest stamp of these dependencies, or nothing where one is absent. */
  const newest = (state: State, dependencies: number, all: boolean | undefined): number | null => {
    let latest = 0
    for (const [d, stamp] of state.stamps.entries()) {
      if ((dependencies & bit(d)) === 0 || (!all && d > 0)) continue
      if (stamp !== null) latest = Math.max(latest, stamp)
      else if (options.absentRefused) return null
    }
    return latest
  }

  const header = (state: State): number | null =>
    options.headerNewest ? newest(state, tables, options.lookupComparesAll) : state.stamps[0]!

  const valid = (state: State, { epoch, lease }: Entry, dependencies: number, all: boolean | undefined): boolean => {
    const latest = newest(state, dependencies, all)
    return latest !== null && latest <= lease && (!options.epochCompared || epoch === state.epoch)
  }

  /** What a caller would be served, and what that depends on. */
  const hit = (state: State, caller: Caller): { readonly versions: Versions; readonly dependencies: number } | null => {
    if (layout === "grouped") {
      const { group } = state
      const versions = group?.fields[caller.key] ?? null
      const current = header(state)
      return versions === null || current === null || group!.header !== current ||
          (options.epochCompared && group!.epoch !== state.epoch)
        ? null
        : { versions, dependencies: caller.dependencies }
    }
    const { entry } = state
    const all = options.lookupComparesAll
    return entry === null ||
        (options.entryJudged && !valid(state, entry, entry.dependencies, all)) ||
        (options.callerJudged && !valid(state, entry, caller.dependencies, all))
      ? null
      : { versions: entry.versions, dependencies: entry.dependencies | caller.dependencies }
  }

  const filled = (state: State, caller: Caller, entry: Entry): Partial<State> => {
    if (layout === "flat") return { entry }
    const { epoch, group } = state
    const current = header(state)!
    const same = group !== null && group.header === current && group.epoch === epoch
    const fields = group === null || (options.groupDropped && !same) ? [null, null] : group.fields
    return { group: { epoch, header: current, fields: replaced(fields, caller.key, entry.versions) } }
  }

  const read = (state: State, i: number, step: Step<State>) => {
    const reader = state.readers[i]!
    const to = (next: Reader, and?: Partial<State>): State => ({
      ...state,
      ...and,
      readers: replaced(state.readers, i, next)
    })
    const { epoch, lease, phase, versions } = reader
    if (phase === "idle" && state.lookups < lookups) {
      for (const [c, caller] of callers[layout].entries()) {
        const found = hit(state, caller)
        if (found !== null) {
          step(
            () => `r${i} LOOKUP ${caller.name}: hit ${found.versions.join(".")}`,
            to(idle, { lookups: state.lookups + 1 }),
            older(found.versions, state.acknowledged, found.dependencies) &&
              "a hit is older than what is acknowledged"
          )
        } else {
          const at = options.registeredNow ? state.clock : 0
          const stamps = state.stamps.map((stamp, d) => caller.dependencies & bit(d) ? stamp ?? at : stamp)
          step(
            () => `r${i} LOOKUP ${caller.name}: miss, lease ${state.epoch}:${state.clock}`,
            to(
              { phase: "missed", caller: c, epoch: state.epoch, lease: state.clock, versions: null },
              { stamps, lookups: state.lookups + 1 }
            )
          )
        }
      }
    } else if (phase === "missed") {
      step(
        () => `r${i} reads ${state.database.join(".")}`,
        to({ ...reader, phase: "read", versions: state.database })
      )
    } else if (phase === "read") {
      const caller = callers[layout][reader.caller]!
      const entry: Entry = { versions: versions!, dependencies: caller.dependencies, epoch, lease }
      const accepted = valid(state, entry, caller.dependencies, options.storeComparesAll)
      step(
        () => `r${i} STORE ${caller.name}: ${accepted ? "accepted" : "refused"}`,
        to(idle, accepted ? filled(state, caller, entry) : {}),
        accepted && older(versions!, state.acknowledged, caller.dependencies) &&
          "a fill is accepted that is older than what is acknowledged"
      )
    }
  }

  return {
    initial: {
      epoch: 1,
      clock: 0,
      stamps: [null, null, null],
      database: [0, 0, 0],
      acknowledged: [0, 0, 0],
      entry: null,
      group: null,
      pending: [],
      readers: Array.from({ length: readers }, () => idle),
      lookups: 0,
      writes: 0,
      trims: 0,
      losses: 0
    },
    canonical: (state) => ({ ...state, readers: sorted(state.readers) }),
    next(state, step) {
      for (let i = 0; i < readers; i++) read(state, i, step)
      if (state.writes < writes) {
        for (const touched of targets) {
          step(() => `COMMIT to ${namesOf(touched)}`, {
            ...state,
            database: state.database.map((version, d) => touched & bit(d) ? version + 1 : version),
            pending: [...state.pending, touched],
            writes: state.writes + 1
          })
        }
      }
      for (const [j, touched] of state.pending.entries()) {
        const clock = state.clock + 1
        step(() => `INVALIDATE ${namesOf(touched)} at clock ${clock}`, {
          ...state,
          clock,
          stamps: state.stamps.map((stamp, d) => touched & bit(d) && stamp !== null ? clock : stamp),
          // Whose commit it was does not matter here: what all outstanding ones leave over is acknowledged.
          acknowledged: state.database.map((version, d) =>
            version - state.pending.filter((other, k) => k !== j && other & bit(d)).length
          ),
          pending: [...state.pending.slice(0, j), ...state.pending.slice(j + 1)]
        })
      }
      if (state.trims < trims) {
        for (const [d, stamp] of state.stamps.entries()) {
          if (stamp === null) continue
          step(
            () => `the store trims ${names[d]}`,
            { ...state, stamps: replaced(state.stamps, d, null), trims: state.trims + 1 }
          )
        }
      }
      if (state.losses < losses) {
        step(
          () => `the store loses its metadata: epoch ${state.epoch + 1}`,
          { ...state, epoch: state.epoch + 1, clock: 0, stamps: [null, null, null], losses: state.losses + 1 }
        )
      }
    },
    wrong(state) {
      if (state.pending.length > 0) return undefined
      for (const caller of callers[layout]) {
        const found = hit(state, caller)
        if (found !== null && older(found.versions, state.database, found.dependencies)) {
          return `nothing is outstanding, and a hit of ${caller.name} would be stale`
        }
      }
      return undefined
    }
  }
}
