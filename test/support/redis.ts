/**
 * Redis servers on this machine, one for whoever asks: on a port of its own, in a directory of its own, without
 * persistence unless it is asked for, and gone when the scope closes.
 */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redis from "effect/persistence/Redis"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { createClient } from "redis"
import { freePort } from "./freePort.ts"

export interface Server {
  readonly port: number
  readonly url: string
  /** Where its files lie. */
  readonly directory: string
  /** Runs one command on a connection of its own, by default as the default user. */
  readonly command: (...args: ReadonlyArray<string>) => Effect.Effect<any>
  /** The commands that clients send from now on, without those that scripts run. */
  readonly monitor: Effect.Effect<Effect.Effect<ReadonlyArray<string>>, never, Scope.Scope>
  /** Kills the process. What was not saved is lost. */
  readonly stop: Effect.Effect<void>
  /** Starts it again, on the same port and directory, if it does not run. */
  readonly start: Effect.Effect<void>
  /** The same, with other settings besides its own. */
  readonly startWith: (settings: Settings) => Effect.Effect<void>
  /** Freezes the process: connections stay open, nothing is answered. */
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
}

export class RedisServer extends Context.Service<RedisServer, Server>()("test/RedisServer") {}

/** Settings of redis.conf by name, such as `{ maxmemory: "3mb" }`. */
export type Settings = { readonly [name: string]: string }

export const makeServer = Effect.fnUntraced(function*(
  settings: Settings = {},
  portOf: () => Promise<number> = freePort
): Effect.fn.Return<Server, never, Scope.Scope> {
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "redis-"))),
    (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
  )
  let process: ChildProcess | undefined
  const run = async (port: number, more: Settings = {}) => {
    const all: Settings = { port: `${port}`, bind: "127.0.0.1", save: "", dir: directory, ...settings, ...more }
    const started = spawn("redis-server", Object.entries(all).flatMap(([name, value]) => [`--${name}`, value]), {
      stdio: "ignore"
    })
    process = started
    await listening(port, started)
  }
  const isRunning = () => process !== undefined && process.exitCode === null && process.signalCode === null
  const kill = Effect.promise(async () => {
    if (!isRunning()) return
    const running = process!
    process = undefined
    const exited = once(running, "exit")
    running.kill("SIGKILL")
    await exited
  })
  yield* Effect.addFinalizer(() => kill)

  const port = yield* Effect.promise(async () => {
    // A free port may be taken before the server gets to it.
    for (let attempt = 0;; attempt++) {
      const port = await portOf()
      try {
        await run(port)
        return port
      } catch (error) {
        if (attempt === 5) throw error
      }
    }
  })

  const startWith = (more: Settings) =>
    Effect.promise(async () => {
      if (!isRunning()) await run(port, more)
    })

  const command = (...args: ReadonlyArray<string>) =>
    Effect.promise(async () => {
      const client = createClient({ socket: { host: "127.0.0.1", port, reconnectStrategy: false } })
      client.on("error", () => {})
      await client.connect()
      try {
        return await client.sendCommand([...args])
      } finally {
        client.destroy()
      }
    })

  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    directory,
    command,
    monitor: Effect.gen(function*() {
      let text = ""
      yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const socket = Net.connect(port, "127.0.0.1")
          socket.setEncoding("latin1").on("data", (data) => {
            text += data
          })
          socket.write("MONITOR\r\n")
          await once(socket, "data")
          return socket
        }),
        (socket) => Effect.sync(() => socket.destroy())
      )
      return Effect.promise(async () => {
        // Whatever was sent before this is told before it.
        const end = `end ${text.length}`
        await Effect.runPromise(command("ECHO", end))
        while (!text.includes(end)) await setTimeout(2)
        const told = text.slice(0, text.indexOf(end))
        return [...told.matchAll(/^\+[\d.]+ \[\d+ (?!lua)[^\]]+\] "([^"]*)"/gm)]
          .map(([, name]) => name.toUpperCase())
          .filter((name) => !["CLIENT", "ECHO", "HELLO"].includes(name))
      })
    }),
    stop: kill,
    start: startWith({}),
    startWith,
    pause: Effect.sync(() => process?.kill("SIGSTOP")),
    resume: Effect.sync(() => process?.kill("SIGCONT"))
  }
})

/** A server, and `Redis.Redis` connected to it as programs connect. */
export const layer = (settings?: Settings): Layer.Layer<RedisServer | Redis.Redis | NodeRedis.NodeRedis> =>
  Layer.unwrap(
    Effect.map(makeServer(settings), (server) => Layer.merge(Layer.succeed(RedisServer, server), client(server)))
  )

/** A client of a server. Reconnects quickly, and does not queue what is sent while the connection is down. */
export const client = (
  server: Server,
  options: { readonly username?: string; readonly password?: string } = {}
): Layer.Layer<Redis.Redis | NodeRedis.NodeRedis> =>
  Layer.orDie(NodeRedis.layer({
    ...options,
    disableOfflineQueue: true,
    socket: { host: "127.0.0.1", port: server.port, reconnectStrategy: () => 20 }
  })).pipe(
    // It warns at every attempt to reconnect.
    Layer.provide(Layer.succeed(References.MinimumLogLevel, "None"))
  )

const listening = async (port: number, process: ChildProcess): Promise<void> => {
  process.on("error", () => {})
  while (process.pid !== undefined && process.exitCode === null) {
    const socket = Net.connect(port, "127.0.0.1")
    try {
      await once(socket, "connect")
      // Loading a data set comes after listening.
      const answered = once(socket, "data")
      socket.write("PING\r\n")
      const [reply] = await answered
      if (!String(reply).startsWith("-LOADING")) return
    } catch {
      // Not there yet.
    } finally {
      socket.destroy()
    }
    await setTimeout(10)
  }
  throw new Error("redis-server did not start")
}
