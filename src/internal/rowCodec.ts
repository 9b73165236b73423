/**
 * The text of stored rows: columns instead of rows, the type once per column.
 *
 * The text is one JSON array, written and read by one native call:
 *
 *     [version, rows, keys, kinds, ...body]
 *
 * `keys` are the column names, the number of columns where rows are arrays, or
 * null where the rows have no columns in common and are the values of a single
 * column themselves. `kinds` has a letter per column, and says how to read that
 * column's share of `body`:
 *
 * | kind | values (null is allowed in all of them)       | body                                    |
 * | ---- | --------------------------------------------- | --------------------------------------- |
 * | `s`  | strings                                       | each                                    |
 * | `k`  | strings, few different ones                   | a digit per row, then each of the few   |
 * | `n`  | finite numbers, except -0                     | each                                    |
 * | `f`  | numbers                                       | each; the special ones as strings       |
 * | `b`  | booleans                                      | a digit per row: 0, 1, 2 for null       |
 * | `i`  | bigints up to 2^53                            | the first, then each less the first     |
 * | `I`  | bigints                                       | each, as decimal digits                 |
 * | `d`  | `Date`                                        | a time, then each less it; "x": invalid |
 * | `y`  | `Uint8Array`                                  | each, in base64                         |
 * | `t`  | objects with the same keys                    | keys, kinds, presence, then its columns |
 * | `a`  | arrays                                        | lengths, kind, then all elements        |
 * | `j`  | anything that JSON keeps exactly              | each                                    |
 * | `m`  | anything                                      | each, tagged                            |
 *
 * Every row takes at least one character of the text, so a text that was
 * damaged cannot ask for more memory than its length justifies.
 */
import type { Codec } from "../CacheStore.ts"
import {
  addressKind,
  addressKinds,
  Anything,
  Bytes,
  type Column,
  type Content,
  Dates,
  maxDepth,
  Scalars,
  setOwn,
  StoredRows,
  typedArrayClass,
  typedArrayName
} from "./rows.ts"

/** To be raised whenever the meaning of a text changes: processes of two releases share one Redis. */
const version = 1

/**
 * Stored rows as text.
 *
 * `encode` answers `undefined` for what is not a `StoredRows`, and where the
 * text would be longer than a string can be. `decode` throws on every text
 * whose structure is not one that `encode` writes.
 */
export const rowCodec: Codec = {
  encode: (value) => {
    if (!(value instanceof StoredRows)) return undefined
    const { columns, rows } = value
    const body: Array<unknown> = [version, rows.length, null, ""]
    if (columns === undefined) {
      body[3] = writeColumn(rows, body)
    } else {
      body[2] = typeof columns[0]!.key === "number" ? columns.length : columns.map((column) => column.key)
      let kinds = ""
      for (const { key } of columns) kinds += writeColumn(pluck(rows, key), body)
      body[3] = kinds
    }
    try {
      return JSON.stringify(body)
    } catch {
      return undefined
    }
  },
  decode: (text) => {
    const body = parseJson(text)
    if (!Array.isArray(body)) return invalid("not an array")
    const reader = new Reader(body, text.length)
    if (reader.next() !== version) return invalid("another version")
    const length = reader.count()
    const keys = reader.next()
    const kinds = reader.string()
    if (keys === null) {
      const rows = readColumn(reader, kinds, length, 0)
      return reader.end(new StoredRows(rows, undefined))
    }
    if (typeof keys === "number") {
      if (keys !== kinds.length || keys === 0) return invalid("columns")
      const values = readColumns(reader, kinds, length, 0)
      const rows = new Array(length)
      for (let i = 0; i < length; i++) {
        const row = new Array(keys)
        for (let c = 0; c < keys; c++) row[c] = values[c]![i]
        rows[i] = row
      }
      return reader.end(new StoredRows(rows, columnsOf(Array.from(values.keys()), kinds)))
    }
    const names = readKeys(keys, kinds)
    const rows = readObjects(reader, names, kinds, length, 0)
    return reader.end(new StoredRows(rows, columnsOf(names, kinds)))
  }
}

const columnsOf = (keys: ReadonlyArray<string | number>, kinds: string): ReadonlyArray<Column> =>
  keys.map((key, c) => ({ key, content: contentOf(kinds[c]!) }))

const contentOf = (kind: string): Content => {
  switch (kind) {
    case "d":
      return Dates
    case "y":
      return Bytes
    case "t":
    case "a":
    case "j":
    case "m":
      return Anything
    default:
      return Scalars
  }
}

type Values = ReadonlyArray<any>
type Body = Array<unknown>

const pluck = (rows: Values, key: string | number): Values => {
  const values = new Array(rows.length)
  for (let i = 0; i < rows.length; i++) values[i] = rows[i][key]
  return values
}

// -----------------------------------------------------------------------------
// writing
// -----------------------------------------------------------------------------

/** Appends a column to the body and returns its kind. */
const writeColumn = (values: Values, body: Body): string => {
  const start = body.length
  let first = 0
  while (first < values.length && values[first] === null) first++
  const kind = write(values, first < values.length ? values[first] : true, body)
  if (kind !== undefined) return kind
  body.length = start
  return writeAnything(values, body)
}

/** Writes the column as one of values like `sample`; `undefined` where it has others. */
const write = (values: Values, sample: any, body: Body): string | undefined => {
  switch (typeof sample) {
    case "string":
      return writeStrings(values, body)
    case "number":
      return writeNumbers(values, body)
    case "boolean":
      return writeBooleans(values, body)
    case "bigint":
      return writeBigInts(values, body)
    case "object":
      if (Array.isArray(sample)) return writeArrays(values, body)
      switch (Object.getPrototypeOf(sample)) {
        case Object.prototype:
          return writeObjects(values, Object.keys(sample), body)
        case Date.prototype:
          return writeDates(values, body)
        case Uint8Array.prototype:
          return writeBytes(values, body)
      }
  }
  return undefined
}

// Below this JSON objects and arrays as they are take less than what a column of them needs to say about itself.
const fewRows = 4

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

const writeStrings = (values: Values, body: Body): string | undefined => {
  const start = body.length
  const n = values.length
  for (let i = 0; i < n; i++) {
    const value = values[i]
    if (typeof value !== "string" && value !== null) return undefined
    body.push(value)
  }
  if (n < 8) return "s"
  const limit = Math.min(digits.length, n >> 2)
  const few = new Map<string | null, number>()
  let indices = ""
  for (let i = 0; i < n; i++) {
    const value = values[i]
    let index = few.get(value)
    if (index === undefined) {
      if (few.size === limit) return "s"
      few.set(value, index = few.size)
    }
    indices += digits[index]
  }
  body.length = start
  body.push(indices)
  for (const value of few.keys()) body.push(value)
  return "k"
}

const isJsonNumber = (value: number): boolean => value - value === 0 && (value !== 0 || 1 / value > 0)

const writeNumbers = (values: Values, body: Body): string | undefined => {
  let kind = "n"
  for (let i = 0; i < values.length; i++) {
    const value = values[i]
    if (typeof value === "number") {
      if (isJsonNumber(value)) {
        body.push(value)
      } else {
        body.push(specialText(value))
        kind = "f"
      }
    } else if (value === null) {
      body.push(null)
    } else {
      return undefined
    }
  }
  return kind
}

const specialText = (value: number): string => value === 0 ? "-0" : String(value)

const writeBooleans = (values: Values, body: Body): string | undefined => {
  let text = ""
  for (let i = 0; i < values.length; i++) {
    const value = values[i]
    if (value === true) text += "1"
    else if (value === false) text += "0"
    else if (value === null) text += "2"
    else return undefined
  }
  body.push(text)
  return "b"
}

const writeBigInts = (values: Values, body: Body): string | undefined => {
  const start = body.length
  let base: number | undefined
  let offsets = true
  for (let i = 0; i < values.length; i++) {
    const value = values[i]
    if (value === null) continue
    if (typeof value !== "bigint") return undefined
    const number = Number(value)
    base ??= number
    if (!Number.isSafeInteger(number) || !Number.isSafeInteger(number - base)) offsets = false
  }
  if (offsets) body.push(base)
  for (let i = 0; i < values.length; i++) {
    const value = values[i]
    body.push(value === null ? null : offsets ? Number(value) - base! : String(value))
  }
  return body.length > start + values.length ? "i" : "I"
}

const writeDates = (values: Values, body: Body): string | undefined => {
  let base: number | undefined
  for (let i = 0; i < values.length; i++) {
    const value = values[i]
    if (value === null) continue
    if (!(value instanceof Date)) return undefined
    const time = value.getTime()
    if (time !== time) continue
    base ??= time
    // Times reach 8.64e15: the difference of two may be one that no number holds.
    if (!Number.isSafeInteger(time - base)) {
      base = 0
      break
    }
  }
  base ??= 0
  body.push(base)
  for (let i = 0; i < values.length; i++) {
    const value = values[i]
    if (value === null) {
      body.push(null)
    } else {
      if (!(value instanceof Date)) return undefined
      const time = value.getTime()
      body.push(time === time ? time - base : "x")
    }
  }
  return "d"
}

const writeBytes = (values: Values, body: Body): string | undefined => {
  for (let i = 0; i < values.length; i++) {
    const value = values[i]
    if (value === null) body.push(null)
    else if (typeof value === "object" && Object.getPrototypeOf(value) === Uint8Array.prototype) {
      body.push(toBase64(value))
    } else return undefined
  }
  return "y"
}

const writeObjects = (values: Values, keys: ReadonlyArray<string>, body: Body): string | undefined => {
  const n = values.length
  const json = n < fewRows ? writeJson(values, body) : undefined
  if (json !== undefined || keys.length === 0) return json
  let nulls = 0
  for (let i = 0; i < n; i++) {
    const value = values[i]
    if (value === null) {
      nulls++
      continue
    }
    if (typeof value !== "object" || Object.getPrototypeOf(value) !== Object.prototype) return undefined
    let c = 0
    for (const key in value) if (keys[c++] !== key) return undefined
    if (c !== keys.length) return undefined
  }
  const present = nulls === 0 ? values : values.filter((value) => value !== null)
  const presence = nulls === 0 ? 0 : values.map((value) => value === null ? "0" : "1").join("")
  const at = body.length
  body.push(keys, "", presence)
  let kinds = ""
  for (const key of keys) kinds += writeColumn(pluck(present, key), body)
  body[at + 1] = kinds
  return "t"
}

const writeArrays = (values: Values, body: Body): string | undefined => {
  const json = values.length < fewRows ? writeJson(values, body) : undefined
  if (json !== undefined) return json
  const lengths: Array<number | null> = []
  const elements: Array<unknown> = []
  for (let i = 0; i < values.length; i++) {
    const value = values[i]
    if (value === null) {
      lengths.push(null)
    } else {
      if (!Array.isArray(value)) return undefined
      lengths.push(value.length)
      for (let j = 0; j < value.length; j++) elements.push(value[j])
    }
  }
  const at = body.length
  body.push(lengths, "")
  body[at + 1] = writeColumn(elements, body)
  return "a"
}

const writeAnything = (values: Values, body: Body): string => {
  const json = writeJson(values, body)
  if (json !== undefined) return json
  for (let i = 0; i < values.length; i++) body.push(tag(values[i]))
  return "m"
}

const writeJson = (values: Values, body: Body): string | undefined => {
  const start = body.length
  for (let i = 0; i < values.length; i++) {
    if (!isJson(values[i])) {
      body.length = start
      return undefined
    }
    body.push(values[i])
  }
  return "j"
}

/** Whether JSON keeps a value exactly. */
const isJson = (value: any): boolean => {
  switch (typeof value) {
    case "string":
    case "boolean":
      return true
    case "number":
      return isJsonNumber(value)
    case "object": {
      if (value === null) return true
      if (Array.isArray(value)) {
        for (let i = 0; i < value.length; i++) if (!isJson(value[i])) return false
        return true
      }
      if (Object.getPrototypeOf(value) !== Object.prototype) return false
      for (const key in value) if (!isJson(value[key])) return false
      return true
    }
    default:
      return false
  }
}

/**
 * A value by itself. What JSON has besides arrays and objects stands for itself;
 * everything else is an array that begins with a letter.
 */
const tag = (value: any): unknown => {
  switch (typeof value) {
    case "string":
    case "boolean":
      return value
    case "number":
      return isJsonNumber(value) ? value : ["f", specialText(value)]
    case "bigint":
      return ["I", String(value)]
    case "undefined":
      return ["u"]
  }
  if (value === null) return null
  if (isJson(value)) return ["j", value]
  if (Array.isArray(value)) return ["a", ...value.map(tag)]
  if (Object.getPrototypeOf(value) === Object.prototype) {
    const out: Array<unknown> = ["o"]
    for (const [key, property] of Object.entries(value)) out.push(key, tag(property))
    return out
  }
  if (value instanceof Date) return ["d", Number.isNaN(value.getTime()) ? null : value.getTime()]
  const name = typedArrayName(value)
  if (name !== undefined) return ["y", name, toBase64(new Uint8Array(value.buffer, value.byteOffset, value.byteLength))]
  const kind = addressKind(value)!
  return [kind, addressKinds[kind].format(value)]
}

// -----------------------------------------------------------------------------
// reading
// -----------------------------------------------------------------------------

const invalid = (what: string): never => {
  throw new SyntaxError(`Not a text of stored rows: ${what}`)
}

// The engine's own errors quote the text, and rows must not reach a log.
const parseJson = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return invalid("no JSON")
  }
}

const parseAddress = (kind: keyof typeof addressKinds, text: unknown): object => {
  if (typeof text !== "string") return invalid("no address")
  try {
    return addressKinds[kind].parse(text)
  } catch {
    return invalid("no address")
  }
}

class Reader {
  private at = 0
  private readonly body: ReadonlyArray<unknown>
  private readonly limit: number

  constructor(body: ReadonlyArray<unknown>, limit: number) {
    this.body = body
    this.limit = limit
  }
  next(): unknown {
    if (this.at >= this.body.length) return invalid("too short")
    return this.body[this.at++]
  }
  /** Where the next so many are. */
  skip(count: number): number {
    const at = this.at
    if (count > this.body.length - at) return invalid("too short")
    this.at = at + count
    return at
  }
  get values(): ReadonlyArray<any> {
    return this.body
  }
  string(): string {
    const value = this.next()
    return typeof value === "string" ? value : invalid("no string")
  }
  /** A number of values that the text can have. */
  count(value = this.next()): number {
    return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= this.limit
      ? value
      : invalid("no count")
  }
  end<A>(value: A): A {
    return this.at === this.body.length ? value : invalid("too long")
  }
}

const readKeys = (keys: unknown, kinds: string): ReadonlyArray<string> =>
  Array.isArray(keys) && keys.length > 0 && keys.length === kinds.length &&
    keys.every((key) => typeof key === "string") && new Set(keys).size === keys.length
    ? keys
    : invalid("columns")

const readColumns = (reader: Reader, kinds: string, n: number, depth: number): Array<Values> => {
  const columns = new Array<Values>(kinds.length)
  for (let c = 0; c < kinds.length; c++) columns[c] = readColumn(reader, kinds[c]!, n, depth)
  return columns
}

const readObjects = (
  reader: Reader,
  keys: ReadonlyArray<string>,
  kinds: string,
  n: number,
  depth: number
): Array<any> => {
  const columns = readColumns(reader, kinds, n, depth)
  const set = keys.includes("__proto__") ? setOwn : undefined
  const rows = new Array(n)
  for (let i = 0; i < n; i++) {
    const row: any = {}
    if (set === undefined) { for (let c = 0; c < keys.length; c++) row[keys[c]!] = columns[c]![i] }
    else for (let c = 0; c < keys.length; c++) set(row, keys[c]!, columns[c]![i])
    rows[i] = row
  }
  return rows
}

const readColumn = (reader: Reader, kind: string, n: number, depth: number): Array<any> => {
  if (depth > maxDepth) return invalid("too deep")
  const out = new Array(n)
  const values = reader.values
  switch (kind) {
    case "s": {
      const at = reader.skip(n)
      for (let i = 0; i < n; i++) {
        const value = values[at + i]
        out[i] = typeof value === "string" || value === null ? value : invalid("no string")
      }
      return out
    }
    case "k": {
      const indices = reader.string()
      if (indices.length !== n) return invalid("indices")
      let max = -1
      for (let i = 0; i < n; i++) {
        const index = indexOf(indices.charCodeAt(i))
        out[i] = index
        if (index > max) max = index
      }
      const at = reader.skip(max + 1)
      for (let i = 0; i <= max; i++) {
        const value = values[at + i]
        if (typeof value !== "string" && value !== null) return invalid("no string")
      }
      for (let i = 0; i < n; i++) out[i] = values[at + out[i]]
      return out
    }
    case "n": {
      const at = reader.skip(n)
      for (let i = 0; i < n; i++) {
        const value = values[at + i]
        out[i] = typeof value === "number" || value === null ? value : invalid("no number")
      }
      return out
    }
    case "f": {
      const at = reader.skip(n)
      for (let i = 0; i < n; i++) {
        const value = values[at + i]
        out[i] = typeof value === "number" || value === null ? value : special(value)
      }
      return out
    }
    case "b": {
      const text = reader.string()
      if (text.length !== n) return invalid("booleans")
      for (let i = 0; i < n; i++) {
        const digit = text.charCodeAt(i)
        out[i] = digit === 49 ? true : digit === 48 ? false : digit === 50 ? null : invalid("no boolean")
      }
      return out
    }
    case "i": {
      const base = reader.next()
      if (!isSafeInteger(base)) return invalid("no integer")
      const at = reader.skip(n)
      for (let i = 0; i < n; i++) {
        const value = values[at + i]
        if (value === null) out[i] = null
        else if (isSafeInteger(value) && Number.isSafeInteger(base + value)) out[i] = BigInt(base + value)
        else return invalid("no integer")
      }
      return out
    }
    case "I": {
      const at = reader.skip(n)
      for (let i = 0; i < n; i++) out[i] = values[at + i] === null ? null : bigInt(values[at + i])
      return out
    }
    case "d": {
      const base = reader.next()
      if (!isSafeInteger(base)) return invalid("no time")
      const at = reader.skip(n)
      for (let i = 0; i < n; i++) {
        const value = values[at + i]
        out[i] = value === null ? null : value === "x" ? new Date(NaN) : date(isSafeInteger(value) ? base + value : NaN)
      }
      return out
    }
    case "y": {
      const at = reader.skip(n)
      for (let i = 0; i < n; i++) out[i] = values[at + i] === null ? null : fromBase64(values[at + i])
      return out
    }
    case "t": {
      const keys = reader.next()
      const kinds = reader.string()
      const names = readKeys(keys, kinds)
      const presence = reader.next()
      if (presence === 0) return readObjects(reader, names, kinds, n, depth + 1)
      if (typeof presence !== "string" || presence.length !== n) return invalid("presence")
      let count = 0
      for (let i = 0; i < n; i++) {
        if (presence[i] === "1") count++
        else if (presence[i] !== "0") return invalid("presence")
      }
      const objects = readObjects(reader, names, kinds, count, depth + 1)
      for (let i = 0, o = 0; i < n; i++) out[i] = presence[i] === "1" ? objects[o++] : null
      return out
    }
    case "a": {
      const lengths = reader.next()
      const elementKind = reader.string()
      if (!Array.isArray(lengths) || lengths.length !== n) return invalid("lengths")
      let total = 0
      for (let i = 0; i < n; i++) if (lengths[i] !== null) total += reader.count(lengths[i])
      const elements = readColumn(reader, elementKind, reader.count(total), depth + 1)
      for (let i = 0, e = 0; i < n; i++) out[i] = lengths[i] === null ? null : elements.slice(e, e += lengths[i])
      return out
    }
    case "j": {
      const at = reader.skip(n)
      for (let i = 0; i < n; i++) {
        requireShallow(values[at + i], depth)
        out[i] = values[at + i]
      }
      return out
    }
    case "m": {
      const at = reader.skip(n)
      for (let i = 0; i < n; i++) out[i] = untag(values[at + i], depth)
      return out
    }
    default:
      return invalid("an unknown kind")
  }
}

const indexOf = (code: number): number => {
  const index = code <= 57 ? code - 48 : code <= 90 ? code - 55 : code - 61
  return digits.charCodeAt(index) === code ? index : invalid("an unknown digit")
}

const isSafeInteger = (value: unknown): value is number => Number.isSafeInteger(value)

const special = (value: unknown): number => {
  switch (value) {
    case "NaN":
      return NaN
    case "Infinity":
      return Infinity
    case "-Infinity":
      return -Infinity
    case "-0":
      return -0
    default:
      return invalid("no number")
  }
}

const bigInt = (value: unknown): bigint =>
  typeof value === "string" && /^-?\d+$/.test(value) ? BigInt(value) : invalid("no integer")

const date = (time: number): Date => {
  const date = new Date(time)
  return date.getTime() === time ? date : invalid("no time")
}

/** Deeper values could be read here, but not copied at a hit. */
const requireShallow = (value: any, depth: number): void => {
  if (typeof value !== "object" || value === null) return
  if (depth > maxDepth) return invalid("too deep")
  if (Array.isArray(value)) { for (let i = 0; i < value.length; i++) requireShallow(value[i], depth + 1) }
  else for (const key in value) requireShallow(value[key], depth + 1)
}

const untag = (value: any, depth: number): any => {
  if (typeof value !== "object" || value === null) return value
  if (depth > maxDepth) return invalid("too deep")
  if (!Array.isArray(value) || value.length === 0) return invalid("an unknown tag")
  const [kind, first] = value
  switch (kind) {
    case "f":
      return special(first)
    case "I":
      return bigInt(first)
    case "u":
      return undefined
    case "j":
      requireShallow(first, depth)
      return first === undefined ? invalid("no value") : first
    case "a":
      return value.slice(1).map((element: unknown) => untag(element, depth + 1))
    case "o": {
      const out = {}
      if (value.length % 2 === 0) return invalid("a key without a value")
      for (let i = 1; i < value.length; i += 2) {
        if (typeof value[i] !== "string") return invalid("no key")
        setOwn(out, value[i], untag(value[i + 1], depth + 1))
      }
      return out
    }
    case "d":
      return first === null ? new Date(NaN) : date(first)
    case "y": {
      const bytes = fromBase64(value[2])
      const TypedArray = typedArrayClass(first)
      return TypedArray === undefined ? invalid("an unknown tag") : new TypedArray(bytes.buffer)
    }
    case "address":
    case "interface":
    case "network":
      return parseAddress(kind, first)
    default:
      return invalid("an unknown tag")
  }
}

// -----------------------------------------------------------------------------
// base64
// -----------------------------------------------------------------------------

interface BufferLike {
  readonly from: {
    (text: string, encoding: "base64"): Uint8Array
    (buffer: ArrayBufferLike, offset: number, length: number): { readonly toString: (encoding: "base64") => string }
  }
}

const { Buffer: NodeBuffer, btoa } = globalThis as unknown as {
  readonly Buffer: BufferLike | undefined
  readonly btoa: (binary: string) => string
}

const toBase64 = (bytes: Uint8Array): string => {
  if (NodeBuffer !== undefined) {
    return NodeBuffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64")
  }
  let binary = ""
  // In pieces: a call takes only so many arguments.
  for (let i = 0; i < bytes.length; i += 4096) binary += String.fromCharCode(...bytes.subarray(i, i + 4096))
  return btoa(binary)
}

const base64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
const noDigit = 64
const base64Values = new Uint8Array(128).fill(noDigit)
for (let i = 0; i < base64.length; i++) base64Values[base64.charCodeAt(i)] = i

const fromBase64 = (text: unknown): Uint8Array<ArrayBuffer> => {
  if (typeof text !== "string" || text.length % 4 !== 0) return invalid("no base64")
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0
  const bytes = new Uint8Array(text.length / 4 * 3 - padding)
  // Short texts are decoded sooner than Buffer is called.
  if (NodeBuffer !== undefined && text.length > 64) {
    const buffer = NodeBuffer.from(text, "base64")
    if (buffer.length !== bytes.length) return invalid("no base64")
    bytes.set(buffer)
    return bytes
  }
  const length = text.length - padding
  let bits = 0
  let count = 0
  for (let i = 0, o = 0; i < length; i++) {
    const code = text.charCodeAt(i)
    const value = code < 128 ? base64Values[code]! : noDigit
    if (value === noDigit) return invalid("no base64")
    bits = (bits << 6) | value
    count += 6
    if (count >= 8) {
      count -= 8
      bytes[o++] = bits >> count
    }
  }
  return bytes
}
