/**
 * Calls of one microtask travel together: what costs a client and a server most is
 * each command, not what it carries.
 *
 * A command runs in a fiber of its own and belongs to nobody in particular. So a
 * caller that is interrupted leaves the others alone, and what is answered after it
 * left can be given back. One command carries so many requests and so many bytes at
 * most, since a server does nothing else meanwhile; a request that is larger goes
 * alone.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { CacheError } from "../../CacheError.ts"

export interface Options<Target, Request, Answer> {
  /** Where a request goes. What goes to the same place, by identity, travels together. */
  readonly targetOf: (request: Request) => Target
  /** Sends one command: an answer for each request, in their order. */
  readonly send: (
    target: Target,
    requests: ReadonlyArray<Request>
  ) => Effect.Effect<ReadonlyArray<Answer>, CacheError>
  readonly maxRequests: number
  readonly maxBytes: number
  readonly bytesOf: (request: Request) => number
  /** What becomes of answers that nobody waits for any more. */
  readonly unclaimed?: ((request: Request, answer: Answer) => void) | undefined
}

/** A caller's requests, which several commands may carry, to several places. It fails with the first that fails. */
interface Call<Request, Answer> {
  readonly requests: ReadonlyArray<Request>
  readonly answers: Array<Answer | undefined>
  missing: number
  /** `undefined` once it was answered, failed, or has left. */
  resume: ((exit: Exit.Exit<ReadonlyArray<Answer>, CacheError>) => void) | undefined
}

interface Place<Request, Answer> {
  readonly call: Call<Request, Answer>
  readonly index: number
}

export const make = <Target, Request, Answer>(options: Options<Target, Request, Answer>) => {
  type Places = Array<Place<Request, Answer>>
  let waiting = new Map<Target, Places>()

  const flush = (): void => {
    const flushed = waiting
    waiting = new Map()
    for (const [target, places] of flushed) {
      for (const command of split(places.filter(({ call }) => call.resume !== undefined))) start(target, command)
    }
  }

  const split = (places: Places): ReadonlyArray<Places> => {
    const commands: Array<Places> = []
    let bytes = Infinity
    for (const place of places) {
      const more = options.bytesOf(place.call.requests[place.index])
      if (bytes + more > options.maxBytes || commands[commands.length - 1].length >= options.maxRequests) {
        commands.push([])
        bytes = 0
      }
      commands[commands.length - 1].push(place)
      bytes += more
    }
    return commands
  }

  const start = (target: Target, command: Places): void => {
    const fiber = Effect.runFork(options.send(target, command.map(({ call, index }) => call.requests[index])))
    fiber.addObserver((exit) => {
      command.forEach(({ call, index }, i) => {
        if (Exit.isFailure(exit)) return end(call, exit)
        if (call.resume === undefined) return options.unclaimed?.(call.requests[index], exit.value[i])
        call.answers[index] = exit.value[i]
        if (--call.missing === 0) call.resume(Exit.succeed(call.answers as ReadonlyArray<Answer>))
      })
    })
  }

  /** A call that failed or has left: what was answered already is nobody's. */
  const end = (call: Call<Request, Answer>, exit?: Exit.Exit<ReadonlyArray<Answer>, CacheError>): void => {
    const { resume } = call
    if (resume === undefined) return
    call.resume = undefined
    call.answers.forEach((answer, i) => {
      if (answer !== undefined) options.unclaimed?.(call.requests[i], answer)
    })
    if (exit !== undefined) resume(exit)
  }

  return (requests: ReadonlyArray<Request>): Effect.Effect<ReadonlyArray<Answer>, CacheError> =>
    requests.length === 0 ? Effect.succeed([]) : Effect.callback((resume) => {
      const answers = Array.from(requests, () => undefined)
      const call: Call<Request, Answer> = { requests, answers, missing: requests.length, resume }
      if (waiting.size === 0) queueMicrotask(flush)
      for (let index = 0; index < requests.length; index++) {
        const target = options.targetOf(requests[index])
        let places = waiting.get(target)
        if (places === undefined) waiting.set(target, places = [])
        places.push({ call, index })
      }
      return Effect.sync(() => end(call))
    })
}
