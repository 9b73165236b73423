/** What a `PgClient` does, it does through the decorated client. */
import { NodeServices } from "@effect/platform-node"
import { PgClient, PgMigrator } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { CachedSqlClient, CacheStore, Invalidator, QueryCache } from "effect-query-cache"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Queue from "effect/Queue"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Schema from "effect/Schema"
import * as Model from "effect/schema/Model"
import * as SqlClient from "effect/sql/SqlClient"
import * as SqlModel from "effect/sql/SqlModel"
import * as SqlResolver from "effect/sql/SqlResolver"
import * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import * as Postgres from "../support/postgres.ts"
import { Base, fateOf, fates, layer as clients, nameOf } from "./fixture.ts"

const camel = (name: string) => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())
const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
const transforms = { transformResultNames: camel, transformQueryNames: snake }

layer(Postgres.layerServer())("A PgClient through the cache", (it) => {
  it.effect("is both services, and carries everything that the base client has", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const pg = yield* PgClient.PgClient
      const sql = yield* SqlClient.SqlClient
      assert.strictEqual(pg as SqlClient.SqlClient, sql)
      assert.strictEqual(sql.safe, sql)
      assert.deepStrictEqual(Object.keys(sql).sort(), Object.keys(base).sort())
      assert.strictEqual(pg.config, base.config)
      assert.strictEqual(pg.driver, base.driver)
      assert.strictEqual(pg.transactionService, base.transactionService)
    }).pipe(Effect.provide(clients())))

  it.effect("withTransaction", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const ada = nameOf(sql, 1).pipe(QueryCache.cached())
      yield* ada
      const result = yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`UPDATE users SET name = 'Augusta' WHERE id = 1`
        const [fate, rows] = yield* fateOf(ada)
        assert.deepStrictEqual([fate, rows], ["bypass transaction", [{ name: "Augusta" }]])
        return "done"
      }))
      assert.strictEqual(result, "done")
      assert.deepStrictEqual(yield* fateOf(ada), ["miss", [{ name: "Augusta" }]])
    }).pipe(Effect.provide(clients())))

  it.effect("nested transactions", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`UPDATE users SET name = 'outer' WHERE id = 1`
        yield* sql.withTransaction(sql`UPDATE users SET name = 'inner' WHERE id = 2`)
        const failed = yield* Effect.exit(sql.withTransaction(
          Effect.andThen(sql`UPDATE users SET name = 'never' WHERE id = 3`, Effect.fail("no"))
        ))
        assert.deepStrictEqual(failed, Exit.fail("no"))
      }))
      assert.deepStrictEqual(yield* sql`SELECT name FROM users ORDER BY id`.values, [["outer"], ["inner"], ["Edsger"]])
    }).pipe(Effect.provide(clients())))

  it.effect("BeginTransaction", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const level = sql.withTransaction(sql`SHOW transaction_isolation`.values)
      assert.deepStrictEqual(yield* level, [["read committed"]])
      assert.deepStrictEqual(
        yield* level.pipe(Effect.provideService(SqlClient.BeginTransaction, "BEGIN ISOLATION LEVEL SERIALIZABLE")),
        [["serializable"]]
      )
    }).pipe(Effect.provide(clients())))

  it.effect("afterCommit runs after the invalidation, in order, and not after a rollback", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const ada = nameOf(sql, 1).pipe(QueryCache.cached())
      yield* ada
      const seen: Array<unknown> = []
      const note = (label: string) =>
        sql.afterCommit(Effect.orDie(Effect.map(fateOf(ada), (read) => seen.push(label, read))))
      yield* sql.withTransaction(Effect.gen(function*() {
        // Registered before anything was written: it still comes after the invalidation.
        yield* note("first")
        yield* sql.withTransaction(Effect.andThen(note("second"), sql`UPDATE users SET name = 'Augusta' WHERE id = 1`))
        yield* Effect.exit(sql.withTransaction(Effect.andThen(note("never"), Effect.fail("no"))))
        assert.deepStrictEqual(seen, [])
      }))
      const augusta = [{ name: "Augusta" }]
      assert.deepStrictEqual(seen, ["first", ["miss", augusta], "second", ["hit", augusta]])
      yield* Effect.exit(sql.withTransaction(Effect.andThen(note("never"), Effect.fail("no"))))
      assert.strictEqual(seen.length, 4)
      yield* note("outside")
      assert.strictEqual(seen.length, 6)
    }).pipe(Effect.provide(clients())))

  it.effect("reserve: one connection, its session settings, its transactions", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const ada = nameOf(sql, 1).pipe(QueryCache.cached())
      yield* ada
      yield* Effect.scoped(Effect.gen(function*() {
        const connection = yield* sql.reserve
        yield* connection.execute("SET application_name = 'reserved'", [], undefined)
        assert.deepStrictEqual(
          yield* connection.execute("SHOW application_name", [], undefined),
          [{ application_name: "reserved" }]
        )
        yield* connection.executeRaw("UPDATE users SET name = $1 WHERE id = 1", ["Augusta"])
      }))
      assert.deepStrictEqual(yield* fateOf(ada), ["miss", [{ name: "Augusta" }]])
    }).pipe(Effect.provide(clients())))

  it.effect("json", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const echo = (value: unknown) =>
        sql`SELECT ${sql.json(value)}::jsonb AS value FROM users WHERE id = 1`.pipe(QueryCache.cached())
      assert.deepStrictEqual(yield* fateOf(echo({ a: [1, "x"] })), ["miss", [{ value: { a: [1, "x"] } }]])
      assert.deepStrictEqual(yield* fateOf(echo({ a: [1, "x"] })), ["hit", [{ value: { a: [1, "x"] } }]])
      assert.deepStrictEqual(yield* fateOf(echo({ a: [1, "y"] })), ["miss", [{ value: { a: [1, "y"] } }]])
    }).pipe(Effect.provide(clients())))

  it.effect("listen and notify", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const received = yield* sql.listen("news")
      yield* sql.notify("news", "one")
      yield* sql`SELECT pg_notify('news', 'two')`
      assert.strictEqual((yield* Queue.take(received)).payload, "one")
      assert.strictEqual((yield* Queue.take(received)).payload, "two")
    }).pipe(Effect.scoped, Effect.provide(clients())))

  it.effect("names are transformed, and rows with and without are kept apart", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const order = sql`SELECT ${sql("userId")} FROM orders WHERE id = 10`
      const plain = sql`SELECT user_id FROM orders WHERE id = 10`
      const cached = QueryCache.cached(order)
      assert.deepStrictEqual(yield* fateOf(cached), ["miss", [{ userId: 1 }]])
      assert.deepStrictEqual(yield* fateOf(cached), ["hit", [{ userId: 1 }]])
      const untransformed = QueryCache.cached(plain.withoutTransform)
      assert.deepStrictEqual(yield* fateOf(untransformed), ["miss", [{ user_id: 1 }]])
      assert.deepStrictEqual(yield* fateOf(untransformed), ["hit", [{ user_id: 1 }]])
      assert.deepStrictEqual(yield* QueryCache.cached(plain), [{ userId: 1 }])
      const values = QueryCache.cached(order.values)
      assert.deepStrictEqual(yield* fateOf(values), ["miss", [[1]]])
      assert.deepStrictEqual(yield* fateOf(values), ["hit", [[1]]])
      yield* sql`INSERT INTO orders ${sql.insert({ id: 13, userId: 3, total: 5 })}`
      assert.deepStrictEqual(yield* fates(Effect.all([cached, untransformed, values])), ["hit", "hit", "hit"])
      yield* sql`UPDATE orders SET ${sql.update({ userId: 2, id: 10 }, ["id"])} WHERE id = 10`
      assert.deepStrictEqual(yield* fates(Effect.all([cached, untransformed, values])), ["miss", "miss", "miss"])
    }).pipe(Effect.provide(clients({ client: transforms }))))

  it.effect("withoutTransforms", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const plain = sql.withoutTransforms()
      assert.strictEqual(plain.withoutTransforms(), plain)
      assert.strictEqual(sql.withoutTransforms(), plain)
      assert.strictEqual(plain.safe, plain)
      const query = (sql: SqlClient.SqlClient) =>
        sql`SELECT user_id FROM orders WHERE id = 10`.pipe(QueryCache.cached())
      assert.deepStrictEqual(yield* fateOf(query(sql)), ["miss", [{ userId: 1 }]])
      assert.deepStrictEqual(yield* fateOf(query(plain)), ["miss", [{ user_id: 1 }]])
      assert.deepStrictEqual(yield* fateOf(query(plain)), ["hit", [{ user_id: 1 }]])
      yield* plain`UPDATE orders SET ${plain.update({ user_id: 2 })} WHERE id = 10`
      assert.deepStrictEqual(yield* fateOf(query(sql)), ["miss", [{ userId: 2 }]])
      yield* plain.withTransaction(plain`UPDATE orders SET user_id = 3 WHERE id = 10`)
      assert.deepStrictEqual(yield* fateOf(query(plain)), ["miss", [{ user_id: 3 }]])
    }).pipe(Effect.provide(clients({ client: transforms }))))

  it.effect("withoutTransforms of a client that has none is that client", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      assert.strictEqual(sql.withoutTransforms(), sql)
    }).pipe(Effect.provide(clients())))

  it.effect("streams", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const names = Stream.runCollect(sql<{ name: string }>`SELECT name FROM users ORDER BY id`.stream)
      assert.deepStrictEqual(yield* names, [{ name: "Ada" }, { name: "Grace" }, { name: "Edsger" }])
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`UPDATE users SET name = 'Augusta' WHERE id = 1`
        assert.deepStrictEqual((yield* names)[0], { name: "Augusta" })
      }))
      const error = yield* Effect.flip(Stream.runDrain(sql`SELECT * FROM nowhere`.stream))
      assert.strictEqual(error.reason._tag, "SqlSyntaxError")
    }).pipe(Effect.provide(clients())))

  it.effect("reactive: what runs again after a mutation reads the new row", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const reactivity = yield* Reactivity.Reactivity
      const seen = yield* Queue.unbounded<string>()
      const ada = nameOf(sql, 1).pipe(QueryCache.cached(), Effect.map((rows) => rows[0].name))
      yield* sql.reactive(["users"], ada).pipe(Stream.runForEach((name) => Queue.offer(seen, name)), Effect.forkScoped)
      assert.strictEqual(yield* Queue.take(seen), "Ada")
      yield* reactivity.mutation(["users"], sql`UPDATE users SET name = 'Augusta' WHERE id = 1`)
      assert.strictEqual(yield* Queue.take(seen), "Augusta")
      // The write has woken it, and so has the mutation.
      assert.strictEqual(yield* Queue.take(seen), "Augusta")
      yield* sql.withTransaction(Effect.andThen(
        Reactivity.invalidate(["users"]),
        sql`UPDATE users SET name = 'Lovelace' WHERE id = 1`
      ))
      assert.strictEqual(yield* Queue.take(seen), "Lovelace")
    }).pipe(Effect.scoped, Effect.provide(clients())))

  it.effect("PgMigrator", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const all = sql`SELECT * FROM users ORDER BY id LIMIT 1`.pipe(QueryCache.cached())
      yield* all
      const migrate = PgMigrator.run({
        loader: PgMigrator.fromRecord({
          "1_planets": Effect.flatMap(SqlClient.SqlClient, (sql) =>
            sql`CREATE TABLE planets (id int PRIMARY KEY, name text)`),
          "2_email": Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            yield* sql`ALTER TABLE users ADD COLUMN email text`
            yield* sql`INSERT INTO planets VALUES (1, 'Mercury')`
          })
        })
      })
      assert.deepStrictEqual(yield* migrate, [[1, "planets"], [2, "email"]])
      assert.deepStrictEqual(yield* migrate, [])
      assert.deepStrictEqual(yield* fateOf(all), ["miss", [{ id: 1, name: "Ada", status: "active", email: null }]])
      assert.deepStrictEqual(yield* sql`SELECT name FROM planets`, [{ name: "Mercury" }])
      const broken = PgMigrator.run({
        loader: PgMigrator.fromRecord({ "3_broken": Effect.andThen(sql`DELETE FROM planets`, sql`nonsense`) })
      })
      assert.strictEqual((yield* Effect.flip(broken))._tag, "MigrationError")
      assert.deepStrictEqual(yield* sql`SELECT name FROM planets`, [{ name: "Mercury" }])
    }).pipe(Effect.provide([clients(), NodeServices.layer])))

  it.effect("a migrator reads its own table under strategy all, too", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const migrate = (names: ReadonlyArray<string>) =>
        PgMigrator.run({
          loader: PgMigrator.fromRecord(Object.fromEntries(names.map((name) => [name, Effect.asVoid(sql`SELECT 1`)])))
        })
      assert.deepStrictEqual(yield* migrate(["1_a"]), [[1, "a"]])
      assert.deepStrictEqual(yield* migrate(["1_a", "2_b"]), [[2, "b"]])
      assert.deepStrictEqual(yield* fates(sql`SELECT * FROM effect_sql_migrations`), ["bypass effect-table"])
    }).pipe(Effect.provide([clients({ cache: { strategy: "all" } }), NodeServices.layer])))

  it.effect("SqlModel repositories", () =>
    Effect.gen(function*() {
      class User extends Model.Class<User>("User")({
        id: Schema.Int,
        name: Schema.String,
        status: Schema.String
      }) {}
      const users = yield* SqlModel.makeRepository(User, { tableName: "users", idColumn: "id", spanPrefix: "users" })
      const ada = users.findById(1).pipe(QueryCache.cached())
      assert.strictEqual((yield* ada).name, "Ada")
      assert.deepStrictEqual(yield* fates(ada), ["hit"])
      const user = yield* users.update({ id: 1, name: "Augusta", status: "active" })
      assert.deepStrictEqual(yield* fateOf(ada), ["miss", user])
      yield* users.updateVoid({ id: 1, name: "Lovelace", status: "active" })
      assert.strictEqual((yield* ada).name, "Lovelace")
      const inserted = yield* users.insert({ id: 4, name: "Barbara", status: "active" })
      assert.deepStrictEqual(yield* fateOf(users.findById(4).pipe(QueryCache.cached())), ["miss", inserted])
      yield* users.delete(4)
      const gone = yield* Effect.flip(users.findById(4).pipe(QueryCache.cached()))
      assert.strictEqual(gone._tag, "NoSuchElementError")
      // That there is no such row is an answer like any other.
      yield* users.insertVoid({ id: 4, name: "Barbara", status: "active" })
      assert.strictEqual((yield* users.findById(4).pipe(QueryCache.cached())).name, "Barbara")
    }).pipe(Effect.provide(clients())))

  it.effect("SqlResolver: batches are cached as what they are, one statement", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const User = Schema.Struct({ id: Schema.Int, name: Schema.String })
      const Order = Schema.Struct({ id: Schema.Int, user_id: Schema.Int })
      const byId = SqlResolver.findById({
        Id: Schema.Int,
        Result: User,
        ResultId: (user) => user.id,
        execute: (ids) => sql`SELECT id, name FROM users WHERE ${sql.in("id", ids)}`
      })
      const ofUser = SqlResolver.grouped({
        Request: Schema.Int,
        RequestGroupKey: (id) => id,
        Result: Order,
        ResultGroupKey: (order) => order.user_id,
        execute: (ids) => sql`SELECT id, user_id FROM orders WHERE ${sql.in("user_id", ids)} ORDER BY id`
      })
      const insert = SqlResolver.ordered({
        Request: User,
        Result: User,
        execute: (users) => sql`INSERT INTO users ${sql.insert(users)} RETURNING id, name`
      })
      const remove = SqlResolver.void({
        Request: Schema.Int,
        execute: (ids) => sql`DELETE FROM users WHERE ${sql.in("id", ids)}`
      })
      const both = Effect.forEach([1, 2], SqlResolver.request(byId), { concurrency: "unbounded" }).pipe(
        QueryCache.cached()
      )
      const pair = [{ id: 1, name: "Ada" }, { id: 2, name: "Grace" }]
      assert.deepStrictEqual(yield* fateOf(both), ["miss", pair])
      assert.deepStrictEqual(yield* fateOf(both), ["hit", pair])
      const orders = Effect.forEach([1, 2], SqlResolver.request(ofUser), { concurrency: "unbounded" }).pipe(
        QueryCache.cached()
      )
      assert.deepStrictEqual(yield* fateOf(orders), ["miss", [
        [{ id: 10, user_id: 1 }, { id: 11, user_id: 1 }],
        [{ id: 12, user_id: 2 }]
      ]])
      assert.deepStrictEqual(yield* fates(orders), ["hit"])
      const inserted = yield* Effect.forEach(
        [{ id: 7, name: "Barbara" }, { id: 8, name: "Frances" }],
        SqlResolver.request(insert),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(inserted.map((user) => user.id), [7, 8])
      assert.deepStrictEqual(yield* fates(both), ["hit"])
      assert.deepStrictEqual(yield* fates(orders), ["hit"])
      const more = Effect.forEach([1, 7], SqlResolver.request(byId), { concurrency: "unbounded" }).pipe(
        QueryCache.cached()
      )
      assert.deepStrictEqual(yield* fates(more), ["miss"])
      yield* Effect.forEach([7, 8], SqlResolver.request(remove), { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* fates(both), ["hit"])
      assert.deepStrictEqual(yield* fates(Effect.exit(more)), ["miss"])
      // In a transaction the batch runs on its connection and stays out of the cache.
      yield* Effect.exit(sql.withTransaction(Effect.gen(function*() {
        yield* sql`UPDATE users SET name = 'Mallory' WHERE id = 1`
        const [fate, users] = yield* fateOf(both)
        assert.deepStrictEqual([fate, users[0]], ["bypass transaction", { id: 1, name: "Mallory" }])
        return yield* Effect.fail("no")
      })))
      assert.deepStrictEqual(yield* fateOf(both), ["hit", pair])
    }).pipe(Effect.provide(clients())))

  it.effect("spans: a hit opens none, a miss exactly the base client's own", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const sql = yield* SqlClient.SqlClient
      const spansOf = Effect.fnUntraced(function*(effect: Effect.Effect<unknown, unknown>) {
        const spans: Array<Tracer.Span> = []
        const tracer = Tracer.make({
          span(options) {
            const span = new Tracer.NativeSpan(options)
            spans.push(span)
            return span
          }
        })
        yield* effect.pipe(Effect.withSpan("request"), Effect.withTracer(tracer), Effect.exit)
        const name = (id: string) => spans.find((span) => span.spanId === id)?.name
        return spans.slice(1).map((span) => ({
          name: span.name,
          kind: span.kind,
          parent: span.parent._tag === "Some" ? name(span.parent.value.spanId) : undefined,
          ended: span.status._tag === "Ended" && span.status.exit._tag,
          attributes: [...span.attributes].map(([key, value]) =>
            key === "db.client.connection.wait_time_ms" ? key : [key, value]
          )
        }))
      })
      const forms = (sql: SqlClient.SqlClient) => {
        const ada = nameOf(sql, 1)
        return [ada, ada.values, ada.withoutTransform, ada.unprepared, ada.valuesUnprepared, ada.raw]
      }
      for (const propagated of [false, true]) {
        const through = Effect.provideService(Statement.SpanPropagationEnabled, propagated)
        for (let i = 0; i < 6; i++) {
          const expected = yield* spansOf(through(forms(base)[i]))
          assert.strictEqual(expected.length, 1)
          assert.strictEqual(expected[0].parent, "request")
          assert.strictEqual(expected[0].attributes.includes("db.client.connection.wait_time_ms"), propagated)
          yield* Invalidator.invalidate({ all: true })
          const cached = QueryCache.cached(forms(sql)[i])
          assert.deepStrictEqual(yield* spansOf(through(cached)), expected, "a miss")
          assert.deepStrictEqual(yield* spansOf(through(cached)), i === 5 ? expected : [], "a hit")
          assert.deepStrictEqual(yield* spansOf(through(forms(sql)[i])), expected, "not cached")
        }
      }
      const nonsense = (sql: SqlClient.SqlClient) => sql`SELECT * FROM nowhere`
      const expected = yield* spansOf(nonsense(base))
      assert.strictEqual(expected[0].ended, "Failure")
      assert.deepStrictEqual(yield* spansOf(QueryCache.cached(nonsense(sql))), expected)
      const drain = (sql: SqlClient.SqlClient) => Stream.runDrain(nameOf(sql, 1).stream)
      assert.deepStrictEqual(yield* spansOf(drain(sql)), yield* spansOf(drain(base)))
    }).pipe(Effect.provide(clients())))

  it.effect("a CurrentTransformer runs before the key is made", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      let runs = 0
      const asTenant = (status: string) =>
        Effect.provideService(Statement.CurrentTransformer, (statement, sql) =>
          Effect.sync(() => {
            runs++
            return sql`SELECT * FROM (${statement}) AS every WHERE status = ${status}`
          }))
      const all = sql<{ id: number }>`SELECT id, status FROM users ORDER BY id`.pipe(
        QueryCache.cached(),
        Effect.map((rows) => rows.map((row) => row.id))
      )
      assert.deepStrictEqual(yield* fateOf(all), ["miss", [1, 2, 3]])
      assert.deepStrictEqual(yield* fateOf(asTenant("active")(all)), ["miss", [1, 2]])
      assert.deepStrictEqual(yield* fateOf(asTenant("retired")(all)), ["miss", [3]])
      assert.deepStrictEqual(yield* fateOf(asTenant("active")(all)), ["hit", [1, 2]])
      assert.deepStrictEqual(yield* fateOf(asTenant("retired")(all)), ["hit", [3]])
      // Once per run, as without a cache: it may count, or ask for the tenant.
      assert.strictEqual(runs, 4)
      const uncached = sql`SELECT id, status FROM users`
      yield* asTenant("active")(uncached)
      yield* asTenant("active")(uncached.values)
      assert.strictEqual(runs, 6)
    }).pipe(Effect.provide(clients())))

  it.effect("what a CurrentTransformer makes of a write is what is invalidated", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE users_acme (id int PRIMARY KEY, name text NOT NULL)`
      yield* sql`INSERT INTO users_acme VALUES (1, 'Wile')`
      const acme = sql`SELECT name FROM users_acme`.pipe(QueryCache.cached())
      const ours = nameOf(sql, 1).pipe(QueryCache.cached())
      const rewritten = Effect.provideService(
        Statement.CurrentTransformer,
        (statement, sql) =>
          Effect.sync(() => {
            const [text, params] = statement.compile()
            return sql.unsafe(text.replace("users", "users_acme"), params)
          })
      )
      const rename = (name: string) => sql`UPDATE users SET name = ${name} WHERE id = 1 RETURNING id`
      yield* Effect.all([acme, ours])
      yield* rewritten(rename("Coyote"))
      assert.deepStrictEqual(yield* fateOf(acme), ["miss", [{ name: "Coyote" }]])
      assert.deepStrictEqual(yield* fateOf(ours), ["hit", [{ name: "Ada" }]])
      yield* rewritten(Stream.runDrain(rename("Roadrunner").stream))
      assert.deepStrictEqual(yield* fateOf(acme), ["miss", [{ name: "Roadrunner" }]])
      assert.deepStrictEqual(yield* fateOf(ours), ["hit", [{ name: "Ada" }]])
    }).pipe(Effect.provide(clients())))

  it.effect("helpers: identifiers, literal, csv, and, or, join, in, insert, update, updateValues, onDialect", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const sql = yield* SqlClient.SqlClient
      const statements = (sql: SqlClient.SqlClient) => [
        sql`SELECT ${sql("name")} FROM ${sql("users")} WHERE ${
          sql.and([sql`id > ${1}`, sql.or(["id < 3", sql`id = ${9}`])])
        }`,
        sql`SELECT name FROM users ${sql.literal("WHERE id = 1")}`,
        sql`SELECT name FROM users ${sql.csv("ORDER BY", ["status DESC", sql`${sql("id")} DESC`])}`,
        sql`SELECT name FROM users WHERE ${sql.join(" OR ", false)([sql`id = ${1}`, sql`id = ${3}`])} ORDER BY id`,
        sql`SELECT name FROM users WHERE ${sql.in("id", [3, 2])} ORDER BY id`,
        sql`SELECT name FROM users WHERE id IN ${sql.in([2])}`,
        sql`SELECT name FROM users WHERE ${sql.in("id", [])}`,
        sql`SELECT ${
          sql.onDialectOrElse({ pg: () => sql`name`, orElse: () => sql`nothing` })
        } FROM users WHERE id = ${2}`,
        sql`SELECT u.name FROM (${sql`SELECT name FROM users WHERE id = ${3}`}) AS u`
      ]
      const expected = yield* Effect.all(statements(base))
      assert.deepStrictEqual(expected.map((rows) => rows.length), [1, 1, 3, 2, 2, 1, 0, 1, 1])
      for (const fate of ["miss", "hit"]) {
        const [queries, rows] = yield* QueryCache.withInfo(Effect.all(statements(sql).map((_) => QueryCache.cached(_))))
        assert.deepStrictEqual(queries.map((query) => query.status), expected.map(() => fate))
        assert.deepStrictEqual(rows, expected)
      }
      statements(sql).forEach((statement, i) => {
        assert.deepStrictEqual(statement.compile(), statements(base)[i].compile())
        assert.deepStrictEqual(JSON.stringify(statement), JSON.stringify(statements(base)[i]))
        assert.isTrue(Statement.isFragment(statement))
      })
      const names = sql`SELECT name FROM users ORDER BY id`.pipe(
        QueryCache.cached(),
        Effect.map((rows) => rows.map((row) => row.name))
      )
      yield* names
      const returned = yield* sql`INSERT INTO users ${
        sql.insert([{ id: 4, name: "Barbara" }, { id: 5, name: "Tony" }]).returning("id")
      }`
      assert.deepStrictEqual(returned, [{ id: 4 }, { id: 5 }])
      assert.deepStrictEqual(yield* names, ["Ada", "Grace", "Edsger", "Barbara", "Tony"])
      yield* sql`UPDATE users SET ${sql.update({ id: 1, name: "A" }, ["id"])} WHERE id = ${1}`
      assert.deepStrictEqual((yield* names)[0], "A")
      yield* sql`
        UPDATE users SET name = data.name
        FROM ${sql.updateValues([{ id: 4, name: "B" }, { id: 5, name: "T" }], "data")}
        WHERE users.id = data.id`
      assert.deepStrictEqual(yield* names, ["A", "Grace", "Edsger", "B", "T"])
      assert.strictEqual(
        sql.onDialect({ pg: () => "pg", sqlite: () => "", mysql: () => "", mssql: () => "", clickhouse: () => "" }),
        "pg"
      )
    }).pipe(Effect.provide(clients())))

  it.effect("decorating a decorated client returns it", () =>
    Effect.gen(function*() {
      const pg = yield* PgClient.PgClient
      const decorate = (pg: PgClient.PgClient) =>
        Layer.build(
          CachedSqlClient.layer().pipe(Layer.provide([Layer.succeed(PgClient.PgClient, pg), CacheStore.layerMemory()]))
        )
      const again = yield* decorate(pg)
      assert.strictEqual(Context.get(again, PgClient.PgClient), pg)
      assert.strictEqual(Context.get(again, SqlClient.SqlClient), pg)
      assert.strictEqual(Context.get(again, QueryCache.QueryCache), yield* QueryCache.QueryCache)
      assert.strictEqual(Context.get(again, Invalidator.Invalidator), yield* Invalidator.Invalidator)
      const plain = pg.withoutTransforms()
      assert.strictEqual(Context.get(yield* decorate(plain), PgClient.PgClient), plain)
    }).pipe(Effect.provide(clients({ client: transforms }))))

  it.effect("two decorated clients: a transaction of one says nothing about the other", () =>
    Effect.gen(function*() {
      const one = yield* SqlClient.SqlClient
      const other = Context.get(
        yield* Layer.build(
          CachedSqlClient.layer().pipe(
            Layer.provide([Postgres.layerClient(), CacheStore.layerMemory()])
          )
        ),
        SqlClient.SqlClient
      )
      const read = nameOf(other, 1).pipe(QueryCache.cached())
      yield* read
      yield* Effect.exit(one.withTransaction(Effect.gen(function*() {
        assert.deepStrictEqual(yield* fates(read), ["hit"])
        assert.deepStrictEqual(yield* fates(nameOf(one, 1).pipe(QueryCache.cached())), ["bypass transaction"])
        // Committed at once, on a connection of its own: the rollback around it changes nothing.
        yield* other`UPDATE users SET name = 'Augusta' WHERE id = 1`
        assert.deepStrictEqual(yield* fateOf(read), ["miss", [{ name: "Augusta" }]])
        return yield* Effect.fail("no")
      })))
      assert.deepStrictEqual(yield* fateOf(read), ["hit", [{ name: "Augusta" }]])
    }).pipe(Effect.scoped, Effect.provide(clients())))

  it.effect("the base client beside the decorated one is noticed", () => {
    const warnings: Array<unknown> = []
    const logger = Logger.make((entry) => entry.logLevel === "Warn" && warnings.push(entry.message))
    const base = Postgres.layerClient()
    const mixed = Layer.mergeAll(CachedSqlClient.layer().pipe(Layer.provide([base, CacheStore.layerMemory()])), base)
    return Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const one = sql<{ one: number }>`SELECT 1 AS one`.pipe(QueryCache.cached({ name: "features.mixed" }))
      assert.deepStrictEqual(yield* one, [{ one: 1 }])
      assert.deepStrictEqual(yield* one, [{ one: 1 }])
      assert.strictEqual(warnings.length, 1)
      assert.include(String(warnings[0]), "features.mixed")
    }).pipe(Effect.provide([mixed, Logger.layer([logger])]))
  })

  it.effect("an interrupted statement interrupts, and the client goes on", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const sql = yield* SqlClient.SqlClient
      const locked = yield* Deferred.make<void>()
      const released = yield* Deferred.make<void>()
      const holder = yield* Effect.forkChild(base.withTransaction(Effect.gen(function*() {
        yield* base`LOCK TABLE users IN ACCESS EXCLUSIVE MODE`
        yield* Deferred.succeed(locked, undefined)
        yield* Deferred.await(released)
      })))
      yield* Deferred.await(locked)
      const reader = yield* Effect.forkChild(nameOf(sql, 1).pipe(QueryCache.cached()))
      while ((yield* base`SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'`).length === 0) {
        yield* Effect.yieldNow
      }
      yield* Fiber.interrupt(reader)
      const exit = yield* Fiber.await(reader)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      yield* Deferred.succeed(released, undefined)
      yield* Fiber.join(holder)
      assert.deepStrictEqual(yield* fateOf(nameOf(sql, 1).pipe(QueryCache.cached())), ["miss", [{ name: "Ada" }]])
    }).pipe(Effect.provide(clients())))
})
