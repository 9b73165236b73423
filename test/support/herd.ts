// A herd: processes that share a database and a Redis, each with many readers of one key.
import type { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { createInterface } from "node:readline"
import type { CachePolicy } from "../../src/CachePolicy.ts"

export interface HerdSettings {
  readonly database: Pick<PgClient.PgPoolConfig, "host" | "port" | "username" | "database">
  readonly redis: string
  readonly flightTimeout: number
}

/** What a process is asked to do at once. */
export interface Herd {
  readonly readers: number
  readonly policy: CachePolicy
}

export interface HerdAnswer {
  readonly statuses: Readonly<Record<string, number>>
  readonly values: ReadonlyArray<number>
  /** How long the last of the readers has waited. */
  readonly millis: number
  /** How many statements the process has sent since it began, in the background too. */
  readonly queries: number
}

export type HerdProcess = Process<Herd, HerdAnswer>

/** A process that answers what it is asked, one thing after the other. */
export interface Process<in Asked, out Answer> {
  readonly ask: (asked: Asked) => Effect.Effect<Answer>
  /** Ends it here and now, with nothing put in order. */
  readonly kill: Effect.Effect<void>
}

export const start = (settings: HerdSettings): Effect.Effect<HerdProcess, never, Scope.Scope> =>
  launch(join(import.meta.dirname, "herdProcess.ts"), { HERD: JSON.stringify(settings) })

/** Runs a module that says when it is ready, and answers each line of its input by a line, both of JSON. */
export const launch = Effect.fnUntraced(function*<Asked, Answer>(
  module: string,
  env: Readonly<Record<string, string>>
): Effect.fn.Return<Process<Asked, Answer>, never, Scope.Scope> {
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [module], {
        env: { PATH: process.env.PATH, ...env },
        stdio: ["pipe", "pipe", "inherit"]
      })
    ),
    (child) => Effect.sync(() => void child.kill("SIGKILL"))
  )
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = Effect.promise(async () => {
    const { done, value } = await lines.next()
    if (done === true) throw new Error(`a process has ended: ${module}`)
    return JSON.parse(value)
  })
  yield* next
  return {
    ask: (asked) =>
      Effect.suspend(() => {
        child.stdin.write(`${JSON.stringify(asked)}\n`)
        return next
      }),
    kill: Effect.promise(async () => {
      child.kill("SIGKILL")
      await once(child, "exit")
    })
  }
})

/**
 * Runs an effect while nobody can read the table, and tells it how many statements wait to: whoever waits for the
 * database meanwhile waits for as long as it takes.
 */
export const whileLocked = <A, E, R>(
  sql: PgClient.PgClient,
  use: (waiting: Effect.Effect<number, SqlError>) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | SqlError, R> => {
  const waiting = Effect.map(
    sql<{ n: number }>`SELECT count(*)::int AS n FROM pg_locks WHERE relation = 'herd'::regclass AND NOT granted`,
    ([row]) => row!.n
  )
  return Effect.gen(function*() {
    const connection = yield* sql.reserve
    yield* connection.execute("BEGIN", [], undefined)
    yield* connection.execute("LOCK TABLE herd IN ACCESS EXCLUSIVE MODE", [], undefined)
    return yield* Effect.ensuring(use(waiting), Effect.ignore(connection.execute("COMMIT", [], undefined)))
  }).pipe(Effect.scoped)
}
