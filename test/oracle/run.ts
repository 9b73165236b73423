// One world after another: its tables, queries and writes, all from the seed, before the three judges.
import type { PgClient } from "@effect/sql-pg"
import type { PGlite } from "@electric-sql/pglite"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import * as Pglite from "../../examples/support/pglite.ts"
import { Judge, type Miss, type Tally } from "./judge.ts"
import { Queries } from "./queries.ts"
import { Random } from "./random.ts"
import { type Change, make } from "./subject.ts"
import { deal, makeWorld, type World } from "./world.ts"
import { Writes } from "./writes.ts"

export interface Size {
  /** Queries in each deal. */
  readonly queries: number
  /** How often the tables are filled anew. */
  readonly deals: number
  /** Writes in each deal after which every query is asked again, and those after which only the tables are compared. */
  readonly writes: number
  readonly moreWrites: number
  /** Replacements for each query in each deal. */
  readonly rounds: number
}

export const usual: Size = { queries: 12, deals: 3, writes: 10, moreWrites: 220, rounds: 8 }

export const small: Size = { queries: 30, deals: 1, writes: 25, moreWrites: 40, rounds: 6 }

/** A database inside the process, as a client and by itself: both speak in one session. */
export const withDatabase = async <A>(
  create: () => Promise<PGlite>,
  body: (database: PGlite, client: Layer.Layer<PgClient.PgClient>) => Promise<A>
): Promise<A> => {
  const database = await create()
  return Effect.runPromise(Effect.scoped(Effect.gen(function*() {
    const context = yield* Effect.orDie(
      Layer.build(Pglite.layer({ idleTimeout: "1 day" }, () => Promise.resolve(database)))
    )
    // Connects, which begins the session anew.
    yield* Effect.orDie(Context.get(context, SqlClient.SqlClient)`SELECT 1`)
    // A plan that is kept has kept what an immutable function said when it was made.
    yield* Effect.promise(() => database.exec("SET plan_cache_mode = force_custom_plan"))
    return yield* Effect.promise(() => body(database, Layer.succeedContext(context)))
  })))
}

export const runWorld = async (
  database: PGlite,
  client: Layer.Layer<PgClient.PgClient>,
  seed: number,
  size: Size,
  tally: Tally,
  change?: Change
): Promise<ReadonlyArray<Miss>> => {
  const world = makeWorld(seed)
  if (!await build(database, world)) {
    tally.failed++
    return []
  }
  const random = new Random(seed + 2)
  return Effect.runPromise(Effect.scoped(Effect.provide(
    Effect.gen(function*() {
      const subject = yield* make(change)
      return yield* Effect.promise(async () => {
        const judge = new Judge(database, subject, world, tally)
        const queries = new Queries(random, world)
        const writes = new Writes(random, world)
        // A mutant is told by its first miss.
        const goesOn = (): boolean => change === undefined || judge.misses.length === 0
        for (let i = 0; i < size.deals && goesOn(); i++) {
          // What the program itself does to the schema holds for what it asks next.
          if (i > 0) { for (const ddl of world.changes[i - 1] ?? []) await judge.change(ddl) }
          for (const statement of deal(world, random)) await database.exec(statement)
          for (let j = 0; j < size.queries; j++) await judge.watch(queries.query(), random.chance(0.15))
          await judge.begin()
          await judge.noninterference(size.rounds)
          for (let j = 0; j < size.writes && goesOn(); j++) await judge.write(writes.write(), true)
          for (let j = 0; j < size.moreWrites && goesOn(); j++) await judge.write(writes.write(), false)
          await judge.forget()
        }
        return judge.misses
      })
    }),
    client
  )))
}

/** Whether PostgreSQL takes it all: not a view that compares what cannot be compared. */
const build = async (database: PGlite, world: World): Promise<boolean> => {
  await database.exec(
    "SET client_min_messages = error; DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS archive CASCADE; " +
      "CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO public"
  )
  for (const statement of world.ddl) {
    try {
      await database.exec(statement)
    } catch (cause) {
      if (/^CREATE (?:MATERIALIZED )?VIEW/.test(statement)) return false
      throw new Error(`world ${world.seed}: ${statement}`, { cause })
    }
  }
  return true
}

/** How many times a mistake could have shown. */
export const effective = (tally: Tally): number => tally.replaced + tally.changedRows + tally.movedAnswers

export const showMiss = ({ detail, judge, query, seed, write }: Miss): string =>
  [`${judge}, seed ${seed}`, ...(query === undefined ? [] : [query]), ...(write === undefined ? [] : [write]), detail]
    .join("\n  ")

export const summary = (tally: Tally): string => {
  const share = (part: number, whole: number): string => `${(100 * part / Math.max(1, whole)).toFixed(1)} %`
  return [
    `${effective(tally)} effective checks (${tally.replaced} replacements, ${tally.changedRows} changed rows, ` +
    `${tally.movedAnswers} moved answers)`,
    `${tally.writes} writes, ${tally.queries} queries, ${share(tally.cached, tally.queries)} cached, ` +
    `${share(tally.narrow, tally.queries)} by rows, ${tally.failed} refused by PostgreSQL`,
    `of ${tally.stayed} answers that stayed ${share(tally.needless, tally.stayed)} were invalidated, by whole tables ` +
    share(tally.needlessByTable, tally.stayed)
  ].join("; ")
}
