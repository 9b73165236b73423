/**
 * What a store in Redis does besides where it is kept strict.
 */
import * as Effect from "effect/Effect"
import type * as Redis from "effect/persistence/Redis"
import { type CacheError, WriteRefused } from "../../CacheError.ts"
import type { LogicalClock, Strict } from "../../CacheStore.ts"
import * as Epoch from "../epoch.ts"
import type { Namespace, Shard } from "./namespace.ts"
import type { Head } from "./prelude.ts"
import * as Replies from "./replies.ts"
import * as Script from "./script.ts"
import * as Shards from "./shards.ts"
import * as Scripts from "./strictScripts.ts"
import * as Wire from "./wire.ts"

/** After so long a fence is not waited for any more, but asked after. */
const deadlineMillis = 2000

/** How long a primary waits for its replicas. Whoever waits for it waits less, as a rule. */
const replicationMillis = 1000

export const make = ({ headOf, namespaceOf, redis, replicas, replied, run }: {
  readonly redis: Redis.Redis["Service"]
  readonly namespaceOf: (name: string) => Namespace
  readonly headOf: (shard: Shard) => Head
  readonly run: <A>(
    operation: CacheError["operation"],
    effect: Effect.Effect<unknown, Redis.RedisError>,
    decode: (reply: unknown) => A
  ) => Effect.Effect<A, CacheError>
  readonly replied: (shard: Shard, clock: LogicalClock) => Effect.Effect<void>
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

  const inAll = <A extends { readonly at: LogicalClock; readonly shards: number }>(
    name: string,
    ask: (shard: Shard) => Effect.Effect<A, CacheError>
  ) => {
    const namespace = namespaceOf(name)
    return Shards.inAll(
      namespace,
      namespace.shards,
      (shard) => Effect.tap(ask(shard), ({ at }) => replied(shard, at))
    )
  }

  return {
    fence: (request) =>
      Effect.map(
        inAll(request.namespace, (shard) => {
          const head = headOf(shard)
          const { token, transaction } = request
          const args = { head, keys: shard.keys.strict, token, transaction, deadlineMillis, ...Wire.targets(request) }
          return run("fence", putUp(args), (reply) => {
            if (reply === unreplicated) throw new WriteRefused({ message: "no replica has taken over a fence in time" })
            return Replies.fenced(reply, head.nonce)
          })
        }),
        (all) => all.flatMap(({ answer, others }) => [answer, ...others].flatMap(({ expired }) => expired))
      ),
    // One that has expired in one shard may stand in the others too.
    resolve: (name, token, verdict) =>
      Effect.asVoid(inAll(name, (shard) => {
        const head = headOf(shard)
        const args = { head, keys: shard.keys.strict, token, verdict, deadlineMillis }
        return run("resolve", runResolve(args), (reply) => Replies.resolved(reply, head.nonce))
      })),
    barrier: (name, barrier) =>
      Effect.suspend(() => {
        const shard = namespaceOf(name).shardAt(Epoch.shardOf(barrier.epoch))
        const head = headOf(shard)
        return Effect.flatMap(
          run(
            "resolve",
            runBarrier({ head, keys: shard.keys.strict, ...barrier }),
            (reply) => Replies.barrier(reply, head.nonce)
          ),
          ({ at, state }) => Effect.as(replied(shard, at), state)
        )
      })
  }
}

const unreplicated = Symbol()
