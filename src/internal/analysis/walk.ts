/**
 * What a statement's syntax tree touches.
 *
 * The walk visits every node and asks of each what it is, not where it stands:
 * a table counts in whatever clause its name is found, so no clause can be
 * forgotten, and a clause that a later parser knows is covered before this
 * module knows it. Only two things depend on the place: which names a WITH
 * clause has taken, and which table a statement writes to.
 */
import * as functions from "./functions.ts"
import type { Node } from "./parser.ts"
import { type Setting, settingsOfCall } from "./settings.ts"
import { namesTheTime } from "./text.ts"

/** Why the answer of a query cannot be cached. */
export interface Objection {
  readonly code: ObjectionCode
  /** The function, table, column or clause. Never a value. */
  readonly detail: string
  /** Whether it may write, and nobody knows where. */
  readonly mayWrite: boolean
  /** Whether the answer is the same for all who ask under one scope. */
  readonly isScoped: boolean
}

/** A relation, function or operator as a text names it. */
export interface Name {
  readonly schema: string | undefined
  readonly name: string
}

export type Operation = "insert" | "update" | "delete" | "truncate" | "truncate cascade" | "refresh"

export interface Target extends Name {
  readonly operations: Set<Operation>
  /** The columns that updates assign; nothing where that cannot be told. */
  assigned: Set<string> | undefined
}

export type ObjectionCode =
  | "volatile-function"
  | "unknown-function"
  | "unknown-operator"
  | "dynamic-query"
  | "session-dependent"
  | "system-catalog"
  | "system-column"
  | "temporary-table"
  | "locking-clause"
  | "tablesample"
  | "row-security"
  | "unknown-relation"
  | "foreign-relation"
  | "sequence-relation"
  | "opaque-function"

export interface Facts {
  /** Relations read, as PostgreSQL stores their names. */
  readonly reads: Map<string, Name>
  /** Relations that INSERT, UPDATE, DELETE or MERGE name as their target. */
  readonly writes: Map<string, Target>
  /** Functions called, but those that the program vouches for or that are named as PostgreSQL's own by their schema. */
  readonly calls: Map<string, Name>
  /** Operators by their names without a schema. Equality is always among them: several clauses use it unnamed. */
  readonly operators: Set<string>
  /** What stands after a dot and may be a column or a function of the row. */
  readonly fields: Set<string>
  /** Whether a target is a system catalog, whose rows mean anything. */
  writesCatalog: boolean
  /** What it leaves behind in its session. */
  readonly settings: Array<Setting>
  /** SELECT INTO. */
  createsTable: boolean
  timeDependent: boolean
  readonly objections: Array<Objection>
}

/** Functions that the program vouches for, as `name` or `schema.name`. */
export interface Declared {
  readonly stable: ReadonlySet<string>
  readonly readOnly: ReadonlySet<string>
  /** With the tables they write to. */
  readonly writes: ReadonlyMap<string, ReadonlyArray<Name>>
}

/** What the program says of a function, if it says something. */
export const vouchedFor = (
  declared: Declared,
  name: string
): { readonly isStable: boolean; readonly writes: ReadonlyArray<Name> } | undefined => {
  const writes = declared.writes.get(name)
  if (writes !== undefined) return { isStable: false, writes }
  const isStable = declared.stable.has(name)
  return isStable || declared.readOnly.has(name) ? { isStable, writes: [] } : undefined
}

/** The names that WITH clauses have taken, innermost first. */
interface Scope {
  readonly names: ReadonlySet<string>
  readonly outer: Scope | undefined
}

/** Of a text that says nothing. */
export const noFacts = (): Facts => ({
  reads: new Map(),
  writes: new Map(),
  calls: new Map(),
  operators: new Set(["="]),
  fields: new Set(),
  settings: [],
  writesCatalog: false,
  createsTable: false,
  timeDependent: false,
  objections: []
})

/** Adds a relation that a statement writes to. */
export const addTarget = (
  facts: Facts,
  node: RangeVar,
  operations: ReadonlyArray<Operation>,
  assigned?: ReadonlyArray<string>
): void => {
  const key = nameOf(node)
  let target = facts.writes.get(key)
  if (target === undefined) {
    facts.writes.set(key, target = { ...nameIn(node), operations: new Set(), assigned: new Set() })
  }
  for (const operation of operations) target.operations.add(operation)
  if (assigned === undefined) target.assigned = undefined
  else for (const column of assigned) target.assigned?.add(column)
  if (isCatalog(nameIn(node))) facts.writesCatalog = true
}

export const walk = (root: unknown, declared: Declared): Facts => {
  const facts = noFacts()
  const object = (code: ObjectionCode, detail: string, mayWrite = false, isScoped = false): void => {
    facts.objections.push({ code, detail, mayWrite, isScoped })
  }

  // A stack of its own: a tree may be deeper than the engine's.
  const nodes: Array<Node | ReadonlyArray<unknown>> = []
  const types: Array<string> = []
  const scopes: Array<Scope | undefined> = []
  const later = (value: unknown, type: string, scope: Scope | undefined): void => {
    if (typeof value !== "object" || value === null) return
    nodes.push(value as Node)
    types.push(type)
    scopes.push(scope)
  }

  const enterWith = (clause: WithClause, outer: Scope | undefined): Scope | undefined => {
    const queries = (clause.ctes ?? []).map((node) => node.CommonTableExpr)
    if (clause.recursive === true) {
      const scope = { names: new Set(queries.map((query) => query.ctename)), outer }
      for (const query of queries) later(query, "CommonTableExpr", scope)
      return scope
    }
    // Without RECURSIVE a query sees the ones before it; its own name is still the table's.
    let scope = outer
    for (const query of queries) {
      later(query, "CommonTableExpr", scope)
      scope = { names: new Set([query.ctename]), outer: scope }
    }
    return scope
  }

  const relation = (node: RangeVar, scope: Scope | undefined): void => {
    if (node.schemaname === undefined && isTaken(node.relname, scope)) return
    facts.reads.set(nameOf(node), nameIn(node))
    if (isTemporary(node)) {
      object("temporary-table", node.relname)
    } else if (isCatalog(nameIn(node))) {
      object("system-catalog", nameOf(node))
    }
  }

  const call = (node: Node): void => {
    const names = strings(node.funcname)
    if (names.length > 2) names.splice(0, names.length - 2)
    const shown = names.join(".")
    const known = !names.some((name) => name.includes("."))
    const vouched = known ? vouchedFor(declared, shown) : undefined
    if (vouched !== undefined) {
      for (const { name, schema } of vouched.writes) addTarget(facts, { schemaname: schema, relname: name }, anyChange)
      if (!vouched.isStable) object("volatile-function", shown)
      return
    }
    const name = names[names.length - 1]
    const builtIn = known && (names.length === 1 || names[0] === "pg_catalog")
    if (builtIn && name === "set_config") facts.settings.push(...settingsOfCall(node.args))
    // An own function by the name of one of PostgreSQL's may be meant, and can only be told by its arguments.
    if (!known || names[0] !== "pg_catalog") {
      facts.calls.set(shown, { schema: names.length === 1 ? undefined : names[0], name })
    }
    if (builtIn && functions.accepted.has(name)) return
    if (builtIn && functions.timeBound.has(name)) {
      if (name !== "age" || countOf(node.args) === 1) facts.timeDependent = true
    } else if (builtIn && functions.sessionBound.has(name)) {
      object("session-dependent", shown, false, functions.scopeBound.has(name))
    } else if (builtIn && functions.catalogBound.has(name)) {
      object("system-catalog", shown)
    } else if (builtIn && functions.volatile.has(name)) {
      object("volatile-function", shown)
    } else if (builtIn && functions.dynamic.has(name)) {
      object("dynamic-query", shown, true)
    } else {
      object("unknown-function", shown, true)
    }
  }

  const operator = (names: unknown): void => {
    const parts = strings(names)
    if (parts.length > 0) facts.operators.add(parts[parts.length - 1])
    if (parts.length > 1 && parts[0] !== "pg_catalog") object("unknown-operator", parts.join("."), true)
  }

  const column = (names: unknown, minParts: number): void => {
    const parts = strings(names)
    for (const name of parts) if (systemColumns.has(name)) object("system-column", name)
    if (parts.length >= minParts) facts.fields.add(parts[parts.length - 1])
  }

  const visit = (type: string, node: Node, outer: Scope | undefined): void => {
    // Some fields hold a node of one fixed type, printed without its name, so these are told by what they hold.
    if (typeof node.relname === "string") return relation(node as unknown as RangeVar, outer)
    if (Array.isArray(node.funcname)) call(node)
    if (Array.isArray(node.names)) {
      const name = strings(node.names).pop()
      if (name !== undefined && catalogTypes.has(name)) object("system-catalog", name)
    }
    let skipped: string | undefined
    switch (type) {
      case "InsertStmt":
      case "UpdateStmt":
      case "DeleteStmt":
      case "MergeStmt":
        addTarget(facts, node.relation as RangeVar, operationsOf(type, node), assignedBy(type, node))
        skipped = "relation"
        break
      case "ColumnRef":
        column(node.fields, 2)
        return
      case "A_Indirection":
        column(node.indirection, 1)
        break
      case "A_Expr":
        operator(node.name)
        break
      case "SubLink":
        operator(node.operName)
        break
      case "SortBy":
        operator(node.useOp)
        break
      case "A_Const": {
        const text = (node.sval as { readonly sval?: string } | undefined)?.sval
        if (text !== undefined && namesTheTime(text)) facts.timeDependent = true
        return
      }
      case "SQLValueFunction": {
        const op = node.op as string
        if (/_(?:DATE|TIME|TIMESTAMP|LOCALTIME|LOCALTIMESTAMP)(?:_N)?$/.test(op)) facts.timeDependent = true
        else object("session-dependent", op.replace("SVFOP_", "").toLowerCase(), false, true)
        break
      }
      case "LockingClause":
        // What it names are aliases.
        object("locking-clause", locks[node.strength as string] ?? "FOR UPDATE")
        return
      case "RangeTableSample":
        object("tablesample", "TABLESAMPLE")
        break
    }
    // Printed with its type's name or, as an arm of a UNION, without.
    if (node.intoClause !== undefined) {
      facts.createsTable = true
      skipped = "intoClause"
    }
    const scope = node.withClause === undefined ? outer : enterWith(node.withClause as WithClause, outer)
    for (const name in node) {
      if (name !== skipped && name !== "withClause") later(node[name], isTypeName(name) ? name : "", scope)
    }
  }

  later(root, "", undefined)
  while (nodes.length > 0) {
    const node = nodes.pop()!
    const type = types.pop()!
    const scope = scopes.pop()
    if (!isArray(node)) visit(type, node, scope)
    else for (let i = node.length - 1; i >= 0; i--) later(node[i], "", scope)
  }
  return facts
}

export interface RangeVar {
  readonly schemaname?: string | undefined
  readonly relname: string
}

interface WithClause {
  readonly recursive?: boolean
  readonly ctes?: ReadonlyArray<{ readonly CommonTableExpr: { readonly ctename: string } }>
}

const isArray: (value: unknown) => value is ReadonlyArray<unknown> = Array.isArray

// A field that holds a node of any type holds an object whose one field is the name of that type.
const isTypeName = (field: string): boolean => field.charCodeAt(0) <= 90

const isTaken = (name: string, scope: Scope | undefined): boolean => {
  for (let at = scope; at !== undefined; at = at.outer) if (at.names.has(name)) return true
  return false
}

const isTemporary = (node: RangeVar): boolean =>
  node.schemaname !== undefined && /^pg_(?:toast_)?temp/.test(node.schemaname)

/** Of the system. Also pg_stat_statements and its like, which extensions put into any schema. */
export const isCatalog = ({ name, schema }: Name): boolean =>
  schema === "information_schema" || schema === "pg_catalog" || schema === "pg_toast" || name.startsWith("pg_")

const nameIn = ({ relname, schemaname }: RangeVar): Name => ({ schema: schemaname, name: relname })

const nameOf = (node: RangeVar): string =>
  node.schemaname === undefined ? node.relname : `${node.schemaname}.${node.relname}`

/** The names in a list of String nodes; a star is none. */
const strings = (list: unknown): Array<string> => {
  const names: Array<string> = []
  if (isArray(list)) {
    for (const element of list as ReadonlyArray<{ readonly String?: { readonly sval?: string } }>) {
      if (element.String !== undefined) names.push(element.String.sval ?? "")
    }
  }
  return names
}

const countOf = (list: unknown): number => isArray(list) ? list.length : 0

const operationsOf = (type: string, node: Node): ReadonlyArray<Operation> => {
  switch (type) {
    case "InsertStmt":
      return node.onConflictClause === undefined ? ["insert"] : ["insert", "update"]
    case "UpdateStmt":
      return ["update"]
    case "DeleteStmt":
      return ["delete"]
    default:
      return anyChange
  }
}

/** The columns that a statement assigns in rows that exist. */
const assignedBy = (type: string, node: Node): ReadonlyArray<string> => {
  switch (type) {
    case "UpdateStmt":
      return namesOf(node.targetList)
    case "InsertStmt":
      return namesOf((node.onConflictClause as Node | undefined)?.targetList)
    case "MergeStmt":
      return ((node.mergeWhenClauses ?? []) as ReadonlyArray<{ readonly MergeWhenClause: Node }>)
        .flatMap(({ MergeWhenClause }) => namesOf(MergeWhenClause.targetList))
    default:
      return []
  }
}

const namesOf = (targets: unknown): ReadonlyArray<string> =>
  ((targets ?? []) as ReadonlyArray<{ readonly ResTarget: { readonly name: string } }>).map(({ ResTarget }) =>
    ResTarget.name
  )

const anyChange: ReadonlyArray<Operation> = ["insert", "update", "delete"]

const systemColumns = new Set(["cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"])

// Reading one of these looks a name up in the catalogs. Text search configurations are left out: they come from the
// client's settings and change by DDL alone, as a table's columns do.
const catalogTypes = new Set(
  "regclass regcollation regnamespace regoper regoperator regproc regprocedure regrole regtype".split(" ")
)

const locks: { readonly [strength: string]: string } = {
  LCS_FORKEYSHARE: "FOR KEY SHARE",
  LCS_FORSHARE: "FOR SHARE",
  LCS_FORNOKEYUPDATE: "FOR NO KEY UPDATE",
  LCS_FORUPDATE: "FOR UPDATE"
}
