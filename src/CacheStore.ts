/**
 * Where cached answers live, and what decides that one may still be served.
 *
 * A store knows nothing of SQL. It keeps values under keys, each with the
 * dependencies it derives from, and a logical clock per namespace:
 *
 * - a `lookup` that misses registers the dependencies of what is about to be
 *   read and returns the clock as a *lease*;
 * - `store` fills under that lease;
 * - `invalidate` advances the clock and stamps dependencies with it.
 *
 * An entry is valid exactly while each of its dependencies is known and none
 * has been stamped since its lease. A fill that comes late is refused by the
 * same comparison, so a fill never beats an invalidation. Nothing has to be
 * deleted for that to hold, and deleting anything, the stamps included, only
 * turns hits into misses.
 *
 * Stores exchange decoded values. One that keeps bytes uses the codec of the
 * key. What they all promise is in test/CacheStoreTest.ts, a suite that every
 * store passes.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"
import type { CacheError } from "./CacheError.ts"
import type { DependencySet, Targets } from "./Dependency.ts"
import { MemoryTable } from "./internal/memoryTable.ts"
import * as Options from "./internal/options.ts"

/**
 * The service. See the module's own text for the protocol its methods form.
 *
 * @category services
 * @since 0.1.0
 */
export class CacheStore extends Context.Service<CacheStore, {
  /**
   * Whether other processes see what is stored here. A shared store needs a
   * namespace that names the database.
   */
  readonly shared: boolean

  /** In how many shards, which may fail one by one, it keeps a namespace. Defaults to 1. */
  readonly shards?: number | undefined

  /**
   * What this process may serve at once, if there is something: a valid entry,
   * stale though it may be. Synchronous, costs no effect, and never asks another
   * process. `nowMillis` is the time of the caller's `Clock`.
   */
  readonly peek: (key: CacheKey, nowMillis: number) => Kept | undefined

  /**
   * Asks for the entry of a key.
   *
   * A hit is valid for its own dependencies *and* the caller's, which may
   * differ where two policies share a statement. Whatever is no hit has
   * registered the caller's dependencies, and its lease is what `store` wants.
   *
   * An entry that is `maxAgeMillis` old or older is stale for this caller, as
   * one is for all whose time to live has passed.
   *
   * Of the processes that ask for what is not there one is told to read it
   * (`Miss`, or `Stale` with `waiting: false`); it owes a `store` or a `release`
   * under the lease. The others are told to wait, until it did, or died.
   *
   * What this process holds answers only if it is valid at a clock that `since`
   * accepts. Whether the outcome's own clock is one is for the caller to see.
   */
  readonly lookup: (
    key: CacheKey,
    dependencies: DependencySet,
    maxAgeMillis?: number,
    since?: Since
  ) => Effect.Effect<Outcome, CacheError>

  /**
   * Several lookups in one round trip; outcomes in the order of the requests.
   * All keys must be of one namespace.
   */
  readonly lookupMany: (requests: ReadonlyArray<LookupRequest>) => Effect.Effect<ReadonlyArray<Outcome>, CacheError>

  /**
   * Fills a key under a lease, and ends its flight. `"refused"` when a dependency
   * was invalidated since, or when what the lease was given for is gone.
   */
  readonly store: (key: CacheKey, entry: Entry, lease: Lease) => Effect.Effect<"accepted" | "refused", CacheError>

  /**
   * Several fills in one round trip; verdicts in the order of the requests.
   * All keys must be of one namespace.
   */
  readonly storeMany: (
    requests: ReadonlyArray<StoreRequest>
  ) => Effect.Effect<ReadonlyArray<"accepted" | "refused">, CacheError>

  /** Ends the flight of a lease without a fill, and says who is to read from then on: `"all"` unless given. */
  readonly release: (key: CacheKey, lease: Lease, heirs?: Heirs) => Effect.Effect<void, CacheError>

  /**
   * Marks what a change touched. When the effect succeeds, no entry that
   * depends on it is served by this store again. Calling it twice does no harm.
   *
   * A store in several shards asks all of them at once, and fails where one of them
   * has not answered; what the others have marked stays marked.
   */
  readonly invalidate: (invalidation: InvalidateRequest) => Effect.Effect<Clocks, CacheError>

  /**
   * The invalidations this store sees from the moment of subscription on, its
   * own and, where it shares its data, those of others.
   */
  readonly changes: Stream.Stream<Invalidation, CacheError>

  /**
   * How far what {@link peek} gives has come: it reflects every invalidation up to these clocks. The same array for
   * as long as they are. `undefined` where nobody knows.
   */
  readonly applied: (namespace: string) => Clocks | undefined

  /** By shard, the highest clocks that this store has told or published in this process, where there are any. */
  readonly seen: (namespace: string) => ReadonlyArray<LogicalClock | undefined>

  /** Where the store is kept strict: what writers and those who meet their fences need besides. */
  readonly strict?: Strict | undefined
}>()("effect-query-cache/CacheStore") {}

/**
 * A reading of a store's logical clock. `epoch` names the life of the store's
 * metadata: clocks of two epochs do not compare.
 *
 * @category models
 * @since 0.1.0
 */
export interface LogicalClock {
  readonly epoch: string
  readonly clock: number
}

/**
 * The clocks of all shards of a store, by shard, and behind them of those that other processes use besides. Most stores
 * have one.
 *
 * @category models
 * @since 0.1.0
 */
export type Clocks = ReadonlyArray<LogicalClock>

/**
 * Whether what is valid at a clock is new enough for who asks: it reflects what a session has written elsewhere.
 *
 * @category models
 * @since 0.1.0
 */
export type Since = (at: LogicalClock) => boolean

/**
 * The clock at the time of a miss: what a fill is judged by.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lease extends LogicalClock {
  /** The flight that the lease was given for, where the store knows of flights in other processes. */
  readonly flight?: string | undefined
}

/**
 * Who reads what somebody was told to read and has given up.
 *
 * - `"all"`: those who wait, and those who come within the next second, each for
 *   themselves. Where the query failed or its value could not be stored: the next
 *   one would fare no better, and they would queue up behind each other.
 * - `"next"`: the next one who asks, and the others wait for that one. Where nobody
 *   has found out how the query ends, since whoever began it has left.
 *
 * @category models
 * @since 0.1.0
 */
export type Heirs = "all" | "next"

/**
 * Which value.
 *
 * **Details**
 *
 * In one process a value is named by `space` and `local`, which need no
 * hashing: a statement's form in its context, and its parameters. Between
 * processes the same facts are the `fingerprint`, computed when first asked
 * for.
 *
 * @category models
 * @since 0.1.0
 */
export interface CacheKey {
  readonly namespace: string
  readonly space: string
  readonly local: string | number | bigint
  readonly fingerprint: string
  readonly codec: Codec
}

/**
 * How a value becomes text and back.
 *
 * @category models
 * @since 0.1.0
 */
export interface Codec {
  /** `undefined` where the value cannot be represented exactly. */
  readonly encode: (value: unknown) => string | undefined
  /** Throws where the text is not one that `encode` returns. */
  readonly decode: (text: string) => unknown
}

/**
 * What is filled.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  readonly value: unknown
  readonly dependencies: DependencySet
  readonly timeToLiveMillis: number
  /** For how long after its time to live it is kept, to be served stale. Defaults to 0. */
  readonly retainMillis?: number | undefined
  /** How long it took to read the value. Defaults to 0. */
  readonly costMillis?: number | undefined
  /** About how much memory `value` takes. */
  readonly bytes: number
  /**
   * How many bytes the entries of its space take together at most, in this process: the oldest make way.
   * Without it they may take all there is.
   */
  readonly maxSpaceBytes?: number | undefined
}

/**
 * What a lookup answers.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome = Hit | Stale | Miss | Wait | Bypass

/**
 * A valid entry: none of its dependencies was invalidated since its lease.
 *
 * @category models
 * @since 0.1.0
 */
export interface Kept {
  readonly level: "L1" | "L2"
  readonly value: unknown
  /** When it was filled, by the caller's `Clock`. */
  readonly storedAtMillis: number
  /** When its time to live passes, by the caller's `Clock`. From then on it is stale. */
  readonly expiresAtMillis: number
  /** How long it took to read the value. */
  readonly costMillis: number
  /** The dependencies it was filled with, where the store keeps them at hand. */
  readonly dependencies: DependencySet | undefined
  /** About how much memory `value` takes, where the store has just made it. */
  readonly bytes?: number | undefined
}

/**
 * An entry whose time has not passed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Hit extends Kept {
  readonly _tag: "Hit"
  /** The clock at which it was valid; for a fill that replaces it, too. */
  readonly lease: Lease
}

/**
 * An entry whose time has passed and that is kept still.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stale extends Kept {
  readonly _tag: "Stale"
  /** For a fill that replaces it. */
  readonly lease: Lease
  /** Whether another process reads it anew already. Else this one is asked to. */
  readonly waiting: boolean
}

/**
 * No value, and the right to fill one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Miss {
  readonly _tag: "Miss"
  readonly lease: Lease
  readonly reason: MissReason
}

/**
 * No value, and another process is reading it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Wait {
  readonly _tag: "Wait"
  /** For those who do not wait. */
  readonly lease: Lease
  /** For how long the other process may still be waited for. */
  readonly remainingMillis: number
}

/**
 * No value, and no right to fill one, of a store that is kept strict: what is read
 * from the database now may be overtaken before anybody is told.
 *
 * @category models
 * @since 0.1.0
 */
export type Bypass = Fenced | Closed

/**
 * A write of a dependency is about to be committed, or was, and its invalidation has
 * yet to come.
 *
 * @category models
 * @since 0.1.0
 */
export interface Fenced {
  readonly _tag: "Bypass"
  readonly reason: "fenced"
  /** Nothing is accepted under it. */
  readonly lease: Lease
  /** Those whose time has passed. This caller is asked to find out about them, and nobody else is for a while. */
  readonly expired: ReadonlyArray<ExpiredFence>
}

/**
 * The store has lost what it knew, and with it perhaps fences: nothing is served
 * until the writes that were under way then have ended.
 *
 * @category models
 * @since 0.1.0
 */
export interface Closed extends Omit<BarrierState, "isOpen"> {
  readonly _tag: "Bypass"
  readonly reason: "barrier"
  /** Nothing is accepted under it. */
  readonly lease: Lease
}

/**
 * A fence of which nobody has said in time what became of its write.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExpiredFence {
  readonly token: string
  /** The id of the transaction, as PostgreSQL's `xid8` is written. */
  readonly transaction: string
}

/**
 * What is waited for in an epoch before anything is served.
 *
 * @category models
 * @since 0.1.0
 */
export interface BarrierState {
  readonly epoch: string
  readonly isOpen: boolean
  /** A transaction that began after the epoch did: all that began before it must have ended. */
  readonly transaction: string | undefined
}

/**
 * A fence to be put up: what a transaction has touched that is about to commit.
 *
 * @category models
 * @since 0.1.0
 */
export interface FenceRequest extends InvalidateRequest {
  /** Names it. Never used again. */
  readonly token: string
  readonly transaction: string
}

/**
 * What a store does besides that is kept strict.
 *
 * **Details**
 *
 * While a fence is up nothing that depends on what it stands on is served or stored by
 * any process. It goes with an invalidation that names it in `fences`, or by `resolve`.
 * Its time passing does not lift it: whoever meets it then is asked to find out what
 * became of its transaction.
 *
 * @category models
 * @since 0.1.0
 */
export interface Strict {
  /** Puts up a fence. Only where the effect succeeds is it certain to stand. */
  readonly fence: (request: FenceRequest) => Effect.Effect<ReadonlyArray<ExpiredFence>, CacheError>
  /**
   * Says what became of a fence's transaction. `"committed"`, also where nobody knows:
   * what it stands on is invalidated, and it is lifted; `"aborted"`: it is lifted;
   * `"running"`: it is given time.
   */
  readonly resolve: (
    namespace: string,
    token: string,
    verdict: "committed" | "aborted" | "running"
  ) => Effect.Effect<void, CacheError>
  /** Names a transaction that began after the epoch, or says that all from before it have ended. */
  readonly barrier: (
    namespace: string,
    barrier: { readonly epoch: string; readonly transaction: string; readonly isPassed: boolean }
  ) => Effect.Effect<BarrierState, CacheError>
}

/**
 * Why there was no value: none was there, its time had passed, a dependency was
 * invalidated, or what was there could not be read.
 *
 * @category models
 * @since 0.1.0
 */
export type MissReason = "absent" | "expired" | "invalidated" | "undecodable"

/**
 * One of several lookups.
 *
 * @category models
 * @since 0.1.0
 */
export interface LookupRequest {
  readonly key: CacheKey
  readonly dependencies: DependencySet
  readonly maxAgeMillis?: number | undefined
  readonly since?: Since | undefined
}

/**
 * One of several fills.
 *
 * @category models
 * @since 0.1.0
 */
export interface StoreRequest {
  readonly key: CacheKey
  readonly entry: Entry
  readonly lease: Lease
}

/**
 * What a change touched, in which namespace.
 *
 * @category models
 * @since 0.1.0
 */
export interface InvalidateRequest extends Targets {
  readonly namespace: string
  /**
   * Which shards have it already, and at which clocks, where the same is asked again
   * because some did not answer. Those are left out, and the others are added.
   */
  readonly delivered?: Map<number, LogicalClock> | undefined
  /** The tokens of the fences that are lifted with it, of a store that is kept strict. */
  readonly fences?: ReadonlyArray<string> | undefined
}

/**
 * An invalidation that took effect. Images have become the stamps they marked.
 *
 * @category models
 * @since 0.1.0
 */
export interface Invalidation extends LogicalClock {
  readonly namespace: string
  /** In which of the store's shards: it says nothing of what the others hold. 0 where there is one. */
  readonly shard: number
  readonly stamps: ReadonlyArray<string>
  readonly all: boolean
}

/**
 * Options of {@link layerMemory}.
 *
 * @category options
 * @since 0.1.0
 */
export interface MemoryOptions {
  /** How many entries at most. Defaults to 10,000. */
  readonly capacity?: number | undefined
  /** How many bytes of values at most, as estimated when they are filled. Defaults to 64 MiB. */
  readonly maxBytes?: number | undefined
}

/**
 * A store in this process, bounded by entries and by bytes.
 *
 * **Details**
 *
 * When it is full, SIEVE decides what leaves (Zhang, Yang, Yue, Vigfusson,
 * Rashmi: "SIEVE is Simpler than LRU", NSDI 2024). Invalidation costs what the
 * stamps cost, however many entries there are: entries that have become invalid
 * are noticed when they are asked for, or leave by eviction.
 *
 * **Gotchas**
 *
 * Other processes do not see its invalidations, nor it theirs.
 *
 * **Example** (A small store)
 *
 * ```ts
 * import { CacheStore } from "effect-query-cache"
 *
 * export const Store = CacheStore.layerMemory({ capacity: 1_000, maxBytes: 8 * 1024 * 1024 })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (options?: MemoryOptions): Layer.Layer<CacheStore> => {
  const owner = "CacheStore.layerMemory"
  Options.known(owner, options, ["capacity", "maxBytes"])
  const capacity = Options.count(owner, "capacity", options?.capacity, 10_000)
  const maxBytes = Options.count(owner, "maxBytes", options?.maxBytes, 64 * 1024 * 1024)
  return Layer.effect(
    CacheStore,
    Effect.gen(function*() {
      const table = new MemoryTable({ capacity, maxBytes })
      const changes = yield* PubSub.sliding<Invalidation>(1024)
      const now = Clock.currentTimeMillis
      return CacheStore.of({
        shared: false,
        peek: (key, nowMillis) => table.peek(key, nowMillis),
        lookup: (key, dependencies, maxAgeMillis) =>
          Effect.map(now, (millis) => table.lookup(key, dependencies, millis, maxAgeMillis)),
        lookupMany: (requests) =>
          Effect.map(
            now,
            (millis) =>
              requests.map((request) => table.lookup(request.key, request.dependencies, millis, request.maxAgeMillis))
          ),
        store: (key, entry, lease) => Effect.map(now, (millis) => table.store(key, entry, lease, millis)),
        storeMany: (requests) =>
          Effect.map(
            now,
            (millis) => requests.map((request) => table.store(request.key, request.entry, request.lease, millis))
          ),
        // The readers of one process share their flights already.
        release: () => Effect.void,
        invalidate: (request) =>
          Effect.suspend(() => {
            const invalidation = table.invalidate(request)
            return Effect.as(PubSub.publish(changes, invalidation), [invalidation])
          }),
        changes: Stream.fromPubSub(changes),
        // Own writes are seen at once, and those of others never.
        applied: () => undefined,
        seen: () => []
      })
    })
  )
}
