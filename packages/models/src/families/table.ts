import { cohere } from "./cohere.js";
import { cohere2 } from "./cohere2.js";
import { deepseekV3 } from "./deepseek-v3.js";
import { ernie4_5 } from "./ernie4-5.js";
import { exaone4 } from "./exaone4.js";
import { falconH1 } from "./falcon-h1.js";
import type { Family } from "./family.js";
import { gemma } from "./gemma.js";
import { gemma2 } from "./gemma2.js";
import { gemma3Text } from "./gemma3.js";
import { gemma3n } from "./gemma3n.js";
import { gemma4 } from "./gemma4.js";
import { glm4 } from "./glm4.js";
import { gptNeoX } from "./gpt-neox.js";
import { gptOss } from "./gpt-oss.js";
import { gpt2 } from "./gpt2.js";
import { granite } from "./granite.js";
import { granitemoehybrid } from "./granitemoehybrid.js";
import { hunyuanV1Dense } from "./hunyuan-v1-dense.js";
import { lfm2 } from "./lfm2.js";
import { lfm2Moe } from "./lfm2-moe.js";
import { llama } from "./llama.js";
import { ministral3 } from "./ministral3.js";
import { mistral } from "./mistral.js";
import { mixtral } from "./mixtral.js";
import { nanochat } from "./nanochat.js";
import { nemotronH } from "./nemotron-h.js";
import { olmo2 } from "./olmo2.js";
import { olmo3 } from "./olmo3.js";
import { phi } from "./phi.js";
import { phi3 } from "./phi3.js";
import { qwen2 } from "./qwen2.js";
import { qwen3 } from "./qwen3.js";
import { qwen35 } from "./qwen3-5.js";
import { qwen35Moe } from "./qwen3-5-moe.js";
import { qwen3Moe } from "./qwen3-moe.js";
import { qwen3Next } from "./qwen3-next.js";
import { smollm3 } from "./smollm3.js";
import { stablelm } from "./stablelm.js";
import { starcoder2 } from "./starcoder2.js";
import {
  gemma3nWithTowers,
  gemma3WithTowers,
  gemma4WithTowers,
  mistral3WithTowers,
  qwen35MoeWithTowers,
  qwen35WithTowers,
} from "./towers.js";

/** Model families by `model_type` of config.json. */
export const families: Readonly<Record<string, Family>> = {
  cohere,
  cohere2,
  deepseek_v3: deepseekV3,
  ernie4_5,
  exaone4,
  falcon_h1: falconH1,
  gemma,
  gemma2,
  gemma3: gemma3WithTowers,
  gemma3_text: gemma3Text,
  gemma3n: gemma3nWithTowers,
  gemma3n_text: gemma3n,
  gemma4: gemma4WithTowers,
  gemma4_text: gemma4,
  glm4,
  gpt2,
  gpt_neox: gptNeoX,
  gpt_oss: gptOss,
  granite,
  granitemoehybrid,
  hunyuan_v1_dense: hunyuanV1Dense,
  lfm2,
  lfm2_moe: lfm2Moe,
  llama,
  ministral3,
  mistral,
  mistral3: mistral3WithTowers,
  mixtral,
  nanochat,
  nemotron_h: nemotronH,
  olmo2,
  olmo3,
  phi,
  phi3,
  qwen2,
  qwen3,
  qwen3_5: qwen35WithTowers,
  qwen3_5_moe: qwen35MoeWithTowers,
  qwen3_5_moe_text: qwen35Moe,
  qwen3_5_text: qwen35,
  qwen3_moe: qwen3Moe,
  qwen3_next: qwen3Next,
  smollm3,
  stablelm,
  starcoder2,
};
