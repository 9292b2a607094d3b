import { activationNames } from "../activation.js";
import { experts } from "../decoder/experts.js";
import { feedForward } from "../decoder/feed-forward.js";
import { mamba } from "../decoder/mamba.js";
import type { Mixer, Part } from "../decoder/mixer.js";
import { asMixer } from "../decoder/together.js";
import { choice, count, countOrNull, field, flag, positive } from "../schema.js";
import { type Checked, defineFamily, type Family } from "./family.js";
import { layerTypes, sizes, withDefaults } from "./fields.js";
import { expertKeys, expertWidth, groupKeys } from "./gguf/experts.js";
import { biasField, counted, headDim, vocabSize, written } from "./gguf/keys.js";
import { convZeros, type SsmSizes, ssmKeys } from "./gguf/mamba.js";
import { choiceKeys, layerKindKeys, nemotronEpsilon, nemotronExperts, nemotronLayer, nemotronNames } from "./gguf/nemotron.js";
import { groupedRouting, groupsFit, routingOf } from "./mixture.js";
import { headRules, selfAttention } from "./standard.js";

const usual = { vocab_size: 131072, num_attention_heads: 32, num_key_value_heads: 8, max_position_embeddings: 4096 };
const { rms_norm_eps: _eps, hidden_act: _act, num_hidden_layers: _layers, ...own } = withDefaults(sizes, usual);
const kinds = ["linear_attention", "mamba", "full_attention", "attention", "mlp", "moe"] as const;

const fields = {
  ...own,
  head_dim: count(128),
  layer_norm_epsilon: positive(1e-5),
  hybrid_override_pattern: field<string | null>(
    "a text of M, E, * and -",
    (value) => value === null || (typeof value === "string" && /^[ME*-]+$/.test(value)),
    null,
  ),
  layers_block_type: layerTypes(kinds),
  layer_types: layerTypes(kinds),
  mlp_hidden_act: choice(activationNames, "relu2"),
  mlp_bias: flag(false),
  ssm_state_size: count(128),
  mamba_num_heads: count(128),
  mamba_head_dim: count(64),
  mamba_hidden_act: choice(activationNames, "silu"),
  n_groups: count(8),
  conv_kernel: count(4),
  chunk_size: count(128),
  use_conv_bias: flag(true),
  use_bias: flag(false),
  time_step_min: positive(0.001),
  n_routed_experts: countOrNull(),
  num_local_experts: countOrNull(),
  moe_intermediate_size: count(7688),
  moe_shared_expert_intermediate_size: count(7688),
  moe_latent_size: countOrNull(),
  ...groupedRouting,
  num_experts_per_tok: count(2),
  n_group: count(1),
  topk_group: count(1),
  routed_scaling_factor: positive(1),
};
type Config = Checked<typeof fields>;

const hasExperts = (config: Config): boolean => typesOf(config).includes("moe");
const ssmSizes = (config: Config): SsmSizes => ({
  heads: config.mamba_num_heads,
  headDim: config.mamba_head_dim,
  groups: config.n_groups,
  stateDim: config.ssm_state_size,
  convSize: config.conv_kernel,
});
const ssmFields = ({ heads, headDim, groups, stateDim, convSize }: SsmSizes): Readonly<Record<string, number>> => ({
  mamba_num_heads: heads,
  mamba_head_dim: headDim,
  n_groups: groups,
  ssm_state_size: stateDim,
  conv_kernel: convSize,
});

/** Nemotron-H (NVIDIA 2025), one mixer per layer: transformers' NemotronHForCausalLM. */
export const nemotronH: Family = defineFamily({
  className: "NemotronHForCausalLM",
  fields,
  rules: [...headRules, (config: Config) => (hasExperts(config) ? groupsFit(expertsOf(config), config) : null)],
  foreign: /^((backbone|model)\.)?mtp\./,
  remarks: [
    ...["num_hidden_layers", "expand", "mamba_proj_bias", "mamba_ssm_cache_dtype", "time_step_floor", "time_step_limit", "time_step_max"],
    ...["use_mamba_kernels", "rescale_prenorm_residual", "residual_in_fp32", "num_nextn_predict_layers", "mtp_layers_block_type"],
    ...["moe_shared_expert_overlap", "n_shared_experts", "time_step_rank", "layer_norm_eps", "rms_norm_eps", "hidden_act"],
    ...["mamba_expand", "mamba_dt_max", "mamba_dt_limit", "mamba_dt_init_floor", "mtp_hybrid_override_pattern"],
    // transformers reads both and does nothing with them.
    ...["attention_bias", "sliding_window"],
  ],
  otherNames: {
    mamba_n_groups: "n_groups",
    mamba_d_conv: "conv_kernel",
    mamba_dt_min: "time_step_min",
    mamba_conv_bias: "use_conv_bias",
    mamba_chunk_size: "chunk_size",
  },
  gguf: {
    architecture: (config) => nemotronNames[hasExperts(config) ? 1 : 0],
    architectures: nemotronNames,
    refuses: ({ time_step_min: least, mlp_hidden_act: activation, moe_latent_size: latent }) => {
      if (latent !== null) return "experts read a short vector of each token";
      if (activation !== "relu2") return `"mlp_hidden_act" is "${activation}", where llama.cpp takes "relu2"`;
      return least === 0.001 ? null : `"time_step_min" is ${least}`;
    },
    notes: ({ time_step_min: least }) =>
      `A Mamba's time steps are at least ${least}, and in llama.cpp 0: where a layer has smaller ones its answers differ, a little.`,
    keys: [
      layerKindKeys(typesOf),
      counted("context_length", "max_position_embeddings"),
      counted("embedding_length", "hidden_size"),
      counted("attention.head_count", "num_attention_heads"),
      headDim,
      vocabSize,
      nemotronEpsilon,
      ssmKeys(ssmSizes, ssmFields),
      biasField("use_conv_bias", "ssm_conv1d.bias"),
      biasField("use_bias", "ssm_in.bias", "without"),
      biasField("mlp_bias", "ffn_up.bias"),
      ...nemotronExperts<Config>(hasExperts, [
        ...expertKeys("n_routed_experts", "num_local_experts"),
        expertWidth,
        counted("expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size"),
        written("expert_shared_count", () => ({ type: "u32", value: 1 })),
        groupKeys,
        ...choiceKeys,
      ]),
    ],
    layer: nemotronLayer,
    unread: (config) =>
      config.use_conv_bias
        ? []
        : convZeros(
            typesOf(config).flatMap((type, layer) => (type === "mamba" || type === "linear_attention" ? [layer] : [])),
            ssmSizes(config),
          ),
  },
  decoder: (config) => {
    const norm = { kind: "rms", eps: config.layer_norm_epsilon } as const;
    const types = typesOf(config);
    return {
      vocabSize: config.vocab_size,
      width: config.hidden_size,
      contextLength: config.max_position_embeddings,
      embedding: { name: "model.embeddings" },
      layers: {
        name: "model.layers",
        count: types.length,
        at: (layer) => ({
          mixer: { name: "mixer", part: mixerOf(config, types[layer] ?? "") },
          feedForward: null,
          norm,
          norms: { beforeMixer: "norm" },
        }),
      },
      norm: { name: "model.norm_f", options: norm },
      head: { name: "lm_head", isTied: config.tie_word_embeddings },
      savedNames: ["model.", "backbone."],
    };
  },
});

function expertsOf({ n_routed_experts: routed, num_local_experts: local }: Config): number {
  return routed ?? local ?? 8;
}

const letters: Readonly<Record<string, string>> = { M: "mamba", E: "moe", "*": "attention", "-": "mlp" };

function typesOf({ hybrid_override_pattern: pattern, layers_block_type: blocks, layer_types: types }: Config): readonly string[] {
  return blocks ?? types ?? [...(pattern ?? "ME*-")].map((letter) => letters[letter] ?? "");
}

function mixerOf(config: Config, type: string): Part<Mixer> {
  const { mlp_hidden_act: activation, mlp_bias: hasBias, moe_latent_size: latent } = config;
  const names = { up: "up_proj", down: "down_proj" };
  const bias = { up: hasBias, down: hasBias };
  switch (type) {
    case "mlp":
      return asMixer(feedForward({ inner: config.intermediate_size, activation, names, bias }));
    case "moe":
      return asMixer(
        experts({
          count: expertsOf(config),
          inner: config.moe_intermediate_size,
          activation: { kind: "plain", activation },
          stored: { kind: "each", ...names },
          router: { name: "gate", correction: "e_score_correction_bias" },
          routing: routingOf(config),
          shared: { name: "shared_experts", options: { inner: config.moe_shared_expert_intermediate_size, activation, names, bias } },
          latent: latent === null ? null : { size: latent, in: "fc1_latent_proj", out: "fc2_latent_proj", bias: hasBias },
        }),
      );
    case "attention":
    case "full_attention":
      return selfAttention(config, { rope: null }).part;
    default:
      return mamba({
        heads: config.mamba_num_heads,
        headDim: config.mamba_head_dim,
        stateDim: config.ssm_state_size,
        groups: config.n_groups,
        convSize: config.conv_kernel,
        bias: { conv: config.use_conv_bias, in: config.use_bias, out: config.use_bias },
        activation: config.mamba_hidden_act,
        chunk: config.chunk_size,
        timeStepLimit: [config.time_step_min, Number.POSITIVE_INFINITY],
        norm: { eps: config.layer_norm_epsilon, groups: config.n_groups, isBeforeGate: false },
      });
  }
}
