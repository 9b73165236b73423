/**
 * A short history run: processes over real servers, and faults. `npm run chaos` is the long one. And the same with a guard
 * taken out, in which the checker has to find what comes of it: else that it finds nothing says nothing.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Report } from "./checker.ts"
import { excerpt } from "./excerpt.ts"
import * as History from "./history.ts"
import { run, type RunOptions } from "./run.ts"
import * as Cluster from "./servers/cluster.ts"
import * as Replica from "./servers/replica.ts"
import * as Single from "./servers/single.ts"

const maxStalenessMillis = 1_000

const judged = (options: Partial<RunOptions> & Pick<RunOptions, "topology" | "modes">) =>
  Effect.gen(function*() {
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-query-cache-chaos-"))),
      (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
    )
    const told: Array<string> = []
    const report = yield* run({
      seconds: 15,
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

const total = (counts: { readonly [name: string]: number }) =>
  Object.values(counts).reduce((all, count) => all + count, 0)

describe("a short history run", () => {
  const topologies = [
    ["one Redis", Single.make({ maxStalenessMillis }), ["backplane", "backplane", "redis"]],
    ["a primary and its replica", Replica.make({ maxStalenessMillis, provesHits: true }), [
      "backplane",
      "backplane",
      "backplane"
    ]],
    ["a cluster", Cluster.make({ maxStalenessMillis }), ["backplane", "backplane", "redis"]]
  ] as const
  for (const [name, topology, modes] of topologies) {
    it.live(`${name}: nothing wrong is read`, () =>
      Effect.gen(function*() {
        const { report, shown } = yield* judged({
          topology,
          modes,
          enough: ({ faults, telling, writes }) => telling > 500 && writes.acknowledged! > 100 && total(faults) > 15
        })
        assert.strictEqual(report.count, 0, shown)
        // It was about something.
        assert.isAbove(report.telling, 100, shown)
        assert.isAbove(report.quiet, 50, shown)
        assert.isAbove(report.writes.acknowledged!, 50, shown)
        assert.isAbove(total(report.faults), 8, shown)
        for (const kind of ["hit L1", "hit L2", "miss"]) assert.isAbove(report.reads[kind] ?? 0, 0, shown)
      }), 300_000)
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
        const found = (report: Report) =>
          rules.every((rule) => report.violations.some((violation) => violation.rule === rule))
        const { report, shown } = yield* judged({
          topology: Single.make({ maxStalenessMillis }),
          modes,
          sabotage,
          seconds: 5,
          enough: found
        })
        assert.isTrue(found(report), shown)
      }), 300_000)
  }
})
