/**
 * The read path: how a caller comes by a value that a store may hold.
 *
 * What it is told of a value is in `Reading`: a statement's rows, and the values of
 * cached queries and resolvers, take the same way.
 *
 *     peek ─ fresh ──────────────────────────────▶ hit
 *       │ └─ stale, within staleWhileRevalidate ─▶ stale, and a refresh
 *       ▼
 *     flight, joined or begun (pilot.ts)
 *       ├ the store has it ──────────────────────▶ hit
 *       ├ the store has it stale, and it is taken ▶ stale; the flight goes on
 *       ├ the query gives it ────────────────────▶ miss, joined
 *       ├ the query fails ── within staleIfError ▶ stale, else the failure
 *       └ too long ── as after a failure, or the hard time-out; the flight goes on
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { CacheError } from "../CacheError.ts"
import type * as CacheStore from "../CacheStore.ts"
import type { Flight, Seat } from "./flights.ts"
import { type Departure, foundOf, isHeld, longestPauseMillis, Pilot, type PilotOptions } from "./pilot.ts"
import {
  type Answer,
  answers,
  type Found,
  isAhead,
  isFresh,
  isPaused,
  isWithin,
  type Landing,
  lateness,
  longestStale,
  type Read,
  type Reading,
  takesLate,
  takesOf,
  type Terms
} from "./reading.ts"
import type { FillOutcome } from "./tally.ts"

// After a refresh has failed, the next one waits so long.
const restMillis = 1_000

export class Reader {
  private readonly options: PilotOptions
  private readonly pilot: Pilot

  constructor(options: PilotOptions) {
    this.options = options
    this.pilot = new Pilot(options)
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
    const late = lateness(kept, terms, nowMillis)
    if (late < 0) {
      tally.hitL1()
      return kept
    }
    if (!(late < terms.staleWhileRevalidateMillis)) return undefined
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
    const { terms } = reading
    if (isFresh(kept, terms, nowMillis) && !isAhead(fiber, kept, terms, nowMillis)) return
    this.refresh(fiber, reading, nowMillis - kept.storedAtMillis)
  }

  /** Begins to read a value anew that is so old, or older. Nobody waits for it. */
  refresh<A, E>(fiber: Fiber.Fiber<unknown, unknown>, reading: Reading<A, E>, maxAgeMillis: number): void {
    const nowMillis = nowOf(fiber)
    // What would not be stored need not be read.
    if (isPaused(reading, nowMillis)) return
    const { dependencies, key } = reading
    const { flights, tally } = this.options
    const departure = { maxAgeMillis }
    const begun = flights.refresh<Landing<A>, E>(
      fiber,
      key,
      reading.basis,
      dependencies,
      nowMillis,
      (flight) => this.fly(reading, flight, departure)
    )
    if (begun === "too many") tally.refreshed("too-many")
  }

  /** The value from the store or, on a miss, from the query. Fails only as the query fails. */
  fetch<A, E>(reading: Reading<A, E>, arrival?: number): Effect.Effect<Answer<A>, E> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.withFiber((fiber) => {
        const { terms } = reading
        const { flights, store } = this.options
        const now = nowOf(fiber)
        const arrived = arrival ?? flights.begun
        let running: Flight<Landing<A>, E> | undefined = this.find(reading, now)
        if (running?.exit !== undefined) {
          // Its value is there, and the store has yet to say whether it is valid still.
          if (store.strict === undefined) return Effect.andThen(restore(running.ended), this.fetch(reading))
          running = undefined
        }
        // What another process has written since a flight began it may have missed. Where that counts it is waited for,
        // so that not everybody asks the database, but what it brings is not taken.
        const isCurrent = store.strict === undefined || running === undefined || running.number > arrived
        const seat = running === undefined ? this.begin(fiber, reading, now) : running.seat(takesOf(reading))
        const answer = this.wait(reading, seat, running !== undefined, isCurrent ? undefined : arrived)
        return Effect.onExit(
          restore(
            // What the flight has found stale was valid when it looked. Whoever takes such a value looks again.
            running?.stale !== undefined && terms.staleWhileRevalidateMillis > 0
              ? Effect.flatMap(this.pilot.lookAgain(reading), (found) => {
                if (found === undefined || !isWithin(found, terms, terms.staleWhileRevalidateMillis)) return answer
                seat.leaveBehind()
                return this.arrive(reading, found, true, undefined)
              })
              : answer
          ),
          () => seat.leave
        )
      })
    )
  }

  /**
   * Several values, looked up in one round trip. Each is handed over as soon as it is there; the effect ends when all
   * are. Keys must be of one namespace, and differ.
   */
  fetchMany<A, E>(
    readings: ReadonlyArray<Reading<A, E>>,
    each: (index: number, exit: Exit.Exit<Answer<A>, E>) => void
  ): Effect.Effect<void> {
    // From the outcomes, which may oblige to read, to the flights nothing may come between.
    return Effect.uninterruptibleMask((restore) =>
      Effect.withFiber((fiber) => {
        const now = nowOf(fiber)
        const waits: Array<Effect.Effect<void>> = []
        const wait = (index: number, answer: Effect.Effect<Answer<A>, E>) =>
          waits.push(Effect.map(Effect.exit(answer), (exit) => each(index, exit)))
        const absent: Array<number> = []
        readings.forEach((reading, index) => {
          if (this.find(reading, now) !== undefined || isPaused(reading, now)) {
            wait(index, this.fetch(reading))
          } else absent.push(index)
        })
        const requests = absent.map((index): CacheStore.LookupRequest => {
          const { dependencies, key, point, terms } = readings[index]
          return {
            key,
            dependencies: dependencies(),
            maxAgeMillis: terms.timeToLiveMillis,
            since: point?.reflects
          }
        })
        const seats: Array<Seat<Landing<A>, E>> = []
        const looked = requests.length === 0
          ? Effect.succeed(Exit.succeed([]))
          : this.pilot.lookupMany(requests, restore)
        return Effect.flatMap(looked, (outcomes: Exit.Exit<ReadonlyArray<CacheStore.Outcome>, CacheError>) => {
          if (Exit.isFailure(outcomes) && Cause.hasInterrupts(outcomes.cause)) return Effect.interrupt
          const now = nowOf(fiber)
          absent.forEach((index, i) => {
            const reading = readings[index]
            const found = Exit.map(outcomes, (all) => all[i])
            if (
              Exit.isSuccess(found) && found.value._tag === "Hit" && isHeld(reading, found.value) &&
              answers(reading, found.value.lease)
            ) {
              if (this.options.audits.isDue()) this.options.audits.take(fiber, reading, found.value, now)
              each(index, Exit.succeed(this.counted(reading, foundOf(found.value, now, true), false)))
              this.freshen(fiber, reading, found.value, now)
            } else {
              // Not joined: whoever was told to read must do so, and whoever was not finds that out.
              const seat = this.begin(fiber, reading, now, found)
              seats.push(seat)
              wait(index, this.wait(reading, seat, false, undefined))
            }
          })
          return Effect.onExit(
            restore(Effect.all(waits, { concurrency: "unbounded", discard: true })),
            () => Effect.all(seats.map((seat) => seat.leave), { concurrency: "unbounded", discard: true })
          )
        })
      })
    )
  }

  /**
   * Reads a value whatever the store has, and stores it. It joins nobody, and nobody joins it: what it stores was read
   * after it was called.
   */
  reload<A, E>(reading: Reading<A, E>): Effect.Effect<{ readonly value: A; readonly verdict: FillOutcome }, E> {
    return this.pilot.reload(reading)
  }

  /** The flight that a reading may join. */
  private find<A, E>({ basis, key, point }: Reading<A, E>, nowMillis: number): Flight<any, any> | undefined {
    return this.options.flights.find(key, basis, nowMillis, point?.reflects)
  }

  /** What is served of a value now, without a word: to be compared, not to be served. */
  look<A, E>(reading: Reading<A, E>): Effect.Effect<CacheStore.Kept | undefined> {
    return Effect.withFiber((fiber) => {
      const now = nowOf(fiber)
      const kept = this.options.store.peek(reading.key, now)
      if (kept !== undefined && kept.dependencies?.basis === reading.basis && isFresh(kept, reading.terms, now)) {
        return Effect.succeed(kept)
      }
      return Effect.map(
        this.pilot.lookAgain(reading),
        (found) => found !== undefined && isFresh(found.kept, reading.terms, found.atMillis) ? found.kept : undefined
      )
    })
  }

  /** The services of a fiber that what runs apart from it may have. */
  servicesOf(fiber: Fiber.Fiber<unknown, unknown>): Context.Context<never> {
    return this.options.flights.servicesOf(fiber)
  }

  private begin<A, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    reading: Reading<A, E>,
    nowMillis: number,
    found?: Exit.Exit<CacheStore.Outcome, CacheError>
  ): Seat<Landing<A>, E> {
    const { dependencies, key, terms } = reading
    const departure = { maxAgeMillis: terms.timeToLiveMillis, found }
    return this.options.flights.begin<Landing<A>, E>(
      fiber,
      key,
      dependencies(),
      nowMillis,
      takesOf(reading),
      (flight) => this.fly(reading, flight, departure)
    )
  }

  private fly<A, E>(
    reading: Reading<A, E>,
    flight: Flight<Landing<A>, E>,
    departure: Departure
  ): Effect.Effect<void> {
    return Effect.flatMap(this.pilot.fly(reading, flight, departure), () => {
      const exit = flight.exit!
      if (!flight.isRefresh) {
        return Exit.isSuccess(exit) && exit.value._tag === "Found" && reading.terms.refreshAhead > 0
          ? this.freshenLater(reading, exit.value.kept, exit.value.atMillis)
          : Effect.void
      }
      const outcome = Exit.isSuccess(exit) ? "done" : Cause.hasInterruptsOnly(exit.cause) ? "left" : "failed"
      this.options.tally.refreshed(outcome)
      // The next one who is served something stale would begin another refresh at once.
      return outcome === "done"
        ? Effect.void
        : Effect.sleep(Duration.millis(outcome === "failed" ? restMillis : longestPauseMillis))
    })
  }

  private freshenLater<A, E>(reading: Reading<A, E>, kept: CacheStore.Kept, nowMillis: number): Effect.Effect<void> {
    return Effect.withFiber((fiber) => Effect.sync(() => this.freshen(fiber, reading, kept, nowMillis)))
  }

  // ---------------------------------------------------------------------------
  // what a caller waits for
  // ---------------------------------------------------------------------------

  /** Whoever runs it sees to it that the seat is left. */
  private wait<A, E>(
    reading: Reading<A, E>,
    seat: Seat<Landing<A>, E>,
    joined: boolean,
    arrivedLate: number | undefined
  ): Effect.Effect<Answer<A>, E> {
    const { hardTimeoutMillis, softTimeoutMillis } = reading.terms
    const served = Effect.map(seat.served, (landing) => ({ landing, late: arrivedLate }))
    return Effect.flatMap(
      softTimeoutMillis === Infinity && hardTimeoutMillis === Infinity
        ? served
        // What is looked up for want of patience is as of now.
        : Effect.raceFirst(
          served,
          Effect.map(this.impatient(reading, seat), (landing) => ({ landing, late: undefined }))
        ),
      ({ landing, late }) => this.arrive(reading, landing, joined, late)
    )
  }

  /** What a caller gets who waits no longer. The flight goes on without it. */
  private impatient<A, E>(reading: Reading<A, E>, seat: Seat<Landing<A>, E>): Effect.Effect<Landing<A>, E> {
    const { hardTimeoutMillis, softTimeoutMillis } = reading.terms
    const softMillis = Math.min(softTimeoutMillis, hardTimeoutMillis)
    return Effect.gen({ self: this }, function*() {
      const begun = yield* Clock.currentTimeMillis
      yield* Effect.sleep(Duration.millis(softMillis))
      // The flight may find something stale later on.
      seat.takes = takesLate(reading)
      if (seat.flight.stale !== undefined) {
        const found = yield* this.pilot.lookAgain(reading)
        if (found !== undefined && isWithin(found, reading.terms, longestStale(reading.terms))) {
          seat.leaveBehind()
          return found
        }
      }
      if (hardTimeoutMillis === Infinity) return yield* Effect.never
      const waited = (yield* Clock.currentTimeMillis) - begun
      yield* Effect.sleep(Duration.millis(Math.max(0, hardTimeoutMillis - waited)))
      seat.leaveBehind()
      return yield* reading.timedOut
    })
  }

  /** `arrivedLate`: when the caller did, where it must not take what it has joined. */
  private arrive<A, E>(
    reading: Reading<A, E>,
    landing: Landing<A>,
    joined: boolean,
    arrivedLate: number | undefined
  ): Effect.Effect<Answer<A>, E> {
    if (arrivedLate !== undefined) return this.fetch(reading, arrivedLate)
    // Young enough for whose flight it was, or new enough. Nobody joins that one any more.
    return joined && landing._tag === "Found" && landing.isFinal &&
        !(isFresh(landing.kept, reading.terms, landing.atMillis) && answers(reading, landing.at))
      ? this.fetch(reading)
      : Effect.map(
        landing._tag === "Found" ? this.audited(reading, landing) : this.hint(reading, landing, joined),
        () => this.counted(reading, landing, joined)
      )
  }

  private audited<A, E>(reading: Reading<A, E>, { atMillis, kept }: Found): Effect.Effect<void> {
    const { audits } = this.options
    return isFresh(kept, reading.terms, atMillis) && audits.isDue()
      ? Effect.withFiber((fiber) => Effect.sync(() => audits.take(fiber, reading, kept, atMillis)))
      : Effect.void
  }

  private counted<A, E>(reading: Reading<A, E>, landing: Landing<A>, joined: boolean): Answer<A> {
    const { store, tally } = this.options
    const { key, point } = reading
    // As far as the store has come by now, so the clock of the answer is among what was seen.
    if (point?.isMonotonic === true) point.raise(store.seen(key.namespace))
    if (landing._tag === "Read") {
      const status = joined ? "joined" : isBypass(landing.reason) ? "bypass" : "miss"
      if (status === "bypass") tally.bypassed(landing.reason)
      else tally.looked(status)
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
    const { atMillis, kept } = landing
    const isHit = isFresh(kept, reading.terms, atMillis)
    reading.habits.hits++
    if (!isHit) tally.looked("stale")
    else if (kept.level === "L2") tally.hitL2()
    else tally.hitL1()
    return {
      status: isHit ? "hit" : "stale",
      level: kept.level,
      ageMillis: atMillis - kept.storedAtMillis,
      reason: isHit ? undefined : "expired",
      stored: kept.value,
      take: () => undefined
    }
  }

  private hint<A, E>(reading: Reading<A, E>, landing: Read<A>, joined: boolean): Effect.Effect<void> {
    if (joined || landing.reason === "paused" || isBypass(landing.reason)) return Effect.void
    return Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const hint = reading.habits.missed(landing.reason, reading.terms.adaptive === true, now)
      if (hint === undefined) return Effect.void
      this.options.tally.hinted(hint)
      return Effect.logInfo(`Caching hardly pays (${hint}): ${reading.label()}`)
    })
  }
}

/** Whether the store would not have had the answer. */
const isBypass = (reason: string): boolean => reason === "fenced" || reason === "barrier"

const nowOf = (fiber: Fiber.Fiber<unknown, unknown>): number => fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
