/**
 * A process with a cache of its own writes, while one of its reads is on its way
 * back from the shared store.
 *
 * What is checked: once the write has returned, its own cache holds nothing older.
 *
 * The guard is where the process cache learns of the clock that its own
 * invalidation returned (src/internal/delivery.ts delivers it).
 */
import type { Model } from "./checker.ts"

export interface Options {
  /** The clock that the invalidation returns is applied to the own cache before the write returns. */
  readonly clockApplied?: boolean
  /** No fills between the purge and the return. */
  readonly fillsBlocked?: boolean
}

interface State {
  readonly writer: "idle" | "committed" | "purged" | "invalidated" | "returned"
  readonly database: number
  /** What the shared store holds, if it is valid, and its clock. */
  readonly shared: number | null
  readonly clock: number
  readonly own: number | null
  readonly applied: number
  readonly reply: { readonly value: number; readonly clock: number } | null
  readonly message: boolean
  readonly lookups: number
}

export const ownWrite = (options: Options): Model<State> => ({
  initial: {
    writer: "idle",
    database: 0,
    shared: 0,
    clock: 0,
    own: null,
    applied: 0,
    reply: null,
    message: false,
    lookups: 0
  },
  next(state, step) {
    const { applied, clock, own, reply, shared, writer } = state
    if (writer === "idle") step(() => "COMMIT v1", { ...state, writer: "committed", database: 1 })
    if (writer === "committed") step(() => "the own cache is purged", { ...state, writer: "purged", own: null })
    if (writer === "purged") {
      step(
        () => "INVALIDATE at clock 1",
        { ...state, writer: "invalidated", shared: null, clock: 1, message: true }
      )
    }
    if (writer === "invalidated") {
      const after = options.clockApplied ? { own: null, applied: 1 } : {}
      step(() => "the write returns", { ...state, ...after, writer: "returned" })
    }
    if (state.message) {
      step(() => "the message of clock 1 is applied", { ...state, own: null, applied: 1, message: false })
    }
    if (reply === null && own === null && shared !== null && state.lookups < 2) {
      step(
        () => `LOOKUP: v${shared} at clock ${clock} is on its way`,
        { ...state, reply: { value: shared, clock }, lookups: state.lookups + 1 }
      )
    }
    if (reply !== null) {
      const blocked = options.fillsBlocked && (writer === "purged" || writer === "invalidated")
      const fill = reply.clock >= applied && !blocked
      step(
        () => `v${reply.value} arrives, ${fill ? "fills" : "does not fill"}`,
        { ...state, own: fill ? reply.value : own, reply: null }
      )
    }
  },
  wrong: ({ database, own, writer }) =>
    writer === "returned" && own !== null && own < database
      ? "the write has returned, and its process would serve what was before"
      : undefined
})
