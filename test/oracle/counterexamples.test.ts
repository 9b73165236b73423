import { PGlite } from "@electric-sql/pglite"
import { citext } from "@electric-sql/pglite/contrib/citext"
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { reaches } from "./claims.ts"
import { counterexamples } from "./counterexamples.ts"
import { withDatabase } from "./run.ts"
import * as Subject from "./subject.ts"

it(
  "no pair of a query and a write on which a plausible rule fails is missed",
  { timeout: 120_000 },
  () =>
    withDatabase(
      () => PGlite.create({ extensions: { citext } }),
      (database, client) => Effect.runPromise(Effect.scoped(Effect.provide(judged(database), client)))
    )
)

const judged = Effect.fnUntraced(function*(database: PGlite) {
  yield* Effect.promise(() => database.exec("CREATE ROLE reader; SET client_min_messages = error"))
  const subject = yield* Subject.make
  for (const { name, query, scoped = false, setup, write } of counterexamples) {
    yield* Effect.promise(() =>
      database.exec(`
        DISCARD TEMP; DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO public;
        CREATE EXTENSION citext;
        CREATE COLLATION nocase (provider = icu, locale = '@colStrength=secondary', deterministic = false);
        ${setup}`)
    )
    // That much of the schema the program changes itself, and so asks for the rest.
    yield* subject.write("COMMENT ON SCHEMA public IS 'new'", [])

    const answer = Effect.map(
      Effect.promise(() =>
        database.exec(`${scoped ? "SET ROLE reader; " : ""}SELECT answer_::text FROM (${query}) answer_; RESET ROLE`)
      ),
      (results) => JSON.stringify(results.map(({ rows }) => rows))
    )
    const before = yield* answer
    const dependencies = yield* subject.read(query, [], { scoped })
    const targets = yield* subject.write(write, [])
    // A pair that does not show anything is none.
    expect(yield* answer, name).not.toBe(before)
    expect.soft(dependencies === undefined || reaches(targets, dependencies), name).toBe(true)
  }
})
