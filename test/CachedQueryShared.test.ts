// Cached queries whose values are kept as texts, as other processes see them: schemas that change, scopes, names.
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import { CachedQuery, CachedSqlClient, CacheScope, CacheStore, QueryCache } from "../src/index.ts"
import * as Stub from "./bench/stub.ts"
import * as EncodedStore from "./support/encodedStore.ts"
import * as Logs from "./support/logs.ts"
import { makeUsers, messageOf, NotFound, statuses } from "./support/users.ts"

/** Clients that share a store, as processes do. */
const makeProcesses = Effect.gen(function*() {
  const store = yield* CacheStore.CacheStore
  const client = yield* Layer.build(Stub.layer([]))
  return (options?: CachedSqlClient.CachedSqlClientOptions) =>
    Effect.map(
      Layer.build(Layer.fresh(
        CachedSqlClient.layer({ namespace: "shop", ...options }).pipe(
          Layer.provide([Layer.succeed(CacheStore.CacheStore, store), Layer.succeedContext(client)])
        )
      )),
      (context) => <A, E>(effect: Effect.Effect<A, E, QueryCache.QueryCache>) => Effect.provideContext(effect, context)
    )
})

/** What a query of these schemas answers in a process of its own: `1` where nothing was found. */
const asked = <K, A>(
  inProcess: <B, E>(effect: Effect.Effect<B, E, QueryCache.QueryCache>) => Effect.Effect<B, E>,
  Key: Schema.ConstraintCodec<K, unknown>,
  Value: Schema.ConstraintCodec<A, unknown>,
  key: K,
  value: A,
  version?: string
) =>
  inProcess(Effect.gen(function*() {
    let lookups = 0
    const query = yield* CachedQuery.make("q", {
      Key,
      Value,
      version,
      lookup: () => {
        lookups++
        return Effect.succeed(value)
      }
    })
    const found = yield* query.get(key)
    assert.deepStrictEqual(found, value)
    return lookups
  }))

describe("a store of texts", () => {
  it.effect("gives back what was kept, failures too", () =>
    Effect.gen(function*() {
      const process = yield* makeProcesses
      const [one, two] = [yield* process(), yield* process()]
      const options = { keepError: { Error: NotFound, timeToLive: "1 minute" } } as const
      const first = yield* one(makeUsers(options))
      const second = yield* two(makeUsers(options))
      const all = [first, second].map(({ users }) => Effect.all([users.get(1), Effect.flip(users.get(9))]))
      assert.deepStrictEqual(yield* all[0]!, [{ id: 1, name: "Ada" }, new NotFound({ id: 9 })])
      assert.deepStrictEqual(yield* all[1]!, yield* all[0]!)
      assert.isTrue(Object.isFrozen(yield* second.users.get(1)))
      assert.deepStrictEqual(yield* statuses(second.users.getMany([1, 2, 1])), ["hit", "hit", "miss"])
      assert.deepStrictEqual(first.asked, [1, 9])
      assert.deepStrictEqual(second.asked, [2])
      // An invalidation is everybody's.
      yield* first.users.invalidate(1)
      assert.deepStrictEqual(yield* statuses(second.users.get(1)), ["miss"])
    }).pipe(Effect.provide(EncodedStore.layer)))

  it.effect("values keep their types", () =>
    Effect.gen(function*() {
      const process = yield* makeProcesses
      const all: ReadonlyArray<[Schema.ConstraintCodec<any, unknown>, unknown]> = [
        [Schema.Date, new Date(7)],
        [Schema.BigInt, 2n ** 70n],
        [Schema.Number, NaN],
        [Schema.Number, -Infinity],
        [Schema.Option(Schema.Date), Option.some(new Date(7))],
        [Schema.Option(Schema.Date), Option.none()],
        [Schema.UndefinedOr(Schema.String), undefined],
        [Schema.Uint8Array, new Uint8Array([1, 255])],
        [Schema.Literal(1n), 1n],
        [Schema.ReadonlyMap(Schema.String, Schema.Date), new Map([["a", new Date(1)]])],
        [Schema.Void, undefined]
      ]
      for (const [i, [Value, value]] of all.entries()) {
        const [one, two] = [yield* process({ schemaVersion: `${i}` }), yield* process({ schemaVersion: `${i}` })]
        assert.strictEqual(yield* asked(one, Schema.Int, Value, 1, value), 1)
        assert.strictEqual(yield* asked(two, Schema.Int, Value, 1, value), 0, `${i}`)
      }
    }).pipe(Effect.provide(EncodedStore.layer)))

  it.effect("an entry of another schema, version or key is never read", () =>
    Effect.gen(function*() {
      const process = yield* makeProcesses
      const one = { id: 1 }
      const Id = Schema.Struct({ id: Schema.Int })
      const Value = Schema.Struct({ a: Schema.Number })
      const expected = { a: 1 }
      const ask = <K, A>(
        Key: Schema.ConstraintCodec<K, unknown>,
        Value: Schema.ConstraintCodec<A, unknown>,
        key: K,
        value: A,
        version?: string
      ) => Effect.flatMap(process(), (inProcess) => asked(inProcess, Key, Value, key, value, version))
      assert.strictEqual(yield* ask(Id, Value, one, expected), 1)
      assert.strictEqual(yield* ask(Id, Value, one, expected), 0)
      assert.strictEqual(yield* ask(Id, Value, one, expected, "2"), 1)
      // A key that is written alike under another name, and another kind of key.
      assert.strictEqual(yield* ask(Schema.Struct({ org: Schema.Int }), Value, { org: 1 }, expected), 1)
      assert.strictEqual(yield* ask(Schema.Struct({ id: Schema.String }), Value, { id: "1" }, expected), 1)
      assert.strictEqual(yield* ask(Schema.Int, Value, 1, expected), 1)
      assert.strictEqual(yield* ask(Schema.String, Value, "1", expected), 1)
      // Values that decode as others do, or nearly.
      assert.strictEqual(yield* ask(Id, Schema.Struct({ a: Schema.Finite }), one, expected), 1)
      assert.strictEqual(
        yield* ask(Id, Schema.Struct({ a: Schema.Number, b: Schema.optional(Schema.String) }), one, expected),
        1
      )
      assert.strictEqual(yield* ask(Id, Value, one, expected), 0)
      // A literal that JSON cannot write, and patterns that differ.
      const pattern = (of: RegExp) => Schema.String.check(Schema.isPattern(of))
      assert.strictEqual(yield* ask(Schema.Literals([1n, 2n]), Value, 1n, expected), 1)
      assert.strictEqual(yield* ask(Schema.Literals([1n, 3n]), Value, 1n, expected), 1)
      assert.strictEqual(yield* ask(Schema.Int, pattern(/a/), 1, "ab"), 1)
      assert.strictEqual(yield* ask(Schema.Int, pattern(/b/), 1, "ab"), 1)
    }).pipe(Effect.provide(EncodedStore.layer)))

  it.effect("what does not decode is a miss, and is replaced", () =>
    Effect.gen(function*() {
      const inner = yield* CacheStore.CacheStore
      let isBroken = false
      const store: CacheStore.CacheStore["Service"] = {
        ...inner,
        lookup: (key, ...rest) =>
          inner.lookup(isBroken ? { ...key, codec: { ...key.codec, decode: () => JSON.parse("{") } } : key, ...rest)
      }
      yield* Effect.gen(function*() {
        const { asked, name } = yield* makeUsers()
        yield* name(1)
        isBroken = true
        assert.strictEqual(yield* name(1), "Ada")
        isBroken = false
        assert.deepStrictEqual(yield* statuses(name(1)), ["hit"])
        assert.deepStrictEqual(asked, [1, 1])
      }).pipe(Effect.provide([
        CachedSqlClient.layer({ namespace: "shop" }).pipe(
          Layer.provide([Layer.succeed(CacheStore.CacheStore, store), Stub.layer([])])
        ),
        Logs.layer
      ]))
    }).pipe(Effect.provide(EncodedStore.layer)))

  it.effect("a value that its schema does not write is returned, and not kept", () =>
    Effect.gen(function*() {
      const process = yield* makeProcesses
      yield* (yield* process())(Effect.gen(function*() {
        let lookups = 0
        const query = yield* CachedQuery.make("q", {
          Key: Schema.Int,
          Value: Schema.String as Schema.ConstraintCodec<unknown, unknown>,
          lookup: () => Effect.succeed(++lookups)
        })
        assert.deepStrictEqual([yield* query.get(1), yield* query.get(1)], [1, 2])
      }))
    }).pipe(Effect.provide(EncodedStore.layer)))
})

describe("keys", () => {
  it.effect("of any kind, equal where they are written alike", () =>
    Effect.gen(function*() {
      const count = <K>(name: string, Key: Schema.ConstraintCodec<K, unknown>, keys: ReadonlyArray<K>) =>
        Effect.gen(function*() {
          const asked: Array<K> = []
          const query = yield* CachedQuery.make(name, {
            Key,
            Value: Schema.Number,
            lookup: (key) => Effect.sync(() => asked.push(key))
          })
          for (let round = 0; round < 2; round++) {
            for (const key of keys) yield* query.get(key)
          }
          return asked.length
        })
      assert.strictEqual(yield* count("number", Schema.Number, [0, 1, 1.5, NaN, Infinity, -Infinity]), 6)
      assert.strictEqual(yield* count("string", Schema.String, ["", "1", "=", "\0", "a\nb"]), 5)
      assert.strictEqual(yield* count("boolean", Schema.Boolean, [true, false]), 2)
      assert.strictEqual(yield* count("date", Schema.Date, [new Date(1), new Date(1), new Date(2)]), 2)
      assert.strictEqual(yield* count("array", Schema.Array(Schema.String), [["a", "b"], ["ab"], ["a", "b"]]), 2)
      const Pair = Schema.Struct({ a: Schema.String, b: Schema.String })
      const pairs = [{ a: "x", b: "y" }, { b: "y", a: "x" }, { a: "x\"1", b: "y" }, { a: "x", b: "1\"y" }, {
        a: "",
        b: "xy"
      }]
      assert.strictEqual(yield* count("pair", Pair, pairs), 4)
      const Mixed = Schema.Struct({
        a: Schema.Union([Schema.Number, Schema.String]),
        b: Schema.optional(Schema.Number)
      })
      const mixed = [{ a: 1 }, { a: "1" }, { a: 1, b: 1 }, { b: 1, a: 1 }]
      assert.strictEqual(yield* count("mixed", Mixed, mixed), 3)
      class Id extends Schema.Class<Id>("Id")({ id: Schema.Int }) {}
      assert.strictEqual(yield* count("class", Id, [new Id({ id: 1 }), new Id({ id: 1 }), new Id({ id: 2 })]), 2)
    }).pipe(Effect.provide(CachedSqlClient.layerTest(() => []))))

  it.effect("a name is taken once; one that is refused is free", () =>
    Effect.gen(function*() {
      const bad = yield* Effect.exit(makeUsers({ timeToLive: -1 }))
      assert.match(messageOf(bad), /option "timeToLive" must be/)
      yield* makeUsers()
      assert.match(messageOf(yield* Effect.exit(makeUsers())), /CachedQuery\.make: option "name" must be.*"user"/)
      for (
        const [options, expected] of [
          [{ lookup: 1 }, /option "lookup" must be a function/],
          [{ related: 1 }, /option "related" must be a function/],
          [{ keepError: { Error: NotFound, timeToLive: 0 } }, /option "keepError.timeToLive"/],
          [{ hardTimeout: "1 second" }, /option "hardTimeout" must be absent/],
          [{ jitter: 1 }, /option "jitter"/]
        ] as const
      ) assert.match(messageOf(yield* Effect.exit(makeUsers(options as object))), expected)
    }).pipe(Effect.provide(CachedSqlClient.layerTest(() => []))))
})

describe("who asks", () => {
  it.effect("scopes are kept apart", () =>
    Effect.gen(function*() {
      const scopes: Array<string> = []
      const query = yield* CachedQuery.make("q", {
        Key: Schema.Int,
        Value: Schema.String,
        lookup: () =>
          Effect.map(CacheScope.CurrentScope, (scope) => {
            scopes.push(scope?.key ?? "")
            return scope?.key ?? ""
          })
      })
      const as = (tenant: string) => CacheScope.provide({ tenant })
      const all = Effect.all([
        query.get(1),
        as("acme")(query.get(1)),
        as("globex")(query.get(1)),
        as("acme")(Effect.map(query.getMany([1]), ([one]) => one!))
      ], { concurrency: "unbounded" })
      const [acme, globex] = ["acme", "globex"].map((tenant) => CacheScope.resolve({ tenant }).key)
      assert.deepStrictEqual(yield* all, ["", acme!, globex!, acme!])
      assert.deepStrictEqual(yield* all, ["", acme!, globex!, acme!])
      assert.strictEqual(scopes.length, 3)
      // An invalidation of a key is for all of them: what it stands for has changed.
      yield* query.invalidate(1)
      yield* all
      assert.strictEqual(scopes.length, 6)
    }).pipe(Effect.provide(CachedSqlClient.layerTest(() => []))))

  it.effect("a lookup has what was at hand where the query was made, and the caller's references", () =>
    Effect.gen(function*() {
      class Service extends Context.Service<Service, string>()("test/Service") {}
      const query = yield* Effect.provideService(
        CachedQuery.make("q", { Key: Schema.Int, Value: Schema.String, lookup: () => Service }),
        Service,
        "maker"
      )
      assert.strictEqual(yield* Effect.provideService(query.get(1), Service, "caller"), "maker")
    }).pipe(Effect.provide(CachedSqlClient.layerTest(() => []))))

  it.effect("withInfo tells the name, the status, the age", () =>
    Effect.gen(function*() {
      const { users } = yield* makeUsers()
      yield* users.get(1)
      yield* TestClock.adjust("10 seconds")
      const [[info]] = yield* QueryCache.withInfo(users.get(1))
      const { age, fingerprint, level, name, sql, status } = info!
      assert.deepInclude({ level, name, sql, status }, { level: "L1", name: "user", sql: undefined, status: "hit" })
      assert.strictEqual(Duration.toSeconds(age), 10)
      assert.match(fingerprint!, /^[0-9a-f]+$/)
      assert.deepStrictEqual(yield* statuses(QueryCache.uncached(users.get(1))), ["bypass uncached"])
    }).pipe(Effect.provide(CachedSqlClient.layerTest(() => []))))

  it.effect("a rule by name applies, and can keep it out of the cache", () =>
    Effect.gen(function*() {
      const layer = CachedSqlClient.layerTest(() => [], { rules: [{ match: "us*", policy: "uncached" }] })
      yield* Effect.gen(function*() {
        const { asked, users } = yield* makeUsers()
        assert.deepStrictEqual(yield* statuses(users.getMany([1, 2])), ["bypass rule", "bypass rule"])
        yield* users.update(1, Effect.void)
        yield* users.set(1, { id: 1, name: "set" })
        assert.strictEqual((yield* users.get(1)).name, "Ada")
        assert.isAbove(asked.length, 2)
      }).pipe(Effect.provide(layer))
    }))

  it.effect("without a cache everything is asked of the database, and nothing kept", () =>
    Effect.gen(function*() {
      const { asked, name, rows, users } = yield* makeUsers()
      yield* name(1)
      yield* users.getMany([1, 2])
      yield* users.set(1, { id: 1, name: "set" })
      assert.strictEqual(yield* users.update(1, Effect.sync(() => rows.set(1, "new").size)), 3)
      yield* users.refresh(1)
      yield* users.invalidate(1)
      assert.strictEqual(yield* name(1), "new")
      assert.deepStrictEqual(asked, [1, 1, 2, 1, 1])
    }).pipe(Effect.provide(CachedSqlClient.layerNoop.pipe(Layer.provide(Stub.layer([]))))))
})
