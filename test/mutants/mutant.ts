/** What a guard is, and how one is taken away. */

export interface Mutant {
  /** The guard that is missing, in a few words: what the filter of the runner looks at, with the file and the races. */
  readonly guard: string
  /** Which races of docs/consistency.md it guards against: the beginnings of their rows. */
  readonly races: ReadonlyArray<string>
  readonly file: string
  /** A text that stands in the file once, and what takes its place. */
  readonly find: string
  readonly replace: string
  readonly killedBy: Killer
}

/** Tests of which one must fail. */
export interface Killer {
  readonly files: ReadonlyArray<string>
  /** Which of them, by a regular expression on their names; all unless given. */
  readonly name?: string
}

export const by = (files: string | ReadonlyArray<string>, name?: string): Killer => ({
  files: typeof files === "string" ? [files] : files,
  ...(name === undefined ? {} : { name })
})

/** A race for which nothing is taken away here, and why. */
export interface Unmutated {
  readonly race: string
  readonly because: string
}

/** Where a mutant's text stands. */
export const placesOf = ({ find }: Pick<Mutant, "find">, source: string): number => source.split(find).length - 1

export const mutate = ({ find, replace }: Mutant, source: string): string => source.split(find).join(replace)
