// One Redis, to which each worker has a door of its own.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as TestRedis from "../../support/redis.ts"
import * as Door from "../../support/redisDoor.ts"
import type { Fault, Topology } from "../topology.ts"
import { doorFaults } from "./doorFaults.ts"
import { between, lasting, serverFaults } from "./faults.ts"

export interface Options {
  /** What the workers' stores say may be as old as this: faults last for parts or small multiples of it. */
  readonly maxStalenessMillis: number
}

export const make = Effect.fnUntraced(function*(
  { maxStalenessMillis }: Options
): Effect.fn.Return<Topology & { readonly server: TestRedis.Server }, never, Scope.Scope> {
  const server = yield* TestRedis.makeServer()
  /** It refuses scripts, and keeps what it has. It is another one when it is over, by its replication id. */
  const becomesReplica: Fault = {
    name: "replica of nobody",
    run: (random) =>
      lasting(
        between(random, 10, maxStalenessMillis * 1.5),
        Effect.acquireRelease(
          server.command("REPLICAOF", "127.0.0.1", "1"),
          () => server.command("REPLICAOF", "NO", "ONE")
        )
      )
  }
  return {
    name: "single",
    server,
    connect: Effect.map(Door.make(server), (door) => ({
      connection: { _tag: "Single", url: `redis://127.0.0.1:${door.port}` },
      faults: doorFaults([door], maxStalenessMillis)
    })),
    faults: [...serverFaults(server, maxStalenessMillis), becomesReplica]
  }
})
