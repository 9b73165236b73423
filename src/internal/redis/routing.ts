/**
 * Where the first key of a command stands: a cluster sends a command to the node of its slot.
 */

// Where the first key of a command stands, if it is not its first argument; for those in `counted`, behind how many
// keys there are. A command without a key may be sent by whatever argument comes first: any node does.
const places: { readonly [command: string]: number } = {
  BITOP: 1,
  BLMPOP: 2,
  BZMPOP: 2,
  EVAL: 2,
  EVALSHA: 2,
  EVALSHA_RO: 2,
  EVAL_RO: 2,
  FCALL: 2,
  FCALL_RO: 2,
  LMPOP: 1,
  MEMORY: 1,
  MIGRATE: 2,
  OBJECT: 1,
  SINTERCARD: 1,
  XGROUP: 1,
  XINFO: 1,
  ZDIFF: 1,
  ZINTER: 1,
  ZINTERCARD: 1,
  ZMPOP: 1,
  ZUNION: 1
}

const counted = new Set(["EVAL", "EVALSHA", "EVALSHA_RO", "EVAL_RO", "FCALL", "FCALL_RO"])

/** The first key of a command, by which a cluster is told where to send it. */
export const keyOf = (command: string, args: ReadonlyArray<string>): string | undefined => {
  const name = command.toUpperCase()
  if (name === "XREAD" || name === "XREADGROUP") {
    return args[args.findIndex((arg) => arg.toUpperCase() === "STREAMS") + 1]
  }
  const place = places[name] ?? 0
  return counted.has(name) && args[place - 1] === "0" ? undefined : args[place]
}
