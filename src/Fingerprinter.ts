/**
 * The identity of a query between processes: a digest over everything that
 * decides its answer.
 *
 * @since 0.1.0
 */
import { sha3_256 } from "@noble/hashes/sha3.js"
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js"
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"

/**
 * What decides the answer of a query.
 *
 * @category models
 * @since 0.1.0
 */
export interface QueryFacts {
  /** Which database, and which program. */
  readonly namespace: string
  /** The compiled SQL text. */
  readonly sql: string
  /**
   * The parameters as text, tagged by type: `1`, `"1"`, `1n`, `null`,
   * `undefined`, a Date and bytes differ.
   */
  readonly parameters: string
  /** What the answer is: rows as objects, rows as arrays, with or without transforms. */
  readonly form: string
  /** The program's own version of its schema, if it names one. */
  readonly schemaVersion: string
  /** The session: login user, search_path, isolation level and other settings of the client's configuration. */
  readonly session: string
  /** Who asks: the key of the `CacheScope`, or nothing. */
  readonly scope: string
}

/**
 * Computes fingerprints.
 *
 * **When to use**
 *
 * Use the default {@link layer}. Replace it to share entries with another
 * program's naming, or to treat texts as equal that differ in white space.
 *
 * **Gotchas**
 *
 * Two queries with one fingerprint are one query: a replacement that leaves out
 * a fact serves one caller's rows to another. Inside a process the memory store
 * keeps queries apart by the facts themselves.
 *
 * @category services
 * @since 0.1.0
 */
export class Fingerprinter extends Context.Service<Fingerprinter, {
  readonly fingerprint: (facts: QueryFacts) => string
}>()("effect-query-cache/Fingerprinter") {}

/**
 * SHA3-256 (FIPS 202) in hexadecimal over all facts, each preceded by its
 * length.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Fingerprinter> = Layer.sync(Fingerprinter, () => {
  const digest = makeDigest()
  return {
    fingerprint: (facts) =>
      digest(
        part(facts.namespace) + part(facts.sql) + part(facts.form) + part(facts.schemaVersion) + part(facts.session) +
          part(facts.scope) + part(facts.parameters)
      )
  }
})

const part = (text: string): string => `${text.length}:${text}`

// Node's own digest is ten times faster where there is one; edge runtimes have none.
const makeDigest = (): (text: string) => string => {
  const crypto = (globalThis as any).process?.getBuiltinModule?.("node:crypto")
  if (typeof crypto?.createHash === "function" && crypto.getHashes().includes("sha3-256")) {
    return (text) => crypto.createHash("sha3-256").update(wellFormed(text)).digest("hex")
  }
  return (text) => bytesToHex(sha3_256(utf8ToBytes(wellFormed(text))))
}

// UTF-8 has one replacement character for every lone surrogate: keep them apart.
const wellFormed = (text: string): string => (text as any).isWellFormed?.() === false ? escapeSurrogates(text) : text

const escapeSurrogates = (text: string): string =>
  text.replace(
    /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g,
    (unit) => `\0${unit.charCodeAt(0).toString(16)}`
  )
