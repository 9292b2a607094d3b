import { type Blocks, firstOfUnit, positionIn, unitsOf } from "../../kernels/blocks.js";
import { type Expr, ExprMakers, type Index } from "../../kernels/expr.js";
import type { LoadOperand, LoopKernel, MatmulKernel, Slot, Store } from "../../kernels/kernel.js";
import { isComputed } from "../../kernels/products.js";
import { type IntegerPanels, pairsOfGroup } from "../../kernels/wasm/integer-panels.js";
import { type LoopProgram, lowerRows } from "../../kernels/wasm/lower.js";
import { panelWidth } from "../../kernels/wasm/matmul.js";
import { SmallIntegers } from "../../kernels/wasm/small-integers.js";
import type { DType } from "../../tensor/dtype.js";
import { sizeOf } from "../../tensor/shape.js";
import { depthAtOnce, elementOf, once, walks } from "./computed.js";
import { affineInteger, type Group, grouped, type IntegerPart } from "./factored.js";
import { standIn } from "./stand-ins.js";

/** Stand for what is made of the columns: their pairs of integers, factors and shifts. */
export const columnSlots: { readonly integers: Slot; readonly factors: Slot; readonly shifts: Slot } = {
  integers: standIn(),
  factors: standIn(),
  shifts: standIn(),
};

/** A right operand of integers in groups with a factor each: how both operands are packed. */
export interface IntegerRight {
  readonly rows: IntegerPanels;
  /** Rows of the first program that make a panel; those of the second are as many as its lanes. */
  readonly integers: LoopProgram;
  readonly rowsOfPanel: number;
  readonly factors: LoopProgram;
}

/** Null for an operand that is not such. */
export function integerRight(kernel: MatmulKernel, dtypeOf: (slot: Slot) => DType): IntegerRight | null {
  const { a, b, k, n, batch } = kernel;
  if (!isComputed(b) || isComputed(a) || dtypeOf(a.slot) !== "f32" || sizeOf(batch) !== 1) return null;
  const key = `integers ${batch.join()} ${k} ${n} ${b.slots.map(dtypeOf).join()}`;
  return once(b.value, key, () => {
    const { row: down } = walks(b, batch, [k, n], dtypeOf);
    return down && down.blocks.lanes === 16 ? rightOf(b, { batch, k, n, blocks: down.blocks }, dtypeOf) : null;
  });
}

interface Sizes {
  readonly batch: readonly number[];
  readonly k: number;
  readonly n: number;
  readonly blocks: Blocks;
}

/** Where an element of a column is. */
interface Place {
  readonly column: Index;
  readonly block: Index;
  readonly lane: Index;
}

function rightOf(b: LoadOperand, sizes: Sizes, dtypeOf: (slot: Slot) => DType): IntegerRight | null {
  const { k, n, blocks } = sizes;
  const panels = Math.ceil(n / panelWidth);
  const count = k / blocks.size;
  let atOnce = Math.max(1, Math.min(count, Math.floor(depthAtOnce / blocks.size)));
  while (count % atOnce !== 0) atOnce--;
  const make = new ExprMakers();
  const outer = [panels, count / atOnce, panelWidth, blocks.lanes];
  const [panel, chunk, inPanel, lane] = outer.map((size, axis) => make.variable(axis, size)) as [Index, Index, Index, Index];
  const block = make.add(make.mul(chunk, make.int(atOnce)), make.variable(outer.length, atOnce));
  const found = columnOf(make, b, sizes, { column: columnIn(make, panel, inPanel, n), block, lane }, dtypeOf);
  const [first] = found?.groups ?? [];
  if (!found || !first || !fits(found.parts, found.groups)) return null;
  const rows: IntegerPanels = {
    blocks: count,
    groups: found.groups.map(({ units }) => units),
    firsts: found.parts.map((_, unit) => firstOfUnit(blocks, unit)),
    step: blocks.step,
    hasSums: found.groups.some(({ shift }) => shift !== null),
  };
  const pairs = pairsOfGroup(rows);
  const stores: Store[] = [];
  for (const [g, { units }] of found.groups.entries()) {
    for (let pair = 0; pair < units.length; pair += 2) {
      const [low, high] = [0, 1].map((half) => integerOf(make, found.parts[units[pair + half] as number] as IntegerPart)) as [Expr, Expr]; // pairs of units
      const value = make.binary("or", make.binary("and", low, make.int(0xffff)), make.binary("shl", high, make.int(16)));
      const depth = make.add(make.mul(block, make.int(found.groups.length * pairs)), make.add(lane, make.int(g * pairs + pair * 8)));
      const index = make.add(make.mul(panel, make.int(count * found.groups.length * pairs * panelWidth)), placed(make, depth, inPanel));
      stores.push({ scope: "element", slot: columnSlots.integers, index, value });
    }
  }
  const kernel: LoopKernel = { kind: "loop", outer, inner: atOnce, reductions: [], stores };
  return {
    rows,
    integers: lowerRows(kernel, "outer"),
    rowsOfPanel: (count / atOnce) * panelWidth,
    factors: factorsOf(b, sizes, rows, dtypeOf),
  };
}

/** The program that computes factors, and shifts where there are any; lanes are blocks. */
function factorsOf(
  b: LoadOperand,
  sizes: Sizes,
  { blocks: count, groups: units, hasSums }: IntegerPanels,
  dtypeOf: (slot: Slot) => DType,
): LoopProgram {
  const { n, blocks } = sizes;
  const make = new ExprMakers();
  const outer = [Math.ceil(n / panelWidth), panelWidth];
  const [panel, inPanel] = outer.map((size, axis) => make.variable(axis, size)) as [Index, Index];
  const block = make.variable(outer.length, count);
  // Of what is the same in all lanes nothing is left of the lane.
  const lane = make.variable(outer.length + 1, blocks.lanes);
  const found = columnOf(make, b, sizes, { column: columnIn(make, panel, inPanel, n), block, lane }, dtypeOf);
  if (!found) throw new Error("IntegerRight: a column is not what it was.");
  const stores = found.groups.flatMap(({ factor, shift }, g): Store[] => {
    const at = placed(make, make.add(make.mul(block, make.int(units.length)), make.int(g)), inPanel);
    const index = make.add(make.mul(panel, make.int(count * units.length * panelWidth)), at);
    const store = (slot: Slot, value: Expr): Store => ({ scope: "element", slot, index, value });
    const factors = store(columnSlots.factors, factor ?? make.constant("f32", 1));
    return hasSums ? [factors, store(columnSlots.shifts, shift ?? make.constant("f32", 0))] : [factors];
  });
  return lowerRows({ kind: "loop", outer, inner: count, reductions: [], stores }, "inner");
}

/** A column of the last panel beyond the last is that one, whose product nobody reads. */
function columnIn(make: ExprMakers, panel: Index, inPanel: Index, n: number): Index {
  const column = make.add(make.mul(panel, make.int(panelWidth)), inPanel);
  return n % panelWidth === 0 ? column : make.index("min", column, make.int(n - 1));
}

function placed(make: ExprMakers, depth: Index, inPanel: Index): Index {
  return make.add(make.mul(depth, make.int(panelWidth)), inPanel);
}

function columnOf(
  make: ExprMakers,
  b: LoadOperand,
  { batch, blocks }: Sizes,
  { column, block, lane }: Place,
  dtypeOf: (slot: Slot) => DType,
): { readonly parts: readonly IntegerPart[]; readonly groups: readonly Group[] } | null {
  const small = new SmallIntegers(dtypeOf, Math.log2(lane.axes));
  const parts: IntegerPart[] = [];
  for (let unit = 0; unit < unitsOf(blocks); unit++) {
    const row = positionIn(make, blocks, block, unit, lane);
    const element = elementOf(make, b, batch, { batch: batch.map(() => make.int(0)), row, column });
    const part = affineInteger(make, element, lane, small);
    if (!part) return null;
    parts.push(part);
  }
  return { parts, groups: grouped(make, parts) };
}

/** Whether groups are pairs of units, as many in each, whose sums stay below 2³¹. */
function fits(parts: readonly IntegerPart[], groups: readonly Group[]): boolean {
  const count = groups[0]?.units.length ?? 0;
  if (count === 0 || count % 2 !== 0) return false;
  return groups.every(({ units, offset }) => {
    const high = units.reduce((most, unit) => Math.max(most, parts[unit]?.high ?? 0), 0);
    return units.length === count && count * 16 * (high + Math.abs(offset)) * 32767 < 2 ** 31;
  });
}

/** The integer itself, with its sign. */
function integerOf(make: ExprMakers, { rest, kind, offset }: IntegerPart): Expr {
  const base = make.cast("i32", rest);
  if (kind === "unsigned") return offset === 0 ? base : make.binary("add", base, make.int(offset));
  return make.binary("sub", make.binary("xor", base, make.int(128)), make.int(128));
}
