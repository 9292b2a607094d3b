import type { GenerateOptions } from "@lowrank/models";
import type { Flags, Values } from "../flags.js";

/** How tokens are chosen, of every command that generates. */
export const samplingFlags = {
  temperature: { type: "number", min: 0, help: "0 is greedy; 1 samples as the model predicts", default: 0 },
  "top-k": { type: "integer", min: 0, help: "sample among the k likeliest tokens; 0: all", default: 0 },
  "top-p": { type: "number", above: 0, help: "sample among the likeliest tokens that hold this share; 1: all", default: 1 },
  "min-p": { type: "number", min: 0, below: 1, help: "only tokens this share as likely as the likeliest; 0: all", default: 0 },
  typical: { type: "number", above: 0, help: "only tokens of typical surprise that hold this share; 1: all", default: 1 },
  "repetition-penalty": { type: "number", above: 0, help: "make tokens that are there already less likely; 1: no", default: 1 },
  stop: { type: "texts", value: "TEXT", help: "end an answer where it has this text, which is left out; several may be given" },
  seed: { type: "integer", min: 0, help: "of the sampling", default: 0 },
} as const satisfies Flags;

/** What the flags say. */
export function samplingOf(values: Values<typeof samplingFlags>): Omit<GenerateOptions, "maxNewTokens"> {
  const { temperature, seed, typical } = values;
  return {
    temperature,
    ...(values["top-k"] > 0 ? { topK: values["top-k"] } : {}),
    ...(values["top-p"] < 1 ? { topP: values["top-p"] } : {}),
    ...(values["min-p"] > 0 ? { minP: values["min-p"] } : {}),
    ...(typical < 1 ? { typicalP: typical } : {}),
    ...(values["repetition-penalty"] === 1 ? {} : { repetitionPenalty: values["repetition-penalty"] }),
    seed,
  };
}
