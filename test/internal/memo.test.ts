import * as FastCheck from "fast-check"
import { describe, expect, it } from "vitest"
import * as Memo from "../../src/internal/memo.ts"

describe("a memo", () => {
  it("holds no more entries and bytes than allowed, and what was used within half of that", () => {
    const texts = FastCheck.array(FastCheck.nat({ max: 30 }).map((n) => String.fromCharCode(97 + n).repeat(n + 1)))
    FastCheck.assert(FastCheck.property(
      texts,
      FastCheck.integer({ min: 1, max: 20 }),
      FastCheck.integer({ min: 2, max: 400 }),
      (texts, capacity, maxBytes) => {
        const memo = Memo.make<object>({ capacity, maxBytes })
        const values = new Map<string, object>()
        const used: Array<string> = []
        for (const text of texts) {
          const known = memo.get(text)
          expect([undefined, values.get(text)]).toContain(known)
          if (known === undefined) {
            const value = { text }
            values.set(text, value)
            memo.set(text, value)
          }
          used.unshift(text)
        }
        // The texts used last, until they fill half a memo less the largest text: these have to be there.
        const recent = new Set<string>()
        for (const text of used) {
          recent.add(text)
          const bytes = [...recent].reduce((sum, text) => sum + text.length * 2, 0)
          if (recent.size > Math.max(1, Math.floor(capacity / 2)) || bytes > maxBytes / 2) break
          expect(memo.get(text)).toBe(values.get(text))
        }
        const held = [...values.keys()].filter((text) => memo.get(text) === values.get(text))
        expect(held.length).toBeLessThanOrEqual(capacity)
        expect(held.reduce((sum, text) => sum + text.length * 2, 0)).toBeLessThanOrEqual(maxBytes)
      }
    ))
  })
})
