/**
 * From the syntax tree of a text to its analysis.
 */
import { fromRelation } from "../../Dependency.ts"
import type { Analysis, Refused, Session, Write } from "../../QueryAnalyzer.ts"
import type { Node } from "./parser.ts"
import * as Walk from "./walk.ts"

export const analyze = (statements: ReadonlyArray<Node>, declared: Walk.Declared): Analysis => {
  switch (statements.length) {
    case 0:
      return refused("empty", "no statement", "nothing")
    case 1:
      return single(statements[0], declared)
    default:
      return several(statements.map((statement) => single(statement, declared)))
  }
}

export const refused = (code: Refused["code"], detail: string, writes: Refused["writes"]): Refused => ({
  _tag: "Refused",
  code,
  detail,
  writes
})

const session = (control: Session["control"], options?: { savepoint?: string; chain?: boolean }): Session => ({
  _tag: "Session",
  control,
  savepoint: options?.savepoint,
  chain: options?.chain === true
})

const other = session("other")

const write = (
  tables: Iterable<string>,
  options?: { reads?: Iterable<string>; all?: boolean; atomic?: boolean; control?: ReadonlyArray<Session> }
): Write => ({
  _tag: "Write",
  tables: dependencies(tables),
  reads: dependencies(options?.reads ?? []),
  all: options?.all === true,
  atomic: options?.atomic !== false,
  control: options?.control ?? []
})

const dependencies = (relations: Iterable<string>): ReadonlyArray<string> =>
  Array.from(relations, (name) => fromRelation(name).table).sort()

/** Writes that nobody can name. */
const anything = (atomic: boolean): Write => write([], { all: true, atomic })

const single = (statement: Node, declared: Walk.Declared): Analysis => {
  const type = Object.keys(statement)[0] ?? ""
  const node = statement[type] as Node
  switch (type) {
    case "SelectStmt":
    case "InsertStmt":
    case "UpdateStmt":
    case "DeleteStmt":
    case "MergeStmt":
      return query(statement, declared)

    case "TransactionStmt":
      return transaction(node)

    case "TruncateStmt":
      // CASCADE goes on to tables that only the catalog knows.
      return write(relations(node.relations), { all: node.behavior === "DROP_CASCADE" })

    case "RefreshMatViewStmt":
      return write(relations([node.relation]))

    case "CopyStmt":
      return copy(node, declared)

    case "ExplainStmt":
      return explain(node, declared)

    case "DeclareCursorStmt":
      // The query runs as rows are fetched, in the same transaction: what it may write is counted here.
      return unanswered("DECLARE CURSOR", single(node.query as Node, declared))

    // The text behind the name is a single SELECT, VALUES or write.
    case "ExecuteStmt":
      return anything(true)

    // These may commit in between.
    case "CallStmt":
    case "DoStmt":
      return anything(false)

    case "CheckPointStmt":
    case "ClosePortalStmt":
    case "ClusterStmt":
    case "ConstraintsSetStmt":
    case "DeallocateStmt":
    case "DiscardStmt":
    case "FetchStmt":
    case "ListenStmt":
    case "LoadStmt":
    case "LockStmt":
    case "NotifyStmt":
    case "PrepareStmt":
    case "ReindexStmt":
    case "UnlistenStmt":
    case "VacuumStmt":
    case "VariableSetStmt":
    case "VariableShowStmt":
      return other

    // Whatever else the grammar has changes the schema, or is newer than this list.
    default:
      return { _tag: "Ddl" }
  }
}

const query = (statement: Node, declared: Walk.Declared): Analysis => {
  const facts = Walk.walk(statement, declared)
  if (facts.createsTable) return { _tag: "Ddl" }
  const unknown = facts.objections.find((objection) => objection.mayWrite)
  if (facts.writes.size > 0) {
    return write(facts.writes, { reads: facts.reads, all: facts.writesCatalog || unknown !== undefined })
  }
  const objection = unknown ?? facts.objections[0]
  if (objection !== undefined) {
    return refused(objection.code, objection.detail, objection.mayWrite ? "anything" : "nothing")
  }
  return { _tag: "Read", tables: dependencies(facts.reads), timeDependent: facts.timeDependent }
}

/** A statement around a query whose answer is not the query's: what is left is what the query writes. */
const unanswered = (what: string, inner: Analysis): Analysis => {
  switch (inner._tag) {
    case "Write":
    case "Ddl":
      return inner
    default:
      return refused("not-a-query", what, inner._tag === "Refused" ? inner.writes : "nothing")
  }
}

const copy = (node: Node, declared: Walk.Declared): Analysis => {
  if (node.query !== undefined) return unanswered("COPY TO", single(node.query as Node, declared))
  if (node.is_from !== true) return refused("not-a-query", "COPY TO", "nothing")
  const facts = Walk.walk(node.whereClause, declared)
  return write(relations([node.relation]), {
    reads: facts.reads,
    all: facts.objections.some((objection) => objection.mayWrite)
  })
}

const explain = (node: Node, declared: Walk.Declared): Analysis => {
  let runs = false
  for (const { DefElem: option } of (node.options ?? []) as ReadonlyArray<{ readonly DefElem: Node }>) {
    if (option.defname === "analyze") runs = !isOff(option.arg as Node | undefined)
  }
  const inner = runs ? single(node.query as Node, declared) : other
  return unanswered("EXPLAIN", inner)
}

// As PostgreSQL reads a boolean option; whatever it would refuse counts as on.
const isOff = (arg: Node | undefined): boolean => {
  const text = (arg?.String as { readonly sval?: string } | undefined)?.sval
  if (text !== undefined) return text.toLowerCase() === "false" || text.toLowerCase() === "off"
  const number = arg?.Integer as { readonly ival?: number } | undefined
  return number !== undefined && (number.ival ?? 0) === 0
}

const transaction = (node: Node): Analysis => {
  const chain = node.chain === true
  const savepoint = node.savepoint_name as string
  switch (node.kind) {
    case "TRANS_STMT_BEGIN":
    case "TRANS_STMT_START":
      return session("begin")
    case "TRANS_STMT_COMMIT":
      return session("commit", { chain })
    case "TRANS_STMT_ROLLBACK":
      return session("rollback", { chain })
    case "TRANS_STMT_SAVEPOINT":
      return session("savepoint", { savepoint })
    case "TRANS_STMT_RELEASE":
      return session("release", { savepoint })
    case "TRANS_STMT_ROLLBACK_TO":
      return session("rollbackTo", { savepoint })
    // Ends the session's transaction without deciding it. Taken for a commit, which invalidates too early and, with
    // COMMIT PREPARED, a second time.
    case "TRANS_STMT_PREPARE":
      return session("commit")
    // Commits what another session may have written.
    case "TRANS_STMT_COMMIT_PREPARED":
      return anything(false)
    default:
      return other
  }
}

const several = (analyses: ReadonlyArray<Analysis>): Analysis => {
  const tables = new Set<string>()
  const reads = new Set<string>()
  const control: Array<Session> = []
  let all = false
  let writes = false
  for (const analysis of analyses) {
    switch (analysis._tag) {
      case "Read":
        for (const table of analysis.tables) reads.add(table)
        break
      case "Write":
        writes = true
        all ||= analysis.all
        for (const table of analysis.tables) tables.add(table)
        for (const table of analysis.reads) reads.add(table)
        break
      case "Ddl":
        writes = all = true
        break
      case "Session":
        if (analysis.control !== "other") control.push(analysis)
        break
      case "Refused":
        if (analysis.writes === "anything") all = true
        else if (analysis.writes !== "nothing") { for (const table of analysis.writes) tables.add(table) }
    }
  }
  if (writes || control.length > 0) {
    // The names are dependencies already.
    return { ...write([], { all, atomic: false, control }), tables: [...tables].sort(), reads: [...reads].sort() }
  }
  if (analyses.every((analysis) => analysis._tag === "Session")) return other
  return refused("several-statements", `${analyses.length} statements`, all ? "anything" : "nothing")
}

const relations = (list: unknown): Array<string> =>
  (list as ReadonlyArray<Node>).map((node) => ((node.RangeVar ?? node) as { readonly relname: string }).relname)
