/**
 * What the name of an epoch tells: `<order>-<nonce>@<shard>`, as the scripts of Redis write it (redis/scripts.ts).
 */

/** Orders grow: a later epoch of a shard has a higher one. */
export const orderOf = (epoch: string): number => Number(epoch.slice(0, epoch.indexOf("-")))

/** The shard whose epoch this is: the last thing it says. `NaN` of what is no epoch. */
export const shardOf = (epoch: string): number => Number(/@(\d{1,4})$/.exec(epoch)?.[1])
