/**
 * What an effect has consulted: the dependencies of the statements, cached queries
 * and views it asked, whether they were answered by the cache or by the database.
 *
 * A dependency is noted *before* its answer is read. So an invalidation that is
 * heard while the effect runs either touches what is noted already, or took effect
 * before what it touches is read.
 */
import * as Context from "effect/Context"
import * as Dependency from "../Dependency.ts"

// Beyond, an effect depends on everything.
const maxStamps = 20_000

export class Consulted {
  private readonly sets = new Set<Dependency.DependencySet>()
  private readonly stamps = new Set<string>()
  private readonly tables = new Set<string>()
  private readonly shapes = new Map<string, Dependency.Shape>()
  /** Something was consulted of which nobody knows what it depends on. */
  isUnknown = false

  add(set: Dependency.DependencySet): void {
    if (this.isUnknown || this.sets.has(set)) return
    this.sets.add(set)
    for (const stamp of set.stamps) this.stamps.add(stamp)
    for (const table of set.tables) this.tables.add(table)
    for (const shape of set.shapes) this.shapes.set(Dependency.shapeStamp(shape), shape)
    if (this.stamps.size > maxStamps) this.addUnknown()
  }

  addUnknown(): void {
    this.isUnknown = true
    this.sets.clear()
    this.stamps.clear()
    this.tables.clear()
    this.shapes.clear()
  }

  /** Whether an invalidation reaches any of it. */
  isTouchedBy(targets: Dependency.Targets): boolean {
    return this.isUnknown || reaches(targets, (stamp) => this.stamps.has(stamp), this.shapes.values())
  }

  /** What is known of it, to be stored. */
  toParts(): Parts {
    return {
      stamps: [...this.stamps],
      tables: [...this.tables],
      shapes: [...this.shapes.values()],
      isUnknown: this.isUnknown
    }
  }
}

/** Whether an invalidation marks a stamp that is here, of rows as a store finds it out. */
export const reaches = (
  { all, images, stamps }: Dependency.Targets,
  isHere: (stamp: string) => boolean,
  shapes: Iterable<Dependency.Shape>
): boolean => {
  if (all || stamps.some(isHere) || images.some(({ table }) => isHere(table))) return true
  if (images.length === 0) return false
  for (const shape of shapes) {
    if (images.some((image) => image.table === shape.table && isHere(Dependency.imageStamp(image, shape)))) return true
  }
  return false
}

/** Dependencies as they can be written down. */
export interface Parts extends Pick<Dependency.DependencySet, "stamps" | "tables" | "shapes"> {
  readonly isUnknown: boolean
}

/** Where statements and the like note what they depend on. `undefined` where nobody wants to know. */
export const CurrentConsulted: Context.Reference<Consulted | undefined> = Context.Reference<Consulted | undefined>(
  "effect-query-cache/consulted/CurrentConsulted",
  { defaultValue: () => undefined }
)
