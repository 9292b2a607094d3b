import { type Device, dtypeBytes, dynamicUpdateSlice, fromBytes, type Tensor, tensor } from "@lowrank/tensor";
import type { CacheShape } from "./causal-lm.js";

/** How keys and values are stored. */
export type CacheDType = "f32" | "bf16";

/**
 * Keys and values of the tokens so far, a pair of tensors [batch, kvHeads, capacity, headDim] a layer. A forward pass writes those of its
 * own tokens at `positions`, and nothing else of it.
 */
export class KeyValueCache {
  readonly keys: readonly Tensor[];
  readonly values: readonly Tensor[];
  /** True before the first pass, which also brings what virtual tokens give. */
  isEmpty = true;
  #positions: Tensor | null = null;

  /** A cache full of zeros. */
  constructor(
    shape: CacheShape,
    readonly batch: number,
    readonly capacity: number,
    readonly device: Device,
    readonly dtype: CacheDType = "f32",
  ) {
    const sizes = [batch, shape.kvHeads, capacity, shape.headDim];
    const bytes = dtypeBytes[dtype] * batch * shape.kvHeads * capacity * shape.headDim;
    const make = (): Tensor => fromBytes(new Uint8Array(bytes), dtype, sizes, device);
    this.keys = Array.from({ length: shape.layers }, make);
    this.values = Array.from({ length: shape.layers }, make);
  }

  /** i32 [batch]: where each text's first token of the present pass goes. */
  get positions(): Tensor {
    if (!this.#positions) throw new Error("KeyValueCache: begin a pass first.");
    return this.#positions;
  }

  /** The next pass writes at these positions, i32 [batch]; the first one at 0. */
  begin(positions: Tensor, isEmpty: boolean): void {
    this.#positions = positions;
    this.isEmpty = isEmpty;
  }

  /** Adds the keys and values of a pass, [batch, kvHeads, seq, headDim], at `positions`; returns all. */
  append(layer: number, keys: Tensor, values: Tensor): { readonly keys: Tensor; readonly values: Tensor } {
    const starts = this.positions.reshape([this.batch, 1]).pad([
      [0, 0],
      [1, 1],
    ]);
    const [k, v] = [at(this.keys, layer), at(this.values, layer)];
    k.assign(dynamicUpdateSlice(k, keys, starts));
    v.assign(dynamicUpdateSlice(v, values, starts));
    return { keys: k, values: v };
  }

  /** Takes over the contents of a smaller cache, at the next run. */
  take(smaller: KeyValueCache): void {
    const start = tensor([0, 0, 0, 0], { dtype: "i32", device: this.device });
    const copy = (to: Tensor, from: Tensor): void => void to.assign(dynamicUpdateSlice(to, from, start));
    for (const [layer, keys] of smaller.keys.entries()) {
      copy(at(this.keys, layer), keys);
      copy(at(this.values, layer), at(smaller.values, layer));
    }
  }

  /** Gives the memory back. */
  dispose(): void {
    for (const t of [...this.keys, ...this.values]) t.dispose();
  }
}

function at(tensors: readonly Tensor[], layer: number): Tensor {
  const found = tensors[layer];
  if (!found) throw new Error(`KeyValueCache: there is no layer ${layer}.`);
  return found;
}
