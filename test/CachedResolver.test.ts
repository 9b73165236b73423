import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { SqlClient, SqlResolver } from "effect/sql"
import { CachedResolver, CachedSqlClient, Dependency } from "../src/index.ts"

const User = Schema.Struct({ id: Schema.Int, name: Schema.String })

const users = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  return yield* CachedResolver.fromSql(
    SqlResolver.findById({
      Id: Schema.Int,
      Result: User,
      ResultId: (user) => user.id,
      execute: (ids) => sql<{ id: number; name: string }>`SELECT id, name FROM users WHERE ${sql.in("id", ids)}`
    }),
    {
      name: "user",
      Key: Schema.Int,
      Value: User,
      notFoundTimeToLive: "10 seconds",
      dependencies: (id) => [Dependency.row("users", { id })]
    }
  )
})

const database = CachedSqlClient.layerTest(({ params, sql }) =>
  sql.startsWith("SELECT")
    ? params.filter((id) => Number(id) < 1000).map((id) => ({ id, name: `u${id}` }))
    : []
)
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i)

describe("CachedResolver", () => {
  it.effect("of 100 requests 90 are hits, and one query with 10 ids is left", () =>
    Effect.gen(function*() {
      const db = yield* CachedSqlClient.TestDatabase
      const request = SqlResolver.request(yield* users)
      const all = (ids: ReadonlyArray<number>) => Effect.forEach(ids, request, { concurrency: "unbounded" })
      yield* all(range(1, 90))
      const found = yield* all(range(1, 100))
      assert.deepStrictEqual(found.map(({ name }) => name), range(1, 100).map((id) => `u${id}`))
      assert.deepStrictEqual((yield* db.queries).map(({ params }) => params), [range(1, 90), range(91, 100)])
    }).pipe(Effect.provide(database)))
})
