/**
 * An effect's value, and its value again whenever the answer may have changed.
 *
 * No change is lost, and none is answered with the old value:
 *
 * 1. it listens before it first reads;
 * 2. what the effect consults is noted before it is read (consulted.ts), so an
 *    invalidation that comes while the effect runs is noticed if it may have come
 *    too late for what was read;
 * 3. an invalidation is heard when reading again gives the new answer (changes.ts).
 *
 * Changes that come before the next value is read are one.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Stream from "effect/Stream"
import type { Changes } from "./changes.ts"
import { Consulted, CurrentConsulted } from "./consulted.ts"

export const stream = <A, E, R>(changes: Changes, self: Effect.Effect<A, E, R>): Stream.Stream<A, E, R> =>
  Stream.unwrap(Effect.gen(function*() {
    const changed = Latch.makeUnsafe(true)
    let consulted = new Consulted()
    yield* changes.attend((targets) => {
      if (consulted.isTouchedBy(targets)) changed.openUnsafe()
    })
    return Stream.fromEffectRepeat(Effect.andThen(
      changed.await,
      Effect.suspend(() => {
        changed.closeUnsafe()
        consulted = new Consulted()
        return Effect.provideService(self, CurrentConsulted, consulted)
      })
    ))
  })) as any
