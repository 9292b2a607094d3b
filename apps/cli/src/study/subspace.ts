import { svd } from "@lowrank/lora";

/** A dense layer and the pair that was trained beside it, all row-major. */
export interface TrainedPair {
  /** The layer's name in the model. */
  readonly name: string;
  readonly rank: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** [rank, in] */
  readonly a: Float32Array;
  /** [out, rank] */
  readonly b: Float32Array;
  /** The frozen weight [out, in]. */
  readonly weight: Float32Array;
  readonly scaling: number;
}

/** Orthonormal directions as columns, [size, count] row-major, the strongest first. */
export interface Directions {
  readonly vectors: Float64Array;
  readonly size: number;
  readonly count: number;
}

/** The right singular vectors of A, [in, rank]: the directions that a pair looks at (LoRA, section 7.2). */
export function rightDirections(a: Float32Array, rank: number, inFeatures: number): Directions {
  const { v, s } = svd(a, rank, inFeatures, Math.min(rank, inFeatures));
  return { vectors: v, size: inFeatures, count: s.length };
}

/**
 * φ(A, B, i, j) = ‖UᵢᵀVⱼ‖² / min(i, j), the share of the smaller of two subspaces that the other contains: 1 where one holds the other, 0
 * where they are orthogonal (LoRA, section 7.2, eq. 4). Of the first i directions of one and the first j of the other, for all i and j asked for.
 */
export function subspaceSimilarity(first: Directions, second: Directions, rows: readonly number[], columns: readonly number[]): number[][] {
  const [n, m] = [first.count, second.count];
  // sums[i][j] = ‖UᵢᵀVⱼ‖²: squares of all inner products, summed over the corner before (i, j).
  const sums = Array.from({ length: n + 1 }, () => new Float64Array(m + 1));
  for (let i = 1; i <= n; i++) {
    for (let j = 1; j <= m; j++) {
      let dot = 0;
      for (let k = 0; k < first.size; k++) dot += (first.vectors[k * n + i - 1] ?? 0) * (second.vectors[k * m + j - 1] ?? 0);
      const [above, left, corner] = [sums[i - 1]?.[j] ?? 0, sums[i]?.[j - 1] ?? 0, sums[i - 1]?.[j - 1] ?? 0];
      (sums[i] as Float64Array)[j] = dot * dot + above + left - corner; // i ≤ n
    }
  }
  return rows.map((i) => columns.map((j) => (sums[i]?.[j] ?? Number.NaN) / Math.min(i, j)));
}

/** What a pair adds to its layer, taken apart. */
export interface LearnedChange {
  /** Singular values of ΔW, which fall. */
  readonly singularValues: readonly number[];
  /** ‖ΔW‖ (Frobenius). */
  readonly norm: number;
  /** ‖ΔW‖ / ‖Uᵀ W V‖ with the singular vectors U, V of ΔW: how much more the layer does along its new directions (LoRA, section 7.3). */
  readonly amplification: number;
}

/** ΔW = scaling · B A by its singular values, and how much it amplifies of W. ΔW itself is never formed: B = U S Vᵀ first, then S Vᵀ A. */
export function learnedChange({ a, b, weight, scaling, rank, inFeatures, outFeatures }: TrainedPair): LearnedChange {
  const left = svd(b, outFeatures, rank, Math.min(rank, outFeatures));
  const width = left.s.length;
  const core = new Float64Array(width * inFeatures);
  for (let i = 0; i < width; i++) {
    for (let r = 0; r < rank; r++) {
      const factor = (left.s[i] ?? 0) * (left.v[r * width + i] ?? 0);
      for (let c = 0; c < inFeatures; c++)
        core[i * inFeatures + c] = (core[i * inFeatures + c] ?? 0) + factor * (a[r * inFeatures + c] ?? 0);
    }
  }
  const right = svd(core, width, inFeatures, Math.min(width, inFeatures));
  const singularValues = Array.from(right.s, (value) => value * Math.abs(scaling));
  const norm = Math.hypot(...singularValues);
  // Directions without any change in them are arbitrary: they do not count.
  const kept = singularValues.filter((value) => value > 1e-6 * (singularValues[0] ?? 0)).length;
  const u = new Float64Array(outFeatures * kept);
  for (let o = 0; o < outFeatures; o++)
    for (let i = 0; i < kept; i++)
      for (let k = 0; k < width; k++)
        u[o * kept + i] = (u[o * kept + i] ?? 0) + (left.u[o * width + k] ?? 0) * (right.u[k * right.s.length + i] ?? 0);
  return {
    singularValues,
    norm,
    amplification: norm / projectedNorm(weight, u, right.v, { outFeatures, inFeatures, kept, stride: right.s.length }),
  };
}

/** ‖Uᵀ W V‖ for U [out, kept] and the first `kept` columns of V [in, stride]. */
function projectedNorm(
  weight: Float32Array,
  u: Float64Array,
  v: Float64Array,
  {
    outFeatures,
    inFeatures,
    kept,
    stride,
  }: { readonly outFeatures: number; readonly inFeatures: number; readonly kept: number; readonly stride: number },
): number {
  const result = new Float64Array(kept * kept);
  const seen = new Float64Array(kept);
  for (let o = 0; o < outFeatures; o++) {
    seen.fill(0);
    for (let c = 0; c < inFeatures; c++) {
      const value = weight[o * inFeatures + c] ?? 0;
      for (let j = 0; j < kept; j++) seen[j] = (seen[j] ?? 0) + value * (v[c * stride + j] ?? 0);
    }
    for (let i = 0; i < kept; i++)
      for (let j = 0; j < kept; j++) result[i * kept + j] = (result[i * kept + j] ?? 0) + (u[o * kept + i] ?? 0) * (seen[j] ?? 0);
  }
  return Math.sqrt(result.reduce((sum, value) => sum + value * value, 0));
}

/** How many of the largest singular values hold a share of ‖ΔW‖². */
export function effectiveRank(singularValues: readonly number[], share = 0.95): number {
  const whole = singularValues.reduce((sum, value) => sum + value * value, 0);
  let part = 0;
  const at = singularValues.findIndex((value) => (part += value * value) >= share * whole - 1e-12);
  return at < 0 ? singularValues.length : at + 1;
}

/** The dimensions that a heat map shows: every one up to 8, then ever fewer. */
export function dimensions(count: number): number[] {
  const marks = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256];
  const fit = marks.filter((mark) => mark <= count);
  return fit.at(-1) === count ? fit : [...fit, count];
}
