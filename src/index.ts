/**
 * A query-result cache for Effect programs that talk to PostgreSQL.
 *
 * `UpstashRedis` and `RedisCluster` need an optional peer each and are reached by
 * their own paths, `effect-query-cache/UpstashRedis` and `effect-query-cache/RedisCluster`.
 *
 * @since 0.1.0
 */
export * as CachedQuery from "./CachedQuery.ts"
export * as CachedResolver from "./CachedResolver.ts"
export * as CachedSqlClient from "./CachedSqlClient.ts"
export * as CacheError from "./CacheError.ts"
export * as CacheMetrics from "./CacheMetrics.ts"
export * as CachePolicy from "./CachePolicy.ts"
export * as CacheScope from "./CacheScope.ts"
export * as CacheStore from "./CacheStore.ts"
export * as Dependency from "./Dependency.ts"
export * as Fingerprinter from "./Fingerprinter.ts"
export * as Invalidator from "./Invalidator.ts"
export * as MaterializedView from "./MaterializedView.ts"
export * as QueryAnalyzer from "./QueryAnalyzer.ts"
export * as QueryCache from "./QueryCache.ts"
export * as RedisStore from "./RedisStore.ts"
export * as SessionToken from "./SessionToken.ts"
export * as TieredStore from "./TieredStore.ts"
