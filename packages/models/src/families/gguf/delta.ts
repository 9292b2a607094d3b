import type { RopeOptions } from "../../decoder/rope.js";
import type { GgufChange } from "./change.js";
import type { GgufField, GgufKey, GgufTarget, GgufTargets } from "./description.js";
import { squeezed } from "./targets.js";

const u32 = (value: number): GgufField => ({ type: "u32", value });

/** What llama.cpp adds where queries and keys get length 1. */
export interface NetLength {
  readonly rms_norm_eps: number;
}

/** Sizes of gated delta nets, under Qwen's names. */
export interface DeltaConfig extends NetLength {
  readonly num_hidden_layers: number;
  readonly linear_num_key_heads: number;
  readonly linear_key_head_dim: number;
  readonly linear_num_value_heads: number;
  readonly linear_value_head_dim: number;
  readonly linear_conv_kernel_dim: number;
}

/** What is added to the squares where queries and keys get length 1 (l2norm of transformers' modeling_qwen3_next.py). */
const lengthEpsilon = 1e-6;

/** The nets' sizes, and which layers have attention: every so many. `isLinear` is what a family says of a layer. */
export function deltaKeys<Config extends DeltaConfig>(isLinear: (config: Config, layer: number) => boolean): GgufKey<Config> {
  const interval = (config: Config): number | null => {
    const linear = Array.from({ length: config.num_hidden_layers }, (_, layer) => isLinear(config, layer));
    const every = linear.indexOf(false) < 0 ? linear.length + 1 : linear.indexOf(false) + 1;
    return linear.every((is, layer) => is === ((layer + 1) % every !== 0)) ? every : null;
  };
  return {
    read: (file) => {
      const [heads, inner] = [file.count("ssm.time_step_rank"), file.count("ssm.inner_size")];
      if (heads === 0 || inner % heads !== 0) throw file.wrong("ssm.inner_size", inner, `a multiple of the ${heads} heads`);
      file.count("full_attention_interval", 4);
      const layers = file.layerCount();
      return {
        linear_conv_kernel_dim: file.count("ssm.conv_kernel"),
        linear_key_head_dim: file.count("ssm.state_size"),
        linear_num_key_heads: file.count("ssm.group_count"),
        linear_num_value_heads: heads,
        linear_value_head_dim: inner / heads,
        layer_types: Array.from({ length: layers }, (_, layer) =>
          file.shape(`blk.${layer}.ssm_a`) === null ? "full_attention" : "linear_attention",
        ),
      };
    },
    write: (config) => ({
      "ssm.conv_kernel": u32(config.linear_conv_kernel_dim),
      "ssm.state_size": u32(config.linear_key_head_dim),
      "ssm.group_count": u32(config.linear_num_key_heads),
      "ssm.time_step_rank": u32(config.linear_num_value_heads),
      "ssm.inner_size": u32(config.linear_num_value_heads * config.linear_value_head_dim),
      full_attention_interval: u32(interval(config) ?? 4),
    }),
    refuses: (config) => (interval(config) === null ? "layers with attention do not return every so many" : null),
    notes: ({ linear_key_head_dim: keys, linear_value_head_dim: values, rms_norm_eps: eps }) => {
      if (keys !== values)
        return `Heads of values are ${values} wide and those of keys ${keys}: llama.cpp loads no such file of this family.`;
      return eps === lengthEpsilon
        ? null
        : `Queries and keys of delta nets have length 1, with ${lengthEpsilon} against a division by 0, and in llama.cpp with "rms_norm_eps", ${eps}: its answers differ, a little.`;
    },
  };
}

/** What both forms of the net share, in the order of heads that `Qwen3-Next` has. */
const netNames: GgufTargets = {
  "linear_attn.conv1d": squeezed("ssm_conv1d"),
  "linear_attn.dt_bias": "ssm_dt.bias",
  "linear_attn.A_log": ({ shape }) => ({ tensors: [{ name: "ssm_a", shape }], changes: [{ kind: "logOfNegative" }] }),
  "linear_attn.norm": "ssm_norm",
  "linear_attn.out_proj": "ssm_out",
};

/**
 * The net with fused projections: rows of a key head's queries, keys, values and gates beside each other in the model; all queries, all keys and all
 * values in one tensor of the file, the gates in another. Older files have them as the model does.
 */
export function fusedNet(config: DeltaConfig): GgufTargets {
  const { linear_num_key_heads: heads, linear_key_head_dim: keyDim } = config;
  const valueRows = (config.linear_num_value_heads / heads) * config.linear_value_head_dim;
  return {
    ...netNames,
    "linear_attn.in_proj_ba": "ssm_ba",
    "linear_attn.in_proj_qkvz": ({ shape }) => {
      const columns = shape[1] ?? 1;
      const rows = [keyDim, keyDim, valueRows, valueRows];
      const starts = rows.map((_, part) => rows.slice(0, part).reduce((sum, count) => sum + heads * count, 0));
      const order = new Int32Array(shape[0] ?? 0);
      for (let head = 0, at = 0; head < heads; head++)
        rows.forEach((count, part) => {
          for (let row = 0; row < count; row++) order[at++] = (starts[part] ?? 0) + head * count + row;
        });
      return {
        tensors: [
          { name: "attn_qkv.weight", shape: [starts[3] ?? 0, columns] },
          { name: "attn_gate.weight", shape: [heads * valueRows, columns] },
        ],
        changes: [{ kind: "units", width: columns, order }],
        instead: { tensors: [{ name: "ssm_in.weight", shape }] },
      };
    },
  };
}

/** The net with projections apart, whose value heads stand by key heads in the model; in the file the first of all key heads, then the second. */
export function netApart(config: DeltaConfig): GgufTargets {
  const { linear_num_key_heads: heads, linear_num_value_heads: valueHeads, linear_key_head_dim: keyDim } = config;
  const [each, valueDim, keyRows] = [valueHeads / heads, config.linear_value_head_dim, 2 * heads * keyDim];
  const grouped = (size: number, from?: number): GgufChange => ({
    kind: "axes",
    view: [each, heads, size],
    axes: [1, 0, 2],
    ...(from !== undefined && { from }),
  });
  const rows =
    (name: string, size: number, first = 0): GgufTarget =>
    ({ shape: [count = 0, columns = 1], suffix }) => ({
      tensors: [{ name: `${name}.${suffix}`, shape: [count, columns] }],
      changes: [grouped(size * columns, first === 0 ? undefined : first * columns)],
    });
  return {
    ...netNames,
    "linear_attn.in_proj_qkv": rows("attn_qkv", valueDim, keyRows),
    "linear_attn.in_proj_z": rows("attn_gate", valueDim),
    "linear_attn.in_proj_b": rows("ssm_beta", 1),
    "linear_attn.in_proj_a": rows("ssm_alpha", 1),
    "linear_attn.conv1d": ({ shape: [count = 0, , size = 1] }) => ({
      tensors: [{ name: "ssm_conv1d.weight", shape: [count, size] }],
      changes: [grouped(valueDim * size, keyRows * size)],
    }),
    "linear_attn.dt_bias": ({ shape }) => ({ tensors: [{ name: "ssm_dt.bias", shape }], changes: [grouped(1)] }),
    "linear_attn.A_log": ({ shape }) => ({ tensors: [{ name: "ssm_a", shape }], changes: [{ kind: "logOfNegative" }, grouped(1)] }),
    "linear_attn.out_proj": ({ shape }) => ({
      tensors: [{ name: "ssm_out.weight", shape }],
      changes: [{ kind: "axes", view: [shape[0] ?? 0, each, heads, valueDim], axes: [0, 2, 1, 3] }],
    }),
  };
}

/** What stands beside the nets: the norm in front of the feed-forward under another name than Llama's. */
export const gatedNames: GgufTargets = { post_attention_layernorm: "post_attention_norm" };

/**
 * Which pairs of a head turn by which of a token's positions: in a text all three are one. llama.cpp takes every third pair for each, up to three times the
 * section's size, and turns those behind by no position at all (ggml_mrope_cache_init); it ends its process over more pairs than turn. Sizes that leave none
 * behind are these, whatever `mrope_section` says: 11, 11 and 10 of the 32 that the published models have.
 */
export function sections<Config>(rope: (config: Config, path: string) => RopeOptions): GgufKey<Config> {
  return {
    read: (file) => {
      file.has("rope.dimension_sections");
      return {};
    },
    write: (config) => {
      const pairs = rope(config, "config.json").dims / 2;
      return {
        "rope.dimension_sections": { type: "i32[]", value: [2, 1, 0, -1].map((more) => (more < 0 ? 0 : Math.floor((pairs + more) / 3))) },
      };
    },
  };
}
