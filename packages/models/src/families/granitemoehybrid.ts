import { experts } from "../decoder/experts.js";
import type { FeedForward } from "../decoder/feed-forward.js";
import { feedForward } from "../decoder/feed-forward.js";
import type { NamedPart } from "../decoder/layer.js";
import { mamba } from "../decoder/mamba.js";
import { feedForwardsTogether } from "../decoder/together.js";
import { choice, count, field, flag, positive } from "../schema.js";
import { type Checked, defineFamily, type Family } from "./family.js";
import { layerTypes, only, rotary, sizes } from "./fields.js";
import { timeStepLimit } from "./mamba.js";
import { readRope } from "./rope.js";
import { decoderNamed, headRules, normsInFront, rmsNorm, selfAttention } from "./standard.js";

const whole = (fallback: number) =>
  field<number>("a whole number of at least 0", (value) => Number.isSafeInteger(value) && (value as number) >= 0, fallback);

const fields = {
  ...sizes,
  ...rotary,
  attention_bias: flag(false),
  embedding_multiplier: positive(1),
  logits_scaling: positive(1),
  residual_multiplier: positive(1),
  attention_multiplier: positive(1),
  num_local_experts: whole(8),
  num_experts_per_tok: whole(2),
  shared_intermediate_size: count(1024),
  position_embedding_type: choice(["rope", "nope"]),
  layer_types: layerTypes(["mamba", "linear_attention", "attention", "full_attention"]),
  mamba_n_heads: count(128),
  mamba_n_groups: count(1),
  mamba_d_state: count(256),
  mamba_d_head: field<number | "auto">(
    'a positive integer or "auto"',
    (value) => value === "auto" || (Number.isSafeInteger(value) && Number(value) > 0),
    "auto",
  ),
  mamba_d_conv: count(4),
  mamba_expand: count(2),
  mamba_chunk_size: count(256),
  mamba_conv_bias: flag(true),
  mamba_proj_bias: flag(false),
  time_step_limit: timeStepLimit(),
  output_router_logits: only(false),
};
type Config = Checked<typeof fields>;

/** Granite 4's hybrids (IBM 2025): transformers' GraniteMoeHybridForCausalLM. */
export const granitemoehybrid: Family = defineFamily({
  className: "GraniteMoeHybridForCausalLM",
  fields,
  rules: [
    ...headRules,
    ({ num_local_experts: experts, num_experts_per_tok: choices }) =>
      choices <= experts ? null : `"num_experts_per_tok" ${choices} is more than "num_local_experts" ${experts}`,
  ],
  prefixes: [["", "model."]],
  remarks: ["normalization_function", "init_method", "rope_type"],
  decoder: (config, path) => {
    const norm = rmsNorm(config);
    const { attention_bias: has, layer_types: types } = config;
    const rope = config.position_embedding_type === "rope" ? readRope(config, path) : null;
    const attention = selfAttention(config, { rope, scale: config.attention_multiplier, bias: { q: has, k: has, v: has, out: has } });
    return decoderNamed(
      config,
      norm,
      (layer) => ({
        mixer: /mamba|linear/.test(types?.[layer] ?? "mamba") ? mambaOf(config) : attention,
        feedForward: feedForwardOf(config),
        norm,
        norms: normsInFront,
        residualScale: config.residual_multiplier,
      }),
      { embedding: { scale: config.embedding_multiplier }, head: { scale: 1 / config.logits_scaling } },
    );
  },
});

function mambaOf(config: Config) {
  const { mamba_n_heads: heads, mamba_proj_bias: bias, rms_norm_eps: eps, mamba_d_head: given } = config;
  return {
    name: "mamba",
    part: mamba({
      heads,
      headDim: given === "auto" ? (config.mamba_expand * config.hidden_size) / heads : given,
      stateDim: config.mamba_d_state,
      groups: config.mamba_n_groups,
      convSize: config.mamba_d_conv,
      bias: { conv: config.mamba_conv_bias, in: bias, out: bias },
      activation: config.hidden_act,
      chunk: config.mamba_chunk_size,
      timeStepLimit: config.time_step_limit,
      norm: { eps, groups: 1, isBeforeGate: false },
    }),
  };
}

/** The shared layer, and experts beside it where there are any. */
function feedForwardOf(config: Config): NamedPart<FeedForward> {
  const { hidden_act: activation, num_local_experts: number, num_experts_per_tok: choices } = config;
  const names = { gateUp: "input_linear", down: "output_linear" };
  const shared = { name: "shared_mlp", part: feedForward({ inner: config.shared_intermediate_size, activation, names }) };
  if (number === 0) return shared;
  const sparse = experts({
    count: number,
    inner: config.intermediate_size,
    activation: { kind: "gated", activation },
    stored: { kind: "stacked", isTransposed: false, bias: false, names: { up: "input_linear.weight", down: "output_linear.weight" } },
    router: { name: "router", stored: "layer.weight" },
    routing: { kind: "softmaxOfChosen", choices, isNormalized: true },
  });
  return feedForwardsTogether([shared, { name: "block_sparse_moe", part: sparse }]);
}
