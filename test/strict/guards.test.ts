/** Each guard of strict mode in the scripts, and what happens without it. */
import { assert, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as CacheStore from "../../src/CacheStore.ts"
import * as Dependency from "../../src/Dependency.ts"
import * as Coherence from "../../src/internal/redis/coherence.ts"
import * as Scripts from "../../src/internal/redis/scripts.ts"
import * as StrictScripts from "../../src/internal/redis/strictScripts.ts"
import * as RedisStore from "../../src/RedisStore.ts"
import * as TieredStore from "../../src/TieredStore.ts"
import { entryOf, freshNamespace, keyOf, type Service, setOf, write } from "../CacheStoreTest.ts"
import * as TestRedis from "../support/redis.ts"
import * as WithoutGuard from "../support/withoutGuard.ts"

const { row, table } = Dependency

const orders = setOf(table("orders"))

interface On {
  readonly store: Service
  readonly redis: Redis.Redis["Service"]
  readonly key: CacheStore.CacheKey
}

interface Guard {
  readonly name: string
  readonly without: WithoutGuard.Without
  readonly kind?: Layer.Layer<CacheStore.CacheStore, never, Redis.Redis>
  /** Whether all went right. */
  readonly scenario: (on: On) => Effect.Effect<boolean, unknown>
}

const strict = RedisStore.layer({ consistency: "strict" })

/** Passes the barrier, over a database where nothing is under way. */
const open = Effect.fnUntraced(function*({ key, store }: On) {
  const outcome = yield* store.lookup(key, orders)
  if (outcome._tag !== "Bypass" || outcome.reason !== "barrier") return
  const { epoch, transaction = "7" } = outcome
  yield* store.strict!.barrier(key.namespace, { epoch, transaction, isPassed: true })
})

/** Opens, and stores an entry. */
const filled = Effect.fnUntraced(function*(on: On, dependencies = orders) {
  yield* open(on)
  const { lease } = yield* on.store.lookup(on.key, dependencies)
  yield* on.store.store(on.key, entryOf("old", dependencies), lease)
})

const fenceOf = ({ key: { namespace }, store }: On, targets = write("", table("orders"))) =>
  store.strict!.fence({ ...targets, namespace, token: "t", transaction: "8" })

/** What a lookup comes to: the reason where it is a bypass. */
const outcomeOf = ({ key, store }: On, dependencies = orders) =>
  Effect.map(store.lookup(key, dependencies), (outcome) => outcome._tag === "Bypass" ? outcome.reason : outcome._tag)

const command = ({ key: { namespace }, redis }: On, name: string, key: string, ...args: ReadonlyArray<string>) =>
  redis.send(name, `eqc:{${namespace}:0}:${key}`, ...args)

const expire = (on: On) => command(on, "HSET", "fences", "t:t", "1 8\norder\ns:orders\ns:orders(*)")

const guards: ReadonlyArray<Guard> = [
  {
    name: "LOOKUP judges fences",
    without: ["if not tokens then return nil end", "if true then return nil end"],
    scenario: Effect.fnUntraced(function*(on) {
      yield* filled(on)
      yield* fenceOf(on)
      return (yield* outcomeOf(on)) === "fenced"
    })
  },
  {
    name: "STORE judges fences",
    without: ["if tokensOn(stamps) then return false end", ""],
    scenario: Effect.fnUntraced(function*(on) {
      yield* open(on)
      const { lease } = yield* on.store.lookup(on.key, orders)
      yield* fenceOf(on)
      return (yield* on.store.store(on.key, entryOf("old", orders), lease)) === "refused"
    })
  },
  {
    name: "HOLD judges fences",
    without: ["if tokensOn(stamps) then return false end", ""],
    kind: TieredStore.layer({ consistency: "strict", coherence: "revalidate" }),
    scenario: Effect.fnUntraced(function*(on) {
      yield* filled(on)
      yield* fenceOf(on)
      return (yield* outcomeOf(on)) === "fenced"
    })
  },
  {
    name: "the entry's own dependencies count",
    without: ["if tokensOn(stamps) then return false end", ""],
    scenario: Effect.fnUntraced(function*(on) {
      yield* filled(on, setOf(table("orders"), table("users")))
      yield* fenceOf(on, write("", table("users")))
      return (yield* outcomeOf(on)) !== "Hit"
    })
  },
  {
    name: "what is read before the barrier is open is registered",
    without: ["if outcome[1] ~= \"hit\" then", "if outcome[1] == \"miss\" then"],
    scenario: Effect.fnUntraced(function*(on) {
      yield* outcomeOf(on, setOf(row("orders", { id: 1 })))
      // By it a write tells of the row.
      return (yield* command(on, "HGET", "meta", "s:orders")) === "id"
    })
  },
  {
    name: "LOOKUP judges the barrier",
    without: ["if barrier ~= \"open\" then return { \"closed\", barrier } end", ""],
    scenario: Effect.fnUntraced(function*(on) {
      return (yield* outcomeOf(on)) === "barrier"
    })
  },
  {
    name: "a loss closes the barrier",
    without: [
      "redis.call(\"UNLINK\", FENCES)\n    barrier, fenceCount = \"\", 0",
      "barrier, fenceCount = redis.call(\"HGET\", FENCES, \"barrier\") or \"\", 0"
    ],
    scenario: Effect.fnUntraced(function*(on) {
      yield* filled(on)
      yield* command(on, "UNLINK", "meta")
      return (yield* outcomeOf(on)) === "barrier"
    })
  },
  {
    name: "fences that are lost begin an epoch",
    without: ["if state.err or state[1] ~= epoch then return false end", ""],
    scenario: Effect.fnUntraced(function*(on) {
      yield* filled(on)
      yield* fenceOf(on)
      yield* command(on, "UNLINK", "fences")
      yield* open(on)
      // Its write has committed, and its invalidation is on its way.
      return (yield* outcomeOf(on)) !== "Hit"
    })
  },
  {
    name: "a shape that is registered behind a fence is fenced",
    without: ["\n  fenceShape(name, columns)", ""],
    scenario: Effect.fnUntraced(function*(on) {
      yield* open(on)
      yield* fenceOf(on, write("", row("orders", { id: 1 })))
      const dependencies = setOf(row("orders", { id: 1 }))
      yield* on.store.lookup(on.key, dependencies)
      return (yield* outcomeOf(on, dependencies)) === "fenced"
    })
  },
  {
    name: "what was registered is judged again",
    without: ["outcome = bypass(stampsOf(entries[i].set)) or outcome", ""],
    scenario: Effect.fnUntraced(function*(on) {
      yield* open(on)
      yield* fenceOf(on, write("", row("orders", { id: 1 })))
      return (yield* outcomeOf(on, setOf(row("orders", { id: 1 })))) === "fenced"
    })
  },
  {
    name: "invalidating everything keeps the fences",
    without: ["rotate(redis.pcall, isGood and", "rotate(redis.pcall, false and"],
    scenario: Effect.fnUntraced(function*(on) {
      yield* filled(on)
      yield* fenceOf(on)
      yield* on.store.invalidate({ namespace: on.key.namespace, ...Dependency.allTargets })
      return (yield* outcomeOf(on)) === "fenced"
    })
  },
  {
    name: "an invalidation lifts its fences",
    without: ["for token in string.gmatch(ARGV[10], \"%S+\") do lift(token) end", ""],
    scenario: Effect.fnUntraced(function*(on) {
      yield* filled(on)
      yield* fenceOf(on)
      yield* on.store.invalidate({ ...write(on.key.namespace, table("orders")), fences: ["t"] })
      return (yield* outcomeOf(on)) === "Miss"
    })
  },
  {
    name: "a fence does not go with the time",
    without: [
      "if xid then outcome[#outcome + 1] = { tokens[i], xid } end",
      "if xid then lift(tokens[i]) return nil end"
    ],
    scenario: Effect.fnUntraced(function*(on) {
      yield* filled(on)
      yield* fenceOf(on)
      yield* expire(on)
      return (yield* outcomeOf(on)) === "fenced" && (yield* outcomeOf(on)) === "fenced"
    })
  },
  {
    name: "one of those who meet an expired fence is told",
    without: ["  writeFence(token, fence)\n  return fence.xid", "  return fence.xid"],
    scenario: Effect.fnUntraced(function*(on) {
      yield* filled(on)
      yield* fenceOf(on)
      yield* expire(on)
      const told = yield* Effect.forEach(
        [1, 2],
        () =>
          Effect.map(
            on.store.lookup(on.key, orders),
            (outcome) => outcome._tag === "Bypass" && outcome.reason === "fenced" ? outcome.expired.length : -1
          )
      )
      return told[0] === 1 && told[1] === 0
    })
  },
  {
    name: "what has committed is invalidated",
    without: ["if verdict == \"committed\" then", "if false then"],
    scenario: Effect.fnUntraced(function*(on) {
      yield* filled(on)
      yield* fenceOf(on)
      yield* on.store.strict!.resolve(on.key.namespace, "t", "committed")
      return (yield* outcomeOf(on)) === "Miss"
    })
  },
  {
    name: "what runs still is not lifted",
    without: ["if fence and verdict == \"running\" then", "if false then"],
    scenario: Effect.fnUntraced(function*(on) {
      yield* filled(on)
      yield* fenceOf(on)
      yield* on.store.strict!.resolve(on.key.namespace, "t", "running")
      return (yield* outcomeOf(on)) === "fenced"
    })
  },
  {
    name: "the first transaction that is told is the barrier's",
    without: ["if barrier == \"\" then", "if barrier ~= \"open\" then"],
    scenario: Effect.fnUntraced(function*({ key, key: { namespace }, store }) {
      const outcome = yield* store.lookup(key, orders)
      const { epoch } = outcome as CacheStore.Closed
      yield* store.strict!.barrier(namespace, { epoch, transaction: "9", isPassed: false })
      return !(yield* store.strict!.barrier(namespace, { epoch, transaction: "5", isPassed: true })).isOpen
    })
  },
  {
    name: "a barrier is of an epoch",
    without: ["if ARGV[6] == epoch then", "if true then"],
    scenario: Effect.fnUntraced(function*(on) {
      yield* open(on)
      yield* command(on, "UNLINK", "meta")
      yield* on.store.strict!.barrier(on.key.namespace, {
        epoch: "1-strict.before@0",
        transaction: "7",
        isPassed: true
      })
      return (yield* outcomeOf(on)) === "barrier"
    })
  },
  {
    name: "STORE takes no memory where it is short",
    without: ["ask(\"ZADD\", STAMPS, \"XX\", 0, \"\")", "ask(\"HDEL\", FENCES, \"\")"],
    scenario: Effect.fnUntraced(function*(on) {
      yield* filled(on)
      yield* on.redis.send("CONFIG", "SET", "maxmemory", "1")
      // What asks for nothing but an answer gets one.
      const outcome = yield* on.store.lookup(on.key, orders)
      const stored = yield* Effect.exit(on.store.store(on.key, entryOf("new", orders), outcome.lease))
      yield* on.redis.send("CONFIG", "SET", "maxmemory", "0")
      return outcome._tag === "Hit" && stored._tag === "Failure"
    })
  },
  {
    name: "LOOKUP asks for a write",
    without: ["ask(\"HDEL\", FENCES, \"\")", ""],
    scenario: Effect.fnUntraced(function*(on) {
      yield* filled(on)
      // A primary that was deposed has no replica any more.
      yield* on.redis.send("CONFIG", "SET", "min-replicas-to-write", "1")
      const outcome = yield* Effect.exit(on.store.lookup(on.key, orders))
      yield* on.redis.send("CONFIG", "SET", "min-replicas-to-write", "0")
      return outcome._tag === "Failure"
    })
  }
]

const withoutGuard = WithoutGuard.make([
  Scripts.lookupStrict.flat,
  Scripts.storeStrict.flat,
  Scripts.invalidateStrict,
  Coherence.holdStrict,
  StrictScripts.fence,
  StrictScripts.resolve,
  StrictScripts.barrier
])

layer(TestRedis.layer(), { excludeTestServices: true })("strict: guards", (it) => {
  for (const { kind = strict, name, scenario, without } of guards) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const redis = yield* Redis.Redis
        const run = Effect.fnUntraced(function*(redis: Redis.Redis["Service"]) {
          const context = yield* Layer.build(
            Layer.fresh(kind).pipe(Layer.provide(Layer.succeed(Redis.Redis, redis)))
          )
          const store = Context.get(context, CacheStore.CacheStore)
          return yield* scenario({ store, redis, key: keyOf(freshNamespace(), "q") })
        })
        assert.isTrue(yield* run(redis), "with the guard")
        const mutant = withoutGuard(redis, without)
        const right = yield* run(mutant.service)
        assert.isAbove(mutant.changed(), 0, "the guard is not in the scripts")
        assert.isFalse(right, "without the guard")
      }))
  }
})
