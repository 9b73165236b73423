/** Who asks: row security, the search_path, and functions that tell of the session. */
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { CachedSqlClient, CacheScope, CacheStore, QueryCache } from "effect-query-cache"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import * as Pglite from "../support/pglite.ts"
import { fateOf, fates } from "./fixture.ts"

const setup = [
  "CREATE ROLE reader",
  "CREATE TABLE members (org int, tenant text)",
  "CREATE TABLE docs (id int, org int)",
  "INSERT INTO members VALUES (1, 'a'), (2, 'b')",
  "INSERT INTO docs VALUES (10, 1), (20, 2)",
  "ALTER TABLE docs ENABLE ROW LEVEL SECURITY",
  `CREATE POLICY members ON docs USING (
    org IN (SELECT org FROM members WHERE tenant = current_setting('app.tenant', true))
  )`,
  "CREATE VIEW shown WITH (security_invoker) AS SELECT * FROM docs",
  "GRANT SELECT ON docs, members, shown TO reader",
  "CREATE SCHEMA reader",
  "CREATE SCHEMA archive",
  "CREATE TABLE archive.docs (id int)",
  "CREATE TABLE reader.members (name text)",
  "INSERT INTO archive.docs VALUES (99)",
  "GRANT USAGE ON SCHEMA archive, reader TO reader",
  "GRANT SELECT ON archive.docs, reader.members TO reader"
]

layer(
  CachedSqlClient.layer({ policy: { timeToLive: "1 day" } }).pipe(
    Layer.provide(
      Layer.effectDiscard(
        Effect.flatMap(PgClient.PgClient, (sql) => Effect.forEach(setup, (statement) => sql.unsafe(statement)))
      )
    ),
    Layer.provide([CacheStore.layerMemory(), Pglite.layer()])
  )
)("who asks", (it) => {
  const tenant = (name: string) => CacheScope.provide({ role: "reader", settings: { "app.tenant": name } })

  it.effect("a table with row security is cached in a scope alone, and depends on what its policies read", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      for (const table of ["docs", "shown"]) {
        const docs = sql`SELECT id FROM ${sql(table)} ORDER BY id`.pipe(QueryCache.cached())
        const inA = docs.pipe(tenant("a"))
        const inB = docs.pipe(tenant("b"))
        assert.deepStrictEqual(yield* fateOf(inA), ["miss", [{ id: 10 }]])
        assert.deepStrictEqual(yield* fateOf(inB), ["miss", [{ id: 20 }]])
        assert.deepStrictEqual(yield* fates(Effect.all([inA, inB])), ["hit", "hit"])
        yield* sql`UPDATE members SET tenant = CASE tenant WHEN 'a' THEN 'b' ELSE 'a' END`
        assert.deepStrictEqual(yield* fateOf(inA), ["miss", [{ id: 20 }]])
        assert.deepStrictEqual(yield* fateOf(inB), ["miss", [{ id: 10 }]])
        yield* sql`UPDATE members SET tenant = CASE tenant WHEN 'a' THEN 'b' ELSE 'a' END`
      }
      // Policies do not apply to the pool's own user, who owns the table. They do to the owner of a view, or may.
      assert.deepStrictEqual(yield* fates(sql`SELECT * FROM docs`.pipe(QueryCache.cached())), ["miss"])
      const shown = yield* QueryCache.explain(sql`SELECT * FROM shown`.pipe(QueryCache.cached()))
      assert.deepStrictEqual([shown.reason, shown.detail], ["row-security", "docs"])
    }))

  it.effect("what tells of the session is cached in a scope alone", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const setting = sql`SELECT current_setting('app.tenant', true) AS tenant`.pipe(QueryCache.cached())
      assert.deepStrictEqual(yield* fates(setting), ["bypass session-dependent"])
      for (const name of ["a", "b", "a"]) {
        assert.deepStrictEqual(yield* setting.pipe(tenant(name)), [{ tenant: name }])
      }
      assert.deepStrictEqual(yield* fates(setting.pipe(tenant("b"))), ["hit"])
      const process = sql`SELECT pg_backend_pid() > 0 AS alive`.pipe(QueryCache.cached(), tenant("a"))
      assert.deepStrictEqual(yield* fates(process), ["bypass session-dependent"])
    }))

  it.effect("a scope's search_path, and its role's own schema, say what a name means", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const docs = sql`SELECT id FROM docs`.pipe(
        QueryCache.cached(),
        CacheScope.provide({ settings: { search_path: "archive, public" } })
      )
      assert.deepStrictEqual(yield* fateOf(docs), ["miss", [{ id: 99 }]])
      assert.deepStrictEqual(yield* fates(docs), ["hit"])
      yield* sql`INSERT INTO docs VALUES (30, 3)`
      assert.deepStrictEqual(yield* fates(docs), ["hit"])
      yield* sql`UPDATE archive.docs SET id = 98`
      assert.deepStrictEqual(yield* fateOf(docs), ["miss", [{ id: 98 }]])
      yield* sql`UPDATE docs SET id = 97`.pipe(CacheScope.provide({ settings: { search_path: "archive" } }))
      assert.deepStrictEqual(yield* fateOf(docs), ["miss", [{ id: 97 }]])

      const members = sql`SELECT name FROM members`.pipe(
        QueryCache.cached(),
        CacheScope.provide({ role: "reader", settings: { search_path: `"$user", public` } })
      )
      assert.deepStrictEqual(yield* fateOf(members), ["miss", []])
      yield* sql`INSERT INTO reader.members VALUES ('Ada')`
      assert.deepStrictEqual(yield* fateOf(members), ["miss", [{ name: "Ada" }]])
    }))
})
