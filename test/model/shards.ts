/**
 * A namespace in two shards, with a clock each. Each holds one entry, and both
 * entries depend on the same table. An invalidation goes to both shards at once,
 * and reaches each of them on its own, or does not. The clocks of the shards drift
 * apart: what timed out may have been carried out, and is sent again.
 *
 * What is checked: in the writing process no hit is older than the writes that
 * have returned; in another process, whose own cache hears of invalidations late,
 * no answer is older than the token of the session; and when nothing is under way,
 * what can be served equals the database.
 *
 * What has to agree is src/internal/redis/store.ts; the delivery of undelivered
 * invalidations is src/internal/delivery.ts.
 */
import { bit, type Model, replaced, type Step } from "./checker.ts"

export interface Guards {
  /** A write waits for every shard, and what did not answer counts as undelivered. */
  readonly everyShard?: boolean
  /** What one shard did not get is sent to it again, whatever another one got. */
  readonly retriedPerShard?: boolean
  /** A lease is the clock of the shard that the fill goes to. */
  readonly leasePerShard?: boolean
  /** A token holds a clock per shard. */
  readonly tokenPerShard?: boolean
}

export interface Options extends Guards {
  readonly writes?: number
  readonly fills?: number
  readonly timeouts?: number
}

export const guarded: Required<Guards> = {
  everyShard: true,
  retriedPerShard: true,
  leasePerShard: true,
  tokenPerShard: true
}

interface Shard {
  readonly clock: number
  readonly stamp: number | null
  readonly entry: { readonly version: number; readonly lease: number } | null
  /** What the other process has applied, and what its own cache holds. */
  readonly applied: number
  readonly cached: number | null
  /** A query under way that will fill this shard. */
  readonly flight: { readonly lease: number; readonly version: number | null } | null
}

interface State {
  readonly shards: ReadonlyArray<Shard>
  readonly database: number
  readonly returned: number
  /** The clocks that the shards have answered to the write under way. */
  readonly write: ReadonlyArray<number | "waits" | "timed out"> | null
  readonly undelivered: number
  readonly token: ReadonlyArray<number> | "bypass" | null
  readonly writes: number
  readonly fills: number
  readonly timeouts: number
}

const both = [0, 1]
const fresh: Shard = { clock: 0, stamp: null, entry: null, applied: 0, cached: null, flight: null }

export const shards = (options: Options): Model<State> => {
  const { fills = 2, timeouts = 1, writes = 2 } = options

  const changed = (state: State, s: number, shard: Partial<Shard>, and?: Partial<State>): State => ({
    ...state,
    ...and,
    shards: replaced(state.shards, s, { ...state.shards[s]!, ...shard })
  })
  const invalidated = (state: State, s: number): State => {
    const { clock, stamp } = state.shards[s]!
    return changed(state, s, { clock: clock + 1, stamp: stamp === null ? null : clock + 1 })
  }
  const valid = ({ entry, stamp }: Shard) => entry !== null && stamp !== null && stamp <= entry.lease

  const write = (state: State, step: Step<State>) => {
    const { write } = state
    if (write === null) {
      if (state.writes < writes) {
        step(() => `COMMIT v${state.database + 1}`, {
          ...state,
          database: state.database + 1,
          write: ["waits", "waits"],
          writes: state.writes + 1
        })
      }
      return
    }
    for (const s of both) {
      if (write[s] !== "waits") continue
      const done = invalidated(state, s)
      const clock = done.shards[s]!.clock
      step(() => `INVALIDATE at shard ${s}, clock ${clock}`, { ...done, write: replaced(write, s, clock) })
      if (state.timeouts < timeouts) {
        const lost = { write: replaced(write, s, "timed out" as const), timeouts: state.timeouts + 1 }
        step(() => `INVALIDATE at shard ${s} is lost`, { ...state, ...lost })
        step(() => `INVALIDATE at shard ${s}, clock ${clock}, the reply is lost`, { ...done, ...lost })
      }
    }
    const late = both.filter((s) => typeof write[s] !== "number")
    if (options.everyShard ? !write.includes("waits") : late.length < both.length) {
      const answered = write.map((answer) => typeof answer === "number" ? answer : 0)
      const undelivered = options.everyShard
        ? late.reduce((mask, s) => mask | bit(s), state.undelivered)
        : state.undelivered
      step(() => `the write returns${undelivered === 0 ? "" : ", undelivered in part"}`, {
        ...state,
        write: null,
        undelivered,
        returned: state.database,
        token: undelivered !== 0 ? "bypass" : answered
      })
    }
  }

  const deliver = (state: State, step: Step<State>) => {
    for (const s of both) {
      if ((state.undelivered & bit(s)) === 0) continue
      const undelivered = options.retriedPerShard ? state.undelivered & ~bit(s) : 0
      const done = invalidated(state, s)
      step(() => `INVALIDATE again at shard ${s}, clock ${done.shards[s]!.clock}`, { ...done, undelivered })
      if (state.timeouts < timeouts) {
        step(
          () => `INVALIDATE again at shard ${s}, clock ${done.shards[s]!.clock}, the reply is lost`,
          { ...done, timeouts: state.timeouts + 1 }
        )
      }
    }
  }

  const read = (state: State, s: number, step: Step<State>) => {
    const shard = state.shards[s]!
    const { applied, cached, clock, entry, flight, stamp } = shard
    if (valid(shard) && (state.undelivered & bit(s)) === 0) {
      step(
        () => `LOOKUP at shard ${s}: hit v${entry!.version}`,
        state,
        entry!.version < state.returned && "a hit is older than a write that has returned"
      )
    }
    const { token } = state
    if (cached !== null && token !== null && token !== "bypass" && applied >= token[options.tokenPerShard ? s : 0]!) {
      step(
        () => `the other process answers v${cached} of shard ${s}`,
        state,
        cached < state.returned && "an answer is older than the session's token"
      )
    }
    if (flight === null && !valid(shard) && state.fills < fills) {
      const lease = options.leasePerShard ? clock : Math.max(...state.shards.map((shard) => shard.clock))
      step(
        () => `LOOKUP at shard ${s}: miss, lease ${lease}`,
        changed(state, s, { stamp: stamp ?? clock, flight: { lease, version: null } }, { fills: state.fills + 1 })
      )
    } else if (flight !== null && flight.version === null) {
      step(() => `reads v${state.database}`, changed(state, s, { flight: { ...flight, version: state.database } }))
    } else if (flight !== null) {
      const { lease } = flight
      const version = flight.version!
      const accepted = stamp !== null && stamp <= lease
      step(
        () => `STORE v${version} at shard ${s}: ${accepted ? "accepted" : "refused"}`,
        changed(state, s, {
          flight: null,
          entry: accepted ? { version, lease } : entry,
          cached: accepted && applied === clock ? version : cached
        })
      )
    }
    if (applied < clock) {
      step(
        () => `clock ${applied + 1} of shard ${s} arrives`,
        changed(state, s, { applied: applied + 1, cached: null })
      )
    }
  }

  return {
    initial: {
      shards: [fresh, fresh],
      database: 0,
      returned: 0,
      write: null,
      undelivered: 0,
      token: null,
      writes: 0,
      fills: 0,
      timeouts: 0
    },
    next(state, step) {
      write(state, step)
      deliver(state, step)
      for (const s of both) read(state, s, step)
    },
    wrong(state) {
      const quiet = state.write === null && state.undelivered === 0 &&
        state.shards.every(({ flight }) => flight === null)
      return quiet && state.shards.some((shard) => valid(shard) && shard.entry!.version < state.database)
        ? "nothing is under way, and a hit would be stale"
        : undefined
    }
  }
}
