/**
 * The invalidations that a store applies, for whoever listens. One who does not keep up
 * is told that everything has changed, and misses nothing.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Stream from "effect/Stream"
import type { Invalidation } from "../../CacheStore.ts"

// For a listener that does not keep up.
const maxPending = 1024

export class Changes {
  private readonly listeners = new Set<(change: Invalidation) => void>()

  get isListenedTo(): boolean {
    return this.listeners.size > 0
  }

  publish(change: Invalidation): void {
    for (const listener of this.listeners) listener(change)
  }

  readonly stream: Stream.Stream<Invalidation> = Stream.unwrap(Effect.gen({ self: this }, function*() {
    let pending: Array<Invalidation> = []
    const filled = Latch.makeUnsafe(false)
    const listener = (change: Invalidation): void => {
      pending = pending.length < maxPending ? pending : everythingOf(pending)
      pending.push(change)
      filled.openUnsafe()
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => this.listeners.add(listener)),
      () => Effect.sync(() => this.listeners.delete(listener))
    )
    return Stream.fromIterableEffectRepeat(Effect.andThen(
      filled.await,
      Effect.sync(() => {
        filled.closeUnsafe()
        const changes = pending
        pending = []
        return changes
      })
    ))
  }))
}

/** What stands for all these changes: as much as there are namespaces. */
const everythingOf = (changes: ReadonlyArray<Invalidation>): Array<Invalidation> => {
  const latest = new Map(changes.map((change) => [change.namespace, change]))
  return Array.from(latest.values(), (change) => ({ ...change, stamps: [], all: true }))
}
