/**
 * Why a statement reads or writes the whole of a table: the rules of narrow.ts
 * run again, by a collector that notes what they drop. Only `explain` asks, so
 * nothing of this is kept with an analysis.
 */
import type { Whole, WholeReason } from "../../QueryAnalyzer.ts"
import type { Node } from "../analysis/parser.ts"
import type { Relation } from "../catalog/model.ts"
import { bind, type Bound, hasValues } from "./bound.ts"
import type { Clause } from "./clauses.ts"
import { imagesOf } from "./images.ts"
import { type Item, ownersIn } from "./items.ts"
import type { Reached } from "./narrow.ts"
import { isRowTable, maxConjunctions, tryVisit } from "./reads.ts"
import { none } from "./rules.ts"
import * as Scope from "./scope.ts"
import type { Observer, Target } from "./statement.ts"
import { eachNode, worldOf } from "./tree.ts"
import { maxImages, type Touch, touchOf } from "./writes.ts"

/** By table, as dependencies name it. Of a table that is not here the statement was not looked into. */
type Whys = Map<string, Whole>

const because = (reason: WholeReason, detail?: string): Whole => ({ reason, detail })

/** Why of the tables that a query reads. */
export const whyReads = (statement: Node, reached: Reached, parameters: ReadonlyArray<unknown>): Whys => {
  const { catalog, indirectly, searchPath, without = none } = reached
  const whys: Whys = new Map()
  for (const [{ stamp }, via] of indirectly) whys.set(stamp, because("indirect", via))
  const world = worldOf(statement, catalog, searchPath, without)
  const select = statement.SelectStmt as Node | undefined
  const dropped = new Dropped()
  const visited = select === undefined
    ? undefined
    : tryVisit(world, (visited) => visited.visit(visited.query(select, undefined).item, []), dropped)
  const inPart = new Set<string>()
  eachNode(statement, (node) => {
    if (typeof node.relname !== "string" || visited?.references.has(node)) return
    const relation = Scope.relationOf(world, node)
    if (relation === undefined || whys.has(relation.stamp)) return
    const bound = visited?.tables.get(node)
    const why = isRowTable(relation)
      ? dropped.why(node, bound, parameters, maxConjunctions)
      : because("not-a-table")
    if (why !== undefined) whys.set(relation.stamp, why)
    else inPart.add(relation.stamp)
  })
  // By what stands in one place it would be some rows; in all of them together these are too many.
  for (const stamp of inPart) if (!whys.has(stamp)) whys.set(stamp, because("too-many"))
  return whys
}

/** Why of the tables that a statement writes to. `statement`: undefined for one that is no INSERT, UPDATE or DELETE. */
export const whyWrites = (
  statement: Node | undefined,
  reached: Reached,
  parameters: ReadonlyArray<unknown>
): Whys => {
  const { indirectly, written } = reached
  const direct = statement === undefined ? new Map<Relation, Whole>() : whyDirectly(statement, reached, parameters)
  const whys: Whys = new Map()
  for (const [relation, stamps] of written) {
    const via = indirectly.get(relation)
    const why = via === undefined ? direct.get(relation) : because("indirect", via)
    // A table is written by itself and through its partitions: what makes it whole counts.
    if (why === undefined) continue
    for (const stamp of stamps) if (isLasting(why) || !whys.has(stamp)) whys.set(stamp, why)
  }
  return whys
}

/** Why of the tables that a statement writes to by its own words. */
const whyDirectly = (
  statement: Node,
  { catalog, searchPath, without = none }: Reached,
  parameters: ReadonlyArray<unknown>
): ReadonlyMap<Relation, Whole> => {
  const world = worldOf(statement, catalog, searchPath, without)
  const dropped = new Dropped()
  const whys = new Map<Relation, Whole>()
  tryVisit(world, (visited) => {
    for (const target of visited.targets(statement)) {
      const { node, relation } = target
      const touch = touchOf(visited, target, Object.values(statement)[0] === node)
      const why = typeof touch !== "string"
        ? whyTouch(touch, target, dropped, parameters)
        : because(touch === "insert-select" && isValues(node) ? "too-many" : touch)
      if (isLasting(why) || !whys.has(relation)) whys.set(relation, why)
    }
  }, dropped)
  eachNode(statement, ({ MergeStmt: merge }) => {
    const relation = merge === undefined ? undefined : Scope.relationOf(world, (merge as { relation: Node }).relation)
    if (relation !== undefined) whys.set(relation, because("statement"))
  })
  return whys
}

const whyTouch = (touch: Touch, target: Target, dropped: Dropped, parameters: ReadonlyArray<unknown>): Whole => {
  const isKnown = imagesOf(touch, parameters, undefined) !== undefined
  if (isKnown || touch.returning !== undefined) return because("when-run")
  const why = touch.isInsert ? undefined : dropped.why(target.owner, touch.where, parameters, maxImages)
  if (why !== undefined) return why
  if (!touch.isPlain) return because("before-trigger")
  const isLong = touch.given !== undefined && touch.assigned !== undefined && 3 * touch.given.length > 2 * maxImages
  return because(isLong ? "too-many" : "expression")
}

/** Whether it stays so when the statement has run. */
const isLasting = ({ reason }: Whole): boolean => reason !== "when-run"

const isValues = (node: Node): boolean =>
  (node.selectStmt as { readonly SelectStmt?: Node } | undefined)?.SelectStmt?.valuesLists !== undefined

/** What the rules of a statement had for each table and did not use. */
class Dropped implements Observer {
  private readonly clauses = new Map<object, ReadonlyArray<Clause>>()
  private readonly kept = new Map<object, "outer-join" | "subquery">()

  table(node: object, clauses: ReadonlyArray<Clause>): void {
    this.clauses.set(node, clauses)
  }

  // A method would lose `this` on its way through the visitor.
  readonly withheld = (from: Item, by: "outer-join" | "subquery"): void => {
    for (const owner of ownersIn(from)) this.kept.set(owner, by)
  }

  /** Why all rows of the table that a node names matter, if they do. */
  why(
    node: object,
    bound: Bound | undefined,
    parameters: ReadonlyArray<unknown>,
    limit: number
  ): Whole | undefined {
    if (bound === undefined) return because("statement")
    if (bound.conditions.length === 0) return this.whyNone(node)
    if (bind(bound, parameters, limit, none) !== undefined) return undefined
    return hasValues(bound, parameters, none) ? because("too-many") : because("value", bound.conditions[0][0][0].column)
  }

  /** Why nothing that was said of the table names rows of it: what is closest to doing so comes first. */
  private whyNone(node: object): Whole {
    const clauses = this.clauses.get(node) ?? []
    const atoms = clauses.flat(2)
    const own = atoms.flatMap(({ other, source, variable }) =>
      [variable, other].flatMap((one) =>
        one?.owner === node && one.column !== undefined
          ? [{ name: one.column.name, kind: one.kind, isNamed: source !== undefined || other !== undefined, source }]
          : []
      )
    )
    const untyped = own.find(({ kind }) => kind === undefined)
    if (untyped !== undefined) return because("column-type", untyped.name)
    const computed = own.find(({ isNamed }) => !isNamed)
    if (computed !== undefined) return because("expression", computed.name)
    const valued = own.find(({ source }) => source !== undefined)
    if (valued !== undefined) return because("alternative", valued.name)
    const by = this.kept.get(node)
    if (by !== undefined) return because(by)
    return own.length > 0 ? because("join", own[0].name) : because("no-condition")
  }
}
