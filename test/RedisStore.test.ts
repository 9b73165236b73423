import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as RedisStore from "../src/RedisStore.ts"
import { suite } from "./CacheStoreTest.ts"
import * as TestRedis from "./support/redis.ts"

const key = (namespace: string, name: string): string => `eqc:{${namespace}:0}:${name}`

const command = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(TestRedis.RedisServer, (server) => server.command(...args))

/** Whatever is lost, by eviction or otherwise, only turns hits into misses. */
const faults: ReadonlyArray<(namespace: string) => Effect.Effect<unknown, never, TestRedis.RedisServer>> = [
  (namespace) => command("DEL", key(namespace, "meta")),
  (namespace) => command("DEL", key(namespace, "stamps")),
  (namespace) => command("ZREM", key(namespace, "stamps"), "orders", "orders(*)"),
  (namespace) => command("ZREM", key(namespace, "stamps"), "orders(id)", "orders(customer)", "orders(customer,id)"),
  (namespace) => command("ZREM", key(namespace, "stamps"), "orders(id=\"1\")", "orders(customer=\"0\")"),
  (namespace) => command("ZREMRANGEBYRANK", key(namespace, "stamps"), "-1", "-1"),
  (namespace) => command("DEL", key(namespace, "e:query 4"), key(namespace, "e:query 8")),
  () => command("SCRIPT", "FLUSH")
]

for (const layout of ["flat", "grouped"] as const) {
  const store = RedisStore.layer({ layout })
  suite(`RedisStore, ${layout}`, store.pipe(Layer.provideMerge(TestRedis.layer())), { live: true, faults })
}
