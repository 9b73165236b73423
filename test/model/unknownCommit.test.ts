import { describe } from "vitest"
import { about } from "./expectations.ts"
import { unknownCommit } from "./unknownCommit.ts"

const { holds, refuted } = about(unknownCommit, {})

describe("a commit whose outcome is unknown", () => {
  holds("is invalidated once it is settled", { settled: true }, 66)
  refuted("is not, if that is done at once", {}, {
    what: "the write is settled, and a hit would be stale",
    steps: 6,
    states: 61,
    ends: [
      "INVALIDATE at clock 1",
      "LOOKUP: miss, lease 1",
      "reads v0",
      "COMMIT v1 visible",
      "STORE v0: accepted"
    ]
  })
})
