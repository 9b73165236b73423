import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, describe, it, layer as layerTests } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { InvalidOptionError } from "../src/CacheError.ts"
import * as CacheStore from "../src/CacheStore.ts"
import * as Dependency from "../src/Dependency.ts"
import { orderOf } from "../src/internal/epoch.ts"
import type { Layout } from "../src/internal/redis/layouts.ts"
import * as Replies from "../src/internal/redis/replies.ts"
import * as Scripts from "../src/internal/redis/scripts.ts"
import * as Shards from "../src/internal/redis/shards.ts"
import * as Wire from "../src/internal/redis/wire.ts"
import * as RedisStore from "../src/RedisStore.ts"
import {
  entryOf,
  fill,
  freshNamespace,
  hit,
  keyOf,
  miss,
  owning,
  type Service,
  setOf,
  stale,
  suite,
  write
} from "./CacheStoreTest.ts"
import * as TestRedis from "./support/redis.ts"
import * as WithoutGuard from "./support/withoutGuard.ts"

const { row, table, tag } = Dependency

const layouts = ["flat", "grouped"] as const

const redisKey = (namespace: string, name: string): string => `eqc:{${namespace}:0}:${name}`

const orders = setOf(table("orders"))
const users = setOf(table("users"))
const tagged = setOf(tag("t"))
const unrelated = (namespace: string) => write(namespace, tag("unrelated"))

/** A store of its own: another process, as far as Redis can tell. */
const storeOn = (redis: Redis.Redis["Service"], options?: RedisStore.RedisStoreOptions) =>
  RedisStore.layer(options).pipe(
    Layer.provide(Layer.succeed(Redis.Redis, redis)),
    Layer.build,
    Effect.map(Context.get(CacheStore.CacheStore))
  )

const clientOf = (server: TestRedis.Server, options?: Parameters<typeof TestRedis.client>[1]) =>
  Effect.map(Layer.build(TestRedis.client(server, options)), Context.get(Redis.Redis))

/** A server, a client and a store. */
const setUp = Effect.fnUntraced(function*(settings?: TestRedis.Settings, options?: RedisStore.RedisStoreOptions) {
  const server = yield* TestRedis.makeServer(settings)
  const redis = yield* clientOf(server)
  return { server, redis, store: yield* storeOn(redis, options), key: keyOf(freshNamespace(), "q") }
})

const reasonOf = Effect.fnUntraced(function*<A, E extends { readonly reason: { readonly _tag: string } }>(
  effect: Effect.Effect<A, E>
) {
  return (yield* Effect.flip(effect)).reason._tag
})

/** Where an entry lies. */
const entryKeys = (server: TestRedis.Server, namespace: string) =>
  Effect.map(server.command("KEYS", redisKey(namespace, "[egx]:*")), (keys) => (keys as Array<string>).sort())

/** The data of some keys, and what brings them back. */
const snapshot = Effect.fnUntraced(function*(redis: Redis.Redis["Service"], keys: ReadonlyArray<string>) {
  const copy = `for i = 1, #KEYS, 2 do redis.call("COPY", KEYS[i], KEYS[i + 1], "REPLACE") end`
  const run = (from: (key: string) => string, to: (key: string) => string) =>
    redis.send("EVAL", copy, `${keys.length * 2}`, ...keys.flatMap((key) => [from(key), to(key)]))
  const saved = (key: string) => `${key}:saved`
  yield* run((key) => key, saved)
  return { restore: run(saved, (key) => key) }
})

for (const layout of layouts) {
  const command = (...args: ReadonlyArray<string>) =>
    Effect.flatMap(TestRedis.RedisServer, (server) => server.command(...args))
  // Whatever is lost, by eviction or otherwise, only turns hits into misses.
  const lost = (...args: ReadonlyArray<string>) => (namespace: string) =>
    command(args[0], redisKey(namespace, args[1]), ...args.slice(2))
  suite(
    `RedisStore, ${layout}`,
    RedisStore.layer({ layout }).pipe(Layer.provideMerge(TestRedis.layer())),
    {
      live: true,
      another: Effect.flatMap(Redis.Redis, (redis) => storeOn(redis, { layout })),
      faults: [
        lost("DEL", "meta"),
        lost("DEL", "stamps"),
        lost("DEL", "e:query 4"),
        lost("DEL", "f:query 4"),
        lost("ZREM", "stamps", "orders", "orders(*)"),
        lost("ZREM", "stamps", "orders(id)", "orders(customer)", "orders(customer,id)"),
        lost("ZREM", "stamps", "orders(id=\"1\")", "orders(customer=\"0\")"),
        lost("ZREMRANGEBYRANK", "stamps", "-1", "-1"),
        () => command("SCRIPT", "FLUSH")
      ]
    }
  )
}

// A connection that breaks before the reply comes has clients send again what they do not know to have been run.
suite(
  "RedisStore, every command sent twice",
  RedisStore.layer().pipe(
    Layer.provideMerge(Layer.effect(
      Redis.Redis,
      Effect.map(Redis.Redis, (redis) => ({
        ...redis,
        send: <A>(...command: Parameters<typeof redis.send>) =>
          Effect.andThen(redis.send(...command), redis.send<A>(...command))
      }))
    )),
    Layer.provide(TestRedis.layer())
  ),
  { live: true, another: Effect.flatMap(Redis.Redis, (redis) => storeOn(redis)) }
)

// -----------------------------------------------------------------------------
// Guards: each with what happens without it
// -----------------------------------------------------------------------------

interface Guard {
  readonly name: string
  /** The text of the guard in the scripts, and what stands there without it. */
  readonly without: WithoutGuard.Without
  readonly layouts?: ReadonlyArray<Layout>
  readonly options?: RedisStore.RedisStoreOptions
  /** Whether all went right. */
  readonly scenario: (on: {
    readonly store: Service
    readonly another: Service
    readonly redis: Redis.Redis["Service"]
    readonly key: CacheStore.CacheKey
  }) => Effect.Effect<boolean, unknown>
}

const misses = (store: Service, key: CacheStore.CacheKey, dependencies: Dependency.DependencySet) =>
  Effect.map(store.lookup(key, dependencies), ({ _tag }) => _tag === "Miss" || _tag === "Wait")

/** Whether a lookup is told to wait. */
const waits = (store: Service, key: CacheStore.CacheKey, dependencies: Dependency.DependencySet) =>
  Effect.map(
    store.lookup(key, dependencies),
    (outcome) => outcome._tag === "Wait" || (outcome._tag === "Stale" && outcome.waiting)
  )

const soonStale = { timeToLiveMillis: 1, retainMillis: 60_000 }

const guards: ReadonlyArray<Guard> = [
  {
    name: "a lease is compared at STORE",
    without: ["local accepted = latest and latest <= entry.lease", "local accepted = latest"],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      const { lease } = yield* miss(store, key, orders)
      yield* store.invalidate(write(key.namespace, table("orders")))
      return (yield* store.store(key, entryOf("old", orders), lease)) === "refused"
    })
  },
  {
    name: "an epoch is compared at STORE",
    without: ["entry.epoch == epoch and newest", "newest"],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      const { lease } = yield* miss(store, key, orders)
      yield* store.invalidate({ namespace: key.namespace, ...Dependency.allTargets })
      yield* miss(store, key, orders)
      return (yield* store.store(key, entryOf("old", orders), lease)) === "refused"
    })
  },
  {
    name: "an epoch is compared at LOOKUP",
    without: ["if of ~= epoch then", "if false then"],
    layouts: ["flat"],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      yield* fill(store, key, orders)
      yield* store.invalidate({ namespace: key.namespace, ...Dependency.allTargets })
      yield* miss(store, keyOf(key.namespace, "another"), orders)
      return yield* misses(store, key, orders)
    })
  },
  {
    name: "a header names the epoch",
    without: ["epoch .. \":\" ..", "\":\" .."],
    layouts: ["grouped"],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      yield* fill(store, key, tagged)
      yield* store.invalidate({ namespace: key.namespace, ...Dependency.allTargets })
      // Another part of the group registers the same stamp at the same clock, and leaves this part alone.
      for (const name of ["b", "c"]) yield* miss(store, keyOf(key.namespace, name), tagged)
      return yield* misses(store, key, tagged)
    })
  },
  {
    name: "a header names the newest stamp",
    without: ["header ~= epoch .. \":\" .. text(latest)", "false"],
    layouts: ["grouped"],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      yield* fill(store, key, tagged)
      yield* store.invalidate(write(key.namespace, tag("t")))
      return yield* misses(store, key, tagged)
    })
  },
  {
    name: "stamps are compared at LOOKUP",
    without: ["if not latest or latest > tonumber(lease) then return \"invalidated\" end", ""],
    layouts: ["flat"],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      yield* fill(store, key, orders)
      yield* store.invalidate(write(key.namespace, table("orders")))
      return yield* misses(store, key, orders)
    })
  },
  {
    name: "what is absent counts as invalidated",
    without: ["if not score then", "if not score then score = 0 end if false then"],
    scenario: Effect.fnUntraced(function*({ key, redis, store }) {
      yield* fill(store, key, tagged)
      yield* redis.send("ZREM", redisKey(key.namespace, "stamps"), "#t")
      yield* store.invalidate(write(key.namespace, tag("t")))
      return yield* misses(store, key, tagged)
    })
  },
  {
    name: "an entry's own stamps count, not only the caller's (race 20)",
    without: ["local latest = newest(own)", "local latest = newest(stamps)"],
    layouts: ["flat"],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      yield* fill(store, key, setOf(table("orders"), tag("premium")))
      yield* store.invalidate(write(key.namespace, tag("premium")))
      return yield* misses(store, key, orders)
    })
  },
  {
    name: "the caller's stamps count, not only the entry's own (race 20)",
    without: ["if own ~= stamps then", "if false then"],
    layouts: ["flat"],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      const premium = setOf(table("orders"), tag("premium"))
      yield* fill(store, key, orders)
      yield* miss(store, keyOf(key.namespace, "another"), premium)
      yield* store.invalidate(write(key.namespace, tag("premium")))
      return yield* misses(store, key, premium)
    })
  },
  {
    name: "a miss registers (race 2)",
    without: ["  register(missed)\n", ""],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      const { lease } = yield* miss(store, key, orders)
      return (yield* store.store(key, entryOf("v", orders), lease)) === "accepted"
    })
  },
  {
    name: "a miss leaves the stamps that are there: NX",
    without: ["zadd(\"NX\", members)", "zadd(\"CH\", members)"],
    layouts: ["flat"],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      yield* fill(store, key, orders)
      yield* store.invalidate(unrelated(key.namespace))
      yield* miss(store, keyOf(key.namespace, "another"), orders)
      return !(yield* misses(store, key, orders))
    })
  },
  {
    name: "a write stamps only what is registered: XX",
    without: ["zadd(\"XX\", stamps)", "zadd(\"CH\", stamps)"],
    scenario: Effect.fnUntraced(function*({ key, redis, store }) {
      yield* miss(store, key, orders)
      yield* store.invalidate(write(key.namespace, table("nobody reads it"), tag("nor this")))
      // `orders`, `orders(*)` and the sentinel.
      return (yield* redis.send("ZCARD", redisKey(key.namespace, "stamps"))) === 3
    })
  },
  {
    name: "an invalidation advances the clock",
    without: ["clock = redis.call(\"HINCRBY\", META, \"clk\", 1)\n    zadd", "zadd"],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      const { lease } = yield* miss(store, key, orders)
      yield* store.invalidate(write(key.namespace, table("orders")))
      return (yield* store.store(key, entryOf("old", orders), lease)) === "refused"
    })
  },
  {
    name: "a shape is registered by the miss",
    without: ["registerShape(string.match(shape, \"^([^\\t]*)\\t(.*)$\"))", ""],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      const { lease } = yield* miss(store, key, setOf(row("orders", { id: 7 })))
      yield* store.invalidate(write(key.namespace, row("orders", { id: 7 })))
      return (yield* store.store(key, entryOf("old", setOf(row("orders", { id: 7 }))), lease)) === "refused"
    })
  },
  {
    name: "a shape that leaves the list takes its stamp along",
    without: ["redis.call(\"ZREM\", STAMPS, oldest)", ""],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      const set = setOf(row("orders", { c0: 1 }))
      yield* fill(store, key, set)
      for (let i = 1; i <= 64; i++) {
        yield* miss(store, keyOf(key.namespace, `${i}`), setOf(row("orders", { [`c${i}`]: 1 })))
      }
      yield* store.invalidate(write(key.namespace, row("orders", { c0: 1 })))
      return yield* misses(store, key, set)
    })
  },
  {
    name: "a shape that leaves the list and returns is newer than the leases from before",
    without: ["clock = redis.call(\"HINCRBY\", META, \"clk\", 1)\n    redis.call(\"ZREM\"", "redis.call(\"ZREM\""],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      const shape = (i: number) => setOf(row("orders", { [`c${i}`]: 1 }))
      const { lease } = yield* miss(store, key, shape(0))
      for (let i = 1; i <= 64; i++) yield* miss(store, keyOf(key.namespace, `${i}`), shape(i))
      yield* miss(store, keyOf(key.namespace, "back"), shape(0))
      // Whoever listens has dropped what it holds of the shape, so what it drops must not be filled again.
      return (yield* store.store(key, entryOf("old", shape(0)), lease)) === "refused"
    })
  },
  {
    name: "a shape that leaves within the batch that brought it leaves no stamp",
    without: [/( {2}zadd\("NX", members\)\n)([^]*?\n)(end\n\nlocal function claim)/g, "$2$1$3"],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      const requests = Array.from({ length: 65 }, (_, i) => ({
        key: keyOf(key.namespace, `${i}`),
        dependencies: setOf(row("orders", { [`c${i}`]: 1 }))
      }))
      const outcomes = yield* store.lookupMany(requests)
      const verdicts = yield* store.storeMany(requests.flatMap(({ dependencies, key }, i) => {
        const outcome = outcomes[i]
        return outcome._tag === "Miss" ? [{ key, entry: entryOf(i, dependencies), lease: outcome.lease }] : []
      }))
      return verdicts.filter((verdict) => verdict === "accepted").length === 64
    })
  },
  {
    name: "another replication id begins an epoch",
    without: ["if replid and replid ~= meta[3] then return false end", ""],
    scenario: Effect.fnUntraced(function*({ key, redis, store }) {
      yield* fill(store, key, orders)
      yield* redis.send("HSET", redisKey(key.namespace, "meta"), "replid", "0".repeat(40))
      return yield* misses(store, key, orders)
    })
  },
  {
    name: "a missing sentinel begins an epoch",
    without: ["if type(ask(\"ZSCORE\", STAMPS, \"~\" .. epoch)) ~= \"string\" then return false end", ""],
    scenario: Effect.fnUntraced(function*({ key, redis, store }) {
      const { epoch } = yield* fill(store, key, orders)
      yield* redis.send("ZREM", redisKey(key.namespace, "stamps"), `~${epoch}`)
      const outcome = yield* store.lookup(key, orders)
      return outcome._tag === "Miss" && outcome.lease.epoch !== epoch
    })
  },
  {
    name: "metadata that outgrew their limit begin an epoch",
    without: ["return redis.call(\"HLEN\", META) < 10000", "return true"],
    scenario: Effect.fnUntraced(function*({ key, redis, store }) {
      const { epoch } = yield* fill(store, key, orders)
      const fields = Array.from({ length: 10_000 }, (_, i) => [`s:${i}`, "id"]).flat()
      yield* redis.send("HSET", redisKey(key.namespace, "meta"), ...fields)
      return (yield* store.invalidate(unrelated(key.namespace)))[0].epoch !== epoch
    })
  },
  {
    name: "a clock below what was seen begins an epoch",
    without: ["(epoch ~= SEEN or clock < seenClock)", "false"],
    scenario: Effect.fnUntraced(function*({ key, redis, store }) {
      yield* fill(store, key, tagged)
      const { restore } = yield* snapshot(redis, [redisKey(key.namespace, "meta"), redisKey(key.namespace, "stamps")])
      yield* store.invalidate(write(key.namespace, tag("t")))
      // As when a data set is restored in place.
      yield* restore
      return yield* misses(store, key, tagged)
    })
  },
  {
    name: "an epoch from before the one that was seen begins another",
    without: ["if order < seenOrder then return false end", ""],
    scenario: Effect.fnUntraced(function*({ key, redis, store }) {
      yield* fill(store, key, orders)
      const { restore } = yield* snapshot(redis, [redisKey(key.namespace, "meta"), redisKey(key.namespace, "stamps")])
      yield* store.invalidate({ namespace: key.namespace, ...Dependency.allTargets })
      yield* restore
      return yield* misses(store, key, orders)
    })
  },
  {
    name: "an epoch of the same order and another nonce begins another",
    without: ["(epoch ~= SEEN or clock < seenClock)", "(clock < seenClock)"],
    scenario: Effect.fnUntraced(function*({ key, redis, store }) {
      const { epoch } = yield* fill(store, key, orders)
      // As when two masters rotated apart from each other.
      const twin = `${orderOf(epoch)}-twin`
      yield* redis.send("HSET", redisKey(key.namespace, "meta"), "epoch", twin)
      yield* redis.send("ZADD", redisKey(key.namespace, "stamps"), "+inf", `~${twin}`)
      return (yield* store.invalidate(unrelated(key.namespace)))[0].epoch !== twin
    })
  },
  {
    name: "a new epoch is above the one that was seen, so that callers do not rotate in turns",
    without: ["math.max(micros, (order or 0) + 1, (seenOrder or 0) + 1)", "micros"],
    scenario: Effect.fnUntraced(function*({ another, key, redis, store }) {
      const { epoch } = yield* fill(store, key, orders)
      // As if the clock of Redis had been set back by a day since.
      const later = `${orderOf(epoch) + 86_400_000_000}-later`
      yield* redis.send("HSET", redisKey(key.namespace, "meta"), "epoch", later)
      yield* redis.send("ZADD", redisKey(key.namespace, "stamps"), "+inf", `~${later}`)
      yield* store.invalidate(unrelated(key.namespace))
      yield* another.invalidate(unrelated(key.namespace))
      yield* redis.send("DEL", redisKey(key.namespace, "meta"))
      const clocks: Array<string> = []
      for (const each of [store, another, store, another]) {
        clocks.push((yield* each.invalidate(unrelated(key.namespace)))[0].epoch)
      }
      return new Set(clocks).size === 1
    })
  },
  {
    name: "an entry's own time counts, should its key stay",
    without: ["if now >= tonumber(kept) then return \"expired\" end", ""],
    scenario: Effect.fnUntraced(function*({ key, redis, store }) {
      yield* fill(store, key, orders, "v", 200)
      for (const kept of yield* redis.send<Array<string>>("KEYS", redisKey(key.namespace, "[egx]:*"))) {
        yield* redis.send("PERSIST", kept)
      }
      yield* Effect.sleep(220)
      const outcome = yield* store.lookup(key, orders)
      return outcome._tag === "Miss" && outcome.reason === "expired"
    })
  },
  {
    name: "an entry is fresh for its own time",
    without: ["now < tonumber(fresh) and ", ""],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      yield* fill(store, key, orders, "v", soonStale)
      yield* Effect.sleep(10)
      return (yield* store.lookup(key, orders))._tag === "Stale"
    })
  },
  {
    name: "a caller's own limit counts",
    without: [" and age < maxAge", ""],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      yield* fill(store, key, orders)
      return (yield* store.lookup(key, orders, 0))._tag === "Stale"
    })
  },
  {
    name: "nobody knows how old an entry is that is from the future",
    without: [" and age >= 0", ""],
    layouts: ["flat"],
    scenario: Effect.fnUntraced(function*({ key, redis, store }) {
      yield* fill(store, key, orders)
      const entry = redisKey(key.namespace, "e:q")
      const text = yield* redis.send<string>("GET", entry)
      // As if the clock of Redis had been set back by a hundred seconds since.
      const later = text.replace(
        /^(1 \S+ \d+) (\d+) (\d+) (\d+)/,
        (_, head, ...times) => [head, ...times.slice(0, 3).map((time) => Number(time) + 100_000)].join(" ")
      )
      yield* redis.send("SET", entry, later, "PX", "60000")
      const outcome = yield* store.lookup(key, orders)
      return outcome._tag === "Stale" && outcome.expiresAtMillis - outcome.storedAtMillis === 60_000
    })
  },
  {
    name: "one reads, the others wait",
    without: ["if remaining >= 0 then", "if false then"],
    scenario: Effect.fnUntraced(function*({ another, key, store }) {
      yield* owning(store, key, orders)
      return yield* waits(another, key, orders)
    })
  },
  {
    name: "a token finds its own flight",
    without: ["owner ~= entry.token and ", ""],
    scenario: Effect.fnUntraced(function*({ key, store }) {
      const request = { key, dependencies: orders }
      const outcomes = yield* store.lookupMany([request, request])
      return outcomes.every(({ _tag }) => _tag === "Miss")
    })
  },
  {
    name: "a flight of another epoch is not waited for",
    without: ["of == epoch and ", ""],
    scenario: Effect.fnUntraced(function*({ another, key, store }) {
      yield* store.invalidate(unrelated(key.namespace))
      yield* owning(store, key, orders)
      yield* store.invalidate({ namespace: key.namespace, ...Dependency.allTargets })
      return !(yield* waits(another, key, orders))
    })
  },
  {
    name: "a flight that was overtaken is not waited for",
    without: ["latest and latest <= tonumber(lease) then\n      local", "latest then\n      local"],
    scenario: Effect.fnUntraced(function*({ another, key, store }) {
      yield* owning(store, key, orders)
      yield* store.invalidate(write(key.namespace, table("orders")))
      return !(yield* waits(another, key, orders))
    })
  },
  {
    name: "a stamp that is registered again is known again",
    without: ["  forget()\n", ""],
    scenario: Effect.fnUntraced(function*({ another, key, redis, store }) {
      yield* fill(store, key, tagged, "v", soonStale)
      yield* Effect.sleep(10)
      yield* stale(store, key, tagged)
      yield* redis.send("ZREM", redisKey(key.namespace, "stamps"), "#t")
      // Nothing was invalidated since: what the first one reads is what this one would.
      return yield* waits(another, key, tagged)
    })
  },
  {
    name: "a fill ends its flight",
    without: ["for i = 1, count do settle(keyOf(i, 1), entries[i].token, verdicts[i] == 1 and 0 or 1000) end", ""],
    scenario: Effect.fnUntraced(function*({ another, key, store }) {
      const lease = yield* owning(store, key, orders)
      yield* store.store(key, { ...entryOf("v", orders), ...soonStale }, lease)
      yield* Effect.sleep(10)
      const outcome = yield* another.lookup(key, orders)
      return outcome._tag === "Stale" && outcome.lease.flight !== undefined
    })
  },
  {
    name: "a late fill leaves its successor's flight",
    without: ["or string.match(held, \"^(%S+) \") ~= token then", "then"],
    scenario: Effect.fnUntraced(function*({ another, key, store }) {
      const lease = yield* owning(store, key, orders)
      yield* store.invalidate(write(key.namespace, table("orders")))
      yield* owning(another, key, orders)
      yield* store.store(key, entryOf("old", orders), lease)
      yield* store.release(key, lease)
      return yield* waits(store, key, orders)
    })
  },
  {
    name: "a fill that is refused lets everybody read",
    without: ["verdicts[i] == 1 and 0 or 1000", "0"],
    scenario: Effect.fnUntraced(function*({ another, key, store }) {
      const lease = yield* owning(store, key, orders)
      yield* store.invalidate(write(key.namespace, table("orders")))
      yield* store.store(key, entryOf("old", orders), lease)
      return (yield* another.lookup(key, orders)).lease.flight === undefined
    })
  },
  {
    name: "where everybody reads, nobody begins a flight",
    without: ["if held == \"-\" then return \"free\", 0 end", ""],
    scenario: Effect.fnUntraced(function*({ another, key, store }) {
      yield* store.release(key, yield* owning(store, key, orders))
      return (yield* another.lookup(key, orders)).lease.flight === undefined
    })
  },
  {
    name: "registrations are limited",
    without: ["  trim(#members)\n", ""],
    options: { maxDependencies: 50 },
    scenario: Effect.fnUntraced(function*({ key, redis, store }) {
      for (let i = 0; i < 30; i++) {
        const set = setOf(...Array.from({ length: 10 }, (_, j) => tag(`${i},${j}`)))
        yield* fill(store, keyOf(key.namespace, `${i}`), set)
        yield* hit(store, keyOf(key.namespace, `${i}`), set)
      }
      return (yield* redis.send<number>("ZCARD", redisKey(key.namespace, "stamps"))) <= 51
    })
  },
  {
    name: "registrations are limited, and the sentinel stays",
    without: ["if removed[i] ~= \"~\" .. epoch then", "if true then"],
    options: { maxDependencies: 1 },
    scenario: Effect.fnUntraced(function*({ key, store }) {
      const epochs = new Set<string>()
      for (let i = 0; i < 30; i++) {
        epochs.add((yield* miss(store, keyOf(key.namespace, `${i}`), setOf(tag(`${i}`)))).lease.epoch)
      }
      return epochs.size === 1
    })
  }
]

const scripts: ReadonlyArray<{ readonly lua: string }> = [
  Scripts.lookup.flat,
  Scripts.lookup.grouped,
  Scripts.store.flat,
  Scripts.store.grouped,
  Scripts.release,
  Scripts.invalidate,
  Shards.open
]
const withoutGuard = WithoutGuard.make(scripts)

for (const layout of layouts) {
  layerTests(TestRedis.layer(), { excludeTestServices: true })(`RedisStore, ${layout}: guards`, (it) => {
    for (const guard of guards) {
      if (guard.layouts?.includes(layout) === false) continue
      it.effect(guard.name, () =>
        Effect.gen(function*() {
          const redis = yield* Redis.Redis
          const run = Effect.fnUntraced(function*(redis: Redis.Redis["Service"]) {
            const options = { ...guard.options, layout }
            const [store, another] = [yield* storeOn(redis, options), yield* storeOn(redis, options)]
            return yield* guard.scenario({ store, another, redis, key: keyOf(freshNamespace(), "q") })
          })
          assert.isTrue(yield* run(redis), "with the guard")
          const mutant = withoutGuard(redis, guard.without)
          const right = yield* run(mutant.service)
          assert.isAbove(mutant.changed(), 0, "the guard is not in the scripts")
          assert.isFalse(right, "without the guard")
        }))
    }
  })
}

// -----------------------------------------------------------------------------
// Faults
// -----------------------------------------------------------------------------

describe("RedisStore", () => {
  it.live("asks nothing of Redis when it is built", () =>
    Effect.gen(function*() {
      const server = yield* TestRedis.makeServer()
      const redis = yield* clientOf(server)
      const commands = yield* server.monitor
      yield* storeOn(redis)
      assert.deepStrictEqual(yield* commands, [])
    }))

  for (const layout of layouts) {
    it.live(`each operation is one command, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, server, store } = yield* setUp({}, { layout })
        const requests = Array.from({ length: 50 }, (_, id) => ({
          key: keyOf(key.namespace, `${id}`),
          dependencies: setOf(row("orders", { id }))
        }))
        const all = Effect.gen(function*() {
          yield* fill(store, key, orders)
          yield* hit(store, key, orders)
          const outcomes = yield* store.lookupMany(requests)
          yield* store.storeMany(requests.flatMap(({ dependencies, key }, i) => {
            const outcome = outcomes[i]
            return outcome._tag === "Miss" ? [{ key, entry: entryOf(i, dependencies), lease: outcome.lease }] : []
          }))
          yield* store.invalidate(write(key.namespace, table("orders"), row("users", { id: 1 })))
        })
        yield* all
        const commands = yield* server.monitor
        yield* all
        assert.deepStrictEqual(yield* commands, Array.from({ length: 6 }, () => "EVALSHA"))
      }))

    it.live(`what is asked for at once is one command, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, server, store } = yield* setUp({}, { layout })
        const keys = Array.from({ length: 100 }, (_, i) => keyOf(key.namespace, `${i}`))
        const sets = keys.map((_, id) => setOf(row("orders", { id: id % 10 })))
        const lookups = Effect.forEach(keys, (key, i) => store.lookup(key, sets[i]), { concurrency: "unbounded" })
        // Redis learns the scripts.
        yield* fill(store, key, orders)
        const commands = yield* server.monitor
        const outcomes = yield* lookups
        const verdicts = yield* Effect.forEach(
          outcomes,
          (outcome, i) => {
            assert(outcome._tag === "Miss")
            return store.store(keys[i], entryOf(i, sets[i]), outcome.lease)
          },
          { concurrency: "unbounded" }
        )
        assert.isTrue(verdicts.every((verdict) => verdict === "accepted"))
        for (const [i, outcome] of (yield* lookups).entries()) assert(outcome._tag === "Hit" && outcome.value === i)
        assert.deepStrictEqual(yield* commands, ["EVALSHA", "EVALSHA", "EVALSHA"])

        // 256 KiB a command: what holds a server up, and a service may refuse, is its size.
        const large = "x".repeat(100_000)
        yield* Effect.forEach(
          outcomes.slice(0, 5),
          ({ lease }, i) => store.store(keys[i], entryOf(large, sets[i]), lease),
          { concurrency: "unbounded" }
        )
        assert.lengthOf(yield* commands, 3 + 3)
        assert.strictEqual((yield* hit(store, keys[4], sets[4])).value, large)
      }))

    it.live(`an owner that died is replaced in time, and does no harm when it comes back, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, redis, store } = yield* setUp({}, { layout, flightTimeout: "250 millis" })
        const another = yield* storeOn(redis, { layout, flightTimeout: "1 minute" })
        const lease = yield* owning(store, key, orders)
        const waiting = yield* another.lookup(key, orders)
        assert(waiting._tag === "Wait")
        assert.isAtMost(waiting.remainingMillis, 250)
        yield* Effect.sleep(Math.max(1, waiting.remainingMillis) + 10)
        const next = yield* owning(another, key, orders)
        assert.strictEqual(yield* redis.send("EXISTS", redisKey(key.namespace, "f:q")), 1)

        // Nothing was invalidated since: its answer is as good as its successor's, whose flight goes on.
        assert.strictEqual(yield* store.store(key, entryOf("late", orders), lease), "accepted")
        assert.strictEqual((yield* hit(store, key, orders)).value, "late")
        const meanwhile = yield* store.lookup(key, orders, 0)
        assert(meanwhile._tag === "Stale" && meanwhile.waiting)
        assert.strictEqual(yield* another.store(key, entryOf("v", orders), next), "accepted")
        assert.strictEqual(yield* redis.send("EXISTS", redisKey(key.namespace, "f:q")), 0)
      }))

    it.live(`a lookup that is given up gives its flight back, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, redis, server, store } = yield* setUp({}, { layout, flightTimeout: "1 minute" })
        const another = yield* storeOn(yield* clientOf(server), { layout })
        yield* fill(store, keyOf(key.namespace, "other"), orders)
        yield* server.pause
        const gone = yield* Effect.exit(Effect.timeout(store.lookup(key, orders), "30 millis"))
        assert.strictEqual(gone._tag, "Failure")
        yield* server.resume
        // Its command is run all the same. Then nobody is waited for, and the next one who asks reads.
        yield* redis.send("PING")
        yield* Effect.repeat(redis.send("EXISTS", redisKey(key.namespace, "f:q")), {
          until: (count) => count === 0,
          schedule: Schedule.spaced("5 millis")
        })
        yield* owning(another, key, orders)
      }))

    it.live(`a flight that is not one is replaced, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, redis, store } = yield* setUp({}, { layout })
        const flight = redisKey(key.namespace, "f:q")
        const { epoch } = yield* miss(store, key, orders).pipe(Effect.map(({ lease }) => lease))
        const cases: ReadonlyArray<ReadonlyArray<string>> = [
          ["SET", flight, ""],
          ["SET", flight, "x"],
          ["SET", flight, `token ${epoch} x`],
          ["RPUSH", flight, "x"],
          // Without an end it would be waited for for ever.
          ["SET", flight, `token ${epoch} 999`]
        ]
        for (const [command, ...args] of cases) {
          yield* redis.send("DEL", flight)
          yield* redis.send(command, ...args)
          const lease = yield* owning(store, key, orders)
          yield* redis.send("DEL", flight)
          yield* redis.send(command, ...args)
          yield* store.release(key, lease)
          assert.strictEqual(
            yield* store.store(key, { ...entryOf("v", orders), timeToLiveMillis: 1 }, lease),
            "accepted"
          )
          yield* Effect.sleep(5)
        }
      }))

    it.live(`memory runs out: flights end, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, server, store } = yield* setUp({ "maxmemory-policy": "noeviction" }, { layout })
        const given = yield* owning(store, keyOf(key.namespace, "given up"), orders)
        const refused = yield* owning(store, keyOf(key.namespace, "refused"), orders)
        yield* store.invalidate(write(key.namespace, table("orders")))
        yield* server.command("CONFIG", "SET", "maxmemory", "1")
        yield* store.release(keyOf(key.namespace, "given up"), given)
        const late = store.store(keyOf(key.namespace, "refused"), entryOf("late", orders), refused)
        assert.strictEqual(yield* late, "refused")
        yield* server.command("CONFIG", "SET", "maxmemory", "0")
        for (const name of ["given up", "refused"]) {
          const outcome = yield* store.lookup(keyOf(key.namespace, name), orders)
          assert(outcome._tag === "Miss" && outcome.lease.flight === undefined)
        }
      }))

    it.live(`survives SCRIPT FLUSH and FLUSHALL, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, server, store } = yield* setUp({}, { layout })
        const lease = yield* fill(store, key, orders)
        yield* server.command("SCRIPT", "FLUSH")
        yield* hit(store, key, orders)
        yield* server.command("FLUSHALL")
        assert.strictEqual(yield* store.store(key, entryOf("late", orders), lease), "refused")
        const after = yield* fill(store, key, orders)
        assert.notStrictEqual(after.epoch, lease.epoch)
        yield* hit(store, key, orders)
      }))

    it.live(`restarts: without data, with data, with old data, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, redis, server, store } = yield* setUp({}, { layout })
        const restart = Effect.gen(function*() {
          yield* server.stop
          assert.strictEqual(yield* reasonOf(store.lookup(key, orders)), "StoreUnavailable")
          yield* server.start
          yield* Effect.retry(redis.send("PING"), Schedule.spaced("10 millis"))
        })
        const { lease } = yield* miss(store, key, orders)
        yield* restart
        assert.strictEqual(yield* store.store(key, entryOf("late", orders), lease), "refused")

        yield* fill(store, key, orders)
        yield* server.command("SAVE")
        yield* store.invalidate(write(key.namespace, table("orders")))
        yield* restart
        assert.lengthOf(yield* entryKeys(server, key.namespace), layout === "flat" ? 1 : 2)
        // Another process, which has seen nothing of what is missing.
        const another = yield* storeOn(redis, { layout })
        yield* miss(another, key, orders)
        yield* miss(store, key, orders)
        yield* fill(store, key, orders)
        yield* hit(another, key, orders)
      }))

    it.live(`a replica does not answer, and a promoted one starts anew, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, redis, server, store } = yield* setUp({ "repl-diskless-sync-delay": "0" }, { layout })
        const standby = yield* TestRedis.makeServer({ replicaof: `127.0.0.1 ${server.port}` })
        const onStandby = yield* clientOf(standby)
        yield* Effect.repeat(standby.command("INFO", "replication"), {
          until: (info) => String(info).includes("master_link_status:up"),
          schedule: Schedule.spaced("20 millis")
        })
        yield* fill(store, key, orders)
        assert.strictEqual(yield* redis.send("WAIT", "1", "2000"), 1)
        const there = yield* storeOn(onStandby, { layout })
        assert.strictEqual(yield* reasonOf(there.lookup(key, orders)), "WriteRefused")
        assert.strictEqual(yield* reasonOf(there.invalidate(unrelated(key.namespace))), "WriteRefused")

        // The last invalidation does not arrive.
        yield* standby.command("REPLICAOF", "NO", "ONE")
        yield* store.invalidate(write(key.namespace, table("orders")))
        yield* server.stop
        assert.lengthOf(yield* entryKeys(standby, key.namespace), layout === "flat" ? 1 : 2)
        yield* miss(there, key, orders)
        yield* fill(there, key, orders)
        yield* hit(there, key, orders)
      }))

    it.live(`reads what is not its own as a miss, and replaces it, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, redis, server, store } = yield* setUp({}, { layout })
        yield* fill(store, key, orders, ["a value"])
        const [entry, expiries] = yield* entryKeys(server, key.namespace)
        const text = layout === "flat"
          ? yield* redis.send<string>("GET", entry)
          : yield* redis.send<string>("HGET", entry, `f:${key.fingerprint}`)
        const put = (value: string) =>
          layout === "flat"
            ? redis.send("SET", entry, value, "PX", "60000")
            : redis.send("HSET", entry, `f:${key.fingerprint}`, value)
        const cases: ReadonlyArray<Effect.Effect<unknown, Redis.RedisError>> = [
          put(text.slice(0, -1)),
          put(`${text}x`),
          put(""),
          put("garbage"),
          put(text.replace(/^1 /, "2 ")),
          put(text.replace("a value", "b\u0000lue\"")),
          redis.send("EVAL", `redis.call("DEL", KEYS[1]) redis.call("RPUSH", KEYS[1], "x")`, "1", entry),
          ...(expiries === undefined ? [] : [
            redis.send("EVAL", `redis.call("DEL", KEYS[1]) redis.call("SET", KEYS[1], "x")`, "1", expiries)
              .pipe(Effect.andThen(redis.send("DEL", entry)))
          ])
        ]
        for (const corrupt of cases) {
          yield* corrupt
          const { reason } = yield* miss(store, key, orders)
          assert.include(["undecodable", "absent"], reason)
          yield* fill(store, key, orders, ["a value"])
          assert.deepStrictEqual((yield* hit(store, key, orders)).value, ["a value"])
        }
      }))

    it.live(`metadata of the wrong kind begin an epoch, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, redis, store } = yield* setUp({}, { layout })
        const meta = redisKey(key.namespace, "meta")
        const stamps = redisKey(key.namespace, "stamps")
        const cases: ReadonlyArray<Effect.Effect<unknown, Redis.RedisError>> = [
          redis.send("SET", meta, "x"),
          redis.send("SET", stamps, "x"),
          redis.send("DEL", stamps),
          redis.send("HDEL", meta, "clk"),
          redis.send("HSET", meta, "epoch", "x"),
          ...["-1", "1.5", "nan", "inf", "x", "1e300", ""].map((clk) => redis.send("HSET", meta, "clk", clk))
        ]
        for (const corrupt of cases) {
          const { lease } = yield* Effect.flatMap(store.lookup(key, orders), (outcome) =>
            outcome._tag === "Hit" ? Effect.succeed({ lease: outcome.lease! }) : Effect.succeed(outcome))
          yield* store.store(key, entryOf("v", orders), lease)
          yield* hit(store, key, orders)
          yield* corrupt
          assert.strictEqual(yield* store.store(key, entryOf("late", orders), lease), "refused")
          const { lease: next } = yield* miss(store, key, orders)
          assert.isAbove(orderOf(next.epoch), orderOf(lease.epoch))
        }
      }))

    it.live(`memory runs out: what is cached is served, writes invalidate, fills are refused, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, redis, server, store } = yield* setUp({ "maxmemory-policy": "noeviction" }, { layout })
        const seven = keyOf(key.namespace, "7")
        const eight = keyOf(key.namespace, "8")
        const rows = (id: number) => setOf(row("orders", { id }))
        yield* fill(store, seven, rows(7))
        yield* fill(store, eight, rows(8))
        yield* fill(store, key, orders)
        yield* server.command("CONFIG", "SET", "maxmemory", "1")
        assert.strictEqual(yield* reasonOf(Effect.mapError(redis.send("SET", "x", "y"), asCacheError)), "WriteRefused")

        const [before] = yield* store.invalidate(write(key.namespace, row("orders", { id: 7 })))
        yield* hit(store, eight, rows(8))
        assert.strictEqual(yield* reasonOf(store.lookup(keyOf(key.namespace, "new"), users)), "WriteRefused")
        const { lease } = yield* hit(store, eight, rows(8))
        assert.strictEqual(yield* reasonOf(store.store(eight, entryOf("v", rows(8)), lease!)), "WriteRefused")

        // A server that would refuse even so: the metadata go, and everything is invalid.
        const strict = withoutGuard(redis, ["redis.call(\"DEL\", KEYS[3])", ""])
        const other = yield* storeOn(strict.service, { layout })
        const [after] = yield* other.invalidate(write(key.namespace, row("orders", { id: 7 })))
        assert.strictEqual(strict.changed(), 1)
        assert.isAbove(orderOf(after.epoch), orderOf(before.epoch))

        yield* server.command("CONFIG", "SET", "maxmemory", "0")
        yield* miss(store, seven, rows(7))
        yield* miss(store, eight, rows(8))
        yield* fill(store, seven, rows(7))
        yield* hit(store, seven, rows(7))
      }))

    it.live(`writes are refused for want of replicas, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, server, store } = yield* setUp({}, { layout })
        yield* fill(store, key, orders)
        yield* server.command("CONFIG", "SET", "min-replicas-to-write", "1")
        assert.strictEqual(yield* reasonOf(store.invalidate(unrelated(key.namespace))), "WriteRefused")
        assert.strictEqual(yield* reasonOf(store.lookup(keyOf(key.namespace, "new"), users)), "WriteRefused")
        yield* server.command("CONFIG", "SET", "min-replicas-to-write", "0")
        yield* hit(store, key, orders)
      }))

    it.live(`INFO is refused: metadata and the mark alone, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, server, store } = yield* setUp({}, { layout })
        yield* server.command(
          "ACL",
          "SETUSER",
          "app",
          "on",
          ">secret",
          "~eqc:*",
          "&eqc:*",
          "+@read",
          "+@write",
          "+@scripting",
          "+@pubsub",
          "+@connection",
          "+time",
          "-info"
        )
        const redis = yield* clientOf(server, { username: "app", password: "secret" })
        assert.strictEqual(yield* reasonOf(Effect.mapError(redis.send("INFO"), asCacheError)), "AccessDenied")
        const there = yield* storeOn(redis, { layout })

        // What one begins, the other goes on with, whichever may ask for the replication id.
        yield* fill(store, key, orders)
        yield* hit(there, key, orders)
        yield* there.invalidate(write(key.namespace, table("orders")))
        yield* fill(there, key, orders)
        yield* hit(store, key, orders)

        const other = keyOf(freshNamespace(), "q")
        yield* fill(there, other, orders)
        const { restore } = yield* snapshot(yield* clientOf(server), [
          redisKey(other.namespace, "meta"),
          redisKey(other.namespace, "stamps"),
          ...(yield* entryKeys(server, other.namespace))
        ])
        const { lease } = yield* hit(there, other, orders)
        yield* there.invalidate(write(other.namespace, table("orders")))
        yield* restore
        yield* miss(there, other, orders)
        assert.strictEqual(yield* there.store(other, entryOf("late", orders), lease!), "refused")
      }))

    it.live(`another's epoch says nothing by itself, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, redis, store } = yield* setUp({}, { layout })
        const another = yield* storeOn(redis, { layout })
        yield* fill(store, key, orders)
        yield* another.invalidate({ namespace: key.namespace, ...Dependency.allTargets })
        const { epoch } = yield* fill(another, key, orders)
        yield* hit(store, key, orders)
        assert.strictEqual((yield* store.invalidate(unrelated(key.namespace)))[0].epoch, epoch)
      }))

    it.live(`every key but the metadata has a time to live, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, redis, server, store } = yield* setUp({}, { layout })
        for (let i = 0; i < 40; i++) {
          const set = i % 2 === 0 ? orders : setOf(row("orders", { id: i % 8 }))
          // What is never read, given up, filled.
          yield* store.lookup(keyOf(key.namespace, `left ${i}`), set)
          const { lease } = yield* miss(store, keyOf(key.namespace, `${i}`), set)
          yield* store.store(keyOf(key.namespace, `${i}`), entryOf(i, set, 100 + i * 1000), lease)
          if (i % 9 === 0) yield* store.invalidate(write(key.namespace, row("orders", { id: 2 })))
          if (i === 20) yield* store.invalidate({ namespace: key.namespace, ...Dependency.allTargets })
        }
        const keys = yield* server.command("KEYS", "*")
        const forever: Array<string> = []
        for (const key of keys) {
          if ((yield* redis.send<number>("PTTL", key)) < 0) forever.push(key)
        }
        assert.deepStrictEqual(forever.sort(), [redisKey(key.namespace, "meta"), redisKey(key.namespace, "stamps")])
      }))

    it.live(`runs on a cluster: every script keeps to one slot, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, server, store } = yield* setUp({ "cluster-enabled": "yes" }, { layout })
        yield* server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        yield* Effect.repeat(server.command("CLUSTER", "INFO"), {
          until: (info) => String(info).includes("cluster_state:ok"),
          schedule: Schedule.spaced("20 millis")
        })
        const odd = `${key.namespace}}{b}`
        for (const namespace of [key.namespace, odd]) {
          const requests = [orders, users, setOf(row("orders", { id: 7 }))].map((dependencies, i) => ({
            key: keyOf(namespace, `{${i}}`),
            dependencies
          }))
          const outcomes = yield* store.lookupMany(requests)
          yield* store.storeMany(requests.map(({ dependencies, key }, i) => {
            const outcome = outcomes[i]
            assert(outcome._tag === "Miss")
            return { key, entry: entryOf(i, dependencies), lease: outcome.lease }
          }))
          yield* store.invalidate(write(namespace, table("orders")))
          const after = yield* store.lookupMany(requests)
          assert.deepStrictEqual(after.map(({ _tag }) => _tag), ["Miss", "Hit", "Miss"])
        }
      }))

    it.live(`epochs never repeat, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, redis, server, store } = yield* setUp({}, { layout })
        const stores = [store, yield* storeOn(redis, { layout }), yield* storeOn(redis, { layout })]
        const epochs = new Set<string>()
        for (let i = 0; i < 90; i++) {
          if (i % 3 === 0) yield* server.command("FLUSHALL")
          const each = stores[i % 3]
          epochs.add((yield* each.invalidate({ namespace: key.namespace, ...Dependency.allTargets }))[0].epoch)
        }
        assert.strictEqual(epochs.size, 90)
      }))

    it.live(`one more invalidation than a message holds tells everything, ${layout}`, () =>
      Effect.gen(function*() {
        const { key, redis, store } = yield* setUp({}, { layout })
        const another = yield* storeOn(redis, { layout })
        const changes = yield* Effect.forkScoped(Stream.runCollect(Stream.take(another.changes, 3)))
        yield* Effect.repeat(redis.send<Array<unknown>>("PUBSUB", "NUMSUB", "eqc:changes"), {
          until: ([, count]) => count === 1,
          schedule: Schedule.spaced("5 millis")
        })
        yield* fill(store, key, orders)
        const [{ clock, epoch }] = yield* store.invalidate(
          write(key.namespace, ...Array.from({ length: 1_001 }, (_, i) => tag(`${i}`)))
        )
        yield* store.invalidate(write(key.namespace, tag("a"), row("users", { id: 1 })))
        assert.deepStrictEqual([...(yield* Fiber.join(changes))], [
          { namespace: key.namespace, shard: 0, epoch, clock: 0, all: true, stamps: [] },
          { namespace: key.namespace, shard: 0, epoch, clock, all: true, stamps: [] },
          { namespace: key.namespace, shard: 0, epoch, clock: clock + 1, all: false, stamps: ["#a", "users"] }
        ])
        // Everything for whoever listens, who cannot be told more. Here only what was named.
        yield* hit(store, key, orders)
      }))
  }

  it.live("grouped: expired fields go with the next fills, and the group with its last field", () =>
    Effect.gen(function*() {
      const { key, redis, server, store } = yield* setUp({}, { layout: "grouped" })
      // All in one part of the group.
      const names = Array.from({ length: 4_000 }, (_, i) => `q${i}`)
      const keys = new Wire.Keys("eqc", key.namespace, 0)
      const [hash, expiries] = keys.group(Wire.set(orders), "q0")
      const together = names.filter((name) => keys.group(Wire.set(orders), name)[0] === hash)
      const fillAll = (names: ReadonlyArray<string>, timeToLiveMillis: number) =>
        Effect.gen(function*() {
          const { lease } = yield* miss(store, keyOf(key.namespace, "none"), orders)
          yield* store.storeMany(
            names.map((name) => ({
              key: keyOf(key.namespace, name),
              entry: entryOf(name, orders, timeToLiveMillis),
              lease
            }))
          )
        })
      assert.isAbove(together.length, 100)
      yield* fillAll(together.slice(0, 100), 400)
      assert.strictEqual(yield* redis.send("HLEN", hash), 101)
      yield* Effect.sleep(450)
      assert.strictEqual(yield* redis.send("EXISTS", hash, expiries), 0)

      yield* fillAll(together.slice(0, 90), 400)
      yield* fillAll(together.slice(90, 91), 60_000)
      yield* Effect.sleep(450)
      assert.strictEqual(yield* redis.send("HLEN", hash), 92)
      // Each fill removes up to sixteen, and so does each miss.
      yield* fillAll(together.slice(91, 94), 30_000)
      assert.strictEqual(yield* redis.send("HLEN", hash), 92 + 3 - 48)
      yield* miss(store, keyOf(key.namespace, together[0]), orders)
      yield* miss(store, keyOf(key.namespace, together[1]), orders)
      yield* miss(store, keyOf(key.namespace, together[2]), orders)
      assert.strictEqual(yield* redis.send("HLEN", hash), 5)
      assert.strictEqual(yield* redis.send("ZCARD", expiries), 4)
      for (const each of [hash, expiries]) assert.isAbove(yield* redis.send<number>("PTTL", each), 50_000)

      // One of the two was evicted: nothing would ever remove its fields.
      yield* redis.send("DEL", expiries)
      yield* fillAll(together.slice(95, 96), 20_000)
      assert.strictEqual(yield* redis.send("HLEN", hash), 2)
      assert.isBelow(yield* redis.send<number>("PTTL", hash), 20_001)
      assert.strictEqual(yield* redis.send("ZCARD", expiries), 1)
      assert.lengthOf(yield* entryKeys(server, key.namespace), 2)
    }))

  it.live("grouped: an invalidation drops the groups of its tables, a lookup those it finds overtaken", () =>
    Effect.gen(function*() {
      const { key, server, store } = yield* setUp({}, { layout: "grouped" })
      const both = setOf(table("orders"), table("users"))
      const manual = Dependency.makeSet([table("orders")], { autoInvalidate: false })
      const fillSome = Effect.fnUntraced(function*(set: Dependency.DependencySet) {
        for (let i = 0; i < 20; i++) yield* fill(store, keyOf(key.namespace, `${i}`), set)
      })
      const count = Effect.map(entryKeys(server, key.namespace), (keys) => keys.length)
      yield* fillSome(orders)
      assert.isAbove(yield* count, 10)
      yield* store.invalidate(write(key.namespace, row("orders", { id: 7 })))
      assert.strictEqual(yield* count, 0)

      yield* fillSome(orders)
      yield* fillSome(manual)
      yield* store.invalidate({ namespace: key.namespace, ...Dependency.explicitTargets([table("orders")]) })
      assert.strictEqual(yield* count, 0)

      // The name of a group of two tables is not known from one of them.
      yield* fill(store, keyOf(key.namespace, "q"), both)
      yield* store.invalidate(write(key.namespace, table("orders")))
      assert.strictEqual(yield* count, 2)
      yield* miss(store, keyOf(key.namespace, "q"), both)
      assert.strictEqual(yield* count, 0)
    }))

  it.live("a missing right, a wrong password", () =>
    Effect.gen(function*() {
      const { key, server, store } = yield* setUp()
      const { epoch } = yield* fill(store, key, orders)
      const rights = ["evalsha", "time", "hmget", "zscore", "hlen", "get", "zmscore", "zadd", "publish"]
      for (const [i, right] of rights.entries()) {
        yield* server.command("ACL", "SETUSER", "default", `-${right}`)
        const all = store.lookup(key, orders).pipe(
          Effect.andThen(store.lookup(keyOf(key.namespace, `${i}`), setOf(tag(`${i}`)))),
          Effect.andThen(store.invalidate(unrelated(key.namespace)))
        )
        assert.strictEqual(yield* reasonOf(all), "AccessDenied", right)
        yield* server.command("ACL", "SETUSER", "default", `+${right}`)
      }
      // Nobody lost anything by it.
      assert.strictEqual((yield* hit(store, key, orders)).lease?.epoch, epoch)
      const rejected = Effect.fnUntraced(function*(credentials: object) {
        const socket = { port: server.port, reconnectStrategy: false as const }
        const error = yield* Effect.flip(Layer.build(NodeRedis.layer({ ...credentials, socket })))
        return Replies.reasonOf(error)._tag
      })
      assert.strictEqual(yield* rejected({ username: "nobody", password: "wrong" }), "AccessDenied")
      yield* server.command("ACL", "SETUSER", "default", "resetpass", ">secret")
      assert.strictEqual(yield* rejected({}), "AccessDenied")
    }))

  it.live("replies that no script returns", () =>
    Effect.gen(function*() {
      const hit = (value: unknown, age: unknown = "5", same: unknown = 1) => ["hit", value, age, "60", "1", same]
      const absent = (...claim: ReadonlyArray<unknown>) => ["miss", "absent", ...claim]
      /** A server that answers this, and names the call if it is to. */
      const fake = (reply: unknown, nonce?: string) =>
        Effect.flatMap(
          Redis.make({
            send: (_, __, keys, ...args) => {
              const asked = nonce ?? args[Number(keys)]
              return Effect.succeed((Array.isArray(reply) ? [reply[0], asked, ...reply.slice(1)] : reply) as any)
            },
            subscribe: () => Effect.die("not used"),
            connect: Effect.die("not used")
          }),
          (redis) => storeOn(redis)
        )
      const found = (...outcomes: ReadonlyArray<unknown>) => ["found", "7-a", "3", outcomes]
      const key = keyOf(freshNamespace(), "q")
      const bad: ReadonlyArray<unknown> = [
        null,
        "OK",
        1,
        [],
        {},
        ["found"],
        ["stored", "7-a", "3", [1]],
        found(),
        found(1),
        found(["miss", "because", "free", 0]),
        found(["miss", "absent"]),
        found(absent("mine", 0)),
        found(absent("wait", "soon")),
        found(absent("wait", -1)),
        found(absent("free", 0), absent("free", 0)),
        found(hit({})),
        found(hit("1", "x")),
        found(hit("1", "--1")),
        found(hit("1", {})),
        found(hit("1", "5", 2)),
        found(["hit", "1", "5", "-60", "1", 1]),
        found(["hit", "1", "5", "60", "x", 1]),
        found([...hit("1"), "free", 0]),
        found(["stale", "1", "5", "60", "1", 1]),
        ["found", "7", "3", [absent("free", 0)]],
        ["found", 7, "3", [absent("free", 0)]],
        ["found", "7-a", "x", [absent("free", 0)]],
        ["found", "7-a", 1.5, [absent("free", 0)]]
      ]
      for (const reply of bad) {
        const store = yield* fake(reply)
        assert.strictEqual(yield* reasonOf(store.lookup(key, orders)), "InvalidReply", JSON.stringify(reply))
      }
      // What a client makes of numbers does not matter.
      for (
        const reply of [found(hit("1", 5, "1")), ["found", "7-a", 3, [hit("1", "-5")]], found(hit("1", -5))]
      ) {
        const outcome = yield* (yield* fake(reply)).lookup(key, orders)
        assert(outcome._tag === "Hit" && outcome.value === 1)
        assert.deepStrictEqual(outcome.lease, { epoch: "7-a", clock: 3 })
        assert.strictEqual(outcome.expiresAtMillis - outcome.storedAtMillis, 60)
      }
      const lease = { epoch: "7-a", clock: 3, flight: "f" }
      for (const reply of [null, ["stored", "7-a", "3", []], ["stored", "7-a", "3", [2]], ["stored", "7-a", "3", 1]]) {
        const store = yield* fake(reply)
        assert.strictEqual(yield* reasonOf(store.store(key, entryOf("v", orders), lease)), "InvalidReply")
      }
      for (const reply of [null, ["invalidated", "7-a"], ["invalidated", "7-a", null], ["found", "7-a", "3"]]) {
        const store = yield* fake(reply)
        assert.strictEqual(yield* reasonOf(store.invalidate(unrelated(key.namespace))), "InvalidReply")
      }
      for (const reply of [null, 1, ["released", "1"], ["lost"]]) {
        assert.strictEqual(yield* reasonOf((yield* fake(reply)).release(key, lease)), "InvalidReply")
      }

      // What would be right if it were to the call that it came for.
      const other = "of another call"
      assert.strictEqual(yield* reasonOf((yield* fake(found(hit("1")), other)).lookup(key, orders)), "InvalidReply")
      const fills = [["stored", "7-a", "3", [1]], ["lost"]]
      for (const reply of fills) {
        const store = yield* fake(reply, other)
        assert.strictEqual(yield* reasonOf(store.store(key, entryOf("v", orders), lease)), "InvalidReply")
      }
      const invalidated = yield* fake(["invalidated", "7-a", "3", "1"], other)
      assert.strictEqual(yield* reasonOf(invalidated.invalidate(unrelated(key.namespace))), "InvalidReply")
      assert.strictEqual(yield* reasonOf((yield* fake(["released"], other)).release(key, lease)), "InvalidReply")
    }))

  it.live("replies out of step hand over nothing, and leave nothing behind", () =>
    Effect.gen(function*() {
      const { key, redis } = yield* setUp()
      let last: unknown = "OK"
      let behind = true
      const shifted = yield* storeOn({
        ...redis,
        send: (...command) =>
          Effect.map(redis.send<any>(...command), (reply) => {
            const before = last
            last = reply
            return behind ? before : reply
          })
      })
      const other = keyOf(key.namespace, "other")
      for (let i = 0; i < 3; i++) {
        assert.strictEqual(yield* reasonOf(shifted.lookup(key, orders)), "InvalidReply")
        assert.strictEqual(yield* reasonOf(shifted.lookup(other, users)), "InvalidReply")
        assert.strictEqual(yield* reasonOf(shifted.invalidate(unrelated(key.namespace))), "InvalidReply")
      }
      behind = false
      yield* shifted.invalidate({ namespace: key.namespace, ...Dependency.allTargets })
      for (const each of [key, other]) {
        yield* fill(shifted, each, orders)
        assert.strictEqual((yield* hit(shifted, each, orders)).value, each.fingerprint)
      }
    }))

  it("errors of Redis are classified by what they mean", () => {
    const cases: ReadonlyArray<readonly [string, string]> = [
      ["OOM command not allowed when used memory > 'maxmemory'.", "WriteRefused"],
      ["ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed", "WriteRefused"],
      ["READONLY You can't write against a read only replica.", "WriteRefused"],
      ["MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist", "WriteRefused"],
      ["NOREPLICAS Not enough good replicas to write.", "WriteRefused"],
      ["WRONGPASS invalid username-password pair or user is disabled.", "AccessDenied"],
      ["NOAUTH Authentication required.", "AccessDenied"],
      ["NOPERM this user has no permissions to run the 'eval' command", "AccessDenied"],
      ["ERR Error running script: The user executing the script can't run this command or subcommand", "AccessDenied"],
      ["ERR invalid password", "AccessDenied"],
      ["ERR unknown command 'EVALSHA', with args beginning with: ", "InvalidReply"],
      ["ERR effect-query-cache: malformed arguments", "InvalidReply"],
      ["CROSSSLOT Keys in request don't hash to the same slot", "InvalidReply"],
      ["ERR max number of clients reached", "StoreUnavailable"],
      ["LOADING Redis is loading the dataset in memory", "StoreUnavailable"],
      ["BUSY Redis is busy running a script.", "StoreUnavailable"],
      ["CLUSTERDOWN The cluster is down", "StoreUnavailable"],
      ["TRYAGAIN Multiple keys request during rehashing of slot", "StoreUnavailable"],
      ["MOVED 3999 127.0.0.1:6381", "InvalidReply"],
      ["connect ECONNREFUSED 127.0.0.1:6379", "StoreUnavailable"],
      ["Socket closed unexpectedly", "StoreUnavailable"],
      ["The client is closed", "StoreUnavailable"]
    ]
    for (const [message, tag] of cases) {
      const reason = Replies.reasonOf(new Redis.RedisError({ cause: new Error(message) }))
      assert.strictEqual(reason._tag, tag, message)
      // What a server says of a command may contain its arguments.
      assert.notInclude(reason.message, message)
    }
    const denied = Object.assign(new Error("The token was refused"), { reason: "Denied" })
    assert.strictEqual(Replies.reasonOf(new Redis.RedisError({ cause: denied }))._tag, "AccessDenied")
  })

  it.live("a message that cannot be read ends the stream of changes", () =>
    Effect.gen(function*() {
      const { redis, store } = yield* setUp()
      for (
        const message of [
          "",
          "2\tn\t7-a@0\t1\t\t",
          "1\tn\t7-a@0\tx\t\t",
          "1\tn\t7-a\t1\t\t",
          "1\tn\t7-a@0\t1\t?\t",
          "1\tn\t7-a@0\t1\t\t~x"
        ]
      ) {
        const changes = yield* Effect.forkScoped(reasonOf(Stream.runDrain(store.changes)))
        yield* Effect.repeat(redis.send<number>("PUBLISH", "eqc:changes", message), {
          until: (receivers) => receivers > 0,
          schedule: Schedule.spaced("5 millis")
        })
        assert.strictEqual(yield* Fiber.join(changes), "InvalidReply")
      }
    }))

  it.live("a subscription that fails ends the stream of changes", () =>
    Effect.gen(function*() {
      const server = yield* TestRedis.makeServer()
      // One that gives up, as clients do by default where the first connection fails.
      const client = yield* Layer.build(NodeRedis.layer({ socket: { port: server.port } }))
      const store = yield* storeOn(Context.get(client, Redis.Redis))
      yield* server.stop
      const error = yield* Effect.flip(Stream.runDrain(store.changes))
      assert.strictEqual(error.operation, "subscribe")
      assert.strictEqual(error.reason._tag, "StoreUnavailable")
    }))

  it.live("batches larger than a script takes", () =>
    Effect.gen(function*() {
      const { key, server, store } = yield* setUp()
      const requests = Array.from({ length: 2_500 }, (_, id) => ({
        key: keyOf(key.namespace, `${id}`),
        dependencies: setOf(row("orders", { id }))
      }))
      const outcomes = yield* store.lookupMany(requests)
      const verdicts = yield* store.storeMany(requests.map(({ dependencies, key }, i) => {
        const outcome = outcomes[i]
        assert(outcome._tag === "Miss")
        return { key, entry: entryOf(i, dependencies), lease: outcome.lease }
      }))
      assert(verdicts.every((verdict) => verdict === "accepted"))
      const commands = yield* server.monitor
      const again = yield* store.lookupMany(requests)
      again.forEach((outcome, i) => assert(outcome._tag === "Hit" && outcome.value === i))
      assert.lengthOf(yield* commands, Math.ceil(2_500 / 128))
    }))

  it.live("the scripts use commands of Redis 6.2, and no more", () =>
    Effect.gen(function*() {
      const { redis } = yield* setUp()
      const lua = scripts.map((script) => script.lua).join("\n")
      const names = new Set(Array.from(lua.matchAll(/(?:call|ask|write)\("([A-Z]+)"/g), ([, name]) => name))
      assert.isAbove(names.size, 15)
      for (const name of names) {
        const docs = yield* redis.send<Record<string, { readonly since: string }>>("COMMAND", "DOCS", name)
        const [major, minor] = docs[name.toLowerCase()].since.split(".").map(Number)
        assert.isTrue(major < 6 || (major === 6 && minor <= 2), name)
      }
    }))

  it("refuses bad options by name and value", () => {
    const cases: ReadonlyArray<readonly [any, string]> = [
      [{ layout: "round" }, "layout"],
      [{ prefix: "" }, "prefix"],
      [{ prefix: "a{b" }, "prefix"],
      [{ prefix: 7 }, "prefix"],
      [{ maxDependencies: 0 }, "maxDependencies"],
      [{ maxDependencies: 1.5 }, "maxDependencies"],
      [{ maxDependency: 5 }, "maxDependency"],
      [{ shards: 0 }, "shards"],
      [{ shards: 1.5 }, "shards"],
      [{ shards: 257 }, "shards"],
      [{ flightTimeout: 0 }, "flightTimeout"],
      [{ flightTimeout: "-1 seconds" }, "flightTimeout"],
      [{ flightTimeout: "Infinity" }, "flightTimeout"],
      [{ flightTimeout: "soon" }, "flightTimeout"]
    ]
    for (const [options, option] of cases) {
      try {
        RedisStore.layer(options)
        assert.fail(`accepted ${JSON.stringify(options)}`)
      } catch (error) {
        assert(error instanceof InvalidOptionError && error.option === option)
        assert.deepStrictEqual(error.value, options[option])
      }
    }
  })

  it.live("prefixes are separate", () =>
    Effect.gen(function*() {
      const { key, redis, store } = yield* setUp()
      const other = yield* storeOn(redis, { prefix: "other" })
      yield* fill(store, key, orders)
      yield* fill(other, key, orders, "of the other")
      yield* store.invalidate(write(key.namespace, table("orders")))
      assert.strictEqual((yield* hit(other, key, orders)).value, "of the other")
    }))

  it.live("keys of two namespaces in one batch are a mistake", () =>
    Effect.gen(function*() {
      const { store } = yield* setUp()
      const requests = ["a", "b"].map((namespace) => ({ key: keyOf(namespace, "q"), dependencies: orders }))
      const exit = yield* Effect.exit(store.lookupMany(requests))
      assert(exit._tag === "Failure" && Cause.squash(exit.cause) instanceof InvalidOptionError)
    }))
})

const asCacheError = (error: Redis.RedisError) => ({ reason: Replies.reasonOf(error) })
