/**
 * A session that writes through one process and reads through another, which has a
 * cache of its own and hears of invalidations late. The session carries a token
 * from its write to its reads: epoch and clock of the invalidation.
 *
 * The shared store may lose its metadata (an epoch begins), and may fail over to a
 * lagging replica, without showing that it did if it is behind REST.
 *
 * What is checked: no answer to the session is older than its own last write.
 *
 * That the store compares clocks with what callers have seen is `open` and
 * `rotate` in src/internal/redis/scripts.ts. The other guards are of session
 * tokens, which are in the protocol alone so far.
 */
import { type Model, same, type Step } from "./checker.ts"

export interface Guards {
  /** The process' own cache answers only if it has applied what the token names. */
  readonly cacheJudged?: boolean
  /** Only flights are joined whose lease is not before the token. */
  readonly flightJudged?: boolean
  /** Clocks are compared within an epoch only. */
  readonly epochJudged?: boolean
  /** Calls tell the store what their caller has seen, the token included. */
  readonly seenSent?: boolean
  /** A write whose invalidation is undelivered hands out a token that bypasses. */
  readonly undeliveredBypasses?: boolean
}

export interface Options extends Guards {
  readonly writes?: number
  readonly lookups?: number
  readonly timeouts?: number
  readonly losses?: number
  readonly failovers?: number
  /** Whether the store shows that another primary answers: then an epoch begins. Default: no. */
  readonly identity?: boolean
  /** Whether the session writes through processes that have seen nothing yet. */
  readonly strangers?: boolean
}

export const guarded: Required<Guards> = {
  cacheJudged: true,
  flightJudged: true,
  epochJudged: true,
  seenSent: true,
  undeliveredBypasses: true
}

interface Point {
  readonly epoch: number
  readonly clock: number
}

interface Store extends Point {
  readonly stamp: number | null
  readonly entry: (Point & { readonly version: number }) | null
}

interface State {
  readonly store: Store
  readonly replica: Store
  readonly database: number
  /** What the session wrote last, its token, and what the writing process has seen. */
  readonly written: number
  readonly token: Point | "bypass" | null
  readonly seen: Point
  readonly messages: ReadonlyArray<Point>
  /** The reading process: what it has applied, its own cache, its flight, and a hit on its way to the cache. */
  readonly applied: Point
  readonly cached: number | null
  readonly flight: (Point & { readonly version: number | null }) | null
  readonly reply: (Point & { readonly version: number }) | null
  readonly writes: number
  readonly lookups: number
  readonly timeouts: number
  readonly losses: number
  readonly failovers: number
}

const told = ({ clock, epoch }: Point): string => `${epoch}:${clock}`
const start: Point = { epoch: 1, clock: 0 }
const later = (a: Point, b: Point): Point => a.epoch > b.epoch || (a.epoch === b.epoch && a.clock >= b.clock) ? a : b

export const tokens = (options: Options): Model<State> => {
  const { failovers = 0, lookups = 3, losses = 0, timeouts = 0, writes = 2 } = options

  const published = (state: State, point: Point): State => ({ ...state, messages: [...state.messages, point] })

  /** What a script does first: a store behind what its caller has seen begins an epoch. */
  const opened = (state: State, seen: Point): State => {
    const { store } = state
    if (!options.seenSent || later(store, seen) === store) return state
    const point = { epoch: seen.epoch + 1, clock: 0 }
    return published({ ...state, store: { ...store, ...point, stamp: null } }, point)
  }

  const invalidated = (state: State): State => {
    const opening = opened(state, state.seen)
    const { epoch, stamp } = opening.store
    const point = { epoch, clock: opening.store.clock + 1 }
    return published(
      { ...opening, store: { ...opening.store, ...point, stamp: stamp === null ? null : point.clock } },
      point
    )
  }

  const write = (state: State, step: Step<State>) => {
    if (state.writes === writes) return
    const version = state.database + 1
    const committed = { ...state, database: version, written: version, writes: state.writes + 1 }
    const after = invalidated(committed)
    const point: Point = { epoch: after.store.epoch, clock: after.store.clock }
    step(
      () => `the session writes v${version}, token ${told(point)}`,
      { ...after, token: point, seen: options.strangers ? start : later(point, state.seen) }
    )
    if (state.timeouts < timeouts) {
      step(() => `the session writes v${version}, INVALIDATE is lost`, {
        ...committed,
        token: options.undeliveredBypasses ? "bypass" : state.token,
        timeouts: state.timeouts + 1
      })
    }
  }

  const tooOld = "an answer is older than what the session wrote"

  const read = (state: State, step: Step<State>) => {
    const { applied, cached, flight, token, written } = state
    if (state.lookups === lookups || token === "bypass") return
    const asked = { ...state, lookups: state.lookups + 1 }
    const covers = (point: Point) =>
      token === null || (point.clock >= token.clock && (!options.epochJudged || point.epoch === token.epoch))
    if (cached !== null && (!options.cacheJudged || covers(applied))) {
      step(() => `the process answers v${cached}`, asked, cached < written && tooOld)
      return
    }
    if (flight !== null && flight.version !== null && (!options.flightJudged || covers(flight))) {
      const { version } = flight
      step(() => `the flight of lease ${told(flight)} answers v${version}`, asked, version! < written && tooOld)
      return
    }
    const seen = token === null ? applied : later(token, applied)
    const opening = opened(asked, seen)
    const { store } = opening
    const { clock, entry, epoch } = store
    if (entry !== null && entry.epoch === epoch && store.stamp !== null && store.stamp <= entry.clock) {
      step(
        () => `LOOKUP: hit v${entry.version} at ${told(store)}`,
        { ...opening, reply: opening.reply ?? { epoch, clock, version: entry.version } },
        entry.version < written && tooOld
      )
    } else if (flight === null) {
      step(() => `LOOKUP: miss, lease ${told(store)}`, {
        ...opening,
        store: { ...store, stamp: store.stamp ?? clock },
        flight: { epoch, clock, version: null }
      })
    }
  }

  const fly = (state: State, step: Step<State>) => {
    const { applied, flight, reply, store } = state
    if (flight !== null && flight.version === null) {
      step(() => `the flight reads v${state.database}`, { ...state, flight: { ...flight, version: state.database } })
    } else if (flight !== null) {
      const { clock, epoch } = flight
      const version = flight.version!
      const accepted = store.epoch === epoch && store.stamp !== null && store.stamp <= clock
      step(() => `STORE v${version}: ${accepted ? "accepted" : "refused"}`, {
        ...state,
        flight: null,
        store: accepted ? { ...store, entry: { epoch, clock, version } } : store,
        reply: accepted ? state.reply ?? { epoch, clock: store.clock, version } : state.reply
      })
    }
    if (reply !== null) {
      const fills = reply.epoch === applied.epoch && reply.clock >= applied.clock
      step(
        () => `v${reply.version} arrives, ${fills ? "fills" : "does not fill"}`,
        { ...state, reply: null, cached: fills ? reply.version : state.cached }
      )
    }
    const message = state.messages[0]
    if (message !== undefined) {
      step(
        () => `${told(message)} arrives`,
        { ...state, messages: state.messages.slice(1), applied: message, cached: null }
      )
    }
  }

  const disturb = (state: State, step: Step<State>) => {
    const { replica, store } = state
    if (state.losses < losses) {
      const point = { epoch: store.epoch + 1, clock: 0 }
      step(
        () => `the store loses its metadata: epoch ${point.epoch}`,
        published({ ...state, store: { ...store, ...point, stamp: null }, losses: state.losses + 1 }, point)
      )
    }
    if (state.failovers < failovers) {
      if (!same(replica, store)) {
        step(() => "the store replicates", { ...state, replica: store })
        const failed = { ...state, failovers: state.failovers + 1 }
        const point = { epoch: Math.max(store.epoch, replica.epoch) + 1, clock: 0 }
        step(
          () => `the store fails over to ${told(replica)}`,
          options.identity
            ? published({ ...failed, store: { ...replica, ...point, stamp: null } }, point)
            : { ...failed, store: replica }
        )
      }
    }
  }

  const empty: Store = { ...start, stamp: null, entry: null }
  return {
    initial: {
      store: empty,
      replica: empty,
      database: 0,
      written: 0,
      token: null,
      seen: start,
      messages: [],
      applied: start,
      cached: null,
      flight: null,
      reply: null,
      writes: 0,
      lookups: 0,
      timeouts: 0,
      losses: 0,
      failovers: 0
    },
    next(state, step) {
      write(state, step)
      read(state, step)
      fly(state, step)
      disturb(state, step)
    }
  }
}
