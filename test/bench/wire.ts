// How many commands an operation sends to Redis, as Redis counts them. Two programs share what they cached: each has a
// client, a store and a connection of its own.
import { PgClient } from "@effect/sql-pg"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import * as RedisStore from "../../src/RedisStore.ts"
import * as Redis from "../support/redis.ts"
import { type Result, start } from "./harness.ts"
import * as Stub from "./stub.ts"

const program = (server: Redis.Server, layout: "flat" | "grouped", shards: number) =>
  Layer.build(
    CachedSqlClient.layer({
      catalogInterval: false,
      namespace: `shop-${layout}-${shards}`,
      lookupTimeout: "5 seconds",
      invalidationTimeout: "5 seconds"
    })
      .pipe(Layer.provide([
        RedisStore.layer({ layout, shards }).pipe(Layer.provide(Redis.client(server))),
        Stub.layer([{ id: 1, name: "Ada" }])
      ]))
  ).pipe(Effect.map((context) => Context.get(context, PgClient.PgClient)))

const count = Effect.fnUntraced(
  function*(server: Redis.Server, expected: string, effect: Effect.Effect<unknown, unknown>) {
    const sent = yield* server.monitor
    const [queries] = yield* QueryCache.withInfo(effect)
    const fates = queries.map((query) => query.level ?? query.status).join(", ")
    if (fates !== expected) throw new Error(`expected ${expected}, and it was ${fates}`)
    return (yield* sent).length
  },
  Effect.scoped
)

export const run = (): Promise<ReadonlyArray<Result>> =>
  Effect.gen(function*() {
    const server = yield* Redis.makeServer()
    const results: Array<Result> = []
    for (const [layout, shards] of [["flat", 1], ["grouped", 1], ["flat", 3]] as const) {
      const [here, there] = yield* Effect.all([program(server, layout, shards), program(server, layout, shards)])
      const user = (sql: PgClient.PgClient, id: number) => QueryCache.cached(sql`SELECT * FROM users WHERE id = ${id}`)
      const rename = here`UPDATE users SET name = ${"Grace"} WHERE id = ${1}`
      // Redis learns each script once, and both programs which shards there are.
      const others = Effect.forEach([10, 11, 12, 13, 14, 15], (id) => Effect.all([user(here, id), user(there, id)]))
      yield* Effect.all([user(here, 0), user(there, 0), others, rename])

      const told = (name: string, ratio: number, target: number) =>
        results.push({
          name: `commands to Redis, ${layout}${shards === 1 ? "" : `, ${shards} shards`}: ${name}`,
          ratio,
          target
        })
      told("miss (lookup, store)", yield* count(server, "miss", user(here, 1)), 2)
      told("hit on what another program stored", yield* count(server, "L2", user(there, 1)), 1)
      told("write", yield* count(server, "write", rename), shards)
      yield* count(server, "miss", user(there, 1))
      told(
        "transaction of three writes",
        yield* count(server, "write, write, write", here.withTransaction(Effect.all([rename, rename, rename]))),
        shards
      )
      yield* count(server, "miss", user(there, 1))
    }
    return results
  }).pipe(Effect.scoped, Effect.runPromise)

await start(import.meta, run)
