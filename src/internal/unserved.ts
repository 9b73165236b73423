/**
 * What this process must not serve for now: dependencies whose invalidation has
 * not been delivered, or that an unfinished write may yet change.
 */
import type * as Dependency from "../Dependency.ts"

/**
 * Whether an invalidation can reach an answer with these dependencies. What is
 * known of rows is not used: a table's image reaches every answer about that
 * table, which is too much and never too little.
 */
export const touches = (targets: Dependency.Targets, dependencies: Dependency.DependencySet): boolean => {
  if (targets.all) return true
  for (const stamp of targets.stamps) {
    if (dependencies.stamps.includes(stamp)) return true
  }
  for (const image of targets.images) {
    if (dependencies.tables.includes(image.table)) return true
  }
  return false
}

export class Unserved {
  private readonly groups = new Set<Dependency.Targets>()

  /** Checked before anything else on the hot path. */
  get isEmpty(): boolean {
    return this.groups.size === 0
  }

  add(targets: Dependency.Targets): void {
    this.groups.add(targets)
  }

  remove(targets: Dependency.Targets): void {
    this.groups.delete(targets)
  }

  covers(dependencies: Dependency.DependencySet): boolean {
    for (const targets of this.groups) {
      if (touches(targets, dependencies)) return true
    }
    return false
  }
}
