import { smallest } from "@lowrank/tensor";
import { normalQuantile, normalShare } from "../../decoder/normal.js";
import type { StoredPiece } from "../../parameters.js";
import type { GgufField, GgufKey, GgufTargets } from "./description.js";
import { localTheta, perLayerField } from "./gemma-layers.js";
import { shortest } from "./keys.js";
import { stacked } from "./targets.js";

const u32 = (value: number): GgufField => ({ type: "u32", value });

/** Streams of AltUp that llama.cpp has. */
const streams = 4;

/** What else llama.cpp knows of the model, whatever a file says (gemma3n.cpp). */
const known = { rank: 64, perLayer: 256, cap: 30, sparseLayers: 10, sparsity: 0.95, ownKeys: 20 };

/** What Gemma 3n is filed by beside what Gemma 4 has too. */
interface AltUpConfig {
  readonly num_hidden_layers: number;
  readonly num_kv_shared_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number | null;
  readonly hidden_size: number;
  readonly head_dim: number;
  readonly altup_num_inputs: number;
  readonly altup_active_idx: number;
  readonly altup_correct_scale: boolean;
  readonly hidden_size_per_layer_input: number;
  readonly laurel_rank: number;
  readonly final_logit_softcapping: number | null;
}

/** A feed-forward's width and how sparse it is, by layer. */
interface LayerWidth {
  readonly inner: number;
  readonly sparsity: number;
  readonly theta: { readonly full: number; readonly local: number };
}

/** AltUp, LAuReL and sparse activations. */
export function altUpKeys<Config extends AltUpConfig>(at: (config: Config, layer: number) => LayerWidth): GgufKey<Config> {
  const layersOf = (config: Config): readonly LayerWidth[] =>
    Array.from({ length: config.num_hidden_layers }, (_, layer) => at(config, layer));
  return {
    read: (file) => {
      const count = file.layerCount();
      const cuts = file.numbers("activation_sparsity_scale") ?? Array.from({ length: count }, () => Number.NEGATIVE_INFINITY);
      const [rank] = file.shape("blk.0.laurel_l.weight") ?? [];
      return {
        intermediate_size: file.perLayer("feed_forward_length", count),
        // Of deviations, −∞ for nothing.
        activation_sparsity_pattern: cuts.slice(0, count).map((cut) => (cut < -8 ? 0 : Number(normalShare(cut).toPrecision(6)))),
        altup_num_inputs: file.count("altup.num_inputs"),
        altup_active_idx: file.count("altup.active_idx"),
        laurel_rank: rank,
        rope_parameters: {
          full_attention: { rope_type: "default", rope_theta: shortest(file.number("rope.freq_base", 1e6)) },
          sliding_attention: localTheta(file),
        },
      };
    },
    write: (config) => {
      const layers = layersOf(config);
      const theta = layers[0]?.theta;
      return {
        feed_forward_length: perLayerField(layers.map(({ inner }) => inner)),
        activation_sparsity_scale: {
          type: "f32[]",
          value: layers.map(({ sparsity }) => (sparsity > 0 ? normalQuantile(sparsity) : Number.NEGATIVE_INFINITY)),
        },
        "altup.num_inputs": u32(config.altup_num_inputs),
        "altup.active_idx": u32(config.altup_active_idx),
        "rope.freq_base": theta ? { type: "f32", value: theta.full } : null,
        "rope.freq_base_swa": theta ? { type: "f32", value: theta.local } : null,
      };
    },
    refuses: ({ altup_num_inputs: count, altup_correct_scale: isScaled }) =>
      count !== streams
        ? `"altup_num_inputs" is ${count}, where llama.cpp takes ${streams}`
        : isScaled
          ? null
          : '"altup_correct_scale" is false',
    notes: (config) => {
      const { laurel_rank: rank, hidden_size_per_layer_input: perLayer } = config;
      if (rank !== known.rank || perLayer !== known.perLayer)
        return `"laurel_rank" and "hidden_size_per_layer_input" are ${rank} and ${perLayer}: llama.cpp loads no such file of this family but of ${known.rank} and ${known.perLayer}.`;
      const found = otherwise(config, layersOf(config));
      return found === null ? null : `${found}, whatever the file says: its answers are others.`;
    },
  };
}

/** What llama.cpp computes otherwise, and what it takes instead; null for a config of Gemma 3n's own. */
function otherwise(config: AltUpConfig, layers: readonly LayerWidth[]): string | null {
  const { altup_active_idx: active, final_logit_softcapping: cap, num_kv_shared_layers: shared } = config;
  if (active !== 0) return `"altup_active_idx" is ${active}, and llama.cpp takes the first stream`;
  if (cap !== known.cap) return `"final_logit_softcapping" is ${cap}, and llama.cpp takes ${known.cap}`;
  if (layers.some(({ sparsity }, layer) => sparsity !== (layer < known.sparseLayers ? known.sparsity : 0)))
    return `"activation_sparsity_pattern" is not ${known.sparsity} in the first ${known.sparseLayers} layers alone, and llama.cpp takes that`;
  const own = smallest([known.ownKeys, layers.length]);
  return layers.length - shared === own
    ? null
    : `${layers.length - shared} layers have keys and values of their own, and in llama.cpp the first ${own}`;
}

/** Parts of a layer. */
export const altUpNames: GgufTargets = {
  "altup.correct_output_scale": "altup_correct_scale.weight",
  "altup.correction_coefs": "altup_correct_coef",
  "altup.prediction_coefs": "altup_predict_coef",
  "altup.modality_router": "altup_router",
  "altup.router_norm": "altup_router_norm",
  "laurel.linear_left": "laurel_l",
  "laurel.linear_right": "laurel_r",
  "laurel.post_laurel_norm": "laurel_post_norm",
};

/** Projections between the streams, of which a file has one stack each. */
export function streamNames({ altup_num_inputs: count }: AltUpConfig): GgufTargets {
  return {
    "altup_projections.*": stacked("altup_proj", count - 1),
    "altup_unembed_projections.*": stacked("altup_unembd_proj", count - 1),
  };
}

/** Keys and values that llama.cpp asks for in layers that see those of others, and does not read. */
export function unreadTensors(config: AltUpConfig): readonly StoredPiece[] {
  const { num_hidden_layers: layers, num_kv_shared_layers: shared, head_dim: size, hidden_size: width } = config;
  const rows = size * (config.num_key_value_heads ?? config.num_attention_heads);
  return Array.from({ length: smallest([shared, layers]) }, (_, i) => layers - shared + i).flatMap((layer) => [
    { name: `blk.${layer}.attn_k.weight`, shape: [rows, width] },
    { name: `blk.${layer}.attn_v.weight`, shape: [rows, width] },
    { name: `blk.${layer}.attn_k_norm.weight`, shape: [size] },
  ]);
}
