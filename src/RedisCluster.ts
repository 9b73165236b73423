/**
 * A Redis Cluster: `Redis.Redis` over the cluster client of `redis` (node-redis),
 * which `NodeRedis` of `@effect/platform-node` does not offer.
 *
 * What the client does not do by itself, and this module adds:
 *
 * 1. Nodes are connected when they are first needed, and one that cannot be reached
 *    fails the commands that need it, not the others and not the start of a program.
 * 2. Where a node fails or falls silent, the layout of the cluster is asked for again,
 *    so a replica that has taken over is found, be the dead node one that this process
 *    never met, or one that is frozen and closes no connection.
 * 3. A subscription whose node is lost goes on at another one.
 *
 * Needs the optional peer `redis`, so it is reached by its subpath.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { createClient, createCluster, ErrorReply } from "redis"
import { InvalidOptionError } from "./CacheError.ts"
import { keyOf } from "./internal/redis/routing.ts"

type Client = ReturnType<typeof createCluster>
type ClientOptions = NonNullable<Parameters<typeof createCluster>[0]>
type NodeOptions = ClientOptions["rootNodes"][number]

/**
 * The client of the cluster behind the `Redis` service, for what that does not offer.
 *
 * @category services
 * @since 0.1.0
 */
export class RedisCluster extends Context.Service<RedisCluster, {
  readonly client: Client
  readonly use: <A>(f: (client: Client) => Promise<A>) => Effect.Effect<A, Redis.RedisError>
}>()("effect-query-cache/RedisCluster") {}

/**
 * Options of {@link layer}: those of node-redis' `createCluster`, and of the
 * connections behind `Redis.reserve`.
 *
 * @category options
 * @since 0.1.0
 */
export interface RedisClusterOptions extends Omit<ClientOptions, "rootNodes">, Redis.PoolOptions {
  /** Some of the nodes, by which the others are found. One that answers is enough; name three. */
  readonly rootNodes: ReadonlyArray<NodeOptions>
  /** For all nodes. Defaults to that of `defaults`, or else of the first root node's URL. */
  readonly username?: string | undefined
  /** For all nodes. Defaults to that of `defaults`, or else of the first root node's URL. */
  readonly password?: string | Redacted.Redacted<string> | undefined
}

/**
 * Provides `Redis` over a Redis Cluster, and the client behind it.
 *
 * **When to use**
 *
 * With `shards` of `RedisStore.layer` and `TieredStore.layer`, which spread a
 * namespace over the nodes.
 *
 * **Details**
 *
 * - Building the layer asks the root nodes for the layout, and fails with `RedisError`
 *   where none answers. `RedisStore.connectInBackground` around it tries again.
 * - A command goes to the node of its first key, one without a key to any node, and
 *   what concerns all nodes, such as `SCRIPT LOAD`, to all. The client follows `MOVED`
 *   and `ASK`, up to `maxCommandRedirections` (16) times.
 * - Scripts are single-slot: all of their keys share a hash tag.
 * - A node that was connected once and is lost is connected again after 0.05 to 2
 *   seconds, without end, and commands for it wait, for 5 seconds at most, unless
 *   `defaults.disableOfflineQueue` is set. One that was never connected fails them at once.
 * - Where commands fail for want of a connection, or are not answered for a second, the
 *   layout is asked for again, once a second at most.
 * - `subscribe` listens on one connection to one master, since a cluster passes every
 *   message to all nodes. If that node is lost, another one is subscribed to, and what
 *   was published meanwhile is missing, as `Redis` says of a subscription.
 * - `reserve` gives out a client of its own for the whole cluster.
 * - Closing the scope waits for commands under way, for a second at most.
 *
 * **Gotchas**
 *
 * - While a slot is moved from node to node, commands with several keys of it fail
 *   with `TRYAGAIN`: what is kept there is read from the database meanwhile.
 * - With `cluster-require-full-coverage yes`, which is Redis' default, all nodes
 *   refuse all commands while a slot has no master. `no` lets the others go on.
 * - TLS and credentials of the first root node's URL go for all nodes, those of the
 *   other ones are used to find the cluster only.
 *
 * **Example** (A store in three shards)
 *
 * ```ts
 * import { Layer, Redacted } from "effect"
 * import { RedisStore } from "effect-query-cache"
 * import * as RedisCluster from "effect-query-cache/RedisCluster"
 *
 * export const Store = RedisStore.layer({ shards: 3 }).pipe(
 *   Layer.provide(RedisCluster.layer({
 *     rootNodes: [{ url: "redis://10.0.0.1:6379" }, { url: "redis://10.0.0.2:6379" }],
 *     password: Redacted.make("...")
 *   }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: RedisClusterOptions): Layer.Layer<Redis.Redis | RedisCluster, Redis.RedisError> => {
  const settings = check("RedisCluster.layer", options)
  return Layer.effectContext(make(settings))
}

/**
 * Like {@link layer}, with options from the configuration.
 *
 * **Gotchas**
 *
 * A bad option is an `InvalidOptionError` that the layer dies with when it is built.
 *
 * **Example** (From the environment)
 *
 * ```ts
 * import { Config } from "effect"
 * import * as RedisCluster from "effect-query-cache/RedisCluster"
 *
 * export const redis = RedisCluster.layerConfig({
 *   rootNodes: Config.String("REDIS_NODES").pipe(
 *     Config.map((nodes) => nodes.split(",").map((url) => ({ url })))
 *   ),
 *   password: Config.Redacted("REDIS_PASSWORD")
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<RedisClusterOptions>
): Layer.Layer<Redis.Redis | RedisCluster, Redis.RedisError | Config.ConfigError> =>
  Layer.effectContext(
    Effect.flatMap(Config.unwrap(options), (options) => make(check("RedisCluster.layerConfig", options)))
  )

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

interface Settings {
  readonly client: ClientOptions
  readonly pool: Redis.PoolOptions
}

const check = (owner: string, options: RedisClusterOptions): Settings => {
  const {
    acquireTimeout,
    defaults,
    idleTimeout,
    maxConnections,
    minConnections,
    password = defaults?.password,
    rootNodes,
    username = defaults?.username,
    ...client
  } = options
  if (!Array.isArray(rootNodes) || rootNodes.length === 0) {
    throw new InvalidOptionError(owner, "rootNodes", rootNodes, "at least one node")
  }
  const first = ofUrl(owner, rootNodes[0].url)
  const secret = Redacted.isRedacted(password) ? Redacted.value(password) : password
  const socket = { ...(first.tls === undefined ? {} : { tls: first.tls }), ...defaults?.socket }
  const credentials = { username: username ?? first.username, password: secret ?? first.password }
  return {
    client: {
      // So long a node may be away before the others are asked who has taken over.
      topologyRefreshOnReconnectionAttemptStrategy: refreshMillis,
      // All at once would mean none while one of them is down.
      minimizeConnections: true,
      ...client,
      rootNodes: [...rootNodes],
      defaults: {
        ...defaults,
        ...Object.fromEntries(Object.entries(credentials).filter(([, value]) => value !== undefined)),
        socket: socket as NonNullable<NodeOptions["socket"]>
      }
    },
    pool: { acquireTimeout, idleTimeout, maxConnections, minConnections }
  }
}

const ofUrl = (owner: string, url: string | undefined): {
  readonly tls?: true
  readonly username?: string
  readonly password?: string
} => {
  if (url === undefined) return {}
  let parsed: URL
  try {
    parsed = new URL(url)
  } catch {
    // The password may stand in it.
    throw new InvalidOptionError(owner, "rootNodes", "<redacted>", "nodes with URLs such as redis://host:6379")
  }
  return {
    ...(parsed.protocol === "rediss:" ? { tls: true } : {}),
    ...(parsed.username === "" ? {} : { username: decodeURIComponent(parsed.username) }),
    ...(parsed.password === "" ? {} : { password: decodeURIComponent(parsed.password) })
  }
}

// -----------------------------------------------------------------------------
// The client
// -----------------------------------------------------------------------------

const refreshMillis = 1_000

const redisError = (cause: unknown): Redis.RedisError => new Redis.RedisError({ cause })

const make = Effect.fnUntraced(function*({ client: options, pool }: Settings) {
  const run = Effect.runSyncWith(yield* Effect.context<never>())
  // Once per node and outage: each attempt to connect is an error of its own.
  const failing = new Set<string>()
  const open = Effect.gen(function*() {
    const connections = new Connections(options)
    const client = createCluster(connections.options)
    client.on("error", (cause) => run(Effect.logWarning("RedisCluster client error", cause)))
    client.on("node-error", (cause, node) => {
      const address = addressOf(node)
      if (failing.has(address)) return
      failing.add(address)
      run(Effect.logWarning(`RedisCluster cannot reach ${address}`, cause))
    })
    client.on("node-ready", (node) => {
      connections.ready(node)
      if (failing.delete(addressOf(node))) run(Effect.logInfo(`RedisCluster reaches ${addressOf(node)} again`))
    })
    yield* Effect.tryPromise({ try: () => client.connect(), catch: redisError })
    return client
  })
  const client = yield* Effect.acquireRelease(open, close)

  const clock = yield* Clock.Clock
  const failed = yield* Latch.make(false)
  /** Commands under way, oldest first. */
  const pending = new Set<{ readonly key: string | undefined; readonly sinceMillis: number }>()
  const refresh = Effect.gen(function*() {
    // A node that is frozen or cut off fails nothing, and whoever asks it for the layout waits with all others.
    const silent = new Set<string>()
    for (const { key, sinceMillis } of pending) {
      if (clock.currentTimeMillisUnsafe() - sinceMillis < refreshMillis) break
      // Of one that is not connected yet nobody is told, and it is asked last.
      if (key !== undefined) silent.add(yield* addressFor(client, key))
    }
    if (silent.size > 0 || failed.isOpen()) {
      yield* failed.close
      yield* Effect.tryPromise(() => client._slots.rediscover(undefined, silent))
    }
  })
  yield* Effect.raceFirst(failed.await, Effect.sleep(refreshMillis)).pipe(
    Effect.andThen(Effect.ignore(refresh)),
    Effect.andThen(Effect.sleep(refreshMillis)),
    Effect.forever,
    Effect.forkScoped
  )

  const sendWith =
    (client: Client) =>
    <A = unknown>(command: string, ...args: ReadonlyArray<string>): Effect.Effect<A, Redis.RedisError> =>
      Effect.suspend(() => {
        const key = keyOf(command, args)
        const own = { key, sinceMillis: clock.currentTimeMillisUnsafe() }
        pending.add(own)
        // However long the caller waits.
        const sent = (client.sendCommand(key, false, [command, ...args]) as Promise<A>).finally(() =>
          pending.delete(own)
        )
        return Effect.tryPromise({
          try: () => sent,
          catch: (cause) => {
            if (!(cause instanceof ErrorReply)) failed.openUnsafe()
            return redisError(cause)
          }
        })
      })

  const redis = yield* Redis.make({
    send: sendWith(client),
    subscribe: (channel, onMessage) => subscribe(client, options, channel, onMessage),
    connect: Effect.map(open, (client) => ({
      send: sendWith(client),
      close: Effect.sync(() => {
        if (client.isOpen) client.destroy()
      })
    })),
    pool
  })
  return Context.make(RedisCluster, {
    client,
    use: (f) => Effect.tryPromise({ try: () => f(client), catch: redisError })
  }).pipe(Context.add(Redis.Redis, redis))
})

const addressOf = ({ host, port }: NodeAddress): string => `${host}:${port}`

/** The node that has the slot of a key, as far as the client knows: none, where it is not connected. */
const addressFor = (client: Client, key: string): Effect.Effect<string> =>
  Effect.tryPromise(() => client.getNodeClientForKey(key)).pipe(
    Effect.map((own) => {
      for (const [address, node] of client.nodeByAddress) if (node.client === own) return address
      return ""
    }),
    Effect.timeout("100 millis"),
    Effect.orElseSucceed(() => "")
  )

/** Lets commands under way end. A node that does not answer would be waited for without end. */
const close = (client: Client): Effect.Effect<void> =>
  Effect.suspend(() => {
    const nodes = [...client.nodeByAddress.values()].flatMap(({ client }) => client ?? [])
    return Effect.tryPromise(() => client.close()).pipe(
      Effect.timeoutOption("1 second"),
      Effect.provideService(Clock.Clock, Clock.Clock.defaultValue()),
      Effect.ignore,
      Effect.andThen(Effect.sync(() => {
        for (const node of nodes) if (node.isOpen) node.destroy()
      }))
    )
  })

// As NodeRedis waits.
const pauseOf = (retries: number): number => Math.min(2 ** retries * 50, 2_000) + Math.floor(Math.random() * 200)

/**
 * A node that cannot be connected at first fails what needs it: else each command would wait with it, and all be
 * sent when it comes. One that was lost is connected again. The client tells the strategy neither, so each
 * connection is given one of its own, with the address that it is opened for.
 */
class Connections {
  readonly options: ClientOptions
  /** Those that have not been ready yet. */
  private readonly opening = new Map<string, Set<{ wasReady: boolean }>>()

  constructor(options: ClientOptions) {
    this.options = options.defaults?.socket?.reconnectStrategy !== undefined ? options : {
      ...options,
      nodeAddressMap: (address) => {
        const node = nodeAddressOf(options, address)
        return { ...node, reconnectStrategy: this.strategy(addressOf(node)) }
      }
    }
  }

  ready(node: NodeAddress): void {
    const address = addressOf(node)
    for (const connection of this.opening.get(address) ?? []) connection.wasReady = true
    this.opening.delete(address)
  }

  private strategy(address: string): (retries: number, cause: Error) => number | Error {
    const connection = { wasReady: false }
    const own = this.opening.get(address) ?? new Set()
    this.opening.set(address, own.add(connection))
    return (retries, cause) => {
      own.delete(connection)
      return connection.wasReady ? pauseOf(retries) : cause
    }
  }
}

interface NodeAddress {
  readonly host: string
  readonly port: number
}

const nodeAddressOf = ({ nodeAddressMap }: ClientOptions, address: string): NodeAddress => {
  const mapped = typeof nodeAddressMap === "function" ? nodeAddressMap(address) : nodeAddressMap?.[address]
  const colon = address.lastIndexOf(":")
  return mapped ?? { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) }
}

// -----------------------------------------------------------------------------
// Subscriptions
// -----------------------------------------------------------------------------

const attempts = Schedule.min([Schedule.exponential("50 millis", 2), Schedule.spaced("2 seconds")]).pipe(
  Schedule.jittered
)

const subscribe = Effect.fnUntraced(function*(
  client: Client,
  options: ClientOptions,
  channel: string,
  onMessage: (message: Redis.RedisMessage) => void
): Effect.fn.Return<Effect.Effect<void, Redis.RedisError>, Redis.RedisError, Scope.Scope> {
  const scope = yield* Effect.scope

  /** Subscribed at one of the masters, any. What it returns fails when that is over. */
  const begin = Effect.gen(function*() {
    let cause: unknown = new Error("The layout of the cluster is not known")
    for (const { address } of yield* Random.shuffle(client.masters)) {
      const own = yield* Scope.fork(scope)
      const begun = yield* Effect.exit(Scope.provide(listen(nodeAddressOf(options, address)), own))
      if (Exit.isSuccess(begun)) return Effect.ensuring(begun.value, Scope.close(own, Exit.void))
      yield* Scope.close(own, begun)
      cause = Cause.squash(begun.cause)
    }
    return yield* Effect.fail(cause instanceof Redis.RedisError ? cause : redisError(cause))
  })
  const listen = Effect.fnUntraced(function*(node: NodeAddress) {
    const lost = Deferred.makeUnsafe<never, Redis.RedisError>()
    const { defaults } = options
    const subscriber = yield* Effect.acquireRelease(
      Effect.sync(() =>
        createClient({
          ...defaults,
          socket: { ...defaults?.socket, ...node, reconnectStrategy: false } as NonNullable<NodeOptions["socket"]>
        })
      ),
      (subscriber) =>
        Effect.sync(() => {
          if (subscriber.isOpen) subscriber.destroy()
        })
    )
    subscriber.on("error", (cause) => Deferred.doneUnsafe(lost, Exit.fail(redisError(cause))))
    yield* Effect.tryPromise({
      try: async () => {
        await subscriber.connect()
        await subscriber.subscribe(channel, (message, channel) => onMessage({ channel, message }))
      },
      catch: redisError
    })
    return Deferred.await(lost)
  })
  const goOn = (lost: Effect.Effect<never, Redis.RedisError>): Effect.Effect<never, Redis.RedisError> =>
    lost.pipe(
      Effect.tapError((error) => Effect.logWarning("RedisCluster subscriber error", error.cause)),
      Effect.catch(() => Effect.retry(begin, attempts)),
      Effect.flatMap(goOn)
    )
  return goOn(yield* begin)
})
