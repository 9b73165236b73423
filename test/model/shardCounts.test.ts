import { describe } from "vitest"
import { about, long, type Removed } from "./expectations.ts"
import { guarded, type Guards, type Options, shardCounts } from "./shardCounts.ts"

const { holds, refutedWithout } = about<Options>(shardCounts, guarded)

const stale = "a hit is older than a write that has returned"

describe("processes with different numbers of shards hold what they promise", () => {
  holds("nothing is lost", { losses: 0 }, 4_042)
  holds("the metadata of the first shard are lost once", {}, 94_297)
  if (long) holds("twice", { losses: 2, fills: 3 }, 1_267_364)
})

const removed: Removed<Guards, Options> = {
  writesToAll: [{}, {
    what: stale,
    steps: 9,
    states: 1052,
    ends: [
      "reader 0 reads v0",
      "COMMIT v1",
      "INVALIDATE at the first shard, and the write returns",
      "reader 0 STORE v0: accepted",
      "reader 0 LOOKUP: hit v0"
    ]
  }],
  opens: [{}, {
    what: stale,
    steps: 6,
    states: 1639,
    ends: [
      "COMMIT v1",
      "INVALIDATE at the first shard, and the write returns",
      "reader 0 STORE v0: accepted",
      "reader 0 LOOKUP: hit v0"
    ]
  }],
  recordedFirst: [{}, {
    what: stale,
    steps: 13,
    states: 12_514,
    ends: [
      "reader 1 clears the second shard",
      "reader 0 LOOKUP: miss, lease 0",
      "reader 0 reads v0",
      "COMMIT v1",
      "INVALIDATE at the first shard, and the write returns",
      "reader 0 STORE v0: accepted",
      "reader 1 says that the second shard is ready",
      "reader 1 LOOKUP: hit v0"
    ]
  }],
  cleared: [{}, {
    what: stale,
    steps: 11,
    states: 3597,
    ends: [
      "the metadata of the first shard are lost",
      "INVALIDATE at the first shard, and the write returns",
      "reader 0 OPENs: not ready",
      "reader 0 says that the second shard is ready",
      "reader 0 LOOKUP: hit v0"
    ]
  }],
  sameEpoch: [{ losses: 2 }, {
    what: stale,
    steps: 13,
    states: 26_814,
    ends: [
      "the metadata of the first shard are lost",
      "INVALIDATE at the first shard, and the write returns",
      "reader 1 says that the second shard is ready",
      "reader 1 LOOKUP: hit v0"
    ]
  }]
}

describe("without one of their guards, they do not", () => {
  refutedWithout(removed)
})
