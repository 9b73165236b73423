/**
 * Asks a database what of its transactions and backends is still under way.
 */
import type { PgClient } from "@effect/sql-pg"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import { Unreadable } from "../catalog/read.ts"
import { Wire } from "./wire.ts"

/** What a database has told. */
export interface Observation {
  /** Another one after a restart or a failover. */
  readonly server: string
  /** Whether the client's connections end at the server's backends, and at no pooler. */
  readonly isDirect: boolean
  /** When it was told, by the server's clock and by ours. */
  readonly serverMillis: number
  readonly atMillis: number
  /** A transaction that began when it was asked: whatever wrote before has a lower number. */
  readonly xid: bigint
  /** Every transaction below has ended, and what it wrote is visible. */
  readonly xmin: bigint
  /** From here on none has, and below only these have not. */
  readonly xmax: bigint
  readonly running: ReadonlySet<bigint>
  /** The other backends of the same user in the same database. */
  readonly backends: ReadonlyArray<Backend>
}

export interface Backend {
  readonly pid: number
  /** With the process, tells it apart from all others there ever were. */
  readonly started: string
  /** Whether it runs a statement. `undefined` where that is not told. */
  readonly isBusy: boolean | undefined
  /** Whether its transaction has written. `undefined` where that is not told. */
  readonly hasWritten: boolean | undefined
  /** When its transaction began, by the server's clock. */
  readonly beganMillis: number | undefined
  /** Its transaction, and its statement: the time at which each began. */
  readonly transaction: string
  readonly statement: string
}

/** Asks now, on a connection of the pool. Fails where the database is away, in recovery, or not one that can tell. */
export const observe = (client: PgClient.PgClient): Effect.Effect<Observation, SqlError | Unreadable> =>
  Effect.suspend(() => {
    const wire = new Wire(false)
    return wire.watch(client.unsafe(query)).valuesUnprepared.pipe(
      // The program's own rewriting of statements is not meant for this one.
      Effect.provideService(Statement.CurrentTransformer, undefined),
      Effect.flatMap((rows) =>
        Effect.flatMap(Clock.currentTimeMillis, (atMillis) =>
          Effect.try({
            try: () => decode(JSON.parse(String(rows[0]![0])) as Answer, wire.pid, atMillis),
            catch: (cause) => new Unreadable(cause)
          }))
      )
    )
  })

interface Answer {
  readonly server: string
  readonly pid: number
  readonly millis: number
  readonly xid: string
  readonly snapshot: string
  readonly backends: ReadonlyArray<{
    readonly pid: number
    readonly started: string | null
    readonly state: string | null
    readonly xid: string | null
    readonly began: number | null
    readonly transaction: string | null
    readonly statement: string | null
  }>
}

// Idle in a transaction, a backend runs no statement that commits by itself. One that is starting runs nothing yet.
const atRest = new Set(["idle", "idle in transaction", "idle in transaction (aborted)", "starting"])
const atWork = new Set(["active", "fastpath function call"])

export const decode = (answer: Answer, pid: number | undefined, atMillis: number): Observation => {
  const [xmin, xmax, running] = answer.snapshot.split(":")
  return {
    server: answer.server,
    isDirect: answer.pid === pid,
    serverMillis: answer.millis,
    atMillis,
    xid: BigInt(answer.xid),
    xmin: BigInt(xmin!),
    xmax: BigInt(xmax!),
    running: new Set(running!.split(",").filter((xid) => xid !== "").map(BigInt)),
    backends: answer.backends.map((backend) => ({
      pid: backend.pid,
      started: `${backend.started}`,
      isBusy: backend.state === null
        ? undefined
        : atWork.has(backend.state)
        ? true
        : atRest.has(backend.state)
        ? false
        : undefined,
      // A state is told to whom transactions are told.
      hasWritten: backend.state === null ? undefined : backend.xid !== null,
      beganMillis: backend.began ?? undefined,
      transaction: `${backend.transaction}`,
      statement: `${backend.statement}`
    }))
  }
}

const millis = (time: string): string => `extract(epoch FROM ${time}) * 1000`

// One text, so neither the client's transforms nor its types have a part in it. PostgreSQL says what a session does to
// its own user only, and it is the same user that has lost it.
const query = `
SELECT json_build_object(
  'server', pg_postmaster_start_time()::text,
  'pid', me.pid,
  'millis', ${millis("clock_timestamp()")},
  'xid', pg_current_xact_id()::text,
  'snapshot', pg_current_snapshot()::text,
  'backends', (
    SELECT coalesce(json_agg(json_build_object(
      'pid', b.pid, 'started', b.backend_start::text, 'state', b.state, 'xid', b.backend_xid::text,
      'began', ${millis("b.xact_start")}, 'transaction', b.xact_start::text, 'statement', b.query_start::text
    )), '[]')
    FROM pg_stat_activity b
    WHERE b.backend_type = 'client backend' AND b.datid = me.datid AND b.usesysid = me.usesysid AND b.pid <> me.pid
  )
)::text
FROM pg_stat_activity me WHERE me.pid = pg_backend_pid()`
