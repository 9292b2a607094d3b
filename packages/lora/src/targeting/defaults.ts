import { NotApplicableError } from "../errors.js";
import { type AdaptableModel, denseLayers, modelType } from "./model.js";

/** The layers that PEFT adapts when none are named, by model family (peft.utils.constants). One line a family. */
export const defaultTargets: Readonly<Record<string, readonly string[]>> = {
  gpt2: ["c_attn"],
  gpt_neox: ["query_key_value"],
  gemma: ["q_proj", "v_proj"],
  gemma2: ["q_proj", "v_proj"],
  gemma3_text: ["q_proj", "v_proj"],
  // PEFT names gemma4, the text model with its towers.
  gemma4_text: ["q_proj", "v_proj"],
  llama: ["q_proj", "v_proj"],
  mistral: ["q_proj", "v_proj"],
  mixtral: ["q_proj", "v_proj"],
  nemotron_h: ["q_proj", "k_proj", "v_proj", "o_proj"],
  phi: ["q_proj", "v_proj", "fc1", "fc2"],
  qwen2: ["q_proj", "v_proj"],
  qwen3: ["q_proj", "v_proj"],
  stablelm: ["q_proj", "v_proj"],
};

/** What PEFT scales with (IA)³ by default. */
export const ia3Targets: Readonly<Record<string, readonly string[]>> = {
  gpt2: ["c_attn", "mlp.c_proj"],
  gpt_neox: ["query_key_value", "dense_4h_to_h"],
  gemma: ["q_proj", "v_proj", "down_proj"],
  gemma2: ["q_proj", "v_proj", "down_proj"],
  gemma3_text: ["q_proj", "v_proj", "down_proj"],
  llama: ["k_proj", "v_proj", "down_proj"],
  mistral: ["k_proj", "v_proj", "down_proj"],
  phi: ["q_proj", "v_proj", "fc2"],
  qwen2: ["q_proj", "v_proj", "down_proj"],
  qwen3: ["q_proj", "v_proj", "down_proj"],
};

/** Those of (IA)³'s layers whose input is scaled. */
export const ia3Feedforward: Readonly<Record<string, readonly string[]>> = {
  gpt2: ["mlp.c_proj"],
  gpt_neox: ["dense_4h_to_h"],
  gemma: ["down_proj"],
  gemma2: ["down_proj"],
  gemma3_text: ["down_proj"],
  llama: ["down_proj"],
  mistral: ["down_proj"],
  phi: ["fc2"],
  qwen2: ["down_proj"],
  qwen3: ["down_proj"],
};

/** The modules of LN tuning, as PEFT has them. */
export const normTargets: Readonly<Record<string, readonly string[]>> = {
  gpt2: ["ln_1", "ln_2", "ln_f"],
  gemma: ["input_layernorm", "post_attention_layernorm", "norm"],
  gemma2: ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm", "norm"],
  gemma3_text: ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm", "norm"],
  llama: ["input_layernorm", "post_attention_layernorm", "norm"],
  mistral: ["input_layernorm", "post_attention_layernorm", "norm"],
  phi: ["input_layernorm", "final_layernorm"],
  qwen2: ["post_attention_layernorm"],
  qwen3: ["post_attention_layernorm"],
};

/**
 * The family's default targets, or for LoRA's those that the model says are usual. Throws NotApplicableError, listing the dense layers, where
 * neither has any.
 */
export function targetsFor(
  model: AdaptableModel,
  table: Readonly<Record<string, readonly string[]>> = defaultTargets,
  names: readonly string[] = layerSuffixes(model),
): readonly string[] {
  const type = modelType(model);
  const targets = familyNames(model, table);
  if (targets) return targets;
  if (table === defaultTargets && model.usualTargets && model.usualTargets.length > 0) return model.usualTargets;
  throw new NotApplicableError(
    `There are no default targets for ${type === null ? "this model" : `models of type "${type}"`}. Name some of its layers: ${names.join(", ")}.`,
    names,
  );
}

/** The usual targets of a model's own that an adapter is on because PEFT's table has none for the family; null where it is on others. */
export function borrowedTargets(
  model: AdaptableModel,
  { places }: { readonly places: ReadonlyMap<string, unknown> },
): readonly string[] | null {
  const { usualTargets = [] } = model;
  const isUsual = (name: string): boolean => usualTargets.some((target) => name === target || name.endsWith(`.${target}`));
  const isBorrowed = places.size > 0 && usualTargets.length > 0 && !familyNames(model, defaultTargets) && [...places.keys()].every(isUsual);
  return isBorrowed ? usualTargets : null;
}

/** The model's family's entry in a table of names; undefined where it has none. */
export function familyNames(model: AdaptableModel, table: Readonly<Record<string, readonly string[]>>): readonly string[] | undefined {
  const type = modelType(model);
  return type !== null && Object.hasOwn(table, type) ? table[type] : undefined;
}

/** The last parts of the dense layers' names, each once: what a person would pass as targets. */
export function layerSuffixes(model: AdaptableModel): string[] {
  return suffixesOf(denseLayers(model).keys());
}

/** The last parts of names, each once. */
export function suffixesOf(names: Iterable<string>): string[] {
  return [...new Set([...names].map((name) => name.slice(name.lastIndexOf(".") + 1)))];
}
