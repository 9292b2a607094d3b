import { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import type { BlockNames } from "../causal-lm.js";
import type { Weights } from "../parameters.js";
import type { FeedForward } from "./feed-forward.js";
import type { Mixer, Part, Place } from "./mixer.js";
import { Norm, type NormOptions } from "./norm.js";
import type { Pass } from "./pass.js";

/** A part and what it is called below its layer. */
export interface NamedPart<M> {
  readonly name: string;
  readonly part: Part<M>;
}

/** A layer: what it is made of, and where its norms stand. */
export interface LayerOptions {
  readonly mixer: NamedPart<Mixer>;
  /** Null for a layer that only mixes. */
  readonly feedForward: NamedPart<FeedForward> | null;
  readonly norm: NormOptions;
  /** The names of the norms that there are. */
  readonly norms: {
    readonly beforeMixer?: string;
    readonly afterMixer?: string;
    readonly beforeFeedForward?: string;
    readonly afterFeedForward?: string;
  };
  /** Both read the layer's input: x + mixer(norm(x)) + feedForward(norm(x)), with the mixer's norm where the feed-forward has none. */
  readonly isParallel?: boolean;
  /** What is added to the residual stream is multiplied by this; 1 when absent. */
  readonly residualScale?: number;
}

/** One after the other: h = x + s · after(mixer(before(x))), then h + s · after(feedForward(before(h))); or beside each other. */
export class Layer extends nn.Module {
  readonly names: BlockNames;
  readonly #mixer: Mixer;
  readonly #feedForward: FeedForward | null;
  readonly #options: LayerOptions;
  readonly #norms: { readonly [at in keyof LayerOptions["norms"]]: Norm } = {};

  constructor(weights: Weights, name: string, place: Place, options: LayerOptions) {
    super();
    this.#options = options;
    const { mixer, feedForward, norms, isParallel = false } = options;
    const made: Partial<Record<keyof LayerOptions["norms"], Norm>> = this.#norms;
    const norm = (at: keyof LayerOptions["norms"]): void => {
      const own = norms[at];
      if (own !== undefined) made[at] = weights.module(own, (below) => new Norm(below, place.width, options.norm));
    };
    norm("beforeMixer");
    this.#mixer = weights.module(mixer.name, (below) => mixer.part(below, place));
    norm("afterMixer");
    norm("beforeFeedForward");
    this.#feedForward = feedForward && weights.module(feedForward.name, (below) => feedForward.part(below, place));
    norm("afterFeedForward");
    const full = (below: string | undefined): string | null => (below === undefined ? null : `${name}.${below}`);
    const { beforeMixer, beforeFeedForward = isParallel ? beforeMixer : undefined } = norms;
    this.names = {
      name,
      attentionNorm: full(beforeMixer),
      attention: `${name}.${mixer.name}`,
      mlpNorm: full(beforeFeedForward),
      mlp: full(feedForward?.name),
    };
  }

  get mixer(): Mixer {
    return this.#mixer;
  }

  /** [batch, seq, width] → the same shape. */
  forward(x: Tensor, pass: Pass): Tensor {
    return this.through(x, (input) => {
      const { beforeMixer, afterMixer, beforeFeedForward, afterFeedForward } = this.#norms;
      const { isParallel = false, residualScale = 1 } = this.#options;
      const scaled = (t: Tensor): Tensor => (residualScale === 1 ? t : t.mul(residualScale));
      const normed = beforeMixer?.forward(input) ?? input;
      const result = this.#mixer.forward(normed, pass);
      const mixed = input.add(scaled(afterMixer?.forward(result) ?? result));
      if (!this.#feedForward) return mixed;
      const read = isParallel ? input : mixed;
      const inner = this.#feedForward.forward(beforeFeedForward?.forward(read) ?? (isParallel ? normed : read));
      return mixed.add(scaled(afterFeedForward?.forward(inner) ?? inner));
    });
  }
}
