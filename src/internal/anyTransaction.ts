/**
 * The transaction that a fiber is in, whichever SQL client began it.
 *
 * Effect keeps the innermost one under a reference of its own
 * (effect/src/internal/sql.ts). This is the one module that knows its name; a
 * test pins it.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as SqlClient from "effect/sql/SqlClient"
import * as Statement from "effect/sql/Statement"

type TransactionService = Context.Service<SqlClient.TransactionConnection, SqlClient.TransactionConnection.Service>

const CurrentTransactionService = Context.Reference<Context.Key<any, object> | undefined>(
  "effect/sql/CurrentTransactionService",
  { defaultValue: () => undefined }
)

/** The service of the transaction that a context is in, if it is in one. */
export const transactionOf = (context: Context.Context<never>): TransactionService | undefined => {
  const current = Context.get(context, CurrentTransactionService)
  return current !== undefined && current !== Batch && Context.getOrUndefined(context, current) !== undefined
    ? current as TransactionService
    : undefined
}

/** Runs an effect after the outermost commit of a transaction, and not at all after a rollback. */
export const afterCommit = (
  transaction: TransactionService,
  effect: Effect.Effect<void>
): Effect.Effect<void> => {
  let run = runners.get(transaction)
  if (run === undefined) runners.set(transaction, run = runnerOf(transaction))
  return run(effect)
}

const runners = new WeakMap<object, (effect: Effect.Effect<void>) => Effect.Effect<void>>()

// What is known of the transaction is its service, and a client made for that service shares its callbacks.
const runnerOf = (transactionService: TransactionService) =>
  Effect.runSync(
    SqlClient.make({
      acquirer: Effect.die("never acquired"),
      compiler: Statement.makeCompilerSqlite(),
      driver: "none",
      spanAttributes: [],
      transactionService
    }).pipe(Effect.provide(Reactivity.layer))
  ).afterCommit

/**
 * `SqlResolver` batches what the requests of one transaction ask, whoever they are, and runs it in the context of the
 * first. So, outside a transaction, what must not be mixed passes for one. A transaction that is begun inside takes
 * its place, and one that is open already is not hidden.
 */
export const apart = (context: Context.Context<any>, batch: object): Context.Context<any> =>
  transactionOf(context) !== undefined
    ? context
    : context.pipe(Context.add(Batch, batch), Context.add(CurrentTransactionService, Batch))

class Batch extends Context.Service<Batch, object>()("effect-query-cache/anyTransaction/Batch") {}

/** A context without the transaction that it is in. */
export const outside = (context: Context.Context<never>): Context.Context<never> => {
  const current = Context.get(context, CurrentTransactionService)
  return current === undefined ? context : Context.omit(CurrentTransactionService, current)(context) as any
}
