/**
 * The read path: which statements are cached and how, and what a caller gets.
 *
 * `cached`, `uncached` and `withInfo` work on any effect. They set what the
 * statements inside it see, and change neither its value nor its error nor what
 * it requires. The {@link QueryCache} service is what those statements ask.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import type * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as CacheMetrics from "./CacheMetrics.ts"
import * as CachePolicy from "./CachePolicy.ts"
import type { Engine } from "./internal/engine.ts"
import * as Live from "./internal/live.ts"
import type * as QueryAnalyzer from "./QueryAnalyzer.ts"

/**
 * Answers reads from the store, and fills it: what statements, cached queries
 * and resolvers ask.
 *
 * @category services
 * @since 0.1.0
 */
export class QueryCache extends Context.Service<QueryCache, {
  /** What the cache has done since its layer was built. Reading it brings the metrics up to date. */
  readonly stats: Effect.Effect<Stats>
  /** What the surfaces of this library are made of. Not for programs: it changes without notice. */
  readonly engine: Engine
}>()("effect-query-cache/QueryCache") {}

/**
 * Counts since the layer was built.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  readonly hits: number
  /** Reads that were served something whose time had passed. */
  readonly stale: number
  readonly misses: number
  /** Reads that shared the flight of another. */
  readonly joined: number
  readonly bypasses: number
  readonly fills: number
  /** Answers that were not stored, for whatever reason. */
  readonly refusedFills: number
  readonly invalidations: number
  readonly storeErrors: number
  /** Invalidations that wait for delivery now. */
  readonly undelivered: number
}

/**
 * What became of one statement. `fingerprint` is computed when it is read.
 *
 * @category models
 * @since 0.1.0
 */
export interface QueryInfo {
  /** `undefined` for the value of a cached query, a resolver or a view. */
  readonly sql: string | undefined
  /** The name of the policy, if it has one, or that of the cached query. */
  readonly name: string | undefined
  /**
   * `hit`: from the store. `stale`: from the store, its time had passed. `miss`:
   * from the database, by this caller. `joined`: shared with a caller that asked
   * already. `bypass`: from the database, the cache had no part in it. `write`: not
   * a read.
   */
  readonly status: "hit" | "stale" | "miss" | "joined" | "bypass" | "write"
  readonly level: "L1" | "L2" | undefined
  /** How long ago the answer was read from the database; zero but for what is from the store. */
  readonly age: Duration.Duration
  readonly fingerprint: string | undefined
  /** Why it was stale, a miss or a bypass: the codes are in docs/schema.md. */
  readonly reason: string | undefined
}

/**
 * Caches what the statements inside an effect read.
 *
 * **When to use**
 *
 * Pipe a statement, a `SqlSchema` query, a request or a whole `Effect.fn` body
 * through it. Data-first and data-last; the policy is optional.
 *
 * **Details**
 *
 * - Fields of an inner `cached` win over those of an outer one; tags and
 *   dependencies accumulate; {@link uncached} wins inside.
 * - Reads inside a transaction go to the database, and so do statements that
 *   cannot be cached: `withInfo` tells why.
 * - Failures are never cached.
 *
 * **Gotchas**
 *
 * It caches statements, not the effect: what the effect does besides is done
 * each time. An effect that succeeds without any statement having consulted a
 * cache is reported once (per policy name, else once per process): most often
 * the layer is missing, or the statement was built by another client.
 *
 * **Example** (A cached statement)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { QueryCache } from "effect-query-cache"
 * import { SqlClient } from "effect/sql"
 *
 * export const active = Effect.gen(function*() {
 *   const sql = yield* SqlClient.SqlClient
 *   return yield* sql`SELECT * FROM users WHERE status = ${"active"}`.pipe(
 *     QueryCache.cached({ timeToLive: "5 minutes", tags: ["users"] })
 *   )
 * })
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const cached: <Arg extends Effect.Effect<any, any, any> | CachePolicy.CachePolicy = CachePolicy.CachePolicy>(
  effectOrPolicy?: Arg,
  policy?: CachePolicy.CachePolicy
) => [Arg] extends [Effect.Effect<infer A, infer E, infer R>] ? Effect.Effect<A, E, R>
  : <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = ((
    effectOrPolicy?: Effect.Effect<any, any, any> | CachePolicy.CachePolicy,
    policy?: CachePolicy.CachePolicy
  ) => {
    if (Effect.isEffect(effectOrPolicy)) return new Cached(effectOrPolicy, CachePolicy.resolve(policy ?? {}))
    const resolved = CachePolicy.resolve((effectOrPolicy ?? {}) as CachePolicy.CachePolicy)
    return (self: Effect.Effect<any, any, any>) => new Cached(self, resolved)
  }) as any

/**
 * Makes the statements inside an effect go to the database, whatever `cached`
 * stands around it. Writes are still seen.
 *
 * @category combinators
 * @since 0.1.0
 */
export const uncached = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const outer = fiber.getRef(Ambient)
    return Effect.provideService(self, Ambient, { policy: "uncached", witness: outer?.witness ?? { consulted: 0 } })
  })

/**
 * Tells what became of each statement inside an effect, in the order in which
 * they were decided. Streams and what is run on a reserved connection are left
 * out.
 *
 * **Example** (Is it a hit?)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { QueryCache } from "effect-query-cache"
 *
 * export const logged = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
 *   QueryCache.withInfo(effect).pipe(
 *     Effect.tap(([queries]) => Effect.log(queries.map((query) => `${query.status} ${query.sql}`))),
 *     Effect.map(([_, value]) => value)
 *   )
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const withInfo = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<[queries: ReadonlyArray<QueryInfo>, value: A], E, R> =>
  Effect.suspend(() => {
    const queries: Array<QueryInfo> = []
    return Effect.map(Effect.provideService(self, Collector, queries), (value) => [queries, value])
  })

/**
 * Emits the value of an effect, and its value anew whenever it may have changed.
 *
 * **When to use**
 *
 * For whatever is shown as long as somebody looks at it: a page that is pushed to a
 * browser, an atom, a metric.
 *
 * **Details**
 *
 * - It may have changed when something was invalidated, in this process or, with a
 *   shared store, in another, that the effect consulted when it last ran: what its
 *   statements read, cached or not, and what its cached queries and materialized
 *   views depend on. A statement of which nobody knows what it reads depends on
 *   everything.
 * - It listens before it first reads, and what it emits after a change was read
 *   after it. Where messages of the store may have been lost, it reads again.
 * - The effect runs when the stream is pulled. Changes that come meanwhile are one.
 * - It fails as the effect fails. `Stream.retry` begins anew.
 *
 * **Gotchas**
 *
 * What ends by its time to live is no change. What nobody invalidates is not seen.
 *
 * **Example** (The number of orders, live)
 *
 * ```ts
 * import { Console, Effect, Stream } from "effect"
 * import { QueryCache } from "effect-query-cache"
 * import { SqlClient } from "effect/sql"
 *
 * export const program = Effect.gen(function*() {
 *   const sql = yield* SqlClient.SqlClient
 *   const total = sql<{ n: number }>`SELECT count(*)::int AS n FROM orders`.pipe(QueryCache.cached())
 *   yield* QueryCache.changes(total).pipe(
 *     Stream.map(([{ n }]) => n),
 *     Stream.changes,
 *     Stream.runForEach((n) => Console.log(`${n} orders`))
 *   )
 * })
 * ```
 *
 * @category streams
 * @since 0.1.0
 */
export const changes = <A, E, R>(self: Effect.Effect<A, E, R>): Stream.Stream<A, E, R | QueryCache> =>
  Stream.unwrap(Effect.map(QueryCache, ({ engine }) => Live.stream(engine.changes, self)))

/**
 * What would become of a statement here and now, and why. Runs nothing.
 *
 * **Details**
 *
 * A statement that `cached` or the strategy `"all"` has no part in is judged as if
 * `cached(policy)` stood around it. Scope, transaction, transformer, `uncached` and
 * what is not served for the moment are taken from where it runs.
 *
 * A write is judged before it runs: what it returns then may tell its rows where
 * `whole` says `when-run`.
 *
 * **Example** (Why is it not cached?)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { QueryCache } from "effect-query-cache"
 * import { SqlClient } from "effect/sql"
 *
 * export const program = Effect.gen(function*() {
 *   const sql = yield* SqlClient.SqlClient
 *   const { reason, verdict } = yield* QueryCache.explain(sql`SELECT random()`)
 *   yield* Effect.log(verdict, reason) // bypass volatile-function
 * })
 * ```
 *
 * @category inspection
 * @since 0.1.0
 */
export const explain = (
  statement: Effect.Effect<any, any, any>,
  policy?: CachePolicy.CachePolicy
): Effect.Effect<Explanation> => {
  let own = policy === undefined ? undefined : CachePolicy.resolve(policy)
  let inner: any = statement
  while (inner instanceof Cached) {
    own = own === undefined ? inner.policy : CachePolicy.merge(own, inner.policy)
    inner = inner.self
  }
  return Effect.withFiber((fiber) =>
    inner[ExplainTypeId]?.(fiber, own) ??
      Effect.succeed({
        sql: undefined,
        verdict: "bypass",
        reason: "undecorated",
        detail: undefined,
        fingerprint: undefined,
        dependencies: [],
        whole: []
      })
  )
}

/**
 * What `explain` answers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Explanation {
  /** `undefined` for what is no statement of a decorated client. */
  readonly sql: string | undefined
  readonly verdict: "cached" | "bypass" | "write"
  /**
   * Why it would bypass the cache: a `QueryAnalyzer.RefusalCode`, or `not-a-read`,
   * `time-dependent`, `effect-table` (these two under the strategy `"all"`),
   * `uncached`, `rule`, `transaction`, `unserved`, `session`, `parameters`, `raw`,
   * `noop`, `undecorated`. Of a `write` that invalidates everything: the code under which it may have written anything,
   * `opaque-write` or `schema-change`.
   */
  readonly reason: string | undefined
  /** What the reason is about: a function, table, trigger or clause. Never a value. */
  readonly detail: string | undefined
  readonly fingerprint: string | undefined
  /** What it depends on, or what it invalidates: tables, rows, `#tags`, `@keys`; `*` is everything. */
  readonly dependencies: ReadonlyArray<string>
  /** Those of the dependencies that are whole tables, sorted, and why they are not rows: `QueryAnalyzer.WholeReason`. */
  readonly whole: ReadonlyArray<QueryAnalyzer.Whole & { readonly table: string }>
}

/**
 * What `cached` and `uncached` tell the statements inside them.
 *
 * @category references
 * @since 0.1.0
 */
export interface Ambient {
  readonly policy: CachePolicy.Resolved | "uncached"
  readonly witness: { consulted: number }
}

/**
 * Carries {@link Ambient}. `undefined` outside of `cached` and `uncached`.
 *
 * @category references
 * @since 0.1.0
 */
export const Ambient: Context.Reference<Ambient | undefined> = Context.Reference<Ambient | undefined>(
  "effect-query-cache/QueryCache/Ambient",
  { defaultValue: () => undefined }
)

/**
 * Carries the list that {@link withInfo} collects.
 *
 * @category references
 * @since 0.1.0
 */
export const Collector: Context.Reference<Array<QueryInfo> | undefined> = Context.Reference<
  Array<QueryInfo> | undefined
>("effect-query-cache/QueryCache/Collector", { defaultValue: () => undefined })

/**
 * Under this key a statement of a decorated client takes a policy directly,
 * which spares a hit the ambient reference.
 *
 * @category references
 * @since 0.1.0
 */
export const ConsultTypeId = "~effect-query-cache/QueryCache/Consult"

/**
 * Under this key a statement of a decorated client explains itself.
 *
 * @category references
 * @since 0.1.0
 */
export const ExplainTypeId = "~effect-query-cache/QueryCache/Explain"

/**
 * A statement of a decorated client.
 *
 * @category models
 * @since 0.1.0
 */
export interface Consult<A, E> {
  readonly [ConsultTypeId]: (
    fiber: Fiber.Fiber<unknown, unknown>,
    policy: CachePolicy.Resolved
  ) => Effect.Effect<A, E>
}

/**
 * Builds the service. `CachedSqlClient.layerNoDeps` is the layer that does so.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (engine: Engine): QueryCache["Service"] =>
  QueryCache.of({
    engine,
    stats: Effect.sync(() => {
      engine.tally.flush()
      return { ...engine.tally.counts }
    })
  })

// -----------------------------------------------------------------------------
// cached
// -----------------------------------------------------------------------------

class Cached {
  readonly self: Effect.Effect<any, any, any>
  readonly policy: CachePolicy.Resolved

  constructor(self: Effect.Effect<any, any, any>, policy: CachePolicy.Resolved) {
    this.self = self
    this.policy = policy
  }
}

Object.assign(
  Cached.prototype,
  Effectable.Prototype<Effect.Effect<any, any, any> & Cached>({
    label: "QueryCache.cached",
    evaluate(fiber) {
      const consult = (this.self as any)[ConsultTypeId]
      return consult === undefined
        ? underAmbient(this.self, this.policy, fiber)
        : consult.call(this.self, fiber, this.policy)
    }
  })
)

const underAmbient = (
  self: Effect.Effect<any, any, any>,
  policy: CachePolicy.Resolved,
  fiber: Fiber.Fiber<unknown, unknown>
): Effect.Effect<any, any, any> => {
  const outer = fiber.getRef(Ambient)
  // What stands outside has the last word only where it says that nothing is cached.
  if (outer?.policy === "uncached") return self
  const witness = { consulted: 0 }
  const ambient: Ambient = {
    policy: outer === undefined ? policy : CachePolicy.merge(outer.policy, policy),
    witness
  }
  return Effect.flatMap(
    Effect.updateContext(self, (context: Context.Context<any>) => Context.add(context, Ambient, ambient)),
    (value) => {
      if (outer !== undefined) outer.witness.consulted += witness.consulted
      return witness.consulted > 0 ? Effect.succeed(value) : Effect.as(unreached(policy.name), value)
    }
  )
}

const reported = new Set<string | undefined>()

const unreached = (name: string | undefined): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    CacheMetrics.unreached.updateUnsafe(1, fiber.context)
    // Names are the program's own and few; should they be many, one warning stands for the rest.
    if (reported.has(name) || reported.size >= 1000) return Effect.void
    reported.add(name)
    return Effect.logWarning(
      `QueryCache.cached${name === undefined ? "" : ` (${name})`}: no statement in this effect consulted a cache. ` +
        "Is CachedSqlClient.layer provided to the code that builds the statements, in place of the base client?"
    )
  })
