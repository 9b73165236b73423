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
  readonly serves: (key: CacheStore.CacheKey, nowMillis: number) => boolean
  /** What must be known before hits of L2 may be served, unless it is: for what was asked, what waits for it. */
  readonly proof: (requests: ReadonlyArray<CacheStore.LookupRequest>, nowMillis: number) => Proof | undefined
  /** How far the invalidations have been applied to all that is held; `undefined` where nobody knows. */
  readonly applied: (namespace: string) => CacheStore.Clocks | undefined
  /** Whether what was valid in Redis at a clock may be held. */
  readonly mayFill: (key: CacheStore.CacheKey, at: CacheStore.LogicalClock) => boolean
  /** Whether each of the entries that are held is valid still, and at which clock: good for a fill that replaces it. */
  readonly confirm: (
    namespace: string,
    entries: ReadonlyArray<HeldEntry>
  ) => Effect.Effect<ReadonlyArray<CacheStore.LogicalClock | undefined>, CacheError>
  /** Redis has answered a write of this process. */
  readonly wrote: (request: CacheStore.InvalidateRequest, at: CacheStore.Clocks) => void
  /** For how long what is asked for now may be held at most. */
  readonly maxHeldMillis: number
}

/** An entry that is held, and the clock at which it was valid, where it is kept. */
export interface HeldEntry {
  readonly key: CacheStore.CacheKey
  readonly dependencies: Dependency.DependencySet
  readonly at: CacheStore.LogicalClock | undefined
}

export type Proof = (outcomes: ReadonlyArray<CacheStore.Outcome>) => Effect.Effect<unknown, CacheError>

export interface Options {
  readonly shared: RedisOperations & { readonly shards: number }
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
    const { shardOf } = options.shared
    // Most programs have one namespace.
    let last: Backplane.Planes | undefined
    const find = (namespace: string): Backplane.Planes | undefined =>
      last?.[0].namespace === namespace ? last : last = backplane.find(namespace)
    let applied: ReadonlyArray<CacheStore.LogicalClock | undefined> = []
    const planeOf = (key: CacheStore.CacheKey): Plane | undefined => {
      const planes = find(key.namespace)
      return planes === undefined || planes.length === 1 ? planes?.[0] : planes[shardOf(key)]
    }
    return {
      peeks: true,
      keepsClocks: false,
      serves: (key, nowMillis) => {
        const planes = find(key.namespace)
        if (planes === undefined) return false
        for (let shard = 0; shard < planes.length; shard++) {
          // The shard of a key is only found out where it makes a difference: that takes its fingerprint.
          if (!planes[shard].isFresh(nowMillis)) return planes.length > 1 && planeOf(key)!.isFresh(nowMillis)
        }
        return true
      },
      proof: (requests, nowMillis) => {
        const planes = last = backplane.planesOf(requests[0].key.namespace)
        const shards = requests.map(({ key }) => shardOf(key))
        const unproven = new Map<number, Effect.Effect<unknown, CacheError>>()
        for (const shard of shards) {
          if (unproven.has(shard) || planes[shard].isProven(nowMillis)) continue
          unproven.set(shard, backplane.prove(planes[shard]))
        }
        return unproven.size === 0 ? undefined : (outcomes) => {
          const needed = new Set(shards.filter((_, i) => outcomes[i]._tag === "Hit"))
          // One who was given a flight has seen Redis write.
          outcomes.forEach(({ lease }, i) => lease.flight && needed.delete(shards[i]))
          return Effect.all([...needed].flatMap((shard) => unproven.get(shard) ?? []), { concurrency: "unbounded" })
        }
      },
      applied: (namespace) => {
        const planes = find(namespace)
        if (planes === undefined) return undefined
        if (planes.length !== applied.length || planes.some(({ clock }, shard) => clock !== applied[shard])) {
          applied = planes.map(({ clock }) => clock)
        }
        return applied.includes(undefined) ? undefined : applied as CacheStore.Clocks
      },
      mayFill: (key, at) => planeOf(key)?.mayFill(at) === true,
      confirm: (_, entries) => Effect.succeed(entries.map(({ key }) => planeOf(key)!.lease())),
      wrote: (request, clocks) => {
        const planes = last = backplane.planesOf(request.namespace)
        clocks.forEach((at, shard) => {
          planes[shard].wasUsed = true
          planes[shard].wrote(request, at)
        })
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
      mayFill: ({ namespace }) => {
        namespaces.add(namespace)
        return true
      },
      confirm: (_, entries) => Effect.succeed(entries.map(({ at }) => at)),
      wrote: (request, at) => apply(options, request, at),
      maxHeldMillis: options.maxStalenessMillis
    }
  })

const apply = ({ changes, table }: Options, request: CacheStore.InvalidateRequest, at: CacheStore.Clocks): void => {
  const { all, stamps } = table.invalidate(request)
  at.forEach(({ clock, epoch }, shard) =>
    changes.publish({ namespace: request.namespace, shard, epoch, clock, all, stamps })
  )
}
