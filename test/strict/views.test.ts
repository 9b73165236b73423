/** Views over a store that is kept strict. */
import { assert, layer } from "@effect/vitest"
import { MaterializedView, QueryCache } from "effect-query-cache"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { fateOf, nameOf } from "../client/fixture.ts"
import { eventually, make, redis, rename, servers, setUp } from "../support/strictProcess.ts"

layer(servers, { excludeTestServices: true })("strict views", (it) => {
  it.effect("one that was read before the barrier was open hears of what is written later", () =>
    Effect.gen(function*() {
      const { writer } = yield* setUp()
      const reader = yield* make()
      const written = yield* Deferred.make<void>()
      const end = yield* Deferred.make<void>()
      // Not of the row of the view.
      const long = yield* Effect.forkChild(writer.base.withTransaction(
        rename({ ...writer, sql: writer.base }, "Grace Hopper", 2).pipe(
          Effect.andThen(Deferred.succeed(written, undefined)),
          Effect.andThen(Deferred.await(end))
        )
      ))
      yield* Deferred.await(written)
      yield* redis("FLUSHALL")
      const view = yield* MaterializedView.make("user", {
        query: nameOf(reader.sql, 1),
        refreshOnInvalidation: { debounce: 0 }
      }).pipe(Effect.provide(reader.context))
      const name = Effect.map(view.get, ([row]) => row.name)
      assert.strictEqual(yield* name, "Ada")
      // By now it has looked whether it missed something.
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 500)))
      yield* Deferred.succeed(end, undefined)
      yield* Fiber.join(long)
      // Not by a key, which would be told of in any case.
      const orders = writer.sql`SELECT count(*) FROM orders`.pipe(QueryCache.cached())
      yield* eventually("open", Effect.map(fateOf(orders), ([fate]) => fate === "hit"))
      yield* rename(writer, "Augusta")
      yield* eventually("told", Effect.map(name, (name) => name === "Augusta"))
    }))
})
