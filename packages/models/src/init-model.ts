import { checkDevice, type Device, fromStorage, full, Generator, realize, type Storage, type Tensor } from "@lowrank/tensor";
import type { CausalLM } from "./causal-lm.js";
import { decoderOf } from "./families/family.js";
import { boundedParameters, readFamily } from "./families/read.js";

/**
 * A model with random weights, as transformers starts one: normal with deviation `initializer_range`, GPT-2's residual projections
 * smaller by 1/√(2 · layers), norms 1, biases 0. `config` is what config.json would hold. The same seed gives the same weights.
 * Rejects with CheckpointError when the config is wrong.
 */
export async function initModel(
  config: Readonly<Record<string, unknown>>,
  options: { readonly device: Device; readonly seed?: number },
): Promise<CausalLM> {
  checkDevice(options?.device, "initModel");
  const { device } = options;
  const read = withClassName(readFamily(config, "config"));
  const deviation = Number(read.config["initializer_range"]);
  const generator = new Generator(device, options.seed ?? 0);
  const tensors = new Map<string, Tensor>();
  for (const [name, { shape, init }] of boundedParameters(read, "config", device)) {
    const value =
      init.kind === "normal" ? generator.normal(shape, 0, deviation * init.scale) : full(shape, init.kind === "ones" ? 1 : 0, { device });
    await realize(value);
    // A realized tensor has a storage; the new handle owns it, so that optimizers can assign to it.
    tensors.set(name, fromStorage(value.storage as Storage, shape));
  }
  return decoderOf(read, tensors);
}

/** What it is saved with: transformers looks for the class. */
function withClassName(read: ReturnType<typeof readFamily>): ReturnType<typeof readFamily> {
  return { ...read, config: { architectures: [read.family.className], ...read.config } };
}
