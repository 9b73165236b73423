// A primary and its replica, which take turns. Each worker has a door of its own to the primary.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as TestRedis from "../../support/redis.ts"
import * as Door from "../../support/redisDoor.ts"
import type { Fault, Topology } from "../topology.ts"
import { doorFaults } from "./doorFaults.ts"
import { between, follows, info, lasting, serverFaults, set, sleep, until } from "./faults.ts"
import type { Options } from "./single.ts"

interface Member {
  readonly server: TestRedis.Server
  /** By which the other one follows it. */
  readonly link: Door.Door
}

interface Entrance {
  readonly door: Door.Door
  readonly target: { port: number }
}

export interface Replicated extends Topology {
  readonly primary: () => TestRedis.Server
  readonly replica: () => TestRedis.Server
  /**
   * Two primaries at once, of which the deposed one accepts writes: its workers hear nothing of the others, and what it
   * was told the other one never hears. No promise holds then, so it is not among the faults.
   */
  readonly split: Fault
  /**
   * Two primaries at once, of which the deposed one has refused writes since before the other one was. Among the faults
   * where all the workers want proof of it before they believe a hit: only the backplane does.
   */
  readonly fencedSplit: Fault
}

export interface ReplicaOptions extends Options {
  /** Whether all workers want proof that Redis accepts writes before they believe a hit. */
  readonly provesHits?: boolean
}

export const make = Effect.fnUntraced(function*(
  { maxStalenessMillis, provesHits = false }: ReplicaOptions
): Effect.fn.Return<Replicated, never, Scope.Scope> {
  const member = Effect.gen(function*() {
    const server = yield* TestRedis.makeServer({ "repl-diskless-sync-delay": "0" })
    return { server, link: yield* Door.make(server) } satisfies Member
  })
  let primary: Member = yield* member
  let replica: Member = yield* member
  const entrances = new Set<Entrance>()

  const lead = (to: TestRedis.Server, some: Iterable<Entrance> = entrances) =>
    Effect.forEach(some, ({ door, target }) => {
      target.port = to.port
      return door.cut()
    }, { discard: true })
  const follow = Effect.suspend(() => replica.server.command("REPLICAOF", "127.0.0.1", `${primary.link.port}`))
  const inSync = Effect.suspend(() => until("a replica in sync", follows(replica.server, primary.server)))
  /** The replica is the primary from now on. */
  const promote = Effect.suspend(() => {
    const { server } = replica
    ;[primary, replica] = [replica, primary]
    return server.command("REPLICAOF", "NO", "ONE")
  })
  /** The former primary follows, and everybody comes to the new one. */
  const settle = Effect.suspend(() => Effect.andThen(lead(primary.server), Effect.andThen(follow, inSync)))

  yield* follow
  yield* inSync

  const current: TestRedis.Server = {
    get port() {
      return primary.server.port
    },
    get url() {
      return primary.server.url
    },
    get directory() {
      return primary.server.directory
    },
    command: (...args) => Effect.suspend(() => primary.server.command(...args)),
    monitor: Effect.suspend(() => primary.server.monitor),
    stop: Effect.suspend(() => primary.server.stop),
    start: Effect.suspend(() => primary.server.start),
    startWith: (settings) => Effect.suspend(() => primary.server.startWith(settings)),
    pause: Effect.suspend(() => primary.server.pause),
    resume: Effect.suspend(() => primary.server.resume)
  }

  /** What nobody who stops it may leave in the middle. */
  const fault = (name: string, run: Fault["run"]): Fault => ({
    name,
    run: (random) => Effect.uninterruptible(run(random))
  })
  const aWhile = (random: () => number) => sleep(between(random, 0, maxStalenessMillis))

  const handover = fault("handed over to the replica", (random) =>
    Effect.gen(function*() {
      yield* primary.server.command("FAILOVER", "TO", "127.0.0.1", `${replica.server.port}`)
      yield* until(
        "changed roles",
        Effect.map(
          Effect.all([info(replica.server, "role"), info(primary.server, "role")]),
          (roles) => roles.join() === "master,slave"
        )
      )
      ;[primary, replica] = [replica, primary]
      // The former one refuses every script by now.
      yield* aWhile(random)
      yield* settle
    }))

  const failover = (name: string, lag: (random: () => number) => number) =>
    fault(name, (random) =>
      Effect.gen(function*() {
        const { link, server } = primary
        yield* lasting(
          lag(random),
          // What was said to the replica meanwhile is lost with the primary.
          Effect.andThen(link.weather({ lost: true }), Effect.addFinalizer(() => server.stop))
        )
        yield* aWhile(random)
        yield* promote
        yield* aWhile(random)
        yield* lead(primary.server)
        yield* aWhile(random)
        yield* server.start
        yield* settle
      }))

  /** Some of the workers stay with the deposed primary for a while. */
  const apart = (name: string, isFenced: boolean) =>
    fault(name, (random) =>
      Effect.scoped(Effect.gen(function*() {
        const deposed = primary
        yield* set(deposed.server, { "min-replicas-max-lag": "1", "min-replicas-to-write": isFenced ? "1" : "0" })
        yield* deposed.link.weather({ lost: true })
        yield* deposed.link.refuse
        if (isFenced) {
          yield* until(
            "a primary that misses its replica",
            Effect.map(info(deposed.server, "min_slaves_good_slaves"), (count) => count === "0")
          )
        }
        yield* promote
        yield* lead(primary.server, Array.from(entrances).filter(() => random() < 0.5))
        yield* sleep(between(random, maxStalenessMillis, maxStalenessMillis * 3))
        yield* lead(primary.server)
      })).pipe(Effect.andThen(settle)))

  const fencedSplit = apart("deposed, and refusing writes", true)
  return {
    name: "replica",
    primary: () => primary.server,
    replica: () => replica.server,
    connect: Effect.gen(function*() {
      const target = { port: primary.server.port }
      const door = yield* Door.make(target)
      const entrance = { door, target }
      yield* Effect.acquireRelease(
        Effect.sync(() => entrances.add(entrance)),
        () => Effect.sync(() => entrances.delete(entrance))
      )
      return {
        connection: { _tag: "Single", url: `redis://127.0.0.1:${door.port}` },
        faults: doorFaults([door], maxStalenessMillis)
      }
    }),
    faults: [
      // The replica has what the primary has when it is over.
      ...serverFaults(current, maxStalenessMillis).map(({ name, run }): Fault => ({
        name,
        run: (random) => Effect.andThen(run(random), inSync)
      })),
      handover,
      failover("killed, and its replica promoted", () => 0),
      failover("killed, and a replica promoted that lagged", (random) => between(random, 50, maxStalenessMillis)),
      ...(provesHits ? [fencedSplit] : [])
    ],
    fencedSplit,
    split: apart("deposed, and accepting writes", false)
  }
})
