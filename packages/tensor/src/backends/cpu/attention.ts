import { bodySlots, scoreAxes, withinAxis } from "../../kernels/bodies.js";
import { type Expr, ExprMakers } from "../../kernels/expr.js";
import type { CompositeKernel, Slot } from "../../kernels/kernel.js";
import { visibilityOf, visiblePairs } from "../../kernels/visibility.js";
import { type AttentionWord, attendScratchBytes, attentionWords, printAttend } from "../../kernels/wasm/attention.js";
import {
  type BackwardWord,
  blockQueries as backwardQueries,
  backwardWords,
  printFinishBackward,
  printPrepareBackward,
  stateBytes,
} from "../../kernels/wasm/attention-backward.js";
import { backwardScratchBytes, printBackward } from "../../kernels/wasm/attention-gradients.js";
import { printPackAttention } from "../../kernels/wasm/attention-pack.js";
import { panelQueries, rowBytes } from "../../kernels/wasm/attention-panels.js";
import { describeBodies, type ScoreBodies } from "../../kernels/wasm/attention-scores.js";
import { everything, type VisibilityWord } from "../../kernels/wasm/attention-visibility.js";
import type { DType } from "../../tensor/dtype.js";
import { sizeOf } from "../../tensor/shape.js";
import type { KernelLibrary } from "./library.js";
import { roundUp } from "./round.js";
import type { Step, StepList, Word } from "./steps.js";

/** Measured time of one multiplication and addition, in nanoseconds. */
const nanosecondsPerProduct = 0.05;
/** Packed elements of a block of keys at most: 16 KiB, so that a block of keys and one of values stay in the first-level cache. */
const blockElements = 4096;
const maxBlock = 64;
/** Tiles that a step should have at least, so that a few threads share it evenly. */
const leastTiles = 8;
/** Names of the composites that have kernels here. */
export const attentionNames: ReadonlySet<string> = new Set(["attention", "attentionBackward"]);

interface Sizes {
  readonly heads: number;
  readonly keyHeads: number;
  readonly batch: number;
  readonly queryCount: number;
  readonly keyCount: number;
  readonly dim: number;
  readonly valueDim: number;
  readonly blockKeys: number;
  readonly blockQueries: number;
}

function sizesOf(kernel: CompositeKernel): Sizes {
  const [queries = [], keys = [], values = []] = kernel.inputShapes;
  const [batch = 0, heads = 0, queryCount = 0, dim = 0] = queries;
  const [, keyHeads = 0, keyCount = 0] = keys;
  const valueDim = values[3] ?? 0;
  const fitting = (step: number): number => Math.floor(blockElements / Math.max(dim, valueDim, 1) / step) * step;
  const blockKeys = Math.min(maxBlock, roundUp(keyCount, 4), Math.max(4, fitting(4)));
  let blockQueries = Math.min(maxBlock, roundUp(queryCount, panelQueries), Math.max(panelQueries, fitting(panelQueries)));
  while (blockQueries > 2 * panelQueries && batch * heads * Math.ceil(queryCount / blockQueries) < leastTiles) {
    blockQueries = roundUp(blockQueries / 2, panelQueries);
  }
  return { batch, heads, keyHeads, queryCount, keyCount, dim, valueDim, blockKeys, blockQueries };
}

/** True for attention whose blocks fit the scratch memory of a thread. */
export function supportsAttention(kernel: CompositeKernel, threadScratchBytes: number): boolean {
  if (!attentionNames.has(kernel.name) || kernel.inputShapes.some((shape) => sizeOf(shape) === 0)) return false;
  const { dim, valueDim, blockKeys } = sizesOf(kernel);
  return Math.max(forwardScratchBytes(kernel), backwardScratchBytes(dim, valueDim, blockKeys)) <= threadScratchBytes;
}

/** Scratch memory of a thread that the forward steps need. */
export function forwardScratchBytes(kernel: CompositeKernel): number {
  const { dim, valueDim, blockQueries, blockKeys } = sizesOf(kernel);
  return attendScratchBytes(dim, valueDim, blockQueries, blockKeys);
}

/** Byte offsets of the rows of each head, the batch's heads one after another. */
function headOffsets(shape: readonly number[], view: { readonly offset: number; readonly strides: readonly number[] }): Word {
  const [batch = 0, heads = 0] = shape;
  const [batchStride = 0, headStride = 0] = view.strides;
  const values = Array.from(
    { length: batch * heads },
    (_, i) => (view.offset + Math.floor(i / heads) * batchStride + (i % heads) * headStride) * 4,
  );
  return { kind: "constants", values };
}

/** The argument words of an operand: its address, its heads' offsets, and the bytes between its rows. */
function operand(kernel: CompositeKernel, which: "inputs" | "outputs", index: number): { address: Word; offsets: Word; row: number } {
  const view = kernel.views?.[which][index];
  const shape = (which === "inputs" ? kernel.inputShapes : kernel.outputShapes)[index];
  if (!view || !shape) throw new Error(`cpu: ${kernel.name} lacks operand ${index} of its ${which}.`);
  return {
    address: { kind: "slot", slot: kernel[which][index] ?? 0 },
    offsets: headOffsets(shape, view),
    row: (view.strides[2] ?? 0) * 4,
  };
}

/** The argument words that say what queries see; `index` is the input of their starts, where they have some. */
function visibilityOperands(kernel: CompositeKernel, index: number): Record<VisibilityWord, Word> {
  const { queryCount, keyCount, heads } = sizesOf(kernel);
  const { lastOffset, firstOffset, prefix } = visibilityOf(kernel.attributes, queryCount, keyCount);
  const sizes = { queryCount, keyCount, lastOffset: lastOffset ?? everything, firstOffset: firstOffset ?? -everything, prefix };
  const view = kernel.attributes["hasStarts"] ? kernel.views?.inputs[index] : undefined;
  if (!view) return { ...sizes, starts: 0, startOffsets: 0 };
  const [batch = 0] = kernel.inputShapes[index] ?? [];
  const values = Array.from({ length: batch * heads }, (_, i) => (view.offset + Math.floor(i / heads) * (view.strides[0] ?? 0)) * 4);
  return { ...sizes, starts: { kind: "slot", slot: kernel.inputs[index] ?? 0 }, startOffsets: { kind: "constants", values } };
}

/** The kernel's bodies, with scores in powers of two, for so many scores at a time along an axis; null without. */
export function scoreBodies(
  kernel: CompositeKernel,
  dtypes: (slot: Slot) => DType,
  { axis, size, step }: { readonly axis: number; readonly size: number; readonly step: number } = panelAxis(kernel),
): ScoreBodies | null {
  if (!kernel.bodies) return null;
  const make = new ExprMakers();
  const [value, ...slopes] = withinAxis(kernel.bodies, make, axis, size, step);
  return { exprs: [make.binary("mul", value as Expr, make.constant("f32", Math.LOG2E)), ...slopes], dtypes };
}

function panelAxis(kernel: CompositeKernel): { axis: number; size: number; step: number } {
  return { axis: scoreAxes.query, size: sizesOf(kernel).queryCount, step: panelQueries };
}

/** The addresses of what bodies captured. */
export function captureWords(bodies: ScoreBodies | null): Word[] {
  return bodies ? bodySlots(bodies.exprs).map((slot) => ({ kind: "slot", slot })) : [];
}

export function floatBits(value: number): number {
  return new Int32Array(Float32Array.of(value).buffer)[0] ?? 0;
}

/** Gives out scratch memory, piece after piece. */
class ScratchLayout {
  bytes = 0;

  take(bytes: number): Word {
    const offset = this.bytes;
    this.bytes += roundUp(bytes, 64);
    return { kind: "scratch", offset };
  }
}

/** The steps of `attention`: inputs [queries, keys, values, starts?], outputs [out, logsumexp]. */
export function attentionSteps(kernel: CompositeKernel, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList {
  return forwardSteps(
    kernel,
    scoreBodies(kernel, dtypeOf),
    { ...visibilityOperands(kernel, 3), positions: 0, positionOffsets: 0 },
    library,
  );
}

/**
 * The steps of `cachedAttention` of many queries, over keys and values in f32: inputs [queries, keys, values, positions], outputs
 * [out, logsumexp]. Positions say how many keys stand before each text's own.
 */
export function cachedForwardSteps(kernel: CompositeKernel, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList {
  const { batch, heads, queryCount, keyCount } = sizesOf(kernel);
  const { window } = kernel.attributes;
  const view = kernel.views?.inputs[3];
  const places = Array.from(
    { length: batch * heads },
    (_, i) => ((view?.offset ?? 0) + Math.floor(i / heads) * (view?.strides[0] ?? 0)) * 4,
  );
  const visibility: ForwardVisibility = {
    ...{ queryCount, keyCount, lastOffset: 0, firstOffset: window === undefined ? -everything : 1 - Number(window) },
    ...{ prefix: 0, starts: 0, startOffsets: 0 },
    positions: { kind: "slot", slot: kernel.inputs[3] ?? 0 },
    positionOffsets: { kind: "constants", values: places },
  };
  return forwardSteps(kernel, scoreBodies(kernel, dtypeOf), visibility, library);
}

type ForwardVisibility = Record<VisibilityWord | "positions" | "positionOffsets", Word>;

function forwardSteps(
  kernel: CompositeKernel,
  bodies: ScoreBodies | null,
  visibility: ForwardVisibility,
  library: KernelLibrary,
): StepList {
  const sizes = sizesOf(kernel);
  const { batch, heads, keyHeads, queryCount, keyCount, dim, valueDim, blockKeys, blockQueries } = sizes;
  const queries = operand(kernel, "inputs", 0);
  const keys = operand(kernel, "inputs", 1);
  const values = operand(kernel, "inputs", 2);
  const out = operand(kernel, "outputs", 0);
  const keyBlocks = Math.ceil(keyCount / blockKeys);
  const queryBlocks = Math.ceil(queryCount / blockQueries);
  const packedRows = batch * keyHeads * keyBlocks * blockKeys;
  const scratch = new ScratchLayout();
  const scale = Number(kernel.attributes["scale"]);
  const logsumexp =
    kernel.outputs.length > 1
      ? operand(kernel, "outputs", 1)
      : {
          address: scratch.take(batch * heads * queryCount * 4),
          offsets: { kind: "constants", values: Array.from({ length: batch * heads }, (_, i) => i * queryCount * 4) } as const,
        };
  const words = {
    queries: queries.address,
    keys: keys.address,
    values: values.address,
    out: out.address,
    logsumexp: logsumexp.address,
    packedKeys: scratch.take(packedRows * dim * 4),
    packedValues: scratch.take(packedRows * roundUp(valueDim, 4) * 4),
    queryOffsets: queries.offsets,
    keyOffsets: keys.offsets,
    valueOffsets: values.offsets,
    outOffsets: out.offsets,
    logsumexpOffsets: logsumexp.offsets,
    ...visibility,
    queryRow: queries.row,
    keyRow: keys.row,
    valueRow: values.row,
    outRow: out.row,
    dim,
    valueDim,
    factor: floatBits(bodies ? scale : scale * Math.LOG2E),
    group: heads / keyHeads,
    ownHeads: heads,
    blockKeys,
    keyBlocks,
    blockQueries,
    queryBlocks,
  } as const satisfies Record<AttentionWord, Word>;
  const list = [...attentionWords.map((word) => words[word]), ...captureWords(bodies)];
  const pack = library.entry("packAttention", (module, _, name) => printPackAttention(module, name));
  const attend = library.entry(`attention${describeBodies(bodies)}`, (module, scalarMath, name) =>
    printAttend(module, scalarMath, bodies, name),
  );
  const steps: Step[] = [
    { entry: pack, tiles: batch * keyHeads * keyBlocks, words: list, cost: packedRows * (dim + valueDim) * 0.3 },
    {
      entry: attend,
      tiles: batch * heads * queryBlocks,
      words: list,
      cost: batch * heads * pairs(kernel, sizes) * (dim + valueDim + 10) * nanosecondsPerProduct,
    },
  ];
  return { steps, scratchBytes: scratch.bytes };
}

/** The steps of `attentionBackward`: inputs [queries, keys, values, out, logsumexp, dOut, starts?], outputs [dQueries, dKeys, dValues]. */
export function attentionBackwardSteps(kernel: CompositeKernel, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList {
  const sizes = sizesOf(kernel);
  const bodies = scoreBodies(kernel, dtypeOf);
  const { batch, heads, keyHeads, queryCount, keyCount, dim, valueDim, blockKeys } = sizes;
  const input = (index: number): ReturnType<typeof operand> => operand(kernel, "inputs", index);
  const output = (index: number): ReturnType<typeof operand> => operand(kernel, "outputs", index);
  const [queries, keys, values, out, logsumexp, dOut] = [input(0), input(1), input(2), input(3), input(4), input(5)];
  const [dQueries, dKeys, dValues] = [output(0), output(1), output(2)];
  const keyBlocks = Math.ceil(keyCount / blockKeys);
  const chunkKeys = Math.ceil(keyBlocks / Math.ceil(leastTiles / (batch * keyHeads))) * blockKeys;
  const chunks = Math.ceil(keyCount / chunkKeys);
  const panels = Math.ceil(queryCount / panelQueries);
  const queryBlocks = Math.ceil(queryCount / backwardQueries);
  const panelCount = batch * heads * panels;
  const scratch = new ScratchLayout();
  const scale = Number(kernel.attributes["scale"]);
  const words = {
    queries: queries.address,
    keys: keys.address,
    values: values.address,
    out: out.address,
    logsumexp: logsumexp.address,
    dOut: dOut.address,
    dQueries: dQueries.address,
    dKeys: dKeys.address,
    dValues: dValues.address,
    packedQueries: scratch.take(panelCount * dim * rowBytes),
    packedDOut: scratch.take(panelCount * valueDim * rowBytes),
    states: scratch.take(panelCount * stateBytes),
    parts: scratch.take(chunks * panelCount * roundUp(dim, 4) * rowBytes),
    queryOffsets: queries.offsets,
    keyOffsets: keys.offsets,
    valueOffsets: values.offsets,
    outOffsets: out.offsets,
    logsumexpOffsets: logsumexp.offsets,
    dOutOffsets: dOut.offsets,
    dQueryOffsets: dQueries.offsets,
    dKeyOffsets: dKeys.offsets,
    dValueOffsets: dValues.offsets,
    ...visibilityOperands(kernel, 6),
    queryRow: queries.row,
    keyRow: keys.row,
    valueRow: values.row,
    outRow: out.row,
    dOutRow: dOut.row,
    dQueryRow: dQueries.row,
    dKeyRow: dKeys.row,
    dValueRow: dValues.row,
    dim,
    valueDim,
    factor: floatBits(bodies ? scale : scale * Math.LOG2E),
    scale: floatBits(scale),
    heads: batch * heads,
    group: heads / keyHeads,
    ownHeads: heads,
    blockKeys,
    chunkKeys,
    chunks,
    panels,
    queryBlocks,
  } as const satisfies Record<BackwardWord, Word>;
  const list = [...backwardWords.map((word) => words[word]), ...captureWords(bodies)];
  const prepare = library.entry("attentionBackward;prepare", (module, _, name) => printPrepareBackward(module, name));
  const main = library.entry(`attentionBackward${describeBodies(bodies)}`, (module, scalarMath, name) =>
    printBackward(module, scalarMath, bodies, name),
  );
  const finish = library.entry("attentionBackward;finish", (module, _, name) => printFinishBackward(module, name));
  const blockTiles = batch * heads * queryBlocks;
  const cost = batch * heads * pairs(kernel, sizes) * (3 * dim + 2 * valueDim + 10) * nanosecondsPerProduct;
  const steps: Step[] = [
    { entry: prepare, tiles: blockTiles, words: list, cost: panelCount * panelQueries * (dim + 2 * valueDim) * 0.3 },
    { entry: main, tiles: batch * keyHeads * chunks, words: list, cost },
    { entry: finish, tiles: blockTiles, words: list, cost: panelCount * panelQueries * dim * chunks * 0.3 },
  ];
  return { steps, scratchBytes: scratch.bytes };
}

/** Pairs of a query and a key that it sees, of one head. */
function pairs(kernel: CompositeKernel, { keyCount, queryCount }: Sizes): number {
  return visiblePairs(visibilityOf(kernel.attributes, queryCount, keyCount));
}
