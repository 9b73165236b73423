import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, describe, it } from "@effect/vitest"
import { CachedSqlClient, QueryCache, RedisStore } from "effect-query-cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import * as Stub from "../bench/stub.ts"
import * as RedisServers from "../support/redis.ts"
import * as Door from "../support/redisDoor.ts"
import { thrownBy } from "../support/thrown.ts"

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

const replaceAfterMillis = 400

/** A connection by a door, and what is said of it. */
const through = Effect.fnUntraced(function*(options: Parameters<typeof NodeRedis.layer>[0] = {}) {
  const logged: Array<string> = []
  const logger = Logger.make(({ message }) => logged.push(String(message)))
  const server = yield* RedisServers.makeServer()
  const target = { port: server.port }
  const door = yield* Door.make(target)
  const scope = yield* Scope.fork(yield* Effect.scope)
  const redis = RedisStore.connectInBackground(
    NodeRedis.layer({ ...options, socket: { ...options.socket, host: "127.0.0.1", port: door.port } as object }),
    { replaceAfter: replaceAfterMillis }
  ).pipe(
    Layer.provide(Logger.layer([logger])),
    Layer.buildWithScope(scope),
    Effect.map(Context.get(Redis.Redis))
  )
  return {
    server,
    target,
    door,
    scope,
    redis: yield* redis,
    replaced: () => logged.filter((line) => line.includes("is replaced")).length
  }
})

/** As those ask who do not wait long. */
const asked = (redis: Redis.Redis["Service"], command = "PING", ...args: ReadonlyArray<string>) =>
  redis.send(command, ...args).pipe(Effect.timeout("50 millis"), Effect.exit, Effect.map(Exit.isSuccess))

const works = (redis: Redis.Redis["Service"], ...command: [string, ...Array<string>] | []) =>
  asked(redis, ...(command as [string])).pipe(
    Effect.repeat({ until: (is) => is, schedule: Schedule.spaced("20 millis") }),
    Effect.timeout("10 seconds")
  )

describe("a connection of which nothing comes any more is replaced", () => {
  it.live("half open, be it asked all the time", () =>
    Effect.gen(function*() {
      const { door, redis, replaced } = yield* through()
      yield* works(redis)
      const queue = yield* redis.subscribe("news")
      yield* door.mute
      const at = performance.now()
      yield* works(redis)
      assert.isAbove(performance.now() - at, replaceAfterMillis - 50)
      assert.strictEqual(replaced(), 1)
      // It may be half open as well.
      assert.strictEqual((yield* Effect.flip(Queue.take(queue)))._tag, "RedisError")
      const next = yield* redis.subscribe("news")
      yield* redis.send("PUBLISH", "news", "text")
      assert.strictEqual((yield* Queue.take(next)).message, "text")
    }), 20_000)

  it.live("half open from the beginning", () =>
    Effect.gen(function*() {
      const { door, redis } = yield* through()
      yield* works(redis)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* door.cut()
        // It is connected, and nothing is said.
        yield* door.weather({ lost: true, way: "down" })
        yield* asked(redis)
        yield* Effect.sleep(replaceAfterMillis * 3)
        assert.isFalse(yield* asked(redis))
      }))
      yield* works(redis)
    }), 20_000)

  it.live("given up by its client", () =>
    Effect.gen(function*() {
      const { redis, replaced } = yield* through({ socket: { socketTimeout: 100 } })
      yield* works(redis)
      yield* Effect.sleep(300)
      const error = yield* Effect.flip(redis.send("PING"))
      assert.include(String(error.cause), "closed")
      yield* works(redis)
      assert.strictEqual(replaced(), 1)
    }), 20_000)

  it.live("to a server that has become a replica", () =>
    Effect.gen(function*() {
      const { redis, replaced, server, target } = yield* through()
      yield* works(redis)
      const other = yield* RedisServers.makeServer()
      yield* server.command("REPLICAOF", "127.0.0.1", `${other.port}`)
      assert.isFalse(yield* asked(redis, "SET", "key", "value"))
      // Its name means the other one from now on.
      target.port = other.port
      yield* works(redis, "SET", "key", "value")
      assert.strictEqual(replaced(), 1)
      assert.strictEqual(yield* other.command("GET", "key"), "value")
    }), 20_000)

  it.live(
    "and no other: one that is slow or busy, refuses writes, or is only just asked again",
    () =>
      Effect.gen(function*() {
        const { door, redis, replaced, server } = yield* through()
        yield* works(redis)
        yield* Effect.scoped(Effect.gen(function*() {
          yield* door.weather({ delayMillis: () => 60 })
          for (const start = performance.now(); performance.now() - start < replaceAfterMillis * 3;) {
            assert.isFalse(yield* asked(redis))
          }
        }))
        yield* works(redis)
        yield* server.command("CONFIG", "SET", "min-replicas-to-write", "1")
        for (const start = performance.now(); performance.now() - start < replaceAfterMillis * 2;) {
          assert.isFalse(yield* asked(redis, "SET", "key", "value"))
          yield* Effect.sleep(20)
        }
        yield* server.command("CONFIG", "SET", "lua-time-limit", "10")
        yield* Effect.forkScoped(Effect.ignoreCause(server.command("EVAL", "while true do end", "0")))
        for (const start = performance.now(); performance.now() - start < replaceAfterMillis * 2;) {
          yield* asked(redis)
          yield* Effect.sleep(20)
        }
        assert.include(String((yield* Effect.flip(redis.send("PING"))).cause), "BUSY")
        yield* server.command("SCRIPT", "KILL")
        // A while without an answer, and a long one without a question.
        yield* server.pause
        assert.isFalse(yield* asked(redis))
        yield* server.resume
        yield* Effect.sleep(replaceAfterMillis * 2)
        assert.isTrue(yield* asked(redis))
        assert.strictEqual(replaced(), 0)
        assert.strictEqual(door.count(), 1)
      }),
    20_000
  )

  it.live("and nobody waits for it at the end", () =>
    Effect.gen(function*() {
      const { door, redis, scope } = yield* through()
      yield* works(redis)
      yield* door.mute
      assert.isFalse(yield* asked(redis))
      const at = performance.now()
      yield* Scope.close(scope, Exit.void)
      assert.isBelow(performance.now() - at, 3_000)
    }), 20_000)

  it("refuses bad options by name and value", () => {
    for (const options of [{ replaceAfter: 99 }, { replaceAfter: "Infinity" }, { after: 1 }] as ReadonlyArray<any>) {
      const error = thrownBy(() => RedisStore.connectInBackground(Layer.empty as any, options))
      assert.deepInclude(error, { option: Object.keys(options)[0], value: Object.values(options)[0] })
    }
  })
})
