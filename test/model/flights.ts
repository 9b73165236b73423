/**
 * One query that several processes ask for at once, and the flight by which one of
 * them asks the database while the others wait. Time passes in ticks.
 *
 * A LOOKUP that misses grants the flight to one asker, and the others ask again
 * every tick. Who has waited for a whole lease asks the database itself, without
 * the flight. A process may be killed or paused at any point, the reply to a
 * granting LOOKUP may be lost, and the query may fail. A process that is neither
 * finishes its query within the time-out, and fills at once.
 *
 * What is checked:
 *
 * - no accepted fill, and no answer, is older than it may be;
 * - every reader ends within a lease and the query's time-out;
 * - nobody is told to wait for what will not come: for itself, for a flight that
 *   has ended, or for a lease that is overtaken;
 * - nobody is granted a flight while another's query may still fill.
 *
 * The guards are LOOKUP's and STORE's in src/internal/redis/scripts.ts, and the
 * patience of those who wait is in src/internal/pilot.ts. (Flights within a process
 * are in src/internal/flights.ts.)
 */
import { type Model, replaced, sorted, type Step } from "./checker.ts"

export interface Guards {
  /** A flight ends with its lease. */
  readonly expires?: boolean
  /** Who has waited for a lease asks without the flight. */
  readonly patience?: boolean
  /** A flight is released by its owner alone. */
  readonly ownerReleases?: boolean
  /** An owner that asks again is granted its flight again. */
  readonly ownerAsksAgain?: boolean
  /** That renews it. */
  readonly askingAgainRenews?: boolean
  /** An owner whose lease is overtaken is replaced. */
  readonly overtakenReplaced?: boolean
  /** A failed query releases the flight. (A refused fill need not: its lease is overtaken.) */
  readonly failureReleases?: boolean
  /** A fill is judged by the clock of its lease, whoever owns the flight. */
  readonly leaseCompared?: boolean
}

export interface Options extends Guards {
  readonly processes?: number
  readonly writes?: number
  readonly ticks?: number
  readonly kills?: number
  readonly pauses?: number
  readonly lostReplies?: number
}

export const guarded: Required<Guards> = {
  expires: true,
  patience: true,
  ownerReleases: true,
  ownerAsksAgain: true,
  askingAgainRenews: true,
  overtakenReplaced: true,
  failureReleases: true,
  leaseCompared: true
}

const leaseTicks = 2
const timeoutTicks = 2

interface Process {
  readonly health: "running" | "paused" | "killed"
  readonly phase: "idle" | "waiting" | "querying" | "read" | "done"
  /** Whether the store's flight is its own. */
  readonly owns: boolean
  /** Whether it has asked in this tick. */
  readonly asked: boolean
  /** For how many ticks it has been running and wanting the answer. */
  readonly age: number
  /** What was acknowledged when it began. */
  readonly since: number
  readonly lease: number
  /** Whether it was granted the flight, and for how many ticks it has been querying. */
  readonly granted: boolean
  readonly querying: number
  readonly version: number
}

interface State {
  readonly clock: number
  readonly stamp: number | null
  readonly entry: { readonly version: number; readonly lease: number } | null
  readonly flight: { readonly lease: number; readonly age: number } | null
  readonly database: number
  readonly acknowledged: number
  readonly processes: ReadonlyArray<Process>
  readonly ticks: number
  readonly kills: number
  readonly pauses: number
  readonly lostReplies: number
}

const fresh: Process = {
  health: "running",
  phase: "idle",
  owns: false,
  asked: false,
  age: 0,
  since: 0,
  lease: 0,
  granted: false,
  querying: 0,
  version: 0
}

export const flights = (options: Options): Model<State> => {
  const { kills = 0, lostReplies = 0, pauses = 0, processes = 3, ticks = 7, writes = 1 } = options

  const overtaken = (state: State, lease: number) => state.stamp !== null && state.stamp > lease
  const working = ({ phase }: Process) => phase === "querying" || phase === "read"

  const to = (state: State, i: number, process: Partial<Process>, and?: Partial<State>): State => ({
    ...state,
    ...and,
    processes: replaced(state.processes, i, { ...state.processes[i]!, ...process })
  })
  const ended: Partial<Process> = {
    phase: "done",
    asked: false,
    lease: 0,
    granted: false,
    querying: 0,
    version: 0
  }
  const disowned = (state: State): State => ({
    ...state,
    flight: null,
    processes: state.processes.map((process) => process.owns ? { ...process, owns: false } : process)
  })
  const released = (state: State, i: number): State =>
    state.processes[i]!.owns || !options.ownerReleases ? disowned(state) : state

  const ask = (state: State, i: number, step: Step<State>) => {
    const { clock, entry, flight } = state
    const process = state.processes[i]!
    const since = process.phase === "idle" ? state.acknowledged : process.since
    if (entry !== null && !overtaken(state, entry.lease)) {
      step(
        () => `p${i} LOOKUP: hit v${entry.version}`,
        to(state, i, { ...ended, since }),
        entry.version < since && "an answer is older than what was acknowledged when it was asked for"
      )
      return
    }
    const stamp = state.stamp ?? clock
    const query: Partial<Process> = { phase: "querying", asked: false, since, lease: clock, querying: 0 }
    if (options.patience && process.age >= leaseTicks) {
      step(() => `p${i} has waited enough, lease ${clock}`, to(state, i, { ...query, granted: false }, { stamp }))
      return
    }
    const again = process.owns && options.ownerAsksAgain
    const replaces = flight !== null && options.overtakenReplaced && overtaken(state, flight.lease)
    if (flight === null || again || replaces) {
      const granted = (process: Partial<Process>): State =>
        to(
          again ? state : disowned(state),
          i,
          { ...process, owns: true },
          { stamp, flight: { lease: clock, age: again && !options.askingAgainRenews ? flight!.age : 0 } }
        )
      const rival = state.processes.some((other, j) =>
        j !== i && other.granted && working(other) && other.querying < leaseTicks && !overtaken(state, other.lease)
      )
      step(
        () => `p${i} LOOKUP: miss, lease ${clock}`,
        granted({ ...query, granted: true }),
        rival && "a flight is granted while another's query may still fill"
      )
      if (state.lostReplies < lostReplies) {
        step(() => `p${i} LOOKUP: miss, lease ${clock}, the reply is lost`, {
          ...granted({ phase: "waiting", since }),
          lostReplies: state.lostReplies + 1
        })
      }
    } else {
      const owner = state.processes.find(({ owns }) => owns)
      step(
        () => `p${i} LOOKUP: wait`,
        to(state, i, { phase: "waiting", asked: true, since }, { stamp }),
        process.owns
          ? "a process is told to wait for itself"
          : (owner === undefined || owner.phase === "done" || flight.age >= leaseTicks) ?
          "a process is told to wait for a flight that has ended"
          : overtaken(state, flight.lease) && "a process is told to wait for a lease that is overtaken"
      )
    }
  }

  const work = (state: State, i: number, step: Step<State>) => {
    const process = state.processes[i]!
    const { lease, phase, version } = process
    if (phase === "idle" || (phase === "waiting" && !process.asked)) ask(state, i, step)
    if (phase === "querying") {
      step(() => `p${i} reads v${state.database}`, to(state, i, { phase: "read", version: state.database }))
      const failed = to(state, i, ended)
      step(() => `p${i}'s query fails`, options.failureReleases ? released(failed, i) : failed)
    }
    if (phase === "read") {
      const accepted = options.leaseCompared ? !overtaken(state, lease) : process.owns
      const next = to(state, i, ended, accepted ? { entry: { version, lease } } : {})
      step(
        () => `p${i} STORE v${version}: ${accepted ? "accepted" : "refused"}`,
        released(next, i),
        accepted && version < state.acknowledged && "a fill is accepted that is older than what is acknowledged"
      )
    }
  }

  const pass = (state: State, step: Step<State>) => {
    const busy = state.processes.some(({ asked, health, phase, querying }) =>
      health === "running" &&
      ((phase === "waiting" && !asked) || phase === "read" || (phase === "querying" && querying >= timeoutTicks))
    )
    if (busy || state.ticks === ticks) return
    const { flight } = state
    const expired = flight !== null && options.expires && flight.age + 1 >= leaseTicks
    const older: State = {
      ...state,
      ticks: state.ticks + 1,
      flight: flight === null ? null : { ...flight, age: Math.min(flight.age + 1, leaseTicks) },
      processes: state.processes.map((process) => ({
        ...process,
        asked: false,
        age: process.health === "running" && (process.phase === "waiting" || working(process))
          ? process.age + 1
          : process.age,
        querying: working(process) ? Math.min(process.querying + 1, timeoutTicks) : 0
      }))
    }
    step(() => expired ? "a tick, the flight expires" : "a tick", expired ? disowned(older) : older)
  }

  const disturb = (state: State, step: Step<State>) => {
    if (state.database < writes && state.database === state.acknowledged) {
      step(() => `COMMIT v${state.database + 1}`, { ...state, database: state.database + 1 })
    }
    if (state.acknowledged < state.database) {
      const clock = state.clock + 1
      step(() => `INVALIDATE v${state.database} at clock ${clock}`, {
        ...state,
        clock,
        stamp: state.stamp === null ? null : clock,
        acknowledged: state.database
      })
    }
    for (const [i, process] of state.processes.entries()) {
      if (process.health === "paused") step(() => `p${i} goes on`, to(state, i, { health: "running" }))
      if (process.health !== "running" || !(working(process) || process.phase === "waiting")) continue
      if (state.kills < kills) {
        step(() => `p${i} is killed`, to(state, i, { health: "killed" }, { kills: state.kills + 1 }))
      }
      if (state.pauses < pauses) {
        step(() => `p${i} is paused`, to(state, i, { health: "paused" }, { pauses: state.pauses + 1 }))
      }
    }
  }

  return {
    initial: {
      clock: 0,
      stamp: null,
      entry: null,
      flight: null,
      database: 0,
      acknowledged: 0,
      processes: Array.from({ length: processes }, () => fresh),
      ticks: 0,
      kills: 0,
      pauses: 0,
      lostReplies: 0
    },
    canonical: (state) => ({ ...state, processes: sorted(state.processes) }),
    next(state, step) {
      for (let i = 0; i < processes; i++) {
        if (state.processes[i]!.health === "running") work(state, i, step)
      }
      pass(state, step)
      disturb(state, step)
    },
    wrong: (state) =>
      state.processes.some(({ age }) => age > leaseTicks + timeoutTicks)
        ? "a reader waits for longer than a lease and the query's time-out"
        : undefined,
    stuck: (state) => state.ticks < ticks ? "time stands still" : undefined
  }
}
