import "./ops/methods.js";

export { addHostProduct, type HostOperand, type HostProductOptions } from "./backends/cpu/host-product.js";
export { type HostSymmetric, hostSymmetric } from "./backends/cpu/host-symmetric.js";
export { type BackendOptions, type DeviceOptions, device, type Environment, setEnvironment } from "./backends/select.js";
export { absentGpu } from "./backends/webgpu/absent.js";
export { tune } from "./backends/webgpu/tuning.js";
export { type AwqWeight, awqValues } from "./blocks/awq.js";
export { type FourBitWeight, fourBitValues, type NestedScales, nestedScales, rowwiseValues } from "./blocks/bitsandbytes.js";
export { type BlockWriter, blockOutline, blockTensor, blockWriter } from "./blocks/block-tensor.js";
export type { BlockField, BlockType } from "./blocks/block-type.js";
export type { DenseType } from "./blocks/dense/dense-type.js";
export { denseTypes, denseValues } from "./blocks/dense/table.js";
export { type GptqWeight, gptqValues } from "./blocks/gptq.js";
export { type MlxAffine, mlxAffineValues } from "./blocks/mlx.js";
export { type Mxfp4Weight, mxfp4Scales, mxfp4Table, mxfp4Tensor, mxfp4Values } from "./blocks/mxfp4.js";
export { packedTensor, unpacked } from "./blocks/packed.js";
export {
  type FourBitBlocks,
  type FourBitOptions,
  FourBitQuantizer,
  type FourBitType,
  type NestedBlocks,
  quantizeFourBit,
} from "./blocks/quantize/four-bit.js";
export { quantizeRowwise, type RowwiseInt8 } from "./blocks/quantize/rowwise.js";
export { quantizeBlocks, writableBlockTypes } from "./blocks/quantize/table.js";
export {
  type QuantizedType,
  quantizedOutline,
  quantizedTypes,
  typeForRows,
  type WeightQuantizer,
  weightQuantizer,
} from "./blocks/quantize/weight.js";
export { blockTypes } from "./blocks/table.js";
export type {
  Backend,
  BackendBuffer,
  BackendCounters,
  BackendLimits,
  Executable,
  KernelTime,
  TunedClass,
  Tuning,
} from "./graph/backend.js";
export { bodyArgument } from "./graph/body.js";
export { compile } from "./graph/compile.js";
export { type CompositeDefinition, type CompositeOutput, compositeDefinition } from "./graph/composites.js";
export { arange, eye, fromBytes, fromStorage, full, type NestedNumbers, ones, type TensorOptions, tensor, zeros } from "./graph/create.js";
export { checkDevice, Device, type DeviceName } from "./graph/device.js";
export { eventLoopTurn } from "./graph/event-loop.js";
export { expressionOf, passesGradients } from "./graph/history.js";
export { hostIntegers } from "./graph/host-integers.js";
export { homeOf, realizedStorage } from "./graph/live.js";
export {
  type Attributes,
  type BinaryKind,
  inputAt,
  inputsOf,
  type Node,
  type ReduceKind,
  topological,
  type UnaryKind,
  withInputs,
} from "./graph/node.js";
export type { Packing } from "./graph/packing.js";
export { Generator, type GeneratorState } from "./graph/random.js";
export { realize, realizeNow } from "./graph/realize.js";
export { Storage } from "./graph/storage.js";
export { changeSurroundings, mixed } from "./graph/surroundings.js";
export { Tensor } from "./graph/tensor.js";
export { currentTrace } from "./graph/trace.js";
export { untracked } from "./graph/unread.js";
export { mostSteps } from "./io/expression.js";
export { type BlockScales, ScaledFloats, scaledDType } from "./io/float8.js";
export { type GgufFile, readGguf } from "./io/gguf.js";
export { ggufEncode, type NumbersToWrite } from "./io/gguf-encode.js";
export { type GgufEntry, type GgufHeader, type GgufList, type GgufValue, readGgufHeader } from "./io/gguf-header.js";
export { type GgufType, ggufTypes } from "./io/gguf-types.js";
export {
  type GgufListToWrite,
  type GgufNumberType,
  type GgufTensorToWrite,
  type GgufToWrite,
  type GgufValueToWrite,
  ggufByteCount,
  writeGguf,
} from "./io/gguf-write.js";
export { readHeader, type SafetensorsEntry, type SafetensorsHeader } from "./io/header.js";
export { isAddress, type UrlOptions, urlFiles } from "./io/http.js";
export { type Json, jsonObject } from "./io/json.js";
export { openFile, pageError } from "./io/page.js";
export { type MadeTensor, readSafetensors, type SafetensorsFile, tensorBytes, tensorDType, writeSafetensors } from "./io/safetensors.js";
export { digestOf } from "./io/scan.js";
export {
  type ByteSource,
  type Bytes,
  blobSource,
  bytesSource,
  checkFiles,
  checkPath,
  type FileSystem,
  joined,
  jsonSource,
  memoryFiles,
  readText,
} from "./io/source.js";
export { combinedDigest, sealName, sealOf, writeWeights } from "./io/weights.js";
export type { Plan } from "./kernels/kernel.js";
export { type KernelStatistics, type PlanStatistics, planStatistics } from "./kernels/statistics.js";
export * from "./ops/activation.js";
export * from "./ops/attention.js";
export * from "./ops/cached-attention.js";
export { defineComposite } from "./ops/composite.js";
export * from "./ops/conv.js";
export * from "./ops/cross-entropy.js";
export * from "./ops/dynamic-slice.js";
export * from "./ops/elementwise.js";
export * from "./ops/gather.js";
export * from "./ops/matmul.js";
export * from "./ops/movement.js";
export * from "./ops/norm.js";
export * from "./ops/reduce.js";
export * from "./ops/rope.js";
export { roundedActivations } from "./ops/rounded.js";
export { hasOwnKernel } from "./schedule/canonical.js";
export { type DebugLevel, debugLevel, setDebugLevel } from "./schedule/debug.js";
export { type PlannedFor, type PlanningDevice, planningDevice } from "./schedule/planning.js";
export { type ComputeDType, computeDType, type DataOf, type DType, decode, dtypeBytes, encode, isFloat, promote } from "./tensor/dtype.js";
export {
  CheckpointError,
  DeviceError,
  DeviceLostError,
  HistoryError,
  NotFiniteError,
  OutOfMemoryError,
  ShapeError,
  showShape,
  showValue,
} from "./tensor/errors.js";
export { largest, smallest } from "./tensor/extremes.js";
export { broadcastShapes, normalizeAxis, type Shape, sameShape, sizeOf, stridesOf } from "./tensor/shape.js";
