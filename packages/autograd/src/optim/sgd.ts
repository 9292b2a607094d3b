import { type Tensor, untracked } from "@lowrank/tensor";
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

/** Settings of `sgd`, with torch's defaults. */
export interface SgdOptions {
  /** 1e-3 when absent. */
  readonly learningRate?: number;
  /** μ; 0 when absent. */
  readonly momentum?: number;
  readonly nesterov?: boolean;
  /** L2 penalty added to the gradient; 0 when absent. */
  readonly weightDecay?: number;
}

/**
 * Stochastic gradient descent with momentum (Sutskever et al. 2013): g += λ p; b = μ b + g; p −= η b, or η (g + μ b) with Nesterov.
 * State: `momentum_buffer.<parameter>` where μ ≠ 0. torch.optim.SGD (dampening 0).
 */
export function sgd(parameters: Parameters | readonly ParameterGroup[], options: SgdOptions = {}): Optimizer {
  const { momentum = 0, nesterov = false, weightDecay = 0, learningRate = 1e-3 } = options;
  if (nesterov && momentum <= 0) throw new RangeError("sgd: nesterov needs a momentum above 0. Set momentum, for instance 0.9.");
  const slots = slotsOf(parameters, weightDecay);
  const buffers: readonly Tensor[] = momentum === 0 ? [] : zeroStates(slots);
  const state = new Map<string, Tensor>();
  for (const [i, { name }] of slots.entries()) {
    const buffer = buffers[i];
    if (buffer) state.set(`momentum_buffer.${name}`, buffer);
  }
  return {
    parameters: slots.map((slot) => slot.parameter),
    stateBytes: bytesOf(state),
    state: () => new Map(state),
    load: (saved) => loadState(state, saved),
    update: (gradients: readonly Tensor[], update: UpdateOptions = {}) =>
      untracked(() => {
        checkGradients("sgd", slots, gradients);
        const rate = update.learningRate ?? learningRate;
        for (const [i, { parameter, weightDecay: decay, learningRateFactor }] of slots.entries()) {
          const gradient = gradients[i] as Tensor; // checkGradients counted them
          const own = decay === 0 ? gradient : gradient.add(parameter.mul(decay));
          const buffer = buffers[i];
          let step = own;
          if (buffer) {
            const moving = buffer.mul(momentum).add(own);
            buffer.assign(moving);
            step = nesterov ? own.add(moving.mul(momentum)) : moving;
          }
          const scaled = learningRateFactor === 1 ? step.mul(rate) : step.mul(rate).mul(learningRateFactor);
          parameter.assign(parameter.sub(scaled));
        }
      }),
  };
}
