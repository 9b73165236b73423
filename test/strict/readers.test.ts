/**
 * Strict mode and those who share what they read: nobody gets an answer whose query began before the caller did, if another
 * process may have written in between. And writes of which nobody knows what became of them.
 */
import { assert, layer } from "@effect/vitest"
import { CachedQuery, Dependency, QueryCache } from "effect-query-cache"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Scripts from "../../src/internal/redis/scripts.ts"
import { fateOf, fates } from "../client/fixture.ts"
import * as Proxy from "../support/proxy.ts"
import {
  cached,
  committing,
  eventually,
  expire,
  fences,
  held,
  make,
  noFences,
  prolong,
  read,
  rename,
  servers,
  setUp,
  warm
} from "../support/strictProcess.ts"

const proxied = Layer.provideMerge(Proxy.layer, servers)

const pause = (millis: number) => Effect.promise(() => new Promise((resolve) => setTimeout(resolve, millis)))

layer(proxied, { excludeTestServices: true })("strict readers", (it) => {
  it.effect("who comes while a query is under way does not take what it has read", () =>
    Effect.gen(function*() {
      const { port, ...proxy } = yield* Proxy.Proxy
      const { writer } = yield* setUp()
      const reader = yield* make({ client: { port } })
      yield* rename(writer, "Ada Byron")
      yield* proxy.arm("SELECT name", "stall")
      const first = yield* Effect.forkChild(read(reader))
      // It has read the old row, and is on its way.
      yield* proxy.happened
      yield* rename(writer, "Augusta")
      const later = yield* Effect.forkChild(
        Effect.all([read(reader), read(reader), read(reader)], { concurrency: "unbounded" })
      )
      yield* pause(20)
      yield* proxy.release
      assert.deepStrictEqual(yield* Fiber.join(first), ["miss", "Ada Byron"])
      const answers = yield* Fiber.join(later)
      assert.deepStrictEqual(answers.map(([, name]) => name), ["Augusta", "Augusta", "Augusta"])
      // They were read once.
      assert.strictEqual(answers.filter(([fate]) => fate === "miss").length, 1)
      yield* warm(reader)
    }))

  it.effect("who comes while the answer is stored asks, and is served that", () =>
    Effect.gen(function*() {
      const { reader } = yield* setUp({ cache: { lookupTimeout: "20 seconds" } })
      const storing = reader.gate.holdCommand("request", Scripts.storeStrict.flat.lua)
      assert.deepStrictEqual(yield* read(reader, 2), ["miss", "Grace"])
      yield* held(storing)
      const asking = reader.gate.holdCommand("reply", Scripts.lookupStrict.flat.lua)
      const next = yield* Effect.forkChild(read(reader, 2))
      yield* held(asking)
      asking.release()
      storing.release()
      assert.deepStrictEqual(yield* Fiber.join(next), ["hit", "Grace"])
    }))

  it.effect("a thousand at once are one query", () =>
    Effect.gen(function*() {
      const { reader } = yield* setUp()
      const all = Effect.all(Array.from({ length: 1000 }, () => cached(reader, 3)), { concurrency: "unbounded" })
      const counts = (yield* fates(all)).filter((fate) => fate === "miss").length
      assert.strictEqual(counts, 1)
    }))

  it.effect("values by key obey the same", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const names = yield* CachedQuery.make("names", {
        Key: Schema.Int,
        Value: Schema.String,
        lookup: (id) =>
          Effect.map(Effect.orDie(reader.base`SELECT name FROM users WHERE id = ${id}`.values), ([[name]]) =>
            String(name)),
        timeToLive: "1 minute",
        dependencies: (id) => [Dependency.row("users", { id })]
      }).pipe(Effect.provide(reader.context))
      yield* names.get(1)
      yield* eventually(
        "a hit",
        Effect.map(fates(names.get(1)), ([fate]) =>
          fate === "hit")
      )
      const { gate, writing } = yield* committing(writer, "Augusta")
      assert.strictEqual(yield* names.get(1), "Augusta")
      assert.deepStrictEqual(yield* names.getMany([1, 2]), ["Augusta", "Grace"])
      yield* names.set(1, "Ada")
      assert.strictEqual(yield* names.refresh(1), "Augusta")
      assert.strictEqual(yield* names.get(1), "Augusta")
      gate.release()
      yield* Fiber.join(writing)
      assert.strictEqual(yield* names.get(1), "Augusta")
    }))

  it.effect("what is stale is served only if it is not fenced", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp()
      const query = reader.sql<{ name: string }>`SELECT name FROM users WHERE id = 2`.pipe(
        QueryCache.cached({ timeToLive: "50 millis", staleWhileRevalidate: "1 minute", staleIfError: "1 minute" })
      )
      yield* eventually("stale", Effect.map(fateOf(query), ([fate]) => fate === "stale"))
      const gate = writer.gate.holdCommand("request", Scripts.invalidateStrict.lua)
      const writing = yield* Effect.forkChild(rename(writer, "Hopper", 2))
      yield* held(gate)
      yield* prolong
      assert.deepStrictEqual(yield* fateOf(query), ["bypass fenced", [{ name: "Hopper" }]])
      gate.release()
      yield* Fiber.join(writing)
    }))

  it.effect("who has no patience left gets what is stale, be it that a query is under way", () =>
    Effect.gen(function*() {
      const { port, ...proxy } = yield* Proxy.Proxy
      yield* setUp()
      const reader = yield* make({ client: { port } })
      const query = reader.sql<{ name: string }>`SELECT name FROM users WHERE id = 3`.pipe(
        QueryCache.cached({ timeToLive: "200 millis", staleIfError: "1 minute", softTimeout: "50 millis" })
      )
      yield* eventually("stored", Effect.map(fateOf(query), ([fate]) => fate === "hit"))
      yield* pause(300)
      yield* proxy.arm(1, "stall")
      assert.deepStrictEqual(yield* fateOf(query), ["stale", [{ name: "Edsger" }]])
      yield* proxy.happened
      assert.deepStrictEqual(yield* Effect.timeout(fateOf(query), "5 seconds"), ["stale", [{ name: "Edsger" }]])
      yield* proxy.release
    }))

  it.effect("a commit whose answer is lost stays behind its fence until the database says what became of it", () =>
    Effect.gen(function*() {
      const { port, ...proxy } = yield* Proxy.Proxy
      const { reader } = yield* setUp()
      const writer = yield* make({ client: { port } })
      yield* proxy.arm("COMMIT", "hold")
      const writing = yield* Effect.forkChild(rename(writer, "Augusta"))
      yield* proxy.happened
      assert.isTrue(Exit.isFailure(yield* Fiber.await(writing)))
      yield* expire
      // The server has yet to hear of the commit.
      for (let i = 0; i < 3; i++) {
        assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Ada"])
        yield* pause(20)
      }
      yield* expire
      yield* proxy.release
      yield* eventually(
        "seen",
        Effect.map(reader.base`SELECT name FROM users WHERE id = 1`.values, ([[name]]) => name === "Augusta")
      )
      assert.strictEqual((yield* fences).length, 1)
      assert.deepStrictEqual(yield* read(reader), ["bypass fenced", "Augusta"])
      yield* expire
      yield* read(reader)
      yield* noFences
      // The writer invalidates too, once it has heard what became of it.
      yield* eventually("served", Effect.map(read(reader), ([fate]) => fate === "hit"))
      assert.strictEqual((yield* read(reader))[1], "Augusta")
    }))

  it.effect("nobody reads what is older than what was acknowledged before, whatever is lost on the way", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* setUp({
        cache: { invalidationTimeout: "50 millis", lookupTimeout: "50 millis" }
      })
      const third = yield* make({ cache: { invalidationTimeout: "50 millis", lookupTimeout: "50 millis" } })
      const processes = [reader, writer, third]
      yield* reader.base`CREATE TABLE versions (id int PRIMARY KEY, version int NOT NULL)`
      yield* reader.base`INSERT INTO versions SELECT id, 0 FROM generate_series(0, 3) id`
      yield* pause(50)
      const acknowledged = [0, 0, 0, 0]
      let seed = 7
      const random = (below: number) => (seed = seed * 48271 % 2147483647) % below
      const counts = { reads: 0, hits: 0, writes: 0, failed: 0 }
      const until = (yield* Clock.currentTimeMillis) + 20_000
      // Enough has happened, or the machine is too slow for it.
      const isOver = Effect.map(
        Clock.currentTimeMillis,
        (now) => now > until || counts.hits > 200 && counts.writes > 100 && counts.failed > 2
      )
      const writes = (id: number) =>
        Effect.gen(function*() {
          for (let version = 1; !(yield* isOver); version++) {
            const { sql } = processes[random(3)]
            const exit = yield* Effect.exit(sql`UPDATE versions SET version = ${version} WHERE id = ${id}`)
            if (Exit.isSuccess(exit)) {
              acknowledged[id] = version
              counts.writes++
            } else counts.failed++
            yield* pause(5 + random(30))
          }
        })
      const reads = (at: number) =>
        Effect.gen(function*() {
          while (!(yield* isOver)) {
            const id = random(4)
            const least = acknowledged[id]
            const query = processes[at].sql<{ version: number }>`SELECT version FROM versions WHERE id = ${id}`
            const [fate, [{ version }]] = yield* fateOf(query.pipe(QueryCache.cached()))
            assert.isAtLeast(version, least, fate)
            counts.reads++
            if (fate === "hit") counts.hits++
            if (random(4) === 0) yield* pause(random(3))
          }
        })
      // Invalidations that never leave, replies that come too late, and a Redis that forgets.
      const faults = Effect.gen(function*() {
        while (!(yield* isOver)) {
          yield* pause(20 + random(40))
          const process = processes[random(3)]
          const gate = process.gate.holdCommand(random(2) === 0 ? "request" : "reply")
          if (random(3) === 0) process.cutOff()
          yield* pause(random(80))
          gate.release()
          process.reconnect()
          if (random(4) === 0) yield* expire
        }
      })
      yield* Effect.all([...[0, 1, 2, 3].map(writes), ...[0, 1, 2, 0, 1, 2].map(reads), faults], {
        concurrency: "unbounded"
      })
      assert.isAbove(counts.hits, 20)
      assert.isAbove(counts.writes, 20)
      assert.isAbove(counts.failed, 0)
    }))
})
