// A history run: servers, processes, faults, and then the judgement.
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import { Random } from "../oracle/random.ts"
import * as Postgres from "../support/postgres.ts"
import * as Proxy from "../support/proxy.ts"
import * as Checker from "./checker.ts"
import * as Faults from "./faults.ts"
import * as Fleet from "./fleet.ts"
import * as History from "./history.ts"
import * as Registers from "./registers.ts"
import { reportOf } from "./report.ts"
import type { Sabotage } from "./sabotage.ts"
import type { Topology } from "./topology.ts"

export interface RunOptions {
  readonly topology: Effect.Effect<Topology, never, Scope.Scope>
  /** For how long faults happen. What is left to be repaired then takes a few times to live more. */
  readonly seconds: number
  /**
   * Whether it was about enough. Where it was not, as on a machine that is busy with something else, faults go on: for so
   * long again, seven times at most.
   */
  readonly enough?: ((report: Checker.Report) => boolean) | undefined
  /** How each of the processes caches. */
  readonly modes: ReadonlyArray<History.Mode>
  readonly seed: number
  /** Where the history is written. */
  readonly directory: string
  readonly maxStalenessMillis: number
  readonly timeToLiveMillis: number
  /** A guard that is taken out. Then nothing befalls anybody, and nobody waits for rest: it has to show all the same. */
  readonly sabotage?: Sabotage | undefined
  readonly say: (text: string) => void
}

const flightMillis = 2_000

// How long anybody may need to come to rest when nothing befalls him any more.
const restMillis = 60_000

export const run = Effect.fnUntraced(function*(options: RunOptions) {
  const { directory, maxStalenessMillis, say, timeToLiveMillis } = options
  const sql = yield* PgClient.PgClient
  const server = yield* Postgres.PostgresServer
  const proxy = yield* Proxy.Proxy
  const random = new Random(options.seed)
  const log = yield* Effect.acquireRelease(
    Effect.sync(() => History.open(directory, "run")),
    (log) => Effect.sync(log.close)
  )
  yield* Registers.create(sql)
  const topology = yield* options.topology
  const { database, host, username } = server.config
  const died: Array<string> = []
  const members = yield* Effect.all(
    options.modes.map((mode, place) =>
      Fleet.make(
        place,
        topology,
        {
          directory,
          mode,
          database: { database, host, username, port: proxy.port },
          seed: options.seed,
          maxStalenessMillis,
          timeToLiveMillis,
          flightMillis,
          readers: 3,
          writers: 2,
          readMillis: 10,
          writeMillis: 150,
          sabotage: options.sabotage
        },
        (process, how) => {
          died.push(process)
          log.note({ type: "died", how: `${process} ${how}`, at: History.now() })
        }
      )
    ),
    { concurrency: "unbounded" }
  )

  let isOver = false
  const judge = Effect.sync(() => Checker.check(() => History.read(directory), promisesOf(options)))
  const untilOver = Effect.gen(function*() {
    const end = performance.now() + options.seconds * 1000
    for (let left = options.seconds * 1000; left > 0; left = end - performance.now()) {
      say(`${Math.ceil(left / 60_000)} minutes left`)
      yield* Effect.sleep(Math.min(left, 60_000))
    }
    for (let i = 0; i < 7 && options.enough?.(yield* judge) === false; i++) yield* Effect.sleep(options.seconds * 1000)
    isOver = true
  })
  // Who has died by himself has been noted.
  const revive = Effect.suspend(() =>
    Effect.forEach(died.splice(0), (process) => members[Number(process.split(".")[0])]!.replace, { discard: true })
  )
  const befall = Effect.fnUntraced(function*(happening: Faults.Happening, random: Random) {
    const begin = History.now()
    const happened = yield* Effect.exit(happening.run(random))
    if (happened._tag === "Success" && happened.value !== false) {
      log.note({ type: "fault", name: happening.name, begin, end: History.now() })
    }
    yield* revive
  })
  /** One thing after another, with some time between them. */
  const lane = (happenings: () => ReadonlyArray<Faults.Happening>, meanMillis: number): Effect.Effect<void> => {
    const own = new Random(random.below(1_000_000_000))
    return Effect.whileLoop({
      while: () => !isOver,
      body: () =>
        Effect.andThen(
          Effect.sleep(meanMillis * (0.3 + own.below(140) / 100)),
          Effect.suspend(() => befall(own.weighted(happenings().map((each) => [each.weight, each] as const)), own))
        ),
      step: () => {}
    })
  }
  const ofTopology = () =>
    [...topology.faults, ...members.flatMap((member) => member.faults())].map(({ name, run }): Faults.Happening => ({
      name,
      weight: 1,
      run: (random) => Effect.scoped(run(() => random.below(1 << 30) / (1 << 30)))
    }))
  if (options.sabotage !== undefined) {
    yield* untilOver
    return yield* judge
  }
  yield* Effect.all([
    untilOver,
    lane(() => Faults.ofProcesses(members, 2 * maxStalenessMillis), 500),
    lane(() => Faults.ofDatabase(sql, server, proxy), 2_000),
    lane(ofTopology, 1_000)
  ], { concurrency: "unbounded", discard: true })

  yield* revive

  // Nothing befalls anybody any more, and nobody writes. They go on reading until all has come to rest.
  const each = <A>(what: (member: Fleet.Member) => Effect.Effect<A>) =>
    Effect.forEach(members, what, { concurrency: "unbounded" })
  yield* each((member) => member.tell({ type: "write" }))
  yield* each((member) => rest(member, log))
  yield* Effect.sleep(timeToLiveMillis * 1.5 + maxStalenessMillis + flightMillis)
  yield* each((member) => finish(member, { type: "stop" }, "stopped", log))
  log.note({ type: "truth", versions: yield* Registers.truth(sql), at: History.now() })
  yield* each((member) => finish(member, { type: "quiet" }, "quiet", log))
  return yield* judge
}, (effect, options) =>
  effect.pipe(
    Effect.scoped,
    Effect.provide(
      Proxy.layer.pipe(
        Layer.provideMerge(Postgres.layerClient({ maxConnections: 4 })),
        Layer.provideMerge(Postgres.layerServer({ deadlock_timeout: "100ms" }))
      )
    ),
    // What befalls the servers befalls the connections of the run as well.
    Effect.provideService(References.MinimumLogLevel, "Error"),
    Effect.tap((report) => Effect.sync(() => options.say(reportOf(options, report))))
  ))

const promisesOf = ({ maxStalenessMillis, timeToLiveMillis }: RunOptions): Checker.Promises => ({
  maxStaleness: maxStalenessMillis * 1000,
  timeToLive: timeToLiveMillis * 1000,
  slack: (4 * maxStalenessMillis + 2_000) * 1000
})

/** Asks, and notes it as hung where it does not answer. */
const finish = Effect.fnUntraced(
  function*(member: Fleet.Member, order: Fleet.Order, type: Fleet.Answer["type"], log: History.Log) {
    if (Option.isSome(yield* member.ask(order, type, restMillis))) return
    const told = yield* member.ask({ type: "tell" }, "told", 10_000)
    const open = Option.isSome(told) ? told.value.open : ["it does not even say what for"]
    log.note({ type: "hung", at: History.now(), what: [`${member.process()} does not say "${type}"`, ...open] })
  }
)

/** Waits until nothing of what a process has written is undelivered. */
const rest = Effect.fnUntraced(function*(member: Fleet.Member, log: History.Log) {
  const until = performance.now() + restMillis
  for (let left = -1; left !== 0;) {
    yield* Effect.sleep(100)
    const told = yield* member.ask({ type: "tell" }, "told", 10_000)
    left = Option.isSome(told) ? told.value.undelivered : -1
    if (left !== 0 && performance.now() > until) {
      return log.note({ type: "hung", at: History.now(), what: [`${member.process()} has ${left} invalidations left`] })
    }
  }
})
