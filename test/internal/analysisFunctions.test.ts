// The lists of built-in functions against the catalog of a PostgreSQL 18.
import { PGlite } from "@electric-sql/pglite"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import * as functions from "../../src/internal/analysis/functions.ts"

const { accepted, catalogBound, dynamic, sessionBound, timeBound, volatile } = functions
const lists: { readonly [name: string]: ReadonlySet<string> } = {
  accepted,
  catalogBound,
  dynamic,
  sessionBound,
  timeBound,
  volatile
}

// Functions that a statement can call with values of its own, without those that serve types, operators, indexes,
// aggregates, triggers and handlers alone. A function that also implements an operator is as good as its operator.
const callable = `
  select p.proname as name
  from pg_proc p
  where p.pronamespace = 'pg_catalog'::regnamespace
    and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype, 'cstring'::regtype,
      'index_am_handler'::regtype, 'table_am_handler'::regtype, 'fdw_handler'::regtype, 'tsm_handler'::regtype,
      'language_handler'::regtype)
    and not (p.proargtypes::oid[] && array['internal'::regtype, 'cstring'::regtype]::oid[])
    and not exists (select 1 from pg_type t where t.typsend = p.oid)
    and not exists (select 1 from pg_amproc a where a.amproc = p.oid)
    and not exists (select 1 from pg_aggregate a where p.oid in (a.aggtransfn, a.aggfinalfn, a.aggcombinefn,
      a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn))
  group by p.proname
  having not bool_and(exists (select 1 from pg_operator o where o.oprcode = p.oid))`

const reviewed = `
  anytextcat array_to_json array_to_string concat concat_ws convert convert_from convert_to date date_add
  date_part date_subtract date_trunc enum_first enum_last enum_range extract format generate_series json_agg
  json_agg_strict json_build_array json_build_object json_object_agg json_object_agg_strict
  json_object_agg_unique json_object_agg_unique_strict json_populate_record json_populate_recordset
  json_to_record json_to_recordset json_to_tsvector jsonb_agg jsonb_agg_strict jsonb_build_array
  jsonb_build_object jsonb_path_exists_tz jsonb_path_match_tz jsonb_path_query_array_tz
  jsonb_path_query_first_tz jsonb_path_query_tz jsonb_populate_record jsonb_populate_record_valid
  jsonb_populate_recordset jsonb_to_record jsonb_to_recordset jsonb_to_tsvector length make_timestamptz money
  numeric overlaps phraseto_tsquery plainto_tsquery quote_literal quote_nullable row_to_json textanycat time
  timestamp timestamptz timetz timezone to_char to_date to_json to_jsonb to_number to_timestamp to_tsquery
  to_tsvector ts_debug ts_headline ts_parse ts_token_type websearch_to_tsquery xml xml_is_well_formed
`.trim().split(/\s+/)

const database = await PGlite.create()
// Of every function the marks of all its overloads.
const marks = new Map<string, string>()
const names: Array<string> = []

beforeAll(async () => {
  const all = await database.query<{ name: string; marks: string }>(`
    select proname as name, string_agg(distinct provolatile::text, '') as marks
    from pg_proc where pronamespace = 'pg_catalog'::regnamespace group by proname`)
  for (const row of all.rows) marks.set(row.name, row.marks)
  names.push(...(await database.query<{ name: string }>(callable)).rows.map((row) => row.name))
})
afterAll(() => database.close())

describe("the lists of built-in functions", () => {
  it("name functions that exist, each in one list", () => {
    const all = Object.values(lists).flatMap((list) => [...list])
    expect(all.filter((name) => !marks.has(name))).toEqual([])
    expect(all.filter((name, index) => all.indexOf(name) !== index)).toEqual([])
  })

  it("leave no callable function out", () => {
    expect(names.length).toBeGreaterThan(900)
    expect(names.filter((name) => !Object.values(lists).some((list) => list.has(name)))).toEqual([])
  })

  it("accept no function with a volatile overload", () => {
    const accepted = [...functions.accepted, ...functions.timeBound]
    expect(accepted.filter((name) => marks.get(name)?.includes("v"))).toEqual([])
  })

  it("hold volatile functions nowhere but among the volatile and the dynamic", () => {
    const held = [...functions.sessionBound, ...functions.catalogBound]
    expect(held.filter((name) => marks.get(name)?.includes("v"))).toEqual([])
    expect([...functions.volatile].filter((name) => !marks.get(name)?.includes("v"))).toEqual([])
  })

  // Stable says that a function does not change within one statement; whether it follows from its arguments is for a
  // person to judge. One that a later server adds, or marks anew, is to be judged here.
  it("accept the stable functions that were reviewed, and no others", () => {
    const stable = [...functions.accepted].filter((name) => marks.get(name)?.includes("s")).sort()
    expect(stable).toEqual(reviewed)
  })
})
