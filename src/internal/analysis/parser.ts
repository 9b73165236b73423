/**
 * PostgreSQL's own parser, as WebAssembly.
 *
 * This binds the module of `libpg-query` directly instead of its index, for one
 * reason: an instance that ran out of stack is not to be trusted. It goes on
 * answering, and some tens of such texts later it rejects what it used to
 * accept. The index keeps one instance for the whole process; here an instance
 * belongs to one analyzer, and a trap replaces it.
 */

/** A node of the syntax tree, as libpg_query prints it. */
export interface Node {
  readonly [field: string]: unknown
}

export type Parsed =
  | { readonly _tag: "Parsed"; readonly statements: ReadonlyArray<Node> }
  | { readonly _tag: "Rejected"; readonly position: number }
  | { readonly _tag: "Trapped" }
  | { readonly _tag: "Restarting" }

export interface Parser {
  readonly parse: (sql: string) => Parsed
  /** The tree of a `CREATE FUNCTION ... LANGUAGE plpgsql`, or nothing where it cannot be had. */
  readonly parseFunction: (definition: string) => Node | undefined
}

interface Wasm {
  readonly _malloc: (bytes: number) => number
  readonly _free: (pointer: number) => void
  readonly _wasm_parse_query_raw: (text: number) => number
  readonly _wasm_free_parse_result: (result: number) => void
  readonly _wasm_parse_plpgsql: (text: number) => number
  readonly _wasm_free_string: (text: number) => void
  readonly getValue: (pointer: number, type: "i32") => number
  readonly lengthBytesUTF8: (text: string) => number
  readonly stringToUTF8: (text: string, pointer: number, bytes: number) => void
  readonly UTF8ToString: (pointer: number, maxBytes: number) => string
}

/** Loads the parser. Rejects where WebAssembly or the package is missing. */
export const load = async (): Promise<Parser> => {
  // @ts-ignore the module has no types of its own
  const loaded: any = await import("libpg-query/wasm/libpg-query.js")
  // A CommonJS module: where its function ends up depends on who loads it.
  const instantiate: (options: object) => Promise<Wasm> = [loaded, loaded.default, loaded.default?.default]
    .find((candidate) => typeof candidate === "function")
  const start = (): Promise<Wasm> => instantiate({ print: ignore, printErr: ignore })
  let wasm: Wasm | undefined = await start()
  let starting: Promise<void> | undefined

  // Assigned last: with the stack exhausted any call may throw, and then the next text tries again.
  const restart = (): void => {
    starting ??= Promise.resolve().then(start)
      .then((fresh) => void (wasm = fresh), () => {})
      .finally(() => starting = undefined)
  }

  const guarded = <A>(run: (wasm: Wasm) => A, restarting: A, trapped: A): A => {
    if (wasm === undefined) {
      restart()
      return restarting
    }
    const host = (globalThis as Host).process
    const exitCode = host?.exitCode
    try {
      return run(wasm)
    } catch {
      // Out of memory, PostgreSQL exits: that is meant for the instance, not for the program around it.
      if (host !== undefined) host.exitCode = exitCode
      wasm = undefined
      restart()
      return trapped
    }
  }
  const parse = (sql: string): Parsed =>
    guarded<Parsed>((wasm) => run(wasm, sql), { _tag: "Restarting" }, { _tag: "Trapped" })

  const probe = parse("SELECT 1")
  if (probe._tag !== "Parsed" || probe.statements.length !== 1) {
    throw new Error("effect-query-cache: this version of libpg-query does not answer as expected")
  }
  return {
    parse,
    parseFunction: (definition) => guarded((wasm) => runFunction(wasm, definition), undefined, undefined)
  }
}

const enter = (wasm: Wasm, sql: string): number => {
  const bytes = wasm.lengthBytesUTF8(sql) + 1
  const text = wasm._malloc(bytes)
  if (text === 0) throw new Error("out of memory")
  wasm.stringToUTF8(sql, text, bytes)
  return text
}

// Nothing is freed when these throw: the instance is given up as a whole.
const runFunction = (wasm: Wasm, definition: string): Node | undefined => {
  const text = enter(wasm, definition)
  const result = wasm._wasm_parse_plpgsql(text)
  if (result === 0) throw new Error("out of memory")
  const answer = wasm.UTF8ToString(result, maxTreeBytes)
  wasm._wasm_free_string(result)
  wasm._free(text)
  // What is no object says what is wrong.
  return answer.startsWith("{") ? JSON.parse(answer) : undefined
}

const run = (wasm: Wasm, sql: string): Parsed => {
  const text = enter(wasm, sql)
  const result = wasm._wasm_parse_query_raw(text)
  if (result === 0) throw new Error("out of memory")
  // PgQueryParseResult: tree, standard error, error; PgQueryError: message, function, file, line, position.
  const tree = wasm.getValue(result, "i32")
  const error = wasm.getValue(result + 8, "i32")
  const parsed: Parsed = error !== 0
    ? { _tag: "Rejected", position: wasm.getValue(error + 16, "i32") }
    : { _tag: "Parsed", statements: statements(JSON.parse(wasm.UTF8ToString(tree, maxTreeBytes))) }
  wasm._wasm_free_parse_result(result)
  wasm._free(text)
  return parsed
}

// Twice what the densest text of 64 kB comes to. The tree of `SET (a, b) = (...)` holds the query once per column and
// so doubles with every level of nesting; cut off here it is no JSON, and ends as a trap.
const maxTreeBytes = 8 * 1024 * 1024

const ignore = (): void => {}

interface Host {
  readonly process?: { exitCode?: number | string | null | undefined }
}

const statements = (tree: { readonly stmts?: ReadonlyArray<{ readonly stmt?: Node }> }): ReadonlyArray<Node> =>
  (tree.stmts ?? []).map((raw) => raw.stmt ?? {})
