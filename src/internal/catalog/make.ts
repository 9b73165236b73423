/**
 * Makes a catalog of what the database answered.
 */
import { digest } from "./digest.ts"
import {
  type Catalog,
  type Column,
  type ForeignKey,
  type ForeignKeyAction,
  type Key,
  type Operation,
  type Operator,
  type Relation,
  type RelationKind,
  type Routine,
  type Rule,
  stampOf,
  type Trigger
} from "./model.ts"

/** Rows as they come, with oids as numbers, attribute numbers where the model has names, and letters for kinds. */
export interface Answer {
  readonly user: string
  readonly path: ReadonlyArray<string>
  readonly setting: string
  readonly relations: Rows<
    [oid: number, schema: string, name: string, kind: string, definition: string | null, secured: boolean | null]
  >
  readonly columns: Rows<
    [
      relation: number,
      name: string,
      position: number,
      type: number,
      modifier: number,
      deterministic: boolean,
      notNull: boolean,
      generated: string,
      identity: string,
      expression: string | null
    ]
  >
  readonly types: Rows<
    [oid: number, schema: string, name: string, kind: string, base: number, modifier: number]
  >
  readonly keys: Rows<[relation: number, columns: ReadonlyArray<number>, primary: boolean]>
  readonly parents: Rows<[child: number, parent: number]>
  readonly foreignKeys: Rows<
    [
      from: number,
      columns: ReadonlyArray<number>,
      to: number,
      references: ReadonlyArray<number>,
      onUpdate: string,
      onDelete: string,
      onDeleteColumns: ReadonlyArray<number> | null
    ]
  >
  readonly triggers: Rows<[relation: number, name: string, routine: number, type: number, deferrable: boolean]>
  readonly rules: Rows<[relation: number, name: string, event: string, instead: boolean, definition: string | null]>
  readonly policies: Rows<[relation: number, using: string | null, check: string | null]>
  readonly called: Rows<[relation: number, routine: number]>
  readonly routines: Rows<
    [
      oid: number,
      schema: string,
      name: string,
      kind: string,
      language: string,
      volatility: string,
      extension: string | null,
      source: string | null,
      settings: ReadonlyArray<string> | null,
      takesRow: boolean,
      isDefiner: boolean
    ]
  >
  readonly support: Rows<[routine: number, called: number]>
  readonly operators: Rows<
    [schema: string, name: string, routine: number, left: string | null, right: string | null]
  >
  readonly ambient: Rows<[routine: number]>
}

type Rows<Row extends ReadonlyArray<unknown>> = ReadonlyArray<Row>

export const make = (answer: Answer): Catalog => {
  const columns = group(answer.columns)
  const keys = group(answer.keys)
  const triggers = group(answer.triggers)
  const rules = group(answer.rules)
  const policies = group(answer.policies)
  const called = group(answer.called)
  const parents = group(answer.parents)
  const children = group(answer.parents.map(([child, parent]) => [parent, child] as const))
  const referencedBy = group(answer.foreignKeys.map((key) => [key[2], key] as const))
  const typeOf = types(answer)

  const names = new Map<number, ReadonlyMap<number, string>>()
  for (const [oid, rows] of columns) names.set(oid, new Map(rows.map((row) => [row[2], row[1]])))
  const named = (relation: number, positions: ReadonlyArray<number>): ReadonlyArray<string> =>
    positions.map((position) => names.get(relation)?.get(position) ?? "")

  const relations = new Map<number, Relation>()
  const byName = new Map<string, Map<string, Relation>>()
  for (const row of answer.relations) {
    const [oid, schema, name, kind, definition, secured] = row
    const own = {
      columns: columns.get(oid) ?? [],
      keys: keys.get(oid) ?? [],
      triggers: triggers.get(oid) ?? [],
      rules: rules.get(oid) ?? [],
      policies: policies.get(oid) ?? [],
      parents: parents.get(oid) ?? [],
      referencedBy: referencedBy.get(oid) ?? [],
      called: called.get(oid) ?? []
    }
    const list = own.columns.map((column): Column => {
      const type = typeOf(column[3], column[4])
      return {
        name: column[1],
        position: column[2],
        type: type.name,
        typeKind: type.kind,
        isDomain: type.isDomain,
        modifier: type.modifier,
        deterministic: column[5],
        notNull: column[6],
        generated: column[7] === "s" ? "stored" : column[7] === "v" ? "virtual" : undefined,
        identity: column[8] === "a" ? "always" : column[8] === "d" ? "default" : undefined,
        default: column[9] ?? undefined
      }
    })
    const relation: Relation = {
      oid,
      schema,
      name,
      kind: kinds[kind] ?? "foreign",
      stamp: stampOf(schema, name),
      signature: digest(JSON.stringify([row, own, list])),
      columns: list,
      column: new Map(list.map((column) => [column.name, column])),
      keys: own.keys.map(([, positions, primary]): Key => ({ columns: named(oid, positions), primary })),
      parents: own.parents.map(([, parent]) => parent),
      children: (children.get(oid) ?? []).map(([, child]) => child),
      referencedBy: own.referencedBy.map(([, key]) => foreignKey(key, named)),
      triggers: own.triggers.map(trigger),
      rules: own.rules.map(([, name, event, instead, definition]): Rule => ({
        name,
        event: events[event] ?? "other",
        instead,
        definition: definition ?? ""
      })),
      definition: definition ?? undefined,
      rowSecurity: secured === null ? undefined : {
        active: secured,
        expressions: own.policies.flatMap(([, using, check]) => [using, check].filter((text) => text !== null))
      },
      called: own.called.map(([, routine]) => routine)
    }
    relations.set(oid, relation)
    let inSchema = byName.get(schema)
    if (inSchema === undefined) byName.set(schema, inSchema = new Map())
    inSchema.set(name, relation)
  }

  const support = group(answer.support)
  const functions = new Map<number, Routine>()
  const functionsByName = new Map<string, Array<Routine>>()
  for (const row of answer.routines) {
    const [oid, schema, name, kind, language, volatility, extension, source, settings, takesRow, isDefiner] = row
    const calls = (support.get(oid) ?? []).map(([, called]) => called)
    const routine: Routine = {
      oid,
      schema,
      name,
      kind: routineKinds[kind] ?? "function",
      language,
      volatility: volatility === "i" ? "immutable" : volatility === "s" ? "stable" : "volatile",
      extension: extension ?? undefined,
      source: source ?? undefined,
      isDefiner,
      searchPath: pathIn(settings),
      calls,
      takesRow,
      signature: digest(JSON.stringify([row, calls]))
    }
    functions.set(oid, routine)
    push(functionsByName, name, routine)
  }

  const operators = new Map<string, Array<Operator>>()
  for (const [schema, name, routine, left, right] of answer.operators) {
    push(operators, name, { schema, name, function: routine, left: left ?? undefined, right: right ?? undefined })
  }

  const lasting = Array.from(relations.values(), ({ schema, signature }) => schema === "pg_temp" ? "" : signature)
  const { ambient, path, setting, user } = answer
  return {
    version: digest(JSON.stringify(answer)),
    lasting: digest(JSON.stringify([
      lasting.filter((signature) => signature !== ""),
      Array.from(functions.values(), ({ signature }) => signature),
      answer.operators,
      ambient,
      path,
      setting,
      user
    ])),
    user: answer.user,
    searchPath: answer.path,
    searchPathSetting: answer.setting,
    relations,
    byName,
    functions,
    functionsByName,
    operators,
    ambient: answer.ambient.map(([routine]) => routine)
  }
}

/** A `search_path` as its setting writes it: identifiers, those in quotes as they are, the others in lower case. */
export const parsePath = (text: string): ReadonlyArray<string> =>
  Array.from(
    text.matchAll(/"((?:[^"]|"")*)"|[^\s,"]+/g),
    ([whole, quoted]) => quoted === undefined ? whole.toLowerCase() : quoted.replaceAll("\"\"", "\"")
  )

const pathIn = (settings: ReadonlyArray<string> | null): ReadonlyArray<string> | undefined => {
  const setting = settings?.find((text) => text.startsWith("search_path="))
  return setting === undefined ? undefined : parsePath(setting.slice("search_path=".length))
}

const push = <A>(map: Map<string, Array<A>>, key: string, value: A): void => {
  const list = map.get(key)
  if (list === undefined) map.set(key, [value])
  else list.push(value)
}

/** By their first field. */
const group = <Row extends readonly [number, ...Array<any>]>(rows: ReadonlyArray<Row>): Map<number, Array<Row>> => {
  const groups = new Map<number, Array<Row>>()
  for (const row of rows) {
    const list = groups.get(row[0])
    if (list === undefined) groups.set(row[0], [row])
    else list.push(row)
  }
  return groups
}

interface Type {
  readonly name: string
  readonly kind: Column["typeKind"]
  readonly isDomain: boolean
  readonly modifier: number
}

const types = (answer: Answer): (oid: number, modifier: number) => Type => {
  const byOid = new Map(answer.types.map((type) => [type[0], type]))
  return (oid, modifier) => {
    let type = byOid.get(oid)
    const isDomain = type?.[3] === "d"
    // A domain may be one over another. Where none has a length of its own, the column's base is that of the innermost.
    let length = modifier
    for (let depth = 0; type?.[3] === "d" && depth < 100; depth++) {
      if (length === -1) length = type[5]
      type = byOid.get(type[4])
    }
    return {
      name: type === undefined ? "unknown" : type[1] === "pg_catalog" ? type[2] : `${type[1]}.${type[2]}`,
      kind: typeKinds[type?.[3] ?? ""] ?? "other",
      isDomain,
      modifier: length
    }
  }
}

const foreignKey = (
  [from, columns, to, references, onUpdate, onDelete, onDeleteColumns]: Answer["foreignKeys"][number],
  named: (relation: number, positions: ReadonlyArray<number>) => ReadonlyArray<string>
): ForeignKey => ({
  from,
  columns: named(from, columns),
  to,
  references: named(to, references),
  onUpdate: actions[onUpdate] ?? "cascade",
  onDelete: actions[onDelete] ?? "cascade",
  onDeleteColumns: named(from, onDeleteColumns ?? columns)
})

// The bits of `pg_trigger.tgtype`.
const trigger = ([, name, routine, type, deferrable]: Answer["triggers"][number]): Trigger => ({
  name,
  function: routine,
  timing: type & 64 ? "instead" : type & 2 ? "before" : "after",
  level: type & 1 ? "row" : "statement",
  operations: operations.filter((_, i) => type & (4 << i)),
  deferrable
})

const operations: ReadonlyArray<Operation> = ["insert", "delete", "update", "truncate"]

const kinds: { readonly [letter: string]: RelationKind } = {
  r: "table",
  p: "partitioned",
  v: "view",
  m: "materialized",
  f: "foreign",
  S: "sequence"
}

const typeKinds: { readonly [letter: string]: Column["typeKind"] } = {
  b: "base",
  e: "enum",
  c: "composite",
  r: "range",
  m: "range"
}

const routineKinds: { readonly [letter: string]: Routine["kind"] } = {
  f: "function",
  p: "procedure",
  a: "aggregate",
  w: "window"
}

const events: { readonly [letter: string]: Rule["event"] } = { 2: "update", 3: "insert", 4: "delete" }

const actions: { readonly [letter: string]: ForeignKeyAction } = {
  a: "none",
  r: "restrict",
  c: "cascade",
  n: "set-null",
  d: "set-default"
}
