/**
 * A table keeps a limited number of shapes: here one, and there are two, `t(u)` and
 * `t(w)`. Registering one makes the other leave. One query depends on the row with
 * u = 0, another on the row with w = 0, and both are the same row.
 *
 * What is checked: with no invalidation outstanding, what can be served equals the
 * database.
 *
 * The guard is `registerShape` in the LOOKUP of src/internal/redis/scripts.ts.
 */
import { type Model, replaced, sorted } from "./checker.ts"

export interface Options {
  /** With a shape, its stamp leaves. Default: yes. */
  readonly stampLeaves?: boolean
  /** Where a shape has left, the clock moves on. Nothing here needs it: it numbers the message of it. Default: yes. */
  readonly clockMoves?: boolean
  readonly readers?: number
  readonly lookups?: number
  readonly writes?: number
}

interface Reader {
  readonly phase: "idle" | "missed" | "read"
  readonly query: number
  readonly lease: number
  readonly version: number
}

interface State {
  readonly clock: number
  /** Which shape is registered. */
  readonly listed: number | null
  /** By query: the stamps of its conjunction and of its shape. */
  readonly conjunctions: ReadonlyArray<number | null>
  readonly shapes: ReadonlyArray<number | null>
  readonly entries: ReadonlyArray<{ readonly version: number; readonly lease: number } | null>
  readonly database: number
  readonly outstanding: number
  readonly readers: ReadonlyArray<Reader>
  readonly lookups: number
}

const columns = ["u", "w"]
const idle: Reader = { phase: "idle", query: 0, lease: 0, version: 0 }

export const shapeLimit = (options: Options): Model<State> => {
  const { clockMoves = true, lookups = 4, readers = 2, stampLeaves = true, writes = 2 } = options

  const valid = ({ conjunctions, shapes }: State, query: number, lease: number): boolean =>
    [conjunctions[query]!, shapes[query]!].every((stamp) => stamp !== null && stamp <= lease)

  /** Stamps before shapes, as LOOKUP does. */
  const registered = (state: State, query: number): State => {
    const { clock, listed } = state
    const next = {
      ...state,
      conjunctions: replaced(state.conjunctions, query, state.conjunctions[query] ?? clock),
      shapes: replaced(state.shapes, query, state.shapes[query] ?? clock),
      listed: query
    }
    return listed === null || listed === query ? next : {
      ...next,
      clock: clockMoves ? clock + 1 : clock,
      shapes: stampLeaves ? replaced(next.shapes, listed, null) : next.shapes
    }
  }

  return {
    initial: {
      clock: 0,
      listed: null,
      conjunctions: [null, null],
      shapes: [null, null],
      entries: [null, null],
      database: 0,
      outstanding: 0,
      readers: Array.from({ length: readers }, () => idle),
      lookups: 0
    },
    canonical: (state) => ({ ...state, readers: sorted(state.readers) }),
    next(state, step) {
      for (const [i, reader] of state.readers.entries()) {
        const { lease, phase, query, version } = reader
        const to = (state: State, next: Reader): State => ({ ...state, readers: replaced(state.readers, i, next) })
        if (phase === "idle" && state.lookups < lookups) {
          for (const query of [0, 1]) {
            const entry = state.entries[query]!
            if (entry !== null && valid(state, query, entry.lease)) continue
            const after = registered({ ...state, lookups: state.lookups + 1 }, query)
            step(
              () => `r${i} LOOKUP ${columns[query]}=0: miss, lease ${after.clock}`,
              to(after, { phase: "missed", query, lease: after.clock, version: 0 })
            )
          }
        } else if (phase === "missed") {
          step(() => `r${i} reads v${state.database}`, to(state, { ...reader, phase: "read", version: state.database }))
        } else if (phase === "read") {
          const accepted = valid(state, query, lease)
          const entries = accepted ? replaced(state.entries, query, { version, lease }) : state.entries
          step(
            () => `r${i} STORE ${columns[query]}=0: ${accepted ? "accepted" : "refused"}`,
            to({ ...state, entries }, idle)
          )
        }
      }
      if (state.database < writes) {
        step(
          () => `COMMIT v${state.database + 1}`,
          { ...state, database: state.database + 1, outstanding: state.outstanding + 1 }
        )
      }
      if (state.outstanding > 0) {
        const clock = state.clock + 1
        const { listed } = state
        step(() => `INVALIDATE the row at clock ${clock}`, {
          ...state,
          clock,
          conjunctions: listed === null || state.conjunctions[listed] === null
            ? state.conjunctions
            : replaced(state.conjunctions, listed, clock),
          outstanding: state.outstanding - 1
        })
      }
    },
    wrong(state) {
      if (state.outstanding > 0) return undefined
      const stale = state.entries.some((entry, query) =>
        entry !== null && valid(state, query, entry.lease) && entry.version < state.database
      )
      return stale ? "no invalidation is outstanding, and a hit would be stale" : undefined
    }
  }
}
