/**
 * A namespace in several shards: where things lie, what each guard is for, and what becomes of processes that use
 * different numbers of them.
 */
import { assert, describe, it, layer as layerTests } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Schedule from "effect/Schedule"
import { createHash } from "node:crypto"
import { CacheError } from "../src/CacheError.ts"
import * as CacheStore from "../src/CacheStore.ts"
import * as Dependency from "../src/Dependency.ts"
import { shardOf as shardOfEpoch } from "../src/internal/epoch.ts"
import * as Places from "../src/internal/places.ts"
import * as Coherence from "../src/internal/redis/coherence.ts"
import { shardOf } from "../src/internal/redis/namespace.ts"
import * as Scripts from "../src/internal/redis/scripts.ts"
import * as Shards from "../src/internal/redis/shards.ts"
import * as RedisStore from "../src/RedisStore.ts"
import * as TieredStore from "../src/TieredStore.ts"
import { entryOf, fill, freshNamespace, hit, keyOf, miss, type Service, setOf, write } from "./CacheStoreTest.ts"
import * as TestRedis from "./support/redis.ts"

const { table } = Dependency
const orders = setOf(table("orders"))
const users = setOf(table("users"))

const built = (layer: Layer.Layer<CacheStore.CacheStore, never, Redis.Redis>, redis: Redis.Redis["Service"]) =>
  Effect.map(
    Layer.build(Layer.fresh(Layer.provide(layer, Layer.succeed(Redis.Redis, redis)))),
    Context.get(CacheStore.CacheStore)
  )

const storeOn = (redis: Redis.Redis["Service"], shards = 3) => built(RedisStore.layer({ shards }), redis)

/** A key in each shard. */
const keysOf = (namespace: string, shards = 3): ReadonlyArray<CacheStore.CacheKey> =>
  Array.from({ length: shards }, (_, shard) => {
    for (let i = 0;; i++) {
      if (shardOf(`q${i}`, shards) === shard) return keyOf(namespace, `q${i}`)
    }
  })

/** What becomes of commands whose first key is of a shard: `send` is what Redis itself would do. */
type Fault = (send: Effect.Effect<any, Redis.RedisError>) => Effect.Effect<any, Redis.RedisError>
const away: Fault = () => Effect.fail(new Redis.RedisError({ cause: new Error("connect ECONNREFUSED") }))

const faulty = (inner: Redis.Redis["Service"]) => {
  const faults = new Map<number, Fault>()
  const sent: Array<number> = []
  const send: typeof inner.send = (command, ...args) =>
    Effect.suspend(() => {
      const shard = Number(/:(\d+)\}:/.exec(args[2] ?? "")?.[1] ?? NaN)
      sent.push(shard)
      const proceed = inner.send<any>(command, ...args)
      return faults.get(shard)?.(proceed) ?? proceed
    })
  return { redis: { ...inner, send }, faults, sent }
}

const setUp = Effect.gen(function*() {
  const inner = yield* Redis.Redis
  const { faults, redis, sent } = faulty(inner)
  const namespace = freshNamespace()
  return { inner, redis, faults, sent, namespace, keys: keysOf(namespace), store: yield* storeOn(redis) }
})

const surviving = (store: Service, keys: ReadonlyArray<CacheStore.CacheKey>, dependencies = orders) =>
  Effect.map(
    Effect.forEach(keys, (key) => store.lookup(key, dependencies)),
    (outcomes) => outcomes.map(({ _tag }) => _tag === "Hit")
  )

describe("shards", () => {
  it("a fingerprint's shard stays the same, and shards are of one size", () => {
    assert.deepStrictEqual([..."abcdef"].map((text) => shardOf(text, 16)), [3, 2, 1, 14, 3, 0])
    for (const count of [2, 3, 16, 256]) {
      const sizes = Array.from({ length: count }, () => 0)
      for (let i = 0; i < count * 1_000; i++) {
        sizes[shardOf(createHash("sha3-256").update(`${i}`).digest("hex"), count)]++
      }
      for (const size of sizes) assert.closeTo(size, 1_000, 200)
    }
  })

  it("an epoch names its shard", () => {
    assert.strictEqual(shardOfEpoch("17-a.0@12"), 12)
    for (const epoch of ["17-a.0", "17-a.0@", "17-a.0@x", "17-a.0@12345"]) assert.isNaN(shardOfEpoch(epoch))
  })
})

layerTests(TestRedis.layer(), { excludeTestServices: true })("a namespace in three shards", (it) => {
  it.effect("an entry lies in the shard of its fingerprint, with its flight; each shard has its own epoch", () =>
    Effect.gen(function*() {
      const { inner, keys, namespace, store } = yield* setUp
      const leases = yield* Effect.forEach(keys, (key) => fill(store, key, orders))
      assert.deepStrictEqual(leases.map(({ epoch }) => shardOfEpoch(epoch)), [0, 1, 2])
      for (const [shard, key] of keys.entries()) {
        assert.strictEqual(yield* inner.send("EXISTS", `eqc:{${namespace}:${shard}}:e:${key.fingerprint}`), 1)
      }
      const clocks = yield* store.invalidate(write(namespace, table("orders")))
      assert.deepStrictEqual(clocks.map(({ epoch }) => epoch), leases.map(({ epoch }) => epoch))
    }))

  it.effect("one command for a lookup or a fill, three for a write, and a batch is split", () =>
    Effect.gen(function*() {
      const { keys, namespace, sent, store } = yield* setUp
      yield* Effect.forEach(keys, (key) => fill(store, key, orders))
      yield* store.invalidate(write(namespace, table("users")))
      sent.length = 0
      yield* hit(store, keys[2], orders)
      assert.deepStrictEqual(sent.splice(0), [2])
      yield* fill(store, keyOf(namespace, "other"), orders)
      assert.strictEqual(sent.splice(0).length, 2)
      yield* store.invalidate(write(namespace, table("orders")))
      assert.deepStrictEqual(sent.splice(0).sort(), [0, 1, 2])
      const requests = [...keys, ...keys].map((key) => ({ key, dependencies: orders }))
      const outcomes = yield* store.lookupMany(requests)
      assert.deepStrictEqual(sent.splice(0).sort(), [0, 1, 2])
      const verdicts = yield* store.storeMany(requests.map(({ key }, i) => ({
        key,
        entry: entryOf(i, orders),
        lease: outcomes[i].lease
      })))
      assert.deepStrictEqual(verdicts, requests.map(() => "accepted"))
      assert.deepStrictEqual(sent.splice(0).sort(), [0, 1, 2])
    }))

  it.effect("one shard that is away fails what it holds and every write, and nothing else", () =>
    Effect.gen(function*() {
      const { faults, keys, namespace, sent, store } = yield* setUp
      yield* Effect.forEach(keys, (key) => fill(store, key, orders))
      faults.set(1, away)
      assert.deepStrictEqual(
        yield* Effect.forEach(keys, (key) => Effect.map(Effect.exit(store.lookup(key, orders)), Exit.isSuccess)),
        [true, false, true]
      )
      const delivered = new Map<number, CacheStore.LogicalClock>()
      const request = { ...write(namespace, table("orders")), delivered }
      const error = yield* Effect.flip(store.invalidate(request))
      assert(error instanceof CacheError && error.reason._tag === "StoreUnavailable")
      // What the others have done stays done.
      assert.deepStrictEqual(yield* surviving(store, [keys[0], keys[2]]), [false, false])
      assert.deepStrictEqual([...delivered.keys()].sort(), [0, 2])
      faults.clear()
      assert.deepStrictEqual(yield* surviving(store, [keys[1]]), [true])
      sent.length = 0
      const clocks = yield* store.invalidate(request)
      assert.deepStrictEqual(sent, [1])
      assert.deepStrictEqual(clocks.map(({ epoch }) => shardOfEpoch(epoch)), [0, 1, 2])
      assert.deepStrictEqual(yield* surviving(store, [keys[1]]), [false])
    }))

  it.effect("a batch that one shard fails leaves no flight behind in the others", () =>
    Effect.gen(function*() {
      const { faults, inner, keys, store } = yield* setUp
      yield* Effect.forEach(keys, (key) => miss(store, key, users))
      faults.set(2, away)
      const requests = keys.map((key) => ({ key, dependencies: orders }))
      yield* Effect.sleep(1_000)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(store.lookupMany(requests))))
      const another = yield* storeOn(inner)
      yield* Effect.timeout(
        Effect.repeat(another.lookup(keys[0], orders), {
          until: (outcome) => outcome._tag === "Miss" && outcome.lease.flight !== undefined,
          schedule: Schedule.spaced(10)
        }),
        "2 seconds"
      )
    }))

  // -------------------------------------------------------------------------
  // Races, with and without their guard
  // -------------------------------------------------------------------------

  /** Whether the late fill of a shard whose clock is behind that of another one is refused. */
  const leaseOfItsShard = Effect.fnUntraced(function*(
    leaseOf: (own: CacheStore.Lease, highest: number) => CacheStore.Lease
  ) {
    const { faults, keys, namespace, store } = yield* setUp
    yield* Effect.forEach(keys, (key) => miss(store, key, orders))
    // The clocks drift apart, as they do where one shard is away.
    faults.set(2, away)
    for (let i = 0; i < 3; i++) yield* Effect.exit(store.invalidate(write(namespace, table("orders"))))
    faults.clear()
    const outcomes = yield* Effect.forEach(keys, (key) => store.lookup(key, orders))
    const highest = Math.max(...outcomes.map(({ lease }) => lease.clock))
    assert.isAbove(highest, outcomes[2].lease.clock)
    yield* store.invalidate(write(namespace, table("orders")))
    const lease = leaseOf(outcomes[2].lease, highest)
    return (yield* store.store(keys[2], entryOf("old", orders), lease)) === "refused"
  })

  it.effect("a fill is judged by the clock of its own shard", () =>
    Effect.gen(function*() {
      assert.isTrue(yield* leaseOfItsShard((own) => own))
      assert.isFalse(yield* leaseOfItsShard((own, clock) => ({ ...own, clock })), "by the clock of another one")
    }))

  /** Whether nothing is served that a write which has returned has touched, where some shards are slow. */
  const everyShard = Effect.fnUntraced(function*(slow: (invalidation: Effect.Effect<any, Redis.RedisError>) => Fault) {
    const { faults, keys, namespace, store } = yield* setUp
    yield* Effect.forEach(keys, (key) => fill(store, key, orders))
    yield* store.invalidate(write(namespace, table("users")))
    const late = (send: Effect.Effect<any, Redis.RedisError>) => Effect.delay(send, 200)
    for (const shard of [1, 2]) faults.set(shard, (send) => slow(send)(late(send)))
    yield* Effect.exit(store.invalidate(write(namespace, table("orders"))))
    faults.clear()
    return !(yield* surviving(store, keys)).includes(true)
  })

  it.effect("a write returns when every shard has it", () =>
    Effect.gen(function*() {
      assert.isTrue(yield* everyShard(() => (send) => send))
      // It returns, with a failure, when the first shard has it and the others have yet to get it.
      assert.isFalse(yield* everyShard(() => (send) => Effect.andThen(Effect.forkDetach(send), away(send))))
    }))

  // -------------------------------------------------------------------------
  // Processes that use different numbers of shards
  // -------------------------------------------------------------------------

  const scripts = [Scripts.lookup.flat, Scripts.store.flat, Scripts.invalidate, Shards.open, Coherence.beat]
  const luaBySha = new Map(scripts.map(({ lua }) => [createHash("sha1").update(lua).digest("hex"), lua]))

  /** The same Redis, running scripts without a guard. */
  const without = (redis: Redis.Redis["Service"], guard: string, mutant: string): Redis.Redis["Service"] => {
    assert.isTrue(scripts.some(({ lua }) => lua.includes(guard)), "the guard is not in the scripts")
    return {
      ...redis,
      send: (command, sha, ...args) => {
        const lua = command === "EVALSHA" ? luaBySha.get(sha) : undefined
        if (lua === undefined) return redis.send(command, sha, ...args)
        return redis.send("EVAL", lua.replaceAll(guard, mutant), ...args)
      }
    }
  }

  interface Mixed {
    readonly redis: Redis.Redis["Service"]
    readonly namespace: string
    /** Uses one shard. */
    readonly few: Service
    /** Use three. */
    readonly many: Service
    readonly others: Service
    readonly keys: ReadonlyArray<CacheStore.CacheKey>
  }

  const rights: ReadonlyArray<{
    readonly name: string
    readonly guard: readonly [guard: string, mutant: string]
    readonly isRight: (mixed: Mixed) => Effect.Effect<boolean, CacheError | Redis.RedisError>
  }> = [
    {
      name: "who uses few writes to all that others have recorded",
      guard: ["type(shards) == \"string\" and shards or \"1\"", "\"1\""],
      isRight: ({ few, keys, many, namespace }) =>
        Effect.gen(function*() {
          yield* miss(few, keys[0], users)
          yield* Effect.forEach(keys, (key) => fill(many, key, orders))
          yield* few.invalidate(write(namespace, table("orders")))
          return !(yield* surviving(many, keys)).includes(true)
        })
    },
    {
      name: "what is recorded outlives an epoch",
      guard: ["if shards[1] then write(\"HSET\", META, \"shards\", shards[1], \"ready\", shards[2] or \"1\") end", ""],
      isRight: ({ few, keys, many, namespace }) =>
        Effect.gen(function*() {
          yield* Effect.forEach(keys, (key) => fill(many, key, users))
          yield* few.invalidate({ namespace, ...Dependency.allTargets })
          yield* fill(many, keys[2], orders)
          yield* few.invalidate(write(namespace, table("orders")))
          return !(yield* surviving(many, [keys[2]])).includes(true)
        })
    },
    {
      name: "where the record was lost, what is held from before is cleared",
      guard: ["if ARGV[7] == epoch and used >= wanted then", "if true then"],
      isRight: ({ few, keys, many, namespace, redis }) =>
        Effect.gen(function*() {
          yield* Effect.forEach(keys, (key) => fill(many, key, orders))
          yield* redis.send("DEL", `eqc:{${namespace}:0}:meta`)
          yield* few.invalidate(write(namespace, table("orders")))
          // It has heard of the new epoch.
          yield* miss(many, keys[0], users)
          return !(yield* surviving(many, [keys[1], keys[2]])).includes(true)
        })
    },
    {
      name: "who hears nothing of the first shard asks it within a second",
      guard: ["if ARGV[7] == epoch and used >= wanted then", "if true then"],
      isRight: ({ few, keys, many, namespace, others, redis }) =>
        Effect.gen(function*() {
          yield* Effect.forEach(keys, (key) => fill(many, key, orders))
          yield* hit(others, keys[2], orders)
          yield* redis.send("DEL", `eqc:{${namespace}:0}:meta`)
          yield* few.invalidate(write(namespace, table("orders")))
          yield* Effect.sleep(1_001)
          return !(yield* surviving(others, [keys[2]])).includes(true)
        })
    }
  ]

  for (const { guard, isRight, name } of rights) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const inner = yield* Redis.Redis
        const on = Effect.fnUntraced(function*(redis: Redis.Redis["Service"]) {
          const namespace = freshNamespace()
          return yield* isRight({
            redis,
            namespace,
            few: yield* storeOn(redis, 1),
            many: yield* storeOn(redis),
            others: yield* storeOn(redis),
            keys: keysOf(namespace)
          })
        })
        assert.isTrue(yield* on(inner), "with the guard")
        assert.isFalse(yield* on(without(inner, ...guard)), "without the guard")
      }))
  }

  it.effect("who uses few is told by whom uses more while it is at work, and the shards come one after another", () =>
    Effect.gen(function*() {
      const inner = yield* Redis.Redis
      const namespace = freshNamespace()
      const stores = yield* Effect.forEach([1, 2, 5], (shards) => storeOn(inner, shards))
      const counts = [1, 2, 5]
      for (let round = 0; round < 3; round++) {
        for (const [i, store] of stores.entries()) {
          for (const key of keysOf(namespace, counts[i])) yield* fill(store, key, orders).pipe(Effect.exit)
        }
        yield* stores[round].invalidate(write(namespace, table("orders")))
        for (const [i, store] of stores.entries()) {
          assert.notInclude(yield* surviving(store, keysOf(namespace, counts[i])), true)
        }
        yield* Effect.sleep(1_000)
      }
      assert.deepStrictEqual(yield* inner.send("HMGET", `eqc:{${namespace}:0}:meta`, "shards", "ready"), ["5", "5"])
    }))

  it.effect("a session that has written where fewer are used takes along the clocks of all", () =>
    Effect.gen(function*() {
      const { inner, keys, namespace, store } = yield* setUp
      const few = yield* storeOn(inner, 1)
      yield* Effect.forEach(keys, (key) => fill(store, key, orders))
      const before = store.seen(namespace)
      const clocks = yield* few.invalidate(write(namespace, table("orders")))
      for (const told of [clocks, few.seen(namespace)]) {
        const marks = Places.marksOf(told.filter((at) => at !== undefined))
        assert.deepStrictEqual(before.map((at) => Places.reflects(marks, at!)), [false, false, false])
        assert.deepStrictEqual(clocks.map((at) => Places.reflects(marks, at)), [true, true, true])
      }
    }))

  it.effect("a first shard that cannot be reached keeps nobody from the others", () =>
    Effect.gen(function*() {
      for (const fault of [away, () => Effect.never] satisfies Array<Fault>) {
        const { faults, keys, store } = yield* setUp
        yield* Effect.forEach(keys, (key) => fill(store, key, orders))
        faults.set(0, fault)
        for (let i = 0; i < 3; i++) {
          yield* Effect.sleep(i === 0 ? 1_001 : 400)
          yield* Effect.timeout(hit(store, keys[1], orders), "3 seconds")
          const since = yield* Clock.currentTimeMillis
          yield* Effect.timeout(hit(store, keys[2], orders), "3 seconds")
          assert.isBelow((yield* Clock.currentTimeMillis) - since, 500)
        }
      }
    }))

  it.effect("a first shard that was never reached does", () =>
    Effect.gen(function*() {
      const { faults, keys, store } = yield* setUp
      faults.set(0, away)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(store.lookup(keys[1], orders))))
      faults.clear()
      yield* fill(store, keys[1], orders)
    }))
})

layerTests(TestRedis.layer(), { excludeTestServices: true })("two levels over three shards", (it) => {
  const eventually = <A>(effect: Effect.Effect<A, unknown>, is: (value: A) => boolean) =>
    Effect.timeout(Effect.repeat(effect, { until: is, schedule: Schedule.spaced("3 millis") }), "8 seconds")
  const peeked = (store: Service, key: CacheStore.CacheKey) =>
    Effect.map(Clock.currentTimeMillis, (now) => store.peek(key, now)?.value)
  const held = (store: Service, key: CacheStore.CacheKey, dependencies: Dependency.DependencySet) =>
    eventually(
      Effect.gen(function*() {
        const outcome = yield* store.lookup(key, dependencies)
        if (outcome._tag !== "Hit") yield* store.store(key, entryOf("v", dependencies), outcome.lease)
        return yield* peeked(store, key)
      }),
      (value) => value !== undefined
    )
  const setUpTiered = Effect.gen(function*() {
    const inner = yield* Redis.Redis
    const { faults, redis } = faulty(inner)
    const here = yield* built(TieredStore.layer({ shards: 3, maxStaleness: "500 millis" }), redis)
    const there = yield* built(TieredStore.layer({ shards: 3, maxStaleness: "500 millis" }), inner)
    const namespace = freshNamespace()
    const keys = keysOf(namespace)
    // Whoever is first clears what may be in the other shards, and nothing is held then.
    yield* Effect.forEach(keys, (key) => held(here, key, users))
    return { inner, here, there, faults, namespace, keys }
  })

  it.effect("what another process writes is gone in every shard, the rest stays", () =>
    Effect.gen(function*() {
      const { here, keys, namespace, there } = yield* setUpTiered
      const other = keyOf(namespace, "other")
      yield* Effect.forEach([...keys], (key) => held(here, key, orders))
      yield* held(here, other, users)
      yield* there.invalidate(write(namespace, table("orders")))
      for (const key of keys) yield* eventually(peeked(here, key), (value) => value === undefined)
      assert.strictEqual(yield* peeked(here, other), "v")
    }))

  it.effect("own writes are not served from when they return, in any shard", () =>
    Effect.gen(function*() {
      const { here, keys, namespace } = yield* setUpTiered
      for (let i = 0; i < 20; i++) {
        yield* Effect.forEach(keys, (key) => held(here, key, orders), { concurrency: "unbounded" })
        yield* here.invalidate(write(namespace, table("orders")))
        for (const key of keys) assert.isUndefined(yield* peeked(here, key))
      }
    }))

  it.effect("a shard whose beats stay away is not served after the time, and the others are", () =>
    Effect.gen(function*() {
      const { faults, here, keys } = yield* setUpTiered
      yield* Effect.forEach(keys, (key) => held(here, key, orders))
      faults.set(1, () => Effect.never)
      yield* Effect.sleep(500)
      assert.isUndefined(yield* peeked(here, keys[1]))
      yield* eventually(
        Effect.forEach(keys, (key) => peeked(here, key)),
        ([first, second, third]) => first === "v" && second === undefined && third === "v"
      )
      faults.clear()
      yield* eventually(peeked(here, keys[1]), (value) => value === "v")
    }))

  it.effect("a message that one shard's channel has lost is noticed by that shard's beat", () =>
    Effect.gen(function*() {
      const { here, inner, keys, namespace } = yield* setUpTiered
      yield* Effect.forEach(keys, (key) => held(here, key, orders))
      // As if its message had been lost: the stamp and the clock, and nobody is told.
      const of = `eqc:{${namespace}:2}`
      yield* inner.send(
        "ZADD",
        `${of}:stamps`,
        "XX",
        `${yield* inner.send("HINCRBY", `${of}:meta`, "clk", "1")}`,
        "orders"
      )
      const since = yield* Clock.currentTimeMillis
      yield* eventually(peeked(here, keys[2]), (value) => value === undefined)
      assert.isBelow((yield* Clock.currentTimeMillis) - since, 700)
    }))

  it.effect("where the first shard has lost who uses how many, nothing is held that a process with fewer has written", () =>
    Effect.gen(function*() {
      const { here, inner, keys, namespace } = yield* setUpTiered
      yield* Effect.forEach(keys, (key) => held(here, key, orders))
      const few = yield* storeOn(inner, 1)
      yield* inner.send("DEL", `eqc:{${namespace}:0}:meta`)
      yield* few.invalidate(write(namespace, table("orders")))
      yield* Effect.sleep(1_001)
      for (const key of keys) assert.notStrictEqual((yield* here.lookup(key, orders))._tag, "Hit")
    }))
})
