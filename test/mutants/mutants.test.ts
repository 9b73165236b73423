/** The list of guards is about these sources, and about all races that are told. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { mutants, unmutated } from "./all.ts"
import { mutate, placesOf } from "./mutant.ts"

const read = (path: string): string => readFileSync(join(import.meta.dirname, "..", "..", path), "utf8")

const races = (() => {
  const [, table = ""] = read("docs/consistency.md").split(
    "| race | guard | where it is shown |\n| --- | --- | --- |\n"
  )
  return table.slice(0, table.indexOf("\n\n")).split("\n").map((row) => row.split("|")[1]!.trim())
})()

describe("the guards that can be taken away", () => {
  it.each(mutants.map((mutant) => [mutant.guard, mutant] as const))("%s", (_, mutant) => {
    const source = read(mutant.file)
    expect(placesOf(mutant, source)).toBe(1)
    expect(mutate(mutant, source)).not.toBe(source)
    for (const file of mutant.killedBy.files) expect(read(file)).toContain("it")
    expect(() => new RegExp(mutant.killedBy.name ?? "")).not.toThrow()
  })

  it("each has a name of its own", () => {
    expect(new Set(mutants.map(({ guard }) => guard)).size).toBe(mutants.length)
  })

  it("are about races that are told, and about all of them but those for which there is a reason", () => {
    expect(races.length).toBeGreaterThan(40)
    const named = [...mutants.flatMap(({ races }) => races), ...unmutated.map(({ race }) => race)]
    const told = (beginning: string) => races.filter((race) => race.startsWith(beginning))
    expect(named.filter((beginning) => told(beginning).length !== 1)).toEqual([])
    const guarded = new Set(named.flatMap(told))
    expect(races.filter((race) => !guarded.has(race))).toEqual([])
  })
})
