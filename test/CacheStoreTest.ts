/**
 * What every store promises. The suite runs on each of them.
 */
import { assert, layer as layerTests } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as FastCheck from "fast-check"
import * as CacheStore from "../src/CacheStore.ts"
import * as Dependency from "../src/Dependency.ts"
import * as Places from "../src/internal/places.ts"

export interface SuiteOptions<R = never> {
  /** Runs by the real clock, for stores whose time is not ours to set. */
  readonly live?: boolean
  /** The store of another process over the same data, for stores whose flights are shared. */
  readonly another?: Effect.Effect<Service, never, R | Scope.Scope>
  /** Whether it counts the bytes of a space, as stores in a process do. */
  readonly spaces?: boolean
  /** Whether it serves what it has stored without reading it again. */
  readonly holds?: boolean
  /** What may happen to the data of a namespace at any time without a wrong answer. */
  readonly faults?: ReadonlyArray<(namespace: string) => Effect.Effect<unknown, never, R>>
}

export type Service = CacheStore.CacheStore["Service"]

/** Text is JSON, and values that JSON alters are refused. */
const json: CacheStore.Codec = {
  encode: (value) => {
    const text = JSON.stringify(value)
    return typeof value === "symbol" ? undefined : text
  },
  decode: (text) => JSON.parse(text)
}

let namespaces = 0

/** A namespace that no other test uses. */
export const freshNamespace = (): string => `test-${++namespaces}`

export const keyOf = (namespace: string, name: string, codec: CacheStore.Codec = json): CacheStore.CacheKey => ({
  namespace,
  space: `${namespace}/space`,
  local: name,
  fingerprint: name,
  codec
})

export const entryOf = (
  value: unknown,
  dependencies: Dependency.DependencySet,
  timeToLiveMillis = 60_000
): CacheStore.Entry => ({ value, dependencies, timeToLiveMillis, bytes: 100 })

export const setOf = (...dependencies: ReadonlyArray<Dependency.Dependency>): Dependency.DependencySet =>
  Dependency.makeSet(dependencies)

/** A lookup that must miss, and of which nobody is told to wait: its lease alone is of use. */
export const miss = Effect.fnUntraced(function*(
  store: Service,
  key: CacheStore.CacheKey,
  dependencies: Dependency.DependencySet
) {
  const outcome = yield* store.lookup(key, dependencies)
  if (outcome._tag !== "Miss") return assert.fail(`expected a miss for ${key.fingerprint}, not ${outcome._tag}`)
  yield* store.release(key, outcome.lease)
  return outcome
})

/** The value of a lookup that must hit. */
export const hit = Effect.fnUntraced(function*(
  store: Service,
  key: CacheStore.CacheKey,
  dependencies: Dependency.DependencySet
) {
  const outcome = yield* store.lookup(key, dependencies)
  if (outcome._tag !== "Hit") return assert.fail(`expected a hit for ${key.fingerprint}, but ${reasonOf(outcome)}`)
  return outcome
})

/** A lookup whose entry must be stale. */
export const stale = Effect.fnUntraced(function*(
  store: Service,
  key: CacheStore.CacheKey,
  dependencies: Dependency.DependencySet
) {
  const outcome = yield* store.lookup(key, dependencies)
  if (outcome._tag !== "Stale") return assert.fail(`expected it to be stale, not ${outcome._tag}: ${key.fingerprint}`)
  return outcome
})

/** A lookup that must not find anything, whoever reads it. */
const missing = (store: Service, key: CacheStore.CacheKey, dependencies: Dependency.DependencySet) =>
  Effect.map(store.lookup(key, dependencies), ({ _tag }) => assert.include(["Miss", "Wait"], _tag))

/** A lookup that must be told to read, under a flight. */
const owningMiss = Effect.fnUntraced(function*(
  store: Service,
  key: CacheStore.CacheKey,
  dependencies: Dependency.DependencySet
) {
  const outcome = yield* store.lookup(key, dependencies)
  if (outcome._tag !== "Miss" || outcome.lease.flight === undefined) {
    return assert.fail(`expected a flight of its own for ${key.fingerprint}, not ${outcome._tag}`)
  }
  return outcome
})

export const owning = (store: Service, key: CacheStore.CacheKey, dependencies: Dependency.DependencySet) =>
  Effect.map(owningMiss(store, key, dependencies), ({ lease }) => lease)

/** Why a lookup did not hit. */
const reasonOf = (outcome: CacheStore.Outcome): string => outcome._tag === "Miss" ? outcome.reason : outcome._tag

/** Looks up, misses, fills, and must be accepted. */
export const fill = Effect.fnUntraced(function*(
  store: Service,
  key: CacheStore.CacheKey,
  dependencies: Dependency.DependencySet,
  value: unknown = key.fingerprint,
  more?: number | Partial<CacheStore.Entry>
) {
  const outcome = yield* store.lookup(key, dependencies)
  if (outcome._tag !== "Miss") return assert.fail(`expected a miss for ${key.fingerprint}, not ${outcome._tag}`)
  const entry = { ...entryOf(value, dependencies), ...(typeof more === "number" ? { timeToLiveMillis: more } : more) }
  assert.strictEqual(yield* store.store(key, entry, outcome.lease), "accepted")
  return outcome.lease
})

/** What a write of the program itself marks. */
export const write = (namespace: string, ...dependencies: ReadonlyArray<Dependency.Dependency>) => ({
  namespace,
  ...Dependency.writeTargets(dependencies)
})

const explicit = (namespace: string, ...dependencies: ReadonlyArray<Dependency.Dependency>) => ({
  namespace,
  ...Dependency.explicitTargets(dependencies)
})

const image = (table: string, columns: Record<string, string | null>): Dependency.Image => ({
  table,
  columns: new Map(Object.entries(columns))
})

const images = (namespace: string, ...images: ReadonlyArray<Dependency.Image>): CacheStore.InvalidateRequest => ({
  namespace,
  stamps: [],
  images,
  all: false
})

export const suite = <R, E>(
  name: string,
  layer: Layer.Layer<CacheStore.CacheStore | R, E>,
  options?: SuiteOptions<R>
): void => {
  const advance = (millis: number) => options?.live === true ? Effect.sleep(millis) : TestClock.adjust(millis)
  const pause = options?.live === true ? Effect.sleep(5) : Effect.yieldNow

  const { row, table, tag } = Dependency
  const orders = setOf(table("orders"))

  /** The cached keys of a namespace that hits after `request`. */
  const surviving = Effect.fnUntraced(function*(
    store: Service,
    request: CacheStore.InvalidateRequest,
    entries: ReadonlyArray<readonly [string, Dependency.DependencySet]>
  ) {
    for (const [name, set] of entries) yield* fill(store, keyOf(request.namespace, name), set)
    yield* store.invalidate(request)
    const survivors: Array<string> = []
    for (const [name, set] of entries) {
      const outcome = yield* store.lookup(keyOf(request.namespace, name), set)
      if (outcome._tag === "Hit") survivors.push(name)
      // A store may drop at once what an invalidation reaches.
      else assert.include(["invalidated", "absent"], reasonOf(outcome))
    }
    return survivors
  })

  layerTests(layer, { excludeTestServices: options?.live === true })(name, (it) => {
    it.effect("returns what was filled, and when", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        const value = [{ id: 1, name: "Ada \u0000 \ud83d\ude00 \ud800", nested: { a: [null, true] } }]
        const before = yield* Clock.currentTimeMillis
        const { reason } = yield* miss(store, key, orders)
        assert.strictEqual(reason, "absent")
        yield* fill(store, key, orders, value)
        const after = yield* Clock.currentTimeMillis
        yield* advance(20)
        const found = yield* hit(store, key, orders)
        assert.deepStrictEqual(found.value, value)
        // Two clocks round to milliseconds.
        assert.isAtLeast(found.storedAtMillis, before - 5)
        assert.isAtMost(found.storedAtMillis, after + 5)
        if (found.dependencies !== undefined) assert.strictEqual(found.dependencies.id, orders.id)
      }))

    it.effect("refuses a fill that comes after the invalidation (race 1)", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        const { lease } = yield* miss(store, key, orders)
        yield* store.invalidate(write(key.namespace, table("orders")))
        assert.strictEqual(yield* store.store(key, entryOf("old", orders), lease), "refused")
        yield* fill(store, key, orders, "new")
        assert.strictEqual((yield* hit(store, key, orders)).value, "new")
      }))

    it.effect("refuses a late fill when another asker registered the dependency again", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        const slow = yield* miss(store, key, orders)
        yield* store.invalidate(write(key.namespace, table("orders")))
        const fast = yield* miss(store, key, orders)
        assert.strictEqual(yield* store.store(key, entryOf("new", orders), fast.lease), "accepted")
        assert.strictEqual(yield* store.store(key, entryOf("old", orders), slow.lease), "refused")
        assert.strictEqual((yield* hit(store, key, orders)).value, "new")
      }))

    it.effect("refuses a fill whose dependency nobody registered (race 2)", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        const { lease } = yield* miss(store, key, orders)
        const more = setOf(table("orders"), tag("premium"))
        assert.strictEqual(yield* store.store(key, entryOf("v", more), lease), "refused")
        assert.strictEqual((yield* miss(store, key, orders)).reason, "absent")
      }))

    it.effect("refuses a lease of another epoch", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        const { lease } = yield* miss(store, key, orders)
        for (const epoch of ["", "another", `${lease.epoch}0`]) {
          assert.strictEqual(yield* store.store(key, entryOf("v", orders), { ...lease, epoch }), "refused")
        }
      }))

    it.effect("an invalidation reaches what was filled before it, and only what depends on it", () =>
      Effect.gen(function*() {
        const namespace = freshNamespace()
        const survivors = yield* surviving(yield* CacheStore.CacheStore, write(namespace, table("orders")), [
          ["orders", orders],
          ["users", setOf(table("users"))],
          ["both", setOf(table("users"), table("orders"))],
          ["row", setOf(row("orders", { id: 7 }))],
          ["tagged", setOf(table("users"), tag("orders"))],
          ["none", setOf()]
        ])
        assert.deepStrictEqual(survivors, ["users", "tagged", "none"])
      }))

    it.effect("an entry is valid for its own dependencies and the caller's (race 20)", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        const premium = setOf(table("orders"), tag("premium"))
        yield* fill(store, key, premium)

        // Filled for more than this caller asks for: its own dependency still counts.
        yield* store.invalidate(write(key.namespace, tag("premium")))
        yield* miss(store, key, orders)
        yield* fill(store, key, orders)

        // Filled for less than this caller asks for: what is not registered makes it a miss, and so does what was
        // invalidated since, although the entry is good for others.
        const vip = setOf(table("orders"), tag("vip"))
        yield* store.invalidate(write(key.namespace, tag("unrelated")))
        yield* miss(store, key, vip)
        yield* hit(store, key, orders)
        yield* store.invalidate(write(key.namespace, tag("vip")))
        yield* miss(store, key, vip)
        yield* hit(store, key, orders)
        yield* fill(store, key, vip, "for vip")
        assert.strictEqual((yield* hit(store, key, vip)).value, "for vip")
      }))

    it.effect("a row written leaves the other rows", () =>
      Effect.gen(function*() {
        const survivors = yield* surviving(
          yield* CacheStore.CacheStore,
          write(freshNamespace(), row("orders", { id: 7 })),
          [
            ["row 7", setOf(row("orders", { id: 7 }))],
            ["row 8", setOf(row("orders", { id: 8 }))],
            ["rows 7 and 8", setOf(row("orders", { id: 7 }), row("orders", { id: 8 }))],
            ["whole", orders],
            ["row 7 of users", setOf(row("users", { id: 7 }))],
            // The image says nothing of these columns.
            ["by customer", setOf(row("orders", { customer: 1 }))],
            ["by both", setOf(row("orders", { id: 8, customer: 1 }))]
          ]
        )
        assert.deepStrictEqual(survivors, ["row 8", "row 7 of users"])
      }))

    it.effect("images mark the conjunctions they match in every shape", () =>
      Effect.gen(function*() {
        const namespace = freshNamespace()
        const survivors = yield* surviving(
          yield* CacheStore.CacheStore,
          images(
            namespace,
            image("orders", { id: "7", customer: "1", state: null }),
            image("orders", { id: "7", customer: "2", state: null })
          ),
          [
            ["id=7", setOf(row("orders", { id: 7 }))],
            ["id=8", setOf(row("orders", { id: 8 }))],
            ["customer=1", setOf(row("orders", { customer: 1 }))],
            ["customer=2", setOf(row("orders", { customer: 2 }))],
            ["customer=3", setOf(row("orders", { customer: 3 }))],
            ["customer=1, id=7", setOf(row("orders", { customer: 1, id: 7 }))],
            ["customer=1, id=8", setOf(row("orders", { customer: 1, id: 8 }))],
            ["state is null", setOf(row("orders", { state: null }))],
            ["state=null, the text", setOf(row("orders", { state: "null" }))],
            ["colour=red", setOf(row("orders", { colour: "red" }))],
            ["the table", setOf(table("orders"))]
          ]
        )
        assert.deepStrictEqual(survivors, ["id=8", "customer=3", "customer=1, id=8", "state=null, the text"])
      }))

    it.effect("a write of unknown rows reaches all of them", () =>
      Effect.gen(function*() {
        const survivors = yield* surviving(
          yield* CacheStore.CacheStore,
          write(freshNamespace(), table("orders")),
          [["row 7", setOf(row("orders", { id: 7 }))], ["row 7 of users", setOf(row("users", { id: 7 }))]]
        )
        assert.deepStrictEqual(survivors, ["row 7 of users"])
      }))

    it.effect("many images of a table are not lost", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const namespace = freshNamespace()
        const many = Array.from({ length: 3_000 }, (_, id) => image("orders", { id: `${id}` }))
        const survivors = yield* surviving(store, images(namespace, ...many, image("users", { id: "1" })), [
          ["orders 2999", setOf(row("orders", { id: 2_999 }))],
          ["users 1", setOf(row("users", { id: 1 }))],
          ["users 2", setOf(row("users", { id: 2 }))],
          ["items 1", setOf(row("items", { id: 1 }))]
        ])
        assert.deepStrictEqual(survivors, ["users 2", "items 1"])
      }))

    it.effect("shapes beyond any limit stay right", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const namespace = freshNamespace()
        const entries = Array.from({ length: 100 }, (_, i) => ({
          key: keyOf(namespace, `q${i}`),
          dependencies: setOf(row("orders", { [`c${i}`]: 1 }))
        }))
        const outcomes = yield* store.lookupMany(entries)
        yield* store.storeMany(entries.map(({ dependencies, key }, i) => {
          const outcome = outcomes[i]
          assert(outcome._tag === "Miss")
          return { key, entry: entryOf(i, dependencies), lease: outcome.lease }
        }))
        const matching = Object.fromEntries(entries.map((_, i) => [`c${i}`, "1"]))
        yield* store.invalidate(images(namespace, image("orders", matching)))
        // Registered again, none of them may bring an old entry back.
        for (let round = 0; round < 2; round++) {
          // Where they are not beyond a limit, the flights of the first round are still under way.
          for (const outcome of yield* store.lookupMany(entries)) assert.include(["Miss", "Wait"], outcome._tag)
        }
      }))

    it.effect("entries without autoInvalidate are reached by explicit calls only", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const manual = { autoInvalidate: false }
        const namespace = freshNamespace()
        const entries = [
          ["table", Dependency.makeSet([table("orders")], manual)],
          ["row", Dependency.makeSet([row("orders", { id: 7 })], manual)]
        ] as const
        assert.deepStrictEqual(
          yield* surviving(store, write(namespace, table("orders"), row("orders", { id: 7 })), entries),
          ["table", "row"]
        )
        yield* store.invalidate(explicit(namespace, row("orders", { id: 8 })))
        yield* miss(store, keyOf(namespace, "table"), entries[0][1])
        yield* hit(store, keyOf(namespace, "row"), entries[1][1])
        yield* store.invalidate(explicit(namespace, table("orders")))
        yield* miss(store, keyOf(namespace, "row"), entries[1][1])
      }))

    it.effect("`all` reaches everything of its namespace, leases too", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const namespace = freshNamespace()
        const other = keyOf(freshNamespace(), "q")
        yield* fill(store, other, orders)
        const { lease } = yield* miss(store, keyOf(namespace, "late"), orders)
        const survivors = yield* surviving(store, { namespace, ...Dependency.allTargets }, [
          ["orders", orders],
          ["row", setOf(row("orders", { id: 7 }))],
          ["none", setOf()]
        ])
        assert.deepStrictEqual(survivors, [])
        assert.strictEqual(yield* store.store(keyOf(namespace, "late"), entryOf("old", orders), lease), "refused")
        yield* hit(store, other, orders)
      }))

    it.effect("namespaces are separate, whatever their names", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const base = freshNamespace()
        const names = [
          base,
          `${base}:0`,
          `${base}:0}`,
          `${base}{a}`,
          `${base}%`,
          `${base}%007b`,
          `${base}\ud800`,
          `${base}\ud801`
        ]
        for (const namespace of names) yield* fill(store, keyOf(namespace, "q"), orders, namespace)
        yield* store.invalidate(write(names[0], table("orders")))
        yield* miss(store, keyOf(names[0], "q"), orders)
        for (const namespace of names.slice(1)) {
          assert.strictEqual((yield* hit(store, keyOf(namespace, "q"), orders)).value, namespace)
        }
      }))

    it.effect("keys are separate, whatever their names", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const namespace = freshNamespace()
        const names = [
          "h",
          "q",
          "Q",
          "q:0",
          "q}",
          "{q",
          "q%007d",
          "q\n",
          "q\u0000",
          "q\ud800",
          "q\ud801",
          "é",
          "e\u0301"
        ]
        for (const name of names) yield* fill(store, keyOf(namespace, name), orders, name)
        for (const name of names) {
          assert.strictEqual((yield* hit(store, keyOf(namespace, name), orders)).value, name)
        }
      }))

    it.effect("time to live", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const namespace = freshNamespace()
        yield* fill(store, keyOf(namespace, "short"), orders, "v", 250)
        yield* fill(store, keyOf(namespace, "long"), orders)
        yield* hit(store, keyOf(namespace, "short"), orders)
        yield* advance(300)
        const { reason } = yield* miss(store, keyOf(namespace, "short"), orders)
        assert.include(["expired", "absent"], reason)
        yield* hit(store, keyOf(namespace, "long"), orders)
        assert.strictEqual(store.peek(keyOf(namespace, "short"), yield* Clock.currentTimeMillis), undefined)
        // Expired, not invalidated: the next fill is as good as the first.
        yield* fill(store, keyOf(namespace, "short"), orders, "again", 250)
        assert.strictEqual((yield* hit(store, keyOf(namespace, "short"), orders)).value, "again")
      }))

    it.effect("a fill replaces the one before, and its time to live", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        const lease = yield* fill(store, key, orders, "first", 250)
        assert.strictEqual(yield* store.store(key, entryOf("second", orders), lease), "accepted")
        yield* advance(300)
        assert.strictEqual((yield* hit(store, key, orders)).value, "second")
      }))

    it.effect("a hit's lease is good for a fill that replaces it, until an invalidation", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        yield* fill(store, key, orders)
        const { lease } = yield* hit(store, key, orders)
        if (lease === undefined) return assert.fail("a hit without a lease")
        assert.strictEqual(yield* store.store(key, entryOf("fresh", orders), lease), "accepted")
        yield* store.invalidate(write(key.namespace, table("orders")))
        assert.strictEqual(yield* store.store(key, entryOf("late", orders), lease), "refused")
      }))

    it.effect("batches answer in order, and mix outcomes", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const namespace = freshNamespace()
        const requests = Array.from({ length: 20 }, (_, id) => ({
          key: keyOf(namespace, `q${id}`),
          dependencies: setOf(row("users", { id }), table("settings"))
        }))
        for (const { dependencies, key } of requests.slice(5, 15)) yield* fill(store, key, dependencies)
        yield* store.invalidate(write(namespace, row("users", { id: 7 }), row("users", { id: 9 })))

        const mixed = [...requests, requests[6], requests[0]]
        const outcomes = yield* store.lookupMany(mixed)
        const missing = new Set([0, 1, 2, 3, 4, 7, 9, 15, 16, 17, 18, 19, 21])
        outcomes.forEach((outcome, i) => {
          if (missing.has(i)) assert.strictEqual(outcome._tag, "Miss")
          else assert(outcome._tag === "Hit" && outcome.value === mixed[i].key.fingerprint)
        })

        yield* store.invalidate(write(namespace, row("users", { id: 16 })))
        const fills: Array<CacheStore.StoreRequest> = []
        outcomes.forEach((outcome, i) => {
          if (outcome._tag === "Miss" && i < 20) {
            fills.push({ key: mixed[i].key, entry: entryOf(i, mixed[i].dependencies), lease: outcome.lease })
          }
        })
        const verdicts = yield* store.storeMany(fills)
        assert.deepStrictEqual(
          verdicts,
          fills.map(({ key }) => key.fingerprint === "q16" ? "refused" : "accepted")
        )
        const again = yield* store.lookupMany(requests)
        assert.deepStrictEqual(again.flatMap(({ _tag }, i) => _tag === "Miss" ? [i] : []), [16])
      }))

    it.effect("empty batches answer nothing", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        assert.deepStrictEqual(yield* store.lookupMany([]), [])
        assert.deepStrictEqual(yield* store.storeMany([]), [])
      }))

    it.effect("invalidating twice, or what nobody knows, does no harm", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        const [first] = yield* store.invalidate(write(key.namespace, table("orders")))
        yield* fill(store, key, orders)
        const [second] = yield* store.invalidate(write(key.namespace, table("unknown"), tag("unknown")))
        yield* hit(store, key, orders)
        yield* store.invalidate(write(key.namespace, table("orders")))
        const [third] = yield* store.invalidate(write(key.namespace, table("orders")))
        yield* miss(store, key, orders)
        assert.strictEqual(first.epoch, third.epoch)
        assert.isBelow(first.clock, second.clock)
        assert.isBelow(second.clock, third.clock)
      }))

    it.effect("stamps are told apart, whatever they contain", () =>
      Effect.gen(function*() {
        const namespace = freshNamespace()
        const tags = [
          "a",
          "A",
          "a b",
          "a\nb",
          "a\tb",
          "a\u0000",
          "a\u0000b",
          "\"a\"",
          "\\",
          "~",
          "~a",
          "é",
          "e\u0301",
          "\ud83d\ude00",
          "\ud800",
          "\ud801",
          "\u2028",
          "{a}",
          "*",
          "a,b",
          "x".repeat(2_000)
        ]
        const odd = "\"Odd \"\"table\"\"\n\""
        const values = [
          "7",
          "\"7\"",
          "7\",other=\"8",
          "a\nb",
          "a\tb",
          "a\u0000b",
          "\ud800",
          "\ud801",
          "é",
          "null",
          ""
        ]
        const survivors = yield* surviving(
          yield* CacheStore.CacheStore,
          write(
            namespace,
            ...tags.filter((_, i) => i % 2 === 0).map(tag),
            ...values.filter((_, i) => i % 2 === 0).map((id) => row(odd, { "an id, \t": id }))
          ),
          [
            ...tags.map((name) => [`tag ${name}`, setOf(tag(name))] as const),
            ...values.map((id) => [`row ${id}`, setOf(row(odd, { "an id, \t": id }))] as const)
          ]
        )
        assert.deepStrictEqual(survivors, [
          ...tags.filter((_, i) => i % 2 === 1).map((name) => `tag ${name}`),
          ...values.filter((_, i) => i % 2 === 1).map((id) => `row ${id}`)
        ])
      }))

    it.effect("10,000 dependencies in one entry and in one invalidation", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        const tags = Array.from({ length: 10_000 }, (_, i) => tag(`tag ${i}`))
        const set = setOf(...tags)
        yield* fill(store, key, set)
        yield* fill(store, keyOf(key.namespace, "other"), orders)
        yield* hit(store, key, set)
        yield* store.invalidate(write(key.namespace, ...Array.from({ length: 10_000 }, (_, i) => tag(`no tag ${i}`))))
        yield* hit(store, key, set)
        yield* store.invalidate(write(key.namespace, tags[9_999]))
        yield* miss(store, key, set)
        yield* fill(store, key, set)
        yield* store.invalidate(write(key.namespace, ...tags))
        yield* miss(store, key, set)
        yield* hit(store, keyOf(key.namespace, "other"), orders)
      }))

    it.effect("values of a megabyte", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        const value = ["x".repeat(500_000), "é\n".repeat(250_000)]
        yield* fill(store, key, orders, value)
        assert.deepStrictEqual((yield* hit(store, key, orders)).value, value)
      }))

    it.effect("fills and invalidations at once leave nothing stale", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        let database = 0
        let acknowledged = 0
        const read = Effect.gen(function*() {
          // What a hit may show is at least what was acknowledged when it was asked for.
          const least = acknowledged
          const outcome = yield* store.lookup(key, orders)
          if (outcome._tag === "Hit") return assert.isAtLeast(outcome.value as number, least)
          const value = database
          yield* Effect.yieldNow
          yield* store.store(key, entryOf(value, orders), outcome.lease)
        })
        const update = Effect.gen(function*() {
          const version = ++database
          yield* Effect.yieldNow
          yield* store.invalidate(write(key.namespace, table("orders")))
          acknowledged = Math.max(acknowledged, version)
        })
        yield* Effect.forEach(
          Array.from({ length: 300 }, (_, i) => i),
          (i) => i % 10 === 0 ? update : read,
          { concurrency: 16, discard: true }
        )
        yield* read
        yield* read
        assert.strictEqual((yield* hit(store, key, orders)).value, database)
      }))

    it.effect("changes tell what was invalidated", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const namespace = `${freshNamespace()} {odd}%\n`
        const key = keyOf(namespace, "q")
        const seen: Array<CacheStore.Invalidation> = []
        const listening = yield* Deferred.make<void>()
        const fiber = yield* store.changes.pipe(
          Stream.filter((change) => change.namespace === namespace),
          Stream.runForEach((change) => {
            if (change.stamps.includes("#listening")) return Effect.asVoid(Deferred.succeed(listening, undefined))
            return Effect.sync(() => void seen.push(change))
          }),
          Effect.forkScoped
        )
        while (!(yield* Deferred.isDone(listening))) {
          yield* store.invalidate(write(namespace, tag("listening")))
          yield* pause
        }
        yield* fill(store, key, setOf(row("orders", { id: 7 })))
        const first = yield* store.invalidate(
          write(namespace, row("orders", { id: 7 }), tag("a\nb \ud800~"), tag("unregistered"))
        )
        const last = yield* store.invalidate({ namespace, ...Dependency.allTargets })
        // A shard that is used for the first time says that all has changed, too: that is not the end.
        const isHeard = (at: CacheStore.LogicalClock, shard: number) =>
          seen.some((change) => change.shard === shard && change.epoch === at.epoch && change.clock === at.clock)
        while (!last.every(isHeard)) yield* pause
        yield* Fiber.interrupt(fiber)

        const changes = seen.filter(({ clock, epoch, shard }) =>
          clock === first[shard].clock && epoch === first[shard].epoch
        )
        // By each shard, be it by the beat that came first: of what was missed until then all may have changed.
        assert.deepStrictEqual([...new Set(changes.map(({ shard }) => shard))].sort(), first.map((_, shard) => shard))
        const told = changes.filter(({ all }) => !all)
        assert.isAtLeast(told.length, 1)
        if (first.length === 1) assert.strictEqual(told.length, changes.length)
        assert.deepStrictEqual([...new Set(told.flatMap(({ stamps }) => stamps))].sort(), [
          "#a\nb \ud800~",
          "#unregistered",
          "orders",
          "orders(id=\"7\")"
        ])
      }))

    it.effect("any order of lookups, late fills, commits, late invalidations and faults leaves nothing stale", () =>
      Effect.gen(function*() {
        const context = yield* Effect.context<CacheStore.CacheStore | R>()
        const faults = options?.faults ?? []
        const store = yield* CacheStore.CacheStore
        const stores = options?.another === undefined ? [store] : [store, yield* options.another]
        yield* Effect.promise(() =>
          FastCheck.assert(
            FastCheck.asyncProperty(
              FastCheck.array(command(faults.length), { minLength: 5, maxLength: 40 }),
              (commands) => Effect.runPromiseWith(context)(history(stores, commands, faults, advance))
            ),
            { numRuns: options?.live === true ? 60 : 500 }
          )
        )
      }))

    it.effect("a value that the codec refuses is not stored", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        if (!store.shared) return
        const key = keyOf(freshNamespace(), "q")
        const values = [["a", "a"], [key.fingerprint, Symbol("no text")], ["b", "b"]] as const
        const verdicts = yield* store.storeMany(
          yield* Effect.forEach(values, ([name, value]) => {
            const each = keyOf(key.namespace, name)
            return Effect.map(
              miss(store, each, orders),
              ({ lease }) => ({ key: each, entry: entryOf(value, orders), lease })
            )
          })
        )
        assert.deepStrictEqual(verdicts, ["accepted", "refused", "accepted"])
        yield* miss(store, key, orders)
        assert.strictEqual((yield* hit(store, keyOf(key.namespace, "b"), orders)).value, "b")
      }))

    it.effect("a value that cannot be read is a miss, and its lease is good", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        if (!store.shared || options?.holds === true) return
        const key = keyOf(freshNamespace(), "q", {
          ...json,
          decode: () => {
            throw new SyntaxError("not mine")
          }
        })
        yield* fill(store, key, orders)
        const { lease, reason } = yield* miss(store, key, orders)
        assert.strictEqual(reason, "undecodable")
        assert.strictEqual(yield* store.store(key, entryOf("v", orders), lease), "accepted")
      }))

    it.effect("what is past its time to live is stale while it is kept, and then gone", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        yield* fill(store, key, orders, "v", { timeToLiveMillis: 400, retainMillis: 1_000, costMillis: 12.5 })
        const fresh = yield* hit(store, key, orders)
        assert.strictEqual(fresh.expiresAtMillis - fresh.storedAtMillis, 400)
        assert.closeTo(fresh.costMillis, 12.5, 1)

        yield* advance(450)
        const now = yield* Clock.currentTimeMillis
        const old = yield* stale(store, key, orders)
        assert.deepStrictEqual([old.value, old.waiting], ["v", false])
        if (options?.holds !== true) assert.strictEqual(old.level, fresh.level)
        assert.strictEqual(old.expiresAtMillis - old.storedAtMillis, 400)
        assert.isAtMost(old.expiresAtMillis, now)
        // What a round trip takes makes an answer seem older.
        assert.closeTo(old.storedAtMillis, fresh.storedAtMillis, 100)
        assert.closeTo(old.costMillis, fresh.costMillis, 1)
        if (!store.shared) assert.strictEqual(store.peek(key, now)?.value, "v")

        yield* advance(1_000)
        assert.strictEqual(store.peek(key, yield* Clock.currentTimeMillis), undefined)
        yield* store.release(key, old.lease)
        assert.include(["expired", "absent"], (yield* miss(store, key, orders)).reason)
      }))

    it.effect("what is too old for one caller is stale for that one", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        yield* fill(store, key, orders)
        yield* advance(50)
        const tags: Array<string> = []
        for (const maxAge of [30, 0, -1, 60_000, Infinity, undefined, 30.5]) {
          const [outcome] = yield* store.lookupMany([{ key, dependencies: orders, maxAgeMillis: maxAge }])
          assert.strictEqual((yield* store.lookup(key, orders, maxAge))._tag, outcome._tag)
          tags.push(outcome._tag)
        }
        assert.deepStrictEqual(tags, ["Stale", "Stale", "Stale", "Hit", "Hit", "Hit", "Stale"])
      }))

    it.effect("a stale lookup's lease is good for a fill that replaces it, until an invalidation", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        yield* fill(store, key, orders, "old", { timeToLiveMillis: 1, retainMillis: 60_000 })
        yield* advance(10)
        const { lease } = yield* stale(store, key, orders)
        assert.strictEqual(yield* store.store(key, entryOf("new", orders), lease), "accepted")
        assert.strictEqual((yield* hit(store, key, orders)).value, "new")
        yield* store.invalidate(write(key.namespace, table("orders")))
        assert.strictEqual(yield* store.store(key, entryOf("late", orders), lease), "refused")
        yield* miss(store, key, orders)
      }))

    it.effect("what was invalidated is not served, stale or not", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const namespace = freshNamespace()
        const premium = setOf(table("orders"), tag("premium"))
        const soonStale = { timeToLiveMillis: 1, retainMillis: 60_000 }
        const invalidations = [
          write(namespace, table("orders")),
          write(namespace, tag("premium")),
          { namespace, ...Dependency.allTargets }
        ]
        for (const [i, invalidation] of invalidations.entries()) {
          const key = keyOf(namespace, `${i}`)
          yield* fill(store, key, premium, "v", soonStale)
          yield* advance(10)
          yield* stale(store, key, premium)
          yield* store.invalidate(invalidation)
          assert.strictEqual(store.peek(key, yield* Clock.currentTimeMillis), undefined)
          // For those, too, who ask for less than it was filled for.
          yield* missing(store, key, orders)
          yield* missing(store, key, premium)
          assert.strictEqual(store.peek(key, yield* Clock.currentTimeMillis), undefined)
        }
        // Nor to those who ask for more, if that was invalidated since.
        const key = keyOf(namespace, "q")
        yield* miss(store, key, premium)
        yield* fill(store, key, orders, "v", soonStale)
        yield* advance(10)
        yield* store.invalidate(write(namespace, tag("premium")))
        yield* missing(store, key, premium)
        yield* stale(store, key, orders)
      }))

    it.effect("what is answered after an invalidation is of its clocks, and so is what was seen", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const namespace = freshNamespace()
        yield* fill(store, keyOf(namespace, "q"), orders)
        for (let i = 0; i < 3; i++) {
          const clocks = yield* store.invalidate(write(namespace, table(i === 1 ? "users" : "orders")))
          const marks = Places.marksOf(clocks)
          const { lease } = yield* store.lookup(keyOf(namespace, `q ${i}`), orders)
          if (store.shared) assert.isTrue(Places.reflects(marks, lease))
          const seen = store.seen(namespace)
          assert.strictEqual(seen.length > 0, store.shared)
          for (const at of seen) assert.isTrue(at !== undefined && Places.reflects(marks, at))
        }
        assert.deepStrictEqual(store.seen(freshNamespace()).filter((at) => at !== undefined), [])
        assert.strictEqual(store.applied(freshNamespace()), undefined)
      }))

    it.effect("what is held here answers nobody for whom it is not new enough", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const namespace = freshNamespace()
        const key = keyOf(namespace, "q")
        yield* fill(store, key, orders)
        for (let i = 0; i < 3; i++) {
          const outcome = yield* store.lookup(key, orders, undefined, () => false)
          const [many] = yield* store.lookupMany([{ key, dependencies: orders, since: () => false }])
          if (store.shared) {
            for (const { _tag, ...kept } of [outcome, many!]) assert.notStrictEqual((kept as any).level, "L1", _tag)
          }
          assert.strictEqual((yield* store.lookup(key, orders, undefined, () => true))._tag, "Hit")
          yield* pause
        }
        // By which it is known that it has not changed.
        assert.strictEqual(store.applied(namespace), store.applied(namespace))
      }))

    it.effect("what was given up may be filled yet", () =>
      Effect.gen(function*() {
        const store = yield* CacheStore.CacheStore
        const key = keyOf(freshNamespace(), "q")
        const { lease } = yield* miss(store, key, orders)
        yield* store.release(key, lease)
        yield* store.release(key, { epoch: "of another", clock: 7, flight: "of another" })
        assert.strictEqual(yield* store.store(key, entryOf("v", orders), lease), "accepted")
        yield* store.release(key, lease)
        yield* hit(store, key, orders)
      }))

    if (options?.spaces === true) {
      it.effect("the entries of a space take no more than they may", () =>
        Effect.gen(function*() {
          const store = yield* CacheStore.CacheStore
          const namespace = freshNamespace()
          const kept = Effect.map(Clock.currentTimeMillis, (now) =>
            ["a", "b", "c", "d", "e"].filter((name) => store.peek(keyOf(namespace, name), now) !== undefined))
          const put = (name: string, bytes: number, maxSpaceBytes: number | undefined) =>
            fill(store, keyOf(namespace, name), orders, name, { bytes, maxSpaceBytes })
          const elsewhere = { ...keyOf(namespace, "a"), space: "elsewhere" }
          yield* fill(store, elsewhere, orders, "elsewhere", { bytes: 1_000 })

          for (const name of ["a", "b", "c"]) {
            yield* put(name, 100, 300)
          }
          // Not what was asked for since.
          yield* hit(store, keyOf(namespace, "a"), orders)
          yield* put("d", 100, 300)
          assert.deepStrictEqual(yield* kept, ["a", "c", "d"])
          yield* put("e", 300, 300)
          assert.deepStrictEqual(yield* kept, ["e"])
          // What is too large itself drives nobody out.
          const { lease } = yield* miss(store, keyOf(namespace, "a"), orders)
          const large = { ...entryOf("large", orders), bytes: 301, maxSpaceBytes: 300 }
          assert.strictEqual(yield* store.store(keyOf(namespace, "a"), large, lease), "refused")
          assert.deepStrictEqual(yield* kept, ["e"])
          yield* put("a", 1_000, undefined)
          yield* store.store(keyOf(namespace, "e"), { ...entryOf("e", orders), bytes: 300, maxSpaceBytes: 300 }, lease)
          assert.deepStrictEqual(yield* kept, ["e"])
          assert.strictEqual((yield* hit(store, elsewhere, orders)).value, "elsewhere")
        }))
    }

    const { another } = options ?? {}
    if (another !== undefined) {
      const key = () => keyOf(freshNamespace(), "q")
      const setUp = Effect.all([CacheStore.CacheStore, another])

      it.effect("one process reads, the others wait, until it has filled", () =>
        Effect.gen(function*() {
          const [here, there] = yield* setUp
          const q = key()
          const owner = yield* owning(here, q, orders)
          const waiting = yield* there.lookup(q, orders)
          assert(waiting._tag === "Wait")
          assert.isAbove(waiting.remainingMillis, 0)
          assert.isAtMost(waiting.remainingMillis, 5_000)
          assert.isUndefined(waiting.lease.flight)
          // Whoever asks, in the same process too.
          assert.strictEqual((yield* here.lookup(q, orders))._tag, "Wait")
          assert.strictEqual(yield* here.store(q, entryOf("v", orders), owner), "accepted")
          assert.strictEqual((yield* hit(there, q, orders)).value, "v")
          // And one who did not wait may fill as well.
          assert.strictEqual(yield* there.store(q, entryOf("w", orders), waiting.lease), "accepted")
        }))

      it.effect("one process reads anew what is stale, the others serve it", () =>
        Effect.gen(function*() {
          const [here, there] = yield* setUp
          const q = key()
          yield* fill(here, q, orders, "old", { timeToLiveMillis: 1, retainMillis: 60_000 })
          yield* advance(10)
          const owner = yield* stale(here, q, orders)
          assert.isFalse(owner.waiting)
          const other = yield* stale(there, q, orders)
          assert.deepStrictEqual([other.value, other.waiting, other.lease.flight], ["old", true, undefined])
          assert.strictEqual(yield* here.store(q, entryOf("new", orders), owner.lease), "accepted")
          assert.strictEqual((yield* hit(there, q, orders)).value, "new")

          // Too old for one, who is to read it. Meanwhile those whom it is good for get it.
          const impatient = yield* here.lookup(q, orders, 0)
          assert(impatient._tag === "Stale" && !impatient.waiting)
          yield* hit(there, q, orders)
          const again = yield* there.lookup(q, orders, 0)
          assert(again._tag === "Stale" && again.waiting)
        }))

      it.effect("whose fill was refused or given up is waited for by nobody", () =>
        Effect.gen(function*() {
          const [here, there] = yield* setUp
          const fates: ReadonlyArray<(q: CacheStore.CacheKey, lease: CacheStore.Lease) => Effect.Effect<unknown, any>> =
            [
              (q, lease) => here.release(q, lease),
              (q, lease) =>
                here.invalidate(write(q.namespace, table("orders"))).pipe(
                  Effect.andThen(here.store(q, entryOf("late", orders), lease)),
                  Effect.tap((verdict) => Effect.sync(() => assert.strictEqual(verdict, "refused")))
                ),
              (q, lease) => here.store(q, entryOf(Symbol("no text"), orders), lease)
            ]
          for (const fate of fates) {
            const q = key()
            const lease = yield* owning(here, q, orders)
            yield* fate(q, lease)
            for (const each of [there, here, there]) {
              const outcome = yield* each.lookup(q, orders)
              assert(outcome._tag === "Miss")
              assert.isUndefined(outcome.lease.flight)
            }
            // For a second. Then they wait for each other again.
            yield* advance(1_050)
            yield* owning(there, q, orders)
            assert.strictEqual((yield* here.lookup(q, orders))._tag, "Wait")
          }
        }))

      it.effect("whoever leaves it to the next is replaced by one, whom the others wait for", () =>
        Effect.gen(function*() {
          const [here, there] = yield* setUp
          const q = key()
          const first = yield* owning(here, q, orders)
          assert.strictEqual((yield* there.lookup(q, orders))._tag, "Wait")
          yield* here.release(q, first, "next")
          const second = yield* owning(there, q, orders)
          assert.strictEqual((yield* here.lookup(q, orders))._tag, "Wait")
          // It is its successor's now.
          yield* here.release(q, first, "next")
          assert.strictEqual((yield* here.lookup(q, orders))._tag, "Wait")
          assert.strictEqual(yield* there.store(q, entryOf("v", orders), second), "accepted")
          assert.strictEqual((yield* hit(here, q, orders)).value, "v")
        }))

      it.effect("an owner that was overtaken is replaced, and leaves its successor alone", () =>
        Effect.gen(function*() {
          const [here, there] = yield* setUp
          for (
            const request of [
              (n: string) => write(n, table("orders")),
              (namespace: string) => ({ namespace, ...Dependency.allTargets })
            ]
          ) {
            const q = key()
            const slow = yield* owning(here, q, orders)
            yield* here.invalidate(request(q.namespace))
            const fast = yield* owning(there, q, orders)
            assert.strictEqual(yield* here.store(q, entryOf("old", orders), slow), "refused")
            assert.strictEqual((yield* here.lookup(q, orders))._tag, "Wait")
            yield* here.release(q, slow)
            assert.strictEqual((yield* here.lookup(q, orders))._tag, "Wait")
            assert.strictEqual(yield* there.store(q, entryOf("new", orders), fast), "accepted")
            assert.strictEqual((yield* hit(here, q, orders)).value, "new")
          }
        }))

      it.effect("nobody waits for a fill that would not be theirs (race 20)", () =>
        Effect.gen(function*() {
          const [here, there] = yield* setUp
          const q = key()
          const premium = setOf(table("orders"), tag("premium"))
          const plain = yield* owning(here, q, orders)
          yield* here.invalidate(write(q.namespace, tag("unrelated")))
          // The tag is registered at a later clock than that of the flight.
          const owner = yield* owning(there, q, premium)
          assert.strictEqual(yield* here.store(q, entryOf("plain", orders), plain), "accepted")
          assert.strictEqual((yield* here.lookup(q, premium))._tag, "Wait")
          assert.strictEqual(yield* there.store(q, entryOf("premium", premium), owner), "accepted")
          assert.strictEqual((yield* hit(here, q, premium)).value, "premium")
        }))

      it.effect("who names a key twice does not wait for itself", () =>
        Effect.gen(function*() {
          const [here, there] = yield* setUp
          const namespace = freshNamespace()
          const request = (name: string) => ({ key: keyOf(namespace, name), dependencies: orders })
          const first = yield* here.lookupMany(["a", "b", "a"].map(request))
          assert.deepStrictEqual(first.map(({ _tag }) => _tag), ["Miss", "Miss", "Miss"])
          assert.strictEqual(first[0].lease.flight, first[2].lease.flight)
          const second = yield* there.lookupMany(["b", "c", "a"].map(request))
          assert.deepStrictEqual(second.map(({ _tag }) => _tag), ["Wait", "Miss", "Wait"])
          const verdicts = yield* here.storeMany(
            ["a", "b"].map((name, i) => ({ ...request(name), entry: entryOf(name, orders), lease: first[i].lease }))
          )
          assert.deepStrictEqual(verdicts, ["accepted", "accepted"])
          const third = yield* there.lookupMany(["b", "c", "a"].map(request))
          assert.deepStrictEqual(third.map(({ _tag }) => _tag), ["Hit", "Wait", "Hit"])
        }))

      it.effect("what cannot be read is read anew by one", () =>
        Effect.gen(function*() {
          const [here, there] = yield* setUp
          const q = key()
          const odd: CacheStore.CacheKey = {
            ...q,
            codec: {
              ...json,
              decode: () => {
                throw new SyntaxError("not mine")
              }
            }
          }
          yield* fill(here, q, orders, "v", { timeToLiveMillis: 1, retainMillis: 60_000 })
          yield* advance(10)
          assert.strictEqual((yield* owningMiss(here, odd, orders)).reason, "undecodable")
          assert.strictEqual((yield* there.lookup(odd, orders))._tag, "Wait")
        }))

      it.effect("of many that ask at once one reads", () =>
        Effect.gen(function*() {
          const [here, there] = yield* setUp
          const q = key()
          const all = Array.from({ length: 100 }, (_, i) => (i % 2 === 0 ? here : there).lookup(q, orders))
          const outcomes = yield* Effect.all(all, { concurrency: "unbounded" })
          const owners = outcomes.filter(({ _tag }) => _tag === "Miss")
          assert.lengthOf(owners, 1)
          assert.lengthOf(outcomes.filter(({ _tag }) => _tag === "Wait"), 99)
          const owner = outcomes.indexOf(owners[0]) % 2 === 0 ? here : there
          assert.strictEqual(yield* owner.store(q, entryOf("v", orders), owners[0].lease), "accepted")
          for (const outcome of yield* Effect.all(all, { concurrency: "unbounded" })) {
            assert(outcome._tag === "Hit" && outcome.value === "v")
          }
        }))
    }
  })
}

// -----------------------------------------------------------------------------
// A database of four orders, its cached queries, and what can happen in any order
// -----------------------------------------------------------------------------

type Command =
  | {
    readonly _tag: "Ask"
    readonly query: number
    /** Which process asks. */
    readonly process: number
    readonly maxAgeMillis: number | undefined
  }
  | { readonly _tag: "Fill"; readonly which: number; readonly entry: Partial<CacheStore.Entry> }
  | { readonly _tag: "Release"; readonly which: number }
  | { readonly _tag: "Wait" }
  | {
    readonly _tag: "Commit"
    readonly id: number
    readonly customer: number
    readonly known: "all" | "id" | "nothing"
  }
  | { readonly _tag: "Deliver"; readonly which: number }
  | { readonly _tag: "Fault"; readonly which: number }

const command = (faults: number): FastCheck.Arbitrary<Command> => {
  const which = FastCheck.nat(5)
  return FastCheck.oneof(
    {
      weight: 6,
      arbitrary: FastCheck.record({
        _tag: FastCheck.constant("Ask" as const),
        query: FastCheck.nat(9),
        process: FastCheck.nat(1),
        maxAgeMillis: FastCheck.constantFrom(undefined, undefined, 0, 60_000)
      })
    },
    {
      weight: 4,
      arbitrary: FastCheck.record({
        _tag: FastCheck.constant("Fill" as const),
        which,
        // Soon stale; soon gone; neither.
        entry: FastCheck.constantFrom(
          { timeToLiveMillis: 1, retainMillis: 60_000 },
          { timeToLiveMillis: 1 },
          { retainMillis: 1 },
          {}
        )
      })
    },
    { weight: 1, arbitrary: FastCheck.record({ _tag: FastCheck.constant("Release" as const), which }) },
    { weight: 1, arbitrary: FastCheck.constant({ _tag: "Wait" as const }) },
    {
      weight: 3,
      arbitrary: FastCheck.record({
        _tag: FastCheck.constant("Commit" as const),
        id: FastCheck.nat(3),
        customer: FastCheck.nat(1),
        known: FastCheck.constantFrom("all" as const, "all" as const, "id" as const, "nothing" as const)
      })
    },
    { weight: 3, arbitrary: FastCheck.record({ _tag: FastCheck.constant("Deliver" as const), which }) },
    ...(faults === 0 ? [] : [{
      weight: 1,
      arbitrary: FastCheck.record({ _tag: FastCheck.constant("Fault" as const), which: FastCheck.nat(faults - 1) })
    }])
  )
}

interface Order {
  readonly id: number
  readonly customer: number
  readonly version: number
}

const queries: ReadonlyArray<{
  readonly dependencies: Dependency.DependencySet
  readonly matches: (order: Order) => boolean
}> = [
  ...[0, 1, 2, 3].map((id) => ({
    dependencies: setOf(Dependency.row("orders", { id })),
    matches: (order: Order) => order.id === id
  })),
  ...[0, 1].map((customer) => ({
    dependencies: setOf(Dependency.row("orders", { customer })),
    matches: (order: Order) => order.customer === customer
  })),
  ...[0, 1].map((customer) => ({
    dependencies: setOf(Dependency.row("orders", { customer, id: 2 })),
    matches: (order: Order) => order.customer === customer && order.id === 2
  })),
  { dependencies: setOf(Dependency.table("orders")), matches: () => true },
  {
    dependencies: setOf(Dependency.row("orders", { id: 0 }), Dependency.row("orders", { id: 1 }), Dependency.tag("t")),
    matches: (order: Order) => order.id < 2
  }
]

/** A lookup that did not hit and whose query has been answered. Its fill, or that it is given up, is still to come. */
interface Pending {
  readonly key: CacheStore.CacheKey
  readonly entry: CacheStore.Entry
  readonly lease: CacheStore.Lease
  readonly process: number
}

const history = Effect.fnUntraced(function*<R>(
  stores: ReadonlyArray<Service>,
  commands: ReadonlyArray<Command>,
  faults: ReadonlyArray<(namespace: string) => Effect.Effect<unknown, never, R>>,
  advance: (millis: number) => Effect.Effect<void>
) {
  const namespace = freshNamespace()
  const storeOf = (process: number) => stores[process % stores.length]
  /** What the database held after each commit. */
  const states: Array<ReadonlyArray<Order>> = [[0, 1, 2, 3].map((id) => ({ id, customer: id % 2, version: 0 }))]
  /** Commits whose invalidation is still to come, by the state they made. */
  const undelivered: Array<{ readonly state: number; readonly request: CacheStore.InvalidateRequest }> = []
  const pending: Array<Pending> = []

  const answer = (query: number, state: number) => states[state].filter(queries[query].matches)
  const ask = Effect.fnUntraced(function*(query: number, process: number, maxAgeMillis?: number) {
    const key = keyOf(namespace, `query ${query}`)
    const { dependencies } = queries[query]
    const outcome = yield* storeOf(process).lookup(key, dependencies, maxAgeMillis)
    const latest = states.length - 1
    if (outcome._tag === "Hit" || outcome._tag === "Stale") {
      // Not older than the last commit before the first that is not acknowledged: stale or not.
      const first = Math.min(latest + 1, ...undelivered.map(({ state }) => state)) - 1
      const right = states.slice(first).map((_, i) => JSON.stringify(answer(query, first + i)))
      assert.include(right, JSON.stringify(outcome.value))
    }
    if (outcome._tag === "Hit") {
      assert.notStrictEqual(maxAgeMillis, 0)
      return "Hit"
    }
    // Who waits waits for somebody.
    if (outcome._tag === "Wait" || (outcome._tag === "Stale" && outcome.waiting)) {
      assert(pending.some(({ key: { fingerprint }, lease }) => fingerprint === key.fingerprint && lease.flight))
      assert.isUndefined(outcome.lease.flight)
    }
    pending.push({ key, entry: entryOf(answer(query, latest), dependencies), lease: outcome.lease, process })
    return outcome._tag
  })
  const settle = ({ entry, key, lease, process }: Pending, more?: Partial<CacheStore.Entry>) =>
    storeOf(process).store(key, { ...entry, ...more }, lease)

  for (const command of commands) {
    switch (command._tag) {
      case "Ask":
        yield* ask(command.query, command.process, command.maxAgeMillis)
        break
      case "Fill": {
        const [fill] = pending.splice(command.which, 1)
        if (fill !== undefined) yield* settle(fill, command.entry)
        break
      }
      case "Release": {
        const [given] = pending.splice(command.which, 1)
        if (given !== undefined) yield* storeOf(given.process).release(given.key, given.lease)
        break
      }
      case "Wait":
        yield* advance(3)
        break
      case "Commit": {
        const { customer, id, known } = command
        const before = states[states.length - 1]
        const row = (customer: number) =>
          image("orders", known === "all" ? { id: `${id}`, customer: `${customer}` } : { id: `${id}` })
        undelivered.push({
          state: states.length,
          request: known === "nothing"
            ? write(namespace, Dependency.table("orders"))
            : images(namespace, row(before[id].customer), row(customer))
        })
        states.push(before.map((order) => order.id === id ? { id, customer, version: states.length } : order))
        break
      }
      case "Deliver": {
        const [commit] = undelivered.splice(command.which, 1)
        if (commit !== undefined) yield* storeOf(command.which).invalidate(commit.request)
        break
      }
      case "Fault":
        yield* faults[command.which](namespace)
    }
  }

  // When all is quiet, whatever can be served equals the database, and everything can be filled.
  for (const { request } of undelivered.splice(0)) yield* storeOf(0).invalidate(request)
  for (const fill of pending.splice(0)) yield* settle(fill)
  const canBeFilled = Effect.fnUntraced(function*(query: number) {
    if ((yield* ask(query, 0)) === "Hit") return true
    for (const fill of pending.splice(0)) assert.strictEqual(yield* settle(fill), "accepted")
    return (yield* ask(query, 1)) === "Hit"
  })
  for (let query = 0; query < queries.length; query++) {
    // What one shard has lost may cost the others what they hold, once it is noticed.
    assert.isTrue((yield* canBeFilled(query)) || ((stores[0].shards ?? 1) > 1 && (yield* canBeFilled(query))))
  }
})
