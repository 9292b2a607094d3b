import { concat, largest, realizeNow, ShapeError, type Tensor, tensor, zeros } from "@lowrank/tensor";
import { finallyDo, setActive } from "../active.js";
import type { Adapter } from "../adapter.js";
import { AdapterError } from "../errors.js";
import { type AdaptableModel, deviceOf, type Wrapper } from "../targeting/model.js";
import { type Factors, factorsOf } from "./factors.js";

/** For each row of a batch the index of its adapter, or null for the plain base; as a tensor, i32 [batch], with −1 for the base. */
export type AdapterRows = readonly (number | null)[] | Tensor;

/** The pairs of all adapters on one layer, padded to one rank, and zeros at the end for rows without an adapter. */
interface LayerStack {
  readonly layer: Factors["layer"];
  /** [adapters + 1, in, rank] */
  readonly a: Tensor;
  /** [adapters + 1, rank, out], scaled. */
  readonly b: Tensor;
}

/** Several adapters in one forward, each on its own rows. Made by `adapterBatch`. */
export class AdapterBatch {
  #removers: (() => void)[] = [];
  #stacks: readonly LayerStack[] = [];
  /** The wrappers of `rows`, a stack each. */
  #own: readonly Wrapper[] = [];
  #rows: Tensor;
  /** Never true; an adapter that is merged does not get into a batch. */
  readonly isMerged = false;

  constructor(
    readonly model: AdaptableModel,
    readonly adapters: readonly Adapter[],
    rows: AdapterRows,
  ) {
    this.#rows = this.#indices(rows);
  }

  /** i32 [batch], −1 for the base: what the forward reads. */
  get rows(): Tensor {
    return this.#rows;
  }

  get isEnabled(): boolean {
    return this.#removers.length > 0;
  }

  /**
   * Other adapters for the rows. For as many rows as before, compiled functions run on without recording anything again.
   * Throws AdapterError for an index that no adapter has.
   */
  choose(rows: AdapterRows): void {
    const next = this.#indices(rows);
    if (next.shape[0] === this.#rows.shape[0] && this.#rows.home) {
      this.#rows.assign(next);
      return;
    }
    this.#rows = next;
    if (!this.isEnabled) return;
    this.#own = this.#wrappers(next);
    this.#wrap(this.#own);
  }

  /**
   * Runs `fn` with other rows. Inside a compiled function `rows` may be an argument of it, so that one recording serves every mix; the
   * batch is made and enabled outside. Throws AdapterError while the batch is not enabled.
   */
  withRows<R>(rows: AdapterRows, fn: () => R): R {
    if (!this.isEnabled) throw new AdapterError("The batch is not in the forward, so rows would choose nothing. enable() it first.");
    this.#wrap(this.#wrappers(this.#indices(rows)));
    return finallyDo(fn, () => this.#wrap(this.#own));
  }

  /** Takes the adapters one by one out of the forward and puts all of them in together, with the values that they have now. */
  enable(): void {
    if (this.isEnabled) return;
    for (const adapter of this.adapters) {
      if (adapter.isMerged)
        throw new AdapterError("An adapter of the batch is merged into the weights, which all rows share. unmerge() it first.");
    }
    const factors = this.adapters.map((adapter) => factorsOf(adapter, "put into one batch"));
    for (const adapter of this.adapters) adapter.disable();
    const names = new Set(factors.flatMap((of) => [...of.keys()]));
    this.#stacks = [...names].map((name) => stackOf(factors.map((of) => of.get(name))));
    realizeNow(this.#stacks.flatMap(({ a, b }) => [a, b]));
    this.#own = this.#wrappers(this.#rows);
    this.#wrap(this.#own);
    setActive(this.model, this, true);
  }

  /** Takes the batch out of the forward, which is then the base's; single adapters are put back with their own `enable`. */
  disable(): void {
    this.#unwrap();
    this.#stacks = [];
    setActive(this.model, this, false);
  }

  /** Other rows mean other wrappers: a recording that has captured the rows of some is then not taken for that of others. */
  #wrappers(rows: Tensor): Wrapper[] {
    return this.#stacks.map((stack) => onRows(stack, rows, this.adapters.length));
  }

  #wrap(wrappers: readonly Wrapper[]): void {
    this.#unwrap();
    this.#removers = this.#stacks.map(({ layer }, index) => layer.use(wrappers[index] ?? ((x, next) => next(x))));
  }

  #unwrap(): void {
    for (const remove of this.#removers.reverse()) remove();
    this.#removers = [];
  }

  #indices(rows: AdapterRows): Tensor {
    if (!Array.isArray(rows)) return rows as Tensor;
    const indices = (rows as readonly (number | null)[]).map((row) => row ?? -1);
    const wrong = indices.find((index) => !Number.isInteger(index) || index < -1 || index >= this.adapters.length);
    if (wrong !== undefined || indices.length === 0) {
      throw new AdapterError(
        `rows are [${indices.join(", ")}], and there are ${this.adapters.length} adapters. Give each row of the batch an index from 0 to ${this.adapters.length - 1}, or null for the base.`,
      );
    }
    return tensor(indices, { device: deviceOf(this.model), dtype: "i32" });
  }
}

/**
 * Lets each row of a batch go through an adapter of its own in one forward, with the base's weights there once:
 * `adapterBatch(model, [french, german], [0, 1, null])`. The pairs of all adapters on a layer are padded to the largest rank and stacked,
 * each row gathers its own, and one batched product for A and one for B serve the whole batch (the grouped products of Punica, Chen et al.
 * 2023, and S-LoRA, Sheng et al. 2023). Ranks, scalings and targets may differ; dropout is off. `choose` and `withRows`
 * change the mix later. peft's `adapter_names` of a forward. Throws AdapterError for adapters that are merged,
 * on another model, or not plain LoRA, and for an index out of range.
 */
export function adapterBatch(model: AdaptableModel, adapters: readonly Adapter[], rows: AdapterRows): AdapterBatch {
  if (adapters.length === 0 || adapters.some((adapter) => adapter.model !== model))
    throw new AdapterError("A batch needs at least one adapter, and all of them on the model given. Apply or load them on it first.");
  const batch = new AdapterBatch(model, adapters, rows);
  batch.enable();
  return batch;
}

function stackOf(factors: readonly (Factors | undefined)[]): LayerStack {
  const rank = largest(factors.map((pair) => pair?.rank ?? 0));
  const layer = factors.find((pair) => pair !== undefined)?.layer;
  if (!layer) throw new AdapterError("A layer without any adapter got into a batch. Please report it.");
  const { inFeatures, outFeatures } = layer;
  const { device } = layer.weight;
  // The end stands for rows without an adapter, as zeros do for an adapter that leaves this layer out.
  const padded = [...factors, undefined].map((pair) => {
    if (!pair) return { a: zeros([1, inFeatures, rank], { device }), b: zeros([1, rank, outFeatures], { device }) };
    const missing = rank - pair.rank;
    const none = [0, 0] as const;
    return {
      a: pair.a
        .t()
        .pad([none, [0, missing]])
        .unsqueeze(0),
      b: pair.b
        .t()
        .mul(pair.scaling)
        .pad([[0, missing], none])
        .unsqueeze(0),
    };
  });
  return { layer, a: concat(padded.map(({ a }) => a)), b: concat(padded.map(({ b }) => b)) };
}

function onRows({ a, b }: LayerStack, rows: Tensor, count: number): Wrapper {
  const batch = rows.size;
  return (x, next) => {
    const width = x.sizeAt(-1);
    const y = next(x);
    // A row's positions lie together, whether or not they have an axis of their own.
    const length = x.size / (width * batch);
    if (!Number.isInteger(length)) {
      throw new ShapeError(`adapterBatch: ${batch} rows were chosen, and the batch has ${x.shape[0]}. Choose an adapter for each row.`, [
        x.shape,
        rows.shape,
      ]);
    }
    const index = rows.less(0).where(count, rows);
    const low = x.reshape([batch, length, width]).matmul(a.gather(index));
    return y.add(low.matmul(b.gather(index)).reshape(y.shape));
  };
}
