// What a second level costs: a hit in the process against one of the memory store, a write against one through Redis
// alone, and the commands that each operation sends.
import { PgClient } from "@effect/sql-pg"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Persistence from "effect/persistence/Redis"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as CacheStore from "../../src/CacheStore.ts"
import * as Dependency from "../../src/Dependency.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import * as RedisStore from "../../src/RedisStore.ts"
import * as SessionToken from "../../src/SessionToken.ts"
import * as TieredStore from "../../src/TieredStore.ts"
import * as Redis from "../support/redis.ts"
import { compare, keep, type Result, start, zipf } from "./harness.ts"
import * as Stub from "./stub.ts"

type Store = CacheStore.CacheStore["Service"]

const size = 10_000

// Longer than any bench: what beats cost is told apart.
const maxStaleness = "10 minutes"

const codec = { encode: String, decode: Number }

const dependencies = Array.from({ length: 8 }, (_, i) => Dependency.makeSet([Dependency.table(`table_${i}`)]))

const keys = Array.from({ length: size }, (_, i): CacheStore.CacheKey => ({
  namespace: "shop",
  space: "users",
  local: `user${i}@example.com`,
  fingerprint: String(i),
  codec
}))

const storeOf = <E, R>(layer: Layer.Layer<CacheStore.CacheStore, E, R>) =>
  Effect.map(Layer.build(layer), Context.get(CacheStore.CacheStore))

const fill = Effect.fnUntraced(function*(store: Store) {
  // What is filled before the first beat has returned is not held.
  for (let held = false; !held; held = keys.every((key) => store.peek(key, Date.now()) !== undefined)) {
    for (let from = 0; from < size; from += 1_000) {
      const requests = keys.slice(from, from + 1_000).map((key, i) => ({
        key,
        dependencies: dependencies[i % dependencies.length]!
      }))
      const outcomes = yield* store.lookupMany(requests)
      yield* store.storeMany(requests.map(({ dependencies, key }, i) => ({
        key,
        entry: { value: from + i, dependencies, timeToLiveMillis: 3_600_000, bytes: 100 },
        lease: outcomes[i]!.lease
      })))
    }
  }
})

const order = zipf(size, 1 << 17)

const peeks = (store: Store) => {
  let at = 0
  return (times: number): void => {
    let sum = 0
    for (let i = 0; i < times; i++) {
      sum += store.peek(keys[order[at = (at + 1) & (order.length - 1)]!]!, Date.now())!.value as number
    }
    keep(sum)
  }
}

const invalidations = (store: Store) => (times: number): Promise<void> =>
  Effect.runPromise(Effect.gen(function*() {
    for (let i = 0; i < times; i++) {
      yield* store.invalidate({ namespace: "writes", ...Dependency.writeTargets([Dependency.table(`table_${i % 8}`)]) })
    }
  }))

const clientOver = (store: Store) =>
  Effect.map(
    Layer.build(
      CachedSqlClient.layer({
        catalogInterval: false,
        namespace: "bench",
        lookupTimeout: "5 seconds",
        invalidationTimeout: "5 seconds"
      }).pipe(
        Layer.provide([Layer.succeed(CacheStore.CacheStore, store), Stub.layer([{ id: 1, name: "Ada" }])])
      )
    ),
    Context.get(PgClient.PgClient)
  )

const cached = QueryCache.cached({ timeToLive: "1 hour" })
const user = (sql: PgClient.PgClient, id: number) => cached(sql`SELECT * FROM users WHERE id = ${id}`)

const hits =
  (sql: PgClient.PgClient, around: (effect: Effect.Effect<void, any>) => Effect.Effect<void, any> = identity) =>
  (times: number): Promise<void> =>
    Effect.runPromise(around(Effect.gen(function*() {
      for (let i = 0; i < times; i++) yield* user(sql, i % 100)
    })))

const levelOf = (effect: Effect.Effect<unknown, unknown>) =>
  Effect.map(QueryCache.withInfo(effect), ([[query]]) => query?.level ?? query?.status)

const untilHeld = Effect.fnUntraced(function*(sql: PgClient.PgClient, id: number) {
  while ((yield* levelOf(user(sql, id))) !== "L1") yield* Effect.sleep(1)
})

export const run = (): Promise<ReadonlyArray<Result>> =>
  Effect.gen(function*() {
    const server = yield* Redis.makeServer()
    const redis = Effect.map(Layer.build(Redis.client(server)), Context.get(Persistence.Redis))
    const tieredOn = (redis: Persistence.Redis["Service"]) =>
      storeOf(TieredStore.layer({ maxStaleness }).pipe(Layer.provide(Layer.succeed(Persistence.Redis, redis))))
    const client = yield* redis
    const memory = yield* storeOf(CacheStore.layerMemory({ capacity: size }))
    const tiered = yield* tieredOn(client)
    const plain = yield* storeOf(RedisStore.layer().pipe(Layer.provide(Layer.succeed(Persistence.Redis, client))))
    yield* fill(memory)
    yield* fill(tiered)
    const found = yield* Effect.promise(() =>
      compare(`finding one of ${size.toLocaleString("en")} entries`, [
        { name: "memory", run: peeks(memory) },
        { name: "tiered", run: peeks(tiered) }
      ], { clock: "cpu" })
    )
    const [overMemory, here, there] = [
      yield* clientOver(memory),
      yield* clientOver(tiered),
      yield* clientOver(yield* tieredOn(yield* redis))
    ]
    for (let id = 0; id < 100; id++) {
      yield* untilHeld(overMemory, id)
      yield* untilHeld(here, id)
    }
    const [, token] = yield* SessionToken.run(here`UPDATE orders SET total = ${1}`)
    const session = yield* SessionToken.make({ token })
    while ((yield* SessionToken.provide(levelOf(user(here, 1)), session)) !== "L1") yield* Effect.sleep(1)
    const hit = yield* Effect.promise(() =>
      compare("a cached statement", [
        { name: "memory", run: hits(overMemory) },
        { name: "tiered", run: hits(here) },
        { name: "in a session", run: hits(here, SessionToken.provide(session)) }
      ], { clock: "cpu" })
    )
    const write = yield* Effect.promise(() =>
      compare("an invalidation", [
        { name: "Redis", run: invalidations(plain) },
        { name: "tiered", run: invalidations(tiered) }
      ])
    )
    const results: Array<Result> = [
      { name: "tiered: L1 hit / hit of the memory store", ratio: hit.ratio("tiered", "memory"), target: 1.1 },
      {
        name: "tiered: L1 hit in a session that has written / without one",
        ratio: hit.ratio("in a session", "tiered"),
        target: 1.25
      },
      { name: "- the look alone, with the time", ratio: found.ratio("tiered", "memory") },
      { name: "tiered: invalidation / through Redis alone", ratio: write.ratio("tiered", "Redis") }
    ]
    const rename = here`UPDATE users SET name = ${"Grace"} WHERE id = ${1}`
    yield* untilHeld(there, 0)
    yield* rename
    yield* untilHeld(here, 1)
    for (
      const [name, effect, target] of [
        ["L1 hit", user(here, 1), 0],
        ["hit on what another program stored", user(there, 1), 1],
        ["write", rename, 1]
      ] as const
    ) {
      const sent = yield* server.monitor
      yield* effect
      results.push({ name: `commands to Redis, tiered: ${name}`, ratio: (yield* sent).length, target })
    }
    return results
  }).pipe(Effect.scoped, Effect.runPromise)

await start(import.meta, run)
