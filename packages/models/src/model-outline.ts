import { checkDevice, type Device, type DType, fromStorage, Storage, sizeOf, type Tensor } from "@lowrank/tensor";
import type { CausalLM } from "./causal-lm.js";
import { decoderOf } from "./families/family.js";
import { boundedParameters, readFamily } from "./families/read.js";
import { checkWeightDType } from "./parameters.js";

/**
 * A model whose weights have no values and no memory yet: for planning on a `planningDevice`, and for names and shapes. `config` is what
 * config.json would hold, `dtype` how weights are stored. Throws CheckpointError when the config is wrong.
 */
export function modelOutline(
  config: Readonly<Record<string, unknown>>,
  { device, dtype = "f32" }: { readonly device: Device; readonly dtype?: DType },
): CausalLM {
  checkDevice(device, "modelOutline");
  checkWeightDType(dtype, ["f32", "f16", "bf16"], "modelOutline");
  const read = readFamily(config, "config");
  const parameters = [...boundedParameters(read, "config", device)];
  return decoderOf(
    read,
    new Map(parameters.map(([name, { shape }]) => [name, fromStorage(new Storage(device, dtype, sizeOf(shape)), shape)])),
  );
}

/**
 * A model of weights that are there already, by the names that a checkpoint of this family has. `config` is what config.json would hold.
 * Throws CheckpointError when the config is wrong, and for a tensor that is missing.
 */
export function modelOf(config: Readonly<Record<string, unknown>>, tensors: ReadonlyMap<string, Tensor>): CausalLM {
  return decoderOf(readFamily(config, "config"), tensors);
}
