// A cached query over a map in place of a database, for tests of what stands between them.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import { CachedQuery, QueryCache } from "../../src/index.ts"

export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", { id: Schema.Number }) {}
export class Down extends Schema.TaggedError<Down>()("Down", {}) {}

export const User = Schema.Struct({ id: Schema.Number, name: Schema.String })
export type User = typeof User.Type

/** Users in a map, and what is done to whoever asks for one. */
export const makeUsers = (options?: Partial<CachedQuery.CachedQueryOptions<number, User, NotFound | Down, never>>) =>
  Effect.gen(function*() {
    const rows = new Map<number, string>([[1, "Ada"], [2, "Grace"], [3, "Edsger"]])
    const asked: Array<number> = []
    const source = {
      rows,
      asked,
      before: (_id: number): Effect.Effect<void, Down> => Effect.void
    }
    const users = yield* CachedQuery.make<number, User, NotFound | Down>("user", {
      Key: Schema.Int,
      Value: User,
      lookup: (id) =>
        Effect.gen(function*() {
          asked.push(id)
          const name = rows.get(id)
          yield* source.before(id)
          return name === undefined ? yield* new NotFound({ id }) : { id, name }
        }),
      ...options
    })
    const name = (id: number) => Effect.map(users.get(id), (user) => user.name)
    return { users, source, rows, asked, name }
  })

export const write = (rows: Map<number, string>, id: number, name: string) => Effect.sync(() => void rows.set(id, name))

/** What became of each read, in the order in which it was decided. */
export const statuses = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(
    QueryCache.withInfo(effect),
    ([queries]) => queries.map(({ reason, status }) => status === "bypass" ? `${status} ${reason}` : status)
  )

export const messageOf = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit) ? String(Cause.squash(exit.cause)) : "a success"
