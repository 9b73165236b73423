/**
 * The statements of a decorated client: lazy, and asking the cache first.
 *
 * A hit must cost less than the statement's own machinery, so the tag keeps
 * `(strings, args)` and builds the base client's statement only when something
 * asks for it: a miss, a fragment's segments, `compile`. With scalar arguments
 * the SQL text depends on the template alone, so the form is found by the
 * template's identity.
 *
 * This is the one module that relies on how `effect/sql/Statement` works inside:
 *
 * - statements and fragments are known by their type id, which a lazy one shows;
 * - `CurrentTransformer` is called with the statement, a constructor of base
 *   statements, the fiber and a span. It runs here, *before* the key is made:
 *   were it left to the base statement, one tenant's rewrite would be served to
 *   another;
 * - each accessor (`values`, `unprepared`, ...) is an effect of the base
 *   statement and opens its own span.
 */
import type { PgClient } from "@effect/sql-pg"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import type * as Fiber from "effect/Fiber"
import { SqlError, StatementTimeoutError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import * as CachePolicy from "../CachePolicy.ts"
import * as CacheScope from "../CacheScope.ts"
import * as Dependency from "../Dependency.ts"
import type * as QueryAnalyzer from "../QueryAnalyzer.ts"
import * as QueryCache from "../QueryCache.ts"
import { type Consulted, CurrentConsulted } from "./consulted.ts"
import { Wire } from "./doubt/wire.ts"
import { type Effects, writingOf } from "./effects.ts"
import { type Engine, isBypassed, isUnserved } from "./engine.ts"
import { type Form, type Forms, type Kind, type Plan, QueryKey } from "./forms.ts"
import { FormTrie } from "./formTrie.ts"
import { effectsUnder } from "./naming.ts"
import { isScalar, localKey } from "./parameters.ts"
import { isFresh, type Reading } from "./reading.ts"
import { StoredRows } from "./rows.ts"
import type { Point } from "./session.ts"
import { appliedScope } from "./transactions.ts"

/** What the statements of a client share. */
export interface Decoration {
  readonly client: PgClient.PgClient
  readonly engine: Engine
  readonly forms: Forms
  /** The policy of a read that nobody put under `cached`, if it has one. */
  readonly defaultPolicy: CachePolicy.Resolved | undefined
  /** What rows are as the client gives them, and without its transforms: the same where it has none. */
  readonly rows: Kind
  readonly plain: Kind
}

type Run = "execute" | "withoutTransform" | "values" | "valuesUnprepared" | "unprepared" | "raw"

const kinds: { readonly [K in Run]: Kind | undefined } = {
  execute: "rows",
  unprepared: "rows",
  withoutTransform: "plain",
  values: "values",
  valuesUnprepared: "values",
  raw: undefined
}

const maxNodes = 20_000

/** What `cached()` says. */
const bare = CachePolicy.resolve({})

/** Makes the lazy statements of one client. */
export const makeStatements = (decoration: Decoration): {
  readonly tag: (strings: TemplateStringsArray, args: Array<any>) => Statement.Statement<any>
  readonly wrap: (statement: Statement.Statement<any>) => Statement.Statement<any>
} => {
  const { client, defaultPolicy, engine, forms } = decoration
  const { audits, naming, reader, sessions, tally, transactions } = engine
  const isShared = client.config.multiplex === true
  const kindOf = (run: Run): Kind | undefined => {
    const kind = kinds[run]
    return kind === "rows" || kind === "plain" ? decoration[kind] : kind
  }
  // Identifiers compile differently without the client's transforms.
  const tries = { transformed: new FormTrie(maxNodes), plain: new FormTrie(maxNodes) }
  const templates: { readonly [K in Kind]: WeakMap<TemplateStringsArray, Form> } = {
    rows: new WeakMap(),
    plain: new WeakMap(),
    values: new WeakMap()
  }

  // What the fiber's context decides is remembered for the last context seen: statements of one request
  // come in a row. It holds on to that one context until the next statement.
  let context: Context.Context<never> | undefined
  let clock: Clock.Clock
  let ambient: QueryCache.Ambient | undefined
  let collector: Array<QueryCache.QueryInfo> | undefined
  let consulted: Consulted | undefined
  let point: Point | undefined
  let scope: CacheScope.Resolved | undefined
  let inTransaction: boolean
  let transformer: Statement.Transformer | undefined
  const look = (fiber: Fiber.Fiber<unknown, unknown>) => {
    context = fiber.context
    clock = fiber.getRef(Clock.Clock)
    ambient = fiber.getRef(QueryCache.Ambient)
    collector = fiber.getRef(QueryCache.Collector)
    consulted = fiber.getRef(CurrentConsulted)
    point = sessions.pointOf(fiber)
    scope = fiber.getRef(CacheScope.CurrentScope)
    transformer = fiber.getRef(Statement.CurrentTransformer)
    inTransaction =
      Context.getOrUndefined(fiber.context as Context.Context<any>, client.transactionService) !== undefined
  }

  /** What `cached` and `uncached` say, be they around the statement itself or further out. */
  const explicitPolicy = (own: CachePolicy.Resolved | undefined): CachePolicy.Resolved | "uncached" | undefined => {
    const outer = ambient?.policy
    return own === undefined ? outer : outer === undefined ? own : merged(outer, own)
  }

  /** Runs the base statement where no cache has a part: in its scope, and seen if it writes. */
  const direct = (
    fiber: Fiber.Fiber<unknown, unknown>,
    form: Form,
    self: LazyStatement,
    run: Run
  ): Effect.Effect<any, SqlError> => {
    if (engine.strict !== undefined) {
      const refusal = transactions.refusal(fiber, effectsOf(fiber, form))
      if (refusal !== undefined) return Effect.fail(refusal)
    }
    if (inTransaction) {
      const mismatch = transactions.checkScope(fiber, scope)
      if (mismatch !== undefined) return mismatch
    } else if (appliedScope(scope) !== "" || transactions.isWrapped(form.effects)) {
      // The transaction that applies the scope, or has a fence, collects what the statement writes.
      const observed = Effect.withFiber((fiber) => {
        if (fiber.context !== context) look(fiber)
        return observe(fiber, form, self, run)
      })
      return transactions.isWrapped(form.effects)
        ? naming.watched(transactions.wrap(observed))
        : transactions.withTransaction(observed)
    }
    return observe(fiber, form, self, run)
  }

  const observe = (
    fiber: Fiber.Fiber<unknown, unknown>,
    form: Form,
    self: LazyStatement,
    run: Run
  ): Effect.Effect<any, SqlError> => {
    const { changes } = form
    const performed = perform(fiber, form, self, run)
    return changes === undefined ? performed : Effect.andThen(transactions.leave(fiber, changes, naming), performed)
  }

  const perform = (
    fiber: Fiber.Fiber<unknown, unknown>,
    form: Form,
    self: LazyStatement,
    run: Run
  ): Effect.Effect<any, SqlError> => {
    const effects = effectsOf(fiber, form)
    if (effects._tag === "Nothing") return self.run(run)
    const wire = new Wire(isShared)
    const base = inTransaction ? self.run(run) : self.run(run, wire)
    switch (effects._tag) {
      case "Writes":
        // What is collected in a transaction is delivered at its end.
        return inTransaction || effects.targets.all
          ? transactions.write(fiber, base, writingOf(effects, sentBy(self, run)), wire)
          : naming.watched(transactions.write(fiber, base, writingOf(effects, sentBy(self, run)), wire))
      case "Session":
        return inTransaction
          ? transactions.controlInside(fiber, base, effects)
          : transactions.control(base, effects, wire)
    }
  }

  /** What a statement does, where its transaction may have changed what names mean. */
  const effectsOf = (fiber: Fiber.Fiber<unknown, unknown>, form: Form): Effects =>
    inTransaction && transactions.isAnywhere(fiber) ? effectsUnder(naming.anywhere(), form.sql) : form.effects

  /** Notes what a read depends on, whoever answers it. */
  const note = (form: Form, policy: CachePolicy.Resolved | "uncached" | undefined): void => {
    if (consulted === undefined || form.effects._tag !== "Nothing") return
    const plan = form.plan(policy === undefined || policy === "uncached" ? bare : policy, true)
    if (plan.isKnown) consulted.add(plan.dependenciesOf(located))
    else consulted.addUnknown()
  }

  const inform = (
    into: Array<QueryCache.QueryInfo> | undefined,
    form: Form,
    plan: Plan | undefined,
    key: QueryKey | undefined,
    answer: {
      readonly status: QueryCache.QueryInfo["status"]
      readonly level: QueryCache.QueryInfo["level"]
      readonly ageMillis: number
      readonly reason: string | undefined
    }
  ): void => {
    into?.push({
      sql: form.sql,
      name: plan?.policy.name,
      status: answer.status,
      level: answer.level,
      age: Duration.millis(answer.ageMillis),
      get fingerprint() {
        return key?.fingerprint
      },
      reason: answer.reason
    })
  }

  const bypass = (
    fiber: Fiber.Fiber<unknown, unknown>,
    form: Form,
    plan: Plan | undefined,
    self: LazyStatement,
    run: Run,
    reason: string
  ): Effect.Effect<any, SqlError> => {
    if (form.effects._tag === "Writes") {
      inform(collector, form, plan, undefined, { status: "write", level: undefined, ageMillis: 0, reason: undefined })
    } else {
      tally.bypassed(reason)
      inform(collector, form, plan, undefined, { status: "bypass", level: undefined, ageMillis: 0, reason })
    }
    return direct(fiber, form, self, run)
  }

  /** The parameters of the statement that `locate` was last called with. */
  let located: ReadonlyArray<unknown> = []

  const locate = (self: LazyStatement, run: Run): Form => {
    const kind = kindOf(run) ?? "rows"
    const withoutTransform = run === "withoutTransform" || run === "raw"
    const { strings } = self
    const names = naming.of(scope)
    let form: Form | undefined
    // With scalar arguments the text depends on the template alone, otherwise on the segments between parameters.
    if (strings !== undefined && allScalars(self.args)) {
      located = self.args
      form = templates[kind].get(strings)
      if (form === undefined || form.names !== names) {
        form = forms.get(self.inner.compile(withoutTransform)[0], kind, names)
        if (form.isLasting) templates[kind].set(strings, form)
      }
      return form
    }
    const parameters: Array<unknown> = []
    const node = tries[withoutTransform ? "plain" : "transformed"].locate(self.inner.segments, parameters)
    form = node?.forms[kind]
    if (form === undefined || form.names !== names) {
      const [sql, sent] = self.inner.compile(withoutTransform)
      located = sent
      form = forms.get(sql, kind, names)
      if (node !== undefined && form.isLasting && areSame(sent, parameters)) node.forms[kind] = form
    } else {
      located = parameters
    }
    return form
  }

  /**
   * Whether the statement sends what was located. What it sends was settled when it was first compiled, and a list in it
   * may have changed since: its rows must not be kept under what the list holds now.
   */
  const sends = (self: LazyStatement, run: Run, parameters: ReadonlyArray<unknown>): boolean =>
    parameters === self.args || areSame(sentBy(self, run), parameters)

  const sentBy = (self: LazyStatement, run: Run): ReadonlyArray<unknown> =>
    self.inner.compile(run === "withoutTransform" || run === "raw")[1]

  /**
   * What a statement waits for until it is known what its names mean, if it must. A transaction may have the connection
   * that would tell.
   */
  const unknownNames = (form: Form): Effect.Effect<void> | undefined => {
    if (form.names.isKnown && !form.isDoubtful || inTransaction) return undefined
    if (!form.names.isKnown) {
      return form.analysis._tag === "Session" || form.analysis._tag === "Ddl" ? undefined : naming.settled
    }
    form.isAsked = true
    return naming.renewed
  }

  /** Why a statement under a plan is not answered from the cache here and now, if so. */
  const objection = (plan: Plan, run: Run): string | undefined =>
    run === "raw"
      ? "raw"
      : plan.refusal ??
        (scope === undefined && plan.unscopedRefusal !== undefined
          ? plan.unscopedRefusal
          : inTransaction || transactions.isByHand
          ? "transaction"
          : !engine.delivery.unserved.isEmpty && isUnserved(engine, plan.dependenciesOf(located))
          ? "unserved"
          : point !== undefined && isBypassed(engine, point, clock)
          ? "session"
          : undefined)

  const consult = (
    self: LazyStatement,
    run: Run,
    fiber: Fiber.Fiber<unknown, unknown>,
    own: CachePolicy.Resolved | undefined,
    waited = false
  ): Effect.Effect<any, SqlError> => {
    if (fiber.context !== context) look(fiber)
    if (transformer !== undefined) {
      return transformed(self, transformer, (rewritten, fiber) => consult(rewritten, run, fiber, own))
    }
    if (ambient !== undefined && !waited) ambient.witness.consulted++

    const now = clock.currentTimeMillisUnsafe()
    naming.tick(now)
    const form = locate(self, run)
    const parameters = located

    if (engine.noop) return bypass(fiber, form, undefined, self, run, "noop")
    const wait = waited ? undefined : unknownNames(form)
    if (wait !== undefined) {
      return Effect.andThen(wait, Effect.withFiber((fiber) => consult(self, run, fiber, own, true)))
    }
    if (consulted !== undefined) note(form, explicitPolicy(own) ?? defaultPolicy)

    const explicit = explicitPolicy(own)
    const policy = explicit ?? defaultPolicy
    if (policy === undefined || policy === "uncached") {
      const reason = policy === undefined ? "no-policy" : "uncached"
      return form.effects._tag === "Nothing" && form.changes === undefined && collector === undefined &&
          scope === undefined && policy === undefined
        ? self.run(run)
        : bypass(fiber, form, undefined, self, run, reason)
    }
    const plan = form.plan(policy, explicit !== undefined)
    const against = objection(plan, run)
    if (against !== undefined) return bypass(fiber, form, plan, self, run, against)
    const local = localKey(parameters)
    if (local === undefined) return bypass(fiber, form, plan, self, run, "parameters")
    const key = new QueryKey(form, local, scope)

    const kept = point === undefined || sessions.mayPeek(point)
      ? reader.peek(key, plan.basis, plan.policy, now)
      : undefined
    if (kept !== undefined) {
      form.habits.hits++
      const stale = !isFresh(kept, plan.policy, now)
      const isAudited = !stale && audits.isDue()
      if (stale || plan.policy.refreshAhead > 0 || isAudited) {
        const reading = readingOf(self, run, plan, key, parameters)
        if (reading !== undefined) {
          reader.freshen(fiber, reading, kept, now)
          if (isAudited) audits.take(fiber, reading, kept, now)
        }
      }
      if (collector !== undefined) {
        inform(collector, form, plan, key, {
          status: stale ? "stale" : "hit",
          level: kept.level,
          ageMillis: now - kept.storedAtMillis,
          reason: stale ? "expired" : undefined
        })
      }
      return Effect.succeed(rowsOf(kept.value as StoredRows, plan.policy))
    }

    const reading = readingOf(self, run, plan, key, parameters)
    if (reading === undefined) return bypass(fiber, form, plan, self, run, "parameters")
    const into = collector
    return Effect.flatMap(reader.fetch(reading), (answer): Effect.Effect<any, SqlError> => {
      const stored = answer.stored as StoredRows | undefined
      const rows = stored !== undefined && plan.policy.rows === "frozen"
        ? stored.frozen()
        : answer.take() ?? stored?.copy()
      if (rows !== undefined) {
        inform(into, form, plan, key, answer)
        return Effect.succeed(rows)
      }
      // Rows that cannot be copied belong to the first caller; the others ask for their own.
      inform(into, form, plan, key, { ...answer, status: "bypass", reason: "unrepresentable" })
      return reading.query
    })
  }

  /** `undefined` where the statement would not send what it was asked for. */
  const readingOf = (
    self: LazyStatement,
    run: Run,
    plan: Plan,
    key: QueryKey,
    parameters: ReadonlyArray<unknown>
  ): Reading<ReadonlyArray<any>, SqlError> | undefined => {
    if (!sends(self, run, parameters)) return undefined
    const base = self.run(run)
    let dependencies: Dependency.DependencySet | undefined
    return {
      key,
      basis: plan.basis,
      dependencies: () => dependencies ??= plan.dependenciesOf(parameters),
      terms: plan.policy,
      habits: plan.form.habits,
      point,
      label: () => plan.policy.name ?? plan.form.label,
      query: appliedScope(scope) === "" ? base : transactions.withTransaction(base),
      timedOut,
      admit: (rows) => {
        const stored = StoredRows.make(rows)
        return {
          stored,
          bytes: stored?.bytes ?? 0,
          refusal: stored === undefined
            ? "unrepresentable"
            : isChanged(parameters, key.local) || !accepts(plan.policy, rows)
            ? "declined"
            : undefined
        }
      },
      holds: isStoredRows
    }
  }

  const explain = (
    self: LazyStatement,
    run: Run,
    fiber: Fiber.Fiber<unknown, unknown>,
    own: CachePolicy.Resolved | undefined,
    waited = false
  ): Effect.Effect<QueryCache.Explanation> => {
    if (fiber.context !== context) look(fiber)
    if (transformer !== undefined) {
      return transformed(self, transformer, (rewritten, fiber) => explain(rewritten, run, fiber, own))
    }
    const form = locate(self, run)
    const wait = waited ? undefined : unknownNames(form)
    if (wait !== undefined) {
      return Effect.andThen(wait, Effect.withFiber((fiber) => explain(self, run, fiber, own, true)))
    }
    const { analysis, effects, sql } = form
    if (effects._tag === "Writes") {
      const { targets } = writingOf(effects, located)
      return Effect.succeed({
        sql,
        verdict: "write",
        reason: analysis._tag === "Refused"
          ? analysis.code
          : targets.schema
          ? "schema-change"
          : targets.all
          ? "opaque-write"
          : undefined,
        detail: analysis._tag === "Refused"
          ? analysis.detail
          : analysis._tag === "Write"
          ? analysis.culprit
          : undefined,
        fingerprint: undefined,
        dependencies: targets.all ? ["*"] : shownTargets(targets),
        whole: targets.all ? [] : wholeTables(wholeTargets(targets), () => form.names.why(sql, located))
      })
    }
    const explicit = explicitPolicy(own)
    const policy = explicit ?? defaultPolicy ?? bare
    const plan = policy === "uncached"
      ? undefined
      : form.plan(policy, explicit !== undefined || defaultPolicy === undefined)
    const local = localKey(located)
    const dependencies = plan?.dependenciesOf(located)
    const reason = engine.noop
      ? "noop"
      : plan === undefined
      ? "uncached"
      : objection(plan, run) ?? (local === undefined ? "parameters" : undefined)
    return Effect.succeed({
      sql,
      verdict: reason === undefined ? "cached" : "bypass",
      reason,
      detail: analysis._tag === "Refused" && analysis.code === reason
        ? analysis.detail
        : analysis._tag === "Read" && analysis.scoped?.code === reason
        ? analysis.scoped?.detail
        : undefined,
      fingerprint: reason === undefined ? new QueryKey(form, local!, scope).fingerprint : undefined,
      dependencies: dependencies?.stamps.filter(isName) ?? [],
      whole: dependencies === undefined
        ? []
        : wholeTables(
          dependencies.tables.filter((table) => isName(table) && dependencies.stamps.includes(table)),
          () => plan!.why(located)
        )
    })
  }

  const transformed = <A, E>(
    self: LazyStatement,
    transformer: Statement.Transformer,
    next: (rewritten: LazyStatement, fiber: Fiber.Fiber<unknown, unknown>) => Effect.Effect<A, E>
  ): Effect.Effect<A, E> =>
    Effect.flatMap(rewrite(self, transformer), (rewritten) =>
      Effect.provideService(
        Effect.withFiber((fiber) => next(rewritten, fiber)),
        Statement.CurrentTransformer,
        undefined
      ))

  const rewrite = (self: LazyStatement, transformer: Statement.Transformer): Effect.Effect<LazyStatement> =>
    Effect.useSpan(
      "sql.transform",
      (span) =>
        Effect.withFiber((fiber) =>
          Effect.map(
            transformer(self.inner, client, fiber, span),
            (statement): any => (statement as unknown) instanceof LazyStatement ? statement : wrap(statement)
          )
        )
    )

  /** An accessor of a statement, such as `values`: an effect of its own that can be piped through `cached`. */
  class Accessor {
    readonly statement: LazyStatement
    readonly run: Run

    constructor(statement: LazyStatement, run: Run) {
      this.statement = statement
      this.run = run
    }

    [QueryCache.ConsultTypeId](fiber: Fiber.Fiber<unknown, unknown>, policy: CachePolicy.Resolved) {
      return consult(this.statement, this.run, fiber, policy)
    }
    [QueryCache.ExplainTypeId](fiber: Fiber.Fiber<unknown, unknown>, policy: CachePolicy.Resolved | undefined) {
      return explain(this.statement, this.run, fiber, policy)
    }
  }
  Object.assign(
    Accessor.prototype,
    Effectable.Prototype<Effect.Effect<any, SqlError> & Accessor>({
      label: "Statement",
      evaluate(fiber) {
        return consult(this.statement, this.run, fiber, undefined)
      }
    })
  )

  class LazyStatement {
    readonly strings: TemplateStringsArray | undefined
    readonly args: Array<any>
    private made: Statement.Statement<any> | undefined

    constructor(
      strings: TemplateStringsArray | undefined,
      args: Array<any>,
      made: Statement.Statement<any> | undefined
    ) {
      this.strings = strings
      this.args = args
      this.made = made
    }

    get inner(): Statement.Statement<any> {
      return this.made ??= client(this.strings!, ...this.args)
    }

    run(run: Run, wire?: Wire): Effect.Effect<any, SqlError> {
      const statement = wire === undefined ? this.inner : wire.watch(this.inner)
      return run === "execute" ? statement : statement[run]
    }

    get segments() {
      return this.inner.segments
    }
    get withoutTransform() {
      return new Accessor(this, "withoutTransform")
    }
    get values() {
      return new Accessor(this, "values")
    }
    get valuesUnprepared() {
      return new Accessor(this, "valuesUnprepared")
    }
    get unprepared() {
      return new Accessor(this, "unprepared")
    }
    get raw() {
      return new Accessor(this, "raw")
    }
    get stream() {
      const self = this
      const open = (waited: boolean) =>
        Effect.withFiber((fiber): Effect.Effect<Stream.Stream<any, SqlError>, SqlError> => {
          if (fiber.context !== context) look(fiber)
          if (transformer !== undefined) {
            return Effect.map(
              rewrite(self, transformer),
              (rewritten) => Stream.provideService(rewritten.stream, Statement.CurrentTransformer, undefined)
            )
          }
          if (ambient !== undefined && !waited) ambient.witness.consulted++
          const form = forms.get(self.inner.compile()[0], "rows", naming.of(scope))
          const wait = waited ? undefined : unknownNames(form)
          if (wait !== undefined) return Effect.andThen(wait, open(true))
          note(form, explicitPolicy(undefined))
          const scopeMismatch = inTransaction
            ? transactions.checkScope(fiber, scope)
            : appliedScope(scope) === ""
            ? undefined
            : Effect.die(new Error("CacheScope.provide: a stream outside a transaction cannot be run in a scope"))
          if (scopeMismatch !== undefined) return scopeMismatch
          const effects = effectsOf(fiber, form)
          const refusal = transactions.refusal(fiber, effects)
          if (refusal !== undefined) return Effect.fail(refusal)
          const wire = new Wire(isShared)
          const observed = effects._tag === "Writes"
            ? transactions.writeStream(
              wire.watch(self.inner, true).stream,
              writingOf(effects, sentBy(self, "execute")),
              wire
            )
            : self.inner.stream
          return form.changes === undefined
            ? Effect.succeed(observed)
            : Effect.as(transactions.leave(fiber, form.changes, naming), observed)
        })
      return Stream.unwrap(open(false))
    }
    compile(withoutTransform?: boolean) {
      return this.inner.compile(withoutTransform)
    }
    toJSON() {
      return (this.inner as any).toJSON()
    }

    [QueryCache.ConsultTypeId](fiber: Fiber.Fiber<unknown, unknown>, policy: CachePolicy.Resolved) {
      return consult(this, "execute", fiber, policy)
    }
    [QueryCache.ExplainTypeId](fiber: Fiber.Fiber<unknown, unknown>, policy: CachePolicy.Resolved | undefined) {
      return explain(this, "execute", fiber, policy)
    }
  }
  const { toJSON } = LazyStatement.prototype
  const { segments: _, ...fragmentTypeId } = Statement.fragment([])
  Object.assign(
    LazyStatement.prototype,
    Effectable.Prototype<Effect.Effect<any, SqlError> & LazyStatement>({
      label: "Statement",
      evaluate(fiber) {
        return consult(this, "execute", fiber, undefined)
      }
    }),
    fragmentTypeId,
    { toJSON }
  )

  const wrap = (statement: Statement.Statement<any>): Statement.Statement<any> =>
    new LazyStatement(undefined, [], statement) as any

  return {
    tag: (strings, args) => new LazyStatement(strings, args, undefined) as any,
    wrap
  }
}

const allScalars = (args: ReadonlyArray<unknown>): boolean => {
  for (let i = 0; i < args.length; i++) {
    if (!isScalar(args[i])) return false
  }
  return true
}

const areSame = (a: ReadonlyArray<unknown>, b: ReadonlyArray<unknown>): boolean =>
  a === b || (a.length === b.length && a.every((value, i) => Object.is(value, b[i])))

/** Whether a caller has changed a parameter since, say a buffer used again: then nobody knows what was sent. */
const isChanged = (parameters: ReadonlyArray<unknown>, local: QueryKey["local"]): boolean =>
  parameters.some((value) => typeof value === "object" && value !== null) && localKey(parameters) !== local

const accepts = ({ cacheWhen }: CachePolicy.Complete, rows: ReadonlyArray<any>): boolean => {
  if (cacheWhen === undefined) return true
  try {
    return cacheWhen(rows) === true
  } catch {
    return false
  }
}

/** The rows of a hit, as the policy wants them. */
const rowsOf = (stored: StoredRows, policy: CachePolicy.Complete): ReadonlyArray<any> =>
  policy.rows === "frozen" ? stored.frozen() : stored.copy()

const isStoredRows = (stored: unknown): boolean => stored instanceof StoredRows

const timedOut = Effect.suspend(() =>
  Effect.fail(
    new SqlError({
      reason: new StatementTimeoutError({
        cause: undefined,
        message: "QueryCache.cached: the database took longer than hardTimeout",
        operation: "execute"
      })
    })
  )
)

/** A stamp that names a dependency, rather than a shape or all rows of a table, or a mark between processes. */
const isName = (stamp: string): boolean =>
  !/\([^"=]*\)$|^!?[?~%^]/.test(stamp) || stamp.startsWith("#") || stamp.startsWith("@")

const wholeTargets = ({ images, stamps }: Dependency.Targets): ReadonlyArray<string> =>
  stamps.filter((stamp) => isName(stamp) && !images.some(({ table }) => table === stamp))

const wholeTables = (
  tables: ReadonlyArray<string>,
  why: () => (table: string) => QueryAnalyzer.Whole
): QueryCache.Explanation["whole"] => {
  if (tables.length === 0) return []
  const of = why()
  return [...tables].sort().map((table) => ({ table, ...of(table) }))
}

/** Tables that are written as wholes, and rows. */
const shownTargets = (targets: Dependency.Targets): ReadonlyArray<string> => [
  ...wholeTargets(targets),
  ...targets.images.map(({ columns, table }) => Dependency.rowStamp(table, [...columns]))
]

const merges = new WeakMap<CachePolicy.Resolved, WeakMap<CachePolicy.Resolved, CachePolicy.Resolved>>()

const merged = (
  outer: CachePolicy.Resolved | "uncached",
  inner: CachePolicy.Resolved
): CachePolicy.Resolved | "uncached" => {
  if (outer === "uncached") return outer
  let inners = merges.get(outer)
  if (inners === undefined) merges.set(outer, inners = new WeakMap())
  let policy = inners.get(inner)
  if (policy === undefined) inners.set(inner, policy = CachePolicy.merge(outer, inner))
  return policy
}
