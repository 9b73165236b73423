/**
 * A store in Redis, shared by all processes that use the same prefix.
 *
 * Each of its operations is one script and one round trip. Redis 6.2 or later is
 * needed, Valkey included, without modules. How the scripts decide is told in
 * internal/redis/scripts.ts.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import { InvalidOptionError } from "./CacheError.ts"
import { CacheStore } from "./CacheStore.ts"
import * as Options from "./internal/options.ts"
import * as Background from "./internal/redis/background.ts"
import * as Settings from "./internal/redis/settings.ts"
import * as Store from "./internal/redis/store.ts"

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
  /**
   * How long the other processes wait at most for one that has begun to read what is not
   * there, before another one reads it. Defaults to 5 seconds. The slowest cached query should
   * take less: one that takes longer is read twice, and nothing else comes of it.
   */
  readonly flightTimeout?: Duration.Input | undefined
  /**
   * In how many shards a namespace is kept, each with a hash tag of its own. Defaults to 1, and
   * is 256 at most. With more than one the nodes of a cluster share the work, and one that is
   * down takes its shards along, not the others. Three times as many as there are masters is
   * enough to spread it evenly.
   */
  readonly shards?: number | undefined
  /**
   * What other processes' readers are promised. Defaults to `"bounded"`.
   *
   * - `"bounded"`: what a write has changed is not served once the write has returned, unless its process dies between
   *   its commit and its invalidation, or cannot reach Redis then.
   * - `"strict"`: it is not served from before the commit on, whatever fails. Each write tells Redis before it commits,
   *   and is rolled back where that fails. All processes that write must keep the namespace so: docs/strict.md.
   */
  readonly consistency?: "bounded" | "strict" | undefined
  /**
   * How many replicas must know of a write before it commits, with `"strict"`: each write then waits for them, on a
   * connection of its own. Give 1 where Redis fails over to a replica: docs/strict.md says what else it takes. Defaults
   * to 0.
   */
  readonly fenceReplicas?: number | undefined
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
 * Lookups that are asked for at once travel in one command, up to 128 of them, and so
 * do fills, up to 256 KiB of them.
 *
 * Of all processes one reads what is not there or is stale: it has begun a *flight*, a
 * key of its own that lasts `flightTimeout`, until it fills the entry, or gives up, or
 * an invalidation has overtaken what it is reading.
 *
 * A shard takes two keys without TTL, `<prefix>:{<namespace>:<shard>}:meta` and
 * `...:stamps`, the first shard being 0. Losing either, by eviction too, only turns hits into misses; a
 * `maxmemory-policy` of the `volatile-*` kind keeps them. Everything else has a TTL.
 *
 * With `shards` an entry lies in the shard of its fingerprint, and a lookup or a fill
 * asks that one alone. A write sends its invalidation to all of them at once, one
 * command each. Where one of them does not answer, the invalidation is not delivered:
 * what depends on it is not served by this process until that shard has it too. A
 * batch is split by shard, and fails where one of its shards does.
 *
 * Kept strict it takes a third one, `...:fences`.
 *
 * Invalidations are published on `<prefix>:changes`. A user with restricted rights
 * needs `~<prefix>:*`, `&<prefix>:*`, `+@connection`, `+@pubsub`, `+@read`,
 * `+@scripting`, `+@write` and `+time`, and should have `+info`: without it the store
 * notices a failover only where a clock that this process has seen runs backwards.
 *
 * **Gotchas**
 *
 * Processes of one namespace may use different numbers of shards, as during a
 * deployment that changes it: writes reach what all of them hold. Those with fewer go
 * on writing to all until the metadata are renewed, `FLUSHALL` say. Where the first
 * shard loses its metadata while both are at work, what the ones with more hold in the
 * other shards may miss writes of those with fewer for a second, or as long as they
 * cannot reach the first shard; and where it loses them at all, the other shards are
 * cleared.
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
  const settings = Settings.make("RedisStore.layer", options, [])
  return Layer.effect(
    CacheStore,
    Effect.map(Redis.Redis, (redis) => Store.make(redis, settings))
  )
}

/**
 * Options of {@link connectInBackground}.
 *
 * @category options
 * @since 0.1.0
 */
export interface ConnectOptions {
  /**
   * How long a connection may be of no use before it is replaced. Defaults to 10 seconds, at least
   * 100 milliseconds.
   */
  readonly replaceAfter?: Duration.Input | undefined
}

/**
 * Connects a Redis in the background, so that one which is away does not keep a
 * program from starting, and replaces a connection that has become useless.
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
 * A connection that stands is the client's to keep. Where it does not, it is replaced
 * after `replaceAfter`, by building the layer anew:
 *
 * - A connection that is half open: nothing is answered, and nobody says that it was
 *   ended. The client would wait for the operating system to notice, up to a quarter
 *   of an hour. Commands without an answer cause a `PING`, and only where that has
 *   none either the connection is replaced.
 * - A client that has given up, as node-redis does where `socketTimeout` strikes.
 * - A server that has become a replica: after a failover, its name may mean another one.
 *
 * Subscriptions of a connection that is replaced end, and their users begin new ones.
 *
 * **Gotchas**
 *
 * A client that is replaced may keep its socket until the operating system gives it up.
 * A cluster's client is asked as a whole: one node of it that is half open is not noticed.
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
export const connectInBackground = <E, R>(
  redis: Layer.Layer<Redis.Redis, E, R>,
  options?: ConnectOptions
): Layer.Layer<Redis.Redis, never, R> => {
  const owner = "RedisStore.connectInBackground"
  Options.known(owner, options, ["replaceAfter"])
  const replaceAfterMillis = Options.millis(owner, "replaceAfter", options?.replaceAfter, 10_000)
  if (replaceAfterMillis < 100) {
    throw new InvalidOptionError(owner, "replaceAfter", options?.replaceAfter, "at least 100 milliseconds")
  }
  return Background.layer(redis, { replaceAfterMillis })
}
