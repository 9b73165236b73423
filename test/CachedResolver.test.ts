import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Request from "effect/Request"
import * as RequestResolver from "effect/RequestResolver"
import * as Schema from "effect/Schema"
import { SqlClient, SqlResolver } from "effect/sql"
import * as TestClock from "effect/testing/TestClock"
import {
  CachedQuery,
  CachedResolver,
  CachedSqlClient,
  CacheScope,
  CacheStore,
  Dependency,
  Invalidator,
  QueryCache,
  RedisStore
} from "../src/index.ts"
import * as Stub from "./bench/stub.ts"
import * as FlakyStore from "./support/flakyStore.ts"
import * as Logs from "./support/logs.ts"
import * as Pglite from "./support/pglite.ts"
import * as RedisServer from "./support/redis.ts"

// -----------------------------------------------------------------------------
// requests that need no database
// -----------------------------------------------------------------------------

class Refused extends Schema.TaggedError<Refused>()("Refused", { id: Schema.Number }) {}

class Get extends Request.TaggedClass("Get")<{ readonly id: number }, { readonly text: string }, Refused> {}

/** A resolver that notes its batches, and by which scope each was run. */
const makeSource = (answer: (id: number) => Effect.Effect<string, Refused> = (id) => Effect.succeed(`v${id}`)) => {
  const batches: Array<ReadonlyArray<number>> = []
  const scopes: Array<string> = []
  const resolver = RequestResolver.make<Get>((entries) =>
    Effect.gen(function*() {
      batches.push(entries.map(({ request }) => request.id))
      const scope = (yield* CacheScope.CurrentScope)?.key ?? ""
      scopes.push(scope)
      yield* Effect.forEach(entries, (entry) =>
        Effect.suspend(() => answer(entry.request.id)).pipe(
          Effect.exit,
          Effect.map((exit) =>
            entry.completeUnsafe(Exit.map(exit, (text) => ({ text: scope === "" ? text : `${text} of ${scope}` })))
          )
        ), { concurrency: "unbounded", discard: true })
    })
  )
  return { resolver, batches, scopes }
}

const make = (
  resolver: RequestResolver.RequestResolver<Get>,
  options?: Partial<CachedResolver.CachedResolverOptions<Get, number>>
) =>
  CachedResolver.make(resolver, {
    name: "get",
    key: ({ id }) => id,
    Key: Schema.Int,
    Value: Schema.Struct({ text: Schema.String }),
    ...options
  })

const ask = (resolver: RequestResolver.RequestResolver<Get>, id: number) =>
  Effect.map(Effect.request(new Get({ id }), resolver), ({ text }) => text)

const askAll = (resolver: RequestResolver.RequestResolver<Get>, ids: ReadonlyArray<number>) =>
  Effect.forEach(ids, (id) => Effect.exit(ask(resolver, id)), { concurrency: "unbounded" })

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i)
const values = (ids: ReadonlyArray<number>) => ids.map((id) => Exit.succeed(`v${id}`))

const nothing = CachedSqlClient.layerTest(() => [])
const statuses = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(
    QueryCache.withInfo(effect),
    ([queries]) => queries.map(({ reason, status }) => status === "bypass" ? `${status} ${reason}` : status)
  )

describe("a batch", () => {
  it.effect("is answered from the cache, and the rest goes to the resolver at once", () =>
    Effect.gen(function*() {
      const { batches, resolver } = makeSource()
      const cached = yield* make(resolver)
      yield* askAll(cached, range(1, 90))
      assert.deepStrictEqual(yield* askAll(cached, range(1, 100)), values(range(1, 100)))
      assert.deepStrictEqual(batches, [range(1, 90), range(91, 100)])
      assert.deepStrictEqual((yield* (yield* QueryCache.QueryCache).stats).hits, 90)
    }).pipe(Effect.provide(nothing)))

  it.effect("costs one lookup and the stores of what was missing", () =>
    Effect.gen(function*() {
      const calls: Array<string> = []
      const counting = Layer.effect(
        CacheStore.CacheStore,
        Effect.map(CacheStore.CacheStore, (store) => ({
          ...store,
          // Nothing is at hand: as a store is that keeps all of it elsewhere.
          peek: () => undefined,
          lookup: (...args: Parameters<typeof store.lookup>) =>
            Effect.andThen(Effect.sync(() => void calls.push("lookup")), store.lookup(...args)),
          lookupMany: (requests: Parameters<typeof store.lookupMany>[0]) =>
            Effect.andThen(
              Effect.sync(() => void calls.push(`lookup of ${requests.length}`)),
              store.lookupMany(requests)
            )
        }))
      ).pipe(Layer.provide(CacheStore.layerMemory()))
      yield* Effect.gen(function*() {
        const { batches, resolver } = makeSource()
        const cached = yield* make(resolver)
        yield* askAll(cached, range(1, 90))
        yield* askAll(cached, range(1, 100))
        assert.deepStrictEqual(calls, ["lookup of 90", "lookup of 100"])
        assert.deepStrictEqual(batches, [range(1, 90), range(91, 100)])
      }).pipe(Effect.provide(CachedSqlClient.layer().pipe(Layer.provide([counting, Stub.layer([])]))))
    }))

  it.effect("asks once for equal keys, and tells each", () =>
    Effect.gen(function*() {
      const { batches, resolver } = makeSource()
      const cached = yield* make(resolver)
      assert.deepStrictEqual(yield* askAll(cached, [1, 1, 2, 1]), values([1, 1, 2, 1]))
      assert.deepStrictEqual(batches, [[1, 2]])
    }).pipe(Effect.provide(nothing)))

  it.effect("shares what another one is reading", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const { batches, resolver } = makeSource((id) => Effect.as(Deferred.await(gate), `v${id}`))
      const cached = yield* make(resolver)
      const first = yield* Effect.forkChild(askAll(cached, [1, 2]), { startImmediately: true })
      while (batches.length === 0) yield* Effect.yieldNow
      const second = yield* Effect.forkChild(askAll(cached, [2, 3]), { startImmediately: true })
      while (batches.length === 1) yield* Effect.yieldNow
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual(yield* Fiber.join(first), values([1, 2]))
      assert.deepStrictEqual(yield* Fiber.join(second), values([2, 3]))
      assert.deepStrictEqual(batches, [[1, 2], [3]])
    }).pipe(Effect.provide(nothing)))

  it.effect("waits as long as the resolver's, once; what is at hand waits for nothing", () =>
    Effect.gen(function*() {
      const { batches, resolver } = makeSource()
      const cached = yield* make(RequestResolver.setDelay(resolver, "10 seconds"))
      const first = yield* Effect.forkChild(ask(cached, 1), { startImmediately: true })
      yield* TestClock.adjust("9 seconds")
      assert.deepStrictEqual(batches, [])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(first), "v1")
      assert.strictEqual(yield* ask(cached, 1), "v1")
      // With all that stands around it.
      assert.deepStrictEqual(yield* statuses(ask(cached, 1).pipe(QueryCache.cached())), ["hit"])
      assert.deepStrictEqual(batches, [[1]])
    }).pipe(Effect.provide(nothing)))

  it.effect("is as large as the resolver's", () =>
    Effect.gen(function*() {
      const { batches, resolver } = makeSource()
      const cached = yield* make(RequestResolver.batchN(RequestResolver.setDelay(resolver, "1 hour"), 3))
      assert.deepStrictEqual(yield* askAll(cached, range(1, 6)), values(range(1, 6)))
      assert.isTrue(batches.every((batch) => batch.length <= 3))
      assert.deepStrictEqual(batches.flat(), range(1, 6))
    }).pipe(Effect.provide(nothing)))

  it.effect("is parted as the resolver's is, and equal keys are equal", () =>
    Effect.gen(function*() {
      const { batches, resolver } = makeSource()
      const byReference = {}
      const cached = yield* make(RequestResolver.grouped(resolver, ({ request }) => ({ odd: request.id % 2 === 1 })))
      assert.deepStrictEqual(yield* askAll(cached, range(1, 6)), values(range(1, 6)))
      assert.deepStrictEqual(batches.splice(0), [[1, 3, 5], [2, 4, 6]])
      const other = yield* make(
        RequestResolver.makeWith({ ...resolver, batchKey: ({ request }) => request.id > 2 ? byReference : request.id }),
        { name: "by reference" }
      )
      yield* askAll(other, range(1, 4))
      assert.deepStrictEqual(batches, [[1], [2], [3, 4]])
    }).pipe(Effect.provide(nothing)))

  it.effect("takes what is put around the resolver, and around itself", () =>
    Effect.gen(function*() {
      const around: Array<string> = []
      const noted = (name: string) =>
        RequestResolver.around<Get, void, void>(
          (entries) => Effect.sync(() => void around.push(`${name} ${entries.map(({ request }) => request.id)}`)),
          () => Effect.void
        )
      const { resolver } = makeSource()
      const cached = noted("outer")(yield* make(noted("inner")(resolver)))
      yield* askAll(cached, [1, 2])
      yield* askAll(cached, [1, 2, 3])
      assert.deepStrictEqual(around, ["outer 1,2", "inner 1,2", "outer 3", "inner 3"])
      const once = yield* RequestResolver.withCache(cached, { capacity: 10 })
      assert.deepStrictEqual(yield* askAll(once, [4, 4, 1]), values([4, 4, 1]))
      const few = RequestResolver.batchN(RequestResolver.withSpan(cached, "get"), 2)
      assert.deepStrictEqual(yield* askAll(few, range(4, 8)), values(range(4, 8)))
    }).pipe(Effect.provide(nothing)))

  it.effect("is served stale, and read anew by one batch", () =>
    Effect.gen(function*() {
      let version = "old"
      const { batches, resolver } = makeSource((id) => Effect.succeed(`${version}${id}`))
      const cached = yield* make(RequestResolver.setDelay(resolver, "1 second"), {
        timeToLive: "1 minute",
        staleWhileRevalidate: "1 minute"
      })
      const first = yield* Effect.forkChild(askAll(cached, [1, 2]), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(first)
      yield* TestClock.adjust("90 seconds")
      version = "new"
      assert.deepStrictEqual(yield* askAll(cached, [1, 2]), [Exit.succeed("old1"), Exit.succeed("old2")])
      yield* Effect.yieldNow
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(batches, [[1, 2], [1, 2]])
      assert.deepStrictEqual(yield* askAll(cached, [1, 2]), [Exit.succeed("new1"), Exit.succeed("new2")])
    }).pipe(Effect.provide(nothing)))
})

describe("what goes wrong with one request", () => {
  it.effect("is none of the others', and is not kept", () =>
    Effect.gen(function*() {
      let isBroken = true
      const { batches, resolver } = makeSource((id): Effect.Effect<string, Refused> =>
        !isBroken || id > 2
          ? Effect.succeed(`v${id}`)
          : id === 1
          ? Effect.fail(new Refused({ id }))
          : Effect.die("broken")
      )
      const cached = yield* make(resolver)
      assert.deepStrictEqual(yield* askAll(cached, [1, 2, 3]), [
        Exit.fail(new Refused({ id: 1 })),
        Exit.die("broken"),
        Exit.succeed("v3")
      ])
      isBroken = false
      assert.deepStrictEqual(yield* askAll(cached, [1, 2, 3]), values([1, 2, 3]))
      assert.deepStrictEqual(batches, [[1, 2, 3], [1, 2]])
    }).pipe(Effect.provide(nothing)))

  it.effect("is kept where it is meant to be", () =>
    Effect.gen(function*() {
      const { batches, resolver } = makeSource((id) => Effect.fail(new Refused({ id })))
      const cached = yield* make(resolver, { keepError: { Error: Refused, timeToLive: "10 seconds" } })
      yield* askAll(cached, [1, 2])
      const again = yield* askAll(cached, [1, 2])
      assert.deepStrictEqual(again, [Exit.fail(new Refused({ id: 1 })), Exit.fail(new Refused({ id: 2 }))])
      assert.deepStrictEqual(batches, [[1, 2]])
      yield* TestClock.adjust("10 seconds")
      yield* askAll(cached, [1])
      assert.deepStrictEqual(batches, [[1, 2], [1]])
    }).pipe(Effect.provide(nothing)))

  it.effect("hangs alone: each is answered as soon as its answer is known", () =>
    Effect.gen(function*() {
      const { resolver } = makeSource((id) => id === 1 ? Effect.never : Effect.succeed(`v${id}`))
      const cached = yield* make(resolver)
      const all = [1, 2, 3].map((id) => ask(cached, id))
      const [first, ...others] = yield* Effect.forEach(all, (one) => Effect.forkChild(one, { startImmediately: true }))
      assert.deepStrictEqual(yield* Effect.forEach(others, Fiber.join), ["v2", "v3"])
      assert.isUndefined(first!.pollUnsafe())
      // Another batch does not wait for it either.
      assert.deepStrictEqual(yield* askAll(cached, [2, 4]), values([2, 4]))
      yield* Fiber.interrupt(first!)
    }).pipe(Effect.provide(nothing)))

  it.effect("as is a key that cannot be had, or that its schema refuses", () =>
    Effect.gen(function*() {
      const { batches, resolver } = makeSource()
      const cached = yield* make(resolver, {
        key: ({ id }) => {
          if (id === 1) throw new Error("no key")
          return id
        }
      })
      const [thrown, refused, good] = yield* askAll(cached, [1, 1.5, 2])
      assert.deepStrictEqual(thrown, Exit.die(new Error("no key")))
      assert.match(
        String(Exit.isFailure(refused!) && Cause.squash(refused.cause)),
        /CachedResolver\.make "get".*Key schema/
      )
      assert.notInclude(String(Exit.isFailure(refused!) && Cause.squash(refused.cause)), "1.5")
      assert.deepStrictEqual(good, Exit.succeed("v2"))
      assert.deepStrictEqual(batches, [[2]])
      // Nor does it matter who runs the batch.
      const bare = RequestResolver.makeWith({ ...cached, preCheck: undefined })
      assert.deepStrictEqual((yield* askAll(bare, [1, 1.5, 2])).map((exit) => exit._tag), [
        "Failure",
        "Failure",
        "Success"
      ])
    }).pipe(Effect.provide(nothing)))

  it.effect("a resolver that forgets a request, or fails as a whole, is reported", () =>
    Effect.gen(function*() {
      const forgetful = yield* make(RequestResolver.make(() => Effect.void))
      const [forgotten] = yield* askAll(forgetful, [1])
      assert.match(String(Exit.isFailure(forgotten!) && Cause.squash(forgotten.cause)), /did not complete request/)
      const failing = yield* make(RequestResolver.make(() => Effect.fail(new Refused({ id: 0 }))), { name: "failing" })
      assert.deepStrictEqual(yield* askAll(failing, [1, 2]), [
        Exit.fail(new Refused({ id: 0 })),
        Exit.fail(new Refused({ id: 0 }))
      ])
    }).pipe(Effect.provide(nothing)))

  it.effect("a store that fails costs hits only", () =>
    Effect.gen(function*() {
      const memory = yield* CacheStore.CacheStore
      const flaky = FlakyStore.make(memory, false)
      yield* Effect.gen(function*() {
        const { batches, resolver } = makeSource()
        const cached = yield* make(resolver)
        flaky.set("lookup", () => Effect.die("lookup"))
        flaky.set("store", () => Effect.die("store"))
        assert.deepStrictEqual(yield* askAll(cached, [1, 2]), values([1, 2]))
        assert.deepStrictEqual(yield* askAll(cached, [1, 2]), values([1, 2]))
        assert.deepStrictEqual(batches, [[1, 2], [1, 2]])
      }).pipe(Effect.provide(
        CachedSqlClient.layer().pipe(
          Layer.provide([Layer.succeed(CacheStore.CacheStore, flaky.store), Stub.layer([])])
        )
      ))
    }).pipe(Effect.provide(CacheStore.layerMemory())))
})

describe("interruption", () => {
  const gated = Effect.gen(function*() {
    const gate = yield* Deferred.make<void>()
    const source = makeSource((id) => Effect.as(Deferred.await(gate), `v${id}`))
    const cached = yield* make(source.resolver)
    const fork = (id: number) => Effect.forkChild(ask(cached, id), { startImmediately: true })
    return { ...source, cached, fork, open: Deferred.succeed(gate, undefined) }
  })

  it.effect("of one that waits for its batch takes it out", () =>
    Effect.gen(function*() {
      const { batches, fork, open } = yield* gated
      const [one, two] = [yield* fork(1), yield* fork(2)]
      yield* Fiber.interrupt(one)
      yield* open
      assert.strictEqual(yield* Fiber.join(two), "v2")
      assert.deepStrictEqual(batches, [[2]])
    }).pipe(Effect.provide(nothing)))

  it.effect("of one whose batch runs harms nobody", () =>
    Effect.gen(function*() {
      const { batches, cached, fork, open } = yield* gated
      const [one, two] = [yield* fork(1), yield* fork(2)]
      while (batches.length === 0) yield* Effect.yieldNow
      yield* Fiber.interrupt(one)
      yield* open
      assert.strictEqual(yield* Fiber.join(two), "v2")
      assert.deepStrictEqual(yield* askAll(cached, [1, 2]), values([1, 2]))
      assert.deepStrictEqual(batches, [[1, 2]])
    }).pipe(Effect.provide(nothing)))

  it.effect("of all that wait asks nobody", () =>
    Effect.gen(function*() {
      const { batches, cached, fork, open } = yield* gated
      const all = [yield* fork(1), yield* fork(2)]
      yield* Fiber.interruptAll(all)
      yield* Effect.yieldNow
      assert.deepStrictEqual(batches, [])
      yield* open
      assert.deepStrictEqual(yield* askAll(cached, [1]), values([1]))
    }).pipe(Effect.provide(nothing)))

  it.effect("of all whose batch runs leaves what it reads to those who come next", () =>
    Effect.gen(function*() {
      const { batches, cached, fork, open } = yield* gated
      const all = [yield* fork(1), yield* fork(2)]
      while (batches.length === 0) yield* Effect.yieldNow
      yield* Fiber.interruptAll(all)
      const next = yield* fork(1)
      yield* open
      assert.strictEqual(yield* Fiber.join(next), "v1")
      assert.deepStrictEqual(yield* askAll(cached, [1, 2]), values([1, 2]))
      assert.deepStrictEqual(batches, [[1, 2]])
    }).pipe(Effect.provide(nothing)))
})

describe("who asks", () => {
  const acme = CacheScope.provide({ tenant: "acme" })
  const globex = CacheScope.provide({ tenant: "globex" })
  const keyOf = (tenant: string) => CacheScope.resolve({ tenant }).key

  const check = (
    wrap: (resolver: RequestResolver.RequestResolver<Get>) => RequestResolver.RequestResolver<Get>
  ) =>
    Effect.gen(function*() {
      const { batches, resolver, scopes } = makeSource()
      const cached = wrap(yield* make(resolver))
      const all = Effect.all([
        acme(ask(cached, 1)),
        globex(ask(cached, 1)),
        ask(cached, 1),
        acme(ask(cached, 2)),
        globex(ask(cached, 2)),
        QueryCache.uncached(acme(ask(cached, 3)))
      ], { concurrency: "unbounded" })
      const [a, g] = [keyOf("acme"), keyOf("globex")]
      const expected = [`v1 of ${a}`, `v1 of ${g}`, "v1", `v2 of ${a}`, `v2 of ${g}`, `v3 of ${a}`]
      assert.deepStrictEqual(yield* all, expected)
      // Of a race both sides ask what is not cached.
      const asked = () => batches.flat().filter((id) => id !== 3).sort()
      assert.deepStrictEqual(asked(), [1, 1, 1, 2, 2])
      assert.deepStrictEqual([...new Set(scopes)].sort(), ["", a, g].sort())
      // Each finds its own.
      assert.deepStrictEqual(yield* all, expected)
      assert.deepStrictEqual(asked(), [1, 1, 1, 2, 2])
    }).pipe(Effect.provide(nothing))

  it.effect("never shares a batch or an answer with another scope", () => check((resolver) => resolver))
  it.effect("nor where the batch key was replaced", () => check(RequestResolver.grouped(() => "all")))
  it.effect("nor where it is lost", () => check((resolver) => RequestResolver.race(resolver, resolver)))

  it.effect("is told what became of its own requests, and no others", () =>
    Effect.gen(function*() {
      const { resolver } = makeSource()
      const cached = yield* make(resolver)
      yield* ask(cached, 1)
      assert.deepStrictEqual(
        yield* Effect.all([
          statuses(ask(cached, 1)),
          statuses(ask(cached, 2)),
          statuses(Effect.all([ask(cached, 3), ask(cached, 2)], { concurrency: "unbounded" })),
          statuses(QueryCache.uncached(ask(cached, 1)))
        ], { concurrency: "unbounded" }),
        [["hit"], ["miss"], ["miss", "miss"], ["bypass uncached"]]
      )
    }).pipe(Effect.provide(nothing)))

  it.effect("is not warned: each `cached` around a request has consulted a cache", () =>
    Effect.gen(function*() {
      const { resolver } = makeSource()
      const cached = yield* make(resolver)
      yield* Effect.all([1, 2, 3].map((id) => QueryCache.cached(ask(cached, id), { name: `resolver ${id}` })), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(yield* (yield* Logs.Logs).messages, [])
    }).pipe(Effect.provide([nothing, Logs.layer])))
})

// -----------------------------------------------------------------------------
// SqlResolver
// -----------------------------------------------------------------------------

const User = Schema.Struct({ id: Schema.Int, name: Schema.String })

const findUsers = Effect.map(SqlClient.SqlClient, (sql) =>
  SqlResolver.findById({
    Id: Schema.Int,
    Result: User,
    ResultId: (user) => user.id,
    execute: (ids) => sql<{ id: number; name: string }>`SELECT id, name FROM users WHERE ${sql.in("id", ids)}`
  }))

const options = {
  name: "user",
  Key: Schema.Int,
  Value: User,
  notFoundTimeToLive: "10 seconds",
  dependencies: (id: number) => [Dependency.row("users", { id })]
} as const

const makeUsers = Effect.flatMap(findUsers, (resolver) => CachedResolver.fromSql(resolver, options))

describe("over SqlResolver", () => {
  const database = CachedSqlClient.layerTest(({ params, sql }) =>
    sql.startsWith("SELECT")
      ? params.filter((id) => Number(id) < 1000).map((id) => ({ id, name: `u${id}`, team: Number(id) % 2 }))
      : []
  )

  it.effect("of 100 requests 90 are hits, and one query with 10 ids is left", () =>
    Effect.gen(function*() {
      const db = yield* CachedSqlClient.TestDatabase
      const request = SqlResolver.request(yield* makeUsers)
      const all = (ids: ReadonlyArray<number>) => Effect.forEach(ids, request, { concurrency: "unbounded" })
      yield* all(range(1, 90))
      const found = yield* all(range(1, 100))
      assert.deepStrictEqual(found.map(({ name }) => name), range(1, 100).map((id) => `u${id}`))
      assert.deepStrictEqual((yield* db.queries).map(({ params }) => params), [range(1, 90), range(91, 100)])
    }).pipe(Effect.provide(database)))

  it.effect("not found is kept for a time of its own", () =>
    Effect.gen(function*() {
      const db = yield* CachedSqlClient.TestDatabase
      const request = SqlResolver.request(yield* makeUsers)
      const first = yield* Effect.flip(request(1000))
      const second = yield* Effect.flip(request(1000))
      assert.isTrue(Cause.isNoSuchElementError(first) && Cause.isNoSuchElementError(second))
      assert.strictEqual((yield* db.queries).length, 1)
      yield* TestClock.adjust("10 seconds")
      yield* Effect.flip(request(1000))
      assert.strictEqual((yield* db.queries).length, 2)
    }).pipe(Effect.provide(database)))

  it.effect("ordered and grouped", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const db = yield* CachedSqlClient.TestDatabase
      const execute = (ids: ReadonlyArray<number>) =>
        sql<{ id: number; name: string; team: number }>`SELECT * FROM users WHERE ${sql.in("id", ids)}`
      const ordered = SqlResolver.request(
        yield* CachedResolver.fromSql(SqlResolver.ordered({ Request: Schema.Int, Result: User, execute }), {
          name: "ordered",
          Key: Schema.Int,
          Value: User
        })
      )
      const grouped = SqlResolver.request(
        yield* CachedResolver.fromSql(
          SqlResolver.grouped({
            Request: Schema.Int,
            RequestGroupKey: (id) => id,
            Result: User,
            ResultGroupKey: (user) => user.id,
            execute
          }),
          { name: "grouped", Key: Schema.Int, Value: Schema.NonEmptyArray(User) }
        )
      )
      for (let i = 0; i < 2; i++) {
        assert.deepStrictEqual(yield* Effect.all([1, 2].map(ordered), { concurrency: "unbounded" }), [
          { id: 1, name: "u1" },
          { id: 2, name: "u2" }
        ])
        assert.deepStrictEqual(yield* grouped(1), [{ id: 1, name: "u1" }])
      }
      assert.strictEqual((yield* db.queries).length, 2)
    }).pipe(Effect.provide(database)))

  it.effect("one that writes is refused", () =>
    Effect.gen(function*() {
      const write = SqlResolver.void({ Request: Schema.Int, execute: () => Effect.succeed([]) })
      const exit = yield* Effect.exit(CachedResolver.fromSql(write, { name: "w", Key: Schema.Int, Value: Schema.Void }))
      assert.match(String(Exit.isFailure(exit) && Cause.squash(exit.cause)), /option "Value" must be/)
    }).pipe(Effect.provide(database)))

  it.effect("without a cache it is the resolver itself", () =>
    Effect.gen(function*() {
      const resolver = yield* findUsers
      assert.strictEqual(yield* CachedResolver.fromSql(resolver, options), resolver)
    }).pipe(Effect.provide(CachedSqlClient.layerNoop.pipe(Layer.provide(Stub.layer([]))))))

  const shop = CachedSqlClient.layer().pipe(Layer.provide([CacheStore.layerMemory(), Pglite.layer()]))
  const withUsers = Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL)`
    yield* sql`INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, 9) i`
    const request = SqlResolver.request(yield* makeUsers)
    const names = (...ids: ReadonlyArray<number>) =>
      Effect.forEach(ids, (id) => Effect.map(request(id), ({ name }) => name), { concurrency: "unbounded" })
    return { sql, names }
  })

  it.effect("a write forgets what it touched; so does an invalidation by row or key, and leaves the others", () =>
    Effect.gen(function*() {
      const { names, sql } = yield* withUsers
      const fates = Effect.map(statuses(names(1, 2, 3)), (all) => all.sort())
      assert.deepStrictEqual(yield* names(1, 2, 3), ["u1", "u2", "u3"])
      yield* sql`UPDATE users SET name = 'Ada' WHERE id = 1`
      assert.deepStrictEqual(yield* names(1, 2, 3), ["Ada", "u2", "u3"])
      assert.deepStrictEqual(yield* fates, ["hit", "hit", "hit"])
      yield* Invalidator.invalidate({ keys: [Dependency.key("user", 2)] })
      assert.deepStrictEqual(yield* fates, ["hit", "hit", "miss"])
      yield* Invalidator.invalidate({ rows: [Dependency.row("users", { id: 3 })] })
      assert.deepStrictEqual(yield* fates, ["hit", "hit", "miss"])
      assert.deepStrictEqual(yield* fates, ["hit", "hit", "hit"])
    }).pipe(Effect.provide(shop)))

  it.effect("a transaction sees its own writes, and leaves nothing behind that was rolled back", () =>
    Effect.gen(function*() {
      const { names, sql } = yield* withUsers
      yield* names(1, 2)
      const inside = yield* Effect.gen(function*() {
        yield* sql`UPDATE users SET name = 'Ada' WHERE id = 1`
        const own = yield* statuses(
          Effect.tap(names(1, 3), (found) => Effect.sync(() => assert.deepStrictEqual(found, ["Ada", "u3"])))
        )
        return yield* Effect.fail({ own })
      }).pipe(sql.withTransaction, Effect.flip)
      assert.deepStrictEqual((inside as any).own, ["bypass transaction", "bypass transaction", "bypass no-policy"])
      assert.deepStrictEqual(yield* names(1, 2, 3), ["u1", "u2", "u3"])
      assert.deepStrictEqual(yield* statuses(names(1, 2, 3)), ["hit", "hit", "hit"])
      yield* sql.withTransaction(sql`UPDATE users SET name = 'Ada' WHERE id = 1`)
      assert.deepStrictEqual(yield* names(1, 2), ["Ada", "u2"])
    }).pipe(Effect.provide(shop)))

  it.effect("requests of a transaction and others at the same time are kept apart", () =>
    Effect.gen(function*() {
      const { batches, resolver } = makeSource()
      const cached = yield* make(resolver)
      const sql = yield* SqlClient.SqlClient
      const both = yield* Effect.all([
        sql.withTransaction(Effect.all([ask(cached, 1), ask(cached, 2)], { concurrency: "unbounded" })),
        sql.withTransaction(ask(cached, 1)),
        Effect.andThen(Effect.yieldNow, ask(cached, 1))
      ], { concurrency: "unbounded" })
      assert.deepStrictEqual(both, [["v1", "v2"], "v1", "v1"])
      assert.deepStrictEqual(batches.map((batch) => batch.join()).sort(), ["1", "1", "1,2"])
    }).pipe(Effect.provide(nothing)))
})

describe("names and options", () => {
  it.effect("a name is taken once, whoever takes it", () =>
    Effect.gen(function*() {
      const { resolver } = makeSource()
      yield* make(resolver)
      const twice = yield* Effect.exit(make(resolver))
      assert.match(
        String(Exit.isFailure(twice) && Cause.squash(twice.cause)),
        /CachedResolver\.make: option "name".*"get"/
      )
      const query = yield* Effect.exit(
        CachedQuery.make("get", { Key: Schema.Int, Value: Schema.Int, lookup: Effect.succeed })
      )
      assert.match(
        String(Exit.isFailure(query) && Cause.squash(query.cause)),
        /CachedQuery\.make: option "name".*"get"/
      )
    }).pipe(Effect.provide(nothing)))

  it.effect("what cannot mean anything is refused by name", () =>
    Effect.gen(function*() {
      const { resolver } = makeSource()
      const refusal = (options: object) =>
        Effect.map(Effect.exit(make(resolver, options)), (exit) =>
          String(Exit.isFailure(exit) && Cause.squash(exit.cause)))
      assert.match(yield* refusal({ timeTolive: 1 }), /option "timeTolive" must be absent/)
      assert.match(yield* refusal({ key: "id" }), /option "key" must be a function/)
      assert.match(yield* refusal({ name: "" }), /option "name" must be/)
      assert.match(yield* refusal({ cacheWhen: true }), /option "cacheWhen" must be a function/)
      assert.match(yield* refusal({ timeToLive: -1 }), /option "timeToLive" must be a finite duration/)
      assert.match(
        yield* Effect.map(
          Effect.exit(make({} as any)),
          (exit) =>
            String(Exit.isFailure(exit) && Cause.squash(exit.cause))
        ),
        /option "resolver" must be a RequestResolver/
      )
    }).pipe(Effect.provide(nothing)))
})

describe("over Redis", () => {
  it.live("100 requests with 90 hits: one lookup, one query with 10 ids, one store", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.RedisServer
      const cache = RedisStore.layer().pipe(Layer.provide(NodeRedis.layer({ url: server.url })))
      const database = Effect.sync(() => {
        const { batches, resolver } = makeSource()
        return { batches, resolver }
      })
      const shop = () =>
        Layer.build(
          Layer.fresh(
            CachedSqlClient.layer({ namespace: "shop", lookupTimeout: "5 seconds" }).pipe(
              Layer.provide([cache, Stub.layer([])])
            )
          )
        )
      const { batches, resolver } = yield* database
      const [one, two] = [yield* shop(), yield* shop()]
      const first = yield* Effect.provideContext(make(resolver), one)
      const second = yield* Effect.provideContext(make(resolver), two)
      yield* askAll(first, range(1, 90))
      // Nobody waits for the fills.
      yield* Effect.sleep("50 millis")
      const commands = yield* server.monitor
      assert.deepStrictEqual(yield* askAll(second, range(1, 100)), values(range(1, 100)))
      yield* Effect.sleep("50 millis")
      assert.deepStrictEqual(batches, [range(1, 90), range(91, 100)])
      const sent = (yield* commands).filter((command) => /^"?evalsha/i.test(command) || command.includes("EVALSHA"))
      assert.strictEqual(sent.length, 2, (yield* commands).join("\n").slice(0, 2000))
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer())))
})
