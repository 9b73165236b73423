/**
 * A fault of the cache never fails a query nor a write, never makes an answer wrong, is counted and told once, and
 * passes by itself.
 */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it, layer } from "@effect/vitest"
import {
  CachedSqlClient,
  CacheStore,
  Fingerprinter,
  Invalidator,
  QueryAnalyzer,
  QueryCache,
  RedisStore
} from "effect-query-cache"
import * as UpstashRedis from "effect-query-cache/UpstashRedis"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type * as Redis from "effect/persistence/Redis"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import * as TestClock from "effect/testing/TestClock"
import { CacheError, StoreUnavailable } from "../../src/CacheError.ts"
import * as FlakyStore from "../support/flakyStore.ts"
import * as Logs from "../support/logs.ts"
import * as ModelDatabase from "../support/modelDatabase.ts"
import * as Pglite from "../support/pglite.ts"
import * as RedisServers from "../support/redis.ts"
import * as RedisDoor from "../support/redisDoor.ts"
import * as Upstash from "../support/upstash.ts"
import { fateOf } from "./fixture.ts"

// -----------------------------------------------------------------------------
// by the TestClock, before a store that fails on command
// -----------------------------------------------------------------------------

const secret = "secret-4711"

const fails = (operation: FlakyStore.Operation): FlakyStore.Fault => () =>
  Effect.fail(
    new CacheError({
      operation,
      reason: new StoreUnavailable({ message: `the row was ${secret}`, cause: new Error(secret) })
    })
  )

/** What a store can do wrong, with the milliseconds of a time-out that it costs. */
const failures: ReadonlyArray<
  readonly [name: string, fault: FlakyStore.Fault | undefined, waits: boolean, reason: string]
> = [
  ["fails", undefined, false, "StoreUnavailable"],
  ["hangs", () => Effect.never, true, "StoreTimeout"],
  ["hangs uninterruptibly", () => Effect.uninterruptible(Effect.never), true, "StoreTimeout"],
  ["does it and loses the reply", (proceed) => Effect.andThen(proceed, Effect.never), true, "StoreTimeout"],
  ["dies", () => Effect.die(new Error(secret)), false, "InvalidReply"],
  ["interrupts itself", () => Effect.interrupt, false, "InvalidReply"],
  [
    "throws",
    () => {
      throw new Error(secret)
    },
    false,
    "InvalidReply"
  ]
]

/** A cached client of a database in memory, over a real store that fails when it is told to. */
const scripted = Effect.gen(function*() {
  const asked: Array<string> = []
  const model = yield* ModelDatabase.make({
    wait: () => Effect.void,
    lostCommit: () => undefined,
    straggles: () => false,
    later: Effect.never
  })
  const flaky = FlakyStore.make(Context.get(yield* Layer.build(CacheStore.layerMemory()), CacheStore.CacheStore))
  // Nobody advances the clock once a test has ended.
  const mend = () => {
    for (const operation of ["lookup", "store", "invalidate"] as const) flaky.set(operation, undefined)
  }
  const services = yield* Layer.build(
    CachedSqlClient.layer({ namespace: "faults", policy: { timeToLive: "1 day" }, catalogInterval: false }).pipe(
      Layer.provide([ModelDatabase.layerClient(model), Layer.succeed(CacheStore.CacheStore, flaky.store)])
    )
  )
  yield* Effect.addFinalizer(() => Effect.sync(mend))
  const sql = Context.get(services, SqlClient.SqlClient)
  return {
    ...flaky,
    mend,
    asked,
    model,
    sql,
    invalidate: Context.get(services, Invalidator.Invalidator).invalidate,
    stats: Context.get(services, QueryCache.QueryCache).stats,
    /** The version of a table, and what became of the read. */
    read: (table: string) =>
      Effect.map(
        fateOf(
          sql.unsafe<Record<string, number>>(`SELECT * FROM ${table} WHERE $1 <> ''`, [secret]).pipe(
            QueryCache.cached()
          )
        ),
        ([fate, [row]]) => [fate, row[table]] as const
      ),
    write: (table: string, version: number) => sql.unsafe(`UPDATE ${table} SET version = $1`, [version])
  }
}).pipe(Effect.provide(Reactivity.layer))

/** Runs with the clock going on by itself; tells how long it took by it. */
const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const start = yield* Clock.currentTimeMillis
    const fiber = yield* Effect.forkChild(
      Effect.flatMap(effect, (value) => Effect.map(Clock.currentTimeMillis, (now) => [value, now - start] as const))
    )
    while (fiber.pollUnsafe() === undefined) {
      yield* Effect.repeat(Effect.yieldNow, { times: 10 })
      if (fiber.pollUnsafe() === undefined) yield* TestClock.adjust(1)
    }
    return yield* Fiber.join(fiber)
  })

const counter = (metric: string, labels: Record<string, string>) =>
  Effect.map(Metric.snapshot, (snapshots) => {
    let sum = 0
    for (const { attributes, id, state } of snapshots) {
      const matches = Object.entries(labels).every(([name, value]) => attributes?.[name] === value)
      if (id === metric && matches) sum += Number((state as { readonly count: number | bigint }).count)
    }
    return sum
  })

const told = (operation: string, reason: string) =>
  `The cache store fails (${operation}: ${reason}); the database answers until it works again`

const worksAgain = (operation: string) => `The cache store works again (${operation})`

/** Everything that was logged, without what must not be in it. */
const messages = Effect.gen(function*() {
  const logs = yield* Logs.Logs
  assert.notInclude(yield* logs.everything, "secret")
  return yield* logs.messages
})

describe("a store that fails on command", () => {
  describe.each(failures)("%s", (_, fault, waits, reason) => {
    it.effect("at lookup: the database answers, at most lookupTimeout later", () =>
      Effect.gen(function*() {
        const { mend, read, set, stats } = yield* scripted
        yield* read("a")
        const counted = yield* counter("query_cache_store_errors_total", { operation: "lookup", reason })
        set("lookup", fault ?? fails("lookup"))
        for (let i = 0; i < 3; i++) {
          const [answer, millis] = yield* timed(read("b"))
          assert.deepStrictEqual(answer, ["miss", 0])
          assert.strictEqual(millis, waits ? 50 : 0)
        }
        assert.include(yield* stats, { storeErrors: 3, fills: 1 })
        assert.strictEqual(
          yield* counter("query_cache_store_errors_total", { operation: "lookup", reason }),
          counted + 3
        )
        mend()
        assert.deepStrictEqual([yield* read("b"), yield* read("b")], [["miss", 0], ["hit", 0]])
        assert.deepStrictEqual(yield* messages, [told("lookup", reason), worksAgain("lookup")])
      }).pipe(Effect.provide(Logs.layer)))

    it.effect("at store: nobody waits for it", () =>
      Effect.gen(function*() {
        const { mend, read, set, stats } = yield* scripted
        set("store", fault ?? fails("store"))
        let again = 0
        for (const table of ["a", "b", "c"]) {
          const [answer, millis] = yield* timed(read(table))
          assert.deepStrictEqual([answer, millis], [["miss", 0], 0])
          if (waits && table === "a") {
            // Who comes after it waits until it has been judged or given up, and asks the store.
            const [[fate], millis] = yield* timed(read(table))
            if (fate === "miss") again++
            else assert.strictEqual(fate, "hit")
            assert.isAtMost(millis, 50)
          }
          yield* TestClock.adjust(50)
        }
        assert.include(yield* stats, { storeErrors: 3 + again, refusedFills: 3 + again, fills: 0 })
        mend()
        // It may have been stored all the same.
        yield* read("a")
        assert.deepStrictEqual(yield* read("a"), ["hit", 0])
        yield* read("d")
        assert.deepStrictEqual(yield* messages, [told("store", reason), worksAgain("store")])
      }).pipe(Effect.provide(Logs.layer)))

    it.effect("at invalidate: the write succeeds, and until it is delivered nothing old is served", () =>
      Effect.gen(function*() {
        const { invalidate, mend, read, set, sql, stats, write } = yield* scripted
        for (const table of ["a", "b", "c", "d"]) yield* read(table)
        assert.deepStrictEqual(yield* read("a"), ["hit", 0])
        const unserved = yield* counter("query_cache_bypasses_total", { reason: "unserved" })
        set("invalidate", fault ?? fails("invalidate"))

        const [, first] = yield* timed(write("a", 1))
        const [, second] = yield* timed(sql.withTransaction(write("b", 1)))
        const [, third] = yield* timed(invalidate({ tables: ["c"] }))
        for (const millis of [first, second, third]) assert.strictEqual(millis, waits ? 250 : 0)

        for (let i = 0; i < 2; i++) {
          assert.deepStrictEqual(yield* read("a"), ["bypass unserved", 1])
          assert.deepStrictEqual(yield* read("b"), ["bypass unserved", 1])
          assert.deepStrictEqual(yield* read("c"), ["bypass unserved", 0])
          // What does not depend on them is served as before.
          assert.deepStrictEqual(yield* read("d"), ["hit", 0])
        }
        assert.include(yield* stats, { invalidations: 3, undelivered: 3, bypasses: 6, fills: 4 })
        assert.strictEqual(yield* counter("query_cache_bypasses_total", { reason: "unserved" }), unserved + 6)

        mend()
        yield* TestClock.adjust("6 seconds")
        assert.include(yield* stats, { undelivered: 0 })
        for (const [table, version] of [["a", 1], ["b", 1], ["c", 0]] as const) {
          assert.deepStrictEqual([yield* read(table), yield* read(table)], [["miss", version], ["hit", version]])
        }
        assert.deepStrictEqual(yield* read("d"), ["hit", 0])
        assert.deepStrictEqual(yield* messages, [told("invalidate", reason), worksAgain("invalidate")])
      }).pipe(Effect.provide(Logs.layer)))
  })

  it.effect("one that is away for long costs five time-outs, then one in a second, and writes none", () =>
    Effect.gen(function*() {
      const { invalidations, mend, read, set, write } = yield* scripted
      yield* read("a")
      let lookups = 0
      set("lookup", () => Effect.andThen(Effect.sync(() => lookups++), Effect.never))
      set("invalidate", () => Effect.never)
      for (let i = 0; i < 50; i++) {
        const [answer, millis] = yield* timed(read(["b", "c", "d"][i % 3]!))
        assert.deepStrictEqual([answer, millis], [["miss", 0], i < 5 ? 50 : 0])
      }
      assert.strictEqual(lookups, 5)
      yield* TestClock.adjust("1 second")
      const [, probe] = yield* timed(read("b"))
      const [, next] = yield* timed(read("b"))
      assert.deepStrictEqual([probe, next, lookups], [50, 0, 6])

      // A write waits as long as it takes to see that the store is away; redelivery sees whether it still is.
      const waits: Array<number> = []
      for (let i = 0; i < 20; i++) waits.push((yield* timed(write("a", i)))[1])
      assert.isAtMost(waits.filter((millis) => millis > 0).length, 5)
      assert.deepStrictEqual(waits.slice(-10), Array.from({ length: 10 }, () => 0))
      assert.deepStrictEqual(yield* read("a"), ["bypass unserved", 19])
      const sent = invalidations.length
      yield* TestClock.adjust("1 minute")
      assert.isAtLeast(invalidations.length - sent, 10)

      mend()
      yield* TestClock.adjust("6 seconds")
      assert.deepStrictEqual([yield* read("a"), yield* read("a")], [["miss", 19], ["hit", 19]])
      assert.deepStrictEqual(yield* messages, [
        told("lookup", "StoreTimeout"),
        told("invalidate", "StoreTimeout"),
        worksAgain("invalidate"),
        worksAgain("lookup")
      ])
    }).pipe(Effect.provide(Logs.layer)))

  it.effect("a caller who leaves while the store hangs leaves at once, and is no failure of the store", () =>
    Effect.gen(function*() {
      const { read, set, stats } = yield* scripted
      for (const fault of [() => Effect.never, () => Effect.uninterruptible(Effect.never)]) {
        set("lookup", fault)
        const [, millis] = yield* timed(Effect.timeoutOption(read("a"), 10))
        assert.strictEqual(millis, 10)
      }
      yield* TestClock.adjust("1 minute")
      assert.include(yield* stats, { storeErrors: 0, misses: 0 })
    }))

  it.effect("who invalidates by name and leaves has invalidated all the same", () =>
    Effect.gen(function*() {
      const { invalidate, mend, read, set } = yield* scripted
      yield* Effect.all([read("a"), read("b")])
      set("invalidate", (proceed) => Effect.andThen(Effect.sleep(20), proceed))
      yield* timed(Effect.timeoutOption(invalidate({ tables: ["a"] }), 10))
      assert.deepStrictEqual(yield* read("a"), ["miss", 0])
      set("invalidate", () => Effect.never)
      yield* timed(Effect.timeoutOption(invalidate({ tables: ["b"] }), 10))
      assert.deepStrictEqual(yield* read("b"), ["bypass unserved", 0])
      mend()
    }))

  it.effect("closing the layer ends what is under way, and delivers what waits", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { invalidations, mend, read, set, write } = yield* Scope.provide(scripted, scope)
      set("invalidate", fails("invalidate"))
      yield* write("a", 1)
      let ended = 0
      const hangs: FlakyStore.Fault = () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => ended++))
      set("store", hangs)
      yield* read("b")
      set("lookup", hangs)
      const reading = yield* Effect.forkChild(read("c"), { startImmediately: true })
      yield* Effect.yieldNow
      mend()
      const before = invalidations.length
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(ended, 2)
      assert.isDefined(reading.pollUnsafe())
      assert.strictEqual(invalidations.length, before + 1)
    }))

  it.effect("an answer that is not rows is read again", () =>
    Effect.gen(function*() {
      const { read, set, store } = yield* scripted
      yield* read("a")
      set("lookup", (proceed) =>
        Effect.map(proceed, (outcome: any) =>
          outcome._tag === "Hit" ? { ...outcome, value: [{ a: 99 }] } : outcome))
      // Past level 1, which has it in its own form.
      const nothing = () =>
        undefined
      Object.assign(store, { peek: nothing })
      assert.deepStrictEqual(yield* read("a"), ["miss", 0])
    }))
})

// -----------------------------------------------------------------------------
// real stores
// -----------------------------------------------------------------------------

/** What stands for a process: a cached client, with its own connections to the store and its own log. */
const makeProcess = Effect.fnUntraced(function*<E>(
  redis: Layer.Layer<Redis.Redis, E>,
  namespace: string,
  // A machine that is busy with other tests is no fault of the store's.
  timeout: Duration.Input = "2 seconds"
) {
  const services = yield* Layer.build(
    CachedSqlClient.layerNoDeps({
      namespace,
      policy: { timeToLive: "1 hour" },
      lookupTimeout: timeout,
      invalidationTimeout: timeout
    }).pipe(
      Layer.provide(RedisStore.layer().pipe(Layer.provide(redis))),
      Layer.provideMerge(Logs.layer)
    )
  )
  const sql = Context.get(services, SqlClient.SqlClient)
  const here = Effect.provideContext(services)
  const { stats } = Context.get(services, QueryCache.QueryCache)
  const read = (id: number) =>
    fateOf(
      sql<{ name: string }>`SELECT name FROM users WHERE id = ${id} AND name <> ${secret}`.pipe(QueryCache.cached())
    ).pipe(Effect.map(([fate, [row]]) => [fate, row.name] as const), here)
  return {
    read,
    stats,
    rename: (id: number, name: string) => here(sql`UPDATE users SET name = ${name} WHERE id = ${id}`),
    renameInTransaction: (id: number, name: string) =>
      here(sql.withTransaction(sql`UPDATE users SET name = ${name} WHERE id = ${id}`)),
    /** Reads until it is a hit, by which the cache is back. */
    hit: (id: number) => Effect.repeat(read(id), { until: ([fate]) => fate === "hit", schedule: Schedule.spaced(20) }),
    delivered: Effect.repeat(stats, { until: (stats) => stats.undelivered === 0, schedule: Schedule.spaced(10) }),
    /** What the cache said of its store: each time something else about an operation, and in the end that it works. */
    said: Effect.map(messages, (messages) => {
      const said = messages.filter((message) => message.startsWith("The cache store"))
      for (const operation of ["lookup", "store", "invalidate"]) {
        const about = said.filter((message) => message.includes(`(${operation}`))
        about.forEach((message, i) => assert.notStrictEqual(message, about[i - 1]))
        if (about.length > 0) assert.strictEqual(about.at(-1), worksAgain(operation))
      }
      // When a subscription is found to be lost, and heard again, is up to its connection.
      const [subscribe, others] = [true, false].map((is) =>
        said.filter((message) => message.includes("(subscribe") === is)
      )
      subscribe!.forEach((message, i) => assert.include(message, i % 2 === 0 ? "fails" : "works again"))
      return others!
    }).pipe(here)
  }
})

type Process = Effect.Success<ReturnType<typeof makeProcess>>

/** A fault from its beginning to its end, before two processes on one store. */
interface Fault {
  readonly begin: Effect.Effect<unknown, never, Scope.Scope>
  readonly end: Effect.Effect<unknown, never, Scope.Scope>
  /** What it may be told as. */
  readonly reasons: ReadonlyArray<string>
  /** Whether what was cached is still served. */
  readonly serves?: boolean
  /** Whether invalidations still arrive. */
  readonly delivers?: boolean
}

const endure = Effect.fnUntraced(function*(
  one: Process,
  another: Process,
  { begin, delivers = false, end, reasons, serves = false }: Fault
) {
  // Every script is known from here on: what SCRIPT LOAD answers is kept by `Redis` for good, were it garbage.
  yield* one.rename(2, "secret Grace")
  yield* one.hit(1)
  yield* another.hit(1)
  const before = yield* one.stats

  yield* begin
  for (let i = 0; i < 2; i++) {
    assert.deepStrictEqual(yield* one.read(1), [serves ? "hit" : "miss", "Ada"])
    assert.deepStrictEqual(yield* one.read(2), ["miss", "secret Grace"])
  }
  yield* one.rename(1, "secret Augusta")
  assert.strictEqual((yield* one.stats).undelivered, delivers ? 0 : 1)
  for (let i = 0; i < 2; i++) {
    assert.deepStrictEqual(yield* one.read(1), [delivers ? "miss" : "bypass unserved", "secret Augusta"])
  }
  yield* one.renameInTransaction(1, "Ada King")
  assert.strictEqual((yield* one.read(1))[1], "Ada King")
  const during = yield* one.stats
  assert.isAtLeast(during.storeErrors - before.storeErrors, delivers ? 2 : 4)
  assert.deepStrictEqual([during.hits - before.hits, during.fills - before.fills], [serves ? 2 : 0, 0])

  yield* end
  yield* one.delivered
  // From here on nobody gets the old row, in the other process neither.
  assert.strictEqual((yield* another.read(1))[1], "Ada King")
  assert.strictEqual((yield* one.read(1))[1], "Ada King")
  assert.strictEqual((yield* one.hit(1))[1], "Ada King")
  assert.strictEqual((yield* another.hit(1))[1], "Ada King")
  // And what one writes, the other sees.
  yield* another.rename(1, "Ada")
  yield* another.delivered
  assert.strictEqual((yield* one.read(1))[1], "Ada")
  yield* one.rename(1, "Ada")

  const failures = (yield* one.said).filter((message) => message.includes("fails"))
  yield* another.said
  assert.isAbove(failures.length, 0)
  for (const message of failures) {
    assert.isTrue(reasons.some((reason) => message.includes(`: ${reason})`)), message)
  }
})

const reset = Effect.gen(function*() {
  const sql = yield* PgClient.PgClient
  yield* sql`DROP TABLE IF EXISTS users`
  yield* sql`CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL)`
  yield* sql`INSERT INTO users ${sql.insert([{ id: 1, name: "Ada" }, { id: 2, name: "secret Grace" }])}`
})

let namespaces = 0
const namespaceOf = () => `faults-${++namespaces}`

const live = { excludeTestServices: true }
const Database = Layer.mergeAll(Pglite.layer(), QueryAnalyzer.layer(), Fingerprinter.layer)

layer(Database, live)("Redis", (it) => {
  /** Two processes on a Redis that they are told the port of, which need not be its own. */
  const endured = Effect.fnUntraced(function*(
    server: RedisServers.Server,
    fault: Fault,
    options: {
      readonly client?: () => Layer.Layer<Redis.Redis>
      readonly timeout?: Duration.Input
    } = {}
  ) {
    yield* reset
    const client = options.client ?? (() => RedisServers.client(server))
    const namespace = namespaceOf()
    const one = yield* makeProcess(client(), namespace, options.timeout)
    const another = yield* makeProcess(client(), namespace, options.timeout)
    // Before the clients close, which wait for the replies to what they have sent.
    yield* Effect.addFinalizer(() => Effect.andThen(server.resume, fault.end.pipe(Effect.ignoreCause)))
    yield* endure(one, another, fault)
  })

  it.effect("stops, and starts without its data", () =>
    Effect.gen(function*() {
      const server = yield* RedisServers.makeServer()
      yield* endured(server, { begin: server.stop, end: server.start, reasons: ["StoreUnavailable"] })
    }))

  it.effect("stops, and starts with its data", () =>
    Effect.gen(function*() {
      const server = yield* RedisServers.makeServer({ appendonly: "yes", appendfsync: "always" })
      yield* endured(server, { begin: server.stop, end: server.start, reasons: ["StoreUnavailable"] })
    }))

  it.effect("stops, before a client with the driver's defaults, which keeps what it cannot send", () =>
    Effect.gen(function*() {
      const server = yield* RedisServers.makeServer({ appendonly: "yes", appendfsync: "always" })
      yield* endured(
        server,
        { begin: server.stop, end: server.start, reasons: ["StoreTimeout", "StoreUnavailable"] },
        { client: () => Layer.orDie(NodeRedis.layer({ url: server.url })), timeout: "100 millis" }
      )
    }))

  it.effect("is slow beyond all time-outs", () =>
    Effect.gen(function*() {
      const server = yield* RedisServers.makeServer()
      yield* endured(server, { begin: server.pause, end: server.resume, reasons: ["StoreTimeout"] }, {
        timeout: "100 millis"
      })
    }))

  for (const fault of ["paused", "killed"] as const) {
    it.effect(`is ${fault} for long: it costs a few time-outs, and is found again without a restart`, () =>
      Effect.gen(function*() {
        yield* reset
        const server = yield* RedisServers.makeServer()
        const timeoutMillis = 150
        const process = yield* makeProcess(RedisServers.client(server), namespaceOf(), timeoutMillis)
        // Before the client closes, which waits for the replies to what it has sent.
        yield* Effect.addFinalizer(() => server.resume)
        yield* process.rename(2, "secret Grace")
        yield* process.hit(1)
        const before = yield* process.stats
        yield* fault === "paused" ? server.pause : server.stop
        const start = yield* Clock.currentTimeMillis
        for (let i = 0; i < 200; i++) assert.deepStrictEqual(yield* process.read(1), ["miss", "Ada"])
        for (let i = 0; i < 50; i++) yield* process.rename(1, "Augusta")
        const elapsed = (yield* Clock.currentTimeMillis) - start
        const errors = (yield* process.stats).storeErrors - before.storeErrors
        // Of 250 calls: five lookups, five invalidations, what was redelivered, and one lookup in a second.
        assert.isAtMost(errors, 16 + elapsed / 1000)
        assert.isAtLeast(errors, 10)
        yield* fault === "paused" ? server.resume : server.start
        yield* process.delivered
        assert.deepStrictEqual(yield* process.hit(1), ["hit", "Augusta"])
        yield* process.said
      }))
  }

  it.effect("becomes a replica", () =>
    Effect.gen(function*() {
      const server = yield* RedisServers.makeServer()
      yield* endured(server, {
        begin: server.command("REPLICAOF", "127.0.0.1", "1"),
        end: server.command("REPLICAOF", "NO", "ONE"),
        reasons: ["WriteRefused"]
      })
    }))

  it.effect("wants replicas that are not there", () =>
    Effect.gen(function*() {
      const server = yield* RedisServers.makeServer()
      yield* endured(server, {
        begin: server.command("CONFIG", "SET", "min-replicas-to-write", "1"),
        end: server.command("CONFIG", "SET", "min-replicas-to-write", "0"),
        reasons: ["WriteRefused"],
        serves: true
      })
    }))

  it.effect("is out of memory", () =>
    Effect.gen(function*() {
      const server = yield* RedisServers.makeServer()
      yield* endured(server, {
        begin: server.command("CONFIG", "SET", "maxmemory", "1"),
        end: server.command("CONFIG", "SET", "maxmemory", "0"),
        reasons: ["WriteRefused"],
        serves: true,
        delivers: true
      })
    }))

  describe("with users", () => {
    const user = { username: "app", password: "secret-password" }
    const rights = ["on", `>${user.password}`, "~*", "&*", "+@all"]

    it.effect("has another password", () =>
      Effect.gen(function*() {
        const server = yield* RedisServers.makeServer()
        yield* server.command("ACL", "SETUSER", "app", ...rights)
        yield* endured(server, {
          begin: Effect.andThen(
            server.command("ACL", "SETUSER", "app", "resetpass", ">another"),
            server.command("CLIENT", "KILL", "USER", "app")
          ),
          end: server.command("ACL", "SETUSER", "app", `>${user.password}`),
          reasons: ["AccessDenied", "StoreUnavailable"]
        }, { client: () => RedisServers.client(server, user) })
      }))

    it.effect("takes a right away", () =>
      Effect.gen(function*() {
        const server = yield* RedisServers.makeServer()
        yield* server.command("ACL", "SETUSER", "app", ...rights)
        yield* endured(server, {
          begin: server.command("ACL", "SETUSER", "app", "-evalsha"),
          end: server.command("ACL", "SETUSER", "app", "+evalsha"),
          reasons: ["AccessDenied"]
        }, { client: () => RedisServers.client(server, user) })
      }))
  })

  for (
    const [name, said] of [
      ["replies that no script makes", "*2\r\n$5\r\nfound\r\n$6\r\nsecret\r\n"],
      ["errors nobody has heard of", "-HUH secret\r\n"],
      ["what is not its protocol", "HTTP/1.1 400 secret\r\n\r\n"]
    ] as const
  ) {
    it.effect(`says ${name}`, () =>
      Effect.gen(function*() {
        const server = yield* RedisServers.makeServer()
        const door = yield* RedisDoor.make(server)
        yield* endured(server, {
          begin: door.say(said),
          end: door.say(undefined),
          reasons: ["InvalidReply", "StoreUnavailable", "StoreTimeout"]
        }, { client: () => RedisServers.client({ ...server, port: door.port }), timeout: "300 millis" })
      }))
  }

  it.effect("is away when the program starts", () =>
    Effect.gen(function*() {
      yield* reset
      const server = yield* RedisServers.makeServer()
      yield* server.stop
      const process = yield* makeProcess(
        RedisStore.connectInBackground(NodeRedis.layer({ url: server.url })),
        namespaceOf()
      )
      assert.deepStrictEqual(yield* process.read(1), ["miss", "Ada"])
      yield* process.rename(1, "Augusta")
      assert.deepStrictEqual(yield* process.read(1), ["bypass unserved", "Augusta"])
      yield* server.start
      yield* process.delivered
      assert.deepStrictEqual(yield* process.hit(1), ["hit", "Augusta"])
      assert.deepStrictEqual(yield* process.said, [
        told("lookup", "StoreUnavailable"),
        told("invalidate", "StoreUnavailable"),
        worksAgain("invalidate"),
        worksAgain("lookup")
      ])
    }))

  it.effect("is half open, until its connection is replaced", () =>
    Effect.gen(function*() {
      yield* reset
      const server = yield* RedisServers.makeServer()
      const door = yield* RedisDoor.make(server)
      const process = yield* makeProcess(
        RedisStore.connectInBackground(
          NodeRedis.layer({ socket: { host: "127.0.0.1", port: door.port } }),
          { replaceAfter: "1 second" }
        ),
        namespaceOf()
      )
      yield* Effect.repeat(process.read(1), { until: ([status]) => status === "hit" })
      yield* door.mute
      yield* process.rename(1, "Augusta")
      assert.deepStrictEqual(yield* process.read(1), ["bypass unserved", "Augusta"])
      yield* process.delivered
      assert.deepStrictEqual(yield* process.hit(1), ["hit", "Augusta"])
    }))

  it.effect("forgets its data, its scripts, or has something else in its place: misses, and no failure", () =>
    Effect.gen(function*() {
      yield* reset
      const server = yield* RedisServers.makeServer()
      const namespace = namespaceOf()
      const one = yield* makeProcess(RedisServers.client(server), namespace)
      const another = yield* makeProcess(RedisServers.client(server), namespace)
      const replaceAll = (...command: ReadonlyArray<string>) =>
        Effect.gen(function*() {
          const keys: ReadonlyArray<string> = yield* server.command("KEYS", "*")
          assert.isAbove(keys.length, 2)
          for (const key of keys) {
            yield* server.command("DEL", key)
            yield* server.command(command[0], key, ...command.slice(1))
          }
        })
      let name = "Ada"
      for (
        const accident of [
          server.command("FLUSHALL"),
          server.command("SCRIPT", "FLUSH"),
          replaceAll("SET", "junk"),
          replaceAll("RPUSH", "junk"),
          replaceAll("HSET", "epoch", "junk")
        ]
      ) {
        yield* one.hit(1)
        assert.deepStrictEqual(yield* another.hit(1), ["hit", name])
        yield* accident
        assert.strictEqual((yield* one.read(1))[1], name)
        yield* accident
        yield* one.rename(1, name = `${name}!`)
        assert.strictEqual((yield* another.read(1))[1], name)
        assert.strictEqual((yield* one.read(1))[1], name)
      }
      assert.include(yield* one.stats, { storeErrors: 0, undelivered: 0 })
      assert.deepStrictEqual(yield* one.said, [])
    }))
})

layer(Layer.merge(Database, Upstash.layer), live)("Upstash", (it) => {
  const faults: ReadonlyArray<readonly [name: string, fault: Upstash.Fault, reason: string]> = [
    ["hangs", { hang: true }, "StoreTimeout"],
    ["answers 500", { answer: { status: 500, body: secret } }, "StoreUnavailable"],
    ["answers what is no reply", { answer: { status: 200, body: secret } }, "InvalidReply"],
    ["refuses the token", { answer: { status: 401, body: "{}" } }, "AccessDenied"],
    ["cuts its answers", { cut: true }, "StoreUnavailable"]
  ]
  for (const [name, fault, reason] of faults) {
    it.effect(name, () =>
      Effect.gen(function*() {
        yield* reset
        const server = yield* Upstash.UpstashServer
        const namespace = namespaceOf()
        const start = makeProcess(
          UpstashRedis.layer({ url: server.url, token: server.token }),
          namespace,
          fault.hang === true ? "200 millis" : "2 seconds"
        )
        yield* endure(yield* start, yield* start, {
          begin: server.fault(fault),
          end: server.fault(undefined),
          reasons: [reason]
        })
      }))
  }

  it.effect("has another token: hits cost nothing but the database's answers", () =>
    Effect.gen(function*() {
      yield* reset
      const { url } = yield* Upstash.UpstashServer
      const process = yield* makeProcess(UpstashRedis.layer({ url, token: "secret-but-wrong" }), namespaceOf())
      assert.deepStrictEqual([yield* process.read(1), yield* process.read(1)], [["miss", "Ada"], ["miss", "Ada"]])
      yield* process.rename(1, "Augusta")
      assert.deepStrictEqual(yield* process.read(1), ["bypass unserved", "Augusta"])
    }))
})
