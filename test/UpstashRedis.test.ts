import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, describe, it, layer } from "@effect/vitest"
import { Redis as UpstashClient } from "@upstash/redis"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import * as FastCheck from "fast-check"
import { once } from "node:events"
import { type AddressInfo, createServer } from "node:net"
import { inspect } from "node:util"
import { InvalidOptionError } from "../src/CacheError.ts"
import * as CacheStore from "../src/CacheStore.ts"
import * as RedisStore from "../src/RedisStore.ts"
import * as UpstashRedis from "../src/UpstashRedis.ts"
import { suite } from "./CacheStoreTest.ts"
import * as Upstash from "./support/upstash.ts"

const connect = (options?: Partial<UpstashRedis.UpstashOptions>) =>
  Layer.unwrap(
    Effect.map(Upstash.UpstashServer, (server) =>
      UpstashRedis.layer({ url: server.url, token: server.token, ...options }))
  )

/** Waits for what happens in another process. */
const eventually = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
  condition.pipe(
    Effect.tap((holds) => holds ? Effect.void : Effect.sleep("5 millis")),
    Effect.repeat({ until: (holds) => holds }),
    Effect.timeout("5 seconds")
  )

const failure = <A, R>(self: Effect.Effect<A, Redis.RedisError, R>) =>
  Effect.map(Effect.flip(self), (error) => {
    assert.instanceOf(error, Redis.RedisError)
    assert.instanceOf(error.cause, UpstashRedis.RestError)
    return error.cause as UpstashRedis.RestError
  })

/** Every way in which an error may end up in somebody's log. */
const printed = (error: unknown): string =>
  [
    String(error),
    String((error as any)?.message),
    String((error as any)?.stack),
    String((error as any)?.cause),
    String((error as any)?.cause?.stack),
    JSON.stringify(error),
    JSON.stringify((error as any)?.cause),
    inspect(error, { depth: 20, showHidden: true, getters: true }),
    Cause.pretty(Cause.fail(error))
  ].join("\n")

const add = Redis.script((key: string, amount: number) => [key, amount], {
  numberOfKeys: 1,
  lua: `return redis.call("INCRBY", KEYS[1], ARGV[1])`
}).withReturnType<number>()

layer(Upstash.layer, { excludeTestServices: true })("UpstashRedis", (it) => {
  describe("send", () => {
    const text = "grüße, 世界 🐘 \u{1F469}\u200D\u{1F680}"
    const commands: ReadonlyArray<readonly [string, ...Array<string>]> = [
      ["PING"],
      ["SET", "text", text],
      ["GET", "text"],
      ["SET", "odd", "\uFEFF\u0000\r\n\t\\\"' =="],
      ["GET", "odd"],
      ["SET", "empty", ""],
      ["GET", "empty"],
      ["GET", "absent"],
      ["MSET", "number", "1", "big", "12345678901234567890", "json", "{\"a\":[1,null]}", "null", "null", "b64", "T0s="],
      ["MGET", "number", "absent", "big", "json", "null", "b64"],
      ["INCR", "number"],
      ["DECRBY", "number", "44"],
      ["INCRBYFLOAT", "float", "0.1"],
      ["LRANGE", "absent", "0", "-1"],
      ["RPUSH", "list", "a", "", text],
      ["LRANGE", "list", "0", "-1"],
      ["HSET", "hash", "1", "2", "OK", "OK"],
      ["HGETALL", "hash"],
      ["XADD", "stream", "1-1", "field", text],
      ["XRANGE", "stream", "-", "+"],
      ["EVAL", "return {1, 'a', false, {2, {'b', {}}}, redis.status_reply('OK')}", "0"],
      ["EVAL", "return nil", "0"],
      ["EVAL", "return 4503599627370495", "0"],
      ["EVAL", "return true", "0"],
      ["EVAL", "return '\\255\\254 bytes that are no text'", "0"],
      ["TYPE", "list"],
      ["FLUSHALL"]
    ]

    it.effect("answers what TCP answers", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const run = Effect.gen(function*() {
          const redis = yield* Redis.Redis
          return yield* Effect.forEach(commands, ([command, ...args]) => redis.send(command, ...args))
        })
        const tcp = yield* Effect.provide(run, NodeRedis.layer({ url: server.redis.url, RESP: 2 }))
        const rest = yield* Effect.provide(run, connect())
        commands.forEach((command, index) => assert.deepStrictEqual(rest[index], tcp[index], command.join(" ")))
        assert.strictEqual(rest[2], text)
        assert.strictEqual(rest[7], null)
        assert.strictEqual(rest[10], 2)
      }))

    it.effect("brings any text back as it was", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.Redis
        const texts = FastCheck.sample(FastCheck.string({ unit: "binary", maxLength: 40 }), { numRuns: 500, seed: 7 })
        yield* redis.send("RPUSH", "texts", ...texts)
        assert.deepStrictEqual(yield* redis.send("LRANGE", "texts", "0", "-1"), texts)
      }).pipe(Effect.provide(connect())))

    it.effect("carries values of megabytes", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.Redis
        const value = "0123456789abcdé".repeat(300_000)
        yield* redis.send("SET", "large", value)
        assert.isTrue((yield* redis.send("GET", "large")) === value)
      }).pipe(Effect.provide(connect())))

    it.effect("says back what the server says of its own progress", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const redis = yield* Redis.Redis
        yield* server.arrivals
        yield* redis.send("PING")
        yield* redis.send("PING")
        yield* redis.send("PING")
        const [first, second, third] = yield* server.arrivals
        assert.strictEqual(first!.syncToken, undefined)
        assert.match(second!.syncToken!, /^sync-\d+$/)
        assert.strictEqual(third!.syncToken, `sync-${Number(second!.syncToken!.slice(5)) + 1}`)
      }).pipe(Effect.provide(connect())))

    it.effect("has no connections to reserve", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.Redis
        assert.strictEqual((yield* failure(redis.reserve)).reason, "Unsupported")
      }).pipe(Effect.provide(connect())))
  })

  describe("pipelining", () => {
    const increments = (count: number) =>
      Effect.flatMap(Redis.Redis, (redis) =>
        Effect.forEach(
          Array.from({ length: count }, (_, index) => index),
          (index) => redis.send<string>("ECHO", `${index}`),
          { concurrency: "unbounded" }
        ))

    it.effect("joins the commands of one tick into one request", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        yield* server.arrivals
        const replies = yield* increments(100)
        assert.deepStrictEqual(replies, Array.from({ length: 100 }, (_, index) => `${index}`))
        const arrivals = yield* server.arrivals
        assert.deepStrictEqual(arrivals.map((arrival) => [arrival.path, arrival.commands.length]), [["/pipeline", 100]])
      }).pipe(Effect.provide(connect())))

    it.effect("lets a bad command fail alone", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const redis = yield* Redis.Redis
        yield* redis.send("SET", "word", "one")
        yield* server.arrivals
        const [before, bad, after] = yield* Effect.all([
          redis.send("ECHO", "before"),
          failure(redis.send("INCR", "word")),
          redis.send("ECHO", "after")
        ], { concurrency: "unbounded" })
        assert.deepStrictEqual([before, after], ["before", "after"])
        assert.strictEqual(bad.reason, "Command")
        assert.include(bad.message, "ERR value is not an integer")
        assert.lengthOf(yield* server.arrivals, 1)
      }).pipe(Effect.provide(connect())))

    it.effect("bounds a request by commands and by size", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const redis = yield* Redis.Redis
        yield* server.arrivals
        yield* increments(300)
        assert.deepStrictEqual((yield* server.arrivals).map((arrival) => arrival.commands.length).sort(), [
          128,
          128,
          44
        ])
        yield* Effect.forEach(
          Array.from({ length: 7 }, (_, index) => `large:${index}`),
          (key) => redis.send("SET", key, "x".repeat(100_000)),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual((yield* server.arrivals).map((arrival) => arrival.commands.length).sort(), [1, 2, 2, 2])
      }).pipe(Effect.provide(connect())))

    it.effect("can be turned off", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        yield* server.arrivals
        yield* increments(5)
        assert.deepStrictEqual((yield* server.arrivals).map((arrival) => arrival.commands.length), [1, 1, 1, 1, 1])
      }).pipe(Effect.provide(connect({ pipelining: false }))))
  })

  it.effect("eval loads a script once, and again when the server has forgotten it", () =>
    Effect.gen(function*() {
      const server = yield* Upstash.UpstashServer
      const redis = yield* Redis.Redis
      const names = Effect.map(server.arrivals, (arrivals) =>
        arrivals.flatMap((arrival) => arrival.commands.map((command) => command[0])))
      yield* redis.send("DEL", "sum")
      yield* names
      assert.strictEqual(yield* redis.eval(add)("sum", 2), 2)
      assert.deepStrictEqual(yield* names, ["SCRIPT", "EVALSHA"])
      assert.strictEqual(yield* redis.eval(add)("sum", 3), 5)
      assert.deepStrictEqual(yield* names, ["EVALSHA"])
      yield* redis.send("SCRIPT", "FLUSH")
      yield* names
      assert.strictEqual(yield* redis.eval(add)("sum", 4), 9)
      assert.deepStrictEqual(yield* names, ["EVALSHA", "SCRIPT", "EVALSHA"])
    }).pipe(Effect.provide(connect())))

  describe("failures", () => {
    const secret = "a row that nobody may read"

    /** One failing command, with what was printed of it on the way. */
    const observe = Effect.fnUntraced(function*(
      command: ReadonlyArray<string>,
      options?: Partial<UpstashRedis.UpstashOptions>
    ) {
      const server = yield* Upstash.UpstashServer
      const [name, ...args] = command
      const spans: Array<Tracer.Span> = []
      const lines: Array<string> = []
      const logger = Logger.make((entry) => lines.push(inspect(entry, { depth: 20 })))
      const print = (...line: ReadonlyArray<unknown>) => void lines.push(inspect(line, { depth: 20 }))
      const { console } = globalThis
      globalThis.console = Object.setPrototypeOf({ log: print, warn: print, error: print, info: print }, console)

      const cause = yield* Effect.gen(function*() {
        const redis = yield* Redis.Redis
        return yield* failure(
          redis.send(name!, ...args).pipe(
            Effect.tapError((error) => Effect.sync(() => lines.push(printed(error)))),
            Effect.tapError((error) => Effect.logError("failed", error))
          )
        )
      }).pipe(
        Effect.withSpan("outer"),
        Effect.provide(connect(options)),
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, "All"),
        Effect.withTracer(Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            spans.push(span)
            return span
          }
        })),
        Effect.ensuring(Effect.sync(() => globalThis.console = console))
      )
      const everything = lines.join("\n")
      assert.include(everything, "failed")
      assert.notInclude(everything, Redacted.value(server.token))
      assert.notInclude(everything, secret)
      assert.deepStrictEqual(spans.map((span) => span.name), ["outer"])
      return cause
    })

    const command = ["SET", "key", secret]

    it.effect("a wrong token is denied", () =>
      Effect.gen(function*() {
        const token = "another-token-that-is-wrong"
        const cause = yield* observe(command, { token })
        assert.strictEqual(cause.reason, "Denied")
        assert.strictEqual(cause.status, 401)
        assert.include(cause.message, "WRONGPASS")
        assert.notInclude(printed(cause), token)
      }))

    for (const status of [401, 403]) {
      it.effect(`HTTP ${status} with any body is a denial`, () =>
        Effect.gen(function*() {
          const server = yield* Upstash.UpstashServer
          yield* server.fault({ answer: { status, body: `no, ${Redacted.value(server.token)}` } })
          const cause = yield* observe(command)
          assert.deepStrictEqual([cause.reason, cause.status], ["Denied", status])
          assert.include(cause.message, "WRONGPASS")
        }))
    }

    for (const status of [302, 400, 429, 500, 503]) {
      it.effect(`HTTP ${status} is told by its number, and is not sent again`, () =>
        Effect.gen(function*() {
          const server = yield* Upstash.UpstashServer
          yield* server.arrivals
          yield* server.fault({ answer: { status, body: `<h1>${secret}</h1>`, location: `${server.url}/elsewhere` } })
          const cause = yield* observe(command)
          assert.deepStrictEqual([cause.reason, cause.status], ["Status", status])
          assert.deepStrictEqual((yield* server.arrivals).map((arrival) => arrival.path), ["/pipeline"])
        }))
    }

    it.effect("what the server says of it is kept, without the token", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const error = `ERR max daily request limit exceeded for ${Redacted.value(server.token)}`
        yield* server.fault({ answer: { status: 400, body: JSON.stringify({ error }) } })
        const cause = yield* observe(command)
        assert.strictEqual(cause.message, "HTTP 400: ERR max daily request limit exceeded for <redacted>")
      }))

    for (const body of [secret, "", "{}", "null", "[]", "[1]", "[{}]", "[{\"result\":1},{\"result\":2}]"]) {
      it.effect(`${JSON.stringify(body)} is not a reply`, () =>
        Effect.gen(function*() {
          const server = yield* Upstash.UpstashServer
          yield* server.fault({ answer: { status: 200, body } })
          assert.strictEqual((yield* observe(command)).reason, "InvalidReply")
        }))
    }

    it.effect("Redis's own errors keep their words, not the arguments", () =>
      Effect.gen(function*() {
        const unknown = yield* observe(["NOSUCH", secret, "more"])
        assert.strictEqual(unknown.reason, "Command")
        assert.match(unknown.message, /^ERR unknown command 'NOSUCH'$/)
        const script = yield* observe(["EVALSHA", "0".repeat(40), "0", secret])
        assert.include(String(script), "NOSCRIPT")
      }))

    it.effect("a server that does not answer is left after the time-out", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const before = yield* server.abandoned
        yield* server.arrivals
        yield* server.fault({ hang: true })
        const cause = yield* observe(command, { requestTimeout: "100 millis" })
        assert.strictEqual(cause.reason, "Timeout")
        assert.strictEqual(cause.message, "No answer within 100 ms")
        yield* eventually(Effect.map(server.abandoned, (abandoned) => abandoned === before + 1))
        assert.lengthOf(yield* server.arrivals, 1)
      }))

    it.effect("a lost reply does not make a command run twice", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        yield* server.arrivals
        yield* server.fault({ cut: true })
        const cause = yield* observe(["INCR", "once", secret].slice(0, 2))
        assert.strictEqual(cause.reason, "Disconnected")
        assert.lengthOf(yield* server.arrivals, 1)
        yield* server.fault(undefined)
        const value = yield* Effect.provide(
          Effect.flatMap(Redis.Redis, (redis) => redis.send("GET", "once")),
          connect()
        )
        assert.strictEqual(value, "1")
      }))

    const nowhere = Effect.promise(async () => {
      const probe = createServer().listen(0, "127.0.0.1")
      await once(probe, "listening")
      const { port } = probe.address() as AddressInfo
      probe.close()
      await once(probe, "close")
      return `http://127.0.0.1:${port}`
    })

    const counted = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<[A, fetches: number], E, R> =>
      Effect.suspend(() => {
        const { fetch } = globalThis
        let count = 0
        globalThis.fetch = (...args) => {
          count++
          return fetch(...args)
        }
        return Effect.map(self, (value): [A, number] => [value, count]).pipe(
          Effect.ensuring(Effect.sync(() => globalThis.fetch = fetch))
        )
      })

    for (const retries of [undefined, 0, 1]) {
      it.effect(`what cannot have arrived is sent again, ${retries ?? "by default 2"} times`, () =>
        Effect.gen(function*() {
          const options = { requestTimeout: "10 seconds", retries } as const
          const [refused, count] = yield* counted(observe(command, { url: yield* nowhere, ...options }))
          assert.deepStrictEqual([refused.reason, count], ["Unreachable", 1 + (retries ?? 2)])
          assert.include(refused.message, "(ECONNREFUSED)")
          const [unknown] = yield* counted(observe(command, { url: "http://nowhere.invalid", ...options }))
          assert.strictEqual(unknown.reason, "Unreachable")
        }))
    }

    it.effect("sending again ends with the time-out too", () =>
      Effect.gen(function*() {
        const options = { url: yield* nowhere, retries: 100, requestTimeout: "120 millis" } as const
        const [cause, count] = yield* counted(observe(command, options))
        assert.strictEqual(cause.reason, "Timeout")
        assert.isAtMost(count, 3)
      }))
  })

  describe("interruption", () => {
    it.effect("ends the request of a command that is alone in it", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const redis = yield* Redis.Redis
        const before = yield* server.abandoned
        yield* server.arrivals
        yield* server.fault({ hang: true })
        const fiber = yield* Effect.forkChild(redis.send("PING"))
        yield* eventually(Effect.map(server.arrivals, (arrivals) => arrivals.length === 1))
        yield* Fiber.interrupt(fiber)
        yield* eventually(Effect.map(server.abandoned, (abandoned) => abandoned === before + 1))
        yield* server.fault(undefined)
        assert.strictEqual(yield* redis.send("PING"), "PONG")
      }).pipe(Effect.provide(connect({ requestTimeout: "10 seconds" }))))

    it.effect("leaves the others their request, and ends it with the last of them", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const redis = yield* Redis.Redis
        const start = Effect.gen(function*() {
          yield* server.arrivals
          yield* server.fault({ hang: true })
          const fibers = yield* Effect.forEach(["a", "b", "c"], (text) => Effect.forkChild(redis.send("ECHO", text)))
          yield* eventually(Effect.map(server.arrivals, (arrivals) => arrivals[0]?.commands.length === 3))
          return fibers
        })
        const before = yield* server.abandoned

        const [a, b, c] = yield* start
        yield* Fiber.interrupt(b!)
        yield* server.fault(undefined)
        assert.deepStrictEqual([yield* Fiber.join(a!), yield* Fiber.join(c!)], ["a", "c"])
        assert.strictEqual(yield* server.abandoned, before)

        yield* Effect.forEach(yield* start, Fiber.interrupt)
        yield* eventually(Effect.map(server.abandoned, (abandoned) => abandoned === before + 1))
      }).pipe(Effect.provide(connect({ requestTimeout: "10 seconds" }))))

    it.effect("in the same tick sends nothing", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const redis = yield* Redis.Redis
        yield* server.arrivals
        Effect.runFork(redis.send("ECHO", "never")).interruptUnsafe()
        yield* Effect.sleep(1)
        assert.strictEqual(yield* redis.send("ECHO", "sent"), "sent")
        assert.deepStrictEqual((yield* server.arrivals).map((arrival) => arrival.commands), [[["ECHO", "sent"]]])
      }).pipe(Effect.provide(connect())))

    it.effect("a closed layer fails who still waits", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const scope = yield* Scope.make()
        const context = yield* Layer.buildWithScope(connect(), scope)
        const send = Effect.provide(Effect.flatMap(Redis.Redis, (redis) => redis.send("PING")), context)
        yield* server.arrivals
        yield* server.fault({ hang: true })
        const fiber = yield* Effect.forkChild(failure(send))
        yield* eventually(Effect.map(server.arrivals, (arrivals) => arrivals.length === 1))
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual((yield* Fiber.join(fiber)).message, "The client is closed")
        yield* server.fault(undefined)
        assert.strictEqual((yield* failure(send)).message, "The client is closed")
      }))
  })

  describe("subscribe", () => {
    it.effect("delivers what is published once it has succeeded", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.Redis
        for (let round = 0; round < 20; round++) {
          yield* Effect.scoped(Effect.gen(function*() {
            const queue = yield* redis.subscribe(`round:${round}`)
            assert.strictEqual(yield* redis.send("PUBLISH", `round:${round}`, `${round}`), 1)
            assert.deepStrictEqual(yield* Queue.take(queue), { channel: `round:${round}`, message: `${round}` })
          }))
        }
      }).pipe(Effect.provide(connect())))

    it.effect("delivers in order, whatever channel and text", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.Redis
        const texts = ["", ",", "a,b", "data: x", "one\ntwo\n\nthree", "{\"n\":1}", "7", "世界 🐘", "x".repeat(500_000)]
        for (const channel of ["plain", "ns:inv:1", "a,b", "a/b?c#d", "%41 +", "世界"]) {
          yield* Effect.scoped(Effect.gen(function*() {
            const queue = yield* redis.subscribe(channel)
            yield* Effect.forEach(texts, (text) => redis.send("PUBLISH", channel, text))
            const received = yield* Queue.takeN(queue, texts.length)
            assert.deepStrictEqual(received, texts.map((message) => ({ channel, message })))
          }))
        }
      }).pipe(Effect.provide(connect())))

    it.effect("reads characters that arrive in pieces, and skips what is no event", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const redis = yield* Redis.Redis
        const queue = yield* redis.subscribe("pieces")
        const bytes = new TextEncoder().encode(": keep alive\n\nevent: x\r\ndata:message,pieces,🐘 é\r\n\r\n")
        for (const byte of bytes) {
          yield* server.writeStreams(Uint8Array.of(byte))
          yield* Effect.sleep(1)
        }
        assert.strictEqual((yield* Queue.take(queue)).message, "🐘 é")
      }).pipe(Effect.scoped, Effect.provide(connect())))

    it.effect("reads events without blank lines between them", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const redis = yield* Redis.Redis
        const body = "data: subscribe,chat,1\ndata: message,chat,hello\ndata: message,chat,how are you today?\n"
        yield* server.fault({ answer: { status: 200, body } })
        const queue = yield* redis.subscribe("chat")
        yield* server.fault(undefined)
        assert.strictEqual((yield* Queue.take(queue)).message, "hello")
        assert.strictEqual((yield* Queue.take(queue)).message, "how are you today?")
        assert.strictEqual((yield* failure(Queue.take(queue))).reason, "Disconnected")
      }).pipe(Effect.scoped, Effect.provide(connect())))

    it.effect("ends its request with its scope", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const redis = yield* Redis.Redis
        yield* eventually(Effect.map(server.streams, (streams) => streams === 0))
        yield* Effect.scoped(Effect.gen(function*() {
          yield* redis.subscribe("scoped")
          yield* redis.subscribe("scoped too")
          assert.strictEqual(yield* server.streams, 2)
        }))
        yield* eventually(Effect.map(server.streams, (streams) => streams === 0))
      }).pipe(Effect.provide(connect())))

    for (const how of ["end", "cut"] as const) {
      it.effect(`fails its queue when the stream breaks (${how})`, () =>
        Effect.gen(function*() {
          const server = yield* Upstash.UpstashServer
          const redis = yield* Redis.Redis
          yield* eventually(Effect.map(server.streams, (streams) => streams === 0))
          const queue = yield* redis.subscribe("broken")
          yield* redis.send("PUBLISH", "broken", "last words")
          assert.strictEqual((yield* Queue.take(queue)).message, "last words")
          yield* server.endStreams(how)
          const cause = yield* failure(Queue.take(queue))
          assert.strictEqual(cause.reason, "Disconnected")
          const again = yield* redis.subscribe("broken")
          yield* redis.send("PUBLISH", "broken", "back")
          assert.strictEqual((yield* Queue.take(again)).message, "back")
        }).pipe(Effect.scoped, Effect.provide(connect())))
    }

    it.effect("fails its queue when an event has no end", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const redis = yield* Redis.Redis
        yield* eventually(Effect.map(server.streams, (streams) => streams === 0))
        const queue = yield* redis.subscribe("endless")
        yield* server.writeStreams(`data: message,endless,${"x".repeat(1024 * 1024)}`)
        assert.strictEqual((yield* failure(Queue.take(queue))).reason, "InvalidReply")
        yield* eventually(Effect.map(server.streams, (streams) => streams === 0))
      }).pipe(Effect.scoped, Effect.provide(connect())))

    it.effect("fails its queue when it is not confirmed in time, and ends the request", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const redis = yield* Redis.Redis
        const before = yield* server.abandoned
        yield* server.fault({ hang: true })
        const queue = yield* redis.subscribe("silent")
        assert.strictEqual((yield* failure(Queue.take(queue))).reason, "Timeout")
        yield* eventually(Effect.map(server.abandoned, (abandoned) => abandoned === before + 1))
      }).pipe(Effect.scoped, Effect.provide(connect({ requestTimeout: "100 millis" }))))

    it.effect("fails its queue when the token is refused, and shows none", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.Redis
        const queue = yield* redis.subscribe("denied")
        const cause = yield* failure(Queue.take(queue))
        assert.strictEqual(cause.reason, "Denied")
        assert.notInclude(printed(cause), "not-the-token")
      }).pipe(Effect.scoped, Effect.provide(connect({ token: Redacted.make("not-the-token") }))))
  })

  describe("the client of @upstash/redis", () => {
    it.effect("shares the transport", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const { use } = yield* UpstashRedis.UpstashRedis
        yield* use((client) => client.set("object", { n: [1, "two"] }))
        assert.deepStrictEqual(yield* use((client) => client.get("object")), { n: [1, "two"] })
        yield* server.arrivals
        assert.deepStrictEqual(
          yield* use((client) => Promise.all([client.get("object"), client.exists("object")])),
          [{ n: [1, "two"] }, 1]
        )
        assert.deepStrictEqual(
          yield* use((client) => client.pipeline().incr("clients").get("object").exec()),
          [1, { n: [1, "two"] }]
        )
        assert.deepStrictEqual((yield* server.arrivals).map((arrival) => arrival.commands.length), [2, 2])

        const wrong = yield* failure(use((client) => client.incr("object")))
        assert.strictEqual(wrong.reason, "Command")
        const pipeline = yield* Effect.flip(use((client) =>
          // This Redis knows no JSON, and says so with what it was given.
          client.pipeline().json.set("object", "$", { row: "a secret row" }).exec()
        ))
        assert.include(String(pipeline.cause), "ERR unknown command 'JSON.SET'")
        assert.notInclude(printed(pipeline), "a secret row")
      }).pipe(Effect.provide(connect())))

    it.effect("by its own transport reads what was written here, and hears what is published here", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const redis = yield* Redis.Redis
        const client = new UpstashClient({ url: server.url, token: Redacted.value(server.token) })
        yield* redis.send("SET", "shared", JSON.stringify({ text: "grüße 🐘" }))
        assert.deepStrictEqual(yield* Effect.promise(() => client.get("shared")), { text: "grüße 🐘" })
        const subscriber = client.subscribe<string>("shared")
        yield* Effect.addFinalizer(() => Effect.promise(() => subscriber.unsubscribe()))
        yield* Effect.callback<void>((resume) => subscriber.on("subscribe", () => resume(Effect.void)))
        const heard = yield* Effect.forkChild(
          Effect.callback<unknown>((resume) =>
            subscriber.on("message", (message) => resume(Effect.succeed(message.message)))
          ),
          { startImmediately: true }
        )
        yield* redis.send("PUBLISH", "shared", "hello, you")
        assert.strictEqual(yield* Fiber.join(heard), "hello, you")
      }).pipe(Effect.scoped, Effect.provide(connect())))
  })

  it.effect("takes a URL with a path, and slashes at its end", () =>
    Effect.gen(function*() {
      const server = yield* Upstash.UpstashServer
      yield* server.arrivals
      yield* server.fault({ answer: { status: 200, body: "[{\"result\":1}]" } })
      const ping = Effect.flatMap(Redis.Redis, (redis) => redis.send("PING"))
      assert.strictEqual(yield* Effect.provide(ping, connect({ url: `${server.url}/tenant//` })), 1)
      assert.strictEqual((yield* server.arrivals)[0]!.path, "/tenant/pipeline")
    }))

  describe("layerConfig", () => {
    const ping = Effect.flatMap(Redis.Redis, (redis) => redis.send("PING"))
    const environment = (variables: Record<string, string>) =>
      Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromUnknown(variables))

    it.effect("reads the variables that Upstash names", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const variables = { UPSTASH_REDIS_REST_URL: server.url, UPSTASH_REDIS_REST_TOKEN: Redacted.value(server.token) }
        const reply = yield* ping.pipe(Effect.provide(UpstashRedis.layerConfig()), environment(variables))
        assert.strictEqual(reply, "PONG")
      }))

    it.effect("reads any other", () =>
      Effect.gen(function*() {
        const server = yield* Upstash.UpstashServer
        const variables = { WHERE: server.url, WHAT: Redacted.value(server.token), TIMEOUT: "50 millis" }
        yield* server.fault({ hang: true })
        const cause = yield* failure(ping).pipe(
          Effect.provide(UpstashRedis.layerConfig({
            url: Config.String("WHERE"),
            token: Config.Redacted("WHAT"),
            requestTimeout: Config.Duration("TIMEOUT").pipe(Config.withDefault(undefined))
          })),
          environment(variables)
        )
        assert.strictEqual(cause.message, "No answer within 50 ms")
      }))

    it.effect("fails where one is missing", () =>
      Effect.gen(function*() {
        const result = yield* Effect.result(ping).pipe(
          Effect.provide(UpstashRedis.layerConfig()),
          environment({ UPSTASH_REDIS_REST_URL: "http://127.0.0.1:1" }),
          Effect.flip
        )
        assert.strictEqual(result._tag, "ConfigError")
        assert.include(String(result), "UPSTASH_REDIS_REST_TOKEN")
      }))

    it.effect("dies of a bad one without showing it", () =>
      Effect.gen(function*() {
        const variables = { UPSTASH_REDIS_REST_URL: "http://127.0.0.1:1", UPSTASH_REDIS_REST_TOKEN: "se\ncret" }
        const exit = yield* Effect.exit(ping.pipe(
          Effect.provide(UpstashRedis.layerConfig()),
          environment(variables)
        ))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
        assert.include(printed(exit), "\"token\" must be")
        assert.notInclude(printed(exit), "cret\"")
      }))
  })
})

describe("UpstashRedis.layer", () => {
  const url = "https://host.upstash.io"
  const token = "tok-secret"
  const refused: ReadonlyArray<readonly [option: string, options: any]> = [
    ["url", { url: undefined, token }],
    ["url", { url: "", token }],
    ["url", { url: "tok-secret", token: url }],
    ["url", { url: "rediss://default:tok-secret@host.upstash.io:6379", token }],
    ["url", { url: "https://default:tok-secret@host.upstash.io", token }],
    ["url", { url: `${url}?_token=tok-secret`, token }],
    ["url", { url: `${url}#tok-secret`, token }],
    ["token", { url, token: undefined }],
    ["token", { url, token: "" }],
    ["token", { url, token: "tok-secret\n" }],
    ["token", { url, token: Redacted.make("tok secret") }],
    ["token", { url, token: Redacted.make(["tok-secret"]) }],
    ["requestTimeout", { url, token, requestTimeout: 0 }],
    ["requestTimeout", { url, token, requestTimeout: "-1 second" }],
    ["requestTimeout", { url, token, requestTimeout: Infinity }],
    ["retries", { url, token, retries: -1 }],
    ["retries", { url, token, retries: 1.5 }],
    ["retries", { url, token, retries: Infinity }],
    ["pipelining", { url, token, pipelining: "yes" }],
    ["retry", { url, token, retry: 1 }],
    ["Token", { url, Token: token }]
  ]
  for (const [option, options] of refused) {
    it(`refuses ${inspect(options, { breakLength: Infinity })}`, () => {
      const result = Result.try({ try: () => UpstashRedis.layer(options), catch: (error) => error })
      assert(Result.isFailure(result))
      assert.instanceOf(result.failure, InvalidOptionError)
      assert.strictEqual(result.failure.option, option)
      assert.notMatch(printed(result.failure), /tok.secret/)
    })
  }
})

for (const layout of ["flat", "grouped"] as const) {
  suite(
    `RedisStore over REST, ${layout}`,
    RedisStore.layer({ layout }).pipe(Layer.provideMerge(connect()), Layer.provide(Upstash.layer)),
    {
      live: true,
      another: Effect.flatMap(Redis.Redis, (redis) =>
        RedisStore.layer({ layout }).pipe(
          Layer.provide(Layer.succeed(Redis.Redis, redis)),
          Layer.build,
          Effect.map(Context.get(CacheStore.CacheStore))
        ))
    }
  )
}
