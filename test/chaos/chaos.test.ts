/**
 * A short history run: processes over real servers, and faults. `npm run chaos` is the long one. And the same with a guard
 * taken out, in which the checker has to find what comes of it: else that it finds nothing says nothing.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { excerpt } from "./excerpt.ts"
import * as History from "./history.ts"
import { run, type RunOptions } from "./run.ts"
import * as Replica from "./servers/replica.ts"
import * as Single from "./servers/single.ts"
import type { Topology } from "./topology.ts"

const maxStalenessMillis = 1_000

const judged = (options: Partial<RunOptions> & { readonly topology: Effect.Effect<Topology, never, Scope.Scope> }) =>
  Effect.gen(function*() {
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-query-cache-chaos-"))),
      (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
    )
    const told: Array<string> = []
    const report = yield* run({
      seconds: 20,
      modes: ["backplane", "backplane", "redis", "revalidate"],
      seed: 1,
      directory,
      maxStalenessMillis,
      timeToLiveMillis: 4_000,
      say: (text) => void told.push(text),
      ...options
    })
    const shown = report.violations.slice(0, 3).map((violation) => excerpt(() => History.read(directory), violation))
    return { report, shown: [...shown, ...told].join("\n\n") }
  }).pipe(Effect.scoped)

describe("a short history run", () => {
  const topologies = [
    ["one Redis", Single.make({ maxStalenessMillis })],
    ["a primary and its replica", Replica.make({ maxStalenessMillis })]
  ] as const
  for (const [name, topology] of topologies) {
    it.live(`${name}: nothing wrong is read`, () =>
      Effect.gen(function*() {
        const { report, shown } = yield* judged({ topology })
        assert.strictEqual(report.count, 0, shown)
        // It was about something.
        assert.isAbove(report.telling, 100, shown)
        assert.isAbove(report.quiet, 50, shown)
        assert.isAbove(report.writes.acknowledged!, 50, shown)
        assert.isAbove(Object.values(report.faults).reduce((all, count) => all + count, 0), 8, shown)
        for (const kind of ["hit L1", "hit L2", "miss"]) assert.isAbove(report.reads[kind] ?? 0, 0, shown)
      }), 180_000)
  }
})

describe("the checker finds what comes of a guard that is taken out", () => {
  const controls = [
    ["lying", ["backplane", "redis"], ["own", "bounded"]],
    ["deaf", ["backplane", "redis"], ["bounded"]],
    ["hasty", ["redis", "redis"], ["bounded"]]
  ] as const
  for (const [sabotage, modes, rules] of controls) {
    it.live(`${sabotage}`, () =>
      Effect.gen(function*() {
        const { report, shown } = yield* judged({
          topology: Single.make({ maxStalenessMillis }),
          modes,
          seconds: 6,
          sabotage
        })
        for (const rule of rules) assert.include(report.violations.map(({ rule }) => rule), rule, shown)
      }), 120_000)
  }
})
