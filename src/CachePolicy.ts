/**
 * How one query is cached.
 *
 * A policy is given to `QueryCache.cached`, and one may be given to
 * `CachedSqlClient.layer` as the default. Where several apply, the innermost
 * `cached` wins field by field, then the outer ones, then the layer's default,
 * then the library's. Tags and dependencies accumulate instead.
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
  /** Dependencies in addition to the tables that the statement reads. */
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
  /** Answers estimated to be larger are not stored. In bytes; defaults to 1 MiB. */
  readonly maxEntryBytes?: number | undefined
  /**
   * What a caller gets: `"fresh"` (default) is a copy of its own to do with as
   * it likes; `"frozen"` is one frozen copy shared by all callers, at no cost.
   * Dates and byte arrays in frozen rows are shared and cannot be frozen.
   */
  readonly rows?: "fresh" | "frozen" | undefined
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
  readonly maxEntryBytes: number | undefined
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
  "maxEntryBytes",
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
  const dependencies: Array<Dependency.Dependency> = []
  if (policy.tags !== undefined) {
    if (!Array.isArray(policy.tags)) throw new InvalidOptionError(owner, "tags", policy.tags, "an array of strings")
    for (const tag of policy.tags) {
      if (typeof tag !== "string" || tag.length === 0) {
        throw new InvalidOptionError(owner, "tags", policy.tags, "an array of strings that are not empty")
      }
      dependencies.push(Dependency.tag(tag))
    }
  }
  if (policy.dependencies !== undefined) {
    if (!Array.isArray(policy.dependencies) || !policy.dependencies.every(Dependency.isDependency)) {
      throw new InvalidOptionError(owner, "dependencies", policy.dependencies, "an array made by the Dependency module")
    }
    dependencies.push(...policy.dependencies)
  }
  if (policy.autoInvalidate !== undefined && typeof policy.autoInvalidate !== "boolean") {
    throw new InvalidOptionError(owner, "autoInvalidate", policy.autoInvalidate, "true or false")
  }
  if (policy.cacheWhen !== undefined && typeof policy.cacheWhen !== "function") {
    throw new InvalidOptionError(owner, "cacheWhen", policy.cacheWhen, "a function of the rows")
  }
  return {
    name: policy.name === undefined ? undefined : Options.text(owner, "name", policy.name),
    timeToLiveMillis: policy.timeToLive === undefined
      ? undefined
      : Options.millis(owner, "timeToLive", policy.timeToLive, 0),
    dependencies,
    autoInvalidate: policy.autoInvalidate,
    cacheWhen: policy.cacheWhen,
    maxEntryBytes: policy.maxEntryBytes === undefined
      ? undefined
      : Options.count(owner, "maxEntryBytes", policy.maxEntryBytes, 0),
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
export const merge = (outer: Resolved, inner: Resolved): Resolved => ({
  name: inner.name ?? outer.name,
  timeToLiveMillis: inner.timeToLiveMillis ?? outer.timeToLiveMillis,
  dependencies: outer.dependencies.length === 0
    ? inner.dependencies
    : inner.dependencies.length === 0
    ? outer.dependencies
    : [...outer.dependencies, ...inner.dependencies],
  autoInvalidate: inner.autoInvalidate ?? outer.autoInvalidate,
  cacheWhen: inner.cacheWhen ?? outer.cacheWhen,
  maxEntryBytes: inner.maxEntryBytes ?? outer.maxEntryBytes,
  rows: inner.rows ?? outer.rows
})

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
  maxEntryBytes: policy.maxEntryBytes ?? 1024 * 1024,
  rows: policy.rows ?? "fresh"
})
