// The house of floors: what a module may import. Cycles are oxlint's to find (import/no-cycle).
import { readdirSync, readFileSync } from "node:fs"
import { join, posix } from "node:path"
import { describe, expect, it } from "vitest"

// A module imports from its own floor and from those below it. A folder stands for all its modules.
const floors: ReadonlyArray<ReadonlyArray<string>> = [
  [
    "CacheError",
    "CacheMetrics",
    "CachePolicy",
    "CacheScope",
    "Dependency",
    "SessionToken",
    "internal/anyTransaction",
    "internal/apart",
    "internal/consulted",
    "internal/epoch",
    "internal/nonces",
    "internal/options",
    "internal/places",
    "internal/session"
  ],
  [
    "CacheStore",
    "Fingerprinter",
    "QueryAnalyzer",
    "RedisCluster",
    "RedisStore",
    "TieredStore",
    "UpstashRedis",
    "internal/analysis/",
    "internal/catalog/",
    "internal/conjunctions/",
    "internal/memo",
    "internal/memoryTable",
    "internal/parameters",
    "internal/redis/",
    "internal/rowCodec",
    "internal/rows",
    "internal/schemas",
    "internal/tiered/",
    "internal/viewCodec"
  ],
  [
    "Invalidator",
    "QueryCache",
    "internal/audits",
    "internal/changes",
    "internal/circuit",
    "internal/delivery",
    "internal/doubt/",
    "internal/effects",
    "internal/engine",
    "internal/flights",
    "internal/habits",
    "internal/live",
    "internal/naming",
    "internal/outcome",
    "internal/pilot",
    "internal/reactivity",
    "internal/reader",
    "internal/reading",
    "internal/reserved",
    "internal/rules",
    "internal/sessions",
    "internal/storeHealth",
    "internal/strict",
    "internal/tally",
    "internal/touched",
    "internal/transactions",
    "internal/unserved"
  ],
  [
    "Advisor",
    "CacheAuditor",
    "CachedQuery",
    "CachedResolver",
    "CachedSqlClient",
    "ChangeFeed",
    "MaterializedView",
    "internal/formTrie",
    "internal/forms",
    "internal/named",
    "internal/namedOptions",
    "internal/statement",
    "internal/testDatabase",
    "internal/view",
    "internal/viewSource"
  ]
]

// Modules that need an optional peer. They are reached by their own path, never through the barrel.
const optional = ["ChangeFeed", "RedisCluster", "UpstashRedis"]
const optionalPeers = ["@upstash/redis", "pg-logical-replication", "redis"]

interface Module {
  readonly name: string
  readonly imports: ReadonlyArray<{ readonly from: string; readonly dynamic: boolean }>
}

const statement = /^(?:import|export)\s(?:[\w$*{},\s]*?\sfrom\s)?"([^"]+)"/gm
const call = /\bimport\("([^"]+)"\)/g

const parse = (name: string, source: string): Module => {
  const resolve = (specifier: string): string =>
    specifier.startsWith(".")
      ? posix.join(posix.dirname(name), specifier).replace(/\.ts$/, "")
      : specifier
  return {
    name,
    imports: [
      ...Array.from(source.matchAll(statement), ([, from]) => ({ from: resolve(from!), dynamic: false })),
      ...Array.from(source.matchAll(call), ([, from]) => ({ from: resolve(from!), dynamic: true }))
    ]
  }
}

const floorOf = (name: string): number =>
  floors.findIndex((floor) => floor.some((entry) => entry.endsWith("/") ? name.startsWith(entry) : name === entry))

const upward = (module: Module): ReadonlyArray<string> =>
  module.imports
    .filter(({ from }) => floorOf(module.name) !== -1 && floorOf(from) > floorOf(module.name))
    .map(({ from }) =>
      `${module.name} (floor ${floorOf(module.name) + 1}) imports ${from} (floor ${floorOf(from) + 1})`
    )

const root = join(import.meta.dirname, "..", "src")
const modules = readdirSync(root, { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts"))
  .map((path) => parse(path.replaceAll("\\", "/").slice(0, -3), readFileSync(join(root, path), "utf8")))
const byName = new Map(modules.map((module) => [module.name, module]))
const barrel = byName.get("index")!
const inside = modules.filter((module) => module !== barrel)

// Everything that importing a module loads at once.
const loadedBy = (module: Module, seen = new Set<string>()): ReadonlySet<string> => {
  for (const { from, dynamic } of module.imports) {
    if (dynamic || seen.has(from)) continue
    seen.add(from)
    const next = byName.get(from)
    if (next !== undefined) loadedBy(next, seen)
  }
  return seen
}

describe("the house of floors", () => {
  it("every module has a floor, named above", () => {
    expect(inside.filter(({ name }) => floorOf(name) === -1).map(({ name }) => name)).toEqual([])
  })

  it("no module imports from above its floor", () => {
    expect(inside.flatMap(upward)).toEqual([])
  })

  it("an import from above would be seen, in each of its forms", () => {
    for (
      const source of [
        `import { QueryCache } from "../QueryCache.ts"`,
        `import type * as QueryCache from "../QueryCache.ts"`,
        `export * from "../QueryCache.ts"`,
        `import {\n  a,\n  type B\n} from "../QueryCache.ts"`,
        `import "../QueryCache.ts"`,
        `const later = () => import("../QueryCache.ts")`
      ]
    ) {
      expect(upward(parse("internal/options", source))).toHaveLength(1)
    }
    expect(upward(parse("internal/options", ` * import { QueryCache } from "../QueryCache.ts"`))).toEqual([])
  })
})

describe("what loading the package loads", () => {
  it("the barrel exports every public module but those that need an optional peer", () => {
    const wanted = inside.map(({ name }) => name).filter((name) => !name.includes("/") && !optional.includes(name))
    expect(barrel.imports.map(({ from }) => from).sort()).toEqual(wanted.sort())
  })

  it("the barrel reaches no optional peer and no WASM", () => {
    const loaded = loadedBy(barrel)
    expect([...optional, ...optionalPeers].filter((name) => loaded.has(name))).toEqual([])
    expect([...loaded].filter((name) => name.startsWith("libpg-query"))).toEqual([])
  })

  it("nothing loads a module of Node", () => {
    expect(
      modules.flatMap(({ name, imports }) =>
        imports.filter(({ from }) => from.startsWith("node:")).map(({ from }) => `${name} imports ${from}`)
      )
    ).toEqual([])
  })
})
