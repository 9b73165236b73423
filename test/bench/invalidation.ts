// What an invalidation costs with few and with many cached queries: in our stores, and in the other ways that caches in
// Redis invalidate.
import { upstashCache } from "drizzle-orm/cache/upstash"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { createClient } from "redis"
import * as CacheStore from "../../src/CacheStore.ts"
import * as Dependency from "../../src/Dependency.ts"
import * as RedisStore from "../../src/RedisStore.ts"
import * as UpstashRedis from "../../src/UpstashRedis.ts"
import * as Redis from "../support/redis.ts"
import * as Upstash from "../support/upstash.ts"
import { type Case, compare, type Comparison, duration, type Result, say, start } from "./harness.ts"

type Store = CacheStore.CacheStore["Service"]

const sizes = [10, 1_000, 100_000] as const
const few = sizes[0]
const many = sizes[2]

// About as much as three rows take.
const value = "x".repeat(200)
const codec: CacheStore.Codec = { encode: () => value, decode: (text) => text }

const chunksOf = <A>(items: ReadonlyArray<A>, size: number): ReadonlyArray<ReadonlyArray<A>> =>
  Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size))

/** What is cached: so many queries, each with the same dependencies or with its own. */
const fill = Effect.fnUntraced(function*(
  store: Store,
  namespace: string,
  size: number,
  dependenciesOf: (i: number) => Dependency.DependencySet
) {
  const requests = Array.from({ length: size }, (_, i): CacheStore.LookupRequest => ({
    key: { namespace, space: "orders", local: i, fingerprint: `${namespace}/${i}`, codec },
    dependencies: dependenciesOf(i)
  }))
  for (const chunk of chunksOf(requests, 1_000)) {
    const outcomes = yield* store.lookupMany(chunk)
    const verdicts = yield* store.storeMany(chunk.map(({ dependencies, key }, i) => ({
      key,
      entry: { value, dependencies, timeToLiveMillis: 3_600_000, bytes: 400 },
      lease: outcomes[i]!.lease!
    })))
    if (verdicts.includes("refused")) throw new Error("a fill was refused")
  }
  const [outcome] = yield* store.lookupMany(requests.slice(-1))
  if (outcome!._tag !== "Hit") throw new Error("nothing was cached")
})

const invalidations = (store: Store, namespace: string, targetsOf: (i: number) => Dependency.Targets) => {
  let count = 0
  return (times: number): Promise<void> =>
    Effect.runPromise(Effect.gen(function*() {
      for (let i = 0; i < times; i++) yield* store.invalidate({ namespace, ...targetsOf(count++) })
    }))
}

const orders = Dependency.writeTargets([Dependency.table("orders")])
const wholeTable = Dependency.makeSet([Dependency.table("orders")])

const redisStore = (server: Redis.Server, layout: "flat" | "grouped"): Effect.Effect<Store, never, Scope.Scope> =>
  Effect.map(
    Layer.build(RedisStore.layer({ layout }).pipe(Layer.provide(Redis.client(server)))),
    Context.get(CacheStore.CacheStore)
  )

/** Whoever deletes what is cached, fills again before every sample: all of it depends on one table. */
interface Rival {
  readonly name: string
  readonly fill: (size: number) => Promise<unknown>
  readonly invalidate: (size: number) => Promise<unknown>
}

const connect = (server: Redis.Server) =>
  Effect.acquireRelease(
    Effect.promise(() => createClient({ socket: { host: "127.0.0.1", port: server.port } }).on("error", say).connect()),
    (client) => Effect.promise(() => client.close())
  )

const rivals = Effect.fnUntraced(function*(server: Redis.Server) {
  const client = yield* connect(server)
  const command = (...args: ReadonlyArray<string | number>) => client.sendCommand(args.map(String))
  const tagged = (of: string) => async (size: number) => {
    await command("EVAL", fillTagged, 1, `${of}:${size}`, size, value)
  }
  return [
    {
      name: "keys by tag, two trips",
      fill: tagged("trips"),
      invalidate: async (size) => {
        const keys = await command("SUNION", `trips:${size}`) as unknown as ReadonlyArray<string>
        await command("DEL", `trips:${size}`, ...keys)
      }
    },
    {
      name: "keys by tag, one script",
      fill: tagged("script"),
      invalidate: (size) => command("EVAL", deleteTagged, 1, `script:${size}`)
    },
    {
      name: "a hash per table, one script",
      fill: (size) => command("EVAL", fillHash, 1, `hash:${size}`, size, value),
      invalidate: (size) => command("EVAL", deleteHash, 1, `hash:${size}`)
    }
  ] satisfies ReadonlyArray<Rival>
})

const fillTagged = `
for i = 1, tonumber(ARGV[1]) do
  local key = KEYS[1] .. ":" .. i
  redis.call("SET", key, ARGV[2])
  redis.call("SADD", KEYS[1], key)
end`

const deleteTagged = `
local keys = redis.call("SUNION", KEYS[1])
for i = 1, #keys, 4000 do redis.call("DEL", unpack(keys, i, math.min(i + 3999, #keys))) end
redis.call("DEL", KEYS[1])`

const fillHash = `
for i = 1, tonumber(ARGV[1]) do redis.call("HSET", KEYS[1] .. ":h", "query:" .. i, ARGV[2]) end
redis.call("SADD", KEYS[1], KEYS[1] .. ":h")`

const deleteHash = `
local hashes = redis.call("SUNION", KEYS[1])
hashes[#hashes + 1] = KEYS[1]
redis.call("DEL", unpack(hashes))`

/** The grouped layout drops the groups of a table at once: they are put back from copies. */
const groupKeeper = Effect.fnUntraced(function*(server: Redis.Server, namespace: string) {
  const client = yield* connect(server)
  const keys = (yield* Effect.promise(() =>
    client.sendCommand(["KEYS", `eqc:{${namespace}:0}:[gx]:*`])
  )) as unknown as ReadonlyArray<string>
  const copy = (from: (key: string) => string, to: (key: string) => string) =>
  async () => {
    await Promise.all(keys.map((key) => client.sendCommand(["COPY", from(key), to(key), "REPLACE"])))
  }
  const same = (key: string) => key
  const kept = (key: string) => `kept:${key}`
  yield* Effect.promise(copy(same, kept))
  return copy(kept, same)
})

/**
 * drizzle-orm's own cache over REST. It makes its structures itself; the other queries are added to them by a script,
 * since one request for each would take minutes.
 */
const drizzle = Effect.gen(function*() {
  const server = yield* Upstash.UpstashServer
  const client = yield* connect(server.redis)
  const cache = upstashCache({ url: server.url, token: Redacted.value(server.token), config: { ex: 3_600 } })
  return {
    name: "drizzle-orm's Upstash cache, over REST",
    fill: async (size) => {
      await cache.put("query:1", [{ value }], [`orders_${size}`])
      await client.sendCommand(["EVAL", fillDrizzle, "1", `__CT__orders_${size}`, `${size}`, value])
    },
    invalidate: (size) => cache.onMutate({ tables: [`orders_${size}`] })
  } satisfies Rival
})

const fillDrizzle = `
if redis.call("HLEN", KEYS[1]) ~= 1 then return redis.error_reply("drizzle-orm keeps it elsewhere now") end
for i = 2, tonumber(ARGV[1]) do
  redis.call("HSET", KEYS[1], "query:" .. i, ARGV[2])
  redis.call("HEXPIRE", KEYS[1], 3600, "FIELDS", 1, "query:" .. i)
end`

const expiresFields = (server: Redis.Server) =>
  Effect.map(server.command("COMMAND", "INFO", "HEXPIRE"), ([known]: ReadonlyArray<unknown>) => known !== null)

/** Microseconds that Redis itself spends on one of these. */
const serverMicros = Effect.fnUntraced(function*(server: Redis.Server, work: Effect.Effect<unknown>) {
  yield* server.command("CONFIG", "RESETSTAT")
  yield* work
  const stats: string = yield* server.command("INFO", "commandstats")
  return Number(/cmdstat_evalsha:.*usec_per_call=([\d.]+)/.exec(stats)![1])
})

const noted = (comparison: Comparison, name: string, target?: number): Result => ({
  name: `invalidation with 100,000 / 10 cached queries: ${name}`,
  ratio: comparison.ratio(`${name}, ${many}`, `${name}, ${few}`),
  target,
  note: sizes.map((size) => duration(comparison.nanos(`${name}, ${size}`))).join(", ")
})

const ours = Effect.gen(function*() {
  const server = yield* Redis.makeServer()
  const [flat, grouped] = yield* Effect.all([redisStore(server, "flat"), redisStore(server, "grouped")])
  const inTables = Dependency.writeTargets(["orders", "items", "users"].map(Dependency.table))
  const tables: Array<Case> = []
  const rows: Array<Case> = []
  const groups: Array<Case> = []
  const three: Array<Case> = []
  for (const size of sizes) {
    yield* fill(flat, `table${size}`, size, () => wholeTable)
    tables.push({ name: `flat, ${size}`, run: invalidations(flat, `table${size}`, () => orders) })
    three.push({ name: `flat, three tables, ${size}`, run: invalidations(flat, `table${size}`, () => inTables) })

    // Each query depends on rows of its own, so as many stamps are registered as there are queries.
    yield* fill(flat, `row${size}`, size, (i) => Dependency.makeSet([Dependency.row("orders", { user_id: i })]))
    rows.push({
      name: `flat, by row, ${size}`,
      run: invalidations(flat, `row${size}`, (i) => ({
        stamps: [],
        images: [{ table: "orders", columns: new Map([["user_id", String(i % size)]]) }],
        all: false
      }))
    })

    yield* fill(grouped, `group${size}`, size, () => wholeTable)
    const putBack = yield* groupKeeper(server, `group${size}`)
    groups.push({
      name: `grouped, ${size}`,
      times: 1,
      before: async () => {
        await putBack()
        // Putting back 100,000 entries leaves neither process as a program would find it.
        await invalidations(grouped, "elsewhere", () => orders)(20)
      },
      run: invalidations(grouped, `group${size}`, () => orders)
    })
  }
  const compared = yield* Effect.promise(async () => ({
    tables: await compare("an invalidation of one table, flat", tables, { samples: 61 }),
    three: await compare("an invalidation of three tables, flat", three, { samples: 61 }),
    rows: await compare("an invalidation of a row, flat", rows, { samples: 61 }),
    groups: await compare("an invalidation of one table, grouped", groups, { samples: 31 })
  }))
  const results = [
    noted(compared.tables, "flat", 1.2),
    noted(compared.three, "flat, three tables", 1.2),
    noted(compared.rows, "flat, by row", 1.2),
    noted(compared.groups, "grouped", 1.3)
  ]

  // Taking turns here too: each size several times, and the least of its means.
  const micros = new Map<number, number>()
  for (let round = 0; round < 5; round++) {
    for (const size of [few, many]) {
      const work = Effect.promise(() => Promise.resolve(invalidations(flat, `table${size}`, () => orders)(1_000)))
      micros.set(size, Math.min(micros.get(size) ?? Infinity, yield* serverMicros(server, work)))
    }
  }
  results.push({
    name: "- the script alone, as Redis measures it",
    ratio: micros.get(many)! / micros.get(few)!,
    target: 1.2,
    note: `${micros.get(few)} µs, ${micros.get(many)} µs`
  })
  return results
}).pipe(Effect.scoped)

/** One ladder: each rival, and our store, with each number of cached queries. Single shots, since each is filled again. */
const climb = Effect.fnUntraced(function*(rivals: ReadonlyArray<Rival>, store: Store, name: string) {
  const cases: Array<Case> = []
  for (const size of sizes) {
    for (const rival of rivals) {
      cases.push({
        name: `${rival.name}, ${size}`,
        times: 1,
        before: async () => {
          await rival.fill(size)
        },
        run: async () => {
          await rival.invalidate(size)
        }
      })
    }
    yield* fill(store, `ladder${size}`, size, () => wholeTable)
    cases.push({ name: `${name}, ${size}`, times: 1, run: invalidations(store, `ladder${size}`, () => orders) })
  }
  const comparison = yield* Effect.promise(() => compare("the ways to invalidate", cases, { samples: 11 }))
  return [...rivals.map((rival) => noted(comparison, rival.name)), noted(comparison, name)]
})

const ladder = Effect.gen(function*() {
  const server = yield* Redis.makeServer()
  return yield* climb(yield* rivals(server), yield* redisStore(server, "flat"), "clocks (this library)")
}).pipe(Effect.scoped)

const besideDrizzle = Effect.gen(function*() {
  const server = yield* Upstash.UpstashServer
  if (!(yield* expiresFields(server.redis))) {
    const version = /redis_version:(\S+)/.exec(yield* server.redis.command("INFO", "server"))![1]
    return [{
      name: "invalidation by drizzle-orm's Upstash cache",
      ratio: undefined,
      note: `needs HEXPIRE, which Redis ${version} does not have`
    }]
  }
  const store = yield* Effect.map(
    Layer.build(
      RedisStore.layer().pipe(
        Layer.provide(UpstashRedis.layer({ url: server.url, token: server.token }))
      )
    ),
    Context.get(CacheStore.CacheStore)
  )
  return yield* climb([yield* drizzle], store, "clocks (this library), over REST")
}).pipe(Effect.scoped, Effect.provide(Upstash.layer))

const memory = Effect.gen(function*() {
  const cases: Array<Case> = []
  for (const size of sizes) {
    const store = yield* Effect.map(
      Layer.build(Layer.fresh(CacheStore.layerMemory({ capacity: many, maxBytes: Number.MAX_SAFE_INTEGER }))),
      Context.get(CacheStore.CacheStore)
    )
    yield* fill(store, "memory", size, () => wholeTable)
    cases.push({ name: `memory, ${size}`, run: invalidations(store, "memory", () => orders) })
  }
  return [
    noted(
      yield* Effect.promise(() => compare("an invalidation in memory", cases, { clock: "cpu" })),
      "memory",
      1.3
    )
  ]
}).pipe(Effect.scoped)

export const run = (): Promise<ReadonlyArray<Result>> =>
  Effect.runPromise(Effect.map(Effect.all([memory, ours, ladder, besideDrizzle]), (results) => results.flat()))

await start(import.meta, run)
