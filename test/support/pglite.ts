// PostgreSQL inside the process: PGlite behind `@effect/sql-pg`. Every layer is a database of its own, with one connection.
import { PgClient } from "@effect/sql-pg"
import { PGlite } from "@electric-sql/pglite"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { Buffer } from "node:buffer"
import { readFileSync } from "node:fs"
import { mkdir, readFile, rename, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { Duplex } from "node:stream"

/** An empty database. */
export const layer = (
  options?: Partial<PgClient.PgPoolConfig>
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError> =>
  Layer.unwrap(Effect.map(
    Effect.acquireRelease(Effect.promise(create), (database) => Effect.promise(() => database.close())),
    (database) =>
      PgClient.layer({
        stream: connections(database),
        database: "postgres",
        username: "postgres",
        ssl: false,
        maxConnections: 1,
        ...options
      })
  ))

// initdb takes a second or more, loading what it made a fraction of that: it runs once and is kept.
const cache = join(import.meta.dirname, "..", ".cache")
const { version } = JSON.parse(
  readFileSync(new URL("../package.json", import.meta.resolve("@electric-sql/pglite")), "utf8")
)
const template = join(cache, `pglite-${version}.tar`)

const create = async (): Promise<PGlite> => {
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

/**
 * Opens connections to a PGlite database: the `stream` of a `PgClient`. PGlite has one session, so a second connection is
 * refused while the first is open, and a new one begins where `DISCARD ALL` leaves the session.
 */
export const connections = (database: PGlite): () => Duplex => {
  let open: Duplex | undefined
  let turn: Promise<unknown> = Promise.resolve()
  const exchange = async (message: Uint8Array): Promise<Buffer> =>
    Buffer.from(await database.execProtocolRaw(message, { syncToFs: false }))

  return () => {
    let started = false
    let received = Buffer.alloc(0)

    const receive = async (): Promise<void> => {
      if (!started) {
        const length = received.length < 8 ? Infinity : received.readInt32BE(0)
        if (length > received.length) return
        const startup = received.subarray(0, length)
        received = received.subarray(length)
        // PGlite cannot interrupt a statement. A server, too, answers a cancel request by hanging up.
        if (startup.readInt32BE(4) === cancelRequest) return void duplex.push(null)
        if (open !== undefined && !open.destroyed) {
          duplex.push(fatal("53300", "PGlite has one connection, and it is in use"))
          return void duplex.push(null)
        }
        open = duplex
        started = true
        await exchange(simpleQuery("ROLLBACK"))
        await exchange(simpleQuery("DISCARD ALL"))
        duplex.push(await exchange(startup))
      }
      let end = 0
      while (end + 5 <= received.length && end + 1 + received.readInt32BE(end + 1) <= received.length) {
        if (received[end] === terminate) {
          received = Buffer.alloc(0)
          return void duplex.push(null)
        }
        end += 1 + received.readInt32BE(end + 1)
      }
      if (end === 0) return
      const messages = received.subarray(0, end)
      received = received.subarray(end)
      duplex.push(await exchange(messages))
    }

    const duplex: Duplex = new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, callback) {
        turn = turn.then(async () => {
          if (duplex.destroyed) return
          received = Buffer.concat([received, chunk])
          await receive()
        }).then(() => callback(), callback)
      }
    })
    return duplex
  }
}

const cancelRequest = 80877102
const terminate = "X".charCodeAt(0)

const frame = (tag: string, body: string): Buffer => {
  const message = Buffer.from(`${tag}0000${body}`)
  message.writeInt32BE(message.length - 1, 1)
  return message
}

const simpleQuery = (sql: string): Buffer => frame("Q", `${sql}\0`)

const fatal = (code: string, message: string): Buffer => frame("E", `SFATAL\0VFATAL\0C${code}\0M${message}\0\0`)
