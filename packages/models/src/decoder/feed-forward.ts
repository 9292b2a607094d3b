import { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import { type ActivationName, activations } from "../activation.js";
import { normal, type ParameterInit, type Weights } from "../parameters.js";
import type { Part, Place } from "./mixer.js";
import { normalQuantile } from "./normal.js";

/** What a token goes through by itself: [..., width] → the same shape. */
export interface FeedForward extends nn.Module {
  forward(x: Tensor): Tensor;
}

/** What the projections are called below the layer's own name; without a gate, with one, or with both in one layer, the gate first. */
export type FeedForwardNames =
  | { readonly up: string; readonly down: string }
  | { readonly gate: string; readonly up: string; readonly down: string }
  | { readonly gateUp: string; readonly down: string };

export interface FeedForwardOptions {
  /** Width between the projections. */
  readonly inner: number;
  readonly activation: ActivationName;
  readonly names: FeedForwardNames;
  readonly bias?: { readonly up?: boolean; readonly down?: boolean };
  /** Weights are [in, out]. */
  readonly isTransposed?: boolean;
  readonly downInit?: ParameterInit;
  /** The share of the gate's numbers that are cut off in front of the activation, those below the mean plus so many deviations; 0 when absent (Gemma 3n). */
  readonly sparsity?: number;
  /** What the gate is multiplied by in front of the activation, and the result (Falcon-H1). */
  readonly multipliers?: { readonly gate: number; readonly down: number } | null;
}

/** down(act(up(x))), or gated (Shazeer 2020): down(act(gate(x)) · up(x)). */
export class DenseFeedForward extends nn.Module implements FeedForward {
  readonly #widened: (x: Tensor) => Tensor;
  readonly #down: nn.Linear;
  readonly #factor: number | undefined;

  constructor(weights: Weights, { width }: Place, options: FeedForwardOptions) {
    super();
    const { inner, names, bias = {}, isTransposed = false, downInit = normal, multipliers = null, sparsity = 0 } = options;
    const activation = activations[options.activation];
    const wide = (name: string, size: number, parts?: readonly nn.FusedPart[]): nn.Linear =>
      weights.dense(name, width, size, { bias: bias.up ?? false, isTransposed, ...(parts && { parts }) });
    if ("gateUp" in names) {
      const both = wide(names.gateUp, 2 * inner, [
        { name: "gate", start: 0, size: inner },
        { name: "up", start: inner, size: inner },
      ]);
      this.#widened = (x) => {
        const result = both.forward(x);
        return activation(result.narrow(-1, 0, inner)).mul(result.narrow(-1, inner, inner));
      };
    } else {
      const cut = sparsity > 0 ? normalQuantile(sparsity) : null;
      const gate = "gate" in names ? wide(names.gate, inner) : null;
      const up = wide(names.up, inner);
      this.#widened = (x) =>
        gate ? activation(cutBelow(times(gate.forward(x), multipliers?.gate), cut)).mul(up.forward(x)) : activation(up.forward(x));
    }
    this.#factor = multipliers?.down;
    this.#down = weights.dense(names.down, inner, width, { bias: bias.down ?? false, isTransposed, init: downInit });
  }

  forward(x: Tensor): Tensor {
    return this.through(x, (input) => times(this.#down.forward(this.#widened(input)), this.#factor));
  }
}

/** max(x − (mean + deviations · standard deviation), 0) over the last axis: of normal numbers, the largest share that is beyond. */
function cutBelow(x: Tensor, deviations: number | null): Tensor {
  if (deviations === null) return x;
  const mean = x.mean(-1, { keepDims: true });
  const deviation = x.variance(-1, { keepDims: true }).sqrt();
  return x.sub(mean.add(deviation.mul(deviations))).relu();
}

function times(x: Tensor, factor = 1): Tensor {
  return factor === 1 ? x : x.mul(factor);
}

/** A plain or gated feed-forward layer. */
export function feedForward(options: FeedForwardOptions): Part<FeedForward> {
  return (weights, place) => new DenseFeedForward(weights, place, options);
}
