/**
 * Walks over a whole statement, whatever is in it.
 */
import type { Node } from "../analysis/parser.ts"
import type { Catalog } from "../catalog/model.ts"
import type { Without } from "./rules.ts"
import type { World } from "./scope.ts"

/** How often a name stands for a table or a query in a tree. */
export const countNames = (node: unknown, name: string): number => {
  let count = 0
  eachNode(node, (one) => {
    if (one.relname === name && one.schemaname === undefined) count++
  })
  return count
}

/** Calls back for every object in a tree that can hold others: columns and constants are left out. */
export const eachNode = (root: unknown, visit: (node: Node) => void): void => {
  const nodes: Array<unknown> = [root]
  while (nodes.length > 0) {
    const node = nodes.pop()
    if (typeof node !== "object" || node === null) continue
    if (Array.isArray(node)) {
      for (const value of node) nodes.push(value)
      continue
    }
    visit(node as Node)
    // A statement has thousands: this is what takes the time.
    for (const name in node) {
      const value = (node as Node)[name]
      if (typeof value === "object" && !isLeaf(name)) nodes.push(value)
    }
  }
}

/** Whether a field holds a node that names no table, holds no query and is no parameter. */
export const isLeaf = (field: string): boolean => field === "ColumnRef" || field === "A_Const"

/** What a statement's names are looked up in, with what has to be known of the whole of it. */
export const worldOf = (
  statement: Node,
  catalog: Catalog,
  searchPath: ReadonlyArray<string>,
  without: Without
): World => {
  const uses = new Map<string, number>()
  const parameters = new Set<number>()
  const shared = new Set<number>()
  eachNode(statement, (node) => {
    if (typeof node.relname === "string" && node.schemaname === undefined) {
      uses.set(node.relname, (uses.get(node.relname) ?? 0) + 1)
    }
    if (node.ParamRef !== undefined) {
      const number = (node.ParamRef as { readonly number?: number }).number ?? 0
      if (parameters.has(number)) shared.add(number)
      parameters.add(number)
    }
  })
  return { catalog, searchPath, without, shared, uses }
}
