import { feedForward } from "../decoder/feed-forward.js";
import { mamba } from "../decoder/mamba.js";
import { mixersTogether } from "../decoder/together.js";
import { asFloat, countOrNull, flag, positive } from "../schema.js";
import { type Checked, defineFamily, type Family } from "./family.js";
import { list, rotary, sizes, withDefaults } from "./fields.js";
import { falconNames, scaled, unsaid } from "./gguf/falcon.js";
import { biasField, fixed, headDim, rmsEpsilon, silu, sizeKeys, vocabSize } from "./gguf/keys.js";
import { convZeros, limitsTimeSteps, ssmKeys } from "./gguf/mamba.js";
import { ropeKeys } from "./gguf/rope.js";
import { mambaFields, mambaFieldsOf, mambaGroupsFit, mambaSizes } from "./mamba.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, everyBias, headDimOf, headRules, rmsNorm, selfAttention } from "./standard.js";

const numbers = (what: string) => asFloat(list<number>(what, Number.isFinite));

const fields = {
  ...withDefaults(sizes, {
    vocab_size: 128000,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
  }),
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
  ...mambaFields,
  mamba_d_ssm: countOrNull(1024),
  mamba_rms_norm: flag(false),
  mamba_norm_before_gate: flag(true),
};
type Config = Checked<typeof fields>;

/** Falcon-H1 (TII 2025), attention and Mamba-2 side by side: transformers' FalconH1ForCausalLM. */
export const falconH1: Family = defineFamily({
  className: "FalconH1ForCausalLM",
  fields,
  rules: [...headRules, mambaGroupsFit, fiveMultipliers],
  prefixes: [["", "model."]],
  remarks: ["mamba_use_mlp", "mlp_expansion_factor", "attn_layer_indices", "attn_rotary_emb"],
  gguf: {
    architecture: "falcon-h1",
    folded: "Falcon-H1's multipliers are part of the weights",
    refuses: (config) => limitsTimeSteps(config.time_step_limit) ?? unsaid(config),
    keys: [
      ...sizeKeys,
      headDim,
      rmsEpsilon,
      silu,
      vocabSize,
      ropeKeys(readRope),
      ssmKeys(mambaSizes, (made, width) => ({ ...mambaFieldsOf(made, width), mamba_d_ssm: made.heads * made.headDim })),
      biasField("mlp_bias", "ffn_gate.bias"),
      biasField("mamba_conv_bias", "ssm_conv1d.bias"),
      biasField("mamba_rms_norm", "ssm_norm.weight"),
      fixed({ mamba_norm_before_gate: false }),
    ],
    layer: falconNames,
    unread: (config) => (config.mamba_conv_bias ? [] : convZeros([...Array(config.num_hidden_layers).keys()], mambaSizes(config))),
    model: (config) => ({
      embedding: scaled("token_embd", config.embedding_multiplier),
      head: scaled("output", config.lm_head_multiplier),
    }),
  },
  decoder: (config, path) => {
    const rope = readRope(config, path);
    const norm = rmsNorm(config);
    const { attention_bias: has, mlp_bias: hasInner, intermediate_size: inner, hidden_act: activation } = config;
    const scale = config.key_multiplier / Math.sqrt(headDimOf(config));
    const attention = selfAttention(config, { rope, scale, bias: everyBias(has) });
    const [gate = 1, down = 1] = config.mlp_multipliers ?? [];
    const names = { gate: "gate_proj", up: "up_proj", down: "down_proj" };
    const bias = { up: hasInner, down: hasInner };
    const mlp = { name: "feed_forward", part: feedForward({ inner, activation, names, bias, multipliers: { gate, down } }) };
    const { mamba_rms_norm: hasNorm, mamba_n_groups: groups, rms_norm_eps: eps } = config;
    const own = mambaSizes(config);
    const ssm = mamba({
      ...own,
      bias: { ...own.bias, out: config.projectors_bias },
      norm: hasNorm ? { eps, groups, isBeforeGate: config.mamba_norm_before_gate } : null,
      multipliers: { input: config.ssm_in_multiplier, parts: config.ssm_multipliers ?? [] },
    });
    const mixers = [
      { name: "mamba", part: ssm, outputScale: config.ssm_out_multiplier },
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
        contextLength: contextOf(config, rope),
        embedding: { scale: config.embedding_multiplier },
        norm: { name: "model.final_layernorm" },
        head: { scale: config.lm_head_multiplier },
      },
    );
  },
});

function fiveMultipliers({ ssm_multipliers: parts, mlp_multipliers: mlp }: Config): string | null {
  if (parts && parts.length !== 5) return `"ssm_multipliers" has ${parts.length} numbers, not 5`;
  return mlp && mlp.length !== 2 ? `"mlp_multipliers" has ${mlp.length} numbers, not 2` : null;
}
