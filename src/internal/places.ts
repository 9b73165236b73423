/**
 * What a session token carries: for each database how far its cache must have come,
 * by shard, and until when it is not to be asked at all.
 *
 * Marks are clocks of a store, written short: of an epoch the order, and a hash of the
 * whole. They compare as clocks do. Within an epoch the greater one is later; an epoch
 * of a higher order begins empty, so it holds nothing from before; of any other nobody
 * knows what is missing in it.
 *
 * Places form a semilattice: merging is commutative, associative and idempotent, so
 * tokens may be merged in any order and as often as one likes.
 *
 * As text, all of it such characters as may stand in a header, a cookie and a URL:
 *
 *     1~<database>.<order>-<hash>-<clock>...[.B<until>-<by>]~...
 *
 * numbers to the base of 36. Whoever holds a token can write another one. So everything
 * is checked, bounded, and taken for what somebody asks for, not for what is so.
 */
import * as Equal from "effect/Equal"
import * as Hash from "effect/Hash"
import * as Epoch from "./epoch.ts"

/** A clock, as stores tell it. */
export interface At {
  readonly epoch: string
  readonly clock: number
}

export interface Mark {
  /** Of the epoch; below zero where epochs have none. */
  readonly order: number
  readonly hash: number
  readonly clock: number
}

export interface Bypass {
  /** By the wall clock. 0: it begins when somebody first reads under it. */
  readonly untilMillis: number
  /** Who need not heed it, having made the write: empty for nobody. */
  readonly by: string
}

export interface Place {
  /** By shard. */
  readonly marks: ReadonlyArray<Mark | undefined>
  readonly bypass: Bypass | undefined
}

export const nowhere: Place = { marks: [], bypass: undefined }

/** Stands for all databases, where they are too many to be named. */
export const everywhere = "-"

const maxDatabases = 8
const maxMarks = 64

/** The text of the longest token there is, about twice over. */
const maxLength = 4096

export const TokenTypeId = "~effect-query-cache/SessionToken"

export class Token implements Equal.Equal {
  declare readonly [TokenTypeId]: typeof TokenTypeId
  readonly places: ReadonlyMap<string, Place>
  private text: string | undefined

  constructor(places: ReadonlyMap<string, Place>) {
    this.places = places
    this.text = undefined
  }

  toString(): string {
    return this.text ??= encode(this)
  }

  toJSON(): string {
    return this.toString()
  }

  [Equal.symbol](that: unknown): boolean {
    return that instanceof Token && this.toString() === that.toString()
  }

  [Hash.symbol](): number {
    return Hash.string(this.toString())
  }
}

Object.assign(Token.prototype, { [TokenTypeId]: TokenTypeId })

export const empty = new Token(new Map())

/** A token of places, of which too many become one that stands for all. */
export const tokenOf = (places: Iterable<readonly [database: string, place: Place]>): Token => {
  const known = [...places].filter(([, place]) => place.bypass !== undefined || place.marks.length > 0)
  if (known.length === 0) return empty
  const marks = known.reduce((sum, [, place]) => sum + place.marks.length, 0)
  return known.length > maxDatabases || marks > maxMarks
    ? new Token(new Map([[everywhere, { marks: [], bypass: { untilMillis: 0, by: "" } }]]))
    : new Token(new Map(known.sort(([a], [b]) => a < b ? -1 : 1)))
}

// -----------------------------------------------------------------------------
// comparing
// -----------------------------------------------------------------------------

/** As FNV-1a has it (Fowler, Noll, Vo). */
const hashOf = (text: string): number => {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return hash >>> 0
}

const markOf = ({ clock, epoch }: At): Mark => {
  const order = /^(\d{1,16})-/.exec(epoch)?.[1]
  return { order: order === undefined ? -1 : Number(order), hash: hashOf(epoch), clock }
}

// A store without shards has one.
const shardOf = ({ epoch }: At): number => Epoch.shardOf(epoch) || 0

/** Whether what is valid at a clock reflects everything that was invalidated up to the marks. */
export const reflects = (marks: Place["marks"], at: At): boolean => {
  const own = marks[shardOf(at)]
  if (own === undefined) return true
  const { clock, hash, order } = markOf(at)
  if (order === own.order && hash === own.hash) return clock >= own.clock
  return own.order >= 0 && order > own.order
}

/** The marks of clocks, each at its shard. */
export const marksOf = (clocks: ReadonlyArray<At>): Place["marks"] => {
  const marks: Array<Mark | undefined> = []
  for (const at of clocks) {
    const shard = shardOf(at)
    while (marks.length <= shard) marks.push(undefined)
    marks[shard] = laterMark(marks[shard], markOf(at))
  }
  return marks
}

const laterMark = (a: Mark | undefined, b: Mark | undefined): Mark | undefined => {
  if (a === undefined || b === undefined) return a ?? b
  // Which of two epochs of one order came first nobody knows. What is valid in the other is not taken for newer.
  const difference = a.order - b.order || a.hash - b.hash || a.clock - b.clock
  return difference < 0 ? b : a
}

export const laterMarks = (a: Place["marks"], b: Place["marks"]): Place["marks"] => {
  let length = Math.max(a.length, b.length)
  while (length > 0 && a[length - 1] === undefined && b[length - 1] === undefined) length--
  return Array.from({ length }, (_, shard) => laterMark(a[shard], b[shard]))
}

const laterBypass = (a: Bypass | undefined, b: Bypass | undefined): Bypass | undefined => {
  if (a === undefined || b === undefined) return a ?? b
  return {
    untilMillis: a.untilMillis === 0 || b.untilMillis === 0 ? 0 : Math.max(a.untilMillis, b.untilMillis),
    by: a.by === b.by ? a.by : ""
  }
}

export const later = (a: Place, b: Place): Place => ({
  marks: laterMarks(a.marks, b.marks),
  bypass: laterBypass(a.bypass, b.bypass)
})

export const merge = (a: Token, b: Token): Token => {
  const places = new Map(a.places)
  for (const [database, place] of b.places) places.set(database, later(places.get(database) ?? nowhere, place))
  return tokenOf(places)
}

// -----------------------------------------------------------------------------
// text
// -----------------------------------------------------------------------------

const digits = (value: number): string => value.toString(36)

const encodeMark = (mark: Mark | undefined): string =>
  mark === undefined
    ? ""
    : `${mark.order < 0 ? "" : digits(mark.order)}-${digits(mark.hash)}-${digits(mark.clock)}`

const encode = ({ places }: Token): string => {
  let text = "1"
  for (const [database, { bypass, marks }] of places) {
    text += `~${[database, ...marks.map(encodeMark)].join(".")}`
    if (bypass !== undefined) text += `.B${digits(bypass.untilMillis)}-${bypass.by}`
  }
  return text
}

const aDatabase = /^(?:-|[\w-]{8})$/
const aMark = /^([0-9a-z]{0,11})-([0-9a-z]{1,7})-([0-9a-z]{1,11})$/
const aBypass = /^B([0-9a-z]{1,11})-((?:[0-9a-z]{8})?)$/

/** `undefined` for what no number is written as. */
const number = (text: string, maximum: number): number | undefined => {
  const value = Number.parseInt(text, 36)
  return value <= maximum && digits(value) === text ? value : undefined
}

const decodeMark = (text: string): Mark | undefined => {
  const [, orderText, hashText, clockText] = aMark.exec(text) ?? []
  if (orderText === undefined) return undefined
  const order = orderText === "" ? -1 : number(orderText, Number.MAX_SAFE_INTEGER)
  const hash = number(hashText!, 2 ** 32 - 1)
  const clock = number(clockText!, Number.MAX_SAFE_INTEGER)
  return order === undefined || hash === undefined || clock === undefined ? undefined : { order, hash, clock }
}

const decodePlace = (parts: ReadonlyArray<string>): Place | undefined => {
  const [, untilText, by] = aBypass.exec(parts.at(-1) ?? "") ?? []
  const until = untilText === undefined ? undefined : number(untilText, Number.MAX_SAFE_INTEGER)
  const marks: Array<Mark | undefined> = []
  for (const text of until === undefined ? parts : parts.slice(0, -1)) {
    const mark = decodeMark(text)
    if (mark === undefined && text !== "") return undefined
    marks.push(mark)
  }
  if (marks.length > 0 && marks.at(-1) === undefined) return undefined
  return { marks, bypass: until === undefined ? undefined : { untilMillis: until, by: by! } }
}

/** The token of a text, or `undefined`: no other text stands for the same one. */
export const decode = (text: string): Token | undefined => {
  if (text.length > maxLength) return undefined
  const [version, ...databases] = text.split("~")
  if (version !== "1") return undefined
  const places = new Map<string, Place>()
  for (const written of databases) {
    const [database, ...parts] = written.split(".") as [string, ...Array<string>]
    const place = aDatabase.test(database) ? decodePlace(parts) : undefined
    if (place === undefined) return undefined
    places.set(database, place)
  }
  const token = tokenOf(places)
  return token.toString() === text ? token : undefined
}
