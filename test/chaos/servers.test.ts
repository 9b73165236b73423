// Each fault does what its name says, is over when it ends, and leaves nothing behind.
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import { existsSync } from "node:fs"
import * as Net from "node:net"
import { createClient } from "redis"
import * as RedisCluster from "../../src/RedisCluster.ts"
import type { Server } from "../support/redis.ts"
import * as Cluster from "./servers/cluster.ts"
import { info, sleep, until } from "./servers/faults.ts"
import * as Replica from "./servers/replica.ts"
import * as Single from "./servers/single.ts"
import type { Fault, Topology } from "./topology.ts"

const maxStalenessMillis = 500
/** Longer than a busy machine is silent, shorter than the faults are. */
const silenceMillis = 80

/** A worker's connections, and what they have lived through. */
interface Witness {
  /** What writes were answered, `silent` where they were not in time. */
  readonly answers: Set<string>
  /** The last number that was acknowledged. */
  counted: number
  /** How long nothing was answered, and nothing heard, at most. */
  readonly muteMillis: () => number
  readonly deafMillis: () => number
  /** Whether something was answered, and heard, between these times. */
  readonly talked: (from: number, to: number) => boolean
  readonly heard: (from: number, to: number) => boolean
  /** How often each connection has ended. */
  readonly ended: { commands: number; subscription: number }
  readonly isWell: Effect.Effect<boolean>
}

const connect = (url: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = createClient({ url, disableOfflineQueue: true, socket: { reconnectStrategy: () => 20 } })
      client.on("error", () => {})
      await client.connect()
      return client
    }),
    (client) => Effect.sync(() => client.destroy())
  )

const witness = Effect.fnUntraced(function*(
  url: string,
  server: () => Server
): Effect.fn.Return<Witness, never, Scope.Scope> {
  const commands = yield* connect(url)
  const subscription = yield* connect(url)
  const ended = { commands: 0, subscription: 0 }
  commands.on("error", () => ended.commands++)
  subscription.on("error", () => ended.subscription++)
  const answering = makeGaps()
  const hearing = makeGaps()
  yield* Effect.promise(() => subscription.subscribe("news", hearing.mark))
  const answers = new Set<string>()
  let lastAnswer = ""
  const self: Witness = {
    answers,
    counted: 0,
    muteMillis: answering.longestMillis,
    deafMillis: hearing.longestMillis,
    talked: answering.marked,
    heard: hearing.marked,
    ended,
    isWell: Effect.sync(() => lastAnswer === "ok" && hearing.lastMillis() < silenceMillis)
  }
  const ask = Effect.promise(async () => {
    let timer: NodeJS.Timeout | undefined
    lastAnswer = await Promise.race([
      commands.sendCommand<number>(["INCR", "count"]).then((count) => {
        self.counted = count
        answering.mark()
        return "ok"
      }, (error: Error) => error.message.split(" ")[0]),
      new Promise<string>((resolve) => {
        timer = setTimeout(() => resolve("silent"), silenceMillis)
      })
    ])
    clearTimeout(timer)
    answers.add(lastAnswer)
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(ask, sleep(10))))
  const press = yield* Effect.acquireRelease(
    Effect.sync(() => new Map<number, Net.Socket>()),
    (press) =>
      Effect.sync(() => {
        for (const socket of press.values()) socket.destroy()
      })
  )
  // Nobody is told by a server that does not run.
  const publish = Effect.sync(() => {
    const { port } = server()
    let socket = press.get(port)
    if (socket === undefined || socket.destroyed) {
      press.set(port, socket = Net.connect(port, "127.0.0.1").on("error", () => {}).resume())
    }
    socket.write("PUBLISH news x\r\n")
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(publish, sleep(10))))
  return self
})

const makeGaps = () => {
  let last = performance.now()
  let longest = 0
  const marks: Array<number> = []
  const lastMillis = () => performance.now() - last
  return {
    mark: () => {
      longest = Math.max(longest, lastMillis())
      last = performance.now()
      marks.push(last)
    },
    marked: (from: number, to: number) => marks.some((mark) => from < mark && mark < to),
    lastMillis,
    longestMillis: () => Math.max(longest, lastMillis())
  }
}

interface Seen {
  readonly saw: Witness
  readonly begun: number
  readonly before: { readonly run: string; readonly replid: string; readonly settings: string }
  readonly after: Seen["before"]
  readonly server: Server
}

type Check = (seen: Seen) => Effect.Effect<void> | void

const settingsOf = (server: Server) =>
  Effect.map(
    Effect.forEach(
      ["maxmemory", "maxmemory-policy", "min-replicas-to-write", "min-replicas-max-lag", "client-output-buffer-limit"],
      (name) => server.command("CONFIG", "GET", name)
    ),
    (found) => JSON.stringify(found)
  )

const stateOf = (server: Server) =>
  Effect.all({ run: info(server, "run_id"), replid: info(server, "master_replid"), settings: settingsOf(server) })

const answered = (...expected: ReadonlyArray<string>): Check => ({ saw }) => {
  for (const answer of expected) assert.isTrue(saw.answers.has(answer), `${answer} among ${[...saw.answers].join()}`)
}
/** How long weather lasts that half of the luck brings. */
const lastingMillis = maxStalenessMillis * 1.75
const deaf: Check = ({ saw }) => assert.isAbove(saw.deafMillis(), maxStalenessMillis / 2)
const mute: Check = ({ saw }) => assert.isAbove(saw.muteMillis(), maxStalenessMillis / 2)
// While it lasts, be the machine busy: what had been under way is over by then.
const hears: Check = ({ begun, saw }) => assert.isTrue(saw.heard(begun + lastingMillis / 4, begun + lastingMillis))
const talks: Check = ({ begun, saw }) => assert.isTrue(saw.talked(begun + lastingMillis / 4, begun + lastingMillis))
/** An answer took so long. */
const slower = (millis: number): Check => ({ saw }) => assert.isAbove(saw.muteMillis(), millis)
const ended = (commands: boolean, subscription: boolean): Check => ({ saw }) =>
  assert.deepStrictEqual([saw.ended.commands > 0, saw.ended.subscription > 0], [commands, subscription])
const restarted: Check = ({ after, before }) => assert.notStrictEqual(after.run, before.run)
const forgot: Check = ({ server }) =>
  Effect.map(server.command("EXISTS", "kept"), (count) => assert.strictEqual(count, 0))
const kept: Check = ({ server }) =>
  Effect.map(server.command("EXISTS", "kept"), (count) => assert.strictEqual(count, 1))
const otherHistory: Check = ({ after, before }) => assert.notStrictEqual(after.replid, before.replid)
const evicted: Check = ({ server }) =>
  Effect.map(info(server, "evicted_keys"), (count) => assert.isAbove(Number(count), 0))
/** What was acknowledged is not all there. The witness goes on counting meanwhile, so a mark was left. */
const lostSome: Check = ({ server }) =>
  Effect.map(server.command("EXISTS", "late"), (count) => assert.strictEqual(count, 0))
const lostNone: Check = ({ saw, server }) =>
  Effect.map(server.command("GET", "count"), (count) => assert.isAtLeast(Number(count), saw.counted))

const ofServer: { readonly [name: string]: ReadonlyArray<Check> } = {
  "suspended": [mute, deaf, ended(false, false), kept, lostNone],
  "killed, and started without data": [restarted, forgot, ended(true, true), otherHistory],
  "killed, and started with an old file": [restarted, kept, lostSome, ended(true, true), otherHistory],
  "killed, and started with all its data": [restarted, kept, lostNone, ended(true, true), otherHistory],
  "flushed": [forgot, ended(false, false)],
  "scripts flushed": [
    ({ server }) =>
      Effect.map(
        server.command("SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"),
        (found) => assert.deepStrictEqual(found, [0])
      ),
    ended(false, false),
    kept
  ],
  "subscriptions killed": [ended(false, true), kept],
  "clients killed": [ended(true, false), kept],
  "buffer of subscriptions overrun": [ended(false, true), kept],
  "short of memory, allkeys-lru": [evicted],
  "short of memory, allkeys-random": [evicted],
  "evicted": [evicted, forgot],
  "out of memory": [answered("OOM"), kept, ended(false, false)],
  "wanting replicas": [answered("NOREPLICAS"), kept, ended(false, false)],
  "paused, WRITE": [mute, kept, ended(false, false)],
  "paused, ALL": [mute, kept, ended(false, false)],
  "replica of nobody": [answered("READONLY"), kept, otherHistory]
}

const ofDoors: { readonly [name: string]: ReadonlyArray<Check> } = {
  "stalled": [mute, deaf, ended(false, false), lostNone],
  "stalled on the way to Redis": [mute, hears, ended(false, false), lostNone],
  "stalled on the way back": [mute, deaf, ended(false, false), lostNone],
  "stalled subscription": [talks, deaf, ended(false, false)],
  "half open": [mute, deaf, ended(true, true)],
  // What has not subscribed says nothing that could be lost.
  "half open on the way to Redis": [mute, hears, ended(true, false)],
  "half open on the way back": [mute, deaf, ended(true, true)],
  "half-open subscription": [talks, deaf, ended(false, true)],
  "half-open commands": [mute, hears, ended(true, false)],
  "slow": [slower(20), ended(false, false)],
  "trickling": [slower(5), ended(false, false)],
  "cut": [ended(true, true)],
  "cut commands": [ended(true, false)],
  "cut subscription": [ended(false, true)],
  "refused": [ended(true, true), deaf]
}

const ofReplica: { readonly [name: string]: ReadonlyArray<Check> } = {
  "flushed": ofServer["flushed"],
  "killed, and started without data": ofServer["killed, and started without data"],
  "handed over to the replica": [answered("READONLY"), restarted, kept, lostNone, otherHistory],
  "killed, and its replica promoted": [restarted, kept, otherHistory, ended(true, true)],
  "killed, and a replica promoted that lagged": [restarted, kept, lostSome, otherHistory, ended(true, true)],
  "deposed, and refusing writes": [answered("NOREPLICAS"), restarted, kept, otherHistory],
  "deposed, and accepting writes": [restarted, kept, otherHistory]
}

const half = () => 0.5

const endures = Effect.fnUntraced(function*(
  make: Effect.Effect<
    Topology & { readonly current: () => Server; readonly replica?: () => Server },
    never,
    Scope.Scope
  >,
  faultOf: (topology: Topology, faults: ReadonlyArray<Fault>) => Fault | undefined,
  checks: ReadonlyArray<Check>
) {
  const left: Array<{ readonly pid: number; readonly directory: string }> = []
  const ports: Array<number> = []
  yield* Effect.scoped(Effect.gen(function*() {
    const topology = yield* make
    const server = topology.current
    const { connection, faults } = yield* topology.connect
    assert(connection._tag === "Single")
    ports.push(Number(new URL(connection.url).port))
    const leave = Effect.suspend(() =>
      Effect.map(info(server(), "process_id"), (pid) => left.push({ pid: Number(pid), directory: server().directory }))
    )
    yield* leave
    yield* server().command("SET", "kept", "1")
    if (topology.replica !== undefined) {
      const { command } = topology.replica()
      yield* until("a replica that has it", Effect.map(command("EXISTS", "kept"), (count) => count === 1))
    }
    yield* server().command("EVAL", "return 1", "0")
    const saw = yield* witness(connection.url, server)
    yield* until("a witness", saw.isWell)
    const before = yield* stateOf(server())
    const fault = faultOf(topology, faults)
    assert(fault !== undefined)
    const begun = performance.now()
    const running = yield* Effect.forkScoped(fault.run(half))
    yield* Effect.forkScoped(Effect.andThen(sleep(120), Effect.ignoreCause(server().command("SET", "late", "1"))))
    yield* Fiber.join(running)
    const at = performance.now()
    yield* until("a well witness", saw.isWell)
    assert.isBelow(performance.now() - at, 5_000)
    const after = yield* stateOf(server())
    assert.strictEqual(after.settings, before.settings)
    yield* leave
    for (const check of checks) yield* check({ saw, begun, before, after, server: server() }) ?? Effect.void
  }))
  for (const { directory, pid } of left) {
    assert.isFalse(existsSync(directory))
    assert.throws(() => process.kill(pid, 0))
  }
  for (const port of ports) assert.isFalse(yield* isOpen(port))
})

const isOpen = (port: number) =>
  Effect.promise(() =>
    new Promise<boolean>((resolve) => {
      const socket = Net.connect(port, "127.0.0.1", () => {
        socket.destroy()
        resolve(true)
      }).on("error", () => resolve(false))
    })
  )

const single = Effect.map(Single.make({ maxStalenessMillis }), (topology) => ({
  ...topology,
  current: () => topology.server
}))
const replica = Effect.map(Replica.make({ maxStalenessMillis, provesHits: true }), (topology) => ({
  ...topology,
  current: topology.primary
}))

describe("servers", () => {
  const cases: ReadonlyArray<
    readonly [topology: string, make: typeof single | typeof replica, checks: typeof ofServer, ofDoor: boolean]
  > = [
    ["single", single, ofServer, false],
    ["single, a door", single, ofDoors, true],
    ["replica", replica, ofReplica, false]
  ]
  for (const [topology, make, checks, ofDoor] of cases) {
    for (const [name, wanted] of Object.entries(checks)) {
      it.live(`${topology}: ${name}`, () =>
        endures(
          make,
          (topology, faults) =>
            [...(ofDoor ? faults : topology.faults), ...("split" in topology ? [topology.split as Fault] : [])].find(
              (fault) => fault.name === name
            ),
          wanted
        ))
    }
  }

  it.live("every fault is looked at", () =>
    Effect.gen(function*() {
      const alone = yield* single
      const { faults } = yield* alone.connect
      const pair = yield* replica
      assert.sameMembers(alone.faults.map(({ name }) => name), Object.keys(ofServer))
      assert.sameMembers(faults.map(({ name }) => name), Object.keys(ofDoors))
      assert.sameMembers(
        [...pair.faults, pair.split].map(({ name }) => name),
        Object.keys({ ...ofServer, ...ofReplica }).filter((name) => name !== "replica of nobody")
      )
    }))
})

describe("cluster", () => {
  it.live("every fault of its own does what it says, and is over when it ends", () =>
    Effect.gen(function*() {
      const { cluster, connect, faults } = yield* Cluster.make({ maxStalenessMillis })
      const { connection, faults: own } = yield* connect
      assert(connection._tag === "Cluster")
      const refused = own.find(({ name }) => name === "refused")!
      const redis = yield* RedisCluster.layer({
        rootNodes: connection.urls.map((url) => ({ url })),
        nodeAddressMap: connection.doors,
        defaults: { disableOfflineQueue: true }
      }).pipe(
        Layer.provide(Layer.succeed(References.MinimumLogLevel, "None")),
        Layer.build,
        Effect.map(Context.get(Redis.Redis))
      )
      const keys = Array.from({ length: 12 }, (_, i) => `key ${i}`)
      const slots = yield* Effect.forEach(keys, cluster.slotOf)
      const eventually = (send: Effect.Effect<unknown, Redis.RedisError>) =>
        until(
          "an answer",
          Effect.map(Effect.exit(Effect.timeout(send, "500 millis")), ({ _tag }) => _tag === "Success")
        )
      const fillUp = Effect.forEach(keys, (key) => eventually(redis.send("SET", key, "value")), { discard: true })
      const values = Effect.forEach(
        keys,
        (key) => Effect.option(Effect.timeout(redis.send<string | null>("GET", key), "200 millis")),
        { concurrency: "unbounded" }
      )
      const reached = Effect.map(values, (values) => values.filter(({ _tag }) => _tag === "Some").length)
      /** How many are there, when all have been answered for. */
      const count = Effect.gen(function*() {
        for (;;) {
          const found = (yield* values).flatMap((value) => value._tag === "Some" ? [value.value] : [])
          if (found.length === keys.length) return found.filter((value) => value === "value").length
          yield* sleep(20)
        }
      })
      const masters = Effect.map(
        Effect.forEach(
          cluster.nodes,
          (node) => Effect.map(info(node, "role"), (role) => role === "master" ? node : [])
        ),
        (nodes) => nodes.flat()
      )
      const look = Effect.gen(function*() {
        yield* fillUp
        const nodes = yield* masters
        return {
          ids: nodes.map(({ id }) => id),
          runs: yield* Effect.forEach(nodes, (node) => info(node, "run_id")),
          owners: (yield* Effect.forEach(slots, cluster.ownerOf)).map(({ id }) => id)
        }
      })
      const changed = (before: ReadonlyArray<string>, after: ReadonlyArray<string>) =>
        before.filter((each, i) => each !== after[i]).length
      const befalls = Effect.fnUntraced(function*(name: string) {
        const before = yield* look
        yield* faults.find((fault) => fault.name === name)!.run(half)
        const left = yield* count
        const after = yield* look
        assert.strictEqual(yield* count, keys.length)
        return {
          left,
          ids: changed(before.ids, after.ids),
          runs: changed(before.runs, after.runs),
          owners: changed(before.owners, after.owners)
        }
      })
      const all = keys.length

      const flushed = yield* befalls("a master flushed")
      assert.isTrue(flushed.left > 0 && flushed.left < all)
      const restarted = yield* befalls("a master killed, and started without data")
      assert.deepStrictEqual([restarted.ids, restarted.runs], [0, 1])
      assert.isTrue(restarted.left > 0 && restarted.left < all)
      const moved = yield* befalls("a slot moved")
      assert.deepStrictEqual([moved.left, moved.ids, moved.runs], [all, 0, 0])
      assert.isAbove(moved.owners, 0)
      for (const name of ["a master handed over to its replica", "a master killed, and its replica promoted"]) {
        const { ids, left, owners } = yield* befalls(name)
        assert.isAbove(ids, 0, name)
        assert.isAbove(owners, 0, name)
        // What was acknowledged just before may be lost with the master.
        if (name.includes("killed")) assert.isAbove(left, 0)
        else assert.strictEqual(left, all)
      }

      // Nothing goes past the doors.
      const running = yield* Effect.forkScoped(refused.run(half))
      yield* sleep(100)
      assert.strictEqual(yield* reached, 0)
      yield* Fiber.join(running)
      yield* until("all keys", Effect.map(reached, (count) => count === all))
    }), 180_000)
})
