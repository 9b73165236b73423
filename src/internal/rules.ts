/**
 * Policies by name, table or tag, between what a call says and what the layer
 * says.
 */
import { InvalidOptionError } from "../CacheError.ts"
import * as CachePolicy from "../CachePolicy.ts"
import * as Dependency from "../Dependency.ts"
import * as Options from "./options.ts"

const owner = "CachedSqlClient.layer"

interface Rule {
  readonly matches: (query: Matched) => boolean
  readonly policy: CachePolicy.Resolved | "uncached"
}

/** What a rule can match. */
interface Matched {
  readonly name: string | undefined
  /** As they stand in stamps. */
  readonly tables: ReadonlyArray<string>
  readonly tags: ReadonlyArray<string>
}

export class Rules {
  private readonly rules: ReadonlyArray<Rule>
  private readonly layerPolicy: CachePolicy.Resolved

  constructor(rules: ReadonlyArray<CachePolicy.Rule> | undefined, layerPolicy: CachePolicy.Resolved) {
    if (rules !== undefined && !Array.isArray(rules)) {
      throw new InvalidOptionError(owner, "rules", rules, "an array of { match, policy }")
    }
    this.rules = (rules ?? []).map(resolve)
    this.layerPolicy = layerPolicy
  }

  /** What becomes of the policy of a call, for a query that reads these tables. */
  complete(policy: CachePolicy.Resolved, tables: ReadonlyArray<string>): CachePolicy.Complete | "uncached" {
    const own = policy === this.layerPolicy ? policy : CachePolicy.merge(this.layerPolicy, policy)
    const query: Matched = {
      name: own.name,
      tables: [...tables, ...own.dependencies.flatMap((one) => Dependency.isTableOrRow(one) ? [one.table] : [])],
      tags: own.dependencies.flatMap((one) => one._tag === "Tag" ? [one.tag] : [])
    }
    const matching = this.rules.filter((rule) => rule.matches(query))
    let merged = this.layerPolicy
    // The first rule that says something wins, so it comes last.
    for (const rule of matching.reverse()) {
      if (rule.policy === "uncached") return "uncached"
      merged = CachePolicy.merge(merged, rule.policy)
    }
    return CachePolicy.complete(policy === this.layerPolicy ? merged : CachePolicy.merge(merged, policy))
  }
}

const resolve = (rule: CachePolicy.Rule): Rule => {
  Options.known(owner, rule, ["match", "policy"])
  if (rule.policy !== "uncached" && rule.policy?.name !== undefined) {
    throw new InvalidOptionError(owner, "rules.policy.name", rule.policy.name, "absent: a rule is for many")
  }
  return {
    matches: matcher(rule.match),
    policy: rule.policy === "uncached" ? rule.policy : CachePolicy.resolve(rule.policy)
  }
}

const matcher = (match: CachePolicy.Rule["match"]): (query: Matched) => boolean => {
  if (typeof match === "string") return byName(match)
  const [kind, ...others] = Object.keys(match ?? {})
  if (others.length === 0) {
    const value = (match as any)?.[kind]
    switch (kind) {
      case "name":
        return byName(value)
      case "table": {
        const { table } = Dependency.table(Options.text(owner, "rules.match.table", value))
        return (query) => query.tables.includes(table)
      }
      case "tag": {
        const tag = Options.text(owner, "rules.match.tag", value)
        return (query) => query.tags.includes(tag)
      }
    }
  }
  throw new InvalidOptionError(owner, "rules.match", match, "a name, { name }, { table } or { tag }")
}

const byName = (pattern: string): (query: Matched) => boolean => {
  const parts = Options.text(owner, "rules.match", pattern).split("*").map((part) =>
    part.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")
  )
  const expression = new RegExp(`^${parts.join("[^]*")}$`)
  return ({ name }) => name !== undefined && expression.test(name)
}
