/**
 * @since 0.1.0
 */
export * as CacheError from "./CacheError.ts"
export * as CacheStore from "./CacheStore.ts"
export * as Dependency from "./Dependency.ts"
