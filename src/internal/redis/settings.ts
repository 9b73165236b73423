/**
 * The options that every store over Redis has.
 */
import type * as Duration from "effect/Duration"
import { InvalidOptionError } from "../../CacheError.ts"
import * as Options from "../options.ts"
import type { Layout } from "./layouts.ts"
import { maxShards } from "./shards.ts"
import type { Settings } from "./store.ts"

/** Reads them, and refuses what is neither one of them nor of `more`. */
export const make = (
  owner: string,
  options: {
    readonly layout?: Layout | undefined
    readonly prefix?: string | undefined
    readonly maxDependencies?: number | undefined
    readonly flightTimeout?: Duration.Input | undefined
    readonly shards?: number | undefined
    readonly consistency?: "bounded" | "strict" | undefined
    readonly fenceReplicas?: number | undefined
  } | undefined,
  more: ReadonlyArray<string>
): Settings => {
  Options.known(owner, options, [
    "layout",
    "prefix",
    "maxDependencies",
    "flightTimeout",
    "shards",
    "consistency",
    "fenceReplicas",
    ...more
  ])
  const consistency = Options.oneOf(owner, "consistency", options?.consistency, ["bounded", "strict"], "bounded")
  const { fenceReplicas } = options ?? {}
  if (fenceReplicas !== undefined && consistency !== "strict") {
    throw new InvalidOptionError(owner, "fenceReplicas", fenceReplicas, "absent unless consistency is \"strict\"")
  }
  const prefix = Options.text(owner, "prefix", options?.prefix ?? "eqc")
  if (/[{}]/.test(prefix)) throw new InvalidOptionError(owner, "prefix", prefix, "without braces")
  const shards = Options.count(owner, "shards", options?.shards, 1)
  if (shards > maxShards) throw new InvalidOptionError(owner, "shards", shards, `at most ${maxShards}`)
  return {
    shards,
    layout: Options.oneOf(owner, "layout", options?.layout, ["flat", "grouped"], "flat"),
    prefix,
    maxDependencies: Options.count(owner, "maxDependencies", options?.maxDependencies, 200_000),
    // Redis takes whole milliseconds, and not any number of them.
    flightMillis: Math.min(Math.ceil(Options.millis(owner, "flightTimeout", options?.flightTimeout, 5_000)), 2 ** 42),
    maxRequests: 128,
    consistency,
    fenceReplicas: Options.count(owner, "fenceReplicas", fenceReplicas, 0)
  }
}
