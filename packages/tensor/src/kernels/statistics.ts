import { dtypeBytes } from "../tensor/dtype.js";
import { largest } from "../tensor/extremes.js";
import { type Expr, expressionsBelow } from "./expr.js";
import {
  type Kernel,
  type LoopKernel,
  type MatrixOperand,
  type Plan,
  type PlanSlot,
  rootsOf,
  type SingleKernel,
  type Slot,
  slotAlignment,
} from "./kernel.js";
import { isComputed, productsOf } from "./products.js";
import { type Bound, boundKernels, type Template } from "./template.js";
import { visibilityOf, visiblePairs } from "./visibility.js";

/** What one kernel of a plan moves, and what is alive while it runs. */
export interface KernelStatistics {
  readonly name: string;
  readonly kind: Kernel["kind"];
  /** Bytes of memory that it reads, each element counted once however often the kernel loads it. */
  readonly readBytes: number;
  readonly writtenBytes: number;
  /** Floating-point operations of products: 2 m n k of a matmul, the products inside a composite; 0 for all other kernels. */
  readonly operations: number;
  /** Bytes of the plan's own intermediates that exist while it runs: its reads, its results, and what later kernels still need. */
  readonly liveBytes: number;
}

/** What a plan costs, known without running it. */
export interface PlanStatistics {
  readonly kernels: readonly KernelStatistics[];
  /** Bytes of all buffers that are handed to each run. */
  readonly boundBytes: number;
  /** Bytes that the memory plan reserves for intermediates. */
  readonly arenaBytes: number;
  /** The largest `liveBytes`: no memory plan for these kernels in this order can need less. */
  readonly lowerBoundBytes: number;
}

/**
 * Counts kernels, bytes moved and bytes alive of a plan, for benchmarks and tests. `plan` is what `Backend.prepare` is given, and what
 * an `Executable` holds. A kernel that loads part of a buffer is charged for the part: at most one element a load and iteration.
 */
export function planStatistics(plan: Plan): PlanStatistics {
  const { slots, names } = plan;
  const bytesOf = (slot: Slot): number => slots[slot]?.bytes ?? 0;
  const groups = boundKernels(plan);
  const liveBytes = aliveAt(groups, slots);
  const kernels = groups.map((members, step): KernelStatistics => {
    /** Elements of each slot that members read at most; and the slots that they write. */
    const read = new Map<Slot, number>();
    const written = new Set<Slot>();
    let operations = 0;
    for (const { template, slots: of } of members) {
      const work = workOf(template);
      for (const [operand, count] of work.read) {
        const slot = of[operand] as Slot; // a template has a slot for each operand
        read.set(slot, (read.get(slot) ?? 0) + count);
      }
      for (const operand of template.writes) written.add(of[operand] as Slot);
      operations += work.operations;
    }
    let readBytes = 0;
    for (const [slot, count] of read) readBytes += Math.min(bytesOf(slot), count * dtypeBytes[slots[slot]?.dtype ?? "f32"]);
    let writtenBytes = 0;
    for (const slot of written) writtenBytes += bytesOf(slot);
    const kind = members.length === 1 ? (members[0] as Bound).kind : "group";
    return { name: names[step] ?? `kernel ${step}`, kind, readBytes, writtenBytes, operations, liveBytes: liveBytes[step] ?? 0 };
  });
  return {
    kernels,
    boundBytes: plan.slots.reduce((sum, slot) => sum + (slot.kind === "bound" ? slot.bytes : 0), 0),
    arenaBytes: plan.arenaBytes,
    lowerBoundBytes: largest(
      kernels.map(({ liveBytes }) => liveBytes),
      0,
    ),
  };
}

/** What a template's kernels read, in elements of each operand at most, and what they multiply. */
interface Work {
  readonly read: ReadonlyMap<number, number>;
  readonly operations: number;
}

const works = new WeakMap<Template, Work>();

function workOf(template: Template): Work {
  let work = works.get(template);
  if (!work) {
    const elements = elementsRead(template.kernel);
    const read = new Map(template.reads.map((operand) => [operand, elements.get(operand) ?? Number.POSITIVE_INFINITY]));
    works.set(template, (work = { read, operations: operationsOf(template.kernel) }));
  }
  return work;
}

/** Bytes of intermediates that exist while each kernel, or group of them, runs. */
function aliveAt(groups: readonly (readonly Bound[])[], slots: readonly PlanSlot[]): number[] {
  const lives = new Map<Slot, { readonly first: number; last: number }>();
  for (let step = 0; step < groups.length; step++) {
    for (const { slots: touched } of groups[step] as readonly Bound[]) {
      for (let i = 0; i < touched.length; i++) {
        const slot = touched[i] as Slot; // within bounds
        const life = lives.get(slot);
        if (life) life.last = step;
        else if (slots[slot]?.kind === "arena") lives.set(slot, { first: step, last: step });
      }
    }
  }
  const change = new Array<number>(groups.length + 1).fill(0);
  for (const [slot, { first, last }] of lives) {
    const bytes = Math.ceil(Math.max(slots[slot]?.bytes ?? 0, 4) / slotAlignment) * slotAlignment;
    change[first] = (change[first] ?? 0) + bytes;
    change[last + 1] = (change[last + 1] ?? 0) - bytes;
  }
  let alive = 0;
  return change.map((bytes) => (alive += bytes));
}

/** Multiplications and additions of a kernel's matrix products. */
export function operationsOf(kernel: Kernel): number {
  if (kernel.kind === "matmul") {
    const depth = productsOf(kernel).reduce((sum, { k }) => sum + k, 0);
    return 2 * kernel.m * kernel.n * depth * kernel.batch.reduce((all, size) => all * size, 1);
  }
  if (kernel.kind === "group") return kernel.members.reduce((sum, member) => sum + operationsOf(member), 0);
  if (kernel.kind !== "composite") return 0;
  const [[batch = 0, heads = 0, queries = 0, headDim = 0] = [], [, , keys = 0] = [], [, , , valueDim = headDim] = []] = kernel.inputShapes;
  const [[rows = 0, width = 0] = [], [classes = 0] = []] = kernel.inputShapes;
  const pairs = batch * heads * visiblePairs(visibilityOf(kernel.attributes, queries, keys));
  switch (kernel.name) {
    case "attention":
      return 2 * pairs * (headDim + valueDim);
    case "attentionBackward":
      return 2 * pairs * (3 * headDim + 2 * valueDim);
    case "linearCrossEntropy":
      return 2 * rows * width * classes;
    case "linearCrossEntropyBackward":
      return 2 * rows * width * classes * (1 + kernel.outputs.length);
    case "linearCrossEntropyTraining":
      return 2 * rows * width * classes * (kernel.outputs.length - 1);
    default:
      return 0;
  }
}

/** The most elements that a kernel can read of a slot; slots that are missing are read whole. */
function elementsRead(kernel: SingleKernel): Map<Slot, number> {
  const elements = new Map<Slot, number>();
  const note = (slot: Slot, count: number): void => void elements.set(slot, (elements.get(slot) ?? 0) + count);
  if (kernel.kind === "loop") {
    for (const load of loadsOf(kernel)) note(load.slot, distinctIndices(load.index));
  } else if (kernel.kind === "matmul") {
    const view = (operand: MatrixOperand, rows: number, columns: number): void => {
      if (isComputed(operand)) {
        for (const load of loadsBelow([operand.value])) note(load.slot, distinctIndices(load.index));
        return;
      }
      const { slot, batchStrides } = operand;
      const batch = kernel.batch.reduce((product, size, axis) => product * (batchStrides[axis] === 0 ? 1 : size), 1);
      note(slot, batch * rows * columns);
    };
    for (const { k, a, b } of productsOf(kernel)) {
      view(a, kernel.m, k);
      view(b, k, kernel.n);
    }
    for (const load of loadsOf({ reductions: [], stores: kernel.epilogue?.stores ?? [] })) note(load.slot, distinctIndices(load.index));
  }
  return elements;
}

type Load = Expr & { readonly op: "load" };

function loadsOf(kernel: Pick<LoopKernel, "reductions" | "stores">): Load[] {
  return loadsBelow(rootsOf(kernel));
}

function loadsBelow(roots: readonly Expr[]): Load[] {
  return [...expressionsBelow(roots)].filter((expr) => expr.op === "load");
}

/** The product of the sizes of the loop variables that an index depends on. */
function distinctIndices(root: Expr): number {
  const sizes = new Map<number, number>();
  for (const expr of expressionsBelow([root])) if (expr.op === "variable") sizes.set(expr.axis, expr.size);
  return [...sizes.values()].reduce((product, size) => product * size, 1);
}
