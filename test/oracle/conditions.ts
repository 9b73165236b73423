// Conditions over columns in reach: those that a row dependency may follow from, and those that look like them.
import type { Random } from "./random.ts"
import type { ColumnType } from "./values.ts"
import { identifier, types } from "./values.ts"
import type { Column, Relation } from "./world.ts"

export interface Source {
  readonly relations: ReadonlyArray<Relation>
  /** Calls of functions that read and give one value. */
  readonly readers: ReadonlyArray<string>
}

/** A column in reach: how it is written where it is used. */
export interface Reach {
  readonly sql: string
  readonly name: string
  readonly type: ColumnType
}

/** What stands after FROM, and what it puts in reach. */
export interface From {
  readonly sql: string
  readonly reach: ReadonlyArray<Reach>
}

export abstract class Conditions {
  protected readonly random: Random
  protected readonly source: Source
  protected parameters: Array<unknown> = []
  protected bound = false
  private names = 0
  /** Columns of the queries around this one. */
  private outer: ReadonlyArray<Reach> = []

  constructor(random: Random, source: Source) {
    this.random = random
    this.source = source
  }

  protected abstract from(depth: number): From

  protected condition(reach: ReadonlyArray<Reach>, depth: number): string {
    const { random } = this
    const first = this.atom(reach, depth)
    return random.weighted<() => string>([
      [5, () => first],
      [4, () => `${first} AND ${this.atom(reach, depth)}`],
      [2, () => `(${first} OR ${this.atom(reach, 0)})`],
      [1, () => `(${first} OR ${this.atom(reach, 0)}) AND ${this.atom(reach, depth)}`],
      [1, () => `(${first} AND ${this.atom(reach, 0)} OR ${this.atom(reach, 0)})`],
      [1, () => `NOT (${first})`],
      [1, () => `(${first}) IS ${random.pick(["TRUE", "NOT TRUE", "NOT FALSE", "UNKNOWN"])}`]
    ])()
  }

  protected atom(reach: ReadonlyArray<Reach>, depth: number): string {
    const { random } = this
    const usable = reach.filter(({ type }) => type !== types.array)
    const column = this.outer.length > 0 && random.chance(0.2)
      ? random.pick(this.outer)
      : random.pick(usable.length > 0 && random.chance(0.9) ? usable : reach)
    const { sql, type } = column
    const value = (): string => this.value(type)
    return random.weighted<() => string>([
      [12, () => `${sql} = ${value()}`],
      [2, () => `${value()} = ${sql}`],
      [3, () => `${sql} IN (${random.times(1, 3, value).join(", ")})`],
      [type === types.array ? 0 : 2, () => `${sql} = ANY (${this.list(type)})`],
      [type === types.array ? 0 : 1, () => `${sql} ${random.pick(["= ALL", "<> ALL", "<> ANY"])} (${this.list(type)})`],
      [1, () => `${sql} NOT IN (${random.times(1, 2, value).join(", ")})`],
      [1, () => `${sql} ${random.pick(["<>", ">", "<=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"])} ${value()}`],
      [1, () => `${sql} IS ${random.pick(["NULL", "NOT NULL"])}`],
      [1, () => `coalesce(${sql}, ${value()}) = ${value()}`],
      [1, () => {
        const other = random.pick(reach)
        return `(${sql}, ${other.sql}) = (${value()}, ${this.value(other.type)})`
      }],
      [1, () => {
        const other = random.pick(reach)
        return `(${sql}, ${other.sql}) IN ((${value()}, ${this.value(other.type)}), (${value()}, ${
          this.value(other.type)
        }))`
      }],
      [2, () => {
        const same = [...reach, ...this.outer].filter((other) => other.type.family === type.family && other !== column)
        return same.length === 0 ? `${sql} IS NOT NULL` : `${sql} = ${random.pick(same).sql}`
      }],
      [1, () => type.family === "text" ? this.textual(column) : `(${sql})::text = ${this.textOf(type)}`],
      [1, () => `CASE WHEN ${sql} IS NULL THEN true ELSE ${sql} = ${value()} END`],
      [depth > 0 ? 5 : 0, () => this.subquery(column, reach, depth)]
    ])()
  }

  private textual({ sql, type }: Reach): string {
    return this.random.pick([
      `lower(${sql}) = ${this.textOf(type)}`,
      `${sql} = ${this.value(type)} COLLATE nocase`,
      `${sql} COLLATE nocase = ${this.value(type)}`,
      `${sql}::bpchar = ${this.textOf(type)}`,
      `${sql} || '' = ${this.textOf(type)}`
    ])
  }

  private subquery(column: Reach, reach: ReadonlyArray<Reach>, depth: number): string {
    const { random } = this
    return this.nested(reach, () => {
      const inner = this.from(depth - 1)
      const condition = this.condition(inner.reach, depth - 1)
      const same = inner.reach.filter(({ type }) => type.family === column.type.family)
      const matching = same.length > 0 ? random.pick(same) : undefined
      const picked = random.pick(inner.reach)
      return random.pick([
        () => `${random.pick(["", "NOT "])}EXISTS (SELECT 1 FROM ${inner.sql} WHERE ${condition})`,
        () =>
          matching === undefined
            ? `EXISTS (SELECT FROM ${inner.sql} WHERE ${condition})`
            : `EXISTS (SELECT 1 FROM ${inner.sql} WHERE ${matching.sql} = ${column.sql} AND ${condition})`,
        () =>
          matching === undefined
            ? `(SELECT count(*) FROM ${inner.sql} WHERE ${condition}) > 0`
            : `${column.sql} ${
              random.pick(["IN", "IN", "NOT IN", "= ANY", "<> ALL", "<> ANY"])
            } (SELECT ${matching.sql} FROM ${inner.sql} WHERE ${condition})`,
        () =>
          `(SELECT max(${picked.sql}::text COLLATE "C") FROM ${inner.sql} WHERE ${condition}) = ${
            this.textOf(picked.type)
          }`,
        // A name without its table is the inner query's if it has one, else the outer one's.
        () =>
          unqualified(inner.reach, column)
            ? `EXISTS (SELECT 1 FROM ${inner.sql} WHERE ${identifier(column.name)} = ${this.value(column.type)})`
            : `EXISTS (SELECT FROM ${inner.sql} WHERE ${condition})`
      ])()
    })
  }

  protected nested<A>(reach: ReadonlyArray<Reach>, body: () => A): A {
    const before = this.outer
    this.outer = reach.filter(({ sql, type }) => sql.includes(".") && type !== types.array)
    try {
      return body()
    } finally {
      this.outer = before
    }
  }

  /** A value beside a column: a parameter, with or without a cast, a constant, or NULL. */
  protected value(type: ColumnType): string {
    const { random } = this
    if (this.bound && random.chance(0.65)) {
      const parameter = this.parameter(random.chance(0.03) ? null : random.pick(type.parameters))
      return random.chance(0.08) && type.family !== "array" ? `${parameter}::${bare(type)}` : parameter
    }
    return random.chance(0.03) ? "NULL" : random.pick(type.literals)
  }

  protected textOf(type: ColumnType): string {
    return this.bound && this.random.chance(0.5)
      ? this.parameter(this.random.pick(type.stored))
      : `'${this.random.pick(type.stored)}'`
  }

  private list(type: ColumnType): string {
    const { random } = this
    const values = random.times(0, 2, () => random.pick(type.stored))
    const text = `{${values.map((value) => JSON.stringify(value)).join(",")}}`
    return this.bound && random.chance(0.6) && type.family !== "array"
      ? this.parameter(type.sql === "int" && random.chance(0.5) ? values.map(Number) : text)
      : `'${type.family === "array" ? "{}" : text}'${type.family === "array" ? "::int[]" : `::${bare(type)}[]`}`
  }

  private parameter(value: unknown): string {
    return `$${this.parameters.push(value)}`
  }

  protected alias(): string {
    return `t${this.names++}`
  }
}

export const reachOf = (alias: string, columns: ReadonlyArray<Column>): ReadonlyArray<Reach> =>
  columns.map(({ name, type }) => ({ sql: `${alias}.${identifier(name)}`, name, type }))

const unqualified = (inner: ReadonlyArray<Reach>, column: Reach): boolean =>
  inner.filter(({ name }) => name === column.name).length <= 1

const bare = (type: ColumnType): string => type.sql.replace(/ COLLATE \w+/, "").replace(/\(\d\)/, "")
