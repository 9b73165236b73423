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

/** Everything was visited, and nothing is wrong. */
export const holds = <S>(name: string, model: Model<S>, states: number): void => {
  it(name, { timeout }, () => expect(told(explore(model))).toBe(`holds in all ${states} states`))
}

export interface Refutation {
  readonly what: string
  /** The last steps of the shortest counterexample, and how many there are. */
  readonly ends: ReadonlyArray<string>
  readonly steps: number
  /** How many states were found until then. */
  readonly states: number
}

/** Something goes wrong, and in this way. */
export const refuted = <S>(name: string, model: Model<S>, expected: Refutation): void => {
  it(name, { timeout }, async ({ annotate }) => {
    const report = explore(model)
    await annotate(told(report), "counterexample")
    const { trace = [], what } = report.violation ?? {}
    const { ends, steps, states } = expected
    expect({ what, ends: trace.slice(-ends.length), steps: trace.length, states: report.states }, told(report))
      .toEqual({ what: expected.what, ends, steps, states })
  })
}
