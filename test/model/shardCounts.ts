/**
 * Processes that use different numbers of shards of one namespace: one that uses the
 * first alone, and writes, and two that use a second one, too, and read there. What
 * the first shard has recorded of that may be lost, as its metadata may.
 *
 * What is checked: no hit is older than the writes that have returned, of a process
 * that has heard of the epoch the first shard is in. (Who has not hears of it within a
 * second, or when it asks the first shard for anything.) And when nothing is under
 * way, what those may serve equals the database.
 *
 * What has to agree is src/internal/redis/shards.ts.
 */
import { type Model, replaced, type Step } from "./checker.ts"

export interface Guards {
  /** Who uses fewer shards writes to all that are recorded. */
  readonly writesToAll?: boolean
  /** A process records its number before it uses the second shard. */
  readonly opens?: boolean
  /** It does so before it clears what may be there, not after. */
  readonly recordedFirst?: boolean
  /** What may be there is cleared. */
  readonly cleared?: boolean
  /** The shards are ready only if no epoch has begun since they were recorded. */
  readonly sameEpoch?: boolean
}

export interface Options extends Guards {
  readonly writes?: number
  readonly fills?: number
  readonly losses?: number
}

export const guarded: Required<Guards> = {
  writesToAll: true,
  opens: true,
  recordedFirst: true,
  cleared: true,
  sameEpoch: true
}

interface Reader {
  /** The epoch of the first shard in which it uses the second one. */
  readonly opened: number | null
  /** It has recorded its number in this epoch, and is about to clear the second shard, or to say that it is ready. */
  readonly opening: { readonly epoch: number; readonly cleared: boolean } | null
  /** A query under way that will fill the second shard. */
  readonly flight: { readonly epoch: number; readonly lease: number; readonly version: number | null } | null
}

interface State {
  readonly first: { readonly epoch: number; readonly recorded: boolean; readonly ready: boolean }
  readonly second: {
    readonly epoch: number
    readonly clock: number
    readonly stamp: number | null
    readonly entry: { readonly version: number; readonly lease: number } | null
  }
  readonly readers: ReadonlyArray<Reader>
  readonly write: "committed" | "at the second shard" | null
  readonly database: number
  readonly returned: number
  readonly writes: number
  readonly fills: number
  readonly losses: number
}

const newcomer: Reader = { opened: null, opening: null, flight: null }

export const shardCounts = (options: Options): Model<State> => {
  const { fills = 2, losses = 1, writes = 2 } = options

  const changed = (state: State, r: number, reader: Partial<Reader>, and?: Partial<State>): State => ({
    ...state,
    ...and,
    readers: replaced(state.readers, r, { ...state.readers[r]!, ...reader })
  })

  const write = (state: State, step: Step<State>) => {
    const { database, first, second } = state
    if (state.write === null) {
      if (state.writes === writes) return
      const next = { ...state, database: database + 1, write: "committed" as const, writes: state.writes + 1 }
      return step(() => `COMMIT v${database + 1}`, next)
    }
    if (state.write === "committed") {
      return options.writesToAll && first.recorded
        ? step(() => "INVALIDATE at the first shard: there is another", { ...state, write: "at the second shard" })
        : step(() => "INVALIDATE at the first shard, and the write returns", {
          ...state,
          write: null,
          returned: database
        })
    }
    const clock = second.clock + 1
    step(() => "INVALIDATE at the second shard, and the write returns", {
      ...state,
      second: { ...second, clock, stamp: second.stamp === null ? null : clock },
      write: null,
      returned: database
    })
  }

  const open = (state: State, r: number, step: Step<State>) => {
    const { first, second } = state
    const { opened, opening } = state.readers[r]!
    const recorded = { ...first, recorded: true }
    const begin = () => {
      if (first.recorded && first.ready) {
        return step(() => `reader ${r} OPENs: ready`, changed(state, r, { opened: first.epoch, opening: null }))
      }
      const next = { opened: null, opening: { epoch: first.epoch, cleared: !options.cleared } }
      const and = options.recordedFirst ? { first: recorded } : {}
      step(() => `reader ${r} OPENs: not ready`, changed(state, r, next, and))
    }
    if (opening === null) {
      // It asks in an epoch that it has just heard of, or for the first time.
      if (opened !== first.epoch) begin()
    } else if (!opening.cleared) {
      step(
        () => `reader ${r} clears the second shard`,
        changed(state, r, { opening: { ...opening, cleared: true } }, {
          second: { epoch: second.epoch + 1, clock: 0, stamp: null, entry: null }
        })
      )
    } else if (opening.epoch === first.epoch || !options.sameEpoch) {
      step(
        () => `reader ${r} says that the second shard is ready`,
        changed(state, r, { opened: first.epoch, opening: null }, { first: { ...recorded, ready: true } })
      )
    } else begin()
  }

  const read = (state: State, r: number, step: Step<State>) => {
    const { first, second } = state
    const { clock, entry, stamp } = second
    const { flight, opened } = state.readers[r]!
    if (flight === null) {
      if (opened === null && options.opens) return
      if (entry !== null && stamp !== null && stamp <= entry.lease) {
        const hasHeard = opened === first.epoch || !options.opens
        return step(
          () => `reader ${r} LOOKUP: hit v${entry.version}`,
          state,
          hasHeard && entry.version < state.returned && "a hit is older than a write that has returned"
        )
      }
      if (state.fills === fills) return
      return step(
        () => `reader ${r} LOOKUP: miss, lease ${clock}`,
        changed(state, r, { flight: { epoch: second.epoch, lease: clock, version: null } }, {
          second: { ...second, stamp: stamp ?? clock },
          fills: state.fills + 1
        })
      )
    }
    if (flight.version === null) {
      return step(
        () => `reader ${r} reads v${state.database}`,
        changed(state, r, { flight: { ...flight, version: state.database } })
      )
    }
    const accepted = flight.epoch === second.epoch && stamp !== null && stamp <= flight.lease
    step(
      () => `reader ${r} STORE v${flight.version}: ${accepted ? "accepted" : "refused"}`,
      changed(state, r, { flight: null }, {
        second: accepted ? { ...second, entry: { version: flight.version!, lease: flight.lease } } : second
      })
    )
  }

  return {
    initial: {
      first: { epoch: 0, recorded: false, ready: false },
      second: { epoch: 0, clock: 0, stamp: null, entry: null },
      readers: [newcomer, newcomer],
      write: null,
      database: 0,
      returned: 0,
      writes: 0,
      fills: 0,
      losses: 0
    },
    next(state, step) {
      write(state, step)
      for (const r of [0, 1]) {
        open(state, r, step)
        read(state, r, step)
      }
      if (state.losses < losses) {
        step(() => "the metadata of the first shard are lost", {
          ...state,
          first: { epoch: state.first.epoch + 1, recorded: false, ready: false },
          losses: state.losses + 1
        })
      }
    }
  }
}
