// What a caller of the read path does with flights, without a store.
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { CacheKey } from "../../src/CacheStore.ts"
import type { DependencySet } from "../../src/Dependency.ts"
import type { Flights, Takes } from "../../src/internal/flights.ts"

/** Joins the flight of a key, or begins one. */
export const joinFlight = <A, E>(
  flights: Flights,
  key: CacheKey,
  dependencies: DependencySet,
  body: (settle: (exit: Exit.Exit<A, E>, joinable?: boolean) => void) => Effect.Effect<void>,
  joined: () => void,
  takes?: Takes<A>
): Effect.Effect<A, E> =>
  Effect.withFiber((fiber) => {
    const running = flights.find(key, dependencies.basis)
    if (running !== undefined) {
      joined()
      return running.await(takes)
    }
    const flight = flights.begin<A, E>(
      fiber,
      key,
      dependencies,
      (flight) => body((exit, joinable = true) => flight.settle(exit, { joinable }))
    )
    return flight.await(takes, true)
  })
