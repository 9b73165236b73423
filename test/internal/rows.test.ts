import * as IpInterface from "effect/net/IpInterface"
import * as NetAddress from "effect/net/NetAddress"
import * as FastCheck from "fast-check"
import { describe, expect, it } from "vitest"
import { maxDepth, StoredRows } from "../../src/internal/rows.ts"
import { difference, expectExact, vandalise } from "../support/exact.ts"
import { json, objectOf, typedRows } from "../support/rowArbitraries.ts"

const make = (rows: ReadonlyArray<unknown>): StoredRows => {
  const stored = StoredRows.make(rows)
  if (stored === undefined) throw new Error("Refused")
  return stored
}

const nest = (depth: number): unknown => {
  let value: unknown = 1
  for (let i = 0; i < depth; i++) value = i % 2 === 0 ? [value] : { value }
  return value
}

describe("StoredRows", () => {
  it("copies rows of typed columns exactly", () => {
    FastCheck.assert(
      FastCheck.property(typedRows, (rows) => {
        const stored = make(rows)
        expect(stored.length).toBe(rows.length)
        expectExact(stored.copy(), rows)
        expectExact(make(stored.copy()).copy(), rows)
      }),
      { numRuns: 1000 }
    )
  })

  it("copies rows that are arrays exactly", () => {
    FastCheck.assert(
      FastCheck.property(typedRows, (rows) => {
        const values = rows.map((row) => Object.values(row))
        expectExact(make(values).copy(), values)
      }),
      { numRuns: 300 }
    )
  })

  it("copies json exactly, whatever its keys", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.array(json), (values) => {
        const rows = values.map((value) => ({ value }))
        expectExact(make(rows).copy(), rows)
        expectExact(make(values).copy(), values)
      }),
      { numRuns: 500 }
    )
  })

  it("copies anything exactly or refuses it", () => {
    let copied = 0
    let refused = 0
    FastCheck.assert(
      FastCheck.property(
        FastCheck.array(FastCheck.anything({
          withBigInt: true,
          withDate: true,
          withTypedArray: true,
          withSparseArray: true,
          withNullPrototype: true,
          withMap: true,
          withSet: true,
          withBoxedValues: true,
          withObjectString: true
        })),
        (rows) => {
          const stored = StoredRows.make(rows)
          if (stored === undefined) return void refused++
          copied++
          expectExact(stored.copy(), rows)
        }
      ),
      { numRuns: 1000 }
    )
    expect(copied).toBeGreaterThan(100)
    expect(refused).toBeGreaterThan(100)
  })

  it("keeps what it took when the rows it was given change", () => {
    FastCheck.assert(
      FastCheck.property(typedRows, (rows) => {
        const reference = make(rows)
        const stored = make(rows)
        vandalise(rows)
        expectExact(stored.copy(), reference.copy())
      }),
      { numRuns: 300 }
    )
  })

  it("gives every caller rows of its own", () => {
    FastCheck.assert(
      FastCheck.property(typedRows, (rows) => {
        const stored = make(rows)
        const mine = stored.copy()
        const yours = stored.copy()
        const frozen = stored.frozen()
        vandalise(mine)
        expectExact(yours, rows)
        expectExact(stored.copy(), rows)
        expectExact([...frozen], rows)
      }),
      { numRuns: 500 }
    )
  })

  it("shares nothing that can be changed between copies", () => {
    const stored = make([{
      date: new Date(5),
      bytes: Uint8Array.of(1, 2),
      tags: ["a", ["b"]],
      json: { list: [{ deep: true }] },
      dates: [new Date(7)]
    }])
    const [mine] = stored.copy()
    const [yours] = stored.copy()
    mine.date.setTime(0)
    mine.bytes[0] = 9
    mine.tags[1].push("c")
    mine.json.list[0].deep = false
    mine.dates[0].setTime(0)
    expectExact(yours, {
      date: new Date(5),
      bytes: Uint8Array.of(1, 2),
      tags: ["a", ["b"]],
      json: { list: [{ deep: true }] },
      dates: [new Date(7)]
    })
    expectExact(stored.copy(), [yours])
  })

  it("freezes deeply, once, and apart from the copies", () => {
    FastCheck.assert(
      FastCheck.property(typedRows, (rows) => {
        const stored = make(rows)
        const frozen = stored.frozen()
        expect(stored.frozen()).toBe(frozen)
        expect(isFrozenDeeply(frozen)).toBe(true)
        expectExact([...frozen], rows)
      }),
      { numRuns: 300 }
    )
  })

  it("does not let a Date of frozen rows reach the copies", () => {
    const stored = make([{ at: new Date(5), bytes: Uint8Array.of(1) }])
    const [row] = stored.frozen()
    row.at.setTime(6)
    row.bytes[0] = 2
    expectExact(stored.copy(), [{ at: new Date(5), bytes: Uint8Array.of(1) }])
  })

  it("never touches a prototype", () => {
    const row = JSON.parse(`{"__proto__": {"polluted": 1}, "json": {"__proto__": {"polluted": 2}}}`)
    const stored = make([row, row])
    const [copy] = stored.copy()
    expectExact(copy, row)
    expect(Object.getPrototypeOf(copy)).toBe(Object.prototype)
    expect(Object.getPrototypeOf(copy.json)).toBe(Object.prototype)
    expect(copy.polluted).toBeUndefined()
    expect(copy.json.polluted).toBeUndefined()
    expect(({} as any).polluted).toBeUndefined()
  })

  it("takes rows without columns, rows that differ, and none at all", () => {
    for (
      const rows of [
        [],
        [{}],
        [{}, {}],
        [[]],
        [{ a: 1 }, { a: 1, b: 2 }],
        [{ a: 1, b: 2 }, { b: 2, a: 1 }],
        [{ a: 1 }, [1]],
        [[1], [1, 2]],
        [{ a: 1 }, null],
        [{ a: new Date(1) }, { b: [new Date(2)] }]
      ]
    ) {
      const stored = make(rows)
      expectExact(stored.copy(), rows)
      vandalise(stored.copy())
      expectExact(stored.copy(), rows)
    }
  })

  it("copies a column that holds a Date in one row and something else in the next", () => {
    const rows = [{ v: new Date(1) }, { v: Uint8Array.of(1) }, { v: "x" }, { v: null }, { v: { a: 1 } }]
    expectExact(make(rows).copy(), rows)
  })

  const cyclic: Record<string, unknown> = {}
  cyclic.left = cyclic.right = cyclic
  const match = "a=1".match(/a=(\d)/)!
  const refused: Record<string, unknown> = {
    "a function": () => 1,
    "a symbol": Symbol.iterator,
    "a symbol key": { [Symbol.iterator]: 1 },
    "an accessor": {
      get a() {
        return 1
      }
    },
    "a hidden property": Object.defineProperty({}, "a", { value: 1, enumerable: false }),
    "a class": new (class A {
      a = 1
    })(),
    "an Error": new Error("no"),
    "a Map": new Map(),
    "a URL": new URL("https://example.com"),
    "a RegExp": /a/,
    "a boxed number": Object(1),
    "an object without a prototype": Object.create(null),
    "an object that inherits": Object.create({ a: 1 }),
    "a false Date": Object.create(Date.prototype),
    "false bytes": Object.create(Uint8Array.prototype),
    "a false array": Object.create(Array.prototype),
    "a false address": Object.freeze(Object.create(Object.getPrototypeOf(IpInterface.fromStringUnsafe("::1/64")))),
    "an address that can be changed": Object.assign(
      Object.create(Object.getPrototypeOf(NetAddress.ipFromStringUnsafe("10.0.0.1"))),
      { value: 1 }
    ),
    "what inherits from an address": Object.freeze(Object.create(NetAddress.ipFromStringUnsafe("10.0.0.1"))),
    "a subclass of Date": new (class extends Date {})(0),
    "a subclass of Array": new (class extends Array {})(),
    "a Date with properties": Object.assign(new Date(0), { zone: "UTC" }),
    "a Buffer": Buffer.from("a"),
    "an ArrayBuffer": new ArrayBuffer(1),
    "a DataView": new DataView(new ArrayBuffer(1)),
    "an array with a hole": new Array(3).fill(1, 1),
    "an array with a hole in place of a property": Object.assign(new Array(1), { extra: 1 }),
    "a RegExp match": match,
    "a cycle": cyclic,
    "arguments": (function(_: number) {
      return arguments
    })(1),
    "a proxy that throws": new Proxy({}, {
      ownKeys: () => {
        throw new Error("no")
      }
    }),
    "depth": nest(maxDepth + 1)
  }
  for (const [what, value] of Object.entries(refused)) {
    it(`refuses ${what}`, () => {
      expect(StoredRows.make([{ value }])).toBeUndefined()
      expect(StoredRows.make([[value]])).toBeUndefined()
      expect(StoredRows.make([{ value: [value] }])).toBeUndefined()
      expect(StoredRows.make([{ value: { value } }])).toBeUndefined()
      expect(StoredRows.make([{ a: 1 }, { b: value }])).toBeUndefined()
    })
  }

  it("refuses rows that are not plain data themselves", () => {
    expect(StoredRows.make([Object.create(null)])).toBeUndefined()
    expect(StoredRows.make([{ a: 1 }, Object.create({ a: 1 })])).toBeUndefined()
    expect(StoredRows.make([match])).toBeUndefined()
    expect(StoredRows.make(match)).toBeUndefined()
    expect(StoredRows.make(new Array(2))).toBeUndefined()
    expect(StoredRows.make(objectOf([["length", 0]]) as any)).toBeUndefined()
  })

  it("takes values as deep as the limit", () => {
    const rows = [{ value: nest(maxDepth) }]
    expectExact(make(rows).copy(), rows)
  })

  it("estimates memory by what the rows hold", () => {
    const text = "x".repeat(1000)
    expect(make([{ text }]).bytes).toBeGreaterThan(1000)
    expect(make([{ text }]).bytes).toBeLessThan(3000)
    expect(make([{ bytes: new Uint8Array(5000) }]).bytes).toBeGreaterThan(5000)
    expect(make([{ json: { list: [text, { text }] } }]).bytes).toBeGreaterThan(2000)
    const one = make([{ id: 1, at: new Date(0) }]).bytes
    const hundred = make(Array.from({ length: 100 }, () => ({ id: 1, at: new Date(0) }))).bytes
    expect(hundred / one).toBeGreaterThan(50)
    expect(hundred / one).toBeLessThan(101)
  })
})

const isFrozenDeeply = (value: unknown): boolean => {
  if (typeof value !== "object" || value === null || value instanceof Date || ArrayBuffer.isView(value)) return true
  return Object.isFrozen(value) && Object.values(value).every(isFrozenDeeply)
}

describe("difference", () => {
  it("sees what looser comparisons overlook", () => {
    const pairs: ReadonlyArray<readonly [unknown, unknown]> = [
      [0, -0],
      [1, 1n],
      ["1", 1],
      [null, undefined],
      [{ a: undefined }, {}],
      [{ a: 1, b: 2 }, { b: 2, a: 1 }],
      [new Date(NaN), new Date(0)],
      [Uint8Array.of(1), Int8Array.of(1)],
      [Uint8Array.of(1), Buffer.of(1)],
      [Object.create(null), {}],
      [[1], { 0: 1, length: 1 }],
      [[undefined], new Array(1)],
      [{ a: [{ b: -0 }] }, { a: [{ b: 0 }] }],
      [IpInterface.fromStringUnsafe("10.0.0.1/8"), IpInterface.fromStringUnsafe("10.0.0.1/9")]
    ]
    for (const [left, right] of pairs) {
      expect(difference(left, right)).toBeDefined()
      expect(difference(right, left)).toBeDefined()
      expect(difference(left, left)).toBeUndefined()
    }
    expect(difference(NaN, NaN)).toBeUndefined()
    expect(difference(new Date(NaN), new Date(NaN))).toBeUndefined()
  })
})
