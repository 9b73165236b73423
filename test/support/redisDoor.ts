// A TCP door before a Redis server, which says something else in the server's place.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import * as Net from "node:net"
import type { Server } from "./redis.ts"

export interface Door {
  readonly port: number
  /**
   * What is said from now on in place of each reply. `undefined` ends the connections that were lied to, and lets the
   * others through.
   */
  readonly say: (bytes: string | undefined) => Effect.Effect<void>
  /** Whatever the server says on the connections that there are is lost from now on. They stay open. */
  readonly mute: Effect.Effect<void>
}

/** The port of the server is read anew for each connection. */
export const make = Effect.fnUntraced(
  function*(server: Pick<Server, "port">): Effect.fn.Return<Door, never, Scope.Scope> {
    const sockets = new Set<Net.Socket>()
    const muted = new Set<Net.Socket>()
    let said: string | undefined

    const door = yield* Effect.acquireRelease(
      Effect.promise(async () => {
        const door = Net.createServer((client) => {
          const upstream = Net.connect(server.port, "127.0.0.1")
          for (const [one, other] of [[client, upstream], [upstream, client]] as const) {
            sockets.add(one)
            one.on("error", () => {})
            one.on("close", () => {
              sockets.delete(one)
              other.destroy()
            })
          }
          client.on("data", (data) => void upstream.write(data))
          upstream.on("data", (data) => {
            if (!muted.has(client)) client.write(said ?? data)
          })
        })
        await new Promise<void>((resolve) => door.listen(0, "127.0.0.1", resolve))
        return door
      }),
      (door) =>
        Effect.promise(async () => {
          const closed = once(door, "close")
          door.close()
          for (const socket of sockets) socket.destroy()
          await closed
        })
    )
    return {
      port: (door.address() as Net.AddressInfo).port,
      mute: Effect.sync(() => {
        for (const socket of sockets) muted.add(socket)
      }),
      say: (bytes) =>
        Effect.sync(() => {
          said = bytes
          if (bytes === undefined) { for (const socket of sockets) socket.destroy() }
        })
    }
  }
)
