import type { GgufTarget, GgufTargets } from "./description.js";

// What llama.cpp's converter does to single parameters. https://github.com/ggml-org/llama.cpp/tree/master/conversion

/** Names of most families' layers. */
export const llamaNames: GgufTargets = {
  input_layernorm: "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  post_attention_layernorm: "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};

/** Queries and keys normed per head or over all. */
export const queryKeyNorms: GgufTargets = { "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm" };

/** The sizes by which rows of queries and keys move. */
interface Heads {
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number | null;
}

/** Queries and keys whose pairs are halves of a head in the model, and neighbours in the file: LlamaModel.permute. */
export function neighbours({ num_attention_heads: heads, num_key_value_heads: kvHeads }: Heads): GgufTargets {
  return { "self_attn.q_proj": pairsBeside("attn_q", heads), "self_attn.k_proj": pairsBeside("attn_k", kvHeads ?? heads) };
}

/** [heads, pairs, 2, in] in the file, [heads, 2, pairs, in] in the model. */
function pairsBeside(name: string, heads: number): GgufTarget {
  return ({ shape, suffix }) => {
    const [rows = 0, columns = 1] = shape;
    return {
      tensors: [{ name: `${name}.${suffix}`, shape }],
      changes: [{ kind: "axes", view: [heads, rows / heads / 2, 2, columns], axes: [0, 2, 1, 3] }],
    };
  };
}

/** Queries, keys and values in tensors of their own, or, in some files, all in one: queries, then keys, then values. */
export function perhapsFused({ num_attention_heads: heads, num_key_value_heads: kvHeads }: Heads): GgufTargets {
  const part = (name: string, own: number): GgufTarget => {
    return ({ shape: [rows = 0, ...columns], suffix }) => ({
      tensors: [{ name: `${name}.${suffix}`, shape: [rows, ...columns] }],
      instead: {
        tensors: [{ name: `attn_qkv.${suffix}`, shape: [(rows / own) * (heads + 2 * (kvHeads ?? heads)), ...columns] }],
        isShared: true,
      },
    });
  };
  return {
    "self_attn.q_proj": part("attn_q", heads),
    "self_attn.k_proj": part("attn_k", kvHeads ?? heads),
    "self_attn.v_proj": part("attn_v", kvHeads ?? heads),
  };
}

/** Norms that multiply by 1 + w: the file has the whole factor. */
export function onePlus(name: string): GgufTarget {
  return ({ shape, suffix }) => ({ tensors: [{ name: `${name}.${suffix}`, shape }], changes: [{ kind: "add", value: -1 }] });
}

/** The same tensors, each norm among them as `onePlus` says. */
export function normsOnePlus(targets: GgufTargets): GgufTargets {
  const isNorm = (target: GgufTarget): target is string => typeof target === "string" && /_norm$/.test(target);
  return Object.fromEntries(Object.entries(targets).map(([name, target]) => [name, isNorm(target) ? onePlus(target) : target]));
}

/** Norms around both sublayers, as Gemma has them. */
export const normsAroundNames: GgufTargets = {
  post_attention_layernorm: "post_attention_norm",
  pre_feedforward_layernorm: "ffn_norm",
  post_feedforward_layernorm: "post_ffw_norm",
};

/** Norms behind both sublayers. */
export const normsBehindNames: GgufTargets = {
  post_attention_layernorm: "post_attention_norm",
  post_feedforward_layernorm: "post_ffw_norm",
};

/** A convolution's kernels without the axis of one channel. */
export function squeezed(name: string): GgufTarget {
  return ({ shape, suffix }) => {
    const kept = suffix === "weight" ? [shape[0] ?? 0, shape[2] ?? 1] : shape;
    return { tensors: [{ name: `${name}.${suffix}`, shape: kept }] };
  };
}

/** A weight [in, out] in the model, [out, in] in the file. */
export function transposed(name: string): GgufTarget {
  return ({ shape, suffix }) => {
    const tensor = `${name}.${suffix}`;
    const [rows = 0, columns = 0] = shape;
    if (suffix !== "weight") return { tensors: [{ name: tensor, shape }] };
    return { tensors: [{ name: tensor, shape: [columns, rows] }], changes: [{ kind: "axes", view: [columns, rows], axes: [1, 0] }] };
  };
}

/** Queries, keys and values of a head beside each other in the model; in the file all queries, all keys, all values. */
export function partsApart(name: string, heads: number): GgufTarget {
  return ({ shape, suffix }) => {
    const [rows = 0, columns = 1] = shape;
    return {
      tensors: [{ name: `${name}.${suffix}`, shape }],
      changes: [{ kind: "axes", view: [3, heads, rows / heads / 3, columns], axes: [1, 0, 2, 3] }],
    };
  };
}

/** One of several parameters that lie in one tensor, a row each. */
export function stacked(name: string, count: number): GgufTarget {
  return ({ shape, suffix }) => ({ tensors: [{ name: `${name}.${suffix}`, shape: [count, ...shape] }] });
}
