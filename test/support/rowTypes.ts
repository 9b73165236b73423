/**
 * Every type that `@effect/sql-pg` decodes, with the values that are hardest to
 * keep: what a test reads on a miss, on a hit in memory, on a hit in Redis.
 */
import type { PgTypes } from "@effect/sql-pg"

/** What a value is in JavaScript. */
export type JsType = "boolean" | "number" | "bigint" | "string" | "Date" | "Uint8Array" | "interval" | "json" | "array"

/** A type of PostgreSQL, and values of it as SQL expressions. */
export interface RowType {
  readonly name: string
  readonly is: JsType
  readonly values: ReadonlyArray<string>
}

/** Run once before {@link rowTypes} are read. */
export const setup: ReadonlyArray<string> = [
  `CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')`,
  `CREATE DOMAIN positive AS int8 CHECK (VALUE > 0)`,
  `CREATE DOMAIN label AS text`,
  `CREATE TYPE pair AS (a int4, b text)`
]

const literals = (type: string, ...values: ReadonlyArray<string>): ReadonlyArray<string> =>
  values.map((value) => `'${value}'::${type}`)

type RegisteredScalar = {
  [Name in keyof typeof PgTypes.OID]: Name extends `${string}Array` ? never : Name
}[keyof typeof PgTypes.OID]

/** The types in the registry of `@effect/sql-pg`, arrays of them left out. */
const scalars: Readonly<Record<RegisteredScalar, Omit<RowType, "name">>> = {
  bool: { is: "boolean", values: ["true", "false"] },
  bytea: {
    is: "Uint8Array",
    values: [...literals("bytea", "\\x", "\\x00", "\\x00ff80", "\\xdeadbeef"), "decode(repeat('00ff', 5000), 'hex')"]
  },
  name: { is: "string", values: literals("name", "", "a", "über") },
  int8: {
    is: "bigint",
    values: literals(
      "int8",
      "0",
      "-1",
      "9007199254740991",
      "9007199254740992",
      "9007199254740993",
      "-9007199254740993",
      "9223372036854775807",
      "-9223372036854775808"
    )
  },
  int2: { is: "number", values: literals("int2", "0", "-32768", "32767") },
  int4: { is: "number", values: literals("int4", "0", "-2147483648", "2147483647") },
  text: {
    is: "string",
    values: [
      "''",
      "'null'",
      "'1'",
      "'true'",
      "E'\\n\\t\\\\\"'",
      "U&'\\+01F600'",
      "U&'\\2028\\FFFD\\0001'",
      "repeat('x', 10000)"
    ]
  },
  oid: { is: "number", values: literals("oid", "0", "4294967295") },
  json: {
    is: "json",
    values: literals(
      "json",
      "null",
      "true",
      "\"text\"",
      "12345678901234567890",
      "1e999",
      "-0",
      "-1e-7",
      "[]",
      "{}",
      "[1, [2, [null]]]",
      "{\"b\": 1, \"a\": 2, \"10\": 3, \"9\": 4}",
      "{\"__proto__\": {\"polluted\": true}, \"constructor\": {\"prototype\": 1}, \"toJSON\": 1}",
      "{\"deep\": {\"list\": [{\"x\": \"\\ud800\"}]}}",
      "{\"a\": 1, \"a\": 2}"
    )
  },
  cidr: {
    is: "string",
    values: literals("cidr", "10.0.0.0/8", "0.0.0.0/0", "192.168.1.1/32", "2001:db8::/32", "::1/128")
  },
  float4: {
    is: "number",
    values: literals("float4", "0", "-0", "1.1", "NaN", "Infinity", "-Infinity", "3.4e38", "1e-45")
  },
  float8: {
    is: "number",
    values: literals(
      "float8",
      "0",
      "-0",
      "0.1",
      "NaN",
      "Infinity",
      "-Infinity",
      "1.7976931348623157e308",
      "5e-324",
      "9007199254740993"
    )
  },
  inet: { is: "string", values: literals("inet", "10.0.0.1", "10.0.0.1/8", "::1", "2001:db8::1/64", "::ffff:1.2.3.4") },
  bpchar: { is: "string", values: ["''::char(3)", "'a'::char(3)"] },
  varchar: { is: "string", values: literals("varchar(5)", "", "abc") },
  date: {
    is: "string",
    values: literals("date", "2024-02-29", "infinity", "-infinity", "4713-01-01 BC", "5874897-12-31")
  },
  time: { is: "bigint", values: literals("time", "00:00", "12:34:56.789012", "24:00") },
  timestamp: {
    is: "Date",
    values: literals(
      "timestamp",
      "2024-02-29 12:34:56.789",
      "1969-12-31 23:59:59.999",
      "infinity",
      "-infinity",
      "4713-01-01 BC",
      "294276-12-31"
    )
  },
  timestamptz: {
    is: "Date",
    values: literals(
      "timestamptz",
      "2024-02-29 12:34:56.789+02",
      "1970-01-01Z",
      "infinity",
      "-infinity",
      "4713-01-02 BC",
      "275760-09-13Z"
    )
  },
  interval: {
    is: "interval",
    values: literals(
      "interval",
      "0",
      "1 year 2 mons 3 days 4.000005 s",
      "-1 mon +1 day -00:00:01",
      "infinity",
      "-infinity",
      "2562047788:00:54.775807"
    )
  },
  timetz: { is: "string", values: literals("timetz", "00:00+00", "12:34:56.789012-15:59", "24:00+05:30") },
  numeric: {
    is: "string",
    values: literals(
      "numeric",
      "0",
      "-1.50",
      "12345678901234567890.123456789",
      "NaN",
      "Infinity",
      "-Infinity",
      "1e-20",
      "1e100"
    )
  },
  regclass: { is: "number", values: literals("regclass", "pg_class", "-") },
  uuid: {
    is: "string",
    values: literals("uuid", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff")
  },
  jsonb: {
    is: "json",
    values: literals(
      "jsonb",
      "null",
      "false",
      "\"text\"",
      "1.5",
      "1e400",
      "[]",
      "{}",
      "[[\"a\"], {\"b\": []}]",
      "{\"b\": 1, \"a\": 2, \"10\": 3, \"9\": 4}",
      "{\"__proto__\": 1, \"length\": 2}"
    )
  }
}

/** Types that the registry does not know and that arrive as strings. */
const unregistered: ReadonlyArray<RowType> = [
  { name: "enum", is: "string", values: literals("mood", "sad", "happy") },
  { name: "domain over int8", is: "bigint", values: literals("positive", "1", "9223372036854775807") },
  { name: "domain over text", is: "string", values: literals("label", "", "x") },
  { name: "xml", is: "string", values: literals("xml", "<a b=\"1\">&amp;</a>") },
  { name: "\"char\"", is: "string", values: literals("\"char\"", "a") },
  { name: "refcursor", is: "string", values: literals("refcursor", "c") },
  { name: "unknown", is: "string", values: ["'untyped'"] },
  { name: "void", is: "string", values: ["pg_notify('a', 'b')"] },
  // Their binary form, read as if it were text: of no use to anybody, but a hit must not differ from the miss.
  { name: "money", is: "string", values: literals("money", "1", "0") },
  { name: "macaddr", is: "string", values: literals("macaddr", "08:00:2b:01:02:03") },
  { name: "tsvector", is: "string", values: literals("tsvector", "a fat cat") },
  { name: "tsquery", is: "string", values: literals("tsquery", "fat & cat") },
  { name: "int4range", is: "string", values: literals("int4range", "[1,5)", "empty", "(,)") },
  { name: "int4multirange", is: "string", values: literals("int4multirange", "{[1,2)}", "{}") },
  { name: "pg_lsn", is: "string", values: literals("pg_lsn", "0/1") },
  { name: "xid8", is: "string", values: literals("xid8", "5") },
  { name: "tid", is: "string", values: literals("tid", "(0,1)") },
  { name: "jsonpath", is: "string", values: literals("jsonpath", "$.a") },
  { name: "regtype", is: "string", values: literals("regtype", "int4") },
  { name: "money[]", is: "string", values: literals("money[]", "{1}") }
]

const arrayType = (name: string): string => name === "bpchar" ? "char(3)[]" : `${name}[]`

/** All of it: scalars, an array of each, and what is not in the registry. */
export const rowTypes: ReadonlyArray<RowType> = [
  ...Object.entries(scalars).map(([name, type]) => ({ name, ...type })),
  ...Object.entries(scalars).map(([name, { values }]) => ({
    name: `${name}Array`,
    is: "array" as const,
    values: [
      `ARRAY[${values.join(", ")}]::${arrayType(name)}`,
      `ARRAY[${values[0]}, NULL]::${arrayType(name)}`,
      `ARRAY[NULL, NULL]::${arrayType(name)}`,
      `ARRAY[]::${arrayType(name)}`
    ]
  })),
  ...unregistered
]

/** What `@effect/sql-pg` itself refuses to decode, and what it says. */
export const undecodable: ReadonlyArray<readonly [value: string, error: RegExp]> = [
  ["B'101'::bit(3)", /UTF-8/],
  ["B'1'::varbit", /UTF-8/],
  ["'(1,2)'::point", /UTF-8/],
  ["'{1,2,3}'::line", /UTF-8/],
  ["'(1,2),(3,4)'::lseg", /UTF-8/],
  ["'(1,2),(3,4)'::box", /UTF-8/],
  ["'((1,2),(3,4))'::path", /UTF-8/],
  ["'((1,2),(3,4))'::polygon", /UTF-8/],
  ["'<(1,2),3>'::circle", /UTF-8/],
  ["'[2020-01-01,2021-01-01)'::daterange", /UTF-8/],
  ["'(200,a)'::pair", /UTF-8/],
  ["ROW(200, 'a')", /UTF-8/],
  ["ARRAY[[1, 2], [3, 4]]", /1-dimensional/],
  ["'[0:1]={1,2}'::int4[]", /lower bound/]
]

/** The values of a type as the rows of one query, NULL between them. */
export const selectAll = (type: RowType): string =>
  type.values.flatMap((value) => [`SELECT ${value} AS v`, `SELECT NULL`]).join(" UNION ALL ")

/** Results whose form is the difficulty: names, order, and what is missing. */
export const forms: ReadonlyArray<readonly [what: string, sql: string]> = [
  ["no rows", `SELECT 1 AS a WHERE false`],
  ["rows without columns", `SELECT FROM generate_series(1, 3)`],
  ["nulls only", `SELECT NULL AS a, NULL::int4 AS b FROM generate_series(1, 3)`],
  ["a column named __proto__", `SELECT 1 AS a, '{"polluted": true}'::json AS "__proto__", 2 AS b`],
  ["a Date in a column named __proto__", `SELECT now() AS "__proto__" FROM generate_series(1, 3)`],
  [
    "names that objects have",
    `SELECT 1 AS "constructor", 2 AS "toString", 3 AS "hasOwnProperty", 4 AS "toJSON", 5 AS "length"`
  ],
  ["names that are indices", `SELECT 'b' AS b, 'two' AS "2", 'one' AS "1", 'a' AS a, 'minus' AS "-1"`],
  ["one name twice", `SELECT 1 AS a, 2 AS b, 3 AS a`],
  ["no name", `SELECT 1, 2, 'x'`],
  ["json null beside NULL", `SELECT 'null'::jsonb AS a, NULL::jsonb AS b UNION ALL SELECT '{"a": null}', 'null'`],
  [
    "json of one shape",
    `SELECT jsonb_build_object('id', i, 'at', now(), 'tags', jsonb_build_array(i, i::text)) AS j FROM generate_series(1, 20) i`
  ],
  [
    "json of many shapes",
    `SELECT CASE i % 4 WHEN 0 THEN '1' WHEN 1 THEN '[1]' WHEN 2 THEN '{"a": 1}' ELSE '{"b": [{"c": -0}]}' END::json AS j FROM generate_series(1, 20) i`
  ],
  [
    "many mixed rows",
    `SELECT i::int8 AS id, i * 1.5 AS amount, 'status ' || i % 3 AS status, now() - i * interval '1 day' AS at, i % 2 = 0 AS flag,
      CASE WHEN i % 5 > 0 THEN i END AS sparse, ARRAY[i, NULL] AS list, decode(lpad(to_hex(i), 8, '0'), 'hex') AS bytes,
      interval '1 month' * i AS span, sqrt(i)::float8 AS root FROM generate_series(1, 200) i`
  ]
]
