import type { Family } from "./family.js";
import { gemma3Text } from "./gemma3.js";
import { gemma3n } from "./gemma3n.js";
import { gemma4 } from "./gemma4.js";
import { ministral3 } from "./ministral3.js";
import { mistral } from "./mistral.js";
import { textOf } from "./multimodal.js";
import { qwen35 } from "./qwen3-5.js";
import { qwen35Moe } from "./qwen3-5-moe.js";

const imageTokens = [
  "boi_token_id",
  "eoi_token_id",
  "boi_token_index",
  "eoi_token_index",
  "mm_tokens_per_image",
  "vision_soft_tokens_per_image",
];

/** Gemma 3 from 4B on: transformers' Gemma3ForConditionalGeneration, whose logits have no cap. */
export const gemma3WithTowers: Family = textOf({
  texts: { gemma3_text: gemma3Text },
  unread: { final_logit_softcapping: null },
  remarks: imageTokens,
});

/** Gemma 3n: transformers' Gemma3nForConditionalGeneration. */
export const gemma3nWithTowers: Family = textOf({
  texts: { gemma3n_text: gemma3n },
  remarks: [...imageTokens, "audio_token_id", "boa_token_id", "eoa_token_id", "audio_soft_tokens_per_image"],
});

/** Gemma 4: transformers' Gemma4ForConditionalGeneration. */
export const gemma4WithTowers: Family = textOf({
  texts: { gemma4_text: gemma4 },
  remarks: [...imageTokens, "audio_token_id", "boa_token_id", "eoa_token_id", "eoa_token_index", "audio_ms_per_token"],
});

/** Ministral 3 and Mistral Small 3 with Pixtral's tower: transformers' Mistral3ForConditionalGeneration. */
export const mistral3WithTowers: Family = textOf({
  texts: { mistral, ministral3 },
  absent: { tie_word_embeddings: true },
  remarks: ["projector_hidden_act", "multimodal_projector_bias", "spatial_merge_size", "vision_feature_layer"],
});

/** Qwen 3.5: transformers' Qwen3_5ForConditionalGeneration. */
export const qwen35WithTowers: Family = textOf({
  texts: { qwen3_5_text: qwen35 },
  remarks: ["vision_start_token_id", "vision_end_token_id"],
});

/** Qwen 3.5 with experts: transformers' Qwen3_5MoeForConditionalGeneration. */
export const qwen35MoeWithTowers: Family = textOf({
  texts: { qwen3_5_moe_text: qwen35Moe },
  remarks: ["vision_start_token_id", "vision_end_token_id"],
});
