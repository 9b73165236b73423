import { CachedQuery, type Dependency, type QueryCache } from "effect-query-cache"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { describe, expectTypeOf, test } from "vitest"

class Service extends Context.Service<Service, number>()("Service") {}
class Other extends Context.Service<Other, number>()("Other") {}
class NotFound extends Schema.TaggedError<NotFound>()("NotFound", {}) {}

const User = Schema.Struct({ id: Schema.Int, born: Schema.Date })
type User = { readonly id: number; readonly born: Date }

declare const lookup: (id: number) => Effect.Effect<User, NotFound | "down", Service>
declare const write: Effect.Effect<"written", "refused", Other>

const make = CachedQuery.make("user", { Key: Schema.Int, Value: User, lookup })
declare const users: Effect.Success<typeof make>

describe("CachedQuery.make", () => {
  test("takes the services of the lookup where it is made", () => {
    expectTypeOf(make).toEqualTypeOf<
      Effect.Effect<CachedQuery.CachedQuery<number, User, NotFound | "down">, never, QueryCache.QueryCache | Service>
    >()
  })

  test("its reads have the lookup's value and failures, and require nothing", () => {
    expectTypeOf(users.get(1)).toEqualTypeOf<Effect.Effect<User, NotFound | "down">>()
    expectTypeOf(users.refresh(1)).toEqualTypeOf<Effect.Effect<User, NotFound | "down">>()
    expectTypeOf(users.getMany(new Set([1]))).toEqualTypeOf<Effect.Effect<ReadonlyArray<User>, NotFound | "down">>()
    // @ts-expect-error: a key of another kind
    users.get("1")
  })

  test("set and invalidate cannot fail", () => {
    expectTypeOf(users.set(1, { id: 1, born: new Date() })).toEqualTypeOf<Effect.Effect<void>>()
    expectTypeOf(users.invalidate(1)).toEqualTypeOf<Effect.Effect<void>>()
    // @ts-expect-error: a value of another kind
    users.set(1, { id: 1, born: "1815" })
  })

  test("update keeps the value, the failures and the services of the write", () => {
    expectTypeOf(users.update(1, write)).toEqualTypeOf<Effect.Effect<"written", "refused", Other>>()
    expectTypeOf(users.update(1)(write)).toEqualTypeOf<Effect.Effect<"written", "refused", Other>>()
  })

  test("a lookup that cannot fail makes a query that cannot", () => {
    const sure = CachedQuery.make("sure", {
      Key: Schema.Struct({ team: Schema.String, id: Schema.Int }),
      Value: Schema.Option(User),
      lookup: (key) => {
        expectTypeOf(key.team).toEqualTypeOf<string>()
        return null! as Effect.Effect<Option.Option<User>>
      }
    })
    expectTypeOf<Effect.Error<ReturnType<Effect.Success<typeof sure>["get"]>>>().toEqualTypeOf<never>()
    expectTypeOf<Effect.Services<typeof sure>>().toEqualTypeOf<QueryCache.QueryCache>()
  })

  test("options see the value and the key", () => {
    CachedQuery.make("user", {
      Key: Schema.Int,
      Value: User,
      lookup,
      timeToLive: (user, id) => {
        expectTypeOf(user).toEqualTypeOf<User>()
        expectTypeOf(id).toEqualTypeOf<number>()
        return "1 minute"
      },
      cacheWhen: (user) => user.born.getTime() > 0,
      dependencies: (id) => {
        expectTypeOf(id).toEqualTypeOf<number>()
        return [] as ReadonlyArray<Dependency.Dependency>
      },
      // Some of the failures.
      keepError: { Error: NotFound, timeToLive: "10 seconds" }
    })
    // @ts-expect-error: not one of its failures
    CachedQuery.make("user", { Key: Schema.Int, Value: User, lookup, keepError: { Error: User, timeToLive: 1 } })
    // @ts-expect-error: a misspelt option
    CachedQuery.make("user", { Key: Schema.Int, Value: User, lookup, timeTolive: "1 minute" })
    // @ts-expect-error: a schema of another value
    CachedQuery.make("user", { Key: Schema.Int, Value: Schema.String, lookup })
    // @ts-expect-error: a hard time-out would fail with what is none of its failures
    CachedQuery.make("user", { Key: Schema.Int, Value: User, lookup, hardTimeout: "1 second" })
  })
})
