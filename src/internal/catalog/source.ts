/**
 * Keeps the catalog of a database at hand.
 *
 * It is read when the client is made, again after a statement of the program may
 * have changed the schema, and from time to time, for what others change. What
 * holds now is looked up without waiting; what becomes of a statement while
 * nothing is known is told by `internal/naming`.
 */
import type { PgClient } from "@effect/sql-pg"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type { Catalog } from "./model.ts"
import { read, Unreadable } from "./read.ts"

export interface Source {
  /** What is known now; nothing before the first answer and after a change until the next; or that it cannot be known. */
  readonly current: Catalog | "unknown" | "unreadable"
  /** Grows when something else holds. */
  readonly generation: number
  /** Waits for an answer, or until it is clear that there is none for now. */
  readonly settled: Effect.Effect<void>
  /** Reads it again, and waits as long as that takes. */
  readonly renewed: Effect.Effect<void>
  /** Tells the time, by which it is read again when it is due. A program that asks nothing causes no queries. */
  readonly tick: (nowMillis: number) => void
  /** The schema has changed, or may have: `isCertain` forgets what is known, else it holds until the next answer. */
  readonly changed: (isCertain: boolean) => void
}

/** What a statement waits at most for the catalog. */
const patience = Duration.seconds(2)
/** How soon it is read again where the schema may have changed and most likely has not. */
const suspicionMillis = 1000

export const make = Effect.fnUntraced(function*(options: {
  readonly client: PgClient.PgClient
  readonly interval: Duration.Duration
  /** Done when others are found to have changed the schema, some time ago. */
  readonly overtaken: Effect.Effect<void>
}): Effect.fn.Return<Source, never, Scope.Scope> {
  const intervalMillis = Duration.toMillis(options.interval)
  let current: Source["current"] = "unknown"
  // Counts what may have changed the schema: an answer that was asked for before holds no more.
  let changes = 0
  let isLoading = false
  let warned = false
  const wanted = Latch.makeUnsafe(true)
  let readAtMillis = 0
  let dueMillis = Infinity
  const answered = Latch.makeUnsafe(false)

  let generation = 0
  /** Tells whether what was known until now did no longer hold. */
  const set = (next: Source["current"]): boolean => {
    const last = current
    const isKnown = typeof last === "object" && typeof next === "object"
    if (last === next || isKnown && last.version === next.version) return false
    const isOvertaken = isKnown && last.lasting !== next.lasting
    current = next
    if (!isKnown || isOvertaken) generation++
    return isOvertaken
  }

  const load = Effect.gen(function*() {
    wanted.closeUnsafe()
    const asked = changes
    isLoading = true
    readAtMillis = yield* Clock.currentTimeMillis
    dueMillis = readAtMillis + intervalMillis
    const exit = yield* Effect.exit(read(options.client))
    isLoading = false
    if (asked !== changes) return
    if (Exit.isSuccess(exit)) {
      warned = false
      if (set(exit.value)) yield* options.overtaken
    } else {
      if (isDenied(exit.cause)) set("unreadable")
      if (typeof current === "string" && !warned) {
        warned = true
        yield* Effect.logWarning(
          current === "unreadable"
            ? "The database's catalog cannot be read: queries are cached by the tables they name, and every write " +
              "invalidates all of them"
            : "The database's catalog could not be read: until it is, nothing is served from the cache",
          exit.cause
        )
      }
    }
    // Anything else passes: what is known holds, and what is not is asked for again by the next who waits.
    answered.openUnsafe()
  })

  yield* Effect.forkScoped(Effect.forever(Effect.andThen(wanted.await, load)))

  const answer = Effect.suspend(() => {
    answered.closeUnsafe()
    return Effect.asVoid(Effect.timeoutOption(answered.await, patience))
  })
  return {
    get current() {
      return current
    },
    get generation() {
      return generation
    },
    settled: Effect.suspend(() => {
      if (current !== "unknown") return Effect.void
      if (!isLoading) wanted.openUnsafe()
      return answer
    }),
    renewed: Effect.suspend(() => {
      // What is under way may have begun too early.
      changes++
      wanted.openUnsafe()
      return answer
    }),
    tick: (nowMillis) => {
      if (nowMillis < dueMillis) return
      dueMillis = Infinity
      wanted.openUnsafe()
    },
    changed: (isCertain) => {
      if (!isCertain) {
        dueMillis = Math.min(dueMillis, readAtMillis + suspicionMillis)
        return
      }
      changes++
      generation++
      set("unknown")
      wanted.openUnsafe()
    }
  }
})

/** A defect, insufficient privilege, no such table, column or function, or nothing that is supported. */
export const isDenied = (cause: Cause.Cause<unknown>): boolean => {
  if (Cause.hasDies(cause)) return true
  const seen = new Set<unknown>()
  const visit = (value: unknown): boolean => {
    if (typeof value !== "object" || value === null || seen.has(value)) return false
    seen.add(value)
    if (value instanceof Unreadable) return true
    const { cause, code, error, reason, reasons } = value as { readonly [field: string]: unknown }
    if (typeof code === "string" && (code.startsWith("42") || code.startsWith("0A"))) return true
    return [cause, error, reason, ...(Array.isArray(reasons) ? reasons : [])].some(visit)
  }
  return visit(cause)
}
