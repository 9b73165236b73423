/**
 * What the processes of a run write down as it happens, a line each. A line is with the operating system before the
 * process goes on, so that it outlives a kill -9.
 *
 * Times are microseconds of the machine's monotonic clock, which all processes share. What a process begins is noted
 * before it begins, and what has ended after it has ended: an operation took no longer than it is said to have taken.
 */
import { closeSync, openSync, readdirSync, readSync, writeSync } from "node:fs"
import { join } from "node:path"
import { StringDecoder } from "node:string_decoder"

/** How a process caches. `strict` is a namespace with fences; the others are told apart by when they hear of others. */
export type Mode = "redis" | "backplane" | "revalidate" | "strict"

/**
 * One register as a read has seen it. A `version` without a `writer` says only that there was none beyond it; -1 is a row
 * that should be there and was not.
 */
export type Seen = readonly [register: string, version: number, writer: string | null]

export interface Started {
  readonly type: "started"
  readonly mode: Mode
  readonly at: number
}

export interface Write {
  readonly type: "write"
  readonly id: string
  readonly kind: string
  readonly begin: number
  /** Whether it commits when COMMIT is sent, and not by itself. */
  readonly transaction: boolean
}

/** COMMIT is about to be sent. */
export interface Committing {
  readonly type: "committing"
  readonly id: string
  readonly at: number
}

export interface Written {
  readonly type: "written"
  readonly id: string
  readonly end: number
  /** `failed` says nothing of what the database did, `rolledback` that it was told not to do it. */
  readonly outcome: "acknowledged" | "rolledback" | "failed"
  /** Whether the store had taken every invalidation of it by then. */
  readonly delivered: boolean
  /** What the database gave, as far as it was not rolled back. */
  readonly versions: ReadonlyArray<readonly [register: string, version: number]>
}

export interface Read {
  readonly type: "read"
  readonly fiber: number
  readonly form: string
  readonly begin: number
  readonly end: number
  /** As `QueryInfo` tells it; `failed` where the database did. */
  readonly status: "hit" | "stale" | "miss" | "joined" | "bypass" | "failed"
  readonly level?: "L1" | "L2" | undefined
  readonly seen: ReadonlyArray<Seen>
  /** The sum of the versions of registers. */
  readonly sum?: { readonly of: ReadonlyArray<string>; readonly total: number } | undefined
  /** Rows of others than who asked. */
  readonly foreign?: number | undefined
  /**
   * When somebody in this process asked the same who had not been answered as this read began: both may have got one
   * answer, which is as old as the older question.
   */
  readonly sharedSince?: number | undefined
  /** For how long after its time to live it may have been served. */
  readonly retained?: number | undefined
  /** It was asked in a session whose token stands for all that was delivered by then. */
  readonly tokenAt?: number | undefined
  /** What the write has given whose token the session has. */
  readonly tokenOf?: ReadonlyArray<readonly [register: string, version: number]> | undefined
  /** All is quiet: it must be what the database has. */
  readonly quiet?: boolean | undefined
}

/** How many invalidations wait: as many as there were at some time between the two. */
export interface Queue {
  readonly type: "queue"
  readonly begin: number
  readonly end: number
  readonly undelivered: number
}

/** A process stopped or killed itself at a step. */
export interface Gate {
  readonly type: "gate"
  readonly step: string
  readonly action: string
  readonly at: number
}

export interface Fault {
  readonly type: "fault"
  readonly name: string
  readonly begin: number
  readonly end: number
}

/** What the database has when all is quiet. */
export interface Truth {
  readonly type: "truth"
  readonly at: number
  readonly versions: { readonly [register: string]: number }
}

/** What a process that lives was still waiting for when all was long quiet. */
export interface Hung {
  readonly type: "hung"
  readonly at: number
  readonly what: ReadonlyArray<string>
}

/** A process ended, and nobody had ended it. */
export interface Died {
  readonly type: "died"
  readonly at: number
  readonly how: string
}

export type Line = Started | Write | Committing | Written | Read | Queue | Gate | Fault | Truth | Hung | Died

/** A line, and the process that wrote it: `1.0` is the first process in the second place, `1.1` the one after it. */
export type Event = Line & { readonly process: string }

export const now = (): number => Number(process.hrtime.bigint() / 1000n)

export interface Log {
  readonly note: (line: Line) => void
  readonly close: () => void
}

export const open = (directory: string, process: string): Log => {
  const file = openSync(join(directory, `${process}.log`), "a")
  return {
    note: (line) => void writeSync(file, `${JSON.stringify(line)}\n`),
    close: () => closeSync(file)
  }
}

/** All lines of a run, in the order of each process. Reads as it is asked, so a run may be longer than memory. */
export const read = function*(directory: string): Generator<Event> {
  for (const name of readdirSync(directory).filter((name) => name.endsWith(".log")).sort()) {
    const process = name.slice(0, -".log".length)
    for (const line of lines(join(directory, name))) {
      // A line that a kill has cut off is none.
      if (line.endsWith("}")) yield { ...JSON.parse(line) as Line, process }
    }
  }
}

const lines = function*(path: string): Generator<string> {
  const file = openSync(path, "r")
  const buffer = new Uint8Array(1 << 16)
  const decoder = new StringDecoder("utf8")
  try {
    let rest = ""
    for (let size = readSync(file, buffer); size > 0; size = readSync(file, buffer)) {
      const parts = (rest + decoder.write(Buffer.from(buffer.buffer, 0, size))).split("\n")
      rest = parts.pop()!
      yield* parts
    }
    yield rest
  } finally {
    closeSync(file)
  }
}
