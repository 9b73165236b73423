/**
 * What the models' tests say of a model: that it holds, or that it is refuted.
 *
 * The number of states is part of every expectation: a model that lost a step or a
 * fault holds as well, in fewer. `--reporter=verbose` tells every counterexample.
 */
import { expect, it } from "vitest"
import { explore, type Model, type Report } from "./checker.ts"

/** `MODEL=long` explores to the bounds that take minutes on a slow machine. */
export const long = process.env["MODEL"] === "long"

const timeout = long ? 600_000 : 60_000

const told = ({ states, violation }: Report): string =>
  violation === undefined
    ? `holds in all ${states} states`
    : [violation.what, ...violation.trace.map((step, i) => `${String(i + 1).padStart(4)}. ${step}`)].join("\n")

export interface Refutation {
  readonly what: string
  /** The last steps of the shortest counterexample, and how many there are. */
  readonly ends: ReadonlyArray<string>
  readonly steps: number
  /** How many states were found until then. */
  readonly states: number
}

/** For every guard: where it is removed from, and what happens then. */
export type Removed<Guards, Options> = {
  readonly [guard in keyof Guards]-?: readonly [from: Options, Refutation]
}

/** The expectations of one model, whose options are added to `guarded`. */
export const about = <Options extends object>(make: (options: Options) => Model<any>, guarded: Options) => {
  const model = (options: Options) => make({ ...guarded, ...options })

  /** Everything was visited, and nothing is wrong. */
  const holds = (name: string, options: Options, states: number): void => {
    it(name, { timeout }, () => expect(told(explore(model(options)))).toBe(`holds in all ${states} states`))
  }

  /** Something goes wrong, and in this way. */
  const refuted = (name: string, options: Options, expected: Refutation): void => {
    it(name, { timeout }, async ({ annotate }) => {
      const report = explore(model(options))
      await annotate(told(report), "counterexample")
      const { trace = [], what } = report.violation ?? {}
      expect(
        { what, ends: trace.slice(-expected.ends.length), steps: trace.length, states: report.states },
        told(report)
      ).toEqual(expected)
    })
  }

  const refutedWithout = <Guards>(removed: Removed<Guards, Options>): void => {
    for (const [guard, [options, expected]] of Object.entries<readonly [Options, Refutation]>(removed)) {
      refuted(guard, { ...options, [guard]: false }, expected)
    }
  }

  return { holds, refuted, refutedWithout }
}
