import { concat, type Tensor } from "@lowrank/tensor";

/** A linear recurrence S′ = A S + B over chunks: A [..., chunks, k, k] a matrix, or [..., chunks, 1, 1] a number; B [..., chunks, k, v]. */
export interface Recurrence {
  readonly a: Tensor;
  readonly b: Tensor;
  /** True where A is a number per chunk. */
  readonly isScalar: boolean;
}

/** States of a recurrence. */
export interface ScannedStates {
  /** The state in front of each chunk, [..., chunks, k, v]. */
  readonly before: Tensor;
  /** The state behind the last chunk, [..., 1, k, v]. */
  readonly last: Tensor;
}

const chunkAxis = (x: Tensor): number => x.rank - 3;

/** Chunks `from`, `from + step`, … up to `to`. */
function every(x: Tensor, from: number, to: number, step: number): Tensor {
  const axis = chunkAxis(x);
  return x.slice(...x.shape.map((_, i) => (i === axis ? ([from, to, step] as const) : null)));
}

/**
 * All states of a recurrence, from `initial` [..., 1, k, v] or zeros. Pairs of chunks are joined into one, A = A₂ A₁ and B = A₂ B₁ + B₂,
 * the halved recurrence is solved likewise, and the states between the two of a pair follow: work linear in the chunks, in
 * 2 log₂(chunks) steps (Blelloch 1990).
 */
export function scanChunks({ a, b, isScalar }: Recurrence, initial: Tensor | null): ScannedStates {
  const count = b.shape[chunkAxis(b)] ?? 0;
  const times = (left: Tensor, right: Tensor): Tensor => (isScalar ? left.mul(right) : left.matmul(right));
  const behind = (chunk: number, state: Tensor | null): Tensor => {
    const added = every(b, chunk, chunk + 1, 1);
    return state ? times(every(a, chunk, chunk + 1, 1), state).add(added) : added;
  };
  if (count === 1) return { before: initial ?? every(b, 0, 1, 1).mul(0), last: behind(0, initial) };
  const paired = count - (count % 2);
  const [firstA, firstB] = [every(a, 0, paired, 2), every(b, 0, paired, 2)];
  const [secondA, secondB] = [every(a, 1, paired, 2), every(b, 1, paired, 2)];
  const halved = scanChunks({ a: times(secondA, firstA), b: times(secondA, firstB).add(secondB), isScalar }, initial);
  const between = times(firstA, halved.before).add(firstB);
  const axis = chunkAxis(b);
  const pairs = concat([halved.before.unsqueeze(axis + 1), between.unsqueeze(axis + 1)], axis + 1);
  const before = pairs.reshape(b.shape.map((size, i) => (i === axis ? paired : size)));
  if (paired === count) return { before, last: halved.last };
  return { before: concat([before, halved.last], axis), last: behind(count - 1, halved.last) };
}
