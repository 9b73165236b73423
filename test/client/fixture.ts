/**
 * What the tests of the decorated client share: a database with two tables, the client under test, and beside it the
 * client that it decorates.
 */
import { PgClient } from "@effect/sql-pg"
import { CachedSqlClient, CacheStore, Fingerprinter, QueryAnalyzer, QueryCache } from "effect-query-cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as SqlClient from "effect/sql/SqlClient"
import * as TestClock from "effect/testing/TestClock"
import * as Postgres from "../support/postgres.ts"

/** The client that is decorated: what it does, the cache does not see. */
export class Base extends Context.Service<Base, PgClient.PgClient>()("test/Base") {}

export interface Options<R = never> {
  readonly cache?: CachedSqlClient.CachedSqlClientOptions
  readonly client?: Partial<PgClient.PgPoolConfig>
  readonly store?: Layer.Layer<CacheStore.CacheStore, never, R>
}

// The parser takes longer to load than all the rest: once per file.
const analyzer = Layer.effect(
  QueryAnalyzer.QueryAnalyzer,
  Effect.runSync(Effect.cached(Effect.scoped(
    Effect.map(Layer.build(QueryAnalyzer.layer()), (context) => Context.get(context, QueryAnalyzer.QueryAnalyzer))
  )))
)

/** New tables and an empty cache, on the server in the context. */
export const layer = <R = never>(options: Options<R> = {}) =>
  CachedSqlClient.layerNoDeps(options.cache)
    .pipe(
      Layer.provideMerge(Layer.effect(Base, Effect.tap(PgClient.PgClient, tables))),
      Layer.provideMerge<R, never, CacheStore.CacheStore>(options.store ?? CacheStore.layerMemory()),
      Layer.provide(Postgres.layerClient(options.client)),
      Layer.provideMerge(Fingerprinter.layer),
      Layer.provide(analyzer),
      Layer.provideMerge(Reactivity.layer)
    )

const tables = (sql: SqlClient.SqlClient) =>
  sql.unsafe(`DO $$ BEGIN
    DROP SCHEMA public CASCADE;
    CREATE SCHEMA public;
    CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, status text NOT NULL DEFAULT 'active');
    INSERT INTO users VALUES (1, 'Ada', 'active'), (2, 'Grace', 'active'), (3, 'Edsger', 'retired');
    CREATE TABLE orders (
      id int PRIMARY KEY,
      user_id int NOT NULL REFERENCES users DEFERRABLE INITIALLY DEFERRED,
      total int NOT NULL
    );
    INSERT INTO orders VALUES (10, 1, 100), (11, 1, 200), (12, 2, 300);
  END $$`)

/** A read to cache: the name of a user. */
export const nameOf = (sql: SqlClient.SqlClient, id: number) =>
  sql<{ name: string }>`SELECT name FROM users WHERE id = ${id}`

/** What became of each statement: `hit`, `miss`, `write`, `bypass transaction` and so on. */
export const fates = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<ReadonlyArray<string>, E, R> =>
  Effect.map(QueryCache.withInfo(effect), ([queries]) => queries.map(fate))

/** What became of a single statement, with its rows. */
export const fateOf = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<readonly [fate: string, rows: A], E, R> =>
  Effect.map(QueryCache.withInfo(effect), ([queries, rows]) => [queries.map(fate).join(", "), rows])

/** By the real clock, for what servers do meanwhile. */
export const moment = Effect.promise(() => new Promise<void>((resolve) => setTimeout(resolve, 3)))

/** What becomes of a read once it may be served again; the TestClock goes on meanwhile. */
export const served = Effect.fnUntraced(function*<A, E, R>(query: Effect.Effect<A, E, R>) {
  for (;;) {
    const [fate, rows] = yield* fateOf(query)
    if (fate !== "bypass unserved") return [fate, rows] as const
    yield* TestClock.adjust(100)
    yield* moment
  }
})

const fate = ({ reason, status }: QueryCache.QueryInfo): string => status === "bypass" ? `${status} ${reason}` : status
