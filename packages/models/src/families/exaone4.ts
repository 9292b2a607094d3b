import type { LayerOptions } from "../decoder/layer.js";
import { countOrNull, field, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { orNone, rotary, sizes, type Windows, windows } from "./fields.js";
import { llamaKeys, silu, squareHeads, vocabSize } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, normsBehindNames, queryKeyNorms } from "./gguf/targets.js";
import { windowPerLayer } from "./gguf/windows.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, layerTypeRule, normsBehind, queryKeyNorm, rmsNorm, selfAttention, slides } from "./standard.js";

/** EXAONE 4 (LG AI Research 2025): transformers' Exaone4ForCausalLM. Norms behind; full layers among sliding ones have no positions. */
export const exaone4: Family = defineFamily({
  className: "Exaone4ForCausalLM",
  fields: {
    ...sizes,
    ...rotary,
    ...windows,
    rms_norm_eps: positive(1e-5),
    sliding_window: orNone(4096, countOrNull()),
    sliding_window_pattern: field<number | string | null>(
      "a whole number, or letters L and G",
      (value) => value === null || (Number.isSafeInteger(value) && (value as number) >= 0) || /^[LG]+$/.test(String(value)),
      null,
    ),
  },
  rules: [...headRules, layerTypeRule],
  prefixes: [["", "model."]],
  gguf: {
    architecture: "exaone4",
    keys: [...llamaKeys, squareHeads, silu, ropeKeys(readRope), vocabSize, windowPerLayer(hasWindow)],
    layer: () => ({ ...llamaNames, ...queryKeyNorms, ...normsBehindNames }),
    notes: (config) => {
      const { num_hidden_layers: count, sliding_window: window } = config;
      if (count === 64 || !Array.from({ length: count }, (_, layer) => hasWindow(config, layer)).some(Boolean)) return null;
      return `Some layers see ${window} tokens back, which llama.cpp reads of 64 layers alone: there all ${count} see all tokens, and have positions, so that its answers are others.`;
    },
  },
  decoder: (config, path) => {
    const norm = rmsNorm(config);
    const { sliding_window: window } = config;
    const rope = readRope(config, path);
    const layer = (index: number): LayerOptions => {
      const isSliding = hasWindow(config, index);
      const mixer = selfAttention(config, {
        rope: window === null || isSliding ? rope : null,
        window: isSliding ? window : null,
        queryKeyNorm: queryKeyNorm(norm, "head"),
      });
      return {
        mixer,
        feedForward: gatedMlp(config),
        norm,
        norms: normsBehind,
      };
    };
    return decoderNamed(config, norm, layer, { contextLength: contextOf(config, rope) });
  },
});

/** L for local; of a pattern of letters the last layer is global whatever they say. */
function hasWindow(
  config: Windows & { readonly sliding_window_pattern: number | string | null; readonly num_hidden_layers: number },
  layer: number,
): boolean {
  const pattern = config.sliding_window_pattern ?? 4;
  const isLocal =
    config.sliding_window !== null &&
    (typeof pattern === "number"
      ? pattern > 0 && (layer + 1) % pattern !== 0
      : layer + 1 < config.num_hidden_layers && pattern[layer % pattern.length] === "L");
  return slides(config, layer, () => isLocal);
}
