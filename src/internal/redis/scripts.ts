/**
 * The three scripts of the Redis store, each one round trip.
 *
 * A namespace owns a hash and a sorted set without TTL, and entries with one:
 *
 * - `meta`: `epoch`, `clk`, `replid`, and per table a field `s:<table>` with the
 *   shapes registered for it, oldest first;
 * - `stamps`: what is registered, each member with the clock it was registered
 *   or last invalidated at, and a sentinel `~<epoch>`.
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
 *
 * An epoch is `<order>-<nonce>`. Orders grow as far as anyone can know: a new one
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
import * as Redis from "effect/persistence/Redis"

/** How entries lie in Redis: a key each, or those with the same dependencies together in a hash. */
export type Layout = "flat" | "grouped"

/** What every script is told. */
export interface Head {
  /** Unique to this call: becomes part of an epoch if one begins. */
  readonly nonce: string
  /** The highest clock this process has seen, with an empty epoch where it has seen none. */
  readonly seenEpoch: string
  readonly seenClock: number
  readonly channel: string
  readonly namespace: string
}

/** The order of an epoch. */
export const orderOf = (epoch: string): number => Number(epoch.slice(0, epoch.indexOf("-")))

const head = (head: Head) => [head.nonce, head.seenEpoch, head.seenClock, head.channel, head.namespace]

// What each script begins with. `open` reads the metadata and says whether they are
// good, `rotate` begins an epoch. Both set `epoch` and `clock`.
const prelude = `
local META, STAMPS = KEYS[1], KEYS[2]
local NONCE, SEEN, CHANNEL, NAMESPACE = ARGV[1], ARGV[2], ARGV[4], ARGV[5]
local MAX = 4503599627370496
local CHUNK = 4000

local function whole(value, least)
  local n = tonumber(value)
  if not n or n ~= n or n < least or n > MAX or n % 1 ~= 0 then return nil end
  return n
end
local function text(n) return string.format("%.0f", n) end
local function orderOf(epoch)
  local digits = string.match(epoch, "^(%d+)%-.")
  return digits and whole(digits, 0)
end
local function malformed()
  return redis.error_reply("ERR effect-query-cache: malformed arguments")
end

local seenOrder, seenClock = orderOf(SEEN or ""), whole(ARGV[3], 0)
if not NAMESPACE or NONCE == "" or not seenClock then return malformed() end

local time = redis.call("TIME")
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(micros / 1000)

-- It changes with every promotion and restart (and, harmlessly, when a first replica comes). Where INFO is
-- refused there is none.
local replid
local info = redis.pcall("INFO", "replication")
if type(info) == "string" then
  if string.find(info, "role:slave", 1, true) then
    return redis.error_reply("READONLY effect-query-cache: a replica does not answer")
  end
  replid = string.match(info, "master_replid:(%x+)")
end

-- A key of the wrong type is a loss like any other. Other errors, a missing right say, are not.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) == "table" and reply.err and not string.find(reply.err, "WRONGTYPE", 1, true) then
    return redis.call(...)
  end
  return reply
end

local epoch, clock, order

local function open()
  local meta = ask("HMGET", META, "epoch", "clk", "replid")
  if meta.err or not meta[1] then return false end
  epoch, clock, order = meta[1], whole(meta[2], 0), orderOf(meta[1])
  if not clock or not order then return false end
  if replid and replid ~= meta[3] then return false end
  if type(ask("ZSCORE", STAMPS, "~" .. epoch)) ~= "string" then return false end
  if seenOrder then
    if order < seenOrder then return false end
    if order == seenOrder and (epoch ~= SEEN or clock < seenClock) then return false end
  end
  return redis.call("HLEN", META) < 10000
end

local function publish(all, stamps)
  redis.call("PUBLISH", CHANNEL, table.concat({
    "1", NAMESPACE, epoch, text(clock), all and "*" or "", table.concat(stamps, "\\t")
  }, "\\t"))
end

-- UNLINK is allowed when memory is short, and invalidates everything whether or not the rest succeeds.
local function rotate(write)
  order = math.max(micros, (order or 0) + 1, (seenOrder or 0) + 1)
  epoch, clock = text(order) .. "-" .. NONCE, 0
  redis.call("UNLINK", META, STAMPS)
  write("HSET", META, "epoch", epoch, "clk", "0", "replid", replid or "")
  write("ZADD", STAMPS, "+inf", "~" .. epoch)
  publish(true, {})
end

local function lines(value)
  local found = {}
  for line in string.gmatch(value, "[^\\n]+") do found[#found + 1] = line end
  return found
end

local function zadd(mode, members)
  local at, args = text(clock), {}
  for i = 1, #members do
    args[#args + 1] = at
    args[#args + 1] = members[i]
    if #args >= CHUNK or i == #members then
      redis.call("ZADD", STAMPS, mode, unpack(args))
      args = {}
    end
  end
end
`

// `newest(stamps)`: the latest clock among them, or false where one is absent.
const newest = `
local known = {}
local function newest(stamps)
  local latest = known[stamps]
  if latest ~= nil then return latest end
  latest = 0
  local members = lines(stamps)
  for from = 1, #members, CHUNK do
    local scores = redis.call("ZMSCORE", STAMPS, unpack(members, from, math.min(from + CHUNK - 1, #members)))
    for i = 1, #scores do
      local score = tonumber(scores[i] or nil)
      if not score then
        known[stamps] = false
        return false
      end
      latest = math.max(latest, score)
    end
  end
  known[stamps] = latest
  return latest
end
`

interface LayoutScripts {
  readonly keysPerEntry: number
  /** Defines `read(i, stamps, field)`: `"hit", value, age, whether filled for these stamps`, or why not. */
  readonly read: string
  /** Defines `write(i, stamps, field, lease, ttl, value)`, which overwrites whatever is there. */
  readonly write: string
}

/**
 * An entry is a string: a line with format, epoch, lease, expiry, time of filling
 * and two lengths, then its stamps, then its value.
 */
const flat: LayoutScripts = {
  keysPerEntry: 1,
  read: `
local function read(i, stamps)
  local entry = ask("GET", KEYS[2 + i])
  if not entry then return "absent" end
  if type(entry) ~= "string" then return "undecodable" end
  local of, lease, expires, stored, skip, length, from =
    string.match(entry, "^1 (%S+) (%d+) (%d+) (%d+) (%d+) (%d+)\\n()")
  if not of or #entry ~= from - 1 + skip + length then return "undecodable" end
  if of ~= epoch then return "invalidated" end
  if now >= tonumber(expires) then return "expired" end
  local own = string.sub(entry, from, from + skip - 1)
  local latest = newest(own)
  if not latest or latest > tonumber(lease) then return "invalidated" end
  if own ~= stamps then
    -- The entry is good for those it was filled for; this caller asks for more, or for less.
    latest = newest(stamps)
    if not latest or latest > tonumber(lease) then return "invalidated" end
  end
  return "hit", string.sub(entry, from + skip), now - stored, own == stamps
end
local function sweep() end
`,
  write: `
local function write(i, stamps, field, lease, ttl, value)
  local header = table.concat({ "1", epoch, text(lease), text(now + ttl), text(now), #stamps, #value }, " ")
  redis.call("SET", KEYS[2 + i], header .. "\\n" .. stamps .. value, "PX", text(ttl))
end
`
}

const sweep = `
local function sweep(i)
  local hash, expiries = KEYS[2 * i + 1], KEYS[2 * i + 2]
  local past = ask("ZRANGEBYSCORE", expiries, "-inf", text(now), "LIMIT", 0, 16)
  if past.err or #past == 0 then return end
  redis.call("ZREM", expiries, unpack(past))
  ask("HDEL", hash, unpack(past))
end
`

/**
 * A group is a hash of entries with the same stamps and a sorted set of their
 * expiries. Its header names the epoch and the newest of its stamps. Invalidating
 * a stamp and registering one again both happen at clocks above every stamp that
 * the header was made from, unless the clock has not moved in between: so an equal
 * header means that nothing was invalidated since, and then every entry is valid.
 */
const grouped: LayoutScripts = {
  keysPerEntry: 2,
  read: `${sweep}
local function read(i, stamps, field)
  local hash, expiries = KEYS[2 * i + 1], KEYS[2 * i + 2]
  local found = ask("HMGET", hash, "h", field)
  if found.err then return "undecodable" end
  local header, entry = found[1], found[2]
  if not header then return "absent" end
  local latest = newest(stamps)
  if not latest or header ~= epoch .. ":" .. text(latest) then
    redis.call("UNLINK", hash, expiries)
    return "invalidated"
  end
  if not entry then return "absent" end
  local expires, stored, length, from = string.match(entry, "^1 (%d+) (%d+) (%d+)\\n()")
  if not expires or #entry ~= from - 1 + length then return "undecodable" end
  if now >= tonumber(expires) then return "expired" end
  return "hit", string.sub(entry, from), now - stored, true
end
`,
  // One of the two keys may have been evicted, or be something else: then their sizes do not agree.
  write: `${sweep}
local function write(i, stamps, field, lease, ttl, value)
  local hash, expiries = KEYS[2 * i + 1], KEYS[2 * i + 2]
  local header = epoch .. ":" .. text(newest(stamps))
  local current, size, count = ask("HGET", hash, "h"), ask("HLEN", hash), ask("ZCARD", expiries)
  if size ~= 0 or count ~= 0 then
    if current ~= header or type(count) ~= "number" or size ~= count + 1 then
      redis.call("UNLINK", hash, expiries)
    end
  end
  local expires = text(now + ttl)
  redis.call("HSET", hash, "h", header, field, table.concat({ "1", expires, text(now), #value }, " ") .. "\\n" .. value)
  redis.call("ZADD", expiries, expires, field)
  sweep(i)
  local last = text(tonumber(redis.call("ZRANGE", expiries, -1, -1, "WITHSCORES")[2]))
  redis.call("PEXPIREAT", hash, last)
  redis.call("PEXPIREAT", expiries, last)
end
`
}

const layouts: { readonly [layout in Layout]: LayoutScripts } = { flat, grouped }

const forLayouts = <A>(make: (layout: LayoutScripts) => A): { readonly [layout in Layout]: A } => ({
  flat: make(layouts.flat),
  grouped: make(layouts.grouped)
})

/** An entry's place among KEYS and ARGV. */
export interface EntryAddress {
  readonly keys: ReadonlyArray<string>
  /** The field in the group's hash. */
  readonly field: string
  /** Which of the sets its stamps are, from 1. */
  readonly set: number
}

/** What LOOKUP is told. Sets that several entries share are sent once. */
export interface LookupArguments {
  readonly head: Head
  readonly keys: readonly [meta: string, stamps: string]
  readonly maxDependencies: number
  readonly sets: ReadonlyArray<{ readonly stamps: string; readonly shapes: string }>
  readonly entries: ReadonlyArray<EntryAddress>
}

/**
 * LOOKUP returns `{ "found", epoch, clock, outcomes }`, an outcome being
 * `{ "hit", value, ageMillis, same }`, where `same` is 1 if the entry was filled
 * for the stamps that were asked for, or `{ "miss", reason }`.
 *
 * A hit is of this epoch, its time has not passed, and its own stamps and the
 * caller's are all present and not later than its lease. When it returns, the
 * stamps and shapes of every miss are registered, at clocks not later than the one
 * returned: so a write that comes now finds them (had STORE registered them, a
 * write between the read and the store would find nothing to mark, and the stale
 * store would be accepted).
 */
export const lookup = forLayouts((layout) =>
  Redis.script(
    (args: LookupArguments) => [
      ...args.keys,
      ...args.entries.flatMap((entry) => entry.keys),
      ...head(args.head),
      args.maxDependencies,
      args.sets.length,
      ...args.sets.flatMap((set) => [set.stamps, set.shapes]),
      ...args.entries.flatMap((entry) => [entry.set, entry.field])
    ],
    {
      numberOfKeys: (args) => 2 + args.entries.length * layout.keysPerEntry,
      lua: `${prelude}${newest}${layout.read}
local maximum, setCount = whole(ARGV[6], 1), whole(ARGV[7], 0)
local count = (#KEYS - 2) / ${layout.keysPerEntry}
if not maximum or not setCount or #ARGV ~= 7 + 2 * setCount + 2 * count then return malformed() end
for set = 1, setCount do
  for shape in string.gmatch(ARGV[7 + 2 * set], "[^\\n]+") do
    if not string.find(shape, "\\t", 2, true) then return malformed() end
  end
end
local entries = {}
for i = 1, count do
  local at = 6 + 2 * setCount + 2 * i
  local set = whole(ARGV[at], 1)
  if not set or set > setCount then return malformed() end
  entries[i] = { set = set, field = ARGV[at + 1] }
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
  redis.call("HSET", META, "s:" .. name, table.concat(shapes, "\\n"))
end

-- Stamps before shapes: a shape that leaves again within this batch must leave its stamp absent.
local function register(sets)
  local members, seen = {}, {}
  for set in pairs(sets) do
    for stamp in string.gmatch(ARGV[6 + 2 * set], "[^\\n]+") do
      if not seen[stamp] then
        seen[stamp] = true
        members[#members + 1] = stamp
      end
    end
  end
  trim(#members)
  zadd("NX", members)
  for set in pairs(sets) do
    for shape in string.gmatch(ARGV[7 + 2 * set], "[^\\n]+") do
      registerShape(string.match(shape, "^([^\\t]*)\\t(.*)$"))
    end
  end
end

if not open() then rotate(redis.call) end
local outcomes, missed = {}, {}
for i = 1, count do
  local set = entries[i].set
  local outcome, value, age, same = read(i, ARGV[6 + 2 * set], entries[i].field)
  if outcome == "hit" then
    outcomes[i] = { "hit", value, text(math.max(0, age)), same and 1 or 0 }
  else
    outcomes[i] = { "miss", outcome }
    missed[set] = true
    sweep(i)
  end
end
if next(missed) then register(missed) end
return { "found", epoch, text(clock), outcomes }
`
    }
  ).withReturnType<unknown>()
)

/** One fill. */
export interface StoreEntry extends EntryAddress {
  readonly epoch: string
  readonly lease: number
  readonly ttlMillis: number
  readonly value: string
}

/** What STORE is told. */
export interface StoreArguments {
  readonly head: Head
  readonly keys: readonly [meta: string, stamps: string]
  readonly sets: ReadonlyArray<{ readonly stamps: string }>
  readonly entries: ReadonlyArray<StoreEntry>
}

/**
 * STORE returns `{ "stored", epoch, clock, verdicts }`, a verdict being 1 where the
 * fill was accepted, or `{ "lost" }` where the metadata are, and nothing was accepted.
 *
 * Accepted means: the lease is of this epoch, and every stamp of the entry is
 * present and not later than it. STORE never writes metadata.
 */
export const store = forLayouts((layout) =>
  Redis.script(
    (args: StoreArguments) => [
      ...args.keys,
      ...args.entries.flatMap((entry) => entry.keys),
      ...head(args.head),
      args.sets.length,
      ...args.sets.map((set) => set.stamps),
      ...args.entries.flatMap((
        entry
      ) => [entry.set, entry.field, entry.epoch, entry.lease, entry.ttlMillis, entry.value])
    ],
    {
      numberOfKeys: (args) => 2 + args.entries.length * layout.keysPerEntry,
      lua: `${prelude}${newest}${layout.write}
local setCount = whole(ARGV[6], 0)
local count = (#KEYS - 2) / ${layout.keysPerEntry}
if not setCount or #ARGV ~= 6 + setCount + 6 * count then return malformed() end
local entries = {}
for i = 1, count do
  local at = 1 + setCount + 6 * i
  local set, lease, ttl = whole(ARGV[at], 1), whole(ARGV[at + 3], 0), whole(ARGV[at + 4], 1)
  if not set or set > setCount or not lease or not ttl then return malformed() end
  entries[i] = {
    stamps = ARGV[6 + set], field = ARGV[at + 1], epoch = ARGV[at + 2], lease = lease, ttl = ttl, value = ARGV[at + 5]
  }
end

if not open() then return { "lost" } end
local verdicts = {}
for i = 1, count do
  local entry = entries[i]
  local latest = entry.epoch == epoch and newest(entry.stamps)
  local accepted = latest and latest <= entry.lease
  if accepted then write(i, entry.stamps, entry.field, entry.lease, entry.ttl, entry.value) end
  verdicts[i] = accepted and 1 or 0
end
return { "stored", epoch, text(clock), verdicts }
`
    }
  ).withReturnType<unknown>()
)

/** What INVALIDATE is told. */
export interface InvalidateArguments {
  readonly head: Head
  readonly keys: readonly [meta: string, stamps: string, scratch: string]
  readonly all: boolean
  readonly stamps: string
  readonly images: string
  readonly wholes: string
  /** Groups to drop at once, which frees their memory early and decides nothing. */
  readonly groups: ReadonlyArray<string>
}

/**
 * INVALIDATE returns `{ "invalidated", epoch, clock }`.
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
export const invalidate = Redis.script(
  (args: InvalidateArguments) => [
    ...args.keys,
    ...args.groups,
    ...head(args.head),
    args.all ? 1 : 0,
    args.stamps,
    args.images,
    args.wholes
  ],
  {
    numberOfKeys: (args) => 3 + args.groups.length,
    lua: `${prelude}
if #ARGV ~= 9 then return malformed() end

local function shapesOf(name)
  local shapes = {}
  for _, line in ipairs(lines(redis.call("HGET", META, "s:" .. name) or "")) do
    local columns = {}
    for column in string.gmatch(line, "[^\\t]+") do columns[#columns + 1] = column end
    shapes[#shapes + 1] = columns
  end
  return shapes
end

local stamps, seen = {}, {}
local function mark(stamp)
  if not seen[stamp] then
    seen[stamp] = true
    stamps[#stamps + 1] = stamp
  end
end
local function markWhole(name, shape)
  mark(name .. "(" .. table.concat(shape, ",") .. ")")
end

local function markImages()
  local images = {}
  for line in string.gmatch(ARGV[8], "[^\\n]+") do
    local name, values, column = nil, {}, nil
    for cell in string.gmatch(line, "[^\\t]+") do
      if not name then name = cell
      elseif not column then column = cell
      else
        values[column] = column .. "=" .. cell
        column = nil
      end
    end
    images[name] = images[name] or {}
    table.insert(images[name], values)
  end
  for name, known in pairs(images) do
    local shapes = shapesOf(name)
    for _, shape in ipairs(shapes) do
      if #known * #shapes > 10000 then markWhole(name, shape)
      else
        for _, values in ipairs(known) do
          local cells = {}
          for c, column in ipairs(shape) do
            cells[c] = values[column]
            if not cells[c] then break end
          end
          if #cells == #shape then mark(name .. "(" .. table.concat(cells, ",") .. ")")
          else markWhole(name, shape) end
        end
      end
    end
  end
end

redis.call("DEL", KEYS[3])
-- \`open\` comes first: it tells the order that a new epoch must be above.
if not open() or ARGV[6] == "1" then rotate(redis.pcall)
else
  for stamp in string.gmatch(ARGV[7], "[^\\n]+") do mark(stamp) end
  markImages()
  for name in string.gmatch(ARGV[9], "[^\\n]+") do
    for _, shape in ipairs(shapesOf(name)) do markWhole(name, shape) end
  end
  local stamped = pcall(function()
    clock = redis.call("HINCRBY", META, "clk", 1)
    zadd("XX", stamps)
  end)
  if not stamped then rotate(redis.pcall)
  elseif #stamps > 1000 then publish(true, {})
  else publish(false, stamps) end
end
if #KEYS > 3 then redis.call("UNLINK", unpack(KEYS, 4)) end
return { "invalidated", epoch, text(clock) }
`
  }
).withReturnType<unknown>()
