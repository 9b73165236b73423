/**
 * Who hears of invalidations: streams of changes, views, and Effect's Reactivity.
 *
 * Own invalidations are announced by `delivery`, when they have taken effect for
 * this process: delivered, or queued, and what they name unserved until they are.
 * Those of others come with `store.changes`, and so does the echo of the own ones:
 * whichever comes first is told.
 *
 * Nobody is woken before reading again gives the new answer:
 *
 * 1. another process' invalidation is published after it took effect in the store;
 * 2. flights in this process that began before are detached here, or a reader that
 *    was woken could join one;
 * 3. then listeners are called.
 *
 * A store in shards tells of an invalidation once for each, when that shard has it:
 * another process' is told as often, since only what lies in that shard is new by
 * then. An own one is told once, when all of them have it.
 *
 * Nothing is missed without notice. Whether the subscription works is found out by
 * *probes*: invalidations of a stamp that nobody else has, which come back as
 * messages. They are sent while somebody listens, at first to know since when
 * changes are heard, and from then on every few seconds, since a message that is
 * lost, be it the last, shows by nothing else. Whatever was, or may have been,
 * missed is made up for by telling everybody that everything has changed: a
 * subscription that broke, a probe that did not return from every shard, a clock of
 * one that skipped.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import type * as Reactivity from "effect/reactivity/Reactivity"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { CacheError, InvalidReply } from "../CacheError.ts"
import type { CacheStore, Clocks, Invalidation, LogicalClock } from "../CacheStore.ts"
import * as Dependency from "../Dependency.ts"
import { apart } from "./apart.ts"
import { baseOf, everyKey, keysOf } from "./reactivity.ts"
import type { Tally } from "./tally.ts"

export type Listener = (targets: Dependency.Targets) => void

export interface ChangesOptions {
  readonly namespace: string
  readonly store: CacheStore["Service"]
  readonly tally: Tally
  readonly detach: (targets: Dependency.Targets) => void
  /** Whose queries are woken. */
  readonly reactivities: ReadonlyArray<Reactivity.Reactivity>
  /** Whether to listen to other processes. */
  readonly remote: boolean
  readonly timeoutMillis: number
}

// How often a probe is sent again that has not come back, at first and at most; and how often one is sent when all is well.
const firstProbeMillis = 100
const beatMillis = 5_000

// For how long somebody who begins to listen waits for the subscription.
const readyMillis = 1_000

// Of how many invalidations is remembered that they were told already.
const maxTold = 1024

// Four for each of as many shards as there may be.
const maxEpochs = 1024

const maxNames = 10_000

const all = Dependency.allTargets

/** Whether a stamp is one that these targets mark. */
const isOf = ({ images, stamps }: Dependency.Targets, stamp: string): boolean =>
  stamps.includes(stamp) || images.some(({ table }) => stamp === table || stamp.startsWith(`${table}(`))

export class Changes {
  private readonly options: ChangesOptions
  private readonly listeners = new Set<Listener>()
  /** Tables, tags and names of keys that statements have named: what `all` stands for to Reactivity. */
  private readonly names = new Set<string>([everyKey])
  private readonly told = new Set<string>()
  private readonly clocks = new Map<string, number>()
  /** The shards of which something has been heard. */
  private readonly heard = new Set<number>()
  /** Own invalidations that are on their way. */
  private readonly expected = new Set<Dependency.Targets>()
  private readonly wanted = Latch.makeUnsafe(false)
  /** Opened for a probe at once. */
  private readonly poked = Latch.makeUnsafe(false)
  private readonly live = Latch.makeUnsafe(false)
  private isLive: boolean
  /** Somebody listens who may have missed something. */
  private isBehind = false
  private isFailing = false
  /** The probe that is under way, and the shards it has come back from. */
  private probe: string | undefined
  private readonly echoes = new Set<number>()
  private probes = 0

  constructor(options: ChangesOptions) {
    this.options = options
    this.isLive = !this.hasOthers
    if (this.isLive) this.live.openUnsafe()
  }

  /** Calls a listener with what was invalidated, until the returned function is called. It must not throw. */
  private listen(listener: Listener): () => void {
    this.listeners.add(listener)
    this.wanted.openUnsafe()
    if (!this.isLive) this.poked.openUnsafe()
    return () => {
      this.listeners.delete(listener)
      if (this.listeners.size === 0) {
        this.wanted.closeUnsafe()
        // Nothing shows any more whether it works.
        if (this.hasOthers) this.setLive(false)
      }
    }
  }

  /**
   * Waits until whatever is invalidated from now on is heard of. Where that takes too long, all who listen are told that
   * everything has changed once it is so.
   */
  private readonly ready: Effect.Effect<void> = Effect.suspend(() =>
    this.isLive
      ? Effect.void
      : Effect.asVoid(Effect.timeoutOption(this.live.await, Duration.millis(readyMillis))).pipe(
        Effect.andThen(Effect.sync(() => {
          if (!this.isLive) this.isBehind = true
        }))
      )
  )

  /** Listens as long as the scope is open, from when this ends. */
  attend(listener: Listener): Effect.Effect<void, never, Scope.Scope> {
    return Effect.andThen(
      Effect.acquireRelease(Effect.sync(() => this.listen(listener)), (stop) => Effect.sync(stop)),
      this.ready
    )
  }

  /** Tells of an invalidation of this process that has taken effect. `clocks`: as the store has them, where it has. */
  announce(targets: Dependency.Targets, clocks: Clocks | undefined): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.expected.delete(targets)
      const own = clocks?.slice(0, this.options.store.shards)
      return own?.map((clock) => this.isTold(clock)).every(Boolean) === true ? Effect.void : this.tell(targets)
    })
  }

  /** An invalidation of this process is on its way, and will be announced. */
  expect(targets: Dependency.Targets): void {
    this.expected.add(targets)
  }

  /** Names what statements depend on, so that `all` reaches it. */
  know(stamps: Iterable<string>): void {
    for (const stamp of stamps) {
      if (this.names.size >= maxNames) return
      const base = baseOf(stamp)
      if (base !== undefined) this.names.add(base)
    }
  }

  /** Listens to the store, in the background. */
  readonly run: Effect.Effect<void, never, Scope.Scope> = Effect.suspend(() =>
    this.hasOthers
      ? Effect.andThen(Effect.forkScoped(this.subscribe), Effect.asVoid(Effect.forkScoped(this.beat)))
      : Effect.void
  )

  private get hasOthers(): boolean {
    return this.options.remote && this.options.store.shared
  }

  private get subscribe(): Effect.Effect<void> {
    return Stream.runForEach(this.options.store.changes, (invalidation) => this.hear(invalidation)).pipe(
      // However it ended: nothing is heard any more.
      Effect.exit,
      Effect.flatMap((exit) => this.failed(exit)),
      Effect.repeat(
        Schedule.min([Schedule.exponential("100 millis", 2), Schedule.spaced("5 seconds")]).pipe(Schedule.jittered)
      ),
      Effect.asVoid
    )
  }

  private failed(exit: Exit.Exit<void, CacheError>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const cause = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      const error = cause instanceof CacheError ? cause : new CacheError({
        operation: "subscribe",
        reason: new InvalidReply({ message: "The changes of the cache store have ended", cause })
      })
      this.options.tally.storeFailed(error)
      this.isBehind = true
      this.setLive(false)
      if (this.isFailing) return Effect.void
      this.isFailing = true
      return Effect.logWarning(
        `The cache store fails (subscribe: ${error.reason._tag}); other processes' invalidations are not heard of until it works again`
      )
    })
  }

  private hear(invalidation: Invalidation): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.isFailing) {
        this.isFailing = false
        return Effect.andThen(Effect.logInfo("The cache store works again (subscribe)"), this.hear(invalidation))
      }
      const { shards = 1 } = this.options.store
      // Of shards that others use besides nothing is read here.
      if (invalidation.namespace !== this.options.namespace || invalidation.shard >= shards) return Effect.void
      const hasSkipped = this.hasSkipped(invalidation)
      const isProbe = this.probe !== undefined && invalidation.stamps.includes(this.probe)
      if (isProbe && this.echoes.add(invalidation.shard).size === shards) {
        this.probe = undefined
        this.setLive(true)
      }
      const isBehind = this.isBehind || hasSkipped
      this.isBehind = false
      // Or another process', of the same: what is announced is told when both have taken effect.
      const isExpected = !isBehind && this.isExpected(invalidation)
      const isTold = isExpected || this.isTold(invalidation)
      if (isBehind || (invalidation.all && !isExpected)) {
        this.options.detach(all)
        return this.tell(all)
      }
      if (isTold || isProbe) return Effect.void
      const targets: Dependency.Targets = { stamps: invalidation.stamps, images: [], all: false }
      this.options.detach(targets)
      return this.tell(targets)
    })
  }

  /** Whether an invalidation before this one was not heard. */
  private hasSkipped({ clock, epoch, shard }: Invalidation): boolean {
    const last = this.clocks.get(epoch)
    const isNew = last === undefined && this.heard.has(shard)
    this.heard.add(shard)
    if (last !== undefined && clock <= last) return false
    this.clocks.delete(epoch)
    this.clocks.set(epoch, clock)
    if (this.clocks.size > maxEpochs) this.clocks.delete(this.clocks.keys().next().value!)
    return isNew || (last !== undefined && clock > last + 1)
  }

  /** Whether all of it is about to be announced. */
  private isExpected({ all, stamps }: Invalidation): boolean {
    for (const targets of this.expected) {
      if (targets.all || (!all && stamps.every((stamp) => isOf(targets, stamp)))) return true
    }
    return false
  }

  private isTold({ clock, epoch }: LogicalClock): boolean {
    const id = `${clock} ${epoch}`
    if (this.told.has(id)) return true
    this.told.add(id)
    if (this.told.size > maxTold) this.told.delete(this.told.values().next().value!)
    return false
  }

  private tell(targets: Dependency.Targets): Effect.Effect<void> {
    return Effect.suspend(() => {
      for (const listener of this.listeners) listener(targets)
      const { reactivities } = this.options
      if (reactivities.length === 0) return Effect.void
      const keys = targets.all ? [...this.names] : keysOf(targets)
      // In the fiber of whoever writes, so that `Reactivity.withBatch` around it holds. What a handler does is its own.
      return Effect.forEach(
        reactivities,
        (reactivity) => Effect.ignoreCause(Effect.suspend(() => reactivity.invalidate(keys))),
        { discard: true }
      )
    })
  }

  private setLive(isLive: boolean): void {
    this.isLive = isLive
    if (isLive) this.live.openUnsafe()
    else this.live.closeUnsafe()
  }

  private get beat(): Effect.Effect<void> {
    const { namespace, store, timeoutMillis } = this.options
    const name = `?${crypto.randomUUID()}`
    return Effect.gen({ self: this }, function*() {
      let pauseMillis = firstProbeMillis
      for (;;) {
        yield* this.wanted.await
        // The last one has not come back: other messages may have been lost, too.
        if (this.isLive && this.probe !== undefined) {
          this.setLive(false)
          this.isBehind = true
        }
        const probe = this.probe = `${name}.${this.probes++}`
        this.echoes.clear()
        // Whether the store works is told by those who need it.
        const sent = yield* Effect.exit(Effect.timeout(
          apart(Effect.suspend(() => store.invalidate({ namespace, stamps: [probe], images: [], all: false }))),
          Duration.millis(timeoutMillis)
        ))
        if (Exit.isFailure(sent) && this.isLive) this.probe = undefined
        const millis = this.isLive ? beatMillis : pauseMillis
        yield* Effect.timeoutOption(this.poked.await, Duration.millis(millis))
        this.poked.closeUnsafe()
        pauseMillis = this.isLive ? firstProbeMillis : Math.min(pauseMillis * 2, beatMillis)
      }
    })
  }
}
