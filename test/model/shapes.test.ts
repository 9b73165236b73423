import { describe } from "vitest"
import { about } from "./expectations.ts"
import { type Options, shapes } from "./shapes.ts"

const { holds, refuted } = about(shapes, {})

const floor: Options = { absent: "floor", onlyRegistered: false }
const atStore: Options = { ...floor, registeredAt: "store" }

const stale = "no invalidation is outstanding, and a hit would be stale"

describe("row dependencies hold", () => {
  holds("registered at LOOKUP, absent is refused", {}, 34_184)
  holds("registered at LOOKUP, absent is judged by a floor", floor, 29_659)
  holds("registered at STORE, every older lease judged by the table", { ...atStore, newShape: "since" }, 19_371)
})

describe("row dependencies do not hold", () => {
  refuted("registered at STORE", atStore, {
    what: stale,
    steps: 5,
    states: 1062,
    ends: [
      "r0 LOOKUP u=0: miss, lease 0",
      "r0 reads v0",
      "COMMIT v1, u from 0 to 0",
      "INVALIDATE u=0, u=0 at clock 1",
      "r0 STORE u=0: accepted"
    ]
  })
  refuted("registered at STORE, the first one judged by the table", { ...atStore, newShape: "first store" }, {
    what: stale,
    steps: 8,
    states: 9780,
    ends: [
      "COMMIT v1, u from 0 to 0",
      "INVALIDATE u=0, u=0 at clock 1",
      "r0 STORE u=0: refused",
      "r1 STORE u=0: accepted"
    ]
  })
  refuted("absent counts as not invalidated", { absent: "floor" }, {
    what: stale,
    steps: 6,
    states: 4501,
    ends: [
      "r0 STORE u=0: accepted",
      "COMMIT v1, u from 0 to 0",
      "the store trims t(u=0)",
      "INVALIDATE u=0, u=0 at clock 1"
    ]
  })
})
