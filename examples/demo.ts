// The demo on a bare machine: PostgreSQL inside this process (PGlite), answers in its memory.
//
//   npm run demo
//   DEMO_SCALE=3 npm run demo
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import { CacheStore } from "effect-query-cache"
import * as Demo from "./demo/demo.ts"
import { Screen } from "./demo/Screen.ts"
import * as Pglite from "./support/pglite.ts"

export const program = Demo.run({
  title: "PostgreSQL in this process (PGlite), answers in memory",
  store: CacheStore.layerMemory({ capacity: 50_000 }),
  next: "a server costs a round trip for every query, so the gap widens: examples/demo-redis.ts"
}).pipe(Effect.provide(Pglite.layer()))

if (import.meta.main) program.pipe(Effect.provide(Screen.layer), NodeRuntime.runMain)
