/**
 * How the answers of one form are used: whether storing them pays.
 *
 * Judged over windows of lookups, at a miss. A form whose answers are hardly ever
 * read again is reported once, and where its policy is adaptive it is not stored
 * for a while. A window spans a minute at least: a program that starts misses
 * whatever it asks.
 */

/** Why storing does not pay: nobody asks again, or the data change before anybody does. */
export type Hint = "hardly-read" | "invalidated-unread"

/** How many lookups are judged together, and the share of hits below which storing does not pay. */
const windowSize = 200
const windowMillis = 60_000
const leastHits = 0.05

/** For how long an adaptive form is not stored. */
const pauseMillis = 60_000

export class Habits {
  /** Counted on the hot path. */
  hits = 0
  private misses = 0
  private invalidated = 0
  private sinceMillis: number | undefined
  private hinted = false
  private pausedUntilMillis = -Infinity

  isPaused(nowMillis: number): boolean {
    return nowMillis < this.pausedUntilMillis
  }

  /** Counts a miss. Returns a hint where it is the first time that one is due. */
  missed(reason: string | undefined, adaptive: boolean, nowMillis: number): Hint | undefined {
    this.misses++
    this.sinceMillis ??= nowMillis
    if (reason === "invalidated") this.invalidated++
    const { hits, invalidated, misses } = this
    if (hits + misses < windowSize || nowMillis - this.sinceMillis < windowMillis) return undefined
    this.hits = this.misses = this.invalidated = 0
    this.sinceMillis = undefined
    if (hits >= leastHits * (hits + misses)) return undefined
    if (adaptive) this.pausedUntilMillis = nowMillis + pauseMillis
    if (this.hinted) return undefined
    this.hinted = true
    return invalidated * 2 > misses ? "invalidated-unread" : "hardly-read"
  }
}
