/**
 * What stands between the library and its store: every call is bounded in time,
 * every failure counted, and each change between working and failing logged once.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { CacheError, InvalidReply, StoreTimeout } from "../CacheError.ts"
import type { Tally } from "./tally.ts"

export interface StoreHealth {
  readonly guard: <A>(
    operation: CacheError["operation"],
    effect: Effect.Effect<A, CacheError>,
    timeoutMillis: number
  ) => Effect.Effect<A, CacheError>
}

/** A store that is not shared answers from this process, so nothing of it is timed. */
export const make = (tally: Tally, options: { readonly timed: boolean }): StoreHealth => {
  // By operation: a store may answer reads and refuse writes.
  const failing = new Map<CacheError["operation"], string>()

  const succeeded = (operation: CacheError["operation"]): Effect.Effect<void> => {
    if (!failing.delete(operation)) return Effect.void
    return Effect.logInfo(`The cache store works again (${operation})`)
  }

  const failed = (error: CacheError): Effect.Effect<void> => {
    tally.storeFailed(error)
    if (failing.get(error.operation) === error.reason._tag) return Effect.void
    failing.set(error.operation, error.reason._tag)
    return Effect.logWarning(
      `The cache store fails (${error.operation}: ${error.reason._tag}); the database answers until it works again`
    )
  }

  return {
    guard: (operation, effect, timeoutMillis) =>
      (options.timed
        ? Effect.timeoutOrElse(effect, {
          duration: Duration.millis(timeoutMillis),
          orElse: () => Effect.fail(new CacheError({ operation, reason: new StoreTimeout({ timeoutMillis }) }))
        })
        : effect).pipe(
        // A store that dies is a store that fails: no query may die of it.
        Effect.catchDefect((defect) =>
          Effect.fail(
            new CacheError({ operation, reason: new InvalidReply({ message: "The cache store died", cause: defect }) })
          )
        ),
        Effect.tap(() => succeeded(operation)),
        Effect.tapError(failed)
      )
  }
}
