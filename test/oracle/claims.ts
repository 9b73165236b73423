// What dependencies and targets say, read from their stamps as the module Dependency documents them. Nothing here asks
// that module how a stamp is made: it is what is being judged.
import type { DependencySet, Image, Targets } from "../../src/Dependency.ts"

/** What an answer is claimed to depend on of a table: all of it, or the rows that match one of the conjunctions. */
export type Claim = "whole" | ReadonlyArray<Conjunction>

export type Conjunction = ReadonlyArray<readonly [column: string, value: string | null]>

/** What a query is claimed to depend on, by table. */
export const claimsOf = (dependencies: DependencySet): ReadonlyMap<string, Claim> => {
  const claims = new Map<string, Claim>()
  for (const stamp of dependencies.stamps) {
    // Marks of writes that go through an ancestor, or that know no schema: no rows follow from them.
    if (/^[~^]/.test(stamp)) continue
    const { columns, table } = parse(stamp)
    if (columns === undefined) {
      claims.set(table, "whole")
    } else if (columns !== "*" && columns.every((column) => column.length === 2)) {
      const before = claims.get(table) ?? []
      if (before !== "whole") claims.set(table, [...before, columns as Conjunction])
    }
  }
  return claims
}

/** Whether an invalidation reaches an answer: whether one of its stamps is marked. */
export const reaches = (targets: Targets, dependencies: DependencySet): boolean =>
  targets.all || dependencies.stamps.some((stamp) => marks(targets, stamp))

const marks = (targets: Targets, stamp: string): boolean => {
  if (targets.stamps.includes(stamp)) return true
  const { columns, table } = parse(stamp)
  if (columns === "*") return false
  const images = targets.images.filter((image) => image.table === table)
  return columns === undefined ? images.length > 0 : images.some((image) => imageMarks(image, columns))
}

/** A shape is marked by rows that do not tell all of its columns, a conjunction by rows that it matches. */
const imageMarks = (image: Image, columns: ReadonlyArray<readonly [string, (string | null)?]>): boolean => {
  const known = columns.map(([name]) => image.columns.get(name))
  const isShape = columns.every((column) => column.length === 1)
  if (known.includes(undefined)) return isShape
  return !isShape && columns.every(([, value], i) => value === known[i])
}

/** Whether a change of a row is told to whoever depends on this conjunction of its table, be it by itself or with the shape. */
export const covers = (targets: Targets, table: string, conjunction: Conjunction): boolean => {
  if (targets.all) return true
  const names = conjunction.map(([name]) => [name] as const)
  return targets.stamps.includes(`${table}(*)`) ||
    targets.images.some((image) =>
      image.table === table && (imageMarks(image, names) || imageMarks(image, conjunction))
    )
}

/** Whether a change of a row is told to whoever depends on the whole table. */
export const coversTable = (targets: Targets, table: string): boolean => targets.all || marks(targets, table)

/** Whether a write through one of these tables is told to all who depend on its descendants. */
export const coversBelow = (targets: Targets, ancestors: ReadonlyArray<string>): boolean =>
  ancestors.some((ancestor) => targets.stamps.includes(`^${ancestor}`))

interface Parsed {
  readonly table: string
  /** Nothing: the table itself. A star: all its rows. Names: a shape. Names with values: a conjunction. */
  readonly columns: undefined | "*" | ReadonlyArray<readonly [name: string, value?: string | null]>
}

const parse = (stamp: string): Parsed => {
  let parsed = memo.get(stamp)
  if (parsed === undefined) {
    if (memo.size > 50_000) memo.clear()
    memo.set(stamp, parsed = read(stamp))
  }
  return parsed
}

const memo = new Map<string, Parsed>()

const word = /(?:[A-Za-z_][\w$]*|"(?:[^"\\]|\\.)*")/.source

const read = (stamp: string): Parsed => {
  const table = new RegExp(`^[!#@~^]?${word}(?:\\.${word})?`).exec(stamp)?.[0]
  if (table === undefined) throw new Error(`not a stamp: ${stamp}`)
  const rest = stamp.slice(table.length)
  if (rest === "") return { table, columns: undefined }
  if (rest === "(*)") return { table, columns: "*" }
  const columns = Array.from(
    rest.slice(1, -1).matchAll(new RegExp(`(${word})(?:=(null|"(?:[^"\\\\]|\\\\.)*"))?(?:,|$)`, "g")),
    ([, name, value]): readonly [string, (string | null)?] => value === undefined ? [name!] : [name!, JSON.parse(value)]
  )
  if (!rest.startsWith("(") || !rest.endsWith(")") || columns.length === 0) throw new Error(`not a stamp: ${stamp}`)
  return { table, columns }
}
