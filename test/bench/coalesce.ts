// What it costs to look many answers up at once in Redis, against a command for each; and one alone, against its bare
// script.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Persistence from "effect/persistence/Redis"
import * as Scope from "effect/Scope"
import type { CacheKey, CacheStore } from "../../src/CacheStore.ts"
import * as Dependency from "../../src/Dependency.ts"
import * as Scripts from "../../src/internal/redis/scripts.ts"
import * as Store from "../../src/internal/redis/store.ts"
import * as Wire from "../../src/internal/redis/wire.ts"
import * as Redis from "../support/redis.ts"
import { compare, keep, type Result, start } from "./harness.ts"

const fibers = 256

const codec = { encode: String, decode: (text: string) => text }

const requests = Array.from({ length: fibers }, (_, i) => {
  const fingerprint = i.toString(16).padStart(64, "0")
  const key: CacheKey = { namespace: "shop", space: "users", local: i, fingerprint, codec }
  return { key, dependencies: Dependency.makeSet([Dependency.row("users", { id: i }), Dependency.table("settings")]) }
})

const settings = { layout: "flat", prefix: "eqc", maxDependencies: 200_000, flightMillis: 5_000, shards: 1 } as const

const lookup = (store: CacheStore["Service"], i: number) => {
  const { dependencies, key } = requests[i % fibers]!
  return Effect.map(store.lookup(key, dependencies), (outcome) => {
    if (outcome._tag !== "Hit") throw new Error(`expected a hit, and it was ${outcome._tag}`)
    return outcome
  })
}

const atOnce = (store: CacheStore["Service"]) => (times: number): Promise<void> =>
  Effect.runPromise(Effect.gen(function*() {
    for (let i = 0; i < times; i++) {
      yield* Effect.forEach(requests, (_, i) => lookup(store, i), { concurrency: "unbounded", discard: true })
    }
  }))

const alone = (body: (i: number) => Effect.Effect<unknown, unknown>) => (times: number): Promise<void> =>
  Effect.runPromise(Effect.gen(function*() {
    for (let i = 0; i < times; i++) keep(yield* body(i))
  }))

/** The script of a lookup as `Redis.eval` runs it, its arguments ready, its reply unread. */
const bare = (redis: Persistence.Redis["Service"]) => {
  const { argv, keys, lua } = Scripts.lookup.flat
  const script = Persistence.script((args: Scripts.LookupArguments) => [...keys(args), ...argv(args)], {
    numberOfKeys: (args) => keys(args).length,
    lua
  })
  const names = new Wire.Keys(settings.prefix, "shop", 0)
  const head = { nonce: "bench.0", seenEpoch: "", seenClock: 0, channel: "eqc:changes", namespace: names.namespace }
  return (i: number) => {
    const { dependencies, key: { fingerprint } } = requests[i % fibers]!
    const entry = { keys: [names.flight(fingerprint), names.entry(fingerprint)], field: "", set: 1 }
    return redis.eval(script)({
      ...settings,
      head,
      keys: names.metadata,
      sets: [Wire.set(dependencies)],
      entries: [{ ...entry, maxAgeMillis: "", token: "bench.0" }]
    })
  }
}

export const run = async (): Promise<ReadonlyArray<Result>> => {
  const scope = Effect.runSync(Scope.make())
  const results = await Effect.runPromise(
    Effect.gen(function*() {
      const server = yield* Redis.makeServer()
      const redis = Context.get(yield* Layer.build(Redis.client(server)), Persistence.Redis)
      const batched = Store.make(redis, { ...settings, maxRequests: 128, consistency: "bounded", fenceReplicas: 0 })
      const unbatched = Store.make(redis, { ...settings, maxRequests: 1, consistency: "bounded", fenceReplicas: 0 })
      const outcomes = yield* batched.lookupMany(requests)
      yield* batched.storeMany(requests.map(({ dependencies, key }, i) => ({
        key,
        entry: { value: "x".repeat(200), dependencies, timeToLiveMillis: 3_600_000, bytes: 200 },
        lease: outcomes[i]!.lease
      })))
      const sent = yield* server.monitor
      yield* Effect.forEach(requests.slice(0, 100), (_, i) => lookup(batched, i), { concurrency: "unbounded" })
      const commands = (yield* sent).length
      const together = yield* Effect.promise(() =>
        compare(`${fibers} lookups at once`, [
          { name: "a command for each", run: atOnce(unbatched), operations: fibers },
          { name: "coalesced", run: atOnce(batched), operations: fibers }
        ])
      )
      const single = yield* Effect.promise(() =>
        compare("one lookup after the other", [
          { name: "bare script", run: alone(bare(redis)) },
          { name: "lookup", run: alone((i) => lookup(batched, i)) }
        ])
      )
      return [
        {
          name: `Redis: ${fibers} lookups at once, coalesced / a command for each`,
          ratio: together.ratio("coalesced", "a command for each"),
          target: 0.6
        },
        { name: "- commands for 100 at once", ratio: commands, target: 1 },
        { name: "- one alone / its bare script by Redis.eval", ratio: single.ratio("lookup", "bare script") }
      ]
    }).pipe(Scope.provide(scope))
  )
  await Effect.runPromise(Scope.close(scope, Exit.void))
  return results
}

await start(import.meta, run)
