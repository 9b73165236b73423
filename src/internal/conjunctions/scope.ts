/**
 * What the names in a statement mean: columns by the tables in FROM, tables by
 * WITH clauses and the search_path, innermost first.
 *
 * A name is looked up as PostgreSQL does it, on the assumption that the
 * statement is valid: one of several columns that would fit is never guessed,
 * PostgreSQL would have refused it.
 */
import type { Node } from "../analysis/parser.ts"
import * as Model from "../catalog/model.ts"
import type { Without } from "./rules.ts"
import { type Kind, kindOf } from "./values.ts"

/** What stands for a column: of a table, or of something that is made of tables. */
export interface Variable {
  /** The range table entry it is of. */
  readonly owner: object
  readonly column: Model.Column | undefined
  /** Without a kind it takes part in nothing. */
  readonly kind: Kind | undefined
  /** The merged column of a FULL JOIN ... USING: of one of these where there is no row of the other. */
  readonly merged: readonly [left: Variable, right: Variable] | undefined
}

/** The columns of an item of FROM, in order. */
export interface Columns {
  readonly list: ReadonlyArray<readonly [name: string, variable: Variable]>
  /** Whether one may have a name that is not in the list. */
  readonly isOpen: boolean
  /** Whether each is in its place. */
  readonly isComplete: boolean
}

export const open: Columns = { list: [], isOpen: true, isComplete: false }

/** The items of one FROM, as far as they are visible from a place. */
export interface Names {
  readonly columns: ReadonlyArray<Columns>
  readonly tables: ReadonlyMap<string, Columns>
  /** Whether there may be items of other names. */
  readonly isOpen: boolean
}

export interface Scope {
  readonly outer: Scope | undefined
  readonly names: Names | undefined
  readonly queries: ReadonlyMap<string, CommonQuery> | undefined
}

/** A query of a WITH clause. */
export interface CommonQuery {
  readonly query: Node
  readonly names: ReadonlyArray<string | undefined>
  /** Where its own names are looked up. */
  readonly scope: () => Scope | undefined
  /** Whether it takes the place of the one name that refers to it. */
  readonly isInlined: boolean
}

/** What a statement's names are resolved against. */
export interface World {
  readonly catalog: Model.Catalog
  readonly searchPath: ReadonlyArray<string>
  readonly without: Without
  /** The parameters that occur more than once. */
  readonly shared: ReadonlySet<number>
  /** How often a name stands for a table or a query of a WITH clause. */
  readonly uses: ReadonlyMap<string, number>
}

export const opaque = (owner: object): Variable => ({ owner, column: undefined, kind: undefined, merged: undefined })

export const ofColumn = (world: World, owner: object, column: Model.Column): Variable => ({
  owner,
  column,
  kind: kindOf(column, world.without),
  merged: undefined
})

export const merge = (left: Variable, right: Variable): Variable => ({
  owner: left.owner,
  column: undefined,
  kind: left.kind === right.kind ? left.kind : undefined,
  merged: [left, right]
})

export const inner = (outer: Scope | undefined, names: Names): Scope => ({ outer, names, queries: undefined })

export const noNames: Names = { columns: [], tables: new Map(), isOpen: false }

/** Two lists of items side by side. */
export const beside = (a: Names, b: Names): Names => ({
  columns: [...a.columns, ...b.columns],
  tables: new Map([...a.tables, ...b.tables]),
  isOpen: a.isOpen || b.isOpen
})

/** An item by its name, if that is known. */
export const named = (name: string | undefined, columns: Columns): Names => ({
  columns: [columns],
  tables: name === undefined ? new Map() : new Map([[name, columns]]),
  isOpen: name === undefined
})

/** `AS alias (a, b)`: the first columns by other names. */
export const renamed = (columns: Columns, names: ReadonlyArray<string | undefined>): Columns =>
  names.length === 0
    ? columns
    : !columns.isComplete || names.length > columns.list.length
    ? open
    : {
      list: columns.list.map(([name, variable], i) => [names[i] ?? name, variable]),
      isOpen: columns.isOpen && names.length < columns.list.length,
      isComplete: true
    }

/** The variable that a reference means; `undefined` where that cannot be told. */
export const lookup = (
  world: World,
  scope: Scope | undefined,
  reference: ReadonlyArray<string>
): Variable | undefined => {
  const name = reference[reference.length - 1]
  const levels: Array<Names> = []
  for (let at = scope; at !== undefined; at = at.outer) if (at.names !== undefined) levels.push(at.names)
  if (world.without.has("correlation")) levels.reverse()
  for (const names of levels) {
    if (reference.length > 1) {
      // `schema.table.column` is by the table's name alone, which another schema's table may have.
      if (reference.length > 2) return undefined
      const columns = names.tables.get(reference[0])
      if (columns !== undefined) return find(columns.list, name)
      if (names.isOpen) return undefined
      continue
    }
    const found = names.columns.filter((columns) => columns.list.some(([one]) => one === name))
    if (found.length === 1) return find(found[0].list, name)
    if (found.length > 1 || names.columns.some((columns) => columns.isOpen)) return undefined
  }
  return undefined
}

const find = (list: Columns["list"], name: string): Variable | undefined => {
  const found = list.filter(([one]) => one === name)
  return found.length === 1 ? found[0][1] : undefined
}

/** The common query that a name without a schema means. */
export const commonQuery = (scope: Scope | undefined, name: string): CommonQuery | undefined => {
  for (let at = scope; at !== undefined; at = at.outer) {
    const query = at.queries?.get(name)
    if (query !== undefined) return query
  }
  return undefined
}

/** The relation that a RangeVar means where no WITH clause has taken the name. */
export const relationOf = (world: World, node: Node): Model.Relation | undefined =>
  Model.resolve(world.catalog, world.searchPath, node.relname as string, node.schemaname as string | undefined)

/** The strings of a list of String nodes; anything else in it is `undefined`. */
export const strings = (list: unknown): ReadonlyArray<string | undefined> =>
  Array.isArray(list)
    ? list.map((node) => node.String === undefined ? undefined : node.String.sval ?? "")
    : []
