/**
 * A Redis Cluster on this machine: masters that share the slots, with replicas if they are asked for. Each node is a
 * server of its own, to be killed, paused and started again, and slots move between them while clients go on.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { setTimeout } from "node:timers/promises"
import { freeClusterPort } from "./freePort.ts"
import { makeServer, type Server, type Settings } from "./redis.ts"

export interface Node extends Server {
  /** How the others know it, be it restarted. */
  readonly id: string
}

export interface Cluster {
  /** Those that the slots were given to at first, in equal parts. */
  readonly masters: ReadonlyArray<Node>
  /** Of each master. */
  readonly replicas: ReadonlyArray<ReadonlyArray<Node>>
  readonly nodes: ReadonlyArray<Node>
  readonly rootNodes: ReadonlyArray<{ readonly url: string }>
  readonly slotOf: (key: string) => Effect.Effect<number>
  /** Who has a slot, as a node that runs sees it. */
  readonly ownerOf: (slot: number) => Effect.Effect<Node>
  /** Waits until the nodes that run agree on who has which slots, and take commands. */
  readonly settled: Effect.Effect<void>
  /** Moves a slot, in the steps of a resharding. */
  readonly move: (slot: number, to: Node) => Effect.Effect<Move>
  /** Makes a replica the master of its slots, be the old one dead. */
  readonly promote: (replica: Node) => Effect.Effect<void>
}

/** A slot on its way: begun, so that clients are sent after what has left already. */
export interface Move {
  /** Takes so many keys along, or all. */
  readonly carry: (count?: number) => Effect.Effect<void>
  /** Takes along what is left, and tells everybody. */
  readonly end: Effect.Effect<void>
}

export interface ClusterOptions {
  readonly masters?: number
  readonly replicasPerMaster?: number
  readonly settings?: Settings
}

const slotCount = 16_384

export const makeCluster = Effect.fnUntraced(function*(
  options: ClusterOptions = {}
): Effect.fn.Return<Cluster, never, Scope.Scope> {
  const { masters: masterCount = 3, replicasPerMaster = 0, settings } = options
  const nodes = yield* Effect.forEach(
    Array.from({ length: masterCount * (1 + replicasPerMaster) }),
    () =>
      Effect.gen(function*(): Effect.fn.Return<Node, never, Scope.Scope> {
        const server = yield* makeServer({
          "cluster-enabled": "yes",
          // A busy machine is not a dead one.
          "cluster-node-timeout": "3000",
          // What one node has is no matter of the others.
          "cluster-require-full-coverage": "no",
          "cluster-replica-validity-factor": "0",
          ...settings
        }, freeClusterPort)
        return { ...server, id: yield* server.command("CLUSTER", "MYID") }
      }),
    { concurrency: "unbounded" }
  )
  const masters = nodes.slice(0, masterCount)
  const replicas = masters.map((_, i) =>
    Array.from({ length: replicasPerMaster }, (_, r) => nodes[masterCount + i * replicasPerMaster + r])
  )
  yield* Effect.forEach(masters, (node, i) => {
    const first = Math.floor(slotCount * i / masterCount)
    const count = Math.floor(slotCount * (i + 1) / masterCount) - first
    return node.command("CLUSTER", "ADDSLOTS", ...Array.from({ length: count }, (_, slot) => `${first + slot}`))
  })
  yield* Effect.forEach(nodes.slice(1), ({ port }) => nodes[0].command("CLUSTER", "MEET", "127.0.0.1", `${port}`))

  /** What a node that runs answers, and `undefined` of one that does not. */
  const ask = (node: Node, ...args: ReadonlyArray<string>): Effect.Effect<string | undefined> =>
    Effect.orElseSucceed(
      Effect.timeout(
        Effect.tryPromise(() => Effect.runPromise(node.command(...args))),
        "1 second"
      ),
      () => undefined
    )
  const until = (is: Effect.Effect<boolean>, what: string): Effect.Effect<void> =>
    Effect.gen(function*() {
      const end = Date.now() + 60_000
      while (!(yield* is)) {
        if (Date.now() > end) return yield* Effect.die(new Error(`The cluster takes too long: ${what}`))
        yield* Effect.promise(() => setTimeout(50))
      }
    })

  /** Who a node thinks has which slots. */
  const view = Effect.fnUntraced(function*(node: Node) {
    const [info, lines] = yield* Effect.all([ask(node, "CLUSTER", "INFO"), ask(node, "CLUSTER", "NODES")], {
      concurrency: "unbounded"
    })
    if (info === undefined || lines === undefined) return undefined
    const known = lines.trim().split("\n").map((line) => line.split(" "))
    return {
      isWorking: info.includes("cluster_state:ok") && known.length === nodes.length,
      // Slots that are on their way are told by the two nodes they concern alone.
      masters: known.filter(([, , flags]) => flags.includes("master")).map(([id, , , , , , , , ...slots]) =>
        `${id} ${slots.filter((slot) => !slot.startsWith("[")).join(" ")}`
      ).sort().join("\n"),
      replicas: known.filter(([, , flags, of]) => flags.includes("slave") && of !== "-").length
    }
  })
  const agree = (replicaCount: number) =>
    Effect.map(Effect.forEach(nodes, view, { concurrency: "unbounded" }), (views) => {
      const running = views.filter((view) => view !== undefined)
      return running.length > 0 &&
        running.every((view) => view.isWorking && view.masters === running[0].masters && view.replicas >= replicaCount)
    })
  yield* until(agree(0), "meeting")
  yield* Effect.forEach(
    replicas,
    (own, i) => Effect.forEach(own, (replica) => replica.command("CLUSTER", "REPLICATE", masters[i].id))
  )
  yield* until(agree(nodes.length - masterCount), "replication")
  yield* Effect.forEach(replicas.flat(), (replica) =>
    until(
      Effect.map(ask(replica, "INFO", "replication"), (info) => info?.includes("master_link_status:up") === true),
      "the first copy"
    ), { concurrency: "unbounded" })

  const running = Effect.gen(function*() {
    for (const node of nodes) {
      if ((yield* ask(node, "PING")) !== undefined) return node
    }
    return yield* Effect.die(new Error("No node runs"))
  })
  const ownerOf = Effect.fnUntraced(function*(slot: number) {
    const ranges: ReadonlyArray<[number, number, [string, number, string]]> = yield* (yield* running).command(
      "CLUSTER",
      "SLOTS"
    )
    const range = ranges.find(([from, to]) => from <= slot && slot <= to)
    return nodes.find(({ id }) => id === range?.[2][2])!
  })

  return {
    masters,
    replicas,
    nodes,
    rootNodes: nodes.map(({ url }) => ({ url })),
    slotOf: (key) => Effect.flatMap(running, (node) => node.command("CLUSTER", "KEYSLOT", key)),
    ownerOf,
    settled: until(agree(0), "settling"),
    move: Effect.fnUntraced(function*(slot, to) {
      const from = yield* ownerOf(slot)
      yield* to.command("CLUSTER", "SETSLOT", `${slot}`, "IMPORTING", from.id)
      yield* from.command("CLUSTER", "SETSLOT", `${slot}`, "MIGRATING", to.id)
      const carry = Effect.fnUntraced(function*(count = Infinity) {
        for (let left = count; left > 0;) {
          const keys: ReadonlyArray<string> = yield* from.command(
            "CLUSTER",
            "GETKEYSINSLOT",
            `${slot}`,
            `${Math.min(left, 100)}`
          )
          if (keys.length === 0) return
          yield* from.command("MIGRATE", "127.0.0.1", `${to.port}`, "", "0", "5000", "REPLACE", "KEYS", ...keys)
          left -= keys.length
        }
      })
      return {
        carry,
        end: Effect.gen(function*() {
          yield* carry()
          yield* to.command("CLUSTER", "SETSLOT", `${slot}`, "NODE", to.id)
          yield* Effect.forEach(
            nodes.filter((node) => node !== to),
            (node) => ask(node, "CLUSTER", "SETSLOT", `${slot}`, "NODE", to.id)
          )
        })
      }
    }),
    promote: (replica) =>
      Effect.andThen(
        replica.command("CLUSTER", "FAILOVER", "TAKEOVER"),
        until(
          Effect.map(ask(replica, "ROLE"), (role) => role?.[0] === "master"),
          "promotion"
        )
      )
  }
})
