/**
 * The connection is lost during COMMIT, and the commit becomes visible later.
 *
 * What is checked: once the invalidation is done and the commit visible, no valid
 * entry is older.
 *
 * The guard is the quarantine of src/internal/delivery.ts, which invalidates at
 * its end once more.
 */
import type { Model } from "./checker.ts"

export interface Options {
  /** Whether the invalidation waits until the outcome is known. */
  readonly settled?: boolean
}

interface State {
  readonly writer: "waiting" | "lost" | "invalidated"
  readonly visible: number
  readonly clock: number
  readonly entry: { readonly value: number; readonly lease: number } | null
  readonly reader: { readonly phase: "idle" | "missed" | "read"; readonly lease: number; readonly value: number | null }
  readonly lookups: number
}

export const unknownCommit = (options: Options): Model<State> => ({
  initial: {
    writer: "waiting",
    visible: 0,
    clock: 0,
    entry: null,
    reader: { phase: "idle", lease: 0, value: null },
    lookups: 0
  },
  next(state, step) {
    const { clock, entry, reader, visible, writer } = state
    if (writer === "waiting") step(() => "the connection is lost during COMMIT", { ...state, writer: "lost" })
    if (visible === 0) step(() => "COMMIT v1 visible", { ...state, visible: 1 })
    if (writer === "lost" && (!options.settled || visible === 1)) {
      step(() => `INVALIDATE at clock ${clock + 1}`, { ...state, writer: "invalidated", clock: clock + 1 })
    }
    if (reader.phase === "idle" && state.lookups < 2) {
      step(
        () => `LOOKUP: miss, lease ${clock}`,
        { ...state, reader: { phase: "missed", lease: clock, value: null }, lookups: state.lookups + 1 }
      )
    }
    if (reader.phase === "missed") {
      step(() => `reads v${visible}`, { ...state, reader: { ...reader, phase: "read", value: visible } })
    }
    if (reader.phase === "read") {
      const accepted = reader.lease >= clock
      step(() => `STORE v${reader.value}: ${accepted ? "accepted" : "refused"}`, {
        ...state,
        entry: accepted ? { value: reader.value!, lease: reader.lease } : entry,
        reader: { phase: "idle", lease: 0, value: null }
      })
    }
  },
  wrong: ({ clock, entry, reader, visible, writer }) =>
    writer === "invalidated" && visible === 1 && reader.phase === "idle" && entry !== null && entry.lease >= clock &&
      entry.value < visible
      ? "the write is settled, and a hit would be stale"
      : undefined
})
