/**
 * Reads the catalog of a database, in one statement.
 *
 * One statement has one snapshot, and its answer is one text, so neither the
 * client's transforms nor its types have a part in it. Definitions are printed
 * with `search_path` empty for as long as the statement runs: PostgreSQL then
 * writes every name outside `pg_catalog` with its schema. To print a view it locks
 * what the view reads, so it waits for a migration that has locked that: not for
 * long, or the two could wait for each other.
 */
import type { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import { type Answer, make } from "./make.ts"
import type { Catalog } from "./model.ts"

/** Reads it now. Fails where the user may not read `pg_catalog`, as well as where the database is away. */
export const read = (client: PgClient.PgClient): Effect.Effect<Catalog, SqlError | Unreadable> =>
  client.unsafe(query).valuesUnprepared.pipe(
    // The program's own rewriting of statements is not meant for this one.
    Effect.provideService(Statement.CurrentTransformer, undefined),
    Effect.flatMap((rows) =>
      Effect.try({
        try: () => make(JSON.parse(String(rows[0]![0])) as Answer),
        catch: (cause) => new Unreadable(cause)
      })
    )
  )

/** The answer is not what this module asked for: whoever answers is no PostgreSQL of version 14 or later. */
export class Unreadable {
  readonly _tag = "Unreadable"
  readonly cause: unknown

  constructor(cause: unknown) {
    this.cause = cause
  }
}

const list = (row: string, from: string): string =>
  `(SELECT coalesce(json_agg(json_build_array(${row})), '[]') FROM ${from})`

const argument = (column: string): string =>
  `(SELECT CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text
    WHEN t.typtype IN ('e', 'd') THEN n.nspname || '.' || t.typname END
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = o.${column})`

// The order makes the answer the same for everybody who asks.
const query = `
WITH session AS MATERIALIZED (
  SELECT current_user::text AS "user", current_schemas(false)::text[] AS path,
    current_setting('search_path') AS setting
),
cleared AS MATERIALIZED (
  SELECT session.*, set_config('search_path', 'pg_catalog', true), set_config('lock_timeout', '200', true) FROM session
),
space AS MATERIALIZED (
  SELECT oid, CASE WHEN nspname LIKE 'pg\\_temp\\_%' THEN 'pg_temp' ELSE nspname::text END AS name
  FROM pg_namespace
  WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\\_toast%'
),
relation AS MATERIALIZED (
  SELECT c.oid, space.name AS schema, c.relname::text AS name, c.relkind::text AS kind, c.relrowsecurity AS secured
  FROM pg_class c JOIN space ON space.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
),
attribute AS MATERIALIZED (
  SELECT a.attrelid, a.attname, a.attnum, a.atttypid, a.atttypmod, a.attcollation, a.attnotnull, a.attgenerated, a.attidentity
  FROM pg_attribute a JOIN relation ON relation.oid = a.attrelid
  WHERE a.attnum > 0 AND NOT a.attisdropped AND relation.kind <> 'S'
),
routine AS MATERIALIZED (
  SELECT p.*, space.name AS schema, l.lanname::text AS language
  FROM pg_proc p JOIN space ON space.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
),
-- What PostgreSQL notes of an expression: the functions in it, and those of its operators.
callee AS MATERIALIZED (
  SELECT d.classid, d.objid, d.refobjid AS called FROM pg_depend d WHERE d.refclassid = 'pg_proc'::regclass
  UNION
  SELECT d.classid, d.objid, o.oprcode::oid FROM pg_depend d JOIN pg_operator o ON o.oid = d.refobjid
  WHERE d.refclassid = 'pg_operator'::regclass
)
SELECT json_build_object(
  'user', "user",
  'path', path,
  'setting', setting,
  'relations', ${
  list(
    `r.oid::int8, r.schema, r.name, r.kind,
      CASE WHEN r.kind IN ('v', 'm') THEN pg_get_viewdef(r.oid) END,
      CASE WHEN r.secured THEN row_security_active(r.oid) END`,
    "(SELECT * FROM relation ORDER BY schema, name, oid) r"
  )
},
  'columns', ${
  list(
    `a.attrelid::int8, a.attname, a.attnum, a.atttypid::int8, a.atttypmod,
      coalesce(c.collisdeterministic, true), a.attnotnull, a.attgenerated, a.attidentity,
      pg_get_expr(d.adbin, d.adrelid)`,
    `(SELECT * FROM attribute ORDER BY attrelid, attnum) a
      LEFT JOIN pg_collation c ON c.oid = a.attcollation
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum`
  )
},
  'types', ${
  list(
    `t.oid::int8, n.nspname, t.typname, t.typtype, t.typbasetype::int8, t.typtypmod`,
    `(
      SELECT * FROM pg_type t
      WHERE t.oid IN (SELECT atttypid FROM attribute) OR t.typtype = 'd'
        OR t.oid IN (SELECT typbasetype FROM pg_type WHERE typtype = 'd')
      ORDER BY t.oid
    ) t JOIN pg_namespace n ON n.oid = t.typnamespace`
  )
},
  'keys', ${
  list(
    `i.indrelid::int8, i.columns, i.indisprimary`,
    `(
      SELECT i.indrelid, i.indexrelid, i.indisprimary, (i.indkey::int2[])[0:i.indnkeyatts - 1] AS columns
      FROM pg_index i JOIN relation ON relation.oid = i.indrelid
      WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
      ORDER BY i.indrelid, i.indexrelid
    ) i`
  )
},
  'parents', ${
  list(
    `i.inhrelid::int8, i.inhparent::int8`,
    `(
      SELECT i.* FROM pg_inherits i JOIN relation ON relation.oid = i.inhrelid ORDER BY i.inhrelid, i.inhseqno
    ) i`
  )
},
  'foreignKeys', ${
  list(
    `f.conrelid::int8, f.conkey, f.confrelid::int8, f.confkey, f.confupdtype, f.confdeltype,
      to_json(f)->'confdelsetcols'`,
    `(
      SELECT f.* FROM pg_constraint f JOIN relation ON relation.oid = f.conrelid
      WHERE f.contype = 'f' ORDER BY f.conrelid, f.oid
    ) f`
  )
},
  'triggers', ${
  list(
    `t.tgrelid::int8, t.tgname, t.tgfoid::int8, t.tgtype, t.tgdeferrable`,
    `(
      SELECT t.* FROM pg_trigger t JOIN relation ON relation.oid = t.tgrelid
      WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' ORDER BY t.tgrelid, t.tgname
    ) t`
  )
},
  'rules', ${
  list(
    `r.ev_class::int8, r.rulename, r.ev_type, r.is_instead, pg_get_ruledef(r.oid)`,
    `(
      SELECT r.* FROM pg_rewrite r JOIN relation ON relation.oid = r.ev_class
      WHERE r.rulename <> '_RETURN' AND r.ev_enabled <> 'D' ORDER BY r.ev_class, r.rulename
    ) r`
  )
},
  'policies', ${
  list(
    `p.polrelid::int8, pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)`,
    `(
      SELECT p.* FROM pg_policy p JOIN relation ON relation.oid = p.polrelid ORDER BY p.polrelid, p.polname
    ) p`
  )
},
  'called', ${
  list(
    `c.relation::int8, c.called::int8`,
    `(
      SELECT d.adrelid AS relation, callee.called FROM pg_attrdef d
        JOIN callee ON callee.classid = 'pg_attrdef'::regclass AND callee.objid = d.oid
      UNION
      SELECT c.conrelid, callee.called FROM pg_constraint c
        JOIN callee ON callee.classid = 'pg_constraint'::regclass AND callee.objid = c.oid
      UNION
      SELECT i.indrelid, callee.called FROM pg_index i
        JOIN callee ON callee.classid = 'pg_class'::regclass AND callee.objid = i.indexrelid
      UNION
      SELECT t.tgrelid, callee.called FROM pg_trigger t
        JOIN callee ON callee.classid = 'pg_trigger'::regclass AND callee.objid = t.oid AND callee.called <> t.tgfoid
      ORDER BY 1, 2
    ) c WHERE c.called IN (SELECT oid FROM routine)`
  )
},
  'routines', ${
  list(
    `p.oid::int8, p.schema, p.proname, p.prokind, p.language, p.provolatile, e.extname,
      CASE
        WHEN p.language = 'sql' THEN coalesce(pg_get_function_sqlbody(p.oid), p.prosrc)
        WHEN p.language = 'plpgsql' THEN pg_get_functiondef(p.oid)
      END,
      p.proconfig,
      p.pronargs > 0 AND p.pronargs - p.pronargdefaults <= 1 AND coalesce(t.typtype IN ('c', 'p'), false),
      p.prosecdef`,
    `(SELECT * FROM routine ORDER BY schema, proname, oid) p
      LEFT JOIN pg_type t ON t.oid = p.proargtypes[0]
      LEFT JOIN pg_depend d
        ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
        AND d.refclassid = 'pg_extension'::regclass
      LEFT JOIN pg_extension e ON e.oid = d.refobjid`
  )
},
  'support', ${
  list(
    `p.oid::int8, p.called::int8`,
    `(
      SELECT routine.oid, callee.called FROM routine
        JOIN callee ON callee.classid = 'pg_proc'::regclass AND callee.objid = routine.oid
      WHERE callee.called IN (SELECT oid FROM routine)
      ORDER BY 1, 2
    ) p`
  )
},
  'operators', ${
  list(
    `o.name, o.oprname, o.oprcode::oid::int8, o.leftname, o.rightname`,
    `(
      SELECT o.oprname, o.oprcode, space.name, ${argument("oprleft")} AS leftname, ${argument("oprright")} AS rightname
      FROM pg_operator o JOIN space ON space.oid = o.oprnamespace
      WHERE o.oprcode <> 0 ORDER BY o.oprname, o.oid
    ) o`
  )
},
  'ambient', ${
  list(
    `f.called::int8`,
    `(
      SELECT c.castfunc AS called FROM pg_cast c
      UNION
      SELECT callee.called FROM pg_constraint c
        JOIN callee ON callee.classid = 'pg_constraint'::regclass AND callee.objid = c.oid
        WHERE c.contypid <> 0
      ORDER BY 1
    ) f WHERE f.called IN (SELECT oid FROM routine)`
  )
}
)::text
FROM cleared`
