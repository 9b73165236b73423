/**
 * Running a script: by the digest of its own text.
 *
 * `Redis.eval` runs whatever `SCRIPT LOAD` answered, and keeps that for good. Of a
 * client whose replies got out of step, that is the answer to another command: the
 * name of another script, say. So the digest is computed here, and a server that
 * does not know it is sent the text.
 */
import { sha1 } from "@noble/hashes/legacy.js"
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js"
import * as Effect from "effect/Effect"
import type { Redis, RedisError } from "effect/persistence/Redis"

export interface Script<Arguments> {
  readonly lua: string
  readonly keys: (args: Arguments) => ReadonlyArray<string>
  readonly argv: (args: Arguments) => ReadonlyArray<string | number>
}

export const run = <Arguments>(redis: Pick<Redis["Service"], "send">, script: Script<Arguments>) => {
  const sha = digest(script.lua)
  return (args: Arguments): Effect.Effect<unknown, RedisError> => {
    const keys = script.keys(args)
    const params = [String(keys.length), ...keys, ...script.argv(args).map(String)]
    return Effect.catchIf(
      redis.send("EVALSHA", sha, ...params),
      isUnknown,
      () => redis.send("EVAL", script.lua, ...params)
    )
  }
}

const isUnknown = (error: RedisError): boolean => String(error.cause).includes("NOSCRIPT")

const digests = new Map<string, string>()

const digest = (lua: string): string => {
  let sha = digests.get(lua)
  if (sha === undefined) digests.set(lua, sha = bytesToHex(sha1(utf8ToBytes(lua))))
  return sha
}
