// What the cache saves and what it adds, on a real database: hits against statements, and what a miss and a write cost
// more with each store.
import { PgClient } from "@effect/sql-pg"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { SqlError } from "effect/sql/SqlError"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as CacheStore from "../../src/CacheStore.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import * as RedisStore from "../../src/RedisStore.ts"
import * as Pglite from "../support/pglite.ts"
import * as Postgres from "../support/postgres.ts"
import * as Redis from "../support/redis.ts"
import { type Case, compare, type Comparison, duration, type Result, start } from "./harness.ts"

type Sql = PgClient.PgClient

const users = 10_000

const tables = Effect.fnUntraced(function*(sql: Sql) {
  yield* sql`CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, email text NOT NULL, age int NOT NULL)`
  yield* sql`INSERT INTO users SELECT i, 'user ' || i, 'user' || i || '@example.com', 20 + i % 50
    FROM generate_series(1, ${users}::int) i`
  yield* sql`ANALYZE users`
})

const read = (sql: Sql, id: number) => sql`SELECT id, name, email, age FROM users WHERE id = ${(id % users) + 1}`

// The second parameter changes nothing, so that what was never asked does not run out.
const readNew = (sql: Sql, id: number) =>
  sql`SELECT id, name, email, age FROM users WHERE id = ${(id % users) + 1} AND ${id}::int >= 0`

const aggregate = (sql: Sql) =>
  sql`SELECT age, count(*)::int AS count, max(name) AS last FROM users GROUP BY age ORDER BY age LIMIT 10`

const write = (sql: Sql, id: number) => sql`UPDATE users SET age = age + 1 WHERE id = ${(id % users) + 1}`

const cached = QueryCache.cached({ timeToLive: "1 hour" })

let count = 0

const repeat = (body: (i: number) => Effect.Effect<unknown, SqlError>) => (times: number): Promise<void> =>
  Effect.runPromise(Effect.gen(function*() {
    for (let i = 0; i < times; i++) yield* body(count++)
  }))

const decorate = <E>(base: Sql, store: Layer.Layer<CacheStore.CacheStore, E>) =>
  Layer.build(
    CachedSqlClient.layer({ namespace: "bench", lookupTimeout: "5 seconds", invalidationTimeout: "5 seconds" })
      .pipe(Layer.provide([store, Layer.succeed(PgClient.PgClient, base)]))
  ).pipe(Effect.map((context) => Context.get(context, PgClient.PgClient)))

/** What one case takes longer than another: as a share of that other, and as time. */
const added = (comparison: Comparison, name: string, of: string, base: string): Result => {
  const share = comparison.ratio(name, base) - 1
  const nanos = comparison.nanos(base)
  return { name: `what ${name} adds to ${of}`, ratio: share, note: `${duration(share * nanos)} to ${duration(nanos)}` }
}

const hits = (name: string, comparison: Comparison, hit: string, statement: string, target?: number): Result => ({
  name,
  ratio: comparison.ratio(hit, statement),
  target,
  note: `${duration(comparison.nanos(hit))} instead of ${duration(comparison.nanos(statement))}`
})

const postgres = Effect.gen(function*() {
  const base = yield* PgClient.PgClient
  yield* tables(base)
  const server = yield* Redis.makeServer()
  const memory = yield* decorate(base, CacheStore.layerMemory())
  const redis = yield* decorate(base, RedisStore.layer().pipe(Layer.provide(Redis.client(server))))
  // What every hit below finds.
  for (const sql of [memory, redis]) {
    for (let id = 0; id < 1_000; id++) yield* cached(read(sql, id))
    yield* cached(aggregate(sql))
  }
  const statement: Case = { name: "statement", run: repeat((i) => read(base, i % 1_000)) }
  const compared = yield* Effect.promise(async () => ({
    hits: await compare("a read by primary key, PostgreSQL", [
      statement,
      { name: "memory hit", run: repeat((i) => cached(read(memory, i % 1_000))) },
      { name: "Redis hit", run: repeat((i) => cached(read(redis, i % 1_000))) }
    ]),
    aggregates: await compare("an aggregate over 10,000 rows, PostgreSQL", [
      { name: "statement", run: repeat(() => aggregate(base)) },
      { name: "memory hit", run: repeat(() => cached(aggregate(memory))) },
      { name: "Redis hit", run: repeat(() => cached(aggregate(redis))) }
    ]),
    misses: await compare("a miss, PostgreSQL", [
      { name: "statement", run: repeat((i) => readNew(base, i)) },
      { name: "a miss (memory)", run: repeat((i) => cached(readNew(memory, i))) },
      { name: "a miss (Redis)", run: repeat((i) => cached(readNew(redis, i))) }
    ]),
    writes: await compare("a write, PostgreSQL", [
      { name: "write", run: repeat((i) => write(base, i)) },
      { name: "a write (memory)", run: repeat((i) => write(memory, i)) },
      { name: "a write (Redis)", run: repeat((i) => write(redis, i)) }
    ])
  }))
  return [
    hits("memory hit / PostgreSQL, by primary key", compared.hits, "memory hit", "statement", 1 / 80),
    hits("memory hit / PostgreSQL, aggregate of 10,000 rows", compared.aggregates, "memory hit", "statement"),
    hits("Redis hit / PostgreSQL, by primary key", compared.hits, "Redis hit", "statement"),
    hits("Redis hit / PostgreSQL, aggregate of 10,000 rows", compared.aggregates, "Redis hit", "statement"),
    added(compared.misses, "a miss (memory)", "a SELECT by primary key", "statement"),
    added(compared.misses, "a miss (Redis)", "a SELECT by primary key", "statement"),
    added(compared.writes, "a write (memory)", "an UPDATE by primary key", "write"),
    added(compared.writes, "a write (Redis)", "an UPDATE by primary key", "write")
  ]
}).pipe(Effect.scoped, Effect.provide(Postgres.layer()))

const pglite = Effect.gen(function*() {
  const base = yield* PgClient.PgClient
  yield* tables(base)
  const memory = yield* decorate(base, CacheStore.layerMemory())
  for (let id = 0; id < 1_000; id++) yield* cached(read(memory, id))
  const comparison = yield* Effect.promise(() =>
    compare("a read by primary key, PGlite", [
      { name: "statement", run: repeat((i) => read(base, i % 1_000)) },
      { name: "memory hit", run: repeat((i) => cached(read(memory, i % 1_000))) }
    ], { clock: "cpu" })
  )
  return [hits("memory hit / PGlite, by primary key", comparison, "memory hit", "statement", 1 / 80)]
}).pipe(Effect.scoped, Effect.provide(Pglite.layer()))

export const run = (): Promise<ReadonlyArray<Result>> =>
  Effect.runPromise(Effect.map(Effect.all([postgres, pglite]), (results) => results.flat()))

await start(import.meta, run)
