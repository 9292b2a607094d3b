import { ExprMakers, type Index } from "../../kernels/expr.js";
import type { LoopKernel, MatmulKernel, Plan, PlanSlot, SingleKernel, Slot } from "../../kernels/kernel.js";
import { isComputed, productsOf } from "../../kernels/products.js";
import { readsOf, writesOf } from "../../kernels/slots.js";
import { type Bound, boundKernels, type Template } from "../../kernels/template.js";
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

/** What a kernel's operands are to it, by their numbers in the template. */
interface Uses {
  /** Right operands that are packed, whole where their memory is nothing else. */
  readonly rights: readonly { readonly operand: number; readonly layout: PanelLayout; readonly isWhole: boolean }[];
  /** All that is read or written otherwise. */
  readonly others: readonly number[];
}

const known = new WeakMap<Template, Uses>();

function usesOf(template: Template): Uses {
  let uses = known.get(template);
  if (!uses) known.set(template, (uses = findUses(template.kernel)));
  return uses;
}

function findUses(kernel: SingleKernel): Uses {
  if (kernel.kind !== "matmul" || readsInPlace(collapsed(kernel)) || hasComputedLeft(kernel))
    return { rights: [], others: [...readsOf(kernel), ...writesOf(kernel)] };
  const others: number[] = [...readsOf(leftOf(kernel)), ...writesOf(kernel)];
  const rights: Uses["rights"][number][] = [];
  for (const { b, k, factor } of productsOf(kernel)) {
    if (isComputed(b)) {
      others.push(...b.slots);
      continue;
    }
    const layout = { lanes: kernel.n, depth: k, laneStride: b.columnStride, depthStride: b.rowStride };
    rights.push({
      operand: b.slot,
      layout,
      isWhole: factor === 1 && isDense(layout) && batchOffsets(kernel.batch, b).every((offset) => offset === 0),
    });
  }
  return { rights, others };
}

/** Finds the slots whose every use in a plan is that of a product which packs all of them, and all alike. */
export function packedBy(plan: Plan): Packed {
  const { slots } = plan;
  const layouts = new Map<Slot, PanelLayout>();
  const counts = new Map<Slot, number>();
  const isUsedOtherwise = new Uint8Array(slots.length);
  const visit = ({ template, slots: bound }: Bound): void => {
    const { rights, others } = usesOf(template);
    for (const { operand, layout, isWhole } of rights) {
      const slot = bound[operand] as Slot; // a template has a slot for each operand
      const known = layouts.get(slot);
      if (!isWhole || !fills(slots[slot], layout) || (known && !areEqual(known, layout))) isUsedOtherwise[slot] = 1;
      layouts.set(slot, layout);
      counts.set(slot, (counts.get(slot) ?? 0) + layout.lanes * layout.depth);
    }
    for (let i = 0; i < others.length; i++) isUsedOtherwise[bound[others[i] as number] as Slot] = 1;
  };
  for (const members of boundKernels(plan)) for (const member of members) visit(member);
  const times = new Map<number, number>();
  for (const slot of slots) if (slot.kind === "bound") times.set(slot.binding, (times.get(slot.binding) ?? 0) + 1);
  for (const number of layouts.keys()) {
    const slot = slots[number];
    // What is read or written under another slot's number counts as well.
    if (isUsedOtherwise[number] || slot?.kind !== "bound" || times.get(slot.binding) !== 1) layouts.delete(number);
  }
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

function areEqual(a: PanelLayout, b: PanelLayout): boolean {
  return a.lanes === b.lanes && a.depth === b.depth && a.laneStride === b.laneStride && a.depthStride === b.depthStride;
}

function fills(slot: PlanSlot | undefined, { lanes, depth }: PanelLayout): boolean {
  return slot?.kind === "bound" && slot.dtype === "f32" && slot.elementCount === lanes * depth;
}

/** Panels take as many bytes as the matrix where each is full. */
function isDense({ lanes, depth, laneStride, depthStride }: PanelLayout): boolean {
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
