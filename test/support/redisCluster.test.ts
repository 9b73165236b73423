import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { makeCluster } from "./redisCluster.ts"

describe("a Redis Cluster", () => {
  it.live("moves slots, loses a node and has it back", () =>
    Effect.gen(function*() {
      const { masters, move, ownerOf, rootNodes, settled, slotOf } = yield* makeCluster()
      assert.strictEqual(rootNodes.length, 3)
      const slot = yield* slotOf("{a}1")
      const from = yield* ownerOf(slot)
      const to = masters.find((node) => node.id !== from.id)!
      yield* from.command("MSET", "{a}1", "one", "{a}2", "two")
      const migration = yield* move(slot, to)
      yield* migration.carry(1)
      const answers = yield* Effect.forEach(["{a}1", "{a}2"], (key) => Effect.exit(from.command("GET", key)))
      assert.strictEqual(answers.filter(Exit.isFailure).length, 1)
      yield* migration.end
      yield* settled
      assert.strictEqual((yield* ownerOf(slot)).id, to.id)
      assert.deepStrictEqual(yield* to.command("MGET", "{a}1", "{a}2"), ["one", "two"])
      yield* to.stop
      // Others go on without it, also once they have noticed.
      const elsewhere = yield* Effect.filter(
        ["b", "c", "d", "e"],
        (key) => Effect.map(Effect.flatMap(slotOf(key), ownerOf), (node) => node.id === from.id)
      )
      yield* Effect.sleep(4_000)
      assert.strictEqual(yield* from.command("SET", elsewhere[0], "1"), "OK")
      yield* to.start
      yield* settled
      assert.strictEqual(yield* to.command("GET", "{a}1"), null)
    }), 60_000)

  it.live("has replicas that take over", () =>
    Effect.gen(function*() {
      const { masters, ownerOf, promote, replicas, settled, slotOf } = yield* makeCluster({ replicasPerMaster: 1 })
      const slot = yield* slotOf("key")
      const from = yield* ownerOf(slot)
      yield* from.command("SET", "key", "value")
      assert.strictEqual(yield* from.command("WAIT", "1", "5000"), 1)
      const [replica] = replicas[masters.indexOf(from)]
      yield* from.stop
      yield* promote(replica)
      yield* settled
      assert.strictEqual((yield* ownerOf(slot)).id, replica.id)
      assert.strictEqual(yield* replica.command("GET", "key"), "value")
    }), 60_000)
})
