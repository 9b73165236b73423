/**
 * Waiting for something no longer than one wants to, whatever it is.
 */
import * as Effect from "effect/Effect"

/**
 * In a fiber of its own, told to stop when its time is over but not waited for: what it does may be uninterruptible, or
 * a finalizer of it may hang.
 */
export const apart = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.withFiber((fiber) =>
    Effect.callback((resume) => {
      const running = Effect.runForkWith(fiber.context)(effect)
      running.addObserver(resume)
      return Effect.sync(() => running.interruptUnsafe())
    })
  )
