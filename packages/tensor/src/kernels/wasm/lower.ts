import type { ComputeDType } from "../../tensor/dtype.js";
import { type Expr, ExprMakers, expressionsBelow, type Index } from "../expr.js";
import { type LoopKernel, type Reduction, rootsOf, type Slot, type Store } from "../kernel.js";
import { substitute } from "../substitute.js";
import { Analysis } from "./analysis.js";
import { type Segment, segmentsOf, wholeLoop } from "./segments.js";

/** A loop kernel in the form that the printer takes, with its schedule. All of it follows from the kernel alone, never from the machine. */
export interface LoopProgram {
  readonly kernel: LoopKernel;
  readonly makers: ExprMakers;
  /** When set, axis 0 numbers chunks of this many inner steps, and a row covers only its own chunk. */
  readonly chunk: number | null;
  /** True for a loop over a tile of a product, whose rows and columns follow from the matmul's arguments. */
  readonly isTile: boolean;
  /** True where the arguments, after the slots, say which rows are computed: the first and the end. */
  readonly isRanged: boolean;
  /** True where a reduction ends as the sum of all lanes, which is stored once. */
  readonly addsLanes: boolean;
  /** The inner loop in parts within which conditions on its variable are constant; one part is the rule. */
  readonly segments: readonly Segment[];
  /** The axis along which four (times `units`) values are computed at a time: the inner one or the last outer one. */
  readonly vectorAxis: number;
  readonly units: number;
  readonly rowsPerTile: number;
  readonly tileCount: number;
  /** Estimated work in vector instructions. */
  readonly work: number;
}

/** Memory between the programs of one kernel. */
export interface ScratchSlot {
  readonly slot: Slot;
  readonly dtype: ComputeDType;
  readonly elementCount: number;
}

/** Work of a tile in vector instructions: some ten microseconds. */
const tileWork = 32768;

/** The kernel over other axes: `sizes` are the new ones (inner last), `variable` gives each old variable in terms of them. */
function withAxes(
  kernel: LoopKernel,
  sizes: readonly number[],
  makers: ExprMakers,
  variable: (axis: number, size: number) => Index,
): LoopKernel {
  const seen = new Map<Expr, Expr>();
  const move = <T extends Expr>(expr: T) => substitute(expr, makers, variable, seen);
  return {
    kind: "loop",
    outer: sizes.slice(0, -1),
    inner: sizes.at(-1) ?? 1,
    reductions: kernel.reductions.map((reduction) => ({ ...reduction, value: move(reduction.value) })),
    stores: kernel.stores.map((store) => ({ ...store, index: move(store.index), value: move(store.value) })),
  };
}

function divisionCount(kernel: LoopKernel): number {
  let count = 0;
  for (const node of expressionsBelow(rootsOf(kernel))) if (node.op === "index" && (node.kind === "div" || node.kind === "mod")) count++;
  return count;
}

/** Axes `axis` and `axis + 1` as one; null where an index would need a division for it. */
function merged(kernel: LoopKernel, axis: number): LoopKernel | null {
  const sizes = [...kernel.outer, kernel.inner];
  const size = sizes[axis + 1] ?? 1;
  const together = (sizes[axis] ?? 1) * size;
  const makers = new ExprMakers();
  const result = withAxes(kernel, [...sizes.slice(0, axis), together, ...sizes.slice(axis + 2)], makers, (old, oldSize) => {
    if (old === axis) return makers.index("div", makers.variable(axis, together), makers.int(size));
    if (old === axis + 1) return makers.index("mod", makers.variable(axis, together), makers.int(size));
    return makers.variable(old > axis ? old - 1 : old, oldSize);
  });
  return divisionCount(result) <= divisionCount(kernel) ? result : null;
}

function withoutSingles(kernel: LoopKernel): LoopKernel {
  const sizes = [...kernel.outer.filter((size) => size !== 1), kernel.inner];
  const axes = [...kernel.outer.flatMap((size, axis) => (size === 1 ? [] : [axis])), kernel.outer.length];
  const makers = new ExprMakers();
  return withAxes(kernel, sizes, makers, (axis, size) => makers.variable(axes.indexOf(axis), size));
}

/** The same kernel with as few axes as its indices allow. */
function collapsed(given: LoopKernel): LoopKernel {
  let kernel = given;
  if (kernel.reductions.length === 0 && kernel.stores.every((store) => store.scope === "row")) {
    kernel = { ...kernel, inner: 1, stores: kernel.stores.map((store) => ({ ...store, scope: "element" })) };
  }
  kernel = withoutSingles(kernel);
  const mayMergeInner = kernel.reductions.length === 0 && kernel.stores.every((store) => store.scope === "element");
  for (let axis = kernel.outer.length - 1; axis >= 0; axis--) {
    if (axis + 1 === kernel.outer.length && !mayMergeInner) continue;
    kernel = merged(kernel, axis) ?? kernel;
  }
  return kernel;
}

/** Gives every chunk of the inner axis rows of its own: a new axis 0. */
function chunked(
  kernel: LoopKernel,
  chunk: number,
  reductions: readonly Reduction[],
  stores: (makers: ExprMakers) => readonly Store[],
): { kernel: LoopKernel; makers: ExprMakers } {
  const makers = new ExprMakers();
  const sizes = [Math.ceil(kernel.inner / chunk), ...kernel.outer, kernel.inner];
  const moved = withAxes({ ...kernel, reductions, stores: [] }, sizes, makers, (axis, size) => makers.variable(axis + 1, size));
  return { kernel: { ...moved, stores: stores(makers) }, makers };
}

function product(sizes: readonly number[]): number {
  return sizes.reduce((all, size) => all * size, 1);
}

/** Σ variable · stride of the outer axes, axis numbers shifted by `shift`. */
function rowIndex(makers: ExprMakers, outer: readonly number[], shift: number): Index {
  return outer.reduce<Index>(
    (index, size, axis) => makers.add(makers.mul(index, makers.int(size)), makers.variable(axis + shift, size)),
    makers.int(0),
  );
}

/** Reductions in groups that one pass can compute together: none reads an accumulator of its own group. */
export function reductionGroups(kernel: LoopKernel): number[][] {
  const groups: number[][] = [];
  for (const [k, reduction] of kernel.reductions.entries()) {
    const group = groups.at(-1);
    const reads = [...expressionsBelow([reduction.value])].some((node) => node.op === "accumulator" && group?.includes(node.index));
    if (group && !reads) group.push(k);
    else groups.push([k]);
  }
  return groups;
}

/** Turns a kernel into programs that run one after another; `firstScratch` numbers the slots between them. */
export function lowerLoop(given: LoopKernel, firstScratch: Slot): { programs: LoopProgram[]; scratch: ScratchSlot[] } {
  const kernel = collapsed(given);
  const rows = product(kernel.outer);
  if (rows === 0 || (kernel.inner === 0 && kernel.reductions.length === 0)) return { programs: [], scratch: [] };
  const makers = new ExprMakers();
  const copy = withAxes(kernel, [...kernel.outer, kernel.inner], makers, (axis, size) => makers.variable(axis, size));
  const whole = schedule(copy, makers, null);
  const isWide = whole.tileCount < 8 && whole.work > 2 * tileWork * whole.tileCount;
  if (!isWide) return { programs: [whole], scratch: [] };
  // Chunks are multiples of 64 steps, so that only the last has a remainder; at most 1024 of them.
  const steps = Math.max(kernel.inner / 1024, (kernel.inner * rows * tileWork) / whole.work / Math.max(1, Math.min(rows, 8)));
  const chunk = Math.ceil(steps / 64) * 64;
  if (chunk >= kernel.inner) return { programs: [whole], scratch: [] };
  if (kernel.reductions.length === 0 && kernel.stores.every((store) => store.scope === "element")) {
    const parts = new ExprMakers();
    const sizes = [Math.ceil(kernel.inner / chunk), ...kernel.outer, kernel.inner];
    return {
      programs: [
        schedule(
          withAxes(kernel, sizes, parts, (axis, size) => parts.variable(axis + 1, size)),
          parts,
          chunk,
        ),
      ],
      scratch: [],
    };
  }
  return splitReductions(kernel, chunk, firstScratch);
}

/** The loop that runs over each tile of a product when the tile is finished. */
export function lowerTileLoop(given: LoopKernel): LoopProgram {
  let kernel = withoutSingles(given);
  for (let axis = kernel.outer.length - 2; axis >= 0; axis--) kernel = merged(kernel, axis) ?? kernel;
  const makers = new ExprMakers();
  const copy = withAxes(kernel, [...kernel.outer, kernel.inner], makers, (axis, size) => makers.variable(axis, size));
  return { ...schedule(copy, makers, null), isTile: true };
}

/**
 * A kernel whose axes stay as they are given, so that the caller can tell its rows: with lanes along the last outer axis, of whole vectors
 * and no row of its own, or along the inner one. The arguments say which rows are computed.
 */
export function lowerRows(given: LoopKernel, lanes: "outer" | "inner", addsLanes = false): LoopProgram {
  const makers = new ExprMakers();
  const kernel = withAxes(given, [...given.outer, given.inner], makers, (axis, size) => makers.variable(axis, size));
  const program = { ...schedule(kernel, makers, null), isRanged: true, addsLanes };
  if (lanes === "inner") return program;
  const vectorAxis = kernel.outer.length - 1;
  const rows = product(kernel.outer.slice(0, -1));
  // Of the instructions that its expressions would take alone, a block of them takes a quarter: units share loads, bytes are sixteen to a vector.
  const work = (rows * kernel.inner * new Analysis().cost(kernel, vectorAxis) * (given.outer.at(-1) ?? 4)) / 16;
  const most = Math.max(1, Math.min(Math.ceil(rows / 16), Math.round((tileWork * rows) / Math.max(work, 1))));
  // Rows of neighbouring columns read the same lines of memory.
  const rowsPerTile = kernel.reductions.length > 0 && !addsLanes && most > 1 ? Math.ceil(most / 4) * 4 : most;
  const tileCount = Math.ceil(rows / rowsPerTile);
  const units = (given.outer.at(-1) ?? 4) / 4;
  return { ...program, segments: wholeLoop(kernel), vectorAxis, units, rowsPerTile, tileCount, work };
}

/** Each group of reductions as partial results of chunks, then their combination in order; at last the stores. */
function splitReductions(given: LoopKernel, chunk: number, firstScratch: Slot): { programs: LoopProgram[]; scratch: ScratchSlot[] } {
  const rows = product(given.outer);
  const count = Math.ceil(given.inner / chunk);
  const programs: LoopProgram[] = [];
  const scratch: ScratchSlot[] = [];
  const reserve = (dtype: ComputeDType, elementCount: number): Slot => {
    const slot = firstScratch + scratch.length;
    scratch.push({ slot, dtype, elementCount });
    return slot;
  };
  const finished = new Map<number, Slot>();
  // Reads finished accumulators from scratch.
  const resolve = (kernel: LoopKernel): { kernel: LoopKernel; makers: ExprMakers } => {
    const makers = new ExprMakers();
    const seen = new Map<Expr, Expr>();
    const index = rowIndex(makers, kernel.outer, 0);
    for (const node of expressionsBelow([...kernel.reductions.map((r) => r.value), ...kernel.stores.map((s) => s.value)])) {
      const slot = node.op === "accumulator" ? finished.get(node.index) : undefined;
      if (slot !== undefined) seen.set(node, makers.load(node.dtype, slot, index));
    }
    const move = <T extends Expr>(expr: T) => substitute(expr, makers, (axis, size) => makers.variable(axis, size), seen);
    const reductions = kernel.reductions.map((r) => ({ ...r, value: move(r.value) }));
    return {
      kernel: { ...kernel, reductions, stores: kernel.stores.map((s) => ({ ...s, index: move(s.index), value: move(s.value) })) },
      makers,
    };
  };
  for (const group of reductionGroups(given)) {
    const values = resolve({ ...given, reductions: group.flatMap((k) => given.reductions[k] ?? []), stores: [] }).kernel;
    const partials = values.reductions.map((reduction) => reserve(reduction.value.dtype, rows * count));
    const parts = chunked(values, chunk, values.reductions, (makers) =>
      partials.map((slot, k) => ({
        scope: "row",
        slot,
        index: makers.add(makers.mul(rowIndex(makers, given.outer, 1), makers.int(count)), makers.variable(0, count)),
        value: makers.accumulator(values.reductions[k]?.value.dtype ?? "f32", k),
      })),
    );
    programs.push(schedule(parts.kernel, parts.makers, chunk));
    const makers = new ExprMakers();
    const at = makers.add(makers.mul(rowIndex(makers, given.outer, 0), makers.int(count)), makers.variable(given.outer.length, count));
    const combine: LoopKernel = {
      kind: "loop",
      outer: given.outer,
      inner: count,
      reductions: values.reductions.map((r, k) => ({ combine: r.combine, value: makers.load(r.value.dtype, partials[k] ?? 0, at) })),
      stores: values.reductions.map((r, k) => {
        const slot = reserve(r.value.dtype, rows);
        finished.set(group[k] ?? 0, slot);
        return { scope: "row", slot, index: rowIndex(makers, given.outer, 0), value: makers.accumulator(r.value.dtype, k) };
      }),
    };
    programs.push(schedule(combine, makers, null));
  }
  for (const scope of ["row", "element"] as const) {
    const stores = given.stores.filter((store) => store.scope === scope);
    if (stores.length === 0) continue;
    const lowered = lowerLoop(resolve({ ...given, reductions: [], stores }).kernel, firstScratch + scratch.length);
    programs.push(...lowered.programs);
    scratch.push(...lowered.scratch);
  }
  return { programs, scratch };
}

/** Chooses the vector axis and the tiles. */
function schedule(kernel: LoopKernel, makers: ExprMakers, chunk: number | null): LoopProgram {
  const analysis = new Analysis();
  const innerAxis = kernel.outer.length;
  const steps = Math.min(kernel.inner, chunk ?? kernel.inner);
  let segments = segmentsOf(kernel);
  const innerCost = segments.reduce(
    (sum, { start, end, ...part }) => sum + (analysis.cost({ ...kernel, ...part }, innerAxis) * (end - start)) / Math.max(kernel.inner, 1),
    kernel.inner === 0 ? 2 : 0,
  );
  const last = kernel.outer.at(-1) ?? 1;
  const perRow = (Math.ceil(steps / 4) + (steps % 4)) * innerCost + 12 * kernel.reductions.length;
  let vectorAxis = innerAxis;
  let rowWork = perRow;
  const mayTurn = kernel.reductions.length > 0 && kernel.outer.length > (chunk === null ? 0 : 1) && last >= 4;
  if (mayTurn) {
    const outerCost = analysis.cost(kernel, innerAxis - 1);
    const turned = (Math.floor(last / 4) + (last % 4)) * steps * outerCost;
    if (turned < perRow * last) {
      vectorAxis = innerAxis - 1;
      rowWork = turned / last;
    }
  }
  const isTurned = vectorAxis !== innerAxis;
  if (isTurned) segments = wholeLoop(kernel);
  const cost = isTurned ? analysis.cost(kernel, vectorAxis) : innerCost;
  const units = cost <= 10 ? 4 : cost <= 24 ? 2 : 1;
  const rows = product(kernel.outer);
  const groups = isTurned ? (rows / last) * groupCount(last, units) : rows;
  const work = rows * rowWork;
  const rowsPerTile = Math.max(1, Math.min(groups, Math.round((tileWork * groups) / Math.max(work, 1))));
  return {
    kernel,
    makers,
    chunk,
    isTile: false,
    isRanged: false,
    addsLanes: false,
    segments,
    vectorAxis,
    units,
    rowsPerTile,
    tileCount: Math.ceil(groups / rowsPerTile),
    work,
  };
}

/** How a turned kernel covers its last outer axis: wide groups, then groups of four, then single columns. */
export function groupsOf(size: number, units: number): { wide: number; narrow: number; single: number } {
  const wide = units > 1 ? Math.floor(size / (4 * units)) : 0;
  const narrow = Math.floor((size - wide * 4 * units) / 4);
  return { wide, narrow, single: size - wide * 4 * units - narrow * 4 };
}

function groupCount(size: number, units: number): number {
  const { wide, narrow, single } = groupsOf(size, units);
  return wide + narrow + single;
}
