/**
 * Rows as databases return them, by chance: each column of one type, with
 * nulls, under names that are hard on JavaScript objects.
 */
import * as IpInterface from "effect/net/IpInterface"
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"
import * as FastCheck from "fast-check"

/** An object built the way `@effect/sql-pg` builds rows: own properties only, `__proto__` too. */
export const objectOf = (entries: ReadonlyArray<readonly [string, unknown]>): Record<string, unknown> => {
  const row = {}
  for (const [key, value] of entries) {
    Object.defineProperty(row, key, { value, writable: true, enumerable: true, configurable: true })
  }
  return row
}

/** Any string, lone surrogates and NUL included. */
const text = FastCheck.array(
  FastCheck.oneof({ weight: 4, arbitrary: FastCheck.integer({ min: 32, max: 126 }) }, {
    weight: 1,
    arbitrary: FastCheck.integer({ min: 0, max: 0xffff })
  }),
  { maxLength: 12 }
).map((units) => String.fromCharCode(...units))

const word = FastCheck.constantFrom("active", "pending", "shipped", "cancelled")

const name = FastCheck.oneof(
  { weight: 3, arbitrary: FastCheck.constantFrom("id", "user_id", "status", "payload", "created_at") },
  {
    weight: 2,
    arbitrary: FastCheck.constantFrom(
      "__proto__",
      "constructor",
      "toJSON",
      "0",
      "1",
      "10",
      "-1",
      "",
      "length",
      "?column?"
    )
  },
  { weight: 1, arbitrary: text }
)

const number = FastCheck.oneof(
  FastCheck.integer(),
  FastCheck.double(),
  FastCheck.constantFrom(0, -0, NaN, Infinity, -Infinity, Number.MAX_VALUE, Number.MIN_VALUE, 2 ** 53, 2 ** 53 + 2)
)

const bigint = FastCheck.oneof(
  FastCheck.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  FastCheck.bigInt({ min: 2n ** 53n - 3n, max: 2n ** 53n + 3n }),
  FastCheck.bigInt({ min: -(2n ** 53n) - 3n, max: -(2n ** 53n) + 3n }),
  FastCheck.bigInt({ min: -1000n, max: 1000n })
)

const date = FastCheck.oneof(
  FastCheck.date({ noInvalidDate: false }),
  FastCheck.constantFrom(NaN, 8.64e15, -8.64e15, 0, -0, 1, -1).map((time) => new Date(time))
)

const bytes = FastCheck.uint8Array({ maxLength: 40 })

const typedArray = FastCheck.oneof(
  FastCheck.float32Array({ maxLength: 4 }),
  FastCheck.float64Array({ maxLength: 4 }),
  FastCheck.int16Array({ maxLength: 4 }),
  FastCheck.bigInt64Array({ maxLength: 4 }),
  FastCheck.uint8ClampedArray({ maxLength: 4 })
)

const interval = FastCheck.record({
  months: FastCheck.integer(),
  days: FastCheck.integer(),
  microseconds: FastCheck.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
}, { noNullPrototype: true })

const address = FastCheck.oneof(FastCheck.ipV4(), FastCheck.ipV6()).map((text) => NetAddress.ipFromString(text)).filter(
  (result) => result._tag === "Success"
).map((result) => result.success)

const inet = FastCheck.tuple(address, FastCheck.nat(128)).map(([address, prefix]) => {
  const bits = Math.min(prefix, NetAddress.width(address))
  return bits % 3 === 0
    ? address
    : bits % 3 === 1
    ? IpInterface.makeUnsafe(address, bits)
    : IpNetwork.fromAddressUnsafe(address, bits)
})

/** What `JSON.parse` can return, which is more than what `JSON.stringify` keeps. */
export const json: FastCheck.Arbitrary<unknown> = FastCheck.letrec((tie) => ({
  value: FastCheck.oneof(
    { maxDepth: 4 },
    { weight: 2, arbitrary: FastCheck.constantFrom<unknown>(null, true, false, -0, Infinity, "", "g", 1.5) },
    { weight: 1, arbitrary: text },
    { weight: 1, arbitrary: FastCheck.integer() },
    { weight: 2, arbitrary: FastCheck.array(tie("value"), { maxLength: 4 }) },
    { weight: 3, arbitrary: FastCheck.array(FastCheck.tuple(name, tie("value")), { maxLength: 4 }).map(objectOf) }
  )
})).value

/** Objects of one shape, such as most json columns hold. */
const document = FastCheck.record({
  sku: text,
  qty: FastCheck.nat(),
  price: FastCheck.double({ noNaN: true }),
  options: FastCheck.record({ gift: FastCheck.boolean(), note: FastCheck.option(word) }, { noNullPrototype: true }),
  history: FastCheck.array(FastCheck.nat(), { maxLength: 3 })
}, { noNullPrototype: true })

const scalars: ReadonlyArray<FastCheck.Arbitrary<unknown>> = [
  text,
  word,
  number,
  FastCheck.integer(),
  FastCheck.boolean(),
  bigint,
  FastCheck.bigInt({ min: 0n, max: 100_000n }),
  date,
  FastCheck.date({ noInvalidDate: true }),
  bytes,
  typedArray,
  interval,
  inet,
  json,
  document,
  FastCheck.constant(null),
  FastCheck.constant(undefined)
]

const nullable = (value: FastCheck.Arbitrary<unknown>) => FastCheck.option(value, { freq: 4 })

/** The arbitrary of one column's values. */
const cell: FastCheck.Arbitrary<FastCheck.Arbitrary<unknown>> = FastCheck.nat(scalars.length * 4 - 1).map((i) => {
  const value = scalars[i >> 2]!
  switch (i & 3) {
    case 0:
      return value
    case 1:
      return nullable(value)
    case 2:
      return nullable(FastCheck.array(nullable(value), { maxLength: 4 }))
    default:
      return FastCheck.oneof(value, value, scalars[(i * 7) % scalars.length]!, FastCheck.array(FastCheck.array(value)))
  }
})

/** Rows of typed columns, as objects, with their columns as arrays. */
export const typedRows: FastCheck.Arbitrary<Array<Record<string, unknown>>> = FastCheck.tuple(
  FastCheck.uniqueArray(name, { maxLength: 6 }),
  FastCheck.nat(24)
).chain(([names, length]) =>
  FastCheck.tuple(
    ...names.map(() => cell.chain((cell) => FastCheck.array(cell, { minLength: length, maxLength: length })))
  ).map((columns) =>
    Array.from({ length }, (_, i) => objectOf(names.map((name, c) => [name, columns[c]![i]] as const)))
  )
)
