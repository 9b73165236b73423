// Every type of PostgreSQL through the client: what a miss, a hit in memory and a hit in Redis return is the same, by
// value and by type, or is not cached.
import { PgClient } from "@effect/sql-pg"
import { layer } from "@effect/vitest"
import { CachedSqlClient, CacheStore, QueryCache, RedisStore } from "effect-query-cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redis from "effect/persistence/Redis"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { expect } from "vitest"
import { expectExact, vandalise } from "../support/exact.ts"
import * as Pglite from "../support/pglite.ts"
import * as RedisServers from "../support/redis.ts"
import { rowTypes, selectAll, setup } from "../support/rowTypes.ts"

class Base extends Context.Service<Base, PgClient.PgClient>()("Base") {}
class InMemory extends Context.Service<InMemory, PgClient.PgClient>()("InMemory") {}
/** Two processes, as far as Redis can tell. */
class FirstOverRedis extends Context.Service<FirstOverRedis, PgClient.PgClient>()("FirstOverRedis") {}
class SecondOverRedis extends Context.Service<SecondOverRedis, PgClient.PgClient>()("SecondOverRedis") {}

const client = <I>(
  tag: Context.Service<I, PgClient.PgClient>,
  store: Layer.Layer<CacheStore.CacheStore, never, Redis.Redis>
) =>
  Layer.effect(tag, PgClient.PgClient).pipe(
    Layer.provide(CachedSqlClient.layer({ namespace: "types", lookupTimeout: "5 seconds" })),
    Layer.provide(Layer.fresh(store))
  )

const Clients = Layer.mergeAll(
  Layer.effect(
    Base,
    Effect.tap(PgClient.PgClient, (sql) => Effect.forEach(setup, (statement) => sql.unsafe(statement)))
  ),
  client(InMemory, CacheStore.layerMemory()),
  client(FirstOverRedis, RedisStore.layer()),
  client(SecondOverRedis, RedisStore.layer())
).pipe(Layer.provide(Pglite.layer()), Layer.provide(RedisServers.layer()))

// Names of relations and the like are looked up when they are read, so a rename would change the answer; and a function
// that returns void is called for something else.
const refusalOf = (name: string): string | undefined =>
  /^reg(?:class|type)/.test(name) ? "system-catalog" : name === "void" ? "volatile-function" : undefined

layer(Clients, { excludeTestServices: true })("types through the client", (it) => {
  for (const type of rowTypes) {
    const refusal = refusalOf(type.name)
    it.effect(refusal !== undefined ? `${type.name} is not cached` : type.name, () =>
      Effect.gen(function*() {
        const base = (yield* Base).unsafe(selectAll(type))
        const forms: ReadonlyArray<
          readonly [
            expected: Effect.Effect<ReadonlyArray<any>, SqlError>,
            of: (sql: SqlClient.SqlClient) => Effect.Effect<ReadonlyArray<any>, SqlError>
          ]
        > = [
          [base, (sql) => sql.unsafe(selectAll(type))],
          [base.values, (sql) => sql.unsafe(selectAll(type)).values]
        ]
        const [memory, first, second] = [yield* InMemory, yield* FirstOverRedis, yield* SecondOverRedis]
        for (const [expected, of] of forms) {
          const rows = yield* expected
          const read = Effect.fnUntraced(function*(sql: SqlClient.SqlClient) {
            const [[query], got] = yield* QueryCache.withInfo(of(sql).pipe(QueryCache.cached()))
            expectExact(got, rows)
            // What one caller does to its rows is nobody else's affair.
            vandalise(got as Array<any>)
            return query.status === "bypass" ? query.reason : `${query.status} ${query.level}`
          })
          if (refusal !== undefined) {
            expect(yield* read(memory)).toBe(refusal)
            continue
          }
          expect([yield* read(memory), yield* read(memory), yield* read(memory)])
            .toEqual(["miss undefined", "hit L1", "hit L1"])
          expect(yield* read(first)).toBe("miss undefined")
          // Nobody waits for the fill: until it is judged the flight answers.
          yield* Effect.repeat(read(first), { until: (how) => how !== "joined undefined" })
          expect([yield* read(first), yield* read(second), yield* read(second)]).toEqual(["hit L2", "hit L2", "hit L2"])
        }
      }))
  }
})
