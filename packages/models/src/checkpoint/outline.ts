import { checkDevice, checkFiles, checkPath, type Device, type DType, type FileSystem, type QuantizedType } from "@lowrank/tensor";
import type { CausalLM } from "../causal-lm.js";
import { decoderOf } from "../families/family.js";
import { checkWeightDType } from "../parameters.js";
import { checkQuantizedType } from "../quantization.js";
import { withGguf } from "./gguf-files.js";
import { openCheckpoint } from "./read.js";

/** Which checkpoint is outlined, and how it would be loaded. */
export interface OutlineOptions {
  /** One that plans (`planningDevice`). */
  readonly device: Device;
  readonly dtype?: DType | "auto";
  readonly quantize?: QuantizedType | null;
  readonly files: FileSystem;
}

/**
 * The model that `loadModel` would give of a folder or a GGUF file, whose weights have no values and no memory yet: each in the dtype or the blocks that it would
 * be in. Only config.json, headers, and the few numbers that say how weights lie are read. Rejects with CheckpointError as `loadModel` does.
 */
export async function checkpointOutline(
  folder: string,
  { device, dtype = "auto", quantize = null, files }: OutlineOptions,
): Promise<{ readonly model: CausalLM; readonly warnings: readonly string[] }> {
  checkPath(folder, "checkpointOutline");
  checkDevice(device, "checkpointOutline");
  checkFiles(files, "checkpointOutline");
  checkWeightDType(dtype, ["auto", "f32", "f16", "bf16"], "checkpointOutline");
  checkQuantizedType(quantize, "checkpointOutline");
  const checkpoint = await openCheckpoint(withGguf(files), folder);
  const { read, tensors, warnings } = await checkpoint.weights({ device, dtype, quantize, isOutline: true });
  const model = decoderOf(read, tensors);
  model.quantization = quantize;
  return { model, warnings };
}
