// The catalog of a database that has these tables, for tests that need nothing else of it.
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import type { Catalog } from "../../../src/internal/catalog/model.ts"
import { read } from "../../../src/internal/catalog/read.ts"
import * as Pglite from "../../support/pglite.ts"

export const catalogOf = (schema: string): Promise<Catalog> =>
  Effect.runPromise(
    Effect.gen(function*() {
      const client = yield* PgClient.PgClient
      for (const statement of schema.split(";")) if (statement.trim() !== "") yield* client.unsafe(statement).unprepared
      return yield* read(client)
    }).pipe(Effect.provide(Pglite.layer()), Effect.orDie)
  )
