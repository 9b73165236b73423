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
    withDatabase(() => PGlite.create({ extensions: { citext } }), async (database, client) => {
      await database.exec("CREATE ROLE reader; SET client_min_messages = error")
      for (const { name, parameters = [], query, scoped = false, setup, write } of counterexamples) {
        await database.exec(`
        DISCARD TEMP; DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO public;
        CREATE EXTENSION citext;
        CREATE COLLATION nocase (provider = icu, locale = '@colStrength=secondary', deterministic = false); ${setup}`)
        const answer = async () => {
          if (scoped) await database.exec("SET ROLE reader")
          const { rows } = await database.query(`SELECT answer_::text AS answer FROM (${query}) answer_`, [
            ...parameters
          ])
          await database.exec("RESET ROLE")
          return JSON.stringify(rows)
        }
        const before = await answer()
        const [dependencies, targets] = await Effect.runPromise(Effect.scoped(Effect.provide(
          Effect.gen(function*() {
            const subject = yield* Subject.make
            const dependencies = yield* subject.read(query, parameters, { scoped })
            return [dependencies, yield* subject.write(write, [])] as const
          }),
          client
        )))
        const after = await answer()
        // A pair that no longer shows anything is none.
        expect(after, name).not.toBe(before)
        expect.soft(dependencies === undefined || reaches(targets, dependencies), name).toBe(true)
      }
    })
)
