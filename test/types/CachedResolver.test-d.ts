import { CachedResolver, type QueryCache } from "effect-query-cache"
import type * as Arr from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Request from "effect/Request"
import type * as RequestResolver from "effect/RequestResolver"
import * as Schema from "effect/Schema"
import { SqlResolver } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { describe, expectTypeOf, test } from "vitest"

class Service extends Context.Service<Service, number>()("Service") {}
class Failed extends Schema.TaggedError<Failed>()("Failed", {}) {}
class Get extends Request.TaggedClass("Get")<{ readonly id: number }, string, Failed | "down", Service> {}

declare const resolver: RequestResolver.RequestResolver<Get>
const options = { name: "get", key: (request: Get) => request.id, Key: Schema.Int, Value: Schema.String } as const

describe("CachedResolver.make", () => {
  test("gives a resolver of the same requests, and requires the cache alone", () => {
    expectTypeOf(CachedResolver.make(resolver, options)).toEqualTypeOf<
      Effect.Effect<RequestResolver.RequestResolver<Get>, never, QueryCache.QueryCache>
    >()
  })

  test("requests keep their value, failures and services", () => {
    const request = Effect.flatMap(
      CachedResolver.make(resolver, options),
      (cached) => Effect.request(new Get({ id: 1 }), cached)
    )
    expectTypeOf(request).toEqualTypeOf<Effect.Effect<string, Failed | "down", Service | QueryCache.QueryCache>>()
  })

  test("options see the request, the answer and the key", () => {
    CachedResolver.make(resolver, {
      ...options,
      key: (request) => {
        expectTypeOf(request).toEqualTypeOf<Get>()
        return request.id
      },
      timeToLive: (answer, id) => {
        expectTypeOf(answer).toEqualTypeOf<string>()
        expectTypeOf(id).toEqualTypeOf<number>()
        return "1 minute"
      },
      keepError: { Error: Failed, timeToLive: "10 seconds" }
    })
    // @ts-expect-error: a schema of another answer
    CachedResolver.make(resolver, { ...options, Value: Schema.Int })
    // @ts-expect-error: a key of another kind than its schema
    CachedResolver.make(resolver, { ...options, key: (request: Get) => String(request.id) })
    // @ts-expect-error: a misspelt option
    CachedResolver.make(resolver, { ...options, timeTolive: "1 minute" })
  })
})

const User = Schema.Struct({ id: Schema.Int, name: Schema.String })
type User = { readonly id: number; readonly name: string }
declare const execute: (ids: Arr.NonEmptyArray<number>) => Effect.Effect<ReadonlyArray<User>, SqlError, Service>

describe("CachedResolver.fromSql", () => {
  test("keeps what a request of SqlResolver has", () => {
    const byId = SqlResolver.findById({ Id: Schema.Int, Result: User, ResultId: (user) => user.id, execute })
    const cached = CachedResolver.fromSql(byId, { name: "user", Key: Schema.Int, Value: User })
    expectTypeOf(cached).toEqualTypeOf<Effect.Effect<typeof byId, never, QueryCache.QueryCache>>()
    const request = Effect.map(cached, (resolver) => SqlResolver.request(resolver))
    expectTypeOf<ReturnType<Effect.Success<typeof request>>>().toEqualTypeOf<
      Effect.Effect<User, SqlError | Schema.SchemaError | Cause.NoSuchElementError, Service>
    >()
  })

  test("asks for the schemas of the resolver", () => {
    const grouped = SqlResolver.grouped({
      Request: Schema.Int,
      RequestGroupKey: (id) => id,
      Result: User,
      ResultGroupKey: (user) => user.id,
      execute
    })
    CachedResolver.fromSql(grouped, { name: "users", Key: Schema.Int, Value: Schema.NonEmptyArray(User) })
    // @ts-expect-error: one row is not a group of them
    CachedResolver.fromSql(grouped, { name: "users", Key: Schema.Int, Value: User })
    // @ts-expect-error: a key of another kind than the request
    CachedResolver.fromSql(grouped, { name: "users", Key: Schema.String, Value: Schema.NonEmptyArray(User) })
  })
})
