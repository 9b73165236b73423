/**
 * Rows as the cache keeps them, and the copies that callers get.
 *
 * What a hit returns equals, by value and by type, what the miss returned, and
 * it belongs to the caller: writing into it, into a `Date` or an array in it,
 * changes nobody else's answer. So rows are copied twice: once when they are
 * taken in, checked on the way, and again at every hit, trusted and therefore
 * fast. Only columns that hold something mutable cost more than a shallow copy
 * of the row.
 *
 * Taken in are `null`, `undefined`, booleans, numbers, strings, bigints, `Date`,
 * typed arrays, the addresses of `effect/net`, and plain arrays and objects of
 * them: what `@effect/sql-pg` decodes, and then some. Everything else (other
 * classes, accessors, symbols, functions, cycles, holes, hidden properties) is
 * refused, because a copy would differ. Not looked for are extra properties on
 * typed arrays, whether an object is frozen, and whether one object occurs
 * twice (it becomes two).
 */
import * as IpInterface from "effect/net/IpInterface"
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"

/**
 * How deep values may nest, the row itself not counted. Without a limit a deep
 * json document would exhaust the stack at every hit.
 */
export const maxDepth = 256

/** What copying a column takes. */
export type Content = typeof Scalars | typeof Dates | typeof Bytes | typeof Anything

/** Nothing in the column can be changed: values are shared. */
export const Scalars = 0
/** What can be changed is a `Date`. */
export const Dates = 1
/** What can be changed is a `Uint8Array`. */
export const Bytes = 2
/** Anything, nested json for example. */
export const Anything = 3

/** A column that every row has. `key` is a position where rows are arrays. */
export interface Column {
  readonly key: string | number
  readonly content: Content
}

/**
 * Rows as the cache keeps them: private to it, never handed out themselves.
 */
export class StoredRows {
  /**
   * Takes a deep copy; `undefined` where something in the rows cannot be copied
   * exactly. Rows are objects or, from `.values`, arrays. Rows that differ in
   * their columns are taken too, they are only slower to copy.
   */
  static make(rows: ReadonlyArray<unknown>): StoredRows | undefined {
    try {
      requireElements(rows)
      return takeColumns(rows) ?? new StoredRows(takeArray(rows, 0), undefined)
    } catch {
      // Refused here, or by something foreign in the rows: a proxy, say.
      return undefined
    }
  }

  /** For the codec. Owned by this object, and never to be handed out. */
  readonly rows: ReadonlyArray<any>
  /** The columns that all rows have, in order; `undefined` where the rows differ or have none. */
  readonly columns: ReadonlyArray<Column> | undefined

  readonly #mutable: ReadonlyArray<Column>
  readonly #copyRow: (row: any) => any
  #frozen: ReadonlyArray<any> | undefined
  #bytes: number | undefined

  /** Takes ownership of rows that nobody else refers to, and trusts that `columns` describes them. */
  constructor(rows: ReadonlyArray<any>, columns: ReadonlyArray<Column> | undefined) {
    this.rows = rows
    this.columns = columns
    this.#mutable = columns === undefined ? [] : columns.filter((column) => column.content !== Scalars)
    this.#copyRow = columns === undefined
      ? copyValue
      : typeof columns[0]!.key === "number"
      ? copyElements
      : columns.some((column) => column.key === "__proto__")
      ? copyPropertiesSafely
      : copyProperties
  }

  /** How many rows there are. */
  get length(): number {
    return this.rows.length
  }

  /**
   * About how many bytes of memory the rows take, on a 64-bit engine. Strings
   * count two bytes per character, which is what they take at most.
   */
  get bytes(): number {
    return this.#bytes ??= sizeOf(this.rows)
  }

  /**
   * Fresh rows that are the caller's own. Only what cannot be changed is shared.
   */
  copy(): Array<any> {
    const rows = this.rows
    const copyRow = this.#copyRow
    const out = new Array(rows.length)
    for (let i = 0; i < rows.length; i++) out[i] = copyRow(rows[i])
    for (const { content, key } of this.#mutable) {
      for (let i = 0; i < rows.length; i++) {
        const value = rows[i][key]
        if (typeof value !== "object" || value === null) continue
        setOwn(
          out[i],
          key,
          content === Dates ? new Date(value) : content === Bytes ? new Uint8Array(value) : copyValue(value)
        )
      }
    }
    return out
  }

  /**
   * Deeply frozen rows, the same objects at every call. JavaScript cannot freeze
   * what a `Date` or a typed array holds, so these must not be written to:
   * whoever does changes them for all who asked for frozen rows. `copy` is not
   * affected: frozen rows are a copy too, made at the first call and kept, and
   * not counted in `bytes`.
   */
  frozen(): ReadonlyArray<any> {
    return this.#frozen ??= freeze(this.copy())
  }
}

// -----------------------------------------------------------------------------
// taking in
// -----------------------------------------------------------------------------

const refuse = (what: string): never => {
  throw new TypeError(`Rows cannot be copied exactly: ${what}`)
}

/** Rows that all have the columns of the first one; `undefined` where they do not. */
const takeColumns = (rows: ReadonlyArray<unknown>): StoredRows | undefined => {
  const first = rows[0]
  const positional = isPlainArray(first)
  const keys: ReadonlyArray<any> = positional
    ? Array.from(first.keys())
    : isPlainObject(first)
    ? Object.getOwnPropertyNames(first)
    : []
  if (keys.length === 0) return undefined
  const contents: Array<Content> = keys.map(() => Scalars)
  const out = new Array<any>(rows.length)
  const safely = keys.includes("__proto__")
  for (let i = 0; i < rows.length; i++) {
    const row: any = rows[i]
    if (positional) {
      if (!isPlainArray(row) || row.length !== keys.length) return undefined
      requireElements(row)
      out[i] = row.slice()
    } else {
      if (!isPlainObject(row) || !hasKeys(row, keys)) return undefined
      requireProperties(row, keys)
      out[i] = safely ? copyPropertiesSafely(row) : copyProperties(row)
    }
    for (let c = 0; c < keys.length; c++) {
      const key = keys[c]
      const value: unknown = out[i][key]
      switch (typeof value) {
        case "string":
        case "number":
        case "boolean":
        case "bigint":
        case "undefined":
          break
        default: {
          const taken = take(value, 0)
          if (taken === value) break
          setOwn(out[i], key, taken)
          contents[c] = join(contents[c]!, taken instanceof Date ? Dates : isBytes(taken) ? Bytes : Anything)
        }
      }
    }
  }
  return new StoredRows(out, keys.map((key, c) => ({ key, content: contents[c]! })))
}

const join = (self: Content, that: Content): Content => self === Scalars || self === that ? that : Anything

/** Copies what was checked; returns the value itself where nobody can change it. */
const take = (value: unknown, depth: number): unknown => {
  switch (typeof value) {
    case "string":
    case "number":
    case "boolean":
    case "bigint":
    case "undefined":
      return value
    case "object":
      return value === null ? null : takeObject(value, depth)
    default:
      return refuse(`a ${typeof value}`)
  }
}

const takeObject = (value: object, depth: number): unknown => {
  // This is also where a cycle ends.
  if (depth >= maxDepth) refuse("too deep")
  switch (Object.getPrototypeOf(value)) {
    case Object.prototype:
      return takeProperties(value, depth)
    case Array.prototype:
      return takeArray(value as ReadonlyArray<unknown>, depth)
    case Date.prototype:
      if (Reflect.ownKeys(value).length > 0) refuse("a Date with properties")
      return new Date((value as Date).getTime())
    case Uint8Array.prototype:
      return new Uint8Array(value as Uint8Array)
  }
  if (typedArrayName(value) !== undefined) return (value as Uint8Array).slice()
  if (addressKind(value) !== undefined) return value
  return refuse("an object of a class")
}

const takeArray = (value: ReadonlyArray<unknown>, depth: number): Array<unknown> => {
  requireElements(value)
  const out = value.slice()
  for (let i = 0; i < out.length; i++) out[i] = take(out[i], depth + 1)
  return out
}

const takeProperties = (value: object, depth: number): object => {
  const keys = Object.getOwnPropertyNames(value)
  requireProperties(value, keys)
  const out = copyObject(value)
  for (const key of keys) {
    const property = out[key]
    const taken = take(property, depth + 1)
    if (taken !== property) setOwn(out, key, taken)
  }
  return out
}

const isPlainArray = (value: unknown): value is ReadonlyArray<unknown> =>
  Array.isArray(value) && Object.getPrototypeOf(value) === Array.prototype

const isPlainObject = (value: unknown): value is object =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype

const isBytes = (value: unknown): value is Uint8Array =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Uint8Array.prototype

const hasKeys = (row: object, keys: ReadonlyArray<string>): boolean => {
  const own = Object.getOwnPropertyNames(row)
  if (own.length !== keys.length) return false
  for (let i = 0; i < own.length; i++) if (own[i] !== keys[i]) return false
  return true
}

/** Refuses holes and properties that are no elements, such as those of a RegExp match. */
const requireElements = (value: ReadonlyArray<unknown>): void => {
  if (!isPlainArray(value)) refuse("no plain array")
  if (Object.keys(value).length !== value.length) refuse("an array with holes or properties")
  for (let i = 0; i < value.length; i++) {
    if (value[i] === undefined && !Object.hasOwn(value, i)) refuse("an array with holes and properties")
  }
}

/** Refuses all but plain data, given the names of all properties. */
const requireProperties = (value: object, names: ReadonlyArray<string>): void => {
  if (Object.getOwnPropertySymbols(value).length > 0) refuse("a symbol")
  for (let i = 0; i < names.length; i++) {
    const property = Object.getOwnPropertyDescriptor(value, names[i]!)!
    if (!property.enumerable) refuse("a property that is not enumerable")
    if (property.get !== undefined || property.set !== undefined) refuse("an accessor")
  }
}

// -----------------------------------------------------------------------------
// classes
// -----------------------------------------------------------------------------

const typedArrays = {
  Uint8Array,
  Uint8ClampedArray,
  Int8Array,
  Uint16Array,
  Int16Array,
  Uint32Array,
  Int32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array
}

/** The typed arrays that rows may hold. */
export type TypedArrayName = keyof typeof typedArrays

/** The class of a typed array by its name. */
export const typedArrayClass = (name: string): (typeof typedArrays)[TypedArrayName] | undefined =>
  Object.hasOwn(typedArrays, name) ? typedArrays[name as TypedArrayName] : undefined

/** The name of a value's typed array class; subclasses, such as `Buffer`, have none. */
export const typedArrayName = (value: object): TypedArrayName | undefined => {
  if (!ArrayBuffer.isView(value)) return undefined
  const name = Object.prototype.toString.call(value).slice(8, -1)
  return Object.getPrototypeOf(value) === typedArrayClass(name)?.prototype ? name as TypedArrayName : undefined
}

/** The values of `effect/net` that rows may hold. They cannot be changed, and their text is exact. */
export const addressKinds = {
  address: {
    is: NetAddress.isIpAddress,
    format: NetAddress.formatIp as (value: any) => string,
    parse: (text: string): object => NetAddress.ipFromStringUnsafe(text)
  },
  interface: {
    is: IpInterface.isIpInterface,
    format: IpInterface.format as (value: any) => string,
    parse: (text: string): object => IpInterface.fromStringUnsafe(text)
  },
  network: {
    is: IpNetwork.isIpNetwork,
    format: IpNetwork.format as (value: any) => string,
    parse: (text: string): object => IpNetwork.fromStringUnsafe(text)
  }
}

/** Which value of `effect/net` an object is, where its text gives back the same class. */
export const addressKind = (value: object): keyof typeof addressKinds | undefined => {
  for (const kind of ["address", "interface", "network"] as const) {
    const { format, is, parse } = addressKinds[kind]
    if (is(value)) {
      const same = Object.getPrototypeOf(parse(format(value))) === Object.getPrototypeOf(value)
      return same && Object.isFrozen(value) ? kind : undefined
    }
  }
  return undefined
}

// -----------------------------------------------------------------------------
// copying what was taken in
// -----------------------------------------------------------------------------

// Object.assign is five times as fast as spread where many kinds of rows pass
// one place, but it sets `__proto__` where spread defines it.
const copyProperties = (row: object): any => Object.assign({}, row)
const copyPropertiesSafely = (row: object): any => ({ ...row })
const copyElements = (row: Array<unknown>): any => row.slice()
const copyObject = (value: object): any =>
  Object.hasOwn(value, "__proto__") ? copyPropertiesSafely(value) : copyProperties(value)

const copyValue = (value: any): any => {
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) {
    const out = value.slice()
    for (let i = 0; i < out.length; i++) {
      const element = out[i]
      if (typeof element === "object" && element !== null) out[i] = copyValue(element)
    }
    return out
  }
  if (Object.getPrototypeOf(value) === Object.prototype) {
    const out = copyObject(value)
    for (const key in value) {
      const property = value[key]
      if (typeof property === "object" && property !== null && Object.hasOwn(value, key)) {
        setOwn(out, key, copyValue(property))
      }
    }
    return out
  }
  if (value instanceof Date) return new Date(value)
  return ArrayBuffer.isView(value) ? (value as Uint8Array).slice() : value
}

/** Sets an own property, whatever its name. */
export const setOwn = (target: any, key: string | number, value: unknown): void => {
  if (key === "__proto__") {
    Object.defineProperty(target, key, { value, writable: true, enumerable: true, configurable: true })
  } else {
    target[key] = value
  }
}

/** Freezes plain objects and arrays, all the way down. */
export const freeze = (value: any): any => {
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) value.forEach(freeze)
  else if (Object.getPrototypeOf(value) === Object.prototype) Object.values(value).forEach(freeze)
  else return value
  return Object.freeze(value)
}

/** About how much memory a value takes, on a 64-bit engine. Sizes as V8 has them, without pointer compression. */
export const sizeOf = (value: any): number => {
  switch (typeof value) {
    case "string":
      return 16 + 2 * value.length
    case "number":
      return (value | 0) === value ? 0 : 16
    case "bigint":
      return 24
    case "object": {
      if (value === null) return 0
      let bytes = 32
      if (Array.isArray(value)) {
        bytes += 8 * value.length
        for (let i = 0; i < value.length; i++) bytes += sizeOf(value[i])
      } else if (ArrayBuffer.isView(value)) {
        bytes += 168 + value.byteLength
      } else if (value instanceof Date) {
        bytes += 72
      } else {
        const values = Object.values(value)
        // An object has room for a few properties from the start.
        bytes += 8 * Math.max(4, values.length)
        for (let i = 0; i < values.length; i++) bytes += sizeOf(values[i])
      }
      return bytes
    }
    default:
      return 0
  }
}
