import { type Device, dtypeBytes, dynamicUpdateSlice, fromBytes, type Shape, sizeOf, type Tensor, tensor } from "@lowrank/tensor";
import type { Kept } from "./causal-lm.js";

/** How keys and values are stored. */
export type CacheDType = "f32" | "bf16";

/** What a pass is told of the texts that it reads on, i32 [batch] each. */
export interface CachePass {
  /** Where each text's first token of the pass goes. */
  readonly positions: Tensor;
  /** How many of the pass's tokens each text has, from the first on; the others fill up its row. */
  readonly counts: Tensor;
  /** How many tokens each text has in all: its prompt, or as far as it is generated. */
  readonly lengths: Tensor;
  /** True for the first pass, which also brings what virtual tokens give. */
  readonly isFirst: boolean;
}

/** Of one layer. */
interface Layer {
  /** Each [batch, kvHeads, capacity, dim]. */
  readonly keysValues: { readonly keys: Tensor; readonly values: Tensor } | null;
  /** Each [batch, …]. */
  readonly state: ReadonlyMap<string, Tensor>;
}

/**
 * What a model's layers keep of the tokens so far: keys and values, of which a pass writes those of its own tokens at `positions` and nothing
 * else, and states of a fixed size, which it replaces.
 */
export class KeyValueCache {
  readonly #layers: readonly Layer[];
  #pass: CachePass | null = null;

  /** A cache full of zeros. Keys and values are stored in `dtype`, states in f32. */
  constructor(
    kept: readonly Kept[],
    readonly batch: number,
    readonly capacity: number,
    readonly device: Device,
    readonly dtype: CacheDType = "f32",
  ) {
    const make = (shape: Shape, stored: CacheDType): Tensor =>
      fromBytes(new Uint8Array(dtypeBytes[stored] * sizeOf(shape)), stored, shape, device);
    this.#layers = kept.map(({ keysValues, state = {} }) => ({
      keysValues: keysValues
        ? {
            keys: make([batch, keysValues.kvHeads, capacity, keysValues.keyDim], dtype),
            values: make([batch, keysValues.kvHeads, capacity, keysValues.valueDim], dtype),
          }
        : null,
      state: new Map(Object.entries(state).map(([name, shape]) => [name, make([batch, ...shape], "f32")])),
    }));
  }

  /** True in the first pass, which also brings what virtual tokens give. */
  get isEmpty(): boolean {
    return this.#current.isFirst;
  }

  /** i32 [batch]: where each text's first token of the present pass goes. */
  get positions(): Tensor {
    return this.#current.positions;
  }

  /** i32 [batch]: how many of the present pass's tokens count in each text. */
  get counts(): Tensor {
    return this.#current.counts;
  }

  /** i32 [batch]: how many tokens each text has in all. */
  get lengths(): Tensor {
    return this.#current.lengths;
  }

  get #current(): CachePass {
    if (!this.#pass) throw new Error("KeyValueCache: begin a pass first.");
    return this.#pass;
  }

  begin(pass: CachePass): void {
    this.#pass = pass;
  }

  /** Adds the keys and values of a pass, [batch, kvHeads, seq, dim], at `positions`; returns all. */
  append(layer: number, keys: Tensor, values: Tensor): { readonly keys: Tensor; readonly values: Tensor } {
    const starts = this.positions.reshape([this.batch, 1]).pad([
      [0, 0],
      [1, 1],
    ]);
    const own = this.#at(layer).keysValues;
    if (!own) throw new Error(`KeyValueCache: layer ${layer} keeps no keys and values.`);
    own.keys.assign(dynamicUpdateSlice(own.keys, keys, starts));
    own.values.assign(dynamicUpdateSlice(own.values, values, starts));
    return own;
  }

  /** Keys and values so far, for a layer that shares another's. */
  keysValues(layer: number): { readonly keys: Tensor; readonly values: Tensor } {
    const own = this.#at(layer).keysValues;
    if (!own) throw new Error(`KeyValueCache: layer ${layer} keeps no keys and values.`);
    return own;
  }

  /** A state as the pass before left it, f32 [batch, …]; zeros for texts that begin. */
  state(layer: number, name: string): Tensor {
    const held = this.#held(layer, name);
    const begins = this.positions.equal(0).reshape([this.batch, ...held.shape.slice(1).map(() => 1)]);
    return begins.where(0, held);
  }

  /** Puts a state's next value in its place. */
  keep(layer: number, name: string, value: Tensor): void {
    this.#held(layer, name).assign(value);
  }

  /** Takes over the contents of a smaller cache, at the next run. */
  take(smaller: KeyValueCache): void {
    const start = tensor([0, 0, 0, 0], { dtype: "i32", device: this.device });
    const copy = (to: Tensor, from: Tensor): void => void to.assign(dynamicUpdateSlice(to, from, start));
    for (const [layer, { keysValues, state }] of smaller.#layers.entries()) {
      const own = this.#at(layer);
      if (keysValues && own.keysValues) {
        copy(own.keysValues.keys, keysValues.keys);
        copy(own.keysValues.values, keysValues.values);
      }
      for (const [name, value] of state) this.keep(layer, name, value);
    }
  }

  /** Gives the memory back. */
  dispose(): void {
    for (const { keysValues, state } of this.#layers)
      for (const t of [...(keysValues ? [keysValues.keys, keysValues.values] : []), ...state.values()]) t.dispose();
  }

  #at(layer: number): Layer {
    const found = this.#layers[layer];
    if (!found) throw new Error(`KeyValueCache: there is no layer ${layer}.`);
    return found;
  }

  #held(layer: number, name: string): Tensor {
    const found = this.#at(layer).state.get(name);
    if (!found) throw new Error(`KeyValueCache: layer ${layer} keeps no state "${name}".`);
    return found;
  }
}
