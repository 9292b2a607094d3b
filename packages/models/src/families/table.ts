import { deepseekV3 } from "./deepseek-v3.js";
import { falconH1 } from "./falcon-h1.js";
import type { Family } from "./family.js";
import { gemma4 } from "./gemma4.js";
import { gptOss } from "./gpt-oss.js";
import { gpt2 } from "./gpt2.js";
import { granitemoehybrid } from "./granitemoehybrid.js";
import { lfm2 } from "./lfm2.js";
import { llama } from "./llama.js";
import { mixtral } from "./mixtral.js";
import { nemotronH } from "./nemotron-h.js";
import { qwen35 } from "./qwen3-5.js";
import { qwen3Moe } from "./qwen3-moe.js";
import { qwen3Next } from "./qwen3-next.js";

/** Model families by `model_type` of config.json. */
export const families: Readonly<Record<string, Family>> = {
  gpt2,
  deepseek_v3: deepseekV3,
  falcon_h1: falconH1,
  gemma4_text: gemma4,
  gpt_oss: gptOss,
  granitemoehybrid,
  lfm2,
  llama,
  mixtral,
  nemotron_h: nemotronH,
  qwen3_5_text: qwen35,
  qwen3_moe: qwen3Moe,
  qwen3_next: qwen3Next,
};
