/**
 * Where hits are told to an auditor, if there is one. Without it a hit costs one look at a field.
 */
import type * as Fiber from "effect/Fiber"
import type * as CacheStore from "../CacheStore.ts"
import type { Reading } from "./reading.ts"

export interface Sampler {
  /** How many hits are let pass before the next one is taken. */
  gap: number
  /** Takes a fresh hit. It must not throw, and sets the gap anew. */
  readonly take: (
    fiber: Fiber.Fiber<unknown, unknown>,
    reading: Reading<any, any>,
    kept: CacheStore.Kept,
    nowMillis: number
  ) => void
}

export class Audits {
  sampler: Sampler | undefined = undefined

  /** Whether nobody wants one of the next hits: they may take the shortest way, and {@link pass}. */
  get isIdle(): boolean {
    return this.sampler === undefined || this.sampler.gap > 0
  }

  /** Counts hits of which none is taken. */
  pass(count: number): void {
    if (this.sampler !== undefined) this.sampler.gap -= count
  }

  /** Counts a hit, and tells whether it is to be taken. */
  isDue(): boolean {
    return this.sampler !== undefined && --this.sampler.gap < 0
  }

  readonly take: Sampler["take"] = (fiber, reading, kept, nowMillis) =>
    this.sampler?.take(fiber, reading, kept, nowMillis)
}
