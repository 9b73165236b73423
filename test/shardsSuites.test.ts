// What every store promises, of a namespace in three shards: on one server, and on a cluster of three nodes.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as References from "effect/References"
import * as CacheStore from "../src/CacheStore.ts"
import * as RedisCluster from "../src/RedisCluster.ts"
import * as RedisStore from "../src/RedisStore.ts"
import * as TieredStore from "../src/TieredStore.ts"
import { suite } from "./CacheStoreTest.ts"
import * as Processes from "./support/processes.ts"
import * as TestRedis from "./support/redis.ts"
import { makeCluster } from "./support/redisCluster.ts"

const command = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(Redis.Redis, (redis) => Effect.orDie(redis.send(...args as [string])))

const lost = (shard: number, name: string, ...args: ReadonlyArray<string>) => (namespace: string) =>
  command(args[0] ?? "DEL", `eqc:{${namespace}:${shard}}:${name}`, ...args.slice(1))

const faults = [
  lost(0, "meta"),
  lost(1, "meta"),
  lost(2, "stamps"),
  lost(1, "stamps", "ZREM", "orders", "orders(*)"),
  lost(2, "stamps", "ZREM", "orders(id=\"1\")", "orders(customer=\"0\")"),
  () => command("SCRIPT", "FLUSH")
]

const cluster = Layer.unwrap(
  Effect.map(makeCluster(), ({ rootNodes }) => Layer.orDie(RedisCluster.layer({ rootNodes })))
).pipe(Layer.provide(Layer.succeed(References.MinimumLogLevel, "None")))

const stores = {
  "RedisStore, flat": (): Layer.Layer<CacheStore.CacheStore, never, Redis.Redis> => RedisStore.layer({ shards: 3 }),
  "RedisStore, grouped": () => RedisStore.layer({ shards: 3, layout: "grouped" }),
  "TieredStore, backplane": () => TieredStore.layer({ shards: 3 }),
  "TieredStore, revalidate": () => TieredStore.layer({ shards: 3, coherence: "revalidate" })
}
type Name = keyof typeof stores

const servers: ReadonlyArray<readonly [string, Layer.Layer<Redis.Redis>, ReadonlyArray<Name>]> = [
  ["one server", TestRedis.layer(), Object.keys(stores) as Array<Name>],
  ["a cluster", cluster, ["RedisStore, flat", "TieredStore, backplane"]]
]

for (const [server, redis, names] of servers) {
  for (const name of names) {
    const processes = Processes.make()
    const store = Effect.map(Layer.build(Layer.fresh(stores[name]())), Context.get(CacheStore.CacheStore))
    const member = name === "TieredStore, backplane" ? Effect.flatMap(store, processes.join) : store
    suite(
      `${name}, three shards on ${server}`,
      Layer.effect(CacheStore.CacheStore, member).pipe(Layer.provideMerge(redis)),
      { live: true, another: member, faults, ...(name.startsWith("Tiered") ? { holds: true } : {}) }
    )
  }
}
