// What befalls the connections of one worker.
import * as Effect from "effect/Effect"
import type { Door, Kind, Weather } from "../../support/redisDoor.ts"
import type { Fault } from "../topology.ts"
import { between, lasting } from "./faults.ts"

const weathers: ReadonlyArray<readonly [name: string, weather: Weather]> = [
  ["stalled", { held: true }],
  ["stalled on the way to Redis", { held: true, way: "up" }],
  ["stalled on the way back", { held: true, way: "down" }],
  ["stalled subscription", { held: true, of: "subscriptions" }],
  ["half open", { lost: true }],
  ["half open on the way to Redis", { lost: true, way: "up" }],
  ["half open on the way back", { lost: true, way: "down" }],
  ["half-open subscription", { lost: true, of: "subscriptions" }],
  ["half-open commands", { lost: true, of: "commands" }]
]

/** Long enough for a deaf subscription to be noticed, which takes two of the longest ages. */
export const doorFaults = (doors: ReadonlyArray<Door>, maxStalenessMillis: number): ReadonlyArray<Fault> => {
  const all = <E, R>(each: (door: Door) => Effect.Effect<void, E, R>) => Effect.forEach(doors, each, { discard: true })
  const cut = (name: string, of?: Kind): Fault => ({ name, run: () => all((door) => door.cut(of)) })
  return [
    ...weathers.map(([name, weather]): Fault => ({
      name,
      run: (random) =>
        lasting(between(random, maxStalenessMillis / 2, maxStalenessMillis * 3), all((door) => door.weather(weather)))
    })),
    {
      name: "slow",
      run: (random) => {
        const most = between(random, 2, 150)
        const delayMillis = () => between(random, 0, most)
        return lasting(between(random, 300, 2_000), all((door) => door.weather({ delayMillis })))
      }
    },
    {
      name: "trickling",
      run: (random) =>
        lasting(
          between(random, 300, 2_000),
          all((door) => door.weather({ bytesPerMilli: between(random, 1, 40) }))
        )
    },
    cut("cut"),
    cut("cut commands", "commands"),
    cut("cut subscription", "subscriptions"),
    {
      name: "refused",
      run: (random) =>
        lasting(
          between(random, 50, maxStalenessMillis * 2),
          all((door) => Effect.andThen(door.refuse, door.cut()))
        )
    }
  ]
}
