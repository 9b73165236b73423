/**
 * What a store in Redis does besides where it is kept strict.
 */
import * as Effect from "effect/Effect"
import type * as Redis from "effect/persistence/Redis"
import { type CacheError, WriteRefused } from "../../CacheError.ts"
import type { Strict } from "../../CacheStore.ts"
import type { Namespace } from "./namespace.ts"
import type { Head } from "./prelude.ts"
import * as Replies from "./replies.ts"
import * as Script from "./script.ts"
import * as Scripts from "./strictScripts.ts"
import * as Wire from "./wire.ts"

/** After so long a fence is not waited for any more, but asked after. */
const deadlineMillis = 2000

/** How long a primary waits for its replicas. Whoever waits for it waits less, as a rule. */
const replicationMillis = 1000

export const make = ({ headOf, namespaceOf, redis, replicas, run }: {
  readonly redis: Redis.Redis["Service"]
  readonly namespaceOf: (name: string) => Namespace
  readonly headOf: (namespace: Namespace) => Head
  readonly run: <A>(
    operation: CacheError["operation"],
    effect: Effect.Effect<unknown, Redis.RedisError>,
    decode: (reply: unknown) => A
  ) => Effect.Effect<A, CacheError>
  readonly replicas: number
}): Strict => {
  const runResolve = Script.run(redis, Scripts.resolve)
  const runBarrier = Script.run(redis, Scripts.barrier)

  /** A primary that was deposed has no replica to hand a fence on to. WAIT counts what its own connection has written. */
  const fenceReplicated = (args: Scripts.FenceArguments) =>
    Effect.scoped(
      Effect.flatMap(redis.reserve, (connection) =>
        Effect.flatMap(Script.run(connection, Scripts.fence)(args), (reply) =>
          Effect.map(connection.send("WAIT", `${replicas}`, `${replicationMillis}`), (reached) => {
            return Number(reached) >= replicas ? reply : unreplicated
          })))
    )
  const putUp = replicas === 0 ? Script.run(redis, Scripts.fence) : fenceReplicated

  return {
    fence: (request) =>
      Effect.suspend(() => {
        const namespace = namespaceOf(request.namespace)
        const head = headOf(namespace)
        const { token, transaction } = request
        const args = { head, keys: namespace.keys.strict, token, transaction, deadlineMillis, ...Wire.targets(request) }
        return Effect.map(
          run("fence", putUp(args), (reply) => {
            if (reply === unreplicated) throw new WriteRefused({ message: "no replica has taken over a fence in time" })
            return Replies.fenced(reply, head.nonce)
          }),
          ({ expired, ...at }) => {
            namespace.saw(at)
            return expired
          }
        )
      }),
    resolve: (name, token, verdict) =>
      Effect.suspend(() => {
        const namespace = namespaceOf(name)
        const head = headOf(namespace)
        const args = { head, keys: namespace.keys.strict, token, verdict, deadlineMillis }
        return Effect.map(
          run("resolve", runResolve(args), (reply) => Replies.resolved(reply, head.nonce)),
          (at) => namespace.saw(at)
        )
      }),
    barrier: (name, barrier) =>
      Effect.suspend(() => {
        const namespace = namespaceOf(name)
        const head = headOf(namespace)
        return Effect.map(
          run(
            "resolve",
            runBarrier({ head, keys: namespace.keys.strict, ...barrier }),
            (reply) => Replies.barrier(reply, head.nonce)
          ),
          ({ state, ...at }) => {
            namespace.saw(at)
            return state
          }
        )
      })
  }
}

const unreplicated = Symbol()
