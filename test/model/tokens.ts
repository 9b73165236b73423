/**
 * A session that writes through one process and reads through another, which has a
 * cache of its own and hears of invalidations late. The session carries a token
 * from its write to its reads: epoch and clock of the invalidation.
 *
 * The shared store may lose its metadata (an epoch begins), and may fail over to a
 * lagging replica, without showing that it did if it is behind REST.
 *
 * With monotonic reads its answers raise the token as well: to the clock at which they
 * were valid.
 *
 * What is checked: no answer to the session is older than its own last write; and with
 * monotonic reads, none lacks a write whose invalidation an earlier answer reflects. (One
 * that is read from the database may be ahead of the clocks, by a write whose
 * invalidation is on its way. A later one may be behind it.)
 *
 * The guards are those of src/internal/session.ts and src/internal/sessions.ts:
 * `cacheJudged` is `mayPeek`, `flightJudged` is `find` in src/internal/flights.ts,
 * `replyJudged` is `claim` in src/internal/pilot.ts, `epochJudged` is `reflects` in
 * src/internal/places.ts, and `undeliveredBypasses` is `wrote`. That the store compares
 * clocks with what processes have seen is `open` and `rotate` in
 * src/internal/redis/scripts.ts. The token is not among what is seen: it comes from
 * outside, and whoever makes one up would begin an epoch.
 */
import { type Model, same, type Step } from "./checker.ts"

export interface Guards {
  /** The process' own cache answers only if it has applied what the token names. */
  readonly cacheJudged?: boolean
  /** Only flights are joined whose lease is not before the token. */
  readonly flightJudged?: boolean
  /** Clocks are compared within an epoch only. */
  readonly epochJudged?: boolean
  /** What the store answers is judged, too. */
  readonly replyJudged?: boolean
  /** Calls tell the store what their process has seen. */
  readonly seenSent?: boolean
  /** A write whose invalidation is undelivered hands out a token that bypasses. */
  readonly undeliveredBypasses?: boolean
  /** With monotonic reads: an answer raises the token. */
  readonly answersRaise?: boolean
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
  /** How often somebody else writes, in the writing process. */
  readonly others?: number
  /** How often the session reads in the writing process, which has no cache of its own. Its reads are to be monotonic. */
  readonly readsThere?: number
}

export const guarded: Required<Guards> = {
  cacheJudged: true,
  flightJudged: true,
  epochJudged: true,
  replyJudged: true,
  seenSent: true,
  undeliveredBypasses: true,
  answersRaise: true
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
  /** What was invalidated when, and up to which of it the session's answers have come. */
  readonly invalidated: ReadonlyArray<Point & { readonly version: number }>
  readonly reflected: number
  readonly messages: ReadonlyArray<Point>
  /** The reading process: what it has applied, its own cache, its flight, and a hit on its way to the cache. */
  readonly applied: Point
  readonly cached: number | null
  readonly flight: (Point & { readonly version: number | null }) | null
  readonly reply: (Point & { readonly version: number }) | null
  readonly writes: number
  readonly others: number
  readonly lookups: number
  readonly readsThere: number
  readonly timeouts: number
  readonly losses: number
  readonly failovers: number
}

const told = ({ clock, epoch }: Point): string => `${epoch}:${clock}`
const start: Point = { epoch: 1, clock: 0 }
const later = (a: Point, b: Point): Point => a.epoch > b.epoch || (a.epoch === b.epoch && a.clock >= b.clock) ? a : b

export const tokens = (options: Options): Model<State> => {
  const { failovers = 0, lookups = 3, losses = 0, others = 0, readsThere = 0, timeouts = 0, writes = 2 } = options
  const isMonotonic = readsThere > 0

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
    const { database: version } = state
    return published({
      ...opening,
      store: { ...opening.store, ...point, stamp: stamp === null ? null : point.clock },
      seen: options.strangers ? start : later(point, state.seen),
      ...(isMonotonic ? { invalidated: [...state.invalidated, { ...point, version }] } : {})
    }, point)
  }

  const write = (state: State, step: Step<State>) => {
    if (state.writes === writes) return
    const version = state.database + 1
    const committed = { ...state, database: version, written: version, writes: state.writes + 1 }
    const after = invalidated(committed)
    const point: Point = { epoch: after.store.epoch, clock: after.store.clock }
    step(
      () => `the session writes v${version}, token ${told(point)}`,
      { ...after, token: state.token === null || state.token === "bypass" ? point : later(point, state.token) }
    )
    if (state.timeouts < timeouts) {
      step(() => `the session writes v${version}, INVALIDATE is lost`, {
        ...committed,
        token: options.undeliveredBypasses ? "bypass" : state.token,
        timeouts: state.timeouts + 1
      })
    }
  }

  const writeElse = (state: State, step: Step<State>) => {
    if (state.others === others) return
    const version = state.database + 1
    const after = invalidated({ ...state, database: version, others: state.others + 1 })
    step(() => `somebody writes v${version}`, after)
  }

  const tooOld = "an answer is older than what the session wrote"
  const backwards = "an answer lacks what an earlier one reflects"

  /** The session is answered, by what was valid at a clock. */
  const answer = (what: () => string, state: State, at: Point, version: number, step: Step<State>) => {
    const { invalidated, reflected, token, written } = state
    const wrong = version < written ? tooOld : version < reflected && backwards
    if (!isMonotonic) return step(what, state, wrong)
    const reflects = invalidated.filter((each) => later(at, each) === at).map(({ version }) => version)
    const raised = options.answersRaise && token !== "bypass" ? token === null ? at : later(at, token) : token
    step(what, {
      ...state,
      token: raised === null || raised === "bypass" ? raised : { epoch: raised.epoch, clock: raised.clock },
      reflected: Math.max(reflected, ...reflects)
    }, wrong)
  }

  const read = (state: State, step: Step<State>) => {
    const { applied, cached, flight, token } = state
    if (state.lookups === lookups || token === "bypass") return
    const asked = { ...state, lookups: state.lookups + 1 }
    const covers = (point: Point) =>
      token === null || (options.epochJudged
        ? later(point, token) === point
        : point.clock >= token.clock)
    if (cached !== null && (!options.cacheJudged || covers(applied))) {
      answer(() => `the process answers v${cached}`, asked, applied, cached, step)
      return
    }
    if (flight !== null && flight.version !== null && (!options.flightJudged || covers(flight))) {
      const { version } = flight
      answer(() => `the flight of lease ${told(flight)} answers v${version}`, asked, flight, version!, step)
      return
    }
    const opening = opened(asked, applied)
    const { store } = opening
    const { clock, entry, epoch } = store
    const at = { epoch, clock }
    if (entry !== null && entry.epoch === epoch && store.stamp !== null && store.stamp <= entry.clock) {
      const { version } = entry
      if (options.replyJudged && !covers(store)) {
        step(() => `LOOKUP: hit v${version} at ${told(store)}, which is not taken`, opening)
      } else {
        answer(
          () => `LOOKUP: hit v${version} at ${told(store)}`,
          { ...opening, reply: opening.reply ?? { epoch, clock, version } },
          at,
          version,
          step
        )
      }
    } else if (flight === null) {
      step(() => `LOOKUP: miss, lease ${told(store)}`, {
        ...opening,
        store: { ...store, stamp: store.stamp ?? clock },
        flight: { epoch, clock, version: null }
      })
    }
  }

  const readThere = (state: State, step: Step<State>) => {
    if (state.readsThere === readsThere || state.token === "bypass") return
    const opening = opened({ ...state, readsThere: state.readsThere + 1 }, state.seen)
    const { clock, entry, epoch, stamp } = opening.store
    const isHit = entry !== null && entry.epoch === epoch && stamp !== null && stamp <= entry.clock
    const version = isHit ? entry.version : state.database
    answer(
      () => `there: ${isHit ? "hit" : "miss"} v${version} at ${told(opening.store)}`,
      opening,
      { epoch, clock },
      version,
      step
    )
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
      invalidated: [],
      reflected: 0,
      messages: [],
      applied: start,
      cached: null,
      flight: null,
      reply: null,
      writes: 0,
      others: 0,
      lookups: 0,
      readsThere: 0,
      timeouts: 0,
      losses: 0,
      failovers: 0
    },
    next(state, step) {
      write(state, step)
      writeElse(state, step)
      read(state, step)
      readThere(state, step)
      fly(state, step)
      disturb(state, step)
    }
  }
}
