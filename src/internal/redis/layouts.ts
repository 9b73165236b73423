/**
 * How entries lie in Redis, as the scripts read and write them.
 *
 * The keys of an entry are its flight's, then those of its layout: `keyOf(i, 1)` is
 * the flight of entry i, `keyOf(i, 2)` the first of its layout.
 */

/** A key for each entry, or those with the same dependencies together in a hash. */
export type Layout = "flat" | "grouped"

export interface LayoutScripts {
  readonly keysPerEntry: number
  /**
   * Defines `read(i, stamps, field, maxAge)`: an outcome `{ "hit" or "stale", value, age, time to live, cost, whether
   * it was filled for these stamps }`, or why there is none.
   */
  readonly read: string
  /** Defines `write(i, entry)`, which overwrites whatever is there. */
  readonly write: string
}

const keyOf = (metadataKeys: number, keysPerEntry: number): string => `
local function keyOf(i, n) return KEYS[${metadataKeys} + (i - 1) * ${keysPerEntry} + n] end
`

// What is valid is a hit or stale. An entry from the future was stored before somebody set the clock back: nobody
// knows how old it is.
const judge = `
local function judge(value, fresh, stored, cost, same, maxAge)
  local age = now - stored
  local young = now < tonumber(fresh) and age >= 0 and age < maxAge
  return { young and "hit" or "stale", value, text(age), text(fresh - stored), cost, same and 1 or 0 }
end
`

/**
 * An entry is a string: a line with format, epoch, lease, the times until which it
 * is kept and fresh and of its filling, what it cost, and two lengths; then its
 * stamps, then its value.
 */
const flat = (metadataKeys: number): LayoutScripts => ({
  keysPerEntry: 2,
  read: `${keyOf(metadataKeys, 2)}${judge}
local function read(i, stamps, field, maxAge)
  local entry = ask("GET", keyOf(i, 2))
  if not entry then return "absent" end
  if type(entry) ~= "string" then return "undecodable" end
  local of, lease, kept, fresh, stored, cost, skip, length, from =
    string.match(entry, "^1 (%S+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)\\n()")
  if not of or #entry ~= from - 1 + skip + length then return "undecodable" end
  if of ~= epoch then return "invalidated" end
  if now >= tonumber(kept) then return "expired" end
  local own = string.sub(entry, from, from + skip - 1)
  local latest = newest(own)
  if not latest or latest > tonumber(lease) then return "invalidated" end
  if own ~= stamps then
    -- The entry is good for those it was filled for; this caller asks for more, or for less.
    latest = newest(stamps)
    if not latest or latest > tonumber(lease) then return "invalidated" end
  end
  return judge(string.sub(entry, from + skip), fresh, stored, cost, own == stamps, maxAge)
end
local function sweep() end
`,
  write: `${keyOf(metadataKeys, 2)}
local function write(i, entry)
  local fresh = now + entry.ttl
  local header = table.concat({
    "1", epoch, text(entry.lease), text(fresh + entry.retain), text(fresh), text(now), text(entry.cost),
    #entry.stamps, #entry.value
  }, " ")
  redis.call("SET", keyOf(i, 2), header .. "\\n" .. entry.stamps .. entry.value, "PX", text(entry.ttl + entry.retain))
end
`
})

const sweep = `
local function sweep(i)
  local hash, expiries = keyOf(i, 2), keyOf(i, 3)
  local past = ask("ZRANGEBYSCORE", expiries, "-inf", text(now), "LIMIT", 0, 16)
  if past.err or #past == 0 then return end
  redis.call("ZREM", expiries, unpack(past))
  ask("HDEL", hash, unpack(past))
end
`

/**
 * A group is a hash of entries with the same stamps and a sorted set of the times
 * until which they are kept. Its header names the epoch and the newest of its
 * stamps. Invalidating a stamp and registering one again both happen at clocks above
 * every stamp that the header was made from, unless the clock has not moved in
 * between: so an equal header means that nothing was invalidated since, and then
 * every entry is valid.
 */
const grouped = (metadataKeys: number): LayoutScripts => ({
  keysPerEntry: 3,
  read: `${keyOf(metadataKeys, 3)}${judge}${sweep}
local function read(i, stamps, field, maxAge)
  local hash, expiries = keyOf(i, 2), keyOf(i, 3)
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
  local kept, fresh, stored, cost, length, from = string.match(entry, "^1 (%d+) (%d+) (%d+) (%d+) (%d+)\\n()")
  if not kept or #entry ~= from - 1 + length then return "undecodable" end
  if now >= tonumber(kept) then return "expired" end
  return judge(string.sub(entry, from), fresh, stored, cost, true, maxAge)
end
`,
  // One of the two keys may have been evicted, or be something else: then their sizes do not agree.
  write: `${keyOf(metadataKeys, 3)}${sweep}
local function write(i, entry)
  local hash, expiries = keyOf(i, 2), keyOf(i, 3)
  local header = epoch .. ":" .. text(newest(entry.stamps))
  local current, size, count = ask("HGET", hash, "h"), ask("HLEN", hash), ask("ZCARD", expiries)
  if size ~= 0 or count ~= 0 then
    if current ~= header or type(count) ~= "number" or size ~= count + 1 then
      redis.call("UNLINK", hash, expiries)
    end
  end
  local fresh = now + entry.ttl
  local kept = text(fresh + entry.retain)
  local line = table.concat({ "1", kept, text(fresh), text(now), text(entry.cost), #entry.value }, " ")
  redis.call("HSET", hash, "h", header, entry.field, line .. "\\n" .. entry.value)
  redis.call("ZADD", expiries, kept, entry.field)
  sweep(i)
  local last = text(tonumber(redis.call("ZRANGE", expiries, -1, -1, "WITHSCORES")[2]))
  redis.call("PEXPIREAT", hash, last)
  redis.call("PEXPIREAT", expiries, last)
end
`
})

/** `metadataKeys`: how many keys a script has before those of entries. */
export const forLayouts = <A>(
  metadataKeys: number,
  make: (layout: LayoutScripts) => A
): { readonly [layout in Layout]: A } => ({
  flat: make(flat(metadataKeys)),
  grouped: make(grouped(metadataKeys))
})
