import { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import type { BlockNames } from "../causal-lm.js";
import { ones, type Weights } from "../parameters.js";
import { AltUp, type AltUpOptions, Laurel } from "./alt-up.js";
import { ExpertBranch, type ExpertBranchOptions } from "./expert-branch.js";
import type { FeedForward } from "./feed-forward.js";
import type { Mixer, Part, Place } from "./mixer.js";
import { Norm, type NormOptions } from "./norm.js";
import type { Pass } from "./pass.js";
import { PerLayerBranch, type PerLayerBranchOptions } from "./per-layer-inputs.js";

/** A part and what it is called below its layer. What is made of several such parts has no name of its own, but one that adapters go on. */
export interface NamedPart<M> {
  readonly name: string;
  readonly part: Part<M>;
  readonly isSeveral?: boolean;
}

/** Makes a part of a layer. */
export function made<M extends nn.Module>({ name, part, isSeveral = false }: NamedPart<M>, weights: Weights, place: Place): M {
  return isSeveral ? part(weights, place) : weights.module(name, (below) => part(below, place));
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
  /** Experts beside the feed-forward (Gemma 4). */
  readonly experts?: ExpertBranchOptions;
  /** Streams of hidden states around the layer, and the rank of what is beside its attention (Gemma 3n). */
  readonly altUp?: AltUpOptions & { readonly laurelRank: number };
  /** What the layer is told of each token is added at its end (Gemma 3n). */
  readonly perLayer?: PerLayerBranchOptions;
  /** The name of a number, [1], that the layer's result is multiplied by. */
  readonly scalar?: string;
  /** What is added to the residual stream is multiplied by this; 1 when absent. */
  readonly residualScale?: number;
}

/** One after the other: h = x + s · after(mixer(before(x))), then h + s · after(feedForward(before(h))); or beside each other. */
export class Layer extends nn.Module {
  readonly names: BlockNames;
  readonly #mixer: Mixer;
  readonly #feedForward: FeedForward | null;
  readonly #experts: ExpertBranch | null;
  readonly #perLayer: PerLayerBranch | null;
  readonly #altUp: AltUp | null;
  readonly #laurel: Laurel | null;
  readonly #options: LayerOptions;
  readonly #norms: { readonly [at in keyof LayerOptions["norms"]]: Norm } = {};

  constructor(weights: Weights, name: string, place: Place, options: LayerOptions) {
    super();
    this.#options = options;
    const { mixer, feedForward, norms, isParallel = false } = options;
    const own: Partial<Record<keyof LayerOptions["norms"], Norm>> = this.#norms;
    const norm = (at: keyof LayerOptions["norms"]): void => {
      const called = norms[at];
      if (called !== undefined) own[at] = weights.module(called, (below) => new Norm(below, place.width, options.norm));
    };
    norm("beforeMixer");
    this.#mixer = made(mixer, weights, place);
    norm("afterMixer");
    norm("beforeFeedForward");
    this.#feedForward = feedForward && made(feedForward, weights, place);
    norm("afterFeedForward");
    const { experts, perLayer, scalar, altUp } = options;
    this.#altUp = altUp ? weights.module("altup", (at) => new AltUp(at, place.width, altUp)) : null;
    this.#laurel = altUp ? weights.module("laurel", (at) => new Laurel(at, place.width, altUp.laurelRank, altUp.norm)) : null;
    this.#experts = experts ? new ExpertBranch(weights, place.width, experts) : null;
    this.#perLayer = perLayer ? new PerLayerBranch(weights, place.layer, place.width, perLayer) : null;
    if (scalar !== undefined) Reflect.set(this, scalar, weights.tensor(scalar, [1], ones));
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
      const { beforeMixer, afterMixer } = this.#norms;
      const normed = beforeMixer?.forward(input) ?? input;
      const result = this.#mixer.forward(normed, pass);
      const mixed = input.add(this.#scaled(afterMixer?.forward(result) ?? result));
      const fed = this.#feedForward ? mixed.add(this.#fed(this.#feedForward, input, normed, mixed)) : mixed;
      const told = this.#perLayer ? fed.add(this.#perLayer.forward(fed, pass.perLayer)) : fed;
      const { scalar } = this.#options;
      return scalar === undefined ? told : told.mul(Reflect.get(this, scalar) as Tensor);
    });
  }

  /** Streams [batch, seq, width] each → the same: the layer computes with one, and the others follow (Gemma 3n). */
  streams(given: readonly Tensor[], pass: Pass): readonly Tensor[] {
    const { beforeMixer, afterMixer } = this.#norms;
    const altUp = this.#altUp;
    const active = this.#options.altUp?.active ?? 0;
    if (!altUp || !this.#laurel || !this.#feedForward) throw new Error("Layer: it has no streams.");
    const predicted = altUp.predicted(given);
    const input = predicted[active] as Tensor;
    const normed = beforeMixer?.forward(input) ?? input;
    const result = this.#mixer.forward(normed, pass);
    const attended = input.add(afterMixer?.forward(result) ?? result);
    const mixed = attended.add(this.#laurel.forward(normed)).mul(Math.SQRT1_2);
    const corrected = altUp.corrected(predicted, mixed.add(this.#fed(this.#feedForward, input, normed, mixed)));
    const told = this.#perLayer?.forward(altUp.gate(corrected), pass.perLayer);
    return told ? corrected.map((stream, index) => (index === 0 ? stream : stream.add(told))) : corrected;
  }

  /** What the feed-forward adds. */
  #fed(feedForward: FeedForward, input: Tensor, normed: Tensor, mixed: Tensor): Tensor {
    const { beforeFeedForward, afterFeedForward } = this.#norms;
    const { isParallel = false } = this.#options;
    const read = isParallel ? input : mixed;
    const inner = feedForward.forward(beforeFeedForward?.forward(read) ?? (isParallel ? normed : read));
    const joined = this.#experts?.forward(inner, read) ?? inner;
    return this.#scaled(afterFeedForward?.forward(joined) ?? joined);
  }

  #scaled(x: Tensor): Tensor {
    const { residualScale = 1 } = this.#options;
    return residualScale === 1 ? x : x.mul(residualScale);
  }
}
