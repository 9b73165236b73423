// Sessions that write in one process and read in another: two decorated clients, over a store each, over one real Redis.
// What the reading process hears waits at a gate.
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Request from "effect/Request"
import * as RequestResolver from "effect/RequestResolver"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import * as SqlResolver from "effect/sql/SqlResolver"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import {
  CachedQuery,
  CachedResolver,
  type CachedSqlClient,
  CacheScope,
  CacheStore,
  Dependency,
  Invalidator,
  MaterializedView,
  QueryCache,
  RedisStore,
  SessionToken,
  TieredStore
} from "../src/index.ts"
import * as Scripts from "../src/internal/redis/scripts.ts"
import * as Fleet from "./support/fleet.ts"
import * as Gate from "./support/gate.ts"
import * as TestRedis from "./support/redis.ts"

type Process = Effect.Success<ReturnType<typeof processOver>>
type Read = Effect.Effect<number, unknown, SqlClient.SqlClient>

/** Long enough for nothing to be noticed by a beat. */
const calm: TieredStore.TieredStoreOptions = { maxStaleness: "1 minute" }

/** What everybody reads and writes: one number, for whatever is asked. */
const makeDatabase = () => {
  const database = {
    version: 0,
    queries: 0,
    /** What a query waits for after it has read. */
    slow: Effect.void as Effect.Effect<unknown>,
    /** What a write waits for. */
    writing: Effect.void as Effect.Effect<unknown>,
    respond: ({ sql }: CachedSqlClient.TestQuery) =>
      Effect.suspend(() => {
        if (!sql.startsWith("SELECT")) {
          database.version++
          return Effect.as(database.writing, [])
        }
        database.queries++
        const rows = [{ version: database.version }]
        return Effect.as(database.slow, rows)
      })
  }
  return database
}

const processOver = Effect.fnUntraced(function*(
  database: ReturnType<typeof makeDatabase>,
  store: Layer.Layer<CacheStore.CacheStore>,
  options?: CachedSqlClient.CachedSqlClientOptions
) {
  const context = yield* Fleet.member(database.respond, store, {
    lookupTimeout: "5 seconds",
    invalidationTimeout: "5 seconds",
    ...options
  })
  const sql = Context.get(context, SqlClient.SqlClient)
  return {
    sql,
    store: Context.get(context, CacheStore.CacheStore),
    run: <A, E>(effect: Effect.Effect<A, E, CachedSqlClient.Services | SqlClient.SqlClient>) =>
      Effect.provideContext(effect, context)
  }
})

const select: Read = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(
    sql<{ version: number }>`SELECT version FROM orders WHERE id = ${1}`.pipe(QueryCache.cached()),
    ([row]) => row!.version
  ))

const other: Read = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(
    sql<{ version: number }>`SELECT version FROM users`.pipe(QueryCache.cached()),
    ([row]) => row!.version
  ))

const update = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`UPDATE orders SET version = version + 1 WHERE id = ${1}`
)
const elsewhere = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`UPDATE users SET name = ${"Ada"}`)

const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>, is: (value: A) => boolean) =>
  Effect.timeout(Effect.repeat(effect, { until: is, schedule: Schedule.spaced("3 millis") }), "8 seconds")

/** What was read, and how. */
const told = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(
    QueryCache.withInfo(effect),
    ([queries, value]) => [value, ...queries.map(({ level, reason, status }) => level ?? reason ?? status)] as const
  )

/** Reads until the process holds the answer. */
const held = (process: Process, read: Read = select) =>
  eventually(process.run(told(read)), ([, level]) => level === "L1")

/** What a write leaves in the hand of who made it. */
const tokenOf = (process: Process, write: Effect.Effect<unknown, unknown, any> = update) =>
  Effect.flatMap(process.run(SessionToken.run(write)), ([exit, token]) => Effect.as(exit, token))

const reading = <A, E>(
  process: Process,
  token: SessionToken.SessionToken,
  read: Effect.Effect<A, E, CachedSqlClient.Services>
) => Effect.flatMap(process.run(SessionToken.run(told(read), { token })), ([exit]) => exit)

const make = Effect.fnUntraced(function*(
  { cache, layout }: {
    readonly layout?: (redis: Layer.Layer<Redis.Redis>) => Layer.Layer<CacheStore.CacheStore>
    readonly cache?: CachedSqlClient.CachedSqlClientOptions
  } = {}
) {
  const server = yield* TestRedis.makeServer()
  const connect = Effect.map(Layer.build(Layer.fresh(TestRedis.client(server))), Context.get(Redis.Redis))
  const gate = Gate.make(yield* connect)
  const redis = yield* connect
  const { lua } = Scripts.invalidate
  const names = new Set([lua, createHash("sha1").update(lua).digest("hex")])
  /** Whether the writing process' invalidations fail. */
  const link = { isCut: false }
  const cut: Redis.Redis["Service"] = {
    ...redis,
    send: (...command) =>
      link.isCut && names.has(command[1]!)
        ? Effect.fail(new Redis.RedisError({ cause: new Error("cut") }))
        : redis.send<any>(...command)
  }
  const database = makeDatabase()
  const over = layout ?? ((redis) => TieredStore.layer(calm).pipe(Layer.provide(redis)))
  const here = yield* processOver(database, over(Layer.succeed(Redis.Redis, gate.redis)), cache)
  const there = yield* processOver(database, over(Layer.succeed(Redis.Redis, cut)), cache)
  return { server, gate, link, database, here, there, over }
})

describe("a session that reads what it has written in another process", () => {
  it.live("without a token the old answer is served, with it the new one", () =>
    Effect.gen(function*() {
      const { database, gate, here, there } = yield* make()
      yield* held(here)
      gate.holdMessages()
      const token = yield* tokenOf(there)
      assert.deepStrictEqual(yield* here.run(told(select)), [0, "L1"])
      assert.deepStrictEqual(yield* reading(here, token, select), [1, "invalidated"])
      // What it has read is stored for all, and held for those who ask for nothing.
      yield* eventually(reading(here, token, select), ([, level]) => level === "L2")
      assert.deepStrictEqual(yield* here.run(told(select)), [1, "L1"])
      assert.strictEqual(database.queries, 2)
      gate.passMessages()
      yield* eventually(reading(here, token, select), ([, level]) => level === "L1")
      // As without a session, it takes no step of its own.
      const session = Effect.runSync(SessionToken.make({ token }))
      assert.strictEqual(Effect.runSync(here.run(SessionToken.provide(select, session))), 1)
    }))

  it.live("what others have written meanwhile is no hindrance", () =>
    Effect.gen(function*() {
      const { here, there } = yield* make()
      yield* held(here)
      const token = yield* tokenOf(there)
      yield* tokenOf(there, elsewhere)
      yield* eventually(reading(here, token, select), ([, level]) => level === "L1")
    }))

  it.live("by whatever it reads", () =>
    Effect.gen(function*() {
      const { gate, here, there } = yield* make()
      const { users, of } = yield* here.run(Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const lookup = Effect.map(sql<{ version: number }>`SELECT version FROM orders`, ([row]) => row!.version)
        const dependencies = () => [Dependency.table("orders")]
        const users = yield* CachedQuery.make("users", {
          Key: Schema.Int,
          Value: Schema.Int,
          lookup: () => lookup,
          dependencies
        })
        class Ask extends Request.TaggedClass("Ask")<{ readonly id: number }, number> {}
        const resolver = yield* CachedResolver.make(
          RequestResolver.make<Ask>((entries) =>
            Effect.matchCause(lookup, {
              onSuccess: (version) => entries.forEach((entry) => entry.completeUnsafe(Exit.succeed(version))),
              onFailure: (cause) => entries.forEach((entry) => entry.completeUnsafe(Exit.die(cause)))
            })
          ),
          { name: "asked", key: ({ id }) => id, Key: Schema.Int, Value: Schema.Int, dependencies }
        )
        return { users, of: (id: number) => Effect.request(new Ask({ id }), resolver) }
      }))
      const rows = (statement: (sql: SqlClient.SqlClient) => Effect.Effect<ReadonlyArray<any>, unknown>): Read =>
        Effect.flatMap(
          SqlClient.SqlClient,
          (sql) => Effect.map(QueryCache.cached(statement(sql)), ([row]) => row[0] ?? row.version)
        )
      const live: Read = Effect.map(
        Stream.runHead(QueryCache.changes(select)) as any,
        (head: any) => head.value
      )
      const surfaces: { readonly [name: string]: Read } = {
        statement: select,
        values: rows((sql) => sql`SELECT version FROM orders WHERE id = ${2}`.values),
        unprepared: rows((sql) => sql`SELECT version FROM orders WHERE id = ${3}`.unprepared),
        unsafe: rows((sql) => sql.unsafe("SELECT version FROM orders WHERE id = $1", [4])),
        listed: rows((sql) => sql`SELECT version FROM orders WHERE ${sql.in("id", [5, 6])}`),
        get: users.get(1),
        getMany: Effect.map(users.getMany([2, 3]), ([version]) => version!),
        request: of(1),
        requests: Effect.map(Effect.all([of(2), of(3)], { concurrency: "unbounded" }), ([version]) => version),
        live
      }
      const reads = Object.values(surfaces)
      for (const read of reads) yield* held(here, read)
      gate.holdMessages()
      const token = yield* tokenOf(there)
      const names = Object.keys(surfaces)
      const without = yield* Effect.forEach(reads, (read) => here.run(read))
      const within = yield* Effect.forEach(reads, (read) => reading(here, token, read))
      assert.deepStrictEqual(names.filter((_, i) => without[i] !== 0), [], "held, as is allowed")
      assert.deepStrictEqual(names.filter((_, i) => within[i]![0] !== 1), [], "not read anew")
    }))

  it.live("in a process that asks Redis for the clocks, or for nothing for a while", () =>
    Effect.gen(function*() {
      for (const coherence of ["revalidate", "ttl"] as const) {
        const { here, there } = yield* make({
          layout: (redis) =>
            TieredStore.layer({ coherence, ...(coherence === "ttl" ? calm : {}) }).pipe(Layer.provide(redis))
        })
        yield* held(here)
        const token = yield* tokenOf(there)
        if (coherence === "ttl") assert.deepStrictEqual(yield* here.run(told(select)), [0, "L1"])
        assert.deepStrictEqual(yield* reading(here, token, select), [1, "invalidated"])
        // What was asked for after that is held, and new enough.
        yield* eventually(reading(here, token, select), ([, level]) => level === "L1")
      }
    }))
})

describe("what a session does", () => {
  it.live("raises its token, in whatever form it writes", () =>
    Effect.gen(function*() {
      const { there } = yield* make()
      const { sql } = there
      const statement = sql`UPDATE orders SET version = version + 1`
      const users = yield* there.run(CachedQuery.make("users", {
        Key: Schema.Int,
        Value: Schema.Int,
        lookup: () => Effect.succeed(1)
      }))
      const invalidator = yield* there.run(Invalidator.Invalidator)
      const writes: { readonly [name: string]: Effect.Effect<unknown, unknown> } = {
        statement,
        values: statement.values,
        raw: statement.raw,
        unprepared: statement.unprepared,
        stream: Stream.runDrain(statement.stream),
        schema: sql`ALTER TABLE orders ADD COLUMN note text`,
        reserved: Effect.scoped(Effect.flatMap(sql.reserve, (connection) =>
          connection.executeUnprepared("UPDATE orders SET version = 7", [], undefined))),
        update: users.update(1, statement),
        invalidate: users.invalidate(1),
        invalidator: invalidator.invalidate({ tags: ["some"] }),
        invalidating: there.run(Effect.void.pipe(Invalidator.invalidating({ tags: ["some"] })))
      }
      let last = SessionToken.empty
      for (const [name, write] of Object.entries(writes)) {
        const token = yield* tokenOf(there, write)
        assert.match(SessionToken.encode(token), /^1~[\w-]{8}\.\w+-\w+-\w+$/, name)
        // Later than the one before.
        assert.isFalse(Equal.equals(token, last), name)
        assert.isTrue(Equal.equals(SessionToken.merge(last, token), token), name)
        last = token
      }
      assert.strictEqual(yield* tokenOf(there, select), SessionToken.empty)
    }))

  it.live("leaves a view as it is, and refreshes it by what was written", () =>
    Effect.gen(function*() {
      const { here, there } = yield* make()
      yield* here.run(Effect.scoped(Effect.gen(function*() {
        const view = yield* MaterializedView.make("version", { query: select })
        assert.strictEqual(yield* view.get, 0)
        const session = yield* SessionToken.make({ token: yield* tokenOf(there) })
        assert.strictEqual(yield* SessionToken.provide(view.get, session), 0)
        assert.strictEqual(yield* SessionToken.provide(view.refresh, session), 1)
        assert.strictEqual(yield* view.get, 1)
      })))
    }))
})

describe("flights", () => {
  it.live("one from before the write is not joined, one from after it is", () =>
    Effect.gen(function*() {
      const { database, gate, here, there } = yield* make()
      yield* held(here, other)
      gate.holdMessages()
      const answered = yield* Deferred.make<void>()
      database.queries = 0
      database.slow = Deferred.await(answered)
      const before = yield* Effect.forkScoped(here.run(told(select)))
      yield* eventually(Effect.sync(() => database.queries), (queries) => queries === 1)
      const token = yield* tokenOf(there)
      const own = yield* Effect.forkScoped(reading(here, token, select))
      yield* eventually(Effect.sync(() => database.queries), (queries) => queries === 2)
      const joining = yield* Effect.forkScoped(reading(here, token, select))
      yield* Effect.sleep(20)
      yield* Deferred.succeed(answered, undefined)
      assert.deepStrictEqual(yield* Fiber.join(before), [0, "absent"])
      assert.deepStrictEqual(yield* Fiber.join(own), [1, "absent"])
      assert.deepStrictEqual(yield* Fiber.join(joining), [1, "absent"])
      assert.strictEqual(database.queries, 2)
    }))

  it.live("one that is asking the store still is not joined either", () =>
    Effect.gen(function*() {
      const { database, gate, here, there } = yield* make()
      yield* there.run(select)
      yield* held(here, other)
      database.queries = 0
      gate.holdMessages()
      const reply = gate.holdCommand("reply", Scripts.lookup.flat.lua)
      const before = yield* Effect.forkScoped(here.run(told(select)))
      yield* eventually(Effect.sync(reply.isHeld), (is) => is)
      const token = yield* tokenOf(there)
      assert.deepStrictEqual(yield* reading(here, token, select), [1, "invalidated"])
      reply.release()
      assert.deepStrictEqual(yield* Fiber.join(before), [0, "L2"])
      assert.strictEqual(database.queries, 1)
    }))

  it.live("another process is waited for that began after the write, and not one from before", () =>
    Effect.gen(function*() {
      const { database, here, there } = yield* make()
      const answered = yield* Deferred.make<void>()
      database.slow = Deferred.await(answered)
      const before = yield* Effect.forkScoped(there.run(told(select)))
      yield* eventually(Effect.sync(() => database.queries), (queries) => queries === 1)
      const token = yield* tokenOf(there)
      const after = yield* Effect.forkScoped(there.run(told(select)))
      yield* eventually(Effect.sync(() => database.queries), (queries) => queries === 2)
      const waiting = yield* Effect.forkScoped(reading(here, token, select))
      yield* Effect.sleep(20)
      yield* Deferred.succeed(answered, undefined)
      assert.deepStrictEqual(yield* Fiber.join(before), [0, "absent"])
      assert.deepStrictEqual((yield* Fiber.join(after))[0], 1)
      assert.deepStrictEqual(yield* Fiber.join(waiting), [1, "L2"])
      assert.strictEqual(database.queries, 2)
    }))
})

const shared = (redis: Layer.Layer<Redis.Redis>) => RedisStore.layer().pipe(Layer.provide(redis))

const everything = Effect.flatMap(Invalidator.Invalidator, (invalidator) => invalidator.invalidate({ all: true }))

/** What brings the data of now back, in place. */
const saved = Effect.fnUntraced(function*(server: TestRedis.Server) {
  const keys: ReadonlyArray<string> = yield* server.command("KEYS", "eqc:*")
  yield* Effect.forEach(keys, (key) => server.command("COPY", key, `saved:${key}`))
  return Effect.forEach(keys, (key) => server.command("COPY", `saved:${key}`, key, "REPLACE"))
})

const flush = (server: TestRedis.Server) => server.command("FLUSHALL")

describe("what happens to Redis between the write and the read", () => {
  it.live("it is flushed, or restarts without its data: a newer epoch holds nothing from before", () =>
    Effect.gen(function*() {
      const faults = [
        flush,
        (server: TestRedis.Server) => Effect.andThen(server.stop, server.start)
      ]
      for (const fault of faults) {
        const { database, gate, here, server, there } = yield* make()
        yield* held(here)
        gate.holdMessages()
        const token = yield* tokenOf(there)
        yield* fault(server)
        // The old one is served while the process hears nothing.
        if (fault === flush) assert.deepStrictEqual(yield* here.run(told(select)), [0, "L1"])
        assert.deepStrictEqual((yield* reading(here, token, select))[0], 1)
        // By Redis, and not around it.
        yield* eventually(reading(here, token, select), ([, level]) => level === "L2")
        const queries = database.queries
        assert.deepStrictEqual(yield* reading(here, token, select), [1, "L2"])
        assert.strictEqual(database.queries, queries)
      }
    }))

  it.live("it went back, and nobody there knows: the database answers, and nothing is stored", () =>
    Effect.gen(function*() {
      for (const between of [update, everything]) {
        const { database, over, server, there } = yield* make({ layout: shared })
        const redis = Effect.map(Layer.build(Layer.fresh(TestRedis.client(server))), Context.get(Redis.Redis))
        yield* eventually(there.run(told(select)), ([, level]) => level === "L2")
        const goBack = yield* saved(server)
        yield* there.run(between)
        const token = yield* tokenOf(there)
        yield* goBack
        const stranger = yield* processOver(database, over(Layer.succeed(Redis.Redis, yield* redis)))
        assert.deepStrictEqual(yield* stranger.run(told(select)), [0, "L2"])
        for (let i = 0; i < 2; i++) {
          assert.deepStrictEqual(yield* reading(stranger, token, select), [database.version, "session"])
          assert.deepStrictEqual(yield* stranger.run(told(select)), [0, "L2"])
        }
      }
    }))
})

describe("a write whose invalidation has not arrived", () => {
  it.live("hands out a token that bypasses, and heals where it was made", () =>
    Effect.gen(function*() {
      const { here, link, there } = yield* make()
      yield* held(here)
      yield* held(there)
      link.isCut = true
      const token = yield* tokenOf(there)
      assert.deepStrictEqual(yield* here.run(told(select)), [0, "L1"])
      assert.deepStrictEqual(yield* reading(here, token, select), [1, "session"])
      // Of whatever it may be: nobody there knows what it touched.
      assert.deepStrictEqual((yield* reading(here, token, other))[1], "session")
      // Here it is known.
      assert.deepStrictEqual(yield* reading(there, token, select), [1, "unserved"])
      const [, kept] = yield* there.run(SessionToken.run(other, { token }))
      assert.include(SessionToken.encode(kept), "B")
      assert.notStrictEqual((yield* reading(there, token, other))[1], "session")
      // Another write's clock does not end it.
      const [, more] = yield* there.run(SessionToken.run(elsewhere, { token }))
      assert.deepStrictEqual(yield* reading(here, more, select), [2, "session"])
      link.isCut = false
      const healed = yield* eventually(
        there.run(SessionToken.run(select, { token })).pipe(Effect.map(([, token]) => SessionToken.encode(token))),
        (text) => !text.includes("B")
      )
      const [version, reason] = yield* reading(here, SessionToken.fromString(healed), select)
      assert.strictEqual(version, 2)
      assert.notStrictEqual(reason, "session")
    }))

  it.live("so does one that is interrupted, or fails, after it has written", () =>
    Effect.gen(function*() {
      const { database, here, there } = yield* make()
      yield* held(here)
      const session = yield* SessionToken.make()
      const failed = yield* Effect.exit(there.run(SessionToken.provide(
        Effect.andThen(update, Effect.fail("afterwards")),
        session
      )))
      assert.deepStrictEqual(failed, Exit.fail("afterwards"))
      assert.deepStrictEqual((yield* reading(here, session.token, select))[0], 1)

      // Nobody can tell what became of it.
      const begun = yield* Deferred.make<void>()
      database.writing = Effect.andThen(Deferred.succeed(begun, undefined), Effect.never)
      const interrupted = yield* SessionToken.make()
      const writing = yield* Effect.forkScoped(there.run(SessionToken.provide(update, interrupted)))
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(writing)
      yield* held(here)
      assert.deepStrictEqual((yield* reading(here, interrupted.token, select))[1], "session")
    }))
})

describe("a token that somebody has made up", () => {
  it.live("costs its bearer hits, and nobody else anything", () =>
    Effect.gen(function*() {
      const { database, here, server, there } = yield* make()
      const token = SessionToken.encode(yield* tokenOf(there, elsewhere))
      yield* held(here)
      yield* eventually(there.run(told(select)), ([, level]) => level === "L1")
      const [, key, order, hash] = /^1~([^.]{8})\.(\w+)-(\w+)-\w+$/.exec(token)!
      const later = (Number.parseInt(order!, 36) + 1e15).toString(36)
      const forged = [
        `1~${key}.${order}-${hash}-1zzzzzzzzz`,
        `1~${key}.${order}-zzzzz-0`,
        `1~${key}.${later}-1-0`,
        `1~${key}.-1-0`,
        `1~${key}.B1zzzzzzzzz-`,
        `1~${key}.B0-aaaaaaaa`,
        "1~-.B0-"
      ]
      const state = Effect.all([
        server.command("HGETALL", "eqc:{fleet:0}:meta"),
        server.command("ZRANGE", "eqc:{fleet:0}:stamps", "0", "-1", "WITHSCORES"),
        server.command("DBSIZE"),
        here.run(told(select)),
        there.run(told(select)),
        Effect.sync(() => [here.store.seen("fleet"), here.store.applied("fleet")])
      ])
      const before = yield* state
      for (const text of forged) {
        const token = SessionToken.fromString(text)
        assert.strictEqual(SessionToken.encode(token), text)
        const queries = database.queries
        assert.deepStrictEqual(yield* reading(here, token, select), [1, "session"], text)
        assert.deepStrictEqual(yield* reading(here, token, select), [1, "session"], text)
        assert.strictEqual(database.queries, queries + 2)
        assert.deepStrictEqual(yield* state, before, text)
      }
      // Those who end come to an end, whatever they say.
      for (const text of forged.slice(-3)) {
        const [, after] = yield* here.run(SessionToken.run(select, { token: SessionToken.fromString(text) }))
        const until = Number.parseInt(/B(\w+)-/.exec(SessionToken.encode(after))![1]!, 36)
        assert.approximately(until, Date.now() + 10 * 60_000, 60_000)
      }
    }))

  it.live("what it has read anew is stored for all, as any answer is", () =>
    Effect.gen(function*() {
      const { here, there } = yield* make()
      const token = SessionToken.encode(yield* tokenOf(there, elsewhere))
      const forged = SessionToken.fromString(token.replace(/-\w+$/, "-1zzzzzzzzz"))
      assert.deepStrictEqual(yield* reading(here, forged, select), [1, "absent"])
      yield* eventually(there.run(told(select)), ([, level]) => level === "L2")
      // Its own next question is answered by the database again.
      assert.deepStrictEqual(yield* reading(here, forged, select), [1, "session"])
    }))
})

describe("several sessions", () => {
  it.live("their requests are not answered by each other's queries", () =>
    Effect.gen(function*() {
      const { gate, here, there } = yield* make()
      const request = yield* here.run(Effect.map(SqlClient.SqlClient, (sql) => {
        const resolver = SqlResolver.findById({
          Id: Schema.Int,
          Result: Schema.Struct({ version: Schema.Int }),
          ResultId: () => 1,
          execute: (_) => sql`SELECT version FROM orders WHERE id = ${1}`.pipe(QueryCache.cached())
        })
        return Effect.map(SqlResolver.request(1, resolver), ({ version }) => version)
      }))
      const everybody: typeof scoped = (effect) => effect
      const scoped = CacheScope.provide({ tenant: "acme", apply: false })
      for (const [old, scope] of [everybody, scoped].entries()) {
        yield* held(here, scope(select))
        gate.holdMessages()
        const session = yield* SessionToken.make({ token: yield* tokenOf(there) })
        const asked = [
          scope(request),
          SessionToken.provide(scope(request), session),
          scope(SessionToken.provide(request, session))
        ]
        const answers = yield* here.run(Effect.all(asked, { concurrency: "unbounded" }))
        assert.deepStrictEqual(answers, [old, old + 1, old + 1])
        gate.passMessages()
      }
    }))

  it.live("nor are those of a cached resolver", () =>
    Effect.gen(function*() {
      const { database, gate, here, there } = yield* make()
      class Ask extends Request.TaggedClass("Ask")<{ readonly id: number }, number> {}
      const of = yield* here.run(Effect.gen(function*() {
        const resolver = yield* CachedResolver.make(
          RequestResolver.make<Ask>((entries) =>
            Effect.sync(() => entries.forEach((entry) => entry.completeUnsafe(Exit.succeed(database.version))))
          ),
          {
            name: "asked",
            key: ({ id }) => id,
            Key: Schema.Int,
            Value: Schema.Int,
            dependencies: () => [Dependency.table("orders")]
          }
        )
        return (id: number) => Effect.request(new Ask({ id }), resolver)
      }))
      yield* held(there, other)
      for (const id of [1, 2]) yield* eventually(here.run(told(of(id))), ([, level]) => level === "L1")
      gate.holdMessages()
      const session = yield* SessionToken.make({ token: yield* tokenOf(there) })
      // One that is not held, so that a batch is made.
      yield* eventually(here.run(told(of(1))), ([, level]) => level === "L1")
      const answers = yield* here.run(Effect.all(
        [of(1), of(3), SessionToken.provide(of(1), session), SessionToken.provide(of(2), session)],
        { concurrency: "unbounded" }
      ))
      assert.deepStrictEqual(answers, [0, 1, 1, 1])
    }))
})

describe("transactions", () => {
  it.live("raise the token when they have committed, and not after a rollback", () =>
    Effect.gen(function*() {
      const { gate, here, there } = yield* make()
      yield* held(here)
      gate.holdMessages()
      const inTransaction = Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(update))
      const token = yield* tokenOf(there, inTransaction)
      assert.deepStrictEqual(yield* here.run(told(select)), [0, "L1"])
      assert.deepStrictEqual((yield* reading(here, token, select))[0], 1)
      const [exit, rolledBack] = yield* there.run(SessionToken.run(Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql.withTransaction(Effect.andThen(update, Effect.fail("rolled back")))
      )))
      assert.deepStrictEqual(exit, Exit.fail("rolled back"))
      assert.strictEqual(rolledBack, SessionToken.empty)
    }))

  it.live("a session that begins inside bypasses: it has ended before the commit", () =>
    Effect.gen(function*() {
      const { here, there } = yield* make()
      yield* held(here)
      const token = yield* there.run(Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql.withTransaction(Effect.map(SessionToken.run(update), ([, token]) => token))
      ))
      assert.deepStrictEqual(yield* reading(here, token, select), [1, "session"])
    }))
})

describe("monotonic reads", () => {
  it.live("what answers does not lag behind what answered before, in another process or in this one", () =>
    Effect.gen(function*() {
      for (const monotonicReads of [false, true]) {
        const { gate, here, there } = yield* make()
        yield* held(here)
        gate.holdMessages()
        // Somebody's.
        yield* there.run(update)
        const [exit, token] = yield* there.run(SessionToken.run(select, { monotonicReads }))
        assert.deepStrictEqual(exit, Exit.succeed(1))
        assert.strictEqual(token === SessionToken.empty, !monotonicReads)
        assert.deepStrictEqual((yield* reading(here, token, select))[0], monotonicReads ? 1 : 0)
      }
      // One that was answered by what a process holds is not answered by one that holds less.
      const { gate, here, there } = yield* make()
      yield* held(here)
      gate.holdMessages()
      yield* there.run(update)
      yield* held(there)
      const [, token] = yield* there.run(SessionToken.run(select, { monotonicReads: true }))
      assert.deepStrictEqual((yield* reading(here, token, select))[0], 1)
    }))
})

describe("what is stale", () => {
  it.live("is not served to a session that has changed it", () =>
    Effect.gen(function*() {
      const { database, gate, here, there } = yield* make()
      const policy = { timeToLive: 50, staleWhileRevalidate: "1 hour", staleIfError: "1 hour" } as const
      const patient: Read = Effect.flatMap(SqlClient.SqlClient, (sql) =>
        Effect.map(
          sql<{ version: number }>`SELECT version FROM orders`.pipe(QueryCache.cached(policy)),
          ([row]) => row!.version
        ))
      yield* held(here, other)
      yield* here.run(patient)
      yield* eventually(here.run(told(patient)), ([, level]) => level === "L1" || level === "L2")
      gate.holdMessages()
      const token = yield* tokenOf(there)
      yield* Effect.sleep(60)
      assert.deepStrictEqual((yield* here.run(told(patient)))[0], 0)
      assert.deepStrictEqual((yield* reading(here, token, patient))[0], 1)
      assert.strictEqual(database.version, 1)
    }))
})

describe("a store that is not shared", () => {
  it.live("each process sees its own writes, and another one's by the database", () =>
    Effect.gen(function*() {
      const database = makeDatabase()
      const here = yield* processOver(database, CacheStore.layerMemory())
      const there = yield* processOver(database, CacheStore.layerMemory())
      yield* held(here)
      yield* held(there)
      const token = yield* tokenOf(there)
      assert.deepStrictEqual(yield* here.run(told(select)), [0, "L1"])
      assert.deepStrictEqual(yield* reading(here, token, select), [1, "session"])
      assert.deepStrictEqual(yield* reading(there, token, select), [1, "invalidated"])
      assert.deepStrictEqual(yield* reading(there, token, select), [1, "L1"])
      // Of both.
      const [, both] = yield* here.run(SessionToken.run(update, { token }))
      for (const process of [here, there]) {
        assert.deepStrictEqual(yield* reading(process, both, select), [2, "session"])
      }
      // After that, time to live has.
      const short = { token: both, bypassFor: 20 }
      const session = yield* SessionToken.make(short)
      assert.deepStrictEqual((yield* here.run(SessionToken.provide(told(select), session)))[1], "session")
      yield* Effect.sleep(25)
      assert.notStrictEqual((yield* here.run(SessionToken.provide(told(select), session)))[1], "session")
      assert.strictEqual(session.token, SessionToken.empty)
    }))
})
