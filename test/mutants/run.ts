/**
 * Takes away one guard after the other and runs the tests that must notice: `npm run mutants`, or `npm run mutants --
 * tiered` for those of which the guard, the file or a race says so.
 *
 * Works on a copy of the tree. The tests of a mutant are run without it first: they must pass, or their failure would
 * say nothing. Ends with an error if a mutant survives.
 */
import { spawn } from "node:child_process"
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { setPriority, tmpdir } from "node:os"
import { join } from "node:path"
import { mutants } from "./all.ts"
import { type Killer, type Mutant, mutate, placesOf } from "./mutant.ts"

const root = join(import.meta.dirname, "..", "..")

/** Some guards keep something from going on without end. */
const patienceMillis = 180_000

const copy = (): string => {
  const directory = mkdtempSync(join(tmpdir(), "mutants-"))
  for (const name of ["src", "test", "examples", "package.json", "tsconfig.json", "vitest.config.ts"]) {
    cpSync(join(root, name), join(directory, name), {
      recursive: true,
      filter: (path) => !path.startsWith(join(root, "test", ".cache"))
    })
  }
  symlinkSync(join(root, "node_modules"), join(directory, "node_modules"))
  return directory
}

type Outcome = "passed" | "failed" | "hung" | { readonly broken: string }

/** Its own process group, since what the tests have started must end with them. */
const runTests = (directory: string, { files, name }: Killer): Promise<Outcome> =>
  new Promise((resolve) => {
    const report = join(directory, "report.json")
    rmSync(report, { force: true })
    const child = spawn(
      process.execPath,
      [
        join("node_modules", "vitest", "vitest.mjs"),
        "run",
        ...files,
        ...(name === undefined ? [] : ["--testNamePattern", name]),
        "--bail=1",
        "--typecheck.enabled=false",
        "--reporter=json",
        `--outputFile=${report}`
      ],
      { cwd: directory, detached: true, stdio: ["ignore", "ignore", "pipe"] }
    )
    let errors = ""
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      errors = (errors + text).slice(-2_000)
    })
    if (child.pid !== undefined) setPriority(child.pid, 10)
    let hung = false
    const timer = setTimeout(() => {
      hung = true
      process.kill(-child.pid!, "SIGKILL")
    }, patienceMillis)
    child.on("close", () => {
      clearTimeout(timer)
      if (hung) return resolve("hung")
      if (!existsSync(report)) return resolve({ broken: errors })
      const { numFailedTests, numPassedTests, testResults } = JSON.parse(readFileSync(report, "utf8"))
      if (numFailedTests > 0) return resolve("failed")
      const broken = testResults.find(({ status }: { status: string }) => status === "failed")
      resolve(
        broken !== undefined ? { broken: broken.message } : numPassedTests > 0 ? "passed" : { broken: "no test ran" }
      )
    })
  })

const main = async (filter: string): Promise<void> => {
  const wanted = mutants.filter(({ file, guard, races }) =>
    [file, guard, ...races].some((text) => text.toLowerCase().includes(filter.toLowerCase()))
  )
  const directory = copy()
  const baselines = new Map<string, Outcome>()
  const bad: Array<string> = []
  const judge = async (mutant: Mutant): Promise<string> => {
    const path = join(directory, mutant.file)
    const source = readFileSync(path, "utf8")
    if (placesOf(mutant, source) !== 1) return "is not in its file once"
    const tests = JSON.stringify(mutant.killedBy)
    const before = baselines.get(tests) ?? await runTests(directory, mutant.killedBy)
    baselines.set(tests, before)
    if (before !== "passed") return `has tests that do not pass with it: ${JSON.stringify(before)}`
    writeFileSync(path, mutate(mutant, source))
    const after = await runTests(directory, mutant.killedBy)
    writeFileSync(path, source)
    if (after === "passed") return "SURVIVED"
    return typeof after === "object" ? `is broken: ${after.broken}` : after === "hung" ? "killed: no end" : "killed"
  }
  try {
    for (const [i, mutant] of wanted.entries()) {
      const begun = Date.now()
      const verdict = await judge(mutant)
      if (!verdict.startsWith("killed")) bad.push(`${mutant.guard} (${mutant.file}): ${verdict}`)
      const seconds = ((Date.now() - begun) / 1000).toFixed(1)
      console.log(`${i + 1}/${wanted.length} ${verdict}, ${seconds} s: ${mutant.guard}`)
    }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  console.log(bad.length === 0 ? `All ${wanted.length} were killed` : `Not killed:\n${bad.join("\n")}`)
  if (bad.length > 0 || wanted.length === 0) process.exitCode = 1
}

await main(process.argv.slice(2).join(" "))
