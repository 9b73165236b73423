/**
 * What stands in the definitions of a catalog: the queries of views, the bodies
 * of functions, the actions of rules, the expressions of policies. Each is
 * parsed when it is first met.
 */
import type { Node, Parser } from "../analysis/parser.ts"
import { changesNames, settingsOf } from "../analysis/settings.ts"
import { type Draft, draft } from "../analysis/statement.ts"
import * as Walk from "../analysis/walk.ts"
import type { Relation, Routine } from "./model.ts"

export interface Body {
  readonly facts: ReadonlyArray<Walk.Facts>
  /** Why it may do more than its facts say, if so. */
  readonly opaque: string | undefined
}

export class Bodies {
  private readonly parser: Parser
  private readonly declared: Walk.Declared
  private readonly known = new Map<string, Body>()
  /** Whether something could not be read because the parser was being replaced: another time it can. */
  isInterrupted = false

  constructor(parser: Parser, declared: Walk.Declared) {
    this.parser = parser
    this.declared = declared
  }

  /** Of the query of a view. */
  view(relation: Relation): Body {
    return this.text(relation.definition ?? "")
  }

  /** The one relation that a view selects from, through which PostgreSQL writes to the view by itself. */
  base(relation: Relation): Walk.Name | undefined {
    const parsed = this.parser.parse(relation.definition ?? "")
    const select = parsed._tag === "Parsed" ? parsed.statements[0]?.SelectStmt as Node | undefined : undefined
    const from = (select?.fromClause ?? []) as ReadonlyArray<{ readonly RangeVar?: Walk.RangeVar }>
    const only = from.length === 1 ? from[0]!.RangeVar : undefined
    return only === undefined ? undefined : { schema: only.schemaname, name: only.relname }
  }

  /** Of statements, as a rule, a view or an SQL function has them. */
  text(sql: string): Body {
    return this.once(sql, () => {
      const parsed = this.parser.parse(sql)
      if (parsed._tag === "Parsed") return this.statements(parsed.statements)
      this.isInterrupted ||= parsed._tag === "Restarting"
      return unreadable
    })
  }

  expression(sql: string): Body {
    return this.text(`SELECT ${sql}`)
  }

  routine(routine: Routine): Body {
    const { language, source } = routine
    if (source === undefined) return unreadable
    switch (language) {
      case "sql":
        return this.text(statementsIn(source))
      case "plpgsql":
        return this.once(source, () => this.block(source))
      default:
        return unreadable
    }
  }

  private once(text: string, make: () => Body): Body {
    let body = this.known.get(text)
    if (body !== undefined) return body
    body = make()
    if (body.opaque !== unreadable.opaque || !this.isInterrupted) this.known.set(text, body)
    return body
  }

  private statements(statements: ReadonlyArray<Node>): Body {
    const facts: Array<Walk.Facts> = []
    let opaque: string | undefined
    const add = (draft: Draft): void => {
      switch (draft._tag) {
        case "Query":
        case "Call":
          facts.push(draft.facts)
          break
        case "Around":
          add(draft.inner)
          break
        case "Temporary":
          opaque ??= "makes a temporary table"
          break
        case "Known":
          if (draft.analysis._tag === "Ddl") opaque ??= "changes the schema"
          else if (draft.analysis._tag === "Write") opaque ??= `runs ${draft.analysis.culprit}`
      }
    }
    for (const statement of statements) {
      const rule = statement.RuleStmt as Node | undefined
      if (rule !== undefined) {
        if (rule.whereClause !== undefined) facts.push(Walk.walk(rule.whereClause, this.declared))
        for (const action of (rule.actions ?? []) as ReadonlyArray<Node>) add(draft(action, this.declared))
      } else if (statement.VariableSetStmt !== undefined) {
        const settings = settingsOf(statement.VariableSetStmt as Node)
        facts.push({ ...Walk.noFacts(), settings: [...settings] })
        if (settings.some(changesNames)) opaque ??= "sets the search_path or the role"
      } else {
        add(draft(statement, this.declared))
      }
    }
    return { facts, opaque }
  }

  private block(definition: string): Body {
    const tree = this.parser.parseFunction(definition)
    if (tree === undefined) return unreadable
    const facts: Array<Walk.Facts> = []
    let opaque: string | undefined
    const visit = (node: unknown): void => {
      if (typeof node !== "object" || node === null) return
      if (Array.isArray(node)) return node.forEach(visit)
      for (const [field, value] of Object.entries(node)) {
        if (field === "PLpgSQL_expr") {
          const body = this.plpgsql(value as Expression)
          facts.push(...body.facts)
          opaque ??= body.opaque
        } else {
          if (dynamic.has(field)) opaque ??= "runs dynamic SQL"
          visit(value)
        }
      }
    }
    visit(tree)
    return { facts, opaque }
  }

  private plpgsql({ parseMode, query }: Expression): Body {
    switch (parseMode) {
      case 0:
      case undefined:
        return this.text(query)
      case 2:
        return this.expression(query)
      default: {
        // An assignment: what is assigned to may have expressions in it, as subscripts.
        const body = this.expression(query.replace(":=", ","))
        return body === unreadable ? this.expression(query.replace("=", ",")) : body
      }
    }
  }
}

interface Expression {
  readonly query: string
  /** PostgreSQL's `RawParseMode`; 0 is a statement, 2 an expression, 3 and above are assignments. */
  readonly parseMode?: number
}

const unreadable: Body = { facts: [], opaque: "cannot be read" }

const dynamic = new Set(["PLpgSQL_stmt_dynexecute", "PLpgSQL_stmt_dynfors", "dynquery"])

// `BEGIN ATOMIC ...; END` and `RETURN expression`, as PostgreSQL prints the bodies that it keeps parsed.
const statementsIn = (source: string): string => {
  const atomic = /^\s*BEGIN ATOMIC\b([^]*)\bEND\s*$/.exec(source)
  if (atomic !== null) return atomic[1]!
  return source.replace(/^\s*RETURN\b/, "SELECT")
}
