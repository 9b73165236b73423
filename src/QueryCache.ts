/**
 * The read path: which statements are cached and how, and what a caller gets.
 *
 * `cached`, `uncached` and `withInfo` work on any effect. They set what the
 * statements inside it see, and change neither its value nor its error nor what
 * it requires. The {@link QueryCache} service is what those statements ask.
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as CacheMetrics from "./CacheMetrics.ts"
import * as CachePolicy from "./CachePolicy.ts"
import type * as CacheStore from "./CacheStore.ts"
import type * as Dependency from "./Dependency.ts"
import type { Delivery } from "./internal/delivery.ts"
import type { Flights } from "./internal/flights.ts"
import { StoredRows } from "./internal/rows.ts"
import type { StoreHealth } from "./internal/storeHealth.ts"
import type { Tally } from "./internal/tally.ts"

/**
 * Answers reads from the store, and fills it.
 *
 * @category services
 * @since 0.1.0
 */
export class QueryCache extends Context.Service<QueryCache, {
  /**
   * The rows that this process may answer with at once, if it has them: no
   * effect, no span, no fingerprint.
   */
  readonly peek: (read: Read, nowMillis: number) => CacheStore.Hit | undefined
  /**
   * The rows from the store or, on a miss, from the database: one flight per
   * key. Fails only as `read.query` fails.
   */
  readonly fetch: <E>(read: Read & { readonly query: Effect.Effect<ReadonlyArray<any>, E> }) => Effect.Effect<
    Answer,
    E
  >
  /** Why this read may not be answered from the cache at the moment, if so. */
  readonly unserved: (dependencies: Dependency.DependencySet) => boolean
  /** Notes that a statement went to the database without the cache. */
  readonly bypassed: (reason: string) => void
  /** What the cache has done since its layer was built. Reading it brings the metrics up to date. */
  readonly stats: Effect.Effect<Stats>
}>()("effect-query-cache/QueryCache") {}

/**
 * One read, as the cache sees it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Read {
  readonly key: CacheStore.CacheKey
  readonly dependencies: Dependency.DependencySet
  readonly policy: CachePolicy.Complete
}

/**
 * Rows, and how they were come by.
 *
 * @category models
 * @since 0.1.0
 */
export interface Answer {
  readonly rows: ReadonlyArray<any>
  readonly status: "hit" | "miss" | "joined" | "bypass"
  readonly level: "L1" | "L2" | undefined
  readonly ageMillis: number
  readonly reason: string | undefined
}

/**
 * Counts since the layer was built.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  readonly hits: number
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
  readonly sql: string
  /** The name of the policy, if it has one. */
  readonly name: string | undefined
  /**
   * `hit`: from the store. `miss`: from the database, by this caller. `joined`:
   * shared with a caller that asked already. `bypass`: from the database, the
   * cache had no part in it. `write`: not a read.
   */
  readonly status: "hit" | "miss" | "joined" | "bypass" | "write"
  readonly level: "L1" | "L2" | undefined
  /** How long ago the answer was read from the database; zero but for hits. */
  readonly age: Duration.Duration
  readonly fingerprint: string | undefined
  /** Why it was a miss or a bypass. */
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
 * What would become of a statement here and now, and why. Runs nothing.
 *
 * **Details**
 *
 * A statement that `cached` or the strategy `"all"` has no part in is judged as if
 * `cached(policy)` stood around it. Scope, transaction, transformer, `uncached` and
 * what is not served for the moment are taken from where it runs.
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
        fingerprint: undefined,
        dependencies: []
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
   * `uncached`, `transaction`, `unserved`, `parameters`, `raw`, `noop`,
   * `undecorated`. Of a `write`: the code under which it may have written anything.
   */
  readonly reason: string | undefined
  readonly fingerprint: string | undefined
  /** What it depends on, or what it invalidates: tables, rows, `#tags`, `@keys`; `*` is everything. */
  readonly dependencies: ReadonlyArray<string>
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
 * Builds the service over a store. `CachedSqlClient.layerNoDeps` is the layer
 * that does so.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: {
  readonly store: CacheStore.CacheStore["Service"]
  readonly flights: Flights
  readonly delivery: Delivery
  readonly health: StoreHealth
  readonly tally: Tally
  readonly lookupTimeoutMillis: number
}): QueryCache["Service"] => {
  const { delivery, flights, health, store, tally } = options

  const peek = (read: Read, nowMillis: number): CacheStore.Hit | undefined => {
    const hit = store.peek(read.key, nowMillis)
    if (
      hit === undefined ||
      (hit.dependencies !== read.dependencies && hit.dependencies?.id !== read.dependencies.id) ||
      !isYoung(nowMillis - hit.storedAtMillis, read.policy)
    ) return undefined
    tally.hitL1()
    return hit
  }

  const lookup = (read: Read) =>
    health.guard("lookup", () => store.lookup(read.key, read.dependencies), options.lookupTimeoutMillis)

  const fill = (read: Read, stored: StoredRows, lease: CacheStore.Lease): Effect.Effect<void> =>
    Effect.map(
      Effect.exit(health.guard(
        "store",
        () =>
          store.store(read.key, {
            value: stored,
            dependencies: read.dependencies,
            timeToLiveMillis: read.policy.timeToLiveMillis,
            bytes: stored.bytes + bytesOf(read.key)
          }, lease),
        options.lookupTimeoutMillis
      )),
      (verdict) => tally.filled(Exit.isSuccess(verdict) ? verdict.value : "failed", stored.bytes)
    )

  /** Why an answer is not offered to the store, if so. */
  const withheld = (policy: CachePolicy.Complete, rows: ReadonlyArray<any>, stored: StoredRows | undefined) =>
    stored === undefined
      ? "unrepresentable"
      : stored.bytes > policy.maxEntryBytes
      ? "too-large"
      : policy.cacheWhen !== undefined && !accepts(policy.cacheWhen, rows)
      ? "declined"
      : undefined

  const fetch = <E>(
    read: Read & { readonly query: Effect.Effect<ReadonlyArray<any>, E> }
  ): Effect.Effect<Answer, E> => {
    let joined = false
    const landed = flights.join<Landing, E>(
      read.key,
      read.dependencies,
      (settle) =>
        Effect.gen(function*() {
          const found = yield* Effect.exit(lookup(read))
          const now = yield* Clock.currentTimeMillis
          let lease: CacheStore.Lease | undefined
          let reason: string
          if (Exit.isFailure(found)) {
            reason = "store-failed"
          } else if (found.value._tag === "Miss") {
            lease = found.value.lease
            reason = found.value.reason
          } else {
            const age = now - found.value.storedAtMillis
            if (isYoung(age, read.policy) && found.value.value instanceof StoredRows) {
              return settle(
                Exit.succeed(new Landing(found.value.value, undefined, found.value.level, age, undefined)),
                false
              )
            }
            // Too old for this caller, and the clock that came with it is a lease.
            lease = found.value.lease
            reason = "expired"
          }
          const exit = yield* Effect.exit(read.query)
          if (Exit.isFailure(exit)) return settle(Exit.failCause(exit.cause as Cause.Cause<E>))
          const rows = exit.value
          const stored = StoredRows.make(rows)
          // Decided before a caller may change the rows.
          const why = withheld(read.policy, rows, stored)
          const filling = why === undefined && lease !== undefined ? fill(read, stored!, lease) : undefined
          if (why !== undefined) tally.filled(why, stored?.bytes ?? 0)
          const landing = new Landing(stored, rows, undefined, 0, reason)
          // A store in this process has judged by the time it returns; nobody waits for any other.
          if (filling !== undefined && !store.shared) yield* filling
          const pending = filling !== undefined && store.shared
          // What is not to be stored is not for those who come later either.
          settle(Exit.succeed(landing), pending)
          if (pending) yield* filling
        }),
      () => joined = true
    )
    return Effect.flatMap(landed, (landing): Effect.Effect<Answer, E> => {
      if (landing.level !== undefined) {
        // Young enough for whose flight it was. Nobody joins that one any more.
        if (!isYoung(landing.ageMillis, read.policy)) return fetch(read)
        if (landing.level === "L2") tally.hitL2()
        else tally.hitL1()
        return Effect.succeed(answer(landing, "hit", read.policy))
      }
      tally.looked(joined ? "joined" : "miss")
      if (landing.stored !== undefined || landing.rows !== undefined) {
        return Effect.succeed(answer(landing, joined ? "joined" : "miss", read.policy))
      }
      // Rows that cannot be copied belong to the first caller; the others ask for their own.
      return Effect.map(read.query, (rows) => ({
        rows,
        status: "bypass",
        level: undefined,
        ageMillis: 0,
        reason: "unrepresentable"
      }))
    })
  }

  return QueryCache.of({
    peek,
    fetch,
    unserved: (dependencies) => !delivery.unserved.isEmpty && delivery.unserved.covers(dependencies),
    bypassed: (reason) => tally.bypassed(reason),
    stats: Effect.sync(() => {
      tally.flush()
      return { ...tally.counts }
    })
  })
}

/**
 * The rows of a hit, as the policy wants them.
 *
 * @category accessors
 * @since 0.1.0
 */
export const rowsOf = (hit: CacheStore.Hit, policy: CachePolicy.Complete): ReadonlyArray<any> => {
  const stored = hit.value as StoredRows
  return policy.rows === "frozen" ? stored.frozen() : stored.copy()
}

/** An answer from the future was stored before somebody set the clock back: nobody knows how old it is. */
const isYoung = (ageMillis: number, policy: CachePolicy.Complete): boolean =>
  ageMillis >= 0 && ageMillis < policy.timeToLiveMillis

/** What a key takes of a store in this process: parameters may be larger than the rows, and so may a generated text. */
const bytesOf = ({ local, space }: CacheStore.CacheKey): number =>
  (typeof local === "string" ? local.length * 2 : 8) + (space.length > generatedLength ? space.length * 2 : 0)

// A text that somebody has written is shorter, and shared by many entries.
const generatedLength = 16_384

/** What a flight brought home, shared by all who waited for it. */
class Landing {
  readonly stored: StoredRows | undefined
  /** As the database gave them: for one caller. */
  rows: ReadonlyArray<any> | undefined
  readonly level: "L1" | "L2" | undefined
  readonly ageMillis: number
  readonly reason: string | undefined

  constructor(
    stored: StoredRows | undefined,
    rows: ReadonlyArray<any> | undefined,
    level: "L1" | "L2" | undefined,
    ageMillis: number,
    reason: string | undefined
  ) {
    this.stored = stored
    this.rows = rows
    this.level = level
    this.ageMillis = ageMillis
    this.reason = reason
  }

  take(policy: CachePolicy.Complete): ReadonlyArray<any> {
    if (this.stored !== undefined && policy.rows === "frozen") return this.stored.frozen()
    const rows = this.rows ?? this.stored!.copy()
    this.rows = undefined
    return rows
  }
}

const answer = (landing: Landing, status: "hit" | "miss" | "joined", policy: CachePolicy.Complete): Answer => ({
  rows: landing.take(policy),
  status,
  level: landing.level,
  ageMillis: landing.ageMillis,
  reason: landing.reason
})

const accepts = (cacheWhen: (rows: ReadonlyArray<any>) => boolean, rows: ReadonlyArray<any>): boolean => {
  try {
    return cacheWhen(rows) === true
  } catch {
    return false
  }
}

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
