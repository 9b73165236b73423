/**
 * What can go wrong between the cache and its store.
 *
 * None of these errors reaches the caller of a query: the read path counts
 * them, logs them once per change of state, and lets the database answer. They
 * are typed for those who call a `CacheStore` themselves, and for tests. A store that
 * is kept strict is the exception: there a write may fail with a {@link StrictWriteError}.
 *
 * Bad options are another matter. They are mistakes in a program, so they throw
 * an {@link InvalidOptionError} where the option is given.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { isSqlError } from "effect/sql/SqlError"

/**
 * The store cannot be reached, or the connection broke before it answered.
 *
 * @category reasons
 * @since 0.1.0
 */
export class StoreUnavailable
  extends Schema.TaggedError<StoreUnavailable>("effect-query-cache/CacheError/StoreUnavailable")("StoreUnavailable", {
    message: Schema.String,
    cause: Schema.optional(Schema.Defect())
  })
{
  /**
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return true
  }
}

/**
 * The store did not answer in time. A write that timed out may still have
 * taken effect: nothing may depend on either outcome.
 *
 * @category reasons
 * @since 0.1.0
 */
export class StoreTimeout
  extends Schema.TaggedError<StoreTimeout>("effect-query-cache/CacheError/StoreTimeout")("StoreTimeout", {
    timeoutMillis: Schema.Number
  })
{
  override get message(): string {
    return `The cache store did not answer within ${this.timeoutMillis} ms`
  }
  /**
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return true
  }
}

/**
 * The store answers reads but refuses writes: out of memory, read-only
 * replica, failing persistence.
 *
 * @category reasons
 * @since 0.1.0
 */
export class WriteRefused
  extends Schema.TaggedError<WriteRefused>("effect-query-cache/CacheError/WriteRefused")("WriteRefused", {
    message: Schema.String,
    cause: Schema.optional(Schema.Defect())
  })
{
  /**
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return true
  }
}

/**
 * The store rejected the credentials, or they lack the rights that the scripts
 * need.
 *
 * @category reasons
 * @since 0.1.0
 */
export class AccessDenied
  extends Schema.TaggedError<AccessDenied>("effect-query-cache/CacheError/AccessDenied")("AccessDenied", {
    message: Schema.String,
    cause: Schema.optional(Schema.Defect())
  })
{
  /**
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return false
  }
}

/**
 * The store answered something that no version of its scripts returns.
 *
 * @category reasons
 * @since 0.1.0
 */
export class InvalidReply
  extends Schema.TaggedError<InvalidReply>("effect-query-cache/CacheError/InvalidReply")("InvalidReply", {
    message: Schema.String,
    cause: Schema.optional(Schema.Defect())
  })
{
  /**
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return false
  }
}

/**
 * The namespace is kept otherwise than this process was told to keep it, or the server does
 * not show what strict mode needs. Nothing but a change of the configuration mends it.
 *
 * @category reasons
 * @since 0.1.0
 */
export class ConsistencyRefused
  extends Schema.TaggedError<ConsistencyRefused>("effect-query-cache/CacheError/ConsistencyRefused")(
    "ConsistencyRefused",
    { message: Schema.String }
  )
{
  /**
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return false
  }
}

/**
 * Everything a {@link CacheError} can mean.
 *
 * @category reasons
 * @since 0.1.0
 */
export type CacheErrorReason =
  | StoreUnavailable
  | StoreTimeout
  | WriteRefused
  | AccessDenied
  | InvalidReply
  | ConsistencyRefused

/**
 * Schema of {@link CacheErrorReason}.
 *
 * @category reasons
 * @since 0.1.0
 */
export const CacheErrorReason = Schema.Union([
  StoreUnavailable,
  StoreTimeout,
  WriteRefused,
  AccessDenied,
  InvalidReply,
  ConsistencyRefused
])

/**
 * A cache store failed. `reason` says how; `operation` says at what.
 *
 * **Example** (One reason apart from the others)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { CacheError } from "effect-query-cache"
 *
 * const flaky = Effect.fail(
 *   new CacheError.CacheError({
 *     operation: "lookup",
 *     reason: new CacheError.StoreTimeout({ timeoutMillis: 50 })
 *   })
 * )
 *
 * export const recovered = flaky.pipe(
 *   Effect.catchReason("CacheError", "StoreTimeout", () => Effect.succeed("too slow"))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class CacheError extends Schema.TaggedError<CacheError>("effect-query-cache/CacheError")("CacheError", {
  operation: Schema.Literals(["lookup", "store", "release", "invalidate", "subscribe", "fence", "resolve"]),
  reason: CacheErrorReason
}) {
  override readonly cause = this.reason

  override get message(): string {
    return `${this.operation}: ${this.reason.message}`
  }
  /**
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }
}

/**
 * Why a store that is kept strict did not let a write be done: the `cause` of the reason of
 * the `SqlError` that the write failed with. Nothing was written.
 *
 * **Details**
 *
 * - `"fence-failed"`: the transaction was rolled back, since the store could not be told of
 *   it before its commit. It may succeed later.
 * - `"not-fenceable"`: its commit cannot be told beforehand. The message says what to do instead.
 *
 * @category errors
 * @since 0.1.0
 */
export class StrictWriteError
  extends Schema.TaggedError<StrictWriteError>("effect-query-cache/StrictWriteError")("StrictWriteError", {
    code: Schema.Literals(["fence-failed", "not-fenceable"]),
    message: Schema.String,
    /** How the store failed. */
    cause: Schema.optional(CacheError)
  })
{}

/**
 * The {@link StrictWriteError} that a write failed with, if it did with one.
 *
 * **Example** (Try again where the store was away)
 *
 * ```ts
 * import { Effect, Schedule } from "effect"
 * import { CacheError } from "effect-query-cache"
 *
 * export const retried = Effect.retry({
 *   while: (error) => CacheError.strictWriteErrorOf(error)?.code === "fence-failed",
 *   schedule: Schedule.exponential("100 millis"),
 *   times: 5
 * })
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export const strictWriteErrorOf = (error: unknown): StrictWriteError | undefined => {
  if (!isSqlError(error)) return undefined
  const { cause } = error.reason
  return cause instanceof StrictWriteError ? cause : undefined
}

/**
 * An option that cannot mean anything: a negative time to live, a capacity of
 * 0, a name nobody knows. Thrown where the option is given.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidOptionError extends Error {
  override readonly name = "InvalidOptionError"
  /** Where it was given, for example `"CachePolicy"`. */
  readonly owner: string
  /** Which option. */
  readonly option: string
  /** What was given. */
  readonly value: unknown

  constructor(owner: string, option: string, value: unknown, expected: string) {
    super(`${owner}: option "${option}" must be ${expected}, but is ${show(value)}`)
    this.owner = owner
    this.option = option
    this.value = value
  }
}

const show = (value: unknown): string => {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value)
    case "bigint":
      return `${value}n`
    case "function":
      return "a function"
    case "object":
      return value === null ? "null" : Array.isArray(value) ? `[${value.map(show).join(", ")}]` : "an object"
    default:
      return Object.is(value, -0) ? "-0" : String(value)
  }
}
