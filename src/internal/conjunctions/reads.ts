/**
 * The rows that the answer of a query depends on.
 */
import type { Node } from "../analysis/parser.ts"
import type * as Model from "../catalog/model.ts"
import { bind, type Bound, type Values } from "./bound.ts"
import { none, type Without } from "./rules.ts"
import * as Scope from "./scope.ts"
import { type Observer, Statement } from "./statement.ts"
import { eachNode, worldOf } from "./tree.ts"
import { kindOfType } from "./values.ts"

/** For each table that a statement names, what is known of the rows that matter. */
export type RowReads = ReadonlyMap<Model.Relation, "whole" | ReadonlyArray<Bound>>

/** The columns of a table that refer to other tables. */
const referring = (catalog: Model.Catalog, { oid }: Model.Relation): ReadonlySet<string> => {
  let all = referringIn.get(catalog)
  if (all === undefined) {
    referringIn.set(catalog, all = new Map())
    for (const { referencedBy } of catalog.relations.values()) {
      for (const { columns, from } of referencedBy) {
        const known = all.get(from)
        if (known === undefined) all.set(from, new Set(columns))
        else for (const column of columns) known.add(column)
      }
    }
  }
  return all.get(oid) ?? new Set()
}

const referringIn = new WeakMap<Model.Catalog, Map<number, Set<string>>>()

/** More tables than this in one statement are read as wholes. */
const maxTables = 64

/** More conjunctions than this for one table are the whole table. */
export const maxConjunctions = 100

/** What a query (a SelectStmt) depends on among the tables that it names. Views and whatever else it names are left out. */
export const rowReads = (
  statement: Node,
  catalog: Model.Catalog,
  searchPath: ReadonlyArray<string>,
  without: Without = none
): RowReads => {
  const world = worldOf(statement, catalog, searchPath, without)
  const select = statement.SelectStmt as Node | undefined
  const visited = select === undefined
    ? undefined
    : tryVisit(world, (visited) => visited.visit(visited.query(select, undefined).item, []))
  const reads = new Map<Model.Relation, "whole" | Array<Bound>>()
  eachNode(statement, (node) => {
    if (typeof node.relname !== "string" || visited?.references.has(node)) return
    const relation = Scope.relationOf(world, node)
    if (relation === undefined || !isRowTable(relation)) return
    const bound = visited?.tables.get(node)
    const known = reads.get(relation)
    if (bound === undefined || bound.conditions.length === 0) {
      if (known === undefined || !without.has("self-join")) reads.set(relation, "whole")
    } else if (known === undefined) {
      reads.set(relation, [bound])
    } else if (known !== "whole") {
      if (!without.has("self-join")) known.push(bound)
    }
  })
  return reads
}

/** Whether rows of a relation can be told apart here. */
export const isRowTable = (relation: Model.Relation): boolean =>
  relation.kind === "table" || relation.kind === "partitioned"

/** Visits a statement where that is possible; `undefined`: every table in it is taken as a whole. */
export const tryVisit = (
  world: Scope.World,
  visit: (visited: Statement) => void,
  observer?: Observer
): Statement | undefined => {
  const count = [...world.uses.values()].reduce((sum, one) => sum + one, 0)
  // Where others come before pg_catalog, an operator or a type may be another than its name says.
  const isFirst = world.searchPath.indexOf("pg_catalog") < 1
  if (count > maxTables || !isFirst || !hasPlainEquality(world.catalog)) return undefined
  try {
    const visited = new Statement(world, observer)
    visit(visited)
    return visited
  } catch (error) {
    // Nested more deeply than the engine's stack.
    if (error instanceof RangeError) return undefined
    throw error
  }
}

/** The row dependencies on one table, or `undefined` for the whole of it. */
export const rowsOf = (
  catalog: Model.Catalog,
  bounds: "whole" | ReadonlyArray<Bound>,
  parameters: ReadonlyArray<unknown>,
  without: Without = none
): ReadonlyArray<Values> | undefined => {
  if (bounds === "whole") return undefined
  const rows: Array<Values> = []
  for (const bound of bounds) {
    const some = bind(bound, parameters, maxConjunctions, without)
    if (some === undefined) return undefined
    rows.push(...some.map((values) => narrowed(catalog, bound.relation, values)))
    if (rows.length > maxConjunctions) return undefined
  }
  return rows
}

/**
 * The columns that a row is named by: those of a key, if all are there, or else
 * those that refer to other tables. These seldom change, and a write knows them of
 * its rows more often than others. One that does not know all columns of a
 * conjunction invalidates whatever has these columns.
 */
const narrowed = (catalog: Model.Catalog, relation: Model.Relation, values: Values): Values => {
  const key = relation.keys.find(({ columns }) => columns.every((column) => values.has(column)))
  const referred = referring(catalog, relation)
  const columns = key?.columns ?? [...values.keys()].filter((column) => referred.has(column))
  return columns.length === 0 || columns.length === values.size
    ? values
    : new Map(columns.map((column) => [column, values.get(column)!]))
}

/**
 * Whether `=` between columns that can name a row is always that of pg_catalog.
 * Another that takes the same types may come first, by the search_path or as the
 * better match.
 */
const hasPlainEquality = ({ operators }: Model.Catalog): boolean =>
  !operators.get("=")?.some(({ left, right }) => isNaming(left) && isNaming(right))

const isNaming = (type: string | undefined): boolean =>
  type !== undefined && (kindOfType(type) !== undefined || type.startsWith("any") || type.includes("."))
