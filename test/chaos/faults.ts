// What befalls the processes of a run, and their database. What befalls Redis is the topology's.
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Random } from "../oracle/random.ts"
import type { PostgresServer } from "../support/postgres.ts"
import type { Fault as Loss, Proxy } from "../support/proxy.ts"
import type { Member } from "./fleet.ts"
import { type Action, steps } from "./steps.ts"

/** A fault of the run's own. Succeeds with `false` where it came to nothing. */
export interface Happening {
  readonly name: string
  readonly weight: number
  readonly run: (random: Random) => Effect.Effect<boolean | void, SqlError>
}

// A step that a process does not pass in that time is given up.
const patienceMillis = 3_000

/** Processes stop, die, and are started again: anywhere, and at each step of a write or of a flight. */
export const ofProcesses = (members: ReadonlyArray<Member>, maxStopMillis: number): ReadonlyArray<Happening> => {
  const stop = (random: Random) => Effect.sleep(50 + random.below(maxStopMillis))
  const at = (action: Action): ReadonlyArray<Happening> =>
    steps.map((step) => ({
      name: `${action} at ${step}`,
      weight: 1,
      run: (random) =>
        Effect.gen(function*() {
          const member = random.pick(members)
          const gate = yield* member.ask({ type: "arm", step, action }, "gate", patienceMillis)
          if (Option.isNone(gate)) {
            yield* member.tell({ type: "arm" })
            // It may have passed the step as it was given up.
            yield* Effect.sleep(100)
            yield* member.signal("SIGCONT")
            return false
          }
          if (action === "SIGKILL") return yield* Effect.as(member.replace, true)
          yield* stop(random)
          yield* member.signal("SIGCONT")
          return true
        })
    }))
  return [
    ...at("SIGSTOP"),
    ...at("SIGKILL"),
    {
      name: "SIGSTOP",
      weight: 4,
      run: (random) =>
        Effect.gen(function*() {
          const member = random.pick(members)
          yield* member.signal("SIGSTOP")
          yield* stop(random)
          yield* member.signal("SIGCONT")
        })
    },
    { name: "SIGKILL", weight: 2, run: (random) => random.pick(members).replace }
  ]
}

/** Connections to the database break around a commit, backends are terminated, queries take long, the server crashes. */
export const ofDatabase = (
  sql: SqlClient.SqlClient,
  server: PostgresServer["Service"],
  proxy: Proxy["Service"]
): ReadonlyArray<Happening> => {
  const loss = (trigger: string, fault: Loss): Happening => ({
    name: `${trigger} ${fault}`,
    weight: 1,
    run: (random) =>
      Effect.gen(function*() {
        yield* proxy.arm(trigger, fault)
        // Whoever the message was for may be gone by now, and never answer.
        const happened = yield* Effect.timeoutOption(proxy.happened, patienceMillis)
        if (Option.isNone(happened) && (yield* proxy.disarm)) return false
        if (fault !== "hold" && fault !== "stall") return Option.isSome(happened)
        yield* Effect.sleep(100 + random.below(1_500))
        yield* Effect.timeoutOption(proxy.release, patienceMillis)
        return true
      })
  })
  return [
    loss("COMMIT", "cut"),
    loss("COMMIT", "lose"),
    loss("COMMIT", "hold"),
    loss("COMMIT", "stall"),
    loss("UPDATE", "cut"),
    loss("UPDATE", "lose"),
    loss("UPDATE", "stall"),
    {
      name: "a backend is terminated at work",
      weight: 3,
      run: () =>
        Effect.gen(function*() {
          // They work for a millisecond each, so it takes a few tries to see one.
          for (let i = 0; i < 50; i++) {
            const ended = yield* sql`
              SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND state <> 'idle' LIMIT 1`
            if (ended.length > 0) return true
            yield* Effect.sleep(5)
          }
          return false
        })
    },
    {
      name: "all backends are terminated",
      weight: 1,
      run: () =>
        Effect.asVoid(sql`
          SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`)
    },
    {
      name: "queries wait",
      weight: 4,
      run: (random) =>
        sql.withTransaction(Effect.gen(function*() {
          const table = random.pick(["items", "notes", "docs", "events"])
          // Whoever does not get it keeps all others waiting behind him.
          yield* sql`SET LOCAL lock_timeout = '2s'`
          yield* sql.unsafe(`LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`)
          yield* Effect.sleep(50 + random.below(500))
        }))
    },
    {
      name: "the database crashes",
      weight: 1,
      run: (random) =>
        Effect.gen(function*() {
          yield* server.stop("immediate")
          yield* Effect.sleep(random.below(500))
          yield* server.start
        })
    }
  ]
}
