// Writes over a world: every statement that changes rows, on tables and through views, with the rows it gives back.
import { type Reach, reachOf } from "./conditions.ts"
import { Queries, used } from "./queries.ts"
import type { Random } from "./random.ts"
import { type ColumnType, identifier, quote, types } from "./values.ts"
import type { Column, Relation, World } from "./world.ts"

export interface Write {
  readonly sql: string
  readonly parameters: ReadonlyArray<unknown>
}

export class Writes extends Queries {
  private readonly world: World

  constructor(random: Random, world: World) {
    super(random, world)
    this.world = world
  }

  write(): Write {
    this.parameters = []
    this.bound = true
    const { random, world } = this
    const sql = random.weighted<() => string>([
      [5, () => this.insert()],
      [7, () => this.update()],
      [4, () => this.delete()],
      [2, () => this.merge()],
      [2, () => this.modifyingCte()],
      [1, () => this.insertSelect()],
      [0.3, () => `TRUNCATE ${this.target().ref}${random.chance(0.5) ? " CASCADE" : ""}`],
      [0.5, () => `SELECT ${random.pick(world.writers)}`],
      [0.3, () => `DO $$ BEGIN PERFORM ${random.pick(world.writers)}; END $$`],
      [world.materialized.length > 0 ? 0.5 : 0, () => `REFRESH MATERIALIZED VIEW ${random.pick(world.materialized)}`]
    ])()
    return used(sql, this.parameters)
  }

  private target(): Relation {
    const { random, world } = this
    return world.writable.length > 0 && random.chance(0.15) ? random.pick(world.writable) : random.pick(world.tables)
  }

  private insert(target = this.target()): string {
    const { random } = this
    const columns = random.chance(0.7) ? assignable(target) : random.some(assignable(target))
    if (random.chance(0.03)) return `INSERT INTO ${target.ref} DEFAULT VALUES${this.returning(target, "new")}`
    const row = (): string => `(${columns.map((column) => this.assigned(column)).join(", ")})`
    const rows = random.times(1, random.chance(0.7) ? 1 : 3, row)
    return `INSERT INTO ${target.ref} (${names(columns)}) VALUES ${rows.join(", ")}${this.conflict(target)}${
      this.returning(target, "new")
    }`
  }

  private insertSelect(): string {
    const target = this.target()
    const from = this.random.pick(this.world.relations)
    const alias = this.alias()
    const columns = assignable(target).filter(({ type }) => from.columns.some((column) => column.type === type))
    if (columns.length === 0) return this.insert(target)
    const list = columns.map(({ type }) =>
      `${alias}.${identifier(this.random.pick(from.columns.filter((column) => column.type === type)).name)}`
    )
    return `INSERT INTO ${target.ref} (${names(columns)}) SELECT ${list.join(", ")} FROM ${from.ref} ${alias} WHERE ${
      this.condition(reachOf(alias, from.columns), 0)
    }${this.conflict(target)}${this.returning(target, "new")}`
  }

  private conflict(target: Relation): string {
    const { random } = this
    const unique = this.world.tables.find(({ ref }) => ref === target.ref)?.unique ?? []
    if (unique.length === 0) return ""
    const where = random.chance(0.3) ? ` WHERE ${unqualifiedTable(target)}.id <> 2` : ""
    return random.weighted([
      [3, ""],
      [2, " ON CONFLICT DO NOTHING"],
      [3, ` ON CONFLICT (${random.pick(unique)}) DO UPDATE SET ${this.assignments(target, "excluded")}${where}`]
    ])
  }

  private update(target = this.target()): string {
    const { random } = this
    const alias = this.alias()
    const reach = reachOf(alias, target.columns)
    const other = this.alias()
    const joined = random.chance(0.15) ? random.pick(this.world.relations) : undefined
    const all = joined === undefined ? reach : [...reach, ...reachOf(other, joined.columns)]
    const only = random.chance(0.05) && !this.world.writable.includes(target) ? "ONLY " : ""
    return `UPDATE ${only}${target.ref} ${alias} SET ${this.assignments(target, alias)}` +
      (joined === undefined ? "" : ` FROM ${joined.ref} ${other}`) +
      (random.chance(0.95) ? ` WHERE ${this.narrowed(reach, all)}` : "") +
      this.returning(target, alias)
  }

  private delete(target = this.target()): string {
    const { random } = this
    const alias = this.alias()
    const reach = reachOf(alias, target.columns)
    const other = this.alias()
    const joined = random.chance(0.15) ? random.pick(this.world.relations) : undefined
    const all = joined === undefined ? reach : [...reach, ...reachOf(other, joined.columns)]
    return `DELETE FROM ${target.ref} ${alias}${joined === undefined ? "" : ` USING ${joined.ref} ${other}`}` +
      (random.chance(0.95) ? ` WHERE ${this.narrowed(reach, all)}` : "") +
      this.returning(target, alias)
  }

  /** Mostly a row by its key, as programs write. */
  private narrowed(reach: ReadonlyArray<Reach>, all: ReadonlyArray<Reach>): string {
    const { random } = this
    const id = reach.find(({ name }) => name === "id")
    if (id === undefined || random.chance(0.4)) return this.condition(all, 1)
    const byKey = `${id.sql} ${
      random.pick([
        `= ${this.value(types.key)}`,
        `= ${this.value(types.key)}`,
        `IN (${this.value(types.key)}, ${this.value(types.key)})`
      ])
    }`
    return random.chance(0.3) ? `${byKey} AND ${this.condition(all, 0)}` : byKey
  }

  private merge(): string {
    const { random, world } = this
    const target = random.pick(world.tables)
    const alias = this.alias()
    const source = this.alias()
    const columns = assignable(target)
    const on = random.chance(0.7)
      ? `${alias}.id = ${source}.id`
      : `${alias}.id = ${source}.id AND ${this.condition(reachOf(alias, target.columns), 0)}`
    const using = random.chance(0.6)
      ? `(VALUES (${this.value(types.key)}::int)) ${source}(id)`
      : `${random.pick(world.tables).ref} ${source}`
    const arms = random.some([
      `WHEN MATCHED THEN ${
        random.chance(0.6) ? `UPDATE SET ${this.assignments(target, alias)}` : random.pick(["DELETE", "DO NOTHING"])
      }`,
      `WHEN NOT MATCHED THEN INSERT (${names(columns)}) VALUES (${
        columns.map((column) => column.name === "id" ? `${source}.id` : this.assigned(column)).join(", ")
      })`,
      `WHEN NOT MATCHED BY SOURCE ${random.chance(0.5) ? `AND ${alias}.id = ${this.value(types.key)} ` : ""}THEN ${
        random.chance(0.5) ? "DELETE" : `UPDATE SET ${this.assignments(target, alias)}`
      }`
    ])
    return `MERGE INTO ${target.ref} ${alias} USING ${using} ON ${on} ${arms.join(" ")}${this.returning(target, alias)}`
  }

  private modifyingCte(): string {
    const { random, world } = this
    const table = random.pick(world.tables)
    const inner = random.pick([
      () => this.update(table),
      () => this.delete(table),
      () => this.insert(table)
    ])().replace(/ RETURNING .*$/, "")
    // The same name as a table's: a target is always the table.
    const name = random.pick(["d", "d", "orders"])
    const outer = random.pick([
      () => `SELECT count(*) FROM ${name}`,
      () => this.delete(),
      () => this.update(),
      () => `INSERT INTO "Audit Log" (n) SELECT id FROM ${name} WHERE id < 3`
    ])()
    return `WITH ${name} AS (${inner} RETURNING id) ${outer}`
  }

  private assignments(target: Relation, alias: string): string {
    const { random } = this
    const columns = random.some(assignable(target)).slice(0, random.pick([1, 1, 2, 3]))
    if (columns.length > 1 && random.chance(0.15)) {
      return `(${names(columns)}) = ROW(${columns.map(({ type }) => this.stored(type)).join(", ")})`
    }
    return columns.map((column) => {
      const name = identifier(column.name)
      const isNumber = column.type.sql === "int" || column.type === types.bigint
      return `${name} = ${
        random.weighted<() => string>([
          [10, () => this.assigned(column)],
          [1, () => alias === "excluded" ? `excluded.${name}` : `${alias}.${name}`],
          [isNumber ? 2 : 0, () => `${alias}.${name} + 1`],
          [column.type.sql === "text" ? 1 : 0, () => `lower(${alias}.${name})`],
          [isNumber ? 1 : 0, () => `(SELECT max(m.id) FROM users m)`]
        ])()
      }`
    }).join(", ")
  }

  /** What a column is given. */
  private assigned({ name, type }: Column): string {
    const { random } = this
    if (name !== "id" && random.chance(0.06)) return random.pick(["DEFAULT", "NULL"])
    if (name === "id") return this.stored(type)
    return random.chance(0.85) ? this.stored(type) : this.value(type)
  }

  private stored(type: ColumnType): string {
    const { random } = this
    if (random.chance(0.3)) return `${quote(random.pick(type.stored))}::${type.sql.replace(/ COLLATE \w+/, "")}`
    const parameter = `$${this.parameters.push(random.pick(type.parameters))}`
    return type.sql === "int" && random.chance(0.1) ? `${parameter}::numeric` : parameter
  }

  private returning(target: Relation, alias: string): string {
    const { random } = this
    const some = random.some(target.columns).map(({ name }) => name)
    const qualifier = alias === "new" ? "" : `${alias}.`
    return random.weighted([
      [5, ""],
      [3, " RETURNING *"],
      [1, ` RETURNING ${some.map((name) => `${qualifier}${identifier(name)}`).join(", ")}`],
      [
        1,
        ` RETURNING ${
          some.map((name) => `${qualifier}${identifier(name)} AS c_${name.replaceAll(" ", "_").toLowerCase()}`).join(
            ", "
          )
        }`
      ],
      [
        1,
        ` RETURNING ${
          some.map((name) => `old.${identifier(name)} AS ${identifier(`old_${name}`)}, new.${identifier(name)}`).join(
            ", "
          )
        }`
      ],
      [0.5, " RETURNING old.*, new.*"],
      [0.5, ` RETURNING ${qualifier}id AS user_id, 1 AS id`]
    ])
  }
}

const assignable = ({ columns }: Relation): ReadonlyArray<Column> => columns.filter(({ generated }) => !generated)

const names = (columns: ReadonlyArray<Column>): string => columns.map(({ name }) => identifier(name)).join(", ")

const unqualifiedTable = ({ ref }: Relation): string => ref.slice(ref.indexOf(".") + 1)
