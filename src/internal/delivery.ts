/**
 * How an invalidation reaches the store, and what happens until it has.
 *
 * Order of events after a write has committed:
 *
 * 1. Flights that depend on it are detached, synchronously.
 * 2. `store.invalidate`, one round trip, bounded by `invalidationTimeout`.
 * 3. Flights are detached once more: one that began between the commit and the
 *    store's answer may have found the old entry, and after the write returns
 *    nobody may join it.
 * 4. Whoever listens to changes is told.
 * 5. The write returns.
 *
 * Where step 2 fails or takes too long, the targets go to the queue. Until the
 * queue has delivered them this process serves nothing that depends on them, and
 * neither does it fill. Equal targets wait once, however many writes there were.
 * Where the store is in shards, those that have taken an invalidation are not sent
 * it again. The queue is bounded: beyond `maxGroups` groups it becomes one that stands for
 * everything.
 *
 * A session that writes is told how far the store has come by step 2, or that it has not:
 * before the write returns, and however it ends.
 *
 * A write whose outcome is unknown may become visible later, and is quarantined
 * until it cannot: `doubt/quarantine.ts`.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { CacheStore, Clocks, LogicalClock } from "../CacheStore.ts"
import * as Dependency from "../Dependency.ts"
import type { Doubt } from "./doubt/doubt.ts"
import type { Observation } from "./doubt/observe.ts"
import * as Quarantine from "./doubt/quarantine.ts"
import type { Flights } from "./flights.ts"
import type { Sessions } from "./sessions.ts"
import type { StoreHealth } from "./storeHealth.ts"
import type { Tally } from "./tally.ts"
import { Unserved } from "./unserved.ts"

export interface Delivery {
  readonly unserved: Unserved
  /** Invalidates. Never fails, and takes no longer than the time-out. Run it uninterruptibly. */
  readonly deliver: (targets: Dependency.Targets) => Effect.Effect<void>
  /** For a write that may or may not have committed. Run it uninterruptibly. */
  readonly quarantine: (targets: Dependency.Targets, doubt: Doubt) => Effect.Effect<void>
}

const maxGroups = 256

/** What waits for delivery. Equal targets have equal names. */
interface Group {
  readonly name: string
  readonly targets: Dependency.Targets
  /** The shards of the store that have it already. */
  delivered: Map<number, LogicalClock>
}

const everything = "*"

const nameOf = ({ all, images, stamps }: Dependency.Targets): string =>
  all ? everything : JSON.stringify([stamps, images.map(imageName)])

const imageName = (image: Dependency.Image): string => Dependency.rowStamp(image.table, [...image.columns])

export const make = Effect.fnUntraced(function*(options: {
  readonly namespace: string
  readonly store: CacheStore["Service"]
  readonly flights: Pick<Flights, "detach">
  readonly health: StoreHealth
  readonly tally: Tally
  readonly sessions: Pick<Sessions, "wrote">
  readonly timeoutMillis: number
  /** Tells of an invalidation that has taken effect for this process. `clocks`: as the store has them, if it has it. */
  readonly announce: (targets: Dependency.Targets, clocks: Clocks | undefined) => Effect.Effect<void>
  /** Asks the database what is under way. `undefined` where there is none that could tell. */
  readonly observe?: Effect.Effect<Observation, unknown> | undefined
  /** Tells of one that is about to be announced. */
  readonly expect?: ((targets: Dependency.Targets) => void) | undefined
}): Effect.fn.Return<Delivery, never, Scope.Scope> {
  const { flights, health, namespace, sessions, store, tally } = options
  const unserved = new Unserved()

  const send = (targets: Dependency.Targets, delivered?: Group["delivered"]) =>
    health.guard(
      "invalidate",
      () => store.invalidate({ namespace, ...targets, delivered }),
      options.timeoutMillis,
      true
    )

  let queue: Array<Group> = []
  /** The one of the queue that is under way. */
  let sending: Group | undefined
  const pending = Latch.makeUnsafe(false)

  // By table: as long as it waits, writes to other rows would each take a place of their own.
  const enqueue = (written: Dependency.Targets, delivered: Group["delivered"]) => {
    const targets = Dependency.asWholes(written)
    tally.invalidated("queued")
    const name = nameOf(targets)
    // What waits stands for this one too. What is under way may have left before this write.
    const waiting = queue.find((group) => group !== sending && (group.targets.all || group.name === name))
    if (waiting !== undefined) {
      // Shards that have the earlier one and not this one are to be asked again. A new map, since the last attempt may
      // have the old one.
      waiting.delivered = new Map([...waiting.delivered].filter(([shard]) => delivered.has(shard)))
      return
    }
    const group: Group = queue.length < maxGroups
      ? { name, targets: { ...targets }, delivered }
      : { name: everything, targets: { ...Dependency.allTargets }, delivered: new Map() }
    unserved.add(group.targets)
    if (group.name === everything) {
      for (const { targets } of queue) unserved.remove(targets)
      queue = [group]
    } else {
      queue.push(group)
    }
    tally.undelivered(queue.length)
    pending.openUnsafe()
  }

  const deliver = (targets: Dependency.Targets): Effect.Effect<void> =>
    Effect.withFiber((fiber) => {
      const delivered: Group["delivered"] = new Map()
      options.expect?.(targets)
      flights.detach(targets)
      // A store that is known to be away is left to the queue: no write waits for it.
      const sent = health.isOpen("invalidate") ? Effect.succeed(undefined) : Effect.exit(send(targets, delivered))
      return Effect.flatMap(sent, (exit) => {
        const clocks = exit !== undefined && Exit.isSuccess(exit) ? exit.value : undefined
        sessions.wrote(fiber, clocks)
        if (clocks !== undefined) tally.invalidated("delivered")
        else enqueue(targets, delivered)
        flights.detach(targets)
        return options.announce(targets, clocks)
      })
    })

  const redeliver = Effect.gen(function*() {
    yield* pending.await
    // One at a time, oldest first: what comes in meanwhile waits behind it.
    while (queue.length > 0) {
      const group = sending = queue[0]
      const exit = yield* Effect.exit(send(group.targets, group.delivered))
      sending = undefined
      const clocks = yield* exit
      flights.detach(group.targets)
      // The queue may have collapsed into one that stands for everything.
      const index = queue.indexOf(group)
      if (index >= 0) queue.splice(index, 1)
      unserved.remove(group.targets)
      tally.invalidated("redelivered")
      tally.undelivered(queue.length)
      yield* options.announce(group.targets, clocks)
    }
    pending.closeUnsafe()
  }).pipe(
    Effect.retry(
      Schedule.min([Schedule.exponential("100 millis", 2), Schedule.spaced("5 seconds")]).pipe(Schedule.jittered)
    ),
    Effect.forever
  )
  // Registered before the fibers below, hence run after they have ended: one last attempt, for all at once.
  let inDoubt: () => ReadonlyArray<Dependency.Targets> = () => []
  yield* Effect.addFinalizer(() =>
    Effect.forEach([...queue.map(({ targets }) => targets), ...inDoubt()], (targets) => Effect.exit(send(targets)), {
      concurrency: "unbounded",
      discard: true
    })
  )
  yield* Effect.forkScoped(redeliver)
  const quarantine = yield* Quarantine.make({ unserved, tally, deliver, observe: options.observe })
  inDoubt = quarantine.all

  return {
    unserved,
    deliver,
    quarantine: (targets, doubt) =>
      Effect.withFiber((fiber) => {
        sessions.wrote(fiber, undefined)
        return quarantine.add(nameOf(targets), targets, doubt)
      })
  }
})
