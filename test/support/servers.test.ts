import type { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Stream } from "effect"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import * as Pglite from "./pglite.ts"
import * as Postgres from "./postgres.ts"

const suite = (name: string, database: Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError>) =>
  describe(name, () => {
    it.effect("answers queries, reports errors and goes on", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        expect(yield* sql`SELECT 1 AS one, ${"text"}::text AS two`).toEqual([{ one: 1, two: "text" }])
        const error = yield* Effect.flip(sql`SELECT 1 / ${0}::int`)
        expect(error.reason._tag).not.toBe("ConnectionError")
        expect(yield* Effect.exit(sql`nonsense`)).toSatisfy(Exit.isFailure)
        expect(yield* sql`SELECT ${2}::int AS two`).toEqual([{ two: 2 }])
        expect(yield* sql`SHOW server_version_num`.values.pipe(Effect.map((rows) => String(rows[0]![0]).slice(0, 2))))
          .toBe("18")
      }).pipe(Effect.provide(database)))

    it.effect("commits, rolls back, and rolls back to a savepoint", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE t (n int)`
        yield* sql.withTransaction(sql`INSERT INTO t VALUES (1)`)
        yield* Effect.exit(sql.withTransaction(Effect.andThen(sql`INSERT INTO t VALUES (2)`, Effect.fail("no"))))
        yield* sql.withTransaction(Effect.gen(function*() {
          yield* sql`INSERT INTO t VALUES (3)`
          yield* Effect.exit(sql.withTransaction(Effect.andThen(sql`INSERT INTO t VALUES (4)`, sql`SELECT 1 / 0`)))
          yield* sql`INSERT INTO t VALUES (5)`
        }))
        expect(yield* sql`SELECT n FROM t ORDER BY n`.values).toEqual([[1], [3], [5]])
      }).pipe(Effect.provide(database)))

    it.effect("streams, sends large messages and survives an interrupted statement", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const streamed = yield* Stream.runCollect(sql`SELECT generate_series(1, 1000) AS n`.stream)
        expect(streamed.length).toBe(1000)
        const large = "x".repeat(1_000_000)
        expect(yield* sql`SELECT length(${large}::text) AS n`.values).toEqual([[1_000_000]])
        const slow = yield* Effect.forkChild(sql`SELECT count(*) FROM generate_series(1, 1000000)`)
        yield* Effect.yieldNow
        yield* Fiber.interrupt(slow)
        expect(yield* sql`SELECT 1`.values).toEqual([[1]])
      }).pipe(Effect.provide(database)))

    it.effect("two layers are two databases", () =>
      Effect.gen(function*() {
        const names = yield* Effect.forEach([1, 2], () =>
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            yield* sql`CREATE TABLE only_here (n int)`
            return yield* sql`SELECT count(*)::int FROM only_here`.values
          }).pipe(Effect.provide(Layer.fresh(database))))
        expect(names).toEqual([[[0]], [[0]]])
      }))
  })

suite("PGlite", Pglite.layer())

describe("PGlite", () => {
  it.effect("says so where a second connection is wanted", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const refused = yield* Deferred.make<void>()
      const [, error] = yield* Effect.all([
        sql.withTransaction(Deferred.await(refused)),
        Effect.flip(sql.withTransaction(sql`SELECT 1`)).pipe(Effect.tap(Deferred.succeed(refused, undefined)))
      ], { concurrency: "unbounded" })
      expect(String(error.reason.cause)).toContain("PGlite has one connection")
    }).pipe(Effect.provide(Pglite.layer({ maxConnections: 2 }))))
})

suite("PostgreSQL", Postgres.layer())

describe("PostgreSQL", () => {
  it.effect("breaks a connection, crashes, and comes back with what was committed", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const server = yield* Postgres.PostgresServer
      yield* sql`CREATE TABLE t (n int)`
      yield* sql`INSERT INTO t VALUES (1)`
      expect(yield* server.terminateBackends).toBe(1)
      expect(
        yield* Effect.exit(sql.withTransaction(Effect.gen(function*() {
          yield* sql`INSERT INTO t VALUES (2)`
          yield* server.terminateBackends
          yield* sql`INSERT INTO t VALUES (3)`
        })))
      ).toSatisfy(Exit.isFailure)
      yield* server.stop("immediate")
      expect(yield* Effect.exit(sql`SELECT 1`)).toSatisfy(Exit.isFailure)
      yield* server.start
      expect(yield* sql`SELECT n FROM t`.values).toEqual([[1]])
    }).pipe(Effect.provide(Postgres.layer())))

  it.effect("takes settings, and as many connections as a client wants", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const isolation = sql`SELECT current_setting('default_transaction_isolation')`.values
      const both = yield* Effect.all([sql.withTransaction(isolation), sql.withTransaction(isolation)], {
        concurrency: "unbounded"
      })
      expect(both).toEqual([[["serializable"]], [["serializable"]]])
    }).pipe(Effect.provide(Layer.provideMerge(
      Postgres.layerClient({ maxConnections: 2 }),
      Postgres.layerServer({ default_transaction_isolation: "serializable" })
    ))))
})
