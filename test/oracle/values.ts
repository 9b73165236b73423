// Types, and values from pools so small that everything meets everything: with NULL, case, trailing blanks, 2^53 and
// several spellings of one value.
import type { Random } from "./random.ts"

export interface ColumnType {
  /** As a column is declared. */
  readonly sql: string
  /** What values are compared and grouped with: columns of one family may be joined. */
  readonly family: "number" | "text" | "boolean" | "date" | "uuid" | "mood" | "array"
  /** Whether equal values are the same value, so that an answer does not depend on which of them comes first. */
  readonly exact: boolean
  /** What is stored, as text that PostgreSQL reads. */
  readonly stored: ReadonlyArray<string>
  /** What a program asks for: the driver's parameters. */
  readonly parameters: ReadonlyArray<unknown>
  /** What stands in the text of a query. */
  readonly literals: ReadonlyArray<string>
}

const type = (
  sql: string,
  family: ColumnType["family"],
  exact: boolean,
  stored: ReadonlyArray<string>,
  parameters: ReadonlyArray<unknown>,
  literals: ReadonlyArray<string>
): ColumnType => ({ sql, family, exact, stored, parameters, literals })

const words = ["a", "A", "b", "ab", "a ", ""]
const quotedWords = words.map((word) => `'${word}'`)

const keys = ["1", "2", "3", "4", "5", "6"]

export const types = {
  int: type("int", "number", true, ["0", "1", "2", "3"], [0, 1, 2, 3, 1, 2, "1", "02", " 3", 1n, 1.5, 2 ** 31], [
    "0",
    "1",
    "2",
    "3",
    "'1'",
    "2.0",
    "1::bigint",
    "1::numeric",
    "'2'::int"
  ]),
  /** What `id` columns hold: rather more values, so that rows find room. */
  key: type("int", "number", true, keys, [1, 2, 3, 4, 5, 6, "1", "02", 3n], [...keys, "'1'", "2.0", "3::bigint"]),
  bigint: type(
    "bigint",
    "number",
    true,
    ["1", "2", "9007199254740992", "9007199254740993"],
    [1, 2, "1", "9007199254740993", 9007199254740993n, 2 ** 53, "2"],
    ["1", "2", "9007199254740993", "9007199254740992", "9007199254740993::float8", "'1'"]
  ),
  text: type("text", "text", true, words, [...words, "A", "a"], [...quotedWords, "'a'::text", "'a '::bpchar", "'b'"]),
  nocase: type("text COLLATE nocase", "text", false, words, [...words, "B"], quotedWords),
  varchar: type("varchar(3)", "text", true, ["a", "a ", "ab", "abc", "A"], ["a", "a ", "ab", "abc", "a   ", "abcd"], [
    "'a'",
    "'a '",
    "'ab '",
    "'ab'::bpchar",
    "'abc'"
  ]),
  char: type("char(3)", "text", false, ["a", "ab", "abc", "A"], ["a", "a ", "a  ", "ab", "abc"], [
    "'a'",
    "'a '",
    "'a'::text",
    "'ab '"
  ]),
  insensitive: type("insensitive", "text", false, words, words, quotedWords),
  code: type("code", "number", true, ["1", "2", "3"], [1, 2, 3, "1", "03"], ["1", "2", "'3'"]),
  boolean: type("boolean", "boolean", true, ["true", "false"], [true, false, "true", "t", "yes", "false"], [
    "true",
    "false",
    "'yes'",
    "'t'"
  ]),
  date: type(
    "date",
    "date",
    true,
    ["2024-01-05", "2024-01-06", "infinity"],
    ["2024-01-05", "2024-01-06", "Jan 5 2024", "20240106", "infinity"],
    ["'2024-01-05'", "'Jan 5 2024'", "date '2024-01-06'", "'2024-01-05'::timestamp"]
  ),
  uuid: type(
    "uuid",
    "uuid",
    true,
    ["00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"],
    [
      "00000000-0000-0000-0000-00000000000a",
      "00000000-0000-0000-0000-00000000000b",
      "00000000-0000-0000-0000-00000000000A",
      "{00000000-0000-0000-0000-00000000000b}"
    ],
    ["'00000000-0000-0000-0000-00000000000a'", "'00000000-0000-0000-0000-00000000000B'"]
  ),
  mood: type("mood", "mood", true, ["sad", "ok", "happy"], ["sad", "ok", "happy"], ["'sad'", "'ok'", "'ok'::mood"]),
  numeric: type("numeric", "number", false, ["1", "1.0", "1.00", "2"], [1, 2, "1", "1.0", 1.5], ["1", "1.0", "2"]),
  float: type(
    "float8",
    "number",
    false,
    ["1", "0", "-0", "9007199254740992", "NaN"],
    [1, 0, -0, 2 ** 53, "NaN", "-0", 9007199254740993n],
    ["1", "0", "'NaN'", "9007199254740993"]
  ),
  array: type("int[]", "array", true, ["{1,2}", "{1}", "{}", "{2,NULL}"], ["{1,2}", [1], "{}"], ["'{1,2}'", "ARRAY[1]"])
} satisfies { readonly [name: string]: ColumnType }

/** The types that a column is mostly of, and those that no conjunction may carry or that look like others. */
export const chooseType = (random: Random): ColumnType =>
  random.weighted<ColumnType>([
    [8, types.int],
    [5, types.text],
    [3, types.bigint],
    [2, types.boolean],
    [2, types.date],
    [2, types.uuid],
    [2, types.mood],
    [2, types.varchar],
    [2, types.nocase],
    [1, types.char],
    [1, types.insensitive],
    [1, types.code],
    [1, types.numeric],
    [1, types.float],
    [1, types.array]
  ])

/** What every world needs before its tables. */
export const preamble = `
  CREATE COLLATION nocase (provider = icu, locale = '@colStrength=secondary', deterministic = false);
  CREATE DOMAIN insensitive AS text COLLATE nocase;
  CREATE DOMAIN code AS int CHECK (VALUE < 1000);
  CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
`

export const quote = (text: string): string => `'${text.replaceAll("'", "''")}'`

export const identifier = (name: string): string => /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name}"`
