import { assert, describe, it } from "@effect/vitest"
import { CacheError, CachePolicy } from "effect-query-cache"
import { thrownBy } from "./support/thrown.ts"

describe("CachePolicy.resolve", () => {
  it.each(
    [
      ["name", ""],
      ["name", 7],
      ["timeToLive", 0],
      ["timeToLive", -1],
      ["timeToLive", "-1 second"],
      ["timeToLive", Infinity],
      ["timeToLive", "soon"],
      ["tags", "one"],
      ["tags", [""]],
      ["tags", [7]],
      ["dependencies", ["users"]],
      ["dependencies", "users"],
      ["autoInvalidate", "no"],
      ["cacheWhen", true],
      ["staleWhileRevalidate", -1],
      ["staleWhileRevalidate", Infinity],
      ["staleIfError", "-1 minute"],
      ["softTimeout", 0],
      ["softTimeout", Infinity],
      ["hardTimeout", 0],
      ["hardTimeout", NaN],
      ["refreshAhead", "yes"],
      ["refreshAhead", { beta: -1 }],
      ["refreshAhead", { beta: Infinity }],
      ["refreshAhead", { beta: NaN }],
      ["refreshAhead", {}],
      ["refreshAhead", null],
      ["jitter", 1],
      ["jitter", -0.1],
      ["jitter", NaN],
      ["jitter", "0.1"],
      ["maxEntryBytes", 0],
      ["maxEntryBytes", 1.5],
      ["maxFormBytes", -1],
      ["maxFormBytes", Infinity],
      ["adaptive", 1],
      ["rows", "thawed"],
      ["ttl", 1]
    ] as const
  )("refuses %s: %j by name and value", (option, value) => {
    const error = thrownBy(() => CachePolicy.resolve({ [option]: value } as any))
    assert.instanceOf(error, CacheError.InvalidOptionError)
    assert.include(error.message, option)
    assert.deepStrictEqual([error.option, error.value], [option, value])
  })

  it("refuses a soft time-out that is not shorter than the hard one", () => {
    const both = (softTimeout: number, hardTimeout: number) => () => CachePolicy.resolve({ softTimeout, hardTimeout })
    assert.throws(both(100, 100), /softTimeout/)
    assert.throws(both(101, 100), /softTimeout/)
    assert.doesNotThrow(both(99, 100))
  })

  it("what is left open stays open, what switches something off does not", () => {
    const open = CachePolicy.resolve({})
    assert.deepStrictEqual(Object.values(open).filter((value) => value !== undefined), [[]])
    const off = CachePolicy.resolve({ staleIfError: 0, refreshAhead: false, jitter: 0, autoInvalidate: false })
    const on = CachePolicy.resolve({ staleIfError: 1, refreshAhead: true, jitter: 0.5, autoInvalidate: true })
    const { autoInvalidate, jitter, refreshAhead, staleIfErrorMillis } = CachePolicy.merge(on, off)
    assert.deepStrictEqual([autoInvalidate, jitter, refreshAhead, staleIfErrorMillis], [false, 0, 0, 0])
  })
})
