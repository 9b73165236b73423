/**
 * A SQL client whose statements ask the cache first.
 *
 * It takes the place of the client it decorates: whatever is built on
 * `SqlClient` (`SqlSchema`, `SqlModel`, `SqlResolver`, migrators, query builders)
 * is cached, and its writes are seen, without a change.
 *
 * @since 0.1.0
 */
import { PgClient } from "@effect/sql-pg"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import { InvalidOptionError } from "./CacheError.ts"
import * as CachePolicy from "./CachePolicy.ts"
import * as CacheScope from "./CacheScope.ts"
import * as CacheStore from "./CacheStore.ts"
import * as Fingerprinter from "./Fingerprinter.ts"
import { transactionOf } from "./internal/anyTransaction.ts"
import { Audits } from "./internal/audits.ts"
import { Changes } from "./internal/changes.ts"
import { CurrentConsulted } from "./internal/consulted.ts"
import * as Deliveries from "./internal/delivery.ts"
import { observe } from "./internal/doubt/observe.ts"
import type { Engine } from "./internal/engine.ts"
import { Flights } from "./internal/flights.ts"
import { Forms } from "./internal/forms.ts"
import * as Naming from "./internal/naming.ts"
import * as Options from "./internal/options.ts"
import * as Woken from "./internal/reactivity.ts"
import { Reader } from "./internal/reader.ts"
import { observeConnection } from "./internal/reserved.ts"
import { Rules } from "./internal/rules.ts"
import { Sessions } from "./internal/sessions.ts"
import { makeStatements } from "./internal/statement.ts"
import * as StoreHealth from "./internal/storeHealth.ts"
import * as Strict from "./internal/strict.ts"
import { Tally } from "./internal/tally.ts"
import * as Scripted from "./internal/testDatabase.ts"
import { appliedScope, makeCurrent, Transactions } from "./internal/transactions.ts"
import * as Invalidator from "./Invalidator.ts"
import * as QueryAnalyzer from "./QueryAnalyzer.ts"
import * as QueryCache from "./QueryCache.ts"

/**
 * What every layer of this module provides.
 *
 * @category models
 * @since 0.1.0
 */
export type Services =
  | SqlClient.SqlClient
  | PgClient.PgClient
  | QueryCache.QueryCache
  | Invalidator.Invalidator
  | Fingerprinter.Fingerprinter

/**
 * Options of {@link layer}.
 *
 * @category options
 * @since 0.1.0
 */
export interface CachedSqlClientOptions {
  /**
   * `"explicit"` (default) caches what stands under `QueryCache.cached`. `"all"`
   * caches every read that can be, under the default policy, except those that
   * depend on the time of day and those of Effect's own tables (`effect_*`,
   * `cluster_*`).
   */
  readonly strategy?: "explicit" | "all" | undefined
  /** What holds where neither `cached` nor a rule says something. */
  readonly policy?: CachePolicy.CachePolicy | undefined
  /**
   * Policies by name, table or tag. Each field of a policy is taken from the call, else from the first rule
   * that matches and says something, else from `policy`.
   */
  readonly rules?: ReadonlyArray<CachePolicy.Rule> | undefined
  /**
   * The program's own version of its tables, part of every key. Change it with a
   * migration that changes what a statement returns, and no old entry is read.
   */
  readonly schemaVersion?: string | undefined
  /**
   * Keeps databases and programs apart in a store that they share. Defaults to
   * host, port and database of the client, so `localhost` on two machines is one
   * namespace: name them where both use one store. A client that was configured
   * with `stream` or `path` names no host: with a shared store it must be given.
   */
  readonly namespace?: string | undefined
  /** How long one lookup in the store may take before the database is asked instead. It also bounds the fill, for which
   * nobody waits. How long a read waits for another process that reads the same is the store's `flightTimeout`.
   * Where a shared store has not answered five times in a row, one lookup in a second is made until one is answered, and
   * the others wait for nothing. Defaults to 50 milliseconds. */
  readonly lookupTimeout?: Duration.Input | undefined
  /**
   * What a write waits for the store at most, before its invalidation is queued; where the store has not answered five
   * times in a row, it is queued at once. With a store that is kept strict it waits as long before its commit, and is
   * rolled back then. Defaults to 250 milliseconds.
   */
  readonly invalidationTimeout?: Duration.Input | undefined
  /**
   * How many values are read anew in the background at once: under `staleWhileRevalidate` and `refreshAhead`. Beyond,
   * what is stale is served and not refreshed. Each takes a connection of the pool while it reads. Defaults to 5.
   */
  readonly maxRefreshes?: number | undefined
  /**
   * Whether the invalidations of other processes are listened to, so that they wake `QueryCache.changes`, materialized
   * views, `sql.reactive` and atoms here: over `RedisStore` by a connection of its own, with Upstash by a request that stays
   * open; over `TieredStore` as far as that store hears of others (`coherence: "backplane"`). What is *served* does not depend on it. Defaults to `true`.
   */
  readonly remoteChanges?: boolean | undefined
  /**
   * How often the database's catalog is read again, for changes of the schema that others make: views, triggers, foreign
   * keys. It is read when the layer is built, after each statement of the program that changes the schema, and after
   * `Invalidator.invalidate({ all: true })`. Defaults to 1 minute. With `false` no catalog is read and names stand for
   * themselves: a write is a write to the table it names and to nothing else.
   */
  readonly catalogInterval?: Duration.Input | false | undefined
}

/**
 * Decorates the `PgClient` in the context, with the default fingerprinter and
 * PostgreSQL's own parser as analyzer.
 *
 * **Example** (A cached query)
 *
 * ```ts
 * import { PgClient } from "@effect/sql-pg"
 * import { Effect, Layer } from "effect"
 * import { CachedSqlClient, CacheStore, QueryCache } from "effect-query-cache"
 * import { SqlClient } from "effect/sql"
 *
 * const Database = CachedSqlClient.layer().pipe(
 *   Layer.provide([CacheStore.layerMemory(), PgClient.layer({ database: "shop" })])
 * )
 *
 * export const program = Effect.gen(function*() {
 *   const sql = yield* SqlClient.SqlClient
 *   return yield* sql`SELECT * FROM users WHERE id = ${1}`.pipe(QueryCache.cached())
 * }).pipe(Effect.provide(Database))
 * ```
 *
 * **Gotchas**
 *
 * `Layer.mergeAll(cached, base)` leaves it to chance which client a program
 * gets. Provide the base *to* this layer, as above.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: CachedSqlClientOptions & {
    /** What the program says of its functions. See `QueryAnalyzer.layer`. */
    readonly analyzer?: QueryAnalyzer.AnalyzerOptions | undefined
  }
): Layer.Layer<Services, QueryAnalyzer.AnalyzerLoadError, PgClient.PgClient | CacheStore.CacheStore> => {
  const { analyzer, ...others } = options ?? {}
  return layerNoDeps(others).pipe(
    Layer.provideMerge(Fingerprinter.layer),
    Layer.provide(QueryAnalyzer.layer(analyzer))
  )
}

/**
 * As {@link layer}, with `Fingerprinter` and `QueryAnalyzer` from the context.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNoDeps = (
  options?: CachedSqlClientOptions
): Layer.Layer<
  Exclude<Services, Fingerprinter.Fingerprinter>,
  never,
  PgClient.PgClient | CacheStore.CacheStore | Fingerprinter.Fingerprinter | QueryAnalyzer.QueryAnalyzer
> => {
  const settings = resolve(options)
  return Layer.effectContext(Effect.flatMap(PgClient.PgClient, (client) => make(client, settings))).pipe(
    Layer.provide(Woken.sharedReactivity)
  )
}

/**
 * Provides the same services without a cache: every statement goes to the
 * database, `cached` changes nothing, and invalidation has nothing to do.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNoop: Layer.Layer<Services, never, PgClient.PgClient> = Layer.effectContext(
  Effect.suspend(() =>
    Effect.flatMap(PgClient.PgClient, (client) => make(client, { ...resolve({ catalogInterval: false }), noop: true }))
  )
).pipe(
  Layer.provideMerge(Fingerprinter.layer),
  Layer.provide([
    Woken.sharedReactivity,
    // Nothing is asked of it but a form, which has to say nothing.
    Layer.succeed(QueryAnalyzer.QueryAnalyzer, {
      analyze: () => ({ _tag: "Read", tables: [], timeDependent: false })
    }),
    CacheStore.layerMemory()
  ])
)

/**
 * What a scripted database was asked.
 *
 * @category testing
 * @since 0.1.0
 */
export interface TestQuery {
  readonly sql: string
  readonly params: ReadonlyArray<unknown>
}

/**
 * Tells which queries reached the scripted database of {@link layerTest}, in
 * order. Transaction control (`BEGIN`, `COMMIT` and the like) is not among them.
 *
 * @category testing
 * @since 0.1.0
 */
export class TestDatabase extends Context.Service<TestDatabase, {
  readonly queries: Effect.Effect<ReadonlyArray<TestQuery>>
}>()("effect-query-cache/CachedSqlClient/TestDatabase") {}

/**
 * A scripted database with a real cache in front of it, for the tests of a
 * program.
 *
 * **Example** (The second read is a hit)
 *
 * ```ts
 * import { assert, it } from "@effect/vitest"
 * import { Effect } from "effect"
 * import { CachedSqlClient, QueryCache } from "effect-query-cache"
 * import { SqlClient } from "effect/sql"
 *
 * it.effect("asks once", () =>
 *   Effect.gen(function*() {
 *     const sql = yield* SqlClient.SqlClient
 *     const database = yield* CachedSqlClient.TestDatabase
 *     const users = sql`SELECT * FROM users`.pipe(QueryCache.cached())
 *     yield* users
 *     yield* users
 *     assert.strictEqual((yield* database.queries).length, 1)
 *   }).pipe(Effect.provide(CachedSqlClient.layerTest(() => [{ id: 1, name: "Ada" }]))))
 * ```
 *
 * **Details**
 *
 * `respond` is asked for every statement that reaches the database, reads and
 * writes alike. Its time is the `TestClock`'s under `it.effect`.
 *
 * @category testing
 * @since 0.1.0
 */
export const layerTest = (
  respond: (query: TestQuery) => ReadonlyArray<object> | Effect.Effect<ReadonlyArray<object>, SqlError>,
  options?: CachedSqlClientOptions
): Layer.Layer<Services | TestDatabase, QueryAnalyzer.AnalyzerLoadError> => {
  const database = Layer.effectContext(
    Effect.map(Scripted.make(respond), ({ client, queries }) =>
      Context.make(PgClient.PgClient, client).pipe(
        Context.add(TestDatabase, { queries })
      ))
  ).pipe(Layer.provide(Reactivity.layer))
  return layer({ ...options, catalogInterval: false }).pipe(
    Layer.provideMerge(database),
    Layer.provide(CacheStore.layerMemory())
  )
}

// -----------------------------------------------------------------------------
// options
// -----------------------------------------------------------------------------

const owner = "CachedSqlClient.layer"

interface Settings {
  readonly strategy: "explicit" | "all"
  readonly policy: CachePolicy.Resolved
  readonly rules: Rules
  readonly schemaVersion: string
  readonly namespace: string | undefined
  readonly lookupTimeoutMillis: number
  readonly invalidationTimeoutMillis: number
  readonly maxRefreshes: number
  readonly remoteChanges: boolean
  readonly catalogIntervalMillis: number | undefined
  readonly noop: boolean
}

const resolve = (options: CachedSqlClientOptions = {}): Settings => {
  Options.known(owner, options, [
    "strategy",
    "policy",
    "rules",
    "schemaVersion",
    "namespace",
    "lookupTimeout",
    "invalidationTimeout",
    "maxRefreshes",
    "remoteChanges",
    "catalogInterval"
  ])
  const policy = CachePolicy.resolve(options.policy ?? {})
  return {
    strategy: Options.oneOf<"explicit" | "all">(owner, "strategy", options.strategy, ["explicit", "all"], "explicit"),
    policy,
    rules: new Rules(options.rules, policy),
    schemaVersion: options.schemaVersion === undefined
      ? ""
      : Options.text(owner, "schemaVersion", options.schemaVersion),
    namespace: options.namespace === undefined ? undefined : Options.text(owner, "namespace", options.namespace),
    lookupTimeoutMillis: Options.millis(owner, "lookupTimeout", options.lookupTimeout, 50),
    invalidationTimeoutMillis: Options.millis(owner, "invalidationTimeout", options.invalidationTimeout, 250),
    maxRefreshes: Options.count(owner, "maxRefreshes", options.maxRefreshes, 5),
    remoteChanges: Options.flag(owner, "remoteChanges", options.remoteChanges) ?? true,
    catalogIntervalMillis: options.catalogInterval === false
      ? undefined
      : Options.millis(owner, "catalogInterval", options.catalogInterval, 60_000),
    noop: false
  }
}

interface Target {
  readonly host: string | undefined
  /** The socket on this machine, where there is no host. */
  readonly path: string | undefined
  readonly port: string
  readonly database: string
  readonly session: string
}

/** Where a client connects, as whom, and what it makes of rows. The password is left out of everything. */
const targetOf = (config: PgClient.PgClientConfig): Target => {
  const url = config.url === undefined ? undefined : new URL(Redacted.value(config.url))
  const search = url?.searchParams
  search?.delete("password")
  // The driver's own default: two users of one database must not share answers.
  const env = (globalThis as { process?: { env?: Record<string, string | undefined> } }).process?.env
  const username = config.username ?? (url?.username || search?.get("user") || env?.USER || env?.USERNAME || "")
  const host = config.host ?? (url?.hostname || search?.get("host") || "localhost")
  const path = config.path ?? (host.startsWith("/") ? host : undefined)
  const database = config.database ?? (url?.pathname.replace(/^\//, "") || search?.get("dbname") || username)
  return {
    host: config.stream !== undefined || path !== undefined ? undefined : host,
    path: config.stream !== undefined ? undefined : path,
    port: String(config.port ?? (url?.port || search?.get("port") || 5432)),
    database,
    session: JSON.stringify([
      username,
      // Under a namespace that was given, two databases may meet.
      database,
      search?.toString() ?? "",
      Object.entries(config.startupParameters ?? {}).sort(([a], [b]) => a < b ? -1 : 1),
      config.startupOptions ?? "",
      transformsOf(config)
    ])
  }
}

// Two programs, or two clients of one, may transform the rows of one statement differently. Functions cannot be
// compared, but what they make of names can.
const transformsOf = (config: PgClient.PgClientConfig): unknown => {
  const { transformJson, transformResultNames, types } = config
  return [
    transformResultNames === undefined ? null : [transformJson ?? true, ...names.map(attempt(transformResultNames))],
    types === undefined ? null : "registry"
  ]
}

const names = ["id", "user_id", "userId", "UserId", "USER_ID", "_a__b_1", "camelCaseURL2x"]

const attempt = (transform: (name: string) => string) => (name: string): string | null => {
  try {
    return transform(name)
  } catch {
    return null
  }
}

// Databases without a name of their own in this process. One client decorated twice is one database.
const locals = new WeakMap<object, number>()
let nextLocal = 0

const localOf = (config: PgClient.PgClientConfig): number => {
  const identity = config.stream ?? config
  let local = locals.get(identity)
  if (local === undefined) locals.set(identity, local = nextLocal++)
  return local
}

const namespaceOf = (
  settings: Settings,
  target: Target,
  config: PgClient.PgClientConfig,
  store: CacheStore.CacheStore["Service"]
): string => {
  if (settings.namespace !== undefined) return settings.namespace
  if (target.host !== undefined) return `${target.host}:${target.port}/${target.database}`
  // A store in this process may still be that of two databases.
  if (!store.shared) return `local:${target.path ?? localOf(config)}:${target.port}/${target.database}`
  throw new InvalidOptionError(
    owner,
    "namespace",
    undefined,
    "given where the client connects by stream or path and the store is shared with other processes"
  )
}

// -----------------------------------------------------------------------------
// the decorated client
// -----------------------------------------------------------------------------

type Provided = Exclude<Services, Fingerprinter.Fingerprinter>

interface Peer {
  readonly flights: Flights
  readonly changes: Changes
}

const allPeers = new WeakMap<object, Map<string, Set<Peer>>>()

/**
 * All clients in this process that share a namespace of a store: a write through one detaches the flights of them all,
 * and wakes who listens to any of them.
 */
const peersOf = (store: CacheStore.CacheStore["Service"], namespace: string): Set<Peer> => {
  let namespaces = allPeers.get(store)
  if (namespaces === undefined) allPeers.set(store, namespaces = new Map())
  let peers = namespaces.get(namespace)
  if (peers === undefined) namespaces.set(namespace, peers = new Set())
  return peers
}

/** What a decorated client was built with: decorating it again returns it. */
const decorated = new WeakMap<object, Context.Context<Provided>>()

const make = Effect.fnUntraced(function*(
  client: PgClient.PgClient,
  settings: Settings
): Effect.fn.Return<
  Context.Context<Provided>,
  never,
  | CacheStore.CacheStore
  | Fingerprinter.Fingerprinter
  | QueryAnalyzer.QueryAnalyzer
  | Woken.SharedReactivity
  | Scope.Scope
> {
  const known = decorated.get(client)
  if (known !== undefined) return known

  const store = yield* CacheStore.CacheStore
  const fingerprinter = yield* Fingerprinter.Fingerprinter
  const analyzer = yield* QueryAnalyzer.QueryAnalyzer
  const target = targetOf(client.config)
  const namespace = namespaceOf(settings, target, client.config, store)

  const tally = new Tally(yield* Effect.context<never>())
  const health = StoreHealth.make(tally, { timed: store.shared, shards: store.shards })
  const current = makeCurrent()
  // A flight is nobody's transaction, and what it asks is nobody's `withInfo`.
  const flights = new Flights([client.transactionService, current, QueryCache.Collector, CurrentConsulted], {
    maxRefreshes: settings.maxRefreshes
  })
  const peers = peersOf(store, namespace)
  const sessions = new Sessions({ namespace, store })
  const reactivities = yield* Woken.reactivities
  const changes = new Changes({
    namespace,
    store,
    tally,
    detach: (targets) => flights.detach(targets),
    reactivities,
    remote: settings.remoteChanges && !settings.noop,
    timeoutMillis: settings.invalidationTimeoutMillis
  })
  const peer: Peer = { flights, changes }
  peers.add(peer)
  yield* Effect.addFinalizer(() => {
    peers.delete(peer)
    return flights.interruptAll
  })
  yield* changes.run
  const naming = yield* Naming.make({
    client,
    analyzer,
    interval: settings.catalogIntervalMillis === undefined ? undefined : Duration.millis(settings.catalogIntervalMillis)
  })
  const delivery = naming.observe(
    yield* Deliveries.make({
      namespace,
      store,
      flights: {
        detach: (targets) => {
          for (const { flights } of peers) flights.detach(targets)
        }
      },
      announce: (targets, clock) =>
        Effect.forEach(peers, ({ changes }) => changes.announce(targets, clock), { discard: true }),
      expect: (targets) => {
        for (const { changes } of peers) changes.expect(targets)
      },
      health,
      tally,
      sessions,
      timeoutMillis: settings.invalidationTimeoutMillis,
      observe: settings.noop || Scripted.isScripted(client) ? undefined : observe(client)
    })
  )
  const strict = settings.noop ? undefined : yield* Strict.make({
    client,
    namespace,
    store,
    health,
    tally,
    timeoutMillis: settings.invalidationTimeoutMillis
  })
  const transactions = new Transactions(
    client,
    current,
    delivery,
    sessions,
    strict && { fences: strict, generation: naming.generation }
  )
  const invalidator = Invalidator.make(transactions, naming)

  const audits = new Audits()

  const engine: Engine = {
    facts: { namespace, schemaVersion: settings.schemaVersion, session: target.session },
    fingerprinter,
    store,
    health,
    reader: new Reader({
      store,
      flights,
      health,
      tally,
      audits,
      lookupTimeoutMillis: settings.lookupTimeoutMillis,
      met: strict?.met
    }),
    delivery,
    changes,
    transactions,
    sessions,
    strict,
    naming,
    tally,
    audits,
    rules: settings.rules,
    layerPolicy: settings.policy,
    names: new Set(),
    noop: settings.noop
  }
  const forms = new Forms({ engine })

  // A connection that is taken may be the only one: what its statements mean is found out before.
  const ready = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.withFiber((fiber) =>
      naming.of(undefined).isKnown || transactionOf(fiber.context) !== undefined
        ? effect
        : Effect.andThen(naming.settled, effect)
    )

  const reserve = Effect.withFiber<any, SqlError, Scope.Scope>((fiber) => {
    if (appliedScope(fiber.getRef(CacheScope.CurrentScope)) !== "") {
      return Effect.die(new Error("CacheScope.provide: a reserved connection cannot be put in a scope"))
    }
    return ready(Effect.flatMap(client.reserve, (connection) => {
      const look = (sql: string, isAnywhere: boolean) => {
        const names = isAnywhere ? naming.anywhere() : naming.of(undefined)
        const analysis = names.analyze(sql)
        return { effects: names.effectsOf(analysis), changes: analysis._tag === "Read" ? undefined : analysis.changes }
      }
      const observed = observeConnection(connection, look, transactions, delivery, naming)
      return Effect.as(Effect.addFinalizer(() => observed.close), observed.connection)
    }))
  })

  const mailbox = (keys: Woken.Keys, effect: Effect.Effect<any, any, any>): Effect.Effect<any, any, any> =>
    Effect.andThen(changes.attend(() => {}), reactivities[0].query(Woken.withEvery(keys), effect))

  const decorate = (base: PgClient.PgClient): PgClient.PgClient => {
    const plain = base.withoutTransforms()
    const rows = base === client ? "rows" : "plain"
    const statements = makeStatements({
      client: base,
      engine,
      forms,
      defaultPolicy: settings.strategy === "all" ? settings.policy : undefined,
      rows,
      plain: plain === base ? rows : "plain"
    })
    const tag = (strings: any, ...args: Array<any>): any =>
      typeof strings === "string" ? base(strings) : statements.tag(strings, args)
    let withoutTransforms: PgClient.PgClient | undefined
    const self: PgClient.PgClient = Object.assign(tag, base, {
      unsafe: (sql: string, params?: ReadonlyArray<unknown>) => statements.wrap(base.unsafe(sql, params)),
      withTransaction: <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        ready(naming.watched(transactions.withTransaction(effect))),
      reactive: (keys: Woken.Keys, effect: Effect.Effect<any, any, any>) =>
        Stream.unwrap(Effect.map(mailbox(keys, effect), Stream.fromQueue)),
      reactiveMailbox: mailbox,
      withoutTransforms: () => plain === base ? self : withoutTransforms ??= decorate(plain),
      reserve
    }) as any
    ;(self as any).safe = self
    decorated.set(
      self,
      Context.make(PgClient.PgClient, self).pipe(
        Context.add(SqlClient.SqlClient, self),
        Context.add(QueryCache.QueryCache, QueryCache.make(engine)),
        Context.add(Invalidator.Invalidator, invalidator)
      )
    )
    return self
  }

  return decorated.get(decorate(client))!
})
