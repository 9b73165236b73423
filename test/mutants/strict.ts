/** The guards of strict mode, but for those in the scripts: test/strict/guards.test.ts takes these away itself. */
import { by, type Mutant } from "./mutant.ts"

const strict = "src/internal/strict.ts"
const transactions = "src/internal/transactions.ts"
const reader = "src/internal/reader.ts"
const redis = "src/internal/redis/store.ts"
const ofStrict = (name: string) => by("test/strict/strict.test.ts", name)
const ofReaders = (name: string) => by("test/strict/readers.test.ts", name)
const ofShards = (name: string) => by("test/strict/shards.test.ts", name)
const ofBarrier = (name: string) => by("test/strict/barrier.test.ts", name)

const between = "a hit between a commit and its invalidation"
const dies = "a writer dies between its commit"
const lost = "fences are lost with all the rest"
const joins = "a read joins a query from before another process' write"
const numbers = "two numbers of shards at once"
const otherwise = "a process keeps the namespace otherwise"

export const strictMode: ReadonlyArray<Mutant> = [
  {
    guard: "strict: a fence is put up before the commit",
    races: [between, dies],
    file: transactions,
    find: "    if (strict === undefined) return effect\n",
    replace: "    if (strict === undefined || touched.root === touched) return effect\n",
    killedBy: ofStrict("what was committed and not yet invalidated")
  },
  {
    guard: "strict: a write that begins no transaction gets one",
    races: [between],
    file: transactions,
    find: "  isWrapped(effects: Effects): boolean {\n    return this.strict !== undefined",
    replace: "  isWrapped(effects: Effects): boolean {\n    return this.strict === null",
    killedBy: ofStrict("what was committed and not yet invalidated|a writer that dies after")
  },
  {
    guard: "strict: without its fence a write is rolled back",
    races: [between],
    file: strict,
    find: "Effect.mapError(health.guard(\"fence\", () => strict.fence(request), timeoutMillis), failed)",
    replace: "Effect.orElseSucceed(health.guard(\"fence\", () => strict.fence(request), timeoutMillis), () => [])",
    killedBy: ofStrict("a fence that cannot be put up")
  },
  {
    guard: "strict: a fence stands on everything once the schema has changed",
    races: [between, "a write waits for the lock of a statement"],
    file: transactions,
    find: "strict.generation() === generation ? touched.peek() : Dependency.allTargets",
    replace: "touched.peek()",
    killedBy: ofStrict("where the schema has changed since")
  },
  {
    guard: "strict: nothing is written behind the fence's back",
    races: [between],
    file: transactions,
    find: "root.isFenced ? refuse(\"ended\") : undefined",
    replace: "undefined",
    killedBy: ofStrict("while its transaction is being committed")
  },
  {
    guard: "strict: what may commit by itself is refused",
    races: [between],
    file: transactions,
    find: "return effects.atomic ? undefined : refuse(\"alone\")",
    replace: "return undefined",
    killedBy: ofStrict("what cannot be fenced")
  },
  {
    guard: "strict: a write on a reserved connection is refused",
    races: [between],
    file: transactions,
    find: "return this.strict !== undefined && effects._tag === \"Writes\" ? refuse(\"reserved\") : undefined",
    replace: "return this.strict === null && effects._tag === \"Writes\" ? refuse(\"reserved\") : undefined",
    killedBy: ofStrict("what cannot be fenced")
  },
  {
    guard: "strict: a write in a transaction of the client without the cache is refused",
    races: [between],
    file: transactions,
    find: "root === undefined || root.isForeign ? refuse(\"undecorated\")",
    replace: "root === undefined ? undefined",
    killedBy: ofStrict("what cannot be fenced")
  },
  {
    guard: "strict: a fence goes with the invalidation of its write",
    races: [between],
    file: transactions,
    find: "const lifting = fence === undefined ? targets : ",
    replace: "const lifting = fence !== null ? targets : ",
    killedBy: ofStrict("what was committed and not yet invalidated|a transaction is fenced once")
  },
  {
    guard: "strict: the database is asked about a fence that has expired",
    races: [dies],
    file: strict,
    find: "if (bypass.reason === \"fenced\") return expired(bypass.expired)",
    replace: "if (bypass.reason === \"fenced\") return",
    killedBy: ofStrict("a writer that dies after its commit")
  },
  {
    guard: "strict: a transaction that has committed is none that was rolled back",
    races: [dies],
    file: strict,
    find: "const verdict = status === \"aborted\" ?",
    replace: "const verdict = status !== \"in progress\" ?",
    killedBy: ofStrict("a writer that dies after its commit")
  },
  {
    guard: "strict: a commit that is under way is waited for",
    races: [dies],
    file: strict,
    find: "status === \"in progress\" ? \"running\" : \"committed\"",
    replace: "\"committed\"",
    killedBy: ofStrict("a writer that hangs in its commit")
  },
  {
    guard: "strict: a transaction of which the database knows nothing may have committed",
    races: [dies],
    file: strict,
    find: "() => Effect.succeed(null)",
    replace: "() => Effect.succeed(\"aborted\")",
    killedBy: ofStrict("the database has never heard of")
  },
  {
    guard: "strict: a barrier is passed when everything has ended that began before",
    races: [lost],
    file: strict,
    find: "          [transaction]\n        )) === true\n",
    replace: "          [transaction]\n        )) !== undefined\n",
    killedBy: ofBarrier("while a write is under way")
  },
  {
    guard: "strict: what began before somebody came is not for him",
    races: [joins],
    file: reader,
    find: "const isCurrent = store.strict === undefined || running === undefined || running.number > arrived",
    replace: "const isCurrent = arrived >= 0",
    killedBy: ofReaders("while a query is under way")
  },
  {
    guard: "strict: nor is what it has read, while that is stored",
    races: [joins, "a value is there, its fill is on its way"],
    file: reader,
    find: "          running = undefined\n",
    replace: "",
    killedBy: ofReaders("while the answer is stored")
  },
  {
    guard: "strict: an epoch's name says how it is kept",
    races: [otherwise],
    file: redis,
    find: "if (isStrictEpoch(found.epoch) === isStrict) {",
    replace: "if (found !== undefined) {",
    killedBy: ofBarrier("a bounded process over a strict")
  },
  {
    guard: "strict: what is kept otherwise is not taken over",
    races: [otherwise],
    file: "src/internal/redis/fences.ts",
    find: "if epoch and orderOf(epoch) and not string.find(epoch, \"^%d+%-strict%.\") then",
    replace: "if false then",
    killedBy: ofBarrier("a strict process over a bounded")
  },
  {
    guard: "strict: an epoch that begins is kept as the one before",
    races: [otherwise],
    file: "src/internal/redis/prelude.ts",
    find: "strict === undefined ? nameOfEpoch : \"NONCE\"",
    replace: "\"NONCE\"",
    killedBy: ofBarrier("a bounded process over a strict|whose first word is")
  },
  {
    guard: "strict: who uses few shards puts up fences in all that others use",
    races: [between, numbers],
    file: "src/internal/redis/shards.ts",
    find: "Array.from({ length: answer.shards - own }",
    replace: "Array.from({ length: 0 * answer.shards * own }",
    killedBy: ofShards("whoever uses fewer puts up fences")
  },
  {
    guard: "strict: a fence that one shard has not taken is none",
    races: [between, "a write has reached some shards only"],
    file: "src/internal/redis/shards.ts",
    find: "for (const exit of exits) answers.push(yield* exit)",
    replace: "for (const exit of exits) if (exit._tag === \"Success\") answers.push(exit.value)",
    killedBy: ofShards("a fence that one of them cannot take")
  },
  {
    guard: "strict: a shard that is cleared is behind its barrier",
    races: [lost, numbers],
    file: redis,
    find: "...Dependency.allTargets }, true)",
    replace: "...Dependency.allTargets }, false)",
    killedBy: ofShards("where it was forgotten")
  }
]
