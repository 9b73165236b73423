// What it costs to find a value in the memory store, against `Map.get` under the same keys, as popular things are asked
// for. Both read the value that they find.
import type { CacheKey } from "../../src/CacheStore.ts"
import * as Dependency from "../../src/Dependency.ts"
import { MemoryTable } from "../../src/internal/memoryTable.ts"
import { compare, keep, type Result, start, zipf } from "./harness.ts"

const targets: Record<number, number | undefined> = { 1_000: undefined, 10_000: 1.5, 100_000: 2.2 }

const statements = 8

// Times as they are: small integers would be stored, and compared, as integers.
const now = 1_760_000_000_000

interface Value {
  readonly n: number
}

const valueOf = (n: number): Value => ({ n })

const orderOf = (size: number) => zipf(size, 1 << 17)

const codec = { encode: () => undefined, decode: () => undefined }

const makeKeys = (size: number, spaces: number): ReadonlyArray<CacheKey> =>
  Array.from({ length: size }, (_, i) => ({
    namespace: "localhost:5432/shop",
    space: `select * from users where table = ${i % spaces}`,
    local: `user${i}@example.com`,
    fingerprint: "",
    codec
  }))

const fill = (size: number, keys: ReadonlyArray<CacheKey>): MemoryTable => {
  const table = new MemoryTable({ capacity: size, maxBytes: Number.MAX_SAFE_INTEGER })
  const sets = Array.from({ length: statements }, (_, i) => Dependency.makeSet([Dependency.table(`table_${i}`)]))
  keys.forEach((key, i) => {
    const dependencies = sets[i % statements]!
    const { lease } = table.lookup(key, dependencies, now)
    table.store(key, { value: valueOf(i), dependencies, timeToLiveMillis: 3_600_000, bytes: 100 }, lease!, now)
  })
  return table
}

// Each loop has a body of its own, or what one case taught the compiler would slow the others.

const gets = (map: Map<CacheKey["local"], Value>, keys: ReadonlyArray<CacheKey>, order: Int32Array) => {
  let at = 0
  return (times: number): void => {
    let sum = 0
    for (let i = 0; i < times; i++) {
      sum += map.get(keys[order[at = (at + 1) & (order.length - 1)]!]!.local)!.n
    }
    keep(sum)
  }
}

const peeks = (table: MemoryTable, keys: ReadonlyArray<CacheKey>, order: Int32Array) => {
  let at = 0
  return (times: number): void => {
    let sum = 0
    for (let i = 0; i < times; i++) {
      sum += (table.peek(keys[order[at = (at + 1) & (order.length - 1)]!]!, now)!.value as Value).n
    }
    keep(sum)
  }
}

const peeksAndInvalidations = (table: MemoryTable, keys: ReadonlyArray<CacheKey>, order: Int32Array) => {
  let at = 0
  return (times: number): void => {
    let sum = 0
    for (let i = 0; i < times; i++) {
      sum += (table.peek(keys[order[at = (at + 1) & (order.length - 1)]!]!, now)!.value as Value).n
      // Of a table that nothing depends on: what is measured is what it costs the others.
      if (at % 20 === 0) table.invalidate(elsewhere)
    }
    keep(sum)
  }
}

const elsewhere = { namespace: "localhost:5432/shop", ...Dependency.writeTargets([Dependency.table("elsewhere")]) }

export const run = async (): Promise<ReadonlyArray<Result>> => {
  const results: Array<Result> = []
  for (const size of [1_000, 10_000, 100_000]) {
    const order = orderOf(size)
    const ofOne = makeKeys(size, 1)
    const ofMany = makeKeys(size, statements)
    const map = new Map(ofOne.map((key, i) => [key.local, valueOf(i)] as const))
    const entries = `${size.toLocaleString("en")} entries`
    const { ratio } = await compare(`finding one of ${entries}`, [
      { name: "Map.get", run: gets(map, ofOne, order) },
      { name: "one statement", run: peeks(fill(size, ofOne), ofOne, order) },
      { name: `${statements} statements`, run: peeks(fill(size, ofMany), ofMany, order) },
      { name: "with invalidations", run: peeksAndInvalidations(fill(size, ofMany), ofMany, order) }
    ], { clock: "cpu" })
    results.push(
      { name: `memory lookup / Map.get, ${entries}`, ratio: ratio("one statement", "Map.get"), target: targets[size] },
      { name: `- of ${statements} statements`, ratio: ratio(`${statements} statements`, "Map.get") },
      { name: "- with an invalidation every 20 lookups", ratio: ratio("with invalidations", "Map.get") }
    )
  }
  return results
}

await start(import.meta, run)
