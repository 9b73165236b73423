/** The guards of a session that writes in one process and reads in another. */
import { by, type Mutant } from "./mutant.ts"

const flights = "src/internal/flights.ts"
const pilot = "src/internal/pilot.ts"
const reader = "src/internal/reader.ts"
const session = "src/internal/session.ts"
const sessionsFile = "src/internal/sessions.ts"
const places = "src/internal/places.ts"
const shared = (name: string) => by("test/SessionTokenShared.test.ts", name)
const tokens = (name: string) => by("test/SessionToken.test.ts", name)
const ofReader = (name: string) => by("test/internal/reader.test.ts", name)

const elsewhere = "a session writes in one process"
const joins = "it joins a flight from before its write"
const wentBack = "the store went back since"
const undelivered = "its invalidation is not delivered"
const batch = "a batch of requests runs as one of another session"
const madeUp = "a token is made up"

export const sessions: ReadonlyArray<Mutant> = [
  {
    guard: "session: what a process holds must have come as far",
    races: [elsewhere],
    file: "src/internal/statement.ts",
    find: "const kept = point === undefined || sessions.mayPeek(point)\n",
    replace: "const kept = point !== null\n",
    killedBy: shared("without a token the old answer")
  },
  {
    guard: "session: values by key as well",
    races: [elsewhere],
    file: "src/internal/named.ts",
    find: "return !isBypassed(this.engine, point, this.clock) && this.engine.sessions.mayPeek(point)",
    replace: "return !isBypassed(this.engine, point, this.clock)",
    killedBy: shared("by whatever it reads")
  },
  {
    guard: "session: in every shard",
    races: [elsewhere],
    file: session,
    find: "if (!applied.every(this.reflects)) return false",
    replace: "if (!applied.some(this.reflects)) return false",
    killedBy: tokens("come far enough in all of them")
  },
  {
    guard: "session: what is held after asking for the clocks, or for a while, must be as new",
    races: [elsewhere],
    file: "src/internal/tiered/store.ts",
    find: "lease !== undefined && since?.(lease) !== false",
    replace: "lease !== undefined",
    killedBy: shared("that asks Redis for the clocks")
  },
  {
    guard: "session: with monotonic reads what answers raises the token",
    races: [elsewhere],
    file: reader,
    find: "    if (point?.isMonotonic === true) point.raise(store.seen(key.namespace))\n",
    replace: "",
    killedBy: shared("does not lag behind")
  },
  {
    guard: "session: a flight from before is not joined",
    races: [joins],
    file: flights,
    find: "return since === undefined || (flight.at !== undefined && since(flight.at)) ? flight : undefined",
    replace: "return since === undefined || since !== null ? flight : undefined",
    killedBy: shared("one from before the write")
  },
  {
    guard: "session: nor is one that has not heard of the store yet",
    races: [joins],
    file: flights,
    find: "(flight.at !== undefined && since(flight.at)) ? flight",
    replace: "(flight.at === undefined || since(flight.at)) ? flight",
    killedBy: shared("asking the store still")
  },
  {
    guard: "session: what a flight brings that went back is not taken",
    races: [joins, wentBack],
    file: reader,
    find: "!(isFresh(landing.kept, reading.terms, landing.atMillis) && answers(reading, landing.at))",
    replace: "!isFresh(landing.kept, reading.terms, landing.atMillis)",
    killedBy: ofReader("does not take from a flight")
  },
  {
    guard: "session: nor what is stale there",
    races: [joins, wentBack],
    file: "src/internal/reading.ts",
    find: "isWithin(landing, reading.terms, millis) && answers(reading, landing.at)",
    replace: "isWithin(landing, reading.terms, millis)",
    killedBy: ofReader("a session that has seen more")
  },
  {
    guard: "session: replies of the store are judged",
    races: [wentBack],
    file: pilot,
    find: "if ((outcome._tag === \"Hit\" || others) && !answers(reading, lease)) {",
    replace: "if (false) {",
    killedBy: ofReader("is answered by the database")
  },
  {
    guard: "session: other processes are not waited for that may have begun before",
    races: [joins, wentBack],
    file: pilot,
    find: "if ((outcome._tag === \"Hit\" || others) && !answers(reading, lease)) {",
    replace: "if (outcome._tag === \"Hit\" && !answers(reading, lease)) {",
    killedBy: ofReader("waits for nobody who may")
  },
  {
    guard: "session: what is looked up again is judged",
    races: [wentBack],
    file: pilot,
    find: "return isHeld(reading, outcome) && answers(reading, outcome.lease)\n",
    replace: "return isHeld(reading, outcome)\n",
    killedBy: ofReader("is served nothing stale|nor what is stale there")
  },
  {
    guard: "session: replies to a batch are judged",
    races: [wentBack],
    file: reader,
    find: "isHeld(reading, found.value) &&\n              answers(reading, found.value.lease)\n",
    replace: "isHeld(reading, found.value)\n",
    killedBy: ofReader("in a batch, too")
  },
  {
    guard: "session: an epoch from before is none that holds nothing from before",
    races: [wentBack],
    file: places,
    find: "return own.order >= 0 && order > own.order",
    replace: "return own.order >= 0",
    killedBy: shared("it went back")
  },
  {
    guard: "session: what is merged asks for what both ask for",
    races: [elsewhere],
    file: places,
    find: "return difference < 0 ? b : a",
    replace: "return difference < 0 ? a : b",
    killedBy: tokens("asks for what both ask for")
  },
  {
    guard: "session: a write that is not delivered has a token that bypasses",
    races: [undelivered],
    file: sessionsFile,
    find: "    else point.bypass(",
    replace: "    else if (clocks !== undefined) point.bypass(",
    killedBy: shared("hands out a token that bypasses")
  },
  {
    guard: "session: so has a write whose outcome is unknown",
    races: [undelivered],
    file: "src/internal/delivery.ts",
    find: "        sessions.wrote(fiber, undefined)\n        return quarantine",
    replace: "        return quarantine",
    killedBy: shared("so does one that is interrupted")
  },
  {
    guard: "session: and one that is over before its transaction commits",
    races: [undelivered],
    file: "src/internal/transactions.ts",
    find: "          if (fiber.getRef(CurrentSession) !== touched.session) this.sessions.wrote(fiber, undefined)\n",
    replace: "",
    killedBy: shared("a session that begins inside")
  },
  {
    guard: "session: only where the write was made its targets are unserved",
    races: [undelivered],
    file: sessionsFile,
    find: "    if (bypass.by !== this.id) return true\n",
    replace: "",
    killedBy: shared("hands out a token that bypasses|each process sees its own")
  },
  {
    guard: "session: a store that is not shared gives no clocks",
    races: [undelivered],
    file: sessionsFile,
    find: "if (clocks !== undefined && this.options.store.shared) point.raise(clocks)",
    replace: "if (clocks !== undefined) point.raise(clocks)",
    killedBy: shared("each process sees its own")
  },
  {
    guard: "session: a bypass ends when nothing waits for delivery",
    races: [undelivered],
    file: sessionsFile,
    find: "store.shared && isSettled ? store.seen(namespace) : []",
    replace: "store.shared ? store.seen(namespace) : []",
    killedBy: shared("hands out a token that bypasses")
  },
  {
    guard: "session: batches of sessions are parted",
    races: [batch],
    file: "src/SessionToken.ts",
    find: "Context.add(apart(context, session.batchOf(scope)), CurrentSession, session)",
    replace:
      "Context.add(session.batchOf(scope) === undefined ? apart(context, {}) : context, CurrentSession, session)",
    killedBy: shared("not answered by each other's")
  },
  {
    guard: "session: in a scope as well",
    races: [batch],
    file: "src/CacheScope.ts",
    find: "Context.get(context, CurrentSession)?.batchOf(scope.key) ?? ",
    replace: "",
    killedBy: shared("not answered by each other's")
  },
  {
    guard: "session: a session's scopes are parted",
    races: [batch, "a batch of requests runs as its first one"],
    file: session,
    find:
      "    let batch = this.batches.get(scope)\n    if (batch === undefined) this.batches.set(scope, batch = { scope })\n",
    replace:
      "    let batch = this.batches.get(\"\")\n    if (batch === undefined) this.batches.set(\"\", batch = { scope })\n",
    killedBy: tokens("in several scopes")
  },
  {
    guard: "session: a bypass that claims to last longer is cut",
    races: [madeUp],
    file: session,
    find: "if (bypass.untilMillis === 0 || bypass.untilMillis > most) {",
    replace: "if (bypass.untilMillis === 0) {",
    killedBy: by(
      ["test/SessionTokenShared.test.ts", "test/SessionToken.test.ts"],
      "somebody has made up|costs its bearer"
    )
  },
  {
    guard: "session: one text stands for one token",
    races: [madeUp],
    file: places,
    find: "return token.toString() === text ? token : undefined",
    replace: "return token",
    killedBy: tokens("nothing but what is written")
  }
]
