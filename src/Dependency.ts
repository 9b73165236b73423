/**
 * What an answer depends on: tables, rows of a table, tags, keys.
 *
 * A dependency is written to the stores as one or more *stamps*, short strings
 * that an invalidation marks with the store's clock:
 *
 * | dependency | its stamps |
 * | --- | --- |
 * | `table("orders")` | `orders`, `orders(*)` |
 * | `row("orders", { id: 7 })` | `orders(id="7")`, `orders(id)`, `orders(*)` |
 * | `tag("premium")` | `#premium` |
 * | `key("user", 42)` | `@user:42` |
 *
 * All stamps of a dependency count. A write whose rows are known marks `orders`
 * (every answer that reads the whole table), and of the row stamps those that
 * its rows match; a write whose rows are not known marks `orders` and
 * `orders(*)`, which is everything.
 *
 * @since 0.1.0
 */
import * as Predicate from "effect/Predicate"
import { InvalidOptionError } from "./CacheError.ts"

/**
 * Anything an answer can depend on.
 *
 * @category models
 * @since 0.1.0
 */
export type Dependency = Table | Row | Tag | Key

/**
 * A whole table.
 *
 * @category models
 * @since 0.1.0
 */
export interface Table {
  readonly _tag: "Table"
  readonly table: string
  /** Where it was named with one. */
  readonly schema?: string | undefined
}

/**
 * The rows of a table in which every named column has the given value.
 *
 * @category models
 * @since 0.1.0
 */
export interface Row {
  readonly _tag: "Row"
  readonly table: string
  /** Where it was named with one. */
  readonly schema?: string | undefined
  /** Column names in order, each with its value as text, or `null`. */
  readonly columns: ReadonlyArray<readonly [name: string, value: string | null]>
}

/**
 * A label of the program's own.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tag {
  readonly _tag: "Tag"
  readonly tag: string
}

/**
 * One entity of the program's own, such as user 42.
 *
 * @category models
 * @since 0.1.0
 */
export interface Key {
  readonly _tag: "Key"
  readonly name: string
  readonly key: string
}

/**
 * The values that can name a row: those whose text is the same in a parameter
 * and in a decoded row. Numbers must be safe integers.
 *
 * @category models
 * @since 0.1.0
 */
export type RowValue = string | number | bigint | boolean | null

const owner = "Dependency"

/**
 * A whole table.
 *
 * **Details**
 *
 * The name is taken as PostgreSQL stores it: `"Orders"` is not `orders`. Without
 * a schema it means what the search_path makes of it. The name of a view stands
 * for the tables that it reads. A name that itself contains a dot is written in
 * double quotes. Where no catalog is read (`QueryAnalyzer.layerDeclared`)
 * schemas are left out: `public.orders` and `archive.orders` are one dependency.
 *
 * @category constructors
 * @since 0.1.0
 */
export const table = (name: string): Table => ({ _tag: "Table", ...tableName(name) })

/**
 * A whole table, by its bare name exactly as PostgreSQL stores it: dots and
 * quotes in it are part of the name.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromRelation = (relation: string): Table => ({ _tag: "Table", table: name(relation) })

/**
 * The rows of a table in which every named column has the given value.
 *
 * **Example** (A query that reads the orders of one customer)
 *
 * ```ts
 * import { Dependency } from "effect-query-cache"
 *
 * export const ofCustomer = Dependency.row("orders", { customer_id: 42 })
 * ```
 *
 * **Gotchas**
 *
 * Under `QueryCache.cached` it is added to what the statement itself depends on,
 * rows or whole tables, and takes nothing away: it does not narrow a statement that
 * reads a whole table (`QueryCache.explain` says why it does). It narrows where the
 * program alone says what a value derives from: in `dependencies` of a
 * `CachedQuery` or `CachedResolver`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const row = (table: string, columns: { readonly [column: string]: RowValue }): Row => {
  const names = Object.keys(columns)
  if (names.length === 0) throw new InvalidOptionError(owner, "columns", columns, "an object with at least one column")
  return {
    _tag: "Row",
    ...tableName(table),
    columns: names.sort(byCodeUnit).map((name) => [columnName(name), rowValue(name, columns[name])] as const)
  }
}

/**
 * The rows of a table, named as it stands in stamps, that have these values in
 * their columns.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromValues = (table: string, values: ReadonlyMap<string, string | null>): Row => ({
  _tag: "Row",
  table,
  columns: [...values].sort(([a], [b]) => byCodeUnit(a, b)).map(([column, value]) => [name(column), value] as const)
})

/**
 * A label of the program's own, such as `premium` or `dashboard`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const tag = (name: string): Tag => {
  if (typeof name !== "string" || name.length === 0) {
    throw new InvalidOptionError(owner, "tag", name, "a string that is not empty")
  }
  return { _tag: "Tag", tag: name }
}

/**
 * One entity of the program's own: `key("user", 42)`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const key = (name: string, key: string | number | bigint): Key => {
  if (typeof name !== "string" || name.length === 0) {
    throw new InvalidOptionError(owner, "key", name, "a name that is not empty")
  }
  if (typeof key === "number" && !Number.isSafeInteger(key)) {
    throw new InvalidOptionError(owner, name, key, "a string, a bigint or a safe integer")
  }
  return { _tag: "Key", name, key: String(key) }
}

/**
 * Whether a value was made by one of the constructors.
 *
 * @category guards
 * @since 0.1.0
 */
export const isDependency = (u: unknown): u is Dependency =>
  Predicate.hasProperty(u, "_tag") &&
  (u._tag === "Table" || u._tag === "Row" || u._tag === "Tag" || u._tag === "Key")

/**
 * Whether a dependency is a table, in whole or in part.
 *
 * @category guards
 * @since 0.1.0
 */
export const isTableOrRow = (dependency: Dependency): dependency is Table | Row =>
  dependency._tag === "Table" || dependency._tag === "Row"

/**
 * The dependencies of one answer, as a store needs them. Made once per policy
 * and form and compared by `id`.
 *
 * @category sets
 * @since 0.1.0
 */
export interface DependencySet {
  /** Equal for sets with the same stamps. */
  readonly id: string
  /**
   * Equal for sets that follow from their key in the same way, so that whoever has the key need not make the set to
   * compare it. The `id` unless given.
   */
  readonly basis: string
  /** Every stamp, sorted, each once. */
  readonly stamps: ReadonlyArray<string>
  /** The shapes among the stamps, with the table each belongs to. */
  readonly shapes: ReadonlyArray<Shape>
  /** The tables among the dependencies, whole or in part, as they stand in the stamps. */
  readonly tables: ReadonlyArray<string>
}

/**
 * The column combination of a row dependency.
 *
 * @category sets
 * @since 0.1.0
 */
export interface Shape {
  readonly table: string
  readonly columns: ReadonlyArray<string>
}

/**
 * What is known of one row that a write touched.
 *
 * @category sets
 * @since 0.1.0
 */
export interface Image {
  readonly table: string
  readonly columns: ReadonlyMap<string, string | null>
}

/**
 * Collects dependencies into a set.
 *
 * **Details**
 *
 * With `autoInvalidate: false` tables and rows are registered under names that
 * only explicit invalidations mark, never the program's own writes.
 *
 * @category sets
 * @since 0.1.0
 */
export const makeSet = (
  dependencies: Iterable<Dependency>,
  options?: { readonly autoInvalidate?: boolean | undefined; readonly basis?: string | undefined }
): DependencySet => {
  const prefix = options?.autoInvalidate === false ? explicitPrefix : ""
  const stamps = new Set<string>()
  const tables = new Set<string>()
  const shapes = new Map<string, Shape>()
  for (const dependency of dependencies) {
    switch (dependency._tag) {
      case "Table": {
        const table = prefix + dependency.table
        tables.add(table)
        stamps.add(table).add(wildcard(table))
        break
      }
      case "Row": {
        const table = prefix + dependency.table
        const shape: Shape = { table, columns: dependency.columns.map(([name]) => name) }
        tables.add(table)
        shapes.set(shapeStamp(shape), shape)
        stamps.add(rowStamp(table, dependency.columns)).add(shapeStamp(shape)).add(wildcard(table))
        break
      }
      default:
        stamps.add(stamp(dependency))
    }
  }
  const sorted = [...stamps].sort(byCodeUnit)
  const id = sorted.map((stamp) => `${stamp.length}:${stamp}`).join("")
  return {
    id,
    basis: options?.basis ?? id,
    stamps: sorted,
    shapes: [...shapes.values()],
    tables: [...tables]
  }
}

/**
 * What an invalidation marks.
 *
 * **Details**
 *
 * `stamps` are marked as they are. Each image stands for one row: it marks the
 * table itself and, for every shape a store knows of that table, the
 * conjunction the row matches where all columns of the shape are known, and the
 * shape as a whole where they are not.
 *
 * @category sets
 * @since 0.1.0
 */
export interface Targets {
  readonly stamps: ReadonlyArray<string>
  readonly images: ReadonlyArray<Image>
  readonly all: boolean
  /** The schema may have changed too. Implies `all`. */
  readonly schema?: true | undefined
}

/**
 * The targets of a write by the program itself: entries with
 * `autoInvalidate: false` keep.
 *
 * @category sets
 * @since 0.1.0
 */
export const writeTargets = (dependencies: Iterable<Dependency>): Targets => makeTargets(dependencies, [""])

/**
 * The targets of an explicit call, which reaches entries with
 * `autoInvalidate: false` too.
 *
 * @category sets
 * @since 0.1.0
 */
export const explicitTargets = (dependencies: Iterable<Dependency>): Targets =>
  makeTargets(dependencies, ["", explicitPrefix])

/**
 * Everything in the namespace.
 *
 * @category sets
 * @since 0.1.0
 */
export const allTargets: Targets = { stamps: [], images: [], all: true }

/**
 * Everything in the namespace, and what is known of the schema.
 *
 * @category sets
 * @since 0.1.0
 */
export const schemaTargets: Targets = { ...allTargets, schema: true }

/**
 * The same without what is known of rows: the tables of the images as wholes.
 *
 * @category sets
 * @since 0.1.0
 */
export const asWholes = (targets: Targets): Targets => {
  if (targets.images.length === 0) return targets
  const stamps = new Set(targets.stamps)
  for (const { table } of targets.images) stamps.add(table).add(wildcard(table))
  return { ...targets, stamps: [...stamps], images: [] }
}

/**
 * The stamp that stands for every known row of a table.
 *
 * @category stamps
 * @since 0.1.0
 */
export const wildcard = (table: string): string => `${table}(*)`

/**
 * The stamp of a shape: all rows that were registered by these columns.
 *
 * @category stamps
 * @since 0.1.0
 */
export const shapeStamp = (shape: Shape): string => `${shape.table}(${shape.columns.join(",")})`

/**
 * The stamp of a conjunction: `orders(id="7")`.
 *
 * @category stamps
 * @since 0.1.0
 */
export const rowStamp = (
  table: string,
  columns: ReadonlyArray<readonly [name: string, value: string | null]>
): string => `${table}(${columns.map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(",")})`

/**
 * What one image marks among the shapes of its table.
 *
 * @category stamps
 * @since 0.1.0
 */
export const imageStamp = (image: Image, shape: Shape): string => {
  const columns: Array<readonly [string, string | null]> = []
  for (const name of shape.columns) {
    const value = image.columns.get(name)
    if (value === undefined) return shapeStamp(shape)
    columns.push([name, value])
  }
  return rowStamp(image.table, columns)
}

// `!` never begins the name of a table: such a name is quoted.
const explicitPrefix = "!"

const makeTargets = (dependencies: Iterable<Dependency>, prefixes: ReadonlyArray<string>): Targets => {
  const stamps = new Set<string>()
  const images = new Map<string, Image>()
  for (const dependency of dependencies) {
    switch (dependency._tag) {
      case "Table":
        for (const prefix of prefixes) stamps.add(prefix + dependency.table).add(wildcard(prefix + dependency.table))
        break
      case "Row":
        for (const prefix of prefixes) {
          const table = prefix + dependency.table
          stamps.add(table)
          images.set(rowStamp(table, dependency.columns), { table, columns: new Map(dependency.columns) })
        }
        break
      default:
        stamps.add(stamp(dependency))
    }
  }
  return { stamps: [...stamps], images: [...images.values()], all: false }
}

const stamp = (dependency: Tag | Key): string =>
  dependency._tag === "Tag" ? `#${dependency.tag}` : `@${name(dependency.name)}:${dependency.key}`

const byCodeUnit = (a: string, b: string): number => a < b ? -1 : a > b ? 1 : 0

const plain = /^[A-Za-z_][\w$]*$/

// Whatever could be read as part of a stamp's own punctuation is quoted.
const name = (text: string): string => plain.test(text) ? text : JSON.stringify(text)

const tableName = (text: string): { readonly table: string; readonly schema?: string } => {
  if (typeof text !== "string" || text.length === 0) {
    throw new InvalidOptionError(owner, "table", text, "a string that is not empty")
  }
  // The last parts of a dotted name, in which a part may stand in double quotes.
  const match = /(?:(?:^|\.)(?:"((?:[^"]|"")+)"|([^".]+))\.|^)(?:"((?:[^"]|"")+)"|([^".]+))$/.exec(text)
  if (match === null) {
    throw new InvalidOptionError(owner, "table", text, "a table name, with or without its schema")
  }
  const schema = match[1]?.replaceAll("\"\"", "\"") ?? match[2]
  const table = name(match[3]?.replaceAll("\"\"", "\"") ?? match[4]!)
  return schema === undefined ? { table } : { table, schema }
}

/**
 * The name of a relation as PostgreSQL stores it, from the way it is written in
 * stamps.
 *
 * @category stamps
 * @since 0.1.0
 */
export const relationOf = (table: string): string => table.startsWith("\"") ? JSON.parse(table) : table

const columnName = (text: string): string => {
  if (text.length === 0) throw new InvalidOptionError(owner, "columns", text, "named")
  return name(text)
}

const rowValue = (column: string, value: RowValue | undefined): string | null => {
  switch (typeof value) {
    case "string":
      return value
    case "bigint":
    case "boolean":
      return String(value)
    case "number":
      if (Number.isSafeInteger(value)) return String(value + 0)
      break
    case "object":
      if (value === null) return null
  }
  throw new InvalidOptionError(owner, column, value, "a string, a bigint, a safe integer, a boolean or null")
}
