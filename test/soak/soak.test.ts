// The share of the soak that every test run does: `npm run soak` does more of the same, until all limits are reached.
import { PgClient } from "@effect/sql-pg"
import { assert, it } from "@effect/vitest"
import { CacheStore, QueryCache } from "effect-query-cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import * as Fleet from "../support/fleet.ts"
import * as Database from "./database.ts"
import {
  beyond,
  countInstances,
  cycle,
  growth,
  instanceLimits,
  limits,
  type Look,
  soak,
  type SoakOptions
} from "./soak.ts"

const options: SoakOptions = {
  queries: 10_000,
  textEvery: Infinity,
  lookEvery: 4_000,
  capacity: 500,
  maxDependencies: 1_000,
  timeToLiveMillis: 1_000,
  client: Database.scripted
}

// What a query may leave in the heap and in Redis, where it leaves nothing: of 4,000 queries a look sees as much to about
// half a megabyte. An entry, a flight or a set of dependencies takes more each.
const most = { heapBytes: 300, redisBytes: 60 }

/** Of the last looks: by the first, not everything has been compiled. */
const growthOf = (looks: ReadonlyArray<Look>, figure: "heapBytes" | "redisBytes"): number =>
  growth(looks.slice(1), (look) => look[figure])

it.live("what is kept of queries has a limit, in the process and in Redis", () =>
  Effect.gen(function*() {
    const { looks, stats } = yield* soak(options)
    assert.lengthOf(looks, 3)
    for (const { counts, redisKeys, redisStamps } of looks) {
      assert.deepStrictEqual(beyond(counts, limits), [])
      assert.isAtMost(redisStamps, options.maxDependencies * 1.1)
      // Those of the namespace, which have no end.
      assert.strictEqual(redisKeys, 2)
    }
    assert.isBelow(growthOf(looks, "heapBytes"), most.heapBytes)
    assert.isBelow(growthOf(looks, "redisBytes"), most.redisBytes)
    // It was no soak if nothing was stored, found and invalidated.
    assert.isAbove(stats.fills, 3_000)
    assert.isAbove(stats.hits + stats.joined, 50)
    assert.isAbove(stats.invalidations, 500)
  }).pipe(Effect.provideService(References.MinimumLogLevel, "Warn")), 300_000)

it.live("what has none is noticed", () =>
  Effect.gen(function*() {
    const left: Array<object> = []
    const { looks } = yield* soak({
      ...options,
      leak: (query) => void left.push({ query, values: Array.from({ length: 100 }, (_, i) => query + i / 2) })
    })
    assert.isAbove(growthOf(looks, "heapBytes"), most.heapBytes)
    assert.lengthOf(left, options.queries)
  }).pipe(Effect.provideService(References.MinimumLogLevel, "Warn")), 300_000)

it.effect("what is kept of texts has a limit", () =>
  Effect.gen(function*() {
    const context = yield* Fleet.member(() => [], CacheStore.layerMemory())
    const sql = Context.get(context, PgClient.PgClient)
    for (let i = 0; i < cycle + 5_000; i++) {
      const { verdict } = yield* QueryCache.explain(sql.unsafe(`SELECT id AS "name ${i}" FROM users`))
      assert.strictEqual(verdict, "cached")
    }
    const instances = countInstances()
    assert.deepStrictEqual(beyond(instances, instanceLimits(0)), [])
    // They are what is counted.
    assert.isAbove(instances.forms!, 5_000)
    assert.isAbove(instances.formNodes!, 4_000)
  }), 300_000)
