import { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import { type ActivationName, activations } from "../activation.js";
import { normal, type StoredPiece, type Weights, zeros } from "../parameters.js";
import { ExpertProjection } from "./expert-projection.js";
import { DenseFeedForward, type FeedForward, type FeedForwardOptions } from "./feed-forward.js";
import { dispatch, fromBlocks, toBlocks } from "./grouped-product.js";
import type { Part, Place } from "./mixer.js";
import { type RoutingOptions, route } from "./routing.js";

/** What experts do between their projections: act(gate) · up, act(up), or gpt-oss's clamped form, whose gates and ups alternate. */
export type ExpertActivation =
  | { readonly kind: "gated"; readonly activation: ActivationName }
  | { readonly kind: "plain"; readonly activation: ActivationName }
  /** With g = min(gate, limit) and u = clamp(up, ±limit): (u + 1) g sigmoid(alpha g). */
  | { readonly kind: "clamped"; readonly limit: number; readonly alpha: number };

/** Experts, of which each token goes through some. */
export interface ExpertsOptions {
  readonly count: number;
  /** Width between an expert's projections. */
  readonly inner: number;
  readonly activation: ExpertActivation;
  /**
   * How checkpoints hold the experts' weights: a tensor per expert and projection, by these names, or one for all, [experts, in, out] where
   * transposed, by names of the checkpoint's own beside `experts` where it has such.
   */
  readonly stored:
    | {
        readonly kind: "each";
        readonly gate?: string;
        readonly up: string;
        readonly down: string;
        /** Targets of adapters that name them mean the experts' weights, as PEFT translates them for some families (`_MOE_TARGET_MODULE_MAPPING`). */
        readonly areTargets?: boolean;
      }
    | {
        readonly kind: "stacked";
        readonly isTransposed: boolean;
        readonly bias: boolean;
        readonly names?: { readonly up: string; readonly down: string };
      };
  readonly router: {
    readonly name: string;
    /** What checkpoints call its weight. */
    readonly stored?: string;
    readonly bias?: boolean;
    /** The name, below the router, of numbers added to the scores for the choice alone. */
    readonly correction?: string;
    /** What checkpoints call them. */
    readonly storedCorrection?: string;
  };
  readonly routing: RoutingOptions;
  /** A feed-forward layer that every token goes through, and its gate: sigmoid(gate(x)) times it. */
  readonly shared?: { readonly name: string; readonly options: FeedForwardOptions; readonly gate?: string };
  /** Experts read a short vector of each token, and give one, by these projections (Nemotron 3). */
  readonly latent?: { readonly size: number; readonly in: string; readonly out: string; readonly bias: boolean } | null;
}

/** The stacked weights of all experts. Properties are the parameters' names. */
export class Experts extends nn.Module {
  readonly #up: ExpertProjection;
  readonly #down: ExpertProjection;
  readonly #options: ExpertsOptions;

  constructor(weights: Weights, width: number, options: ExpertsOptions) {
    super();
    this.#options = options;
    const { inner, activation, stored } = options;
    const isGated = activation.kind !== "plain";
    const upName = isGated ? "gate_up_proj" : "up_proj";
    const wide = isGated ? 2 * inner : inner;
    const each = stored.kind === "each" ? stored : null;
    this.#up = this.#projection(weights, upName, width, wide, each ? [...(each.gate ? [each.gate] : []), each.up] : []);
    this.#down = this.#projection(weights, "down_proj", inner, width, each ? [each.down] : []);
  }

  /** The projections by the names of their weights. */
  get projections(): ReadonlyMap<string, ExpertProjection> {
    return new Map([this.#up, this.#down].map((projection) => [projection.key, projection]));
  }

  /** x [tokens, width], the experts of each token and their weights → [tokens, width]. */
  forward(x: Tensor, experts: Tensor, weights: Tensor): Tensor {
    const plan = dispatch(experts, this.#options.count);
    const widened = this.#activated(this.#up.forward(toBlocks(x, plan), plan));
    return fromBlocks(this.#down.forward(widened, plan), weights, plan);
  }

  #activated(x: Tensor): Tensor {
    const { activation, inner } = this.#options;
    switch (activation.kind) {
      case "plain":
        return activations[activation.activation](x);
      case "gated":
        return activations[activation.activation](x.narrow(-1, 0, inner)).mul(x.narrow(-1, inner, inner));
      case "clamped": {
        const [blocks = 0, rows = 0] = x.shape;
        const pairs = x.reshape([blocks, rows, inner, 2]);
        const [gate, up] = [pairs.narrow(3, 0, 1).squeeze(3), pairs.narrow(3, 1, 1).squeeze(3)];
        const g = gate.minimum(activation.limit);
        return up.clamp(-activation.limit, activation.limit).add(1).mul(g).mul(g.mul(activation.alpha).sigmoid());
      }
    }
  }

  /** `names`: the layers of one expert whose outputs are this projection's, one behind the other. */
  #projection(weights: Weights, key: string, inFeatures: number, outFeatures: number, names: readonly string[]): ExpertProjection {
    const { count, stored } = this.#options;
    const isTransposed = stored.kind === "stacked" && stored.isTransposed;
    const areTargets = stored.kind === "each" && stored.areTargets;
    const shape = isTransposed ? [count, inFeatures, outFeatures] : [count, outFeatures, inFeatures];
    const each = Array.from({ length: count }, (_, expert) =>
      names.map((name): StoredPiece => ({ name: `${expert}.${name}.weight`, shape: [outFeatures / names.length, inFeatures] })),
    ).flat();
    const whole = stored.kind === "stacked" ? stored.names?.[key === "down_proj" ? "down" : "up"] : undefined;
    const pieces = whole === undefined ? each : [{ name: `../${whole}`, shape }];
    Reflect.set(this, key, weights.tensor(key, shape, normal, pieces, true));
    const bias = stored.kind === "stacked" && stored.bias ? `${key}_bias` : null;
    if (bias !== null) Reflect.set(this, bias, weights.tensor(bias, [count, outFeatures], zeros));
    return new ExpertProjection(this, key, {
      experts: count,
      inFeatures,
      outFeatures,
      isTransposed,
      bias,
      formerNames: areTargets ? names : [],
    });
  }
}

/** A router's projection, with what moves its choice. */
class Router extends nn.Linear {
  /** Tells adapters that it is no layer of its own in transformers. */
  readonly isRouter: boolean = true;
  readonly #correction: string | null = null;

  constructor(
    weights: Weights,
    width: number,
    count: number,
    { bias = false, correction, stored, storedCorrection }: ExpertsOptions["router"],
  ) {
    const shape = [count, width];
    super(
      weights.tensor("weight", shape, normal, stored === undefined ? [] : [{ name: stored, shape }]),
      bias ? weights.tensor("bias", [count], zeros) : null,
    );
    if (correction === undefined) return;
    const pieces = storedCorrection === undefined ? [] : [{ name: storedCorrection, shape: [count] }];
    Reflect.set(this, correction, weights.tensor(correction, [count], zeros, pieces));
    this.#correction = correction;
  }

  /** [experts]. */
  get correction(): Tensor | null {
    return this.#correction === null ? null : (Reflect.get(this, this.#correction) as Tensor);
  }
}

/** A mixture of experts (Shazeer et al. 2017; Jiang et al. 2024): Σ weight · expert(x) over the experts that a router chooses, with what all share. */
export class MixtureOfExperts extends nn.Module implements FeedForward {
  readonly #options: ExpertsOptions;
  readonly #router: Router;
  readonly #experts: Experts;
  readonly #latent: { readonly in: nn.Linear; readonly out: nn.Linear } | null;
  readonly #shared: FeedForward | null;
  readonly #sharedGate: nn.Linear | null;

  constructor(weights: Weights, place: Place, options: ExpertsOptions) {
    super();
    this.#options = options;
    const { width } = place;
    const { count, router, shared, latent = null } = options;
    this.#router = weights.module(router.name, (at) => new Router(at, width, count, router));
    this.#experts = weights.module("experts", (at) => new Experts(at, latent?.size ?? width, options));
    this.#latent = latent && {
      in: weights.dense(latent.in, width, latent.size, { bias: latent.bias }),
      out: weights.dense(latent.out, latent.size, width, { bias: latent.bias }),
    };
    this.#shared = shared ? weights.module(shared.name, (at) => new DenseFeedForward(at, place, shared.options)) : null;
    this.#sharedGate = shared?.gate === undefined ? null : weights.dense(shared.gate, width, 1);
  }

  /** [..., width] → the same shape. */
  forward(x: Tensor): Tensor {
    return this.through(x, (input) => {
      const width = input.shape[input.rank - 1] ?? 0;
      const tokens = input.reshape([input.size / width, width]);
      const routed = route(this.#router.forward(tokens), this.#options.routing, this.#router.correction);
      const read = this.#latent?.in.forward(tokens) ?? tokens;
      const given = this.#experts.forward(read, routed.experts, routed.weights);
      const chosen = (this.#latent?.out.forward(given) ?? given).reshape(input.shape);
      if (!this.#shared) return chosen;
      const all = this.#shared.forward(input);
      return chosen.add(this.#sharedGate ? all.mul(this.#sharedGate.forward(input).sigmoid()) : all);
    });
  }
}

/** A mixture of experts as the feed-forward layer. */
export function experts(options: ExpertsOptions): Part<FeedForward> {
  return (weights, place) => new MixtureOfExperts(weights, place, options);
}
