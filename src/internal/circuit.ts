/**
 * Keeps calls from a store that does not answer.
 *
 * The states are those of `effect/persistence/CircuitBreaker`: closed, open, and half open for one call at a time. That
 * one costs 6 to 8 µs per call and 30 µs per refusal, as much as the rest of a lookup costs this process, since its store
 * may be shared and its outcomes are classified. This is two numbers.
 *
 * What differs is what "consecutive" means. Many calls are under way at once, and a store that stumbles for the time of
 * one time-out fails them all: to open then would send every read to the database for the next second. So of calls that
 * were under way together one failure counts, and the next that counts is of a call that began after it.
 */
export class Circuit {
  private readonly maxFailures: number
  private failures = 0
  private untilMillis = 0

  /** After how many failures in a row it opens. */
  constructor(maxFailures: number) {
    this.maxFailures = maxFailures
  }

  get isOpen(): boolean {
    return this.failures >= this.maxFailures
  }

  /** What is to be told of the call when it has ended, or that it must not be made. */
  admit(nowMillis: number): number | undefined {
    if (this.isOpen) {
      if (nowMillis < this.untilMillis) return undefined
      // The one that is let through to see. If it is never heard of again, another one follows.
      this.untilMillis = nowMillis + openMillis
    }
    return this.failures
  }

  /** As `admit`, for one that is made whatever the state is. */
  force(): number {
    return this.failures
  }

  succeeded(): void {
    this.failures = 0
  }

  failed(admitted: number, nowMillis: number): void {
    if (admitted !== this.failures) return
    if (++this.failures === this.maxFailures) this.untilMillis = nowMillis + openMillis
  }
}

const openMillis = 1000
