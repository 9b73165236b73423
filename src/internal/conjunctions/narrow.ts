/**
 * From tables to rows: which of the tables that a statement reads or writes it
 * reads or writes in part.
 *
 * Only where its own text names them. What is reached through a view, a trigger
 * or a function is reached as a whole, whatever else the statement says of it.
 */
import type { Node } from "../analysis/parser.ts"
import { type Catalog, type Relation, withAncestors } from "../catalog/model.ts"
import type { Values } from "./bound.ts"
import { imagesOf } from "./images.ts"
import { rowReads, rowsOf } from "./reads.ts"
import { none, type Without } from "./rules.ts"
import { rowWrites } from "./writes.ts"

/** Where names lead to, and where else the statement gets. */
export interface Reached {
  readonly catalog: Catalog
  readonly searchPath: ReadonlyArray<string>
  /** What is read or written by more than the words of the statement, each with what leads there. */
  readonly indirectly: ReadonlyMap<Relation, string>
  /** Every relation that is written, with what a write to it stamps. */
  readonly written: ReadonlyMap<Relation, ReadonlyArray<string>>
  readonly without?: Without | undefined
}

/** By table, as dependencies name it: its rows that matter. Of tables that are not here all do. */
export type Rows = ReadonlyMap<string, ReadonlyArray<Values>>

/** The rows that a query reads, if there is a table of which it does not read all. */
export const narrowReads = (
  statement: Node,
  { catalog, indirectly, searchPath, without = none }: Reached
): ((parameters: ReadonlyArray<unknown>) => Rows) | undefined => {
  const reads = [...rowReads(statement, catalog, searchPath, without)]
    .filter(([relation, bounds]) => bounds !== "whole" && !indirectly.has(relation))
  if (reads.length === 0) return undefined
  return (parameters) => {
    const rows = new Map<string, ReadonlyArray<Values>>()
    for (const [{ stamp }, bounds] of reads) {
      const known = rowsOf(catalog, bounds, parameters, without)
      if (known !== undefined) rows.set(stamp, known)
    }
    return rows
  }
}

/** The rows that a statement writes, if there is a table of which they may be known. */
export const narrowWrites = (
  statement: Node,
  { catalog, indirectly, searchPath, without = none, written }: Reached
): ((parameters: ReadonlyArray<unknown>, answer: ReadonlyArray<unknown> | undefined) => Rows) | undefined => {
  const writes = [...rowWrites(statement, catalog, searchPath, without)]
    .filter(([relation]) => !indirectly.has(relation))
    .map(([relation, touches]) => ({
      relation,
      touches,
      // A row of a table is a row of its ancestors.
      stamps: withAncestors(catalog, relation).map(({ stamp }) => stamp)
    }))
  if (writes.length === 0) return undefined
  const whole = new Set<string>()
  for (const [relation, all] of written) {
    const narrow = writes.find((write) => write.relation === relation)?.stamps
    for (const stamp of all) if (narrow === undefined || !narrow.includes(stamp)) whole.add(stamp)
  }
  return (parameters, answer) => {
    const rows = new Map<string, Array<Values> | undefined>()
    for (const { stamps, touches } of writes) {
      const images = touches.map((touch) => imagesOf(touch, parameters, answer, without))
      for (const stamp of stamps) {
        const known = rows.has(stamp) ? rows.get(stamp) : []
        rows.set(
          stamp,
          known === undefined || whole.has(stamp) || images.includes(undefined)
            ? undefined
            : [...known, ...images.flatMap((image) => image!)]
        )
      }
    }
    return new Map([...rows].flatMap(([stamp, images]) => images === undefined ? [] : [[stamp, images] as const]))
  }
}
