/**
 * What the surfaces are made of: one per decorated client, carried by the
 * `QueryCache` service.
 */
import type * as Clock from "effect/Clock"
import type * as Fiber from "effect/Fiber"
import type * as CachePolicy from "../CachePolicy.ts"
import type * as CacheScope from "../CacheScope.ts"
import type * as CacheStore from "../CacheStore.ts"
import type * as Dependency from "../Dependency.ts"
import type { Fingerprinter } from "../Fingerprinter.ts"
import type { Changes } from "./changes.ts"
import type { Delivery } from "./delivery.ts"
import type { Naming } from "./naming.ts"
import type { Reader } from "./reader.ts"
import type { Rules } from "./rules.ts"
import type { Point } from "./session.ts"
import type { Sessions } from "./sessions.ts"
import type { StoreHealth } from "./storeHealth.ts"
import type { Strict } from "./strict.ts"
import type { Tally } from "./tally.ts"
import type { Transactions } from "./transactions.ts"

/** What is the same for everything that a client asks. */
export interface Facts {
  readonly namespace: string
  readonly schemaVersion: string
  readonly session: string
}

export interface Engine {
  readonly facts: Facts
  readonly fingerprinter: Fingerprinter["Service"]
  readonly store: CacheStore.CacheStore["Service"]
  readonly health: StoreHealth
  readonly reader: Reader
  readonly delivery: Delivery
  readonly changes: Changes
  readonly transactions: Transactions
  readonly sessions: Sessions
  /** Where the store is kept strict. */
  readonly strict: Strict | undefined
  /** What names mean. */
  readonly naming: Naming
  readonly tally: Tally
  readonly rules: Rules
  /** What holds where a call says nothing. */
  readonly layerPolicy: CachePolicy.Resolved
  /** The names of cached queries, resolvers and views: each may be taken once. */
  readonly names: Set<string>
  /** Nothing is cached and nothing invalidated. */
  readonly noop: boolean
}

/** Whether an answer with these dependencies must not be served for now. */
export const isUnserved = ({ delivery }: Engine, dependencies: Dependency.DependencySet): boolean =>
  !delivery.unserved.isEmpty && delivery.unserved.covers(dependencies)

/** Whether the cache has no part in what a session asks, of whatever it may be. */
export const isBypassed = (
  { delivery, sessions }: Engine,
  point: Point,
  clock: Clock.Clock
): boolean => sessions.isBypassed(point, clock.currentTimeMillisUnsafe(), delivery.unserved.isEmpty)

/** What keeps texts apart that are joined. */
export const part = (text: string): string => `${text.length}:${text}`

/** The keys of what is named by a name and a key of the program's own, in a scope. */
export class NamedSpace {
  readonly engine: Engine
  /** What is named, and of which version. */
  private readonly name: string
  private readonly version: string
  private readonly unscoped: string
  private lastScope: string | undefined
  private lastSpace = ""

  constructor(engine: Engine, name: string, version: string) {
    this.engine = engine
    this.name = name
    this.version = version
    const { namespace, schemaVersion, session } = engine.facts
    this.unscoped = `=${[namespace, schemaVersion, session, name, version].map(part).join("")}`
  }

  /** The space of the values in a scope. */
  of(scope: CacheScope.Resolved | undefined): string {
    if (scope === undefined) return this.unscoped
    if (scope.key !== this.lastScope) {
      this.lastScope = scope.key
      this.lastSpace = `@${part(scope.key)}${this.unscoped}`
    }
    return this.lastSpace
  }

  fingerprint(local: CacheStore.CacheKey["local"], scope: CacheScope.Resolved | undefined): string {
    return this.engine.fingerprinter.fingerprint({
      ...this.engine.facts,
      sql: this.name,
      form: `named ${this.version}`,
      scope: scope?.key ?? "",
      parameters: `${typeof local}:${local}`
    })
  }
}

/** Names one value of a space. The fingerprint waits until it is asked for. */
export class NamedKey implements CacheStore.CacheKey {
  readonly space: string
  readonly local: string | number | bigint
  readonly codec: CacheStore.Codec
  private readonly owner: NamedSpace
  private readonly scope: CacheScope.Resolved | undefined
  private computed: string | undefined

  constructor(
    owner: NamedSpace,
    local: string | number | bigint,
    scope: CacheScope.Resolved | undefined,
    codec: CacheStore.Codec
  ) {
    this.space = owner.of(scope)
    this.local = local
    this.codec = codec
    this.owner = owner
    this.scope = scope
    this.computed = undefined
  }

  get namespace(): string {
    return this.owner.engine.facts.namespace
  }

  get fingerprint(): string {
    return this.computed ??= this.owner.fingerprint(this.local, this.scope)
  }
}

export type AnyFiber = Fiber.Fiber<unknown, unknown>
