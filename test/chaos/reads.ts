// What the processes of a run ask, in many forms: each answer tells versions of registers.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as CachedQuery from "../../src/CachedQuery.ts"
import type { CachePolicy } from "../../src/CachePolicy.ts"
import * as CacheScope from "../../src/CacheScope.ts"
import * as Dependency from "../../src/Dependency.ts"
import * as QueryCache from "../../src/QueryCache.ts"
import type { Random } from "../oracle/random.ts"
import type { Read, Seen } from "./history.ts"
import * as Registers from "./registers.ts"

/** What an answer tells. */
export type Told = Pick<Read, "sum" | "foreign" | "retained"> & { readonly seen: ReadonlyArray<Seen> }

export interface Ask {
  readonly form: string
  /** Equal for equal questions. */
  readonly key: string
  readonly run: Effect.Effect<Told, unknown>
}

interface Row {
  readonly id: number
  readonly version: number
  readonly writer: string
}

const Item = Schema.Struct({ id: Schema.Int, version: Schema.Int, writer: Schema.String })

/** The versions of the rows there should be. */
const seen = (name: (id: number) => string, wanted: ReadonlyArray<number>, rows: ReadonlyArray<Row>): Array<Seen> =>
  wanted.map((id) => {
    const row = rows.find((row) => row.id === id)
    return row === undefined ? [name(id), -1, null] : [name(id), row.version, row.writer]
  })

/** Reads stale answers for as long again as they are fresh. */
export const make = Effect.fnUntraced(function*(timeToLiveMillis: number) {
  const sql = yield* SqlClient.SqlClient
  const policy: CachePolicy = { timeToLive: timeToLiveMillis }
  const cached = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => QueryCache.cached(self, policy)
  const byKey = (id: number) => sql<Row>`SELECT id, version, writer FROM items WHERE id = ${id}`
  const entity = yield* CachedQuery.make("item", {
    Key: Schema.Int,
    Value: Item,
    lookup: (id: number) => Effect.map(byKey(id), ([row]) => row!),
    timeToLive: timeToLiveMillis,
    dependencies: (id) => [Dependency.row("items", { id })]
  })
  const inScope = (tenant: Registers.Tenant) =>
    CacheScope.provide({ role: Registers.role, settings: { "app.tenant": tenant } })
  /** Up to where events were seen. */
  const last = new Map<number, number>()

  const forms: Record<
    string,
    (pick: <A>(of: ReadonlyArray<A>) => A) => Effect.Effect<Told, SqlError | Schema.SchemaError>
  > = {
    key: (pick) => {
      const id = pick(Registers.items)
      return Effect.map(cached(byKey(id)), (rows) => ({ seen: seen(Registers.item, [id], rows) }))
    },
    column: (pick) => {
      const group = pick(Registers.groups)
      return Effect.map(
        cached(sql<Row>`SELECT id, version, writer FROM items WHERE grp = ${group} ORDER BY id`),
        (rows) => ({ seen: seen(Registers.item, Registers.itemsOf(group), rows) })
      )
    },
    list: (pick) => {
      const ids = [pick(Registers.items), pick(Registers.items)]
      return Effect.map(
        cached(sql<Row>`SELECT id, version, writer FROM items WHERE ${sql.in("id", ids)}`),
        (rows) => ({ seen: seen(Registers.item, ids, rows) })
      )
    },
    range: () =>
      Effect.map(
        cached(sql<Row>`SELECT id, version, writer FROM items WHERE id BETWEEN ${1} AND ${8} ORDER BY version DESC`),
        (rows) => ({ seen: seen(Registers.item, Registers.items, rows) })
      ),
    join: (pick) => {
      const id = pick(Registers.items)
      return Effect.map(
        cached(sql<Row & { readonly note: number; readonly author: string }>`
          SELECT i.id, i.version, i.writer, n.version AS note, n.writer AS author
          FROM items i JOIN notes n ON n.item_id = i.id WHERE i.id = ${id}`),
        (rows) => ({
          seen: [
            ...seen(Registers.item, [id], rows),
            ...seen(Registers.note, [id], rows.map(({ author, id, note }) => ({ id, version: note, writer: author })))
          ]
        })
      )
    },
    arrays: () =>
      Effect.map(
        cached(sql<{ readonly ids: Array<number>; readonly versions: Array<number>; readonly writers: Array<string> }>`
          SELECT array_agg(id) AS ids, array_agg(version) AS versions, array_agg(writer) AS writers
          FROM items GROUP BY grp`),
        (rows) => ({
          seen: seen(
            Registers.item,
            Registers.items,
            rows.flatMap(({ ids, versions, writers }) =>
              ids.map((id, i) => ({ id, version: versions[i]!, writer: writers[i]! }))
            )
          )
        })
      ),
    sum: () =>
      Effect.map(
        cached(sql<{ readonly total: number }>`SELECT sum(version)::int AS total FROM notes`),
        ([row]) => ({ seen: [], sum: { of: Registers.items.map(Registers.note), total: row!.total } })
      ),
    // Mostly empty: nobody has added what is asked for.
    events: (pick) => {
      const id = pick(Registers.eventful)
      const beyond = Math.floor((last.get(id) ?? 0) / 4) * 4 + pick([0, 4])
      return Effect.map(
        cached(sql<{ readonly n: number; readonly writer: string }>`
          SELECT n, writer FROM events WHERE item_id = ${id} AND n > ${beyond} ORDER BY n DESC LIMIT 1`),
        ([row]) => {
          if (row === undefined) return { seen: [[Registers.event(id), beyond, null]] }
          last.set(id, Math.max(last.get(id) ?? 0, row.n))
          return { seen: [[Registers.event(id), row.n, row.writer]] }
        }
      )
    },
    docs: (pick) => {
      const tenant = pick(Registers.tenants)
      return Effect.map(
        cached(sql<Row & { readonly tenant: string }>`SELECT id, version, writer, tenant FROM docs`).pipe(
          inScope(tenant)
        ),
        (rows) => ({
          seen: seen(Registers.doc, Registers.docsOf(tenant), rows),
          foreign: rows.filter((row) => row.tenant !== tenant).length
        })
      )
    },
    // One's own, or what somebody else has and one must not see.
    doc: (pick) => {
      const tenant = pick(Registers.tenants)
      const id = pick([1, 2, 3, 4, 5, 6])
      const isOwn = Registers.docsOf(tenant).includes(id)
      return Effect.map(
        cached(sql<Row>`SELECT id, version, writer FROM docs WHERE id = ${id}`).pipe(inScope(tenant)),
        (rows) => isOwn ? { seen: seen(Registers.doc, [id], rows) } : { seen: [], foreign: rows.length }
      )
    },
    stale: (pick) => {
      const id = pick(Registers.items)
      return Effect.map(
        QueryCache.cached(sql<Row>`SELECT item_id AS id, version, writer FROM notes WHERE item_id = ${id}`, {
          ...policy,
          timeToLive: timeToLiveMillis / 4,
          staleWhileRevalidate: timeToLiveMillis / 4,
          staleIfError: timeToLiveMillis / 2
        }),
        (rows) => ({ seen: seen(Registers.note, [id], rows) })
      )
    },
    entity: (pick) => {
      const id = pick(Registers.items)
      return Effect.map(entity.get(id), (row) => ({ seen: seen(Registers.item, [id], [row]) }))
    },
    uncached: (pick) => {
      const id = pick(Registers.items)
      return Effect.map(QueryCache.uncached(byKey(id)), (rows) => ({ seen: seen(Registers.item, [id], rows) }))
    }
  }
  const names = Object.keys(forms)
  const weighted = names.map((name) => [name === "uncached" ? 0.2 : name === "key" ? 3 : 1, name] as const)
  return {
    entity,
    byKey: (id: number) => cached(byKey(id)),
    inScope,
    random: (random: Random): Ask => {
      const form = random.weighted(weighted)
      const chosen: Array<unknown> = [form]
      const run = forms[form]!((of) => {
        const choice = random.pick(of)
        chosen.push(choice)
        return choice
      })
      return { form, key: JSON.stringify(chosen), run }
    },
    /** Every form with everything it can ask for. */
    all: (): ReadonlyArray<Ask> =>
      names.flatMap((form) => everyChoice(forms[form]!).map((run, i) => ({ form, key: `${form} ${i}`, run })))
  }
})

/** Runs a function of choices once for each way to choose. */
const everyChoice = <A>(make: (pick: <B>(of: ReadonlyArray<B>) => B) => A): Array<A> => {
  const made: Array<A> = []
  let next: Array<number> | undefined = []
  while (next !== undefined) {
    const chosen: Array<readonly [at: number, of: number]> = []
    const path: ReadonlyArray<number> = next
    made.push(make((of) => {
      const at = path[chosen.length] ?? 0
      chosen.push([at, of.length])
      return of[at]!
    }))
    // The last choice that has another way.
    next = undefined
    for (let i = chosen.length - 1; i >= 0 && next === undefined; i--) {
      const [at, of] = chosen[i]!
      if (at + 1 < of) next = [...chosen.slice(0, i).map(([at]) => at), at + 1]
    }
  }
  return made
}
