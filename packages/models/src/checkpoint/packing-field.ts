import type { Json } from "@lowrank/tensor";
import * as z from "zod/mini";
import { checked } from "../schema.js";

/** How config.json says that weights are packed. */
export interface SaidPacking {
  /** The tool's name: `quant_method`, or "mlx". */
  readonly name: string;
  readonly options: Json;
}

/** What a config says of quantization that the weights say themselves. */
const quantizationSchema = z.object({
  quantization: z.nullish(z.record(z.string(), z.unknown())),
  quantization_config: z.nullish(z.looseObject({ quant_method: z.optional(z.string()) })),
});

/** A config.json apart from what it says of quantization: of the whole model, or of the text model in it, as mlx-lm and some others have it. */
export function splitPacking(config: Json, path: string): { readonly json: Json; readonly packing: SaidPacking | null } {
  const { quantization_config, quantization, ...json } = config;
  const packing = saidIn({ quantization_config, quantization }, path);
  const inner = json["text_config"];
  if (typeof inner !== "object" || inner === null || Array.isArray(inner)) return { json, packing };
  const { quantization_config: ofText, quantization: ofMlx, ...text_config } = inner as Json;
  return { json: { ...json, text_config }, packing: packing ?? saidIn({ quantization_config: ofText, quantization: ofMlx }, path) };
}

/** How a config.json says that weights are packed; null where it does not. */
export function packingIn(config: Json, path: string): SaidPacking | null {
  return splitPacking(config, path).packing;
}

function saidIn(given: Json, path: string): SaidPacking | null {
  const { quantization: ofMlx, quantization_config: said } = checked(quantizationSchema, given, path);
  // mlx-lm says it twice, and names itself nowhere.
  if (ofMlx && said?.quant_method === undefined) return { name: "mlx", options: ofMlx };
  if (!said) return null;
  // Before it had names for methods, transformers knew one.
  const isBitsandbytes = said["load_in_4bit"] === true || said["load_in_8bit"] === true;
  return { name: said.quant_method ?? (isBitsandbytes ? "bitsandbytes" : "fp8"), options: said };
}
