/**
 * The value of a materialized view in this process, and how it is renewed.
 *
 * One fiber renews it, one request at a time. Requests that come while it is busy
 * become one that follows; each says what satisfies it ({@link Need}). With a store
 * that is shared, a request is first put to the store:
 *
 *     lookup ─ a value that satisfies ─────────────▶ taken
 *       │    └ one that does not ─▶ lookup, too old ─┐
 *       ▼                                            ▼
 *     another process reads it ─▶ wait, lookup    ours to read
 *                                                    ▼
 *     query ─ fails, dies, takes too long ─▶ release; the old value stays
 *       ▼
 *     the value is here ─▶ store, judged by the lease
 *
 * A view may serve what was invalidated. What it may not do is to take an
 * invalidated value for a new one: what is stored obeys the rules of all entries.
 *
 * What a query depends on is known when it has run, and must be registered before
 * it runs: a write between the two would find nothing to stamp. So what came up in
 * the last run is registered for the next one. What comes up for the first time is
 * registered after the run, and if anything at all was invalidated meanwhile, the
 * query runs once more: once in the life of a view, as a rule, and by one process.
 *
 * The value and the failures are kept here and not in the store's first level: a
 * store may evict, and a view serves what it has for as long as it is there.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type * as CacheScope from "../CacheScope.ts"
import type * as CacheStore from "../CacheStore.ts"
import * as Dependency from "../Dependency.ts"
import * as QueryCache from "../QueryCache.ts"
import { Consulted, CurrentConsulted, type Parts, reaches } from "./consulted.ts"
import { type AnyFiber, type Engine, isUnserved, NamedKey, NamedSpace } from "./engine.ts"
import { viewPrefix } from "./reactivity.ts"
import { freeze, sizeOf } from "./rows.ts"
import { apart } from "./storeHealth.ts"
import type { ViewOutcome } from "./tally.ts"
import type { Snapshot } from "./viewCodec.ts"

export interface ViewOptions<A, E> {
  readonly engine: Engine
  readonly name: string
  /** Reads the value, in this process and wherever it is asked for the same. */
  readonly query: Effect.Effect<A, E>
  readonly codec: CacheStore.Codec
  readonly version: string
  /** Besides those that the query is found to have. */
  readonly dependencies: ReadonlyArray<Dependency.Dependency>
  /** Whether values may be shared with other processes. */
  readonly isShared: boolean
  /** `undefined`: by its own key only. */
  readonly debounceMillis: number | undefined
  /** From which age on a reader has it renewed. */
  readonly timeToLiveMillis: number
  readonly queryTimeoutMillis: number
  readonly maxEntryBytes: number
  /** How long it is until the first time that the schedule renews it. */
  readonly firstDelayMillis: number
}

/**
 * What satisfies a request, from the least to the most: whatever is valid and not too old; what is valid; a value other
 * than the one here; only one that is read from now on.
 */
export type Need = "first" | "valid" | "newer" | "read"

interface Current<A> {
  readonly exit: Exit.Exit<A>
  readonly id: string
  readonly parts: Parts
  readonly readAtMillis: number
  readonly costMillis: number
}

export interface Failure<E> {
  readonly cause: Cause.Cause<E | Cause.TimeoutError>
  readonly atMillis: number
}

interface Read<A> extends Snapshot {
  readonly value: A
  readonly costMillis: number
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

interface Request<A, E> {
  need: Need
  readonly done: Deferred.Deferred<A, E | Cause.TimeoutError>
}

// The store is asked in the background, and values may be large.
const storeTimeoutMillis = 10_000

// For how long a shared store keeps a value at least: processes that start find one.
const keepMillis = 24 * 60 * 60 * 1000

// How often another process is asked after that reads the value.
const firstPauseMillis = 5
const longestPauseMillis = 250

// For how long it is left alone after its reader's request has failed.
const restMillis = 1_000

const longestRestMillis = 60_000

const noParts: Parts = { stamps: [], tables: [], shapes: [], isUnknown: false }

export class View<A, E> {
  readonly name: string
  current: Current<A> | undefined
  failure: Failure<E> | undefined
  private readonly options: ViewOptions<A, E>
  private readonly key: NamedKey
  /** What an explicit invalidation of the view marks. */
  private readonly keyStamp: string
  /** What is heard in this process when it has a new value. */
  private readonly news: Dependency.DependencySet
  private readonly own: Dependency.DependencySet
  private readonly latch = Latch.makeUnsafe(false)
  private next: Request<A, E> | undefined
  private running: Request<A, E> | undefined
  private noted: Consulted | undefined
  private registeredLast: Dependency.DependencySet
  private isClosed = false
  /** What invalidations ask for that came since the value was last renewed. */
  private due: Need | undefined
  private readonly dueLatch = Latch.makeUnsafe(false)
  private failures = 0
  private restUntilMillis = 0
  private reported: string | undefined
  private ids = 0
  private readonly id = crypto.randomUUID()

  // What the fiber's context decides is remembered for the last context seen, as for statements.
  private context: Context.Context<never> | undefined
  private clock!: Clock.Clock
  private ambient: QueryCache.Ambient | undefined
  private collector: Array<QueryCache.QueryInfo> | undefined
  private consulted: Consulted | undefined

  constructor(options: ViewOptions<A, E>, scope: CacheScope.Resolved | undefined) {
    const { codec, engine, name, version } = options
    this.options = options
    this.name = name
    this.key = new NamedKey(new NamedSpace(engine, name, `view\n${version}`), "view", scope, codec)
    const key = Dependency.key(name, "view")
    this.keyStamp = Dependency.explicitTargets([key]).stamps[0]!
    const stamp = `${viewPrefix}${name}`
    this.news = { id: stamp, basis: stamp, stamps: [stamp], shapes: [], tables: [] }
    this.own = Dependency.makeSet([key, ...options.dependencies])
    this.registeredLast = this.own
    engine.changes.know(this.own.stamps)
  }

  // ---------------------------------------------------------------------------
  // what readers see
  // ---------------------------------------------------------------------------

  /** The value, or the wait for the first one. */
  get(fiber: AnyFiber): Effect.Effect<A, E | Cause.TimeoutError> {
    if (fiber.context !== this.context) this.look(fiber)
    if (this.ambient !== undefined) this.ambient.witness.consulted++
    this.consulted?.add(this.news)
    const { current } = this
    if (current === undefined) return this.first
    const { engine, timeToLiveMillis } = this.options
    if (this.collector !== undefined || timeToLiveMillis < Infinity) {
      const now = this.clock.currentTimeMillisUnsafe()
      const ageMillis = Math.max(0, now - current.readAtMillis)
      const isStale = ageMillis >= timeToLiveMillis
      if (isStale && this.running === undefined && this.next === undefined && now >= this.restUntilMillis) {
        this.ask("newer")
      }
      this.collector?.push({
        sql: undefined,
        name: this.name,
        status: isStale ? "stale" : "hit",
        level: "L1",
        age: Duration.millis(ageMillis),
        fingerprint: this.key.fingerprint,
        reason: isStale ? "expired" : undefined
      })
    }
    engine.tally.hitL1()
    return current.exit
  }

  /** A value that is read from now on. */
  readonly refresh: Effect.Effect<A, E | Cause.TimeoutError> = Effect.suspend(() =>
    Deferred.await(this.ask("read").done)
  )

  private readonly first: Effect.Effect<A, E | Cause.TimeoutError> = Effect.suspend(() =>
    Deferred.await((this.running ?? this.next ?? this.ask("first")).done)
  )

  private look(fiber: AnyFiber): void {
    this.context = fiber.context
    this.clock = fiber.getRef(Clock.Clock)
    this.ambient = fiber.getRef(QueryCache.Ambient)
    this.collector = fiber.getRef(QueryCache.Collector)
    this.consulted = fiber.getRef(CurrentConsulted)
  }

  // ---------------------------------------------------------------------------
  // requests
  // ---------------------------------------------------------------------------

  /** Has the value renewed. Several requests that wait are one, which satisfies them all. */
  ask(need: Need): Request<A, E> {
    const waiting = this.next
    if (waiting !== undefined) {
      waiting.need = stricter(waiting.need, need)
      return waiting
    }
    const request: Request<A, E> = this.next = { need, done: Deferred.makeUnsafe() }
    if (this.isClosed) Deferred.doneUnsafe(request.done, Exit.interrupt())
    // It may be served, and be the next one no longer, before this returns.
    else this.latch.openUnsafe()
    return request
  }

  /** Renews the value as it is asked to, and as invalidations and a schedule want it, until the scope closes. */
  readonly run: Effect.Effect<void, never, Scope.Scope> = Effect.gen({ self: this }, function*() {
    const { names } = this.options.engine
    // Registered first, hence run last.
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        names.delete(this.name)
        this.isClosed = true
        for (const request of [this.running, this.next]) {
          if (request !== undefined) Deferred.doneUnsafe(request.done, Exit.interrupt())
        }
      })
    )
    yield* Effect.forkScoped(this.attend, { startImmediately: true })
    yield* Effect.forkScoped(this.debounce)
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(this.latch.await, this.serve)))
    this.ask("first")
  })

  private get attend(): Effect.Effect<void, never, Scope.Scope> {
    const { debounceMillis, engine, isShared } = this.options
    return Effect.andThen(
      engine.changes.attend((targets) => {
        if (this.isTouchedBy(targets)) this.becomeDue(this.needAfter(targets))
      }),
      Effect.sync(() => {
        // What others invalidated before now was not heard. The store knows.
        if (isShared && debounceMillis !== undefined) this.becomeDue("valid")
      })
    )
  }

  /**
   * The first invalidation that the value does not reflect begins the wait. All that come in it are reflected together.
   * After failures it is the longer, the more of them there were.
   */
  private get debounce(): Effect.Effect<never> {
    return Effect.gen({ self: this }, function*() {
      yield* this.dueLatch.await
      this.dueLatch.closeUnsafe()
      const { debounceMillis = 0 } = this.options
      const pauseMillis = this.failures === 0 ? 0 : Math.min(restMillis * 2 ** this.failures, longestRestMillis)
      yield* Effect.sleep(Duration.millis(Math.max(debounceMillis, pauseMillis)))
      if (this.due !== undefined) this.ask(this.due)
    }).pipe(Effect.forever)
  }

  private becomeDue(need: Need): void {
    this.due = this.due === undefined ? need : stricter(this.due, need)
    this.dueLatch.openUnsafe()
  }

  /** What came up in a run that is under way counts already: its value may be older than the change. */
  private isTouchedBy(targets: Dependency.Targets): boolean {
    const { debounceMillis } = this.options
    if (targets.stamps.includes(this.keyStamp)) return true
    if (debounceMillis === undefined) return false
    const parts = this.current?.parts
    return touches(targets, this.own) ||
      (parts !== undefined && (parts.isUnknown || touches(targets, parts))) ||
      this.noted?.isTouchedBy(targets) === true
  }

  /** Whether a value is still valid is for the store to say, but for what it does not know. */
  private needAfter({ stamps }: Dependency.Targets): Need {
    const isUnknown = this.current?.parts.isUnknown === true || this.noted?.isUnknown === true
    return isUnknown || stamps.some((stamp) => stamp.startsWith(viewPrefix)) ? "newer" : "valid"
  }

  private readonly serve: Effect.Effect<void> = Effect.suspend(() => {
    const request = this.running = this.next!
    this.next = undefined
    this.latch.closeUnsafe()
    return Effect.onExit(
      Effect.flatMap(Effect.exit(this.renew(request)), (exit) => this.noteExit(exit)),
      (exit) =>
        Effect.sync(() => {
          // Interrupted: the finalizer tells those who wait.
          if (Exit.isFailure(exit)) return
          this.running = undefined
          Deferred.doneUnsafe(request.done, exit.value)
        })
    )
  }).pipe(Effect.asVoid)

  private noteExit(
    exit: Exit.Exit<A, E | Cause.TimeoutError>
  ): Effect.Effect<Exit.Exit<A, E | Cause.TimeoutError>> {
    return Effect.flatMap(Clock.currentTimeMillis, (now): Effect.Effect<Exit.Exit<A, E | Cause.TimeoutError>> => {
      const { reported } = this
      if (Exit.isSuccess(exit)) {
        this.failure = undefined
        this.failures = 0
        this.reported = undefined
        return reported === undefined
          ? Effect.succeed(exit)
          : Effect.as(Effect.logInfo(`MaterializedView "${this.name}": it is refreshed again`), exit)
      }
      this.failure = { cause: exit.cause, atMillis: now }
      this.failures++
      this.restUntilMillis = now + restMillis
      const kind = kindOf(exit.cause)
      this.count(kind === "TimeoutError" ? "timeout" : "failed")
      if (reported === kind) return Effect.succeed(exit)
      this.reported = kind
      const { current } = this
      const age = current === undefined
        ? "there is no value yet"
        : `its value of ${Math.round((now - current.readAtMillis) / 1000)} seconds ago is served`
      // What failed is the program's data and stays out of the message.
      return Effect.as(Effect.logWarning(`MaterializedView "${this.name}": its query fails (${kind}); ${age}`), exit)
    })
  }

  // ---------------------------------------------------------------------------
  // how a request is satisfied
  // ---------------------------------------------------------------------------

  private renew(request: Request<A, E>): Effect.Effect<A, E | Cause.TimeoutError> {
    return Effect.suspend(() => {
      // What was invalidated until now is reflected by what is looked up or read from now on.
      const { due } = this
      this.due = undefined
      return Effect.onExit(this.satisfy(request), (exit) =>
        Effect.sync(() => {
          if (due !== undefined && Exit.isFailure(exit)) this.becomeDue(due)
        }))
    })
  }

  private satisfy(request: Request<A, E>): Effect.Effect<A, E | Cause.TimeoutError> {
    const { engine, isShared, queryTimeoutMillis } = this.options
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function*() {
        if (!isShared || isUnserved(engine, this.registered())) return yield* this.read(undefined, restore)
        const begunMillis = yield* Clock.currentTimeMillis
        let pauseMillis = firstPauseMillis
        let claimFromMillis = 0
        for (;;) {
          const now = yield* Clock.currentTimeMillis
          if (now - begunMillis > queryTimeoutMillis) return yield* this.read(undefined, restore)
          let found = yield* this.lookup(undefined)
          if (found?._tag === "Hit") {
            const taken = yield* this.take(found, request.need, now)
            if (taken !== undefined) return taken.value
            if (now >= claimFromMillis) {
              found = yield* this.lookup(0)
              // Stored in the meantime.
              const newer = found?._tag === "Stale" ? yield* this.take(found, request.need, now) : undefined
              if (newer !== undefined) {
                if (found?._tag === "Stale" && !found.waiting) yield* this.release(found.lease)
                return newer.value
              }
              // Whoever reads it takes as long as the last time, and is not disturbed that long.
              claimFromMillis = now + Math.max(longestPauseMillis, 2 * (this.current?.costMillis ?? 0))
            }
          }
          if (found === undefined || found._tag === "Miss" || (found._tag === "Stale" && !found.waiting)) {
            return yield* this.read(found?.lease, restore)
          }
          yield* restore(Effect.sleep(Duration.millis(pauseMillis)))
          pauseMillis = Math.min(pauseMillis * 2, longestPauseMillis)
        }
      })
    )
  }

  /** Takes over what is in the store, if it is news. The value is answered if it satisfies the need. */
  private take(
    kept: CacheStore.Hit | CacheStore.Stale,
    need: Need,
    nowMillis: number
  ): Effect.Effect<{ readonly value: A } | undefined> {
    return Effect.suspend(() => {
      const { id, parts, value } = kept.value as Snapshot
      const { costMillis, storedAtMillis } = kept
      const { current } = this
      const readAtMillis = storedAtMillis - costMillis
      const isOwn = id === current?.id
      const isNewer = !isOwn && (current === undefined || readAtMillis > current.readAtMillis)
      const ageMillis = nowMillis - readAtMillis
      const { firstDelayMillis, timeToLiveMillis } = this.options
      const satisfies = need === "first"
        ? ageMillis < Math.min(firstDelayMillis, timeToLiveMillis)
        : need === "valid"
        ? isOwn || isNewer
        : need === "newer" && isNewer
      const answer = satisfies ? { value: value as A } : undefined
      if (!isNewer) return Effect.succeed(answer)
      this.count("taken")
      return Effect.as(
        this.become({ exit: Exit.succeed(value as A), id, parts, readAtMillis, costMillis }),
        answer
      )
    })
  }

  private read(
    lease: CacheStore.Lease | undefined,
    restore: Restore
  ): Effect.Effect<A, E | Cause.TimeoutError> {
    return Effect.gen({ self: this }, function*() {
      const before = this.registeredLast
      const first = yield* this.query(restore)
      if (Exit.isFailure(first)) {
        yield* this.release(lease)
        return yield* Effect.failCause(first.cause)
      }
      if (lease === undefined) return first.value.value
      const dependencies = this.registered()
      if (dependencies.stamps.every((stamp) => before.stamps.includes(stamp))) {
        yield* this.fill(first.value, dependencies, lease)
        return first.value.value
      }
      const later = (yield* this.lookup(0))?.lease
      if (later === undefined) {
        yield* this.release(lease)
        return first.value.value
      }
      const own = { ...later, flight: later.flight ?? lease.flight }
      // Nothing at all was invalidated between the two, so neither was what has come up.
      if (later.epoch === lease.epoch && later.clock === lease.clock) {
        yield* this.fill(first.value, dependencies, own)
        return first.value.value
      }
      const second = yield* this.query(restore)
      if (Exit.isFailure(second)) {
        yield* this.release(own)
        return first.value.value
      }
      yield* this.fill(second.value, dependencies, own)
      return second.value.value
    })
  }

  /** Runs the query, and takes in what it gives. */
  private query(restore: Restore): Effect.Effect<Exit.Exit<Read<A>, E | Cause.TimeoutError>> {
    const { query, queryTimeoutMillis } = this.options
    return Effect.gen({ self: this }, function*() {
      const clock = yield* Clock.Clock
      const readAtMillis = clock.currentTimeMillisUnsafe()
      const begun = clock.currentTimeNanosUnsafe()
      const noted = this.noted = new Consulted()
      const exit = yield* Effect.exit(restore(bounded(
        Effect.map(Effect.provideService(query, CurrentConsulted, noted), (value): A => freeze(value)),
        queryTimeoutMillis
      )))
      if (Exit.isFailure(exit)) return Exit.failCause(exit.cause)
      const costMillis = Number(clock.currentTimeNanosUnsafe() - begun) / 1e6
      const id = `${this.id}.${this.ids++}`
      const parts = noted.toParts()
      yield* this.become({ exit: Exit.succeed(exit.value), id, parts, readAtMillis, costMillis })
      this.count("read")
      return Exit.succeed({ id, parts, value: exit.value, costMillis })
    })
  }

  private fill(
    { costMillis, ...snapshot }: Read<A>,
    dependencies: Dependency.DependencySet,
    lease: CacheStore.Lease
  ): Effect.Effect<void> {
    const { engine: { health, store, tally }, maxEntryBytes, timeToLiveMillis } = this.options
    return Effect.suspend(() => {
      const bytes = sizeOf(snapshot.value)
      if (bytes > maxEntryBytes) {
        tally.filled("too-large", bytes)
        return this.release(lease)
      }
      const entry: CacheStore.Entry = {
        value: snapshot,
        dependencies,
        // A finite life for the store's sake: how old a value may be is judged here.
        timeToLiveMillis: timeToLiveMillis === Infinity ? keepMillis : Math.max(2 * timeToLiveMillis, keepMillis),
        costMillis,
        bytes
      }
      return Effect.map(
        Effect.exit(health.guard("store", () => store.store(this.key, entry, lease), storeTimeoutMillis)),
        (verdict) => tally.filled(Exit.isSuccess(verdict) ? verdict.value : "failed", bytes)
      )
    })
  }

  private become(current: Current<A>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.current = current
      this.noted = undefined
      return this.options.engine.changes.announce({ stamps: this.news.stamps, images: [], all: false }, undefined)
    })
  }

  /** What is registered for the next run. */
  private registered(): Dependency.DependencySet {
    const { debounceMillis } = this.options
    const parts = debounceMillis === undefined ? noParts : this.current?.parts ?? noParts
    if (parts.stamps.length === 0) return this.own
    const stamps = [...new Set([...this.own.stamps, ...parts.stamps])].sort()
    const id = stamps.map((stamp) => `${stamp.length}:${stamp}`).join("")
    return {
      id,
      basis: id,
      stamps,
      shapes: [...this.own.shapes, ...parts.shapes],
      tables: [...new Set([...this.own.tables, ...parts.tables])]
    }
  }

  private lookup(maxAgeMillis: number | undefined): Effect.Effect<CacheStore.Outcome | undefined> {
    const { health, store } = this.options.engine
    const registered = this.registeredLast = this.registered()
    return Effect.orElseSucceed(
      health.guard("lookup", () => store.lookup(this.key, registered, maxAgeMillis), storeTimeoutMillis),
      () => undefined
    )
  }

  private release(lease: CacheStore.Lease | undefined): Effect.Effect<void> {
    const { health, store } = this.options.engine
    return lease?.flight === undefined
      ? Effect.void
      : Effect.ignore(health.guard("release", () => store.release(this.key, lease), storeTimeoutMillis))
  }

  private count(outcome: ViewOutcome): void {
    this.options.engine.tally.viewed(outcome)
  }
}

const needs: ReadonlyArray<Need> = ["first", "valid", "newer", "read"]

const stricter = (a: Need, b: Need): Need => needs.indexOf(a) < needs.indexOf(b) ? b : a

const touches = (targets: Dependency.Targets, parts: Pick<Dependency.DependencySet, "stamps" | "shapes">): boolean =>
  reaches(targets, (stamp) => parts.stamps.includes(stamp), parts.shapes)

const bounded = <A, E>(query: Effect.Effect<A, E>, millis: number): Effect.Effect<A, E | Cause.TimeoutError> =>
  Effect.timeout(apart(query), Duration.millis(millis))

/** What stands for a failure in a log. */
const kindOf = (cause: Cause.Cause<unknown>): string => {
  const reason = cause.reasons[0]
  if (reason === undefined || Cause.isInterruptReason(reason)) return "interrupted"
  const what: any = Cause.isFailReason(reason) ? reason.error : (reason as Cause.Die).defect
  const name: unknown = what?._tag ?? what?.name
  return typeof name === "string" ? name : Cause.isFailReason(reason) ? "a failure" : "a defect"
}
