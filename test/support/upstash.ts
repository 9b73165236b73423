/**
 * Upstash on this machine: the REST server of `@humanwhocodes/upstash-redis-server` in front of a private Redis, and
 * before it a door that adds what that server lacks (event streams, the token on every path, base64 replies), counts
 * what passes, and breaks it on demand.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Http from "node:http"
import type * as Net from "node:net"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { createClient } from "redis"
import { freePort } from "./freePort.ts"
import { makeServer, type Server } from "./redis.ts"

/** What goes wrong with the requests that arrive while it is set. */
export interface Fault {
  /** Waits, before anything else, until another fault is set. */
  readonly hang?: boolean
  /** Answers this instead of asking Redis. */
  readonly answer?: { readonly status: number; readonly body: string; readonly location?: string }
  /** Lets Redis run the commands, and cuts the connection in the middle of the answer. */
  readonly cut?: boolean
}

/** A request that arrived. */
export interface Arrival {
  readonly path: string
  readonly commands: ReadonlyArray<ReadonlyArray<string>>
  /** What the last answer told the client to say. */
  readonly syncToken: string | undefined
}

export class UpstashServer extends Context.Service<UpstashServer, {
  readonly url: string
  readonly token: Redacted.Redacted<string>
  /** The Redis behind it. */
  readonly redis: Server
  /** Every request since the last call. */
  readonly arrivals: Effect.Effect<ReadonlyArray<Arrival>>
  /** Requests that the other side gave up before they were answered, since the server started. */
  readonly abandoned: Effect.Effect<number>
  /** Sets the fault until the scope closes, `undefined` for none, and lets go of what hangs. */
  readonly fault: (fault: Fault | undefined) => Effect.Effect<void, never, Scope.Scope>
  /** How many event streams are open. */
  readonly streams: Effect.Effect<number>
  /** Ends the open event streams, in order or by cutting their connections. */
  readonly endStreams: (how: "end" | "cut") => Effect.Effect<void>
  /** Writes to the open event streams, as it is. */
  readonly writeStreams: (data: string | Uint8Array) => Effect.Effect<void>
}>()("test/UpstashServer") {}

export const layer: Layer.Layer<UpstashServer> = Layer.effect(
  UpstashServer,
  Effect.gen(function*() {
    const token = "AX1sASQgNTU-secret-token-of-the-tests=="
    const redis = yield* makeServer()
    const restUrl = yield* restServer(redis.url, token)

    let arrivals: Array<Arrival> = []
    let answers = 0
    let abandoned = 0
    let fault: Fault | undefined
    const streams = new Set<Http.ServerResponse>()
    const waiting = new Set<() => void>()

    const setFault = (next: Fault | undefined) =>
      Effect.sync(() => {
        fault = next
        for (const end of waiting) end()
        waiting.clear()
      })

    const subscribe = async (channel: string, response: Http.ServerResponse): Promise<void> => {
      // The answer begins before the subscription stands.
      response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders()
      streams.add(response)
      const subscriber = createClient({ url: redis.url, socket: { reconnectStrategy: false } })
      subscriber.on("error", () => response.destroy())
      response.on("close", () => {
        streams.delete(response)
        if (subscriber.isOpen) subscriber.destroy()
      })
      await subscriber.connect()
      await subscriber.subscribe(channel, (message) => {
        response.write(`data: message,${channel},${message.replaceAll("\n", "\ndata: ")}\n\n`)
      })
      response.write(`data: subscribe,${channel},1\n\n`)
    }

    const forward = async (path: string, body: string, base64: boolean, response: Http.ServerResponse) => {
      const answer = await fetch(`${restUrl}${path}`, {
        method: "POST",
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        body
      })
      const text = await answer.text()
      const encoded = base64 ? JSON.stringify(JSON.parse(text), inBase64) : text
      response.writeHead(answer.status, { "content-type": "application/json" })
      if (fault?.cut === true) response.write(encoded.slice(0, encoded.length / 2), () => response.destroy())
      else response.end(encoded)
    }

    const handle = async (request: Http.IncomingMessage, response: Http.ServerResponse): Promise<void> => {
      let body = ""
      for await (const chunk of request.setEncoding("utf8")) body += chunk
      const path = request.url!
      const commands = body === "" ? [] : JSON.parse(body)
      const syncToken = request.headers["upstash-sync-token"] as string | undefined
      arrivals.push({ path, commands: path === "/" ? [commands] : commands, syncToken })
      response.setHeader("upstash-sync-token", `sync-${++answers}`)
      response.on("close", () => {
        if (!response.writableFinished && !streams.has(response)) abandoned++
      })

      if (fault?.hang === true) await new Promise<void>((resolve) => waiting.add(resolve))
      if (fault?.answer !== undefined) {
        const { body, location, status } = fault.answer
        response.writeHead(status, location === undefined ? {} : { location }).end(body)
      } else if (request.headers.authorization !== `Bearer ${token}`) {
        response.writeHead(401, { "content-type": "application/json" })
        response.end(JSON.stringify({ error: "WRONGPASS invalid or missing auth token" }))
      } else if (path.startsWith("/subscribe/")) {
        await subscribe(decodeURIComponent(path.slice("/subscribe/".length)), response)
      } else {
        await forward(path, body, request.headers["upstash-encoding"] === "base64", response)
      }
    }

    const port = yield* Effect.acquireRelease(
      Effect.promise(async () => {
        const server = Http.createServer((request, response) => {
          handle(request, response).catch(() => response.destroy())
        })
        await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
        return server
      }),
      (server) =>
        Effect.promise(async () => {
          const closed = new Promise((resolve) => server.close(resolve))
          server.closeAllConnections()
          await closed
        })
    ).pipe(Effect.map((server) => (server.address() as Net.AddressInfo).port))

    return {
      url: `http://127.0.0.1:${port}`,
      token: Redacted.make(token),
      redis,
      arrivals: Effect.sync(() => {
        const since = arrivals
        arrivals = []
        return since
      }),
      abandoned: Effect.sync(() => abandoned),
      fault: (next) => Effect.acquireRelease(setFault(next), () => setFault(undefined)),
      streams: Effect.sync(() => streams.size),
      endStreams: (how) =>
        Effect.sync(() => {
          for (const stream of streams) {
            if (how === "end") stream.end()
            else stream.destroy()
          }
        }),
      writeStreams: (data) =>
        Effect.sync(() => {
          for (const stream of streams) stream.write(data)
        })
    }
  })
)

// As Upstash encodes: every string of a result except OK.
const inBase64 = (key: string, value: unknown): unknown =>
  key !== "error" && typeof value === "string" && value !== "OK" ? Buffer.from(value).toString("base64") : value

/** The REST server, as a process: it never lets go of its connection to Redis. */
const restServer = Effect.fnUntraced(function*(redisUrl: string, token: string) {
  const port = yield* Effect.promise(freePort)
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [fileURLToPath(restServerMain)], {
        env: { ...process.env, PORT: `${port}`, URS_TOKEN: token, REDIS_URL: redisUrl },
        stdio: "ignore"
      })
    ),
    (child) =>
      Effect.promise(async () => {
        if (child.exitCode !== null || child.signalCode !== null) return
        const exited = once(child, "exit")
        child.kill("SIGKILL")
        await exited
      })
  )
  const url = `http://127.0.0.1:${port}`
  yield* Effect.promise(async () => {
    while (child.exitCode === null) {
      try {
        await fetch(url)
        return
      } catch {
        await setTimeout(20)
      }
    }
    throw new Error("upstash-redis-server did not start")
  })
  return url
})

const restServerMain = new URL("../../node_modules/@humanwhocodes/upstash-redis-server/dist/server.js", import.meta.url)
