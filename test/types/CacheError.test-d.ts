import type { CacheError } from "effect-query-cache"
import * as Effect from "effect/Effect"
import { describe, expectTypeOf, test } from "vitest"

declare const failing: Effect.Effect<number, CacheError.CacheError>

describe("CacheError", () => {
  test("catchReason hands over the reason it names and keeps the error for the others", () => {
    const handled = failing.pipe(
      Effect.catchReason("CacheError", "StoreTimeout", (reason) => {
        expectTypeOf(reason).toEqualTypeOf<CacheError.StoreTimeout>()
        expectTypeOf(reason.timeoutMillis).toEqualTypeOf<number>()
        return Effect.succeed("late" as const)
      })
    )
    expectTypeOf(handled).toEqualTypeOf<Effect.Effect<number | "late", CacheError.CacheError>>()
  })

  test("a reason that does not exist is refused", () => {
    // @ts-expect-error: no such reason
    Effect.catchReason(failing, "CacheError", "StoreOnFire", () => Effect.succeed(0))
  })

  test("the operation is one of a few", () => {
    expectTypeOf<CacheError.CacheError["operation"]>().toEqualTypeOf<
      "lookup" | "store" | "release" | "invalidate" | "subscribe" | "fence" | "resolve"
    >()
  })
})
