import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Queue, Schema, Stream } from "effect"
import {
  CachedQuery,
  CachedSqlClient,
  CacheStore,
  Dependency,
  Invalidator,
  MaterializedView,
  QueryCache,
  RedisStore
} from "effect-query-cache"
import { AsyncResult, Atom, AtomRegistry, Reactivity } from "effect/reactivity"
import { SqlClient } from "effect/sql"
import { keysOf } from "../src/internal/reactivity.ts"
import * as Fleet from "./support/fleet.ts"
import * as Pglite from "./support/pglite.ts"
import * as RedisServers from "./support/redis.ts"

const database = CachedSqlClient.layer().pipe(Layer.provide([CacheStore.layerMemory(), Pglite.layer()]))

const tables = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE orders (id int PRIMARY KEY, total int NOT NULL)`
  yield* sql`CREATE TABLE users (id int PRIMARY KEY)`
  yield* sql`INSERT INTO orders VALUES (7, 1)`
  return sql
})

/** What a stream emits, one after the other, and what has come that nobody has waited for. */
const listen = <A, E, R>(stream: Stream.Stream<A, E, R>) =>
  Effect.gen(function*() {
    const values = yield* Queue.unbounded<A>()
    yield* Effect.forkScoped(Stream.runForEach(stream, (value) => Queue.offer(values, value)), {
      startImmediately: true
    })
    return {
      next: Effect.timeout(Queue.take(values), "5 seconds"),
      rest: Effect.andThen(Effect.sleep(20), Queue.clear(values))
    }
  })

describe("keys", () => {
  it("name tables, rows by id, tags and keys, of whatever kind the invalidation is", () => {
    const keys = (dependencies: ReadonlyArray<Dependency.Dependency>) => ({
      ...keysOf(Dependency.explicitTargets(dependencies))
    })
    assert.deepStrictEqual(keys([Dependency.table("orders")]), { orders: [] })
    assert.deepStrictEqual(keys([Dependency.table("\"Order (old)\"")]), { "Order (old)": [] })
    assert.deepStrictEqual(keys([Dependency.row("orders", { id: 7 })]), { orders: ["7"] })
    assert.deepStrictEqual(keys([Dependency.row("orders", { id: "a\"b" }), Dependency.row("orders", { user: 1 })]), {
      orders: ["a\"b"]
    })
    assert.deepStrictEqual(keys([Dependency.row("orders", { id: null })]), { orders: [] })
    assert.deepStrictEqual(
      keys([Dependency.tag("premium"), Dependency.key("user", 42), Dependency.key("a b", "c:d")]),
      {
        "#premium": [],
        "@user": ["42"],
        "@a b": ["c:d"]
      }
    )
    const stamps = (...stamps: ReadonlyArray<string>) => ({ ...keysOf({ stamps, images: [], all: false }) })
    assert.deepStrictEqual(stamps("orders(id=\"7\")", "orders(*)", "orders(id,user)", "!orders", "orders(id=null)"), {
      orders: ["7"]
    })
    assert.deepStrictEqual(stamps("?probe", "?", "?(*)", "=view"), { "@view": [] })
    assert.deepStrictEqual(stamps("archive.orders", "%orders", "^archive.orders", "\"my schema\".\"a.b\"(id=\"7\")"), {
      "archive.orders": [],
      "orders": [],
      "my schema.a.b": ["7"]
    })
  })
})

describe("sql.reactive", () => {
  it.live("is woken by writes to what it is registered under, by row, table, tag, key and everything", () =>
    Effect.gen(function*() {
      const sql = yield* tables
      const total = Effect.map(
        sql<{ total: number }>`SELECT total FROM orders WHERE id = 7`.pipe(QueryCache.cached()),
        ([row]) => row!.total
      )
      const table = yield* listen(sql.reactive(["orders"], total))
      const row = yield* listen(sql.reactive({ orders: [7] }, total))
      const other = yield* listen(sql.reactive(["users", "#premium", "@user:42"], Effect.succeed("other")))
      assert.deepStrictEqual([yield* table.next, yield* row.next, yield* other.next], [1, 1, "other"])

      yield* sql`UPDATE orders SET total = 2 WHERE id = 7`
      // With the new answer, since the invalidation has taken effect.
      assert.deepStrictEqual([yield* table.next, yield* row.next], [2, 2])
      yield* Invalidator.invalidate({ rows: [Dependency.row("orders", { id: 7 })] })
      assert.deepStrictEqual([yield* table.next, yield* row.next], [2, 2])
      assert.deepStrictEqual([yield* table.rest, yield* row.rest, yield* other.rest], [[], [], []])

      yield* Invalidator.invalidate({ tags: ["premium"] })
      yield* other.next
      yield* Invalidator.invalidate({ keys: [Dependency.key("user", 42)] })
      yield* other.next
      yield* Invalidator.invalidate({ keys: [Dependency.key("user", 43)] })
      assert.deepStrictEqual([yield* table.rest, yield* row.rest, yield* other.rest], [[], [], []])

      yield* Invalidator.invalidate({ all: true })
      assert.deepStrictEqual([yield* table.next, yield* row.next, yield* other.next], [2, 2, "other"])
    }).pipe(Effect.provide(database)))

  it.live("is woken by everything, whatever it is registered under, and so is a mailbox", () =>
    Effect.gen(function*() {
      const sql = yield* tables
      const reactive = yield* listen(sql.reactive(["something else"], Effect.succeed("reactive")))
      const mailbox = yield* sql.reactiveMailbox({ "something else": [1] }, Effect.succeed("mailbox"))
      assert.deepStrictEqual([yield* reactive.next, yield* Queue.take(mailbox)], ["reactive", "mailbox"])
      yield* Invalidator.invalidate({ all: true })
      assert.deepStrictEqual([yield* reactive.next, yield* Queue.take(mailbox)], ["reactive", "mailbox"])
    }).pipe(Effect.provide(database)))

  it.live("is woken after the commit, once, and not by what is rolled back", () =>
    Effect.gen(function*() {
      const sql = yield* tables
      const totals = yield* listen(
        sql.reactive(["orders"], Effect.map(sql<{ total: number }>`SELECT total FROM orders`, ([row]) => row!.total))
      )
      assert.strictEqual(yield* totals.next, 1)
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`UPDATE orders SET total = 2`
        yield* sql`UPDATE orders SET total = 3`
        assert.deepStrictEqual(yield* totals.rest, [])
      }))
      assert.strictEqual(yield* totals.next, 3)
      yield* Effect.exit(sql.withTransaction(Effect.andThen(sql`UPDATE orders SET total = 4`, Effect.fail("no"))))
      assert.deepStrictEqual(yield* totals.rest, [])
    }).pipe(Effect.provide(database)))

  it.live("a handler that throws is nothing to whoever writes", () =>
    Effect.gen(function*() {
      const sql = yield* tables
      const reactivity = yield* Reactivity.Reactivity
      reactivity.registerUnsafe(["orders"], () => {
        throw new Error("a handler")
      })
      yield* sql`UPDATE orders SET total = 2`
    }).pipe(Effect.provide(database), Effect.provide(Reactivity.layer)))
})

describe("Reactivity", () => {
  it.live("of the program's own is woken too, at the end of a batch where there is one", () =>
    Effect.gen(function*() {
      const own = yield* Reactivity.make
      const context = yield* Layer.build(Layer.fresh(database)).pipe(Effect.provideService(Reactivity.Reactivity, own))
      yield* Effect.gen(function*() {
        const sql = yield* tables
        let woken = 0
        own.registerUnsafe(["orders"], () => woken++)
        yield* sql`UPDATE orders SET total = 2`
        assert.strictEqual(woken, 1)
        yield* own.withBatch(Effect.gen(function*() {
          yield* sql`UPDATE orders SET total = 3`
          yield* sql`UPDATE orders SET total = 4`
          assert.strictEqual(woken, 1)
        }))
        assert.strictEqual(woken, 2)
      }).pipe(Effect.provide(context))
    }))

  it.live("wakes an atom, by what it is registered under and by everything", () =>
    Effect.gen(function*() {
      const runtime = Atom.runtime(database)
      const registry = AtomRegistry.make()
      const setup = runtime.atom(tables)
      const total = runtime.atom(Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const [row] = yield* sql<{ total: number }>`SELECT total FROM orders`.pipe(QueryCache.cached())
        return row!.total
      })).pipe(runtime.factory.withReactivity(["orders"]))
      const write = runtime.fn((n: number) =>
        Effect.flatMap(SqlClient.SqlClient, (sql) => sql`UPDATE orders SET total = ${n}`)
      )
      const everything = runtime.fn((_: void) => Invalidator.invalidate({ all: true }))
      yield* AtomRegistry.getResult(registry, setup)
      registry.mount(total)
      const seen: Array<number> = []
      registry.subscribe(total, (result) => {
        if (AsyncResult.isSuccess(result) && !result.waiting) seen.push(result.value)
      }, { immediate: true })
      registry.mount(write)
      registry.mount(everything)
      const until = (n: number, length: number) =>
        Effect.timeout(
          Effect.repeat(Effect.andThen(Effect.sleep(5), Effect.sync(() => seen.length)), {
            until: (count) => count >= length && seen.at(-1) === n
          }),
          "5 seconds"
        )
      yield* until(1, 1)
      registry.set(write, 2)
      yield* until(2, 2)
      registry.set(everything, void 0)
      yield* until(2, 3)
      registry.dispose()
    }), 20_000)

  it.live("is woken by other processes, by views, and by cached queries", () =>
    Effect.gen(function*() {
      const server = yield* RedisServers.makeServer()
      const store = RedisStore.layer().pipe(Layer.provide(RedisServers.client(server)))
      let n = 1
      const respond = ({ sql }: { readonly sql: string }) => sql.startsWith("SELECT") ? [{ n }] : []
      const [here, there] = yield* Effect.all([Fleet.member(respond, store), Fleet.member(respond, store)])
      const local = Context.get(here, PgClient.PgClient)
      const remote = Context.get(there, PgClient.PgClient)
      const view = yield* MaterializedView.make("sales", { query: local`SELECT n FROM sales` }).pipe(
        Effect.provide(here)
      )
      const users = yield* CachedQuery.make("user", {
        Key: Schema.Number,
        Value: Schema.Number,
        lookup: () => Effect.succeed(1)
      }).pipe(Effect.provide(there))
      const orders = yield* listen(
        local.reactive(
          ["orders"],
          Effect.map(local<{ n: number }>`SELECT n FROM orders`.pipe(QueryCache.cached()), ([row]) => row!.n)
        )
      )
      const sales = yield* listen(local.reactive(["@sales"], Effect.succeed("sales")))
      const user = yield* listen(local.reactive({ "@user": [42] }, Effect.succeed("user")))
      yield* Effect.all([orders.next, sales.next, user.next, view.get])
      for (n = 2; n < 10; n++) {
        yield* remote`UPDATE orders SET n = 1`
        assert.strictEqual(yield* orders.next, n)
      }
      yield* sales.rest
      yield* view.refresh
      assert.strictEqual(yield* sales.next, "sales")
      yield* users.invalidate(42)
      assert.strictEqual(yield* user.next, "user")
      yield* Invalidator.invalidate({ all: true }).pipe(Effect.provide(there))
      yield* Effect.all([orders.next, sales.next, user.next])
    }), 20_000)

  it.live("is not woken by others where that is switched off, and nothing is subscribed", () =>
    Effect.gen(function*() {
      const server = yield* RedisServers.makeServer()
      const store = RedisStore.layer().pipe(Layer.provide(RedisServers.client(server)))
      const here = yield* Fleet.member(() => [], store, { remoteChanges: false })
      const local = Context.get(here, PgClient.PgClient)
      const orders = yield* listen(local.reactive(["orders"], Effect.succeed("orders")))
      yield* orders.next
      yield* local`UPDATE orders SET n = 1`
      yield* orders.next
      yield* Effect.sleep(100)
      const channels: ReadonlyArray<unknown> = yield* server.command("PUBSUB", "CHANNELS")
      assert.deepStrictEqual(channels, [])
    }))
})
