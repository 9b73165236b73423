/**
 * The value of a view as text: a line that says whose it is and what it depends on,
 * and the value, by its schema or, without one, as rows are.
 */
import type { Codec } from "../CacheStore.ts"
import type { Parts } from "./consulted.ts"
import { rowCodec } from "./rowCodec.ts"
import { freeze, StoredRows } from "./rows.ts"
import { digest, jsonCodec, type Pure } from "./schemas.ts"

/** A value as the store has it. */
export interface Snapshot {
  /** Differs for each time that it was read. */
  readonly id: string
  readonly value: unknown
  readonly parts: Parts
}

interface ValueCodec {
  /** `undefined` where the value cannot be represented exactly. */
  readonly encode: (value: any) => string | undefined
  readonly decode: (text: string) => unknown
  readonly version: string
}

/** `version` differs for schemas that write or read differently, as far as a schema tells. */
export const viewCodec = (Value: Pure<any> | undefined): { readonly codec: Codec; readonly version: string } => {
  const value = Value === undefined ? rows : bySchema(Value)
  return {
    version: value.version,
    codec: {
      encode: (stored) => {
        const snapshot = stored as Snapshot
        const text = value.encode(snapshot.value)
        return text === undefined ? undefined : `${JSON.stringify([snapshot.id, snapshot.parts])}\n${text}`
      },
      decode: (text): Snapshot => {
        const end = text.indexOf("\n")
        const head: unknown = JSON.parse(text.slice(0, end))
        if (!Array.isArray(head) || typeof head[0] !== "string" || !isParts(head[1])) throw new TypeError("no view")
        return { id: head[0], parts: head[1], value: value.decode(text.slice(end + 1)) }
      }
    }
  }
}

const bySchema = (schema: Pure<any>): ValueCodec => {
  const json = jsonCodec(schema)
  return {
    encode: (value) => {
      const exit = json.encode(value)
      return exit._tag === "Success" ? JSON.stringify(exit.value) : undefined
    },
    decode: (text) => freeze(json.decode(JSON.parse(text))),
    version: digest(json.representation)
  }
}

/** What is no list of rows passes as the only column of the only one. */
const rows: ValueCodec = {
  encode: (value) => {
    const isList = Array.isArray(value) && value.every((row) => typeof row === "object" && row !== null)
    const stored = StoredRows.make(isList ? value : [{ value }])
    const text = stored === undefined ? undefined : rowCodec.encode(stored)
    return text === undefined ? undefined : `${isList ? "l" : "v"}${text}`
  },
  decode: (text) => {
    const list = (rowCodec.decode(text.slice(1)) as StoredRows).frozen()
    return text.startsWith("l") ? list : list[0].value
  },
  version: "rows"
}

const isParts = (u: any): u is Parts =>
  [u?.stamps, u?.tables, u?.shapes].every((list) => Array.isArray(list)) && typeof u.isUnknown === "boolean"
