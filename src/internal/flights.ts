/**
 * One flight per key: the lookup, the query and the fill that all callers of a
 * key share while they are under way.
 *
 * A flight runs in a fiber of its own, with the services of its first caller but
 * outside that caller's transaction and scope. Callers are counted: one that is
 * interrupted leaves the flight to the others, and when the last one leaves
 * before the value is there, the flight is interrupted too.
 *
 * Its value is there before its fill is judged. Until then the flight stays
 * joinable, so that an immediate re-read does not miss again. Races:
 *
 * - A flight that began before a write must not answer a read that began after
 *   it: (1) flight begins and reads the old row; (2) write commits, is
 *   acknowledged; (3) a read joins the flight and gets the old row. Hence
 *   `detach`: after it, those who wait keep their flight, later callers begin
 *   another. The flight's own fill is refused by the store's clock.
 * - Two policies may share a statement and depend on different tags. A flight is
 *   joined only by callers with its own dependencies, since an invalidation of
 *   another caller's tag would not detach it.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { CacheKey } from "../CacheStore.ts"
import type * as Dependency from "../Dependency.ts"
import { touches } from "./unserved.ts"

interface Flight {
  readonly key: CacheKey
  readonly dependencies: Dependency.DependencySet
  readonly waiters: Set<(exit: Exit.Exit<any, any>) => void>
  exit: Exit.Exit<any, any> | undefined
  fiber: Fiber.Fiber<void> | undefined
}

export class Flights {
  private readonly flights = new Map<string, Map<CacheKey["local"], Flight>>()
  private readonly fibers = new Set<Fiber.Fiber<void>>()
  private readonly strip: (context: Context.Context<any>) => Context.Context<never>

  /** `omitted`: services of the caller that a flight must not inherit. */
  constructor(omitted: ReadonlyArray<Context.Key<any, any>>) {
    this.strip = Context.omit(Scope.Scope, ...omitted) as any
  }

  /**
   * Joins the flight of a key, or begins one. `body` settles it once, with the
   * value or the failure, and may go on after that; where there is no fill to
   * wait for, it says that nobody may join any more. `joined` tells the caller
   * that it shares somebody else's.
   */
  join<A, E>(
    key: CacheKey,
    dependencies: Dependency.DependencySet,
    body: (settle: (exit: Exit.Exit<A, E>, joinable?: boolean) => void) => Effect.Effect<void>,
    joined: () => void
  ): Effect.Effect<A, E> {
    // From the look at the table to the flight's start nothing can come between.
    return Effect.withFiber((fiber) => {
      const running = this.flights.get(key.space)?.get(key.local)
      if (running !== undefined && running.dependencies.id === dependencies.id) {
        joined()
        return this.await(running)
      }
      const flight: Flight = { key, dependencies, waiters: new Set(), exit: undefined, fiber: undefined }
      if (running === undefined) this.add(flight)
      this.start(flight, this.strip(fiber.context as Context.Context<any>), body)
      return this.await(flight)
    })
  }

  /** Lets later callers begin anew where a flight depends on what was touched. */
  detach(targets: Dependency.Targets): void {
    for (const [name, space] of this.flights) {
      for (const [local, flight] of space) {
        if (touches(targets, flight.dependencies)) space.delete(local)
      }
      if (space.size === 0) this.flights.delete(name)
    }
  }

  /** How many keys have a flight that can be joined. */
  get size(): number {
    let size = 0
    for (const space of this.flights.values()) size += space.size
    return size
  }

  readonly interruptAll: Effect.Effect<void> = Effect.suspend(() => Fiber.interruptAll(this.fibers))

  private start<A, E>(
    flight: Flight,
    context: Context.Context<never>,
    body: (settle: (exit: Exit.Exit<A, E>, joinable?: boolean) => void) => Effect.Effect<void>
  ): void {
    const settle = (exit: Exit.Exit<A, E>, joinable = true) => {
      if (flight.exit !== undefined) return
      flight.exit = exit
      // Nobody joins a failure: the next caller asks again.
      if (!joinable || Exit.isFailure(exit)) this.forget(flight)
      for (const waiter of flight.waiters) waiter(exit)
      flight.waiters.clear()
    }
    const fiber = Effect.runForkWith(context)(body(settle))
    flight.fiber = fiber
    this.fibers.add(fiber)
    fiber.addObserver((exit) => {
      this.fibers.delete(fiber)
      this.forget(flight)
      // A body that died or was interrupted before it settled.
      if (flight.exit === undefined) {
        settle(Exit.isFailure(exit) ? (exit as Exit.Exit<any, any>) : Exit.die("a flight ended without a value"))
      }
    })
  }

  private await<A, E>(flight: Flight): Effect.Effect<A, E> {
    return Effect.callback<A, E>((resume) => {
      if (flight.exit !== undefined) {
        resume(flight.exit)
        return
      }
      const waiter = (exit: Exit.Exit<A, E>) => resume(exit)
      flight.waiters.add(waiter)
      return Effect.suspend(() => {
        flight.waiters.delete(waiter)
        if (flight.waiters.size > 0 || flight.exit !== undefined) return Effect.void
        // Forgotten first, or a caller could join what is being interrupted.
        this.forget(flight)
        return Effect.asVoid(Fiber.interrupt(flight.fiber!))
      })
    })
  }

  private add(flight: Flight): void {
    const { local, space } = flight.key
    const locals = this.flights.get(space)
    if (locals === undefined) this.flights.set(space, new Map([[local, flight]]))
    else locals.set(local, flight)
  }

  private forget(flight: Flight): void {
    const { local, space } = flight.key
    const locals = this.flights.get(space)
    if (locals?.get(local) !== flight) return
    locals.delete(local)
    if (locals.size === 0) this.flights.delete(space)
  }
}
