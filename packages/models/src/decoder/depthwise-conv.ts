import { nn } from "@lowrank/autograd";
import { arange, type Shape, type Tensor } from "@lowrank/tensor";
import { type Weights, zeros } from "../parameters.js";
import { causalConv, convStateAfter } from "./causal-conv.js";
import type { Pass } from "./pass.js";

/** What a layer keeps of its convolution, by this name. */
const stateName = "conv";

/** A depthwise causal convolution over the tokens of a text, with the tokens of the passes before. */
export class DepthwiseConv extends nn.Module {
  /** [channels, 1, size]. */
  weight: Tensor;
  /** [channels]. */
  bias: Tensor | null;
  readonly #layer: number;

  constructor(weights: Weights, layer: number, channels: number, size: number, hasBias: boolean) {
    super();
    this.weight = weights.tensor("weight", [channels, 1, size]);
    this.bias = hasBias ? weights.tensor("bias", [channels], zeros) : null;
    this.#layer = layer;
  }

  /** What a layer with such a convolution keeps. */
  static keeps(channels: number, size: number): Readonly<Record<string, Shape>> {
    return { [stateName]: [size - 1, channels] };
  }

  /** x [batch, seq, channels] → the same shape. */
  forward(x: Tensor, { cache, packed }: Pass): Tensor {
    const size = this.weight.shape[2] ?? 1;
    const before = cache && size > 1 ? cache.state(this.#layer, stateName) : null;
    const kernel = { weight: this.weight.cast("f32"), bias: this.bias };
    const y = causalConv(x, kernel, { before, positions: packed?.positions ?? null });
    if (before) cache?.keep(this.#layer, stateName, convStateAfter(x, size, before, cache.counts));
    return y;
  }
}

/** 1 for the tokens of a pass that count and 0 for those that fill up its rows, f32 [batch, seq]; null where all count. */
export function countingTokens({ cache, batch, length }: Pass): Tensor | null {
  if (!cache) return null;
  return arange(length, { device: cache.device })
    .reshape([1, length])
    .less(cache.counts.reshape([batch, 1]))
    .cast("f32");
}
