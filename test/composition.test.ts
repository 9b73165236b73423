// Cached statements and cached queries under Effect's own ways of caching, batching and running at once.
import { assert, describe, it } from "@effect/vitest"
import * as Cache from "effect/Cache"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { SqlClient, SqlResolver, SqlSchema } from "effect/sql"
import * as TestClock from "effect/testing/TestClock"
import { CachedQuery, CachedResolver, CachedSqlClient, QueryCache } from "../src/index.ts"

const User = Schema.Struct({ id: Schema.Int, name: Schema.String })

/** A scripted table of users with one name for all, which a write changes. */
const makeShop = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const database = yield* CachedSqlClient.TestDatabase
  const byId = (id: number) =>
    Effect.map(sql<{ id: number; name: string }>`SELECT id, name FROM users WHERE id = ${id}`, (rows) => rows[0]!.name)
  const rename = (name: string) => sql`UPDATE users SET name = ${name}`
  const reads = Effect.map(
    database.queries,
    (queries) => queries.filter(({ sql }) => sql.startsWith("SELECT")).map(({ params }) => params)
  )
  return { sql, byId, rename, reads }
})

const shop = Layer.unwrap(Effect.sync(() => {
  let name = "Ada"
  return CachedSqlClient.layerTest(({ params, sql }) => {
    if (sql.startsWith("SELECT")) return params.map((id) => ({ id, name }))
    name = String(params[0])
    return []
  })
}))

const policy = { timeToLive: "1 hour" } as const

describe("Effect.cached", () => {
  it.effect("is stable within a request, and shared between requests", () =>
    Effect.gen(function*() {
      const { byId, reads, rename } = yield* makeShop
      const query = byId(1).pipe(QueryCache.cached(policy))
      const request = Effect.gen(function*() {
        const me = yield* Effect.cached(query)
        const first = yield* me
        yield* Effect.when(rename("Grace"), Effect.succeed(first === "Ada"))
        return [first, yield* me, yield* query]
      })
      assert.deepStrictEqual(yield* request, ["Ada", "Ada", "Grace"])
      assert.deepStrictEqual(yield* request, ["Grace", "Grace", "Grace"])
      assert.deepStrictEqual(yield* reads, [[1], [1]])
    }).pipe(Effect.provide(shop)))

  it.effect("cachedWithTTL and cachedInvalidateWithTTL ask again when their time has passed, which may be a hit", () =>
    Effect.gen(function*() {
      const { byId, reads, rename } = yield* makeShop
      const query = byId(1).pipe(QueryCache.cached(policy))
      const me = yield* Effect.cachedWithTTL(query, "1 minute")
      const [also, invalidate] = yield* Effect.cachedInvalidateWithTTL(query, "1 minute")
      yield* Effect.all([me, also])
      yield* TestClock.adjust("2 minutes")
      yield* Effect.all([me, also])
      assert.deepStrictEqual(yield* reads, [[1]])
      yield* rename("Grace")
      assert.deepStrictEqual(yield* Effect.all([me, also, query]), ["Ada", "Ada", "Grace"])
      yield* invalidate
      assert.strictEqual(yield* also, "Grace")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* me, "Grace")
      assert.deepStrictEqual(yield* reads, [[1], [1]])
    }).pipe(Effect.provide(shop)))
})

describe("Cache", () => {
  it.effect("over a cached statement, and over a cached query", () =>
    Effect.gen(function*() {
      const { byId, reads, rename } = yield* makeShop
      const users = yield* CachedQuery.make("user", { Key: Schema.Int, Value: Schema.String, lookup: byId })
      const statements = yield* Cache.make({
        capacity: 10,
        lookup: (id: number) => QueryCache.cached(byId(id), policy)
      })
      const keyed = yield* Cache.make({ capacity: 10, lookup: users.get })
      const all = Effect.all([Cache.get(statements, 1), Cache.get(keyed, 1)])
      yield* all
      yield* all
      // One read for each: a cached query does not ask the statements' cache.
      assert.deepStrictEqual(yield* reads, [[1], [1]])
      yield* rename("Grace")
      yield* users.invalidate(1)
      assert.deepStrictEqual(yield* all, ["Ada", "Ada"])
      yield* Effect.all([Cache.invalidateAll(statements), Cache.invalidateAll(keyed)])
      assert.deepStrictEqual(yield* all, ["Grace", "Grace"])
      assert.deepStrictEqual(yield* reads, [[1], [1], [1], [1]])
    }).pipe(Effect.provide(shop)))
})

describe("Effect.all", () => {
  it.effect("with concurrency: equal reads are one, whatever form they are asked in", () =>
    Effect.gen(function*() {
      const { byId, reads, sql } = yield* makeShop
      const users = yield* CachedQuery.make("user", { Key: Schema.Int, Value: Schema.String, lookup: byId })
      yield* Effect.all({
        list: Effect.all(Array.from({ length: 50 }, () => byId(1)), { concurrency: 10 }),
        keyed: Effect.all(Array.from({ length: 50 }, (_, i) => users.get(i % 2)), { concurrency: "unbounded" }),
        live: QueryCache.uncached(sql`SELECT id, name FROM users WHERE id = ${7}`)
      }, { concurrency: "unbounded" }).pipe(QueryCache.cached({ ...policy, tags: ["page"] }))
      assert.deepStrictEqual((yield* reads).map(([id]) => id).sort(), [0, 1, 1, 7])
    }).pipe(Effect.provide(shop)))
})

// What two parts of a program share who know nothing of each other.
class Profiles extends Context.Service<Profiles>()("test/Profiles", {
  make: Effect.map(SqlClient.SqlClient, (sql) => ({
    find: SqlSchema.findOne({
      Request: Schema.Int,
      Result: User,
      execute: (id) => sql`SELECT id, name FROM users WHERE id = ${id}`
    })
  }))
}) {}
class Mails extends Context.Service<Mails>()("test/Mails", {
  make: Effect.map(SqlClient.SqlClient, (sql) => ({
    recipient: Effect.fn("recipient")(function*(id: number) {
      const [user] = yield* sql.unsafe<{ name: string }>("SELECT id, name FROM users WHERE id = $1", [id])
      return user!.name
    })
  }))
}) {}
const services = Layer.mergeAll(Layer.effect(Profiles, Profiles.make), Layer.effect(Mails, Mails.make))

describe("the same SQL through different services", () => {
  it.effect("shares one flight and one entry", () =>
    Effect.gen(function*() {
      const profiles = yield* Profiles
      const mails = yield* Mails
      const database = yield* CachedSqlClient.TestDatabase
      const gate = yield* Gate
      const running = yield* Effect.forkChild(
        Effect.all([profiles.find(1), mails.recipient(1)], { concurrency: "unbounded" }).pipe(
          QueryCache.cached(policy),
          QueryCache.withInfo
        )
      )
      yield* Effect.yieldNow
      yield* Deferred.succeed(gate, undefined)
      const [first, [profile, name]] = yield* Fiber.join(running)
      assert.deepStrictEqual([profile.name, name], ["Ada", "Ada"])
      assert.deepStrictEqual(first.map(({ status }) => status).sort(), ["joined", "miss"])
      const [second] = yield* QueryCache.withInfo(QueryCache.cached(
        Effect.all([profiles.find(1), mails.recipient(1)]),
        policy
      ))
      assert.deepStrictEqual(second.map(({ status }) => status), ["hit", "hit"])
      assert.strictEqual(second[0]!.fingerprint, second[1]!.fingerprint)
      assert.strictEqual((yield* database.queries).length, 1)
    }).pipe(Effect.provide(services.pipe(Layer.provideMerge(gated)))))
})

class Gate extends Context.Service<Gate, Deferred.Deferred<void>>()("test/Gate") {}
const gated = Layer.unwrap(Effect.sync(() => {
  const gate = Deferred.makeUnsafe<void>()
  return Layer.merge(
    Layer.succeed(Gate, gate),
    CachedSqlClient.layerTest(({ params }) => Effect.as(Deferred.await(gate), [{ id: params[0], name: "Ada" }]))
  )
}))

describe("batching", () => {
  const byIds = Effect.map(SqlClient.SqlClient, (sql) =>
    SqlResolver.findById({
      Id: Schema.Int,
      Result: User,
      ResultId: (user) => user.id,
      execute: (ids) => sql`SELECT id, name FROM users WHERE ${sql.in("id", ids)}`
    }))

  it.effect("lookups that make requests of a resolver are one query", () =>
    Effect.gen(function*() {
      const { reads } = yield* makeShop
      const users = yield* CachedQuery.make("user", {
        Key: Schema.Int,
        Value: User,
        lookup: SqlResolver.request(yield* byIds)
      })
      yield* users.getMany([1, 2, 3])
      yield* users.getMany([1, 2, 3, 4, 5])
      assert.deepStrictEqual(yield* reads, [[1, 2, 3], [4, 5]])
    }).pipe(Effect.provide(shop)))

  it.effect("requests of a cached resolver, inside a cached query, inside Effect.cached", () =>
    Effect.gen(function*() {
      const { reads } = yield* makeShop
      const request = SqlResolver.request(
        yield* CachedResolver.fromSql(yield* byIds, { name: "user", Key: Schema.Int, Value: User })
      )
      const teams = yield* CachedQuery.make("team", {
        Key: Schema.Int,
        Value: Schema.Array(User),
        lookup: (team) => Effect.forEach([team, team + 1, team + 2], request, { concurrency: "unbounded" })
      })
      const page = yield* Effect.cached(teams.getMany([1, 2]))
      assert.deepStrictEqual((yield* page).map((team) => team.map(({ id }) => id)), [[1, 2, 3], [2, 3, 4]])
      assert.strictEqual(yield* page, yield* page)
      // What a lookup asks goes past every cache: in one query all the same.
      assert.deepStrictEqual((yield* reads).length, 1)
    }).pipe(Effect.provide(shop)))
})
