import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** How a worker reaches Redis. */
export type Connection =
  | { readonly _tag: "Single"; readonly url: string }
  | {
    readonly _tag: "Cluster"
    readonly urls: ReadonlyArray<string>
    /** What each node's own address is to be taken for: the client's `nodeAddressMap`. */
    readonly doors: { readonly [address: string]: { readonly host: string; readonly port: number } }
  }

/** Something that befalls a server or a connection, and is over again when the effect ends. It may take a few seconds. */
export interface Fault {
  readonly name: string
  /** Whether metadata, or acknowledged invalidations, may be lost by it in a way that the bounded tier answers by a new epoch. */
  readonly run: (random: () => number) => Effect.Effect<void, never, Scope.Scope>
}

export interface Topology {
  readonly name: "single" | "replica" | "cluster"
  /** A connection for one more worker: each worker has doors (proxies) of its own, so that faults may hit one of them. */
  readonly connect: Effect.Effect<
    { readonly connection: Connection; readonly faults: ReadonlyArray<Fault> },
    never,
    Scope.Scope
  >
  /** Faults of the servers themselves. */
  readonly faults: ReadonlyArray<Fault>
}
