export { loadModel, type NodeLoadOptions, saveModel } from "./checkpoint/node/checkpoint.js";
export { isHubId } from "./hub/node/cache.js";
export { resolveData } from "./hub/node/data.js";
export type { HubOptions, HubProgress } from "./hub/node/environment.js";
export { type CachedModel, cachedModels, removeCached } from "./hub/node/inventory.js";
export { resolveAdapter, resolveConfig, resolveEither, resolveModel } from "./hub/node/resolve.js";
export { type DataReference, isDataReference, parseDataReference } from "./hub/node/splits.js";
export * from "./index.js";
export { type EvaluationMetrics, metricsFile, readMetrics } from "./train/node.js";
