import type { AddedProduct, MatmulKernel, MatrixOperand, MatrixView, Slot } from "../../kernels/kernel.js";
import { asView, isComputed, productsOf } from "../../kernels/products.js";
import { matmulWords, maxBlockDepth, type PanelHeight, panelWidth, printMatmul } from "../../kernels/wasm/matmul.js";
import { printProductSum } from "../../kernels/wasm/product-sum.js";
import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import { largest } from "../../tensor/extremes.js";
import { sizeOf } from "../../tensor/shape.js";
import { sideBySide } from "./beside.js";
import { computedRight } from "./computed.js";
import { deepSteps } from "./computed-depth.js";
import { computedLeftSteps } from "./computed-left.js";
import { fewComputedSteps } from "./computed-rows.js";
import { fewRowSteps } from "./few-rows.js";
import { integerProductSteps } from "./integer-product.js";
import type { KernelLibrary } from "./library.js";
import { type Operand, type Panels, type Part, packSteps, panelsBytes, panelWords } from "./packing.js";
import { argumentsOf, batchOffsets, type Multiply, multiplyWith } from "./product.js";
import { roundUp } from "./round.js";
import { number, type Step, type StepList, table, type Word } from "./steps.js";
import { tiling } from "./tiling.js";

/** Bytes of packed operands that one pair of steps works on at most; a larger b is taken in parts. */
const maxPackedBytes = 8 * 2 ** 20;
const nanosecondsPerProduct = 0.05;
/** One batch axis less where a whole axis of rows can be taken as rows of one product: b does not depend on it and rows follow on. */
export function collapsed(kernel: MatmulKernel): MatmulKernel {
  const last = kernel.batch.length - 1;
  const size = kernel.batch[last];
  const { a, b } = kernel;
  if (size === undefined || isComputed(a) || isComputed(b)) return kernel;
  const isShared = b.batchStrides[last] === 0 && a.batchStrides[last] === kernel.m * a.rowStride;
  if (size !== 1 && !isShared) return kernel;
  const without = (view: MatrixView): MatrixView => ({ ...view, batchStrides: view.batchStrides.slice(0, last) });
  return collapsed({ ...kernel, batch: kernel.batch.slice(0, last), m: kernel.m * size, a: without(a), b: without(b) });
}

/**
 * Rows of a register tile. Fused multiply-adds of six rows take 0.93 of the time that those of four take for as many products, but panels
 * of six take longer to pack, which few rows or columns do not pay back. Where multiply-add is two instructions, six rows leave no
 * registers for what lies between them.
 */
function panelHeight(m: number, n: number, hasFusedMultiplyAdd: boolean): PanelHeight {
  return hasFusedMultiplyAdd && m >= 64 && n >= 16 && roundUp(m, 6) * 0.93 < roundUp(m, 4) ? 6 : 4;
}

/** Depth of the blocks of k: as few as can be, and as alike. */
function blockDepth(k: number): number {
  return k === 0 ? 1 : Math.ceil(k / Math.ceil(k / maxBlockDepth));
}

/** A function that computes tiles of a product as `entry` does, and adds those of further products as `added` do, before the epilogue. */
function addWith(
  kernel: MatmulKernel,
  entry: number,
  added: readonly number[],
  dtypeOf: (slot: Slot) => DType,
  library: KernelLibrary,
): Multiply {
  if (added.length === 0) return multiplyWith(kernel, entry, dtypeOf, library);
  // Where the addresses of the others' arguments stand does not depend on the function, but on what an epilogue puts in front of them.
  const at = matmulWords.length + multiplyWith(kernel, entry, dtypeOf, library).words(0, 0).length;
  const key = `sum;${at};${entry};${added.join()}`;
  const sum = library.entry(key, (module, _, name) => printProductSum(module, entry, added, at, name));
  return multiplyWith(kernel, sum, dtypeOf, library);
}

/** One of a kernel's products: its operands, and the function that multiplies them. */
interface Factors {
  readonly a: MatrixView;
  readonly aType: DType;
  readonly b: Operand;
  readonly multiply: number;
}

function factorsOf(
  { a: left, b, k, factor }: AddedProduct,
  { batch, n }: MatmulKernel,
  height: PanelHeight,
  dtypeOf: (slot: Slot) => DType,
  library: KernelLibrary,
): Factors {
  const a = asView(left);
  const aType = dtypeOf(a.slot);
  return {
    a,
    aType,
    b: { ...rightOf(b, batch, k, n, factor, dtypeOf), depth: k },
    multiply: library.entry(`matmul;${aType};${height}`, (module, _, name) => printMatmul(module, aType, height, name)),
  };
}

function rightOf(
  b: MatrixOperand,
  batch: readonly number[],
  k: number,
  n: number,
  factor: number,
  dtypeOf: (slot: Slot) => DType,
): Pick<Operand, "source" | "offsets"> {
  if (isComputed(b)) {
    const source = computedRight(b, { batch, k, n, factor }, dtypeOf);
    return { source, offsets: source.matrices };
  }
  const { slot, columnStride: laneStride, rowStride: depthStride } = b;
  return { source: { slot, dtype: dtypeOf(slot), laneStride, depthStride, factor }, offsets: batchOffsets(batch, b) };
}

/** How a product differs from what the kernel says. */
export interface MatmulOptions {
  /** It is added to what `out` holds. */
  readonly adds?: boolean;
  /** Where steps before have counted how many rows, or how much of the depth, there are: at most the kernel's. */
  readonly rows?: Word;
  readonly depth?: Word;
  /** Slots whose matrices lie in panels: right operands that are whole, of f32, without a factor or batches of their own. */
  readonly inPanels?: ReadonlySet<Slot>;
  /** By what the product is multiplied. */
  readonly factor?: number;
  /** Whether the right operand comes from outside and is never kept in panels, whatever that would save. */
  readonly isUnkept?: boolean;
  /** Bytes of packed operands at a time, where others than usual. */
  readonly mostPackedBytes?: number;
}

/** The steps of a product. Long: every size follows from those above it, and the steps from all of them. */
export function matmulSteps(
  given: MatmulKernel,
  dtypeOf: (slot: Slot) => DType,
  library: KernelLibrary,
  options: MatmulOptions = {},
): StepList {
  const kernel = collapsed(given);
  const { m, n } = kernel;
  const batchCount = sizeOf(kernel.batch);
  if (m * n * batchCount === 0) return { steps: [], scratchBytes: 0 };
  const { adds = false, rows, depth: countedDepth, inPanels, factor = 1, mostPackedBytes = maxPackedBytes } = options;
  if (productsOf(kernel).some(({ a }) => isComputed(a))) return computedLeftSteps(kernel, dtypeOf, library);
  const computed = adds || factor !== 1 ? null : fewComputedSteps(kernel, dtypeOf, library);
  if (computed) return computed;
  const integers = adds || factor !== 1 || rows || countedDepth ? null : integerProductSteps(kernel, dtypeOf, library);
  if (integers) return integers;
  const deep = deepSteps(kernel, mostPackedBytes, dtypeOf, library);
  if (deep) return deep;
  const few = adds || factor !== 1 || rows || countedDepth ? null : fewRowSteps(kernel, dtypeOf, library, options.isUnkept === true);
  if (few) return few;
  const height = panelHeight(m, n, library.options.hasRelaxedSimd === true);
  const depth = productsOf(kernel).reduce((sum, { k }) => sum + k, 0);
  const isInPanels = (b: MatrixOperand): boolean => !isComputed(b) && inPanels?.has(b.slot) === true;
  const packedDepth = productsOf(kernel).reduce((sum, { b, k }) => sum + (isInPanels(b) ? 0 : k), 0);
  const products = productsOf(kernel).map((product, i) => ({
    ...factorsOf(i === 0 ? { ...product, factor } : product, kernel, height, dtypeOf, library),
    isInPanels: isInPanels(product.b),
  }));
  const [entry = 0, ...added] = products.map(({ multiply }) => multiply);
  const multiply = addWith(kernel, entry, added, dtypeOf, library);
  const leastTiles = Math.max(8, Math.min(24, (m * n * depth * batchCount) / 2 ** 20));
  // Parts of computed operands begin where their programs have rows.
  const grain = largest(
    products.map(({ b }) => ("program" in b.source ? b.source.lanesAtOnce : panelWidth)),
    panelWidth,
  );
  const mostColumns = Math.max(grain, Math.floor(mostPackedBytes / 4 / Math.max(packedDepth, 1) / grain) * grain);
  const columnsAtOnce = roundUp(n / Math.ceil(n / mostColumns), n > mostColumns ? grain : panelWidth);
  const packedBytes = columnsAtOnce * packedDepth * 4;
  const batchesAtOnce = columnsAtOnce < n ? 1 : Math.max(1, Math.floor(mostPackedBytes / Math.max(packedBytes, 1)));
  let scratchBytes = 0;
  const placed = products.map((factors) => {
    const at = factors.isInPanels ? null : scratchBytes;
    const panels: Panels = { operand: factors.b, lanesAtOnce: columnsAtOnce, batchesAtOnce, at };
    scratchBytes += panelsBytes(panels);
    return { ...factors, panels, offsets: batchOffsets(kernel.batch, factors.a) };
  });

  const steps: Step[] = [];
  for (let batch = 0; batch < batchCount; batch += batchesAtOnce) {
    const count = Math.min(batchesAtOnce, batchCount - batch);
    for (let column = 0; column < n; column += columnsAtOnce) {
      const columns = Math.min(columnsAtOnce, n - column);
      const part: Part = { batch, count, lane: column, lanes: columns, countedDepth };
      const { rowTiles, columns: tileColumns } = tiling(m, columns, height, leastTiles / count);
      const tiles = rowTiles * Math.ceil(columns / tileColumns);
      const packs = placed.flatMap(({ panels }) => packSteps(panels, part, dtypeOf, library));
      const words = placed.map(({ a, aType, b, panels, offsets }, i) => {
        const bytes = dtypeBytes[aType];
        const packed = panelWords(panels, part);
        return argumentsOf({
          a: { kind: "slot", slot: a.slot },
          out: { kind: "slot", slot: kernel.out },
          packedB: packed.to,
          m: rows ?? number(m),
          n: columns,
          k: countedDepth ?? number(b.depth),
          blockDepth: blockDepth(b.depth),
          aRow: a.rowStride * bytes,
          aColumn: a.columnStride * bytes,
          aOffsets: table(offsets.slice(batch, batch + count), bytes),
          packedBOffsets: packed.offsets,
          outOffsets: table(
            Array.from({ length: count }, (_, j) => (batch + j) * m * n),
            4,
            column,
          ),
          outRow: n * 4,
          rowTiles,
          tiles,
          panelRows: height,
          tileColumns,
          adds: Number(adds || i > 0),
        });
      });
      if (packs.length > 0) steps.push(sideBySide(packs));
      steps.push({
        entry: multiply.entry,
        tiles: tiles * count,
        words: [
          ...(words[0] ?? []),
          ...multiply.words(batch * m, column),
          ...words.slice(1).map((list) => ({ kind: "words", words: list }) as const),
        ],
        cost: count * m * columns * (depth * nanosecondsPerProduct + multiply.cost),
      });
    }
  }
  return { steps, scratchBytes };
}
