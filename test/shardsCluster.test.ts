/**
 * A namespace in six shards on a Redis Cluster whose nodes die, forget, freeze and hand their slots over, under programs
 * that go on reading and writing.
 */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { type CachedSqlClient, type CacheStore, QueryCache, RedisStore, TieredStore } from "effect-query-cache"
import * as RedisCluster from "effect-query-cache/RedisCluster"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Redis from "effect/persistence/Redis"
import * as Random from "effect/Random"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Fleet from "./support/fleet.ts"
import { type Cluster, type ClusterOptions, makeCluster } from "./support/redisCluster.ts"

const shards = 6
const ids = Array.from({ length: 18 }, (_, id) => id)
const namespace = "fleet"
const metadataOf = (shard: number): string => `eqc:{${namespace}:${shard}}:meta`

const stores = {
  one: RedisStore.layer({ shards }),
  two: TieredStore.layer({ shards, maxStaleness: "600 millis" })
}

type Sql = PgClient.PgClient

const read = (sql: Sql, id: number) => QueryCache.cached(sql<{ n: number }>`SELECT n FROM orders WHERE id = ${id}`)
const fate = (sql: Sql, id: number) =>
  Effect.map(
    QueryCache.withInfo(read(sql, id)),
    ([[query], [row]]) => ({ isHit: query.status === "hit", n: row.n })
  )

/** Two programs over the same database and the same cluster. */
const setUp = Effect.fnUntraced(function*(
  store: Layer.Layer<CacheStore.CacheStore, never, Redis.Redis>,
  options?: ClusterOptions
) {
  const cluster = yield* makeCluster(options)
  const values = new Map(ids.map((id) => [id, 0]))
  const respond = ({ params, sql }: CachedSqlClient.TestQuery) => {
    if (!sql.startsWith("SELECT")) return []
    return [{ n: values.get(Number(params[0]))! }]
  }
  const quiet = Layer.succeed(References.MinimumLogLevel, "None")
  const redis = Layer.orDie(
    RedisCluster.layer({ rootNodes: cluster.rootNodes, defaults: { disableOfflineQueue: true } })
  ).pipe(Layer.provide(quiet))
  const member = Effect.map(
    Fleet.member(respond, Layer.provide(store, redis), { lookupTimeout: "1 second", invalidationTimeout: "1 second" })
      .pipe(Effect.provideService(References.MinimumLogLevel, "None")),
    Context.get(PgClient.PgClient)
  )
  const members = [yield* member, yield* member]
  /** Commits, as the database does, before the cache is told. */
  const change = (sql: Sql, id: number) =>
    Effect.suspend(() => {
      const n = values.get(id)! + 1
      values.set(id, n)
      return Effect.as(sql`UPDATE orders SET n = ${n} WHERE id = ${id}`, n)
    })
  return { cluster, members, values, change }
})

/** Reads and writes at random until interrupted. What a program has written it never reads older. */
const work = Effect.fnUntraced(function*(
  { change, members }: {
    readonly members: ReadonlyArray<Sql>
    readonly change: (sql: Sql, id: number) => Effect.Effect<number, unknown>
  }
) {
  const written = members.map(() => new Map<number, number>())
  let hits = 0
  const step = Effect.gen(function*() {
    const which = yield* Random.nextIntBetween(0, members.length - 1)
    const id = yield* Random.nextIntBetween(0, ids.length - 1)
    const own = written[which]
    if ((yield* Random.next) < 0.04) {
      const n = yield* change(members[which], id)
      own.set(id, Math.max(n, own.get(id) ?? 0))
    } else {
      const least = own.get(id) ?? 0
      const { isHit, n } = yield* fate(members[which], id)
      if (isHit) hits++
      assert.isAtLeast(n, least, "a program has read what was before its own write")
    }
    yield* Effect.sleep(2)
  })
  const fiber = yield* Effect.forkChild(Effect.all([1, 2, 3, 4].map(() => Effect.forever(step)), {
    concurrency: "unbounded"
  }))
  return {
    hits: () => hits,
    end: Effect.suspend(() => {
      const failed = fiber.pollUnsafe()
      return failed === undefined ? Fiber.interrupt(fiber) : Fiber.join(fiber)
    })
  }
})

/** Everything is served from the cache again, to everybody, and it is what the database holds. */
const quiet = ({ members, values }: { readonly members: ReadonlyArray<Sql>; readonly values: Map<number, number> }) =>
  Effect.timeout(
    Effect.repeat(
      Effect.map(
        Effect.forEach(ids, (id) => Effect.forEach(members, (sql) => fate(sql, id)), { concurrency: 4 }),
        (all) => all.every((each, i) => each.every(({ isHit, n }) => isHit && n === values.get(ids[i])))
      ),
      { until: (isQuiet) => isQuiet, schedule: Schedule.spaced("50 millis") }
    ),
    "30 seconds"
  )

const ownerOf = (cluster: Cluster, shard: number) => Effect.flatMap(cluster.slotOf(metadataOf(shard)), cluster.ownerOf)

describe("six shards on a cluster", () => {
  for (const [levels, store] of Object.entries(stores)) {
    it.live(
      `a node that is killed takes its own shards along and no others, ${levels} level(s)`,
      () =>
        Effect.gen(function*() {
          const world = yield* setUp(store)
          const { change, cluster, members: [here, there], values } = world
          yield* quiet(world)
          const node = yield* ownerOf(cluster, 5)
          yield* node.stop
          const gone = yield* Effect.forEach(ids, (id) => fate(here, id))
          // In one level what the node had is read from the database, in two it is until the time has passed.
          assert.isTrue(gone.some(({ isHit }) => isHit))
          yield* Effect.sleep(700)
          const fates = yield* Effect.forEach(ids, (id) => fate(here, id))
          assert.deepStrictEqual(new Set(fates.map(({ isHit }) => isHit)), new Set([true, false]))
          // Not delivered to every shard: the writer does not serve it, wherever it lies.
          const id = ids.find((id) => fates[id].isHit)!
          yield* change(here, id)
          assert.deepStrictEqual(yield* fate(here, id), { isHit: false, n: values.get(id)! })
          assert.deepStrictEqual(yield* fate(here, id), { isHit: false, n: values.get(id)! })
          // The other shards have it, so nobody is served the old value from there.
          yield* Effect.sleep(700)
          assert.strictEqual((yield* fate(there, id)).n, values.get(id))
          yield* node.start
          yield* cluster.settled
          yield* quiet(world)
        }),
      120_000
    )

    it.live(`slots that move, nodes that forget and that freeze, ${levels} level(s)`, () =>
      Effect.gen(function*() {
        const world = yield* setUp(store)
        const { cluster } = world
        yield* quiet(world)
        const working = yield* work(world)
        const slot = yield* cluster.slotOf(metadataOf(1))
        const from = yield* cluster.ownerOf(slot)
        const to = cluster.masters.find((node) => node !== from)!
        const move = yield* cluster.move(slot, to)
        yield* move.carry(2)
        yield* Effect.sleep(500)
        yield* move.end
        yield* Effect.sleep(500)
        const first = yield* ownerOf(cluster, 0)
        yield* first.command("FLUSHALL")
        yield* Effect.sleep(300)
        yield* to.command("SCRIPT", "FLUSH")
        yield* Effect.sleep(300)
        yield* Effect.andThen(to.pause, Effect.ensuring(Effect.sleep(1_500), to.resume))
        const back = yield* cluster.move(slot, from)
        yield* back.end
        yield* Effect.sleep(500)
        yield* working.end
        assert.isAbove(working.hits(), 50)
        yield* cluster.settled
        yield* quiet(world)
      }), 120_000)
  }

  it.live(
    "a master that is deposed and wakes up again answers nobody who has heard of the new one",
    () =>
      Effect.gen(function*() {
        const world = yield* setUp(stores.two, { replicasPerMaster: 1 })
        const { change, cluster, members: [here, there], values } = world
        yield* quiet(world)
        const node = yield* ownerOf(cluster, 5)
        const [replica] = cluster.replicas[cluster.masters.indexOf(node)]
        yield* node.pause
        yield* cluster.promote(replica).pipe(Effect.onError(() => node.resume))
        // Until the invalidations are delivered to every shard, by the new master.
        yield* Effect.forEach(ids, (id) => change(there, id), { concurrency: "unbounded" })
        yield* Effect.timeout(
          Effect.repeat(Effect.forEach(ids, (id) => fate(there, id)), {
            until: (fates) => fates.every(({ isHit, n }, id) => isHit && n === values.get(id)),
            schedule: Schedule.spaced("50 millis")
          }),
          "30 seconds"
        ).pipe(Effect.onError(() => node.resume))
        yield* Effect.sleep(700)
        yield* node.resume
        for (let i = 0; i < 40; i++) {
          const fates = yield* Effect.forEach(ids, (id) => fate(here, id), { concurrency: "unbounded" })
          for (const id of ids) assert.strictEqual(fates[id].n, values.get(id), "an answer of the deposed master")
          yield* Effect.sleep(10)
        }
        yield* cluster.settled
        yield* quiet(world)
      }),
    120_000
  )
})
