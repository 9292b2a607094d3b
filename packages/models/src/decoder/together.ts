import { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import type { Kept } from "../causal-lm.js";
import type { Weights } from "../parameters.js";
import type { FeedForward } from "./feed-forward.js";
import { made, type NamedPart } from "./layer.js";
import type { Mixer, Part, Place } from "./mixer.js";
import type { Pass } from "./pass.js";

/** A mixer among others, with what its input and its result are multiplied by. */
export interface ScaledMixer extends NamedPart<Mixer> {
  readonly inputScale?: number;
  readonly outputScale?: number;
}

/** Mixers side by side: the sum of what each gives of the layer's input. */
class Mixers extends nn.Module implements Mixer {
  readonly keeps: Kept;
  readonly takesPacked: boolean;
  readonly usualTargets: readonly string[];
  readonly #mixers: readonly { readonly mixer: Mixer; readonly inputScale: number; readonly outputScale: number }[];

  constructor(weights: Weights, place: Place, parts: readonly ScaledMixer[]) {
    super();
    this.#mixers = parts.map((part) => {
      const { inputScale = 1, outputScale = 1 } = part;
      return { mixer: made(part, weights, place), inputScale, outputScale };
    });
    const mixers = this.#mixers.map(({ mixer }) => mixer);
    const keysValues = mixers.find(({ keeps }) => keeps.keysValues)?.keeps.keysValues;
    this.keeps = {
      ...(keysValues && { keysValues }),
      state: Object.assign({}, ...mixers.map(({ keeps }) => keeps.state)) as Kept["state"] & object,
    };
    this.takesPacked = mixers.every((mixer) => mixer.takesPacked);
    this.usualTargets = mixers.flatMap((mixer) => mixer.usualTargets);
  }

  /** [batch, seq, width] → the same shape. */
  forward(x: Tensor, pass: Pass): Tensor {
    const results = this.#mixers.map(({ mixer, inputScale, outputScale }) =>
      scaled(mixer.forward(scaled(x, inputScale), pass), outputScale),
    );
    return results.reduce((sum, result) => sum.add(result));
  }
}

/** Feed-forward layers side by side. */
class FeedForwards extends nn.Module implements FeedForward {
  readonly #parts: readonly FeedForward[];

  constructor(weights: Weights, place: Place, parts: readonly NamedPart<FeedForward>[]) {
    super();
    this.#parts = parts.map((part) => made(part, weights, place));
  }

  forward(x: Tensor): Tensor {
    return this.#parts.map((part) => part.forward(x)).reduce((sum, result) => sum.add(result));
  }
}

/** A feed-forward layer that stands where others have a mixer. */
class FeedForwardMixer extends nn.Module implements Mixer {
  readonly keeps: Kept = {};
  readonly takesPacked: boolean = true;
  readonly usualTargets: readonly string[] = [];
  readonly #feedForward: FeedForward;

  constructor(feedForward: FeedForward) {
    super();
    this.#feedForward = feedForward;
  }

  forward(x: Tensor): Tensor {
    return this.through(x, (input) => this.#feedForward.forward(input));
  }
}

function scaled(x: Tensor, factor: number): Tensor {
  return factor === 1 ? x : x.mul(factor);
}

/** Mixers side by side; adapters that go on a layer's attention go on the one named. */
export function mixersTogether(parts: readonly ScaledMixer[], named: string): NamedPart<Mixer> {
  return { name: named, part: (weights, place) => new Mixers(weights, place, parts), isSeveral: true };
}

/** Feed-forward layers side by side; adapters that go on a layer's feed-forward go on the first. */
export function feedForwardsTogether(parts: readonly NamedPart<FeedForward>[]): NamedPart<FeedForward> {
  return { name: parts[0]?.name ?? "", part: (weights, place) => new FeedForwards(weights, place, parts), isSeveral: true };
}

/** A feed-forward layer as the mixer of a layer that has nothing else. */
export function asMixer(part: Part<FeedForward>): Part<Mixer> {
  return (weights, place) => new FeedForwardMixer(part(weights, place));
}
