// A real store whose operations fail when they are told to.
import type * as Effect from "effect/Effect"
import type { CacheError } from "../../src/CacheError.ts"
import * as CacheStore from "../../src/CacheStore.ts"

type Service = CacheStore.CacheStore["Service"]
export type Operation = "lookup" | "store" | "invalidate"

/** What becomes of a call: `proceed` is what the store itself would do. */
export type Fault = <A>(proceed: Effect.Effect<A, CacheError>) => Effect.Effect<A, CacheError>

export interface FlakyStore {
  readonly store: Service
  /** Every invalidation that was asked for, whatever became of it. */
  readonly invalidations: Array<CacheStore.InvalidateRequest>
  /** What goes wrong from now on with an operation, `undefined` for nothing. */
  readonly set: (operation: Operation, fault: Fault | undefined) => void
}

/** `shared`: says of itself that others see it, so that its calls are timed. */
export const make = (inner: Service, shared = true): FlakyStore => {
  const faults: Partial<Record<Operation, Fault>> = {}
  const invalidations: Array<CacheStore.InvalidateRequest> = []
  const call = <A>(operation: Operation, proceed: Effect.Effect<A, CacheError>): Effect.Effect<A, CacheError> =>
    faults[operation]?.(proceed) ?? proceed
  return {
    invalidations,
    set: (operation, fault) => {
      if (fault === undefined) delete faults[operation]
      else faults[operation] = fault
    },
    store: CacheStore.CacheStore.of({
      ...inner,
      shared,
      lookup: (...args) => call("lookup", inner.lookup(...args)),
      lookupMany: (requests) => call("lookup", inner.lookupMany(requests)),
      store: (key, entry, lease) => call("store", inner.store(key, entry, lease)),
      invalidate: (request) => {
        invalidations.push(request)
        return call("invalidate", inner.invalidate(request))
      }
    })
  }
}
