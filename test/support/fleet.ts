// Several processes' worth of clients in one process: each a decorated client of its own, over a scripted database that
// they share, and over a store each that share their data.
import { PgClient } from "@effect/sql-pg"
import { CachedSqlClient, type CacheStore, Fingerprinter, QueryAnalyzer } from "effect-query-cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import * as Scripted from "../../src/internal/testDatabase.ts"

type Respond = (
  query: CachedSqlClient.TestQuery
) => ReadonlyArray<object> | Effect.Effect<ReadonlyArray<object>, SqlError>

// The parser takes longer to load than all the rest: once per file.
const analyzer = Effect.runSync(Effect.cached(Effect.scoped(
  Effect.map(Layer.build(QueryAnalyzer.layer()), (context) => Context.get(context, QueryAnalyzer.QueryAnalyzer))
)))

/** A client, until the scope closes. */
export const member = <E>(
  respond: Respond,
  store: Layer.Layer<CacheStore.CacheStore, E>,
  options?: CachedSqlClient.CachedSqlClientOptions
): Effect.Effect<
  Context.Context<CachedSqlClient.Services | Reactivity.Reactivity | CacheStore.CacheStore>,
  E,
  Scope.Scope
> =>
  Layer.build(
    Layer.fresh(
      CachedSqlClient.layerNoDeps({ namespace: "fleet", catalogInterval: false, ...options }).pipe(
        Layer.provideMerge(Fingerprinter.layer),
        Layer.provideMerge(Layer.fresh(store)),
        Layer.provide(Layer.effect(PgClient.PgClient, Effect.map(Scripted.make(respond), ({ client }) => client))),
        Layer.provide(Layer.effect(QueryAnalyzer.QueryAnalyzer, Effect.orDie(analyzer))),
        Layer.provideMerge(Reactivity.layer)
      )
    )
  )
