import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { SqlClient, SqlError } from "effect/sql"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import { CachedQuery, CachedSqlClient, CacheStore, Dependency, Invalidator, QueryCache } from "../src/index.ts"
import * as Stub from "./bench/stub.ts"
import * as EncodedStore from "./support/encodedStore.ts"
import * as FlakyStore from "./support/flakyStore.ts"
import * as Logs from "./support/logs.ts"
import { Down, makeUsers, messageOf, NotFound, statuses, write } from "./support/users.ts"

const test = CachedSqlClient.layerTest(() => [])
const over = (store: Layer.Layer<CacheStore.CacheStore>, options?: CachedSqlClient.CachedSqlClientOptions) =>
  CachedSqlClient.layer(options).pipe(Layer.provide([store, Stub.layer([])]))

const lost = Effect.fail(
  new SqlError.SqlError({ reason: new SqlError.ConnectionError({ cause: new Error("lost"), operation: "execute" }) })
)

describe("get", () => {
  it.effect("reads through, by key, until the time to live", () =>
    Effect.gen(function*() {
      const { asked, name, users } = yield* makeUsers({ timeToLive: "5 minutes" })
      const ada = yield* users.get(1)
      assert.strictEqual(yield* users.get(1), ada)
      assert.strictEqual(yield* name(2), "Grace")
      assert.deepStrictEqual(asked, [1, 2])
      yield* TestClock.adjust("299 seconds")
      yield* users.get(1)
      assert.deepStrictEqual(asked, [1, 2])
      yield* TestClock.adjust("1 second")
      yield* users.get(1)
      assert.deepStrictEqual(asked, [1, 2, 1])
    }).pipe(Effect.provide(test)))

  it.effect("many at once ask once", () =>
    Effect.gen(function*() {
      const { asked, source, users } = yield* makeUsers()
      source.before = () => Effect.sleep("1 second")
      const all = yield* Effect.forkChild(
        Effect.all(Array.from({ length: 100 }, () => users.get(1)), { concurrency: "unbounded" })
      )
      yield* TestClock.adjust("1 second")
      assert.strictEqual(new Set(yield* Fiber.join(all)).size, 1)
      assert.deepStrictEqual(asked, [1])
    }).pipe(Effect.provide(test)))

  it.effect("does not keep a failure, nor a defect", () =>
    Effect.gen(function*() {
      const { asked, name, source } = yield* makeUsers()
      source.before = () => new Down()
      assert.deepStrictEqual(yield* Effect.flip(name(1)), new Down())
      source.before = () => Effect.die("broken")
      assert.deepStrictEqual(yield* Effect.exit(name(1)), Exit.die("broken"))
      source.before = () => Effect.void
      assert.strictEqual(yield* name(1), "Ada")
      assert.deepStrictEqual(yield* Effect.flip(name(9)), new NotFound({ id: 9 }))
      yield* Effect.exit(name(9))
      assert.deepStrictEqual(asked, [1, 1, 1, 9, 9])
    }).pipe(Effect.provide(test)))

  it.effect("a lookup that hangs, or dies, is none of the other keys' business", () =>
    Effect.gen(function*() {
      const { name, source } = yield* makeUsers()
      source.before = (id) => id === 1 ? Effect.never : id === 2 ? Effect.die("broken") : Effect.void
      const hanging = yield* Effect.forkChild(name(1), { startImmediately: true })
      yield* Effect.exit(name(2))
      assert.strictEqual(yield* name(3), "Edsger")
      assert.isUndefined(hanging.pollUnsafe())
      yield* Fiber.interrupt(hanging)
      source.before = () => Effect.void
      assert.strictEqual(yield* name(1), "Ada")
    }).pipe(Effect.provide(test)))

  it.effect("one that is interrupted leaves the lookup to the others; the last one ends it", () =>
    Effect.gen(function*() {
      const { asked, source, users } = yield* makeUsers()
      let interrupted = 0
      source.before = () => Effect.onInterrupt(Effect.sleep("1 second"), () => Effect.sync(() => void interrupted++))
      const fork = Effect.forkChild(users.get(1), { startImmediately: true })
      const [one, two] = [yield* fork, yield* fork]
      yield* Fiber.interrupt(one)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(two)).name, "Ada")
      assert.strictEqual(interrupted, 0)
      yield* users.invalidate(1)
      const three = yield* fork
      yield* Fiber.interrupt(three)
      assert.strictEqual(interrupted, 1)
      assert.deepStrictEqual(asked, [1, 1])
    }).pipe(Effect.provide(test)))

  it.effect("a key that its schema refuses is a defect that names the query, and not the key", () =>
    Effect.gen(function*() {
      const { asked, users } = yield* makeUsers()
      const all = [
        users.get(1.5),
        users.getMany([1, 1.5]),
        users.refresh(1.5),
        users.set(1.5, { id: 1, name: "" }),
        users.invalidate(1.5)
      ]
      for (const one of all) {
        const message = messageOf(yield* Effect.exit(one))
        assert.match(message, /CachedQuery\.make "user".*Key schema refuses/)
        assert.notInclude(message, "1.5")
      }
      // Found out before anything is written.
      let written = false
      const exit = yield* Effect.exit(users.update(1.5, Effect.sync(() => void (written = true))))
      assert.match(messageOf(exit), /Key schema refuses/)
      assert.isFalse(written)
      assert.deepStrictEqual(asked.filter((id) => id === 1.5), [])
    }).pipe(Effect.provide(test)))

  it.effect("what is asked in it goes to the database, whatever stands around it", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const db = yield* CachedSqlClient.TestDatabase
      const users = yield* CachedQuery.make("user", {
        Key: Schema.Int,
        Value: Schema.Array(Schema.Unknown),
        lookup: (id) => sql`SELECT * FROM users WHERE id = ${id}`
      })
      yield* QueryCache.cached(sql`SELECT * FROM users WHERE id = ${1}`)
      yield* QueryCache.cached(users.get(1))
      yield* QueryCache.cached(users.get(1))
      assert.strictEqual((yield* db.queries).length, 2)
    }).pipe(Effect.provide(test)))
})

describe("getMany", () => {
  it.effect("gives values in the order of their keys, and looks up what is missing, once", () =>
    Effect.gen(function*() {
      const { asked, users } = yield* makeUsers()
      yield* users.get(2)
      const found = yield* users.getMany([3, 2, 1, 3])
      assert.deepStrictEqual(found.map(({ id }) => id), [3, 2, 1, 3])
      assert.deepStrictEqual(asked, [2, 3, 1])
      assert.deepStrictEqual(yield* users.getMany(new Set([1, 2, 3])), yield* users.getMany([1, 2, 3]))
      assert.deepStrictEqual(yield* users.getMany([]), [])
      assert.deepStrictEqual(asked, [2, 3, 1])
      // Hits are counted as often as they are served.
      const { hits } = yield* (yield* QueryCache.QueryCache).stats
      assert.strictEqual(hits, 1 + 3 + 3)
    }).pipe(Effect.provide(test)))

  it.effect("fails with the first failure, and keeps what was found", () =>
    Effect.gen(function*() {
      const { asked, source, users } = yield* makeUsers()
      source.before = (id) => id === 2 ? new Down() : id === 3 ? Effect.never : Effect.void
      assert.deepStrictEqual(yield* Effect.flip(users.getMany([1, 2, 3])), new Down())
      source.before = () => Effect.void
      yield* users.getMany([1, 2, 3])
      assert.deepStrictEqual(asked, [1, 2, 3, 2, 3])
    }).pipe(Effect.provide(test)))

  it.effect("a caller may do with its array what it likes", () =>
    Effect.gen(function*() {
      const { source, users } = yield* makeUsers()
      source.before = () => Effect.sleep("1 second")
      const keys = [1, 2]
      const running = yield* Effect.forkChild(users.getMany(keys), { startImmediately: true })
      keys.length = 0
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual((yield* Fiber.join(running)).map(({ id }) => id), [1, 2])
    }).pipe(Effect.provide(test)))

  it.effect("looks up in one round trip, and answers where the store does not", () =>
    Effect.gen(function*() {
      const flaky = FlakyStore.make(EncodedStore.make(yield* CacheStore.CacheStore))
      let lookups = 0
      flaky.set("lookup", (proceed) => Effect.andThen(Effect.sync(() => void lookups++), proceed))
      yield* Effect.gen(function*() {
        const { asked, users } = yield* makeUsers()
        yield* users.getMany([1, 2])
        yield* users.getMany([1, 2, 3])
        assert.strictEqual(lookups, 2)
        assert.deepStrictEqual(asked, [1, 2, 3])
        flaky.set("lookup", () => Effect.die("away"))
        assert.strictEqual((yield* users.getMany([1, 2, 3])).length, 3)
        assert.deepStrictEqual(asked, [1, 2, 3, 1, 2, 3])
      }).pipe(
        Effect.provide(over(Layer.succeed(CacheStore.CacheStore, flaky.store), { namespace: "shop" })),
        Effect.provide(Logs.layer)
      )
    }).pipe(Effect.provide(CacheStore.layerMemory())))
})

describe("what is kept", () => {
  it.effect("a time to live of its own, longer than any policy's or shorter", () =>
    Effect.gen(function*() {
      const { asked, users } = yield* makeUsers({
        timeToLive: ({ id }) => id === 1 ? "5 minutes" : id === 2 ? "10 seconds" : Duration.zero
      })
      yield* users.getMany([1, 2, 3])
      yield* TestClock.adjust("9 seconds")
      yield* users.getMany([1, 2, 3])
      assert.deepStrictEqual(asked.splice(0), [1, 2, 3, 3])
      yield* TestClock.adjust("1 second")
      yield* users.getMany([1, 2])
      assert.deepStrictEqual(asked.splice(0), [2])
      yield* TestClock.adjust("4 minutes")
      yield* users.get(1)
      assert.deepStrictEqual(asked.splice(0), [])
      yield* TestClock.adjust("50 seconds")
      yield* users.get(1)
      assert.deepStrictEqual(asked, [1])
    }).pipe(Effect.provide(test)))

  it.effect("a time to live that cannot be one keeps nothing, and harms nobody", () =>
    Effect.gen(function*() {
      for (const [i, ttl] of [NaN, -1, Infinity, "soon" as any, undefined as any].entries()) {
        const asked: Array<number> = []
        const query = yield* CachedQuery.make(`ttl ${i}`, {
          Key: Schema.Int,
          Value: Schema.Int,
          lookup: (id) => Effect.sync(() => asked.push(id)),
          timeToLive: () => ttl
        })
        yield* query.get(1)
        yield* query.get(1)
        assert.strictEqual(asked.length, 2, `${ttl}`)
      }
    }).pipe(Effect.provide(test)))

  it.effect("failures that are meant to be, with a time to live of their own", () =>
    Effect.gen(function*() {
      const { asked, name, rows, source, users } = yield* makeUsers({
        timeToLive: "10 seconds",
        keepError: { Error: NotFound, timeToLive: "2 minutes" }
      })
      const first = yield* Effect.flip(name(9))
      assert.strictEqual(yield* Effect.flip(name(9)), first)
      assert.deepStrictEqual(yield* Effect.flip(users.getMany([9, 1])), first)
      yield* TestClock.adjust("119 seconds")
      yield* Effect.flip(name(9))
      assert.deepStrictEqual(asked.splice(0), [9, 1])
      // Forgotten as a value is.
      rows.set(9, "Barbara")
      yield* users.invalidate(9)
      assert.strictEqual(yield* name(9), "Barbara")
      source.before = () => new Down()
      yield* Effect.exit(name(2))
      yield* Effect.exit(name(2))
      assert.deepStrictEqual(asked, [9, 2, 2])
    }).pipe(Effect.provide(test)))

  it.effect("what cacheWhen lets pass; what it refuses, or throws on, is returned", () =>
    Effect.gen(function*() {
      const { asked, users } = yield* makeUsers({
        cacheWhen: ({ id }) => {
          if (id === 2) throw new Error("no")
          return id === 1
        }
      })
      for (let i = 0; i < 2; i++) assert.strictEqual((yield* users.getMany([1, 2, 3])).length, 3)
      assert.deepStrictEqual(asked, [1, 2, 3, 2, 3])
    }).pipe(Effect.provide(test)))

  it.effect("is shared, and frozen", () =>
    Effect.gen(function*() {
      const make = (name: string, value: unknown) =>
        CachedQuery.make(name, {
          Key: Schema.Int,
          Value: Schema.Unknown,
          lookup: () => Effect.sync(() => value)
        })
      const nested = yield* make("nested", { list: [{ a: 1 }], option: Option.some(1) })
      const one: any = yield* nested.get(1)
      assert.strictEqual(yield* nested.get(1), one)
      assert.isTrue(Object.isFrozen(one) && Object.isFrozen(one.list) && Object.isFrozen(one.list[0]))
      const option: any = yield* (yield* make("option", Option.some({ a: 1 }))).get(1)
      assert.isTrue(Object.isFrozen(option.value))
      // What refers to itself is nobody's to keep, and is returned all the same.
      const cyclic: { self?: unknown } = {}
      cyclic.self = cyclic
      const query = yield* make("cyclic", cyclic)
      assert.strictEqual(yield* query.get(1), cyclic)
      assert.strictEqual(yield* query.get(1), cyclic)
    }).pipe(Effect.provide(test)))
})

describe("invalidation", () => {
  it.effect("by the tables a value depends on, by its key, by what is related", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { asked, users } = yield* makeUsers({
        dependencies: (id) => [Dependency.row("users", { id })],
        related: (id) => [Dependency.key("orders of", id)],
        tags: ["people"]
      })
      const orders = yield* CachedQuery.make("orders of", {
        Key: Schema.Int,
        Value: Schema.Int,
        lookup: (id) => Effect.sync(() => asked.push(100 + id))
      })
      const fates = Effect.andThen(
        statuses(Effect.all([users.get(1), users.get(2), orders.get(1)])),
        (first) => Effect.succeed(first.join(" "))
      )
      yield* fates
      assert.strictEqual(yield* fates, "hit hit hit")
      yield* sql`UPDATE users SET name = 'x'`
      assert.strictEqual(yield* fates, "miss miss hit")
      yield* Invalidator.invalidate({ rows: [Dependency.row("users", { id: 2 })] })
      assert.strictEqual(yield* fates, "hit miss hit")
      yield* Invalidator.invalidate({ keys: [Dependency.key("user", 1)] })
      assert.strictEqual(yield* fates, "miss hit hit")
      yield* Invalidator.invalidate({ tags: ["people"] })
      assert.strictEqual(yield* fates, "miss miss hit")
      yield* users.invalidate(1)
      assert.strictEqual(yield* fates, "miss hit miss")
      yield* users.update(1, Effect.void)
      assert.strictEqual(yield* fates, "hit hit miss")
    }).pipe(Effect.provide(test)))

  it.effect("not by writes where it is told so", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { asked, users } = yield* makeUsers({
        dependencies: () => [Dependency.table("users")],
        autoInvalidate: false
      })
      yield* users.get(1)
      yield* sql`UPDATE users SET name = 'x'`
      yield* users.get(1)
      assert.deepStrictEqual(asked, [1])
      yield* Invalidator.invalidate({ tables: ["users"] })
      yield* users.get(1)
      assert.deepStrictEqual(asked, [1, 1])
    }).pipe(Effect.provide(test)))

  it.effect("ends a lookup's right to be stored", () =>
    Effect.gen(function*() {
      const { asked, name, rows, source, users } = yield* makeUsers()
      source.before = () => Effect.sleep("1 second")
      const before = yield* Effect.forkChild(name(1), { startImmediately: true })
      rows.set(1, "Countess")
      yield* users.invalidate(1)
      const after = yield* Effect.forkChild(name(1), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(before), "Ada")
      assert.strictEqual(yield* Fiber.join(after), "Countess")
      assert.strictEqual(yield* name(1), "Countess")
      assert.deepStrictEqual(asked, [1, 1])
    }).pipe(Effect.provide(test)))
})

describe("set and refresh", () => {
  it.effect("store, whatever was there", () =>
    Effect.gen(function*() {
      const { asked, name, rows, users } = yield* makeUsers()
      yield* users.set(1, { id: 1, name: "set" })
      assert.strictEqual(yield* name(1), "set")
      rows.set(1, "new")
      assert.strictEqual((yield* users.refresh(1)).name, "new")
      assert.strictEqual(yield* name(1), "new")
      assert.deepStrictEqual(asked, [1])
    }).pipe(Effect.provide(test)))

  it.effect("what cannot be stored is forgotten, not left as it was", () =>
    Effect.gen(function*() {
      const flaky = FlakyStore.make(yield* CacheStore.CacheStore, false)
      yield* Effect.gen(function*() {
        const { name, rows, users } = yield* makeUsers({ cacheWhen: ({ name }) => name !== "refused" })
        yield* name(1)
        yield* users.set(1, { id: 1, name: "refused" })
        assert.strictEqual(yield* name(1), "Ada")
        rows.set(1, "new")
        flaky.set("store", () => Effect.die("full"))
        yield* users.set(1, { id: 1, name: "lost" })
        flaky.set("store", undefined)
        assert.strictEqual(yield* name(1), "new")
      }).pipe(
        Effect.provide(over(Layer.succeed(CacheStore.CacheStore, flaky.store))),
        Effect.provide(Logs.layer)
      )
    }).pipe(Effect.provide(CacheStore.layerMemory())))

  it.effect("a refresh that fails, or is interrupted, leaves what was there", () =>
    Effect.gen(function*() {
      const { name, source, users } = yield* makeUsers()
      yield* name(1)
      source.before = () => new Down()
      assert.deepStrictEqual(yield* Effect.flip(users.refresh(1)), new Down())
      source.before = () => Effect.never
      const refreshing = yield* Effect.forkChild(users.refresh(1), { startImmediately: true })
      yield* Fiber.interrupt(refreshing)
      assert.deepStrictEqual(yield* statuses(name(1)), ["hit"])
    }).pipe(Effect.provide(test)))

  it.effect("nothing is stored of what is not served for now", () =>
    Effect.gen(function*() {
      const { name, users } = yield* makeUsers()
      yield* Effect.exit(users.update(1, Effect.die("who knows")))
      const { stats } = yield* QueryCache.QueryCache
      const { fills } = yield* stats
      yield* users.refresh(1)
      yield* users.set(1, { id: 1, name: "set" })
      assert.deepStrictEqual(yield* statuses(name(1)), ["bypass unserved"])
      // Other processes would serve it.
      assert.strictEqual((yield* stats).fills, fills)
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(yield* statuses(name(1)), ["miss"])
    }).pipe(Effect.provide([test, Logs.layer])))
})

describe("update", () => {
  it.effect("writes, and stores what it reads after that", () =>
    Effect.gen(function*() {
      const { asked, name, rows, users } = yield* makeUsers()
      yield* name(1)
      assert.strictEqual(yield* users.update(1, Effect.as(write(rows, 1, "new"), "written")), "written")
      assert.deepStrictEqual(asked, [1, 1])
      assert.strictEqual(yield* name(1), "new")
      yield* write(rows, 1, "newer").pipe(users.update(1))
      assert.strictEqual(yield* name(1), "newer")
      assert.deepStrictEqual(asked, [1, 1, 1])
    }).pipe(Effect.provide(test)))

  it.effect("a write that fails leaves the cache as it is", () =>
    Effect.gen(function*() {
      const { asked, name, users } = yield* makeUsers()
      yield* name(1)
      assert.strictEqual(yield* Effect.flip(users.update(1, Effect.fail("refused"))), "refused")
      assert.deepStrictEqual(yield* statuses(name(1)), ["hit"])
      assert.deepStrictEqual(asked, [1])
    }).pipe(Effect.provide(test)))

  for (
    const [what, write] of [
      ["is lost", lost],
      ["dies", Effect.die("broken")],
      ["is interrupted", Effect.andThen(Effect.sleep("1 second"), Effect.interrupt)]
    ] as ReadonlyArray<[string, Effect.Effect<never, SqlError.SqlError>]>
  ) {
    it.effect(`a write that ${what} may have taken effect: nothing is served or stored for 30 seconds`, () =>
      Effect.gen(function*() {
        const { name, rows, users } = yield* makeUsers()
        yield* name(1)
        const updating = yield* Effect.forkChild(Effect.exit(users.update(1, write)))
        yield* TestClock.adjust("1 second")
        assert.isTrue(Exit.isFailure(yield* Fiber.join(updating)))
        assert.deepStrictEqual(yield* statuses(name(1)), ["bypass unserved"])
        yield* TestClock.adjust("29 seconds")
        // It was done after all.
        rows.set(1, "late")
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* name(1), "late")
        assert.deepStrictEqual(yield* statuses(name(1)), ["hit"])
      }).pipe(Effect.provide([test, Logs.layer])))
  }

  it.effect("where reading again fails, what was stored is forgotten, and the write has succeeded", () =>
    Effect.gen(function*() {
      const { name, rows, source, users } = yield* makeUsers()
      yield* name(1)
      for (const broken of [new Down(), Effect.die("broken")]) {
        source.before = () => broken
        assert.strictEqual(yield* users.update(1, Effect.as(write(rows, 1, "new"), 1)), 1)
        source.before = () => Effect.void
        assert.deepStrictEqual(yield* statuses(name(1)), ["miss"])
        assert.strictEqual(yield* name(1), "new")
      }
      // Interrupted while it reads again.
      source.before = () => Effect.never
      const updating = yield* Effect.forkChild(users.update(1, write(rows, 1, "newest")), { startImmediately: true })
      yield* Fiber.interrupt(updating)
      source.before = () => Effect.void
      assert.strictEqual(yield* name(1), "newest")
    }).pipe(Effect.provide(test)))

  it.effect("where nothing can be invalidated, the old value is not served", () =>
    Effect.gen(function*() {
      const flaky = FlakyStore.make(yield* CacheStore.CacheStore, false)
      yield* Effect.gen(function*() {
        const { name, rows, users } = yield* makeUsers()
        yield* name(1)
        flaky.set("invalidate", () => Effect.die("away"))
        yield* users.update(1, write(rows, 1, "new"))
        assert.strictEqual(yield* name(1), "new")
        flaky.set("invalidate", undefined)
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(yield* name(1), "new")
      }).pipe(
        Effect.provide(over(Layer.succeed(CacheStore.CacheStore, flaky.store))),
        Effect.provide(Logs.layer)
      )
    }).pipe(Effect.provide(CacheStore.layerMemory())))

  it.effect("what is related cannot be had: nothing is written", () =>
    Effect.gen(function*() {
      const { rows, users } = yield* makeUsers({
        related: () => {
          throw new Error("broken")
        }
      })
      assert.match(messageOf(yield* Effect.exit(users.update(1, write(rows, 1, "new")))), /broken/)
      assert.strictEqual(rows.get(1), "Ada")
    }).pipe(Effect.provide(test)))

  // Writes and reads of one key that take as long as they like: whoever asks after an update has returned gets what it
  // wrote or something newer, and in the end the cache has what the database has.
  it.effect("of several at once the older never stays", () =>
    Effect.flatMap(Effect.context<QueryCache.QueryCache>(), (context) => {
      let runs = 0
      return Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(
            fc.array(
              fc.record({
                start: fc.nat(6),
                writing: fc.nat(4),
                ending: fc.nat(4),
                reading: fc.nat(6),
                isUpdate: fc.boolean()
              }),
              { minLength: 2, maxLength: 6 }
            ),
            (steps) =>
              Effect.runPromiseWith(context)(
                Effect.gen(function*() {
                  let version = 0
                  let pause = 0
                  const yields = (n: number) =>
                    Effect.forEach(Array.from({ length: n }), () => Effect.yieldNow, { discard: true })
                  const query = yield* CachedQuery.make(`q ${runs++}`, {
                    Key: Schema.Int,
                    Value: Schema.Int,
                    lookup: () => {
                      const read = version
                      return Effect.as(yields(pause), read)
                    }
                  })
                  let acknowledged = 0
                  const get = Effect.gen(function*() {
                    const least = acknowledged
                    const found = yield* query.get(1)
                    assert.isAtLeast(found, least)
                  })
                  yield* Effect.forEach(steps, ({ ending, isUpdate, reading, start, writing }) =>
                    Effect.gen(function*() {
                      yield* yields(start)
                      pause = reading
                      if (!isUpdate) return yield* get
                      let own = 0
                      yield* query.update(
                        1,
                        Effect.gen(function*() {
                          yield* yields(writing)
                          own = ++version
                          yield* yields(ending)
                        })
                      )
                      acknowledged = Math.max(acknowledged, own)
                      yield* get
                    }), { concurrency: "unbounded", discard: true })
                  assert.strictEqual(yield* query.get(1), version)
                })
              )
          ),
          { numRuns: 300, seed: 7 }
        )
      )
    }).pipe(Effect.provide(test)))
})
