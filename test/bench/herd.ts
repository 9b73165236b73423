// A herd: many ask the same thing at the same moment, and nothing is cached yet, or what is has expired. How often is the
// database asked, and how long does the last of them wait?
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as SqlClient from "effect/sql/SqlClient"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as CacheStore from "../../src/CacheStore.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import * as Herd from "../support/herd.ts"
import * as Pglite from "../support/pglite.ts"
import * as Postgres from "../support/postgres.ts"
import * as Redis from "../support/redis.ts"
import { duration, type Result, start } from "./harness.ts"

const size = 1_000

// The database's own count of the scans of a table: each query below is one.
const scans = Effect.fnUntraced(function*(sql: SqlClient.SqlClient) {
  yield* sql`SELECT pg_stat_force_next_flush()`
  const [row] = yield* sql<{ scans: string }>`SELECT seq_scan AS scans FROM pg_stat_user_tables WHERE relname = 'herd'`
  return Number(row!.scans)
})

type Policy = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const ask = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, policy: Policy) {
  const query = sql`SELECT count(*) AS n, sum(id) AS total FROM herd`
  const before = yield* scans(sql)
  const started = performance.now()
  yield* Effect.all(Array.from({ length: size }, () => policy(query)), { concurrency: "unbounded" })
  const millis = performance.now() - started
  return { queries: (yield* scans(sql)) - before, millis }
})

const inOneProcess = Effect.gen(function*() {
  const sql = yield* PgClient.PgClient
  yield* sql`CREATE TABLE herd AS SELECT generate_series(1, 1000) AS id`
  const without = yield* ask(sql, QueryCache.uncached)
  const herd = yield* ask(sql, QueryCache.cached())
  if (without.queries !== size) throw new Error(`the database counted ${without.queries} of ${size} queries`)
  const name = `database queries for ${size.toLocaleString("en")} identical misses at once`
  const note = `${duration(herd.millis * 1e6)}, without the cache ${duration(without.millis * 1e6)}`
  return [{ name, ratio: herd.queries, target: 1, note }]
}).pipe(Effect.provide(CachedSqlClient.layer().pipe(Layer.provide([CacheStore.layerMemory(), Pglite.layer()]))))

const processes = 4

const overProcesses = Effect.gen(function*() {
  const sql = yield* PgClient.PgClient
  const { config: { database, host, port, username } } = yield* Postgres.PostgresServer
  const redis = yield* Redis.makeServer()
  yield* sql`CREATE TABLE herd AS SELECT generate_series(1, 1000) AS id`
  const settings = { database: { database, host, port, username }, redis: redis.url, flightTimeout: 5_000 }
  const herd = yield* Effect.all(Array.from({ length: processes }, () => Herd.start(settings)), {
    concurrency: "unbounded"
  })
  const policy = { timeToLive: "1 second", staleWhileRevalidate: "1 hour" } as const
  let queries = 0
  const measure = Effect.fnUntraced(function*(name: string) {
    const answers = yield* Effect.all(herd.map(({ ask }) => ask({ readers: size / processes, policy })), {
      concurrency: "unbounded"
    })
    // What is read anew in the background has an end too.
    yield* Effect.sleep("200 millis")
    const settled = yield* Effect.all(herd.map(({ ask }) => ask({ readers: 0, policy })))
    const before = queries
    queries = settled.reduce((sum, answer) => sum + answer.queries, 0)
    const longest = Math.max(...answers.map(({ millis }) => millis))
    return {
      name: `database queries for ${name} under ${size.toLocaleString("en")} readers over ${processes} processes`,
      ratio: queries - before,
      target: 1,
      note: `the last reader after ${duration(longest * 1e6)}`
    }
  })
  const misses = yield* measure("a key that is not there")
  yield* Effect.sleep("1 second")
  return [misses, yield* measure("a popular key that expires")]
}).pipe(Effect.provide(Postgres.layer()), Effect.scoped)

export const run = async (): Promise<ReadonlyArray<Result>> => [
  ...await Effect.runPromise(inOneProcess),
  ...await Effect.runPromise(overProcesses)
]

await start(import.meta, run)
