/**
 * A namespace in several shards, and how processes that spread it differently do not
 * serve each other anything stale.
 *
 * A shard is what shards all its keys' hash tag, so each script keeps to one slot, and
 * the shards of a namespace may lie on different nodes of a cluster. Each has its own
 * epoch and clock, which do not compare with those of another: leases, marks and beats
 * are each of one shard. An entry lies in the shard of its fingerprint, with its flight
 * and its group. Nobody knows which shards hold what depends on a table, so an
 * invalidation goes to all of them.
 *
 * To all of them that *anybody* uses, that is. During a deployment that changes the
 * number of shards, processes with both numbers run at once. All of them use the first
 * shard, whatever their number, so that is where it is kept who uses how many:
 *
 * 1. `shards`: how many anybody has used. INVALIDATE returns it, and a process that uses
 *    fewer sends it to the rest as well, before its write returns.
 * 2. `ready`: in how many of them there is nothing from before that was recorded. A
 *    process reads and fills the others only then.
 *
 * A process that uses more than are recorded (OPEN)
 *
 *     records its number ─▶ invalidates everything in the shards that are not ready ─▶ says that they are
 *
 * so what it fills there was read after the number was recorded, and every write from
 * then on goes there.
 *
 * Both are lost with the metadata of the first shard, and then a process that uses fewer
 * writes without the others. That begins an epoch. Who uses more asks again when it
 * sees one, from which reply or message soever, and in any case where the first shard
 * has not answered for a second; what is read meanwhile counts only once it has. While
 * the first shard cannot be reached no invalidation is acknowledged by anybody, so what
 * the others hold is served as before.
 *
 * Where a namespace is kept strict, a process that uses fewer may have put up a fence in the first shard alone before the
 * number was recorded. So the shards that are not ready are cleared as if they had lost everything, and what is not known
 * there is waited for at their barriers (fences.ts).
 *
 * `shards` never gets smaller: those who use fewer go on writing to all, until the
 * metadata are lost.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { CacheError, StoreUnavailable } from "../../CacheError.ts"
import type { LogicalClock } from "../../CacheStore.ts"
import { bounded, type Mode, strict } from "./modes.ts"
import type { Namespace, Openness, Shard } from "./namespace.ts"
import { type Head, headOf } from "./prelude.ts"
import type { Script } from "./script.ts"

/** How many shards there may be. */
export const maxShards = 256

/** What OPEN is told. */
export interface OpenArguments {
  readonly head: Head
  readonly keys: ReadonlyArray<string>
  readonly shards: number
  /** The epoch in which the shards that were not ready have been cleared. Empty where nothing was. */
  readonly cleared: string
}

/**
 * OPEN returns `{ "opened", nonce, epoch, clock, ready }`, of the first shard. When it returns, at least so many shards
 * are recorded as used.
 */
const openOf = (mode: Mode): Script<OpenArguments> => ({
  keys: (args) => args.keys,
  argv: (args) => [...headOf(args.head), args.shards, args.cleared],
  lua: `${mode.prelude}
local wanted = whole(ARGV[6], 1)
if not wanted or #ARGV ~= 7 then return malformed() end
${mode.open}if not isGood then rotate(redis.call) end
local kept = redis.call("HMGET", META, "shards", "ready")
local used, ready = whole(kept[1] or 1, 1) or 1, whole(kept[2] or 1, 1) or 1
if ARGV[7] == epoch and used >= wanted then ready = math.max(ready, wanted) end
if used < wanted or ready ~= tonumber(kept[2] or 1) then
  redis.call("HSET", META, "shards", text(math.max(used, wanted)), "ready", text(ready))
end
return { "opened", NONCE, epoch, text(clock), text(ready) }
`
})

export const open = openOf(bounded)

export const openStrict = openOf(strict)

export interface Opened {
  readonly at: LogicalClock
  readonly ready: number
}

/** What INVALIDATE has answered. */
export interface Invalidated {
  readonly at: LogicalClock
  /** How many shards anybody uses, of the first one. */
  readonly shards: number
}

/**
 * Asks several shards at once, and with the first one, which alone knows of them, those that other processes use besides.
 * All of them are asked, whatever one says: none gives up what another one has done. `done` is told of each that has
 * answered, its company included.
 */
export const inAll = Effect.fnUntraced(function*<A extends { readonly shards: number }>(
  namespace: Namespace,
  shards: ReadonlyArray<Shard>,
  ask: (shard: Shard) => Effect.Effect<A, CacheError>,
  done: (shard: Shard, answer: A) => void = () => {}
) {
  const own = namespace.shards.length
  const exits = yield* Effect.forEach(
    shards,
    (shard) =>
      Effect.exit(Effect.flatMap(ask(shard), (answer) =>
        Effect.map(
          Effect.forEach(
            Array.from({ length: answer.shards - own }, (_, i) => namespace.shardAt(own + i)),
            ask,
            { concurrency: "unbounded" }
          ),
          (others) => {
            done(shard, answer)
            return { answer, others }
          }
        ))),
    { concurrency: "unbounded" }
  )
  const answers: Array<{ readonly answer: A; readonly others: ReadonlyArray<A> }> = []
  for (const exit of exits) answers.push(yield* exit)
  return answers
})

/**
 * Invalidates in every shard that has not been `delivered` to before. Answers with the clocks of those that others use
 * besides, too: a session may go on there.
 */
export const invalidateAll = Effect.fnUntraced(function*(
  namespace: Namespace,
  delivered: Map<number, LogicalClock> = new Map(),
  invalidate: (shard: Shard) => Effect.Effect<Invalidated, CacheError>
) {
  const answers = yield* inAll(
    namespace,
    namespace.shards.filter(({ index }) => !delivered.has(index)),
    invalidate,
    ({ index }, { at }) => delivered.set(index, at)
  )
  return [
    ...namespace.shards.map(({ index }) => delivered.get(index)!),
    ...answers.flatMap(({ others }) => others.map(({ at }) => at))
  ]
})

// How often the epoch may change while shards are opened.
const maxAttempts = 8

// For so long what the first shard has said is relied on.
const confirmMillis = 1_000

/** Keeps what is asked of a shard from counting before the shard may be used. */
export const makeGuard = (options: {
  readonly open: (first: Shard, shards: number, cleared: string) => Effect.Effect<Opened, CacheError>
  /** Invalidates everything in a shard, as if it had lost what it knew: kept strict, it is behind its barrier. */
  readonly clear: (shard: Shard) => Effect.Effect<unknown, CacheError>
}) => {
  const opening = new Map<Namespace, Fiber.Fiber<void, CacheError>>()

  const openAnew = Effect.fnUntraced(function*(namespace: Namespace) {
    const { shards } = namespace
    let cleared = ""
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      const { at, ready } = yield* options.open(shards[0], shards.length, cleared)
      // Another reply may have told of a later epoch meanwhile.
      if (shards[0].seen?.epoch !== at.epoch) continue
      if (ready >= shards.length) {
        namespace.opened = { epoch: at.epoch, atMillis: yield* Clock.currentTimeMillis, isUnconfirmed: false }
        return
      }
      yield* Effect.forEach(shards.slice(ready), options.clear, { concurrency: "unbounded", discard: true })
      cleared = at.epoch
    }
    return yield* Effect.fail(
      new CacheError({
        operation: "lookup",
        reason: new StoreUnavailable({ message: "The first shard begins one epoch after the other" })
      })
    )
  })

  /** One at a time for all who need it, and nobody's in particular. */
  const opened = (namespace: Namespace): Effect.Effect<void, CacheError> =>
    Effect.suspend(() => {
      let fiber = opening.get(namespace)
      if (fiber === undefined) {
        opening.set(namespace, fiber = Effect.runFork(openAnew(namespace)))
        fiber.addObserver(() => opening.delete(namespace))
      }
      return Fiber.join(fiber)
    })

  /** What could not be confirmed is as it was, and is not waited for again until it can. */
  const confirm = (namespace: Namespace, { epoch, isUnconfirmed }: Openness): Effect.Effect<void> => {
    const attempt = opened(namespace).pipe(
      Effect.timeoutOrElse({ duration: confirmMillis, orElse: () => Effect.fail("hangs") }),
      Effect.catch(() =>
        Effect.map(Clock.currentTimeMillis, (atMillis) => {
          if (namespace.opened?.epoch === epoch) namespace.opened = { epoch, atMillis, isUnconfirmed: true }
        })
      )
    )
    return isUnconfirmed ? Effect.sync(() => Effect.runFork(attempt)) : attempt
  }

  return <A>(shard: Shard, ask: Effect.Effect<A, CacheError>): Effect.Effect<A, CacheError> =>
    shard.index === 0 ? ask : Effect.gen(function*() {
      const { namespace } = shard
      for (;;) {
        const before = namespace.opened
        if (before === undefined) {
          yield* opened(namespace)
          continue
        }
        const elapsedMillis = (yield* Clock.currentTimeMillis) - before.atMillis
        const isRecent = elapsedMillis >= 0 && elapsedMillis < confirmMillis
        const [answer] = yield* Effect.all([ask, isRecent ? Effect.void : confirm(namespace, before)], {
          concurrency: 2
        })
        if (namespace.opened?.epoch === before.epoch) return answer
      }
    })
}
