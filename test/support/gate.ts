// A Redis whose messages and commands wait, or are lost, when a test says so. What passes is real.
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import { createHash } from "node:crypto"

export interface Gate {
  readonly redis: Redis.Redis["Service"]
  /** Messages wait from now on; `passMessages` lets them through, in order. */
  readonly holdMessages: () => void
  readonly passMessages: () => void
  /** The next messages of a kind are lost. */
  readonly loseMessages: (count: number, kind?: "change" | "beat") => void
  /** Ends every subscription: as one that fails, or with a defect. */
  readonly endSubscriptions: (defect?: unknown) => void
  /** The next script, or the next run of this one, waits before it is sent, or its reply after it came, until released. */
  readonly holdCommand: (
    part: "request" | "reply",
    lua?: string
  ) => { readonly isHeld: () => boolean; readonly release: () => void }
}

export const make = (inner: Redis.Redis["Service"]): Gate => {
  const queues = new Set<Queue.Queue<Redis.RedisMessage, Redis.RedisError>>()
  let held: Array<() => void> | undefined
  let losing = { count: 0, kind: "change" }
  let next: {
    readonly part: "request" | "reply"
    readonly names: ReadonlyArray<string> | undefined
    reached: boolean
    readonly released: Deferred.Deferred<void>
  } | undefined

  return {
    redis: {
      ...inner,
      send: (...command) =>
        Effect.suspend(() => {
          const gate = next
          const [name, script] = command
          if (gate === undefined || !name.startsWith("EVAL") || gate.names?.includes(script) === false) {
            return inner.send<any>(...command)
          }
          next = undefined
          const wait = Effect.suspend(() => {
            gate.reached = true
            return Deferred.await(gate.released)
          })
          return gate.part === "request"
            ? Effect.andThen(wait, inner.send<any>(...command))
            : inner.send<any>(...command).pipe(
              // A script that the server has yet to learn is sent again.
              Effect.tapError(() => Effect.sync(() => next ??= gate)),
              Effect.tap(wait)
            )
        }),
      subscribe: (channel) =>
        Effect.gen(function*() {
          const from = yield* inner.subscribe(channel)
          const to = yield* Queue.unbounded<Redis.RedisMessage, Redis.RedisError>()
          queues.add(to)
          yield* Effect.forkScoped(Effect.forever(Effect.map(Queue.take(from), (message) => {
            const kind = message.message.split("\t")[4] === "b" ? "beat" : "change"
            if (losing.count > 0 && losing.kind === kind) {
              losing.count--
              return
            }
            const pass = () => Queue.offerUnsafe(to, message)
            if (held === undefined) pass()
            else held.push(pass)
          })))
          return to
        })
    },
    holdMessages: () => {
      held ??= []
    },
    passMessages: () => {
      const passing = held ?? []
      held = undefined
      for (const pass of passing) pass()
    },
    loseMessages: (count, kind = "change") => {
      losing = { count, kind }
    },
    endSubscriptions: (defect) => {
      const cause = defect === undefined
        ? Cause.fail(new Redis.RedisError({ cause: new Error("Socket closed unexpectedly") }))
        : Cause.die(defect)
      for (const queue of queues) Effect.runSync(Queue.failCause(queue, cause))
      queues.clear()
    },
    holdCommand: (part, lua) => {
      const names = lua === undefined ? undefined : [lua, createHash("sha1").update(lua).digest("hex")]
      const gate = { part, names, reached: false, released: Deferred.makeUnsafe<void>() }
      next = gate
      return { isHeld: () => gate.reached, release: () => Deferred.doneUnsafe(gate.released, Effect.void) }
    }
  }
}
