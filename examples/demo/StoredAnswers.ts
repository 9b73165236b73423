/**
 * A store under observation: how many answers it has been given, and how large they are.
 */
import { Context, Effect, Layer } from "effect"
import { CacheStore } from "effect-query-cache"

export interface Total {
  readonly answers: number
  /** As the library estimates the size of an answer in memory. */
  readonly bytes: number
}

export class StoredAnswers extends Context.Service<StoredAnswers, {
  /** Of different queries, the latest answer of each: what the store holds at most. */
  readonly total: Effect.Effect<Total>
}>()("examples/demo/StoredAnswers") {}

/** The same store. Any store can be wrapped so: it is a service like others. */
export const observed = <E, R>(
  store: Layer.Layer<CacheStore.CacheStore, E, R>
): Layer.Layer<CacheStore.CacheStore | StoredAnswers, E, R> =>
  Layer.effectContext(Effect.map(CacheStore.CacheStore, (store) => {
    const sizes = new Map<string, number>()
    const note = ({ local, space }: CacheStore.CacheKey, { bytes }: CacheStore.Entry) =>
      sizes.set(`${space} ${typeof local} ${local}`, bytes)
    const total = Effect.sync(() => ({
      answers: sizes.size,
      bytes: [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0)
    }))
    return Context.make(StoredAnswers, { total }).pipe(
      Context.add(CacheStore.CacheStore, {
        ...store,
        store: (key, entry, lease) =>
          Effect.tap(
            store.store(key, entry, lease),
            (verdict) => verdict === "accepted" ? Effect.sync(() => note(key, entry)) : Effect.void
          )
      })
    )
  })).pipe(Layer.provide(store))
