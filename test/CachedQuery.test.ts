import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { SqlClient } from "effect/sql"
import * as TestClock from "effect/testing/TestClock"
import { CachedQuery, CachedSqlClient, Dependency } from "../src/index.ts"

const User = Schema.Struct({ id: Schema.Number, name: Schema.String })

describe("CachedQuery", () => {
  it.effect("read-through", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const db = yield* CachedSqlClient.TestDatabase
      const users = yield* CachedQuery.make("user", {
        Key: Schema.Number,
        Value: Schema.Option(User),
        lookup: (id) =>
          Effect.map(sql<{ id: number; name: string }>`SELECT * FROM users WHERE id = ${id}`, (rows) =>
            Option.fromNullishOr(rows[0])),
        timeToLive: (user) =>
          Option.isSome(user) ? "5 minutes" : "10 seconds",
        dependencies: (id) => [Dependency.row("users", { id })]
      })
      const one = yield* users.get(1)
      assert.strictEqual(yield* users.get(1), one)
      assert.deepStrictEqual(yield* users.getMany([1, 2, 1]), [one, Option.some({ id: 2, name: "u2" }), one])
      assert.strictEqual((yield* db.queries).length, 2)
      yield* sql`UPDATE users SET name = 'x' WHERE id = 1`
      yield* users.get(1)
      assert.strictEqual((yield* db.queries).length, 4)
      yield* users.update(1, sql`UPDATE t SET a = 1`)
      assert.strictEqual((yield* db.queries).length, 6)
      yield* users.get(1)
      assert.strictEqual((yield* db.queries).length, 6)
      yield* TestClock.adjust("6 minutes")
      yield* users.get(1)
      assert.strictEqual((yield* db.queries).length, 7)
    }).pipe(Effect.provide(CachedSqlClient.layerTest(({ sql, params }) =>
      sql.startsWith("SELECT") ? [{ id: params[0], name: `u${params[0]}` }] : []
    ))))
})
