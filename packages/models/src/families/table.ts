import type { Family } from "./family.js";
import { gpt2 } from "./gpt2.js";
import { llama } from "./llama.js";

/** Model families by `model_type` of config.json. */
export const families: Readonly<Record<string, Family>> = {
  gpt2,
  llama,
};
