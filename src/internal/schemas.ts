/**
 * Keys and values of the program's own, by their schemas.
 */
import { sha3_256 } from "@noble/hashes/sha3.js"
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import * as SchemaRepresentation from "effect/SchemaRepresentation"
import type { CacheKey, Codec } from "../CacheStore.ts"
import { freeze } from "./rows.ts"

/** A schema that needs no services. */
export type Pure<A> = Schema.ConstraintCodec<A, unknown>

export type Local = CacheKey["local"]

export interface KeyCodec<K> {
  /**
   * The key as a Map has it, where that costs next to nothing; not checked against the schema. It is what `encode`
   * gives for every key that the schema takes.
   */
  readonly quick: (key: K) => Local | undefined
  /** `undefined` where the schema refuses the key. */
  readonly encode: (key: K) => Local | undefined
  /** What a dependency calls a key that was encoded: `42`, `ada`, `{"id":42}`. */
  readonly text: (key: K) => string
  /** As that of an {@link ExitCodec}: two schemas may write different keys alike. */
  readonly version: string
}

/**
 * Keys that are a string or a number stand for themselves. Structs of plain fields are joined field by field. All
 * others are their JSON, with sorted names.
 */
export const keyCodec = <K>(schema: Pure<K>): KeyCodec<K> => {
  const { encode: encodeExit, representation } = jsonCodec(schema)
  const version = digest(representation)
  const isEncodable = (key: K): boolean => Exit.isSuccess(encodeExit(key))
  const text = (key: K): string => {
    const exit = encodeExit(key)
    const value = Exit.isSuccess(exit) ? exit.value : undefined
    return typeof value === "string" ? value : canonicalJson(value)
  }
  const kind = plainKind(schema.ast)
  if (kind === "string" || kind === "number") {
    const quick = (key: K) => typeof key === kind ? key as Local : undefined
    return { quick, encode: (key) => isEncodable(key) ? quick(key) : undefined, text, version }
  }
  const fields = plainFields(schema.ast)
  if (fields !== undefined) {
    const quick = (key: any): string | undefined => {
      if (typeof key !== "object" || key === null) return undefined
      let joined = ""
      for (let i = 0; i < fields.length; i++) {
        const value = key[fields[i]]
        if (typeof value === "string") joined += `${value.length}"${value}`
        else if (typeof value === "number" || typeof value === "boolean") joined += `${value};`
        else return undefined
      }
      return joined
    }
    return { quick, encode: (key) => isEncodable(key) ? quick(key) : undefined, text, version }
  }
  return {
    quick: () => undefined,
    encode: (key) => {
      const exit = encodeExit(key)
      return Exit.isSuccess(exit) ? canonicalJson(exit.value) : undefined
    },
    text,
    version
  }
}

export interface ExitCodec {
  readonly codec: Codec
  readonly isError: (error: unknown) => boolean
  /** Differs for schemas that write or read differently, as far as a schema tells: what functions do it does not. */
  readonly version: string
}

/** Successes, and the failures that are kept. A letter says which. */
export const exitCodec = (Value: Pure<any>, Failure: Pure<any> | undefined): ExitCodec => {
  const value = jsonCodec(Value)
  const failure = Failure === undefined ? undefined : jsonCodec(Failure)
  return {
    codec: {
      encode: (stored) => {
        const exit = stored as Exit.Exit<unknown, unknown>
        if (Exit.isSuccess(exit)) return tagged("v", value.encode(exit.value))
        const error = Exit.findErrorOption(exit)
        return error._tag === "None" || failure === undefined ? undefined : tagged("e", failure.encode(error.value))
      },
      decode: (text): Exit.Exit<unknown, unknown> => {
        const json: unknown = JSON.parse(text.slice(1))
        if (text.startsWith("v")) return Exit.succeed(share(value.decode(json)))
        if (text.startsWith("e") && failure !== undefined) return Exit.fail(failure.decode(json))
        throw new TypeError("neither a value nor a failure")
      }
    },
    isError: Failure === undefined ? () => false : Schema.is(Failure),
    version: digest([value.representation, failure?.representation ?? ""].join("\n"))
  }
}

/** Freezes what is plain in a value, or in the option that it is. */
export const share = <A>(value: A): A => {
  freeze(Option.isOption(value) ? Option.getOrUndefined(value) : value)
  return value
}

/** A schema as JSON. `version` is all that is known of how it writes and reads. */
export const jsonCodec = (schema: Pure<any>) => {
  const json = Schema.toCodecJson(schema)
  return {
    encode: Schema.encodeUnknownExit(json),
    decode: Schema.decodeUnknownSync(json),
    representation: [schema.ast, SchemaAST.toType(schema.ast), json.ast].map((ast) =>
      JSON.stringify(SchemaRepresentation.toRepresentation(ast), written)
    ).join("\n")
  }
}

/** What JSON has no text for, or one for all. */
const written = (_: string, part: unknown): unknown =>
  typeof part === "bigint" || part instanceof RegExp ? `${typeof part} ${part}` : part

const tagged = (tag: string, encoded: Exit.Exit<unknown, unknown>): string | undefined => {
  if (Exit.isFailure(encoded)) return undefined
  const text = JSON.stringify(encoded.value)
  return text === undefined ? undefined : tag + text
}

export const digest = (text: string): string => bytesToHex(sha3_256(utf8ToBytes(text))).slice(0, 16)

/** The kind of a key that is encoded as it is. */
const plainKind = (ast: SchemaAST.AST): "string" | "number" | "other" | undefined => {
  if (ast.encoding !== undefined) return undefined
  switch (ast._tag) {
    case "String":
      return "string"
    case "Number":
      return "number"
    case "Boolean":
      return "other"
    case "Literal":
      return typeof ast.literal === "bigint" ? undefined : "other"
    default:
      return undefined
  }
}

/** The sorted names of a struct whose fields are all required and encoded as they are. */
const plainFields = (ast: SchemaAST.AST): ReadonlyArray<string> | undefined => {
  if (ast._tag !== "Objects" || ast.encoding !== undefined || ast.indexSignatures.length > 0) return undefined
  const names: Array<string> = []
  for (const { name, type } of ast.propertySignatures) {
    if (typeof name !== "string" || plainKind(type) === undefined || SchemaAST.isOptional(type)) return undefined
    names.push(name)
  }
  return names.sort()
}

const canonicalJson = (value: unknown): string =>
  JSON.stringify(value, (_, part: unknown) =>
    typeof part === "object" && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => a < b ? -1 : 1))
      : part) ?? "null"
