// A process, as far as PostgreSQL and Redis can tell: a decorated client with connections of its own over a store of its
// own, whose commands wait when a test says so, and which dies when it does.
import { PgClient } from "@effect/sql-pg"
import {
  CachedSqlClient,
  CacheError,
  CacheStore,
  Fingerprinter,
  QueryAnalyzer,
  QueryCache,
  RedisStore
} from "effect-query-cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import { assert } from "vitest"
import * as Scripts from "../../src/internal/redis/scripts.ts"
import { fateOf, nameOf } from "../client/fixture.ts"
import * as Gate from "./gate.ts"
import { layerServer, PostgresServer } from "./postgres.ts"
import * as TestRedis from "./redis.ts"

export interface Options {
  readonly cache?: CachedSqlClient.CachedSqlClientOptions
  /** Over the Redis of the process. */
  readonly store?: Layer.Layer<CacheStore.CacheStore, never, Redis.Redis>
  readonly client?: Partial<PgClient.PgPoolConfig>
}

export interface Process {
  readonly sql: PgClient.PgClient
  /** The client that is decorated. */
  readonly base: PgClient.PgClient
  readonly store: CacheStore.CacheStore["Service"]
  readonly gate: Gate.Gate
  readonly context: Context.Context<CachedSqlClient.Services>
  /** From now on nothing it sends reaches Redis. */
  readonly cutOff: () => void
  readonly reconnect: () => void
}

// The parser takes longer to load than all the rest: once per file.
const analyzer = Effect.runSync(Effect.cached(Effect.scoped(
  Effect.map(Layer.build(QueryAnalyzer.layer()), (context) => Context.get(context, QueryAnalyzer.QueryAnalyzer))
)))

const gone = new Redis.RedisError({ cause: new Error("Socket closed unexpectedly") })

export const strict = (options?: RedisStore.RedisStoreOptions) =>
  RedisStore.layer({ consistency: "strict", ...options })

export const make = Effect.fnUntraced(function*(
  { cache, client, store = strict() }: Options = {}
): Effect.fn.Return<Process, SqlError, PostgresServer | TestRedis.RedisServer | Scope.Scope> {
  const { config } = yield* PostgresServer
  const connected = yield* Layer.build(Layer.fresh(TestRedis.client(yield* TestRedis.RedisServer)))
  const connection = Context.get(connected, Redis.Redis)
  let isCutOff = false
  const gate = Gate.make({
    ...connection,
    send: (...command) => Effect.suspend(() => isCutOff ? Effect.fail(gone) : connection.send<any>(...command))
  })
  const context = yield* Layer.build(Layer.fresh(
    CachedSqlClient.layerNoDeps({
      namespace: "shop",
      lookupTimeout: "2 seconds",
      invalidationTimeout: "10 seconds",
      ...cache
    }).pipe(
      Layer.provideMerge(Fingerprinter.layer),
      Layer.provideMerge(Layer.fresh(store)),
      Layer.provide(Layer.succeed(Redis.Redis, gate.redis)),
      Layer.provideMerge(Layer.effect(
        Base,
        PgClient.PgClient
      )),
      Layer.provide(PgClient.layer({ ...config, maxConnections: 4, ...client })),
      Layer.provide(Layer.effect(QueryAnalyzer.QueryAnalyzer, Effect.orDie(analyzer))),
      Layer.provide(Reactivity.layer)
    )
  ))
  return {
    sql: Context.get(context, PgClient.PgClient),
    base: Context.get(context, Base),
    store: Context.get(context, CacheStore.CacheStore),
    gate,
    context,
    cutOff: () => {
      isCutOff = true
    },
    reconnect: () => {
      isCutOff = false
    }
  }
})

class Base extends Context.Service<Base, PgClient.PgClient>()("test/StrictProcess/Base") {}

export const servers = Layer.mergeAll(layerServer(), TestRedis.layer())

export const key = (name: string) => `eqc:{shop:0}:${name}`

export const redis = (...command: ReadonlyArray<string>) =>
  Effect.flatMap(TestRedis.RedisServer, (server) => server.command(...command))

/** By the real clock, and not for long. */
export const eventually = Effect.fnUntraced(
  function*<A, E, R>(what: string, condition: Effect.Effect<A | false, E, R>) {
    for (let i = 0; i < 1500; i++) {
      const found = yield* condition
      if (found !== false) return found
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 2)))
    }
    return assert.fail(`never: ${what}`)
  }
)

export const held = (gate: { readonly isHeld: () => boolean }) =>
  eventually("held", Effect.sync(() => gate.isHeld() && true))

/** New tables, before anybody knows of them. */
const tables = Effect.gen(function*() {
  const { config } = yield* PostgresServer
  const base = Context.get(yield* Layer.build(PgClient.layer({ ...config, maxConnections: 1 })), PgClient.PgClient)
  yield* base.unsafe(`DO $$ BEGIN
    DROP SCHEMA public CASCADE;
    CREATE SCHEMA public;
    CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, status text NOT NULL DEFAULT 'active');
    INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger');
    CREATE TABLE orders (
      id int PRIMARY KEY, user_id int NOT NULL REFERENCES users DEFERRABLE INITIALLY DEFERRED, total int NOT NULL
    );
    CREATE PROCEDURE touch() LANGUAGE sql AS $p$ UPDATE users SET name = 'Touched' WHERE id = 3 $p$;
  END $$`)
}).pipe(Effect.scoped)

export const cached = ({ sql }: Process, id = 1) => nameOf(sql, id).pipe(QueryCache.cached())

export const rename = ({ sql }: Process, name: string, id = 1) => sql`UPDATE users SET name = ${name} WHERE id = ${id}`

/** Reads until it is served from the cache. */
export const warm = (process: Process, id = 1) =>
  eventually("a hit", Effect.map(fateOf(cached(process, id)), ([fate]) => fate === "hit"))

export const read = (process: Process, id = 1) =>
  Effect.map(fateOf(cached(process, id)), ([fate, [row]]) => [fate, row.name])

/** The fences that stand. */
export const fences = Effect.map(
  redis("HKEYS", key("fences")),
  (fields: ReadonlyArray<string>) => fields.filter((field) => field.startsWith("t:")).map((field) => field.slice(2))
)

const setDeadlines = (millis: () => number) =>
  Effect.suspend(() =>
    redis(
      "EVAL",
      `local all = redis.call("HGETALL", KEYS[1])
      for i = 1, #all, 2 do
        if string.sub(all[i], 1, 2) == "t:" then
          redis.call("HSET", KEYS[1], all[i], (string.gsub(all[i + 1], "^%d+", ARGV[1])))
        end
      end`,
      "1",
      key("fences"),
      `${millis()}`
    )
  )

/** The time of the fences has passed. */
export const expire = setDeadlines(() => 1)

/** It passes no sooner than the slowest machine needs for a test. */
export const prolong = setDeadlines(() => Date.now() + 50_000)

export const noFences = eventually("no fences", Effect.map(fences, ({ length }) => length === 0))

/** Two processes over fresh data, with user 1 in the cache. */
export const setUp = Effect.fnUntraced(function*(options?: Options) {
  yield* redis("FLUSHALL")
  yield* tables
  const writer = yield* make(options)
  const reader = yield* make(options)
  yield* warm(reader)
  return { reader, writer }
})

/** A writer that has committed, and whose invalidation has not left it. */
export const committing = Effect.fnUntraced(function*(
  writer: Process,
  name: string,
  lua = Scripts.invalidateStrict.lua
) {
  const gate = writer.gate.holdCommand("request", lua)
  const writing = yield* Effect.forkChild(rename(writer, name))
  yield* held(gate)
  const names = yield* writer.base`SELECT name FROM users WHERE id = 1`.values
  assert.deepStrictEqual(names, [[name]])
  yield* prolong
  return { gate, writing }
})

export const codeOf = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>) {
  return CacheError.strictWriteErrorOf(yield* Effect.flip(effect))?.code
})
