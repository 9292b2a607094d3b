import { positionIn, unitsOf } from "../../kernels/blocks.js";
import { epilogueLoop } from "../../kernels/epilogue.js";
import { ExprMakers, type Index } from "../../kernels/expr.js";
import type { AddedProduct, LoadOperand, LoopKernel, MatmulKernel, MatrixOperand, MatrixView, Slot, Store } from "../../kernels/kernel.js";
import { isComputed, productsOf } from "../../kernels/products.js";
import { substitute } from "../../kernels/substitute.js";
import { type LoopProgram, lowerRows } from "../../kernels/wasm/lower.js";
import type { DType } from "../../tensor/dtype.js";
import { sizeOf } from "../../tensor/shape.js";
import { elementOf, matricesOf, ownAxes, scratchSlot, walks } from "./computed.js";
import type { KernelLibrary } from "./library.js";
import { loopSteps, rowsStep } from "./loop.js";
import { matmulSteps } from "./matmul.js";
import { movedSteps } from "./move.js";
import { standIn } from "./stand-ins.js";
import type { Step, StepList, Word } from "./steps.js";

/** Bytes of computed left operands at a time. */
const mostBytes = 4 * 2 ** 20;
/** Stands for the part of the result that is being computed. */
const outSlot: Slot = standIn();
/** For each product of a sum, what stands for the rows of its computed operand. */
const rowsSlots: Slot[] = [];

/** Some rows of a computed left operand, and how to make them. */
interface ComputedLeft {
  readonly program: LoopProgram;
  readonly matrixCount: number;
  /** For each batch which matrix it multiplies. */
  readonly matrices: readonly number[];
}

/** A product whose left operand is computed: some rows of it at a time are computed into scratch memory and multiplied from there. */
export function computedLeftSteps(kernel: MatmulKernel, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList {
  const { m, n, batch, out, epilogue } = kernel;
  const products = productsOf(kernel);
  const lefts = products.map(({ a, k }) => (isComputed(a) ? leftOf(a, batch, [m, k], dtypeOf) : null));
  const width = products.reduce((sum, { k }, i) => sum + (lefts[i] ? k : 0), 0);
  const rowsAtOnce = Math.max(1, Math.min(m, Math.floor(mostBytes / 4 / Math.max(width, 1))));
  const places: number[] = [];
  let ownBytes = 0;
  for (const [i, { k }] of products.entries()) {
    places.push(ownBytes);
    if (lefts[i]) ownBytes += Math.ceil((rowsAtOnce * k) / 16) * 64;
  }
  const typeOf = (slot: Slot): DType => (slot < 0 ? "f32" : dtypeOf(slot));
  const steps: Step[] = [];
  let scratchBytes = ownBytes;
  const add = (list: StepList, outAt: number): void => {
    scratchBytes = Math.max(scratchBytes, ownBytes + list.scratchBytes);
    steps.push(
      ...movedSteps(list.steps, (word): Word => {
        if (word.kind === "scratch") return { kind: "scratch", offset: ownBytes + word.offset };
        if (word.kind !== "slot" || word.slot >= 0) return word;
        const offset = word.byteOffset ?? 0;
        if (word.slot === outSlot) return { kind: "slot", slot: out, byteOffset: outAt + offset };
        const place = places[rowsSlots.indexOf(word.slot)];
        if (place === undefined) throw new Error(`cpu: slot ${word.slot} stands for no rows of this product.`);
        return { kind: "scratch", offset: place + offset };
      }),
    );
  };
  for (let first = 0; first < m; first += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, m - first);
    const made = products.map((): number | null => null);
    for (let index = 0; index < sizeOf(batch); index++) {
      const at = indicesOf(index, batch);
      const own = products.map(({ a, b, k, factor }, i): AddedProduct => {
        const left = lefts[i];
        const right = withoutBatch(b, at);
        if (isComputed(a) && left) {
          const matrix = left.matrices[index] ?? 0;
          if (made[i] !== matrix) {
            const wordOf = (slot: Slot): Word =>
              slot === scratchSlot ? { kind: "scratch", offset: (places[i] ?? 0) - (matrix * m + first) * k * 4 } : { kind: "slot", slot };
            const rows = { first: matrix * m + first, count, all: left.matrixCount * m };
            steps.push(rowsStep(left.program, rows, wordOf, typeOf, library));
          }
          made[i] = matrix;
          const slot = (rowsSlots[i] ??= standIn());
          return { k, a: { slot, offset: 0, batchStrides: [], rowStride: k, columnStride: 1 }, b: right, factor };
        }
        const rows = withoutBatch(a, at) as MatrixView;
        return { k, a: { ...rows, offset: rows.offset + first * rows.rowStride }, b: right, factor };
      });
      const [main, ...plus] = own;
      if (!main) continue;
      const { factor: _, ...operands } = main;
      const part: MatmulKernel = { kind: "matmul", batch: [], m: count, n, ...operands, out: outSlot, ...(plus.length > 0 && { plus }) };
      add(matmulSteps(part, typeOf, library, { mostPackedBytes: mostBytes }), (index * m + first) * n * 4);
    }
  }
  if (epilogue) add(loopSteps(epilogueLoop(kernel, epilogue), 2 ** 30, dtypeOf, library), 0);
  return { steps, scratchBytes };
}

/** The batch's number as an index along each axis. */
function indicesOf(index: number, batch: readonly number[]): number[] {
  let rest = index;
  const at: number[] = [];
  for (const size of [...batch].reverse()) {
    at.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return at;
}

/** One matrix of an operand as an operand without batch axes. */
function withoutBatch(operand: MatrixOperand, at: readonly number[]): MatrixOperand {
  if (at.length === 0) return operand;
  if (!isComputed(operand)) {
    const offset = at.reduce((sum, i, axis) => sum + i * (operand.batchStrides[axis] ?? 0), operand.offset);
    return { ...operand, offset, batchStrides: [] };
  }
  const make = new ExprMakers();
  const value = substitute(operand.value, make, (axis, size) =>
    axis < at.length ? make.int(at[axis] ?? 0) : make.variable(axis - at.length, size),
  );
  return { value, slots: operand.slots };
}

/** The program whose rows are those of a computed left operand [m, k], matrix after matrix. */
function leftOf(
  operand: LoadOperand,
  batch: readonly number[],
  [m, k]: readonly [number, number],
  dtypeOf: (slot: Slot) => DType,
): ComputedLeft {
  const own = ownAxes(operand, batch);
  const make = new ExprMakers();
  const sizes = [...own.map((axis) => batch[axis] ?? 1), m];
  const batchAt = batch.map((size, axis) => (own.includes(axis) ? make.variable(own.indexOf(axis), size) : make.int(0)));
  const row = make.variable(own.length, m);
  const rowNumber = sizes.reduce<Index>(
    (index, size, axis) => make.add(make.mul(index, make.int(size)), make.variable(axis, size)),
    make.int(0),
  );
  const storeAt = (column: Index): Store => ({
    scope: "element",
    slot: scratchSlot,
    index: make.add(make.mul(rowNumber, make.int(k)), column),
    value: elementOf(make, operand, batch, { batch: batchAt, row, column }),
  });
  const blocks = walks(operand, batch, [m, k], dtypeOf).column?.blocks;
  const loop = (kernel: Pick<LoopKernel, "outer" | "inner" | "stores">): LoopKernel => ({ kind: "loop", reductions: [], ...kernel });
  const matrices = matricesOf(batch, own);
  const matrixCount = sizeOf(sizes.slice(0, -1));
  if (!blocks) {
    const kernel = loop({ outer: sizes, inner: k, stores: [storeAt(make.variable(sizes.length, k))] });
    return { program: lowerRows(kernel, "inner"), matrices, matrixCount };
  }
  const outer = [...sizes, blocks.lanes];
  const [lane, block] = [make.variable(sizes.length, blocks.lanes), make.variable(outer.length, k / blocks.size)];
  const stores = Array.from({ length: unitsOf(blocks) }, (_, unit) => storeAt(positionIn(make, blocks, block, unit, lane)));
  return { program: lowerRows(loop({ outer, inner: k / blocks.size, stores }), "outer"), matrices, matrixCount };
}
