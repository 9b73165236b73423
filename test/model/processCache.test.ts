import { describe } from "vitest"
import { about, type Removed } from "./expectations.ts"
import { type Guards, type Options, processCache } from "./processCache.ts"

const { holds, refuted, refutedWithout } = about(processCache, {})

const guarded: Options = { fillCompared: true, beat: true, epochOfPrimary: true }
const others: Options = { ...guarded, others: true }

const stale = "all is quiet, and the process would serve what is stale"

describe("a process cache holds what it promises", () => {
  holds("without faults", { fillCompared: true }, 93)
  holds("a message is lost", { fillCompared: true, beat: true, losesMessage: true }, 314)
  holds("the subscription is cut", { fillCompared: true, disconnects: true }, 340)
  holds("the subscription is half open", { fillCompared: true, beat: true, halfOpen: true }, 429)
  holds("the store fails over", { ...guarded, losesMessage: true, failover: true }, 2088)
  holds("guarded by a placeholder, without faults", { placeholder: true }, 107)
})

describe("a process cache holds what it promises beside other dependencies", () => {
  holds("a message is lost", { ...others, losesMessage: true }, 1887)
  holds("the subscription is cut", { ...others, disconnects: true }, 2315)
  holds("the subscription is half open", { ...others, halfOpen: true }, 2509)
  holds(
    "the store fails over",
    { ...others, losesMessage: true, failover: true, writes: 4, fills: 3 },
    81_569
  )
})

const removed: Removed<Guards, Options> = {
  fillCompared: [{}, {
    what: stale,
    steps: 4,
    states: 49,
    ends: ["LOOKUP: v0 at 1:0 is on its way", "INVALIDATE v1 at 1:1", "1:1 arrives, applied", "v0 arrives, fills"]
  }],
  sequence: [{ ...others, losesMessage: true }, {
    what: stale,
    steps: 6,
    states: 1490,
    ends: [
      "INVALIDATE v1 at 1:1, the message is lost",
      "INVALIDATE something else at 1:2",
      "v0 arrives, fills",
      "1:2 arrives, applied",
      "a beat returns"
    ]
  }],
  beat: [{ fillCompared: true, losesMessage: true }, {
    what: stale,
    steps: 3,
    states: 76,
    ends: ["LOOKUP: v0 at 1:0 is on its way", "INVALIDATE v1 at 1:1, the message is lost", "v0 arrives, fills"]
  }],
  epochOfPrimary: [{ ...guarded, losesMessage: true, failover: true }, {
    what: stale,
    steps: 5,
    states: 984,
    ends: [
      "INVALIDATE v1 at 1:1, the message is lost",
      "v0 arrives, fills",
      "the store fails over to its replica",
      "a beat returns"
    ]
  }]
}

describe("without one of its guards, a process cache does not", () => {
  refutedWithout(removed)
})

describe("what looks right, and is not", () => {
  refuted("gaps alone, where the subscription is half open", { fillCompared: true, halfOpen: true }, {
    what: stale,
    steps: 4,
    states: 83,
    ends: ["INVALIDATE v1 at 1:1", "v0 arrives, fills", "the subscription ends unnoticed"]
  })
  refuted(
    "gaps alone, where the store fails over",
    {
      fillCompared: true,
      losesMessage: true,
      failover: true
    },
    {
      what: stale,
      steps: 3,
      states: 188,
      ends: ["LOOKUP: v0 at 1:0 is on its way", "INVALIDATE v1 at 1:1, the message is lost", "v0 arrives, fills"]
    }
  )
})
