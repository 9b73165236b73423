/**
 * The store in Redis: what its operations ask of the scripts.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Redis from "effect/persistence/Redis"
import * as Stream from "effect/Stream"
import { CacheError, ConsistencyRefused, InvalidOptionError, InvalidReply } from "../../CacheError.ts"
import type {
  Bypass,
  CacheKey,
  CacheStore,
  Heirs,
  InvalidateRequest,
  Invalidation,
  Lease,
  LogicalClock,
  LookupRequest,
  Outcome,
  StoreRequest
} from "../../CacheStore.ts"
import * as Dependency from "../../Dependency.ts"
import * as Epoch from "../epoch.ts"
import { makeNonces } from "../nonces.ts"
import * as Coalesce from "./coalesce.ts"
import * as Coherence from "./coherence.ts"
import type { Layout } from "./layouts.ts"
import { Namespace, Sets, type Shard } from "./namespace.ts"
import { type Head, isStrict as isStrictEpoch, strictMark } from "./prelude.ts"
import * as Replies from "./replies.ts"
import * as Script from "./script.ts"
import * as Scripts from "./scripts.ts"
import * as Shards from "./shards.ts"
import * as StrictStore from "./strictStore.ts"
import * as Wire from "./wire.ts"

export interface Settings {
  readonly layout: Layout
  readonly prefix: string
  readonly maxDependencies: number
  readonly flightMillis: number
  /** How many lookups or fills a command carries at most: a script holds up everybody else's while it runs. */
  readonly maxRequests: number
  /** How many hash tags a namespace is spread over. */
  readonly shards: number
  readonly consistency: "bounded" | "strict"
  /** How many replicas must have a fence. */
  readonly fenceReplicas: number
}

/** A lookup on its way. */
interface Asked {
  readonly shard: Shard
  readonly request: LookupRequest
  readonly set: Wire.WireSet
  /** Of its caller. */
  readonly token: string
  readonly askedAtMillis: number
}

/** A fill on its way. */
interface Filled {
  readonly shard: Shard
  readonly request: StoreRequest
  readonly set: Wire.WireSet
  readonly text: string
}

type Verdict = "accepted" | "refused"

/** What a process that holds values itself asks besides. */
export interface RedisOperations {
  /**
   * Asks for a beat, which is published under the nonce. Succeeds where Redis accepts writes. `sent` must be run once.
   */
  readonly beat: (
    namespace: string,
    shard: number
  ) => { readonly nonce: string; readonly sent: Effect.Effect<LogicalClock, CacheError> }
  /** The clock at which what was valid at a lease still is; `undefined` where it is not. */
  readonly hold: (
    namespace: string,
    requests: ReadonlyArray<HoldRequest>
  ) => Effect.Effect<ReadonlyArray<LogicalClock | undefined>, CacheError>
  /** Raises the mark by which a Redis that went back is noticed. */
  readonly saw: (namespace: string, shard: number, clock: LogicalClock) => void
  /** Where an entry is kept. */
  readonly shardOf: (key: CacheKey) => number
}

export interface HoldRequest {
  readonly dependencies: Dependency.DependencySet
  readonly at: LogicalClock
}

export const channelOf = (prefix: string): string => `${prefix}:changes`

export const make = (
  redis: Redis.Redis["Service"],
  settings: Settings
): CacheStore["Service"] & RedisOperations & { readonly shards: number } => {
  const { flightMillis, layout, maxDependencies, maxRequests, prefix, shards } = settings
  const isStrict = settings.consistency === "strict"
  const channel = channelOf(prefix)
  const runLookup = Script.run(redis, (isStrict ? Scripts.lookupStrict : Scripts.lookup)[layout])
  const runStore = Script.run(redis, (isStrict ? Scripts.storeStrict : Scripts.store)[layout])
  const runRelease = Script.run(redis, Scripts.release)
  const runInvalidate = Script.run(redis, isStrict ? Scripts.invalidateStrict : Scripts.invalidate)
  const runBeat = Script.run(redis, Coherence.beat)
  const runHold = Script.run(redis, isStrict ? Coherence.holdStrict : Coherence.hold)
  const runOpen = Script.run(redis, isStrict ? Shards.openStrict : Shards.open)
  const keysOf = ({ keys }: Shard) => isStrict ? keys.strict : keys.metadata
  const writableOf = ({ keys }: Shard) => isStrict ? keys.strict : keys.writable
  // An epoch never repeats: it is named by the nonce of what began it, and its shard.
  const nonces = makeNonces()
  const namespaces = new Map<string, Namespace>()

  const namespaceOf = (name: string): Namespace => {
    let namespace = namespaces.get(name)
    if (namespace === undefined) namespaces.set(name, namespace = new Namespace(prefix, name, shards))
    return namespace
  }

  const headOf = (shard: Shard): Head => ({
    // An epoch that begins with this command is kept as this process keeps it.
    nonce: `${isStrict ? strictMark : ""}${nonces()}@${shard.index}`,
    seenEpoch: shard.seen?.epoch ?? "",
    seenClock: shard.seen?.clock ?? 0,
    channel,
    namespace: shard.keys.namespace
  })

  const guard = Shards.makeGuard({
    open: (first, shards, cleared) => {
      const head = headOf(first)
      return run(
        "lookup",
        runOpen({ head, keys: keysOf(first), shards, cleared }),
        (reply) => Replies.opened(reply, head.nonce)
      ).pipe(Effect.tap(({ at }) => replied(first, at)))
    },
    // Of a write that has a fence in the first shard, this one may not have been told.
    clear: (shard) => invalidate(shard, { namespace: shard.namespace.name, ...Dependency.allTargets }, true)
  })

  const shardOf = (key: CacheKey): Shard => namespaceOf(key.namespace).shardOf(key)

  /** A shard has answered: a new epoch of the first one means that the others are to be asked for anew. */
  const replied = (shard: Shard, clock: LogicalClock) =>
    Effect.map(Clock.currentTimeMillis, (now) => shard.replied(clock, now))

  const addressOf = (keys: Wire.Keys, { fingerprint }: CacheKey, wire: Wire.WireSet, set: number) =>
    layout === "flat"
      ? { keys: [keys.flight(fingerprint), keys.entry(fingerprint)], field: "", set }
      : {
        keys: [keys.flight(fingerprint), ...keys.group(wire, fingerprint)],
        field: `f:${Wire.name(fingerprint)}`,
        set
      }

  const lookup = Coalesce.make<Shard, Asked, Outcome>({
    targetOf: ({ shard }) => shard,
    maxRequests,
    maxBytes: maxStampBytes,
    bytesOf: ({ set }) => set.stamps.length + set.shapes.length,
    send: (shard, asked) => {
      const sets = new Sets()
      const head = headOf(shard)
      const entries = asked.map(({ request: { dependencies, key, maxAgeMillis }, set, token }) => ({
        ...addressOf(shard.keys, key, set, sets.index(dependencies, set)),
        maxAgeMillis: wholeAge(maxAgeMillis),
        token
      }))
      const keys = keysOf(shard)
      const found = run(
        "lookup",
        runLookup({ head, keys, maxDependencies, flightMillis, sets: sets.list, entries }),
        (reply) => Replies.found(reply, head.nonce, asked.length)
      )
      return Effect.flatMap(guard(shard, found), (found) => {
        if (isStrictEpoch(found.epoch) === isStrict) {
          return Effect.as(
            replied(shard, found),
            found.outcomes.map((outcome, i) => toOutcome(outcome, asked[i], found))
          )
        }
        // Nobody here reads what the script has told this process to read.
        const lease = (token: string): Lease => ({ ...found, flight: token })
        return replied(shard, found).pipe(
          Effect.andThen(
            Effect.ignore(release(asked.map(({ request: { key }, token }) => ({ key, lease: lease(token) })), "next"))
          ),
          Effect.andThen(Effect.fail(keptStrict))
        )
      })
    },
    // Nobody is there to read it, so the next one who asks is to.
    unclaimed: ({ request: { key } }, { lease }) => {
      if (lease.flight !== undefined) Effect.runFork(Effect.ignore(release([{ key, lease }], "next")))
    }
  })

  const store = Coalesce.make<Shard, Filled, Verdict>({
    targetOf: ({ shard }) => shard,
    maxRequests,
    maxBytes: maxValueBytes,
    bytesOf: ({ set, text }) => set.stamps.length + text.length,
    send: (shard, filled) => {
      const sets = new Sets()
      const head = headOf(shard)
      const entries = filled.map(({ request: { entry, key, lease }, set, text }) => ({
        ...addressOf(shard.keys, key, set, sets.index(entry.dependencies, set)),
        epoch: lease.epoch,
        lease: lease.clock,
        token: lease.flight ?? "",
        ttlMillis: Math.max(1, wholeMillis(entry.timeToLiveMillis)),
        retainMillis: wholeMillis(entry.retainMillis ?? 0),
        costMillis: wholeMillis(Math.ceil(entry.costMillis ?? 0)),
        value: text
      }))
      return run(
        "store",
        runStore({ head, keys: keysOf(shard), sets: sets.list, entries }),
        (reply) => Replies.stored(reply, head.nonce, filled.length)
      ).pipe(
        Effect.flatMap(({ at, verdicts }) => Effect.as(at === undefined ? Effect.void : replied(shard, at), verdicts))
      )
    }
  })

  const release = (
    flights: ReadonlyArray<{ readonly key: CacheKey; readonly lease: Lease }>,
    heirs: Heirs = "all"
  ) => {
    const byShard = new Map<Shard, Array<{ readonly key: string; readonly token: string }>>()
    for (const { key, lease } of flights) {
      if (lease.flight === undefined) continue
      const shard = shardOf(key)
      const own = { key: shard.keys.flight(key.fingerprint), token: lease.flight }
      const others = byShard.get(shard)
      if (others === undefined) byShard.set(shard, [own])
      else others.push(own)
    }
    return Effect.forEach(byShard.values(), (flights) => {
      const nonce = nonces()
      return run(
        "release",
        runRelease({ nonce, free: heirs === "all", flights }),
        (reply) => Replies.released(reply, nonce)
      )
    }, { concurrency: "unbounded", discard: true })
  }

  const lookupMany = (requests: ReadonlyArray<LookupRequest>): Effect.Effect<ReadonlyArray<Outcome>, CacheError> =>
    // The time before the round trip: what it takes makes an answer seem older, never younger.
    Effect.flatMap(Clock.currentTimeMillis, (askedAtMillis) => {
      // One for all: a key that a caller names twice is not one that it waits for itself.
      const token = nonces()
      checkNamespace(requests)
      return lookup(requests.map((request) => ({
        shard: shardOf(request.key),
        request,
        set: Wire.set(request.dependencies),
        token,
        askedAtMillis
      })))
    })

  const storeMany = (requests: ReadonlyArray<StoreRequest>): Effect.Effect<ReadonlyArray<Verdict>, CacheError> =>
    Effect.suspend(() => {
      const filled: Array<Filled> = []
      const places: Array<number> = []
      requests.forEach((request, place) => {
        const text = request.key.codec.encode(request.entry.value)
        if (text === undefined || !isWellFormed(text)) return
        places.push(place)
        filled.push({ shard: shardOf(request.key), request, set: Wire.set(request.entry.dependencies), text })
      })
      checkNamespace(requests)
      const stored = store(filled)
      if (filled.length === requests.length) return stored
      // What has no text is refused here, and those who wait for it are told as they are of any fill that is.
      return Effect.andThen(
        Effect.ignore(release(requests.filter((_, place) => !places.includes(place)))),
        Effect.map(stored, (verdicts) => {
          const all = requests.map((): Verdict => "refused")
          verdicts.forEach((verdict, i) => {
            all[places[i]] = verdict
          })
          return all
        })
      )
    })

  const hold = Coalesce.make<Shard, HoldRequest & { readonly shard: Shard }, LogicalClock | undefined>({
    targetOf: ({ shard }) => shard,
    maxRequests,
    maxBytes: maxStampBytes,
    bytesOf: ({ dependencies }) => Wire.set(dependencies).stamps.length,
    send: (shard, requests) => {
      const sets = new Sets()
      const head = headOf(shard)
      const entries = requests.map(({ at, dependencies }) => ({
        set: sets.index(dependencies, Wire.set(dependencies)),
        epoch: at.epoch,
        lease: at.clock
      }))
      const held = run(
        "lookup",
        runHold({ head, keys: writableOf(shard), sets: sets.list, entries }),
        (reply) => Replies.held(reply, head.nonce, requests.length)
      )
      return Effect.flatMap(guard(shard, held), ({ at, verdicts }) =>
        Effect.as(
          at === undefined ? Effect.void : replied(shard, at),
          verdicts.map((holds) => holds ? at : undefined)
        ))
    }
  })

  /** Invalidates in one shard; `lost`: which is to know nothing any more. */
  const invalidate = (shard: Shard, request: InvalidateRequest, lost = false) =>
    Effect.suspend(() => {
      const head = headOf(shard)
      return run(
        "invalidate",
        runInvalidate({
          head,
          keys: writableOf(shard),
          ...Wire.targets(request),
          lost,
          fences: request.fences ?? [],
          groups: layout === "flat"
            ? []
            : Wire.tables(request).slice(0, maxTablesDropped).flatMap((table) => shard.keys.groupsOfTable(table))
        }),
        (reply) => Replies.invalidated(reply, head.nonce)
      ).pipe(Effect.tap(({ at }) => replied(shard, at)))
    })

  const strict = isStrict
    ? StrictStore.make({ redis, namespaceOf, headOf, run, replied, replicas: settings.fenceReplicas })
    : undefined

  return {
    ...strict === undefined ? undefined : { strict },
    shards,
    shardOf: (key) => shardOf(key).index,
    hold: (name, requests) => {
      const namespace = namespaceOf(name)
      return hold(requests.map((request) => ({
        ...request,
        shard: namespace.shardAt(Epoch.shardOf(request.at.epoch))
      })))
    },
    beat: (name, index) => {
      const shard = namespaceOf(name).shards[index]
      const head = headOf(shard)
      const sent = run(
        "lookup",
        runBeat({ head, keys: shard.keys.writable }),
        (reply) => Replies.beaten(reply, head.nonce)
      )
      return { nonce: head.nonce, sent: Effect.tap(sent, (clock) => replied(shard, clock)) }
    },
    saw: (name, index, clock) => namespaceOf(name).shards[index].saw(clock),
    shared: true,
    peek: () => undefined,
    lookup: (key, dependencies, maxAgeMillis) =>
      Effect.map(lookupMany([{ key, dependencies, maxAgeMillis }]), ([outcome]) => outcome),
    lookupMany,
    store: (key, entry, lease) => Effect.map(storeMany([{ key, entry, lease }]), ([verdict]) => verdict),
    storeMany,
    release: (key, lease, heirs) => Effect.suspend(() => release([{ key, lease }], heirs)),
    invalidate: (request) =>
      Shards.invalidateAll(namespaceOf(request.namespace), request.delivered, (shard) => invalidate(shard, request)),
    applied: () => undefined,
    seen: (name) => namespaceOf(name).seen,
    changes: Stream.unwrap(Effect.map(redis.subscribe(channel), Stream.fromQueue)).pipe(
      Stream.mapError((error) => new CacheError({ operation: "subscribe", reason: Replies.reasonOf(error) })),
      Stream.mapEffect(({ message }) => {
        const change = Wire.message(message)
        return change !== undefined ? Effect.succeed(change) : Effect.fail(unreadable())
      }),
      Stream.filter((change): change is Invalidation => !Wire.isBeat(change))
    )
  }
}

/** What a message means that no version of the scripts writes. */
const unreadable = (): CacheError =>
  new CacheError({
    operation: "subscribe",
    reason: new InvalidReply({ message: "a message on the channel of invalidations cannot be read" })
  })

// What a command carries at most.
const maxStampBytes = 1024 * 1024
// Over REST a command is a request, and services refuse large ones.
const maxValueBytes = 256 * 1024

const maxTablesDropped = 16

// About 140 years.
const maxMillis = 2 ** 42

const wholeMillis = (millis: number): number => Math.min(Math.max(0, Math.floor(millis)), maxMillis)

// An age is a whole number: it is below a limit if it is below the next whole one.
const wholeAge = (millis: number | undefined): number | "" =>
  millis === undefined || millis > maxMillis ? "" : millis > 0 ? Math.ceil(millis) : 0

const keptStrict = new CacheError({
  operation: "lookup",
  reason: new ConsistencyRefused({
    message: "the namespace is kept strict: set consistency to \"strict\", or use another prefix or namespace"
  })
})

const run = <A>(
  operation: CacheError["operation"],
  effect: Effect.Effect<unknown, Redis.RedisError>,
  decode: (reply: unknown) => A
): Effect.Effect<A, CacheError> =>
  effect.pipe(
    Effect.flatMap((reply) =>
      Effect.try({ try: () => decode(reply), catch: (error) => error as Parameters<typeof Replies.reasonOf>[0] })
    ),
    Effect.mapError((error) => new CacheError({ operation, reason: Replies.reasonOf(error) }))
  )

/** Of no epoch. */
const noLease: Lease = { epoch: "", clock: 0 }

// What a value takes in memory against its text, about: 8 from some twenty rows on, half of it for one.
const bytesPerCharacter = 8

const toOutcome = (
  found: Replies.FoundOutcome,
  { askedAtMillis, request: { dependencies, key }, token }: Asked,
  { clock, epoch }: LogicalClock
): Outcome => {
  if (found._tag === "bypass") {
    const { why } = found
    const bypass = { _tag: "Bypass", lease: noLease } as const
    return (why.reason === "fenced" ? { ...bypass, ...why } : { ...bypass, ...why, epoch }) satisfies Bypass
  }
  const claim = found._tag === "hit" ? undefined : found.claim
  const lease: Lease = claim?._tag === "yours" ? { epoch, clock, flight: token } : { epoch, clock }
  const unavailable = (reason: "absent" | "expired" | "invalidated" | "undecodable"): Outcome =>
    claim?._tag === "wait"
      ? { _tag: "Wait", lease, remainingMillis: claim.remainingMillis }
      : { _tag: "Miss", lease, reason }
  if (found._tag === "miss") return unavailable(found.reason)
  let value: unknown
  try {
    value = key.codec.decode(found.value)
  } catch {
    // The caller's dependencies are registered, of a hit too, so the lease is good for a fill.
    return unavailable("undecodable")
  }
  const storedAtMillis = askedAtMillis - found.ageMillis
  const kept = {
    level: "L2",
    value,
    storedAtMillis,
    expiresAtMillis: storedAtMillis + found.timeToLiveMillis,
    costMillis: found.costMillis,
    dependencies: found.same ? dependencies : undefined,
    bytes: found.value.length * bytesPerCharacter,
    lease
  } as const
  return claim === undefined ? { _tag: "Hit", ...kept } : { _tag: "Stale", ...kept, waiting: claim._tag === "wait" }
}

const checkNamespace = (requests: ReadonlyArray<{ readonly key: CacheKey }>): void => {
  for (const { key } of requests) {
    if (key.namespace !== requests[0].key.namespace) {
      throw new InvalidOptionError("RedisStore", "namespace", key.namespace, "that of all keys of a batch")
    }
  }
}

// A value that is not well formed would come back from UTF-8 as another one.
const isWellFormed = (text: string & { readonly isWellFormed?: () => boolean }): boolean =>
  text.isWellFormed === undefined ? !/\p{Surrogate}/u.test(text) : text.isWellFormed()
