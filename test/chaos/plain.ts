// One Redis, without doors.
import * as Effect from "effect/Effect"
import * as Redis from "../support/redis.ts"
import type { Topology } from "./topology.ts"

export const make = Effect.map(Redis.makeServer(), (server): Topology => {
  const command = (...args: ReadonlyArray<string>) => Effect.ignoreCause(server.command(...args))
  return {
    name: "single",
    connect: Effect.succeed({ connection: { _tag: "Single", url: server.url }, faults: [] }),
    faults: [
      { name: "redis FLUSHALL", run: () => command("FLUSHALL") },
      { name: "redis SCRIPT FLUSH", run: () => command("SCRIPT", "FLUSH") },
      { name: "redis CLIENT KILL pubsub", run: () => command("CLIENT", "KILL", "TYPE", "pubsub") },
      { name: "redis CLIENT KILL normal", run: () => command("CLIENT", "KILL", "TYPE", "normal") },
      {
        name: "redis is killed",
        run: (random) =>
          Effect.gen(function*() {
            yield* server.stop
            yield* Effect.sleep(random() * 500)
            yield* server.start
          })
      },
      {
        name: "redis stops",
        run: (random) =>
          Effect.gen(function*() {
            yield* server.pause
            yield* Effect.sleep(random() * 2_000)
            yield* server.resume
          })
      }
    ]
  }
})
