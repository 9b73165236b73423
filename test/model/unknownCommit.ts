/**
 * The connection is lost while a write is under way, or before it has arrived, and it becomes visible later, or never.
 *
 * The process that has lost it invalidates at once, then asks the database until the write has ended, then invalidates
 * again. Another process reads and fills all the while.
 *
 * What is checked: once the write is settled and visible, no valid entry is older; and until then the process that made it
 * serves nothing that is older than what is visible.
 *
 * The guards are those of src/internal/doubt.
 */
import type { Model } from "./checker.ts"

export interface Guards {
  /** Whether the last invalidation waits until the write has ended. */
  readonly settled?: boolean
  /** Whether a write that has not arrived has not ended: nothing runs, and something may come. */
  readonly arrivalAwaited?: boolean
  /** Whether it is invalidated after it has ended, and not at the loss alone. */
  readonly invalidatedAfter?: boolean
  /** Whether the process that has lost it serves nothing of it meanwhile. */
  readonly quarantined?: boolean
}

export interface Options extends Guards {
  readonly lookups?: number
}

type Write = "unsent" | "on its way" | "running" | "visible" | "gone"

interface State {
  readonly write: Write
  readonly writer: "writing" | "lost" | "waiting" | "settled"
  /** What the database has told, and what the process has not judged yet. */
  readonly told: "ended" | "not ended" | null
  readonly clock: number
  readonly entry: { readonly value: number; readonly lease: number } | null
  readonly reader: { readonly phase: "idle" | "missed" | "read"; readonly lease: number; readonly value: number | null }
  readonly lookups: number
  readonly servedStale: boolean
}

export const unknownCommit = (
  { arrivalAwaited, invalidatedAfter, lookups = 2, quarantined, settled }: Options
): Model<State> => ({
  initial: {
    write: "unsent",
    writer: "writing",
    told: null,
    clock: 0,
    entry: null,
    reader: { phase: "idle", lease: 0, value: null },
    lookups: 0,
    servedStale: false
  },
  next(state, step) {
    const { clock, entry, reader, told, write, writer } = state
    const value = write === "visible" ? 1 : 0

    // The write, at the server and on the way there.
    if (write === "unsent") step(() => "the write is sent", { ...state, write: "on its way" })
    if (write === "on its way") {
      step(() => "it arrives", { ...state, write: "running" })
      if (writer !== "writing") step(() => "it never arrives: its backend is gone", { ...state, write: "gone" })
    }
    if (write === "running") {
      step(() => "it becomes visible", { ...state, write: "visible" })
      step(() => "it is rolled back", { ...state, write: "gone" })
    }

    // The process that has sent it.
    if (writer === "writing" && write !== "unsent") {
      step(() => "the connection is lost", { ...state, writer: "lost" })
    }
    if (writer === "lost") {
      step(() => `INVALIDATE at clock ${clock + 1}, at the loss`, { ...state, writer: "waiting", clock: clock + 1 })
    }
    if (writer === "waiting" && told === null) {
      const told = write === "visible" || write === "gone" || (!arrivalAwaited && write !== "running")
        ? "ended"
        : "not ended"
      step(() => `the database tells that it has ${told}`, { ...state, told })
    }
    if (writer === "waiting" && told === "not ended") step(() => "it waits", { ...state, told: null })
    if (writer === "waiting" && (!settled || told === "ended")) {
      step(
        () => `settled${invalidatedAfter ? `: INVALIDATE at clock ${clock + 1}` : ""}`,
        { ...state, writer: "settled", told: null, clock: invalidatedAfter ? clock + 1 : clock }
      )
    }
    if (writer === "waiting" && !quarantined && entry !== null && entry.lease >= clock) {
      step(
        () => `the process that wrote serves v${entry.value}`,
        { ...state, servedStale: state.servedStale || entry.value < value }
      )
    }

    // Another process.
    if (reader.phase === "idle" && state.lookups < lookups) {
      step(
        () => `LOOKUP: miss, lease ${clock}`,
        { ...state, reader: { phase: "missed", lease: clock, value: null }, lookups: state.lookups + 1 }
      )
    }
    if (reader.phase === "missed") {
      step(() => `reads v${value}`, { ...state, reader: { ...reader, phase: "read", value } })
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
  wrong: ({ clock, entry, reader, servedStale, write, writer }) =>
    servedStale
      ? "the process that wrote serves what is older than what is visible"
      : writer === "settled" && write === "visible" && reader.phase === "idle" && entry !== null &&
          entry.lease >= clock && entry.value < 1
      ? "the write is settled, and a hit would be stale"
      : undefined
})
