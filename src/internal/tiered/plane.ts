/**
 * What one process has heard of a shard of a namespace, and whether that is enough to
 * serve what it holds itself of it.
 *
 * Redis numbers the invalidations of a shard and publishes each with its number. The
 * channel is in order, but it may lose messages without a word, lag behind, or end
 * unnoticed. On a cluster it is in order as far as one node publishes, which a shard's
 * does. Where another node takes over, its messages may overtake the last ones of the
 * one before: what does not follow is told by its number or its epoch as well. So:
 *
 * 1. It starts empty, with a beat: a message that the process has asked for, which says
 *    how far Redis has come. Until one has returned nothing is served or filled.
 * 2. A message is applied if it is the last applied one's successor in the same epoch.
 *    Anything else, a beat that tells another clock too, means that something was missed,
 *    and drops everything. So does the end of the subscription, and a message that nobody
 *    can read.
 * 3. It is served while the last beat that has returned was *sent* less than
 *    `maxStaleness` ago. Every invalidation that was acknowledged before that was
 *    published before the beat, so it has been applied, or was missed and noticed. Both
 *    clocks must say so: one of them stands still while the machine is suspended, the
 *    other may be set back.
 * 4. An own write is applied twice: before it is sent, and when Redis has answered. Between
 *    the two an older reply may have been filled. Its message, which comes before or after
 *    the answer, then says nothing new.
 *
 * Fills are judged by the table itself. It gives out a lease before Redis is asked, and
 * whatever is applied or dropped meanwhile makes the lease too old for what it touches.
 * What was applied before was published before, so Redis has answered in its light; in
 * the same epoch, that is: another one may belong to a server whose messages do not come
 * here.
 *
 * Nothing here is asynchronous.
 */
import type * as Clock from "effect/Clock"
import type * as CacheStore from "../../CacheStore.ts"
import * as Dependency from "../../Dependency.ts"
import { orderOf } from "../epoch.ts"
import type { MemoryTable } from "../memoryTable.ts"
import * as Wire from "../redis/wire.ts"
import type { Changes } from "./changes.ts"

/** A point in time, by the wall clock and by the one that is never set. */
export interface Moment {
  readonly millis: number
  readonly nanos: bigint
}

export const momentOf = (clock: Clock.Clock): Moment => ({
  millis: clock.currentTimeMillisUnsafe(),
  nanos: clock.monotonicTimeNanosUnsafe()
})

// What is applied or dropped is so for all that is held of the namespace, of other shards too: too much, and never too
// little.

// Not all of a process' writes are told by the channel, once it has ended. What is forgotten is applied twice.
const maxAhead = 1024

export interface PlaneOptions {
  readonly namespace: string
  readonly shard: number
  readonly table: MemoryTable
  readonly clock: Clock.Clock
  readonly maxStalenessMillis: number
  readonly changes: Changes
}

export class Plane {
  readonly namespace: string
  readonly shard: number
  /** Whether somebody has asked since this was set to `false`. */
  wasUsed = true
  private readonly options: PlaneOptions
  private readonly maxNanos: bigint
  /** How far the invalidations have been applied. */
  private applied: CacheStore.LogicalClock | undefined
  /** Own invalidations that have been applied before their messages, by their clocks: what they marked. */
  private readonly ahead = new Map<number, ReadonlySet<string>>()
  /** When the beats were sent that have not returned, oldest first. */
  private readonly beats = new Map<string, Moment>()
  /** When the last beat was sent that has returned on the channel; that Redis has answered. */
  private returned: Moment | undefined
  private answered: Moment | undefined
  // `isFresh` as of a millisecond.
  private judgedMillis = NaN
  private judgedFresh = false

  constructor(options: PlaneOptions) {
    this.namespace = options.namespace
    this.shard = options.shard
    this.options = options
    this.maxNanos = BigInt(Math.ceil(options.maxStalenessMillis * 1e6))
  }

  /** Whether what is held may be served. `nowMillis` is by the wall clock. */
  isFresh(nowMillis: number): boolean {
    // Most calls share their millisecond with another one.
    if (nowMillis !== this.judgedMillis) {
      this.wasUsed = true
      this.judgedMillis = nowMillis
      this.judgedFresh = this.applied !== undefined && this.isRecent(this.returned, nowMillis)
    }
    return this.judgedFresh
  }

  /** Whether Redis has accepted a write of late: else its reads prove nothing, since nothing could be marked there. */
  isProven(nowMillis: number): boolean {
    return this.isRecent(this.answered, nowMillis)
  }

  /** The clock at which what is served is valid: good for a fill that replaces it. */
  lease(): CacheStore.Lease {
    const { clock, epoch } = this.applied!
    return { epoch, clock }
  }

  /** How far the invalidations have been applied: the same object for as long as they are. */
  get clock(): CacheStore.LogicalClock | undefined {
    return this.applied
  }

  /** Whether a reply is of the epoch whose messages come here. */
  mayFill({ epoch }: CacheStore.LogicalClock): boolean {
    return this.applied?.epoch === epoch
  }

  /** A beat is on its way. */
  sent(nonce: string, moment: Moment): void {
    this.beats.set(nonce, moment)
    for (const [old, { nanos }] of this.beats) {
      if (moment.nanos - nanos < this.maxNanos) break
      this.beats.delete(old)
    }
  }

  /** Redis has answered a beat that was sent then. */
  accepted(moment: Moment): void {
    this.answered = moment
  }

  /** Whether beats are answered, and none has returned on the channel since a moment that is long enough ago. */
  isDeaf(since: Moment): boolean {
    const { nanos } = momentOf(this.options.clock)
    const heard = this.returned === undefined || this.returned.nanos < since.nanos ? since : this.returned
    return nanos - heard.nanos > this.maxNanos * BigInt(2) && this.answered !== undefined &&
      nanos - this.answered.nanos < this.maxNanos
  }

  hear(message: CacheStore.Invalidation | Wire.Beat): void {
    const { applied } = this
    if (Wire.isBeat(message)) {
      if (applied === undefined || applied.epoch !== message.epoch || applied.clock !== message.clock) {
        this.drop(message)
      }
      const moment = this.beats.get(message.nonce)
      if (moment === undefined) return
      this.beats.delete(message.nonce)
      this.returned = moment
      this.judgedMillis = NaN
    } else if (applied !== undefined) {
      if (applied.epoch !== message.epoch || applied.clock + 1 !== message.clock) return this.drop(message)
      this.applied = { epoch: message.epoch, clock: message.clock }
      const own = this.ahead.get(message.clock)
      this.ahead.delete(message.clock)
      const stamps = own === undefined ? message.stamps : message.stamps.filter((stamp) => !own.has(stamp))
      if (own === undefined || message.all || stamps.length > 0) this.apply({ ...message, stamps, images: [] })
    }
  }

  /** The subscription has ended, or cannot be relied on: what comes next may not be what follows. */
  lose(): void {
    if (this.applied !== undefined) this.drop(this.applied)
    this.applied = undefined
    this.judgedMillis = NaN
  }

  /** A write of this process is about to be sent. */
  purge(request: CacheStore.InvalidateRequest): void {
    this.options.table.invalidate(request)
  }

  /** Redis has answered a write of this process. */
  wrote(request: CacheStore.InvalidateRequest, at: CacheStore.LogicalClock): void {
    const { applied } = this
    if (applied !== undefined && applied.epoch === at.epoch) {
      // Its message came before the answer.
      if (at.clock <= applied.clock) return
      const { stamps } = this.apply({ ...at, ...request })
      if (this.ahead.size >= maxAhead) this.ahead.clear()
      this.ahead.set(at.clock, new Set(stamps))
    } else if (applied !== undefined && orderOf(at.epoch) >= orderOf(applied.epoch)) {
      // The message that begins its epoch is still to come. What is held was valid before.
      this.apply({ ...at, namespace: this.namespace, ...Dependency.allTargets })
    } else {
      this.apply({ ...at, ...request })
    }
  }

  private isRecent(moment: Moment | undefined, nowMillis: number): boolean {
    if (moment === undefined) return false
    const { clock, maxStalenessMillis } = this.options
    const elapsedMillis = nowMillis - moment.millis
    return elapsedMillis >= 0 && elapsedMillis < maxStalenessMillis &&
      clock.monotonicTimeNanosUnsafe() - moment.nanos < this.maxNanos
  }

  private drop({ clock, epoch }: CacheStore.LogicalClock): void {
    this.ahead.clear()
    this.applied = { epoch, clock }
    this.apply({ namespace: this.namespace, epoch, clock, ...Dependency.allTargets })
  }

  private apply(change: CacheStore.LogicalClock & CacheStore.InvalidateRequest): CacheStore.Invalidation {
    const { all, stamps } = this.options.table.invalidate(change)
    const { namespace, shard } = this
    const applied = { namespace, shard, epoch: change.epoch, clock: change.clock, all, stamps }
    this.options.changes.publish(applied)
    return applied
  }
}
