// Stale answers that are planted are found, and nothing else is called stale.
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import {
  CacheAuditor,
  CachedQuery,
  type CachedSqlClient,
  CacheError,
  CacheScope,
  CacheStore,
  Dependency,
  Invalidator,
  QueryCache,
  TieredStore
} from "effect-query-cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Redis from "effect/persistence/Redis"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { SqlError, UnknownError } from "effect/sql/SqlError"
import * as TestClock from "effect/testing/TestClock"
import { seeded } from "./bench/harness.ts"
import * as Fixture from "./client/fixture.ts"
import * as FlakyStore from "./support/flakyStore.ts"
import * as Fleet from "./support/fleet.ts"
import * as Logs from "./support/logs.ts"
import * as Postgres from "./support/postgres.ts"
import * as RedisServers from "./support/redis.ts"
import { thrownBy } from "./support/thrown.ts"

/** A database in which nobody's writes are seen but those that go through the client. */
const makeDatabase = () => {
  const database = {
    rows: [{ id: 1, name: "Ada" }] as ReadonlyArray<object>,
    fails: false,
    hangs: false,
    /** What was asked of `users`. */
    asked: 0,
    scopes: [] as Array<unknown>,
    respond: ({ params, sql }: CachedSqlClient.TestQuery): Effect.Effect<ReadonlyArray<object>, SqlError> => {
      if (sql.includes("set_config")) database.scopes.push(params[1])
      if (!sql.includes("FROM users")) return Effect.succeed([])
      database.asked++
      if (database.hangs) return Effect.never
      return database.fails
        ? Effect.fail(new SqlError({ reason: new UnknownError({ cause: "away", operation: "execute" }) }))
        : Effect.succeed(typeof database.rows === "function" ? (database.rows as any)() : database.rows)
    }
  }
  return database
}

/** A client and its auditor, who takes every hit unless told otherwise. */
const makeAudited = Effect.fnUntraced(function*(
  options?: CacheAuditor.CacheAuditorOptions,
  store: Layer.Layer<CacheStore.CacheStore> = CacheStore.layerMemory()
) {
  const database = makeDatabase()
  const context = yield* Fleet.member(database.respond, store)
  const sql = Context.get(context, PgClient.PgClient)
  const { findings } = yield* auditorOf(context, options)
  const users = QueryCache.cached(sql<{ name: string }>`SELECT * FROM users WHERE id = ${1}`, { timeToLive: "1 hour" })
  /** The fate of a read. */
  const fate = <A, E, R>(read: Effect.Effect<A, E, R>) => Effect.map(Fixture.fates(read), (fates) => fates.join())
  return {
    database,
    sql,
    users,
    fate,
    in: Effect.provideContext(context),
    /** Reads until it is a hit, and lets it be judged by a database that says something else then. */
    verdict: Effect.fnUntraced(function*<A, E>(
      read: Effect.Effect<A, E>,
      meanwhile: { readonly first?: Effect.Effect<unknown, any>; readonly second?: Effect.Effect<unknown, any> } = {}
    ) {
      // Several hits of one moment are one.
      while ((yield* fate(read)) !== "hit") yield* TestClock.adjust(1)
      yield* meanwhile.first ?? Effect.void
      yield* TestClock.adjust("5 seconds")
      yield* meanwhile.second ?? Effect.void
      yield* TestClock.adjust("5 seconds")
      const { pending, staleRatio: _, ...counts } = yield* findings
      assert.strictEqual(pending, 0)
      return Object.entries(counts).flatMap(([name, count]) => count === 0 ? [] : [`${count} ${name}`]).join(", ")
    }),
    findings
  }
})

/** Values by key, of the same table. */
const makeNames = (audited: Effect.Success<ReturnType<typeof makeAudited>>) =>
  audited.in(CachedQuery.make("name", {
    Key: Schema.Int,
    Value: Schema.Array(Schema.Struct({ name: Schema.optional(Schema.String) })),
    lookup: (id) => audited.sql<{ name: string }>`SELECT name FROM users WHERE id = ${id}`,
    timeToLive: "1 hour",
    dependencies: (id) => [Dependency.row("users", { id })]
  }))

const auditorOf = <R>(
  context: Context.Context<QueryCache.QueryCache | R>,
  options?: CacheAuditor.CacheAuditorOptions
) =>
  Effect.map(
    Layer.build(
      CacheAuditor.layer({ share: 1, maxPerSecond: 1_000, ...options }).pipe(
        Layer.provide(Layer.succeedContext(context))
      )
    ),
    Context.get(CacheAuditor.CacheAuditor)
  )

const changed = [{ id: 1, name: "Grace Brewster Murray" }]

describe("a scripted database", () => {
  it.effect("a change that nobody invalidates is found, counted, logged once, and made up for", () =>
    Effect.gen(function*() {
      const audited = yield* makeAudited()
      const { database, fate, findings, sql, users, verdict } = audited
      const change = Effect.sync(() => {
        database.rows = changed
      })
      assert.strictEqual(yield* verdict(users, { first: change }), "1 stale")
      assert.strictEqual((yield* findings).staleRatio, 1)
      // It was read for the first hit, and twice by the auditor.
      assert.strictEqual(database.asked, 3)
      assert.strictEqual(yield* fate(users), "miss")
      assert.strictEqual(yield* verdict(users), "1 fresh, 1 stale")
      database.rows = []
      yield* fate(users)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* findings).stale, 2)
      const messages = (yield* (yield* Logs.Logs).messages).filter((message) => message.includes("stale"))
      assert.deepStrictEqual(messages, [
        "A stale answer is served from the cache (SELECT * FROM users WHERE id = $1): the database says something else, " +
        "and no invalidation has reached it; its tables are invalidated now"
      ])
      // Another text is another matter; what stands in it is not told.
      database.rows = changed
      const named = QueryCache.cached(sql.unsafe("SELECT name FROM users WHERE name = 'Secret'"), {
        timeToLive: "1 hour"
      })
      yield* named
      yield* named
      database.rows = []
      yield* TestClock.adjust("10 seconds")
      const everything = yield* (yield* Logs.Logs).everything
      assert.include(everything, "(SELECT name FROM users WHERE name = ?)")
      assert.notInclude(everything, "Secret")
      assert.notInclude(everything, "Grace")
      assert.notInclude(everything, "Ada")
    }).pipe(Effect.provide(Logs.layer)))

  it.effect("what is as the database says is fresh, in whatever order its rows come", () =>
    Effect.gen(function*() {
      const { database, fate, findings, users, verdict } = yield* makeAudited()
      database.rows = [{ id: 1 }, { id: 2 }]
      assert.strictEqual(
        yield* verdict(users, {
          first: Effect.sync(() => {
            database.rows = [{ id: 2 }, { id: 1 }]
          })
        }),
        "1 fresh"
      )
      assert.strictEqual((yield* findings).staleRatio, 0)
      assert.strictEqual(database.asked, 2)
      // As many rows, and each of them among those of the other: not the same all the same.
      database.rows = [{ id: 1 }, { id: 2 }, { id: 2 }]
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* fate(users), "miss")
      yield* users
      database.rows = [{ id: 1 }, { id: 1 }, { id: 2 }]
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* findings).stale, 1)
    }))

  it.effect("an answer that has gone by the time is not judged, and the database not asked", () =>
    Effect.gen(function*() {
      const { database, sql, users, verdict } = yield* makeAudited()
      const write = Effect.andThen(
        Effect.sync(() => {
          database.rows = changed
        }),
        sql`UPDATE users SET name = 'Grace'`
      )
      assert.strictEqual(yield* verdict(users, { first: write }), "1 inconclusive")
      assert.strictEqual(database.asked, 1)
      // Another answer in its place is another answer.
      assert.strictEqual(
        yield* verdict(users, {
          first: Effect.all([TestClock.adjust(1), sql`UPDATE users SET name = 'Grace'`, users])
        }),
        "2 inconclusive"
      )
    }))

  it.effect("an invalidation that comes late is none that does not come", () =>
    Effect.gen(function*() {
      const audited = yield* makeAudited()
      const { database, users, verdict } = audited
      const change = (rows: ReadonlyArray<object>) =>
        Effect.sync(() => {
          database.rows = rows
        })
      const invalidate = audited.in(Invalidator.invalidate({ tables: ["users"] }))
      assert.strictEqual(yield* verdict(users, { first: change(changed), second: invalidate }), "1 inconclusive")
      // Nor where the same answer is read again: the database has said something else between the two.
      const back = Effect.all([change(changed), invalidate, users])
      assert.strictEqual(
        yield* verdict(users, { first: change([]), second: back }),
        "2 inconclusive"
      )
    }))

  it.effect("what the database does not say, or says differently each time, is no verdict", () =>
    Effect.gen(function*() {
      const { database, findings, users, verdict } = yield* makeAudited()
      const fail = Effect.sync(() => {
        database.fails = true
      })
      assert.strictEqual(yield* verdict(users, { first: fail }), "1 inconclusive")
      database.fails = false
      let times = 0
      database.rows = (() => [{ times: times++ }]) as any
      yield* users
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* findings).inconclusive, 2)
    }))

  it.effect("a clock that is set back is no delay", () =>
    Effect.gen(function*() {
      const { database, findings, users } = yield* makeAudited()
      yield* TestClock.adjust("1 hour")
      yield* users
      yield* users
      database.rows = changed
      const clock = yield* TestClock.testClockWith(Effect.succeed)
      yield* TestClock.adjust("4 seconds")
      const before = clock.currentTimeMillisUnsafe.bind(clock)
      Object.assign(clock, {
        currentTimeMillisUnsafe: () => before() - 2_000,
        currentTimeMillis: Effect.sync(() => before() - 2_000)
      })
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual((yield* findings).stale, 0)
    }))

  it.effect("what may differ is not taken", () =>
    Effect.gen(function*() {
      const audited = yield* makeAudited()
      const { database, findings, sql } = audited
      const cached = QueryCache.cached({ timeToLive: "1 hour" })
      const labels = yield* audited.in(CachedQuery.make("label", {
        Key: Schema.Int,
        Value: Schema.String,
        lookup: () => Effect.succeed("a label"),
        timeToLive: "1 hour"
      }))
      const reads: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        QueryCache.cached(sql`SELECT id FROM users`, { timeToLive: "1 hour", autoInvalidate: false }),
        QueryCache.cached(sql`SELECT name FROM users`, { timeToLive: "10 seconds" }),
        cached(sql`SELECT * FROM users LIMIT 1`),
        cached(sql`SELECT * FROM users FETCH FIRST ROW ONLY`),
        cached(sql`SELECT DISTINCT ON (name) * FROM users`),
        cached(sql`SELECT * FROM users WHERE born < now()`),
        labels.get(1)
      ]
      for (const read of reads) {
        yield* read
        assert.strictEqual(yield* audited.fate(read), "hit")
        yield* TestClock.adjust(1)
      }
      database.rows = changed
      yield* TestClock.adjust("20 seconds")
      const { pending, skipped, stale } = yield* findings
      assert.deepStrictEqual({ pending, skipped, stale }, { pending: 0, skipped: reads.length, stale: 0 })
      // In an order that the query says, it is.
      const ordered = cached(sql`SELECT * FROM users ORDER BY id LIMIT 1`)
      yield* ordered
      yield* ordered
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* findings).fresh, 1)
    }))

  it.effect("the query runs again as its caller, and outside of what the caller does", () =>
    Effect.gen(function*() {
      const audited = yield* makeAudited()
      const { database, findings, users } = audited
      const scoped = users.pipe(CacheScope.provide({ tenant: "a", settings: { "app.tenant": "a" } }))
      yield* scoped
      const [queries] = yield* QueryCache.withInfo(Effect.andThen(scoped, TestClock.adjust("5 seconds")))
      assert.deepStrictEqual(queries.map(({ status }) => status), ["hit"])
      assert.deepStrictEqual(database.scopes, ["a", "a"])
      assert.strictEqual((yield* findings).fresh, 1)
      const names = yield* makeNames(audited)
      yield* names.get(1)
      const [values] = yield* QueryCache.withInfo(Effect.andThen(names.get(1), TestClock.adjust("5 seconds")))
      assert.deepStrictEqual(values.map(({ status }) => status), ["hit"])
      assert.strictEqual((yield* findings).fresh, 2)
    }))

  it.effect("takes a share, and no more than it may", () =>
    Effect.gen(function*() {
      const some = yield* makeAudited({ share: 0.1, maxPerSecond: 1_000 })
      yield* some.users
      for (let i = 0; i < 2_000; i++) {
        yield* TestClock.adjust(1)
        yield* some.users
      }
      yield* TestClock.adjust("20 seconds")
      const { fresh, skipped } = yield* some.findings
      assert.isAbove(fresh, 120)
      assert.isBelow(fresh + skipped, 300)

      const few = yield* makeAudited({ maxPerSecond: 10 })
      for (let i = 0; i < 1_000; i++) yield* few.users
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual((yield* few.findings).fresh, 1)
      assert.strictEqual(few.database.asked, 2)
    }))

  it.effect("a database that hangs keeps nobody, and not more than so many hits", () =>
    Effect.gen(function*() {
      const { database, findings, users } = yield* makeAudited()
      yield* users
      database.hangs = true
      for (let i = 0; i < 500; i++) {
        yield* TestClock.adjust(1)
        yield* users
      }
      yield* TestClock.adjust("5 seconds")
      const { pending, skipped } = yield* findings
      assert.deepStrictEqual({ pending, skipped }, { pending: 256, skipped: 244 })
    }))

  it.effect("values by key, and what another process has stored", () =>
    Effect.gen(function*() {
      const store = yield* Layer.build(CacheStore.layerMemory())
      const inner = Context.get(store, CacheStore.CacheStore)
      // As a store between processes: nothing is at hand, and it does not hear of anything.
      const deaf = CacheStore.CacheStore.of({
        ...inner,
        peek: () => undefined,
        invalidate: () => Effect.succeed([{ epoch: "memory", clock: 1 }])
      })
      const audited = yield* makeAudited({}, Layer.succeed(CacheStore.CacheStore, deaf))
      const { database, findings, sql, users } = audited
      const names = yield* makeNames(audited)
      for (const read of [users, names.get(1), names.getMany([1, 2])]) {
        yield* TestClock.adjust(1)
        yield* read
        yield* TestClock.adjust(1)
        yield* read
      }
      yield* TestClock.adjust("10 seconds")
      const { fresh } = yield* findings
      assert.isAtLeast(fresh, 3)
      database.rows = [{ name: "Grace" }]
      yield* sql`UPDATE users SET name = 'Grace'`
      for (const read of [users, names.get(1)]) {
        yield* TestClock.adjust(1)
        yield* read
      }
      yield* TestClock.adjust("10 seconds")
      const { stale } = yield* findings
      assert.strictEqual(stale, 2)
    }))

  it.effect("values by key of this process", () =>
    Effect.gen(function*() {
      const audited = yield* makeAudited({ share: 0.5, maxPerSecond: 1_000 })
      const { database, findings } = audited
      const names = yield* makeNames(audited)
      yield* names.getMany([1, 2])
      database.rows = [{ name: "Grace" }]
      for (let i = 0; i < 20; i++) {
        yield* TestClock.adjust(1)
        yield* i % 2 === 0 ? names.get(1) : names.getMany([1, 2])
      }
      yield* TestClock.adjust("10 seconds")
      const { inconclusive, stale } = yield* findings
      // The first one that is found ends the others.
      assert.isAtLeast(stale, 1)
      assert.isAtLeast(stale + inconclusive, 5)
      assert.strictEqual(yield* audited.fate(names.get(1)), "miss")
    }))

  it.effect("an invalidation that is not delivered yet is no stale answer: nothing is served", () =>
    Effect.gen(function*() {
      const inner = Context.get(yield* Layer.build(CacheStore.layerMemory()), CacheStore.CacheStore)
      const flaky = FlakyStore.make(inner)
      const { database, findings, sql, users } = yield* makeAudited(
        {},
        Layer.succeed(CacheStore.CacheStore, flaky.store)
      )
      yield* users
      yield* TestClock.adjust(1)
      yield* users
      database.rows = changed
      yield* TestClock.adjust("5 seconds")
      flaky.set("invalidate", () =>
        Effect.fail(
          new CacheError.CacheError({
            operation: "invalidate",
            reason: new CacheError.StoreUnavailable({ message: "away" })
          })
        ))
      yield* sql`UPDATE users SET name = 'Grace'`
      yield* TestClock.adjust("5 seconds")
      const { inconclusive, stale } = yield* findings
      assert.deepStrictEqual({ inconclusive, stale }, { inconclusive: 1, stale: 0 })
    }))

  it.effect("`heal: false` leaves what is stale, and it is found again", () =>
    Effect.gen(function*() {
      const { database, fate, findings, users, verdict } = yield* makeAudited({ heal: false })
      const change = Effect.sync(() => {
        database.rows = changed
      })
      assert.strictEqual(yield* verdict(users, { first: change }), "1 stale")
      assert.strictEqual(yield* fate(users), "hit")
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* findings).stale, 2)
    }))

  it.effect("what it finds is in the metrics", () =>
    Effect.gen(function*() {
      const { database, users, verdict } = yield* makeAudited()
      yield* verdict(users, {
        first: Effect.sync(() => {
          database.rows = changed
        })
      })
      const snapshots = yield* Metric.snapshot
      const told = snapshots.flatMap(({ attributes, id, state }) =>
        id === "query_cache_audits_total"
          ? [[attributes?.outcome, (state as any).count]]
          : id === "query_cache_stale_ratio"
          ? [["ratio", (state as any).value]]
          : []
      )
      assert.deepInclude(told, ["stale", 1])
      assert.deepInclude(told, ["ratio", 1])
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))

  it.effect("ends with its layer, of which there is one", () =>
    Effect.gen(function*() {
      const database = makeDatabase()
      const context = yield* Fleet.member(database.respond, CacheStore.layerMemory())
      const sql = Context.get(context, PgClient.PgClient)
      const users = QueryCache.cached(sql`SELECT * FROM users`)
      const scope = yield* Scope.make()
      const { findings } = yield* auditorOf(context).pipe(Scope.provide(scope))
      yield* users
      yield* users
      assert.strictEqual((yield* findings).pending, 1)
      const another = yield* Effect.exit(Effect.scoped(auditorOf(context)))
      assert.include(String(another), "there is an auditor for this client already")
      yield* Scope.close(scope, yield* Effect.exit(Effect.void))
      assert.strictEqual((yield* findings).pending, 0)
      yield* users
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(database.asked, 1)
      yield* Effect.scoped(auditorOf(context))
    }))

  it("refuses options that mean nothing", () => {
    const refused: ReadonlyArray<readonly [keyof CacheAuditor.CacheAuditorOptions, any]> = [
      ["share", 0],
      ["share", 1.5],
      ["share", NaN],
      ["delay", "0 seconds"],
      ["maxPerSecond", 0],
      ["concurrency", 1.5],
      ["heal", "yes"],
      ["shares" as any, 1]
    ]
    for (const [option, value] of refused) {
      const error = thrownBy(() => CacheAuditor.layer({ [option]: value })) as CacheError.InvalidOptionError
      assert.instanceOf(error, CacheError.InvalidOptionError)
      assert.strictEqual(error.option, option)
    }
  })
})

describe("a real database", () => {
  const options = { share: 1, maxPerSecond: 500, delay: "150 millis", concurrency: 4 } as const
  const cached = QueryCache.cached({ timeToLive: "1 minute" })

  it.live("a write that goes past the client is found, and those that do not are no stale answers", () =>
    Effect.gen(function*() {
      const context = yield* Effect.context<CachedSqlClient.Services | Fixture.Base>()
      const sql = Context.get(context, PgClient.PgClient)
      const { findings } = yield* auditorOf(context, options)
      const random = seeded(7)
      const read = Effect.suspend(() =>
        random() < 0.5
          ? cached(Fixture.nameOf(sql, 1 + Math.floor(random() * 3)))
          : cached(sql`SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id`)
      )
      const write = Effect.suspend(() => {
        const id = 1 + Math.floor(random() * 3)
        return random() < 0.5
          ? sql`UPDATE users SET name = ${String(random())} WHERE id = ${id}`
          : sql.withTransaction(Effect.andThen(sql`UPDATE orders SET total = total + 1 WHERE user_id = ${id}`, read))
      })
      yield* Effect.all([
        Effect.repeat(Effect.andThen(read, Effect.sleep(1)), Schedule.during("2 seconds")),
        Effect.repeat(Effect.andThen(read, Effect.sleep(1)), Schedule.during("2 seconds")),
        Effect.repeat(Effect.andThen(write, Effect.sleep(400)), Schedule.during("2 seconds"))
      ], { concurrency: "unbounded" })
      yield* Effect.sleep("500 millis")
      const { fresh, inconclusive, stale } = yield* findings
      assert.isAbove(fresh, 50)
      assert.isAbove(inconclusive, 0)
      assert.strictEqual(stale, 0)

      const ada = cached(Fixture.nameOf(sql, 1))
      yield* ada
      yield* Context.get(context, Fixture.Base)`UPDATE users SET name = 'Grace' WHERE id = 1`
      yield* ada
      yield* Effect.repeat(findings, { until: ({ stale }) => stale > 0, schedule: Schedule.spaced("20 millis") }).pipe(
        Effect.timeout("5 seconds")
      )
      assert.deepStrictEqual(yield* ada, [{ name: "Grace" }])
    }).pipe(Effect.provide(Fixture.layer()), Effect.scoped, Effect.provide(Postgres.layerServer())))

  it.live("two processes with two levels", () =>
    Effect.gen(function*() {
      const redis = Context.get(yield* Layer.build(RedisServers.layer()), Redis.Redis)
      const store = Layer.fresh(TieredStore.layer({ maxStaleness: "120 millis" })).pipe(
        Layer.provide(Layer.succeed(Redis.Redis, redis))
      )
      const cache = { namespace: "audited", lookupTimeout: "5 seconds", invalidationTimeout: "5 seconds" } as const
      const member = Layer.build(Layer.fresh(Fixture.layer({ cache, store })))
      const [here, there] = [yield* member, yield* member]
      const { findings } = yield* auditorOf(here, options)
      const [sql, others] = [Context.get(here, PgClient.PgClient), Context.get(there, PgClient.PgClient)]
      const read = cached(Fixture.nameOf(sql, 1))
      yield* Effect.all([
        Effect.repeat(Effect.andThen(read, Effect.sleep(1)), Schedule.during("2 seconds")),
        Effect.repeat(
          Effect.andThen(
            Effect.suspend(() => others`UPDATE users SET name = ${String(Math.random())} WHERE id = 1`),
            Effect.sleep(400)
          ),
          Schedule.during("2 seconds")
        )
      ], { concurrency: "unbounded" })
      yield* Effect.sleep("500 millis")
      const { fresh, stale } = yield* findings
      assert.isAbove(fresh, 20)
      assert.strictEqual(stale, 0)
    }).pipe(Effect.scoped, Effect.provide(Postgres.layerServer())))
})
