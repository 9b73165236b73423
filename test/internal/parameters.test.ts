import { PgTypes } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as fc from "fast-check"
import { canonical, isScalar, localKey } from "../../src/internal/parameters.ts"

const bytes = (...values: ReadonlyArray<number>) => Uint8Array.from(values)

/** Lists of which no two are the same query. */
const distinct: ReadonlyArray<ReadonlyArray<unknown>> = [
  [],
  [1],
  ["1"],
  [BigInt(1)],
  [true],
  ["true"],
  ["T"],
  [null],
  [undefined],
  ["null"],
  [0],
  [-0],
  [NaN],
  ["NaN"],
  [Infinity],
  [""],
  ["\0"],
  ["\0n0;"],
  ["n1;"],
  [1, 2],
  [12],
  ["1", "2"],
  ["1,2"],
  ["a", "b"],
  ["ab", ""],
  ["", "ab"],
  [[1, 2]],
  [["1", "2"]],
  [[[1], [2]]],
  [[1], [2]],
  [[]],
  [[[]]],
  [[null]],
  [new Date(0)],
  [new Date(1)],
  [new Date(NaN)],
  ["1970-01-01T00:00:00.000Z"],
  [bytes()],
  [bytes(1)],
  [bytes(1, 2)],
  [bytes(1), bytes(2)],
  [Int8Array.from([1])],
  [PgTypes.jsonb({ a: 1 })],
  [PgTypes.json({ a: 1 })],
  [PgTypes.jsonb({ a: "1" })],
  [PgTypes.jsonb(null)],
  [PgTypes.jsonb([1])],
  [PgTypes.text("1")],
  [PgTypes.varchar("1")],
  [PgTypes.int4(1)],
  [PgTypes.int8(BigInt(1))],
  [Result.getOrThrow(PgTypes.array([1], PgTypes.OID.int4))],
  [PgTypes.interval({ months: 1, days: 0, microseconds: BigInt(0) })],
  [PgTypes.interval({ months: 0, days: 1, microseconds: BigInt(0) })]
]

const value = fc.letrec((tie) => ({
  scalar: fc.oneof(
    fc.integer(),
    fc.double(),
    fc.bigInt(),
    fc.boolean(),
    fc.constantFrom(null, undefined, -0, 0),
    fc.string({ unit: "binary", maxLength: 4 }),
    fc.string({ maxLength: 4 }),
    fc.date(),
    fc.uint8Array({ maxLength: 4 })
  ),
  array: fc.array(tie("any"), { maxLength: 3 }),
  any: fc.oneof({ weight: 4, arbitrary: tie("scalar") }, tie("array"))
})).any

/** Whether two lists are the same by value and by type, decided without text. */
const same = (a: unknown, b: unknown): boolean => {
  if (Array.isArray(a)) {
    return Array.isArray(b) && a.length === b.length && a.every((element, i) => same(element, b[i]))
  }
  if (a instanceof Date) return b instanceof Date && Object.is(a.getTime(), b.getTime())
  if (a instanceof Uint8Array) {
    return b instanceof Uint8Array && a.length === b.length && a.every((byte, i) => byte === b[i])
  }
  return Object.is(a, b)
}

describe("parameters", () => {
  it("tells apart what differs by value or by type", () => {
    for (const [i, one] of distinct.entries()) {
      for (const [j, other] of distinct.entries()) {
        assert.isString(canonical(one), `${i}`)
        assert.strictEqual(canonical(one) === canonical(other), i === j, `${i} and ${j}`)
        const keys = new Map([[localKey(one), true]])
        assert.strictEqual(keys.has(localKey(other)), i === j, `keys of ${i} and ${j}`)
      }
    }
  })

  it("two lists have one text exactly where they are the same", () => {
    fc.assert(
      fc.property(fc.array(value, { maxLength: 3 }), fc.array(value, { maxLength: 3 }), (one, other) => {
        const equal = same(one, other)
        assert.strictEqual(canonical(one) === canonical(other), equal)
        assert.strictEqual(new Set([localKey(one), localKey(other)]).size === 1, equal)
        assert.strictEqual(canonical(one), canonical(structuredClone(one)))
      }),
      { numRuns: 2000 }
    )
  })

  it("refuses what has no canonical text", () => {
    const cyclic: Array<unknown> = []
    cyclic.push(cyclic)
    class Money {
      readonly cents = 1
    }
    for (
      const one of [
        Symbol("s"),
        () => 1,
        new Money(),
        new Map(),
        new Float64Array(1),
        cyclic,
        [new Money()],
        PgTypes.jsonb({ big: BigInt(1) }),
        PgTypes.jsonb(undefined),
        PgTypes.int4(Symbol("s") as any)
      ]
    ) {
      assert.strictEqual(canonical([one]), undefined)
      assert.strictEqual(localKey([one]), undefined)
    }
  })

  it("a scalar is what a template can only take as one parameter", () => {
    for (const scalar of [1, "a", BigInt(1), true, null, undefined, new Date(), bytes(1)]) {
      assert.isTrue(isScalar(scalar))
    }
    for (const other of [[1], {}, PgTypes.int4(1), Symbol("s"), () => 1]) assert.isFalse(isScalar(other))
  })
})
