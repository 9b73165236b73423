// The built package on the Node that runs this: every public entry loads, and the memory store keeps its promise.
import * as Effect from "effect/Effect"
import assert from "node:assert/strict"
import { readdirSync } from "node:fs"

const modules = readdirSync(new URL("../../src", import.meta.url)).filter((file) => file.endsWith(".ts"))
for (const file of modules) {
  const entry = file === "index.ts" ? "effect-query-cache" : `effect-query-cache/${file.slice(0, -3)}`
  assert.notEqual(Object.keys(await import(entry)).length, 0, `${entry} exports nothing`)
}

const { CacheStore, Dependency } = await import("effect-query-cache")

await Effect.gen(function*() {
  const store = yield* CacheStore.CacheStore
  const codec = { encode: JSON.stringify, decode: JSON.parse }
  const key = { namespace: "smoke", space: "", local: 1, fingerprint: "1", codec }
  const dependencies = Dependency.makeSet([Dependency.table("orders")])

  const miss = yield* store.lookup(key, dependencies)
  assert.equal(miss._tag, "Miss")
  const entry = { value: "answer", dependencies, timeToLiveMillis: 60_000, bytes: 6 }
  assert.equal(yield* store.store(key, entry, miss.lease), "accepted")
  assert.equal((yield* store.lookup(key, dependencies)).value, "answer")
  yield* store.invalidate({ namespace: "smoke", ...Dependency.writeTargets([Dependency.table("orders")]) })
  assert.equal((yield* store.lookup(key, dependencies))._tag, "Miss")
  assert.equal(yield* store.store(key, entry, miss.lease), "refused")
}).pipe(Effect.provide(CacheStore.layerMemory()), Effect.runPromise)

console.log(`${modules.length} entries and the memory store work on Node ${process.versions.node}`)
