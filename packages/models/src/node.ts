export { loadModel, type NodeLoadOptions, saveModel } from "./checkpoint/node/checkpoint.js";
export type { HubOptions, HubProgress } from "./hub/node/environment.js";
export { resolveAdapter, resolveConfig, resolveModel } from "./hub/node/resolve.js";
export * from "./index.js";
export { type EvaluationMetrics, metricsFile, readMetrics } from "./train/node.js";
