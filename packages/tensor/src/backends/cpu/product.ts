import { epilogueLoop } from "../../kernels/epilogue.js";
import type { MatmulKernel, MatrixView, Slot } from "../../kernels/kernel.js";
import { describeLoop } from "../../kernels/wasm/describe.js";
import { printEpilogue } from "../../kernels/wasm/epilogue.js";
import { slotsOf } from "../../kernels/wasm/loop.js";
import { lowerTileLoop } from "../../kernels/wasm/lower.js";
import { type MatmulWord, matmulWords } from "../../kernels/wasm/matmul.js";
import type { DType } from "../../tensor/dtype.js";
import type { KernelLibrary } from "./library.js";
import { vectorNanoseconds } from "./loop.js";
import type { Word } from "./steps.js";

/** Element offset of each matrix of a batch, last axis fastest. */
export function batchOffsets(batch: readonly number[], view: MatrixView): number[] {
  return batch.reduce<number[]>(
    (offsets, size, axis) =>
      offsets.flatMap((offset) => Array.from({ length: size }, (_, i) => offset + i * (view.batchStrides[axis] ?? 0))),
    [view.offset],
  );
}

/** A product's arguments; those that its function does not read may be absent. */
export function argumentsOf(given: Partial<Record<MatmulWord, Word>>): Word[] {
  return matmulWords.map((word) => given[word] ?? 0);
}

/** A function that computes tiles of a product and does with them what the kernel asks for. */
export interface Multiply {
  readonly entry: number;
  /** What its arguments are after the matmul's own, for the part of the product that begins at a row (of all batches) and a column. */
  readonly words: (firstRow: number, firstColumn: number) => readonly Word[];
  /** Nanoseconds for an element beside its products. */
  readonly cost: number;
}

export function multiplyWith(kernel: MatmulKernel, entry: number, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): Multiply {
  const { epilogue } = kernel;
  if (!epilogue) return { entry, words: () => [], cost: 1 };
  const program = lowerTileLoop(epilogueLoop(kernel, epilogue));
  const slots = slotsOf(program).map((slot): Word => ({ kind: "slot", slot }));
  const key = `matmul ${entry};${describeLoop(program, dtypeOf)}`;
  return {
    entry: library.entry(key, (module, scalarMath, name) => printEpilogue(module, scalarMath, entry, program, dtypeOf, name)),
    words: (firstRow, firstColumn) => [firstRow, firstColumn, ...slots],
    cost: 1 + (program.work * vectorNanoseconds) / (epilogue.inner * program.kernel.outer.reduce((all, size) => all * size, 1)),
  };
}
