/**
 * A session that is under way: what has been written in it so far, and with monotonic
 * reads how far the cache had come when it was last answered.
 */
import * as Context from "effect/Context"
import * as Places from "./places.ts"

type Clocks = ReadonlyArray<Places.At>

export interface SessionSettings {
  readonly isMonotonic: boolean
  readonly bypassMillis: number
}

export class Session {
  readonly settings: SessionSettings
  private readonly points = new Map<string, Point>()
  private readonly batches = new Map<string, object>()

  constructor(token: Places.Token, settings: SessionSettings) {
    this.settings = settings
    for (const [database, place] of token.places) this.points.set(database, new Point(this, place))
  }

  get token(): Places.Token {
    return Places.tokenOf(Array.from(this.points, ([database, { place }]) => [database, place]))
  }

  pointOf(database: string): Point {
    let point = this.points.get(database)
    if (point === undefined) this.points.set(database, point = new Point(this, Places.nowhere))
    return point
  }

  /** Where all databases have a place in common. */
  get everywhere(): Point | undefined {
    return this.points.get(Places.everywhere)
  }

  /** What the batches of this session have in common, in a scope: a query that runs for another one may answer too early. */
  batchOf(scope: string): object {
    let batch = this.batches.get(scope)
    if (batch === undefined) this.batches.set(scope, batch = { scope })
    return batch
  }
}

/** How far a session has come in a database. */
export class Point {
  readonly session: Session
  place: Places.Place
  /** Clocks that have been judged, and were good. */
  private judged: Clocks | undefined

  constructor(session: Session, place: Places.Place) {
    this.session = session
    this.place = place
    this.judged = undefined
  }

  get isMonotonic(): boolean {
    return this.session.settings.isMonotonic
  }

  /** Whether what is valid at a clock may answer. */
  readonly reflects = (at: Places.At): boolean => Places.reflects(this.place.marks, at)

  /** Whether what this process holds may answer, having applied so much: `undefined` where nobody knows. */
  mayPeek(applied: Clocks | undefined): boolean {
    if (applied === undefined) return this.place.marks.length === 0
    if (applied === this.judged) return true
    if (!applied.every(this.reflects)) return false
    if (this.isMonotonic) this.raise(applied)
    this.judged = applied
    return true
  }

  /** What answers from now on reflects what was invalidated up to these clocks. */
  raise(clocks: ReadonlyArray<Places.At | undefined>): void {
    this.judged = undefined
    const marks = Places.marksOf(clocks.filter((at) => at !== undefined))
    this.place = { ...this.place, marks: Places.laterMarks(this.place.marks, marks) }
  }

  /** The cache is not asked for so long, but by whom the write was made. */
  bypass(nowMillis: number, by: string): void {
    const { bypassMillis } = this.session.settings
    this.place = Places.later(this.place, { marks: [], bypass: { untilMillis: nowMillis + bypassMillis, by } })
  }

  /** Until when the cache is not asked, if that is not over. A token's word counts for as long as a session's own would. */
  bypassAt(nowMillis: number): Places.Bypass | undefined {
    const { bypass, marks } = this.place
    if (bypass === undefined) return undefined
    const most = nowMillis + this.session.settings.bypassMillis
    if (bypass.untilMillis === 0 || bypass.untilMillis > most) {
      this.place = { marks, bypass: { ...bypass, untilMillis: most } }
    } else if (bypass.untilMillis <= nowMillis) {
      this.endBypass()
    }
    return this.place.bypass
  }

  endBypass(): void {
    this.place = { ...this.place, bypass: undefined }
  }
}

/** The session that the fiber is in, if any. */
export const CurrentSession: Context.Reference<Session | undefined> = Context.Reference<Session | undefined>(
  "effect-query-cache/session/CurrentSession",
  { defaultValue: () => undefined }
)
