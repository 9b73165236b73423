// Statements written for these tests, and what PostgreSQL plans to visit for them.
import type { PGlite } from "@electric-sql/pglite"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { Subject } from "../oracle/subject.ts"

export interface Corpus {
  readonly schema: ReadonlyArray<string>
  readonly statements: ReadonlyArray<string>
}

export const names = ["shop", "forum", "tpch", "tpcds"]

export const readCorpus = (name: string): Corpus => {
  const statements = readFileSync(join(import.meta.dirname, `${name}.sql`), "utf8").replaceAll(/^--.*$/gm, "")
    .split(/;\s*\n/).map((statement) => statement.trim()).filter((statement) => statement !== "")
  const isDefinition = (statement: string): boolean => statement.startsWith("CREATE")
  return {
    schema: statements.filter(isDefinition),
    statements: statements.filter((statement) => !isDefinition(statement))
  }
}

/** Makes the tables, in which nothing is: so keys are not checked. */
export const load = (database: PGlite, { schema }: Corpus): Promise<unknown> =>
  database.exec([...schema, "SET session_replication_role = replica"].join("; "))

/** What came of comparing a statement with its plan. */
export type Comparison =
  | { readonly _tag: "Invalid" }
  | { readonly _tag: "NotCached" }
  | { readonly _tag: "Compared"; readonly visited: number; readonly missed: ReadonlyArray<string> }

/** Whether the subject knows of every relation in PostgreSQL's own plan of a statement. */
export const compare = async (database: PGlite, subject: Subject, sql: string): Promise<Comparison> => {
  const explained = await explain(database, sql)
  if (explained === undefined) return { _tag: "Invalid" }
  const { parameters, plan } = explained
  const visited = { read: new Set<string>(), written: new Set<string>() }
  collect(plan, visited)
  const { rows: parts } = await database.query<{ child: string; parent: string }>(
    "SELECT inhrelid::regclass::text AS child, inhparent::regclass::text AS parent FROM pg_inherits"
  )
  // What is said of the whole is said of its partitions.
  const isFound = (table: string, names: ReadonlyArray<string>): boolean =>
    names.includes(table) || parts.some(({ child, parent }) => child === table && isFound(parent, names))
  if (visited.written.size > 0) {
    // There are no rows: what is returned would tell that nothing was written.
    const targets = await attempt(subject.write(sql, parameters, { raw: true }))
    if (targets === undefined) return { _tag: "Invalid" }
    const { all, images, stamps } = targets.value
    const names = [...stamps, ...images.map(({ table }) => table)]
    return {
      _tag: "Compared",
      visited: visited.written.size,
      missed: all ? [] : [...visited.written].filter((table) => !isFound(table, names))
    }
  }
  const answer = await attempt(subject.read(sql, parameters))
  if (answer === undefined) return { _tag: "Invalid" }
  const dependencies = answer.value
  if (dependencies === undefined) return { _tag: "NotCached" }
  return {
    _tag: "Compared",
    visited: visited.read.size,
    missed: [...visited.read].filter((table) => !isFound(table, dependencies.tables))
  }
}

// What PostgreSQL plans it may refuse to run. Nothing else may fail.
const attempt = async <A>(effect: Effect.Effect<A, SqlError>): Promise<{ readonly value: A } | undefined> => {
  const result = await Effect.runPromise(Effect.option(effect))
  return result._tag === "None" ? undefined : result
}

const explain = async (database: PGlite, sql: string) => {
  try {
    const [{ rows }] = await database.exec(`EXPLAIN (VERBOSE, GENERIC_PLAN, FORMAT JSON) ${sql}`)
    const { queryParams } = await database.describeQuery(sql)
    return { plan: rows[0]!["QUERY PLAN"], parameters: queryParams.map(({ dataTypeID }) => values[dataTypeID] ?? "1") }
  } catch {
    return undefined
  }
}

const collect = (plan: any, visited: { readonly read: Set<string>; readonly written: Set<string> }): void => {
  if (Array.isArray(plan)) { for (const node of plan) collect(node, visited) }
  else if (typeof plan === "object" && plan !== null) {
    if (plan["Relation Name"] !== undefined) {
      const name = /^\w+$/.test(plan["Relation Name"]) ? plan["Relation Name"] : `"${plan["Relation Name"]}"`
      ;(plan["Node Type"] === "ModifyTable" ? visited.written : visited.read).add(`${plan["Schema"]}.${name}`)
    }
    for (const node of Object.values(plan)) collect(node, visited)
  }
}

/** A value of each type that the statements ask for, as the driver takes it. */
const values: { readonly [type: number]: unknown } = {
  16: true,
  869: "10.0.0.0/8",
  1016: "{1,2}",
  1082: "1996-03-01",
  1114: "2024-05-01",
  1184: "2024-05-01T00:00:00Z",
  2950: "00000000-0000-0000-0000-000000000001",
  3802: "{}"
}
