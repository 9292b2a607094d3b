import { type Device, fromBytes, Tensor } from "@lowrank/tensor";
import type { CacheShape } from "../causal-lm.js";

/**
 * Keys and values of the tokens so far, a pair of tensors [batch, kvHeads, capacity, headDim] a layer, updated in place. Without
 * `positions` a forward pass fills it from the start; with them each row of the batch adds one token at its own position.
 */
export class KeyValueCache {
  readonly keys: readonly Tensor[];
  readonly values: readonly Tensor[];
  /** i32 [batch]: where the next token goes; null while the prompt is read. */
  positions: Tensor | null = null;

  /** A cache full of zeros. */
  constructor(
    shape: CacheShape,
    readonly batch: number,
    readonly capacity: number,
    readonly device: Device,
  ) {
    const make = (): Tensor => {
      const sizes = [batch, shape.kvHeads, capacity, shape.headDim];
      return fromBytes(new Uint8Array(4 * batch * shape.kvHeads * capacity * shape.headDim), "f32", sizes, device);
    };
    this.keys = Array.from({ length: shape.layers }, make);
    this.values = Array.from({ length: shape.layers }, make);
  }

  /** Keeps the keys and values of a whole prompt, [batch, kvHeads, seq, headDim] with seq ≤ capacity. */
  fill(layer: number, keys: Tensor, values: Tensor): void {
    this.#keysAt(layer).assign(this.#padded(keys));
    this.#valuesAt(layer).assign(this.#padded(values));
  }

  /** Adds one token's keys and values [batch, kvHeads, 1, headDim] at `positions`; returns all, and what of them is visible. */
  append(layer: number, keys: Tensor, values: Tensor): { readonly keys: Tensor; readonly values: Tensor; readonly mask: Tensor } {
    if (!this.positions) throw new Error("KeyValueCache.append: no positions are set.");
    const [k, v] = [this.#keysAt(layer), this.#valuesAt(layer)];
    const at = this.positions.reshape([this.batch, 1, 1, 1]);
    const slot = new Tensor({ op: "iota", axis: 2, shape: k.shape, dtype: "i32" }, this.device);
    const isNew = slot.equal(at);
    k.assign(isNew.where(keys, k));
    v.assign(isNew.where(values, v));
    const key = new Tensor({ op: "iota", axis: 3, shape: [this.batch, 1, 1, this.capacity], dtype: "i32" }, this.device);
    return { keys: k, values: v, mask: key.greater(at).where(Number.NEGATIVE_INFINITY, key.cast("f32").mul(0)) };
  }

  /** Takes over the contents of a smaller cache; like `fill`, at the next run. */
  take(smaller: KeyValueCache): void {
    for (const [layer, keys] of smaller.keys.entries()) this.fill(layer, keys, at(smaller.values, layer));
  }

  /** Gives the memory back. */
  dispose(): void {
    for (const t of [...this.keys, ...this.values]) t.dispose();
  }

  #padded(x: Tensor): Tensor {
    return x.pad([
      [0, 0],
      [0, 0],
      [0, this.capacity - (x.shape[2] ?? 0)],
      [0, 0],
    ]);
  }

  #keysAt(layer: number): Tensor {
    return at(this.keys, layer);
  }

  #valuesAt(layer: number): Tensor {
    return at(this.values, layer);
  }
}

function at(tensors: readonly Tensor[], layer: number): Tensor {
  const found = tensors[layer];
  if (!found) throw new Error(`KeyValueCache: there is no layer ${layer}.`);
  return found;
}
