/** What a program leaves behind in sessions of the pool by hand: settings, roles, temporary tables. */
import { assert, layer } from "@effect/vitest"
import { CachedSqlClient, CacheStore, QueryCache } from "effect-query-cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import * as Logs from "../support/logs.ts"
import * as Postgres from "../support/postgres.ts"
import { fates } from "./fixture.ts"

/** Two clients of one database with a table `t` in two schemas, over one store: one to read with, and one to tamper with. */
const both = Effect.gen(function*() {
  const store = yield* Layer.build(CacheStore.layerMemory())
  const make = Effect.map(
    Layer.build(
      CachedSqlClient.layer().pipe(
        Layer.provide([Layer.succeedContext(store), Postgres.layerClient({ maxConnections: 1 })])
      )
    ),
    Context.get(SqlClient.SqlClient)
  )
  const sql = yield* make
  yield* sql`DROP SCHEMA IF EXISTS archive CASCADE`
  yield* sql`DROP TABLE IF EXISTS t`
  yield* sql`CREATE SCHEMA archive`
  yield* sql`CREATE TABLE archive.t (id int)`
  yield* sql`CREATE TABLE t (id int)`
  const reader = yield* make
  const read = (table: string) => fates(reader.unsafe(`SELECT * FROM ${table}`).pipe(QueryCache.cached()))
  const warm = Effect.gen(function*() {
    for (const table of ["t", "archive.t"]) {
      yield* read(table)
      assert.deepStrictEqual(yield* read(table), ["hit"])
    }
  })
  yield* warm
  return { sql, read, warm, own: fates(sql`SELECT * FROM t`.pipe(QueryCache.cached())), logs: yield* Logs.Logs }
})

layer(Postgres.layerServer())("sessions", (it) => {
  const test = (
    name: string,
    body: (it: Effect.Success<typeof both>) => Effect.Effect<void, unknown, SqlClient.SqlClient | any>
  ) => it.effect(name, () => Effect.flatMap(both, body).pipe(Effect.scoped, Effect.provide(Logs.layer)) as any)

  test("a setting that is left on the pool ends what is served, and names may mean anything", ({ logs, own, read, sql }) =>
    Effect.gen(function*() {
      yield* sql`SET statement_timeout = 10000`
      assert.deepStrictEqual(yield* own, ["hit"])
      yield* sql`SET search_path = archive`
      assert.deepStrictEqual(yield* own, ["bypass session-changed"])
      // What it says of `t` is true of `archive.t`; which connection comes next nobody knows.
      yield* sql`INSERT INTO t VALUES (1)`
      assert.deepStrictEqual([yield* read("archive.t"), yield* read("t")], [["miss"], ["miss"]])
      yield* sql`SET TIME ZONE 'UTC'`
      assert.deepStrictEqual(
        (yield* logs.messages).filter((message) => message.startsWith("The")).map((message) => message.slice(0, 24)),
        [
          "The setting search_path "
        ]
      )
    }))

  test("set_config does as SET does, and is looked for in functions", ({ own, sql }) =>
    Effect.gen(function*() {
      yield* sql.unsafe(`CREATE OR REPLACE FUNCTION as_tenant(name text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        PERFORM set_config('app.tenant', name, true);
      END $$`)
      yield* own
      yield* sql`SELECT as_tenant('a')`
      yield* sql`SELECT set_config('app.tenant', 'a', true)`
      assert.deepStrictEqual(yield* own, ["hit"])
      yield* sql.unsafe(`CREATE OR REPLACE FUNCTION as_tenant(name text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        PERFORM set_config('app.tenant', name, false);
      END $$`)
      yield* own
      yield* sql`SELECT as_tenant('a')`
      assert.deepStrictEqual(yield* own, ["bypass session-changed"])
    }))

  test("in a transaction, SET LOCAL says what names mean until its end", ({ own, read, sql, warm }) =>
    Effect.gen(function*() {
      yield* sql.withTransaction(Effect.andThen(sql`SET LOCAL search_path = archive`, sql`INSERT INTO t VALUES (1)`))
      assert.deepStrictEqual([yield* read("archive.t"), yield* read("t")], [["miss"], ["miss"]])
      yield* warm
      yield* own
      yield* sql`INSERT INTO t VALUES (1)`
      assert.deepStrictEqual([yield* read("archive.t"), yield* read("t"), yield* own], [["hit"], ["miss"], ["hit"]])
    }))

  test("on a reserved connection, until it is given back", ({ own, read, sql, warm }) =>
    Effect.gen(function*() {
      yield* own
      yield* Effect.scoped(Effect.gen(function*() {
        const connection = yield* sql.reserve
        yield* connection.executeRaw("SET search_path = archive", [])
        yield* connection.executeRaw("INSERT INTO t VALUES (1)", [])
        assert.deepStrictEqual([yield* read("archive.t"), yield* read("t")], [["miss"], ["miss"]])
        yield* connection.executeRaw("DISCARD ALL", [])
      }))
      yield* warm
      assert.deepStrictEqual(yield* own, ["hit"])
      yield* Effect.scoped(
        Effect.flatMap(sql.reserve, (connection) => connection.executeRaw("SET TIME ZONE 'UTC'", []))
      )
      assert.deepStrictEqual(yield* own, ["bypass session-changed"])
    }))

  test("a temporary table hides the one of its name", ({ own, read, sql }) =>
    Effect.gen(function*() {
      yield* own
      yield* sql`CREATE TEMP TABLE t (id int)`
      assert.deepStrictEqual(yield* own, ["bypass temporary-table"])
      assert.deepStrictEqual(yield* fates(sql`SELECT * FROM public.t`.pipe(QueryCache.cached())), ["miss"])
      yield* sql`INSERT INTO t VALUES (1)`
      assert.deepStrictEqual(yield* read("archive.t"), ["hit"])
      // Another connection has none.
      yield* sql`CREATE TEMP TABLE scratch AS SELECT * FROM archive.t`
      yield* sql`INSERT INTO scratch VALUES (2)`
      assert.deepStrictEqual(yield* read("archive.t"), ["hit"])
    }))
})
