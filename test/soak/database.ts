// The databases of a soak: a real one, and one that has the other's catalog and answers everything else at once, which
// takes a fifth of the time.
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import * as Stream from "effect/Stream"
import * as Postgres from "../support/postgres.ts"

export const real: Layer.Layer<PgClient.PgClient> = Layer.effect(
  PgClient.PgClient,
  Effect.tap(PgClient.PgClient, (sql) =>
    sql.unsafe(`DO $$ BEGIN
      CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL);
      CREATE TABLE orders (id int PRIMARY KEY, user_id int NOT NULL, total int NOT NULL);
      INSERT INTO users SELECT id, 'user ' || id FROM generate_series(1, 1000) AS id;
      INSERT INTO orders SELECT id, id, id FROM generate_series(1, 1000) AS id;
    END $$`))
).pipe(Layer.provide(Postgres.layer()), Layer.orDie)

export const scripted: Layer.Layer<PgClient.PgClient> = Layer.effect(
  PgClient.PgClient,
  Effect.gen(function*() {
    const server = yield* PgClient.PgClient
    const rows = [{ id: 1, name: "Ada", total: 1 }]
    // Others come between the question and the answer.
    const execute = () => Effect.as(Effect.yieldNow, rows)
    const values = () => Effect.as(Effect.yieldNow, rows.map((row) => Object.values(row)))
    const connection: Connection = {
      execute,
      executeUnprepared: execute,
      executeRaw: execute,
      executeValues: values,
      executeValuesUnprepared: (sql, params) =>
        sql.includes("pg_catalog") ? server.unsafe<any>(sql, params).valuesUnprepared as any : values(),
      executeStream: () => Stream.fromIterable(rows)
    }
    const client = yield* SqlClient.make({
      acquirer: Effect.succeed(connection),
      compiler: PgClient.makeCompiler(),
      driver: "pg",
      spanAttributes: []
    })
    return Object.assign(client, {
      [PgClient.TypeId]: server[PgClient.TypeId],
      config: server.config,
      json: server.json,
      listen: server.listen,
      notify: server.notify
    })
  })
).pipe(Layer.provide([real, Reactivity.layer]))
