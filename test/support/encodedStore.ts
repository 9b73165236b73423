// A store that keeps texts, as one that is shared between processes does, in this process: what is served from it has
// been encoded and decoded, and is found by its fingerprint alone.
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as CacheStore from "../../src/CacheStore.ts"

type Service = CacheStore.CacheStore["Service"]

export const make = (inner: Service): Service => {
  const keyOf = (key: CacheStore.CacheKey): CacheStore.CacheKey => ({
    namespace: key.namespace,
    space: "texts",
    local: key.fingerprint,
    fingerprint: key.fingerprint,
    codec: key.codec
  })
  const decoded = (key: CacheStore.CacheKey, outcome: CacheStore.Outcome): CacheStore.Outcome => {
    if (outcome._tag !== "Hit" && outcome._tag !== "Stale") return outcome
    try {
      return { ...outcome, level: "L2", value: key.codec.decode(outcome.value as string) }
    } catch {
      return { _tag: "Miss", lease: outcome.lease, reason: "undecodable" }
    }
  }
  const store: Service["store"] = (key, entry, lease) => {
    const value = key.codec.encode(entry.value)
    return value === undefined ? Effect.succeed("refused") : inner.store(keyOf(key), { ...entry, value }, lease)
  }
  return {
    ...inner,
    shared: true,
    peek: () => undefined,
    lookup: (key, dependencies, maxAgeMillis) =>
      Effect.map(inner.lookup(keyOf(key), dependencies, maxAgeMillis), (outcome) => decoded(key, outcome)),
    lookupMany: (requests) =>
      Effect.map(
        inner.lookupMany(requests.map((request) => ({ ...request, key: keyOf(request.key) }))),
        (outcomes) => outcomes.map((outcome, i) => decoded(requests[i]!.key, outcome))
      ),
    store,
    storeMany: (requests) => Effect.forEach(requests, ({ entry, key, lease }) => store(key, entry, lease))
  }
}

export const layer: Layer.Layer<CacheStore.CacheStore> = Layer.effect(
  CacheStore.CacheStore,
  Effect.map(CacheStore.CacheStore, make)
).pipe(Layer.provide(CacheStore.layerMemory()))
