/** The read path over stores that can be told what to do: who waits, who is served what, and what is left behind. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Scheduler from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as FastCheck from "fast-check"
import { CacheError, StoreUnavailable } from "../../src/CacheError.ts"
import * as CachePolicy from "../../src/CachePolicy.ts"
import * as CacheStore from "../../src/CacheStore.ts"
import * as Dependency from "../../src/Dependency.ts"
import { Audits } from "../../src/internal/audits.ts"
import { Flights } from "../../src/internal/flights.ts"
import { Habits } from "../../src/internal/habits.ts"
import * as Places from "../../src/internal/places.ts"
import { Reader } from "../../src/internal/reader.ts"
import { type Answer, isFresh, type Reading } from "../../src/internal/reading.ts"
import { type Point, Session } from "../../src/internal/session.ts"
import * as StoreHealth from "../../src/internal/storeHealth.ts"
import { type RefreshOutcome, Tally } from "../../src/internal/tally.ts"
import * as ClaimingStore from "../support/claimingStore.ts"

const orders = Dependency.makeSet([Dependency.table("orders")])
const tagged = Dependency.makeSet([Dependency.table("orders"), Dependency.tag("tagged")])
const wrote = Dependency.writeTargets([Dependency.table("orders")])

const keyOf = (local: string): CacheStore.CacheKey => ({
  namespace: "test",
  space: "space",
  local,
  fingerprint: local,
  codec: { encode: String, decode: String }
})

interface Database {
  asked: number
  running: number
  interrupted: number
  /** What becomes of the next question. */
  behave: Effect.Effect<unknown, string>
  /** What it answers, as of the beginning. The number of the question unless given. */
  answer: ((asked: number) => number) | undefined
  readonly query: Effect.Effect<number, string>
}

/** What stands for the database: numbers its answers, and does what it is told. */
const makeDatabase = (): Database => {
  const database: Database = {
    asked: 0,
    running: 0,
    interrupted: 0,
    behave: Effect.void,
    answer: undefined,
    query: Effect.suspend(() => {
      const asked = ++database.asked
      const answer = database.answer?.(asked) ?? asked
      database.running++
      return database.behave.pipe(
        Effect.as(answer),
        Effect.onInterrupt(() => Effect.sync(() => void database.interrupted++)),
        Effect.ensuring(Effect.sync(() => void database.running--))
      )
    })
  }
  return database
}

interface Options {
  readonly policy?: CachePolicy.CachePolicy
  readonly key?: string
  readonly dependencies?: Dependency.DependencySet
  readonly habits?: Habits
  readonly admits?: boolean
  readonly point?: Point
}

type Read = readonly [status: string, value: number]

/** A process: its own flights over a store that it may share. */
const makeProcess = (
  store: CacheStore.CacheStore["Service"],
  database: Database,
  maxRefreshes?: number
) => {
  const tally = new Tally(Context.empty())
  const refreshes: Array<RefreshOutcome> = []
  const { refreshed } = tally
  tally.refreshed = (outcome) => {
    refreshes.push(outcome)
    refreshed.call(tally, outcome)
  }
  // However small the steps of its callers are, a flight takes its own.
  const flights = new Flights([Scheduler.MaxOpsBeforeYield], maxRefreshes === undefined ? {} : { maxRefreshes })
  const health = StoreHealth.make(tally, { timed: store.shared })
  const reader = new Reader({ store, flights, health, tally, audits: new Audits(), lookupTimeoutMillis: 50 })
  const reading = (options: Options = {}): Reading<number, string> => {
    const dependencies = options.dependencies ?? orders
    return {
      key: keyOf(options.key ?? "k"),
      basis: dependencies.basis,
      dependencies: () => dependencies,
      terms: CachePolicy.complete(CachePolicy.resolve(options.policy ?? {})),
      habits: options.habits ?? new Habits(),
      label: () => "label",
      query: database.query,
      timedOut: Effect.fail("timed out"),
      admit: (stored) => ({ stored, bytes: 8, refusal: options.admits === false ? "declined" : undefined }),
      holds: (stored) => typeof stored === "number",
      point: options.point
    }
  }
  const told = (answer: Answer<number>): Read => [answer.status, (answer.take() ?? answer.stored) as number]
  /** As a statement does it. */
  const read = (options?: Options): Effect.Effect<Read, string> =>
    Effect.withFiber((fiber) => {
      const asked = reading(options)
      const now = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
      const kept = options?.point !== undefined ? undefined : reader.peek(asked.key, asked.basis, asked.terms, now)
      if (kept === undefined) return Effect.map(reader.fetch(asked), told)
      reader.freshen(fiber, asked, kept, now)
      return Effect.succeed([isFresh(kept, asked.terms, now) ? "hit" : "stale", kept.value as number])
    })
  const invalidate = Effect.suspend(() => {
    flights.detach(wrote)
    return store.invalidate({ namespace: "test", ...wrote })
  }).pipe(Effect.andThen(Effect.sync(() => flights.detach(wrote))))
  return { reader, flights, tally, refreshes, reading, read, told, invalidate }
}

const memory = Effect.map(
  Layer.build(Layer.fresh(CacheStore.layerMemory())),
  (context) => Context.get(context, CacheStore.CacheStore)
)

const one = Effect.fnUntraced(function*(options: { readonly maxRefreshes?: number } = {}) {
  const database = makeDatabase()
  const store = yield* memory
  return { database, store, ...makeProcess(store, database, options.maxRefreshes) }
})

type Fault = <A>(proceed: Effect.Effect<A, CacheError>) => Effect.Effect<A, CacheError>

const shared = Effect.fnUntraced(function*(count: number, options: { readonly maxRefreshes?: number } = {}) {
  const database = makeDatabase()
  const claiming = ClaimingStore.make(yield* memory)
  const faults: { lookup?: Fault; store?: Fault; release?: Fault } = {}
  const { store } = claiming
  const faulty = CacheStore.CacheStore.of({
    ...store,
    lookup: (...args) => (faults.lookup ?? ((proceed) => proceed))(store.lookup(...args)),
    lookupMany: (...args) => (faults.lookup ?? ((proceed) => proceed))(store.lookupMany(...args)),
    store: (...args) => (faults.store ?? ((proceed) => proceed))(store.store(...args)),
    release: (...args) => (faults.release ?? ((proceed) => proceed))(store.release(...args))
  })
  const processes = Array.from({ length: count }, () => makeProcess(faulty, database, options.maxRefreshes))
  return { database, claiming, faults, processes, ...processes[0]! }
})

/** Everything under way has an end, and leaves nothing behind. */
const calm = Effect.fnUntraced(function*(
  { claiming, database, processes, ...self }: {
    readonly database: Database
    readonly flights: Flights
    readonly claiming?: { readonly owed: () => number }
    readonly processes?: ReadonlyArray<{ readonly flights: Flights }>
  }
) {
  yield* TestClock.adjust("2 minutes")
  const left = (processes ?? [self]).map(({ flights }) => [flights.size, flights.refreshCount])
  assert.deepStrictEqual(left, left.map(() => [0, 0]), "flights that are left")
  assert.strictEqual(database.running, 0, "queries that are left")
  assert.strictEqual(claiming?.owed() ?? 0, 0, "fills that are owed")
})

const many = <A, E, R>(count: number, effect: Effect.Effect<A, E, R>) =>
  Effect.all(Array.from({ length: count }, () => effect), { concurrency: "unbounded" })

/** What an effect comes to, and after how many milliseconds. Time passes by itself. */
const timed = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>, stepMillis = 1) {
  const begun = yield* Clock.currentTimeMillis
  const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
  yield* settled
  for (let steps = 0; fiber.pollUnsafe() === undefined; steps++) {
    assert.isBelow(steps, 20_000, "it has no end")
    yield* TestClock.adjust(stepMillis)
    yield* settled
  }
  const exit = yield* Fiber.await(fiber)
  return [exit, (yield* Clock.currentTimeMillis) - begun] as const
})

const settled = Effect.repeat(Effect.yieldNow, { times: 20 })

const started = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<Fiber.Fiber<A, E>, never, Scope.Scope> =>
  Effect.tap(Effect.forkScoped(effect, { startImmediately: true }), () => settled)

const unavailable: Fault = () =>
  Effect.fail(new CacheError({ operation: "lookup", reason: new StoreUnavailable({ message: "unavailable" }) }))
const hangs: Fault = () => Effect.never

const minute = { timeToLive: "1 minute" } as const
const hits = (count: number) => Array.from({ length: count }, (): Read => ["hit", 1])

const revalidates = { ...minute, staleWhileRevalidate: "1 minute" } as const
const consoles = { ...minute, staleIfError: "1 minute" } as const

describe("staleWhileRevalidate", () => {
  it.effect("nobody waits, and one query reads it anew", () =>
    Effect.gen(function*() {
      const world = yield* one()
      const { database, read, refreshes } = world
      const policy = revalidates
      assert.deepStrictEqual(yield* read({ policy }), ["miss", 1])
      yield* TestClock.adjust("60 seconds")
      database.behave = Effect.sleep("10 seconds")
      const [exit, millis] = yield* timed(many(1_000, read({ policy })))
      assert.deepStrictEqual(new Set((exit as any).value.map(String)), new Set(["stale,1"]))
      assert.deepStrictEqual([millis, database.asked], [0, 2])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* read({ policy }), ["hit", 2])
      assert.deepStrictEqual(refreshes, ["done"])
      // Its age counts from then on.
      yield* TestClock.adjust("59 seconds")
      assert.deepStrictEqual(yield* read({ policy }), ["hit", 2])
      yield* calm(world)
    }))

  it.effect("past its window it is read while the caller waits", () =>
    Effect.gen(function*() {
      const { database, read, tally } = yield* one()
      yield* read({ policy: revalidates })
      yield* TestClock.adjust("120 seconds")
      database.behave = Effect.sleep(10)
      const [exit, millis] = yield* timed(read({ policy: revalidates }))
      assert.deepStrictEqual([exit, millis], [Exit.succeed(["miss", 2] as const), 10])
      assert.deepStrictEqual([tally.counts.stale, tally.counts.misses], [0, 2])
    }))

  it.effect("what was invalidated is never served, be it before or while it is read anew", () =>
    Effect.gen(function*() {
      const { database, invalidate, read } = yield* one()
      yield* read({ policy: revalidates })
      yield* TestClock.adjust("61 seconds")
      const gate = yield* Deferred.make<void>()
      database.behave = Deferred.await(gate)
      assert.deepStrictEqual(yield* read({ policy: revalidates }), ["stale", 1])
      yield* invalidate
      database.behave = Effect.void
      // The refresh under way has read before the write, maybe.
      assert.deepStrictEqual(yield* read({ policy: revalidates }), ["miss", 3])
      yield* Deferred.succeed(gate, undefined)
      yield* settled
      assert.deepStrictEqual(yield* read({ policy: revalidates }), ["hit", 3])
    }))

  it.effect("what another process has invalidated since a flight found it is not served to who joins", () =>
    Effect.gen(function*() {
      const world = yield* shared(2)
      const [here, there] = world.processes
      yield* here!.read({ policy: revalidates })
      yield* TestClock.adjust("61 seconds")
      world.database.behave = Effect.sleep(100)
      const first = yield* started(here!.read({ policy: minute }))
      yield* there!.invalidate
      const second = yield* started(here!.read({ policy: revalidates }))
      yield* TestClock.adjust(100)
      const reads = yield* Fiber.joinAll([first, second])
      assert.deepStrictEqual(reads, [["miss", 2], ["joined", 2]])
      yield* calm(world)
    }))

  it.effect("who does not take it waits for the refresh that is under way", () =>
    Effect.gen(function*() {
      const world = yield* one()
      const { database, read } = world
      yield* read({ policy: revalidates })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.sleep(100)
      yield* read({ policy: revalidates })
      const [exit, millis] = yield* timed(many(10, read({ policy: minute })))
      assert.deepStrictEqual(exit, Exit.succeed(Array.from({ length: 10 }, () => ["hit", 2] as const)))
      assert.deepStrictEqual([millis, database.asked], [100, 2])
      yield* calm(world)
    }))

  it.effect("a refresh that hangs keeps nobody longer than ten seconds, nor another refresh longer than thirty", () =>
    Effect.gen(function*() {
      const { database, flights, read } = yield* one({ maxRefreshes: 1 })
      const policy = { ...minute, staleWhileRevalidate: "1 hour" } as const
      yield* read({ policy })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.never
      yield* read({ policy })
      database.behave = Effect.void
      const patient = { ...minute, staleIfError: "1 hour" } as const
      const [exit, millis] = yield* timed(read({ policy: patient }), 100)
      assert.deepStrictEqual([exit, millis], [Exit.succeed(["miss", 3] as const), 10_000])
      yield* TestClock.adjust("61 seconds")
      assert.deepStrictEqual(yield* read({ policy }), ["stale", 3])
      yield* settled
      assert.deepStrictEqual([yield* read({ policy }), database.asked], [["hit", 4], 4])
      // It goes on: whoever waited for it and left was not who it is for.
      assert.strictEqual(database.interrupted, 0)
      yield* flights.interruptAll
    }))

  it.effect("a refresh that fails rests for a second, and what is stale is served meanwhile", () =>
    Effect.gen(function*() {
      const world = yield* one()
      const { database, read, refreshes } = world
      yield* read({ policy: revalidates })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.fail("away")
      for (let i = 0; i < 5; i++) {
        assert.deepStrictEqual(yield* read({ policy: revalidates }), ["stale", 1])
        yield* TestClock.adjust(199)
      }
      assert.strictEqual(database.asked, 2)
      yield* TestClock.adjust(5)
      database.behave = Effect.void
      assert.deepStrictEqual(yield* read({ policy: revalidates }), ["stale", 1])
      yield* settled
      assert.deepStrictEqual(yield* read({ policy: revalidates }), ["hit", 3])
      assert.deepStrictEqual(refreshes, ["failed", "done"])
      yield* calm(world)
    }))

  it.effect("so many refreshes at once, the others are served and not read", () =>
    Effect.gen(function*() {
      const world = yield* one({ maxRefreshes: 2 })
      const { database, read, refreshes } = world
      const keys = ["a", "b", "c", "d"]
      for (const key of keys) yield* read({ key, policy: revalidates })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.sleep(10)
      for (const key of keys) assert.strictEqual((yield* read({ key, policy: revalidates }))[0], "stale")
      assert.deepStrictEqual([database.asked, refreshes], [6, ["too-many", "too-many"]])
      yield* TestClock.adjust(10)
      for (const key of ["c", "d"]) yield* read({ key, policy: revalidates })
      assert.strictEqual(database.asked, 8)
      yield* calm(world)
    }))
})

describe("staleIfError", () => {
  it.effect("in place of a failure, within its window", () =>
    Effect.gen(function*() {
      const world = yield* one()
      const { database, invalidate, read } = world
      yield* read({ policy: consoles })
      database.behave = Effect.andThen(Effect.sleep(1), Effect.fail("away"))
      yield* TestClock.adjust("119 seconds")
      assert.deepStrictEqual((yield* timed(read({ policy: consoles })))[0], Exit.succeed(["stale", 1] as const))
      // Each asks the database first.
      assert.strictEqual(database.asked, 2)
      // Not for who has not asked for it, nor once its window is over.
      assert.deepStrictEqual((yield* timed(read({ policy: minute })))[0], Exit.fail("away"))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual((yield* timed(read({ policy: consoles })))[0], Exit.fail("away"))
      yield* invalidate
      yield* calm(world)
    }))

  it.effect("a defect and an interruption pass through", () =>
    Effect.gen(function*() {
      const { database, read } = yield* one()
      yield* read({ policy: consoles })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.die("broken")
      assert.isTrue(Cause.hasDies(yield* Effect.flip(Effect.sandbox(read({ policy: consoles })))))
      database.behave = Effect.interrupt
      assert.isTrue(Cause.hasInterrupts(yield* Effect.flip(Effect.sandbox(read({ policy: consoles })))))
    }))

  it.effect("what was invalidated while the query failed is not served", () =>
    Effect.gen(function*() {
      const { database, invalidate, read } = yield* one()
      yield* read({ policy: consoles })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.andThen(Effect.sleep(10), Effect.fail("away"))
      const reading = yield* started(Effect.exit(read({ policy: consoles })))
      yield* invalidate
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(yield* Fiber.join(reading), Exit.fail("away"))
    }))

  it.effect("of those who share a flight each has what it takes", () =>
    Effect.gen(function*() {
      const { database, read } = yield* one()
      yield* read({ policy: minute, key: "k" })
      yield* read({ policy: { timeToLive: "1 hour", staleIfError: "1 hour" }, key: "l" })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.andThen(Effect.sleep(10), Effect.fail("away"))
      // It was kept for one who says so.
      const first = yield* started(Effect.exit(read({ policy: minute, key: "l" })))
      const second = yield* started(Effect.exit(read({ policy: consoles, key: "l" })))
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(yield* Fiber.join(first), Exit.fail("away"))
      assert.deepStrictEqual(yield* Fiber.join(second), Exit.succeed(["stale", 2] as const))
      assert.strictEqual(database.asked, 3)
    }))

  it.effect("nobody joins a flight whose query has failed, though the store is asked again", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { database, faults, read } = world
      yield* read({ policy: consoles })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.andThen(Effect.sleep(10), Effect.fail("away"))
      const first = yield* started(Effect.exit(read({ policy: consoles })))
      faults.lookup = (proceed) => Effect.andThen(Effect.sleep(20), proceed)
      yield* TestClock.adjust(15)
      database.behave = Effect.void
      const [second] = yield* timed(read({ policy: minute }))
      assert.deepStrictEqual(second, Exit.succeed(["miss", 3] as const))
      assert.deepStrictEqual(yield* Fiber.join(first), Exit.succeed(["stale", 1] as const))
      yield* calm(world)
    }))
})

describe("softTimeout and hardTimeout", () => {
  const slow = Effect.sleep(1_000)

  it.effect("soft: stale after it, and what is read is stored", () =>
    Effect.gen(function*() {
      const world = yield* one()
      const { database, read } = world
      const policy = { ...consoles, softTimeout: 100 } as const
      database.behave = Effect.sleep(500)
      // With nothing to serve there is nothing but to wait.
      assert.deepStrictEqual(yield* timed(read({ policy })), [Exit.succeed(["miss", 1] as const), 500])
      yield* TestClock.adjust("60 seconds")
      database.behave = slow
      const [exit, millis] = yield* timed(many(10, read({ policy })))
      assert.deepStrictEqual(exit, Exit.succeed(Array.from({ length: 10 }, () => ["stale", 1] as const)))
      assert.deepStrictEqual([millis, database.asked], [100, 2])
      yield* TestClock.adjust(900)
      assert.deepStrictEqual(yield* read({ policy }), ["hit", 2])
      yield* calm(world)
    }))

  it.effect("soft: what was invalidated meanwhile is waited for", () =>
    Effect.gen(function*() {
      const { database, invalidate, read } = yield* one()
      const policy = { ...consoles, softTimeout: 100 } as const
      yield* read({ policy })
      yield* TestClock.adjust("61 seconds")
      database.behave = slow
      const reading = yield* started(read({ policy }))
      yield* invalidate
      yield* TestClock.adjust(999)
      assert.isUndefined(reading.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(reading), ["miss", 2])
    }))

  it.effect("soft: a store that answers after it is in time all the same", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { database, faults, read } = world
      const policy = { ...consoles, softTimeout: 10 } as const
      yield* read({ policy })
      yield* TestClock.adjust("61 seconds")
      database.behave = slow
      faults.lookup = (proceed) => Effect.andThen(Effect.sleep(40), proceed)
      assert.deepStrictEqual(yield* timed(read({ policy })), [Exit.succeed(["stale", 1] as const), 40])
      yield* calm(world)
      assert.strictEqual(database.asked, 2)
    }))

  it.effect("hard: the caller's failure, and what is read is stored", () =>
    Effect.gen(function*() {
      const world = yield* one()
      const { database, read } = world
      const policy = { ...minute, hardTimeout: 100 } as const
      database.behave = slow
      assert.deepStrictEqual(yield* timed(read({ policy })), [Exit.fail("timed out"), 100])
      // Who waits longer shares what goes on.
      assert.deepStrictEqual(yield* timed(read({ policy: minute })), [Exit.succeed(["joined", 1] as const), 900])
      assert.deepStrictEqual(yield* read({ policy }), ["hit", 1])
      yield* calm(world)
    }))

  it.effect("hard: at its time, soft or not, and stale before it", () =>
    Effect.gen(function*() {
      const { database, flights, invalidate, read } = yield* one()
      const both = { ...consoles, softTimeout: 100, hardTimeout: 300 } as const
      const hard = { ...consoles, hardTimeout: 300 } as const
      database.behave = Effect.never
      assert.deepStrictEqual(yield* timed(read({ policy: both })), [Exit.fail("timed out"), 300])
      yield* flights.interruptAll
      database.behave = Effect.void
      yield* read({ policy: both })
      yield* TestClock.adjust("61 seconds")
      database.behave = slow
      assert.deepStrictEqual(yield* timed(read({ policy: hard })), [Exit.succeed(["stale", 2] as const), 300])
      yield* invalidate
      assert.deepStrictEqual(yield* timed(read({ policy: hard })), [Exit.fail("timed out"), 300])
    }))

  it.effect("a query that hangs is joined for half a minute, and no longer", () =>
    Effect.gen(function*() {
      const { database, flights, read } = yield* one()
      database.behave = Effect.never
      const first = yield* started(read())
      yield* TestClock.adjust("29 seconds")
      const second = yield* started(read())
      yield* TestClock.adjust("1 second")
      database.behave = Effect.void
      assert.deepStrictEqual(yield* read(), ["miss", 2])
      assert.deepStrictEqual([first.pollUnsafe(), second.pollUnsafe()], [undefined, undefined])
      yield* Fiber.interruptAll([first, second])
      assert.deepStrictEqual([database.interrupted, database.running, flights.size], [1, 0, 0])
    }))
})

describe("refreshAhead and jitter", () => {
  /** The same number whenever chance is asked. */
  const chance = (number: number) =>
    Effect.provideService(Random.Random, { nextDoubleUnsafe: () => number, nextIntUnsafe: () => 0 })

  // -log(1 - x) is 1.
  const typical = chance(1 - Math.exp(-1))

  for (const [refreshAhead, aheadMillis] of [[true, 200], [{ beta: 2 }, 400], [{ beta: 0.5 }, 100]] as const) {
    it.effect(`by beta ${JSON.stringify(refreshAhead)} and what it cost to read`, () =>
      Effect.gen(function*() {
        const world = yield* one()
        const { database, read, refreshes } = world
        const policy = { ...minute, refreshAhead }
        database.behave = Effect.sleep(200)
        yield* timed(read({ policy }))
        yield* TestClock.adjust(60_000 - aheadMillis - 1)
        assert.deepStrictEqual(yield* typical(read({ policy })), ["hit", 1])
        assert.strictEqual(database.asked, 1)
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(yield* typical(many(100, read({ policy }))), hits(100))
        assert.strictEqual(database.asked, 2)
        yield* TestClock.adjust(200)
        assert.deepStrictEqual([yield* typical(read({ policy })), refreshes], [["hit", 2], ["done"]])
        yield* calm(world)
      }))
  }

  it.effect("by the caller's own time to live, and from another process' store too", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { database, read } = world
      database.behave = Effect.sleep(200)
      yield* timed(read({ policy: { timeToLive: "1 hour" } }))
      const policy = { ...minute, refreshAhead: true }
      yield* TestClock.adjust(60_000 - 201)
      assert.deepStrictEqual(yield* typical(read({ policy })), ["hit", 1])
      assert.strictEqual(database.asked, 1)
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* typical(read({ policy })), ["hit", 1])
      yield* settled
      assert.strictEqual(database.asked, 2)
      yield* calm(world)
    }))

  it.effect("jitter shortens what is stored, by chance", () =>
    Effect.gen(function*() {
      const { read } = yield* one()
      const policy = { ...minute, jitter: 0.2 }
      yield* chance(0.5)(read({ policy }))
      yield* TestClock.adjust(53_999)
      assert.deepStrictEqual(yield* read({ policy }), ["hit", 1])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* chance(0)(read({ policy })), ["miss", 2])
      yield* TestClock.adjust(59_999)
      assert.deepStrictEqual(yield* read({ policy }), ["hit", 2])
    }))
})

describe("flights", () => {
  it.effect("two policies on one key do not make a herd of each other's readers", () =>
    Effect.gen(function*() {
      const world = yield* one()
      const { database, read } = world
      database.behave = Effect.sleep(10)
      const [exit] = yield* timed(many(100, Effect.all([read(), read({ dependencies: tagged })], { concurrency: 2 })))
      assert.isTrue(Exit.isSuccess(exit))
      assert.strictEqual(database.asked, 2)
      yield* calm(world)
    }))

  it.effect("who wants it younger than whose flight it was asks again", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { database, faults, read } = world
      const hour = { timeToLive: "1 hour" } as const
      yield* read({ policy: hour })
      yield* TestClock.adjust("2 minutes")
      faults.lookup = (proceed) => Effect.andThen(Effect.sleep(10), proceed)
      const [exit] = yield* timed(Effect.all([read({ policy: hour }), read({ policy: minute })], { concurrency: 2 }))
      assert.deepStrictEqual(exit, Exit.succeed([["hit", 1], ["miss", 2]] as [Read, Read]))
      assert.strictEqual(database.asked, 2)
    }))

  it.effect("whenever a caller leaves, it leaves no query, no flight and nothing owed", () =>
    Effect.gen(function*() {
      const { database, processes, ...world } = yield* shared(1)
      world.claiming.ways.latency = Effect.yieldNow
      database.behave = Effect.never
      // Whoever can yields after each step, so that each of them is one before which it may be interrupted.
      const reading = world.read().pipe(Effect.provideService(Scheduler.MaxOpsBeforeYield, 3))
      for (let steps = 0; steps < 300; steps++) {
        const fiber = yield* Effect.forkChild(reading, { startImmediately: true })
        for (let i = 0; i < steps; i++) yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
        yield* settled
        assert.deepStrictEqual(
          [world.flights.size, database.running, world.claiming.owed()],
          [0, 0, 0],
          `after ${steps} steps`
        )
      }
      assert.isAbove(database.interrupted, 50)
      yield* calm({ database, processes, ...world })
    }))

  it.effect("the same for several at once", () =>
    Effect.gen(function*() {
      const { claiming, database, flights, reader, reading } = yield* shared(1)
      database.behave = Effect.never
      const all = reader.fetchMany(["a", "b"].map((key) => reading({ key })), () => {}).pipe(
        Effect.provideService(Scheduler.MaxOpsBeforeYield, 3)
      )
      for (let steps = 0; steps < 300; steps++) {
        const fiber = yield* Effect.forkChild(all, { startImmediately: true })
        for (let i = 0; i < steps; i++) yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
        yield* settled
        assert.deepStrictEqual([flights.size, database.running, claiming.owed()], [0, 0, 0], `after ${steps} steps`)
      }
      assert.isAbove(database.interrupted, 100)
    }))

  it.effect("who looks again keeps its flight, though all others leave", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { database, faults, invalidate, read } = world
      yield* read({ policy: revalidates })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.sleep(100)
      const other = yield* started(read({ policy: minute }))
      faults.lookup = (proceed) => Effect.andThen(Effect.sleep(20), proceed)
      const reading = yield* started(Effect.exit(read({ policy: revalidates })))
      yield* invalidate
      yield* Fiber.interrupt(other)
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(yield* Fiber.join(reading), Exit.succeed(["joined", 2] as const))
      yield* calm(world)
    }))

  it.effect("who is served something stale leaves its flight to go on, though all others leave", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { database, read } = world
      yield* read({ policy: revalidates })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.sleep(100)
      const other = yield* started(read({ policy: minute }))
      assert.deepStrictEqual(yield* read({ policy: revalidates }), ["stale", 1])
      yield* Fiber.interrupt(other)
      yield* TestClock.adjust(100)
      assert.deepStrictEqual([yield* read({ policy: minute }), database.interrupted], [["hit", 2], 0])
      yield* calm(world)
    }))
})

describe("reload", () => {
  it.effect("reads what is fresh, and fails as the query does", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { database, read, reader, reading } = world
      const policy = { ...revalidates, staleIfError: "1 minute", softTimeout: 10 } as const
      yield* read({ policy })
      database.behave = Effect.sleep(100)
      const [exit, millis] = yield* timed(reader.reload(reading({ policy })))
      assert.deepStrictEqual([exit, millis], [Exit.succeed({ value: 2, verdict: "accepted" } as const), 100])
      assert.deepStrictEqual(yield* read({ policy }), ["hit", 2])
      database.behave = Effect.fail("away")
      assert.strictEqual(yield* Effect.flip(reader.reload(reading({ policy }))), "away")
      database.behave = Effect.never
      const leaving = yield* started(reader.reload(reading({ policy })))
      yield* Fiber.interrupt(leaving)
      yield* calm(world)
    }))
})

describe("several processes", () => {
  it.effect("a value on its way to the store is not for those who come after another process' write", () =>
    Effect.gen(function*() {
      const world = yield* shared(2)
      const { faults, processes } = world
      const [mine, other] = processes as [typeof processes[0], typeof processes[0]]
      faults.store = (proceed) => Effect.andThen(Effect.sleep(20), proceed)
      assert.deepStrictEqual(yield* mine.read(), ["miss", 1])
      yield* other.invalidate
      const [exit] = yield* timed(mine.read())
      assert.deepStrictEqual(exit, Exit.succeed(["miss", 2] as const))
      yield* calm(world)
    }))

  it.effect("who comes before a fill is judged waits for it, and asks the store", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { database, faults, read } = world
      faults.store = (proceed) => Effect.andThen(Effect.sleep(20), proceed)
      assert.deepStrictEqual(yield* read(), ["miss", 1])
      assert.deepStrictEqual(yield* timed(read()), [Exit.succeed(["hit", 1] as const), 20])
      assert.strictEqual(database.asked, 1)
      // No longer than a fill may take.
      faults.store = hangs
      assert.deepStrictEqual(yield* read({ key: "other" }), ["miss", 2])
      faults.lookup = unavailable
      assert.deepStrictEqual(yield* timed(read({ key: "other" })), [Exit.succeed(["miss", 3] as const), 50])
      yield* TestClock.adjust("1 minute")
    }))

  it.effect("identical misses are one query", () =>
    Effect.gen(function*() {
      const world = yield* shared(4)
      const { database, processes } = world
      database.behave = Effect.sleep(50)
      const [exit, millis] = yield* timed(
        Effect.all(processes.map(({ read }) => many(250, read())), { concurrency: "unbounded" })
      )
      const answers = (exit as any).value.flat() as ReadonlyArray<Read>
      assert.deepStrictEqual(new Set(answers.map(([, value]) => value)), new Set([1]))
      assert.strictEqual(database.asked, 1)
      assert.isBelow(millis, 50 + 2 * 64)
      yield* calm(world)
    }))

  it.effect("one that dies is waited for, and then another one reads and not all of them", () =>
    Effect.gen(function*() {
      const world = yield* shared(4)
      const { claiming, database, processes } = world
      // Somebody who was told to read, and is gone.
      yield* claiming.store.lookup(keyOf("k"), orders)
      database.behave = Effect.sleep(1_000)
      const [exit, millis] = yield* timed(
        Effect.all(processes.map(({ read }) => read()), { concurrency: "unbounded" }),
        4
      )
      assert.isTrue(Exit.isSuccess(exit))
      assert.strictEqual(database.asked, 1)
      assert.isAtLeast(millis, ClaimingStore.flightMillis)
      assert.isBelow(millis, ClaimingStore.flightMillis + 1_000 + 3 * 64)
      yield* calm(world)
    }))

  it.effect("three that die in turn are enough", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { claiming, read } = world
      const dying = Effect.forever(
        Effect.andThen(claiming.store.lookup(keyOf("k"), orders), Effect.sleep(ClaimingStore.flightMillis))
      )
      const fiber = yield* started(dying)
      const [exit, millis] = yield* timed(read(), 4)
      assert.deepStrictEqual(exit, Exit.succeed(["miss", 1] as const))
      assert.isAtLeast(millis, 3 * ClaimingStore.flightMillis - 100)
      assert.isBelow(millis, 3 * ClaimingStore.flightMillis + 200)
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("one that fails, declines or is refused lets the others read", () =>
    Effect.gen(function*() {
      const failing = yield* shared(2)
      failing.database.behave = Effect.andThen(Effect.sleep(100), Effect.fail("away"))
      const first = yield* started(Effect.exit(failing.processes[0]!.read()))
      const second = yield* started(Effect.exit(failing.processes[1]!.read()))
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(yield* Fiber.join(first), Exit.fail("away"))
      yield* TestClock.adjust(64 + 100)
      assert.deepStrictEqual(yield* Fiber.join(second), Exit.fail("away"))
      yield* calm(failing)

      const declining = yield* shared(2)
      declining.database.behave = Effect.sleep(100)
      const [exit, millis] = yield* timed(
        Effect.all(declining.processes.map(({ read }) => read({ admits: false })), { concurrency: "unbounded" })
      )
      assert.isTrue(Exit.isSuccess(exit))
      assert.isBelow(millis, 100 + 64 + 100 + 64)
      assert.strictEqual(declining.database.asked, 2)
      yield* calm(declining)
    }))

  it.effect("one that is interrupted is replaced by one", () =>
    Effect.gen(function*() {
      const world = yield* shared(4)
      const { claiming, database, processes } = world
      database.behave = Effect.sleep(100)
      const [leader, ...others] = yield* Effect.forEach(processes, ({ read }) => started(read()))
      yield* TestClock.adjust(50)
      assert.strictEqual(database.asked, 1)
      yield* Fiber.interrupt(leader!)
      const [exit, millis] = yield* timed(Fiber.joinAll(others))
      assert.deepStrictEqual(new Set((exit as any).value.map(String)), new Set(["miss,2", "hit,2"]))
      assert.isBelow(millis, 64 + 100 + 64)
      assert.deepStrictEqual([database.asked, database.interrupted], [2, 1])
      // So is one that reads whatever there is.
      const reloading = yield* started(world.reader.reload(world.reading()))
      assert.strictEqual(claiming.owed(), 1)
      yield* Fiber.interrupt(reloading)
      const { lease } = yield* claiming.store.lookup(keyOf("k"), orders, 0)
      assert.isDefined(lease.flight)
      yield* claiming.store.release(keyOf("k"), lease)
      yield* calm(world)
    }))

  it.effect("nobody waits where something stale is taken, and one query reads it anew", () =>
    Effect.gen(function*() {
      const world = yield* shared(4)
      const { database, processes } = world
      yield* world.read({ policy: revalidates })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.sleep(100)
      const [exit, millis] = yield* timed(
        Effect.all(processes.map(({ read }) => many(250, read({ policy: revalidates }))), { concurrency: "unbounded" })
      )
      assert.deepStrictEqual(new Set((exit as any).value.flat().map(String)), new Set(["stale,1"]))
      assert.deepStrictEqual([millis, database.asked], [0, 2])
      // Nor those who come while it is read.
      for (const { read } of processes) {
        assert.deepStrictEqual(yield* timed(read({ policy: revalidates })), [Exit.succeed(["stale", 1] as const), 0])
      }
      yield* TestClock.adjust(100)
      for (const { read } of processes) assert.deepStrictEqual(yield* read({ policy: revalidates }), ["hit", 2])
      assert.strictEqual(database.asked, 2)
      assert.deepStrictEqual(world.refreshes, ["done"])
      yield* calm(world)
    }))

  it.effect("refreshes are limited, and rest after a failure, as those of one process", () =>
    Effect.gen(function*() {
      const world = yield* shared(1, { maxRefreshes: 1 })
      const { claiming, database, read, refreshes } = world
      for (const key of ["a", "b"]) yield* read({ key, policy: revalidates })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.andThen(Effect.sleep(10), Effect.fail("away"))
      assert.deepStrictEqual(yield* read({ key: "a", policy: revalidates }), ["stale", 1])
      assert.deepStrictEqual(yield* read({ key: "b", policy: revalidates }), ["stale", 2])
      yield* settled
      assert.deepStrictEqual([database.asked, refreshes, claiming.owed()], [3, ["too-many"], 1])
      yield* TestClock.adjust(10)
      for (let i = 0; i < 3; i++) {
        assert.deepStrictEqual(yield* read({ key: "a", policy: revalidates }), ["stale", 1])
        yield* TestClock.adjust(300)
      }
      assert.deepStrictEqual([database.asked, refreshes], [3, ["too-many", "failed"]])
      yield* TestClock.adjust(200)
      yield* read({ key: "a", policy: revalidates })
      yield* settled
      assert.strictEqual(database.asked, 4)
      yield* calm(world)
    }))

  it.effect("what another process reads anew is left to it", () =>
    Effect.gen(function*() {
      const world = yield* shared(2)
      const { database, processes } = world
      const policy = { ...minute, refreshAhead: { beta: 1e9 } }
      database.behave = Effect.sleep(10)
      yield* timed(world.read({ policy }))
      const before = database.asked
      yield* Effect.all(processes.map(({ read }) => read({ policy })), { concurrency: "unbounded" })
      yield* settled
      assert.strictEqual(database.asked, before + 1)
      yield* TestClock.adjust(10)
      assert.sameMembers(processes.flatMap(({ refreshes }) => refreshes), ["left", "done"])
      yield* calm(world)
    }))
})

describe("a store that fails", () => {
  for (const [how, fault] of [["fails", unavailable], ["hangs", hangs]] as const) {
    it.effect(`${how} at every step: the database answers, in bounded time`, () =>
      Effect.gen(function*() {
        const world = yield* shared(1)
        const { claiming, database, faults, read } = world
        const waits = how === "hangs" ? 50 : 0
        const policy = { ...consoles, staleWhileRevalidate: "1 minute", softTimeout: 100 } as const
        faults.lookup = fault
        assert.deepStrictEqual(yield* timed(read({ policy })), [Exit.succeed(["miss", 1] as const), waits])
        delete faults.lookup
        faults.store = fault
        assert.deepStrictEqual(yield* timed(read({ policy })), [Exit.succeed(["miss", 2] as const), 0])
        delete faults.store
        // What the store refuses to take is nobody's to wait for; what it has not answered to is owed for a while.
        assert.strictEqual(claiming.owed(), how === "hangs" ? 1 : 0)
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(yield* timed(read({ policy })), [Exit.succeed(["miss", 3] as const), 0])
        yield* TestClock.adjust("61 seconds")
        // The store found it stale, and is away when it is to say so again.
        database.behave = Effect.andThen(
          Effect.sync(() => faults.lookup = fault),
          Effect.andThen(Effect.sleep(10), Effect.fail("away"))
        )
        const strict = { ...consoles } as const
        assert.deepStrictEqual(yield* timed(read({ policy: strict })), [Exit.fail("away"), 10 + waits])
        delete faults.lookup
        faults.release = fault
        database.behave = Effect.fail("away")
        yield* TestClock.adjust("1 second")
        const [exit] = yield* timed(read({ policy: minute }))
        assert.deepStrictEqual(exit, Exit.fail("away"))
      }))
  }

  it.effect("finds a value of another kind: read, and replaced", () =>
    Effect.gen(function*() {
      const { database, read, reader, reading, store } = yield* one()
      const { lease } = yield* store.lookup(keyOf("k"), orders)
      yield* store.store(
        keyOf("k"),
        { value: "text", dependencies: orders, timeToLiveMillis: 60_000, bytes: 4 },
        lease
      )
      const answer = yield* reader.fetch(reading())
      assert.deepStrictEqual([answer.status, answer.reason, answer.stored], ["miss", "undecodable", 1])
      assert.deepStrictEqual([yield* read(), database.asked], [["hit", 1], 1])
    }))
})

describe("several values", () => {
  it.effect("each by its own way, in one round trip", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { claiming, database, reader, reading, read, told } = world
      yield* read({ key: "hit", policy: revalidates })
      yield* TestClock.adjust("30 seconds")
      yield* read({ key: "stale", policy: { ...revalidates, timeToLive: "20 seconds" } })
      yield* TestClock.adjust("29 seconds")
      database.behave = Effect.sleep(10)
      const joined = yield* started(read({ key: "joined" }))
      const got: Array<readonly [number, Read]> = []
      const readings = ["hit", "stale", "joined", "miss"].map((key) =>
        reading({ key, policy: key === "stale" ? { ...revalidates, timeToLive: "20 seconds" } : revalidates })
      )
      const [exit] = yield* timed(
        reader.fetchMany(readings, (index, exit) => got.push([index, told(Effect.runSync(exit))]))
      )
      assert.isTrue(Exit.isSuccess(exit))
      yield* Fiber.join(joined)
      const [hit, stale, joinedOne, miss] = got.sort(([a], [b]) => a - b).map(([_, read]) => read)
      assert.deepStrictEqual([hit, stale, joinedOne], [["hit", 1], ["stale", 2], ["joined", 3]])
      assert.strictEqual(miss![0], "miss")
      // The stale one was read anew.
      assert.strictEqual(database.asked, 5)
      yield* calm(world)
      assert.strictEqual(claiming.owed(), 0)
    }))

  it.effect("a pause that begins while they are looked up is for those who come later", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { claiming, database, faults, reader, reading, told } = world
      const habits = new Habits()
      const readings = ["a", "b"].map((key) => reading({ key, habits, policy: { ...minute, adaptive: true } }))
      // Two hundred misses within a minute and more.
      for (let i = 0; i < 199; i++) habits.missed("absent", true, 0)
      yield* TestClock.adjust("61 seconds")
      faults.lookup = (proceed) =>
        Effect.tap(proceed, () => Effect.sync(() => void habits.missed("absent", true, 61_000)))
      const got: Array<Read> = []
      yield* reader.fetchMany(readings, (_, exit) => got.push(told(Effect.runSync(exit))))
      assert.isTrue(habits.isPaused(61_000))
      // The store has told them to read, so it has what they have read.
      assert.deepStrictEqual(got.sort(), [["miss", 1], ["miss", 2]])
      yield* Effect.repeat(Effect.yieldNow, { times: 20 })
      assert.strictEqual(claiming.owed(), 0)
      for (const [i, key] of ["a", "b"].entries()) {
        const outcome = yield* claiming.store.lookup(keyOf(key), orders)
        assert(outcome._tag === "Hit" && outcome.value === i + 1)
      }
      faults.lookup = () => assert.fail("asked while it rests")
      yield* reader.fetchMany(
        [reading({ key: "c", habits, policy: { ...minute, adaptive: true } })],
        (_, exit) => got.push(told(Effect.runSync(exit)))
      )
      assert.deepStrictEqual([got[2], database.asked], [["miss", 3], 3])
      yield* calm(world)
    }))
})

describe("a session that has seen more than the store", () => {
  /** All that the store says is from before, but for what is said to be of a later epoch. */
  const ahead = (): Point => {
    const point = new Session(Places.empty, { isMonotonic: false, bypassMillis: 1 }).pointOf("test")
    point.raise([{ epoch: "5-epoch", clock: 7 }])
    return point
  }
  const lookups = (epochs: ReadonlyArray<string>) => {
    let asked = 0
    return <A>(proceed: Effect.Effect<A, CacheError>): Effect.Effect<A, CacheError> =>
      Effect.map(proceed, (outcome: any) => {
        const epoch = epochs[Math.min(asked++, epochs.length - 1)]!
        return epoch === "" ? outcome : { ...outcome, lease: { ...outcome.lease, epoch } }
      })
  }
  const swr = { timeToLive: "1 minute", staleWhileRevalidate: "1 minute" } as const

  it.effect("is answered by the database, and what the store has stays", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { database, read } = world
      yield* read()
      assert.deepStrictEqual(yield* read({ point: ahead() }), ["miss", 2] as const)
      assert.deepStrictEqual(yield* read(), ["hit", 1] as const)
      assert.strictEqual(database.asked, 2)
      yield* calm(world)
    }))

  it.effect("in a batch, too", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { read, reader, reading, told } = world
      yield* read()
      const got: Array<Read> = []
      const point = ahead()
      yield* reader.fetchMany(
        [reading({ point }), reading({ key: "other", point })],
        (_, exit) => void got.push(told(Effect.runSync(exit)))
      )
      assert.deepStrictEqual(got.map(([status]) => status), ["miss", "miss"])
      assert.notInclude(got.map(([, value]) => value), 1)
      yield* calm(world)
    }))

  it.effect("waits for nobody who may have begun before", () =>
    Effect.gen(function*() {
      const world = yield* shared(2)
      const { database, processes: [one, two] } = world
      database.behave = Effect.sleep(100)
      const before = yield* started(one!.read())
      database.behave = Effect.void
      assert.deepStrictEqual(yield* timed(two!.read({ point: ahead() })), [Exit.succeed(["miss", 2] as const), 0])
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(yield* Fiber.join(before), ["miss", 1] as const)
      yield* calm(world)
    }))

  it.effect("is served nothing stale: not now, not late, and not in place of a failure", () =>
    Effect.gen(function*() {
      const world = yield* shared(1)
      const { database, read } = world
      const policy = { ...swr, staleIfError: "1 minute", softTimeout: 10 } as const
      yield* read({ policy })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.andThen(Effect.sleep(50), Effect.fail("away"))
      assert.deepStrictEqual(yield* timed(read({ policy, point: ahead() })), [Exit.fail("away"), 50])
      database.behave = Effect.sleep(50)
      assert.deepStrictEqual(yield* timed(read({ policy, point: ahead() })), [Exit.succeed(["miss", 3] as const), 50])
      yield* calm(world)
    }))

  it.effect("does not take from a flight that it has joined what is older than the flight was", () =>
    Effect.gen(function*() {
      const world = yield* shared(2)
      const { database, faults, processes: [one, two] } = world
      // What the other process reads is waited for, by a flight that is new enough; then the store has gone back.
      database.behave = Effect.sleep(20)
      const other = yield* started(two!.read())
      faults.lookup = lookups(["6-epoch", "6-epoch", "6-epoch", ""])
      const waits = yield* started(one!.read())
      const joins = yield* started(one!.read({ point: ahead() }))
      yield* TestClock.adjust(200)
      database.behave = Effect.void
      assert.deepStrictEqual(yield* Fiber.join(other), ["miss", 1] as const)
      assert.deepStrictEqual(yield* Fiber.join(waits), ["hit", 1] as const)
      yield* TestClock.adjust(200)
      assert.deepStrictEqual(yield* Fiber.join(joins), ["miss", 2] as const)
      yield* calm(world)
    }))

  it.effect("nor what is stale there", () =>
    Effect.gen(function*() {
      const world = yield* shared(2)
      const { database, faults, processes: [one, two] } = world
      const policy = { ...minute, staleIfError: "1 minute", softTimeout: 30 } as const
      yield* one!.read({ policy })
      yield* TestClock.adjust("61 seconds")
      database.behave = Effect.sleep(200)
      const refreshing = yield* started(two!.read({ policy: minute }))
      faults.lookup = lookups(["6-epoch", "6-epoch", ""])
      const waits = yield* started(one!.read({ policy }))
      const joins = yield* started(one!.read({ policy, point: ahead() }))
      yield* Effect.repeat(TestClock.adjust(1), { times: 100 })
      assert.isDefined(waits.pollUnsafe())
      assert.isUndefined(joins.pollUnsafe())
      yield* TestClock.adjust(400)
      yield* Fiber.join(refreshing)
      const [, value] = yield* Fiber.join(joins)
      assert.isAbove(value, 1)
      yield* calm(world)
    }))
})

describe("any schedule", () => {
  const policies: ReadonlyArray<CachePolicy.CachePolicy> = [
    { timeToLive: 20 },
    { timeToLive: 100, staleWhileRevalidate: 50, refreshAhead: true },
    { timeToLive: 20, staleIfError: "1 minute", softTimeout: 5, hardTimeout: 30 },
    { timeToLive: 10, staleWhileRevalidate: "1 minute", staleIfError: 30, jitter: 0.5 },
    { timeToLive: 30, hardTimeout: 15, tags: ["tagged"] }
  ]
  const step = FastCheck.oneof(
    {
      weight: 10,
      arbitrary: FastCheck.record({
        _tag: FastCheck.constant("Read" as const),
        policy: FastCheck.nat(policies.length - 1),
        patience: FastCheck.option(FastCheck.nat(20), { nil: undefined, freq: 3 })
      })
    },
    { weight: 2, arbitrary: FastCheck.record({ _tag: FastCheck.constant("Write" as const) }) },
    {
      weight: 3,
      arbitrary: FastCheck.record({ _tag: FastCheck.constant("Wait" as const), millis: FastCheck.nat(60) })
    },
    {
      weight: 2,
      arbitrary: FastCheck.record({
        _tag: FastCheck.constant("Behave" as const),
        fails: FastCheck.boolean(),
        millis: FastCheck.nat(40)
      })
    }
  )
  const programs = FastCheck.record({
    actors: FastCheck.array(FastCheck.array(step, { minLength: 5, maxLength: 25, size: "max" }), {
      minLength: 2,
      maxLength: 6,
      size: "max"
    }),
    latency: FastCheck.nat(8)
  })

  type Program = typeof programs extends FastCheck.Arbitrary<infer A> ? A : never

  for (const processes of [0, 2]) {
    it.effect(
      `${processes === 0 ? "in one process" : "in two"}: nothing old, an end for everybody, nothing left`,
      () =>
        Effect.gen(function*() {
          const seen: Record<string, number> = {}
          const play = Effect.fnUntraced(function*({ actors, latency }: Program) {
            const world = processes === 0
              ? yield* one({ maxRefreshes: 2 })
              : yield* shared(processes, { maxRefreshes: 2 })
            const all = "processes" in world ? world.processes : [world]
            if ("claiming" in world) world.claiming.ways.latency = latency === 0 ? Effect.void : Effect.sleep(latency)
            let version = 1
            const { database } = world
            database.answer = () => version
            const acknowledged = all.map(() => 0)
            const fibers = yield* Effect.forEach(actors, (steps, i) => {
              const at = i % all.length
              const { invalidate, read } = all[at]!
              return Effect.forkChild(Effect.forEach(steps, (step) => {
                switch (step._tag) {
                  case "Wait":
                    return Effect.sleep(step.millis)
                  case "Behave":
                    return Effect.sync(() => {
                      const ends = step.fails ? Effect.fail("away") : Effect.void
                      database.behave = step.millis === 0 ? ends : Effect.andThen(Effect.sleep(step.millis), ends)
                    })
                  case "Write":
                    return Effect.suspend(() => {
                      const written = ++version
                      return Effect.map(invalidate, () => {
                        acknowledged[at] = Math.max(acknowledged[at]!, written)
                      })
                    })
                  default:
                    return Effect.suspend(() => {
                      const floor = acknowledged[at]!
                      const policy = policies[step.policy]!
                      const reading = read({ policy, dependencies: policy.tags === undefined ? orders : tagged })
                      return Effect.flatMap(
                        Effect.exit(step.patience === undefined ? reading : Effect.timeout(reading, step.patience)),
                        (exit) => {
                          const fate = Exit.isSuccess(exit) ? exit.value[0] : "failed"
                          seen[fate] = (seen[fate] ?? 0) + 1
                          if (Exit.isSuccess(exit)) {
                            assert.isAtLeast(exit.value[1], floor, `${fate}: older than what was acknowledged`)
                          } else assert.isTrue(Cause.hasFails(exit.cause), String(exit))
                          return Effect.void
                        }
                      )
                    })
                }
              }, { discard: true }))
            })
            for (let millis = 0; fibers.some((fiber) => fiber.pollUnsafe() === undefined); millis++) {
              assert.isBelow(millis, 60_000, "somebody waits without end")
              yield* Effect.repeat(Effect.yieldNow, { times: 8 })
              yield* TestClock.adjust(1)
            }
            yield* Fiber.joinAll(fibers)
            database.behave = Effect.void
            yield* calm(world)
          })
          const context = yield* Effect.context<never>()
          yield* Effect.promise(() =>
            FastCheck.assert(
              FastCheck.asyncProperty(
                programs,
                (program) => Effect.runPromiseWith(context)(Effect.scoped(play(program)))
              ),
              { numRuns: 60 }
            )
          )
          // All of it happened, and often.
          for (const fate of ["hit", "stale", "miss", "joined", "failed"]) assert.isAbove(seen[fate] ?? 0, 20, fate)
        }),
      60_000
    )
  }
})
