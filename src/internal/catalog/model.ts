/**
 * What is known of a database's schema, as plain data.
 *
 * A catalog is a snapshot: it never changes, and another version of it is
 * another object. Objects name each other by `oid`, so that a snapshot can be
 * made in one pass, and cycles (tables that refer to each other, functions that
 * call each other) are no matter.
 */
import { fromRelation } from "../../Dependency.ts"

export interface Catalog {
  /** Equal for equal schemas, whichever process read them. */
  readonly version: string
  /** The same, but for temporary tables. */
  readonly lasting: string
  /** Who the pool's connections are, and what their search_path resolves to: existing schemas in order. */
  readonly user: string
  readonly searchPath: ReadonlyArray<string>
  /** The `search_path` itself, in which `"$user"` stands for the role. */
  readonly searchPathSetting: string
  readonly relations: ReadonlyMap<number, Relation>
  /** Relations by schema and name. Temporary ones of any session have the schema `pg_temp`. */
  readonly byName: ReadonlyMap<string, ReadonlyMap<string, Relation>>
  readonly functions: ReadonlyMap<number, Routine>
  /** Functions outside `pg_catalog` by name, of all schemas. */
  readonly functionsByName: ReadonlyMap<string, ReadonlyArray<Routine>>
  /** Functions behind operators outside `pg_catalog`, by the operator's name, of all schemas. */
  readonly operators: ReadonlyMap<string, ReadonlyArray<Operator>>
  /** Functions behind casts and domains that the program has defined: any expression may call one. */
  readonly ambient: ReadonlyArray<number>
}

export type RelationKind =
  | "table"
  | "partitioned"
  | "view"
  | "materialized"
  | "foreign"
  | "sequence"

export interface Relation {
  readonly oid: number
  readonly schema: string
  readonly name: string
  readonly kind: RelationKind
  /** As dependencies name it: bare in the schema `public`, else with its schema. */
  readonly stamp: string
  /** Equal as long as nothing about it changes, in every process. */
  readonly signature: string
  /** In the order of the table; dropped ones are left out. */
  readonly columns: ReadonlyArray<Column>
  readonly column: ReadonlyMap<string, Column>
  /** Primary and unique keys whose every row takes part: no expressions, no WHERE, not deferrable. */
  readonly keys: ReadonlyArray<Key>
  /** Partitioned tables it is a partition of and tables it inherits from: the nearest ones. */
  readonly parents: ReadonlyArray<number>
  readonly children: ReadonlyArray<number>
  /** Foreign keys of other tables (or itself) that refer to it. */
  readonly referencedBy: ReadonlyArray<ForeignKey>
  readonly triggers: ReadonlyArray<Trigger>
  /** Rules other than the one that makes a view a view. */
  readonly rules: ReadonlyArray<Rule>
  /** The query of a view or materialized view, every name in it with its schema. */
  readonly definition: string | undefined
  readonly rowSecurity: RowSecurity | undefined
  /** Functions called by defaults, constraints, indexes, generated columns, conditions of triggers: any write may. */
  readonly called: ReadonlyArray<number>
}

export interface Column {
  readonly name: string
  /** `attnum`. */
  readonly position: number
  /** The type's name in `pg_catalog` (`int4`, `text`, `bpchar`), or `schema.name`; a domain's is that of its base. */
  readonly type: string
  readonly typeKind: "base" | "enum" | "composite" | "range" | "other"
  readonly isDomain: boolean
  /** The length or precision as PostgreSQL stores it, -1 for none. */
  readonly modifier: number
  /** Whether equality is equality of the text: no collation at all, or a deterministic one. */
  readonly deterministic: boolean
  readonly notNull: boolean
  readonly generated: "stored" | "virtual" | undefined
  readonly identity: "always" | "default" | undefined
  /** The default's expression, of a generated column the generating one. */
  readonly default: string | undefined
}

export interface Key {
  readonly columns: ReadonlyArray<string>
  readonly primary: boolean
}

export type ForeignKeyAction = "none" | "restrict" | "cascade" | "set-null" | "set-default"

export interface ForeignKey {
  /** The table that refers. */
  readonly from: number
  readonly columns: ReadonlyArray<string>
  /** The table referred to. */
  readonly to: number
  readonly references: ReadonlyArray<string>
  readonly onUpdate: ForeignKeyAction
  readonly onDelete: ForeignKeyAction
  /** Which of `columns` SET NULL and SET DEFAULT set on deletion; all where it names none. */
  readonly onDeleteColumns: ReadonlyArray<string>
}

export type Operation = "insert" | "update" | "delete" | "truncate"

export interface Trigger {
  readonly name: string
  readonly function: number
  readonly timing: "before" | "after" | "instead"
  readonly level: "row" | "statement"
  readonly operations: ReadonlyArray<Operation>
  readonly deferrable: boolean
}

export interface Rule {
  readonly name: string
  readonly event: "insert" | "update" | "delete" | "other"
  readonly instead: boolean
  /** `CREATE RULE ...`, every name in it with its schema. */
  readonly definition: string
}

export interface RowSecurity {
  /** Whether it applies to the pool's own user. A role that is set later is another matter. */
  readonly active: boolean
  /** The expressions of all policies, every name in them with its schema. */
  readonly expressions: ReadonlyArray<string>
}

export interface Routine {
  readonly oid: number
  readonly schema: string
  readonly name: string
  readonly kind: "function" | "procedure" | "aggregate" | "window"
  /** `sql`, `plpgsql`, `c`, `internal` or another. */
  readonly language: string
  readonly volatility: "immutable" | "stable" | "volatile"
  /** The extension it came with. */
  readonly extension: string | undefined
  /** For `sql` the body; for `plpgsql` its `CREATE FUNCTION`; of the others nothing. */
  readonly source: string | undefined
  /** Whether it runs with its owner's rights. */
  readonly isDefiner: boolean
  /** The `search_path` it sets for itself. */
  readonly searchPath: ReadonlyArray<string> | undefined
  /** Of an aggregate its support functions. */
  readonly calls: ReadonlyArray<number>
  /** Whether it can be called as `row.name`: its one argument is a row. */
  readonly takesRow: boolean
  readonly signature: string
}

export interface Operator {
  readonly schema: string
  readonly name: string
  readonly function: number
  /** The types it takes, named as those of columns. Base types outside `pg_catalog` are left out. */
  readonly left: string | undefined
  readonly right: string | undefined
}

/** How dependencies name a relation. */
export const stampOf = (schema: string, name: string): string =>
  schema === "public" ? fromRelation(name).table : `${fromRelation(schema).table}.${fromRelation(name).table}`

/** The relation of this name in this schema. */
const relationIn = (catalog: Catalog, schema: string, name: string): Relation | undefined =>
  catalog.byName.get(schema)?.get(name)

/** The relation that a name means under a search_path. Temporary ones, which come before all others, are left out. */
export const resolve = (
  catalog: Catalog,
  searchPath: ReadonlyArray<string>,
  name: string,
  schema?: string | undefined
): Relation | undefined => {
  if (schema !== undefined) return relationIn(catalog, schema, name)
  for (const at of searchPath) {
    const relation = relationIn(catalog, at, name)
    if (relation !== undefined) return relation
  }
  return undefined
}

/** A relation and everything reached from it by `next`, each once. */
const closure = (
  catalog: Catalog,
  relation: Relation,
  next: (relation: Relation) => ReadonlyArray<number>
): ReadonlyArray<Relation> => {
  const found = new Set([relation])
  for (const one of found) {
    for (const oid of next(one)) {
      const other = catalog.relations.get(oid)
      if (other !== undefined) found.add(other)
    }
  }
  return [...found]
}

/** A relation with its partitions or inheriting tables, at any depth. */
export const withDescendants = (catalog: Catalog, relation: Relation): ReadonlyArray<Relation> =>
  closure(catalog, relation, (one) => one.children)

/** A relation with the tables whose rows its rows are too. */
export const withAncestors = (catalog: Catalog, relation: Relation): ReadonlyArray<Relation> =>
  closure(catalog, relation, (one) => one.parents)
