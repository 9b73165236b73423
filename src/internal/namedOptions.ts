/**
 * What the constructors of cached queries and resolvers are told alike, and how
 * it is read.
 */
import type * as Duration from "effect/Duration"
import { InvalidOptionError } from "../CacheError.ts"
import * as CachePolicy from "../CachePolicy.ts"
import type * as Dependency from "../Dependency.ts"
import type { Engine } from "./engine.ts"
import { Named } from "./named.ts"
import * as Options from "./options.ts"
import type { Pure } from "./schemas.ts"

/** What of a policy makes sense for a value. */
const policyOptions = [
  "tags",
  "autoInvalidate",
  "staleWhileRevalidate",
  "staleIfError",
  "softTimeout",
  "refreshAhead",
  "jitter",
  "maxEntryBytes",
  "maxFormBytes",
  "adaptive"
] as const

const valueOptions = [
  "Key",
  "Value",
  "timeToLive",
  "dependencies",
  "cacheWhen",
  "keepError",
  "version",
  ...policyOptions
]

export interface ValueOptions<K, A, E> extends Pick<CachePolicy.CachePolicy, typeof policyOptions[number]> {
  /**
   * What a key is: a string or a number, a struct, or whatever its schema encodes. Strings, numbers and structs of
   * plain fields are the fastest.
   */
  readonly Key: Pure<K>
  /** How a value is written to a shared store. Entries of another schema are never read. */
  readonly Value: Pure<A>
  /** How long a value may be served, or a function that tells it for each value. Defaults to 1 minute. */
  readonly timeToLive?: Duration.Input | ((value: A, key: K) => Duration.Input) | undefined
  /**
   * What the value of a key derives from: a write to it, by this client, forgets the value. Without it only explicit
   * invalidations and the time to live do.
   */
  readonly dependencies?: ((key: K) => Iterable<Dependency.Dependency>) | undefined
  /** Decides by the value whether it is stored. A value it refuses, or on which it throws, is returned and not stored. */
  readonly cacheWhen?: ((value: A, key: K) => boolean) | undefined
  /**
   * Failures that are kept as values are, "not found" above all, with a time to live of their own. All other failures
   * are never kept.
   */
  readonly keepError?: { readonly Error: Pure<E>; readonly timeToLive: Duration.Input } | undefined
  /** Change it where the values change in a way that their schema does not tell. */
  readonly version?: string | undefined
}

/** Reads the options, those of `functions` among them, and takes the name. Throws where one cannot mean anything. */
export const makeNamed = <K, A, E>(
  engine: Engine,
  owner: string,
  name: string,
  options: ValueOptions<K, A, E>,
  functions: { readonly [option: string]: "wanted" | "optional" }
): Named<K, A, E> => {
  Options.known(owner, options, [...Object.keys(functions), ...valueOptions])
  for (const [option, need] of Object.entries({ ...functions, dependencies: "optional", cacheWhen: "optional" })) {
    const value = (options as any)[option]
    if (typeof value !== "function" && (value !== undefined || need === "wanted")) {
      throw new InvalidOptionError(owner, option, value, "a function")
    }
  }
  const { Key, Value, cacheWhen, dependencies, keepError, timeToLive, version } = options
  const policy: Record<string, unknown> = { name: Options.text(owner, "name", name) }
  for (const option of policyOptions) policy[option] = options[option]
  if (typeof timeToLive !== "function") policy.timeToLive = timeToLive
  return new Named<K, A, E>({
    engine,
    owner,
    name,
    Key,
    Value,
    keptError: keepError === undefined ? undefined : {
      Error: keepError.Error,
      timeToLiveMillis: Options.millis(owner, "keepError.timeToLive", keepError.timeToLive, 0)
    },
    version,
    policy: CachePolicy.resolve(policy),
    timeToLive: typeof timeToLive === "function" ? timeToLive : undefined,
    cacheWhen,
    dependencies
  })
}
