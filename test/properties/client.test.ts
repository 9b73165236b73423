/**
 * The whole client under commands in any order, every step of theirs in an order that fast-check's scheduler chooses:
 * what may be answered (world.ts), over each store. And the same commands one after the other over all stores at once:
 * the same answers.
 *
 * PROPERTIES_RUNS=10000 plays more of them. What fails tells its seed, its path and the path of its commands:
 * PROPERTIES_SEED, PROPERTIES_PATH and PROPERTIES_REPLAY play that one again.
 */
import { assert, describe, it } from "@effect/vitest"
import { CacheStore, Fingerprinter, QueryAnalyzer, RedisStore, TieredStore } from "effect-query-cache"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redis from "effect/persistence/Redis"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as FastCheck from "fast-check"
import { createHash } from "node:crypto"
import * as Coherence from "../../src/internal/redis/coherence.ts"
import * as Scripts from "../../src/internal/redis/scripts.ts"
import * as RedisServers from "../support/redis.ts"
import { type Action, action, Command, happen, taskOf } from "./commands.ts"
import * as World from "./world.ts"

const { PROPERTIES_PATH, PROPERTIES_REPLAY, PROPERTIES_RUNS, PROPERTIES_SEED } = process.env
const runs = (usual: number): number => PROPERTIES_RUNS === undefined ? usual : Number(PROPERTIES_RUNS)
const parameters = (usual: number) => ({
  numRuns: runs(usual),
  ...(PROPERTIES_SEED === undefined ? {} : { seed: Number(PROPERTIES_SEED) }),
  ...(PROPERTIES_PATH === undefined ? {} : { path: PROPERTIES_PATH })
})
const constraints = (maxCommands: number) => ({
  maxCommands,
  size: "max" as const,
  ...(PROPERTIES_REPLAY === undefined ? {} : { replayPath: PROPERTIES_REPLAY })
})
const patience = (usualRuns: number): number => 120_000 * Math.max(1, runs(usualRuns) / usualRuns)

// -----------------------------------------------------------------------------
// stores
// -----------------------------------------------------------------------------

const scripts = [
  Scripts.lookup.flat,
  Scripts.lookup.grouped,
  Scripts.store.flat,
  Scripts.store.grouped,
  Scripts.invalidate,
  Coherence.beat,
  Coherence.hold
]
const luaBySha = new Map(scripts.map(({ lua }) => [createHash("sha1").update(lua).digest("hex"), lua]))

// What a script sets to expire stays as long as the real clock says: longer than a run takes.
const epochMillis = Date.now() + 3_600_000

/** For stores that need none. */
const nowhere = Redis.Redis.of({ send: () => Effect.die("no Redis") } as any)

/** A Redis whose scripts are told the time of a clock, and whether commands to it are under way. */
const timed = (redis: Redis.Redis["Service"] = nowhere, clock: Clock.Clock) => {
  let busy = 0
  const send: typeof redis.send = (command, sha, ...args) =>
    Effect.suspend(() => {
      const lua = command === "EVALSHA" ? luaBySha.get(sha) : undefined
      const now = epochMillis + clock.currentTimeMillisUnsafe()
      const told = lua?.replace(
        "redis.call(\"TIME\")",
        `{ "${Math.floor(now / 1_000)}", "${now % 1_000 * 1_000}" }`
      )
      assert.notStrictEqual(told ?? "", lua)
      busy++
      return Effect.ensuring(
        told === undefined ? redis.send<any>(command, sha, ...args) : redis.send<any>("EVAL", told, ...args),
        Effect.sync(() => void busy--)
      )
    })
  return { layer: Layer.succeed(Redis.Redis, { ...redis, send }), isBusy: () => busy > 0 }
}

// Redis lets flights expire by the real clock.
const flightMillis = 250
const options = { flightTimeout: flightMillis } as const

const overRedis = {
  "Redis, flat": RedisStore.layer({ layout: "flat", ...options }),
  "Redis, grouped": RedisStore.layer({ layout: "grouped", ...options }),
  "memory over Redis, flat": TieredStore.layer({ layout: "flat", maxStaleness: "1 day", ...options }),
  "memory over Redis, grouped": TieredStore.layer({ layout: "grouped", coherence: "revalidate", ...options })
} as const

const built = (layer: Layer.Layer<CacheStore.CacheStore>) =>
  Effect.map(Layer.build(Layer.fresh(layer)), Context.get(CacheStore.CacheStore))

const analyzer = Layer.build(Layer.merge(QueryAnalyzer.layer(), Fingerprinter.layer))

let namespaces = 0

/** By a clock of its own, which begins at zero. */
const alone = <A, E>(effect: Effect.Effect<A, E, Scope.Scope | Reactivity.Reactivity>): Promise<A> =>
  Effect.runPromise(effect.pipe(
    Effect.scoped,
    Effect.provide([Reactivity.layer, TestClock.layer(), Logger.layer([])])
  ))

const cycle = <A>(list: ReadonlyArray<A>): () => A => {
  let next = 0
  return () => list[next++ % list.length]
}

const total = (counts: Record<string, number>, more: Record<string, number>) => {
  for (const [name, count] of Object.entries(more)) counts[name] = (counts[name] ?? 0) + count
}

// -----------------------------------------------------------------------------
// in any order
// -----------------------------------------------------------------------------

interface Setting {
  readonly redis?: Redis.Redis["Service"]
  readonly store: Layer.Layer<CacheStore.CacheStore, never, Redis.Redis>
  readonly isStaged: boolean
  readonly processes: number
  readonly disrupt?: () => Promise<unknown>
}

/** Commands in any order of their steps, and what they have met with. */
const inAnyOrder = Effect.fnUntraced(function*(usualRuns: number, maxCommands: number, setting: Setting) {
  const analysis = yield* analyzer
  const counts: Record<string, number> = {}
  const one = FastCheck.commands(
    [
      action({
        processes: setting.processes,
        isConcurrent: true,
        times: [1, 60, 300, 1_100, 12_000, 25_000, 25_000, 61_000],
        disrupts: setting.disrupt !== undefined
      }).map((action) =>
        new Command<World.World>(action, async (action, world) => {
          const task = taskOf(world, action)
          if (task !== undefined) world.begin(task, "process" in action ? action.process : 0)
          else await happen(world, action, setting.disrupt ?? (async () => {}))
          await world.settle()
        })
      )
    ],
    constraints(maxCommands)
  )
  const commits = FastCheck.array(
    FastCheck.constantFrom(undefined, undefined, undefined, undefined, "committed", "committed later", "aborted"),
    { minLength: 1, maxLength: 5 }
  )
  const straggles = FastCheck.array(FastCheck.boolean(), { minLength: 1, maxLength: 3 })
  yield* Effect.promise(() =>
    FastCheck.assert(
      FastCheck.asyncProperty(
        FastCheck.scheduler(),
        one,
        commits,
        straggles,
        (scheduler, commands, commits, straggles) =>
          alone(Effect.gen(function*() {
            const { isBusy, layer } = timed(setting.redis, yield* Clock.Clock)
            const store = built(setting.store.pipe(Layer.provide(layer)))
            const stores = yield* Effect.all(Array.from({ length: setting.processes }, () => store))
            const world = yield* World.make({
              stores,
              isStaged: setting.isStaged,
              namespace: `any order ${namespaces++}`,
              policies: World.differing,
              analyzer: analysis,
              step: (label) => Effect.promise(() => scheduler.schedule(Promise.resolve(), label)),
              letThrough: async () => {
                if (scheduler.count() === 0) return false
                await scheduler.waitNext(1)
                return true
              },
              isBusy,
              flightMillis: setting.redis === undefined ? 0 : flightMillis + 50,
              lostCommit: cycle(commits),
              straggles: cycle(straggles)
            })
            yield* Effect.promise(async () => {
              await FastCheck.asyncModelRun(() => ({ model: {}, real: world }), commands)
              await world.rest()
            })
            total(counts, world.counts)
          }))
      ),
      parameters(usualRuns)
    )
  )
  return counts
})

const met = (counts: Record<string, number>, atLeast: number, ...statuses: ReadonlyArray<string>) => {
  for (const status of statuses) assert.isAtLeast(counts[status] ?? 0, atLeast, status)
}

describe("commands in any order of their steps", () => {
  const memoryRuns = 70
  const redisRuns = 6

  for (const isStaged of [false, true]) {
    it.live(
      `in memory${isStaged ? ", behind calls that take steps, fail and hang" : ""}`,
      () =>
        Effect.gen(function*() {
          const store = CacheStore.layerMemory()
          const counts = yield* inAnyOrder(memoryRuns, isStaged ? 120 : 80, { store, isStaged, processes: 1 })
          met(counts, memoryRuns / 4, "hit", "stale", "miss", "joined", "bypass")
        }),
      patience(memoryRuns)
    )
  }

  for (const [name, layer] of Object.entries(overRedis)) {
    it.live(`${name}: two processes, and a Redis that forgets`, () =>
      Effect.gen(function*() {
        const server = yield* RedisServers.makeServer()
        const redis = Context.get(yield* Layer.build(RedisServers.client(server)), Redis.Redis)
        const forget = cycle([["FLUSHALL"], ["SCRIPT", "FLUSH"]])
        met(
          yield* inAnyOrder(redisRuns, 80, {
            store: layer,
            redis,
            isStaged: true,
            processes: 2,
            disrupt: () => Effect.runPromise(server.command(...forget()))
          }),
          redisRuns,
          "hit",
          "miss"
        )
      }), patience(redisRuns))
  }
})

// -----------------------------------------------------------------------------
// one after the other
// -----------------------------------------------------------------------------

describe("commands one after the other", () => {
  const usualRuns = 12

  it.live("have the same answers over every store", () =>
    Effect.gen(function*() {
      const server = yield* RedisServers.makeServer()
      const redis = Context.get(yield* Layer.build(RedisServers.client(server)), Redis.Redis)
      const analysis = yield* analyzer
      const counts: Record<string, number> = {}
      type Worlds = ReadonlyArray<readonly [name: string, world: World.World]>
      const answer = async (world: World.World, action: Action): Promise<string> => {
        const task = taskOf(world, action)
        const fiber = task === undefined ? undefined : world.begin(task, 0)
        if (action._tag === "Time") await world.passSlowly(action.millis)
        else if (fiber === undefined) await happen(world, action, async () => {})
        await world.finish()
        await world.letThrough(Infinity)
        const exit = fiber?.pollUnsafe()
        return exit === undefined ? "" : exit._tag === "Success" ? exit.value : "failed"
      }
      const commands = FastCheck.commands(
        [
          action({ processes: 1, isConcurrent: false, times: [11_700, 24_900, 24_900, 61_300], disrupts: false }).map(
            (action) =>
              new Command<Worlds>(action, async (action, worlds) => {
                const answers: Record<string, string> = {}
                for (const [name, world] of worlds) answers[name] = await answer(world, action)
                const same = Object.fromEntries(Object.keys(answers).map((name) => [name, answers.memory]))
                assert.deepStrictEqual(answers, same)
              })
          )
        ],
        constraints(60)
      )
      yield* Effect.promise(() =>
        FastCheck.assert(
          FastCheck.asyncProperty(commands, (commands) =>
            alone(Effect.gen(function*() {
              const layers = { memory: CacheStore.layerMemory(), ...overRedis }
              const worlds = yield* Effect.forEach(Object.entries(layers), ([name, layer]) =>
                Effect.gen(function*() {
                  const clock = yield* TestClock.make()
                  const { isBusy, layer: told } = timed(redis, clock)
                  const store = built(layer.pipe(Layer.provide(told)))
                  const world = yield* Effect.gen(function*() {
                    return yield* World.make({
                      stores: [yield* store],
                      isStaged: true,
                      namespace: `in turn ${namespaces++}`,
                      policies: World.policies,
                      analyzer: analysis,
                      step: () => Effect.yieldNow,
                      letThrough: async () => false,
                      isBusy,
                      flightMillis: 0,
                      lostCommit: () => undefined,
                      straggles: () => false
                    })
                  }).pipe(Effect.provideService(Clock.Clock, clock))
                  return [name, world] as const
                }))
              yield* Effect.promise(() => FastCheck.asyncModelRun(() => ({ model: {}, real: worlds }), commands))
              for (const [, world] of worlds) total(counts, world.counts)
            }))),
          parameters(usualRuns)
        )
      )
      met(counts, usualRuns, "hit", "stale", "miss", "bypass")
    }), patience(usualRuns))
})
