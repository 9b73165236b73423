/**
 * One flight per key: the lookup, the query and the fill that all callers of a
 * key share while they are under way.
 *
 * A flight runs in a fiber of its own, with the services of its first caller but
 * outside that caller's transaction and scope. Each caller has a seat in it. One
 * that is interrupted leaves the flight to the others, and when the last one
 * leaves before the value is there, the flight is interrupted too. Those who leave
 * because they were served something stale leave it to go on.
 *
 * Its value is there before its fill is judged. Until then the flight stays where it
 * is found: who comes now waits for the fill, and asks the store. Races:
 *
 * - A flight that began before a write must not answer a read that began after
 *   it: (1) flight begins and reads the old row; (2) write commits, is
 *   acknowledged; (3) a read joins the flight and gets the old row. Hence
 *   `detach`: after it, those who wait keep their flight, later callers begin
 *   another. The flight's own fill is refused by the store's clock.
 * - Another process may write as well, which detaches nothing here: (1) the value is
 *   there, and its fill is on its way; (2) the write is acknowledged; (3) a read
 *   begins, joins and gets the old value, long after anybody has asked for it. Hence
 *   nobody gets a value that was there before he came: the store knows whether it is
 *   valid still.
 * - Two policies may share a statement and depend on different tags. A flight is
 *   joined only by callers with its own dependencies, since an invalidation of
 *   another caller's tag would not detach it.
 * - A caller may be interrupted between the beginning of its flight and its wait
 *   for it. Hence a seat is taken as the flight begins, and not by the wait, and
 *   whoever has one sees to it that it is left: a flight of which nobody knows
 *   would hold on to its connection.
 * - A session may have written in another process, which detaches nothing here. It joins
 *   a flight only if the store has been asked for it after that, by the clocks.
 * - A query may never end. Whoever comes half a minute later begins another
 *   flight, so that one connection that hangs does not hang them all.
 *
 * A refresh is a flight that nobody waits for: one per key, and so many in all.
 * Nobody joins it. A caller that can wait for nothing else is told when it ends.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { CacheKey, LogicalClock, Since } from "../CacheStore.ts"
import type * as Dependency from "../Dependency.ts"
import { touches } from "./unserved.ts"

/** Which stale values a caller takes. */
export interface Takes<A> {
  /** Now, while the value is still being read. */
  readonly stale: (stale: A) => boolean
  /** In place of a failure. */
  readonly insteadOfError: (stale: A) => boolean
}

export const takesNothing: Takes<any> = { stale: () => false, insteadOfError: () => false }

/** From this age on a flight is not joined, and does not keep another one from beginning. */
const overdueMillis = 30_000

/** A caller's place in a flight. */
export class Seat<A, E> {
  readonly flight: Flight<A, E>
  takes: Takes<A>
  private exit: Exit.Exit<A, E> | undefined
  private resume: ((exit: Exit.Exit<A, E>) => void) | undefined

  constructor(flight: Flight<A, E>, takes: Takes<A>) {
    this.flight = flight
    this.takes = takes
    this.exit = undefined
    this.resume = undefined
  }

  /** What the flight brings, or something stale that the caller takes. */
  get served(): Effect.Effect<A, E> {
    return Effect.callback<A, E>((resume) => {
      if (this.exit !== undefined) resume(this.exit)
      else this.resume = resume
    })
  }

  /** Leaves, once. Whoever leaves last ends the flight, and has waited for its end when the effect does. */
  get leave(): Effect.Effect<void> {
    return Effect.suspend(() => this.flight.empty(this) ? this.flight.abandon : Effect.void)
  }

  /** Leaves a flight that goes on. */
  leaveBehind(): void {
    this.flight.goesOn = true
    this.flight.empty(this)
  }

  /** @internal */
  serve(exit: Exit.Exit<A, E>): void {
    this.exit = exit
    this.resume?.(exit)
  }
}

export class Flight<A, E> {
  readonly key: CacheKey
  readonly dependencies: Dependency.DependencySet
  readonly begunAtMillis: number
  /** How many had begun with it. */
  readonly number: number
  /** Whether nobody was to wait for it, or nobody does any more. */
  isRefresh: boolean
  /** Whether it goes on when nobody waits for it. */
  goesOn: boolean
  /** The value or the failure, once it is there. */
  exit: Exit.Exit<A, E> | undefined
  /** The last stale value it has found. */
  stale: A | undefined
  /** The clock of the store when it was last asked: what the flight brings is at least as new. */
  at: LogicalClock | undefined
  /** What may be served in place of its failure. */
  private fallback: A | undefined
  /** @internal */
  fiber: Fiber.Fiber<void> | undefined
  private readonly flights: Flights
  private readonly seats = new Set<Seat<A, E>>()

  constructor(
    flights: Flights,
    key: CacheKey,
    dependencies: Dependency.DependencySet,
    begunAtMillis: number,
    isRefresh: boolean
  ) {
    this.flights = flights
    this.key = key
    this.dependencies = dependencies
    this.begunAtMillis = begunAtMillis
    this.number = ++flights.begun
    this.isRefresh = isRefresh
    this.goesOn = isRefresh
    this.exit = undefined
    this.stale = undefined
    this.at = undefined
    this.fallback = undefined
    this.fiber = undefined
  }

  /** Waits until it has had its say in the store as well. */
  get ended(): Effect.Effect<void> {
    return Effect.suspend(() => Effect.asVoid(Fiber.await(this.fiber!)))
  }

  get isAwaited(): boolean {
    return this.seats.size > 0
  }

  /** Whether somebody waits who takes a value in place of a failure. */
  isConsoledBy(stale: A): boolean {
    for (const seat of this.seats) {
      if (seat.takes.insteadOfError(stale)) return true
    }
    return false
  }

  /** Takes a seat, which must be left. */
  seat(takes: Takes<A>): Seat<A, E> {
    const seat = new Seat<A, E>(this, takes)
    if (this.exit === undefined) this.seats.add(seat)
    else seat.serve(this.exitFor(takes))
    return seat
  }

  /** Serves what is stale to those who take it. */
  offer(stale: A): void {
    this.stale = stale
    for (const seat of this.seats) {
      if (!seat.takes.stale(stale)) continue
      seat.leaveBehind()
      seat.serve(Exit.succeed(stale))
    }
  }

  /** Nobody joins it any more. */
  close(): void {
    this.flights.forget(this)
  }

  /** Ends the wait, once. Where there is no fill to wait for, nobody may join any more. */
  settle(exit: Exit.Exit<A, E>, options?: { readonly joinable?: boolean; readonly fallback?: A | undefined }): void {
    if (this.exit !== undefined) return
    this.exit = exit
    this.fallback = options?.fallback
    // Nobody joins a failure: the next caller asks again.
    if (options?.joinable !== true || Exit.isFailure(exit)) this.close()
    // A caller may run as it is served, and leave: it is not the last of those who wait.
    for (const seat of this.seats) {
      this.seats.delete(seat)
      seat.serve(this.exitFor(seat.takes))
    }
  }

  /** @internal Whether it was the last seat of a flight that ends with it. */
  empty(seat: Seat<A, E>): boolean {
    return this.seats.delete(seat) && !this.isAwaited && !this.goesOn
  }

  /** @internal */
  get abandon(): Effect.Effect<void> {
    // Closed first, or a caller could join what is being interrupted.
    this.close()
    return Effect.asVoid(Fiber.interrupt(this.fiber!))
  }

  private exitFor(takes: Takes<A>): Exit.Exit<A, E> {
    const { exit, fallback } = this
    return fallback !== undefined && takes.insteadOfError(fallback) ? Exit.succeed(fallback) : exit!
  }
}

export class Flights {
  /** How many flights have begun. */
  begun = 0
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

  /** The flight of a key that a caller with these dependencies may join. `since`: what its clock must be, if anything. */
  find(key: CacheKey, basis: string, nowMillis: number, since?: Since): Flight<any, any> | undefined {
    const flight = this.joinable.get(key, basis)
    if (flight === undefined || isOverdue(flight, nowMillis)) return undefined
    return since === undefined || (flight.at !== undefined && since(flight.at)) ? flight : undefined
  }

  /** The refresh of a key that is under way. */
  refreshing(key: CacheKey, basis: string, nowMillis: number): Flight<any, any> | undefined {
    const flight = this.refreshes.get(key, basis)
    return flight === undefined || flight.exit !== undefined || isOverdue(flight, nowMillis) ? undefined : flight
  }

  /**
   * Begins a flight with the services of the fiber, whatever flight there is. The seat is its first caller's, to be
   * left by it. `body` settles the flight once, and may go on after that.
   */
  begin<A, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    key: CacheKey,
    dependencies: Dependency.DependencySet,
    nowMillis: number,
    takes: Takes<A>,
    body: (flight: Flight<A, E>) => Effect.Effect<void>
  ): Seat<A, E> {
    const flight = new Flight<A, E>(this, key, dependencies, nowMillis, false)
    const seat = flight.seat(takes)
    this.joinable.set(flight)
    this.start(fiber, flight, body)
    return seat
  }

  /** Begins a refresh, unless there is one, the value is being read as it is, or too many are under way. */
  refresh<A, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    key: CacheKey,
    basis: string,
    dependencies: () => Dependency.DependencySet,
    nowMillis: number,
    body: (flight: Flight<A, E>) => Effect.Effect<void>
  ): "begun" | "under way" | "too many" {
    if (this.find(key, basis, nowMillis) !== undefined) return "under way"
    const room = this.roomFor(key, basis, nowMillis)
    if (room !== "begun") return room
    const flight = new Flight<A, E>(this, key, dependencies(), nowMillis, true)
    this.refreshes.set(flight)
    this.start(fiber, flight, body)
    return room
  }

  /** Makes a refresh of a flight for which nobody waits any more, if one may begin. Else it is to end. */
  becomeRefresh(flight: Flight<any, any>, nowMillis: number): "begun" | "under way" | "too many" {
    // One that was detached reads what no store would take.
    if (!this.joinable.delete(flight)) return "under way"
    const room = this.roomFor(flight.key, flight.dependencies.basis, nowMillis)
    if (room === "begun") {
      flight.isRefresh = true
      this.refreshes.set(flight)
    }
    return room
  }

  /** Lets later callers begin anew where a flight depends on what was touched. */
  detach(targets: Dependency.Targets): void {
    this.joinable.deleteWhere((flight) => touches(targets, flight.dependencies))
    this.refreshes.deleteWhere((flight) => touches(targets, flight.dependencies))
  }

  /** How many flights can be joined. */
  get size(): number {
    return this.joinable.size
  }

  /** How many refreshes are under way, or rest after a failure. */
  get refreshCount(): number {
    return this.refreshes.size
  }

  readonly interruptAll: Effect.Effect<void> = Effect.suspend(() => Fiber.interruptAll(this.fibers))

  /** What a flight inherits of the services of a fiber. */
  servicesOf(fiber: Fiber.Fiber<unknown, unknown>): Context.Context<never> {
    return this.strip(fiber.context as Context.Context<any>)
  }

  /** @internal */
  forget(flight: Flight<any, any>): void {
    this.joinable.delete(flight)
  }

  private roomFor(key: CacheKey, basis: string, nowMillis: number): "begun" | "under way" | "too many" {
    const refresh = this.refreshes.get(key, basis)
    if (refresh !== undefined) return isOverdue(refresh, nowMillis) ? "begun" : "under way"
    if (this.refreshes.size >= this.maxRefreshes) {
      this.refreshes.deleteWhere((refresh) => isOverdue(refresh, nowMillis))
    }
    return this.refreshes.size < this.maxRefreshes ? "begun" : "too many"
  }

  private start<A, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    flight: Flight<A, E>,
    body: (flight: Flight<A, E>) => Effect.Effect<void>
  ): void {
    const running = Effect.runForkWith(this.servicesOf(fiber))(body(flight))
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

// One from the future began before somebody set the clock back.
const isOverdue = ({ begunAtMillis }: Flight<any, any>, nowMillis: number): boolean =>
  Math.abs(nowMillis - begunAtMillis) >= overdueMillis

/** Flights by basis, space and local key. */
class ByKey {
  private readonly bases = new Map<string, Map<string, Map<CacheKey["local"], Flight<any, any>>>>()
  size = 0

  get({ local, space }: CacheKey, basis: string): Flight<any, any> | undefined {
    return this.bases.get(basis)?.get(space)?.get(local)
  }

  /** In the place of what is there. */
  set(flight: Flight<any, any>): void {
    const { dependencies: { basis }, key: { local, space } } = flight
    let spaces = this.bases.get(basis)
    if (spaces === undefined) this.bases.set(basis, spaces = new Map())
    let locals = spaces.get(space)
    if (locals === undefined) spaces.set(space, locals = new Map())
    if (!locals.has(local)) this.size++
    locals.set(local, flight)
  }

  delete(flight: Flight<any, any>): boolean {
    const { dependencies: { basis }, key: { local, space } } = flight
    const spaces = this.bases.get(basis)
    const locals = spaces?.get(space)
    if (locals?.get(local) !== flight) return false
    locals.delete(local)
    if (locals.size === 0) spaces!.delete(space)
    if (spaces!.size === 0) this.bases.delete(basis)
    this.size--
    return true
  }

  deleteWhere(predicate: (flight: Flight<any, any>) => boolean): void {
    for (const spaces of this.bases.values()) {
      for (const locals of spaces.values()) {
        for (const flight of locals.values()) {
          if (predicate(flight)) this.delete(flight)
        }
      }
    }
  }
}
