// Tokens as values and as texts. What they are good for is in SessionTokenShared.test.ts.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Hash from "effect/Hash"
import * as Schema from "effect/Schema"
import * as SqlResolver from "effect/sql/SqlResolver"
import * as FastCheck from "fast-check"
import { InvalidOptionError } from "../src/CacheError.ts"
import { CacheScope, SessionToken } from "../src/index.ts"
import * as Places from "../src/internal/places.ts"
import { Session } from "../src/internal/session.ts"

const aMark: FastCheck.Arbitrary<Places.Mark> = FastCheck.record({
  order: FastCheck.oneof(FastCheck.constant(-1), FastCheck.nat({ max: 3 }), FastCheck.maxSafeNat()),
  hash: FastCheck.oneof(FastCheck.nat({ max: 3 }), FastCheck.integer({ min: 0, max: 2 ** 32 - 1 })),
  clock: FastCheck.oneof(FastCheck.nat({ max: 3 }), FastCheck.maxSafeNat())
})

const aPlace = (shards: number): FastCheck.Arbitrary<Places.Place> =>
  FastCheck.record({
    marks: FastCheck.array(FastCheck.option(aMark, { nil: undefined, freq: 4 }), { maxLength: shards }).map((marks) => {
      while (marks.length > 0 && marks.at(-1) === undefined) marks.pop()
      return marks
    }),
    bypass: FastCheck.option(
      FastCheck.record({
        untilMillis: FastCheck.oneof(FastCheck.constant(0), FastCheck.maxSafeNat()),
        by: FastCheck.constantFrom("", "aaaaaaaa", "z9z9z9z9")
      }),
      { nil: undefined }
    )
  })

const aToken = (databases = 10, shards = 20): FastCheck.Arbitrary<Places.Token> =>
  FastCheck.dictionary(
    FastCheck.oneof(
      FastCheck.constantFrom("-", "AAAAAAAA", "--------", "z_9-z_9-"),
      FastCheck.stringMatching(/^[\w-]{8}$/)
    ),
    aPlace(shards),
    { maxKeys: databases, noNullPrototype: true }
  ).map((places) => Places.tokenOf(Object.entries(places)))

const decoded = Schema.decodeUnknownExit(SessionToken.FromString)

describe("the text of a token", () => {
  it("comes back as the token, is short, and as headers, cookies and URLs take it", () =>
    FastCheck.assert(
      FastCheck.property(aToken(), (token) => {
        const text = SessionToken.encode(token)
        assert.match(text, /^[\w.~-]+$/)
        assert.isAtMost(text.length, 4096)
        assert.strictEqual(encodeURIComponent(text), text)
        const back = SessionToken.fromString(text) as Places.Token
        assert.strictEqual(JSON.stringify([...back.places]), JSON.stringify([...token.places]))
        assert.isTrue(Equal.equals(back, token))
        assert.strictEqual(Hash.hash(back), Hash.hash(token))
      }),
      { numRuns: 1_000 }
    ))

  it("whatever is none is nothing, and nothing but what is written stands for a token", () =>
    FastCheck.assert(
      FastCheck.property(
        FastCheck.oneof(
          FastCheck.string({ unit: "binary" }),
          FastCheck.stringMatching(/^1(?:~[\w-]{1,9}(?:\.[0-9a-zB-]*)*){0,4}$/),
          // Cut off, or with something in it.
          FastCheck.tuple(aToken(3, 3), FastCheck.nat(), FastCheck.nat(2), FastCheck.string({ maxLength: 3 })).map(
            ([token, place, removed, inserted]) => {
              const text = SessionToken.encode(token)
              const at = place % (text.length + 1)
              return text.slice(0, at) + inserted + text.slice(at + removed)
            }
          )
        ),
        (text) => {
          const token = SessionToken.fromString(text)
          const exit = decoded(text)
          if (Exit.isSuccess(exit)) {
            assert.strictEqual(SessionToken.encode(exit.value), text)
            assert.isTrue(Equal.equals(token, exit.value))
          } else {
            assert.strictEqual(token, SessionToken.empty)
          }
        }
      ),
      { numRuns: 2_000 }
    ))

  it("hostile texts", () => {
    const database = "~AAAAAAAA"
    for (
      const text of [
        "",
        "2",
        "1~",
        `1${database}`,
        `1${database}.`,
        `1${database}..`,
        `1${database}.1-1`,
        `1${database}.1-1-1.`,
        `1${database}.01-1-1`,
        `1${database}.1-1-01`,
        `1${database}.1-zzzzzzz-1`,
        `1${database}.1-1-zzzzzzzzzzz`,
        `1${database}.1-1--1`,
        `1${database}.1-1-1e3.B`,
        `1${database}.B1`,
        `1${database}.B-`,
        `1${database}.B1-aaaaaaa`,
        `1${database}.B1-AAAAAAAA`,
        `1${database}.B1-.1-1-1`,
        `1${database}.B1-.B1-`,
        `1${database}.1-1-1${database}.1-1-1`,
        "1~BBBBBBBB.1-1-1~AAAAAAAA.1-1-1",
        "1~__proto__.1-1-1",
        "1~AAAAAAA.1-1-1",
        "1~AAAAAAAAA.1-1-1",
        "1~AAAAAAAA.1-1-1\n",
        `1${`~AAAAAAAA`.repeat(1_000)}`,
        `1${database}${".1-1-1".repeat(65)}`,
        `1${Array.from({ length: 9 }, (_, i) => `~AAAAAAA${i}.1-1-1`).join("")}`,
        `1${database}.1-1-${"1".repeat(1_000_000)}`
      ]
    ) {
      assert.strictEqual(SessionToken.fromString(text), SessionToken.empty, text.slice(0, 60))
      assert.isTrue(Exit.isFailure(decoded(text)))
    }
    for (const text of [undefined, null, 7, {}, ["1"]] as ReadonlyArray<any>) {
      assert.strictEqual(SessionToken.fromString(text), SessionToken.empty)
    }
    assert.strictEqual(SessionToken.encode(SessionToken.empty), "1")
    assert.isTrue(Equal.equals(SessionToken.fromString("1"), SessionToken.empty))
  })

  it("a failure tells nothing of the text", () => {
    const exit = Schema.decodeUnknownExit(SessionToken.FromString)("1~secret")
    assert.isTrue(Exit.isFailure(exit))
    assert.notInclude(String(Exit.isFailure(exit) && exit.cause), "secret")
  })

  it("what is too much to be named is everything, and stays short", () => {
    const places = (databases: number, shards: number) =>
      Places.tokenOf(Array.from({ length: databases }, (_, i) => [
        `AAAAAAA${i}`,
        { marks: Array.from({ length: shards }, (_, clock) => ({ order: 1e15, hash: 7, clock })), bypass: undefined }
      ]))
    assert.strictEqual(places(9, 1).toString(), "1~-.B0-")
    assert.strictEqual(places(1, 65).toString(), "1~-.B0-")
    assert.isAbove(places(8, 8).toString().length, 1_000)
    const two = SessionToken.merge(
      places(5, 1),
      Places.tokenOf(
        Array.from({ length: 5 }, (_, i) => [`BBBBBBB${i}`, { marks: [], bypass: { untilMillis: 1, by: "" } }])
      )
    )
    assert.strictEqual(SessionToken.encode(two), "1~-.B0-")
  })

  it.effect("as a schema, of JSON too", () =>
    Effect.gen(function*() {
      const token = SessionToken.fromString("1~AAAAAAAA.a-b-c")
      const Body = Schema.Struct({ token: SessionToken.SessionToken })
      const json = Schema.toCodecJson(Body)
      const encoded = yield* Schema.encodeEffect(json)({ token })
      assert.deepStrictEqual(encoded, { token: "1~AAAAAAAA.a-b-c" })
      assert.isTrue(Equal.equals(yield* Schema.decodeEffect(json)(encoded), { token }))
      assert.strictEqual(JSON.stringify({ token }), JSON.stringify(encoded))
    }))
})

describe("merging", () => {
  it("is commutative, associative and idempotent, and empty changes nothing", () =>
    FastCheck.assert(
      FastCheck.property(aToken(2, 2), aToken(2, 2), aToken(2, 2), (a, b, c) => {
        const same = (left: SessionToken.SessionToken, right: SessionToken.SessionToken) =>
          assert.strictEqual(SessionToken.encode(left), SessionToken.encode(right))
        const { empty, merge } = SessionToken
        same(merge(a, b), merge(b, a))
        same(merge(merge(a, b), c), merge(a, merge(b, c)))
        same(merge(a, a), a)
        same(merge(a, empty), a)
        same(merge(b)(a), merge(a, b))
      }),
      { numRuns: 1_000 }
    ))

  it("asks for what both ask for, shard by shard", () => {
    const aClock = FastCheck.record({ order: FastCheck.nat({ max: 3 }), clock: FastCheck.nat({ max: 3 }) })
    const clocks = FastCheck.array(aClock, { maxLength: 2 })
    const ofShard = ({ clock, order }: { clock: number; order: number }, shard: number) => ({
      epoch: `${order}-of@${shard}`,
      clock
    })
    const marks = (clocks: ReadonlyArray<{ clock: number; order: number }>) => Places.marksOf(clocks.map(ofShard))
    let reflected = 0
    FastCheck.assert(
      FastCheck.property(clocks, clocks, aClock, FastCheck.nat({ max: 1 }), (a, b, at, shard) => {
        if (!Places.reflects(Places.laterMarks(marks(a), marks(b)), ofShard(at, shard))) return
        reflected++
        for (const asked of [a[shard], b[shard]]) {
          if (asked === undefined) continue
          assert.isTrue(at.order > asked.order || (at.order === asked.order && at.clock >= asked.clock))
        }
      }),
      { numRuns: 2_000 }
    )
    assert.isAbove(reflected, 200)
  })
})

describe("several shards", () => {
  const session = () => new Session(Places.empty, { isMonotonic: false, bypassMillis: 1 })
  const one = { epoch: "10-a@0", clock: 5 }
  const two = { epoch: "12-b@1", clock: 7 }

  it("what a process holds may answer if it has come far enough in all of them", () => {
    const point = session().pointOf("AAAAAAAA")
    assert.isTrue(point.mayPeek(undefined))
    point.raise([one, two])
    assert.isFalse(point.mayPeek(undefined))
    assert.isTrue(point.mayPeek([one, two]))
    assert.isFalse(point.mayPeek([{ ...one, clock: 4 }, two]))
    assert.isFalse(point.mayPeek([one, { ...two, clock: 6 }]))
    assert.isTrue(point.mayPeek([{ ...one, clock: 6 }, { epoch: "13-c@1", clock: 0 }]))
    assert.isFalse(point.mayPeek([one, { epoch: "11-c@1", clock: 9 }]))
    // Newer than its own shard's, and what others have is of no interest.
    assert.isTrue(point.mayPeek([{ epoch: "11-c@0", clock: 9 }, two]))
    // What was judged once is judged anew when the session has written.
    const applied = [one, two]
    assert.isTrue(point.mayPeek(applied))
    point.raise([one, { ...two, clock: 8 }])
    assert.isFalse(point.mayPeek(applied))
  })

  it("those of which nothing is known are not asked for", () => {
    const unknown = session()
    const point = unknown.pointOf("AAAAAAAA")
    point.raise([undefined, undefined])
    assert.strictEqual(unknown.token, Places.empty)
    point.raise([undefined, two])
    point.raise([undefined, two, undefined])
    assert.isTrue(Equal.equals(SessionToken.fromString(unknown.token.toString()), unknown.token))
    assert.notStrictEqual(unknown.token, Places.empty)
    assert.isTrue(point.reflects(two))
  })
})

describe("options", () => {
  it("those that mean nothing are refused by name and value", () => {
    const refused = (make: () => unknown, option: string) => {
      try {
        make()
      } catch (error) {
        assert.instanceOf(error, InvalidOptionError)
        assert.include(String(error), option)
        return
      }
      assert.fail(`${option} was taken`)
    }
    refused(() => SessionToken.make({ token: "1" as any }), "token")
    refused(() => SessionToken.make({ monotonicReads: 1 as any }), "monotonicReads")
    refused(() => SessionToken.make({ bypassFor: 0 }), "bypassFor")
    refused(() => SessionToken.make({ bypassFor: Infinity }), "bypassFor")
    refused(() => SessionToken.make({ tokens: 1 } as any), "tokens")
    refused(() => SessionToken.provide(Effect.void, SessionToken.empty as any), "session")
  })

  it.effect("requests of one session in several scopes are not mixed either", () =>
    Effect.gen(function*() {
      const resolver = SqlResolver.findById({
        Id: Schema.Int,
        Result: Schema.String,
        ResultId: () => 1,
        execute: () => Effect.map(CacheScope.CurrentScope, (scope) => [scope?.key ?? "none"])
      })
      const request = SqlResolver.request(1, resolver)
      const session = yield* SessionToken.make()
      const inSession = SessionToken.provide(session)
      const [acme, globex] = ["acme", "globex"].map((tenant) => CacheScope.provide({ tenant }))
      const answers = yield* Effect.all([
        inSession(request),
        acme!(inSession(request)),
        globex!(inSession(request)),
        inSession(acme!(request)),
        inSession(globex!(request))
      ], { concurrency: "unbounded" })
      const [of1, of2] = ["acme", "globex"].map((tenant) => CacheScope.resolve({ tenant }).key)
      assert.deepStrictEqual(answers, ["none", of1, of2, of1, of2])
    }))

  it.effect("a session begins with its token, and outside of one nothing is raised", () =>
    Effect.gen(function*() {
      const token = SessionToken.fromString("1~AAAAAAAA.a-b-c")
      const [exit, after] = yield* Effect.fail("why").pipe(SessionToken.run({ token }))
      assert.deepStrictEqual(exit, Exit.fail("why"))
      assert.isTrue(Equal.equals(after, token))
      assert.strictEqual((yield* SessionToken.make()).token, SessionToken.empty)
    }))
})
