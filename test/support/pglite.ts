// PostgreSQL inside the process, as the examples run it. Every layer is a database of its own, with one connection.
import type { PgClient } from "@effect/sql-pg"
import { PGlite } from "@electric-sql/pglite"
import type * as Layer from "effect/Layer"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { Buffer } from "node:buffer"
import { readFileSync } from "node:fs"
import { mkdir, readFile, rename, writeFile } from "node:fs/promises"
import { join } from "node:path"
import * as Pglite from "../../examples/support/pglite.ts"

/** An empty database. */
export const layer = (
  options?: Partial<PgClient.PgPoolConfig>
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError> => Pglite.layer(options, create)

// initdb takes a second or more, loading what it made a fraction of that: it runs once and is kept.
const cache = join(import.meta.dirname, "..", ".cache")
const { version } = JSON.parse(
  readFileSync(new URL("../package.json", import.meta.resolve("@electric-sql/pglite")), "utf8")
)
const template = join(cache, `pglite-${version}.tar`)

/** A database by itself. */
export const create = async (): Promise<PGlite> => {
  const kept = await readFile(template).catch(() => undefined)
  if (kept !== undefined) return PGlite.create({ loadDataDir: new Blob([kept]) })
  const database = await PGlite.create()
  const dump = await database.dumpDataDir("none")
  await mkdir(cache, { recursive: true })
  // Other processes may be at it too: each writes a file of its own, and the last rename wins.
  const temporary = `${template}.${process.pid}.${performance.now()}`
  await writeFile(temporary, Buffer.from(await dump.arrayBuffer()))
  await rename(temporary, template)
  return database
}
