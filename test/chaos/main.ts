// `npm run chaos`, or `npm run chaos -- --minutes 30 --topology single --seed 7`: a history run, for as long as one likes.
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { excerpt } from "./excerpt.ts"
import * as History from "./history.ts"
import { run } from "./run.ts"
import * as Cluster from "./servers/cluster.ts"
import * as Replica from "./servers/replica.ts"
import * as Single from "./servers/single.ts"

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "1" },
    topology: { type: "string", default: "single" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    "time-to-live": { type: "string", default: "10" },
    modes: { type: "string", default: "backplane,backplane,redis,revalidate" },
    keep: { type: "boolean", default: false }
  }
})
const known: ReadonlyArray<History.Mode> = ["backplane", "redis", "revalidate", "strict"]
const modes = values.modes.split(",").map((name) => {
  const mode = known.find((mode) => mode === name)
  if (mode === undefined) throw new Error(`no mode "${name}": ${known.join(", ")}`)
  return mode
})
const maxStalenessMillis = 1_000
const topologies = {
  single: Single.make({ maxStalenessMillis }),
  // Of a primary that was deposed and does not know it only those are safe who ask for proof: docs/operations.md.
  replica: Replica.make({ maxStalenessMillis, provesHits: modes.every((mode) => mode === "backplane") }),
  cluster: Cluster.make({ maxStalenessMillis })
}
const topology = topologies[values.topology as keyof typeof topologies]
if (topology === undefined) throw new Error(`no topology "${values.topology}": ${Object.keys(topologies).join(", ")}`)

const directory = mkdtempSync(join(tmpdir(), "effect-query-cache-chaos-"))
const say = (text: string) => console.log(text)
say(`seed ${values.seed}, ${values.topology}, ${values.minutes} minutes, history in ${directory}`)
const report = await Effect.runPromise(run({
  topology,
  seconds: Number(values.minutes) * 60,
  modes,
  seed: Number(values.seed),
  directory,
  maxStalenessMillis,
  timeToLiveMillis: Number(values["time-to-live"]) * 1_000,
  say
}))
for (const violation of report.violations.slice(0, 5)) {
  say(`\n${excerpt(() => History.read(directory), violation)}`)
}
if (report.count > 0) {
  process.exitCode = 1
  say(`\nThe history is kept in ${directory}`)
} else if (!values.keep) {
  rmSync(directory, { recursive: true })
}
// What is left of the servers' doors must not keep the program.
if (process.env.CHAOS_DEBUG !== undefined) say(JSON.stringify(process.getActiveResourcesInfo()))
process.exit()
