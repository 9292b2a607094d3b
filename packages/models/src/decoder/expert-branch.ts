import { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import type { ActivationName } from "../activation.js";
import { ones, type Weights } from "../parameters.js";
import { Experts } from "./experts.js";
import { Norm } from "./norm.js";
import { type Routed, route } from "./routing.js";

/** Experts beside a layer's feed-forward, which read the layer's input themselves. */
export interface ExpertBranchOptions {
  readonly count: number;
  readonly choices: number;
  readonly inner: number;
  readonly activation: ActivationName;
  readonly eps: number;
}

/** Which experts a token goes through: by softmax(W (x̂ · scale / √width)), the chosen made to sum to 1 and each multiplied by its expert's own scale. */
class ScaledRouter extends nn.Module {
  /** [width]. */
  scale: Tensor;
  /** [experts]. */
  per_expert_scale: Tensor;
  readonly #width: number;
  readonly #choices: number;
  readonly #norm: Norm;
  readonly #project: nn.Linear;

  constructor(weights: Weights, width: number, { count, choices, eps }: ExpertBranchOptions) {
    super();
    this.#width = width;
    this.#choices = choices;
    this.#norm = weights.module("norm", (at) => new Norm(at, width, { kind: "rms", eps, weight: "none" }));
    this.#project = weights.dense("proj", width, count);
    this.scale = weights.tensor("scale", [width], ones);
    this.per_expert_scale = weights.tensor("per_expert_scale", [count], ones);
  }

  /** x [tokens, width]. */
  routed(x: Tensor): Routed {
    const scaled = this.#norm
      .forward(x)
      .mul(this.scale)
      .mul(1 / Math.sqrt(this.#width));
    const { experts, weights } = route(this.#project.forward(scaled), { kind: "softmax", choices: this.#choices, isNormalized: true });
    return { experts, weights: weights.mul(this.per_expert_scale.cast("f32").gather(experts, 0)) };
  }
}

/**
 * Gemma 4's mixture: norm₁(mlp(…)) + norm₂(experts(norm(x))). Names are those of transformers, below the layer.
 */
export class ExpertBranch {
  readonly #width: number;
  readonly #router: ScaledRouter;
  readonly #experts: Experts;
  readonly #before: Norm;
  readonly #after: Norm;
  readonly #afterDense: Norm;

  constructor(weights: Weights, width: number, options: ExpertBranchOptions) {
    const { count, choices, inner, activation, eps } = options;
    this.#width = width;
    const norm = (name: string): Norm => weights.module(name, (at) => new Norm(at, width, { kind: "rms", eps }));
    this.#router = weights.module("router", (at) => new ScaledRouter(at, width, options));
    this.#experts = weights.module(
      "experts",
      (at) =>
        new Experts(at, width, {
          count,
          inner,
          activation: { kind: "gated", activation },
          stored: { kind: "stacked", isTransposed: false, bias: false },
          router: { name: "router" },
          routing: { kind: "softmax", choices, isNormalized: true },
        }),
    );
    this.#afterDense = norm("post_feedforward_layernorm_1");
    this.#after = norm("post_feedforward_layernorm_2");
    this.#before = norm("pre_feedforward_layernorm_2");
  }

  /** What the feed-forward gave of x, and x itself, [batch, seq, width] each → the sum of both branches. */
  forward(dense: Tensor, x: Tensor): Tensor {
    const tokens = x.reshape([x.size / this.#width, this.#width]);
    const { experts, weights } = this.#router.routed(tokens);
    const given = this.#experts.forward(this.#before.forward(tokens), experts, weights);
    return this.#afterDense.forward(dense).add(this.#after.forward(given.reshape(x.shape)));
  }
}
