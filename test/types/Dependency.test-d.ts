import { Dependency } from "effect-query-cache"
import { describe, expectTypeOf, test } from "vitest"

describe("Dependency", () => {
  test("every constructor returns its own kind", () => {
    expectTypeOf(Dependency.table("orders")).toEqualTypeOf<Dependency.Table>()
    expectTypeOf(Dependency.row("orders", { id: 7, region: null, open: true })).toEqualTypeOf<Dependency.Row>()
    expectTypeOf(Dependency.tag("premium")).toEqualTypeOf<Dependency.Tag>()
    expectTypeOf(Dependency.key("user", BigInt(42))).toEqualTypeOf<Dependency.Key>()
  })

  test("values whose text is not canonical cannot name a row", () => {
    // @ts-expect-error: a Date has no one text
    Dependency.row("orders", { placed: new Date(0) })
    // @ts-expect-error: neither has an absent value
    Dependency.row("orders", { id: undefined })
  })

  test("the kinds are told apart by their tag", () => {
    const dependency = Dependency.table("orders") as Dependency.Dependency
    if (dependency._tag === "Row") expectTypeOf(dependency).toEqualTypeOf<Dependency.Row>()
    expectTypeOf(dependency._tag).toEqualTypeOf<"Table" | "Row" | "Tag" | "Key">()
  })
})
