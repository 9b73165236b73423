/** The guards of a namespace in several shards. */
import { by, type Mutant } from "./mutant.ts"

const shardsFile = "src/internal/redis/shards.ts"
const namespace = "src/internal/redis/namespace.ts"
const coherence = "src/internal/tiered/coherence.ts"
const backplane = "src/internal/tiered/backplane.ts"
const ofShards = (name: string) => by("test/shards.test.ts", name)
const ofPrograms = (name: string) => by("test/shardsPrograms.test.ts", name)

const some = "a write has reached some shards only"
const numbers = "two numbers of shards at once"
const node = "a node of a cluster dies"

export const shards: ReadonlyArray<Mutant> = [
  {
    guard: "shards: an invalidation that one shard lacks has failed",
    races: [some],
    file: shardsFile,
    find: "for (const exit of exits) answers.push(yield* exit)",
    replace: "for (const exit of exits) if (exit._tag === \"Success\") answers.push(exit.value)",
    killedBy: ofShards("one shard that is away")
  },
  {
    guard: "shards: a write that joins what waits counts where both have arrived",
    races: [some],
    file: "src/internal/delivery.ts",
    find: "new Map([...waiting.delivered].filter(([shard]) => delivered.has(shard)))",
    replace: "new Map(waiting.delivered)",
    killedBy: ofPrograms("what one shard has taken")
  },
  {
    guard: "shards: an attempt that is late does not count for what came later",
    races: [some],
    file: "src/internal/delivery.ts",
    find: "waiting.delivered = new Map([...waiting.delivered].filter(([shard]) => delivered.has(shard)))",
    replace:
      "for (const shard of [...waiting.delivered.keys()]) if (!delivered.has(shard)) waiting.delivered.delete(shard)",
    killedBy: by("test/internal/delivery.test.ts", "what an attempt tells late")
  },
  {
    guard: "shards: who uses few writes to all that others use",
    races: [numbers],
    file: shardsFile,
    find: "Array.from({ length: answer.shards - own }",
    replace: "Array.from({ length: 0 * answer.shards * own }",
    killedBy: ofShards("who uses few writes to all")
  },
  {
    guard: "shards: what one begins to use is cleared",
    races: [numbers],
    file: shardsFile,
    find: "yield* Effect.forEach(shards.slice(ready), options.clear,",
    replace: "yield* Effect.forEach(shards.slice(shards.length), options.clear,",
    killedBy: ofShards("where the record was lost")
  },
  {
    guard: "shards: a new epoch of the first one is noticed",
    races: [numbers],
    file: namespace,
    find:
      "    if (this.index === 0 && this.namespace.opened?.epoch !== clock.epoch) this.namespace.opened = undefined\n",
    replace: "",
    killedBy: ofShards("where the record was lost|who hears nothing of the first")
  },
  {
    guard: "shards: the first one is asked when it has said nothing for a second",
    races: [numbers],
    file: shardsFile,
    find: "isRecent ? Effect.void : confirm(namespace, before)",
    replace: "isRecent ? Effect.void : Effect.void",
    killedBy: ofShards("who hears nothing of the first")
  },
  {
    guard: "shards: what was read meanwhile counts once it has answered",
    races: [numbers],
    file: shardsFile,
    find: "if (namespace.opened?.epoch === before.epoch) return answer",
    replace: "return answer",
    killedBy: ofShards("who hears nothing of the first")
  },
  {
    guard: "shards: what is recorded outlives an epoch",
    races: [numbers],
    file: "src/internal/redis/prelude.ts",
    find: "  if shards[1] then write(\"HSET\", META, \"shards\", shards[1], \"ready\", shards[2] or \"1\") end\n",
    replace: "",
    killedBy: ofShards("who uses few is told by whom uses more|what is recorded outlives")
  },
  {
    guard: "shards: each is served by its own beats",
    races: [node],
    file: coherence,
    find: "return planes.length > 1 && planeOf(key)!.isFresh(nowMillis)",
    replace: "return planes.length > 1 && planes[0].isFresh(nowMillis)",
    killedBy: ofShards("a shard whose beats stay away")
  },
  {
    guard: "shards: each hears its own messages",
    races: [node],
    file: backplane,
    find: "?.planes[message.shard]\n",
    replace: "?.planes[0]\n",
    killedBy: ofShards("two levels over three shards")
  }
]
