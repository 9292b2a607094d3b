import { checkDevice, type Device, type DType, fromStorage, Storage, sizeOf } from "@lowrank/tensor";
import { architectureOf, boundedParameters } from "./architectures.js";
import type { CausalLM } from "./causal-lm.js";
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
  const architecture = architectureOf(config, "config");
  const checked = architecture.config(config, "config");
  const parameters = [...boundedParameters(architecture, checked, "config")];
  return architecture.build(
    checked,
    new Map(parameters.map(([name, { shape }]) => [name, fromStorage(new Storage(device, dtype, sizeOf(shape)), shape)])),
  );
}
