/**
 * Request resolvers whose answers are kept: a batch is looked up at once, and
 * what is missing goes to the resolver itself.
 *
 *     request ─ in this process ────────────────▶ hit, at once
 *        ▼
 *     batch, as the inner resolver forms it
 *        │ └─ in a transaction ─────────────────▶ the inner resolver
 *        ▼
 *     one lookup ─ found ───────────────────────▶ hit, each as it is known
 *        ▼
 *     the inner resolver, for those that are missing: one batch
 *        ▼
 *     stored
 *
 * A batch runs in one context, that of its first request. So requests that must
 * not share one are kept apart, by scope and by transaction: by a batch key that
 * extends the inner resolver's, and once more where the batch is run, since
 * `RequestResolver.grouped` and `race` replace the key.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Hash from "effect/Hash"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import type * as Request from "effect/Request"
import * as RequestResolver from "effect/RequestResolver"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"
import * as Scope from "effect/Scope"
import type { SqlRequest } from "effect/sql/SqlResolver"
import { InvalidOptionError } from "./CacheError.ts"
import * as CacheScope from "./CacheScope.ts"
import * as AnyTransaction from "./internal/anyTransaction.ts"
import * as Memo from "./internal/memo.ts"
import { makeNamed, type ValueOptions } from "./internal/namedOptions.ts"
import type { Pure } from "./internal/schemas.ts"
import { CurrentSession, type Session } from "./internal/session.ts"
import * as QueryCache from "./QueryCache.ts"

/**
 * Options of {@link make}. What is left out is taken from the layer's rules for the
 * name and its default policy, as with `QueryCache.cached`. `hardTimeout` is not: its
 * failure would be none of `E`.
 *
 * @category options
 * @since 0.1.0
 */
export interface CachedResolverOptions<Req extends Request.Any, K>
  extends ValueOptions<K, Request.Success<Req>, Request.Error<Req>>
{
  /** Stands for it in logs, metrics, rules and invalidations. Nothing else may have it. */
  readonly name: string
  /** What of a request decides its answer. Requests with equal keys are one. */
  readonly key: (request: Req) => K
}

/**
 * Options of {@link fromSql}.
 *
 * @category options
 * @since 0.1.0
 */
export interface SqlOptions<In, A, E> extends Omit<ValueOptions<In, A, E>, "Value" | "keepError"> {
  /** The schema of what a request is answered with. Entries of another schema are never read. */
  readonly Value: Pure<A extends Arr.NonEmptyArray<infer Row> ? A | Arr.NonEmptyReadonlyArray<Row> : A>
  /** Stands for it in logs, metrics, rules and invalidations. Nothing else may have it. */
  readonly name: string
  /** For how long "not found" is kept, which `findById` and `grouped` answer by failing. By default it is not. */
  readonly notFoundTimeToLive?: Duration.Input | undefined
}

/**
 * A resolver that keeps what another one answers.
 *
 * **When to use**
 *
 * Put it around the resolver, once, where the resolver is made: for requests that
 * many parts of a program make, and that a batch makes cheap.
 *
 * **Details**
 *
 * - What this process has is answered at once, without joining a batch.
 * - The rest of a batch is looked up in one round trip. What is missing goes to the
 *   resolver as requests of their own, so that it batches them as it batches any:
 *   of 100 requests, 90 of which are there, one query with 10 ids is left. Its
 *   answers are stored together.
 * - Delay and size of a batch are the resolver's, and are not applied twice.
 * - Each request is answered as soon as its answer is known, and what goes wrong
 *   with one is none of the others'. Requests for one key share one answer, across
 *   batches too.
 * - Requests of different scopes and transactions never share a batch. Inside a
 *   transaction the resolver is asked as if nothing stood around it, and under
 *   `QueryCache.uncached` nothing is looked up or stored.
 * - Entries depend on `Dependency.key(name, key)` besides what `dependencies` names.
 *
 * **Gotchas**
 *
 * Answers are shared: treat them as immutable. Plain objects and arrays in them are
 * frozen. What the resolver asks goes to the database: a `QueryCache.cached` around
 * the request has no part in it. A resolver of several kinds of requests wants one
 * of these per kind. One with `RequestResolver.withCache` goes on answering what it
 * has kept: leave that out, or put it around this one, for a single page at most. A
 * name may be taken once per decorated client: a second one dies with an
 * `InvalidOptionError`.
 *
 * **Example** (Prices from another service)
 *
 * ```ts
 * import { Effect, Exit, Request, RequestResolver, Schema } from "effect"
 * import { CachedResolver } from "effect-query-cache"
 *
 * class Price extends Request.TaggedClass("Price")<{ readonly sku: string }, number> {}
 *
 * declare const fetchPrices: (skus: ReadonlyArray<string>) => Effect.Effect<ReadonlyMap<string, number>>
 *
 * const prices = RequestResolver.make<Price>((entries) =>
 *   Effect.map(fetchPrices(entries.map(({ request }) => request.sku)), (found) => {
 *     for (const entry of entries) entry.completeUnsafe(Exit.succeed(found.get(entry.request.sku) ?? 0))
 *   })
 * )
 *
 * export const makePriceOf = Effect.map(
 *   CachedResolver.make(prices, {
 *     name: "price",
 *     key: ({ sku }) => sku,
 *     Key: Schema.String,
 *     Value: Schema.Number,
 *     timeToLive: "30 seconds"
 *   }),
 *   (resolver) => (sku: string) => Effect.request(new Price({ sku }), resolver)
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <Req extends Request.Any, K>(
  resolver: RequestResolver.RequestResolver<Req>,
  options: CachedResolverOptions<Req, K>
): Effect.Effect<RequestResolver.RequestResolver<Req>, never, QueryCache.QueryCache> =>
  build("CachedResolver.make", resolver, options)

/**
 * A resolver that keeps what a resolver of `SqlResolver` answers, by payload.
 *
 * **Details**
 *
 * `Key` and `Value` are the schemas that the resolver was made with: of the id or
 * the request, and of the result, which for `SqlResolver.grouped` is a
 * `Schema.NonEmptyArray` of it. Everything else is as with {@link make}.
 *
 * **Gotchas**
 *
 * Not for `SqlResolver.void`, nor for one whose statement writes: a second request
 * would not be made. Its results do not tell what an absent row depends on, so name
 * the rows or the table in `dependencies`.
 *
 * **Example** (100 requests, 90 hits, one query with 10 ids)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { CachedResolver, Dependency } from "effect-query-cache"
 * import { SqlClient, SqlResolver } from "effect/sql"
 *
 * const User = Schema.Struct({ id: Schema.Int, name: Schema.String })
 *
 * export const makeUserOf = Effect.gen(function*() {
 *   const sql = yield* SqlClient.SqlClient
 *   const users = yield* CachedResolver.fromSql(
 *     SqlResolver.findById({
 *       Id: Schema.Int,
 *       Result: User,
 *       ResultId: (user) => user.id,
 *       execute: (ids) => sql`SELECT id, name FROM users WHERE ${sql.in("id", ids)}`
 *     }),
 *     {
 *       name: "user",
 *       Key: Schema.Int,
 *       Value: User,
 *       timeToLive: "5 minutes",
 *       notFoundTimeToLive: "10 seconds",
 *       dependencies: (id) => [Dependency.row("users", { id })]
 *     }
 *   )
 *   return SqlResolver.request(users)
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromSql = <In, A, E, R>(
  resolver: RequestResolver.RequestResolver<SqlRequest<In, A, E, R>>,
  options: SqlOptions<In, A, E>
): Effect.Effect<RequestResolver.RequestResolver<SqlRequest<In, A, E, R>>, never, QueryCache.QueryCache> =>
  Effect.suspend(() => {
    const owner = "CachedResolver.fromSql"
    const { notFoundTimeToLive, ...rest } = options
    if (rest.Value.ast._tag === "Void") {
      throw new InvalidOptionError(owner, "Value", "Schema.Void", "of something that is read")
    }
    return build(owner, resolver, {
      ...rest,
      key: ({ payload }) => payload,
      keepError: notFoundTimeToLive === undefined ? undefined : { Error: NotFound, timeToLive: notFoundTimeToLive }
    } as CachedResolverOptions<SqlRequest<In, A, E, R>, In>)
  })

const NotFound = Schema.Struct({ message: Schema.optional(Schema.String) }).pipe(
  Schema.decodeTo(
    Schema.declare(Cause.isNoSuchElementError),
    SchemaTransformation.transform({
      decode: ({ message }) => new Cause.NoSuchElementError(message),
      encode: ({ message }) => ({ message })
    })
  )
)

const build = <Req extends Request.Any, K>(
  owner: string,
  inner: RequestResolver.RequestResolver<Req>,
  options: CachedResolverOptions<Req, K>
): Effect.Effect<RequestResolver.RequestResolver<Req>, never, QueryCache.QueryCache> =>
  Effect.map(QueryCache.QueryCache, ({ engine }) => {
    if (!RequestResolver.isRequestResolver(inner)) {
      throw new InvalidOptionError(owner, "resolver", inner, "a RequestResolver")
    }
    type A = Request.Success<Req>
    type E = Request.Error<Req>
    const { key, name, ...values } = options
    const named = makeNamed<K, A, E>(engine, owner, name, { ...values, key } as typeof values, { key: "wanted" })
    if (engine.noop) return inner
    const innerOf = apart(inner)

    /** What the inner resolver answers to a request, whoever's batch it was found missing in. */
    const ask = (entry: Request.Entry<Req>, lane: Lane): Effect.Effect<A, E> =>
      Effect.updateContext(
        Effect.request(entry.request, innerOf(lane)),
        (around: Context.Context<never>) =>
          entry.context.pipe(
            // Not the caller's: it may be gone before this is done. What is read here goes to the database, and is
            // nobody's `withInfo`.
            Context.omit(Scope.Scope),
            Context.add(QueryCache.Ambient, Context.get(around, QueryCache.Ambient)),
            Context.add(QueryCache.Collector, undefined)
          ) as Context.Context<any>
      )
    /** In a transaction: as if nothing stood between. */
    const delegate = (entry: Request.Entry<Req>, lane: Lane): Effect.Effect<void> =>
      Effect.suspend(() => {
        named.bypassed("transaction", Context.get(entry.context, QueryCache.Collector))
        return Effect.request(entry.request, innerOf(lane))
      }).pipe(
        Effect.exit,
        Effect.map((exit) => entry.completeUnsafe(exit)),
        Effect.updateContext((): Context.Context<any> => entry.context)
      )

    const run = (lane: Lane, entries: ReadonlyArray<Request.Entry<Req>>): Effect.Effect<void> => {
      if (lane.transaction !== undefined) {
        return Effect.forEach(entries, (entry) => delegate(entry, lane), { concurrency: "unbounded", discard: true })
      }
      const keyed: Array<Request.Entry<Req>> = []
      const keys: Array<K> = []
      for (const entry of entries) {
        try {
          keys.push(key(entry.request))
          keyed.push(entry)
        } catch (defect) {
          entry.completeUnsafe(Exit.die(defect))
        }
      }
      return Effect.updateContext(
        named.getMany(
          keys,
          (place) => ask(keyed[place], lane),
          (place, exit) => keyed[place].completeUnsafe(exit),
          (place) => Context.get(keyed[place].context, QueryCache.Collector)
        ),
        (): Context.Context<any> => entries[0].context
      )
    }

    return RequestResolver.grouped(
      RequestResolver.makeWith<Req>({
        batchKey: inner.batchKey,
        delay: inner.delay,
        collectWhile: (entries) => inner.collectWhile(entries),
        preCheck: (entry) => {
          const fiber = Fiber.getCurrent()
          if (fiber === undefined || fiber.context !== entry.context) return true
          let exit: Exit.Exit<A, E> | undefined
          try {
            const asked = key(entry.request)
            exit = named.peek(fiber, asked) ??
              named.atHand(fiber, asked, Effect.suspend(() => ask(entry, laneOf(entry.context, undefined))))
          } catch (defect) {
            exit = Exit.die(defect)
          }
          if (exit === undefined) return true
          entry.completeUnsafe(exit)
          return false
        },
        runAll: (entries) =>
          Effect.suspend(() => {
            const lanes = MutableHashMap.empty<Lane, Array<Request.Entry<Req>>>()
            for (const entry of entries) {
              const lane = laneOf(entry.context, undefined)
              const others = Option.getOrUndefined(MutableHashMap.get(lanes, lane))
              if (others === undefined) MutableHashMap.set(lanes, lane, [entry])
              else others.push(entry)
            }
            return Effect.forEach(lanes, ([lane, group]) => run(lane, group), {
              concurrency: "unbounded",
              discard: true
            })
          })
      }),
      (entry) => laneOf(entry.context, inner.batchKey(entry))
    )
  })

/** What requests have in common that may share a batch. */
class Lane implements Equal.Equal {
  readonly transaction: object | undefined
  readonly scope: string
  /** What answers one session may be too old for another. */
  readonly session: Session | undefined
  readonly isUncached: boolean
  /** The inner resolver's own batch key. */
  readonly inner: unknown

  constructor(
    transaction: object | undefined,
    scope: string,
    session: Session | undefined,
    isUncached: boolean,
    inner: unknown
  ) {
    this.transaction = transaction
    this.scope = scope
    this.session = session
    this.isUncached = isUncached
    this.inner = inner
  }

  [Equal.symbol](that: Lane): boolean {
    return this.transaction === that.transaction && this.scope === that.scope && this.session === that.session &&
      this.isUncached === that.isUncached && Equal.equals(this.inner, that.inner)
  }

  // Few batches wait at a time, and a key may be an object that is large to go through.
  [Hash.symbol](): number {
    return Hash.string(this.scope)
  }
}

const laneOf = (context: Context.Context<never>, inner: unknown): Lane => {
  const transaction = AnyTransaction.transactionOf(context)
  return new Lane(
    transaction === undefined ? undefined : Context.getUnsafe(context, transaction),
    Context.get(context, CacheScope.CurrentScope)?.key ?? "",
    Context.get(context, CurrentSession),
    Context.get(context, QueryCache.Ambient)?.policy === "uncached",
    inner
  )
}

/**
 * The inner resolver as one scope, or one transaction, has it. Effect collects the batches of each resolver object by
 * itself, so its own batch key does what it always does. Its delay has passed already.
 */
const apart = <Req extends Request.Any>(inner: RequestResolver.RequestResolver<Req>) => {
  // Tenants have no end. Forgetting one only parts a batch in two.
  const byScope = () => Memo.make<RequestResolver.RequestResolver<Req>>({ capacity: 1000, maxBytes: 1024 * 1024 })
  const outside = byScope()
  const inside = new WeakMap<object, typeof outside>()
  return ({ scope, transaction }: Lane): RequestResolver.RequestResolver<Req> => {
    let copies = transaction === undefined ? outside : inside.get(transaction)
    if (copies === undefined) inside.set(transaction!, copies = byScope())
    let copy = copies.get(scope)
    if (copy === undefined) copies.set(scope, copy = RequestResolver.setDelayEffect(inner, Effect.yieldNow))
    return copy
  }
}
