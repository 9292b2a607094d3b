import { feedForward } from "../decoder/feed-forward.js";
import { mamba } from "../decoder/mamba.js";
import { mixersTogether } from "../decoder/together.js";
import { count, countOrNull, flag, positive } from "../schema.js";
import { type Checked, defineFamily, type Family } from "./family.js";
import { list, rotary, sizes } from "./fields.js";
import { timeStepLimit } from "./mamba.js";
import { readRope } from "./rope.js";
import { decoderNamed, headDimOf, headRules, rmsNorm, selfAttention } from "./standard.js";

const numbers = (what: string) => list<number>(what, Number.isFinite);

const fields = {
  ...sizes,
  ...rotary,
  attention_bias: flag(false),
  mlp_bias: flag(false),
  projectors_bias: flag(false),
  embedding_multiplier: positive(1),
  lm_head_multiplier: positive(1),
  attention_in_multiplier: positive(1),
  attention_out_multiplier: positive(1),
  key_multiplier: positive(1),
  mlp_multipliers: numbers("two numbers"),
  ssm_in_multiplier: positive(1),
  ssm_out_multiplier: positive(1),
  ssm_multipliers: numbers("five numbers"),
  mamba_n_heads: count(128),
  mamba_d_head: count(64),
  mamba_d_ssm: countOrNull(),
  mamba_d_state: count(256),
  mamba_n_groups: count(1),
  mamba_d_conv: count(4),
  mamba_expand: count(2),
  mamba_chunk_size: count(256),
  mamba_conv_bias: flag(true),
  mamba_proj_bias: flag(false),
  mamba_rms_norm: flag(false),
  mamba_norm_before_gate: flag(true),
  time_step_limit: timeStepLimit(),
};
type Config = Checked<typeof fields>;

/** Falcon-H1 (TII 2025), attention and Mamba-2 side by side: transformers' FalconH1ForCausalLM. */
export const falconH1: Family = defineFamily({
  className: "FalconH1ForCausalLM",
  fields,
  rules: [...headRules, fiveMultipliers],
  prefixes: [["", "model."]],
  remarks: ["mamba_use_mlp", "mlp_expansion_factor", "attn_layer_indices", "attn_rotary_emb", "bos_token_id"],
  decoder: (config, path) => {
    const rope = readRope(config, path);
    const norm = rmsNorm(config);
    const { attention_bias: has, mlp_bias: hasInner, intermediate_size: inner, hidden_act: activation } = config;
    const scale = config.key_multiplier / Math.sqrt(headDimOf(config));
    const attention = selfAttention(config, { rope, scale, bias: { q: has, k: has, v: has, out: has } });
    const [gate = 1, down = 1] = config.mlp_multipliers ?? [];
    const names = { gate: "gate_proj", up: "up_proj", down: "down_proj" };
    const bias = { up: hasInner, down: hasInner };
    const mlp = { name: "feed_forward", part: feedForward({ inner, activation, names, bias, multipliers: { gate, down } }) };
    const mixers = [
      { ...mambaOf(config), outputScale: config.ssm_out_multiplier },
      { ...attention, inputScale: config.attention_in_multiplier, outputScale: config.attention_out_multiplier },
    ];
    return decoderNamed(
      config,
      norm,
      () => ({
        mixer: mixersTogether(mixers, "self_attn"),
        feedForward: mlp,
        norm,
        norms: { beforeMixer: "input_layernorm", beforeFeedForward: "pre_ff_layernorm" },
      }),
      {
        embedding: { scale: config.embedding_multiplier },
        norm: { name: "model.final_layernorm" },
        head: { scale: config.lm_head_multiplier },
      },
    );
  },
});

function mambaOf(config: Config) {
  const { mamba_rms_norm: hasNorm, mamba_n_groups: groups, rms_norm_eps: eps } = config;
  return {
    name: "mamba",
    part: mamba({
      heads: config.mamba_n_heads,
      headDim: config.mamba_d_head,
      stateDim: config.mamba_d_state,
      groups,
      convSize: config.mamba_d_conv,
      bias: { conv: config.mamba_conv_bias, in: config.mamba_proj_bias, out: config.projectors_bias },
      activation: config.hidden_act,
      chunk: config.mamba_chunk_size,
      timeStepLimit: config.time_step_limit,
      norm: hasNorm ? { eps, groups, isBeforeGate: config.mamba_norm_before_gate } : null,
      multipliers: { input: config.ssm_in_multiplier, parts: config.ssm_multipliers ?? [] },
    }),
  };
}

function fiveMultipliers({ ssm_multipliers: parts, mlp_multipliers: mlp }: Config): string | null {
  if (parts && parts.length !== 5) return `"ssm_multipliers" has ${parts.length} numbers, not 5`;
  return mlp && mlp.length !== 2 ? `"mlp_multipliers" has ${mlp.length} numbers, not 2` : null;
}
