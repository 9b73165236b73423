import { describe } from "vitest"
import { about } from "./expectations.ts"
import { shapeLimit } from "./shapeLimit.ts"

const { holds, refuted } = about(shapeLimit, {})

describe("a shape that leaves", () => {
  holds("leaves no entry valid", {}, 43_476)
  holds("leaves no entry valid, even at the same clock", { clockMoves: false }, 29_170)
  refuted("leaves entries that no write reaches, if its stamp stays", { stampLeaves: false }, {
    what: "no invalidation is outstanding, and a hit would be stale",
    steps: 6,
    states: 498,
    ends: [
      "r0 STORE u=0: accepted",
      "r0 LOOKUP w=0: miss, lease 1",
      "COMMIT v1",
      "INVALIDATE the row at clock 2"
    ]
  })
})
