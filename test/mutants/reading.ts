/** The guards of the read path: flights, and what they bring. */
import { by, type Mutant } from "./mutant.ts"

const flights = "src/internal/flights.ts"
const pilot = "src/internal/pilot.ts"
const reader = "src/internal/reader.ts"
const ofFlights = (name: string) => by("test/internal/flights.test.ts", name)
const ofReader = (name: string) => by("test/internal/reader.test.ts", name)

const began = "a flight that began before my write"
const leader = "the leader of a flight is interrupted"

export const reading: ReadonlyArray<Mutant> = [
  {
    guard: "an invalidation detaches flights",
    races: [began],
    file: flights,
    find: "    this.joinable.deleteWhere((flight) => touches(targets, flight.dependencies))\n",
    replace: "",
    killedBy: ofFlights("race 16")
  },
  {
    guard: "an invalidation detaches refreshes",
    races: [began],
    file: flights,
    find: "    this.refreshes.deleteWhere((flight) => touches(targets, flight.dependencies))\n",
    replace: "",
    killedBy: ofReader("what was invalidated is never served|nothing old")
  },
  {
    guard: "a value that is on its way to the store is not for those who come",
    races: ["a value is there, its fill is on its way"],
    file: reader,
    find: "        if (running?.exit !== undefined) {\n",
    replace: "        if (running?.exit === null) {\n",
    killedBy: ofReader("a value on its way to the store")
  },
  {
    guard: "a flight outlives those who leave while others wait",
    races: [leader],
    file: flights,
    find: "return this.seats.delete(seat) && !this.isAwaited && !this.goesOn",
    replace: "return this.seats.delete(seat) && !this.goesOn",
    killedBy: ofFlights("an interrupted leader")
  },
  {
    guard: "the last one who leaves ends the flight",
    races: [leader],
    file: flights,
    find: "this.flight.empty(this) ? this.flight.abandon : Effect.void",
    replace: "this.flight.empty(this) ? Effect.void : Effect.void",
    killedBy: ofFlights("when the last caller leaves")
  },
  {
    guard: "nobody joins a flight that is being interrupted",
    races: [leader],
    file: flights,
    find: "    // Closed first, or a caller could join what is being interrupted.\n    this.close()\n",
    replace: "",
    killedBy: ofFlights("nobody joins what is being interrupted")
  },
  {
    guard: "a flight runs without its caller's transaction",
    races: ["own uncommitted rows cached"],
    file: flights,
    find: "Context.omit(Scope.Scope, ...omitted)",
    replace: "Context.omit(Scope.Scope)",
    killedBy: ofFlights("without its scope and what is omitted")
  },
  {
    guard: "a flight is joined by callers with its own dependencies",
    races: ["two policies share a statement"],
    file: flights,
    find: "    return this.bases.get(basis)?.get(space)?.get(local)\n",
    replace: "    for (const spaces of this.bases.values()) {\n      const flight = spaces.get(space)?.get(local)\n"
      + "      if (flight !== undefined || basis === \"\") return flight\n    }\n    return undefined\n",
    killedBy: ofFlights("other dependencies, another flight")
  },
  {
    guard: "what is at hand is served to callers with its own dependencies",
    races: ["two policies share a statement"],
    file: reader,
    find: "if (kept === undefined || kept.dependencies?.basis !== basis) return undefined",
    replace: "if (kept === undefined || basis === \"\") return undefined",
    killedBy: by(["test/client/concurrency.test.ts", "test/client/cached.test.ts"], "in this process|polic|tag")
  },
  {
    guard: "whoever was interrupted leaves the flight to the next one",
    races: ["all who wait in one process leave"],
    file: pilot,
    find: "=> Cause.hasInterrupts(cause) ? \"next\" : \"all\"",
    replace: "=> cause === undefined ? \"next\" : \"all\"",
    killedBy: ofReader("one that is interrupted is replaced by one")
  },
  {
    guard: "who is told to read and does not, says so",
    races: ["all who wait in one process leave", "a lookup is given up, and told to read"],
    file: pilot,
    find: "    return lease?.flight === undefined\n      ? Effect.void\n      : Effect.ignore(",
    replace: "    return lease?.flight !== \"\"\n      ? Effect.void\n      : Effect.ignore(",
    killedBy: ofReader("lets the others read|whenever a caller leaves")
  },
  {
    guard: "a lookup that is given up releases what it was told to read",
    races: ["a lookup is given up, and told to read"],
    file: pilot,
    find: "Exit.isSuccess(exit) || outcomes.length === 0",
    replace: "exit !== undefined",
    killedBy: by(
      ["test/internal/reader.test.ts"],
      "every step|whenever a caller leaves|the same for several|nothing left"
    )
  },
  {
    guard: "processes that die in turn are waited for so many times",
    races: ["a process that has begun to read dies"],
    file: pilot,
    find: "untilMillis = owners++ < maxOwners ? now + remainingMillis : now",
    replace: "untilMillis = owners++ < Infinity ? now + remainingMillis : now",
    killedBy: ofReader("three that die in turn")
  },
  {
    guard: "who waits asks again",
    races: ["a process that has begun to read dies"],
    file: pilot,
    find: "refresh === undefined ? pause : Effect.raceFirst(ended(refresh), until)",
    replace: "refresh === undefined ? until : Effect.raceFirst(ended(refresh), until)",
    killedBy: ofReader("identical misses are one query|one that fails, declines")
  },
  {
    guard: "a seat is taken as the flight begins",
    races: ["a caller is interrupted between the beginning"],
    file: flights,
    find:
      "    const seat = flight.seat(takes)\n    this.joinable.set(flight)\n    this.start(fiber, flight, body)\n    return seat\n",
    replace:
      "    this.joinable.set(flight)\n    this.start(fiber, flight, body)\n    const seat = new Seat<A, E>(flight, takes)\n"
      + "    const { served } = seat\n    Object.defineProperty(seat, \"served\", { get: () => Effect.suspend(() => {\n"
      + "      ;(flight as any).seats.add(seat)\n      return served\n    }) })\n    return seat\n",
    killedBy: ofReader("whenever a caller leaves")
  },
  {
    guard: "who looks again keeps its seat",
    races: ["the last one who waits leaves while another looks again"],
    file: reader,
    find: "? Effect.flatMap(this.pilot.lookAgain(reading), (found) => {",
    replace: "? Effect.flatMap((running.empty(seat), this.pilot.lookAgain(reading)), (found) => {",
    killedBy: ofReader("who looks again keeps")
  },
  {
    guard: "who is served something stale leaves the flight to go on",
    races: ["the last one who waits leaves while another looks again"],
    file: reader,
    find: "                seat.leaveBehind()\n                return this.arrive(reading, found, true, undefined)",
    replace: "                return this.arrive(reading, found, true, undefined)",
    killedBy: ofReader("who is served something stale leaves")
  },
  {
    guard: "whoever is served has no seat any more",
    races: ["a caller runs as it is served"],
    file: flights,
    find: "      this.seats.delete(seat)\n      seat.serve(this.exitFor(seat.takes))\n",
    replace: "      seat.serve(this.exitFor(seat.takes))\n      this.seats.delete(seat)\n",
    killedBy: ofReader("whenever a caller leaves|the same for several|nothing left")
  },
  {
    guard: "what is stale is looked up again after a failure",
    races: ["an answer is stale when looked up"],
    file: pilot,
    find: "isConsoled ? yield* this.lookAgain(reading) : undefined",
    replace: "isConsoled ? flight.stale as Found : undefined",
    killedBy: ofReader("what was invalidated while the query failed")
  },
  {
    guard: "what a flight has found stale is looked up again by who joins it",
    races: ["an answer is stale when looked up"],
    file: reader,
    find: "? Effect.flatMap(this.pilot.lookAgain(reading), (found) => {",
    replace: "? Effect.flatMap(Effect.succeed(running.stale as any), (found: any) => {",
    killedBy: ofReader("what another process has invalidated since a flight found it")
  },
  {
    guard: "what is stale is looked up again after the soft time-out",
    races: ["an answer is stale when looked up"],
    file: reader,
    find: "        const found = yield* this.pilot.lookAgain(reading)\n",
    replace: "        const found: any = seat.flight.stale\n",
    killedBy: ofReader("soft: what was invalidated meanwhile")
  },
  {
    guard: "a query that hangs is not joined after half a minute",
    races: ["a query that hangs is joined"],
    file: flights,
    find: "if (flight === undefined || isOverdue(flight, nowMillis)) return undefined",
    replace: "if (flight === undefined) return undefined",
    killedBy: ofReader("a query that hangs is joined for half a minute")
  },
  {
    guard: "after a refresh has failed, the next one waits",
    races: ["refreshes that fail, or that are too many"],
    file: reader,
    find: "outcome === \"failed\" ? restMillis : longestPauseMillis",
    replace: "longestPauseMillis",
    killedBy: ofReader("a refresh that fails rests")
  },
  {
    guard: "refreshes are limited",
    races: ["refreshes that fail, or that are too many"],
    file: flights,
    find: "return this.refreshes.size < this.maxRefreshes ? \"begun\" : \"too many\"",
    replace: "return \"begun\"",
    killedBy: ofReader("so many refreshes at once")
  },
  {
    guard: "a pause is none for what the store has told to read",
    races: ["a lookup is given up, and told to read"],
    file: pilot,
    find: "if (found === undefined && isPaused(reading, now)) return",
    replace: "if (isPaused(reading, now)) return",
    killedBy: ofReader("a pause that begins while they are looked up")
  }
]
