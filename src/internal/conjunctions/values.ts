/**
 * Values that can name a row: those whose equality in PostgreSQL is equality of
 * one text, which is the same in a parameter, in a decoded row and in the change
 * feed.
 *
 * What is not already in that text is not brought into it: `42.0`, `'yes'` and
 * `'Jan 5 2024'` mean what PostgreSQL makes of them, and that is not ours to
 * know. Such a value is `undefined`, and the condition that holds it is as good
 * as none.
 */
import { PgTypes } from "@effect/sql-pg"
import type { Column } from "../catalog/model.ts"
import type { Without } from "./rules.ts"

/** Columns of one kind take each other's values. An enum is a kind of its own. */
export type Kind = string

/** The kind of a column, if its values can name a row. */
export const kindOf = (column: Column, without: Without): Kind | undefined => {
  if (!column.deterministic && !without.has("kind")) return undefined
  if (column.typeKind === "enum") return `enum ${column.type}`
  if (column.typeKind !== "base") return undefined
  return kinds.get(column.type) ?? (without.has("kind") ? "text" : undefined)
}

const kinds: ReadonlyMap<string, Kind> = new Map([
  ["int2", "integer"],
  ["int4", "integer"],
  ["int8", "integer"],
  ["bool", "boolean"],
  ["uuid", "uuid"],
  ["text", "text"],
  ["varchar", "text"],
  ["date", "date"]
])

/** The kind that a cast to a type of `pg_catalog` leads to. */
export const kindOfType = (type: string): Kind | undefined => kinds.get(type)

/** A value that takes more than this is not worth naming a row by. */
const maxLength = 200

/** The text of a value of this kind, or `null`, or `undefined` where it has none. */
export const canonical = (kind: Kind, value: unknown, without: Without): string | null | undefined => {
  if (value === null || value === undefined) return null
  switch (typeof value) {
    case "number":
      return kind === "integer" && Number.isSafeInteger(value) ? String(value) : undefined
    case "bigint":
      return kind === "integer" ? String(value) : undefined
    case "boolean":
      return kind === "boolean" ? String(value) : undefined
    case "string":
      return value.length <= maxLength && (without.has("canonical") || isCanonical(kind, value)) ? value : undefined
    case "object":
      return PgTypes.isParameter(value) && kindOfOid.get(value.oid) === kind
        ? canonical(kind, value.value, without)
        : undefined
    default:
      return undefined
  }
}

/** The elements of an array of values of this kind. */
export const elements = (kind: Kind, value: unknown): ReadonlyArray<unknown> | undefined =>
  Array.isArray(value)
    ? value
    : PgTypes.isParameter(value) && Array.isArray(value.value) && kindOfArrayOid.get(value.oid) === kind
    ? value.value
    : undefined

const kindOfOid: ReadonlyMap<number, Kind> = new Map([
  [PgTypes.OID.int2, "integer"],
  [PgTypes.OID.int4, "integer"],
  [PgTypes.OID.int8, "integer"],
  [PgTypes.OID.bool, "boolean"],
  [PgTypes.OID.uuid, "uuid"],
  [PgTypes.OID.text, "text"],
  [PgTypes.OID.varchar, "text"],
  [PgTypes.OID.date, "date"]
])

const kindOfArrayOid: ReadonlyMap<number, Kind> = new Map([
  [PgTypes.OID.int2Array, "integer"],
  [PgTypes.OID.int4Array, "integer"],
  [PgTypes.OID.int8Array, "integer"],
  [PgTypes.OID.boolArray, "boolean"],
  [PgTypes.OID.uuidArray, "uuid"],
  [PgTypes.OID.textArray, "text"],
  [PgTypes.OID.varcharArray, "text"],
  [PgTypes.OID.dateArray, "date"]
])

const isCanonical = (kind: Kind, text: string): boolean => {
  switch (kind) {
    case "integer":
      return /^(?:0|-?[1-9]\d{0,18})$/.test(text)
    case "boolean":
      return text === "true" || text === "false"
    case "uuid":
      return /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/.test(text)
    case "date":
      return /^(?!0000)\d{4}-\d\d-\d\d$/.test(text)
    // A lone surrogate reaches the server as another sign.
    default:
      return !/[\0\p{Surrogate}]/u.test(text)
  }
}

/** Whether a text is stored in the column as it is. */
export const isStored = (column: Column, value: string | null, without: Without): boolean =>
  value === null || column.type !== "varchar" || without.has("modifier") ||
  // The length of a domain is not the column's.
  (!column.isDomain && (column.modifier < 0 || [...value].length <= column.modifier - 4))
