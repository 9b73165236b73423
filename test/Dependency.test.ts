import { assert, describe, it } from "@effect/vitest"
import { CacheError, Dependency } from "effect-query-cache"

const { explicitTargets, imageStamp, key, makeSet, row, table, tag, writeTargets } = Dependency

const refused = (make: () => unknown, option: string) => {
  try {
    make()
  } catch (error) {
    assert.instanceOf(error, CacheError.InvalidOptionError)
    assert.strictEqual(error.option, option)
    return
  }
  assert.fail(`nothing was refused (${option})`)
}

describe("Dependency", () => {
  it("expands to the stamps that its documentation lists", () => {
    assert.deepStrictEqual(makeSet([table("orders")]).stamps, ["orders", "orders(*)"])
    assert.deepStrictEqual(makeSet([row("orders", { id: 7 })]).stamps, [
      "orders(*)",
      "orders(id)",
      "orders(id=\"7\")"
    ])
    assert.deepStrictEqual(makeSet([tag("premium"), key("user", 42)]).stamps, ["#premium", "@user:42"])
  })

  it("names a row the same whatever the type its value comes in, and null apart from text", () => {
    const stamps = [7, BigInt(7), "7", 7.0].map((id) => makeSet([row("orders", { id })]).id)
    assert.strictEqual(new Set(stamps).size, 1)
    const others = [null, "null", "", true, "7 ", -7].map((id) => makeSet([row("orders", { id })]).id)
    assert.strictEqual(new Set([...stamps, ...others]).size, 1 + 5 + 1)
    assert.strictEqual(makeSet([row("t", { a: 1, b: 2 })]).id, makeSet([row("t", { b: 2, a: 1 })]).id)
    assert.strictEqual(makeSet([row("t", { a: -0 })]).id, makeSet([row("t", { a: 0 })]).id)
  })

  it("drops the schema and keeps the case", () => {
    assert.strictEqual(table("public.orders").table, "orders")
    assert.strictEqual(table("Orders").table, "Orders")
    assert.strictEqual(table("\"public\".\"Orders\"").table, "Orders")
    assert.strictEqual(table("\"a.b\"").table, "\"a.b\"")
    assert.strictEqual(Dependency.fromRelation("a.b").table, "\"a.b\"")
  })

  it("no name can pass for another dependency", () => {
    const sets = [
      [table("orders")],
      [tag("orders")],
      [key("orders", "")],
      [table("\"#orders\"")],
      [table("\"!orders\"")],
      [table("\"orders(*)\"")],
      [table("\"orders(id)\"")],
      [row("orders", { id: 1 })],
      [row("orders", { "id=\"1\",x": 1 })],
      [row("orders", { id: "1\",x=\"2" })],
      [row("orders", { id: 1, x: 2 })],
      [tag("a"), tag("b")],
      [tag("a #b")],
      [tag("a2:#b")],
      [key("a", "b:c")],
      [key("a:b", "c")]
    ].map((dependencies) => makeSet(dependencies).id)
    assert.strictEqual(new Set(sets).size, sets.length)
  })

  it("a write leaves alone what only explicit calls reach", () => {
    const kept = new Set(makeSet([table("orders")], { autoInvalidate: false }).stamps)
    assert.isFalse(writeTargets([table("orders")]).stamps.some((stamp) => kept.has(stamp)))
    assert.isTrue(explicitTargets([table("orders")]).stamps.some((stamp) => kept.has(stamp)))
    assert.isTrue(explicitTargets([table("orders")]).stamps.includes("orders"))
  })

  it("an image marks its conjunction where the shape is known in it, else the shape", () => {
    const [image] = writeTargets([row("orders", { id: 7, region: null })]).images
    assert.strictEqual(imageStamp(image, { table: "orders", columns: ["id"] }), "orders(id=\"7\")")
    assert.strictEqual(imageStamp(image, { table: "orders", columns: ["region"] }), "orders(region=null)")
    assert.strictEqual(imageStamp(image, { table: "orders", columns: ["id", "user_id"] }), "orders(id,user_id)")
    assert.strictEqual(imageStamp(image, { table: "orders", columns: ["constructor"] }), "orders(constructor)")
  })

  it("refuses what cannot mean anything", () => {
    refused(() => table(""), "table")
    refused(() => table("a."), "table")
    refused(() => tag(""), "tag")
    refused(() => key("", 1), "key")
    refused(() => key("user", 0.5), "user")
    refused(() => row("orders", {}), "columns")
    refused(() => row("orders", { id: 0.5 }), "id")
    refused(() => row("orders", { id: 2 ** 53 }), "id")
    refused(() => row("orders", { id: new Date() as any }), "id")
    refused(() => row("orders", { id: undefined as any }), "id")
  })
})
