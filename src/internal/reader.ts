/**
 * The read path: how a value is come by that a store may hold.
 *
 * What it is told of a value is in {@link Reading}: a statement's rows, and the
 * values of cached queries and resolvers, take the same way.
 *
 *     peek ─ fresh ──────────────────────────────▶ hit
 *       │ └─ stale, within staleWhileRevalidate ─▶ stale, and a refresh
 *       ▼
 *     flight (joined, or begun)
 *       ▼
 *     lookup ─ hit ──────────────────────────────▶ hit
 *       │    ├ stale ── to those who take it ────▶ stale; the flight goes on
 *       │    └ another process reads it ──▶ wait, lookup again
 *       ▼
 *     query ─ fails ── stale, within staleIfError ▶ stale
 *       │   │      └────────────────────────────▶ the failure
 *       │   └ too long ── as after a failure, or the hard time-out; the flight goes on
 *       ▼
 *     admitted? ─────────────────────────────────▶ miss; store, judged by the lease
 *
 * Whatever is stale was valid, but for its time, at the lookup right before it is
 * served: after a failure and after the soft time-out the store is asked again.
 *
 * A flight that was told to read a value owes its store a fill or a release, or
 * other processes wait for it in vain. So nothing of it is interruptible but the
 * query and the waiting.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { LazyArg } from "effect/Function"
import * as Random from "effect/Random"
import type { CacheError } from "../CacheError.ts"
import type * as CachePolicy from "../CachePolicy.ts"
import type * as CacheStore from "../CacheStore.ts"
import type * as Dependency from "../Dependency.ts"
import type { Flight, Flights, Takes } from "./flights.ts"
import type { Habits } from "./habits.ts"
import type { StoreHealth } from "./storeHealth.ts"
import type { FillOutcome, Tally } from "./tally.ts"

/** What a policy says of the read path. */
export type Terms = Pick<
  CachePolicy.Complete,
  | "timeToLiveMillis"
  | "staleWhileRevalidateMillis"
  | "staleIfErrorMillis"
  | "softTimeoutMillis"
  | "hardTimeoutMillis"
  | "refreshAhead"
  | "jitter"
  | "maxEntryBytes"
  | "maxFormBytes"
  | "adaptive"
>

/** One read. */
export interface Reading<A, E> {
  readonly key: CacheStore.CacheKey
  /** The basis of its dependencies, which are made when they are needed. */
  readonly basis: string
  readonly dependencies: LazyArg<Dependency.DependencySet>
  readonly terms: Terms
  readonly habits: Habits
  /** What stands for it in a log: never a parameter. */
  readonly label: LazyArg<string>
  readonly query: Effect.Effect<A, E>
  /** What a caller gets when the hard time-out has passed. */
  readonly timedOut: Effect.Effect<never, E>
  readonly admit: (value: A) => Admission
  /** Whether a value of the store is one of its kind. */
  readonly holds: (stored: unknown) => boolean
}

/** What is offered to the store of a value, and why nothing is. */
export interface Admission {
  readonly stored: unknown
  /** About how much memory it takes. */
  readonly bytes: number
  readonly refusal: FillOutcome | undefined
  /** Where the value has a time to live of its own. */
  readonly timeToLiveMillis?: number | undefined
}

/** A value, and how it was come by. */
export interface Answer<A> {
  readonly status: "hit" | "stale" | "miss" | "joined"
  readonly level: "L1" | "L2" | undefined
  readonly ageMillis: number
  readonly reason: string | undefined
  /** As the store has it. `undefined` where it cannot. */
  readonly stored: unknown
  /** As the query gave it: for one caller, once. */
  readonly take: () => A | undefined
}

/** What a flight brings home. */
type Landing<A> =
  | { readonly _tag: "Kept"; readonly kept: CacheStore.Kept; readonly atMillis: number; readonly reason: string }
  | { readonly _tag: "Read"; readonly stored: unknown; value: A | undefined; readonly reason: string }

export interface ReaderOptions {
  readonly store: CacheStore.CacheStore["Service"]
  readonly flights: Flights
  readonly health: StoreHealth
  readonly tally: Tally
  readonly lookupTimeoutMillis: number
}

/** The right to read a value, and why it has to be read. */
interface Claim {
  readonly lease: CacheStore.Lease | undefined
  readonly reason: string
}

// How long a stale value is waited for that another process reads anew, where its store does not say.
const longestWaitMillis = 5_000

// How often another process is asked after: soon at first, since most queries are quick.
const firstPauseMillis = 4
const longestPauseMillis = 64

// After a refresh has failed, the next one waits so long.
const restMillis = 1_000

export class Reader {
  private readonly options: ReaderOptions

  constructor(options: ReaderOptions) {
    this.options = options
  }

  /** The value that this process may serve at once, which {@link isFresh} or not. Counted. */
  peek(
    key: CacheStore.CacheKey,
    basis: string,
    terms: Terms,
    nowMillis: number
  ): CacheStore.Kept | undefined {
    const { store, tally } = this.options
    const kept = store.peek(key, nowMillis)
    if (kept === undefined || kept.dependencies?.basis !== basis) return undefined
    if (isFresh(kept, terms, nowMillis)) {
      tally.hitL1()
      return kept
    }
    if (!(lateness(kept, terms, nowMillis) < terms.staleWhileRevalidateMillis)) return undefined
    tally.looked("stale")
    return kept
  }

  /** Begins to read a value anew that {@link peek} gave, if it is time to. */
  freshen<A, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    reading: Reading<A, E>,
    kept: CacheStore.Kept,
    nowMillis: number
  ): void {
    if (isFresh(kept, reading.terms, nowMillis) && !isAhead(fiber, kept, reading.terms, nowMillis)) return
    this.refresh(fiber, reading, nowMillis - kept.storedAtMillis)
  }

  /** The value from the store or, on a miss, from the query. Fails only as the query fails. */
  fetch<A, E>(reading: Reading<A, E>): Effect.Effect<Answer<A>, E> {
    return Effect.withFiber((fiber) => {
      const running: Flight<Landing<A>, E> | undefined = this.options.flights.find(reading.key, reading.basis)
      if (running === undefined) return this.answer(reading, this.begin(fiber, reading), false)
      // What the flight has found stale was valid when it looked. Whoever takes such a value looks again.
      return running.stale !== undefined && reading.terms.staleWhileRevalidateMillis > 0
        ? Effect.flatMap(
          this.lookAgain(reading, reading.terms.staleWhileRevalidateMillis),
          (landing) =>
            landing === undefined ? this.answer(reading, running, true) : this.arrive(reading, landing, false)
        )
        : this.answer(reading, running, true)
    })
  }

  /**
   * Several values, looked up in one round trip. Each is handed over as soon as it is there; the effect ends when all
   * are. Keys must be of one namespace, and differ.
   */
  fetchMany<A, E>(
    readings: ReadonlyArray<Reading<A, E>>,
    each: (index: number, exit: Exit.Exit<Answer<A>, E>) => void
  ): Effect.Effect<void> {
    const { flights, health, lookupTimeoutMillis, store } = this.options
    return Effect.withFiber((fiber) => {
      const nowMillis = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
      const waits: Array<Effect.Effect<void>> = []
      const wait = (index: number, answer: Effect.Effect<Answer<A>, E>) =>
        waits.push(Effect.map(Effect.exit(answer), (exit) => each(index, exit)))
      const absent: Array<number> = []
      readings.forEach((reading, index) => {
        if (flights.find(reading.key, reading.basis) !== undefined || reading.habits.isPaused(nowMillis)) {
          wait(index, this.fetch(reading))
        } else absent.push(index)
      })
      const requests = absent.map((index): CacheStore.LookupRequest => {
        const { dependencies, key, terms } = readings[index]
        return { key, dependencies: dependencies(), maxAgeMillis: terms.timeToLiveMillis }
      })
      // From the outcomes, which may oblige to read, to the flights nothing may come between.
      return Effect.uninterruptibleMask((restore) =>
        Effect.gen({ self: this }, function*() {
          const outcomes = requests.length === 0 ? undefined : yield* Effect.exit(
            health.guard("lookup", () => store.lookupMany(requests), lookupTimeoutMillis)
          )
          const now = yield* Clock.currentTimeMillis
          absent.forEach((index, i) => {
            const reading = readings[index]
            const found: Exit.Exit<CacheStore.Outcome, CacheError> = Exit.map(outcomes!, (all) => all[i])
            if (Exit.isSuccess(found) && found.value._tag === "Hit" && reading.holds(found.value.value)) {
              each(index, Exit.succeed(this.counted(reading, hitOf(found.value, now), false)))
            } else {
              // Not joined: whoever was told to read must do so, and whoever was not finds that out.
              wait(index, this.answer(reading, this.begin(fiber, reading, found), false))
            }
          })
          yield* restore(Effect.all(waits, { concurrency: "unbounded", discard: true }))
        })
      )
    })
  }

  /**
   * Reads a value whatever the store has, and stores it. It joins nobody, and nobody joins it: what it stores was read
   * after it was called.
   */
  reload<A, E>(reading: Reading<A, E>): Effect.Effect<{ readonly value: A; readonly verdict: FillOutcome }, E> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function*() {
        const found = yield* Effect.exit(this.lookup(reading, 0))
        const lease = Exit.isSuccess(found) ? found.value.lease : undefined
        const { costMillis, exit } = yield* measured(restore(reading.query))
        if (Exit.isFailure(exit)) {
          yield* this.release(reading, lease)
          return yield* Effect.failCause(exit.cause)
        }
        const admission = this.admit(reading, exit.value)
        if (admission.refusal === undefined && lease !== undefined) {
          const verdict = yield* this.fill(reading, reading.dependencies(), admission, costMillis, lease)
          return { value: exit.value, verdict }
        }
        yield* this.release(reading, lease)
        return { value: exit.value, verdict: admission.refusal ?? "failed" }
      })
    )
  }

  private begin<A, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    reading: Reading<A, E>,
    found?: Exit.Exit<CacheStore.Outcome, CacheError>
  ): Flight<Landing<A>, E> {
    return this.options.flights.begin(
      fiber,
      reading.key,
      reading.dependencies(),
      (flight) => this.fly(reading, flight, { maxAgeMillis: reading.terms.timeToLiveMillis, found })
    )
  }

  private refresh<A, E>(fiber: Fiber.Fiber<unknown, unknown>, reading: Reading<A, E>, ageMillis: number): void {
    const begun = this.options.flights.refresh<Landing<A>, E>(
      fiber,
      reading.key,
      reading.dependencies,
      (flight) =>
        Effect.flatMap(
          this.fly(reading, flight, { maxAgeMillis: ageMillis }),
          () => {
            const exit = flight.exit!
            const hasFailed = Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)
            this.options.tally.refreshed(Exit.isSuccess(exit) ? "done" : hasFailed ? "failed" : "left")
            // The next hit would begin another one at once.
            return hasFailed ? Effect.sleep(Duration.millis(restMillis)) : Effect.void
          }
        )
    )
    if (begun === "too many") this.options.tally.refreshed("too-many")
  }

  // ---------------------------------------------------------------------------
  // what a caller waits for
  // ---------------------------------------------------------------------------

  private answer<A, E>(
    reading: Reading<A, E>,
    flight: Flight<Landing<A>, E>,
    joined: boolean
  ): Effect.Effect<Answer<A>, E> {
    const { hardTimeoutMillis, softTimeoutMillis } = reading.terms
    const landed = flight.await(takesOf(reading.terms), !joined)
    return Effect.flatMap(
      softTimeoutMillis === Infinity && hardTimeoutMillis === Infinity
        ? landed
        : Effect.raceFirst(landed, this.impatient(reading, flight)),
      (landing) => this.arrive(reading, landing, joined)
    )
  }

  /** What a caller gets who waits no longer. The flight goes on without it. */
  private impatient<A, E>(reading: Reading<A, E>, flight: Flight<Landing<A>, E>): Effect.Effect<Landing<A>, E> {
    const { hardTimeoutMillis, softTimeoutMillis } = reading.terms
    const leave = Effect.sync(() => {
      flight.goesOn = true
    })
    const soft = Math.min(softTimeoutMillis, hardTimeoutMillis)
    return Effect.gen({ self: this }, function*() {
      yield* Effect.sleep(Duration.millis(soft))
      const stale = flight.stale === undefined ? undefined : yield* this.lookAgain(reading, longestStale(reading.terms))
      if (stale !== undefined) {
        yield* leave
        return stale
      }
      if (hardTimeoutMillis === Infinity) return yield* Effect.never
      yield* Effect.sleep(Duration.millis(hardTimeoutMillis - soft))
      yield* leave
      return yield* reading.timedOut
    })
  }

  /** What the store has that is late by less than so much. */
  private lookAgain<A, E>(
    reading: Reading<A, E>,
    withinMillis: number
  ): Effect.Effect<Landing<A> | undefined> {
    return Effect.gen({ self: this }, function*() {
      const found = yield* Effect.exit(this.lookup(reading, reading.terms.timeToLiveMillis))
      const now = yield* Clock.currentTimeMillis
      if (Exit.isFailure(found)) return undefined
      const outcome = found.value
      if (outcome._tag === "Hit" && reading.holds(outcome.value)) return hitOf(outcome, now)
      if (outcome._tag === "Stale" && reading.holds(outcome.value)) {
        if (!outcome.waiting) yield* this.release(reading, outcome.lease)
        if (lateness(outcome, reading.terms, now) < withinMillis) return staleOf(outcome, now)
      } else if (outcome._tag === "Miss") {
        yield* this.release(reading, outcome.lease)
      }
      return undefined
    })
  }

  private arrive<A, E>(reading: Reading<A, E>, landing: Landing<A>, joined: boolean): Effect.Effect<Answer<A>, E> {
    // Young enough for whose flight it was. Nobody joins that one any more.
    return joined && landing._tag === "Kept" && landing.reason === "" &&
        !isFresh(landing.kept, reading.terms, landing.atMillis)
      ? this.fetch(reading)
      : Effect.map(this.hint(reading, landing, joined), () => this.counted(reading, landing, joined))
  }

  private counted<A, E>(reading: Reading<A, E>, landing: Landing<A>, joined: boolean): Answer<A> {
    const { tally } = this.options
    if (landing._tag === "Read") {
      const status = joined ? "joined" : "miss"
      tally.looked(status)
      return {
        status,
        level: undefined,
        ageMillis: 0,
        reason: landing.reason,
        stored: landing.stored,
        take: () => {
          const { value } = landing
          landing.value = undefined
          return value
        }
      }
    }
    const { kept } = landing
    const isHit = landing.reason === ""
    reading.habits.hits++
    if (!isHit) tally.looked("stale")
    else if (kept.level === "L2") tally.hitL2()
    else tally.hitL1()
    return {
      status: isHit ? "hit" : "stale",
      level: kept.level,
      ageMillis: landing.atMillis - kept.storedAtMillis,
      reason: isHit ? undefined : landing.reason,
      stored: kept.value,
      take: () => undefined
    }
  }

  private hint<A, E>(reading: Reading<A, E>, landing: Landing<A>, joined: boolean): Effect.Effect<void> {
    if (joined || landing._tag === "Kept" || landing.reason === "paused") return Effect.void
    return Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const hint = reading.habits.missed(landing.reason, reading.terms.adaptive === true, now)
      if (hint === undefined) return Effect.void
      this.options.tally.hinted(hint)
      return Effect.logInfo(`Caching hardly pays (${hint}): ${reading.label()}`)
    })
  }

  // ---------------------------------------------------------------------------
  // what a flight does
  // ---------------------------------------------------------------------------

  private fly<A, E>(
    reading: Reading<A, E>,
    flight: Flight<Landing<A>, E>,
    options: {
      readonly maxAgeMillis: number
      /** What the first lookup has found, if it was made already. */
      readonly found?: Exit.Exit<CacheStore.Outcome, CacheError> | undefined
    }
  ): Effect.Effect<void> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function*() {
        const claim = yield* this.claim(reading, flight, options, restore)
        if (claim === undefined) return
        const { lease, reason } = claim
        const { costMillis, exit } = yield* measured(restore(reading.query))
        if (Exit.isFailure(exit)) {
          const stale = flight.stale !== undefined && Cause.hasFails(exit.cause) && !Cause.hasInterrupts(exit.cause)
            ? yield* this.lookAgain(reading, reading.terms.staleIfErrorMillis)
            : undefined
          flight.settle(Exit.failCause(exit.cause), { stale })
          return yield* this.release(reading, lease)
        }
        // Before a caller may change the value.
        const admission = this.admit(reading, exit.value)
        const { refusal, stored } = admission
        const landing: Landing<A> = { _tag: "Read", stored, value: exit.value, reason }
        if (refusal !== undefined || lease === undefined) {
          // What is not to be stored is not for those who come later either.
          flight.settle(Exit.succeed(landing))
          yield* this.release(reading, lease)
          return
        }
        const filling = this.fill(reading, flight.dependencies, admission, costMillis, lease)
        // A store in this process has judged by the time it returns; nobody waits for any other.
        if (!this.options.store.shared) yield* filling
        flight.settle(Exit.succeed(landing), { joinable: this.options.store.shared })
        if (this.options.store.shared) yield* filling
      })
    )
  }

  /** Asks the store, and waits for other processes, until the value is there or has to be read. */
  private claim<A, E>(
    reading: Reading<A, E>,
    flight: Flight<Landing<A>, E>,
    options: {
      readonly maxAgeMillis: number
      readonly found?: Exit.Exit<CacheStore.Outcome, CacheError> | undefined
    },
    restore: <B, E2, R>(effect: Effect.Effect<B, E2, R>) => Effect.Effect<B, E2, R>
  ): Effect.Effect<Claim | undefined> {
    return Effect.gen({ self: this }, function*() {
      const { basis, habits, key } = reading
      let { found, maxAgeMillis } = options
      let untilMillis: number | undefined
      let pauseMillis = firstPauseMillis
      for (;;) {
        let now = yield* Clock.currentTimeMillis
        if (habits.isPaused(now)) return { lease: undefined, reason: "paused" }
        found ??= yield* Effect.exit(this.lookup(reading, maxAgeMillis))
        now = yield* Clock.currentTimeMillis
        if (Exit.isFailure(found)) return { lease: undefined, reason: "store-failed" }
        const outcome = found.value
        found = undefined
        if (outcome._tag === "Hit") {
          if (reading.holds(outcome.value)) {
            flight.settle(Exit.succeed(hitOf(outcome, now)))
            yield* this.refreshAhead(reading, outcome, now)
            return undefined
          }
          // Another kind of value under the same key: it counts as one that is too old.
          maxAgeMillis = 0
          continue
        }
        if (outcome._tag === "Stale" && reading.holds(outcome.value)) flight.offer(staleOf(outcome, now))
        const reason = outcome._tag === "Miss" ? outcome.reason : outcome._tag === "Stale" ? "expired" : "waited"
        const refresh = this.options.flights.refreshing(key, basis)
        const waitsForRefresh = refresh !== undefined && refresh !== flight && outcome.lease.flight === undefined
        const mustWait = waitsForRefresh || outcome._tag === "Wait" || (outcome._tag === "Stale" && outcome.waiting)
        if (!mustWait) return { lease: outcome.lease, reason }
        // Somebody else reads it, and nobody here waits for it.
        if (flight.goesOn && !flight.isAwaited) {
          flight.settle(Exit.interrupt())
          return undefined
        }
        untilMillis ??= now + (outcome._tag === "Wait" ? outcome.remainingMillis : longestWaitMillis)
        if (now >= untilMillis) return { lease: outcome.lease, reason }
        const pause = Effect.sleep(Duration.millis(Math.min(pauseMillis, untilMillis - now)))
        const interrupted = yield* Effect.exit(restore(
          waitsForRefresh ? Effect.asVoid(Effect.exit(refresh.await())) : pause
        ))
        if (Exit.isFailure(interrupted)) {
          flight.settle(Exit.interrupt())
          return undefined
        }
        pauseMillis = Math.min(pauseMillis * 2, longestPauseMillis)
      }
    })
  }

  private refreshAhead<A, E>(
    reading: Reading<A, E>,
    kept: CacheStore.Kept,
    nowMillis: number
  ): Effect.Effect<void> {
    return reading.terms.refreshAhead === 0
      ? Effect.void
      : Effect.withFiber((fiber) => Effect.sync(() => this.freshen(fiber, reading, kept, nowMillis)))
  }

  private lookup<A, E>(
    { dependencies, key }: Reading<A, E>,
    maxAgeMillis: number
  ): Effect.Effect<CacheStore.Outcome, CacheError> {
    const { health, lookupTimeoutMillis, store } = this.options
    return health.guard("lookup", () => store.lookup(key, dependencies(), maxAgeMillis), lookupTimeoutMillis)
  }

  /** Lets other processes read what this one does not fill. Nobody here waits for it. */
  private release<A, E>({ key }: Reading<A, E>, lease: CacheStore.Lease | undefined): Effect.Effect<void> {
    const { health, lookupTimeoutMillis, store } = this.options
    return lease?.flight === undefined
      ? Effect.void
      : Effect.ignore(health.guard("release", () => store.release(key, lease), lookupTimeoutMillis))
  }

  private admit<A, E>({ admit, terms }: Reading<A, E>, value: A): Admission {
    const admission = admit(value)
    const isTooLarge = admission.bytes > Math.min(terms.maxEntryBytes, terms.maxFormBytes ?? Infinity)
    const refusal = admission.refusal ?? (isTooLarge ? "too-large" : undefined)
    if (refusal === undefined) return admission
    this.options.tally.filled(refusal, admission.bytes)
    return { ...admission, refusal }
  }

  private fill<A, E>(
    { key, terms }: Reading<A, E>,
    dependencies: Dependency.DependencySet,
    { bytes, stored, timeToLiveMillis = terms.timeToLiveMillis }: Admission,
    costMillis: number,
    lease: CacheStore.Lease
  ): Effect.Effect<FillOutcome> {
    const { health, lookupTimeoutMillis, store, tally } = this.options
    return Effect.gen(function*() {
      const random = terms.jitter === 0 ? 0 : yield* Random.next
      const entry: CacheStore.Entry = {
        value: stored,
        dependencies,
        timeToLiveMillis: timeToLiveMillis * (1 - terms.jitter * random),
        retainMillis: longestStale(terms),
        costMillis,
        bytes: bytes + bytesOf(key),
        maxSpaceBytes: terms.maxFormBytes
      }
      const verdict = yield* Effect.exit(
        health.guard("store", () => store.store(key, entry, lease), lookupTimeoutMillis)
      )
      const outcome = Exit.isSuccess(verdict) ? verdict.value : "failed"
      tally.filled(outcome, bytes)
      return outcome
    })
  }
}

const hitOf = (kept: CacheStore.Kept, atMillis: number): Landing<any> => ({ _tag: "Kept", kept, atMillis, reason: "" })

const staleOf = (kept: CacheStore.Kept, atMillis: number): Landing<any> => ({
  _tag: "Kept",
  kept,
  atMillis,
  reason: "expired"
})

/** Whether a value may be served without a word. */
export const isFresh = (kept: CacheStore.Kept, terms: Terms, nowMillis: number): boolean => {
  const ageMillis = nowMillis - kept.storedAtMillis
  // A value from the future was stored before somebody set the clock back: nobody knows how old it is.
  return ageMillis >= 0 && ageMillis < terms.timeToLiveMillis && nowMillis < kept.expiresAtMillis
}

/** For how long a value has been stale, by its own time to live and by the caller's. `NaN` where nobody knows. */
const lateness = (kept: CacheStore.Kept, terms: Terms, nowMillis: number): number =>
  nowMillis < kept.storedAtMillis
    ? NaN
    : nowMillis - Math.min(kept.expiresAtMillis, kept.storedAtMillis + terms.timeToLiveMillis)

const longestStale = (terms: Terms): number => Math.max(terms.staleWhileRevalidateMillis, terms.staleIfErrorMillis)

const takesOf = (terms: Terms): Takes<Landing<any>> => {
  const within = (landing: Landing<any>, millis: number) =>
    landing._tag === "Kept" && lateness(landing.kept, terms, landing.atMillis) < millis
  return {
    stale: (landing) => within(landing, terms.staleWhileRevalidateMillis),
    insteadOfError: (landing) => within(landing, terms.staleIfErrorMillis)
  }
}

/** XFetch: whether a value is read anew before its time. The nearer its end, and the dearer it was, the likelier. */
const isAhead = (
  fiber: Fiber.Fiber<unknown, unknown>,
  { costMillis, expiresAtMillis }: CacheStore.Kept,
  { refreshAhead }: Terms,
  nowMillis: number
): boolean =>
  refreshAhead > 0 &&
  nowMillis - costMillis * refreshAhead * Math.log(1 - fiber.getRef(Random.Random).nextDoubleUnsafe()) >=
    expiresAtMillis

const measured = <A, E>(
  effect: Effect.Effect<A, E>
): Effect.Effect<{ readonly exit: Exit.Exit<A, E>; readonly costMillis: number }> =>
  Effect.flatMap(Clock.Clock, (clock) => {
    const begun = clock.currentTimeNanosUnsafe()
    return Effect.map(Effect.exit(effect), (exit) => ({
      exit,
      costMillis: Number(clock.currentTimeNanosUnsafe() - begun) / 1e6
    }))
  })

/** What a key takes of a store in this process: parameters may be larger than the rows, and so may a generated text. */
const bytesOf = ({ local, space }: CacheStore.CacheKey): number =>
  (typeof local === "string" ? local.length * 2 : 8) + (space.length > generatedLength ? space.length * 2 : 0)

// A text that somebody has written is shorter, and shared by many entries.
const generatedLength = 16_384
