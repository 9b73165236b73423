/**
 * The connection that a statement was sent on.
 *
 * This is the one module that knows how the driver's connections and Effect's
 * statements look inside. What it does not find there is unknown, and what is
 * unknown is in doubt; tests pin what it finds.
 */
import * as Effect from "effect/Effect"
import type { Connection } from "effect/sql/SqlConnection"
import type { Statement } from "effect/sql/Statement"

interface Inside {
  readonly connection?: {
    readonly processId?: number
    readonly [internals]?: {
      readonly deadError?: () => unknown
      readonly retireHooks?: Set<() => void>
    }
    /** Of a connection that a transaction has, or a caller of `reserve`: whether it was given back. */
    readonly released?: boolean
  }
}

const internals = "~@effect/sql-pg/PgConnection/internals"

export class Wire {
  /** Whether statements of others may be on their way on the same connection. */
  readonly isShared: boolean
  private connection: Connection | undefined
  /** Whether a connection that is taken is noted here. */
  private isWatched = false

  constructor(isShared: boolean) {
    this.isShared = isShared
  }

  /** Of a connection that nobody else has. */
  static of(connection: Connection | undefined): Wire {
    const wire = new Wire(false)
    wire.connection = connection
    return wire
  }

  /** A statement that notes here what it is sent on. */
  watch<A extends object>(statement: Statement<A>): Statement<A> {
    const { acquirer, borrower } = statement as unknown as {
      readonly acquirer?: Effect.Effect<Connection, unknown, unknown>
      readonly borrower?: (use: (connection: Connection) => unknown) => unknown
    }
    if (!Effect.isEffect(acquirer)) return statement
    this.isWatched = true
    const note = (connection: Connection): Connection => this.connection = connection
    return Object.assign(Object.create(statement), {
      acquirer: Effect.map(acquirer, note),
      borrower: borrower && ((use: (connection: Connection) => unknown) => borrower((one) => use(note(one))))
    })
  }

  /** No connection was had, so nothing was sent. */
  get isUnused(): boolean {
    return this.isWatched && this.connection === undefined
  }

  /**
   * Whether the connection works still. Then what was sent on it has ended: the driver gives up no statement before the
   * server is ready for the next one, or the connection is given up with it.
   */
  get isOpen(): boolean {
    if (this.isShared) return false
    const inside = (this.connection as Inside | undefined)?.connection?.[internals]
    return inside?.deadError !== undefined && inside.deadError() === undefined
  }

  /** The process at its other end: the server's backend, or whatever a pooler in between says. */
  get pid(): number | undefined {
    return (this.connection as Inside | undefined)?.connection?.processId
  }

  /** Runs whenever the connection is lost, or given up for good, while it is held. */
  onLost(run: () => void): void {
    const connection = (this.connection as Inside | undefined)?.connection
    const hooks = connection?.[internals]?.retireHooks
    if (connection === undefined || hooks === undefined) return
    const isOver = () => connection.released === true
    for (const hook of hooks) {
      if (ended.get(hook)?.() === true) hooks.delete(hook)
    }
    const hook = () => {
      if (!isOver()) run()
    }
    ended.set(hook, isOver)
    hooks.add(hook)
  }
}

/** By what is to run when a connection is lost: whether that is of no interest any more. */
const ended = new WeakMap<() => void, () => boolean>()
