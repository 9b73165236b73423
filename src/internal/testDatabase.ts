/**
 * A PgClient whose connection is a function: what stands behind
 * `CachedSqlClient.layerTest`.
 */
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import type { SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"

interface Query {
  readonly sql: string
  readonly params: ReadonlyArray<unknown>
}

type Respond = (query: Query) => ReadonlyArray<object> | Effect.Effect<ReadonlyArray<object>, SqlError>

const control = /^\s*(?:BEGIN|START TRANSACTION|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE)\b/i

export const make = Effect.fnUntraced(function*(respond: Respond) {
  const queries: Array<Query> = []
  const run = (sql: string, params: ReadonlyArray<unknown>): Effect.Effect<ReadonlyArray<any>, SqlError> =>
    Effect.suspend(() => {
      if (control.test(sql)) return Effect.succeed([])
      const query = { sql, params }
      queries.push(query)
      const rows = respond(query)
      return Effect.isEffect(rows) ? rows : Effect.succeed(rows)
    })
  const values = (sql: string, params: ReadonlyArray<unknown>) =>
    Effect.map(run(sql, params), (rows) => rows.map((row) => Object.values(row)))
  const connection: Connection = {
    execute: run,
    executeRaw: (sql, params) =>
      Effect.map(run(sql, params), (rows) => ({ rows, command: sql.trim().split(/\s/, 1)[0] })),
    executeStream: (sql, params) => Stream.unwrap(Effect.map(run(sql, params), (rows) => Stream.fromIterable(rows))),
    executeValues: values,
    executeValuesUnprepared: values,
    executeUnprepared: run
  }
  const absent = (what: string) =>
    Effect.die(new Error(`CachedSqlClient.layerTest: a scripted database has no ${what}`))
  const client: PgClient.PgClient = Object.assign(
    yield* SqlClient.make({
      acquirer: Effect.succeed(connection),
      compiler: PgClient.makeCompiler(),
      driver: "pg",
      spanAttributes: []
    }),
    {
      [PgClient.TypeId]: PgClient.TypeId as PgClient.TypeId,
      config: {},
      json: (value: unknown) => Statement.fragment([Statement.custom<any>("PgJson")(value, undefined, undefined)]),
      listen: () => absent("LISTEN"),
      notify: () => absent("NOTIFY")
    }
  )
  scripted.add(client)
  return { client, queries: Effect.sync((): ReadonlyArray<Query> => queries.slice()) }
})

const scripted = new WeakSet<object>()

/** Whether a client's database is a function, which answers what its program asks and nothing else. */
export const isScripted = (client: PgClient.PgClient): boolean => scripted.has(client)
