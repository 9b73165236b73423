// One of the processes of a history run: reads and writes through the cache until it is told to stop, or killed.
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as ManagedRuntime from "effect/ManagedRuntime"
import type * as Redis from "effect/persistence/Redis"
import type { SqlError } from "effect/sql/SqlError"
import { writeSync } from "node:fs"
import { createInterface } from "node:readline"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as CacheStore from "../../src/CacheStore.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import * as RedisCluster from "../../src/RedisCluster.ts"
import * as RedisStore from "../../src/RedisStore.ts"
import * as SessionToken from "../../src/SessionToken.ts"
import * as TieredStore from "../../src/TieredStore.ts"
import { Random } from "../oracle/random.ts"
import type { Answer, Order, WorkerSettings } from "./fleet.ts"
import * as History from "./history.ts"
import * as Reads from "./reads.ts"
import * as Sabotage from "./sabotage.ts"
import * as Steps from "./steps.ts"
import * as Tokens from "./tokens.ts"
import * as Writes from "./writes.ts"

const settings: WorkerSettings = JSON.parse(process.env.CHAOS!)
const { maxStalenessMillis, mode, sabotage, timeToLiveMillis } = settings

// With the operating system before it goes on.
const say = (answer: Answer): void => void writeSync(1, `${JSON.stringify(answer)}\n`)
const log = History.open(settings.directory, settings.process)
const steps = Steps.make((step, action) => {
  log.note({ type: "gate", step, action, at: History.now() })
  say({ type: "gate", step })
})

const isCluster = settings.connection._tag === "Cluster"
// Soon back, so that what befalls it next befalls a connection.
const reconnectStrategy = (retries: number) => Math.min(20 * 2 ** retries, 500)

const redis = (): Layer.Layer<Redis.Redis> => {
  const { connection } = settings
  return RedisStore.connectInBackground(
    connection._tag === "Single"
      ? NodeRedis.layer({ url: connection.url, disableOfflineQueue: true, socket: { reconnectStrategy } })
      : RedisCluster.layer({
        rootNodes: connection.urls.map((url) => ({ url })),
        nodeAddressMap: connection.doors,
        defaults: { disableOfflineQueue: true, socket: { reconnectStrategy } }
      })
  )
}

const store = (): Layer.Layer<CacheStore.CacheStore> => {
  const options = { flightTimeout: settings.flightMillis, ...(isCluster ? { shards: 3 } : {}) }
  const inner = mode === "redis"
    ? RedisStore.layer(options)
    : mode === "strict"
    ? settings.process.startsWith("1")
      ? TieredStore.layer({ ...options, consistency: "strict", coherence: "revalidate" })
      : RedisStore.layer({ ...options, consistency: "strict" })
    : mode === "revalidate"
    ? TieredStore.layer({ ...options, coherence: "revalidate" })
    : TieredStore.layer({
      ...options,
      maxStaleness: sabotage === "deaf" ? "1 hour" : maxStalenessMillis
    })
  return Layer.effect(
    CacheStore.CacheStore,
    Effect.map(CacheStore.CacheStore, (inner) => Steps.store(Sabotage.store(inner, sabotage), steps))
  ).pipe(Layer.provide(inner), Layer.provide(Sabotage.redis(redis(), sabotage)))
}

const layer: Layer.Layer<CachedSqlClient.Services, unknown> = CachedSqlClient.layer({
  namespace: "chaos",
  // A machine that is busy is no fault of the store's.
  lookupTimeout: "500 millis",
  invalidationTimeout: "1 second"
}).pipe(
  Layer.provide(store()),
  Layer.provide(PgClient.layer({ ...settings.database, maxConnections: 8 })),
  // Answers go to the other one.
  Layer.provideMerge(Logger.layer([Logger.withConsoleError(Logger.formatSimple)]))
)

const program = Effect.gen(function*() {
  const { stats } = yield* QueryCache.QueryCache
  const reads = yield* Reads.make(timeToLiveMillis)
  const { directory, process: name } = settings
  const write = yield* Writes.make({ log, steps, reads, directory, process: name })
  /** What somebody waits for. */
  const open = new Map<object, string>()
  let reading = true
  let writing = true

  const waiting = <A, E, R>(what: () => string, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      const key = {}
      open.set(key, `${what()} since ${History.now()}`)
      return Effect.ensuring(effect, Effect.sync(() => open.delete(key)))
    })

  const asking = new Asking()
  const read = (fiber: number, { form, key, run }: Reads.Ask, quiet?: true, session?: Session) =>
    Effect.suspend(() => {
      const begin = History.now()
      const sharedSince = asking.begin(key, begin)
      const { at: tokenAt, of: tokenOf } = session ?? {}
      return Effect.map(Effect.exit(QueryCache.withInfo(session?.around(run) ?? run)), (exit) => {
        const end = History.now()
        asking.end(key, begin)
        if (Exit.isFailure(exit)) {
          log.note({ type: "read", fiber, form, begin, end, status: "failed", seen: [] })
          return
        }
        const [queries, { seen, ...told }] = exit.value
        // Of a value by key, and not of the statement of its lookup.
        const info = queries.find(({ sql }) => sql === undefined) ?? queries[0]!
        const retained = form === "stale" ? { retained: timeToLiveMillis * 500 } : undefined
        const status = info.status as History.Read["status"]
        log.note({
          type: "read",
          fiber,
          form,
          begin,
          end,
          status,
          level: info.level,
          seen,
          ...told,
          ...retained,
          sharedSince: form === "stale" ? begin - longestRefreshMicros : sharedSince,
          tokenAt,
          tokenOf,
          quiet
        })
        // It was looked up, and the token stands for what had been delivered before.
        if (sharedSince === undefined && (isLookedUp.has(info.reason) || info.level === "L2")) session?.reached(begin)
      })
    }).pipe((effect) => waiting(() => `a read (${form})`, effect))

  const pause = (random: Random, meanMillis: number) => Effect.sleep(meanMillis * (0.5 + random.below(100) / 100))
  const fibers: Array<Fiber.Fiber<void>> = []
  const loop = (seed: number, meanMillis: number, isOn: () => boolean, step: (random: Random) => Effect.Effect<void>) =>
    Effect.gen(function*() {
      const random = new Random(settings.seed * 100 + seed)
      const fiber = yield* Effect.forkChild(
        Effect.whileLoop({
          while: isOn,
          body: () => Effect.andThen(step(random), pause(random, meanMillis)),
          step: () => {}
        })
      )
      fibers.push(fiber)
    })
  for (let i = 0; i < settings.readers; i++) {
    // One of them in a session, which now and then goes on where another process has written.
    const session = i === 0 && mode !== "strict" ? new Session(directory) : undefined
    yield* loop(i, settings.readMillis, () => reading, (random) =>
      Effect.suspend(() => {
        if (random.chance(0.1)) session?.goOn(random)
        return read(i, reads.random(random), undefined, session)
      }))
  }
  for (let i = 0; i < settings.writers; i++) {
    yield* loop(50 + i, settings.writeMillis, () => writing, (random) => waiting(() => "a write", write(random)))
  }
  yield* Effect.forkChild(Effect.forever(Effect.gen(function*() {
    const begin = History.now()
    const { undelivered } = yield* stats
    log.note({ type: "queue", begin, undelivered, end: History.now() })
    yield* Effect.sleep(200)
  })))

  const obey = (order: Order): Effect.Effect<unknown> => {
    switch (order.type) {
      case "arm":
        return Effect.sync(() => steps.arm(order.step === undefined ? undefined : order as any))
      case "write":
        return Effect.sync(() => {
          writing = false
        })
      case "stop":
        return Effect.gen(function*() {
          reading = writing = false
          yield* Effect.forEach(fibers, Fiber.await)
          say({ type: "stopped" })
        })
      case "tell":
        return Effect.map(stats, ({ undelivered }) => say({ type: "told", undelivered, open: [...open.values()] }))
      case "quiet":
        return Effect.gen(function*() {
          // The second time most of it is there.
          for (const ask of [...reads.all(), ...reads.all()]) yield* read(-1, ask, true)
          say({ type: "quiet" })
        })
    }
  }
  log.note({ type: "started", mode, at: History.now() })
  say({ type: "ready" })
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  const orders = createInterface({ input: process.stdin })
  yield* Effect.callback<never>(() => {
    orders.on("line", (line) => fork(obey(JSON.parse(line))))
    orders.on("close", () => process.exit())
  })
})

// A flight goes on when all have left it with something stale, and answers who asks then.
const longestRefreshMicros = 5_000_000

/** Why a store had no answer that it was asked for. */
const isLookedUp = new Set<string | undefined>(["absent", "expired", "invalidated", "undecodable", "waited"])

class Session {
  at: number | undefined
  of: Tokens.Passed["of"] | undefined
  private token = SessionToken.empty
  private readonly directory: string

  constructor(directory: string) {
    this.directory = directory
  }

  around<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.flatMap(
      SessionToken.make({ token: this.token, monotonicReads: true }),
      (session) =>
        Effect.onExit(SessionToken.provide(effect, session), () =>
          Effect.sync(() => {
            this.token = session.token
          }))
    )
  }

  reached(at: number): void {
    this.at = Math.max(this.at ?? 0, at)
  }

  goOn(random: Random): void {
    const passed = Tokens.take(this.directory, random)
    if (passed === undefined) return
    this.token = SessionToken.merge(this.token, SessionToken.fromString(passed.token))
    this.of = passed.of
    this.reached(passed.at)
  }
}

/** Which questions have not been answered. */
class Asking {
  private readonly open = new Map<string, Array<{ readonly at: number; readonly since: number }>>()

  /** Tells since when the same is being asked, if it is. */
  begin(key: string, at: number): number | undefined {
    const others = this.open.get(key)
    const since = others?.[0]?.since
    if (others === undefined) this.open.set(key, [{ at, since: at }])
    else others.push({ at, since: since! })
    return since
  }

  end(key: string, at: number): void {
    const others = this.open.get(key)!.filter((other) => other.at !== at)
    if (others.length > 0) this.open.set(key, others)
    else this.open.delete(key)
  }
}

// Its database may be away as it starts.
const start = async (): Promise<void> => {
  for (;;) {
    const runtime = ManagedRuntime.make(layer)
    const exit = await runtime.runPromiseExit(program)
    const error = Exit.isFailure(exit) ? exit.cause : undefined
    if (!(error?.reasons.every((reason) => reason._tag === "Fail" && isSqlError(reason.error)) ?? false)) {
      throw new Error(`the program ended: ${String(error)}`)
    }
    await runtime.dispose()
  }
}
const isSqlError = (error: unknown): error is SqlError => (error as SqlError | undefined)?._tag === "SqlError"

await start()
