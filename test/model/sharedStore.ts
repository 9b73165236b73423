/**
 * One cached query with one dependency in a shared store, between a database and
 * several writers and readers, under faults of every part.
 *
 * What is checked: a hit is not older than what is acknowledged (or, strict, than
 * what is visible), and when all is quiet what can be served equals the database.
 *
 * Where the guards live: `leaseCompared`, `validated`, `lossIsWhole` and
 * `epochOfPrimary` are STORE, LOOKUP, `open` and `rotate` of
 * src/internal/redis/scripts.ts (in the process: src/internal/memoryTable.ts);
 * `afterCommit` is src/internal/transactions.ts; `leaseBeforeSnapshot` holds
 * because nothing fills inside a transaction (src/internal/statement.ts).
 */
import { bit, type Model, replaced, same, type Step } from "./checker.ts"

export interface Guards {
  /** STORE refuses what was invalidated since its lease. Default: yes. */
  readonly leaseCompared?: boolean
  /** The invalidation comes after the commit. Default: yes. */
  readonly afterCommit?: boolean
  /** A hit is judged by stamps and epoch, not by whether it was deleted. */
  readonly validated?: boolean
  /** Losing part of the metadata counts as losing all of it, which begins an epoch. */
  readonly lossIsWhole?: boolean
  /** Another primary begins an epoch. */
  readonly epochOfPrimary?: boolean
  /** A lease is taken before the snapshot that the query reads from. */
  readonly leaseBeforeSnapshot?: boolean
  /** A fill from a database replica says which commit it has seen, and is refused before the acknowledged one. */
  readonly positionCompared?: boolean
  /** What a dead writer committed is invalidated from the log of commits. */
  readonly relay?: boolean
  /** The change feed waits until a commit is visible. */
  readonly feedAwaitsVisible?: boolean

  // Strict mode.
  /** While a write is under way, nothing that depends on it is served or stored. */
  readonly fence?: boolean
  /** Who finds an expired fence asks the database what became of the transaction. */
  readonly resolver?: boolean
  /** A fence is on the replica before the commit. */
  readonly fenceReplicated?: boolean
  /** An epoch keeps the fences of the one before. */
  readonly fencesOutliveEpoch?: boolean
  /** After a rotation nothing is served until every transaction from before has ended. */
  readonly barrier?: boolean
}

export interface Options extends Guards {
  readonly writers?: number
  readonly readers?: number
  /** How often each reader asks. */
  readonly lookups?: number
  /** What a hit must not be older than. Default: what is acknowledged. */
  readonly promise?: "acknowledged" | "visible"

  // Faults, and where reads and invalidations come from.
  readonly writersDie?: boolean
  readonly fencesExpire?: boolean
  readonly evicted?: "stamp" | "clock" | "index"
  readonly failover?: boolean
  readonly readsInSnapshot?: boolean
  readonly readsFromReplica?: boolean
  readonly feed?: boolean
  /** Fencing invalidates, too. It helps nothing. */
  readonly fencePurges?: boolean
}

interface Entry {
  readonly value: number
  readonly epoch: number
  readonly lease: number
  readonly position: number
}

interface Store {
  readonly epoch: number
  readonly clock: number
  readonly stamp: number | null
  /** Whose fences are up. */
  readonly fences: number
  readonly entry: Entry | null
  /** Whether the reverse index, by which invalidations delete, knows the entry. */
  readonly indexed: boolean
}

interface Writer {
  readonly phase: "idle" | "begun" | "logged" | "visible" | "done" | "aborted" | "lost"
  readonly version: number
}

interface Reader {
  readonly phase: "idle" | "missed" | "read"
  readonly asked: number
  readonly epoch: number | null
  readonly lease: number | null
  readonly value: number | null
  readonly snapshot: number | null
  readonly position: number
}

interface State {
  readonly store: Store
  readonly replica: Store
  /** The newest version in the log of the database, the newest visible one, and what its replica shows. */
  readonly logged: number
  readonly visible: number
  readonly replicated: number
  readonly acknowledged: number
  /** How far the change feed has come. */
  readonly fed: number
  readonly writers: ReadonlyArray<Writer>
  readonly readers: ReadonlyArray<Reader>
  readonly evictions: number
  readonly failovers: number
  /** Writers that the barrier waits for. */
  readonly awaited: number
}

const fresh: Store = { epoch: 1, clock: 0, stamp: null, fences: 0, entry: null, indexed: false }

const idle: Reader = { phase: "idle", asked: 0, epoch: null, lease: null, value: null, snapshot: null, position: 0 }

const invalidated = (store: Store): Store => ({
  ...store,
  clock: store.clock + 1,
  stamp: store.clock + 1,
  entry: store.indexed ? null : store.entry,
  indexed: false
})

export const sharedStore = (options: Options): Model<State> => {
  const { afterCommit = true, leaseCompared = true, lookups = 2, readers = 2, writers = 2 } = options
  const promised = (state: State) => options.promise === "visible" ? state.visible : state.acknowledged

  const pending = (writer: Writer) => writer.phase === "begun" || writer.phase === "logged"
  const closed = (state: State) =>
    state.store.fences !== 0 || state.writers.some((writer, j) => (state.awaited & bit(j)) !== 0 && pending(writer))
  const awaitedAfter = (state: State) =>
    options.barrier
      ? state.writers.reduce((awaited, writer, j) => pending(writer) ? awaited | bit(j) : awaited, state.awaited)
      : state.awaited

  const servable = (state: State): Entry | null => {
    const { entry, epoch, stamp } = state.store
    if (entry === null || closed(state)) return null
    if (!options.validated) return entry
    return entry.epoch === epoch && (stamp === null || stamp <= entry.lease) ? entry : null
  }

  const read = (state: State, i: number, step: Step<State>) => {
    const { store } = state
    const reader = state.readers[i]!
    const { asked, epoch, lease, position, snapshot, value } = reader
    const to = (next: Reader, and?: Partial<State>): State => ({
      ...state,
      ...and,
      readers: replaced(state.readers, i, next)
    })
    switch (reader.phase) {
      case "idle": {
        if (asked === lookups) return
        if (options.readsInSnapshot && snapshot === null) {
          const early = options.leaseBeforeSnapshot ? { epoch: store.epoch, lease: store.clock } : {}
          step(() => `r${i} BEGIN, sees v${state.visible}`, to({ ...idle, asked, ...early, snapshot: state.visible }))
        }
        const hit = servable(state)
        if (hit !== null) {
          step(
            () => `r${i} LOOKUP: hit v${hit.value}`,
            to({ ...idle, asked: asked + 1 }),
            hit.value < promised(state) && `a hit is older than what is ${options.promise ?? "acknowledged"}`
          )
        } else if (closed(state)) {
          step(() => `r${i} LOOKUP: bypass`, to({ ...idle, asked: asked + 1 }))
        } else {
          const own = snapshot !== null && options.leaseBeforeSnapshot ? reader : {
            epoch: store.epoch,
            lease: store.clock
          }
          step(
            () => `r${i} LOOKUP: miss, lease ${own.epoch}:${own.lease}`,
            to({ ...reader, phase: "missed", epoch: own.epoch, lease: own.lease, value: null, position: 0 })
          )
        }
        return
      }
      case "missed": {
        const seen = snapshot ?? (options.readsFromReplica ? state.replicated : state.visible)
        step(
          () => `r${i} reads v${seen}`,
          to({ ...reader, phase: "read", value: seen, snapshot: null, position: seen })
        )
        return
      }
      case "read": {
        const current = !leaseCompared ||
          (epoch === store.epoch && (store.stamp === null || store.stamp <= lease!))
        const behind = options.positionCompared && store.stamp !== null && position < state.acknowledged
        const after = { ...idle, asked: asked + 1 }
        if (current && !closed(state) && !behind) {
          const entry: Entry = { value: value!, epoch: epoch!, lease: lease!, position }
          step(() => `r${i} STORE v${value}`, to(after, { store: { ...store, entry, indexed: true } }))
        } else {
          step(() => `r${i} STORE: refused`, to(after))
        }
      }
    }
  }

  const write = (state: State, j: number, step: Step<State>) => {
    const { store } = state
    const { phase, version } = state.writers[j]!
    const to = (phase: Writer["phase"], version: number, and?: Partial<State>): State => ({
      ...state,
      ...and,
      writers: replaced(state.writers, j, { phase, version })
    })
    const unfenced = (store: Store): Store => ({ ...store, fences: store.fences & ~bit(j) })
    if (phase === "idle") {
      let next = store
      if (!afterCommit) next = invalidated(next)
      if (options.fence) {
        if (options.fencePurges) next = invalidated(next)
        next = { ...next, fences: next.fences | bit(j) }
      }
      step(
        () => `w${j} ${options.fence ? "FENCE" : afterCommit ? "BEGIN" : "INVALIDATE, BEGIN"}`,
        to("begun", 0, { store: next, ...(options.fenceReplicated ? { replica: next } : {}) })
      )
    } else if (phase === "begun" && state.logged === state.visible) {
      // Commits of one row are serial: its lock is held until a commit is visible.
      step(
        () => `w${j} COMMIT v${state.logged + 1} logged`,
        to("logged", state.logged + 1, { logged: state.logged + 1 })
      )
    } else if (phase === "logged") {
      step(() => `w${j} COMMIT v${version} visible`, to("visible", version, { visible: version }))
    } else if (phase === "visible") {
      if (options.feed && afterCommit) step(() => `w${j} returns`, to("done", version))
      else {
        const next = unfenced(afterCommit ? invalidated(store) : store)
        const acknowledged = Math.max(state.acknowledged, version)
        step(
          () => `w${j} ${afterCommit ? "INVALIDATE, " : ""}returns v${version}`,
          to("done", version, { store: next, acknowledged })
        )
      }
    }
    if (options.writersDie && phase === "begun") step(() => `w${j} dies before COMMIT`, to("aborted", version))
    if (options.writersDie && phase === "visible") step(() => `w${j} dies after COMMIT`, to("lost", version))
    if (options.fencesExpire && (store.fences & bit(j)) !== 0) {
      const settled = phase === "visible" || phase === "done" || phase === "lost"
      if (!options.resolver) step(() => `the fence of w${j} expires`, { ...state, store: unfenced(store) })
      else if (settled) {
        step(() => `RESOLVE w${j}: committed`, { ...state, store: unfenced(invalidated(store)) })
      } else if (phase === "aborted") step(() => `RESOLVE w${j}: aborted`, { ...state, store: unfenced(store) })
    }
  }

  const disturb = (state: State, step: Step<State>) => {
    const { store } = state
    if (options.feed && state.fed < (options.feedAwaitsVisible ? state.visible : state.logged)) {
      const fed = state.fed + 1
      const acknowledged = Math.max(state.acknowledged, Math.min(fed, state.visible))
      step(() => `the feed tells of v${fed}: INVALIDATE`, { ...state, store: invalidated(store), fed, acknowledged })
    }
    if (options.relay) {
      state.writers.forEach(({ phase, version }, j) => {
        if (phase !== "lost") return
        const next = invalidated(store)
        step(() => `the relay tells of v${version}: INVALIDATE`, {
          ...state,
          writers: replaced(state.writers, j, { phase: "done", version }),
          store: { ...next, fences: next.fences & ~bit(j) },
          acknowledged: Math.max(state.acknowledged, version)
        })
      })
    }
    if (options.readsFromReplica && state.replicated < state.visible) {
      step(() => "the database replica catches up", { ...state, replicated: state.replicated + 1 })
    }
    if (options.evicted !== undefined && state.evictions === 0) {
      const next = options.lossIsWhole
        ? { ...store, epoch: store.epoch + 10, clock: 0, stamp: null, fences: 0 }
        : options.evicted === "stamp"
        ? { ...store, stamp: null }
        : options.evicted === "clock"
        ? { ...store, clock: 0 }
        : { ...store, indexed: false }
      step(
        () => `the store evicts the ${options.evicted}`,
        { ...state, store: next, evictions: 1, awaited: awaitedAfter(state) }
      )
    }
    if (options.failover) {
      if (!same(state.replica, store)) step(() => "the store replicates", { ...state, replica: store })
      if (state.failovers === 0) {
        const { replica } = state
        const next = options.epochOfPrimary
          ? {
            ...replica,
            epoch: replica.epoch + 100,
            clock: 0,
            stamp: null,
            fences: options.fencesOutliveEpoch ? replica.fences : 0
          }
          : replica
        step(
          () => "the store fails over to its replica",
          { ...state, store: next, replica: next, failovers: 1, awaited: awaitedAfter(state) }
        )
      }
    }
  }

  const quiet = (state: State) =>
    state.store.fences === 0 &&
    state.writers.every(({ phase }) => phase !== "begun" && phase !== "logged" && phase !== "visible") &&
    state.readers.every(({ phase }) => phase === "idle") &&
    (!options.feed || state.fed === state.visible) &&
    (!options.relay || state.writers.every(({ phase }) => phase !== "lost")) &&
    (!options.readsFromReplica || state.replicated === state.visible)

  return {
    initial: {
      store: fresh,
      replica: fresh,
      logged: 0,
      visible: 0,
      replicated: 0,
      acknowledged: 0,
      fed: 0,
      writers: Array.from({ length: writers }, () => ({ phase: "idle", version: 0 })),
      readers: Array.from({ length: readers }, () => idle),
      evictions: 0,
      failovers: 0,
      awaited: 0
    },
    next(state, step) {
      for (let i = 0; i < readers; i++) read(state, i, step)
      for (let j = 0; j < writers; j++) write(state, j, step)
      disturb(state, step)
    },
    wrong(state) {
      if (!quiet(state)) return undefined
      const entry = servable(state)
      return entry !== null && entry.value < state.visible ? "all is quiet, and a hit would be stale" : undefined
    }
  }
}
