/**
 * Finds the form of a statement by its segments, without compiling it: literals
 * and identifiers lead to a node, parameters are collected on the way. Equal
 * paths compile to equal texts, since a placeholder is numbered by its place.
 */
import type { Segment } from "effect/sql/Statement"
import type { Form, Kind } from "./forms.ts"
import { isScalar } from "./parameters.ts"

export class FormNode {
  readonly forms: { [K in Kind]: Form | undefined } = { rows: undefined, plain: undefined, values: undefined }
  readonly next = new Map<string | number, FormNode>()
}

// What is longer is a text made up by a program: found by its compiled text, where bytes are counted.
const maxLiteral = 4096

// A long literal counts as several nodes, one for each of so many characters.
const literalPerNode = 256

// Marks that no literal begins with, since PostgreSQL's texts hold no NUL.
const parameterMark = "\0p"
const identifierMark = "\0i"

export class FormTrie {
  private readonly maxNodes: number
  private root = new FormNode()
  private nodes = 0

  /** Forgets everything when it has grown to `maxNodes`: texts made up by a program have no end. */
  constructor(maxNodes: number) {
    this.maxNodes = maxNodes
  }

  /**
   * The node of a statement; its parameters are pushed to `parameters`.
   * `undefined` where only the compiler can tell: records, json, nested fragments
   * in lists.
   */
  locate(segments: ReadonlyArray<Segment>, parameters: Array<unknown>): FormNode | undefined {
    let node = this.root
    for (let i = 0; i < segments.length; i++) {
      const segment = segments[i]
      switch (segment._tag) {
        case "Literal":
          if (segment.value.length > maxLiteral) return undefined
          node = this.step(node, segment.value)
          if (segment.params !== undefined) {
            for (const parameter of segment.params) parameters.push(parameter)
          }
          break
        case "Parameter":
          node = this.step(node, parameterMark)
          parameters.push(segment.value)
          break
        case "Identifier":
          node = this.step(node, identifierMark + segment.value)
          break
        case "ArrayHelper": {
          const values = segment.value
          // A number is the length of a list: no literal is one.
          node = this.step(node, values.length)
          for (let j = 0; j < values.length; j++) {
            if (!isScalar(values[j])) return undefined
            parameters.push(values[j])
          }
          break
        }
        default:
          return undefined
      }
    }
    return node
  }

  private step(node: FormNode, by: string | number): FormNode {
    let next = node.next.get(by)
    if (next === undefined) {
      next = new FormNode()
      if (this.nodes >= this.maxNodes) {
        this.root = new FormNode()
        this.nodes = 0
      } else {
        node.next.set(by, next)
        this.nodes += typeof by === "string" ? 1 + Math.floor(by.length / literalPerNode) : 1
      }
    }
    return next
  }
}
