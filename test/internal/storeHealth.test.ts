/** A store that goes on failing is spared, and found again. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import { CacheError, InvalidReply, StoreUnavailable } from "../../src/CacheError.ts"
import * as StoreHealth from "../../src/internal/storeHealth.ts"
import { Tally } from "../../src/internal/tally.ts"
import * as Logs from "../support/logs.ts"

type Operation = CacheError["operation"]
type Call = Effect.Effect<string, CacheError>

const fails: Call = Effect.fail(
  new CacheError({ operation: "lookup", reason: new StoreUnavailable({ message: "Redis cannot be reached" }) })
)
const babbles: Call = Effect.fail(
  new CacheError({ operation: "lookup", reason: new InvalidReply({ message: "not a reply" }) })
)
const hangs: Call = Effect.never
const works: Call = Effect.succeed("ok")

const open = (timed = true, shards?: number) =>
  Effect.map(Effect.context<never>(), (context) => {
    const tally = new Tally(context)
    const health = StoreHealth.make(tally, { timed, shards })
    let answer = works
    let sent = 0
    const call = (operation: Operation = "lookup", must?: boolean) =>
      Effect.exit(health.guard(
        operation,
        () => {
          sent++
          return answer
        },
        50,
        must
      ))
    return {
      health,
      counts: tally.counts,
      call,
      set: (next: Call) => {
        answer = next
      },
      /** How many calls have reached the store since this was asked last. */
      sent: () => {
        const count = sent
        sent = 0
        return count
      },
      /** Calls one after the other, with the clock going on; tells how long they took. */
      calls: (count: number, operation?: Operation) =>
        Effect.gen(function*() {
          const start = yield* Clock.currentTimeMillis
          for (let i = 0; i < count; i++) {
            const fiber = yield* Effect.forkChild(call(operation), { startImmediately: true })
            while (fiber.pollUnsafe() === undefined) yield* TestClock.adjust(10)
          }
          return (yield* Clock.currentTimeMillis) - start
        })
    }
  })

const gauge = (operation: Operation) =>
  Effect.map(
    Metric.snapshot,
    (all) =>
      all.flatMap(({ attributes, id, state }) =>
        id === "query_cache_circuit_open" && attributes?.["operation"] === operation
          ? [(state as { readonly value: number }).value]
          : []
      )[0]
  )

describe("a store that goes on failing", () => {
  it.effect("costs five time-outs, and from then on one in a second", () =>
    Effect.gen(function*() {
      const { calls, set, sent, counts } = yield* open()
      set(hangs)
      assert.deepStrictEqual([yield* calls(1000), sent()], [5 * 50, 5])
      assert.strictEqual(yield* gauge("lookup"), 1)
      for (let second = 0; second < 10; second++) {
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual([yield* calls(1000), sent()], [50, 1])
      }
      assert.strictEqual(counts.storeErrors, 15)
    }))

  it.effect("is found again by one call, within a second", () =>
    Effect.gen(function*() {
      const { call, calls, sent, set } = yield* open()
      set(hangs)
      yield* calls(5)
      sent()
      yield* TestClock.adjust("999 millis")
      set(works)
      assert.isTrue(Exit.isFailure(yield* call()))
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual([yield* call(), yield* call(), sent()], [Exit.succeed("ok"), Exit.succeed("ok"), 2])
      assert.strictEqual(yield* gauge("lookup"), 0)
      // And has to fail as often again.
      set(fails)
      yield* calls(4)
      assert.strictEqual(sent(), 4)
      assert.strictEqual(yield* gauge("lookup"), 0)
      yield* calls(9)
      assert.strictEqual(sent(), 1)
    }))

  it.effect("one call in between that succeeds is enough", () =>
    Effect.gen(function*() {
      const { calls, sent, set } = yield* open()
      for (let i = 0; i < 10; i++) {
        set(fails)
        yield* calls(4)
        set(works)
        yield* calls(1)
      }
      assert.strictEqual(sent(), 50)
    }))

  it.effect("one shard that is away is no reason to spare the others", () =>
    Effect.gen(function*() {
      const { calls, sent, set } = yield* open(true, 3)
      // By chance one comes up more often than not.
      for (let i = 0; i < 100; i++) {
        set(fails)
        yield* calls(i % 20)
        set(works)
        yield* calls(1)
      }
      assert.strictEqual(sent(), 5 * 190 + 100)
      set(fails)
      yield* calls(1000)
      assert.strictEqual(sent(), 40)
      // Which asks all of them.
      yield* calls(1000, "fence")
      assert.strictEqual(sent(), 5)
    }))

  it.effect("a store that stumbles once is asked again, however many calls that was", () =>
    Effect.gen(function*() {
      const { call, sent, set } = yield* open()
      set(hangs)
      for (let i = 1; i <= 4; i++) {
        const fibers = yield* Effect.forEach(
          Array.from({ length: 200 }),
          () => Effect.forkChild(call(), { startImmediately: true })
        )
        yield* TestClock.adjust(50)
        yield* Fiber.joinAll(fibers)
        assert.strictEqual(sent(), 200)
      }
      set(works)
      assert.deepStrictEqual([yield* call(), sent()], [Exit.succeed("ok"), 1])
    }))

  it.effect("a caller who leaves with the call that was to see keeps nobody from seeing", () =>
    Effect.gen(function*() {
      const { call, calls, sent, set } = yield* open()
      set(hangs)
      yield* calls(5)
      yield* TestClock.adjust("1 second")
      sent()
      const probe = yield* Effect.forkChild(call(), { startImmediately: true })
      yield* Fiber.interrupt(probe)
      set(works)
      yield* call()
      assert.strictEqual(sent(), 1)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* call(), sent()], [Exit.succeed("ok"), 1])
    }))

  it.effect("each operation on its own: it may answer reads and refuse writes", () =>
    Effect.gen(function*() {
      const { calls, health, sent, set } = yield* open()
      set(fails)
      yield* calls(9, "store")
      yield* calls(4, "release")
      assert.strictEqual(sent(), 9)
      set(works)
      yield* calls(9, "lookup")
      yield* calls(9, "invalidate")
      yield* calls(9, "store")
      assert.strictEqual(sent(), 18)
      assert.deepStrictEqual((["store", "release", "lookup", "invalidate"] as const).map(health.isOpen), [
        true,
        false,
        false,
        false
      ])
    }))

  it.effect("what must be sent is, and decides for the others", () =>
    Effect.gen(function*() {
      const { call, calls, health, sent, set } = yield* open()
      set(fails)
      yield* calls(5, "invalidate")
      sent()
      yield* call("invalidate", true)
      yield* call("invalidate")
      assert.deepStrictEqual([sent(), health.isOpen("invalidate")], [1, true])
      set(works)
      yield* call("invalidate", true)
      yield* call("invalidate")
      assert.deepStrictEqual([sent(), health.isOpen("invalidate")], [2, false])
    }))

  it.effect("an answer that means nothing comes at once: it is not spared for that", () =>
    Effect.gen(function*() {
      const { calls, sent, set } = yield* open()
      set(babbles)
      yield* calls(20)
      assert.strictEqual(sent(), 20)
    }))

  it.effect("is told of once", () =>
    Effect.gen(function*() {
      const logs = yield* Logs.Logs
      const { calls, set } = yield* open()
      set(hangs)
      for (let i = 0; i < 20; i++) {
        yield* calls(20)
        yield* TestClock.adjust("1 second")
      }
      set(works)
      yield* calls(20)
      assert.deepStrictEqual(yield* logs.messages, [
        "The cache store fails (lookup: StoreTimeout); the database answers until it works again",
        "The cache store works again (lookup)"
      ])
    }).pipe(Effect.provide(Logs.layer)))

  it.effect("in this process nothing is spared", () =>
    Effect.gen(function*() {
      const { calls, sent, set } = yield* open(false)
      set(fails)
      yield* calls(20)
      assert.strictEqual(sent(), 20)
    }))
})
