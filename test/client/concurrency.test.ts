/**
 * Readers, writers and a store that fails, in any order that chance brings: what a read may answer, and what may be
 * served when all is quiet.
 */
import { assert, describe, it } from "@effect/vitest"
import {
  CachedSqlClient,
  CacheStore,
  Fingerprinter,
  Invalidator,
  QueryAnalyzer,
  QueryCache,
  RedisStore
} from "effect-query-cache"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import * as TestClock from "effect/testing/TestClock"
import * as FastCheck from "fast-check"
import { CacheError, StoreUnavailable } from "../../src/CacheError.ts"
import * as FlakyStore from "../support/flakyStore.ts"
import * as Logs from "../support/logs.ts"
import * as ModelDatabase from "../support/modelDatabase.ts"
import * as RedisServers from "../support/redis.ts"
import { fateOf } from "./fixture.ts"

const tables = ["a", "b", "c"]

/** Every query with the tables it reads, under policies that share keys and not dependencies. */
const queries = [
  ...tables.map((table) => ({ sql: `SELECT * FROM ${table}`, tables: [table], tags: [] })),
  { sql: "SELECT * FROM a", tables: ["a"], tags: ["tagged"] },
  { sql: "SELECT * FROM a JOIN b ON true", tables: ["a", "b"], tags: [] }
]

const operations = ["lookup", "store", "invalidate"] as const

type Step =
  | { readonly _tag: "Read"; readonly query: number; readonly patience: number | undefined }
  | { readonly _tag: "Write"; readonly table: string; readonly patience: number | undefined }
  | {
    readonly _tag: "Transaction"
    readonly tables: ReadonlyArray<string>
    readonly fails: boolean
    readonly patience: number | undefined
  }
  | { readonly _tag: "Invalidate"; readonly all: boolean }
  | { readonly _tag: "Break"; readonly operation: typeof operations[number]; readonly how: "fails" | "hangs" }
  | { readonly _tag: "Mend" }

interface Program {
  /** What each of the actors does, one step after the other. */
  readonly actors: ReadonlyArray<ReadonlyArray<Step>>
  /** Milliseconds that the ways there and back take, one after the other. */
  readonly waits: ReadonlyArray<number>
  /** How COMMITs end, in their order. */
  readonly commits: ReadonlyArray<"committed" | "committed later" | "aborted" | undefined>
  readonly straggles: ReadonlyArray<boolean>
}

const patience = FastCheck.option(FastCheck.nat(30), { nil: undefined, freq: 6 })

const step = (options: { readonly breaks: boolean; readonly impatientWriters: boolean }): FastCheck.Arbitrary<Step> =>
  FastCheck.oneof(
    {
      weight: 12,
      arbitrary: FastCheck.record({
        _tag: FastCheck.constant("Read" as const),
        query: FastCheck.nat(queries.length - 1),
        patience
      })
    },
    {
      weight: 4,
      arbitrary: FastCheck.record({
        _tag: FastCheck.constant("Write" as const),
        table: FastCheck.constantFrom(...tables),
        patience: options.impatientWriters ? patience : FastCheck.constant(undefined)
      })
    },
    {
      weight: 4,
      arbitrary: FastCheck.record({
        _tag: FastCheck.constant("Transaction" as const),
        tables: FastCheck.array(FastCheck.constantFrom(...tables), { minLength: 1, maxLength: 3 }),
        fails: FastCheck.boolean(),
        patience: options.impatientWriters ? patience : FastCheck.constant(undefined)
      })
    },
    {
      weight: 1,
      arbitrary: FastCheck.record({ _tag: FastCheck.constant("Invalidate" as const), all: FastCheck.boolean() })
    },
    {
      weight: options.breaks ? 1 : 0,
      arbitrary: FastCheck.record({
        _tag: FastCheck.constant("Break" as const),
        operation: FastCheck.constantFrom(...operations),
        how: FastCheck.constantFrom("fails" as const, "hangs" as const)
      })
    },
    { weight: options.breaks ? 2 : 0, arbitrary: FastCheck.record({ _tag: FastCheck.constant("Mend" as const) }) }
  )

const program = (options: {
  readonly breaks: boolean
  readonly impatientWriters: boolean
  readonly longestWait: number
}): FastCheck.Arbitrary<Program> =>
  FastCheck.record({
    actors: FastCheck.array(FastCheck.array(step(options), { minLength: 3, maxLength: 15, size: "max" }), {
      minLength: 3,
      maxLength: 6,
      size: "max"
    }),
    waits: FastCheck.array(
      FastCheck.oneof(
        { weight: 8, arbitrary: FastCheck.nat(3) },
        { weight: 1, arbitrary: FastCheck.nat(options.longestWait) }
      ),
      { minLength: 7, maxLength: 97, size: "max" }
    ),
    commits: FastCheck.array(
      FastCheck.oneof(
        { weight: 5, arbitrary: FastCheck.constant(undefined) },
        {
          weight: options.impatientWriters ? 1 : 0,
          arbitrary: FastCheck.constantFrom("committed" as const, "committed later" as const, "aborted" as const)
        }
      ),
      { minLength: 1, maxLength: 11, size: "max" }
    ),
    straggles: FastCheck.array(FastCheck.boolean(), { minLength: 1, maxLength: 5, size: "max" })
  })

/** The next of a list, again and again. */
const cycle = <A>(list: ReadonlyArray<A>): () => A => {
  let next = 0
  return () => list[next++ % list.length]
}

const faults: Record<"fails" | "hangs", FlakyStore.Fault> = {
  fails: () =>
    Effect.fail(new CacheError({ operation: "lookup", reason: new StoreUnavailable({ message: "unavailable" }) })),
  hangs: () => Effect.never
}

const totals = () => ({ hits: 0, misses: 0, joined: 0, bypasses: 0, fills: 0, refusedFills: 0, storeErrors: 0 })

interface World {
  /** The store of one more process. */
  readonly store: Effect.Effect<CacheStore.CacheStore["Service"], never, Scope.Scope>
  readonly analyzer: Context.Context<QueryAnalyzer.QueryAnalyzer | Fingerprinter.Fingerprinter>
  readonly processes: number
  readonly timeouts?: { readonly lookupTimeout: "5 seconds"; readonly invalidationTimeout: "5 seconds" }
  /** What goes wrong with the store, if not its calls. */
  readonly disrupt?: Effect.Effect<unknown>
  /** Lets time pass until the fibers have ended. */
  readonly run: (fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>) => Effect.Effect<void>
  /** Lets time pass until nothing is under way, in doubt or undelivered any more. */
  readonly calm: Effect.Effect<void>
  readonly counted: ReturnType<typeof totals>
}

const play = (world: World, { actors, commits, straggles, waits }: Program) =>
  Effect.gen(function*() {
    const nextWait = cycle(waits)
    const wait = Effect.suspend(() => {
      const millis = nextWait()
      return millis === 0 ? Effect.yieldNow : Effect.sleep(millis)
    })
    const onItsWay: FlakyStore.Fault = (proceed) => wait.pipe(Effect.andThen(proceed), Effect.tap(() => wait))
    const stores = yield* Effect.all(
      Array.from({ length: world.processes }, () => Effect.map(world.store, (store) => FlakyStore.make(store)))
    )
    const behave = (fault: FlakyStore.Fault | undefined) => {
      for (const operation of operations) stores.forEach((store) => store.set(operation, fault))
    }
    behave(onItsWay)
    const model = yield* ModelDatabase.make({
      wait: () => wait,
      lostCommit: cycle(commits),
      straggles: cycle(straggles),
      later: Effect.suspend(() => Effect.sleep(100 * nextWait()))
    })
    const processes = yield* Effect.forEach(stores, ({ store }) =>
      Layer.build(
        CachedSqlClient.layerNoDeps({
          namespace: `model ${runs}`,
          policy: { timeToLive: "1 day" },
          catalogInterval: false,
          ...world.timeouts
        })
          .pipe(
            Layer.provide(ModelDatabase.layerClient(model)),
            Layer.provide(Layer.succeedContext(world.analyzer)),
            Layer.provide(Layer.succeed(CacheStore.CacheStore, store))
          )
      ))
    runs++

    let versions = 0

    const actor = (
      context: Context.Context<SqlClient.SqlClient | Invalidator.Invalidator>,
      steps: ReadonlyArray<Step>,
      acknowledged: Map<string, number>
    ) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const read = (query: number) =>
          sql.unsafe<Record<string, number>>(queries[query].sql).pipe(QueryCache.cached({ tags: queries[query].tags }))
        const write = (table: string) => {
          const version = ++versions
          return Effect.as(sql.unsafe(`UPDATE ${table} SET version = $1`, [version]), version)
        }
        const acknowledge = (table: string, version: number) => {
          const at = model.history(table).indexOf(version)
          assert.isAtLeast(at, 0, `${table} ${version} was acknowledged and is not there`)
          acknowledged.set(table, Math.max(at, acknowledged.get(table) ?? 0))
        }
        const impatient = <A, E, R>(effect: Effect.Effect<A, E, R>, patience: number | undefined) =>
          Effect.flatMap(
            Effect.exit(patience === undefined ? effect : Effect.timeout(effect, patience)),
            // An assertion inside, or a defect of the client's.
            (exit) =>
              Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? Effect.failCause(exit.cause) : Effect.succeed(exit)
          )

        for (const step of steps) {
          yield* wait
          switch (step._tag) {
            case "Read": {
              const floor = new Map(acknowledged)
              const exit = yield* impatient(read(step.query), step.patience)
              if (Exit.isFailure(exit)) {
                assert.isDefined(step.patience, String(exit))
                break
              }
              for (const table of queries[step.query].tables) {
                const at = model.history(table).indexOf(exit.value[0][table])
                assert.isAtLeast(at, 0, `${table} never was ${exit.value[0][table]}`)
                assert.isAtLeast(at, floor.get(table) ?? 0, `${table} is older than what was acknowledged`)
              }
              break
            }
            case "Write": {
              const exit = yield* impatient(write(step.table), step.patience)
              if (Exit.isSuccess(exit)) acknowledge(step.table, exit.value)
              break
            }
            case "Transaction": {
              const exit = yield* impatient(
                sql.withTransaction(Effect.gen(function*() {
                  const written = new Map<string, number>()
                  for (const table of step.tables) {
                    written.set(table, yield* write(table))
                    // Nobody else may ever see this before it is committed.
                    const [row] = yield* read(tables.indexOf(table))
                    assert.strictEqual(row[table], written.get(table))
                  }
                  return step.fails ? yield* Effect.fail("rolled back") : written
                })),
                step.patience
              )
              if (Exit.isSuccess(exit)) exit.value.forEach((version, table) => acknowledge(table, version))
              break
            }
            case "Invalidate":
              yield* Invalidator.invalidate(step.all ? { all: true } : { tags: ["tagged"], tables: ["c"] })
              break
            case "Break":
              if (world.disrupt !== undefined) yield* world.disrupt
              else {stores.forEach(({ set }) =>
                  set(step.operation, (proceed) => Effect.andThen(wait, faults[step.how](proceed)))
                )}
              break
            case "Mend":
              behave(onItsWay)
          }
        }
      }).pipe(Effect.provideContext(context))

    const known = processes.map(() => new Map<string, number>())
    const fibers = yield* Effect.forEach(actors, (steps, i) =>
      Effect.forkChild(actor(processes[i % processes.length], steps, known[i % processes.length])))
    yield* world.run(fibers)
    // A wrong answer fails its actor.
    yield* Fiber.joinAll(fibers)

    behave(undefined)
    yield* world.calm
    for (const context of processes) {
      const ask = Effect.fnUntraced(function*({ sql: text, tables, tags }: typeof queries[number]) {
        const reading = fateOf(Effect.flatMap(
          SqlClient.SqlClient,
          (sql) =>
            sql.unsafe<Record<string, number>>(text).pipe(QueryCache.cached({ tags }))
        ))
        const asking = yield* Effect.forkChild(
          Effect.delay(reading, "2 millis").pipe(Effect.provideContext(context))
        )
        yield* world.run([asking])
        const [fate, [row]] = yield* Fiber.join(asking)
        for (const table of tables) {
          assert.strictEqual(row[table], model.history(table).at(-1), table)
        }
        return fate
      })
      for (const query of queries) {
        // Until its fill has been judged, it is joined.
        let fate = yield* ask(query)
        for (let i = 0; i < 99 && fate !== "hit"; i++) {
          fate = yield* ask(query)
        }
        assert.strictEqual(fate, "hit", query.sql)
      }
      const stats = yield* Context.get(context, QueryCache.QueryCache).stats
      assert.strictEqual(stats.undelivered, 0)
      for (const name in world.counted) {
        world.counted[name as keyof typeof world.counted] += stats[name as keyof typeof world.counted]
      }
    }
  }).pipe(Effect.scoped, Effect.provide(Reactivity.layer))

let runs = 0

const check = (world: World, programs: FastCheck.Arbitrary<Program>, parameters: FastCheck.Parameters<[Program]>) =>
  Effect.gen(function*() {
    const context = yield* Effect.context<never>()
    yield* Effect.promise(() =>
      FastCheck.assert(
        FastCheck.asyncProperty(programs, (program) => Effect.runPromiseWith(context)(play(world, program))),
        parameters
      )
    )
  })

const analyzer = Layer.build(Layer.merge(QueryAnalyzer.layer(), Fingerprinter.layer))

describe("any interleaving", () => {
  it.effect("in this process: no read is older than what was acknowledged, none was rolled back, all is right at last", () =>
    Effect.gen(function*() {
      const counted = totals()
      // Whoever can go on does so before time does.
      const until = (done: () => boolean) =>
        Effect.gen(function*() {
          while (!done()) {
            yield* Effect.repeat(Effect.yieldNow, { times: 12 })
            yield* TestClock.adjust(1)
          }
        })
      yield* check(
        {
          store: Effect.map(
            Layer.build(Layer.fresh(CacheStore.layerMemory())),
            (context) => Context.get(context, CacheStore.CacheStore)
          ),
          analyzer: yield* analyzer,
          processes: 1,
          run: (fibers) => until(() => fibers.every((fiber) => fiber.pollUnsafe() !== undefined)),
          calm: TestClock.adjust("2 minutes"),
          counted
        },
        program({ breaks: true, impatientWriters: true, longestWait: 60 }),
        { numRuns: 80 }
      )
      // All of it happened, and often.
      for (const [name, count] of Object.entries(counted)) assert.isAbove(count, 50, name)
    }).pipe(Effect.provide(Logs.layer)))

  it.live("of two processes on one Redis that forgets now and then: the same, for each by what it wrote itself", () =>
    Effect.gen(function*() {
      const counted = totals()
      const server = yield* RedisServers.makeServer()
      const forget = cycle([["FLUSHALL"], ["SCRIPT", "FLUSH"]])
      yield* check(
        {
          store: Effect.map(
            Layer.build(Layer.fresh(RedisStore.layer()).pipe(Layer.provide(RedisServers.client(server)))),
            (context) => Context.get(context, CacheStore.CacheStore)
          ),
          analyzer: yield* analyzer,
          processes: 2,
          // A machine that is busy with other tests is no fault of the store's.
          timeouts: { lookupTimeout: "5 seconds", invalidationTimeout: "5 seconds" },
          disrupt: Effect.suspend(() => server.command(...forget())),
          run: Effect.forEach(Fiber.await, { discard: true }),
          calm: Effect.sleep("20 millis"),
          counted
        },
        program({ breaks: true, impatientWriters: false, longestWait: 6 }),
        { numRuns: 8, endOnFailure: true }
      )
      assert.isAbove(counted.hits, 20)
    }).pipe(Effect.provide(Logs.layer)))
})
