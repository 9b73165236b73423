/**
 * Strict mode, as far as it concerns the database: fences before commits, what became
 * of writes whose fences have expired, and the barrier of a new epoch.
 *
 * Order of events in a transaction that has written:
 *
 * 1. The database is asked for its transaction's id. None: nothing was written.
 * 2. The fence is put up, for all that was touched. If that fails, ROLLBACK.
 * 3. COMMIT.
 * 4. The invalidation, which lifts the fence; then the write returns.
 *
 * So between 3 and 4, be it for good, no process serves or stores what was touched.
 * Deferred constraints and triggers run at 3: what they write is among what the catalog
 * says that the statement writes, and behind the fence with the rest.
 *
 * Whoever meets a fence whose time has passed asks the database about its transaction:
 * once per fence and while, in the background, and nobody's query waits for it. An answer
 * "committed" is given only once everybody sees the rows.
 *
 * Nothing that a process tells the store can be wrong later, however late it comes: a
 * transaction that has ended has ended, one that began after an epoch has done so.
 */
import type { PgClient } from "@effect/sql-pg"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import { ConnectionError, isSqlError, SqlError, UnknownError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import { type CacheError, StrictWriteError } from "../CacheError.ts"
import type { Bypass, CacheStore, Closed, ExpiredFence } from "../CacheStore.ts"
import type * as Dependency from "../Dependency.ts"
import { makeNonces } from "./nonces.ts"
import type { StoreHealth } from "./storeHealth.ts"
import type { Tally } from "./tally.ts"

/** What stands for a transaction that is about to commit. */
export interface Fence {
  readonly token: string
  /** The id of its transaction, by which the database tells what became of it. */
  readonly transaction: string
}

export interface Strict {
  /**
   * Puts up a fence before the commit of the transaction that the fiber is in. `undefined`: it has written nothing.
   * `standing` is told before it may stand.
   */
  readonly fence: (
    targets: Dependency.Targets,
    standing: (fence: Fence) => void
  ) => Effect.Effect<void, SqlError>
  /** Takes down the fence of a transaction that was rolled back. Nobody waits for it. */
  readonly drop: (fence: Fence) => Effect.Effect<void>
  /** Takes note of what a lookup met. */
  readonly met: (bypass: Bypass) => void
}

/** How often the barrier is looked at. */
const firstPauseMillis = 10
const longestPauseMillis = 1000

/** From then on a barrier is spoken of. */
const longMillis = 5000

export const make = Effect.fnUntraced(function*(options: {
  readonly client: PgClient.PgClient
  readonly namespace: string
  readonly store: CacheStore["Service"]
  readonly health: StoreHealth
  readonly tally: Tally
  readonly timeoutMillis: number
}): Effect.fn.Return<Strict | undefined, never, Scope.Scope> {
  const { client, health, namespace, store: { strict }, tally, timeoutMillis } = options
  if (strict === undefined) return undefined
  const tokens = makeNonces()
  const background = yield* Effect.scope
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const fork = (effect: Effect.Effect<void>) => {
    run(Effect.forkIn(effect, background))
  }

  /** One value from the database; the program's own rewriting of statements is not meant for it. */
  const ask = (sql: string, params: ReadonlyArray<unknown> = []): Effect.Effect<unknown, SqlError> =>
    Effect.provideService(
      Effect.map(client.unsafe(sql, params).values, ([[value]]) => value),
      Statement.CurrentTransformer,
      undefined
    )

  const resolve = (token: string, verdict: "committed" | "aborted" | "running") =>
    health.guard("resolve", () => strict.resolve(namespace, token, verdict), timeoutMillis)

  // ---------------------------------------------------------------------------
  // fences
  // ---------------------------------------------------------------------------

  const asking = new Set<string>()

  const askAfter = ({ token, transaction }: ExpiredFence): Effect.Effect<void> =>
    Effect.gen(function*() {
      const status = yield* Effect.catchIf(
        ask("SELECT pg_catalog.pg_xact_status($1::text::xid8)", [transaction]),
        isUnheardOf,
        () => Effect.succeed(null)
      )
      const verdict = status === "aborted" ? "aborted" : status === "in progress" ? "running" : "committed"
      tally.resolved(verdict)
      yield* resolve(token, verdict)
    }).pipe(
      // Nobody knows yet: the next one who meets it asks again.
      Effect.ignore,
      Effect.ensuring(Effect.sync(() => asking.delete(token)))
    )

  const expired = (fences: ReadonlyArray<ExpiredFence>): void => {
    for (const fence of fences) {
      if (asking.has(fence.token)) continue
      asking.add(fence.token)
      fork(askAfter(fence))
    }
  }

  // ---------------------------------------------------------------------------
  // the barrier
  // ---------------------------------------------------------------------------

  /** The epochs whose barriers are passed, or rest after a failure. Each shard of a store has its own. */
  const passing = new Set<string>()

  const pass = ({ epoch, transaction: known }: Closed): Effect.Effect<void> =>
    Effect.gen(function*() {
      const begunMillis = yield* Clock.currentTimeMillis
      const tell = (transaction: string, isPassed: boolean) =>
        health.guard("resolve", () => strict.barrier(namespace, { epoch, transaction, isPassed }), timeoutMillis)
      // Committed by itself, hence ended by the time it is told. The snapshot's xmax would be too low: transactions that
      // began before may get their ids later than that, and after they have read.
      let transaction = known ?? String(yield* ask("SELECT pg_catalog.pg_current_xact_id()::text"))
      let pauseMillis = firstPauseMillis
      let isTold = false
      for (;;) {
        const isPassed = (yield* ask(
          "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) >= $1::text::xid8",
          [transaction]
        )) === true
        const state = yield* tell(transaction, isPassed)
        if (state.isOpen || state.epoch !== epoch || state.transaction === undefined) break
        if (state.transaction === transaction && isPassed) break
        // Another process was first.
        transaction = state.transaction
        if (!isTold && (yield* Clock.currentTimeMillis) - begunMillis >= longMillis) {
          isTold = true
          yield* Effect.logWarning(
            "Redis has lost what it knew of writes, and nothing is served from the cache until every transaction has " +
              `ended that began before transaction ${transaction}: see pg_stat_activity and pg_prepared_xacts`
          )
        }
        yield* Effect.sleep(Duration.millis(pauseMillis))
        pauseMillis = Math.min(2 * pauseMillis, longestPauseMillis)
      }
      if (isTold) yield* Effect.logInfo("Answers are served from the cache again")
    }).pipe(
      Effect.exit,
      // Where the database cannot be asked, the next lookup is not to ask it again at once.
      Effect.flatMap((exit) => Exit.isSuccess(exit) ? Effect.void : Effect.sleep(Duration.millis(longestPauseMillis))),
      Effect.ensuring(Effect.sync(() => {
        passing.delete(epoch)
        tally.waitsForBarrier(passing.size > 0)
      }))
    )

  return {
    fence: (targets, standing) =>
      Effect.gen(function*() {
        const transaction = yield* ask("SELECT pg_catalog.pg_current_xact_id_if_assigned()::text")
        if (transaction === null) return
        const fence: Fence = { token: tokens(), transaction: String(transaction) }
        standing(fence)
        const request = { namespace, ...targets, ...fence }
        expired(yield* Effect.mapError(health.guard("fence", () => strict.fence(request), timeoutMillis), failed))
      }),
    drop: ({ token }) => Effect.asVoid(Effect.forkIn(Effect.ignore(resolve(token, "aborted")), background)),
    met: (bypass) => {
      if (bypass.reason === "fenced") return expired(bypass.expired)
      if (passing.has(bypass.epoch)) return
      passing.add(bypass.epoch)
      tally.waitsForBarrier(true)
      fork(pass(bypass))
    }
  }
})

// The id is in the future, or is none: of a database that was restored since.
const isUnheardOf = (error: unknown): boolean =>
  isSqlError(error) && (error.reason.cause as { readonly code?: unknown } | undefined)?.code === "22023"

const failed = (cause: CacheError): SqlError =>
  new SqlError({
    reason: new ConnectionError({
      message:
        `The transaction was rolled back: the cache, which is kept strict, could not be told of it (${cause.message})`,
      operation: "fence",
      cause: new StrictWriteError({ code: "fence-failed", message: cause.message, cause })
    })
  })

const refusals = {
  reserved: "a write on a reserved connection: use withTransaction, or the client itself",
  byHand: "a transaction that is begun or ended by a statement: use withTransaction",
  undecorated: "a write inside a transaction of the client without the cache: begin it with the cached client",
  ended: "a write in a transaction that is being committed: wait for it before the transaction's effect ends",
  alone: "a statement that may commit by itself, such as CALL, DO, or several in one text: put it in withTransaction",
  outside:
    "a statement that cannot run in a transaction: run it by a client without the cache, then Invalidator.invalidate({ all: true })"
}

/** Why a write is not done where the store is kept strict, and what to do instead. */
export const refuse = (what: keyof typeof refusals): SqlError => {
  const message = `The cache is kept strict, which refuses ${refusals[what]}`
  return new SqlError({
    reason: new UnknownError({
      message,
      operation: "execute",
      cause: new StrictWriteError({ code: "not-fenceable", message })
    })
  })
}

/** PostgreSQL has refused to run a statement in a transaction. */
export const isOutsideOnly = (error: unknown): boolean =>
  isSqlError(error) && (error.reason.cause as { readonly code?: unknown } | undefined)?.code === "25001"
