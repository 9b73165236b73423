/**
 * Values that are always there: read ahead of those who ask, and served while they
 * are read anew.
 *
 * Where a cached query is read when somebody asks and is never served once its data
 * have changed, a materialized view is refreshed by a schedule, by invalidations or
 * on demand, and serves what it has meanwhile, with its age: dashboards, rankings,
 * totals, whatever takes long and may be a little old.
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { InvalidOptionError } from "./CacheError.ts"
import * as CachePolicy from "./CachePolicy.ts"
import * as CacheScope from "./CacheScope.ts"
import type * as Dependency from "./Dependency.ts"
import * as AnyTransaction from "./internal/anyTransaction.ts"
import { CurrentConsulted } from "./internal/consulted.ts"
import * as Options from "./internal/options.ts"
import type { Pure } from "./internal/schemas.ts"
import { CurrentSession } from "./internal/session.ts"
import { View } from "./internal/view.ts"
import { viewCodec } from "./internal/viewCodec.ts"
import * as QueryCache from "./QueryCache.ts"

/**
 * A value that is always there.
 *
 * @category models
 * @since 0.1.0
 */
export interface MaterializedView<out A, out E = never> {
  readonly name: string
  /**
   * The value, at once: the same object for all who ask, and at no cost. Only before there is a first value it waits for
   * one, and fails as that fails; then the next one who asks has it tried again.
   */
  readonly get: Effect.Effect<A, E | Cause.TimeoutError>
  /**
   * A value that is read from now on. Those who ask for one while another is being read share the next one. When it
   * fails, the old value stays.
   */
  readonly refresh: Effect.Effect<A, E | Cause.TimeoutError>
  /** How long ago the reading of the value began. `None` before there is one. */
  readonly age: Effect.Effect<Option.Option<Duration.Duration>>
  /** Why the last refresh failed, if it did. */
  readonly lastFailure: Effect.Effect<Option.Option<Failure<E>>>
}

/**
 * A refresh that failed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failure<out E> {
  /** What the query failed with or died of, or a `TimeoutError` where it took longer than `queryTimeout`. */
  readonly cause: Cause.Cause<E | Cause.TimeoutError>
  /** When, by the `Clock`. */
  readonly atMillis: number
}

/**
 * Options of {@link make}.
 *
 * @category options
 * @since 0.1.0
 */
export interface MaterializedViewOptions<A, E, R> {
  /**
   * Reads the value. What it asks, it asks the database: `uncached` stands around it. Plain objects and arrays in the
   * value are frozen. A scope it needs is closed when it has ended.
   */
  readonly query: Effect.Effect<A, E, R>
  /**
   * How the value is written to a shared store; values of another schema are never read. Without it rows, and whatever
   * could stand in a row, are written as rows are. A value that cannot be written exactly stays in its process.
   */
  readonly Value?: Pure<A> | undefined
  /**
   * When the value is read anew, such as `Schedule.spaced("5 minutes")` or `Schedule.cron("0 6 * * *")`. A schedule whose
   * first step has ended, fails, never comes or does not wait is refused; one that ends later is reported.
   */
  readonly schedule?: Schedule.Schedule<unknown, unknown, unknown> | undefined
  /**
   * From which age on somebody who asks has the value read anew. The value is served all the same. For what nobody may
   * look at any more that is too old, ask for its `age`. Defaults to never.
   */
  readonly timeToLive?: Duration.Input | undefined
  /**
   * Reads the value anew when something was invalidated that it derives from: what its statements read, what is in
   * `dependencies` and `tags`, what the cached queries and views it asks depend on. `debounce` is how long it waits from
   * the first invalidation on, so that those that follow need no refresh of their own; `true` is 1 second. Defaults to
   * `false`.
   */
  readonly refreshOnInvalidation?: boolean | { readonly debounce: Duration.Input } | undefined
  /** What the value derives from, besides what its statements are seen to read. */
  readonly dependencies?: ReadonlyArray<Dependency.Dependency> | undefined
  /** Labels by which `Invalidator.invalidate({ tags })` finds it. */
  readonly tags?: ReadonlyArray<string> | undefined
  /** How long the query may take, until it is interrupted and counts as failed. Defaults to 5 minutes. */
  readonly queryTimeout?: Duration.Input | undefined
  /** Values estimated to be larger stay in this process. In bytes; defaults to 64 MiB. */
  readonly maxEntryBytes?: number | undefined
  /** Change it where the value changes in a way that its schema does not tell. */
  readonly version?: string | undefined
}

/**
 * Makes a materialized view, which lives as long as the scope.
 *
 * **When to use**
 *
 * Make it once, in a layer, for what is dear to read, asked for often, and may be a
 * little old.
 *
 * **Details**
 *
 * - It begins to read at once and does not wait: a database that is away does not
 *   keep the program from starting. `yield* view.get` waits for the first value.
 * - With a shared store one process at a time reads the value, and the others take
 *   it over. Each follows its own schedule: it takes what another has read since it
 *   last looked, or reads. So with `n` processes under `Schedule.spaced(d)` the
 *   database is asked about once per `d`, and a value may become `2 d` old; with
 *   cron, where all look at the same time, one reads and all have it at once. A query
 *   that takes longer than the store's `flightTimeout` may be read by two processes.
 *   A process that starts takes over a value that is younger than the time until
 *   its schedule's first refresh, or else serves it until it has a new one. Values
 *   are kept there for a day, or twice `timeToLive`.
 * - A refresh that fails, dies or takes too long leaves the value as it is. It is
 *   logged once until a refresh succeeds again, counted
 *   (`query_cache_view_refreshes_total`), and told by `lastFailure`. After an
 *   invalidation it is tried again after 2 seconds and then less and less often, at
 *   least once a minute; otherwise by the schedule, or by `Effect.retry` around what
 *   `query` does.
 * - `Invalidator.invalidate({ keys: [Dependency.key(name, "view")] })` refreshes it,
 *   in whatever process it is called, even without `refreshOnInvalidation`.
 * - `QueryCache.changes(view.get)` emits every new value.
 * - The query runs with the services at hand where the view is made, outside the
 *   transaction there, in a span `MaterializedView.refresh`.
 *
 * **Gotchas**
 *
 * - It serves what its data no longer are, and inside a transaction, too. Where that
 *   is not wanted use `QueryCache.cached` or a `CachedQuery`.
 * - Its query is asked in the `CacheScope` in which the view is made. Whoever has the
 *   view sees the value, in whatever scope they ask.
 * - A name may be taken once per decorated client, until the scope closes: a second
 *   one dies with an `InvalidOptionError`.
 *
 * **Example** (Sales by region, every five minutes and after orders)
 *
 * ```ts
 * import { Context, Effect, Layer, Schedule } from "effect"
 * import { MaterializedView } from "effect-query-cache"
 * import { SqlClient } from "effect/sql"
 * import type { SqlError } from "effect/sql"
 *
 * interface Region {
 *   readonly region: string
 *   readonly total: string
 * }
 *
 * export class Sales extends Context.Service<
 *   Sales,
 *   MaterializedView.MaterializedView<ReadonlyArray<Region>, SqlError.SqlError>
 * >()("Sales") {
 *   static readonly layer = Layer.effect(
 *     Sales,
 *     Effect.gen(function*() {
 *       const sql = yield* SqlClient.SqlClient
 *       return yield* MaterializedView.make("sales", {
 *         query: sql<Region>`SELECT region, sum(amount) AS total FROM orders GROUP BY region`,
 *         schedule: Schedule.spaced("5 minutes"),
 *         refreshOnInvalidation: { debounce: "2 seconds" }
 *       })
 *     })
 *   )
 * }
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A, E = never, R = never>(
  name: string,
  options: MaterializedViewOptions<A, E, R>
): Effect.Effect<
  MaterializedView<A, E>,
  never,
  QueryCache.QueryCache | Scope.Scope | Exclude<R, Scope.Scope>
> =>
  Effect.gen(function*() {
    const { engine } = yield* QueryCache.QueryCache
    const settings = resolve(name, options)
    if (engine.names.has(name)) {
      throw new InvalidOptionError(owner, "name", name, "a name that nothing else has: make it once, with its layer")
    }
    const policy = engine.rules.complete(settings.policy, [])
    const ticks = options.schedule === undefined ? undefined : yield* begin(name, options.schedule)
    const { codec, version } = viewCodec(options.Value)
    const scope = yield* CacheScope.CurrentScope
    const view = new View<A, E>({
      engine,
      name,
      query: queryOf(name, options.query, yield* Effect.context<never>()),
      codec,
      version: `${options.version ?? ""}\n${version}`,
      dependencies: settings.policy.dependencies,
      isShared: engine.store.shared && !engine.noop && policy !== "uncached",
      debounceMillis: settings.debounceMillis,
      timeToLiveMillis: settings.timeToLiveMillis,
      queryTimeoutMillis: settings.queryTimeoutMillis,
      maxEntryBytes: settings.maxEntryBytes,
      firstDelayMillis: ticks?.firstMillis ?? Infinity
    }, scope)
    engine.names.add(name)
    yield* view.run
    if (ticks !== undefined) yield* Effect.forkScoped(ticks.run(Effect.suspend(() => wait(view))))
    return {
      name,
      get: new Get(view) as any,
      refresh: view.refresh,
      age: Effect.map(Clock.currentTimeMillis, (now) =>
        Option.map(
          Option.fromUndefinedOr(view.source.current),
          ({ readAtMillis }) => Duration.millis(Math.max(0, now - readAtMillis))
        )),
      lastFailure: Effect.sync(() => Option.fromUndefinedOr(view.failure))
    }
  })

const owner = "MaterializedView.make"

/** What a read costs is what evaluating this object does. */
class Get<A, E> {
  readonly view: View<A, E>

  constructor(view: View<A, E>) {
    this.view = view
  }
}

Object.assign(
  Get.prototype,
  Effectable.Prototype<Effect.Effect<any, any> & Get<any, any>>({
    label: "MaterializedView.get",
    evaluate(fiber) {
      return this.view.get(fiber)
    }
  })
)

const wait = <A, E>(view: View<A, E>): Effect.Effect<void> =>
  Effect.asVoid(Effect.exit(Deferred.await(view.ask("newer").done)))

const resolve = (name: string, options: MaterializedViewOptions<any, any, any>) => {
  Options.text(owner, "name", name)
  Options.known(owner, options, [
    "query",
    "Value",
    "schedule",
    "timeToLive",
    "refreshOnInvalidation",
    "dependencies",
    "tags",
    "queryTimeout",
    "maxEntryBytes",
    "version"
  ])
  if (!Effect.isEffect(options.query)) throw new InvalidOptionError(owner, "query", options.query, "an effect")
  const { refreshOnInvalidation, schedule } = options
  if (schedule !== undefined && !Schedule.isSchedule(schedule)) {
    throw new InvalidOptionError(owner, "schedule", schedule, "a Schedule")
  }
  if (typeof refreshOnInvalidation === "object") {
    Options.known(owner, refreshOnInvalidation, ["debounce"])
  } else {
    Options.flag(owner, "refreshOnInvalidation", refreshOnInvalidation)
  }
  return {
    policy: CachePolicy.resolve({ name, tags: options.tags, dependencies: options.dependencies }),
    debounceMillis: refreshOnInvalidation === true
      ? 1_000
      : typeof refreshOnInvalidation === "object"
      ? Options.millisOrZero(owner, "refreshOnInvalidation.debounce", refreshOnInvalidation.debounce)
      : undefined,
    timeToLiveMillis: Options.millis(owner, "timeToLive", options.timeToLive, Infinity),
    queryTimeoutMillis: Options.millis(owner, "queryTimeout", options.queryTimeout, 5 * 60_000),
    maxEntryBytes: Options.count(owner, "maxEntryBytes", options.maxEntryBytes, 64 * 1024 * 1024)
  }
}

/** The query as it runs: with the services of where the view is made, and nothing of where it is asked for. */
const queryOf = <A, E>(
  name: string,
  query: Effect.Effect<A, E, any>,
  context: Context.Context<never>
): Effect.Effect<A, E> => {
  const services = Context.omit(
    Scope.Scope,
    Tracer.ParentSpan,
    CurrentSession,
    QueryCache.Ambient,
    QueryCache.Collector
  )(
    AnyTransaction.outside(context)
  ) as Context.Context<never>
  return Effect.updateContext(
    QueryCache.uncached(Effect.scoped(query)).pipe(
      Effect.withSpan("MaterializedView.refresh", { attributes: { "view.name": name }, root: true }, {
        captureStackTrace: false
      })
    ) as Effect.Effect<A, E>,
    (running: Context.Context<never>) =>
      Context.add(services, CurrentConsulted, Context.get(running, CurrentConsulted)) as Context.Context<never>
  )
}

/** A schedule that has made its first step, and does its others. */
const begin = (name: string, schedule: Schedule.Schedule<unknown, unknown, unknown>) =>
  Effect.gen(function*() {
    const step = yield* Schedule.toStep(schedule)
    const next = Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.suspend(() => step(now, undefined)))
    const first = yield* Effect.exit(next)
    const refused = (expected: string) =>
      new InvalidOptionError(owner, "schedule", schedule, `${expected} (that of "${name}")`)
    if (Exit.isFailure(first)) {
      throw refused(Pull.isDoneCause(first.cause) ? "one that has not ended at its first step" : "one with a next time")
    }
    const firstMillis = Duration.toMillis(first.value[1])
    if (!(firstMillis > 0)) throw refused("one that waits")
    if (firstMillis === Infinity) throw refused("one that comes some time")
    const report = (what: string) =>
      Effect.logWarning(`MaterializedView "${name}": ${what}; from now on only invalidations and demand refresh it`)
    const run = (tick: Effect.Effect<void>): Effect.Effect<void> =>
      Effect.gen(function*() {
        for (let millis = firstMillis;;) {
          // One that stops waiting later would leave no time for anything else.
          yield* Effect.sleep(Duration.millis(Math.max(1, millis)))
          yield* tick
          const exit = yield* Effect.exit(next)
          if (Exit.isFailure(exit)) {
            return yield* report(Pull.isDoneCause(exit.cause) ? "its schedule has ended" : "its schedule has failed")
          }
          millis = Duration.toMillis(exit.value[1])
          if (millis === Infinity) return yield* report("its schedule has ended")
        }
      })
    return { firstMillis, run }
  })
