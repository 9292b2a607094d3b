import { grad } from "@lowrank/autograd";
import { attention as attend, type Tensor } from "@lowrank/tensor";
import { at, type Case, dot, type Family, f32Bytes, input, rowwise } from "./family.js";

interface AttentionSizes {
  readonly batch: number;
  readonly heads: number;
  readonly length: number;
  readonly headDim: number;
  readonly isBackward: boolean;
  /** Keys that a query sees at most. */
  readonly window?: number;
}

/** Causal attention; backward is all three gradients from scratch, the forward pass included. Causal work is counted as done: half. */
export function attentionCase({ batch, heads, length, headDim, isBackward, window = length }: AttentionSizes): Case {
  const shape = [batch, heads, length, headDim];
  const count = batch * heads * length * headDim;
  // Keys that queries see on average, without the half of a key that each sees of its own place.
  const seen = window - window ** 2 / (2 * length);
  const forwardFlops = 4 * batch * heads * length * seen * headDim;
  const scale = 1 / Math.sqrt(headDim);
  return {
    name: `${isBackward ? "forward + backward" : "forward"}, T ${length}${window < length ? `, window ${window}` : ""}`,
    size: length,
    curve: isBackward ? "forward + backward" : "forward",
    // Two products forward; five more backward (the scores again, dV, dP, dQ, dK).
    flops: isBackward ? forwardFlops * 3.5 : forwardFlops,
    bytes: isBackward ? f32Bytes(4 * count, 3 * count) : f32Bytes(3 * count, count),
    inputs: [0, 1, 2, ...(isBackward ? [3] : [])].map((number) => input(number, shape)),
    build([q, k, v, dOut]) {
      const out = attend(q as Tensor, k as Tensor, v as Tensor, { isCausal: true, ...(window < length && { window }) });
      return dOut ? grad(out.mul(dOut).sum(), [q as Tensor, k as Tensor, v as Tensor]) : [out];
    },
    reference: ([q, k, v, dOut], positions) => {
      // Row r of all heads sees the last `window` of the keys 0 … r mod length of its own head.
      const weightsOf = rowwise((row) => {
        const seen = Math.min((row % length) + 1, window);
        const first = row + 1 - seen;
        const scores = Array.from({ length: seen }, (_, j) =>
          Math.exp(
            scale *
              dot(
                headDim,
                (i) => at(q, row * headDim + i),
                (i) => at(k, (first + j) * headDim + i),
              ),
          ),
        );
        const total = scores.reduce((sum, score) => sum + score, 0);
        return { first, weights: scores.map((score) => score / total) };
      });
      const gradientsOf = rowwise((row) => {
        const { first, weights } = weightsOf(row);
        const products = weights.map((_, j) =>
          dot(
            headDim,
            (i) => at(dOut, row * headDim + i),
            (i) => at(v, (first + j) * headDim + i),
          ),
        );
        const mean = dot(
          weights.length,
          (j) => at(weights, j),
          (j) => at(products, j),
        );
        return { first, weights: weights.map((weight, j) => weight * (at(products, j) - mean) * scale) };
      });
      return positions.map((position) => {
        const [row, column] = [Math.floor(position / headDim), position % headDim];
        const { first, weights } = isBackward ? gradientsOf(row) : weightsOf(row);
        return dot(
          weights.length,
          (j) => at(weights, j),
          (j) => at(isBackward ? k : v, (first + j) * headDim + column),
        );
      });
    },
    tolerance: 1e-5,
    task: { task: "attention", batch, heads, length, headDim, causal: true, backward: isBackward, seed: 0 },
  };
}

/** Causal attention and its gradients by sequence length. */
export const attention: Family = {
  name: "attention",
  sizeLabel: "sequence length",
  cases: (isQuick) =>
    (isQuick ? [64] : [64, 128, 256, 512, 1024]).flatMap((length) =>
      [false, true].map((isBackward) =>
        attentionCase({ batch: 1, heads: isQuick ? 2 : 6, length, headDim: isQuick ? 32 : 64, isBackward }),
      ),
    ),
};
