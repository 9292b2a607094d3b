import { epilogueLoop } from "../../kernels/epilogue.js";
import type { MatmulKernel, MatrixView, Slot } from "../../kernels/kernel.js";
import { printEpilogue } from "../../kernels/wasm/epilogue.js";
import { printFewRows, printSumParts } from "../../kernels/wasm/few-rows.js";
import { describeLoop, slotsOf } from "../../kernels/wasm/loop.js";
import { lowerTileLoop } from "../../kernels/wasm/lower.js";
import { type MatmulWord, matmulWords, maxTileRows, panelHeight, panelWidth, printMatmul, printPackB } from "../../kernels/wasm/matmul.js";
import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import type { KernelLibrary } from "./library.js";
import { vectorNanoseconds } from "./loop.js";
import type { Step, StepList, Word } from "./steps.js";

/** Bytes of packed b that one pair of steps works on at most; larger operands are taken in parts. */
const maxPackedBytes = 8 * 2 ** 20;
const nanosecondsPerProduct = 0.05;
/** With so few rows, packing b costs more than it saves. */
const fewRows = 4;
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

/** Rows and columns of a tile: large enough to reuse what is packed, small enough for eight tiles in all. */
function tileShape(m: number, n: number, batchCount: number): { rows: number; columns: number } {
  let rows = Math.min(maxTileRows, roundUp(m, panelHeight));
  let columns = Math.min(256, roundUp(n, panelWidth));
  while (batchCount * Math.ceil(m / rows) * Math.ceil(n / columns) < 8) {
    if (columns > 32 && columns >= rows) columns = roundUp(columns / 2, panelWidth);
    else if (rows > 16) rows = roundUp(rows / 2, panelHeight);
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
  const { m, n, k } = kernel;
  const aOffsets = batchOffsets(kernel.batch, kernel.a);
  const bOffsets = batchOffsets(kernel.batch, kernel.b);
  if (m * n * aOffsets.length === 0) return { steps: [], scratchBytes: 0 };
  const aType = dtypeOf(kernel.a.slot);
  const bType = dtypeOf(kernel.b.slot);
  const aBytes = dtypeBytes[aType];
  const bBytes = dtypeBytes[bType];
  const { adds = false, rows = number(m), depth = number(k) } = options;
  const few = Object.keys(options).length > 0 ? null : fewRowSteps(kernel, dtypeOf, { a: aOffsets, b: bOffsets }, library);
  if (few) return few;
  const pack = library.entry(`packB;${bType}`, (module, _, name) => printPackB(module, bType, name));
  const plain = library.entry(`matmul;${aType}`, (module, _, name) => printMatmul(module, aType, name));
  const multiply = multiplyWith(kernel, plain, dtypeOf, library);

  const steps: Step[] = [];
  let scratchBytes = 0;
  const columnsAtOnce = Math.max(
    panelWidth,
    Math.min(roundUp(n, panelWidth), Math.floor(maxPackedBytes / 4 / Math.max(k, 1) / panelWidth) * panelWidth),
  );
  const matrixBytes = columnsAtOnce * k * 4;
  const batchesAtOnce = columnsAtOnce < n ? 1 : Math.max(1, Math.floor(maxPackedBytes / Math.max(matrixBytes, 1)));
  for (let batch = 0; batch < aOffsets.length; batch += batchesAtOnce) {
    const aPart = aOffsets.slice(batch, batch + batchesAtOnce);
    const bPart = bOffsets.slice(batch, batch + batchesAtOnce);
    const unique = [...new Set(bPart)];
    const outPart = aPart.map((_, i) => (batch + i) * m * n);
    for (let column = 0; column < n; column += columnsAtOnce) {
      const columns = Math.min(columnsAtOnce, n - column);
      const tile = tileShape(m, columns, aPart.length);
      const rowTiles = Math.ceil(m / tile.rows);
      const tiles = rowTiles * Math.ceil(columns / tile.columns);
      const panels = Math.ceil(columns / panelWidth);
      const packPanels = Math.min(panels, Math.max(1, Math.round(16384 / Math.max(1, k * panelWidth))));
      const packTiles = Math.ceil(panels / packPanels);
      const table = (offsets: readonly number[], bytes: number, shift = 0): Word => ({
        kind: "constants",
        values: offsets.map((x) => (x + shift) * bytes),
      });
      const values = {
        a: { kind: "slot", slot: kernel.a.slot },
        b: { kind: "slot", slot: kernel.b.slot },
        out: { kind: "slot", slot: kernel.out },
        packed: { kind: "scratch", offset: 0 },
        m: rows,
        n: columns,
        k: depth,
        aRow: kernel.a.rowStride * aBytes,
        aColumn: kernel.a.columnStride * aBytes,
        bRow: kernel.b.rowStride * bBytes,
        bColumn: kernel.b.columnStride * bBytes,
        aOffsets: table(aPart, aBytes),
        bOffsets: table(unique, bBytes, column * kernel.b.columnStride),
        packedOffsets: table(
          bPart.map((offset) => unique.indexOf(offset)),
          matrixBytes,
        ),
        outOffsets: table(outPart, 4, column),
        outRow: n * 4,
        rowTiles,
        tiles,
        tileRows: tile.rows,
        tileColumns: tile.columns,
        packPanels,
        packTiles,
        adds: Number(adds),
      } as const satisfies Record<MatmulWord, Word>;
      const words = matmulWords.map((word) => values[word]);
      const packWords = matmulWords.map((word) =>
        word === "packedOffsets"
          ? table(
              unique.map((_, i) => i),
              matrixBytes,
            )
          : values[word],
      );
      if (k > 0) steps.push({ entry: pack, tiles: packTiles * unique.length, words: packWords, cost: unique.length * columns * k * 0.3 });
      steps.push({
        entry: multiply.entry,
        tiles: tiles * aPart.length,
        words: [...words, ...multiply.words(batch * m, column)],
        cost: aPart.length * m * columns * (k * nanosecondsPerProduct + multiply.cost),
      });
      scratchBytes = Math.max(scratchBytes, matrixBytes * unique.length);
    }
  }
  return { steps, scratchBytes };
}

/** One step that reads b as it lies; null where there are too many rows for that, or neither operand lies right. */
function fewRowSteps(
  kernel: MatmulKernel,
  dtypeOf: (slot: Slot) => DType,
  offsets: { readonly a: readonly number[]; readonly b: readonly number[] },
  library: KernelLibrary,
): StepList | null {
  const { m, n, k, a, b } = kernel;
  const runs = b.columnStride === 1 ? "down" : b.rowStride === 1 && a.columnStride === 1 ? "across" : null;
  if (m > fewRows || runs === null) return null;
  const types = { a: dtypeOf(a.slot), b: dtypeOf(b.slot) };
  const plain = library.entry(`fewRows;${types.a};${types.b};${runs}`, (module, _, name) => printFewRows(module, types, runs, name));
  // Eight tiles of long stretches, fewer where a tile would take less than it costs to hand out.
  const tileColumns = Math.min(1024, Math.max(64, roundUp(n / 8, 16), roundUp(16384 / Math.max(k, 1), 16)));
  const tiles = Math.ceil(n / tileColumns);
  const [aBytes, bBytes] = [dtypeBytes[types.a], dtypeBytes[types.b]];
  const table = (values: readonly number[], bytes: number): Word => ({ kind: "constants", values: values.map((x) => x * bytes) });
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
