import { type Blocks, positionIn, unitsOf, type Walk, walkOf } from "../../kernels/blocks.js";
import { type Expr, ExprMakers, type Index, isInvariant } from "../../kernels/expr.js";
import type { LoadOperand, LoopKernel, MatrixOperand, Slot, Store } from "../../kernels/kernel.js";
import { isComputed } from "../../kernels/products.js";
import { substitute } from "../../kernels/substitute.js";
import { textOf } from "../../kernels/template.js";
import { type LoopProgram, lowerRows } from "../../kernels/wasm/lower.js";
import { panelWidth } from "../../kernels/wasm/matmul.js";
import { SmallIntegers } from "../../kernels/wasm/small-integers.js";
import type { DType } from "../../tensor/dtype.js";
import { sizeOf } from "../../tensor/shape.js";
import type { KernelLibrary } from "./library.js";
import { rowsStep } from "./loop.js";
import { standIn } from "./stand-ins.js";
import type { Step, Word } from "./steps.js";

/** Stands among a program's slots for scratch memory. */
export const scratchSlot: Slot = standIn();
/** Stand for what is made of a left operand: its blocks unit by unit, and their sums. */
export const laidOutSlot: Slot = standIn();
export const sumsSlot: Slot = standIn();

/** Positions along the depth that one row of a packing program covers: what it writes to a panel (8 KiB) stays in the first-level cache. */
export const depthAtOnce = 256;

/** A right operand of a product that is computed while it is packed. */
export interface ComputedRight {
  readonly program: LoopProgram;
  /** So many lanes take so many rows of the program. */
  readonly lanesAtOnce: number;
  readonly rowsAtOnce: number;
  readonly matrixRows: number;
  /** Matrices that differ, and which of them each batch multiplies with. */
  readonly matrixCount: number;
  readonly matrices: readonly number[];
  /** Lanes of a matrix in whole panels. */
  readonly lanes: number;
}

/** The batch axes on which an operand depends. */
export function ownAxes({ value }: LoadOperand, batch: readonly number[]): number[] {
  return batch.flatMap((size, axis) => (size > 1 && !isInvariant(value, axis) ? [axis] : []));
}

/** The element of an operand in terms of others' variables. */
export function elementOf(
  make: ExprMakers,
  operand: MatrixOperand,
  sizes: readonly number[],
  at: { readonly batch: readonly Index[]; readonly row: Index; readonly column: Index },
): Expr {
  if (isComputed(operand)) {
    const all = [...at.batch, at.row, at.column];
    return substitute(operand.value, make, (axis) => all[axis] ?? make.int(0));
  }
  const times = (position: Index, stride: number): Index => make.mul(position, make.int(stride));
  let index = make.add(times(at.row, operand.rowStride), times(at.column, operand.columnStride));
  for (const [axis, position] of at.batch.entries())
    if ((sizes[axis] ?? 1) > 1) index = make.add(index, times(position, operand.batchStrides[axis] ?? 0));
  return make.load("f32", operand.slot, make.add(index, make.int(operand.offset)));
}

/** What was found out of an expression, by what it was asked for. */
type Findings = Map<string, unknown>;

/** Expressions of which findings are kept; beyond it all are forgotten, which costs time and nothing else. */
const maxRemembered = 1024;
const byText = new Map<string, Findings>();
const byExpression = new WeakMap<Expr, Findings>();

/** What is found out of an expression, once for each key, and once for all kernels that hold an equal one. */
export function once<T>(value: Expr, key: string, find: () => T): T {
  const known = byExpression.get(value) ?? findingsOf(value);
  if (!known.has(key)) known.set(key, find());
  return known.get(key) as T;
}

function findingsOf(value: Expr): Findings {
  const text = textOf(value);
  let known = byText.get(text);
  if (!known) {
    if (byText.size >= maxRemembered) byText.clear();
    byText.set(text, (known = new Map()));
  }
  byExpression.set(value, known);
  return known;
}

/** How an operand is walked best along its row or its column; either is found when it is read. */
export function walks(
  { value, slots }: LoadOperand,
  batch: readonly number[],
  [rows, columns]: readonly [number, number],
  dtypeOf: (slot: Slot) => DType,
): { readonly row: Walk | null; readonly column: Walk | null } {
  const along = (axis: number, size: number): Walk | null =>
    once(value, `walk ${axis} ${size} ${slots.map(dtypeOf).join()}`, () => walkOf(value, axis, size, new SmallIntegers(dtypeOf, axis)));
  const rank = batch.length;
  return {
    get row() {
      return along(rank, rows);
    },
    get column() {
      return along(rank + 1, columns);
    },
  };
}

/** How a right operand [k, n] is packed: the sizes, and a number by which it is multiplied. */
interface RightSizes {
  readonly batch: readonly number[];
  readonly k: number;
  readonly n: number;
  readonly factor: number;
}

/** The program that packs a computed right operand [k, n] of a product. */
export function computedRight(operand: LoadOperand, sizes: RightSizes, dtypeOf: (slot: Slot) => DType): ComputedRight {
  const { batch, k, n, factor } = sizes;
  const key = `right ${batch.join()} ${k} ${n} ${factor} ${operand.slots.map(dtypeOf).join()}`;
  return once(operand.value, key, () => rightOf(operand, sizes, dtypeOf));
}

function rightOf(operand: LoadOperand, { batch, k, n, factor }: RightSizes, dtypeOf: (slot: Slot) => DType): ComputedRight {
  const own = ownAxes(operand, batch);
  const ownSizes = own.map((axis) => batch[axis] ?? 1);
  const matrixCount = sizeOf(ownSizes);
  const lanes = Math.ceil(n / panelWidth) * panelWidth;
  const make = new ExprMakers();
  const matrixAt = own.map((axis, i) => ({ axis, variable: make.variable(i, batch[axis] ?? 1) }));
  const batchAt = batch.map((_, axis) => matrixAt.find((each) => each.axis === axis)?.variable ?? make.int(0));
  const matrix = matrixAt.reduce<Index>(
    (index, { variable }, i) => make.add(make.mul(index, make.int(ownSizes[i] ?? 1)), variable),
    make.int(0),
  );
  const first = own.length;
  /** The stores of all units, each of four lanes, of which one has column and depth as given. */
  const stores = (units: number, at: (unit: number) => { readonly column: Index; readonly depth: Index }): Store[] =>
    Array.from({ length: units }, (_, unit) => {
      const { column, depth } = at(unit);
      const isPadded = lanes !== n;
      const inside = isPadded ? make.index("min", column, make.int(n - 1)) : column;
      let value = elementOf(make, operand, batch, { batch: batchAt, row: depth, column: inside });
      if (isPadded) value = make.select(make.binary("lt", column, make.int(n)), value, make.constant("f32", 0));
      if (factor !== 1) value = make.binary("mul", value, make.constant("f32", factor));
      const panel = make.add(make.mul(matrix, make.int(lanes / panelWidth)), make.index("div", column, make.int(panelWidth)));
      const inPanel = make.add(make.mul(depth, make.int(panelWidth)), make.index("mod", column, make.int(panelWidth)));
      return { scope: "element", slot: scratchSlot, index: make.add(make.mul(panel, make.int(k * panelWidth)), inPanel), value };
    });
  const { row: down, column: across } = walks(operand, batch, [k, n], dtypeOf);
  const mayGoAcross = across !== null && across.blocks.size % panelWidth === 0 && lanes === n;
  if (down && !(mayGoAcross && across.cost <= down.cost)) {
    const { blocks } = down;
    const count = k / blocks.size;
    let atOnce = Math.max(1, Math.min(count, Math.floor(depthAtOnce / blocks.size)));
    while (count % atOnce !== 0) atOnce--;
    const outer = [...ownSizes, lanes / panelWidth, count / atOnce, panelWidth, blocks.lanes];
    const [panel, chunk, inPanel, lane] = [0, 1, 2, 3].map((i) => make.variable(first + i, outer[first + i] ?? 1)) as [
      Index,
      Index,
      Index,
      Index,
    ];
    const block = make.add(make.mul(chunk, make.int(atOnce)), make.variable(outer.length, atOnce));
    const column = make.add(make.mul(panel, make.int(panelWidth)), inPanel);
    const kernel: LoopKernel = {
      kind: "loop",
      outer,
      inner: atOnce,
      reductions: [],
      stores: stores(unitsOf(blocks), (unit) => ({ column, depth: positionIn(make, blocks, block, unit, lane) })),
    };
    return finished(kernel, panelWidth, (count / atOnce) * panelWidth);
  }
  const blocks: Blocks = mayGoAcross ? across.blocks : { size: panelWidth, step: 1, lanes: 4 };
  const outer = [...ownSizes, lanes / blocks.size, blocks.lanes];
  const [block, lane] = [make.variable(first, outer[first] ?? 1), make.variable(first + 1, blocks.lanes)];
  const depth = make.variable(outer.length, k);
  const kernel: LoopKernel = {
    kind: "loop",
    outer,
    inner: k,
    reductions: [],
    stores: stores(unitsOf(blocks), (unit) => ({ column: positionIn(make, blocks, block, unit, lane), depth })),
  };
  return finished(kernel, blocks.size, 1);

  function finished(loop: LoopKernel, lanesAtOnce: number, rowsAtOnce: number): ComputedRight {
    const matrixRows = (lanes / lanesAtOnce) * rowsAtOnce;
    return {
      program: lowerRows(loop, "outer"),
      lanesAtOnce,
      rowsAtOnce,
      matrixRows,
      matrixCount,
      matrices: matricesOf(batch, own),
      lanes,
    };
  }
}

/** For each batch, in order, the number of its matrix among those of the axes on which it depends. */
export function matricesOf(batch: readonly number[], own: readonly number[]): number[] {
  return batch.reduce<number[]>(
    (numbers, size, axis) =>
      numbers.flatMap((number) => Array.from({ length: size }, (_, i) => (own.includes(axis) ? number * size + i : number))),
    [0],
  );
}

/** The steps that pack lanes of some matrices, each to a place of its own in scratch memory. */
export function computedSteps(
  { program, lanesAtOnce, rowsAtOnce, matrixRows, matrixCount, lanes }: ComputedRight,
  part: { readonly matrices: readonly number[]; readonly lane: number; readonly lanes: number; readonly depth: number },
  placeOf: (index: number) => number,
  dtypeOf: (slot: Slot) => DType,
  library: KernelLibrary,
): Step[] {
  const skipped = Math.floor(part.lane / lanesAtOnce) * rowsAtOnce;
  const count = Math.min(Math.ceil(part.lanes / lanesAtOnce) * rowsAtOnce, matrixRows - skipped);
  return part.matrices.map((matrix, i) => {
    const wordOf = (slot: Slot): Word =>
      slot === scratchSlot
        ? { kind: "scratch", offset: placeOf(i) - (matrix * lanes + part.lane) * part.depth * 4 }
        : { kind: "slot", slot };
    const rows = { first: matrix * matrixRows + skipped, count, all: matrixRows * matrixCount };
    return rowsStep(program, rows, wordOf, (slot) => (slot === scratchSlot ? "f32" : dtypeOf(slot)), library);
  });
}
