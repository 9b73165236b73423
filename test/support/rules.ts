// The rules of row dependencies, each of which some test must miss.
import type { Rule } from "../../src/internal/conjunctions/rules.ts"

/** Of what a query reads. */
export const ofReads: ReadonlyArray<Rule> = [
  "outer-on",
  "full-on",
  "null-of-nullable",
  "or-rejects-null",
  "negation",
  "not-in",
  "all",
  "in-decides",
  "through-limit",
  "through-distinct-on",
  "through-window",
  "through-aggregate",
  "through-set-operation",
  "through-shared-cte",
  "through-recursion",
  "same-kind",
  "kind",
  "operator",
  "canonical",
  "shared-parameter",
  "empty-list",
  "self-join",
  "correlation"
]

/** Of what a write touches, and of nothing else. */
export const ofWrites: ReadonlyArray<Rule> = [
  "before-row",
  "rewritten",
  "generated",
  "assigned",
  "on-conflict",
  "modifier",
  "default"
]
