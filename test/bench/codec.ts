/**
 * What rows cost as text and as copies: 12 columns of mixed types, against JSON
 * of the same rows made safe for JSON beforehand, and against structuredClone.
 */
import { rowCodec } from "../../src/internal/rowCodec.ts"
import { StoredRows } from "../../src/internal/rows.ts"
import { compare, keep, type Result, seeded, start } from "./harness.ts"

const statuses = ["active", "pending", "shipped", "cancelled"]

/** Orders as `@effect/sql-pg` returns them: rows built by assignment, json by `JSON.parse`. */
export const mixedRows = (count: number, seed = 42): Array<Record<string, any>> => {
  const random = seeded(seed)
  const below = (limit: number) => Math.floor(random() * limit)
  const columns: Record<string, (i: number) => unknown> = {
    id: (i) => BigInt(1_000_000 + i * 7),
    user_id: () => below(1e5),
    status: () => statuses[below(4)],
    email: () => `user${below(1e6)}@example.com`,
    amount: () => (random() * 10_000).toFixed(2),
    created_at: () => new Date(1_700_000_000_000 + below(1e10)),
    deleted_at: () => random() < 0.8 ? null : new Date(1_700_000_000_000 + below(1e10)),
    payload: () => JSON.parse(`{"sku":"SKU-${below(1e4)}","qty":${below(9)},"opts":{"gift":${random() < 0.5}}}`),
    tags: () => [`a${below(10)}`, `b${below(10)}`],
    thumb: () => Uint8Array.from({ length: 16 }, () => below(256)),
    score: () => random() < 0.02 ? NaN : random() < 0.02 ? Infinity : Math.round(random() * 1e4) / 100,
    is_paid: () => random() < 0.5
  }
  return Array.from({ length: count }, (_, i) => {
    const row: Record<string, unknown> = {}
    for (const name in columns) row[name] = columns[name]!(i)
    return row
  })
}

/** The same rows with all that JSON would lose already made text. */
const jsonSafe = (rows: ReadonlyArray<Record<string, any>>) =>
  rows.map((row) => ({
    ...row,
    id: row.id.toString(),
    created_at: row.created_at.toISOString(),
    deleted_at: row.deleted_at?.toISOString() ?? null,
    thumb: Buffer.from(row.thumb).toString("base64"),
    score: Number.isFinite(row.score) ? row.score : null
  }))

const targets: Record<number, { readonly bytes?: number; readonly time?: number }> = {
  1: { time: 3 },
  20: {},
  100: { bytes: 0.45, time: 1.15 },
  1000: {}
}

export const run = async (): Promise<ReadonlyArray<Result>> => {
  const results: Array<Result> = []
  const result = (name: string, ratio: number, target: number | undefined) => results.push({ name, ratio, target })
  for (const count of [1, 20, 100, 1000]) {
    const rows = mixedRows(count)
    const safe = jsonSafe(rows)
    const stored = StoredRows.make(rows)!
    const text = rowCodec.encode(stored)!
    const json = JSON.stringify(safe)
    const times = await compare(`rows as text, ${count}`, [
      { name: "JSON", run: repeat(() => JSON.parse(JSON.stringify(safe))) },
      { name: "rowCodec", run: repeat(() => rowCodec.decode(rowCodec.encode(stored)!)) },
      { name: "JSON.stringify", run: repeat(() => JSON.stringify(safe)) },
      { name: "rowCodec.encode", run: repeat(() => rowCodec.encode(stored)) },
      { name: "JSON.parse", run: repeat(() => JSON.parse(json)) },
      { name: "rowCodec.decode", run: repeat(() => rowCodec.decode(text)) }
    ], { clock: "cpu", samples: 15 })
    const rowsText = `${count} mixed row${count === 1 ? "" : "s"}`
    result(`codec bytes / JSON, ${rowsText}`, bytesOf(text) / bytesOf(json), targets[count]!.bytes)
    result(`codec encode + decode / JSON, ${rowsText}`, times.ratio("rowCodec", "JSON"), targets[count]!.time)
  }
  const rows = mixedRows(20)
  const stored = StoredRows.make(rows)!
  const scalars = manyShapes().map((row) => ({ row, stored: StoredRows.make([row])! }))
  const copies = await compare("copies for a caller, 20 mixed rows", [
    { name: "structuredClone", run: repeat(() => structuredClone(rows)) },
    { name: "StoredRows.copy", run: repeat(() => stored.copy()) },
    { name: "StoredRows.make (once per miss)", run: repeat(() => StoredRows.make(rows)) },
    { name: "StoredRows.frozen", run: repeat(() => stored.frozen()) }
  ], { clock: "cpu", samples: 15 })
  result("copy / structuredClone, 20 mixed rows", copies.ratio("StoredRows.copy", "structuredClone"), 0.2)
  const single = await compare("copies for a caller, one row of 12 scalars, of 64 tables", [
    { name: "object spread", run: repeat((i) => [{ ...scalars[i & 63]!.row }]) },
    { name: "StoredRows.copy", run: repeat((i) => scalars[i & 63]!.stored.copy()) }
  ], { clock: "cpu", samples: 15 })
  result("copy / object spread, one row of scalars", single.ratio("StoredRows.copy", "object spread"), 1)
  return results
}

const manyShapes = (): Array<Record<string, unknown>> =>
  Array.from({ length: 64 }, (_, table) => {
    const row: Record<string, unknown> = {}
    for (let c = 0; c < 12; c++) row[`t${table}_c${c}`] = [c, `text ${c}`, c % 2 === 0, null][c % 4]
    return row
  })

const repeat = (work: (i: number) => unknown) => (times: number): void => {
  for (let i = 0; i < times; i++) keep(work(i))
}

const bytesOf = (text: string): number => Buffer.byteLength(text)

await start(import.meta, run)
