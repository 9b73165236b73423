/**
 * How far a statement reaches, judged by the catalog: from the names in its text
 * to the relations that its answer follows from and those that it changes.
 *
 * What is read:
 *
 * - a table or materialized view: itself;
 * - a view: itself, and what its query reads;
 * - where row security applies: what its policies read too;
 * - through a function: what the statements in its body read.
 *
 * What is written:
 *
 * - a table: itself; by the actions of foreign keys, the tables that refer to it;
 *   by triggers, rules, defaults and constraints, what their functions write;
 * - a view: what its INSTEAD OF triggers and rules write, or the table under it;
 * - through a function: what the statements in its body write.
 *
 * ## Partitions and inheritance
 *
 * A row of a table is a row of its ancestors too. A query on a table depends on
 * that one table, however many partitions it has, and a write stamps the table
 * and its ancestors. What is left is a write *through* an ancestor that ends in
 * the table: it stamps the mark `^ancestor`, on which the readers of the
 * ancestor's descendants depend. So no number of partitions makes a read or a
 * write any larger, and two partitions that are read and written by their own
 * names leave each other alone.
 *
 * ## Names of several processes
 *
 * Where no catalog is read, names come without a schema: `archive.orders` is
 * `orders`. Outside `public` two marks bring them together: who reads
 * `archive.orders` depends on `~orders`, which writes stamp that go by the name,
 * and who writes it stamps `%orders`, on which those depend that read by the name.
 */
import { fromRelation } from "../../Dependency.ts"
import { isBuiltIn } from "../analysis/functions.ts"
import type { Setting } from "../analysis/settings.ts"
import type { Verdict } from "../analysis/statement.ts"
import * as Walk from "../analysis/walk.ts"
import type { Without } from "../conjunctions/rules.ts"
import type { Bodies, Body } from "./bodies.ts"
import { digest } from "./digest.ts"
import {
  type Catalog,
  type Relation,
  resolve,
  type Routine,
  type Trigger,
  withAncestors,
  withDescendants
} from "./model.ts"

/** Where names without a schema are looked for. */
export interface Path {
  readonly schemas: ReadonlyArray<string>
  /** Whether the first schema that has a name is the one meant. Else they all are. */
  readonly isCertain: boolean
  /** Whether row security applies to everybody, because nobody knows whose rights count. */
  readonly isSecured: boolean
}

export interface Schema {
  readonly catalog: Catalog
  readonly bodies: Bodies
  readonly declared: Walk.Declared
  /** Names of temporary tables that connections of the pool may have. */
  readonly temporary: ReadonlySet<string>
  /** Rules of row dependencies that are left out. */
  readonly without?: Without | undefined
}

/** Stamped by writes that go by the name alone, and read by those who know the schema and it is not `public`. */
export const byName = (table: string): string => `~${table}`

/** Stamped by writes to a schema other than `public`, and read by those who go by the name alone. */
export const bySchema = (table: string): string => `%${table}`

/** Stamped by writes through a table that may end in one of its descendants. */
const below = (table: string): string => `^${table}`

/** What a query on this relation depends on, its own rows apart from anything else it may read. */
const readStamps = (catalog: Catalog, relation: Relation): ReadonlyArray<string> => {
  const stamps = [relation.stamp]
  if (relation.schema !== "public") stamps.push(byName(fromRelation(relation.name).table))
  for (const ancestor of withAncestors(catalog, relation)) if (ancestor !== relation) stamps.push(below(ancestor.stamp))
  return stamps
}

/** What a write to this relation stamps, as far as its own rows go. */
const writeStamps = (
  catalog: Catalog,
  relation: Relation,
  operation?: Walk.Operation
): ReadonlyArray<string> => {
  const stamps: Array<string> = []
  for (const { name, schema, stamp } of withAncestors(catalog, relation)) {
    stamps.push(stamp)
    if (schema !== "public") stamps.push(bySchema(fromRelation(name).table))
  }
  // Only a partitioned table hands on the rows that are inserted into it.
  const endsBelow = relation.children.length > 0 && (relation.kind === "partitioned" || operation !== "insert")
  if (endsBelow) stamps.push(below(relation.stamp))
  return stamps
}

export const judge = (schema: Schema, path: Path) => (facts: Walk.Facts): Verdict => {
  const reach = new Reach(schema)
  reach.facts(facts, path, true)
  for (const oid of schema.catalog.ambient) reach.routineOf(oid, path, true)
  return reach.verdict(path)
}

/** Stamps of a relation that a program names, and of everything under it. */
export const stampsOfName = (schema: Schema, path: Path, name: Walk.Name, access: "read" | "write"): Set<string> => {
  const reach = new Reach(schema)
  for (const relation of reach.resolve(name, path)) {
    if (access === "read") reach.read(relation, path, true)
    else for (const stamp of writeStamps(schema.catalog, relation)) reach.writes.add(stamp)
  }
  return access === "read" ? reach.reads : reach.writes
}

type Columns = ReadonlySet<string> | undefined

class Reach {
  readonly reads = new Set<string>()
  readonly writes = new Set<string>()
  private readonly schema: Schema
  private readonly catalog: Catalog
  private readonly objections: Array<Walk.Objection> = []
  private readonly signatures = new Set<string>()
  private readonly done = new Set<string>()
  private readonly settings: Array<Setting> = []
  private readonly written = new Map<Relation, ReadonlyArray<string>>()
  private readonly indirectly = new Map<Relation, string>()
  /** What lies between the statement and what is looked at. */
  private via: string | undefined
  private opaque: string | undefined
  private timeDependent = false
  /** Whether a name means nothing, by what is known. */
  private isDoubtful = false

  constructor(schema: Schema) {
    this.schema = schema
    this.catalog = schema.catalog
  }

  verdict(path: Path): Verdict {
    const { indirectly, isDoubtful, objections, opaque, reads, settings, timeDependent, writes, written } = this
    return {
      reads,
      writes,
      opaque,
      objections,
      timeDependent,
      settings,
      isDoubtful,
      schema: digest([...this.signatures].sort().join()),
      reached: path.isCertain
        ? { catalog: this.catalog, searchPath: path.schemas, indirectly, written, without: this.schema.without }
        : undefined
    }
  }

  /** What is done on the way is not in the words of the statement. */
  private indirect(via: string, run: () => void): void {
    const outer = this.via
    this.via = via
    run()
    this.via = outer
  }

  private reach(relation: Relation): void {
    if (this.via !== undefined && !this.indirectly.has(relation)) this.indirectly.set(relation, this.via)
  }

  /** `isAsked`: its rows are part of the answer. Otherwise all that matters is what it writes. */
  facts(facts: Walk.Facts, path: Path, isAsked: boolean): void {
    if (facts.writesCatalog) this.opaque ??= "a system catalog"
    if (isAsked) this.timeDependent ||= facts.timeDependent
    this.settings.push(...facts.settings)
    for (const objection of facts.objections) {
      // These are known better here.
      if (objection.code === "unknown-function" || objection.code === "unknown-operator") continue
      if (isAsked) this.objections.push(objection)
      if (objection.mayWrite) this.opaque ??= objection.detail
    }
    for (const name of facts.reads.values()) this.readName(name, path, isAsked)
    for (const target of facts.writes.values()) {
      for (const operation of target.operations) this.writeName(target, operation, target.assigned, path)
    }
    for (const name of facts.calls.values()) this.call(name, path, isAsked)
    for (const name of facts.operators) {
      for (const operator of this.catalog.operators.get(name) ?? []) this.routineOf(operator.function, path, isAsked)
    }
    for (const name of facts.fields) {
      for (const routine of this.catalog.functionsByName.get(name) ?? []) {
        if (routine.takesRow && this.isVisible(routine.schema, path)) this.routine(routine, path, isAsked)
      }
    }
  }

  /** The relations that a name may mean. */
  resolve(name: Walk.Name, path: Path): ReadonlyArray<Relation> {
    if (path.isCertain || name.schema !== undefined) {
      const relation = resolve(this.catalog, path.schemas, name.name, name.schema)
      return relation === undefined ? [] : [relation]
    }
    return path.schemas.flatMap((schema) => resolve(this.catalog, [], name.name, schema) ?? [])
  }

  private object(code: Walk.ObjectionCode, detail: string, isScoped = false): void {
    this.objections.push({ code, detail, mayWrite: false, isScoped })
  }

  private isVisible(schema: string, path: Path): boolean {
    return path.schemas.includes(schema)
  }

  private isTemporary({ name, schema }: Walk.Name): boolean {
    return schema === undefined
      ? this.schema.temporary.has(name) || this.catalog.byName.get("pg_temp")?.has(name) === true
      : schema.startsWith("pg_temp")
  }

  // -----------------------------------------------------------------------------
  // what is read
  // -----------------------------------------------------------------------------

  private readName(name: Walk.Name, path: Path, isAsked: boolean): void {
    const isTemporary = this.isTemporary(name)
    if (isTemporary && isAsked) this.object("temporary-table", name.name)
    const relations = this.resolve(name, path)
    for (const relation of relations) this.read(relation, path, isAsked)
    // Those of the system are objected to by their names.
    if (relations.length === 0 && isAsked && !isTemporary && !Walk.isCatalog(name)) {
      this.isDoubtful = true
      this.object("unknown-relation", shown(name))
    }
  }

  read(relation: Relation, path: Path, isAsked: boolean): void {
    this.reach(relation)
    if (!this.once("read", relation.oid, isAsked, path.isSecured)) return
    this.signatures.add(relation.signature)
    if (isAsked) { for (const stamp of readStamps(this.catalog, relation)) this.reads.add(stamp) }
    switch (relation.kind) {
      case "view":
        // Its owner's rights count, or the caller's, in what it reads.
        return this.body(this.schema.bodies.view(relation), relation.name, { ...printed, isSecured: true }, isAsked)
      case "materialized":
        return
      case "foreign":
      case "sequence":
        if (isAsked) this.object(`${relation.kind}-relation`, relation.name)
        return
    }
    const { rowSecurity } = relation
    if (rowSecurity !== undefined && (rowSecurity.active || path.isSecured)) {
      if (isAsked) this.object("row-security", relation.name, true)
      for (const expression of rowSecurity.expressions) this.expression(expression, relation.name, isAsked, true)
    }
    for (const { name, default: expression, generated } of relation.columns) {
      if (generated === "virtual") this.expression(expression!, `${relation.name}.${name}`, isAsked)
    }
    for (const descendant of withDescendants(this.catalog, relation)) {
      if (isAsked && descendant.kind === "foreign") this.object("foreign-relation", descendant.name)
    }
  }

  private expression(expression: string, owner: string, isAsked: boolean, isSecured = false): void {
    this.body(this.schema.bodies.expression(expression), owner, { ...printed, isSecured }, isAsked)
  }

  private body(body: Body, owner: string, path: Path, isAsked: boolean): void {
    if (body.opaque !== undefined) this.obscure(`${owner} ${body.opaque}`, isAsked)
    this.indirect(owner, () => body.facts.forEach((facts) => this.facts(facts, path, isAsked)))
  }

  private obscure(culprit: string, isAsked: boolean): void {
    this.opaque ??= culprit
    if (isAsked) this.objections.push({ code: "opaque-function", detail: culprit, mayWrite: true, isScoped: false })
  }

  // -----------------------------------------------------------------------------
  // what is called
  // -----------------------------------------------------------------------------

  private call(name: Walk.Name, path: Path, isAsked: boolean): void {
    const routines = this.catalog.functionsByName.get(name.name) ?? []
    let isKnown = name.schema === undefined && isBuiltIn(name.name)
    for (const routine of routines) {
      if (name.schema === undefined ? this.isVisible(routine.schema, path) : routine.schema === name.schema) {
        isKnown = true
        this.routine(routine, path, isAsked)
      }
    }
    if (isKnown) return
    this.isDoubtful = true
    this.opaque ??= shown(name)
    if (isAsked) {
      this.objections.push({ code: "unknown-function", detail: shown(name), mayWrite: true, isScoped: false })
    }
  }

  routineOf(oid: number, path: Path, isAsked: boolean): void {
    const routine = this.catalog.functions.get(oid)
    // One of PostgreSQL's own.
    if (routine !== undefined) this.routine(routine, path, isAsked)
  }

  private routine(routine: Routine, path: Path, isAsked: boolean): void {
    const { language, name, schema, volatility } = routine
    if (!this.once("call", routine.oid, isAsked, path.schemas.join())) return
    this.signatures.add(routine.signature)
    const vouched = Walk.vouchedFor(this.schema.declared, name) ??
      Walk.vouchedFor(this.schema.declared, `${schema}.${name}`)
    if (vouched !== undefined) {
      if (isAsked && !vouched.isStable) this.object("volatile-function", name)
      this.indirect(name, () => {
        for (const target of vouched.writes) {
          for (const operation of anyChange) this.writeName(target, operation, undefined, path)
        }
      })
      return
    }
    if (routine.kind === "aggregate" || routine.kind === "window") {
      for (const oid of routine.calls) this.routineOf(oid, path, isAsked)
    } else if (language === "sql" || language === "plpgsql") {
      const own = routine.searchPath
      const named = own === undefined ? path : { ...path, schemas: own, isCertain: true }
      this.body(
        this.schema.bodies.routine(routine),
        name,
        routine.isDefiner ? { ...named, isSecured: true } : named,
        isAsked
      )
    } else if (language === "c" && routine.extension !== undefined && harmless.has(routine.extension)) {
      if (isAsked && volatility === "volatile") this.object("volatile-function", name)
    } else if (
      !((language === "c" && routine.extension !== undefined || language === "internal") &&
        volatility === "immutable")
    ) {
      this.obscure(`${name} is written in ${language}`, isAsked)
    }
  }

  // -----------------------------------------------------------------------------
  // what is written
  // -----------------------------------------------------------------------------

  private writeName(name: Walk.Name, operation: Walk.Operation, assigned: Columns, path: Path): void {
    const relations = this.resolve(name, path)
    for (const relation of relations) this.write(relation, operation, assigned, path)
    if (this.isTemporary(name)) {
      // It may have triggers of its own, if it is a session's of this pool.
      const own = this.catalog.byName.get("pg_temp")?.get(name.name)
      if (own !== undefined) this.write(own, operation, assigned, path)
    } else if (relations.length === 0) {
      this.isDoubtful = true
      this.opaque ??= `the unknown relation ${shown(name)}`
    }
  }

  private write(relation: Relation, operation: Walk.Operation, assigned: Columns, path: Path): void {
    this.reach(relation)
    const columns = operation === "update" && assigned !== undefined ? [...assigned].sort().join() : "*"
    if (!this.once("write", relation.oid, operation, columns)) return
    const stamps = writeStamps(this.catalog, relation, operation)
    this.written.set(relation, [...this.written.get(relation) ?? [], ...stamps])
    for (const stamp of stamps) this.writes.add(stamp)
    for (const rule of relation.rules) {
      if (rule.event === operation || rule.event === "other") {
        this.body(this.schema.bodies.text(rule.definition), rule.name, printed, false)
      }
    }
    if (relation.kind === "view") {
      const isInstead = this.fire(relation.triggers, operation, path, (trigger) => trigger.timing === "instead")
      this.fire(relation.triggers, operation, path, () => true)
      const base = isInstead ? undefined : this.schema.bodies.base(relation)
      if (base !== undefined) this.indirect(relation.name, () => this.writeName(base, operation, undefined, printed))
      return
    }
    if (relation.kind === "materialized") {
      return this.body(this.schema.bodies.view(relation), relation.name, printed, false)
    }
    for (const expression of relation.rowSecurity?.expressions ?? []) this.expression(expression, relation.name, false)
    for (const ancestor of withAncestors(this.catalog, relation)) {
      if (ancestor !== relation) this.fire(ancestor.triggers, operation, path, (trigger) => trigger.level === "row")
    }
    for (const one of withDescendants(this.catalog, relation)) {
      this.fire(one.triggers, operation, path, () => true)
      if (operation !== "truncate" && operation !== "truncate cascade") {
        for (const oid of one.called) this.routineOf(oid, path, false)
      }
      for (const key of one.referencedBy) {
        const effect = effectOn(key, operation)
        const child = effect === undefined ? undefined : this.catalog.relations.get(key.from)
        if (child === undefined || operation === "update" && !mayAssign(one, assigned, key.references)) continue
        this.indirect(one.name, () => this.write(child, effect!, new Set(key.columns), path))
      }
    }
    if (operation === "update" && relation.kind === "partitioned") {
      // A row whose partition changes is deleted from one and inserted into another.
      this.write(relation, "delete", undefined, path)
      this.write(relation, "insert", undefined, path)
    }
  }

  /** Runs the triggers of an operation and tells whether there was one. */
  private fire(
    triggers: ReadonlyArray<Trigger>,
    operation: Walk.Operation,
    path: Path,
    which: (trigger: Trigger) => boolean
  ): boolean {
    let fired = false
    for (const trigger of triggers) {
      const on = operation === "truncate cascade" ? "truncate" : operation
      if (on === "refresh" || !trigger.operations.includes(on) || !which(trigger)) continue
      fired = true
      this.routineOf(trigger.function, path, false)
    }
    return fired
  }

  private once(...key: ReadonlyArray<string | number | boolean>): boolean {
    const text = key.join()
    if (this.done.has(text)) return false
    this.done.add(text)
    return true
  }
}

/** What the server prints names everything outside `pg_catalog` with its schema. */
const printed: Path = { schemas: [], isCertain: true, isSecured: false }

const anyChange: ReadonlyArray<Walk.Operation> = ["insert", "update", "delete"]

const effectOn = (key: Relation["referencedBy"][number], operation: Walk.Operation): Walk.Operation | undefined => {
  switch (operation) {
    case "truncate cascade":
      return operation
    case "delete":
      return key.onDelete === "cascade" ? "delete" : changes.has(key.onDelete) ? "update" : undefined
    case "update":
      return key.onUpdate === "cascade" || changes.has(key.onUpdate) ? "update" : undefined
    default:
      return undefined
  }
}

/** Whether an update that assigns some columns may change others of a row, too. */
const mayAssign = (relation: Relation, assigned: Columns, columns: ReadonlyArray<string>): boolean =>
  assigned === undefined ||
  relation.triggers.some(({ operations, timing }) => timing === "before" && operations.includes("update")) ||
  columns.some((name) => assigned.has(name) || relation.column.get(name)?.generated !== undefined)

const changes: ReadonlySet<string> = new Set(["set-null", "set-default"])

/** Extensions whose functions in C neither write nor read tables. */
const harmless: ReadonlySet<string> = new Set(
  ("btree_gin btree_gist citext cube dict_int dict_xsyn earthdistance fuzzystrmatch hstore intarray isn ltree pg_trgm " +
    "pgcrypto seg unaccent uuid-ossp vector").split(" ")
)

const shown = ({ name, schema }: Walk.Name): string => schema === undefined ? name : `${schema}.${name}`
