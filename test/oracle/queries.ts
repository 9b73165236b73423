// Queries over a world: every clause that narrows, hides or carries on what a condition says of a table.
import { Conditions, type From, type Reach, reachOf } from "./conditions.ts"
import type { ColumnType } from "./values.ts"
import { identifier, types } from "./values.ts"
import type { Column, Relation } from "./world.ts"

export interface Query {
  readonly sql: string
  readonly parameters: ReadonlyArray<unknown>
  /** Whether the order of the rows belongs to the answer. */
  readonly ordered: boolean
}

interface Part {
  readonly sql: string
  readonly columns: ReadonlyArray<Column>
}

export class Queries extends Conditions {
  private ctes: ReadonlyArray<Relation> = []

  /** A query with parameters. */
  query(): Query {
    this.parameters = []
    this.bound = true
    const { ordered, sql } = this.top()
    return { ...used(sql, this.parameters), ordered }
  }

  /** A query without parameters, for a view. */
  definition(): Part {
    this.bound = false
    const part = this.random.weighted<() => Part>([
      [4, () => this.select(1)],
      [2, () => this.limited(1)],
      [1, () => this.union(1)],
      [1, () => this.aggregate(1)],
      [1, () => this.windowed(1)]
    ])()
    return part
  }

  private top(): { readonly sql: string; readonly ordered: boolean } {
    const { random } = this
    return random.weighted<() => { sql: string; ordered: boolean }>([
      [6, () => ({ ...this.select(2), ordered: false })],
      [2, () => ({ ...this.aggregate(2), ordered: false })],
      [1, () => ({ ...this.limited(2), ordered: true })],
      [2, () => ({ ...this.outside(), ordered: false })],
      [2, () => ({ ...this.withCte(), ordered: false })],
      [1, () => ({ ...this.union(2), ordered: false })],
      [1, () => ({ ...this.recursive(), ordered: false })],
      [1, () => ({ ...this.windowed(1), ordered: false })]
    ])()
  }

  /** A condition outside of a query that it may or may not be carried into. */
  private outside(): Part {
    const { random } = this
    const inner = random.weighted<() => Part>([
      [3, () => this.select(1)],
      [2, () => this.limited(1)],
      [2, () => this.windowed(1)],
      [2, () => this.distinctOn(1)],
      [2, () => this.aggregate(1)],
      [2, () => this.union(1)]
    ])()
    const alias = this.alias()
    const reach = reachOf(alias, inner.columns)
    return {
      sql: `SELECT ${alias}.* FROM (${inner.sql}) ${alias} WHERE ${this.condition(reach, 1)}`,
      columns: inner.columns
    }
  }

  private withCte(): Part {
    const { random } = this
    const inner = random.chance(0.7) ? this.select(1) : this.limited(1)
    const name = random.pick(["c", "c", "orders", "users"])
    const before = this.ctes
    const cte = { ref: name, columns: inner.columns }
    this.ctes = [...before, cte]
    const hint = random.pick(["", "", "MATERIALIZED ", "NOT MATERIALIZED "])
    const a = this.alias()
    const b = this.alias()
    const twice = random.chance(0.5)
    const reach = [...reachOf(a, inner.columns), ...(twice ? reachOf(b, inner.columns) : [])]
    const where = this.condition(reach, 1)
    this.ctes = before
    return {
      sql: `WITH ${name} AS ${hint}(${inner.sql}) SELECT ${a}.* FROM ${name} ${a}${twice ? `, ${name} ${b}` : ""} ` +
        `WHERE ${where}`,
      columns: inner.columns
    }
  }

  private recursive(): Part {
    const { random } = this
    const candidates = this.source.relations.filter(({ columns }) => numbers(columns).length >= 2)
    const table = random.pick(candidates)
    const [id, parent] = random.shuffle(numbers(table.columns)).map(({ name }) => identifier(name))
    const t = this.alias()
    const seed = this.condition(reachOf(t, table.columns), 0)
    const step = random.chance(0.5) ? ` AND ${this.condition(reachOf(t, table.columns), 0)}` : ""
    return {
      sql: `WITH RECURSIVE r(id, depth) AS (SELECT ${t}.${id}::bigint, 0 FROM ${table.ref} ${t} WHERE ${seed} ` +
        `UNION ALL SELECT ${t}.${id}::bigint, r.depth + 1 FROM ${table.ref} ${t} JOIN r ON ${t}.${parent} = r.id ` +
        `WHERE r.depth < 3${step}) SELECT * FROM r${random.chance(0.3) ? " WHERE r.id = 1" : ""}`,
      columns: [{ name: "id", type: types.bigint }, { name: "depth", type: types.int }]
    }
  }

  /** SELECT ... FROM ... WHERE, with whatever can stand in the list. */
  protected select(depth: number, exact = false): Part {
    const { random } = this
    const from = this.from(depth)
    const where = random.chance(0.9) ? ` WHERE ${this.condition(from.reach, depth)}` : ""
    const out: Array<Column> = []
    const list: Array<string> = []
    const add = (sql: string, name: string, type: ColumnType): void => {
      const free = out.some((column) => column.name === name) ? `c${out.length}` : name
      out.push({ name: free, type })
      list.push(`${sql} AS ${identifier(free)}`)
    }
    const usable = from.reach.filter(({ type }) => !exact || type.exact)
    for (const column of usable.length > 0 ? random.some(usable, Math.min(2, usable.length)).slice(0, 5) : []) {
      // Names may be swapped: what is called user_id need not be it.
      add(column.sql, random.chance(0.1) ? random.pick(["id", "user_id", "k"]) : column.name, column.type)
    }
    if (depth > 0 && random.chance(0.25)) {
      this.nested(from.reach, () => {
        const inner = this.from(0)
        const condition = this.condition(inner.reach, 0)
        const column = random.pick(inner.reach)
        add(
          random.pick([
            `(SELECT count(*) FROM ${inner.sql} WHERE ${condition})`,
            `(SELECT max(${column.sql}::text COLLATE "C") FROM ${inner.sql} WHERE ${condition})`,
            `EXISTS (SELECT FROM ${inner.sql} WHERE ${condition})`,
            `${this.value(column.type)} IN (SELECT ${column.sql} FROM ${inner.sql} WHERE ${condition})`,
            `ARRAY(SELECT ${column.sql}::text FROM ${inner.sql} WHERE ${condition} ORDER BY 1)::text`
          ]),
          "sub",
          types.text
        )
      })
    }
    if (random.chance(0.06) && this.source.readers.length > 0) add(random.pick(this.source.readers), "f", types.bigint)
    if (random.chance(0.1)) add(`CASE WHEN ${this.condition(from.reach, 0)} THEN 1 ELSE 2 END`, "w", types.int)
    if (list.length === 0) add("1", "one", types.int)
    const distinct = out.every(({ type }) => type.exact) && random.chance(0.15) ? "DISTINCT " : ""
    // What is selected last has no name to hold on to, unlike a column: DISTINCT sees it all the same.
    return { sql: `SELECT ${distinct}${list.join(", ")} FROM ${from.sql}${where}`, columns: out }
  }

  private limited(depth: number): Part {
    const { random } = this
    const inner = random.chance(0.6) ? this.select(depth) : this.simple()
    const alias = this.alias()
    const bound = random.pick(["LIMIT 1", "LIMIT 2", "LIMIT 1 OFFSET 1", "OFFSET 1", "FETCH FIRST 1 ROW ONLY"])
    const where = random.chance(0.3) ? ` WHERE ${this.condition(reachOf(alias, inner.columns), 0)}` : ""
    return {
      sql: `SELECT * FROM (${inner.sql}) ${alias}${where} ORDER BY ${totalOrder(alias, inner.columns)} ${bound}`,
      columns: inner.columns
    }
  }

  /** A whole table. */
  private simple(): Part {
    const { columns, ref } = this.random.pick(this.source.relations)
    return { sql: `SELECT * FROM ${ref}`, columns }
  }

  private distinctOn(depth: number): Part {
    const inner = this.random.chance(0.5) ? this.select(depth) : this.simple()
    const alias = this.alias()
    const column = inner.columns.find(({ type }) => type.exact)
    if (column === undefined) return inner
    const on = `${alias}.${identifier(column.name)}`
    return {
      sql: `SELECT DISTINCT ON (${on}) * FROM (${inner.sql}) ${alias} ORDER BY ${on}, ${
        totalOrder(alias, inner.columns)
      }`,
      columns: inner.columns
    }
  }

  private windowed(depth: number): Part {
    const { random } = this
    const inner = random.chance(0.5) ? this.select(depth) : this.simple()
    const alias = this.alias()
    const column = (): string => `${alias}.${identifier(random.pick(inner.columns).name)}`
    const over = random.pick([
      `rank() OVER (ORDER BY ${column()}::text COLLATE "C")`,
      `count(*) OVER (PARTITION BY ${column()}::text)`,
      "count(*) OVER ()",
      `row_number() OVER (ORDER BY ${totalOrder(alias, inner.columns)})`
    ])
    const where = random.chance(0.4) ? ` WHERE ${this.condition(reachOf(alias, inner.columns), 0)}` : ""
    return {
      sql: `SELECT ${alias}.*, ${over} AS r FROM (${inner.sql}) ${alias}${where}`,
      columns: [...inner.columns.filter(({ name }) => name !== "r"), { name: "r", type: types.bigint }]
    }
  }

  private aggregate(depth: number): Part {
    const { random } = this
    const from = this.from(depth)
    const where = random.chance(0.7) ? ` WHERE ${this.condition(from.reach, depth)}` : ""
    const exact = from.reach.filter(({ type }) => type.exact && type.family !== "array")
    const grouped = random.chance(0.5) && exact.length > 0 ? random.some(exact).slice(0, 2) : []
    const any = (): Reach => random.pick(from.reach)
    const filter = (): string => random.chance(0.25) ? ` FILTER (WHERE ${this.condition(from.reach, 0)})` : ""
    const calls = random.times(1, 2, () =>
      random.pick([
        "count(*)",
        `count(${any().sql})`,
        `max(${any().sql}::text COLLATE "C")`,
        sorted(any().sql),
        `count(DISTINCT ${any().sql}::text)`
      ]) + filter())
    const columns: Array<Column> = grouped.map(({ type }, i) => ({ name: `g${i}`, type }))
    const list = grouped.map(({ sql }, i) => `${sql} AS g${i}`)
    calls.forEach((call, i) => {
      columns.push({ name: `a${i}`, type: types.text })
      list.push(`(${call})::text AS a${i}`)
    })
    const keys = grouped.map(({ sql }) => sql)
    const groupBy = keys.length === 0
      ? random.chance(0.1) ? " GROUP BY ()" : ""
      : random.chance(0.2)
      ? ` GROUP BY GROUPING SETS ((), (${keys.join(", ")}))`
      : ` GROUP BY ${keys.join(", ")}`
    const counted = any()
    const having = random.chance(0.2)
      ? ` HAVING ${
        random.pick([
          "count(*) > 1",
          `max(${counted.sql}::text COLLATE "C") = ${this.textOf(counted.type)}`,
          ...(keys.length > 0 ? [`${keys[0]} = ${this.value(grouped[0]!.type)}`] : [])
        ])
      }`
      : ""
    return { sql: `SELECT ${list.join(", ")} FROM ${from.sql}${where}${groupBy}${having}`, columns }
  }

  private union(depth: number): Part {
    const { random } = this
    const operator = random.pick(["UNION", "UNION ALL", "EXCEPT", "INTERSECT", "EXCEPT ALL"])
    const first = this.from(depth)
    const second = this.from(depth)
    const families = random.shuffle(["number", "text", "boolean", "date"] as const).slice(0, 2)
    const columns: Array<Column> = []
    const arms: [Array<string>, Array<string>] = [[], []]
    for (const family of families) {
      const pick = (reach: ReadonlyArray<Reach>): Reach | undefined => {
        const usable = reach.filter(({ type }) => type.family === family && type.exact)
        return usable.length === 0 ? undefined : random.pick(usable)
      }
      const [a, b] = [pick(first.reach), pick(second.reach)]
      if (a === undefined && b === undefined) continue
      const type = (a ?? b)!.type
      const name = a?.name ?? "c"
      columns.push({ name: columns.some((column) => column.name === name) ? `c${columns.length}` : name, type })
      arms[0].push(`${a?.sql ?? "NULL"} AS ${identifier(columns.at(-1)!.name)}`)
      arms[1].push(b?.sql ?? "NULL")
    }
    if (columns.length === 0) {
      columns.push({ name: "n", type: types.int })
      arms[0].push("1 AS n")
      arms[1].push("1")
    }
    const arm = (list: ReadonlyArray<string>, from: From): string =>
      `SELECT ${list.join(", ")} FROM ${from.sql} WHERE ${this.condition(from.reach, 0)}`
    return { sql: `${arm(arms[0], first)} ${operator} ${arm(arms[1], second)}`, columns }
  }

  protected from(depth: number): From {
    const { random } = this
    const count = random.weighted([[4, 1], [4, 2], [1, 3]])
    let from = this.item(depth)
    for (let i = 1; i < count; i++) {
      const right = this.item(depth)
      const both = [...from.reach, ...right.reach]
      const shared = right.reach.filter((column) =>
        column.type.exact && from.reach.some((other) => joinable(other, column)) &&
        [from, right].every(({ reach }) => reach.filter(({ name }) => name === column.name).length === 1)
      )
      const merged = shared.length > 0 && random.chance(0.15) ? random.pick(shared) : undefined
      const kind = random.pick(["JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
      if (merged !== undefined) {
        const name = identifier(merged.name)
        from = {
          sql: `(${from.sql} ${kind} ${right.sql} USING (${name}))`,
          reach: [{ ...merged, sql: name }, ...both]
        }
      } else if (random.chance(0.1)) {
        from = { sql: `${from.sql} ${random.pick(["CROSS JOIN", ","])} ${right.sql}`, reach: both }
      } else {
        const pairs = from.reach.flatMap((a) =>
          right.reach.filter((b) => b.type.family === a.type.family && b.type !== types.array)
            .map((b) => `${a.sql} = ${b.sql}`)
        )
        // A FULL JOIN takes nothing but equalities.
        const on = pairs.length > 0 ? random.pick(pairs) : "1 = 1"
        const more = kind !== "FULL JOIN" && random.chance(0.4) ? ` AND ${this.atom(both, 0)}` : ""
        from = { sql: `${from.sql} ${kind} ${right.sql} ON ${on}${more}`, reach: both }
      }
    }
    return from
  }

  private item(depth: number): From {
    const { random } = this
    const alias = this.alias()
    if (depth > 0 && random.chance(0.2)) {
      const inner = random.weighted<() => Part>([
        [4, () => this.select(depth - 1)],
        [1, () => this.limited(depth - 1)],
        [1, () => this.aggregate(0)]
      ])()
      return { sql: `(${inner.sql}) ${alias}`, reach: reachOf(alias, inner.columns) }
    }
    if (random.chance(0.04)) {
      return {
        sql: `(VALUES (1), (2)) ${alias}(k)`,
        reach: [{ sql: `${alias}.k`, name: "k", type: types.int }]
      }
    }
    const relation = this.ctes.length > 0 && random.chance(0.2)
      ? random.pick(this.ctes)
      : random.pick(this.source.relations)
    if (random.chance(0.1)) {
      const renamed = relation.columns.map((column, i) => ({ ...column, name: i === 0 ? "user_id" : `c${i}` }))
      return {
        sql: `${relation.ref} ${alias}(${renamed.map(({ name }) => name).join(", ")})`,
        reach: reachOf(alias, renamed)
      }
    }
    const only = random.chance(0.05) && !relation.ref.startsWith("v") && !this.ctes.includes(relation) ? "ONLY " : ""
    return { sql: `${only}${relation.ref} ${alias}`, reach: reachOf(alias, relation.columns) }
  }
}

/** Only those parameters that the text has, in its order. */
export const used = (
  sql: string,
  parameters: ReadonlyArray<unknown>
): { readonly sql: string; readonly parameters: ReadonlyArray<unknown> } => {
  const numbers: Array<number> = []
  const text = sql.replaceAll(/\$(\d+)/g, (_, number) => `$${numbers.push(Number(number))}`)
  return { sql: text, parameters: numbers.map((number) => parameters[number - 1]) }
}

/** All values, in an order that no plan changes. */
const sorted = (sql: string): string => `string_agg(${sql}::text, ',' ORDER BY ${sql}::text COLLATE "C")`

/** Whether USING may name a column of both: not one that another USING has merged. */
const joinable = (a: Reach, b: Reach): boolean =>
  a.name === b.name && a.type.family === b.type.family && a.sql.includes(".") && b.sql.includes(".")

const numbers = (columns: ReadonlyArray<Column>): ReadonlyArray<Column> =>
  columns.filter(({ type }) => type.sql === "int" || type === types.bigint)

const totalOrder = (alias: string, columns: ReadonlyArray<Column>): string =>
  columns.map(({ name }) => `${alias}.${identifier(name)}::text COLLATE "C"`).join(", ")
