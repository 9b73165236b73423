/**
 * Values under a name and a key of the program's own: what cached queries,
 * cached resolvers and materialized views have in common.
 *
 * The store keeps the value as the `Exit` that a caller gets, so that a hit costs
 * no allocation. Values are immutable and shared: plain objects and arrays in
 * them are frozen when they are taken in.
 */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { InvalidOptionError } from "../CacheError.ts"
import * as CachePolicy from "../CachePolicy.ts"
import * as CacheScope from "../CacheScope.ts"
import type * as CacheStore from "../CacheStore.ts"
import * as Dependency from "../Dependency.ts"
import * as QueryCache from "../QueryCache.ts"
import * as AnyTransaction from "./anyTransaction.ts"
import { type Consulted, CurrentConsulted } from "./consulted.ts"
import { type AnyFiber, type Engine, isBypassed, isUnserved, NamedKey, NamedSpace } from "./engine.ts"
import { Habits } from "./habits.ts"
import * as Outcome from "./outcome.ts"
import { type Admission, type Answer, isFresh, type Reading } from "./reading.ts"
import { sizeOf } from "./rows.ts"
import { exitCodec, type KeyCodec, keyCodec, type Local, type Pure, share } from "./schemas.ts"
import type { Point } from "./session.ts"

export interface NamedOptions<K, A, E> {
  readonly engine: Engine
  /** The constructor, for errors: `"CachedQuery.make"`. */
  readonly owner: string
  readonly name: string
  readonly Key: Pure<K>
  readonly Value: Pure<A>
  /** The failures that are kept as values are, and for how long. */
  readonly keptError?: { readonly Error: Pure<E>; readonly timeToLiveMillis: number } | undefined
  readonly version?: string | undefined
  readonly policy: CachePolicy.Resolved
  readonly timeToLive?: ((value: A, key: K) => Duration.Input) | undefined
  readonly cacheWhen?: ((value: A, key: K) => boolean) | undefined
  readonly dependencies?: ((key: K) => Iterable<Dependency.Dependency>) | undefined
}

export class Named<K, A, E> {
  readonly engine: Engine
  readonly name: string
  readonly policy: CachePolicy.Complete
  private readonly timeToLiveMillis: number
  private readonly options: NamedOptions<K, A, E>
  private readonly isRuledOut: boolean
  private readonly keys: KeyCodec<K>
  private readonly codec: CacheStore.Codec
  private readonly isKeptError: (error: unknown) => boolean
  private readonly space: NamedSpace
  private readonly basis: string
  private readonly habits = new Habits()
  // For a look at what this process has, which keeps no hold of it.
  private readonly scratch: { space: string; local: Local } & CacheStore.CacheKey

  // What the fiber's context decides is remembered for the last one seen.
  private context: Context.Context<never> | undefined
  private clock!: Clock.Clock
  private scope: CacheScope.Resolved | undefined
  private ambient: QueryCache.Ambient | undefined
  private collector: Array<QueryCache.QueryInfo> | undefined
  private consulted: Consulted | undefined
  private point: Point | undefined
  private inTransaction = false

  constructor(options: NamedOptions<K, A, E>) {
    const { engine, keptError, name, owner, timeToLive } = options
    if (engine.names.has(name)) {
      throw new InvalidOptionError(owner, "name", name, "a name that nothing else has: make it once, with its layer")
    }
    this.options = options
    this.engine = engine
    this.name = name
    const completed = engine.rules.complete(options.policy, [])
    this.isRuledOut = completed === "uncached"
    const policy = completed === "uncached" ? CachePolicy.complete(options.policy) : completed
    this.timeToLiveMillis = policy.timeToLiveMillis
    this.policy = {
      ...policy,
      // A value that has a time to live of its own is as fresh as that says.
      timeToLiveMillis: timeToLive === undefined
        ? Math.max(policy.timeToLiveMillis, keptError?.timeToLiveMillis ?? 0)
        : Infinity,
      // Its failure would be none of E.
      hardTimeoutMillis: Infinity
    }
    this.keys = keyCodec(options.Key)
    const { codec, isError, version } = exitCodec(options.Value, keptError?.Error)
    this.codec = codec
    this.isKeptError = isError
    this.space = new NamedSpace(engine, name, [options.version ?? "", this.keys.version, version].join("\n"))
    this.basis = `=${name}`
    this.scratch = new NamedKey(this.space, "", undefined, codec)
    engine.names.add(name)
  }

  /** The value of a key that this process may serve at once, without a word. */
  peek(fiber: AnyFiber, key: K): Exit.Exit<A, E> | undefined {
    if (!this.canPeek(fiber)) return undefined
    const exit = this.peekAt(key, this.clock.currentTimeMillisUnsafe())
    if (exit !== undefined) this.peeked(1)
    return exit
  }

  /** As `peek`, for several; `undefined` unless this process has them all. */
  peekMany(fiber: AnyFiber, keys: ReadonlyArray<K>): Array<A> | undefined {
    if (!this.canPeek(fiber)) return undefined
    const { keys: { quick }, policy, scratch } = this
    const { store } = this.engine
    const now = this.clock.currentTimeMillisUnsafe()
    const values = new Array<A>(keys.length)
    scratch.space = this.space.of(this.scope)
    for (let i = 0; i < keys.length; i++) {
      const local = quick(keys[i])
      if (local === undefined) return undefined
      scratch.local = local
      const kept = store.peek(scratch, now)
      if (kept === undefined || !isFresh(kept, policy, now)) return undefined
      const exit = kept.value as Exit.Exit<A, E>
      if (exit._tag === "Failure") return undefined
      values[i] = exit.value
    }
    this.peeked(keys.length)
    return values
  }

  /** As `peek`, with all that is to be told of it and done about it. */
  atHand(fiber: AnyFiber, key: K, query: Effect.Effect<A, E>): Exit.Exit<A, E> | undefined {
    if (this.objectionToRead(fiber) !== undefined) return undefined
    const reading = this.readingOf(key, query)
    return this.engine.store.peek(reading.key, this.clock.currentTimeMillisUnsafe()) === undefined ||
        isUnserved(this.engine, reading.dependencies())
      ? undefined
      : this.serve(fiber, reading)
  }

  /** The value of a key: at hand, in the store, or by `query`. */
  get(key: K, query: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.withFiber((fiber) => {
      const against = this.objectionToRead(fiber)
      this.consulted?.add(this.dependenciesOf(key))
      if (against !== undefined) return this.bypass(against, query)
      const reading = this.readingOf(key, query)
      if (isUnserved(this.engine, reading.dependencies())) return this.bypass("unserved", query)
      const kept = this.serve(fiber, reading)
      if (kept !== undefined) return kept
      const into = this.collector
      return Effect.flatMap(this.engine.reader.fetch(reading), (answer) => this.land(answer, reading, into))
    })
  }

  /**
   * The values of several keys, which may be equal, looked up in one round trip. Each is handed over with its place as
   * soon as it is there; the effect ends when all are. What goes wrong with one key is none of the others'. `into`: who
   * is told what became of a place, where that is not the fiber.
   */
  getMany(
    keys: ReadonlyArray<K>,
    query: (place: number) => Effect.Effect<A, E>,
    each: (place: number, exit: Exit.Exit<A, E>) => void,
    into?: (place: number) => Array<QueryCache.QueryInfo> | undefined
  ): Effect.Effect<void> {
    return Effect.withFiber((fiber) => {
      const against = this.objectionToRead(fiber)
      const own = this.collector
      const collectorOf = into ?? (() => own)
      const readings = new Map<
        Local,
        { readonly reading: Reading<Exit.Exit<A, E>, E>; readonly places: Array<number> }
      >()
      const apart: Array<Effect.Effect<void>> = []
      const bypass = (place: number, reason: string) => {
        const bypassed = this.bypass(reason, query(place), collectorOf(place))
        apart.push(Effect.map(Effect.exit(bypassed), (exit) => each(place, exit)))
      }
      for (let place = 0; place < keys.length; place++) {
        try {
          this.consulted?.add(this.dependenciesOf(keys[place]))
          if (against !== undefined) {
            bypass(place, against)
            continue
          }
          const reading = this.readingOf(keys[place], query(place))
          const same = readings.get(reading.key.local)
          if (same !== undefined) same.places.push(place)
          else if (isUnserved(this.engine, reading.dependencies())) bypass(place, "unserved")
          else {
            const kept = this.serve(fiber, reading, collectorOf(place))
            if (kept !== undefined) each(place, kept)
            else readings.set(reading.key.local, { reading, places: [place] })
          }
        } catch (defect) {
          each(place, Exit.die(defect))
        }
      }
      const asked = [...readings.values()]
      const fetched = this.engine.reader.fetchMany(asked.map(({ reading }) => reading), (index, exit) => {
        const { places, reading } = asked[index]
        for (const place of places) {
          each(
            place,
            Exit.isSuccess(exit) ? this.land(exit.value, reading, collectorOf(place)) : Exit.failCause(exit.cause)
          )
        }
      })
      return asked.length === 0 && apart.length === 0
        ? Effect.void
        : Effect.all([fetched, ...apart], { concurrency: "unbounded", discard: true })
    })
  }

  /** Reads a value whatever the store has, and stores it. In a transaction it is read there, and forgotten here. */
  refresh(key: K, query: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.withFiber((fiber) => {
      const against = this.objection(fiber)
      this.consulted?.add(this.dependenciesOf(key))
      if (against !== undefined) {
        return Effect.tap(this.bypass(against, query), () => this.invalidate(key, []))
      }
      const reading = this.readingOf(key, query)
      // What is not served is not stored either: a write in doubt may become visible after the reading.
      if (isUnserved(this.engine, reading.dependencies())) return this.bypass("unserved", query)
      return Effect.flatMap(this.engine.reader.reload(reading), ({ value }) => value)
    })
  }

  /**
   * Stores a value that the caller has. What could not be stored is invalidated, or the old value would stay. In a
   * transaction it is invalidated at the commit: the value may be other than what is committed.
   */
  set(key: K, value: A): Effect.Effect<void> {
    return Effect.withFiber((fiber) => {
      if (this.objection(fiber) !== undefined) return this.invalidate(key, [])
      const reading = this.readingOf<never>(key, Effect.succeed(value))
      if (isUnserved(this.engine, reading.dependencies())) return this.invalidate(key, [])
      return Effect.flatMap(
        this.engine.reader.reload(reading),
        ({ verdict }) => verdict === "accepted" ? Effect.void : this.invalidate(key, [])
      )
    })
  }

  /** Invalidates a key and what else is named, after the commit where there is a transaction. */
  invalidate(key: K, related: Iterable<Dependency.Dependency>): Effect.Effect<void> {
    return Effect.suspend(() => this.forget(this.targetsOf(key, related)))
  }

  /**
   * Writes to the database, forgets the value of a key and what else is named, and stores what `query` reads then: in a
   * transaction after its commit, by a flight that nobody waits for, since nothing there can be interrupted.
   */
  update<B, E2, R>(
    key: K,
    related: () => Iterable<Dependency.Dependency>,
    write: Effect.Effect<B, E2, R>,
    query: Effect.Effect<A, E>
  ): Effect.Effect<B, E2, R> {
    return Effect.withFiber((fiber) => {
      const { noop, reader, transactions } = this.engine
      if (noop) return write
      // Whatever a key cannot be asked is found out before anything is written.
      const targets = this.targetsOf(key, related())
      const written = Effect.onExit(write, (exit) =>
        Exit.isSuccess(exit)
          ? this.forget(targets)
          : Outcome.mayHaveWritten(exit.cause)
          ? this.doubt(targets)
          : Effect.void)
      return Effect.tap(
        written,
        AnyTransaction.transactionOf(fiber.context) === undefined
          ? Effect.ignoreCause(this.refresh(key, query))
          : transactions.afterCommit(Effect.withFiber((after) => {
            const reading = this.readingOf(key, query)
            if (this.objection(after) === undefined && !isUnserved(this.engine, reading.dependencies())) {
              reader.refresh(after, reading, 0)
            }
            return Effect.void
          }))
      )
    })
  }

  private forget(targets: Dependency.Targets): Effect.Effect<void> {
    return this.engine.noop ? Effect.void : this.engine.transactions.invalidate(targets)
  }

  /** As `forget`, after a write that may have taken effect, or may yet. */
  private doubt(targets: Dependency.Targets): Effect.Effect<void> {
    return Effect.withFiber((fiber) =>
      AnyTransaction.transactionOf(fiber.context) === undefined
        // Whatever it was that the program did, with whatever client.
        ? this.engine.delivery.quarantine(targets, { _tag: "Anything" })
        : this.forget(targets)
    )
  }

  private targetsOf(key: K, related: Iterable<Dependency.Dependency>): Dependency.Targets {
    return Dependency.explicitTargets([this.dependencyOf(key), ...related])
  }

  /** What an invalidation of a key marks. */
  dependencyOf(key: K): Dependency.Key {
    this.encoded(key)
    return Dependency.key(this.name, this.keys.text(key))
  }

  /** The dependencies of the value of a key. */
  dependenciesOf(key: K): Dependency.DependencySet {
    const { dependencies } = this.options
    return Dependency.makeSet(
      this.engine.naming.of(undefined).dependencies([
        this.dependencyOf(key),
        ...(dependencies === undefined ? [] : dependencies(key)),
        ...this.policy.dependencies
      ]),
      { autoInvalidate: this.policy.autoInvalidate, basis: this.basis }
    )
  }

  // ---------------------------------------------------------------------------

  private canPeek(fiber: AnyFiber): boolean {
    if (fiber.context !== this.context) this.look(fiber)
    const { engine, policy } = this
    return !this.inTransaction && this.ambient === undefined && this.collector === undefined &&
      this.consulted === undefined && engine.delivery.unserved.isEmpty && policy.refreshAhead === 0 &&
      !this.isRuledOut && !engine.noop && (this.point === undefined || this.mayPeek(this.point))
  }

  private mayPeek(point: Point): boolean {
    return !isBypassed(this.engine, point, this.clock) && this.engine.sessions.mayPeek(point)
  }

  private peekAt(key: K, nowMillis: number): Exit.Exit<A, E> | undefined {
    const local = this.keys.quick(key)
    if (local === undefined) return undefined
    const { engine, policy, scratch } = this
    scratch.space = this.space.of(this.scope)
    scratch.local = local
    const kept = engine.store.peek(scratch, nowMillis)
    if (kept === undefined || !isFresh(kept, policy, nowMillis)) return undefined
    return kept.value as Exit.Exit<A, E>
  }

  private peeked(count: number): void {
    this.engine.tally.hitL1(count)
    this.habits.hits += count
  }

  private look(fiber: AnyFiber): void {
    this.context = fiber.context
    this.clock = fiber.getRef(Clock.Clock)
    this.scope = fiber.getRef(CacheScope.CurrentScope)
    this.ambient = fiber.getRef(QueryCache.Ambient)
    this.collector = fiber.getRef(QueryCache.Collector)
    this.consulted = fiber.getRef(CurrentConsulted)
    this.point = this.engine.sessions.pointOf(fiber)
    this.inTransaction = AnyTransaction.transactionOf(fiber.context) !== undefined
  }

  /** Why the cache has no part in what the fiber asks, if so. */
  private objection(fiber: AnyFiber): string | undefined {
    if (fiber.context !== this.context) this.look(fiber)
    if (this.ambient !== undefined) this.ambient.witness.consulted++
    return this.engine.noop
      ? "noop"
      : this.isRuledOut
      ? "rule"
      : this.ambient?.policy === "uncached"
      ? "uncached"
      : this.inTransaction || this.engine.transactions.isByHand
      ? "transaction"
      : undefined
  }

  /** As `objection`, for what asks only. */
  private objectionToRead(fiber: AnyFiber): string | undefined {
    return this.objection(fiber) ??
      (this.point !== undefined && isBypassed(this.engine, this.point, this.clock) ? "session" : undefined)
  }

  /** What the query asks is not cached under another name either. */
  private bypass<B, E2>(reason: string, query: Effect.Effect<B, E2>, into = this.collector): Effect.Effect<B, E2> {
    this.bypassed(reason, into)
    return QueryCache.uncached(query)
  }

  /** Counts and tells that the cache has no part in a read. */
  bypassed(reason: string, into: Array<QueryCache.QueryInfo> | undefined): void {
    this.engine.tally.bypassed(reason)
    this.inform(into, undefined, { status: "bypass", level: undefined, ageMillis: 0, reason })
  }

  /** What this process may serve at once, stale though it may be. */
  private serve(
    fiber: AnyFiber,
    reading: Reading<Exit.Exit<A, E>, E>,
    into = this.collector
  ): Exit.Exit<A, E> | undefined {
    const { point } = reading
    if (point !== undefined && !this.mayPeek(point)) return undefined
    const { reader } = this.engine
    const now = this.clock.currentTimeMillisUnsafe()
    const kept = reader.peek(reading.key, this.basis, this.policy, now)
    if (kept === undefined) return undefined
    this.habits.hits++
    reader.freshen(fiber, reading, kept, now)
    const stale = !isFresh(kept, this.policy, now)
    this.inform(into, reading.key, {
      status: stale ? "stale" : "hit",
      level: kept.level,
      ageMillis: now - kept.storedAtMillis,
      reason: stale ? "expired" : undefined
    })
    return kept.value as Exit.Exit<A, E>
  }

  private land(
    answer: Answer<Exit.Exit<A, E>>,
    { key }: Reading<Exit.Exit<A, E>, E>,
    into: Array<QueryCache.QueryInfo> | undefined
  ): Exit.Exit<A, E> {
    this.inform(into, key, answer)
    return answer.stored as Exit.Exit<A, E>
  }

  private inform(
    into: Array<QueryCache.QueryInfo> | undefined,
    key: CacheStore.CacheKey | undefined,
    { ageMillis, level, reason, status }: Pick<Answer<unknown>, "level" | "ageMillis" | "reason"> & {
      readonly status: QueryCache.QueryInfo["status"]
    }
  ): void {
    into?.push({
      sql: undefined,
      name: this.name,
      status,
      level,
      age: Duration.millis(ageMillis),
      get fingerprint() {
        return key?.fingerprint
      },
      reason
    })
  }

  private readingOf<E2 extends E>(key: K, query: Effect.Effect<A, E2>): Reading<Exit.Exit<A, E>, E2> {
    let dependencies: Dependency.DependencySet | undefined
    return {
      key: new NamedKey(this.space, this.encoded(key), this.scope, this.codec),
      basis: this.basis,
      dependencies: () => dependencies ??= this.dependenciesOf(key),
      terms: this.policy,
      habits: this.habits,
      point: this.point,
      label: () => this.name,
      query: this.exitOf(query),
      timedOut: Effect.never,
      admit: (exit) => this.admit(exit, key),
      holds: Exit.isExit
    }
  }

  /** What the query reads comes from the database, whatever stands around it. */
  private exitOf<E2>(query: Effect.Effect<A, E2>): Effect.Effect<Exit.Exit<A, E>, E2> {
    const exit = Effect.map(query, (value): Exit.Exit<A, E> => Exit.succeed(value))
    return QueryCache.uncached(
      this.options.keptError === undefined
        ? exit
        : Effect.catch(
          exit,
          (error): Effect.Effect<Exit.Exit<A, E>, E2> =>
            this.isKeptError(error) ? Effect.succeed(Exit.fail(error as unknown as E)) : Effect.fail(error)
        )
    )
  }

  private admit(exit: Exit.Exit<A, E>, key: K): Admission {
    const { cacheWhen, keptError, timeToLive } = this.options
    if (Exit.isFailure(exit)) {
      return { stored: exit, bytes: 256, refusal: undefined, timeToLiveMillis: keptError!.timeToLiveMillis }
    }
    const { value } = exit
    const declined: Admission = { stored: exit, bytes: 0, refusal: "declined" }
    try {
      // Its value is shared from now on. One that refers to itself, or is nested without end, is not for a store.
      share(value)
      if (cacheWhen !== undefined && cacheWhen(value, key) !== true) return declined
      const timeToLiveMillis = timeToLive === undefined
        ? this.timeToLiveMillis
        : Duration.toMillis(Duration.fromInputUnsafe(timeToLive(value, key)))
      return timeToLiveMillis > 0 && timeToLiveMillis < Infinity
        ? { stored: exit, bytes: sizeOf(value), refusal: undefined, timeToLiveMillis }
        : declined
    } catch {
      return declined
    }
  }

  private encoded(key: K): Local {
    const local = this.keys.encode(key)
    // What was given is the program's data and stays out of the message.
    if (local === undefined) throw new TypeError(`${this.options.owner} "${this.name}": its Key schema refuses a key`)
    return local
  }
}

/** All values in the order of their keys, or the first failure there is. */
export const collect = <A, E>(
  count: number,
  getMany: (each: (place: number, exit: Exit.Exit<A, E>) => void) => Effect.Effect<void>
): Effect.Effect<ReadonlyArray<A>, E> =>
  Effect.suspend(() => {
    const values = new Array<A>(count)
    const failed = Deferred.makeUnsafe<never, E>()
    return Effect.raceFirst(
      Effect.flatMap(
        getMany((place, exit) => {
          if (Exit.isSuccess(exit)) values[place] = exit.value
          else Deferred.doneUnsafe(failed, exit as Exit.Exit<never, E>)
        }),
        // All may be there before the race has heard of a failure.
        () => Deferred.isDoneUnsafe(failed) ? Deferred.await(failed) : Effect.succeed(values)
      ),
      Deferred.await(failed)
    )
  })
