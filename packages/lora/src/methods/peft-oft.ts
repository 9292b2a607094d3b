import type { PeftFields } from "../peft/fields.js";
import { layerFields, namesOrNull, takeTargets, targetModules } from "../peft/targets.js";
import type { DenseLayer, EmbeddingLayer } from "../targeting/model.js";
import type { OftOptions } from "./oft.js";

/** OFTConfig of PEFT 0.21, every field. */
export function oftToPeft(
  options: OftOptions,
  places: ReadonlyMap<string, DenseLayer | EmbeddingLayer>,
): Readonly<Record<string, unknown>> {
  return {
    bias: "none",
    block_share: options.shared,
    coft: options.constrained,
    eps: options.epsilon,
    exclude_modules: namesOrNull(options.exclude),
    fan_in_fan_out: [...places.values()].some((place) => (place as Partial<DenseLayer>).isTransposed ?? false),
    init_weights: options.init === "identity",
    // PEFT makes such a layer and never uses it.
    module_dropout: 0,
    modules_to_save: null,
    num_cayley_neumann_terms: options.neumannTerms > 0 ? options.neumannTerms : 5,
    oft_block_size: options.blockSize,
    peft_type: "OFT",
    r: options.blocks,
    target_modules: targetModules(options.targets, places),
    use_cayley_neumann: options.neumannTerms > 0,
    ...layerFields(options),
  };
}

/** The options of an OFTConfig, or null where it describes another method. Throws AdapterError for values that are not understood. */
export function oftFromPeft(fields: PeftFields): Partial<OftOptions> | null {
  if (fields.peek("peft_type") !== "OFT") return null;
  fields.pass("peft_type", "fan_in_fan_out", "module_dropout");
  if (fields.peek("bias") === "none") fields.pass("bias");
  const terms = fields.takeNumber("num_cayley_neumann_terms", 5);
  return {
    blocks: fields.takeNumber("r", 0),
    blockSize: fields.takeNumber("oft_block_size", 32),
    constrained: fields.takeFlag("coft"),
    epsilon: fields.takeNumber("eps", 6e-5),
    shared: fields.takeFlag("block_share"),
    neumannTerms: fields.takeFlag("use_cayley_neumann", true) ? terms : 0,
    init: fields.takeFlag("init_weights", true) ? "identity" : "random",
    ...takeTargets(fields),
  };
}
