import { SessionToken } from "effect-query-cache"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import { describe, expectTypeOf, test } from "vitest"

class Service extends Context.Service<Service, number>()("Service") {}

declare const effect: Effect.Effect<string, "failed", Service>
declare const session: SessionToken.Session
declare const token: SessionToken.SessionToken

describe("SessionToken", () => {
  test("provide changes nothing of an effect", () => {
    expectTypeOf(SessionToken.provide(effect, session)).toEqualTypeOf<Effect.Effect<string, "failed", Service>>()
    expectTypeOf(effect.pipe(SessionToken.provide(session))).toEqualTypeOf<Effect.Effect<string, "failed", Service>>()
  })

  test("run takes the failure into its answer", () => {
    type Ran = Effect.Effect<readonly [Exit.Exit<string, "failed">, SessionToken.SessionToken], never, Service>
    expectTypeOf(SessionToken.run(effect)).toEqualTypeOf<Ran>()
    expectTypeOf(SessionToken.run(effect, { token, bypassFor: "1 minute" })).toEqualTypeOf<Ran>()
    expectTypeOf(effect.pipe(SessionToken.run({ monotonicReads: true }))).toEqualTypeOf<Ran>()
    // @ts-expect-error: a text is no token yet
    SessionToken.run(effect, { token: "1" })
  })

  test("the schema is of text", () => {
    const struct = Schema.Struct({ token: SessionToken.FromString })
    expectTypeOf<typeof struct.Type>().toEqualTypeOf<{ readonly token: SessionToken.SessionToken }>()
    expectTypeOf<typeof struct.Encoded>().toEqualTypeOf<{ readonly token: string }>()
  })

  test("only what was made is a token", () => {
    // @ts-expect-error: nothing else has its mark
    SessionToken.encode({ toString: () => "1", toJSON: () => "1" })
  })
})
