import type { optim } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";

/** What a way of training asks beyond moving parameters along the loss's gradients. Adapter methods of @lowrank/lora bring their own. */
export interface TrainingRules {
  /** What the learning rate is multiplied by, for parameters that differ, by name. */
  readonly learningRateFactors?: ReadonlyMap<string, number>;
  /** Weight decay of parameters that differ, by name. */
  readonly weightDecays?: ReadonlyMap<string, number>;
  /** AdamW's settings where they differ from torch's. */
  readonly adamw?: Pick<optim.AdamWOptions, "eps" | "form">;
  /** A scalar that is added to the loss. */
  readonly regularization?: () => Tensor;
  /** Other gradients for the optimizer in place of the loss's, which are clipped by then; by parameter name, in the same order. */
  readonly changeGradients?: (gradients: ReadonlyMap<string, Tensor>) => ReadonlyMap<string, Tensor>;
  /** Part of the compiled step, before the optimizer reads the parameters. */
  readonly beforeUpdate?: () => void;
  /** Part of the compiled step, after the optimizer has assigned the parameters' new values. */
  readonly afterUpdate?: (gradients: ReadonlyMap<string, Tensor>) => void;
  /** Between two steps; `step` counts from 1. */
  readonly afterStep?: (step: number) => Promise<void>;
  /** State beside the optimizer's, by name, for checkpoints. */
  readonly state?: () => ReadonlyMap<string, Tensor>;
  /** After a checkpoint has been read into `state`. */
  readonly restored?: () => Promise<void>;
}
