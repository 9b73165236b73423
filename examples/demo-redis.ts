// The demo on a PostgreSQL server, with its answers in Redis (6.2 or later, or Valkey).
//
//   DATABASE_URL=postgres://user:password@localhost/db REDIS_URL=redis://localhost:6379 node examples/demo-redis.ts
//
// It works in a schema of its own, `effect_query_cache_demo`, and drops it at the end.
import { NodeRedis, NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { RedisStore } from "effect-query-cache"
import * as Demo from "./demo/demo.ts"
import { Screen } from "./demo/Screen.ts"
import * as Server from "./demo/server.ts"

export const program = Demo.run({
  title: "PostgreSQL and Redis",
  store: RedisStore.layer({ prefix: "effect-query-cache-demo" }).pipe(
    Layer.provide(NodeRedis.layerConfig({ url: Config.String("REDIS_URL") }))
  ),
  next: "run it again with `redis-cli monitor` at its side: one command for each hit, one for each invalidation."
}).pipe(Effect.provide(Server.layer))

if (import.meta.main) program.pipe(Effect.provide(Screen.layer), NodeRuntime.runMain)
