/**
 * A materialized view in this process: what readers see, and who asks for a new
 * value.
 *
 * One fiber renews the value, one request at a time: of readers, of the schedule, of
 * invalidations. Requests that come while it is busy become one that follows; each
 * says what satisfies it ({@link Need}). How that is come by is in viewSource.ts.
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
import * as QueryCache from "../QueryCache.ts"
import { type Consulted, CurrentConsulted } from "./consulted.ts"
import type { AnyFiber } from "./engine.ts"
import { type Need, type SourceOptions, ViewSource } from "./viewSource.ts"

export interface Failure<E> {
  readonly cause: Cause.Cause<E | Cause.TimeoutError>
  readonly atMillis: number
}

interface Request<A, E> {
  need: Need
  readonly done: Deferred.Deferred<A, E | Cause.TimeoutError>
}

// For how long it is left alone after its reader's request has failed.
const restMillis = 1_000

const longestRestMillis = 60_000

export class View<A, E> {
  readonly name: string
  failure: Failure<E> | undefined
  readonly source: ViewSource<A, E>
  private readonly options: SourceOptions<A, E>
  private readonly latch = Latch.makeUnsafe(false)
  private next: Request<A, E> | undefined
  private running: Request<A, E> | undefined
  private isClosed = false
  /** What invalidations ask for that came since the value was last renewed. */
  private due: Need | undefined
  private readonly dueLatch = Latch.makeUnsafe(false)
  private failures = 0
  private restUntilMillis = 0
  private reported: string | undefined

  // What the fiber's context decides is remembered for the last context seen, as for statements.
  private context: Context.Context<never> | undefined
  private clock!: Clock.Clock
  private ambient: QueryCache.Ambient | undefined
  private collector: Array<QueryCache.QueryInfo> | undefined
  private consulted: Consulted | undefined

  constructor(options: SourceOptions<A, E>, scope: CacheScope.Resolved | undefined) {
    this.options = options
    this.name = options.name
    this.source = new ViewSource(options, scope)
  }

  // ---------------------------------------------------------------------------
  // what readers see
  // ---------------------------------------------------------------------------

  /** The value, or the wait for the first one. */
  get(fiber: AnyFiber): Effect.Effect<A, E | Cause.TimeoutError> {
    if (fiber.context !== this.context) this.look(fiber)
    if (this.ambient !== undefined) this.ambient.witness.consulted++
    this.consulted?.add(this.source.news)
    const { current } = this.source
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
        fingerprint: this.source.key.fingerprint,
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
        const need = this.source.needAfter(targets)
        if (need !== undefined) this.becomeDue(need)
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
      this.options.engine.tally.viewed(kind === "TimeoutError" ? "timeout" : "failed")
      if (reported === kind) return Effect.succeed(exit)
      this.reported = kind
      const { current } = this.source
      const age = current === undefined
        ? "there is no value yet"
        : `its value of ${Math.round((now - current.readAtMillis) / 1000)} seconds ago is served`
      // What failed is the program's data and stays out of the message.
      return Effect.as(Effect.logWarning(`MaterializedView "${this.name}": its query fails (${kind}); ${age}`), exit)
    })
  }

  private renew(request: Request<A, E>): Effect.Effect<A, E | Cause.TimeoutError> {
    return Effect.suspend(() => {
      // What was invalidated until now is reflected by what is looked up or read from now on.
      const { due } = this
      this.due = undefined
      return Effect.onExit(this.source.satisfy(request.need), (exit) =>
        Effect.sync(() => {
          if (due !== undefined && Exit.isFailure(exit)) this.becomeDue(due)
        }))
    })
  }
}

const needs: ReadonlyArray<Need> = ["first", "valid", "newer", "read"]

const stricter = (a: Need, b: Need): Need => needs.indexOf(a) < needs.indexOf(b) ? b : a

/** What stands for a failure in a log. */
const kindOf = (cause: Cause.Cause<unknown>): string => {
  const reason = cause.reasons[0]
  if (reason === undefined || Cause.isInterruptReason(reason)) return "interrupted"
  const what: any = Cause.isFailReason(reason) ? reason.error : (reason as Cause.Die).defect
  const name: unknown = what?._tag ?? what?.name
  return typeof name === "string" ? name : Cause.isFailReason(reason) ? "a failure" : "a defect"
}
