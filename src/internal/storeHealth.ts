/**
 * What stands between the library and its store: every call is bounded in time,
 * every failure counted, and each change between working and failing logged once.
 *
 * A store that goes on failing is spared (`circuit.ts`), by operation: lookups, fills and releases are not sent for a
 * second, then one is sent to see. An invalidation that is not sent is queued, and its redelivery is what sees: no write
 * waits for a store that is known to be away. Of a store in shards one may be away, and the others go on: it takes more to
 * spare it, and what is invalidated is told to all at once whatever they say.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { LazyArg } from "effect/Function"
import { CacheError, InvalidReply, StoreTimeout, StoreUnavailable } from "../CacheError.ts"
import { apart } from "./apart.ts"
import { Circuit } from "./circuit.ts"
import type { Tally } from "./tally.ts"

type Operation = CacheError["operation"]

export interface StoreHealth {
  /**
   * Makes a call, or fails at once while the circuit of its operation is open. `must`: makes it all the same, and whether
   * it succeeds decides for all who need not.
   */
  readonly guard: <A>(
    operation: Operation,
    effect: LazyArg<Effect.Effect<A, CacheError>>,
    timeoutMillis: number,
    must?: boolean
  ) => Effect.Effect<A, CacheError>
  /** Whether calls are not made for now. */
  readonly isOpen: (operation: Operation) => boolean
}

interface Failure {
  readonly reason: string
  /** How many successes in a row are needed before it counts as over. */
  left: number
}

/** A store that is not shared answers from this process, so nothing of it is timed, and no call is spared. */
export const make = (
  tally: Tally,
  options: { readonly timed: boolean; readonly shards?: number | undefined }
): StoreHealth => {
  // By operation: a store may answer reads and refuse writes.
  const failing = new Map<Operation, Failure>()
  const circuits = new Map<Operation, Circuit>()
  const circuitOf = (operation: Operation): Circuit => {
    let circuit = circuits.get(operation)
    if (circuit === undefined) {
      circuits.set(operation, circuit = new Circuit(asksAll(operation) ? maxFailures : maxFailuresOfSome))
    }
    return circuit
  }
  // Where one shard of several fails, what the others answer says nothing. Invalidations and fences ask them all.
  const { shards = 1 } = options
  const asksAll = (operation: Operation): boolean => shards === 1 || operation === "invalidate" || operation === "fence"
  const patienceOf = (operation: Operation): number => asksAll(operation) ? 1 : shards * 32

  const succeeded = (operation: Operation): Effect.Effect<void> => {
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
    if (error.reason._tag === "ConsistencyRefused") {
      return Effect.logError(`The cache store refuses (${error.operation}): ${error.reason.message}`)
    }
    if (error.operation === "fence") {
      return Effect.logWarning(
        `The cache store fails (fence: ${error.reason._tag}); it is kept strict: writes are rolled back until it works again`
      )
    }
    return Effect.logWarning(
      `The cache store fails (${error.operation}: ${error.reason._tag}); the database answers until it works again`
    )
  }

  /** Lets its changes be seen. */
  const note = (operation: Operation, circuit: Circuit, change: () => void): void => {
    const wasOpen = circuit.isOpen
    change()
    if (circuit.isOpen !== wasOpen) tally.circuit(operation, circuit.isOpen)
  }

  const bounded = <A>(
    operation: Operation,
    effect: LazyArg<Effect.Effect<A, CacheError>>,
    timeoutMillis: number
  ): Effect.Effect<A, CacheError> =>
    Effect.timeoutOrElse(apart(Effect.suspend(effect)), {
      duration: Duration.millis(timeoutMillis),
      orElse: () => Effect.fail(new CacheError({ operation, reason: new StoreTimeout({ timeoutMillis }) }))
    })

  const watched = <A>(operation: Operation, effect: Effect.Effect<A, CacheError>): Effect.Effect<A, CacheError> =>
    effect.pipe(
      Effect.catchCause((cause) => Effect.fail(errorOf(operation, cause))),
      Effect.tap(() => succeeded(operation)),
      Effect.tapError(failed)
    )

  return {
    // What one shard does not take the others must be told at once all the same.
    isOpen: (operation) => shards === 1 && circuits.get(operation)?.isOpen === true,
    guard: (operation, effect, timeoutMillis, must = false) =>
      !options.timed ? watched(operation, Effect.suspend(effect)) : Effect.withFiber((fiber) => {
        const clock = fiber.getRef(Clock.Clock)
        const circuit = circuitOf(operation)
        const admitted = must ? circuit.force() : circuit.admit(clock.currentTimeMillisUnsafe())
        if (admitted === undefined) return spared[operation]
        return watched(operation, bounded(operation, effect, timeoutMillis)).pipe(
          Effect.tap(() => Effect.sync(() => note(operation, circuit, () => circuit.succeeded()))),
          Effect.tapError(({ reason }) =>
            Effect.sync(() => {
              // That one is an answer, though to nothing that was asked: the next may be a better one.
              if (reason._tag === "InvalidReply") return
              note(operation, circuit, () => circuit.failed(admitted, clock.currentTimeMillisUnsafe()))
            })
          )
        )
      })
  }
}

const maxFailures = 5

// Of a store in shards: not by chance where most calls go to one that is away, and the others serve.
const maxFailuresOfSome = 40

const sparedFor = (operation: Operation): Effect.Effect<never, CacheError> =>
  Effect.fail(
    new CacheError({
      operation,
      reason: new StoreUnavailable({ message: "It has failed several times, and is asked again soon" })
    })
  )

// Made once: an error costs more than the call that it stands for.
const spared: { readonly [O in Operation]: Effect.Effect<never, CacheError> } = {
  lookup: sparedFor("lookup"),
  store: sparedFor("store"),
  release: sparedFor("release"),
  invalidate: sparedFor("invalidate"),
  fence: sparedFor("fence"),
  resolve: sparedFor("resolve"),
  subscribe: sparedFor("subscribe")
}

// A store that dies, or interrupts itself, is a store that fails: no query may die of it.
const errorOf = (operation: CacheError["operation"], cause: Cause.Cause<unknown>): CacheError => {
  const error = Cause.squash(cause)
  return error instanceof CacheError
    ? error
    : new CacheError({ operation, reason: new InvalidReply({ message: "The cache store died", cause: error }) })
}
