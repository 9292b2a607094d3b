import { checkDevice, type Device, type DType, fromStorage, type QuantizedType, Storage, sizeOf, type Tensor } from "@lowrank/tensor";
import type { CausalLM } from "./causal-lm.js";
import { decoderOf } from "./families/family.js";
import { boundedParameters, readFamily } from "./families/read.js";
import { checkWeightDType } from "./parameters.js";
import { checkQuantizedType, parameterOutline, quantizationOf } from "./quantization.js";

/**
 * A model whose weights have no values and no memory yet: for planning on a `planningDevice`, and for names and shapes. `config` is what
 * config.json would hold, `dtype` how weights are stored, but for those that are quantized to `quantize`. Throws CheckpointError when the config is wrong.
 */
export function modelOutline(
  config: Readonly<Record<string, unknown>>,
  { device, dtype = "f32", quantize = null }: { readonly device: Device; readonly dtype?: DType; readonly quantize?: QuantizedType | null },
): CausalLM {
  checkDevice(device, "modelOutline");
  checkWeightDType(dtype, ["f32", "f16", "bf16"], "modelOutline");
  checkQuantizedType(quantize, "modelOutline");
  const read = readFamily(config, "config");
  const parameters = boundedParameters(read, "config", device);
  const types = quantize === null ? null : quantizationOf(parameters, `${read.options.head.name}.weight`, quantize).types;
  const outlined = new Map<string, Tensor>();
  for (const [name, spec] of parameters) {
    const type = types?.get(name);
    outlined.set(
      name,
      type ? parameterOutline(type, spec, device) : fromStorage(new Storage(device, dtype, sizeOf(spec.shape)), spec.shape),
    );
  }
  const model = decoderOf(read, outlined);
  model.quantization = quantize;
  return model;
}

/**
 * A model of weights that are there already, by the names that a checkpoint of this family has. `config` is what config.json would hold.
 * Throws CheckpointError when the config is wrong, and for a tensor that is missing.
 */
export function modelOf(config: Readonly<Record<string, unknown>>, tensors: ReadonlyMap<string, Tensor>): CausalLM {
  return decoderOf(readFamily(config, "config"), tensors);
}
