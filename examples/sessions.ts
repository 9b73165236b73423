// Two servers behind a load balancer, each with a cache of its own. Whoever has written by way of one reads what was
// written by way of the other: a cookie says so. Everybody else goes on reading what is cached.
//
//   node examples/sessions.ts
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { CachedSqlClient, CacheStore, QueryCache, SessionToken } from "effect-query-cache"
import { HttpEffect, HttpMiddleware, HttpServerRequest, HttpServerResponse } from "effect/http"
import { SqlClient } from "effect/sql"
import * as Pglite from "./support/pglite.ts"

/** Each request is a session that begins where the cookie says. */
const sessions = HttpMiddleware.make((app) =>
  Effect.gen(function*() {
    const { cookies } = yield* HttpServerRequest.HttpServerRequest
    const before = SessionToken.fromString(cookies.wrote)
    const session = yield* SessionToken.make({ token: before })
    // Run for every response: a request may fail after it has written.
    yield* HttpEffect.appendPreResponseHandler((_, response) => {
      const text = SessionToken.encode(session.token)
      return text === SessionToken.encode(before)
        ? Effect.succeed(response)
        : Effect.orDie(HttpServerResponse.setCookie(response, "wrote", text, {
          httpOnly: true,
          maxAge: "1 hour",
          path: "/",
          sameSite: "lax"
        }))
    })
    return yield* SessionToken.provide(app, session)
  })
)

const app = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const request = yield* HttpServerRequest.HttpServerRequest
  if (request.method === "GET") {
    const [info, rows] = yield* sql<{ name: string }>`SELECT name FROM users WHERE id = 1`.pipe(
      QueryCache.cached({ timeToLive: "10 minutes" }),
      QueryCache.withInfo
    )
    return HttpServerResponse.text(`${rows[0]!.name}, by ${info[0]!.status === "hit" ? "the cache" : "the database"}`)
  }
  yield* sql`UPDATE users SET name = ${yield* request.text} WHERE id = 1`
  return request.url === "/broken" ? yield* Effect.die("after the write") : HttpServerResponse.empty()
})

// With TieredStore.layer() over one Redis it is the cache that answers, as soon as it has heard of the write.
const makeServer = Effect.map(
  Layer.build(Layer.fresh(CachedSqlClient.layer().pipe(Layer.provide(CacheStore.layerMemory())))),
  (context) => HttpEffect.toWebHandler(Effect.provideContext(app, context), sessions)
)

/** A browser: it keeps a cookie, and the load balancer sends it somewhere. */
const makeBrowser = () => {
  let cookie = ""
  return (server: Effect.Success<typeof makeServer>, path: string, body?: string) =>
    Effect.promise(async () => {
      const init = body === undefined ? {} : { method: "POST", body }
      const response = await server(new Request(`http://localhost${path}`, { ...init, headers: { cookie } }))
      cookie = response.headers.get("set-cookie")?.split(";")[0] ?? cookie
      return response.ok ? await response.text() : `status ${response.status}`
    })
}

export const program = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL)`
  yield* sql`INSERT INTO users VALUES (1, 'Ada')`
  const [one, two] = [yield* makeServer, yield* makeServer]
  const [writer, reader] = [makeBrowser(), makeBrowser()]
  yield* reader(two, "/")
  return {
    before: yield* reader(two, "/"),
    write: yield* writer(one, "/", "Grace"),
    writer: yield* writer(two, "/"),
    reader: yield* reader(two, "/"),
    broken: yield* writer(one, "/broken", "Edsger"),
    after: yield* writer(two, "/")
  }
}).pipe(Effect.scoped, Effect.provide(Pglite.layer()))

if (import.meta.main) program.pipe(Effect.tap(Console.log), NodeRuntime.runMain)
