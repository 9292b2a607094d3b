import type { MatmulKernel, MatrixView } from "../src/kernels/kernel.js";
import { asView } from "../src/kernels/products.js";
import { type DType, decode, encode } from "../src/tensor/dtype.js";

/** Numbers in [-1, 1) as a dtype holds them, the same for the same seed. */
export function values(count: number, seed: number, dtype: DType): number[] {
  let state = seed;
  const raw = Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
  return Array.from(decode(encode(raw, dtype), dtype));
}

export const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);

/** out in float64, and Σ |a| |b|, to which rounding errors are relative. */
export function reference(
  { batch, m, n, k, ...operands }: MatmulKernel,
  x: readonly number[],
  y: readonly number[],
): { out: number[]; size: number[] } {
  const [a, b] = [asView(operands.a), asView(operands.b)];
  const out: number[] = [];
  const size: number[] = [];
  for (let at = 0; at < product(batch); at++) {
    let [aOffset, bOffset, rest] = [a.offset, b.offset, at];
    for (let axis = batch.length - 1; axis >= 0; axis--) {
      const i = rest % (batch[axis] ?? 1);
      rest = Math.floor(rest / (batch[axis] ?? 1));
      aOffset += i * (a.batchStrides[axis] ?? 0);
      bOffset += i * (b.batchStrides[axis] ?? 0);
    }
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        let total = 0;
        for (let d = 0; d < k; d++) {
          const term =
            (x[aOffset + i * a.rowStride + d * a.columnStride] ?? Number.NaN) *
            (y[bOffset + d * b.rowStride + j * b.columnStride] ?? Number.NaN);
          sum += term;
          total += Math.abs(term);
        }
        out.push(sum);
        size.push(total);
      }
    }
  }
  return { out, size };
}

/** A product to test. */
export interface Row {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch?: readonly number[];
  /** Whether the operand's inner axis is contiguous; `t` when the matrix is stored transposed, `s` with gaps. */
  readonly a?: "n" | "t" | "s";
  readonly b?: "n" | "t" | "s";
  readonly aType?: DType;
  readonly bType?: DType;
  /** Batch axes that an operand repeats. */
  readonly repeats?: { readonly a?: readonly number[]; readonly b?: readonly number[] };
}

/** An operand's strides, and how many elements its memory has. */
export function view(
  slot: number,
  rows: number,
  columns: number,
  batch: readonly number[],
  layout: "n" | "t" | "s",
  repeated: readonly number[],
  offset = 3,
): { view: MatrixView; count: number } {
  const gap = layout === "s" ? 2 : 1;
  const [rowStride, columnStride] = layout === "t" ? [1, rows] : [columns * gap, gap];
  let stride = rows * columns * gap;
  const batchStrides = new Array<number>(batch.length).fill(0);
  for (let axis = batch.length - 1; axis >= 0; axis--) {
    if (repeated.includes(axis)) continue;
    batchStrides[axis] = stride;
    stride *= batch[axis] ?? 1;
  }
  return { view: { slot, offset, batchStrides, rowStride, columnStride }, count: stride + offset };
}
