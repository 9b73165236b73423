// What a store is that several processes share, without a server: the memory store, and the flights that Redis keeps.
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Scheduler from "effect/Scheduler"
import type { CacheError } from "../../src/CacheError.ts"
import * as CacheStore from "../../src/CacheStore.ts"

type Service = CacheStore.CacheStore["Service"]

interface Claim {
  /** `undefined` where everybody reads for himself. */
  readonly token: string | undefined
  readonly untilMillis: number
}

/** How long a process that has begun to read is waited for. */
export const flightMillis = 5_000

export const make = (inner: Service) => {
  const claims = new Map<string, Claim>()
  let tokens = 0
  const ways = { latency: Effect.void as Effect.Effect<unknown> }
  // As the store does it whose replies take a while: what it would tell to somebody who has left it takes back.
  const lookupMany = (
    requests: ReadonlyArray<CacheStore.LookupRequest>
  ): Effect.Effect<ReadonlyArray<CacheStore.Outcome>, CacheError> =>
    Effect.withFiber((fiber) =>
      Effect.callback((resume) => {
        let left = false
        const takeBack = (outcomes: ReadonlyArray<CacheStore.Outcome>) =>
          Effect.all(outcomes.map(({ lease }, i) => settle(requests[i]!.key, lease, false)))
        // It looks and hands over in one step, however small the steps of its callers are.
        Effect.runForkWith(Context.add(fiber.context, Scheduler.MaxOpsBeforeYield, 2048))(
          ways.latency.pipe(
            Effect.andThen(Effect.suspend(() => left ? Effect.interrupt : Effect.all(requests.map(claim)))),
            Effect.tap(() => ways.latency),
            Effect.tap((outcomes) => left ? takeBack(outcomes) : Effect.void)
          )
        ).addObserver(resume)
        return Effect.sync(() => void (left = true))
      })
    )
  const claim = (request: CacheStore.LookupRequest): Effect.Effect<CacheStore.Outcome, CacheError> =>
    Effect.gen(function*() {
      const { dependencies, key, maxAgeMillis } = request
      const outcome = yield* inner.lookup(key, dependencies, maxAgeMillis)
      const now = yield* Clock.currentTimeMillis
      if (outcome._tag === "Hit") return { ...outcome, level: "L2" }
      const held = claims.get(key.fingerprint)
      const claim = held !== undefined && now < held.untilMillis ? held : undefined
      if (claim === undefined) {
        const token = `token ${tokens++}`
        claims.set(key.fingerprint, { token, untilMillis: now + flightMillis })
        return { ...outcome, lease: { ...outcome.lease, flight: token } } as CacheStore.Outcome
      }
      if (claim.token === undefined) return outcome
      return outcome._tag === "Stale"
        ? { ...outcome, level: "L2", waiting: true }
        : { _tag: "Wait", lease: outcome.lease, remainingMillis: claim.untilMillis - now }
    })
  const settle = ({ fingerprint }: CacheStore.CacheKey, { flight }: CacheStore.Lease, free: boolean) =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      if (flight === undefined || claims.get(fingerprint)?.token !== flight) return
      if (free) claims.set(fingerprint, { token: undefined, untilMillis: now + 1_000 })
      else claims.delete(fingerprint)
    })
  return {
    /** How long a lookup is on its way there, and back. */
    ways,
    /** Flights that somebody has begun and neither filled nor released. */
    owed: () => [...claims.values()].filter(({ token }) => token !== undefined).length,
    store: CacheStore.CacheStore.of({
      ...inner,
      shared: true,
      peek: () => undefined,
      lookup: (key, dependencies, maxAgeMillis) =>
        Effect.map(lookupMany([{ key, dependencies, maxAgeMillis }]), ([outcome]) => outcome!),
      lookupMany,
      store: (key, entry, lease) =>
        Effect.tap(inner.store(key, entry, lease), (verdict) => settle(key, lease, verdict === "refused")),
      release: (key, lease, heirs = "all") => settle(key, lease, heirs === "all"),
      invalidate: (request) =>
        Effect.suspend(() => {
          // A fill of theirs would be refused.
          claims.clear()
          return inner.invalidate(request)
        })
    })
  }
}
