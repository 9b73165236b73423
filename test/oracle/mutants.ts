// Analyzers that lack one thing each: a rule of row dependencies, or a part of what the catalog tells.
import type { Catalog, Relation, Routine } from "../../src/internal/catalog/model.ts"
import type { Rule } from "../../src/internal/conjunctions/rules.ts"
import * as Rules from "../support/rules.ts"
import type { Change } from "./subject.ts"

export interface Mutant {
  readonly name: string
  readonly change: Change
}

const withoutRule = (...rules: ReadonlyArray<Rule>): Mutant => ({
  name: rules.join(" and "),
  change: (schema) => ({ ...schema, without: new Set(rules) })
})

const changed = (catalog: Catalog, of: (relation: Relation) => Relation): Catalog => {
  const all = new Map<Relation, Relation>()
  for (const relation of catalog.relations.values()) all.set(relation, of(relation))
  return {
    ...catalog,
    relations: new Map([...catalog.relations].map(([oid, relation]) => [oid, all.get(relation)!])),
    byName: new Map([...catalog.byName].map(([schema, relations]) => [
      schema,
      new Map([...relations].map(([name, relation]) => [name, all.get(relation) ?? of(relation)]))
    ]))
  }
}

const withoutPart = (name: string, of: (relation: Relation) => Relation): Mutant => ({
  name,
  change: (schema) => ({ ...schema, catalog: changed(schema.catalog, of) })
})

const withoutBodies = (name: string, of: (routine: Routine) => boolean): Mutant => ({
  name,
  change: (schema) => {
    const empty = (routine: Routine): Routine =>
      of(routine) ? { ...routine, language: "sql", source: "SELECT 1" } : routine
    const { catalog } = schema
    return {
      ...schema,
      catalog: {
        ...catalog,
        functions: new Map([...catalog.functions].map(([oid, routine]) => [oid, empty(routine)])),
        functionsByName: new Map(
          [...catalog.functionsByName].map(([name, routines]) => [name, routines.map(empty)])
        )
      }
    }
  }
})

export const mutants: ReadonlyArray<Mutant> = [
  ...[...Rules.ofReads, ...Rules.ofWrites].map((rule) => withoutRule(rule)),
  withoutRule("all", "empty-list"),
  withoutPart("triggers", (relation) => ({ ...relation, triggers: [] })),
  withoutPart("deferred triggers", (relation) => ({
    ...relation,
    triggers: relation.triggers.filter(({ deferrable }) => !deferrable)
  })),
  withoutPart("foreign keys", (relation) => ({ ...relation, referencedBy: [] })),
  withoutPart("rewrite rules", (relation) => ({ ...relation, rules: [] })),
  withoutPart("parents", (relation) => ({ ...relation, parents: [] })),
  withoutPart("children", (relation) => ({ ...relation, children: [] })),
  withoutPart("defaults that call", (relation) => ({ ...relation, called: [] })),
  withoutPart("views", (relation) => relation.kind === "view" ? { ...relation, definition: "SELECT 1" } : relation),
  withoutPart(
    "policies",
    (relation) =>
      relation.rowSecurity === undefined
        ? relation
        : { ...relation, rowSecurity: { ...relation.rowSecurity, expressions: [] } }
  ),
  withoutBodies("bodies that read", ({ volatility }) => volatility !== "volatile"),
  withoutBodies("bodies that write", ({ name, volatility }) => volatility === "volatile" && name.startsWith("write"))
]

/** What nothing misses, and why: another part of the analyzer catches the same. */
export const redundant: { readonly [mutant: string]: string } = {
  "all": "an empty list keeps the table, and for any other array ALL asks for more than ANY",
  "empty-list": "a query that no row can match depends on the table all the same",
  "all and empty-list": "a query that no row can match depends on the table all the same",
  "operator": "a statement that names an operator of the program's own is not cached",
  "rewritten": "what a rule writes is reached by more than the statement's own words, and counts as a whole"
}
