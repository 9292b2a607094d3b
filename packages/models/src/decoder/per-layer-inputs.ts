import type { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import { type ActivationName, activations } from "../activation.js";
import type { Weights } from "../parameters.js";
import { Norm, type NormOptions } from "./norm.js";

/** What each layer is told of each token beside the hidden state: a vector a token and layer, of its own table and of its embedding. */
export interface PerLayerOptions {
  /** Numbers per layer. */
  readonly size: number;
  readonly vocabSize: number;
  readonly names: { readonly embedding: string; readonly projection: string; readonly norm: string };
  readonly norm: NormOptions;
}

/** Per-layer embeddings (Gemma 3n): (norm(W e / √width) + √size · table[token]) / √2, for all layers at once. */
export class PerLayerInputs {
  readonly #options: PerLayerOptions;
  readonly #layers: number;
  readonly #width: number;
  readonly #embedding: nn.Embedding;
  readonly #projection: nn.Linear;
  readonly #norm: Norm;

  constructor(weights: Weights, width: number, layers: number, options: PerLayerOptions) {
    const { size, vocabSize, names, norm } = options;
    this.#options = options;
    this.#layers = layers;
    this.#width = width;
    this.#embedding = weights.embedding(names.embedding, vocabSize, layers * size);
    this.#projection = weights.dense(names.projection, width, layers * size);
    this.#norm = weights.module(names.norm, (at) => new Norm(at, size, norm));
  }

  /** ids i32 [batch, seq] and their embeddings [batch, seq, width] → [batch, seq, layers, size]. */
  forward(ids: Tensor, embedded: Tensor): Tensor {
    const [batch = 0, length = 0] = ids.shape;
    const shape = [batch, length, this.#layers, this.#options.size];
    const own = this.#embedding.forward(ids).reshape(shape).mul(Math.sqrt(this.#options.size));
    const projected = this.#projection.forward(embedded).mul(1 / Math.sqrt(this.#width));
    return this.#norm.forward(projected.reshape(shape)).add(own).mul(Math.SQRT1_2);
  }
}

/** How a layer takes in what it is told, and what its parts are called. */
export interface PerLayerBranchOptions {
  readonly size: number;
  readonly activation: ActivationName;
  readonly names: { readonly gate: string; readonly projection: string; readonly norm: string };
  readonly norm: NormOptions;
}

/** norm(W_projection (act(W_gate x) · what the layer is told)). */
export class PerLayerBranch {
  readonly #layer: number;
  readonly #activation: (x: Tensor) => Tensor;
  readonly #gate: nn.Linear;
  readonly #projection: nn.Linear;
  readonly #norm: Norm;

  constructor(weights: Weights, layer: number, width: number, { size, activation, names, norm }: PerLayerBranchOptions) {
    this.#layer = layer;
    this.#activation = activations[activation];
    this.#gate = weights.dense(names.gate, width, size);
    this.#projection = weights.dense(names.projection, size, width);
    this.#norm = weights.module(names.norm, (at) => new Norm(at, width, norm));
  }

  /** x [batch, seq, width] and what all layers are told, [batch, seq, layers, size] → [batch, seq, width]. */
  forward(x: Tensor, told: Tensor | null): Tensor {
    if (!told) throw new Error("PerLayerBranch: the model has no per-layer inputs.");
    const own = told.narrow(2, this.#layer, 1).squeeze(2);
    return this.#norm.forward(this.#projection.forward(this.#activation(this.#gate.forward(x)).mul(own)));
  }
}
