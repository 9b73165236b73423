import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it, layer as layerTests } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as FastCheck from "fast-check"
import { createHash } from "node:crypto"
import * as CachedSqlClient from "../src/CachedSqlClient.ts"
import { InvalidOptionError } from "../src/CacheError.ts"
import * as CacheStore from "../src/CacheStore.ts"
import * as Dependency from "../src/Dependency.ts"
import * as Coherence from "../src/internal/redis/coherence.ts"
import * as QueryCache from "../src/QueryCache.ts"
import * as RedisStore from "../src/RedisStore.ts"
import * as TieredStore from "../src/TieredStore.ts"
import * as UpstashRedis from "../src/UpstashRedis.ts"
import { entryOf, fill, freshNamespace, hit, keyOf, miss, type Service, setOf, suite, write } from "./CacheStoreTest.ts"
import * as Gate from "./support/gate.ts"
import * as Pglite from "./support/pglite.ts"
import * as Processes from "./support/processes.ts"
import * as TestRedis from "./support/redis.ts"
import * as Door from "./support/redisDoor.ts"
import * as Upstash from "./support/upstash.ts"

const { row, table, tag } = Dependency

const storeOn = (redis: Redis.Redis["Service"], options?: TieredStore.TieredStoreOptions) =>
  TieredStore.layer(options).pipe(
    Layer.provide(Layer.succeed(Redis.Redis, redis)),
    Layer.build,
    Effect.map(Context.get(CacheStore.CacheStore))
  )

for (const layout of ["flat", "grouped"] as const) {
  for (const coherence of ["backplane", "revalidate", "ttl"] as const) {
    const processes = Processes.make()
    const store = Effect.flatMap(Redis.Redis, (redis) => storeOn(redis, { layout, coherence }))
    const member = coherence === "backplane" ? Effect.flatMap(store, processes.join) : store
    const command = (...args: ReadonlyArray<string>) =>
      Effect.flatMap(TestRedis.RedisServer, (server) => server.command(...args))
    const lost = (...args: ReadonlyArray<string>) => (namespace: string) =>
      command(args[0], `eqc:{${namespace}:0}:${args[1]}`, ...args.slice(2))
    suite(
      `TieredStore, ${coherence}, ${layout}`,
      Layer.effect(CacheStore.CacheStore, member).pipe(Layer.provideMerge(TestRedis.layer())),
      {
        live: true,
        holds: true,
        ...(coherence === "ttl" ? {} : {
          another: member,
          faults: [
            lost("DEL", "meta"),
            lost("DEL", "stamps"),
            lost("DEL", "e:query 4"),
            lost("ZREM", "stamps", "orders", "orders(*)"),
            lost("ZREM", "stamps", "orders(id=\"1\")", "orders(customer=\"0\")"),
            () => command("SCRIPT", "FLUSH")
          ]
        })
      }
    )
  }
}

// -----------------------------------------------------------------------------
// Guards
// -----------------------------------------------------------------------------

const orders = setOf(table("orders"))
const users = setOf(table("users"))
const unrelated = (namespace: string) => write(namespace, tag("unrelated"))
const everything = (namespace: string) => ({ namespace, ...Dependency.allTargets })

/** Long enough for a message to be missed by its number only, not by a beat. */
const calm = { maxStaleness: "1 minute" } as const
const brisk = { maxStaleness: "300 millis" } as const
const briskMillis = 300

/** How late a busy machine may notice. */
const lateMillis = 200

/** What the process would serve at once. */
const peeked = (store: Service, key: CacheStore.CacheKey) =>
  Effect.map(Clock.currentTimeMillis, (now) => store.peek(key, now)?.value)

const eventually = <A>(effect: Effect.Effect<A>, is: (value: A) => boolean) =>
  Effect.timeout(Effect.repeat(effect, { until: is, schedule: Schedule.spaced("3 millis") }), "8 seconds")

/** Fills through Redis until the process holds it, which it does once it hears. */
const held = Effect.fnUntraced(function*(
  store: Service,
  key: CacheStore.CacheKey,
  dependencies: Dependency.DependencySet,
  value: unknown = key.fingerprint
) {
  const until = yield* Clock.currentTimeMillis
  while ((yield* peeked(store, key)) !== value) {
    assert.isBelow((yield* Clock.currentTimeMillis) - until, 8_000, "it is never held")
    const outcome = yield* store.lookup(key, dependencies).pipe(Effect.option)
    if (outcome._tag === "Some" && outcome.value._tag !== "Hit") {
      yield* Effect.ignore(store.store(key, entryOf(value, dependencies), outcome.value.lease))
    }
    yield* Effect.sleep(3)
  }
})

/** The first beat of a process is heard by the others, and tells them as much as their own. */
const beatsAreOver = (there: Service, namespace: string) => held(there, keyOf(namespace, "there"), orders)

const isGone = (store: Service, key: CacheStore.CacheKey) =>
  eventually(peeked(store, key), (value) => value === undefined)

/** Two processes over one Redis. What this one hears and sends goes through a gate. */
const setUp = Effect.fnUntraced(function*(
  options: TieredStore.TieredStoreOptions,
  settings?: TestRedis.Settings
) {
  const server = yield* TestRedis.makeServer(settings)
  const redis = Context.get(yield* Layer.build(TestRedis.client(server)), Redis.Redis)
  const gate = Gate.make(redis)
  const here = yield* storeOn(gate.redis, options)
  const there = yield* storeOn(Context.get(yield* Layer.build(TestRedis.client(server)), Redis.Redis), options)
  const namespace = freshNamespace()
  return { server, redis, gate, here, there, namespace, key: keyOf(namespace, "q"), other: keyOf(namespace, "other") }
})

/** Clocks that a test sets. */
const makeClocks = () => {
  let wallMillis = 0
  let monotonicMillis = 0
  const real = Effect.runSync(Clock.Clock)
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => Date.now() + wallMillis,
    currentTimeMillis: Effect.sync(() => Date.now() + wallMillis),
    currentTimeNanosUnsafe: () => real.currentTimeNanosUnsafe(),
    currentTimeNanos: real.currentTimeNanos,
    monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe() + BigInt(monotonicMillis) * BigInt(1_000_000),
    monotonicTimeNanos: Effect.sync(() => clock.monotonicTimeNanosUnsafe()),
    sleep: (duration) => real.sleep(duration)
  }
  return {
    clock,
    set: (wall: number, monotonic: number) => {
      wallMillis = wall
      monotonicMillis = monotonic
    }
  }
}

describe("TieredStore", () => {
  it.live("what others write is gone, the rest stays", () =>
    Effect.gen(function*() {
      const { here, key, namespace, other, there } = yield* setUp(calm)
      yield* held(here, key, orders)
      yield* held(here, other, users)
      yield* there.invalidate(write(namespace, table("orders")))
      yield* isGone(here, key)
      assert.strictEqual(yield* peeked(here, other), "other")
      // And comes back from Redis, where another has filled it.
      yield* fill(there, key, orders, "new")
      const found = yield* hit(here, key, orders)
      assert.deepStrictEqual([found.value, found.level], ["new", "L2"])
      assert.strictEqual(yield* peeked(here, key), "new")
      assert.strictEqual((yield* hit(here, key, orders)).level, "L1")
    }))

  it.live("more than a message holds is everything", () =>
    Effect.gen(function*() {
      const { here, namespace, other, there } = yield* setUp(calm)
      yield* held(here, other, users)
      yield* there.invalidate(write(namespace, ...Array.from({ length: 1_001 }, (_, i) => tag(`${i}`))))
      yield* isGone(here, other)
    }))

  it.live("a message that is missing drops everything with the next one", () =>
    Effect.gen(function*() {
      const { gate, here, key, namespace, other, there } = yield* setUp(calm)
      yield* beatsAreOver(there, namespace)
      yield* held(here, key, orders)
      yield* held(here, other, users)
      gate.loseMessages(1)
      yield* there.invalidate(write(namespace, table("orders")))
      yield* there.invalidate(unrelated(namespace))
      yield* isGone(here, key)
      yield* isGone(here, other)
      yield* held(here, other, users)
    }))

  it.live("the last message is missing: the next beat tells", () =>
    Effect.gen(function*() {
      const { gate, here, key, namespace, other, there } = yield* setUp(brisk)
      yield* held(here, key, orders)
      yield* held(here, other, users)
      gate.loseMessages(1)
      yield* there.invalidate(write(namespace, table("orders")))
      const acknowledged = yield* Clock.currentTimeMillis
      yield* isGone(here, key)
      assert.isBelow((yield* Clock.currentTimeMillis) - acknowledged, briskMillis + lateMillis)
      // Not for want of a beat: what else was held is gone as well, and does not come back with one.
      yield* Effect.sleep(briskMillis)
      assert.strictEqual(yield* peeked(here, key), undefined)
      assert.strictEqual(yield* peeked(here, other), undefined)
    }))

  it.live("a new epoch whose beginning is missing drops everything, though the number fits", () =>
    Effect.gen(function*() {
      const { gate, here, key, namespace, there } = yield* setUp(calm)
      yield* beatsAreOver(there, namespace)
      yield* held(here, key, orders)
      gate.loseMessages(1)
      const [begun] = yield* there.invalidate(everything(namespace))
      assert.strictEqual(begun.clock, 0)
      // The successor of what was applied last, had the epoch been the same.
      yield* there.invalidate(unrelated(namespace))
      yield* isGone(here, key)
    }))

  it.live("a message that cannot be read drops everything", () =>
    Effect.gen(function*() {
      const { here, key, redis } = yield* setUp(calm)
      for (const text of ["", "2\tn\t7-a@0\t1\t\t", "1\tn\t7-a@0\t1\t\t~x"]) {
        yield* held(here, key, orders)
        yield* redis.send("PUBLISH", "eqc:changes", text)
        yield* isGone(here, key)
      }
      yield* held(here, key, orders)
    }))

  it.live("a subscription that fails drops everything, and is begun again", () =>
    Effect.gen(function*() {
      const { gate, here, key, namespace, there } = yield* setUp(calm)
      for (const defect of [undefined, new Error("a defect"), undefined]) {
        yield* held(here, key, orders)
        gate.endSubscriptions(defect)
        yield* isGone(here, key)
      }
      yield* held(here, key, orders)
      yield* there.invalidate(write(namespace, table("orders")))
      yield* isGone(here, key)
    }))

  it.live("nothing is held before a beat has returned", () =>
    Effect.gen(function*() {
      const { gate, here, key, other } = yield* setUp(calm)
      gate.holdMessages()
      yield* fill(here, key, orders)
      assert.strictEqual((yield* hit(here, key, orders)).level, "L2")
      assert.strictEqual(yield* peeked(here, key), undefined)
      gate.passMessages()
      yield* held(here, other, orders)
      // What came before is not held either: nobody has heard what became of it.
      assert.strictEqual(yield* peeked(here, key), undefined)
    }))

  it.live("what was asked for before the first beat is not held after it", () =>
    Effect.gen(function*() {
      const { gate, here, key, namespace, other, there } = yield* setUp(calm)
      yield* fill(there, key, orders, "old")
      yield* held(here, other, users)
      gate.endSubscriptions()
      yield* isGone(here, other)
      const reply = gate.holdCommand("reply")
      const asked = yield* Effect.forkScoped(here.lookup(key, orders))
      yield* eventually(Effect.sync(reply.isHeld), (is) => is)
      // Nobody here listens: the beat will be behind it.
      yield* there.invalidate(write(namespace, table("orders")))
      yield* held(here, other, users)
      reply.release()
      assert.strictEqual((yield* Fiber.join(asked))._tag, "Hit")
      assert.strictEqual(yield* peeked(here, key), undefined)
    }))

  it.live("what was asked for before the invalidation is not held after it (race 11)", () =>
    Effect.gen(function*() {
      const { gate, here, key, namespace, other, there } = yield* setUp(calm)
      yield* held(here, other, users)
      yield* fill(there, key, orders, "old")
      const reply = gate.holdCommand("reply")
      const asked = yield* Effect.forkScoped(here.lookup(key, orders))
      yield* eventually(Effect.sync(reply.isHeld), (is) => is)
      yield* there.invalidate(write(namespace, table("users"), table("orders")))
      yield* isGone(here, other)
      reply.release()
      assert.strictEqual((yield* Fiber.join(asked))._tag, "Hit")
      assert.strictEqual(yield* peeked(here, key), undefined)
    }))

  it.live("a fill that was accepted before the invalidation is not held after it", () =>
    Effect.gen(function*() {
      const { gate, here, key, namespace, other, there } = yield* setUp(calm)
      yield* held(here, other, users)
      const { lease } = yield* miss(here, key, orders)
      const reply = gate.holdCommand("reply")
      const filled = yield* Effect.forkScoped(here.store(key, entryOf("old", orders), lease))
      yield* eventually(Effect.sync(reply.isHeld), (is) => is)
      yield* there.invalidate(write(namespace, table("users"), table("orders")))
      yield* isGone(here, other)
      reply.release()
      assert.strictEqual(yield* Fiber.join(filled), "accepted")
      assert.strictEqual(yield* peeked(here, key), undefined)
    }))

  it.live("a reply of another epoch than that of the messages is not held", () =>
    Effect.gen(function*() {
      const { gate, here, key, namespace, other, server, there } = yield* setUp(calm)
      yield* held(here, other, users)
      gate.holdMessages()
      yield* server.command("FLUSHALL")
      yield* fill(there, key, orders, "of the new epoch")
      assert.strictEqual((yield* hit(here, key, orders)).level, "L2")
      assert.strictEqual(yield* peeked(here, key), undefined)
      yield* fill(here, keyOf(namespace, "own"), orders)
      assert.strictEqual(yield* peeked(here, keyOf(namespace, "own")), undefined)
    }))

  it.live("what messages alone have told is remembered: a Redis that went back behind it is noticed", () =>
    Effect.gen(function*() {
      const { here, key, namespace, redis, there } = yield* setUp(calm)
      const [meta, stamps] = [`eqc:{${namespace}:0}:meta`, `eqc:{${namespace}:0}:stamps`]
      yield* held(here, key, orders)
      const before = yield* redis.send<string>("HGET", meta, "clk")
      yield* there.invalidate(write(namespace, table("orders")))
      yield* isGone(here, key)
      // As when a data set is restored in place.
      yield* redis.send("HSET", meta, "clk", before)
      yield* redis.send("ZADD", stamps, "XX", "0", "orders", "0", "orders(*)")
      assert.strictEqual((yield* here.lookup(key, orders))._tag, "Miss")
    }))

  it.live("an own write is not served from when it is sent on, be its answer away", () =>
    Effect.gen(function*() {
      const { gate, here, key, namespace, other } = yield* setUp(calm)
      yield* held(here, key, orders)
      yield* held(here, other, users)
      gate.holdMessages()
      const request = gate.holdCommand("request")
      const writing = yield* Effect.forkScoped(here.invalidate(write(namespace, table("orders"))), {
        startImmediately: true
      })
      assert.isTrue(request.isHeld())
      assert.strictEqual(yield* peeked(here, key), undefined)
      assert.strictEqual(yield* peeked(here, other), "other")
      // An answer from before the write is held meanwhile, and gone when the write has returned.
      assert.strictEqual((yield* hit(here, key, orders)).value, "q")
      assert.strictEqual(yield* peeked(here, key), "q")
      request.release()
      yield* Fiber.join(writing)
      assert.strictEqual(yield* peeked(here, key), undefined)
    }))

  it.live("an own write that begins an epoch drops everything when it returns", () =>
    Effect.gen(function*() {
      const { gate, here, key, namespace, other, server } = yield* setUp(calm)
      yield* held(here, key, orders)
      yield* held(here, other, users)
      gate.holdMessages()
      yield* server.command("FLUSHALL")
      yield* here.invalidate(unrelated(namespace))
      assert.strictEqual(yield* peeked(here, key), undefined)
      assert.strictEqual(yield* peeked(here, other), undefined)
      gate.passMessages()
      yield* held(here, key, orders, "new")
    }))

  it.live("the message of an own write leaves alone what was filled since", () =>
    Effect.gen(function*() {
      const { gate, here, key, namespace, other, there } = yield* setUp(calm)
      yield* held(here, key, orders)
      yield* held(here, other, users)
      gate.holdMessages()
      yield* here.invalidate(write(namespace, table("orders")))
      yield* fill(here, key, orders, "new")
      assert.strictEqual(yield* peeked(here, key), "new")
      yield* there.invalidate(write(namespace, table("users")))
      gate.passMessages()
      yield* isGone(here, other)
      assert.strictEqual(yield* peeked(here, key), "new")
      yield* there.invalidate(write(namespace, table("orders")))
      yield* isGone(here, key)
    }))

  it.live("what was filled for more than was asked for is not held", () =>
    Effect.gen(function*() {
      const { here, key, namespace, there } = yield* setUp(calm)
      yield* held(here, keyOf(namespace, "other"), users)
      const premium = setOf(table("orders"), tag("premium"))
      yield* fill(there, key, premium)
      assert.strictEqual((yield* hit(here, key, orders)).level, "L2")
      assert.strictEqual(yield* peeked(here, key), undefined)
      yield* there.invalidate(write(namespace, tag("premium")))
      yield* miss(here, key, orders)
    }))

  it.live("held no longer than it is fresh, and kept stale if it was filled here", () =>
    Effect.gen(function*() {
      const { here, key, namespace, other, there } = yield* setUp(calm)
      yield* held(here, keyOf(namespace, "warm"), users)
      yield* fill(here, key, orders, "own", { timeToLiveMillis: 100, retainMillis: 60_000 })
      yield* fill(there, other, orders, "of another", { timeToLiveMillis: 200, retainMillis: 60_000 })
      const found = yield* hit(here, other, orders)
      assert.strictEqual(yield* peeked(here, other), "of another")
      const now = yield* Clock.currentTimeMillis
      assert.strictEqual(here.peek(other, found.expiresAtMillis - 1)?.value, "of another")
      assert.strictEqual(here.peek(other, found.expiresAtMillis), undefined)
      assert.strictEqual(here.peek(key, now + 1_000)?.value, "own")
      yield* Effect.sleep(110)
      // For who it is to be fresh asks Redis, of which one is told to read it.
      const stale = yield* here.lookup(key, orders)
      assert(stale._tag === "Stale" && !stale.waiting && stale.lease.flight !== undefined)
      assert((yield* there.lookup(key, orders))._tag === "Stale")
    }))

  it.live("limited by entries and by bytes", () =>
    Effect.gen(function*() {
      const { here, namespace, there } = yield* setUp({ ...calm, capacity: 10, maxBytes: 10_000 })
      yield* held(here, keyOf(namespace, "warm"), users)
      const keys = Array.from({ length: 30 }, (_, i) => keyOf(namespace, `${i}`))
      for (const key of keys) {
        yield* fill(there, key, orders, "x")
        yield* hit(here, key, orders)
      }
      const count = Effect.map(Clock.currentTimeMillis, (now) => keys.filter((key) => here.peek(key, now)).length)
      assert.isAtMost(yield* count, 10)
      assert.isAbove(yield* count, 5)
      for (const key of keys) {
        yield* fill(there, keyOf(namespace, `large ${key.fingerprint}`), orders, "x".repeat(1_000))
        yield* hit(here, keyOf(namespace, `large ${key.fingerprint}`), orders)
      }
      assert.isAtMost(yield* count, 1)
      yield* fill(there, keyOf(namespace, "huge"), orders, "x".repeat(20_000))
      yield* hit(here, keyOf(namespace, "huge"), orders)
      assert.strictEqual(yield* peeked(here, keyOf(namespace, "huge")), undefined)
    }))

  it.live("served for so long after the last beat that has returned, by both clocks (race 18)", () =>
    Effect.gen(function*() {
      const { gate, namespace } = yield* setUp(calm)
      const { clock, set } = makeClocks()
      const here = yield* storeOn(gate.redis, calm).pipe(Effect.provideService(Clock.Clock, clock))
      const key = keyOf(namespace, "q")
      yield* Effect.gen(function*() {
        yield* held(here, key, orders)
        // From the beats that had returned until then.
        gate.loseMessages(1_000, "beat")
        const cases: ReadonlyArray<readonly [wall: number, monotonic: number, served: boolean]> = [
          [0, 0, true],
          [50_000, 50_000, true],
          [61_000, 61_000, false],
          // Suspended: one clock stood still. Set back: the other one did.
          [61_000, 0, false],
          [0, 61_000, false],
          // A beat from the future says nothing.
          [-61_000, 0, false],
          [0, 0, true]
        ]
        for (const [wall, monotonic, served] of cases) {
          set(wall, monotonic)
          // Not within the millisecond of the case before.
          yield* Effect.sleep(2)
          assert.strictEqual((yield* peeked(here, key)) !== undefined, served, `${wall}, ${monotonic}`)
        }
      }).pipe(Effect.provideService(Clock.Clock, clock))
    }))

  it.live("a beat that was published before anybody listened is not waited for", () =>
    Effect.gen(function*() {
      const { gate, key } = yield* setUp(calm)
      const here = yield* storeOn(
        { ...gate.redis, subscribe: (channel) => Effect.delay(gate.redis.subscribe(channel), "100 millis") },
        calm
      )
      const reply = gate.holdCommand("reply", Coherence.beat.lua)
      yield* here.lookup(key, orders)
      yield* eventually(Effect.sync(reply.isHeld), (is) => is)
      yield* Effect.sleep(150)
      yield* held(here, key, orders)
      reply.release()
    }))

  it.live("a beat counts from when it was sent", () =>
    Effect.gen(function*() {
      const { gate, namespace } = yield* setUp(calm)
      const { clock, set } = makeClocks()
      const key = keyOf(namespace, "q")
      yield* Effect.gen(function*() {
        const here = yield* storeOn(gate.redis, calm)
        gate.holdMessages()
        yield* here.lookup(key, orders)
        yield* Effect.sleep(50)
        set(50_000, 50_000)
        gate.passMessages()
        yield* held(here, key, orders)
        set(61_000, 61_000)
        yield* Effect.sleep(2)
        assert.strictEqual(yield* peeked(here, key), undefined)
      }).pipe(Effect.provideService(Clock.Clock, clock))
    }))

  it.live("beats that do not return end what is served within the time, and it goes on with the next one", () =>
    Effect.gen(function*() {
      const { gate, here, key } = yield* setUp(brisk)
      yield* held(here, key, orders)
      gate.holdMessages()
      const from = yield* Clock.currentTimeMillis
      yield* isGone(here, key)
      assert.isAtMost((yield* Clock.currentTimeMillis) - from, briskMillis + lateMillis)
      // Redis answers all the same.
      assert.strictEqual((yield* hit(here, key, orders)).level, "L2")
      gate.passMessages()
      // Nothing was missed, so nothing is lost.
      yield* eventually(peeked(here, key), (value) => value === "q")
    }))

  it.live("one beat that is lost is none too few", () =>
    Effect.gen(function*() {
      const { gate, here, key } = yield* setUp({ maxStaleness: "1500 millis" })
      yield* held(here, key, orders)
      for (let i = 0; i < 2; i++) {
        gate.loseMessages(1, "beat")
        const until = (yield* Clock.currentTimeMillis) + 1_200
        while ((yield* Clock.currentTimeMillis) < until) {
          assert.strictEqual(yield* peeked(here, key), "q")
          yield* Effect.sleep(2)
        }
      }
    }))

  it.live("a client that hangs on a beat, whatever it is told, does not keep the next one from being sent", () =>
    Effect.gen(function*() {
      const server = yield* TestRedis.makeServer()
      const redis = Context.get(yield* Layer.build(TestRedis.client(server)), Redis.Redis)
      let hanging = false
      let hung = 0
      const beat = createHash("sha1").update(Coherence.beat.lua).digest("hex")
      const here = yield* storeOn({
        ...redis,
        send: (...command) =>
          Effect.suspend(() => {
            if (!hanging || command[1] !== beat) return redis.send<any>(...command)
            hung++
            return Effect.uninterruptible(Effect.never)
          })
      }, brisk)
      const key = keyOf(freshNamespace(), "q")
      yield* held(here, key, orders)
      hanging = true
      yield* isGone(here, key)
      yield* eventually(Effect.sync(() => hung), (hung) => hung > 1)
      hanging = false
      yield* held(here, key, orders)
    }))

  it.live("Redis refuses writes and answers reads: nothing is served (race 13)", () =>
    Effect.gen(function*() {
      const { here, key, other, server, there } = yield* setUp(brisk)
      yield* held(here, key, orders)
      yield* fill(there, other, users)
      yield* server.command("CONFIG", "SET", "min-replicas-to-write", "1")
      yield* isGone(here, key)
      for (const each of [here, there]) {
        yield* eventually(
          Effect.match(each.lookup(other, users), {
            onSuccess: ({ _tag }): string => _tag,
            onFailure: ({ reason }) => reason._tag
          }),
          (tag) => tag === "WriteRefused"
        )
      }
      // What has no beats to judge by does.
      const plain = yield* RedisStore.layer().pipe(
        Layer.provide(TestRedis.client(server)),
        Layer.build,
        Effect.map(Context.get(CacheStore.CacheStore))
      )
      yield* hit(plain, other, users)
      yield* server.command("CONFIG", "SET", "min-replicas-to-write", "0")
      yield* held(here, key, orders)
      yield* hit(there, other, users)
    }))

  it.live("a subscription that is killed: what is missed meanwhile is not served for longer than it may be", () =>
    Effect.gen(function*() {
      const { here, key, namespace, server, there } = yield* setUp(brisk)
      for (let i = 0; i < 3; i++) {
        yield* held(here, key, orders, i)
        yield* server.command("CLIENT", "KILL", "TYPE", "pubsub")
        yield* there.invalidate(write(namespace, table("orders")))
        const acknowledged = yield* Clock.currentTimeMillis
        yield* isGone(here, key)
        assert.isAtMost((yield* Clock.currentTimeMillis) - acknowledged, briskMillis + lateMillis)
      }
    }))

  it.live("a half-open subscription is noticed by its silence, and ended", () =>
    Effect.gen(function*() {
      const server = yield* TestRedis.makeServer()
      const door = yield* Door.make(server)
      const redis = Context.get(yield* Layer.build(TestRedis.client(server)), Redis.Redis)
      const through = Context.get(yield* Layer.build(TestRedis.client({ ...server, port: door.port })), Redis.Redis)
      const here = yield* storeOn({ ...redis, subscribe: through.subscribe }, brisk)
      const there = yield* storeOn(redis, brisk)
      const namespace = freshNamespace()
      const key = keyOf(namespace, "q")
      yield* held(here, key, orders)
      yield* door.mute
      yield* there.invalidate(write(namespace, table("orders")))
      const acknowledged = yield* Clock.currentTimeMillis
      yield* isGone(here, key)
      assert.isAtMost((yield* Clock.currentTimeMillis) - acknowledged, briskMillis + lateMillis)
      yield* held(here, key, orders, "new")
      yield* there.invalidate(write(namespace, table("orders")))
      yield* isGone(here, key)
    }))

  for (const data of ["without data", "with old data"]) {
    it.live(`Redis restarts ${data} (race 12)`, () =>
      Effect.gen(function*() {
        const { here, key, namespace, redis, server, there } = yield* setUp(brisk)
        yield* held(here, key, orders, "old")
        if (data !== "without data") yield* server.command("SAVE")
        yield* server.stop
        yield* isGone(here, key)
        yield* server.start
        yield* Effect.retry(redis.send("PING"), Schedule.spaced("10 millis"))
        yield* eventually(Effect.map(Effect.option(there.lookup(key, orders)), ({ _tag }) => _tag), (tag) =>
          tag === "Some")
        yield* there.invalidate(write(namespace, table("orders")))
        yield* held(here, key, orders, "new")
      }))
  }

  it.live("Redis is flushed", () =>
    Effect.gen(function*() {
      const { here, key, namespace, server, there } = yield* setUp(calm)
      yield* held(here, key, orders, "old")
      yield* server.command("FLUSHALL")
      yield* there.invalidate(write(namespace, table("orders")))
      yield* isGone(here, key)
      yield* held(here, key, orders, "new")
    }))

  it.live("Redis is set back to before an invalidation that was heard of (race 12)", () =>
    Effect.gen(function*() {
      const { here, key, namespace, redis, there } = yield* setUp(calm)
      yield* held(here, key, orders, "old")
      const names = ["meta", "stamps"].map((name) => `eqc:{${namespace}:0}:${name}`)
      const copy = (from: string, to: string) =>
        Effect.forEach(names, (name) => redis.send("COPY", name + from, name + to, "REPLACE"))
      yield* copy("", ":saved")
      yield* there.invalidate(write(namespace, table("orders")))
      yield* isGone(here, key)
      yield* copy(":saved", "")
      yield* miss(here, key, orders)
    }))

  it.live(
    "Redis fails over to a replica that has missed the last invalidation (race 12)",
    () =>
      Effect.gen(function*() {
        const primary = yield* TestRedis.makeServer({ "repl-diskless-sync-delay": "0" })
        const standby = yield* TestRedis.makeServer({ replicaof: `127.0.0.1 ${primary.port}` })
        let port = primary.port
        const door = yield* Door.make({
          get port() {
            return port
          }
        })
        const client = Effect.map(
          Layer.build(TestRedis.client({ ...primary, port: door.port })),
          Context.get(Redis.Redis)
        )
        const [here, there] = [yield* storeOn(yield* client, brisk), yield* storeOn(yield* client, brisk)]
        const namespace = freshNamespace()
        const key = keyOf(namespace, "q")
        yield* eventually(standby.command("INFO", "replication"), (info) => String(info).includes("link_status:up"))
        yield* held(here, key, orders, "old")
        yield* primary.command("WAIT", "1", "2000")
        yield* standby.pause
        yield* there.invalidate(write(namespace, table("orders")))
        const acknowledged = yield* Clock.currentTimeMillis
        yield* primary.stop
        yield* standby.resume
        yield* standby.command("REPLICAOF", "NO", "ONE")
        port = standby.port
        assert.strictEqual(yield* standby.command("EXISTS", `eqc:{${namespace}:0}:e:q`), 1)
        // The message may have been lost with the primary. Then for so long, and whenever it serves again not what was before.
        yield* held(here, key, orders, "new").pipe(
          Effect.raceFirst(Effect.forever(Effect.gen(function*() {
            const now = yield* Clock.currentTimeMillis
            if (now - acknowledged >= briskMillis) assert.notStrictEqual(here.peek(key, now)?.value, "old")
            yield* Effect.sleep(1)
          })))
        )
        yield* there.lookup(key, orders).pipe(Effect.retry(Schedule.spaced("10 millis")))
        yield* there.invalidate(write(namespace, table("orders")))
        yield* isGone(here, key)
      }),
    20_000
  )

  it.live("a namespace that nobody uses is let go, and comes back", () =>
    Effect.gen(function*() {
      const { here, key, namespace, server, there } = yield* setUp({ maxStaleness: "100 millis" })
      yield* held(here, key, orders)
      yield* held(there, key, orders)
      const sent = Effect.scoped(Effect.gen(function*() {
        const commands = yield* server.monitor
        yield* Effect.sleep(200)
        return (yield* commands).length
      }))
      assert.isAbove(yield* sent, 0)
      yield* eventually(sent, (count) => count === 0)
      yield* there.invalidate(write(namespace, table("orders")))
      yield* held(here, key, orders, "new")
    }), 15_000)

  it.live("a namespace that nobody uses is kept while somebody listens to changes", () =>
    Effect.gen(function*() {
      const { here, key, namespace, there } = yield* setUp({ maxStaleness: "100 millis" })
      const seen: Array<string> = []
      yield* here.changes.pipe(
        Stream.runForEach(({ stamps }) => Effect.sync(() => seen.push(...stamps))),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* held(here, key, orders)
      yield* Effect.sleep(4_000)
      yield* there.invalidate(write(namespace, tag("late")))
      yield* eventually(Effect.sync(() => seen.includes("#late")), (is) => is)
    }), 15_000)

  it.live("sends nothing for a hit, and one command for what is not here", () =>
    Effect.gen(function*() {
      const { here, key, namespace, other, server, there } = yield* setUp(calm)
      yield* held(here, key, orders)
      yield* held(there, key, orders)
      yield* here.invalidate(unrelated(namespace))
      yield* fill(there, other, users)
      const sent = yield* server.monitor
      yield* hit(here, key, orders)
      yield* peeked(here, key)
      yield* here.lookupMany([{ key, dependencies: orders }, { key, dependencies: orders }])
      assert.deepStrictEqual(yield* sent, [])
      yield* hit(here, other, users)
      yield* here.lookupMany([{ key, dependencies: orders }, { key: other, dependencies: users }])
      assert.lengthOf(yield* sent, 1)
      yield* here.invalidate(write(namespace, table("orders")))
      assert.lengthOf(yield* sent, 2)
    }))

  it.live("batches are answered from both levels, in order", () =>
    Effect.gen(function*() {
      const { here, namespace, there } = yield* setUp(calm)
      yield* held(here, keyOf(namespace, "warm"), users)
      const requests = Array.from({ length: 6 }, (_, id) => ({
        key: keyOf(namespace, `${id}`),
        dependencies: setOf(row("orders", { id }))
      }))
      for (const i of [1, 2, 4]) yield* fill(there, requests[i].key, requests[i].dependencies)
      for (const i of [2, 4]) yield* hit(here, requests[i].key, requests[i].dependencies)
      const outcomes = yield* here.lookupMany(requests)
      assert.deepStrictEqual(
        outcomes.map((outcome) => outcome._tag === "Hit" ? `${outcome.level} ${outcome.value}` : outcome._tag),
        ["Miss", "L2 1", "L1 2", "Miss", "L1 4", "Miss"]
      )
      // The lease of a hit of L1 is good for a fill that replaces it.
      const { lease } = outcomes[2]
      assert.strictEqual(
        yield* here.store(requests[2].key, entryOf("new", requests[2].dependencies), lease),
        "accepted"
      )
      yield* there.invalidate(write(namespace, row("orders", { id: 2 })))
      assert.strictEqual(
        yield* here.store(requests[2].key, entryOf("late", requests[2].dependencies), lease),
        "refused"
      )
    }))

  it.live("changes tell what is applied here, and everything where something may have been missed", () =>
    Effect.gen(function*() {
      const { gate, here, key, namespace, server, there } = yield* setUp(calm)
      yield* held(here, key, orders)
      const seen: Array<CacheStore.Invalidation> = []
      yield* here.changes.pipe(
        Stream.runForEach((change) => Effect.sync(() => seen.push(change))),
        Effect.forkScoped({ startImmediately: true })
      )
      const next = Effect.fnUntraced(function*(count: number) {
        yield* eventually(Effect.sync(() => seen.length), (length) => length >= count)
        yield* Effect.sleep(10)
        return seen.splice(0)
      })
      const [own] = yield* here.invalidate(write(namespace, table("users")))
      const [others] = yield* there.invalidate(write(namespace, tag("t")))
      assert.deepStrictEqual(yield* next(2), [
        { namespace, shard: 0, ...own, all: false, stamps: ["users", "users(*)"] },
        { namespace, shard: 0, ...others, all: false, stamps: ["#t"] }
      ])
      // What another has registered, and this one has not: more than it knew itself.
      yield* miss(there, keyOf(namespace, "row"), setOf(row("users", { id: 7 })))
      const [first] = yield* here.invalidate(write(namespace, row("users", { id: 7 })))
      assert.deepStrictEqual(yield* next(2), [
        { namespace, shard: 0, ...first, all: false, stamps: ["users"] },
        { namespace, shard: 0, ...first, all: false, stamps: ["users(id=\"7\")"] }
      ])
      gate.loseMessages(1)
      yield* there.invalidate(unrelated(namespace))
      const [after] = yield* there.invalidate(unrelated(namespace))
      assert.deepStrictEqual(yield* next(1), [{ namespace, shard: 0, ...after, all: true, stamps: [] }])
      gate.endSubscriptions()
      const lost = yield* next(2)
      assert.isTrue(lost.every(({ all }) => all))
      yield* server.command("FLUSHALL")
      yield* there.invalidate(unrelated(namespace))
      assert.isTrue((yield* next(1)).some(({ all, clock }) => all && clock === 0))
    }))

  it.live("changes that nobody has taken become everything", () =>
    Effect.gen(function*() {
      const { here, namespace } = yield* setUp(calm)
      const taking = yield* Deferred.make<void>()
      const taken = yield* here.changes.pipe(
        Stream.mapEffect((change) => Effect.as(Deferred.await(taking), change)),
        Stream.takeUntil(({ stamps }) => stamps.includes("#last")),
        Stream.runCollect,
        Effect.forkScoped({ startImmediately: true })
      )
      for (let i = 0; i < 1_100; i++) yield* here.invalidate(write(namespace, tag(`${i}`)))
      yield* here.invalidate(write(namespace, tag("last")))
      yield* Deferred.succeed(taking, undefined)
      const changes = yield* Fiber.join(taken)
      assert.isBelow(changes.length, 1_100)
      assert.isTrue(changes.some(({ all }) => all))
    }), 20_000)

  it.live("ttl: held for so long and no longer, own writes at once", () =>
    Effect.gen(function*() {
      const { here, key, namespace, other, there } = yield* setUp({ coherence: "ttl", ...brisk })
      yield* fill(here, key, orders, "old")
      assert.strictEqual(yield* peeked(here, key), "old")
      yield* there.invalidate(write(namespace, table("orders")))
      const acknowledged = yield* Clock.currentTimeMillis
      const found = yield* hit(here, key, orders)
      assert.deepStrictEqual([found.value, found.level], ["old", "L1"])
      // Its lease is of when it was valid.
      assert.strictEqual(yield* here.store(key, entryOf("late", orders), found.lease), "refused")
      yield* isGone(here, key)
      assert.isAtMost((yield* Clock.currentTimeMillis) - acknowledged, briskMillis + lateMillis)
      yield* miss(here, key, orders)

      // From Redis for so long as from the database.
      yield* fill(there, other, users)
      const { expiresAtMillis } = yield* hit(here, other, users)
      const now = yield* Clock.currentTimeMillis
      assert.isAbove(expiresAtMillis, now + 50_000)
      assert.strictEqual(here.peek(other, now)?.value, "other")
      assert.strictEqual(here.peek(other, now)?.expiresAtMillis, expiresAtMillis)
      assert.strictEqual(here.peek(other, now + briskMillis), undefined)

      yield* fill(here, key, orders, "new")
      yield* here.invalidate(write(namespace, table("orders")))
      assert.strictEqual(yield* peeked(here, key), undefined)
      yield* miss(here, key, orders)
    }))

  it.live("ttl: a clock that was set, or stood still, ends what is held (race 18)", () =>
    Effect.gen(function*() {
      const { namespace, redis } = yield* setUp(calm)
      const { clock, set } = makeClocks()
      const here = yield* storeOn(redis, { coherence: "ttl", ...calm }).pipe(Effect.provideService(Clock.Clock, clock))
      yield* Effect.gen(function*() {
        for (const [wall, monotonic] of [[-61_000, 0], [0, 61_000], [5_000, 0]]) {
          const key = keyOf(namespace, `${wall}, ${monotonic}`)
          set(0, 0)
          yield* Effect.sleep(2)
          yield* fill(here, key, orders, "v")
          assert.strictEqual(yield* peeked(here, key), "v", key.fingerprint)
          assert.strictEqual((yield* hit(here, key, orders)).level, "L1")
          set(wall, monotonic)
          yield* Effect.sleep(2)
          if (wall > 0) assert.strictEqual((yield* hit(here, key, orders)).level, "L2")
          else assert.strictEqual(yield* peeked(here, key), undefined)
        }
        // Both went on alike.
        set(0, 0)
        yield* Effect.sleep(2)
        const key = keyOf(namespace, "alike")
        yield* fill(here, key, orders, "v")
        set(10_000, 10_000)
        yield* Effect.sleep(2)
        assert.strictEqual(yield* peeked(here, key), "v")
      }).pipe(Effect.provideService(Clock.Clock, clock))
    }))

  it.live("revalidate: asks for the stamps each time, and decodes nothing", () =>
    Effect.gen(function*() {
      const { here, key, namespace, server, there } = yield* setUp({ coherence: "revalidate" })
      let decoded = 0
      const counted = {
        ...key,
        codec: {
          ...key.codec,
          decode: (text: string) => {
            decoded++
            return key.codec.decode(text)
          }
        }
      }
      yield* fill(there, key, orders, "v")
      assert.strictEqual((yield* hit(here, counted, orders)).level, "L2")
      yield* hit(here, counted, orders)
      const sent = yield* server.monitor
      const found = yield* hit(here, counted, orders)
      assert.deepStrictEqual([found.level, found.value, decoded], ["L1", "v", 1])
      assert.deepStrictEqual(yield* sent, ["EVALSHA"])
      assert.strictEqual(yield* peeked(here, key), undefined)
      const many = Effect.all(Array.from({ length: 50 }, () => hit(here, counted, orders)), {
        concurrency: "unbounded"
      })
      assert.isTrue((yield* many).every(({ level }) => level === "L1"))
      assert.lengthOf(yield* sent, 2)

      assert.strictEqual(yield* here.store(key, entryOf("w", orders), found.lease), "accepted")
      assert.deepStrictEqual((yield* hit(here, counted, orders)).value, "w")
      const { lease } = yield* hit(here, counted, orders)
      yield* there.invalidate(write(namespace, table("orders")))
      yield* miss(here, counted, orders)
      assert.strictEqual(yield* here.store(key, entryOf("late", orders), lease), "refused")

      // Redis refuses writes: what it would say proves nothing.
      yield* fill(here, counted, orders, "x")
      yield* server.command("CONFIG", "SET", "min-replicas-to-write", "1")
      assert.strictEqual((yield* Effect.flip(here.lookup(counted, orders))).reason._tag, "WriteRefused")
    }))

  it.live("over REST: by its event stream, or without", () =>
    Effect.gen(function*() {
      const { token, url } = yield* Upstash.UpstashServer
      const redis = Effect.map(Layer.build(UpstashRedis.layer({ url, token })), Context.get(Redis.Redis))
      for (const coherence of ["backplane", "revalidate", "ttl"] as const) {
        const options = { coherence, ...(coherence === "revalidate" ? {} : brisk) }
        const [here, there] = [yield* storeOn(yield* redis, options), yield* storeOn(yield* redis, options)]
        const namespace = freshNamespace()
        const key = keyOf(namespace, "q")
        if (coherence === "backplane") yield* held(here, key, orders)
        else yield* fill(here, key, orders)
        assert.strictEqual((yield* hit(here, key, orders)).level, "L1")
        yield* there.invalidate(write(namespace, table("orders")))
        if (coherence !== "revalidate") yield* isGone(here, key)
        yield* miss(here, key, orders)
      }
    }).pipe(Effect.provide(Upstash.layer)))

  it.live("under two clients: own writes at once, others' soon", () =>
    Effect.gen(function*() {
      const database = Context.get(yield* Layer.build(Pglite.layer()), PgClient.PgClient)
      const { here: store, namespace, there: other } = yield* setUp({})
      const clientOver = (store: Service) =>
        CachedSqlClient.layer({ namespace, lookupTimeout: "5 seconds", invalidationTimeout: "5 seconds" }).pipe(
          Layer.provide([Layer.succeed(CacheStore.CacheStore, store), Layer.succeed(PgClient.PgClient, database)]),
          Layer.build,
          Effect.map(Context.get(PgClient.PgClient))
        )
      const [here, there] = [yield* clientOver(store), yield* clientOver(other)]
      yield* database`CREATE TABLE counters (id int PRIMARY KEY, n int)`
      yield* database`INSERT INTO counters VALUES (1, 0)`
      const read = (sql: PgClient.PgClient) =>
        Effect.map(
          QueryCache.withInfo(QueryCache.cached(sql<{ n: number }>`SELECT n FROM counters WHERE id = ${1}`)),
          ([[info], [row]]) => ({ level: info.level, n: row.n })
        )
      const set = (sql: PgClient.PgClient, n: number) => sql`UPDATE counters SET n = ${n} WHERE id = ${1}`
      for (const sql of [here, there]) yield* eventually(Effect.orDie(read(sql)), ({ level }) => level === "L1")

      for (let n = 1; n <= 40; n++) {
        const [writer, reader] = n % 2 === 0 ? [here, there] : [there, here]
        // Readers of both are under way while it is written.
        const readers = yield* Effect.forkScoped(
          Effect.forEach([reader, writer, reader, writer, writer], read, { concurrency: "unbounded" })
        )
        yield* set(writer, n)
        assert.strictEqual((yield* read(writer)).n, n)
        yield* Fiber.join(readers)
        assert.strictEqual((yield* read(writer)).n, n)
        yield* eventually(Effect.orDie(read(reader)), (found) => found.n === n)
        yield* eventually(Effect.orDie(read(writer)), ({ level }) => level === "L1")
      }
    }), 30_000)

  it.live("is built without Redis, and comes to itself with it", () =>
    Effect.gen(function*() {
      const server = yield* TestRedis.makeServer()
      yield* server.stop
      const away = RedisStore.connectInBackground(NodeRedis.layer({ socket: { host: "127.0.0.1", port: server.port } }))
      const redis = Context.get(yield* Layer.build(away), Redis.Redis)
      const store = yield* storeOn(redis, brisk)
      const key = keyOf(freshNamespace(), "q")
      assert.strictEqual((yield* Effect.flip(store.lookup(key, orders))).reason._tag, "StoreUnavailable")
      yield* server.start
      yield* held(store, key, orders)
    }))

  it.live("ends with its scope, be Redis away", () =>
    Effect.gen(function*() {
      const { redis, server } = yield* setUp(brisk)
      for (const isAway of [false, true]) {
        const key = keyOf(freshNamespace(), "q")
        yield* Effect.scoped(Effect.gen(function*() {
          const store = yield* storeOn(redis, brisk)
          yield* held(store, key, orders)
          if (isAway) yield* server.stop
        })).pipe(Effect.timeout("5 seconds"))
        if (isAway) break
        const commands = yield* server.monitor
        yield* eventually(server.command("PUBSUB", "NUMSUB", "eqc:changes"), ([, count]) => count === 2)
        yield* Effect.sleep(briskMillis / 2)
        assert.notInclude((yield* commands).join(), key.namespace)
      }
    }))

  it("refuses bad options by name and value", () => {
    const cases: ReadonlyArray<readonly [any, string]> = [
      [{ capacity: 0 }, "capacity"],
      [{ maxBytes: -1 }, "maxBytes"],
      [{ coherence: "hope" }, "coherence"],
      [{ maxStaleness: 0 }, "maxStaleness"],
      [{ maxStaleness: "99 millis" }, "maxStaleness"],
      [{ maxStaleness: "Infinity" }, "maxStaleness"],
      [{ coherence: "revalidate", maxStaleness: "1 second" }, "maxStaleness"],
      [{ maxStale: 5 }, "maxStale"],
      [{ layout: "round" }, "layout"],
      [{ prefix: "a{b" }, "prefix"],
      [{ maxDependencies: 0 }, "maxDependencies"],
      [{ flightTimeout: 0 }, "flightTimeout"]
    ]
    for (const [options, option] of cases) {
      try {
        TieredStore.layer(options)
        assert.fail(`accepted ${JSON.stringify(options)}`)
      } catch (error) {
        assert(error instanceof InvalidOptionError && error.option === option)
        assert.deepStrictEqual([error.owner, error.value], ["TieredStore.layer", options[option]])
      }
    }
  })
})

// -----------------------------------------------------------------------------
// The guards of the scripts: each with what happens without it
// -----------------------------------------------------------------------------

const luaBySha = new Map(
  [Coherence.beat, Coherence.hold].map(({ lua }) => [createHash("sha1").update(lua).digest("hex"), lua])
)

const withoutGuard = (redis: Redis.Redis["Service"], guard: string, mutant: string): Redis.Redis["Service"] => ({
  ...redis,
  send: (command, sha, ...args) => {
    const lua = command === "EVALSHA" ? luaBySha.get(sha) : undefined
    return lua?.includes(guard)
      ? redis.send<any>("EVAL", lua.replaceAll(guard, mutant), ...args)
      : redis.send<any>(command, sha, ...args)
  }
})

const scriptGuards: ReadonlyArray<{
  readonly name: string
  readonly without: readonly [guard: string, mutant: string]
  readonly coherence: "backplane" | "revalidate"
  /** Whether all went right. */
  readonly scenario: (on: {
    readonly here: Service
    readonly there: Service
    readonly redis: Redis.Redis["Service"]
    readonly key: CacheStore.CacheKey
  }) => Effect.Effect<boolean, unknown>
}> = [
  {
    name: "HOLD compares stamps",
    without: ["latest and latest <= entry.lease and 1", "latest and 1"],
    coherence: "revalidate",
    scenario: Effect.fnUntraced(function*({ here, key, there }) {
      yield* fill(here, key, orders)
      yield* there.invalidate(write(key.namespace, table("orders")))
      return (yield* here.lookup(key, orders))._tag === "Miss"
    })
  },
  {
    name: "HOLD compares epochs",
    without: ["entry.epoch == epoch and newest", "newest"],
    coherence: "revalidate",
    scenario: Effect.fnUntraced(function*({ here, key, there }) {
      yield* fill(here, key, orders)
      yield* there.invalidate(everything(key.namespace))
      yield* miss(there, keyOf(key.namespace, "another"), orders)
      return (yield* here.lookup(key, orders))._tag === "Miss"
    })
  },
  {
    name: "HOLD asks for a write",
    without: ["redis.call(\"DEL\", KEYS[3])", ""],
    coherence: "revalidate",
    scenario: Effect.fnUntraced(function*({ here, key, redis }) {
      yield* fill(here, key, orders)
      yield* redis.send("CONFIG", "SET", "min-replicas-to-write", "1")
      const found = yield* Effect.exit(here.lookup(key, orders))
      yield* redis.send("CONFIG", "SET", "min-replicas-to-write", "0")
      return found._tag === "Failure"
    })
  },
  {
    name: "BEAT asks for a write",
    without: ["redis.call(\"DEL\", KEYS[3])", ""],
    coherence: "backplane",
    scenario: Effect.fnUntraced(function*({ here, key, redis }) {
      yield* held(here, key, orders)
      yield* redis.send("CONFIG", "SET", "min-replicas-to-write", "1")
      yield* Effect.sleep(briskMillis * 1.5)
      const value = yield* peeked(here, key)
      yield* redis.send("CONFIG", "SET", "min-replicas-to-write", "0")
      return value === undefined
    })
  },
  {
    name: "BEAT begins an epoch where metadata are lost",
    without: ["if not open() then rotate(redis.call) end", "open()"],
    coherence: "backplane",
    scenario: Effect.fnUntraced(function*({ here, key, redis }) {
      yield* held(here, key, orders)
      // As when a data set without the sentinel is restored in place.
      const stamps = `eqc:{${key.namespace}:0}:stamps`
      const [epoch] = (yield* redis.send<Array<string>>("ZRANGE", stamps, "-1", "-1"))!
      yield* redis.send("ZREM", stamps, epoch)
      yield* Effect.sleep(briskMillis)
      return (yield* redis.send("ZSCORE", stamps, epoch)) === null &&
        (yield* redis.send<Array<string>>("ZRANGE", stamps, "-1", "-1"))[0]?.startsWith("~")
    })
  }
]

layerTests(TestRedis.layer(), { excludeTestServices: true })("TieredStore: guards of the scripts", (it) => {
  for (const { coherence, name, scenario, without: [guard, mutant] } of scriptGuards) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const redis = yield* Redis.Redis
        const run = Effect.fnUntraced(function*(redis: Redis.Redis["Service"]) {
          const options = coherence === "backplane" ? brisk : { coherence }
          const [here, there] = [yield* storeOn(redis, options), yield* storeOn(redis, options)]
          return yield* scenario({ here, there, redis, key: keyOf(freshNamespace(), "q") })
        }, Effect.scoped)
        assert.isTrue([...luaBySha.values()].some((lua) => lua.includes(guard)), "the guard is not in the scripts")
        assert.isTrue(yield* run(redis), "with the guard")
        assert.isFalse(yield* run(withoutGuard(redis, guard, mutant)), "without the guard")
      }))
  }
})

// -----------------------------------------------------------------------------
// Two processes that write and read while messages and connections are lost
// -----------------------------------------------------------------------------

type Event =
  | { readonly _tag: "Read"; readonly process: number; readonly query: number }
  | { readonly _tag: "Write"; readonly process: number; readonly query: number }
  | { readonly _tag: "Wait"; readonly millis: number }
  | { readonly _tag: "Lose"; readonly process: number; readonly kind: "change" | "beat" }
  | { readonly _tag: "Hold" | "Pass" | "End"; readonly process: number }
  | { readonly _tag: "Kill" | "Flush" | "Forget" }

const event: FastCheck.Arbitrary<Event> = (() => {
  const process = FastCheck.nat(1)
  const query = FastCheck.nat(2)
  const of = <Tag extends string, A extends object>(_tag: Tag, rest: { [K in keyof A]: FastCheck.Arbitrary<A[K]> }) =>
    FastCheck.record({ _tag: FastCheck.constant(_tag), ...rest }) as FastCheck.Arbitrary<any>
  return FastCheck.oneof(
    { weight: 12, arbitrary: of("Read", { process, query }) },
    { weight: 4, arbitrary: of("Write", { process, query }) },
    { weight: 4, arbitrary: of("Wait", { millis: FastCheck.constantFrom(1, 5, 40, 120) }) },
    { weight: 2, arbitrary: of("Lose", { process, kind: FastCheck.constantFrom("change", "beat") }) },
    { weight: 1, arbitrary: of("Hold", { process }) },
    { weight: 1, arbitrary: of("Pass", { process }) },
    { weight: 1, arbitrary: of("End", { process }) },
    { weight: 1, arbitrary: of("Kill", {}) },
    { weight: 1, arbitrary: of("Flush", {}) },
    { weight: 1, arbitrary: of("Forget", {}) }
  )
})()

describe("TieredStore: two processes", () => {
  it.live(
    "no answer is older than own writes, or than what was acknowledged so long ago (I2, I6)",
    () =>
      Effect.gen(function*() {
        const server = yield* TestRedis.makeServer()
        const maxMillis = 100
        const processes = yield* Effect.forEach([0, 1], () =>
          Effect.gen(function*() {
            const gate = Gate.make(Context.get(yield* Layer.build(TestRedis.client(server)), Redis.Redis))
            return { gate, store: yield* storeOn(gate.redis, { maxStaleness: maxMillis }) }
          }))
        const sets = [orders, users, setOf(table("orders"), table("users"))]
        const levels = { L1: 0, L2: 0 }

        const history = Effect.fnUntraced(function*(events: ReadonlyArray<Event>) {
          const namespace = freshNamespace()
          /** The versions of the two tables, and who has written which when: acknowledged then. */
          const versions = [0, 0]
          const writes: Array<{ table: number; version: number; process: number; atMillis: number }> = []
          const tablesOf = (query: number) => query === 2 ? [0, 1] : [query]

          const read = Effect.fnUntraced(function*(process: number, query: number, allowedMillis: number) {
            const { store } = processes[process]
            const key = keyOf(namespace, `${query}`)
            const now = yield* Clock.currentTimeMillis
            const kept = store.peek(key, now)
            const outcome = kept ?? (yield* Effect.option(store.lookup(key, sets[query])).pipe(
              Effect.map((found) => found._tag === "Some" ? found.value : undefined)
            ))
            if (outcome === undefined) return
            if ("value" in outcome) {
              levels[outcome.level]++
              const seen = outcome.value as ReadonlyArray<number>
              for (const { atMillis, process: by, table, version } of writes) {
                const mustSee = by === process || outcome.level === "L2" || atMillis < now - allowedMillis
                if (mustSee && tablesOf(query).includes(table)) assert.isAtLeast(seen[table], version)
              }
            } else {
              yield* Effect.ignore(store.store(key, entryOf([...versions], sets[query]), outcome.lease))
            }
          })

          for (const event of events) {
            switch (event._tag) {
              case "Read":
                yield* read(event.process, event.query, maxMillis)
                break
              case "Write":
                for (const table of tablesOf(event.query)) versions[table]++
                yield* processes[event.process].store.invalidate(
                  write(namespace, ...tablesOf(event.query).map((i) => table(["orders", "users"][i])))
                ).pipe(Effect.retry(Schedule.spaced("5 millis")))
                for (const table of tablesOf(event.query)) {
                  const atMillis = yield* Clock.currentTimeMillis
                  writes.push({ table, version: versions[table], process: event.process, atMillis })
                }
                break
              case "Wait":
                yield* Effect.sleep(event.millis)
                break
              case "Lose":
                processes[event.process].gate.loseMessages(1, event.kind)
                break
              case "Hold":
                processes[event.process].gate.holdMessages()
                break
              case "Pass":
                processes[event.process].gate.passMessages()
                break
              case "End":
                processes[event.process].gate.endSubscriptions()
                break
              case "Kill":
                yield* server.command("CLIENT", "KILL", "TYPE", "pubsub")
                break
              case "Flush":
                yield* server.command("FLUSHALL")
                break
              case "Forget":
                yield* server.command("DEL", `eqc:{${namespace}:0}:meta`)
            }
          }
          // When all is quiet, whatever can be served equals the database (I4).
          for (const { gate } of processes) {
            gate.loseMessages(0)
            gate.passMessages()
          }
          yield* Effect.sleep(maxMillis + 10)
          for (const process of [0, 1, 0, 1]) for (const query of [0, 1, 2]) yield* read(process, query, 0)
        })

        yield* Effect.promise(() =>
          FastCheck.assert(
            FastCheck.asyncProperty(
              FastCheck.array(event, { minLength: 10, maxLength: 60 }),
              (events) => Effect.runPromise(history(events))
            ),
            { numRuns: 25, interruptAfterTimeLimit: 45_000 }
          )
        )
        assert.isAbove(levels.L1, 20)
        assert.isAbove(levels.L2, 5)
      }).pipe(Effect.provideService(References.MinimumLogLevel, "None")),
    90_000
  )
})
