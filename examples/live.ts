// Whoever looks at something sees it change: as a stream, as a reactive query, and as an atom.
//
//   node examples/live.ts
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Queue, Stream } from "effect"
import { CachedSqlClient, CacheStore, QueryCache } from "effect-query-cache"
import { AsyncResult, Atom, AtomRegistry } from "effect/reactivity"
import { SqlClient } from "effect/sql"
import * as Pglite from "./support/pglite.ts"

// With RedisStore.layer() in place of the memory store, the writes of other processes are seen, too.
const runtime = Atom.runtime(
  CachedSqlClient.layer().pipe(
    Layer.provide([CacheStore.layerMemory(), Pglite.layer()])
  )
)

const stock = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    sql<{ left: number }>`SELECT left_over AS left FROM stock WHERE item = 'tea'`.pipe(
      QueryCache.cached({ name: "stock", timeToLive: "1 hour" }),
      Effect.map((rows) => rows[0]!.left)
    )
)

const sell = runtime.fn((count: number) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`UPDATE stock SET left_over = left_over - ${count} WHERE item = 'tea'`
  )
)

const setup = runtime.atom(Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE stock (item text PRIMARY KEY, left_over int NOT NULL)`
  yield* sql`INSERT INTO stock VALUES ('tea', 100)`
}))

// An atom that is woken by the name of a table.
const stockAtom = runtime.atom(stock).pipe(runtime.factory.withReactivity(["stock"]))

// A stream that needs no names: it follows what the effect has read.
const streamAtom = runtime.atom(QueryCache.changes(stock))

// A reactive query, as Effect's SQL clients have them.
const reactiveAtom = runtime.atom(
  Stream.unwrap(Effect.map(SqlClient.SqlClient, (sql) => sql.reactive(["stock"], stock)))
)

export const program = Effect.gen(function*() {
  const registry = yield* Effect.acquireRelease(
    Effect.sync(() => AtomRegistry.make()),
    (registry) => Effect.sync(() => registry.dispose())
  )
  yield* AtomRegistry.getResult(registry, setup)
  registry.mount(sell)

  const watched = yield* Effect.forEach([stockAtom, streamAtom, reactiveAtom], (atom) =>
    Effect.gen(function*() {
      const values = yield* Queue.unbounded<number>()
      registry.subscribe(atom, (result) => {
        if (AsyncResult.isSuccess(result)) Queue.offerUnsafe(values, result.value)
      }, { immediate: true })
      return values
    }))
  /** What each of them shows next that it has not shown before. */
  const seen = (last: number) =>
    Effect.forEach(watched, (values) => Effect.repeat(Queue.take(values), { until: (left) => left !== last }))

  const first = yield* seen(-1)
  registry.set(sell, 30)
  const second = yield* seen(100)
  registry.set(sell, 70)
  const third = yield* seen(70)
  return { first, second, third }
}).pipe(Effect.scoped)

if (import.meta.main) program.pipe(Effect.tap(Console.log), NodeRuntime.runMain)
