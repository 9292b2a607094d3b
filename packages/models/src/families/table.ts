import { cohere } from "./cohere.js";
import { cohere2 } from "./cohere2.js";
import { deepseekV3 } from "./deepseek-v3.js";
import { ernie4_5 } from "./ernie4-5.js";
import { exaone4 } from "./exaone4.js";
import { falconH1 } from "./falcon-h1.js";
import type { Family } from "./family.js";
import { gemma4 } from "./gemma4.js";
import { glm4 } from "./glm4.js";
import { gptNeoX } from "./gpt-neox.js";
import { gptOss } from "./gpt-oss.js";
import { gpt2 } from "./gpt2.js";
import { granitemoehybrid } from "./granitemoehybrid.js";
import { hunyuanV1Dense } from "./hunyuan-v1-dense.js";
import { lfm2 } from "./lfm2.js";
import { llama } from "./llama.js";
import { mixtral } from "./mixtral.js";
import { nanochat } from "./nanochat.js";
import { nemotronH } from "./nemotron-h.js";
import { phi } from "./phi.js";
import { qwen35 } from "./qwen3-5.js";
import { qwen3Moe } from "./qwen3-moe.js";
import { qwen3Next } from "./qwen3-next.js";
import { stablelm } from "./stablelm.js";
import { starcoder2 } from "./starcoder2.js";

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
  phi,
  gpt_neox: gptNeoX,
  starcoder2,
  stablelm,
  cohere,
  cohere2,
  exaone4,
  glm4,
  ernie4_5,
  hunyuan_v1_dense: hunyuanV1Dense,
  nanochat,
};
