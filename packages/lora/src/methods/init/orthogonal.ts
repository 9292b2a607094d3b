import type { Generator } from "@lowrank/tensor";
import { type Tensor, tensor } from "@lowrank/tensor";
import { AdapterError } from "../../errors.js";
import { directions, orthonormalized } from "../../linalg/qr.js";

/**
 * A and B from the two halves of one orthogonal basis, so that neither is 0 and B A is: A = (X Q[even])ᵀ / 10 and B = (Yᵀ Q[odd]) / 10 with
 * random X [in, rank/2] and Y [rank/2, out]. peft's init_lora_weights="orthogonal". Throws AdapterError for an odd rank.
 */
export function orthogonal(generator: Generator, rank: number, inFeatures: number, outFeatures: number): { a: Tensor; b: Tensor } {
  if (rank % 2 !== 0)
    throw new AdapterError(`init "orthogonal" halves the rank, which is ${rank}. Use an even rank or another init.`, ["rank"]);
  const random = directions();
  const basis = orthonormalized(Float64Array.from({ length: rank * rank }, random), rank, rank);
  const half = (odd: 0 | 1): Tensor =>
    tensor(
      Float32Array.from({ length: (rank / 2) * rank }, (_, i) => basis[(2 * Math.floor(i / rank) + odd) * rank + (i % rank)] ?? 0),
      { device: generator.device, shape: [rank / 2, rank] },
    );
  return {
    a: generator
      .normal([inFeatures, rank / 2])
      .matmul(half(0))
      .t()
      .mul(0.1),
    b: generator
      .normal([outFeatures, rank / 2])
      .matmul(half(1))
      .mul(0.1),
  };
}
