import { concat, type Tensor } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import type { DenseLayer, FusedPart, Wrapper } from "./model.js";

/** A fused layer: several projections with one weight. */
type FusedLayer = DenseLayer & { readonly fusedParts: readonly FusedPart[] };

/** The outputs' axis of a layer's weight or bias. */
export function outputAxis({ isTransposed }: DenseLayer, tensor: Tensor): number {
  return isTransposed ? tensor.rank - 1 : 0;
}

/** Shares of a tensor along the outputs' axis, one for each part, in order. */
export function sharesOf(layer: FusedLayer, tensor: Tensor, axis: number): Tensor[] {
  const at = axis < 0 ? tensor.rank + axis : axis;
  const { shape } = tensor;
  return layer.fusedParts.map(({ start, size, period = layer.outFeatures }) => {
    if (period === layer.outFeatures) return tensor.narrow(at, start, size);
    const count = layer.outFeatures / period;
    const rows = tensor.reshape([...shape.slice(0, at), count, period, ...shape.slice(at + 1)]).narrow(at + 1, start, size);
    return rows.reshape([...shape.slice(0, at), count * size, ...shape.slice(at + 1)]);
  });
}

/** The tensor of which these are the shares. */
export function joinedShares(layer: FusedLayer, shares: readonly Tensor[], axis: number): Tensor {
  const [first] = shares;
  const period = layer.fusedParts[0]?.period ?? layer.outFeatures;
  if (!first || period === layer.outFeatures) return concat([...shares], axis);
  const at = axis < 0 ? first.rank + axis : axis;
  const [before, after] = [first.shape.slice(0, at), first.shape.slice(at + 1)];
  const count = layer.outFeatures / period;
  const rows = shares.map((share) => share.reshape([...before, count, (share.shape[at] ?? 0) / count, ...after]));
  return concat(rows, at + 1).reshape([...before, layer.outFeatures, ...after]);
}

/** One of the projections in a fused layer, as a dense layer over its share of the outputs. */
export class LayerPart implements DenseLayer {
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly isTransposed: boolean;
  /** What the part is called below the layer. */
  readonly key: string;

  constructor(
    readonly whole: FusedLayer,
    readonly index: number,
    { name, size, period = whole.outFeatures }: FusedPart,
  ) {
    this.key = name;
    this.inFeatures = whole.inFeatures;
    this.outFeatures = size * (whole.outFeatures / period);
    this.isTransposed = whole.isTransposed;
  }

  get isTraining(): boolean {
    return this.whole.isTraining;
  }

  /** The part's share of a tensor of the whole layer, along the outputs' axis. */
  share(tensor: Tensor, axis: number = outputAxis(this, tensor)): Tensor {
    return sharesOf(this.whole, tensor, axis)[this.index] as Tensor; // one a part
  }

  get weight(): Tensor {
    return this.share(this.whole.weight);
  }

  get bias(): Tensor | null {
    return this.whole.bias && this.share(this.whole.bias);
  }

  use(wrapper: Wrapper): () => void {
    return this.whole.use((x, next) => {
      const result = next(x);
      const shares = sharesOf(this.whole, result, -1);
      const own = shares[this.index] as Tensor; // one a part
      shares[this.index] = wrapper(x, (input) => (input === x ? own : this.share(next(input), -1)));
      return joinedShares(this.whole, shares, -1);
    });
  }

  replace(): () => void {
    throw new AdapterError(`The part ${this.key} of a layer has no parameters of its own to replace. Name the whole layer.`, [this.key]);
  }
}

/** A fused layer of which some parts are adapted. */
export interface FusedPlace {
  readonly layer: FusedLayer;
  /** By their full names, in the layer's order. */
  readonly parts: ReadonlyMap<string, LayerPart>;
}

function isFused(layer: DenseLayer): layer is FusedLayer {
  return layer.fusedParts !== undefined && layer.fusedParts.length > 0;
}

/** The parts of a layer that a list of targets names, as `qkv_proj.q` does, by their full names; none for a layer that is not fused. */
export function partsOf(name: string, layer: DenseLayer, targets: readonly string[]): Map<string, LayerPart> {
  if (!isFused(layer)) return new Map();
  const last = name.slice(name.lastIndexOf(".") + 1);
  const isNamed = (key: string): boolean => targets.some((target) => isEnd(target, `${last}.${key}`));
  const parts = layer.fusedParts.map((part, index) => [`${name}.${part.name}`, new LayerPart(layer, index, part)] as const);
  return new Map(parts.filter(([, { key }]) => isNamed(key)));
}

function isEnd(name: string, end: string): boolean {
  return name === end || name.endsWith(`.${end}`);
}
