import type { PgClient } from "@effect/sql-pg"
import { PGlite } from "@electric-sql/pglite"
import { citext } from "@electric-sql/pglite/contrib/citext"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { expect, it } from "vitest"
import { reaches } from "./claims.ts"
import { type Counterexample, counterexamples } from "./counterexamples.ts"
import { mutants, redundant } from "./mutants.ts"
import { withDatabase } from "./run.ts"
import * as Subject from "./subject.ts"

const run = (body: (database: PGlite) => Effect.Effect<unknown, unknown, PgClient.PgClient | Scope.Scope>) =>
  withDatabase(
    () => PGlite.create({ extensions: { citext } }),
    (database, client) => Effect.runPromise(Effect.scoped(Effect.provide(body(database), client)))
  )

const prepare = (database: PGlite, setup: string) =>
  Effect.promise(() =>
    database.exec(`
      DO $$ BEGIN CREATE ROLE reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$; SET client_min_messages = error;
      DISCARD TEMP; DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO public;
      CREATE EXTENSION citext;
      CREATE COLLATION nocase (provider = icu, locale = '@colStrength=secondary', deterministic = false);
      ${setup}`)
  )

/** Whether the subject invalidates what the write makes stale, and what the answer was before and after. */
const judge = Effect.fnUntraced(function*(
  database: PGlite,
  subject: Subject.Subject,
  { parameters = [], query, scoped = false, write }: Counterexample
) {
  const answer = Effect.promise(async () => {
    await database.exec(scoped ? "SET ROLE reader" : "RESET ROLE")
    const { rows } = await database.query(`SELECT answer_::text FROM (${query}) answer_`, [...parameters])
    await database.exec("RESET ROLE")
    return JSON.stringify(rows)
  })
  const before = yield* answer
  const dependencies = yield* subject.read(query, parameters, { scoped })
  yield* Effect.promise(() => database.exec("BEGIN"))
  const targets = yield* subject.write(write, [])
  yield* Effect.promise(() => database.exec("SET CONSTRAINTS ALL IMMEDIATE"))
  const after = yield* answer
  yield* Effect.promise(() => database.exec("ROLLBACK"))
  return { before, after, isCaught: dependencies === undefined || reaches(targets, dependencies) }
})

it(
  "no pair of a query and a write on which a plausible rule fails is missed",
  { timeout: 600_000 },
  () =>
    run(Effect.fnUntraced(function*(database) {
      const subject = yield* Subject.make()
      for (const pair of counterexamples) {
        yield* prepare(database, pair.setup)
        // That much of the schema the program changes itself, and so asks for the rest.
        yield* subject.write("COMMENT ON SCHEMA public IS 'new'", [])
        const { after, before, isCaught } = yield* judge(database, subject, pair)
        // A pair that does not show anything is none.
        expect.soft(after, pair.name).not.toBe(before)
        expect.soft(isCaught, pair.name).toBe(true)
      }
    }))
)

it(
  "each is missed by the analyzers that lack what catches it",
  { timeout: 600_000 },
  () =>
    run(Effect.fnUntraced(function*(database) {
      for (const pair of counterexamples) {
        if (pair.missedBy === undefined) continue
        yield* prepare(database, pair.setup)
        for (const name of pair.missedBy) {
          const subject = yield* Subject.make(mutants.find((mutant) => mutant.name === name)!.change)
          const { isCaught } = yield* judge(database, subject, pair)
          expect.soft(isCaught, `${pair.name}, without ${name}`).toBe(false)
        }
      }
    }))
)

it("each analyzer that lacks something is told by a pair, or told why not", () => {
  const told = new Set([...counterexamples.flatMap(({ missedBy = [] }) => missedBy), ...Object.keys(redundant)])
  expect(mutants.map(({ name }) => name).filter((name) => !told.has(name))).toEqual([])
})
