/**
 * What comes back from Redis: replies of the scripts, checked and never cast, and
 * errors, classified in one place.
 */
import type { RedisError } from "effect/persistence/Redis"
import * as Predicate from "effect/Predicate"
import * as CacheError from "../../CacheError.ts"
import type { LogicalClock, MissReason } from "../../CacheStore.ts"

/** A reply that no script returns. */
export class UnexpectedReply extends Error {
  override readonly name = "UnexpectedReply"
}

export type FoundOutcome =
  | { readonly _tag: "hit"; readonly value: string; readonly ageMillis: number; readonly same: boolean }
  | { readonly _tag: "miss"; readonly reason: MissReason }

export interface Found extends LogicalClock {
  readonly outcomes: ReadonlyArray<FoundOutcome>
}

export interface Stored {
  /** `undefined` where the metadata were lost. */
  readonly at: LogicalClock | undefined
  readonly verdicts: ReadonlyArray<"accepted" | "refused">
}

export const found = (reply: unknown, count: number): Found => {
  const [tag, epoch, clock, outcomes] = tuple(reply, 4)
  if (tag !== "found") throw unexpected("LOOKUP")
  return { ...logicalClock(epoch, clock), outcomes: tuple(outcomes, count).map(outcome) }
}

export const stored = (reply: unknown, count: number): Stored => {
  if (Array.isArray(reply) && reply.length === 1 && reply[0] === "lost") {
    return { at: undefined, verdicts: Array.from({ length: count }, () => "refused") }
  }
  const [tag, epoch, clock, verdicts] = tuple(reply, 4)
  if (tag !== "stored") throw unexpected("STORE")
  return {
    at: logicalClock(epoch, clock),
    verdicts: tuple(verdicts, count).map((verdict) => whole(verdict, 1) === 1 ? "accepted" : "refused")
  }
}

export const invalidated = (reply: unknown): LogicalClock => {
  const [tag, epoch, clock] = tuple(reply, 3)
  if (tag !== "invalidated") throw unexpected("INVALIDATE")
  return logicalClock(epoch, clock)
}

const reasons: ReadonlyArray<unknown> = ["absent", "expired", "invalidated", "undecodable"] satisfies Array<MissReason>

const isReason = (value: unknown): value is MissReason => reasons.includes(value)

const outcome = (reply: unknown): FoundOutcome => {
  if (Array.isArray(reply)) {
    const [tag, first, age, same] = reply
    if (tag === "miss" && reply.length === 2 && isReason(first)) return { _tag: "miss", reason: first }
    if (tag === "hit" && reply.length === 4 && typeof first === "string") {
      return { _tag: "hit", value: first, ageMillis: whole(age, Number.MAX_SAFE_INTEGER), same: whole(same, 1) === 1 }
    }
  }
  throw unexpected("LOOKUP")
}

const tuple = (reply: unknown, length: number): ReadonlyArray<unknown> => {
  if (!Array.isArray(reply) || reply.length !== length) throw unexpected("A script")
  return reply
}

const logicalClock = (epoch: unknown, clock: unknown): LogicalClock => {
  if (typeof epoch !== "string" || !/^\d{1,16}-./.test(epoch)) throw unexpected("A script")
  return { epoch, clock: whole(clock, Number.MAX_SAFE_INTEGER) }
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
export const reasonOf = (error: RedisError | UnexpectedReply): CacheError.CacheErrorReason => {
  if (error instanceof UnexpectedReply) return new CacheError.InvalidReply({ message: error.message, cause: error })
  const text = error.cause instanceof Error ? error.cause.message : String(error.cause)
  // How a transport other than TCP says what no text of Redis' says.
  const kind = Predicate.hasProperty(error.cause, "reason") ? error.cause.reason : undefined
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
