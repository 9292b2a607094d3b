import type { LayerOptions } from "../decoder/layer.js";
import { count, countOrNull, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { list, rotary, sizes, type Windows, windows } from "./fields.js";
import { biasField, llamaKeys, silu, vocabSize } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, neighbours } from "./gguf/targets.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, everyBias, gatedMlp, headRules, layerTypeRule, normsInFront, rmsNorm, selfAttention, windowOf } from "./standard.js";

interface Layers extends Windows {
  readonly use_sliding_window: boolean;
  readonly no_rope_layers: readonly number[] | null;
  readonly no_rope_layer_interval: number;
}

function hasRope({ no_rope_layers: has, no_rope_layer_interval: interval }: Layers, layer: number): boolean {
  return has ? has[layer] === 1 : (layer + 1) % interval !== 0;
}

/** Layers that are listed as sliding have a window whatever `use_sliding_window` says, as in transformers. */
function windowAt(config: Layers, layer: number): number | null {
  return windowOf(config, layer, () => config.use_sliding_window && !hasRope(config, layer));
}

/** SmolLM3, of whose layers every fourth has no positions: transformers' SmolLM3ForCausalLM. */
export const smollm3: Family = defineFamily({
  className: "SmolLM3ForCausalLM",
  fields: {
    ...sizes,
    num_key_value_heads: countOrNull(4),
    max_position_embeddings: count(32768),
    tie_word_embeddings: flag(true),
    ...rotary,
    ...windows,
    use_sliding_window: flag(false),
    /** 1 where a layer has positions, against what the name says. */
    no_rope_layers: list<number>("a list of 0 and 1", (item) => item === 0 || item === 1),
    no_rope_layer_interval: count(4),
    attention_bias: flag(false),
    mlp_bias: flag(false),
  },
  rules: [
    ...headRules,
    layerTypeRule,
    ({ no_rope_layers: has, num_hidden_layers: layers }) =>
      has === null || has.length >= layers ? null : `"no_rope_layers" has ${has.length} entries for ${layers} layers`,
  ],
  prefixes: [["", "model."]],
  remarks: ["max_window_layers"],
  gguf: {
    architecture: "smollm3",
    // llama.cpp leaves positions out in every fourth layer, and sees all tokens.
    refuses: (config) => {
      const layers = Array.from({ length: config.num_hidden_layers }, (_, layer) => layer);
      if (layers.some((layer) => hasRope(config, layer) !== ((layer + 1) % 4 !== 0)))
        return "layers without positions are others than every fourth";
      return layers.some((layer) => windowAt(config, layer) !== null) ? "some layers have a window" : null;
    },
    keys: [
      ...llamaKeys,
      silu,
      vocabSize,
      ropeKeys((config: RotaryConfig, path) => readRope(config, path, { theta: 2e6 }), { dimensions: "always" }),
      biasField("attention_bias", "attn_q.bias", "without"),
      biasField("mlp_bias", "ffn_gate.bias", "without"),
    ],
    layer: (config) => ({ ...llamaNames, ...neighbours(config) }),
  },
  decoder: (config, path) => {
    const [rope, norm, bias] = [readRope(config, path, { theta: 2e6 }), rmsNorm(config), config.mlp_bias];
    const layer = (index: number): LayerOptions => ({
      mixer: selfAttention(config, {
        rope: hasRope(config, index) ? rope : null,
        bias: everyBias(config.attention_bias),
        window: windowAt(config, index),
      }),
      feedForward: gatedMlp(config, { bias: { up: bias, down: bias } }),
      norm,
      norms: normsInFront,
    });
    return decoderNamed(config, norm, layer, { contextLength: contextOf(config, rope) });
  },
});
