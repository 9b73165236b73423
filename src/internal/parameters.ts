/**
 * Parameters as text: tagged by type and prefix-free, so that `1`, `"1"`, `1n`,
 * `null`, `undefined`, a Date and bytes never collide, nor do two lists.
 *
 * What has no canonical text is refused (`undefined`), not guessed: such a
 * statement goes to the database.
 */
import { PgTypes } from "@effect/sql-pg"

/** The canonical text of a list of parameters. */
export const canonical = (parameters: ReadonlyArray<unknown>): string | undefined => encodeAll(parameters, 0)

const encodeAll = (values: ReadonlyArray<unknown>, depth: number): string | undefined => {
  // A sum of many texts stays a tree of its parts as long as nobody reads it, many times the size of the text, and an
  // entry keeps its key.
  if (values.length > maxSummands) {
    const texts = new Array<string>(values.length)
    for (let i = 0; i < values.length; i++) {
      const one = encode(values[i], depth)
      if (one === undefined) return undefined
      texts[i] = one
    }
    return texts.join("")
  }
  let text = ""
  for (let i = 0; i < values.length; i++) {
    const one = encode(values[i], depth)
    if (one === undefined) return undefined
    text += one
  }
  return text
}

const maxSummands = 16

/**
 * The key of a list of parameters within a form: a Map key, equal exactly where
 * the canonical texts are. One number, bigint or string stands for itself, which
 * spares the hot path a concatenation.
 */
export const localKey = (parameters: ReadonlyArray<unknown>): string | number | bigint | undefined => {
  if (parameters.length === 1) {
    const one = parameters[0]
    switch (typeof one) {
      case "string":
        if (one.charCodeAt(0) !== 0) return one
        break
      case "number":
        // A Map does not tell 0 from -0.
        if (one !== 0) return one
        break
      case "bigint":
        return one
    }
  }
  const text = canonical(parameters)
  return text === undefined ? undefined : "\0" + text
}

/** The canonical text of the parameters that a local key stands for. */
export const canonicalOf = (local: string | number | bigint): string =>
  typeof local === "string" && local.charCodeAt(0) === 0 ? local.slice(1) : encode(local, 0)!

/** Whether a template argument can only become one parameter. */
export const isScalar = (value: unknown): boolean => {
  switch (typeof value) {
    case "string":
    case "number":
    case "boolean":
    case "bigint":
    case "undefined":
      return true
    case "object":
      return value === null || value instanceof Date || value instanceof Uint8Array
    default:
      return false
  }
}

const maxDepth = 32

const encode = (value: unknown, depth: number): string | undefined => {
  switch (typeof value) {
    case "string":
      return `s${value.length}:${value}`
    case "number":
      return Object.is(value, -0) ? "n-0;" : `n${value};`
    case "bigint":
      return `g${value};`
    case "boolean":
      return value ? "T" : "F"
    case "undefined":
      return "u"
    case "object":
      return value === null ? "0" : encodeObject(value, depth + 1)
    default:
      return undefined
  }
}

const encodeObject = (value: object, depth: number): string | undefined => {
  if (depth > maxDepth) return undefined
  if (value instanceof Date) return `d${value.getTime()};`
  if (value instanceof Uint8Array) return `x${value.length}:${latin1(value)}`
  if (value instanceof Int8Array) {
    return `i${value.length}:${latin1(new Uint8Array(value.buffer, value.byteOffset, value.length))}`
  }
  if (Array.isArray(value)) {
    const elements = encodeAll(value, depth)
    return elements === undefined ? undefined : `a${value.length}:${elements}`
  }
  if (PgTypes.isParameter(value)) {
    const inner = value.oid === PgTypes.OID.json || value.oid === PgTypes.OID.jsonb
      ? json(value.value)
      : encode(value.value, depth)
    return inner === undefined ? undefined : `p${value.oid}:${inner}`
  }
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return undefined
  // Intervals, and whatever else a typed parameter takes as a plain object.
  const names = Object.keys(value).sort()
  let text = `o${names.length}:`
  for (const name of names) {
    const field = encode((value as any)[name], depth)
    if (field === undefined) return undefined
    text += encode(name, depth)! + field
  }
  return text
}

// What is sent for a json value is its JSON text, so that is its identity.
const json = (value: unknown): string | undefined => {
  try {
    const text = JSON.stringify(value)
    return text === undefined ? undefined : `j${text.length}:${text}`
  } catch {
    return undefined
  }
}

const latin1 = (bytes: Uint8Array): string => {
  const parts: Array<string> = []
  for (let i = 0; i < bytes.length; i += 4096) {
    parts.push(String.fromCharCode.apply(undefined, bytes.subarray(i, i + 4096) as any))
  }
  return parts.join("")
}
