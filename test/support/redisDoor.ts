// A TCP door before a Redis server: what befalls connections on their way, one worker's or everybody's.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Buffer } from "node:buffer"
import { once } from "node:events"
import * as Net from "node:net"
import type { Server } from "./redis.ts"

/** What a connection is for. One is for commands until it subscribes. */
export type Kind = "commands" | "subscriptions"

/** What befalls the bytes of the connections that there are, and of those that come, while it lasts. */
export interface Weather {
  /** Only of connections of this kind. */
  readonly of?: Kind
  /** Only of what goes to the server, or to the client. */
  readonly way?: "up" | "down"
  /** How much later each piece arrives. Pieces stay in order. */
  readonly delayMillis?: () => number
  /** How fast they pass. */
  readonly bytesPerMilli?: number
  /** They wait until it is over, as they do for a network that is away for a while. */
  readonly held?: boolean
  /** They vanish, and so does the end of the connection. It is reset when it is over: what was lost cannot be had again. */
  readonly lost?: boolean
}

export interface Door {
  readonly port: number
  /**
   * What is said from now on in place of each reply. `undefined` ends the connections that were lied to, and lets the
   * others through.
   */
  readonly say: (bytes: string | undefined) => Effect.Effect<void>
  /** Whatever the server says on the connections that there are is lost from now on. They stay open. */
  readonly mute: Effect.Effect<void>
  /** Lasts as long as the scope. */
  readonly weather: (weather: Weather) => Effect.Effect<void, never, Scope.Scope>
  /** Resets the connections that there are. */
  readonly cut: (of?: Kind) => Effect.Effect<void>
  /** Resets every connection that comes, as long as the scope lasts. */
  readonly refuse: Effect.Effect<void, never, Scope.Scope>
  /** How many connections there are. */
  readonly count: (of?: Kind) => number
}

/** The port of the server is read anew for each connection. */
export const make = Effect.fnUntraced(
  function*(server: Pick<Server, "port">): Effect.fn.Return<Door, never, Scope.Scope> {
    const links = new Set<Link>()
    const weathers = new Set<Weather>()
    let refusals = 0
    let said: string | undefined

    const of = (kind: Kind | undefined) => Array.from(links).filter((link) => kind === undefined || link.kind === kind)

    const accept = (client: Net.Socket) => {
      if (refusals > 0) {
        client.on("error", () => {})
        return void client.resetAndDestroy()
      }
      const link = new Link(client, Net.connect(server.port, "127.0.0.1"), weathers, (reply) => said ?? reply)
      links.add(link)
      link.onEnd = () => links.delete(link)
    }

    const door = yield* Effect.acquireRelease(
      Effect.promise(async () => {
        const door = Net.createServer(accept)
        await new Promise<void>((resolve) => door.listen(0, "127.0.0.1", resolve))
        return door
      }),
      (door) =>
        Effect.promise(async () => {
          const closed = once(door, "close")
          door.close()
          for (const link of links) link.end()
          await closed
        })
    )
    return {
      port: (door.address() as Net.AddressInfo).port,
      mute: Effect.sync(() => {
        for (const link of links) link.isMuted = true
      }),
      say: (bytes) =>
        Effect.sync(() => {
          said = bytes
          if (bytes === undefined) { for (const link of links) link.end() }
        }),
      weather: (weather) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            weathers.add(weather)
          }),
          () =>
            Effect.sync(() => {
              weathers.delete(weather)
              for (const link of links) link.clear(weather)
            })
        ),
      cut: (kind) =>
        Effect.sync(() => {
          for (const link of of(kind)) link.end()
        }),
      refuse: Effect.acquireRelease(
        Effect.sync(() => {
          refusals++
        }),
        () =>
          Effect.sync(() => {
            refusals--
          })
      ),
      count: (kind) => of(kind).length
    }
  }
)

/** One connection, from its client to the server. */
class Link {
  kind: Kind = "commands"
  isMuted = false
  onEnd = (): void => {}
  /** Which of the weathers have taken something from it. */
  private readonly damage = new Set<Weather>()
  private readonly client: Net.Socket
  private readonly upstream: Net.Socket
  private readonly weathers: ReadonlySet<Weather>
  private readonly up: Pipe
  private readonly down: Pipe

  constructor(
    client: Net.Socket,
    upstream: Net.Socket,
    weathers: ReadonlySet<Weather>,
    reply: (bytes: Buffer) => Buffer | string
  ) {
    this.client = client
    this.upstream = upstream
    this.weathers = weathers
    this.up = new Pipe(upstream, () => this.weatherOf("up"))
    this.down = new Pipe(client, () => this.weatherOf("down"))
    for (const [socket, way, pipe] of [[client, "up", this.up], [upstream, "down", this.down]] as const) {
      socket.setNoDelay(true).on("error", () => {}).on("close", (isBroken) => {
        if (client.closed && upstream.closed) this.onEnd()
        if (this.isTaken(way)) return
        if (isBroken) this.end()
        else pipe.push(undefined, () => this.finish())
      })
    }
    client.on("data", (bytes) => {
      if (this.kind === "commands" && subscribes.test(bytes.toString("latin1"))) this.kind = "subscriptions"
      this.pass("up", bytes)
    })
    upstream.on("data", (bytes) => {
      if (!this.isMuted) this.pass("down", Buffer.from(reply(bytes)))
    })
  }

  /** One side has said all it had to say. */
  private finish(): void {
    this.client.destroySoon()
    this.upstream.destroySoon()
  }

  end(): void {
    this.up.end()
    this.down.end()
    for (const socket of [this.client, this.upstream]) {
      // One that is not connected yet cannot be reset.
      if (socket.connecting) socket.destroy()
      else socket.resetAndDestroy()
    }
  }

  /** A weather is over. */
  clear(weather: Weather): void {
    if (this.damage.has(weather)) return this.end()
    this.up.hurry()
    this.down.hurry()
  }

  private pass(way: "up" | "down", bytes: Buffer): void {
    if (!this.isTaken(way)) (way === "up" ? this.up : this.down).push(bytes)
  }

  /** Whether what is said now is lost. */
  private isTaken(way: "up" | "down"): boolean {
    const taken = this.weatherOf(way).filter(({ lost }) => lost)
    for (const weather of taken) this.damage.add(weather)
    return taken.length > 0
  }

  private weatherOf(way: "up" | "down"): ReadonlyArray<Weather> {
    // Most of the time there is none.
    return this.weathers.size === 0 ?
      noWeather :
      Array.from(this.weathers).filter((weather) =>
        (weather.of === undefined || weather.of === this.kind) && (weather.way === undefined || weather.way === way)
      )
  }
}

const noWeather: ReadonlyArray<Weather> = []

const subscribes = /\$\d+\r\n(?:S|P)?SUBSCRIBE\r\n/i

interface Piece {
  /** `undefined`: the end. */
  readonly bytes: Buffer | undefined
  dueMillis: number
  readonly passed: (() => void) | undefined
}

/** One way of a connection: pieces in order, each not before it is due. */
class Pipe {
  private readonly pieces: Array<Piece> = []
  private timer: NodeJS.Timeout | undefined
  private lastDueMillis = 0
  private readonly to: Net.Socket
  private readonly weather: () => ReadonlyArray<Weather>

  constructor(to: Net.Socket, weather: () => ReadonlyArray<Weather>) {
    this.to = to
    this.weather = weather
  }

  push(bytes: Buffer | undefined, passed?: () => void): void {
    const weather = this.weather()
    const add = (piece: Buffer | undefined, delayMillis: number) => {
      this.lastDueMillis = Math.max(this.lastDueMillis, performance.now() + delayMillis)
      this.pieces.push({ bytes: piece, dueMillis: this.lastDueMillis, passed })
    }
    const delayMillis = weather.reduce((sum, { delayMillis }) => sum + (delayMillis?.() ?? 0), 0)
    const bytesPerMilli = Math.min(...weather.map(({ bytesPerMilli = Infinity }) => bytesPerMilli))
    if (bytes === undefined || bytesPerMilli === Infinity) {
      add(bytes, delayMillis)
    } else {
      const size = Math.max(1, Math.floor(bytesPerMilli * trickleMillis))
      for (let from = 0; from < bytes.length; from += size) {
        const piece = bytes.subarray(from, from + size)
        this.lastDueMillis = Math.max(this.lastDueMillis, performance.now()) + piece.length / bytesPerMilli
        add(piece, delayMillis)
      }
    }
    this.pump()
  }

  /** What was late is due. */
  hurry(): void {
    this.lastDueMillis = 0
    for (const piece of this.pieces) piece.dueMillis = 0
    this.pump()
  }

  private pump(): void {
    clearTimeout(this.timer)
    while (this.pieces.length > 0) {
      if (this.weather().some(({ held }) => held)) return
      const [{ bytes, dueMillis, passed }] = this.pieces
      const leftMillis = dueMillis - performance.now()
      if (leftMillis > 0) {
        this.timer = setTimeout(() => this.pump(), leftMillis)
        return
      }
      this.pieces.shift()
      if (bytes !== undefined) this.to.write(bytes)
      passed?.()
    }
  }

  end(): void {
    clearTimeout(this.timer)
    this.pieces.length = 0
  }
}

/** In pieces of about so much time. */
const trickleMillis = 2
