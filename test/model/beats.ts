/**
 * How old an answer of a process' own cache can be. The process sends beats to the
 * shared store, which come back on the channel of the invalidations, in order with
 * them. It serves only while the last beat that came back was sent less than
 * `delta` ago. Time passes in ticks; everything under way may take any time.
 *
 * A message may be lost, the process may be suspended (its monotonic clock then
 * stands still), its wall clock may be set back, and it may be left alone with a
 * primary that was deposed: that one still answers reads, and refuses writes.
 *
 * What is checked: whatever the process serves includes every invalidation that
 * was acknowledged `delta` ago or earlier.
 *
 * The guards are the backplane's: src/internal/tiered/plane.ts.
 */
import type { Model, Step } from "./checker.ts"

export interface Guards {
  /** A beat counts from when it was sent, not from when it came back. */
  readonly sinceSent?: boolean
  /** A beat that tells another clock than the last message flushes. */
  readonly beatCompared?: boolean
  /** A beat writes, so that a primary that refuses writes does not answer it. */
  readonly beatWrites?: boolean
  /** Hits of the shared store need a beat, too. */
  readonly sharedNeedsBeat?: boolean
  /** The age of a beat is taken by the monotonic clock. */
  readonly monotonic?: boolean
  /** And by the wall clock. */
  readonly wall?: boolean
}

export interface Options extends Guards {
  readonly ticks?: number
  readonly writes?: number
  readonly losses?: number
  readonly suspensions?: number
  readonly setbacks?: number
  readonly deposed?: boolean
}

export const guarded: Required<Guards> = {
  sinceSent: true,
  beatCompared: true,
  beatWrites: true,
  sharedNeedsBeat: true,
  monotonic: true,
  wall: true
}

const delta = 2

/** How long ago something was, by each clock of the process, up to delta. */
interface Age {
  readonly monotonic: number
  readonly wall: number
}

interface State {
  readonly clock: number
  /** Of each version, how long ago its invalidation was acknowledged, up to delta. */
  readonly acknowledged: ReadonlyArray<number>
  /** The clock of the deposed primary that the process still talks to. */
  readonly deposed: number | null
  readonly channel: ReadonlyArray<{ readonly clock: number; readonly beat: Age | null }>
  /** A beat on its way to the store. */
  readonly sent: Age | null
  readonly reply: number | null
  readonly cached: number | null
  readonly applied: number
  /** The last beat that came back. */
  readonly beat: Age | null
  readonly suspended: boolean
  readonly ticks: number
  readonly losses: number
  readonly suspensions: number
  readonly setbacks: number
}

const now: Age = { monotonic: 0, wall: 0 }

export const beats = (options: Options): Model<State> => {
  const { losses = 0, setbacks = 0, suspensions = 0, ticks = 4, writes = 2 } = options

  const fresh = ({ beat }: State): boolean =>
    beat !== null && (!options.monotonic || beat.monotonic < delta) && (!options.wall || beat.wall < delta)

  /** The store's clock is the version, since every write is to what the entry depends on. */
  const tooOld = (state: State, version: number): string | false =>
    state.acknowledged.some((age, v) => v + 1 > version && age >= delta) &&
    "what is served lacks an invalidation that was acknowledged delta ago"

  const grown = (age: Age | null, suspended: boolean): Age | null =>
    age === null ? null : {
      monotonic: suspended ? age.monotonic : Math.min(age.monotonic + 1, delta),
      wall: Math.min(age.wall + 1, delta)
    }
  const mapped = (state: State, change: (age: Age | null) => Age | null): State => ({
    ...state,
    channel: state.channel.map(({ beat, clock }) => ({ clock, beat: change(beat) })),
    sent: change(state.sent),
    beat: change(state.beat)
  })

  const work = (state: State, step: Step<State>) => {
    const { applied, cached, deposed, reply, sent } = state
    if (cached !== null && fresh(state)) {
      step(() => `the process serves v${cached}`, state, tooOld(state, cached))
    }
    // One at a time.
    if (sent === null && state.channel.every(({ beat }) => beat === null)) {
      step(() => "a beat is sent", { ...state, sent: now })
    }
    if (reply === null && cached === null) {
      const version = deposed ?? state.clock
      step(() => `LOOKUP: v${version} is on its way`, { ...state, reply: version })
    }
    if (reply !== null) {
      const served = fresh(state) || !options.sharedNeedsBeat
      const fills = served && reply >= applied
      step(
        () => `v${reply} arrives, ${served ? "is served" : "is not served"}`,
        { ...state, reply: null, cached: fills ? reply : cached },
        served && reply >= applied && tooOld(state, reply)
      )
    }
    const message = state.channel[0]
    if (message !== undefined) {
      const { beat, clock } = message
      const rest = { ...state, channel: state.channel.slice(1) }
      if (beat === null) {
        step(() => `the message of clock ${clock} arrives`, { ...rest, cached: null, applied: clock })
      } else {
        const flush = options.beatCompared && clock !== applied
        step(
          () => `a beat comes back with clock ${clock}${flush ? ": flush" : ""}`,
          {
            ...rest,
            beat: options.sinceSent ? beat : now,
            cached: flush ? null : cached,
            applied: flush ? clock : applied
          }
        )
      }
    }
  }

  return {
    initial: {
      clock: 0,
      acknowledged: [],
      deposed: null,
      channel: [],
      sent: null,
      reply: null,
      cached: null,
      applied: 0,
      beat: null,
      suspended: false,
      ticks: 0,
      losses: 0,
      suspensions: 0,
      setbacks: 0
    },
    next(state, step) {
      const { clock, deposed, sent, suspended } = state
      if (!suspended) work(state, step)
      if (sent !== null) {
        if (deposed === null || !options.beatWrites) {
          const told = { clock: deposed ?? clock, beat: sent }
          step(() => "the store answers the beat", { ...state, sent: null, channel: [...state.channel, told] })
        } else {
          step(() => "the deposed primary refuses the beat", { ...state, sent: null })
        }
      }
      if (clock < writes) {
        const after = { ...state, clock: clock + 1, acknowledged: [...state.acknowledged, 0] }
        const message = { clock: clock + 1, beat: null }
        const label = `INVALIDATE at clock ${clock + 1}`
        if (deposed === null) step(() => label, { ...after, channel: [...state.channel, message] })
        else step(() => `${label}, elsewhere`, after)
        if (deposed === null && state.losses < losses) {
          step(() => `${label}, the message is lost`, { ...after, losses: state.losses + 1 })
        }
      }
      if (options.deposed && deposed === null) step(() => "the primary is deposed", { ...state, deposed: clock })
      if (state.suspensions < suspensions && !suspended) {
        step(() => "the process is suspended", { ...state, suspended: true, suspensions: state.suspensions + 1 })
      }
      if (suspended) step(() => "the process goes on", { ...state, suspended: false })
      if (state.setbacks < setbacks) {
        step(
          () => "the wall clock is set back",
          { ...mapped(state, (age) => age === null ? null : { ...age, wall: 0 }), setbacks: state.setbacks + 1 }
        )
      }
      if (state.ticks < ticks) {
        step(() => suspended ? "a tick, suspended" : "a tick", {
          ...mapped(state, (age) => grown(age, suspended)),
          acknowledged: state.acknowledged.map((age) => Math.min(age + 1, delta)),
          ticks: state.ticks + 1
        })
      }
    }
  }
}
