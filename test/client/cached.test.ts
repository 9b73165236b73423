/** What `cached` does to a statement, and what it does not. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it, layer } from "@effect/vitest"
import {
  CachedSqlClient,
  CacheError,
  CacheMetrics,
  CachePolicy,
  CacheScope,
  CacheStore,
  Dependency,
  Fingerprinter,
  Invalidator,
  QueryAnalyzer,
  QueryCache
} from "effect-query-cache"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as SqlSchema from "effect/sql/SqlSchema"
import * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Tracer from "effect/Tracer"
import * as Postgres from "../support/postgres.ts"
import { Base, fateOf, fates, layer as clients, nameOf } from "./fixture.ts"

const ada = [{ name: "Ada" }]

/** The SQL of the spans that an effect opens: what it asked the database. */
const asked = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>) {
  const spans: Array<Tracer.Span> = []
  const tracer = Tracer.make({
    span(options) {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  yield* Effect.withTracer(effect, tracer)
  return spans.map((span) => span.attributes.get("db.query.text") ?? span.name)
})

/** Warnings that are logged while an effect runs. */
const warningsOf = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>) {
  const warnings: Array<string> = []
  const logger = Logger.make((entry) => entry.logLevel === "Warn" && warnings.push(String(entry.message)))
  yield* effect.pipe(Effect.provide(Logger.layer([logger])))
  return warnings
})

layer(Postgres.layerServer())("QueryCache.cached", (it) => {
  it.effect("data-first and data-last, with a policy and without", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const statement = nameOf(sql, 1)
      for (
        const cached of [
          QueryCache.cached(statement),
          QueryCache.cached(statement, {}),
          QueryCache.cached(statement, { timeToLive: "1 hour" }),
          statement.pipe(QueryCache.cached()),
          statement.pipe(QueryCache.cached({})),
          statement.pipe(QueryCache.cached({ timeToLive: "1 hour" })),
          QueryCache.cached()(statement),
          QueryCache.cached(Effect.suspend(() => statement)),
          Effect.gen(function*() {
            return yield* nameOf(sql, 1)
          }).pipe(QueryCache.cached())
        ]
      ) {
        yield* Invalidator.invalidate({ all: true })
        assert.deepStrictEqual(yield* fateOf(cached), ["miss", ada])
        assert.deepStrictEqual(yield* fateOf(cached), ["hit", ada])
      }
      // Without it, nothing is.
      assert.deepStrictEqual(yield* fates(statement), ["bypass no-policy"])
    }).pipe(Effect.provide(clients())))

  it.effect("one inside another: inner fields win, tags and dependencies add up, uncached has the last word", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const cached = nameOf(sql, 1).pipe(
        QueryCache.cached({ timeToLive: "1 minute", tags: ["inner"] }),
        QueryCache.cached({ timeToLive: "1 hour", tags: ["outer"], name: "outer" }),
        QueryCache.cached({ dependencies: [Dependency.key("user", 1)], name: "outermost" })
      )
      const [queries] = yield* QueryCache.withInfo(cached)
      assert.strictEqual(queries[0].name, "outer")
      for (
        const targets of [{ tags: ["inner"] }, { tags: ["outer"] }, { keys: [Dependency.key("user", 1)] }, {
          tables: ["users"]
        }]
      ) {
        assert.deepStrictEqual(yield* fates(cached), ["hit"])
        yield* Invalidator.invalidate(targets)
        assert.deepStrictEqual(yield* fates(cached), ["miss"])
      }
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* fates(cached), ["miss"])
      // Through an effect that is not a statement, too.
      const wrapped = Effect.map(cached, (rows) => rows).pipe(QueryCache.cached({ tags: ["around"] }))
      assert.deepStrictEqual(yield* fates(wrapped), ["miss"])
      yield* Invalidator.invalidate({ tags: ["around"] })
      assert.deepStrictEqual(yield* fates(wrapped), ["miss"])
      for (
        const uncached of [
          QueryCache.uncached(cached),
          nameOf(sql, 1).pipe(QueryCache.uncached, QueryCache.cached()),
          Effect.map(nameOf(sql, 1), (rows) => rows).pipe(QueryCache.cached(), QueryCache.uncached, QueryCache.cached())
        ]
      ) assert.deepStrictEqual(yield* fates(uncached), ["bypass uncached"])
    }).pipe(Effect.provide(clients())))

  it.effect("an answer that another policy keeps for longer is too old where this one says so", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const hour = nameOf(sql, 1).pipe(QueryCache.cached({ timeToLive: "1 hour" }))
      const minute = nameOf(sql, 1).pipe(QueryCache.cached({ timeToLive: "1 minute" }))
      assert.deepStrictEqual(yield* fates(Effect.all([hour, minute])), ["miss", "hit"])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* fates(Effect.all([hour, minute, hour])), ["hit", "miss", "hit"])
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(yield* fates(Effect.all([minute, hour])), ["hit", "hit"])
    }).pipe(Effect.provide(clients())))

  it.effect("a dashboard: one policy around several queries, one of them live", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const dashboard = Effect.all({
        total: sql<{ n: number }>`SELECT count(*)::int AS n FROM orders`,
        me: nameOf(sql, 1),
        live: QueryCache.uncached(sql<{ n: number }>`SELECT count(*)::int AS n FROM users`)
      }, { concurrency: "unbounded" }).pipe(QueryCache.cached({ tags: ["dashboard"] }))
      const value = { total: [{ n: 3 }], me: ada, live: [{ n: 3 }] }
      const sorted = (fates: ReadonlyArray<string>) => [...fates].sort()
      assert.deepStrictEqual(yield* dashboard, value)
      assert.deepStrictEqual(sorted(yield* fates(dashboard)), ["bypass uncached", "hit", "hit"])
      yield* Invalidator.invalidate({ tags: ["dashboard"] })
      assert.deepStrictEqual(sorted(yield* fates(dashboard)), ["bypass uncached", "miss", "miss"])
    }).pipe(Effect.provide(clients())))

  it.effect("withInfo tells status, level, age, fingerprint, name and reason, in order", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 1).pipe(QueryCache.cached({ name: "users.name", timeToLive: "1 minute" }))
      yield* query
      yield* TestClock.adjust("10 seconds")
      const [queries, rows] = yield* QueryCache.withInfo(Effect.gen(function*() {
        const rows = yield* query
        yield* nameOf(sql, 2).pipe(QueryCache.cached())
        yield* sql`SELECT random()`.pipe(QueryCache.cached())
        yield* sql`UPDATE users SET name = 'x' WHERE id > 2`
        yield* query
        return rows
      }))
      assert.deepStrictEqual(rows, ada)
      assert.deepStrictEqual(
        queries.map(({ level, name, reason, sql, status }) => ({
          level,
          name,
          reason,
          sql: sql?.split(" ", 2).join(" "),
          status
        })),
        [
          { status: "hit", level: "L1", name: "users.name", reason: undefined, sql: "SELECT name" },
          { status: "miss", level: undefined, name: undefined, reason: "absent", sql: "SELECT name" },
          { status: "bypass", level: undefined, name: undefined, reason: "volatile-function", sql: "SELECT random()" },
          { status: "write", level: undefined, name: undefined, reason: undefined, sql: "UPDATE users" },
          { status: "miss", level: undefined, name: "users.name", reason: "invalidated", sql: "SELECT name" }
        ]
      )
      assert.deepStrictEqual(queries.map((query) => Duration.toSeconds(query.age)), [10, 0, 0, 0, 0])
      assert.match(queries[0].fingerprint!, /^\S{20,}$/)
      assert.strictEqual(queries[0].fingerprint, queries[4].fingerprint)
      assert.notStrictEqual(queries[0].fingerprint, queries[1].fingerprint)
      assert.isUndefined(queries[2].fingerprint)
      // An inner one takes what is its own.
      const [outer, [inner]] = yield* QueryCache.withInfo(QueryCache.withInfo(query))
      assert.deepStrictEqual([outer.length, inner.length], [0, 1])
      yield* TestClock.adjust("1 minute")
      const [[expired]] = yield* QueryCache.withInfo(query)
      assert.deepStrictEqual([expired.status, expired.reason], ["miss", "expired"])
    }).pipe(Effect.provide(clients())))

  it.effect("cached around what never reaches a cached client warns once per name, and counts each time", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const sql = yield* SqlClient.SqlClient
      const before = (yield* Metric.value(CacheMetrics.unreached)).count
      const one = nameOf(base, 1).pipe(QueryCache.cached({ name: "cached.one" }))
      const two = Effect.succeed("nothing").pipe(QueryCache.cached({ name: "cached.two" }))
      const nameless = nameOf(base, 1).pipe(QueryCache.cached())
      const warnings = yield* warningsOf(Effect.all([one, one, two, one, nameless, nameless]))
      assert.strictEqual(warnings.length, 3)
      assert.include(warnings[0], "(cached.one)")
      assert.include(warnings[1], "(cached.two)")
      assert.strictEqual((yield* Metric.value(CacheMetrics.unreached)).count, before + 6)
      const reached = nameOf(sql, 1)
      const silent = yield* warningsOf(Effect.all([
        // It failed before it came to a statement, which says nothing.
        Effect.exit(Effect.fail("no").pipe(QueryCache.cached({ name: "cached.failing" }))),
        Effect.exit(sql`nonsense`.pipe(QueryCache.cached({ name: "cached.nonsense" }))),
        reached.pipe(QueryCache.cached({ name: "cached.inner" }), QueryCache.cached({ name: "cached.around" })),
        Effect.asVoid(reached).pipe(
          QueryCache.cached({ name: "cached.inner" }),
          Effect.asVoid,
          QueryCache.cached({ name: "cached.around" })
        ),
        QueryCache.uncached(reached).pipe(QueryCache.cached({ name: "cached.uncached" })),
        sql.withTransaction(reached).pipe(QueryCache.cached({ name: "cached.transaction" })),
        Stream.runDrain(reached.stream).pipe(QueryCache.cached({ name: "cached.stream" })),
        sql`SELECT random()`.pipe(QueryCache.cached({ name: "cached.bypass" }))
      ], { discard: true }))
      assert.deepStrictEqual(silent, [])
      assert.strictEqual((yield* Metric.value(CacheMetrics.unreached)).count, before + 6)
    }).pipe(Effect.provide(clients())))

  it.effect("cacheWhen decides by the rows; one that throws declines", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const named = (id: number, cacheWhen: (rows: ReadonlyArray<any>) => boolean) =>
        nameOf(sql, id).pipe(QueryCache.cached({ cacheWhen }))
      const found = (id: number) => named(id, (rows) => rows.length > 0)
      assert.deepStrictEqual(yield* fates(Effect.all([found(1), found(1)])), ["miss", "hit"])
      assert.deepStrictEqual(yield* fates(Effect.all([found(404), found(404)])), ["miss", "miss"])
      const broken = named(2, () => {
        throw new Error("cacheWhen")
      })
      assert.deepStrictEqual(yield* fates(Effect.all([broken, broken])), ["miss", "miss"])
      assert.deepStrictEqual(yield* broken, [{ name: "Grace" }])
    }).pipe(Effect.provide(clients())))

  it.effect("maxEntryBytes: what is larger is answered and not stored", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const text = (length: number) =>
        sql`SELECT repeat('x', ${length}::int) AS text FROM users WHERE id = 1`.pipe(
          QueryCache.cached({ maxEntryBytes: 10_000 })
        )
      assert.deepStrictEqual(yield* fates(Effect.all([text(100), text(100)])), ["miss", "hit"])
      assert.deepStrictEqual(yield* fates(Effect.all([text(20_000), text(20_000)])), ["miss", "miss"])
      const { refusedFills } = yield* (yield* QueryCache.QueryCache).stats
      assert.strictEqual(refusedFills, 2)
    }).pipe(Effect.provide(clients())))

  it.effect("rows: frozen are one answer for all, fresh are everybody's own", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const statement = sql<
        { name: string; list: Array<number> }
      >`SELECT name, ARRAY[1, 2] AS list FROM users WHERE id = 1`
      const frozen = statement.pipe(QueryCache.cached({ rows: "frozen" }))
      const [first, second] = yield* Effect.all([frozen, frozen])
      assert.strictEqual(first, second)
      assert.isTrue(Object.isFrozen(first) && Object.isFrozen(first[0]) && Object.isFrozen(first[0].list))
      assert.throws(() => (first[0].name = "Mallory"))
      const fresh = statement.pipe(QueryCache.cached())
      const [mine, yours] = yield* Effect.all([fresh, fresh])
      mine[0].name = "Mallory"
      mine[0].list.push(3)
      assert.deepStrictEqual(yours, [{ name: "Ada", list: [1, 2] }])
      assert.deepStrictEqual([yield* fresh, yield* frozen], [yours, yours])
    }).pipe(Effect.provide(clients())))

  it.effect("dependencies: what the SQL does not say", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 1).pipe(
        QueryCache.cached({ dependencies: [Dependency.table("orders"), Dependency.key("user", 1)] })
      )
      const read = (label: string) => Effect.map(fates(query), (fates) => assert.deepStrictEqual(fates, [label]))
      yield* read("miss")
      yield* read("hit")
      yield* sql`DELETE FROM orders WHERE id = 12`
      yield* read("miss")
      yield* Invalidator.invalidate({ keys: [Dependency.key("user", 2)] })
      yield* read("hit")
      yield* Invalidator.invalidate({ keys: [Dependency.key("user", 1)] })
      yield* read("miss")
    }).pipe(Effect.provide(clients())))

  it.effect("an empty answer depends on its table, too", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 7).pipe(QueryCache.cached())
      assert.deepStrictEqual(yield* fateOf(query), ["miss", []])
      assert.deepStrictEqual(yield* fateOf(query), ["hit", []])
      yield* sql`INSERT INTO users VALUES (7, 'Tony')`
      assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ name: "Tony" }]])
    }).pipe(Effect.provide(clients())))

  it.effect("schemaVersion and namespace keep answers in one store apart", () =>
    Effect.gen(function*() {
      const store = Layer.succeed(CacheStore.CacheStore, yield* CacheStore.CacheStore)
      const read = (cache: CachedSqlClient.CachedSqlClientOptions) =>
        Effect.flatMap(SqlClient.SqlClient, (sql) => fates(nameOf(sql, 1).pipe(QueryCache.cached()))).pipe(
          Effect.provide(CachedSqlClient.layer(cache).pipe(Layer.provide([store, Postgres.layerClient()])))
        )
      assert.deepStrictEqual(yield* read({ schemaVersion: "1" }), ["miss"])
      assert.deepStrictEqual(yield* read({ schemaVersion: "1" }), ["hit"])
      assert.deepStrictEqual(yield* read({ schemaVersion: "2" }), ["miss"])
      assert.deepStrictEqual(yield* read({ schemaVersion: "1" }), ["hit"])
      assert.deepStrictEqual(yield* read({ namespace: "other", schemaVersion: "1" }), ["miss"])
    }).pipe(Effect.provide([clients(), CacheStore.layerMemory()])))

  it.effect("strategy all: every read that can be, but for the time of day and Effect's own tables", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE effect_jobs (id int)`
      yield* sql`CREATE TABLE cluster_locks (id int)`
      const twice = (statement: Effect.Effect<unknown, SqlError>) => fates(Effect.andThen(statement, statement))
      assert.deepStrictEqual(yield* twice(nameOf(sql, 1)), ["miss", "hit"])
      assert.deepStrictEqual(yield* twice(nameOf(sql, 1).values), ["miss", "hit"])
      for (
        const [statement, reason] of [
          [sql`SELECT * FROM users WHERE now() > '2000-01-01'`, "time-dependent"],
          [sql`SELECT current_date`, "time-dependent"],
          [sql`SELECT * FROM effect_jobs`, "effect-table"],
          [sql`SELECT * FROM users WHERE id IN (SELECT id FROM cluster_locks)`, "effect-table"]
        ] as const
      ) {
        assert.deepStrictEqual(yield* twice(statement), [`bypass ${reason}`, `bypass ${reason}`])
        // An explicit `cached` means it.
        assert.deepStrictEqual(yield* twice(QueryCache.cached(statement)), ["miss", "hit"])
      }
      assert.deepStrictEqual(yield* twice(sql`SELECT random()`), [
        "bypass volatile-function",
        "bypass volatile-function"
      ])
      assert.deepStrictEqual(yield* twice(sql`SELECT * FROM users FOR UPDATE`), [
        "bypass locking-clause",
        "bypass locking-clause"
      ])
      assert.deepStrictEqual(yield* twice(QueryCache.uncached(nameOf(sql, 1))), ["bypass uncached", "bypass uncached"])
      yield* sql`UPDATE users SET name = 'Augusta' WHERE id = 1`
      assert.deepStrictEqual(yield* fateOf(nameOf(sql, 1)), ["miss", [{ name: "Augusta" }]])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* fates(nameOf(sql, 1)), ["miss"])
    }).pipe(Effect.provide(clients({ cache: { strategy: "all", policy: { timeToLive: "2 seconds" } } }))))

  it.effect("the layer's policy holds where cached says nothing", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 1).pipe(QueryCache.cached({ tags: ["a"] }))
      yield* query
      yield* TestClock.adjust("59 minutes")
      assert.deepStrictEqual(yield* fates(query), ["hit"])
      yield* Invalidator.invalidate({ tags: ["every"] })
      assert.deepStrictEqual(yield* fates(query), ["miss"])
      yield* Invalidator.invalidate({ tags: ["a"] })
      assert.deepStrictEqual(yield* fates(query), ["miss"])
    }).pipe(Effect.provide(clients({ cache: { policy: { timeToLive: "1 hour", tags: ["every"] } } }))))

  it.effect("1,000 concurrent identical misses are one query, whoever leaves", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const query = nameOf(sql, 1).pipe(QueryCache.cached())
      const all = Effect.all(Array.from({ length: 1000 }, () => query), { concurrency: "unbounded" })
      const queries = yield* asked(Effect.map(all, (answers) => {
        for (const rows of answers) assert.deepStrictEqual(rows, ada)
        assert.strictEqual(new Set(answers).size, 1000)
      }))
      assert.deepStrictEqual(queries, ["SELECT name FROM users WHERE id = $1"])
      yield* Invalidator.invalidate({ all: true })
      const counts = new Map<string, number>()
      for (const fate of yield* fates(all)) counts.set(fate, (counts.get(fate) ?? 0) + 1)
      assert.deepStrictEqual([...counts], [["miss", 1], ["joined", 999]])
    }).pipe(Effect.provide(clients())))

  it.effect("what PostgreSQL rejects fails exactly as without a cache, and is not cached", () =>
    Effect.gen(function*() {
      const base = yield* Base
      const sql = yield* SqlClient.SqlClient
      const show = (exit: Exit.Exit<unknown, SqlError>) => {
        assert.isTrue(Exit.isFailure(exit))
        return Exit.isFailure(exit) && exit.cause.reasons.map((reason) =>
          Cause.isFailReason(reason)
            ? {
              error: reason.error.constructor,
              message: reason.error.message,
              retryable: reason.error.isRetryable,
              reason: { ...reason.error.reason, constructor: reason.error.reason.constructor },
              cause: { ...(reason.error.reason.cause as object) }
            }
            : reason
        )
      }
      const rejected = (sql: SqlClient.SqlClient) => [
        sql`SELEC name`,
        sql`SELECT * FROM nowhere`,
        sql`SELECT nothing FROM users`,
        sql`SELECT 1 / ${0}::int`,
        sql`SELECT name FROM users WHERE id = ${"not a number"}`,
        sql`SELECT name FROM users; SELECT 1`,
        sql``,
        sql`INSERT INTO users VALUES (1, 'twice')`,
        sql`INSERT INTO users VALUES (5, NULL)`,
        sql.unsafe("SELECT $1::int", [Symbol("unencodable")])
      ]
      for (let i = 0; i < rejected(base).length; i++) {
        const expected = yield* Effect.exit(rejected(base)[i])
        const statement = rejected(sql)[i]
        // PostgreSQL takes an empty text for an empty answer.
        if (Exit.isSuccess(expected)) {
          assert.deepStrictEqual(yield* QueryCache.cached(statement), expected.value)
          continue
        }
        for (
          const run of [
            statement,
            QueryCache.cached(statement),
            statement.values.pipe(QueryCache.cached()),
            statement.raw
          ]
        ) {
          assert.deepStrictEqual(show(yield* Effect.exit(run)), show(expected))
        }
        const streamed = yield* Effect.exit(Stream.runDrain(statement.stream))
        assert.deepStrictEqual(show(streamed), show(yield* Effect.exit(Stream.runDrain(rejected(base)[i].stream))))
      }
      const missing = sql`SELECT * FROM nowhere`.pipe(QueryCache.cached())
      yield* Effect.exit(Effect.all([missing, missing, missing], { concurrency: "unbounded" }))
      yield* base`CREATE TABLE nowhere (id int)`
      assert.deepStrictEqual(yield* fateOf(missing), ["bypass unknown-relation", []])
      // The catalog is asked again for each statement once, and by that for all.
      const found = sql`SELECT id FROM nowhere`.pipe(QueryCache.cached())
      assert.deepStrictEqual(yield* fateOf(found), ["miss", []])
      assert.deepStrictEqual(yield* fateOf(missing), ["miss", []])
      // One that nobody can encode as a key goes to the database as it is.
      const parameter = (value: unknown) => sql`SELECT ${value}::int AS value`.pipe(QueryCache.cached())
      assert.deepStrictEqual(yield* fates(Effect.exit(parameter({ a: () => 1 }))), ["bypass parameters"])
    }).pipe(Effect.provide(clients())))

  it.effect("SqlSchema decodes what was cached", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const find = SqlSchema.findAll({
        Request: Schema.Struct({ status: Schema.String }),
        Result: Schema.Struct({ id: Schema.Int, name: Schema.String }),
        execute: ({ status }) => sql`SELECT id, name FROM users WHERE status = ${status} ORDER BY id`
      })
      const active = find({ status: "active" }).pipe(QueryCache.cached())
      const users = [{ id: 1, name: "Ada" }, { id: 2, name: "Grace" }]
      assert.deepStrictEqual(yield* fateOf(active), ["miss", users])
      assert.deepStrictEqual(yield* fateOf(active), ["hit", users])
    }).pipe(Effect.provide(clients())))
})

layer(Postgres.layerServer())("CacheScope", (it) => {
  const invoices = Effect.gen(function*() {
    const base = yield* Base
    yield* base.unsafe(`DO $$ BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'app_user') THEN CREATE ROLE app_user; END IF;
      CREATE TABLE invoices (id int PRIMARY KEY, tenant text NOT NULL, total int NOT NULL);
      INSERT INTO invoices VALUES (1, 'acme', 100), (2, 'acme', 200), (3, 'globex', 300);
      ALTER TABLE invoices ENABLE ROW LEVEL SECURITY;
      CREATE POLICY tenants ON invoices USING (tenant = current_setting('app.tenant', true));
      GRANT USAGE ON SCHEMA public TO app_user;
      GRANT ALL ON invoices TO app_user;
    END $$`)
    const sql = yield* SqlClient.SqlClient
    const statement = sql<{ id: number }>`SELECT id FROM invoices ORDER BY id`
    const ids = <E, R>(rows: Effect.Effect<ReadonlyArray<{ id: number }>, E, R>) =>
      Effect.map(rows, (rows) => rows.map((row) => row.id))
    const as = (tenant: string) => CacheScope.provide({ role: "app_user", settings: { "app.tenant": tenant } })
    const whoami = sql`SELECT current_user::text AS role, coalesce(current_setting('app.tenant', true), '') AS tenant`
    return { sql, as, statement, ids, read: ids(statement.pipe(QueryCache.cached())), whoami }
  })

  it.effect("each tenant reads its own rows, on a miss, on a hit, and at the same time", () =>
    Effect.gen(function*() {
      const { as, ids, read, statement } = yield* invoices
      assert.deepStrictEqual(yield* fateOf(as("acme")(read)), ["miss", [1, 2]])
      assert.deepStrictEqual(yield* fateOf(as("globex")(read)), ["miss", [3]])
      assert.deepStrictEqual(yield* fateOf(as("acme")(read)), ["hit", [1, 2]])
      assert.deepStrictEqual(yield* fateOf(as("globex")(read)), ["hit", [3]])
      assert.deepStrictEqual(yield* fateOf(read), ["miss", [1, 2, 3]])
      yield* Invalidator.invalidate({ all: true })
      const everybody = Effect.all(["acme", "globex", "acme", "nobody", "globex"].map((tenant) => as(tenant)(read)), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(yield* everybody, [[1, 2], [3], [1, 2], [], [3]])
      // What is not cached runs in its scope as well.
      for (
        const run of [
          statement,
          statement.withoutTransform,
          statement.unprepared,
          QueryCache.uncached(statement.pipe(QueryCache.cached()))
        ]
      ) {
        assert.deepStrictEqual(yield* as("globex")(ids(run)), [3])
      }
      assert.deepStrictEqual(yield* as("globex")(statement.values), [[3]])
    }).pipe(Effect.provide(clients())))

  it.effect("a miss is BEGIN, set_config, query, COMMIT; a hit is nothing; the connection comes back as it was", () =>
    Effect.gen(function*() {
      const { as, read, whoami } = yield* invoices
      const before = yield* whoami
      assert.deepStrictEqual(yield* asked(as("acme")(read)), [
        "sql.transaction",
        "SELECT set_config($1, $2, true), set_config($3, $4, true)",
        "SELECT id FROM invoices ORDER BY id"
      ])
      assert.deepStrictEqual(yield* asked(as("acme")(read)), [])
      assert.deepStrictEqual(yield* as("acme")(whoami), [{ role: "app_user", tenant: "acme" }])
      assert.deepStrictEqual(yield* whoami, before)
    }).pipe(Effect.provide(clients({ client: { maxConnections: 1 } }))))

  it.effect("writes run in it, are refused by it, and invalidate for all", () =>
    Effect.gen(function*() {
      const { as, read, sql } = yield* invoices
      const all = Effect.all([as("acme")(read), as("globex")(read), read])
      yield* all
      const refused = yield* Effect.flip(as("acme")(sql`INSERT INTO invoices VALUES (4, 'globex', 1)`))
      assert.strictEqual(refused.reason._tag, "AuthorizationError")
      assert.deepStrictEqual(yield* fates(all), ["hit", "hit", "hit"])
      yield* as("acme")(sql`UPDATE invoices SET total = 0`)
      assert.deepStrictEqual(yield* sql`SELECT id FROM invoices WHERE total = 0 ORDER BY id`.values, [[1], [2]])
      assert.deepStrictEqual(yield* fates(all), ["miss", "miss", "miss"])
      yield* as("globex")(sql`INSERT INTO invoices VALUES (4, 'globex', 1)`.raw)
      assert.deepStrictEqual(yield* all, [[1, 2], [3, 4], [1, 2, 3, 4]])
    }).pipe(Effect.provide(clients())))

  it.effect("a transaction is set up once, with its savepoints, and its commit invalidates", () =>
    Effect.gen(function*() {
      const { as, ids, read, sql, statement } = yield* invoices
      yield* as("acme")(read)
      const transaction = sql.withTransaction(Effect.gen(function*() {
        assert.deepStrictEqual(yield* fateOf(read), ["bypass transaction", [1, 2]])
        yield* sql.withTransaction(sql`UPDATE invoices SET total = 1`)
        assert.deepStrictEqual(yield* Effect.map(Stream.runCollect(statement.stream), (rows) => rows.length), 2)
        return yield* ids(statement)
      }))
      const queries = yield* asked(as("acme")(transaction))
      assert.strictEqual(queries.filter((query) => String(query).includes("set_config")).length, 1)
      assert.deepStrictEqual(yield* fateOf(as("acme")(read)), ["miss", [1, 2]])
      assert.deepStrictEqual(yield* sql`SELECT id FROM invoices WHERE total = 1 ORDER BY id`.values, [[1], [2]])
    }).pipe(Effect.provide(clients())))

  it.effect("what applies it is not for the program's CurrentTransformer", () =>
    Effect.gen(function*() {
      const { as, ids, read, sql, statement } = yield* invoices
      const seen: Array<string> = []
      const transformed = Effect.provideService(Statement.CurrentTransformer, (statement) =>
        Effect.sync(() => {
          seen.push(statement.compile()[0])
          return statement
        }))
      assert.deepStrictEqual(yield* as("acme")(transformed(sql.withTransaction(ids(statement)))), [1, 2])
      assert.deepStrictEqual(yield* as("acme")(transformed(read)), [1, 2])
      assert.deepStrictEqual(yield* as("acme")(transformed(ids(statement))), [1, 2])
      assert.deepStrictEqual(seen, Array(3).fill("SELECT id FROM invoices ORDER BY id"))
    }).pipe(Effect.provide(clients())))

  it.effect("one that comes too late dies: inside a transaction, on a stream, on a reserved connection", () =>
    Effect.gen(function*() {
      const { as, read, sql, statement } = yield* invoices
      const dies = Effect.fnUntraced(function*(effect: Effect.Effect<unknown, unknown>) {
        const exit = yield* Effect.exit(effect)
        assert.isTrue(
          Exit.isFailure(exit) && Cause.hasDies(exit.cause) &&
            String(Cause.squash(exit.cause)).includes("CacheScope.provide")
        )
      })
      for (
        const run of [
          statement,
          read,
          statement.values,
          statement.raw,
          Stream.runDrain(statement.stream),
          sql`UPDATE invoices SET total = 9`,
          sql.withTransaction(statement)
        ]
      ) {
        yield* dies(sql.withTransaction(as("acme")(run)))
        yield* dies(as("globex")(sql.withTransaction(as("acme")(run))))
      }
      yield* dies(as("acme")(Stream.runDrain(statement.stream)))
      yield* dies(as("acme")(Effect.scoped(sql.reserve)))
      assert.deepStrictEqual(yield* sql`SELECT id FROM invoices WHERE total = 9`, [])
    }).pipe(Effect.provide(clients())))

  it.effect("apply: false and tenant are part of the key alone", () =>
    Effect.gen(function*() {
      const { read } = yield* invoices
      const bound = CacheScope.provide({ role: "app_user", settings: { "app.tenant": "acme" }, apply: false })
      assert.deepStrictEqual(yield* fateOf(read), ["miss", [1, 2, 3]])
      assert.deepStrictEqual(yield* fateOf(bound(read)), ["miss", [1, 2, 3]])
      assert.deepStrictEqual(yield* fateOf(bound(read)), ["hit", [1, 2, 3]])
      const tenant = (tenant: string) => CacheScope.provide({ tenant })
      yield* Invalidator.invalidate({ all: true })
      assert.deepStrictEqual(yield* asked(tenant("acme")(read)), ["SELECT id FROM invoices ORDER BY id"])
      assert.deepStrictEqual(yield* fates(tenant("globex")(read)), ["miss"])
      assert.deepStrictEqual(yield* fates(tenant("acme")(read)), ["hit"])
    }).pipe(Effect.provide(clients())))
})

layer(Postgres.layerServer())("Layers", (it) => {
  it.effect("layerNoop: the same services, and no cache", () =>
    Effect.gen(function*() {
      const base = yield* PgClient.PgClient
      yield* base`CREATE TABLE IF NOT EXISTS noop AS SELECT 1 AS n`
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const query = sql`SELECT n FROM noop`.pipe(QueryCache.cached({ name: "noop" }))
        const both = Effect.andThen(query, query)
        assert.deepStrictEqual(yield* fates(both), ["bypass noop", "bypass noop"])
        assert.deepStrictEqual(yield* warningsOf(query), [])
        assert.strictEqual((yield* asked(both)).length, 2)
        yield* sql.withTransaction(sql`UPDATE noop SET n = 2`)
        yield* Invalidator.invalidate({ tables: ["noop"] })
        assert.deepStrictEqual(yield* query, [{ n: 2 }])
        assert.deepStrictEqual(
          yield* CacheScope.provide(sql`SELECT current_setting('app.tenant') AS tenant`, {
            settings: { "app.tenant": "acme" }
          }),
          [{ tenant: "acme" }]
        )
        const { fills, hits } = yield* (yield* QueryCache.QueryCache).stats
        assert.deepStrictEqual([fills, hits], [0, 0])
      }).pipe(Effect.provide(CachedSqlClient.layerNoop.pipe(Layer.provide(Layer.succeed(PgClient.PgClient, base)))))
    }).pipe(Effect.provide(Postgres.layerClient())))

  const declared = CachedSqlClient.layerNoDeps().pipe(
    Layer.provide([
      CacheStore.layerMemory(),
      Postgres.layerClient(),
      QueryAnalyzer.layerDeclared({
        declare: (sql) => {
          const match = /-- (reads|writes) (\w+)/.exec(sql)
          return match === null ? undefined : match[1] === "reads" ? { reads: [match[2]] } : { writes: [match[2]] }
        }
      })
    ]),
    Layer.provideMerge(Fingerprinter.layer)
  )

  it.effect("layerNoDeps with layerDeclared: tables are what the program says", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE declared AS SELECT 1 AS n`
      const query = sql`SELECT n FROM declared -- reads declared`.pipe(QueryCache.cached())
      assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ n: 1 }]])
      yield* sql`UPDATE declared SET n = 2`
      assert.deepStrictEqual(yield* fateOf(query), ["hit", [{ n: 1 }]])
      yield* sql`UPDATE declared SET n = 3 -- writes declared`
      assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ n: 3 }]])
      const silent = sql`SELECT n FROM declared`
      assert.deepStrictEqual(yield* fates(QueryCache.cached(silent)), ["bypass undeclared"])
      const told = silent.pipe(QueryCache.cached({ dependencies: [Dependency.table("declared")] }))
      assert.deepStrictEqual(yield* fates(Effect.andThen(told, told)), ["miss", "hit"])
      yield* sql`DELETE FROM declared -- writes declared`
      assert.deepStrictEqual(yield* fateOf(told), ["miss", []])
    }).pipe(Effect.provide(declared)))
})

describe("CachedSqlClient.layerTest", () => {
  const users = (respond: () => Effect.Effect<ReadonlyArray<object>, SqlError>) => CachedSqlClient.layerTest(respond)
  const answer = Effect.succeed([{ id: 1, name: "Ada" }])

  it.effect("answers as it is told, caches, and says what was asked", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const database = yield* CachedSqlClient.TestDatabase
      const query = sql`SELECT * FROM users WHERE id = ${1}`.pipe(QueryCache.cached({ timeToLive: "1 minute" }))
      assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ id: 1, name: "Ada" }]])
      assert.deepStrictEqual(yield* fates(query), ["hit"])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* fates(query), ["miss"])
      yield* sql.withTransaction(sql`DELETE FROM users`)
      assert.deepStrictEqual(yield* fates(query), ["miss"])
      const select = { sql: "SELECT * FROM users WHERE id = $1", params: [1] }
      assert.deepStrictEqual(yield* database.queries, [
        select,
        select,
        { sql: "DELETE FROM users", params: [] },
        select
      ])
    }).pipe(Effect.provide(users(() => answer))))

  it.effect("what a program tells the Invalidator can be mocked", () => {
    const calls: Array<Invalidator.InvalidationTargets> = []
    return Effect.gen(function*() {
      yield* Invalidator.invalidate({ tags: ["a"] })
      yield* Effect.succeed(1).pipe(Invalidator.invalidating({ tables: ["users"] }))
      yield* Effect.exit(Effect.fail("no").pipe(Invalidator.invalidating({ tables: ["never"] })))
      assert.deepStrictEqual(calls, [{ tags: ["a"] }, { tables: ["users"] }])
    }).pipe(Effect.provide(Layer.mock(Invalidator.Invalidator, {
      invalidate: (targets) =>
        Effect.sync(() => {
          calls.push(targets)
        })
    })))
  })

  it.effect("1,000 callers, of whom the first 500 leave: one query, and 500 answers", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const database = yield* CachedSqlClient.TestDatabase
        const query = sql`SELECT * FROM users`.pipe(QueryCache.cached())
        const callers = yield* Effect.forEach(Array.from({ length: 1000 }), () =>
          Effect.forkChild(query, { startImmediately: true }))
        const leaving = callers.slice(0, 500)
        yield* Fiber.interruptAll(leaving)
        for (const exit of yield* Effect.forEach(leaving, Fiber.await)) {
          assert.isTrue(Exit.hasInterrupts(exit))
        }
        yield* Deferred.succeed(gate, undefined)
        for (const rows of yield* Effect.forEach(callers.slice(500), Fiber.join)) {
          assert.deepStrictEqual(rows, [{ id: 1, name: "Ada" }])
        }
        assert.strictEqual((yield* database.queries).length, 1)
        assert.deepStrictEqual(yield* fates(query), ["hit"])
      }).pipe(Effect.provide(users(() =>
        Effect.andThen(Deferred.await(gate), answer)
      )))
    }))

  it.effect("when the last caller leaves, the query is interrupted, and the next caller asks again", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      let interrupted = 0
      const respond = () =>
        Effect.andThen(Deferred.await(gate), answer).pipe(Effect.onInterrupt(() => Effect.sync(() => interrupted++)))
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const database = yield* CachedSqlClient.TestDatabase
        const query = sql`SELECT * FROM users`.pipe(QueryCache.cached())
        const callers = yield* Effect.forEach(
          Array.from({ length: 10 }),
          () => Effect.forkChild(query, { startImmediately: true })
        )
        yield* Fiber.interruptAll(callers.slice(1))
        assert.strictEqual(interrupted, 0)
        yield* Fiber.interrupt(callers[0])
        assert.strictEqual(interrupted, 1)
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual(yield* fates(query), ["miss"])
        assert.strictEqual((yield* database.queries).length, 2)
      }).pipe(Effect.provide(users(respond)))
    }))

  it.effect("a flight has neither the transaction nor the resources of its first caller", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const database = yield* CachedSqlClient.TestDatabase
        const query = sql`SELECT * FROM users`.pipe(QueryCache.cached())
        // A scope that closes while the flight goes on, and a leader that times out.
        const leader = yield* Effect.forkChild(Effect.scoped(Effect.timeoutOption(query, "1 second")), {
          startImmediately: true
        })
        const follower = yield* Effect.forkChild(fateOf(query), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(leader))._tag, "None")
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual(yield* Fiber.join(follower), ["joined", [{ id: 1, name: "Ada" }]])
        assert.strictEqual((yield* database.queries).length, 1)
      }).pipe(Effect.provide(users(() => Effect.andThen(Deferred.await(gate), answer))))
    }))

  it.effect("a read that begins after a write was acknowledged joins no flight that began before it", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      let name = "old"
      const respond = ({ sql }: CachedSqlClient.TestQuery): Effect.Effect<ReadonlyArray<object>> => {
        if (sql.startsWith("UPDATE")) {
          name = "new"
          return Effect.succeed([])
        }
        const rows = [{ name }]
        return name === "old" ? Effect.as(Deferred.await(gate), rows) : Effect.succeed(rows)
      }
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const query = sql`SELECT name FROM users`.pipe(QueryCache.cached())
        const early = yield* Effect.forkChild(fateOf(query), { startImmediately: true })
        yield* sql`UPDATE users SET name = 'new'`
        assert.deepStrictEqual(yield* fateOf(query), ["miss", [{ name: "new" }]])
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual(yield* Fiber.join(early), ["miss", [{ name: "old" }]])
        // Its late fill lost.
        assert.deepStrictEqual(yield* fateOf(query), ["hit", [{ name: "new" }]])
      }).pipe(Effect.provide(CachedSqlClient.layerTest(respond)))
    }))
})

describe("Options that cannot mean anything", () => {
  const any = (value: unknown): any => value
  const policy = (policy: unknown) => () => QueryCache.cached(any(policy))
  const scope = (scope: unknown) => () => CacheScope.provide(any(scope))
  const cases: ReadonlyArray<readonly [owner: string, option: string, value: unknown, make: () => unknown]> = [
    ["CachedSqlClient.layer", "strategy", "some", () => CachedSqlClient.layer({ strategy: any("some") })],
    ["CachedSqlClient.layer", "lookupTimeout", 0, () => CachedSqlClient.layer({ lookupTimeout: 0 })],
    [
      "CachedSqlClient.layer",
      "lookupTimeout",
      "-5 millis",
      () => CachedSqlClient.layer({ lookupTimeout: any("-5 millis") })
    ],
    [
      "CachedSqlClient.layer",
      "invalidationTimeout",
      Infinity,
      () => CachedSqlClient.layer({ invalidationTimeout: Infinity })
    ],
    [
      "CachedSqlClient.layer",
      "invalidationTimeout",
      "soon",
      () => CachedSqlClient.layer({ invalidationTimeout: any("soon") })
    ],
    ["CachedSqlClient.layer", "namespace", "", () => CachedSqlClient.layer({ namespace: "" })],
    ["CachedSqlClient.layer", "schemaVersion", 2, () => CachedSqlClient.layer({ schemaVersion: any(2) })],
    ["CachedSqlClient.layer", "stragety", "all", () => CachedSqlClient.layer(any({ stragety: "all" }))],
    ["CachedSqlClient.layer", "ttl", 5, () => CachedSqlClient.layerNoDeps(any({ ttl: 5 }))],
    ["CachePolicy", "timeToLive", -1, () => CachedSqlClient.layer({ policy: { timeToLive: -1 } })],
    ["CachePolicy", "timeToLive", -1, policy({ timeToLive: -1 })],
    ["CachePolicy", "timeToLive", 0, policy({ timeToLive: 0 })],
    ["CachePolicy", "timeToLive", NaN, policy({ timeToLive: NaN })],
    ["CachePolicy", "timeToLive", Infinity, policy({ timeToLive: Infinity })],
    ["CachePolicy", "timeToLive", "1 fortnight", policy({ timeToLive: "1 fortnight" })],
    ["CachePolicy", "timeToLive", null, policy({ timeToLive: null })],
    ["CachePolicy", "tags", [""], policy({ tags: [""] })],
    ["CachePolicy", "tags", "dashboard", policy({ tags: "dashboard" })],
    ["CachePolicy", "dependencies", ["users"], policy({ dependencies: ["users"] })],
    ["CachePolicy", "autoInvalidate", "no", policy({ autoInvalidate: "no" })],
    ["CachePolicy", "cacheWhen", true, policy({ cacheWhen: true })],
    ["CachePolicy", "maxEntryBytes", 0, policy({ maxEntryBytes: 0 })],
    ["CachePolicy", "maxEntryBytes", 1.5, policy({ maxEntryBytes: 1.5 })],
    ["CachePolicy", "rows", "shared", policy({ rows: "shared" })],
    ["CachePolicy", "name", " ", policy({ name: " " })],
    ["CachePolicy", "ttl", 5, policy({ ttl: 5 })],
    ["CachePolicy", "options", "1 minute", policy("1 minute")],
    ["CachePolicy", "ttl", 5, () => QueryCache.cached(Effect.void, any({ ttl: 5 }))],
    ["CachePolicy", "ttl", 5, () => CachePolicy.resolve(any({ ttl: 5 }))],
    ["CacheScope.provide", "role", "", scope({ role: "" })],
    ["CacheScope.provide", "tenant", 7, scope({ tenant: 7 })],
    ["CacheScope.provide", "apply", "yes", scope({ apply: "yes" })],
    ["CacheScope.provide", "settings", "role", scope({ settings: { role: "admin" } })],
    ["CacheScope.provide", "settings", "", scope({ settings: { "": "x" } })],
    ["CacheScope.provide", "user", "ada", scope({ user: "ada" })],
    ["CacheStore.layerMemory", "capacity", 0, () => CacheStore.layerMemory({ capacity: 0 })],
    ["CacheStore.layerMemory", "capacity", -1, () => CacheStore.layerMemory({ capacity: -1 })],
    ["CacheStore.layerMemory", "maxBytes", 0.5, () => CacheStore.layerMemory({ maxBytes: 0.5 })],
    ["CacheStore.layerMemory", "size", 5, () => CacheStore.layerMemory(any({ size: 5 }))],
    ["Invalidator.invalidate", "all", false, () => Invalidator.invalidate({ all: any(false) })],
    ["Invalidator.invalidate", "tables", "users", () => Invalidator.invalidate({ tables: any("users") })],
    ["Invalidator.invalidate", "rows", [{ id: 1 }], () => Invalidator.invalidate({ rows: any([{ id: 1 }]) })],
    ["Invalidator.invalidate", "keys", ["user:1"], () => Invalidator.invalidate({ keys: any(["user:1"]) })],
    ["Invalidator.invalidate", "table", "users", () => Invalidator.invalidate(any({ table: "users" }))],
    ["Invalidator.invalidate", "targets", {}, () => Invalidator.invalidate({})],
    ["Invalidator.invalidate", "table", "users", () => Invalidator.invalidating(any({ table: "users" }))],
    ["Dependency", "tag", "", () => Invalidator.invalidate({ tags: [""] })],
    ["Dependency", "tag", "", () => Dependency.tag("")],
    ["Dependency", "key", "", () => Dependency.key("", 1)],
    ["Dependency", "user", 1.5, () => Dependency.key("user", 1.5)],
    ["Dependency", "columns", {}, () => Dependency.row("users", {})]
  ]

  it.each(cases)("%s: %s %o", (owner, option, value, make) => {
    let thrown: unknown
    try {
      make()
    } catch (error) {
      thrown = error
    }
    if (!(thrown instanceof CacheError.InvalidOptionError)) return assert.fail(`not refused: ${thrown}`)
    assert.deepStrictEqual([thrown.owner, thrown.option, thrown.value], [owner, option, value])
    assert.include(thrown.message, option)
  })

  it("a setting's value is the program's data, and stays out of the message", () => {
    assert.throws(
      () => CacheScope.provide({ settings: { "app.secret": any(["hunter2"]) } }),
      /^(?!.*hunter2).*app\.secret/s
    )
  })

  it.effect("a client that names no host needs a namespace for a shared store", () =>
    Effect.gen(function*() {
      const pg = Context.get(
        yield* Layer.build(CachedSqlClient.layerTest(() => [])),
        PgClient.PgClient
      )
      const unnamed = Layer.succeed(PgClient.PgClient, Object.assign(() => {}, pg, { config: { path: "/tmp" } }) as any)
      const shared = Layer.effect(
        CacheStore.CacheStore,
        Effect.map(CacheStore.CacheStore, (store) => ({ ...store, shared: true }))
      ).pipe(
        Layer.provide(CacheStore.layerMemory())
      )
      const build = (options?: CachedSqlClient.CachedSqlClientOptions) =>
        Effect.exit(Layer.build(CachedSqlClient.layer(options).pipe(Layer.provide([shared, unnamed]))))
      const exit = yield* build()
      const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      assert.isTrue(error instanceof CacheError.InvalidOptionError && error.option === "namespace")
      assert.isTrue(Exit.isSuccess(yield* build({ namespace: "mine" })))
    }).pipe(Effect.scoped))
})
