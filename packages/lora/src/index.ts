export { Adapter, type AdapterOptions, type AdapterOrigin, type ApplyOptions, applyAdapter } from "./adapter.js";
export type { MajoritySign } from "./combine/arithmetic.js";
export { type CombineMethod, type CombineOptions, combineAdapters, combineMethods } from "./combine/combine.js";
export { type ExtractOptions, type ExtractReport, extractAdapter } from "./combine/extract.js";
export type { KeptLayer, KeptReport, RankChoice } from "./combine/rank.js";
export { type ResizeOptions, resizeAdapter } from "./combine/resize.js";
export { AdapterError } from "./errors.js";
export { merge, unmerge } from "./merge.js";
export { dora } from "./methods/dora.js";
export { type LoraOptions, type LowRankPair, lora } from "./methods/lora.js";
export {
  type AttachContext,
  type Attachment,
  defineMethod,
  type InitializationData,
  type MergedWeight,
  type Method,
  onEach,
  type PlaceContext,
  replacing,
  type TrainingRules,
  wrapping,
} from "./methods/method.js";
export { type AnyMethod, type MethodName, methods, type OptionsOf } from "./methods/table.js";
export { PeftFields } from "./peft/fields.js";
export { type LoadOptions, loadAdapter } from "./peft/load.js";
export { adapterOutline, type OutlineOptions } from "./peft/outline.js";
export { peftConfig, peftVersion, type SaveOptions, saveAdapter } from "./peft/save.js";
export { formatReport, type OptimizerKind, type ParameterReport, parameterReport } from "./report.js";
export { withoutAdapter } from "./several/active.js";
export { AdapterBatch, type AdapterRows, adapterBatch } from "./several/batch.js";

export { defaultTargets, layerSuffixes, targetsFor } from "./targeting/defaults.js";
export { matchLayers, type TargetOptions, type Targets } from "./targeting/match.js";
export {
  type AdaptableModel,
  type AdaptableModule,
  type DenseLayer,
  denseLayers,
  type EmbeddingLayer,
  type VirtualTokenSlots,
  type Wrapper,
} from "./targeting/model.js";
