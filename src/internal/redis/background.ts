/**
 * A Redis that is connected in the background, so that one which is away does not
 * keep a program from starting.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"

// From a tenth of a second to five seconds, without end.
const attempts = Schedule.min([Schedule.exponential("100 millis", 2), Schedule.spaced("5 seconds")])

export const layer = <E, R>(redis: Layer.Layer<Redis.Redis, E, R>): Layer.Layer<Redis.Redis, never, R> =>
  Layer.effect(
    Redis.Redis,
    Effect.gen(function*() {
      const scope = yield* Effect.scope
      let connected: Redis.Redis["Service"] | undefined
      // What commands fail with until then: why the last attempt failed, if it said.
      let absent = new Redis.RedisError({ cause: new Error("Redis is not connected yet") })

      // A scope for each attempt: what a failed one has opened is closed at once, not when the program ends.
      const attempt = Effect.gen(function*() {
        const own = yield* Scope.fork(scope)
        const context = yield* Layer.buildWithScope(redis, own).pipe(
          Effect.onExit((exit) => Exit.isSuccess(exit) ? Effect.void : Scope.close(own, exit))
        )
        connected = Context.get(context, Redis.Redis)
      })
      yield* attempt.pipe(
        Effect.tapError((error) =>
          Effect.sync(() => {
            if (error instanceof Redis.RedisError) absent = error
          })
        ),
        Effect.retry(attempts),
        Effect.forkScoped
      )

      const use = <A, R>(
        f: (redis: Redis.Redis["Service"]) => Effect.Effect<A, Redis.RedisError, R>
      ): Effect.Effect<A, Redis.RedisError, R> =>
        Effect.suspend(() => connected === undefined ? Effect.fail(absent) : f(connected))
      return Redis.Redis.of({
        send: (command, ...args) => use((redis) => redis.send<any>(command, ...args)),
        eval: (script) => (...params) => use((redis) => redis.eval(script)(...params)),
        reserve: use((redis) => redis.reserve),
        subscribe: (channel) =>
          // What `subscribe` fails with comes out of its queue, so that is where this comes out too.
          Effect.suspend(() => connected === undefined ? failedQueue(absent) : connected.subscribe(channel))
      })
    })
  )

const failedQueue = Effect.fnUntraced(function*(error: Redis.RedisError) {
  const queue = yield* Queue.unbounded<Redis.RedisMessage, Redis.RedisError>()
  yield* Queue.fail(queue, error)
  return queue
})
