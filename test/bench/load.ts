// What several processes get out of one Redis: hits of what another process has stored, and invalidations, against plain
// commands by the same clients, which take turns with them.
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import { join } from "node:path"
import * as Herd from "../support/herd.ts"
import * as Postgres from "../support/postgres.ts"
import * as Redis from "../support/redis.ts"
import { duration, type Result, start } from "./harness.ts"
import { type Load, type LoadAnswer, type LoadSettings, merge, type Work } from "./loads.ts"

const rounds = 3
const millis = 700
const fibers = 16

const measured = Effect.gen(function*() {
  const { config: { database, host, port, username } } = yield* Postgres.PostgresServer
  const redis = yield* Redis.makeServer()
  const sql = yield* PgClient.PgClient
  yield* sql`CREATE TABLE popular AS SELECT id, 'user ' || id AS name FROM generate_series(0, 999) AS id`
  yield* sql`CREATE TABLE written (id int)`
  const settings: LoadSettings = { database: { database, host, port, username }, redis: redis.url }
  const results: Array<Result> = []
  for (const size of [1, 2, 4]) {
    const processes = yield* Effect.all(
      Array.from(
        { length: size },
        () =>
          Herd.launch<Load, LoadAnswer>(join(import.meta.dirname, "loadProcess.ts"), { LOAD: JSON.stringify(settings) })
      ),
      { concurrency: "unbounded" }
    )
    const ask = (work: Work) =>
      Effect.map(
        Effect.all(processes.map(({ ask }) => ask({ work, millis, fibers })), { concurrency: "unbounded" }),
        merge
      )
    // Until the compiler knows what it does.
    for (let round = 0; round < 3; round++) yield* Effect.forEach(["hits", "invalidations"] as const, ask)
    const answers: Record<Work, Array<LoadAnswer>> = { ping: [], get: [], hits: [], invalidations: [] }
    for (let round = 0; round < rounds; round++) {
      for (const work of ["ping", "hits", "get", "invalidations"] as const) answers[work].push(yield* ask(work))
    }
    const of = (work: Work) => {
      const { count, cpuMicros, latencies, perSecond } = merge(answers[work])
      const each = perSecond / rounds
      const p99 = duration(latencies[Math.floor(latencies.length * 0.99)]! * 1e6)
      const cpu = duration(cpuMicros / count * 1e3)
      return { each, told: `${Math.round(each).toLocaleString("en")}/s, p99 ${p99}, CPU ${cpu}` }
    }
    const [ping, get, hits, invalidations] = [of("ping"), of("get"), of("hits"), of("invalidations")]
    const among = `${size} ${size === 1 ? "process" : "processes"}`
    results.push(
      { name: `load: GET / PING, ${among}`, ratio: ping.each / get.each, note: `${get.told}; PING ${ping.told}` },
      { name: `load: hit in Redis / GET, ${among}`, ratio: get.each / hits.each, note: hits.told },
      { name: `load: invalidation / GET, ${among}`, ratio: get.each / invalidations.each, note: invalidations.told }
    )
    yield* Effect.all(processes.map(({ kill }) => kill))
  }
  return results
})

export const run = (): Promise<ReadonlyArray<Result>> =>
  Effect.runPromise(Effect.scoped(Effect.provide(measured, Postgres.layer())))

await start(import.meta, run)
