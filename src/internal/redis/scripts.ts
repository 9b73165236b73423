/**
 * The scripts of the Redis store, each one round trip.
 *
 * A shard of a namespace owns a hash and a sorted set without TTL, and entries and flights
 * with one:
 *
 * - `meta`: `epoch`, `clk`, `replid`, of the first shard `shards` and `ready`, and per table a field `s:<table>` with the
 *   shapes registered for it, oldest first;
 * - `stamps`: what is registered, each member with the clock it was registered
 *   or last invalidated at, and a sentinel `~<epoch>`;
 * - per entry a flight, while some process reads it: that process' token, and the
 *   epoch and clock of its lease. Or `-`, for a second after a fill was refused or
 *   given up: then everybody reads for themselves.
 *
 * Invariants, which hold between any two scripts:
 *
 * 1. Within an epoch the clock only grows, and every invalidation makes it grow.
 *    Epochs never repeat.
 * 2. Whatever is missing or does not agree counts as everything lost: a new epoch
 *    begins, in which nothing is registered and no entry is valid.
 * 3. A stamp was, at every moment since its entry's or its lease's clock, either
 *    present or absent; an invalidation it missed while it was absent came before
 *    it was registered again, at a later clock. Hence "present and not later than
 *    the lease" means "not invalidated since the lease". Any stamp but the
 *    sentinel may be removed at any time.
 * 4. The stamp of a shape is present only while `meta` lists the shape. So a
 *    write that finds no shape to mark leaves no entry of that shape valid.
 * 5. Every key but those two has a TTL.
 * 6. A flight is ended by its own token, by its TTL, or by another that takes its
 *    place once an invalidation has overtaken it. It says who reads, and decides
 *    nothing about what may be served: fills are judged by clocks alone.
 *
 * An epoch is `<order>-<nonce>@<shard>`, so no two shards have the same. Orders grow as far as anyone can know: a new one
 * is above the time in microseconds, above the one it replaces and above the one
 * the caller has seen. So `(epoch, clock)` is a high-water mark:
 *
 * - the same epoch with a lower clock than the caller has seen: Redis went back;
 * - an epoch of a lower order: Redis went back further, to before a rotation;
 * - an epoch of the same order and another nonce: two masters rotated apart from
 *   each other, and which came first cannot be known;
 * - an epoch of a higher order: somebody rotated. Nothing is wrong.
 *
 * The first three begin a new epoch. A caller does so at most once for what it
 * has seen, since the new order is above it, so callers never rotate in turns.
 * The mark matters where `INFO` is refused (else `replid` tells first) and where
 * a data set is restored in place; it knows what this caller has seen, no more.
 *
 * All names in KEYS share a hash tag, and no script builds another one. Arguments
 * are checked before the first write. Time is Redis' own. Numbers travel as text.
 */
import { forLayouts } from "./layouts.ts"
import { advance, marks } from "./marks.ts"
import { bounded, type Mode, strict } from "./modes.ts"
import { type Head, headOf, settle, settleAlone } from "./prelude.ts"
import type { Script } from "./script.ts"

/** An entry's place among KEYS and ARGV. */
export interface EntryAddress {
  /** The flight's, then those of the layout. */
  readonly keys: ReadonlyArray<string>
  /** The field in the group's hash. */
  readonly field: string
  /** Which of the sets its stamps are, from 1. */
  readonly set: number
}

/** One lookup. */
export interface LookupEntry extends EntryAddress {
  /** From which age on an entry is stale, whatever its time to live: empty where that alone counts. */
  readonly maxAgeMillis: number | ""
  /** Of the flight, if this one begins it. */
  readonly token: string
}

/** What LOOKUP is told. Sets that several entries share are sent once. */
export interface LookupArguments {
  readonly head: Head
  readonly keys: ReadonlyArray<string>
  readonly maxDependencies: number
  readonly flightMillis: number
  readonly sets: ReadonlyArray<{ readonly stamps: string; readonly shapes: string }>
  readonly entries: ReadonlyArray<LookupEntry>
}

/**
 * LOOKUP returns `{ "found", nonce, epoch, clock, outcomes }`, an outcome being
 *
 * - `{ "hit", value, ageMillis, timeToLiveMillis, costMillis, same }`, where `same` is
 *   1 if the entry was filled for the stamps that were asked for;
 * - `{ "stale", ...the same, claim, remainingMillis }`;
 * - `{ "miss", reason, claim, remainingMillis }`.
 *
 * Where the namespace is kept strict also (fences.ts)
 *
 * - `{ "fenced", { token, transaction }... }`: a fence is on a stamp that was asked for. Those
 *   that are named have expired, and nobody else is told so for a while;
 * - `{ "closed", transaction }`: the barrier is closed, until everything has ended that began before
 *   this transaction, if there is one already.
 *
 * A hit or what is stale is of this epoch, and its own stamps and the caller's are
 * all present and not later than its lease. When the script returns, the stamps and
 * shapes of everything but hits are registered, at clocks not later than the one
 * returned: so a write that comes now finds them (had STORE registered them, a
 * write between the read and the store would find nothing to mark, and the stale
 * store would be accepted). Of what is fenced or closed too: nobody stores it, but whoever
 * reads it may want to hear of the next write, which tells of the shapes that are registered.
 *
 * A claim says whose it is to read what is no hit: `"yours"`, from now on a flight
 * under the token that was given; `"wait"`, since somebody else's flight is under way
 * for so many milliseconds at most; `"free"`, anybody's, without a flight. A flight
 * is nobody's to wait for if its fill would be refused for these stamps. A command
 * that is sent again finds its own flight, and is given the same answer.
 */
const lookupOf = (mode: Mode) =>
  forLayouts(mode.metadataKeys, (layout): Script<LookupArguments> => ({
    keys: (args) => [...args.keys, ...args.entries.flatMap((entry) => entry.keys)],
    argv: (args) => [
      ...headOf(args.head),
      args.maxDependencies,
      args.flightMillis,
      args.sets.length,
      ...args.sets.flatMap((set) => [set.stamps, set.shapes]),
      ...args.entries.flatMap((entry) => [entry.set, entry.field, entry.maxAgeMillis, entry.token])
    ],
    lua: `${mode.prelude}${mode.newest}${layout.read}
local maximum, flightMillis, setCount = whole(ARGV[6], 1), whole(ARGV[7], 1), whole(ARGV[8], 0)
local count = (#KEYS - ${mode.metadataKeys}) / ${layout.keysPerEntry}
if not maximum or not flightMillis or not setCount or #ARGV ~= 8 + 2 * setCount + 4 * count then return malformed() end
local function stampsOf(set) return ARGV[7 + 2 * set] end
local function shapesOf(set) return ARGV[8 + 2 * set] end
for set = 1, setCount do
  for shape in string.gmatch(shapesOf(set), "[^\\n]+") do
    if not string.find(shape, "\\t", 2, true) then return malformed() end
  end
end
local entries = {}
for i = 1, count do
  local at = 5 + 2 * setCount + 4 * i
  local set, maxAge, token = whole(ARGV[at], 1), ARGV[at + 2], ARGV[at + 3]
  maxAge = maxAge == "" and math.huge or whole(maxAge, 0)
  if not set or set > setCount or not maxAge or not string.find(token, "^%S+$") then return malformed() end
  entries[i] = { set = set, field = ARGV[at + 1], maxAge = maxAge, token = token }
end

-- Random members, since those of one clock have no other order than their names, in
-- which the same ones would go first every time. A batch may exceed the limit by its own size.
local function trim(adding)
  local excess = redis.call("ZCARD", STAMPS) + adding - maximum
  if excess <= 0 then return end
  local removed = redis.call("ZRANDMEMBER", STAMPS, text(math.min(excess + math.floor(maximum / 100), adding + CHUNK)))
  local members = {}
  for i = 1, #removed do
    if removed[i] ~= "~" .. epoch then members[#members + 1] = removed[i] end
    if #members > 0 and (#members >= CHUNK or i == #removed) then
      redis.call("ZREM", STAMPS, unpack(members))
      members = {}
    end
  end
end

-- A table keeps the latest 64 shapes. The one that leaves is invalidated as a whole: its
-- entries have a stamp that is absent, and if it comes back, one later than their lease.
local function registerShape(name, columns)
  local listed = redis.call("HGET", META, "s:" .. name)
  local shapes = listed and lines(listed) or {}
  for i = 1, #shapes do
    if shapes[i] == columns then return end
  end
  shapes[#shapes + 1] = columns
  while #shapes > 64 do
    local oldest = name .. "(" .. string.gsub(table.remove(shapes, 1), "\\t", ",") .. ")"
    clock = redis.call("HINCRBY", META, "clk", 1)
    redis.call("ZREM", STAMPS, oldest)
    publish(false, { oldest })
  end
  redis.call("HSET", META, "s:" .. name, table.concat(shapes, "\\n"))${mode.registered}
end

-- Stamps before shapes: a shape that leaves again within this batch must leave its stamp absent.
local function register(sets)
  local members, seen = {}, {}
  for set in pairs(sets) do
    for stamp in string.gmatch(stampsOf(set), "[^\\n]+") do
      if not seen[stamp] then
        seen[stamp] = true
        members[#members + 1] = stamp
      end
    end
  end
  trim(#members)
  zadd("NX", members)
  for set in pairs(sets) do
    for shape in string.gmatch(shapesOf(set), "[^\\n]+") do
      registerShape(string.match(shape, "^([^\\t]*)\\t(.*)$"))
    end
  end
end

local function claim(i, entry)
  local held = ask("GET", keyOf(i, 1))
  if held == "-" then return "free", 0 end
  if type(held) == "string" then
    local owner, of, lease = string.match(held, "^(%S+) (%S+) (%d+)$")
    local latest = newest(stampsOf(entry.set))
    if owner and owner ~= entry.token and of == epoch and latest and latest <= tonumber(lease) then
      local remaining = redis.call("PTTL", keyOf(i, 1))
      if remaining >= 0 then return "wait", text(math.max(1, remaining)) end
    end
  end
  redis.call("SET", keyOf(i, 1), entry.token .. " " .. epoch .. " " .. text(clock), "PX", text(flightMillis))
  return "yours", 0
end

${mode.open}if not isGood then rotate(redis.call) end
local outcomes, missed = {}, {}
for i = 1, count do
  local entry = entries[i]
  local outcome = ${mode.bypass("entry")}read(i, stampsOf(entry.set), entry.field, entry.maxAge)
  if type(outcome) == "string" then
    outcome = { "miss", outcome }
    sweep(i)
  end
  if outcome[1] ~= "hit" then missed[entry.set] = true end
  outcomes[i] = outcome
end
if next(missed) then
  register(missed)
  forget()
end
-- The clock stands still from here on: what a flight keeps is the lease that its owner is given.
for i = 1, count do
  local outcome = outcomes[i]${mode.registeredAll}
  if outcome[1] == "miss" or outcome[1] == "stale" then
    outcome[#outcome + 1], outcome[#outcome + 2] = claim(i, entries[i])
  end
end
return { "found", NONCE, epoch, text(clock), outcomes }
`
  }))

export const lookup = lookupOf(bounded)

/** LOOKUP where the namespace is kept strict. */
export const lookupStrict = lookupOf(strict)

/** One fill. */
export interface StoreEntry extends EntryAddress {
  readonly epoch: string
  readonly lease: number
  /** Of the flight that the lease was given for, or empty. */
  readonly token: string
  readonly ttlMillis: number
  readonly retainMillis: number
  readonly costMillis: number
  readonly value: string
}

/** What STORE is told. */
export interface StoreArguments {
  readonly head: Head
  readonly keys: ReadonlyArray<string>
  readonly sets: ReadonlyArray<{ readonly stamps: string }>
  readonly entries: ReadonlyArray<StoreEntry>
}

/** For how long everybody reads for themselves where a fill was refused or given up. */
const freeMillis = 1000

/**
 * STORE returns `{ "stored", nonce, epoch, clock, verdicts }`, a verdict being 1 where
 * the fill was accepted, or `{ "lost", nonce }` where the metadata are, and nothing was
 * accepted.
 *
 * Accepted means: the lease is of this epoch, and every stamp of the entry is
 * present and not later than it. STORE never writes metadata. It ends the flights of
 * its leases. One whose fill was refused leaves word for a second that nobody is to be
 * waited for: those who wait would else queue up behind each other, each reading what
 * is refused again. Where the metadata are lost the flights are of another epoch, and
 * nobody waits for them.
 */
const storeOf = (mode: Mode) =>
  forLayouts(mode.metadataKeys, (layout): Script<StoreArguments> => ({
    keys: (args) => [...args.keys, ...args.entries.flatMap((entry) => entry.keys)],
    argv: (args) => [
      ...headOf(args.head),
      args.sets.length,
      ...args.sets.map((set) => set.stamps),
      ...args.entries.flatMap((entry) => [
        entry.set,
        entry.field,
        entry.epoch,
        entry.lease,
        entry.token,
        entry.ttlMillis,
        entry.retainMillis,
        entry.costMillis,
        entry.value
      ])
    ],
    lua: `${mode.storePrelude}${mode.newest}${settle}${layout.write}
local setCount = whole(ARGV[6], 0)
local count = (#KEYS - ${mode.metadataKeys}) / ${layout.keysPerEntry}
if not setCount or #ARGV ~= 6 + setCount + 9 * count then return malformed() end
local entries = {}
for i = 1, count do
  local at = setCount + 9 * i - 2
  local set = whole(ARGV[at], 1)
  local entry = {
    field = ARGV[at + 1], epoch = ARGV[at + 2], lease = whole(ARGV[at + 3], 0), token = ARGV[at + 4],
    ttl = whole(ARGV[at + 5], 1), retain = whole(ARGV[at + 6], 0), cost = whole(ARGV[at + 7], 0), value = ARGV[at + 8]
  }
  if not set or set > setCount or not entry.lease or not entry.ttl or not entry.retain or not entry.cost then
    return malformed()
  end
  entry.stamps = ARGV[6 + set]
  entries[i] = entry
end

${mode.open}if not isGood then return { "lost", NONCE } end
local verdicts = {}
for i = 1, count do
  local entry = entries[i]
  local latest = entry.epoch == epoch and newest(entry.stamps)
  local accepted = latest and latest <= entry.lease
  if accepted then write(i, entry) end
  verdicts[i] = accepted and 1 or 0
end
-- After all values: what ends a flight would let them pass where memory is short.
for i = 1, count do settle(keyOf(i, 1), entries[i].token, verdicts[i] == 1 and 0 or ${freeMillis}) end
return { "stored", NONCE, epoch, text(clock), verdicts }
`
  }))

export const store = storeOf(bounded)

/** STORE where the namespace is kept strict. */
export const storeStrict = storeOf(strict)

/** What RELEASE is told. */
export interface ReleaseArguments {
  readonly nonce: string
  /** Whether everybody is to read for themselves for a second, or the next one who asks. */
  readonly free: boolean
  readonly flights: ReadonlyArray<{ readonly key: string; readonly token: string }>
}

/** RELEASE ends flights without a fill, each if it is still its token's, and returns `{ "released", nonce }`. */
export const release: Script<ReleaseArguments> = {
  keys: (args) => args.flights.map(({ key }) => key),
  argv: (args) => [args.nonce, args.free ? freeMillis : 0, ...args.flights.map(({ token }) => token)],
  lua: `${settleAlone}
local millis = tonumber(ARGV[2] or "")
if not millis or #ARGV ~= 2 + #KEYS then
  return redis.error_reply("ERR effect-query-cache: malformed arguments")
end
for i = 1, #KEYS do settle(KEYS[i], ARGV[2 + i], millis) end
return { "released", ARGV[1] }
`
}

/** What INVALIDATE is told. */
export interface InvalidateArguments {
  readonly head: Head
  readonly keys: ReadonlyArray<string>
  readonly all: boolean
  /** Whether, with all, what the shard knew counts as lost, fences too. */
  readonly lost: boolean
  readonly stamps: string
  readonly images: string
  readonly wholes: string
  /** The fences that go with it, where the namespace is kept strict. */
  readonly fences: ReadonlyArray<string>
  /** Groups to drop at once, which frees their memory early and decides nothing. */
  readonly groups: ReadonlyArray<string>
}

/**
 * INVALIDATE returns `{ "invalidated", nonce, epoch, clock, shards }`: of the first shard how many there are to be
 * invalidated, see shards.ts, of any other 1.
 *
 * When it returns, no entry and no lease from before is valid that depends on a
 * stamp it was given, or on what an image makes of the registered shapes. It stamps
 * only what is registered, so writes never grow the sorted set.
 *
 * Redis refuses commands that need memory only as the first write of a script,
 * and never `DEL`. So `DEL` goes first: it notices every other refusal, and lets
 * the rest pass when memory is short. Should a server refuse the rest nonetheless,
 * the metadata are unlinked, which invalidates everything.
 */
const invalidateOf = (mode: Mode): Script<InvalidateArguments> => ({
  keys: (args) => [...args.keys, ...args.groups],
  argv: (args) => [
    ...headOf(args.head),
    args.lost ? "lost" : args.all ? 1 : 0,
    args.stamps,
    args.images,
    args.wholes,
    ...mode === strict ? [args.fences.join(" ")] : []
  ],
  lua: `${mode.prelude}${mode.lift}
if #ARGV ~= ${mode === strict ? 10 : 9} then return malformed() end
${marks({ stamps: 7, images: 8, wholes: 9, maxMarks: 10_000 })}
${mode.probe}
local shards = ask("HGET", META, "shards")
-- \`open\` comes first: it tells the order that a new epoch must be above.
${mode.open}if not isGood or ARGV[6] ~= "0" then rotate(redis.pcall, isGood and ARGV[6] ~= "lost")
else
  markAll()
  ${advance}
end
${mode.lifted}if #KEYS > 3 then redis.call("UNLINK", unpack(KEYS, 4)) end
return { "invalidated", NONCE, epoch, text(clock), type(shards) == "string" and shards or "1" }
`
})

export const invalidate = invalidateOf(bounded)

/** INVALIDATE where the namespace is kept strict: what was invalidated is not fenced any more. */
export const invalidateStrict = invalidateOf(strict)
