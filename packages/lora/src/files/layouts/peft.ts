import type { Json } from "@lowrank/tensor";
import type { AdapterLayout } from "./layout.js";
import { ownPaths } from "./own-paths.js";

/** What PEFT's wrappers are called in front of a module's path. */
export const modelPrefix = "base_model.model.";

/** Names of wrappers that training frameworks leave inside a module's path: torch.compile, FSDP, activation checkpointing. */
const frameworkParts = /(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)/g;
/** PEFT's own parameters, behind which a state that was saved without PEFT's function has the adapter's name. */
const named =
  /(^|\.)((?:lora|oft|vera|hada|lokr|miss)_\w+|ia3_l|prompt_embeddings|trainable_tokens_delta)\.(?!(?:weight|bias)$)[^.]+(?=$|\.(?:weight|bias)$)/;

/**
 * What a file may call a tensor besides its name of today: old versions of PEFT wrote the magnitude with a `.weight` behind, a state that was
 * saved without PEFT's own function keeps the adapter's name, and some tools leave out the names of PEFT's wrappers or have wrappers of their own.
 */
function spellings(key: string): readonly string[] {
  const plain = key
    .replace(frameworkParts, "")
    .replace(/^\.?(?:module\.)?/, "")
    .replace(named, "$1$2")
    .replace(/\.modules_to_save\.[^.]+(?=\.)/, "")
    .replace(/\.lora_magnitude_vector\.weight$/, ".lora_magnitude_vector");
  return [key, plain, `base_model.model.${plain.replace(/^base_model\.(?:model\.)?/, "")}`];
}

/** The names of an adapter's parameters behind a module's path, with the wrappers that PEFT puts around a module of several. */
const adapted =
  /(?:\.base_layer)*\.(?:(?:lora|oft|vera|hada|lokr|miss)_\w+|ia3_l|token_adapter\.trainable_tokens_delta)(?:\.(?:weight|bias))?$/;
/** Those of what is trained beside it. */
const whole = /(?:\.base_layer)?\.(?:weight|bias)$/;

/** What PEFT's wrapper of a module that is trained whole calls its biases, of the base's and of the copy's: with `bias` "all" they are in the file too. */
const wrapped = /\.(?:original_module|modules_to_save)\.bias$/;

/** The layout of PEFT's save_pretrained, and ours. */
export const peftLayout: AdapterLayout = {
  tensorsFile: "adapter_model.safetensors",
  isOf: () => true,
  read: ({ config, entries, modules }) => {
    // The base's bias is nobody's, and the copy's is there a second time under the module's own name.
    const isRepeated = (name: string): boolean => wrapped.test(name) && entries.has(name.replace(wrapped, ".bias"));
    const kept = [...entries.values()].filter(({ name }) => !isRepeated(name));
    const tensors = kept.map(({ name, shape }) => ({ key: name, shape, isTransposed: false, names: spellings(name) }));
    const targets = new Set(tensors.flatMap(({ names }) => pathBefore(adapted, names) ?? []));
    const others = tensors.flatMap(({ names }) => (pathBefore(adapted, names) === null ? (pathBefore(whole, names) ?? []) : []));
    const own = modules && ownPaths([...targets, ...others], new Set(modules.keys()));
    if (!own) return { config, tensors };
    const inModel = (name: string): string => (modules.has(own(name)) ? own(name) : name);
    return {
      config: withPaths(config, [...targets].map(own), inModel),
      tensors: tensors.map((tensor) => ({
        ...tensor,
        names: tensor.names.map((name) => (name.startsWith(modelPrefix) ? modelPrefix + own(name.slice(modelPrefix.length)) : name)),
      })),
    };
  },
};

/** The module's path in front of a parameter's name; null where the name does not end so. */
function pathBefore(end: RegExp, names: readonly string[]): string | null {
  const name = (names.at(-1) ?? "").slice(modelPrefix.length);
  const at = name.search(end);
  return at < 0 ? null : name.slice(0, at);
}

/** A configuration for the modules by their own paths: the tensors say which those are, whatever expression chose them once. */
function withPaths(config: Json, targets: readonly string[], own: (name: string) => string): Json {
  const { layers_to_transform: _layers, layers_pattern: _pattern, exclude_modules: _exclude, ...rest } = config;
  const changed = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map((entry) => (typeof entry === "string" ? own(entry) : entry));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, entry]) => [own(name), entry]));
  };
  const named = ["feedforward_modules", "modules_to_save", "rank_pattern", "alpha_pattern"].filter((name) => name in rest);
  return {
    ...rest,
    ...((config["target_modules"] ?? null) !== null && { target_modules: targets }),
    ...Object.fromEntries(named.map((name) => [name, changed(rest[name])])),
  };
}
