import { assert, describe, it } from "@effect/vitest"
import { sha3_256 } from "@noble/hashes/sha3.js"
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js"
import { CachedSqlClient, CacheScope, CacheStore, Fingerprinter, QueryAnalyzer, QueryCache } from "effect-query-cache"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import * as Stub from "./bench/stub.ts"

const facts: Fingerprinter.QueryFacts = {
  namespace: "shop",
  sql: "SELECT 1",
  parameters: "",
  form: "rows",
  schemaVersion: "",
  session: "ada",
  scope: ""
}

const fingerprint = (facts: Fingerprinter.QueryFacts) =>
  Effect.map(Fingerprinter.Fingerprinter, (fingerprinter) => fingerprinter.fingerprint(facts))

describe("Fingerprinter", () => {
  it.effect("is SHA3-256, the same on every runtime", () =>
    Effect.gen(function*() {
      const text = "4:shop8:SELECT 14:rows0:3:ada0:0:"
      assert.strictEqual(yield* fingerprint(facts), bytesToHex(sha3_256(utf8ToBytes(text))))
      const builtin = process.getBuiltinModule
      const elsewhere = yield* Effect.acquireUseRelease(
        Effect.sync(() => {
          ;(process as any).getBuiltinModule = undefined
        }),
        () => fingerprint(facts).pipe(Effect.provide(Layer.fresh(Fingerprinter.layer))),
        () =>
          Effect.sync(() => {
            process.getBuiltinModule = builtin
          })
      )
      assert.strictEqual(elsewhere, yield* fingerprint(facts))
    }).pipe(Effect.provide(Fingerprinter.layer)))

  it.effect("differs with every fact, and never by where one fact ends", () =>
    Effect.gen(function*() {
      const names = Object.keys(facts) as Array<keyof Fingerprinter.QueryFacts>
      const seen = new Set([yield* fingerprint(facts)])
      for (const name of names) seen.add(yield* fingerprint({ ...facts, [name]: `${facts[name]}x` }))
      assert.strictEqual(seen.size, names.length + 1)
      const moved = yield* fingerprint({ ...facts, namespace: "sho", sql: "pSELECT 1" })
      assert.notStrictEqual(moved, yield* fingerprint(facts))
      const lone = yield* Effect.all(["\ud800", "\udc00", "\ufffd"].map((scope) => fingerprint({ ...facts, scope })))
      assert.strictEqual(new Set(lone).size, 3)
    }).pipe(Effect.provide(Fingerprinter.layer)))

  it.effect("everything that decides an answer is among the facts of a statement", () =>
    Effect.gen(function*() {
      const of = (
        statement: (sql: SqlClient.SqlClient) => Effect.Effect<unknown, any>,
        options?: CachedSqlClient.CachedSqlClientOptions,
        config: object = {}
      ) =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const [queries] = yield* QueryCache.withInfo(statement(sql).pipe(QueryCache.cached()))
          return queries[0].fingerprint!
        }).pipe(Effect.provide(
          CachedSqlClient.layer(options).pipe(Layer.provide([CacheStore.layerMemory(), Stub.layer([], config)]))
        ))
      const one = (sql: SqlClient.SqlClient) => sql`SELECT * FROM users WHERE id = ${1}`
      const base = yield* of(one)
      assert.strictEqual(base, yield* of((sql) => sql.unsafe("SELECT * FROM users WHERE id = $1", [1])))
      const others = yield* Effect.all([
        of((sql) => sql`SELECT * FROM users WHERE id = ${2}`),
        of((sql) => sql`SELECT * FROM users WHERE id = ${"1"}`),
        of((sql) => sql`SELECT id FROM users WHERE id = ${1}`),
        of((sql) => one(sql).values),
        of(one, { schemaVersion: "2" }),
        of(one, { namespace: "other" }),
        of(one, {}, { host: "elsewhere" }),
        of(one, {}, { username: "grace" }),
        of(one, {}, { startupParameters: { search_path: "app" } }),
        of(one, {}, { startupOptions: "-c default_transaction_isolation=serializable" }),
        of((sql) => one(sql).pipe(CacheScope.provide({ tenant: "acme" }))),
        of((sql) => one(sql).pipe(CacheScope.provide({ role: "app" }))),
        of((sql) => one(sql).pipe(CacheScope.provide({ role: "app", apply: false }))),
        of((sql) => one(sql).pipe(CacheScope.provide({ settings: { "app.tenant": "acme" } })))
      ])
      assert.strictEqual(new Set([base, ...others]).size, others.length + 1)
    }))

  it.effect("can be replaced", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const [queries] = yield* QueryCache.withInfo(sql`SELECT  1`.pipe(QueryCache.cached()))
      assert.strictEqual(queries[0].fingerprint, "SELECT 1")
    }).pipe(Effect.provide(
      CachedSqlClient.layerNoDeps().pipe(Layer.provide([
        Layer.succeed(Fingerprinter.Fingerprinter, { fingerprint: ({ sql }) => sql.replaceAll(/\s+/g, " ") }),
        QueryAnalyzer.layer(),
        CacheStore.layerMemory(),
        Stub.layer([])
      ]))
    )))
})
