import { describe } from "vitest"
import { about, long, type Removed } from "./expectations.ts"
import { guarded, type Guards, type Options, tokens } from "./tokens.ts"

const { holds, refuted, refutedWithout } = about<Options>(tokens, guarded)

const older = "an answer is older than what the session wrote"

describe("session tokens hold what they promise", () => {
  holds("an invalidation is lost", { timeouts: 1 }, 619)
  holds("metadata are lost", { losses: 1 }, 3029)
  holds("the store fails over unseen", { failovers: 1 }, 8731)
  holds(
    "the store fails over and shows it, writers are strangers",
    { failovers: 1, strangers: true, identity: true },
    8447
  )
  holds("all of these", { timeouts: 1, losses: 1, failovers: 1 }, 141_184)
  if (long) {
    holds("all of these, three writes", { timeouts: 1, losses: 1, failovers: 1, writes: 3 }, 713_826)
  }
})

const removed: Removed<Guards, Options> = {
  cacheJudged: [{}, {
    what: older,
    steps: 6,
    states: 119,
    ends: ["STORE v0: accepted", "the session writes v1, token 1:1", "v0 arrives, fills", "the process answers v0"]
  }],
  flightJudged: [{}, {
    what: older,
    steps: 4,
    states: 35,
    ends: ["the flight reads v0", "the session writes v1, token 1:1", "the flight of lease 1:0 answers v0"]
  }],
  epochJudged: [{ losses: 1 }, {
    what: older,
    steps: 6,
    states: 264,
    ends: [
      "LOOKUP: miss, lease 1:1",
      "the flight reads v1",
      "the store loses its metadata: epoch 2",
      "the session writes v2, token 2:1",
      "the flight of lease 1:1 answers v1"
    ]
  }],
  seenSent: [{ failovers: 1 }, {
    what: older,
    steps: 6,
    states: 341,
    ends: [
      "LOOKUP: miss, lease 1:1",
      "the flight reads v1",
      "the store fails over to 1:0",
      "the session writes v2, token 1:1",
      "the flight of lease 1:1 answers v1"
    ]
  }],
  undeliveredBypasses: [{ timeouts: 1 }, {
    what: older,
    steps: 4,
    states: 52,
    ends: ["the flight reads v0", "the session writes v1, INVALIDATE is lost", "the flight of lease 1:0 answers v0"]
  }]
}

describe("without one of their guards, session tokens do not", () => {
  refutedWithout(removed)
})

describe("what no token can tell", () => {
  refuted(
    "the store fails over unseen, and the writer has seen nothing of what was lost",
    { failovers: 1, strangers: true },
    {
      what: older,
      steps: 6,
      states: 342,
      ends: [
        "the flight reads v1",
        "the store fails over to 1:0",
        "the session writes v2, token 1:1",
        "the flight of lease 1:1 answers v1"
      ]
    }
  )
})
