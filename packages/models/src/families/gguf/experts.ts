import type { Shape } from "@lowrank/tensor";
import type { StoredPiece } from "../../parameters.js";
import type { GgufField, GgufKey, GgufTarget, GgufTargets, GgufTensors } from "./description.js";
import { counted } from "./keys.js";

/** How many experts there are, under the first of these fields that a config has, and how many a token goes through. */
export function expertKeys(...counts: readonly [string, ...string[]]): readonly GgufKey[] {
  const [name] = counts;
  return [
    {
      read: (file) => ({ [name]: file.fewCount("expert_count") }),
      write: (config) => {
        const value = counts.map((count) => config[count]).find((count) => typeof count === "number");
        return { expert_count: typeof value === "number" ? { type: "u32", value } : null };
      },
    },
    counted("expert_used_count", "num_experts_per_tok"),
  ];
}

/** The width of an expert. */
export const expertWidth: GgufKey = counted("expert_feed_forward_length", "moe_intermediate_size");

/**
 * Groups of experts, and from how many of them a token chooses. Where that is from all, there is one: llama.cpp ends its process over a file that says
 * otherwise (GGML_ASSERT in llama-model.cpp).
 */
export const groupKeys: GgufKey = {
  read: (file) => ({ n_group: file.count("expert_group_count"), topk_group: file.count("expert_group_used_count") }),
  write: ({ n_group: count, topk_group: chosen }) => {
    const field = (value: unknown): GgufField => ({ type: "u32", value: chosen === count ? 1 : Number(value) });
    return { expert_group_count: field(count), expert_group_used_count: field(chosen) };
  },
};

/** Stacked experts and their router, below the name of a layer's mixture: gates and ups are tensors of their own, or one. */
export function expertNames(name: string, router = "gate"): GgufTargets {
  return {
    [`${name}.${router}`]: "ffn_gate_inp",
    [`${name}.experts.gate_up_proj`]: gatesAndUps,
    [`${name}.experts.up_proj`]: expertStack("up"),
    [`${name}.experts.down_proj`]: expertStack("down"),
  };
}

/** [experts, out, in] in one tensor; in old files one for each expert. */
function expertStack(part: "up" | "down"): GgufTarget {
  return ({ shape }) => ({
    tensors: [{ name: `ffn_${part}_exps.weight`, shape }],
    instead: { tensors: eachExpert(part, shape) },
  });
}

/** The tensors of single experts, as files were before April 2024. */
function eachExpert(part: "gate" | "up" | "down", [experts = 1, ...shape]: Shape): readonly StoredPiece[] {
  return Array.from({ length: experts }, (_, expert) => ({ name: `ffn_${part}.${expert}.weight`, shape }));
}

/** A feed-forward layer beside the experts. */
export function sharedExpert(name: string): GgufTargets {
  return {
    [`${name}.gate_proj`]: "ffn_gate_shexp",
    [`${name}.up_proj`]: "ffn_up_shexp",
    [`${name}.down_proj`]: "ffn_down_shexp",
  };
}

/** [experts, 2 · inner, in]: all gates of an expert in front of its ups. */
const gatesAndUps: GgufTarget = ({ shape }) => {
  const [experts = 1, wide = 0, columns = 1] = shape;
  const half = [experts, wide / 2, columns];
  const apart: GgufTensors = {
    tensors: [
      { name: "ffn_gate_exps.weight", shape: half },
      { name: "ffn_up_exps.weight", shape: half },
    ],
    changes: [{ kind: "axes", view: [2, experts, wide / 2, columns], axes: [1, 0, 2, 3] }],
  };
  const each: GgufTensors = { ...apart, tensors: [...eachExpert("gate", half), ...eachExpert("up", half)] };
  return { ...apart, instead: { tensors: [{ name: "ffn_gate_up_exps.weight", shape }], instead: each } };
};

/** Experts [experts, in, out] in the model, gates and ups of which alternate; [experts, out, in] in the file, gates and ups apart. */
export function transposedExperts(name: string, router: string): GgufTargets {
  return {
    [`${name}.${router}`]: "ffn_gate_inp",
    [`${name}.experts.gate_up_proj`]: ({ shape: [experts = 1, columns = 1, wide = 0] }) => ({
      tensors: ["gate", "up"].map((part) => ({ name: `ffn_${part}_exps.weight`, shape: [experts, wide / 2, columns] })),
      changes: [{ kind: "axes", view: [2, experts, wide / 2, columns], axes: [1, 3, 2, 0] }],
    }),
    [`${name}.experts.gate_up_proj_bias`]: ({ shape: [experts = 1, wide = 0] }) => ({
      tensors: ["gate", "up"].map((part) => ({ name: `ffn_${part}_exps.bias`, shape: [experts, wide / 2] })),
      changes: [{ kind: "axes", view: [2, experts, wide / 2], axes: [1, 2, 0] }],
    }),
    [`${name}.experts.down_proj`]: ({ shape: [experts = 1, inner = 0, width = 0] }) => ({
      tensors: [{ name: "ffn_down_exps.weight", shape: [experts, width, inner] }],
      changes: [{ kind: "axes", view: [experts, width, inner], axes: [0, 2, 1] }],
    }),
    [`${name}.experts.down_proj_bias`]: "ffn_down_exps.bias",
  };
}
