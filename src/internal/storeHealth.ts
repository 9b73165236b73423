/**
 * What stands between the library and its store: every call is bounded in time,
 * every failure counted, and each change between working and failing logged once.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { LazyArg } from "effect/Function"
import { CacheError, InvalidReply, StoreTimeout } from "../CacheError.ts"
import type { Tally } from "./tally.ts"

export interface StoreHealth {
  readonly guard: <A>(
    operation: CacheError["operation"],
    effect: LazyArg<Effect.Effect<A, CacheError>>,
    timeoutMillis: number
  ) => Effect.Effect<A, CacheError>
}

interface Failure {
  readonly reason: string
  /** How many successes in a row are needed before it counts as over. */
  left: number
}

/** A store that is not shared answers from this process, so nothing of it is timed. */
export const make = (
  tally: Tally,
  options: { readonly timed: boolean; readonly shards?: number | undefined }
): StoreHealth => {
  // By operation: a store may answer reads and refuse writes.
  const failing = new Map<CacheError["operation"], Failure>()
  // Where one shard of several fails, what the others answer says nothing. An invalidation asks them all.
  const { shards = 1 } = options
  const patienceOf = (operation: CacheError["operation"]): number =>
    shards === 1 || operation === "invalidate" ? 1 : shards * 32

  const succeeded = (operation: CacheError["operation"]): Effect.Effect<void> => {
    const failure = failing.get(operation)
    if (failure === undefined || --failure.left > 0) return Effect.void
    failing.delete(operation)
    return Effect.logInfo(`The cache store works again (${operation})`)
  }

  const failed = (error: CacheError): Effect.Effect<void> => {
    tally.storeFailed(error)
    const known = failing.get(error.operation)
    failing.set(error.operation, { reason: error.reason._tag, left: patienceOf(error.operation) })
    if (known?.reason === error.reason._tag) return Effect.void
    return Effect.logWarning(
      `The cache store fails (${error.operation}: ${error.reason._tag}); the database answers until it works again`
    )
  }

  return {
    guard: (operation, effect, timeoutMillis) =>
      (options.timed
        ? Effect.timeoutOrElse(apart(Effect.suspend(effect)), {
          duration: Duration.millis(timeoutMillis),
          orElse: () => Effect.fail(new CacheError({ operation, reason: new StoreTimeout({ timeoutMillis }) }))
        })
        : Effect.suspend(effect)).pipe(
          Effect.catchCause((cause) => Effect.fail(errorOf(operation, cause))),
          Effect.tap(() => succeeded(operation)),
          Effect.tapError(failed)
        )
  }
}

/**
 * In a fiber of its own, told to stop when its time is over but not waited for: what it does may be uninterruptible, or
 * a finalizer of it may hang.
 */
export const apart = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.withFiber((fiber) =>
    Effect.callback((resume) => {
      const running = Effect.runForkWith(fiber.context)(effect)
      running.addObserver(resume)
      return Effect.sync(() => running.interruptUnsafe())
    })
  )

// A store that dies, or interrupts itself, is a store that fails: no query may die of it.
const errorOf = (operation: CacheError["operation"], cause: Cause.Cause<unknown>): CacheError => {
  const error = Cause.squash(cause)
  return error instanceof CacheError
    ? error
    : new CacheError({ operation, reason: new InvalidReply({ message: "The cache store died", cause: error }) })
}
