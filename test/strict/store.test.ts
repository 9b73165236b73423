/** A store that is kept strict promises what every store does, once its barrier is open. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import type { CacheError } from "../../src/CacheError.ts"
import * as CacheStore from "../../src/CacheStore.ts"
import * as RedisStore from "../../src/RedisStore.ts"
import * as TieredStore from "../../src/TieredStore.ts"
import { type Service, suite } from "../CacheStoreTest.ts"
import * as TestRedis from "../support/redis.ts"

/** Over a database in which nothing is under way: whoever meets a barrier opens it, be it of one shard of several. */
const opening = (store: Service): Service => {
  const lookupMany = (
    requests: ReadonlyArray<CacheStore.LookupRequest>
  ): Effect.Effect<ReadonlyArray<CacheStore.Outcome>, CacheError> =>
    Effect.flatMap(store.lookupMany(requests), (outcomes) => {
      const closed = outcomes.filter((outcome) => outcome._tag === "Bypass" && outcome.reason === "barrier")
      if (closed.length === 0) return Effect.succeed(outcomes)
      const pass = Effect.forEach(
        closed,
        ({ epoch, transaction = "7" }) =>
          store.strict!.barrier(requests[0].key.namespace, { epoch, transaction, isPassed: true })
      )
      // Those that were given flights find their own again.
      return Effect.andThen(pass, lookupMany(requests))
    })
  return {
    ...store,
    lookupMany,
    lookup: (key, dependencies, maxAgeMillis, since) =>
      Effect.map(lookupMany([{ key, dependencies, maxAgeMillis, since }]), ([outcome]) => outcome)
  }
}

const opened = <E, R>(layer: Layer.Layer<CacheStore.CacheStore, E, R>) =>
  Layer.effect(CacheStore.CacheStore, Effect.map(CacheStore.CacheStore, opening)).pipe(Layer.provide(layer))

const command = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(TestRedis.RedisServer, (server) => server.command(...args))

const lostOf = (shard: number) => (...args: ReadonlyArray<string>) => (namespace: string) =>
  command(args[0], `eqc:{${namespace}:${shard}}:${args[1]}`, ...args.slice(2))
const lost = lostOf(0)

const kinds = {
  "RedisStore, strict, flat": RedisStore.layer({ consistency: "strict" }),
  "RedisStore, strict, grouped": RedisStore.layer({ consistency: "strict", layout: "grouped" }),
  "TieredStore, strict": TieredStore.layer({ consistency: "strict", coherence: "revalidate" }),
  "RedisStore, strict, three shards": RedisStore.layer({ consistency: "strict", shards: 3 }),
  "TieredStore, strict, three shards": TieredStore.layer({ consistency: "strict", coherence: "revalidate", shards: 3 })
}

for (const [name, kind] of Object.entries(kinds)) {
  const store = opened(kind)
  suite(name, store.pipe(Layer.provideMerge(TestRedis.layer())), {
    live: true,
    another: Effect.flatMap(Redis.Redis, (redis) =>
      Effect.map(
        Layer.build(Layer.fresh(store).pipe(Layer.provide(Layer.succeed(Redis.Redis, redis)))),
        Context.get(CacheStore.CacheStore)
      )),
    holds: name.startsWith("Tiered"),
    faults: [
      lost("DEL", "meta"),
      lost("DEL", "stamps"),
      lost("DEL", "fences"),
      lost("DEL", "e:query 4"),
      lost("ZREM", "stamps", "orders", "orders(*)"),
      lost("HDEL", "fences", "epoch"),
      lost("HDEL", "fences", "barrier"),
      ...name.includes("shards") ? [lostOf(1)("DEL", "meta"), lostOf(2)("DEL", "fences")] : [],
      () => command("SCRIPT", "FLUSH")
    ]
  })
}
