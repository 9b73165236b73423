import { describe, expect, it } from "vitest"
import { bit, explore, type Model, replaced, same, sorted } from "./checker.ts"

interface Counters {
  readonly counts: ReadonlyArray<number>
}

const limit = 3

/** Two counters, each counted up to the limit, one step at a time. */
const counters = (wrong?: (state: Counters) => string | undefined): Model<Counters> => ({
  initial: { counts: [0, 0] },
  next({ counts }, step) {
    for (const i of [0, 1]) {
      const count = counts[i]! + 1
      if (count <= limit) step(() => `counter ${i} to ${count}`, { counts: replaced(counts, i, count) })
    }
  },
  ...(wrong ? { wrong } : {})
})

describe("explore", () => {
  it("visits every state once", () => {
    expect(explore(counters())).toEqual({ states: 16 })
  })

  it("finds a shortest way to a wrong state", () => {
    const report = explore(counters(({ counts }) => counts[0] === 1 && counts[1] === 2 ? "there" : undefined))
    expect(report.violation).toEqual({ what: "there", trace: ["counter 0 to 1", "counter 1 to 1", "counter 1 to 2"] })
  })

  it("finds a wrong initial state", () => {
    expect(explore(counters(() => "at once"))).toEqual({ states: 1, violation: { what: "at once", trace: [] } })
  })

  it("finds a wrong step, even into a state that is known", () => {
    const model: Model<Counters> = {
      initial: { counts: [0] },
      next(state, step) {
        step(() => "stays", state)
        step(() => "stays, but must not", state, "stayed")
      }
    }
    expect(explore(model)).toEqual({ states: 1, violation: { what: "stayed", trace: ["stays, but must not"] } })
  })

  it("finds where nothing more can happen", () => {
    const report = explore({ ...counters(), stuck: ({ counts }) => `stuck at ${counts.join()}` })
    expect(report.violation?.what).toBe("stuck at 3,3")
    expect(report.violation?.trace).toHaveLength(6)
  })

  it("keeps steps apart that lead to the same state when it tells a trace", () => {
    const model: Model<number> = {
      initial: 0,
      next(state, step) {
        step(() => "stays", state)
        if (state < 2) step(() => "by one", state + 1)
        if (state < 2) step(() => "by one, too", state + 1)
      },
      wrong: (state) => state === 2 ? "two" : undefined
    }
    expect(explore(model).violation?.trace).toEqual(["by one", "by one"])
  })

  it("visits one of the states that differ only in which is which, and tells a trace that happens", () => {
    const model = counters(({ counts }) => counts.join() === "1,2" ? "there" : undefined)
    const canonical = ({ counts }: Counters): Counters => ({ counts: sorted(counts) })
    expect(explore({ ...counters(), canonical })).toEqual({ states: 10 })
    expect(explore({ ...model, canonical }).violation).toBeUndefined()
    const either = counters(({ counts }) => sorted(counts).join() === "1,2" ? "there" : undefined)
    expect(explore({ ...either, canonical }).violation?.trace).toEqual([
      "counter 0 to 1",
      "counter 0 to 2",
      "counter 1 to 1"
    ])
  })

  it("traces through more states than it has room for at first", () => {
    const model: Model<number> = {
      initial: 0,
      next: (state, step) => step(() => `${state + 1}`, state + 1),
      wrong: (state) => state === 20_000 ? "far" : undefined
    }
    const report = explore(model)
    expect(report.states).toBe(20_001)
    expect(report.violation?.trace).toHaveLength(20_000)
    expect(report.violation?.trace.at(-1)).toBe("20000")
  })

  it("refuses to stop halfway", () => {
    expect(() => explore(counters(), 15)).toThrow("more than 15 states")
    expect(explore(counters(), 16)).toEqual({ states: 16 })
  })
})

describe("equality of states", () => {
  const values = [
    null,
    false,
    true,
    -1,
    0,
    1,
    229,
    230,
    256,
    65_535,
    "",
    "a",
    "b",
    [],
    [[]],
    [null],
    [0],
    [0, 1],
    [1, 0],
    [[0], 1],
    [[0, 1]],
    { a: 0 },
    { a: 1 },
    { a: { b: 1 } },
    { a: [1] },
    { a: "a" },
    { a: null },
    { a: 0, b: 1 },
    { a: { b: 0 }, c: 1 },
    { a: { b: 0, c: 1 } },
    { a: 1, b: 0 }
  ]

  it("tells all kinds of values apart", () => {
    for (const [i, a] of values.entries()) {
      for (const [j, b] of values.entries()) {
        expect(same([a, 0], [b, 0]), `${JSON.stringify(a)} ${JSON.stringify(b)}`).toBe(i === j)
      }
    }
  })

  it("refuses what it cannot tell apart", () => {
    for (const value of [undefined, 0.5, -2, 65_536, Number.NaN, Infinity, 1n, () => 0]) {
      expect(() => same([value], []), String(value)).toThrow()
    }
  })

  it("refuses a state that is too large to be told apart", () => {
    expect(() => same(Array.from({ length: 5000 }, () => 0), [])).toThrow("too large")
  })

  it("sorts equal arrays into equal orders", () => {
    const arrays: ReadonlyArray<ReadonlyArray<unknown>> = [[], [1], [1, 2], [1, 2, 3], ["b", "a", "b"], [
      { a: 1 },
      { a: 0 },
      { a: 2 },
      { a: 0 }
    ]]
    for (const array of arrays) {
      for (const rotation of array.keys()) {
        const rotated = [...array.slice(rotation), ...array.slice(0, rotation)]
        expect(sorted(rotated)).toEqual(sorted(array))
        expect(sorted(rotated.reverse())).toEqual(sorted(array))
        expect(sorted(rotated)).toHaveLength(array.length)
      }
    }
  })

  it("sets of small numbers", () => {
    expect([bit(0), bit(1) | bit(2)]).toEqual([1, 6])
  })
})
