import type { ReduceKind } from "../elementwise/reduce.js";
import type { DType } from "../tensor/dtype.js";
import type { Expr, Index } from "./expr.js";
import type { Bound } from "./template.js";

/** Number of a buffer within a plan; `Plan.slots[slot]` says what it is. */
export type Slot = number;

/** A reduction over the inner loop of a LoopKernel; `reduceKinds` says how it starts and combines. */
export interface Reduction {
  readonly combine: ReduceKind;
  /** May read accumulators of earlier reductions. Its dtype (f32, i32 or u32) is the accumulator's. */
  readonly value: Expr;
}

/** One result of a LoopKernel. `element` stores run for every inner step, `row` stores once a row, after all reductions. */
export interface Store {
  readonly scope: "element" | "row";
  readonly slot: Slot;
  readonly index: Index;
  readonly value: Expr;
}

/**
 * The generated kernel: rows in parallel, and in each row any number of reductions one after another, then the stores.
 *
 *     for o0 < outer[0], o1 < outer[1], …            // parallel; variables 0 … outer.length-1
 *       for each reduction k: accumulator k = combine over i < inner of value     // variable outer.length
 *       row stores once; element stores for each i < inner
 *
 * Elementwise kernels have no reductions; pure reductions have no element stores. Each stored element is written once.
 */
export interface LoopKernel {
  readonly kind: "loop";
  readonly outer: readonly number[];
  readonly inner: number;
  readonly reductions: readonly Reduction[];
  readonly stores: readonly Store[];
  /** `into`, the slot of one store, holds what `from` does before the loop runs: the store replaces some elements of it. */
  readonly over?: { readonly from: Slot; readonly into: Slot };
}

/** The copy that a loop kernel needs before it runs; null for one that writes all of its slots, or into what is there. */
export function fillFrom({ over }: LoopKernel, slots: readonly PlanSlot[]): CopyKernel | null {
  return over ? { kind: "copy", bytes: slots[over.into]?.bytes ?? 0, from: over.from, to: over.into } : null;
}

/** The expressions that reach memory or an accumulator. */
export function rootsOf({ reductions, stores }: Pick<LoopKernel, "reductions" | "stores">): Expr[] {
  return [...reductions.map((reduction) => reduction.value), ...stores.flatMap((store) => [store.index, store.value])];
}

/** A strided view of a slot as a batch of matrices; strides and offset in elements, 0 for broadcast axes. */
export interface MatrixView {
  readonly slot: Slot;
  readonly offset: number;
  /** One stride for each axis of `MatmulKernel.batch`. */
  readonly batchStrides: readonly number[];
  readonly rowStride: number;
  readonly columnStride: number;
}

/**
 * An operand of which each element is computed where it is read: an f32 expression whose variables are the batch axes of
 * `MatmulKernel.batch`, then the operand's row, then its column. Nothing of it lies in memory but what it loads.
 */
export interface LoadOperand {
  readonly value: Expr;
  /** The slots that it loads, each once. */
  readonly slots: readonly Slot[];
}

/** An operand of a product: as it lies in memory, or computed as it is read. */
export type MatrixOperand = MatrixView | LoadOperand;

/**
 * What becomes of a product while it is in registers or cache: element stores over the loops [outer…, inner], whose rows are the product's
 * rows of all batches in order and whose inner axis are its columns. Accumulator 0 is the product's element.
 */
export interface Epilogue {
  readonly outer: readonly number[];
  readonly inner: number;
  readonly stores: readonly Store[];
}

/** factor · a · b, which is added to a product of the same m and n. */
export interface AddedProduct {
  readonly k: number;
  readonly a: MatrixOperand;
  readonly b: MatrixOperand;
  readonly factor: number;
}

/** out[batch…, m, n] = Σ_k a[batch…, m, k] · b[batch…, k, n], f32 sums; `out` is contiguous. Operands may be stored in f16 or bf16. */
export interface MatmulKernel {
  readonly kind: "matmul";
  readonly batch: readonly number[];
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: MatrixOperand;
  readonly b: MatrixOperand;
  readonly out: Slot;
  /** Made for backends that have `leastSummedRows`, without batch axes. */
  readonly plus?: readonly AddedProduct[];
  /** Whether a backend may round the rows of `a` to integers of 16 bits, with a scale for each block of `b`. */
  readonly isRounded?: boolean;
  /** When one of its stores goes to `out`, with the product's own place as index, that is kept there and not the product. */
  readonly epilogue?: Epilogue;
}

/** out[rows, width] = 0, then out[indices[n], :] += updates[n, :] for n in ascending order. Indices outside 0 … rows-1 are skipped. All contiguous. */
export interface ScatterAddKernel {
  readonly kind: "scatterAdd";
  readonly rows: number;
  readonly width: number;
  readonly count: number;
  readonly indices: Slot;
  readonly updates: Slot;
  readonly out: Slot;
}

/** Copies a whole slot; used to write a new value over a tensor that could not be updated in place. */
export interface CopyKernel {
  readonly kind: "copy";
  readonly bytes: number;
  readonly from: Slot;
  readonly to: Slot;
}

/** Where the elements of an operand lie in its slot: element [i, j, …] at offset + i · strides[0] + j · strides[1] + …, in elements. */
export interface StridedView {
  readonly offset: number;
  readonly strides: readonly number[];
}

/**
 * A composite that the backend runs natively. The attributes are those of the graph node: `attributes.captures` of the last inputs are
 * read by `bodies` alone.
 */
export interface CompositeKernel {
  readonly kind: "composite";
  readonly name: string;
  readonly attributes: Readonly<Record<string, number | boolean | string>>;
  readonly inputs: readonly Slot[];
  readonly inputShapes: readonly (readonly number[])[];
  readonly outputs: readonly Slot[];
  readonly outputShapes: readonly (readonly number[])[];
  /**
   * Elementwise functions to be computed on the way, of one maker: accumulator 0 is the element that the kernel computes (a score of
   * attention, a logit of the cross-entropy), the variables are its axes.
   */
  readonly bodies?: readonly Expr[];
  /** Says that there are bodies where they are not written yet: when a backend is asked whether it supports the kernel. */
  readonly hasBodies?: boolean;
  /** The operands' layouts, for composites in `Backend.stridedComposites`: last axis contiguous. All operands of others are contiguous. */
  readonly views?: { readonly inputs: readonly StridedView[]; readonly outputs: readonly StridedView[] };
}

/** A kernel that is not made of others. */
export type SingleKernel = LoopKernel | MatmulKernel | ScatterAddKernel | CopyKernel | CompositeKernel;

/** Kernels of which none reads or writes what another one writes: they run as one, in any order or at the same time. */
export interface GroupKernel {
  readonly kind: "group";
  readonly members: readonly SingleKernel[];
}

export type Kernel = SingleKernel | GroupKernel;

/** Offsets are multiples of this: WebGPU's minStorageBufferOffsetAlignment. */
export const slotAlignment = 256;

/**
 * What a slot is: `bound` buffers are handed to each run (inputs, and tensors that the plan writes); `arena` buffers live inside the
 * plan's own memory at a byte offset (multiple of 256) that liveness chose, and may overlap others in time only.
 */
export type PlanSlot =
  | { readonly kind: "bound"; readonly dtype: DType; readonly elementCount: number; readonly bytes: number; readonly binding: number }
  | { readonly kind: "arena"; readonly dtype: DType; readonly elementCount: number; readonly bytes: number; readonly offset: number };

/** A scheduled graph: kernels in order over slots. Backend-independent data, replayable with other bound buffers. */
export interface Plan {
  readonly slots: readonly PlanSlot[];
  readonly kernels: readonly Kernel[];
  /** One name a kernel for debugging and profiles, e.g. `matmul_1024x64x64`. */
  readonly names: readonly string[];
  readonly bindingCount: number;
  readonly arenaBytes: number;
  /** The same kernels as templates over slots, a group as its members, where they are known so; the kernels are then made when asked for. */
  readonly bound?: readonly (readonly Bound[])[];
}
