/**
 * What this process holds itself, L1, over what it shares, L2.
 *
 *     held here, valid, confirmed ────────────▶ hit of L1
 *       │ no
 *     L2 ── stale, miss, wait ────────────────▶ as it is
 *       │ hit
 *     proof that L2 accepts writes
 *       │
 *     held from now on, if the lease allows ──▶ hit of L2
 *
 * A lease is taken before L2 is asked: what is invalidated here while the answer is under
 * way makes it too old. That goes for fills as well, which L2 has accepted: it judges
 * whether a value may be stored, and the lease whether it may be held.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { CacheError } from "../../CacheError.ts"
import {
  type CacheKey,
  CacheStore,
  type Entry,
  type Hit,
  type Kept,
  type LogicalClock,
  type LookupRequest,
  type Outcome,
  type StoreRequest
} from "../../CacheStore.ts"
import type { MemoryTable } from "../memoryTable.ts"
import type { Coherence } from "./coherence.ts"

/** A value, and the clock at which it was valid in L2. */
class Held {
  readonly value: unknown
  readonly at: LogicalClock

  constructor(value: unknown, at: LogicalClock) {
    this.value = value
    this.at = at
  }
}

export const make = (
  shared: CacheStore["Service"],
  table: MemoryTable,
  { applied, confirm, keepsClocks, maxHeldMillis, mayFill, peeks, proof, serves, wrote }: Coherence,
  changes: CacheStore["Service"]["changes"]
): CacheStore["Service"] => {
  const valueOf = (kept: Kept): unknown => keepsClocks ? (kept.value as Held).value : kept.value

  const peek = (key: CacheKey, nowMillis: number): Kept | undefined => {
    if (!serves(key, nowMillis)) return undefined
    const kept = table.peek(key, nowMillis)
    return kept === undefined || !keepsClocks ? kept : {
      level: kept.level,
      value: valueOf(kept),
      storedAtMillis: kept.storedAtMillis,
      expiresAtMillis: kept.expiresAtMillis,
      costMillis: kept.costMillis,
      dependencies: kept.dependencies
    }
  }

  /** Holds what was valid in L2 at a clock, if nothing has been invalidated since the lease that was taken before. */
  const hold = (
    key: CacheKey,
    entry: Entry,
    at: LogicalClock,
    lease: LogicalClock,
    storedAtMillis: number,
    askedAtMillis: number
  ): void => {
    if (!mayFill(key, at)) return
    const { retainMillis = 0, timeToLiveMillis, value } = entry
    const most = askedAtMillis + maxHeldMillis - (storedAtMillis + timeToLiveMillis)
    table.store(
      key,
      {
        ...entry,
        value: keepsClocks ? new Held(value, { epoch: at.epoch, clock: at.clock }) : value,
        // Below zero where it is not held as long as it is fresh.
        retainMillis: Math.min(retainMillis, most)
      },
      lease,
      storedAtMillis
    )
  }

  const fetch = Effect.fnUntraced(function*(
    requests: ReadonlyArray<LookupRequest>,
    leases: ReadonlyArray<LogicalClock>,
    askedAtMillis: number
  ) {
    const proven = proof(requests, askedAtMillis)
    const outcomes = yield* shared.lookupMany(requests)
    if (proven !== undefined) yield* proven(outcomes)
    outcomes.forEach((outcome, i) => {
      // What else it was filled with is not known, so nobody would notice that it was invalidated.
      if (!isHit(outcome) || outcome.dependencies === undefined) return
      const { bytes = 0, costMillis, dependencies, expiresAtMillis, lease, storedAtMillis, value } = outcome
      const { key } = requests[i]
      const entry = {
        value,
        dependencies,
        timeToLiveMillis: expiresAtMillis - storedAtMillis,
        costMillis,
        bytes: bytes + (typeof key.local === "string" ? key.local.length * 2 : 8)
      }
      hold(key, entry, lease, leases[i], storedAtMillis, askedAtMillis)
    })
    return outcomes
  })

  const lookupMany = (requests: ReadonlyArray<LookupRequest>): Effect.Effect<ReadonlyArray<Outcome>, CacheError> =>
    requests.length === 0 ? Effect.succeed([]) : Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const { namespace } = requests[0].key
      // First, since it may find that nothing may be served any more.
      const served = requests.map(({ key }) => serves(key, now))
      const found = requests.map(({ dependencies, key, maxAgeMillis }) =>
        table.lookup(key, dependencies, now, maxAgeMillis)
      )
      const leases = found.map(({ lease }) => lease)
      const held = found.flatMap((outcome, i) =>
        served[i] && outcome._tag === "Hit" && outcome.dependencies?.id === requests[i].dependencies.id
          ? [{ index: i, outcome }]
          : []
      )
      if (held.length === 0) return fetch(requests, leases, now)
      const confirmed = confirm(
        namespace,
        held.map(({ index, outcome: { value } }) => ({
          key: requests[index].key,
          dependencies: requests[index].dependencies,
          at: keepsClocks ? (value as Held).at : undefined
        }))
      )
      return Effect.flatMap(confirmed, (clocks) => {
        const outcomes: Array<Outcome | undefined> = requests.map(() => undefined)
        held.forEach(({ index, outcome }, i) => {
          const lease = clocks[i]
          const { since } = requests[index]
          if (lease !== undefined && since?.(lease) !== false) {
            outcomes[index] = { ...outcome, value: valueOf(outcome), lease } satisfies Hit
          }
        })
        const rest = requests.flatMap((_, i) => outcomes[i] === undefined ? [i] : [])
        if (rest.length === 0) return Effect.succeed(outcomes as ReadonlyArray<Outcome>)
        return Effect.map(
          fetch(rest.map((i) => requests[i]), rest.map((i) => leases[i]), now),
          (fetched) => {
            fetched.forEach((outcome, i) => {
              outcomes[rest[i]] = outcome
            })
            return outcomes as ReadonlyArray<Outcome>
          }
        )
      })
    })

  const storeMany = (requests: ReadonlyArray<StoreRequest>) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const leases = requests.map(({ entry, key }) => table.lookup(key, entry.dependencies, now).lease)
      return Effect.map(shared.storeMany(requests), (verdicts) => {
        requests.forEach(({ entry, key, lease }, i) => {
          if (verdicts[i] === "accepted") hold(key, entry, lease, leases[i], now, now)
        })
        return verdicts
      })
    })

  return CacheStore.of({
    shared: true,
    shards: shared.shards,
    peek: peeks ? peek : () => undefined,
    lookup: (key, dependencies, maxAgeMillis, since) =>
      Effect.map(lookupMany([{ key, dependencies, maxAgeMillis, since }]), ([outcome]) => outcome),
    lookupMany,
    store: (key, entry, lease) => Effect.map(storeMany([{ key, entry, lease }]), ([verdict]) => verdict),
    storeMany,
    release: shared.release,
    ...shared.strict === undefined ? undefined : { strict: shared.strict },
    invalidate: (request) =>
      Effect.suspend(() => {
        table.invalidate(request)
        return Effect.map(shared.invalidate(request), (at) => {
          // Of shards that others use besides nothing is held.
          wrote(request, at.slice(0, shared.shards))
          return at
        })
      }),
    changes,
    applied,
    seen: shared.seen
  })
}

const isHit = (outcome: Outcome): outcome is Hit => outcome._tag === "Hit"
