// What the processes of a run write. Every write gets its versions from the database, under the locks of the rows.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as SessionToken from "../../src/SessionToken.ts"
import type { Random } from "../oracle/random.ts"
import * as History from "./history.ts"
import type * as Reads from "./reads.ts"
import * as Registers from "./registers.ts"
import { type Asked, CurrentAsked, type Steps } from "./steps.ts"
import * as Tokens from "./tokens.ts"

type Version = readonly [register: string, version: number]

interface Writing {
  /** The name under which it writes. */
  readonly id: string
  readonly versions: Array<Version>
  readonly random: Random
}

class Undone extends Error {}

export const make = Effect.fnUntraced(function*(options: {
  readonly log: History.Log
  readonly steps: Steps
  readonly reads: Effect.Success<ReturnType<typeof Reads.make>>
  readonly process: string
  readonly directory: string
}) {
  const { log, reads, steps } = options
  const sql = yield* SqlClient.SqlClient
  let count = 0

  const bump = (table: "items" | "notes", id: number, writer: string) =>
    Effect.map(
      sql<{ readonly version: number }>`
        UPDATE ${sql(table)} SET version = version + 1, writer = ${writer}
        WHERE ${sql(table === "items" ? "id" : "item_id")} = ${id} RETURNING version`,
      ([row]): Version => [table === "items" ? Registers.item(id) : Registers.note(id), row!.version]
    )
  const append = (id: number, writer: string) =>
    Effect.map(
      sql<{ readonly n: number }>`
        INSERT INTO events (item_id, n, writer)
        SELECT ${id}, coalesce(max(n), 0) + 1, ${writer} FROM events WHERE item_id = ${id} RETURNING n`,
      ([row]): Version => [Registers.event(id), row!.n]
    )
  /** Several rows, one statement each, always in the same order: two of these never wait for each other. */
  const several = Effect.fnUntraced(function*({ random }: Writing, writer: string) {
    const versions: Array<Version> = []
    for (const id of random.some(Registers.items).slice(0, 3)) {
      versions.push(yield* bump("items", id, writer))
      // What a transaction reads itself is nobody else's to see.
      yield* reads.byKey(id)
    }
    if (random.chance(0.5)) versions.push(yield* bump("notes", random.pick(Registers.items), writer))
    if (random.chance(0.3)) versions.push(yield* append(random.pick(Registers.eventful), writer))
    return versions
  })
  const transaction = <E>(writing: Writing, inside: Effect.Effect<ReadonlyArray<Version>, E>) =>
    sql.withTransaction(Effect.gen(function*() {
      writing.versions.push(...yield* inside)
      log.note({ type: "committing", id: writing.id, at: History.now() })
      yield* steps.pass("committing")
    }))
  /** A statement that commits by itself. */
  const alone = (writing: Writing, statement: Effect.Effect<ReadonlyArray<Version>, SqlError>) =>
    Effect.map(steps.during("writing", statement), (versions) => void writing.versions.push(...versions))

  const kinds: Record<string, (writing: Writing) => Effect.Effect<void, unknown>> = {
    item: (writing) => alone(writing, one(bump("items", writing.random.pick(Registers.items), writing.id))),
    note: (writing) => alone(writing, one(bump("notes", writing.random.pick(Registers.items), writing.id))),
    event: (writing) => alone(writing, one(append(writing.random.pick(Registers.eventful), writing.id))),
    group: (writing) =>
      alone(
        writing,
        Effect.map(
          sql<{ readonly id: number; readonly version: number }>`
            UPDATE items SET version = version + 1, writer = ${writing.id}
            WHERE grp = ${writing.random.pick(Registers.groups)} RETURNING id, version`,
          (rows) => rows.map(({ id, version }): Version => [Registers.item(id), version])
        )
      ),
    doc: (writing) => {
      const tenant = writing.random.pick(Registers.tenants)
      const id = writing.random.pick(Registers.docsOf(tenant))
      return alone(
        writing,
        Effect.map(
          sql<{ readonly version: number }>`
            UPDATE docs SET version = version + 1, writer = ${writing.id} WHERE id = ${id} RETURNING version`,
          ([row]) => [[Registers.doc(id), row!.version] as const]
        ).pipe(reads.inScope(tenant))
      )
    },
    entity: (writing) => {
      const id = writing.random.pick(Registers.items)
      return alone(writing, one(reads.entity.update(id, bump("items", id, writing.id))))
    },
    // Answers about the latest event stay as they are, though the rows they were picked from go.
    prune: (writing) => {
      const id = writing.random.pick(Registers.eventful)
      return Effect.asVoid(
        sql`DELETE FROM events WHERE item_id = ${id} AND n < (SELECT max(n) FROM events WHERE item_id = ${id})`
      )
    },
    transaction: (writing) => transaction(writing, several(writing, writing.id)),
    savepoint: (writing) =>
      transaction(
        writing,
        Effect.gen(function*() {
          const before = yield* several(writing, writing.id)
          yield* sql.withTransaction(
            Effect.andThen(several(writing, `${writing.id}/undone`), Effect.fail(new Undone()))
          ).pipe(Effect.catchIf((error) => error instanceof Undone, () => Effect.void))
          return [...before, ...yield* several(writing, writing.id)]
        })
      ),
    rollback: (writing) => sql.withTransaction(Effect.andThen(several(writing, writing.id), Effect.fail(new Undone()))),
    interrupted: (writing) =>
      interrupted(writing, alone(writing, one(bump("items", writing.random.pick(Registers.items), writing.id)))),
    "transaction interrupted": (writing) => interrupted(writing, transaction(writing, several(writing, writing.id)))
  }
  const weighted = Object.keys(kinds).map((kind) => [often[kind] ?? 1, kind] as const)

  /** Writes something, and notes it. */
  return (random: Random): Effect.Effect<void> =>
    Effect.gen(function*() {
      const kind = random.weighted(weighted)
      const id = `${options.process}:${++count}`
      const writing: Writing = { id, versions: [], random }
      const asked: Asked = { invalidations: 0, taken: 0 }
      const begin = History.now()
      log.note({ type: "write", id, kind, begin, transaction: transactional.has(kind) })
      const [exit, token] = yield* SessionToken.run(Effect.provideService(kinds[kind]!(writing), CurrentAsked, asked))
      const delivered = asked.invalidations > 0 && asked.invalidations === asked.taken
      const isUndone = kind === "rollback" && Exit.isFailure(exit) && isUndoneBy(exit)
      log.note({
        type: "written",
        id,
        outcome: Exit.isSuccess(exit) ? "acknowledged" : isUndone ? "rolledback" : "failed",
        delivered,
        versions: writing.versions,
        end: History.now()
      })
      const text = SessionToken.encode(token)
      // Redis may have taken what it was not waited for any more: then the token stands for no clock.
      if (Exit.isSuccess(exit) && delivered && !text.includes(".B")) {
        Tokens.pass({ token: text, at: begin, of: writing.versions }, options)
      }
    })
})

const interrupted = <E, R>({ random }: Writing, write: Effect.Effect<void, E, R>) =>
  Effect.gen(function*() {
    const running = yield* Effect.forkChild(write)
    yield* Effect.sleep(random.below(6))
    yield* Fiber.interrupt(running)
    return yield* yield* Fiber.await(running)
  })

/** Those that commit when all is said, and not statement by statement. */
const transactional = new Set(["transaction", "savepoint", "rollback", "transaction interrupted"])

const often: Readonly<Record<string, number>> = {
  item: 4,
  transaction: 2,
  group: 0.5,
  prune: 0.3,
  interrupted: 0.05,
  "transaction interrupted": 0.05
}

const one = <E>(effect: Effect.Effect<Version, E>): Effect.Effect<ReadonlyArray<Version>, E> =>
  Effect.map(effect, (version) => [version])

const isUndoneBy = (exit: Exit.Failure<unknown, unknown>): boolean =>
  exit.cause.reasons.every((reason) => reason._tag === "Fail" && reason.error instanceof Undone)
