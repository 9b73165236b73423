/**
 * Three judges of one subject, none of which knows how it comes to what it says.
 *
 * - *Noninterference*: what a query is claimed to depend on is kept, every other row of every table is replaced by
 *   arbitrary ones, triggers off. The answer must not move.
 * - *Coverage*: every table is compared before and after a write. Each row that went or came must be told to whoever
 *   depends on its table, or on any combination of its columns with the values it has.
 * - *Pairs*: every query before and after every write. One whose answer moved must be invalidated. The others tell how
 *   many are invalidated needlessly.
 *
 * Together the first two say what the third does for any query and any write, the third does not believe that they do.
 */
import type { PGlite } from "@electric-sql/pglite"
import * as Effect from "effect/Effect"
import * as Dependency from "../../src/Dependency.ts"
import { type Claim, claimsOf, type Conjunction, covers, coversBelow, coversTable, reaches } from "./claims.ts"
import type { Query } from "./queries.ts"
import { Random } from "./random.ts"
import type { Subject } from "./subject.ts"
import { identifier, quote } from "./values.ts"
import { insertRows, lineage, reader, type Table, type World } from "./world.ts"
import type { Write } from "./writes.ts"

export interface Tally {
  /** Answers over replaced rows, in a table of which some rows were kept. */
  replaced: number
  /** Rows that a write changed. */
  changedRows: number
  /** Queries whose answer a write moved. */
  movedAnswers: number
  /** Queries whose answer stayed: all of them, those invalidated, those that whole tables would have invalidated. */
  stayed: number
  needless: number
  needlessByTable: number
  queries: number
  /** Queries whose answer is cached, and those that depend on some table in part. */
  cached: number
  narrow: number
  writes: number
  /** Statements that PostgreSQL refused, which say nothing. */
  failed: number
}

export const emptyTally = (): Tally => ({
  replaced: 0,
  changedRows: 0,
  movedAnswers: 0,
  stayed: 0,
  needless: 0,
  needlessByTable: 0,
  queries: 0,
  cached: 0,
  narrow: 0,
  writes: 0,
  failed: 0
})

export interface Miss {
  readonly judge: "noninterference" | "coverage" | "pairs"
  readonly seed: number
  readonly query?: string
  readonly write?: string
  readonly detail: string
}

/** A query that is being watched. */
interface Watched {
  readonly query: Query
  readonly shown: string
  readonly scoped: boolean
  readonly dependencies: Dependency.DependencySet
  readonly claims: ReadonlyMap<string, Claim>
  /** How its answer is asked for. */
  readonly execute: string
  answer: string | undefined
}

export class Judge {
  readonly tally: Tally
  readonly misses: Array<Miss> = []
  private readonly database: PGlite
  private readonly subject: Subject
  private readonly world: World
  private readonly random: Random
  private readonly stored: ReadonlyArray<Table>
  private watched: Array<Watched> = []
  private rows: Snapshot = new Map()
  private prepared: Array<string> = []

  constructor(database: PGlite, subject: Subject, world: World, tally: Tally) {
    this.database = database
    this.subject = subject
    this.world = world
    this.tally = tally
    this.random = new Random(world.seed + 1)
    this.stored = world.tables.filter(({ holdsRows }) => holdsRows)
  }

  /** Asks the subject about a query, and watches its answer from now on. */
  async watch(query: Query, scoped = false): Promise<void> {
    const { sql, parameters } = query
    const name = `judged_${this.prepared.length}`
    const prepared = await this.try(
      `PREPARE ${name}${typesOf(parameters)} AS SELECT coalesce(json_agg(answer_::text${
        query.ordered ? "" : ` ORDER BY answer_::text COLLATE "C"`
      }), '[]')::text AS answer FROM (${sql}) answer_`
    )
    if (prepared === undefined) return void this.tally.failed++
    this.prepared.push(name)
    this.tally.queries++
    const dependencies = await Effect.runPromise(
      Effect.match(this.subject.read(sql, parameters, { scoped }), {
        onSuccess: (dependencies) => ({ dependencies }),
        onFailure: () => undefined
      })
    )
    if (dependencies === undefined) return void this.tally.failed++
    if (dependencies.dependencies === undefined) return
    const claims = claimsOf(dependencies.dependencies)
    this.tally.cached++
    if ([...claims.values()].some((claim) => claim !== "whole")) this.tally.narrow++
    const execute = `EXECUTE ${name}${parameters.length === 0 ? "" : `(${parameters.map(literal).join(", ")})`}`
    this.watched.push({
      query,
      scoped,
      claims,
      dependencies: dependencies.dependencies,
      shown: show(query) + (scoped ? ` (as ${reader})` : ""),
      execute: scoped ? `SET ROLE ${reader}; ${execute}; RESET ROLE` : execute,
      answer: undefined
    })
  }

  /** Watches none of the queries any more. */
  async forget(): Promise<void> {
    await this.database.exec(this.prepared.map((name) => `DEALLOCATE ${name}`).join("; "))
    this.prepared = []
    this.watched = []
  }

  /** Changes the schema, as a program does. */
  async change(ddl: string): Promise<void> {
    await Effect.runPromise(this.subject.write(ddl, []))
  }

  /** Takes what is in the tables now for where everything begins. */
  async begin(): Promise<void> {
    this.rows = await this.snapshot()
    await this.database.exec("BEGIN")
    const answers = await this.answers()
    await this.database.exec("ROLLBACK")
    this.watched.forEach((watched, i) => watched.answer = answers[i])
  }

  async noninterference(rounds: number): Promise<void> {
    for (const watched of this.watched) {
      if (watched.answer === undefined) continue
      for (let round = 0; round < rounds; round++) {
        const replacement = this.replacement(watched.claims)
        if (replacement.length === 0) break
        const answer = await this.answer(watched, replacement)
        // An error is no answer, and would not be cached.
        if (answer === undefined) continue
        if ([...watched.claims.values()].some((claim) => claim !== "whole")) this.tally.replaced++
        if (answer !== watched.answer && await this.isDetermined(watched)) {
          this.misses.push({
            judge: "noninterference",
            seed: this.world.seed,
            query: watched.shown,
            detail: `depends on ${watched.dependencies.stamps.join(" ")}\n${replacement.join(";\n")}\n` +
              `${watched.answer} -> ${answer}`
          })
          break
        }
      }
    }
  }

  /** Runs a write, lets the judges look, and takes it back. */
  async write(write: Write, asksAgain: boolean): Promise<void> {
    let moved: ReadonlyArray<readonly [Watched, Miss]> = []
    await this.database.exec("BEGIN")
    try {
      const targets = await Effect.runPromise(Effect.option(this.subject.write(write.sql, write.parameters)))
      // What is deferred happens at the commit.
      if (targets._tag === "None" || await this.try("SET CONSTRAINTS ALL IMMEDIATE") === undefined) {
        this.tally.failed++
        return
      }
      this.tally.writes++
      this.coverage(write, targets.value, await this.snapshot())
      if (asksAgain) moved = await this.pairs(write, targets.value)
    } finally {
      await this.database.exec("ROLLBACK; RESET ROLE")
    }
    for (const [watched, miss] of moved) if (await this.isDetermined(watched)) this.misses.push(miss)
  }

  private coverage(write: Write, targets: Dependency.Targets, after: Snapshot): void {
    for (const table of this.stored) {
      const columns = table.columns.map(({ name }) => stampName(name))
      for (const row of difference(this.rows.get(table.ref)!, after.get(table.ref)!)) {
        this.tally.changedRows++
        const values: Conjunction = columns.map((name, i) => [name, row[i] ?? null])
        for (const relation of lineage(table)) {
          const { name } = relation
          if (coversBelow(targets, lineage(relation).slice(1).map(({ name }) => name))) continue
          const missed = coversTable(targets, name)
            ? combinations(values).find((conjunction) => !covers(targets, name, conjunction))
            : []
          if (missed === undefined) continue
          this.misses.push({
            judge: "coverage",
            seed: this.world.seed,
            write: show(write),
            detail: `the row ${JSON.stringify(row)} of ${table.ref} is not told to ${name}(${
              missed.map(([column, value]) => `${column}=${value}`).join(", ")
            })\n${showTargets(targets)}`
          })
          return
        }
      }
    }
  }

  private async pairs(write: Write, targets: Dependency.Targets): Promise<Array<readonly [Watched, Miss]>> {
    const moved: Array<readonly [Watched, Miss]> = []
    const touched = tablesOf(targets)
    const answers = await this.answers()
    for (const [i, watched] of this.watched.entries()) {
      const after = answers[i]
      if (watched.answer === undefined || after === undefined) continue
      const reached = reaches(targets, watched.dependencies)
      if (after === watched.answer) {
        this.tally.stayed++
        if (reached) this.tally.needless++
        if (targets.all || watched.dependencies.tables.some((table) => touched.has(table))) this.tally.needlessByTable++
        continue
      }
      this.tally.movedAnswers++
      if (reached) continue
      moved.push([watched, {
        judge: "pairs",
        seed: this.world.seed,
        query: watched.shown,
        write: show(write),
        detail: `depends on ${watched.dependencies.stamps.join(" ")}\n${showTargets(targets)}\n` +
          `${watched.answer} -> ${after}`
      }])
    }
    return moved
  }

  /** Statements that leave what is claimed and put anything else in place of the rest. */
  private replacement(claims: ReadonlyMap<string, Claim>): ReadonlyArray<string> {
    const { random } = this
    const before: Array<string> = []
    const after: Array<string> = []
    let replaces = false
    for (const table of this.stored) {
      const kept = keeping(table, claims)
      replaces ||= kept !== "true"
      before.push(`DELETE FROM ONLY ${table.ref} WHERE NOT (${kept})`)
      // What was put in and matches is not anything else.
      after.push(`DELETE FROM ONLY ${table.ref} WHERE xmin = pg_current_xact_id()::xid AND (${kept})`)
    }
    return replaces
      ? [...before, ...this.world.tables.flatMap((table) => insertRows(table, random, random.below(4))), ...after]
      : []
  }

  /** Whether the answer follows from the rows, not from where they lie. */
  private async isDetermined(watched: Watched): Promise<boolean> {
    for (let i = 0; i < 3; i++) {
      const moved = this.stored.map(({ columns, ref }) => {
        const list = columns.filter(({ generated }) => !generated).map(({ name }) => identifier(name)).join(", ")
        return `WITH gone AS (DELETE FROM ONLY ${ref} RETURNING ${list}) ` +
          `INSERT INTO ${ref} (${list}) SELECT ${list} FROM gone ORDER BY random()`
      })
      if (await this.answer(watched, moved) !== watched.answer) return false
    }
    return true
  }

  /** The answer over changed rows, which are then as before. */
  private async answer(watched: Watched, changes: ReadonlyArray<string>): Promise<string | undefined> {
    const results = await this.try(
      ["BEGIN", "SET LOCAL session_replication_role = replica", ...changes, watched.execute, "ROLLBACK"].join("; ")
    )
    if (results === undefined) await this.database.exec("ROLLBACK; RESET ROLE")
    return results?.[0]
  }

  /** The answers of all watched queries, inside the transaction that is open. */
  private async answers(): Promise<ReadonlyArray<string | undefined>> {
    const all = await this.attempt(this.watched)
    if (all !== undefined) return all
    const answers: Array<string | undefined> = []
    for (const watched of this.watched) answers.push((await this.attempt([watched]))?.[0])
    return answers
  }

  private async attempt(watched: ReadonlyArray<Watched>): Promise<ReadonlyArray<string> | undefined> {
    if (watched.length === 0) return []
    await this.database.exec("SAVEPOINT answers")
    const answers = await this.try(watched.map(({ execute }) => execute).join("; "))
    await this.database.exec("ROLLBACK TO answers; RELEASE answers")
    return answers
  }

  /** The answers among what the statements give. */
  private async try(sql: string): Promise<ReadonlyArray<string> | undefined> {
    try {
      const results = await this.database.exec(sql)
      return results.flatMap(({ fields, rows }) =>
        fields[0]?.name === "answer" ? rows.map((row) => row["answer"] as string) : []
      )
    } catch {
      return undefined
    }
  }

  private async snapshot(): Promise<Snapshot> {
    const tables = this.stored.map(({ columns, ref }) =>
      `(SELECT coalesce(json_agg(json_build_array(${
        columns.map(({ name }) => `${identifier(name)}::text`).join(", ")
      })), '[]') FROM ONLY ${ref})`
    )
    const [{ rows }] = await this.database.exec(
      `SELECT json_build_array(${tables.join(", ")}) AS all`
    )
    return new Map(this.stored.map(({ ref }, i) => [ref, rows[0]!.all[i]!]))
  }
}

type Row = ReadonlyArray<string | null>
type Snapshot = ReadonlyMap<string, ReadonlyArray<Row>>

const keeping = (table: Table, claims: ReadonlyMap<string, Claim>): string => {
  const found = lineage(table).map(({ name }) => claims.get(name)).filter((claim) => claim !== undefined)
  if (found.includes("whole")) return "true"
  const conjunctions = (found as Array<ReadonlyArray<Conjunction>>).flat()
  if (conjunctions.length === 0) return "false"
  return conjunctions.map((conjunction) =>
    `(${
      conjunction.map(([column, value]) =>
        `${column}::text IS NOT DISTINCT FROM ${value === null ? "NULL" : quote(value)}`
      ).join(" AND ")
    })`
  ).join(" OR ")
}

/** The rows that are in one and not in the other, as often as they are not. */
const difference = (before: ReadonlyArray<Row>, after: ReadonlyArray<Row>): ReadonlyArray<Row> => {
  const counts = new Map<string, number>()
  for (const row of before) count(counts, row, 1)
  for (const row of after) count(counts, row, -1)
  return [...counts].flatMap(([text, count]) => Array<Row>(Math.abs(count)).fill(JSON.parse(text)))
}

const count = (counts: Map<string, number>, row: Row, by: number): void => {
  const text = JSON.stringify(row)
  counts.set(text, (counts.get(text) ?? 0) + by)
}

/** One, two and three of the columns, and all of them. */
const combinations = (values: Conjunction): ReadonlyArray<Conjunction> => {
  const sorted = [...values].sort(([a], [b]) => a < b ? -1 : 1)
  const out: Array<Conjunction> = [sorted]
  for (const [i, a] of sorted.entries()) {
    out.push([a])
    for (const [j, b] of sorted.entries()) {
      if (j <= i) continue
      out.push([a, b])
      for (const c of sorted.slice(j + 1)) out.push([a, b, c])
    }
  }
  return out
}

const tablesOf = (targets: Dependency.Targets): ReadonlySet<string> =>
  new Set([...targets.stamps, ...targets.images.map(({ table }) => table)])

const stampName = (name: string): string => Dependency.row("t", { [name]: 1 }).columns[0]![0]

const showTargets = ({ all, images, stamps }: Dependency.Targets): string =>
  `invalidates ${
    all ?
      "everything" :
      [...stamps, ...images.map((image) => `${image.table}${JSON.stringify(Object.fromEntries(image.columns))}`)].join(
        " "
      )
  }`

const show = ({ parameters, sql }: { readonly sql: string; readonly parameters: ReadonlyArray<unknown> }): string =>
  `${sql} -- ${parameters.map((value) => typeof value === "bigint" ? `${value}n` : JSON.stringify(value)).join(", ")}`

/** The types under which the driver sends parameters. */
const typesOf = (parameters: ReadonlyArray<unknown>): string => {
  const types = parameters.map((value) =>
    typeof value === "boolean"
      ? "bool"
      : typeof value === "bigint"
      ? "int8"
      : typeof value === "number"
      ? !Number.isInteger(value)
        ? "float8"
        : Math.abs(value) < 2 ** 31
        ? "int4"
        : Number.isSafeInteger(value)
        ? "int8"
        : "float8"
      : Array.isArray(value) && value.length > 0
      ? "int4[]"
      : "unknown"
  )
  return types.length === 0 ? "" : `(${types.join(", ")})`
}

const literal = (value: unknown): string =>
  value === null ? "NULL" : quote(Array.isArray(value) ? `{${value.join(",")}}` : String(value))
