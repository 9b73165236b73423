/**
 * What a process keeps of a namespace in Redis, and how its commands are named.
 */
import type { LogicalClock } from "../../CacheStore.ts"
import type { DependencySet } from "../../Dependency.ts"
import { orderOf } from "./prelude.ts"
import * as Wire from "./wire.ts"

/** What this process knows of a namespace. */
export class Namespace {
  readonly keys: Wire.Keys
  /** The highest clock seen, by which a Redis that went back is noticed. */
  seen: LogicalClock | undefined

  constructor(prefix: string, name: string) {
    this.keys = new Wire.Keys(prefix, name)
    this.seen = undefined
  }

  // Replies may be handled in another order than Redis gave them.
  saw(clock: LogicalClock): void {
    if (this.seen !== undefined) {
      const order = orderOf(clock.epoch) - orderOf(this.seen.epoch)
      if (order < 0 || (order === 0 && clock.epoch === this.seen.epoch && clock.clock <= this.seen.clock)) return
    }
    this.seen = { epoch: clock.epoch, clock: clock.clock }
  }
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

// An epoch never repeats: no two processes draw the same 128 bits, no process counts a number twice.
export const makeNonces = (): () => string => {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  const process = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
  let count = 0
  return () => `${process}.${(count++).toString(36)}`
}
