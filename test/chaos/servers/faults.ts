// What befalls one Redis server. One at a time: each expects the server as it was started.
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { rm } from "node:fs/promises"
import { join } from "node:path"
import type { Server } from "../../support/redis.ts"
import type { Fault } from "../topology.ts"

export const between = (random: () => number, least: number, most: number): number => least + random() * (most - least)

export const sleep = (millis: number): Effect.Effect<void> => Effect.sleep(Duration.millis(millis))

/** What holds as long as a scope does, for so long. */
export const lasting = <E, R>(
  millis: number,
  effect: Effect.Effect<unknown, E, R>
): Effect.Effect<void, E, Exclude<R, Scope.Scope>> => Effect.scoped(Effect.andThen(effect, sleep(millis)))

/** Asks again until it is so. What takes longer than 20 seconds does not heal. */
export const until = Effect.fnUntraced(function*(name: string, is: Effect.Effect<boolean>) {
  for (let attempt = 0; !(yield* is); attempt++) {
    if (attempt === 2_000) throw new Error(`It never came: ${name}`)
    yield* sleep(10)
  }
})

/** Settings of a running server, for as long as the scope. */
export const set = (
  server: Server,
  settings: { readonly [name: string]: string }
): Effect.Effect<void, never, Scope.Scope> => {
  const apply = (all: ReadonlyArray<readonly [string, string]>) => server.command("CONFIG", "SET", ...all.flat())
  const known = Effect.forEach(
    Object.keys(settings),
    (name) =>
      Effect.map(server.command("CONFIG", "GET", name), (found): readonly [string, string] => [name, found[name]])
  )
  return Effect.acquireRelease(Effect.tap(known, () => apply(Object.entries(settings))), apply)
}

/** What a line of `INFO` says. */
export const info = (server: Server, name: string): Effect.Effect<string> =>
  Effect.map(server.command("INFO", "everything"), (text) => new RegExp(`^${name}:(.*)\r$`, "m").exec(text)?.[1] ?? "")

/** Whether a replica has all of its primary, and is sent what comes: the primary waits for its first word for a second. */
export const follows = (replica: Server, primary: Server): Effect.Effect<boolean> =>
  Effect.map(
    Effect.all([info(replica, "master_link_status"), info(primary, "slave0")]),
    ([status, line]) => status === "up" && line.includes("state=online")
  )

const forget = (server: Server, file: string): Effect.Effect<void> =>
  Effect.promise(() => rm(join(server.directory, file), { recursive: true, force: true }))

/** Kills it, and starts it again after a while. */
const restart = (server: Server, awayMillis: number, between: Effect.Effect<void> = Effect.void): Effect.Effect<void> =>
  Effect.uninterruptible(
    Effect.andThen(server.stop, Effect.andThen(between, Effect.andThen(sleep(awayMillis), server.start)))
  )

/** More than a small buffer takes, in one piece, so that the server has no time to send it. */
const burst = `
for i = 1, 200 do
  for _, channel in ipairs(ARGV) do
    redis.call("PUBLISH", channel, "1\\tnobody\\t1-x\\t" .. i .. "\\t\\t#" .. string.rep("x", 1000))
  end
end`

/** Five megabytes, a bit at a time: room is made before a command runs. It may be refused where there is none to make. */
const fillUp = (server: Server) =>
  Effect.forEach(Array.from({ length: 50 }, (_, i) => i), (i) =>
    Effect.ignoreCause(server.command(
      "EVAL",
      "for i = 1, 10 do redis.call('SET', KEYS[1] .. i, string.rep('x', 10000), 'PX', 2000) end",
      "1",
      `garbage:${i}:`
    )), { discard: true })

/** Of a server alone. */
export const serverFaults = (server: Server, maxStalenessMillis: number): ReadonlyArray<Fault> => {
  const away = (random: () => number) => between(random, 10, maxStalenessMillis * 1.5)
  const simple = (name: string, ...commands: ReadonlyArray<ReadonlyArray<string>>): Fault => ({
    name,
    run: () => Effect.forEach(commands, (command) => server.command(...command), { discard: true })
  })
  const under = (
    name: string,
    settings: { readonly [name: string]: string },
    meanwhile: Effect.Effect<unknown> = Effect.void
  ): Fault => ({
    name,
    run: (random) => lasting(away(random), Effect.andThen(set(server, settings), meanwhile))
  })
  const paused = (kind: "WRITE" | "ALL"): Fault => ({
    name: `paused, ${kind}`,
    run: (random) => {
      const millis = Math.ceil(away(random))
      return Effect.andThen(server.command("CLIENT", "PAUSE", `${millis}`, kind), sleep(millis + 10))
    }
  })
  return [
    {
      name: "suspended",
      run: (random) =>
        lasting(
          between(random, 20, maxStalenessMillis * 2),
          Effect.acquireRelease(server.pause, () => server.resume)
        )
    },
    {
      name: "killed, and started without data",
      run: (random) => restart(server, away(random), forget(server, "dump.rdb"))
    },
    {
      name: "killed, and started with an old file",
      run: (random) =>
        Effect.andThen(
          server.command("SAVE"),
          Effect.andThen(sleep(between(random, 0, 1_000)), restart(server, away(random)))
        )
    },
    {
      name: "killed, and started with all its data",
      run: (random) =>
        Effect.uninterruptible(Effect.gen(function*() {
          yield* server.command("CONFIG", "SET", "appendonly", "yes")
          yield* until(
            "append-only file",
            Effect.map(
              Effect.all([info(server, "aof_rewrite_in_progress"), info(server, "aof_rewrite_scheduled")]),
              (counts) => counts.every((count) => count === "0")
            )
          )
          yield* sleep(between(random, 0, 300))
          yield* server.stop
          yield* sleep(away(random))
          yield* server.startWith({ appendonly: "yes" })
          yield* server.command("CONFIG", "SET", "appendonly", "no")
          yield* forget(server, "appendonlydir")
        }))
    },
    simple("flushed", ["FLUSHALL"]),
    simple("scripts flushed", ["SCRIPT", "FLUSH"]),
    simple("subscriptions killed", ["CLIENT", "KILL", "TYPE", "pubsub"]),
    simple("clients killed", ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]),
    {
      name: "buffer of subscriptions overrun",
      run: () =>
        Effect.scoped(Effect.gen(function*() {
          yield* set(server, { "client-output-buffer-limit": "pubsub 8192 8192 1" })
          const channels = yield* server.command("PUBSUB", "CHANNELS")
          yield* server.command("EVAL", burst, "0", ...channels)
        }))
    },
    ...["allkeys-lru", "allkeys-random"].map((policy): Fault => ({
      name: `short of memory, ${policy}`,
      run: (random) =>
        Effect.gen(function*() {
          const used = Number(yield* info(server, "used_memory"))
          yield* lasting(
            away(random),
            Effect.andThen(
              set(server, { maxmemory: `${used + 1_000_000}`, "maxmemory-policy": policy }),
              fillUp(server)
            )
          )
        })
    })),
    under("evicted", { maxmemory: "1", "maxmemory-policy": "allkeys-lru" }),
    under("out of memory", { maxmemory: "1", "maxmemory-policy": "noeviction" }),
    under("wanting replicas", { "min-replicas-to-write": "9" }),
    paused("WRITE"),
    paused("ALL")
  ]
}
