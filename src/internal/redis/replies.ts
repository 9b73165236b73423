/**
 * What comes back from Redis: replies of the scripts, checked and never cast, and
 * errors, classified in one place.
 */
import type { RedisError } from "effect/persistence/Redis"
import * as Predicate from "effect/Predicate"
import * as CacheError from "../../CacheError.ts"
import type { BarrierState, ExpiredFence, LogicalClock, MissReason } from "../../CacheStore.ts"
import { maxShards } from "./shards.ts"

/** A reply that no script returns. */
export class UnexpectedReply extends Error {
  override readonly name = "UnexpectedReply"
}

/** Whose it is to read: the caller's, under its token; another's, for so long at most; anybody's. */
export type Claim =
  | { readonly _tag: "yours" | "free" }
  | { readonly _tag: "wait"; readonly remainingMillis: number }

interface FoundEntry {
  readonly value: string
  /** Below zero where the clock of Redis was set back since. */
  readonly ageMillis: number
  readonly timeToLiveMillis: number
  readonly costMillis: number
  /** Whether the entry was filled for the stamps that were asked for. */
  readonly same: boolean
}

export type FoundOutcome =
  | { readonly _tag: "hit" } & FoundEntry
  | { readonly _tag: "stale"; readonly claim: Claim } & FoundEntry
  | { readonly _tag: "miss"; readonly claim: Claim; readonly reason: MissReason }
  | { readonly _tag: "bypass"; readonly why: Why }

/** A bypass, but for its epoch. */
type Why =
  | { readonly reason: "fenced"; readonly expired: ReadonlyArray<ExpiredFence> }
  | { readonly reason: "barrier"; readonly transaction: string | undefined }

export interface Found extends LogicalClock {
  readonly outcomes: ReadonlyArray<FoundOutcome>
}

export interface Stored {
  /** `undefined` where the metadata were lost. */
  readonly at: LogicalClock | undefined
  readonly verdicts: ReadonlyArray<"accepted" | "refused">
}

export const found = (reply: unknown, nonce: string, count: number): Found => {
  const [tag, of, epoch, clock, outcomes] = tuple(reply, 5)
  if (tag !== "found") throw unexpected("LOOKUP")
  answering(of, nonce)
  return { ...logicalClock(epoch, clock), outcomes: tuple(outcomes, count).map(outcome) }
}

export const stored = (reply: unknown, nonce: string, count: number): Stored => {
  const { at, verdicts } = judged(reply, nonce, count, "stored", "STORE")
  return { at, verdicts: verdicts.map((verdict) => verdict ? "accepted" : "refused") }
}

/** Whether each holds, and at which clock. */
export const held = (reply: unknown, nonce: string, count: number) => judged(reply, nonce, count, "held", "HOLD")

const judged = (reply: unknown, nonce: string, count: number, expected: string, script: string): {
  /** `undefined` where the metadata were lost. */
  readonly at: LogicalClock | undefined
  readonly verdicts: ReadonlyArray<boolean>
} => {
  if (Array.isArray(reply) && reply.length === 2 && reply[0] === "lost") {
    answering(reply[1], nonce)
    return { at: undefined, verdicts: Array.from({ length: count }, () => false) }
  }
  const [tag, of, epoch, clock, verdicts] = tuple(reply, 5)
  if (tag !== expected) throw unexpected(script)
  answering(of, nonce)
  return { at: logicalClock(epoch, clock), verdicts: tuple(verdicts, count).map((verdict) => whole(verdict, 1) === 1) }
}

export const released = (reply: unknown, nonce: string): void => {
  const [tag, of] = tuple(reply, 2)
  if (tag !== "released") throw unexpected("RELEASE")
  answering(of, nonce)
}

/** At which clock, and how many shards there are. */
export const invalidated = (reply: unknown, nonce: string) => {
  const { at, more: [shards] } = clockOf(reply, nonce, "invalidated", "INVALIDATE", 1)
  return { at, shards: whole(shards, maxShards) }
}

/** In which epoch, and how many shards are ready. */
export const opened = (reply: unknown, nonce: string) => {
  const { at, more: [ready] } = clockOf(reply, nonce, "opened", "OPEN", 1)
  return { at, ready: whole(ready, maxShards) }
}

/** At which clock, how many shards there are, and an expired fence, if it names one. */
export const fenced = (reply: unknown, nonce: string) => {
  if (Array.isArray(reply) && reply.length === 2 && reply[0] === "crowded") {
    answering(reply[1], nonce)
    throw new CacheError.WriteRefused({ message: "too many writes are under way: no fence is put up for another one" })
  }
  const { at, more: [token, transaction, shards] } = clockOf(reply, nonce, "fenced", "FENCE", 3)
  const found: ReadonlyArray<ExpiredFence> = token === "" ? [] : [expired([token, transaction])]
  return { at, expired: found, shards: whole(shards, maxShards) }
}

/** At which clock, and how many shards there are. */
export const resolved = (reply: unknown, nonce: string) => {
  const { at, more: [shards] } = clockOf(reply, nonce, "resolved", "RESOLVE", 1)
  return { at, shards: whole(shards, maxShards) }
}

export const barrier = (reply: unknown, nonce: string): { readonly at: LogicalClock; readonly state: BarrierState } => {
  const { at, more: [state] } = clockOf(reply, nonce, "barrier", "BARRIER", 1)
  return {
    at,
    state: {
      epoch: at.epoch,
      isOpen: state === "open",
      transaction: state === "open" ? undefined : transactionOf(state)
    }
  }
}

export const beaten = (reply: unknown, nonce: string): LogicalClock => clockOf(reply, nonce, "beaten", "BEAT", 0).at

const clockOf = (reply: unknown, nonce: string, expected: string, script: string, count: number) => {
  const [tag, of, epoch, clock, ...more] = tuple(reply, 4 + count)
  if (tag !== expected) throw unexpected(script)
  answering(of, nonce)
  return { at: logicalClock(epoch, clock), more }
}

/** A client whose replies got out of step hands over another call's: other rows, or that another write was delivered. */
const answering = (of: unknown, nonce: string): void => {
  if (of !== nonce) throw new UnexpectedReply("A script's reply is not to the call that it came for")
}

const reasons: ReadonlyArray<unknown> = ["absent", "expired", "invalidated", "undecodable"] satisfies Array<MissReason>

const isReason = (value: unknown): value is MissReason => reasons.includes(value)

const outcome = (reply: unknown): FoundOutcome => {
  if (Array.isArray(reply)) {
    const [tag, first] = reply
    if (tag === "hit" && reply.length === 6) return { _tag: "hit", ...entry(reply) }
    if (tag === "stale" && reply.length === 8) {
      return { _tag: "stale", ...entry(reply), claim: claim(reply[6], reply[7]) }
    }
    if (tag === "miss" && reply.length === 4 && isReason(first)) {
      return { _tag: "miss", reason: first, claim: claim(reply[2], reply[3]) }
    }
    if (tag === "fenced") return { _tag: "bypass", why: { reason: "fenced", expired: reply.slice(1).map(expired) } }
    if (tag === "closed" && reply.length === 2) {
      return { _tag: "bypass", why: { reason: "barrier", transaction: transactionOf(first) } }
    }
  }
  throw unexpected("LOOKUP")
}

const expired = (reply: unknown): ExpiredFence => {
  const [token, transaction] = tuple(reply, 2)
  const of = transactionOf(transaction)
  if (typeof token !== "string" || of === undefined) throw unexpected("A script")
  return { token, transaction: of }
}

/** The id of a transaction, which may exceed what a number holds. */
const transactionOf = (reply: unknown): string | undefined => {
  if (reply === "") return undefined
  if ((typeof reply !== "string" && typeof reply !== "number") || !/^\d+$/.test(`${reply}`)) {
    throw unexpected("A script")
  }
  return `${reply}`
}

const entry = ([, value, age, timeToLive, cost, same]: ReadonlyArray<unknown>): FoundEntry => {
  if (typeof value !== "string") throw unexpected("LOOKUP")
  return {
    value,
    ageMillis: String(age).startsWith("-") ? -whole(String(age).slice(1), most) : whole(age, most),
    timeToLiveMillis: whole(timeToLive, most),
    costMillis: whole(cost, most),
    same: whole(same, 1) === 1
  }
}

const claim = (tag: unknown, remaining: unknown): Claim => {
  if (tag === "yours" || tag === "free") return { _tag: tag }
  if (tag === "wait") return { _tag: tag, remainingMillis: whole(remaining, most) }
  throw unexpected("LOOKUP")
}

const most = Number.MAX_SAFE_INTEGER

const tuple = (reply: unknown, length: number): ReadonlyArray<unknown> => {
  if (!Array.isArray(reply) || reply.length !== length) throw unexpected("A script")
  return reply
}

const logicalClock = (epoch: unknown, clock: unknown): LogicalClock => {
  if (typeof epoch !== "string" || !/^\d{1,16}-./.test(epoch)) throw unexpected("A script")
  return { epoch, clock: whole(clock, most) }
}

// A client that reads replies as JSON makes numbers of them, one that does not leaves text.
const whole = (value: unknown, most: number): number => {
  const number = typeof value === "string" && /^\d+$/.test(value) ? Number(value) : value
  if (typeof number !== "number" || !Number.isSafeInteger(number) || number < 0 || number > most) {
    throw unexpected("A script")
  }
  return number
}

// Says which script and nothing of the reply, in which rows may stand.
const unexpected = (script: string): UnexpectedReply =>
  new UnexpectedReply(`${script} returned something that it cannot return`)

/** What a failed command means. Redis' codes may stand inside the text of a script's error. */
export const reasonOf = (
  error: RedisError | UnexpectedReply | CacheError.CacheErrorReason
): CacheError.CacheErrorReason => {
  if (isReasonOfItsOwn(error)) return error
  if (error instanceof UnexpectedReply) return new CacheError.InvalidReply({ message: error.message, cause: error })
  const text = error.cause instanceof Error ? error.cause.message : String(error.cause)
  // How a transport other than TCP says what no text of Redis' says.
  const kind = Predicate.hasProperty(error.cause, "reason") ? error.cause.reason : undefined
  const otherwise = /\bCONSISTENCY effect-query-cache: ([^@]*)/.exec(text)
  if (otherwise !== null) return new CacheError.ConsistencyRefused({ message: otherwise[1].trim() })
  const refused = /\b(OOM|READONLY|MISCONF|NOREPLICAS)\b/.exec(text)
  if (refused !== null) {
    return new CacheError.WriteRefused({ message: `Redis refuses writes (${refused[1]})`, cause: error })
  }
  if (
    kind === "Denied" ||
    /\b(WRONGPASS|NOAUTH|NOPERM)\b|can't run this command|can't access|invalid (username-)?password/.test(text)
  ) {
    return new CacheError.AccessDenied({
      message: "Redis refuses the credentials, or a right is missing",
      cause: error
    })
  }
  if (kind === "InvalidReply" || /^(ERR (?!max)|WRONGTYPE|CROSSSLOT|MOVED|ASK|NOSCRIPT)/.test(text)) {
    return new CacheError.InvalidReply({ message: "Redis does not run the scripts of this store", cause: error })
  }
  return new CacheError.StoreUnavailable({ message: "Redis cannot be reached", cause: error })
}

const isReasonOfItsOwn = (
  error: RedisError | UnexpectedReply | CacheError.CacheErrorReason
): error is CacheError.CacheErrorReason => Predicate.hasProperty(error, "isRetryable")
