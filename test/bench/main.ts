// Runs the benches and shows what they found: `npm run bench`, or `npm run bench -- hit wire` for some of them, with
// `--json` for a program that reads it.
import { spawn } from "node:child_process"
import { availableParallelism, cpus } from "node:os"
import { join } from "node:path"
import { type Result, say, table } from "./harness.ts"

const benches = [
  "hit",
  "keyed",
  "allocations",
  "views",
  "analysis",
  "l1",
  "codec",
  "herd",
  "wire",
  "coalesce",
  "tiered",
  "database",
  "strict",
  "invalidation"
]

const json = process.argv.includes("--json")
const names = process.argv.slice(2).filter((argument) => argument !== "--json")
const unknown = names.filter((name) => !benches.includes(name))
if (unknown.length > 0) throw new Error(`No bench ${unknown.join(", ")}: there are ${benches.join(", ")}`)

// A process for each: what one taught the compiler and left in memory does not slow the next.
const run = (name: string): Promise<ReadonlyArray<Result>> =>
  new Promise((resolve, reject) => {
    say(`\n# ${name}`)
    const child = spawn(process.execPath, [join(import.meta.dirname, `${name}.ts`), "--json"], {
      stdio: ["ignore", "pipe", "inherit"]
    })
    let output = ""
    child.stdout.setEncoding("utf8").on("data", (text) => output += text)
    child.once("error", reject)
    child.once("close", (code) => {
      if (code === 0) resolve(JSON.parse(output.trimEnd().split("\n").at(-1)!))
      else reject(new Error(`The bench ${name} ended with ${code}`))
    })
  })

const results: Array<Result> = []
for (const name of names.length > 0 ? names : benches) {
  try {
    results.push(...await run(name))
  } catch (error) {
    say(String(error))
    process.exitCode = 1
  }
}

const machine = `Node ${process.version}, ${process.platform} ${process.arch}, ${availableParallelism()} cores (${
  cpus()[0]?.model ?? "unknown"
})`
if (json) console.log(JSON.stringify({ machine, results }))
else console.log(`\n${machine}. Ratios within one run; smaller is better.\n\n${table(results)}`)
