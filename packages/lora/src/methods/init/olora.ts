import { product } from "../../linalg/product.js";
import { orthonormalized } from "../../linalg/qr.js";
import type { Factors, WeightStart } from "./pissa.js";

/**
 * OLoRA (Büyükakyüz 2024, algorithm 1): with W = Q R, B is Q's first `rank` columns and A is R's first rows. Q's first columns depend on
 * W's first columns only. W is [out, in] for every layer, GPT-2's Conv1D too, where PEFT takes the stored [in, out] by mistake.
 */
export function olora({ weight, outFeatures, inFeatures, rank }: WeightStart): Factors {
  const first = Float64Array.from({ length: outFeatures * rank }, (_, i) => weight[Math.floor(i / rank) * inFeatures + (i % rank)] ?? 0);
  const b = orthonormalized(first, outFeatures, rank);
  return { a: product(b, weight, rank, outFeatures, inFeatures, true), b };
}
