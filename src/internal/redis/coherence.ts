/**
 * The scripts by which a process knows whether what it holds itself may be served.
 * What scripts.ts says of scripts holds for these.
 */
import { bounded, type Mode, strict } from "./modes.ts"
import { type Head, headOf, prelude } from "./prelude.ts"
import type { Script } from "./script.ts"

type Metadata = ReadonlyArray<string>

/** What BEAT is told. */
export interface BeatArguments {
  readonly head: Head
  readonly keys: Metadata
}

/**
 * BEAT returns `{ "beaten", nonce, epoch, clock }`, and publishes the same on the
 * channel of the invalidations, behind all that were acknowledged before.
 *
 * Like INVALIDATE it first asks for a write. So its answer means that a write would be
 * marked here now: a server that refuses writes and still answers reads, a deposed
 * primary say, does not beat.
 */
export const beat: Script<BeatArguments> = {
  keys: (args) => args.keys,
  argv: (args) => headOf(args.head),
  lua: `${prelude}
if #ARGV ~= 5 then return malformed() end
redis.call("DEL", KEYS[3])
if not open() then rotate(redis.call) end
redis.call("PUBLISH", CHANNEL, table.concat({ "1", NAMESPACE, epoch, text(clock), "b", NONCE }, "\\t"))
return { "beaten", NONCE, epoch, text(clock) }
`
}

/** What HOLD is told: under which lease a process holds a value with the stamps of which set. */
export interface HoldArguments {
  readonly head: Head
  readonly keys: Metadata
  readonly sets: ReadonlyArray<{ readonly stamps: string }>
  readonly entries: ReadonlyArray<{ readonly set: number; readonly epoch: string; readonly lease: number }>
}

/**
 * HOLD returns `{ "held", nonce, epoch, clock, verdicts }`, a verdict being 1 where
 * the lease is of this epoch and every stamp is present and not later than it: what
 * LOOKUP asks of an entry, without the entry. `{ "lost", nonce }` where the metadata
 * are, and nothing holds. It asks for a write, as BEAT does.
 */
const holdOf = (mode: Mode): Script<HoldArguments> => ({
  keys: (args) => args.keys,
  argv: (args) => [
    ...headOf(args.head),
    args.sets.length,
    ...args.sets.map((set) => set.stamps),
    ...args.entries.flatMap((entry) => [entry.set, entry.epoch, entry.lease])
  ],
  lua: `${mode.prelude}${mode.newest}
local setCount = whole(ARGV[6], 0)
local count = setCount and (#ARGV - 6 - setCount) / 3
if not count or count < 0 or count % 1 ~= 0 then return malformed() end
local entries = {}
for i = 1, count do
  local at = 4 + setCount + 3 * i
  local set, lease = whole(ARGV[at], 1), whole(ARGV[at + 2], 0)
  if not set or set > setCount or not lease then return malformed() end
  entries[i] = { stamps = ARGV[6 + set], epoch = ARGV[at + 1], lease = lease }
end

${mode.probe}
${mode.open}if not isGood then return { "lost", NONCE } end
local verdicts = {}
for i = 1, count do
  local entry = entries[i]
  local latest = entry.epoch == epoch and newest(entry.stamps)
  verdicts[i] = latest and latest <= entry.lease and 1 or 0
end
return { "held", NONCE, epoch, text(clock), verdicts }
`
})

export const hold = holdOf(bounded)

/** HOLD where the namespace is kept strict: nothing holds that is fenced. */
export const holdStrict = holdOf(strict)
