/**
 * What visitors do, the same on every run: a few customers and products are asked for most of the time, as in any
 * shop, and one operation in twenty is a write.
 */
import { Effect, Random } from "effect"
import { categories, type Dashboard, dashboards, pageSize, type Size } from "./Shop.ts"

export type Read =
  | { readonly kind: "profile"; readonly customer: number }
  | { readonly kind: "catalogue"; readonly category: number; readonly page: number }
  | { readonly kind: "history"; readonly customer: number }
  | { readonly kind: "dashboard"; readonly name: Dashboard }

export type Write =
  | { readonly kind: "move"; readonly customer: number; readonly city: string }
  | { readonly kind: "reprice"; readonly product: number; readonly cents: number }
  | { readonly kind: "order"; readonly customer: number; readonly products: ReadonlyArray<number> }

export type Operation = Read | Write

/** Nobody looks further. */
const maxPages = 3

const readKinds: ReadonlySet<string> = new Set(["profile", "catalogue", "history", "dashboard"])

export const isRead = (operation: Operation): operation is Read => readKinds.has(operation.kind)

const shares: ReadonlyArray<readonly [kind: Operation["kind"], share: number]> = [
  ["profile", 0.42],
  ["catalogue", 0.25],
  ["history", 0.23],
  ["dashboard", 0.05],
  ["move", 0.0385],
  ["order", 0.01],
  ["reprice", 0.0015]
]

export const make = (options: {
  readonly size: Size
  readonly operations: number
  readonly seed: string
}): Effect.Effect<ReadonlyArray<Operation>> => {
  const { customers, products } = options.size
  const popularCustomer = zipf(customers)
  const popularCategory = zipf(categories)
  const popularPage = zipf(Math.min(maxPages, Math.ceil(products / categories / pageSize)))

  const operation: Effect.Effect<Operation> = Effect.gen(function*() {
    const customer = popularCustomer(yield* Random.next)
    const kind = pick(yield* Random.next)
    switch (kind) {
      case "profile":
      case "history":
        return { kind, customer }
      case "catalogue":
        return {
          kind,
          category: popularCategory(yield* Random.next) - 1,
          page: popularPage(yield* Random.next) - 1
        }
      case "dashboard":
        return { kind, name: yield* oneOf(dashboards) }
      case "move":
        return { kind, customer, city: yield* oneOf(["Lisbon", "Oslo", "Kyoto", "Lima", "Turin"]) }
      case "reprice":
        return {
          kind,
          product: yield* Random.nextIntBetween(1, products),
          cents: yield* Random.nextIntBetween(100, 20_000)
        }
      case "order": {
        const first = yield* Random.nextIntBetween(1, products)
        return { kind, customer, products: [first, 1 + first % products] }
      }
    }
  })
  return Effect.replicateEffect(operation, options.operations).pipe(Random.withSeed(options.seed))
}

const oneOf = <A>(items: ReadonlyArray<A>): Effect.Effect<A> =>
  Effect.map(Random.nextIntBetween(0, items.length - 1), (index) => items[index]!)

const pick = (at: number): Operation["kind"] => {
  let rest = at
  for (const [kind, share] of shares) {
    rest -= share
    if (rest < 0) return kind
  }
  return "profile"
}

/** Zipf's law: rank n is asked for n^1.2 times less often than the first. */
const zipf = (count: number): (at: number) => number => {
  const cumulated: Array<number> = []
  let sum = 0
  for (let rank = 1; rank <= count; rank++) cumulated.push(sum += rank ** -1.2)
  return (at) => {
    const wanted = at * sum
    let low = 0
    let high = count - 1
    while (low < high) {
      const middle = (low + high) >> 1
      if (cumulated[middle]! < wanted) low = middle + 1
      else high = middle
    }
    return low + 1
  }
}
