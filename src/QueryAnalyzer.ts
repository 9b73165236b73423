/**
 * What a statement reads and writes.
 *
 * Everything the cache knows of SQL it knows from here: which answers may be
 * kept, what they depend on, and what a write makes stale. Two analyzers exist:
 * {@link layer} parses with PostgreSQL's own parser, and {@link layerDeclared}
 * believes what the program says and loads nothing.
 *
 * By itself the answer follows from the text alone, and names stand for
 * themselves, without their schemas. Bound to a catalog, as `CachedSqlClient`
 * binds it, it follows from what the names mean: docs/schema.md says how. What
 * is left:
 *
 * - A name without a schema is looked for as PostgreSQL looks for it, but for
 *   the types of arguments: of functions and operators of one name, all that are
 *   visible count, next to PostgreSQL's own.
 * - `now()` is seen in the text, the word `'now'` or `'today'` in a parameter
 *   is not.
 * - Texts are read with `standard_conforming_strings` on, the default.
 *
 * Functions whose answers depend on settings, such as `to_char` on lc_time or
 * a cast to `timestamptz` on TimeZone, are accepted: settings come from the
 * client's configuration, and that is part of every key.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { InvalidOptionError } from "./CacheError.ts"
import * as Dependency from "./Dependency.ts"
import * as Parser from "./internal/analysis/parser.ts"
import * as Statement from "./internal/analysis/statement.ts"
import * as Text from "./internal/analysis/text.ts"
import type { Declared, Name, ObjectionCode } from "./internal/analysis/walk.ts"
import { Bodies } from "./internal/catalog/bodies.ts"
import type { Catalog } from "./internal/catalog/model.ts"
import { judge, type Path, stampsOfName } from "./internal/catalog/reach.ts"
import type { Without } from "./internal/conjunctions/rules.ts"
import * as Memo from "./internal/memo.ts"
import * as Options from "./internal/options.ts"

/**
 * Tells what a statement reads and writes.
 *
 * **Details**
 *
 * `analyze` is pure and synchronous and never throws. It is memoised by the SQL
 * text: the same text returns the same object as long as it is remembered. The
 * memo holds a bounded number of texts and at most 16 MiB of them.
 *
 * @category services
 * @since 0.1.0
 */
export class QueryAnalyzer extends Context.Service<QueryAnalyzer, {
  readonly analyze: (sql: string) => Analysis
  /**
   * Where there is one, the client reads the database's catalog and asks what it
   * returns instead.
   */
  readonly bind?: ((schema: BoundSchema) => BoundAnalyzer) | undefined
}>()("effect-query-cache/QueryAnalyzer") {}

/**
 * The catalog that an analyzer is bound to.
 *
 * @category models
 * @since 0.1.0
 */
export interface BoundSchema {
  readonly catalog: Catalog
  /** Names of temporary tables that connections of the pool may have. */
  readonly temporary: ReadonlySet<string>
  /** Rules of row dependencies to leave out, for tests that show what each is for. */
  readonly without?: Without | undefined
}

/**
 * Tells what a statement reads and writes by the definitions of the tables,
 * views, functions and triggers that its names stand for.
 *
 * @category models
 * @since 0.1.0
 */
export interface BoundAnalyzer {
  readonly analyze: (sql: string, path: Path) => Analysis
  /** Why a statement reads or writes the whole of a table, with these parameters. Only `explain` asks. */
  readonly why: (sql: string, path: Path, parameters: ReadonlyArray<unknown>) => (table: string) => Whole
  /** What a relation stands for that a program names: none where there is no such relation. */
  readonly stamps: (name: Name, path: Path, access: "read" | "write") => ReadonlySet<string>
}

/**
 * What a text comes to.
 *
 * @category models
 * @since 0.1.0
 */
export type Analysis = Read | Write | Ddl | Session | Refused

/**
 * A query whose answer may be kept.
 *
 * @category models
 * @since 0.1.0
 */
export interface Read {
  readonly _tag: "Read"
  /**
   * What the answer depends on: relations, sorted, written as in stamps. By the
   * text alone, without their schemas. By a catalog, with them where it is not
   * `public`, among them what views and functions read, and marks that begin with
   * `^` and `~` (internal/catalog/reach.ts).
   */
  readonly tables: ReadonlyArray<string>
  /**
   * Whether the answer also follows from the clock: `now()`, `current_date` and
   * their kin, `age(x)`, literals such as `'today'`. A time to live bounds how
   * far it may lag, so it takes an explicit `cached`: under the strategy
   * `"all"` such a query is left alone.
   */
  readonly timeDependent: boolean
  /**
   * Why the answer may be kept under a `CacheScope` only, if so: row security
   * policies apply to what it reads, or it calls `current_user`,
   * `current_setting()` or their like.
   */
  readonly scoped?: { readonly code: RefusalCode; readonly detail: string } | undefined
  /**
   * Tells one definition of the tables, views and functions behind it from
   * another, where a catalog is known: part of every key.
   */
  readonly schema?: string | undefined
  /**
   * The rows that the answer follows from, once the parameters are known, by
   * table: those with all the values of one of these. Of a table that is not
   * there it may be any.
   */
  readonly rows?: ((parameters: ReadonlyArray<unknown>) => Rows) | undefined
}

/**
 * By table, as `tables` names it, what its rows have in their columns.
 *
 * @category models
 * @since 0.1.0
 */
export type Rows = ReadonlyMap<string, ReadonlyArray<ReadonlyMap<string, string | null>>>

/**
 * A statement that writes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Write {
  readonly _tag: "Write"
  /** The relations written, named as in {@link Read}. */
  readonly tables: ReadonlyArray<string>
  /** The relations read on the way. */
  readonly reads: ReadonlyArray<string>
  /** Whether it may have written anything else: CALL, DO, EXECUTE, TRUNCATE ... CASCADE, a function nobody knows. */
  readonly all: boolean
  /** Of those, what may have written it: a function, a trigger, a kind of statement. */
  readonly culprit?: string | undefined
  /** Whether a failure means that nothing was written. Not so for CALL, DO, COMMIT PREPARED and several statements. */
  readonly atomic: boolean
  /**
   * The transaction control among several statements in one text, in order;
   * empty for a single statement. Which of them a write belongs to is not told:
   * invalidate at once, and again at the end of a transaction that stays open.
   */
  readonly control: ReadonlyArray<Session>
  readonly changes?: Changes | undefined
  /** By a catalog: a name in it is that of nothing, which a newer catalog may tell better. */
  readonly doubtful?: true | undefined
  /**
   * The rows that were written, once the parameters are known, by table, each as
   * it was and as it is, as far as that is known. Of a table that is not there
   * it may be any. `answer`: the rows that the statement returned, as objects in
   * the order of their columns or as arrays.
   */
  readonly rows?:
    | ((parameters: ReadonlyArray<unknown>, answer: ReadonlyArray<unknown> | undefined) => Rows)
    | undefined
}

/**
 * A statement that changes the schema, or that the analyzer does not know. It
 * invalidates everything.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ddl {
  readonly _tag: "Ddl"
  readonly changes?: Changes | undefined
}

/**
 * What a statement leaves behind in its session, where that can change an answer
 * or what a name means.
 *
 * @category models
 * @since 0.1.0
 */
export interface Changes {
  /** Settings by name, `*` for one that the text does not name, by SET, RESET and `set_config()`. */
  readonly settings: ReadonlyArray<{ readonly name: string; readonly isLocal: boolean; readonly isReset: boolean }>
  /** Temporary tables and views. */
  readonly temporary: ReadonlyArray<string>
}

/**
 * A statement about the session or the server that neither answers from tables
 * nor writes to them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Session {
  readonly _tag: "Session"
  /**
   * - `begin`: also START TRANSACTION.
   * - `commit`: also END, and PREPARE TRANSACTION, which ends the session's
   *   transaction undecided. COMMIT PREPARED is a {@link Write} of anything.
   * - `rollback`: also ABORT.
   * - `other`: SET, SHOW, RESET, LISTEN, NOTIFY, PREPARE, DEALLOCATE, FETCH,
   *   CLOSE, LOCK, VACUUM, ANALYZE, REINDEX, ROLLBACK PREPARED and the like.
   */
  readonly control: "begin" | "commit" | "rollback" | "savepoint" | "release" | "rollbackTo" | "other"
  /** The savepoint's name as PostgreSQL stores it. */
  readonly savepoint?: string | undefined
  /** COMMIT AND CHAIN, ROLLBACK AND CHAIN: a new transaction begins at once. */
  readonly chain: boolean
  readonly changes?: Changes | undefined
}

/**
 * A statement whose answer is not kept.
 *
 * @category models
 * @since 0.1.0
 */
export interface Refused {
  readonly _tag: "Refused"
  readonly code: RefusalCode
  /** Which function, table or clause. Never a value from the text. */
  readonly detail: string
  /** What it may have written all the same. */
  readonly writes: "nothing" | "anything" | ReadonlyArray<string>
  readonly changes?: Changes | undefined
  /** By a catalog: a name in it is that of nothing, which a newer catalog may tell better. */
  readonly doubtful?: true | undefined
}

/**
 * Why a statement's answer is not kept.
 *
 * | code | meaning | may write |
 * | --- | --- | --- |
 * | `volatile-function` | `random()`, `nextval()`, `clock_timestamp()`, `pg_sleep()`, or one of `readOnlyFunctions` | nothing |
 * | `unknown-function` | neither PostgreSQL's own nor in the catalog nor declared by the program | anything |
 * | `unknown-operator` | `OPERATOR(schema.+)` of another schema than `pg_catalog` | anything |
 * | `dynamic-query` | `query_to_xml()`, `table_to_xml()`, `ts_stat()`: a query or a table in a value | anything |
 * | `opaque-function` | a function whose body cannot be read, or runs dynamic SQL | anything |
 * | `session-dependent` | `pg_backend_pid()`, `txid_current()`; outside a scope, `current_user`, `current_setting()` | nothing |
 * | `row-security` | outside a scope, a table with row security | nothing |
 * | `system-catalog` | `pg_*` and `information_schema` relations, `pg_get_viewdef()`, casts to `regclass` and the like | nothing |
 * | `system-column` | `ctid`, `xmin`, `xmax`, `cmin`, `cmax`, `tableoid` | nothing |
 * | `temporary-table` | a relation of the schema `pg_temp`, or one by the name of a temporary table | nothing |
 * | `foreign-relation` | a foreign table | nothing |
 * | `sequence-relation` | a sequence, read as a table | nothing |
 * | `unknown-relation` | a name that is no relation's | nothing |
 * | `session-changed` | a setting that was changed by hand on a connection of the pool | nothing |
 * | `catalog-unknown` | the catalog is not known yet | nothing |
 * | `locking-clause` | SELECT ... FOR UPDATE, SHARE | nothing |
 * | `tablesample` | TABLESAMPLE | nothing |
 * | `not-a-query` | EXPLAIN, COPY TO, DECLARE CURSOR | as the query inside, if it runs |
 * | `several-statements` | several statements in one text, none a write | anything if one of them may |
 * | `empty` | no statement at all | nothing |
 * | `unparsable` | the parser rejects it; a newer server may not | anything |
 * | `too-long` | more than 64 kB, even with repeated rows and values left out | anything |
 * | `too-deep` | nested deeper, or with a larger tree, than the parser can print | anything |
 * | `parser-restarting` | the parser broke down on another text and is being replaced; ask again | anything |
 * | `undeclared` | `layerDeclared` and no word from the program | nothing |
 *
 * Where several fit, the code is one of those under which it may write.
 *
 * @category models
 * @since 0.1.0
 */
export type RefusalCode =
  | ObjectionCode
  | "not-a-query"
  | "several-statements"
  | "empty"
  | "unparsable"
  | "too-long"
  | "too-deep"
  | "parser-restarting"
  | "undeclared"
  | "catalog-unknown"
  | "session-changed"

/**
 * Why a statement depends on the whole of a table, or is taken to have written
 * to the whole of it, rather than to some of its rows.
 *
 * **Details**
 *
 * | code | meaning | detail |
 * | --- | --- | --- |
 * | `no-condition` | none that reaches the table and names rows, as `<`, LIKE and NOT do not | |
 * | `column-type` | a condition on a column whose values cannot name rows | the column |
 * | `expression` | a column equal to what is computed or of another type; a row written that nothing is known of | the column |
 * | `value` | a constant or parameter that is not as PostgreSQL prints it, such as `"042"`; an empty list; a string that is a parameter in several places | the column |
 * | `alternative` | OR, with an arm that says nothing of the table | the column of another |
 * | `join` | a column equal to that of another table, of which no value is known | the column |
 * | `outer-join` | a condition that says nothing of the rows that an outer join keeps, or makes up | |
 * | `subquery` | a condition on a subquery into which it does not pass: LIMIT, an aggregate, a window function and the like | |
 * | `too-many` | more conjunctions or rows than are told apart | |
 * | `indirect` | reached through more than the words of the statement | the view, function, rule, or the table with the policy or referred to by the foreign key |
 * | `not-a-table` | a view or materialized view | |
 * | `statement` | what is not looked into: MERGE, TRUNCATE, COPY, several statements, more than 64 tables or 64 kB, an `=` of the program's own | |
 * | `rule` | a table with rules for what is written | |
 * | `insert-select` | INSERT of what a query answers, without RETURNING | |
 * | `before-trigger` | a trigger that may change rows before they are stored, and no RETURNING | |
 * | `when-run` | the rows are known when it has run: by RETURNING, or because a parameter can be changed until then | |
 * | `search-path` | a scope with a role, under which a name may be that of several tables | |
 * | `declared` | a table that the program names | |
 * | `no-catalog` | names that stand for themselves | |
 *
 * Where a statement names a table several times, the code is that of a place which
 * makes it the whole of it.
 *
 * @category models
 * @since 0.1.0
 */
export type WholeReason =
  | "no-condition"
  | "column-type"
  | "expression"
  | "value"
  | "alternative"
  | "join"
  | "outer-join"
  | "subquery"
  | "too-many"
  | "indirect"
  | "not-a-table"
  | "statement"
  | "rule"
  | "insert-select"
  | "before-trigger"
  | "when-run"
  | "search-path"
  | "declared"
  | "no-catalog"

/**
 * A {@link WholeReason}, and what it is about.
 *
 * @category models
 * @since 0.1.0
 */
export interface Whole {
  readonly reason: WholeReason
  /** A column, table, view, function or rule. Never a value. */
  readonly detail: string | undefined
}

/**
 * The parser could not be loaded: `libpg-query` is missing, or there is no
 * WebAssembly where the program runs. `layerDeclared` needs neither.
 *
 * @category errors
 * @since 0.1.0
 */
export class AnalyzerLoadError
  extends Schema.TaggedError<AnalyzerLoadError>("effect-query-cache/QueryAnalyzer/AnalyzerLoadError")(
    "AnalyzerLoadError",
    { cause: Schema.Defect() }
  )
{
  override get message(): string {
    return "The SQL parser of libpg-query cannot be loaded"
  }
}

/**
 * Options of {@link layer}.
 *
 * @category options
 * @since 0.1.0
 */
export interface AnalyzerOptions {
  /** How many texts are remembered. 10,000 by default. */
  readonly capacity?: number | undefined
  /**
   * Functions of the program's own that write nothing and whose answers follow
   * from their arguments and the tables that the statement names. Their
   * statements may be cached. A function is named as the statements name it,
   * `similarity` or `extensions.similarity`, in the case PostgreSQL stores.
   */
  readonly stableFunctions?: ReadonlyArray<string> | undefined
  /**
   * Functions of the program's own that write nothing, but whose answers vary,
   * such as `uuid_generate_v4`. Their statements are not cached, and a write
   * that calls them invalidates only the tables it names.
   */
  readonly readOnlyFunctions?: ReadonlyArray<string> | undefined
  /**
   * Functions of the program's own with the tables they write to, by themselves
   * or as triggers: `{ audit: ["audit_log"] }`. It takes the place of what their
   * bodies say, which may be nothing that can be read.
   */
  readonly writes?: { readonly [name: string]: ReadonlyArray<string> } | undefined
}

/**
 * The analyzer that parses, with PostgreSQL 18's own parser.
 *
 * **Details**
 *
 * Building the layer imports `libpg-query` and instantiates its WebAssembly,
 * some tens of milliseconds. A first analysis takes some tens of microseconds
 * for a usual statement, a remembered one takes a map lookup.
 *
 * Texts above 64 kB are parsed with their values taken out and their repeated
 * rows left out, which is what batches have. What is still longer is refused.
 *
 * **Gotchas**
 *
 * A function that is neither PostgreSQL's own nor declared in the options, and
 * whose body cannot be read, may write anything, so a statement that calls one
 * invalidates everything.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: AnalyzerOptions): Layer.Layer<QueryAnalyzer, AnalyzerLoadError> => {
  Options.known(owner, options, ["capacity", "stableFunctions", "readOnlyFunctions", "writes"])
  const capacity = Options.count(owner, "capacity", options?.capacity, defaultCapacity)
  const declared: Declared = {
    stable: functionNames("stableFunctions", options?.stableFunctions),
    readOnly: functionNames("readOnlyFunctions", options?.readOnlyFunctions),
    writes: functionWrites(options?.writes)
  }
  return Layer.effect(
    QueryAnalyzer,
    Effect.map(loadParser, (parser) =>
      QueryAnalyzer.of({
        analyze: remembered(capacity, (sql) => analyzeText(parser, declared, sql)),
        bind: ({ catalog, temporary, without }) => {
          const bodies = new Bodies(parser, declared)
          const schema = { catalog, bodies, declared, temporary, without }
          const byPath = new Map<Path, (sql: string) => Analysis>()
          return {
            analyze: (sql, path) => {
              let analyze = byPath.get(path)
              if (analyze === undefined) {
                const judged = judge(schema, path)
                byPath.set(path, analyze = remembered(capacity, (sql) => analyzeText(parser, declared, sql, judged)))
              }
              return analyze(sql)
            },
            why: (sql, path, parameters) => whyText(parser, declared, sql, judge(schema, path), parameters),
            stamps: (name, path, access) => stampsOfName(schema, path, name, access)
          }
        }
      }))
  )
}

const remembered = (capacity: number, analyze: (sql: string) => Analysis): (sql: string) => Analysis => {
  const memo = Memo.make<Analysis>({ capacity, maxBytes })
  return (sql) => {
    const known = memo.get(sql)
    if (known !== undefined) return known
    const analysis = analyze(sql)
    if (analysis !== restarting) memo.set(sql, analysis)
    return analysis
  }
}

/**
 * What a program says of a statement: that it reads these tables and may be
 * cached, or that it writes those. Names are taken as `Dependency.table` takes
 * them, with or without a schema.
 *
 * @category options
 * @since 0.1.0
 */
export type Declaration =
  | { readonly reads: ReadonlyArray<string>; readonly writes?: undefined }
  | { readonly writes: ReadonlyArray<string>; readonly reads?: ReadonlyArray<string> | undefined }

/**
 * Options of {@link layerDeclared}.
 *
 * @category options
 * @since 0.1.0
 */
export interface DeclaredOptions {
  /** Asked once for every text, as long as it is remembered. */
  readonly declare: (sql: string) => Declaration | undefined
  /** How many texts are remembered. 10,000 by default. */
  readonly capacity?: number | undefined
}

/**
 * The analyzer that believes the program, for where WebAssembly is not at hand
 * or not wanted.
 *
 * **Details**
 *
 * What `declare` says stands. Of the other texts those that begin with a word
 * of session control (BEGIN, COMMIT, SAVEPOINT, SET, SHOW, LISTEN and their
 * like) are known by it, whatever comes after a semicolon; all the rest is
 * refused as `undeclared` and taken to write nothing.
 *
 * **Example** (Tables named in a comment)
 *
 * ```ts
 * import { QueryAnalyzer } from "effect-query-cache"
 *
 * // SELECT ... -- reads: orders, customers
 * export const layer = QueryAnalyzer.layerDeclared({
 *   declare: (sql) => {
 *     const match = /-- (reads|writes): (.+)$/m.exec(sql)
 *     if (match === null) return undefined
 *     const tables = match[2].split(",").map((name) => name.trim())
 *     return match[1] === "reads" ? { reads: tables } : { writes: tables }
 *   }
 * })
 * ```
 *
 * **Gotchas**
 *
 * A write that is not declared invalidates nothing, and neither does a change
 * of the schema or of a setting. A `declare` that throws or names an impossible table is a
 * mistake that must not cost freshness: its text is refused as `undeclared` and
 * taken to write anything.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerDeclared = (options: DeclaredOptions): Layer.Layer<QueryAnalyzer> => {
  Options.known(ownerDeclared, options, ["declare", "capacity"])
  const declare = options?.declare
  if (typeof declare !== "function") {
    throw new InvalidOptionError(ownerDeclared, "declare", declare, "a function from SQL text to a declaration")
  }
  const capacity = Options.count(ownerDeclared, "capacity", options.capacity, defaultCapacity)
  return Layer.sync(
    QueryAnalyzer,
    () => QueryAnalyzer.of({ analyze: remembered(capacity, (sql) => declaredAnalysis(declare, sql)) })
  )
}

const loadParser = Effect.tryPromise({
  try: () => Parser.load(),
  catch: (cause) => new AnalyzerLoadError({ cause })
})

const owner = "QueryAnalyzer.layer"
const ownerDeclared = "QueryAnalyzer.layerDeclared"
const defaultCapacity = 10_000
const maxBytes = 16 * 1024 * 1024
const maxParsedLength = 64 * 1024
/** PostgreSQL takes 65,535 parameters, so no batch of parameters comes near. */
const maxLength = 8 * 1024 * 1024
/** Less than half of what the parser prints within the engine's default stack of about 1 MB. */
const maxDepth = 1_500
/** No text as short as this gets near {@link maxDepth}. */
const shallowLength = 1_500

const functionNames = (option: string, names: ReadonlyArray<string> | undefined): ReadonlySet<string> => {
  if (names === undefined) return new Set()
  if (!Array.isArray(names) || names.some((name) => typeof name !== "string" || name.length === 0)) {
    throw new InvalidOptionError(owner, option, names, "a list of function names")
  }
  return new Set(names)
}

const functionWrites = (writes: AnalyzerOptions["writes"]): Declared["writes"] => {
  const declared = new Map<string, ReadonlyArray<Name>>()
  for (const [name, tables] of Object.entries(writes ?? {})) {
    if (!Array.isArray(tables)) throw new InvalidOptionError(owner, `writes.${name}`, tables, "a list of table names")
    declared.set(
      name,
      tables.map((table) => {
        const named = Dependency.table(table)
        return { name: Dependency.relationOf(named.table), schema: named.schema }
      })
    )
  }
  return declared
}

const restarting = Statement.refused("parser-restarting", "", "anything")

const analyzeText = (
  parser: Parser.Parser,
  declared: Declared,
  sql: string,
  judge?: Statement.Judge
): Analysis => {
  // Neither reaches the server as it stands here: a NUL ends the text early, a lone surrogate becomes another sign.
  if (/[\0\p{Surrogate}]/u.test(sql)) return Statement.refused("unparsable", "not a text that can be sent", "anything")
  if (sql.length > maxLength) return tooLong
  const deep = sql.length > shallowLength && Text.depth(sql) > maxDepth
  if (deep) return tooDeep
  const text = sql.length > maxParsedLength ? Text.collapse(sql) : sql
  if (text.length > maxParsedLength) return tooLong
  const parsed = parser.parse(text)
  switch (parsed._tag) {
    case "Parsed": {
      const analysis = Statement.analyze(parsed.statements, declared, judge)
      return text === sql ? analysis : Statement.withoutRows(analysis)
    }
    case "Rejected":
      return text === sql
        ? Statement.refused("unparsable", `at character ${parsed.position}`, "anything")
        : tooLong
    case "Trapped":
      return tooDeep
    case "Restarting":
      return restarting
  }
}

const whyText = (
  parser: Parser.Parser,
  declared: Declared,
  sql: string,
  judge: Statement.Judge,
  parameters: ReadonlyArray<unknown>
): (table: string) => Whole => {
  const parsed = sql.length > maxParsedLength ? undefined : parser.parse(sql)
  return parsed?._tag === "Parsed"
    ? Statement.why(parsed.statements, declared, judge, parameters)
    : Statement.notLookedInto
}

const tooLong = Statement.refused("too-long", "more than 64 kB", "anything")
const tooDeep = Statement.refused("too-deep", "nested too deeply", "anything")

const declaredAnalysis = (declare: DeclaredOptions["declare"], sql: string): Analysis => {
  try {
    const declaration = declare(sql)
    if (declaration === undefined) return sessionControl(sql) ?? undeclared
    const reads = dependencies(declaration.reads ?? [])
    return declaration.writes === undefined
      ? { _tag: "Read", tables: reads, timeDependent: false }
      : { _tag: "Write", tables: dependencies(declaration.writes), reads, all: false, atomic: true, control: [] }
  } catch {
    return Statement.refused("undeclared", "the declaration failed", "anything")
  }
}

const undeclared = Statement.refused("undeclared", "no declaration", "nothing")

const dependencies = (names: ReadonlyArray<string>): ReadonlyArray<string> =>
  [...new Set(names.map((name) => Dependency.table(name).table))].sort()

const sessionControl = (sql: string): Session | undefined => {
  const words = sql.replace(/^(?:\s+|--[^\n]*(?:\n|$)|\/\*[^]*?\*\/)+/, "").slice(0, 500)
  const name = /("(?:[^"]|"")+"|[\w$\u0080-\uffff]+)/.source
  const matches = (pattern: string): RegExpExecArray | null =>
    new RegExp(`^${pattern.replaceAll(" ", "\\s+")}(?![\\w$])`, "i").exec(words)
  const session = (control: Session["control"], savepoint?: string): Session => ({
    _tag: "Session",
    control,
    savepoint: savepoint === undefined
      ? undefined
      : savepoint.startsWith("\"")
      ? savepoint.slice(1, -1).replaceAll("\"\"", "\"")
      : savepoint.toLowerCase(),
    chain: (control === "commit" || control === "rollback") &&
      matches("\\w+(?: work| transaction)? and chain") !== null
  })
  const to = matches(`(?:rollback|abort)(?: work| transaction)? to(?: savepoint)? ${name}`)
  if (to !== null) return session("rollbackTo", to[1])
  const release = matches(`release(?: savepoint(?= ${name}))? ${name}`)
  if (release !== null) return session("release", release[2])
  const savepoint = matches(`savepoint ${name}`)
  if (savepoint !== null) return session("savepoint", savepoint[1])
  if (matches("(?:commit|rollback) prepared") !== null) return session("other")
  if (matches("(?:begin|start transaction)") !== null) return session("begin")
  if (matches("(?:commit|end|prepare transaction)") !== null) return session("commit")
  if (matches("(?:rollback|abort)") !== null) return session("rollback")
  return matches(otherWords) === null ? undefined : session("other")
}

const otherWords =
  "(?:analyze|checkpoint|close|cluster|deallocate|declare|discard|fetch|listen|load|lock|move|notify|" +
  "prepare|reindex|reset|set|show|unlisten|vacuum)"
