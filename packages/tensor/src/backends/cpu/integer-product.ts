import type { MatmulKernel, MatrixView, Slot } from "../../kernels/kernel.js";
import { isComputed } from "../../kernels/products.js";
import { printIntegerMatmul } from "../../kernels/wasm/integer-matmul.js";
import {
  integerPanelPlaces,
  integerPanelWords,
  integerRowsOfPanel,
  pairsOfGroup,
  printIntegerPanels,
} from "../../kernels/wasm/integer-panels.js";
import { panelWidth } from "../../kernels/wasm/matmul.js";
import type { DType } from "../../tensor/dtype.js";
import { sideBySide } from "./beside.js";
import { columnSlots, type IntegerRight, integerRight } from "./integer-panels.js";
import type { KernelLibrary } from "./library.js";
import { rowsStep, vectorNanoseconds } from "./loop.js";
import { argumentsOf, multiplyWith } from "./product.js";
import { roundUp } from "./round.js";
import { number, type Step, type StepList, table, type Word } from "./steps.js";
import { tiling } from "./tiling.js";

/** Bytes of packed columns, and of packed rows, that one pair of steps works on at most; more are taken in parts. */
const mostBytes = 4 * 2 ** 20;
/** Depth that is taken before the next panel at most: a panel of columns (32 KiB) then stays in the first-level cache. */
const mostDepth = 2048;
const nanosecondsPerProduct = 0.026;

/** Where the parts of what is packed begin in scratch memory. */
interface Places {
  readonly integers: number;
  readonly factors: number;
  readonly shifts: number;
  readonly rows: number;
  readonly rowScales: number;
  readonly rowSums: number;
  readonly bytes: number;
}

/**
 * The product of many rows, which may be rounded, with an operand of small integers times factors: rows are made integers of 16 bits with a scale a
 * block, as few rows are (`integerRowsSteps`), and groups of the depth that share a factor are added up exactly, eight products in an instruction.
 * Null where the operand is another, or too deep to be packed, or the rows are not f32 in memory.
 */
export function integerProductSteps(kernel: MatmulKernel, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList | null {
  const { m, n, k, a } = kernel;
  if (!kernel.isRounded || kernel.plus || isComputed(a) || k === 0) return null;
  const right = integerRight(kernel, dtypeOf);
  if (!right) return null;
  const most = Math.floor(mostBytes / bytesOfLane(right, k));
  if (most < panelWidth) return null;
  const columnsAtOnce = atOnce(n, most, panelWidth);
  const rowsAtOnce = atOnce(m, most, integerRowsOfPanel);
  const places = placesOf(right, k, columnsAtOnce, rowsAtOnce);
  const product = { pairs: pairsOfGroup(right.rows), hasSums: right.rows.hasSums };
  const entry = library.entry(`integerMatmul;${product.pairs};${product.hasSums}`, (module, _, name) =>
    printIntegerMatmul(module, product, name),
  );
  const multiply = multiplyWith(kernel, entry, dtypeOf, library);
  const groups = right.rows.blocks * right.rows.groups.length;
  const groupsAtOnce = Math.ceil(groups / Math.ceil(k / mostDepth));
  const scratch = (offset: number): Word => ({ kind: "scratch", offset });
  const steps: Step[] = [];
  for (let column = 0; column < n; column += columnsAtOnce) {
    const columns = Math.min(columnsAtOnce, n - column);
    for (let row = 0; row < m; row += rowsAtOnce) {
      const rows = Math.min(rowsAtOnce, m - row);
      const packs = row === 0 ? columnSteps(right, places, { column, columns, k }, dtypeOf, library) : [];
      if (column === 0 || rowsAtOnce < m) packs.push(rowStep(right, a, places, { row, rows, k }, library));
      if (packs.length > 0) steps.push(sideBySide(packs));
      const { rowTiles, columns: tileColumns } = tiling(
        rows,
        columns,
        integerRowsOfPanel,
        Math.max(8, Math.min(24, (rows * columns * k) / 2 ** 21)),
      );
      const tiles = rowTiles * Math.ceil(columns / tileColumns);
      const words = argumentsOf({
        a: scratch(places.rows),
        out: { kind: "slot", slot: kernel.out },
        packedB: scratch(places.integers),
        m: number(rows),
        n: columns,
        k: number(groups),
        blockDepth: groupsAtOnce,
        outOffsets: table([row * n + column], 4),
        outRow: n * 4,
        rowTiles,
        tiles,
        panelRows: integerRowsOfPanel,
        tileColumns,
        rowScales: scratch(places.rowScales),
        rowSums: scratch(places.rowSums),
        columnFactors: scratch(places.factors),
        columnShifts: scratch(places.shifts),
      });
      steps.push({
        entry: multiply.entry,
        tiles,
        words: [...words, ...multiply.words(row, column)],
        cost: rows * columns * (k * nanosecondsPerProduct + multiply.cost),
      });
    }
  }
  return { steps, scratchBytes: places.bytes };
}

/** How many of `all` are taken at a time, in whole panels, where `most` are allowed. */
function atOnce(all: number, most: number, panel: number): number {
  const parts = Math.ceil(all / (most - (most % panel)));
  return roundUp(all / parts, panel);
}

function groupsOf({ rows }: IntegerRight): number {
  return rows.blocks * rows.groups.length;
}

/** What is packed of a row or a column. */
function bytesOfLane(right: IntegerRight, k: number): number {
  return 2 * k + groupsOf(right) * (right.rows.hasSums ? 8 : 4);
}

function placesOf(right: IntegerRight, k: number, columns: number, rows: number): Places {
  const lanes = roundUp(columns, panelWidth);
  const factors = lanes * k * 2;
  const shifts = factors + lanes * groupsOf(right) * 4;
  const start = shifts + (right.rows.hasSums ? lanes * groupsOf(right) * 4 : 0);
  const { scales, sums, bytes } = integerPanelPlaces(right.rows, rows);
  return { integers: 0, factors, shifts, rows: start, rowScales: start + scales, rowSums: start + sums, bytes: start + bytes };
}

/** The steps that pack some columns; those of programs that begin at a later panel write where the first would. */
function columnSteps(
  right: IntegerRight,
  places: Places,
  { column, columns, k }: { readonly column: number; readonly columns: number; readonly k: number },
  dtypeOf: (slot: Slot) => DType,
  library: KernelLibrary,
): Step[] {
  const [first, count] = [column / panelWidth, Math.ceil(columns / panelWidth)];
  const typeOf = (slot: Slot): DType => (slot === columnSlots.integers ? "i32" : slot < 0 ? "f32" : dtypeOf(slot));
  const wordOf = (slot: Slot): Word => {
    if (slot >= 0) return { kind: "slot", slot };
    if (slot === columnSlots.integers) return { kind: "scratch", offset: places.integers - column * k * 2 };
    const place = slot === columnSlots.factors ? places.factors : places.shifts;
    return { kind: "scratch", offset: place - column * groupsOf(right) * 4 };
  };
  const step = (program: IntegerRight["factors"], rowsOfPanel: number): Step =>
    rowsStep(program, { first: first * rowsOfPanel, count: count * rowsOfPanel, all: count * rowsOfPanel }, wordOf, typeOf, library);
  return [step(right.integers, right.rowsOfPanel), step(right.factors, panelWidth)];
}

function rowStep(
  { rows: spec }: IntegerRight,
  a: MatrixView,
  places: Places,
  { row, rows, k }: { readonly row: number; readonly rows: number; readonly k: number },
  library: KernelLibrary,
): Step {
  const view = { offset: a.offset, rowStride: a.rowStride, columnStride: a.columnStride };
  const words = {
    rows: { kind: "slot", slot: a.slot, byteOffset: row * a.rowStride * 4 },
    integers: { kind: "scratch", offset: places.rows },
    scales: { kind: "scratch", offset: places.rowScales },
    sums: { kind: "scratch", offset: places.rowSums },
    count: rows,
  } as const satisfies Record<(typeof integerPanelWords)[number], Word>;
  return {
    entry: library.entry(`integerPanels;${JSON.stringify([spec, view])}`, (module, _, name) =>
      printIntegerPanels(module, spec, view, name),
    ),
    tiles: Math.ceil(rows / integerRowsOfPanel),
    words: integerPanelWords.map((word) => words[word]),
    cost: rows * k * 1.5 * vectorNanoseconds,
  };
}
