import { MaterializedView, QueryCache } from "effect-query-cache"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { expectTypeOf, it } from "vitest"

class Rate extends Context.Service<Rate, number>()("Rate") {}

declare const query: Effect.Effect<ReadonlyArray<number>, "failed", Rate | Scope.Scope>

it("a view has the value and the errors of its query, and wants its services where it is made", () => {
  const view = MaterializedView.make("view", { query, Value: Schema.Array(Schema.Number) })
  expectTypeOf(view).toEqualTypeOf<
    Effect.Effect<
      MaterializedView.MaterializedView<ReadonlyArray<number>, "failed">,
      never,
      QueryCache.QueryCache | Scope.Scope | Rate
    >
  >()
  const get = Effect.flatMap(view, ({ get }) => get)
  expectTypeOf<Effect.Success<typeof get>>().toEqualTypeOf<ReadonlyArray<number>>()
  expectTypeOf<Effect.Error<typeof get>>().toEqualTypeOf<"failed" | Cause.TimeoutError>()
})

it("a schema of another value is refused", () => {
  // @ts-expect-error
  MaterializedView.make("view", { query, Value: Schema.String })
})

it("changes has the value and the errors of its effect", () => {
  expectTypeOf(QueryCache.changes(Effect.as(query, 1))).toEqualTypeOf<
    Stream.Stream<number, "failed", Rate | Scope.Scope | QueryCache.QueryCache>
  >()
})
