// What can be done to the text of a statement: written otherwise it means the same, damaged it may mean anything.
import type { Random } from "../oracle/random.ts"

const tokens = (sql: string): ReadonlyArray<string> =>
  sql.match(/'(?:[^']|'')*'|"(?:[^"]|"")*"|\$\d+|[\p{L}_][\p{L}\d_$]*|\d+(?:\.\d+)?|::|[-+*/<>=~!@#%^&|?]+|\S/gu) ?? []

const blanks = [
  " ",
  "\n",
  "\t\r\n ",
  " -- FROM nowhere; it's \"here\"\n",
  "/* FROM nowhere */",
  " /* ' /* nested \" */ $$ */ "
]

/** The same statement with other blanks, comments, cases and quotes. */
export const disguised = (sql: string, random: Random): string =>
  tokens(sql).map((token) => {
    const piece = /^'[^'\\]*'$/.test(token) && !token.includes("$") && random.chance(0.5)
      ? random.pick([`$$${token.slice(1, -1)}$$`, `$ü$${token.slice(1, -1)}$ü$`, `E${token}`])
      : /^[a-z_]\w*$/i.test(token) && random.chance(0.3)
      ? random.pick([token.toUpperCase(), token.toLowerCase()])
      : token
    return piece + random.pick(random.chance(0.7) ? [" "] : blanks)
  }).join("")

/** The statement with tokens lost, doubled, swapped or taken from another one. */
export const damaged = (sql: string, other: string, random: Random): string => {
  const list = [...tokens(sql)]
  const strange = tokens(other)
  for (let i = random.weighted([[3, 0], [1, 1], [1, 2]]); i >= 0; i--) {
    const at = random.below(list.length)
    const to = random.below(list.length)
    switch (random.below(9)) {
      case 0:
        list.splice(at, 1 + random.below(4))
        break
      case 1:
        list.splice(to, 0, ...list.slice(at, at + 1 + random.below(6)))
        break
      case 2:
        ;[list[at], list[to]] = [list[to]!, list[at]!]
        break
      case 3:
        list.splice(at, 1, ...strange.slice(random.below(strange.length)).slice(0, 1 + random.below(5)))
        break
      case 4:
        list.splice(
          at,
          0,
          random.pick(["(", ")", "'", "\"", "/*", "--", "$$", ";", "NOT", "ONLY", "LATERAL", "\u00a0", "U&'"])
        )
        break
      default: {
        // A word that is another word of the same statement: mostly still a statement.
        const words = list.flatMap((token, i) => /^[a-z_]\w*$/i.test(token) ? [i] : [])
        if (words.length > 0) list[random.pick(words)] = list[random.pick(words)]!
      }
    }
    if (list.length === 0) return ""
  }
  return list.join(" ")
}
