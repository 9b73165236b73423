import { PgClient } from "@effect/sql-pg"
import {
  CachedSqlClient,
  CacheStore,
  type Fingerprinter,
  type Invalidator,
  type QueryAnalyzer,
  type QueryCache,
  RedisStore
} from "effect-query-cache"
import * as UpstashRedis from "effect-query-cache/UpstashRedis"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redis from "effect/persistence/Redis"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { describe, expectTypeOf, test } from "vitest"

type Services =
  | SqlClient.SqlClient
  | PgClient.PgClient
  | QueryCache.QueryCache
  | Invalidator.Invalidator
  | Fingerprinter.Fingerprinter

describe("CachedSqlClient", () => {
  test("layers say what they provide, what can fail and what they need", () => {
    expectTypeOf(CachedSqlClient.layer()).toEqualTypeOf<
      Layer.Layer<Services, QueryAnalyzer.AnalyzerLoadError, PgClient.PgClient | CacheStore.CacheStore>
    >()
    expectTypeOf(CachedSqlClient.layerNoDeps()).toEqualTypeOf<
      Layer.Layer<
        Exclude<Services, Fingerprinter.Fingerprinter>,
        never,
        PgClient.PgClient | CacheStore.CacheStore | Fingerprinter.Fingerprinter | QueryAnalyzer.QueryAnalyzer
      >
    >()
    expectTypeOf(CachedSqlClient.layerNoop).toEqualTypeOf<Layer.Layer<Services, never, PgClient.PgClient>>()
    expectTypeOf(CachedSqlClient.layerTest(() => [])).toEqualTypeOf<
      Layer.Layer<Services | CachedSqlClient.TestDatabase, QueryAnalyzer.AnalyzerLoadError>
    >()
  })

  test("the example leaves nothing to provide", () => {
    const program = Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      return yield* sql<{ id: number }>`SELECT id FROM users`
    }).pipe(Effect.provide(
      CachedSqlClient.layer().pipe(Layer.provide([CacheStore.layerMemory(), PgClient.layer({ database: "shop" })]))
    ))
    expectTypeOf(program).toEqualTypeOf<
      Effect.Effect<ReadonlyArray<{ id: number }>, SqlError | QueryAnalyzer.AnalyzerLoadError>
    >()
  })
})

describe("stores", () => {
  test("Redis is what they are written against", () => {
    expectTypeOf(RedisStore.layer()).toEqualTypeOf<Layer.Layer<CacheStore.CacheStore, never, Redis.Redis>>()
    expectTypeOf(CacheStore.layerMemory()).toEqualTypeOf<Layer.Layer<CacheStore.CacheStore>>()
    expectTypeOf(UpstashRedis.layer({ url: "https://example.com", token: "secret" })).toExtend<
      Layer.Layer<Redis.Redis>
    >()
  })
})
