import { nn } from "@lowrank/autograd";
import { concat, type Tensor } from "@lowrank/tensor";
import { attend } from "../attend.js";
import type { Kept } from "../causal-lm.js";
import { joinHeads, splitHeads } from "../causal-lm.js";
import type { Weights } from "../parameters.js";
import type { Mixer, Part, Place } from "./mixer.js";
import { Norm, type NormOptions } from "./norm.js";
import type { Pass } from "./pass.js";
import type { RopeOptions, Rotary } from "./rope.js";

/** Attention whose keys and values are made of a short vector per token. */
export interface LatentAttentionOptions {
  readonly heads: number;
  /** Numbers of a query or key that have no position, and that have one: those of keys are the same for all heads. */
  readonly plainDim: number;
  readonly rope: RopeOptions;
  readonly valueDim: number;
  /** Sizes of the short vectors; queries have none where null. */
  readonly latentDims: { readonly q: number | null; readonly kv: number };
  /** Of the short vectors. */
  readonly norm: NormOptions;
  readonly bias: boolean;
  readonly scale: number;
}

/** Multi-head latent attention (DeepSeek-V2, section 2.1): keys and values are W norm(c) of each head, c a short vector, and keys have a shared part with positions. */
export class LatentAttention extends nn.Module implements Mixer {
  readonly keeps: Kept;
  readonly takesPacked: boolean = true;
  readonly usualTargets: readonly string[];
  readonly #options: LatentAttentionOptions;
  readonly #layer: number;
  readonly #queries: (x: Tensor) => Tensor;
  readonly #down: nn.Linear;
  readonly #norm: Norm;
  readonly #up: nn.Linear;
  readonly #out: nn.Linear;
  readonly #rotary: Rotary;

  constructor(weights: Weights, { layer, width, rotary }: Place, options: LatentAttentionOptions) {
    super();
    const { heads, plainDim, rope, valueDim, latentDims, norm, bias } = options;
    this.#options = options;
    this.#layer = layer;
    const keyDim = plainDim + rope.dims;
    const normed = (name: string, size: number): Norm => weights.module(name, (at) => new Norm(at, size, norm));
    if (latentDims.q === null) {
      const whole = weights.dense("q_proj", width, heads * keyDim);
      this.#queries = (x) => whole.forward(x);
    } else {
      const down = weights.dense("q_a_proj", width, latentDims.q, { bias });
      const between = normed("q_a_layernorm", latentDims.q);
      const up = weights.dense("q_b_proj", latentDims.q, heads * keyDim);
      this.#queries = (x) => up.forward(between.forward(down.forward(x)));
    }
    this.#down = weights.dense("kv_a_proj_with_mqa", width, latentDims.kv + rope.dims, { bias });
    this.#norm = normed("kv_a_layernorm", latentDims.kv);
    this.#up = weights.dense("kv_b_proj", latentDims.kv, heads * (plainDim + valueDim));
    this.#out = weights.dense("o_proj", heads * valueDim, width, { bias });
    this.#rotary = rotary(rope);
    this.keeps = { keysValues: { kvHeads: heads, keyDim, valueDim } };
    this.usualTargets = [latentDims.q === null ? "q_proj" : "q_b_proj", "kv_b_proj"];
  }

  /** [batch, seq, width] → the same shape. */
  forward(x: Tensor, pass: Pass): Tensor {
    return this.through(x, (input) => {
      const { heads, plainDim, rope, valueDim, latentDims, scale } = this.#options;
      const waves = pass.waves(this.#rotary);
      const turned = (t: Tensor): Tensor => this.#rotary.turn(t, waves);
      const queries = splitHeads(this.#queries(input), heads);
      const q = concat([queries.narrow(3, 0, plainDim), turned(queries.narrow(3, plainDim, rope.dims))], 3);
      const down = this.#down.forward(input);
      const both = splitHeads(this.#up.forward(this.#norm.forward(down.narrow(-1, 0, latentDims.kv))), heads);
      const shared = turned(splitHeads(down.narrow(-1, latentDims.kv, rope.dims), 1));
      const [batch = 0, , length = 0] = both.shape;
      const k = concat([both.narrow(3, 0, plainDim), shared.expand([batch, heads, length, rope.dims])], 3);
      const v = both.narrow(3, plainDim, valueDim);
      return this.#out.forward(joinHeads(attend(q, k, v, { layer: this.#layer, scale, window: null, cap: null, sinks: null }, pass)));
    });
  }
}

/** Latent attention as the mixer of a layer. */
export function latentAttention(options: LatentAttentionOptions): Part<Mixer> {
  return (weights, place) => new LatentAttention(weights, place, options);
}
