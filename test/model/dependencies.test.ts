import { describe } from "vitest"
import { dependencies, guarded, type Guards, type Options } from "./dependencies.ts"
import { about, long, type Removed } from "./expectations.ts"

const { holds, refutedWithout } = about<Options>(dependencies, guarded)

const stale = "nothing is outstanding, and a hit of q would be stale"
const staleWithTag = "nothing is outstanding, and a hit of q with the tag would be stale"
const accepted = "a fill is accepted that is older than what is acknowledged"

describe("entries with several dependencies hold what they promise", () => {
  holds("flat, stamps are trimmed", { lookups: 2, trims: 2 }, 116_678)
  holds("flat, metadata are lost", { lookups: 2, trims: 0, losses: 1 }, 49_944)
  holds("grouped, stamps are trimmed", { layout: "grouped", lookups: 2, trims: 2 }, 73_909)
  holds("grouped, metadata are lost", { layout: "grouped", lookups: 2, trims: 0, losses: 1 }, 49_348)
  if (long) {
    holds("flat, three lookups", {}, 240_323)
    holds("flat, three lookups, metadata are lost", { losses: 1 }, 1_304_750)
    holds("grouped, three lookups", { layout: "grouped" }, 197_642)
    holds("grouped, three lookups, metadata are lost", { layout: "grouped", losses: 1 }, 1_108_132)
  }
})

const removed: Removed<Guards, Options> = {
  storeComparesAll: [{ layout: "grouped" }, {
    what: accepted,
    steps: 5,
    states: 598,
    ends: ["r0 reads 0.0.0", "COMMIT to b", "INVALIDATE b at clock 1", "r0 STORE q: accepted"]
  }],
  lookupComparesAll: [{}, {
    what: stale,
    steps: 5,
    states: 1805,
    ends: ["r0 reads 0.0.0", "r0 STORE q: accepted", "COMMIT to b", "INVALIDATE b at clock 1"]
  }],
  absentRefused: [{}, {
    what: staleWithTag,
    steps: 5,
    states: 1782,
    ends: ["r0 reads 0.0.0", "r0 STORE q: accepted", "COMMIT to #tag", "INVALIDATE #tag at clock 1"]
  }],
  registeredNow: [{}, {
    what: staleWithTag,
    steps: 6,
    states: 5491,
    ends: [
      "r0 STORE q: accepted",
      "COMMIT to #tag",
      "INVALIDATE #tag at clock 1",
      "r0 LOOKUP q with the tag: miss, lease 1:1"
    ]
  }],
  entryJudged: [{}, {
    what: stale,
    steps: 5,
    states: 3540,
    ends: ["r0 reads 0.0.0", "r0 STORE q with the tag: accepted", "COMMIT to #tag", "INVALIDATE #tag at clock 1"]
  }],
  callerJudged: [{}, {
    what: staleWithTag,
    steps: 5,
    states: 1818,
    ends: ["r0 reads 0.0.0", "r0 STORE q: accepted", "COMMIT to #tag", "INVALIDATE #tag at clock 1"]
  }],
  epochCompared: [{ losses: 1 }, {
    what: accepted,
    steps: 7,
    states: 11_905,
    ends: [
      "COMMIT to a",
      "INVALIDATE a at clock 1",
      "the store loses its metadata: epoch 2",
      "r1 LOOKUP q: miss, lease 2:0",
      "r0 STORE q: accepted"
    ]
  }],
  groupDropped: [{ layout: "grouped" }, {
    what: stale,
    steps: 8,
    states: 28_983,
    ends: [
      "r0 STORE q: accepted",
      "COMMIT to a",
      "INVALIDATE a at clock 1",
      "r0 LOOKUP p: miss, lease 1:1",
      "r0 reads 1.0.0",
      "r0 STORE p: accepted"
    ]
  }],
  headerNewest: [{ layout: "grouped" }, {
    what: stale,
    steps: 5,
    states: 1664,
    ends: ["r0 reads 0.0.0", "r0 STORE q: accepted", "COMMIT to b", "INVALIDATE b at clock 1"]
  }]
}

describe("without one of their guards, entries with several dependencies do not", () => {
  refutedWithout(removed)
})
