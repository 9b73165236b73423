import { describe } from "vitest"
import { delivery, guarded, type Guards, type Options } from "./delivery.ts"
import { about, long, type Removed } from "./expectations.ts"

const { holds, refutedWithout } = about<Options>(delivery, guarded)

const older = "an answer is older than a write that had returned when it was asked for"

describe("delivery holds what it promises", () => {
  holds("three writes", { writes: 3, lookups: 1, fills: 0 }, 94_082)
  holds("another process fills", { lookups: 1, timeouts: 1 }, 108_566)
  holds("the queue holds one", { capacity: 1, lookups: 1, fills: 0 }, 18_862)
  if (long) {
    holds("another process fills, two time-outs", { lookups: 1 }, 444_502)
    holds("another process fills, the queue holds one", { capacity: 1, lookups: 1 }, 502_106)
    holds("another process fills, two reads", { timeouts: 1 }, 503_952)
  }
})

const removed: Removed<Guards, Options> = {
  unserved: [{ timeouts: 1 }, {
    what: older,
    steps: 6,
    states: 3471,
    ends: [
      "COMMIT a v1, INVALIDATE is sent",
      "INVALIDATE a times out, the write returns",
      "STORE v0: accepted",
      "LOOKUP a: hit v0"
    ]
  }],
  unservedByGroup: [{ lookups: 1 }, {
    what: older,
    steps: 11,
    states: 98_862,
    ends: [
      "COMMIT a v2, INVALIDATE is sent",
      "INVALIDATE a times out, the write returns",
      "a is delivered",
      "the other STORE v1: accepted",
      "LOOKUP a: hit v1"
    ]
  }],
  retried: [{ timeouts: 1 }, {
    what: older,
    steps: 6,
    states: 2796,
    ends: ["INVALIDATE a times out, the write returns", "STORE v0: accepted", "LOOKUP a: hit v0"]
  }],
  sendingStandsForNone: [{ lookups: 1 }, {
    what: older,
    steps: 11,
    states: 94_509,
    ends: [
      "the other LOOKUP a: miss, lease 1",
      "the other reads v1",
      "COMMIT a v2, INVALIDATE is sent",
      "INVALIDATE a times out, the write returns",
      "a is delivered",
      "the other STORE v1: accepted",
      "LOOKUP a: hit v1"
    ]
  }],
  overflowIsEverything: [{ capacity: 1 }, {
    what: older,
    steps: 8,
    states: 14_543,
    ends: [
      "LOOKUP b: miss, lease 0",
      "reads b v0",
      "COMMIT b v1, INVALIDATE is sent",
      "INVALIDATE b times out, the write returns",
      "STORE v0: accepted",
      "LOOKUP b: hit v0"
    ]
  }],
  detached: [{ timeouts: 1 }, {
    what: older,
    steps: 6,
    states: 2925,
    ends: [
      "reads a v0",
      "COMMIT a v1, INVALIDATE is sent",
      "INVALIDATE a is carried out",
      "the write to a returns",
      "a read of a joins"
    ]
  }]
}

describe("without one of its guards, delivery does not", () => {
  refutedWithout(removed)
})
