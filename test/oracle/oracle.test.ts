// The share of the judges' work that every test run does: `npm run fuzz` does more of the same.
import { expect, it } from "vitest"
import { create } from "../support/pglite.ts"
import { emptyTally } from "./judge.ts"
import { mutants } from "./mutants.ts"
import { effective, runWorld, showMiss, small, summary, usual, withDatabase } from "./run.ts"

const firstSeed = 1
const worlds = 28

it(
  "no invalidation is missed in generated databases",
  { timeout: 600_000 },
  () =>
    withDatabase(create, async (database, client) => {
      const tally = emptyTally()
      for (let seed = firstSeed; seed < firstSeed + worlds; seed++) {
        const misses = await runWorld(database, client, seed, usual, tally)
        expect(misses.map(showMiss)).toEqual([])
      }
      console.log(summary(tally))
      expect(effective(tally)).toBeGreaterThan(20_000)
    })
)

/** Those that generated queries and writes find within a world or two. All are told by counterexamples.ts. */
const quicklyTold: ReadonlyArray<readonly [seed: number, mutants: ReadonlyArray<string>]> = [
  [300, ["negation", "not-in", "kind", "canonical", "self-join", "assigned", "on-conflict"]],
  [300, ["rewrite rules", "parents", "children", "bodies that read", "bodies that write"]],
  [301, ["outer-on", "default", "views"]],
  [302, ["triggers", "foreign keys"]]
]

it("what an analyzer lacks is noticed", { timeout: 600_000 }, () =>
  withDatabase(create, async (database, client) => {
    for (const [seed, names] of quicklyTold) {
      for (const name of names) {
        const { change } = mutants.find((mutant) => mutant.name === name)!
        const misses = await runWorld(database, client, seed, small, emptyTally(), change)
        expect.soft(misses.length, name).toBeGreaterThan(0)
      }
    }
  }))
