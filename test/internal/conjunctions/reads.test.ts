// The rows that a query depends on, rule by rule. Whether the rules are right is for test/oracle to say: here each is
// shown once where it narrows, and beside it where it must not.
import { beforeAll, describe, expect, it } from "vitest"
import { rowStamp } from "../../../src/Dependency.ts"
import * as Parser from "../../../src/internal/analysis/parser.ts"
import { rowReads, rowsOf } from "../../../src/internal/conjunctions/reads.ts"
import type { Without } from "../../../src/internal/conjunctions/rules.ts"
import * as Rules from "../../support/rules.ts"
import { catalogOf } from "./catalog.ts"

const schema = `
  CREATE TYPE mood AS ENUM ('sad', 'ok');
  CREATE DOMAIN email AS text;
  CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
  CREATE TABLE users (id int PRIMARY KEY, name text, team int, big int8, mood mood, ok bool, key uuid, born date,
    mail email, nick text COLLATE nocase, code varchar(3), pad char(4), score float8, price numeric);
  CREATE TABLE orders (id int PRIMARY KEY, user_id int, status text, day date, tags int[]);
  CREATE TABLE items (order_id int, line int, product int, PRIMARY KEY (order_id, line));
  CREATE TABLE tree (id int, parent int, kind text);
  CREATE TABLE scores (id float8, note text);
  CREATE TABLE notes (id int PRIMARY KEY, item int REFERENCES users, kind text, "by" int REFERENCES users);
  CREATE VIEW open_orders AS SELECT * FROM orders WHERE status = 'open';
`

let catalog: Awaited<ReturnType<typeof catalogOf>>
let parser: Parser.Parser
beforeAll(async () => {
  parser = await Parser.load()
  catalog = await catalogOf(schema)
})

const rows = (sql: string, parameters: ReadonlyArray<unknown>, without?: Without): string => {
  const parsed = parser.parse(sql)
  if (parsed._tag !== "Parsed") throw new Error(sql)
  const reads = rowReads(parsed.statements[0]!, catalog, catalog.searchPath, without)
  return [...reads].flatMap(([{ stamp }, bounds]) => {
    const rows = rowsOf(catalog, bounds, parameters, without)
    return rows === undefined ? [stamp] : [...new Set(rows.map((row) => rowStamp(stamp, [...row].sort())))].sort()
  }).sort().join(" ").replaceAll("\"", "")
}

type Case = readonly [sql: string, expected: string, ...parameters: ReadonlyArray<unknown>]

const all: Array<Case> = []

const cases = (table: ReadonlyArray<Case>) => {
  all.push(...table)
  it.each(table.map(([sql, expected, ...parameters]) => ({ sql, expected, parameters })))(
    "$sql: $expected",
    ({ expected, parameters, sql }) => {
      expect(rows(sql, parameters)).toBe(expected)
    }
  )
}

describe("conditions", () => {
  cases([
    ["SELECT * FROM orders", "orders"],
    ["SELECT * FROM orders WHERE user_id = $1", "orders(user_id=42)", 42],
    ["SELECT * FROM orders WHERE $1 = user_id", "orders(user_id=42)", 42],
    ["SELECT * FROM orders WHERE user_id = 42 AND status = 'x'", "orders(status=x,user_id=42)"],
    ["SELECT * FROM orders WHERE (user_id, status) = ($1, 'x')", "orders(status=x,user_id=42)", 42],
    ["SELECT * FROM orders WHERE user_id IN (1, $1)", "orders(user_id=1) orders(user_id=2)", 2],
    [
      "SELECT * FROM orders WHERE (user_id, status) IN ((1, 'a'), (2, $1))",
      "orders(status=a,user_id=1) orders(status=b,user_id=2)",
      "b"
    ],
    ["SELECT * FROM orders WHERE user_id = ANY ($1)", "orders(user_id=1) orders(user_id=2)", [1, 2]],
    ["SELECT * FROM orders WHERE user_id = ANY ($1::int[])", "orders(user_id=1) orders(user_id=2)", ["1", "2"]],
    ["SELECT * FROM orders WHERE user_id = ANY (ARRAY[1, $1])", "orders(user_id=1) orders(user_id=2)", 2],
    ["SELECT * FROM orders WHERE user_id = 1 OR user_id = 2", "orders(user_id=1) orders(user_id=2)"],
    ["SELECT * FROM orders WHERE user_id = 1 OR status = 'x' AND day > now()", "orders(status=x) orders(user_id=1)"],
    ["SELECT * FROM orders WHERE user_id IS NULL", "orders(user_id=null)"],
    ["SELECT * FROM orders WHERE user_id = $1", "orders(user_id=null)", null],
    [
      "SELECT count(*) FROM orders WHERE user_id = 1 GROUP BY status HAVING max(day) > $1 LIMIT 3",
      "orders(user_id=1)",
      "x"
    ],
    ["SELECT * FROM items WHERE order_id = 1 AND line = 2 AND product = 3", "items(line=2,order_id=1)"],
    ["SELECT * FROM notes WHERE item = 1 AND kind = 'x'", "notes(item=1)"],
    ["SELECT * FROM notes WHERE item = 1 AND kind = 'x' AND \"by\" = 2", "notes(by=2,item=1)"],
    ["SELECT * FROM notes WHERE kind = 'x'", "notes(kind=x)"],
    ["SELECT * FROM notes WHERE item = 1 AND id = 7", "notes(id=7)"]
  ])

  describe("that say nothing", () => {
    cases([
      ["SELECT * FROM orders WHERE user_id = 1 OR day > now()", "orders"],
      ["SELECT * FROM orders WHERE NOT user_id = 1", "orders"],
      ["SELECT * FROM orders WHERE (user_id = 1) IS NOT TRUE", "orders"],
      ["SELECT * FROM orders WHERE user_id <> 1", "orders"],
      ["SELECT * FROM orders WHERE user_id NOT IN (1)", "orders"],
      ["SELECT * FROM orders WHERE user_id IN (1, 1 + 1)", "orders"],
      ["SELECT * FROM orders WHERE user_id = ALL ($1)", "orders", [1]],
      ["SELECT * FROM orders WHERE 1 = ANY (tags)", "orders"],
      ["SELECT * FROM orders WHERE user_id = ANY ($1)", "orders", []],
      ["SELECT * FROM orders WHERE CASE WHEN user_id = 1 THEN true END", "orders"],
      ["SELECT count(*) FILTER (WHERE user_id = 1) FROM orders", "orders"],
      ["SELECT max(user_id) FROM orders HAVING max(user_id) = 1", "orders"],
      ["SELECT * FROM orders WHERE user_id OPERATOR(public.=) 1", "orders"],
      ["SELECT * FROM orders WHERE user_id + 0 = 1", "orders"]
    ])
  })
})

describe("values", () => {
  cases([
    ["SELECT FROM users WHERE team = $1", "users(team=42)", "42"],
    ["SELECT FROM users WHERE team = $1", "users", "042"],
    ["SELECT FROM users WHERE team = $1", "users", 4.5],
    ["SELECT FROM users WHERE team = 42.0", "users"],
    ["SELECT FROM users WHERE team = $1::int", "users(team=42)", "42"],
    ["SELECT FROM users WHERE team = $1::numeric", "users", "42"],
    ["SELECT FROM users WHERE big = $1", "users(big=9007199254740993)", 9007199254740993n],
    ["SELECT FROM users WHERE big = 9007199254740993", "users(big=9007199254740993)"],
    ["SELECT FROM users WHERE big IN ($1, $2)", "users", 9007199254740993n, 0.5],
    ["SELECT FROM users WHERE mood = $1", "users(mood=sad)", "sad"],
    ["SELECT FROM users WHERE mood = $1::mood", "users(mood=sad)", "sad"],
    ["SELECT FROM users WHERE mood = ANY ($1::public.mood[])", "users(mood=sad)", ["sad"]],
    ["SELECT FROM users WHERE ok = $1", "users(ok=true)", true],
    ["SELECT FROM users WHERE ok = false", "users(ok=false)"],
    ["SELECT FROM users WHERE ok = 'yes'", "users"],
    [
      "SELECT FROM users WHERE key = $1",
      "users(key=00000000-0000-0000-0000-00000000000a)",
      "00000000-0000-0000-0000-00000000000a"
    ],
    ["SELECT FROM users WHERE key = $1", "users", "00000000-0000-0000-0000-00000000000A"],
    ["SELECT FROM users WHERE born = '2024-01-05'", "users(born=2024-01-05)"],
    ["SELECT FROM users WHERE born = 'Jan 5 2024'", "users"],
    ["SELECT FROM users WHERE mail = 'a'", "users(mail=a)"],
    ["SELECT FROM users WHERE nick = 'a'", "users"],
    ["SELECT FROM users WHERE name = 'a' COLLATE nocase", "users"],
    ["SELECT FROM users WHERE code = $1", "users(code=ab )", "ab "],
    ["SELECT FROM users WHERE code = 'ab '::char(4)", "users"],
    ["SELECT FROM users WHERE pad = 'ab'", "users"],
    ["SELECT FROM users WHERE score = 1", "users"],
    ["SELECT FROM users WHERE price = 1", "users"],
    ["SELECT FROM users WHERE name = $1", "users", "\ud800"],
    ["SELECT FROM users WHERE name = $1", "users", "x".repeat(300)],
    ["SELECT FROM users WHERE price = $1 AND team = $1", "users", "42"],
    ["SELECT FROM users WHERE price = $1 AND team = $1", "users(team=42)", 42]
  ])
})

describe("joins", () => {
  cases([
    ["SELECT FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = 1", "orders(user_id=1) users(id=1)"],
    ["SELECT FROM users u, orders o WHERE o.user_id = u.id AND o.user_id = 1", "orders(user_id=1) users(id=1)"],
    [
      "SELECT FROM users u JOIN orders o ON o.user_id = u.id AND u.id = 1 JOIN items i ON i.product = o.user_id",
      "items(product=1) orders(user_id=1) users(id=1)"
    ],
    ["SELECT FROM items JOIN orders ON order_id = id WHERE id = 1", "items(order_id=1) orders(id=1)"],
    ["SELECT FROM users JOIN tree USING (id) WHERE id = 1", "tree(id=1) users(id=1)"],
    ["SELECT FROM users NATURAL JOIN tree WHERE id = 1", "tree(id=1) users(id=1)"],
    ["SELECT FROM users JOIN scores USING (id) WHERE id = 1", "scores users"],
    ["SELECT FROM users JOIN scores USING (id) WHERE users.id = 1", "scores users(id=1)"],
    ["SELECT FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE u.id = 1", "orders(user_id=1) users(id=1)"],
    ["SELECT FROM users u LEFT JOIN orders o ON o.user_id = u.id AND o.status = 'x'", "orders(status=x) users"],
    ["SELECT FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE o.id = 1", "orders(id=1) users"],
    ["SELECT FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE o.user_id = 1", "orders(user_id=1) users(id=1)"],
    ["SELECT FROM users u LEFT JOIN orders o ON o.user_id = u.id AND u.id = 1", "orders(user_id=1) users"],
    ["SELECT FROM users u LEFT JOIN orders o ON o.user_id = u.id AND o.user_id = 1", "orders(user_id=1) users"],
    ["SELECT FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE o.id IS NULL", "orders users"],
    ["SELECT FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE o.status = 'x' OR o.id IS NULL", "orders users"],
    ["SELECT FROM users u LEFT JOIN orders o ON true WHERE o.id = 1 OR o.id = 2", "orders(id=1) orders(id=2) users"],
    ["SELECT FROM users u LEFT JOIN orders o ON o.user_id = u.id AND o.status IS NULL", "orders(status=null) users"],
    [
      "SELECT FROM orders o RIGHT JOIN users u ON o.user_id = u.id AND o.status = 'x' WHERE u.id = 1",
      "orders(status=x,user_id=1) users(id=1)"
    ],
    ["SELECT FROM users a FULL JOIN tree b ON a.id = b.id AND a.id = 1", "tree users"],
    ["SELECT FROM users FULL JOIN tree USING (id) WHERE id = 1", "tree(id=1) users(id=1)"],
    ["SELECT FROM users FULL JOIN tree USING (id) WHERE id IS NULL", "tree(id=null) users(id=null)"],
    ["SELECT FROM users FULL JOIN tree USING (id) WHERE id = 1 AND kind IS NULL", "tree(id=1) users(id=1)"],
    ["SELECT FROM users FULL JOIN tree USING (id) WHERE id = 1 AND kind = 'x'", "tree(id=1,kind=x) users(id=1)"],
    ["SELECT FROM users a FULL JOIN tree b ON a.id = b.id WHERE a.team = 1", "tree users(team=1)"],
    ["SELECT FROM users a FULL JOIN tree b ON a.id = b.id WHERE a.id = 1", "tree(id=1) users(id=1)"],
    [
      "SELECT FROM users u LEFT JOIN (orders o JOIN items i ON i.order_id = o.id) ON o.user_id = u.id WHERE i.order_id = 1",
      "items(order_id=1) orders(id=1) users"
    ],
    ["SELECT FROM (users u JOIN orders o ON o.user_id = u.id) AS j WHERE j.team = 1", "orders users(team=1)"],
    ["SELECT FROM users a, users b WHERE a.id = 1 AND b.id = 2", "users(id=1) users(id=2)"],
    ["SELECT FROM users a, users b WHERE a.id = 1", "users"],
    ["SELECT FROM users u JOIN orders o ON o.user_id = u.score WHERE u.score = 1", "orders users"],
    [
      "SELECT FROM users u JOIN tree t ON t.id = u.score JOIN orders o ON o.user_id = u.score WHERE o.user_id = 1",
      "orders(user_id=1) tree users"
    ],
    ["SELECT FROM users u JOIN tree t ON t.kind = u.nick WHERE t.kind = 'x'", "tree(kind=x) users"],
    ["SELECT FROM users AS u (a, b) WHERE a = 1", "users(id=1)"],
    ["SELECT FROM users u JOIN nowhere n ON n.x = u.id WHERE n.x = 1", "users"]
  ])
})

describe("subqueries", () => {
  cases([
    ["SELECT FROM (SELECT * FROM orders) o WHERE user_id = 1", "orders(user_id=1)"],
    [
      "SELECT FROM (SELECT user_id AS u FROM orders WHERE status = 'x') o JOIN users ON u = id WHERE team = 1 AND u = 2",
      "orders(status=x,user_id=2) users(id=2)"
    ],
    [
      "SELECT FROM users u LEFT JOIN LATERAL (SELECT * FROM orders WHERE user_id = u.id LIMIT 3) o ON true WHERE u.id = 1",
      "orders(user_id=1) users(id=1)"
    ],
    [
      "SELECT (SELECT count(*) FROM orders WHERE user_id = users.id) FROM users WHERE id = 1",
      "orders(user_id=1) users(id=1)"
    ],
    [
      "SELECT FROM users WHERE id = 1 AND EXISTS (SELECT FROM orders WHERE user_id = users.id)",
      "orders(user_id=1) users(id=1)"
    ],
    [
      "SELECT FROM users WHERE EXISTS (SELECT FROM orders WHERE user_id = users.id AND user_id = 1)",
      "orders(user_id=1) users(id=1)"
    ],
    [
      "SELECT FROM users WHERE EXISTS (SELECT count(*) FROM orders WHERE user_id = users.id AND user_id = 1)",
      "orders(user_id=1) users"
    ],
    [
      "SELECT FROM users WHERE NOT EXISTS (SELECT FROM orders WHERE user_id = users.id) AND id = 1",
      "orders(user_id=1) users(id=1)"
    ],
    [
      "SELECT FROM users WHERE NOT EXISTS (SELECT FROM orders WHERE user_id = users.id AND user_id = 1)",
      "orders(user_id=1) users"
    ],
    ["SELECT FROM users WHERE id = 1 AND id IN (SELECT user_id FROM orders)", "orders(user_id=1) users(id=1)"],
    ["SELECT FROM users WHERE id IN (SELECT user_id FROM orders WHERE user_id = 1)", "orders(user_id=1) users(id=1)"],
    ["SELECT FROM users WHERE id = 1 AND id IN (SELECT user_id FROM orders LIMIT 1)", "orders users(id=1)"],
    ["SELECT FROM users WHERE id = 1 AND id NOT IN (SELECT user_id FROM orders)", "orders users(id=1)"],
    ["SELECT FROM users WHERE id = 1 AND (id IN (SELECT user_id FROM orders)) IS NULL", "orders users(id=1)"],
    ["SELECT 1 IN (SELECT user_id FROM orders)", "orders"],
    ["SELECT FROM users WHERE EXISTS (SELECT FROM orders WHERE team = 1)", "orders users(team=1)"],
    ["SELECT FROM (SELECT * FROM orders ORDER BY id LIMIT 1) o WHERE user_id = 1", "orders"],
    ["SELECT FROM (SELECT *, rank() OVER (ORDER BY id) FROM orders) o WHERE user_id = 1", "orders"],
    ["SELECT FROM (SELECT DISTINCT ON (status) * FROM orders ORDER BY status) o WHERE user_id = 1", "orders"],
    ["SELECT FROM (SELECT DISTINCT user_id FROM orders) o WHERE user_id = 1", "orders(user_id=1)"],
    ["SELECT FROM (SELECT user_id, count(*) FROM orders GROUP BY user_id) o WHERE user_id = 1", "orders"],
    ["SELECT FROM (SELECT max(id) AS id FROM orders WHERE user_id = 2) o WHERE id = 1", "orders(user_id=2)"],
    ["SELECT FROM (SELECT 1 AS one FROM orders ORDER BY count(*)) o, users WHERE id = 1", "orders users(id=1)"],
    ["SELECT FROM open_orders WHERE id = 1", ""],
    ["SELECT FROM open_orders v, users u WHERE u.id = v.id AND v.id = 1", "users"]
  ])
})

describe("set operations", () => {
  cases([
    [
      "SELECT id FROM users WHERE id = 1 UNION SELECT user_id FROM orders WHERE user_id = 2",
      "orders(user_id=2) users(id=1)"
    ],
    [
      "SELECT FROM (SELECT id FROM users UNION ALL SELECT user_id FROM orders) x WHERE id = 1",
      "orders(user_id=1) users(id=1)"
    ],
    [
      "SELECT FROM (SELECT id FROM users EXCEPT SELECT user_id FROM orders) x WHERE id = 1",
      "orders(user_id=1) users(id=1)"
    ],
    ["SELECT FROM (SELECT id FROM users UNION SELECT score FROM users) x WHERE id = 1", "users"],
    ["SELECT FROM (SELECT id FROM tree UNION SELECT score FROM users) x WHERE id = 1", "tree users"],
    ["SELECT FROM (SELECT id FROM users UNION SELECT user_id FROM orders LIMIT 1) x WHERE id = 1", "orders users"],
    [
      "SELECT FROM (SELECT id, team FROM users UNION SELECT user_id, 1 FROM orders) x WHERE id = 1 AND team = 1",
      "orders(user_id=1) users(id=1)"
    ]
  ])
})

describe("WITH", () => {
  cases([
    ["WITH o AS (SELECT * FROM orders) SELECT FROM o WHERE user_id = 1", "orders(user_id=1)"],
    ["WITH o AS (SELECT * FROM orders) SELECT FROM o a, o b WHERE a.user_id = 1 AND b.user_id = 1", "orders"],
    [
      "WITH o AS (SELECT * FROM orders WHERE status = 'x') SELECT FROM o a, o b WHERE a.user_id = 1",
      "orders(status=x)"
    ],
    [
      "WITH a AS (SELECT * FROM orders), orders AS (SELECT 1 AS id) SELECT FROM a, orders o WHERE a.id = 1",
      "orders(id=1)"
    ],
    ["WITH orders AS (SELECT * FROM users) SELECT FROM orders WHERE id = 1", "users(id=1)"],
    [
      "WITH RECURSIVE t AS (SELECT * FROM tree WHERE id = 1 UNION ALL SELECT c.* FROM tree c JOIN t ON c.parent = t.id) " +
      "SELECT FROM t WHERE kind = 'x'",
      "tree"
    ],
    [
      "WITH RECURSIVE t AS (SELECT id FROM users WHERE id = 1 UNION ALL SELECT c.id FROM tree c JOIN t ON c.parent = t.id " +
      "WHERE c.kind = 'x') SELECT FROM t",
      "tree(kind=x) users(id=1)"
    ]
  ])
})

describe("names", () => {
  cases([
    ["SELECT FROM users u, orders o WHERE user_id = 1", "orders(user_id=1) users"],
    ["SELECT FROM users WHERE users.id = 1", "users(id=1)"],
    ["SELECT FROM users, generate_series(1, 2) g WHERE id = g AND id = 1", "users(id=1)"],
    ["SELECT FROM users u WHERE EXISTS (SELECT FROM generate_series(1, 2) WHERE id = 1)", "users"],
    ["SELECT FROM users u WHERE EXISTS (SELECT FROM orders u WHERE u.id = 1)", "orders(id=1) users"],
    ["SELECT FROM users WHERE id = 1 AND users = users", "users(id=1)"]
  ])
})

describe("without a rule", () => {
  it.each(Rules.ofReads)("%s something else comes out", (rule) => {
    const without = new Set([rule])
    expect(all.some(([sql, expected, ...parameters]) => rows(sql, parameters, without) !== expected)).toBe(true)
  })
})
