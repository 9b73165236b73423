/**
 * What sessions are told by a client and its store, and what they want of them.
 *
 * A session has written, here or in another process. What may answer it:
 *
 * - what this process holds, if it has applied all that the session's writes have
 *   invalidated;
 * - a flight of this process, if the store was asked for it after that (a flight of
 *   another process is judged by the store: its lease must not be overtaken);
 * - what the store has, if its reply is of a clock that is not before that;
 * - the database, always: the writes were committed before the session asks.
 *
 * Clocks are judged at each read, and never told to the store: it raises its mark of
 * what was seen by what stores have said, and a token is what somebody says.
 *
 * A write of which no invalidation has been acknowledged has no clock. Then the session
 * bypasses the cache, but in the process that made the write: there its targets are
 * unserved, and from its delivery on the session has a clock again. So it does with a
 * store that is not shared, from which other processes will never hear.
 */
import { sha3_256 } from "@noble/hashes/sha3.js"
import * as Clock from "effect/Clock"
import type * as Fiber from "effect/Fiber"
import type { CacheStore, Clocks } from "../CacheStore.ts"
import { CurrentSession, type Point } from "./session.ts"

export interface SessionsOptions {
  readonly namespace: string
  readonly store: CacheStore["Service"]
}

export class Sessions {
  private readonly options: SessionsOptions
  /** What stands for the namespace in a token. */
  private readonly database: string
  /** What stands for this client in a token. */
  private readonly id: string

  constructor(options: SessionsOptions) {
    this.options = options
    const digest = sha3_256(new TextEncoder().encode(options.namespace)).subarray(0, 6)
    this.database = btoa(String.fromCharCode(...digest)).replaceAll("+", "-").replaceAll("/", "_")
    this.id = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => (byte % 36).toString(36)).join("")
  }

  /** Where the session stands that a fiber is in. */
  pointOf(fiber: Fiber.Fiber<unknown, unknown>): Point | undefined {
    return fiber.getRef(CurrentSession)?.pointOf(this.database)
  }

  /** Whether the cache has no part in what a session asks. `isSettled`: whether nothing here waits for its delivery. */
  isBypassed(point: Point, nowMillis: number, isSettled: boolean): boolean {
    if (point.session.everywhere?.bypassAt(nowMillis) !== undefined) return true
    const bypass = point.bypassAt(nowMillis)
    if (bypass === undefined) return false
    if (bypass.by !== this.id) return true
    const { namespace, store } = this.options
    const seen = store.shared && isSettled ? store.seen(namespace) : []
    // What was delivered since has been answered, by every shard.
    if (seen.length > 0 && seen.every((at) => at !== undefined)) {
      point.raise(seen)
      point.endBypass()
    }
    return false
  }

  /** Whether what this process holds may answer a session. */
  mayPeek(point: Point): boolean {
    return point.mayPeek(this.options.store.applied(this.options.namespace))
  }

  /** What a fiber has written is invalidated at these clocks; `undefined` where it is not, or not yet. */
  wrote(fiber: Fiber.Fiber<unknown, unknown>, clocks: Clocks | undefined): void {
    const point = this.pointOf(fiber)
    if (point === undefined) return
    if (clocks !== undefined && this.options.store.shared) point.raise(clocks)
    else point.bypass(fiber.getRef(Clock.Clock).currentTimeMillisUnsafe(), this.id)
  }
}
