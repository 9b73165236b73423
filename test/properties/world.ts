/**
 * Processes of a program over one database and one store. Every step to either of them, and back, waits until it is let
 * through, so that whoever drives it decides what happens when. Time passes when it is told to.
 *
 * What may be answered is judged here, by the history of the database alone:
 *
 * - I2: no read is older than a write of its process that was acknowledged before the read began;
 * - I7: nothing is read that was not committed, but by the transaction that wrote it;
 * - I4: when all is quiet, what is served equals the database, and everything can be served;
 * - I8: whoever waits comes to an end.
 *
 * I1, that a fill which was accepted is overtaken by nothing, shows in the first and the third.
 */
import { assert } from "@effect/vitest"
import {
  CachedQuery,
  CachedSqlClient,
  type CachePolicy,
  CacheStore,
  Dependency,
  type Fingerprinter,
  Invalidator,
  type QueryAnalyzer,
  QueryCache
} from "effect-query-cache"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Reactivity from "effect/reactivity/Reactivity"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as TestClock from "effect/testing/TestClock"
import { setImmediate, setTimeout } from "node:timers/promises"
import { CacheError, StoreUnavailable } from "../../src/CacheError.ts"
import * as FlakyStore from "../support/flakyStore.ts"
import * as ModelDatabase from "../support/modelDatabase.ts"

export type Service = CacheStore.CacheStore["Service"]

export const tables = ["a", "b", "c"] as const

/** Every query with the tables it reads. */
export const queries = [
  ...tables.map((table) => ({ sql: `SELECT * FROM ${table}`, tables: [table] })),
  { sql: "SELECT * FROM a JOIN b ON true", tables: ["a", "b"] }
]

/** They share keys, and not times. */
export const policies: ReadonlyArray<CachePolicy.CachePolicy> = [
  { timeToLive: "10 minutes" },
  { timeToLive: "20 seconds", staleWhileRevalidate: "1 minute" },
  { timeToLive: "20 seconds", staleIfError: "5 minutes" },
  {
    timeToLive: "30 seconds",
    staleIfError: "2 minutes",
    softTimeout: "1 second",
    hardTimeout: "4 seconds"
  }
]

/** Nor dependencies: a store that groups entries by those has one for each. */
export const differing = policies.map((policy, i) => i === 3 ? { ...policy, tags: ["tagged"] } : policy)

export type StoreOperation = FlakyStore.Operation

export interface Options {
  /** Of each process. */
  readonly stores: ReadonlyArray<Service>
  /** Whether what is asked of the stores takes steps, and may fail. */
  readonly isStaged: boolean
  readonly namespace: string
  readonly policies: ReadonlyArray<CachePolicy.CachePolicy>
  readonly analyzer: Context.Context<QueryAnalyzer.QueryAnalyzer | Fingerprinter.Fingerprinter>
  /** A step, until it is let through. */
  readonly step: (label: string) => Effect.Effect<void>
  /** Lets one of the steps through that wait, if one does. */
  readonly letThrough: () => Promise<boolean>
  /** Whether a server that is no part of this is asked something. */
  readonly isBusy: () => boolean
  /** For how long, by the real clock, somebody is waited for who has told the store nothing. */
  readonly flightMillis: number
  readonly lostCommit: ModelDatabase.Nature["lostCommit"]
  readonly straggles: ModelDatabase.Nature["straggles"]
}

interface Process {
  readonly context: Context.Context<CachedSqlClient.Services>
  readonly versions: CachedQuery.CachedQuery<string, number, SqlError>
  /** Of each table, how far its history was when a write was acknowledged. */
  readonly acknowledged: Map<string, number>
}

/** What a process is asked to do. Gives what is told of it. */
type Task = (process: Process) => Effect.Effect<string, unknown, SqlClient.SqlClient | Invalidator.Invalidator>

export class World {
  readonly counts: Record<string, number> = {}
  private readonly options: Options
  private readonly model: ModelDatabase.Model
  private readonly flaky: ReadonlyArray<FlakyStore.FlakyStore>
  private readonly processes: ReadonlyArray<Process>
  private readonly context: Context.Context<never>
  private readonly running = new Set<Fiber.Fiber<string, unknown>>()
  private readonly state: State
  private defect: unknown
  private versions = 0

  constructor(
    options: Options,
    model: ModelDatabase.Model,
    flaky: ReadonlyArray<FlakyStore.FlakyStore>,
    processes: ReadonlyArray<Process>,
    context: Context.Context<never>,
    state: State
  ) {
    this.options = options
    this.model = model
    this.flaky = flaky
    this.processes = processes
    this.context = context
    this.state = state
  }

  // ---------------------------------------------------------------------------
  // what is asked
  // ---------------------------------------------------------------------------

  readonly read = (query: number, policy: number): Task => (process) =>
    this.reading(
      process,
      queries[query].tables,
      policies[policy].hardTimeout !== undefined,
      (sql) =>
        sql.unsafe<Record<string, number>>(queries[query].sql).pipe(
          QueryCache.cached(this.options.policies[policy]),
          Effect.map(([row]) => queries[query].tables.map((table) => row[table]))
        )
    )

  readonly get = (wanted: ReadonlyArray<string>): Task => (process) =>
    this.reading(process, wanted, false, () => process.versions.getMany(wanted))

  readonly refresh = (table: string): Task => (process) =>
    this.reading(process, [table], false, () => Effect.map(process.versions.refresh(table), (version) => [version]))

  readonly write = (table: string): Task => (process) =>
    this.writing(process, Effect.map(this.update(table), (version) => new Map([[table, version]])))

  readonly updateByKey = (table: string): Task => (process) =>
    this.writing(
      process,
      Effect.map(process.versions.update(table, this.update(table)), (version) => new Map([[table, version]]))
    )

  readonly forget = (table: string): Task => (process) => Effect.as(process.versions.invalidate(table), "forgotten")

  readonly invalidate = (targets: Invalidator.InvalidationTargets): Task => () =>
    Effect.as(Invalidator.invalidate(targets), "invalidated")

  readonly transaction = (wanted: ReadonlyArray<string>, fails: boolean): Task => (process) =>
    this.writing(
      process,
      Effect.flatMap(SqlClient.SqlClient, (sql) =>
        sql.withTransaction(Effect.gen({ self: this }, function*() {
          const written = new Map<string, number>()
          for (const table of wanted) {
            written.set(table, yield* this.update(table))
            // Nobody else may ever see this before it is committed.
            const [row] = yield* sql.unsafe<Record<string, number>>(`SELECT * FROM ${table}`).pipe(QueryCache.cached())
            assert.strictEqual(row[table], written.get(table))
            assert.strictEqual(yield* process.versions.get(table), written.get(table))
          }
          return fails ? yield* Effect.fail("rolled back") : written
        })))
    )

  private update(table: string) {
    return Effect.flatMap(SqlClient.SqlClient, (sql) => {
      const version = ++this.versions
      return Effect.as(sql.unsafe(`UPDATE ${table} SET version = $1`, [version]), version)
    })
  }

  private reading(
    process: Process,
    wanted: ReadonlyArray<string>,
    mayTimeOut: boolean,
    read: (sql: SqlClient.SqlClient) => Effect.Effect<ReadonlyArray<number>, SqlError>
  ) {
    return Effect.gen({ self: this }, function*() {
      const floor = new Map(process.acknowledged)
      const { refusals } = this.state
      const sql = yield* SqlClient.SqlClient
      const exit = yield* Effect.exit(QueryCache.withInfo(read(sql)))
      if (Exit.isFailure(exit)) {
        assert(
          Cause.hasInterrupts(exit.cause) || mayTimeOut || this.state.refusals > refusals,
          `a read fails for no reason: ${Cause.pretty(exit.cause)}`
        )
        return yield* Exit.failCause(exit.cause)
      }
      const [infos, seen] = exit.value
      wanted.forEach((table, i) => {
        const at = this.model.history(table).indexOf(seen[i])
        assert.isAtLeast(at, 0, `${table} never was ${seen[i]}`)
        assert.isAtLeast(at, floor.get(table) ?? 0, `${table} is older than what was acknowledged`)
      })
      const fates = infos.map(({ reason, status }) => status === "bypass" ? `${status} ${reason}` : status)
      for (const { status } of infos) this.counts[status] = (this.counts[status] ?? 0) + 1
      return `${fates.sort().join()}: ${seen.join()}`
    })
  }

  private writing<R>(process: Process, write: Effect.Effect<ReadonlyMap<string, number>, unknown, R>) {
    return Effect.map(write, (written) => {
      for (const [table, version] of written) {
        const at = this.model.history(table).indexOf(version)
        assert.isAtLeast(at, 0, `${table} ${version} was acknowledged and is not there`)
        process.acknowledged.set(table, Math.max(at, process.acknowledged.get(table) ?? 0))
      }
      return "written"
    })
  }

  // ---------------------------------------------------------------------------
  // what happens
  // ---------------------------------------------------------------------------

  /** Begins a task in a process. */
  begin(task: Task, process: number): Fiber.Fiber<string, unknown> {
    const of = this.processes[process % this.processes.length]
    const fiber = Effect.runForkWith(Context.merge(this.context, of.context))(task(of))
    this.running.add(fiber)
    fiber.addObserver((exit) => {
      this.running.delete(fiber)
      if (Exit.isFailure(exit) && Cause.hasDies(exit.cause)) this.defect ??= Cause.squash(exit.cause)
    })
    return fiber
  }

  /** One of those who wait leaves. */
  interrupt(which: number): void {
    const fibers = [...this.running]
    if (fibers.length > 0) fibers[which % fibers.length].interruptUnsafe()
  }

  /** Lets so many steps through, one after the other. */
  async letThrough(count: number): Promise<void> {
    for (let i = 0; i < count && await this.options.letThrough(); i++) await this.settle()
  }

  async pass(millis: number): Promise<void> {
    await Effect.runPromiseWith(this.context)(TestClock.adjust(millis))
    await this.settle()
  }

  /** The same in short steps at first: what is tried again in one is not over its time in the same. */
  async passSlowly(millis: number): Promise<void> {
    const slowlyMillis = Math.min(millis, 7_000)
    for (let passed = 0; passed < slowlyMillis; passed += 100) await this.pass(100)
    if (millis > slowlyMillis) await this.pass(millis - slowlyMillis)
  }

  breaks(operation: StoreOperation, how: "fails" | "hangs"): void {
    if (!this.options.isStaged) return
    const { step } = this.options
    for (const { set } of this.flaky) set(operation, (proceed) => Effect.andThen(step(operation), faults[how](proceed)))
  }

  mend(): void {
    if (!this.options.isStaged) return
    for (const { set } of this.flaky) {
      for (const operation of operations) set(operation, staged(this.options.step, operation))
    }
  }

  /** Whether the database refuses everything from now on. */
  refuse(refuses: boolean): void {
    this.state.refuses = refuses
  }

  /** Waits until nothing goes on but by a step, or by time. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 4; quiet++) {
      const { steps } = this.state
      await setImmediate()
      if (this.options.isBusy() || steps !== this.state.steps) quiet = 0
    }
    if (this.defect !== undefined) throw this.defect
  }

  /** Lets everything through, and time pass where that does not help, until all tasks have ended: soon enough. */
  async finish(): Promise<void> {
    await this.settle()
    for (let waits = 0; this.running.size > 0;) {
      if (await this.options.letThrough()) {
        await this.settle()
      } else {
        assert.isBelow(waits++, 1_200, "somebody waits without end")
        await this.pass(50)
      }
    }
  }

  /** All that is under way ends, in doubt or undelivered. Then what is served equals the database. */
  async rest(): Promise<void> {
    this.mend()
    this.refuse(false)
    await this.finish()
    // What was filled wrongly may be too old soon.
    for (const place of this.processes.keys()) {
      for (const query of queries.keys()) this.begin(this.read(query, 0), place)
      for (const table of tables) this.begin(this.get([table]), place)
      await this.finish()
    }
    for (let i = 0; i < 450; i++) {
      await this.passSlowly(100)
      await this.letThrough(Infinity)
    }
    await setTimeout(this.options.flightMillis)
    for (const [place, process] of this.processes.entries()) {
      const asks = [
        ...queries.flatMap((query, i) =>
          this.options.policies.map((_, policy) => ({ task: this.read(i, policy), tables: query.tables }))
        ),
        ...tables.map((table) => ({ task: this.get([table]), tables: [table] }))
      ]
      for (const { task, tables } of asks) {
        let told = ""
        // What is stale is served once more, and read anew.
        for (let i = 0; i < 5 && !told.startsWith("hit"); i++) {
          const fiber = this.begin(task, place)
          await this.finish()
          const exit = fiber.pollUnsafe()
          assert(exit !== undefined && Exit.isSuccess(exit), String(exit))
          told = exit.value
          assert.strictEqual(told.split(": ")[1], tables.map((table) => this.model.history(table).at(-1)).join())
          await this.letThrough(Infinity)
        }
        assert.match(told, /^hit/)
      }
      const stats = await Effect.runPromise(Context.get(process.context, QueryCache.QueryCache).stats)
      assert.strictEqual(stats.undelivered, 0)
    }
  }
}

interface State {
  refuses: boolean
  /** How often the database has refused. */
  refusals: number
  /** How many steps there were. */
  steps: number
  /** Nobody is there any more to let a step through. */
  isOver: boolean
}

const operations: ReadonlyArray<StoreOperation> = ["lookup", "store", "invalidate"]

const faults: Record<"fails" | "hangs", FlakyStore.Fault> = {
  fails: () =>
    Effect.fail(new CacheError({ operation: "lookup", reason: new StoreUnavailable({ message: "unavailable" }) })),
  hangs: () => Effect.never
}

const staged = (step: Options["step"], operation: StoreOperation): FlakyStore.Fault => (proceed) =>
  step(`to ${operation}`).pipe(
    Effect.andThen(proceed),
    Effect.tap(() => operation === "lookup" ? Effect.void : step(`from ${operation}`))
  )

/** A store whose outcomes take a step to whoever asks. What it would tell to somebody who has left it takes back. */
const answering = (store: Service, step: Options["step"]): Service => ({
  ...store,
  lookup: (key, dependencies, maxAgeMillis) =>
    Effect.tap(
      store.lookup(key, dependencies, maxAgeMillis),
      ({ lease }) => Effect.onInterrupt(step("from lookup"), () => Effect.ignore(store.release(key, lease, "next")))
    ),
  lookupMany: (requests) =>
    Effect.tap(
      store.lookupMany(requests),
      (outcomes) =>
        Effect.onInterrupt(step("from lookup"), () =>
          Effect.forEach(outcomes, ({ lease }, i) => Effect.ignore(store.release(requests[i].key, lease, "next"))))
    )
})

export const make = Effect.fnUntraced(function*(
  given: Options
): Effect.fn.Return<World, never, Scope.Scope | Reactivity.Reactivity> {
  const state: State = { refuses: false, refusals: 0, steps: 0, isOver: false }
  const step = (label: string) =>
    Effect.suspend(() => {
      state.steps++
      return state.isOver ? Effect.void : given.step(label)
    })
  const options = { ...given, step }
  const model = yield* ModelDatabase.make({
    wait: () => step("database"),
    lostCommit: given.lostCommit,
    straggles: given.straggles,
    later: Effect.sleep("3 seconds"),
    refuses: () => {
      if (state.refuses) state.refusals++
      return state.refuses
    }
  })
  const flaky = given.stores.map((store) =>
    FlakyStore.make(given.isStaged ? answering(store, step) : store, given.isStaged || store.shared)
  )
  const processes = yield* Effect.forEach(flaky, ({ store }) =>
    Effect.gen(function*() {
      const context = yield* Layer.build(
        CachedSqlClient.layerNoDeps({ namespace: given.namespace, catalogInterval: false }).pipe(
          Layer.provide(ModelDatabase.layerClient(model)),
          Layer.provide(Layer.succeedContext(given.analyzer)),
          Layer.provide(Layer.succeed(CacheStore.CacheStore, store))
        )
      )
      const sql = Context.get(context, SqlClient.SqlClient)
      const versions = yield* CachedQuery.make<string, number, SqlError>("version", {
        Key: Schema.String,
        Value: Schema.Number,
        lookup: (table) =>
          Effect.map(sql.unsafe<Record<string, number>>(`SELECT * FROM ${table}`), ([row]) => row[table]),
        dependencies: (table) => [Dependency.table(table)],
        timeToLive: "40 seconds",
        staleWhileRevalidate: "30 seconds",
        staleIfError: "3 minutes",
        tags: ["tagged"]
      }).pipe(Effect.provideContext(context))
      return { context, versions, acknowledged: new Map<string, number>() } as Process
    }))
  const world = new World(options, model, flaky, processes, yield* Effect.context<never>(), state)
  world.mend()
  // Before the processes end, which have something to tell the store.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      state.isOver = true
      world.mend()
    })
  )
  return world
})
