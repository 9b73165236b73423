import * as FastCheck from "fast-check"
import { inspect } from "node:util"
import { describe, expect, it } from "vitest"
import { rowCodec } from "../../src/internal/rowCodec.ts"
import { maxDepth, StoredRows } from "../../src/internal/rows.ts"
import { expectExact, vandalise } from "../support/exact.ts"
import { json, typedRows } from "../support/rowArbitraries.ts"

const encode = (rows: ReadonlyArray<unknown>): string => {
  const stored = StoredRows.make(rows)
  if (stored === undefined) throw new Error("Refused")
  const text = rowCodec.encode(stored)
  if (text === undefined) throw new Error("Not encoded")
  return text
}

const decode = (text: string): StoredRows => rowCodec.decode(text) as StoredRows

const roundTrip = (rows: ReadonlyArray<unknown>): Array<any> => decode(encode(rows)).copy()

const column = (values: ReadonlyArray<unknown>) => values.map((value) => ({ value }))

/** The letter that a column of these values is written with. */
const kindOf = (values: ReadonlyArray<unknown>): string => JSON.parse(encode(column(values)))[3]

describe("rowCodec", () => {
  it("keeps rows of typed columns exactly", () => {
    FastCheck.assert(
      FastCheck.property(typedRows, (rows) => {
        expectExact(roundTrip(rows), rows)
      }),
      { numRuns: 2000 }
    )
  })

  it("keeps rows that are arrays exactly", () => {
    FastCheck.assert(
      FastCheck.property(typedRows, (rows) => {
        const values = rows.map((row) => Object.values(row))
        expectExact(roundTrip(values), values)
      }),
      { numRuns: 500 }
    )
  })

  it("keeps rows that differ in their columns exactly", () => {
    FastCheck.assert(
      FastCheck.property(typedRows, typedRows, (left, right) => {
        const rows = [...left, ...right]
        expectExact(roundTrip(rows), rows)
      }),
      { numRuns: 500 }
    )
  })

  it("keeps json exactly, whatever its keys", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.array(json), (values) => {
        expectExact(roundTrip(column(values)), column(values))
      }),
      { numRuns: 1000 }
    )
  })

  it("keeps whatever can be stored exactly", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.array(FastCheck.anything({ withBigInt: true, withDate: true, withTypedArray: true })),
        (rows) => {
          FastCheck.pre(StoredRows.make(rows) !== undefined)
          expectExact(roundTrip(rows), rows)
          expectExact(roundTrip(column(rows)), column(rows))
        }
      ),
      { numRuns: 1000 }
    )
  })

  it("returns rows that copy like those it was given", () => {
    FastCheck.assert(
      FastCheck.property(typedRows, (rows) => {
        const stored = decode(encode(rows))
        vandalise(stored.copy())
        expectExact(stored.copy(), rows)
        expectExact([...stored.frozen()], rows)
        expectExact(roundTrip(stored.copy()), rows)
      }),
      { numRuns: 500 }
    )
  })

  const few = (values: ReadonlyArray<unknown>) => Array.from({ length: 40 }, (_, i) => values[i % values.length])

  // Each kind with its nulls and its extremes, and the values next to it that must be written otherwise.
  const kinds: ReadonlyArray<readonly [kind: string, values: ReadonlyArray<unknown>]> = [
    ["s", ["", "a", null, "\u0000", "\ud800", "\udc00\ud800", "\u2028", "😀", "\"\\"]],
    ["k", few(["active", "pending", null, "", "\ud800"])],
    ["s", Array.from({ length: 40 }, (_, i) => `different ${i}`)],
    ["n", [0, 1, -1, null, 1.5, Number.MAX_VALUE, Number.MIN_VALUE, 2 ** 53, 1e21, 0.1 + 0.2]],
    ["f", [0, -0, NaN, null, Infinity, -Infinity]],
    ["b", [true, null, false]],
    ["b", [null, null]],
    ["i", [5n, 3n, null, -(2n ** 52n), 2n ** 52n]],
    ["i", [2n ** 53n - 1n, 0n, 1n]],
    ["I", [2n ** 53n - 1n, -1n]],
    ["I", [0n, 2n ** 53n]],
    ["I", [2n ** 53n + 1n, null, -(2n ** 63n), 10n ** 40n]],
    ["d", [null, new Date(NaN), new Date(0), new Date(8.64e15)]],
    ["d", [new Date(-8.64e15), new Date(8.64e15), new Date(-8.64e15 + 1), new Date(8.64e15 - 1)]],
    ["d", [new Date(NaN)]],
    ["y", [new Uint8Array(0), Uint8Array.of(0), null, Uint8Array.of(0, 255), new Uint8Array(70_000).fill(7)]],
    ["t", few([{ a: 1, b: "x" }, null, { a: null, b: "y" }])],
    ["t", [{ months: 1, days: -2, microseconds: 2n ** 62n }, null]],
    ["t", few([{ a: { b: { c: new Date(1) } } }])],
    ["t", few([JSON.parse(`{"__proto__": {"a": 1}, "1": 2}`)])],
    ["a", [[1n, null], [], null, [2n ** 60n]]],
    ["a", [[[new Date(1)]], [[], [null, new Date(NaN)]]]],
    ["a", [[{ a: -0 }], [{ a: 0 }]]],
    ["a", few([["red", "blue"], [], null, ["red"]])],
    ["a", few([[1, "1", { a: [] }], [[]]])],
    ["j", [["a", "b"], [], null]],
    ["j", [{ a: 1 }, { b: 2 }]],
    ["j", few([{}])],
    ["j", ["text", 1, true, null, { a: ["x"] }]],
    ["j", [{ toJSON: "x", a: 1 }, { constructor: 1 }]],
    ["m", [1, 1n, "1", null, undefined, NaN, new Date(1), Uint8Array.of(1), [1n], { a: 1n }, { a: 1 }, ["j", 1]]],
    ["m", [new Float32Array([1.5, NaN, -0])]],
    ["m", [new BigInt64Array([1n, -1n]), new Uint8ClampedArray(3)]],
    ["m", [undefined, undefined]],
    ["m", [new Date(1), Uint8Array.of(1)]],
    ["m", [new Date(1), "x"]],
    ["m", [{ a: 1 }, { a: -0, b: 1 }, JSON.parse(`{"__proto__": -0}`)]]
  ]
  for (const [kind, values] of kinds) {
    it(`writes kind ${kind}: ${values.length > 12 ? "many values" : values.map(describeValue).join(", ").slice(0, 80)}`, () => {
      expect(kindOf(values)).toBe(kind)
      expectExact(roundTrip(column(values)), column(values))
      expectExact(roundTrip(values.map((value) => [value])), values.map((value) => [value]))
    })
  }

  it("keeps the names and the order of columns", () => {
    for (
      const row of [
        { b: 1, a: 2 },
        { 2: "two", 1: "one", b: 3, "-1": 4 },
        { "": 1, "?column?": 2, constructor: 3, toString: 4, hasOwnProperty: 5, length: 6 },
        JSON.parse(`{"a": 1, "__proto__": {"x": 1}, "b": 2}`)
      ]
    ) {
      expectExact(roundTrip([row, row]), [row, row])
    }
    expect(Object.getPrototypeOf(roundTrip([JSON.parse(`{"__proto__": null}`)])[0])).toBe(Object.prototype)
  })

  it("keeps no rows, rows without columns, and rows that are alike except for an order", () => {
    for (const rows of [[], [{}], [{}, {}], [[], []], [{ a: 1, b: 2 }, { b: 2, a: 1 }], [[1], [1, 2]], [1n, null]]) {
      expectExact(roundTrip(rows), rows)
    }
  })

  it("keeps values as deep as they are stored", () => {
    let value: unknown = 1n
    for (let i = 0; i < maxDepth; i++) value = i % 3 === 0 ? { value } : [value]
    expectExact(roundTrip([{ value }]), [{ value }])
    expectExact(roundTrip([{ value }, { value: 1 }]), [{ value }, { value: 1 }])
  })

  it("is a small text", () => {
    expect(encode([{ id: 7n, name: "Ada", at: new Date(5) }, { id: 9n, name: "Bob", at: null }])).toBe(
      `[1,2,["id","name","at"],"isd",7,0,2,"Ada","Bob",5,0,null]`
    )
    expect(encode([[1, "a"]])).toBe(`[1,1,2,"ns",1,"a"]`)
  })

  it("encodes nothing but stored rows", () => {
    for (const value of [undefined, null, "text", [], [{ a: 1 }], { rows: [] }]) {
      expect(rowCodec.encode(value)).toBeUndefined()
    }
  })

  it("refuses texts that it does not write", () => {
    const texts = [
      "",
      "null",
      "{}",
      "1",
      "\"text\"",
      "[]",
      "not json",
      `[2,1,["a"],"n",1]`, // another version
      `[0,1,["a"],"n",1]`,
      `["1",1,["a"],"n",1]`,
      `[1,1,["a"],"n"]`, // too short
      `[1,1,["a"],"n",1,2]`, // too long
      `[1,-1,["a"],"n",1]`, // no number of rows
      `[1,1.5,["a"],"n",1]`,
      `[1,1e9,["a"],"n",1]`,
      `[1,2,["a"],"n",1]`,
      `[1,"1",["a"],"n",1]`,
      `[1,1,["a"],"",1]`, // no kind for a column
      `[1,1,["a"],"nn",1,1]`,
      `[1,1,["a","a"],"nn",1,1]`, // one name twice
      `[1,1,[1],"n",1]`,
      `[1,1,[],""]`,
      `[1,1,0,""]`,
      `[1,1,{},"n",1]`,
      `[1,1,2,"n",1]`,
      `[1,1,null,"nn",1,1]`,
      `[1,1,["a"],1,1]`,
      `[1,1,["a"],"?",1]`, // an unknown kind
      `[1,1,["a"],"s",1]`, // other values than the kind's
      `[1,1,["a"],"n","1"]`,
      `[1,1,["a"],"n",true]`,
      `[1,1,["a"],"f","nan"]`,
      `[1,1,["a"],"b","3"]`,
      `[1,1,["a"],"b","11"]`,
      `[1,1,["a"],"b",1]`,
      `[1,1,["a"],"k","0",1]`,
      `[1,1,["a"],"k","1","x"]`,
      `[1,1,["a"],"k","00","x"]`,
      `[1,2,["a"],"k","0","x"]`,
      `[1,1,["a"],"k","é","x"]`,
      `[1,1,["a"],"k","@","x"]`,
      `[1,1,["a"],"i",0.5,0]`,
      `[1,1,["a"],"i",0,0.5]`,
      `[1,1,["a"],"i","0",0]`,
      `[1,1,["a"],"i",9007199254740991,1]`,
      `[1,1,["a"],"I","0x1"]`,
      `[1,1,["a"],"I",""]`,
      `[1,1,["a"],"I","1.5"]`,
      `[1,1,["a"],"I",1]`,
      `[1,1,["a"],"d",0,"y"]`,
      `[1,1,["a"],"d",0,8640000000000001]`,
      `[1,1,["a"],"d",null,0]`,
      `[1,1,["a"],"y","a"]`,
      `[1,1,["a"],"y","!!!!"]`,
      `[1,1,["a"],"y","AA=A"]`,
      `[1,1,["a"],"y","éAAA"]`,
      `[1,1,["a"],"y","${"!".repeat(400)}"]`,
      `[1,1,["a"],"y",1]`,
      `[1,1,["a"],"t",["b"],"n",0]`,
      `[1,1,["a"],"t",["b"],"n","2",1]`,
      `[1,1,["a"],"t",["b"],"n","2"]`,
      `[1,1,["a"],"t",["b"],"n","11",1]`,
      `[1,1,["a"],"t",["b","b"],"nn",0,1,1]`,
      `[1,1,["a"],"t",[],"",0]`,
      `[1,1,["a"],"a",[1],"n"]`,
      `[1,1,["a"],"a",[1e9],"n",1]`,
      `[1,1,["a"],"a",[-1],"n"]`,
      `[1,1,["a"],"a",[1,1],"n",1,1]`,
      `[1,1,["a"],"a",["1"],"n",1]`,
      `[1,1,["a"],"m",{}]`,
      `[1,1,["a"],"m",[]]`,
      `[1,1,["a"],"m",["?"]]`,
      `[1,1,["a"],"m",["j"]]`,
      `[1,1,["a"],"m",["o","a"]]`,
      `[1,1,["a"],"m",["o",1,1]]`,
      `[1,1,["a"],"m",["d",0.5]]`,
      `[1,1,["a"],"m",["d"]]`,
      `[1,1,["a"],"m",["y","Array","AAAA"]]`,
      `[1,1,["a"],"m",["y","Float64Array","AAAA"]]`,
      `[1,1,["a"],"m",["address","10.0.0"]]`,
      `[1,1,["a"],"m",["network","10.0.0.1/8"]]`,
      `[1,1,["a"],"m",["constructor","x"]]`,
      `[1,1,["a"],"j",${"[".repeat(maxDepth + 2)}${"]".repeat(maxDepth + 2)}]`,
      `[1,1,["a"],"m",${"[\"a\",".repeat(maxDepth + 2)}1${"]".repeat(maxDepth + 2)}]`,
      `[1,1,["a"],"a",${"[1],\"a\",".repeat(maxDepth + 2)}[0],"b",""]`
    ]
    for (const text of texts) expect(() => decode(text), text).toThrow()
  })

  it("quotes nothing of a text that it refuses", () => {
    const texts = [
      `[1,1,["a"],"s","SECRET`,
      `SECRET`,
      `[1,1,["SECRET"],"n","SECRET"]`,
      `[1,1,["a"],"m",["address","SECRET"]]`,
      `[1,1,["a"],"m",["network","SECRET"]]`,
      `[1,1,["a"],"m",["SECRET","SECRET"]]`,
      `[1,1,["a"],"I","SECRET"]`,
      `[1,1,["a"],"y","SECRET!!"]`,
      `[1,1,["a"],"SECRET",1]`
    ]
    for (const text of texts) {
      let caught: unknown
      try {
        decode(text)
      } catch (error) {
        caught = error
      }
      expect(caught).toBeInstanceOf(SyntaxError)
      expect(inspect(caught, { depth: 10, showHidden: true })).not.toContain("SECRET")
    }
  })

  const expectWellFormed = (text: string): "rows" | "refused" => {
    let stored: StoredRows
    try {
      stored = decode(text)
    } catch {
      return "refused"
    }
    const rows = stored.copy()
    expect(rows.length).toBe(JSON.parse(text)[1])
    // What make() checks is what makes rows well-formed, and codec and copies must agree about them.
    expectExact(StoredRows.make(rows)!.copy(), rows)
    expectExact(roundTrip(rows), rows)
    return "rows"
  }

  it("reads damaged texts as well-formed rows or not at all", () => {
    const outcomes = { rows: 0, refused: 0 }
    FastCheck.assert(
      FastCheck.property(
        typedRows,
        FastCheck.array(
          FastCheck.tuple(
            FastCheck.nat(),
            FastCheck.nat(3),
            FastCheck.constantFrom(..."0123456789,\"[]{}-.eE nsfbikIdytajmo:lutr")
          ),
          {
            minLength: 1,
            maxLength: 3
          }
        ),
        (rows, damages) => {
          let text = encode(rows)
          for (const [where, how, what] of damages) {
            const at = where % (text.length + 1)
            text = how === 0
              ? text.slice(0, at) + what + text.slice(at + 1)
              : how === 1
              ? text.slice(0, at) + what + text.slice(at)
              : how === 2
              ? text.slice(0, at) + text.slice(at + 1)
              : text.slice(0, at)
          }
          outcomes[expectWellFormed(text)]++
        }
      ),
      { numRuns: 3000 }
    )
    expect(outcomes.rows).toBeGreaterThan(100)
    expect(outcomes.refused).toBeGreaterThan(1000)
  })

  it("reads texts with other values in them as well-formed rows or not at all", () => {
    const outcomes = { rows: 0, refused: 0 }
    FastCheck.assert(
      FastCheck.property(
        typedRows,
        FastCheck.array(
          FastCheck.tuple(
            FastCheck.nat(),
            FastCheck.oneof(FastCheck.jsonValue(), FastCheck.constantFrom(0, 1, 1e9, "nn", "t", "m", ["o", "a", 1]))
          ),
          { minLength: 1, maxLength: 2 }
        ),
        (rows, replacements) => {
          const body = JSON.parse(encode(rows))
          for (const [where, value] of replacements) body[where % body.length] = value
          outcomes[expectWellFormed(JSON.stringify(body))]++
        }
      ),
      { numRuns: 3000 }
    )
    expect(outcomes.rows).toBeGreaterThan(100)
    expect(outcomes.refused).toBeGreaterThan(1000)
  })

  it("gives a text that asks for much memory little", () => {
    // Each of these would need gigabytes if its numbers were believed.
    for (const kind of "skfnbiIdytajm") {
      expect(() => decode(`[1,4294967295,["a"],"${kind}",0]`)).toThrow(/no count/)
      expect(() => decode(`[1,4294967295,null,"${kind}",0]`)).toThrow(/no count/)
    }
    expect(() => decode(`[1,2,["a"],"a",[4294967295,4294967295],"n",0]`)).toThrow(/no count/)
    // Each length could be true of a text this long, but not all of them.
    const lengths = Array.from({ length: 2_000 }, () => 9_999)
    expect(() => decode(JSON.stringify([1, lengths.length, ["a"], "a", lengths, "b", ""]))).toThrow(/no count/)
  })

  it("does the same without Buffer", async () => {
    const rows = [0, 1, 2, 3, 4095, 4096, 4097, 100_000].map((length) => ({
      value: Uint8Array.from({ length }, (_, i) => i * 7)
    }))
    const { Buffer } = globalThis
    Reflect.deleteProperty(globalThis, "Buffer")
    let edge: typeof rowCodec
    try {
      const path = "../../src/internal/rowCodec.ts?without-buffer"
      edge = (await import(/* @vite-ignore */ path)).rowCodec
    } finally {
      globalThis.Buffer = Buffer
    }
    expect(edge).not.toBe(rowCodec)
    const text = edge.encode(StoredRows.make(rows))!
    expect(text).toBe(encode(rows))
    expectExact((edge.decode(text) as StoredRows).copy(), rows)
    for (const text of [`[1,1,["a"],"y","a"]`, `[1,1,["a"],"y","!!!!"]`]) expect(() => edge.decode(text)).toThrow()
  })
})

function describeValue(value: unknown): string {
  return typeof value === "bigint"
    ? `${value}n`
    : value instanceof Date
    ? `Date(${value.getTime()})`
    : ArrayBuffer.isView(value)
    ? `${value.constructor.name}(${value.byteLength})`
    : Object.is(value, -0)
    ? "-0"
    : typeof value === "object" && value !== null
    ? Array.isArray(value) ? "array" : "object"
    : typeof value === "string"
    ? JSON.stringify(value)
    : String(value)
}
