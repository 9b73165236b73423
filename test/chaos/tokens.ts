// The tokens that sessions of a run carry from process to process: the last one of each lies where all can read it.
import { readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Random } from "../oracle/random.ts"

export interface Passed {
  readonly token: string
  /** Whatever was delivered by then it stands for. */
  readonly at: number
  /** And for what the write has given that it was taken from. */
  readonly of: ReadonlyArray<readonly [register: string, version: number]>
}

export const pass = (passed: Passed, to: { readonly directory: string; readonly process: string }): void => {
  const file = join(to.directory, `${to.process}.token`)
  // Nobody reads half of it.
  writeFileSync(`${file}.next`, JSON.stringify(passed))
  renameSync(`${file}.next`, file)
}

/** That of one of the processes, if any has one. */
export const take = (directory: string, random: Random): Passed | undefined => {
  const files = readdirSync(directory).filter((name) => name.endsWith(".token"))
  return files.length === 0 ? undefined : JSON.parse(readFileSync(join(directory, random.pick(files)), "utf8"))
}
