/**
 * The table behind `CacheStore.layerMemory`: SIEVE eviction, validity by stamps.
 *
 * Invariants, which `check` verifies after every test:
 *
 * 1. An entry is served only if `lease >= stamp` for every dependency it was
 *    filled with and for its namespace, and it is not past keeping.
 * 2. A dependency that entries refer to is never forgotten. One that nothing
 *    refers to may be, at any time: a fill whose lease is older than its return
 *    finds it absent, or stamped later, and is refused either way.
 * 3. `bytes` and `size` are the sums over the queue, and within their limits; so
 *    are those of each space.
 * 4. The clock only grows. Nothing here is asynchronous, so a lookup, a fill and
 *    an invalidation each happen at one point in time.
 * 5. A group is what the entries with one dependency set share: it refers to the
 *    stamps, is there as long as one of them is, and knows the newest stamp as of
 *    the clock it was last compared at. So an invalidation costs each set one
 *    comparison of stamps, and each entry none.
 *
 * SIEVE: Zhang, Yang, Yue, Vigfusson, Rashmi, "SIEVE is Simpler than LRU: an
 * Efficient Turn-Key Eviction Algorithm for Web Caches", NSDI 2024. New entries
 * enter at the head; the hand moves from tail to head, spares what was visited
 * since it last passed, and evicts the first that was not. A hit sets one flag.
 */
import type * as CacheStore from "../CacheStore.ts"
import * as Dependency from "../Dependency.ts"

/** One stamp, shared by all entries that depend on it. Never reused: a new registration is a new object. */
interface Stamp {
  readonly name: string
  clock: number
  references: number
  readonly shape: Dependency.Shape | undefined
}

/** What the entries with one dependency set share. */
interface Group {
  /** The newest of its stamps and of its namespace's clock, as of `checked`. */
  newest: number
  checked: number
  /** How many entries it has. */
  size: number
  readonly dependencies: Dependency.DependencySet
  readonly stamps: ReadonlyArray<Stamp>
  readonly namespace: Namespace
}

interface Namespace {
  readonly stamps: Map<string, Stamp>
  /** By the id of the dependency set. */
  readonly groups: Map<string, Group>
  /** Registered shapes by table, each under its own stamp. */
  readonly shapes: Map<string, Map<string, Dependency.Shape>>
  /** When everything in it was invalidated last. */
  clock: number
}

/** The entries of one space, oldest first. */
class Space {
  readonly entries = new Map<CacheStore.CacheKey["local"], MemoryEntry>()
  bytes = 0
  /** What its latest entry said. */
  maxBytes = Infinity
}

class MemoryEntry implements CacheStore.Kept {
  // What is the same for all takes no room in each: the smaller entries are, the more of them the processor has at hand.
  declare readonly level: "L1"

  // What `peek` reads comes first.
  readonly keptUntilMillis: number
  readonly leaseClock: number
  readonly group: Group
  visited: boolean
  readonly value: unknown
  readonly expiresAtMillis: number
  readonly storedAtMillis: number
  readonly costMillis: number
  readonly bytes: number
  readonly space: Space
  readonly key: CacheStore.CacheKey
  newer: MemoryEntry | undefined
  older: MemoryEntry | undefined

  constructor(
    key: CacheStore.CacheKey,
    space: Space,
    group: Group,
    entry: CacheStore.Entry,
    leaseClock: number,
    nowMillis: number
  ) {
    const expiresAtMillis = nowMillis + entry.timeToLiveMillis
    this.keptUntilMillis = expiresAtMillis + (entry.retainMillis ?? 0)
    this.leaseClock = leaseClock
    this.group = group
    this.visited = false
    this.value = entry.value
    this.expiresAtMillis = expiresAtMillis
    this.storedAtMillis = nowMillis
    this.costMillis = entry.costMillis ?? 0
    this.bytes = entry.bytes
    this.space = space
    this.key = key
    this.newer = undefined
    this.older = undefined
  }

  get dependencies(): Dependency.DependencySet {
    return this.group.dependencies
  }
}
Object.assign(MemoryEntry.prototype, { level: "L1" })

export interface MemoryTableOptions {
  readonly capacity: number
  readonly maxBytes: number
}

export class MemoryTable {
  readonly options: MemoryTableOptions
  readonly epoch = "memory"
  private readonly spaces = new Map<string, Space>()
  private lastName: string | undefined
  private lastSpace: Space | undefined
  private readonly namespaces = new Map<string, Namespace>()
  private head: MemoryEntry | undefined
  private tail: MemoryEntry | undefined
  private hand: MemoryEntry | undefined
  private clock = 1
  private sweepAt: number
  private stampCount = 0
  size = 0
  bytes = 0

  constructor(options: MemoryTableOptions) {
    this.options = options
    this.sweepAt = options.capacity * 4 + 1024
  }

  peek(key: CacheStore.CacheKey, nowMillis: number): MemoryEntry | undefined {
    const entry = this.find(key)
    if (entry === undefined || nowMillis >= entry.keptUntilMillis) return undefined
    if (!this.isValid(entry)) return undefined
    if (!entry.visited) entry.visited = true
    return entry
  }

  lookup(
    key: CacheStore.CacheKey,
    dependencies: Dependency.DependencySet,
    nowMillis: number,
    maxAgeMillis = Infinity
  ): CacheStore.Outcome {
    const namespace = this.namespaceOf(key.namespace)
    const entry = this.find(key)
    let reason: CacheStore.MissReason = "absent"
    if (entry !== undefined) {
      if (nowMillis >= entry.keptUntilMillis) {
        reason = "expired"
        this.remove(entry)
      } else if (!this.isValid(entry)) {
        reason = "invalidated"
        this.remove(entry)
      } else if (
        entry.dependencies.id === dependencies.id || this.covers(namespace, dependencies, entry.leaseClock)
      ) {
        entry.visited = true
        const { costMillis, expiresAtMillis, level, storedAtMillis, value } = entry
        const kept = { level, value, storedAtMillis, expiresAtMillis, costMillis, dependencies: entry.dependencies }
        if (nowMillis < expiresAtMillis && isYounger(nowMillis - storedAtMillis, maxAgeMillis)) {
          return { _tag: "Hit", ...kept, lease: this.lease() }
        }
        this.register(namespace, dependencies)
        return { _tag: "Stale", ...kept, lease: this.lease(), waiting: false }
      } else {
        // The entry is good for those it was filled for, not for this caller.
        reason = "invalidated"
      }
    }
    this.register(namespace, dependencies)
    return { _tag: "Miss", lease: this.lease(), reason }
  }

  store(
    key: CacheStore.CacheKey,
    entry: CacheStore.Entry,
    lease: CacheStore.Lease,
    nowMillis: number
  ): "accepted" | "refused" {
    const namespace = this.namespaceOf(key.namespace)
    if (
      lease.epoch !== this.epoch || entry.bytes > this.options.maxBytes ||
      (entry.maxSpaceBytes !== undefined && entry.bytes > entry.maxSpaceBytes) ||
      !this.covers(namespace, entry.dependencies, lease.clock)
    ) return "refused"
    const previous = this.find(key)
    if (previous !== undefined) this.remove(previous)
    // Before the new entry is in the queue: it has not been visited, and would be the one to leave. Its own space
    // first, which may make room enough.
    this.makeRoom(key.space, entry)
    while (this.size >= this.options.capacity || this.bytes + entry.bytes > this.options.maxBytes) this.evict()
    // A space goes with its last entry.
    let space = this.spaces.get(key.space)
    if (space === undefined) {
      this.spaces.set(key.space, space = new Space())
      this.lastName = undefined
    }

    const group = this.groupOf(namespace, entry.dependencies)
    group.size++
    const added = new MemoryEntry(key, space, group, entry, lease.clock, nowMillis)
    space.entries.set(key.local, added)
    space.bytes += added.bytes
    space.maxBytes = entry.maxSpaceBytes ?? Infinity
    added.older = this.head
    if (this.head !== undefined) this.head.newer = added
    this.head = added
    this.tail ??= added
    this.size++
    this.bytes += entry.bytes
    return "accepted"
  }

  invalidate(request: CacheStore.InvalidateRequest): CacheStore.Invalidation {
    const namespace = this.namespaceOf(request.namespace)
    const clock = ++this.clock
    const stamps = new Set(request.stamps)
    for (const image of request.images) {
      stamps.add(image.table)
      for (const shape of namespace.shapes.get(image.table)?.values() ?? []) {
        stamps.add(Dependency.imageStamp(image, shape))
      }
    }
    // Only what is registered: writes do not grow the table.
    for (const name of stamps) {
      const stamp = namespace.stamps.get(name)
      if (stamp !== undefined) stamp.clock = clock
    }
    if (request.all) namespace.clock = clock
    return { namespace: request.namespace, shard: 0, stamps: [...stamps], all: request.all, epoch: this.epoch, clock }
  }

  private find(key: CacheStore.CacheKey): MemoryEntry | undefined {
    const name = key.space
    // Who asks for several values asks in one space: it is looked for once.
    if (name !== this.lastName) {
      this.lastSpace = this.spaces.get(name)
      this.lastName = name
    }
    return this.lastSpace?.entries.get(key.local)
  }

  private lease(): CacheStore.Lease {
    return { epoch: this.epoch, clock: this.clock }
  }

  private namespaceOf(name: string): Namespace {
    let namespace = this.namespaces.get(name)
    if (namespace === undefined) {
      this.namespaces.set(name, namespace = { stamps: new Map(), groups: new Map(), shapes: new Map(), clock: 0 })
    }
    return namespace
  }

  /** The group of a set whose stamps are all known. */
  private groupOf(namespace: Namespace, dependencies: Dependency.DependencySet): Group {
    let group = namespace.groups.get(dependencies.id)
    if (group === undefined) {
      const stamps = dependencies.stamps.map((name) => namespace.stamps.get(name)!)
      for (const stamp of stamps) stamp.references++
      group = { newest: 0, checked: 0, size: 0, dependencies, stamps, namespace }
      namespace.groups.set(dependencies.id, group)
    }
    return group
  }

  private isValid(entry: MemoryEntry): boolean {
    const group = entry.group
    if (group.checked !== this.clock) this.compareStamps(group)
    return group.newest <= entry.leaseClock
  }

  private compareStamps(group: Group): void {
    let newest = group.namespace.clock
    const stamps = group.stamps
    for (let i = 0; i < stamps.length; i++) newest = Math.max(newest, stamps[i].clock)
    group.newest = newest
    group.checked = this.clock
  }

  /** Every dependency known, and none invalidated since the lease. */
  private covers(namespace: Namespace, dependencies: Dependency.DependencySet, lease: number): boolean {
    if (namespace.clock > lease) return false
    for (const name of dependencies.stamps) {
      const stamp = namespace.stamps.get(name)
      if (stamp === undefined || stamp.clock > lease) return false
    }
    return true
  }

  private register(namespace: Namespace, dependencies: Dependency.DependencySet): void {
    if (this.stampCount + dependencies.stamps.length > this.sweepAt) this.sweep()
    const add = (name: string, shape: Dependency.Shape | undefined) => {
      if (namespace.stamps.has(name)) return
      namespace.stamps.set(name, { name, clock: this.clock, references: 0, shape })
      this.stampCount++
      if (shape !== undefined) {
        const shapes = namespace.shapes.get(shape.table)
        if (shapes === undefined) namespace.shapes.set(shape.table, new Map([[name, shape]]))
        else shapes.set(name, shape)
      }
    }
    for (const shape of dependencies.shapes) add(Dependency.shapeStamp(shape), shape)
    for (const name of dependencies.stamps) add(name, undefined)
  }

  /** Forgets the stamps that no entry refers to. */
  private sweep(): void {
    for (const namespace of this.namespaces.values()) {
      for (const stamp of namespace.stamps.values()) {
        if (stamp.references > 0) continue
        namespace.stamps.delete(stamp.name)
        this.stampCount--
        if (stamp.shape !== undefined) {
          const shapes = namespace.shapes.get(stamp.shape.table)!
          shapes.delete(stamp.name)
          if (shapes.size === 0) namespace.shapes.delete(stamp.shape.table)
        }
      }
    }
    this.sweepAt = Math.max(this.options.capacity * 4 + 1024, this.stampCount * 2)
  }

  private evict(): void {
    let candidate = this.hand ?? this.tail!
    while (candidate.visited) {
      candidate.visited = false
      candidate = candidate.newer ?? this.tail!
    }
    this.hand = candidate.newer
    this.remove(candidate)
  }

  /** Lets the oldest of a space go that nobody has asked for since they were last spared. */
  private makeRoom(name: string, { bytes, maxSpaceBytes = Infinity }: CacheStore.Entry): void {
    const space = this.spaces.get(name)
    if (space === undefined) return
    for (const [local, entry] of space.entries) {
      if (space.bytes + bytes <= maxSpaceBytes) return
      if (entry.visited) {
        entry.visited = false
        space.entries.delete(local)
        space.entries.set(local, entry)
      } else {
        this.remove(entry)
      }
    }
  }

  private remove(entry: MemoryEntry): void {
    if (this.hand === entry) this.hand = entry.newer
    if (entry.newer !== undefined) entry.newer.older = entry.older
    else this.head = entry.older
    if (entry.older !== undefined) entry.older.newer = entry.newer
    else this.tail = entry.newer
    entry.newer = entry.older = undefined
    entry.space.entries.delete(entry.key.local)
    entry.space.bytes -= entry.bytes
    if (entry.space.entries.size === 0) {
      this.spaces.delete(entry.key.space)
      this.lastName = undefined
    }
    this.leave(entry.group)
    this.size--
    this.bytes -= entry.bytes
  }

  private leave(group: Group): void {
    if (--group.size > 0) return
    group.namespace.groups.delete(group.dependencies.id)
    for (const stamp of group.stamps) stamp.references--
  }

  /** Throws where an invariant does not hold. For tests. */
  check(): void {
    let size = 0
    let bytes = 0
    for (let entry = this.head; entry !== undefined; entry = entry.older) {
      size++
      bytes += entry.bytes
      if (this.find(entry.key) !== entry) {
        throw new Error("an entry is not under its key")
      }
      if (entry.older !== undefined ? entry.older.newer !== entry : this.tail !== entry) {
        throw new Error("the queue is torn")
      }
      if (entry.group.namespace.groups.get(entry.dependencies.id) !== entry.group) {
        throw new Error(`a group is forgotten, but has entries: ${entry.dependencies.id}`)
      }
    }
    let keys = 0
    if (this.lastName !== undefined && this.lastSpace !== this.spaces.get(this.lastName)) {
      throw new Error("another space is remembered")
    }
    for (const space of this.spaces.values()) {
      if (space.entries.size === 0) throw new Error("an empty space is kept")
      keys += space.entries.size
      let sum = 0
      for (const entry of space.entries.values()) sum += entry.bytes
      if (sum !== space.bytes) throw new Error("the bytes of a space disagree")
      if (sum > space.maxBytes) throw new Error("a space is over its limit")
    }
    let stamps = 0
    let grouped = 0
    for (const namespace of this.namespaces.values()) {
      const references = new Map<Stamp, number>()
      for (const group of namespace.groups.values()) {
        if (group.size === 0) throw new Error(`an empty group is kept: ${group.dependencies.id}`)
        grouped += group.size
        for (const stamp of group.stamps) {
          references.set(stamp, (references.get(stamp) ?? 0) + 1)
          if (namespace.stamps.get(stamp.name) !== stamp) {
            throw new Error(`forgotten, but referred to: ${stamp.name}`)
          }
        }
        const newest = Math.max(namespace.clock, ...group.stamps.map((stamp) => stamp.clock))
        if (group.checked === this.clock && group.newest !== newest) {
          throw new Error(`a stamp was missed: ${group.dependencies.id}`)
        }
      }
      for (const stamp of namespace.stamps.values()) {
        stamps++
        if (stamp.references !== (references.get(stamp) ?? 0)) throw new Error(`miscounted: ${stamp.name}`)
      }
    }
    if (size !== this.size || keys !== size || grouped !== size) throw new Error("sizes disagree")
    if (bytes !== this.bytes) throw new Error("bytes disagree")
    if (stamps !== this.stampCount) throw new Error("stamp count disagrees")
    if (size > this.options.capacity || bytes > this.options.maxBytes) throw new Error("over the limit")
  }
}

/** An entry from the future was stored before somebody set the clock back: nobody knows how old it is. */
const isYounger = (ageMillis: number, thanMillis: number): boolean => ageMillis >= 0 && ageMillis < thanMillis
