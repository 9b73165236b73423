import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import { ConnectionError, SqlError, UnknownError } from "effect/sql/SqlError"
import { refused } from "../../src/internal/outcome.ts"

const state = (code: string) =>
  new SqlError({
    reason: new UnknownError({ cause: Object.assign(new Error("refused"), { code }), message: "m", operation: "query" })
  })
const lost = (operation: string, code?: string) =>
  new SqlError({
    reason: new ConnectionError({ cause: Object.assign(new Error("closed"), { code }), message: "closed", operation })
  })
const driver = (message: string, operation = "query") =>
  new SqlError({ reason: new UnknownError({ cause: new Error(message), message, operation }) })

describe("refused", () => {
  it("is certain only where the server or the driver refused", () => {
    for (const code of ["23505", "40001", "40P01", "42P01", "25P02", "57014", "22P02"]) {
      assert.isTrue(refused(Cause.fail(state(code))), code)
    }
    assert.isTrue(refused(Cause.fail(lost("connect"))))
    assert.isTrue(refused(Cause.fail(driver("PgClient: COMMIT rolled back an aborted transaction", "commit"))))
    assert.isTrue(refused(Cause.fail(driver("PgConnection: Failed to encode query"))))
  })

  it("leaves open what may have taken effect", () => {
    for (const code of ["08006", "08003", "57P01", "57P02", "57P03", "40003", "58030", "XX000", "nonsense"]) {
      assert.isFalse(refused(Cause.fail(state(code))), code)
    }
    assert.isFalse(refused(Cause.fail(lost("query"))))
    assert.isFalse(refused(Cause.fail(lost("query", "EPIPE"))))
    assert.isFalse(refused(Cause.fail(driver("PgConnection: Failed to decode row"))))
    assert.isFalse(refused(Cause.fail("the program's own")))
    assert.isFalse(refused(Cause.interrupt(1)))
    assert.isFalse(refused(Cause.die(state("23505"))))
    assert.isFalse(refused(Cause.combine(Cause.fail(state("23505")), Cause.interrupt(1))))
    assert.isFalse(refused(Cause.empty))
  })
})
