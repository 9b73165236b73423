/** The guards of what a process holds itself, over what it shares. */
import { by, type Mutant } from "./mutant.ts"

const lost = "a message of the backplane is lost, the last one too"
const older = "an own or another's older reply is held"
const clocks = "the machine was suspended, or a clock set"
const refuses = "Redis refuses writes and answers reads"

const plane = "src/internal/tiered/plane.ts"
const backplane = "src/internal/tiered/backplane.ts"
const store = "src/internal/tiered/store.ts"
const coherence = "src/internal/tiered/coherence.ts"
const tests = (name: string) => by("test/TieredStore.test.ts", name)

export const tiered: ReadonlyArray<Mutant> = [
  {
    guard: "a message is applied if it is the next",
    races: [lost],
    file: plane,
    find: "if (applied.epoch !== message.epoch || applied.clock + 1 !== message.clock) return this.drop(message)",
    replace: "if (applied.epoch !== message.epoch) return this.drop(message)",
    killedBy: tests("a message that is missing drops everything")
  },
  {
    guard: "a message of another epoch drops everything",
    races: [lost],
    file: plane,
    find: "if (applied.epoch !== message.epoch || applied.clock + 1 !== message.clock) return this.drop(message)",
    replace: "if (applied.clock + 1 !== message.clock) return this.drop(message)",
    killedBy: tests("a new epoch whose beginning is missing")
  },
  {
    guard: "a beat that tells another clock drops everything",
    races: [lost],
    file: plane,
    find: "if (applied === undefined || applied.epoch !== message.epoch || applied.clock !== message.clock) {",
    replace: "if (applied === undefined) {",
    killedBy: tests("the last message is missing")
  },
  {
    guard: "a message that nobody can read drops everything",
    races: [lost],
    file: backplane,
    find: "      lose()\n      beatAllAnew()\n      return\n",
    replace: "      return\n",
    killedBy: tests("a message that cannot be read")
  },
  {
    guard: "the end of a subscription drops everything",
    races: [lost],
    file: backplane,
    find: "        session = undefined\n        lose()\n",
    replace: "        session = undefined\n",
    killedBy: tests("a subscription that fails drops everything")
  },
  {
    guard: "a deaf subscription is ended",
    races: [lost],
    file: backplane,
    find: "if (session !== undefined && plane.isDeaf(session.since)) Deferred.doneUnsafe(session.deaf, Effect.void)",
    replace: "",
    killedBy: tests("a half-open subscription")
  },
  {
    guard: "nothing is served without a beat that has returned",
    races: [lost],
    file: plane,
    find: "this.judgedFresh = this.applied !== undefined && this.isRecent(this.returned, nowMillis)",
    replace: "this.judgedFresh = this.applied !== undefined",
    killedBy: tests("beats that do not return end what is served")
  },
  {
    guard: "a beat counts from when it was sent",
    races: [lost],
    file: plane,
    find: "      this.returned = moment\n",
    replace: "      this.returned = momentOf(this.options.clock)\n",
    killedBy: tests("a beat counts from when it was sent")
  },
  {
    guard: "a beat that hangs is given up",
    races: ["a client hangs on a beat"],
    file: backplane,
    find: "Effect.timeoutOrElse(apart(sent), {",
    replace: "Effect.timeoutOrElse(sent, {",
    killedBy: tests("a client that hangs on a beat")
  },
  {
    guard: "a lease is taken before Redis is asked",
    races: [older],
    file: store,
    find: "hold(key, entry, lease, leases[i], storedAtMillis, askedAtMillis)",
    replace:
      "hold(key, entry, lease, table.lookup(key, dependencies, askedAtMillis).lease, storedAtMillis, askedAtMillis)",
    killedBy: tests("race 11\\)")
  },
  {
    guard: "a lease is taken before a fill is sent",
    races: [older],
    file: store,
    find: "if (verdicts[i] === \"accepted\") hold(key, entry, lease, leases[i], now, now)",
    replace:
      "if (verdicts[i] === \"accepted\") hold(key, entry, lease, table.lookup(key, entry.dependencies, now).lease, now, now)",
    killedBy: tests("a fill that was accepted before the invalidation")
  },
  {
    guard: "an own write is applied before it is sent",
    races: [older],
    file: store,
    find: "        table.invalidate(request)\n",
    replace: "",
    killedBy: tests("an own write is not served from when it is sent on")
  },
  {
    guard: "an own write is applied when Redis has answered",
    races: [older],
    file: plane,
    find: "      const { stamps } = this.apply({ ...at, ...request })\n",
    replace: "      const { stamps } = { stamps: [] as Array<string> }\n",
    killedBy: tests("an own write is not served|own writes at once|no answer is older than own writes")
  },
  {
    guard: "a reply is held only if it is of the epoch whose messages come",
    races: [older],
    file: plane,
    find: "    return this.applied?.epoch === epoch\n",
    replace: "    return this.applied !== undefined && epoch !== \"\"\n",
    killedBy: tests("a reply of another epoch")
  },
  {
    guard: "what else an answer was filled with is known, or it is not held",
    races: ["two policies share a statement"],
    file: store,
    find: "if (!isHit(outcome) || outcome.dependencies === undefined) return",
    replace: "if (!isHit(outcome)) return",
    killedBy: tests("what was filled for more than was asked for")
  },
  {
    guard: "the monotonic clock counts",
    races: [clocks],
    file: plane,
    find:
      "elapsedMillis < maxStalenessMillis &&\n      clock.monotonicTimeNanosUnsafe() - moment.nanos < this.maxNanos",
    replace: "elapsedMillis < maxStalenessMillis",
    killedBy: tests("race 18\\)")
  },
  {
    guard: "the wall clock counts",
    races: [clocks],
    file: plane,
    find: "return elapsedMillis >= 0 && elapsedMillis < maxStalenessMillis &&",
    replace: "return",
    killedBy: tests("race 18\\)")
  },
  {
    guard: "ttl: clocks that drift apart end what is held",
    races: [clocks],
    file: coherence,
    find: "if (Math.abs(now - lastOffset) > maxDriftMillis) {",
    replace: "if (false) {",
    killedBy: tests("ttl: a clock that was set")
  },
  {
    guard: "a hit of Redis wants a beat that was accepted",
    races: [refuses],
    file: store,
    find: "    if (proven !== undefined) yield* proven(outcomes)\n",
    replace: "",
    killedBy: tests("race 13\\)")
  },
  {
    guard: "a beat writes",
    races: [refuses],
    file: "src/internal/redis/coherence.ts",
    find: "if #ARGV ~= 5 then return malformed() end\nredis.call(\"DEL\", KEYS[3])\n",
    replace: "if #ARGV ~= 5 then return malformed() end\n",
    killedBy: tests("race 13\\)")
  },
  {
    guard: "what messages tell is remembered",
    races: ["Redis fails over, restarts"],
    file: backplane,
    find: "    shared.saw(message.namespace, message.shard, message)\n",
    replace: "",
    killedBy: tests("what messages alone have told")
  },
  {
    guard: "revalidation writes",
    races: [refuses],
    file: "src/internal/redis/coherence.ts",
    find: "${mode.probe}\n",
    replace: "",
    killedBy: tests("HOLD asks for a write")
  },
  {
    guard: "revalidation compares stamps",
    races: [older],
    file: "src/internal/redis/coherence.ts",
    find: "verdicts[i] = latest and latest <= entry.lease and 1 or 0",
    replace: "verdicts[i] = latest and 1 or 0",
    killedBy: tests("revalidate: asks for the stamps")
  }
]
