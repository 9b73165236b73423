/**
 * How the writes of one process reach the shared store when calls to it time out,
 * and what the process serves until they have. A call that timed out may be lost,
 * or be carried out later. Two entries, of one dependency each; the process' reads
 * share a flight; another process only fills.
 *
 * What is checked: no answer in the process is older than the writes that had
 * returned when it was asked for, and when nothing is under way, what can be
 * served equals the database.
 *
 * The guards are those of src/internal/delivery.ts, src/internal/unserved.ts and
 * src/internal/flights.ts. (Detaching flights before the invalidation as well, as
 * the process does, serves reads that begin while the write is still out; the
 * promise checked here does not need it.)
 */
import { bit, type Model, replaced, sorted, type Step } from "./checker.ts"

export interface Guards {
  /** What an undelivered invalidation names is not served. */
  readonly unserved?: boolean
  /** Each undelivered invalidation counts for itself: one that is delivered does not speak for another. */
  readonly unservedByGroup?: boolean
  /** What timed out is sent again until it is delivered. */
  readonly retried?: boolean
  /** One that is under way does not stand for another that comes later. */
  readonly sendingStandsForNone?: boolean
  /** A full queue becomes one that stands for everything. */
  readonly overflowIsEverything?: boolean
  /** Before a write returns, nobody can join the flights any more that depend on it. */
  readonly detached?: boolean
}

export interface Options extends Guards {
  readonly writes?: number
  readonly lookups?: number
  /** How many fills of the other process. */
  readonly fills?: number
  readonly timeouts?: number
  /** How many invalidations the queue holds. */
  readonly capacity?: number
}

export const guarded: Required<Guards> = {
  unserved: true,
  unservedByGroup: true,
  retried: true,
  sendingStandsForNone: true,
  overflowIsEverything: true,
  detached: true
}

/** A call to the store: on its way there, or carried out and its reply on the way back. */
type Call = "none" | "sent" | "carried out"

interface Read {
  readonly phase: "idle" | "missed" | "read"
  readonly of: number
  readonly lease: number
  readonly version: number
}

interface State {
  readonly clock: number
  readonly stamps: ReadonlyArray<number | null>
  readonly entries: ReadonlyArray<{ readonly version: number; readonly lease: number } | null>
  readonly database: ReadonlyArray<number>
  /** Of each dependency, the version of the last write that has returned. */
  readonly returned: ReadonlyArray<number>
  /** What the write touches that is under way, and its invalidation. */
  readonly write: { readonly touched: number; readonly call: Call } | null
  readonly queue: ReadonlyArray<number>
  readonly sending: Call
  readonly unserved: number
  /** Calls that nobody waits for any more. */
  readonly strays: ReadonlyArray<number>
  /** `since`: what had returned when the last of its callers came. */
  readonly flight: Read & { readonly since: number; readonly joinable: boolean }
  readonly other: Read
  readonly writes: number
  readonly lookups: number
  readonly fills: number
  readonly timeouts: number
}

const names = ["nothing", "a", "b", "everything"]
const everything = bit(0) | bit(1)
const idle: Read = { phase: "idle", of: 0, lease: 0, version: 0 }
const landed = { ...idle, since: 0, joinable: false }

export const delivery = (options: Options): Model<State> => {
  const { capacity = 2, fills = 1, lookups = 2, timeouts = 2, writes = 2 } = options

  const invalidated = (state: State, touched: number): State => ({
    ...state,
    clock: state.clock + 1,
    stamps: state.stamps.map((stamp, d) => touched & bit(d) && stamp !== null ? state.clock + 1 : stamp)
  })
  const valid = (state: State, d: number, lease: number): boolean =>
    state.stamps[d] !== null && state.stamps[d]! <= lease
  const covering = (queue: ReadonlyArray<number>): number => queue.reduce((mask, touched) => mask | touched, 0)

  const enqueued = (state: State, touched: number): State => {
    if (!options.retried) return state
    const underWay = state.sending !== "none"
    const stands = state.queue.some((waiting, i) =>
      (waiting === touched || waiting === everything) && !(options.sendingStandsForNone && underWay && i === 0)
    )
    if (stands) return state
    if (state.queue.length < capacity) {
      return { ...state, queue: [...state.queue, touched], unserved: state.unserved | touched }
    }
    if (!options.overflowIsEverything) return state
    return {
      ...state,
      queue: [everything],
      sending: "none",
      unserved: everything,
      strays: state.sending === "sent" ? sorted([...state.strays, state.queue[0]!]) : state.strays
    }
  }

  const write = (state: State, step: Step<State>) => {
    const { write } = state
    if (write === null) {
      if (state.writes === writes) return
      for (const d of [0, 1]) {
        step(() => `COMMIT ${names[bit(d)]} v${state.database[d]! + 1}, INVALIDATE is sent`, {
          ...state,
          database: replaced(state.database, d, state.database[d]! + 1),
          write: { touched: bit(d), call: "sent" },
          writes: state.writes + 1
        })
      }
      return
    }
    const { call, touched } = write
    const returns = (state: State): State => ({
      ...state,
      write: null,
      returned: state.returned.map((version, d) => touched & bit(d) ? state.database[d]! : version),
      flight: options.detached && touched & bit(state.flight.of) ? { ...state.flight, joinable: false } : state.flight
    })
    if (call === "sent") {
      step(
        () => `INVALIDATE ${names[touched]} is carried out`,
        { ...invalidated(state, touched), write: { touched, call: "carried out" } }
      )
    } else {
      step(() => `the write to ${names[touched]} returns`, returns(state))
    }
    if (state.timeouts < timeouts) {
      const strays = call === "sent" ? sorted([...state.strays, touched]) : state.strays
      step(
        () => `INVALIDATE ${names[touched]} times out, the write returns`,
        returns(enqueued({ ...state, strays, timeouts: state.timeouts + 1 }, touched))
      )
    }
  }

  const deliver = (state: State, step: Step<State>) => {
    const touched = state.queue[0]
    if (touched === undefined) return
    if (state.sending === "none") {
      step(() => `${names[touched]} is sent again`, { ...state, sending: "sent" })
    } else if (state.sending === "sent") {
      step(() => `${names[touched]} is carried out`, { ...invalidated(state, touched), sending: "carried out" })
    } else {
      const queue = state.queue.slice(1)
      const unserved = options.unservedByGroup ? covering(queue) : state.unserved & ~touched
      step(() => `${names[touched]} is delivered`, { ...state, queue, unserved, sending: "none" })
    }
    if (state.sending !== "none" && state.timeouts < timeouts) {
      const strays = state.sending === "sent" ? sorted([...state.strays, touched]) : state.strays
      step(() => `${names[touched]} times out again`, {
        ...state,
        sending: "none",
        strays,
        timeouts: state.timeouts + 1
      })
    }
  }

  const tooOld = "an answer is older than a write that had returned when it was asked for"

  const read = (state: State, step: Step<State>) => {
    const { flight, returned } = state
    const closed = (d: number) => options.unserved === true && (state.unserved & bit(d)) !== 0
    if (state.lookups < lookups) {
      for (const d of [0, 1]) {
        if (closed(d)) continue
        const lookups = state.lookups + 1
        if (flight.phase !== "idle" && flight.joinable && flight.of === d) {
          step(
            () => `a read of ${names[bit(d)]} joins`,
            { ...state, lookups, flight: { ...flight, since: returned[d]! } },
            flight.phase === "read" && flight.version < returned[d]! && tooOld
          )
        } else if (flight.phase === "idle") {
          const entry = state.entries[d]!
          if (entry !== null && valid(state, d, entry.lease)) {
            step(
              () => `LOOKUP ${names[bit(d)]}: hit v${entry.version}`,
              {
                ...state,
                lookups,
                flight: { phase: "read", of: d, lease: -1, version: entry.version, since: returned[d]!, joinable: true }
              },
              entry.version < returned[d]! && tooOld
            )
          } else {
            step(() => `LOOKUP ${names[bit(d)]}: miss, lease ${state.clock}`, {
              ...state,
              lookups,
              stamps: replaced(state.stamps, d, state.stamps[d] ?? state.clock),
              flight: {
                phase: "missed",
                of: d,
                lease: state.clock,
                version: 0,
                since: returned[d]!,
                joinable: true
              }
            })
          }
        }
      }
    }
    if (flight.phase === "missed") {
      const version = state.database[flight.of]!
      step(
        () => `reads ${names[bit(flight.of)]} v${version}`,
        { ...state, flight: { ...flight, phase: "read", version } },
        version < flight.since && tooOld
      )
    } else if (flight.phase === "read") {
      const { lease, of, version } = flight
      const accepted = lease >= 0 && valid(state, of, lease)
      step(
        () => lease < 0 ? "the flight lands" : `STORE v${version}: ${accepted ? "accepted" : "refused"}`,
        {
          ...state,
          flight: landed,
          entries: accepted ? replaced(state.entries, of, { version, lease }) : state.entries
        }
      )
    }
  }

  const fill = (state: State, step: Step<State>) => {
    const { lease, of, phase, version } = state.other
    if (phase === "idle" && state.fills < fills) {
      for (const d of [0, 1]) {
        const entry = state.entries[d]!
        if (entry !== null && valid(state, d, entry.lease)) continue
        step(() => `the other LOOKUP ${names[bit(d)]}: miss, lease ${state.clock}`, {
          ...state,
          stamps: replaced(state.stamps, d, state.stamps[d] ?? state.clock),
          other: { phase: "missed", of: d, lease: state.clock, version: 0 },
          fills: state.fills + 1
        })
      }
    } else if (phase === "missed") {
      const version = state.database[of]!
      step(() => `the other reads v${version}`, { ...state, other: { ...state.other, phase: "read", version } })
    } else if (phase === "read") {
      const accepted = valid(state, of, lease)
      step(() => `the other STORE v${version}: ${accepted ? "accepted" : "refused"}`, {
        ...state,
        other: idle,
        entries: accepted ? replaced(state.entries, of, { version, lease }) : state.entries
      })
    }
  }

  return {
    initial: {
      clock: 0,
      stamps: [null, null],
      entries: [null, null],
      database: [0, 0],
      returned: [0, 0],
      write: null,
      queue: [],
      sending: "none",
      unserved: 0,
      strays: [],
      flight: landed,
      other: idle,
      writes: 0,
      lookups: 0,
      fills: 0,
      timeouts: 0
    },
    next(state, step) {
      write(state, step)
      deliver(state, step)
      read(state, step)
      fill(state, step)
      for (const [i, touched] of state.strays.entries()) {
        const rest = { ...state, strays: [...state.strays.slice(0, i), ...state.strays.slice(i + 1)] }
        step(() => `what timed out for ${names[touched]} is carried out late`, invalidated(rest, touched))
        step(() => `what timed out for ${names[touched]} is lost`, rest)
      }
    },
    wrong(state) {
      const quiet = state.write === null && state.queue.length === 0 && state.strays.length === 0 &&
        state.flight.phase === "idle" && state.other.phase === "idle"
      if (!quiet) return undefined
      const stale = state.entries.some((entry, d) =>
        entry !== null && valid(state, d, entry.lease) && entry.version < state.database[d]!
      )
      return stale ? "nothing is under way, and a hit would be stale" : undefined
    }
  }
}
