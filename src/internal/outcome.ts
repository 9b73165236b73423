/**
 * Whether a failed write can have taken effect.
 */
import * as Cause from "effect/Cause"
import * as Predicate from "effect/Predicate"
import { isSqlError } from "effect/sql/SqlError"
import { StrictWriteError } from "../CacheError.ts"

/**
 * `true` only where the database, or the driver before it sent anything, refused
 * for certain. An interruption, a defect, a lost connection and a reply that
 * could not be read all leave it open.
 */
export const refused = (cause: Cause.Cause<unknown>): boolean =>
  cause.reasons.length > 0 &&
  cause.reasons.every((reason) => Cause.isFailReason(reason) && isRefusal(reason.error))

/** Whether an effect that was to write may have done so although it failed. The program's own errors say that it did not. */
export const mayHaveWritten = (cause: Cause.Cause<unknown>): boolean =>
  cause.reasons.some((reason) => !Cause.isFailReason(reason) || (isSqlError(reason.error) && !isRefusal(reason.error)))

const isRefusal = (error: unknown): boolean => {
  if (!isSqlError(error)) return false
  const { _tag, cause, message, operation } = error.reason
  // Rolled back, or never sent.
  if (cause instanceof StrictWriteError) return true
  // The statement waited for a connection that never came about.
  if (operation === "connect") return true
  // COMMIT was answered by ROLLBACK.
  if (operation === "commit") return true
  if (message === "PgConnection: Failed to encode query") return true
  // A socket's error has a code too, and "EPIPE" looks like a SQLSTATE.
  if (_tag === "ConnectionError") return false
  return Predicate.hasProperty(cause, "code") && typeof cause.code === "string" && isRefusalState(cause.code)
}

// SQLSTATE (PostgreSQL's documentation, appendix A). Class 08 is a lost connection, 57P a server that goes
// down or a backend that is terminated, 40003 says itself that completion is unknown, and after a system
// error (58) or an internal one (XX) nothing is promised.
const isRefusalState = (code: string): boolean =>
  /^[0-9A-Z]{5}$/.test(code) && code !== "40003" && !/^(?:08|57P|58|XX)/.test(code)
