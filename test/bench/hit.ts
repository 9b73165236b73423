// What a hit in this process costs, against the same statement on a connection that answers at once.
import { PgClient } from "@effect/sql-pg"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type * as SqlClient from "effect/sql/SqlClient"
import * as SqlSchema from "effect/sql/SqlSchema"
import * as CacheAuditor from "../../src/CacheAuditor.ts"
import * as CachedSqlClient from "../../src/CachedSqlClient.ts"
import * as CacheStore from "../../src/CacheStore.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import { compare, type Result, start } from "./harness.ts"
import * as Stub from "./stub.ts"

type Sql = SqlClient.SqlClient

const rows = [{ id: 1, name: "Ada", email: "ada@example.com", age: 36 }]

const one = (sql: Sql, i: number) => sql`select * from users where id = ${(i % 1000) + 1}`
const text = (sql: Sql, i: number) => sql`select * from users where email = ${`user${i % 1000}@example.com`}`
const three = (sql: Sql, i: number) =>
  sql`select id, name, email, age from users where status = ${"active"} and org_id = ${
    (i % 1000) + 1
  } and deleted = ${false} order by name limit 20`
const list = (sql: Sql, i: number) =>
  sql`select * from users where id in ${sql.in([i % 100, 2, 3, 4])} and org = ${i % 10}`
const and = (sql: Sql, i: number) =>
  sql`select * from ${sql("users")} where ${sql.and([sql`a = ${i % 100}`, sql`b = ${2}`])}`

const User = Schema.Struct({ id: Schema.Int, name: Schema.String, email: Schema.String, age: Schema.Int })
const find = (sql: Sql) =>
  SqlSchema.findAll({ Request: Schema.Int, Result: User, execute: (id) => sql`select * from users where id >= ${id}` })

const repeat = (
  body: (i: number) => Effect.Effect<unknown, any>,
  around: (effect: Effect.Effect<void, any>) => Effect.Effect<void, any> = identity
) =>
(times: number): Promise<void> =>
  Effect.runPromise(around(Effect.gen(function*() {
    for (let i = 0; i < times; i++) yield* body(i)
  })))

export const run = async (): Promise<ReadonlyArray<Result>> => {
  const scope = Effect.runSync(Scope.make())
  const stub = Stub.layer(rows)
  const context = await Effect.runPromise(
    Layer.buildWithScope(
      Layer.mergeAll(
        CachedSqlClient.layer({ catalogInterval: false }).pipe(
          Layer.provide([CacheStore.layerMemory({ capacity: 100_000 }), stub])
        ),
        Layer.effect(Base, PgClient.PgClient).pipe(Layer.provide(stub))
      ),
      scope
    )
  )
  const base = Context.get(context, Base)
  const sql = Context.get(context, PgClient.PgClient)
  const cached = QueryCache.cached({ timeToLive: "1 hour" })

  const results: Array<Result> = []
  const ratios = async (
    title: string,
    target: number,
    statement: (sql: Sql, i: number) => Effect.Effect<unknown, any>
  ) => {
    const comparison = await compare(title, [
      { name: "stub statement", run: repeat((i) => statement(base, i)) },
      { name: "hit", run: repeat((i) => cached(statement(sql, i))) },
      { name: "hit under an outer cached", run: repeat((i) => statement(sql, i), cached) },
      { name: "no policy", run: repeat((i) => statement(sql, i)) }
    ], { clock: "cpu", samples: 15 })
    results.push({ name: `hit / stub statement: ${title}`, ratio: comparison.ratio("hit", "stub statement"), target })
    return comparison
  }
  const plain = await ratios("one number", 0.25, one)
  results.push({
    name: "decorated client without a policy / base client",
    ratio: plain.ratio("no policy", "stub statement"),
    target: 1.25
  })
  await ratios("one string", 0.25, text)
  await ratios("three scalars", 0.25, three)
  await ratios("sql.in", 0.45, list)
  await ratios("identifier and sql.and", 0.45, and)
  const [findBase, findCached] = [find(base), find(sql)]
  await ratios(
    "SqlSchema.findAll",
    0.6,
    (client, i) => client === base ? findBase((i % 1000) + 1) : findCached((i % 1000) + 1)
  )
  const auditor = CacheAuditor.layer({ share: 0.01 }).pipe(Layer.provide(Layer.succeedContext(context)))
  const hits = repeat((i) => cached(one(sql, i)))
  const audited = await compare("a hit, without an auditor and with one", [
    { name: "hit", run: hits },
    {
      name: "audited",
      // The layer is built once for each sample.
      run: (times) => Effect.runPromise(Effect.provide(Effect.promise(() => hits(times)), auditor))
    }
  ], { clock: "cpu", samples: 15 })
  results.push({ name: "- hit with an auditor / hit", ratio: audited.ratio("audited", "hit") })
  await Effect.runPromise(Scope.close(scope, Exit.void))
  return results
}

class Base extends Context.Service<Base, PgClient.PgClient>()("Base") {}

await start(import.meta, run)
