export { loadModel, type NodeLoadOptions, saveModel } from "./checkpoint/node/checkpoint.js";
export { type HubOptions, resolveModel } from "./checkpoint/node/hub.js";
export * from "./index.js";
export { type EvaluationMetrics, metricsFile, readMetrics } from "./train/node.js";
