import { describe } from "vitest"
import { about, long, type Removed } from "./expectations.ts"
import { guarded, type Guards, type Options, shards } from "./shards.ts"

const { holds, refutedWithout } = about<Options>(shards, guarded)

const stale = "nothing is under way, and a hit would be stale"

describe("shards hold what they promise", () => {
  holds("without faults", { timeouts: 0 }, 11_918)
  holds("one invalidation times out at a shard", {}, 168_030)
  holds("two do", { timeouts: 2, fills: 1 }, 89_960)
  if (long) {
    holds("two do, two fills", { timeouts: 2 }, 989_308)
  }
})

const removed: Removed<Guards, Options> = {
  everyShard: [{}, {
    what: stale,
    steps: 6,
    states: 2020,
    ends: ["COMMIT v1", "INVALIDATE at shard 1, clock 1", "the write returns", "STORE v0 at shard 0: accepted"]
  }],
  retriedPerShard: [{ timeouts: 2 }, {
    what: stale,
    steps: 8,
    states: 15_337,
    ends: [
      "INVALIDATE at shard 0 is lost",
      "INVALIDATE at shard 1 is lost",
      "the write returns, undelivered in part",
      "INVALIDATE again at shard 1, clock 1",
      "STORE v0 at shard 0: accepted"
    ]
  }],
  leasePerShard: [{}, {
    what: stale,
    steps: 12,
    states: 64_943,
    ends: [
      "LOOKUP at shard 0: miss, lease 2",
      "reads v1",
      "COMMIT v2",
      "INVALIDATE at shard 0, clock 2",
      "INVALIDATE at shard 1, clock 3",
      "the write returns",
      "STORE v1 at shard 0: accepted"
    ]
  }],
  tokenPerShard: [{}, {
    what: "an answer is older than the session's token",
    steps: 14,
    states: 83_104,
    ends: [
      "INVALIDATE again at shard 0, clock 2",
      "clock 1 of shard 1 arrives",
      "STORE v1 at shard 1: accepted",
      "INVALIDATE at shard 1, clock 2",
      "the write returns",
      "the other process answers v1 of shard 1"
    ]
  }]
}

describe("without one of their guards, shards do not", () => {
  refutedWithout(removed)
})
