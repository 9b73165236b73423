/**
 * Does anything grow? Queries without end, hardly two of them alike, and all that a program does besides: writes,
 * transactions, tags, tenants, keys, listeners, readers that leave. Whatever is kept of them has to have a limit.
 *
 * What is bounded by a count grows to its limit and falls back when that is reached, so two looks compare only where
 * they are taken at one point of that cycle. The longest is that of the texts that are known by their segments
 * (`maxNodes` in internal/statement.ts); those known by their compiled text and by the parser take a part of it. So it is
 * looked after every {@link cycle} new texts, and before each look everything rests until Redis has let go of what has
 * expired.
 */
import { PgClient } from "@effect/sql-pg"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Persistence from "effect/persistence/Redis"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as V8 from "node:v8"
import { runInNewContext } from "node:vm"
import * as CachedQuery from "../../src/CachedQuery.ts"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as CacheScope from "../../src/CacheScope.ts"
import * as Dependency from "../../src/Dependency.ts"
import type { Flights } from "../../src/internal/flights.ts"
import { Form, QueryKey } from "../../src/internal/forms.ts"
import { FormNode } from "../../src/internal/formTrie.ts"
import * as Invalidator from "../../src/Invalidator.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import * as TieredStore from "../../src/TieredStore.ts"
import { seeded } from "../bench/harness.ts"
import * as Redis from "../support/redis.ts"

/** After so many new texts all that is kept of texts is where it was. */
export const cycle = 20_000

export interface SoakOptions {
  /** How many queries, all different but for one in twelve. */
  readonly queries: number
  /** Every how many queries there is a text that was never seen. */
  readonly textEvery: number
  /** After how many queries there is a look. The first one is after half as many: what is new is not looked at. */
  readonly lookEvery: number
  /** How many entries the process holds at most. */
  readonly capacity: number
  readonly maxDependencies: number
  readonly timeToLiveMillis: number
  readonly client: Layer.Layer<PgClient.PgClient>
  readonly onLook?: (look: Look) => void
  /** Called for each query, to be found out. */
  readonly leak?: (query: number) => void
}

/** What there is at rest. */
export interface Look {
  readonly queries: number
  readonly millis: number
  readonly heapBytes: number
  readonly residentBytes: number
  readonly redisBytes: number
  /** Of the highest load before the rest. */
  readonly redisPeakKeys: number
  readonly redisKeys: number
  readonly redisStamps: number
  /** How many there are of what is kept, by name. */
  readonly counts: Readonly<Record<string, number>>
}

/** How many there may be of each at rest. */
export const limits: Readonly<Record<string, number>> = {
  flights: 0,
  fibers: 0,
  unserved: 0,
  listeners: 0,
  told: 1_024,
  names: 10_000
}

const gc = (() => {
  V8.setFlagsFromString("--expose-gc")
  return runInNewContext("gc") as () => void
})()

/** How many there are in memory of what has no other list. It takes a second or two. */
export const countInstances = (): Readonly<Record<string, number>> => ({
  forms: V8.queryObjects(Form) as number,
  formNodes: V8.queryObjects(FormNode) as number,
  keys: V8.queryObjects(QueryKey) as number
})

/** What there may be of them. */
export const instanceLimits = (capacity: number): Readonly<Record<string, number>> => ({
  // Known by segments, by compiled text, and by what is held of their answers.
  forms: cycle + 10_000 + capacity + 100,
  formNodes: cycle + 100,
  keys: capacity + 100
})

/** What there is more of than there may be. */
export const beyond = (
  counts: Readonly<Record<string, number>>,
  limits: Readonly<Record<string, number>>
): ReadonlyArray<string> =>
  Object.entries(limits).flatMap(([name, limit]) =>
    counts[name]! <= limit ? [] : [`${counts[name]} ${name}, and there may be ${limit}`]
  )

const look = Effect.fnUntraced(function*(
  server: Redis.Server,
  { changes, delivery, reader }: QueryCache.QueryCache["Service"]["engine"],
  queries: number,
  millis: number
) {
  const info = yield* server.command("INFO", "memory")
  const keysOf = server.command("DBSIZE")
  const redisPeakKeys: number = yield* keysOf
  const namespace = "eqc:{soak:0}"
  // Its own keys have no end; all others do.
  let redisKeys = redisPeakKeys
  for (let pauses = 0; redisKeys > 2 && pauses < 200; pauses++) {
    yield* Effect.sleep("100 millis")
    redisKeys = yield* keysOf
  }
  const memory: string = redisKeys > 2 ? info : yield* server.command("INFO", "memory")
  const { listeners, names, told } = changes as unknown as Record<"listeners" | "names" | "told", ReadonlySet<unknown>>
  const { groups } = delivery.unserved as unknown as { readonly groups: ReadonlySet<unknown> }
  const { flights } = (reader as unknown as { readonly options: { readonly flights: Flights } }).options
  const { fibers } = flights as unknown as { readonly fibers: ReadonlySet<unknown> }
  const counts = {
    flights: flights.size + flights.refreshCount,
    fibers: fibers.size,
    unserved: groups.size,
    listeners: listeners.size,
    told: told.size,
    names: names.size
  }
  gc()
  gc()
  const { heapUsed, rss } = process.memoryUsage()
  const seen: Look = {
    queries,
    millis,
    heapBytes: heapUsed,
    residentBytes: rss,
    redisBytes: Number(/used_memory:(\d+)/.exec(memory)![1]),
    redisPeakKeys,
    redisKeys,
    redisStamps: yield* server.command("ZCARD", `${namespace}:stamps`),
    counts
  }
  return seen
})

const templates = 8

/** What a program does, by the number of the query. */
const workload = Effect.fnUntraced(function*(options: SoakOptions) {
  const sql = yield* PgClient.PgClient
  const timeToLive = options.timeToLiveMillis
  const cached = QueryCache.cached({ timeToLive })
  const users = yield* CachedQuery.make("user", {
    Key: Schema.Int,
    Value: Schema.Struct({ id: Schema.Int, name: Schema.String }),
    lookup: (id: number) => Effect.map(sql`SELECT ${id}::int AS id, 'Ada' AS name`, () => ({ id, name: "Ada" })),
    timeToLive,
    dependencies: (id) => [Dependency.row("users", { id })]
  })
  const random = seeded(1)
  const byId = (i: number) => {
    switch (i % templates) {
      case 0:
        return sql`SELECT * FROM users WHERE id = ${i}`
      case 1:
        return sql`SELECT name FROM users WHERE id = ${i} AND name <> ${`user ${i}`}`
      case 2:
        return sql`SELECT count(*) FROM orders WHERE user_id = ${i}`
      case 3:
        return sql`SELECT * FROM ${sql("orders")} WHERE ${sql.and([sql`id = ${i}`, sql`total > ${0}`])}`
      case 4:
        return sql`SELECT * FROM orders WHERE id IN ${sql.in([i, i + 1])}`
      case 5:
        return sql`SELECT o.total FROM orders o JOIN users u ON u.id = o.user_id WHERE u.id = ${i}`
      case 6:
        return sql`SELECT max(total) FROM orders WHERE total < ${i}`
      default:
        return sql.unsafe("SELECT * FROM users WHERE name = $1", [`user ${i}`])
    }
  }
  const text = (i: number) => sql.unsafe(`SELECT id, name AS "name ${i}" FROM users WHERE id = ${i}`)
  const write = (i: number) => sql`UPDATE orders SET total = total + 1 WHERE id = ${i}`

  return (
    i: number
  ): Effect.Effect<unknown, unknown, QueryCache.QueryCache | Invalidator.Invalidator | Scope.Scope> => {
    options.leak?.(i)
    if (i % options.textEvery === 0) return cached(text(i))
    const kind = random()
    if (kind < 0.50) return cached(byId(i))
    if (kind < 0.58) return cached(byId(Math.max(0, i - Math.floor(random() * 50))))
    if (kind < 0.66) return CacheScope.provide(cached(byId(i)), { tenant: `tenant ${i}` })
    if (kind < 0.74) return users.get(i)
    if (kind < 0.80) return QueryCache.cached(byId(i), { timeToLive, tags: [`tag ${i}`], name: `query ${i % 10}` })
    if (kind < 0.86) return write(i)
    if (kind < 0.88) return sql.withTransaction(Effect.all([byId(i), write(i), write(i + 1)]))
    if (kind < 0.90) {
      return Invalidator.invalidate({
        tags: [`tag ${i}`],
        keys: [Dependency.key("user", i)],
        rows: [Dependency.row("users", { id: i })]
      })
    }
    if (kind < 0.92) return Effect.timeoutOption(cached(byId(i)), "1 millis")
    if (kind < 0.94) return QueryCache.withInfo(cached(byId(i)))
    if (kind < 0.95) return QueryCache.changes(cached(byId(i))).pipe(Stream.take(1), Stream.runDrain)
    if (kind < 0.96) return users.update(i, write(i))
    if (kind < 0.97) return Effect.ignore(sql.withTransaction(Effect.andThen(write(i), Effect.fail("rolled back"))))
    return QueryCache.cached(byId(i), { timeToLive: timeToLive / 2, staleWhileRevalidate: timeToLive / 2 })
  }
})

/** How many queries are under way at once. */
const atOnce = 64

export const soak = Effect.fnUntraced(function*(options: SoakOptions) {
  const server = yield* Redis.makeServer()
  const redis = Context.get(yield* Layer.build(Redis.client(server)), Persistence.Redis)
  const { capacity, maxDependencies } = options
  const context = yield* Layer.build(
    CachedSqlClient.layer({
      namespace: "soak",
      // On a machine that others keep busy, too, all that can be stored is to be.
      lookupTimeout: "10 seconds",
      invalidationTimeout: "10 seconds"
    }).pipe(
      Layer.provideMerge(TieredStore.layer({ capacity, maxDependencies, flightTimeout: "1 second" })),
      Layer.provide([Layer.succeed(Persistence.Redis, redis), options.client])
    )
  )
  const { engine } = Context.get(context, QueryCache.QueryCache)
  const looks: Array<Look> = []
  const run = yield* workload(options).pipe(Effect.provideContext(context))
  const begun = performance.now()
  for (let from = 0; from < options.queries;) {
    const to = Math.min(options.queries, looks.length === 0 ? options.lookEvery / 2 : from + options.lookEvery)
    yield* Effect.forEach(Array.from({ length: to - from }, (_, i) => from + i), run, {
      concurrency: atOnce,
      discard: true
    }).pipe(Effect.provideContext(context), Effect.scoped)
    from = to
    const seen = yield* look(server, engine, from, performance.now() - begun)
    looks.push(seen)
    options.onLook?.(seen)
  }
  return { looks, instances: countInstances(), stats: yield* Context.get(context, QueryCache.QueryCache).stats }
}, Effect.scoped)

/** By how many bytes a figure grows with each query, by the line through the looks. */
export const growth = (looks: ReadonlyArray<Look>, of: (look: Look) => number): number => {
  const mean = (values: ReadonlyArray<number>) => values.reduce((sum, value) => sum + value, 0) / values.length
  const meanQueries = mean(looks.map(({ queries }) => queries))
  const meanValue = mean(looks.map(of))
  let above = 0
  let below = 0
  for (const look of looks) {
    above += (look.queries - meanQueries) * (of(look) - meanValue)
    below += (look.queries - meanQueries) ** 2
  }
  return above / below
}
