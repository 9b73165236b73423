import { type CachePolicy, CacheScope, Invalidator, QueryCache } from "effect-query-cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Statement } from "effect/sql/Statement"
import { describe, expectTypeOf, test } from "vitest"

class Service extends Context.Service<Service, number>()("Service") {}

type User = { readonly id: number }

declare const effect: Effect.Effect<string, "failed", Service>
declare const statement: Statement<User>
declare const policy: CachePolicy.CachePolicy

describe("QueryCache.cached", () => {
  test("changes neither the value nor the error nor what is required", () => {
    expectTypeOf(QueryCache.cached(effect)).toEqualTypeOf<Effect.Effect<string, "failed", Service>>()
    expectTypeOf(QueryCache.cached(effect, policy)).toEqualTypeOf<Effect.Effect<string, "failed", Service>>()
    expectTypeOf(effect.pipe(QueryCache.cached(policy))).toEqualTypeOf<Effect.Effect<string, "failed", Service>>()
    expectTypeOf(effect.pipe(QueryCache.cached())).toEqualTypeOf<Effect.Effect<string, "failed", Service>>()
  })

  test("a statement becomes the effect of its rows", () => {
    expectTypeOf(statement.pipe(QueryCache.cached({ timeToLive: "5 minutes" })))
      .toEqualTypeOf<Effect.Effect<ReadonlyArray<User>, SqlError>>()
    expectTypeOf(QueryCache.cached(statement.values))
      .toEqualTypeOf<Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, SqlError>>()
  })

  test("fits behind a body of Effect.fn", () => {
    const byId = Effect.fn("byId")(function*(id: number) {
      const service = yield* Service
      return id + service
    }, QueryCache.cached({ name: "byId" }))
    expectTypeOf(byId).toEqualTypeOf<(id: number) => Effect.Effect<number, never, Service>>()
  })

  test("refuses options that do not exist", () => {
    // @ts-expect-error: a misspelt option
    QueryCache.cached({ timeTolive: "5 minutes" })
    // @ts-expect-error: rows are fresh or frozen
    QueryCache.cached({ rows: "shared" })
  })
})

describe("the other combinators", () => {
  test("keep the types", () => {
    expectTypeOf(QueryCache.uncached(effect)).toEqualTypeOf<Effect.Effect<string, "failed", Service>>()
    expectTypeOf(CacheScope.provide(effect, { tenant: "acme" })).toEqualTypeOf<
      Effect.Effect<string, "failed", Service>
    >()
    expectTypeOf(QueryCache.withInfo(effect)).toEqualTypeOf<
      Effect.Effect<[queries: ReadonlyArray<QueryCache.QueryInfo>, value: string], "failed", Service>
    >()
  })

  test("invalidation requires its service: silence would be wrong answers", () => {
    expectTypeOf(Invalidator.invalidate({ all: true })).toEqualTypeOf<
      Effect.Effect<void, never, Invalidator.Invalidator>
    >()
    expectTypeOf(effect.pipe(Invalidator.invalidating({ tables: ["users"] }))).toEqualTypeOf<
      Effect.Effect<string, "failed", Service | Invalidator.Invalidator>
    >()
    // @ts-expect-error: absent, or true
    Invalidator.invalidate({ all: false })
  })
})
