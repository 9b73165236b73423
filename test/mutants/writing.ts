/** The guards of the write path: when an invalidation is sent, and what happens until it has arrived. */
import { by, type Mutant } from "./mutant.ts"

const transactions = "src/internal/transactions.ts"
const delivery = "src/internal/delivery.ts"
const naming = "src/internal/naming.ts"
const statement = "src/internal/statement.ts"
const ofTransactions = (name: string) => by("test/client/transactions.test.ts", name)
const ofDelivery = (name: string) => by("test/internal/delivery.test.ts", name)
const circuit = "src/internal/circuit.ts"
const ofHealth = (name: string) => by("test/internal/storeHealth.test.ts", name)
const ofKnowing = (name: string) => by("test/client/knowing.test.ts", name)

const uncommitted = "own uncommitted rows cached"
const rolledBack = "rolled-back rows served"
const unknown = "COMMIT's outcome unknown"
const began = "a flight that began before my write"
const away = "the store is away, slow, full, or lies"
const waited = "a write waits for the lock of a statement"

export const writing: ReadonlyArray<Mutant> = [
  {
    guard: "what a transaction writes is invalidated after its commit",
    races: ["invalidated before commit"],
    file: transactions,
    find: "    if (!this.isInBase(fiber)) return undefined\n",
    replace: "    if (fiber !== undefined) return undefined\n",
    killedBy: ofTransactions("commit: invalidated after it")
  },
  {
    guard: "what is rolled back invalidates nothing",
    races: ["invalidated before commit"],
    file: transactions,
    find: "if (ended && !Outcome.refused(exit.cause)) {",
    replace: "if (!Outcome.refused(exit.cause)) {",
    killedBy: ofTransactions("an interrupted transaction is rolled back")
  },
  {
    guard: "statements in a transaction ask the database",
    races: [uncommitted, rolledBack],
    file: statement,
    find: ": inTransaction || transactions.isByHand",
    replace: ": transactions.isByHand",
    killedBy: ofTransactions("rollback: what was read inside")
  },
  {
    guard: "nothing is served while a transaction may be under way on the pool",
    races: [uncommitted],
    file: statement,
    find: ": inTransaction || transactions.isByHand",
    replace: ": inTransaction",
    killedBy: ofTransactions("on the pool: nothing uncommitted")
  },
  {
    guard: "until what a transaction by hand has written is delivered, it is under way",
    races: [uncommitted],
    file: transactions,
    find:
      "              this.settle(exit, { targets: touched.take(), atomic: false }, wire, { _tag: \"Commit\" }),\n              end\n",
    replace:
      "              end,\n              this.settle(exit, { targets: touched.take(), atomic: false }, wire, { _tag: \"Commit\" })\n",
    killedBy: ofTransactions("on the pool: a read that was under way")
  },
  {
    guard: "a transaction that is open when its connection is given back is rolled back",
    races: [uncommitted, rolledBack],
    file: "src/internal/reserved.ts",
    find: "Effect.matchCauseEffect(connection.executeUnprepared(\"ROLLBACK\", [], undefined), {",
    replace: "Effect.matchCauseEffect(Effect.void, {",
    killedBy: ofTransactions("on a reserved connection, unfinished")
  },
  {
    guard: "a savepoint that is rolled back takes its share along",
    races: [rolledBack],
    file: transactions,
    find: "(Exit.isSuccess(exit) || touched.root.isEnded) && !touched.isEmpty",
    replace: "!touched.isEmpty",
    killedBy: ofTransactions("a savepoint that is rolled back|a statement interrupted inside a savepoint")
  },
  {
    guard: "a write is collected before it runs",
    races: [unknown],
    file: transactions,
    find: "          return touched.begin(targets)\n",
    replace: "          return (known: Dependency.Targets) => touched.add(known)\n",
    killedBy: ofTransactions("a statement interrupted inside a transaction")
  },
  {
    guard: "a COMMIT whose outcome is unknown counts as done and as not done",
    races: [unknown],
    file: transactions,
    find: "if (ended && !Outcome.refused(exit.cause)) {",
    replace: "if (false) {",
    killedBy: ofTransactions("COMMIT takes effect, and its answer is lost")
  },
  {
    guard: "an unknown outcome is quarantined, not invalidated at once",
    races: [unknown],
    file: transactions,
    find: "if (wire.isOpen) return this.delivery.deliver(targets)",
    replace: "if (true) return this.delivery.deliver(targets)",
    killedBy: ofTransactions("takes effect after the client has given up")
  },
  {
    guard: "after a COMMIT by hand a failure takes nothing back",
    races: [unknown],
    file: transactions,
    find: "      touched.root.isEnded = true\n",
    replace: "",
    killedBy: by("test/client/review.test.ts", "COMMIT and ROLLBACK by hand")
  },
  {
    guard: "a lost connection is no refusal",
    races: [unknown],
    file: "src/internal/outcome.ts",
    find: "  if (_tag === \"ConnectionError\") return false\n",
    replace: "",
    killedBy: by("test/internal/outcome.test.ts")
  },
  {
    guard: "no SQLSTATE that leaves the outcome open is a refusal",
    races: [unknown],
    file: "src/internal/outcome.ts",
    find: " && code !== \"40003\" && !/^(?:08|57P|58|XX)/.test(code)",
    replace: "",
    killedBy: by("test/internal/outcome.test.ts")
  },
  {
    guard: "flights are detached before the store is asked",
    races: [began],
    file: delivery,
    find: "      flights.detach(targets)\n      // A store",
    replace: "      // A store",
    killedBy: ofDelivery("race 16")
  },
  {
    guard: "flights are detached when the store has answered",
    races: [began],
    file: delivery,
    find: "        flights.detach(targets)\n        return options.announce",
    replace: "        return options.announce",
    killedBy: ofDelivery("race 16")
  },
  {
    guard: "flights are detached when the queue delivers",
    races: [began],
    file: delivery,
    find: "      flights.detach(group.targets)\n",
    replace: "",
    killedBy: ofDelivery("detaches once more when it delivers")
  },
  {
    guard: "a write of one client detaches the flights of all clients of its store",
    races: ["a flight of one client answers a reader of another"],
    file: "src/CachedSqlClient.ts",
    find: "          for (const { flights } of peers) flights.detach(targets)\n",
    replace: "          flights.detach(targets)\n",
    killedBy: by("test/client/review.test.ts", "two decorations of one client")
  },
  {
    guard: "a store is given up after its time",
    races: [away],
    file: "src/internal/storeHealth.ts",
    find: "watched(operation, bounded(operation, effect, timeoutMillis))",
    replace: "watched(operation, Effect.suspend(effect))",
    killedBy: by("test/client/faults.test.ts", "hang")
  },
  {
    guard: "a store that cannot be interrupted is not waited for",
    races: [away],
    file: "src/internal/storeHealth.ts",
    find: "Effect.timeoutOrElse(apart(Effect.suspend(effect)), {",
    replace: "Effect.timeoutOrElse(Effect.suspend(effect), {",
    killedBy: by("test/client/faults.test.ts", "at lookup")
  },
  {
    guard: "a store that dies is one that fails",
    races: [away],
    file: "src/internal/storeHealth.ts",
    find: "      Effect.catchCause((cause) => Effect.fail(errorOf(operation, cause))),\n",
    replace: "",
    killedBy: by("test/client/faults.test.ts", "at lookup|at store|at invalidate")
  },
  {
    guard: "a store that goes on failing is spared",
    races: [away],
    file: circuit,
    find: "      if (nowMillis < this.untilMillis) return undefined\n",
    replace: "",
    killedBy: ofHealth("costs five time-outs")
  },
  {
    guard: "one call at a time sees whether it is back",
    races: [away],
    file: circuit,
    find: "      this.untilMillis = nowMillis + openMillis\n    }\n    return",
    replace: "    }\n    return",
    killedBy: ofHealth("costs five time-outs|is found again by one call")
  },
  {
    guard: "a store that stumbles once is not spared",
    races: [away],
    file: circuit,
    find: "    if (admitted !== this.failures) return\n",
    replace: "",
    killedBy: ofHealth("stumbles once")
  },
  {
    guard: "a call that succeeds begins the count anew",
    races: [away],
    file: circuit,
    find: "    this.failures = 0\n",
    replace: "    if (this.isOpen) this.failures = 0\n",
    killedBy: ofHealth("one call in between")
  },
  {
    guard: "what must be sent is sent, whoever else is spared",
    races: [away],
    file: "src/internal/storeHealth.ts",
    find: "must ? circuit.force() : circuit.admit(clock.currentTimeMillisUnsafe())",
    replace: "circuit.admit(clock.currentTimeMillisUnsafe())",
    killedBy: ofHealth("what must be sent is")
  },
  {
    guard: "no write waits for a store that is known to be away",
    races: [away],
    file: delivery,
    find: "health.isOpen(\"invalidate\") ? Effect.succeed(undefined) : ",
    replace: "health === undefined ? Effect.succeed(undefined) : ",
    killedBy: by("test/client/faults.test.ts", "one that is away for long")
  },
  {
    guard: "what could not be delivered is queued",
    races: [away],
    file: delivery,
    find: "        else enqueue(targets, delivered)\n",
    replace: "",
    killedBy: ofDelivery("the queue")
  },
  {
    guard: "what is queued is not served",
    races: [away],
    file: delivery,
    find: "    unserved.add(group.targets)\n",
    replace: "",
    killedBy: ofDelivery("queue|queued")
  },
  {
    guard: "what is under way stands for no later write",
    races: [away],
    file: delivery,
    find: "group !== sending && ",
    replace: "",
    killedBy: ofDelivery("delivers a second time")
  },
  {
    guard: "a queue that is full stands for everything",
    races: [away],
    file: delivery,
    find: ": { name: everything, targets: { ...Dependency.allTargets }, delivered: new Map() }",
    replace: ": { name, targets: { ...targets }, delivered }",
    killedBy: ofDelivery("is bounded: too many different things")
  },
  {
    guard: "statements do not serve what is unserved",
    races: [away, unknown],
    file: statement,
    find:
      ": !engine.delivery.unserved.isEmpty && isUnserved(engine, plan.dependenciesOf(located))\n          ? \"unserved\"",
    replace: ": located === undefined\n          ? \"unserved\"",
    killedBy: by("test/client/faults.test.ts", "at invalidate")
  },
  {
    guard: "an own change of the schema is known at once",
    races: ["a statement changes the schema while others go by the old one"],
    file: naming,
    find: "        if (targets.all) source.changed(targets.schema === true)\n",
    replace: "        if (targets.all) source.changed(false)\n",
    killedBy: ofKnowing("at once after a statement")
  },
  {
    guard: "definitions are part of the key",
    races: ["a statement changes the schema while others go by the old one"],
    file: "src/internal/forms.ts",
    find:
      "schemaVersion: this.form.schema === \"\" ? facts.schemaVersion : part(this.form.schema) + facts.schemaVersion,",
    replace: "",
    killedBy: ofKnowing("a changed view is another query")
  },
  {
    guard: "a statement on the pool that outlasts a change of the schema may have written anything",
    races: [waited],
    file: statement,
    find: ": naming.watched(transactions.write(fiber, base, writingOf(effects, sentBy(self, run)), wire))",
    replace: ": transactions.write(fiber, base, writingOf(effects, sentBy(self, run)), wire)",
    killedBy: ofKnowing("a write that waits")
  },
  {
    guard: "so may a transaction",
    races: [waited],
    file: "src/CachedSqlClient.ts",
    find: "ready(naming.watched(transactions.withTransaction(effect)))",
    replace: "ready(transactions.withTransaction(effect))",
    killedBy: ofKnowing("a write that waits")
  },
  {
    guard: "so may a statement on a reserved connection",
    races: [waited],
    file: "src/internal/reserved.ts",
    find: "Effect.andThen(transactions.settle(exit, writing, wire, { _tag: \"Statement\" }), overtaken)",
    replace: "transactions.settle(exit, writing, wire, { _tag: \"Statement\" })",
    killedBy: ofKnowing("a write that waits")
  },
  {
    guard: "so may a transaction that was begun by hand on one",
    races: [waited],
    file: "src/internal/reserved.ts",
    find: "wire, { _tag: \"Commit\" }),\n                ended\n",
    replace: "wire, { _tag: \"Commit\" }),\n                Effect.void\n",
    killedBy: ofKnowing("a write that waits")
  },
  {
    guard: "settings that stay on the pool end what is served",
    races: ["a setting is left behind on the pool"],
    file: statement,
    find:
      "return changes === undefined ? performed : Effect.andThen(transactions.leave(fiber, changes, naming), performed)",
    replace: "return performed",
    killedBy: by("test/client/sessions.test.ts")
  },
  {
    guard: "settings that stay on a reserved connection end what is served",
    races: ["a setting is left behind on the pool"],
    file: "src/internal/reserved.ts",
    find: ": naming.leave({ settings: [...settings.values()], temporary: [] })",
    replace: ": Effect.void",
    killedBy: by("test/client/sessions.test.ts", "on a reserved connection")
  },
  {
    guard: "a parameter that was changed before it was sent says nothing of the rows",
    races: ["a parameter changed between looking at it"],
    file: "src/internal/effects.ts",
    find: "answered: (answer) => key !== undefined && localKey(parameters) === key ? narrowed(answer) : targets",
    replace: "answered: (answer) => key !== undefined ? narrowed(answer) : targets",
    killedBy: by("test/client/rows.test.ts")
  },
  {
    guard: "a parameter that can be changed says nothing until the write has answered",
    races: ["a parameter changed between looking at it"],
    file: "src/internal/effects.ts",
    find: "if (parameters.every(isFixedValue)) return {",
    replace: "if (isFixedValue(1)) return {",
    killedBy: by("test/client/rows.test.ts")
  }
]
