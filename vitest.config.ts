import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const source = (path: string) => fileURLToPath(new URL(`./src/${path}`, import.meta.url))

export default defineConfig({
  resolve: {
    alias: [
      { find: /^effect-query-cache$/, replacement: source("index.ts") },
      { find: /^effect-query-cache\/(.*)$/, replacement: source("$1.ts") }
    ]
  },
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "test/support/globalSetup.ts",
    allowOnly: false,
    // Benches and servers share the machine with the tests.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 120_000,
    // Type tests are compiled by the same compiler as the sources. (tstyche drives the compiler's JavaScript interface,
    // which TypeScript 7 does not have, so it would test against another one.)
    typecheck: {
      enabled: true,
      include: ["test/types/*.test-d.ts"],
      tsconfig: "test/types/tsconfig.json"
    }
  }
})
