import { activationNames } from "../activation.js";
import { attention } from "../decoder/attention.js";
import { feedForward } from "../decoder/feed-forward.js";
import type { RopeOptions } from "../decoder/rope.js";
import { choice, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { layerNormSizes, numberOrNull, rotary } from "./fields.js";
import { activation, biasField, flagged, layerEpsilon, sizeKeys } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, partsApart } from "./gguf/targets.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, headRules, layerNorm, normsInFront } from "./standard.js";

/** Beside the rotary parameters transformers reads these of older files alone: not `rope_theta`, nor `partial_rotary_factor`. */
function partialRope(
  config: RotaryConfig & { readonly rotary_pct: number | null; readonly rotary_emb_base: number | null },
  path: string,
): RopeOptions {
  const own = { rope_theta: config.rotary_emb_base, partial_rotary_factor: config.rotary_pct };
  return readRope({ ...config, ...own, head_dim: null }, path, { isPartial: true, partial: 0.25 });
}

/** GPT-NeoX (Black et al. 2022) and Pythia: transformers' GPTNeoXForCausalLM. Queries, keys and values of a head lie beside each other. */
export const gptNeoX: Family = defineFamily({
  className: "GPTNeoXForCausalLM",
  fields: {
    ...layerNormSizes,
    ...rotary,
    hidden_act: choice(activationNames, "gelu"),
    rotary_pct: numberOrNull(),
    rotary_emb_base: numberOrNull(),
    attention_bias: flag(true),
    use_parallel_residual: flag(true),
  },
  rules: headRules,
  remarks: ["attention_probs_dropout_prob", "hidden_dropout_prob"],
  prefixes: [["", "gpt_neox."]],
  ignored: /\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$/,
  gguf: {
    architecture: "gptneox",
    hasOwnHead: true,
    keys: [
      ...sizeKeys,
      // Each head has keys of its own, whatever config.json has beside.
      { read: () => ({}), write: () => ({ "attention.head_count_kv": null }) },
      layerEpsilon,
      activation("hidden_act", "gelu"),
      ropeKeys(partialRope, { dimensions: "always", isPartial: true }),
      flagged("use_parallel_residual", "use_parallel_residual"),
      biasField("attention_bias", "attn_qkv.bias", "with"),
    ],
    layer: (config) => ({
      ...llamaNames,
      "attention.query_key_value": partsApart("attn_qkv", config.num_attention_heads),
      "attention.dense": "attn_output",
      "mlp.dense_h_to_4h": "ffn_up",
      "mlp.dense_4h_to_h": "ffn_down",
    }),
  },
  decoder: (config, path) => {
    const norm = layerNorm(config);
    const {
      hidden_size: width,
      num_attention_heads: heads,
      attention_bias: hasBias,
      intermediate_size: inner,
      hidden_act: activation,
    } = config;
    const rope = partialRope(config, path);
    const mixer = attention({
      heads,
      kvHeads: heads,
      headDim: width / heads,
      names: { qkv: "query_key_value", out: "dense", order: "heads" },
      bias: { q: hasBias, out: hasBias },
      rope,
    });
    const names = { up: "dense_h_to_4h", down: "dense_4h_to_h" };
    const layer = {
      mixer: { name: "attention", part: mixer },
      feedForward: { name: "mlp", part: feedForward({ inner, activation, names, bias: { up: true, down: true } }) },
      norm,
      norms: normsInFront,
      isParallel: config.use_parallel_residual,
    };
    const options = decoderNamed(config, norm, () => layer, {
      contextLength: contextOf(config, rope),
      embedding: { name: "gpt_neox.embed_in" },
      norm: { name: "gpt_neox.final_layer_norm" },
    });
    return { ...options, layers: { ...options.layers, name: "gpt_neox.layers" }, savedNames: ["lm_head.", "embed_out."] };
  },
});
