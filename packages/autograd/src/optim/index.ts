export { type AdamWOptions, adamw } from "./adamw.js";
export { clipByGlobalNorm, globalNorm } from "./clip.js";
export type { Optimizer, ParameterGroup, Parameters, UpdateOptions } from "./optimizer.js";
export { constant, cosine, linear, type Schedule, type ScheduleOptions } from "./schedule.js";
export { type SgdOptions, sgd } from "./sgd.js";
