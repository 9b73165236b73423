// The share of the judges' work that every test run does: `npm run fuzz` does more of the same.
import { expect, it } from "vitest"
import { create } from "../support/pglite.ts"
import { emptyTally } from "./judge.ts"
import { effective, runWorld, showMiss, summary, usual, withDatabase } from "./run.ts"

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
