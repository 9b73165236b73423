// Steps at which a process can be told to stop or to kill itself: between any two of them it then stands still, or is gone.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as CacheStore from "../../src/CacheStore.ts"

/**
 * A write is sent (`writing`), or collected until COMMIT is about to be sent (`committing`). It has committed
 * (`committed`), its invalidation is sent (`invalidating`) and answered (`invalidated`). A read finds nothing and begins
 * a flight (`missed`), its query runs (`querying`), it has the answer (`queried`), and the fill is sent (`filling`).
 */
export const steps = [
  "writing",
  "committing",
  "committed",
  "invalidating",
  "invalidated",
  "missed",
  "querying",
  "queried",
  "filling"
] as const
export type Step = typeof steps[number]
export type Action = "SIGSTOP" | "SIGKILL"

export interface Steps {
  /** Takes the place of what was armed before. */
  readonly arm: (armed: { readonly step: Step; readonly action: Action } | undefined) => void
  /** The process passes a step. */
  readonly pass: (step: Step) => Effect.Effect<void>
  /** Runs an effect, and passes the step when it has had time to send something, and none yet to be answered. */
  readonly during: <A, E, R>(step: Step, effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** `before` is told what is about to befall the process. */
export const make = (before: (step: Step, action: Action) => void): Steps => {
  let armed: { readonly step: Step; readonly action: Action } | undefined
  const pass = (step: Step) =>
    Effect.sync(() => {
      if (armed?.step !== step) return
      const { action } = armed
      armed = undefined
      before(step, action)
      process.kill(process.pid, action)
    })
  return {
    arm: (next) => {
      armed = next
    },
    pass,
    during: (step, effect) =>
      Effect.suspend(() =>
        armed?.step !== step ? effect : Effect.gen(function*() {
          const running = yield* Effect.forkChild(effect, { startImmediately: true })
          yield* immediate
          yield* pass(step)
          return yield* Fiber.join(running)
        })
      )
  }
}

// A round of the loop, in which what was written to a socket leaves. Its answer is not read before the next.
const immediate = Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))

/** What the store was asked on behalf of a write. */
export interface Asked {
  invalidations: number
  taken: number
}

export const CurrentAsked: Context.Reference<Asked | undefined> = Context.Reference<Asked | undefined>(
  "chaos/CurrentAsked",
  { defaultValue: () => undefined }
)

/** A store whose operations pass the steps. */
export const store = (inner: CacheStore.CacheStore["Service"], steps: Steps): CacheStore.CacheStore["Service"] => {
  const missed = <O extends CacheStore.Outcome>(outcome: O): Effect.Effect<void> =>
    outcome._tag !== "Miss" ? Effect.void : Effect.andThen(
      steps.pass("missed"),
      // The query is sent when this has returned.
      Effect.sync(() => void setTimeout(() => Effect.runSync(steps.pass("querying")), 1))
    )
  return CacheStore.CacheStore.of({
    ...inner,
    lookup: (...args) => Effect.tap(inner.lookup(...args), missed),
    lookupMany: (requests) => Effect.tap(inner.lookupMany(requests), (outcomes) => Effect.forEach(outcomes, missed)),
    store: (...args) => Effect.andThen(steps.pass("queried"), steps.during("filling", inner.store(...args))),
    storeMany: (requests) => Effect.andThen(steps.pass("queried"), steps.during("filling", inner.storeMany(requests))),
    invalidate: (request) =>
      Effect.withFiber((fiber) => {
        const asked = fiber.getRef(CurrentAsked)
        if (asked !== undefined) asked.invalidations++
        return steps.pass("committed").pipe(
          Effect.andThen(steps.during("invalidating", inner.invalidate(request))),
          Effect.tap(() => {
            if (asked !== undefined) asked.taken++
            return steps.pass("invalidated")
          })
        )
      })
  })
}
