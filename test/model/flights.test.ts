import { describe } from "vitest"
import { about, long, type Removed } from "./expectations.ts"
import { flights, guarded, type Guards, type Options } from "./flights.ts"

const { holds, refutedWithout } = about<Options>(flights, guarded)

const granted = "a flight is granted while another's query may still fill"
const ended = "a process is told to wait for a flight that has ended"
const accepted = "a fill is accepted that is older than what is acknowledged"

describe("flights across processes hold what they promise", () => {
  holds("three processes", {}, 74_839)
  holds(
    "two processes, one is killed, one paused, a reply is lost",
    { processes: 2, kills: 1, pauses: 1, lostReplies: 1, ticks: 5 },
    159_056
  )
  if (long) {
    holds(
      "two processes, one is killed, one paused, a reply is lost, for longer",
      { processes: 2, kills: 1, pauses: 1, lostReplies: 1 },
      253_122
    )
    holds("three processes, two writes", { writes: 2 }, 402_086)
    holds("three processes, one is paused", { pauses: 1 }, 639_825)
    holds("three processes, one is killed", { kills: 1 }, 353_158)
    holds("three processes, a reply is lost", { lostReplies: 1 }, 181_214)
  }
})

const removed: Removed<Guards, Options> = {
  expires: [{}, {
    what: ended,
    steps: 4,
    states: 79,
    ends: ["p0 LOOKUP: miss, lease 0", "a tick", "a tick", "p1 LOOKUP: wait"]
  }],
  patience: [{}, {
    what: "a reader waits for longer than a lease and the query's time-out",
    steps: 13,
    states: 38_861,
    ends: ["p2's query fails", "a tick", "p1 LOOKUP: miss, lease 0", "a tick", "a tick, the flight expires"]
  }],
  ownerReleases: [{}, {
    what: granted,
    steps: 6,
    states: 522,
    ends: ["a tick, the flight expires", "p1 LOOKUP: miss, lease 0", "p0's query fails", "p2 LOOKUP: miss, lease 0"]
  }],
  ownerAsksAgain: [{ lostReplies: 1 }, {
    what: "a process is told to wait for itself",
    steps: 2,
    states: 10,
    ends: ["p0 LOOKUP: miss, lease 0, the reply is lost", "p0 LOOKUP: wait"]
  }],
  askingAgainRenews: [{ pauses: 1, lostReplies: 1 }, {
    what: granted,
    steps: 7,
    states: 4954,
    ends: ["a tick", "p0 goes on", "p0 LOOKUP: miss, lease 0", "a tick, the flight expires", "p1 LOOKUP: miss, lease 0"]
  }],
  overtakenReplaced: [{}, {
    what: "a process is told to wait for a lease that is overtaken",
    steps: 4,
    states: 85,
    ends: ["COMMIT v1", "INVALIDATE v1 at clock 1", "p1 LOOKUP: wait"]
  }],
  failureReleases: [{}, {
    what: ended,
    steps: 3,
    states: 16,
    ends: ["p0 LOOKUP: miss, lease 0", "p0's query fails", "p1 LOOKUP: wait"]
  }],
  leaseCompared: [{}, {
    what: accepted,
    steps: 5,
    states: 123,
    ends: ["p0 reads v0", "COMMIT v1", "INVALIDATE v1 at clock 1", "p0 STORE v0: accepted"]
  }]
}

describe("without one of their guards, flights across processes do not", () => {
  refutedWithout(removed)
})
