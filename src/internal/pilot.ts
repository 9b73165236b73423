/**
 * What a flight does: asks the store, waits for other processes, reads the value,
 * fills the store.
 *
 *     lookup ─ hit ──────────────────────────────▶ the value
 *       │    ├ stale ── to those who take it; with nobody left it becomes a refresh, or ends
 *       │    └ another process reads it, or a refresh ──▶ wait, lookup again
 *       ▼
 *     query ─ fails ── stale, for those who take it, else the failure; release
 *       ▼
 *     admitted? ── no: the value, release
 *       └────────▶ the value, and store, judged by the lease
 *
 * Whatever is stale was valid, but for its time, at the lookup right before it is
 * served: after a failure and after the soft time-out the store is asked again.
 *
 * A flight that was told to read a value owes its store a fill or a release, or
 * other processes wait for it in vain. So it is interruptible only where it waits:
 * for the query, for others, and for the store, which takes back itself what it has
 * told to somebody who has left.
 *
 * Nothing is waited for without end: a process by the store's word for how long,
 * and so many processes in turn; a refresh for `longestWaitMillis`.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import type { CacheError } from "../CacheError.ts"
import type * as CacheStore from "../CacheStore.ts"
import type * as Dependency from "../Dependency.ts"
import { type Flight, type Flights, takesNothing } from "./flights.ts"
import { type Admission, answers, type Found, isPaused, type Landing, longestStale, type Reading } from "./reading.ts"
import type { StoreHealth } from "./storeHealth.ts"
import type { FillOutcome, Tally } from "./tally.ts"

export interface PilotOptions {
  readonly store: CacheStore.CacheStore["Service"]
  readonly flights: Flights
  readonly health: StoreHealth
  readonly tally: Tally
  readonly lookupTimeoutMillis: number
  /** Takes note of why a store that is kept strict serves nothing. */
  readonly met?: ((bypass: CacheStore.Bypass) => void) | undefined
}

/** What the store has answered already, or is to be asked. */
export interface Departure {
  readonly maxAgeMillis: number
  readonly found?: Exit.Exit<CacheStore.Outcome, CacheError> | undefined
}

/** The right to read a value, and why it has to be read. */
interface Claim {
  readonly lease: CacheStore.Lease | undefined
  readonly reason: string
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

// For how long a value is waited for where its store does not say.
const longestWaitMillis = 10_000

// How many processes are waited for that die one after the other, and how much later than the one before the next must
// end to be another.
const maxOwners = 3
const toleranceMillis = 250

// How often another process is asked after: soon at first, since most queries are quick.
const firstPauseMillis = 4
export const longestPauseMillis = 64

export class Pilot {
  private readonly options: PilotOptions

  constructor(options: PilotOptions) {
    this.options = options
  }

  /** Flies a flight to its end: it is settled, and the store has had what it is owed. */
  fly<A, E>(reading: Reading<A, E>, flight: Flight<Landing<A>, E>, departure: Departure): Effect.Effect<void> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function*() {
        const claim = yield* this.claim(reading, flight, departure, restore)
        if (claim === undefined) return
        const { lease, reason } = claim
        const { costMillis, exit } = yield* measured(restore(reading.query))
        if (Exit.isFailure(exit)) {
          flight.close()
          const { cause } = exit
          const isConsoled = Cause.hasFails(cause) && !Cause.hasInterrupts(cause) &&
            flight.stale !== undefined && flight.isConsoledBy(flight.stale)
          const fallback = isConsoled ? yield* this.lookAgain(reading) : undefined
          flight.settle(Exit.failCause(cause), { fallback })
          return yield* this.release(reading, lease, heirsOf(cause))
        }
        // Before a caller may change the value.
        const admission = this.admit(reading, exit.value)
        const landing: Landing<A> = { _tag: "Read", stored: admission.stored, value: exit.value, reason }
        if (admission.refusal !== undefined || lease === undefined) {
          // What is not to be stored is not for those who come later either.
          flight.settle(Exit.succeed(landing))
          return yield* this.release(reading, lease)
        }
        const filling = this.fill(reading, flight.dependencies, admission, costMillis, lease)
        // A store in this process has judged by the time it returns; nobody waits for any other.
        if (!this.options.store.shared) yield* filling
        flight.settle(Exit.succeed(landing), { joinable: this.options.store.shared })
        if (this.options.store.shared) yield* restore(filling)
      })
    )
  }

  /** Reads a value whatever the store has, and stores it. */
  reload<A, E>(reading: Reading<A, E>): Effect.Effect<{ readonly value: A; readonly verdict: FillOutcome }, E> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function*() {
        const found = yield* this.lookup(reading, 0, restore)
        if (Exit.isFailure(found) && Cause.hasInterrupts(found.cause)) return yield* Effect.interrupt
        const lease = Exit.isSuccess(found) && found.value._tag !== "Bypass" ? found.value.lease : undefined
        const { costMillis, exit } = yield* measured(restore(reading.query))
        if (Exit.isFailure(exit)) {
          yield* this.release(reading, lease, heirsOf(exit.cause))
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

  /** What the store has now, late though it may be. Nobody is going to read it for that. */
  lookAgain<A, E>(reading: Reading<A, E>): Effect.Effect<Found | undefined> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function*() {
        const found = yield* this.lookup(reading, reading.terms.timeToLiveMillis, restore)
        if (Exit.isFailure(found)) return undefined
        const outcome = found.value
        const atMillis = yield* Clock.currentTimeMillis
        if (outcome._tag !== "Hit") yield* this.release(reading, outcome.lease, "next")
        return isHeld(reading, outcome) && answers(reading, outcome.lease)
          ? foundOf(outcome, atMillis, false)
          : undefined
      })
    )
  }

  /** Asks the store, and waits for others, until the value is there or has to be read. */
  private claim<A, E>(
    reading: Reading<A, E>,
    flight: Flight<Landing<A>, E>,
    { found, maxAgeMillis }: Departure,
    restore: Restore
  ): Effect.Effect<Claim | undefined> {
    const { flights, tally } = this.options
    // There is nothing to be had from it, and nobody who waits.
    const abandon = (): undefined => void flight.settle(Exit.interrupt())
    return Effect.gen({ self: this }, function*() {
      let untilMillis: number | undefined
      let owners = 0
      let pauseMillis = firstPauseMillis
      for (;;) {
        let now = yield* Clock.currentTimeMillis
        // Not where the store has answered: what it may have obliged to do has to be done.
        if (found === undefined && isPaused(reading, now)) return { lease: undefined, reason: "paused" }
        found ??= yield* this.lookup(reading, maxAgeMillis, restore)
        now = yield* Clock.currentTimeMillis
        if (Exit.isFailure(found)) {
          if (isUnattended(flight) || Cause.hasInterrupts(found.cause)) return abandon()
          return { lease: undefined, reason: "store-failed" }
        }
        const outcome: CacheStore.Outcome = found.value
        found = undefined
        const { lease } = outcome
        if (outcome._tag === "Bypass") {
          return isUnattended(flight)
            ? abandon()
            : { lease: undefined, reason: outcome.reason }
        }
        flight.at = lease
        const isBehind = !answers(reading, lease)
        // What the store has, or others read, may be from before the session's write. What is read here is not.
        if (isBehind && (outcome._tag === "Hit" || isOthers(outcome))) return { lease: undefined, reason: "session" }
        if (outcome._tag === "Hit") {
          // Another kind of value under the same key is to be replaced.
          if (!isHeld(reading, outcome)) return { lease, reason: "undecodable" }
          flight.settle(Exit.succeed(foundOf(outcome, now, true)))
          return undefined
        }
        if (isHeld(reading, outcome) && !isBehind) flight.offer(foundOf(outcome, now, false))
        if (isUnattended(flight) && !flight.isRefresh) {
          const begun = flights.becomeRefresh(flight, now)
          if (begun === "too many") tally.refreshed("too-many")
          if (begun !== "begun") {
            abandon()
            yield* this.release(reading, lease, "next")
            return undefined
          }
        }
        const reason = outcome._tag === "Miss" ? outcome.reason : outcome._tag === "Stale" ? "expired" : "waited"
        const others = isOthers(outcome)
        const refresh = others || lease.flight !== undefined
          ? undefined
          : flights.refreshing(reading.key, reading.basis, now)
        if (!others && (refresh === undefined || refresh === flight)) return { lease, reason }
        if (isUnattended(flight)) return abandon()

        const remainingMillis = outcome._tag === "Wait" ? outcome.remainingMillis : longestWaitMillis
        if (
          untilMillis === undefined ||
          (outcome._tag === "Wait" && now + remainingMillis > untilMillis + toleranceMillis)
        ) {
          untilMillis = owners++ < maxOwners ? now + remainingMillis : now
        }
        if (now >= untilMillis) return { lease, reason }
        const until = Effect.sleep(Duration.millis(untilMillis - now))
        const pause = Effect.sleep(Duration.millis(Math.min(pauseMillis, untilMillis - now)))
        const waited = yield* Effect.exit(restore(
          refresh === undefined ? pause : Effect.raceFirst(ended(refresh), until)
        ))
        if (Exit.isFailure(waited)) return abandon()
        pauseMillis = Math.min(pauseMillis * 2, longestPauseMillis)
      }
    })
  }

  /**
   * Asks the store for one or several. What it says to somebody who has left, or has given it up, is what it has said
   * all the same: whoever was told to read is released from it. Run it uninterruptibly.
   */
  lookupMany(
    requests: ReadonlyArray<CacheStore.LookupRequest>,
    restore: Restore
  ): Effect.Effect<Exit.Exit<ReadonlyArray<CacheStore.Outcome>, CacheError>> {
    const { health, lookupTimeoutMillis, store } = this.options
    return Effect.suspend(() => {
      let outcomes: ReadonlyArray<CacheStore.Outcome> = []
      // In the step in which it is there.
      const asked = () => Effect.map(ask(store, requests), (all) => outcomes = all)
      return Effect.flatMap(
        Effect.exit(restore(health.guard("lookup", asked, lookupTimeoutMillis))),
        (exit) => {
          this.meet(outcomes)
          return Exit.isSuccess(exit) || outcomes.length === 0
            ? Effect.succeed(exit)
            : Effect.as(
              Effect.all(outcomes.map(({ lease }, i) => this.release(requests[i]!, lease, "next")), {
                concurrency: "unbounded"
              }),
              exit
            )
        }
      )
    })
  }

  private meet(outcomes: ReadonlyArray<CacheStore.Outcome>): void {
    const { met } = this.options
    if (met === undefined) return
    for (const outcome of outcomes) if (outcome._tag === "Bypass") met(outcome)
  }

  private lookup<A, E>(
    { dependencies, key, point }: Reading<A, E>,
    maxAgeMillis: number,
    restore: Restore
  ): Effect.Effect<Exit.Exit<CacheStore.Outcome, CacheError>> {
    return Effect.map(
      this.lookupMany([{ key, dependencies: dependencies(), maxAgeMillis, since: point?.reflects }], restore),
      Exit.map((outcomes) => outcomes[0]!)
    )
  }

  /** Lets other processes read what this one does not fill. Nobody here waits for it. */
  private release(
    { key }: { readonly key: CacheStore.CacheKey },
    lease: CacheStore.Lease | undefined,
    heirs: CacheStore.Heirs = "all"
  ): Effect.Effect<void> {
    const { health, lookupTimeoutMillis, store } = this.options
    return lease?.flight === undefined
      ? Effect.void
      : Effect.ignore(health.guard("release", () => store.release(key, lease, heirs), lookupTimeoutMillis))
  }

  private admit<A, E>({ admit, key, terms }: Reading<A, E>, value: A): Admission {
    const admission = admit(value)
    const isTooLarge = admission.bytes > terms.maxEntryBytes ||
      (terms.maxFormBytes !== undefined && admission.bytes + bytesOf(key) > terms.maxFormBytes)
    const refusal = admission.refusal ?? (isTooLarge ? "too-large" : undefined)
    if (refusal === undefined) return admission
    this.options.tally.filled(refusal, admission.bytes)
    return { ...admission, refusal }
  }

  private fill<A, E>(
    reading: Reading<A, E>,
    dependencies: Dependency.DependencySet,
    { bytes, stored, timeToLiveMillis = reading.terms.timeToLiveMillis }: Admission,
    costMillis: number,
    lease: CacheStore.Lease
  ): Effect.Effect<FillOutcome> {
    const { health, lookupTimeoutMillis, store, tally } = this.options
    const { key, terms } = reading
    return Effect.gen({ self: this }, function*() {
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
      // A store that answered that it cannot has ended no flight. One that did not answer may do so yet.
      if (Exit.isFailure(verdict) && !isTimeout(verdict.cause)) yield* this.release(reading, lease)
      return outcome
    })
  }
}

const ask = (
  store: CacheStore.CacheStore["Service"],
  requests: ReadonlyArray<CacheStore.LookupRequest>
): Effect.Effect<ReadonlyArray<CacheStore.Outcome>, CacheError> => {
  if (requests.length !== 1) return store.lookupMany(requests)
  const [{ dependencies, key, maxAgeMillis, since }] = requests as [CacheStore.LookupRequest]
  return Effect.map(store.lookup(key, dependencies, maxAgeMillis, since), (outcome) => [outcome])
}

/** What a lookup has found, as a landing. */
export const foundOf = (kept: CacheStore.Hit | CacheStore.Stale, atMillis: number, isFinal: boolean): Found => ({
  _tag: "Found",
  kept,
  at: kept.lease,
  atMillis,
  isFinal
})

/** Whether a lookup has found a value, and one of the kind that is read. */
export const isHeld = <A, E>(
  reading: Reading<A, E>,
  outcome: CacheStore.Outcome
): outcome is CacheStore.Hit | CacheStore.Stale =>
  (outcome._tag === "Hit" || outcome._tag === "Stale") && reading.holds(outcome.value)

/** Who is to read after a query that has ended so: whoever was interrupted has not found out whether it can be had. */
export const heirsOf = (cause: Cause.Cause<unknown>): CacheStore.Heirs => Cause.hasInterrupts(cause) ? "next" : "all"
/** Whether another process reads the value. */
const isOthers = (outcome: CacheStore.Outcome): boolean =>
  outcome._tag === "Wait" || (outcome._tag === "Stale" && outcome.waiting)

const isTimeout = (cause: Cause.Cause<CacheError>): boolean =>
  cause.reasons.some((reason) => Cause.isFailReason(reason) && reason.error.reason._tag === "StoreTimeout")

/** Whether it goes on, and nobody waits for it. */
const isUnattended = (flight: Flight<any, any>): boolean => flight.goesOn && !flight.isAwaited

/** The end of a refresh, whatever it is. */
const ended = (refresh: Flight<any, any>): Effect.Effect<void> =>
  Effect.suspend(() => {
    const seat = refresh.seat(takesNothing)
    return Effect.onExit(Effect.asVoid(Effect.exit(seat.served)), () => seat.leave)
  })

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
