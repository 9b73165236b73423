// Statements as programs have them, and what can be done to a text: the tables that the decorated client takes them to
// read and write contain those that PostgreSQL plans to visit.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { reaches } from "../oracle/claims.ts"
import { Random } from "../oracle/random.ts"
import { withDatabase } from "../oracle/run.ts"
import * as Subject from "../oracle/subject.ts"
import { create } from "../support/pglite.ts"
import { compare, load, names, readCorpus } from "./corpus.ts"
import { identifiers } from "./identifiers.ts"
import { damaged, disguised } from "./texts.ts"

/** A subject over a database in which these statements have run. */
const withSubject = (
  prepare: (database: Parameters<typeof compare>[0]) => Promise<unknown>,
  body: (database: Parameters<typeof compare>[0], subject: Subject.Subject) => Promise<unknown>
) =>
  withDatabase(create, async (database, client) => {
    await prepare(database)
    await Effect.runPromise(Effect.scoped(Effect.provide(
      Effect.flatMap(Subject.make(), (subject) => Effect.promise(() => body(database, subject))),
      client
    )))
  })

describe("statements as programs have them", () => {
  for (const name of names) {
    const corpus = readCorpus(name)

    it(
      `${name}: every relation of a plan is found`,
      { timeout: 300_000 },
      () =>
        withSubject((database) => load(database, corpus), async (database, subject) => {
          for (const sql of corpus.statements) {
            const comparison = await compare(database, subject, sql)
            expect(comparison, sql).toEqual({ _tag: "Compared", visited: expect.any(Number), missed: [] })
            expect(comparison._tag === "Compared" && comparison.visited, sql).toBeGreaterThan(0)
          }
        })
    )

    it(
      `${name}: and so it is where the text is written otherwise, or damaged`,
      { timeout: 300_000 },
      () =>
        withSubject((database) => load(database, corpus), async (database, subject) => {
          const random = new Random(names.indexOf(name))
          for (const sql of corpus.statements) {
            const same = disguised(sql, random)
            expect(await compare(database, subject, same), same).toMatchObject({ _tag: "Compared", missed: [] })
          }
          // Some of these may change the schema, after which nothing is cached until it is known again.
          let compared = 0
          for (const sql of corpus.statements) {
            for (let i = 0; i < 12; i++) {
              const other = damaged(
                random.chance(0.5) ? sql : disguised(sql, random),
                random.pick(corpus.statements),
                random
              )
              const start = performance.now()
              const comparison = await compare(database, subject, other)
              expect(performance.now() - start, other).toBeLessThan(5_000)
              if (comparison._tag !== "Compared") continue
              compared++
              expect(comparison.missed, other).toEqual([])
            }
          }
          expect(compared).toBeGreaterThan(corpus.statements.length / 3)
        })
    )
  }
})

it("names are told apart, however they are written", { timeout: 300_000 }, () =>
  withSubject(
    async (database) => {
      for (const { quoted } of identifiers) await database.exec(`CREATE TABLE ${quoted} (id int PRIMARY KEY)`)
    },
    async (_, subject) => {
      const run = Effect.runPromise
      const read = []
      for (const { name, spellings } of identifiers) {
        for (const spelling of spellings) {
          const dependencies = await run(subject.read(`SELECT * FROM ${spelling} AS x`, []))
          expect(dependencies, spelling).toBeDefined()
          read.push({ name, spelling, dependencies: dependencies! })
        }
      }
      for (const { name, spellings } of identifiers) {
        for (const spelling of spellings) {
          const targets = await run(subject.write(`DELETE FROM ${spelling}`, []))
          for (const other of read) {
            expect(reaches(targets, other.dependencies), `${spelling} and ${other.spelling}`).toBe(other.name === name)
          }
        }
      }
    }
  ))
