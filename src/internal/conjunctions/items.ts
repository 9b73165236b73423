/**
 * What a FROM clause is made of, and which conditions hold for the rows of each
 * table in it.
 *
 * A *combination* is what a join puts together: a row of each of its tables, or
 * none of one on the nullable side of an outer join. Conditions are handed down
 * from WHERE to the tables. At each item they are those that hold for every
 * combination that matters: one for which they do not hold changes nothing in
 * the answer, whether it is there or not.
 */
import type { Relation } from "../catalog/model.ts"
import type { Alternative, Atom, Clause } from "./clauses.ts"
import type { Scope, Variable, World } from "./scope.ts"

export type Item = Table | Opaque | Inner | Outer | Union

/** A table, with the node of the tree that names it. */
export interface Table {
  readonly _tag: "Table"
  readonly node: object
  readonly relation: Relation
}

/** What no condition on its columns passes into, such as a function, or a subquery with a LIMIT. */
export interface Opaque {
  readonly _tag: "Opaque"
  readonly node: object
  readonly items: ReadonlyArray<Item>
  readonly inside: ReadonlyArray<Inside>
}

/** Items whose combinations all fulfil a condition: FROM and WHERE of a query, an inner join. */
export interface Inner {
  readonly _tag: "Inner"
  /** The owner of the columns that it computes. */
  readonly node: object
  readonly items: ReadonlyArray<Item>
  readonly on: ReadonlyArray<Clause>
  readonly inside: ReadonlyArray<Inside>
}

/** An outer join. Of a RIGHT JOIN the sides are exchanged. */
export interface Outer {
  readonly _tag: "Outer"
  readonly isFull: boolean
  /** Of a FULL JOIN ... USING: the columns that stand for one of either side. */
  readonly merged: ReadonlyArray<Variable>
  readonly left: Item
  readonly right: Item
  readonly on: ReadonlyArray<Clause>
  readonly inside: ReadonlyArray<Inside>
}

/** UNION, INTERSECT or EXCEPT: what a condition on one of its columns says, it says of the same column of each arm. */
export interface Union {
  readonly _tag: "Union"
  readonly arms: ReadonlyArray<{ readonly item: Item; readonly variables: ReadonlyMap<Variable, Variable> }>
}

/** Expressions in which there may be subqueries. */
export interface Inside {
  readonly nodes: ReadonlyArray<unknown>
  readonly scope: Scope | undefined
  /** Those that are items already. */
  readonly taken: ReadonlySet<unknown>
}

export interface Visitor {
  readonly table: (table: Table, clauses: ReadonlyArray<Clause>) => void
  readonly inside: (inside: Inside, clauses: ReadonlyArray<Clause>) => void
  /** Told of tables that a condition would name rows of, if it were not for what stands between them. */
  readonly withheld?: ((from: Item, by: "outer-join" | "subquery") => void) | undefined
}

/** Hands clauses down to the tables of an item. */
export const descend = (world: World, item: Item, clauses: ReadonlyArray<Clause>, visitor: Visitor): void => {
  switch (item._tag) {
    case "Table":
      return visitor.table(item, clauses)
    case "Opaque":
      for (const inside of item.inside) visitor.inside(inside, clauses)
      for (const one of item.items) descend(world, one, clauses, visitor)
      if (visitor.withheld !== undefined && clauses.some((clause) => mentions(clause, item))) {
        for (const one of item.items) visitor.withheld(one, "subquery")
      }
      return
    case "Union":
      for (const arm of item.arms) descend(world, arm.item, substituted(clauses, arm.variables), visitor)
      return
    case "Inner": {
      const all = [...clauses, ...holdingIn(item)]
      for (const inside of item.inside) visitor.inside(inside, all)
      for (const one of item.items) descend(world, one, all, visitor)
      return
    }
    case "Outer":
      return descendOuter(world, item, clauses, visitor)
  }
}

const descendOuter = (world: World, item: Outer, clauses: ReadonlyArray<Clause>, visitor: Visitor): void => {
  const { isFull, left, on, right } = item
  const { without } = world
  // What rejects the combinations without a row of one side makes the other side nullable no longer.
  const needsRight = rejects(world, clauses, right)
  const needsLeft = !isFull || rejects(world, clauses, left)
  if (needsLeft && needsRight) return descend(world, asInner(item), substituted(clauses, mergedAs(item, left)), visitor)
  const keepsAll = isFull && !needsLeft && !needsRight
  const hold = [...on, ...holdingIn(left), ...holdingIn(right)]
  if (keepsAll) {
    // The merged column of such a join is that of whichever row there is. Nothing else of either side is known.
    const isKnown = (variable: Variable) =>
      item.merged.includes(variable) || (!touches(left, variable) && !touches(right, variable))
    const outside = clauses.filter((clause) => variablesIn(clause).every(isKnown))
    for (const side of [left, right]) {
      if (visitor.withheld !== undefined && [...clauses, ...on].some((clause) => namesRows(clause, side))) {
        visitor.withheld(side, "outer-join")
      }
      const above = substituted(outside, mergedAs(item, side))
      descend(world, side, without.has("full-on") ? [...above, ...on] : above, visitor)
    }
    for (const inside of item.inside) visitor.inside(inside, hold)
    return
  }
  const [kept, nullable] = needsLeft ? [left, right] : [right, left]
  const above = substituted(clauses, mergedAs(item, kept))
  descend(world, kept, without.has("outer-on") ? [...above, ...on] : above, visitor)
  const beside = above.filter((clause) => without.has("null-of-nullable") || !mentions(clause, nullable))
  const all = [...beside, ...hold]
  if (visitor.withheld !== undefined) {
    if (on.some((clause) => namesRows(clause, kept))) visitor.withheld(kept, "outer-join")
    if (above.some((clause) => mentions(clause, nullable))) visitor.withheld(nullable, "outer-join")
  }
  descend(world, nullable, all, visitor)
  for (const inside of item.inside) visitor.inside(inside, all)
}

const asInner = (item: Outer): Inner => ({
  _tag: "Inner",
  node: item,
  items: [item.left, item.right],
  on: item.on,
  inside: item.inside
})

/** What holds for every combination of an item by the item itself. */
const holdingIn = (item: Item): ReadonlyArray<Clause> => {
  switch (item._tag) {
    case "Inner":
      return [...item.on, ...item.items.flatMap(holdingIn)]
    case "Outer":
      return item.isFull ? [] : holdingIn(item.left)
    default:
      return []
  }
}

/** Whether clauses hold for no combination without a row of the item. */
const rejects = (world: World, clauses: ReadonlyArray<Clause>, item: Item): boolean =>
  clauses.some((clause) => {
    const isRejecting = (alternative: Alternative) =>
      alternative.some((atom) => atom.isStrict && variablesOf(atom).some((variable) => isWithin(item, variable)))
    return world.without.has("or-rejects-null") ? clause.some(isRejecting) : clause.every(isRejecting)
  })

const mentions = (clause: Clause, item: Item): boolean =>
  variablesIn(clause).some((variable) => touches(item, variable))

/** Whether a clause has a value for a column of the item. */
const namesRows = (clause: Clause, item: Item): boolean =>
  clause.some((alternative) =>
    alternative.some(({ source, variable }) => source !== undefined && touches(item, variable))
  )

const variablesOf = ({ other, variable }: Atom): ReadonlyArray<Variable> =>
  other === undefined ? [variable] : [variable, other]

const variablesIn = (clause: Clause): ReadonlyArray<Variable> =>
  clause.flatMap((alternative) => alternative.flatMap(variablesOf))

/** The merged columns of a join, each with what it is where there is a row of the side. */
const mergedAs = ({ left, merged }: Outer, side: Item): ReadonlyMap<Variable, Variable> =>
  new Map(merged.map((variable) => [variable, variable.merged![side === left ? 0 : 1]]))

const substituted = (
  clauses: ReadonlyArray<Clause>,
  variables: ReadonlyMap<Variable, Variable>
): ReadonlyArray<Clause> => {
  if (variables.size === 0) return clauses
  const replace = (variable: Variable): Variable => variables.get(variable) ?? variable
  return clauses.map((clause) =>
    clause.map((alternative) =>
      alternative.map((atom) => ({
        ...atom,
        variable: replace(atom.variable),
        other: atom.other === undefined ? undefined : replace(atom.other)
      }))
    )
  )
}

const isWithin = (item: Item, { merged, owner }: Variable): boolean =>
  merged === undefined ? owns(item, owner) : merged.every((one) => isWithin(item, one))

const touches = (item: Item, { merged, owner }: Variable): boolean =>
  merged === undefined ? owns(item, owner) : merged.some((one) => touches(item, one))

const owned = new WeakMap<Item, ReadonlySet<object>>()

const owns = (item: Item, owner: object): boolean => {
  let owners = owned.get(item)
  if (owners === undefined) owned.set(item, owners = new Set(ownersIn(item)))
  return owners.has(owner)
}

/** What identifies the columns of an item, its tables among them. */
export const ownersIn = (item: Item): ReadonlyArray<object> => {
  switch (item._tag) {
    case "Table":
    case "Opaque":
      return [item.node]
    case "Inner":
      return [item.node, ...item.items.flatMap(ownersIn)]
    case "Outer":
      return [...ownersIn(item.left), ...ownersIn(item.right)]
    case "Union":
      return [item]
  }
}
