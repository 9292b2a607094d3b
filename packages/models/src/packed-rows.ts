import { attention, type Device, hasOwnKernel, ignoredLabel, Tensor } from "@lowrank/tensor";
import type { CausalLM } from "./causal-lm.js";
import type { BatchLayout } from "./data/batches.js";

/**
 * Rows that lie one behind the other in the rows of a batch, so that nothing need be padded to a common length: transformers'
 * DataCollatorWithFlattening, FlashAttention's variable lengths. The model computes of them what it computes of the rows apart.
 */
export interface PackedRows {
  /** i32 [batch, seq]: each token's position within its own row, where a row begins at 0. */
  readonly positions: Tensor;
  /** Tokens that no row exceeds; beside the positions, which only the device reads. */
  readonly rowLimit: number;
}

/** Packed rows as the layers of one forward pass see them. */
export interface VisibleRows extends PackedRows {
  /** i32 [batch, seq]: the first token of each token's row, which is the first key that it attends to. */
  readonly starts: Tensor;
}

/** What attention has to know of packed rows, made once for all layers. */
export function visibleRows({ positions, rowLimit }: PackedRows): VisibleRows {
  return { positions, rowLimit, starts: iota(positions.shape, 1, positions.device).sub(positions) };
}

/** Labels i32 [batch, seq] without each row's first: the token in front of it belongs to another row. */
export function withoutFirst(labels: Tensor, { positions }: PackedRows): Tensor {
  return positions.equal(0).where(ignoredLabel, labels);
}

/**
 * Packed where the device's attention visits only the keys that each token sees. Where attention is made of matrix products, the scores
 * between rows would be computed too; and a prompt stands before each row of the batch, where all rows see one prefix.
 */
export function bestLayout({ device, virtualTokens, keeps }: CausalLM): BatchLayout {
  if (virtualTokens.prompt) return "padded";
  const sizes = keeps.find(({ keysValues }) => keysValues)?.keysValues;
  if (!sizes) return "padded";
  const heads = iota([1, sizes.kvHeads, 128, sizes.keyDim], 2, device);
  const packed = attention(heads, heads, heads, { isCausal: true, starts: iota([1, 128], 1, device) });
  return hasOwnKernel(packed) ? "packed" : "padded";
}

function iota(shape: readonly number[], axis: number, device: Device): Tensor {
  return new Tensor({ op: "iota", axis, shape, dtype: "i32" }, device);
}
