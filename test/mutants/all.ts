/** Every guard that can be taken away, area by area, and the races for which none is. */
import { doubts } from "./doubt.ts"
import type { Mutant, Unmutated } from "./mutant.ts"
import { reading } from "./reading.ts"
import { sessions } from "./sessions.ts"
import { shards } from "./shards.ts"
import { stores } from "./stores.ts"
import { strictMode } from "./strict.ts"
import { surfaces } from "./surfaces.ts"
import { tiered } from "./tiered.ts"
import { writing } from "./writing.ts"

export const mutants: ReadonlyArray<Mutant> = [
  ...stores,
  ...tiered,
  ...shards,
  ...reading,
  ...writing,
  ...doubts,
  ...strictMode,
  ...sessions,
  ...surfaces
]

export const unmutated: ReadonlyArray<Unmutated> = [
  {
    race: "clocks of several machines disagree",
    because: "no script is told a time, so there is nothing to take away"
  },
  {
    race: "a shard's clock is ahead of another's",
    because: "nothing compares the clocks of two shards: test/shards.test.ts does, and what it compares is wrong then"
  }
]
