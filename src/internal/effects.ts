/**
 * How a statement acts on what is cached.
 */
import type * as Dependency from "../Dependency.ts"
import { localKey } from "./parameters.ts"

/** What a write does to what is cached. */
export interface Writing {
  /** What it touches, as far as that is known when it begins. */
  readonly targets: Dependency.Targets
  /** A refusal by the server means that nothing was done. */
  readonly atomic: boolean
  /** What it has touched, where its answer tells more. */
  readonly answered?: ((answer: unknown) => Dependency.Targets) | undefined
}

/** BEGIN, COMMIT and the like; `chain`: another transaction begins at once. */
export interface SessionControl {
  readonly _tag: "Session"
  readonly control: string
  readonly chain: boolean
}

/** How a statement acts on what is cached, as far as a connection has to know. */
export type Effects =
  | { readonly _tag: "Nothing" }
  | Writes
  | SessionControl

export interface Writes {
  readonly _tag: "Writes"
  /** With any parameters. */
  readonly targets: Dependency.Targets
  readonly atomic: boolean
  /** Whether there is BEGIN, COMMIT or the like among several statements. */
  readonly isControl?: boolean | undefined
  /** With its parameters, and with the rows it has returned where those are at hand. */
  readonly narrow?:
    | ((parameters: ReadonlyArray<unknown>, answer: ReadonlyArray<unknown> | undefined) => Dependency.Targets)
    | undefined
}

/** What a statement writes with these parameters. */
export const writingOf = ({ atomic, narrow, targets }: Writes, parameters: ReadonlyArray<unknown>): Writing => {
  if (narrow === undefined) return { targets, atomic }
  const narrowed = (answer: unknown) => narrow(parameters, Array.isArray(answer) ? answer : undefined)
  if (parameters.every(isFixedValue)) return { targets: narrowed(undefined), atomic, answered: narrowed }
  // What can be changed may be before it is sent.
  const key = localKey(parameters)
  return {
    targets,
    atomic,
    answered: (answer) => key !== undefined && localKey(parameters) === key ? narrowed(answer) : targets
  }
}

const isFixedValue = (value: unknown): boolean => typeof value !== "object" || value === null
