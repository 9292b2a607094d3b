import { latentAttention } from "../decoder/latent-attention.js";
import type { RopeOptions } from "../decoder/rope.js";
import { count, countOrNull, countOrZero, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { only, rotary, sizes, withDefaults } from "./fields.js";
import { expertKeys, expertNames, expertWidth, sharedExpert } from "./gguf/experts.js";
import { rmsEpsilon, silu, sizeKeys, vocabSize } from "./gguf/keys.js";
import { groupedKeys, latentEpsilon, latentKeys, latentNames, latentProblem, stretchKeys } from "./gguf/latent.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames } from "./gguf/targets.js";
import { groupedRouting, groupsFit, mixture, routingOf } from "./mixture.js";
import { contextOf, latentScale, type RotaryConfig, readRope } from "./rope.js";
import { behindLayers, decoderNamed, gatedMlp, normsInFront, rmsNorm } from "./standard.js";

const fields = {
  ...withDefaults(sizes, { vocab_size: 129280, num_attention_heads: 128, max_position_embeddings: 4096 }),
  ...rotary,
  attention_bias: flag(false),
  q_lora_rank: countOrNull(1536),
  kv_lora_rank: count(512),
  qk_nope_head_dim: count(128),
  qk_rope_head_dim: count(64),
  v_head_dim: count(128),
  rope_interleave: flag(true),
  n_routed_experts: count(256),
  n_shared_experts: count(1),
  moe_intermediate_size: count(2048),
  first_k_dense_replace: countOrZero(3),
  ...groupedRouting,
  scoring_func: only("sigmoid"),
  topk_method: only("noaux_tc"),
  moe_layer_freq: only(1),
  num_nextn_predict_layers: countOrZero(1),
  output_router_logits: only(false),
};

type Turned = RotaryConfig & { readonly qk_rope_head_dim: number; readonly rope_interleave: boolean };
const ropeOf = (config: Turned, path: string): RopeOptions =>
  readRope(config, path, { headDim: config.qk_rope_head_dim, pairing: config.rope_interleave ? "adjacent" : "halves" });

/** DeepSeek-V3 (DeepSeek 2024): transformers' DeepseekV3ForCausalLM. */
export const deepseekV3: Family = defineFamily({
  className: "DeepseekV3ForCausalLM",
  fields,
  rules: [(config) => groupsFit(config.n_routed_experts, config)],
  prefixes: [["", "model."]],
  remarks: ["qk_head_dim", "ep_size", "aux_loss_alpha", "seq_aux"],
  otherNames: { num_local_experts: "n_routed_experts", num_mtp_layers: "num_nextn_predict_layers" },
  gguf: {
    architecture: "deepseek2",
    unpaired: /\.attn_(q|q_a|q_b|kv_a_mqa)\.weight$|^output\.weight$/,
    isOurs: (file) => file.someLayerHas("exp_probs_b.bias"), // DeepSeek-V2 routes by a softmax, without a correction
    refuses: latentProblem,
    keys: [
      ...sizeKeys,
      rmsEpsilon,
      silu,
      vocabSize,
      ropeKeys(ropeOf, { dimensions: "always", headDim: (file) => file.count("rope.dimension_count"), stretch: () => 1 }),
      stretchKeys,
      ...expertKeys("n_routed_experts"),
      expertWidth,
      ...groupedKeys,
      ...latentKeys,
    ],
    layer: (config) => ({
      ...llamaNames,
      ...latentNames(config),
      ...expertNames("mlp"),
      ...sharedExpert("mlp.shared_experts"),
      "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    }),
  },
  decoder: (config, path) => {
    const [rope, norm] = [ropeOf(config, path), rmsNorm(config)];
    const { qk_nope_head_dim: plainDim, hidden_act: activation, moe_intermediate_size: inner } = config;
    const attention = latentAttention({
      heads: config.num_attention_heads,
      plainDim,
      rope,
      valueDim: config.v_head_dim,
      latentDims: { q: config.q_lora_rank, kv: config.kv_lora_rank },
      norm: rmsNorm({ rms_norm_eps: latentEpsilon }),
      bias: config.attention_bias,
      scale: latentScale(config, plainDim + config.qk_rope_head_dim),
    });
    const names = { gate: "gate_proj", up: "up_proj", down: "down_proj" };
    const sparse = mixture({
      count: config.n_routed_experts,
      choices: config.num_experts_per_tok,
      inner,
      activation,
      router: { name: "gate", correction: "e_score_correction_bias" },
      routing: routingOf(config),
      shared: { name: "shared_experts", options: { inner: inner * config.n_shared_experts, activation, names } },
    });
    const decoder = decoderNamed(
      config,
      norm,
      (layer) => ({
        mixer: { name: "self_attn", part: attention },
        feedForward: layer < config.first_k_dense_replace ? gatedMlp(config) : sparse,
        norm,
        norms: normsInFront,
      }),
      { contextLength: contextOf(config, rope) },
    );
    return { ...decoder, isForeign: behindLayers(config.num_hidden_layers, config.num_nextn_predict_layers) };
  },
});
