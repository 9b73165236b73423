import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, describe, it } from "@effect/vitest"
import { CachedSqlClient, QueryCache, RedisStore } from "effect-query-cache"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as SqlClient from "effect/sql/SqlClient"
import * as Stub from "../bench/stub.ts"
import * as RedisServers from "../support/redis.ts"

const program = (port: number, password?: string) =>
  CachedSqlClient.layer({ namespace: "background", lookupTimeout: "2 seconds" }).pipe(
    Layer.provide(RedisStore.layer()),
    Layer.provideMerge(
      RedisStore.connectInBackground(
        NodeRedis.layer({ socket: { host: "127.0.0.1", port }, ...(password === undefined ? {} : { password }) })
      )
    ),
    Layer.provide(Stub.layer([{ id: 1 }]))
  )

const read = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const [[query], rows] = yield* QueryCache.withInfo(sql`SELECT id FROM users`.pipe(QueryCache.cached()))
  assert.deepStrictEqual(rows, [{ id: 1 }])
  return query
})

describe("RedisStore.connectInBackground", () => {
  it.live("a program starts without its Redis, and uses it as soon as it is there", () =>
    Effect.gen(function*() {
      const server = yield* RedisServers.makeServer()
      yield* server.stop
      yield* Effect.gen(function*() {
        const first = yield* read
        assert.deepStrictEqual([first.status, first.reason], ["miss", "store-failed"])
        const redis = yield* Redis.Redis
        assert.strictEqual((yield* Effect.flip(redis.send("PING")))._tag, "RedisError")
        const queue = yield* redis.subscribe("channel")
        assert.strictEqual((yield* Effect.flip(Queue.take(queue)))._tag, "RedisError")
        yield* server.start
        const hit = yield* Effect.repeat(read, {
          while: (query) => query.status !== "hit",
          schedule: Schedule.spaced("50 millis")
        })
        assert.strictEqual(hit.level, "L2")
      }).pipe(Effect.scoped, Effect.provide(program(server.port)))
    }).pipe(Effect.scoped))

  it.live("a wrong password costs hits and nothing else", () =>
    Effect.gen(function*() {
      const logged: Array<string> = []
      const logger = Logger.make(({ message }) => logged.push(String(message)))
      const server = yield* RedisServers.makeServer({ requirepass: "right" })
      yield* Effect.gen(function*() {
        // The first attempt may still be under way, then it says why it failed.
        yield* Effect.repeat(read, { until: () => logged.some((line) => line.includes("AccessDenied")) })
        const cache = yield* QueryCache.QueryCache
        assert.isAbove((yield* cache.stats).storeErrors, 0)
        assert.isFalse(logged.join().includes("wrong"))
      }).pipe(Effect.provide(program(server.port, "wrong")), Effect.provide(Logger.layer([logger])))
    }).pipe(Effect.scoped))
})
