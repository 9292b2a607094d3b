import { type HostMatrix, product } from "../../linalg/product.js";
import { svd } from "../../linalg/svd.js";

/**
 * Principal components of rows that come in batches (Ross et al. 2008), as scikit-learn's IncrementalPCA: each batch is put below the
 * components so far, times their singular values, with a row for the move of the mean.
 */
export class IncrementalPca {
  /** [count, width], orthonormal rows; null before the first batch. */
  components: Float64Array | null = null;
  singularValues: Float64Array = new Float64Array();
  /** Each component's share of the whole variance. */
  explained: Float64Array = new Float64Array();
  #mean: Float64Array;
  /** Σ (x − mean)² over all rows and columns. */
  #spread = 0;
  #seen = 0;

  constructor(
    /** Components that are kept. */
    readonly count: number,
    readonly width: number,
  ) {
    this.#mean = new Float64Array(width);
  }

  /** Takes in rows [rowCount, width]; `count` rows at least. */
  add(rows: HostMatrix, rowCount: number): void {
    const { width, count } = this;
    const batchMean = new Float64Array(width);
    for (const [i, value] of rows.entries()) batchMean[i % width] = (batchMean[i % width] ?? 0) + value / rowCount;
    const centred = Float64Array.from(rows, (value, i) => value - (batchMean[i % width] ?? 0));
    const total = this.#seen + rowCount;
    const moved = this.#mean.map((value, i) => value - (batchMean[i] ?? 0));
    const weight = (this.#seen * rowCount) / total;
    const sumOfSquares = (values: Float64Array): number => values.reduce((sum, value) => sum + value * value, 0);
    this.#spread += sumOfSquares(centred) + weight * sumOfSquares(moved);
    const parts: Float64Array[] = this.components
      ? [
          this.components.map((value, i) => value * (this.singularValues[Math.floor(i / width)] ?? 0)),
          centred,
          moved.map((value) => value * Math.sqrt(weight)),
        ]
      : [centred];
    const stacked = new Float64Array(parts.reduce((size, part) => size + part.length, 0));
    let at = 0;
    for (const part of parts) {
      stacked.set(part, at);
      at += part.length;
    }
    const { s, v } = svd(stacked, stacked.length / width, width, count);
    this.components = Float64Array.from({ length: s.length * width }, (_, i) => v[(i % width) * s.length + Math.floor(i / width)] ?? 0);
    this.singularValues = s;
    this.explained = s.map((value) => value ** 2 / this.#spread);
    this.#mean = this.#mean.map((value, i) => (value * this.#seen + (batchMean[i] ?? 0) * rowCount) / total);
    this.#seen = total;
  }

  /** The cosine between each component and that of the same number in other components. */
  similarity(other: Float64Array): Float64Array {
    const { components, width } = this;
    return Float64Array.from({ length: (components?.length ?? 0) / width }, (_, k) => {
      const row = (of: Float64Array): Float64Array => of.slice(k * width, (k + 1) * width);
      return components ? (product(row(components), row(other), 1, width, 1)[0] ?? 0) : 0;
    });
  }
}
