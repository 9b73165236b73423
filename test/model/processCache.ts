/**
 * The cache of one process over the shared store, with one entry and one
 * dependency, and the channel on which it hears of invalidations.
 *
 * The shared store always answers with the newest version whose invalidation is
 * acknowledged. The channel is in order; it may lag, lose a message, or be cut.
 * What is checked: when nothing is under way, what the process would serve is the
 * newest. (How old it may be until then is the model of beats.)
 *
 * These guards are the backplane's (src/internal/tiered/plane.ts): sequence, beat, and
 * fills judged by clocks.
 * That an epoch begins with another primary is `rotate` in
 * src/internal/redis/scripts.ts.
 */
import type { Model, Step } from "./checker.ts"

export interface Guards {
  /** A fill is refused whose clock is older than the last invalidation of its dependency. */
  readonly fillCompared?: boolean
  /** A message that does not follow the last one flushes. Default: yes. */
  readonly sequence?: boolean
  /** A beat that tells another clock than the last message, or does not come, flushes. */
  readonly beat?: boolean
  /** Another primary begins an epoch. */
  readonly epochOfPrimary?: boolean
}

export interface Options extends Guards {
  readonly writes?: number
  readonly fills?: number
  /** Instead of comparing clocks: whether what was there when the reply was asked for still is. */
  readonly placeholder?: boolean
  /** Whether there are invalidations that the entry does not depend on. */
  readonly others?: boolean

  // Faults.
  readonly losesMessage?: boolean
  /** The subscription ends, and the process notices. */
  readonly disconnects?: boolean
  /** The subscription ends, and only a missing beat tells. */
  readonly halfOpen?: boolean
  readonly failover?: boolean
}

interface Point {
  readonly epoch: number
  readonly clock: number
}

interface Message extends Point {
  /** Whether it names the entry's dependency. */
  readonly touches: boolean
}

interface Answer extends Point {
  readonly value: number
}

interface State {
  readonly primary: Point
  readonly replica: Point
  readonly acknowledged: number
  readonly entry: Answer | "placeholder" | null
  /** The last message applied, and the clock of the last invalidation of the entry's dependency. */
  readonly applied: Point
  readonly invalidated: number
  readonly messages: ReadonlyArray<Message>
  readonly reply: Answer | null
  readonly connected: boolean
  readonly writes: number
  readonly faults: number
  readonly fills: number
  /** Whether a beat has returned since the last invalidation. */
  readonly beaten: boolean
}

const told = ({ clock, epoch }: Point): string => `${epoch}:${clock}`

export const processCache = (options: Options): Model<State> => {
  const { fills = 2, sequence = true, writes = 3 } = options

  const flushed = (state: State, { clock, epoch }: Point): State => ({
    ...state,
    entry: null,
    applied: { epoch, clock },
    invalidated: clock
  })
  const invalidated = (state: State, { clock, touches }: Message): State =>
    touches ? { ...state, entry: null, invalidated: Math.max(clock, state.invalidated) } : state

  const next = (state: State, step: Step<State>) => {
    const { applied, entry, faults, primary, reply } = state
    if (state.writes < writes) {
      const point = { epoch: primary.epoch, clock: primary.clock + 1 }
      for (const touches of options.others ? [true, false] : [true]) {
        const acknowledged = touches ? state.acknowledged + 1 : state.acknowledged
        const after = { ...state, primary: point, acknowledged, writes: state.writes + 1, beaten: false }
        const label = `INVALIDATE ${touches ? `v${acknowledged}` : "something else"} at ${told(point)}`
        if (state.connected) step(() => label, { ...after, messages: [...state.messages, { ...point, touches }] })
        else step(() => `${label}, nobody listens`, after)
        if (options.losesMessage && faults < 1) step(() => `${label}, the message is lost`, { ...after, faults: 1 })
      }
    }
    if (reply === null && state.fills < fills && entry === null) {
      step(() => `LOOKUP: v${state.acknowledged} at ${told(primary)} is on its way`, {
        ...state,
        reply: { ...primary, value: state.acknowledged },
        fills: state.fills + 1,
        entry: options.placeholder ? "placeholder" : entry
      })
    }
    if (reply !== null) {
      const fill = options.placeholder
        ? entry === "placeholder"
        : !options.fillCompared ||
          (reply.epoch === applied.epoch && reply.clock >= state.invalidated && state.connected)
      step(
        () => `v${reply.value} arrives, ${fill ? "fills" : "does not fill"}`,
        { ...state, reply: null, entry: fill ? reply : entry === "placeholder" ? null : entry }
      )
    }
    const message = state.messages[0]
    if (message !== undefined) {
      const rest = { ...state, messages: state.messages.slice(1) }
      const { clock, epoch } = message
      if (epoch !== applied.epoch) step(() => `${told(message)} arrives: another epoch, flush`, flushed(rest, message))
      else if (sequence && clock <= applied.clock && !options.beat) {
        step(() => `${told(message)} arrives: late, applied`, invalidated(rest, message))
      } else if (sequence && clock !== applied.clock + 1) {
        step(() => `${told(message)} arrives: a gap, flush`, flushed(rest, message))
      } else {
        step(
          () => `${told(message)} arrives, applied`,
          { ...invalidated(rest, message), applied: { epoch, clock } }
        )
      }
    }
    if (options.beat && state.messages.length === 0 && state.connected && !state.beaten) {
      if (told(primary) === told(applied)) step(() => "a beat returns", { ...state, beaten: true })
      else step(() => "a beat returns: another clock, flush", { ...flushed(state, primary), beaten: true })
    }
    if (options.disconnects && faults < 1 && state.connected) {
      step(
        () => "the subscription ends: flush",
        { ...state, connected: false, messages: [], entry: null, faults: 1 }
      )
    }
    if (options.halfOpen && faults < 1 && state.connected) {
      step(() => "the subscription ends unnoticed", { ...state, connected: false, messages: [], faults: 1 })
    }
    if (!state.connected && (options.disconnects || (options.halfOpen && options.beat))) {
      step(
        () => `${options.disconnects ? "" : "no beat returns: "}subscribed again, flush`,
        { ...flushed(state, primary), connected: true, beaten: true }
      )
    }
    if (options.failover && told(state.replica) !== told(primary)) {
      step(() => "the store replicates", { ...state, replica: primary })
      if (faults < 2) {
        const promoted = options.epochOfPrimary ? { epoch: state.replica.epoch + 100, clock: 0 } : state.replica
        step(
          () => "the store fails over to its replica",
          { ...state, primary: promoted, replica: promoted, faults: 2, beaten: false }
        )
      }
    }
  }

  return {
    initial: {
      primary: { epoch: 1, clock: 0 },
      replica: { epoch: 1, clock: 0 },
      acknowledged: 0,
      entry: null,
      applied: { epoch: 1, clock: 0 },
      invalidated: 0,
      messages: [],
      reply: null,
      connected: true,
      writes: 0,
      faults: 0,
      fills: 0,
      beaten: true
    },
    next,
    wrong({ acknowledged, beaten, entry, messages, reply }) {
      if (messages.length > 0 || reply !== null || (options.beat && !beaten)) return undefined
      return entry !== null && entry !== "placeholder" && entry.value < acknowledged
        ? "all is quiet, and the process would serve what is stale"
        : undefined
    }
  }
}
