// What a value by key costs that this process has, against Effect's `Cache` and other caches with the same keys.
import { BentoCache, bentostore } from "bentocache"
import { memoryDriver } from "bentocache/drivers/memory"
import { Cacheable } from "cacheable"
import * as Cache from "effect/Cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { LRUCache } from "lru-cache"
import * as CachedQuery from "../../src/CachedQuery.ts"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as CacheStore from "../../src/CacheStore.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import { compare, keep, type Result, start, zipf } from "./harness.ts"
import * as Stub from "./stub.ts"

const size = 10_000
const many = 20
const capacity = 4 * size

interface Value {
  readonly id: number
  readonly name: string
}
const Value = Schema.Struct({ id: Schema.Number, name: Schema.String })
const valueOf = (id: number): Value => ({ id, name: `name ${id}` })

const order = zipf(size, 1 << 14)
const at = (i: number): number => order[i & (order.length - 1)]!
const texts = Array.from({ length: size }, (_, id) => `user-${id}`)
const idOf = (text: string) => Number(text.slice(5))
const pages = Array.from(
  { length: 64 },
  (_, page) => Array.from({ length: many }, (_, i) => texts[at(page * many + i)]!)
)

/** Runs one effect after another in one fiber. */
const repeat = (body: (i: number) => Effect.Effect<unknown>) => (times: number): Promise<void> =>
  Effect.runPromise(Effect.gen(function*() {
    for (let i = 0; i < times; i++) yield* body(i)
  }))

const awaiting = (body: (i: number) => Promise<unknown>) => async (times: number): Promise<void> => {
  for (let i = 0; i < times; i++) await body(i)
}

const gets = (get: (key: string) => unknown) => (times: number): void => {
  for (let i = 0; i < times; i++) keep(get(texts[at(i)]!))
}

const timeToLive = "1 hour"

const makeQueries = Effect.gen(function*() {
  const byText = yield* CachedQuery.make("text", {
    Key: Schema.String,
    Value,
    lookup: (key) => Effect.sync(() => valueOf(idOf(key))),
    timeToLive
  })
  const byStruct = yield* CachedQuery.make("struct", {
    Key: Schema.Struct({ team: Schema.String, id: Schema.Number }),
    Value,
    lookup: ({ id }) => Effect.sync(() => valueOf(id)),
    timeToLive
  })
  return { byText, byStruct }
})

/** Reads the values that were found, as whoever asks for them does. */
const idsOf = (values: ReadonlyArray<Value>): number => {
  let sum = 0
  for (let i = 0; i < values.length; i++) sum += values[i]!.id
  return sum
}

const structOf = (i: number) => ({ team: "a team", id: at(i) })

export const run = async (): Promise<ReadonlyArray<Result>> => {
  const scope = Effect.runSync(Scope.make())
  const context = await Effect.runPromise(Layer.buildWithScope(
    CachedSqlClient.layer({ catalogInterval: false }).pipe(
      Layer.provide([CacheStore.layerMemory({ capacity }), Stub.layer([])])
    ),
    scope
  ))
  const { byStruct, byText } = await Effect.runPromise(
    Effect.provideService(makeQueries, QueryCache.QueryCache, Context.get(context, QueryCache.QueryCache))
  )
  const effects = await Effect.runPromise(
    Cache.make({ capacity, timeToLive, lookup: (key: string) => Effect.sync(() => valueOf(idOf(key))) })
  )
  const effectsByStruct = await Effect.runPromise(
    Cache.make({
      capacity,
      timeToLive,
      lookup: ({ id }: { readonly team: string; readonly id: number }) => Effect.sync(() => valueOf(id))
    })
  )
  const bento = new BentoCache({
    default: "memory",
    stores: { memory: bentostore().useL1Layer(memoryDriver({ maxItems: capacity })) }
  })
  const cacheable = new Cacheable({ ttl: "1h" })
  const lru = new LRUCache<string, Value>({ max: capacity, ttl: 3_600_000 })
  const map = new Map<string, Value>()

  await Effect.runPromise(
    Effect.gen(function*() {
      for (let id = 0; id < size; id++) {
        yield* byText.get(texts[id]!)
        yield* byStruct.get({ team: "a team", id })
        yield* Cache.get(effects, texts[id]!)
        yield* Cache.get(effectsByStruct, { team: "a team", id })
      }
      // A program that reads each value once would be told that caching does not pay.
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  )
  for (const [id, text] of texts.entries()) {
    map.set(text, valueOf(id))
    lru.set(text, valueOf(id))
    await cacheable.set(text, valueOf(id))
    await bento.set({ key: text, value: valueOf(id), ttl: "1h" })
  }

  const here = "CachedQuery.get"
  const cpu = { clock: "cpu", samples: 15 } as const
  const one = await compare(`one of ${size.toLocaleString("en")} values by a string`, [
    { name: "Effect's Cache.get", run: repeat((i) => Cache.get(effects, texts[at(i)]!)) },
    { name: here, run: repeat((i) => byText.get(texts[at(i)]!)) },
    { name: "lru-cache get, no effect", run: gets((key) => lru.get(key)) },
    { name: "Map.get, no effect", run: gets((key) => map.get(key)) },
    { name: "cacheable get", run: awaiting((i) => cacheable.get(texts[at(i)]!)) },
    {
      name: "bentocache getOrSet",
      run: awaiting((i) => {
        const key = texts[at(i)]!
        return bento.getOrSet({ key, ttl: "1h", factory: () => valueOf(idOf(key)) })
      })
    }
  ], cpu)
  const struct = await compare("by a struct, made anew for each", [
    { name: "Effect's Cache.get", run: repeat((i) => Cache.get(effectsByStruct, structOf(i))) },
    { name: here, run: repeat((i) => byStruct.get(structOf(i))) }
  ], cpu)
  const several = await compare(`${many} values by strings`, [
    {
      name: "Map.get",
      run: (times) => {
        for (let i = 0; i < times; i++) {
          const page = pages[i & 63]!
          const found = new Array<Value>(many)
          for (let j = 0; j < many; j++) found[j] = map.get(page[j]!)!
          keep(idsOf(found))
        }
      }
    },
    {
      name: "CachedQuery.getMany",
      run: (times) =>
        Effect.runPromise(Effect.gen(function*() {
          for (let i = 0; i < times; i++) keep(idsOf(yield* byText.getMany(pages[i & 63]!)))
        }))
    },
    {
      name: "lru-cache get",
      run: (times) => {
        for (let i = 0; i < times; i++) keep(idsOf(pages[i & 63]!.map((key) => lru.get(key)!)))
      }
    },
    { name: "cacheable getMany", run: awaiting((i) => cacheable.getMany(pages[i & 63]!)) }
  ], cpu)

  await bento.disconnectAll()
  await cacheable.disconnect()
  await Effect.runPromise(Scope.close(scope, Exit.void))
  return [
    { name: "keyed get / Effect's Cache.get: a string", ratio: one.ratio(here, "Effect's Cache.get"), target: 0.5 },
    { name: "- a fresh struct", ratio: struct.ratio(here, "Effect's Cache.get"), target: 0.2 },
    {
      name: `getMany of ${many} / ${many} Map.gets`,
      ratio: several.ratio("CachedQuery.getMany", "Map.get"),
      target: 4
    },
    { name: "keyed get / lru-cache's get", ratio: one.ratio(here, "lru-cache get, no effect") },
    { name: "cacheable's get / keyed get", ratio: one.ratio("cacheable get", here) },
    { name: "bentocache's getOrSet / keyed get", ratio: one.ratio("bentocache getOrSet", here) },
    { name: "cacheable's getMany / getMany", ratio: several.ratio("cacheable getMany", "CachedQuery.getMany") }
  ]
}

await start(import.meta, run)
