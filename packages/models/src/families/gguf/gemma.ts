import { sizeOf } from "@lowrank/tensor";
import type { GgufChange } from "./change.js";
import type { GgufKey, GgufTarget } from "./description.js";
import { activation, measuredIfAny, shortest } from "./keys.js";

/** What scores are scaled by, and by what llama.cpp scales them. */
interface ScoreConfig {
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly hidden_size: number;
  readonly head_dim: number;
  readonly query_pre_attn_scalar: number;
}

/** The caps that llama.cpp has where a file is silent, as those of before July 2024 are (llama-hparams.h). */
const usualCaps = { attn_logit_softcapping: 50, final_logit_softcapping: 30 } as const;

/**
 * A cap, absent where there is none. `none`: what llama.cpp does with a file without: it has no cap either, or one of its own unless the file says
 * 0, or always one.
 */
export function softcap(name: keyof typeof usualCaps, none: "absent" | "zero" | "never" = "absent"): GgufKey {
  const { write } = measuredIfAny(name, name);
  return {
    read: (file) => {
      const value = file.number(name, none === "absent" ? 0 : usualCaps[name]);
      return { [name]: value === 0 ? null : shortest(value) };
    },
    write: (config) => (none === "zero" && config[name] === null ? { [name]: { type: "f32", value: 0 } } : write(config)),
    refuses: (config) => (none === "never" && config[name] === null ? `"${name}" is null` : null),
  };
}

/** The same activation under both names: the first files say "gelu" and mean its approximation. */
export const gelu: GgufKey<{ readonly hidden_act: string }> = {
  read: () => ({ hidden_act: "gelu_pytorch_tanh" }),
  write: () => ({}),
  refuses: ({ hidden_act: given }) => (/^gelu(_pytorch_tanh)?$/.test(given) ? null : `"hidden_act" is "${given}"`),
};

/** llama.cpp takes a head's size, but for the largest model, which it knows by its number of layers, the width over the heads. */
function usualScalar(largest: number, config: Omit<ScoreConfig, "query_pre_attn_scalar">): number {
  const { num_hidden_layers: layers, hidden_size: width, num_attention_heads: heads, head_dim: headDim } = config;
  return layers === largest ? width / heads : headDim;
}

/** `query_pre_attn_scalar`, of which no file says anything. */
export function queryScalar(largest: number): GgufKey {
  return {
    read: (file) => ({
      query_pre_attn_scalar: usualScalar(largest, {
        num_hidden_layers: file.layerCount(),
        num_attention_heads: file.count("attention.head_count"),
        hidden_size: file.count("embedding_length"),
        head_dim: file.count("attention.key_length"),
      }),
    }),
    write: () => ({}),
  };
}

/** What queries are multiplied by in a file, so that llama.cpp's scale gives the scores that the config's gives: √(usual / scalar). */
export function queryScale(config: ScoreConfig, largest: number): number {
  return Math.sqrt(usualScalar(largest, config) / config.query_pre_attn_scalar);
}

/** A target whose numbers are multiplied in the file. */
export function multiplied(target: GgufTarget, by: number): GgufTarget {
  if (by === 1) return target;
  return (parameter) => {
    const made =
      typeof target === "string" ? { tensors: [{ name: `${target}.${parameter.suffix}`, shape: parameter.shape }] } : target(parameter);
    const scale: GgufChange = { kind: "scale", by: [by], runs: [sizeOf(parameter.shape)] };
    return { ...made, changes: [scale, ...(made.changes ?? [])] };
  };
}

/** The activation of all that llama.cpp has. */
export const geluTanh: GgufKey<{ readonly hidden_activation: string }> = activation("hidden_activation", "gelu_pytorch_tanh");
