/**
 * A map from texts to values, bounded by entries and by bytes of text. The text
 * used longest ago goes first.
 */
export interface Memo<A> {
  readonly get: (text: string) => A | undefined
  readonly set: (text: string, value: A) => void
  readonly size: () => number
}

export const make = <A>(options: { readonly capacity: number; readonly maxBytes: number }): Memo<A> => {
  const entries = new Map<string, A>()
  let bytes = 0
  // As long as nothing is near eviction, the order of use is not worth keeping.
  const crowded = (): boolean => entries.size * 2 > options.capacity || bytes * 2 > options.maxBytes
  return {
    get: (text) => {
      const value = entries.get(text)
      if (value !== undefined && crowded()) {
        entries.delete(text)
        entries.set(text, value)
      }
      return value
    },
    set: (text, value) => {
      if (bytesOf(text) > options.maxBytes) return
      if (entries.delete(text)) bytes -= bytesOf(text)
      entries.set(text, value)
      bytes += bytesOf(text)
      while (entries.size > options.capacity || bytes > options.maxBytes) {
        const oldest = entries.keys().next().value!
        entries.delete(oldest)
        bytes -= bytesOf(oldest)
      }
    },
    size: () => entries.size
  }
}

const bytesOf = (text: string): number => text.length * 2
