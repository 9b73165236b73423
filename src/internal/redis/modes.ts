/**
 * How a namespace is kept, as the scripts know it: bounded, or strict (fences.ts).
 * Scripts of the first kind pay nothing for the second.
 */
import * as Fences from "./fences.ts"
import { newest, prelude, preludeOf } from "./prelude.ts"

export interface Mode {
  readonly prelude: string
  /** Of what stores values. */
  readonly storePrelude: string
  readonly newest: string
  /** How many keys LOOKUP and STORE have before those of entries. */
  readonly metadataKeys: 2 | 3
  /** Asks Redis for a write. */
  readonly probe: string
  /** `isGood`: whether the metadata are. */
  readonly open: string
  /** Says why nothing is served for an entry, if so; or what follows does. */
  readonly bypass: (entry: string) => string
  /** A shape was registered. */
  readonly registered: string
  /** Everything was. */
  readonly registeredAll: string
  /** What lifts fences, and has them lifted. */
  readonly lift: string
  readonly lifted: string
}

/** `KEYS[3]` of what asks for a write is one that nobody uses. */
export const bounded: Mode = {
  prelude,
  storePrelude: prelude,
  newest,
  metadataKeys: 2,
  probe: `redis.call("DEL", KEYS[3])`,
  open: "local isGood = open()\n",
  bypass: () => "",
  registered: "",
  registeredAll: "",
  lift: "",
  lifted: ""
}

/** `KEYS[3]` are the fences. */
export const strict: Mode = {
  prelude: preludeOf(Fences.additions),
  storePrelude: preludeOf(Fences.roomyAdditions),
  newest: newest + Fences.judge,
  metadataKeys: 3,
  // The prelude does so.
  probe: "",
  open: Fences.open,
  bypass: (entry) => `bypass(stampsOf(${entry}.set)) or `,
  registered: "\n  fenceShape(name, columns)",
  registeredAll: `
  if outcome[1] == "miss" or outcome[1] == "stale" then
    outcome = bypass(stampsOf(entries[i].set)) or outcome
    outcomes[i] = outcome
  end`,
  lift: Fences.fences,
  lifted: `for token in string.gmatch(ARGV[10], "%S+") do lift(token) end\n`
}
