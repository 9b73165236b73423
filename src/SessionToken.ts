/**
 * What a caller has written, carried to wherever it reads next: so that it reads its
 * own writes, whichever process answers.
 *
 * A process sees its own writes at once. Another one hears of them a little later: a
 * load balancer that sends the request after a write elsewhere sends it to a cache that
 * may hold the answer from before. A token tells that cache what it must have heard of
 * to answer. Where it has not, the shared cache or the database does.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Equal from "effect/Equal"
import type * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import { InvalidOptionError } from "./CacheError.ts"
import { CurrentScope } from "./CacheScope.ts"
import { apart } from "./internal/anyTransaction.ts"
import * as Options from "./internal/options.ts"
import * as Places from "./internal/places.ts"
import { CurrentSession, Session as Running } from "./internal/session.ts"

/**
 * How far the caches must have come that answer somebody. Immutable; equal tokens are
 * equal by `Equal`.
 *
 * **Details**
 *
 * It holds, for each database that was written to, the clocks of its shared cache after
 * the last write: no data, no names, nothing of who wrote. About 40 bytes of text for
 * each database and shard; of more than 8 databases, or 64 shards altogether, it says
 * only that the cache is not to be asked for a while.
 *
 * **Gotchas**
 *
 * It is not signed. Whoever makes one up gets what it asks for, which is to be answered
 * by the database rather than by the cache: it cannot make anybody else's answers
 * older, newer or slower by way of the cache. Where callers must not be able to have the
 * database asked, sign the cookie, as for any other request that costs something.
 *
 * @category models
 * @since 0.1.0
 */
export interface SessionToken extends Equal.Equal {
  readonly [Places.TokenTypeId]: typeof Places.TokenTypeId
  /** As {@link encode}. */
  readonly toString: () => string
  readonly toJSON: () => string
}

/**
 * What is read and written under way, by {@link provide}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Session {
  /** The token now: what it began with, and what was written since. */
  readonly token: SessionToken
}

/**
 * @category options
 * @since 0.1.0
 */
export interface SessionOptions {
  /** What the caller has written before. Defaults to {@link empty}. */
  readonly token?: SessionToken | undefined
  /**
   * Whether answers raise the token as well: no answer is then from a cache that lags behind the one that answered
   * before. The token changes with most reads. Defaults to `false`.
   */
  readonly monotonicReads?: boolean | undefined
  /**
   * For how long the session asks the database only, after a write whose invalidation could not be delivered or whose
   * outcome is unknown. As long as any answer is kept, stale ones included, is long enough. Defaults to 10 minutes.
   */
  readonly bypassFor?: Duration.Input | undefined
}

/**
 * The token of somebody who has written nothing.
 *
 * @category constructors
 * @since 0.1.0
 */
export const empty: SessionToken = Places.empty

/**
 * Whether something is a token.
 *
 * @category guards
 * @since 0.1.0
 */
export const isSessionToken = (value: unknown): value is SessionToken => value instanceof Places.Token

/**
 * What satisfies both: the later of two requests, say, that a page has made at once.
 *
 * **Details**
 *
 * Tokens may be merged in any order, and as often as one likes.
 *
 * @category combinators
 * @since 0.1.0
 */
export const merge: {
  (that: SessionToken): (self: SessionToken) => SessionToken
  (self: SessionToken, that: SessionToken): SessionToken
} = dual(
  2,
  (self: SessionToken, that: SessionToken): SessionToken => Places.merge(self as Places.Token, that as Places.Token)
)

/**
 * The text of a token: letters, digits, `-`, `.`, `_` and `~`, which headers, cookies and
 * URLs take as they are, and 4,096 of them at most.
 *
 * @category encoding
 * @since 0.1.0
 */
export const encode = (token: SessionToken): string => token.toString()

/**
 * The token of a text. Whatever is none is {@link empty}: a cookie that is missing,
 * cut off, made up, or from another version of the library. It never throws.
 *
 * **When to use**
 *
 * For what a caller sends: one that sends nonsense is one that sends nothing. Where that
 * is to be an error, decode {@link FromString}.
 *
 * @category encoding
 * @since 0.1.0
 */
export const fromString = (text: string | null | undefined): SessionToken =>
  typeof text === "string" ? Places.decode(text) ?? empty : empty

/**
 * A schema of tokens as they are in a program.
 *
 * @category schemas
 * @since 0.1.0
 */
export const SessionToken: Schema.declare<SessionToken> = Schema.declare(isSessionToken, {
  identifier: "SessionToken",
  toCodecJson: () => Schema.link<SessionToken>()(Schema.String, fromText)
})

const fromText = SchemaTransformation.transformEffect<SessionToken, string>({
  decode: (text, options) => {
    const token = Places.decode(text)
    return token === undefined
      ? Effect.fail(new SchemaIssue.InvalidValue({ message: "Expected a session token" }, text, options))
      : Effect.succeed(token)
  },
  encode: (token) => Effect.succeed(encode(token))
})

/**
 * A schema of tokens that are text outside.
 *
 * **Example** (A header that may be missing)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { SessionToken } from "effect-query-cache"
 *
 * export const Headers = Schema.Struct({ "x-session-token": Schema.optional(SessionToken.FromString) })
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const FromString: Schema.decodeTo<typeof SessionToken, Schema.String> = Schema.String.pipe(
  Schema.decodeTo(SessionToken, fromText)
)

const owner = "SessionToken.make"

/**
 * A session, for one request of a caller.
 *
 * **When to use**
 *
 * Where the token is needed while the effect runs, or whatever becomes of it: for the
 * response to a request that failed after it had written, or was interrupted. Otherwise
 * {@link run} is shorter.
 *
 * **Example** (A cookie, by a middleware of effect/http)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { SessionToken } from "effect-query-cache"
 * import { HttpEffect, HttpMiddleware, HttpServerRequest, HttpServerResponse } from "effect/http"
 *
 * export const sessions = HttpMiddleware.make((app) =>
 *   Effect.gen(function*() {
 *     const { cookies } = yield* HttpServerRequest.HttpServerRequest
 *     const token = SessionToken.fromString(cookies.wrote)
 *     const session = yield* SessionToken.make({ token })
 *     // For responses to failures, too.
 *     yield* HttpEffect.appendPreResponseHandler((_, response) =>
 *       Effect.succeed(
 *         SessionToken.encode(session.token) === SessionToken.encode(token)
 *           ? response
 *           : HttpServerResponse.setCookieUnsafe(response, "wrote", SessionToken.encode(session.token), {
 *             httpOnly: true,
 *             maxAge: "1 hour",
 *             path: "/",
 *             sameSite: "lax"
 *           })
 *       )
 *     )
 *     return yield* SessionToken.provide(app, session)
 *   })
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: SessionOptions): Effect.Effect<Session> => {
  Options.known(owner, options, ["token", "monotonicReads", "bypassFor"])
  const token = options?.token ?? empty
  if (!isSessionToken(token)) throw new InvalidOptionError(owner, "token", token, "a SessionToken")
  const settings = {
    isMonotonic: Options.flag(owner, "monotonicReads", options?.monotonicReads) === true,
    bypassMillis: Options.millis(owner, "bypassFor", options?.bypassFor, 10 * 60_000)
  }
  return Effect.sync(() => new Running(token as Places.Token, settings))
}

/**
 * Runs an effect in a session.
 *
 * **Details**
 *
 * - What it reads reflects what the session has written: statements, cached queries and
 *   resolvers, live reads. A hit in the process costs next to nothing more.
 * - What it writes raises the session's token before the write returns, however that
 *   ends: outside a transaction at once, in one when it has committed.
 * - Requests of other sessions are not batched with its own.
 * - Without a session nothing changes, and nothing costs more.
 *
 * **Gotchas**
 *
 * - Put it around `withTransaction`, not into it. A session that begins inside one has
 *   ended before its writes are invalidated, so its token bypasses the cache instead.
 * - A `MaterializedView` serves what it has, in a session too: that is what it is for. Its
 *   `refresh` reads what was written.
 * - Writes of which the library knows nothing (`psql`, another program) raise no token.
 *
 * @category combinators
 * @since 0.1.0
 */
export const provide: {
  (session: Session): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, session: Session): Effect.Effect<A, E, R>
} = dual(2, <A, E, R>(self: Effect.Effect<A, E, R>, session: Session): Effect.Effect<A, E, R> => {
  if (!(session instanceof Running)) {
    throw new InvalidOptionError("SessionToken.provide", "session", session, "one that SessionToken.make has made")
  }
  return Effect.updateContext(self, (context: Context.Context<R>): Context.Context<R> => {
    const scope = Context.get(context, CurrentScope)?.key ?? ""
    return Context.add(apart(context, session.batchOf(scope)), CurrentSession, session)
  })
})

/**
 * Runs an effect in a session of its own, and gives what became of it with the token
 * after it. It does not fail: a failure may come after a write.
 *
 * **Example** (Two processes)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { QueryCache, SessionToken } from "effect-query-cache"
 * import { SqlClient } from "effect/sql"
 *
 * // In one process: the text goes out with the response.
 * export const rename = Effect.gen(function*() {
 *   const sql = yield* SqlClient.SqlClient
 *   const [exit, token] = yield* sql`UPDATE users SET name = 'Ada' WHERE id = 1`.pipe(SessionToken.run())
 *   return { exit, header: SessionToken.encode(token) }
 * })
 *
 * // In another: it comes back with the next request.
 * export const name = Effect.fn(function*(header: string | undefined) {
 *   const sql = yield* SqlClient.SqlClient
 *   const read = sql`SELECT name FROM users WHERE id = 1`.pipe(QueryCache.cached())
 *   const [exit] = yield* SessionToken.run(read, { token: SessionToken.fromString(header) })
 *   return yield* exit
 * })
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const run: {
  (
    options?: SessionOptions
  ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<readonly [Exit.Exit<A, E>, SessionToken], never, R>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options?: SessionOptions
  ): Effect.Effect<readonly [Exit.Exit<A, E>, SessionToken], never, R>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options?: SessionOptions
  ): Effect.Effect<readonly [Exit.Exit<A, E>, SessionToken], never, R> =>
    Effect.flatMap(
      make(options),
      (session) => Effect.map(Effect.exit(provide(self, session)), (exit) => [exit, session.token] as const)
    )
)
