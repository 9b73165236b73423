/**
 * A store in two levels: what this process holds itself, over what it shares in Redis.
 *
 * Reads that are answered from the process cost what the memory store costs. What other
 * processes write reaches it by a subscription to their invalidations, and by beats that
 * tell that nothing was missed. How that is kept right is told in
 * internal/tiered/plane.ts.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import { InvalidOptionError } from "./CacheError.ts"
import { CacheStore } from "./CacheStore.ts"
import { MemoryTable } from "./internal/memoryTable.ts"
import * as Options from "./internal/options.ts"
import * as Settings from "./internal/redis/settings.ts"
import * as Shared from "./internal/redis/store.ts"
import { Changes } from "./internal/tiered/changes.ts"
import * as Coherence from "./internal/tiered/coherence.ts"
import * as Store from "./internal/tiered/store.ts"
import type { RedisStoreOptions } from "./RedisStore.ts"

/**
 * Options of {@link layer}: those of `RedisStore.layer`, and of the level in this process.
 *
 * @category options
 * @since 0.1.0
 */
export interface TieredStoreOptions extends RedisStoreOptions {
  /** How many entries this process holds at most. Defaults to 10,000. */
  readonly capacity?: number | undefined
  /** How many bytes of values this process holds at most, as estimated. Defaults to 64 MiB. */
  readonly maxBytes?: number | undefined
  /**
   * How this process knows that what it holds may be served. Defaults to `"backplane"`.
   *
   * - `"backplane"`: it subscribes to the invalidations of all processes. Where there is
   *   no subscription nothing is served from the process.
   * - `"revalidate"`: it asks Redis each time, for the clocks alone: a round trip, but
   *   neither the value on the wire nor its decoding.
   * - `"ttl"`: it holds what it has for `maxStaleness`, and asks nobody.
   */
  readonly coherence?: "backplane" | "revalidate" | "ttl" | undefined
  /**
   * How long at most this process goes on serving an answer after another one's invalidation
   * of it was acknowledged. Defaults to 3 seconds.
   *
   * With `"backplane"` that is so only while the subscription fails, else it is the time
   * that a message takes. Three beats are sent to Redis in that time, for each shard of each
   * namespace.
   * With `"ttl"` it is so always. At least 100 milliseconds; not to be given with
   * `"revalidate"`, where it is nothing.
   */
  readonly maxStaleness?: Duration.Input | undefined
}

/**
 * A store in this process over one in Redis.
 *
 * **When to use**
 *
 * Where several processes share answers, and the most popular ones are read so often that
 * a round trip for each is too much.
 *
 * **Details**
 *
 * A hit of the process sends nothing, any other lookup, a fill and an invalidation send one
 * command each, as `RedisStore` does. What is read from Redis or stored there is held from
 * then on, unless an invalidation was heard of meanwhile. Stale answers, flights and limits
 * of age are Redis' matter: the process serves a stale one only by `peek`, and only if it
 * has filled it itself.
 *
 * With `shards` the process serves what lies in a shard while the beats of that shard return:
 * a node of a cluster that is down stops its own shards.
 *
 * What the process writes it does not serve any more from before the write returns on. What
 * others have written it does not serve any more `maxStaleness` after their write has
 * returned, whatever fails: messages that are lost, a connection that is half open, a machine
 * that was suspended, a Redis that restarts, fails over, or refuses writes.
 *
 * Nothing is sent when the layer is built but the subscription, in the background, and a Redis
 * that is away does not keep a program from starting. A subscription that ends is begun again.
 *
 * `changes` tells what this process has applied: with `"backplane"` its own invalidations and
 * those of others, and everything (`all`) where it may have missed some; else its own.
 *
 * **Gotchas**
 *
 * Each shard of a namespace that is in use costs three commands per `maxStaleness`, and every
 * process is told of every beat of every other one. What one shard's messages drop is dropped of
 * the whole namespace.
 *
 * With `"ttl"` answers that others have changed are served for up to `maxStaleness`, and as
 * long again as the replicas of an eventually consistent Redis need.
 *
 * **Example** (Two levels over TCP)
 *
 * ```ts
 * import * as NodeRedis from "@effect/platform-node/NodeRedis"
 * import { Layer } from "effect"
 * import { TieredStore } from "effect-query-cache"
 *
 * export const Store = TieredStore.layer({ capacity: 50_000, maxStaleness: "2 seconds" }).pipe(
 *   Layer.provide(NodeRedis.layer({ url: "redis://localhost:6379" }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: TieredStoreOptions): Layer.Layer<CacheStore, never, Redis.Redis> => {
  const owner = "TieredStore.layer"
  const settings = Settings.make(owner, options, ["capacity", "maxBytes", "coherence", "maxStaleness"])
  const capacity = Options.count(owner, "capacity", options?.capacity, 10_000)
  const maxBytes = Options.count(owner, "maxBytes", options?.maxBytes, 64 * 1024 * 1024)
  const coherence = Options.oneOf(
    owner,
    "coherence",
    options?.coherence,
    ["backplane", "revalidate", "ttl"],
    "backplane"
  )
  const maxStalenessMillis = Options.millis(owner, "maxStaleness", options?.maxStaleness, 3_000)
  if (maxStalenessMillis < 100) {
    throw new InvalidOptionError(owner, "maxStaleness", options?.maxStaleness, "at least 100 milliseconds")
  }
  if (coherence === "revalidate" && options?.maxStaleness !== undefined) {
    throw new InvalidOptionError(owner, "maxStaleness", options.maxStaleness, "absent with \"revalidate\"")
  }
  if (settings.consistency === "strict" && coherence !== "revalidate") {
    // Nobody tells a process of a fence.
    throw new InvalidOptionError(owner, "coherence", coherence, "\"revalidate\" with consistency \"strict\"")
  }
  return Layer.effect(
    CacheStore,
    Effect.gen(function*() {
      const redis = yield* Redis.Redis
      const shared = Shared.make(redis, settings)
      const table = new MemoryTable({ capacity, maxBytes })
      const changes = new Changes()
      const of: Coherence.Options = { shared, table, maxStalenessMillis, changes }
      const coherent = coherence === "backplane"
        ? yield* Coherence.backplane(redis, settings.prefix, of)
        : coherence === "revalidate"
        ? Coherence.revalidate(of)
        : yield* Coherence.ttl(of)
      return Store.make(shared, table, coherent, changes.stream)
    })
  )
}
