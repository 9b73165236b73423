/** The guards of the memory store and of the scripts in Redis. */
import { by, type Mutant } from "./mutant.ts"

const late = "a late fill lands after the invalidation"
const unregistered = "a row dependency that nobody had registered"
const notTheirs = "two policies share a statement"
const invalidatedStale = "something stale is served after an invalidation"
const wentBack = "Redis fails over"

const table = "src/internal/memoryTable.ts"
const scripts = "src/internal/redis/scripts.ts"
const prelude = "src/internal/redis/prelude.ts"
const layouts = "src/internal/redis/layouts.ts"
const store = "src/internal/redis/store.ts"
const memory = (name: string) => by("test/CacheStore.test.ts", name)
const redis = (name: string) => by("test/RedisStore.test.ts", name)

export const stores: ReadonlyArray<Mutant> = [
  // -- the memory store
  {
    guard: "a lease is compared by store",
    races: [late],
    file: table,
    find: "      !this.covers(namespace, entry.dependencies, lease.clock)\n",
    replace: "      false\n",
    killedBy: memory("race 1\\)")
  },
  {
    guard: "an invalidation advances the clock",
    races: [late],
    file: table,
    find: "const clock = ++this.clock",
    replace: "const clock = this.clock",
    killedBy: memory("race 1\\)")
  },
  {
    guard: "a miss registers its stamps",
    races: [unregistered],
    file: table,
    find: "    this.register(namespace, dependencies)\n    return { _tag: \"Miss\"",
    replace: "    return { _tag: \"Miss\"",
    killedBy: memory("race 2\\)|race 1\\)")
  },
  {
    guard: "a miss registers its shapes",
    races: [unregistered],
    file: table,
    find: "for (const shape of dependencies.shapes) add(Dependency.shapeStamp(shape), shape)",
    replace: "",
    killedBy: memory("images mark the conjunctions")
  },
  {
    guard: "a stamp that is absent counts as invalidated",
    races: [unregistered],
    file: table,
    find: "if (stamp === undefined || stamp.clock > lease) return false",
    replace:
      "if (stamp === undefined) this.register(namespace, dependencies)\n      else if (stamp.clock > lease) return false",
    killedBy: memory("race 2\\)|forgets the stamps")
  },
  {
    guard: "a stamp is registered at the clock of its registration",
    races: [late, unregistered],
    file: table,
    find: "namespace.stamps.set(name, { name, clock: this.clock, references: 0, shape })",
    replace: "namespace.stamps.set(name, { name, clock: 0, references: 0, shape })",
    killedBy: memory("forgotten and registered again")
  },
  {
    guard: "a stamp that entries refer to is not forgotten",
    races: [late],
    file: table,
    find: "if (stamp.references > 0) continue",
    replace: "",
    killedBy: memory("layerMemory")
  },
  {
    guard: "what peek serves is valid",
    races: [invalidatedStale],
    file: table,
    find: "    if (!this.isValid(entry)) return undefined\n",
    replace: "",
    killedBy: memory("what was invalidated is not served")
  },
  {
    guard: "what lookup serves is valid",
    races: [invalidatedStale, late],
    file: table,
    find: "} else if (!this.isValid(entry)) {",
    replace: "} else if (false) {",
    killedBy: memory("what was invalidated is not served")
  },
  {
    guard: "stamps are compared again once the clock has moved",
    races: [late],
    file: table,
    find: "if (group.checked !== this.clock) this.compareStamps(group)",
    replace: "if (group.checked === 0) this.compareStamps(group)",
    killedBy: memory("layerMemory")
  },
  {
    guard: "the caller's dependencies count, not only the entry's own",
    races: [notTheirs],
    file: table,
    find: "entry.dependencies.id === dependencies.id || this.covers(namespace, dependencies, entry.leaseClock)",
    replace: "true",
    killedBy: memory("race 20\\)")
  },
  {
    guard: "an image marks its table",
    races: ["an empty answer cached"],
    file: table,
    find: "      stamps.add(image.table)\n",
    replace: "",
    killedBy: memory("images mark")
  },

  // -- Redis: what is valid
  {
    guard: "Redis: a lease is compared by STORE",
    races: [late],
    file: scripts,
    find: "local accepted = latest and latest <= entry.lease",
    replace: "local accepted = latest",
    killedBy: redis("flat.*race 1\\)")
  },
  {
    guard: "Redis: an epoch is compared by STORE",
    races: [late, wentBack],
    file: scripts,
    find: "entry.epoch == epoch and newest(entry.stamps)",
    replace: "newest(entry.stamps)",
    killedBy: redis("flat.*a lease of another epoch")
  },
  {
    guard: "Redis: a miss registers",
    races: [unregistered],
    file: scripts,
    find: "  register(missed)\n",
    replace: "",
    killedBy: redis("flat.*returns what was filled")
  },
  {
    guard: "Redis: a miss registers its shapes",
    races: [unregistered],
    file: scripts,
    find: "      registerShape(string.match(shape, \"^([^\\\\t]*)\\\\t(.*)$\"))\n",
    replace: "",
    killedBy: redis("flat.*images mark the conjunctions")
  },
  {
    guard: "Redis: a stamp that is absent counts as invalidated",
    races: [unregistered, wentBack],
    file: prelude,
    find: "      if not score then\n",
    replace: "      if not score then score = 0 end\n      if false then\n",
    killedBy: redis("flat.*(race 2\\)|any order of lookups)")
  },
  {
    guard: "Redis: an epoch is compared by LOOKUP",
    races: [wentBack],
    file: layouts,
    find: "  if of ~= epoch then return \"invalidated\" end\n",
    replace: "",
    killedBy: redis("flat: guards.*an epoch is compared at LOOKUP|with the guard")
  },
  {
    guard: "Redis: an entry's own stamps count",
    races: [notTheirs],
    file: layouts,
    find: "local latest = newest(own)",
    replace: "local latest = newest(stamps)",
    killedBy: redis("flat.*race 20\\)")
  },
  {
    guard: "Redis: the caller's stamps count",
    races: [notTheirs],
    file: layouts,
    find: "  if own ~= stamps then\n",
    replace: "  if false then\n",
    killedBy: redis("flat.*race 20\\)")
  },
  {
    guard: "Redis, grouped: a header names the newest of its stamps",
    races: [late, invalidatedStale],
    file: layouts,
    find: "if not latest or header ~= epoch .. \":\" .. text(latest) then",
    replace: "if not latest then",
    killedBy: redis("grouped.*what was invalidated is not served")
  },
  {
    guard: "Redis, flat: stamps are compared by LOOKUP, of what is stale as well",
    races: [invalidatedStale],
    file: layouts,
    find: "  local latest = newest(own)\n  if not latest or latest > tonumber(lease) then return \"invalidated\" end\n",
    replace: "  local latest = newest(own)\n",
    killedBy: redis("flat.*what was invalidated is not served")
  },

  // -- Redis: what it may have lost
  {
    guard: "Redis: another replication id begins an epoch",
    races: [wentBack],
    file: prelude,
    find: "  if replid and replid ~= meta[3] then return false end\n",
    replace: "",
    killedBy: redis("another replication id|a promoted one starts anew|with old data")
  },
  {
    guard: "Redis: the metadata are one whole",
    races: [wentBack],
    file: prelude,
    find: "  if type(ask(\"ZSCORE\", STAMPS, \"~\" .. epoch)) ~= \"string\" then return false end\n",
    replace: "",
    killedBy: redis("a missing sentinel begins an epoch")
  },
  {
    guard: "Redis: a clock below what was seen begins an epoch",
    races: [wentBack],
    file: prelude,
    find: "    if order == seenOrder and (epoch ~= SEEN or clock < seenClock) then return false end\n",
    replace: "",
    killedBy: redis("a clock below what was seen|INFO is refused")
  },
  {
    guard: "Redis: an epoch from before the one that was seen begins another",
    races: [wentBack],
    file: prelude,
    find: "    if order < seenOrder then return false end\n",
    replace: "",
    killedBy: redis("an epoch from before the one")
  },
  {
    guard: "Redis: a replica does not answer",
    races: [wentBack],
    file: prelude,
    find: "  if string.find(info, \"role:slave\", 1, true) then\n",
    replace: "  if false then\n",
    killedBy: redis("a replica does not answer")
  },
  {
    guard: "Redis: a process remembers the highest clock that it has seen",
    races: [wentBack],
    file: "src/internal/redis/namespace.ts",
    find: "    this.seen = { epoch: clock.epoch, clock: clock.clock }\n",
    replace: "",
    killedBy: redis("a clock below what was seen|an epoch from before the one")
  },

  // -- flights across processes
  {
    guard: "Redis: whose flight was overtaken is replaced",
    races: ["a process dies, pauses or is overtaken"],
    file: scripts,
    find: "owner ~= entry.token and of == epoch and latest and latest <= tonumber(lease) then",
    replace: "owner ~= entry.token and of == epoch then",
    killedBy: redis("flat.*an owner that was overtaken is replaced")
  },
  {
    guard: "Redis: a flight has a time to live",
    races: ["a process dies, pauses or is overtaken"],
    file: scripts,
    find: "text(clock), \"PX\", text(flightMillis))",
    replace: "text(clock), \"PX\", text(flightMillis * 1000))",
    killedBy: redis("an owner that died is replaced in time, and does no harm when it comes back, flat")
  },
  {
    guard: "Redis: a flight is ended by its own token",
    races: ["an owner comes back late"],
    file: prelude,
    find: "  if type(held) ~= \"string\" or string.match(held, \"^(%S+) \") ~= token then return end\n",
    replace: "",
    killedBy: redis("flat.*leaves its successor alone")
  },
  {
    guard: "Redis: a fill that is refused lets everybody read",
    races: ["fills keep being refused"],
    file: scripts,
    find: "verdicts[i] == 1 and 0 or ${freeMillis}",
    replace: "0",
    killedBy: redis("flat.*whose fill was refused or given up")
  },
  {
    guard: "Redis: a token finds its own flight",
    races: ["a command is sent again"],
    file: scripts,
    find: "if owner and owner ~= entry.token and",
    replace: "if owner and",
    killedBy: redis("every command sent twice")
  },
  {
    guard: "Redis: a reply is to its own call",
    races: ["a command is sent again"],
    file: "src/internal/redis/replies.ts",
    find: "  if (of !== nonce) throw new UnexpectedReply(\"A script's reply is not to the call that it came for\")\n",
    replace: "",
    killedBy: redis("replies out of step")
  },
  {
    guard: "Redis: a script is named by its own digest",
    races: ["a command is sent again"],
    file: "src/internal/redis/script.ts",
    find: "  const sha = digest(script.lua)\n  return (args: Arguments): Effect.Effect<unknown, RedisError> => {",
    replace:
      "  const known: { sha?: string } = {}\n  return (args: Arguments): Effect.Effect<unknown, RedisError> => {\n"
      + "    if (known.sha === undefined) {\n"
      + "      return Effect.flatMap(redis.send<string>(\"SCRIPT\", \"LOAD\", script.lua), (loaded) => {\n"
      + "        known.sha = loaded\n        return run(redis, script)(args)\n      })\n    }\n    const sha = known.sha\n",
    killedBy: redis("each operation is one command, flat|replies out of step")
  },
  {
    guard: "Redis: a lookup that nobody waits for any more gives its flight back",
    races: ["a lookup is given up after it was sent"],
    file: store,
    find: "      if (lease.flight !== undefined) Effect.runFork(",
    replace: "      if (lease.flight === \"\") Effect.runFork(",
    killedBy: redis("a lookup that is given up gives its flight back, flat")
  },
  {
    guard: "Redis: who gives up without having found out leaves it to the next one",
    races: ["all who wait in one process leave"],
    file: store,
    find: "free: heirs === \"all\"",
    replace: "free: true",
    killedBy: redis("flat.*leaves it to the next")
  }
]
