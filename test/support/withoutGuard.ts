// A Redis that runs scripts without one of their guards.
import type * as Redis from "effect/persistence/Redis"
import { createHash } from "node:crypto"

/** The text of a guard in the scripts, and what stands there without it. */
export type Without = readonly [guard: string | RegExp, mutant: string]

export const make = (scripts: ReadonlyArray<{ readonly lua: string }>) => {
  const luaBySha = new Map(scripts.map(({ lua }) => [createHash("sha1").update(lua).digest("hex"), lua]))
  return (redis: Redis.Redis["Service"], [guard, mutant]: Without) => {
    const changed = new Set<string>()
    const send: typeof redis.send = (command, sha, ...args) => {
      const lua = command === "EVALSHA" ? luaBySha.get(sha) : undefined
      if (lua === undefined) return redis.send(command, sha, ...args)
      const other = lua.replaceAll(guard, mutant)
      if (other !== lua) changed.add(sha)
      return redis.send("EVAL", other, ...args)
    }
    return { service: { ...redis, send }, changed: () => changed.size }
  }
}
