/**
 * What a process keeps of a namespace in Redis, by shard, and how its commands are named.
 */
import type { CacheKey, LogicalClock } from "../../CacheStore.ts"
import type { DependencySet } from "../../Dependency.ts"
import { orderOf } from "../epoch.ts"
import * as Wire from "./wire.ts"

/** In which epoch of the first shard the others may be used (shards.ts). */
export interface Openness {
  readonly epoch: string
  /** When the first shard has last answered, or been asked in vain. */
  readonly atMillis: number
  readonly isUnconfirmed: boolean
}

/** What this process knows of one shard of a namespace. */
export class Shard {
  readonly namespace: Namespace
  readonly index: number
  readonly keys: Wire.Keys
  /** The highest clock seen, by which a Redis that went back is noticed. */
  seen: LogicalClock | undefined

  constructor(namespace: Namespace, prefix: string, index: number) {
    this.namespace = namespace
    this.index = index
    this.keys = new Wire.Keys(prefix, namespace.name, index)
    this.seen = undefined
  }

  // Replies may be handled in another order than Redis gave them.
  saw(clock: LogicalClock): void {
    if (this.seen !== undefined) {
      const order = orderOf(clock.epoch) - orderOf(this.seen.epoch)
      if (order < 0 || (order === 0 && clock.epoch === this.seen.epoch && clock.clock <= this.seen.clock)) return
    }
    this.seen = { epoch: clock.epoch, clock: clock.clock }
    if (this.index === 0 && this.namespace.opened?.epoch !== clock.epoch) this.namespace.opened = undefined
  }

  /** It has answered. */
  replied(clock: LogicalClock, nowMillis: number): void {
    this.saw(clock)
    const { opened } = this.namespace
    if (this.index === 0 && opened?.epoch === clock.epoch) {
      this.namespace.opened = { epoch: opened.epoch, atMillis: nowMillis, isUnconfirmed: false }
    }
  }
}

/** What this process knows of a namespace. */
export class Namespace {
  readonly name: string
  /** Those that this process spreads it over. */
  readonly shards: ReadonlyArray<Shard>
  private readonly prefix: string
  /** Those that others use besides. */
  private readonly others = new Map<number, Shard>()
  /** That the other shards than the first may be used. */
  opened: Openness | undefined

  constructor(prefix: string, name: string, count: number) {
    this.name = name
    this.prefix = prefix
    this.shards = Array.from({ length: count }, (_, index) => new Shard(this, prefix, index))
    this.opened = undefined
  }

  /** Where an entry is kept, and its flight and group with it. */
  shardOf({ fingerprint }: CacheKey): Shard {
    return this.shards[this.shards.length === 1 ? 0 : shardOf(fingerprint, this.shards.length)]
  }

  /** How far each was seen: its own, and those that others use besides, as far as they were asked. */
  get seen(): ReadonlyArray<LogicalClock | undefined> {
    const own = this.shards.map(({ seen }) => seen)
    return this.others.size === 0
      ? own
      : [...own, ...Array.from(this.others.values(), ({ seen }) => seen).filter((seen) => seen !== undefined)]
  }

  /** One of all shards that anybody uses. */
  shardAt(index: number): Shard {
    if (index < this.shards.length) return this.shards[index]
    let shard = this.others.get(index)
    if (shard === undefined) this.others.set(index, shard = new Shard(this, this.prefix, index))
    return shard
  }
}

/**
 * The shard of a fingerprint: FNV-1a with a finalizer, so that it has nothing in common with the part of a group that
 * the same fingerprint falls into.
 */
export const shardOf = (fingerprint: string, count: number): number => {
  let hash = 0x811c9dc5
  for (let i = 0; i < fingerprint.length; i++) hash = Math.imul(hash ^ fingerprint.charCodeAt(i), 0x01000193)
  hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b)
  hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35)
  return ((hash ^ hash >>> 16) >>> 0) % count
}

/** The distinct dependency sets of a batch, numbered from 1 as Lua does. */
export class Sets {
  readonly list: Array<Wire.WireSet> = []
  private readonly indices = new Map<string, number>()

  index(dependencies: DependencySet, wire: Wire.WireSet): number {
    let index = this.indices.get(dependencies.id)
    if (index === undefined) {
      index = this.list.push(wire)
      this.indices.set(dependencies.id, index)
    }
    return index
  }
}
