import * as Layer from "effect/Layer"
import * as RedisStore from "../src/RedisStore.ts"
import { suite } from "./CacheStoreTest.ts"
import * as TestRedis from "./support/redis.ts"

for (const layout of ["flat", "grouped"] as const) {
  suite(`RedisStore, ${layout}`, RedisStore.layer({ layout }).pipe(Layer.provide(TestRedis.layer())), { live: true })
}
