import { mul, type Shape, sub, type Tensor, tensor, untracked } from "@lowrank/tensor";
import {
  bytesOf,
  checkGradients,
  loadState,
  type Optimizer,
  type ParameterGroup,
  type Parameters,
  slotsOf,
  type UpdateOptions,
  zeroStates,
} from "./optimizer.js";
import { spread } from "./spread.js";

/** Settings of `adamw`, with torch's defaults. */
export interface AdamWOptions {
  /** η; 1e-3 when absent. */
  readonly learningRate?: number;
  /** β1, β2; 0.9 and 0.999 when absent. */
  readonly betas?: readonly [number, number];
  /** 1e-8 when absent. */
  readonly eps?: number;
  /** λ; 0.01 when absent. */
  readonly weightDecay?: number;
  /**
   * Where eps and the decay stand: "torch" as below, or "transformers" as in the AdamW that transformers had (and LoRA-FA has): eps is added
   * to √v before its bias is corrected, p −= η √c2 / c1 · m / (√v + eps), and the decay comes last, p −= η λ p.
   */
  readonly form?: "torch" | "transformers";
}

/** Scalars of all parameters that move at one rate. */
interface Rates {
  readonly rate: number | Tensor;
  readonly size: (shape: Shape) => Tensor;
}

/**
 * Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2), in torch.optim.AdamW's form:
 * p −= η λ p; m = β1 m + (1 − β1) g; v = β2 v + (1 − β2) g²; p −= η / c1 · m / (√v / √c2 + eps), with cᵢ = 1 − βᵢᵗ.
 * State: `exp_avg.<parameter>`, `exp_avg_sq.<parameter>` and the scalars `bias_correction1` and `bias_correction2`.
 */
export function adamw(parameters: Parameters | readonly ParameterGroup[], options: AdamWOptions = {}): Optimizer {
  const { learningRate = 1e-3, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, form = "torch" } = options;
  const [beta1, beta2] = betas;
  if (!(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1))
    throw new RangeError(`adamw: betas are ${beta1} and ${beta2}. Use numbers from 0 to below 1.`);
  const slots = slotsOf(parameters, weightDecay);
  const first = zeroStates(slots);
  const second = zeroStates(slots);
  const state = new Map<string, Tensor>();
  for (const [i, { name }] of slots.entries()) {
    state.set(`exp_avg.${name}`, first[i] as Tensor);
    state.set(`exp_avg_sq.${name}`, second[i] as Tensor);
  }
  // The corrections are state and follow c ← β c + (1 − β): exact to f32, which 1 − βᵗ from a step count is not while βᵗ is near 1.
  const device = slots[0]?.parameter.device;
  const corrections = device ? ([tensor(0, { device }), tensor(0, { device })] as const) : null;
  if (corrections) {
    state.set("bias_correction1", corrections[0]);
    state.set("bias_correction2", corrections[1]);
  }
  return {
    parameters: slots.map((slot) => slot.parameter),
    stateBytes: bytesOf(state),
    state: () => new Map(state),
    load: (saved) => loadState(state, saved),
    update: (gradients: readonly Tensor[], update: UpdateOptions = {}) =>
      untracked(() => {
        checkGradients("adamw", slots, gradients);
        if (!corrections) return;
        const given = update.learningRate ?? learningRate;
        const correction1 = corrections[0].mul(beta1).add(1 - beta1);
        const correction2 = corrections[1].mul(beta2).add(1 - beta2);
        corrections[0].assign(correction1);
        corrections[1].assign(correction2);
        const root2 = correction2.sqrt();
        const root = spread(root2);
        const rates = new Map<number, Rates>();
        const ratesOf = (factor: number): Rates => {
          const known = rates.get(factor);
          if (known) return known;
          const rate = typeof given === "number" ? given * factor : factor === 1 ? given : given.mul(factor);
          const made = { rate, size: spread(form === "torch" ? mul(correction1.reciprocal(), rate) : mul(root2.div(correction1), rate)) };
          rates.set(factor, made);
          return made;
        };
        for (const [i, { parameter, weightDecay: decay, learningRateFactor }] of slots.entries()) {
          // Counted by checkGradients and made above, one a slot.
          const [gradient, m, v] = [gradients[i] as Tensor, first[i] as Tensor, second[i] as Tensor];
          const { rate, size: sizeOf } = ratesOf(learningRateFactor);
          const size = sizeOf(parameter.shape);
          const nextM = m.mul(beta1).add(gradient.mul(1 - beta1));
          const nextV = v.mul(beta2).add(gradient.mul(gradient).mul(1 - beta2));
          m.assign(nextM);
          v.assign(nextV);
          const decayed = (value: Tensor): Tensor =>
            decay === 0 ? value : value.mul(typeof rate === "number" ? 1 - rate * decay : sub(1, rate.mul(decay)));
          if (form === "torch") {
            const denominator = nextV.sqrt().div(root(parameter.shape)).add(eps);
            parameter.assign(decayed(parameter).sub(nextM.div(denominator).mul(size)));
          } else {
            parameter.assign(decayed(parameter.sub(nextM.div(nextV.sqrt().add(eps)).mul(size))));
          }
        }
      }),
  };
}
