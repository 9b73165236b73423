// The rows that a write touches, rule by rule: with its parameters, and with its answer.
import { beforeAll, describe, expect, it } from "vitest"
import { rowStamp } from "../../../src/Dependency.ts"
import * as Parser from "../../../src/internal/analysis/parser.ts"
import { imagesOf } from "../../../src/internal/conjunctions/images.ts"
import type { Rule, Without } from "../../../src/internal/conjunctions/rules.ts"
import { rowWrites } from "../../../src/internal/conjunctions/writes.ts"
import * as Rules from "../../support/rules.ts"
import { catalogOf } from "./catalog.ts"

const schema = `
  CREATE TABLE users (id int PRIMARY KEY, name text, code varchar(3), team int DEFAULT 1, seen int GENERATED ALWAYS AS IDENTITY);
  CREATE TABLE orders (id int PRIMARY KEY, user_id int, status text, twice int GENERATED ALWAYS AS (user_id * 2) STORED);
  CREATE TABLE changed (id int, a int);
  CREATE TABLE ruled (id int);
  CREATE TABLE parted (id int, a int) PARTITION BY LIST (a);
  CREATE TABLE parted1 PARTITION OF parted FOR VALUES IN (1);
  CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END';
  CREATE TRIGGER t BEFORE INSERT OR UPDATE ON changed FOR EACH ROW EXECUTE FUNCTION f();
  CREATE TRIGGER t BEFORE INSERT ON parted1 FOR EACH ROW EXECUTE FUNCTION f();
  CREATE RULE r AS ON INSERT TO ruled DO INSTEAD NOTHING
`

let catalog: Awaited<ReturnType<typeof catalogOf>>
let parser: Parser.Parser
beforeAll(async () => {
  parser = await Parser.load()
  catalog = await catalogOf(schema)
})

const images = (
  sql: string,
  parameters: ReadonlyArray<unknown>,
  answer?: ReadonlyArray<unknown>,
  without?: Without
): string => {
  const parsed = parser.parse(sql)
  if (parsed._tag !== "Parsed") throw new Error(sql)
  const writes = rowWrites(parsed.statements[0]!, catalog, catalog.searchPath, without)
  const shown = [...writes].flatMap(([{ stamp }, touches]) =>
    touches.flatMap((touch) => {
      const images = imagesOf(touch, parameters, answer, without)
      return images === undefined
        ? [stamp]
        : images.length === 0
        ? ["nothing"]
        : images.map((image) => rowStamp(stamp, [...image].sort()))
    })
  )
  return [...new Set(shown)].sort().join(" ").replaceAll("\"", "")
}

type Case = readonly [
  sql: string,
  expected: string,
  parameters?: ReadonlyArray<unknown>,
  answer?: ReadonlyArray<unknown>
]

const all: Array<Case> = []

const cases = (table: ReadonlyArray<Case>) => {
  all.push(...table)
  it.each(table.map(([sql, expected, parameters = [], answer]) => ({ sql, expected, parameters, answer })))(
    "$sql: $expected",
    ({ answer, expected, parameters, sql }) => {
      expect(images(sql, parameters, answer)).toBe(expected)
    }
  )
}

describe("INSERT", () => {
  cases([
    ["INSERT INTO users (id, name) VALUES ($1, 'a')", "users(code=null,id=1,name=a)", [1]],
    ["INSERT INTO users VALUES (1, 'a'), (2, DEFAULT)", "users(code=null,id=1,name=a) users(code=null,id=2,name=null)"],
    ["INSERT INTO users (id, code) VALUES (1, $1)", "users(code=ab ,id=1,name=null)", ["ab "]],
    ["INSERT INTO users (id, code) VALUES (1, $1)", "users(id=1,name=null)", ["ab  "]],
    ["INSERT INTO users (id, name) VALUES (1, lower('A'))", "users(code=null,id=1)"],
    ["INSERT INTO users (id, name) VALUES ('07', 'a')", "users(code=null,name=a)"],
    ["INSERT INTO users (id, name) VALUES (2.5, 'a')", "users(code=null,name=a)"],
    ["INSERT INTO users (id, seen) OVERRIDING SYSTEM VALUE VALUES (1, 2)", "users(code=null,id=1,name=null,seen=2)"],
    ["INSERT INTO users (id, seen) OVERRIDING USER VALUE VALUES (1, 2)", "users(code=null,id=1,name=null)"],
    ["INSERT INTO orders (id, user_id) VALUES (1, 2)", "orders(id=1,status=null,user_id=2)"],
    ["INSERT INTO users (id, name, team) VALUES ($1, $1, 2)", "users(code=null,team=2)", ["1"]],
    ["INSERT INTO orders SELECT * FROM orders", ""],
    ["INSERT INTO changed VALUES (1, 2)", "changed"],
    ["INSERT INTO ruled VALUES (1)", ""],
    ["INSERT INTO parted VALUES (1, 1)", "parted"],
    ["INSERT INTO users (id) VALUES (1) ON CONFLICT DO NOTHING", "users(code=null,id=1,name=null)"],
    [
      "INSERT INTO orders (id, status) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET status = excluded.status",
      "orders(id=1) orders(id=1,status=a) orders(id=1,status=a,user_id=null)"
    ],
    ["INSERT INTO users (id, name) VALUES (1, 'a') ON CONFLICT (name) DO UPDATE SET team = 1", "users"],
    [
      "INSERT INTO users (id, name) VALUES (1, 'a') ON CONFLICT ON CONSTRAINT users_pkey DO UPDATE SET team = 1",
      "users"
    ]
  ])

  describe("RETURNING", () => {
    cases([
      ["INSERT INTO changed VALUES (1, 2) RETURNING *", "changed(a=3,id=1)", [], [{ id: 1, a: 3 }]],
      ["INSERT INTO changed VALUES (1, 2) RETURNING a", "changed(a=3)", [], [[3]]],
      ["INSERT INTO orders (user_id) VALUES (2) RETURNING id", "orders(id=7,status=null,user_id=2)", [], [{ id: 7 }]],
      [
        "INSERT INTO orders (user_id) VALUES (2), (3) RETURNING id",
        "orders(id=7,status=null) orders(id=8,status=null)",
        [],
        [{ id: 7 }, { id: 8 }]
      ],
      ["INSERT INTO orders SELECT * FROM orders RETURNING id", "nothing", [], []],
      ["INSERT INTO orders SELECT * FROM orders RETURNING id + 1", ""],
      ["INSERT INTO orders (id) VALUES (1) RETURNING id, id", "orders(id=1,status=null,user_id=null)", [], [{ id: 1 }]],
      ["INSERT INTO orders (id) VALUES (1) RETURNING id AS \"1\"", "orders(id=1,status=null,user_id=null)", [], [{
        1: 9
      }]],
      [
        "INSERT INTO orders (id, status) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET status = 'b' RETURNING *",
        "orders(id=1,status=b,twice=4,user_id=2) orders(id=1,user_id=2)",
        [],
        [{ id: 1, user_id: 2, status: "b", twice: 4 }]
      ]
    ])
  })
})

describe("UPDATE", () => {
  cases([
    ["UPDATE orders SET status = $1 WHERE id = $2", "orders(id=1) orders(id=1,status=a)", ["a", 1]],
    ["UPDATE orders SET id = 2 WHERE id = 1", "orders(id=1) orders(id=2)"],
    ["UPDATE orders SET user_id = user_id + 1 WHERE id = 1 AND user_id = 5", "orders(id=1) orders(id=1,user_id=5)"],
    ["UPDATE orders SET (user_id, status) = (1, 'x') WHERE id = 1", "orders(id=1) orders(id=1,status=x,user_id=1)"],
    [
      "UPDATE orders SET status = DEFAULT WHERE id IN (1, 2)",
      "orders(id=1) orders(id=1,status=null) orders(id=2) orders(id=2,status=null)"
    ],
    ["UPDATE orders SET status = 'x'", "orders"],
    ["UPDATE orders SET user_id = 1 WHERE twice = 4", "orders(twice=4) orders(user_id=1)"],
    [
      "UPDATE orders SET status = 'x' FROM users u WHERE u.id = user_id AND u.id = 1",
      "orders(status=x,user_id=1) orders(user_id=1)"
    ],
    [
      "UPDATE orders SET status = 'x' WHERE id IN (SELECT id FROM users WHERE id = 3)",
      "orders(id=3) orders(id=3,status=x)"
    ],
    ["UPDATE changed SET a = 1 WHERE id = 1", "changed"],
    ["UPDATE parted SET a = 1 WHERE id = 1", "parted"],
    ["UPDATE parted1 SET id = 2 WHERE id = 1", "parted1(id=1) parted1(id=2)"],
    ["UPDATE users SET code = $1 WHERE id = 1", "users(id=1)", ["ab  "]],
    ["UPDATE orders SET status = 'x' WHERE CURRENT OF c", "orders"]
  ])

  describe("RETURNING", () => {
    cases([
      [
        "UPDATE orders SET status = $1 WHERE id = $2 RETURNING *",
        "orders(id=1,status=a,twice=14,user_id=7) orders(id=1,user_id=7)",
        ["a", 1],
        [{ id: 1, userId: 7, status: "a", twice: 14 }]
      ],
      [
        "UPDATE orders SET status = 'a' RETURNING id, user_id",
        "orders(id=1,status=a,user_id=7) orders(id=1,user_id=7)",
        [],
        [[1, 7]]
      ],
      ["UPDATE orders SET status = 'a' RETURNING status", "orders", [], [["a"]]],
      [
        "UPDATE orders SET status = 'a' WHERE id = 1 RETURNING old.status, new.status, user_id",
        "orders(id=1,status=a,user_id=7) orders(id=1,status=b,user_id=7)",
        [],
        [["b", "a", 7]]
      ],
      [
        "UPDATE orders SET status = 'a' RETURNING WITH (OLD AS o, NEW AS n) o.status, n.*",
        "orders(id=1,status=a,twice=4,user_id=2) orders(id=1,status=b,user_id=2)",
        [],
        [["b", 1, 2, "a", 4]]
      ],
      ["UPDATE changed SET a = 1 WHERE id = 1 RETURNING *", "changed(a=3,id=2) changed(id=1)", [], [[2, 3]]],
      ["UPDATE orders SET status = 'a' RETURNING *", "nothing", [], []],
      [
        "UPDATE orders o SET status = 'a' FROM users WHERE users.id = o.user_id RETURNING users.*, o.id",
        "orders(id=9) orders(id=9,status=a)",
        [],
        [[1, "n", "c", 1, 1, 9]]
      ]
    ])
  })
})

describe("DELETE", () => {
  cases([
    ["DELETE FROM orders WHERE id = 1", "orders(id=1)"],
    ["DELETE FROM orders WHERE id = 1 OR user_id = 2", "orders(id=1) orders(user_id=2)"],
    ["DELETE FROM orders USING users WHERE users.id = orders.user_id AND users.id = 1", "orders(user_id=1)"],
    ["DELETE FROM orders WHERE id = ANY ($1)", "orders", [[]]],
    ["DELETE FROM orders", "orders"],
    ["DELETE FROM orders RETURNING id, old.user_id, new.status", "orders(id=1,user_id=2)", [], [[1, 2, null]]],
    ["DELETE FROM changed WHERE id = 1", "changed(id=1)"]
  ])
})

describe("several writes", () => {
  cases([
    [
      "WITH d AS (DELETE FROM orders WHERE id = 1 RETURNING *) INSERT INTO users (id, name) SELECT id, status FROM d",
      "orders(id=1)"
    ],
    [
      "WITH d AS (DELETE FROM orders WHERE id = 1) UPDATE orders SET status = 'x' WHERE id = 2",
      "orders(id=1) orders(id=2) orders(id=2,status=x)"
    ],
    ["WITH d AS (INSERT INTO orders SELECT * FROM orders) UPDATE orders SET status = 'x' WHERE id = 2", ""],
    ["WITH d AS (DELETE FROM orders WHERE id = 1 RETURNING *) SELECT * FROM d", "orders(id=1)", [], [[5, 6, "x", 7]]],
    ["MERGE INTO orders o USING users u ON o.id = 1 WHEN MATCHED THEN DELETE", ""]
  ])
})

describe("without a rule", () => {
  it.each<Rule>([...Rules.ofWrites, "canonical", "shared-parameter"])("%s something else comes out", (rule) => {
    const without = new Set([rule])
    expect(
      all.some(([sql, expected, parameters = [], answer]) => images(sql, parameters, answer, without) !== expected)
    )
      .toBe(true)
  })
})
