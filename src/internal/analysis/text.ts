/**
 * What can be said of a statement's text before it is parsed.
 *
 * Both functions read the text once, from left to right, and know PostgreSQL's
 * quoting: strings, quoted identifiers, dollar quotes and comments are stepped
 * over whole.
 */

const isDigit = (code: number): boolean => code >= 48 && code <= 57

// Letters, the underscore, and whatever lies beyond ASCII.
const isWordStart = (code: number): boolean =>
  (code >= 97 && code <= 122) || (code >= 65 && code <= 90) || code === 95 || code > 127

const isWordPart = (code: number): boolean => isWordStart(code) || isDigit(code) || code === 36

const isBlank = (code: number): boolean => code === 32 || (code >= 9 && code <= 13)

const wordEnd = (text: string, start: number): number => {
  let end = start + 1
  while (end < text.length && isWordPart(text.charCodeAt(end))) end++
  return end
}

const closing = (text: string, quote: string, start: number): number => {
  const end = text.indexOf(quote, start)
  return end < 0 ? text.length : end + quote.length
}

const isEscaping = (text: string, start: number): boolean =>
  (text.charCodeAt(start - 1) | 32) === 101 && !isWordPart(text.charCodeAt(start - 2))

const stringEnd = (text: string, start: number, escapes: boolean): number => {
  let end = start
  do {
    end++
    if (escapes) { while (end < text.length && text[end] !== "'") end += text[end] === "\\" ? 2 : 1 }
    end = closing(text, "'", end)
  } while (text[end] === "'")
  return end
}

const lineEnd = (text: string, start: number): number => {
  let end = start
  while (end < text.length && text[end] !== "\n" && text[end] !== "\r") end++
  return end
}

// Unlike a word, a number ends at a dollar sign: `1$$` is a number and the beginning of a string.
const numberEnd = (text: string, start: number): number => {
  let end = start
  while (end < text.length) {
    const code = text.charCodeAt(end)
    if (code === 36 || !isWordPart(code) && !(code === 46 && isDigit(text.charCodeAt(end + 1)))) break
    end++
  }
  return end
}

const digitsEnd = (text: string, start: number): number => {
  let end = start
  while (isDigit(text.charCodeAt(end))) end++
  return end
}

const commentEnd = (text: string, start: number): number => {
  let open = 1
  let end = start + 2
  while (end < text.length && open > 0) {
    if (text[end] === "*" && text[end + 1] === "/") {
      open--
      end += 2
    } else if (text[end] === "/" && text[end + 1] === "*") {
      open++
      end += 2
    } else {
      end++
    }
  }
  return Math.min(end, text.length)
}

const dollarTag = /\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$/y

type Kind = "word" | "number" | "string" | "identifier" | "parameter" | "blank" | "operator" | "mark"

/** Reads a text piece by piece: where the piece at a place ends, and then its kind. Operators come sign by sign. */
const pieces = (text: string) => {
  let kind: Kind = "blank"
  // Whether the last string was one in which a backslash hides what follows: `E'...'`, and what continues it after
  // nothing but blanks.
  let escapes = false
  const next = (at: number): number => {
    const end = endOf(at)
    if (kind !== "string" && kind !== "blank") escapes = false
    return end
  }
  const endOf = (at: number): number => {
    const code = text.charCodeAt(at)
    if (isWordStart(code)) {
      kind = "word"
      return wordEnd(text, at)
    }
    if (isDigit(code)) {
      kind = "number"
      return numberEnd(text, at)
    }
    if (isBlank(code)) {
      kind = "blank"
      let end = at + 1
      while (end < text.length && isBlank(text.charCodeAt(end))) end++
      return end
    }
    switch (text[at]) {
      case "'":
        kind = "string"
        escapes ||= isEscaping(text, at)
        return stringEnd(text, at, escapes)
      case "\"":
        kind = "identifier"
        return closing(text, "\"", at + 1)
      case "$": {
        if (isDigit(text.charCodeAt(at + 1))) {
          kind = "parameter"
          return digitsEnd(text, at + 1)
        }
        dollarTag.lastIndex = at
        const tag = dollarTag.exec(text)
        kind = tag === null ? "mark" : "string"
        return tag === null ? at + 1 : closing(text, tag[0], dollarTag.lastIndex)
      }
      case "-":
        if (text[at + 1] === "-") {
          kind = "blank"
          return lineEnd(text, at + 2)
        }
        break
      case "/":
        if (text[at + 1] === "*") {
          kind = "blank"
          return commentEnd(text, at)
        }
        break
      case "(":
      case ")":
      case "[":
      case "]":
      case ",":
      case ";":
      case ".":
        kind = "mark"
        return at + 1
    }
    kind = "operator"
    return at + 1
  }
  return { next, kind: () => kind }
}

const separators = new Set(["and", "or", "when", "then", "else"])
const chained = new Set(
  "all any at between collate in ilike is isnull like not notnull operator similar some".split(" ")
)
const nested = new Set(["case", "except", "intersect", "join", "union"])

/**
 * How deep the syntax tree of a text can be, in levels of expression, estimated
 * high.
 *
 * The parser itself keeps its stack on the heap, but what prints its tree is
 * recursive: at some thousands of levels WebAssembly runs out of stack, and the
 * instance is not to be trusted after that.
 */
export const depth = (text: string): number => {
  // Per open parenthesis: what lasts to its end, what lasts to the next comma, the deepest inside that, the deepest of
  // the items before.
  const open: Array<readonly [number, number, number, number]> = []
  let steps = 0
  let run = 0
  let inner = 0
  let highest = 0
  const piece = pieces(text)
  for (let at = 0, end = 0; at < text.length; at = end) {
    end = piece.next(at)
    switch (piece.kind()) {
      case "operator":
        run++
        break
      case "word": {
        if (end - at > 9) break
        const word = text.slice(at, end).toLowerCase()
        if (separators.has(word)) {
          highest = Math.max(highest, run + inner)
          run = inner = 0
        } else if (chained.has(word)) {
          run++
        } else if (nested.has(word)) {
          steps++
        }
        break
      }
      case "mark":
        switch (text[at]) {
          case "(":
          case "[":
            open.push([steps, run, inner, highest])
            steps =
              run =
              inner =
              highest =
                0
            break
          case ")":
          case "]": {
            const here = steps + Math.max(highest, run + inner) + levelsPerParenthesis
            ;[steps, run, inner, highest] = open.pop() ?? [0, 0, 0, 0]
            inner = Math.max(inner, here)
            break
          }
          case ",":
            highest = Math.max(highest, run + inner)
            run = inner = 0
        }
    }
  }
  let total = steps + Math.max(highest, run + inner)
  for (const [steps, run, inner, highest] of open.toReversed()) {
    total = steps + Math.max(highest, run + Math.max(inner, total + levelsPerParenthesis))
  }
  return total
}

const levelsPerParenthesis = 3

/** Literals that PostgreSQL reads from the clock where a date or time is due. */
export const namesTheTime = (literal: string): boolean =>
  literal.length < 100 && /(?<![a-z])(?:now|today|tomorrow|yesterday)(?![a-z])/i.test(literal)

/** A list that is being read: what stands in a pair of parentheses, or the whole text. */
interface Level {
  /** The items kept so far. */
  text: string
  /** The item being read. */
  item: string
  /** The item before, without the blanks around it. */
  last: string | undefined
  /** The items of values alone. */
  readonly values: Set<string>
  /** Whether the item being read has a word that could name something. */
  itemNames: boolean
  /** Whether any item has. */
  names: boolean
}

/**
 * The text with its values replaced by one and the same, and what then repeats
 * in a list left out: `VALUES ($1, 'a'), ($2, 'b')` becomes `VALUES ($1,'')`.
 *
 * Reads and writes the same tables and calls the same functions as the text
 * itself, if with fewer arguments, so a batch of many rows is analysed like its
 * first few. An item of values alone is left out wherever its list has had it;
 * one that names something only right after its like, for two items with a
 * comma between them stand in the same clause, and others may not.
 */
export const collapse = (text: string): string => {
  const open: Array<Level> = []
  let level = emptyLevel()
  let blank = false
  const add = (piece: string): void => {
    level.item += blank ? ` ${piece}` : piece
    blank = false
  }
  const finishItem = (): void => {
    const { item } = level
    if (item !== level.last && !level.values.has(item)) {
      level.text += level.last === undefined ? item : `,${item}`
      if (!level.itemNames) level.values.add(item)
    }
    level.last = item
    level.item = ""
    level.names ||= level.itemNames
    level.itemNames = false
    blank = false
  }
  const close = (mark: string): void => {
    finishItem()
    const inner = level
    level = open.pop()!
    level.item += inner.text + mark
    level.itemNames ||= inner.names
  }
  const piece = pieces(text)
  for (let at = 0, end = 0; at < text.length; at = end) {
    end = piece.next(at)
    const here = text.slice(at, end)
    switch (piece.kind()) {
      case "blank":
        blank = level.item !== ""
        break
      case "parameter":
        add("$1")
        break
      case "number":
        add("1")
        break
      case "string":
        add(namesTheTime(here) ? here : "''")
        break
      case "word":
        add(here)
        level.itemNames ||= !valueWords.has(here.toLowerCase())
        break
      case "identifier":
        add(here)
        level.itemNames = true
        break
      case "mark":
        if (here === "(" || here === "[") {
          add(here)
          open.push(level)
          level = emptyLevel()
        } else if (open.length > 0 && (here === ")" || here === "]")) {
          close(here)
        } else if (here === ",") {
          finishItem()
        } else {
          add(here)
        }
        break
      default:
        add(here)
    }
  }
  while (open.length > 0) close("")
  finishItem()
  return level.text
}

const emptyLevel = (): Level => ({
  text: "",
  item: "",
  last: undefined,
  values: new Set(),
  itemNames: false,
  names: false
})

const valueWords = new Set(["default", "false", "null", "true"])
