/**
 * An exhaustive breadth-first checker: visits every state that a model can reach
 * and reports the shortest way to a wrong one.
 *
 * A state is plain data: numbers from -1, booleans, strings, null, and arrays and
 * objects of those. Its key is made here from all of it, so no model can forget a
 * field and merge two states that differ. Properties of one kind of object must
 * always come in the same order (a spread keeps it).
 *
 * Of a visited state only the key, the state it came from and the ordinal of the
 * step are kept. Labels are functions: they run when a trace is told, not before.
 */

/** Adds a successor. `wrong` says what promise this very step breaks, if it breaks one. */
export type Step<S> = (label: () => string, next: S, wrong?: string | false) => void

export interface Model<S> {
  readonly initial: S
  /** Of states that differ only in which of several equals is which, the one that stands for all. */
  readonly canonical?: (state: S) => S
  readonly next: (state: S, step: Step<S>) => void
  /** What is wrong with a state, if anything. */
  readonly wrong?: (state: S) => string | undefined
  /** What is wrong with a state in which nothing more can happen, if anything. */
  readonly stuck?: (state: S) => string | undefined
}

export interface Report {
  /** How many states were found: all there are, unless a violation ended the search. */
  readonly states: number
  readonly violation?: { readonly what: string; readonly trace: ReadonlyArray<string> }
}

/** Explores a model. Throws where it has more than `maxStates` states: then it proves nothing. */
export const explore = <S>(model: Model<S>, maxStates = 5_000_000): Report => {
  const key = (state: S): string => keyOf(model.canonical === undefined ? state : model.canonical(state))
  const seen = new Set<string>([key(model.initial)])
  let parents = new Int32Array(1 << 12)
  let ordinals = new Uint16Array(1 << 12)

  const trace = (state: number): ReadonlyArray<string> => {
    const path: Array<number> = []
    for (let at = state; at !== 0; at = parents[at]!) path.push(ordinals[at]!)
    const labels: Array<string> = []
    let from = model.initial
    for (const wanted of path.reverse()) {
      const successors: Array<{ readonly label: () => string; readonly next: S }> = []
      model.next(from, (label, next) => successors.push({ label, next }))
      const { label, next } = successors[wanted]!
      labels.push(label())
      from = next
    }
    return labels
  }

  // The number of the first state of `level` is `base`: states are expanded in the order they were found.
  let level: Array<S> = [model.initial]
  let base = 0
  while (level.length > 0) {
    const found: Array<S> = []
    for (let i = 0; i < level.length; i++) {
      const state = level[i]!
      const wrong = model.wrong?.(state)
      if (wrong !== undefined) return { states: seen.size, violation: { what: wrong, trace: trace(base + i) } }
      let ordinal = 0
      let violation: Report["violation"]
      model.next(state, (label, next, wrong) => {
        if (violation !== undefined) return
        if (wrong) {
          violation = { what: wrong, trace: [...trace(base + i), label()] }
          return
        }
        const size = seen.size
        if (seen.add(key(next)).size > size) {
          if (size === maxStates) throw new Error(`more than ${maxStates} states`)
          if (size === parents.length) {
            parents = grown(parents, new Int32Array(2 * size))
            ordinals = grown(ordinals, new Uint16Array(2 * size))
          }
          parents[size] = base + i
          ordinals[size] = ordinal
          found.push(next)
        }
        ordinal++
      })
      if (violation !== undefined) return { states: seen.size, violation }
      const stuck = ordinal === 0 ? model.stuck?.(state) : undefined
      if (stuck !== undefined) return { states: seen.size, violation: { what: stuck, trace: trace(base + i) } }
    }
    base += level.length
    level = found
  }
  return { states: seen.size }
}

/** A number for every member of a set of small numbers. */
export const bit = (i: number): number => 1 << i

/** An array with one element replaced. */
export const replaced = <A>(array: ReadonlyArray<A>, index: number, value: A): ReadonlyArray<A> => {
  const copy = array.slice()
  copy[index] = value
  return copy
}

/** Whether two values are equal as states are. */
export const same = (a: unknown, b: unknown): boolean => keyOf(a) === keyOf(b)

/** An array in an order that depends on its elements alone. */
export const sorted = <A>(array: ReadonlyArray<A>): ReadonlyArray<A> => {
  if (array.length < 2) return array
  const keys = array.map(keyOf)
  if (array.length === 2) return keys[0]! <= keys[1]! ? array : [array[1]!, array[0]!]
  const order = keys.map((_, i) => i).sort((i, j) => keys[i]! < keys[j]! ? -1 : keys[i] === keys[j] ? 0 : 1)
  return order.map((i) => array[i]!)
}

const grown = <A extends Int32Array | Uint16Array>(from: A, to: A): A => {
  to.set(from)
  return to
}

const buffer = Buffer.alloc(4096)
const strings = new Map<string, number>()

// What a byte at the head of a value means. Small numbers are one byte, from 16 upwards.
const absent = 0
const no = 1
const yes = 2
const wide = 3
const word = 4
const list = 5
const record = 6
const small = 16

const keyOf = (state: unknown): string => {
  const length = write(state, 0)
  // What is written beyond the end is lost, and states would look alike that are not.
  if (length > buffer.length) throw new Error("a state is too large")
  return buffer.toString("latin1", 0, length)
}

const write = (value: unknown, from: number): number => {
  let at = from
  if (typeof value === "number") {
    if (value < -1 || value > 65_535 || value % 1 !== 0) throw new Error(`not a number of a state: ${value}`)
    if (value < 230) buffer[at++] = small + 1 + value
    else at = writeWide(wide, value, at)
  } else if (value === null) {
    buffer[at++] = absent
  } else if (typeof value === "boolean") {
    buffer[at++] = value ? yes : no
  } else if (typeof value === "string") {
    let id = strings.get(value)
    if (id === undefined) strings.set(value, id = strings.size)
    at = writeWide(word, id, at)
  } else if (Array.isArray(value)) {
    at = writeWide(list, value.length, at)
    for (const element of value) at = write(element, at)
  } else if (typeof value === "object") {
    const head = at
    at += 2
    let count = 0
    for (const name in value) {
      at = write((value as Record<string, unknown>)[name], at)
      count++
    }
    buffer[head] = record
    buffer[head + 1] = count
  } else {
    throw new TypeError(`not a part of a state: ${String(value)}`)
  }
  return at
}

const writeWide = (head: number, value: number, at: number): number => {
  buffer[at] = head
  buffer[at + 1] = value >> 8
  buffer[at + 2] = value & 255
  return at + 3
}
