/**
 * Where the demo shows itself: progress that redraws itself on a terminal and stays in line elsewhere.
 */
import { Context, Effect, Layer } from "effect"
import { styleText } from "node:util"

export class Screen extends Context.Service<Screen, {
  readonly write: (text: string) => void
  /** Whether a line can be drawn over. */
  readonly redraws: boolean
}>()("examples/demo/Screen") {
  static readonly layer: Layer.Layer<Screen> = Layer.sync(Screen, () => ({
    write: (text) => process.stdout.write(text),
    redraws: process.stdout.isTTY === true
  }))
}

// `styleText` knows whether standard output is a terminal, and NO_COLOR.
export const bold = (text: string): string => styleText("bold", text)
export const dim = (text: string): string => styleText("dim", text)
export const good = (text: string): string => styleText("green", text)
export const bad = (text: string): string => styleText("red", text)

export const line = (text = ""): Effect.Effect<void, never, Screen> =>
  Effect.map(Screen, ({ write }) => write(`  ${text}`.trimEnd() + "\n"))

export const count = (n: number): string => n.toLocaleString("en-US")

export const seconds = (millis: number): string => `${(millis / 1000).toFixed(1)} s`

const labelWidth = 30
const barWidth = 28
const redrawMillis = 80

/** Runs an effect in several parts under a progress bar. `done` says how many of `total` are. */
export const progress = <A, E, R>(
  label: string,
  total: number,
  unit: string,
  run: (advance: (by: number) => Effect.Effect<void>) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R | Screen> =>
  Effect.gen(function*() {
    const { redraws, write } = yield* Screen
    const started = performance.now()
    const head = `  ${label.padEnd(labelWidth)}`
    let done = 0
    let drawn = started
    let quarters = 0
    const bar = () => {
      const filled = Math.round(barWidth * Math.min(1, done / total))
      return `${good("━".repeat(filled))}${dim("━".repeat(barWidth - filled))}`
    }
    write(redraws ? `${head}${bar()}` : head)
    const value = yield* run((by) =>
      Effect.sync(() => {
        done += by
        if (!redraws) {
          for (; quarters < Math.min(4, Math.floor(4 * done / total)); quarters++) write("▪")
        } else if (performance.now() - drawn > redrawMillis) {
          drawn = performance.now()
          write(`\r${head}${bar()} ${dim(`${Math.floor(100 * Math.min(1, done / total))} %`)}`)
        }
      })
    )
    const result = `${count(done)} ${unit} in ${seconds(performance.now() - started)}`
    write(redraws ? `\r${head}${bar()} ${result}\n` : ` ${result}\n`)
    return value
  })
