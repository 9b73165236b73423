/** When a write in doubt has ended, by what a database tells of its transactions and backends. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import { ConnectionError, SqlError, UnknownError } from "effect/sql/SqlError"
import * as TestClock from "effect/testing/TestClock"
import * as Dependency from "../../src/Dependency.ts"
import { type Doubt, watch as watchDoubt } from "../../src/internal/doubt/doubt.ts"
import { type Backend, decode, type Observation } from "../../src/internal/doubt/observe.ts"
import * as Quarantine from "../../src/internal/doubt/quarantine.ts"
import { Tally } from "../../src/internal/tally.ts"
import { Unserved } from "../../src/internal/unserved.ts"
import * as Logs from "../support/logs.ts"

const backend = (pid: number, fields: Partial<Backend> = {}): Backend => ({
  pid,
  started: "early",
  isBusy: false,
  hasWritten: false,
  beganMillis: undefined,
  transaction: "t1",
  statement: "s1",
  ...fields
})

const busy = (pid: number, fields: Partial<Backend> = {}): Backend =>
  backend(pid, { isBusy: true, beganMillis: 1000, ...fields })

/** What is told by a server whose clock is the same, and on which nothing happens. */
const seen = (atMillis: number, fields: Partial<Observation> = {}): Observation => ({
  server: "one",
  isDirect: true,
  serverMillis: atMillis,
  atMillis,
  xid: 100n,
  xmin: 100n,
  xmax: 100n,
  running: new Set(),
  backends: [],
  prepared: new Set(),
  ...fields
})

/** Tells of each observation whether the write has ended by then. A number: the database could not be asked. */
const ended = (doubt: Doubt, lostMillis: number, ...observations: ReadonlyArray<Observation | number>) => {
  const watch = watchDoubt(doubt, lostMillis)
  return observations.map((one) => typeof one === "number" ? watch.miss(one) : watch.look(one))
}

describe("a COMMIT", () => {
  it("of a known transaction: as pg_visible_in_snapshot says", () => {
    const at = (xmin: bigint, xmax: bigint, ...running: ReadonlyArray<bigint>) =>
      seen(0, { xmin, xmax, running: new Set(running) })
    assert.deepStrictEqual(
      ended({ _tag: "Commit", xid: 7n }, 0, at(7n, 7n), at(7n, 9n, 7n), at(5n, 9n, 5n, 7n)),
      [false, false, false]
    )
    assert.deepStrictEqual(ended({ _tag: "Commit", xid: 7n }, 0, at(5n, 9n, 5n), at(8n, 8n)), [true, true])
    // The process says nothing that the number does not say better.
    assert.deepStrictEqual(ended({ _tag: "Commit", xid: 7n, pid: 1 }, 0, at(7n, 9n, 7n)), [false])
  })

  it("by its backend: until it is gone, or has no transaction that wrote", () => {
    const at = (...backends: ReadonlyArray<Backend>) => seen(0, { backends, xmin: 1n })
    const commit: Doubt = { _tag: "Commit", pid: 1 }
    const writing = backend(1, { hasWritten: true })
    assert.deepStrictEqual(ended(commit, 0, at(writing), at(writing, backend(2)), at(backend(2))), [false, false, true])
    assert.deepStrictEqual(ended(commit, 0, at(writing), at(backend(1))), [false, true])
    assert.deepStrictEqual(ended(commit, 0, at(backend(1, { hasWritten: undefined }))), [false])
  })

  it("behind a pooler: until all have ended that wrote before it was asked first", () => {
    const shy = [backend(2, { hasWritten: undefined })]
    const at = (xid: bigint, xmin: bigint) => seen(0, { isDirect: false, xid, xmin, backends: shy })
    assert.deepStrictEqual(
      ended({ _tag: "Commit", pid: 1 }, 0, at(50n, 50n), at(51n, 49n), at(52n, 49n), at(53n, 50n)),
      [false, false, false, true]
    )
  })

  it("or all of the same user, where each tells", () => {
    const at = (backends: ReadonlyArray<Backend>, ...prepared: ReadonlyArray<string>) =>
      seen(0, { isDirect: false, xid: 50n, xmin: 1n, backends, prepared: new Set(prepared) })
    const writes = (pid: number, fields: Partial<Backend> = {}) => backend(pid, { hasWritten: true, ...fields })
    assert.deepStrictEqual(ended({ _tag: "Commit" }, 0, at([backend(1), busy(2)])), [true])
    assert.deepStrictEqual(
      ended(
        { _tag: "Commit" },
        0,
        at([writes(1), writes(2), writes(3)], "one"),
        // Who comes later has nothing to do with it.
        at([writes(2), writes(3, { transaction: "t2" }), writes(4)], "one", "two"),
        at([writes(2, { started: "late" })], "one", "two"),
        at([writes(2)], "two")
      ),
      [false, false, false, true]
    )
    // One that does not tell may have written since.
    assert.deepStrictEqual(
      ended({ _tag: "Commit" }, 0, at([writes(1)]), at([backend(1, { hasWritten: undefined })]), at([writes(1)])),
      [false, false, false]
    )
  })

  it("on another server all begins anew", () => {
    const shy = [backend(2, { hasWritten: undefined })]
    const at = (server: string, xid: bigint, xmin: bigint) =>
      seen(0, { server, xid, xmin, isDirect: false, backends: shy })
    assert.deepStrictEqual(
      ended({ _tag: "Commit" }, 0, at("one", 50n, 50n), at("two", 60n, 60n), at("two", 61n, 60n)),
      [false, false, true]
    )
    // Balanced over two, nobody knows which was meant.
    const flips = Array.from({ length: 9 }, (_, i) => at(`${i % 2}`, 50n, 50n))
    assert.notInclude(ended({ _tag: "Commit" }, 0, ...flips), true)
  })
})

describe("a statement on a connection that ends at a backend", () => {
  const statement: Doubt = { _tag: "Statement", pid: 1 }
  const at = (millis: number, ...backends: ReadonlyArray<Backend>) => seen(millis, { backends })

  it("until that backend is gone, whatever others do", () => {
    assert.deepStrictEqual(
      ended(statement, 0, at(0, backend(1), busy(2)), at(60_000, backend(1), busy(2)), at(60_001, busy(2))),
      [false, false, true]
    )
  })

  it("or rests after it was at work", () => {
    assert.deepStrictEqual(
      ended(statement, 0, at(0, backend(1)), at(9, busy(1)), at(700_000, busy(1)), at(700_001, backend(1))),
      [false, false, false, true]
    )
  })

  it("the number of a process that is gone may be another's", () => {
    assert.deepStrictEqual(
      ended(statement, 0, at(0, busy(1)), at(9, busy(1, { started: "late" }))),
      [false, true]
    )
  })

  it("one that goes on resting is forgotten after ten minutes", () => {
    assert.deepStrictEqual(
      ended(statement, 5, at(10, backend(1)), at(600_004, backend(1)), at(600_005, backend(1))),
      [false, false, true]
    )
  })

  it("of another server nothing is known of it: half a minute from then", () => {
    assert.deepStrictEqual(
      ended(
        statement,
        0,
        at(0, backend(1)),
        { ...at(40_000), server: "two" },
        { ...at(69_999), server: "two" },
        { ...at(70_000), server: "two" }
      ),
      [false, false, false, true]
    )
  })
})

describe("a statement elsewhere", () => {
  const statement: Doubt = { _tag: "Statement", pid: 1, sinceMillis: 1000 }
  const at = (millis: number, ...backends: ReadonlyArray<Backend>) => seen(millis, { isDirect: false, backends })

  it("half a minute, then as long as anybody does what was being done then", () => {
    const then = busy(2, { beganMillis: 1000, transaction: "t", statement: "s" })
    assert.deepStrictEqual(
      ended(
        statement,
        1000,
        at(30_999),
        at(31_000, then, busy(3)),
        at(31_100, then, backend(3)),
        // Who comes later has nothing to do with it.
        at(31_200, then, busy(4)),
        // Bind, after Parse has waited.
        at(31_300, { ...then, statement: "s2" }),
        // In a procedure that has committed.
        at(31_400, { ...then, transaction: "t2" }),
        at(31_500, { ...then, transaction: "t2", statement: "s2" })
      ),
      [false, false, false, false, false, false, true]
    )
    assert.deepStrictEqual(ended(statement, 1000, at(31_000, backend(2))), [true])
    assert.deepStrictEqual(ended(statement, 1000, at(31_000, then), at(31_001, backend(2))), [false, true])
    assert.deepStrictEqual(ended(statement, 1000, at(31_000, then), at(31_001)), [false, true])
    assert.deepStrictEqual(
      ended(statement, 1000, at(31_000, then), at(31_001, { ...then, started: "late" })),
      [false, true]
    )
  })

  it("among others on its connection: what its backend has done may have been theirs", () => {
    const rests = (millis: number) => seen(millis, { backends: [backend(1)] })
    assert.deepStrictEqual(
      ended(
        { ...statement, isPipelined: true },
        1000,
        seen(1100, { backends: [busy(1)] }),
        rests(1200),
        rests(30_999),
        rests(31_000)
      ),
      [false, false, false, true]
    )
  })

  it("what began before it was sent is something else, by the server's clock", () => {
    const ahead = (millis: number, ...backends: ReadonlyArray<Backend>) => ({
      ...at(millis, ...backends),
      serverMillis: millis + 5_000_000
    })
    // Sent at 5,001,000 of that clock, or a second earlier if clocks do not go at the same speed.
    assert.deepStrictEqual(ended(statement, 1000, ahead(31_000, busy(2, { beganMillis: 4_999_999 }))), [true])
    assert.deepStrictEqual(ended(statement, 1000, ahead(31_000, busy(2, { beganMillis: 5_000_000 }))), [false])
    // Unless it comes after that on the same connection.
    const pipelined: Doubt = { ...statement, isPipelined: true }
    assert.deepStrictEqual(ended(pipelined, 1000, ahead(31_000, busy(2, { beganMillis: 0 }))), [false])
    assert.deepStrictEqual(
      ended(pipelined, 1000, at(31_000, busy(2)), at(31_001, busy(2, { transaction: "t2", statement: "s2" }))),
      [false, false]
    )
  })

  it("what kept the database from being asked may have kept the statement: half a minute from then", () => {
    assert.deepStrictEqual(
      ended(statement, 0, at(29_000), 29_500, at(59_499), at(59_500)),
      [false, undefined, false, true]
    )
  })

  it("where it is not told who is at work, all have to end that wrote by then", () => {
    const at = (millis: number, xid: bigint, xmin: bigint) =>
      seen(millis, { isDirect: false, backends: [backend(2, { isBusy: undefined })], xid, xmin })
    assert.deepStrictEqual(
      ended(statement, 0, at(30_000, 70n, 60n), at(31_000, 80n, 69n), at(32_000, 81n, 70n)),
      [false, false, true]
    )
  })
})

it("whatever it may have been: both", () => {
  const at = (millis: number, xmin: bigint, ...backends: ReadonlyArray<Backend>) =>
    seen(millis, { isDirect: false, xid: 50n, xmin, backends: [...backends, backend(1, { hasWritten: true })] })
  assert.deepStrictEqual(
    ended({ _tag: "Anything" }, 0, at(0, 40n), at(30_000, 49n), at(30_001, 50n)),
    [false, false, true]
  )
  assert.deepStrictEqual(
    ended({ _tag: "Anything" }, 0, at(0, 40n), at(30_000, 50n, busy(2)), at(30_001, 50n)),
    [false, false, true]
  )
})

it("what PostgreSQL answers is read: who tells nothing is not taken for one who rests", () => {
  const one = { pid: 1, started: "s", xid: null, began: null, transaction: null, statement: null }
  const { backends, ...rest } = decode(
    {
      server: "one",
      pid: 9,
      millis: 5.5,
      xid: "12884901890",
      snapshot: "12884901888:12884901889:12884901888",
      backends: [
        { ...one, state: "idle" },
        { ...one, state: "active", xid: "5", began: 3.25 },
        { ...one, state: "idle in transaction (aborted)" },
        { ...one, state: "disabled" },
        { ...one, state: null, started: null },
        { ...one, state: "something new" }
      ],
      prepared: ["now one"]
    },
    9,
    7
  )
  assert.deepStrictEqual(rest, {
    server: "one",
    isDirect: true,
    serverMillis: 5.5,
    atMillis: 7,
    xid: 12884901890n,
    xmin: 12884901888n,
    xmax: 12884901889n,
    running: new Set([12884901888n]),
    prepared: new Set(["now one"])
  })
  assert.deepStrictEqual(backends.map(({ isBusy }) => isBusy), [false, true, false, undefined, undefined, undefined])
  assert.deepStrictEqual(backends.map(({ hasWritten }) => hasWritten), [false, true, false, false, undefined, false])
  assert.strictEqual(backends[1]!.beganMillis, 3.25)
  assert.isEmpty(
    decode({ server: "", pid: 1, millis: 0, xid: "3", snapshot: "3:3:", backends: [], prepared: [] }, undefined, 0)
      .running
  )
})

// -----------------------------------------------------------------------------
// when it is asked
// -----------------------------------------------------------------------------

const orders = Dependency.makeSet([Dependency.table("orders")])
const users = Dependency.makeSet([Dependency.table("users")])
const wrote = (table: string) => Dependency.writeTargets([Dependency.table(table)])
const commit: Doubt = { _tag: "Commit" }

const away = new SqlError({
  reason: new ConnectionError({ cause: new Error("refused"), message: "away", operation: "connect" })
})
const denied = new SqlError({
  reason: new UnknownError({
    cause: Object.assign(new Error("denied"), { code: "42501" }),
    message: "denied",
    operation: "query"
  })
})

/** A database that tells what it is told to tell, and at what times it was asked. */
const open = Effect.gen(function*() {
  const unserved = new Unserved()
  const asked: Array<number> = []
  const delivered: Array<string | undefined> = []
  let answer: (atMillis: number) => Effect.Effect<Observation, unknown> = (atMillis) =>
    Effect.succeed(seen(atMillis, { isDirect: false, xmin: 0n, backends: [backend(1, { hasWritten: true })] }))
  const quarantine = yield* Quarantine.make({
    unserved,
    tally: new Tally(yield* Effect.context<never>()),
    deliver: (targets) => Effect.sync(() => void delivered.push(targets.all ? "*" : targets.stamps[0])),
    observe: Effect.flatMap(Clock.currentTimeMillis, (now) => {
      asked.push(now)
      return answer(now)
    })
  })
  return {
    unserved,
    asked,
    delivered,
    all: quarantine.all,
    doubt: (table: string, doubt: Doubt = commit) => Effect.uninterruptible(quarantine.add(table, wrote(table), doubt)),
    answer: (next: typeof answer) => {
      answer = next
    },
    gauge: Effect.map(
      Metric.snapshot,
      (all) => (all.find(({ id }) => id === "query_cache_doubts")!.state as { readonly value: number }).value
    )
  }
})

const settles = (atMillis: number) => Effect.succeed(seen(atMillis, { isDirect: false }))

describe("the database is asked", () => {
  it.effect("at once, soon, and less and less often", () =>
    Effect.gen(function*() {
      const { answer, asked, delivered, doubt, unserved } = yield* open
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(asked, [])
      const start = yield* Clock.currentTimeMillis
      yield* doubt("orders")
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(
        asked.map((at) => at - start),
        [0, 100, 300, 700, 1500, 3100, 6300, 11_300, 16_300, 21_300, 26_300, 30_000]
      )
      assert.isTrue(unserved.covers(orders))
      answer(settles)
      yield* TestClock.adjust("10 seconds")
      assert.isTrue(unserved.isEmpty)
      assert.deepStrictEqual(delivered, ["orders", "orders"])
      const { length } = asked
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(asked.length, length)
    }))

  it.effect("soon again where there is another doubt, and once for all there are", () =>
    Effect.gen(function*() {
      const { asked, doubt } = yield* open
      yield* doubt("orders")
      yield* TestClock.adjust("1 minute")
      const { length } = asked
      const start = yield* Clock.currentTimeMillis
      for (let i = 0; i < 200; i++) yield* doubt(`t${i}`)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(asked.slice(length).map((at) => at - start), [100, 200, 400, 800])
    }))

  it.effect("when half a minute has passed, if something waits for that", () =>
    Effect.gen(function*() {
      const { answer, doubt, unserved } = yield* open
      answer(settles)
      yield* TestClock.adjust("1 hour")
      yield* doubt("orders", { _tag: "Statement" })
      yield* TestClock.adjust("29999 millis")
      assert.isTrue(unserved.covers(orders))
      yield* TestClock.adjust("1 millis")
      assert.isTrue(unserved.isEmpty)
    }))

  it.effect("for ever, while it is away or does not answer", () =>
    Effect.gen(function*() {
      const { answer, asked, doubt, unserved } = yield* open
      for (const fault of [() => Effect.fail(away), () => Effect.never]) {
        answer(fault)
        yield* doubt("orders")
        yield* TestClock.adjust("1 hour")
        assert.isTrue(unserved.covers(orders))
        const { length } = asked
        yield* TestClock.adjust("1 minute")
        assert.isAtLeast(asked.length - length, 6)
        answer(settles)
        yield* TestClock.adjust("20 seconds")
        assert.isTrue(unserved.isEmpty)
      }
    }))

  it.effect("and where it may not tell, half a minute is what there is", () =>
    Effect.gen(function*() {
      for (const refusal of [Effect.fail(denied), Effect.die(new Error("not modelled"))]) {
        const { answer, delivered, doubt, unserved } = yield* open
        answer(() => refusal)
        yield* doubt("orders")
        yield* TestClock.adjust("10 seconds")
        yield* doubt("users")
        yield* TestClock.adjust("20 seconds")
        assert.deepStrictEqual([unserved.covers(orders), unserved.covers(users)], [false, true])
        yield* TestClock.adjust("10 seconds")
        assert.isTrue(unserved.isEmpty)
        assert.deepStrictEqual(delivered, ["orders", "users", "orders", "users"])
      }
    }))

  it.effect("what is told of a time before a doubt does not end it", () =>
    Effect.gen(function*() {
      const { answer, doubt, unserved } = yield* open
      answer((now) => Effect.delay(settles(now), "1 second"))
      yield* doubt("orders", { _tag: "Commit", xid: 5n })
      yield* TestClock.adjust("500 millis")
      yield* doubt("users", { _tag: "Commit", xid: 5n })
      yield* doubt("orders", { _tag: "Commit", xid: 6n })
      yield* TestClock.adjust("600 millis")
      assert.deepStrictEqual([unserved.covers(orders), unserved.covers(users)], [true, true])
      yield* TestClock.adjust("1100 millis")
      assert.isTrue(unserved.isEmpty)
    }))
})

describe("what is in doubt", () => {
  it.effect("is served again when the last of equals has ended, and others on their own", () =>
    Effect.gen(function*() {
      const { answer, delivered, doubt, unserved } = yield* open
      let running: ReadonlyArray<bigint> = [5n, 6n, 7n]
      answer((now) => Effect.succeed(seen(now, { xmin: 5n, running: new Set(running) })))
      yield* doubt("orders", { _tag: "Commit", xid: 5n })
      yield* doubt("orders", { _tag: "Commit", xid: 6n })
      yield* doubt("users", { _tag: "Commit", xid: 7n })
      const then = Effect.fnUntraced(function*(...still: ReadonlyArray<bigint>) {
        running = still
        yield* TestClock.adjust("6 seconds")
        return [unserved.covers(orders), unserved.covers(users)]
      })
      assert.deepStrictEqual(yield* then(5n, 6n, 7n), [true, true])
      assert.deepStrictEqual(yield* then(6n, 7n), [true, true])
      assert.deepStrictEqual(yield* then(7n), [false, true])
      assert.deepStrictEqual(yield* then(), [false, false])
      assert.deepStrictEqual(delivered, ["orders", "orders", "users", "orders", "users"])
    }))

  it.effect("is bounded: by tables, and by writes of one", () =>
    Effect.gen(function*() {
      const { all, answer, doubt, gauge, unserved } = yield* open
      for (let i = 0; i < 256; i++) yield* doubt(`t${i}`)
      for (let i = 0; i < 1000; i++) yield* doubt("t7", { _tag: "Commit", xid: 5n })
      assert.deepStrictEqual([all().length, unserved.covers(orders), yield* gauge], [256, false, 256])
      yield* doubt("users")
      yield* doubt("orders")
      assert.deepStrictEqual([all().length, unserved.covers(orders), yield* gauge], [257, true, 257])
      answer(settles)
      yield* TestClock.adjust("20 seconds")
      // Of too many writes of one table nobody knows any more what they were.
      assert.strictEqual(all().length, 1)
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual([all().length, unserved.isEmpty, yield* gauge], [0, true, 0])
    }))

  it.effect("is told of once, and once more when there is nothing any more", () =>
    Effect.gen(function*() {
      const logs = yield* Logs.Logs
      const { answer, doubt } = yield* open
      yield* doubt("orders")
      yield* doubt("users")
      yield* TestClock.adjust("20 seconds")
      answer(settles)
      yield* TestClock.adjust("20 seconds")
      answer(() => Effect.never)
      yield* doubt("orders")
      assert.deepStrictEqual((yield* logs.messages).map((message) => message.slice(0, 21)), [
        "The outcome of a writ",
        "Every write whose out",
        "The outcome of a writ"
      ])
    }).pipe(Effect.provide(Logs.layer)))

  it.effect("that the database cannot tell is told once", () =>
    Effect.gen(function*() {
      const logs = yield* Logs.Logs
      const { answer, doubt } = yield* open
      answer(() => Effect.fail(denied))
      yield* doubt("orders")
      yield* TestClock.adjust("1 minute")
      yield* doubt("orders")
      yield* TestClock.adjust("1 minute")
      const messages = (yield* logs.messages).filter((message) => message.includes("cannot tell"))
      assert.deepStrictEqual(messages, [
        "The database cannot tell whether a write has ended: what it touched is served again after 30 seconds"
      ])
    }).pipe(Effect.provide(Logs.layer)))

  it.effect("ends with its scope, be it in the middle of a question", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { all, answer, doubt } = yield* Scope.provide(open, scope)
      let isInterrupted = false
      answer(() => Effect.onInterrupt(Effect.never, () => Effect.sync(() => void (isInterrupted = true))))
      yield* doubt("orders")
      yield* Effect.yieldNow
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(isInterrupted)
      // For the one last attempt that is made then.
      assert.strictEqual(all().length, 1)
    }))
})
