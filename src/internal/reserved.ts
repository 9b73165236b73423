/**
 * A reserved connection, on which a program may begin and end transactions by
 * hand: what it writes is collected until its COMMIT. One that is still open when
 * the connection is given back is rolled back.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Connection } from "effect/sql/SqlConnection"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import type { Changes } from "../QueryAnalyzer.ts"
import { changesNames } from "./analysis/settings.ts"
import type { Delivery } from "./delivery.ts"
import { Wire } from "./doubt/wire.ts"
import { type Effects, writingOf } from "./effects.ts"
import type { Naming } from "./naming.ts"
import * as Outcome from "./outcome.ts"
import { Touched } from "./touched.ts"
import type { Transactions } from "./transactions.ts"

/** Sees to what is sent on a connection, until it is closed. */
export const observeConnection = (
  connection: Connection,
  look: (sql: string, isAnywhere: boolean) => { readonly effects: Effects; readonly changes: Changes | undefined },
  transactions: Transactions,
  delivery: Delivery,
  naming: Pick<Naming, "leave" | "watch">
): { readonly connection: Connection; readonly close: Effect.Effect<void> } => {
  const wire = Wire.of(connection)
  let open: Touched | undefined
  // For its end: the schema may be another by then.
  let overtaken = Effect.void
  const begin = (): Touched => {
    overtaken = naming.watch()
    return open = new Touched("")
  }
  // What differs from the settings that the session began with, until it ends.
  const settings = new Map<string, Changes["settings"][number]>()
  let isAnywhere = false

  const note = (changes: Changes): Effect.Effect<void> =>
    Effect.suspend(() => {
      for (const setting of changes.settings) {
        if (changesNames(setting)) isAnywhere = true
        if (setting.isLocal) continue
        if (!setting.isReset) settings.set(setting.name, setting)
        else if (setting.name !== "*") settings.delete(setting.name)
        else {for (const name of settings.keys()) {
            if (name !== "role" && name !== "session_authorization") settings.delete(name)
          }}
      }
      return naming.leave({ settings: [], temporary: changes.temporary })
    })

  // Called when a statement starts: what is to be done when it has ended.
  const watch = (
    effects: Effects,
    params: ReadonlyArray<unknown>
  ): ((exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>) | undefined => {
    if (effects._tag === "Writes") {
      const writing = writingOf(effects, params)
      if (open === undefined) {
        const overtaken = writing.targets.all ? Effect.void : naming.watch()
        return (exit) => Effect.andThen(transactions.settle(exit, writing, wire, { _tag: "Statement" }), overtaken)
      }
      const know = open.begin(writing.targets)
      const { answered } = writing
      return answered === undefined ? undefined : (exit) =>
        Effect.sync(() => {
          if (Exit.isSuccess(exit)) know(answered(exit.value))
        })
    } else if (effects._tag === "Session") {
      const touched = open
      switch (effects.control) {
        case "begin": {
          if (touched !== undefined) break
          const begun = begin()
          return (exit) =>
            Effect.sync(() => {
              // Refused: what is written commits by itself.
              if (Exit.isFailure(exit) && Outcome.refused(exit.cause) && open === begun) open = undefined
            })
        }
        case "commit": {
          const ended = overtaken
          open = effects.chain ? begin() : undefined
          if (touched !== undefined && !touched.isEmpty) {
            return (exit) =>
              Effect.andThen(
                transactions.settle(exit, { targets: touched.take(), atomic: true }, wire, { _tag: "Commit" }),
                ended
              )
          }
          break
        }
        case "rollback":
          return (exit) =>
            Effect.sync(() => {
              // Without an answer the end of the scope settles it.
              if (Exit.isSuccess(exit)) open = effects.chain ? begin() : undefined
            })
      }
    }
    return undefined
  }
  const observe = <A>(
    sql: string,
    params: ReadonlyArray<unknown>,
    run: Effect.Effect<A, SqlError>
  ): Effect.Effect<A, SqlError> =>
    Effect.suspend(() => {
      const { changes, effects } = look(sql, isAnywhere)
      const refusal = transactions.refusalReserved(effects)
      if (refusal !== undefined) return Effect.fail(refusal)
      const after = watch(effects, params)
      const watched = after === undefined ? run : Effect.onExit(run, after)
      return changes === undefined ? watched : Effect.andThen(note(changes), watched)
    })

  const overrides: Partial<Connection> = {
    execute: (sql, params, transformRows) => observe(sql, params, connection.execute(sql, params, transformRows)),
    executeRaw: (sql, params) => observe(sql, params, connection.executeRaw(sql, params)),
    executeValues: (sql, params) => observe(sql, params, connection.executeValues(sql, params)),
    executeValuesUnprepared: (sql, params) => observe(sql, params, connection.executeValuesUnprepared(sql, params)),
    executeUnprepared: (sql, params, transformRows) =>
      observe(sql, params, connection.executeUnprepared(sql, params, transformRows)),
    executeStream: (sql, params, transformRows) =>
      Stream.unwrap(Effect.suspend(() => {
        const { changes, effects } = look(sql, isAnywhere)
        const refusal = transactions.refusalReserved(effects)
        if (refusal !== undefined) return Effect.fail(refusal)
        const after = watch(effects, params)
        const stream = connection.executeStream(sql, params, transformRows)
        const watched = after === undefined ? stream : Stream.onExit(stream, after)
        return Effect.as(changes === undefined ? Effect.void : note(changes), watched)
      }))
  }
  return {
    connection: Object.assign(Object.create(connection), overrides),
    // The driver hands on a connection as it is: what the next one reads there must not be uncommitted.
    close: Effect.suspend(() => {
      const touched = open
      const left = settings.size === 0
        ? Effect.void
        : naming.leave({ settings: [...settings.values()], temporary: [] })
      return touched === undefined
        ? left
        : Effect.matchCauseEffect(connection.executeUnprepared("ROLLBACK", [], undefined), {
          onSuccess: () => Effect.void,
          // Whether it was begun at all is not known where BEGIN was interrupted.
          onFailure: () =>
            touched.isEmpty
              ? Effect.void
              : Effect.andThen(delivery.quarantine(touched.take(), { _tag: "Anything", pid: wire.pid }), overtaken)
        }).pipe(Effect.andThen(left))
    })
  }
}
