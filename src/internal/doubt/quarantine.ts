/**
 * Writes of which nobody knows how they ended, from then until it is known that they have.
 *
 * 1. What such a write touches is unserved: this process neither serves nor stores anything of it. It is invalidated, for
 *    those who read before what may be visible already.
 * 2. The database is asked, on a connection of the pool that is given back at once, until nothing of the write can become
 *    visible any more ({@link watch}). While it cannot be asked, nothing changes but that it is asked less often.
 * 3. What was touched is invalidated again: others may have read and stored meanwhile what is no longer true. Then it is
 *    served again.
 *
 * A database that is none that can tell gets the time of a window instead of an answer.
 *
 * Equal targets are one group, however many writes there were. Groups, and the writes of each, are bounded: beyond, one
 * group stands for everything, and one write that could be anywhere for all of its group.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import * as Dependency from "../../Dependency.ts"
import { isDenied } from "../catalog/source.ts"
import type { Tally } from "../tally.ts"
import type { Unserved } from "../unserved.ts"
import { type Doubt, type Watch, watch, windowMillis } from "./doubt.ts"
import type { Observation } from "./observe.ts"

export interface Quarantine {
  /** Puts a write in doubt. Run it uninterruptibly. */
  readonly add: (name: string, targets: Dependency.Targets, doubt: Doubt) => Effect.Effect<void>
  /** What is in doubt now. */
  readonly all: () => ReadonlyArray<Dependency.Targets>
}

const maxGroups = 256
const maxWatches = 32
const everything = "*"

const firstPauseMillis = 100
const longestPauseMillis = 5000
/** How long the database may take to answer. */
const patience = Duration.seconds(5)

interface Group {
  readonly name: string
  readonly targets: Dependency.Targets
  readonly watches: Set<Watched>
}

interface Watched {
  readonly watch: Watch
  readonly sinceMillis: number
}

export const make = Effect.fnUntraced(function*(options: {
  readonly unserved: Unserved
  readonly tally: Tally
  /** Invalidates, and never fails. */
  readonly deliver: (targets: Dependency.Targets) => Effect.Effect<void>
  /** Asks the database. `undefined` where there is none that could tell. */
  readonly observe: Effect.Effect<Observation, unknown> | undefined
}): Effect.fn.Return<Quarantine, never, Scope.Scope> {
  const { deliver, tally, unserved } = options
  const groups = new Map<string, Group>()
  const wanted = Latch.makeUnsafe(false)
  let wasUnable = false

  const groupOf = (name: string, targets: Dependency.Targets): Group => {
    let group = groups.get(name)
    if (group !== undefined) return group
    if (groups.size >= maxGroups && name !== everything) return groupOf(everything, Dependency.allTargets)
    group = { name, targets: { ...targets }, watches: new Set() }
    groups.set(name, group)
    unserved.add(group.targets)
    tally.doubts(groups.size)
    return group
  }

  const add = (name: string, targets: Dependency.Targets, doubt: Doubt): Effect.Effect<void> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const isFirst = groups.size === 0
      const { watches } = groupOf(name, targets)
      const isCrowded = watches.size >= maxWatches
      if (isCrowded) watches.clear()
      watches.add({ watch: watch(isCrowded ? { _tag: "Anything" } : doubt, now), sinceMillis: now })
      wanted.openUnsafe()
      return Effect.andThen(isFirst ? begun : Effect.void, deliver(targets))
    })

  const ask = options.observe === undefined ? undefined : Effect.exit(Effect.timeout(options.observe, patience))

  /** Asks once, and serves again what has ended. Judges what was in doubt before it asked, and nothing else. */
  const round = Effect.gen(function*() {
    const asked = [...groups.values()].map((group) => [group, [...group.watches]] as const)
    const exit = ask === undefined ? undefined : yield* ask
    const now = yield* Clock.currentTimeMillis
    const isUnable = exit === undefined || (Exit.isFailure(exit) && isDenied(exit.cause))
    if (isUnable && !wasUnable && exit !== undefined) yield* unable(exit)
    wasUnable = isUnable
    const hasEnded = ({ sinceMillis, watch }: Watched): boolean => {
      if (isUnable) return now >= sinceMillis + windowMillis
      if (Exit.isSuccess(exit)) return watch.look(exit.value)
      watch.miss(now)
      return false
    }
    for (const [{ watches }, those] of asked) {
      for (const one of those) {
        if (watches.has(one) && hasEnded(one)) watches.delete(one)
      }
    }
    yield* Effect.forEach(
      asked.filter(([{ watches }]) => watches.size === 0),
      ([group]) =>
        Effect.uninterruptible(Effect.andThen(
          deliver(group.targets),
          Effect.sync(() => {
            // Another write may have come into doubt meanwhile.
            if (group.watches.size > 0) return
            groups.delete(group.name)
            unserved.remove(group.targets)
            tally.doubts(groups.size)
          })
        )),
      { concurrency: 16, discard: true }
    )
    return now
  })

  /** When something is worth another look because of the time that has passed. */
  const dueMillis = (nowMillis: number): number => {
    let due = Infinity
    for (const { watches } of groups.values()) {
      for (const { sinceMillis, watch } of watches) {
        for (const one of [watch.dueMillis, sinceMillis + windowMillis]) {
          if (one !== undefined && one > nowMillis) due = Math.min(due, one)
        }
      }
    }
    return due
  }

  yield* Effect.forkScoped(Effect.forever(Effect.gen(function*() {
    yield* wanted.await
    let pauseMillis = firstPauseMillis
    for (;;) {
      wanted.closeUnsafe()
      const now = yield* round
      if (groups.size === 0) return yield* over
      const isNews = yield* Effect.raceFirst(
        Effect.as(Effect.sleep(Duration.millis(Math.min(pauseMillis, dueMillis(now) - now))), false),
        Effect.as(wanted.await, true)
      )
      pauseMillis = isNews ? firstPauseMillis : Math.min(pauseMillis * 2, longestPauseMillis)
      // Many writes at once are one question.
      if (isNews) yield* Effect.sleep(Duration.millis(firstPauseMillis))
    }
  })))

  return { add, all: () => Array.from(groups.values(), ({ targets }) => targets) }
})

const begun = Effect.logWarning(
  "The outcome of a write is unknown: until the database tells that it has ended, nothing that depends on it is served " +
    "from the cache"
)

const unable = (exit: Exit.Exit<unknown, unknown>) =>
  Effect.logWarning(
    `The database cannot tell whether a write has ended: what it touched is served again after ${
      windowMillis / 1000
    } seconds`,
    Exit.isFailure(exit) ? exit.cause : undefined
  )

const over = Effect.logInfo("Every write whose outcome was unknown has ended: the cache serves again what they touched")
