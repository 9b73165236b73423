/**
 * Where the value of a materialized view comes from: the query, or with a shared
 * store another process that has read it.
 *
 *     lookup ─ a value that satisfies ─────────────▶ taken
 *       │    └ one that does not ─▶ lookup, too old ─┐
 *       ▼                                            ▼
 *     another process reads it ─▶ wait, lookup    ours to read
 *                                                    ▼
 *     query ─ fails, dies, takes too long ─▶ release; the old value stays
 *       ▼
 *     the value is here ─▶ store, judged by the lease
 *
 * A view may serve what was invalidated. What it may not do is to take an
 * invalidated value for a new one: what is stored obeys the rules of all entries.
 *
 * What a query depends on is known when it has run, and must be registered before
 * it runs: a write between the two would find nothing to stamp. So what came up in
 * the last run is registered for the next one. What comes up for the first time is
 * registered after the run, and if anything at all was invalidated meanwhile, the
 * query runs once more: once in the life of a view, as a rule, and by one process.
 *
 * The value is kept here and not in the store's first level: a store may evict, and
 * a view serves what it has for as long as it is there.
 */
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as CacheScope from "../CacheScope.ts"
import type * as CacheStore from "../CacheStore.ts"
import * as Dependency from "../Dependency.ts"
import { apart } from "./apart.ts"
import { Consulted, CurrentConsulted, type Parts, reaches } from "./consulted.ts"
import { type Engine, isUnserved, NamedKey, NamedSpace } from "./engine.ts"
import type { Names } from "./naming.ts"
import { heirsOf } from "./pilot.ts"
import { viewPrefix } from "./reactivity.ts"
import { freeze, sizeOf } from "./rows.ts"
import type { Snapshot } from "./viewCodec.ts"

export interface SourceOptions<A, E> {
  readonly engine: Engine
  readonly name: string
  /** Reads the value, in this process and wherever it is asked for the same. */
  readonly query: Effect.Effect<A, E>
  readonly codec: CacheStore.Codec
  readonly version: string
  /** Besides those that the query is found to have. */
  readonly dependencies: ReadonlyArray<Dependency.Dependency>
  /** Whether values may be shared with other processes. */
  readonly isShared: boolean
  /** `undefined`: by its own key only. */
  readonly debounceMillis: number | undefined
  /** From which age on a reader has it renewed. */
  readonly timeToLiveMillis: number
  readonly queryTimeoutMillis: number
  readonly maxEntryBytes: number
  /** How long it is until the first time that the schedule renews it. */
  readonly firstDelayMillis: number
}

/**
 * What satisfies a request, from the least to the most: whatever is valid and not too old; what is valid; a value other
 * than the one here; only one that is read from now on.
 */
export type Need = "first" | "valid" | "newer" | "read"

interface Current<A> {
  readonly value: A
  /** The same, as a reader gets it: made once. */
  readonly exit: Exit.Exit<A>
  readonly id: string
  readonly parts: Parts
  readonly readAtMillis: number
  readonly costMillis: number
}

interface Read<A> extends Snapshot {
  readonly value: A
  readonly costMillis: number
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

// The store is asked in the background, and values may be large.
const storeTimeoutMillis = 10_000

// For how long a shared store keeps a value at least: processes that start find one.
const keepMillis = 24 * 60 * 60 * 1000

// How often another process is asked after that reads the value.
const firstPauseMillis = 5
const longestPauseMillis = 250

const noParts: Parts = { stamps: [], tables: [], shapes: [], isUnknown: false }

export class ViewSource<A, E> {
  current: Current<A> | undefined
  readonly key: NamedKey
  /** What is heard in this process when there is a new value. */
  readonly news: Dependency.DependencySet
  private readonly options: SourceOptions<A, E>
  /** What an explicit invalidation of the view marks. */
  private readonly keyStamp: string
  /** What the program says that it depends on, by what the names mean now. */
  private own: Dependency.DependencySet
  private names: Names
  private readonly scope: CacheScope.Resolved | undefined
  private noted: Consulted | undefined
  private registeredLast: Dependency.DependencySet
  /** Whether the last lookup met a fence, or the barrier, of a store that is kept strict. */
  private isBypassed = false
  private ids = 0
  private readonly id = crypto.randomUUID()

  constructor(options: SourceOptions<A, E>, scope: CacheScope.Resolved | undefined) {
    const { codec, engine, name, version } = options
    this.options = options
    this.key = new NamedKey(new NamedSpace(engine, name, `view\n${version}`), "view", scope, codec)
    this.scope = scope
    this.keyStamp = Dependency.explicitTargets([Dependency.key(name, "view")]).stamps[0]!
    const stamp = `${viewPrefix}${name}`
    this.news = { id: stamp, basis: stamp, stamps: [stamp], shapes: [], tables: [] }
    this.names = engine.naming.of(scope)
    this.own = this.registeredLast = this.mean()
  }

  private mean(): Dependency.DependencySet {
    const { dependencies, engine, name } = this.options
    const own = Dependency.makeSet([Dependency.key(name, "view"), ...this.names.dependencies(dependencies)])
    engine.changes.know(own.stamps)
    return own
  }

  /**
   * What an invalidation makes of the value, if anything. Whether it is still valid is for the store to say, but for
   * what the store does not know.
   */
  needAfter(targets: Dependency.Targets): Need | undefined {
    if (!this.isTouchedBy(targets)) return undefined
    const isUnknown = this.current?.parts.isUnknown === true || this.noted?.isUnknown === true
    return isUnknown || targets.stamps.some((stamp) => stamp.startsWith(viewPrefix)) ? "newer" : "valid"
  }

  /** What came up in a run that is under way counts already: its value may be older than the change. */
  private isTouchedBy(targets: Dependency.Targets): boolean {
    const { debounceMillis } = this.options
    if (targets.stamps.includes(this.keyStamp)) return true
    if (debounceMillis === undefined) return false
    const parts = this.current?.parts
    return touches(targets, this.own) ||
      (parts !== undefined && (parts.isUnknown || touches(targets, parts))) ||
      this.noted?.isTouchedBy(targets) === true
  }

  /** Renews the value until it satisfies a need. */
  satisfy(need: Need): Effect.Effect<A, E | Cause.TimeoutError> {
    const { engine, isShared, queryTimeoutMillis } = this.options
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function*() {
        if (!isShared || isUnserved(engine, this.registered())) return yield* this.read(undefined, restore)
        const begunMillis = yield* Clock.currentTimeMillis
        let pauseMillis = firstPauseMillis
        let claimFromMillis = 0
        for (;;) {
          const now = yield* Clock.currentTimeMillis
          if (now - begunMillis > queryTimeoutMillis) return yield* this.read(undefined, restore)
          let found = yield* this.lookup(undefined)
          if (found?._tag === "Hit") {
            const before = this.current
            const taken = yield* this.take(found, need, now)
            if (taken !== undefined) return taken.value
            // Who was waited for is done.
            if (this.current !== before) claimFromMillis = 0
            if (now >= claimFromMillis) {
              found = yield* this.lookup(0)
              // Stored in the meantime.
              const newer = found?._tag === "Stale" ? yield* this.take(found, need, now) : undefined
              if (newer !== undefined) {
                if (found?._tag === "Stale" && !found.waiting) yield* this.release(found.lease, "next")
                return newer.value
              }
              // Whoever reads it takes as long as the last time, and is not disturbed that long.
              claimFromMillis = now + Math.max(longestPauseMillis, 2 * (this.current?.costMillis ?? 0))
            }
          }
          if (found === undefined || found._tag === "Miss" || (found._tag === "Stale" && !found.waiting)) {
            return yield* this.read(found?.lease, restore)
          }
          yield* restore(Effect.sleep(Duration.millis(pauseMillis)))
          pauseMillis = Math.min(pauseMillis * 2, longestPauseMillis)
        }
      })
    )
  }

  /**
   * Takes over what is in the store, if it is news. The value is answered if the need is satisfied: what is valid there
   * tells that what was read later, here, is valid too.
   */
  private take(
    kept: CacheStore.Hit | CacheStore.Stale,
    need: Need,
    nowMillis: number
  ): Effect.Effect<{ readonly value: A } | undefined> {
    return Effect.gen({ self: this }, function*() {
      const { id, parts, value } = kept.value as Snapshot
      const { costMillis, storedAtMillis } = kept
      const { current } = this
      const readAtMillis = storedAtMillis - costMillis
      const isNews = current === undefined || (id !== current.id && readAtMillis > current.readAtMillis)
      if (isNews) {
        yield* this.become({ value: value as A, id, parts, readAtMillis, costMillis })
        this.options.engine.tally.viewed("taken")
      }
      const { firstDelayMillis, timeToLiveMillis } = this.options
      const isYoung = nowMillis - readAtMillis < Math.min(firstDelayMillis, timeToLiveMillis)
      const isSatisfied = need === "valid" || (need === "newer" && isNews) || (need === "first" && isYoung)
      return isSatisfied ? { value: isNews ? value as A : current.value } : undefined
    })
  }

  private read(
    lease: CacheStore.Lease | undefined,
    restore: Restore
  ): Effect.Effect<A, E | Cause.TimeoutError> {
    return Effect.gen({ self: this }, function*() {
      const before = this.registeredLast
      const first = yield* this.query(restore)
      if (Exit.isFailure(first)) {
        yield* this.release(lease, heirsOf(first.cause))
        return yield* Effect.failCause(first.cause)
      }
      if (lease === undefined && !this.isBypassed) return first.value.value
      const dependencies = this.registered()
      if (dependencies.stamps.every((stamp) => before.stamps.includes(stamp))) {
        yield* this.fill(first.value, dependencies, lease)
        return first.value.value
      }
      const later = (yield* this.lookup(0))?.lease
      if (later === undefined) yield* this.release(lease)
      // What is bypassed is registered all the same, and what came up may have been invalidated before.
      if (later === undefined && !this.isBypassed) return first.value.value
      const own = later && { ...later, flight: later.flight ?? lease?.flight }
      // Nothing at all was invalidated between the two, so neither was what has come up.
      if (later !== undefined && later.epoch === lease?.epoch && later.clock === lease.clock) {
        yield* this.fill(first.value, dependencies, own)
        return first.value.value
      }
      const second = yield* this.query(restore)
      if (Exit.isFailure(second)) {
        yield* this.release(own)
        return first.value.value
      }
      yield* this.fill(second.value, dependencies, own)
      return second.value.value
    })
  }

  /** Runs the query, and takes in what it gives. */
  private query(restore: Restore): Effect.Effect<Exit.Exit<Read<A>, E | Cause.TimeoutError>> {
    const { query, queryTimeoutMillis } = this.options
    return Effect.gen({ self: this }, function*() {
      const clock = yield* Clock.Clock
      const readAtMillis = clock.currentTimeMillisUnsafe()
      const begun = clock.currentTimeNanosUnsafe()
      const noted = this.noted = new Consulted()
      const exit = yield* Effect.exit(restore(bounded(
        Effect.map(Effect.provideService(query, CurrentConsulted, noted), (value): A => freeze(value)),
        queryTimeoutMillis
      )))
      if (Exit.isFailure(exit)) return Exit.failCause(exit.cause)
      const costMillis = Number(clock.currentTimeNanosUnsafe() - begun) / 1e6
      const id = `${this.id}.${this.ids++}`
      const parts = noted.toParts()
      yield* this.become({ value: exit.value, id, parts, readAtMillis, costMillis })
      this.options.engine.tally.viewed("read")
      return Exit.succeed({ id, parts, value: exit.value, costMillis })
    })
  }

  private fill(
    { costMillis, ...snapshot }: Read<A>,
    dependencies: Dependency.DependencySet,
    lease: CacheStore.Lease | undefined
  ): Effect.Effect<void> {
    const { engine: { health, store, tally }, maxEntryBytes, timeToLiveMillis } = this.options
    return Effect.suspend(() => {
      if (lease === undefined) return Effect.void
      const bytes = sizeOf(snapshot.value)
      if (bytes > maxEntryBytes) {
        tally.filled("too-large", bytes)
        return this.release(lease)
      }
      const entry: CacheStore.Entry = {
        value: snapshot,
        dependencies,
        // A finite life for the store's sake: how old a value may be is judged here.
        timeToLiveMillis: timeToLiveMillis === Infinity ? keepMillis : Math.max(2 * timeToLiveMillis, keepMillis),
        costMillis,
        bytes
      }
      return Effect.map(
        Effect.exit(health.guard("store", () => store.store(this.key, entry, lease), storeTimeoutMillis)),
        (verdict) => tally.filled(Exit.isSuccess(verdict) ? verdict.value : "failed", bytes)
      )
    })
  }

  private become(current: Omit<Current<A>, "exit">): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.current = { ...current, exit: Exit.succeed(current.value) }
      this.noted = undefined
      return this.options.engine.changes.announce({ stamps: this.news.stamps, images: [], all: false }, undefined)
    })
  }

  /** What is registered for the next run. */
  private registered(): Dependency.DependencySet {
    const { debounceMillis, engine } = this.options
    const names = engine.naming.of(this.scope)
    if (names !== this.names) {
      this.names = names
      this.own = this.mean()
    }
    const parts = debounceMillis === undefined ? noParts : this.current?.parts ?? noParts
    if (parts.stamps.length === 0) return this.own
    const stamps = [...new Set([...this.own.stamps, ...parts.stamps])].sort()
    const id = stamps.map((stamp) => `${stamp.length}:${stamp}`).join("")
    return {
      id,
      basis: id,
      stamps,
      shapes: [...this.own.shapes, ...parts.shapes],
      tables: [...new Set([...this.own.tables, ...parts.tables])]
    }
  }

  private lookup(
    maxAgeMillis: number | undefined
  ): Effect.Effect<Exclude<CacheStore.Outcome, CacheStore.Bypass> | undefined> {
    const { health, store, strict } = this.options.engine
    const registered = this.registeredLast = this.registered()
    this.isBypassed = false
    return Effect.matchEager(
      health.guard("lookup", () => store.lookup(this.key, registered, maxAgeMillis), storeTimeoutMillis),
      {
        onSuccess: (outcome) => {
          if (outcome._tag !== "Bypass") return outcome
          strict?.met(outcome)
          this.isBypassed = true
          return undefined
        },
        onFailure: () => undefined
      }
    )
  }

  private release(lease: CacheStore.Lease | undefined, heirs: CacheStore.Heirs = "all"): Effect.Effect<void> {
    const { health, store } = this.options.engine
    return lease?.flight === undefined
      ? Effect.void
      : Effect.ignore(health.guard("release", () => store.release(this.key, lease, heirs), storeTimeoutMillis))
  }
}

const touches = (targets: Dependency.Targets, parts: Pick<Dependency.DependencySet, "stamps" | "shapes">): boolean =>
  reaches(targets, (stamp) => parts.stamps.includes(stamp), parts.shapes)

const bounded = <A, E>(query: Effect.Effect<A, E>, millis: number): Effect.Effect<A, E | Cause.TimeoutError> =>
  Effect.timeout(apart(query), Duration.millis(millis))
