/**
 * When a row dependency becomes known to the store. One table with one row
 * (column u is 0 or 1), and two queries, `WHERE u = 0` and `WHERE u = 1`.
 *
 * An answer depends on the conjunction `t(u=0)`, on its shape `t(u)` and on the
 * wildcard, which is left out here. A write stamps the conjunctions of its two
 * images for shapes that are registered, and the table. What is checked: with no
 * invalidation outstanding, what can be served equals the database.
 *
 * The guards are `register` and `newest` in the LOOKUP and STORE of
 * src/internal/redis/scripts.ts, and `register` and `covers` in
 * src/internal/memoryTable.ts.
 */
import { type Model, replaced, type Step } from "./checker.ts"

export interface Options {
  readonly registeredAt?: "lookup" | "store"
  /** What an absent dependency means: refused, or judged by the newest stamp that was ever trimmed. */
  readonly absent?: "refused" | "floor"
  /** An invalidation stamps only what is registered. */
  readonly onlyRegistered?: boolean
  /** What else judges a fill for a shape that is new: the table's stamp at the first store, or at any lease before it. */
  readonly newShape?: "first store" | "since"
  readonly trims?: boolean
}

interface State {
  readonly clock: number
  /** Stamps by dependency, in the order of `names`. */
  readonly stamps: ReadonlyArray<number | null>
  readonly floor: number
  /** The clock at which the shape was registered. */
  readonly since: number | null
  readonly entries: ReadonlyArray<{ readonly value: number; readonly lease: number } | null>
  readonly row: { readonly u: number; readonly version: number }
  /** The images of writes whose invalidation is outstanding, oldest first. */
  readonly pending: ReadonlyArray<readonly [from: number, to: number]>
  readonly readers: ReadonlyArray<{
    readonly phase: "idle" | "missed" | "read" | "done"
    readonly query: number | null
    readonly lease: number | null
    readonly value: number | null
  }>
  readonly writes: number
  readonly trims: number
}

const shape = 2
const table = 3
const names = ["t(u=0)", "t(u=1)", "t(u)", "t"]

const answer = ({ u, version }: State["row"], query: number): number => u === query ? version : -1

export const shapes = (options: Options): Model<State> => {
  const { absent = "refused", onlyRegistered = true, registeredAt = "lookup", trims = true } = options

  const valid = (state: State, query: number, lease: number, since = state.since): boolean => {
    const { floor, stamps } = state
    for (const stamp of [stamps[query]!, stamps[shape]!]) {
      if (stamp === null ? absent === "refused" : stamp > lease) return false
    }
    if (absent === "floor" && lease < floor) return false
    return options.newShape !== "since" || (since !== null && lease >= since) || (stamps[table] ?? 0) <= lease
  }

  const read = (state: State, i: number, step: Step<State>) => {
    const { clock, since, stamps } = state
    const { lease, phase, query, value } = state.readers[i]!
    const to = (reader: State["readers"][number], and?: Partial<State>): State => ({
      ...state,
      ...and,
      readers: replaced(state.readers, i, reader)
    })
    if (phase === "idle") {
      for (const query of [0, 1]) {
        const entry = state.entries[query]!
        if (entry !== null && valid(state, query, entry.lease)) continue
        const registered = registeredAt === "lookup"
          ? {
            since: since ?? clock,
            stamps: stamps.map((stamp, d) => d === query || d === shape ? stamp ?? clock : stamp)
          }
          : {}
        step(
          () => `r${i} LOOKUP u=${query}: miss, lease ${clock}`,
          to({ phase: "missed", query, lease: clock, value: null }, registered)
        )
      }
    } else if (phase === "missed") {
      const value = answer(state.row, query!)
      step(
        () => `r${i} reads ${value < 0 ? "no row" : `v${value}`}`,
        to({ phase: "read", query, lease, value })
      )
    } else if (phase === "read") {
      const accepted = options.newShape === "since"
        ? valid(state, query!, lease!, since ?? clock)
        : valid(state, query!, lease!) &&
          (options.newShape === undefined || since !== null || (stamps[table] ?? 0) <= lease!)
      step(
        () => `r${i} STORE u=${query}: ${accepted ? "accepted" : "refused"}`,
        to(
          { phase: "done", query: null, lease: null, value: null },
          {
            since: registeredAt === "store" ? since ?? clock : since,
            entries: accepted ? replaced(state.entries, query!, { value: value!, lease: lease! }) : state.entries
          }
        )
      )
    }
  }

  return {
    initial: {
      clock: 0,
      stamps: [null, null, null, null],
      floor: 0,
      since: null,
      entries: [null, null],
      row: { u: 0, version: 0 },
      pending: [],
      readers: Array.from({ length: 2 }, () => ({ phase: "idle", query: null, lease: null, value: null })),
      writes: 0,
      trims: 0
    },
    next(state, step) {
      const { clock, pending, row, stamps } = state
      for (let i = 0; i < state.readers.length; i++) read(state, i, step)
      if (state.writes < 2) {
        for (const u of [0, 1]) {
          const version = row.version + 1
          step(() => `COMMIT v${version}, u from ${row.u} to ${u}`, {
            ...state,
            row: { u, version },
            pending: [...pending, [row.u, u]],
            writes: state.writes + 1
          })
        }
      }
      pending.forEach((images, j) => {
        const at = clock + 1
        const stamped = stamps.map((stamp, d) =>
          d === table ||
            (state.since !== null && images.includes(d) && (!onlyRegistered || stamp !== null))
            ? at
            : stamp
        )
        step(() => `INVALIDATE u=${images[0]}, u=${images[1]} at clock ${at}`, {
          ...state,
          clock: at,
          stamps: stamped,
          pending: [...pending.slice(0, j), ...pending.slice(j + 1)]
        })
      })
      if (trims && state.trims < 1) {
        const oldest = Math.min(...stamps.filter((stamp) => stamp !== null))
        for (const d of [shape, table, 0, 1]) {
          const stamp = stamps[d]!
          // With a floor only the oldest may go, without one anything that counts.
          if (stamp === null || (absent === "floor" ? stamp !== oldest : d === table)) continue
          step(() => `the store trims ${names[d]}`, {
            ...state,
            stamps: replaced(stamps, d, null),
            floor: absent === "floor" ? Math.max(state.floor, stamp) : state.floor,
            trims: state.trims + 1
          })
        }
      }
    },
    wrong(state) {
      if (state.pending.length > 0) return undefined
      for (const query of [0, 1]) {
        const entry = state.entries[query]!
        if (entry !== null && valid(state, query, entry.lease) && entry.value !== answer(state.row, query)) {
          return "no invalidation is outstanding, and a hit would be stale"
        }
      }
      return undefined
    }
  }
}
