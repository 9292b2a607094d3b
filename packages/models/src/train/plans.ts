import { grad, optim } from "@lowrank/autograd";
import { compile, type Device, type Tensor, tensor } from "@lowrank/tensor";
import type { DeviceBatch } from "./device-batch.js";
import type { StepOptions } from "./step.js";

/** Scalars: the data's loss, and the gradients' global norm before clipping. */
export interface StepFigures {
  readonly loss: Tensor;
  readonly norm: Tensor;
}

/** What the device runs for a step: one plan, or with gradient accumulation one for all batches but the last, and one for that. */
export interface StepPlans {
  /** Loss, gradients, clipping and optimizer of a step's only batch. */
  single(batch: DeviceBatch, learningRate: Tensor): StepFigures;
  /** Adds a batch's gradients to the sums, weighted by its share of the loss tokens; answers its share of the loss. */
  accumulate(batch: DeviceBatch, share: Tensor): Tensor;
  /** Likewise with the last batch, and updates the parameters. */
  finish(batch: DeviceBatch, share: Tensor, learningRate: Tensor): StepFigures;
  dispose(): void;
}

/** Sums over a step's batches, between its plans. */
interface Sums {
  /** One a parameter, of its shape. */
  readonly gradients: readonly Tensor[];
  readonly loss: Tensor;
}

function zeroSums(parameters: readonly Tensor[], device: Device): Sums {
  const gradients = parameters.map((p) => tensor(new Float32Array(p.size), { device, shape: p.shape }));
  return { gradients, loss: tensor(0, { device }) };
}

export function stepPlans(options: StepOptions): StepPlans {
  const { model, rules } = options;
  const parameters = [...options.parameters.values()];
  const update = updater(options);
  const lossOf = ({ ids, labels, packed }: DeviceBatch): Tensor => model.loss(ids, labels, { packed });
  const regularized = (loss: Tensor): Tensor => (rules?.regularization ? loss.add(rules.regularization()) : loss);

  // Made before the first plan of several batches is recorded, which captures them.
  let made: Sums | null = null;
  const sums = (): Sums => {
    made ??= zeroSums(parameters, model.device);
    return made;
  };

  const single = compile((batch: DeviceBatch, learningRate: Tensor) => {
    const loss = lossOf(batch);
    return { loss, norm: update(grad(regularized(loss), parameters), learningRate) };
  });
  const accumulate = compile((batch: DeviceBatch, share: Tensor) => {
    const { gradients, loss: lossSoFar } = sums();
    const loss = lossOf(batch).mul(share);
    const grads = grad(loss, parameters);
    for (const [i, sum] of gradients.entries()) sum.assign(sum.add(grads[i] as Tensor)); // one gradient a parameter
    lossSoFar.assign(lossSoFar.add(loss));
    return loss;
  });
  const finish = compile((batch: DeviceBatch, share: Tensor, learningRate: Tensor) => {
    const { gradients, loss: lossSoFar } = sums();
    const last = lossOf(batch).mul(share);
    const grads = grad(regularized(last), parameters).map((g, i) => g.add(gradients[i] as Tensor)); // one sum a parameter
    const loss = last.add(lossSoFar);
    for (const sum of gradients) sum.assign(sum.mul(0));
    lossSoFar.assign(lossSoFar.mul(0));
    return { loss, norm: update(grads, learningRate) };
  });

  return {
    single,
    accumulate(batch, share) {
      sums();
      return accumulate(batch, share);
    },
    finish(batch, share, learningRate) {
      sums();
      return finish(batch, share, learningRate);
    },
    dispose() {
      for (const plan of [single, accumulate, finish]) plan.dispose();
      for (const t of made ? [...made.gradients, made.loss] : []) t.dispose();
    },
  };
}

/** Moves the parameters along gradients, one a parameter, and answers the gradients' global norm. */
function updater({ parameters, rules, optimizer, maxGradNorm }: StepOptions): (grads: readonly Tensor[], learningRate: Tensor) => Tensor {
  const names = [...parameters.keys()];
  return (grads, learningRate) => {
    const norm = optim.globalNorm(grads);
    const clipped = maxGradNorm > 0 ? optim.clipByGlobalNorm(grads, maxGradNorm, norm) : grads;
    const named = new Map(names.map((name, i) => [name, clipped[i] as Tensor])); // one gradient a parameter
    // What a method makes of gradients is a matter of the optimizer's, whose sizes say nothing about the loss.
    const changed = rules?.changeGradients?.(named) ?? named;
    rules?.beforeUpdate?.();
    optimizer.update([...changed.values()], { learningRate });
    rules?.afterUpdate?.(changed);
    return norm;
  };
}
