export { TrainingError } from "./error.js";
export { type Evaluator, evaluator } from "./evaluator.js";
export { type ChangeNote, type MetricsLine, metricsLines } from "./metrics.js";
export type { TrainingRules } from "./rules.js";
export type { RunFolder, StepMetrics, TrainOptions, TrainResult } from "./run.js";
export { type RunState, readState, restoreState, saveState, stateFileName } from "./state.js";
export { type StepOptions, type StepOutcome, type TrainableModel, type TrainingStep, trainingStep } from "./step.js";
export { train } from "./trainer.js";
