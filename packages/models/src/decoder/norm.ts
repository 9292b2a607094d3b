import { nn } from "@lowrank/autograd";
import { concat, type Tensor } from "@lowrank/tensor";
import { ones, type Weights, zeros } from "../parameters.js";

/** How numbers along the last axis are brought to one scale. */
export interface NormOptions {
  /** Root mean square (Zhang & Sennrich 2019), or layer: mean 0 and variance 1 (Ba et al. 2016). */
  readonly kind: "rms" | "layer";
  readonly eps: number;
  /** What each is multiplied by then: w, 1 + w (Gemma), or nothing. "w" when absent. */
  readonly weight?: "w" | "1 + w" | "none";
  readonly bias?: boolean;
}

/** x / √(mean(x²) + eps) · w, or (x − mean) / √(variance + eps) · w + b, over the last axis. */
export class Norm extends nn.Module {
  /** [width], or [heads, width]. */
  weight: Tensor | null;
  /** [width]. */
  bias: Tensor | null;
  readonly #options: NormOptions;

  /** With `heads`, what is normed is [batch, heads, seq, width], and each head has weights of its own. */
  constructor(weights: Weights, width: number, options: NormOptions, heads: number | null = null) {
    super();
    this.#options = options;
    const { weight = "w", bias = false } = options;
    const shape = heads === null ? [width] : [heads, width];
    this.weight = weight === "none" ? null : weights.tensor("weight", shape, weight === "w" ? ones : zeros);
    this.bias = bias ? weights.tensor("bias", [width], zeros) : null;
  }

  /** x [..., width] → the same shape, f32. */
  forward(x: Tensor): Tensor {
    return this.through(x, (input) => {
      const { kind, eps, weight } = this.#options;
      const centred = kind === "layer" ? input.sub(input.mean(-1, { keepDims: true })) : input;
      const scaled = centred.mul(centred.mul(centred).mean(-1, { keepDims: true }).add(eps).rsqrt());
      const factor = this.weight && weight === "1 + w" ? this.weight.cast("f32").add(1) : this.weight;
      const spread = factor?.rank === 2 ? factor.unsqueeze(1) : factor;
      const weighted = spread ? scaled.mul(spread) : scaled;
      return this.bias ? weighted.add(this.bias) : weighted;
    });
  }
}

/** A norm for each head, in modules of their own. */
export class HeadNorms extends nn.Module {
  readonly #norms: readonly Norm[];

  constructor(weights: Weights, heads: number, width: number, options: NormOptions) {
    super();
    this.#norms = Array.from({ length: heads }, (_, head) => weights.module(`norms.${head}`, (at) => new Norm(at, width, options)));
  }

  /** x [batch, heads, seq, width] → the same shape, f32. */
  forward(x: Tensor): Tensor {
    return this.through(x, (input) =>
      concat(
        this.#norms.map((norm, head) => norm.forward(input.narrow(1, head, 1))),
        1,
      ),
    );
  }
}
