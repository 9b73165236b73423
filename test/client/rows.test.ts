/** Row dependencies through the client: which answers a write leaves alone, in and out of transactions. */
import { assert, layer } from "@effect/vitest"
import { CachedSqlClient, CacheStore, QueryCache } from "effect-query-cache"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import * as Pglite from "../support/pglite.ts"
import { fates } from "./fixture.ts"

const clients = CachedSqlClient.layer({ namespace: "rows" }).pipe(
  Layer.provide([CacheStore.layerMemory(), Pglite.layer()])
)

const scenario = Effect.fnUntraced(function*(
  write: (sql: SqlClient.SqlClient) => Effect.Effect<unknown, SqlError, any>
) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`DROP TABLE IF EXISTS orders`
  yield* sql`CREATE TABLE orders (id int PRIMARY KEY, user_id int NOT NULL, status text NOT NULL, note text)`
  yield* sql`INSERT INTO orders VALUES (1, 1, 'open', 'a'), (2, 1, 'done', 'b'), (3, 2, 'open', 'c')`
  const reads = {
    one: QueryCache.cached(sql`SELECT * FROM orders WHERE id = ${1}`),
    three: QueryCache.cached(sql`SELECT * FROM orders WHERE id = ${3}`),
    first: QueryCache.cached(sql`SELECT * FROM orders WHERE user_id = ${1} ORDER BY id`),
    second: QueryCache.cached(sql`SELECT * FROM orders WHERE user_id = ${2} ORDER BY id`),
    open: QueryCache.cached(sql`SELECT * FROM orders WHERE status = ${"open"} ORDER BY id`),
    all: QueryCache.cached(sql`SELECT count(*) FROM orders`)
  }
  yield* Effect.all(reads)
  // A fill is judged after its answer is there.
  assert.deepStrictEqual(yield* fates(Effect.all(reads)), Array(6).fill("hit"))
  yield* Effect.ignore(write(sql) as Effect.Effect<unknown, SqlError>)
  const moved: Array<string> = []
  for (const [name, read] of Object.entries(reads)) {
    const [[{ status }], answer] = yield* QueryCache.withInfo(read)
    if (status !== "hit") moved.push(name)
    assert.deepStrictEqual(answer, yield* QueryCache.uncached(read), name)
  }
  return moved.join(" ")
})

const cases: ReadonlyArray<
  readonly [
    name: string,
    moved: string,
    write: (sql: SqlClient.SqlClient) => Effect.Effect<unknown, SqlError, any>
  ]
> = [
  [
    "RETURNING * tells the customer",
    "one first open all",
    (sql) => sql`UPDATE orders SET status = ${"done"} WHERE id = ${1} RETURNING *`
  ],
  [
    "without RETURNING only the key is known",
    "one first second open all",
    (sql) => sql`UPDATE orders SET status = ${"done"} WHERE id = ${1}`
  ],
  [
    "values",
    "one first open all",
    (sql) => sql`UPDATE orders SET status = ${"done"} WHERE id = ${1} RETURNING *`.values
  ],
  [
    "a stream is not looked into",
    "one first second open all",
    (sql) => Stream.runDrain(sql`UPDATE orders SET status = ${"done"} WHERE id = ${1} RETURNING *`.stream)
  ],
  [
    "raw is not looked into",
    "one first second open all",
    (sql) => sql`UPDATE orders SET status = ${"done"} WHERE id = ${1} RETURNING *`.raw
  ],
  [
    "a row that is inserted",
    "second open all",
    (sql) => sql`INSERT INTO orders ${sql.insert({ id: 4, user_id: 2, status: "open" })}`
  ],
  ["a row that is deleted", "three second open all", (sql) => sql`DELETE FROM orders WHERE id = ${3} RETURNING *`],
  ["nothing", "", (sql) => sql`DELETE FROM orders WHERE id = ${99} RETURNING *`],
  ["a refused write", "", (sql) => sql`INSERT INTO orders VALUES (1, 2, 'x')`],
  [
    "a transaction",
    "one first open all",
    (sql) => sql.withTransaction(sql`UPDATE orders SET status = 'done' WHERE id = 1 RETURNING *`)
  ],
  ["a transaction that rolls back", "", (sql) =>
    sql.withTransaction(
      Effect.andThen(sql`UPDATE orders SET status = 'done' WHERE id = 1 RETURNING *`, Effect.die("no"))
    ).pipe(Effect.catchCause(() => Effect.void))],
  ["a savepoint that rolls back", "second open all", (sql) =>
    sql.withTransaction(Effect.andThen(
      Effect.ignore(sql.withTransaction(
        Effect.andThen(sql`UPDATE orders SET note = 'x' WHERE id = 1 RETURNING *`, sql`SELECT 1 / 0`)
      )),
      sql`INSERT INTO orders VALUES (5, 2, 'open')`
    ))],
  ["several writes in a transaction", "one three first second open all", (sql) =>
    sql.withTransaction(Effect.andThen(
      sql`UPDATE orders SET note = 'x' WHERE id = 1 RETURNING *`,
      sql`UPDATE orders SET note = 'x' WHERE id = 3 RETURNING *`
    ))],
  [
    "more rows than are told apart",
    "one three first second open all",
    (sql) =>
      sql.withTransaction(
        Effect.forEach([1_000, 2_000, 3_000], (from) =>
          sql`INSERT INTO orders ${
            sql.insert(Arr.makeBy(999, (i) => ({
              id: from + i,
              user_id: 9,
              status: "x"
            })))
          }`)
      )
  ],
  ["a reserved connection", "one first open all", (sql) =>
    Effect.scoped(Effect.flatMap(
      sql.reserve,
      (connection) =>
        connection.execute("UPDATE orders SET status = $1 WHERE id = $2 RETURNING *", ["done", 1], undefined)
    ))],
  [
    "a transaction by hand on a reserved connection",
    "second open all",
    (sql) =>
      Effect.scoped(Effect.flatMap(sql.reserve, (connection) =>
        Effect.forEach(
          ["BEGIN", "INSERT INTO orders VALUES (6, 2, 'open')", "COMMIT"],
          (text) => connection.executeRaw(text, [])
        )))
  ],
  ["parameters that change on their way", "one three first second open all", (sql) => {
    const ids = [1]
    const write = sql`UPDATE orders SET note = 'x' WHERE id = ANY (${ids as any}) RETURNING *`
    return Effect.all([write, Effect.sync(() => ids.push(2))], { concurrency: 2 })
  }]
]

layer(clients, { excludeTestServices: true })((it) => {
  for (const [name, moved, write] of cases) {
    it.effect(name, () => Effect.map(scenario(write), (found) => assert.strictEqual(found, moved)))
  }
})
