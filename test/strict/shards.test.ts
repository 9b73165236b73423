/** Strict mode in several shards: each has its fences and its barrier, and no read meets a shard that lacks one. */
import { assert, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as CacheStore from "../../src/CacheStore.ts"
import * as Dependency from "../../src/Dependency.ts"
import { shardOf } from "../../src/internal/redis/namespace.ts"
import * as RedisStore from "../../src/RedisStore.ts"
import { entryOf, freshNamespace, keyOf, type Service, setOf, write } from "../CacheStoreTest.ts"
import * as TestRedis from "../support/redis.ts"

const { table } = Dependency
const orders = setOf(table("orders"))

const storeOn = (redis: Redis.Redis["Service"], shards = 3) =>
  Effect.map(
    Layer.build(
      Layer.fresh(RedisStore.layer({ shards, consistency: "strict" })).pipe(
        Layer.provide(Layer.succeed(Redis.Redis, redis))
      )
    ),
    Context.get(CacheStore.CacheStore)
  )

/** A key in each shard. */
const keysOf = (namespace: string): ReadonlyArray<CacheStore.CacheKey> =>
  [0, 1, 2].map((shard) => {
    for (let i = 0;; i++) {
      if (shardOf(`q${i}`, 3) === shard) return keyOf(namespace, `q${i}`)
    }
  })

/** What lookups come to, by shard: the reason where one is a bypass. */
const outcomes = (store: Service, keys: ReadonlyArray<CacheStore.CacheKey>, dependencies = orders) =>
  Effect.map(
    store.lookupMany(keys.map((key) => ({ key, dependencies }))),
    (all) => all.map((outcome) => outcome._tag === "Bypass" ? outcome.reason : outcome._tag)
  )

/** Passes the barriers of all shards, over a database in which nothing is under way. */
const open = (store: Service, keys: ReadonlyArray<CacheStore.CacheKey>) =>
  Effect.forEach(keys, (key) =>
    Effect.gen(function*() {
      const outcome = yield* store.lookup(key, orders)
      if (outcome._tag !== "Bypass" || outcome.reason !== "barrier") return
      const { epoch, transaction = "7" } = outcome
      yield* store.strict!.barrier(key.namespace, { epoch, transaction, isPassed: true })
    }))

const fill = (store: Service, keys: ReadonlyArray<CacheStore.CacheKey>) =>
  Effect.forEach(keys, (key) =>
    Effect.gen(function*() {
      const { lease } = yield* store.lookup(key, orders)
      assert.strictEqual(yield* store.store(key, entryOf("old", orders), lease), "accepted")
    }))

/** What becomes of commands whose first key is of a shard. */
const faulty = (inner: Redis.Redis["Service"]) => {
  const away = new Set<number>()
  const send: typeof inner.send = (command, ...args) =>
    Effect.suspend(() =>
      away.has(Number(/:(\d+)\}:/.exec(args[2] ?? "")?.[1] ?? NaN))
        ? Effect.fail(new Redis.RedisError({ cause: new Error("connect ECONNREFUSED") }))
        : inner.send<any>(command, ...args)
    )
  return { redis: { ...inner, send }, away }
}

const setUp = Effect.gen(function*() {
  const inner = yield* Redis.Redis
  const { away, redis } = faulty(inner)
  const namespace = freshNamespace()
  const keys = keysOf(namespace)
  const store = yield* storeOn(redis)
  yield* open(store, keys)
  yield* fill(store, keys)
  const fence = (by: Service = store, token = "t") =>
    by.strict!.fence({ ...write(namespace, table("orders")), token, transaction: "8" })
  const command = (name: string, shard: number, key: string, ...args: ReadonlyArray<string>) =>
    inner.send<any>(name, `eqc:{${namespace}:${shard}}:${key}`, ...args)
  return { away, command, fence, inner, keys, namespace, store }
})

const all = (reason: string) => [reason, reason, reason]

layer(TestRedis.layer(), { excludeTestServices: true })("strict, in shards", (it) => {
  it.effect("a fence stands in all of them, and goes with its invalidation, in all", () =>
    Effect.gen(function*() {
      const { fence, keys, namespace, store } = yield* setUp
      assert.deepStrictEqual(yield* outcomes(store, keys), all("Hit"))
      yield* fence()
      assert.deepStrictEqual(yield* outcomes(store, keys), all("fenced"))
      const clocks = yield* store.invalidate({ ...write(namespace, table("orders")), fences: ["t"] })
      assert.strictEqual(clocks.length, 3)
      assert.deepStrictEqual(yield* outcomes(store, keys), all("Miss"))
    }))

  it.effect("a fence that one of them cannot take is none: the others' goes with the rollback", () =>
    Effect.gen(function*() {
      const { away, fence, keys, namespace, store } = yield* setUp
      away.add(1)
      const error = yield* Effect.flip(fence())
      assert.deepStrictEqual([error.operation, error.reason._tag], ["fence", "StoreUnavailable"])
      away.delete(1)
      yield* store.strict!.resolve(namespace, "t", "aborted")
      assert.deepStrictEqual(yield* outcomes(store, keys), all("Hit"))
    }))

  it.effect("where one of them is away, what has ended is told to the others all the same", () =>
    Effect.gen(function*() {
      const { away, fence, keys, namespace, store } = yield* setUp
      yield* fence()
      away.add(0)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(store.strict!.resolve(namespace, "t", "committed"))))
      away.delete(0)
      assert.deepStrictEqual(yield* outcomes(store, keys), ["fenced", "Miss", "Miss"])
      yield* store.strict!.resolve(namespace, "t", "committed")
      assert.deepStrictEqual(yield* outcomes(store, keys), ["Miss", "Wait", "Wait"])
    }))

  it.effect("what has committed is invalidated in all of them, by whoever meets its fence in one", () =>
    Effect.gen(function*() {
      const { command, fence, inner, keys, namespace, store } = yield* setUp
      yield* fence()
      yield* command("HSET", 2, "fences", "t:t", "1 8\norder\ns:orders\ns:orders(*)")
      const another = yield* storeOn(inner)
      const [met] = yield* another.lookupMany([{ key: keys[2], dependencies: orders }])
      assert.deepStrictEqual(
        met._tag === "Bypass" && met.reason === "fenced" && met.expired,
        [{ token: "t", transaction: "8" }]
      )
      yield* another.strict!.resolve(namespace, "t", "running")
      assert.deepStrictEqual(yield* outcomes(store, keys), all("fenced"))
      yield* another.strict!.resolve(namespace, "t", "committed")
      assert.deepStrictEqual(yield* outcomes(store, keys), all("Miss"))
    }))

  it.effect("one that loses its metadata is behind a barrier of its own", () =>
    Effect.gen(function*() {
      const { command, keys, store } = yield* setUp
      yield* command("UNLINK", 1, "meta")
      assert.deepStrictEqual(yield* outcomes(store, keys), ["Hit", "barrier", "Hit"])
      const [outcome] = yield* store.lookupMany([{ key: keys[1], dependencies: orders }])
      const { epoch } = outcome as CacheStore.Closed
      assert.match(epoch, /@1$/)
      yield* open(store, keys)
      assert.deepStrictEqual(yield* outcomes(store, keys), ["Hit", "Miss", "Hit"])
    }))

  it.effect("whoever uses fewer puts up fences in all that anybody uses", () =>
    Effect.gen(function*() {
      const { fence, inner, keys, namespace, store } = yield* setUp
      const one = yield* storeOn(inner, 1)
      yield* fence(one)
      assert.deepStrictEqual(yield* outcomes(store, keys), all("fenced"))
      yield* one.strict!.resolve(namespace, "t", "committed")
      assert.deepStrictEqual(yield* outcomes(store, keys), all("Miss"))
    }))

  it.effect("where it was forgotten who uses how many, a write may have its fence in the first one alone", () =>
    Effect.gen(function*() {
      const { command, fence, inner, keys, store } = yield* setUp
      const one = yield* storeOn(inner, 1)
      yield* command("UNLINK", 0, "meta")
      yield* fence(one)
      yield* store.lookup(keys[0], orders)
      // What is read now may be from before its commit.
      assert.deepStrictEqual(yield* outcomes(store, keys), all("barrier"))
    }))
})
