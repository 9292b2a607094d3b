import { epilogueLoop } from "../../kernels/epilogue.js";
import type { AddedProduct, MatmulKernel, MatrixView, Slot } from "../../kernels/kernel.js";
import { productsOf } from "../../kernels/products.js";
import { printEpilogue } from "../../kernels/wasm/epilogue.js";
import { printFewRows, printSumParts } from "../../kernels/wasm/few-rows.js";
import { describeLoop, slotsOf } from "../../kernels/wasm/loop.js";
import { lowerTileLoop } from "../../kernels/wasm/lower.js";
import {
  type MatmulWord,
  matmulWords,
  maxBlockDepth,
  maxTileRows,
  type PanelHeight,
  panelWidth,
  printMatmul,
  printPackB,
} from "../../kernels/wasm/matmul.js";
import { panelsAbreast } from "../../kernels/wasm/pack.js";
import { printProductSum } from "../../kernels/wasm/product-sum.js";
import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import { sizeOf } from "../../tensor/shape.js";
import { sideBySide } from "./beside.js";
import type { KernelLibrary } from "./library.js";
import { vectorNanoseconds } from "./loop.js";
import type { Step, StepList, Word } from "./steps.js";

/** Bytes of packed b that one pair of steps works on at most; larger operands are taken in parts. */
const maxPackedBytes = 8 * 2 ** 20;
const nanosecondsPerProduct = 0.05;
/** With so few rows, packing b costs more than it saves. */
const fewRows = 4;
/** From so many rows on, products of matrices are added up in one kernel: it packs each b. */
export const leastSummedRows: number = fewRows + 1;
/** Into so many parts the depth is split where few rows meet a large b, of at least this many elements. */
const depthParts = 8;
const leastSplit = 65536;

/** One batch axis less where a whole axis of rows can be taken as rows of one product: b does not depend on it and rows follow on. */
function collapsed(kernel: MatmulKernel): MatmulKernel {
  const last = kernel.batch.length - 1;
  const size = kernel.batch[last];
  if (size === undefined) return kernel;
  const isShared = kernel.b.batchStrides[last] === 0 && kernel.a.batchStrides[last] === kernel.m * kernel.a.rowStride;
  if (size !== 1 && !isShared) return kernel;
  const without = (view: MatrixView): MatrixView => ({ ...view, batchStrides: view.batchStrides.slice(0, last) });
  return collapsed({ ...kernel, batch: kernel.batch.slice(0, last), m: kernel.m * size, a: without(kernel.a), b: without(kernel.b) });
}

/** Element offset of each matrix of a batch, last axis fastest. */
function batchOffsets(batch: readonly number[], view: MatrixView): number[] {
  return batch.reduce<number[]>(
    (offsets, size, axis) =>
      offsets.flatMap((offset) => Array.from({ length: size }, (_, i) => offset + i * (view.batchStrides[axis] ?? 0))),
    [view.offset],
  );
}

/**
 * Rows of a register tile. Fused multiply-adds of five rows take 0.88 of the time that those of four take for as many products, but panels
 * of five take longer to pack, which few rows or columns do not pay back. Where multiply-add is two instructions, five rows leave no
 * registers for what lies between them.
 */
function panelHeight(m: number, n: number, hasFusedMultiplyAdd: boolean): PanelHeight {
  return hasFusedMultiplyAdd && m >= 64 && n >= 16 && roundUp(m, 5) * 0.88 < roundUp(m, 4) ? 5 : 4;
}

/** Depth of the blocks of k: as few as can be, and as alike. */
function blockDepth(k: number): number {
  return k === 0 ? 1 : Math.ceil(k / Math.ceil(k / maxBlockDepth));
}

/** Rows, `maxRows` at most, and columns of a tile: large enough to reuse what is packed, small enough for eight tiles in all. */
function tileShape(m: number, n: number, height: PanelHeight, maxRows: number, batchCount: number): { rows: number; columns: number } {
  let rows = roundUp(m / Math.ceil(m / maxRows), height);
  let columns = Math.min(256, roundUp(n, panelWidth));
  while (batchCount * Math.ceil(m / rows) * Math.ceil(n / columns) < 8) {
    if (columns > 32 && columns >= rows) columns = roundUp(columns / 2, panelWidth);
    else if (rows > 16) rows = roundUp(rows / 2, height);
    else break;
  }
  return { rows, columns };
}

/** A function that computes tiles of a product and does with them what the kernel asks for. */
interface Multiply {
  readonly entry: number;
  /** What its arguments are after the matmul's own, for the part of the product that begins at a row (of all batches) and a column. */
  readonly words: (firstRow: number, firstColumn: number) => readonly Word[];
  /** Nanoseconds for an element beside its products. */
  readonly cost: number;
}

function multiplyWith(kernel: MatmulKernel, entry: number, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): Multiply {
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

/** One of a kernel's products: where the matrices of each batch lie, and the functions for their types. */
interface Operands extends AddedProduct {
  readonly aOffsets: readonly number[];
  readonly bOffsets: readonly number[];
  readonly aBytes: number;
  readonly bBytes: number;
  readonly pack: number;
  readonly multiply: number;
}

function operandsOf(
  product: AddedProduct,
  batch: readonly number[],
  height: PanelHeight,
  dtypeOf: (slot: Slot) => DType,
  library: KernelLibrary,
): Operands {
  const [aType, bType] = [dtypeOf(product.a.slot), dtypeOf(product.b.slot)];
  const isScaled = product.factor !== 1;
  return {
    ...product,
    aOffsets: batchOffsets(batch, product.a),
    bOffsets: batchOffsets(batch, product.b),
    aBytes: dtypeBytes[aType],
    bBytes: dtypeBytes[bType],
    pack: library.entry(`packB;${bType}${isScaled ? ";scaled" : ""}`, (module, _, name) => printPackB(module, bType, isScaled, name)),
    multiply: library.entry(`matmul;${aType};${height}`, (module, _, name) => printMatmul(module, aType, height, name)),
  };
}

/** How a product differs from what the kernel says. */
export interface MatmulOptions {
  /** It is added to what `out` holds. */
  readonly adds?: boolean;
  /** Where steps before have counted how many rows, or how much of the depth, there are: at most the kernel's. */
  readonly rows?: Word;
  readonly depth?: Word;
}

/** The steps of a product. */
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
  const { adds = false, rows = number(m) } = options;
  const few = Object.keys(options).length > 0 || kernel.plus ? null : fewRowSteps(kernel, dtypeOf, library);
  if (few) return few;
  const height = panelHeight(m, n, library.options.hasRelaxedSimd === true);
  const products = productsOf(kernel).map((product) => operandsOf(product, kernel.batch, height, dtypeOf, library));
  const [entry = 0, ...added] = products.map(({ multiply }) => multiply);
  const multiply = addWith(kernel, entry, added, dtypeOf, library);

  const steps: Step[] = [];
  let scratchBytes = 0;
  const depth = products.reduce((sum, { k }) => sum + k, 0);
  const maxRows = Math.min(...products.map(({ k }) => maxTileRows(blockDepth(k))));
  const columnsAtOnce = Math.max(
    panelWidth,
    Math.min(roundUp(n, panelWidth), Math.floor(maxPackedBytes / 4 / Math.max(depth, 1) / panelWidth) * panelWidth),
  );
  const batchesAtOnce = columnsAtOnce < n ? 1 : Math.max(1, Math.floor(maxPackedBytes / Math.max(columnsAtOnce * depth * 4, 1)));
  for (let batch = 0; batch < batchCount; batch += batchesAtOnce) {
    const count = Math.min(batchesAtOnce, batchCount - batch);
    for (let column = 0; column < n; column += columnsAtOnce) {
      const columns = Math.min(columnsAtOnce, n - column);
      const tile = tileShape(m, columns, height, maxRows, count);
      const rowTiles = Math.ceil(m / tile.rows);
      const tiles = rowTiles * Math.ceil(columns / tile.columns);
      const shared = {
        out: { kind: "slot", slot: kernel.out },
        m: rows,
        n: columns,
        outOffsets: table(
          Array.from({ length: count }, (_, i) => (batch + i) * m * n),
          4,
          column,
        ),
        outRow: n * 4,
        rowTiles,
        tiles,
        tileRows: tile.rows,
        tileColumns: tile.columns,
      } as const;
      const packs: Step[] = [];
      let packedAt = 0;
      const words = products.map((product, i): Word[] => {
        const operands = { ...shared, k: options.depth ?? number(product.k), adds: Number(adds || i > 0) };
        const part = packed(product, batch, count, column, columnsAtOnce, packedAt, operands);
        packedAt += part.bytes;
        if (product.k > 0) packs.push(part.step);
        return part.words;
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
      scratchBytes = Math.max(scratchBytes, packedAt);
    }
  }
  return { steps, scratchBytes };
}

function table(offsets: readonly number[], bytes: number, shift = 0): Word {
  return { kind: "constants", values: offsets.map((x) => (x + shift) * bytes) };
}

/** How some columns of a product's b are packed from `packedAt` on in scratch memory, and the arguments with which they are multiplied. */
function packed(
  product: Operands,
  batch: number,
  count: number,
  column: number,
  columnsAtOnce: number,
  packedAt: number,
  shared: Pick<
    Record<MatmulWord, Word>,
    "out" | "m" | "k" | "outOffsets" | "outRow" | "rowTiles" | "tiles" | "tileRows" | "tileColumns" | "adds"
  > & {
    readonly n: number;
  },
): { readonly step: Step; readonly words: Word[]; readonly bytes: number } {
  const { a, b, k, aBytes, bBytes } = product;
  const offsets = product.bOffsets.slice(batch, batch + count);
  const unique = [...new Set(offsets)];
  const matrixBytes = columnsAtOnce * k * 4;
  const panels = Math.ceil(shared.n / panelWidth);
  const packPanels = Math.min(panels, Math.max(panelsAbreast, Math.round(16384 / Math.max(1, k * panelWidth))));
  const packTiles = Math.ceil(panels / packPanels);
  const values: Record<MatmulWord, Word> = {
    ...shared,
    a: { kind: "slot", slot: a.slot },
    b: { kind: "slot", slot: b.slot },
    blockDepth: blockDepth(k),
    packed: { kind: "scratch", offset: packedAt },
    aRow: a.rowStride * aBytes,
    aColumn: a.columnStride * aBytes,
    bRow: b.rowStride * bBytes,
    bColumn: b.columnStride * bBytes,
    aOffsets: table(product.aOffsets.slice(batch, batch + count), aBytes),
    bOffsets: table(unique, bBytes, column * b.columnStride),
    packedOffsets: table(
      offsets.map((offset) => unique.indexOf(offset)),
      matrixBytes,
    ),
    packPanels,
    packTiles,
    factor: new Int32Array(Float32Array.of(product.factor).buffer)[0] ?? 0,
  };
  const packedOffsets = table(
    unique.map((_, i) => i),
    matrixBytes,
  );
  const cost = unique.length * shared.n * k * 0.3;
  return {
    step: {
      entry: product.pack,
      tiles: packTiles * unique.length,
      words: matmulWords.map((word) => (word === "packedOffsets" ? packedOffsets : values[word])),
      cost,
    },
    words: matmulWords.map((word) => values[word]),
    bytes: matrixBytes * unique.length,
  };
}

/** One step that reads b as it lies; null where there are too many rows for that, or neither operand lies right. */
function fewRowSteps(kernel: MatmulKernel, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList | null {
  const { m, n, k, a, b } = kernel;
  const offsets = { a: batchOffsets(kernel.batch, a), b: batchOffsets(kernel.batch, b) };
  const runs = b.columnStride === 1 ? "down" : b.rowStride === 1 && a.columnStride === 1 ? "across" : null;
  if (m > fewRows || runs === null) return null;
  const types = { a: dtypeOf(a.slot), b: dtypeOf(b.slot) };
  const plain = library.entry(`fewRows;${types.a};${types.b};${runs}`, (module, _, name) => printFewRows(module, types, runs, name));
  // Eight tiles of long stretches, fewer where a tile would take less than it costs to hand out.
  const tileColumns = Math.min(1024, Math.max(64, roundUp(n / 8, 16), roundUp(16384 / Math.max(k, 1), 16)));
  const tiles = Math.ceil(n / tileColumns);
  const [aBytes, bBytes] = [dtypeBytes[types.a], dtypeBytes[types.b]];
  const values: Partial<Record<MatmulWord, Word>> = {
    a: { kind: "slot", slot: a.slot },
    b: { kind: "slot", slot: b.slot },
    out: { kind: "slot", slot: kernel.out },
    m: number(m),
    n,
    k: number(k),
    aRow: a.rowStride * aBytes,
    aColumn: a.columnStride * aBytes,
    bRow: b.rowStride * bBytes,
    bColumn: b.columnStride * bBytes,
    aOffsets: table(offsets.a, aBytes),
    bOffsets: table(offsets.b, bBytes),
    outOffsets: table(
      offsets.a.map((_, i) => i * m * n),
      4,
    ),
    outRow: n * 4,
    // All rows in one tile.
    rowTiles: 1,
    tileRows: m,
    tiles,
    tileColumns,
  };
  const argumentsOf = (given: Partial<Record<MatmulWord, Word>>): Word[] => matmulWords.map((word) => given[word] ?? 0);
  if (runs === "down" && offsets.a.length === 1 && k % depthParts === 0 && k * n >= leastSplit) {
    // A part of the depth is one stretch of memory, which a processor reads twice as fast as columns side by side.
    const part = k / depthParts;
    const parts = Array.from({ length: depthParts }, (_, i) => i);
    const partial = argumentsOf({
      ...values,
      out: { kind: "scratch", offset: 0 },
      k: number(part),
      aOffsets: table(
        parts.map((i) => (offsets.a[0] ?? 0) + i * part * a.columnStride),
        aBytes,
      ),
      bOffsets: table(
        parts.map((i) => (offsets.b[0] ?? 0) + i * part * b.rowStride),
        bBytes,
      ),
      outOffsets: table(
        parts.map((i) => i * m * n),
        4,
      ),
      tiles: 1,
      tileColumns: n,
    });
    const sum = library.entry("sumParts", (module, _, name) => printSumParts(module, name));
    const finish = multiplyWith(kernel, sum, dtypeOf, library);
    const words = [...argumentsOf({ ...values, packed: { kind: "scratch", offset: 0 }, k: number(depthParts) }), ...finish.words(0, 0)];
    return {
      steps: [
        { entry: plain, tiles: depthParts, words: partial, cost: n * k * (0.1 + 0.1 * m) },
        { entry: finish.entry, tiles, words, cost: m * n * (depthParts * 0.1 + finish.cost) },
      ],
      scratchBytes: depthParts * m * n * 4,
    };
  }
  const multiply = multiplyWith(kernel, plain, dtypeOf, library);
  const words = [...argumentsOf(values), ...multiply.words(0, 0)];
  const cost = offsets.a.length * n * (k * (0.1 + 0.1 * m) + m * multiply.cost);
  return { steps: [{ entry: multiply.entry, tiles: tiles * offsets.a.length, words, cost }], scratchBytes: 0 };
}

/** A number by its address. */
function number(value: number): Word {
  return { kind: "constants", values: [value] };
}

function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}
