// Cached queries in transactions: of the decorated client, of the one it decorates, and of another one.
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import { SqlClient } from "effect/sql"
import * as TestClock from "effect/testing/TestClock"
import { CachedSqlClient, CacheStore, Dependency, Invalidator } from "../src/index.ts"
import * as Stub from "./bench/stub.ts"
import * as Logs from "./support/logs.ts"
import { makeUsers, statuses, write } from "./support/users.ts"

class Base extends Context.Service<Base, PgClient.PgClient>()("test/Base") {}
class Other extends Context.Service<Other, PgClient.PgClient>()("test/Other") {}

const clients = Layer.mergeAll(
  CachedSqlClient.layer(),
  Layer.effect(Base, PgClient.PgClient)
).pipe(
  Layer.provide([CacheStore.layerMemory(), Stub.layer([])]),
  Layer.provideMerge(Layer.effect(Other, PgClient.PgClient).pipe(Layer.provide(Layer.fresh(Stub.layer([])))))
)

const each: ReadonlyArray<[string, Effect.Effect<SqlClient.SqlClient, never, SqlClient.SqlClient | Base | Other>]> = [
  ["the decorated client", SqlClient.SqlClient],
  ["the client that it decorates", Base],
  ["another client", Other]
]

for (const [whose, client] of each) {
  describe(`a transaction of ${whose}`, () => {
    it.effect("reads from the database, and leaves nothing behind but what is committed", () =>
      Effect.gen(function*() {
        const { withTransaction } = yield* client
        const { asked, name, rows, users } = yield* makeUsers({ related: (id) => [Dependency.key("related", id)] })
        yield* users.getMany([1, 2, 3])
        asked.length = 0
        const before = new Map(rows)
        const inside = Effect.gen(function*() {
          yield* write(rows, 1, "inside")
          assert.strictEqual(yield* name(1), "inside")
          assert.strictEqual((yield* users.getMany([1]))[0]!.name, "inside")
          assert.strictEqual((yield* users.refresh(1)).name, "inside")
          yield* users.set(2, { id: 2, name: "set inside" })
          yield* users.invalidate(3)
          assert.deepStrictEqual(yield* statuses(users.get(3)), ["bypass transaction"])
          assert.deepStrictEqual(asked.splice(0), [1, 1, 1, 3])
        })
        // Rolled back: all is as it was.
        yield* Effect.exit(withTransaction(Effect.andThen(inside, Effect.fail("no"))))
        for (const [id, value] of before) rows.set(id, value)
        assert.deepStrictEqual(yield* statuses(users.getMany([1, 2, 3])), ["hit", "hit", "hit"])
        assert.strictEqual(yield* name(1), "Ada")
        // Committed: what was touched is read again.
        yield* withTransaction(inside)
        assert.deepStrictEqual(yield* statuses(users.getMany([1, 2, 3])), ["miss", "miss", "miss"])
        assert.strictEqual(yield* name(1), "inside")
        assert.strictEqual(yield* name(2), "Grace")
      }).pipe(Effect.provide(clients)))

    it.effect("an update in it takes effect at the commit, and is read again then", () =>
      Effect.gen(function*() {
        const { withTransaction } = yield* client
        const { asked, name, rows, users } = yield* makeUsers()
        yield* name(1)
        yield* Effect.exit(withTransaction(Effect.andThen(users.update(1, write(rows, 1, "no")), Effect.fail("no"))))
        rows.set(1, "Ada")
        assert.deepStrictEqual(yield* statuses(name(1)), ["hit"])
        yield* withTransaction(
          Effect.gen(function*() {
            yield* users.update(1, write(rows, 1, "new"))
            assert.strictEqual(yield* name(1), "new")
            asked.length = 0
          })
        )
        while (asked.length === 0) yield* Effect.yieldNow
        assert.deepStrictEqual(yield* statuses(name(1)), ["hit"])
        assert.strictEqual(yield* name(1), "new")
        assert.deepStrictEqual(asked, [1])
      }).pipe(Effect.provide(clients)))

    it.effect("a savepoint that is rolled back takes its share with it", () =>
      Effect.gen(function*() {
        const { withTransaction } = yield* client
        const { asked, name, rows, users } = yield* makeUsers()
        yield* users.getMany([1, 2])
        yield* withTransaction(
          Effect.gen(function*() {
            yield* users.update(1, write(rows, 1, "new"))
            yield* Effect.exit(withTransaction(
              Effect.andThen(users.update(2, Effect.void), Effect.fail("no"))
            ))
          })
        )
        while (asked.length < 3) yield* Effect.yieldNow
        assert.deepStrictEqual(yield* statuses(users.get(2)), ["hit"])
        assert.strictEqual(yield* name(1), "new")
        assert.deepStrictEqual(asked, [1, 2, 1])
      }).pipe(Effect.provide(clients)))

    it.effect("is not held up by a lookup that hangs after its commit, nor broken by one that fails", () =>
      Effect.gen(function*() {
        const { withTransaction } = yield* client
        const { name, rows, source, users } = yield* makeUsers()
        yield* name(1)
        for (const broken of [Effect.never, Effect.die("broken")]) {
          source.before = () => broken
          yield* withTransaction(users.update(1, write(rows, 1, "new")))
        }
        source.before = () => Effect.void
        // The first one hangs still: nobody waits for it but for so long.
        const found = yield* Effect.forkChild(name(1))
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(
          yield* Effect.exit(Effect.flatten(Effect.sync(() => found.pollUnsafe()!))),
          Exit.succeed("new")
        )
      }).pipe(Effect.provide(clients)))

    it.effect("a write in it that may have taken effect is invalidated by the commit", () =>
      Effect.gen(function*() {
        const { withTransaction } = yield* client
        const { name, rows, users } = yield* makeUsers()
        yield* name(1)
        yield* withTransaction(
          Effect.ignoreCause(users.update(1, Effect.andThen(write(rows, 1, "new"), Effect.die("?"))))
        )
        assert.strictEqual(yield* name(1), "new")
        assert.deepStrictEqual(yield* statuses(name(1)), ["hit"])
      }).pipe(Effect.provide([clients, Logs.layer])))
  })
}

describe("after the commit", () => {
  it.effect("what the program does then is no part of the transaction", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { name, rows, users } = yield* makeUsers({ dependencies: () => [Dependency.table("users")] })
      yield* name(1)
      let then: ReadonlyArray<string> = []
      yield* sql.withTransaction(
        Effect.gen(function*() {
          yield* write(rows, 1, "new")
          yield* Invalidator.invalidate({ tables: ["users"] })
          yield* sql.afterCommit(Effect.map(Effect.orDie(statuses(users.get(1))), (all) => {
            then = all
          }))
        })
      )
      assert.deepStrictEqual(then, ["miss"])
      assert.strictEqual(yield* name(1), "new")
    }).pipe(Effect.provide(clients)))
})
