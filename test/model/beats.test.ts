import { describe } from "vitest"
import { beats, guarded, type Guards, type Options } from "./beats.ts"
import { about, long, type Removed } from "./expectations.ts"

const { holds, refutedWithout } = about<Options>(beats, guarded)

const older = "what is served lacks an invalidation that was acknowledged delta ago"

describe("beats bound what is served", () => {
  holds("a message is lost", { losses: 1 }, 23_551)
  holds("the primary is deposed", { deposed: true }, 23_598)
  holds("the wall clock is set back", { setbacks: 1 }, 31_091)
  holds("the process is suspended", { suspensions: 1 }, 49_755)
  if (long) {
    holds("several faults, suspended", { losses: 1, deposed: true, suspensions: 1 }, 281_323)
    holds("several faults, set back", { losses: 1, deposed: true, setbacks: 1, ticks: 5 }, 225_930)
  }
})

const removed: Removed<Guards, Options> = {
  sinceSent: [{}, {
    what: older,
    steps: 8,
    states: 1813,
    ends: ["INVALIDATE at clock 1", "a tick", "a beat comes back with clock 0", "a tick", "v0 arrives, is served"]
  }],
  beatCompared: [{ losses: 1 }, {
    what: older,
    steps: 8,
    states: 5055,
    ends: [
      "a tick",
      "a beat is sent",
      "the store answers the beat",
      "a beat comes back with clock 1",
      "a tick",
      "v0 arrives, is served"
    ]
  }],
  beatWrites: [{ deposed: true }, {
    what: older,
    steps: 9,
    states: 7138,
    ends: [
      "a tick",
      "a beat is sent",
      "the store answers the beat",
      "a beat comes back with clock 0",
      "a tick",
      "v0 arrives, is served"
    ]
  }],
  sharedNeedsBeat: [{}, {
    what: older,
    steps: 5,
    states: 312,
    ends: ["INVALIDATE at clock 1", "a tick", "a tick", "v0 arrives, is served"]
  }],
  monotonic: [{ setbacks: 1 }, {
    what: older,
    steps: 9,
    states: 5855,
    ends: ["INVALIDATE at clock 1", "a tick", "the wall clock is set back", "a tick", "v0 arrives, is served"]
  }],
  wall: [{ suspensions: 1 }, {
    what: older,
    steps: 10,
    states: 11_777,
    ends: [
      "INVALIDATE at clock 1",
      "the process is suspended",
      "a tick, suspended",
      "the process goes on",
      "a tick",
      "v0 arrives, is served"
    ]
  }]
}

describe("without one of their guards, beats do not", () => {
  refutedWithout(removed)
})
