import { epilogueLoop } from "../../kernels/epilogue.js";
import { ExprMakers } from "../../kernels/expr.js";
import type { MatmulKernel, MatrixOperand, Slot } from "../../kernels/kernel.js";
import { isComputed, productsOf } from "../../kernels/products.js";
import { substitute } from "../../kernels/substitute.js";
import type { DType } from "../../tensor/dtype.js";
import { computedRight } from "./computed.js";
import type { KernelLibrary } from "./library.js";
import { loopSteps } from "./loop.js";
import { matmulSteps } from "./matmul.js";
import type { Step, StepList } from "./steps.js";

/** A depth in whole blocks, where it is cut. */
const wholeBlocks = 128;

/**
 * A product whose computed right operands are so deep that not even the fewest of their columns are packed within some bytes: it is added up
 * over parts of the depth. Null where there are none.
 */
export function deepSteps(
  kernel: MatmulKernel,
  mostBytes: number,
  dtypeOf: (slot: Slot) => DType,
  library: KernelLibrary,
): StepList | null {
  const { n, batch, epilogue } = kernel;
  const products = productsOf(kernel);
  const bytes = products.reduce(
    (sum, { b, k, factor }) => sum + (isComputed(b) ? k * computedRight(b, { batch, k, n, factor }, dtypeOf).lanesAtOnce * 4 : 0),
    0,
  );
  if (bytes <= mostBytes) return null;
  const steps: Step[] = [];
  let scratchBytes = 0;
  const add = (list: StepList): void => {
    for (const step of list.steps) steps.push(step);
    scratchBytes = Math.max(scratchBytes, list.scratchBytes);
  };
  let isFirst = true;
  for (const { a, b, k, factor } of products) {
    const lanes = isComputed(b) ? computedRight(b, { batch, k, n, factor }, dtypeOf).lanesAtOnce : 1;
    const most = Math.max(1, Math.floor(mostBytes / 4 / lanes));
    const atOnce = most >= wholeBlocks ? most - (most % wholeBlocks) : most;
    for (let first = 0; first < k; first += atOnce) {
      const depth = Math.min(atOnce, k - first);
      const part = { k: depth, a: shifted(a, batch.length, 0, first), b: shifted(b, batch.length, first, 0) };
      const alone: MatmulKernel = { kind: "matmul", batch, m: kernel.m, n, out: kernel.out, ...part };
      add(matmulSteps(alone, dtypeOf, library, { adds: !isFirst, factor, mostPackedBytes: mostBytes }));
      isFirst = false;
    }
  }
  if (epilogue) add(loopSteps(epilogueLoop(kernel, epilogue), 2 ** 30, dtypeOf, library));
  return { steps, scratchBytes };
}

/** The operand from a row and a column on. */
function shifted(operand: MatrixOperand, rank: number, row: number, column: number): MatrixOperand {
  if (!isComputed(operand)) return { ...operand, offset: operand.offset + row * operand.rowStride + column * operand.columnStride };
  const make = new ExprMakers();
  const value = substitute(operand.value, make, (axis, size) => {
    const start = axis === rank ? row : axis === rank + 1 ? column : 0;
    return make.add(make.variable(axis, size - start), make.int(start));
  });
  return { value, slots: operand.slots };
}
