// A database that a seed determines: tables with keys, cascades, partitions and children, and what changes rows behind a
// statement's back: triggers, rules, defaults, generated columns.
import { Queries } from "./queries.ts"
import { Random } from "./random.ts"
import { chooseType, type ColumnType, identifier, preamble, quote, types } from "./values.ts"

export interface Column {
  readonly name: string
  readonly type: ColumnType
  /** Its value comes from an expression over others. */
  readonly generated?: boolean
}

/** What a query can name: a table, a view, a materialized view. */
export interface Relation {
  /** As SQL names it. */
  readonly ref: string
  readonly columns: ReadonlyArray<Column>
}

export interface Table extends Relation {
  /** As stamps name it: outside of `public` with its schema, in quotes where it must be. */
  readonly name: string
  /** Whether rows lie in it, and not in its partitions. */
  readonly holdsRows: boolean
  /** What it is a partition or a child of. */
  readonly parent: Table | undefined
  readonly unique: ReadonlyArray<string>
  /** Under row security for the role that queries in a scope have. */
  readonly secured: boolean
}

export interface World {
  readonly seed: number
  /** The statements that make it, in order. */
  readonly ddl: ReadonlyArray<string>
  /** What changes it while it is in use, one list after the other. */
  readonly changes: ReadonlyArray<ReadonlyArray<string>>
  readonly tables: ReadonlyArray<Table>
  readonly relations: ReadonlyArray<Relation>
  /** Views that take writes: by PostgreSQL's own rewriting, or by what is defined on them. */
  readonly writable: ReadonlyArray<Relation>
  readonly materialized: ReadonlyArray<string>
  /** Calls that read and give one value, and calls that write. */
  readonly readers: ReadonlyArray<string>
  readonly writers: ReadonlyArray<string>
}

/** The table and what it is a part of, directly or not. */
export const lineage = (table: Table): ReadonlyArray<Table> =>
  table.parent === undefined ? [table] : [table, ...lineage(table.parent)]

/** The role of queries in a scope. */
export const reader = "reader"

interface Draft {
  readonly ref: string
  readonly columns: Array<Column>
  readonly constraints: Array<string>
  readonly unique: Array<string>
  readonly suffix: string
  readonly parent?: Draft
  readonly holdsRows: boolean
  secured: boolean
}

export const makeWorld = (seed: number): World => {
  const random = new Random(seed)
  const ddl: Array<string> = [preamble, "CREATE SCHEMA archive"]
  const drafts: Array<Draft> = []

  const free = (names: ReadonlyArray<string>): Array<Column> =>
    random.some(names, 2).map((name) => ({ name, type: chooseType(random) }))

  const draft = (
    ref: string,
    columns: ReadonlyArray<Column>,
    options?: { suffix?: string; parent?: Draft; holdsRows?: boolean }
  ): Draft => {
    const made: Draft = {
      ref,
      columns: [...columns],
      constraints: [],
      unique: [],
      suffix: options?.suffix ?? "",
      ...(options?.parent && { parent: options.parent }),
      holdsRows: options?.holdsRows ?? true,
      secured: false
    }
    drafts.push(made)
    return made
  }
  const key = (made: Draft, name = "id"): void => {
    made.constraints.push(`PRIMARY KEY (${name})`)
    made.unique.push(name)
  }
  const id: Column = { name: "id", type: types.key }
  const action = (): string =>
    random.pick([
      "",
      " ON DELETE CASCADE",
      " ON DELETE SET NULL",
      " ON DELETE SET DEFAULT",
      " ON DELETE CASCADE ON UPDATE CASCADE",
      " ON UPDATE CASCADE",
      " ON UPDATE SET NULL ON DELETE CASCADE",
      " ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED"
    ])

  const users = draft("users", [id, ...free(["name", "status", "flag", "born", "team"])])
  key(users)
  const orders = draft("orders", [id, { name: "user_id", type: types.int }, ...free(["status", "total", "name", "k"])])
  key(orders)
  if (random.chance(0.7)) orders.constraints.push(`FOREIGN KEY (user_id) REFERENCES users${action()}`)
  const items = draft("items", [id, { name: "order_id", type: types.int }, ...free(["k", "name", "flag"])])
  if (random.chance(0.7)) items.constraints.push(`FOREIGN KEY (order_id) REFERENCES orders${action()}`)
  const tree = draft("tree", [id, { name: "parent", type: types.int }, ...free(["name", "k"])])
  key(tree)
  if (random.chance(0.6)) tree.constraints.push(`FOREIGN KEY (parent) REFERENCES tree${action()}`)
  const log = draft(`"Audit Log"`, [{ name: "n", type: types.int }, { name: "Word", type: types.text }])
  draft("archive.orders", [id, ...free(["user_id", "status", "Word"])])
  const plain = [users, orders, items, tree]

  // Unique columns, for ON CONFLICT to find another row than the one that is inserted.
  for (const table of plain) {
    const unique = table.columns.find(({ name, type }) => name !== "id" && type === types.text && random.chance(0.4))
    if (unique !== undefined) {
      table.constraints.push(`UNIQUE (${unique.name})`)
      table.unique.push(unique.name)
    }
  }
  // A generated column follows from another one.
  for (const table of plain) {
    if (!random.chance(0.3)) continue
    const from = table.columns.find(({ type }) => type === types.int && random.chance(0.7))
    if (from === undefined) continue
    table.columns.push({ name: "g", type: types.int, generated: true })
  }

  // Partitions by list or hash, with columns in an order of their own; a child by inheritance.
  if (random.chance(0.6)) {
    const columns: Array<Column> = [id, { name: "region", type: types.int }, ...free(["name", "k"])]
    const hash = random.chance(0.3)
    const root = draft("parts", columns, {
      suffix: ` PARTITION BY ${hash ? "HASH" : "LIST"} (region)`,
      holdsRows: false
    })
    const bounds = hash
      ? ["FOR VALUES WITH (MODULUS 2, REMAINDER 0)", "FOR VALUES WITH (MODULUS 2, REMAINDER 1)"]
      : ["FOR VALUES IN (1)", "DEFAULT"]
    bounds.forEach((bound, i) => draft(`parts_${i}`, columns, { suffix: bound, parent: root }))
  }
  if (random.chance(0.6)) {
    const notes = draft("notes", [id, ...free(["name", "k", "status"])])
    draft("old_notes", [...notes.columns, { name: "extra", type: types.int }], { parent: notes })
  }

  // Writing functions, called by triggers, defaults and statements.
  const word = quote(random.pick(types.text.stored))
  ddl.push(...drafts.map(tableDdl))
  ddl.push(
    `CREATE FUNCTION write_log(word text) RETURNS int LANGUAGE plpgsql AS $$
     BEGIN INSERT INTO "Audit Log" VALUES (1, word); RETURN 1; END $$`,
    "CREATE FUNCTION write_sql() RETURNS int LANGUAGE sql AS $$ DELETE FROM tree WHERE id = 3; SELECT write_log('b') $$"
  )

  const defaulted = random.chance(0.2) ? random.pick([orders, items]) : undefined
  if (defaulted !== undefined) {
    const column = defaulted.columns.find(({ generated, name, type }) =>
      type === types.int && name !== "id" && !generated && name !== "user_id" && name !== "order_id"
    )
    if (column !== undefined) {
      ddl.push(`ALTER TABLE ${defaulted.ref} ALTER ${column.name} SET DEFAULT write_log('a')`)
    }
  }

  let triggers = 0
  const trigger = (table: Draft, ddl: Array<string>): void => {
    const name = `t${triggers++}`
    const changeable = table.columns.filter(({ generated, name }) => !generated && name !== "id" && name !== "region")
    const define = (body: string, when: string, options = ""): void => {
      ddl.push(
        `CREATE FUNCTION ${name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${body} END $$`,
        `CREATE ${
          options.includes("DEFERRED") ? "CONSTRAINT " : ""
        }TRIGGER ${name} ${when} ON ${table.ref} ${options} ` +
          `EXECUTE FUNCTION ${name}()`
      )
    }
    const changed = random.pick(changeable)
    const value = quote(random.pick(changed.type.stored))
    switch (random.below(8)) {
      case 0:
        return define(
          `NEW.${identifier(changed.name)} := ${value}; RETURN NEW;`,
          `BEFORE ${random.pick(["INSERT", "UPDATE", "INSERT OR UPDATE"])}`,
          "FOR EACH ROW"
        )
      case 1:
        return define(
          `INSERT INTO "Audit Log" VALUES (2, ${word}); RETURN NULL;`,
          `AFTER ${random.pick(["INSERT", "UPDATE", "DELETE", "INSERT OR DELETE"])}`,
          "FOR EACH ROW"
        )
      case 2:
        return define(
          `DELETE FROM "Audit Log" WHERE n = 1; RETURN NULL;`,
          `${random.pick(["BEFORE", "AFTER"])} ${random.pick(["INSERT", "UPDATE", "DELETE", "TRUNCATE"])}`,
          "FOR EACH STATEMENT"
        )
      case 3:
        return table.suffix === "" || table.parent !== undefined
          ? define(
            `PERFORM write_log('A'); RETURN NULL;`,
            "AFTER INSERT OR UPDATE",
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
          )
          : undefined
      case 4:
        return define("RETURN NULL;", "BEFORE DELETE", "FOR EACH ROW")
      case 5:
        return define(
          `EXECUTE 'INSERT INTO "Audit Log" VALUES (3, ''dyn'')'; RETURN NULL;`,
          "AFTER UPDATE",
          "FOR EACH STATEMENT"
        )
      case 6:
        return define(
          `IF NEW.id > 1 THEN NEW.${identifier(changed.name)} := NULL; END IF; PERFORM write_sql(); RETURN NEW;`,
          "BEFORE UPDATE",
          "FOR EACH ROW"
        )
      default:
        return define(
          `UPDATE ${random.pick(["orders", "archive.orders", "items"])} SET id = id + 10 WHERE id = 1; RETURN NULL;`,
          "AFTER DELETE",
          "FOR EACH STATEMENT"
        )
    }
  }
  for (let i = random.weighted([[3, 0], [3, 1], [2, 2]]); i > 0; i--) {
    trigger(random.pick(drafts.filter((table) => table !== log)), ddl)
  }
  const changes: Array<Array<string>> = []
  if (random.chance(0.3)) trigger(random.pick(plain), changes[0] = [])
  else if (random.chance(0.2)) {
    changes.push(["ALTER TABLE items ADD FOREIGN KEY (id) REFERENCES users ON DELETE CASCADE NOT VALID"])
  }
  if (random.chance(0.2)) {
    // Where rows are unique, ON CONFLICT may be asked for, which a rule forbids.
    const table = random.pick(plain)
    const event = table.unique.length > 0 ? "DELETE" : random.pick(["INSERT", "UPDATE", "DELETE"])
    ddl.push(`CREATE RULE also AS ON ${event} TO ${table.ref} DO ALSO INSERT INTO "Audit Log" VALUES (4, 'rule')`)
  }

  // Row security, whose policy reads another table.
  ddl.push(
    `DO $$ BEGIN CREATE ROLE ${reader}; EXCEPTION WHEN duplicate_object THEN NULL; END $$`,
    `GRANT USAGE ON SCHEMA archive TO ${reader}`
  )
  if (random.chance(0.4)) {
    const secured = random.pick([orders, items])
    secured.secured = true
    ddl.push(
      `ALTER TABLE ${secured.ref} ENABLE ROW LEVEL SECURITY`,
      `CREATE POLICY own ON ${secured.ref} USING (id IN (SELECT n FROM "Audit Log") OR id > 1)`
    )
  }

  const made = new Map<Draft, Table>()
  for (const one of drafts) {
    const { columns, holdsRows, parent, ref, secured, unique } = one
    made.set(one, { ref, name: ref, columns, holdsRows, secured, unique, parent: parent && made.get(parent) })
  }
  const tables = [...made.values()]

  // Functions that read, honest about it or not.
  const readers = ["count_users()", "sum_of(1)"]
  ddl.push(
    "CREATE FUNCTION count_users() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM users'",
    "CREATE FUNCTION sum_of(k int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS " +
      "$$ BEGIN RETURN (SELECT sum(o.id) FROM orders o WHERE o.user_id = k); END $$"
  )

  // Views, some over others, and what they make of writes.
  const relations: Array<Relation> = [...tables]
  const writable: Array<Relation> = []
  const materialized: Array<string> = []
  const count = random.below(4)
  for (let i = 0; i < count; i++) {
    const ref = `v${i}`
    switch (random.below(4)) {
      case 0: {
        const base = random.pick(
          random.chance(0.3) && writable.length > 0 ? writable : tables.filter((t) => t !== made.get(log))
        )
        const columns = base.columns.filter(({ generated }) => !generated)
        const condition = random.chance(0.5) ? ` WHERE ${identifier(columns[0]!.name)} > 0` : ""
        ddl.push(
          `CREATE VIEW ${ref} AS SELECT ${
            columns.map(({ name }) => identifier(name)).join(", ")
          } FROM ${base.ref}${condition}`
        )
        const view = { ref, columns }
        relations.push(view)
        writable.push(view)
        if (random.chance(0.3)) {
          ddl.push(
            `CREATE FUNCTION instead_${i}() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO archive.orders (id) VALUES (2); RETURN COALESCE(NEW, OLD); END $$`,
            `CREATE TRIGGER instead INSTEAD OF INSERT OR UPDATE OR DELETE ON ${ref} FOR EACH ROW EXECUTE FUNCTION instead_${i}()`
          )
        } else if (random.chance(0.2)) {
          ddl.push(`CREATE RULE redirect AS ON DELETE TO ${ref} DO INSTEAD DELETE FROM tree WHERE id = 2`)
        }
        break
      }
      case 1: {
        const { columns, sql } = new Queries(random, { relations, readers: [] }).definition()
        ddl.push(`CREATE MATERIALIZED VIEW ${ref} AS ${sql}`)
        relations.push({ ref, columns })
        materialized.push(ref)
        break
      }
      default: {
        const { columns, sql } = new Queries(random, { relations, readers }).definition()
        ddl.push(`CREATE VIEW ${ref} AS ${sql}`)
        relations.push({ ref, columns })
      }
    }
  }
  ddl.push(`GRANT SELECT ON ALL TABLES IN SCHEMA public, archive TO ${reader}`)
  return {
    seed,
    ddl,
    changes,
    tables,
    relations,
    writable,
    materialized,
    readers,
    writers: ["write_log('a')", "write_sql()"]
  }
}

const tableDdl = ({ columns, constraints, holdsRows, parent, ref, suffix }: Draft): string => {
  if (parent !== undefined && !parent.holdsRows) return `CREATE TABLE ${ref} PARTITION OF ${parent.ref} ${suffix}`
  const own = parent === undefined
    ? columns
    : columns.filter(({ name }) => !parent.columns.some((c) => c.name === name))
  const parts = own.map(({ generated, name, type }) => {
    const from = columns.find((column) => column.type === types.int && column.name !== "id" && !column.generated)
    return `${identifier(name)} ${type.sql}` +
      (generated ? ` GENERATED ALWAYS AS (${from?.name ?? "id"} + 1) STORED` : "") +
      (name.endsWith("_id") && type === types.int ? " DEFAULT 1" : "")
  })
  return `CREATE TABLE ${ref} (${[...parts, ...constraints].join(", ")})` +
    (parent !== undefined && holdsRows ? ` INHERITS (${parent.ref})` : suffix)
}

/** Statements that replace what is in the tables, without triggers and checks. */
export const deal = (world: World, random: Random): ReadonlyArray<string> => [
  "SET session_replication_role = replica",
  `TRUNCATE ${world.tables.map(({ ref }) => ref).join(", ")}`,
  ...world.tables.flatMap((table) => insertRows(table, random, random.pick([0, 2, 4, 5, 6, 8]))),
  "SET session_replication_role = origin",
  ...world.materialized.map((ref) => `REFRESH MATERIALIZED VIEW ${ref}`)
]

/** Rows for a table, from the pools of its columns. */
export const insertRows = (table: Table, random: Random, count: number): ReadonlyArray<string> => {
  // Partitions get theirs through the whole, which knows where they belong.
  if (count === 0 || (table.parent !== undefined && !table.parent.holdsRows)) return []
  const columns = table.columns.filter(({ generated }) => !generated)
  const row = (): string => `(${columns.map((column) => storedValue(column, random)).join(", ")})`
  return [
    `INSERT INTO ${table.ref} (${columns.map(({ name }) => identifier(name)).join(", ")}) VALUES ${
      Array.from({ length: count }, row).join(", ")
    }${table.unique.length > 0 ? " ON CONFLICT DO NOTHING" : ""}`
  ]
}

const storedValue = ({ name, type }: Column, random: Random): string =>
  name !== "id" && random.chance(0.15) ? "NULL" : quote(random.pick(type.stored))
