/**
 * What an invalidation is called among the keys of Effect's Reactivity:
 *
 * | dependency | key |
 * | --- | --- |
 * | table `orders` | `orders`; in a schema other than `public` also `archive.orders` |
 * | row 7 of it, by its column `id` | `{ orders: [7] }` |
 * | tag `premium` | `#premium` |
 * | key 42 of `user` | `{ "@user": [42] }` |
 * | everything | `*`, and whatever statements have named so far |
 *
 * A handler that is registered under `{ orders: [7] }` is woken by all of `orders`,
 * as Reactivity has it: what is not known of a row wakes too much, never too little.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as Dependency from "../Dependency.ts"

/**
 * The service that `Reactivity.layer` builds for a program, once: that of `PgClient.layer`, and of atoms over a runtime
 * with the client. Under a name of its own, or it would hide one that the program has given.
 */
export class SharedReactivity extends Context.Service<SharedReactivity, Reactivity.Reactivity>()(
  "effect-query-cache/internal/SharedReactivity"
) {}

export const sharedReactivity: Layer.Layer<SharedReactivity> = Layer.effect(
  SharedReactivity,
  Reactivity.Reactivity
).pipe(Layer.provide(Reactivity.layer))

/** Whose handlers are woken: those of the context's service, where there is one, and of the shared one. */
export const reactivities = Effect.contextWith((context: Context.Context<SharedReactivity>) => {
  const shared = Context.get(context, SharedReactivity)
  const given = Context.getOrUndefined(context as Context.Context<any>, Reactivity.Reactivity)
  return Effect.succeed(given === undefined || given === shared ? [shared] : [given, shared])
})

export type Keys = ReadonlyArray<unknown> | Readonly<Record<string, ReadonlyArray<unknown>>>

/** Under this key everybody is registered whom everything wakes. */
export const everyKey = "*"

export const withEvery = (keys: Keys): Keys => Array.isArray(keys) ? [...keys, everyKey] : { ...keys, [everyKey]: [] }

/** What stands before the name of a view that has a new value. Heard in this process only. */
export const viewPrefix = "="

/** The key of the table, tag or name that a stamp belongs to; `undefined` for what is none of these. */
export const baseOf = (stamp: string): string | undefined => partsOf(stamp)?.base

/** The keys, as a record of ids. */
export const keysOf = ({ images, stamps }: Dependency.Targets): Record<string, Array<string>> => {
  const keys: Record<string, Array<string>> = Object.create(null)
  const add = (base: string, id: string | undefined) => {
    const ids = keys[base] ??= []
    if (id !== undefined && !ids.includes(id)) ids.push(id)
  }
  for (const stamp of stamps) {
    const parts = partsOf(stamp)
    if (parts !== undefined) add(parts.base, parts.id)
  }
  for (const { columns, table } of images) {
    const base = baseOf(table)
    if (base !== undefined) add(base, columns.get("id") ?? undefined)
  }
  return keys
}

interface Parts {
  readonly base: string
  readonly id: string | undefined
}

const partsOf = (stamp: string): Parts | undefined => {
  switch (stamp[0]) {
    case "?":
      return undefined
    case "#":
      return { base: stamp, id: undefined }
    case viewPrefix:
      return { base: `@${stamp.slice(1)}`, id: undefined }
    case "@": {
      const { key, name } = nameOf(stamp.slice(1))
      return { base: `@${name}`, id: key }
    }
    default: {
      // The marks of reach.ts name a table, too.
      const [, name, rest] = relation.exec(stamp)!
      const value = /^\(id=("(?:[^"\\]|\\.)*")\)$/.exec(rest!)
      return {
        base: name!.replace(/"(?:[^"\\]|\\.)*"/g, (quoted) => JSON.parse(quoted)),
        id: value === null ? undefined : JSON.parse(value[1]!)
      }
    }
  }
}

/** A table, with its schema where that is not `public`, and what follows it. */
const relation = /^[!~%^]*((?:"(?:[^"\\]|\\.)*"|[^"(])*)(.*)$/s

/** A name, which stands in quotes where it is not plain, and the key after it. */
const nameOf = (text: string): { readonly name: string; readonly key: string } => {
  const literal = /^"(?:[^"\\]|\\.)*"/.exec(text)?.[0]
  const end = literal?.length ?? text.indexOf(":")
  return { name: literal === undefined ? text.slice(0, end) : JSON.parse(literal), key: text.slice(end + 1) }
}
