/**
 * What lets a process serve what it holds itself, by the option `coherence`.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Redis from "effect/persistence/Redis"
import type * as Scope from "effect/Scope"
import type { CacheError } from "../../CacheError.ts"
import type * as CacheStore from "../../CacheStore.ts"
import * as Dependency from "../../Dependency.ts"
import type { MemoryTable } from "../memoryTable.ts"
import { channelOf, type RedisOperations } from "../redis/store.ts"
import * as Backplane from "./backplane.ts"
import type { Changes } from "./changes.ts"
import { momentOf, type Plane } from "./plane.ts"

export interface Coherence {
  /** Whether what is held may be served without asking. */
  readonly peeks: boolean
  /** Whether each entry is held together with the clock at which it was valid. */
  readonly keepsClocks: boolean
  /** Whether what is held may be served, as far as time goes. `nowMillis` is by the wall clock. */
  readonly serves: (namespace: string, nowMillis: number) => boolean
  /** What must be known before a hit of L2 may be served, unless it is. */
  readonly proof: (namespace: string, nowMillis: number) => Effect.Effect<unknown, CacheError> | undefined
  /** How far the invalidations have been applied to all that is held; `undefined` where nobody knows. */
  readonly applied: (namespace: string) => CacheStore.Clocks | undefined
  /** Whether what was valid in Redis at a clock may be held. */
  readonly mayFill: (namespace: string, at: CacheStore.LogicalClock) => boolean
  /** Whether each of the entries that are held is valid still, and at which clock: good for a fill that replaces it. */
  readonly confirm: (
    namespace: string,
    entries: ReadonlyArray<
      { readonly dependencies: Dependency.DependencySet; readonly at: CacheStore.LogicalClock | undefined }
    >
  ) => Effect.Effect<ReadonlyArray<CacheStore.LogicalClock | undefined>, CacheError>
  /** Redis has answered a write of this process. */
  readonly wrote: (request: CacheStore.InvalidateRequest, at: CacheStore.Clocks) => void
  /** For how long what is asked for now may be held at most. */
  readonly maxHeldMillis: number
}

export interface Options {
  readonly shared: RedisOperations
  readonly table: MemoryTable
  readonly maxStalenessMillis: number
  readonly changes: Changes
}

/** Redis tells what was invalidated: plane.ts. */
export const backplane = (
  redis: Redis.Redis["Service"],
  prefix: string,
  options: Options
): Effect.Effect<Coherence, never, Scope.Scope> =>
  Effect.map(Backplane.make({ redis, channel: channelOf(prefix), ...options }), (backplane) => {
    // Most programs have one namespace.
    let last: Plane | undefined
    const find = (namespace: string): Plane | undefined =>
      last?.namespace === namespace ? last : last = backplane.find(namespace)
    return {
      peeks: true,
      keepsClocks: false,
      serves: (namespace, nowMillis) => find(namespace)?.isFresh(nowMillis) === true,
      proof: (namespace, nowMillis) => {
        const plane = last = backplane.planeOf(namespace)
        return plane.isProven(nowMillis) ? undefined : backplane.prove(plane)
      },
      applied: (namespace) => find(namespace)?.clocks,
      mayFill: (namespace, at) => find(namespace)?.mayFill(at) === true,
      confirm: (namespace, entries) => {
        const lease = find(namespace)!.lease()
        return Effect.succeed(entries.map(() => lease))
      },
      wrote: (request, [at]) => {
        last = backplane.planeOf(request.namespace)
        last.wasUsed = true
        last.wrote(request, at)
      },
      maxHeldMillis: Infinity
    }
  })

/** Redis is asked each time, for the stamps only. */
export const revalidate = (options: Options): Coherence => ({
  peeks: false,
  keepsClocks: true,
  serves: () => true,
  proof: () => undefined,
  applied: () => undefined,
  mayFill: () => true,
  confirm: (namespace, entries) =>
    options.shared.hold(namespace, entries.map(({ at, dependencies }) => ({ at: at!, dependencies }))),
  wrote: (request, at) => apply(options, request, at),
  maxHeldMillis: Infinity
})

// How far the clocks may drift apart between two looks at them before one of them was set, or stood still.
const maxDriftMillis = 50

/** Nobody is asked, so it is held for a short time only, by both clocks. */
export const ttl = (options: Options): Effect.Effect<Coherence> =>
  Effect.map(Clock.Clock, (clock) => {
    const offset = () => {
      const { millis, nanos } = momentOf(clock)
      return millis - Number(nanos) / 1e6
    }
    let judgedMillis = NaN
    let lastOffset = offset()
    const namespaces = new Set<string>()
    return {
      peeks: true,
      keepsClocks: true,
      serves: (_, nowMillis) => {
        if (nowMillis !== judgedMillis) {
          judgedMillis = nowMillis
          const now = offset()
          // What is held says when it was asked for by the wall clock alone.
          if (Math.abs(now - lastOffset) > maxDriftMillis) {
            for (const namespace of namespaces) options.table.invalidate({ namespace, ...Dependency.allTargets })
          }
          lastOffset = now
        }
        return true
      },
      proof: () => undefined,
      applied: () => undefined,
      mayFill: (namespace) => {
        namespaces.add(namespace)
        return true
      },
      confirm: (_, entries) => Effect.succeed(entries.map(({ at }) => at)),
      wrote: (request, at) => apply(options, request, at),
      maxHeldMillis: options.maxStalenessMillis
    }
  })

const apply = (
  { changes, table }: Options,
  request: CacheStore.InvalidateRequest,
  [{ clock, epoch }]: CacheStore.Clocks
): void => {
  const { all, stamps } = table.invalidate(request)
  changes.publish({ namespace: request.namespace, epoch, clock, all, stamps })
}
