import { scoreAxes } from "../../kernels/bodies.js";
import type { CompositeKernel, Slot } from "../../kernels/kernel.js";
import { describeBodies } from "../../kernels/wasm/attention-scores.js";
import {
  blockRows,
  type CachedAttentionWord,
  cachedAttentionWords,
  cachedScratchBytes,
  partialBytes,
  printAttendSplit,
  printAttendWhole,
  printMergeParts,
} from "../../kernels/wasm/cached-attention.js";
import { matmulScratchBytes } from "../../kernels/wasm/matmul.js";
import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import { sizeOf } from "../../tensor/shape.js";
import { cachedForwardSteps, captureWords, floatBits, forwardScratchBytes, scoreBodies } from "./attention.js";
import type { KernelLibrary } from "./library.js";
import type { StepList, Word } from "./steps.js";

/** The name of the composite. */
export const cachedAttentionName = "cachedAttention";

/** Elements of a chunk of keys: 32 KiB in f32. */
const chunkElements = 8192;
const [leastChunk, mostChunk] = [16, 128];
/** With so many rows to a key head, each tile passes over all keys: the partial results of all chunks would take more than the cache. */
const manyRows = 32;
/** With so many queries of a text, packing what they see of the cache costs little beside what it saves. */
const manyQueries = 16;
/** Measured time of one multiplication and addition, in nanoseconds. */
const nanosecondsPerProduct = 0.08;
/** A number of keys that no cache has. */
const everything = 2 ** 30;

interface Sizes {
  readonly batch: number;
  readonly heads: number;
  readonly queryCount: number;
  readonly dim: number;
  readonly keyHeads: number;
  readonly keyCount: number;
  readonly valueDim: number;
  readonly chunkKeys: number;
}

function sizesOf(kernel: CompositeKernel): Sizes {
  const [[batch = 0, heads = 0, queryCount = 0, dim = 0] = [], [, keyHeads = 1, keyCount = 0] = [], [, , , valueDim = 0] = []] =
    kernel.inputShapes;
  const fitting = Math.floor(chunkElements / Math.max(dim, valueDim, 1) / 4) * 4;
  const chunkKeys = Math.min(mostChunk, Math.max(leastChunk, fitting));
  return { batch, heads, queryCount, dim, keyHeads, keyCount, valueDim, chunkKeys };
}

/** True where whole vectors make up keys and values, and two rows fit the scratch memory of a thread. */
export function supportsCachedAttention(kernel: CompositeKernel, threadScratchBytes: number): boolean {
  if (kernel.name !== cachedAttentionName || kernel.inputShapes.some((shape) => sizeOf(shape) === 0)) return false;
  const { dim, valueDim, chunkKeys } = sizesOf(kernel);
  return dim % 4 === 0 && valueDim % 4 === 0 && cachedScratchBytes(valueDim, chunkKeys) <= threadScratchBytes;
}

/** The steps of `cachedAttention`: inputs [queries, keys, values, positions], outputs [out, logsumexp]. */
export function cachedAttentionSteps(kernel: CompositeKernel, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList {
  const { batch, heads, queryCount, dim, keyHeads, keyCount, valueDim, chunkKeys } = sizesOf(kernel);
  const isWide = [1, 2].every((input) => dtypeOf(kernel.inputs[input] ?? 0) === "f32");
  if (isWide && queryCount >= manyQueries && forwardScratchBytes(kernel) <= matmulScratchBytes)
    return cachedForwardSteps(kernel, dtypeOf, library);
  // A single key, even the last one, is computed as the first of four.
  const bodies = scoreBodies(kernel, dtypeOf, { axis: scoreAxes.key, size: keyCount, step: keyCount + 3 });
  const [queries, keys, values, out, logsumexp] = [
    operand(kernel, "inputs", 0, "f32"),
    operand(kernel, "inputs", 1, dtypeOf(kernel.inputs[1] ?? 0)),
    operand(kernel, "inputs", 2, dtypeOf(kernel.inputs[2] ?? 0)),
    operand(kernel, "outputs", 0, "f32"),
    operand(kernel, "outputs", 1, "f32"),
  ] as const;
  const types = { keys: dtypeOf(kernel.inputs[1] ?? 0), values: dtypeOf(kernel.inputs[2] ?? 0) };
  const positions = kernel.views?.inputs[3];
  const group = heads / keyHeads;
  const rowCount = group * queryCount;
  const chunks = Math.ceil(keyCount / chunkKeys);
  const rowBlocks = Math.ceil(rowCount / blockRows);
  const words = {
    queries: queries.address,
    keys: keys.address,
    values: values.address,
    positions: { kind: "slot", slot: kernel.inputs[3] ?? 0, byteOffset: (positions?.offset ?? 0) * 4 },
    out: out.address,
    logsumexp: logsumexp.address,
    partials: { kind: "scratch", offset: 0 },
    queryOffsets: queries.offsets,
    keyOffsets: keys.offsets,
    valueOffsets: values.offsets,
    outOffsets: out.offsets,
    logsumexpOffsets: logsumexp.offsets,
    queryRow: queries.row,
    keyRow: keys.row,
    valueRow: values.row,
    outRow: out.row,
    logsumexpRow: logsumexp.row,
    queryCount,
    keyCount,
    dim,
    valueDim,
    factor: floatBits(Number(kernel.attributes["scale"]) * (bodies ? 1 : Math.LOG2E)),
    keyHeads,
    group,
    window: Number(kernel.attributes["window"] ?? everything),
    chunkKeys,
    chunks,
    rowBlocks,
  } as const satisfies Record<CachedAttentionWord, Word>;
  const list = [...cachedAttentionWords.map((word) => words[word]), ...captureWords(bodies)];
  // Of a cache about half is filled.
  const cost = batch * heads * queryCount * (keyCount / 2) * (dim + valueDim + 10) * nanosecondsPerProduct;
  const key = `${types.keys};${types.values}${describeBodies(bodies)}`;
  if (rowCount >= manyRows) {
    const entry = library.entry(`attendWhole;${key}`, (module, scalarMath, name) =>
      printAttendWhole(module, scalarMath, types, bodies, name),
    );
    return { steps: [{ entry, tiles: batch * keyHeads * rowBlocks, words: list, cost }], scratchBytes: 0 };
  }
  const attend = library.entry(`attendSplit;${key}`, (module, scalarMath, name) =>
    printAttendSplit(module, scalarMath, types, bodies, name),
  );
  const merge = library.entry("mergeParts", (module, _, name) => printMergeParts(module, name));
  const parts = batch * keyHeads * rowCount * chunks;
  return {
    steps: [
      { entry: attend, tiles: batch * keyHeads * chunks, words: list, cost },
      { entry: merge, tiles: batch * keyHeads, words: list, cost: parts * valueDim * 0.2 },
    ],
    scratchBytes: parts * partialBytes(valueDim),
  };
}

/** An operand's address, the byte offsets of its heads' rows, the batch's heads one after another, and the bytes between rows. */
function operand(
  kernel: CompositeKernel,
  which: "inputs" | "outputs",
  index: number,
  dtype: DType,
): { readonly address: Word; readonly offsets: Word; readonly row: number } {
  const view = kernel.views?.[which][index];
  const shape = (which === "inputs" ? kernel.inputShapes : kernel.outputShapes)[index];
  if (!view || !shape) throw new Error(`cpu: ${kernel.name} lacks operand ${index} of its ${which}.`);
  const [batch = 0, heads = 0] = shape;
  const [batchStride = 0, headStride = 0, rowStride = 0] = view.strides;
  const bytes = dtypeBytes[dtype];
  const values = Array.from(
    { length: batch * heads },
    (_, i) => (view.offset + Math.floor(i / heads) * batchStride + (i % heads) * headStride) * bytes,
  );
  return {
    address: { kind: "slot", slot: kernel[which][index] ?? 0 },
    offsets: { kind: "constants", values },
    row: rowStride * bytes,
  };
}
