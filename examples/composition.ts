// `cached` works on any effect, so it goes together with what Effect already has.
//
//   node examples/composition.ts
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Layer, Schema } from "effect"
import { CachedSqlClient, CacheStore, QueryCache } from "effect-query-cache"
import { SqlClient, SqlResolver, SqlSchema } from "effect/sql"
import * as Pglite from "./support/pglite.ts"

class User extends Schema.Class<User>("User")({
  id: Schema.Int,
  name: Schema.String,
  score: Schema.Int
}) {}

class Users extends Context.Service<Users>()("examples/Users", {
  make: Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, score int NOT NULL)`
    yield* sql`INSERT INTO users SELECT i, 'user ' || i, i * 10 FROM generate_series(1, 20) i`

    // The cache keeps rows. What is made of them, here a class, is made anew for each caller.
    const byId = SqlSchema.findOne({
      Request: Schema.Int,
      Result: User,
      execute: (id) => sql`SELECT * FROM users WHERE id = ${id}`
    })

    // A resolver makes one query of many requests, and that query is what is cached. (Batches differ, and each list of
    // ids is an answer of its own.)
    const resolver = SqlResolver.findById({
      Id: Schema.Int,
      Result: User,
      ResultId: (user) => user.id,
      execute: (ids) => sql`SELECT * FROM users WHERE ${sql.in("id", ids)} ORDER BY id`
    })

    const total = sql<{ total: number }>`SELECT sum(score)::int AS total FROM users`.pipe(
      Effect.map((rows) => rows[0]!.total)
    )
    const setScore = (id: number, score: number) => sql`UPDATE users SET score = ${score} WHERE id = ${id}`

    return { byId, total, setScore, request: SqlResolver.request(resolver) }
  })
}) {
  static readonly layer = Layer.effect(Users, Users.make)
}

/** A whole page under one policy. Inside it, `uncached` has the last word. */
const dashboard = Effect.gen(function*() {
  const users = yield* Users
  return yield* Effect.all({
    total: users.total,
    me: users.byId(1),
    live: QueryCache.uncached(users.byId(2))
  }, { concurrency: "unbounded" })
}).pipe(QueryCache.cached({ name: "dashboard", timeToLive: "1 minute", tags: ["dashboard"] }))

/** What became of the statements of an effect, sorted: they run at the same time. */
const statuses = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(QueryCache.withInfo(effect), ([queries]) => queries.map((query) => query.status).sort())

export const program = Effect.gen(function*() {
  const users = yield* Users

  const first = yield* statuses(dashboard)
  const second = yield* statuses(dashboard)

  // Shared between requests by the store, and stable within one request by `Effect.cached`: what this request has read
  // once it goes on reading, whatever happens meanwhile.
  const me = yield* Effect.cached(users.byId(1).pipe(QueryCache.cached({ timeToLive: "1 minute" })))
  const before = (yield* me).score
  yield* users.setScore(1, 99)
  const same = (yield* me).score
  const now = (yield* dashboard).me.score

  const batch = Effect.forEach([3, 4, 5], users.request, { concurrency: "unbounded" }).pipe(QueryCache.cached())
  const batches = [yield* statuses(batch), yield* statuses(batch)]

  return { first, second, scores: { before, same, now }, batches }
}).pipe(
  Effect.provide(Users.layer.pipe(
    Layer.provideMerge(CachedSqlClient.layer()),
    Layer.provide([CacheStore.layerMemory(), Pglite.layer()])
  ))
)

if (import.meta.main) program.pipe(Effect.tap(Console.log), NodeRuntime.runMain)
