import { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import type { Kept } from "../causal-lm.js";
import type { Weights } from "../parameters.js";
import { DepthwiseConv } from "./depthwise-conv.js";
import type { Mixer, Part, Place } from "./mixer.js";
import type { Pass } from "./pass.js";

/** A gated short convolution, and what its parts are called. */
export interface ShortConvOptions {
  /** Tokens that each result sees, its own included. */
  readonly size: number;
  readonly bias: boolean;
  readonly names: { readonly in: string; readonly conv: string; readonly out: string };
}

/** LFM2's mixer (Liquid AI 2025): with B, C and h thirds of in(x), out(C · conv(B · h)). */
export class ShortConv extends nn.Module implements Mixer {
  readonly keeps: Kept;
  readonly takesPacked: boolean = true;
  readonly usualTargets: readonly string[];
  readonly #in: nn.Linear;
  readonly #conv: DepthwiseConv;
  readonly #out: nn.Linear;

  constructor(weights: Weights, { layer, width }: Place, { size, bias, names }: ShortConvOptions) {
    super();
    const parts = ["b", "c", "x"].map((name, i) => ({ name, start: i * width, size: width }));
    this.#in = weights.dense(names.in, width, 3 * width, { bias, parts });
    this.#conv = weights.module(names.conv, (at) => new DepthwiseConv(at, layer, width, size, bias));
    this.#out = weights.dense(names.out, width, width, { bias });
    this.keeps = { state: DepthwiseConv.keeps(width, size) };
    this.usualTargets = [names.in];
  }

  /** [batch, seq, width] → the same shape. */
  forward(x: Tensor, pass: Pass): Tensor {
    return this.through(x, (input) => {
      const [b, c, h] = this.#in.forward(input).split(3, -1) as [Tensor, Tensor, Tensor];
      return this.#out.forward(c.mul(this.#conv.forward(b.mul(h), pass)));
    });
  }
}

/** A gated short convolution as the mixer of a layer. */
export function shortConv(options: ShortConvOptions): Part<Mixer> {
  return (weights, place) => new ShortConv(weights, place, options);
}
