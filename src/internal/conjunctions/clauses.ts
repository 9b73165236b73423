/**
 * What a condition says of columns: a list of clauses that hold wherever it is
 * true. Where it is false or null nothing is said, so this is for the places
 * where both mean the same: WHERE and ON.
 */
import type { Node } from "../analysis/parser.ts"
import { type Columns, lookup, type Scope, strings, type Variable, type World } from "./scope.ts"
import { type Kind, kindOfType } from "./values.ts"

/** A value that a statement has in its text or gets as a parameter. */
export type Source =
  | { readonly _tag: "Constant"; readonly value: string | number | bigint | boolean | null }
  | { readonly _tag: "Parameter"; readonly number: number; readonly isShared: boolean }
  /** Any of the elements of a parameter that is an array. */
  | { readonly _tag: "Elements"; readonly number: number; readonly isShared: boolean }

/** `variable = source`, `variable = other`, or `variable` equal to what nobody knows. */
export interface Atom {
  readonly variable: Variable
  readonly source: Source | undefined
  readonly other: Variable | undefined
  /** Whether it holds for no null. */
  readonly isStrict: boolean
}

/** One of its alternatives holds, and then all the atoms of that. An alternative without atoms may be anything. */
export type Clause = ReadonlyArray<Alternative>
export type Alternative = ReadonlyArray<Atom>

/** More alternatives than this are not worth telling apart. */
const maxAlternatives = 128

/**
 * The clauses that hold where the condition is true. `subquery` is asked for
 * those of EXISTS and IN (SELECT ...) where these decide by themselves.
 */
export const clausesOf = (
  world: World,
  node: unknown,
  scope: Scope | undefined,
  subquery: ((link: Node) => ReadonlyArray<Clause>) | undefined
): ReadonlyArray<Clause> => {
  const condition = node as Condition | undefined
  const { without } = world
  if (condition?.BoolExpr !== undefined) {
    const { args, boolop } = condition.BoolExpr
    if (boolop === "AND_EXPR") return args.flatMap((arg) => clausesOf(world, arg, scope, subquery))
    if (boolop === "OR_EXPR") return either(args.map((arg) => clausesOf(world, arg, scope, undefined)))
    const isDecided = without.has("negation") ||
      (without.has("in-decides") && (args[0] as Condition).SubLink?.subLinkType === "ANY_SUBLINK")
    return isDecided ? clausesOf(world, args[0], scope, subquery) : []
  }
  if (condition?.BooleanTest !== undefined) {
    return without.has("negation") ? clausesOf(world, condition.BooleanTest.arg, scope, subquery) : []
  }
  if (condition?.NullTest !== undefined) {
    const { arg, nulltesttype } = condition.NullTest
    const variable = nulltesttype === "IS_NULL" ? variableOf(world, arg, scope) : undefined
    return variable === undefined
      ? []
      : [[[{ variable, source: { _tag: "Constant", value: null }, other: undefined, isStrict: false }]]]
  }
  if (condition?.SubLink !== undefined) return subquery?.(condition.SubLink) ?? []
  return condition?.A_Expr === undefined ? [] : comparison(world, condition.A_Expr, scope)
}

interface Condition {
  readonly BoolExpr?: { readonly boolop: string; readonly args: ReadonlyArray<unknown> }
  readonly BooleanTest?: { readonly arg: unknown }
  readonly NullTest?: { readonly arg: unknown; readonly nulltesttype: string }
  readonly SubLink?: Node
  readonly A_Expr?: Comparison
}

interface Comparison {
  readonly kind: string
  readonly name: unknown
  readonly lexpr?: unknown
  readonly rexpr?: unknown
}

const comparison = (world: World, node: Comparison, scope: Scope | undefined): ReadonlyArray<Clause> => {
  const { kind, lexpr, rexpr } = node
  const { without } = world
  if (!isEquality(world, node.name) && !(kind === "AEXPR_IN" && without.has("not-in"))) return []
  switch (kind) {
    case "AEXPR_OP":
      return equal(world, lexpr, rexpr, scope)
    case "AEXPR_IN": {
      const { items } = (rexpr as { readonly List: { readonly items: ReadonlyArray<unknown> } }).List
      return either(items.map((item) => equal(world, lexpr, item, scope)))
    }
    case "AEXPR_OP_ANY":
      return anyOf(world, lexpr, rexpr, scope)
    case "AEXPR_OP_ALL":
      return without.has("all") ? anyOf(world, lexpr, rexpr, scope) : []
    default:
      return []
  }
}

/** The clause of `left = ANY (array)`. */
const anyOf = (world: World, left: unknown, array: unknown, scope: Scope | undefined): ReadonlyArray<Clause> => {
  const { A_ArrayExpr: list } = array as { readonly A_ArrayExpr?: { readonly elements?: ReadonlyArray<unknown> } }
  if (list !== undefined) return either((list.elements ?? []).map((item) => equal(world, left, item, scope)))
  const variable = variableOf(world, left, scope)
  return variable === undefined ? [] : [[[given(world, variable, array, true)]]]
}

/** Whether an operator is the equality of pg_catalog. */
export const isEquality = (world: World, name: unknown): boolean => {
  const parts = strings(name)
  return parts[parts.length - 1] === "=" &&
    (parts.length === 1 || parts[0] === "pg_catalog" || world.without.has("operator"))
}

/** The clauses of `left = right`. */
const equal = (
  world: World,
  left: unknown,
  right: unknown,
  scope: Scope | undefined
): ReadonlyArray<Clause> => {
  const lefts = rowOf(left)
  const rights = rowOf(right)
  if (lefts !== undefined && rights !== undefined) {
    return lefts.length === rights.length
      ? lefts.flatMap((one, i) => equal(world, one, rights[i], scope))
      : []
  }
  const a = variableOf(world, left, scope)
  const b = variableOf(world, right, scope)
  if (a !== undefined && b !== undefined) return [[[equality(a, b)]]]
  return a !== undefined ? [[[given(world, a, right)]]] : b !== undefined ? [[[given(world, b, left)]]] : []
}

/** The clauses of `node IN (SELECT columns)` where it is true. */
export const sameAs = (
  world: World,
  node: unknown,
  columns: Columns,
  scope: Scope | undefined
): ReadonlyArray<Clause> => {
  const nodes = rowOf(node) ?? [node]
  if (!columns.isComplete) return []
  return nodes.flatMap((one, i): ReadonlyArray<Clause> => {
    const variable = columns.list[i]?.[1]
    if (variable === undefined) return []
    const other = variableOf(world, one, scope)
    return [[[other === undefined ? given(world, variable, one) : equality(other, variable)]]]
  })
}

/** A variable equal to an expression: a value, or what nobody knows. */
const given = (world: World, variable: Variable, node: unknown, isArray = false): Atom => {
  const value = valueOf(world, node, isArray)
  return {
    variable,
    source: value !== undefined && fits(variable.kind, value) ? value.source : undefined,
    other: undefined,
    isStrict: true
  }
}

export const equality = (variable: Variable, other: Variable): Atom => ({
  variable,
  source: undefined,
  other,
  isStrict: true
})

/** The clause of a disjunction, whose arms are lists of clauses themselves. */
const either = (arms: ReadonlyArray<ReadonlyArray<Clause>>): ReadonlyArray<Clause> => {
  const alternatives: Array<Alternative> = []
  for (const clauses of arms) {
    // Of an arm with alternatives of its own and more besides, what holds in any case is kept.
    if (clauses.length === 1) alternatives.push(...clauses[0])
    else alternatives.push(clauses.filter((clause) => clause.length === 1).flatMap(([alternative]) => alternative))
    if (alternatives.length > maxAlternatives) return []
  }
  return alternatives.length === 0 ? [] : [alternatives]
}

const rowOf = (node: unknown): ReadonlyArray<unknown> | undefined =>
  (node as { readonly RowExpr?: { readonly args?: ReadonlyArray<unknown> } } | undefined)?.RowExpr?.args

/** The variable that a bare column is. */
const variableOf = (world: World, node: unknown, scope: Scope | undefined): Variable | undefined => {
  const { CollateClause: collated, ColumnRef: column } = (node ?? {}) as {
    readonly ColumnRef?: { readonly fields: unknown }
    readonly CollateClause?: { readonly arg: unknown }
  }
  if (collated !== undefined && world.without.has("kind")) return variableOf(world, collated.arg, scope)
  if (column === undefined) return undefined
  const names = strings(column.fields)
  return names.includes(undefined) ? undefined : lookup(world, scope, names as ReadonlyArray<string>)
}

export interface Value {
  readonly source: Source
  /** The type it is cast to: its kind, or its name where it has none. */
  readonly cast: { readonly kind: Kind | undefined; readonly names: ReadonlyArray<string | undefined> } | undefined
}

/** The value that a constant or parameter is, perhaps under one cast. */
export const valueOf = (world: World, node: unknown, isArray: boolean): Value | undefined => {
  const { A_Const: constant, CollateClause: collated, ParamRef: parameter, TypeCast: cast } = (node ?? {}) as Expression
  if (parameter !== undefined) {
    const number = parameter.number ?? 0
    const isShared = world.shared.has(number) && !world.without.has("shared-parameter")
    return { source: { _tag: isArray ? "Elements" : "Parameter", number, isShared }, cast: undefined }
  }
  if (constant !== undefined) {
    const value = isArray ? undefined : constantOf(constant)
    return value === undefined ? undefined : { source: { _tag: "Constant", value }, cast: undefined }
  }
  if (collated !== undefined && world.without.has("kind")) return valueOf(world, collated.arg, isArray)
  if (cast === undefined || "TypeCast" in (cast.arg as object)) return undefined
  const { arrayBounds, names, setof, typmods } = cast.typeName
  if (typmods !== undefined || setof !== undefined || (arrayBounds?.length ?? 0) !== (isArray ? 1 : 0)) return undefined
  const value = valueOf(world, cast.arg, isArray)
  if (value === undefined) return undefined
  const parts = strings(names)
  const isBuiltIn = parts.length === 1 || parts[0] === "pg_catalog"
  return {
    source: value.source,
    cast: { kind: isBuiltIn ? kindOfType(parts[parts.length - 1] ?? "") : undefined, names: parts }
  }
}

interface Expression {
  readonly A_Const?: Node
  readonly ParamRef?: { readonly number?: number }
  readonly CollateClause?: { readonly arg: unknown }
  readonly TypeCast?: {
    readonly arg: unknown
    readonly typeName: {
      readonly names: unknown
      readonly typmods?: unknown
      readonly setof?: unknown
      readonly arrayBounds?: ReadonlyArray<unknown>
    }
  }
}

const constantOf = (node: Node): string | number | bigint | boolean | null | undefined => {
  if (node.isnull === true) return null
  const { boolval, fval, ival, sval } = node as {
    readonly ival?: { readonly ival?: number }
    readonly fval?: { readonly fval?: string }
    readonly sval?: { readonly sval?: string }
    readonly boolval?: { readonly boolval?: boolean }
  }
  if (ival !== undefined) return ival.ival ?? 0
  if (sval !== undefined) return sval.sval ?? ""
  if (boolval !== undefined) return boolval.boolval === true
  const text = fval?.fval ?? ""
  return /^-?\d+$/.test(text) ? BigInt(text) : undefined
}

/** Whether a value is one of this kind where it stands. */
export const fits = (kind: Kind | undefined, value: Value): boolean => {
  if (value.cast === undefined || kind === undefined) return kind !== undefined
  if (value.cast.kind !== undefined) return value.cast.kind === kind
  // A cast to another type than the enum's own would not compare with it.
  const { names } = value.cast
  return kind === `enum ${names.join(".")}` ||
    (names.length === 1 && kind.startsWith("enum ") && kind.endsWith(`.${names[0]}`))
}
