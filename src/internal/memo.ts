/**
 * A map from texts to values, bounded by entries and by bytes of text.
 *
 * Two generations: what is used moves to the young one, and when that has half
 * of what is allowed, it becomes the old one, and the old one is forgotten. A
 * hit in the young one, which is nearly every hit, costs one map lookup; an
 * order of use kept entry by entry would cost two changes to the map.
 */
export interface Memo<A> {
  readonly get: (text: string) => A | undefined
  readonly set: (text: string, value: A) => void
}

export const make = <A>(options: { readonly capacity: number; readonly maxBytes: number }): Memo<A> => {
  const half = { entries: Math.max(1, Math.floor(options.capacity / 2)), bytes: options.maxBytes / 2 }
  let old = new Map<string, A>()
  let young = new Map<string, A>()
  let bytes = 0
  const set = (text: string, value: A): void => {
    const size = bytesOf(text)
    if (size > half.bytes) return
    if (young.size >= half.entries || bytes + size > half.bytes) {
      old = options.capacity > 1 ? young : new Map()
      young = new Map()
      bytes = 0
    }
    young.set(text, value)
    bytes += size
  }
  return {
    get: (text) => {
      const value = young.get(text)
      if (value !== undefined) return value
      const kept = old.get(text)
      if (kept !== undefined) {
        old.delete(text)
        set(text, kept)
      }
      return kept
    },
    set
  }
}

const bytesOf = (text: string): number => text.length * 2
