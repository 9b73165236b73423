// The soak, for as long as one likes: `npm run soak`, or `npm run soak -- --queries 5000000 --postgres` for one on a real
// database.
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import { parseArgs } from "node:util"
import * as Database from "./database.ts"
import { beyond, cycle, growth, instanceLimits, limits, type Look, soak } from "./soak.ts"

const { values } = parseArgs({
  options: { queries: { type: "string", default: "1000000" }, postgres: { type: "boolean", default: false } }
})

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`

const tell = (look: Look) =>
  console.log(
    [
      `${look.queries} queries, ${(look.millis / 1000).toFixed(0)} s`,
      `heap ${mib(look.heapBytes)}`,
      `resident ${mib(look.residentBytes)}`,
      `Redis ${
        mib(look.redisBytes)
      }, ${look.redisStamps} stamps, keys ${look.redisPeakKeys} and at rest ${look.redisKeys}`,
      Object.entries(look.counts).map(([name, count]) => `${name} ${count}`).join(" ")
    ].join("; ")
  )

const options = {
  queries: Number(values.queries),
  textEvery: 5,
  lookEvery: 5 * cycle,
  capacity: 10_000,
  maxDependencies: 200_000,
  timeToLiveMillis: 10_000,
  client: values.postgres ? Database.real : Database.scripted,
  onLook: tell
}

const { instances, looks, stats } = await Effect.runPromise(
  Effect.provideService(soak(options), References.MinimumLogLevel, "Warn")
)
console.log(JSON.stringify({ instances, stats }))
const excess = [
  ...looks.flatMap(({ counts }) => beyond(counts, limits)),
  ...beyond(instances, instanceLimits(options.capacity))
]
for (const line of excess) console.error(`There are ${line}`)
if (excess.length > 0) process.exitCode = 1
// All that has a limit has reached it by then. The last look may be at another point of the cycle.
const settled = looks.filter(({ queries }) =>
  queries >= 300_000 && queries % options.lookEvery === options.lookEvery / 2
)
const figures = { heap: "heapBytes", resident: "residentBytes", Redis: "redisBytes" } as const
for (const [name, figure] of Object.entries(figures)) {
  if (settled.length < 3) break
  console.log(`${name}: ${growth(settled, (look) => look[figure]).toFixed(1)} bytes for each query`)
}
