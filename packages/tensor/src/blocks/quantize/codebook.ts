/** Cells of [−1, 1]: finer than any two borders of the codebooks of 16 are apart. */
const cells = 1024;

/** Finds the nearest of a few numbers in [−1, 1]; halfway between two the smaller. */
export interface Codebook {
  /** The numbers in the order of their codes. */
  readonly values: Float32Array;
  /** The code of the nearest to a number from −1 to 1. */
  nearest(value: number): number;
}

/** A codebook of numbers from −1 to 1 in any order. Where it has −0, that is the nearest to small numbers below 0. */
export function codebook(values: readonly number[]): Codebook {
  const kept = Float32Array.from(values);
  const isBelow = (a: number, b: number): boolean => a < b || (Object.is(a, -0) && Object.is(b, 0));
  const order = Uint8Array.from([...kept.keys()].sort((a, b) => (isBelow(kept[a] ?? 0, kept[b] ?? 0) ? -1 : 1)));
  const borders = Float64Array.from({ length: order.length - 1 }, (_, rank) => halfway(kept, order, rank));
  /** Rank of the nearest, by binary search. */
  const searched = (value: number): number => {
    let [low, high] = [0, borders.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (value > (borders[middle] ?? 0)) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  const gap = borders.reduce((least, border, rank) => Math.min(least, border - (borders[rank - 1] ?? Number.NEGATIVE_INFINITY)), 2);
  // Cells that hold several borders would need more than one comparison.
  if (gap <= 2 / cells) return { values: kept, nearest: (value) => order[searched(value)] ?? 0 };
  const lowest = Uint8Array.from({ length: cells + 1 }, (_, cell) => searched((2 * cell) / cells - 1));
  return {
    values: kept,
    nearest: (value) => {
      const rank = lowest[((value + 1) * (cells / 2)) | 0] ?? 0;
      return order[value > (borders[rank] ?? 2) ? rank + 1 : rank] ?? 0;
    },
  };
}

/** Between the number of a rank and the next; between −0 and 0 just below both. */
function halfway(values: Float32Array, order: Uint8Array, rank: number): number {
  const [low, high] = [values[order[rank] ?? 0] ?? 0, values[order[rank + 1] ?? 0] ?? 0];
  return low === high ? -Number.MIN_VALUE : (low + high) / 2;
}
