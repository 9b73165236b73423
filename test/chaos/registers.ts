// The tables of a run, and what counts in them: registers, each with a version that the database counts up.
import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"

export const items = [1, 2, 3, 4, 5, 6, 7, 8]
export const groups = [0, 1]
export const tenants = ["a", "b"] as const
export type Tenant = typeof tenants[number]
/** Items to which events are added. */
export const eventful = [1, 2, 3, 4]

export const docsOf = (tenant: Tenant): ReadonlyArray<number> => tenant === "a" ? [1, 2, 3] : [4, 5, 6]
export const itemsOf = (group: number): ReadonlyArray<number> => items.filter((id) => id % 2 === group)

export const item = (id: number): string => `item:${id}`
export const note = (id: number): string => `note:${id}`
export const doc = (id: number): string => `doc:${id}`
export const event = (id: number): string => `event:${id}`

export const role = "chaos_app"

const statements = [
  "CREATE TABLE items (id int PRIMARY KEY, grp int NOT NULL, version int NOT NULL, writer text NOT NULL)",
  "INSERT INTO items SELECT id, id % 2, 0, '' FROM generate_series(1, 8) AS id",
  "CREATE TABLE notes (item_id int PRIMARY KEY REFERENCES items, version int NOT NULL, writer text NOT NULL)",
  "INSERT INTO notes SELECT id, 0, '' FROM items",
  "CREATE TABLE events (item_id int REFERENCES items, n int, writer text NOT NULL, PRIMARY KEY (item_id, n))",
  "CREATE TABLE docs (id int PRIMARY KEY, tenant text NOT NULL, version int NOT NULL, writer text NOT NULL)",
  "INSERT INTO docs SELECT id, CASE WHEN id < 4 THEN 'a' ELSE 'b' END, 0, '' FROM generate_series(1, 6) AS id",
  "ALTER TABLE docs ENABLE ROW LEVEL SECURITY",
  "CREATE POLICY tenants ON docs USING (tenant = current_setting('app.tenant', true))",
  `CREATE ROLE ${role}`,
  `GRANT SELECT, UPDATE ON docs TO ${role}`
]

export const create = (sql: SqlClient.SqlClient): Effect.Effect<void, SqlError> =>
  Effect.forEach(statements, (statement) => sql.unsafe(statement), { discard: true })

/** What the database has, past every cache. */
export const truth = (sql: SqlClient.SqlClient): Effect.Effect<{ readonly [register: string]: number }, SqlError> =>
  Effect.map(
    sql<{ name: string; version: number }>`
      SELECT 'item:' || id AS name, version FROM items
      UNION ALL SELECT 'note:' || item_id, version FROM notes
      UNION ALL SELECT 'doc:' || id, version FROM docs
      UNION ALL SELECT 'event:' || id, coalesce(max(n), 0) FROM items LEFT JOIN events ON item_id = id GROUP BY id`,
    (rows) => Object.fromEntries(rows.map(({ name, version }) => [name, version]))
  )
