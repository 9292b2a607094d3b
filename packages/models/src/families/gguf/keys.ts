import type { GgufField, GgufKey } from "./description.js";
import type { GgufReader } from "./facts.js";

type Json = Readonly<Record<string, unknown>>;

/** A number under a field's name; null and what is absent are not written. */
function field(config: Json, name: string, type: "u32" | "f32"): GgufField | null {
  const value = config[name];
  return typeof value === "number" ? { type, value } : null;
}

/** A whole number that has to be there, under another name. */
export function counted(key: string, name: string): GgufKey {
  return { read: (file) => ({ [name]: file.count(key) }), write: (config) => ({ [key]: field(config, name, "u32") }) };
}

/** A whole number that may be absent: null then. */
export function countedIfAny(key: string, name: string): GgufKey {
  return { read: (file) => ({ [name]: file.count(key, undefined) ?? null }), write: (config) => ({ [key]: field(config, name, "u32") }) };
}

/** A float that has to be there. */
export function measured(key: string, name: string): GgufKey {
  return { read: (file) => ({ [name]: shortest(file.number(key)) }), write: (config) => ({ [key]: field(config, name, "f32") }) };
}

/** A float that may be absent. */
export function measuredIfAny(key: string, name: string): GgufKey {
  return {
    read: (file) => {
      const value = file.number(key, undefined);
      return { [name]: value === undefined ? undefined : shortest(value) };
    },
    write: (config) => ({ [key]: field(config, name, "f32") }),
  };
}

/** What the converter writes and nothing is read of: the file says it elsewhere too. */
export function written<Config = Json>(key: string, write: (config: Config) => GgufField | null): GgufKey<Config> {
  return {
    read: (file) => {
      file.has(key);
      return {};
    },
    write: (config) => ({ [key]: write(config) }),
  };
}

/** The shortest decimal that is the same number in f32: files hold 1e-5 so. */
export function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return short;
  }
  return value;
}

/** How many layers there are, without those that only foretell tokens. */
export function layerCount(name: string): GgufKey {
  return { read: (file) => ({ [name]: file.layerCount() }), write: (config) => ({ block_count: field(config, name, "u32") }) };
}

/** How many heads there are. */
export function headCount(name: string): GgufKey {
  return {
    read: (file) => ({ [name]: file.fewCount("attention.head_count") }),
    write: (config) => ({ "attention.head_count": field(config, name, "u32") }),
  };
}

/** What every architecture has, but for norms and positions. */
export const sizeKeys: readonly GgufKey[] = [
  layerCount("num_hidden_layers"),
  counted("context_length", "max_position_embeddings"),
  counted("embedding_length", "hidden_size"),
  counted("feed_forward_length", "intermediate_size"),
  headCount("num_attention_heads"),
  {
    read: (file) => {
      // Said in any case: families differ in what they take where a config.json does not say.
      if (!file.has("attention.head_count_kv")) return { num_key_value_heads: file.fewCount("attention.head_count") };
      const heads = new Set(file.perLayer("attention.head_count_kv", file.layerCount()));
      const [first] = heads;
      if (heads.size === 1) return { num_key_value_heads: first };
      throw file.wrong("attention.head_count_kv", [...heads], "the same number for all layers, as this family has it");
    },
    write: (config) => ({ "attention.head_count_kv": field(config, "num_key_value_heads", "u32") }),
  },
];

/** The size of a head, where it is not the width over the heads. */
export const headDim: GgufKey = {
  read: (file) => {
    const [keys, values] = [file.count("attention.key_length", undefined), file.count("attention.value_length", undefined)];
    if (keys !== values)
      throw file.wrong("attention.value_length", values, `${keys}, as keys have: heads of two sizes are not read for this family`);
    return { head_dim: keys };
  },
  write: (config) => ({
    "attention.key_length": field(config, "head_dim", "u32"),
    "attention.value_length": field(config, "head_dim", "u32"),
  }),
};

/** Of architectures whose files llama.cpp loads only where the embedding is the head. */
export const tiedHead: GgufKey = {
  read: () => ({}),
  write: () => ({}),
  notes: ({ tie_word_embeddings: isTied }) =>
    isTied ? null : "The head has weights of its own: llama.cpp loads no such file of this family, whose embedding is the head there.",
};

/** Of architectures whose files llama.cpp loads only where the heads of queries together are as wide as the model. */
export const squareHeads: GgufKey = {
  read: () => ({}),
  write: () => ({}),
  notes: ({ head_dim: dim, num_attention_heads: heads, hidden_size: width }) =>
    typeof dim !== "number" || dim * Number(heads) === width
      ? null
      : `The ${heads} heads of ${dim} are not as wide as the model, ${width}: llama.cpp loads no such file of this family.`,
};

export const rmsEpsilon: GgufKey = measured("attention.layer_norm_rms_epsilon", "rms_norm_eps");
export const layerEpsilon: GgufKey = measured("attention.layer_norm_epsilon", "layer_norm_eps");

/**
 * Biases by the tensors that are there: a field, and the tensor of a layer that shows it. `loaded`: with which files llama.cpp's loader of the family
 * ends without an error, where it does not take both kinds.
 */
export function biasField(name: string, tensor: string, loaded: "both" | "with" | "without" = "both"): GgufKey {
  return {
    read: (file) => ({ [name]: file.someLayerHas(tensor) }),
    write: () => ({}),
    notes: ({ [name]: has }) =>
      loaded === "both" || has === (loaded === "with")
        ? null
        : `"${name}" is ${has}: llama.cpp loads no file of this family ${has ? "with" : "without"} these biases.`,
  };
}

/** Of every file: the vocabulary's size, and whether the head has weights of its own. */
export function vocabulary(file: GgufReader): Json {
  const shape = file.shape("token_embd.weight");
  if (!shape) throw file.error('there is no tensor "token_embd.weight".', "Give a file that holds a whole language model.");
  // What a file without a tokenizer says of every architecture; the tensor says it too.
  file.has("vocab_size");
  const ids = ["eos", "eot", "eom"].map((name) => file.facts.metadata.get(`tokenizer.ggml.${name}_token_id`)).filter(Number.isSafeInteger);
  const [ends, first] = [[...new Set(ids)], file.facts.metadata.get("tokenizer.ggml.bos_token_id")];
  return {
    vocab_size: shape[0] ?? 0,
    tie_word_embeddings: file.shape("output.weight") === null,
    ...(ends.length > 0 && { eos_token_id: ends.length === 1 ? ends[0] : ends }),
    ...(Number.isSafeInteger(first) && { bos_token_id: first }),
  };
}

/** The vocabulary's size as metadata, which some architectures have. */
export const vocabSize: GgufKey = written("vocab_size", (config: Json) => field(config, "vocab_size", "u32"));

/** What Llama has, and most families after it, but for positions. */
export const llamaKeys: readonly GgufKey[] = [...sizeKeys, headDim, rmsEpsilon];

/** Fields that are the same in every file of an architecture. */
export function fixed(fields: Json): GgufKey {
  return { read: () => fields, write: () => ({}) };
}

/** The activation that llama.cpp has for an architecture. */
export function activation<Name extends string>(name: Name, usual: string): GgufKey<Readonly<Record<Name, string>>> {
  return {
    read: () => ({ [name]: usual }),
    write: () => ({}),
    refuses: ({ [name]: given }) => (given === usual ? null : `"${name}" is "${given}", where llama.cpp takes "${usual}"`),
  };
}

/** Gated by SiLU, as most are. */
export const silu: GgufKey<{ readonly hidden_act: string }> = activation("hidden_act", "silu");

/** What logits are multiplied by, under Cohere's name. */
export const logitScale: GgufKey<{ readonly logit_scale: number | null }> = {
  read: (file) => ({ logit_scale: shortest(file.number("logit_scale", 1)) }),
  write: ({ logit_scale: scale }) => ({ logit_scale: { type: "f32", value: scale ?? 0.0625 } }),
};

/** Granite's multipliers. */
export const graniteScales: readonly GgufKey[] = [
  measured("attention.scale", "attention_multiplier"),
  measuredIfAny("embedding_scale", "embedding_multiplier"),
  measuredIfAny("residual_scale", "residual_multiplier"),
  measuredIfAny("logit_scale", "logits_scaling"),
];

/** Sizes that the converter writes of Phi's config otherwise than the tensors have them: those of the tensors. */
export const sizesByTensors: GgufKey = {
  read: (file) => {
    const [up, keys] = [file.shape("blk.0.ffn_up.weight"), file.shape("blk.0.attn_k.weight")];
    const headDim = file.count("embedding_length") / file.count("attention.head_count");
    return { intermediate_size: up?.[0], num_key_value_heads: keys ? (keys[0] ?? 0) / headDim : undefined };
  },
  write: () => ({}),
};

/** A truth value; that of the config where the file has none is its default. */
export function flagged(key: string, name: string): GgufKey {
  return {
    read: (file) => ({ [name]: file.flag(key, undefined) }),
    write: (config) => ({ [key]: typeof config[name] === "boolean" ? { type: "bool", value: config[name] } : null }),
  };
}

/** Keys that a file may have and that change nothing. */
export function ignoredKeys(...keys: readonly string[]): GgufKey {
  return {
    read: (file) => {
      for (const key of keys) file.has(key);
      return {};
    },
    write: () => ({}),
  };
}
