import { assert, describe, it, layer as layerTests } from "@effect/vitest"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import { InvalidOptionError } from "../src/CacheError.ts"
import * as Script from "../src/internal/redis/script.ts"
import * as RedisCluster from "../src/RedisCluster.ts"
import { type Cluster, makeCluster, type Node } from "./support/redisCluster.ts"

class TestCluster extends Context.Service<TestCluster, Cluster>()("test/Cluster") {
  static readonly layer = Layer.effect(TestCluster, makeCluster())
}

const quiet = Layer.succeed(References.MinimumLogLevel, "None")

const clientOf = (cluster: Cluster, options?: Partial<RedisCluster.RedisClusterOptions>) =>
  Effect.map(
    Layer.build(Layer.provide(RedisCluster.layer({ rootNodes: cluster.rootNodes, ...options }), quiet)),
    Context.get(Redis.Redis)
  )

/** A hash tag on each of the masters. */
const tagsOf = (cluster: Cluster) =>
  Effect.forEach(cluster.masters, (master) =>
    Effect.gen(function*() {
      for (let i = 0;; i++) {
        const tag = `{${i}}`
        if ((yield* Effect.flatMap(cluster.slotOf(tag), cluster.ownerOf)).id === master.id) return tag
      }
    }))

const eventually = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.timeout(Effect.retry(effect, Schedule.spaced("20 millis")), "20 seconds")

const setUp = Effect.gen(function*() {
  const cluster = yield* TestCluster
  yield* cluster.settled
  return { cluster, tags: yield* tagsOf(cluster), redis: yield* clientOf(cluster) }
})

const twoKeys: Script.Script<ReadonlyArray<string>> = {
  keys: (keys) => keys,
  argv: () => ["value"],
  lua: `redis.call("SET", KEYS[2], ARGV[1]) return { KEYS[1], ARGV[1] }`
}

const runTwo = (redis: Redis.Redis["Service"]) => Script.run(redis, twoKeys)

layerTests(TestCluster.layer, { excludeTestServices: true, timeout: "1 minute" })("RedisCluster", (it) => {
  it.effect("sends commands to the nodes of their keys", () =>
    Effect.gen(function*() {
      const { cluster, redis, tags } = yield* setUp
      for (const [i, tag] of tags.entries()) {
        yield* redis.send("SET", `${tag}a`, `${i}`)
        assert.strictEqual(yield* cluster.masters[i].command("GET", `${tag}a`), `${i}`)
        assert.deepStrictEqual(yield* runTwo(redis)([`${tag}a`, `${tag}b`]), [`${tag}a`, "value"])
        assert.strictEqual(yield* redis.send("EVAL", "return ARGV[1]", "0", "none"), "none")
        assert.strictEqual(yield* redis.send("OBJECT", "ENCODING", `${tag}a`), "int")
        yield* redis.send("XADD", `${tag}s`, "1-1", "field", "value")
        assert.isNotNull(yield* redis.send("XREAD", "COUNT", "1", "STREAMS", `${tag}s`, "0"))
        yield* redis.send("RPUSH", `${tag}l`, "element")
        assert.deepStrictEqual(yield* redis.send("LMPOP", "1", `${tag}l`, "LEFT"), [`${tag}l`, ["element"]])
        assert.deepStrictEqual(yield* redis.send("RPUSH", `${tag}l`, "element"), 1)
        assert.deepStrictEqual(yield* redis.send("BLMPOP", "1", "1", `${tag}l`, "LEFT"), [`${tag}l`, ["element"]])
      }
      assert.deepStrictEqual(yield* redis.send("MGET", ...tags.map((tag) => `${tag}a`)), ["0", "1", "2"])
      const script = Redis.script((key: string) => [key], { lua: "return KEYS[1]", numberOfKeys: 1 })
        .withReturnType<string>()
      for (const tag of tags) assert.strictEqual(yield* redis.eval(script)(tag), tag)
    }))

  it.effect("a script that one node has forgotten is sent to it again", () =>
    Effect.gen(function*() {
      const { cluster, redis, tags } = yield* setUp
      const run = runTwo(redis)
      const all = Effect.forEach(tags, (tag) => run([`${tag}a`, `${tag}b`]))
      yield* all
      yield* cluster.masters[1].command("SCRIPT", "FLUSH")
      assert.strictEqual((yield* all).length, 3)
      assert.include(String((yield* Effect.flip(run([`${tags[0]}a`, `${tags[1]}a`]))).cause), "CROSSSLOT")
    }))

  it.effect("follows a slot that moves, and says where it cannot be used meanwhile", () =>
    Effect.gen(function*() {
      const { cluster, redis, tags } = yield* setUp
      const [a, b] = [`${tags[0]}moved a`, `${tags[0]}moved b`]
      yield* redis.send("MSET", a, "a", b, "b")
      const slot = yield* cluster.slotOf(a)
      const move = yield* cluster.move(slot, cluster.masters[1])
      const both = Effect.all([redis.send("GET", a), redis.send("GET", b)])
      assert.deepStrictEqual(yield* both, ["a", "b"])
      yield* move.carry(1)
      assert.deepStrictEqual(yield* both, ["a", "b"])
      const error = yield* Effect.flip(runTwo(redis)([a, b]))
      assert.include(String(error.cause), "TRYAGAIN")
      yield* move.end
      assert.deepStrictEqual(yield* both, ["a", "b"])
      yield* runTwo(redis)([a, b])
      yield* Effect.flatMap(cluster.move(slot, cluster.masters[0]), ({ end }) => end)
      assert.deepStrictEqual(yield* redis.send("MGET", a, b), ["a", "value"])
    }))

  it.effect("hears what is published at any node", () =>
    Effect.gen(function*() {
      const { cluster, redis, tags } = yield* setUp
      const queue = yield* redis.subscribe("channel")
      for (const { command } of cluster.masters) yield* command("PUBLISH", "channel", "by a node")
      yield* redis.send("PUBLISH", "channel", "by the client")
      const publish = "return redis.call('PUBLISH', 'channel', ARGV[1])"
      for (const tag of tags) yield* redis.send("EVAL", publish, "1", tag, "by a script")
      const messages = yield* Queue.takeN(queue, 7)
      assert.deepStrictEqual(messages.map(({ message }) => message).sort(), [
        ...Array.from({ length: 3 }, () => "by a node"),
        ...Array.from({ length: 3 }, () => "by a script"),
        "by the client"
      ])
    }))

  it.effect("messages of one node come in their order", () =>
    Effect.gen(function*() {
      const { redis, tags } = yield* setUp
      const queue = yield* redis.subscribe("ordered")
      const publish = "for i = 1, 50 do redis.call('PUBLISH', 'ordered', ARGV[1] .. ' ' .. ARGV[2] + i) end"
      yield* Effect.forEach(
        Array.from({ length: 20 }, (_, round) => round * 50),
        (from) =>
          Effect.forEach(tags, (tag) => redis.send("EVAL", publish, "1", tag, tag, `${from}`), {
            concurrency: "unbounded"
          })
      )
      const messages = yield* Queue.takeN(queue, 3_000)
      for (const tag of tags) {
        const numbers = messages.flatMap(({ message }) =>
          message.startsWith(tag) ? [Number(message.split(" ")[1])] : []
        )
        assert.deepStrictEqual(numbers, Array.from({ length: 1_000 }, (_, i) => i + 1))
      }
    }))

  it.effect("a reserved client blocks nobody else", () =>
    Effect.gen(function*() {
      const { redis, tags } = yield* setUp
      const list = `${tags[2]}list`
      const popped = yield* Effect.scoped(Effect.gen(function*() {
        const reserved = yield* redis.reserve
        const blocked = yield* Effect.forkChild(reserved.send("BLPOP", list, "20"))
        yield* Effect.sleep(50)
        yield* redis.send("RPUSH", list, "element")
        return yield* Fiber.join(blocked)
      }))
      assert.deepStrictEqual(popped, [list, "element"])
    }))

  it.effect("a node that is killed fails what it has, and nothing else, also for who comes later", () =>
    Effect.gen(function*() {
      const { cluster, redis, tags } = yield* setUp
      const setAll = (redis: Redis.Redis["Service"]) =>
        Effect.forEach(tags, (tag) => Effect.map(Effect.exit(redis.send("SET", `${tag}k`, "v")), Exit.isSuccess), {
          concurrency: "unbounded"
        })
      const hasty = yield* clientOf(cluster, { defaults: { disableOfflineQueue: true } })
      assert.deepStrictEqual(yield* setAll(hasty), [true, true, true])
      yield* cluster.masters[1].stop
      const later = yield* clientOf(cluster)
      assert.deepStrictEqual(yield* setAll(hasty), [true, false, true])
      assert.deepStrictEqual(yield* setAll(later), [true, false, true])
      // One that was connected before waits for it.
      const waiting = yield* Effect.forkChild(redis.send("SET", `${tags[1]}k`, "v"))
      yield* cluster.masters[1].start
      for (const each of [hasty, later]) yield* eventually(each.send("SET", `${tags[1]}k`, "v"))
      yield* Effect.exit(Fiber.join(waiting))
    }))

  it.effect("a subscription whose node is killed goes on at another one", () =>
    Effect.gen(function*() {
      const { cluster, redis } = yield* setUp
      const queue = yield* Effect.provideService(redis.subscribe("goes on"), References.MinimumLogLevel, "None")
      const listening = (node: Node) => Effect.map(node.command("PUBSUB", "NUMSUB", "goes on"), ([, count]) => count)
      const counts = yield* Effect.forEach(cluster.masters, listening)
      assert.deepStrictEqual([...counts].sort(), [0, 0, 1])
      const node = cluster.masters[counts.indexOf(1)]
      const others = cluster.masters.filter((other) => other !== node)
      yield* node.stop
      yield* Effect.timeout(
        Effect.repeat(Effect.forEach(others, listening), {
          until: (counts) => counts.includes(1),
          schedule: Schedule.spaced("20 millis")
        }),
        "20 seconds"
      )
      yield* others[0].command("PUBLISH", "goes on", "again")
      assert.deepStrictEqual(yield* Queue.take(queue), { channel: "goes on", message: "again" })
      yield* node.start
    }))

  it.effect("a node that does not answer keeps no scope open", () =>
    Effect.gen(function*() {
      const { cluster, tags } = yield* setUp
      const [node] = cluster.masters
      const since = Date.now()
      yield* Effect.scoped(Effect.gen(function*() {
        const redis = yield* clientOf(cluster)
        yield* redis.send("GET", tags[0])
        yield* Effect.acquireRelease(node.pause, () => node.resume)
        yield* Effect.timeoutOption(redis.send("GET", tags[0]), "20 millis")
      })).pipe(Effect.ensuring(node.resume))
      assert.isBelow(Date.now() - since, 4_000)
    }))
})

describe("RedisCluster: failover", () => {
  it.live(
    "finds the replica that has taken over, be the dead node one that was never met",
    () =>
      Effect.gen(function*() {
        const cluster = yield* makeCluster({ replicasPerMaster: 1 })
        const tags = yield* tagsOf(cluster)
        const met = yield* clientOf(cluster, { defaults: { disableOfflineQueue: true } })
        yield* met.send("SET", `${tags[0]}k`, "v")
        yield* cluster.masters[0].stop
        const unmet = yield* clientOf(cluster)
        assert.strictEqual((yield* Effect.exit(unmet.send("GET", `${tags[0]}k`)))._tag, "Failure")
        yield* cluster.promote(cluster.replicas[0][0])
        for (const redis of [met, unmet]) yield* eventually(redis.send("SET", `${tags[0]}k`, "w"))
      }),
    90_000
  )
})

describe("RedisCluster: credentials and options", () => {
  it.live("one password for all nodes: by option, by the URL, from the configuration", () =>
    Effect.gen(function*() {
      const cluster = yield* makeCluster({ masters: 1, settings: { maxmemory: "100mb" } })
      yield* cluster.nodes[0].command("CONFIG", "SET", "requirepass", "s3cr/t")
      const [{ port }] = cluster.nodes
      const [{ url }] = cluster.rootNodes
      const ping = (layer: Layer.Layer<Redis.Redis, unknown>) =>
        Effect.flatMap(Redis.Redis, (redis) => redis.send("SET", "k", "v")).pipe(
          Effect.provide(Layer.fresh(Layer.provide(layer, quiet))),
          Effect.exit
        )
      const good = [
        RedisCluster.layer({ rootNodes: [{ url }], password: Redacted.make("s3cr/t") }),
        RedisCluster.layer({ rootNodes: [{ url }], password: "s3cr/t", username: "default" }),
        RedisCluster.layer({ rootNodes: [{ url: `redis://:s3cr%2Ft@127.0.0.1:${port}` }] }),
        RedisCluster.layer({ rootNodes: [{ url }], defaults: { password: "s3cr/t" } }),
        RedisCluster.layerConfig({
          rootNodes: Config.map(Config.String("NODES"), (nodes) => nodes.split(",").map((url) => ({ url }))),
          password: Config.Redacted("PASSWORD")
        }).pipe(
          Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ NODES: url, PASSWORD: "s3cr/t" })))
        )
      ]
      for (const layer of good) assert.strictEqual((yield* ping(layer))._tag, "Success")
      const wrong = yield* ping(RedisCluster.layer({ rootNodes: [{ url }], password: Redacted.make("wr0ng") }))
      assert.strictEqual(wrong._tag, "Failure")
      assert.notInclude(JSON.stringify(wrong), "wr0ng")
    }), 60_000)

  it.live("fails to be built where no node answers", () =>
    Effect.gen(function*() {
      const error = yield* RedisCluster.layer({ rootNodes: [{ url: "redis://127.0.0.1:1" }] }).pipe(
        Layer.provide(quiet),
        Layer.build,
        Effect.flip
      )
      assert.instanceOf(error, Redis.RedisError)
    }))

  it("refuses bad options by name and value, and shows no password", () => {
    assert.throws(() => RedisCluster.layer({ rootNodes: [] }), InvalidOptionError, "rootNodes")
    try {
      RedisCluster.layer({ rootNodes: [{ url: "me:s3cr3t@there:notaport" }, {}] })
    } catch (error) {
      assert.instanceOf(error, InvalidOptionError)
      assert.notInclude(String(error), "s3cr3t")
    }
  })
})
