import { afterEach, assert, beforeAll, describe, it } from "@effect/vitest"
import * as FastCheck from "fast-check"
import { InvalidOptionError } from "../src/CacheError.ts"
import * as CacheStore from "../src/CacheStore.ts"
import * as Dependency from "../src/Dependency.ts"
import { MemoryTable } from "../src/internal/memoryTable.ts"
import { entryOf, keyOf, setOf, suite, write } from "./CacheStoreTest.ts"

// Whatever a test does, the structure must hold after it.
const tables = new Set<MemoryTable>()

beforeAll(() => {
  const lookup = MemoryTable.prototype.lookup
  MemoryTable.prototype.lookup = function(...args) {
    tables.add(this)
    return lookup.apply(this, args)
  }
  return () => {
    MemoryTable.prototype.lookup = lookup
  }
})

afterEach(() => {
  for (const table of tables) table.check()
})

const { row, tag } = Dependency

suite("CacheStore.layerMemory", CacheStore.layerMemory(), { spaces: true })

const none = setOf()

const tableOf = (capacity: number, maxBytes = 1_000_000): MemoryTable => {
  const made = new MemoryTable({ capacity, maxBytes })
  tables.add(made)
  return made
}

/** Looks up, and fills if that is a miss. */
const ask = (table: MemoryTable, name: string, dependencies: Dependency.DependencySet = none, bytes = 100) => {
  const key = keyOf("n", name)
  const outcome = table.lookup(key, dependencies, 0)
  if (outcome._tag === "Hit") return "hit"
  return table.store(key, { ...entryOf(name, dependencies), bytes }, outcome.lease, 0)
}

/** What is there, without asking: a lookup would mark it as visited. */
const names = (table: MemoryTable): ReadonlyArray<string> =>
  Array.from(table["spaces"].get("n/space")?.entries.keys() ?? [], String).sort()

/** SIEVE as the paper has it, over an array: the newest first. */
class Sieve {
  private readonly queue: Array<{ readonly name: string; visited: boolean }> = []
  private hand: { readonly name: string; visited: boolean } | undefined
  private readonly capacity: number

  constructor(capacity: number) {
    this.capacity = capacity
  }

  get names(): ReadonlyArray<string> {
    return this.queue.map(({ name }) => name).sort()
  }

  ask(name: string): void {
    const found = this.queue.find((entry) => entry.name === name)
    if (found !== undefined) {
      found.visited = true
      return
    }
    if (this.queue.length === this.capacity) {
      let at = this.hand === undefined ? this.queue.length - 1 : this.queue.indexOf(this.hand)
      while (this.queue[at].visited) {
        this.queue[at].visited = false
        at = at === 0 ? this.queue.length - 1 : at - 1
      }
      this.hand = this.queue[at - 1]
      this.queue.splice(at, 1)
    }
    this.queue.unshift({ name, visited: false })
  }
}

describe("CacheStore.layerMemory", () => {
  it("evicts as SIEVE does", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.integer({ min: 1, max: 6 }),
        FastCheck.array(FastCheck.nat(12), { maxLength: 200 }),
        (capacity, asks) => {
          const table = new MemoryTable({ capacity, maxBytes: 1_000_000 })
          const sieve = new Sieve(capacity)
          for (const name of asks.map(String)) {
            ask(table, name)
            sieve.ask(name)
            assert.deepStrictEqual(names(table), sieve.names)
          }
          table.check()
        }
      ),
      { numRuns: 500 }
    )
  })

  it("keeps to its capacity, and spares what was asked for again", () => {
    const table = tableOf(3)
    for (const name of ["a", "b", "c"]) ask(table, name)
    assert.strictEqual(ask(table, "a"), "hit")
    ask(table, "d")
    assert.deepStrictEqual(names(table), ["a", "c", "d"])
    // By `peek` too.
    assert.isDefined(table.peek(keyOf("n", "c"), 0))
    ask(table, "e")
    assert.deepStrictEqual(names(table), ["a", "c", "e"])
  })

  it("keeps to its bytes", () => {
    const table = tableOf(100, 1_000)
    for (const name of ["a", "b", "c", "d"]) ask(table, name, none, 250)
    assert.deepStrictEqual([table.size, table.bytes], [4, 1_000])
    // Several small ones leave for a large one.
    ask(table, "e", none, 600)
    assert.deepStrictEqual([names(table), table.bytes], [["d", "e"], 850])
    assert.strictEqual(ask(table, "f", none, 1_000), "accepted")
    assert.deepStrictEqual(names(table), ["f"])
    assert.strictEqual(ask(table, "g", none, 1_001), "refused")
    assert.deepStrictEqual(names(table), ["f"])
  })

  it("a scan does not drive out what is in use", () => {
    const table = tableOf(100)
    const hot = Array.from({ length: 50 }, (_, i) => `hot ${i}`)
    for (let i = 0; i < 5_000; i++) {
      if (i % 10 === 0) { for (const name of hot) ask(table, name) }
      ask(table, `scan ${i}`)
    }
    const kept = new Set(names(table))
    assert.isAbove(hot.filter((name) => kept.has(name)).length, 45)
  })

  it("forgets the stamps that nothing refers to, and refuses the fills that waited for them", () => {
    const table = tableOf(10)
    const kept = setOf(row("orders", { id: 1 }))
    ask(table, "kept", kept)
    const waiting = setOf(row("orders", { customer: 1 }))
    const outcome = table.lookup(keyOf("n", "waiting"), waiting, 0)
    for (let i = 0; i < 5_000; i++) table.lookup(keyOf("n", `${i}`), setOf(tag(`${i}`)), 0)
    assert.isBelow(table["stampCount"], 10 * 4 + 1024 + 1)
    assert(outcome._tag === "Miss")
    assert.strictEqual(table.store(keyOf("n", "waiting"), entryOf("v", waiting), outcome.lease, 0), "refused")

    // The shape of what stayed is still known, that of what was forgotten is registered anew.
    assert.strictEqual(ask(table, "kept", kept), "hit")
    assert.strictEqual(ask(table, "waiting", waiting), "accepted")
    table.invalidate(write("n", row("orders", { id: 2 })))
    assert.strictEqual(ask(table, "kept", kept), "hit")
    table.invalidate(write("n", row("orders", { id: 1 })))
    assert.strictEqual(ask(table, "kept", kept), "accepted")
  })

  it("a stamp that is forgotten and registered again is later than what was invalidated in between", () => {
    const table = tableOf(10)
    const tagged = setOf(tag("t"))
    const { lease } = table.lookup(keyOf("n", "waiting"), tagged, 0)
    for (let i = 0; i < 5_000; i++) table.lookup(keyOf("n", `${i}`), setOf(tag(`${i}`)), 0)
    table.invalidate(write("n", tag("t")))
    table.lookup(keyOf("n", "another"), tagged, 0)
    assert.strictEqual(table.store(keyOf("n", "waiting"), entryOf("old", tagged), lease, 0), "refused")
  })

  it("room for more stamps is made where more are in use", () => {
    const table = tableOf(1_000)
    for (let i = 0; i < 1_000; i++) {
      ask(table, `${i}`, setOf(...Array.from({ length: 10 }, (_, j) => tag(`${i},${j}`))))
    }
    assert.strictEqual(table.size, 1_000)
    assert.strictEqual(table["stampCount"], 10_000)
  })

  it("stays small and whole, and serves nothing invalidated, whatever happens", () => {
    const operation = FastCheck.record({
      kind: FastCheck.constantFrom("ask", "ask", "ask", "peek", "late", "write", "all", "wait"),
      name: FastCheck.nat(7),
      bytes: FastCheck.nat(500),
      maxAgeMillis: FastCheck.constantFrom(undefined, undefined, 0, 20),
      retainMillis: FastCheck.constantFrom(undefined, 0, 30),
      maxSpaceBytes: FastCheck.constantFrom(undefined, undefined, 250, 400)
    })
    FastCheck.assert(
      FastCheck.property(
        FastCheck.integer({ min: 1, max: 4 }),
        FastCheck.array(operation, { maxLength: 100 }),
        (capacity, operations) => {
          const table = new MemoryTable({ capacity, maxBytes: 400 })
          // Sweeps at every registration.
          table["sweepAt"] = 0
          let now = 0
          const versions = Array.from({ length: 8 }, () => 0)
          const filled = new Map<number, { readonly at: number; readonly keptUntil: number }>()
          const late: Array<() => void> = []
          for (const { bytes, kind, maxAgeMillis, maxSpaceBytes, name, retainMillis } of operations) {
            const key = { ...keyOf("n", `${name}`), space: `space ${name % 2}` }
            // Neighbours share a dependency.
            const dependencies = setOf(tag(`${name}`), tag(`${(name + 1) % 8}`))
            const value = () => `${versions[name]},${versions[(name + 1) % 8]}`
            const check = (hit: CacheStore.Kept | undefined) => {
              if (hit === undefined) return
              assert.strictEqual(hit.value, value())
              const { at, keptUntil } = filled.get(name)!
              assert.isBelow(now, keptUntil)
              assert.deepStrictEqual([hit.storedAtMillis, hit.expiresAtMillis], [at, at + 50])
            }
            const fill = (lease: CacheStore.Lease, value: string, at: number) => {
              const entry = { value, dependencies, timeToLiveMillis: 50, retainMillis, bytes, maxSpaceBytes }
              if (table.store(key, entry, lease, at) !== "accepted") return
              filled.set(name, { at, keptUntil: at + 50 + (retainMillis ?? 0) })
            }
            switch (kind) {
              case "ask":
              case "late": {
                const outcome = table.lookup(key, dependencies, now, maxAgeMillis)
                if (outcome._tag === "Hit" || outcome._tag === "Stale") {
                  check(outcome)
                  const age = now - outcome.storedAtMillis
                  assert.strictEqual(outcome._tag, age < 50 && age < (maxAgeMillis ?? 50) ? "Hit" : "Stale")
                }
                if (outcome._tag === "Hit") break
                if (kind === "ask") fill(outcome.lease, value(), now)
                else {
                  const read = value()
                  late.push(() => fill(outcome.lease, read, now))
                }
                break
              }
              case "peek":
                check(table.peek(key, now))
                break
              case "write":
                versions[name]++
                table.invalidate(write("n", tag(`${name}`)))
                break
              case "all":
                versions.forEach((_, i) => versions[i]++)
                table.invalidate({ namespace: "n", ...Dependency.allTargets })
                break
              case "wait":
                now += name * 5
                late.shift()?.()
            }
            table.check()
          }
        }
      ),
      { numRuns: 500 }
    )
  })

  it("an entry from before the clock was set back is stale, since nobody knows how old it is", () => {
    const table = tableOf(3)
    const key = keyOf("n", "q")
    const { lease } = table.lookup(key, none, 100_000)
    table.store(key, entryOf("v", none), lease, 100_000)
    assert.strictEqual(table.lookup(key, none, 100_000)._tag, "Hit")
    assert.strictEqual(table.lookup(key, none, 99_999)._tag, "Stale")
  })

  it("a space that makes room for its own drives nobody else out", () => {
    const table = tableOf(4, 400)
    ask(table, "elsewhere")
    const put = (name: string) => {
      const key = { ...keyOf("n", name), space: "full" }
      const { lease } = table.lookup(key, none, 0)
      return table.store(key, { ...entryOf(name, none), bytes: 100, maxSpaceBytes: 300 }, lease, 0)
    }
    for (const name of ["a", "b", "c", "d", "e"]) assert.strictEqual(put(name), "accepted")
    assert.deepStrictEqual([names(table), table.size], [["elsewhere"], 4])
  })

  it("refuses bad options by name and value", () => {
    const cases: ReadonlyArray<readonly [any, string]> = [
      [{ capacity: 0 }, "capacity"],
      [{ capacity: -1 }, "capacity"],
      [{ capacity: 1.5 }, "capacity"],
      [{ capacity: Infinity }, "capacity"],
      [{ capacity: "10" }, "capacity"],
      [{ maxBytes: 0 }, "maxBytes"],
      [{ maxByte: 5 }, "maxByte"]
    ]
    for (const [options, option] of cases) {
      try {
        CacheStore.layerMemory(options)
        assert.fail(`accepted ${JSON.stringify(options)}`)
      } catch (error) {
        assert(error instanceof InvalidOptionError && error.option === option)
        assert.deepStrictEqual(error.value, options[option])
      }
    }
  })
})
