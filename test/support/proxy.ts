// A TCP proxy before a PostgreSQL server, for what befalls connections and leaves client and server of two minds.
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Buffer } from "node:buffer"
import { once } from "node:events"
import * as Net from "node:net"
import { PostgresServer } from "./postgres.ts"

/**
 * What happens to a message.
 *
 * - `"cut"`: it does not reach the server, and the connection ends.
 * - `"lose"`: the server carries it out, and the connection ends before its answer reaches the client.
 * - `"hold"`: the client's connection ends at once, and the message reaches the server when it is released.
 * - `"stall"`: the server carries it out, and its answer reaches the client when it is released.
 * - `"strand"`: the server carries it out, and the client's connection ends at once; the server's ends when it is released.
 */
export type Fault = "cut" | "lose" | "hold" | "stall" | "strand"

export class Proxy extends Context.Service<Proxy, {
  readonly port: number
  /**
   * Arms a fault for the next message from a client that contains a text, or for the n-th byte that clients send from now
   * on. Replaces what was armed before.
   */
  readonly arm: (trigger: string | number, fault: Fault) => Effect.Effect<void>
  /** Waits until the armed fault has happened, with `"lose"` and `"stall"` until the server has answered. */
  readonly happened: Effect.Effect<void>
  /** Takes back a fault that has not happened. Tells whether there was one. */
  readonly disarm: Effect.Effect<boolean>
  /** Sends on what is held or stalled. Where it goes to the server, waits for the answer. */
  readonly release: Effect.Effect<void>
}>()("test/Proxy") {}

const backendKeyData = "K\0\0\0\x0c"

interface Armed {
  readonly trigger: string | number
  readonly fault: Fault
  readonly happened: Deferred.Deferred<void>
  bytes: number
}

export interface ProxyOptions {
  /** Names another process as the backend, as a pooler does. */
  readonly pooler?: boolean
}

export const layer: Layer.Layer<Proxy, never, PostgresServer> = Layer.suspend(() => layerWith({}))

export const layerWith = (options: ProxyOptions): Layer.Layer<Proxy, never, PostgresServer> =>
  Layer.effect(
    Proxy,
    Effect.gen(function*() {
      const { config } = yield* PostgresServer
      const sockets = new Set<Net.Socket>()
      let armed: Armed | undefined
      let last: Armed | undefined
      let held: { readonly upstream: Net.Socket; readonly release: () => Promise<void> } | undefined

      // How much of a chunk is still let through, where the fault strikes in it.
      const strikes = (chunk: Buffer): number | undefined => {
        if (armed === undefined) return undefined
        if (typeof armed.trigger === "string") return chunk.includes(armed.trigger) ? 0 : undefined
        const left = armed.trigger - armed.bytes
        armed.bytes += chunk.length
        return left <= chunk.length ? left : undefined
      }

      const accept = (client: Net.Socket) => {
        const upstream = Net.connect(config.port, config.host)
        for (const socket of [client, upstream]) {
          sockets.add(socket)
          socket.setNoDelay(true).on("error", () => {}).on("close", () => sockets.delete(socket))
        }
        upstream.on("data", (chunk: Buffer) => {
          const key = options.pooler === true ? chunk.indexOf(backendKeyData, 0, "latin1") : -1
          if (key >= 0) chunk.writeUInt32BE(0x7fff_fff0, key + backendKeyData.length)
          client.write(chunk)
        }).on("close", () => client.destroy())
        client.on("close", () => held?.upstream === upstream || upstream.end())
        client.on("data", (chunk: Buffer) => {
          const end = strikes(chunk)
          if (end === undefined) return void upstream.write(chunk)
          const { fault, happened } = armed!
          armed = undefined
          const strike = () => {
            Deferred.doneUnsafe(happened, Effect.void)
            client.destroy()
          }
          switch (fault) {
            case "cut":
              upstream.end(chunk.subarray(0, end))
              return strike()
            case "lose":
              upstream.removeAllListeners("data").once("data", strike).once("close", strike).write(chunk)
              return
            case "hold":
              held = {
                upstream,
                release: async () => {
                  upstream.write(chunk)
                  await once(upstream, "data")
                  upstream.end()
                }
              }
              return strike()
            case "strand":
              held = { upstream, release: async () => void upstream.end() }
              upstream.write(chunk)
              return strike()
            case "stall": {
              const answers: Array<Buffer> = []
              const forward = (answer: Buffer) => void client.write(answer)
              upstream.removeAllListeners("data").on("data", (answer) => {
                answers.push(answer)
                Deferred.doneUnsafe(happened, Effect.void)
              })
              held = {
                upstream,
                release: async () => {
                  upstream.removeAllListeners("data").on("data", forward)
                  answers.forEach(forward)
                  // Nobody waits any more, and a transaction that is open there would keep its locks.
                  if (client.destroyed) upstream.end()
                }
              }
              return void upstream.write(chunk)
            }
          }
        })
      }

      const server = Net.createServer(accept).listen(0, "127.0.0.1")
      yield* Effect.promise(() => once(server, "listening"))
      yield* Effect.addFinalizer(() =>
        Effect.promise(async () => {
          for (const socket of sockets) socket.destroy()
          server.close()
          await once(server, "close")
        })
      )
      return Proxy.of({
        port: (server.address() as Net.AddressInfo).port,
        arm: (trigger, fault) =>
          Effect.sync(() => {
            last = armed = { trigger, fault, happened: Deferred.makeUnsafe(), bytes: 0 }
          }),
        happened: Effect.suspend(() => Deferred.await(last!.happened)),
        disarm: Effect.sync(() => {
          const disarmed = armed !== undefined
          armed = undefined
          return disarmed
        }),
        release: Effect.promise(() => {
          const { release } = held!
          held = undefined
          return release()
        })
      })
    })
  )
