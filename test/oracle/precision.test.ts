// What row dependencies are for: in a shop as programs write one, a write leaves alone what it does not concern.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { create } from "../support/pglite.ts"
import { emptyTally, Judge } from "./judge.ts"
import { Random } from "./random.ts"
import { withDatabase } from "./run.ts"
import * as Subject from "./subject.ts"
import { types } from "./values.ts"
import type { Table, World } from "./world.ts"

const ids = Array.from({ length: 12 }, (_, i) => String(i + 1))
const id = { ...types.key, stored: ids }
const status = { ...types.text, stored: ["new", "paid", "sent"] }

const table = (name: string, columns: Table["columns"]): Table => ({
  ref: name,
  name,
  columns,
  holdsRows: true,
  parent: undefined,
  unique: ["id"],
  secured: false
})

const users = table("users", [{ name: "id", type: id }, { name: "name", type: status }])
const orders = table("orders", [
  { name: "id", type: id },
  { name: "user_id", type: id },
  { name: "status", type: status },
  { name: "total", type: id }
])

const shop: World = {
  seed: 1,
  ddl: [],
  changes: [],
  tables: [users, orders],
  relations: [users, orders],
  writable: [],
  materialized: [],
  readers: [],
  writers: []
}

const queries = [
  "SELECT * FROM users WHERE id = $1",
  "SELECT * FROM orders WHERE id = $1",
  "SELECT * FROM orders WHERE user_id = $1",
  "SELECT count(*), sum(total) FROM orders WHERE user_id = $1 AND status = 'paid'",
  "SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = $1",
  "SELECT u.name, (SELECT max(o.total) FROM orders o WHERE o.user_id = $1) FROM users u WHERE u.id = $1",
  "SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id AND o.user_id = $1 WHERE u.id = $1",
  "WITH mine AS (SELECT * FROM orders WHERE user_id = $1) SELECT status, count(*) FROM mine GROUP BY status"
]

const writes = [
  "UPDATE orders SET status = 'sent' WHERE id = $1 RETURNING *",
  "UPDATE orders SET total = total + 1 WHERE user_id = $1",
  "UPDATE users SET name = 'paid' WHERE id = $1",
  "DELETE FROM orders WHERE id = $1 RETURNING *",
  "DELETE FROM orders WHERE user_id = $1",
  "INSERT INTO orders (id, user_id, status, total) VALUES ($1 + 100, $1, 'new', 5)",
  "INSERT INTO users (id, name) VALUES ($1, 'new') ON CONFLICT (id) DO UPDATE SET name = excluded.name"
]

it(
  "a write leaves the answers about other rows alone",
  { timeout: 300_000 },
  () =>
    withDatabase(create, async (database, client) => {
      await database.exec(`
      CREATE TABLE users (id int PRIMARY KEY, name text);
      CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users, status text, total int);
      INSERT INTO users SELECT n, 'new' FROM generate_series(1, 12) n;
      INSERT INTO orders SELECT n, 1 + n % 12, 'paid', n FROM generate_series(1, 36) n`)
      const tally = emptyTally()
      await Effect.runPromise(Effect.scoped(Effect.provide(
        Effect.flatMap(Subject.make(), (subject) =>
          Effect.promise(async () => {
            const random = new Random(1)
            const judge = new Judge(database, subject, shop, tally)
            for (const sql of queries) {
              for (const  of of[1, 2, 3, 4, 5, 6]) await judge.watch({ sql, parameters: [of], ordered: false })
            }
            await judge.begin()
            await judge.noninterference(3)
            for (const sql of writes) {
              for (let i = 0; i < 8; i++) await judge.write({ sql, parameters: [1 + random.below(12)] }, true)
            }
            expect(judge.misses).toEqual([])
          })),
        client
      )))
      expect(tally.narrow).toBe(tally.queries)
      const rows = tally.needless / tally.stayed
      const tables = tally.needlessByTable / tally.stayed
      console.log(
        `invalidated without need: ${(100 * rows).toFixed(1)} % of answers by rows, ${
          (100 * tables).toFixed(1)
        } % by tables`
      )
      expect(tables).toBeGreaterThan(0.5)
      expect(rows).toBeLessThan(0.1)
    })
)
