/**
 * One flight per key: the lookup, the query and the fill that all callers of a
 * key share while they are under way.
 *
 * A flight runs in a fiber of its own, with the services of its first caller but
 * outside that caller's transaction and scope. Callers are counted: one that is
 * interrupted leaves the flight to the others, and when the last one leaves
 * before the value is there, the flight is interrupted too. Those who leave
 * because they were served something stale leave it to go on.
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
 *
 * A refresh is a flight that nobody waits for: one per key, and so many in all.
 * Nobody joins it. A caller that can wait for nothing else is told when it ends.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { CacheKey } from "../CacheStore.ts"
import type * as Dependency from "../Dependency.ts"
import { touches } from "./unserved.ts"

/** Which stale values a caller takes. */
export interface Takes<A> {
  /** Now, while the value is still being read. */
  readonly stale: (stale: A) => boolean
  /** In place of a failure. */
  readonly insteadOfError: (stale: A) => boolean
}

const nothing: Takes<any> = { stale: () => false, insteadOfError: () => false }

interface Waiter<A, E> {
  readonly resume: (exit: Exit.Exit<A, E>) => void
  readonly takes: Takes<A>
}

export class Flight<A, E> {
  readonly key: CacheKey
  readonly dependencies: Dependency.DependencySet
  /** The value or the failure, once it is there. */
  exit: Exit.Exit<A, E> | undefined
  /** The last stale value it has found. */
  stale: A | undefined
  /** What may be served in place of its failure. */
  private fallback: A | undefined
  /** Whether it goes on when nobody waits for it. */
  goesOn: boolean
  /** @internal */
  fiber: Fiber.Fiber<void> | undefined
  private readonly flights: Flights
  private readonly waiters = new Set<Waiter<A, E>>()

  constructor(flights: Flights, key: CacheKey, dependencies: Dependency.DependencySet, isRefresh: boolean) {
    this.flights = flights
    this.key = key
    this.dependencies = dependencies
    this.exit = undefined
    this.stale = undefined
    this.fallback = undefined
    this.goesOn = isRefresh
    this.fiber = undefined
  }

  get isAwaited(): boolean {
    return this.waiters.size > 0
  }

  /** Serves what is stale to those who take it. */
  offer(stale: A): void {
    this.stale = stale
    for (const waiter of this.waiters) {
      if (waiter.takes.stale(stale)) this.serve(waiter, stale)
    }
  }

  /** Ends the wait, once. Where there is no fill to wait for, nobody may join any more. */
  settle(exit: Exit.Exit<A, E>, options?: { readonly joinable?: boolean; readonly stale?: A | undefined }): void {
    if (this.exit !== undefined) return
    this.exit = exit
    this.fallback = options?.stale
    // Nobody joins a failure: the next caller asks again.
    if (options?.joinable !== true || Exit.isFailure(exit)) this.flights.forget(this)
    for (const waiter of this.waiters) waiter.resume(this.exitFor(waiter.takes))
    this.waiters.clear()
  }

  /** Waits for the value, or for something stale that the caller takes. `began`: the caller is who began the flight. */
  await(takes: Takes<A> = nothing, began = false): Effect.Effect<A, E> {
    return Effect.callback<A, E>((resume) => {
      if (this.exit !== undefined) {
        resume(this.exitFor(takes))
        return
      }
      const waiter: Waiter<A, E> = { resume, takes }
      this.waiters.add(waiter)
      // The flight may have looked before its caller waited.
      if (began && this.stale !== undefined && takes.stale(this.stale)) {
        this.serve(waiter, this.stale)
        return
      }
      return Effect.suspend(() => {
        this.waiters.delete(waiter)
        if (this.isAwaited || this.goesOn || this.exit !== undefined) return Effect.void
        // Forgotten first, or a caller could join what is being interrupted.
        this.flights.forget(this)
        return Effect.asVoid(Fiber.interrupt(this.fiber!))
      })
    })
  }

  private serve(waiter: Waiter<A, E>, stale: A): void {
    this.waiters.delete(waiter)
    this.goesOn = true
    // Whoever comes now asks the store for itself: what was valid at this lookup may not be at theirs.
    if (!this.isAwaited) this.flights.becomeRefresh(this)
    waiter.resume(Exit.succeed(stale))
  }

  private exitFor(takes: Takes<A>): Exit.Exit<A, E> {
    const { exit, fallback } = this
    return fallback !== undefined && takes.insteadOfError(fallback) ? Exit.succeed(fallback) : exit!
  }
}

export class Flights {
  private readonly joinable = new ByKey()
  private readonly refreshes = new ByKey()
  private readonly fibers = new Set<Fiber.Fiber<void>>()
  private readonly strip: (context: Context.Context<any>) => Context.Context<never>
  private readonly maxRefreshes: number

  /** `omitted`: services of the caller that a flight must not inherit. */
  constructor(omitted: ReadonlyArray<Context.Key<any, any>>, options?: { readonly maxRefreshes?: number }) {
    this.strip = Context.omit(Scope.Scope, ...omitted) as any
    this.maxRefreshes = options?.maxRefreshes ?? Infinity
  }

  /** The flight of a key that a caller with these dependencies may join. */
  find(key: CacheKey, basis: string): Flight<any, any> | undefined {
    const flight = this.joinable.get(key)
    return flight !== undefined && flight.dependencies.basis === basis ? flight : undefined
  }

  /** The refresh of a key that is under way. */
  refreshing(key: CacheKey, basis: string): Flight<any, any> | undefined {
    const flight = this.refreshes.get(key)
    return flight !== undefined && flight.exit === undefined && flight.dependencies.basis === basis ? flight : undefined
  }

  /**
   * Begins a flight with the services of the fiber. `body` settles it once, and may go on after that. From the look at
   * the table to here nothing can come between.
   */
  begin<A, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    key: CacheKey,
    dependencies: Dependency.DependencySet,
    body: (flight: Flight<A, E>) => Effect.Effect<void>
  ): Flight<A, E> {
    const flight = new Flight<A, E>(this, key, dependencies, false)
    if (this.joinable.get(key) === undefined) this.joinable.set(flight)
    this.start(fiber, flight, body)
    return flight
  }

  /** Begins a refresh, unless there is one, the value is being read as it is, or too many are under way. */
  refresh<A, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    key: CacheKey,
    dependencies: () => Dependency.DependencySet,
    body: (flight: Flight<A, E>) => Effect.Effect<void>
  ): "begun" | "under way" | "too many" {
    if (this.refreshes.get(key) !== undefined || this.joinable.get(key) !== undefined) return "under way"
    if (this.refreshes.size >= this.maxRefreshes) return "too many"
    const flight = new Flight<A, E>(this, key, dependencies(), true)
    this.refreshes.set(flight)
    this.start(fiber, flight, body)
    return "begun"
  }

  /** Lets later callers begin anew where a flight depends on what was touched. */
  detach(targets: Dependency.Targets): void {
    this.joinable.deleteWhere((flight) => touches(targets, flight.dependencies))
    this.refreshes.deleteWhere((flight) => touches(targets, flight.dependencies))
  }

  /** How many keys have a flight that can be joined. */
  get size(): number {
    return this.joinable.size
  }

  readonly interruptAll: Effect.Effect<void> = Effect.suspend(() => Fiber.interruptAll(this.fibers))

  /** @internal */
  forget(flight: Flight<any, any>): void {
    this.joinable.delete(flight)
  }

  /** @internal */
  becomeRefresh(flight: Flight<any, any>): void {
    // One that was detached is nobody's any more.
    if (!this.joinable.delete(flight)) return
    if (this.refreshes.get(flight.key) === undefined) this.refreshes.set(flight)
  }

  private start<A, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    flight: Flight<A, E>,
    body: (flight: Flight<A, E>) => Effect.Effect<void>
  ): void {
    const running = Effect.runForkWith(this.strip(fiber.context as Context.Context<any>))(body(flight))
    flight.fiber = running
    this.fibers.add(running)
    running.addObserver((exit) => {
      this.fibers.delete(running)
      this.joinable.delete(flight)
      this.refreshes.delete(flight)
      // A body that died or was interrupted before it settled.
      if (flight.exit === undefined) {
        flight.settle(Exit.isFailure(exit) ? (exit as Exit.Exit<any, any>) : Exit.die("a flight ended without a value"))
      }
    })
  }
}

/** Flights by space and local key. */
class ByKey {
  private readonly spaces = new Map<string, Map<CacheKey["local"], Flight<any, any>>>()
  size = 0

  get(key: CacheKey): Flight<any, any> | undefined {
    return this.spaces.get(key.space)?.get(key.local)
  }

  /** Where there is none. */
  set(flight: Flight<any, any>): void {
    const { local, space } = flight.key
    const locals = this.spaces.get(space)
    if (locals === undefined) this.spaces.set(space, new Map([[local, flight]]))
    else locals.set(local, flight)
    this.size++
  }

  delete(flight: Flight<any, any>): boolean {
    const { local, space } = flight.key
    const locals = this.spaces.get(space)
    if (locals?.get(local) !== flight) return false
    locals.delete(local)
    if (locals.size === 0) this.spaces.delete(space)
    this.size--
    return true
  }

  deleteWhere(predicate: (flight: Flight<any, any>) => boolean): void {
    for (const locals of this.spaces.values()) {
      for (const flight of locals.values()) {
        if (predicate(flight)) this.delete(flight)
      }
    }
  }
}
