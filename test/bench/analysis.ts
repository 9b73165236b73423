// What it costs to know what a statement reads and writes: by its text, and by the definitions of the tables, views,
// triggers and functions in a catalog.
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as Pglite from "../../examples/support/pglite.ts"
import { read } from "../../src/internal/catalog/read.ts"
import * as QueryAnalyzer from "../../src/QueryAnalyzer.ts"
import { compare, keep, type Result, start } from "./harness.ts"

const corpus = readFileSync(join(import.meta.dirname, "..", "corpus", "shop.sql"), "utf8").replaceAll(/^--.*$/gm, "")
  .split(/;\s*\n/).map((statement) => statement.trim()).filter((statement) => statement !== "")
const schema = corpus.filter((statement) => statement.startsWith("CREATE"))
const statements = corpus.filter((statement) => !statement.startsWith("CREATE"))

/** 2 kB, as a program with many conditions writes them. */
const long = (i: number): string => {
  let sql =
    `SELECT o.id, o.total, c.name FROM shop.orders o JOIN shop.customers c ON c.id = o.customer_id WHERE o.id <> ${i}`
  for (let n = 0; sql.length < 2_000; n++) sql += ` AND (o.status <> 's${n}' OR c.vip AND o.total > ${n})`
  return sql
}

const path = { schemas: ["public"], isCertain: true, isSecured: false }
const catalogOfShop = Effect.gen(function*() {
  const sql = yield* PgClient.PgClient
  for (const statement of schema) yield* sql.unsafe(statement)
  return yield* read(sql)
}).pipe(Effect.provide(Pglite.layer()))

const heapMegabytes = (): number => {
  setFlagsFromString("--expose-gc")
  runInNewContext("gc")()
  return process.memoryUsage().heapUsed / 1024 / 1024
}

export const run = async (): Promise<ReadonlyArray<Result>> => {
  const catalog = await Effect.runPromise(catalogOfShop)
  const analyzer = await Effect.runPromise(Effect.provide(QueryAnalyzer.QueryAnalyzer, QueryAnalyzer.layer()))
  const bound = analyzer.bind!({ catalog, temporary: new Set() })

  let fresh = 0
  const each = (analyze: (sql: string) => unknown) => (times: number): void => {
    for (let i = 0; i < times; i++) keep(analyze(statements[i % statements.length]!))
  }
  const anew = (make: (i: number) => string, analyze: (sql: string) => unknown) => (times: number): void => {
    for (let i = 0; i < times; i++) keep(analyze(make(fresh++)))
  }
  const short = (i: number): string => `SELECT * FROM shop.products WHERE sku = $1 AND id <> ${i}`
  const byText = (sql: string) => analyzer.analyze(sql)
  const byCatalog = (sql: string) => bound.analyze(sql, path)
  const { nanos } = await compare("what a statement reads and writes", [
    { name: "known, by text", run: each(byText) },
    { name: "known, by catalog", run: each(byCatalog) },
    { name: "new, by text", run: anew(short, byText) },
    { name: "new, by catalog", run: anew(short, byCatalog) },
    { name: "new, 2 kB, by text", run: anew(long, byText) },
    { name: "new, 2 kB, by catalog", run: anew(long, byCatalog) }
  ], { clock: "cpu" })

  const before = heapMegabytes()
  for (let i = 0; i < 30_000; i++) byCatalog(long(i))
  const held = heapMegabytes() - before
  keep(bound)

  return [
    { name: "analysis of a known statement, µs", ratio: nanos("known, by catalog") / 1e3, target: 1 },
    { name: "- by its text alone", ratio: nanos("known, by text") / 1e3, target: 1 },
    { name: "first analysis of a 2 kB statement, ms", ratio: nanos("new, 2 kB, by catalog") / 1e6, target: 1 },
    { name: "- of a short one", ratio: nanos("new, by catalog") / 1e6 },
    { name: "MB held after 30,000 texts of 2 kB", ratio: held, target: 100 }
  ]
}

await start(import.meta, run)
