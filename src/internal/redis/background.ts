/**
 * A Redis that is connected in the background, so that one which is away does not
 * keep a program from starting, and whose connection is replaced where nothing comes
 * of it any more.
 *
 * A client notices a connection that was ended. What it does not notice:
 *
 * - one that is half open: a peer that is gone without a word, a firewall that has
 *   forgotten it. What is written to it is sent again for a quarter of an hour. A limit to
 *   how long a socket is idle never strikes, since each command that is written counts.
 * - one that its client has given up. node-redis does that by default where such a limit
 *   strikes.
 * - one to a server that has become a replica.
 *
 * So whoever gets no answer makes this ask itself, and go on asking for a while. An answer
 * of whatever kind says that the connection is good, be it too slow for who asked first.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Replies from "./replies.ts"

type Service = Redis.Redis["Service"]

// From a tenth of a second to five seconds, without end.
const attempts = Schedule.min([Schedule.exponential("100 millis", 2), Schedule.spaced("5 seconds")])

/** A connection that stands. */
interface Connection {
  readonly redis: Service
  readonly scope: Scope.Closeable
  /** Why it is to be replaced. */
  readonly lost: Deferred.Deferred<string>
  /** Whether it is being asked. */
  isDoubted: boolean
  /** Since when it has been that of a replica. */
  readOnlySince: bigint | undefined
}

export const layer = <E, R>(
  redis: Layer.Layer<Redis.Redis, E, R>,
  { replaceAfterMillis }: { readonly replaceAfterMillis: number }
): Layer.Layer<Redis.Redis, never, R> =>
  Layer.effect(
    Redis.Redis,
    Effect.gen(function*() {
      const forkWith = Effect.runForkWith(yield* Effect.context<R>())
      const fork = <A>(effect: Effect.Effect<A>) => forkWith(effect)
      const clock = yield* Clock.Clock
      const replaceAfter = Duration.millis(replaceAfterMillis)
      const subscriptions = new Set<Queue.Dequeue<Redis.RedisMessage, Redis.RedisError>>()
      let connected: Connection | undefined
      // What commands fail with until then: why the last attempt failed, if it said.
      let absent = new Redis.RedisError({ cause: new Error("Redis is not connected yet") })

      /** A client waits for the answers of what it has sent, and there may be none: nobody waits for it. */
      const abandon = (own: Scope.Closeable) => fork(Scope.close(own, Exit.void))
      yield* Effect.addFinalizer(() =>
        connected === undefined ? Effect.void : Fiber.await(abandon(connected.scope)).pipe(
          Effect.timeoutOption("1 second"),
          Effect.provideService(Clock.Clock, Clock.Clock.defaultValue())
        )
      )

      // A scope for each attempt: what a failed one has opened is closed at once, not when the program ends.
      const attempt = Effect.gen(function*() {
        const own = Scope.makeUnsafe()
        // In a fiber of its own: a layer is not interrupted while it connects, be it without an answer.
        const building = forkWith(Layer.buildWithScope(redis, own))
        const context = yield* Fiber.join(building).pipe(
          Effect.timeoutOrElse({
            duration: replaceAfter,
            orElse: () => Effect.fail(new Redis.RedisError({ cause: new Error("Redis does not answer") }))
          }),
          Effect.onExit((exit) =>
            Effect.sync(() => {
              if (Exit.isSuccess(exit)) return
              building.interruptUnsafe()
              abandon(own)
            })
          )
        )
        return connected = {
          redis: Context.get(context, Redis.Redis),
          scope: own,
          lost: Deferred.makeUnsafe<string>(),
          isDoubted: false,
          readOnlySince: undefined
        } satisfies Connection as Connection
      })
      yield* attempt.pipe(
        Effect.tapError((error) =>
          Effect.sync(() => {
            if (error instanceof Redis.RedisError) absent = error
          })
        ),
        Effect.retry(attempts),
        Effect.tap(({ lost, scope }) =>
          Effect.flatMap(Deferred.await(lost), (reason) => {
            connected = undefined
            absent = new Redis.RedisError({ cause: new Error(reason) })
            for (const queue of subscriptions) end(queue, absent)
            abandon(scope)
            return Effect.logWarning(`${reason}: its connection is replaced`)
          })
        ),
        Effect.forever,
        Effect.forkScoped
      )

      const replace = ({ lost }: Connection, reason: string) => Deferred.doneUnsafe(lost, Exit.succeed(reason))

      const ask = (connection: Connection) =>
        connection.redis.send("PING").pipe(
          Effect.catchIf(isReply, () => Effect.void),
          Effect.retry(Schedule.spaced("250 millis")),
          Effect.timeoutOrElse({
            duration: replaceAfter,
            orElse: () => Effect.sync(() => replace(connection, `Redis has not answered for ${replaceAfterMillis} ms`))
          }),
          Effect.andThen(Effect.sync(() => {
            connection.isDoubted = false
          }))
        )

      const judge = (connection: Connection, exit: Exit.Exit<unknown, Redis.RedisError>): void => {
        const error = Exit.findErrorOption(exit)
        const isReadOnly = error._tag === "Some" && /\bREADONLY\b/.test(String(error.value.cause))
        if (isReadOnly) {
          const now = clock.monotonicTimeNanosUnsafe()
          connection.readOnlySince ??= now
          if (now - connection.readOnlySince >= Duration.toNanosUnsafe(replaceAfter)) {
            replace(connection, "Redis is a replica")
          }
        } else if (Exit.isSuccess(exit)) {
          connection.readOnlySince = undefined
        } else if (!connection.isDoubted && !(error._tag === "Some" && isReply(error.value))) {
          connection.isDoubted = true
          fork(Effect.forkIn(ask(connection), connection.scope))
        }
      }

      const use = <A, R>(
        f: (redis: Service) => Effect.Effect<A, Redis.RedisError, R>
      ): Effect.Effect<A, Redis.RedisError, R> =>
        Effect.suspend(() => {
          const connection = connected
          if (connection === undefined) return Effect.fail(absent)
          return Effect.onExit(f(connection.redis), (exit) => Effect.sync(() => judge(connection, exit)))
        })
      return Redis.Redis.of({
        send: (command, ...args) => use((redis) => redis.send<any>(command, ...args)),
        eval: (script) => (...params) => use((redis) => redis.eval(script)(...params)),
        reserve: use((redis) => redis.reserve),
        subscribe: (channel) =>
          // What `subscribe` fails with comes out of its queue, so that is where this comes out too.
          Effect.suspend(() =>
            connected === undefined ? failedQueue(absent) : Effect.tap(
              connected.redis.subscribe(channel),
              (queue) =>
                Effect.acquireRelease(
                  Effect.sync(() => subscriptions.add(queue)),
                  () => Effect.sync(() => subscriptions.delete(queue))
                )
            )
          )
      })
    })
  )

/** Whether Redis has said it, rather than somebody on the way. What it says begins with a code: `LOADING`, `BUSY`. */
const isReply = (error: Redis.RedisError): boolean =>
  Replies.reasonOf(error)._tag !== "StoreUnavailable" ||
  (error.cause instanceof Error && /^[A-Z]{3,} /.test(error.cause.message))

/** What is half open is so for both, and a subscription, which says nothing, would not notice. */
const end = (queue: Queue.Dequeue<Redis.RedisMessage, Redis.RedisError>, error: Redis.RedisError): void => {
  // It is shown by the half that takes.
  Queue.failCauseUnsafe(queue as Queue.Queue<Redis.RedisMessage, Redis.RedisError>, Cause.fail(error))
}

const failedQueue = Effect.fnUntraced(function*(error: Redis.RedisError) {
  const queue = yield* Queue.unbounded<Redis.RedisMessage, Redis.RedisError>()
  yield* Queue.fail(queue, error)
  return queue
})
