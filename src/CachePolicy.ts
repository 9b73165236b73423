/**
 * How one query is cached.
 *
 * A policy is given to `QueryCache.cached`, to `CachedSqlClient.layer` as the
 * default, and to a {@link Rule} for all queries of a name, a table or a tag. Where
 * several apply, each field is taken from the first that says something:
 *
 * 1. the call: the innermost `cached`, then the outer ones,
 * 2. the rules, in their order,
 * 3. the layer's `policy`,
 * 4. the library's defaults.
 *
 * Tags and dependencies accumulate instead.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import { InvalidOptionError } from "./CacheError.ts"
import * as Dependency from "./Dependency.ts"
import * as Options from "./internal/options.ts"

/**
 * How one query is cached. Every field is optional.
 *
 * @category models
 * @since 0.1.0
 */
export interface CachePolicy {
  /** A name for logs, metrics and `QueryInfo`, such as `"users.byId"`. It is no part of the key. */
  readonly name?: string | undefined
  /** How long an answer may be served after it was read. Defaults to 1 minute. Finite and above zero. */
  readonly timeToLive?: Duration.Input | undefined
  /** Labels by which `Invalidator.invalidate({ tags })` finds the answer. */
  readonly tags?: ReadonlyArray<string> | undefined
  /** Dependencies in addition to the tables and rows that the statement is seen to read. */
  readonly dependencies?: ReadonlyArray<Dependency.Dependency> | undefined
  /**
   * With `false`, writes of the program leave the answer alone: only
   * `Invalidator.invalidate` (by tables and rows as well as by tags) and the time
   * to live end it. A statement that may have changed anything ends it all the
   * same: DDL, CALL, a function nobody knows. Defaults to `true`.
   */
  readonly autoInvalidate?: boolean | undefined
  /**
   * Decides by the rows whether an answer is stored. It must not change them. An
   * answer it refuses, or on which it throws, is returned and not stored.
   */
  readonly cacheWhen?: ((rows: ReadonlyArray<any>) => boolean) | undefined
  /**
   * For how long after its time to live an answer is still served at once, while it is read anew in the background.
   * Defaults to 0: not at all. An answer whose data have changed is never served.
   */
  readonly staleWhileRevalidate?: Duration.Input | undefined
  /**
   * For how long after its time to live an answer is still served where the database fails, or takes longer than
   * `softTimeout`. Defaults to 0: not at all. An answer whose data have changed is never served.
   */
  readonly staleIfError?: Duration.Input | undefined
  /**
   * Where a stale answer may be served, how long a caller waits for the database before it is. The database goes on,
   * and its answer is stored. Shorter than `hardTimeout`, where a policy has both. Defaults to no limit.
   */
  readonly softTimeout?: Duration.Input | undefined
  /**
   * How long a caller waits for the database at most. Then its statement fails with a `SqlError` whose reason is a
   * `StatementTimeoutError`. The database goes on, and its answer is stored. Defaults to no limit.
   */
  readonly hardTimeout?: Duration.Input | undefined
  /**
   * Reads an answer anew in the background shortly before its time to live passes, the earlier the longer reading it
   * took, so that no caller waits. `beta` above 1 is earlier; `true` is 1. Defaults to `false`.
   *
   * This is XFetch (Vattani, Chierichetti, Lowenstein: "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015).
   */
  readonly refreshAhead?: boolean | { readonly beta: number } | undefined
  /**
   * By which part of itself `timeToLive` is shortened at random for each answer, so that what was stored together does
   * not expire together. From 0 (default) to below 1.
   */
  readonly jitter?: number | undefined
  /** Answers estimated to be larger are not stored. In bytes; defaults to 1 MiB. */
  readonly maxEntryBytes?: number | undefined
  /**
   * How much the answers of one statement text take together in this process, in bytes: the oldest make way. Keeps a
   * statement with many parameters from driving out the others. Not counted in Redis. Defaults to no limit but the
   * store's.
   */
  readonly maxFormBytes?: number | undefined
  /**
   * With `true`, a statement whose answers are hardly ever read again, or are invalidated before they are, is not
   * stored for a minute, and then tried again. Defaults to `false`: it is reported, and stored all the same.
   */
  readonly adaptive?: boolean | undefined
  /**
   * What a caller gets: `"fresh"` (default) is a copy of its own to do with as
   * it likes; `"frozen"` is one frozen copy shared by all callers, at no cost.
   * Dates and byte arrays in frozen rows are shared and cannot be frozen.
   */
  readonly rows?: "fresh" | "frozen" | undefined
}

/**
 * A policy for every query that it matches.
 *
 * @category models
 * @since 0.1.0
 */
export interface Rule {
  /**
   * Which queries: a name as the policy or the cached query has it, in which `*` stands for any text, such as
   * `"dashboard:*"`; or all that read a table, or have a tag.
   */
  readonly match:
    | string
    | { readonly name: string }
    | { readonly table: string }
    | { readonly tag: string }
  /** Without a `name`. `"uncached"` keeps what it matches out of the cache, whatever else is said. */
  readonly policy: CachePolicy | "uncached"
}

/**
 * A policy that has been checked, with tags among its dependencies. Made by
 * {@link resolve}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Resolved {
  readonly name: string | undefined
  readonly timeToLiveMillis: number | undefined
  readonly dependencies: ReadonlyArray<Dependency.Dependency>
  readonly autoInvalidate: boolean | undefined
  readonly cacheWhen: ((rows: ReadonlyArray<any>) => boolean) | undefined
  readonly staleWhileRevalidateMillis: number | undefined
  readonly staleIfErrorMillis: number | undefined
  readonly softTimeoutMillis: number | undefined
  readonly hardTimeoutMillis: number | undefined
  /** XFetch's beta, 0 where nothing is refreshed ahead. */
  readonly refreshAhead: number | undefined
  readonly jitter: number | undefined
  readonly maxEntryBytes: number | undefined
  readonly maxFormBytes: number | undefined
  readonly adaptive: boolean | undefined
  readonly rows: "fresh" | "frozen" | undefined
}

/**
 * A policy in which nothing is left open.
 *
 * @category models
 * @since 0.1.0
 */
export interface Complete extends Resolved {
  readonly timeToLiveMillis: number
  readonly autoInvalidate: boolean
  readonly staleWhileRevalidateMillis: number
  readonly staleIfErrorMillis: number
  /** Infinite where there is no limit, as is `hardTimeoutMillis`. */
  readonly softTimeoutMillis: number
  readonly hardTimeoutMillis: number
  readonly refreshAhead: number
  readonly jitter: number
  readonly maxEntryBytes: number
  readonly rows: "fresh" | "frozen"
}

const owner = "CachePolicy"

const names = [
  "name",
  "timeToLive",
  "tags",
  "dependencies",
  "autoInvalidate",
  "cacheWhen",
  "staleWhileRevalidate",
  "staleIfError",
  "softTimeout",
  "hardTimeout",
  "refreshAhead",
  "jitter",
  "maxEntryBytes",
  "maxFormBytes",
  "adaptive",
  "rows"
]

/**
 * Checks a policy. Throws an `InvalidOptionError` that names the option and the
 * value where one cannot mean anything.
 *
 * @category constructors
 * @since 0.1.0
 */
export const resolve = (policy: CachePolicy): Resolved => {
  Options.known(owner, policy, names)
  if (policy.cacheWhen !== undefined && typeof policy.cacheWhen !== "function") {
    throw new InvalidOptionError(owner, "cacheWhen", policy.cacheWhen, "a function of the rows")
  }
  const softTimeoutMillis = millis(policy, "softTimeout")
  const hardTimeoutMillis = millis(policy, "hardTimeout")
  if (softTimeoutMillis !== undefined && hardTimeoutMillis !== undefined && softTimeoutMillis >= hardTimeoutMillis) {
    throw new InvalidOptionError(owner, "softTimeout", policy.softTimeout, "shorter than hardTimeout")
  }
  return {
    name: policy.name === undefined ? undefined : Options.text(owner, "name", policy.name),
    timeToLiveMillis: millis(policy, "timeToLive"),
    dependencies: [...tagsOf(policy.tags), ...dependenciesOf(policy.dependencies)],
    autoInvalidate: Options.flag(owner, "autoInvalidate", policy.autoInvalidate),
    cacheWhen: policy.cacheWhen,
    staleWhileRevalidateMillis: Options.millisOrZero(owner, "staleWhileRevalidate", policy.staleWhileRevalidate),
    staleIfErrorMillis: Options.millisOrZero(owner, "staleIfError", policy.staleIfError),
    softTimeoutMillis,
    hardTimeoutMillis,
    refreshAhead: betaOf(policy.refreshAhead),
    jitter: jitterOf(policy.jitter),
    maxEntryBytes: bytes(policy, "maxEntryBytes"),
    maxFormBytes: bytes(policy, "maxFormBytes"),
    adaptive: Options.flag(owner, "adaptive", policy.adaptive),
    rows: policy.rows === undefined
      ? undefined
      : Options.oneOf<"fresh" | "frozen">(owner, "rows", policy.rows, ["fresh", "frozen"], "fresh")
  }
}

/**
 * One policy inside another: inner fields win, dependencies accumulate.
 *
 * @category combinators
 * @since 0.1.0
 */
export const merge = (outer: Resolved, inner: Resolved): Resolved => {
  const merged: any = { ...outer }
  for (const [field, value] of Object.entries(inner)) {
    if (value !== undefined) merged[field] = value
  }
  merged.dependencies = outer.dependencies.length === 0
    ? inner.dependencies
    : inner.dependencies.length === 0
    ? outer.dependencies
    : [...outer.dependencies, ...inner.dependencies]
  return merged
}

/**
 * Fills what is left open with the library's defaults.
 *
 * @category combinators
 * @since 0.1.0
 */
export const complete = (policy: Resolved): Complete => ({
  ...policy,
  timeToLiveMillis: policy.timeToLiveMillis ?? 60_000,
  autoInvalidate: policy.autoInvalidate ?? true,
  staleWhileRevalidateMillis: policy.staleWhileRevalidateMillis ?? 0,
  staleIfErrorMillis: policy.staleIfErrorMillis ?? 0,
  softTimeoutMillis: policy.softTimeoutMillis ?? Infinity,
  hardTimeoutMillis: policy.hardTimeoutMillis ?? Infinity,
  refreshAhead: policy.refreshAhead ?? 0,
  jitter: policy.jitter ?? 0,
  maxEntryBytes: policy.maxEntryBytes ?? 1024 * 1024,
  rows: policy.rows ?? "fresh"
})

const millis = (policy: CachePolicy, option: "timeToLive" | "softTimeout" | "hardTimeout"): number | undefined =>
  policy[option] === undefined ? undefined : Options.millis(owner, option, policy[option], 0)

const bytes = (policy: CachePolicy, option: "maxEntryBytes" | "maxFormBytes"): number | undefined =>
  policy[option] === undefined ? undefined : Options.count(owner, option, policy[option], 0)

const tagsOf = (tags: CachePolicy["tags"]): ReadonlyArray<Dependency.Tag> => {
  if (tags === undefined) return []
  if (!Array.isArray(tags)) throw new InvalidOptionError(owner, "tags", tags, "an array of strings")
  return tags.map((tag) => {
    if (typeof tag !== "string" || tag.length === 0) {
      throw new InvalidOptionError(owner, "tags", tags, "an array of strings that are not empty")
    }
    return Dependency.tag(tag)
  })
}

const dependenciesOf = (dependencies: CachePolicy["dependencies"]): ReadonlyArray<Dependency.Dependency> => {
  if (dependencies === undefined) return []
  if (!Array.isArray(dependencies) || !dependencies.every(Dependency.isDependency)) {
    throw new InvalidOptionError(owner, "dependencies", dependencies, "an array made by the Dependency module")
  }
  return dependencies
}

const betaOf = (value: CachePolicy["refreshAhead"]): number | undefined => {
  if (value === undefined) return undefined
  const beta = value === true ? 1 : value === false ? 0 : value?.beta
  if (typeof beta !== "number" || !(beta >= 0) || beta === Infinity) {
    throw new InvalidOptionError(owner, "refreshAhead", value, "true, false or { beta } with a number of at least 0")
  }
  return beta
}

const jitterOf = (value: number | undefined): number | undefined => {
  if (value !== undefined && !(typeof value === "number" && value >= 0 && value < 1)) {
    throw new InvalidOptionError(owner, "jitter", value, "a number from 0 to below 1")
  }
  return value
}
