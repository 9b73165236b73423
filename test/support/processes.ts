// Several stores over one Redis, as processes are. What one of them has invalidated the others have heard of when it
// returns: how long that takes else is for other tests.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { CacheStore, LogicalClock } from "../../src/CacheStore.ts"
import { orderOf } from "../../src/internal/epoch.ts"

type Service = CacheStore["Service"]

interface Member {
  /** How far it has heard, by namespace and shard. */
  readonly heard: Map<string, LogicalClock>
}

export interface Processes {
  readonly join: (store: Service) => Effect.Effect<Service, never, Scope.Scope>
}

export const make = (): Processes => {
  const members = new Set<Member>()

  const hasHeard = ({ heard }: Member, namespace: string, at: LogicalClock, shard: number): boolean => {
    const last = heard.get(`${shard} ${namespace}`)
    // What has not heard anything holds nothing.
    return last === undefined || orderOf(last.epoch) > orderOf(at.epoch) ||
      (last.epoch === at.epoch && last.clock >= at.clock)
  }

  return {
    join: Effect.fnUntraced(function*(store) {
      const member: Member = { heard: new Map() }
      yield* store.changes.pipe(
        Stream.runForEach(({ clock, epoch, namespace, shard }) =>
          Effect.sync(() => member.heard.set(`${shard} ${namespace}`, { epoch, clock }))
        ),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* Effect.acquireRelease(
        Effect.sync(() => members.add(member)),
        () => Effect.sync(() => members.delete(member))
      )
      return {
        ...store,
        invalidate: (request) =>
          Effect.tap(
            store.invalidate(request),
            (clocks) =>
              Effect.whileLoop({
                while: () =>
                  [...members].some((each) =>
                    each !== member && !clocks.every((at, shard) => hasHeard(each, request.namespace, at, shard))
                  ),
                body: () => Effect.sleep(1),
                step: () => {}
              })
          )
      }
    })
  }
}
