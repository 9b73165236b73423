// What strict mode costs beside the bounded one, on a real database and a real Redis: a hit in Redis, a write of one
// statement, a transaction of three. And how many commands each sends.
import { PgClient } from "@effect/sql-pg"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { SqlError } from "effect/sql/SqlError"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import * as RedisStore from "../../src/RedisStore.ts"
import * as Postgres from "../support/postgres.ts"
import * as Redis from "../support/redis.ts"
import { compare, duration, type Result, start } from "./harness.ts"

type Sql = PgClient.PgClient

const rows = 1_000

const read = (sql: Sql, id: number) =>
  QueryCache.cached(sql`SELECT id, age FROM users WHERE id = ${id % rows}`, { timeToLive: "1 hour" })

// Other rows than are read, so that hits stay hits.
const write = (sql: Sql, id: number) => sql`UPDATE users SET age = age + 1 WHERE id = ${rows + (id % rows)}`

let count = 0

const repeat = (body: (i: number) => Effect.Effect<unknown, SqlError>) => (times: number): Promise<void> =>
  Effect.runPromise(Effect.gen(function*() {
    for (let i = 0; i < times; i++) yield* body(count++)
  }))

const modes = ["bounded", "strict"] as const

const measure = Effect.gen(function*() {
  const base = yield* PgClient.PgClient
  yield* base`CREATE TABLE users (id int PRIMARY KEY, age int NOT NULL)`
  yield* base`INSERT INTO users SELECT i, 20 FROM generate_series(0, ${2 * rows}::int) i`
  const server = yield* Redis.makeServer()
  const client = (consistency: typeof modes[number]) =>
    Layer.build(
      CachedSqlClient.layer({ namespace: consistency, lookupTimeout: "5 seconds", invalidationTimeout: "5 seconds" })
        .pipe(
          Layer.provide([
            RedisStore.layer({ consistency }).pipe(Layer.provide(Redis.client(server))),
            Layer.succeed(PgClient.PgClient, base)
          ])
        )
    ).pipe(Effect.map((context) => Context.get(context, PgClient.PgClient)))
  const sql = { bounded: yield* client("bounded"), strict: yield* client("strict") }
  const commands: Array<Result> = []
  for (const mode of modes) {
    // The barrier of a new namespace is opened in the background.
    yield* read(sql[mode], 0)
    yield* Effect.sleep("500 millis")
    for (let id = 0; id < rows; id++) yield* read(sql[mode], id)
    yield* write(sql[mode], 0)
    const sent = (effect: Effect.Effect<unknown, SqlError>) =>
      Effect.scoped(Effect.gen(function*() {
        const told = yield* server.monitor
        yield* effect
        return (yield* told).length
      }))
    commands.push(
      { name: `commands to Redis, ${mode}: hit`, ratio: yield* sent(read(sql[mode], 1)), target: 1 },
      {
        name: `commands to Redis, ${mode}: write`,
        ratio: yield* sent(write(sql[mode], 1)),
        target: mode === "strict" ? 2 : 1
      }
    )
  }
  const both = (body: (sql: Sql, i: number) => Effect.Effect<unknown, SqlError>) =>
    modes.map((mode) => ({ name: mode, run: repeat((i) => body(sql[mode], i)) }))
  const compared = yield* Effect.promise(async () => ({
    "a hit in Redis": await compare("a hit in Redis", both(read)),
    "a write": await compare("a write", both(write)),
    "a transaction of three writes": await compare(
      "a transaction of three writes",
      both((sql, i) => sql.withTransaction(Effect.all([write(sql, i), write(sql, i + 1), write(sql, i + 2)])))
    )
  }))
  const ratios = Object.entries(compared).map(([name, comparison]): Result => ({
    name: `${name}, strict / bounded`,
    ratio: comparison.ratio("strict", "bounded"),
    note: `${duration(comparison.nanos("strict"))} instead of ${duration(comparison.nanos("bounded"))}`
  }))
  return [...ratios, ...commands]
}).pipe(Effect.scoped, Effect.provide(Postgres.layer()))

export const run = (): Promise<ReadonlyArray<Result>> => Effect.runPromise(measure)

await start(import.meta, run)
