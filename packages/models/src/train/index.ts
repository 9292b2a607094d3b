export { TrainingError } from "./error.js";
export { type ChangeNote, metricsLines } from "./metrics.js";
export type { TrainingRules } from "./rules.js";
export { type RunState, readState, restoreState, saveState, stateFileName } from "./state.js";
export {
  type Evaluator,
  evaluator,
  type StepOptions,
  type StepOutcome,
  type TrainableModel,
  type TrainingStep,
  trainingStep,
} from "./step.js";
export { type RunFolder, type StepMetrics, type TrainOptions, type TrainResult, train } from "./trainer.js";
