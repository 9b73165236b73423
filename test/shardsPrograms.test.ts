/** Programs over a namespace in three shards: what they are told, and what becomes of a write that one shard misses. */
import { PgClient } from "@effect/sql-pg"
import { assert, layer as layerTests } from "@effect/vitest"
import { Invalidator, QueryCache, RedisStore } from "effect-query-cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import * as Scripts from "../src/internal/redis/scripts.ts"
import { freshNamespace } from "./CacheStoreTest.ts"
import * as Fleet from "./support/fleet.ts"
import * as Gate from "./support/gate.ts"
import * as TestRedis from "./support/redis.ts"

const ids = Array.from({ length: 12 }, (_, id) => id)

const invalidate = createHash("sha1").update(Scripts.invalidate.lua).digest("hex")

/** Two programs over one database and one Redis, and to which shards one of them sends invalidations. */
const setUp = Effect.gen(function*() {
  const inner = yield* Redis.Redis
  const gate = Gate.make(inner)
  const away = new Set<number>()
  const sent: Array<number> = []
  const redis: Redis.Redis["Service"] = {
    ...gate.redis,
    send: (command, ...args) =>
      Effect.suspend(() => {
        const shard = Number(/:(\d+)\}:/.exec(args[2] ?? "")?.[1] ?? NaN)
        if (args[0] === invalidate) sent.push(shard)
        return away.has(shard)
          ? Effect.fail(new Redis.RedisError({ cause: new Error("connect ECONNREFUSED") }))
          : gate.redis.send<any>(command, ...args)
      })
  }
  const world = { n: 0 }
  const namespace = freshNamespace()
  const member = (redis: Redis.Redis["Service"]) =>
    Effect.provideService(
      Fleet.member(
        ({ sql }) => sql.startsWith("SELECT") ? [{ n: world.n }] : [],
        Layer.provide(RedisStore.layer({ shards: 3 }), Layer.succeed(Redis.Redis, redis)),
        { namespace, lookupTimeout: "2 seconds", invalidationTimeout: "2 seconds" }
      ),
      References.MinimumLogLevel,
      "None"
    )
  const [here, there] = [yield* member(redis), yield* member(inner)]
  const sqlOf = (member: typeof here) => Context.get(member, PgClient.PgClient)
  const write = (member: typeof here) =>
    Effect.suspend(() => {
      world.n++
      return sqlOf(member)`UPDATE orders SET n = ${world.n}`
    })
  const read = (member: typeof here, id: number) =>
    QueryCache.cached(sqlOf(member)<{ n: number }>`SELECT n FROM orders WHERE id = ${id}`)
  /** What all keys answer. */
  const all = (member: typeof here) => Effect.forEach(ids, (id) => Effect.map(read(member, id), ([{ n }]) => n))
  return { gate, away, sent, world, here, there, write, read, all }
})

const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>, is: (value: A) => boolean) =>
  Effect.timeout(Effect.repeat(effect, { until: is, schedule: Schedule.spaced("10 millis") }), "15 seconds")

layerTests(TestRedis.layer(), { excludeTestServices: true })("programs over three shards", (it) => {
  it.effect("what one shard has taken is not sent to it again, and what came later is", () =>
    Effect.gen(function*() {
      const { all, away, here, there, world, write } = yield* setUp
      yield* all(here)
      away.add(1)
      yield* write(here)
      // The writer does not serve it, and the other shards have it.
      assert.deepStrictEqual(yield* all(here), ids.map(() => 1))
      yield* all(there)
      // The same again, which another shard misses: it is merged with the one that waits.
      away.add(0)
      yield* write(here)
      away.clear()
      yield* eventually(all(there), (values) => values.every((n) => n === world.n))
      assert.deepStrictEqual(yield* all(here), ids.map(() => 2))
    }))

  it.effect("while a shard is away the others are sent an invalidation once", () =>
    Effect.gen(function*() {
      const { all, away, here, sent, write } = yield* setUp
      // Redis learns the script.
      yield* write(here)
      yield* all(here)
      away.add(1)
      sent.length = 0
      yield* write(here)
      yield* eventually(Effect.sync(() => sent.filter((shard) => shard === 1).length), (count) => count >= 4)
      assert.deepStrictEqual([0, 2].map((other) => sent.filter((shard) => shard === other).length), [1, 1])
      away.clear()
      yield* eventually(
        Effect.map(QueryCache.withInfo(all(here)), ([queries]) => queries.every(({ status }) => status === "hit")),
        (isServed) => isServed
      )
    }))

  it.effect("an own write is told once, another's never with an old answer", () =>
    Effect.gen(function*() {
      const { here, read, there, world, write } = yield* setUp
      let told = 0
      const reactivity = Context.get(here, Reactivity.Reactivity)
      const changed = yield* Queue.unbounded<number>()
      yield* QueryCache.changes(read(here, 1)).pipe(
        Stream.provideContext(here),
        Stream.runForEach(([{ n }]) => Queue.offer(changed, n)),
        Effect.forkScoped({ startImmediately: true })
      )
      assert.strictEqual(yield* Queue.take(changed), 0)
      const stop = reactivity.registerUnsafe(["orders"], () => {
        told++
      })
      for (let i = 1; i <= 10; i++) {
        yield* write(here)
        yield* eventually(Queue.take(changed), (n) => n === i)
      }
      yield* Effect.sleep(200)
      assert.strictEqual(told, 10)
      for (let i = 11; i <= 30; i++) {
        yield* write(there)
        yield* eventually(Queue.take(changed), (n) => n === world.n)
      }
      yield* Effect.sleep(100)
      stop()
      // Each shard tells when it has it.
      assert.isAtMost(told, 10 + 20 * 3)
    }))

  it.effect("messages of all shards that are lost are noticed by the next ones", () =>
    Effect.gen(function*() {
      const { gate, here, read, there, write } = yield* setUp
      const changed = yield* Queue.unbounded<number>()
      yield* QueryCache.changes(read(here, 1)).pipe(
        Stream.provideContext(here),
        Stream.runForEach(([{ n }]) => Queue.offer(changed, n)),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* eventually(Queue.take(changed), (n) => n === 0)
      gate.loseMessages(3)
      yield* write(there)
      yield* Invalidator.invalidate({ tags: ["unrelated"] }).pipe(Effect.provide(there))
      yield* eventually(Queue.take(changed), (n) => n === 1)
    }))
})
