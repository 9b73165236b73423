/**
 * Writes and the transactions they belong to: what was touched is invalidated
 * after the outermost commit, never before, and not at all after a rollback.
 *
 * `SqlClient.afterCommit` alone does not give this: it discards its callbacks
 * where COMMIT fails, and COMMIT also fails when the connection is lost after
 * the server has committed. So the effect given to `withTransaction` is wrapped:
 *
 * | how it ended | what happens |
 * | --- | --- |
 * | COMMIT succeeded | delivered, as the first of the commit's callbacks |
 * | the effect failed or was interrupted: ROLLBACK | nothing |
 * | COMMIT was refused by the server | nothing |
 * | anything else about COMMIT | unknown: quarantined |
 * | a savepoint rolled back | its share is dropped |
 * | not by a success, after a COMMIT or ROLLBACK that the program sent itself | unknown: quarantined |
 *
 * Where the store is kept strict, COMMIT comes after a fence, and where that cannot be
 * put up the effect fails: ROLLBACK (strict.ts). A write outside a transaction gets one.
 *
 * A write is collected before it runs: one that is interrupted in a transaction
 * may have taken effect, and the transaction may still commit.
 */
import type { PgClient } from "@effect/sql-pg"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { Connection } from "effect/sql/SqlConnection"
import type { SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import * as CacheScope from "../CacheScope.ts"
import * as Dependency from "../Dependency.ts"
import type { Changes } from "../QueryAnalyzer.ts"
import { changesNames } from "./analysis/settings.ts"
import * as AnyTransaction from "./anyTransaction.ts"
import type { Delivery } from "./delivery.ts"
import type { Doubt } from "./doubt/doubt.ts"
import { Wire } from "./doubt/wire.ts"
import type { Effects, SessionControl, Writing } from "./effects.ts"
import type { Naming } from "./naming.ts"
import * as Outcome from "./outcome.ts"
import { CurrentSession } from "./session.ts"
import type { Sessions } from "./sessions.ts"
import { isOutsideOnly, refuse, type Strict } from "./strict.ts"
import { Touched } from "./touched.ts"

/** The scope as it is applied: empty where nothing is. */
export const appliedScope = (scope: CacheScope.Resolved | undefined): string =>
  scope === undefined || scope.settings.length === 0 ? "" : scope.key

let nextId = 0

/** Carries what a transaction has touched. One per client: a transaction of one says nothing about writes of another. */
export const makeCurrent = (): Context.Reference<Touched | undefined> =>
  Context.Reference<Touched | undefined>(`effect-query-cache/Transactions/${nextId++}`, {
    defaultValue: () => undefined
  })

export class Transactions {
  private readonly client: PgClient.PgClient
  private readonly delivery: Delivery
  private readonly sessions: Pick<Sessions, "wrote">
  /** What was touched in transactions that the base client has begun, by their connections. */
  private readonly foreign = new WeakMap<Connection, Array<() => Dependency.Targets>>()
  private readonly current: Context.Reference<Touched | undefined>
  /** Open while a transaction that was begun by hand, by a statement on the pool, may be under way. */
  private byHand: Touched | undefined
  private warned = false
  private readonly strict: { readonly fences: Strict; readonly generation: () => number } | undefined

  constructor(
    client: PgClient.PgClient,
    current: Context.Reference<Touched | undefined>,
    delivery: Delivery,
    sessions: Pick<Sessions, "wrote">,
    strict?: {
      readonly fences: Strict
      /** Grows when what is known of the schema has changed. */
      readonly generation: () => number
    }
  ) {
    this.client = client
    this.current = current
    this.delivery = delivery
    this.sessions = sessions
    this.strict = strict
  }

  /** Whether a transaction that was begun by hand may be under way on any connection. */
  get isByHand(): boolean {
    return this.byHand !== undefined
  }

  /** Why the statement is not run where the store is kept strict, if so. */
  refusal(fiber: Fiber.Fiber<unknown, unknown>, effects: Effects): SqlError | undefined {
    if (this.strict === undefined || effects._tag === "Nothing") return undefined
    const isInBase = this.isInBase(fiber)
    if (effects._tag === "Session") return controls.has(effects.control) ? refuse("byHand") : undefined
    if (effects.isControl) return refuse("byHand")
    if (!isInBase) return effects.atomic ? undefined : refuse("alone")
    const root = fiber.getRef(this.current)?.root
    return root === undefined || root.isForeign ? refuse("undecorated") : root.isFenced ? refuse("ended") : undefined
  }

  /** As `refusal`, on a connection that the program has reserved. */
  refusalReserved(effects: Effects): SqlError | undefined {
    return this.strict !== undefined && effects._tag === "Writes" ? refuse("reserved") : undefined
  }

  /** Whether a statement outside a transaction must be put in one. */
  isWrapped(effects: Effects): boolean {
    return this.strict !== undefined && effects._tag === "Writes"
  }

  /** Runs a write outside a transaction in one. */
  wrap<A, R>(write: Effect.Effect<A, SqlError, R>): Effect.Effect<A, SqlError, R> {
    return Effect.mapError(this.withTransaction(write), (error) => isOutsideOnly(error) ? refuse("outside") : error)
  }

  /** Invalidates, after the commit of the transaction that the fiber is in, or now. */
  readonly invalidate = (targets: Dependency.Targets): Effect.Effect<void> =>
    Effect.withFiber((fiber) =>
      this.collect(fiber, targets) ?? this.afterCommit(Effect.uninterruptible(this.delivery.deliver(targets)))
    )

  /**
   * Runs an effect after the outermost commit of the transaction that the fiber is in, whichever client began it, or
   * now. What the transaction has touched is invalidated by then.
   */
  readonly afterCommit = (effect: Effect.Effect<void>): Effect.Effect<void> =>
    Effect.withFiber((fiber) => {
      const transaction = AnyTransaction.transactionOf(fiber.context)
      return transaction === undefined ? effect : AnyTransaction.afterCommit(transaction, effect)
    })

  /** Runs a write and sees to what it touched. */
  write<A, E, R>(
    fiber: Fiber.Fiber<unknown, unknown>,
    run: Effect.Effect<A, E, R>,
    writing: Writing,
    wire: Wire
  ): Effect.Effect<A, E, R> {
    const { answered, targets } = writing
    const begin = this.beginning(fiber)
    if (begin === undefined) {
      this.byHand?.add(targets)
      const sinceMillis = nowOf(fiber)
      return Effect.onExit(run, (exit) => this.settle(exit, writing, wire, { _tag: "Statement", sinceMillis }))
    }
    return Effect.flatMap(
      begin(targets),
      (know) => answered === undefined ? run : Effect.tap(run, (answer) => Effect.sync(() => know(answered(answer))))
    )
  }

  /** As `write`, for rows that come as a stream. */
  writeStream<A, R>(
    stream: Stream.Stream<A, SqlError, R>,
    writing: Writing,
    wire: Wire
  ): Stream.Stream<A, SqlError, R> {
    const { targets } = writing
    const known: Writing = { ...writing, answered: undefined }
    return Stream.unwrap(Effect.withFiber((fiber) => {
      const collected = this.collect(fiber, targets)
      if (collected !== undefined) return Effect.as(collected, stream)
      // Its rows come once they are committed: who takes but a few has written all the same.
      if (this.strict !== undefined) {
        const rows = this.wrap(
          Effect.withFiber((fiber) => Effect.andThen(this.collect(fiber, targets)!, Stream.runCollect(stream)))
        )
        return Effect.map(rows, (rows) => Stream.fromIterable(rows))
      }
      this.byHand?.add(targets)
      const sinceMillis = nowOf(fiber)
      return Effect.succeed(
        Stream.onExit(stream, (exit) => this.settle(exit, known, wire, { _tag: "Statement", sinceMillis }))
      )
    }))
  }

  /** After a write outside a transaction, or the COMMIT of one. */
  settle(
    exit: Exit.Exit<unknown, unknown>,
    { answered, atomic, targets }: Writing,
    wire: Wire,
    doubt: Doubt
  ): Effect.Effect<void> {
    if (Exit.isSuccess(exit)) return this.delivery.deliver(answered === undefined ? targets : answered(exit.value))
    if (wire.isUnused || (atomic && Outcome.refused(exit.cause))) return Effect.void
    return Outcome.refused(exit.cause) ? this.delivery.deliver(targets) : this.doubt(targets, wire, doubt)
  }

  /** What was written, and whose outcome is unknown, as far as the connection does not tell that it has ended. */
  private doubt(targets: Dependency.Targets, wire: Wire, doubt: Doubt): Effect.Effect<void> {
    if (wire.isOpen) return this.delivery.deliver(targets)
    return this.delivery.quarantine(
      targets,
      wire.isShared && doubt._tag === "Statement" ? { ...doubt, isPipelined: true } : { ...doubt, pid: wire.pid }
    )
  }

  /**
   * Notes BEGIN, COMMIT and the like that a program sends as statements of the
   * pool. Which connection they reach is not known, so until the transaction ends
   * nothing is served or filled.
   */
  control<A, E, R>(run: Effect.Effect<A, E, R>, session: SessionControl, wire: Wire): Effect.Effect<A, E, R> {
    switch (session.control) {
      case "begin":
        return Effect.suspend(() => {
          if (this.byHand !== undefined) return run
          const begun = this.byHand = new Touched("")
          // Refused, or its connection lost: no transaction is open. Interrupted, one may be.
          const noted = Effect.tapError(run, () =>
            Effect.sync(() => {
              if (this.byHand === begun) this.byHand = undefined
            }))
          if (this.warned) return noted
          this.warned = true
          return Effect.andThen(warning, noted)
        })
      case "commit":
      case "rollback":
        return Effect.onExit(run, (exit) => {
          const touched = this.byHand
          const end = Effect.sync(() => {
            this.byHand = session.chain ? new Touched("") : undefined
          })
          // Until it is delivered nothing is served: a read may have been sent into the transaction as it began.
          return touched === undefined || touched.isEmpty
            ? end
            : Effect.andThen(
              this.settle(exit, { targets: touched.take(), atomic: false }, wire, { _tag: "Commit" }),
              end
            )
        })
      default:
        return run
    }
  }

  /** Notes a COMMIT or ROLLBACK that a program sends inside `withTransaction`: what it writes from then on stays. */
  controlInside<A, E, R>(
    fiber: Fiber.Fiber<unknown, unknown>,
    run: Effect.Effect<A, E, R>,
    session: SessionControl
  ): Effect.Effect<A, E, R> {
    const touched = fiber.getRef(this.current)
    if (touched === undefined || (session.control !== "commit" && session.control !== "rollback")) return run
    return Effect.suspend(() => {
      touched.root.isEnded = true
      return run
    })
  }

  /** Notes what a statement leaves behind in the session that it runs in. */
  leave(fiber: Fiber.Fiber<unknown, unknown>, changes: Changes, naming: Pick<Naming, "leave">): Effect.Effect<void> {
    const touched = fiber.getRef(this.current)
    const settings = changes.settings.filter(({ isLocal }) => !isLocal)
    return Effect.suspend(() => {
      if (touched !== undefined) touched.root.isAnywhere ||= changes.settings.some(changesNames)
      // In a transaction that this client did not begin, what is local lasts nobody knows how long.
      const isLocalKnown = touched !== undefined || !this.isByHand && !this.isInBase(fiber)
      return naming.leave(isLocalKnown ? { ...changes, settings } : changes)
    })
  }

  /** Whether names may mean anything in the transaction that the fiber is in. */
  isAnywhere(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    return fiber.getRef(this.current)?.root.isAnywhere === true
  }

  /** Dies where a statement would run in another scope than the transaction it is part of. */
  checkScope(
    fiber: Fiber.Fiber<unknown, unknown>,
    scope: CacheScope.Resolved | undefined
  ): Effect.Effect<never> | undefined {
    const touched = fiber.getRef(this.current)
    return (touched?.scope ?? "") === appliedScope(scope) ? undefined : Effect.die(
      new Error("CacheScope.provide: a transaction is open already; provide the scope around withTransaction")
    )
  }

  readonly withTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R> =>
    Effect.withFiber((fiber) => {
      const scope = fiber.getRef(CacheScope.CurrentScope)
      if (Context.getOrUndefined(fiber.context, this.client.transactionService) !== undefined) {
        return this.checkScope(fiber, scope) ?? this.nested(effect, appliedScope(scope), fiber.getRef(this.current))
      }
      return this.outermost(effect, new Touched(appliedScope(scope), undefined, fiber.getRef(CurrentSession)), scope)
    })

  private nested<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    scope: string,
    outer: Touched | undefined
  ): Effect.Effect<A, E | SqlError, R> {
    const touched = new Touched(scope, outer)
    const collected = Effect.provideService(effect, this.current, touched)
    if (outer === undefined) {
      touched.isForeign = true
      // In a transaction of the base client: first in line, as below, and dropped with the savepoint.
      return this.client.withTransaction(
        Effect.withFiber((fiber) => {
          this.unlessLost(fiber, () => touched.peek())
          return Effect.andThen(this.client.afterCommit(this.deliver(touched)), collected)
        })
      )
    }
    return Effect.onExit(
      this.client.withTransaction(collected),
      (exit) =>
        (Exit.isSuccess(exit) || touched.root.isEnded) && !touched.isEmpty
          ? Effect.sync(() => outer.add(touched.take()))
          : Effect.void
    )
  }

  /**
   * A transaction that the base client has begun tells of its commit, and of nothing else. So what it has touched is in
   * doubt when its connection is lost.
   */
  private unlessLost(fiber: Fiber.Fiber<unknown, unknown>, targets: () => Dependency.Targets): void {
    const connection = this.connectionOf(fiber)
    if (connection === undefined) return
    const known = this.foreign.get(connection)
    if (known !== undefined) return void known.push(targets)
    const all = [targets]
    this.foreign.set(connection, all)
    const wire = Wire.of(connection)
    wire.onLost(() => {
      const touched = new Touched("")
      for (const targets of all) touched.add(targets())
      if (touched.isEmpty) return
      const quarantine = this.delivery.quarantine(touched.take(), { _tag: "Commit", pid: wire.pid })
      Effect.runForkWith(AnyTransaction.outside(fiber.context))(Effect.uninterruptible(quarantine))
    })
  }

  private deliver(touched: Touched): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (touched.isEmpty) return Effect.void
      const { fence } = touched
      touched.fence = undefined
      const targets = touched.take()
      const lifting = fence === undefined ? targets : { ...targets, fences: [fence.token] }
      return this.delivery.deliver(lifting)
    })
  }

  /** Puts up the fence of a transaction once its effect has succeeded. */
  private fenced<A, E, R>(effect: Effect.Effect<A, E, R>, touched: Touched): Effect.Effect<A, E | SqlError, R> {
    const { strict } = this
    if (strict === undefined) return effect
    const generation = strict.generation()
    return Effect.tap(effect, () => {
      if (touched.isEmpty) return Effect.void
      touched.isFenced = true
      // Another trigger may have been fired than was known of when the write began.
      const targets = strict.generation() === generation ? touched.peek() : Dependency.allTargets
      return strict.fences.fence(targets, (fence) => {
        touched.fence = fence
      })
    })
  }

  private outermost<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    touched: Touched,
    scope: CacheScope.Resolved | undefined
  ): Effect.Effect<A, E | SqlError, R> {
    let ended = false
    let wire = Wire.of(undefined)
    const deliver = this.deliver(touched)
    return this.client.withTransaction(
      // First in line: what the program itself registers to run after the commit may read through the cache.
      Effect.withFiber((fiber) => {
        wire = Wire.of(this.connectionOf(fiber))
        return this.client.afterCommit(deliver)
      }).pipe(
        Effect.andThen(this.apply(scope?.settings ?? [])),
        Effect.andThen(this.fenced(Effect.provideService(effect, this.current, touched), touched)),
        Effect.tap(() =>
          Effect.sync(() => {
            ended = true
          })
        )
      )
    ).pipe(
      Effect.onExit((exit) => {
        if (touched.isEmpty) return Effect.void
        if (Exit.isSuccess(exit)) return deliver
        // What the program writes after its own COMMIT commits by itself. The fence stays: whoever meets it asks the
        // database.
        if (touched.isEnded) return this.doubt(touched.take(), wire, { _tag: "Anything" })
        const { fence } = touched
        if (ended && !Outcome.refused(exit.cause)) {
          const xid = fence === undefined ? undefined : BigInt(fence.transaction)
          return this.doubt(touched.take(), wire, { _tag: "Commit", xid })
        }
        return fence === undefined ? Effect.void : this.strict!.fences.drop(fence)
      })
    )
  }

  /** Sets role and settings for the rest of the transaction that the fiber is in. */
  private apply(settings: CacheScope.Resolved["settings"]): Effect.Effect<void, SqlError> {
    if (settings.length === 0) return Effect.void
    const calls = settings.map((_, i) => `set_config($${i * 2 + 1}, $${i * 2 + 2}, true)`)
    return this.client.unsafe(`SELECT ${calls.join(", ")}`, settings.flat()).pipe(
      // The program's own rewriting of statements is not meant for this one.
      Effect.provideService(Statement.CurrentTransformer, undefined),
      Effect.asVoid
    )
  }

  private isInBase(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    return this.connectionOf(fiber) !== undefined
  }

  /** The connection of the transaction that the fiber is in. */
  private connectionOf(fiber: Fiber.Fiber<unknown, unknown>): Connection | undefined {
    return Context.getOrUndefined(fiber.context, this.client.transactionService)?.[0]
  }

  private collect(fiber: Fiber.Fiber<unknown, unknown>, targets: Dependency.Targets): Effect.Effect<void> | undefined {
    const begin = this.beginning(fiber)
    return begin === undefined ? undefined : Effect.map(begin(targets), (know) => know(targets))
  }

  /** Collects what a write touches as it begins, in a transaction, and gives what takes note of what it has touched. */
  private beginning(
    fiber: Fiber.Fiber<unknown, unknown>
  ): ((targets: Dependency.Targets) => Effect.Effect<(known: Dependency.Targets) => void>) | undefined {
    if (!this.isInBase(fiber)) return undefined
    const touched = fiber.getRef(this.current)
    if (touched !== undefined) {
      return (targets) =>
        Effect.sync(() => {
          // A session that began inside may be over when it commits: it hears of no clock.
          if (fiber.getRef(CurrentSession) !== touched.session) this.sessions.wrote(fiber, undefined)
          return touched.begin(targets)
        })
    }
    // A transaction of the base client, begun around the decorated one.
    return (targets) =>
      Effect.suspend(() => {
        let last = targets
        this.unlessLost(fiber, () => last)
        return Effect.as(
          this.client.afterCommit(Effect.suspend(() => this.delivery.deliver(last))),
          (known: Dependency.Targets) => {
            last = known
          }
        )
      })
  }
}

const nowOf = (fiber: Fiber.Fiber<unknown, unknown>): number => fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()

const warning = Effect.logWarning(
  "A transaction was begun by a statement on the pool: until one ends it, nothing is served from the cache. " +
    "Use withTransaction, or a connection from reserve"
)

/** What begins or ends a transaction. */
const controls = new Set(["begin", "commit", "rollback"])
