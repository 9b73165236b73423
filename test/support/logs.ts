// What a program logs, kept: as a person would read it, with every cause and annotation.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { inspect } from "node:util"

export class Logs extends Context.Service<Logs, {
  /** Messages of the library, in order. */
  readonly messages: Effect.Effect<ReadonlyArray<string>>
  /** All there is of all that was logged, to be searched for what must not be in it. */
  readonly everything: Effect.Effect<string>
}>()("test/Logs") {}

export const layer: Layer.Layer<Logs> = Layer.unwrap(Effect.sync(() => {
  const lines: Array<Logger.Options<unknown>> = []
  return Layer.merge(
    Logger.layer([Logger.make((options) => void lines.push(options))]),
    Layer.succeed(Logs, {
      messages: Effect.sync(() => lines.map(({ message }) => String(Array.isArray(message) ? message[0] : message))),
      everything: Effect.sync(() =>
        lines.map(({ cause, date, logLevel, message }) =>
          inspect({ cause, date, logLevel, message }, { depth: 12, showHidden: true })
        ).join("\n")
      )
    })
  )
}))
