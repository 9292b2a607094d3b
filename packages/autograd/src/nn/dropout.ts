import type { Generator, Tensor } from "@lowrank/tensor";
import { Module } from "./module.js";

/**
 * Each element 0 with probability p, the others divided by 1 − p (Srivastava et al. 2014). Within `compile` every run draws anew.
 * torch.nn.functional.dropout. Throws RangeError unless 0 ≤ p ≤ 1.
 */
export function dropout(x: Tensor, p: number, generator: Generator): Tensor {
  checkProbability(p);
  if (p === 0) return x;
  if (p === 1) return x.mul(0);
  return generator
    .uniform(x.shape)
    .greaterEqual(p)
    .where(x.mul(1 / (1 - p)), 0);
}

/** Dropout while `isTraining`, else the identity. torch.nn.Dropout. */
export class Dropout extends Module {
  /** Throws RangeError unless 0 ≤ p ≤ 1. Training with p > 0 needs a generator, given here or set later. */
  constructor(
    readonly p: number,
    public generator: Generator | null = null,
  ) {
    super();
    checkProbability(p);
  }

  /** x of any shape → the same shape. */
  forward(x: Tensor): Tensor {
    return this.through(x, (input) => {
      if (!this.isTraining || this.p === 0) return input;
      if (!this.generator)
        throw new Error(`Dropout: p is ${this.p} but there is no generator. Give one: new Dropout(p, new Generator(device, seed)).`);
      return dropout(input, this.p, this.generator);
    });
  }
}

function checkProbability(p: number): void {
  if (!(p >= 0 && p <= 1)) throw new RangeError(`dropout: the probability is ${p}. Use a number from 0 to 1.`);
}
