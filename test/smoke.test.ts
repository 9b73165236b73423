// The built package on the oldest Node it supports and on the one that the tools use.
import { execFile } from "node:child_process"
import { delimiter, join } from "node:path"
import { promisify } from "node:util"
import { beforeAll, expect, it } from "vitest"

const run = promisify(execFile)
const root = join(import.meta.dirname, "..")
const script = join("test", "smoke", "smoke.mjs")

// npm puts the Node of the tools first on PATH; behind it may be the machine's own.
const path = process.env.PATH!.split(delimiter).filter((entry) => !entry.includes("node_modules")).join(delimiter)

const onNode20 = async () => {
  const env = { ...process.env, PATH: path }
  const version = await run("node", ["--version"], { env }).then(({ stdout }) => stdout, () => "none")
  return version.startsWith("v20.")
    ? run("node", [script], { cwd: root, env })
    : run("npm", ["exec", "--yes", "--package=node@20", "--", "node", script], { cwd: root })
}

beforeAll(() => run("npm", ["run", "build"], { cwd: root }), 120_000)

it("works on Node 20", async () => {
  const { stdout } = await onNode20()
  expect(stdout).toMatch(/\d+ entries and the memory store work on Node 20\./)
  console.info(stdout.trim())
}, 120_000)

it("works on Node 24", async () => {
  const { stdout } = await run(process.execPath, [script], { cwd: root })
  expect(stdout).toMatch(/\d+ entries and the memory store work on Node 24\./)
  console.info(stdout.trim())
})
