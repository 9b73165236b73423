// The share of the judges' work that needs a server: readers and writers at the same time, on several connections, over
// the real memory store. When all of them are done, every answer that is kept is the one that PostgreSQL gives.
import { PgClient } from "@effect/sql-pg"
import { CachedSqlClient, CacheStore, QueryCache } from "effect-query-cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { SqlClient } from "effect/sql/SqlClient"
import { expect, it } from "vitest"
import * as Postgres from "../support/postgres.ts"
import { Queries, type Query } from "./queries.ts"
import { Random } from "./random.ts"
import { deal, makeWorld } from "./world.ts"
import { Writes } from "./writes.ts"

const seeds = [1, 2, 3, 4]
const rounds = 12
const fibers = 6

/** An answer as text, in an order of its own where the query gives it none. */
const shown = (query: Query, rows: ReadonlyArray<object>): string => {
  const texts = rows.map((row) =>
    JSON.stringify(Object.values(row), (_, value) => typeof value === "bigint" ? `${value}n` : value)
  )
  return JSON.stringify(query.ordered ? texts : texts.sort())
}

it(
  "what is kept while others write is what the database says afterwards",
  { timeout: 240_000 },
  () =>
    Effect.gen(function*() {
      let hits = 0
      const base = yield* PgClient.PgClient
      for (const seed of seeds) {
        const world = makeWorld(seed)
        const random = new Random(seed)
        yield* base`DO $$ BEGIN DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS archive CASCADE; CREATE SCHEMA public; END $$`
        for (const statement of world.ddl.flatMap((text) => text.includes("$$") ? [text] : text.split(";"))) {
          if (statement.trim() !== "") yield* base.unsafe(statement)
        }
        yield* Effect.scoped(Effect.gen(function*() {
          const context = yield* Layer.build(
            CachedSqlClient.layer({ policy: { timeToLive: "1 hour" } }).pipe(
              Layer.provide([CacheStore.layerMemory(), Layer.succeed(PgClient.PgClient, base)])
            )
          )
          const sql = Context.get(context, SqlClient)
          const queries = new Queries(random, world)
          const watched: Array<Query> = []
          while (watched.length < 30) {
            const query = queries.query()
            if (yield* Effect.isSuccess(base.unsafe(query.sql, query.parameters))) watched.push(query)
          }
          const writes = new Writes(random, world)
          const read = (query: Query) => QueryCache.cached(sql.unsafe<object>(query.sql, query.parameters))
          // A statement that PostgreSQL refuses, be it for a deadlock, is nobody's loss.
          const write = Effect.suspend(() => {
            const { parameters, sql: text } = writes.write()
            return Effect.asVoid(sql.unsafe(text, parameters))
          })
          const transaction = Effect.suspend(() =>
            sql.withTransaction(
              write.pipe(
                Effect.andThen(read(random.pick(watched))),
                Effect.andThen(write),
                Effect.andThen(random.chance(0.3) ? Effect.fail("changed my mind") : Effect.void)
              )
            )
          )
          const act = Effect.suspend(() =>
            Effect.ignore(
              random.weighted<Effect.Effect<unknown, unknown>>([
                [8, read(random.pick(watched))],
                [1, write],
                [0.5, transaction]
              ])
            )
          )
          for (let round = 0; round < rounds; round++) {
            yield* base.withTransaction(Effect.forEach(deal(world, random), (statement) => base.unsafe(statement)))
              .pipe(Effect.andThen(sql.unsafe("DO $$ BEGIN END $$")))
            yield* Effect.all(Array.from({ length: fibers }, () => Effect.replicateEffect(act, 12)), {
              concurrency: "unbounded"
            })
            for (const query of watched) {
              const expected = yield* Effect.option(base.unsafe<object>(query.sql, query.parameters))
              const found = yield* Effect.option(QueryCache.withInfo(read(query)))
              if (expected._tag === "None" || found._tag === "None") continue
              const [[info], rows] = found.value
              if (info?.status !== "hit") continue
              hits++
              expect(shown(query, rows), `seed ${seed}, round ${round}: ${query.sql}`).toBe(
                shown(query, expected.value)
              )
            }
          }
        }))
      }
      console.log(`${hits} answers that were kept while others wrote were right`)
      expect(hits).toBeGreaterThan(200)
    }).pipe(
      Effect.provide(Postgres.layerClient({ maxConnections: fibers })),
      Effect.provide(Postgres.layerServer({ deadlock_timeout: "50ms", plan_cache_mode: "force_custom_plan" })),
      Effect.runPromise
    )
)
