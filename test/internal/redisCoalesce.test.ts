import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { CacheError, StoreUnavailable } from "../../src/CacheError.ts"
import * as Coalesce from "../../src/internal/redis/coalesce.ts"

const failure = new CacheError({ operation: "lookup", reason: new StoreUnavailable({ message: "away" }) })

/** Requests are numbers of bytes, answers name them. `gate` holds back what is sent. */
const setUp = (options?: {
  readonly gate?: (requests: ReadonlyArray<number>) => Effect.Effect<unknown, CacheError>
  readonly maxRequests?: number
}) => {
  const sent: Array<readonly [target: string, requests: ReadonlyArray<number>]> = []
  const unclaimed: Array<string> = []
  const coalesced = Coalesce.make<string, { readonly target: string; readonly bytes: number }, string>({
    targetOf: ({ target }) => target,
    maxRequests: options?.maxRequests ?? 10,
    maxBytes: 1_000,
    bytesOf: ({ bytes }) => bytes,
    send: (target, requests) => {
      const bytes = requests.map(({ bytes }) => bytes)
      sent.push([target, bytes])
      return Effect.as(options?.gate?.(bytes) ?? Effect.void, bytes.map((bytes) => `${target}${bytes}`))
    },
    unclaimed: (_, answer) => unclaimed.push(answer)
  })
  const ask = (target: string, requests: ReadonlyArray<number>) =>
    coalesced(requests.map((bytes) => ({ target, bytes })))
  return { ask, coalesced, sent, unclaimed }
}

const together = <A, E>(effects: ReadonlyArray<Effect.Effect<A, E>>) =>
  Effect.all(effects, { concurrency: "unbounded" })

describe("coalescing", () => {
  it.effect("calls of one microtask travel in one command for each target", () =>
    Effect.gen(function*() {
      const { ask, sent } = setUp()
      const answers = yield* together([ask("a", [1]), ask("b", [2]), ask("a", [3, 4]), ask("a", [1])])
      assert.deepStrictEqual(answers, [["a1"], ["b2"], ["a3", "a4"], ["a1"]])
      assert.deepStrictEqual(sent, [["a", [1, 3, 4, 1]], ["b", [2]]])
      yield* ask("a", [5])
      yield* ask("a", [6])
      assert.deepStrictEqual(sent.slice(2), [["a", [5]], ["a", [6]]])
    }))

  it.effect("a call goes to several targets, and one that fails leaves no answer of the others behind", () =>
    Effect.gen(function*() {
      const gates = [yield* Deferred.make<void, CacheError>(), yield* Deferred.make<void, CacheError>()]
      const { coalesced, sent, unclaimed } = setUp({ gate: ([bytes]) => Deferred.await(gates[bytes % 2]) })
      const call = (from: number) =>
        Effect.forkChild(Effect.exit(coalesced([
          { target: "a", bytes: from },
          { target: "b", bytes: from + 1 },
          { target: "a", bytes: from + 2 }
        ])))
      yield* Deferred.succeed(gates[0], undefined)
      const fails = yield* call(2)
      while (sent.length < 2) yield* Effect.yieldNow
      assert.deepStrictEqual(sent, [["a", [2, 4]], ["b", [3]]])
      yield* Deferred.fail(gates[1], failure)
      assert.deepStrictEqual(yield* Fiber.join(fails), Exit.fail(failure))
      assert.deepStrictEqual(unclaimed.sort(), ["a2", "a4"])
    }))

  it.effect("asks nothing for nothing", () =>
    Effect.gen(function*() {
      const { ask, sent } = setUp()
      assert.deepStrictEqual(yield* together([ask("a", []), ask("b", [])]), [[], []])
      assert.deepStrictEqual(sent, [])
    }))

  it.effect("a command takes so many requests and so many bytes, and one that is larger goes alone", () =>
    Effect.gen(function*() {
      const { ask, sent } = setUp({ maxRequests: 3 })
      const answers = yield* together([
        ask("", [1, 2]),
        ask("", [3, 4, 5]),
        ask("", [999]),
        ask("", [5_000, 996]),
        ask("", [1])
      ])
      assert.deepStrictEqual(answers.flat(), ["1", "2", "3", "4", "5", "999", "5000", "996", "1"])
      assert.deepStrictEqual(sent.map(([, requests]) => requests), [[1, 2, 3], [4, 5], [999], [5_000], [996, 1]])
    }))

  it.effect("a caller that is interrupted leaves the others alone, and its answer behind", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const { ask, sent, unclaimed } = setUp({ gate: () => Deferred.await(gate) })
      const fibers = yield* Effect.forEach([1, 2, 3], (i) => Effect.forkChild(ask("", [i])))
      while (sent.length === 0) yield* Effect.yieldNow
      yield* Fiber.interrupt(fibers[0])
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual(yield* together([Fiber.join(fibers[1]), Fiber.join(fibers[2])]), [["2"], ["3"]])
      assert.deepStrictEqual(unclaimed, ["1"])
    }))

  it.effect("the answers of a command that nobody waits for any more are not lost", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const { ask, sent, unclaimed } = setUp({ gate: () => Deferred.await(gate) })
      const fiber = yield* Effect.forkChild(ask("", [1]))
      while (sent.length === 0) yield* Effect.yieldNow
      yield* Fiber.interrupt(fiber)
      yield* Deferred.succeed(gate, undefined)
      while (unclaimed.length === 0) yield* Effect.yieldNow
      assert.deepStrictEqual(unclaimed, ["1"])
    }))

  it.effect("what is given up before it is sent is not sent", () =>
    Effect.gen(function*() {
      const { ask, sent, unclaimed } = setUp()
      const first = Effect.runFork(ask("", [1]))
      const second = Effect.runFork(ask("", [2]))
      first.interruptUnsafe()
      assert.deepStrictEqual(yield* Fiber.join(second), ["2"])
      assert.deepStrictEqual(sent, [["", [2]]])
      assert.deepStrictEqual(unclaimed, [])
    }))

  it.effect("a command that fails fails those it carried, and no others", () =>
    Effect.gen(function*() {
      const { ask, unclaimed } = setUp({
        maxRequests: 2,
        gate: (requests) => requests.includes(3) ? Effect.fail(failure) : Effect.void
      })
      const exits = yield* together([[1], [2, 3], [4], [5]].map((requests) => Effect.exit(ask("", requests))))
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, false, false, true])
      for (const exit of exits.slice(1, 3)) assert.deepStrictEqual(exit, Exit.fail(failure))
      // The half of a call whose other half failed.
      assert.deepStrictEqual(unclaimed, ["2"])
    }))

  it.effect("a command that dies reaches every caller", () =>
    Effect.gen(function*() {
      const { ask } = setUp({ gate: () => Effect.die("a bug") })
      const exits = yield* together([1, 2].map((request) => Effect.exit(ask("", [request]))))
      assert.deepStrictEqual(exits, [Exit.die("a bug"), Exit.die("a bug")])
    }))
})
