/**
 * The rows that a write touches: what is known of each as it was and as it is
 * now.
 *
 * Known is what WHERE says of a row before the write, what VALUES and SET put
 * into it, and what RETURNING shows of it afterwards. A row that nothing is known
 * of is any row of its table.
 */
import type { Node } from "../analysis/parser.ts"
import { type Catalog, type Column, type Relation, withAncestors, withDescendants } from "../catalog/model.ts"
import type { Bound } from "./bound.ts"
import { fits, type Source, valueOf } from "./clauses.ts"
import { isRowTable, tryVisit } from "./reads.ts"
import { none, type Without } from "./rules.ts"
import * as Scope from "./scope.ts"
import { type Statement, tableOf, type Target } from "./statement.ts"
import { eachNode, worldOf } from "./tree.ts"
import { type Kind, kindOf } from "./values.ts"

/** A table that one INSERT, UPDATE or DELETE of a statement writes to. */
export interface Touch {
  readonly relation: Relation
  readonly isInsert: boolean
  /** The rows that are inserted, if they are in the text. */
  readonly given: ReadonlyArray<Given> | undefined
  /** The conditions that rows fulfil before they are updated or deleted. */
  readonly where: Bound | undefined
  /** What is assigned to rows that exist. */
  readonly assigned: Given | undefined
  /** Of ON CONFLICT: the columns in which a row that exists equals the one given. */
  readonly conflict: ReadonlyArray<string>
  /** Whether rows are stored as they are given, and columns keep their values unless they are assigned one. */
  readonly isPlain: boolean
  /** The columns of its rows in the answer, which then has all of them. */
  readonly returning: ReadonlyArray<Returned | undefined> | undefined
}

/** A column in the answer. */
export interface Returned {
  readonly column: string
  readonly kind: Kind
  /** Of the row before the write. */
  readonly isOld: boolean
}

/** What columns are set to; without a source it is not known. */
export type Given = ReadonlyMap<string, { readonly column: Column; readonly source: Assigned | undefined }>

/** A value, or of ON CONFLICT that of a column of the row given. */
type Assigned = Source | { readonly _tag: "Excluded"; readonly column: string }

/** More rows than this are the whole table. */
export const maxImages = 1_000

/** What a statement writes to of the tables it names, where something is known of the rows. */
export const rowWrites = (
  statement: Node,
  catalog: Catalog,
  searchPath: ReadonlyArray<string>,
  without: Without = none
): ReadonlyMap<Relation, ReadonlyArray<Touch>> => {
  const world = worldOf(statement, catalog, searchPath, without)
  const touches = new Map<Relation, Array<Touch>>()
  const seen = new Set<unknown>()
  const isKnown = tryVisit(world, (visited) => {
    for (const target of visited.targets(statement)) {
      const touch = touchOf(visited, target, Object.values(statement)[0] === target.node)
      if (typeof touch === "string") continue
      seen.add(target.node)
      const known = touches.get(target.relation)
      if (known === undefined) touches.set(target.relation, [touch])
      else known.push(touch)
    }
  })
  if (isKnown === undefined) return new Map()
  eachNode(statement, (node) => {
    for (const type of ["InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"]) {
      const write = node[type] as { readonly relation: Node } | undefined
      if (write === undefined || seen.has(write)) continue
      const relation = Scope.relationOf(world, write.relation)
      if (relation !== undefined) touches.delete(relation)
    }
  })
  return touches
}

const operations = { InsertStmt: "insert", UpdateStmt: "update", DeleteStmt: "delete" } as const

/** What a target is touched in, or why that is not known. `isAnswer`: what it returns is the answer of the statement. */
export const touchOf = (
  visited: Statement,
  target: Target,
  isAnswer: boolean
): Touch | "not-a-table" | "rule" | "insert-select" | "statement" => {
  const { catalog, without } = visited.world
  const { node, relation, type } = target
  if (!isRowTable(relation)) return "not-a-table"
  const events = new Set<string>([operations[type]])
  const conflict = node.onConflictClause as Conflict | undefined
  if (conflict?.action === "ONCONFLICT_UPDATE") events.add("update")
  const isRewritten = relation.rules.some((rule) => events.has(rule.event) || rule.event === "other")
  if (isRewritten && !without.has("rewritten")) return "rule"
  const rows = type === "InsertStmt" ? givenRows(visited.world, relation, node) : []
  // Where rows are neither given nor shown, nothing is known.
  const returning = isAnswer ? returned(visited, target) : undefined
  if (rows === undefined && returning === undefined) return "insert-select"
  if (type !== "InsertStmt" && target.where === undefined) return "statement"
  const list = type === "UpdateStmt"
    ? node.targetList
    : conflict?.action === "ONCONFLICT_UPDATE" && !without.has("on-conflict")
    ? conflict.targetList
    : undefined
  return {
    relation,
    isInsert: type === "InsertStmt",
    given: rows,
    where: target.where,
    assigned: list === undefined ? undefined : assignments(visited.world, relation, list, rows?.[0]),
    conflict: conflictColumns(visited.world, relation, conflict),
    isPlain: without.has("before-row") || !hasBeforeRow(catalog, relation, events),
    returning
  }
}

interface Conflict {
  readonly action: string
  readonly infer?: { readonly indexElems?: ReadonlyArray<{ readonly IndexElem: Node }> }
  readonly targetList?: unknown
}

/** Whether a row may be changed before it is stored. */
const hasBeforeRow = (catalog: Catalog, relation: Relation, events: ReadonlySet<string>): boolean =>
  [...withAncestors(catalog, relation), ...withDescendants(catalog, relation)].some(({ kind, triggers }) =>
    kind === "foreign" ||
    triggers.some(({ level, operations, timing }) =>
      level === "row" && timing !== "after" &&
      operations.some((operation) =>
        // A row that changes its partition is inserted into another.
        events.has(operation) || (operation === "insert" && relation.kind === "partitioned")
      )
    )
  )

/** The rows of VALUES. */
const givenRows = (world: Scope.World, relation: Relation, node: Node): ReadonlyArray<Given> | undefined => {
  const select = (node.selectStmt as { readonly SelectStmt?: Node } | undefined)?.SelectStmt
  const lists = select === undefined
    ? [[]]
    : (select.valuesLists as ReadonlyArray<{ readonly List: { readonly items: ReadonlyArray<unknown> } }> | undefined)
      ?.map(({ List: { items } }) => items)
  if (lists === undefined || lists.length > maxImages) return undefined
  const named = node.cols as ReadonlyArray<{ readonly ResTarget: Node }> | undefined
  const names = named === undefined
    ? relation.columns.map(({ name }) => name)
    : named.map(({ ResTarget: { indirection, name } }) => indirection === undefined ? name as string : undefined)
  const isIdentityGiven = node.override !== "OVERRIDING_USER_VALUE"
  // A column of which a part is named is given as well.
  const partly = new Set(
    named?.flatMap(({ ResTarget: { indirection, name } }) => indirection === undefined ? [] : [name])
  )
  return lists.map((items) => {
    const given = new Map(relation.columns.map((column) => [column.name, { column, source: byDefault(world, column) }]))
    for (const name of partly) unknown(given, relation, name as string)
    items.forEach((item, i) => {
      const column = relation.column.get(names[i] ?? "")
      if (column === undefined) return
      const source = column.identity === undefined || isIdentityGiven ? sourceOf(world, column, item) : undefined
      given.set(column.name, { column, source })
    })
    return given
  })
}

const unknown = (
  given: Map<string, { column: Column; source: undefined | Assigned }>,
  relation: Relation,
  name: string
) => {
  const column = relation.column.get(name)
  if (column !== undefined) given.set(name, { column, source: undefined })
}

const byDefault = (world: Scope.World, column: Column): Source | undefined => {
  const isNull = column.default === undefined && column.identity === undefined && column.generated === undefined &&
    !column.isDomain
  return isNull || world.without.has("default") ? { _tag: "Constant", value: null } : undefined
}

const sourceOf = (world: Scope.World, column: Column, node: unknown): Source | undefined => {
  if ((node as Node).SetToDefault !== undefined) return byDefault(world, column)
  const value = valueOf(world, node, false)
  return value !== undefined && fits(kindOf(column, world.without), value) ? value.source : undefined
}

/** What SET assigns. `given`: the row that ON CONFLICT calls `excluded`. */
const assignments = (
  world: Scope.World,
  relation: Relation,
  list: unknown,
  given: Given | undefined
): Given => {
  const assigned = new Map<string, { column: Column; source: Assigned | undefined }>()
  for (const { ResTarget: target } of list as ReadonlyArray<{ readonly ResTarget: Node }>) {
    const column = relation.column.get(target.name as string)
    if (column === undefined) continue
    if (target.indirection !== undefined) {
      assigned.set(column.name, { column, source: undefined })
      continue
    }
    const { ColumnRef: reference, MultiAssignRef: part } = target.val as {
      readonly ColumnRef?: { readonly fields: unknown }
      readonly MultiAssignRef?: { readonly colno: number; readonly source: { readonly RowExpr?: Node } }
    }
    const row = part?.source.RowExpr?.args as ReadonlyArray<unknown> | undefined
    const value = part === undefined ? target.val : row?.[part.colno - 1]
    const [table, name] = Scope.strings(reference?.fields)
    const excluded = table === "excluded" && given !== undefined ? relation.column.get(name ?? "") : undefined
    const isSame = excluded !== undefined && kindOf(excluded, world.without) === kindOf(column, world.without)
    assigned.set(column.name, {
      column,
      source: isSame
        ? { _tag: "Excluded", column: excluded.name }
        : value === undefined
        ? undefined
        : sourceOf(world, column, value)
    })
  }
  return assigned
}

/**
 * The columns of ON CONFLICT (...). Texts are left out: an index may have another
 * collation than its column.
 */
const conflictColumns = (
  world: Scope.World,
  relation: Relation,
  conflict: Conflict | undefined
): ReadonlyArray<string> =>
  (conflict?.infer?.indexElems ?? []).flatMap(({ IndexElem: { name } }) => {
    const column = typeof name === "string" ? relation.column.get(name) : undefined
    return column === undefined || kindOf(column, world.without) === "text" ? [] : [column.name]
  })

/** What the answer shows of the rows, if it shows anything. */
const returned = (visited: Statement, { node, owner, relation, scope, type }: Target): Touch["returning"] => {
  const clause = node.returningClause as { readonly exprs?: unknown; readonly options?: unknown } | undefined
  if (clause === undefined) return undefined
  const { without } = visited.world
  const names = { old: "old", new: "new" }
  for (
    const { ReturningOption: option } of (clause.options ?? []) as ReadonlyArray<{ readonly ReturningOption: Node }>
  ) {
    names[option.option === "RETURNING_OPTION_OLD" ? "old" : "new"] = option.value as string
  }
  const old = {}
  const now = {}
  const version = (owner: object) => tableOf(visited.world, owner, relation, "", []).names.columns[0]
  const tables = new Map([
    [names.old, version(old)],
    [names.new, version(now)],
    ...scope.names!.tables
  ])
  const columns = visited.outputs(clause.exprs, {}, { ...scope, names: { ...scope.names!, tables } })
  if (!columns.isComplete) return undefined
  const list = columns.list.map(([, { column, kind, owner: of }]) => {
    if (column === undefined || kind === undefined || kindOf(column, without) === undefined) return undefined
    // Of a deleted row there is nothing new, and what is old of it is all there is.
    const isItself = of === owner || (type === "DeleteStmt" ? of === old : of === now)
    if (!isItself && (of !== old || type === "DeleteStmt")) return undefined
    return { column: column.name, kind, isOld: !isItself }
  })
  return list.some((one) => one !== undefined && !one.isOld) ? list : undefined
}
