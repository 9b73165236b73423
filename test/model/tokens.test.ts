import { describe } from "vitest"
import { about, long, type Removed } from "./expectations.ts"
import { guarded, type Guards, type Options, tokens } from "./tokens.ts"

const { holds, refuted, refutedWithout } = about<Options>(tokens, guarded)

const older = "an answer is older than what the session wrote"

describe("session tokens hold what they promise", () => {
  holds("an invalidation is lost", { timeouts: 1 }, 619)
  holds("metadata are lost", { losses: 1 }, 3020)
  holds("the store fails over unseen", { failovers: 1 }, 8890)
  holds(
    "the store fails over and shows it, writers are strangers",
    { failovers: 1, strangers: true, identity: true },
    8421
  )
  holds("all of these, and it shows", { timeouts: 1, losses: 1, failovers: 1, identity: true }, 116_576)
  holds("others write, and reads are monotonic", { writes: 1, others: 2, readsThere: 2 }, 27_651)
  holds("the same, and metadata are lost", { writes: 0, others: 2, readsThere: 1, losses: 1 }, 16_120)
  holds(
    "the same, and the store fails over and shows it",
    { writes: 0, others: 2, readsThere: 1, failovers: 1, identity: true },
    42_705
  )
  if (long) {
    holds("all of these, three writes", { timeouts: 1, losses: 1, failovers: 1, identity: true, writes: 3 }, 552_038)
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
  replyJudged: [{ failovers: 1 }, {
    what: older,
    steps: 7,
    states: 960,
    ends: ["the session writes v1, token 1:1", "the store fails over to 1:0", "LOOKUP: hit v0 at 1:0"]
  }],
  answersRaise: [{ writes: 0, others: 1, readsThere: 1 }, {
    what: "an answer lacks what an earlier one reflects",
    steps: 5,
    states: 77,
    ends: ["somebody writes v1", "there: miss v1 at 1:1", "the flight of lease 1:0 answers v0"]
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
      states: 348,
      ends: [
        "the flight reads v1",
        "the store fails over to 1:0",
        "the session writes v2, token 1:1",
        "the flight of lease 1:1 answers v1"
      ]
    }
  )
  refuted("it loses its metadata, and fails over to from before that unseen", { losses: 1, failovers: 1 }, {
    what: older,
    steps: 6,
    states: 1784,
    ends: ["the store fails over to 1:0", "the session writes v1, token 1:1", "the flight of lease 2:0 answers v0"]
  })
})
