import { nn } from "@lowrank/autograd";
import { concat, softplus, type Tensor } from "@lowrank/tensor";
import { type ActivationName, activations } from "../activation.js";
import type { Kept } from "../causal-lm.js";
import { joinHeads, splitHeads } from "../causal-lm.js";
import { ones, type Weights, zeros } from "../parameters.js";
import { countingTokens, DepthwiseConv } from "./depthwise-conv.js";
import type { Mixer, Part, Place } from "./mixer.js";
import type { Pass } from "./pass.js";
import { chunkedStateSpace, recurrentStateSpace, type StateSpaceInputs } from "./state-space.js";

/** Passes of at most so many tokens go token by token. */
const fewTokens = 4;

/** A Mamba-2 mixer. */
export interface MambaOptions {
  readonly heads: number;
  readonly headDim: number;
  readonly stateDim: number;
  /** Heads in so many groups, each of which shares B and C. */
  readonly groups: number;
  readonly convSize: number;
  readonly bias: { readonly conv: boolean; readonly in: boolean; readonly out: boolean };
  readonly activation: ActivationName;
  /** Tokens per chunk. */
  readonly chunk: number;
  /** Least and largest Δ. */
  readonly timeStepLimit: readonly [least: number, most: number];
  /** The norm at the end, over each of so many groups of channels, in front of the gate or behind it; null for the gate alone. */
  readonly norm: { readonly eps: number; readonly groups: number; readonly isBeforeGate: boolean } | null;
  /** What the input and the parts of its projection are multiplied by: gate, x, B, C and Δ (Falcon-H1). */
  readonly multipliers?: { readonly input: number; readonly parts: readonly number[] };
}

/**
 * Mamba-2 (Dao & Gu 2024): x, B and C through a short convolution, Δ = softplus(Δ + bias), the state S ← e^(−e^A Δ) S + Δ B xᵀ,
 * y = Sᵀ C + D x, then norm(y · silu(gate)), projected back.
 */
export class Mamba extends nn.Module implements Mixer {
  readonly keeps: Kept;
  readonly takesPacked: boolean = true;
  readonly usualTargets: readonly string[] = ["in_proj"];
  /** [heads]. */
  A_log: Tensor;
  D: Tensor;
  dt_bias: Tensor;
  readonly #options: MambaOptions;
  readonly #layer: number;
  readonly #in: nn.Linear;
  readonly #conv: DepthwiseConv;
  readonly #norm: GatedNorm | null;
  readonly #out: nn.Linear;

  constructor(weights: Weights, { layer, width }: Place, options: MambaOptions) {
    super();
    this.#options = options;
    this.#layer = layer;
    const { heads, headDim, stateDim, groups, convSize, bias, norm } = options;
    const inner = heads * headDim;
    const channels = inner + 2 * groups * stateDim;
    this.dt_bias = weights.tensor("dt_bias", [heads], ones);
    this.A_log = weights.tensor("A_log", [heads], zeros);
    this.D = weights.tensor("D", [heads], ones);
    this.#conv = weights.module("conv1d", (at) => new DepthwiseConv(at, layer, channels, convSize, bias.conv));
    this.#in = weights.dense("in_proj", width, inner + channels + heads, { bias: bias.in });
    this.#norm = norm && weights.module("norm", (at) => new GatedNorm(at, inner, norm));
    this.#out = weights.dense("out_proj", inner, width, { bias: bias.out });
    this.keeps = { state: { ...DepthwiseConv.keeps(channels, convSize), ssm: [heads, stateDim, headDim] } };
  }

  /** [batch, seq, width] → the same shape. */
  forward(x: Tensor, pass: Pass): Tensor {
    return this.through(x, (input) => {
      const { heads, headDim, stateDim, groups, activation, timeStepLimit, multipliers } = this.#options;
      const inner = heads * headDim;
      const states = groups * stateDim;
      const projected = this.#in.forward(multipliers ? input.mul(multipliers.input) : input);
      const sizes = [inner, inner, states, states, heads];
      const parts = sizes.map((size, i) => {
        const start = sizes.slice(0, i).reduce((sum, other) => sum + other, 0);
        return { start, size, factor: multipliers?.parts[i] ?? 1 };
      });
      const part = (i: number): Tensor => {
        const { start = 0, size = 0, factor = 1 } = parts[i] ?? {};
        return factor === 1 ? projected.narrow(-1, start, size) : projected.narrow(-1, start, size).mul(factor);
      };
      const mixed = multipliers ? concat([part(1), part(2), part(3)], -1) : projected.narrow(-1, inner, inner + 2 * states);
      const convolved = activations[activation](this.#conv.forward(mixed, pass));
      const steps = within(softplus(part(4).add(this.dt_bias)), timeStepLimit);
      const counting = countingTokens(pass);
      // A token that does not count leaves the state as it is: Δ = 0.
      const delta = (counting ? steps.mul(counting.unsqueeze(2)) : steps).permute([0, 2, 1]);
      const values = splitHeads(convolved.narrow(-1, 0, inner), heads);
      const grouped = (from: number): Tensor => this.#repeated(splitHeads(convolved.narrow(-1, from, states), groups));
      const inputs = {
        queries: grouped(inner + states),
        keys: grouped(inner),
        values: values.mul(delta.unsqueeze(3)),
        decay: delta.mul(this.A_log.cast("f32").exp().neg().reshape([heads, 1])),
      };
      const y = this.#recur(inputs, pass).add(values.mul(this.D.reshape([heads, 1, 1])));
      const [joined, gate] = [joinHeads(y), part(0)];
      return this.#out.forward(this.#norm ? this.#norm.gated(joined, gate) : joined.mul(gate.silu()));
    });
  }

  #recur(inputs: StateSpaceInputs, { cache, packed, length }: Pass): Tensor {
    const before = cache?.state(this.#layer, "ssm") ?? null;
    const isFew = before !== null && length <= fewTokens;
    const { output, state } = isFew
      ? recurrentStateSpace(inputs, before)
      : chunkedStateSpace(inputs, before, packed?.starts ?? null, this.#options.chunk);
    cache?.keep(this.#layer, "ssm", state);
    return output;
  }

  /** A group's B or C for each of its heads, which lie side by side. */
  #repeated(x: Tensor): Tensor {
    const { heads, groups } = this.#options;
    const [batch = 0, , length = 0, dim = 0] = x.shape;
    if (heads === groups) return x;
    return x
      .unsqueeze(2)
      .expand([batch, groups, heads / groups, length, dim])
      .reshape([batch, heads, length, dim]);
  }
}

/** Numbers of at least 0 within limits that may be infinite. */
function within(x: Tensor, [least, most]: readonly [number, number]): Tensor {
  const raised = least > 0 ? x.maximum(least) : x;
  return Number.isFinite(most) ? raised.minimum(most) : raised;
}

/** A root mean square norm over groups of channels, with a gate in front or behind. */
class GatedNorm extends nn.Module {
  /** [width]. */
  weight: Tensor;
  readonly #options: NonNullable<MambaOptions["norm"]>;

  constructor(weights: Weights, width: number, options: NonNullable<MambaOptions["norm"]>) {
    super();
    this.#options = options;
    this.weight = weights.tensor("weight", [width], ones);
  }

  /** norm(x · silu(gate)), or norm(x) · silu(gate): [batch, seq, width] → the same shape. */
  gated(x: Tensor, gate: Tensor): Tensor {
    const { isBeforeGate } = this.#options;
    return isBeforeGate ? this.forward(x).mul(gate.silu()) : this.forward(x.mul(gate.silu()));
  }

  forward(x: Tensor): Tensor {
    return this.through(x, (input) => {
      const { eps, groups } = this.#options;
      const [batch = 0, length = 0, width = 0] = input.shape;
      const split = input.reshape([batch, length, groups, width / groups]);
      const normed = split.mul(split.square().mean(-1, { keepDims: true }).add(eps).rsqrt());
      return normed.reshape(input.shape).mul(this.weight);
    });
  }
}

/** Mamba-2 as the mixer of a layer. */
export function mamba(options: MambaOptions): Part<Mixer> {
  return (weights, place) => new Mamba(weights, place, options);
}
