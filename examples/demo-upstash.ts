// The demo on a PostgreSQL server, with its answers in Upstash, over HTTP.
//
//   DATABASE_URL=... UPSTASH_REDIS_REST_URL=... UPSTASH_REDIS_REST_TOKEN=... node examples/demo-upstash.ts
//
// It works in a schema of its own, `effect_query_cache_demo`, and drops it at the end. DEMO_SCALE=0.1 makes it ten times
// shorter: every hit is a request.
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { RedisStore } from "effect-query-cache"
import * as UpstashRedis from "effect-query-cache/UpstashRedis"
import * as Demo from "./demo/demo.ts"
import { Screen } from "./demo/Screen.ts"
import * as Server from "./demo/server.ts"

export const program = Demo.run({
  title: "PostgreSQL and Upstash",
  store: RedisStore.layer({ prefix: "effect-query-cache-demo" }).pipe(Layer.provide(UpstashRedis.layerConfig())),
  // The store may be further away than the default of 50 ms allows for.
  cache: { lookupTimeout: "1 second", invalidationTimeout: "2 seconds" },
  next: "run it from where your program runs: the p50 above is mostly the way to Upstash and back."
}).pipe(Effect.provide(Server.layer))

if (import.meta.main) program.pipe(Effect.provide(Screen.layer), NodeRuntime.runMain)
