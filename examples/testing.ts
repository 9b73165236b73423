// How a program's own tests look. `CachedSqlClient.layerTest` is a scripted database with a real cache in front of it:
// tests say what the database answers, and see which queries got there. (A project's own file would be named
// `*.test.ts`; this one is run by test/examples.test.ts.)
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { CachedSqlClient, Invalidator, QueryCache } from "effect-query-cache"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { TestClock } from "effect/testing"

// What is to be tested: a service that knows nothing of tests.
class Rates extends Context.Service<Rates, {
  readonly of: (currency: string) => Effect.Effect<number, SqlError>
  readonly set: (currency: string, rate: number) => Effect.Effect<void, SqlError>
}>()("examples/Rates") {
  static readonly layer = Layer.effect(
    Rates,
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      return {
        of: (currency) =>
          sql<{ rate: number }>`SELECT rate FROM rates WHERE currency = ${currency}`.pipe(
            QueryCache.cached({ timeToLive: "10 minutes" }),
            Effect.map((rows) => rows[0]!.rate)
          ),
        set: (currency, rate) => sql`UPDATE rates SET rate = ${rate} WHERE currency = ${currency}`
      }
    })
  )
}

// Answers every SELECT with the same rate.
const Test = Rates.layer.pipe(
  Layer.provideMerge(CachedSqlClient.layerTest(({ sql }) => sql.startsWith("SELECT") ? [{ rate: 1.08 }] : []))
)

const asked = Effect.flatMap(CachedSqlClient.TestDatabase, ({ queries }) => queries)

describe("Rates", () => {
  it.effect("asks the database once, until the time is up", () =>
    Effect.gen(function*() {
      const rates = yield* Rates
      assert.strictEqual(yield* rates.of("EUR"), 1.08)
      yield* TestClock.adjust("9 minutes")
      yield* rates.of("EUR")
      assert.deepStrictEqual((yield* asked).map(({ params }) => params), [["EUR"]])

      yield* TestClock.adjust("1 minute")
      yield* rates.of("EUR")
      assert.strictEqual((yield* asked).length, 2)
    }).pipe(Effect.provide(Test)))

  it.effect("asks again after a write", () =>
    Effect.gen(function*() {
      const rates = yield* Rates
      yield* rates.of("EUR")
      yield* rates.set("EUR", 1.1)
      yield* rates.of("EUR")
      const statements = (yield* asked).map(({ sql }) => sql.slice(0, 6))
      assert.deepStrictEqual(statements, ["SELECT", "UPDATE", "SELECT"])
    }).pipe(Effect.provide(Test)))

  it.effect("a call to the Invalidator can be asserted without a database", () =>
    Effect.gen(function*() {
      const calls: Array<Invalidator.InvalidationTargets> = []
      const recorded = Layer.mock(Invalidator.Invalidator, {
        invalidate: (targets) => Effect.sync(() => void calls.push(targets))
      })
      yield* Invalidator.invalidate({ tags: ["rates"] }).pipe(Effect.provide(recorded))
      assert.deepStrictEqual(calls, [{ tags: ["rates"] }])
    }))
})
