import { describe } from "vitest"
import { about, long, type Removed } from "./expectations.ts"
import { type Guards, type Options, sharedStore } from "./sharedStore.ts"

const { holds, refuted, refutedWithout } = about(sharedStore, {})

const strict: Options = { promise: "visible", fence: true }
const resolved: Options = { ...strict, validated: true, resolver: true, fencesExpire: true }
const failover: Options = { validated: true, epochOfPrimary: true, failover: true }
const replicated: Options = { ...resolved, ...failover, fenceReplicated: true, fencesOutliveEpoch: true }
const barrier: Options = { ...resolved, epochOfPrimary: true, barrier: true }
const evicting: Options = { evicted: "stamp", lossIsWhole: true }

const stale = "all is quiet, and a hit would be stale"
const older = "a hit is older than what is visible"

describe("a shared store holds what it promises", () => {
  holds("without faults", {}, 3104)
  holds("strict", strict, 2848)
  holds("the reverse index is evicted", { validated: true, evicted: "index" }, 10_624)
  holds("metadata are evicted", { ...evicting, validated: true }, 20_298)
  holds("it fails over", failover, 70_006)
  holds("writers die, and a relay tells", { validated: true, writersDie: true, relay: true }, 5545)
  holds("queries read from snapshots", { validated: true, readsInSnapshot: true, leaseBeforeSnapshot: true }, 16_648)
  holds(
    "queries read from a database replica",
    { validated: true, readsFromReplica: true, positionCompared: true },
    7100
  )
  holds("a change feed invalidates", { validated: true, feed: true, feedAwaitsVisible: true }, 8224)
  holds("strict: fences expire", resolved, 13_942)
  holds("strict: writers die", { ...resolved, writersDie: true }, 29_370)
})

// One reader finds the same counterexamples as two. Two are half a minute of work.
describe("a shared store holds what it promises under several faults", () => {
  const readers = long ? 2 : 1
  const holdsFor = (name: string, options: Options, one: number, two: number) =>
    holds(name, { ...options, readers }, long ? two : one)

  holdsFor(
    "it fails over, writers die, and a relay tells",
    { ...resolved, ...failover, promise: "acknowledged", writersDie: true, relay: true },
    52_523,
    1_318_621
  )
  holdsFor("strict: it fails over, and fences are replicated", replicated, 14_161, 397_332)
  holdsFor(
    "strict: it fails over, fences are replicated, and writers die",
    { ...replicated, writersDie: true },
    28_733,
    741_312
  )
  holdsFor("strict: it fails over, and a barrier follows", { ...barrier, failover: true }, 27_705, 727_075)
  holdsFor(
    "strict: it fails over, a barrier follows, and writers die",
    { ...barrier, failover: true, writersDie: true },
    59_636,
    1_436_346
  )
  holdsFor(
    "strict: metadata are evicted, a barrier follows, and writers die",
    { ...barrier, ...evicting, writersDie: true },
    11_657,
    229_871
  )
  if (long) {
    holds(
      "strict: it fails over, metadata are evicted, barriers follow, and writers die",
      { ...barrier, ...evicting, failover: true, writersDie: true, readers: 1 },
      416_763
    )
  }
})

const removed: Removed<Guards, Options> = {
  leaseCompared: [{}, {
    what: stale,
    steps: 7,
    states: 468,
    ends: ["w0 COMMIT v1 logged", "w0 COMMIT v1 visible", "w0 INVALIDATE, returns v1", "r0 STORE v0"]
  }],
  afterCommit: [{}, {
    what: stale,
    steps: 7,
    states: 1672,
    ends: ["r0 STORE v0", "w0 COMMIT v1 logged", "w0 COMMIT v1 visible", "w0 returns v1"]
  }],
  validated: [{ evicted: "index" }, {
    what: stale,
    steps: 8,
    states: 1227,
    ends: ["w0 COMMIT v1 logged", "w0 COMMIT v1 visible", "the store evicts the index", "w0 INVALIDATE, returns v1"]
  }],
  lossIsWhole: [{ ...evicting, validated: true }, {
    what: stale,
    steps: 8,
    states: 1313,
    ends: ["w0 COMMIT v1 visible", "w0 INVALIDATE, returns v1", "the store evicts the stamp", "r0 STORE v0"]
  }],
  epochOfPrimary: [failover, {
    what: stale,
    steps: 8,
    states: 2107,
    ends: ["w0 COMMIT v1 visible", "w0 INVALIDATE, returns v1", "the store fails over to its replica", "r0 STORE v0"]
  }],
  leaseBeforeSnapshot: [{ validated: true, readsInSnapshot: true }, {
    what: stale,
    steps: 8,
    states: 2014,
    ends: [
      "w0 COMMIT v1 logged",
      "w0 COMMIT v1 visible",
      "w0 INVALIDATE, returns v1",
      "r0 LOOKUP: miss, lease 1:1",
      "r0 reads v0",
      "r0 STORE v0"
    ]
  }],
  positionCompared: [{ validated: true, readsFromReplica: true }, {
    what: "a hit is older than what is acknowledged",
    steps: 8,
    states: 660,
    ends: [
      "w0 COMMIT v1 visible",
      "w0 INVALIDATE, returns v1",
      "r0 LOOKUP: miss, lease 1:1",
      "r0 reads v0",
      "r0 STORE v0",
      "r0 LOOKUP: hit v0"
    ]
  }],
  relay: [{ validated: true, writersDie: true }, {
    what: stale,
    steps: 7,
    states: 627,
    ends: ["w0 BEGIN", "w0 COMMIT v1 logged", "w0 COMMIT v1 visible", "w0 dies after COMMIT"]
  }],
  feedAwaitsVisible: [{ validated: true, feed: true }, {
    what: stale,
    steps: 8,
    states: 2439,
    ends: [
      "the feed tells of v1: INVALIDATE",
      "r0 LOOKUP: miss, lease 1:1",
      "r0 reads v0",
      "r0 STORE v0",
      "w0 COMMIT v1 visible",
      "w0 returns"
    ]
  }],
  fence: [strict, {
    what: older,
    steps: 7,
    states: 251,
    ends: ["w0 BEGIN", "w0 COMMIT v1 logged", "w0 COMMIT v1 visible", "r0 LOOKUP: hit v0"]
  }],
  resolver: [resolved, {
    what: older,
    steps: 8,
    states: 1411,
    ends: ["w0 COMMIT v1 logged", "w0 COMMIT v1 visible", "the fence of w0 expires", "r0 LOOKUP: hit v0"]
  }],
  fenceReplicated: [replicated, {
    what: older,
    steps: 8,
    states: 9801,
    ends: [
      "the store fails over to its replica",
      "r0 LOOKUP: miss, lease 101:0",
      "r0 reads v0",
      "r0 STORE v0",
      "w0 COMMIT v1 visible",
      "r0 LOOKUP: hit v0"
    ]
  }],
  fencesOutliveEpoch: [replicated, {
    what: older,
    steps: 8,
    states: 7128,
    ends: [
      "the store fails over to its replica",
      "r0 LOOKUP: miss, lease 101:0",
      "r0 reads v0",
      "r0 STORE v0",
      "w0 COMMIT v1 visible",
      "r0 LOOKUP: hit v0"
    ]
  }],
  barrier: [{ ...barrier, failover: true }, {
    what: older,
    steps: 8,
    states: 9514,
    ends: [
      "the store fails over to its replica",
      "r0 LOOKUP: miss, lease 101:0",
      "r0 reads v0",
      "r0 STORE v0",
      "w0 COMMIT v1 visible",
      "r0 LOOKUP: hit v0"
    ]
  }]
}

describe("without one of its guards, a shared store does not", () => {
  refutedWithout(removed)
})

describe("what looks right, and is not", () => {
  refuted("stamps without a clock that is lost with them", { validated: true, evicted: "clock" }, {
    what: stale,
    steps: 12,
    states: 6638,
    ends: [
      "r0 reads v1",
      "w1 BEGIN",
      "w1 COMMIT v2 logged",
      "w1 COMMIT v2 visible",
      "the store evicts the clock",
      "w1 INVALIDATE, returns v2",
      "r0 STORE v1"
    ]
  })
  refuted("fences that expire on their own", { writersDie: true, fence: true, fencesExpire: true }, {
    what: stale,
    steps: 8,
    states: 3832,
    ends: ["w0 COMMIT v1 logged", "w0 COMMIT v1 visible", "w0 dies after COMMIT", "the fence of w0 expires"]
  })
  refuted(
    "fences that invalidate, and expire on their own",
    { writersDie: true, fence: true, fencesExpire: true, fencePurges: true },
    {
      what: stale,
      steps: 8,
      states: 7798,
      ends: [
        "the fence of w0 expires",
        "r0 LOOKUP: miss, lease 1:1",
        "r0 reads v0",
        "r0 STORE v0",
        "w0 COMMIT v1 visible",
        "w0 dies after COMMIT"
      ]
    }
  )
  refuted(
    "fences that are lost with the epoch, and a writer dies",
    { ...resolved, ...failover, promise: "acknowledged", writersDie: true },
    {
      what: stale,
      steps: 8,
      states: 32_559,
      ends: [
        "the store fails over to its replica",
        "r0 LOOKUP: miss, lease 101:0",
        "r0 reads v0",
        "r0 STORE v0",
        "w0 COMMIT v1 visible",
        "w0 dies after COMMIT"
      ]
    }
  )
  refuted("fences that are evicted", { ...barrier, ...evicting, barrier: false }, {
    what: older,
    steps: 8,
    states: 6014,
    ends: [
      "the store evicts the stamp",
      "r0 LOOKUP: miss, lease 11:0",
      "r0 reads v0",
      "r0 STORE v0",
      "w0 COMMIT v1 visible",
      "r0 LOOKUP: hit v0"
    ]
  })
})
