// The processes of a run, as the one that runs it sees them: started, told what to do, stopped, killed and started again.
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import { closeSync, openSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import type * as History from "./history.ts"
import type { Sabotage } from "./sabotage.ts"
import type { Action, Step } from "./steps.ts"
import type { Connection, Fault, Topology } from "./topology.ts"

export interface WorkerSettings {
  readonly process: string
  /** Where it writes its history. */
  readonly directory: string
  readonly mode: History.Mode
  readonly connection: Connection
  readonly database: {
    readonly host: string
    readonly port: number
    readonly username: string
    readonly database: string
  }
  readonly seed: number
  readonly maxStalenessMillis: number
  readonly timeToLiveMillis: number
  readonly flightMillis: number
  /** How many fibers read and write, and how long each pauses on average in between. */
  readonly readers: number
  readonly writers: number
  readonly readMillis: number
  readonly writeMillis: number
  readonly sabotage?: Sabotage | undefined
}

/** What a process is told. */
export type Order =
  /** To do something to itself at a step, or not to. */
  | { readonly type: "arm"; readonly step?: Step; readonly action?: Action }
  /** To write no more. */
  | { readonly type: "write" }
  /** To neither read nor write any more, and to say when all that was begun has ended. */
  | { readonly type: "stop" }
  | { readonly type: "tell" }
  /** To read everything there is, twice. */
  | { readonly type: "quiet" }

export type Answer =
  | { readonly type: "ready" }
  | { readonly type: "gate"; readonly step: Step }
  | { readonly type: "stopped" }
  | { readonly type: "told"; readonly undelivered: number; readonly open: ReadonlyArray<string> }
  | { readonly type: "quiet" }

export interface Member {
  readonly place: number
  /** The name of the process that is there now. */
  readonly process: () => string
  readonly faults: () => ReadonlyArray<Fault>
  readonly tell: (order: Order) => Effect.Effect<void>
  /** Tells something, and waits for the next answer of a kind: for so long. */
  readonly ask: <T extends Answer["type"]>(
    order: Order,
    type: T,
    millis: number
  ) => Effect.Effect<Option.Option<Extract<Answer, { readonly type: T }>>>
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Kills it, if it has not killed itself, and starts another in its place. */
  readonly replace: Effect.Effect<void>
}

export const make = Effect.fnUntraced(function*(
  place: number,
  topology: Topology,
  settings: Omit<WorkerSettings, "process" | "connection">,
  /** A process ended although nobody had ended it. */
  died: (process: string, how: string) => void
): Effect.fn.Return<Member, never, Scope.Scope> {
  const outer = yield* Effect.scope
  let incarnation = 0
  let process = ""
  let child: ChildProcess
  let faults: ReadonlyArray<Fault> = []
  let scope = Scope.makeUnsafe()
  let isEnding = false
  const waiters = new Map<Answer["type"], Deferred.Deferred<any>>()

  const expect = (type: Answer["type"]): Effect.Effect<any> => {
    let waiter = waiters.get(type)
    if (waiter === undefined) waiters.set(type, waiter = Deferred.makeUnsafe())
    return Deferred.await(waiter)
  }
  const tell: Member["tell"] = (order) => Effect.sync(() => void child.stdin!.write(`${JSON.stringify(order)}\n`))
  const start = Effect.gen(function*() {
    scope = Scope.makeUnsafe()
    const reached = yield* Effect.provideService(topology.connect, Scope.Scope, scope)
    faults = reached.faults
    const name = process = `${place}.${incarnation++}`
    const errors = join(settings.directory, `${name}.err`)
    const stderr = openSync(errors, "w")
    const all: WorkerSettings = {
      ...settings,
      process: name,
      connection: reached.connection,
      seed: settings.seed + place * 1000 + incarnation
    }
    const started = child = spawn(globalThis.process.execPath, [join(import.meta.dirname, "worker.ts")], {
      env: { PATH: globalThis.process.env.PATH, CHAOS: JSON.stringify(all) },
      stdio: ["pipe", "pipe", stderr]
    })
    closeSync(stderr)
    isEnding = false
    started.stdin!.on("error", () => {})
    started.once("exit", (code, signal) => {
      if (started !== child || isEnding || signal === "SIGKILL") return
      died(name, `${signal ?? code}: ${readFileSync(errors, "utf8").slice(-2000)}`)
    })
    const ready = expect("ready")
    createInterface({ input: started.stdout! }).on("line", (line) => {
      const answer: Answer = JSON.parse(line)
      const waiter = waiters.get(answer.type)
      waiters.delete(answer.type)
      if (waiter !== undefined) Deferred.doneUnsafe(waiter, Effect.succeed(answer))
    })
    yield* ready
  })
  const end = Effect.suspend(() => {
    isEnding = true
    const ending = child
    const exited = ending.exitCode !== null || ending.signalCode !== null
      ? Effect.void
      : Effect.callback<void>((resume) => {
        ending.once("exit", () => resume(Effect.void))
        ending.kill("SIGKILL")
      })
    waiters.clear()
    return Effect.andThen(exited, Scope.close(scope, Exit.void))
  })
  yield* start
  yield* Scope.addFinalizer(outer, end)
  return {
    place,
    process: () => process,
    faults: () => faults,
    tell,
    ask: (order, type, millis) =>
      Effect.suspend(() => {
        const answer = expect(type)
        return Effect.andThen(tell(order), Effect.timeoutOption(answer, millis))
      }),
    signal: (signal) => Effect.sync(() => void child.kill(signal)),
    replace: Effect.andThen(end, start)
  }
})
