import { type DType, sizeOf, type Tensor } from "@lowrank/tensor";
import { inputIds, inputValues } from "../formula.js";
import type { Task } from "../peers/peer.js";

/** Values that a case starts from. */
export interface Input {
  readonly shape: readonly number[];
  readonly values: Float32Array | Int32Array;
  readonly dtype: DType;
}

/** One kernel at one size: how it is built, what it costs, and what must come out. */
export interface Case {
  readonly name: string;
  /** Where it lies on the family's axis of sizes. */
  readonly size: number;
  /** The curve of the plot that it belongs to. */
  readonly curve: string;
  /** Floating-point operations: two for a multiply-add, one for each other operation, exp and tanh included. */
  readonly flops: number;
  /** Bytes of inputs read once and results written once. */
  readonly bytes: number;
  readonly inputs: readonly Input[];
  /** The results; the first is the one that is checked. */
  build(inputs: readonly Tensor[]): readonly Tensor[];
  /** The first result at some positions, in float64 from the inputs' stored values. */
  reference(inputs: readonly ArrayLike<number>[], positions: readonly number[]): number[];
  /** Largest absolute error allowed, and why it is what it is where that is not plain. */
  readonly tolerance: number;
  /** Error allowed besides, as a share of the value: rounding of long sums grows with what they come to. */
  readonly relative?: number;
  /** The same work as peers know it; null where none has it. */
  readonly task: Task | null;
}

/** Kernels of a kind. */
export interface Family {
  readonly name: string;
  /** What `Case.size` counts. */
  readonly sizeLabel: string;
  /** All cases, or a few small ones. */
  cases(isQuick: boolean): Case[];
}

/** Input number `number` of a case, by the formula that all sides share. */
export function input(number: number, shape: readonly number[], dtype: DType = "f32"): Input {
  return { shape, values: inputValues(sizeOf(shape), number, 0), dtype };
}

/** Row numbers or labels below a limit. */
export function ids(count: number, limit: number): Input {
  return { shape: [count], values: inputIds(count, limit), dtype: "i32" };
}

/** Bytes of f32 arrays of these element counts. */
export function f32Bytes(...counts: readonly number[]): number {
  return counts.reduce((sum, count) => sum + 4 * count, 0);
}

/** Σ a[i] b[i], in float64. `a` and `b` give element i. */
export function dot(count: number, a: (i: number) => number, b: (i: number) => number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += a(i) * b(i);
  return sum;
}

/** Element of a list that is there. */
export function at(values: ArrayLike<number> | undefined, index: number): number {
  return values?.[index] ?? Number.NaN;
}

/** Remembers the last result of a function of one number: sample positions of one row ask for the same row again and again. */
export function rowwise<T>(compute: (row: number) => T): (row: number) => T {
  const known = new Map<number, T>();
  return (row) => {
    const found = known.get(row) ?? compute(row);
    known.set(row, found);
    return found;
  };
}
