// A PgClient whose connection answers at once: what a statement costs without a database.
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"

/** `rows`: what every statement answers. `config`: what the client says it was configured with. */
export const layer = (
  rows: ReadonlyArray<object>,
  config: PgClient.PgClientConfig = {}
): Layer.Layer<PgClient.PgClient> =>
  Layer.effect(PgClient.PgClient, make(rows, config)).pipe(Layer.provide(Reactivity.layer))

const make = (rows: ReadonlyArray<object>, config: PgClient.PgClientConfig) =>
  Effect.gen(function*() {
    const answer = Effect.succeed(rows)
    const execute = () => answer
    const connection: Connection = {
      execute,
      executeUnprepared: execute,
      executeRaw: execute,
      executeValues: execute as any,
      executeValuesUnprepared: execute as any,
      executeStream: () => Stream.fromIterable(rows)
    }
    return Object.assign(
      yield* SqlClient.make({
        acquirer: Effect.succeed(connection),
        borrower: (use) => use(connection),
        compiler: PgClient.makeCompiler(),
        driver: "pg",
        spanAttributes: [
          ["db.system.name", "postgresql"],
          ["db.namespace", "postgres"],
          ["server.address", "localhost"],
          ["server.port", 5432]
        ]
      }),
      {
        [PgClient.TypeId]: PgClient.TypeId as PgClient.TypeId,
        config,
        json: () => Statement.fragment([]),
        listen: () => Effect.die("no LISTEN"),
        notify: () => Effect.die("no NOTIFY")
      }
    )
  })
