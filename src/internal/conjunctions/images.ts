/**
 * The rows that a write touches as it runs: with its parameters, and with its
 * answer where that shows them.
 *
 * Every row is an image, and a row that was there before is two: as it was and
 * as it is. Each image is of one row alone: what is known of one row is never
 * put together with what is known of another.
 */
import { bind, textOf, type Values } from "./bound.ts"
import { none, type Without } from "./rules.ts"
import { canonical, isStored, kindOf } from "./values.ts"
import { type Given, maxImages, type Touch } from "./writes.ts"

/** What a touch does to its table; `undefined`: to any rows. `answer`: the rows that the statement returned. */
export const imagesOf = (
  touch: Touch,
  parameters: ReadonlyArray<unknown>,
  answer: ReadonlyArray<unknown> | undefined,
  without: Without = none
): ReadonlyArray<Values> | undefined => {
  const shown = answer === undefined ? undefined : shownIn(touch, answer, without)
  const images = shown === undefined ? imagine(touch, parameters, without) : complete(touch, parameters, shown, without)
  return images === undefined || images.length > 2 * maxImages || images.some((image) => image.size === 0)
    ? undefined
    : images
}

/** A row as the answer shows it. */
interface Shown {
  readonly row: Values
  readonly old: Values
}

/** Without an answer. */
const imagine = (
  touch: Touch,
  parameters: ReadonlyArray<unknown>,
  without: Without
): ReadonlyArray<Values> | undefined => {
  const { assigned, conflict, isInsert, isPlain } = touch
  if (!isInsert) {
    const olds = oldsOf(touch, parameters, without)
    if (assigned === undefined || olds === undefined) return olds
    return isPlain ? olds.flatMap((old) => [old, after(touch, old, parameters, undefined, without)]) : undefined
  }
  const rows = givenOf(touch, parameters, without)
  if (assigned === undefined || rows === undefined) return rows
  return rows.flatMap((row) => {
    const old = new Map(conflict.flatMap((name) => row.has(name) ? [[name, row.get(name)!] as const] : []))
    return [row, old, after(touch, old, parameters, row, without)]
  })
}

/** With an answer, to which is added what is the same for all rows. */
const complete = (
  touch: Touch,
  parameters: ReadonlyArray<unknown>,
  shown: ReadonlyArray<Shown>,
  without: Without
): ReadonlyArray<Values> => {
  const { assigned, isInsert, isPlain } = touch
  if (isInsert && assigned === undefined) {
    const common = inCommon(givenOf(touch, parameters, without) ?? [])
    return shown.map(({ row }) => new Map([...common, ...row]))
  }
  const olds = isInsert ? undefined : oldsOf(touch, parameters, without)
  const common = inCommon(olds ?? [])
  if (assigned === undefined) return shown.map(({ row }) => new Map([...common, ...row]))
  const then = isInsert || !isPlain ? [] : after(touch, common, parameters, undefined, without)
  return shown.flatMap(({ old, row }) => {
    const before = new Map([...common, ...(isPlain ? kept(touch, row, without) : []), ...old])
    const now = new Map([...then, ...row])
    return before.size === 0 && olds !== undefined ? [...olds, now] : [before, now]
  })
}

const oldsOf = (
  { where }: Touch,
  parameters: ReadonlyArray<unknown>,
  without: Without
): ReadonlyArray<Values> | undefined => where === undefined ? undefined : bind(where, parameters, maxImages, without)

const givenOf = (
  { given, isPlain }: Touch,
  parameters: ReadonlyArray<unknown>,
  without: Without
): ReadonlyArray<Values> | undefined =>
  isPlain ? given?.map((row) => valuesOf(row, parameters, undefined, without)) : undefined

/** A row that exists after it was assigned something. */
const after = (
  touch: Touch,
  old: Values,
  parameters: ReadonlyArray<unknown>,
  excluded: Values | undefined,
  without: Without
): Values => new Map([...kept(touch, old, without), ...valuesOf(touch.assigned!, parameters, excluded, without)])

/** What a row has in common with itself before and after. */
const kept = ({ assigned, relation }: Touch, row: Values, without: Without): Values => {
  const values = new Map(row)
  for (const column of row.keys()) {
    const isAssigned = assigned!.has(column) && !without.has("assigned")
    const isGenerated = relation.column.get(column)?.generated !== undefined && !without.has("generated")
    if (isAssigned || isGenerated) values.delete(column)
  }
  return values
}

const valuesOf = (
  given: Given,
  parameters: ReadonlyArray<unknown>,
  excluded: Values | undefined,
  without: Without
): Values => {
  const values = new Map<string, string | null>()
  for (const [name, { column, source }] of given) {
    const kind = kindOf(column, without)
    if (source === undefined || kind === undefined) continue
    const text = source._tag === "Excluded"
      ? excluded?.get(source.column)
      : textOf(kind, source, parameters, without)
    if (text !== undefined && isStored(column, text, without)) values.set(name, text)
  }
  return values
}

const inCommon = (rows: ReadonlyArray<Values>): Values => {
  const [first, ...rest] = rows
  return new Map([...first ?? []].filter(([name, value]) => rest.every((row) => row.get(name) === value)))
}

/** The rows of an answer, if it can be told which of its values is which column. */
const shownIn = (
  { returning }: Touch,
  answer: ReadonlyArray<unknown>,
  without: Without
): ReadonlyArray<Shown> | undefined => {
  if (returning === undefined || answer.length > maxImages) return undefined
  const shown: Array<Shown> = []
  for (const one of answer) {
    const values = positions(one)
    if (values?.length !== returning.length) return undefined
    const row = new Map<string, string | null>()
    const old = new Map<string, string | null>()
    returning.forEach((column, i) => {
      if (column === undefined) return
      const text = canonical(column.kind, values[i], without)
      if (text !== undefined) (column.isOld ? old : row).set(column.column, text)
    })
    shown.push({ row, old })
  }
  return shown
}

// The names of a row are those that the client gives its columns. An object has them in order, unless one looks like an
// index.
const positions = (row: unknown): ReadonlyArray<unknown> | undefined =>
  Array.isArray(row)
    ? row
    : typeof row !== "object" || row === null || Object.keys(row).some((name) => /^\d+$/.test(name))
    ? undefined
    : Object.values(row)
