/**
 * PostgreSQL inside this process: PGlite behind `@effect/sql-pg`, for examples and tests. A program has a server and
 * needs none of this.
 */
import { PgClient } from "@effect/sql-pg"
import { PGlite } from "@electric-sql/pglite"
import { Effect, Layer } from "effect"
import type { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { Buffer } from "node:buffer"
import { Duplex } from "node:stream"

/** An empty database. `create` may bring one that is not. */
export const layer = (
  options?: Partial<PgClient.PgPoolConfig>,
  create: () => Promise<PGlite> = () => PGlite.create()
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

/**
 * Opens connections to a PGlite database: the `stream` of a `PgClient`. PGlite has one session, so a second connection is
 * refused while the first is open, and a new one begins where `DISCARD ALL` leaves the session.
 */
const connections = (database: PGlite): () => Duplex => {
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
