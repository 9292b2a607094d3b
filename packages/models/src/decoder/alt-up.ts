import { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import { type Weights, zeros } from "../parameters.js";
import { Norm, type NormOptions } from "./norm.js";

/** Several streams of hidden states, of which each layer computes with one (Baykal et al. 2023, "Alternating Updates"). */
export interface AltUpOptions {
  /** Streams. */
  readonly count: number;
  /** The one that layers compute with. */
  readonly active: number;
  /** What the layer is told is gated by the corrected stream times a learned scale. */
  readonly isScaled: boolean;
  /** Names of the matrices that make the streams of the embeddings, and that bring them back, before `.0`, `.1`, … */
  readonly names: { readonly in: string; readonly out: string };
  readonly norm: NormOptions;
}

/** What predicts and corrects the streams around a layer, under transformers' names. */
export class AltUp extends nn.Module {
  /** [width]. */
  correct_output_scale: Tensor;
  readonly #options: AltUpOptions;
  readonly #width: number;
  readonly #correction: nn.Linear;
  readonly #prediction: nn.Linear;
  readonly #router: nn.Linear;
  readonly #norm: Norm;

  constructor(weights: Weights, width: number, options: AltUpOptions) {
    super();
    const { count, norm } = options;
    this.#options = options;
    this.#width = width;
    this.correct_output_scale = weights.tensor("correct_output_scale", [width], zeros);
    this.#correction = weights.dense("correction_coefs", count, count);
    this.#prediction = weights.dense("prediction_coefs", count, count * count);
    this.#router = weights.dense("modality_router", width, count);
    this.#norm = weights.module("router_norm", (at) => new Norm(at, width, norm));
  }

  /** Each stream plus a mixture of all, weighted by the active one: streams [batch, seq, width] each. */
  predicted(streams: readonly Tensor[]): readonly Tensor[] {
    const { count, active } = this.#options;
    const weights = this.#prediction.forward(this.#routed(streams[active] as Tensor));
    return streams.map((stream, to) =>
      streams.reduce((sum, from, index) => sum.add(from.mul(weights.narrow(-1, to * count + index, 1))), stream),
    );
  }

  /** Each predicted stream moved by its share of what the layer changed. */
  corrected(predicted: readonly Tensor[], activated: Tensor): readonly Tensor[] {
    const change = activated.sub(predicted[this.#options.active] as Tensor);
    const weights = this.#correction.forward(this.#routed(activated)).add(1);
    return predicted.map((stream, index) => stream.add(change.mul(weights.narrow(-1, index, 1))));
  }

  /** What a layer's per-layer input is gated by. */
  gate(corrected: readonly Tensor[]): Tensor {
    const own = corrected[this.#options.active] as Tensor;
    return this.#options.isScaled ? own.mul(this.correct_output_scale) : own;
  }

  #routed(x: Tensor): Tensor {
    return this.#router.forward(this.#norm.forward(x).mul(1 / this.#width)).tanh();
  }
}

/** A low-rank layer beside attention (LAuReL; Menghani et al. 2024): x + norm(W_right W_left x). */
export class Laurel extends nn.Module {
  readonly #left: nn.Linear;
  readonly #right: nn.Linear;
  readonly #norm: Norm;

  constructor(weights: Weights, width: number, rank: number, norm: NormOptions) {
    super();
    this.#left = weights.dense("linear_left", width, rank);
    this.#right = weights.dense("linear_right", rank, width);
    this.#norm = weights.module("post_laurel_norm", (at) => new Norm(at, width, norm));
  }

  /** [batch, seq, width] → the same shape. */
  forward(x: Tensor): Tensor {
    return this.through(x, (input) => input.add(this.#norm.forward(this.#right.forward(this.#left.forward(input)))));
  }
}

/** The streams in front of the first layer and behind the last. */
export class Streams {
  readonly #in: readonly nn.Linear[];
  readonly #out: readonly nn.Linear[];

  constructor(weights: Weights, width: number, { count, names }: AltUpOptions) {
    const matrices = (name: string): readonly nn.Linear[] =>
      Array.from({ length: count - 1 }, (_, i) => weights.dense(`${name}.${i}`, width, width));
    this.#in = matrices(names.in);
    this.#out = matrices(names.out);
  }

  /** Embeddings [batch, seq, width], and a matrix of them for each further stream, brought to their size. */
  from(x: Tensor): readonly Tensor[] {
    return [x, ...this.#in.map((matrix) => sized(matrix.forward(x), x))];
  }

  /** The mean of the first stream and of a matrix of each other, brought to its size. */
  mean(streams: readonly Tensor[]): Tensor {
    const [first, ...others] = streams as readonly [Tensor, ...Tensor[]];
    const back = others.map((stream, i) => sized((this.#out[i] as nn.Linear).forward(stream), first));
    return back.reduce((sum, stream) => sum.add(stream), first).mul(1 / streams.length);
  }
}

/** x with each vector as long as the other's. */
function sized(x: Tensor, other: Tensor): Tensor {
  const square = (t: Tensor): Tensor => t.square().mean(-1, { keepDims: true });
  return x.mul(square(other).sqrt()).mul(square(x).maximum(1e-5).rsqrt());
}
