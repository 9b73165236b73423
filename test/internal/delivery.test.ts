/** How an invalidation reaches the store, and what holds until it has, before a store that fails on command. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import * as TestClock from "effect/testing/TestClock"
import { CacheError, StoreUnavailable, WriteRefused } from "../../src/CacheError.ts"
import * as CacheStore from "../../src/CacheStore.ts"
import * as Dependency from "../../src/Dependency.ts"
import * as Deliveries from "../../src/internal/delivery.ts"
import { Flights } from "../../src/internal/flights.ts"
import * as StoreHealth from "../../src/internal/storeHealth.ts"
import { Tally } from "../../src/internal/tally.ts"
import { entryOf, keyOf } from "../CacheStoreTest.ts"
import { type Fault, make as makeFlaky } from "../support/flakyStore.ts"
import { joinFlight } from "../support/flights.ts"
import * as Logs from "../support/logs.ts"

const timeoutMillis = 250

const orders = Dependency.makeSet([Dependency.table("orders")])
const users = Dependency.makeSet([Dependency.table("users")])
const wroteOrders = Dependency.writeTargets([Dependency.table("orders")])
const wroteUsers = Dependency.writeTargets([Dependency.table("users")])
const wrote = (table: number) => Dependency.writeTargets([Dependency.table(`t${table}`)])

const error = (reason: CacheError["reason"]) => new CacheError({ operation: "invalidate", reason })
const fails: Fault = () => Effect.fail(error(new StoreUnavailable({ message: "Redis cannot be reached" })))
const refuses: Fault = () => Effect.fail(error(new WriteRefused({ message: "Redis refuses writes (OOM)" })))
const hangs: Fault = () => Effect.never
const losesReplies: Fault = (proceed) => Effect.andThen(proceed, Effect.never)
const throws: Fault = () => {
  throw new Error("thrown, not failed")
}

const failures: Record<string, Fault> = {
  fails,
  hangs,
  "loses replies": losesReplies,
  "hangs uninterruptibly": () => Effect.uninterruptible(Effect.never),
  dies: () => Effect.die(new Error("a defect")),
  "interrupts itself": () => Effect.interrupt
}

const open = Effect.gen(function*() {
  const memory = Context.get(yield* Layer.build(CacheStore.layerMemory()), CacheStore.CacheStore)
  const flaky = makeFlaky(memory)
  const flights = new Flights([])
  const announced: Array<[stamp: string, state: string]> = []
  const tally = new Tally(yield* Effect.context<never>())
  yield* Effect.addFinalizer(() => flights.interruptAll)
  const delivery = yield* Deliveries.make({
    sessions: { wrote: () => {} },
    namespace: "test",
    store: flaky.store,
    flights,
    health: StoreHealth.make(tally, { timed: true }),
    tally,
    timeoutMillis,
    announce: (targets, clock) =>
      Effect.sync(() => {
        announced.push([targets.all ? "*" : targets.stamps[0]!, clock === undefined ? "queued" : "delivered"])
      })
  })
  // As every caller runs it.
  const deliver = (targets: Dependency.Targets) => Effect.uninterruptible(delivery.deliver(targets))
  const quarantine = (targets: Dependency.Targets) =>
    Effect.uninterruptible(delivery.quarantine(targets, { _tag: "Anything" }))
  /** The stamps of every call so far, `*` for everything. */
  const sent = () => flaky.invalidations.map(({ all, stamps }) => all ? "*" : stamps[0])
  return { ...flaky, announced, flights, counts: tally.counts, unserved: delivery.unserved, deliver, quarantine, sent }
})

/** Nobody advances the clock once a test has ended, so nothing may hang then. */
const setup = Effect.tap(open, ({ set }) => Effect.addFinalizer(() => Effect.sync(() => set("invalidate", undefined))))

/** A read that shares a flight, and what a flight of its own would answer. */
const read = (flights: Flights, answer: Effect.Effect<string>, dependencies = orders) =>
  joinFlight<string, never>(
    flights,
    keyOf("test", "key"),
    dependencies,
    (settle) => Effect.map(answer, (value) => settle(Exit.succeed(value))),
    () => {}
  )

const begin = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

const elapsed = <E, R>(effect: Effect.Effect<void, E, R>) =>
  Effect.gen(function*() {
    const start = yield* Clock.currentTimeMillis
    yield* effect
    return (yield* Clock.currentTimeMillis) - start
  })

describe("deliver", () => {
  it.effect("detaches, asks the store, detaches again, returns (race 16)", () =>
    Effect.gen(function*() {
      const { announced, deliver, flights, sent, set } = yield* setup
      const answered = yield* Deferred.make<void>()
      const old = yield* Deferred.make<string>()
      set("invalidate", (proceed) => Effect.andThen(Deferred.await(answered), proceed))

      const before = yield* begin(read(flights, Deferred.await(old)))
      const write = yield* begin(deliver(wroteOrders))
      assert.deepStrictEqual([flights.size, sent()], [0, ["orders"]])

      // After the commit and before the store has marked the old entry: this flight may have found it.
      const between = yield* begin(read(flights, Deferred.await(old)))
      assert.strictEqual(flights.size, 1)
      assert.isUndefined(write.pollUnsafe())
      // Whoever is told must not be able to join it.
      assert.deepStrictEqual(announced, [])
      yield* Deferred.succeed(answered, undefined)
      yield* Fiber.join(write)
      assert.deepStrictEqual(announced, [["orders", "delivered"]])

      assert.strictEqual(yield* read(flights, Effect.succeed("new")), "new")
      yield* Deferred.succeed(old, "old")
      assert.deepStrictEqual(yield* Fiber.joinAll([before, between]), ["old", "old"])
    }))

  it.effect.each(Object.keys(failures))(
    "a store that %s: returns in time, detached, queued, unserved",
    (name) =>
      Effect.gen(function*() {
        const { announced, counts, deliver, flights, sent, set, unserved } = yield* setup
        set("invalidate", (proceed) => Effect.andThen(Effect.sleep(1), failures[name](proceed)))
        const write = yield* begin(deliver(wroteOrders))
        const between = yield* begin(read(flights, Effect.never))
        yield* TestClock.adjust(1)
        yield* TestClock.adjust(write.pollUnsafe() === undefined ? timeoutMillis - 1 : 0)
        assert.deepStrictEqual(write.pollUnsafe(), Exit.void)
        assert.strictEqual(yield* read(flights, Effect.succeed("new")), "new")
        yield* Fiber.interrupt(between)
        assert.deepStrictEqual([unserved.covers(orders), unserved.covers(users), unserved.isEmpty], [
          true,
          false,
          false
        ])
        assert.include(counts, { invalidations: 1, undelivered: 1 })
        assert.deepStrictEqual(announced, [["orders", "queued"]])
        assert.isAtLeast(counts.storeErrors, 1)

        set("invalidate", undefined)
        yield* TestClock.adjust("1 second")
        assert.isTrue(unserved.isEmpty)
        assert.deepStrictEqual(announced.at(-1), ["orders", "delivered"])
        assert.include(counts, { invalidations: 1, undelivered: 0 })
        assert.isTrue(sent().every((stamp) => stamp === "orders"))
      })
  )

  it.effect("a store that throws where it should fail", () =>
    Effect.gen(function*() {
      const { counts, deliver, set, unserved } = yield* setup
      set("invalidate", throws)
      yield* deliver(wroteOrders)
      assert.isTrue(unserved.covers(orders))
      assert.include(counts, { undelivered: 1, storeErrors: 1 })
      set("invalidate", undefined)
      yield* TestClock.adjust("1 second")
      assert.isTrue(unserved.isEmpty)
    }))

  it.effect("a row concerns what is known of its table, by rows or as a whole", () =>
    Effect.gen(function*() {
      const { deliver, flights, set, unserved } = yield* setup
      const row = (table: string, id: number) => Dependency.makeSet([Dependency.row(table, { id })])
      set("invalidate", fails)
      const sets = [orders, row("orders", 7)]
      const reads = yield* Effect.forEach(sets, (set) => begin(read(flights, Effect.never, set)))
      yield* deliver(Dependency.explicitTargets([Dependency.row("orders", { id: 7 })]))
      assert.strictEqual(flights.size, 0)
      yield* Fiber.interruptAll(reads)
      assert.deepStrictEqual(sets.map((set) => unserved.covers(set)), [true, true])
      assert.deepStrictEqual([unserved.covers(users), unserved.covers(row("users", 7))], [false, false])
    }))

  it.effect("is bounded for a caller who was interrupted before, and what it did not deliver is queued", () =>
    Effect.gen(function*() {
      const { deliver, set, unserved } = yield* setup
      set("invalidate", hangs)
      const writing = yield* Deferred.make<void>()
      const write = yield* begin(
        Effect.onExit(Effect.andThen(Deferred.succeed(writing, undefined), Effect.never), () => deliver(wroteOrders))
      )
      yield* Deferred.await(writing)
      const interrupted = yield* begin(Fiber.interrupt(write))
      yield* TestClock.adjust(timeoutMillis - 1)
      assert.isUndefined(write.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.isDefined(interrupted.pollUnsafe())
      assert.isTrue(unserved.covers(orders))
    }))

  it.effect("is not interrupted while the store is asked", () =>
    Effect.gen(function*() {
      const { deliver, set, unserved, store } = yield* setup
      const key = keyOf("test", "entry")
      const filled = yield* store.lookup(key, orders)
      assert(filled._tag === "Miss")
      yield* store.store(key, entryOf("old", orders), filled.lease)
      set("invalidate", (proceed) => Effect.delay(proceed, timeoutMillis - 1))
      const write = yield* begin(deliver(wroteOrders))
      const interrupted = yield* begin(Fiber.interrupt(write))
      yield* TestClock.adjust(timeoutMillis - 1)
      assert.isDefined(interrupted.pollUnsafe())
      assert.strictEqual((yield* store.lookup(key, orders))._tag, "Miss")
      assert.isTrue(unserved.isEmpty)
    }))
})

describe("the queue", () => {
  it.effect("is retried after 0.1 s, then twice as long each time, up to 5 s", () =>
    Effect.gen(function*() {
      const { deliver, set, unserved } = yield* setup
      const calls: Array<number> = []
      set("invalidate", (proceed) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          calls.push(now)
          return fails(proceed)
        }))
      yield* deliver(wroteOrders)
      yield* TestClock.adjust("60 seconds")
      const waits = calls.slice(2).map((at, i) => at - calls[i + 1])
      const expected = waits.map((_, i) => Math.min(100 * 2 ** i, 5000))
      assert.isAbove(waits.length, 12)
      waits.forEach((wait, i) => assert.closeTo(wait, expected[i], expected[i] * 0.21))
      // No two processes in step.
      assert.isTrue(waits.some((wait, i) => wait !== expected[i]))

      set("invalidate", undefined)
      yield* TestClock.adjust("6 seconds")
      assert.isTrue(unserved.isEmpty)

      // What fails anew begins anew.
      set("invalidate", fails)
      yield* deliver(wroteOrders)
      set("invalidate", undefined)
      yield* TestClock.adjust("121 millis")
      assert.isTrue(unserved.isEmpty)
    }))

  it.effect("serves again what has been delivered while the rest is not", () =>
    Effect.gen(function*() {
      const { counts, deliver, invalidations, set, unserved } = yield* setup
      set("invalidate", fails)
      yield* deliver(wroteOrders)
      yield* deliver(wroteUsers)
      set("invalidate", (proceed) => {
        const { stamps } = invalidations.at(-1)!
        return stamps.includes("users") ? fails(proceed) : proceed
      })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([unserved.covers(orders), unserved.covers(users), counts.undelivered], [false, true, 1])
    }))

  it.effect("detaches once more when it delivers: nobody may join who reads what was old until then", () =>
    Effect.gen(function*() {
      const { deliver, flights, set, unserved } = yield* setup
      set("invalidate", fails)
      yield* deliver(wroteOrders)
      // A reader who had found nothing unserved before, and came to its flight only now.
      const late = yield* begin(read(flights, Effect.never))
      set("invalidate", undefined)
      yield* TestClock.adjust("1 second")
      assert.isTrue(unserved.isEmpty)
      assert.strictEqual(yield* read(flights, Effect.succeed("new")), "new")
      yield* Fiber.interrupt(late)
    }))

  it.effect("holds one of equals, however many writes there were", () =>
    Effect.gen(function*() {
      const { counts, deliver, sent, set, unserved } = yield* setup
      set("invalidate", fails)
      yield* Effect.repeat(deliver(wroteOrders), { times: 999 })
      yield* deliver(wroteUsers)
      assert.include(counts, { invalidations: 1001, undelivered: 2 })
      set("invalidate", undefined)
      const before = sent().length
      yield* TestClock.adjust("1 second")
      assert.isTrue(unserved.isEmpty)
      assert.deepStrictEqual(sent().slice(before), ["orders", "users"])
    }))

  it.effect("delivers a second time what was written again while it was delivered", () =>
    Effect.gen(function*() {
      const { counts, deliver, sent, set, unserved } = yield* setup
      set("invalidate", fails)
      yield* deliver(wroteOrders)
      set("invalidate", (proceed) => Effect.delay(proceed, "200 millis"))
      // Under way since 0.1 s, done at 0.3 s.
      yield* TestClock.adjust("130 millis")
      assert.strictEqual(sent().length, 2)
      set("invalidate", fails)
      yield* deliver(wroteOrders)
      yield* TestClock.adjust("190 millis")
      assert.isTrue(unserved.covers(orders))
      assert.strictEqual(counts.undelivered, 1)
      set("invalidate", undefined)
      yield* TestClock.adjust("1 second")
      assert.isTrue(unserved.isEmpty)
      assert.strictEqual(counts.undelivered, 0)
    }))

  it.effect("what an attempt tells late does not count for what was written after it", () =>
    Effect.gen(function*() {
      const { deliver, invalidations, set, unserved } = yield* setup
      set("invalidate", fails)
      yield* deliver(wroteOrders)
      yield* deliver(wroteOrders)
      // A shard answers the first one when it has long been given up.
      invalidations[0]!.delivered!.set(0, { epoch: "1-epoch", clock: 7 })
      set("invalidate", undefined)
      yield* TestClock.adjust("1 second")
      assert.isTrue(unserved.isEmpty)
      assert.strictEqual(invalidations.at(-1)!.delivered!.size, 0)
    }))

  it.effect("holds writes to different rows of a table as one", () =>
    Effect.gen(function*() {
      const { counts, deliver, set, unserved } = yield* setup
      set("invalidate", fails)
      yield* Effect.forEach(
        Array.from({ length: 300 }, (_, id) => id),
        (id) => deliver(Dependency.writeTargets([Dependency.row("orders", { id })]))
      )
      assert.deepStrictEqual(
        [counts.undelivered, unserved.covers(orders), unserved.covers(users)],
        [1, true, false]
      )
    }))

  it.effect("is bounded: too many different things become everything", () =>
    Effect.gen(function*() {
      const { counts, deliver, sent, set, unserved } = yield* setup
      set("invalidate", fails)
      yield* Effect.forEach(Array.from({ length: 256 }, (_, i) => i), (table) => deliver(wrote(table)))
      assert.deepStrictEqual([counts.undelivered, unserved.covers(orders)], [256, false])
      yield* deliver(wrote(256))
      assert.deepStrictEqual([counts.undelivered, unserved.covers(orders)], [1, true])
      yield* deliver(wroteOrders)
      set("invalidate", undefined)
      const before = sent().length
      yield* TestClock.adjust("1 second")
      assert.include(sent().slice(before), "*")
      assert.isTrue(unserved.isEmpty)
      assert.strictEqual(counts.undelivered, 0)
    }))

  it.effect("becoming everything while one is under way forgets nothing", () =>
    Effect.gen(function*() {
      const { counts, deliver, sent, set, unserved } = yield* setup
      set("invalidate", fails)
      yield* deliver(wroteOrders)
      set("invalidate", (proceed) => Effect.delay(proceed, "200 millis"))
      yield* TestClock.adjust("130 millis")
      set("invalidate", fails)
      yield* Effect.forEach(Array.from({ length: 256 }, (_, i) => i), (table) => deliver(wrote(table)))
      yield* TestClock.adjust("190 millis")
      assert.deepStrictEqual([unserved.covers(orders), unserved.covers(users), counts.undelivered], [true, true, 1])
      set("invalidate", undefined)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(sent().at(-1), "*")
      assert.deepStrictEqual([unserved.isEmpty, counts.undelivered], [true, 0])
    }))

  it.effect("is tried one last time when its scope closes, all at once and bounded", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { deliver, quarantine, sent, set } = yield* Scope.provide(open, scope)
      set("invalidate", fails)
      yield* deliver(wroteOrders)
      yield* deliver(wroteUsers)
      yield* quarantine(wrote(1))
      const before = sent().length
      set("invalidate", hangs)
      const closed = yield* begin(elapsed(Scope.close(scope, Exit.void)))
      yield* TestClock.adjust("1 minute")
      assert.isAtMost(yield* Fiber.join(closed), timeoutMillis)
      assert.sameMembers([...new Set(sent().slice(before))], ["orders", "users", "t1"])
    }))
})

// Before a database that cannot tell: what one tells is for test/internal/doubt.test.ts.
describe("quarantine", () => {
  it.effect("is unserved for 30 seconds, and invalidated at both ends", () =>
    Effect.gen(function*() {
      const { quarantine, sent, unserved } = yield* setup
      yield* quarantine(wroteOrders)
      assert.deepStrictEqual(sent(), ["orders"])
      yield* TestClock.adjust("29999 millis")
      assert.deepStrictEqual([unserved.covers(orders), unserved.covers(users)], [true, false])
      yield* TestClock.adjust("1 millis")
      assert.isTrue(unserved.isEmpty)
      assert.deepStrictEqual(sent(), ["orders", "orders"])
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(sent().length, 2)
    }))

  it.effect("begins anew with each write in doubt, and others have their own", () =>
    Effect.gen(function*() {
      const { quarantine, sent, unserved } = yield* setup
      yield* quarantine(wroteOrders)
      yield* TestClock.adjust("10 seconds")
      yield* quarantine(wroteUsers)
      yield* TestClock.adjust("15 seconds")
      yield* quarantine(wroteOrders)
      yield* TestClock.adjust("15 seconds")
      assert.deepStrictEqual([unserved.covers(orders), unserved.covers(users)], [true, false])
      yield* TestClock.adjust("15 seconds")
      assert.isTrue(unserved.isEmpty)
      assert.deepStrictEqual(sent(), ["orders", "users", "orders", "users", "orders"])
    }))

  it.effect("begins anew even while its end is being delivered", () =>
    Effect.gen(function*() {
      const { quarantine, set, unserved } = yield* setup
      yield* quarantine(wroteOrders)
      set("invalidate", (proceed) => Effect.delay(proceed, "200 millis"))
      yield* TestClock.adjust("30100 millis")
      set("invalidate", undefined)
      yield* quarantine(wroteOrders)
      yield* TestClock.adjust("29 seconds")
      assert.isTrue(unserved.covers(orders))
      yield* TestClock.adjust("1 second")
      assert.isTrue(unserved.isEmpty)
    }))

  it.effect("outlasts its time while its end is undelivered", () =>
    Effect.gen(function*() {
      const { quarantine, set, unserved } = yield* setup
      set("invalidate", hangs)
      const write = yield* begin(quarantine(wroteOrders))
      yield* TestClock.adjust(timeoutMillis)
      assert.deepStrictEqual(write.pollUnsafe(), Exit.void)
      yield* TestClock.adjust("10 minutes")
      assert.isTrue(unserved.covers(orders))
      set("invalidate", undefined)
      yield* TestClock.adjust("10 seconds")
      assert.isTrue(unserved.isEmpty)
    }))

  it.effect("is bounded: too many different doubts become one about everything", () =>
    Effect.gen(function*() {
      const { quarantine, unserved } = yield* setup
      yield* Effect.forEach(Array.from({ length: 256 }, (_, i) => i), (table) => quarantine(wrote(table)))
      assert.isFalse(unserved.covers(orders))
      yield* quarantine(wroteUsers)
      assert.isTrue(unserved.covers(orders))
      yield* TestClock.adjust("30 seconds")
      assert.isTrue(unserved.isEmpty)
    }))

  it.effect("detaches at both ends", () =>
    Effect.gen(function*() {
      const { flights, quarantine } = yield* setup
      for (const wait of ["0 seconds", "30 seconds"] as const) {
        const old = yield* begin(read(flights, Effect.never))
        if (wait === "0 seconds") yield* quarantine(wroteOrders)
        else yield* TestClock.adjust(wait)
        assert.strictEqual(yield* read(flights, Effect.succeed("new")), "new")
        yield* Fiber.interrupt(old)
      }
    }))

  it.effect("does not keep its scope from closing", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { quarantine, sent } = yield* Scope.provide(open, scope)
      yield* quarantine(wroteOrders)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(sent(), ["orders", "orders"])
    }))
})

describe("what is logged", () => {
  it.effect("each change between working and failing, once", () =>
    Effect.gen(function*() {
      const { deliver, set } = yield* setup
      const logs = yield* Logs.Logs
      yield* deliver(wroteOrders)
      set("invalidate", fails)
      yield* Effect.repeat(deliver(wroteOrders), { times: 9 })
      yield* TestClock.adjust("20 seconds")
      set("invalidate", refuses)
      yield* TestClock.adjust("20 seconds")
      set("invalidate", undefined)
      yield* TestClock.adjust("20 seconds")
      yield* deliver(wroteUsers)
      assert.deepStrictEqual(yield* logs.messages, [
        "The cache store fails (invalidate: StoreUnavailable); the database answers until it works again",
        "The cache store fails (invalidate: WriteRefused); the database answers until it works again",
        "The cache store works again (invalidate)"
      ])
    }).pipe(Effect.provide(Logs.layer)))

  it.effect("writes in doubt, once while there are any, and their end", () =>
    Effect.gen(function*() {
      const { quarantine } = yield* setup
      const logs = yield* Logs.Logs
      yield* quarantine(wroteOrders)
      yield* quarantine(wroteOrders)
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual((yield* logs.messages).map((message) => message.slice(0, 11)), [
        "The outcome",
        "Every write"
      ])
    }).pipe(Effect.provide(Logs.layer)))
})
