/**
 * Values by key, read through the cache: the patterns read-through, cache-aside
 * and write-through.
 *
 * Where `QueryCache.cached` caches what a statement returns, a cached query caches
 * what the program makes of it: a decoded value, under a name and a key of its
 * own, shared by all who ask and never copied.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import * as CacheScope from "./CacheScope.ts"
import type * as Dependency from "./Dependency.ts"
import * as AnyTransaction from "./internal/anyTransaction.ts"
import { collect, type Named } from "./internal/named.ts"
import { makeNamed, type ValueOptions } from "./internal/namedOptions.ts"
import { CurrentSession } from "./internal/session.ts"
import * as QueryCache from "./QueryCache.ts"

/**
 * Values by key.
 *
 * **Gotchas**
 *
 * Values are shared by everybody who asks: treat them as immutable. Plain objects
 * and arrays in them are frozen.
 *
 * @category models
 * @since 0.1.0
 */
export interface CachedQuery<in K, in out A, out E = never> {
  readonly name: string
  /** The value of a key: from the cache, or by the lookup. Inside a transaction always by the lookup. */
  readonly get: (key: K) => Effect.Effect<A, E>
  /**
   * The values of several keys, in their order, looked up in one round trip. The lookups of those that are missing run
   * at once: ones that make requests of a batching resolver become one query. Fails with the first failure.
   */
  readonly getMany: (keys: Iterable<K>) => Effect.Effect<ReadonlyArray<A>, E>
  /** Reads a value anew, whatever the cache has, and stores it. */
  readonly refresh: (key: K) => Effect.Effect<A, E>
  /**
   * Stores a value that the program has already, and freezes it.
   *
   * It is taken to be what the database has *now*: a value that was read before somebody else's write stays until its
   * time to live. Where that matters use {@link CachedQuery.update} or {@link CachedQuery.refresh}, which read again.
   * Inside a transaction the key is invalidated at the commit instead.
   */
  readonly set: (key: K, value: A) => Effect.Effect<void>
  /**
   * Forgets the value of a key, and what is `related` to it. Inside a transaction, of whichever client, it takes
   * effect at the commit, and not at all after a rollback.
   */
  readonly invalidate: (key: K) => Effect.Effect<void>
  /**
   * Write-through: writes to the database, then forgets the value of the key and what is `related` to it, then reads the
   * value again and stores it. Inside a transaction the last two are done after its commit, and nobody waits for the
   * last one.
   *
   * - The write fails: the cache keeps what it has.
   * - Nobody can tell whether the write took effect (interrupted, connection lost): what was stored is forgotten, and for
   *   30 seconds not stored again.
   * - Reading or storing again fails: what was stored is forgotten, and the write has succeeded.
   * - Two updates at once: what is stored was read after both, or is forgotten.
   */
  readonly update: {
    (key: K): <B, E2, R>(write: Effect.Effect<B, E2, R>) => Effect.Effect<B, E2, R>
    <B, E2, R>(key: K, write: Effect.Effect<B, E2, R>): Effect.Effect<B, E2, R>
  }
}

/**
 * Options of {@link make}. What is left out is taken from the layer's rules for the
 * name and its default policy, as with `QueryCache.cached`. `hardTimeout` is not: its
 * failure would be none of `E`.
 *
 * @category options
 * @since 0.1.0
 */
export interface CachedQueryOptions<K, A, E, R> extends ValueOptions<K, A, E> {
  /**
   * Reads the value of a key. What it asks, it asks the database: `uncached` stands around it. It may take as long as it
   * likes: for a hard limit put `Effect.timeout` around what it does.
   */
  readonly lookup: (key: K) => Effect.Effect<A, E, R>
  /** What else `invalidate` and `update` of a key forget, such as `Dependency.key("user-orders", id)`. */
  readonly related?: ((key: K) => Iterable<Dependency.Dependency>) | undefined
}

/**
 * Makes a cached query. Its lookups use the services that are at hand where it is
 * made.
 *
 * **When to use**
 *
 * Make it once, as a service's field or in a layer, for entities that are asked for
 * by key.
 *
 * **Details**
 *
 * - Its entries depend on `Dependency.key(name, key)` besides what `dependencies`
 *   names, so `Invalidator.invalidate({ keys: [Dependency.key("user", 42)] })` is
 *   the same as `invalidate(42)`, from any process.
 * - Scopes are kept apart as for statements: who asks is part of the key.
 * - An entry that does not decode is a miss.
 *
 * **Gotchas**
 *
 * A name may be taken once per decorated client: a second one dies with an
 * `InvalidOptionError`. A key that its schema refuses is a defect that names the
 * cached query.
 *
 * **Example** (Users by id, and "not found" for ten seconds)
 *
 * ```ts
 * import { Effect, Option, Schema } from "effect"
 * import { CachedQuery, Dependency } from "effect-query-cache"
 * import { SqlClient, SqlSchema } from "effect/sql"
 *
 * const User = Schema.Struct({ id: Schema.Int, name: Schema.String, status: Schema.String })
 *
 * export const makeUsers = Effect.gen(function*() {
 *   const sql = yield* SqlClient.SqlClient
 *   return yield* CachedQuery.make("user", {
 *     Key: Schema.Int,
 *     Value: Schema.Option(User),
 *     lookup: SqlSchema.findOneOption({
 *       Request: Schema.Int,
 *       Result: User,
 *       execute: (id) => sql`SELECT id, name, status FROM users WHERE id = ${id}`
 *     }),
 *     timeToLive: (user) => Option.isSome(user) ? "5 minutes" : "10 seconds",
 *     dependencies: (id) => [Dependency.row("users", { id })]
 *   })
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <K, A, E = never, R = never>(
  name: string,
  options: CachedQueryOptions<K, A, E, R>
): Effect.Effect<CachedQuery<K, A, E>, never, QueryCache.QueryCache | R> =>
  Effect.gen(function*() {
    const { engine } = yield* QueryCache.QueryCache
    const services = servicesOf(yield* Effect.context<R>())
    const named = makeNamed<K, A, E>(engine, owner, name, options, { lookup: "wanted", related: "optional" })
    const lookup = (key: K): Effect.Effect<A, E> =>
      Effect.updateContext(
        Effect.suspend(() => options.lookup(key)),
        (context: Context.Context<never>): Context.Context<any> =>
          Context.merge(context, services as Context.Context<any>)
      )
    const related = (key: K) => options.related === undefined ? [] : options.related(key)
    const update = (key: K, write: Effect.Effect<any, any, any>): Effect.Effect<any, any, any> =>
      named.update(key, () => related(key), write, lookup(key))
    return {
      name,
      get: (key) => new Get(named, key, lookup) as any,
      getMany: (keys) => new GetMany(named, Array.isArray(keys) ? keys : [...keys], lookup) as any,
      refresh: (key) => named.refresh(key, lookup(key)),
      set: (key, value) => named.set(key, value),
      invalidate: (key) => named.invalidate(key, related(key)),
      update: ((...args: [key: K] | [key: K, write: Effect.Effect<any, any, any>]) =>
        args.length === 1
          ? (write: Effect.Effect<any, any, any>) => update(args[0], write)
          : update(...args)) as any
    }
  })

const owner = "CachedQuery.make"

/** What a hit costs is this object. */
class Asked<K, A, E, What> {
  readonly named: Named<K, A, E>
  readonly what: What
  readonly lookup: (key: K) => Effect.Effect<A, E>

  constructor(named: Named<K, A, E>, what: What, lookup: (key: K) => Effect.Effect<A, E>) {
    this.named = named
    this.what = what
    this.lookup = lookup
  }
}

class Get<K, A, E> extends Asked<K, A, E, K> {}
Object.assign(
  Get.prototype,
  Effectable.Prototype<Effect.Effect<any, any> & Get<any, any, any>>({
    label: "CachedQuery.get",
    evaluate(fiber) {
      return this.named.peek(fiber, this.what) ?? this.named.get(this.what, this.lookup(this.what))
    }
  })
)

class GetMany<K, A, E> extends Asked<K, A, E, ReadonlyArray<K>> {}
Object.assign(
  GetMany.prototype,
  Effectable.Prototype<Effect.Effect<any, any> & GetMany<any, any, any>>({
    label: "CachedQuery.getMany",
    evaluate(fiber) {
      const { lookup, named } = this
      const values = named.peekMany(fiber, this.what)
      if (values !== undefined) return Exit.succeed(values)
      // The caller's own array, which it may change while this waits.
      const keys = this.what.slice()
      return collect(keys.length, (each) => named.getMany(keys, (place) => lookup(keys[place]), each))
    }
  })
)

/** What a lookup uses wherever it runs: of where it is asked for it gets the rest, the scope and the spans among it. */
const servicesOf = (context: Context.Context<never>): Context.Context<never> =>
  Context.omit(
    Scope.Scope,
    Tracer.ParentSpan,
    CacheScope.CurrentScope,
    CurrentSession,
    QueryCache.Ambient,
    QueryCache.Collector
  )(AnyTransaction.outside(context)) as Context.Context<never>
