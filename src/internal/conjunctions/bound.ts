/**
 * The conditions on the rows of one table, as far as they say which values its
 * columns have: without parameters while a text is analysed, with them when a
 * statement runs.
 */
import type { Relation } from "../catalog/model.ts"
import type { Alternative, Clause, Source } from "./clauses.ts"
import type { Without } from "./rules.ts"
import type { Variable } from "./scope.ts"
import { canonical, elements, type Kind } from "./values.ts"

/** A table under conditions: in each of its rows that matter, one alternative of every list holds. */
export interface Bound {
  readonly relation: Relation
  readonly conditions: ReadonlyArray<ReadonlyArray<ReadonlyArray<Term>>>
}

export interface Term {
  readonly column: string
  readonly kind: Kind
  readonly source: Source
}

/** The values of columns: what a row must have to matter, or what is known of a row. */
export type Values = ReadonlyMap<string, string | null>

/** What clauses say of the table that owns variables. */
export const bound = (owner: object, relation: Relation, clauses: ReadonlyArray<Clause>, without: Without): Bound => {
  const equals = classes(clauses, without)
  const terms = (alternative: Alternative): ReadonlyArray<Term> =>
    alternative.flatMap(({ source, variable }) =>
      source === undefined ?
        [] :
        equals(variable).flatMap(({ column, kind, owner: of }) =>
          of === owner && column !== undefined && kind !== undefined ? [{ column: column.name, kind, source }] : []
        )
    )
  const conditions = clauses
    .map((clause) => clause.map(terms))
    .filter((alternatives) => alternatives.every((alternative) => alternative.length > 0))
  return { relation, conditions: distinct(conditions) }
}

// What holds above an item and by the item itself comes twice.
const distinct = (conditions: Bound["conditions"]): Bound["conditions"] => {
  const seen = new Set<string>()
  return conditions.filter((condition) => {
    const text = JSON.stringify(condition, (_, value) => typeof value === "bigint" ? `${value}n` : value)
    return !seen.has(text) && seen.add(text)
  })
}

/** The variables that clauses make equal to one. */
const classes = (
  clauses: ReadonlyArray<Clause>,
  without: Without
): (variable: Variable) => ReadonlyArray<Variable> => {
  const members = new Map<Variable, Array<Variable>>()
  const classOf = (variable: Variable): Array<Variable> => members.get(variable) ?? [variable]
  for (const clause of clauses) {
    if (clause.length !== 1) continue
    for (const { other, variable } of clause[0]) {
      if (other === undefined) continue
      if ((variable.kind === undefined || variable.kind !== other.kind) && !without.has("same-kind")) continue
      const all = [...new Set([...classOf(variable), ...classOf(other)])]
      for (const one of all) members.set(one, all)
    }
  }
  return classOf
}

/**
 * The conditions with parameters: each row that matters has all the values of
 * one of these. `undefined` where any row may matter.
 */
export const bind = (
  { conditions }: Bound,
  parameters: ReadonlyArray<unknown>,
  limit: number,
  without: Without
): ReadonlyArray<Values> | undefined => {
  let rows: ReadonlyArray<Values> = [new Map()]
  const lists = conditions.flatMap((condition) => {
    const list = condition.flatMap((alternative) => valuesOf(alternative, parameters, limit, without))
    // Where one alternative says nothing, all of them say nothing.
    return list.some((values) => values.size === 0) || (list.length === 0 && !without.has("empty-list")) ? [] : [list]
  })
  for (const list of lists.sort((a, b) => a.length - b.length)) {
    // Leaving a condition out only makes more rows matter.
    if (rows.length * list.length > limit) break
    rows = product(rows, list)
  }
  return rows.some((values) => values.size === 0) ? undefined : rows
}

const product = (rows: ReadonlyArray<Values>, list: ReadonlyArray<Values>): ReadonlyArray<Values> =>
  rows.flatMap((row) => list.map((values) => new Map([...values, ...row])))

const nothing: ReadonlyArray<Values> = [new Map()]

/** What an alternative says with parameters: one of these, as long as none of them is empty. */
const valuesOf = (
  alternative: ReadonlyArray<Term>,
  parameters: ReadonlyArray<unknown>,
  limit: number,
  without: Without
): ReadonlyArray<Values> => {
  let rows = nothing
  for (const { column, kind, source } of alternative) {
    const texts = textsOf(kind, source, parameters, without)
    if (texts === undefined) continue
    if (texts.length * rows.length > limit) return nothing
    rows = product(rows, texts.map((text) => new Map([[column, text]])))
  }
  return rows
}

/** Whether a condition has values with these parameters, however many. */
export const hasValues = ({ conditions }: Bound, parameters: ReadonlyArray<unknown>, without: Without): boolean =>
  conditions.some((condition) =>
    condition.every((alternative) =>
      alternative.some(({ kind, source }) => (textsOf(kind, source, parameters, without) ?? []).length > 0)
    )
  )

/** The text of a value that is no array. */
export const textOf = (
  kind: Kind,
  source: Source,
  parameters: ReadonlyArray<unknown>,
  without: Without
): string | null | undefined => source._tag === "Elements" ? undefined : textsOf(kind, source, parameters, without)?.[0]

/** The texts of a value, of which there is one unless it is an array. */
const textsOf = (
  kind: Kind,
  source: Source,
  parameters: ReadonlyArray<unknown>,
  without: Without
): ReadonlyArray<string | null> | undefined => {
  const values = source._tag === "Constant"
    ? [source.value]
    : source._tag === "Parameter"
    ? [parameters[source.number - 1]]
    : elements(kind, parameters[source.number - 1])
  if (values === undefined) return undefined
  const texts: Array<string | null> = []
  for (const value of values) {
    if (source._tag !== "Constant" && source.isShared && typeof value === "string") return undefined
    const text = canonical(kind, value, without)
    if (text === undefined) return undefined
    texts.push(text)
  }
  return texts
}
