import { assert, describe, it } from "@effect/vitest"
import { CachedSqlClient, CacheStore, Invalidator, QueryCache } from "effect-query-cache"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import * as SqlSchema from "effect/sql/SqlSchema"
import * as TestClock from "effect/testing/TestClock"
import * as Pglite from "./support/pglite.ts"

const Users = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, status text NOT NULL)`
  yield* sql`INSERT INTO users ${
    sql.insert([{ id: 1, name: "Ada", status: "active" }, { id: 2, name: "Grace", status: "active" }])
  }`
  const byId = (id: number) => sql<{ id: number; name: string }>`SELECT id, name FROM users WHERE id = ${id}`
  return { sql, byId }
})

const database = <A, E, R>(effect: Effect.Effect<A, E, R>, options?: CachedSqlClient.CachedSqlClientOptions) =>
  Effect.provide(
    effect,
    CachedSqlClient.layer(options).pipe(Layer.provide([CacheStore.layerMemory(), Pglite.layer()]))
  )

const statuses = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(QueryCache.withInfo(effect), ([queries]) => queries.map((query) => query.status))

describe("CachedSqlClient", () => {
  it.effect("the example: miss, hit, invalidated by the program's own write", () =>
    Effect.gen(function*() {
      const { sql } = yield* Users
      const active = sql<{ name: string }>`SELECT name FROM users WHERE status = ${"active"} ORDER BY id`.pipe(
        QueryCache.cached({ timeToLive: "5 minutes" })
      )
      const [queries, rows] = yield* QueryCache.withInfo(Effect.all([active, active]))
      assert.deepStrictEqual(queries.map((query) => [query.status, query.level]), [["miss", undefined], ["hit", "L1"]])
      assert.deepStrictEqual(rows[1], [{ name: "Ada" }, { name: "Grace" }])
      yield* sql`INSERT INTO users ${sql.insert({ id: 3, name: "Edsger", status: "active" })}`
      const [after, again] = yield* QueryCache.withInfo(active)
      assert.strictEqual(after[0].status, "miss")
      assert.strictEqual(again.length, 3)
    }).pipe(database))

  it.effect("time to live", () =>
    Effect.gen(function*() {
      const { byId } = yield* Users
      const query = byId(1).pipe(QueryCache.cached({ timeToLive: "1 minute" }))
      assert.deepStrictEqual(yield* statuses(Effect.andThen(query, query)), ["miss", "hit"])
      yield* TestClock.adjust("59 seconds")
      assert.deepStrictEqual(yield* statuses(query), ["hit"])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* statuses(query), ["miss"])
    }).pipe(database))

  it.effect("SqlSchema, fragments and unsafe share what they share", () =>
    Effect.gen(function*() {
      const { sql } = yield* Users
      const User = Schema.Struct({ id: Schema.Int, name: Schema.String })
      const find = SqlSchema.findAll({
        Request: Schema.Int,
        Result: User,
        execute: (id) => sql`SELECT id, name FROM users WHERE id = ${id}`
      })
      assert.deepStrictEqual(yield* statuses(Effect.all([find(1), find(1), find(2)]).pipe(QueryCache.cached())), [
        "miss",
        "hit",
        "miss"
      ])
      const unsafe = sql.unsafe("SELECT id, name FROM users WHERE id = $1", [1]).pipe(QueryCache.cached())
      assert.deepStrictEqual(yield* statuses(unsafe), ["hit"])
      const many = (ids: ReadonlyArray<number>) =>
        sql`SELECT name FROM ${sql("users")} WHERE ${sql.in("id", ids)} AND ${
          sql.and([sql`status = ${"active"}`, sql`id > ${0}`])
        } ORDER BY id`
          .pipe(QueryCache.cached())
      assert.deepStrictEqual(yield* statuses(Effect.all([many([1, 2]), many([1, 2]), many([2, 1])])), [
        "miss",
        "hit",
        "miss"
      ])
      assert.deepStrictEqual(yield* many([2]), [{ name: "Grace" }])
    }).pipe(database))

  it.effect("rows belong to the caller", () =>
    Effect.gen(function*() {
      const { byId } = yield* Users
      const query = byId(1).pipe(QueryCache.cached())
      const first = yield* query
      ;(first as any)[0].name = "Mallory"
      const second = yield* query
      assert.deepStrictEqual(second, [{ id: 1, name: "Ada" }])
      ;(second as any)[0].name = "Mallory"
      assert.deepStrictEqual(yield* query, [{ id: 1, name: "Ada" }])
    }).pipe(database))

  it.effect("a transaction: own reads bypass, commit invalidates, rollback does not", () =>
    Effect.gen(function*() {
      const { byId, sql } = yield* Users
      const query = byId(1).pipe(QueryCache.cached())
      yield* query
      const rename = (name: string) => sql`UPDATE users SET name = ${name} WHERE id = 1`
      const rolledBack = yield* Effect.exit(sql.withTransaction(Effect.gen(function*() {
        yield* rename("Mallory")
        const [info, rows] = yield* QueryCache.withInfo(query)
        assert.deepStrictEqual([info[0].status, info[0].reason], ["bypass", "transaction"])
        assert.strictEqual(rows[0].name, "Mallory")
        return yield* Effect.fail("no")
      })))
      assert.isTrue(Exit.isFailure(rolledBack))
      const [info, rows] = yield* QueryCache.withInfo(query)
      assert.strictEqual(info[0].status, "hit")
      assert.strictEqual(rows[0].name, "Ada")
      yield* sql.withTransaction(rename("Augusta"))
      const [after, now] = yield* QueryCache.withInfo(query)
      assert.strictEqual(after[0].status, "miss")
      assert.strictEqual(now[0].name, "Augusta")
    }).pipe(database))

  it.effect("tags, autoInvalidate: false and explicit invalidation", () =>
    Effect.gen(function*() {
      const { byId, sql } = yield* Users
      const tagged = byId(1).pipe(QueryCache.cached({ tags: ["a", "b"] }))
      const kept = byId(2).pipe(QueryCache.cached({ autoInvalidate: false }))
      yield* Effect.all([tagged, kept])
      yield* Invalidator.invalidate({ tags: ["b"] })
      assert.deepStrictEqual(yield* statuses(Effect.all([tagged, kept])), ["miss", "hit"])
      yield* sql`UPDATE users SET name = 'x'`
      assert.deepStrictEqual(yield* statuses(Effect.all([tagged, kept])), ["miss", "hit"])
      yield* Invalidator.invalidate({ tables: ["users"] })
      assert.deepStrictEqual(yield* statuses(Effect.all([tagged, kept])), ["miss", "miss"])
      yield* Invalidator.invalidate({ all: true })
      assert.deepStrictEqual(yield* statuses(Effect.all([tagged, kept])), ["miss", "miss"])
    }).pipe(database))
})
