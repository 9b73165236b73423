import { assert, describe, it } from "@effect/vitest"
import { InvalidOptionError } from "../../src/CacheError.ts"
import * as CachePolicy from "../../src/CachePolicy.ts"
import * as Dependency from "../../src/Dependency.ts"
import { Rules } from "../../src/internal/rules.ts"
import { thrownBy } from "../support/thrown.ts"

const resolve = (
  rules: ReadonlyArray<CachePolicy.Rule>,
  call: CachePolicy.CachePolicy = {},
  options: { readonly layer?: CachePolicy.CachePolicy; readonly tables?: ReadonlyArray<string> } = {}
) =>
  new Rules(rules, CachePolicy.resolve(options.layer ?? {})).complete(CachePolicy.resolve(call), options.tables ?? [])

const timeOf = (...args: Parameters<typeof resolve>) => {
  const policy = resolve(...args)
  return policy === "uncached" ? policy : policy.timeToLiveMillis
}

const minutes = (timeToLive: number): CachePolicy.CachePolicy => ({ timeToLive: timeToLive * 60_000 })

describe("precedence", () => {
  // Each field, with what the call, a rule and the layer say of it, and what holds where none does.
  const fields: ReadonlyArray<
    readonly [
      said: keyof CachePolicy.CachePolicy,
      resolved: keyof CachePolicy.Complete,
      values: readonly [unknown, unknown, unknown],
      held: readonly [unknown, unknown, unknown],
      orElse: unknown
    ]
  > = [
    ["timeToLive", "timeToLiveMillis", [1, 2, 3], [1, 2, 3], 60_000],
    ["staleWhileRevalidate", "staleWhileRevalidateMillis", [0, 2, 3], [0, 2, 3], 0],
    ["staleIfError", "staleIfErrorMillis", [0, 2, 3], [0, 2, 3], 0],
    ["softTimeout", "softTimeoutMillis", [1, 2, 3], [1, 2, 3], Infinity],
    ["hardTimeout", "hardTimeoutMillis", [1, 2, 3], [1, 2, 3], Infinity],
    ["refreshAhead", "refreshAhead", [false, { beta: 2 }, true], [0, 2, 1], 0],
    ["jitter", "jitter", [0, 0.5, 0.25], [0, 0.5, 0.25], 0],
    ["maxEntryBytes", "maxEntryBytes", [1, 2, 3], [1, 2, 3], 1024 * 1024],
    ["maxFormBytes", "maxFormBytes", [1, 2, 3], [1, 2, 3], undefined],
    ["adaptive", "adaptive", [false, true, false], [false, true, false], undefined],
    ["autoInvalidate", "autoInvalidate", [true, false, true], [true, false, true], true],
    ["rows", "rows", ["fresh", "frozen", "fresh"], ["fresh", "frozen", "fresh"], "fresh"]
  ]

  for (const [said, resolved, values, held, orElse] of fields) {
    it(`${said}: the call, a rule, the layer, the default`, () => {
      const [call, rule, layer] = values.map((value) => ({ [said]: value }))
      const matching: ReadonlyArray<CachePolicy.Rule> = [
        { match: { table: "orders" }, policy: { tags: ["says nothing of it"] } },
        { match: { table: "orders" }, policy: rule! },
        { match: { table: "orders" }, policy: layer! },
        { match: { table: "users" }, policy: layer! }
      ]
      const tables = ["orders"]
      const at = (...args: Parameters<typeof resolve>) => {
        const policy = resolve(...args)
        assert.notStrictEqual(policy, "uncached")
        return (policy as CachePolicy.Complete)[resolved]
      }
      assert.deepStrictEqual(
        [
          at(matching, call, { layer: layer!, tables }),
          at(matching, {}, { layer: layer!, tables }),
          at(matching.slice(3), {}, { layer: layer!, tables }),
          at(matching.slice(3), {}, { tables })
        ],
        [...held, orElse]
      )
    })
  }

  it("tags and dependencies of all that match add up", () => {
    const policy = resolve(
      [
        { match: { table: "orders" }, policy: { tags: ["first"] } },
        { match: { table: "orders" }, policy: { dependencies: [Dependency.key("second", 2)] } },
        { match: { table: "users" }, policy: { tags: ["other"] } }
      ],
      { tags: ["call"] },
      { layer: { tags: ["layer"] }, tables: ["orders"] }
    )
    assert.sameMembers(
      [...Dependency.makeSet((policy as CachePolicy.Complete).dependencies).stamps],
      [
        ...Dependency.makeSet([
          Dependency.tag("call"),
          Dependency.tag("first"),
          Dependency.key("second", 2),
          Dependency.tag("layer")
        ]).stamps
      ]
    )
  })

  it("a policy that is the layer's own counts once", () => {
    const layer = CachePolicy.resolve({ tags: ["layer"], timeToLive: "2 minutes" })
    const policy = new Rules([], layer).complete(layer, [])
    assert.deepStrictEqual(
      policy === "uncached" ? policy : [policy.dependencies.length, policy.timeToLiveMillis],
      [1, 120_000]
    )
  })

  it("\"uncached\" keeps out whatever else is said, wherever it stands", () => {
    const rules: ReadonlyArray<CachePolicy.Rule> = [
      { match: { table: "orders" }, policy: minutes(2) },
      { match: { tag: "live" }, policy: "uncached" }
    ]
    for (const inOrder of [rules, [...rules].reverse()]) {
      assert.strictEqual(timeOf(inOrder, { tags: ["live"], timeToLive: "1 hour" }, { tables: ["orders"] }), "uncached")
      assert.strictEqual(timeOf(inOrder, {}, { tables: ["orders"] }), 120_000)
    }
  })
})

describe("what a rule matches", () => {
  const named = (match: CachePolicy.Rule["match"], name: string | undefined) =>
    timeOf([{ match, policy: minutes(5) }], name === undefined ? {} : { name }) === 300_000

  it.each(
    [
      ["dashboard", "dashboard", true],
      ["dashboard", "dashboards", false],
      ["dashboard:*", "dashboard:sales", true],
      ["dashboard:*", "dashboard:", true],
      ["dashboard:*", "my dashboard:sales", false],
      ["*:byId", "users:byId", true],
      ["*:byId", "users:byIds", false],
      ["a*b*c", "a-b-c", true],
      ["a*b*c", "a-c-b", false],
      ["*", "anything\nat all", true],
      ["users.byId", "users.byId", true],
      ["users.byId", "usersXbyId", false],
      ["(a|b)[c]", "(a|b)[c]", true],
      ["(a|b)[c]", "ac", false],
      ["*", undefined, false]
    ] as const
  )("the name %j, called %j: %j", (pattern, name, matches) => {
    assert.strictEqual(named(pattern, name), matches)
    assert.strictEqual(named({ name: pattern }, name), matches)
  })

  it("the layer's name, where the call has none", () => {
    assert.strictEqual(
      timeOf([{ match: "app", policy: minutes(5) }], {}, { layer: { name: "app" } }),
      300_000
    )
  })

  it("a table that is read, or that is among the dependencies", () => {
    const rules: ReadonlyArray<CachePolicy.Rule> = [{ match: { table: "Orders" }, policy: minutes(5) }]
    const named = Dependency.table("Orders").table
    assert.strictEqual(timeOf(rules, {}, { tables: [named] }), 300_000)
    assert.strictEqual(timeOf(rules, {}, { tables: ["users"] }), 60_000)
    assert.strictEqual(timeOf(rules, { dependencies: [Dependency.table("Orders")] }), 300_000)
    assert.strictEqual(timeOf(rules, { dependencies: [Dependency.row("Orders", { id: 7 })] }), 300_000)
    assert.strictEqual(timeOf(rules, { dependencies: [Dependency.key("Orders", 7)] }), 60_000)
  })

  it("a tag of the call or of the layer", () => {
    const rules: ReadonlyArray<CachePolicy.Rule> = [{ match: { tag: "premium" }, policy: minutes(5) }]
    assert.strictEqual(timeOf(rules, { tags: ["other", "premium"] }), 300_000)
    assert.strictEqual(timeOf(rules, {}, { layer: { tags: ["premium"] } }), 300_000)
    assert.strictEqual(timeOf(rules, { tags: ["premium:x"] }), 60_000)
  })
})

describe("a rule that cannot mean anything is refused by name and value", () => {
  const policy = minutes(1)
  it.each(
    [
      ["rules", "no list", "no list"],
      ["priority", [{ match: "a", policy, priority: 1 }], 1],
      ["rules.policy.name", [{ match: "a", policy: { name: "b" } }], "b"],
      ["rules.match", [{ match: "", policy }], ""],
      ["rules.match", [{ match: undefined, policy }], undefined],
      ["rules.match", [{ match: {}, policy }], {}],
      ["rules.match", [{ match: { name: "a", tag: "b" }, policy }], { name: "a", tag: "b" }],
      ["rules.match", [{ match: { table: "a", tag: "b" }, policy }], { table: "a", tag: "b" }],
      ["rules.match", [{ match: { kind: "a" }, policy }], { kind: "a" }],
      ["rules.match.table", [{ match: { table: 7 }, policy }], 7],
      ["rules.match.tag", [{ match: { tag: " " }, policy }], " "],
      ["timeToLive", [{ match: "a", policy: { timeToLive: 0 } }], 0]
    ] as ReadonlyArray<readonly [string, any, unknown]>
  )("%s of %j", (option, rules, value) => {
    const error = thrownBy(() => new Rules(rules, CachePolicy.resolve({})))
    assert.instanceOf(error, InvalidOptionError)
    assert.deepStrictEqual([error.option, error.value], [option, value])
  })
})
