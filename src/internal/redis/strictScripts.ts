/**
 * The scripts by which writers put up fences, and by which what became of them is
 * told. What scripts.ts and fences.ts say of scripts holds for these.
 */
import { fences, limits } from "./fences.ts"
import { advance, marks } from "./marks.ts"
import { strict } from "./modes.ts"
import { type Head, headOf } from "./prelude.ts"
import type { Script } from "./script.ts"

type Metadata = ReadonlyArray<string>

/** `shardsUsed()`: of the first shard how many anybody uses (shards.ts), of any other 1. */
const shardsUsed = `
local function shardsUsed()
  local used = ask("HGET", META, "shards")
  return type(used) == "string" and used or "1"
end
`

/** What FENCE is told. */
export interface FenceArguments {
  readonly head: Head
  readonly keys: Metadata
  readonly token: string
  readonly transaction: string
  readonly deadlineMillis: number
  readonly all: boolean
  readonly stamps: string
  readonly images: string
  readonly wholes: string
}

/**
 * FENCE returns `{ "fenced", nonce, epoch, clock, token, transaction, shards }`, or
 * `{ "crowded", nonce }` where there are too many and none was put up. Token and transaction
 * are those of the oldest fence, if it has expired: nobody's reads may ever meet it. Shards
 * are as of INVALIDATE.
 *
 * When it returns, nothing is served or stored that depends on a stamp it was given,
 * on what an image makes of the registered shapes, or on a shape of an image's table
 * that is registered while it is up: whether the row is in there nobody would know.
 *
 * A command that is sent again finds its fence. One that comes after its invalidation
 * puts up another, which expires, and then the database says that it is not needed.
 */
export const fence: Script<FenceArguments> = {
  keys: (args) => args.keys,
  argv: (args) => [
    ...headOf(args.head),
    args.token,
    args.transaction,
    args.deadlineMillis,
    args.all ? 1 : 0,
    args.stamps,
    args.images,
    args.wholes
  ],
  lua: `${strict.prelude}${shardsUsed}${fences}${marks({ stamps: 10, images: 11, wholes: 12, maxMarks: 500 })}
local token, xid, millis = ARGV[6], ARGV[7], whole(ARGV[8], 1)
if #ARGV ~= 12 or not millis or not string.find(token, "^%S+$") or not string.find(xid, "^%d+$") then
  return malformed()
end

${strict.open}if not isGood then rotate(redis.call) end
if not fenceOf(token) then
  if fenceCount >= ${2 * limits.maxFences} then return { "crowded", NONCE } end
  local fields = { "order" }
  local all = ARGV[9] == "1" or fenceCount >= ${limits.maxFences}
  if not all then
    markAll()
    all = #stamps > ${limits.maxStamps}
  end
  if all then fields[2] = "*"
  else
    for i = 1, #stamps do fields[#fields + 1] = "s:" .. stamps[i] end
    local relations = {}
    for relation in string.gmatch("\\n" .. ARGV[11] .. "\\n" .. ARGV[12], "\\n([^\\t\\n]+)") do relations[relation] = true end
    for relation in pairs(relations) do fields[#fields + 1] = "i:" .. relation end
  end
  writeFence(token, { deadline = now + millis, xid = xid, fields = fields })
  for i = 1, #fields do addTo(fields[i], token) end
  fenceCount = redis.call("HINCRBY", FENCES, "count", 1)
end
local oldest = string.match(redis.call("HGET", FENCES, "order"), "%S+")
local transaction = askAbout(oldest)
return { "fenced", NONCE, epoch, text(clock), transaction and oldest or "", transaction or "", shardsUsed() }
`
}

/** What RESOLVE is told. */
export interface ResolveArguments {
  readonly head: Head
  readonly keys: Metadata
  readonly token: string
  readonly verdict: "committed" | "aborted" | "running"
  readonly deadlineMillis: number
}

/**
 * RESOLVE returns `{ "resolved", nonce, epoch, clock, shards }`. A fence whose transaction has
 * committed goes with an invalidation of all that it stood on, which is all that the
 * writer would have invalidated, or more; one whose transaction was rolled back goes;
 * any other gets a new deadline. One that is gone already is nobody's concern.
 */
export const resolve: Script<ResolveArguments> = {
  keys: (args) => args.keys,
  argv: (args) => [...headOf(args.head), args.token, args.verdict, args.deadlineMillis],
  lua: `${strict.prelude}${shardsUsed}${fences}
local token, verdict, millis = ARGV[6], ARGV[7], whole(ARGV[8], 1)
if #ARGV ~= 8 or not millis then return malformed() end

${strict.open}if not isGood then rotate(redis.call) end
local fence = fenceOf(token)
if fence and verdict == "running" then
  fence.deadline = now + millis
  writeFence(token, fence)
elseif fence then
  local stamps, all = {}, false
  for _, field in ipairs(fence.fields) do
    all = all or field == "*"
    stamps[#stamps + 1] = string.match(field, "^s:(.*)$")
  end
  if verdict == "committed" then
    if all then rotate(redis.pcall, true)
    else${advance}end
  end
  lift(token)
end
return { "resolved", NONCE, epoch, text(clock), shardsUsed() }
`
}

/** What BARRIER is told. */
export interface BarrierArguments {
  readonly head: Head
  readonly keys: Metadata
  /** The epoch whose barrier it is. */
  readonly epoch: string
  readonly transaction: string
  /** Whether everything has ended that began before the transaction. */
  readonly isPassed: boolean
}

/**
 * BARRIER returns `{ "barrier", nonce, epoch, clock, barrier }`: `open`, the transaction that
 * is waited for, or nothing.
 *
 * The transaction must have got its id after its epoch was known to have begun: the first
 * one that is told is kept for the epoch. One of a former epoch is refused, it may have
 * begun before what it was to wait for.
 */
export const barrier: Script<BarrierArguments> = {
  keys: (args) => args.keys,
  argv: (args) => [...headOf(args.head), args.epoch, args.transaction, args.isPassed ? 1 : 0],
  lua: `${strict.prelude}
if #ARGV ~= 8 or not string.find(ARGV[7], "^%d+$") then return malformed() end

${strict.open}if not isGood then rotate(redis.call) end
if ARGV[6] == epoch then
  if barrier == "" then
    barrier = ARGV[7]
    redis.call("HSET", FENCES, "barrier", barrier)
  end
  if ARGV[8] == "1" and barrier == ARGV[7] then
    barrier = "open"
    redis.call("HSET", FENCES, "barrier", barrier)
  end
end
return { "barrier", NONCE, epoch, text(clock), barrier }
`
}
