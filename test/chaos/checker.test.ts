/** The checker of history runs: each rule finds what it is for, and nothing in a history that keeps it. */
import { assert, describe, it } from "@effect/vitest"
import { check, type Rule } from "./checker.ts"
import { excerpt } from "./excerpt.ts"
import type { Event, Line, Mode, Read, Seen } from "./history.ts"

const promises = { maxStaleness: 1_000, timeToLive: 10_000, slack: 500 }

const of = (process: string, line: Line): Event => ({ ...line, process })
const started = (process: string, mode: Mode): Event => of(process, { type: "started", mode, at: 0 })

const write = (
  process: string,
  id: string,
  begin: number,
  end: number,
  versions: ReadonlyArray<readonly [string, number]>,
  rest: { readonly delivered?: boolean; readonly outcome?: "acknowledged" | "rolledback" | "failed" } = {}
): ReadonlyArray<Event> => [
  of(process, { type: "write", id, kind: "item", begin, transaction: false }),
  of(process, { type: "written", id, end, outcome: "acknowledged", delivered: true, versions, ...rest })
]

const read = (
  process: string,
  begin: number,
  seen: ReadonlyArray<Seen>,
  rest: Partial<Read> = {}
): Event =>
  of(process, {
    type: "read",
    fiber: 0,
    form: "key",
    begin,
    end: begin + 10,
    status: "hit",
    level: "L1",
    seen,
    ...rest
  })

const processes = [
  started("redis", "redis"),
  started("backplane", "backplane"),
  started("strict", "strict"),
  started("writer", "redis")
]

const broken = (...history: ReadonlyArray<Event | ReadonlyArray<Event>>): ReadonlyArray<Rule> => {
  const events = [...processes, ...history.flat()]
  return check(() => events, promises).violations.map(({ rule }) => rule)
}

const first = write("writer", "writer:1", 0, 100, [["item:1", 1]])
const second = write("writer", "writer:2", 1_000, 1_100, [["item:1", 2]])
const old: Seen = ["item:1", 1, "writer:1"]
const current: Seen = ["item:1", 2, "writer:2"]

describe("the checker of histories", () => {
  it("own: a read is not older than what its process has written, wherever the answer is from", () => {
    for (const status of ["hit", "stale", "joined"] as const) {
      assert.deepStrictEqual(broken(first, second, read("writer", 1_099, [old], { status })), [])
      assert.include(broken(first, second, read("writer", 1_101, [old], { status })), "own")
    }
    assert.deepStrictEqual(broken(first, second, read("writer", 1_101, [current])), [])
  })

  it("own: undelivered or not", () => {
    const undelivered = write("writer", "writer:2", 1_000, 1_100, [["item:1", 2]], { delivered: false })
    assert.deepStrictEqual(broken(first, undelivered, read("writer", 1_101, [old])), ["own"])
  })

  it("own: a write that has failed counts from when somebody has seen it", () => {
    const failed = write("writer", "writer:2", 1_000, 1_100, [["item:1", 2]], { delivered: false, outcome: "failed" })
    assert.deepStrictEqual(broken(first, failed, read("writer", 1_200, [old])), [])
    const seen = read("redis", 1_150, [current], { status: "miss" })
    assert.deepStrictEqual(broken(first, failed, seen, read("writer", 1_159, [old])), [])
    assert.deepStrictEqual(broken(first, failed, seen, read("writer", 1_161, [old])), ["own"])
    // It was not done, and another one has taken its number.
    const other = write("redis", "redis:1", 1_000, 1_100, [["item:1", 2]], { delivered: false })
    assert.deepStrictEqual(broken(first, failed, other, read("writer", 1_161, [old])), [])
  })

  it("bounded: no answer is older than what was delivered, and with a backplane Δ before", () => {
    for (const status of ["hit", "stale", "joined"] as const) {
      assert.deepStrictEqual(broken(first, second, read("redis", 1_099, [old], { status })), [])
      assert.deepStrictEqual(broken(first, second, read("redis", 1_101, [old], { status })), ["bounded"])
      assert.deepStrictEqual(broken(first, second, read("backplane", 2_099, [old], { status })), [])
      assert.deepStrictEqual(broken(first, second, read("backplane", 2_101, [old], { status })), ["bounded"])
    }
  })

  it("bounded: what is shared with who asked before is as old as that question", () => {
    const shared = (begin: number, sharedSince: number) =>
      read("redis", begin, [old], { status: "joined", sharedSince })
    assert.deepStrictEqual(broken(first, second, shared(1_200, 1_099)), [])
    assert.deepStrictEqual(broken(first, second, shared(1_200, 1_101)), ["bounded"])
    // One's own writes part it.
    assert.deepStrictEqual(broken(first, second, { ...shared(1_200, 1_099), process: "writer" }), ["own"])
  })

  it("bounded: what was not delivered counts when nothing waits any more", () => {
    const undelivered = write("writer", "writer:2", 1_000, 1_100, [["item:1", 2]], { delivered: false })
    const waits = of("writer", { type: "queue", begin: 1_200, end: 1_201, undelivered: 1 })
    // It was counted before the write had returned.
    const early = of("writer", { type: "queue", begin: 1_050, end: 1_051, undelivered: 0 })
    const empty = of("writer", { type: "queue", begin: 1_300, end: 1_310, undelivered: 0 })
    assert.deepStrictEqual(broken(first, undelivered, early, waits, empty, read("redis", 1_309, [old])), [])
    assert.deepStrictEqual(broken(first, undelivered, early, waits, empty, read("redis", 1_311, [old])), ["bounded"])
  })

  it("bounded: of several registers each, of a sum all", () => {
    const other = write("writer", "writer:3", 1_200, 1_300, [["item:2", 1]])
    const both: ReadonlyArray<Seen> = [current, ["item:2", 0, ""]]
    assert.deepStrictEqual(broken(first, second, other, read("redis", 1_299, both)), [])
    assert.deepStrictEqual(broken(first, second, other, read("redis", 1_301, both)), ["bounded"])
    const sum = (total: number) => ({ sum: { of: ["item:1", "item:2"], total } })
    assert.deepStrictEqual(broken(first, second, other, read("redis", 1_301, [], sum(3))), [])
    assert.deepStrictEqual(broken(first, second, other, read("redis", 1_301, [], sum(2))), ["bounded"])
  })

  it("bounded: a row that is not there, an answer that is empty", () => {
    assert.include(broken(read("redis", 0, [["item:1", -1, null]])), "bounded")
    assert.deepStrictEqual(broken(first, second, read("redis", 1_200, [["item:1", 2, null]])), [])
    assert.deepStrictEqual(broken(first, second, read("redis", 1_200, [["item:1", 1, null]])), ["bounded"])
  })

  it("strict: no answer is older than what anybody knows", () => {
    const undelivered = write("writer", "writer:2", 1_000, 1_100, [["item:1", 2]], { delivered: false })
    assert.deepStrictEqual(broken(first, undelivered, read("strict", 1_101, [old])), ["strict"])
    assert.deepStrictEqual(broken(first, undelivered, read("redis", 1_101, [old])), [])
    const killed = of("writer", { type: "write", id: "writer:2", kind: "item", begin: 1_000, transaction: false })
    const seen = read("redis", 1_150, [current], { status: "miss" })
    assert.deepStrictEqual(broken(first, killed, seen, read("strict", 1_159, [old])), [])
    assert.deepStrictEqual(broken(first, killed, seen, read("strict", 1_161, [old])), ["strict"])
  })

  it("ttl: what a writer that died has left undone", () => {
    const killed = of("writer", { type: "write", id: "writer:2", kind: "item", begin: 1_000, transaction: false })
    const seen = read("redis", 1_150, [current], { status: "miss" })
    assert.deepStrictEqual(broken(first, killed, seen, read("redis", 11_600, [old])), [])
    assert.deepStrictEqual(broken(first, killed, seen, read("redis", 11_700, [old])), ["ttl"])
    assert.deepStrictEqual(broken(first, killed, seen, read("redis", 11_700, [old], { retained: 100 })), [])
  })

  it("database: a history that says otherwise is wrong itself", () => {
    for (const status of ["miss", "bypass"] as const) {
      assert.deepStrictEqual(broken(first, second, read("redis", 1_101, [old], { status })), ["database"])
    }
  })

  it("uncommitted: rolled back, taken back by a savepoint, or before COMMIT was sent", () => {
    const undone = write("writer", "writer:2", 1_000, 1_100, [["item:1", 2]], { outcome: "rolledback" })
    assert.deepStrictEqual(broken(first, undone, read("redis", 1_200, [current])), ["uncommitted"])
    const savepoint: Seen = ["item:1", 2, "writer:2/undone"]
    assert.deepStrictEqual(broken(first, second, read("redis", 1_200, [savepoint])), ["uncommitted"])
    const begun = of("writer", { type: "write", id: "writer:2", kind: "transaction", begin: 1_000, transaction: true })
    const committing = of("writer", { type: "committing", id: "writer:2", at: 1_500 })
    assert.deepStrictEqual(broken(first, begun, committing, read("redis", 1_400, [current])), ["uncommitted"])
    assert.deepStrictEqual(broken(first, begun, committing, read("redis", 1_500, [current])), [])
    // It was killed before.
    assert.deepStrictEqual(broken(first, begun, read("redis", 1_500, [current])), ["uncommitted"])
  })

  it("writer: one version has one writer", () => {
    const other: Seen = ["item:1", 2, "redis:7"]
    assert.deepStrictEqual(broken(first, second, read("redis", 1_200, [other])), ["writer"])
  })

  it("tenant: rows of others", () => {
    assert.deepStrictEqual(broken(read("redis", 0, [], { foreign: 1 })), ["tenant"])
    assert.deepStrictEqual(broken(read("redis", 0, [], { foreign: 0 })), [])
  })

  it("session: no answer is older than what its token stands for", () => {
    const at = (tokenAt: number) => read("backplane", 1_200, [old], { tokenAt })
    assert.deepStrictEqual(broken(first, second, at(1_099)), [])
    assert.deepStrictEqual(broken(first, second, at(1_101)), ["session"])
    const of = (version: number) => read("backplane", 1_200, [old], { tokenOf: [["item:1", version], ["item:2", 9]] })
    assert.deepStrictEqual(broken(first, second, of(1)), [])
    assert.deepStrictEqual(broken(first, second, of(2)), ["session"])
  })

  it("quiet: everything is what the database has", () => {
    const truth = of("run", { type: "truth", at: 5_000, versions: { "item:1": 2, "item:2": 0 } })
    const none: Seen = ["item:2", 0, ""]
    const quiet = (seen: ReadonlyArray<Seen>, rest: Partial<Read> = {}) =>
      read("backplane", 1_200, seen, { quiet: true, ...rest })
    assert.deepStrictEqual(broken(first, second, truth, quiet([current, none])), [])
    assert.deepStrictEqual(broken(first, second, truth, quiet([old, none])), ["quiet"])
    assert.deepStrictEqual(broken(first, second, truth, quiet([["item:1", 1, null]])), ["quiet"])
    assert.deepStrictEqual(broken(first, second, truth, quiet([["item:1", 4, null]])), [])
    assert.deepStrictEqual(
      broken(first, second, truth, quiet([], { sum: { of: ["item:1", "item:2"], total: 1 } })),
      ["quiet"]
    )
  })

  it("hung, died", () => {
    assert.deepStrictEqual(broken(of("run", { type: "hung", at: 0, what: ["a read"] })), ["hung"])
    assert.deepStrictEqual(broken(of("run", { type: "died", at: 0, how: "1" })), ["died"])
  })

  it("counts what happened, and how old answers were", () => {
    const events = [...processes, ...first, ...second, read("backplane", 1_700, [old]), read("redis", 1_700, [current])]
    const report = check(() => events, promises)
    assert.deepStrictEqual(report.reads, { "hit L1": 2 })
    assert.deepStrictEqual(report.writes, { acknowledged: 2 })
    assert.strictEqual(report.served, 2)
    assert.strictEqual(report.telling, 2)
    assert.strictEqual(report.oldest, 600)
    assert.strictEqual(report.count, 0)
  })

  it("shows the part of the history in which it went wrong", () => {
    const events = [
      ...processes,
      ...first,
      ...second,
      of("run", { type: "fault", name: "SIGSTOP", begin: 900, end: 1_200 }),
      read("redis", 1_300, [old]),
      ...write("writer", "writer:9", 1_000, 1_150, [["item:9", 1]])
    ]
    const [violation] = check(() => events, promises).violations
    const text = excerpt(() => events, violation!)
    assert.match(text, /^bounded: item:1 is 1 where 2 was due, in redis/)
    for (const part of ["writer:2 acknowledged, delivered: item:1 = 2", "SIGSTOP is over", "item:1 = 1 by writer:1"]) {
      assert.include(text, part)
    }
    assert.notInclude(text, "item:9")
  })
})
