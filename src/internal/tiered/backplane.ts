/**
 * How a process hears of the invalidations of all others: one subscription for all
 * namespaces, and beats by which it knows that it still hears.
 *
 * A subscription that ends is begun again after 0.1 to 5 seconds, without end. One that
 * has become deaf, where beats are answered but none returns, is ended first: a
 * connection that is half open says nothing of it.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { CacheError, StoreTimeout } from "../../CacheError.ts"
import { apart } from "../apart.ts"
import type { MemoryTable } from "../memoryTable.ts"
import * as Replies from "../redis/replies.ts"
import type { RedisOperations } from "../redis/store.ts"
import * as Wire from "../redis/wire.ts"
import type { Changes } from "./changes.ts"
import { type Moment, momentOf, Plane } from "./plane.ts"

export interface Backplane {
  /** The planes of a namespace, by shard; beats for them from now on. */
  readonly planesOf: (namespace: string) => Planes
  /** The planes of a namespace that somebody has asked for before. */
  readonly find: (namespace: string) => Planes | undefined
  /** Asks for a beat at once, and waits until Redis has accepted it. For the latest plane of a shard. */
  readonly prove: (plane: Plane) => Effect.Effect<unknown, CacheError>
}

export type Planes = ReadonlyArray<Plane>

// A namespace that nobody has used during so many beats is forgotten, unless somebody listens to changes.
const idleBeats = 100

/** How many beats are sent while what they tell is good. */
const beatsPerStaleness = 3

const pauseOf = (failures: number): Duration.Duration => Duration.millis(Math.min(100 * 2 ** failures, 5_000))

export const make = Effect.fnUntraced(function*(options: {
  readonly redis: Redis.Redis["Service"]
  readonly channel: string
  readonly shared: RedisOperations & { readonly shards: number }
  readonly table: MemoryTable
  readonly maxStalenessMillis: number
  readonly changes: Changes
}): Effect.fn.Return<Backplane, never, Scope.Scope> {
  const { changes, channel, maxStalenessMillis, redis, shared, table } = options
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const fork = Effect.runForkWith(context)
  const groups = new Map<string, Group>()
  let session: Session | undefined

  /** Asks for a beat, unless one is on its way. */
  const beat = (member: Member): Fiber.Fiber<unknown, CacheError> => member.beating ?? beatAnew(member)

  /** One that is on its way may have been published already, before anybody listened. */
  const beatAnew = (member: Member): Fiber.Fiber<unknown, CacheError> => {
    const { plane } = member
    const moment = momentOf(clock)
    const { nonce, sent } = shared.beat(plane.namespace, plane.shard)
    plane.sent(nonce, moment)
    const beating = fork(
      // A client that hangs must not keep the next beat from being sent.
      Effect.timeoutOrElse(apart(sent), {
        duration: Duration.millis(maxStalenessMillis),
        orElse: () =>
          Effect.fail(
            new CacheError({ operation: "lookup", reason: new StoreTimeout({ timeoutMillis: maxStalenessMillis }) })
          )
      })
    )
    member.beating = beating
    beating.addObserver((exit) => {
      if (member.beating === beating) member.beating = undefined
      if (Exit.isSuccess(exit)) plane.accepted(moment)
    })
    return beating
  }

  const planesOf = (namespace: string): Planes => {
    let group = groups.get(namespace)
    if (group === undefined) {
      const members = Array.from({ length: shared.shards }, (_, shard): Member => ({
        plane: new Plane({ namespace, shard, table, clock, maxStalenessMillis, changes }),
        beating: undefined
      }))
      groups.set(namespace, group = { members, planes: members.map(({ plane }) => plane), idle: 0 })
      members.forEach(beat)
    }
    return group.planes
  }

  const beatAll = Effect.sync(() => {
    for (const [namespace, group] of groups) {
      group.idle = group.planes.some((plane) => plane.wasUsed) ? 0 : group.idle + 1
      const isForgotten = group.idle >= idleBeats && !changes.isListenedTo
      if (isForgotten) groups.delete(namespace)
      for (const member of group.members) {
        const { plane } = member
        plane.wasUsed = false
        if (isForgotten) {
          plane.lose()
          continue
        }
        beat(member)
        if (session !== undefined && plane.isDeaf(session.since)) Deferred.doneUnsafe(session.deaf, Effect.void)
      }
    }
  })

  const beatAllAnew = () => {
    for (const { members } of groups.values()) members.forEach(beatAnew)
  }

  const lose = () => {
    for (const { planes } of groups.values()) {
      for (const plane of planes) plane.lose()
    }
  }

  const hear = (text: string): void => {
    const message = Wire.message(text)
    if (message === undefined) {
      // Of whom it tells nobody knows.
      lose()
      beatAllAnew()
      return
    }
    // Others may spread the namespace over more shards: what they hold there is not held here.
    const plane = groups.get(message.namespace)?.planes[message.shard]
    if (plane === undefined) return
    plane.hear(message)
    shared.saw(message.namespace, message.shard, message)
  }

  let failures = 0
  let isSilent = false
  const silent = (reason: string) =>
    Effect.suspend(() => {
      if (isSilent) return Effect.void
      isSilent = true
      return Effect.logWarning(
        `The subscription to invalidations has ended (${reason}); Redis answers until it is back`
      )
    })
  const heard = Effect.suspend(() => {
    failures = 0
    if (!isSilent) return Effect.void
    isSilent = false
    return Effect.logInfo("The subscription to invalidations is back")
  })

  // Subscribed first, then the beats that tell from where on: what comes between is not lost.
  const listen = Effect.scoped(Effect.gen(function*() {
    const queue = yield* redis.subscribe(channel)
    const deaf = Deferred.makeUnsafe<void>()
    session = { since: momentOf(clock), deaf }
    beatAllAnew()
    const messages = Effect.forever(Effect.flatMap(Queue.takeAll(queue), (messages) => {
      for (const { message } of messages) hear(message)
      return heard
    }))
    yield* Effect.raceFirst(messages, Deferred.await(deaf))
  })).pipe(
    Effect.onExit(() =>
      Effect.sync(() => {
        session = undefined
        lose()
      })
    )
  )
  const listening = listen.pipe(
    Effect.matchCauseEffect({
      onSuccess: () => silent("it has become deaf"),
      onFailure: (cause) => {
        const error = Cause.squash(cause)
        return silent(error instanceof Redis.RedisError ? Replies.reasonOf(error)._tag : "it died")
      }
    }),
    Effect.andThen(Effect.suspend(() => Effect.sleep(pauseOf(failures++)))),
    Effect.forever
  )
  // A client may not let go of a subscription that it is about to begin: nobody waits for that.
  yield* Effect.acquireRelease(
    Effect.sync(() => fork(listening)),
    (fiber) => Effect.sync(() => fiber.interruptUnsafe())
  )
  yield* Effect.sleep(Duration.millis(maxStalenessMillis / beatsPerStaleness)).pipe(
    Effect.andThen(beatAll),
    Effect.forever,
    Effect.forkScoped
  )

  return {
    planesOf,
    find: (namespace) => groups.get(namespace)?.planes,
    prove: (plane) => Fiber.join(beat(groups.get(plane.namespace)!.members[plane.shard]))
  }
})

interface Member {
  readonly plane: Plane
  beating: Fiber.Fiber<unknown, CacheError> | undefined
}

/** The shards of a namespace. */
interface Group {
  readonly members: ReadonlyArray<Member>
  readonly planes: Planes
  /** During how many beats nobody has asked. */
  idle: number
}

/** A subscription that stands, and what ends it when it is deaf. */
interface Session {
  readonly since: Moment
  readonly deaf: Deferred.Deferred<void>
}
