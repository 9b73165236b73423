// The examples in doc comments, in the README and in docs/ compile.
import { execFile } from "node:child_process"
import { globSync } from "node:fs"
import { mkdir, readFile, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { beforeAll, expect, it } from "vitest"

const root = join(import.meta.dirname, "..")
const output = join(root, "test", ".cache", "docs")

interface Example {
  readonly file: string
  readonly line: number
  readonly code: string
}

const sources = globSync(["src/**/*.ts", "docs/**/*.md", "README.md"], { cwd: root })

const examplesIn = (file: string, text: string): ReadonlyArray<Example> => {
  const examples: Array<Example> = []
  const content = file.endsWith(".md") ? text : text.replaceAll(/^[ \t]*\* ?/gm, "")
  for (const match of content.matchAll(/^```ts\n(.*?)^```$/gms)) {
    examples.push({ file, line: content.slice(0, match.index).split("\n").length + 1, code: match[1]! })
  }
  return examples
}

const examples = (await Promise.all(
  sources.map(async (file) => examplesIn(file, await readFile(join(root, file), "utf8")))
)).flat()

const nameOf = (example: Example): string => `${example.file.replaceAll(/\W/g, "-")}-${example.line}.ts`

// Found like all the others, and must be reported.
const wrong = examplesIn("wrong.ts", "/**\n * ```ts\n * export const n: string = 1\n * ```\n */")[0]!

let report: ReadonlyArray<string> = []

const errorsIn = (example: Example): ReadonlyArray<string> => report.filter((line) => line.includes(nameOf(example)))

beforeAll(async () => {
  await rm(output, { recursive: true, force: true })
  await mkdir(output, { recursive: true })
  const config = {
    extends: "../../../tsconfig.json",
    compilerOptions: { moduleDetection: "force", noUnusedLocals: false },
    include: ["*.ts"],
    exclude: []
  }
  await writeFile(join(output, "tsconfig.json"), JSON.stringify(config))
  for (const example of [...examples, wrong]) {
    // The lines of the source, so that an error is reported where the example stands.
    await writeFile(join(output, nameOf(example)), "\n".repeat(example.line - 1) + example.code)
  }
  const tsc = join(root, "node_modules", ".bin", "tsc")
  const text = await new Promise<string>((resolve) => execFile(tsc, ["-p", output], (_, stdout) => resolve(stdout)))
  report = text.split("\n").filter((line) => line !== "")
})

it("a wrong example is reported, where it stands", () => {
  expect(errorsIn(wrong)).toEqual([expect.stringContaining("(3,14): error TS2322")])
})

it.each(examples.map((example) => [`${example.file}:${example.line}`, example] as const))("%s", (_, example) => {
  expect(errorsIn(example)).toEqual([])
})
