/**
 * From the syntax tree of a text to its analysis.
 */
import { fromRelation } from "../../Dependency.ts"
import type { Analysis, Read, Refused, Session, Whole, Write } from "../../QueryAnalyzer.ts"
import { narrowReads, narrowWrites, type Reached } from "../conjunctions/narrow.ts"
import { whyReads, whyWrites } from "../conjunctions/why.ts"
import type { Node } from "./parser.ts"
import { changesNames, discarded, type Setting, settingsOf } from "./settings.ts"
import * as Walk from "./walk.ts"

export const analyze = (
  statements: ReadonlyArray<Node>,
  declared: Walk.Declared,
  judge: Judge = byNames
): Analysis => {
  switch (statements.length) {
    case 0:
      return refused("empty", "no statement", "nothing")
    case 1:
      return conclude(draft(statements[0], declared), judge)
    default:
      return several(statements.map((statement) => conclude(draft(statement, declared), judge)))
  }
}

/** Why a text reads or writes all of a table. */
export const why = (
  statements: ReadonlyArray<Node>,
  declared: Walk.Declared,
  judge: Judge,
  parameters: ReadonlyArray<unknown>
): (table: string) => Whole => {
  const one = statements.length === 1 ? draft(statements[0], declared) : undefined
  if (one === undefined || !("facts" in one)) return notLookedInto
  const { reached, writes } = judge(one.facts)
  if (reached === undefined) return () => ({ reason: "search-path", detail: undefined })
  const statement = one._tag === "Query" ? one.statement : undefined
  const isWrite = statement === undefined || one.facts.writes.size > 0 || [...writes].length > 0
  const whys = isWrite ? whyWrites(statement, reached, parameters) : whyReads(statement, reached, parameters)
  return (table) => whys.get(table) ?? notLookedInto()
}

export const notLookedInto = (): Whole => ({ reason: "statement", detail: undefined })

/** What becomes of the names in a text. */
export interface Verdict {
  /** As dependencies name them. */
  readonly reads: Iterable<string>
  readonly writes: Iterable<string>
  /** What may write anywhere, if something may. */
  readonly opaque: string | undefined
  readonly objections: ReadonlyArray<Walk.Objection>
  readonly timeDependent: boolean
  /** What it leaves behind in its session. */
  readonly settings: ReadonlyArray<Setting>
  /** Whether a name in it means nothing, where it is known what names mean. */
  readonly isDoubtful?: boolean | undefined
  /** Tells one definition of all that it reaches from another, where definitions are known. */
  readonly schema?: string | undefined
  /** What rows of it are read and written is told by this, where definitions are known. */
  readonly reached?: Reached | undefined
}

export type Judge = (facts: Walk.Facts) => Verdict

/** Judges by the names alone, without their schemas. */
const byNames: Judge = (facts) => ({
  reads: dependencies(facts.reads.values()),
  writes: dependencies(facts.writes.values()),
  opaque: facts.writesCatalog
    ? "system catalog"
    : hasCascade(facts)
    ? "TRUNCATE CASCADE"
    : facts.objections.find((objection) => objection.mayWrite)?.detail,
  objections: facts.objections,
  timeDependent: facts.timeDependent,
  settings: facts.settings
})

// It goes on to tables that only the catalog knows.
const hasCascade = (facts: Walk.Facts): boolean => {
  for (const target of facts.writes.values()) if (target.operations.has("truncate cascade")) return true
  return false
}

const dependencies = (names: Iterable<Walk.Name>): ReadonlyArray<string> => [
  ...new Set(Array.from(names, ({ name }) => fromRelation(name).table))
]

/** A statement before the names in it are judged. */
export type Draft =
  | { readonly _tag: "Query"; readonly facts: Walk.Facts; readonly statement?: Node | undefined }
  | { readonly _tag: "Call"; readonly facts: Walk.Facts }
  /** A statement around a query whose answer is not the query's. */
  | { readonly _tag: "Around"; readonly what: string; readonly inner: Draft }
  /** A temporary table or view, and the query that fills it. */
  | { readonly _tag: "Temporary"; readonly name: string; readonly inner: Draft }
  | { readonly _tag: "Known"; readonly analysis: Analysis }

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
  options?: {
    reads?: Iterable<string>
    culprit?: string | undefined
    atomic?: boolean
    control?: ReadonlyArray<Session>
  }
): Write => ({
  _tag: "Write",
  tables: [...tables].sort(),
  reads: [...options?.reads ?? []].sort(),
  all: options?.culprit !== undefined,
  ...(options?.culprit === undefined ? {} : { culprit: options.culprit }),
  atomic: options?.atomic !== false,
  control: options?.control ?? []
})

const known = (analysis: Analysis): Draft => ({ _tag: "Known", analysis })

/** Writes that nobody can name. */
const anything = (culprit: string, atomic: boolean): Write => write([], { culprit, atomic })

export const draft = (statement: Node, declared: Walk.Declared): Draft => {
  const type = Object.keys(statement)[0] ?? ""
  const node = statement[type] as Node
  switch (type) {
    case "SelectStmt":
    case "InsertStmt":
    case "UpdateStmt":
    case "DeleteStmt":
    case "MergeStmt": {
      const facts = Walk.walk(statement, declared)
      if (!facts.createsTable) return { _tag: "Query", facts, statement }
      const name = temporary((node.intoClause as Node | undefined)?.rel)
      return name === undefined
        ? known({ _tag: "Ddl" })
        : { _tag: "Temporary", name, inner: { _tag: "Query", facts: { ...facts, createsTable: false } } }
    }

    case "CreateStmt": {
      const name = temporary(node.relation)
      return name === undefined ? known({ _tag: "Ddl" }) : { _tag: "Temporary", name, inner: known(other) }
    }

    case "CreateTableAsStmt": {
      const name = temporary((node.into as Node).rel)
      return name === undefined
        ? known({ _tag: "Ddl" })
        : { _tag: "Temporary", name, inner: draft(node.query as Node, declared) }
    }

    case "ViewStmt": {
      const name = temporary(node.view)
      return name === undefined ? known({ _tag: "Ddl" }) : { _tag: "Temporary", name, inner: known({ _tag: "Ddl" }) }
    }

    case "VariableSetStmt":
      return known(changing(other, settingsOf(node)))

    case "DiscardStmt":
      return known(node.target === "DISCARD_ALL" ? changing(other, discarded) : other)

    case "TransactionStmt":
      return known(transaction(node))

    case "TruncateStmt":
      return targets(
        (node.relations as ReadonlyArray<{ readonly RangeVar: Walk.RangeVar }>).map(({ RangeVar }) => RangeVar),
        node.behavior === "DROP_CASCADE" ? "truncate cascade" : "truncate"
      )

    case "RefreshMatViewStmt":
      return targets([node.relation as Walk.RangeVar], "refresh")

    case "CopyStmt":
      return copy(node, declared)

    case "ExplainStmt":
      return { _tag: "Around", what: "EXPLAIN", inner: runs(node) ? draft(node.query as Node, declared) : known(other) }

    case "DeclareCursorStmt":
      // The query runs as rows are fetched, in the same transaction: what it may write is counted here.
      return { _tag: "Around", what: "DECLARE CURSOR", inner: draft(node.query as Node, declared) }

    // The text behind the name is a single SELECT, VALUES or write.
    case "ExecuteStmt":
      return known(anything("EXECUTE", true))

    case "CallStmt":
      return { _tag: "Call", facts: Walk.walk(node.funccall, declared) }

    // It may commit in between, as a procedure may.
    case "DoStmt":
      return known(anything("DO", false))

    case "CheckPointStmt":
    case "ClosePortalStmt":
    case "ClusterStmt":
    case "ConstraintsSetStmt":
    case "DeallocateStmt":
    case "FetchStmt":
    case "ListenStmt":
    case "LoadStmt":
    case "LockStmt":
    case "NotifyStmt":
    case "PrepareStmt":
    case "ReindexStmt":
    case "UnlistenStmt":
    case "VacuumStmt":
    case "VariableShowStmt":
      return known(other)

    // Whatever else the grammar has changes the schema, or is newer than this list.
    default:
      return known({ _tag: "Ddl" })
  }
}

const targets = (relations: ReadonlyArray<Walk.RangeVar>, operation: Walk.Operation): Draft => {
  const facts = Walk.noFacts()
  for (const relation of relations) Walk.addTarget(facts, relation, [operation])
  return { _tag: "Query", facts }
}

/** The name of a relation that is made for the session alone. */
const temporary = (relation: unknown): string | undefined => {
  const { relname, relpersistence, schemaname } = (relation ?? {}) as Walk.RangeVar & {
    readonly relpersistence?: string
  }
  return relpersistence === "t" || schemaname?.startsWith("pg_temp") === true ? relname : undefined
}

/** With what it leaves behind in its session. */
const changing = (
  analysis: Analysis,
  settings: ReadonlyArray<Setting>,
  temporary: ReadonlyArray<string> = []
): Analysis =>
  analysis._tag === "Read" || settings.length + temporary.length === 0 ? analysis : {
    ...analysis,
    changes: {
      settings: [...analysis.changes?.settings ?? [], ...settings],
      temporary: [...analysis.changes?.temporary ?? [], ...temporary]
    }
  }

const copy = (node: Node, declared: Walk.Declared): Draft => {
  if (node.query !== undefined) return { _tag: "Around", what: "COPY TO", inner: draft(node.query as Node, declared) }
  if (node.is_from !== true) return known(refused("not-a-query", "COPY TO", "nothing"))
  const facts = Walk.walk(node.whereClause, declared)
  Walk.addTarget(facts, node.relation as unknown as Walk.RangeVar, ["insert"])
  return { _tag: "Query", facts }
}

/** Whether EXPLAIN runs the statement. */
const runs = (node: Node): boolean => {
  let analyzes = false
  for (const { DefElem: option } of (node.options ?? []) as ReadonlyArray<{ readonly DefElem: Node }>) {
    if (option.defname === "analyze") analyzes = !isOff(option.arg as Node | undefined)
  }
  return analyzes
}

// As PostgreSQL reads a boolean option; whatever it would refuse counts as on.
const isOff = (arg: Node | undefined): boolean => {
  const text = (arg?.String as { readonly sval?: string } | undefined)?.sval
  if (text !== undefined) return text.toLowerCase() === "false" || text.toLowerCase() === "off"
  const number = arg?.Integer as { readonly ival?: number } | undefined
  return number !== undefined && (number.ival ?? 0) === 0
}

const conclude = (draft: Draft, judge: Judge): Analysis => {
  switch (draft._tag) {
    case "Known":
      return draft.analysis
    case "Around": {
      // What is left is what the query writes.
      const inner = conclude(draft.inner, judge)
      if (inner._tag === "Write") return withoutRows(inner)
      return inner._tag === "Ddl" ? inner : changing(
        refused("not-a-query", draft.what, inner._tag === "Refused" ? inner.writes : "nothing"),
        inner._tag === "Read" ? [] : inner.changes?.settings ?? []
      )
    }
    case "Temporary": {
      const inner = conclude(draft.inner, judge)
      const made = inner._tag === "Read" || inner._tag === "Refused" && inner.writes === "nothing"
        ? changing(other, inner._tag === "Read" ? [] : inner.changes?.settings ?? [])
        : inner
      return changing(withoutRows(made), [], [draft.name])
    }
    case "Query": {
      const verdict = judge(draft.facts)
      return changing(doubting(concludeQuery(draft.facts, verdict, draft.statement), verdict), verdict.settings)
    }
    case "Call": {
      const verdict = judge(draft.facts)
      const { opaque, reads, settings, writes } = verdict
      return changing(doubting(write(writes, { reads, culprit: opaque, atomic: false }), verdict), settings)
    }
  }
}

const doubting = (analysis: Analysis, { isDoubtful }: Verdict): Analysis =>
  isDoubtful === true && (analysis._tag === "Write" || analysis._tag === "Refused")
    ? { ...analysis, doubtful: true }
    : analysis

/** Where the answer is not that of the query, or its parameters are not those of the text, nothing but tables is known. */
export const withoutRows = (analysis: Analysis): Analysis =>
  "rows" in analysis ? { ...analysis, rows: undefined } : analysis

const concludeQuery = (facts: Walk.Facts, verdict: Verdict, statement: Node | undefined): Analysis => {
  const { objections, opaque, reached, reads, schema, timeDependent } = verdict
  const writes = [...verdict.writes]
  if (facts.writes.size > 0 || writes.length > 0) {
    const written = write(writes, { reads, culprit: opaque })
    const rows = written.all || statement === undefined || reached === undefined
      ? undefined
      : narrowWrites(statement, reached)
    return rows === undefined ? written : { ...written, rows }
  }
  const objection = objections.find(({ mayWrite }) => mayWrite) ?? objections.find(({ isScoped }) => !isScoped)
  if (objection !== undefined) {
    return refused(objection.code, objection.detail, objection.mayWrite ? "anything" : "nothing")
  }
  const rows = statement === undefined || reached === undefined ? undefined : narrowReads(statement, reached)
  const read: Read = {
    _tag: "Read",
    tables: [...reads].sort(),
    timeDependent,
    ...(schema === undefined ? undefined : { schema }),
    ...(rows === undefined ? undefined : { rows })
  }
  if (objections.length === 0) return read
  const { code, detail } = objections[0]
  return { ...read, scoped: { code, detail } }
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
      return anything("COMMIT PREPARED", false)
    default:
      return other
  }
}

const several = (analyses: ReadonlyArray<Analysis>): Analysis => {
  const changes = analyses.flatMap((analysis) => analysis._tag === "Read" ? [] : analysis.changes ?? [])
  return changing(
    severalOf(analyses),
    changes.flatMap(({ settings }) => settings),
    changes.flatMap(({ temporary }) => temporary)
  )
}

const severalOf = (analyses: ReadonlyArray<Analysis>): Analysis => {
  const tables = new Set<string>()
  const reads = new Set<string>()
  const control: Array<Session> = []
  let culprit: string | undefined
  let writes = false
  for (const analysis of analyses) {
    switch (analysis._tag) {
      case "Read":
        for (const table of analysis.tables) reads.add(table)
        break
      case "Write":
        writes = true
        culprit ??= analysis.culprit
        for (const table of analysis.tables) tables.add(table)
        for (const table of analysis.reads) reads.add(table)
        break
      case "Ddl":
        writes = true
        culprit ??= "DDL"
        break
      case "Session":
        if (analysis.control !== "other") control.push(analysis)
        // What the names after it mean is another matter.
        if (analysis.changes?.settings.some(changesNames) === true) culprit ??= "SET"
        break
      case "Refused":
        if (analysis.writes === "anything") culprit ??= analysis.detail
        else if (analysis.writes !== "nothing") { for (const table of analysis.writes) tables.add(table) }
    }
  }
  if (writes || control.length > 0) return write(tables, { reads, culprit, atomic: false, control })
  if (analyses.every((analysis) => analysis._tag === "Session")) return other
  return refused(
    "several-statements",
    `${analyses.length} statements`,
    culprit === undefined ? "nothing" : "anything"
  )
}
