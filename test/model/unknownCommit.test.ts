import { describe } from "vitest"
import { about } from "./expectations.ts"
import { type Guards, type Options, unknownCommit } from "./unknownCommit.ts"

const { holds, refutedWithout } = about<Options>(unknownCommit, {
  settled: true,
  arrivalAwaited: true,
  invalidatedAfter: true,
  quarantined: true
})

const stale = "the write is settled, and a hit would be stale"
const lost = ["it arrives", "the connection is lost", "INVALIDATE at clock 1, at the loss"]
const overtaken = ["reads v0", "it becomes visible", "STORE v0: accepted"]

describe("a commit whose outcome is unknown", () => {
  holds("is invalidated once it is settled, and not served before", { lookups: 2 }, 379)
  holds("whoever reads meanwhile", { lookups: 6 }, 1135)

  refutedWithout<Guards>({
    settled: [{}, {
      what: stale,
      steps: 9,
      states: 319,
      ends: [...lost, "settled: INVALIDATE at clock 2", "LOOKUP: miss, lease 2", ...overtaken]
    }],
    arrivalAwaited: [{}, {
      what: stale,
      steps: 10,
      states: 407,
      ends: [
        "the database tells that it has ended",
        "it arrives",
        "settled: INVALIDATE at clock 2",
        "LOOKUP: miss, lease 2",
        ...overtaken
      ]
    }],
    invalidatedAfter: [{}, {
      what: stale,
      steps: 10,
      states: 298,
      ends: [
        "LOOKUP: miss, lease 1",
        "reads v0",
        "it becomes visible",
        "the database tells that it has ended",
        "settled",
        "STORE v0: accepted"
      ]
    }],
    quarantined: [{}, {
      what: "the process that wrote serves what is older than what is visible",
      steps: 9,
      states: 258,
      ends: [...lost, "LOOKUP: miss, lease 1", ...overtaken, "the process that wrote serves v0"]
    }]
  })
})
