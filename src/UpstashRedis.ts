/**
 * Redis over HTTP: `Redis.Redis` for Upstash and whatever speaks its REST
 * protocol, where TCP is not to be had.
 *
 * The client of `@upstash/redis` takes its transport from outside, as a
 * `Requester`, and the one here is written for what a cache needs. The client's
 * own puts the whole command, parameters and rows included, into its errors,
 * hides the HTTP status, sends a command again when it may already have run,
 * and never tells that an event stream has ended.
 *
 * What this transport keeps:
 *
 * 1. No error, log or span holds the token or an argument of a command.
 * 2. A command is sent again only when the request before cannot have reached
 *    the server. Nothing runs twice because a reply was lost.
 * 3. Commands sent in one tick share a request, not a fate: each has its own
 *    reply or error, and one caller's interruption leaves the others alone.
 * 4. Every request is bounded in time, a stream by its scope, and ends with its
 *    last caller.
 *
 * Needs the optional peer `@upstash/redis`, so it is reached by its subpath.
 *
 * @since 0.1.0
 */
import { Redis as UpstashClient, type UpstashRequest } from "@upstash/redis"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { InvalidOptionError } from "./CacheError.ts"
import * as Options from "./internal/options.ts"

/**
 * The client of `@upstash/redis` behind the `Redis` service, for commands by
 * name. It shares the service's transport: time-outs, retries, pipelining, and
 * errors without arguments.
 *
 * **Gotchas**
 *
 * The client turns replies that look like JSON into values, as it always does;
 * `Redis.send` returns them as they are. Its own `subscribe` is not served: use
 * the one of `Redis`.
 *
 * @category services
 * @since 0.1.0
 */
export class UpstashRedis extends Context.Service<UpstashRedis, {
  readonly client: UpstashClient
  readonly use: <A>(f: (client: UpstashClient) => Promise<A>) => Effect.Effect<A, Redis.RedisError>
}>()("effect-query-cache/UpstashRedis") {}

/**
 * Options of {@link layer}.
 *
 * @category options
 * @since 0.1.0
 */
export interface UpstashOptions {
  /** Where the REST interface is: an http or https URL without credentials, query or fragment. */
  readonly url: string
  /** The token of that database. Kept redacted. */
  readonly token: string | Redacted.Redacted<string>
  /** How long a command may take, retries included, and a subscription until it is confirmed. Defaults to 2 seconds. */
  readonly requestTimeout?: Duration.Input | undefined
  /**
   * How often a command is sent again that cannot have reached the server: no
   * such host, connection refused, no connection in time. Waits 50 ms, then
   * twice as long each time. Defaults to 2; 0 is never.
   */
  readonly retries?: number | undefined
  /**
   * Whether commands sent in the same tick share one request, up to 128 of them
   * or 256 KiB. They run in the order they were sent in, and commands of others
   * may come between. Defaults to `true`.
   */
  readonly pipelining?: boolean | undefined
}

/**
 * Why a request brought no reply:
 *
 * - `Unreachable`: it cannot have reached the server;
 * - `Disconnected`: the connection broke, and a command may have run;
 * - `Timeout`: no answer in time, and a command may have run;
 * - `Denied`: the token was refused (HTTP 401 or 403);
 * - `Status`: any other HTTP status that is not a success;
 * - `InvalidReply`: a success that is not a reply;
 * - `Command`: Redis itself refused the command, in its own words;
 * - `Unsupported`: REST has no such thing.
 *
 * @category errors
 * @since 0.1.0
 */
export type RestErrorReason =
  | "Unreachable"
  | "Disconnected"
  | "Timeout"
  | "Denied"
  | "Status"
  | "InvalidReply"
  | "Command"
  | "Unsupported"

/**
 * The `cause` of every `RedisError` from this `Redis`. Its message holds neither
 * the token nor an argument of a command.
 *
 * @category errors
 * @since 0.1.0
 */
export class RestError extends Error {
  override readonly name = "UpstashRestError"
  readonly reason: RestErrorReason
  /** The HTTP status, where there was one that says something. */
  readonly status: number | undefined

  constructor(reason: RestErrorReason, message: string, status?: number) {
    super(message)
    this.reason = reason
    this.status = status
  }
}

/**
 * Provides `Redis` over REST, and the client of `@upstash/redis`.
 *
 * **Details**
 *
 * - Building the layer asks nothing of the server: a wrong token shows at the
 *   first command.
 * - `send` returns what Redis returns under RESP2: integers as numbers, nil as
 *   `null`, arrays nested as they are, text as it was written. As over TCP, bytes
 *   that are not UTF-8 do not survive, and integers beyond 2^53 lose precision.
 * - `eval` loads a script once and runs it by its digest; a server that has
 *   forgotten it gets it again.
 * - `subscribe` succeeds once the server has confirmed it, so what is published
 *   afterwards arrives. Closing its scope ends the request. When the stream
 *   ends or breaks, the queue fails with `RedisError`, and the caller subscribes
 *   again.
 * - `reserve` fails with `RedisError`: REST has no connections.
 * - Every failure is a `RedisError` whose cause is a {@link RestError}.
 * - Only `fetch` is asked for, so it runs on edge runtimes.
 *
 * **Gotchas**
 *
 * - Interrupting a caller ends its request if no other command shares it. The
 *   command may run all the same.
 * - Commands that do not wait for one another may run in any order: each tick
 *   is a request of its own.
 * - Where nothing is published for five minutes, the `fetch` of Node ends the
 *   stream.
 * - Bad options throw an `InvalidOptionError`, which does not show the token.
 *
 * **Example** (A database of Upstash)
 *
 * ```ts
 * import { Redacted } from "effect"
 * import * as UpstashRedis from "effect-query-cache/UpstashRedis"
 *
 * export const redis = UpstashRedis.layer({
 *   url: "https://us1-merry-cat-32748.upstash.io",
 *   token: Redacted.make("..."),
 *   requestTimeout: "1 second"
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: UpstashOptions): Layer.Layer<Redis.Redis | UpstashRedis> =>
  Layer.effectContext(make(check("UpstashRedis.layer", options)))

/**
 * Like {@link layer}, with options from the configuration. The URL and the
 * token default to `UPSTASH_REDIS_REST_URL` and `UPSTASH_REDIS_REST_TOKEN`.
 *
 * **Gotchas**
 *
 * A missing value is a `ConfigError`. A bad one is an `InvalidOptionError` that
 * the layer dies with when it is built.
 *
 * **Example** (From the environment)
 *
 * ```ts
 * import { Config } from "effect"
 * import * as UpstashRedis from "effect-query-cache/UpstashRedis"
 *
 * export const redis = UpstashRedis.layerConfig({
 *   requestTimeout: Config.Duration("UPSTASH_TIMEOUT").pipe(Config.withDefault(undefined))
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options?: Config.Wrap<Partial<UpstashOptions>>
): Layer.Layer<Redis.Redis | UpstashRedis, Config.ConfigError> =>
  Layer.effectContext(Effect.gen(function*() {
    const given = yield* Config.unwrap<Partial<UpstashOptions>>(options ?? {})
    const url = given.url ?? (yield* Config.String("UPSTASH_REDIS_REST_URL"))
    const token = given.token ?? (yield* Config.Redacted("UPSTASH_REDIS_REST_TOKEN"))
    return yield* make(check("UpstashRedis.layerConfig", { ...given, url, token }))
  }))

interface Settings {
  readonly url: string
  readonly token: Redacted.Redacted<string>
  readonly timeoutMillis: number
  readonly retries: number
  readonly pipelining: boolean
}

const check = (owner: string, options: UpstashOptions): Settings => {
  // By name alone: what is misspelt may be the token.
  const names = Object.fromEntries(Object.keys(options).map((name) => [name, hidden]))
  Options.known(owner, names, ["url", "token", "requestTimeout", "retries", "pipelining"])
  const { pipelining = true, retries = 2 } = options
  if (!Number.isSafeInteger(retries) || retries < 0) {
    throw new InvalidOptionError(owner, "retries", retries, "a whole number, 0 or above")
  }
  if (typeof pipelining !== "boolean") {
    throw new InvalidOptionError(owner, "pipelining", pipelining, "true or false")
  }
  return {
    url: checkUrl(owner, options.url),
    token: checkToken(owner, options.token),
    timeoutMillis: Options.millis(owner, "requestTimeout", options.requestTimeout, 2_000),
    retries,
    pipelining
  }
}

// People paste `rediss://default:<password>@...`, add `?_token=...`, or swap the two values. Only what cannot be a
// secret is shown.
const checkUrl = (owner: string, value: string): string => {
  let url: URL | undefined
  try {
    url = new URL(value)
  } catch {}
  if (
    url === undefined || !/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "" ||
    url.search !== "" || url.hash !== ""
  ) {
    throw new InvalidOptionError(
      owner,
      "url",
      url === undefined || url.host === "" ? hidden : `${url.protocol}//${url.host}`,
      "an http or https URL without credentials, query or fragment"
    )
  }
  return url.href.replace(/\/+$/, "")
}

// `fetch` would refuse anything else as a header, and show it in its error.
const checkToken = (owner: string, value: UpstashOptions["token"]): Redacted.Redacted<string> => {
  const token = Redacted.isRedacted(value) ? Redacted.value(value) : value
  if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token)) {
    throw new InvalidOptionError(owner, "token", hidden, "a string of visible ASCII characters")
  }
  return Redacted.make(token)
}

const hidden = "<redacted>"

const make = Effect.fnUntraced(function*(settings: Settings) {
  const http = makeHttp(settings)
  const send = yield* makeSend(http, settings)

  const redis = yield* Redis.make({
    send,
    subscribe: makeSubscribe(http, settings),
    connect: Effect.fail(redisError(new RestError("Unsupported", "REST has no connections to reserve")))
  })

  const runPromise = Effect.runPromiseWith(yield* Effect.context<never>())
  const answer = ({ body, onMessage, path }: UpstashRequest): Effect.Effect<unknown, Redis.RedisError> => {
    if (onMessage !== undefined || !Array.isArray(body)) {
      return Effect.fail(redisError(new RestError("Unsupported", "Only commands are served here")))
    }
    if (path === undefined) {
      const [command, ...args] = body.map(String)
      return Effect.map(send(command!, ...args), (result) => ({ result }))
    }
    return Effect.map(bounded(http.json(path, body), settings), (replies) => withoutArguments(replies, settings))
  }
  const client = new UpstashClient({
    request: (request): Promise<any> =>
      runPromise(Effect.mapError(answer(request), (error) => error.cause), { signal: request.signal })
  })

  return Context.make(UpstashRedis, {
    client,
    use: (f) => Effect.tryPromise({ try: () => f(client), catch: redisError })
  }).pipe(Context.add(Redis.Redis, redis))
})

const redisError = (cause: unknown): Redis.RedisError => new Redis.RedisError({ cause })

// -----------------------------------------------------------------------------
// HTTP
// -----------------------------------------------------------------------------

interface Http {
  /** Posts JSON and returns the JSON of the answer. Interruption ends the request. */
  readonly json: (path: ReadonlyArray<string>, body: unknown) => Effect.Effect<unknown, Redis.RedisError>
  /** The answer as soon as it begins. Rejects with a {@link RestError}. */
  readonly open: (
    path: ReadonlyArray<string>,
    accept: string,
    body: string | undefined,
    signal: AbortSignal
  ) => Promise<Response>
}

const makeHttp = (settings: Settings): Http => {
  // Upstash names here how far it has come. Said back to it, a replica that is behind catches up before it answers.
  let syncToken = ""

  const open: Http["open"] = async (path, accept, body, signal) => {
    const headers: Record<string, string> = {
      Accept: accept,
      Authorization: `Bearer ${Redacted.value(settings.token)}`
    }
    if (body !== undefined) headers["Content-Type"] = "application/json"
    if (syncToken !== "") headers["upstash-sync-token"] = syncToken
    let response: Response
    try {
      response = await fetch([settings.url, ...path].join("/"), {
        method: "POST",
        headers,
        ...(body === undefined ? undefined : { body }),
        signal,
        // Some frameworks cache what their `fetch` has posted.
        cache: "no-store",
        // Nobody else is shown the token.
        redirect: "manual"
      })
    } catch (error) {
      throw networkError(error)
    }
    syncToken = response.headers.get("upstash-sync-token") ?? syncToken
    if (!response.ok) throw await refusal(response)
    return response
  }

  const refusal = async (response: Response): Promise<RestError> => {
    const { status } = response
    let said: string | undefined
    try {
      said = errorText(JSON.parse(await response.text()))
    } catch {}
    const detail = said === undefined ? "" : `: ${publicText(said, settings.token)}`
    return status === 401 || status === 403
      // In Redis's own word, which callers who tell errors apart look for.
      ? new RestError("Denied", `WRONGPASS the token is refused (HTTP ${status})${detail}`, status)
      : new RestError("Status", `HTTP ${status}${detail}`, status)
  }

  return {
    open,
    json: (path, body) =>
      Effect.tryPromise({
        try: async (signal) => {
          const response = await open(path, "application/json", JSON.stringify(body), signal)
          let text: string
          try {
            text = await response.text()
          } catch (error) {
            throw networkError(error)
          }
          try {
            return JSON.parse(text) as unknown
          } catch {
            throw invalidReply()
          }
        },
        catch: redisError
      })
  }
}

const invalidReply = () => new RestError("InvalidReply", "The answer is not a reply of the REST protocol")

const errorText = (reply: unknown): string | undefined =>
  typeof reply === "object" && reply !== null && "error" in reply && typeof reply.error === "string"
    ? reply.error
    : undefined

// Redis repeats the arguments of commands it does not know.
const publicText = (text: string, token: Redacted.Redacted<string>): string =>
  text.replace(/,? with args beginning with[^]*$/, "").replaceAll(Redacted.value(token), hidden).slice(0, 400)

// What `fetch` says in words may hold anything, so only its code is repeated.
const networkError = (error: any): RestError => {
  const code: unknown = error?.cause?.code ?? error?.code
  const named = typeof code === "string" && /^\w+$/.test(code) ? ` (${code})` : ""
  return notSent.has(code)
    ? new RestError("Unreachable", `The server cannot be reached${named}`)
    : new RestError("Disconnected", `The connection broke${named}`)
}

// What an open connection can fail with as well, such as EHOSTUNREACH, is not here.
const notSent = new Set<unknown>([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "UND_ERR_CONNECT_TIMEOUT",
  "ConnectionRefused"
])

const isUnreachable = (error: Redis.RedisError) =>
  error.cause instanceof RestError && error.cause.reason === "Unreachable"

/** Bounds a request, and sends again what was never sent. */
const bounded = <A>(self: Effect.Effect<A, Redis.RedisError>, settings: Settings) =>
  self.pipe(
    Effect.retry({ times: settings.retries, while: isUnreachable, schedule: Schedule.exponential("50 millis") }),
    within(settings)
  )

const within = ({ timeoutMillis }: Settings) => <A, R>(self: Effect.Effect<A, Redis.RedisError, R>) =>
  Effect.timeoutOrElse(self, {
    duration: timeoutMillis,
    orElse: () => Effect.fail(redisError(new RestError("Timeout", `No answer within ${timeoutMillis} ms`)))
  })

// -----------------------------------------------------------------------------
// Commands
// -----------------------------------------------------------------------------

interface Waiter {
  readonly command: ReadonlyArray<string>
  readonly resume: (reply: Effect.Effect<any, Redis.RedisError>) => void
}

interface Batch {
  /** Those who still want their reply. The request ends with the last of them. */
  readonly waiters: Set<Waiter>
  size: number
  fiber: Fiber.Fiber<void, Redis.RedisError> | undefined
}

// A request that is too large fails for all who share it.
const maxCommands = 128
const maxSize = 256 * 1024

const makeSend = Effect.fnUntraced(function*(http: Http, settings: Settings) {
  const run = yield* FiberSet.makeRuntime<never, void, Redis.RedisError>()
  const limit = settings.pipelining ? maxCommands : 1
  let filling: Batch | undefined

  const join = (waiter: Waiter): Batch => {
    const size = waiter.command.reduce((sum, part) => sum + part.length, 0)
    if (filling === undefined || filling.waiters.size >= limit || filling.size + size > maxSize) {
      const batch: Batch = filling = { waiters: new Set(), size: 0, fiber: undefined }
      queueMicrotask(() => start(batch))
    }
    filling.waiters.add(waiter)
    filling.size += size
    return filling
  }

  const start = (batch: Batch): void => {
    if (filling === batch) filling = undefined
    if (batch.waiters.size === 0) return
    batch.fiber = run(bounded(exchange(batch), settings))
    batch.fiber.addObserver((exit) => {
      if (exit._tag === "Success") return
      const reply = Cause.hasInterruptsOnly(exit.cause)
        ? Effect.fail(redisError(new RestError("Disconnected", "The client is closed")))
        : exit
      for (const waiter of batch.waiters) waiter.resume(reply)
    })
  }

  const exchange = (batch: Batch): Effect.Effect<void, Redis.RedisError> =>
    Effect.suspend(() => {
      const waiters = Array.from(batch.waiters)
      return Effect.flatMap(http.json(["pipeline"], waiters.map((waiter) => waiter.command)), (replies) => {
        if (!Array.isArray(replies) || replies.length !== waiters.length) return Effect.fail(redisError(invalidReply()))
        waiters.forEach((waiter, index) => waiter.resume(toReply(replies[index], settings)))
        return Effect.void
      })
    })

  return <A = unknown>(command: string, ...args: ReadonlyArray<string>): Effect.Effect<A, Redis.RedisError> =>
    Effect.callback((resume) => {
      const waiter: Waiter = { command: [command, ...args], resume }
      const batch = join(waiter)
      return Effect.sync(() => {
        batch.waiters.delete(waiter)
        if (batch.waiters.size === 0) batch.fiber?.interruptUnsafe()
      })
    })
})

const toReply = (reply: unknown, settings: Settings): Effect.Effect<unknown, Redis.RedisError> => {
  const said = errorText(reply)
  if (said !== undefined) {
    return Effect.fail(redisError(new RestError("Command", publicText(said, settings.token))))
  }
  return typeof reply === "object" && reply !== null && "result" in reply
    ? Effect.succeed(reply.result)
    : Effect.fail(redisError(invalidReply()))
}

/** The replies to a pipeline of the client, which puts their errors into its own. */
const withoutArguments = (replies: unknown, settings: Settings): unknown =>
  Array.isArray(replies)
    ? replies.map((reply) => {
      const said = errorText(reply)
      return said === undefined ? reply : { error: publicText(said, settings.token) }
    })
    : replies

// -----------------------------------------------------------------------------
// Subscriptions
// -----------------------------------------------------------------------------

const makeSubscribe = (http: Http, settings: Settings) =>
(
  channel: string,
  onMessage: (message: Redis.RedisMessage) => void
): Effect.Effect<Effect.Effect<void, Redis.RedisError>, Redis.RedisError, Scope.Scope> =>
  Effect.gen(function*() {
    const controller = new AbortController()
    const abort = Effect.sync(() => controller.abort())
    yield* Effect.addFinalizer(() => abort)

    const events = new Events(channel, onMessage)
    const read = (reader: ReadableStreamDefaultReader<Uint8Array>) =>
      Effect.tryPromise({
        try: async () => {
          const chunk = await reader.read().catch((error) => {
            throw networkError(error)
          })
          if (chunk.done) throw new RestError("Disconnected", "The event stream ended")
          events.push(chunk.value)
        },
        catch: redisError
      })

    const reader = yield* Effect.tryPromise({
      try: async () => {
        const path = ["subscribe", encodeURIComponent(channel)]
        const response = await http.open(path, "text/event-stream", undefined, controller.signal)
        if (response.body === null) throw invalidReply()
        return response.body.getReader()
      },
      catch: redisError
    }).pipe(
      Effect.tap((reader) =>
        Effect.whileLoop({ while: () => !events.confirmed, body: () => read(reader), step: noop })
      ),
      within(settings),
      Effect.onError(() => abort)
    )
    return Effect.forever(read(reader)).pipe(Effect.onError(() => abort))
  })

const noop = () => {}

// As much as the client of `@upstash/redis` takes.
const maxEvent = 1024 * 1024

/**
 * Server-sent events of one subscription: `subscribe,<channel>,<count>`, then
 * `message,<channel>,<text>`.
 *
 * An event ends at a blank line, and a text of several lines is several `data`
 * lines. Upstash's documentation leaves the blank lines out. Whether they come
 * shows after the first event; where they do not, each line is an event.
 */
class Events {
  confirmed = false
  private framed: boolean | undefined
  private rest = ""
  private data: string | undefined
  private readonly decoder = new TextDecoder()
  private readonly channel: string
  private readonly onMessage: (message: Redis.RedisMessage) => void

  constructor(channel: string, onMessage: (message: Redis.RedisMessage) => void) {
    this.channel = channel
    this.onMessage = onMessage
  }

  push(bytes: Uint8Array): void {
    const lines = (this.rest + this.decoder.decode(bytes, { stream: true })).split("\n")
    this.rest = lines.pop()!
    for (const line of lines) this.line(line.endsWith("\r") ? line.slice(0, -1) : line)
    if (this.rest.length + (this.data?.length ?? 0) > maxEvent) {
      throw new RestError("InvalidReply", `An event is longer than ${maxEvent} characters`)
    }
  }

  private line(line: string): void {
    if (line === "") {
      if (this.confirmed) this.framed ??= true
      if (this.data !== undefined) this.event(this.data)
      this.data = undefined
    } else if (line.startsWith("data:")) {
      const text = line.slice(line.startsWith("data: ") ? 6 : 5)
      if (this.confirmed) this.framed ??= false
      if (this.framed) this.data = this.data === undefined ? text : `${this.data}\n${text}`
      else this.event(text)
    }
  }

  private event(text: string): void {
    const message = `message,${this.channel},`
    if (text.startsWith(message)) this.onMessage({ channel: this.channel, message: text.slice(message.length) })
    else if (text.startsWith(`subscribe,${this.channel},`)) this.confirmed = true
  }
}
