import { ExprMakers, type Index } from "../../kernels/expr.js";
import type { Kernel, LoopKernel, MatmulKernel, Plan, PlanSlot, Slot } from "../../kernels/kernel.js";
import { isComputed, productsOf } from "../../kernels/products.js";
import { readsOf, writesOf } from "../../kernels/slots.js";
import { panelWidth } from "../../kernels/wasm/matmul.js";
import { readsInPlace } from "./few-rows.js";
import { collapsed } from "./matmul.js";
import { batchOffsets } from "./product.js";

/** An f32 matrix that fills its buffer, as products read it from the right: lanes are its columns, depth is along k. */
export interface PanelLayout {
  readonly lanes: number;
  readonly depth: number;
  /** Elements from lane to lane, and from k to k, where it lies as the tensor says. */
  readonly laneStride: number;
  readonly depthStride: number;
}

/** The matrices that a plan reads as panels only, by slot, and how many elements of them it packs in a run. */
export interface Packed {
  readonly layouts: ReadonlyMap<Slot, PanelLayout>;
  readonly elementCount: number;
}

/** Finds the slots whose every use in a plan is that of a product which packs all of them, and all alike. */
export function packedBy(plan: Plan): Packed {
  const layouts = new Map<Slot, PanelLayout>();
  const counts = new Map<Slot, number>();
  const others = new Set<Slot>();
  const visit = (kernel: Kernel): void => {
    if (kernel.kind === "group") {
      for (const member of kernel.members) visit(member);
      return;
    }
    if (kernel.kind !== "matmul" || readsInPlace(collapsed(kernel)) || hasComputedLeft(kernel)) {
      for (const slot of [...readsOf(kernel), ...writesOf(kernel)]) others.add(slot);
      return;
    }
    for (const { b, k, factor } of productsOf(kernel)) {
      if (isComputed(b)) {
        for (const slot of b.slots) others.add(slot);
        continue;
      }
      const { slot } = b;
      const layout = { lanes: kernel.n, depth: k, laneStride: b.columnStride, depthStride: b.rowStride };
      const known = layouts.get(slot);
      const isWhole = fills(plan.slots[slot], layout) && batchOffsets(kernel.batch, b).every((offset) => offset === 0);
      if (!isWhole || factor !== 1 || (known && keyOf(known) !== keyOf(layout))) others.add(slot);
      layouts.set(slot, layout);
      counts.set(slot, (counts.get(slot) ?? 0) + layout.lanes * layout.depth);
    }
    for (const slot of [...readsOf(leftOf(kernel)), ...writesOf(kernel)]) others.add(slot);
  };
  for (const kernel of plan.kernels) visit(kernel);
  const bindings = plan.slots.map((slot) => (slot.kind === "bound" ? slot.binding : null));
  // What is read or written under another slot's number counts as well.
  for (const slot of layouts.keys())
    if (bindings.indexOf(bindings[slot] ?? null) !== bindings.lastIndexOf(bindings[slot] ?? null)) others.add(slot);
  for (const slot of others) layouts.delete(slot);
  return { layouts, elementCount: [...layouts.keys()].reduce((sum, slot) => sum + (counts.get(slot) ?? 0), 0) };
}

/** Products with a computed left operand are made of others over some of its rows, which pack what they multiply. */
function hasComputedLeft(kernel: MatmulKernel): boolean {
  return productsOf(kernel).some(({ a }) => isComputed(a));
}

/** A text that is equal for equal layouts. */
export function keyOf({ lanes, depth, laneStride, depthStride }: PanelLayout): string {
  return [lanes, depth, laneStride, depthStride].join();
}

/** A kernel that reads what this one reads beside right operands. */
function leftOf(kernel: MatmulKernel): MatmulKernel {
  return { ...kernel, b: kernel.a, plus: (kernel.plus ?? []).map((product) => ({ ...product, b: product.a })) };
}

/** Panels take as many bytes as the matrix where each is full. */
function fills(slot: PlanSlot | undefined, { lanes, depth, laneStride, depthStride }: PanelLayout): boolean {
  if (slot?.kind !== "bound" || slot.dtype !== "f32" || slot.elementCount !== lanes * depth) return false;
  const isRowMajor = laneStride === 1 && depthStride === lanes;
  const isColumnMajor = depthStride === 1 && laneStride === depth;
  return lanes * depth > 0 && lanes % panelWidth === 0 && (isRowMajor || isColumnMajor);
}

/** Bytes of a column-major matrix that are laid out at a time: its panels lie where their columns do. */
const partBytes = 4 * 2 ** 20;

/** Panels that are laid out at a time: of a row-major matrix all, since each takes a little of every row. */
function panelsAtOnce({ lanes, depth, laneStride }: PanelLayout): number {
  const count = lanes / panelWidth;
  return laneStride === 1 ? count : Math.min(count, Math.max(1, Math.floor(partBytes / (depth * panelWidth * 4))));
}

/** Bytes beside its buffer that laying out a matrix takes. */
export function layOutBytes(layout: PanelLayout): number {
  return panelsAtOnce(layout) * layout.depth * panelWidth * 4;
}

/** The plan that brings a matrix from where it lies into panels, each [depth][panelWidth], within its buffer, or back. */
export function layOutPlan(layout: PanelLayout, to: "panels" | "tensor"): Plan {
  const { lanes, depth, laneStride, depthStride } = layout;
  const make = new ExprMakers();
  const times = (position: Index, stride: number): Index => make.mul(position, make.int(stride));
  const kernels: LoopKernel[] = [];
  const atOnce = panelsAtOnce(layout);
  for (let first = 0; first < lanes / panelWidth; first += atOnce) {
    const count = Math.min(atOnce, lanes / panelWidth - first);
    const elementCount = count * panelWidth * depth;
    const start = make.int(first * panelWidth * depth);
    const element = make.variable(0, elementCount);
    const [panel, k, lane] = [make.variable(0, count), make.variable(1, depth), make.variable(2, panelWidth)];
    const inPanels = make.add(make.add(times(panel, depth * panelWidth), times(k, panelWidth)), lane);
    const inTensor = make.add(make.add(times(panel, panelWidth * laneStride), times(k, depthStride)), times(lane, laneStride));
    const [from, index] = to === "panels" ? [inTensor, inPanels] : [inPanels, inTensor];
    const copied = make.load("f32", 0, make.add(start, element));
    const moved = make.load("f32", 1, from);
    kernels.push(
      {
        kind: "loop",
        outer: [],
        inner: elementCount,
        reductions: [],
        stores: [{ scope: "element", slot: 1, index: element, value: copied }],
      },
      {
        kind: "loop",
        outer: [count, depth],
        inner: panelWidth,
        reductions: [],
        stores: [{ scope: "element", slot: 0, index: make.add(start, index), value: moved }],
      },
    );
  }
  const bytes = layOutBytes(layout);
  return {
    slots: [
      { kind: "bound", dtype: "f32", elementCount: lanes * depth, bytes: lanes * depth * 4, binding: 0 },
      { kind: "arena", dtype: "f32", elementCount: bytes / 4, bytes, offset: 0 },
    ],
    kernels,
    names: kernels.map((_, i) => (i % 2 === 0 ? "copy" : `to ${to}`)),
    bindingCount: 1,
    arenaBytes: bytes,
  };
}
