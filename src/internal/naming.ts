/**
 * What the names in a statement mean: by the database's catalog, or by the names
 * alone where no catalog is read.
 *
 * | known of the catalog | reads | writes |
 * | --- | --- | --- |
 * | all of it | what the names reach | what the names reach |
 * | nothing is asked: a declared analyzer, a scripted database | by name | by name, in whatever schema |
 * | nothing yet | go to the database | invalidate everything |
 * | it may not be read | by name, until anything at all is written | invalidate everything |
 *
 * So processes of which some know a catalog and some do not can share a store.
 * Every write stamps {@link anything}, on which those depend that may not read
 * it.
 */
import type { PgClient } from "@effect/sql-pg"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as CacheScope from "../CacheScope.ts"
import * as Dependency from "../Dependency.ts"
import type { Analysis, BoundAnalyzer, Changes, QueryAnalyzer, RefusalCode, Rows, Whole } from "../QueryAnalyzer.ts"
import { changesNames } from "./analysis/settings.ts"
import { parsePath } from "./catalog/make.ts"
import type { Catalog } from "./catalog/model.ts"
import { byName as markByName, bySchema as markBySchema, type Path } from "./catalog/reach.ts"
import * as Source from "./catalog/source.ts"
import type { Delivery } from "./delivery.ts"
import type { Effects } from "./effects.ts"

/** What names mean for now, under one search_path. Another meaning is another object. */
export interface Names {
  readonly id: number
  /** Whether this is more than a guess until the catalog is read. */
  readonly isKnown: boolean
  readonly analyze: (sql: string) => Analysis
  /** Why a statement reads or writes all of a table. */
  readonly why: (sql: string, parameters: ReadonlyArray<unknown>) => (table: string) => Whole
  /** What an answer depends on that was read from these tables, of some of them from these rows: as the analysis names them. */
  readonly reads: (tables: ReadonlyArray<string>, rows?: Rows) => ReadonlyArray<Dependency.Dependency>
  /** What a statement does to what is cached. */
  readonly effectsOf: (analysis: Analysis) => Effects
  /** What dependencies mean that a program names. */
  readonly dependencies: (named: ReadonlyArray<Dependency.Dependency>) => ReadonlyArray<Dependency.Dependency>
  /** What it names to be invalidated. */
  readonly targets: (named: ReadonlyArray<Dependency.Dependency>) => Dependency.Targets
}

export interface Naming {
  readonly of: (scope: CacheScope.Resolved | undefined) => Names
  /** Waits until the catalog is known, or it is clear that it is not for now. Not from within a transaction. */
  readonly settled: Effect.Effect<void>
  /** Asks the database again, where a name means nothing. */
  readonly renewed: Effect.Effect<void>
  /** As `of`, where the search_path is not the one that the client's configuration says. */
  readonly anywhere: () => Names
  /**
   * Runs what writes, by what is known as it begins. A write that waits for the lock of a statement that changes the
   * schema ends in another: it fires a trigger that nobody knew of. Then it may have written anything.
   */
  readonly watched: <A, E, R>(run: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** The same for what begins now: to be run when it has ended. */
  readonly watch: () => Effect.Effect<void>
  /** Grows when what is known of the schema has changed. */
  readonly generation: () => number
  /** Tells the time: the catalog is read again when it is due. */
  readonly tick: (nowMillis: number) => void
  /** Notes what is left behind in sessions of the pool: settings made by hand, temporary tables. */
  readonly leave: (changes: Changes) => Effect.Effect<void>
  /** What is delivered that may be due to a change of the schema. */
  readonly observe: (delivery: Delivery) => Delivery
}

/** Stamped by every write. */
const anything = "?"

let nextId = 0

export const make = Effect.fnUntraced(function*(options: {
  readonly client: PgClient.PgClient
  readonly analyzer: QueryAnalyzer["Service"]
  /** How often the catalog is read again; not at all where names stand for themselves. */
  readonly interval: Duration.Duration | undefined
}): Effect.fn.Return<Naming, never, Scope.Scope> {
  const { analyzer, client, interval } = options
  const source = interval === undefined || analyzer.bind === undefined
    ? undefined
    : yield* Source.make({ client, interval, overtaken: Effect.suspend(() => everything) })
  /** Delivers an invalidation of everything. */
  let everything: Effect.Effect<void> = Effect.void

  // What programs left behind in sessions of the pool: in which, nobody knows.
  const temporary = new Set<string>()
  let stray: { readonly setting: string; readonly isNamed: boolean } | undefined

  /** All that follows from what is known; made anew when that changes. */
  interface Known {
    readonly catalog: Source.Source["current"] | undefined
    readonly unscoped: Names
    readonly anywhere: Names
    readonly under: (path: Path) => Names
  }
  const make = (catalog: Known["catalog"]): Known => {
    const sealed = (names: Names): Names => stray === undefined ? names : refusing(names, stray.setting)
    if (typeof catalog !== "object") {
      const names = sealed(
        catalog === undefined
          ? byName(analyzer.analyze)
          : catalog === "unknown"
          ? whileUnknown(analyzer.analyze)
          : whileUnreadable(analyzer.analyze)
      )
      return { catalog, unscoped: names, anywhere: names, under: () => names }
    }
    const bound = analyzer.bind!({ catalog, temporary: new Set(temporary) })
    const scoped = new Map<string, Names>()
    const under = (path: Path): Names => {
      const key = JSON.stringify(path)
      let names = scoped.get(key)
      if (names === undefined) {
        if (scoped.size >= maxPaths) scoped.clear()
        scoped.set(key, names = sealed(byCatalog(bound, path)))
      }
      return names
    }
    const anywhere = under({ schemas: [...catalog.byName.keys()], isCertain: false, isSecured: true })
    const unscoped = stray?.isNamed === true
      ? anywhere
      : under({ schemas: catalog.searchPath, isCertain: true, isSecured: false })
    return { catalog, unscoped, anywhere, under }
  }
  let known: Known | undefined
  const current = (): Known =>
    known !== undefined && known.catalog === source?.current ? known : known = make(source?.current)

  const watch = (): Effect.Effect<void> => {
    const generation = source?.generation
    return Effect.suspend(() => source?.generation === generation ? Effect.void : everything)
  }

  return {
    of: (scope) => {
      const { catalog, under, unscoped } = current()
      const path = scope === undefined || typeof catalog !== "object" ? undefined : pathOf(catalog, scope)
      return path === undefined ? unscoped : under(path)
    },
    anywhere: () => current().anywhere,
    leave: ({ settings, temporary: relations }) =>
      Effect.suspend(() => {
        for (const name of relations) {
          if (!temporary.has(name)) known = undefined
          temporary.add(name)
        }
        const left = settings.filter(({ isReset }) => !isReset)
        const isNamed = stray?.isNamed === true || left.some(changesNames)
        if (left.length === 0 || stray?.isNamed === isNamed) return Effect.void
        const isNew = stray === undefined
        stray = { setting: stray?.setting ?? left[0]!.name, isNamed }
        known = undefined
        return isNew ? warning(stray.setting) : Effect.void
      }),
    generation: () => source?.generation ?? 0,
    tick: source?.tick ?? (() => {}),
    watched: (run) =>
      source === undefined ? run : Effect.suspend(() => {
        const overtaken = watch()
        return Effect.onExit(run, () => overtaken)
      }),
    watch,
    settled: source?.settled ?? Effect.void,
    renewed: source?.renewed ?? Effect.void,
    observe: (delivery) => {
      if (source === undefined) return delivery
      everything = Effect.uninterruptible(Effect.suspend(() => delivery.deliver(Dependency.allTargets)))
      const note = (targets: Dependency.Targets): void => {
        // What may have written anything may have changed the schema.
        if (targets.all) source.changed(targets.schema === true)
      }
      return {
        unserved: delivery.unserved,
        deliver: (targets) =>
          Effect.suspend(() => {
            note(targets)
            return delivery.deliver(targets)
          }),
        quarantine: (targets, doubt) =>
          Effect.suspend(() => {
            note(targets)
            return delivery.quarantine(targets, doubt)
          })
      }
    }
  }
})

const maxPaths = 1000

const warning = (setting: string) =>
  Effect.logWarning(
    `The setting ${
      setting === "*" ? "of a session" : setting
    } was changed on a connection of the pool, and stays so: ` +
      "from now on nothing is served from the cache. Use CacheScope, or SET LOCAL in a transaction"
  )

/** Where a scope has names looked for, if elsewhere. */
const pathOf = (catalog: Catalog, scope: CacheScope.Resolved): Path | undefined => {
  let role: string | undefined
  let setting: string | undefined
  for (const [name, value] of scope.settings) {
    if (name === "role") role = value
    else if (name.toLowerCase() === "search_path") setting = value
  }
  if (role === undefined && setting === undefined) return undefined
  return {
    schemas: parsePath(setting ?? catalog.searchPathSetting).map((name) =>
      name === "$user" ? role ?? catalog.user : name
    ),
    // A role does not see schemas that it has no right to use: then the next one is meant.
    isCertain: role === undefined,
    isSecured: role !== undefined
  }
}

// -----------------------------------------------------------------------------
// names by a catalog
// -----------------------------------------------------------------------------

const byCatalog = (bound: BoundAnalyzer, path: Path): Names => {
  const stampsOf = (named: Dependency.Table | Dependency.Row, access: "read" | "write"): ReadonlyArray<string> => [
    ...bound.stamps({ schema: named.schema, name: Dependency.relationOf(named.table) }, path, access)
  ]
  return {
    id: nextId++,
    isKnown: true,
    analyze: (sql) => bound.analyze(sql, path),
    why: (sql, parameters) => bound.why(sql, path, parameters),
    reads: asRows,
    effectsOf: (analysis) => effectsOf(analysis, (tables) => tables),
    dependencies: (named) =>
      named.flatMap((one): ReadonlyArray<Dependency.Dependency> => {
        if (one._tag !== "Table" && one._tag !== "Row") return [one]
        const stamps = stampsOf(one, "read")
        // A name that is no relation's is a label of the program's own.
        if (stamps.length === 0) return [one, ...asTables([markBySchema(one.table)])]
        // The first is the relation itself. More than that, and its rows are not all there is to it.
        return one._tag === "Row" && stamps.length === 1 ? [{ ...one, table: stamps[0]! }] : asTables(stamps)
      }),
    targets: (named) =>
      explicit(named.flatMap((one): ReadonlyArray<Dependency.Dependency> => {
        if (one._tag !== "Table" && one._tag !== "Row") return [one]
        const stamps = stampsOf(one, "write")
        if (stamps.length === 0) return inAnySchema(one)
        return one._tag === "Row" && stamps.length === 1 ? [{ ...one, table: stamps[0]! }] : asTables(stamps)
      }))
  }
}

// -----------------------------------------------------------------------------
// names by themselves
// -----------------------------------------------------------------------------

const byName = (analyze: (sql: string) => Analysis): Names => ({
  id: nextId++,
  isKnown: true,
  analyze,
  why: () => () => ({ reason: "no-catalog", detail: undefined }),
  reads: (tables) => asTables([...tables, ...tables.map(markBySchema)]),
  effectsOf: (analysis) => effectsOf(analysis, (tables) => [...tables, ...tables.map(markByName)]),
  dependencies: (named) =>
    named.flatMap((one): ReadonlyArray<Dependency.Dependency> =>
      Dependency.isTableOrRow(one) ? [one, ...asTables([markBySchema(one.table)])] : [one]
    ),
  targets: (named) => explicit(named.flatMap(inAnySchema))
})

const whileUnknown = (analyze: (sql: string) => Analysis): Names => ({
  ...byName((sql): Analysis => {
    const analysis = analyze(sql)
    return analysis._tag === "Read" ? refused("catalog-unknown", "the catalog is being read") : analysis
  }),
  isKnown: false,
  effectsOf: everythingOf,
  dependencies: untilAnything
})

/** Nothing is served of what a connection might answer under a setting that nobody knows of. */
const refusing = (names: Names, setting: string): Names => ({
  ...names,
  id: nextId++,
  analyze: (sql) => {
    const analysis = names.analyze(sql)
    return analysis._tag === "Read" ? refused("session-changed", setting) : analysis
  }
})

const refused = (code: RefusalCode, detail: string): Analysis => ({ _tag: "Refused", code, detail, writes: "nothing" })

const whileUnreadable = (analyze: (sql: string) => Analysis): Names => ({
  ...byName(analyze),
  reads: (tables) => asTables([...tables, anything]),
  effectsOf: everythingOf,
  dependencies: untilAnything
})

/** Whatever the names mean, a write to that is a write. */
const untilAnything = (named: ReadonlyArray<Dependency.Dependency>): ReadonlyArray<Dependency.Dependency> =>
  named.some(Dependency.isTableOrRow) ? [...named, ...asTables([anything])] : named

// -----------------------------------------------------------------------------
// effects
// -----------------------------------------------------------------------------

/** What a statement does to what is cached; `stamps` are those of the tables it writes. */
const effectsOf = (
  analysis: Analysis,
  stamps: (tables: ReadonlyArray<string>) => ReadonlyArray<string>
): Effects => {
  switch (analysis._tag) {
    case "Read":
      return nothing
    case "Write": {
      const { rows } = analysis
      return {
        _tag: "Writes",
        targets: analysis.all ? Dependency.allTargets : written(stamps(analysis.tables)),
        atomic: analysis.atomic,
        isControl: analysis.control.some(({ control }) => control !== "other"),
        narrow: rows === undefined
          ? undefined
          : (parameters, answer) => written(stamps(analysis.tables), rows(parameters, answer))
      }
    }
    case "Ddl":
      return { _tag: "Writes", targets: Dependency.schemaTargets, atomic: true }
    case "Session":
      return { _tag: "Session", control: analysis.control, chain: analysis.chain }
    case "Refused":
      return analysis.writes === "nothing" ? nothing : {
        _tag: "Writes",
        targets: analysis.writes === "anything" ? Dependency.allTargets : written(stamps(analysis.writes)),
        atomic: true
      }
  }
}

/** The same where nobody knows what the names reach. */
const everythingOf = (analysis: Analysis): Effects => {
  const effects = effectsOf(analysis, (tables) => tables)
  return effects._tag === "Writes" && !effects.targets.all
    ? { ...effects, targets: Dependency.allTargets, narrow: undefined }
    : effects
}

/** What a text does under some meaning of names. */
export const effectsUnder = (names: Names, sql: string): Effects => names.effectsOf(names.analyze(sql))

const nothing: Effects = { _tag: "Nothing" }

const written = (tables: ReadonlyArray<string>, rows?: Rows): Dependency.Targets =>
  withAnything(Dependency.writeTargets(asRows(tables, rows)))

const explicit = (dependencies: ReadonlyArray<Dependency.Dependency>): Dependency.Targets =>
  dependencies.some(Dependency.isTableOrRow)
    ? withAnything(Dependency.explicitTargets(dependencies))
    : Dependency.explicitTargets(dependencies)

const withAnything = (targets: Dependency.Targets): Dependency.Targets => ({
  ...targets,
  stamps: [...targets.stamps, anything]
})

const asTables = (tables: ReadonlyArray<string>): ReadonlyArray<Dependency.Table> =>
  tables.map((table) => ({ _tag: "Table", table }))

/** Tables, and of some of them the rows that count. */
const asRows = (tables: ReadonlyArray<string>, rows?: Rows): ReadonlyArray<Dependency.Dependency> =>
  tables.flatMap((table): ReadonlyArray<Dependency.Dependency> =>
    rows?.get(table)?.map((values) => Dependency.fromValues(table, values)) ?? asTables([table])
  )

const inAnySchema = (named: Dependency.Dependency): ReadonlyArray<Dependency.Dependency> =>
  Dependency.isTableOrRow(named) ? [named, { _tag: "Table", table: markByName(named.table) }] : [named]
