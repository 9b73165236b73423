/**
 * From a statement's tree to the conditions on each of its tables.
 *
 * Every query in it is visited once, with the conditions that hold outside of it
 * for whatever it is asked for. What is not understood is not visited, and a
 * table that was not visited is read as a whole.
 */
import type { Node } from "../analysis/parser.ts"
import type { Relation } from "../catalog/model.ts"
import { type Bound, bound } from "./bound.ts"
import { type Clause, clausesOf, equality, isEquality, sameAs } from "./clauses.ts"
import { descend, type Inner, type Inside, type Item, type Outer, type Union, type Visitor } from "./items.ts"
import * as Scope from "./scope.ts"
import { isLimited, isTransparent } from "./transparency.ts"
import { countNames, isLeaf } from "./tree.ts"

type Columns = Scope.Columns
type Variable = Scope.Variable

/** An item of FROM with what it is called. */
interface From {
  readonly item: Item
  readonly names: Scope.Names
}

/** A query with its columns. */
interface Query {
  readonly item: Item
  readonly columns: Columns
  /** Whether a condition on one of its columns says something of its rows. */
  readonly isTransparent: boolean
}

/** What an INSERT, UPDATE or DELETE writes to. */
export interface Target {
  readonly type: WriteType
  /** The statement's node. */
  readonly node: Node
  readonly relation: Relation
  /** Identifies the columns of its rows. */
  readonly owner: object
  /** The columns of its rows, and of the other tables in it. */
  readonly scope: Scope.Scope
  /** What its rows fulfil before they are written. */
  readonly where: Bound | undefined
}

export type WriteType = "InsertStmt" | "UpdateStmt" | "DeleteStmt"

const isWriteType = (type: string): type is WriteType =>
  type === "InsertStmt" || type === "UpdateStmt" || type === "DeleteStmt"

/** What `explain` asks to be told while a statement is visited. */
export interface Observer {
  /** The clauses that were handed down to a table. */
  readonly table: (node: object, clauses: ReadonlyArray<Clause>) => void
  readonly withheld: NonNullable<Visitor["withheld"]>
}

export class Statement {
  readonly world: Scope.World
  /** The tables that were visited, by the node that names them. */
  readonly tables = new Map<object, Bound>()
  /** The nodes that name a query of a WITH clause. */
  readonly references = new Set<object>()
  private readonly open = new Set<object>()
  /** Queries of WITH clauses that write. */
  private readonly writing: Array<{ readonly statement: Node; readonly scope: Scope.Scope | undefined }> = []

  private readonly visitor: Visitor

  constructor(world: Scope.World, observer?: Observer) {
    this.world = world
    this.visitor = {
      table: ({ node, relation }, clauses) => {
        observer?.table(node, clauses)
        this.tables.set(node, bound(node, relation, clauses, world.without))
      },
      inside: ({ nodes, scope, taken }, clauses) => {
        for (const node of nodes) this.inside(node, scope, taken, clauses)
      },
      withheld: observer?.withheld
    }
  }

  /** Visits the items of a query, under clauses that hold for it from outside. */
  visit(item: Item, clauses: ReadonlyArray<Clause>): void {
    descend(this.world, item, clauses, this.visitor)
  }

  /** What a statement writes to by its own words. */
  targets(statement: Node): ReadonlyArray<Target> {
    const targets: Array<Target> = []
    const add = (statement: Node, outer: Scope.Scope | undefined): void => {
      const [type] = Object.keys(statement)
      const node = statement[type] as Node
      const scope = this.enterWith(node.withClause as WithClause | undefined, outer, [])
      const target = isWriteType(type) ? this.target(type, node, scope) : undefined
      if (target !== undefined) targets.push(target)
    }
    add(statement, undefined)
    for (const { scope, statement } of this.writing) add(statement, scope)
    return targets
  }

  private target(type: WriteType, node: Node, scope: Scope.Scope | undefined): Target | undefined {
    const named = node.relation as Node
    const relation = Scope.relationOf(this.world, named)
    if (relation === undefined) return undefined
    const name = (named.alias as Alias | undefined)?.aliasname ?? relation.name
    const target = tableOf(this.world, named, relation, name, [])
    const { items, names } = this.fromList(node.fromClause ?? node.usingClause, scope)
    const own = Scope.inner(scope, Scope.beside(target.names, names))
    const all = [target.item, ...items]
    const on = clausesOf(this.world, node.whereClause, own, this.deciding(own, all, new Set()))
    this.visit({ _tag: "Inner", node, items: all, on, inside: [] }, [])
    return { type, node, relation, owner: named, scope: own, where: this.tables.get(named) }
  }

  private inside(
    node: unknown,
    scope: Scope.Scope | undefined,
    taken: ReadonlySet<unknown>,
    clauses: ReadonlyArray<Clause>
  ): void {
    if (typeof node !== "object" || node === null || taken.has(node)) return
    if (Array.isArray(node)) {
      for (const value of node) this.inside(value, scope, taken, clauses)
      return
    }
    for (const name in node) {
      const value = (node as Node)[name]
      if (name === "SelectStmt") this.visit(this.query(value as Node, scope).item, clauses)
      else if (!isLeaf(name)) this.inside(value, scope, taken, clauses)
    }
  }

  /** The items of a query, whatever it is. */
  query(node: Node, outer: Scope.Scope | undefined): Query {
    const pending: Array<Inside> = []
    const scope = this.enterWith(node.withClause as WithClause | undefined, outer, pending)
    if (node.op !== undefined && node.op !== "SETOP_NONE") return this.union(node, scope, pending)
    if (node.valuesLists !== undefined) {
      const [first] = node.valuesLists as ReadonlyArray<{ readonly List: { readonly items: ReadonlyArray<unknown> } }>
      return {
        item: { _tag: "Opaque", node, items: [], inside: [...pending, expressions([node.valuesLists], scope)] },
        columns: {
          list: first.List.items.map((_, i) => [`column${i + 1}`, Scope.opaque(node)] as const),
          isOpen: false,
          isComplete: true
        },
        isTransparent: false
      }
    }
    return this.core(node, scope, pending)
  }

  private core(node: Node, scope: Scope.Scope | undefined, pending: ReadonlyArray<Inside>): Query {
    const { items, names } = this.fromList(node.fromClause, scope)
    const own = Scope.inner(scope, names)
    const taken = new Set<unknown>()
    const on = clausesOf(this.world, node.whereClause, own, this.deciding(own, items, taken))
    const { fromClause: _, withClause: __, ...rest } = node
    const columns = this.outputs(node.targetList, node, own)
    const item: Inner = {
      _tag: "Inner",
      node,
      items,
      on,
      inside: [...pending, { nodes: [rest], scope: own, taken }]
    }
    return { item, columns, isTransparent: isTransparent(this.world, node, own) }
  }

  private union(node: Node, scope: Scope.Scope | undefined, pending: ReadonlyArray<Inside>): Query {
    const arms = [node.larg, node.rarg].map((arm) => this.query(arm as Node, scope))
    const [left, right] = arms
    const inside = [...pending, expressions([node.sortClause, node.limitCount, node.limitOffset], scope)]
    const isSame = left.columns.isComplete && right.columns.isComplete &&
      left.columns.list.length === right.columns.list.length
    const { without } = this.world
    if (isSame && arms.every((arm) => arm.isTransparent) && !isLimited(this.world, node)) {
      const maps = arms.map(() => new Map<Variable, Variable>())
      const item: Union = { _tag: "Union", arms: arms.map((arm, i) => ({ item: arm.item, variables: maps[i] })) }
      const list = left.columns.list.map(([name, a], i) => {
        const b = right.columns.list[i][1]
        const kind = a.kind === b.kind || without.has("through-set-operation") ? a.kind : undefined
        const variable: Variable = { owner: item, column: undefined, kind, merged: undefined }
        if (kind !== undefined) {
          maps[0].set(variable, a)
          maps[1].set(variable, b)
        }
        return [name, variable] as const
      })
      return {
        item: { _tag: "Inner", node, items: [item], on: [], inside },
        columns: { list, isOpen: left.columns.isOpen, isComplete: true },
        isTransparent: true
      }
    }
    return {
      item: { _tag: "Opaque", node, items: arms.map((arm) => arm.item), inside },
      columns: closed(left.columns, node),
      isTransparent: false
    }
  }

  private fromList(list: unknown, scope: Scope.Scope | undefined): { readonly items: Array<Item>; names: Scope.Names } {
    const items: Array<Item> = []
    let names = Scope.noNames
    for (const node of (list ?? []) as ReadonlyArray<Node>) {
      const one = this.from(node, scope, names)
      items.push(one.item)
      names = Scope.beside(names, one.names)
    }
    return { items, names }
  }

  /** An item of FROM; `before`: what stands to its left, which LATERAL may refer to. */
  from(node: Node, scope: Scope.Scope | undefined, before: Scope.Names): From {
    const [type] = Object.keys(node)
    const value = node[type] as Node
    const alias = (value.alias ?? {}) as Alias
    switch (type) {
      case "RangeVar":
        return this.relation(value, scope)
      case "RangeSubselect": {
        const select = (value.subquery as { readonly SelectStmt?: Node }).SelectStmt
        if (select === undefined) break
        const query = this.query(select, value.lateral === true ? Scope.inner(scope, before) : scope)
        return this.derived(query, select, alias.aliasname, Scope.strings(alias.colnames))
      }
      case "JoinExpr":
        return this.join(value, scope, before)
    }
    // A function may refer to what stands to its left without saying so.
    return {
      item: {
        _tag: "Opaque",
        node: value,
        items: [],
        inside: [expressions([value], Scope.inner(scope, before))]
      },
      names: Scope.named(alias.aliasname, Scope.open)
    }
  }

  /** A query as an item of FROM. */
  private derived(
    query: Query,
    node: object,
    alias: string | undefined,
    names: ReadonlyArray<string | undefined>
  ): From {
    const item: Item = query.isTransparent
      ? query.item
      : { _tag: "Opaque", node, items: [query.item], inside: [] }
    const columns = query.isTransparent ? query.columns : closed(query.columns, node)
    return { item, names: Scope.named(alias, Scope.renamed(columns, names)) }
  }

  private relation(node: Node, scope: Scope.Scope | undefined): From {
    const alias = (node.alias ?? {}) as Alias
    const name = alias.aliasname ?? node.relname as string
    const names = Scope.strings(alias.colnames)
    const common = node.schemaname === undefined ? Scope.commonQuery(scope, node.relname as string) : undefined
    if (common !== undefined) {
      this.references.add(node)
      if (common.isInlined && !this.open.has(common)) {
        this.open.add(common)
        const query = this.query(common.query, common.scope())
        this.open.delete(common)
        const columns = Scope.renamed(query.columns, common.names)
        return this.derived({ ...query, columns }, node, name, names)
      }
      return {
        item: { _tag: "Opaque", node, items: [], inside: [] },
        names: Scope.named(name, Scope.open)
      }
    }
    const relation = Scope.relationOf(this.world, node)
    if (relation === undefined) {
      return { item: { _tag: "Opaque", node, items: [], inside: [] }, names: Scope.named(name, Scope.open) }
    }
    return tableOf(this.world, node, relation, name, names)
  }

  private join(node: Node, scope: Scope.Scope | undefined, before: Scope.Names): From {
    const left = this.from(node.larg as Node, scope, before)
    const right = this.from(node.rarg as Node, scope, Scope.beside(before, left.names))
    const type = node.jointype as string
    const isInner = type === "JOIN_INNER"
    const using = this.using(node, left, right)
    const names = using === undefined ? Scope.beside(left.names, right.names) : using.names
    const own = Scope.inner(scope, names)
    const taken = new Set<unknown>()
    const items = [left.item, right.item]
    const on = [
      ...clausesOf(this.world, node.quals, own, isInner ? this.deciding(own, items, taken) : undefined),
      ...(using?.clauses ?? [])
    ]
    const inside: ReadonlyArray<Inside> = [{ nodes: [node.quals], scope: own, taken }]
    const item: Inner | Outer = isInner
      ? { _tag: "Inner", node, items, on, inside }
      : {
        _tag: "Outer",
        isFull: type === "JOIN_FULL",
        merged: using?.merged ?? [],
        left: type === "JOIN_RIGHT" ? right.item : left.item,
        right: type === "JOIN_RIGHT" ? left.item : right.item,
        on,
        inside
      }
    const alias = node.alias as Alias | undefined
    const usingAlias = (node.join_using_alias as Alias | undefined)?.aliasname
    if (alias !== undefined) {
      const columns: Columns = {
        list: names.columns.flatMap((columns) => columns.list),
        isOpen: names.columns.some((columns) => columns.isOpen),
        isComplete: names.columns.every((columns) => columns.isComplete)
      }
      return { item, names: Scope.named(alias.aliasname, Scope.renamed(columns, Scope.strings(alias.colnames))) }
    }
    if (usingAlias === undefined) return { item, names }
    return { item, names: { ...names, tables: new Map([...names.tables, [usingAlias, Scope.open]]) } }
  }

  /** What USING and NATURAL make of the columns of both sides. */
  private using(node: Node, left: From, right: From): Using | undefined {
    const lefts = left.names.columns.flatMap((columns) => columns.list)
    const rights = right.names.columns.flatMap((columns) => columns.list)
    const isOpen = [...left.names.columns, ...right.names.columns].some((columns) => columns.isOpen)
    const both = Scope.beside(left.names, right.names)
    if (node.isNatural === true && isOpen) {
      return { names: { ...both, columns: [Scope.open] }, clauses: [], merged: [] }
    }
    const shared = node.isNatural === true
      ? lefts.map(([name]) => name).filter((name) => rights.some(([other]) => other === name))
      : node.usingClause === undefined
      ? undefined
      : Scope.strings(node.usingClause)
    if (shared === undefined) return undefined
    const merged: Array<Variable> = []
    const clauses: Array<Clause> = []
    const list = shared.map((name) => {
      const a = lefts.filter(([one]) => one === name)
      const b = rights.filter(([one]) => one === name)
      if (a.length !== 1 || b.length !== 1) return [name ?? "", Scope.opaque(node)] as const
      const [[, one], [, other]] = [a[0], b[0]]
      clauses.push([[equality(one, other)]])
      // It is of a type that both can be brought to, and compared as such.
      if (one.kind !== other.kind && !this.world.without.has("same-kind")) return [name!, Scope.opaque(node)] as const
      switch (node.jointype) {
        case "JOIN_FULL": {
          const variable = Scope.merge(one, other)
          merged.push(variable)
          return [name!, variable] as const
        }
        case "JOIN_RIGHT":
          return [name!, other] as const
        default:
          return [name!, one] as const
      }
    })
    const rest = both.columns.map((columns) => ({
      ...columns,
      list: columns.list.filter(([name]) => !shared.includes(name))
    }))
    return { names: { ...both, columns: [{ list, isOpen: false, isComplete: true }, ...rest] }, clauses, merged }
  }

  /**
   * EXISTS and IN (SELECT ...) as joins: where they stand alone in a condition,
   * only what they find matters, and it fulfils both conditions.
   */
  private deciding(scope: Scope.Scope, items: Array<Item>, taken: Set<unknown>) {
    return (link: Node): ReadonlyArray<Clause> => {
      const select = (link.subselect as { readonly SelectStmt?: Node } | undefined)?.SelectStmt
      const isExists = link.subLinkType === "EXISTS_SUBLINK"
      if (select === undefined || !(isExists || link.subLinkType === "ANY_SUBLINK")) return []
      if (link.operName !== undefined && !isEquality(this.world, link.operName)) return []
      const query = this.query(select, scope)
      if (!query.isTransparent) return []
      items.push(query.item)
      taken.add(link.subselect)
      return isExists ? [] : sameAs(this.world, link.testexpr, query.columns, scope)
    }
  }

  /** The columns that a query answers with. */
  outputs(list: unknown, owner: object, scope: Scope.Scope): Columns {
    const columns: Array<readonly [string, Variable]> = []
    let isOpen = false
    let isComplete = true
    const append = (more = Scope.open) => {
      isOpen ||= more.isOpen
      isComplete &&= more.isComplete
      columns.push(...more.list)
    }
    for (const { ResTarget: target } of (list ?? []) as ReadonlyArray<{ readonly ResTarget: Node }>) {
      const fields = (target.val as Expression).ColumnRef?.fields
      const names = Scope.strings(fields)
      if (names.length > 0 && names[names.length - 1] === undefined) {
        if (names.length === 1) { for (const one of scope.names!.columns) append(one) }
        else append(names.length === 2 ? scope.names!.tables.get(names[0]!) : undefined)
        continue
      }
      const variable = fields === undefined || names.includes(undefined)
        ? undefined
        : Scope.lookup(this.world, scope, names as ReadonlyArray<string>)
      const name = (target.name ?? names[names.length - 1] ?? functionName(target.val)) as string | undefined
      // Its name is not known, and so might be any.
      if (name === undefined) isOpen = true
      columns.push([name ?? "", variable ?? Scope.opaque(owner)])
    }
    return { list: columns, isOpen, isComplete }
  }

  private enterWith(
    clause: WithClause | undefined,
    outer: Scope.Scope | undefined,
    pending: Array<Inside>
  ): Scope.Scope | undefined {
    if (clause === undefined) return outer
    const { uses, without } = this.world
    const isRecursive = clause.recursive === true
    const all = new Map<string, Scope.CommonQuery>()
    const whole: Scope.Scope = { outer, names: undefined, queries: all }
    let before = outer
    for (const { CommonTableExpr: one } of clause.ctes ?? []) {
      const name = one.ctename as string
      const query = (one.ctequery as { readonly SelectStmt?: Node }).SelectStmt
      const scope = isRecursive ? whole : before
      const isItself = isRecursive && countNames(one.ctequery, name) > 0
      const isAlone = uses.get(name) === 1 || without.has("through-shared-cte")
      const isInlined = query !== undefined && one.cycle_clause === undefined && one.search_clause === undefined &&
        (isItself ? without.has("through-recursion") : isAlone)
      const common: Scope.CommonQuery = {
        query: query ?? {},
        names: Scope.strings(one.aliascolnames),
        scope: () => scope,
        isInlined
      }
      if (query === undefined) this.writing.push({ statement: one.ctequery as Node, scope })
      else if (!isInlined) pending.push(expressions([one.ctequery], scope))
      all.set(name, common)
      before = { outer: before, names: undefined, queries: new Map([[name, common]]) }
    }
    return isRecursive ? whole : before
  }
}

interface Alias {
  readonly aliasname?: string
  readonly colnames?: unknown
}

interface WithClause {
  readonly recursive?: boolean
  readonly ctes?: ReadonlyArray<{ readonly CommonTableExpr: Node }>
}

interface Expression {
  readonly ColumnRef?: { readonly fields: unknown }
  readonly FuncCall?: { readonly funcname: unknown }
}

interface Using {
  readonly names: Scope.Names
  readonly clauses: ReadonlyArray<Clause>
  readonly merged: ReadonlyArray<Variable>
}

const nothingTaken: ReadonlySet<unknown> = new Set()

const expressions = (nodes: ReadonlyArray<unknown>, scope: Scope.Scope | undefined): Inside => ({
  nodes,
  scope,
  taken: nothingTaken
})

/** The columns of what conditions do not pass into. */
const closed = (columns: Columns, owner: object): Columns => ({
  ...columns,
  list: columns.list.map(([name]) => [name, Scope.opaque(owner)] as const)
})

const functionName = (node: unknown): string | undefined =>
  Scope.strings((node as Expression).FuncCall?.funcname).at(-1)

/** A table of the catalog as an item. */
export const tableOf = (
  world: Scope.World,
  node: object,
  relation: Relation,
  name: string,
  names: ReadonlyArray<string | undefined>
): From => {
  const isTable = relation.kind === "table" || relation.kind === "partitioned"
  const columns: Columns = {
    list: relation.columns.map((column) =>
      [column.name, isTable ? Scope.ofColumn(world, node, column) : Scope.opaque(node)] as const
    ),
    isOpen: false,
    isComplete: true
  }
  return {
    item: isTable ? { _tag: "Table", node, relation } : { _tag: "Opaque", node, items: [], inside: [] },
    names: Scope.named(name, Scope.renamed(columns, names))
  }
}
