/**
 * What the scripts have in common. Their invariants are told in scripts.ts.
 */

/** What every script is told. */
export interface Head {
  /** Unique to this call: its reply names it, and it becomes part of an epoch if one begins. */
  readonly nonce: string
  /** The highest clock this process has seen, with an empty epoch where it has seen none. */
  readonly seenEpoch: string
  readonly seenClock: number
  readonly channel: string
  readonly namespace: string
}

export const headOf = (
  head: Head
): ReadonlyArray<string | number> => [head.nonce, head.seenEpoch, head.seenClock, head.channel, head.namespace]

const ask = `
-- A key of the wrong type is a loss like any other. Other errors, a missing right say, are not.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) == "table" and reply.err and not string.find(reply.err, "WRONGTYPE", 1, true) then
    return redis.call(...)
  end
  return reply
end
`

/** Begins what is behind the order in the epochs of a namespace that is kept strict: whoever reads one knows. */
export const strictMark = "strict."

/** Whether an epoch is one of a namespace that is kept strict. */
export const isStrict = (epoch: string): boolean => epoch.startsWith(strictMark, epoch.indexOf("-") + 1)

// One that keeps what it finds as bounded leaves strict what others keep strict.
const nameOfEpoch = `(string.match(epoch or SEEN, "^%d+%-(strict%.)") or "") .. NONCE`

/** What is otherwise where a namespace is kept strict. */
export interface Additions {
  /** Asks for a write, and whatever else comes before the metadata are read. */
  readonly first: string
  /** Whether the metadata are good is judged by this at last. */
  readonly good: string
  /** What begins with an epoch. */
  readonly begun: string
}

// What each script begins with. `open` reads the metadata and says whether they are
// good, `rotate` begins an epoch. Both set `epoch` and `clock`.
export const preludeOf = (strict?: Additions): string =>
  `${ask}
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

local epoch, clock, order
${strict?.first ?? ""}
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
  return ${strict === undefined ? "" : `${strict.good} and `}redis.call("HLEN", META) < 10000
end

local function publish(all, stamps)
  redis.call("PUBLISH", CHANNEL, table.concat({
    "1", NAMESPACE, epoch, text(clock), all and "*" or "", table.concat(stamps, "\\t")
  }, "\\t"))
end

-- UNLINK is allowed when memory is short, and invalidates everything whether or not the rest succeeds.
local function rotate(write, keepsFences)
  order = math.max(micros, (order or 0) + 1, (seenOrder or 0) + 1)
  epoch, clock = text(order) .. "-" .. ${strict === undefined ? nameOfEpoch : "NONCE"}, 0
  local shards = ask("HMGET", META, "shards", "ready")
  redis.call("UNLINK", META, STAMPS)${strict?.begun ?? ""}
  write("HSET", META, "epoch", epoch, "clk", "0", "replid", replid or "")
  if shards[1] then write("HSET", META, "shards", shards[1], "ready", shards[2] or "1") end
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

export const prelude = preludeOf()

/** `newest(stamps)`: the latest clock among them, or false where one is absent. `forget` when some were registered. */
export const newest = `
local known = {}
local function forget() known = {} end
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

/**
 * `settle(key, token, millis)`: ends the flight under a key if it is still the one of this token. An owner that comes
 * late must not end its successor's. What stays for so many milliseconds, if any do, is that nobody is to be waited for.
 *
 * `DEL` first: it is allowed when memory is short, and lets the rest of the script be.
 */
export const settle = `
local function settle(key, token, millis)
  if token == "" then return end
  local held = ask("GET", key)
  if type(held) ~= "string" or string.match(held, "^(%S+) ") ~= token then return end
  redis.call("DEL", key)
  if millis > 0 then redis.call("SET", key, "-", "PX", millis) end
end
`

/** The same for a script without the prelude. */
export const settleAlone = `${ask}${settle}`
