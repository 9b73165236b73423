/**
 * A form is a statement's SQL text with its analysis, shared by all its
 * parameters; a plan is what a policy makes of a form.
 *
 * Forms are kept by text, bounded; a form that was forgotten is analysed again
 * and finds its entries, which are named by the text and not by the object.
 */
import * as CachePolicy from "../CachePolicy.ts"
import type * as CacheScope from "../CacheScope.ts"
import type * as CacheStore from "../CacheStore.ts"
import * as Dependency from "../Dependency.ts"
import type * as QueryAnalyzer from "../QueryAnalyzer.ts"
import type { Effects } from "./effects.ts"
import { type Engine, part } from "./engine.ts"
import { Habits } from "./habits.ts"
import * as Memo from "./memo.ts"
import type { Names } from "./naming.ts"
import { canonicalOf } from "./parameters.ts"
import { rowCodec } from "./rowCodec.ts"

/** What a statement gives: rows as objects, with the client's transforms or without, or rows as arrays. */
export type Kind = "rows" | "plain" | "values"

export interface FormsOptions {
  readonly engine: Engine
}

export class Form {
  readonly options: FormsOptions
  readonly sql: string
  readonly kind: Kind
  /** What the names in it mean. */
  readonly names: Names
  readonly analysis: QueryAnalyzer.Analysis
  readonly effects: Effects
  readonly habits = new Habits()
  /** Whether the catalog has been read again for the names in it. */
  isAsked = false
  private readonly plans = new WeakMap<CachePolicy.Resolved, Plan>()
  private lastPolicy: CachePolicy.Resolved | undefined
  private lastPlan: Plan | undefined
  private unscoped: string | undefined
  private lastScope: string | undefined
  private lastSpace = ""

  constructor(options: FormsOptions, sql: string, kind: Kind, names: Names) {
    this.options = options
    this.sql = sql
    this.kind = kind
    this.names = names
    this.analysis = names.analyze(sql)
    this.effects = names.effectsOf(this.analysis)
  }

  /** What stands for it in a log: its beginning, without the values in it. */
  get label(): string {
    return this.sql.slice(0, 400)
      .replace(/\$(\w*)\$[^]*?(?:\$\1\$|$)|'(?:[^'\\]|''|\\[^])*(?:'|$)|(?<![\w$.])\d[\w.]*/g, "?")
      .replace(/\s+/g, " ")
      .slice(0, 120)
  }

  /** Whether another look at the text would tell the same. */
  get isLasting(): boolean {
    return this.names.isKnown && (this.analysis._tag !== "Refused" || this.analysis.code !== "parser-restarting")
  }

  /** Whether there is a name in it that means nothing, and nobody has asked whether it does by now. */
  get isDoubtful(): boolean {
    const { analysis } = this
    return (analysis._tag === "Refused" || analysis._tag === "Write") && analysis.doubtful === true && !this.isAsked
  }

  /** What it leaves behind in its session. */
  get changes(): QueryAnalyzer.Changes | undefined {
    return this.analysis._tag === "Read" ? undefined : this.analysis.changes
  }

  /** Tells one definition of what it reads from another. */
  get schema(): string {
    return this.analysis._tag === "Read" ? this.analysis.schema ?? "" : ""
  }

  /** The space of its answers: the same under every policy, and one for each scope. */
  spaceOf(scope: CacheScope.Resolved | undefined): string {
    if (this.unscoped === undefined) {
      const { namespace, schemaVersion, session } = this.options.engine.facts
      this.unscoped = [namespace, schemaVersion, session, this.schema, this.kind, this.sql].map(part).join("")
    }
    if (scope === undefined) return this.unscoped
    if (scope.key !== this.lastScope) {
      this.lastScope = scope.key
      this.lastSpace = `@${part(scope.key)}${this.unscoped}`
    }
    return this.lastSpace
  }

  /** `explicit`: the policy comes from `cached`, not from `strategy: "all"`. */
  plan(policy: CachePolicy.Resolved, explicit: boolean): Plan {
    if (policy === this.lastPolicy) return this.lastPlan!
    let plan = this.plans.get(policy)
    if (plan === undefined) this.plans.set(policy, plan = new Plan(this, policy, explicit))
    this.lastPolicy = policy
    this.lastPlan = plan
    return plan
  }
}

export class Plan {
  readonly form: Form
  readonly policy: CachePolicy.Complete
  private readonly tables: ReadonlyArray<string>
  /** What an answer depends on at most: what it does with its parameters is compared by this. */
  private readonly whole: Dependency.DependencySet
  /** Why nothing under this plan is cached, if so. */
  readonly refusal: string | undefined
  /** Why it is not where nobody says who asks. */
  readonly unscopedRefusal: string | undefined

  constructor(form: Form, policy: CachePolicy.Resolved, explicit: boolean) {
    const { rules } = form.options.engine
    const named = form.analysis._tag === "Read" ? form.analysis.tables : []
    const completed = rules.complete(policy, named)
    this.form = form
    this.policy = completed === "uncached" ? CachePolicy.complete(policy) : completed
    const tables = tablesOf(form.analysis, this.policy)
    this.refusal = refusalOf(form.analysis, tables, explicit) ?? (completed === "uncached" ? "rule" : undefined)
    this.unscopedRefusal = form.analysis._tag === "Read" ? form.analysis.scoped?.code : undefined
    this.tables = tables ?? []
    this.whole = this.make(undefined)
    form.options.engine.changes.know(this.whole.stamps)
  }

  get basis(): string {
    return this.whole.basis
  }

  /** What the answer to these parameters depends on. */
  dependenciesOf(parameters: ReadonlyArray<unknown>): Dependency.DependencySet {
    const { analysis } = this.form
    const rows = analysis._tag === "Read" ? analysis.rows?.(parameters) : undefined
    return rows === undefined || rows.size === 0 ? this.whole : this.make(rows)
  }

  /** Why the answer to these parameters depends on all of a table. */
  why(parameters: ReadonlyArray<unknown>): (table: string) => QueryAnalyzer.Whole {
    const { analysis, names, sql } = this.form
    const rows = analysis._tag === "Read" ? analysis.rows?.(parameters) : undefined
    // A text that was refused unread is not read for this either.
    let why: ((table: string) => QueryAnalyzer.Whole) | undefined
    return (stamp) => {
      const table = this.policy.autoInvalidate ? stamp : stamp.slice(1)
      return this.tables.includes(table) && rows?.has(table) !== true
        ? (why ??= names.why(sql, parameters))(table)
        : { reason: "declared", detail: undefined }
    }
  }

  private make(rows: QueryAnalyzer.Rows | undefined): Dependency.DependencySet {
    const { names } = this.form
    return Dependency.makeSet(
      [...names.reads(this.tables, rows), ...names.dependencies(this.policy.dependencies)],
      { autoInvalidate: this.policy.autoInvalidate, basis: rows === undefined ? undefined : this.basis }
    )
  }

  /** Whether the tables of its statement are among its dependencies, or the program has named them itself. */
  get isKnown(): boolean {
    return this.form.analysis._tag === "Read" || this.refusal === undefined || this.refusal === "rule"
  }
}

/**
 * Names one answer: the form in its context, and the parameters. The fingerprint waits until it is asked for. An entry
 * holds on to its key: to nothing of a policy, nor to the parameters, which a caller may change.
 */
export class QueryKey implements CacheStore.CacheKey {
  readonly form: Form
  readonly space: string
  readonly local: string | number | bigint
  readonly scope: CacheScope.Resolved | undefined
  private computed: string | undefined

  constructor(form: Form, local: string | number | bigint, scope: CacheScope.Resolved | undefined) {
    this.form = form
    this.space = form.spaceOf(scope)
    this.local = local
    this.scope = scope
    this.computed = undefined
  }

  get namespace(): string {
    return this.form.options.engine.facts.namespace
  }

  get codec(): CacheStore.Codec {
    return rowCodec
  }

  get fingerprint(): string {
    if (this.computed === undefined) {
      const { facts, fingerprinter } = this.form.options.engine
      this.computed = fingerprinter.fingerprint({
        ...facts,
        schemaVersion: this.form.schema === "" ? facts.schemaVersion : part(this.form.schema) + facts.schemaVersion,
        sql: this.form.sql,
        form: this.form.kind,
        scope: this.scope?.key ?? "",
        parameters: canonicalOf(this.local)
      })
    }
    return this.computed
  }
}

export class Forms {
  private readonly options: FormsOptions
  private readonly forms = Memo.make<Form>({ capacity: 10_000, maxBytes: 32 * 1024 * 1024 })

  constructor(options: FormsOptions) {
    this.options = options
  }

  get(sql: string, kind: Kind, names: Names): Form {
    const key = names.id + kind + sql
    let form = this.forms.get(key)
    if (form === undefined) {
      form = new Form(this.options, sql, kind, names)
      if (form.isLasting) this.forms.set(key, form)
      const { analysis } = form
      if (analysis._tag === "Read" || analysis._tag === "Write") this.options.engine.changes.know(analysis.tables)
    }
    return form
  }
}

// A program that names its tables itself is asked for them where the analyzer knows none.
const tablesOf = (
  analysis: QueryAnalyzer.Analysis,
  policy: CachePolicy.Complete
): ReadonlyArray<string> | undefined =>
  analysis._tag === "Read"
    ? analysis.tables
    : analysis._tag === "Refused" && analysis.code === "undeclared" && policy.dependencies.some(Dependency.isTableOrRow)
    ? []
    : undefined

// Effect's own tables are queues and locks: their readers want the row as it is now.
const isEffectTable = (table: string): boolean => table.startsWith("effect_") || table.startsWith("cluster_")

const refusalOf = (
  analysis: QueryAnalyzer.Analysis,
  tables: ReadonlyArray<string> | undefined,
  explicit: boolean
): string | undefined => {
  if (tables === undefined) return analysis._tag === "Refused" ? analysis.code : "not-a-read"
  if (explicit) return undefined
  if (analysis._tag === "Read" && analysis.timeDependent) return "time-dependent"
  return tables.some(isEffectTable) ? "effect-table" : undefined
}
