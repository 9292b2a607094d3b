import { nn } from "@lowrank/autograd";
import { concat, softplus, type Tensor } from "@lowrank/tensor";
import { type ActivationName, activations } from "../activation.js";
import type { Kept } from "../causal-lm.js";
import { joinHeads, splitHeads } from "../causal-lm.js";
import { ones, type Weights, zeros } from "../parameters.js";
import { countingTokens, DepthwiseConv } from "./depthwise-conv.js";
import { chunkedGatedDelta, type DeltaInputs, recurrentGatedDelta } from "./gated-delta-rule.js";
import type { Mixer, Part, Place } from "./mixer.js";
import { Norm } from "./norm.js";
import type { Pass } from "./pass.js";

/** Passes of at most so many tokens go token by token. */
const fewTokens = 4;

/** A gated delta net. */
export interface GatedDeltaOptions {
  /** Heads of queries and keys, each of which serves valueHeads / keyHeads heads of values. */
  readonly keyHeads: number;
  readonly keyDim: number;
  readonly valueHeads: number;
  readonly valueDim: number;
  /** Tokens that the convolution in front sees. */
  readonly convSize: number;
  readonly activation: ActivationName;
  readonly eps: number;
  /** Projections to queries, keys and values, to the gate z, to β and to the decay: one each (Qwen3.5), or two in one, ordered by key heads (Qwen3-Next). */
  readonly projections: "apart" | "fused";
}

/** What the projections give: queries, keys and values [batch, seq, channels], z [batch, seq, values], b and a [batch, seq, valueHeads]. */
interface Projected {
  readonly mixed: Tensor;
  readonly z: Tensor;
  readonly b: Tensor;
  readonly a: Tensor;
}

/**
 * Gated DeltaNet (Yang et al. 2024): queries, keys and values through a short convolution, the gated delta rule with β = sigmoid(b) and
 * g = −e^A softplus(a + bias), then norm(o) · silu(z), projected back.
 */
export class GatedDelta extends nn.Module implements Mixer {
  readonly keeps: Kept;
  readonly takesPacked: boolean = true;
  readonly usualTargets: readonly string[];
  /** [valueHeads]. */
  A_log: Tensor;
  dt_bias: Tensor;
  readonly #options: GatedDeltaOptions;
  readonly #layer: number;
  readonly #project: (x: Tensor) => Projected;
  readonly #conv: DepthwiseConv;
  readonly #norm: Norm;
  readonly #out: nn.Linear;

  constructor(weights: Weights, { layer, width }: Place, options: GatedDeltaOptions) {
    super();
    const { keyHeads, keyDim, valueHeads, valueDim, convSize, eps, projections } = options;
    this.#options = options;
    this.#layer = layer;
    const channels = 2 * keyHeads * keyDim + valueHeads * valueDim;
    this.#project = projections === "apart" ? apart(weights, width, channels, options) : fused(weights, width, options);
    this.A_log = weights.tensor("A_log", [valueHeads], zeros);
    this.dt_bias = weights.tensor("dt_bias", [valueHeads], ones);
    this.#conv = weights.module("conv1d", (at) => new DepthwiseConv(at, layer, channels, convSize, false));
    this.#norm = weights.module("norm", (at) => new Norm(at, valueDim, { kind: "rms", eps }));
    this.#out = weights.dense("out_proj", valueHeads * valueDim, width);
    this.keeps = { state: { ...DepthwiseConv.keeps(channels, convSize), delta: [valueHeads, keyDim, valueDim] } };
    this.usualTargets = [projections === "apart" ? "in_proj_qkv" : "in_proj_qkvz"];
  }

  /** [batch, seq, width] → the same shape. */
  forward(x: Tensor, pass: Pass): Tensor {
    return this.through(x, (input) => {
      const { keyHeads, keyDim, valueHeads, valueDim, activation } = this.#options;
      const { mixed, z, b, a } = this.#project(input);
      const convolved = activations[activation](this.#conv.forward(mixed, pass));
      const keys = keyHeads * keyDim;
      const heads = (from: number, size: number, count: number): Tensor => splitHeads(convolved.narrow(-1, from, size), count);
      const byHead = (t: Tensor): Tensor => t.permute([0, 2, 1]);
      const counting = countingTokens(pass);
      const only = (t: Tensor): Tensor => (counting ? t.mul(counting.unsqueeze(2)) : t);
      const recurred = this.#recur(
        {
          queries: this.#repeated(unit(heads(0, keys, keyHeads)).mul(1 / Math.sqrt(keyDim))),
          keys: this.#repeated(unit(heads(keys, keys, keyHeads))),
          values: heads(2 * keys, valueHeads * valueDim, valueHeads),
          // A token that does not count leaves the state as it is.
          decay: byHead(only(softplus(a.add(this.dt_bias)).mul(this.A_log.cast("f32").exp().neg()))),
          beta: byHead(only(b.sigmoid())),
        },
        pass,
      );
      const gate = splitHeads(z, valueHeads).silu();
      return this.#out.forward(joinHeads(this.#norm.forward(recurred).mul(gate)));
    });
  }

  #recur(inputs: DeltaInputs, { cache, packed, length }: Pass): Tensor {
    const before = cache?.state(this.#layer, "delta") ?? null;
    const isFew = before !== null && length <= fewTokens;
    const { output, state } = isFew ? recurrentGatedDelta(inputs, before) : chunkedGatedDelta(inputs, before, packed?.starts ?? null);
    cache?.keep(this.#layer, "delta", state);
    return output;
  }

  /** Each key head for the value heads that it serves, which lie side by side. */
  #repeated(x: Tensor): Tensor {
    const { keyHeads, valueHeads } = this.#options;
    const [batch = 0, , length = 0, dim = 0] = x.shape;
    const times = valueHeads / keyHeads;
    if (times === 1) return x;
    return x.unsqueeze(2).expand([batch, keyHeads, times, length, dim]).reshape([batch, valueHeads, length, dim]);
  }
}

/** x / √(Σ x² + 10⁻⁶) over the last axis. */
function unit(x: Tensor): Tensor {
  return x.mul(x.mul(x).sum(-1, { keepDims: true }).add(1e-6).rsqrt());
}

function apart(weights: Weights, width: number, channels: number, options: GatedDeltaOptions): (x: Tensor) => Projected {
  const { keyHeads, keyDim, valueHeads, valueDim } = options;
  const [keys, values] = [keyHeads * keyDim, valueHeads * valueDim];
  const parts = [
    { name: "q", start: 0, size: keys },
    { name: "k", start: keys, size: keys },
    { name: "v", start: 2 * keys, size: values },
  ];
  const mixed = weights.dense("in_proj_qkv", width, channels, { parts });
  const z = weights.dense("in_proj_z", width, values);
  const b = weights.dense("in_proj_b", width, valueHeads);
  const a = weights.dense("in_proj_a", width, valueHeads);
  return (x) => ({ mixed: mixed.forward(x), z: z.forward(x), b: b.forward(x), a: a.forward(x) });
}

function fused(weights: Weights, width: number, options: GatedDeltaOptions): (x: Tensor) => Projected {
  const { keyHeads, keyDim, valueHeads, valueDim } = options;
  const served = valueHeads / keyHeads;
  const [values, period] = [served * valueDim, 2 * keyDim + 2 * served * valueDim];
  const parts = [
    { name: "q", start: 0, size: keyDim, period },
    { name: "k", start: keyDim, size: keyDim, period },
    { name: "v", start: 2 * keyDim, size: values, period },
    { name: "z", start: 2 * keyDim + values, size: values, period },
  ];
  const all = weights.dense("in_proj_qkvz", width, keyHeads * period, { parts });
  const gates = weights.dense("in_proj_ba", width, 2 * valueHeads, {
    parts: ["b", "a"].map((name, i) => ({ name, start: i * served, size: served, period: 2 * served })),
  });
  return (x) => {
    const [batch = 0, length = 0] = x.shape;
    const grouped = all.forward(x).reshape([batch, length, keyHeads, period]);
    const [q, k, v, z] = parts.map(({ start, size }) => grouped.narrow(-1, start, size).reshape([batch, length, keyHeads * size])) as [
      Tensor,
      Tensor,
      Tensor,
      Tensor,
    ];
    const pairs = gates.forward(x).reshape([batch, length, keyHeads, 2 * served]);
    const [b, a] = [0, served].map((start) => pairs.narrow(-1, start, served).reshape([batch, length, valueHeads])) as [Tensor, Tensor];
    return { mixed: concat([q, k, v], -1), z, b, a };
  };
}

/** A gated delta net as the mixer of a layer. */
export function gatedDelta(options: GatedDeltaOptions): Part<Mixer> {
  return (weights, place) => new GatedDelta(weights, place, options);
}
