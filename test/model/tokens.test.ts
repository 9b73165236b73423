import { describe } from "vitest"
import { holds, long, type Refutation, refuted } from "./expectations.ts"
import { guarded, type Guards, type Options, tokens } from "./tokens.ts"

const older = "an answer is older than what the session wrote"

describe("session tokens hold what they promise", () => {
  const holdsFor = (name: string, options: Options, states: number) =>
    holds(name, tokens({ ...guarded, ...options }), states)

  holdsFor("an invalidation is lost", { timeouts: 1 }, 619)
  holdsFor("metadata are lost", { losses: 1 }, 3029)
  holdsFor("the store fails over unseen", { failovers: 1 }, 8731)
  holdsFor("all of these", { timeouts: 1, losses: 1, failovers: 1 }, 141_184)
  if (long) {
    holdsFor("all of these, three writes", { timeouts: 1, losses: 1, failovers: 1, writes: 3 }, 713_826)
  }
})

const removed: { readonly [guard in keyof Guards]-?: readonly [from: Options, Refutation] } = {
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
  for (const [guard, [options, refutation]] of Object.entries(removed)) {
    refuted(guard, tokens({ ...guarded, ...options, [guard]: false }), refutation)
  }
})
