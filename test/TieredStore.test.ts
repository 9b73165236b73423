import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import { CacheStore } from "../src/CacheStore.ts"
import * as TieredStore from "../src/TieredStore.ts"
import { suite } from "./CacheStoreTest.ts"
import * as Fleet from "./support/fleet.ts"
import * as TestRedis from "./support/redis.ts"

const storeOn = (redis: Redis.Redis["Service"], options?: TieredStore.TieredStoreOptions) =>
  TieredStore.layer(options).pipe(
    Layer.provide(Layer.succeed(Redis.Redis, redis)),
    Layer.build,
    Effect.map(Context.get(CacheStore))
  )

for (const layout of ["flat", "grouped"] as const) {
  for (const coherence of ["backplane", "revalidate", "ttl"] as const) {
    const fleet = Fleet.make()
    const store = Effect.flatMap(Redis.Redis, (redis) => storeOn(redis, { layout, coherence }))
    const member = coherence === "backplane" ? Effect.flatMap(store, fleet.join) : store
    const command = (...args: ReadonlyArray<string>) =>
      Effect.flatMap(TestRedis.RedisServer, (server) => server.command(...args))
    const lost = (...args: ReadonlyArray<string>) => (namespace: string) =>
      command(args[0], `eqc:{${namespace}:0}:${args[1]}`, ...args.slice(2))
    suite(
      `TieredStore, ${coherence}, ${layout}`,
      Layer.effect(CacheStore, member).pipe(Layer.provideMerge(TestRedis.layer())),
      {
        live: true,
        holds: true,
        ...(coherence === "ttl" ? {} : {
          another: member,
          faults: [
            lost("DEL", "meta"),
            lost("DEL", "stamps"),
            lost("DEL", "e:query 4"),
            lost("ZREM", "stamps", "orders", "orders(*)"),
            lost("ZREM", "stamps", "orders(id=\"1\")", "orders(customer=\"0\")"),
            () => command("SCRIPT", "FLUSH")
          ]
        })
      }
    )
  }
}
