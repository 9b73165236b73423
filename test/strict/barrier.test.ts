/**
 * What strict mode does where Redis loses what it knew: nothing is served until the transactions that were under way have
 * ended. And who may keep a namespace so.
 */
import { assert, layer } from "@effect/vitest"
import { Dependency, Invalidator, QueryCache, RedisStore, TieredStore } from "effect-query-cache"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import { InvalidOptionError } from "../../src/CacheError.ts"
import * as StrictScripts from "../../src/internal/redis/strictScripts.ts"
import { keyOf, setOf } from "../CacheStoreTest.ts"
import { fateOf, nameOf } from "../client/fixture.ts"
import * as Logs from "../support/logs.ts"
import * as TestRedis from "../support/redis.ts"
import {
  codeOf,
  committing,
  eventually,
  expire,
  fences,
  held,
  key,
  make,
  noFences,
  type Process,
  read,
  redis,
  rename,
  servers,
  setUp,
  strict,
  warm
} from "../support/strictProcess.ts"

/** A transaction that has written and goes on until it is told to commit: its fence was lost with all the others. */
const unfenced = Effect.fnUntraced(function*({ base }: Process, name: string) {
  const written = yield* Deferred.make<void>()
  const commit = yield* Deferred.make<void>()
  const fiber = yield* Effect.forkScoped(base.withTransaction(
    base`UPDATE users SET name = ${name} WHERE id = 1`.pipe(
      Effect.andThen(Deferred.succeed(written, undefined)),
      Effect.andThen(Deferred.await(commit))
    )
  ))
  yield* Deferred.await(written)
  return Effect.andThen(Deferred.succeed(commit, undefined), Fiber.join(fiber))
})

const losses: Record<string, ReadonlyArray<string>> = {
  "the fences": ["UNLINK", key("fences")],
  "the metadata": ["UNLINK", key("meta")],
  "the stamps": ["UNLINK", key("stamps")],
  everything: ["FLUSHALL"],
  "the fences, for something else": ["SET", key("fences"), "something else"]
}

layer(servers, { excludeTestServices: true })("the barrier", (it) => {
  for (const [what, loss] of Object.entries(losses)) {
    it.effect(`Redis loses ${what} while a write is under way`, () =>
      Effect.gen(function*() {
        const { reader, writer } = yield* setUp()
        const commit = yield* unfenced(writer, "Augusta")
        yield* redis(...loss)
        for (let i = 0; i < 5; i++) {
          assert.deepStrictEqual(yield* read(reader), ["bypass barrier", "Ada"])
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 20)))
        }
        assert.strictEqual(yield* Effect.provide(barrier, reader.context), 1)
        assert.deepStrictEqual(
          yield* redis("KEYS", key("e:*")).pipe(Effect.map((keys) => what === "everything" ? keys : [])),
          []
        )
        yield* commit
        const [fate, name] = yield* read(reader)
        assert.include(["bypass barrier", "miss"], fate)
        assert.strictEqual(name, "Augusta")
        yield* warm(reader)
        assert.deepStrictEqual(yield* read(writer), ["hit", "Augusta"])
        yield* eventually("told", Effect.map(Effect.provide(barrier, reader.context), (value) => value === 0))
      }))
  }

  it.effect("a barrier that another process has opened is open, and one that has begun is waited for together", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const commit = yield* unfenced(writer, "Augusta")
      yield* redis("FLUSHALL")
      yield* read(reader)
      const awaited = eventually(
        "a transaction",
        Effect.map(redis("HGET", key("fences"), "barrier"), (x) => x ?? false)
      )
      const transaction = yield* awaited
      yield* read(writer)
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 30)))
      assert.strictEqual(yield* awaited, transaction)
      // One that is not the one that is waited for opens nothing, and neither does one of another epoch.
      const [epoch] = yield* redis("HMGET", key("meta"), "epoch")
      yield* reader.store.strict!.barrier("shop", { epoch, transaction: "1", isPassed: true })
      yield* reader.store.strict!.barrier("shop", { epoch: "1-strict.other", transaction, isPassed: true })
      assert.strictEqual(yield* awaited, transaction)
      yield* commit
      yield* warm(reader)
    }))

  it.effect("invalidating everything loses no fence, and closes nothing", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const { gate, writing } = yield* committing(writer, "Augusta")
      yield* Invalidator.invalidate({ all: true }).pipe(Effect.provide(reader.context))
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Augusta"])
      // Which columns rows were asked for by is forgotten, so this may be the row; that table it is not.
      assert.deepStrictEqual(yield* read(reader, 2), ["bypass fenced", "Grace"])
      const orders = reader.sql`SELECT count(*) FROM orders`.pipe(QueryCache.cached())
      assert.deepStrictEqual((yield* fateOf(orders))[0], "miss")
      gate.release()
      yield* Fiber.join(writing)
      assert.deepStrictEqual(yield* read(reader), ["miss", "Augusta"])
    }))

  it.effect("a write that may have changed anything fences everything, and its dead writer is resolved", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const gate = writer.gate.holdCommand("reply", StrictScripts.fence.lua)
      const writing = yield* Effect.forkChild(writer.sql.withTransaction(writer.sql`CALL touch()`))
      yield* held(gate)
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Ada"])
      assert.deepStrictEqual(yield* read(reader, 2), ["bypass fenced", "Grace"])
      writer.cutOff()
      gate.release()
      yield* Fiber.join(writing)
      yield* expire
      yield* read(reader)
      yield* noFences
      assert.deepStrictEqual(yield* read(reader, 3), ["miss", "Touched"])
      yield* warm(reader)
    }))

  it.effect("too many fences become fences on everything, and then none is put up", () =>
    Effect.gen(function*() {
      const { reader } = yield* setUp()
      yield* warm(reader, 2)
      const put = (token: string) =>
        reader.store.strict!.fence({
          namespace: "shop",
          token,
          transaction: "3",
          stamps: ["elsewhere"],
          images: [],
          all: false
        })
      for (let i = 0; i < 1000; i++) yield* put(`t${i}`)
      assert.deepStrictEqual(yield* read(reader), ["hit", "Ada"])
      yield* put("one-more")
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Ada"])
      // A command that is sent again finds what it has put up.
      yield* put("one-more")
      assert.strictEqual(yield* redis("HGET", key("fences"), "count"), "1001")
      yield* reader.store.strict!.resolve("shop", "one-more", "aborted")
      assert.deepStrictEqual(yield* read(reader), ["hit", "Ada"])
      yield* redis("HSET", key("fences"), "count", "2000")
      const error = yield* Effect.flip(put("too-many"))
      assert.strictEqual(error.reason._tag, "WriteRefused")
      assert.strictEqual(yield* codeOf(rename(reader, "Augusta")), "fence-failed")
    }))

  it.effect("fences that nobody's reads meet are found by the writers that come after", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      yield* reader.store.strict!.fence({
        namespace: "shop",
        token: "left",
        transaction: "3",
        stamps: ["elsewhere"],
        images: [],
        all: false
      })
      yield* expire
      yield* rename(writer, "Augusta")
      yield* noFences
      assert.deepStrictEqual(yield* fences, [])
    }))
})

const barrier = Effect.map(Metric.snapshot, (all) => {
  const found = all.find(({ id }) => id === "query_cache_barrier")
  return (found?.state as { readonly value: number } | undefined)?.value
})

layer(servers, { excludeTestServices: true })("who keeps a namespace how", (it) => {
  it.effect("a bounded process over a strict namespace gets no cache, and is heard", () =>
    Effect.gen(function*() {
      const { reader } = yield* setUp()
      const messages = (yield* Logs.Logs).messages
      const bounded = yield* make({ store: RedisStore.layer() })
      assert.deepStrictEqual(yield* read(bounded), ["miss", "Ada"])
      assert.deepStrictEqual(yield* read(bounded), ["miss", "Ada"])
      const error = yield* Effect.flip(bounded.store.lookup(keyOf("shop", "q"), setOf(Dependency.table("users"))))
      assert.strictEqual(error.reason._tag, "ConsistencyRefused")
      assert.strictEqual((yield* messages).filter((line) => line.includes("is kept strict")).length, 1)
      // It keeps nobody waiting.
      assert.deepStrictEqual(yield* redis("KEYS", key("f:*")), [])
      yield* warm(reader)
      yield* rename(bounded, "Augusta")
      assert.deepStrictEqual(yield* read(reader), ["miss", "Augusta"])
      yield* warm(reader)
      yield* Invalidator.invalidate({ all: true }).pipe(Effect.provide(bounded.context))
      yield* warm(reader)
      // One that comes when all is lost, and has seen how it was kept.
      yield* redis("UNLINK", key("meta"))
      yield* rename(bounded, "Ada")
      yield* warm(reader)
    }).pipe(Effect.provide(Logs.layer)))

  it.effect("one whose first word is that everything is invalid leaves it strict", () =>
    Effect.gen(function*() {
      const { reader } = yield* setUp()
      const bounded = yield* make({ store: RedisStore.layer() })
      yield* Invalidator.invalidate({ all: true }).pipe(Effect.provide(bounded.context))
      yield* warm(reader)
    }))

  it.effect("a strict process over a bounded namespace serves nothing and writes nothing, until that is gone", () =>
    Effect.gen(function*() {
      const { reader } = yield* setUp({ store: RedisStore.layer() })
      const other = yield* make()
      assert.deepStrictEqual(yield* read(other), ["miss", "Ada"])
      const error = yield* Effect.flip(other.store.lookup(keyOf("shop", "q"), setOf(Dependency.table("users"))))
      assert.strictEqual(error.reason._tag, "ConsistencyRefused")
      assert.include(error.message, "delete its key 'meta'")
      assert.strictEqual(yield* codeOf(rename(other, "Augusta")), "fence-failed")
      assert.deepStrictEqual(yield* read(reader), ["hit", "Ada"])
      yield* redis("UNLINK", key("meta"))
      yield* rename(other, "Augusta")
      yield* warm(other)
    }))

  it.effect("a Redis that hides its identity is refused", () =>
    Effect.gen(function*() {
      yield* setUp()
      const server = yield* TestRedis.RedisServer
      yield* redis("ACL", "SETUSER", "hidden", "on", ">pass", "~*", "&*", "+@all", "-info")
      const client = TestRedis.client(server, { username: "hidden", password: "pass" })
      const process = yield* make({ store: strict().pipe(Layer.provide(client)) })
      const error = yield* Effect.flip(process.store.lookup(keyOf("shop", "q"), setOf()))
      assert.strictEqual(error.reason._tag, "ConsistencyRefused")
      assert.include(error.message, "replication id")
      assert.strictEqual(yield* codeOf(rename(process, "Augusta")), "fence-failed")
    }))

  it.effect("a level in the process is for those who ask each time", () =>
    Effect.gen(function*() {
      const tiered = (coherence?: "backplane" | "revalidate" | "ttl") => () =>
        TieredStore.layer({ consistency: "strict", coherence })
      for (const coherence of [undefined, "backplane", "ttl"] as const) {
        assert.throws(tiered(coherence), InvalidOptionError, "\"coherence\"")
      }
      assert.throws(() => RedisStore.layer({ fenceReplicas: 1 }), InvalidOptionError, "\"fenceReplicas\"")
      assert.throws(() => strict({ fenceReplicas: 0 }), InvalidOptionError, "\"fenceReplicas\"")
      assert.throws(() => RedisStore.layer({ consistency: "strong" as never }), InvalidOptionError, "\"consistency\"")

      const { reader, writer } = yield* setUp({ store: tiered("revalidate")() })
      const query = nameOf(reader.sql, 1).pipe(QueryCache.cached())
      const [[info]] = yield* QueryCache.withInfo(query)
      assert.deepStrictEqual([info.status, info.level], ["hit", "L1"])
      const { gate, writing } = yield* committing(writer, "Augusta")
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Augusta"])
      gate.release()
      yield* Fiber.join(writing)
      assert.deepStrictEqual(yield* read(reader), ["miss", "Augusta"])
      yield* warm(reader)
      const commit = yield* unfenced(writer, "Ada")
      yield* redis("UNLINK", key("fences"))
      assert.deepStrictEqual(yield* read(reader), ["bypass barrier", "Augusta"])
      yield* commit
      assert.strictEqual((yield* read(reader))[1], "Ada")
    }))

  it.effect("a fence waits for a replica", () =>
    Effect.gen(function*() {
      const server = yield* TestRedis.RedisServer
      const { reader, writer } = yield* setUp({ store: strict({ fenceReplicas: 1 }) })
      // Nobody takes it over: rolled back.
      assert.strictEqual(yield* codeOf(rename(writer, "Augusta")), "fence-failed")
      yield* noFences
      // Else it waits for others that want the same.
      yield* server.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
      const replica = yield* TestRedis.makeServer({ replicaof: `127.0.0.1 ${server.port}` })
      yield* eventually(
        "in step",
        Effect.map(replica.command("INFO", "replication"), (info: string) => info.includes("master_link_status:up"))
      )
      yield* warm(reader)
      yield* rename(writer, "Augusta")
      assert.deepStrictEqual(yield* read(reader), ["miss", "Augusta"])
    }))
})
