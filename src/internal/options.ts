/**
 * Options are read here, and refused here: every one of them by name and with
 * the value that was given.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import { InvalidOptionError } from "../CacheError.ts"

/** Refuses names that nobody knows, which are most often misspelt. */
export const known = (owner: string, options: object | undefined, names: ReadonlyArray<string>): void => {
  if (options === undefined) return
  if (typeof options !== "object" || options === null) {
    throw new InvalidOptionError(owner, "options", options, "an object")
  }
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) {
      throw new InvalidOptionError(owner, name, (options as any)[name], `absent (known: ${names.join(", ")})`)
    }
  }
}

/** A finite time above zero, in milliseconds. */
export const millis = (owner: string, option: string, value: Duration.Input | undefined, orElse: number): number => {
  if (value === undefined) return orElse
  const ms = toMillis(value)
  if (!(ms > 0)) throw new InvalidOptionError(owner, option, value, "a finite duration above zero")
  return ms
}

/** A finite time, in milliseconds; zero switches off what it is for. */
export const millisOrZero = (
  owner: string,
  option: string,
  value: Duration.Input | undefined
): number | undefined => {
  if (value === undefined) return undefined
  const ms = toMillis(value)
  if (!(ms >= 0)) throw new InvalidOptionError(owner, option, value, "a finite duration, or zero")
  return ms
}

/** `NaN` for what is no finite time, or a negative one. */
const toMillis = (value: Duration.Input): number => {
  const duration = Duration.fromInput(value)
  const ms = Option.isSome(duration) ? Duration.toMillis(duration.value) : NaN
  return ms === Infinity || isNegative(value) ? NaN : ms
}

// Effect clamps a negative input to zero or keeps its sign, depending on its form.
const isNegative = (value: Duration.Input): boolean =>
  (typeof value === "number" && value < 0) || (typeof value === "bigint" && value < BigInt(0)) ||
  (typeof value === "string" && value.trim().startsWith("-"))

/** A whole number above zero. */
export const count = (owner: string, option: string, value: number | undefined, orElse: number): number => {
  if (value === undefined) return orElse
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new InvalidOptionError(owner, option, value, "a whole number above zero")
  }
  return value
}

/** Yes or no. */
export const flag = (owner: string, option: string, value: boolean | undefined): boolean | undefined => {
  if (value !== undefined && typeof value !== "boolean") {
    throw new InvalidOptionError(owner, option, value, "true or false")
  }
  return value
}

/** One of a few words. */
export const oneOf = <A extends string>(
  owner: string,
  option: string,
  value: A | undefined,
  words: ReadonlyArray<A>,
  orElse: A
): A => {
  if (value === undefined) return orElse
  if (!words.includes(value)) {
    throw new InvalidOptionError(owner, option, value, words.map((word) => `"${word}"`).join(" or "))
  }
  return value
}

/** A string with something in it. */
export const text = (owner: string, option: string, value: unknown): string => {
  if (typeof value !== "string" || value.trim().length === 0) {
    throw new InvalidOptionError(owner, option, value, "a string that is not empty")
  }
  return value
}
