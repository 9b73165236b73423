import * as CacheStore from "../src/CacheStore.ts"
import { suite } from "./CacheStoreTest.ts"

suite("CacheStore.layerMemory", CacheStore.layerMemory())
