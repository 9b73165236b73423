// Names of tables that want to be taken for something else: keywords, operators, comments, parts of a stamp, each other.

export interface Identifier {
  readonly name: string
  readonly quoted: string
  /** Ways to write it that mean the same. */
  readonly spellings: ReadonlyArray<string>
}

const quote = (name: string): string => `"${name.replaceAll("\"", "\"\"")}"`

/** With each character by its number. */
const escaped = (name: string): string =>
  `U&"${Array.from(name, (sign) => `\\+${sign.codePointAt(0)!.toString(16).padStart(6, "0")}`).join("")}"`

const identifier = (name: string, ...others: ReadonlyArray<string>): Identifier => {
  const quoted = quote(name)
  return {
    name,
    quoted,
    spellings: [
      quoted,
      `public.${quoted}`,
      `ONLY public . /* ${name.replaceAll("*", "")} */ ${quoted}`,
      escaped(name),
      ...others
    ]
  }
}

export const identifiers: ReadonlyArray<Identifier> = [
  identifier("orders", "orders", "ORDERS", "Orders", "public.OrDeRs", "orders*"),
  identifier("Orders"),
  identifier("ORDERS"),
  identifier("orders "),
  identifier("public.orders"),
  identifier("orders(*)"),
  identifier("orders(id)"),
  identifier("orders(id=\"1\")"),
  identifier("^orders"),
  identifier("~orders"),
  identifier("!orders"),
  identifier("#orders"),
  identifier("@orders:1"),
  identifier("select"),
  identifier("where"),
  identifier("a.b"),
  identifier("a\"b"),
  identifier("a'b"),
  identifier("a\\b"),
  identifier("a--b"),
  identifier("a/*b"),
  identifier("a;b"),
  identifier("$1"),
  identifier("$$"),
  identifier("a\tb"),
  identifier("a\nb"),
  identifier("größe", "größe", "GRöße"),
  identifier("GRÖSSE"),
  identifier("日本語", "日本語"),
  identifier("😀", "😀"),
  identifier("é"),
  identifier("e\u0301"),
  // As many bytes as a name may have: what is longer is cut off.
  identifier("x".repeat(63), "x".repeat(63), "x".repeat(70), `"${"x".repeat(64)}"`),
  identifier("x".repeat(62)),
  identifier("ü".repeat(31), "ü".repeat(32), `"${"ü".repeat(40)}"`)
]
