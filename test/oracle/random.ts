// Choices that a seed determines.
import { seeded } from "../bench/harness.ts"

export class Random {
  private readonly next: () => number

  constructor(seed: number) {
    this.next = seeded(seed)
  }

  /** A whole number from 0 to `end`, without `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end)
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  pick<A>(items: ReadonlyArray<A>): A {
    if (items.length === 0) throw new Error("nothing to choose from")
    return items[this.below(items.length)]!
  }

  /** One of the values, each as often as its weight says. */
  weighted<A>(items: ReadonlyArray<readonly [weight: number, item: A]>): A {
    let at = this.next() * items.reduce((sum, [weight]) => sum + weight, 0)
    for (const [weight, item] of items) {
      at -= weight
      if (at < 0) return item
    }
    return items[items.length - 1]![1]
  }

  shuffle<A>(items: ReadonlyArray<A>): Array<A> {
    const rest = [...items]
    const out: Array<A> = []
    while (rest.length > 0) out.push(...rest.splice(this.below(rest.length), 1))
    return out
  }

  /** Some of the items, at least `least` where there are as many, in their order. */
  some<A>(items: ReadonlyArray<A>, least = 1): Array<A> {
    const count = Math.min(items.length, least + this.below(items.length - least + 1))
    const chosen = new Set(this.shuffle(items.map((_, i) => i)).slice(0, Math.max(count, least)))
    return items.filter((_, i) => chosen.has(i))
  }

  times<A>(least: number, most: number, make: (index: number) => A): Array<A> {
    return Array.from({ length: least + this.below(most - least + 1) }, (_, i) => make(i))
  }
}
