import { smollm2Folder } from "../scripts/smollm2.mjs";
import { skipReason } from "./shared.js";

/** The folder of SmolLM2-135M-Instruct in bfloat16, a real model. Null where it cannot be made; the reason is printed once, and the test skips. */
export function smollm2(): string | null {
  const found = smollm2Folder();
  if ("path" in found) return found.path;
  skipReason(found.skipped);
  return null;
}
