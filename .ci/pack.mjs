// Packs the package as `npm publish` would, and has publint and attw look at the tarball.
import { execFileSync } from "node:child_process"
import { mkdirSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

const run = (command, ...args) => execFileSync(command, args, { stdio: "inherit" })

const { name, version } = JSON.parse(readFileSync("package.json", "utf8"))
const directory = join("test", ".cache")
const tarball = join(directory, `${name}-${version}.tgz`)
mkdirSync(directory, { recursive: true })
run("npm", "pack", "--silent", "--pack-destination", directory)
run("publint", "run", tarball, "--strict")

// attw does not expand the wildcard of `exports`, so every module is named.
const modules = readdirSync("src").filter((file) => file.endsWith(".ts") && file !== "index.ts")
const entrypoints = modules.map((file) => file.slice(0, -3)).sort()
run("attw", tarball, "--profile", "esm-only", "--format", "table-flipped", "--entrypoints", ".", ...entrypoints)
