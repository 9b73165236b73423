/** The guards of keys and scopes, and of what stands on top: cached queries, resolvers, changes, views. */
import { by, type Mutant } from "./mutant.ts"

const named = "src/internal/named.ts"
const changes = "src/internal/changes.ts"
const statement = "src/internal/statement.ts"
const scopes = "role, tenant, search_path, settings"
const mixed = "a batch of a cached resolver mixes"
const lostMessage = "a message of the backplane is lost, be it the last"
const audited = "a hit is compared with the database"
const auditor = "src/CacheAuditor.ts"
const ofAuditor = (name: string) => by("test/CacheAuditor.test.ts", name)
const ofReview = (name: string) => by("test/client/review.test.ts", name)

export const surfaces: ReadonlyArray<Mutant> = [
  {
    guard: "a scope is part of the key in this process",
    races: [scopes],
    file: "src/internal/forms.ts",
    find: "      this.lastSpace = `@${part(scope.key)}${this.unscoped}`\n",
    replace: "      this.lastSpace = this.unscoped\n",
    killedBy: by("test/client/cached.test.ts", "each tenant reads its own rows|apply: false and tenant")
  },
  {
    guard: "a scope is part of the fingerprint",
    races: [scopes],
    file: "src/Fingerprinter.ts",
    find: "part(facts.scope) + ",
    replace: "",
    killedBy: by("test/Fingerprinter.test.ts")
  },
  {
    guard: "a scope is part of what cached queries are told apart by",
    races: [scopes],
    file: "src/internal/engine.ts",
    find: "      this.lastSpace = `@${part(scope.key)}${this.unscoped}`\n",
    replace: "      this.lastSpace = this.unscoped\n",
    killedBy: by("test/CachedQueryShared.test.ts", "scopes are kept apart")
  },
  {
    guard: "a scope is applied",
    races: [scopes],
    file: statement,
    find: "query: appliedScope(scope) === \"\" ? base : transactions.withTransaction(base),",
    replace: "query: base,",
    killedBy: by("test/client/cached.test.ts", "each tenant reads its own rows")
  },
  {
    guard: "row security is cached in a scope alone",
    races: [scopes],
    file: statement,
    find: "(scope === undefined && plan.unscopedRefusal !== undefined\n",
    replace: "(scope === null && plan.unscopedRefusal !== undefined\n",
    killedBy: by("test/client/scopes.test.ts")
  },
  {
    guard: "the key is made of what is sent",
    races: ["parameters changed between asking and sending"],
    file: statement,
    find: "    if (!sends(self, run, parameters)) return undefined\n",
    replace: "",
    killedBy: ofReview("a list that changes after")
  },
  {
    guard: "what was changed before it was sent is not kept",
    races: ["parameters changed between asking and sending"],
    file: statement,
    find: "isChanged(parameters, key.local) || ",
    replace: "",
    killedBy: ofReview("a parameter that changes before")
  },
  {
    guard: "a scope is part of a batch key of Effect's",
    races: ["a batch of requests runs as its first one"],
    file: "src/CacheScope.ts",
    find: "?? batchOf(scope.key)),",
    replace: "?? batchOf(\"\")),",
    killedBy: ofReview("SqlResolver puts requests")
  },
  {
    guard: "a batch of a cached resolver is parted where it runs",
    races: [mixed],
    file: "src/CachedResolver.ts",
    find: "const lane = laneOf(entry.context, undefined)\n",
    replace: "const lane = laneOf(entries[0].context, undefined)\n",
    killedBy: by("test/CachedResolver.test.ts", "nor where")
  },
  {
    guard: "a batch of a cached resolver is parted by scope",
    races: [mixed],
    file: "src/CachedResolver.ts",
    find: "    let copy = copies.get(scope)\n    if (copy === undefined) copies.set(scope, copy =",
    replace:
      "    let copy = copies.get(scope === \"\" ? \"\" : \"any\")\n    if (copy === undefined) copies.set(scope === \"\" ? \"\" : \"any\", copy =",
    killedBy: by("test/CachedResolver.test.ts", "another scope|nor where")
  },
  {
    guard: "requests of a transaction are not answered from the cache",
    races: [mixed, "a value by key is read inside a transaction"],
    file: "src/CachedResolver.ts",
    find: "      if (lane.transaction !== undefined) {\n",
    replace: "      if (lane.transaction === null) {\n",
    killedBy: by("test/CachedResolver.test.ts", "transaction")
  },
  {
    guard: "an update forgets the key after its write",
    races: ["of two updates of one key"],
    file: named,
    find: "        Exit.isSuccess(exit)\n          ? this.forget(targets)\n",
    replace: "        Exit.isSuccess(exit)\n          ? Effect.void\n",
    killedBy: by(
      "test/CachedQuery.test.ts",
      "of several at once|nothing can be invalidated|cannot be had|writes, and stores|the older never stays|what was stored is forgotten"
    )
  },
  {
    guard: "an update that may have written is in doubt",
    races: ["of two updates of one key"],
    file: named,
    find: "          ? this.doubt(targets)\n",
    replace: "          ? Effect.void\n",
    killedBy: by(
      ["test/CachedQuery.test.ts", "test/CachedQueryTransactions.test.ts"],
      "fails|may have|doubt|leaves the cache"
    )
  },
  {
    guard: "what could not be stored is forgotten",
    races: ["of two updates of one key"],
    file: named,
    find: "({ verdict }) => verdict === \"accepted\" ? Effect.void : this.invalidate(key, [])",
    replace: "() => Effect.void",
    killedBy: by("test/CachedQuery.test.ts", "what cannot be stored")
  },
  {
    guard: "a value by key is read in a transaction by the lookup alone",
    races: ["a value by key is read inside a transaction"],
    file: named,
    find: ": this.inTransaction || this.engine.transactions.isByHand",
    replace: ": this.engine.transactions.isByHand",
    killedBy: by("test/CachedQueryTransactions.test.ts")
  },
  {
    guard: "nor is one served at once in a transaction",
    races: ["a value by key is read inside a transaction"],
    file: named,
    find: "return !this.inTransaction && this.ambient === undefined",
    replace: "return this.ambient === undefined",
    killedBy: by("test/CachedQueryTransactions.test.ts")
  },
  {
    guard: "values by key are not served while unserved",
    races: ["the store is away, slow, full, or lies"],
    file: named,
    find: "this.consulted === undefined && engine.delivery.unserved.isEmpty && policy.refreshAhead === 0",
    replace: "this.consulted === undefined && policy.refreshAhead === 0",
    killedBy: by("test/CachedQuery.test.ts", "where nothing can be invalidated|nothing is stored of what is not served")
  },
  {
    guard: "a schema is part of what entries are told apart by",
    races: ["an entry written under another schema"],
    file: "src/internal/engine.ts",
    find: "      form: `named ${this.version}`,\n",
    replace: "      form: \"named\",\n",
    killedBy: by("test/CachedQueryShared.test.ts", "an entry of another schema")
  },
  {
    guard: "every caller has rows of its own",
    races: ["one caller changes rows"],
    file: "src/internal/rows.ts",
    find: "for (let i = 0; i < rows.length; i++) out[i] = copyRow(rows[i])",
    replace: "for (let i = 0; i < rows.length; i++) out[i] = copyRow === undefined ? undefined : rows[i]",
    killedBy: by(["test/internal/rows.test.ts", "test/CachedSqlClient.test.ts"])
  },
  {
    guard: "changes of others detach before anybody is told",
    races: ["whoever is woken by a change"],
    file: changes,
    find: "      this.options.detach(targets)\n      return this.tell(targets)\n",
    replace: "      return this.tell(targets)\n",
    killedBy: by("test/changes.test.ts")
  },
  {
    guard: "so does everything that may have changed",
    races: ["whoever is woken by a change"],
    file: changes,
    find: "        this.options.detach(all)\n",
    replace: "",
    killedBy: by("test/changes.test.ts")
  },
  {
    guard: "what is consulted is noted before it is read",
    races: ["a change between listening and reading"],
    file: statement,
    find: "    if (consulted !== undefined) note(form, explicitPolicy(own) ?? defaultPolicy)\n",
    replace: "",
    killedBy: by("test/changes.test.ts")
  },
  {
    guard: "an effect listens before it first reads",
    races: ["a change between listening and reading"],
    file: "src/internal/live.ts",
    find:
      "        changed.closeUnsafe()\n        consulted = new Consulted()\n        return Effect.provideService(self, CurrentConsulted, consulted)",
    replace: "        consulted = new Consulted()\n"
      + "        return Effect.tap(Effect.provideService(self, CurrentConsulted, consulted), () => Effect.sync(() => changed.closeUnsafe()))",
    killedBy: by("test/changes.test.ts", "a change while the effect runs")
  },
  {
    guard: "a clock that skips",
    races: [lostMessage],
    file: changes,
    find: "const isBehind = this.isBehind || hasSkipped\n",
    replace: "const isBehind = this.isBehind\n",
    killedBy: by("test/changes.test.ts")
  },
  {
    guard: "what a view is found to depend on is registered, and read again",
    races: ["a view stores what a write has overtaken"],
    file: "src/internal/viewSource.ts",
    find: "      if (dependencies.stamps.every((stamp) => before.stamps.includes(stamp))) {\n",
    replace: "      if (before !== undefined) {\n",
    killedBy: by("test/MaterializedView.test.ts", "a fleet")
  },
  {
    guard: "a view reads again where anything was invalidated meanwhile",
    races: ["a view stores what a write has overtaken"],
    file: "src/internal/viewSource.ts",
    find: "if (later !== undefined && later.epoch === lease?.epoch && later.clock === lease.clock) {",
    replace: "if (later !== undefined && later.epoch === lease?.epoch) {",
    killedBy: by("test/MaterializedView.test.ts", "a fleet")
  },
  {
    guard: "an audit waits for invalidations that are under way",
    races: [audited],
    file: auditor,
    find: "      if (!(yield* this.pause)) return \"inconclusive\"\n",
    replace: "",
    killedBy: ofAuditor("an invalidation that comes late")
  },
  {
    guard: "what has gone by the time is not judged",
    races: [audited],
    file: auditor,
    find: "        if (!(yield* isServedStill)) return \"inconclusive\"\n",
    replace: "",
    killedBy: ofAuditor("an answer that has gone")
  },
  {
    guard: "what is stale is served a delay after the database said something else",
    races: [audited],
    file: auditor,
    find: "return (yield* this.pause) && (yield* isServedStill) ? \"stale\" : \"inconclusive\"",
    replace: "return \"stale\"",
    killedBy: ofAuditor("an invalidation that comes late|a clock that is set back")
  },
  {
    guard: "it is from before the hit",
    races: [audited],
    file: auditor,
    find: "kept.storedAtMillis <= takenAtMillis &&",
    replace: "kept.storedAtMillis <= Infinity &&",
    killedBy: by("test/CacheAuditor.test.ts")
  },
  {
    guard: "what is unserved is not judged",
    races: [audited],
    file: auditor,
    find: " || isUnserved(this.engine, reading.dependencies())",
    replace: "",
    killedBy: ofAuditor("an invalidation that is not delivered")
  },
  {
    guard: "what differs each time is not judged",
    races: [audited],
    file: auditor,
    find: "return again !== undefined && isSame(codec, says, again) ? \"other\" : \"inconclusive\"",
    replace: "return \"other\"",
    killedBy: ofAuditor("says differently each time")
  },
  {
    guard: "a clock that is set back is no delay",
    races: [audited],
    file: auditor,
    find: "return (yield* Clock.currentTimeMillis) >= begunAtMillis + delayMillis",
    replace: "return begunAtMillis + delayMillis > 0",
    killedBy: ofAuditor("a clock that is set back")
  }
]
