/**
 * What was measured to go wrong with other caches, done here.
 *
 * The first two parts are about drizzle-orm's Upstash cache, and run on PostgreSQL with Redis between; the third is about
 * the parts that Effect itself brings.
 */
import type { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { CacheStore, Dependency, Invalidator, QueryCache, RedisStore } from "effect-query-cache"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as SqlClient from "effect/sql/SqlClient"
import { Base, fateOf, fates, layer as clients, nameOf } from "./client/fixture.ts"
import * as Postgres from "./support/postgres.ts"
import * as Proxy from "./support/proxy.ts"
import * as Redis from "./support/redis.ts"

const servers = Layer.mergeAll(Proxy.layer, Redis.layer()).pipe(Layer.provideMerge(Postgres.layerServer()))

let namespaces = 0

/** Redis on a machine that is busy may take its time; none of this is about time-outs. */
const settings =
  () => ({ namespace: `rivals-${++namespaces}`, lookupTimeout: "5 seconds", invalidationTimeout: "5 seconds" } as const)
const overRedis = (client?: Partial<PgClient.PgPoolConfig>) =>
  clients({ store: RedisStore.layer(), cache: settings(), ...(client === undefined ? {} : { client }) })

/** What a Redis that is away has logged is tested elsewhere. */
const quiet = Logger.layer([])

/** Reads until the fill before it has been judged, and the answer comes from the store. */
const hit = Effect.fnUntraced(function*<A, E, R>(query: Effect.Effect<A, E, R>) {
  while (true) {
    const [[info], rows] = yield* QueryCache.withInfo(query)
    if (info.status === "hit") return [info, rows] as const
    yield* Effect.sleep("5 millis")
  }
})

const ada = [{ name: "Ada" }]
const augusta = [{ name: "Augusta" }]

layer(servers, { excludeTestServices: true })("A cache in Redis before PostgreSQL", (it) => {
  it.effect("no read is older than a write that was acknowledged before it began", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const sql = yield* SqlClient.SqlClient
      yield* base`CREATE TABLE counters AS SELECT id, 0 AS value FROM generate_series(1, 5) AS id`
      const value = (sql: SqlClient.SqlClient, id: number) =>
        Effect.map(sql<{ value: number }>`SELECT value FROM counters WHERE id = ${id}`, (rows) => rows[0].value)
      const acknowledged = [0, 0, 0, 0, 0, 0]
      const seen = { reads: 0, stale: 0, hits: 0 }
      let writing = 3
      const random = (n: number) => Math.floor(Math.random() * n)
      const writer = Effect.gen(function*() {
        for (let i = 0; i < 40; i++) {
          const id = 1 + random(5)
          const increment = sql<
            { value: number }
          >`UPDATE counters SET value = value + 1 WHERE id = ${id} RETURNING value`
          const [row] = yield* (i % 3 === 0 ? sql.withTransaction(increment) : increment)
          acknowledged[id] = Math.max(acknowledged[id], row.value)
          yield* Effect.sleep(random(10))
        }
      }).pipe(Effect.ensuring(Effect.sync(() => writing--)))
      const reader = Effect.gen(function*() {
        while (writing > 0) {
          const id = 1 + random(5)
          const least = acknowledged[id]
          const [queries, read] = yield* QueryCache.withInfo(value(sql, id).pipe(QueryCache.cached()))
          seen.reads++
          if (queries[0].status === "hit") seen.hits++
          if (read < least) seen.stale++
        }
      })
      const actors = [...Array.from({ length: 3 }, () => writer), ...Array.from({ length: 16 }, () => reader)]
      yield* Effect.all(actors, { concurrency: "unbounded" })
      assert.strictEqual(seen.stale, 0)
      assert.isAbove(seen.reads, 100)
      assert.isAbove(seen.hits, 0)
      for (let id = 1; id <= 5; id++) {
        assert.strictEqual(yield* QueryCache.cached(value(sql, id)), yield* value(base, id))
      }
    }).pipe(Effect.provide(overRedis({ maxConnections: 10 }))))

  it.effect("two queries with the same tag return their own rows, and both go with it", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const tagged = (id: number) => nameOf(sql, id).pipe(QueryCache.cached({ tags: ["names"] }))
      const both = Effect.all([tagged(1), tagged(2)])
      assert.deepStrictEqual(yield* both, [ada, [{ name: "Grace" }]])
      assert.deepStrictEqual(yield* both, [ada, [{ name: "Grace" }]])
      yield* hit(tagged(1))
      yield* hit(tagged(2))
      yield* Invalidator.invalidate({ tags: ["names"] })
      assert.deepStrictEqual(yield* fates(both), ["miss", "miss"])
    }).pipe(Effect.provide(overRedis())))

  it.effect("a row read inside a transaction that rolled back is not served", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 1).pipe(QueryCache.cached())
      yield* Effect.exit(sql.withTransaction(Effect.gen(function*() {
        yield* sql`UPDATE users SET name = 'Mallory' WHERE id = 1`
        assert.deepStrictEqual(yield* query, [{ name: "Mallory" }])
        return yield* Effect.fail("no")
      })))
      assert.deepStrictEqual(yield* query, ada)
    }).pipe(Effect.provide(overRedis())))

  it.effect("a write in a transaction invalidates at its commit, and not as it runs", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 1).pipe(QueryCache.cached())
      const written = yield* Deferred.make<void>()
      const read = yield* Deferred.make<void>()
      const reader = yield* Effect.forkChild(Effect.gen(function*() {
        yield* Deferred.await(written)
        // Filled with the old row, after the statement and before its commit.
        assert.deepStrictEqual(yield* fateOf(query), ["miss", ada])
        yield* Deferred.succeed(read, undefined)
      }))
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`UPDATE users SET name = 'Augusta' WHERE id = 1`
        yield* Deferred.succeed(written, undefined)
        yield* Deferred.await(read)
      }))
      yield* Fiber.join(reader)
      assert.deepStrictEqual(yield* fateOf(query), ["miss", augusta])
    }).pipe(Effect.provide(overRedis())))

  it.effect("invalidate({ tables }) reaches answers with autoInvalidate: false", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 1).pipe(QueryCache.cached({ autoInvalidate: false }))
      yield* query
      yield* sql`UPDATE users SET name = 'Augusta' WHERE id = 1`
      assert.deepStrictEqual((yield* hit(query))[1], ada)
      yield* Invalidator.invalidate({ tables: ["users"] })
      assert.deepStrictEqual(yield* fateOf(query), ["miss", augusta])
    }).pipe(Effect.provide(overRedis())))

  it.effect("50 concurrent reads are one query", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 1).pipe(QueryCache.cached())
      const [queries] = yield* QueryCache.withInfo(
        Effect.all(Array.from({ length: 50 }, () => query), { concurrency: "unbounded" })
      )
      assert.strictEqual(queries.filter((query) => query.status === "miss").length, 1)
      assert.strictEqual(queries.filter((query) => query.status === "joined").length, 49)
    }).pipe(Effect.provide(overRedis())))

  it.effect("types survive: dates, bigint, numeric, bytes, json, arrays, NaN", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const base = yield* Base
      const query = (sql: SqlClient.SqlClient) =>
        sql`
        SELECT '2026-11-21T07:00:00Z'::timestamptz AS date, 9007199254740993::int8 AS big, 12345678901234567890.5::numeric AS numeric,
          '\\x00ff'::bytea AS bytes, '{"a": [1, null]}'::jsonb AS json, ARRAY[1.5, 'NaN', 'Infinity']::float8[] AS floats
        FROM users WHERE id = 1`
      const expected = yield* query(base)
      const cached = query(sql).pipe(QueryCache.cached())
      const first = yield* cached
      const [{ level }, second] = yield* hit(cached)
      assert.strictEqual(level, "L2")
      assert.deepStrictEqual(first, expected)
      assert.deepStrictEqual(second, expected)
      assert.strictEqual(Object.getPrototypeOf(second[0].date), Object.getPrototypeOf(expected[0].date))
      assert.strictEqual(Object.getPrototypeOf(second[0].bytes), Object.getPrototypeOf(expected[0].bytes))
    }).pipe(Effect.provide(overRedis())))

  it.effect("without Redis, reads are answered and writes that committed succeed; with it again, nothing is old", () =>
    Effect.gen(function*() {
      const redis = yield* Redis.RedisServer
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 1).pipe(QueryCache.cached())
      yield* hit(query)
      yield* redis.stop
      assert.deepStrictEqual(yield* query, ada)
      yield* sql`UPDATE users SET name = 'Augusta' WHERE id = 1`
      assert.deepStrictEqual(yield* fateOf(query), ["bypass unserved", augusta])
      yield* sql.withTransaction(sql`UPDATE users SET name = 'Lovelace' WHERE id = 1`)
      assert.deepStrictEqual(yield* query, [{ name: "Lovelace" }])
      yield* redis.start
      const { stats } = yield* QueryCache.QueryCache
      while ((yield* stats).undelivered > 0) yield* Effect.sleep("10 millis")
      assert.deepStrictEqual(yield* query, [{ name: "Lovelace" }])
      assert.deepStrictEqual((yield* hit(query))[1], [{ name: "Lovelace" }])
    }).pipe(Effect.provide(overRedis().pipe(Layer.provideMerge(quiet)))))

  it.effect("one tag, or one call, may reach many thousand answers", () =>
    Effect.gen(function*() {
      const store = yield* CacheStore.CacheStore
      const namespace = settings().namespace
      const codec: CacheStore.Codec = { encode: (value) => JSON.stringify(value), decode: (text) => JSON.parse(text) }
      const requests = Array.from({ length: 8200 }, (_, i) => ({
        key: { namespace, space: "rivals", local: i, fingerprint: `${namespace}-${i}`, codec },
        dependencies: Dependency.makeSet([Dependency.tag("all"), Dependency.key("one", i)])
      }))
      const lookup = Effect.gen(function*() {
        const outcomes: Array<CacheStore.Outcome> = []
        for (let i = 0; i < requests.length; i += 1000) {
          outcomes.push(...yield* store.lookupMany(requests.slice(i, i + 1000)))
        }
        return outcomes
      })
      const hits = Effect.map(lookup, (outcomes) => outcomes.filter((outcome) => outcome._tag === "Hit").length)
      const fill = Effect.gen(function*() {
        const fills = (yield* lookup).map((outcome, i) => ({
          key: requests[i].key,
          entry: { value: i, dependencies: requests[i].dependencies, timeToLiveMillis: 60_000, bytes: 10 },
          lease: outcome.lease!
        }))
        for (let i = 0; i < fills.length; i += 1000) yield* store.storeMany(fills.slice(i, i + 1000))
      })
      yield* fill
      assert.strictEqual(yield* hits, requests.length)
      yield* store.invalidate({ namespace, ...Dependency.explicitTargets([Dependency.tag("all")]) })
      assert.strictEqual(yield* hits, 0)
      yield* fill
      assert.strictEqual(yield* hits, requests.length)
      const keys = requests.map((_, i) => Dependency.key("one", i))
      yield* store.invalidate({ namespace, ...Dependency.explicitTargets(keys) })
      assert.strictEqual(yield* hits, 0)
    }).pipe(Effect.provide(RedisStore.layer())))

  it.effect("tables in CTEs, EXISTS and UNION are tracked, and raw statements invalidate", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const queries = [
        sql`WITH rich AS (SELECT user_id FROM orders WHERE total > 100) SELECT name FROM users JOIN rich ON rich.user_id = users.id`,
        sql`SELECT name FROM users WHERE EXISTS (SELECT 1 FROM orders WHERE user_id = users.id)`,
        sql`SELECT id FROM users UNION ALL SELECT id FROM orders`,
        sql`SELECT name, (SELECT count(*) FROM orders WHERE user_id = users.id) FROM users`,
        sql`SELECT name FROM users WHERE id IN (SELECT user_id FROM orders)`
      ]
      const all = Effect.all(queries.map((query) => QueryCache.cached(query)))
      const label = (label: string) => queries.map(() => label)
      assert.deepStrictEqual(yield* fates(all), label("miss"))
      for (const query of queries) yield* hit(QueryCache.cached(query))
      yield* sql.unsafe("DELETE FROM orders WHERE id = $1", [12]).raw
      assert.deepStrictEqual(yield* fates(all), label("miss"))
      yield* sql.unsafe("UPDATE users SET name = 'x'")
      assert.deepStrictEqual(yield* fates(all), label("miss"))
    }).pipe(Effect.provide(overRedis())))
})

layer(servers, { excludeTestServices: true })("Beside Effect's own parts", (it) => {
  it.effect("Cache: a leader inside a transaction hands its read to nobody", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 1).pipe(QueryCache.cached())
      const inside = yield* Deferred.make<void>()
      const done = yield* Deferred.make<void>()
      const other = yield* Effect.forkChild(Effect.gen(function*() {
        yield* Deferred.await(inside)
        const read = yield* fateOf(query)
        yield* Deferred.succeed(done, undefined)
        return read
      }))
      yield* Effect.exit(sql.withTransaction(Effect.gen(function*() {
        yield* sql`UPDATE users SET name = 'Mallory' WHERE id = 1`
        const leader = yield* Effect.forkChild(query)
        yield* Deferred.succeed(inside, undefined)
        yield* Deferred.await(done)
        assert.deepStrictEqual(yield* Fiber.join(leader), [{ name: "Mallory" }])
        return yield* Effect.fail("no")
      })))
      assert.deepStrictEqual(yield* Fiber.join(other), ["miss", ada])
    }).pipe(Effect.provide(clients())))

  it.effect("PersistedCache: without its store the query answers, and what fails is the query's own", () =>
    Effect.gen(function*() {
      const redis = yield* Redis.RedisServer
      const sql = yield* SqlClient.SqlClient
      yield* redis.stop
      const exits = yield* Effect.all([
        Effect.exit(nameOf(sql, 1).pipe(QueryCache.cached())),
        Effect.exit(sql`SELECT * FROM nowhere`.pipe(QueryCache.cached()))
      ])
      yield* redis.start
      assert.deepStrictEqual(exits[0], Exit.succeed(ada))
      assert.include(String(exits[1]), "nowhere")
    }).pipe(Effect.provide(overRedis().pipe(Layer.provideMerge(quiet)))))

  for (const name of ["memory", "Redis"] as const) {
    it.effect(`PersistedCache: a late fill does not survive an invalidation (${name})`, () =>
      Effect.gen(function*() {
        const proxy = yield* Proxy.Proxy
        const sql = yield* SqlClient.SqlClient
        const query = nameOf(sql, 1).pipe(QueryCache.cached())
        yield* proxy.arm("SELECT name", "stall")
        const reader = yield* Effect.forkChild(fateOf(query))
        yield* proxy.happened
        yield* sql`UPDATE users SET name = 'Augusta' WHERE id = 1`
        assert.deepStrictEqual(yield* fateOf(query), ["miss", augusta])
        yield* proxy.release
        assert.deepStrictEqual(yield* Fiber.join(reader), ["miss", ada])
        assert.deepStrictEqual((yield* hit(query))[1], augusta)
      }).pipe(Effect.provide(Layer.unwrap(Effect.map(Proxy.Proxy, ({ port }) =>
        clients({
          client: { port },
          cache: settings(),
          store: name === "Redis" ? RedisStore.layer() : CacheStore.layerMemory()
        }))))))
  }

  it.effect("Effect.cached: the same id shares one query, however often the function is called", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const byId = (id: number) => nameOf(sql, id).pipe(QueryCache.cached())
      assert.deepStrictEqual(yield* fates(Effect.all([byId(1), byId(1), byId(2)])), ["miss", "hit", "miss"])
      // And within a request it composes with it.
      const once = yield* Effect.cached(byId(1))
      yield* once
      yield* sql`UPDATE users SET name = 'Augusta' WHERE id = 1`
      assert.deepStrictEqual(yield* once, ada)
      assert.deepStrictEqual(yield* byId(1), augusta)
    }).pipe(Effect.provide(clients())))
})
