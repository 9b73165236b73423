/**
 * What the scripts have in common where a namespace is kept strict: fences and the
 * barrier.
 *
 * A namespace that is kept strict owns a third key without TTL, a hash:
 *
 * - `epoch`: the one of the metadata, or the fences count as lost;
 * - `barrier`: absent while an epoch is new; the id of a transaction, once one is
 *   known that began after the epoch did; `open`, once all that began before that one
 *   have ended;
 * - `t:<token>`: a fence: its deadline, its transaction, and a line for each of the
 *   fields below that name it;
 * - `s:<stamp>`, `i:<table>`, `*`, `order`: the tokens of the fences on a stamp; on
 *   whatever shape of a table is registered from now on; on everything; of all
 *   fences, the oldest first;
 * - `count`: how many fences there are.
 *
 * Invariants, besides those of scripts.ts:
 *
 * 7. While a fence is up nothing that depends on its stamps is served or stored. It
 *    goes with the invalidation of its writer, by whoever has asked the database what
 *    became of its transaction, or with everything: never by the time.
 * 8. Whatever is lost begins an epoch, and in a new epoch nothing is served or stored
 *    until the barrier is open: until every transaction that may have had a fence in
 *    the epoch before has ended. An epoch that begins without a loss, because
 *    everything was invalidated, keeps its fences and its barrier.
 * 9. Every script asks for a write first. A primary that was deposed, and refuses
 *    writes by `min-replicas-to-write`, serves nothing.
 */
import type { Additions } from "./prelude.ts"

/** From so many fences on, each one more is one on everything. With twice as many none is put up. */
const maxFences = 1000

/** A fence on more stamps is one on everything. */
const maxStamps = 5000

/** For how long whoever is told of an expired fence is left alone to find out about it. */
const askingMillis = 2000

/** No deadline is as far away: a clock was set back. */
const maxDeadlineMillis = 60_000

const refusal = (text: string): string => `return redis.error_reply("CONSISTENCY effect-query-cache: ${text}")`

/** Asks for a write that changes nothing. What follows it is let pass, be memory short. */
const probe = `ask("HDEL", FENCES, "")`

/** As `probe`, for what is not to pass where memory is short: no stamp is empty. */
const roomyProbe = `ask("ZADD", STAMPS, "XX", 0, "")`

const additionsOf = (probe: string): Additions => ({
  first: `
if not replid then
  ${refusal("strict is refused, since this Redis does not tell its replication id (INFO replication)")}
end
local FENCES = KEYS[3]
${probe}
local barrier, fenceCount

local function hasFences()
  local state = ask("HMGET", FENCES, "epoch", "barrier", "count")
  if state.err or state[1] ~= epoch then return false end
  barrier, fenceCount = state[2] or "", whole(state[3] or "0", 0)
  return fenceCount ~= nil
end
`,
  good: `string.find(epoch, "^%d+%-strict%.") and hasFences()`,
  begun: `
  if not keepsFences then
    redis.call("UNLINK", FENCES)
    barrier, fenceCount = "", 0
  end
  write("HSET", FENCES, "epoch", epoch)`
})

/** `barrier` and `fenceCount` are known with the metadata. */
export const additions = additionsOf(probe)

/** The same for STORE, which else would fill a Redis beyond its `maxmemory`. */
export const roomyAdditions = additionsOf(roomyProbe)

/** Opens the metadata, of a namespace that is not kept otherwise. */
export const open = `
local isGood = open()
if epoch and orderOf(epoch) and not string.find(epoch, "^%d+%-strict%.") then
  ${refusal("the namespace is kept bounded: use another one, or stop who keeps it so and delete its key 'meta'")}
end
`

/** `fenceOf`, `writeFence`, `addTo`, `lift`; `askAbout(token)`: its transaction, if it has expired and nobody else asks. */
export const fences = `
local function fenceOf(token)
  local record = redis.call("HGET", FENCES, "t:" .. token)
  if not record then return nil end
  local fields = lines(record)
  local deadline, xid = string.match(table.remove(fields, 1), "^(%d+) (%d+)$")
  return { deadline = tonumber(deadline), xid = xid, fields = fields }
end

local function writeFence(token, fence)
  local line = text(fence.deadline) .. " " .. fence.xid .. "\\n"
  redis.call("HSET", FENCES, "t:" .. token, line .. table.concat(fence.fields, "\\n"))
end

local function addTo(field, token)
  local listed = redis.call("HGET", FENCES, field)
  redis.call("HSET", FENCES, field, listed and listed .. " " .. token or token)
end

local function lift(token)
  local fence = fenceOf(token)
  if not fence then return end
  for _, field in ipairs(fence.fields) do
    local others = {}
    for other in string.gmatch(redis.call("HGET", FENCES, field) or "", "%S+") do
      if other ~= token then others[#others + 1] = other end
    end
    if #others == 0 then redis.call("HDEL", FENCES, field)
    else redis.call("HSET", FENCES, field, table.concat(others, " ")) end
  end
  redis.call("HDEL", FENCES, "t:" .. token)
  fenceCount = redis.call("HINCRBY", FENCES, "count", -1)
end

local function askAbout(token)
  local fence = fenceOf(token)
  if not fence or now < fence.deadline and fence.deadline - now <= ${maxDeadlineMillis} then return nil end
  fence.deadline = now + ${askingMillis}
  writeFence(token, fence)
  return fence.xid
end
`

/**
 * `bypass(stamps)`: why nothing is served or stored that depends on them, if so; `newest`, for which what is fenced is
 * absent; `fenceShape`, for a shape that is registered while fences are up.
 */
export const judge = `${fences}
local fenced = {}
local function tokensOn(stamps)
  if fenceCount == 0 then return false end
  local tokens = fenced[stamps]
  if tokens ~= nil then return tokens end
  local seen = {}
  tokens = {}
  local function add(listed)
    for token in string.gmatch(listed or "", "%S+") do
      if not seen[token] then
        seen[token] = true
        tokens[#tokens + 1] = token
      end
    end
  end
  local fields = { "*" }
  for stamp in string.gmatch(stamps, "[^\\n]+") do fields[#fields + 1] = "s:" .. stamp end
  for from = 1, #fields, CHUNK do
    local listed = redis.call("HMGET", FENCES, unpack(fields, from, math.min(from + CHUNK - 1, #fields)))
    for i = 1, #listed do add(listed[i] or nil) end
  end
  fenced[stamps] = #tokens > 0 and tokens
  return fenced[stamps]
end

local function bypass(stamps)
  if barrier ~= "open" then return { "closed", barrier } end
  local tokens = tokensOn(stamps)
  if not tokens then return nil end
  local outcome = { "fenced" }
  for i = 1, #tokens do
    if #outcome > 8 then break end
    local xid = askAbout(tokens[i])
    if xid then outcome[#outcome + 1] = { tokens[i], xid } end
  end
  return outcome
end

local newestStamp, forgetStamps = newest, forget
local function newest(stamps)
  if tokensOn(stamps) then return false end
  return newestStamp(stamps)
end
local function forget()
  forgetStamps()
  fenced = {}
end

local function fenceShape(relation, columns)
  if fenceCount == 0 then return end
  local field = "s:" .. relation .. "(" .. string.gsub(columns, "\\t", ",") .. ")"
  for token in string.gmatch(redis.call("HGET", FENCES, "i:" .. relation) or "", "%S+") do
    local fence = fenceOf(token)
    local isNamed = not fence
    for _, other in ipairs(fence and fence.fields or {}) do isNamed = isNamed or other == field end
    if not isNamed then
      fence.fields[#fence.fields + 1] = field
      writeFence(token, fence)
      addTo(field, token)
    end
  end
end
`

export const limits = { maxFences, maxStamps }
