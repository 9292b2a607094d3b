export { type Agreement, compareOutputs, type RecordedOutputs, recordOutputs } from "./agreement/agreement.js";
export {
  type AttentionContext,
  type BlockNames,
  type CacheShape,
  type CausalLM,
  checkTokenIds,
  type ForwardOptions,
  type Kept,
  type ModelOrigin,
  type VisiblePrefix,
} from "./causal-lm.js";
export { type WeightFiles, weightFiles } from "./checkpoint/files.js";
export { isGgufPath, readConfig, readJson, readTokenizer } from "./checkpoint/folder.js";
export { GgufFiles, withGguf } from "./checkpoint/gguf-files.js";
export { type LoadedModel, type LoadOptions, loadModel } from "./checkpoint/load.js";
export { checkpointOutline, type OutlineOptions } from "./checkpoint/outline.js";
export { type BitsandbytesType, bitsandbytesTypes } from "./checkpoint/packed/bitsandbytes-write.js";
export { type PackedWeightInfo, packedWeights } from "./checkpoint/packed-weights.js";
export { packingIn, type SaidPacking } from "./checkpoint/packing-field.js";
export { checkpointFiles, type SaveModelOptions, saveModel } from "./checkpoint/save.js";
export type { ModelConfig } from "./config.js";
export * from "./data/index.js";
export { type AdapterPair, type SaveGgufAdapterOptions, saveGgufAdapter } from "./export/gguf-adapter.js";
export { type GgufFileType, ggufFileTypes } from "./export/gguf-mix.js";
export { type SaveGgufOptions, saveGguf } from "./export/gguf-model.js";
export { type GenerateOptions, type GeneratorOptions, generate, TextGenerator } from "./generate/generate.js";
export { type SamplingOptions, sample } from "./generate/sample.js";
export { SchemaConstraint } from "./grammar/constraint.js";
export { SchemaError } from "./grammar/error.js";
export { checkSchema } from "./grammar/schema.js";
export { initModel } from "./init-model.js";
export { JsonNumber, parseLossless, stringifyLossless } from "./lossless.js";
export { modelOf, modelOutline } from "./model-outline.js";
export type { PackedRows } from "./packed-rows.js";
export type { ChatMessage, ChatOptions, ChatTemplates, RenderedChat } from "./tokenizer/chat.js";
export { TokenizerError } from "./tokenizer/pipeline/error.js";
export { TextStream } from "./tokenizer/text-stream.js";
export { type EncodedText, Tokenizer } from "./tokenizer/tokenizer.js";
export * from "./train/index.js";
export { type KeyValuePrefix, type VirtualPrompt, VirtualTokens } from "./virtual-tokens.js";
