/**
 * When a write has ended of which nobody has heard how.
 *
 * | what was lost | it has ended when |
 * | --- | --- |
 * | COMMIT, of a transaction whose number is known | that transaction is none of those that run |
 * | COMMIT, else | its backend is gone, or has no transaction that wrote; or all transactions have ended that wrote before it was asked first |
 * | a statement, on a connection that ends at a backend | that backend is gone, or rests after it was seen at work |
 * | a statement, elsewhere: behind a pooler, or several at once on a connection | half a minute has passed, and every backend of the same user that was at work then has done what it did |
 * | nobody knows what | both |
 *
 * A backend that rests may still get what was sent to it: as long as it is there, what a connection has lost may come,
 * and only after `forgottenMillis` nobody believes that any more. What works is waited for without end. Behind a pooler
 * nobody knows which backend gets a statement, and when: half a minute is what it is given.
 *
 * A number, a process and a time mean something on the server that they are of: after a restart or a failover a doubt
 * begins anew, and so it does when the database could not be asked, since what kept us from asking may have kept the
 * write from arriving.
 */
import type { Observation } from "./observe.ts"

/** What is known of a write in doubt. */
export type Doubt =
  | {
    /** Everything that it wrote was sent, and answered, before its COMMIT. */
    readonly _tag: "Commit"
    readonly pid?: number | undefined
    /** The number of its transaction, as `pg_current_xact_id` gives it. */
    readonly xid?: bigint | undefined
  }
  | {
    /** It commits by itself. */
    readonly _tag: "Statement"
    readonly pid?: number | undefined
    /** Not sent earlier than that, by our clock. */
    readonly sinceMillis?: number | undefined
    /** Statements of others are sent on the same connection, before it is answered. */
    readonly isPipelined?: boolean | undefined
  }
  | {
    /** One or the other, or both: nobody knows. */
    readonly _tag: "Anything"
    readonly pid?: number | undefined
  }

/** For how long a write is in doubt where the database cannot tell. */
export const windowMillis = 30_000
/** After so long nothing is under way any more to a backend whose connection was lost. */
export const forgottenMillis = 600_000
// Clocks of two machines go at about the same speed.
const toleranceMillis = 1000

export interface Watch {
  /** Takes note, and tells whether the write has ended. */
  readonly look: (observation: Observation) => boolean
  /** The database could not be asked. */
  readonly miss: (nowMillis: number) => void
  /** When it is worth to look again at the latest. */
  readonly dueMillis: number | undefined
}

/** Watches a write that is in doubt since now. What is looked at must have been asked for later. */
export const watch = (doubt: Doubt, nowMillis: number): Watch => {
  switch (doubt._tag) {
    case "Commit":
      return watchCommit(doubt)
    case "Statement":
      return watchStatement(doubt, nowMillis)
    case "Anything":
      return watchBoth(
        watchCommit(doubt),
        watchStatement({ ...doubt, isPipelined: doubt.pid === undefined }, nowMillis)
      )
  }
}

const watchBoth = (commit: Watch, statement: Watch): Watch => {
  let hasCommitEnded = false
  return {
    look: (seen) => {
      hasCommitEnded ||= commit.look(seen)
      return statement.look(seen) && hasCommitEnded
    },
    miss: statement.miss,
    get dueMillis() {
      return statement.dueMillis
    }
  }
}

const watchCommit = ({ pid, xid }: Omit<Doubt & { readonly _tag: "Commit" }, "_tag">): Watch => {
  let server: string | undefined
  let until: bigint | undefined
  return {
    look: (seen) => {
      if (xid !== undefined) return hasEnded(xid, seen)
      const isMoved = server !== undefined && server !== seen.server
      server = seen.server
      if (isMoved) {
        pid = undefined
        until = undefined
      }
      if (pid !== undefined && seen.isDirect) {
        const backend = seen.backends.find((backend) => backend.pid === pid)
        if (backend === undefined || backend.hasWritten === false) return true
      }
      // By what the transactions that ran then are: the upper end of the snapshot would leave some of them out.
      if (until !== undefined) return seen.xmin >= until
      until = seen.xid
      return false
    },
    miss: () => {},
    dueMillis: undefined
  }
}

/** Whether a transaction does not run any more, and is visible if it was committed: `pg_visible_in_snapshot`. */
const hasEnded = (xid: bigint, { running, xmax, xmin }: Observation): boolean =>
  xid < xmin || (xid < xmax && !running.has(xid))

const watchStatement = (
  { isPipelined, pid, sinceMillis = -Infinity }: Omit<Doubt & { readonly _tag: "Statement" }, "_tag">,
  lostMillis: number
): Watch => {
  let server: string | undefined
  let started: string | undefined
  let wasBusy = false
  let endMillis = lostMillis + windowMillis
  let working: Map<string, readonly [transaction: string, statement: string]> | undefined
  let until: bigint | undefined

  const again = (nowMillis: number) => {
    endMillis = nowMillis + windowMillis
    working = undefined
    until = undefined
  }
  return {
    look: (seen) => {
      const isMoved = server !== undefined && server !== seen.server
      server = seen.server
      if (isMoved) {
        pid = undefined
        again(seen.atMillis)
      }
      if (pid !== undefined && seen.isDirect && !isPipelined) {
        const backend = seen.backends.find((backend) => backend.pid === pid)
        // Another one has the number of a process that is gone.
        if (backend === undefined || (started !== undefined && backend.started !== started)) return true
        started = backend.started
        wasBusy ||= backend.isBusy === true
        return backend.isBusy === false && (wasBusy || seen.atMillis - lostMillis >= forgottenMillis)
      }

      if (seen.atMillis < endMillis) return false
      if (working === undefined) {
        // What began before it was sent is something else, unless it is sent after that on the same connection.
        const sentMillis = isPipelined
          ? -Infinity
          : seen.serverMillis - (seen.atMillis - sinceMillis) - toleranceMillis
        working = new Map()
        for (const { beganMillis, isBusy, pid, started, statement, transaction } of seen.backends) {
          if (isBusy === true && (beganMillis ?? Infinity) >= sentMillis) {
            working.set(`${pid} ${started}`, [transaction, statement])
          }
          // What does not say what it does may have written, if not more.
          if (isBusy === undefined) until = seen.xid
        }
      } else {
        const busy = new Map(
          seen.backends.filter(({ isBusy }) => isBusy === true)
            .map((backend) => [`${backend.pid} ${backend.started}`, backend])
        )
        for (const [name, [transaction, statement]] of working) {
          const backend = busy.get(name)
          // Parse, Bind and Execute are statements of one transaction, and one CALL may have several.
          const hasMovedOn = backend === undefined ||
            (!isPipelined && backend.transaction !== transaction && backend.statement !== statement)
          if (hasMovedOn) working.delete(name)
        }
      }
      return working.size === 0 && (until === undefined || seen.xmin >= until)
    },
    miss: again,
    get dueMillis() {
      return endMillis
    }
  }
}
