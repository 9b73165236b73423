// What a caller of the read path does with flights, without a store.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { CacheKey } from "../../src/CacheStore.ts"
import type { DependencySet } from "../../src/Dependency.ts"
import { type Flights, type Takes, takesNothing } from "../../src/internal/flights.ts"

/** Joins the flight of a key, or begins one. */
export const joinFlight = <A, E>(
  flights: Flights,
  key: CacheKey,
  dependencies: DependencySet,
  body: (settle: (exit: Exit.Exit<A, E>, joinable?: boolean) => void) => Effect.Effect<void>,
  joined: () => void,
  takes: Takes<A> = takesNothing
): Effect.Effect<A, E> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber((fiber) => {
      const now = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
      const running = flights.find(key, dependencies.basis, now)
      if (running !== undefined) joined()
      const seat = running?.seat(takes) ??
        flights.begin<A, E>(
          fiber,
          key,
          dependencies,
          now,
          takes,
          (flight) => body((exit, joinable = true) => flight.settle(exit, { joinable }))
        )
      return Effect.onExit(restore(seat.served), () => seat.leave)
    })
  )
