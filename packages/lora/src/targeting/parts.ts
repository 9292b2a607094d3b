import { concat, type Tensor } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import type { DenseLayer, Wrapper } from "./model.js";

/** Layers that compute several projections with one weight, by the last part of their names, and what these are called, in order. */
const fusedLayers: Readonly<Record<string, readonly string[]>> = { c_attn: ["q", "k", "v"] };

/** One of the projections in a fused layer, as a dense layer over its share of the outputs. */
export class LayerPart implements DenseLayer {
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly isTransposed: boolean;

  constructor(
    readonly whole: DenseLayer,
    /** What the part is called below the layer. */
    readonly key: string,
    readonly index: number,
    readonly count: number,
  ) {
    this.inFeatures = whole.inFeatures;
    this.outFeatures = whole.outFeatures / count;
    this.isTransposed = whole.isTransposed;
  }

  get isTraining(): boolean {
    return this.whole.isTraining;
  }

  /** The part's share of a tensor of the whole layer, along the outputs' axis. */
  share(tensor: Tensor): Tensor {
    return tensor.narrow(this.isTransposed ? tensor.rank - 1 : 0, this.index * this.outFeatures, this.outFeatures);
  }

  get weight(): Tensor {
    return this.share(this.whole.weight);
  }

  get bias(): Tensor | null {
    return this.whole.bias && this.share(this.whole.bias);
  }

  use(wrapper: Wrapper): () => void {
    return this.whole.use((x, next) => {
      const mine = (result: Tensor): Tensor => result.narrow(-1, this.index * this.outFeatures, this.outFeatures);
      const result = next(x);
      const parts = result.split(this.count, -1);
      parts[this.index] = wrapper(x, (input) => mine(input === x ? result : next(input)));
      return concat(parts, -1);
    });
  }

  replace(): () => void {
    throw new AdapterError(`The part ${this.key} of a layer has no parameters of its own to replace. Name the whole layer.`, [this.key]);
  }
}

/** A fused layer of which some parts are adapted. */
export interface FusedPlace {
  readonly layer: DenseLayer;
  /** By their full names, in the layer's order. */
  readonly parts: ReadonlyMap<string, LayerPart>;
}

/** The parts of a layer by their full names; none for a layer that is not fused. */
export function partsOf(name: string, layer: DenseLayer): Map<string, LayerPart> {
  const keys = fusedLayers[name.slice(name.lastIndexOf(".") + 1)] ?? [];
  const isFused = keys.length > 0 && layer.outFeatures === keys.length * layer.inFeatures;
  return new Map(isFused ? keys.map((key, index) => [`${name}.${key}`, new LayerPart(layer, key, index, keys.length)] as const) : []);
}

/** True where a list names parts of fused layers. */
export function namesParts(targets: readonly string[]): boolean {
  return targets.some((target) =>
    Object.entries(fusedLayers).some(([layer, keys]) => keys.some((key) => isEnd(target, `${layer}.${key}`))),
  );
}

function isEnd(name: string, end: string): boolean {
  return name === end || name.endsWith(`.${end}`);
}
