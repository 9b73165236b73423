/**
 * A database of a few tables with a version each, for tests that decide what happens when: read committed, as many
 * connections as are asked for, and a wait before and after everything it does, for the way there and the way back.
 *
 * It understands `SELECT ... FROM t [JOIN u ...]`, which answers `{ t: version, u: version }`, `UPDATE t SET version = $1`
 * and transactions.
 */
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Reactivity from "effect/reactivity/Reactivity"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import { ConnectionError, ConstraintError, SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"

export interface Model {
  readonly client: PgClient.PgClient
  /** Every version that a table has had, oldest first. */
  readonly history: (table: string) => ReadonlyArray<number>
}

export interface Nature {
  /** The way there, or back. */
  readonly wait: () => Effect.Effect<void>
  /**
   * How a COMMIT goes whose answer is lost: what the server did about it. It may also be that the server does it only
   * later. `undefined`: the answer arrives.
   */
  readonly lostCommit: () => "committed" | "committed later" | "aborted" | undefined
  /** Whether a write whose caller went away while it was on its way there happens all the same, later. */
  readonly straggles: () => boolean
  readonly later: Effect.Effect<void>
  /** Whether a write is refused as it would take effect, or a read as it would be answered. */
  readonly refuses?: () => boolean
}

export const make = Effect.fnUntraced(function*(nature: Nature): Effect.fn.Return<Model, never, Reactivity.Reactivity> {
  const versions = new Map<string, Array<number>>()
  const history = (table: string): Array<number> => {
    let versionsOf = versions.get(table)
    if (versionsOf === undefined) versions.set(table, versionsOf = [0])
    return versionsOf
  }
  const apply = (writes: Iterable<readonly [table: string, version: number]>) => {
    for (const [table, version] of writes) history(table).push(version)
  }
  const eventually = (writes: Iterable<readonly [string, number]>) =>
    Effect.forkDetach(Effect.andThen(nature.later, Effect.sync(() => apply(writes))))

  const refused = new SqlError({
    reason: new ConstraintError({ cause: { code: "23514" }, message: "no", operation: "execute" })
  })
  const refuse = Effect.suspend(() => nature.refuses?.() === true ? Effect.fail(refused) : Effect.void)
  const lost = new SqlError({
    reason: new ConnectionError({ cause: new Error("closed"), message: "the connection is lost", operation: "execute" })
  })

  const connect = (inTransaction: boolean): Connection => {
    let own = new Map<string, number>()

    const select = (tables: ReadonlyArray<string>) =>
      Effect.gen(function*() {
        yield* nature.wait()
        const row = Object.fromEntries(tables.map((table) => [table, own.get(table) ?? history(table).at(-1)!]))
        yield* nature.wait()
        yield* refuse
        return [row]
      })
    const update = (table: string, version: number) =>
      nature.wait().pipe(
        Effect.onExit((exit) =>
          Exit.isFailure(exit) && !inTransaction && nature.straggles() ? eventually([[table, version]]) : Effect.void
        ),
        Effect.andThen(refuse),
        Effect.andThen(Effect.sync(() => inTransaction ? own.set(table, version) : apply([[table, version]]))),
        Effect.andThen(nature.wait()),
        Effect.as([])
      )
    const commit = Effect.gen(function*() {
      yield* nature.wait()
      const writes = own
      own = new Map()
      switch (nature.lostCommit()) {
        case undefined:
          apply(writes)
          yield* nature.wait()
          return []
        case "committed":
          apply(writes)
          break
        case "committed later":
          yield* eventually(writes)
      }
      return yield* Effect.fail(lost)
    })

    const execute = (sql: string, params: ReadonlyArray<unknown>): Effect.Effect<ReadonlyArray<any>, SqlError> => {
      const word = sql.trimStart().split(/\s/, 1)[0].toUpperCase()
      switch (word) {
        case "SELECT":
          return select([...sql.matchAll(/\b(?:FROM|JOIN) (\w+)/g)].map(([_, table]) => table))
        case "UPDATE":
          return update(sql.split(" ")[1], params[0] as number)
        case "BEGIN":
          return Effect.as(nature.wait(), [])
        case "COMMIT":
          return commit
        case "ROLLBACK":
          return Effect.andThen(nature.wait(), Effect.sync(() => (own.clear(), [])))
        default:
          return Effect.die(new Error(`the model does not know ${word}`))
      }
    }
    return {
      execute,
      executeUnprepared: execute,
      executeRaw: execute,
      executeValues: () => Effect.die("not modelled"),
      executeValuesUnprepared: () => Effect.die("not modelled"),
      executeStream: () => Stream.die("not modelled")
    }
  }

  const client = yield* SqlClient.make({
    acquirer: Effect.sync(() => connect(false)),
    transactionAcquirer: Effect.sync(() => connect(true)),
    compiler: PgClient.makeCompiler(),
    driver: "pg",
    spanAttributes: []
  })
  return {
    history,
    client: Object.assign(client, {
      [PgClient.TypeId]: PgClient.TypeId as PgClient.TypeId,
      config: {},
      json: () => Effect.die("not modelled") as any,
      listen: () => Stream.die("not modelled") as any,
      notify: () => Effect.die("not modelled")
    })
  }
})

export const layerClient = (model: Model): Layer.Layer<PgClient.PgClient> =>
  Layer.succeed(PgClient.PgClient, model.client)
