/** The guards of writes whose outcome is unknown: what is not served, and until when. */
import { by, type Mutant } from "./mutant.ts"

const doubt = "src/internal/doubt/doubt.ts"
const quarantine = "src/internal/doubt/quarantine.ts"
const wire = "src/internal/doubt/wire.ts"
const transactions = "src/internal/transactions.ts"
const ofDoubt = (name: string) => by("test/internal/doubt.test.ts", name)
const ofDelivery = (name: string) => by("test/internal/delivery.test.ts", name)
const ofSettling = (name: string) => by("test/client/settling.test.ts", name)

const unknown = "COMMIT's outcome unknown"
const rests = "a backend rests and gets the lost statement"
const foreign = "the connection of a transaction that the base client began"

export const doubts: ReadonlyArray<Mutant> = [
  // -- what is in doubt
  {
    guard: "what is in doubt is not served",
    races: [unknown],
    file: quarantine,
    find: "    unserved.add(group.targets)\n",
    replace: "",
    killedBy: ofDelivery("is unserved for 30 seconds")
  },
  {
    guard: "what is in doubt is invalidated at once",
    races: [unknown],
    file: quarantine,
    find: "Effect.andThen(isFirst ? begun : Effect.void, deliver(targets))",
    replace: "isFirst ? begun : Effect.void",
    killedBy: ofDelivery("is unserved for 30 seconds")
  },
  {
    guard: "what is in doubt is invalidated at the end",
    races: [unknown],
    file: quarantine,
    find: "          deliver(group.targets),\n",
    replace: "          Effect.void,\n",
    killedBy: ofDelivery("is unserved for 30 seconds")
  },
  {
    guard: "each write in doubt puts off the end",
    races: [unknown],
    file: quarantine,
    find: "      watches.add({",
    replace: "      if (watches.size === 0) watches.add({",
    killedBy: ofDelivery("begins anew with each write")
  },
  {
    guard: "so does one that comes while the end is delivered",
    races: [unknown],
    file: quarantine,
    find: "            if (group.watches.size > 0) return\n",
    replace: "",
    killedBy: ofDelivery("begins anew even while")
  },
  {
    guard: "too many doubts are one about everything",
    races: [unknown],
    file: quarantine,
    find: "return groupOf(everything, Dependency.allTargets)",
    replace: "return { name, targets: { ...targets }, watches: new Set() }",
    killedBy: ofDelivery("too many different doubts")
  },
  {
    guard: "too many writes of one doubt are one that may be anywhere",
    races: [unknown],
    file: quarantine,
    find: "watch(isCrowded ? { _tag: \"Anything\" } : doubt, now)",
    replace: "watch(doubt, now)",
    killedBy: ofDoubt("is bounded: by tables, and by writes of one")
  },
  {
    guard: "what was asked before a doubt does not end it",
    races: [unknown],
    file: quarantine,
    find:
      "    const asked = [...groups.values()].map((group) => [group, [...group.watches]] as const)\n    const exit = ask === undefined ? undefined : yield* ask\n",
    replace:
      "    const exit = ask === undefined ? undefined : yield* ask\n    const asked = [...groups.values()].map((group) => [group, [...group.watches]] as const)\n",
    killedBy: ofDoubt("of a time before a doubt")
  },
  {
    guard: "a database that cannot be asked ends no doubt",
    races: [unknown],
    file: quarantine,
    find: "      watch.miss(now)\n      return false\n",
    replace: "      watch.miss(now)\n      return true\n",
    killedBy: ofDoubt("for ever, while it is away")
  },
  {
    guard: "what was written is in doubt while its connection is not known to work",
    races: [unknown],
    file: wire,
    find: "return inside?.deadError !== undefined && inside.deadError() === undefined",
    replace: "return inside?.deadError !== undefined",
    killedBy: by("test/client/transactions.test.ts", "takes effect after the client has given up")
  },
  {
    guard: "statements of others may be on their way on the same connection",
    races: [unknown],
    file: wire,
    find: "    if (this.isShared) return false\n",
    replace: "",
    killedBy: ofSettling("interrupted among others")
  },
  {
    guard: "a transaction of the base client is in doubt when its connection is lost",
    races: [foreign],
    file: transactions,
    find: "    if (known !== undefined) return void known.push(targets)\n",
    replace: "    if (known !== null) return\n",
    killedBy: ofSettling("in a transaction of the base client")
  },
  {
    guard: "so is all that it has written",
    races: [foreign],
    file: transactions,
    find: "    if (known !== undefined) return void known.push(targets)\n",
    replace: "    if (known !== undefined) return\n",
    killedBy: ofSettling("in a transaction of the base client")
  },

  // -- when it has ended: a COMMIT
  {
    guard: "a transaction that runs has not ended",
    races: [unknown],
    file: doubt,
    find: "(xid < xmax && !running.has(xid))",
    replace: "xid < xmax",
    killedBy: ofDoubt("of a known transaction")
  },
  {
    guard: "nor has one that had no number yet when it was asked",
    races: [unknown],
    file: doubt,
    find: "(xid < xmax && !running.has(xid))",
    replace: "!running.has(xid)",
    killedBy: ofDoubt("of a known transaction")
  },
  {
    guard: "a backend that has written may commit still",
    races: [unknown],
    file: doubt,
    find: "if (backend === undefined || backend.hasWritten === false) return true",
    replace: "if (backend !== null) return true",
    killedBy: ofDoubt("by its backend")
  },
  {
    guard: "a backend that does not say whether it has written may have",
    races: [unknown],
    file: doubt,
    find: "if (backend === undefined || backend.hasWritten === false) return true",
    replace: "if (backend === undefined || backend.hasWritten !== true) return true",
    killedBy: ofDoubt("a COMMIT")
  },
  {
    guard: "behind a pooler a COMMIT has no backend",
    races: [unknown],
    file: doubt,
    find: "      if (pid !== undefined && seen.isDirect) {\n",
    replace: "      if (pid !== undefined) {\n",
    killedBy: ofDoubt("behind a pooler")
  },
  {
    guard: "all have to end that wrote before it was asked first",
    races: [unknown],
    file: doubt,
    find: "if (until !== undefined && seen.xmin >= until) return true",
    replace: "if (until !== undefined) return true",
    killedBy: ofDoubt("behind a pooler|where each tells")
  },
  {
    guard: "who does not say whether he has written is not left out",
    races: [unknown],
    file: doubt,
    find: "          writing = undefined\n          return false\n",
    replace: "          continue\n",
    killedBy: ofDoubt("where each tells")
  },
  {
    guard: "what is prepared may be committed still",
    races: [unknown],
    file: doubt,
    find: "return writing.size === 0 && ![...prepared].some((one) => seen.prepared.has(one))",
    replace: "return writing.size === 0",
    killedBy: ofDoubt("where each tells|behind a pooler")
  },
  {
    guard: "on another server a COMMIT is in doubt anew",
    races: [unknown],
    file: doubt,
    find: "if (server !== undefined && server !== seen.server) {",
    replace: "if (false) {",
    killedBy: ofDoubt("on another server all")
  },
  {
    guard: "what may be one or the other has ended when both have",
    races: [unknown],
    file: doubt,
    find: "return statement.look(seen) && hasCommitEnded",
    replace: "return statement.look(seen)",
    killedBy: ofDoubt("both")
  },

  // -- when it has ended: a statement
  {
    guard: "a backend that rests may get what was lost",
    races: [rests],
    file: doubt,
    find: "return backend.isBusy === false && (wasBusy || seen.atMillis - lostMillis >= forgottenMillis)",
    replace: "return backend.isBusy === false",
    killedBy: ofDoubt("rests after it was at work|goes on resting")
  },
  {
    guard: "a backend that is at work may be at it",
    races: [rests],
    file: doubt,
    find: "return backend.isBusy === false && (wasBusy ||",
    replace: "return (wasBusy ||",
    killedBy: ofDoubt("rests after it was at work")
  },
  {
    guard: "the number of a process that is gone may be another's",
    races: [rests],
    file: doubt,
    find: " || (started !== undefined && backend.started !== started)",
    replace: "",
    killedBy: ofDoubt("the number of a process")
  },
  {
    guard: "behind a pooler a statement has no backend",
    races: [unknown],
    file: doubt,
    find: "if (pid !== undefined && seen.isDirect && !isPipelined) {",
    replace: "if (pid !== undefined && !isPipelined) {",
    killedBy: ofDoubt("a statement elsewhere|half a minute, then")
  },
  {
    guard: "among others on its connection a statement may come after the next one",
    races: [unknown],
    file: doubt,
    find: "if (pid !== undefined && seen.isDirect && !isPipelined) {",
    replace: "if (pid !== undefined && seen.isDirect) {",
    killedBy: ofDoubt("among others on its connection")
  },
  {
    guard: "elsewhere a statement has half a minute to arrive",
    races: [unknown],
    file: doubt,
    find: "      if (seen.atMillis < endMillis) return false\n",
    replace: "",
    killedBy: ofDoubt("half a minute, then")
  },
  {
    guard: "what is at work after that is waited for",
    races: [unknown],
    file: doubt,
    find: "return working.size === 0 && (until === undefined || seen.xmin >= until)",
    replace: "return until === undefined || seen.xmin >= until",
    killedBy: ofDoubt("half a minute, then")
  },
  {
    guard: "so is what does not say whether it is",
    races: [unknown],
    file: doubt,
    find: "          if (isBusy === undefined) until = seen.xid\n",
    replace: "",
    killedBy: ofDoubt("where it is not told who is at work")
  },
  {
    guard: "what kept the database from being asked may have kept the statement",
    races: [unknown],
    file: doubt,
    find: "    miss: again,\n",
    replace: "    miss: () => {},\n",
    killedBy: ofDoubt("may have kept the statement")
  },
  {
    guard: "on another server a statement is in doubt anew",
    races: [unknown],
    file: doubt,
    find: "      if (isMoved) {\n",
    replace: "      if (false) {\n",
    killedBy: ofDoubt("of another server")
  },
  {
    guard: "who tells nothing is not taken for one who rests",
    races: [unknown],
    file: "src/internal/doubt/observe.ts",
    find: "isBusy: backend.state === null\n        ? undefined",
    replace: "isBusy: backend.state === null\n        ? false",
    killedBy: ofDoubt("who tells nothing")
  }
]
