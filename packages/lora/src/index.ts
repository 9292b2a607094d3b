export { withoutAdapter } from "./active.js";
export { Adapter, type AdapterOptions, type AdapterOrigin, type ApplyOptions, applyAdapter } from "./adapter.js";
export type { MajoritySign } from "./combine/arithmetic.js";
export { type CombineMethod, type CombineOptions, combineAdapters, combineMethods } from "./combine/combine.js";
export { type ExtractOptions, type ExtractReport, extractAdapter } from "./combine/extract.js";
export type { KeptLayer, KeptReport, RankChoice } from "./combine/rank.js";
export { type ResizeOptions, resizeAdapter } from "./combine/resize.js";
export { adapterDigest } from "./digest.js";
export { AdapterError, NotApplicableError } from "./errors.js";
export { baseQuantization } from "./files/base.js";
export { type LoadOptions, loadAdapter } from "./files/load.js";
export { adapterOutline, type OutlineOptions } from "./files/outline.js";
export { type PlainPair, plainPairs } from "./files/plain-pairs.js";
export { adapterFiles, peftConfig, peftVersion, type SaveOptions, saveAdapter } from "./files/save.js";
export { mlxFiles, type SaveMlxOptions, saveMlxAdapter } from "./files/save-mlx.js";
export { type Decomposition, svd, svdOfEnergy } from "./linalg/svd.js";
export { merge, unmerge } from "./merge.js";
export { mergedParameters } from "./merged-parameters.js";
export { type AdaloraOptions, adalora } from "./methods/adalora.js";
export { type BiasedModule, type BitfitOptions, bitfit } from "./methods/bitfit.js";
export type { BottleneckOptions, BottleneckPlace } from "./methods/bottleneck.js";
export { dora } from "./methods/dora.js";
export { houlsby } from "./methods/houlsby.js";
export { type Ia3Options, ia3 } from "./methods/ia3.js";
export type { EvaOptions } from "./methods/init/eva-options.js";
export type { InitName } from "./methods/init/table.js";
export { type LohaOptions, loha } from "./methods/loha.js";
export { type LokrOptions, lokr } from "./methods/lokr.js";
export { type LoraOptions, lora } from "./methods/lora.js";
export {
  type AdapterParts,
  type AttachContext,
  type Attachment,
  copyOf,
  type DataRun,
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
export { type NormsOptions, norms } from "./methods/norms.js";
export { type OftAttachment, type OftOptions, oft } from "./methods/oft.js";
export type { LowRankPair } from "./methods/pair.js";
export { parallel } from "./methods/parallel.js";
export { pfeiffer } from "./methods/pfeiffer.js";
export { type PrefixOptions, prefix } from "./methods/prefix.js";
export { type PromptOptions, prompt } from "./methods/prompt.js";
export { type PtuningOptions, ptuning } from "./methods/ptuning.js";
export { ptuningV2 } from "./methods/ptuning-v2.js";
export type { TripletAttachment } from "./methods/rank-allocation.js";
export { type AnyMethod, type MethodName, methods, type OptionsOf } from "./methods/table.js";
export type { LoraTrainingOptions } from "./methods/training.js";
export { type VeraOptions, vera } from "./methods/vera.js";
export type { VirtualTokenOptions, VirtualTokenPlace } from "./methods/virtual-tokens.js";
export type { LycorisOptions } from "./methods/whole-delta.js";
export { PeftFields } from "./peft/fields.js";
export { formatReport, type OptimizerKind, type ParameterReport, parameterReport, reportRows } from "./report.js";
export { AdapterBatch, type AdapterRows, adapterBatch } from "./several/batch.js";

export { borrowedTargets, defaultTargets, layerSuffixes, targetsFor } from "./targeting/defaults.js";
export { matchAmong, matchLayers, type TargetOptions, type Targets } from "./targeting/match.js";
export {
  type AdaptableModel,
  type AdaptableModule,
  type BlockNames,
  type DenseLayer,
  denseLayers,
  type EmbeddingLayer,
  type VirtualTokenSlots,
  type Wrapper,
} from "./targeting/model.js";
