// Three masters and their replicas. Each worker has a door of its own to each node.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Server } from "../../support/redis.ts"
import { type Cluster, makeCluster, type Node } from "../../support/redisCluster.ts"
import * as Door from "../../support/redisDoor.ts"
import type { Fault, Topology } from "../topology.ts"
import { doorFaults } from "./doorFaults.ts"
import { between, follows, info, serverFaults, sleep, until } from "./faults.ts"
import type { Options } from "./single.ts"

const slotCount = 16_384

const pick = <A>(random: () => number, all: ReadonlyArray<A>): A => all[Math.floor(random() * all.length)]

export const make = Effect.fnUntraced(function*(
  { maxStalenessMillis }: Options
): Effect.fn.Return<Topology & { readonly cluster: Cluster }, never, Scope.Scope> {
  const cluster = yield* makeCluster({ replicasPerMaster: 1, settings: { "repl-diskless-sync-delay": "0" } })
  const masterOf = (random: () => number) => cluster.ownerOf(Math.floor(random() * slotCount))
  const findReplica = (master: Node): Effect.Effect<Node | undefined> =>
    Effect.map(
      master.command("CLUSTER", "REPLICAS", master.id),
      (lines: ReadonlyArray<string>) => cluster.nodes.find(({ id }) => lines[0]?.startsWith(id))
    )
  const replicaOf = (master: Node) => Effect.map(findReplica(master), (replica) => replica!)
  const aWhile = (random: () => number) => sleep(between(random, 0, maxStalenessMillis))

  const inSync = Effect.forEach(cluster.nodes, (node) =>
    until(
      "a replica in sync",
      Effect.gen(function*() {
        if ((yield* info(node, "role")) !== "master") return true
        const replica = yield* findReplica(node)
        return replica !== undefined && (yield* follows(replica, node))
      })
    ), { discard: true })
  const healed = Effect.andThen(cluster.settled, inSync)
  /** What nobody who stops it may leave in the middle. */
  const fault = (name: string, run: Fault["run"]): Fault => ({
    name,
    run: (random) => Effect.uninterruptible(Effect.andThen(run(random), healed))
  })
  const becomesMaster = (node: Server) =>
    until("a promoted replica", Effect.map(info(node, "role"), (role) => role === "master"))

  const handover = fault("a master handed over to its replica", (random) =>
    Effect.gen(function*() {
      const replica = yield* replicaOf(yield* masterOf(random))
      yield* replica.command("CLUSTER", "FAILOVER")
      yield* becomesMaster(replica)
    }))

  const failover = fault("a master killed, and its replica promoted", (random) =>
    Effect.gen(function*() {
      const master = yield* masterOf(random)
      const replica = yield* replicaOf(master)
      yield* master.stop
      yield* aWhile(random)
      yield* cluster.promote(replica)
      yield* aWhile(random)
      yield* master.start
    }))

  const resharding = fault("a slot moved", (random) =>
    Effect.gen(function*() {
      const from = yield* masterOf(random)
      // One with something in it, if there is any.
      const key: string | null = yield* from.command("RANDOMKEY")
      const slot = key === null ? Math.floor(random() * slotCount) : yield* cluster.slotOf(key)
      const owner = yield* cluster.ownerOf(slot)
      const owners = yield* Effect.forEach([0, 0.35, 0.7], (share) => cluster.ownerOf(Math.floor(slotCount * share)))
      const others = owners.filter(({ id }) => id !== owner.id)
      const { carry, end } = yield* cluster.move(slot, pick(random, others))
      yield* aWhile(random)
      yield* carry(1)
      yield* aWhile(random)
      yield* end
    }))

  // Of a node by itself, whichever is a master then. What fills its memory has keys of other nodes.
  const ofNodes = serverFaults(cluster.masters[0], maxStalenessMillis).flatMap(({ name }) =>
    name.startsWith("short of memory") ? [] : [
      fault(`a master ${name}`, (random) =>
        Effect.flatMap(masterOf(random), (master) =>
          Effect.scoped(
            serverFaults(master, maxStalenessMillis).find((fault) => fault.name === name)!.run(random)
          )))
    ]
  )

  return {
    name: "cluster",
    cluster,
    connect: Effect.map(
      Effect.forEach(cluster.nodes, (node) => Effect.map(Door.make(node), (door) => ({ node, door }))),
      (entrances) => {
        const doors = entrances.map(({ door }) => door)
        return {
          connection: {
            _tag: "Cluster",
            urls: doors.map(({ port }) => `redis://127.0.0.1:${port}`),
            doors: Object.fromEntries(entrances.map(({ door, node }) => [
              `127.0.0.1:${node.port}`,
              { host: "127.0.0.1", port: door.port }
            ]))
          },
          faults: [
            ...doorFaults(doors, maxStalenessMillis),
            ...doorFaults(doors.slice(0, 1), maxStalenessMillis).map(({ name }): Fault => ({
              name: `${name}, one node`,
              run: (random) =>
                doorFaults([pick(random, doors)], maxStalenessMillis).find((fault) => fault.name === name)!.run(random)
            }))
          ]
        }
      }
    ),
    faults: [...ofNodes, handover, failover, resharding]
  }
})
