// The closing line of .ci/run: `totals.mjs <vitest's JSON report> [step that failed ...]`.
import { readFileSync } from "node:fs"

const [file, ...broken] = process.argv.slice(2)

const read = () => {
  try {
    return JSON.parse(readFileSync(file, "utf8"))
  } catch {
    return { success: false, numPassedTests: 0, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0 }
  }
}

const { numFailedTests, numPassedTests, numPendingTests, numTodoTests, success } = read()
const skipped = numPendingTests + numTodoTests
for (const step of broken) console.log(`failed: ${step}`)
if (skipped > 0) console.log(`skipped, which counts as failed: ${skipped}`)

// A step that failed counts as one, unless it is the tests and they say themselves what failed.
const tests = numFailedTests + skipped
const steps = broken.filter((step) => tests === 0 || !step.startsWith("npm test")).length
// A run that did not succeed never ends in "0 failed".
const failed = Math.max(tests + steps, success && broken.length === 0 ? 0 : 1)
console.log(`${numPassedTests} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
