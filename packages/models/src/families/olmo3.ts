import type { LayerOptions } from "../decoder/layer.js";
import type { RopeOptions } from "../decoder/rope.js";
import { countOrNull, flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { rotary, sizes, type Windows, windows } from "./fields.js";
import { biasField, llamaKeys, silu } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, normsBehindNames, queryKeyNorms } from "./gguf/targets.js";
import { windowPerLayer } from "./gguf/windows.js";
import { contextOf, ofLayerType, type RotaryConfig, readRope } from "./rope.js";
import {
  decoderNamed,
  everyBias,
  gatedMlp,
  headRules,
  layerTypeRule,
  normsBehind,
  queryKeyNorm,
  rmsNorm,
  selfAttention,
  slides,
} from "./standard.js";

const fullRope = (config: RotaryConfig, path: string): RopeOptions =>
  readRope(ofLayerType(config, "full_attention"), path, { theta: 5e5, layerType: "full_attention" });
/** transformers keeps a hub file's rope_theta for the full layers alone. */
const localRope = (config: RotaryConfig, path: string): RopeOptions =>
  readRope({ ...ofLayerType(config, "sliding_attention"), rope_theta: null }, path, { theta: 5e5, layerType: "sliding_attention" });
const hasWindow = (config: Windows & { readonly num_hidden_layers: number }, layer: number): boolean =>
  slides(config, layer, () => (layer + 1) % 4 !== 0);

/** OLMo 3 (OLMo Team 2025): OLMo 2 with windows in three of four layers, whose rotary positions are not stretched: transformers' Olmo3ForCausalLM. */
export const olmo3: Family = defineFamily({
  className: "Olmo3ForCausalLM",
  fields: {
    ...sizes,
    rms_norm_eps: positive(1e-5),
    ...rotary,
    ...windows,
    sliding_window: countOrNull(4096),
    attention_bias: flag(false),
  },
  rules: [...headRules, layerTypeRule],
  prefixes: [["", "model."]],
  gguf: {
    architecture: "olmo2",
    hasOwnHead: true,
    isOurs: (file) => file.has("attention.sliding_window"),
    keys: [
      ...llamaKeys,
      silu,
      ropeKeys(fullRope, { local: localRope }),
      windowPerLayer(hasWindow),
      biasField("attention_bias", "attn_q.bias", "without"),
    ],
    layer: () => ({ ...llamaNames, ...queryKeyNorms, ...normsBehindNames }),
  },
  decoder: (config, path) => {
    const [full, local] = [fullRope(config, path), localRope(config, path)];
    const norm = rmsNorm(config);
    const shared = { bias: everyBias(config.attention_bias), queryKeyNorm: queryKeyNorm(norm, "projection") };
    const layer = (index: number): LayerOptions => ({
      mixer: selfAttention(config, {
        ...shared,
        rope: hasWindow(config, index) ? local : full,
        window: hasWindow(config, index) ? config.sliding_window : null,
      }),
      feedForward: gatedMlp(config),
      norm,
      norms: normsBehind,
    });
    return decoderNamed(config, norm, layer, { contextLength: contextOf(config, full) });
  },
});
