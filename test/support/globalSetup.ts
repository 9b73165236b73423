// Runs once before the tests: what they need beyond npm's packages is here, is installed, or is an error that says how.
import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"

export default (): void => {
  if (hasRedis()) return
  if (process.getuid?.() !== 0 || !existsSync("/etc/debian_version")) {
    throw new Error("The tests need redis-server on PATH: apt-get install redis-server, or brew install redis")
  }
  run("apt-get", "update", "-q")
  run("apt-get", "install", "-q", "-y", "--no-install-recommends", "redis-server")
  // The tests start servers of their own, on other ports.
  spawnSync("service", ["redis-server", "stop"])
  if (!hasRedis()) throw new Error("redis-server was installed, but does not run: redis-server --version")
}

const hasRedis = (): boolean => spawnSync("redis-server", ["--version"]).status === 0

const run = (command: string, ...args: ReadonlyArray<string>): void => {
  const { status } = spawnSync(command, args, {
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" }
  })
  if (status !== 0) throw new Error(`redis-server is missing and could not be installed: ${command} ${args.join(" ")}`)
}
