/** What a query reads and a write changes beyond the names in its text: views, partitions, foreign keys, triggers, functions. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, layer } from "@effect/vitest"
import { CachedSqlClient, CacheStore, QueryCache } from "effect-query-cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import * as Pglite from "../support/pglite.ts"

/** The client that is decorated: what it does, the cache does not see. */
class Base extends Context.Service<Base, PgClient.PgClient>()("test/catalog/Base") {}

interface Case {
  readonly name: string
  readonly setup: ReadonlyArray<string>
  /** Queries, each with whether the write makes them read again. */
  readonly reads: { readonly [sql: string]: boolean }
  readonly write: string
  /** What `explain` says of a write that invalidates everything. */
  readonly detail?: string
}

const users = "CREATE TABLE users (id int PRIMARY KEY, name text)"
const orders =
  "CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE ON UPDATE CASCADE)"
const lines =
  "CREATE TABLE lines (id int PRIMARY KEY, order_id int REFERENCES orders ON DELETE CASCADE ON UPDATE CASCADE)"
const rows = [
  "INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace')",
  "INSERT INTO orders VALUES (10, 1), (11, 2)",
  "INSERT INTO lines VALUES (100, 10), (101, 11)"
]
const shop = [users, orders, lines, ...rows]
const log = "CREATE TABLE log (n int)"
const logger = `CREATE FUNCTION logger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO log VALUES (1);
  RETURN coalesce(NEW, OLD);
END $$`
const trigger = (when: string, what = "ROW") => `CREATE TRIGGER t ${when} FOR EACH ${what} EXECUTE FUNCTION logger()`

const cases: { readonly [topic: string]: ReadonlyArray<Case> } = {
  "views": [
    {
      name: "a view reads its tables, at any depth",
      setup: [
        ...shop,
        "CREATE VIEW a AS SELECT o.id, u.name FROM orders o JOIN users u ON u.id = o.user_id",
        "CREATE VIEW b AS SELECT name FROM a WHERE id IN (SELECT order_id FROM lines)"
      ],
      reads: { "SELECT * FROM a": false, "SELECT * FROM b": true, "SELECT * FROM users": false },
      write: "INSERT INTO lines VALUES (102, 10)"
    },
    {
      name: "a write through a view is one to the table under it",
      setup: [...shop, "CREATE VIEW a AS SELECT * FROM users WHERE id NOT IN (SELECT user_id FROM orders)"],
      reads: { "SELECT * FROM a": true, "SELECT * FROM users": true, "SELECT * FROM orders": false },
      write: "INSERT INTO a VALUES (3, 'Edsger')"
    },
    {
      name: "INSTEAD OF triggers write what their functions write",
      setup: [
        ...shop,
        log,
        "CREATE VIEW a AS SELECT * FROM users",
        logger,
        trigger("INSTEAD OF INSERT ON a")
      ],
      reads: { "SELECT * FROM users": false, "SELECT * FROM log": true },
      write: "INSERT INTO a VALUES (3, 'Edsger')"
    },
    {
      name: "rules write what their actions write",
      setup: [
        ...shop,
        "CREATE VIEW a AS SELECT * FROM users",
        "CREATE RULE r AS ON INSERT TO a DO INSTEAD INSERT INTO orders VALUES (new.id, 1)"
      ],
      reads: { "SELECT * FROM orders": true, "SELECT * FROM lines": false },
      write: "INSERT INTO a VALUES (30, 'x')"
    },
    {
      name: "a materialized view changes when it is refreshed",
      setup: [...shop, "CREATE MATERIALIZED VIEW m AS SELECT count(*)::int AS n FROM users"],
      reads: { "SELECT * FROM m": false, "SELECT * FROM users": true },
      write: "INSERT INTO users VALUES (3, 'Edsger')"
    },
    {
      name: "REFRESH",
      setup: [
        ...shop,
        "CREATE MATERIALIZED VIEW m AS SELECT count(*)::int AS n FROM users",
        "CREATE VIEW a AS TABLE m"
      ],
      reads: { "SELECT * FROM m": true, "SELECT * FROM a": true, "SELECT * FROM users": false },
      write: "REFRESH MATERIALIZED VIEW m"
    }
  ],
  "schemas": [
    {
      name: "tables of one name in two schemas are two",
      setup: ["CREATE SCHEMA archive", users, "CREATE TABLE archive.users (id int)"],
      reads: { "SELECT * FROM users": false, "SELECT * FROM public.users": false, "SELECT * FROM archive.users": true },
      write: "INSERT INTO archive.users VALUES (1)"
    },
    {
      name: "a name without a schema is what the search_path says",
      setup: ["CREATE SCHEMA archive", users, "CREATE TABLE archive.users (id int)"],
      reads: { "SELECT * FROM users": true, "SELECT * FROM public.users": true, "SELECT * FROM archive.users": false },
      write: "INSERT INTO users VALUES (1)"
    }
  ],
  "partitions and inheritance": [
    {
      name: "a write to a partition is one to its table, and not to the others",
      setup: [
        "CREATE TABLE events (id int, kind text) PARTITION BY LIST (kind)",
        "CREATE TABLE clicks PARTITION OF events FOR VALUES IN ('click')",
        "CREATE TABLE views PARTITION OF events FOR VALUES IN ('view')"
      ],
      reads: { "SELECT * FROM events": true, "SELECT * FROM clicks": true, "SELECT * FROM views": false },
      write: "INSERT INTO clicks VALUES (1, 'click')"
    },
    {
      name: "a write through the table may end in any partition",
      setup: [
        "CREATE TABLE events (id int, kind text) PARTITION BY LIST (kind)",
        "CREATE TABLE clicks PARTITION OF events FOR VALUES IN ('click') PARTITION BY LIST (id)",
        "CREATE TABLE first PARTITION OF clicks FOR VALUES IN (1)"
      ],
      reads: { "SELECT * FROM events": true, "SELECT * FROM clicks": true, "SELECT * FROM first": true },
      write: "INSERT INTO events VALUES (1, 'click')"
    },
    {
      name: "tables that inherit",
      setup: ["CREATE TABLE a (id int)", "CREATE TABLE b () INHERITS (a)", "CREATE TABLE c () INHERITS (b)"],
      reads: { "SELECT * FROM a": true, "SELECT * FROM b": true, "SELECT * FROM c": false },
      write: "INSERT INTO b VALUES (1)"
    },
    {
      name: "a row that moves to another partition fires triggers of DELETE and INSERT",
      setup: [
        "CREATE TABLE events (id int, kind text) PARTITION BY LIST (kind)",
        "CREATE TABLE clicks PARTITION OF events FOR VALUES IN ('click')",
        "CREATE TABLE views PARTITION OF events FOR VALUES IN ('view')",
        "INSERT INTO events VALUES (1, 'click')",
        log,
        logger,
        trigger("AFTER INSERT ON views")
      ],
      reads: { "SELECT * FROM log": true },
      write: "UPDATE events SET kind = 'view'"
    }
  ],
  "foreign keys": [
    {
      name: "ON DELETE CASCADE, at any depth",
      setup: shop,
      reads: { "SELECT * FROM users": true, "SELECT * FROM orders": true, "SELECT * FROM lines": true },
      write: "DELETE FROM users WHERE id = 1"
    },
    {
      name: "ON UPDATE CASCADE",
      setup: shop,
      reads: { "SELECT * FROM orders": true },
      write: "UPDATE users SET id = 5 WHERE id = 1"
    },
    {
      name: "INSERT cascades to nothing",
      setup: shop,
      reads: { "SELECT * FROM users": true, "SELECT * FROM orders": false, "SELECT * FROM lines": false },
      write: "INSERT INTO users VALUES (3, 'Edsger')"
    },
    {
      name: "SET NULL and SET DEFAULT change the tables that refer",
      setup: [
        users,
        "CREATE TABLE a (id int, user_id int REFERENCES users ON DELETE SET NULL)",
        "CREATE TABLE b (id int, user_id int DEFAULT 2 REFERENCES users ON DELETE SET DEFAULT)",
        "CREATE TABLE c (id int, user_id int REFERENCES users)",
        rows[0]!,
        "INSERT INTO a VALUES (1, 1)",
        "INSERT INTO b VALUES (1, 1)"
      ],
      reads: { "SELECT * FROM a": true, "SELECT * FROM b": true, "SELECT * FROM c": false },
      write: "DELETE FROM users WHERE id = 1"
    },
    {
      name: "a trigger on the table that a cascade reaches",
      setup: [...shop, log, logger, trigger("AFTER DELETE ON lines")],
      reads: { "SELECT * FROM log": true },
      write: "DELETE FROM users WHERE id = 1"
    },
    {
      name: "TRUNCATE ... CASCADE, whatever the actions",
      setup: [users, "CREATE TABLE c (user_id int REFERENCES users)", log, ...rows.slice(0, 1)],
      reads: { "SELECT * FROM c": true, "SELECT * FROM log": false },
      write: "TRUNCATE users CASCADE"
    }
  ],
  "triggers and what else a write calls": [
    {
      name: "a trigger of the operation",
      setup: [...shop, log, logger, trigger("AFTER UPDATE ON users")],
      reads: { "SELECT * FROM log": true, "SELECT * FROM orders": false },
      write: "UPDATE users SET name = 'x' WHERE id = 1"
    },
    {
      name: "a trigger of another operation",
      setup: [...shop, log, logger, trigger("AFTER DELETE ON users")],
      reads: { "SELECT * FROM log": false },
      write: "UPDATE users SET name = 'x' WHERE id = 1"
    },
    {
      name: "a trigger of the statement, on ON CONFLICT DO UPDATE",
      setup: [...shop, log, logger, trigger("AFTER UPDATE ON users", "STATEMENT")],
      reads: { "SELECT * FROM log": true },
      write: "INSERT INTO users VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded.name"
    },
    {
      name: "a deferred constraint trigger",
      setup: [
        ...shop,
        log,
        logger,
        "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED " +
        "FOR EACH ROW EXECUTE FUNCTION logger()"
      ],
      reads: { "SELECT * FROM log": true },
      write: "INSERT INTO users VALUES (3, 'Edsger')"
    },
    {
      name: "a trigger whose function calls another",
      setup: [
        ...shop,
        log,
        "CREATE FUNCTION note() RETURNS void LANGUAGE sql AS 'INSERT INTO log VALUES (1)'",
        `CREATE FUNCTION logger() RETURNS trigger LANGUAGE plpgsql AS $$
          DECLARE n int[];
          BEGIN
            IF NEW.id > 0 THEN n[1] := 1; PERFORM note(); END IF;
            RETURN NEW;
          END $$`,
        trigger("BEFORE INSERT ON users")
      ],
      reads: { "SELECT * FROM log": true, "SELECT * FROM lines": false },
      write: "INSERT INTO users VALUES (3, 'Edsger')"
    },
    {
      name: "a trigger that runs dynamic SQL may write anything",
      setup: [
        ...shop,
        log,
        `CREATE FUNCTION logger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          EXECUTE 'INSERT INTO log VALUES (1)';
          RETURN NEW;
        END $$`,
        trigger("BEFORE INSERT ON users")
      ],
      reads: { "SELECT * FROM log": true, "SELECT * FROM lines": true },
      write: "INSERT INTO users VALUES (3, 'Edsger')",
      detail: "logger runs dynamic SQL"
    },
    {
      name: "a default that writes",
      setup: [
        log,
        "CREATE FUNCTION number() RETURNS int LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING n'",
        "CREATE TABLE a (id int, n int DEFAULT number())"
      ],
      reads: { "SELECT * FROM log": true },
      write: "INSERT INTO a (id) VALUES (1)"
    }
  ],
  "functions": [
    {
      name: "a function reads what its body reads, immutable or not",
      setup: [
        ...shop,
        "CREATE FUNCTION a() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT count(*) FROM users'",
        `CREATE FUNCTION b(x int) RETURNS bigint LANGUAGE plpgsql AS $$
          DECLARE n bigint := (SELECT count(*) FROM orders WHERE user_id = x);
          BEGIN RETURN n + a(); END $$`,
        "CREATE FUNCTION c() RETURNS SETOF lines BEGIN ATOMIC SELECT * FROM lines; END"
      ],
      reads: { "SELECT a()::int": true, "SELECT b(1)::int": true, "SELECT * FROM c()": false },
      write: "INSERT INTO users VALUES (3, 'Edsger')"
    },
    {
      name: "a function writes what its body writes",
      setup: [
        ...shop,
        log,
        "CREATE FUNCTION note() RETURNS int LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING n'",
        "CREATE FUNCTION through() RETURNS int LANGUAGE sql STABLE AS 'SELECT note()'"
      ],
      reads: { "SELECT * FROM log": true, "SELECT * FROM users": false },
      write: "SELECT through()"
    },
    {
      name: "an operator, a cast and a field call functions",
      setup: [
        ...shop,
        "CREATE FUNCTION known(text, text) RETURNS bool LANGUAGE sql STABLE AS 'SELECT EXISTS (SELECT FROM lines)'",
        "CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = known)",
        "CREATE FUNCTION total(users) RETURNS int LANGUAGE sql STABLE AS 'SELECT count(*)::int FROM lines'"
      ],
      reads: {
        "SELECT id FROM users WHERE name === 'x'": true,
        "SELECT u.total FROM users u": true,
        "SELECT u.name FROM users u": false
      },
      write: "INSERT INTO lines VALUES (102, 10)"
    },
    {
      name: "a function finds its tables by the search_path it sets",
      setup: [
        "CREATE SCHEMA archive",
        users,
        "CREATE TABLE archive.users (id int)",
        "CREATE FUNCTION a() RETURNS int LANGUAGE sql STABLE SET search_path = archive, public " +
        "AS 'SELECT count(*)::int FROM users'"
      ],
      reads: { "SELECT a()": true, "SELECT * FROM users": false },
      write: "INSERT INTO archive.users VALUES (1)"
    },
    {
      name: "a procedure",
      setup: [...shop, log, "CREATE PROCEDURE note() LANGUAGE sql AS 'INSERT INTO log VALUES (1)'"],
      reads: { "SELECT * FROM log": true, "SELECT * FROM users": false },
      write: "CALL note()"
    },
    {
      name: "an aggregate calls its functions",
      setup: [
        ...shop,
        "CREATE FUNCTION add(int, int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1 + count(*)::int FROM lines'",
        "CREATE AGGREGATE added(int) (SFUNC = add, STYPE = int, INITCOND = '0')"
      ],
      reads: { "SELECT added(id) FROM users": true, "SELECT max(id) FROM users": false },
      write: "INSERT INTO lines VALUES (102, 10)"
    }
  ]
}

layer(
  CachedSqlClient.layer({ policy: { timeToLive: "1 day" } }).pipe(
    Layer.provideMerge(Layer.effect(Base, PgClient.PgClient)),
    Layer.provide([CacheStore.layerMemory(), Pglite.layer()])
  )
)("the catalog", (it) => {
  for (const [topic, list] of Object.entries(cases)) {
    describe(topic, () => {
      it.effect.each(list)("$name", ({ detail, reads, setup, write }) =>
        Effect.gen(function*() {
          const base = yield* Base
          const sql = yield* SqlClient.SqlClient
          const schemas = yield* base<{ name: string }>`
            SELECT nspname AS name FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'`
          for (const { name } of schemas) yield* sql`DROP SCHEMA ${sql(name)} CASCADE`
          yield* sql`CREATE SCHEMA public`
          for (const statement of setup) yield* sql.unsafe(statement)
          const cached = (text: string) => QueryCache.withInfo(QueryCache.cached(sql.unsafe(text)))
          for (const text of Object.keys(reads)) {
            const [[first]] = yield* cached(text)
            const [[second]] = yield* cached(text)
            assert.deepStrictEqual([first!.status, second!.status], ["miss", "hit"], `${text}: ${first!.reason}`)
          }
          if (detail !== undefined) {
            assert.strictEqual((yield* QueryCache.explain(sql.unsafe(write))).detail, detail)
          }
          yield* sql.unsafe(write)
          for (const [text, again] of Object.entries(reads)) {
            const [[info], rows] = yield* cached(text)
            assert.deepStrictEqual(rows, yield* base.unsafe(text), text)
            assert.strictEqual(info!.status, again ? "miss" : "hit", text)
          }
        }))
    })
  }

  it.effect("what is refused, and why", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      for (
        const statement of [
          "CREATE SCHEMA refused",
          "CREATE TABLE refused.t (id int)",
          "CREATE SEQUENCE refused.s",
          "CREATE FOREIGN DATA WRAPPER nothing",
          "CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing",
          "CREATE FOREIGN TABLE refused.f (id int) SERVER nowhere",
          "CREATE TABLE refused.p (id int) PARTITION BY LIST (id)",
          "CREATE FOREIGN TABLE refused.g PARTITION OF refused.p FOR VALUES IN (1) SERVER nowhere",
          "CREATE VIEW refused.r AS SELECT random()",
          "CREATE VIEW refused.n AS SELECT now() AS at",
          "CREATE FUNCTION refused.dynamic() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE ''SELECT 1''; END'",
          "CREATE FUNCTION refused.each() RETURNS SETOF int LANGUAGE plpgsql AS 'BEGIN RETURN QUERY EXECUTE $1; END'",
          "CREATE FUNCTION refused.schema() RETURNS void LANGUAGE sql AS 'CREATE TABLE refused.x ()'",
          "CREATE FUNCTION refused.dice() RETURNS float LANGUAGE sql IMMUTABLE AS 'SELECT random()'",
          "CREATE FUNCTION refused.path() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET search_path = a; END'",
          "CREATE FUNCTION refused.internal() RETURNS text LANGUAGE internal STABLE AS 'pgsql_version'"
        ]
      ) yield* sql.unsafe(statement)
      const told = (text: string) =>
        Effect.map(
          QueryCache.explain(sql.unsafe(text).pipe(QueryCache.cached())),
          ({ detail, reason, verdict }) => [verdict, reason, detail]
        )
      const expected: ReadonlyArray<readonly [sql: string, verdict: string, reason?: string, detail?: string]> = [
        ["SELECT * FROM refused.s", "bypass", "sequence-relation", "s"],
        ["SELECT * FROM refused.f", "bypass", "foreign-relation", "f"],
        ["SELECT * FROM refused.p", "bypass", "foreign-relation", "g"],
        ["SELECT * FROM refused.r", "bypass", "volatile-function", "random"],
        ["SELECT * FROM refused.n", "cached"],
        ["SELECT * FROM refused.nothing", "bypass", "unknown-relation", "refused.nothing"],
        ["INSERT INTO refused.nothing VALUES (1)", "write", "opaque-write", "the unknown relation refused.nothing"],
        ["SELECT refused.nothing()", "write", "unknown-function", "refused.nothing"],
        ["SELECT refused.dynamic()", "write", "opaque-function", "dynamic runs dynamic SQL"],
        ["SELECT refused.each()", "write", "opaque-function", "each runs dynamic SQL"],
        ["SELECT refused.schema()", "write", "opaque-function", "schema changes the schema"],
        ["SELECT refused.path()", "write", "opaque-function", "path sets the search_path or the role"],
        ["SELECT refused.internal()", "write", "opaque-function", "internal is written in internal"],
        ["SELECT refused.dice()", "bypass", "volatile-function", "random"],
        ["INSERT INTO refused.t SELECT 1 FROM refused.dynamic()", "write", "opaque-write", "dynamic runs dynamic SQL"],
        ["INSERT INTO refused.t VALUES (refused.dice())", "write"],
        ["DO 'BEGIN END'", "write", "opaque-write", "DO"],
        ["CREATE TABLE refused.u ()", "write", "schema-change"]
      ]
      for (const [text, verdict, reason, detail] of expected) {
        assert.deepStrictEqual(yield* told(text), [verdict, reason, detail], text)
      }
    }))
})

layer(
  CachedSqlClient.layer({ analyzer: { writes: { audit: ["log"] } } }).pipe(
    Layer.provide([CacheStore.layerMemory(), Pglite.layer()])
  )
)("functions that are declared", (it) => {
  it.effect("what is declared stands in place of the body", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE log (n int)`
      yield* sql`CREATE TABLE users (id int)`
      yield* sql`CREATE TABLE others (id int)`
      yield* sql.unsafe(`CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        EXECUTE 'INSERT INTO log VALUES (1)';
        RETURN NEW;
      END $$`)
      yield* sql`CREATE TRIGGER t AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION audit()`
      const write = sql`INSERT INTO users VALUES (1)`
      assert.deepStrictEqual((yield* QueryCache.explain(write)).dependencies, ["log", "users(id=\"1\")"])
      const reads = Effect.all([sql`SELECT * FROM log`, sql`SELECT * FROM others`]).pipe(QueryCache.cached())
      yield* reads
      yield* write
      const [queries, [logged]] = yield* QueryCache.withInfo(reads)
      assert.deepStrictEqual(queries.map(({ status }) => status), ["miss", "hit"])
      assert.deepStrictEqual(logged, [{ n: 1 }])
    }))
})
