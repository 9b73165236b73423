/**
 * What the read path is told of a value, and when a value is fresh, stale, or to
 * be read anew.
 */
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { LazyArg } from "effect/Function"
import * as Random from "effect/Random"
import type * as CachePolicy from "../CachePolicy.ts"
import type * as CacheStore from "../CacheStore.ts"
import type * as Dependency from "../Dependency.ts"
import type { Takes } from "./flights.ts"
import type { Habits } from "./habits.ts"
import type { Point } from "./session.ts"
import type { FillOutcome } from "./tally.ts"

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
  /** Where the session stands that asks, if one does. */
  readonly point?: Point | undefined
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
  readonly status: "hit" | "stale" | "miss" | "joined" | "bypass"
  readonly level: "L1" | "L2" | undefined
  readonly ageMillis: number
  readonly reason: string | undefined
  /** As the store has it. `undefined` where it cannot. */
  readonly stored: unknown
  /** As the query gave it: for one caller, once. */
  readonly take: () => A | undefined
}

/** What a flight brings home: what the store has kept, or what the query has read. */
export type Landing<A> = Found | {
  readonly _tag: "Read"
  readonly stored: unknown
  value: A | undefined
  readonly reason: string
}

/** What the store has kept. */
export interface Found {
  readonly _tag: "Found"
  readonly kept: CacheStore.Kept
  /** The clock at which it was valid. */
  readonly at: CacheStore.LogicalClock
  readonly atMillis: number
  /** Whether it is all that its flight brings. Else it is served while, or because, the query does not. */
  readonly isFinal: boolean
}

/** Whether a value may be served without a word. */
export const isFresh = (kept: CacheStore.Kept, terms: Terms, nowMillis: number): boolean =>
  lateness(kept, terms, nowMillis) < 0

/**
 * For how long a value has been stale, by its own time to live and by the caller's; below zero while it is fresh. `NaN`
 * where nobody knows: a value from the future was stored before somebody set the clock back.
 */
export const lateness = (kept: CacheStore.Kept, terms: Terms, nowMillis: number): number =>
  nowMillis < kept.storedAtMillis ? NaN : nowMillis - endOf(kept, terms)

const endOf = ({ expiresAtMillis, storedAtMillis }: CacheStore.Kept, { timeToLiveMillis }: Terms): number =>
  Math.min(expiresAtMillis, storedAtMillis + timeToLiveMillis)

/** How late a value may be that is served at all. */
export const longestStale = (terms: Terms): number =>
  Math.max(terms.staleWhileRevalidateMillis, terms.staleIfErrorMillis)

/** Whether a landing is late by less than so much. */
export const isWithin = (landing: Landing<unknown>, terms: Terms, millis: number): landing is Found =>
  landing._tag === "Found" && lateness(landing.kept, terms, landing.atMillis) < millis

/** Whether what was valid at a clock is new enough for the session that asks, if one does. */
export const answers = ({ point }: Pick<Reading<any, any>, "point">, at: CacheStore.LogicalClock): boolean =>
  point === undefined || point.reflects(at)

const takes = (reading: Asking, millis: number) => (landing: Landing<any>): boolean =>
  isWithin(landing, reading.terms, millis) && answers(reading, landing.at)

type Asking = Pick<Reading<any, any>, "terms" | "point">

/** What a caller takes while it has patience. */
export const takesOf = (reading: Asking): Takes<Landing<any>> => ({
  stale: takes(reading, reading.terms.staleWhileRevalidateMillis),
  insteadOfError: takes(reading, reading.terms.staleIfErrorMillis)
})

/** What a caller takes that has none any more. */
export const takesLate = (reading: Asking): Takes<Landing<any>> => {
  const late = takes(reading, longestStale(reading.terms))
  return { stale: late, insteadOfError: late }
}

/** XFetch: whether a value is read anew before its time. The nearer its end, and the dearer it was, the likelier. */
export const isAhead = (
  fiber: Fiber.Fiber<unknown, unknown>,
  kept: CacheStore.Kept,
  terms: Terms,
  nowMillis: number
): boolean =>
  terms.refreshAhead > 0 &&
  nowMillis - kept.costMillis * terms.refreshAhead * Math.log(1 - fiber.getRef(Random.Random).nextDoubleUnsafe()) >=
    endOf(kept, terms)

/** Whether storing is left off for a while. */
export const isPaused = ({ habits, terms }: Pick<Reading<any, any>, "habits" | "terms">, nowMillis: number): boolean =>
  terms.adaptive === true && habits.isPaused(nowMillis)
