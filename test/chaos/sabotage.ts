// Guards taken out of a process, to see that the checker finds what comes of it.
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import type * as CacheStore from "../../src/CacheStore.ts"

/**
 * - `"lying"`: the store says that it has invalidated, and has not.
 * - `"deaf"`: messages of the backplane are lost, and beats come too seldom to notice.
 * - `"hasty"`: fills are stored whatever was invalidated since they were read.
 */
export type Sabotage = "lying" | "deaf" | "hasty"

export const store = (
  inner: CacheStore.CacheStore["Service"],
  sabotage: Sabotage | undefined
): CacheStore.CacheStore["Service"] => {
  switch (sabotage) {
    case "lying":
      return { ...inner, invalidate: () => Effect.succeed([{ epoch: "", clock: 0 }]) }
    case "hasty":
      return {
        ...inner,
        store: (key, entry) =>
          Effect.flatMap(
            Effect.delay(inner.lookup(key, entry.dependencies), 20),
            ({ lease }) => inner.store(key, entry, lease)
          ),
        storeMany: (requests) =>
          Effect.flatMap(
            Effect.delay(
              inner.lookupMany(requests.map(({ entry, key }) => ({ key, dependencies: entry.dependencies }))),
              20
            ),
            (outcomes) => inner.storeMany(requests.map((request, i) => ({ ...request, lease: outcomes[i]!.lease })))
          )
      }
    default:
      return inner
  }
}

export const redis = (layer: Layer.Layer<Redis.Redis>, sabotage: Sabotage | undefined): Layer.Layer<Redis.Redis> =>
  sabotage === "deaf" ? Layer.effect(Redis.Redis, Effect.map(Redis.Redis, deaf)).pipe(Layer.provide(layer)) : layer

const deaf = (inner: Redis.Redis["Service"]): Redis.Redis["Service"] => ({
  ...inner,
  subscribe: (channel) =>
    Effect.gen(function*() {
      const from = yield* inner.subscribe(channel)
      const to = yield* Queue.unbounded<Redis.RedisMessage, Redis.RedisError>()
      // What a subscription fails with comes out of its queue.
      const hear = Effect.map(Queue.take(from), (message) => {
        if (message.message.split("\t")[4] === "b") Queue.offerUnsafe(to, message)
      })
      yield* Effect.forever(hear).pipe(
        Effect.catchCause((cause) => Queue.failCause(to, cause)),
        Effect.forkScoped
      )
      return to
    })
})
