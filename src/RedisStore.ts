/**
 * A store in Redis, shared by all processes that use the same prefix.
 *
 * Each of its operations is one script and one round trip. Redis 6.2 or later is
 * needed, Valkey included, without modules. How the scripts decide is told in
 * internal/redis/scripts.ts.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Stream from "effect/Stream"
import { CacheError, InvalidOptionError, InvalidReply } from "./CacheError.ts"
import {
  type CacheKey,
  CacheStore,
  type Hit,
  type LogicalClock,
  type LookupRequest,
  type Miss,
  type Outcome,
  type StoreRequest
} from "./CacheStore.ts"
import type { DependencySet } from "./Dependency.ts"
import * as Options from "./internal/options.ts"
import * as Background from "./internal/redis/background.ts"
import * as Replies from "./internal/redis/replies.ts"
import * as Scripts from "./internal/redis/scripts.ts"
import * as Wire from "./internal/redis/wire.ts"

/**
 * Options of {@link layer}.
 *
 * @category options
 * @since 0.1.0
 */
export interface RedisStoreOptions {
  /**
   * How entries lie in Redis. Defaults to `"flat"`.
   *
   * - `"flat"`: a key per entry.
   * - `"grouped"`: entries with the same dependencies share a hash, which is dropped
   *   as a whole when one of them was invalidated. Frees memory earlier where many
   *   queries depend on the same few tables.
   */
  readonly layout?: "flat" | "grouped" | undefined
  /** What the names of all keys and of the channel begin with, without braces. Defaults to `"eqc"`. */
  readonly prefix?: string | undefined
  /**
   * About how many stamps a namespace registers at most. Beyond, some are forgotten, and what depends
   * on them is read again. Defaults to 200,000, about 20 MB.
   */
  readonly maxDependencies?: number | undefined
}

/**
 * A store in Redis.
 *
 * **Details**
 *
 * Nothing is sent when the layer is built, so a Redis that is away does not keep a
 * program from starting. There are no time-outs here: the read path and the write
 * path bound every call.
 *
 * A namespace takes two keys without TTL, `<prefix>:{<namespace>:0}:meta` and
 * `...:stamps`. Losing either, by eviction too, only turns hits into misses; a
 * `maxmemory-policy` of the `volatile-*` kind keeps them. Everything else has a TTL.
 *
 * Invalidations are published on `<prefix>:changes`. A user with restricted rights
 * needs `~<prefix>:*`, `&<prefix>:*`, `+@connection`, `+@pubsub`, `+@read`,
 * `+@scripting`, `+@write` and `+time`, and should have `+info`: without it the store
 * notices a failover only where a clock that this process has seen runs backwards.
 *
 * **Gotchas**
 *
 * Values pass as text, by the key's codec. A hit carries the dependencies it was
 * filled with only where they are those that were asked for.
 *
 * **Example** (Redis over TCP)
 *
 * ```ts
 * import * as NodeRedis from "@effect/platform-node/NodeRedis"
 * import { Layer } from "effect"
 * import { RedisStore } from "effect-query-cache"
 *
 * export const Store = RedisStore.layer({ prefix: "shop" }).pipe(
 *   Layer.provide(NodeRedis.layer({ url: "redis://localhost:6379" }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: RedisStoreOptions): Layer.Layer<CacheStore, never, Redis.Redis> => {
  const owner = "RedisStore.layer"
  Options.known(owner, options, ["layout", "prefix", "maxDependencies"])
  const layout = Options.oneOf(owner, "layout", options?.layout, ["flat", "grouped"], "flat")
  const prefix = Options.text(owner, "prefix", options?.prefix ?? "eqc")
  if (/[{}]/.test(prefix)) throw new InvalidOptionError(owner, "prefix", prefix, "without braces")
  const maxDependencies = Options.count(owner, "maxDependencies", options?.maxDependencies, 200_000)
  return Layer.effect(
    CacheStore,
    Effect.map(Redis.Redis, (redis) => make(redis, layout, prefix, maxDependencies))
  )
}

/**
 * Connects a Redis in the background, so that one which is away does not keep a
 * program from starting.
 *
 * **When to use**
 *
 * Put it around a layer that connects when it is built, such as `NodeRedis.layer`.
 *
 * **Details**
 *
 * The layer is built at once. Until the connection stands every command fails, so
 * the database answers; it is tried again after 0.1 to 5 seconds, without end.
 * A wrong password is such a failure too: it is counted with the store's other
 * errors and logged, and no attempt ends the program.
 *
 * **Example** (A program that starts without its Redis)
 *
 * ```ts
 * import * as NodeRedis from "@effect/platform-node/NodeRedis"
 * import { Layer } from "effect"
 * import { RedisStore } from "effect-query-cache"
 *
 * export const Store = RedisStore.layer().pipe(
 *   Layer.provide(RedisStore.connectInBackground(NodeRedis.layer({ url: "redis://localhost:6379" })))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const connectInBackground: <E, R>(
  redis: Layer.Layer<Redis.Redis, E, R>
) => Layer.Layer<Redis.Redis, never, R> = Background.layer

const make = (
  redis: Redis.Redis["Service"],
  layout: Scripts.Layout,
  prefix: string,
  maxDependencies: number
): CacheStore["Service"] => {
  const channel = `${prefix}:changes`
  const evalLookup = redis.eval(Scripts.lookup[layout])
  const evalStore = redis.eval(Scripts.store[layout])
  const evalInvalidate = redis.eval(Scripts.invalidate)
  const nonces = makeNonces()
  const namespaces = new Map<string, Namespace>()

  const namespaceOf = (name: string): Namespace => {
    let namespace = namespaces.get(name)
    if (namespace === undefined) namespaces.set(name, namespace = new Namespace(prefix, name))
    return namespace
  }

  const headOf = (namespace: Namespace): Scripts.Head => ({
    nonce: nonces(),
    seenEpoch: namespace.seen?.epoch ?? "",
    seenClock: namespace.seen?.clock ?? 0,
    channel,
    namespace: namespace.keys.namespace
  })

  const addressOf = (namespace: Namespace, key: CacheKey, set: Wire.WireSet, index: number): Scripts.EntryAddress =>
    layout === "flat"
      ? { keys: [namespace.keys.entry(key.fingerprint)], field: "", set: index }
      : { keys: namespace.keys.group(set, key.fingerprint), field: `f:${Wire.name(key.fingerprint)}`, set: index }

  const lookupBatch = (requests: ReadonlyArray<LookupRequest>): Effect.Effect<ReadonlyArray<Outcome>, CacheError> =>
    // The time before the round trip: what it takes makes an answer seem older, never younger.
    Effect.flatMap(Clock.currentTimeMillis, (nowMillis) => {
      const namespace = namespaceOf(namespaceOfAll(requests))
      const sets = new Sets()
      const entries = requests.map(({ dependencies, key }) =>
        addressOf(namespace, key, Wire.set(dependencies), sets.index(dependencies))
      )
      return run(
        "lookup",
        evalLookup({
          head: headOf(namespace),
          keys: [namespace.keys.meta, namespace.keys.stamps],
          maxDependencies,
          sets: sets.list,
          entries
        }),
        (reply) => Replies.found(reply, requests.length)
      ).pipe(Effect.map((found) => {
        namespace.saw(found)
        return found.outcomes.map((outcome, i) => toOutcome(outcome, requests[i], found, nowMillis))
      }))
    })

  const storeBatch = (
    requests: ReadonlyArray<StoreRequest>
  ): Effect.Effect<ReadonlyArray<"accepted" | "refused">, CacheError> =>
    Effect.suspend(() => {
      const namespace = namespaceOf(namespaceOfAll(requests))
      const verdicts: Array<"accepted" | "refused"> = requests.map(() => "refused")
      const sets = new Sets()
      const entries: Array<Scripts.StoreEntry> = []
      const places: Array<number> = []
      requests.forEach(({ entry, key, lease }, place) => {
        const value = key.codec.encode(entry.value)
        if (value === undefined || !isWellFormed(value)) return
        places.push(place)
        entries.push({
          ...addressOf(namespace, key, Wire.set(entry.dependencies), sets.index(entry.dependencies)),
          epoch: lease.epoch,
          lease: lease.clock,
          ttlMillis: Math.min(Math.max(1, Math.floor(entry.timeToLiveMillis)), maxTtlMillis),
          value
        })
      })
      if (entries.length === 0) return Effect.succeed(verdicts)
      return run(
        "store",
        evalStore({
          head: headOf(namespace),
          keys: [namespace.keys.meta, namespace.keys.stamps],
          sets: sets.list,
          entries
        }),
        (reply) => Replies.stored(reply, entries.length)
      ).pipe(Effect.map((stored) => {
        if (stored.at !== undefined) namespace.saw(stored.at)
        stored.verdicts.forEach((verdict, i) => {
          verdicts[places[i]] = verdict
        })
        return verdicts
      }))
    })

  return CacheStore.of({
    shared: true,
    peek: () => undefined,
    lookup: (key, dependencies) => Effect.map(lookupBatch([{ key, dependencies }]), ([outcome]) => outcome),
    lookupMany: inBatches(lookupBatch),
    store: (key, entry, lease) => Effect.map(storeBatch([{ key, entry, lease }]), ([verdict]) => verdict),
    storeMany: inBatches(storeBatch),
    invalidate: (request) =>
      Effect.suspend(() => {
        const namespace = namespaceOf(request.namespace)
        return run(
          "invalidate",
          evalInvalidate({
            head: headOf(namespace),
            keys: [namespace.keys.meta, namespace.keys.stamps, namespace.keys.scratch],
            ...Wire.targets(request),
            groups: layout === "flat"
              ? []
              : Wire.tables(request).slice(0, maxTablesDropped).flatMap((table) => namespace.keys.groupsOfTable(table))
          }),
          Replies.invalidated
        ).pipe(Effect.map((clock) => {
          namespace.saw(clock)
          return clock
        }))
      }),
    changes: Stream.unwrap(Effect.map(redis.subscribe(channel), Stream.fromQueue)).pipe(
      Stream.mapError((error) => new CacheError({ operation: "subscribe", reason: Replies.reasonOf(error) })),
      Stream.mapEffect(({ message }) => {
        const change = Wire.change(message)
        return change !== undefined ? Effect.succeed(change) : Effect.fail(
          new CacheError({
            operation: "subscribe",
            reason: new InvalidReply({ message: "a message on the channel of invalidations cannot be read" })
          })
        )
      })
    )
  })
}

// About 140 years.
const maxTtlMillis = 2 ** 42

const maxTablesDropped = 16

// A script holds up everybody else's while it runs.
const maxBatch = 1_000

const inBatches =
  <A, B>(batch: (requests: ReadonlyArray<A>) => Effect.Effect<ReadonlyArray<B>, CacheError>) =>
  (requests: ReadonlyArray<A>): Effect.Effect<ReadonlyArray<B>, CacheError> => {
    if (requests.length === 0) return Effect.succeed([])
    if (requests.length <= maxBatch) return batch(requests)
    const batches = Array.from(
      { length: Math.ceil(requests.length / maxBatch) },
      (_, i) => requests.slice(i * maxBatch, (i + 1) * maxBatch)
    )
    return Effect.map(Effect.forEach(batches, batch, { concurrency: "unbounded" }), (answers) => answers.flat())
  }

const run = <A>(
  operation: "lookup" | "store" | "invalidate",
  effect: Effect.Effect<unknown, Redis.RedisError>,
  decode: (reply: unknown) => A
): Effect.Effect<A, CacheError> =>
  effect.pipe(
    Effect.flatMap((reply) =>
      Effect.try({ try: () => decode(reply), catch: (error) => error as Replies.UnexpectedReply })
    ),
    Effect.mapError((error) => new CacheError({ operation, reason: Replies.reasonOf(error) }))
  )

const toOutcome = (
  outcome: Replies.FoundOutcome,
  { dependencies, key }: LookupRequest,
  { clock, epoch }: LogicalClock,
  nowMillis: number
): Hit | Miss => {
  const lease = { epoch, clock }
  if (outcome._tag === "miss") return { _tag: "Miss", lease, reason: outcome.reason }
  let value: unknown
  try {
    value = key.codec.decode(outcome.value)
  } catch {
    // It was a hit, so the caller's dependencies are registered and the lease is good for a fill.
    return { _tag: "Miss", lease, reason: "undecodable" }
  }
  return {
    _tag: "Hit",
    level: "L2",
    value,
    storedAtMillis: nowMillis - outcome.ageMillis,
    dependencies: outcome.same ? dependencies : undefined,
    lease
  }
}

/** What this process knows of a namespace. */
class Namespace {
  readonly keys: Wire.Keys
  /** The highest clock seen, by which a Redis that went back is noticed. */
  seen: LogicalClock | undefined

  constructor(prefix: string, name: string) {
    this.keys = new Wire.Keys(prefix, name)
    this.seen = undefined
  }

  // Replies may be handled in another order than Redis gave them.
  saw(clock: LogicalClock): void {
    if (this.seen !== undefined) {
      const order = Scripts.orderOf(clock.epoch) - Scripts.orderOf(this.seen.epoch)
      if (order < 0 || (order === 0 && clock.epoch === this.seen.epoch && clock.clock <= this.seen.clock)) return
    }
    this.seen = { epoch: clock.epoch, clock: clock.clock }
  }
}

/** The distinct dependency sets of a batch, numbered from 1 as Lua does. */
class Sets {
  readonly list: Array<Wire.WireSet> = []
  private readonly indices = new Map<string, number>()

  index(dependencies: DependencySet): number {
    let index = this.indices.get(dependencies.id)
    if (index === undefined) {
      index = this.list.push(Wire.set(dependencies))
      this.indices.set(dependencies.id, index)
    }
    return index
  }
}

const namespaceOfAll = (requests: ReadonlyArray<{ readonly key: CacheKey }>): string => {
  const namespace = requests[0].key.namespace
  for (const { key } of requests) {
    if (key.namespace !== namespace) {
      throw new InvalidOptionError("RedisStore", "namespace", key.namespace, "that of all keys of a batch")
    }
  }
  return namespace
}

// A value that is not well formed would come back from UTF-8 as another one.
const isWellFormed = (text: string & { readonly isWellFormed?: () => boolean }): boolean =>
  text.isWellFormed === undefined ? !/\p{Surrogate}/u.test(text) : text.isWellFormed()

// An epoch never repeats: no two processes draw the same 128 bits, no process counts a number twice.
const makeNonces = (): () => string => {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  const process = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
  let count = 0
  return () => `${process}.${(count++).toString(36)}`
}
