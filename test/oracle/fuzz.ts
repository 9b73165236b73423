// The judges, for as long as one likes: `npm run fuzz`, or `npm run fuzz -- 1000 600` for the seeds from 1000 on and 600
// seconds. Without a number of seconds it stops at the first miss only.
import { create } from "../support/pglite.ts"
import { emptyTally } from "./judge.ts"
import { runWorld, showMiss, summary, usual, withDatabase } from "./run.ts"

const [from = Date.now() % 1_000_000_000, seconds = Infinity] = process.argv.slice(2).map(Number)
const end = performance.now() + seconds * 1000

const tally = emptyTally()
// A database is left before what it has seen slows it down.
const worldsPerDatabase = 50
for (let seed = from; performance.now() < end && process.exitCode === undefined;) {
  await withDatabase(create, async (database, client) => {
    for (let i = 0; i < worldsPerDatabase && performance.now() < end; i++, seed++) {
      const misses = await runWorld(database, client, seed, usual, tally)
      if (misses.length === 0) continue
      console.error(misses.map(showMiss).join("\n\n"))
      process.exitCode = 1
      return
    }
  })
  console.log(`seeds ${from} to ${seed - 1}: ${summary(tally)}`)
}
process.exit()
