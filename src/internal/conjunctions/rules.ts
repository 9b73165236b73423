/**
 * What a row dependency may be derived from, and what a write's row is known
 * by. Whatever no rule allows falls back to the whole table.
 *
 * Each rule below was broken once by a query and a write that look harmless.
 * A test can leave a rule out, and must then see an answer go stale; nothing
 * else ever does.
 */
export type Rule =
  // Where a condition holds.
  /** ON of an outer join says nothing of the rows that are kept anyway. */
  | "outer-on"
  /** ON of a FULL join says nothing of either side. */
  | "full-on"
  /** IS NULL on the nullable side holds where there is no row at all. */
  | "null-of-nullable"
  /** OR makes an outer join an inner one only if each of its arms does. */
  | "or-rejects-null"
  /** NOT, IS NOT TRUE and the like turn a condition around. */
  | "negation"
  /** NOT IN is an IN whose operator is `<>`. */
  | "not-in"
  /** `= ALL` holds for an empty array. */
  | "all"
  /** What `IN (SELECT ...)` finds narrows its query only where null is as good as false. */
  | "in-decides"
  // What a condition on the answer of a subquery says of its rows.
  | "through-limit"
  | "through-distinct-on"
  | "through-window"
  | "through-aggregate"
  | "through-set-operation"
  | "through-shared-cte"
  | "through-recursion"
  // Which columns and values.
  /** Two columns take each other's constants only if they have one type and compare by their text. */
  | "same-kind"
  /** Only types whose equality is equality of their text, and only under a deterministic collation. */
  | "kind"
  /** Only the operator of pg_catalog. */
  | "operator"
  /** Only a value that is already in the canonical text of its type. */
  | "canonical"
  /** A string that is a parameter in several places has the type of the first. */
  | "shared-parameter"
  /** An empty list keeps the table. */
  | "empty-list"
  /** Each range table entry has its own conditions. */
  | "self-join"
  /** A name that the innermost query does not know is looked up further out. */
  | "correlation"
  // What is known of the rows of a write.
  /** A BEFORE ROW trigger may change the row. */
  | "before-row"
  /** Rules write something else instead, or besides. */
  | "rewritten"
  | "generated"
  /** An assigned column had another value before. */
  | "assigned"
  /** ON CONFLICT DO UPDATE writes to another row than the one given. */
  | "on-conflict"
  /** Spaces beyond the length of a varchar are cut off as the row is stored. */
  | "modifier"
  /** A column that is not named has its default. */
  | "default"

/** Left out by tests alone. */
export type Without = ReadonlySet<Rule>

export const none: Without = new Set()
