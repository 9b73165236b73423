/**
 * Strict mode between processes, on real servers: nothing older than an acknowledged commit is served, in whatever window
 * the writer is, and whatever becomes of it there.
 */
import { assert, layer } from "@effect/vitest"
import { Dependency, QueryCache, RedisStore } from "effect-query-cache"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as Scripts from "../../src/internal/redis/scripts.ts"
import * as StrictScripts from "../../src/internal/redis/strictScripts.ts"
import { keyOf, setOf } from "../CacheStoreTest.ts"
import { fateOf } from "../client/fixture.ts"
import {
  codeOf,
  committing,
  eventually,
  expire,
  fences,
  held,
  key,
  noFences,
  read,
  redis,
  rename,
  servers,
  setUp,
  warm
} from "../support/strictProcess.ts"

layer(servers, { excludeTestServices: true })("strict mode", (it) => {
  it.effect("what was committed and not yet invalidated is not served, nor stored", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const { gate, writing } = yield* committing(writer, "Augusta")
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Augusta"])
      assert.deepStrictEqual(yield* read(writer), ["bypass fenced", "Augusta"])
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Augusta"])
      gate.release()
      yield* Fiber.join(writing)
      assert.deepStrictEqual(yield* read(reader), ["miss", "Augusta"])
      yield* warm(reader)
      assert.deepStrictEqual(yield* fences, [])
    }))

  it.effect("bounded, it is", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp({ store: RedisStore.layer() })
      const { gate, writing } = yield* committing(writer, "Augusta", Scripts.invalidate.lua)
      assert.deepStrictEqual(yield* read(reader), ["hit", "Ada"])
      gate.release()
      yield* Fiber.join(writing)
      assert.deepStrictEqual(yield* read(reader), ["miss", "Augusta"])
    }))

  it.effect("before the commit the old row is read, and not stored", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const gate = writer.gate.holdCommand("reply", StrictScripts.fence.lua)
      const writing = yield* Effect.forkChild(rename(writer, "Augusta"))
      yield* held(gate)
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Ada"])
      gate.release()
      yield* Fiber.join(writing)
      assert.deepStrictEqual(yield* read(reader), ["miss", "Augusta"])
    }))

  it.effect("other rows are served meanwhile; those asked for by new columns are not", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      yield* warm(reader, 2)
      const { gate, writing } = yield* committing(writer, "Augusta")
      assert.deepStrictEqual(yield* read(reader, 2), ["hit", "Grace"])
      // Whether the row is among them no shape tells that was registered before the fence.
      const active = reader.sql<{ name: string }>`SELECT name FROM users WHERE status = 'active' AND id < 2`.pipe(
        QueryCache.cached()
      )
      const none = reader.sql`SELECT name FROM users WHERE status = 'retired'`.pipe(QueryCache.cached())
      assert.deepStrictEqual(yield* fateOf(active), ["bypass fenced", [{ name: "Augusta" }]])
      assert.deepStrictEqual(yield* fateOf(active), ["bypass fenced", [{ name: "Augusta" }]])
      assert.deepStrictEqual(yield* fateOf(none), ["bypass fenced", []])
      gate.release()
      yield* Fiber.join(writing)
      assert.deepStrictEqual(yield* fateOf(active), ["miss", [{ name: "Augusta" }]])
    }))

  it.effect("what was read before is not stored behind a fence", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const storing = reader.gate.holdCommand("request", Scripts.storeStrict.flat.lua)
      assert.deepStrictEqual(yield* read(reader, 2), ["miss", "Grace"])
      yield* held(storing)
      const gate = writer.gate.holdCommand("request", Scripts.invalidateStrict.lua)
      const writing = yield* Effect.forkChild(rename(writer, "Hopper", 2))
      yield* held(gate)
      storing.release()
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 20)))
      assert.deepStrictEqual(yield* read(reader, 2), ["bypass fenced", "Hopper"])
      assert.strictEqual(yield* redis("EXISTS", ...(yield* redis("KEYS", key("e:*")))), 1)
      gate.release()
      yield* Fiber.join(writing)
    }))

  it.effect("a transaction is fenced once, for all it has touched; one that wrote nothing is not", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      yield* warm(reader, 2)
      yield* writer.sql.withTransaction(writer.sql`SELECT * FROM users`)
      yield* writer.sql`UPDATE users SET name = 'Nobody' WHERE id = 99`
      assert.strictEqual(yield* redis("HGET", key("fences"), "count"), null)
      const gate = writer.gate.holdCommand("request", Scripts.invalidateStrict.lua)
      const writing = yield* Effect.forkChild(writer.sql.withTransaction(Effect.gen(function*() {
        yield* rename(writer, "Augusta")
        // A savepoint that is rolled back takes its share with it.
        yield* Effect.ignore(
          writer.sql.withTransaction(Effect.andThen(rename(writer, "Edsger Wybe", 3), Effect.fail("no")))
        )
        yield* writer.sql.withTransaction(rename(writer, "Hopper", 2))
      })))
      yield* held(gate)
      assert.deepStrictEqual((yield* fences).length, 1)
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Augusta"])
      assert.deepStrictEqual(yield* read(reader, 2), ["bypass fenced", "Hopper"])
      assert.deepStrictEqual(yield* read(reader, 3), ["miss", "Edsger"])
      gate.release()
      yield* Fiber.join(writing)
      assert.deepStrictEqual(yield* fences, [])
    }))

  it.effect("a writer that dies after its commit", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const { gate } = yield* committing(writer, "Augusta")
      writer.cutOff()
      gate.release()
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Augusta"])
      yield* expire
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Augusta"])
      yield* noFences
      assert.deepStrictEqual(yield* read(reader), ["miss", "Augusta"])
      yield* warm(reader)
    }))

  it.effect("a writer that dies before its commit", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const gate = writer.gate.holdCommand("reply", StrictScripts.fence.lua)
      const writing = yield* Effect.forkChild(rename(writer, "Augusta"))
      yield* held(gate)
      writer.cutOff()
      yield* reader.base`
        SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE state = 'idle in transaction'`
      gate.release()
      assert.isTrue(Exit.isFailure(yield* Fiber.await(writing)))
      yield* expire
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Ada"])
      yield* noFences
      // Nothing was written, so what was stored is good still.
      assert.deepStrictEqual(yield* read(reader), ["hit", "Ada"])
    }))

  it.effect("a writer that hangs in its commit is waited for", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const gate = writer.gate.holdCommand("reply", StrictScripts.fence.lua)
      const writing = yield* Effect.forkChild(rename(writer, "Augusta"))
      yield* held(gate)
      yield* expire
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Ada"])
      yield* eventually(
        "a new deadline",
        Effect.gen(function*() {
          const [token] = yield* fences
          const record: string = yield* redis("HGET", key("fences"), `t:${token}`)
          return !record.startsWith("1 ")
        })
      )
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Ada"])
      gate.release()
      yield* Fiber.join(writing)
      assert.deepStrictEqual(yield* read(reader), ["miss", "Augusta"])
      assert.deepStrictEqual(yield* read(writer), ["hit", "Augusta"])
    }))

  it.effect("only one of those who meet an expired fence asks", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const { gate } = yield* committing(writer, "Augusta")
      writer.cutOff()
      gate.release()
      yield* expire
      const lookup = (name: string) => reader.store.lookup(keyOf("shop", name), setOf(Dependency.table("users")))
      const outcomes = yield* Effect.forEach(["a", "b", "a"], lookup, { concurrency: "unbounded" })
      assert.deepStrictEqual(
        outcomes.map((outcome) => outcome._tag === "Bypass" && outcome.reason === "fenced" && outcome.expired.length),
        [1, 0, 0]
      )
    }))

  it.effect("a fence that cannot be put up: the write is rolled back", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      writer.cutOff()
      assert.strictEqual(yield* codeOf(rename(writer, "Augusta")), "fence-failed")
      assert.strictEqual(
        yield* codeOf(
          writer.sql.withTransaction(Effect.andThen(rename(writer, "Augusta"), rename(writer, "Hopper", 2)))
        ),
        "fence-failed"
      )
      assert.deepStrictEqual(yield* reader.base`SELECT name FROM users WHERE id < 3 ORDER BY id`.values, [["Ada"], [
        "Grace"
      ]])
      assert.deepStrictEqual(yield* read(reader), ["hit", "Ada"])
      writer.reconnect()
      yield* rename(writer, "Augusta")
      assert.deepStrictEqual(yield* read(reader), ["miss", "Augusta"])
    }))

  it.effect("a fence that is put up too late: the write is rolled back, and the fence goes", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp({ cache: { invalidationTimeout: "100 millis" } })
      const gate = writer.gate.holdCommand("reply", StrictScripts.fence.lua)
      assert.strictEqual(yield* codeOf(rename(writer, "Augusta")), "fence-failed")
      assert.isTrue(gate.isHeld())
      yield* noFences
      assert.deepStrictEqual(yield* read(reader), ["hit", "Ada"])
    }))

  it.effect("a commit that the database refuses: the fence goes", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const order = writer.sql`INSERT INTO orders VALUES (1, 4711, 1)`
      const error = yield* Effect.flip(Effect.andThen(writer.sql`SELECT 1`, order))
      assert.strictEqual(error.reason._tag, "ConstraintError")
      yield* noFences
      assert.deepStrictEqual(yield* read(reader), ["hit", "Ada"])
    }))

  it.effect("a write that is interrupted behind its fence: the fence goes", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const gate = writer.gate.holdCommand("reply", StrictScripts.fence.lua)
      const writing = yield* Effect.forkChild(rename(writer, "Augusta"))
      yield* held(gate)
      yield* Fiber.interrupt(writing)
      yield* noFences
      assert.deepStrictEqual(yield* read(reader), ["hit", "Ada"])
    }))

  it.effect("a stream that writes: its rows come once they are committed and told", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const renamed = writer.sql<{ id: number }>`UPDATE users SET name = 'Augusta' WHERE id < 3 RETURNING id`.stream
      const gate = writer.gate.holdCommand("reply", StrictScripts.fence.lua)
      const first = yield* Effect.forkChild(Stream.runCollect(Stream.take(renamed, 1)))
      yield* held(gate)
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Ada"])
      gate.release()
      assert.deepStrictEqual((yield* Fiber.join(first)).length, 1)
      assert.deepStrictEqual(yield* read(reader), ["miss", "Augusta"])
      assert.deepStrictEqual(yield* fences, [])
      const inside = writer.sql.withTransaction(Stream.runDrain(writer.sql`UPDATE users SET name = 'Ada'`.stream))
      yield* inside
      assert.deepStrictEqual(yield* read(reader), ["miss", "Ada"])
    }))

  it.effect("what is written while its transaction is being committed is refused", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const gate = writer.gate.holdCommand("reply", StrictScripts.fence.lua)
      const late = yield* Deferred.make<unknown, unknown>()
      const writing = yield* Effect.forkChild(writer.sql.withTransaction(Effect.gen(function*() {
        yield* rename(writer, "Augusta")
        yield* Effect.forkDetach(
          Effect.andThen(held(gate), Deferred.complete(late, codeOf(rename(writer, "Hopper", 2))))
        )
      })))
      assert.strictEqual(yield* Deferred.await(late), "not-fenceable")
      gate.release()
      yield* Fiber.join(writing)
      assert.deepStrictEqual(yield* read(reader, 2), ["miss", "Grace"])
    }))

  it.effect("where the schema has changed since a transaction began, everything is fenced", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const orders = reader.sql`SELECT count(*)::int FROM orders`.pipe(QueryCache.cached())
      const written = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const writing = yield* Effect.forkChild(writer.sql.withTransaction(
        Effect.andThen(
          rename(writer, "Augusta"),
          Effect.andThen(Deferred.succeed(written, undefined), Deferred.await(go))
        )
      ))
      yield* Deferred.await(written)
      // A trigger may have been fired, for all that anybody knows.
      yield* writer.sql`CREATE TABLE audit (id int)`
      const fence = writer.gate.holdCommand("reply", StrictScripts.fence.lua)
      yield* Deferred.succeed(go, undefined)
      yield* held(fence)
      assert.strictEqual((yield* fateOf(orders))[0], "bypass fenced")
      fence.release()
      yield* Fiber.join(writing)
    }))

  it.effect("a transaction that the database has never heard of may have committed", () =>
    Effect.gen(function*() {
      const { reader } = yield* setUp()
      const stamps = { stamps: ["users", "users(*)"], images: [], all: false }
      yield* reader.store.strict!.fence({ namespace: "shop", token: "t", transaction: "999999999", ...stamps })
      yield* expire
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Ada"])
      yield* noFences
      assert.deepStrictEqual(yield* read(reader), ["miss", "Ada"])
    }))

  it.effect("what cannot be fenced is refused, and not done", () =>
    Effect.gen(function*() {
      const { reader, writer: { base, sql } } = yield* setUp()
      const write = sql`UPDATE users SET name = 'Augusta' WHERE id = 1`
      const refused: Record<string, Effect.Effect<unknown, unknown>> = {
        call: sql`CALL touch()`,
        do: sql.unsafe("DO $$ BEGIN UPDATE users SET name = 'Augusta'; END $$"),
        begin: sql`BEGIN`,
        "commit inside": sql.withTransaction(Effect.andThen(write, sql`COMMIT`)),
        "a base transaction": base.withTransaction(write),
        "a savepoint in one": base.withTransaction(sql.withTransaction(write)),
        "a stream in one": base.withTransaction(Stream.runDrain(write.stream)),
        reserved: Effect.scoped(Effect.flatMap(sql.reserve, (connection) =>
          connection.execute("UPDATE users SET name = 'Augusta'", [], undefined))),
        concurrently: sql`CREATE INDEX CONCURRENTLY names ON users (name)`
      }
      for (const [name, effect] of Object.entries(refused)) {
        assert.strictEqual(yield* codeOf(effect), "not-fenceable", name)
      }
      assert.deepStrictEqual(yield* base`SELECT name FROM users WHERE id IN (1, 3) ORDER BY id`.values, [["Ada"], [
        "Edsger"
      ]])
      assert.deepStrictEqual(yield* fences, [])
      // What the messages say.
      yield* sql.withTransaction(sql`CALL touch()`)
      assert.deepStrictEqual(yield* base`SELECT name FROM users WHERE id = 3`.values, [["Touched"]])
      yield* sql`VACUUM users`
      const rows = Effect.scoped(Effect.flatMap(sql.reserve, (connection) =>
        connection.executeValues("SELECT name FROM users WHERE id = 1", [])))
      assert.deepStrictEqual(yield* rows, [["Ada"]])
      yield* warm(reader)
    }))
})
