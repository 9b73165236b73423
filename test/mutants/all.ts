/** Every guard that can be taken away, area by area, and the races for which none is. */
import type { Mutant, Unmutated } from "./mutant.ts"
import { reading } from "./reading.ts"
import { stores } from "./stores.ts"
import { surfaces } from "./surfaces.ts"
import { tiered } from "./tiered.ts"
import { writing } from "./writing.ts"

export const mutants: ReadonlyArray<Mutant> = [...stores, ...tiered, ...reading, ...writing, ...surfaces]

export const unmutated: ReadonlyArray<Unmutated> = [
  {
    race: "clocks of several machines disagree",
    because: "no script is told a time, so there is nothing to take away"
  }
]
