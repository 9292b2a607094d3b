import type { MatmulKernel, Slot } from "../../kernels/kernel.js";
import { asView, isComputed } from "../../kernels/products.js";
import { bytesAheadOf, printFewRows, printSumParts } from "../../kernels/wasm/few-rows.js";
import type { MatmulWord } from "../../kernels/wasm/matmul.js";
import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import type { KernelLibrary } from "./library.js";
import { argumentsOf, batchOffsets, multiplyWith } from "./product.js";
import { roundUp } from "./round.js";
import { number, type StepList, table, type Word } from "./steps.js";

/** With so few rows, packing b costs more than it saves. */
export const fewRows = 4;
/** From so many rows on, products of matrices are added up in one kernel: it packs each b. */
export const leastSummedRows: number = fewRows + 1;
/** Into so many parts the depth is split where few rows meet a large b, of at least this many elements. */
const depthParts = 8;
const leastSplit = 65536;

/** With so few, packing b each time does, where its columns are contiguous: a head that is the embedding too is never kept in panels. */
const fewUnkeptRows = 8;

/** How b is read as it lies; null where there are too many rows for that, or neither operand lies right. */
function runsOf({ m, a, b, plus }: MatmulKernel, isUnkept = false): "down" | "across" | null {
  if (m > (isUnkept ? fewUnkeptRows : fewRows) || plus || isComputed(a) || isComputed(b)) return null;
  if (b.columnStride === 1) return m > fewRows ? null : "down";
  return b.rowStride === 1 && a.columnStride === 1 ? "across" : null;
}

/** True where `fewRowSteps` has steps. */
export function readsInPlace(kernel: MatmulKernel): boolean {
  return runsOf(kernel) !== null;
}

/**
 * One step that reads b as it lies; null where the product has too many rows for that, or further products are added to it. `isUnkept`
 * says that b will never be found in panels. Long: the values of the one step are the beginning of those of its parts.
 */
export function fewRowSteps(
  kernel: MatmulKernel,
  dtypeOf: (slot: Slot) => DType,
  library: KernelLibrary,
  isUnkept: boolean,
): StepList | null {
  const { m, n, k } = kernel;
  const runs = runsOf(kernel, isUnkept);
  if (runs === null) return null;
  const [a, b] = [asView(kernel.a), asView(kernel.b)];
  const offsets = { a: batchOffsets(kernel.batch, a), b: batchOffsets(kernel.batch, b) };
  const types = { a: dtypeOf(a.slot), b: dtypeOf(b.slot) };
  // Columns that overlap end before what is touched does.
  const ahead = runs === "across" && b.columnStride >= k ? bytesAheadOf(m, k, types.b) : 0;
  const key = `fewRows;${types.a};${types.b};${runs};${ahead}`;
  const plain = library.entry(key, (module, _, name) => printFewRows(module, types, runs, ahead, name));
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
    panelRows: m,
    tiles,
    tileColumns,
  };
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
    const words = [...argumentsOf({ ...values, a: { kind: "scratch", offset: 0 }, k: number(depthParts) }), ...finish.words(0, 0)];
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
