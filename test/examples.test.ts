// The examples, run as they are. Those with a store of their own bring the real thing.
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Option, Redacted } from "effect"
import { CacheStore } from "effect-query-cache"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import * as Batching from "../examples/batching.ts"
import * as Composition from "../examples/composition.ts"
import * as Redis from "../examples/demo-redis.ts"
import * as Upstash from "../examples/demo-upstash.ts"
import * as Demo from "../examples/demo/demo.ts"
import type { Report } from "../examples/demo/report.ts"
import { Screen } from "../examples/demo/Screen.ts"
import * as Invalidation from "../examples/invalidation.ts"
import * as Keyed from "../examples/keyed.ts"
import * as Live from "../examples/live.ts"
import * as Materialized from "../examples/materialized.ts"
import * as Quickstart from "../examples/quickstart.ts"
import * as Sessions from "../examples/sessions.ts"
import * as Stale from "../examples/stale.ts"
import * as Tenants from "../examples/tenants.ts"
import * as Pglite from "./support/pglite.ts"
import * as Postgres from "./support/postgres.ts"
import * as RedisServer from "./support/redis.ts"
import * as UpstashServer from "./support/upstash.ts"

describe("testing", async () => {
  await import("../examples/testing.ts")
})

describe("examples", () => {
  it.effect("quickstart", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Quickstart.program, {
        users: [{ name: "Ada" }],
        statuses: ["write", "miss", "hit", "write", "miss"]
      })
    }))

  it.effect("composition", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Composition.program, {
        first: ["bypass", "miss", "miss"],
        second: ["bypass", "hit", "hit"],
        scores: { before: 10, same: 10, now: 99 },
        batches: [["miss"], ["hit"]]
      })
    }))

  it.effect("batching", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Batching.program, {
        first: [90],
        second: [10],
        missing: [[1], []],
        renamed: "renamed",
        transaction: { inside: ["inside"], queries: [1] },
        scoped: [2, 2],
        again: ["hit", "hit"]
      })
    }))

  it.effect("keyed", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Keyed.program, {
        readThrough: [["miss"], ["hit"], ["hit", "miss", "miss"], ["hit", "hit", "miss"]],
        cacheAside: ["hit", "hit"],
        writeThrough: [["hit"], Option.some("Countess")],
        after: ["Failure", Option.some("Countess")],
        rollback: Option.some("Countess")
      })
    }))

  it.effect("invalidation", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Invalidation.program, {
        "warm": ["hit", "hit", "hit"],
        "after a write": ["miss", "hit", "hit"],
        "in a transaction": ["bypass"],
        "after its commit": ["miss"],
        "after a rollback": ["hit"],
        "by tag": ["miss", "hit", "hit"],
        "by key": ["miss", "hit"],
        "by row": ["miss", "miss", "miss"],
        "by table": ["miss", "miss", "miss"]
      })
    }))

  it.live("stale", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Stale.program, {
        first: "miss",
        readers: ["stale"],
        anew: "hit",
        changed: "miss"
      })
    }))

  it.live("materialized", () =>
    Effect.gen(function*() {
      const { after, before, error, first, kept, known, same } = yield* Materialized.program
      assert.deepStrictEqual([first, before], [[166_833, 167_167, 166_500], [166_833, 167_167, 166_500]])
      assert.deepStrictEqual([after, kept], [[1_166_833, 167_167, 166_500], [1_166_833, 167_167, 166_500]])
      assert.deepStrictEqual({ error, known, same }, { error: "no connection", known: true, same: true })
    }))

  it.live("live", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Live.program, {
        first: [100, 100, 100],
        second: [70, 70, 70],
        third: [0, 0, 0]
      })
    }))

  it.live("sessions", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Sessions.program, {
        before: "Ada, by the cache",
        write: "",
        writer: "Grace, by the database",
        reader: "Ada, by the cache",
        broken: "status 500",
        after: "Edsger, by the database"
      })
    }))

  it.effect("tenants", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Tenants.program, [
        { tenant: "acme", ids: [1, 2], status: "miss" },
        { tenant: "acme", ids: [1, 2], status: "hit" },
        { tenant: "globex", ids: [3], status: "miss" },
        { tenant: "globex", ids: [3, 4], status: "miss" }
      ])
    }))
})

describe("demo", () => {
  const scale = "0.03"

  /** What the demo would have printed, and its outcome. */
  const watched = <A, E>(program: Effect.Effect<A, E, Screen>, env: Record<string, string>) =>
    Effect.gen(function*() {
      let printed = ""
      const report = yield* program.pipe(
        Effect.provide([
          Layer.succeed(Screen, { write: (text) => void (printed += text), redraws: false }),
          ConfigProvider.layer(ConfigProvider.fromUnknown({ DEMO_SCALE: scale, ...env }))
        ])
      )
      return { printed, report }
    })

  const assertGood = (report: Report) => {
    const reads = report.cached.operations - report.cached.byKind.write.millis.length
    assert.strictEqual(report.cached.operations, 480)
    assert.deepStrictEqual([report.without.audit.reads, report.cached.audit.reads], [reads, reads])
    assert.isAbove(report.without.queries, 480)
    assert.isBelow(report.cached.queries, report.without.queries)
    assert.isAbove(report.cached.all.hits, reads / 4)
    assert.isAbove(report.audit.compared, 30)
    assert.isAbove(report.stats.invalidations, 10)
    assert.isAbove(report.stored.answers, 50)
  }

  it.live("on PGlite, in a process of its own", () =>
    Effect.gen(function*() {
      const { code, output } = yield* node("examples/demo.ts", { DEMO_SCALE: scale })
      assert.strictEqual(code, 0, output)
      assert.match(output, /480 operations in/)
      assert.match(output, /stale reads +0 /)
      assert.notInclude(output, "\r")
      assert.notInclude(output, "\u001b")
    }))

  it.live("says what is missing, and fails", () =>
    Effect.gen(function*() {
      const { code, output } = yield* node("examples/demo-redis.ts", {})
      assert.strictEqual(code, 1)
      assert.include(output, "DATABASE_URL")
    }))

  it.live("on PostgreSQL and Redis", () =>
    Effect.gen(function*() {
      const { config } = yield* Postgres.PostgresServer
      const redis = yield* RedisServer.RedisServer
      const { printed, report } = yield* watched(Redis.program, {
        DATABASE_URL: `postgres://${config.username}@${config.host}:${config.port}/${config.database}`,
        REDIS_URL: redis.url
      })
      assertGood(report)
      assert.match(printed, /stale reads +0 /)
      const namespaces = yield* redis.command("KEYS", "effect-query-cache-demo:{*}:meta")
      assert.strictEqual(namespaces.length, 1)
    }).pipe(Effect.provide([Postgres.layerServer(), RedisServer.layer()])))

  it.live("on PostgreSQL and Upstash", () =>
    Effect.gen(function*() {
      const { config } = yield* Postgres.PostgresServer
      const upstash = yield* UpstashServer.UpstashServer
      const { report } = yield* watched(Upstash.program, {
        DATABASE_URL: `postgres://${config.username}@${config.host}:${config.port}/${config.database}`,
        UPSTASH_REDIS_REST_URL: upstash.url,
        UPSTASH_REDIS_REST_TOKEN: Redacted.value(upstash.token)
      })
      assertGood(report)
    }).pipe(Effect.provide([Postgres.layerServer(), UpstashServer.layer])))

  // What finds nothing has to be able to find something.
  const deaf = Layer.effect(
    CacheStore.CacheStore,
    Effect.map(CacheStore.CacheStore, (store) => ({
      ...store,
      invalidate: () => Effect.succeed([{ epoch: "", clock: 0 }])
    }))
  ).pipe(Layer.provide(CacheStore.layerMemory()))

  it.live("finds the stale reads of a store that forgets its invalidations", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(
        watched(
          Demo.run({ title: "a broken store", store: deaf, next: "" }).pipe(Effect.provide(Pglite.layer())),
          {}
        )
      )
      assert.instanceOf(error, Demo.StaleReads)
      assert.match(error.message, /read version \d+ after \d+ was acknowledged/)
    }))
})

// From the sources, as all tests: the build is not theirs to make.
const fromSources = "data:text/javascript," + encodeURIComponent(`
  import { registerHooks } from "node:module"
  registerHooks({
    resolve(specifier, context, next) {
      const [name, entry = "index"] = specifier.split("/")
      return next(name === "effect-query-cache" ? "${new URL(
  "../src/",
  import.meta.url
)}" + entry + ".ts" : specifier, context)
    }
  })`)

/** Runs a file as `node` does, with nothing of this process's configuration. */
const node = (path: string, env: Record<string, string>) =>
  Effect.callback<{ readonly code: number | null; readonly output: string }>((resume) => {
    const child = spawn(process.execPath, [
      "--import",
      fromSources,
      fileURLToPath(new URL(`../${path}`, import.meta.url))
    ], {
      env: { PATH: process.env.PATH, ...env }
    })
    let output = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => output += text)
    child.stderr.setEncoding("utf8").on("data", (text: string) => output += text)
    child.once("close", (code) => resume(Effect.succeed({ code, output })))
    return Effect.sync(() => child.kill())
  })
