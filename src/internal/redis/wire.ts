/**
 * How names and sets are written for Redis.
 *
 * Everything a script takes apart is a list of lines whose cells are divided by
 * tabs. What stands in them never contains a control character: table and column
 * names are plain or quoted as `Dependency` writes them, values are JSON text,
 * and other stamps are escaped here. Lone surrogates are escaped too, because
 * they do not survive UTF-8: two tags that differ only in one would become the
 * same stamp, and come back from the channel as a third.
 */
import { sha3_256 } from "@noble/hashes/sha3.js"
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js"
import type { InvalidateRequest, Invalidation, LogicalClock } from "../../CacheStore.ts"
import * as Dependency from "../../Dependency.ts"
import * as Epoch from "../epoch.ts"

// Stamps that begin with `~` are taken: by escaped ones, and by the sentinel.
const unsafeStamp = /^~|^$|[\u0000-\u001f]|\p{Surrogate}/u

/** One stamp as a member of the sorted set. */
const stamp = (name: string): string => unsafeStamp.test(name) ? `~${JSON.stringify(name)}` : name

const stampBack = (member: string): string => member.startsWith("~") ? String(JSON.parse(member.slice(1))) : member

/** Namespaces and fingerprints, which become parts of keys: without braces, which would move the hash tag. */
export const name = (text: string): string =>
  text.replace(unsafeInName, (char) => `%${char.charCodeAt(0).toString(16).padStart(4, "0")}`)

const unsafeInName = /[%{}\u0000-\u001f]|\p{Surrogate}/gu

const nameBack = (text: string): string =>
  text.replace(/%([0-9a-f]{4})/g, (_, code) => String.fromCharCode(parseInt(code, 16)))

/** A dependency set as the scripts take it. */
export interface WireSet {
  readonly stamps: string
  readonly shapes: string
}

const sets = new WeakMap<Dependency.DependencySet, WireSet>()

export const set = (dependencies: Dependency.DependencySet): WireSet => {
  let wire = sets.get(dependencies)
  if (wire === undefined) {
    wire = {
      stamps: dependencies.stamps.map(stamp).join("\n"),
      shapes: dependencies.shapes.map((shape) => [shape.table, ...shape.columns].join("\t")).join("\n")
    }
    sets.set(dependencies, wire)
  }
  return wire
}

/** The keys that scripts name themselves by: all of one shard share a hash tag, hence a slot. */
export class Keys {
  private readonly base: string
  readonly namespace: string
  readonly metadata: readonly [meta: string, stamps: string]
  /** The same, and one that scripts may delete, to learn whether Redis accepts writes. */
  readonly writable: readonly [meta: string, stamps: string, scratch: string]
  /** Those of a namespace that is kept strict. */
  readonly strict: readonly [meta: string, stamps: string, fences: string]

  constructor(prefix: string, namespace: string, shard: number) {
    this.namespace = name(namespace)
    this.base = `${prefix}:{${this.namespace}:${shard}}:`
    this.metadata = [`${this.base}meta`, `${this.base}stamps`]
    this.writable = [...this.metadata, `${this.base}scratch`]
    this.strict = [...this.metadata, `${this.base}fences`]
  }

  entry(fingerprint: string): string {
    return `${this.base}e:${name(fingerprint)}`
  }

  /** Who reads an entry that is not there. */
  flight(fingerprint: string): string {
    return `${this.base}f:${name(fingerprint)}`
  }

  /** The hash and the expiries of the part of a group that a fingerprint falls into. */
  group(set: WireSet, fingerprint: string): readonly [hash: string, expiries: string] {
    return this.part(digest(set.stamps), partOf(fingerprint))
  }

  /** Every part of the group of those entries that depend on one whole table and nothing else. */
  groupsOfTable(table: string): ReadonlyArray<string> {
    const group = digest([table, Dependency.wildcard(table)].map(stamp).sort().join("\n"))
    return Array.from({ length: parts }, (_, part) => this.part(group, part)).flat()
  }

  private part(group: string, part: number): readonly [hash: string, expiries: string] {
    return [`${this.base}g:${group}:${part}`, `${this.base}x:${group}:${part}`]
  }
}

// Large groups are split, so that dropping one is many small steps and not one large one.
const parts = 16

const partOf = (fingerprint: string): number => {
  let hash = 0
  for (let i = 0; i < fingerprint.length; i++) hash = Math.imul(hash, 31) + fingerprint.charCodeAt(i) | 0
  return (hash ^ hash >>> 16) & (parts - 1)
}

// A collision would serve an entry under the dependencies of another, hence a cryptographic digest.
const digest = (stamps: string): string => {
  let hex = digests.get(stamps)
  if (hex === undefined) {
    if (digests.size >= 1024) digests.clear()
    digests.set(stamps, hex = bytesToHex(sha3_256(utf8ToBytes(stamps))).slice(0, 40))
  }
  return hex
}

const digests = new Map<string, string>()

/** Images beyond this many per table are not sent: the shapes of the table are stamped as wholes. */
const maxImages = 1000

/** Stamps beyond this many are not sent: everything is invalidated. */
const maxStamps = 20_000

/** Values longer than this are not sent: shapes with their column are stamped as wholes. */
const maxValueLength = 512

/** What an invalidation marks, as its script takes it. */
export interface WireTargets {
  readonly all: boolean
  readonly stamps: string
  readonly images: string
  /** Tables whose shapes are stamped as wholes. */
  readonly wholes: string
}

const everything: WireTargets = { all: true, stamps: "", images: "", wholes: "" }

export const targets = (request: InvalidateRequest): WireTargets => {
  if (request.all) return everything
  const byTable = new Map<string, Array<Dependency.Image>>()
  for (const image of request.images) {
    const images = byTable.get(image.table)
    if (images === undefined) byTable.set(image.table, [image])
    else images.push(image)
  }
  const stamps = new Set([...request.stamps, ...byTable.keys()])
  if (stamps.size > maxStamps) return everything
  const images: Array<string> = []
  const wholes: Array<string> = []
  for (const [table, ofTable] of byTable) {
    if (ofTable.length > maxImages || images.length > maxStamps) wholes.push(table)
    else for (const image of ofTable) images.push(imageLine(image))
  }
  return {
    all: false,
    stamps: Array.from(stamps, stamp).join("\n"),
    images: images.join("\n"),
    wholes: wholes.join("\n")
  }
}

const imageLine = (image: Dependency.Image): string => {
  let line = image.table
  for (const [column, value] of image.columns) {
    if (value === null || value.length <= maxValueLength) line += `\t${column}\t${JSON.stringify(value)}`
  }
  return line
}

/** The tables among the targets, under the names their stamps have. */
export const tables = (request: InvalidateRequest): ReadonlyArray<string> => {
  const found = new Set(request.images.map((image) => image.table))
  const stamps = new Set(request.stamps)
  for (const name of stamps) {
    if (stamps.has(Dependency.wildcard(name))) found.add(name)
  }
  return [...found]
}

/** A process asks how far it has heard: behind all invalidations that were acknowledged before it asked. */
export interface Beat extends LogicalClock {
  readonly namespace: string
  readonly shard: number
  /** Names who asked, and which time. */
  readonly nonce: string
}

/** Reads a message of the channel. `undefined` where no version of the scripts writes such a one. */
export const message = (text: string): Invalidation | Beat | undefined => {
  const [version, name, epoch, clock, kind, ...rest] = text.split("\t")
  if (version !== "1" || !epoch || !/^\d{1,16}$/.test(clock ?? "")) return undefined
  const shard = Epoch.shardOf(epoch)
  if (!(shard >= 0)) return undefined
  const head = { namespace: nameBack(name), shard, epoch, clock: Number(clock) }
  if (kind === "b") return rest.length === 1 ? { ...head, nonce: rest[0] } : undefined
  if (kind !== "" && kind !== "*") return undefined
  try {
    return { ...head, all: kind === "*", stamps: rest.filter((line) => line !== "").map(stampBack) }
  } catch {
    return undefined
  }
}

export const isBeat = (message: Invalidation | Beat): message is Beat => "nonce" in message
