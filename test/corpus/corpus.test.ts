// Statements as programs have them: the tables that the decorated client takes them to read and write contain those that
// PostgreSQL plans to visit.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { PGlite } from "@electric-sql/pglite"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { withDatabase } from "../oracle/run.ts"
import * as Subject from "../oracle/subject.ts"
import { create } from "../support/pglite.ts"

/** What a plan visits: relations with their schemas, where they are read and where they are written. */
const relations = (plan: any, found: { read: Set<string>; written: Set<string> }) => {
  if (Array.isArray(plan)) for (const node of plan) relations(node, found)
  else if (typeof plan === "object" && plan !== null) {
    if (plan["Relation Name"] !== undefined) {
      const name = /^\w+$/.test(plan["Relation Name"]) ? plan["Relation Name"] : `"${plan["Relation Name"]}"`
      ;(plan["Node Type"] === "ModifyTable" ? found.written : found.read).add(`${plan["Schema"]}.${name}`)
    }
    for (const node of Object.values(plan)) relations(node, found)
  }
  return found
}

/** Which table is a part of which. */
const inheritance = async (database: PGlite) => {
  const { rows } = await database.query<{ child: string; parent: string }>(
    "SELECT inhrelid::regclass::text AS child, inhparent::regclass::text AS parent FROM pg_inherits"
  )
  return rows
}

const readCorpus = (name: string) => {
  const statements = readFileSync(join(import.meta.dirname, `${name}.sql`), "utf8").replaceAll(/^--.*$/gm, "")
    .split(/;\s*\n/).map((statement) => statement.trim()).filter((statement) => statement !== "")
  const isDefinition = (statement: string): boolean => statement.startsWith("CREATE")
  return {
    schema: statements.filter(isDefinition),
    statements: statements.filter((statement) => !isDefinition(statement))
  }
}

describe("statements as programs have them", () => {
  for (const name of ["shop", "forum", "tpch", "tpcds"]) {
    it(`${name}: every relation of a plan is found`, { timeout: 60_000 }, () =>
      withDatabase(create, async (database, client) => {
        const { schema, statements } = readCorpus(name)
        await database.exec(schema.join("; "))
        // Nothing is in the tables, so no key would be found.
        await database.exec("SET session_replication_role = replica")
        const parts = await inheritance(database)
        await Effect.runPromise(Effect.scoped(Effect.provide(
          Effect.gen(function*() {
            const subject = yield* Subject.make
            for (const sql of statements) {
              const { parameters, plan } = yield* Effect.promise(async () => {
                const { queryParams } = await database.describeQuery(sql)
                const [{ rows }] = await database.exec(`EXPLAIN (VERBOSE, GENERIC_PLAN, FORMAT JSON) ${sql}`)
                return { plan: rows[0]!["QUERY PLAN"], parameters: queryParams.map(({ dataTypeID }) => some(dataTypeID)) }
              })
              const visited = relations(plan, { read: new Set(), written: new Set() })
              // What is said of the whole is said of its partitions.
              const isFound = (table: string, names: ReadonlyArray<string>): boolean =>
                names.includes(table) || parts.some(({ child, parent }) => child === table && isFound(parent, names))
              if (/\b(?:INSERT|UPDATE|DELETE|MERGE)\b/.test(sql)) {
                const targets = yield* subject.write(sql, parameters)
                expect(visited.written.size, sql).toBeGreaterThan(0)
                const names = [...targets.stamps, ...targets.images.map(({ table }) => table)]
                expect(targets.all ? [] : [...visited.written].filter((table) => !isFound(table, names)), sql).toEqual([])
              } else {
                const dependencies = yield* subject.read(sql, parameters)
                expect(visited.read.size, sql).toBeGreaterThan(0)
                expect([...visited.read].filter((table) => !isFound(table, dependencies?.tables ?? [])), sql).toEqual([])
              }
            }
          }),
          client
        )))
      }))
  }
})

/** A value of a type, as the driver takes it. */
const some = (type: number): unknown => values[type] ?? "1"

const values: { readonly [type: number]: unknown } = {
  1082: "1996-03-01",
  1184: "2024-05-01T00:00:00Z",
  1114: "2024-05-01",
  2950: "00000000-0000-0000-0000-000000000001",
  3802: "{}",
  1016: "{1,2}",
  869: "10.0.0.0/8",
  16: true
}
