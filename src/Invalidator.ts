/**
 * Invalidation by name: by table, row, tag or key, or everything.
 *
 * The writes of a program need no call: `CachedSqlClient` sees them. These are
 * for what it cannot see, such as a change made by another program, and for
 * answers that were stored with `autoInvalidate: false`.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { InvalidOptionError } from "./CacheError.ts"
import { CurrentScope } from "./CacheScope.ts"
import * as Dependency from "./Dependency.ts"
import { transactionOf } from "./internal/anyTransaction.ts"
import type { Naming } from "./internal/naming.ts"
import * as Options from "./internal/options.ts"
import type { Transactions } from "./internal/transactions.ts"

/**
 * Invalidates.
 *
 * **Details**
 *
 * Inside a transaction of the client it takes effect after the outermost commit,
 * and not at all after a rollback. Otherwise, when the effect succeeds, this
 * process serves nothing of what was named, and other processes nothing that was
 * read before. It never fails: while the store cannot be reached the
 * invalidation is queued, and what it names is read from the database.
 *
 * @category services
 * @since 0.1.0
 */
export class Invalidator extends Context.Service<Invalidator, {
  readonly invalidate: (targets: InvalidationTargets) => Effect.Effect<void>
}>()("effect-query-cache/Invalidator") {}

/**
 * What to invalidate. At least one field must be given.
 *
 * @category models
 * @since 0.1.0
 */
export interface InvalidationTargets {
  /** Every answer that reads one of these tables, `autoInvalidate: false` included. */
  readonly tables?: ReadonlyArray<string> | undefined
  /** Every answer that one of these rows can be part of, and every answer about the whole of its table. */
  readonly rows?: ReadonlyArray<Dependency.Row> | undefined
  /** Every answer with one of these tags. */
  readonly tags?: ReadonlyArray<string> | undefined
  /** Every answer with one of these keys. */
  readonly keys?: ReadonlyArray<Dependency.Key> | undefined
  /** Everything in the namespace. The database's catalog is read anew, too. */
  readonly all?: true | undefined
}

/**
 * Invalidates what is named.
 *
 * **Example** (By tag)
 *
 * ```ts
 * import { Invalidator } from "effect-query-cache"
 *
 * export const refresh = Invalidator.invalidate({ tags: ["dashboard"], tables: ["orders"] })
 * ```
 *
 * @category invalidation
 * @since 0.1.0
 */
export const invalidate = (targets: InvalidationTargets): Effect.Effect<void, never, Invalidator> => {
  // Refused where it is written, not when it runs.
  resolve(targets)
  return Effect.flatMap(Invalidator, (invalidator) => invalidator.invalidate(targets))
}

/**
 * Invalidates what is named after an effect has succeeded.
 *
 * **Details**
 *
 * Inside a transaction that means after its commit. What follows the effect is
 * not interruptible: an effect that succeeded has its invalidation. One that was
 * interrupted may have done its work, so it has it too.
 *
 * **Example** (A write that another program makes on our behalf)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Invalidator } from "effect-query-cache"
 *
 * declare const callBilling: Effect.Effect<void>
 *
 * export const bill = callBilling.pipe(Invalidator.invalidating({ tables: ["invoices"] }))
 * ```
 *
 * @category invalidation
 * @since 0.1.0
 */
export const invalidating: {
  (targets: InvalidationTargets): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R | Invalidator>
  <A, E, R>(self: Effect.Effect<A, E, R>, targets: InvalidationTargets): Effect.Effect<A, E, R | Invalidator>
} = ((
  ...args: [targets: InvalidationTargets] | [self: Effect.Effect<any, any, any>, targets: InvalidationTargets]
): any => {
  const after = invalidate(args.length === 1 ? args[0] : args[1])
  const apply = (self: Effect.Effect<any, any, any>) =>
    Effect.onExit(self, (exit) => Exit.isSuccess(exit) || Cause.hasInterrupts(exit.cause) ? after : Effect.void)
  return args.length === 1 ? apply : apply(args[0])
}) as any

/**
 * Builds the service. `CachedSqlClient.layerNoDeps` is the layer that does so.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (transactions: Transactions, naming: Naming): Invalidator["Service"] =>
  Invalidator.of({
    invalidate: (targets) =>
      Effect.suspend(() => {
        const named = resolve(targets)
        if (named === "all") return transactions.invalidate(Dependency.schemaTargets)
        const invalidate = (waited: boolean): Effect.Effect<void> =>
          Effect.withFiber((fiber) => {
            const names = naming.of(fiber.getRef(CurrentScope))
            return names.isKnown || waited || transactionOf(fiber.context) !== undefined
              ? transactions.invalidate(names.targets(named))
              : Effect.andThen(naming.settled, invalidate(true))
          })
        return invalidate(false)
      })
  })

const owner = "Invalidator.invalidate"

const resolve = (targets: InvalidationTargets): ReadonlyArray<Dependency.Dependency> | "all" => {
  Options.known(owner, targets, ["tables", "rows", "tags", "keys", "all"])
  if (targets.all !== undefined && targets.all !== true) {
    throw new InvalidOptionError(owner, "all", targets.all, "true or absent")
  }
  if (targets.all) return "all"
  const dependencies = [
    ...list("tables", targets.tables).map(Dependency.table),
    ...list("tags", targets.tags).map(Dependency.tag),
    ...made("rows", targets.rows),
    ...made("keys", targets.keys)
  ]
  if (
    targets.tables === undefined && targets.tags === undefined && targets.rows === undefined &&
    targets.keys === undefined
  ) throw new InvalidOptionError(owner, "targets", targets, "an object with tables, rows, tags, keys or all")
  return dependencies
}

const list = <A>(option: string, value: ReadonlyArray<A> | undefined): ReadonlyArray<A> => {
  if (value === undefined) return []
  if (!Array.isArray(value)) throw new InvalidOptionError(owner, option, value, "an array")
  return value
}

const made = <A extends Dependency.Dependency>(
  option: string,
  value: ReadonlyArray<A> | undefined
): ReadonlyArray<A> => {
  if (!list(option, value).every(Dependency.isDependency)) {
    throw new InvalidOptionError(owner, option, value, "an array made by the Dependency module")
  }
  return value ?? []
}
