import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { CacheKey } from "../../src/CacheStore.ts"
import * as Dependency from "../../src/Dependency.ts"
import { Flights } from "../../src/internal/flights.ts"
import { joinFlight } from "../support/flights.ts"

const orders = Dependency.makeSet([Dependency.table("orders")])
const users = Dependency.makeSet([Dependency.table("users")])
const wroteOrders = Dependency.writeTargets([Dependency.table("orders")])

const key = (local: string): CacheKey => ({
  namespace: "test",
  space: "space",
  local,
  fingerprint: local,
  codec: { encode: String, decode: String }
})

const ignored = () => {}

/** A flight that waits for a gate, and counts how often it began and whether it was interrupted. */
const gated = Effect.fnUntraced(function*(flights: Flights, dependencies = orders) {
  const gate = yield* Deferred.make<string>()
  const log = { begun: 0, interrupted: 0, joined: 0 }
  const join = joinFlight<string, never>(flights, key("k"), dependencies, (settle) =>
    Effect.suspend(() => {
      log.begun++
      return Deferred.await(gate)
    }).pipe(
      Effect.onInterrupt(() => Effect.sync(() => log.interrupted++)),
      Effect.map((value) => settle(Exit.succeed(value)))
    ), () => log.joined++)
  return { gate, log, join }
})

describe("Flights", () => {
  it.effect("1,000 callers share one", () =>
    Effect.gen(function*() {
      const flights = new Flights([])
      const { gate, join, log } = yield* gated(flights)
      const fiber = yield* Effect.forkChild(
        Effect.all(Array.from({ length: 1000 }, () => join), { concurrency: "unbounded" })
      )
      yield* Effect.yieldNow
      yield* Deferred.succeed(gate, "value")
      const values = yield* Fiber.join(fiber)
      assert.deepStrictEqual(new Set(values), new Set(["value"]))
      assert.deepStrictEqual(log, { begun: 1, interrupted: 0, joined: 999 })
      assert.strictEqual(flights.size, 0)
    }))

  it.effect("an interrupted leader neither cancels nor fails the others", () =>
    Effect.gen(function*() {
      const flights = new Flights([])
      const { gate, join, log } = yield* gated(flights)
      const leader = yield* Effect.forkChild(join)
      yield* Effect.yieldNow
      const other = yield* Effect.forkChild(join)
      yield* Effect.yieldNow
      yield* Fiber.interrupt(leader)
      assert.strictEqual(log.interrupted, 0)
      yield* Deferred.succeed(gate, "value")
      assert.strictEqual(yield* Fiber.join(other), "value")
    }))

  it.effect("when the last caller leaves, it is interrupted and forgotten", () =>
    Effect.gen(function*() {
      const flights = new Flights([])
      const { gate, join, log } = yield* gated(flights)
      const one = yield* Effect.forkChild(join)
      const two = yield* Effect.forkChild(join)
      yield* Effect.yieldNow
      yield* Fiber.interrupt(one)
      assert.strictEqual(log.interrupted, 0)
      yield* Fiber.interrupt(two)
      assert.deepStrictEqual([log.interrupted, flights.size], [1, 0])
      const three = yield* Effect.forkChild(join)
      yield* Effect.yieldNow
      yield* Deferred.succeed(gate, "again")
      assert.strictEqual(yield* Fiber.join(three), "again")
    }))

  it.effect("nobody joins what is being interrupted, however long that takes", () =>
    Effect.gen(function*() {
      const flights = new Flights([])
      const ended = yield* Deferred.make<void>()
      const leaving = joinFlight<string, never>(flights, key("k"), orders, () =>
        Effect.onInterrupt(Effect.never, () =>
          Deferred.await(ended)), ignored)
      const one = yield* Effect.forkChild(leaving)
      yield* Effect.yieldNow
      const interrupted = yield* Effect.forkChild(Fiber.interrupt(one))
      yield* Effect.yieldNow
      const { gate, join, log } = yield* gated(flights)
      const two = yield* Effect.forkChild(join)
      yield* Effect.yieldNow
      assert.deepStrictEqual([log.begun, log.joined], [1, 0])
      yield* Deferred.succeed(ended, undefined)
      yield* Fiber.join(interrupted)
      yield* Deferred.succeed(gate, "value")
      assert.strictEqual(yield* Fiber.join(two), "value")
    }))

  it.effect("race 16: after an invalidation nobody joins a flight that began before it", () =>
    Effect.gen(function*() {
      const flights = new Flights([])
      const before = yield* gated(flights)
      const waiting = yield* Effect.forkChild(before.join)
      yield* Effect.yieldNow
      flights.detach(wroteOrders)
      const after = yield* gated(flights)
      const later = yield* Effect.forkChild(after.join)
      yield* Effect.yieldNow
      yield* Deferred.succeed(after.gate, "new")
      yield* Deferred.succeed(before.gate, "old")
      assert.strictEqual(yield* Fiber.join(later), "new")
      // Who asked before the write may have the older answer.
      assert.strictEqual(yield* Fiber.join(waiting), "old")
      assert.deepStrictEqual([after.log.begun, after.log.joined, flights.size], [1, 0, 0])
    }))

  it.effect("an invalidation of something else leaves it joinable", () =>
    Effect.gen(function*() {
      const flights = new Flights([])
      const { gate, join, log } = yield* gated(flights, users)
      const one = yield* Effect.forkChild(join)
      yield* Effect.yieldNow
      flights.detach(wroteOrders)
      const two = yield* Effect.forkChild(join)
      yield* Effect.yieldNow
      yield* Deferred.succeed(gate, "value")
      yield* Fiber.joinAll([one, two])
      assert.deepStrictEqual([log.begun, log.joined], [1, 1])
    }))

  it.effect("other dependencies, another flight", () =>
    Effect.gen(function*() {
      const flights = new Flights([])
      const one = yield* gated(flights, orders)
      const two = yield* gated(flights, users)
      const first = yield* Effect.forkChild(one.join)
      yield* Effect.yieldNow
      const second = yield* Effect.forkChild(two.join)
      yield* Effect.yieldNow
      assert.deepStrictEqual([one.log.begun, two.log.begun, two.log.joined], [1, 1, 0])
      yield* Deferred.succeed(one.gate, "one")
      yield* Deferred.succeed(two.gate, "two")
      assert.deepStrictEqual(yield* Fiber.joinAll([first, second]), ["one", "two"])
    }))

  it.effect("the value is there before the fill, and joinable until it is judged", () =>
    Effect.gen(function*() {
      const flights = new Flights([])
      const judged = yield* Deferred.make<void>()
      let begun = 0
      const join = joinFlight<number, never>(flights, key("k"), orders, (settle) =>
        Effect.suspend(() => {
          settle(Exit.succeed(++begun))
          return Deferred.await(judged)
        }), ignored)
      assert.strictEqual(yield* join, 1)
      assert.strictEqual(yield* join, 1)
      yield* Deferred.succeed(judged, undefined)
      yield* Effect.yieldNow
      assert.strictEqual(yield* join, 2)
      yield* flights.interruptAll
    }))

  it.effect("a failure reaches all who wait and nobody else", () =>
    Effect.gen(function*() {
      const flights = new Flights([])
      let begun = 0
      const join = joinFlight<number, string>(flights, key("k"), orders, (settle) =>
        Effect.andThen(
          Effect.yieldNow,
          Effect.sync(() => settle(Exit.fail(`no ${++begun}`)))
        ), ignored)
      const errors = yield* Effect.all([Effect.flip(join), Effect.flip(join)], { concurrency: 2 })
      assert.deepStrictEqual(errors, ["no 1", "no 1"])
      assert.strictEqual(yield* Effect.flip(join), "no 2")
    }))

  it.effect("a body that dies ends its flight", () =>
    Effect.gen(function*() {
      const flights = new Flights([])
      const exit = yield* Effect.exit(joinFlight(flights, key("k"), orders, () => Effect.die("broken"), ignored))
      assert.isTrue(Exit.isFailure(exit))
      assert.strictEqual(flights.size, 0)
    }))

  it.effect("runs with the first caller's services, without its scope and what is omitted", () =>
    Effect.gen(function*() {
      class Service extends Context.Service<Service, string>()("Service") {}
      class Transaction extends Context.Service<Transaction, string>()("Transaction") {}
      const flights = new Flights([Transaction])
      const seen = yield* joinFlight<ReadonlyArray<unknown>, never>(
        flights,
        key("k"),
        orders,
        (settle) =>
          Effect.withFiber((fiber) => {
            const get = (tag: Context.Key<any, any>) =>
              Context.getOrUndefined(fiber.context as Context.Context<any>, tag)
            settle(Exit.succeed([get(Service), get(Transaction), get(Scope.Scope)]))
            return Effect.void
          }),
        ignored
      ).pipe(
        Effect.provideService(Service, "mine"),
        Effect.provideService(Transaction, "open"),
        Effect.scoped
      )
      assert.deepStrictEqual(seen, ["mine", undefined, undefined])
    }))
})
