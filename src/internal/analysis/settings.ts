/**
 * What a statement leaves behind in its session.
 */
import type { Node } from "./parser.ts"

/** A setting that a statement changes, and that may change an answer. */
export interface Setting {
  /** In lower case; `*` where the text does not say which. */
  readonly name: string
  /** Whether it ends with the transaction. */
  readonly isLocal: boolean
  /** Whether it is what the session began with. */
  readonly isReset: boolean
}

/** What a `SET` or `RESET` changes. */
export const settingsOf = (node: Node): ReadonlyArray<Setting> => {
  // SET TRANSACTION and SET SESSION CHARACTERISTICS choose how what is read is isolated, not what it is.
  if (node.kind === "VAR_SET_MULTI") return []
  const isReset = node.kind === "VAR_RESET" || node.kind === "VAR_RESET_ALL" || node.kind === "VAR_SET_DEFAULT"
  return setting(node.kind === "VAR_RESET_ALL" ? "*" : String(node.name ?? "*"), node.is_local === true, isReset)
}

/** What DISCARD ALL changes: RESET ALL leaves out two. */
export const discarded: ReadonlyArray<Setting> = ["*", "role", "session_authorization"].map((name) => ({
  name,
  isLocal: false,
  isReset: true
}))

/** What a call of `set_config` changes. */
export const settingsOfCall = (args: unknown): ReadonlyArray<Setting> => {
  const [name, , local] = (args ?? []) as ReadonlyArray<{ readonly A_Const?: Node } | undefined>
  const text = (name?.A_Const?.sval as { readonly sval?: string } | undefined)?.sval
  const isLocal = (local?.A_Const?.boolval as { readonly boolval?: boolean } | undefined)?.boolval === true
  return setting(text ?? "*", isLocal, false)
}

const setting = (text: string, isLocal: boolean, isReset: boolean): ReadonlyArray<Setting> => {
  const name = text.toLowerCase()
  return harmless.test(name) ? [] : [{ name, isLocal, isReset }]
}

/** Whether names mean something else under it. */
export const changesNames = ({ name }: Pick<Setting, "name">): boolean =>
  name === "*" || name === "search_path" || name === "role" || name === "session_authorization"

// They say how long something may take, how it is planned and what is logged of it.
const harmless = new RegExp(
  "^(?:[a-z_]+_timeout|application_name|client_min_messages|log_[a-z_]+|[a-z_]*work_mem|hash_mem_multiplier|" +
    "temp_buffers|enable_[a-z_]+|jit[a-z_]*|geqo[a-z_]*|cpu_[a-z_]+_cost|random_page_cost|seq_page_cost|" +
    "effective_[a-z_]+|(?:max_|min_)?parallel_[a-z_]+|max_parallel_[a-z_]+|synchronous_commit|" +
    "(?:default_)?transaction_[a-z_]+|(?:from|join)_collapse_limit|plan_cache_mode|cursor_tuple_fraction)$"
)
