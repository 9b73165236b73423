// What is judged: the decorated client, over a store that keeps nothing and writes down what it is told.
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as CacheScope from "../../src/CacheScope.ts"
import * as CacheStore from "../../src/CacheStore.ts"
import type * as Dependency from "../../src/Dependency.ts"
import * as Fingerprinter from "../../src/Fingerprinter.ts"
import * as QueryAnalyzer from "../../src/QueryAnalyzer.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import { reader } from "./world.ts"

export interface Subject {
  /** Runs a query. `undefined`: its answer is not cached. */
  readonly read: (
    sql: string,
    parameters: ReadonlyArray<unknown>,
    options?: { readonly scoped?: boolean }
  ) => Effect.Effect<Dependency.DependencySet | undefined, SqlError>
  /** Runs a write. What it invalidates, be it in several calls. `raw`: nobody looks at what it returns. */
  readonly write: (
    sql: string,
    parameters: ReadonlyArray<unknown>,
    options?: { readonly raw?: boolean }
  ) => Effect.Effect<Dependency.Targets, SqlError>
}

/** What an analyzer is bound to, changed: how a mutant comes to know less. */
export type Change = (schema: QueryAnalyzer.BoundSchema) => QueryAnalyzer.BoundSchema

// The parser takes longer to load than all the rest: once per process.
const parsed = Effect.runSync(Effect.cached(Effect.provide(QueryAnalyzer.QueryAnalyzer, QueryAnalyzer.layer())))

/** Over the client in the context, whose database has its tables. */
export const make = Effect.fnUntraced(function*(change: Change = (schema) => schema) {
  let asked: Dependency.DependencySet | undefined
  let told: Array<Dependency.Targets> = []
  const lease = { epoch: "", clock: 0 }
  const lookup = (_: CacheStore.CacheKey, dependencies: Dependency.DependencySet): CacheStore.Outcome => {
    asked = dependencies
    return { _tag: "Miss", lease, reason: "absent" }
  }
  const store = Layer.succeed(CacheStore.CacheStore, {
    shared: false,
    peek: () => undefined,
    lookup: (key, dependencies) => Effect.sync(() => lookup(key, dependencies)),
    lookupMany: (requests) => Effect.sync(() => requests.map(({ dependencies, key }) => lookup(key, dependencies))),
    store: () => Effect.succeed("refused"),
    release: () => Effect.void,
    storeMany: (requests) => Effect.succeed(requests.map(() => "refused" as const)),
    invalidate: (targets) => Effect.sync(() => (told.push(targets), [lease])),
    changes: Stream.never,
    applied: () => undefined,
    seen: () => []
  })
  const context = yield* Layer.build(
    CachedSqlClient.layerNoDeps({ namespace: "oracle" }).pipe(
      Layer.provide([
        store,
        Fingerprinter.layer,
        Layer.effect(
          QueryAnalyzer.QueryAnalyzer,
          Effect.map(parsed, ({ analyze, bind }) => ({ analyze, bind: (schema) => bind!(change(schema)) }))
        )
      ])
    )
  )
  const sql = yield* Effect.provide(SqlClient.SqlClient, context)
  const inScope = CacheScope.provide({ role: reader })

  const subject: Subject = {
    read: (text, parameters, options) =>
      Effect.suspend(() => {
        asked = undefined
        const query = QueryCache.cached(sql.unsafe(text, parameters), { timeToLive: "1 hour" })
        return Effect.map(options?.scoped === true ? inScope(query) : query, () => asked)
      }),
    write: (text, parameters, options) =>
      Effect.suspend(() => {
        told = []
        const statement = sql.unsafe(text, parameters)
        const run: Effect.Effect<unknown, SqlError> = options?.raw === true ? statement.raw : statement
        return Effect.map(run, () => ({
          stamps: told.flatMap(({ stamps }) => stamps),
          images: told.flatMap(({ images }) => images),
          all: told.some(({ all }) => all)
        }))
      })
  }
  return subject
})
