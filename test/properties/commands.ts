/** What can happen, as commands that fast-check puts in a row, shrinks and replays. */
import * as FastCheck from "fast-check"
import { policies, queries, type StoreOperation, tables, type World } from "./world.ts"

export type Action =
  | { readonly _tag: "Read"; readonly process: number; readonly query: number; readonly policy: number }
  | {
    readonly _tag: "Get" | "Transaction" | "RolledBack"
    readonly process: number
    readonly tables: ReadonlyArray<string>
  }
  | { readonly _tag: "Write" | "Update" | "Refresh" | "Forget"; readonly process: number; readonly table: string }
  | { readonly _tag: "Invalidate"; readonly process: number; readonly what: "tables" | "tags" | "all" }
  | { readonly _tag: "Interrupt"; readonly which: number }
  | { readonly _tag: "Steps"; readonly count: number }
  | { readonly _tag: "Time"; readonly millis: number }
  | { readonly _tag: "Break"; readonly operation: StoreOperation; readonly how: "fails" | "hangs" }
  | { readonly _tag: "Mend" | "Refuse" | "Relent" | "Disrupt" }

const targets = { tables: { tables: ["c"] }, tags: { tags: ["tagged"] }, all: { all: true } } as const

/** What an action asks of a process, where it does. */
export const taskOf = (world: World, action: Action) => {
  switch (action._tag) {
    case "Read":
      return world.read(action.query, action.policy)
    case "Get":
      return world.get(action.tables)
    case "Transaction":
      return world.transaction(action.tables, false)
    case "RolledBack":
      return world.transaction(action.tables, true)
    case "Write":
      return world.write(action.table)
    case "Update":
      return world.updateByKey(action.table)
    case "Refresh":
      return world.refresh(action.table)
    case "Forget":
      return world.forget(action.table)
    case "Invalidate":
      return world.invalidate(targets[action.what])
    default:
      return undefined
  }
}

/** What an action does else. */
export const happen = async (world: World, action: Action, disrupt: () => Promise<unknown>): Promise<void> => {
  switch (action._tag) {
    case "Interrupt":
      return world.interrupt(action.which)
    case "Steps":
      return world.letThrough(action.count)
    case "Time":
      return world.pass(action.millis)
    case "Break":
      return world.breaks(action.operation, action.how)
    case "Mend":
      return world.mend()
    case "Refuse":
      return world.refuse(true)
    case "Relent":
      return world.refuse(false)
    case "Disrupt":
      await disrupt()
  }
}

/** A command for each action. */
export class Command<Real> implements FastCheck.AsyncCommand<object, Real> {
  readonly action: Action
  private readonly perform: (action: Action, real: Real) => Promise<void>

  constructor(action: Action, perform: (action: Action, real: Real) => Promise<void>) {
    this.action = action
    this.perform = perform
  }

  check(): boolean {
    return true
  }

  run(_: object, real: Real): Promise<void> {
    return this.perform(this.action, real)
  }

  toString(): string {
    const { _tag, ...rest } = this.action
    return `${_tag}(${Object.values(rest).join()})`
  }
}

const of = <Tag extends Action["_tag"]>(
  tags: ReadonlyArray<Tag>,
  rest: Record<string, FastCheck.Arbitrary<unknown>> = {}
): FastCheck.Arbitrary<Action> =>
  FastCheck.record({ _tag: FastCheck.constantFrom(...tags), ...rest }) as FastCheck.Arbitrary<any>

export interface Choice {
  readonly processes: number
  /** What is asked takes its time, so that others ask meanwhile, or leave. */
  readonly isConcurrent: boolean
  readonly times: ReadonlyArray<number>
  /** What goes wrong with the store, if not its calls. */
  readonly disrupts: boolean
}

export const action = ({ disrupts, isConcurrent, processes, times }: Choice): FastCheck.Arbitrary<Action> => {
  const process = FastCheck.nat(processes - 1)
  const table = FastCheck.constantFrom(...tables)
  const some = FastCheck.subarray([...tables], { minLength: 1 })
  const query = FastCheck.nat(queries.length - 1)
  const policy = FastCheck.nat(policies.length - 1)
  // What is at hand is served though nobody may be asked, and not all stores have it at hand.
  const operation = FastCheck.constantFrom("store", "invalidate", ...(isConcurrent ? ["lookup"] : []))
  const how = isConcurrent ? FastCheck.constantFrom("fails", "hangs") : FastCheck.constant("fails")
  const weighted = (weight: number, arbitrary: FastCheck.Arbitrary<Action>) => ({ weight, arbitrary })
  return FastCheck.oneof(
    weighted(14, of(["Read"], { process, query, policy })),
    weighted(6, of(["Get"], { process, tables: some })),
    weighted(3, of(["Write", "Update"], { process, table })),
    weighted(2, of(["Refresh", "Forget"], { process, table })),
    weighted(2, of(["Transaction", "RolledBack"], { process, tables: some })),
    weighted(1, of(["Invalidate"], { process, what: FastCheck.constantFrom("tables", "tags", "all") })),
    weighted(5, of(["Time"], { millis: FastCheck.constantFrom(...times) })),
    weighted(1, of(["Break"], { operation, how })),
    weighted(2, of(["Mend"])),
    weighted(1, of(["Refuse"])),
    weighted(2, of(["Relent"])),
    weighted(isConcurrent ? 24 : 0, of(["Steps"], { count: FastCheck.integer({ min: 1, max: 6 }) })),
    weighted(isConcurrent ? 3 : 0, of(["Interrupt"], { which: FastCheck.nat(5) })),
    weighted(disrupts ? 1 : 0, of(["Disrupt"]))
  )
}
