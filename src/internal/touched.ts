/**
 * What a transaction has touched so far, bounded.
 */
import * as Dependency from "../Dependency.ts"
import type { Session } from "./session.ts"
import type { Fence } from "./strict.ts"

/** What a transaction has touched so far. */
export class Touched {
  /** The scope that was applied when the transaction began. */
  readonly scope: string
  /** The session that is told how far the store has come when it has committed. */
  readonly session: Session | undefined
  /** What its outermost level has touched. */
  readonly root: Touched
  /** Of the outermost level: the program itself has ended the transaction, so a rollback at its end decides nothing. */
  isEnded = false
  /** Of the outermost level: names may mean something else in it than the client's configuration says. */
  isAnywhere = false
  /** Of the outermost level: it is in a transaction of the base client, whose commit nobody is told of beforehand. */
  isForeign = false
  /** Of the outermost level: the fence is being put up, or stands, and what is written now would be without one. */
  isFenced = false
  /** Of the outermost level: what stands, or may. */
  fence: Fence | undefined
  private stamps = new Set<string>()
  private images: Array<Dependency.Image> = []
  private all = false
  private schema: true | undefined
  /** Writes that have begun. */
  private readonly begun = new Set<Dependency.Targets>()

  constructor(scope: string, outer?: Touched, session?: Session) {
    this.scope = scope
    this.session = outer === undefined ? session : outer.session
    this.root = outer === undefined ? this : outer.root
  }

  get isEmpty(): boolean {
    return !this.all && this.stamps.size === 0 && this.images.length === 0 && this.begun.size === 0
  }

  /** As `add`, until the write has answered: then what is known better by then takes the place of its targets. */
  begin(targets: Dependency.Targets): (known: Dependency.Targets) => void {
    // One that fails stays here.
    if (this.begun.size >= maxBegun) {
      this.add(targets)
      return () => {}
    }
    const begun = { ...targets }
    this.begun.add(begun)
    return (known) => {
      if (this.begun.delete(begun)) this.add(known)
    }
  }

  add(targets: Dependency.Targets): void {
    this.schema ??= targets.schema
    if (this.all) return
    if (targets.all || this.stamps.size + this.images.length > maxTouched) {
      this.all = true
      this.stamps.clear()
      this.images = []
      return
    }
    for (const stamp of targets.stamps) this.stamps.add(stamp)
    for (const image of targets.images) this.images.push(image)
    if (this.images.length <= maxImages) return
    for (const stamp of Dependency.asWholes({ stamps: [], images: this.images, all: false }).stamps) {
      this.stamps.add(stamp)
    }
    this.images = []
  }

  /** What there is. */
  peek(): Dependency.Targets {
    for (const targets of this.begun) this.add(targets)
    return {
      stamps: [...this.stamps],
      images: [...this.images],
      all: this.all,
      ...(this.schema ? { schema: this.schema } : undefined)
    }
  }

  /** What there is, leaving nothing. */
  take(): Dependency.Targets {
    const targets = this.peek()
    this.begun.clear()
    this.schema = undefined
    this.stamps = new Set()
    this.images = []
    this.all = false
    return targets
  }
}

// A transaction that touches more single things than this has touched everything.
const maxTouched = 10_000

// One that touches more rows than this has touched all rows of their tables.
const maxImages = 2_000

const maxBegun = 100
