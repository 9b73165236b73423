/**
 * Which queries are transparent: a condition on one of their columns says
 * something of the rows that they are made of.
 */
import type { Node } from "../analysis/parser.ts"
import { lookup, type Scope, strings, type World } from "./scope.ts"

export const isLimited = (world: World, node: Node): boolean =>
  (node.limitCount !== undefined || node.limitOffset !== undefined) && !world.without.has("through-limit")

/** Whether each row that the query answers with comes from one combination of its items, in every case. */
export const isTransparent = (world: World, node: Node, scope: Scope): boolean => {
  const { without } = world
  if (isLimited(world, node)) return false
  const [distinct] = (node.distinctClause ?? []) as ReadonlyArray<object>
  if (distinct !== undefined && Object.keys(distinct).length > 0 && !without.has("through-distinct-on")) return false
  if (!without.has("through-aggregate") && (node.groupClause !== undefined || node.havingClause !== undefined)) {
    return false
  }
  return isPlain(world, [node.targetList, node.sortClause], scope)
}

/** Whether expressions have neither an aggregate nor a window function in them. */
const isPlain = (world: World, node: unknown, scope: Scope): boolean => {
  if (typeof node !== "object" || node === null) return true
  if (Array.isArray(node)) return node.every((one) => isPlain(world, one, scope))
  const { without } = world
  return Object.entries(node).every(([type, value]) => {
    switch (type) {
      case "ColumnRef": {
        // `t.count` calls a function where there is no such column.
        const names = strings(value.fields)
        return names.includes(undefined) || names.length === 1 ||
          lookup(world, scope, names as ReadonlyArray<string>) !== undefined
      }
      case "FuncCall": {
        const name = strings(value.funcname).at(-1) ?? ""
        const isWindow = value.over !== undefined
        if (isWindow ? without.has("through-window") : without.has("through-aggregate")) return true
        return !isWindow && plainFunctions.has(name) && !world.catalog.functionsByName.has(name) &&
          isPlain(world, value.args, scope)
      }
      default:
        return !/^[A-Z]/.test(type) || plainNodes.has(type) ? isPlain(world, value, scope) : false
    }
  })
}

const words = (text: string): ReadonlySet<string> => new Set(text.trim().split(/\s+/))

/** What an expression may consist of that surely is no aggregate. */
const plainNodes = words(`
  A_ArrayExpr A_Const A_Expr A_Indices A_Indirection A_Star BoolExpr BooleanTest CaseExpr CaseWhen CoalesceExpr
  CollateClause Integer List MinMaxExpr NullTest ParamRef ResTarget RowExpr SortBy String TypeCast TypeName
`)

const plainFunctions = words(`
  abs btrim ceil concat date_trunc extract floor initcap left length lower lpad ltrim md5 now nullif replace right
  round rpad rtrim substring to_char trim upper
`)
