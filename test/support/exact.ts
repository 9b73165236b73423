/**
 * What "equal by value and by type" means here, written down once and without
 * the help of any library: prototypes, property order and flags, -0, NaN,
 * invalid dates, bytes.
 */

/** Where two values differ and how; `undefined` where they do not. */
export const difference = (actual: unknown, expected: unknown, path = "$"): string | undefined => {
  if (typeof actual !== typeof expected) return `${path}: ${typeof actual} for ${typeof expected}`
  if (typeof expected !== "object" || expected === null || actual === null) {
    return Object.is(actual, expected) ? undefined : `${path}: ${show(actual)} for ${show(expected)}`
  }
  const self = actual as object
  if (Object.getPrototypeOf(self) !== Object.getPrototypeOf(expected)) return `${path}: another prototype`
  if (expected instanceof Date && !Object.is((self as Date).getTime(), expected.getTime())) {
    return `${path}: ${(self as Date).getTime()} for ${expected.getTime()}`
  }
  if (ArrayBuffer.isView(expected)) {
    const [left, right] = [bytesOf(self as Uint8Array), bytesOf(expected as Uint8Array)]
    return left.length === right.length && left.every((byte, i) => byte === right[i])
      ? undefined
      : `${path}: other bytes`
  }
  const keys = Reflect.ownKeys(expected)
  const own = Reflect.ownKeys(self)
  if (own.length !== keys.length || own.some((key, i) => key !== keys[i])) {
    return `${path}: keys ${own.map(String)} for ${keys.map(String)}`
  }
  for (const key of keys) {
    const left = Object.getOwnPropertyDescriptor(self, key)!
    const right = Object.getOwnPropertyDescriptor(expected, key)!
    const where = `${path}.${String(key)}`
    if (left.enumerable !== right.enumerable) return `${where}: another enumerability`
    if (left.get !== right.get || left.set !== right.set) return `${where}: another accessor`
    const nested = difference(left.value, right.value, where)
    if (nested !== undefined) return nested
  }
  return undefined
}

/** Throws where two values are not equal by value and by type. */
export const expectExact = (actual: unknown, expected: unknown): void => {
  const found = difference(actual, expected)
  if (found !== undefined) throw new Error(`Not exact: ${found}`)
}

/**
 * Changes everything in a value that can be changed: what a careless caller
 * might do to the rows it was given, and worse.
 */
export const vandalise = (value: any): void => {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return
  if (value instanceof Date) {
    value.setTime(1)
  } else if (ArrayBuffer.isView(value)) {
    bytesOf(value as Uint8Array).forEach((byte, i, bytes) => bytes[i] = byte ^ 255)
  } else {
    Object.values(value).forEach(vandalise)
    for (const key of Object.keys(value)) {
      Object.defineProperty(value, key, { value: "changed", writable: true, enumerable: true, configurable: true })
    }
    if (Array.isArray(value)) value.push("added")
    else value.added = true
  }
}

const bytesOf = (view: Uint8Array): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)

const show = (value: unknown): string =>
  Object.is(value, -0) ? "-0" : typeof value === "string" ? JSON.stringify(value) : String(value)
