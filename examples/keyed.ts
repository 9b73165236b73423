// Values by key: read-through, cache-aside, write-through.
//
//   node examples/keyed.ts
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Layer, Option, Schema } from "effect"
import { CachedQuery, CachedSqlClient, CacheStore, Dependency, QueryCache } from "effect-query-cache"
import { SqlClient, SqlSchema } from "effect/sql"
import * as Pglite from "./support/pglite.ts"

const User = Schema.Struct({ id: Schema.Int, name: Schema.String, status: Schema.String })

class Users extends Context.Service<Users>()("examples/KeyedUsers", {
  make: Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, status text NOT NULL)`
    yield* sql`INSERT INTO users VALUES (1, 'Ada', 'active'), (2, 'Grace', 'active'), (3, 'Edsger', 'retired')`

    const users = yield* CachedQuery.make("user", {
      Key: Schema.Int,
      Value: Schema.Option(User),
      lookup: SqlSchema.findOneOption({
        Request: Schema.Int,
        Result: User,
        execute: (id) => sql`SELECT * FROM users WHERE id = ${id}`
      }),
      // An absent user may turn up at any time, and a retired one is hardly ever asked for.
      timeToLive: (user) => Option.isSome(user) ? "5 minutes" : "10 seconds",
      cacheWhen: (user) => Option.isNone(user) || user.value.status === "active",
      dependencies: (id) => [Dependency.row("users", { id })]
    })
    return { sql, users }
  })
}) {
  static readonly layer = Layer.effect(Users, Users.make)
}

/** What became of each read of an effect. */
const statuses = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(
    QueryCache.withInfo(effect),
    ([queries]) => queries.filter(({ name }) => name === "user").map(({ status }) => status)
  )

export const program = Effect.gen(function*() {
  const { sql, users } = yield* Users
  const name = (id: number) => Effect.map(users.get(id), Option.map(({ name }) => name))

  // Read-through: whoever asks neither knows nor cares where the value comes from.
  const readThrough = [
    yield* statuses(users.get(1)),
    yield* statuses(users.get(1)),
    yield* statuses(users.getMany([1, 2, 3])),
    yield* statuses(users.getMany([1, 2, 3]))
  ]

  // Cache-aside: the program has read them all anyway, and says so.
  const all = yield* SqlSchema.findAll({
    Request: Schema.Void,
    Result: User,
    execute: () => sql`SELECT * FROM users WHERE status = 'active'`
  })(undefined)
  yield* Effect.forEach(all, (user) => users.set(user.id, Option.some(user)), { discard: true })
  const cacheAside = yield* statuses(users.getMany(all.map(({ id }) => id)))

  // Write-through: the database first; then what it has is read again and kept.
  yield* users.update(1, sql`UPDATE users SET name = 'Countess' WHERE id = 1`)
  const writeThrough = [yield* statuses(users.get(1)), yield* name(1)]

  // A write that fails changes nothing.
  const failed = yield* Effect.exit(users.update(1, sql`UPDATE users SET name = NULL WHERE id = 1`))
  const after = [failed._tag, yield* name(1)]

  // In a transaction it takes effect at the commit, and not at all after a rollback.
  const rolledBack = users.update(1, sql`UPDATE users SET name = 'Nobody' WHERE id = 1`).pipe(
    Effect.andThen(Effect.fail("changed my mind")),
    sql.withTransaction,
    Effect.ignore
  )
  yield* rolledBack
  const rollback = yield* name(1)

  return { readThrough, cacheAside, writeThrough, after, rollback }
}).pipe(
  Effect.provide(Users.layer.pipe(
    Layer.provideMerge(CachedSqlClient.layer()),
    Layer.provide([CacheStore.layerMemory(), Pglite.layer()])
  ))
)

if (import.meta.main) program.pipe(Effect.tap(Console.log), NodeRuntime.runMain)
