/**
 * Who asks: a role, a tenant, settings. Part of every key, so that an answer
 * read for one is never served to another, and applied to the connection that
 * reads it.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { InvalidOptionError } from "./CacheError.ts"
import { apart } from "./internal/anyTransaction.ts"
import * as Options from "./internal/options.ts"
import { CurrentSession } from "./internal/session.ts"

/**
 * Who asks.
 *
 * @category models
 * @since 0.1.0
 */
export interface CacheScope {
  /** The role that statements run as: `SET LOCAL ROLE`. */
  readonly role?: string | undefined
  /**
   * A label that keeps answers apart. It is part of the key and nothing else:
   * what the database is to know goes into `settings`.
   */
  readonly tenant?: string | undefined
  /** Settings as `set_config(name, value, true)` takes them, for example `{ "app.tenant": "acme" }`. */
  readonly settings?: { readonly [name: string]: string } | undefined
  /** `false` for connections that are bound to the role and settings already. Defaults to `true`. */
  readonly apply?: boolean | undefined
}

/**
 * A scope that has been checked.
 *
 * @category models
 * @since 0.1.0
 */
export interface Resolved {
  /** Equal for equal scopes, whatever the order of their settings. */
  readonly key: string
  /** What to apply in order, empty where nothing is. */
  readonly settings: ReadonlyArray<readonly [name: string, value: string]>
}

/**
 * The scope that statements run in, if any.
 *
 * @category references
 * @since 0.1.0
 */
export const CurrentScope: Context.Reference<Resolved | undefined> = Context.Reference<Resolved | undefined>(
  "effect-query-cache/CacheScope",
  { defaultValue: () => undefined }
)

/**
 * Runs an effect in a scope.
 *
 * **Details**
 *
 * - Every cached statement in it is keyed by the scope. A hit costs no more than
 *   without one.
 * - Outside a transaction, a statement that reaches the database (a miss, a
 *   write, a query that is not cached) runs as `BEGIN`, `set_config(..., true)`,
 *   the statement, `COMMIT`.
 * - A transaction begun in the scope is set up once, right after its `BEGIN`.
 * - An inner scope replaces the outer one; the two are not merged.
 *
 * **Gotchas**
 *
 * Inside an open transaction a scope can no longer be applied. A statement that
 * runs in another scope than its transaction dies rather than run as somebody
 * else: provide the scope around `withTransaction`. Streams and connections from
 * `reserve` die in a scope that would have to be applied, for the same reason.
 *
 * A `RequestResolver` runs a batch with the services of its first request. Those
 * of `SqlResolver` keep scopes apart. Where requests of several scopes can meet
 * in a batch of another, one scope's query answers the others: group it by
 * {@link CurrentScope}, or build it per scope.
 *
 * **Example** (A tenant under row-level security)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { CacheScope, QueryCache } from "effect-query-cache"
 * import { SqlClient } from "effect/sql"
 *
 * export const invoices = (tenant: string) =>
 *   Effect.gen(function*() {
 *     const sql = yield* SqlClient.SqlClient
 *     return yield* sql`SELECT * FROM invoices`.pipe(QueryCache.cached({ timeToLive: "1 minute" }))
 *   }).pipe(CacheScope.provide({ role: "app_user", settings: { "app.tenant": tenant } }))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const provide: {
  (scope: CacheScope): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, scope: CacheScope): Effect.Effect<A, E, R>
} = ((...args: [scope: CacheScope] | [self: Effect.Effect<any, any, any>, scope: CacheScope]): any => {
  // Checked where it is given, once.
  const scope = resolve(args.length === 1 ? args[0] : args[1])
  const apply = Effect.updateContext((context: Context.Context<any>): Context.Context<any> =>
    Context.add(
      apart(context, Context.get(context, CurrentSession)?.batchOf(scope.key) ?? batchOf(scope.key)),
      CurrentScope,
      scope
    )
  )
  return args.length === 1 ? apply : apply(args[0])
}) as any

// One tenant's query would answer another's request.
const batches = new Map<string, object>()

// Equal scopes share a batch. Forgetting one, since tenants have no end, only parts a batch in two.
const batchOf = (key: string): object => {
  let batch = batches.get(key)
  if (batch === undefined) {
    if (batches.size >= 1000) batches.clear()
    batches.set(key, batch = { key })
  }
  return batch
}

const owner = "CacheScope.provide"

/**
 * Checks a scope. Throws an `InvalidOptionError` where an option cannot mean
 * anything.
 *
 * @category constructors
 * @since 0.1.0
 */
export const resolve = (scope: CacheScope): Resolved => {
  Options.known(owner, scope, ["role", "tenant", "settings", "apply"])
  if (scope.apply !== undefined && typeof scope.apply !== "boolean") {
    throw new InvalidOptionError(owner, "apply", scope.apply, "true or false")
  }
  const settings: Array<readonly [string, string]> = []
  if (scope.role !== undefined) settings.push(["role", Options.text(owner, "role", scope.role)])
  const names = Object.keys(scope.settings ?? {}).sort()
  for (const name of names) {
    const value = scope.settings![name]
    // Values are the program's data and stay out of the message.
    if (typeof value !== "string") throw new InvalidOptionError(owner, `settings.${name}`, typeof value, "a string")
    if (name.trim().length === 0 || name.toLowerCase() === "role") {
      throw new InvalidOptionError(owner, "settings", name, "named, and the role is an option of its own")
    }
    settings.push([name, value])
  }
  const tenant = scope.tenant === undefined ? undefined : Options.text(owner, "tenant", scope.tenant)
  return {
    key: JSON.stringify([tenant ?? null, scope.apply !== false, settings]),
    settings: scope.apply === false ? [] : settings
  }
}
