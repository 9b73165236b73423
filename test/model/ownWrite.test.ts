import { describe } from "vitest"
import { about, type Refutation } from "./expectations.ts"
import { ownWrite } from "./ownWrite.ts"

const { holds, refuted } = about(ownWrite, {})

const purgedOnly: Omit<Refutation, "states"> = {
  what: "the write has returned, and its process would serve what was before",
  steps: 6,
  ends: ["LOOKUP: v0 at clock 0 is on its way", "INVALIDATE at clock 1", "the write returns", "v0 arrives, fills"]
}

describe("what a process wrote", () => {
  holds("is served, once the clock is applied", { clockApplied: true }, 33)
  holds(
    "is served, once the clock is applied and no fills come between",
    { clockApplied: true, fillsBlocked: true },
    31
  )
  refuted("is not, if the own cache is only purged", {}, { ...purgedOnly, states: 27 })
  refuted("is not, if fills are only blocked meanwhile", { fillsBlocked: true }, { ...purgedOnly, states: 25 })
})
