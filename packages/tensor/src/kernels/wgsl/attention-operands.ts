import type { Expr } from "../expr.js";
import type { CompositeKernel, MatrixView, StridedView } from "../kernel.js";
import { type Visibility, visibilityOf } from "../visibility.js";
import { batchOffset } from "./matmul.js";

/** A tensor of all heads as matrices [positions, width]; the batch axes are [batch, keyHeads, query heads that share a key head]. */
export interface HeadMatrices {
  /** Programs call where a head's matrix starts `base<name>`. */
  readonly name: string;
  readonly view: MatrixView;
  readonly positions: number;
  readonly width: number;
}

/** What the programs of attention and of its gradients read and write. */
export interface AttentionOperands {
  readonly batch: readonly [batch: number, keyHeads: number, group: number];
  readonly visibility: Visibility;
  readonly scale: number;
  /** What becomes of the scaled scores, and for gradients its slope; empty without. */
  readonly bodies: readonly Expr[];
  readonly queries: HeadMatrices;
  readonly keys: HeadMatrices;
  readonly values: HeadMatrices;
  readonly out: HeadMatrices;
  readonly logsumexp: HeadMatrices;
  /** The first key that each query sees, never falling from one query to the next; null where that is the very first. */
  readonly starts: HeadMatrices | null;
  readonly gradients: {
    readonly dOut: HeadMatrices;
    readonly dQueries: HeadMatrices;
    readonly dKeys: HeadMatrices;
    readonly dValues: HeadMatrices;
    /** Σ dOut · out of each query, kept in the first column of dQueries until that is computed. */
    readonly delta: HeadMatrices;
  } | null;
}

/** The operands of `attention` or `attentionBackward`. */
export function attentionOperands(kernel: CompositeKernel): AttentionOperands {
  const [queries = [], keys = [], values = []] = kernel.inputShapes;
  const [batch = 0, heads = 0, queryCount = 0, width = 0] = queries;
  const [, keyHeads = 1, keyCount = 0] = keys;
  const valueWidth = values[3] ?? 0;
  const group = heads / keyHeads;
  const isBackward = kernel.name === "attentionBackward";
  const startsIndex = isBackward ? 6 : 3;
  const viewOf = (which: "inputs" | "outputs", index: number): { slot: number; view: StridedView } => {
    const [slot, view] = [kernel[which][index], kernel.views?.[which][index]];
    if (slot === undefined || !view) throw new Error(`webgpu: ${kernel.name} lacks operand ${index} of its ${which}.`);
    return { slot, view };
  };
  /** By query heads or by key heads; `width` 0 for one number a position. */
  const matrices = (name: string, which: "inputs" | "outputs", index: number, side: "query" | "key", columns: number): HeadMatrices => {
    const { slot, view } = viewOf(which, index);
    const [batchStride = 0, headStride = 0, rowStride = 0] = view.strides;
    const batchStrides = side === "query" ? [batchStride, headStride * group, headStride] : [batchStride, headStride, 0];
    const positions = side === "query" ? queryCount : keyCount;
    return {
      name,
      view: { slot, offset: view.offset, batchStrides, rowStride, columnStride: columns === 0 ? 0 : 1 },
      positions,
      width: Math.max(columns, 1),
    };
  };
  const dQueries = isBackward ? matrices("DQ", "outputs", 0, "query", width) : null;
  return {
    batch: [batch, keyHeads, group],
    visibility: visibilityOf(kernel.attributes, queryCount, keyCount),
    scale: Number(kernel.attributes["scale"]),
    bodies: kernel.bodies ?? [],
    queries: matrices("Q", "inputs", 0, "query", width),
    keys: matrices("K", "inputs", 1, "key", width),
    values: matrices("V", "inputs", 2, "key", valueWidth),
    out: isBackward ? matrices("O", "inputs", 3, "query", valueWidth) : matrices("O", "outputs", 0, "query", valueWidth),
    logsumexp: isBackward ? matrices("L", "inputs", 4, "query", 0) : matrices("L", "outputs", 1, "query", 0),
    starts: kernel.attributes["hasStarts"] ? startsOf(viewOf("inputs", startsIndex), queryCount) : null,
    gradients: dQueries && {
      dOut: matrices("DO", "inputs", 5, "query", valueWidth),
      dQueries,
      dKeys: matrices("DK", "outputs", 1, "key", width),
      dValues: matrices("DV", "outputs", 2, "key", valueWidth),
      delta: { ...dQueries, name: "Delta", width: 1, view: { ...dQueries.view, columnStride: 0 } },
    },
  };
}

/** [batch, queries], the same for all heads. */
function startsOf({ slot, view }: { slot: number; view: StridedView }, positions: number): HeadMatrices {
  const [batchStride = 0, rowStride = 0] = view.strides;
  return {
    name: "S",
    view: { slot, offset: view.offset, batchStrides: [batchStride, 0, 0], rowStride, columnStride: 0 },
    positions,
    width: 1,
  };
}

/** A statement that says where the matrix of head `batch` starts. */
export function baseOf({ name, view }: HeadMatrices, { batch }: AttentionOperands): string {
  return `let base${name} = ${batchOffset(view, batch)};`;
}
