import { assert, describe, it } from "@effect/vitest"
import { Habits, type Hint } from "../../src/internal/habits.ts"

/** Lookups of a form, the last one a minute after the others: a miss for each number that is no multiple of `hitEvery`. */
const use = (
  habits: Habits,
  lookups: number,
  options: { readonly hitEvery?: number; readonly reason?: string; readonly adaptive?: boolean; readonly now?: number }
): ReadonlyArray<Hint> => {
  const hints: Array<Hint> = []
  for (let i = 1; i <= lookups; i++) {
    if (options.hitEvery !== undefined && i % options.hitEvery === 0) {
      habits.hits++
      continue
    }
    const now = (options.now ?? 0) + (i === lookups ? 60_000 : 0)
    const hint = habits.missed(options.reason, options.adaptive ?? false, now)
    if (hint !== undefined) hints.push(hint)
  }
  return hints
}

describe("Habits", () => {
  it("a form that is hardly ever read again is reported, once, after 200 lookups", () => {
    const habits = new Habits()
    assert.deepStrictEqual(use(habits, 199, {}), [])
    assert.deepStrictEqual(use(habits, 1, {}), ["hardly-read"])
    assert.deepStrictEqual(use(habits, 1_000, {}), [])
  })

  it("a program that starts is not judged by its first minute", () => {
    const habits = new Habits()
    for (let i = 0; i < 10_000; i++) assert.isUndefined(habits.missed("absent", true, i < 5_000 ? 0 : 59_999))
    assert.strictEqual(habits.missed("absent", true, 60_000), "hardly-read")
  })

  it("one hit in about twenty is enough", () => {
    assert.deepStrictEqual(use(new Habits(), 1_000, { hitEvery: 19 }), [])
    assert.deepStrictEqual(use(new Habits(), 1_001, { hitEvery: 25 }), ["hardly-read"])
  })

  it("where most of what is stored is invalidated before it is read, that is said", () => {
    assert.deepStrictEqual(use(new Habits(), 200, { reason: "invalidated" }), ["invalidated-unread"])
    const mixed = new Habits()
    use(mixed, 100, { reason: "invalidated" })
    assert.deepStrictEqual(use(mixed, 100, { reason: "absent" }), ["hardly-read"])
  })

  it("every window is judged anew", () => {
    const habits = new Habits()
    assert.deepStrictEqual(use(habits, 201, { hitEvery: 2 }), [])
    assert.deepStrictEqual(use(habits, 200, {}), ["hardly-read"])
  })

  it("an adaptive one pauses for a minute, each time that it does not pay", () => {
    const habits = new Habits()
    assert.isFalse(habits.isPaused(1_000))
    use(habits, 200, { now: 1_000 })
    assert.isFalse(habits.isPaused(1_000))
    // It has been reported, and pauses all the same.
    assert.deepStrictEqual(use(habits, 200, { adaptive: true, now: 1_000 }), [])
    assert.deepStrictEqual([habits.isPaused(61_000), habits.isPaused(120_999), habits.isPaused(121_000)], [
      true,
      true,
      false
    ])
    use(habits, 199, { adaptive: true, now: 130_000 })
    assert.isFalse(habits.isPaused(190_000))
    use(habits, 1, { adaptive: true, now: 130_000 })
    assert.isTrue(habits.isPaused(190_000))
  })
})
