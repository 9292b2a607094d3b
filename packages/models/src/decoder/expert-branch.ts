import type { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import type { ActivationName } from "../activation.js";
import { ones, type Weights } from "../parameters.js";
import { Experts } from "./experts.js";
import { Norm, type NormOptions } from "./norm.js";
import { route } from "./routing.js";

/** Experts beside a layer's feed-forward, which read the layer's input themselves. */
export interface ExpertBranchOptions {
  readonly count: number;
  readonly choices: number;
  readonly inner: number;
  readonly activation: ActivationName;
  readonly eps: number;
}

/**
 * Gemma 4's mixture: norm₁(mlp(…)) + norm₂(experts(norm(x))), routed by softmax(W (x̂ · scale / √width)), the chosen made to sum to 1 and each
 * multiplied by its expert's own scale. Names are those of transformers, below the layer.
 */
export class ExpertBranch {
  readonly #options: ExpertBranchOptions;
  readonly #width: number;
  readonly #scale: Tensor;
  readonly #expertScale: Tensor;
  readonly #project: nn.Linear;
  readonly #routerNorm: Norm;
  readonly #experts: Experts;
  readonly #before: Norm;
  readonly #after: Norm;
  readonly #afterDense: Norm;

  constructor(weights: Weights, width: number, options: ExpertBranchOptions) {
    const { count, choices, inner, activation, eps } = options;
    this.#options = options;
    this.#width = width;
    const norm = (name: string, of: NormOptions = { kind: "rms", eps }): Norm => weights.module(name, (at) => new Norm(at, width, of));
    const router = weights.at("router");
    this.#routerNorm = norm("router.norm", { kind: "rms", eps, weight: "none" });
    this.#project = router.dense("proj", width, count);
    this.#scale = router.tensor("scale", [width], ones);
    this.#expertScale = router.tensor("per_expert_scale", [count], ones);
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
    const scaled = this.#routerNorm
      .forward(tokens)
      .mul(this.#scale)
      .mul(1 / Math.sqrt(this.#width));
    const { choices } = this.#options;
    const { experts, weights } = route(this.#project.forward(scaled), { kind: "softmax", choices, isNormalized: true });
    const given = this.#experts.forward(
      this.#before.forward(tokens),
      experts,
      weights.mul(this.#expertScale.cast("f32").gather(experts, 0)),
    );
    return this.#afterDense.forward(dense).add(this.#after.forward(given.reshape(x.shape)));
  }
}
