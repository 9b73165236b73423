/**
 * What a hit returns equals, by value and by type, what the miss returned: for
 * every type, every extreme of it, and every form a result can have, read from
 * PostgreSQL through `@effect/sql-pg`.
 */
import { PgTypes } from "@effect/sql-pg"
import { layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { expect, it } from "vitest"
import { rowCodec } from "../src/internal/rowCodec.ts"
import { StoredRows } from "../src/internal/rows.ts"
import { expectExact, vandalise } from "./support/exact.ts"
import * as PgLite from "./support/pglite.ts"
import { forms, type JsType, rowTypes, selectAll, setup, undecodable } from "./support/rowTypes.ts"

type Rows = Effect.Effect<ReadonlyArray<any>, SqlError>

const store = (rows: ReadonlyArray<unknown>): StoredRows => {
  const stored = StoredRows.make(rows)
  if (stored === undefined) throw new Error("These rows were refused")
  return stored
}

/** The ways to an answer that must equal the database's own. */
const readers: Readonly<Record<string, (rows: Rows) => Rows>> = {
  "kept in memory": Effect.map((rows) => {
    const stored = store(rows)
    vandalise(stored.copy())
    return stored.copy()
  }),
  "frozen in memory": Effect.map((rows) => [...store(rows).frozen()]),
  "kept as text": Effect.map((rows) => (rowCodec.decode(rowCodec.encode(store(rows))!) as StoredRows).copy()),
  "kept as text twice": Effect.map((rows) => {
    const once = rowCodec.encode(store(rows))!
    const twice = rowCodec.encode(rowCodec.decode(once))!
    expect(twice).toBe(once)
    return (rowCodec.decode(twice) as StoredRows).copy()
  })
}

const is: Readonly<Record<JsType, (value: unknown) => boolean>> = {
  boolean: (value) => typeof value === "boolean",
  number: (value) => typeof value === "number",
  bigint: (value) => typeof value === "bigint",
  string: (value) => typeof value === "string",
  Date: (value) => Object.getPrototypeOf(value) === Date.prototype,
  Uint8Array: (value) => Object.getPrototypeOf(value) === Uint8Array.prototype,
  interval: (value) => JSON.stringify(Object.keys(value as object)) === `["months","days","microseconds"]`,
  json: () => true,
  array: Array.isArray
}

const ready = Layer.effectDiscard(Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  for (const statement of setup) yield* sql.unsafe(statement)
}))

it("the list has every type of sql-pg's registry", () => {
  const names = rowTypes.map((type) => type.name)
  for (const name of Object.keys(PgTypes.OID)) expect(names).toContain(name)
})

layer(Layer.provideMerge(ready, PgLite.layer()), { excludeTestServices: true })("PostgreSQL", (it) => {
  for (const type of rowTypes) {
    it.effect(`${type.name} keeps its values and their type`, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const statement = sql.unsafe<{ v: unknown }>(selectAll(type))
        const rows = yield* statement
        expect(rows.length).toBe(type.values.length * 2)
        rows.forEach((row, i) => expect(i % 2 === 0 ? is[type.is](row.v) : row.v === null).toBe(true))
        for (const read of Object.values(readers)) {
          expectExact(yield* read(statement), rows)
          expectExact(yield* read(statement.values), rows.map((row) => [row.v]))
        }
        // Each by itself: a column of one value is written in other ways than one of many.
        for (const value of type.values) {
          const statement = sql.unsafe(`SELECT ${value} AS v`)
          const rows = yield* statement
          for (const read of Object.values(readers)) expectExact(yield* read(statement), rows)
        }
      }))
  }

  for (const [what, text] of forms) {
    it.effect(`a result with ${what} keeps its form`, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        // now() must be the same for all readers.
        yield* sql.withTransaction(Effect.gen(function*() {
          const statement = sql.unsafe(text)
          const rows = yield* statement
          const values = yield* statement.values
          expect(values.length).toBe(rows.length)
          for (const read of Object.values(readers)) {
            expectExact(yield* read(statement), rows)
            expectExact(yield* read(statement.values), values)
          }
        }))
      }))
  }

  for (const [value, error] of undecodable) {
    it.effect(`${value} is refused by sql-pg itself`, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const failure = yield* Effect.flip(sql.unsafe(`SELECT ${value} AS v`))
        expect(String((failure.reason.cause as Error).message)).toMatch(error)
      }))
  }
})

layer(
  PgLite.layer({
    transformResultNames: (name) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
  })
)("PostgreSQL with transformed names", (it) => {
  it.effect("keeps what the transformation made", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const statement = sql.unsafe<any>(
        `SELECT i AS user_id, jsonb_build_object('first_name', 'Ada', 'all_tags', jsonb_build_array(jsonb_build_object('tag_id', i))) AS user_data
         FROM generate_series(1, 10) i`
      )
      const rows = yield* statement
      expect(rows[0]).toEqual({ userId: 1, userData: { firstName: "Ada", allTags: [{ tagId: 1 }] } })
      for (const read of Object.values(readers)) {
        expectExact(yield* read(statement), rows)
        expectExact(yield* read(statement.withoutTransform), yield* statement.withoutTransform)
      }
    }))
})
