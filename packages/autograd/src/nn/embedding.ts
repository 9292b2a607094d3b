import { realizeNow, ShapeError, showShape, type Tensor } from "@lowrank/tensor";
import { normal } from "./init.js";
import { initDevice, type LayerInit } from "./linear.js";
import { Module, parameter } from "./module.js";

/** Rows of a table by number: ids i32 [...] → f32 [..., width]. torch.nn.Embedding. */
export class Embedding extends Module {
  /** [count, width]. */
  weight: Tensor;

  /** Throws ShapeError when the weight is not a matrix. */
  constructor(weight: Tensor) {
    super();
    if (weight.rank !== 2) throw new ShapeError(`Embedding: weight ${showShape(weight.shape)} is not [count, width].`, [weight.shape]);
    this.weight = parameter(weight);
  }

  /** A table of its own, normal with deviation 1 as torch.nn.Embedding starts (or the one given). */
  static init(count: number, width: number, options: LayerInit & { readonly deviation?: number }): Embedding {
    initDevice("Embedding.init", options);
    const weight = normal([count, width], { generator: options.generator, deviation: options.deviation ?? 1 });
    realizeNow([weight]);
    return new Embedding(weight);
  }

  /** Ids [...] → [..., width], f32. Wrappers see the ids. */
  forward(ids: Tensor): Tensor {
    return this.through(ids, (input) => this.weight.gather(input, 0).cast("f32"));
  }
}
