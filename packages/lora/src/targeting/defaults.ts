import { AdapterError } from "../errors.js";
import { type AdaptableModel, denseLayers, modelType } from "./model.js";

/** The layers that PEFT adapts when none are named, by model family (peft.utils.constants). One line a family. */
export const defaultTargets: Readonly<Record<string, readonly string[]>> = {
  gpt2: ["c_attn"],
  gpt_neox: ["query_key_value"],
  gemma: ["q_proj", "v_proj"],
  gemma2: ["q_proj", "v_proj"],
  llama: ["q_proj", "v_proj"],
  mistral: ["q_proj", "v_proj"],
  phi: ["q_proj", "v_proj", "fc1", "fc2"],
  qwen2: ["q_proj", "v_proj"],
  qwen3: ["q_proj", "v_proj"],
};

/** The family's default targets. Throws AdapterError, listing the dense layers, for a family without an entry. */
export function targetsFor(
  model: AdaptableModel,
  table: Readonly<Record<string, readonly string[]>> = defaultTargets,
  names: readonly string[] = layerSuffixes(model),
): readonly string[] {
  const type = modelType(model);
  const targets = type === null ? undefined : table[type];
  if (targets) return targets;
  throw new AdapterError(
    `There are no default targets for ${type === null ? "this model" : `models of type "${type}"`}. Name some of its layers: ${names.join(", ")}.`,
    names,
  );
}

/** The last parts of the dense layers' names, each once: what a person would pass as targets. */
export function layerSuffixes(model: AdaptableModel): string[] {
  return suffixesOf(denseLayers(model).keys());
}

/** The last parts of names, each once. */
export function suffixesOf(names: Iterable<string>): string[] {
  return [...new Set([...names].map((name) => name.slice(name.lastIndexOf(".") + 1)))];
}
